"""Traces of how files were made: read from real files, and found where one class has them."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from bldml.audit.examine import examine_file
from bldml.audit.traces.encoder import Encoder, read_encoder
from bldml.audit.traces.leaf import find_leaf, outside_of
from bldml.audit.traces.surroundings import measure_surroundings
from bldml.dataset.synthetic.drawing import draw_leaf
from tests.support import ALONE, SHARED, Bldml

LEAF = draw_leaf(True, 96, np.random.default_rng(0))


def written(path: Path, **options: object) -> Encoder:
    LEAF.save(path, **options)  # type: ignore[arg-type]
    return read_encoder(path)


def exif_of(software: str) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0131], exif[0x013B], exif[0x010E] = software, "Ann Example", "leaf of Ann"
    return exif


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"subsampling": 0}, "chroma"),
        ({"progressive": True}, "scan"),
        ({"restart_marker_rows": 1}, "segments"),
        ({"comment": b"scanned"}, "segments"),
        ({"quality": 91}, "tables"),
        ({"optimize": True}, "huffman"),
        ({"exif": exif_of("Adobe Photoshop 24.1 (Windows)")}, "program"),
        ({"xmp": b'<rdf:Description xmp:CreatorTool="GIMP 2.10"/>'}, "program"),
        ({"xmp": b"<xmp:CreatorTool>Lightroom</xmp:CreatorTool>"}, "program"),
    ],
)
def test_what_an_encoder_does_otherwise_is_read(options: dict[str, object], field: str, tmp_path: Path) -> None:
    plain, other = written(tmp_path / "a.jpg"), written(tmp_path / "b.jpg", **options)
    assert getattr(plain, field) != getattr(other, field)
    assert plain.chroma
    assert plain.scan == "baseline"
    assert examine_file(tmp_path / "b.jpg").encoder == other


@pytest.mark.parametrize(
    ("suffix", "first", "second"),
    [
        ("png", {}, {"compress_level": 1}),
        ("tif", {}, {"compression": "tiff_lzw"}),
        ("webp", {}, {"lossless": True}),
    ],
)
def test_other_formats_too(suffix: str, first: dict[str, object], second: dict[str, object], tmp_path: Path) -> None:
    paths = [tmp_path / f"{name}.{suffix}" for name in "ab"]
    assert written(paths[0], **first) != written(paths[1], **second)


def test_names_of_people_are_not_read(tmp_path: Path) -> None:
    for number, software in enumerate(("Photoshop of Ann Example", "Ann Example's tool")):
        encoder = written(tmp_path / f"{number}.jpg", exif=exif_of(software), comment=b"by Ann Example")
        assert encoder.program
        assert "Ann" not in str(encoder)


def test_damaged_headers_raise_nothing(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    LEAF.save(buffer, format="JPEG", exif=exif_of("Photoshop"))
    generator = np.random.default_rng(1)
    for number in range(60):
        content = bytearray(buffer.getvalue()[: int(generator.integers(2, 900))])
        content[int(generator.integers(len(content)))] = int(generator.integers(256))
        (tmp_path / f"{number}.jpg").write_bytes(content)
        assert isinstance(read_encoder(tmp_path / f"{number}.jpg"), Encoder)


def photographed(leaf: tuple[int, int, int], ground: tuple[int, int, int], spots: bool = False) -> Image.Image:
    """An ellipse of one colour on another, with brown spots."""
    image = Image.new("RGB", (240, 160), ground)
    draw = ImageDraw.Draw(image)
    draw.ellipse((60, 30, 200, 140), leaf)
    for x in (90, 120, 150) if spots else ():
        draw.ellipse((x, 70, x + 16, 86), (110, 70, 30))
    return image


@pytest.mark.parametrize("spots", [False, True])
@pytest.mark.parametrize("ground", [(230, 230, 225), (20, 20, 25), (140, 110, 90), (90, 100, 160)])
def test_a_leaf_is_found_on_another_colour(ground: tuple[int, int, int], spots: bool) -> None:
    image = photographed((70, 120, 40), ground, spots)
    mask = find_leaf(np.asarray(image))
    true = np.asarray(photographed((255, 255, 255), (0, 0, 0)).resize((64, 64), Image.Resampling.BOX))[..., 0] > 127
    assert mask is not None
    covered = outside_of(mask) == 0  # grown, without holes
    assert covered[true].all()
    assert covered.mean() < true.mean() + 0.15


@pytest.mark.parametrize("spots", [False, True])
def test_no_leaf_where_it_fills_the_image(spots: bool) -> None:
    """Spots on it must not be taken for the leaf, and it for the background."""
    image = photographed((70, 120, 40), (70, 120, 40), spots)
    assert find_leaf(np.asarray(image)) is None
    assert (outside_of(None) == 1).all()


def test_masks_agree_with_those_drawn_by_hand() -> None:
    folder = SHARED / "data" / "coffee"
    if not folder.is_dir():
        pytest.skip(f"no photographs in {folder}")
    for path in sorted(folder.glob("images/*/*.jpg"))[::50]:
        small = np.asarray(Image.open(path).convert("RGB").resize((256, 128), Image.Resampling.BOX))
        drawn = Image.open(folder / "masks" / f"{path.stem}_mask.png").convert("RGB").resize((64, 64))
        true = np.asarray(drawn).max(axis=2) > 60
        mask = find_leaf(small)
        assert mask is not None
        assert (mask & true).sum() / (mask | true).sum() > 0.85
        assert (outside_of(mask) > 0)[true].mean() < 0.03


@pytest.mark.parametrize("seed", range(6))
def test_the_disease_does_not_change_what_is_measured_outside_the_leaf(seed: int) -> None:
    """The drawn leaves of one seed differ in nothing but the bands of the disease."""
    images = [np.asarray(draw_leaf(is_ill, 300, np.random.default_rng(seed))) for is_ill in (False, True)]
    well, ill = map(measure_surroundings, images)
    if well.has_leaf and (well.free == ill.free).all():
        assert np.allclose(well.processing, ill.processing, atol=0.1)
        assert np.allclose(well.marks, ill.marks, atol=0.1, equal_nan=True)
    assert well.has_leaf == ill.has_leaf


def label_a_corner(image: Image.Image) -> Image.Image:
    draw = ImageDraw.Draw(image)
    draw.rectangle((image.width * 0.84, image.height * 0.03, image.width * 0.97, image.height * 0.1), (250, 250, 250))
    draw.text((image.width * 0.86, image.height * 0.03), "B12", (0, 0, 0))
    return image


def date(image: Image.Image) -> Image.Image:
    ImageDraw.Draw(image).text((image.width * 0.7, image.height * 0.92), "24 6 12", (255, 150, 40))
    return image


def blur(image: Image.Image) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(1.5))


@pytest.mark.parametrize(
    ("plant", "name", "place"),
    [(label_a_corner, "background", "top right"), (date, "marks", "bottom"), (blur, "processing", "")],
)
def test_what_is_planted_outside_the_leaf_is_a_warning(
    plant: Callable[[Image.Image], Image.Image], name: str, place: str, tmp_path: Path, bldml: Bldml
) -> None:
    """Both classes are healthy leaves; one of them has the plant."""
    for number in range(80):
        image = draw_leaf(False, 192, np.random.default_rng([5, number]))
        label = "BLD" if number % 2 else "No_BLD"
        path = tmp_path / "data" / label / f"leaf_{number:03}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        (plant(image) if number % 2 else image).save(path, quality=90)
    bldml("audit", *ALONE, tmp_path / "data", "--positive_class", "BLD")
    content = json.loads(Path("audit/audit.json").read_text(encoding="utf-8"))
    found = {one["name"]: one for one in content["findings"] if one["name"].startswith("shortcut_")}
    finding = found[f"shortcut_{name}"]
    assert finding["severity"] == "warning"
    assert not place or f"{place}." in finding["text"] or f"{place} " in finding["text"]
    assert "in which a leaf was found by its colour" in finding["text"]
    assert len(finding["examples"]) == 12


def test_where_leaves_fill_the_image_the_page_says_so(tmp_path: Path, bldml: Bldml) -> None:
    """And the disease is not called a shortcut of the background."""
    generator = np.random.default_rng(0)
    for number in range(60):
        pixels = np.clip(np.array([70, 120, 40]) + generator.normal(0, 6, (96, 128, 3)), 0, 255)
        image = Image.fromarray(np.uint8(pixels))
        for x, y in generator.integers(0, 96, (25 if number % 2 else 0, 2)).tolist():
            ImageDraw.Draw(image).ellipse((x, y, x + 9, y + 9), (200, 180, 40))
        path = tmp_path / "data" / ("BLD" if number % 2 else "No_BLD") / f"leaf_{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
    bldml("audit", *ALONE, tmp_path / "data", "--positive_class", "BLD")
    content = json.loads(Path("audit/audit.json").read_text(encoding="utf-8"))
    found = {one["name"]: one for one in content["findings"]}
    assert found["shortcut_marks_whole"]["severity"] == "info"
    assert "in 0 of 60 photographs only" in found["shortcut_marks_whole"]["text"]
    assert not {"shortcut_marks", "shortcut_background", "shortcut_processing"} & found.keys()
