"""The error of a file that cannot be used, as the modules of this folder raise it."""


class Refused(Exception):
    """An image cannot be used; the message is the reason in plain words, to which `load_rgb` adds the path."""
