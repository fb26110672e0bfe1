"""Convert images that PIL has decoded to 8-bit sRGB."""

import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms


class Refused(Exception):
    """An image cannot be used; the message is the reason in plain words, to which `images.load_rgb` adds the path."""


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Return a new sRGB image, converted with the embedded profile, transparent parts on white."""
    if image.mode.startswith("I") or image.mode == "F":
        image = _to_eight_bits(image)
    alpha = None
    if image.has_transparency_data:
        image = image.convert("LA" if image.mode in ("1", "L", "LA", "La") else "RGBA")
        alpha = image.getchannel("A")
    if image.mode != "CMYK":
        image = image.convert("L" if image.mode in ("1", "L", "LA") else "RGB")
    transform = _transform_to_srgb(profile, image.mode) if profile else None
    rgb = image.convert("RGB") if transform is None else _apply(image, transform)
    if alpha is None:
        return rgb
    white = Image.new("RGB", rgb.size, "white")
    white.paste(rgb, mask=alpha)
    return white


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Scale 16-bit grey (white is 65535) to "L", or to "LA" if one value means transparent."""
    if image.mode == "F":
        raise Refused("floating-point values, whose white level is unknown: export the image with 8 or 16 bits")
    values = np.asarray(image)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise Refused(f"values from {low} to {high}; the white level is only known for 0 to 65535 (16 bits)")
    grey = Image.fromarray(((values.astype(np.uint32) + 128) // 257).astype(np.uint8))
    if isinstance(transparent := image.info.get("transparency"), int):
        alpha = Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8))
        return Image.merge("LA", (grey, alpha))
    return grey


@lru_cache(maxsize=16)
def _transform_to_srgb(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Return the transform from an ICC profile to sRGB; None if the profile is broken, of another mode, or sRGB."""
    probe = Image.new(mode, (0, 0))
    if mode == "L":
        probe = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    elif mode == "RGB":
        levels = np.linspace(0, 255, 9).astype(np.uint8)
        probe = Image.fromarray(np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(1, -1, 3))
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
        if mode == "CMYK":
            return transform
        change = np.asarray(_apply(probe, transform), dtype=int) - np.asarray(probe.convert("RGB"), dtype=int)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
    # Cameras write sRGB profiles under many names; they are recognised by their effect, up to rounding.

    return transform if np.abs(change).max() > 2 else None


def _apply(image: Image.Image, transform: ImageCms.ImageCmsTransform) -> Image.Image:
    converted = ImageCms.applyTransform(image, transform)
    if converted is None:  # only with inPlace=True
        raise Refused("the colours cannot be converted to sRGB")
    return converted
