"""Compute metrics with intervals from arrays; reads and writes no file."""
