"""Formats of photographs: which are read, and how damage inside a file is found."""
