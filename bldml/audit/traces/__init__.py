"""Traces in a file and its pixels of how it was made: what a class should not be predicted from."""
