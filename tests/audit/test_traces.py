"""Traces of how files were made: read from real files, and found where one class has them."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bldml.audit.examine import examine_file
from bldml.audit.traces.encoder import Encoder, read_encoder
from bldml.dataset.synthetic.drawing import draw_leaf

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
