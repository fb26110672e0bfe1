"""Explanations of a trained classifier for one photograph; uses checkpoints and networks, writes no file."""
