"""From photographs on disk to batches."""
