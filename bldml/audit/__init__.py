"""Audit of a set of photographs: damage, repeated photographs, leaks between splits, imbalance, shortcuts."""
