"""How much "nothing was found" is worth on these photographs: changed copies are planted and searched for.

Nothing is written: copies of a sample are made in memory and compared with the set by the same detectors as the set
itself. Planted copies are not all relatives that exist: another angle, light or day is not planted.
"""

import hashlib
import io
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import zip_longest

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance

from bldml.audit.examine import TARGET, Row
from bldml.dataset.duplicates.keypoints import Keypoints, describe_keypoints
from bldml.dataset.duplicates.lookalikes import find_lookalikes
from bldml.dataset.duplicates.phash import PHash, PHashes, find_near_duplicates_between, perceptual_hash
from bldml.dataset.images import UnreadableImage
from bldml.dataset.unchanged import load_unchanged
from bldml.io.system import processors
from bldml.io.text import counted
from bldml.metrics.proportions import proportion
from bldml.report.tables import Entry, Shown, Table, text_table

PLANTED = 60  # photographs that copies are made of, at most
FEWEST, ONE_IN = 8, 5  # of a small set, this many, or this part of it
PLANTED_LOOK_ALIKES = 20  # those of them for which look-alikes are searched, which takes longer
TOGETHER = 4  # kinds of copies in one search: more would crowd each other out of the candidates
COMPARED = 1_000  # photographs that the copies are compared with, at most
SIDE = 512  # pixels of the longer side of the image that copies are made of
LEAST_SIDE = 32  # pixels of the shorter side; copies of a smaller image would show nothing
RELIABLE = 0.95  # proportion found above which a kind counts as found

Change = Callable[[Image.Image, np.random.Generator], Image.Image]


def _saved(image: Image.Image, file_format: str, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, file_format, quality=quality)
    return Image.open(file).convert("RGB")


def _part(image: Image.Image, fraction: float, generator: np.random.Generator) -> Image.Image:
    """Return a part with this fraction of both sides, anywhere."""
    width, height = (max(1, round(side * fraction)) for side in image.size)
    left, top = (int(generator.integers(rest + 1)) for rest in (image.width - width, image.height - height))
    return image.crop((left, top, left + width, top + height))


