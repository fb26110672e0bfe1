"""Decoded pixels on disk, found again by content."""
