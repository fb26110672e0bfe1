"""Every photograph is decoded once, in order; bad ones are named with their reason."""

import hashlib
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from bldml.dataset.border import measure_border
from bldml.dataset.formats.interruption import describe_interruption
from bldml.dataset.images import load_rgb
from bldml.dataset.metadata import read_metadata
from bldml.dataset.samples import Sample
from bldml.dataset.verify import Verified, verify


def photographs(root: Path, count: int) -> list[Sample]:
    """Tiny pictures, each of another colour."""
    root.mkdir()
    samples = []
    for i in range(count):
        # Later files are quicker to decode, so that threads finish out of order.
        side = 400 if i % 7 == 0 else 4
        Image.new("RGB", (side, side), (i % 256, i // 256, 0)).save(root / f"{i}.png")
        samples.append(Sample(root / f"{i}.png", f"{i}.png"))
    return samples


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_order_and_digests(workers: int, tmp_path: Path) -> None:
    # More than two portions of 32 a worker, and a last one that is not full.
    samples = photographs(tmp_path / "p", 32 * workers * 2 + 5)
    results = list(verify(samples, 64, workers))
    for sample, result in zip(samples, results, strict=True):
        metadata = read_metadata(sample.path)
        assert metadata is not None
        metadata = replace(metadata, border=measure_border(load_rgb(sample.path, 64)))
        assert result == Verified(sample, digest(sample.path), metadata=metadata)
    assert len({result.digest for result in results}) == len(samples)


def test_nothing_to_verify() -> None:
    assert list(verify([], 64, 2)) == []


def test_bad_files_are_named_with_their_reason(tmp_path: Path) -> None:
    samples = photographs(tmp_path / "p", 200)
    (tmp_path / "leaf.jpg").touch()
    Image.effect_noise((64, 64), 50).save(tmp_path / "leaf.jpg")
    good = (tmp_path / "leaf.jpg").read_bytes()

    def empty(path: Path) -> None:
        path.write_bytes(b"")

    def text(path: Path) -> None:
        path.write_text("hello")

    def cut(path: Path) -> None:
        path.write_bytes(good[: len(good) // 2])

    def folder(path: Path) -> None:
        path.unlink()
        path.mkdir()

    def pipe(path: Path) -> None:
        path.unlink()
        os.mkfifo(path)

    def loop(path: Path) -> None:
        path.unlink()
        path.symlink_to(path.name)

    bad: dict[int, tuple[Callable[[Path], None], str]] = {
        0: (empty, "the file is empty"),
        1: (text, "the content is not JPEG"),
        63: (cut, "truncated"),
        64: (Path.unlink, "the file does not exist"),
        65: (folder, "not a regular file"),
        100: (pipe, "not a regular file"),
        199: (loop, "Too many levels of symbolic links"),
    }
    for i, (spoil, _) in bad.items():
        spoil(samples[i].path)
    results = list(verify(samples, 64, 2))
    assert [result.sample for result in results] == samples
    for i, result in enumerate(results):
        if i in bad:
            assert bad[i][1] in result.reason
            assert result.digest == ""
        else:
            assert (result.sample, result.digest, result.reason) == (samples[i], digest(samples[i].path), "")


def test_forbidden_file() -> None:
    user = os.geteuid()
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        path = Path(name) / "a.png"
        Image.new("RGB", (4, 4)).save(path)
        sample = Sample(path, "a.png")
        assert [r.reason for r in verify([sample], 64, 1)] == [""]
        path.chmod(0)
        if user == 0:
            os.seteuid(65534)
        try:
            assert [r.reason for r in verify([sample], 64, 1)] == ["no permission to read the file"]
        finally:
            os.seteuid(user)


def test_photographs_are_taken_in_portions_and_a_stop_stops(tmp_path: Path) -> None:
    (sample,) = photographs(tmp_path / "p", 1)
    asked = 0

    def endless() -> Iterator[Sample]:
        nonlocal asked
        while True:
            asked += 1
            yield sample

    before = threading.active_count()
    results = verify(endless(), 64, 2)
    for _ in range(70):
        assert next(results).reason == ""
    assert asked == 128
    assert isinstance(results, Iterator)
    results.close()
    assert threading.active_count() == before
    assert asked == 128


def test_photographs_are_not_changed(tmp_path: Path) -> None:
    samples = photographs(tmp_path / "p", 3)
    samples[1].path.write_bytes(b"broken")
    shutil.copytree(tmp_path / "p", tmp_path / "copy")
    list(verify(samples, 64, 2))
    assert {path.name: path.read_bytes() for path in (tmp_path / "p").iterdir()} == {
        path.name: path.read_bytes() for path in (tmp_path / "copy").iterdir()
    }


@pytest.mark.parametrize(
    ("sizes", "sentence"),
    [
        ([262_144] * 40 + [7, 9], "40 of these files have exactly the same size, 262,144 bytes."),
        ([0, 0, 0, 17], "3 of these files are empty."),
        ([65_536, 131_072, 917_504, 33], "3 of these files end at a multiple of 65,536 bytes,"),
        ([4096, 12_288, 86_016, 90_112], "4 of these files end at a multiple of 4,096 bytes,"),
        ([262_144, 262_144], ""),  # two are no sign
        ([262_144] * 3 + list(range(1, 8)), ""),  # most are different
        ([1001, 2002, 3003], ""),
        ([], ""),
    ],
)
def test_an_interrupted_copy_is_said(tmp_path: Path, sizes: list[int], sentence: str) -> None:
    paths = [tmp_path / f"{number}.jpg" for number in range(len(sizes))]
    for path, size in zip(paths, sizes, strict=True):
        path.write_bytes(bytes(size))
    found = describe_interruption([*paths, tmp_path / "gone.jpg"])
    assert found.startswith(sentence)
    assert bool(found) == bool(sentence)
