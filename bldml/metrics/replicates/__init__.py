"""Replicates of one configuration, which are its seeds and folds: one estimate from all of them, and comparisons."""
