"""Comparison of runs on the same photographs."""
