"""Digests of the files of a run, by which a later reader says that one of them was changed."""
