"""False near duplicates: how many pairs of different photographs that share a frame, a ruler or an interface match.

    python benchmarks/accusations.py [--coffee PHOTOGRAPHS] [--leaves 60] --output benchmarks/results/accusations.json

Each set shows different leaves with one thing in common: the same padding, interface, rim, ruler, label and so on. No
pair of such a set is a near duplicate. To each set, copies of its own photographs are then added, to see that they are
still found among photographs that are alike. Results of other versions of the perceptual hash stay in the file.
"""

import argparse
import io
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from bldml.dataset.duplicates.find import component_roots, groups_of_equal
from bldml.dataset.duplicates.phash import NEAR_SIMILARITY, PHASH_VERSION, find_near_duplicates, perceptual_hash
from bldml.dataset.images import load_rgb
from bldml.dataset.synthetic.drawing import draw_leaf

Furnish = Callable[[Image.Image], Image.Image]
SIDE = 320  # pixels of a drawn leaf's longer side


def pad(image: Image.Image, width: int, height: int, colour: int | None) -> Image.Image:
    """In the middle of a larger image: of one grey level, or (None) of a blurred enlargement."""
    if colour is None:
        ground = image.resize((width, height)).filter(ImageFilter.GaussianBlur(width / 16))
    else:
        ground = Image.new("RGB", (width, height), (colour, colour, colour))
    ground.paste(image, ((width - image.width) // 2, (height - image.height) // 2))
    return ground


def square(image: Image.Image, colour: int | None) -> Image.Image:
    """Padded to a square."""
    return pad(image, max(image.size), max(image.size), colour)


def fitted(image: Image.Image, width: int, height: int) -> Image.Image:
    """Cropped in the middle to a shape, then resized."""
    wide = min(image.width, round(image.height * width / height))
    high = min(image.height, round(image.width * height / width))
    left, top = (image.width - wide) // 2, (image.height - high) // 2
    return image.crop((left, top, left + wide, top + high)).resize((width, height))


def letterboxed(image: Image.Image) -> Image.Image:
    """A video frame with black bars above and below."""
    return pad(fitted(image, 320, 180), 320, 240, 0)


def letters(draw: ImageDraw.ImageDraw, x: int, y: int, height: int, count: int, colour: object, seed: int) -> None:
    """Draw small upright and lying strokes, which look like text."""
    generator = np.random.default_rng(seed)
    for number in range(count):
        left = x + number * height * 2 // 3
        for _ in range(3):
            a, b = generator.integers(0, (height // 2, height), 2), generator.integers(0, (height // 2, height), 2)
            draw.line((left + a[0], y + a[1], left + b[0], y + b[1]), fill=colour, width=max(1, height // 8))  # type: ignore[arg-type]


def screenshot(image: Image.Image) -> Image.Image:
    """A phone's interface above and below a leaf."""
    screen = Image.new("RGB", (240, 480), (250, 250, 250))
    draw = ImageDraw.Draw(screen)
    draw.rectangle((0, 0, 240, 70), fill=(20, 90, 60))
    letters(draw, 10, 6, 12, 6, (255, 255, 255), 1)
    letters(draw, 16, 36, 22, 9, (255, 255, 255), 2)
    draw.ellipse((200, 36, 224, 60), fill=(240, 240, 240))
    draw.rectangle((0, 400, 240, 480), fill=(30, 30, 30))
    for x in (30, 90, 150, 210):
        draw.ellipse((x - 14, 412, x + 14, 440), outline=(255, 255, 255), width=3)
        letters(draw, x - 16, 446, 10, 5, (255, 255, 255), x)
    screen.paste(fitted(image, 240, 330), (0, 70))
    return screen


def dark_screenshot(image: Image.Image) -> Image.Image:
    """A gallery in the dark mode: a small photograph, bars and a row of thumbnails that stay the same."""
    screen = Image.new("RGB", (270, 480), (0, 0, 0))
    draw = ImageDraw.Draw(screen)
    letters(draw, 8, 4, 12, 7, (255, 255, 255), 3)
    letters(draw, 60, 40, 16, 12, (255, 255, 255), 4)
    screen.paste(fitted(image, 270, 202), (0, 120))
    for x in range(8):
        draw.rectangle((x * 34, 380, x * 34 + 30, 420), fill=tuple(np.random.default_rng(x).integers(60, 220, 3)))
    for x in (40, 100, 160, 220):
        draw.line((x, 445, x + 20, 460), fill=(255, 255, 255), width=3)
    return screen


def rounded(image: Image.Image) -> Image.Image:
    """White rounded corners."""
    mask = Image.new("L", image.size, 0)
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, *image.size), image.width // 5, fill=255)
    return Image.composite(image, Image.new("RGB", image.size, "white"), mask)


def polaroid(image: Image.Image) -> Image.Image:
    """A white frame with a broad lower part, on grey."""
    frame = Image.new("RGB", (300, 360), (120, 120, 125))
    ImageDraw.Draw(frame).rectangle((14, 14, 286, 346), fill=(246, 245, 240))
    frame.paste(fitted(image, 240, 240), (30, 30))
    return frame


def microscope(image: Image.Image) -> Image.Image:
    """A round field of view on black."""
    view = fitted(image, 300, 300)
    mask = Image.new("L", view.size, 0)
    ImageDraw.Draw(mask).ellipse((6, 6, 294, 294), fill=255)
    return Image.composite(view, Image.new("RGB", view.size, "black"), mask.filter(ImageFilter.GaussianBlur(1)))


def rim(image: Image.Image) -> Image.Image:
    """The dark, rough rim of a light table."""
    table = fitted(image, 320, 240)
    edge = np.random.default_rng(0).integers(5, 60, (240, 320, 3), dtype=np.uint8)
    inside = Image.new("L", table.size, 0)
    ImageDraw.Draw(inside).rectangle((24, 20, 300, 222), fill=255)
    return Image.composite(table, Image.fromarray(edge), inside.filter(ImageFilter.GaussianBlur(2)))


def ruler(image: Image.Image) -> Image.Image:
    """A ruler below and a colour card in a corner."""
    scene = fitted(image, 320, 240)
    draw = ImageDraw.Draw(scene)
    draw.rectangle((0, 208, 320, 240), fill=(235, 225, 150))
    for x in range(0, 320, 8):
        draw.line((x, 208, x, 222 if x % 40 else 232), fill=(10, 10, 10), width=2)
    for number, colour in enumerate(((200, 30, 30), (30, 160, 40), (30, 60, 200), (240, 240, 240), (20, 20, 20))):
        draw.rectangle((268, 4 + 24 * number, 316, 26 + 24 * number), fill=colour)
    return scene


def watermark(image: Image.Image) -> Image.Image:
    """A large white watermark and a logo."""
    scene = fitted(image, 320, 240)
    draw = ImageDraw.Draw(scene)
    letters(draw, 30, 96, 56, 7, (255, 255, 255), 5)
    draw.ellipse((262, 182, 312, 232), fill=(220, 20, 30), outline=(255, 255, 255), width=4)
    return scene


def herbarium(image: Image.Image) -> Image.Image:
    """A sheet with label, scale bar and colour chart around a small specimen."""
    sheet = Image.new("RGB", (280, 420), (236, 230, 214))
    sheet.paste(fitted(image, 130, 180), (60, 90))
    draw = ImageDraw.Draw(sheet)
    draw.rectangle((150, 330, 272, 412), fill=(255, 255, 255), outline=(0, 0, 0), width=2)
    for line in range(5):
        letters(draw, 158, 338 + 14 * line, 11, 14, (20, 20, 20), line)
    for number in range(8):
        draw.rectangle((8, 120 + 18 * number, 24, 136 + 18 * number), fill=(30 * number, 255 - 30 * number, 128))
        draw.rectangle((20 + 12 * number, 12, 31 + 12 * number, 22), fill=(0, 0, 0) if number % 2 else (255, 255, 255))
    return sheet


def on_paper(image: Image.Image, step: int, ink: tuple[int, int, int], ground: tuple[int, int, int]) -> Image.Image:
    """Leaves on the same squared paper, about a third of the image; the lines are `step` pixels apart."""
    paper = Image.new("RGB", (320, 320), ground)
    draw = ImageDraw.Draw(paper)
    for x in range(0, 320, step):
        draw.line((x, 0, x, 320), fill=ink, width=max(1, min(2, step // 8)))
        draw.line((0, x, 320, x), fill=ink, width=max(1, min(2, step // 8)))
    mask = Image.new("L", (180, 180), 0)
    ImageDraw.Draw(mask).ellipse((10, 30, 170, 150), fill=255)
    paper.paste(fitted(image, 180, 180), (70, 70), mask)
    return paper


def fabric(image: Image.Image, thread: int = 5) -> Image.Image:
    """Leaves on one piece of woven cloth, whose threads are up and down in turn, with a fold."""
    rows, columns = np.mgrid[0:320, 0:320]
    over = ((rows // thread + columns // thread) % 2).astype(np.float32)
    waves = np.where(over, np.sin(np.pi * (columns % thread) / thread), np.sin(np.pi * (rows % thread) / thread))
    grain = np.random.default_rng(3).normal(0, 6, (320, 320)).astype(np.float32)
    fold = 30 * np.exp(-(((rows - columns / 3 - 190) / 14) ** 2))
    level = 110 + 45 * waves + 12 * over + grain - fold
    cloth = Image.fromarray(np.uint8(np.clip(level[..., None] * np.array([0.9, 0.95, 1.1]), 0, 255)))
    return _laid(image, cloth)


def on_turned_paper(image: Image.Image, step: int, degrees: float) -> Image.Image:
    """Leaves on printed paper that lies askew, in the same way in all photographs."""
    paper = Image.new("RGB", (480, 480), (245, 243, 236))
    draw = ImageDraw.Draw(paper)
    for x in range(0, 480, step):
        draw.line((x, 0, x, 480), fill=(120, 120, 130), width=1 if x % (5 * step) else 3)
        draw.line((0, x, 480, x), fill=(120, 120, 130), width=1 if x % (5 * step) else 3)
    return _laid(image, paper.rotate(degrees, Image.Resampling.BICUBIC).crop((80, 80, 400, 400)))


def colour_checker(image: Image.Image) -> Image.Image:
    """A leaf on grey card between a colour chart of 24 fields and an L-shaped ruler."""
    card = Image.new("RGB", (320, 320), (150, 150, 148))
    draw = ImageDraw.Draw(card)
    fields = np.random.default_rng(24).integers(20, 236, (24, 3))
    draw.rectangle((60, 4, 316, 66), fill=(15, 15, 15))
    for number, colour in enumerate(fields.tolist()):
        x, y = 66 + 31 * (number % 8), 8 + 19 * (number // 8)
        draw.rectangle((x, y, x + 26, y + 15), fill=tuple(colour))
    draw.rectangle((0, 0, 40, 320), fill=(240, 240, 240))
    draw.rectangle((0, 284, 320, 320), fill=(240, 240, 240))
    for x in range(0, 320, 6):
        draw.line((40 - (16 if x % 30 else 26), x, 40, x), fill=0, width=1)
        draw.line((x, 284, x, 284 + (16 if x % 30 else 26)), fill=0, width=1)
    return _laid(image, card)


def _laid(image: Image.Image, ground: Image.Image) -> Image.Image:
    """A leaf of about a third of the image in the middle of a ground of 320 x 320 pixels."""
    mask = Image.new("L", (180, 180), 0)
    ImageDraw.Draw(mask).ellipse((10, 30, 170, 150), fill=255)
    ground.paste(fitted(image, 180, 180), (70, 80), mask)
    return ground


def vignette_tile(image: Image.Image) -> Image.Image:
    """A tile of plain ground with the dark corner of a lens; of the leaf only the noise is left."""
    plain = np.asarray(fitted(image, 256, 256), np.float32)
    noisy = 170 + np.random.default_rng(int(plain.sum()) % 2**32).normal(0, 4, plain.shape)
    rows, columns = np.mgrid[0:1:256j, 0:1:256j]
    dark = 1 - 0.85 * np.clip((np.hypot(rows, columns) - 1.0) / 0.4, 0, 1)
    return Image.fromarray(np.uint8(np.clip(noisy * dark[..., None], 0, 255)))


def lens(image: Image.Image) -> Image.Image:
    """Strongly darkened corners around a leaf."""
    scene = np.asarray(fitted(image, 256, 256), np.float32)
    rows, columns = np.mgrid[-1:1:256j, -1:1:256j]
    return Image.fromarray(np.uint8(scene * np.clip(1.9 - 1.6 * np.hypot(rows, columns), 0, 1)[..., None]))


KINDS: dict[str, Furnish] = {
    "as it is": lambda image: image,
    "padded square, black": lambda image: square(image, 0),
    "padded square, white": lambda image: square(image, 255),
    "padded square, blurred": lambda image: square(image, None),
    "padded all round, black": lambda image: pad(fitted(image, 200, 150), 320, 240, 0),
    "letterboxed": letterboxed,
    "screenshot": screenshot,
    "screenshot, dark": dark_screenshot,
    "rounded corners": rounded,
    "polaroid": polaroid,
    "microscope": microscope,
    "light table's rim": rim,
    "ruler and colour card": ruler,
    "watermark and logo": watermark,
    "herbarium sheet": herbarium,
    "squared paper": partial(on_paper, step=16, ink=(60, 90, 160), ground=(240, 240, 235)),
    "squared paper, wide": partial(on_paper, step=40, ink=(60, 90, 160), ground=(240, 240, 235)),
    "millimetre paper": partial(on_paper, step=8, ink=(200, 120, 90), ground=(240, 240, 235)),
    "cutting mat": partial(on_paper, step=32, ink=(230, 230, 120), ground=(20, 90, 60)),
    "printed grid, 12 px": partial(on_paper, step=12, ink=(60, 60, 60), ground=(250, 250, 250)),
    "printed grid, 24 px": partial(on_paper, step=24, ink=(60, 60, 60), ground=(250, 250, 250)),
    "printed grid, 10 px, askew": partial(on_turned_paper, step=10, degrees=7),
    "printed grid, 20 px, askew": partial(on_turned_paper, step=20, degrees=-12),
    "woven cloth": fabric,
    "woven cloth, coarse": partial(fabric, thread=11),
    "colour checker and rulers": colour_checker,
    "lens vignette": lens,
    "plain tile, dark corner": vignette_tile,
}


def recompress(image: Image.Image) -> Image.Image:
    """As JPEG of quality 60."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=60)
    return Image.open(file).convert("RGB")


def crop(image: Image.Image) -> Image.Image:
    """Without 4 % at each side."""
    x, y = round(image.width * 0.04), round(image.height * 0.04)
    return image.crop((x, y, image.width - x, image.height - y))


COPIES: dict[str, Furnish] = {
    "half": lambda image: image.resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS),
    "quality 60": recompress,
    "turned 90": lambda image: image.transpose(Image.Transpose.ROTATE_90),
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "4 % each side": crop,
}


def measured(pictures: Sequence[Image.Image]) -> dict[str, object]:
    """Return false pairs among different photographs, and the proportion of copies of each kind that is found."""
    hashes = np.stack([perceptual_hash(recompress_well(picture)) for picture in pictures])
    pairs = find_near_duplicates(hashes)
    groups = groups_of_equal(component_roots(len(hashes), [(pair.a, pair.b) for pair in pairs]))
    found = {}
    for name, edit in COPIES.items():
        copies = np.stack([perceptual_hash(edit(picture)) for picture in pictures])
        both = find_near_duplicates(np.concatenate([hashes, copies]))
        found[name] = round(sum(pair.b - pair.a == len(hashes) for pair in both) / len(hashes), 3)
    return {
        "false_pairs": len(pairs),
        "largest_group": max(map(len, groups), default=0),
        "without_hash": int((~hashes.any(1)).sum()),
        "copies_found": found,
    }


def recompress_well(image: Image.Image) -> Image.Image:
    """As JPEG of quality 92, as cameras and exports write it."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=92)
    return Image.open(file).convert("RGB")


def padded_copies(pictures: Sequence[Image.Image]) -> dict[str, float]:
    """Return the proportion of photographs that are found again after padding."""
    hashes = np.stack([perceptual_hash(picture) for picture in pictures])
    found = {}
    for name, colour in (("black", 0), ("white", 255), ("blurred", None)):
        copies = np.stack([perceptual_hash(recompress_well(square(picture, colour))) for picture in pictures])
        pairs = find_near_duplicates(np.concatenate([hashes, copies]))
        found[name] = round(sum(pair.b - pair.a == len(hashes) for pair in pairs) / len(hashes), 3)
    return found


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--coffee", type=Path, help="folder of real photographs")
    parser.add_argument("--leaves", type=int, default=60, help="photographs in each set")
    parser.add_argument("--kinds", nargs="*", default=[""], help="only those whose names contain one of these")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    chosen_kinds = {kind: furnish for kind, furnish in KINDS.items() if any(word in kind for word in options.kinds)}
    sets = {"drawn": [draw_leaf(bool(i % 2), SIDE, np.random.default_rng([11, i])) for i in range(options.leaves)]}
    if options.coffee:
        paths = sorted(options.coffee.rglob("*.jpg"))
        chosen = np.random.default_rng(0).choice(len(paths), min(options.leaves, len(paths)), replace=False)
        sets["coffee"] = [load_rgb(paths[i], 256) for i in chosen]
    results: dict[str, object] = {"threshold": NEAR_SIMILARITY}
    for name, pictures in sets.items():
        kinds = {kind: measured([furnish(picture) for picture in pictures]) for kind, furnish in chosen_kinds.items()}
        # Half the photographs are wide, so those are padded above and below.
        wide = [picture for picture in pictures if max(picture.size) > 1.1 * min(picture.size)]
        results[name] = {"photographs": len(pictures), "sets": kinds, "padded_copies_found": padded_copies(wide)}
    versions = json.loads(options.output.read_text()) if options.output.is_file() else {}
    versions[f"perceptual hash, version {PHASH_VERSION}"] = results
    options.output.write_text(json.dumps(versions, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
