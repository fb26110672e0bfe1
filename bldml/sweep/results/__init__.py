"""What the finished runs of an experiment show together."""
