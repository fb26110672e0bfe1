"""Experiments: many runs that differ in a plan's way, and what they say together."""
