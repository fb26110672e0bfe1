"""Photographs on disk become batches."""
