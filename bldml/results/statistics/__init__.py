"""Intervals and paired tests: arrays in, estimates out."""
