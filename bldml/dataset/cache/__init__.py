"""Resized images on disk, found again by content."""
