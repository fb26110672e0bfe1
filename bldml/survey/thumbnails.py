"""Small pictures inside a page: data URLs of pixels alone, without the metadata of the photograph."""

import base64
import io
from pathlib import Path

from PIL import Image

from bldml.dataset.images import load_rgb

SIDE, QUALITY = 256, 80  # pixels of the longer side, JPEG quality


def thumbnail(path: Path) -> Image.Image:
    """Return a photograph with at most SIDE pixels on its longer side.

    Raises:
        UnreadableImage: It cannot be read.
    """
    picture = load_rgb(path, SIDE)
    picture.thumbnail((SIDE, SIDE), Image.Resampling.BOX)
    return picture


def data_url(picture: Image.Image) -> str:
    """Return a picture as a data URL of a JPEG."""
    file = io.BytesIO()
    picture.save(file, format="JPEG", quality=QUALITY)  # load_rgb drops the photograph's metadata
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
