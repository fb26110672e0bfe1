"""Draw one beech leaf, healthy or with beech leaf disease.

The disease appears as dark bands between the side veins. Everything else (background, light, pose, leaf colour, specks,
holes) is drawn in the same way for both classes, so a classifier has to find the bands.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

Field = npt.NDArray[np.float32]
"""One value per pixel, (height, width); colours are (height, width, 3) or (3,), 0 black to 1 white."""


class _Blade(NamedTuple):
    """Leaf coordinates at every pixel, in leaf lengths unless stated otherwise."""

    along: Field  # from the base (0) to the tip (1)
    across: Field  # from the midrib, negative on one side
    half_width: Field  # of the blade at `along`; 0 beyond its ends
    cell: Field  # number of the side vein below plus the fraction of the distance to the next; 0.5: midway
    vein_pairs: int
    pixel: float  # side of one pixel


def draw_leaf(diseased: bool, size: int, generator: np.random.Generator) -> Image.Image:
    """Draw one photograph of a beech leaf in RGB; the generator is the only source of randomness.

    The longer side has `size` pixels, the shorter 3/4 of it, or both are equal.
    """
    short = round(size * 3 / 4)
    height, width = ((short, size), (size, short), (size, size))[generator.choice(3, p=[0.45, 0.35, 0.2])]
    blade = _place_blade(height, width, generator)
    tissue = _paint_tissue(blade, generator)
    opacity, specks = _outline(blade, generator)
    scene = _paint_background(height, width, generator)
    scene = _cast_shadow(scene, opacity, generator)
    light = _light(height, width, generator)
    noise = generator.normal(0, generator.uniform(0.004, 0.016), (height, width, 3)).astype(np.float32)
    sharpness = generator.uniform(0.0, 0.9) * size / 256
    # The only difference between the classes is drawn last, so that nothing else depends on it.
    if diseased:
        tissue = _paint_bands(tissue, blade, generator)
    tissue = tissue + specks[..., None] * (_colour(0.30, 0.20, 0.11) - tissue)
    scene = scene + opacity[..., None] * (tissue - scene)
    image = Image.fromarray(np.uint8(np.clip(scene * light + noise, 0, 1) * 255 + 0.5))
    return image.filter(ImageFilter.GaussianBlur(sharpness))


def _place_blade(height: int, width: int, generator: np.random.Generator) -> _Blade:
    """Place a leaf of random shape in the frame: rotated, scaled, shifted, sheared, tilted and bent."""
    uniform = generator.uniform
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    length = uniform(0.72, 1.0) * min(height, width)
    rows -= height * uniform(0.42, 0.58)
    columns -= width * uniform(0.42, 0.58)
    turn = uniform(0, 2 * np.pi)
    along = (np.cos(turn) * columns + np.sin(turn) * rows) / length
    across = (np.cos(turn) * rows - np.sin(turn) * columns) / length
    depth = 1 + uniform(-0.25, 0.25) * along + uniform(-0.25, 0.25) * across
    along, across = along / depth + 0.5, across / depth
    along = along + uniform(-0.15, 0.15) * across
    across = (across - uniform(-0.10, 0.10) * np.sin(np.pi * along)) * uniform(0.92, 1.12)

    vein_pairs = int(generator.integers(6, 10))
    inside = np.clip(along, 0, 1)
    base, tip = uniform(0.55, 0.75), uniform(0.85, 1.1)
    widest = base / (base + tip)
    half_width = uniform(0.27, 0.36) * (inside / widest) ** base * ((1 - inside) / (1 - widest)) ** tip
    # Side veins leave the midrib towards the tip and bend a little; the two sides are not quite opposite.
    reach = np.abs(across)
    cell = (along - uniform(0.75, 1.0) * reach + uniform(0.3, 0.7) * reach**2) * (vein_pairs + 1)
    cell = cell + np.where(across > 0, np.float32(uniform(-0.25, 0.25)), np.float32(0))
    # The margin is wavy: it swells between the ends of the veins.
    half_width = half_width * (1 + uniform(0.0, 0.03) * -np.cos(2 * np.pi * cell))
    along, across, half_width, cell = np.asarray([along, across, half_width, cell], dtype=np.float32)
    return _Blade(along, across, half_width, cell, vein_pairs, pixel=1 / length)


def _colour(red: float, green: float, blue: float) -> Field:
    return np.array([red, green, blue], dtype=np.float32)


def _line(distance: npt.NDArray[np.floating], width: Field | float, pixel: float) -> Field:
    """Coverage in [0, 1] of an anti-aliased line, also of one thinner than a pixel."""
    return np.clip((width / 2 - distance) / pixel + 0.5, 0, np.minimum(1, width / pixel)).astype(np.float32)


def _paint_tissue(blade: _Blade, generator: np.random.Generator) -> Field:
    """Paint the healthy blade: uneven green, pleats that catch the light, midrib and side veins."""
    uniform = generator.uniform
    green = _colour(uniform(0.24, 0.40), uniform(0.44, 0.58), uniform(0.12, 0.24)) * uniform(0.75, 1.25)
    shape = blade.along.shape
    shade = 1 + 0.05 * _cloud(shape, 6, generator) + 0.03 * _cloud(shape, 24, generator)
    shade += uniform(-0.12, 0.12) * np.sign(blade.across)
    phase = blade.cell - np.floor(blade.cell)
    shade += uniform(0.0, 0.13) * np.sin(2 * np.pi * phase + uniform(0, 2 * np.pi))
    tissue = green * shade[..., None]
    to_vein = np.abs(blade.cell - np.round(blade.cell)) / (blade.vein_pairs + 1) * 0.75
    veins = _line(to_vein, 0.007, blade.pixel) * (blade.cell > 0.4)
    midrib = _line(np.abs(blade.across), 0.020 - 0.014 * np.clip(blade.along, 0, 1), blade.pixel)
    pale = _colour(0.62, 0.70, 0.36) * uniform(0.8, 1.1)
    lines = np.maximum(veins * uniform(0.35, 0.7), midrib * uniform(0.6, 0.9))
    return np.asarray(tissue + lines[..., None] * (pale - tissue), dtype=np.float32)


def _paint_bands(tissue: Field, blade: _Blade, generator: np.random.Generator) -> Field:
    """Darken the tissue between side veins: some bands, each with its own darkness and extent."""
    cells = np.clip(np.floor(blade.cell), 0, blade.vein_pairs + 1).astype(int)
    side = (blade.across > 0).astype(int)
    table = (2, blade.vein_pairs + 2)
    severity, strength = generator.uniform(0.1, 0.9), generator.uniform(0.25, 0.6)
    ill = generator.random(table) < severity
    ill[generator.integers(2), generator.integers(1, blade.vein_pairs - 1, size=2)] = True
    darkness = (ill * strength * generator.uniform(0.7, 1.1, table)).astype(np.float32)
    start = generator.uniform(-0.1, 0.25, table).astype(np.float32)[side, cells]
    end = generator.uniform(0.65, 1.2, table).astype(np.float32)[side, cells]
    ragged = 0.05 * _cloud(blade.along.shape, 20, generator)
    # Side veins delimit a band sharply; it fades towards midrib and margin.
    phase = blade.cell - np.floor(blade.cell)
    between = np.clip((0.5 - np.abs(phase - 0.5) - 0.07 + ragged) / 0.08, 0, 1)
    offset = np.abs(blade.across) / np.maximum(blade.half_width, blade.pixel)
    reach = np.clip((offset - start) / 0.12, 0, 1) * np.clip((end - offset) / 0.12, 0, 1)
    band = darkness[side, cells] * between * reach
    # Tissue beside the bands becomes paler as the bands darken, so that the mean colour does not reveal the class.
    blade_area = np.abs(blade.across) < blade.half_width
    paleness = min(float(band[blade_area].mean()), 0.25) if blade_area.any() else 0.0
    tint = _colour(1.0, 0.85, 0.95)
    return np.asarray(tissue * (1 + paleness) * (1 - band[..., None] * tint), dtype=np.float32)


def _outline(blade: _Blade, generator: np.random.Generator) -> tuple[Field, Field]:
    """Return the opacity of blade and stalk without holes and bites, and the strength of brown specks."""
    uniform = generator.uniform
    opacity = np.clip((blade.half_width - np.abs(blade.across)) / blade.pixel + 0.5, 0, 1)
    opacity = opacity * ((blade.along > 0) & (blade.along < 1))
    specks = np.zeros_like(blade.along)
    marks = {kind: generator.poisson(mean) for kind, mean in (("speck", 5), ("hole", 0.8), ("bite", 0.6))}
    for kind, count in marks.items():
        for _ in range(count):
            along, offset = uniform(0.12, 0.88), uniform(-0.9, 0.9)
            if kind == "bite":
                offset = np.sign(offset) * uniform(1.0, 1.2)
            radius = uniform(0.004, 0.018) if kind == "speck" else uniform(0.012, 0.04)
            nearest = np.argmin(np.abs(blade.along - along))
            across = offset * blade.half_width.flat[nearest]
            distance = np.hypot(blade.along - along, (blade.across - across) * uniform(0.7, 1.4))
            disc = np.clip((radius - distance) / blade.pixel + 0.5, 0, 1)
            if kind == "speck":
                specks = np.maximum(specks, disc * uniform(0.4, 0.9))
            else:
                opacity = opacity * (1 - disc)
    bend = uniform(-1.5, 1.5)
    stalk = _line(np.abs(blade.across - bend * blade.along**2), 0.018, blade.pixel)
    stalk = stalk * ((blade.along > -uniform(0.08, 0.2)) & (blade.along <= 0.02))
    return np.maximum(opacity, stalk).astype(np.float32), specks.astype(np.float32)


def _cloud(shape: tuple[int, ...], cells: int, generator: np.random.Generator) -> Field:
    """Return smooth noise of mean 0 and standard deviation of about 1, with `cells` cells along each side."""
    coarse = Image.fromarray(generator.normal(0, 1, (cells, cells)).astype(np.float32))
    return np.asarray(coarse.resize((shape[1], shape[0]), Image.Resampling.BICUBIC), dtype=np.float32)


def _paint_background(height: int, width: int, generator: np.random.Generator) -> Field:
    """Paint paper, leaf litter, a blurred hand, or sky between blurred leaves."""
    uniform = generator.uniform
    shape = (height, width)
    broad, fine = _cloud(shape, 4, generator), _cloud(shape, 40, generator)
    grain = generator.normal(0, 1, shape).astype(np.float32)
    kind = generator.integers(4)
    if kind == 0:
        back, front = _colour(0.84, 0.83, 0.80) * uniform(0.75, 1.15), _colour(0.80, 0.80, 0.80)
        mixture, texture = np.clip(0.1 * broad, 0, 1), 0.01 * grain
    elif kind == 1:
        back, front = _colour(0.36, 0.27, 0.18) * uniform(0.6, 1.3), _colour(0.55, 0.44, 0.30)
        mixture, texture = np.clip(0.4 + 0.4 * fine + 0.2 * broad, 0, 1), 0.05 * grain
    elif kind == 2:
        back = _colour(0.24, 0.30, 0.18) * uniform(0.6, 1.5)
        front = _colour(0.80, 0.60, 0.48) * uniform(0.55, 1.1)
        mixture, texture = np.clip(0.6 + 0.8 * broad, 0, 1), 0.01 * fine
    else:
        back = _colour(0.66, 0.78, 0.90) * uniform(0.8, 1.1)
        front = _colour(0.30, 0.42, 0.20) * uniform(0.6, 1.2)
        mixture, texture = np.clip(0.45 + 0.35 * _cloud(shape, 7, generator), 0, 1), 0.01 * grain
    return np.asarray(back + mixture[..., None] * (front - back) + texture[..., None], dtype=np.float32)


def _cast_shadow(scene: Field, opacity: Field, generator: np.random.Generator) -> Field:
    """Darken the background by the leaf's shadow, slightly offset from the leaf."""
    height, width = opacity.shape
    down, right = (round(step * max(height, width)) for step in generator.uniform(-0.03, 0.03, 2))
    blurred = Image.fromarray(np.uint8(255 * opacity)).filter(ImageFilter.BoxBlur(0.02 * max(height, width)))
    shadow = np.roll(np.asarray(blurred, dtype=np.float32) / 255, (down, right), axis=(0, 1))
    return np.asarray(scene * (1 - generator.uniform(0.0, 0.5) * shadow[..., None]), dtype=np.float32)


def _light(height: int, width: int, generator: np.random.Generator) -> Field:
    """Return the light on the scene: exposure, white balance, a gradient and sometimes the edge of a shadow."""
    uniform = generator.uniform
    rows, columns = np.mgrid[-0.5 : 0.5 : height * 1j, -0.5 : 0.5 : width * 1j].astype(np.float32)
    light = 1 + uniform(-0.25, 0.25) * rows + uniform(-0.25, 0.25) * columns
    turn, offset, softness = uniform(0, 2 * np.pi), uniform(-0.4, 0.4), uniform(0.02, 0.2)
    depth = uniform(0.15, 0.45) * (uniform() < 0.4)
    edge = (np.cos(turn) * rows + np.sin(turn) * columns - offset) / softness
    light = light * (1 - depth * np.clip(edge + 0.5, 0, 1))
    balance = _colour(uniform(0.88, 1.12), 1, uniform(0.85, 1.15)) * uniform(0.75, 1.2)
    return np.asarray(light[..., None] * balance, dtype=np.float32)