def _padded(image: Image.Image) -> Image.Image:
    """Return a square, or of a square photograph a wide image, with black bars."""
    side = max(image.size)
    size = (side, side) if image.width != image.height else (side * 4 // 3, side)
    ground = Image.new("RGB", size)
    ground.paste(image, ((size[0] - image.width) // 2, (size[1] - image.height) // 2))
    return ground


def _captioned(image: Image.Image) -> Image.Image:
    """Return the photograph with a white bar below, and writing on it."""
    bar = max(8, image.height // 8)
    page = Image.new("RGB", (image.width, image.height + bar), "white")
    page.paste(image)
    ImageDraw.Draw(page).text((bar // 4, image.height + bar // 4), "2024-06-01  plot 12  leaf 3", "black")
    return page


def _turned(angle: int) -> Change:
    return lambda image, _: image.rotate(angle, Image.Resampling.BILINEAR)


OVERLAPPING = "overlapping tiles, half in common"
"""Of these, one tile is added to the set and the other is searched for; of all others, the photograph is in the set."""
PLANTS: dict[str, Change] = {
    "half the size": lambda image, _: image.reduce(2),
    "JPEG of quality 60": lambda image, _: _saved(image, "JPEG", 60),
    "WebP of quality 80": lambda image, _: _saved(image, "WEBP", 80),
    "turned by 90°": lambda image, _: image.transpose(Image.Transpose.ROTATE_90),
    "mirrored": lambda image, _: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "30 % brighter": lambda image, _: ImageEnhance.Brightness(image).enhance(1.3),
    "padded with black": lambda image, _: _padded(image),
    "caption bar below": lambda image, _: _captioned(image),
    "cropped to 95 % of the sides": lambda image, generator: _part(image, 0.95, generator),
    "cropped to 80 % of the sides": lambda image, generator: _part(image, 0.8, generator),
    "cropped to 50 % of the sides": lambda image, generator: _part(image, 0.5, generator),
    OVERLAPPING: lambda image, _: image.crop((image.width // 3, 0, image.width, image.height)),
    "turned by 10°": _turned(10),
    "turned by 25°": _turned(25),
    "turned by 45°": _turned(45),
}


_FIRST_TILE = "first tile"


def _first_tile(image: Image.Image, _: np.random.Generator) -> Image.Image:
    return image.crop((0, 0, image.width - image.width // 3, image.height))


@dataclass(frozen=True)
class PlantedKind:
    """What was found of one kind of planted copies."""

    kind: str
    planted: int
    near: int  # found as near duplicates
    asked: int  # copies that look-alikes were also searched for; 0 if they were not
    found: int  # of these, found as near duplicates or look-alikes


@dataclass(frozen=True)
class Power:
    """Result for all kinds."""

    kinds: tuple[PlantedKind, ...]
    compared: int  # photographs of the set that the copies were compared with
    mistaken: int  # copies that were taken for a copy of a photograph that is not known to be related
    copies: int  # copies altogether

    def sentence(self) -> str:
        """Return the result in one line."""
        weak = [kind for kind in self.kinds if _found(kind) < RELIABLE]
        good = len(self.kinds) - len(weak)
        text = f"Planted copies: {good} of {counted(len(self.kinds), 'kind')} found at {100 * RELIABLE:.0f} % or more"
        if weak:
            text += "; fewer of " + ", ".join(f"{kind.kind} ({_numbers(kind)})" for kind in weak)
        return f"{text}. Taken for a copy of an unrelated photograph: {self.mistaken:,} of {self.copies:,}."


def _counts(kind: PlantedKind) -> tuple[int, int]:
    return (kind.found, kind.asked) if kind.asked else (kind.near, kind.planted)


def _found(kind: PlantedKind) -> float:
    found, planted = _counts(kind)
    return found / planted


def _numbers(kind: PlantedKind) -> str:
    found, planted = _counts(kind)
    return f"{found} of {planted}"


def power_table(power: Power) -> Table:
    """Return the table of the page: of each kind, how many were planted and found, with a 95 % interval (Wilson)."""
    rows: list[list[Shown]] = []
    for kind in power.kinds:
        found, planted = _counts(kind)
        low, value, high = proportion(found, planted).numbers or (0.0, 0.0, 1.0)
        look = "" if value >= RELIABLE else "faint"
        interval = Entry(f"{100 * value:.0f} %", f"{100 * low:.0f} to {100 * high:.0f} %", look=look)
        alike = f"{kind.found} of {kind.asked}" if kind.asked else None
        rows.append([kind.kind, f"{kind.near} of {kind.planted}", alike, interval])
    caption = (
        f"Changed copies of some photographs were searched for among {power.compared:,} of the set: how many were "
        "found as near duplicates, and as near duplicates or look-alikes. Taken for a copy of a photograph not known "
        f"to be related: {power.mistaken:,} of {power.copies:,}. Relatives of other kinds, such as a leaf from another "
        "angle or on another day, were not planted."
    )
    header = ("Planted copy", "Near duplicates", "With look-alikes", "Found, 95 % interval")
    return text_table("power", caption, header, rows)


def power_json(power: Power) -> dict[str, object]:
    """Return the result for other programs, with the interval of the table."""
    kinds = []
    for kind in power.kinds:
        low, value, high = proportion(*_counts(kind)).numbers or (None, None, None)
        kinds.append({**asdict(kind), "proportion": value, "low": low, "high": high})
    return {**asdict(power), "kinds": kinds}


def choose_originals(rows: Sequence[Row], units: Sequence[int]) -> list[int]:
    """Return indexes of up to `PLANTED` photographs with a perceptual hash: of all classes in turn, one of a unit."""
    by_class: dict[str, list[int]] = {}
    seen: set[int] = set()
    for i in _in_random_order(rows):
        if units[i] not in seen and rows[i].file.phash.any():
            seen.add(units[i])
            by_class.setdefault(rows[i].sample.class_name, []).append(i)
    in_turn = [i for turn in zip_longest(*by_class.values()) for i in turn if i is not None]
    return in_turn[: min(PLANTED, max(FEWEST, len(rows) // ONE_IN))]


def _in_random_order(rows: Sequence[Row]) -> list[int]:
    """Return all indexes; the same photographs give the same order."""
    keys = [hashlib.sha256(f"plant {row.file.digest}".encode()).digest() for row in rows]
    return sorted(range(len(rows)), key=lambda i: (keys[i], rows[i].name))


def _small(row: Row) -> Image.Image | None:
    try:
        image = load_unchanged(row.sample.path, row.file.digest, TARGET)
    except UnreadableImage:  # changed since it was examined
        return None
    image.thumbnail((SIDE, SIDE), Image.Resampling.BOX)
    return image if min(image.size) >= LEAST_SIDE else None


@dataclass(frozen=True, eq=False)
class _Copies:
    """Copies of one kind, of all originals."""

    kind: str
    hashes: PHashes
    described: list[Keypoints]  # of the first ones, if look-alikes are searched


def measure_power(rows: Sequence[Row], units: Sequence[int], described: Sequence[Keypoints] | None) -> Power | None:
    """Plant changed copies of a sample and search for them in the set; None if no photograph can be used.

    Args:
        rows: All readable photographs.
        units: Of each photograph, the unit of those that are known to belong together.
        described: Keypoints of all photographs; None if look-alikes are not searched.
    """
    chosen = choose_originals(rows, units)
    with ThreadPoolExecutor(processors()) as pool:
        loaded = dict(zip(chosen, pool.map(_small, (rows[i] for i in chosen)), strict=True))
        images = {i: image for i, image in loaded.items() if image is not None}
        if not images:
            return None
        asked = PLANTED_LOOK_ALIKES if described is not None else 0
        planted = [_plant(kind, list(images.values()), asked, pool) for kind in PLANTS]
        tiles = _plant(_FIRST_TILE, list(images.values()), asked, pool)
    own = [units[i] for i in images]
    others = sorted(set(_in_random_order(rows)[:COMPARED]) | set(images))
    known = _Known(
        np.stack([*(rows[i].file.phash for i in others), *tiles.hashes]),
        [] if described is None else [*(described[i] for i in others), *tiles.described],
        [units[i] for i in others] + own,
        len(others),
    )
    near = known.near(planted, own)
    alike = known.alike(planted, own) if described is not None else [(set[int](), set[int]())] * len(planted)
    kinds, mistaken = [], 0
    for copies, (found, wrong), (look, wrong_look) in zip(planted, near, alike, strict=True):
        n = len(copies.described)
        kinds.append(PlantedKind(copies.kind, len(own), len(found), n, len({i for i in found | look if i < n})))
        mistaken += len(wrong | wrong_look)
    return Power(tuple(kinds), len(others), mistaken, len(own) * len(PLANTS))


def _plant(kind: str, images: Sequence[Image.Image], asked: int, pool: ThreadPoolExecutor) -> _Copies:
    def make(number: int) -> tuple[PHash, Keypoints | None]:
        change = _first_tile if kind == _FIRST_TILE else PLANTS[kind]
        copy = _saved(change(images[number], np.random.default_rng([number, len(kind)])), "JPEG", 90)
        return perceptual_hash(copy), describe_keypoints(copy) if number < asked else None

    made = list(pool.map(make, range(len(images))))
    hashes = np.stack([phash for phash, _ in made])
    return _Copies(kind, hashes, [keypoints for _, keypoints in made if keypoints is not None])


@dataclass(frozen=True, eq=False)
class _Known:
    """Photographs of the set, and after them the first tiles, whose partners are planted."""

    hashes: PHashes
    described: Sequence[Keypoints]
    units: Sequence[int]
    photographs: int

    def near(self, planted: Sequence[_Copies], own: Sequence[int]) -> list[tuple[set[int], set[int]]]:
        """Return for each kind the numbers of copies found as near duplicates, and of those taken for others'."""
        results = []
        for start in range(0, len(planted), TOGETHER):
            together = planted[start : start + TOGETHER]
            pairs = find_near_duplicates_between(self.hashes, np.concatenate([copies.hashes for copies in together]))
            for number, copies in enumerate(together):
                of_kind = [(pair.a, pair.b % len(own)) for pair in pairs if pair.b // len(own) == number]
                results.append(self._judged(copies.kind, of_kind, own))
        return results

    def alike(self, planted: Sequence[_Copies], own: Sequence[int]) -> list[tuple[set[int], set[int]]]:
        """Return the same for look-alikes, for each kind."""
        results = []
        for start in range(0, len(planted), TOGETHER):
            together, first = planted[start : start + TOGETHER], len(self.described)
            described = [*self.described, *(one for copies in together for one in copies.described)]
            pairs = find_lookalikes(described, range(first, len(described)))
            for copies in together:
                end = first + len(copies.described)
                to_set = [pair for pair in pairs if pair.a < len(self.described)]  # others are pairs of copies
                of_kind = [(pair.a, pair.b - first) for pair in to_set if first <= pair.b < end]
                results.append(self._judged(copies.kind, of_kind, own))
                first = end
        return results

    def _judged(self, kind: str, pairs: Iterable[tuple[int, int]], own: Sequence[int]) -> tuple[set[int], set[int]]:
        found, mistaken = set(), set()
        for a, number in pairs:
            if self.units[a] != own[number]:
                mistaken.add(number)
            elif (a >= self.photographs) == (kind == OVERLAPPING):
                found.add(number)
        return found, mistaken
