"""Decode a photograph that was read before, if it is still the same file."""

from pathlib import Path

from PIL import Image

from bldml.dataset.images import UnreadableImage, load_rgb
from bldml.io.system import sha256_of


def load_unchanged(path: Path, digest: str, target_size: int | None = None) -> Image.Image:
    """Decode a photograph that was read before, as `load_rgb` does, if it is still the same file.

    Args:
        path: The photograph.
        digest: SHA-256 of the file when it was read before, in hexadecimal.
        target_size: As of `load_rgb`.

    Raises:
        UnreadableImage: As of `load_rgb`, or because the file has another content now.
    """
    photograph = load_rgb(path, target_size)
    try:
        # After decoding: a file that is replaced meanwhile is noticed too.
        is_same = sha256_of(path) == digest
    except OSError as error:
        raise UnreadableImage(path, error.strerror or str(error)) from error
    if not is_same:
        raise UnreadableImage(path, "its content has changed since it was first read")
    return photograph
