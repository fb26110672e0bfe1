"""Pixels that are kept: the very ones that decoding gives, found again by content, and never half a file."""

import errno
import io
import json
import os
import pickle
import shutil
import struct
import threading
import time
import tracemalloc
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bldml.dataset.cache import format as index
from bldml.dataset.cache import shard as segment
from bldml.dataset.cache import writer as cache
from bldml.dataset.cache.lookup import Places, Segment, StoredPrints, read_segment
from bldml.dataset.cache.reader import DamagedSquare, Squares
from bldml.dataset.cache.shard import SegmentWriter
from bldml.dataset.cache.writer import FOLDER, VARIABLE, Keeper, cache_name, describe_cache, find_folders, is_writable
from bldml.dataset.contents import Digests, MetadataTable
from bldml.dataset.duplicates.phash import NO_PRINT, PRINT_BYTES
from bldml.dataset.images import load_rgb
from bldml.dataset.metadata import Metadata
from bldml.dataset.pixels import squash
from bldml.dataset.samples import Sample
from bldml.dataset.synthetic.leaves import write_leaves
from bldml.dataset.verify import Verified, verify

SIDE, SIZE = 40, 32
TRAILER = struct.Struct("<8sQI")


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    """Eight drawn leaves."""
    write_leaves(tmp_path / "leaves", images_per_class=4, size=96)
    return [Sample(path, path.name) for path in sorted((tmp_path / "leaves").rglob("*.jpg"))]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "kept"


def keep(
    samples: Sequence[Sample], folder: Path, *, write: bool = True, side: int = SIDE
) -> tuple[list[Verified], Keeper]:
    keeper = Keeper([folder], side, SIZE, len(samples), write=write)
    results = list(verify(samples, SIZE, 3, keeper))
    keeper.close()
    return results, keeper


def squares(results: Sequence[Verified], folder: Path, side: int = SIDE) -> Squares:
    return Squares([folder], side, SIZE, [result.digest for result in results])


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_squares_are_what_decoding_gives(samples: list[Sample], folder: Path) -> None:
    results, keeper = keep(samples, folder)
    assert keeper.trouble == ""
    assert [result.sample for result in results] == samples
    found = squares(results, folder)
    assert len(found) == len(samples)
    for number, sample in enumerate(samples):
        square = found.read(number)
        assert square is not None
        expected = squash(load_rgb(sample.path, SIZE), SIDE)
        assert square.dtype == np.uint8
        assert square.shape == (SIDE, SIDE, 3)
        assert (square == expected).all()


def test_nothing_is_decoded_twice(samples: list[Sample], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = keep(samples, folder)
    before = files(folder)
    monkeypatch.setattr("bldml.dataset.verify.load_rgb", None)
    monkeypatch.setattr("bldml.dataset.verify.read_metadata", None)
    monkeypatch.setattr("bldml.dataset.verify.perceptual_hash", None)
    again, keeper = keep(samples, folder)
    assert again == first
    assert all((a.print == b.print).all() and a.print.any() for a, b in zip(again, first, strict=True))
    assert keeper.written is None
    assert files(folder) == before


def test_a_photograph_is_known_by_its_content(
    samples: list[Sample], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(samples, folder)
    (tmp_path / "elsewhere").mkdir()
    moved = Sample(tmp_path / "elsewhere" / "other name.jpg", "other name.jpg")
    shutil.copy(samples[5].path, moved.path)
    # Of the same name as one that is kept, but another picture.
    Image.effect_noise((64, 64), 40).convert("RGB").save(samples[0].path, quality=90)
    decoded: list[Path] = []

    def load(path: Path, target_size: int) -> Image.Image:
        decoded.append(path)
        return load_rgb(path, target_size)

    monkeypatch.setattr("bldml.dataset.verify.load_rgb", load)
    results, keeper = keep([moved, *samples], folder)
    assert decoded == [samples[0].path]
    assert keeper.written is not None
    found = squares(results, folder)
    assert len(found) == 9
    for number, sample in enumerate([moved, *samples]):
        square = found.read(number)
        assert square is not None
        assert square.tobytes() == squash(load_rgb(sample.path, SIZE), SIDE).tobytes()


def test_only_looking_keeps_nothing(samples: list[Sample], folder: Path) -> None:
    results, keeper = keep(samples, folder, write=False)
    assert all(not result.reason for result in results)
    assert (files(folder), keeper.written, keeper.trouble) == ([], None, "")
    assert len(squares(results, folder)) == 0
    assert squares(results, folder).read(0) is None


def test_another_size_or_version_is_another_file(
    samples: list[Sample], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results, _ = keep(samples, folder)
    assert len(squares(results, folder, side=SIZE)) == 0
    assert len(Squares([folder], SIDE, SIZE + 1, [result.digest for result in results])) == 0  # another scale of JPEGs
    keep(samples, folder, side=SIZE)
    assert (len(squares(results, folder)), len(squares(results, folder, side=SIZE))) == (8, 8)
    before = cache_name(SIDE, SIZE)
    monkeypatch.setattr(cache, "CACHE_VERSION", 0)
    assert cache_name(SIDE, SIZE) != before
    monkeypatch.undo()
    monkeypatch.setattr("PIL.__version__", "0")
    assert cache_name(SIDE, SIZE) != before


def test_unreadable_photographs_are_said_each_time(samples: list[Sample], folder: Path) -> None:
    samples[2].path.write_bytes(samples[2].path.read_bytes()[:400])
    samples[3].path.unlink()
    samples[4].path.unlink()
    os.mkfifo(samples[4].path)  # to read it would wait for ever
    samples[5].path.write_bytes(b"")
    plain = list(verify(samples, SIZE, 2))
    assert [bool(result.reason) for result in plain] == [False, False, True, True, True, True, False, False]
    for _ in range(2):
        results, _ = keep(samples, folder)
        assert results == plain
        assert len(squares(results, folder)) == 4


def test_two_of_the_same_content_share_a_square(samples: list[Sample], folder: Path, tmp_path: Path) -> None:
    twin = Sample(tmp_path / "twin.jpg", "twin.jpg")
    shutil.copy(samples[1].path, twin.path)
    results, keeper = keep([*samples, twin], folder)
    assert keeper.written is not None
    found = read_segment(keeper.written, SIDE)
    assert found is not None
    assert len(found.digests) == 8
    assert len(squares(results, folder)) == 9


@pytest.mark.parametrize("damage", ["row", "cut", "gone"])
def test_damage_is_noticed(damage: str, samples: list[Sample], folder: Path) -> None:
    results, keeper = keep(samples, folder)
    assert keeper.written is not None
    whole = keeper.written.read_bytes()
    before = squares(results, folder)
    stored = read_segment(keeper.written, SIDE)
    assert stored is not None
    row = stored.digests.index(results[0].digest)
    if damage == "gone":
        keeper.written.unlink()
        assert before.read(0) is not None  # it was open
        assert len(squares(results, folder)) == 0
        return
    with keeper.written.open("r+b") as file:
        if damage == "cut":
            file.truncate(row * SIDE * SIDE * 3 + 10)
        else:
            file.seek(row * SIDE * SIDE * 3 + 7)
            file.write(bytes([whole[row * SIDE * SIDE * 3 + 7] ^ 1]))
    with pytest.raises(DamagedSquare, match=r"kept.*\.pixels"):
        before.read(0)
    if damage == "cut":
        assert read_segment(keeper.written, SIDE) is None
        again, second = keep(samples, folder)  # as if it were not there
        assert second.written is not None
        assert len(squares(again, folder)) == 8
        return
    before.mend(0, Image.new("RGB", (50, 50)))  # not the photograph that was kept
    with pytest.raises(DamagedSquare):
        before.read(0)
    before.mend(0, load_rgb(samples[0].path, SIZE))
    assert keeper.written.read_bytes() == whole
    assert before.read(0) is not None


@pytest.mark.parametrize("place", [0, -1, -10, -20, -30, -200])
def test_a_damaged_index_is_none(place: int, samples: list[Sample], folder: Path) -> None:
    _, keeper = keep(samples, folder)
    assert keeper.written is not None
    content = bytearray(keeper.written.read_bytes())
    content[place] ^= 255
    keeper.written.write_bytes(content)
    # The first byte is a row's, which is looked at when it is read.
    assert (read_segment(keeper.written, SIDE) is None) == (place != 0)
    assert read_segment(folder / "none", SIDE) is None


def test_an_index_of_another_side_is_none(samples: list[Sample], folder: Path) -> None:
    _, keeper = keep(samples, folder)
    assert keeper.written is not None
    assert read_segment(keeper.written, SIDE + 1) is None


def test_nothing_unfinished_is_seen(samples: list[Sample], folder: Path) -> None:
    """Neither by others while it is written, nor after a process was killed; a day later it is removed."""
    keeper = Keeper([folder], SIDE, SIZE, len(samples), write=True)
    results = list(verify(samples, SIZE, 2, keeper))
    (unfinished,) = folder.iterdir()
    assert unfinished.name.startswith(".")
    assert len(squares(results, folder)) == 0
    left = folder / ".0123.building"
    left.write_bytes(b"left by a killed process")
    two_days = time.time() - 2 * 86400
    os.utime(left, (two_days, two_days))
    other = SegmentWriter(folder, "other", SIDE, 1)
    assert not left.exists()
    assert unfinished.exists()
    other.abandon()
    keeper.close()
    assert len(squares(results, folder)) == 8
    assert len(files(folder)) == 1


def test_a_run_that_was_stopped_keeps_what_it_had(samples: list[Sample], folder: Path) -> None:
    keeper = Keeper([folder], SIDE, SIZE, len(samples), write=True)
    results = verify(samples[:3], SIZE, 1, keeper)
    next(results)
    results.close()
    keeper.close()
    assert keeper.written is not None
    again, _ = keep(samples, folder)
    assert len(squares(again, folder)) == 8
    assert len(files(folder)) == 2


def test_two_at_once(samples: list[Sample], folder: Path) -> None:
    keepers = [Keeper([folder], SIDE, SIZE, len(samples), write=True) for _ in range(2)]
    results: list[list[Verified]] = [[], []]

    def work(number: int) -> None:
        results[number] = list(verify(samples, SIZE, 2, keepers[number]))
        keepers[number].close()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results[0] == results[1]
    assert len(files(folder)) == 1
    found = squares(results[0], folder)
    assert all(found.read(number) is not None for number in range(8))


def test_the_file_of_a_job_that_was_quicker_stays(samples: list[Sample], folder: Path) -> None:
    """On a file server one that is replaced can no longer be read by who has it open."""
    first, second = (Keeper([folder], SIDE, SIZE, len(samples), write=True) for _ in range(2))
    results = list(verify(samples, SIZE, 1, first))
    list(verify(samples[::-1], SIZE, 1, second))
    first.close()
    assert first.written is not None
    inode = first.written.stat().st_ino
    second.close()
    assert second.written == first.written
    assert first.written.stat().st_ino == inode
    assert len(files(folder)) == 1
    first.written.write_bytes(b"damaged")
    keep(samples, folder)
    assert len(squares(results, folder)) == 8


def test_another_file_of_the_same_name_is_not_mended(samples: list[Sample], folder: Path) -> None:
    results, keeper = keep(samples, folder)
    assert keeper.written is not None
    mine = squares(results, folder)
    copied = pickle.dumps(mine)
    keeper.written.rename(folder / "old")  # its inode is not used again
    keep(samples[::-1], folder)
    theirs = keeper.written.read_bytes()
    mine.mend(0, load_rgb(samples[0].path, SIZE))
    assert keeper.written.read_bytes() == theirs
    with pytest.raises(DamagedSquare):
        pickle.loads(copied).read(0)


def test_squares_travel_to_a_process_that_was_not_forked(samples: list[Sample], folder: Path) -> None:
    results, _ = keep(samples, folder)
    found = squares(results, folder)
    copied = pickle.loads(pickle.dumps(found))
    one, other = found.read(3), copied.read(3)
    assert one is not None
    assert one.tobytes() == other.tobytes()


def test_files_are_closed(samples: list[Sample], folder: Path) -> None:
    results, _ = keep(samples, folder)
    before = open_files()
    found = squares(results, folder)
    assert open_files() == before + 1
    del found
    assert open_files() == before


def test_no_room(samples: list[Sample], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment, "SPARE", 2**60)
    results, keeper = keep(samples, folder)
    assert all(not result.reason for result in results)
    assert "are needed" in keeper.trouble
    assert keeper.written is None
    assert files(folder) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fills_up(code: int, samples: list[Sample], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is given back: a run has checkpoints to write."""
    calls = 0
    write = index.write_at

    def write_at(file: int, data: bytes, place: int) -> None:
        nonlocal calls
        calls += 1
        if calls > 3:
            raise OSError(code, os.strerror(code))
        write(file, data, place)

    monkeypatch.setattr(segment, "write_at", write_at)
    keeper = Keeper([folder], SIDE, SIZE, len(samples), write=True)
    results = list(verify(samples, SIZE, 1, keeper))
    assert all(not result.reason for result in results)
    assert keeper.trouble == f"{folder}: the disk or your quota is full"
    assert [path.stat().st_size for path in folder.iterdir()] == [0]
    keeper.close()
    assert keeper.written is None
    assert files(folder) == []
    assert calls == 4


def test_a_disk_that_is_full_at_the_end(samples: list[Sample], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fsync(file: int) -> None:
        raise OSError(errno.EDQUOT, "quota")

    monkeypatch.setattr(os, "fsync", fsync)
    _, keeper = keep(samples, folder)
    assert keeper.trouble == f"{folder}: the disk or your quota is full"
    assert (keeper.written, files(folder)) == (None, [])


def test_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "data" / "BLD"
    data.mkdir(parents=True)
    (tmp_path / "link").symlink_to(data)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(VARIABLE, "/variable")
    assert find_folders(tmp_path / "given", data) == [tmp_path / "given"]
    assert find_folders(Path("~/given"), data) == [Path.home() / "given"]
    assert find_folders(None, data) == [Path("/variable")]
    monkeypatch.delenv(VARIABLE)
    beside = tmp_path / "data" / FOLDER
    assert find_folders(None, data) == find_folders(None, tmp_path / "link") == [beside, tmp_path / FOLDER]
    assert is_writable(beside)
    (tmp_path / "file").touch()
    assert not is_writable(tmp_path / "file")
    assert not is_writable(tmp_path / "file" / "below")


def test_where_the_first_folder_is_not_ours(samples: list[Sample], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    folders = [tmp_path / "file" / "below", tmp_path / "second"]
    keeper = Keeper(folders, SIDE, SIZE, len(samples), write=True)
    results = list(verify(samples, SIZE, 2, keeper))
    keeper.close()
    assert keeper.written is not None
    assert keeper.written.parent == folders[1]
    assert len(Squares(folders, SIDE, SIZE, [result.digest for result in results])) == 8
    keeper = Keeper(folders[:1], SIDE, SIZE, len(samples), write=True)
    list(verify(samples, SIZE, 2, keeper))
    keeper.close()
    assert "cannot be written to" in keeper.trouble


def test_it_is_said_how_much_lies_where(samples: list[Sample], folder: Path) -> None:
    _, keeper = keep(samples, folder)
    assert keeper.written is not None
    text = describe_cache([keeper.written])
    assert str(folder) in text
    assert " MiB in all" in text


def test_metadata_of_any_kind(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path, "x", 4, 2)
    odd = Metadata(3, 2, "Canon \\xe9 \u2028", "2024-06-01T12:30:00")
    writer.add("00" * 32, np.zeros((4, 4, 3), np.uint8), None, NO_PRINT)
    writer.add("ff" * 32, np.ones((4, 4, 3), np.uint8), odd, NO_PRINT + 1)
    path = writer.finish()
    assert path is not None
    found = read_segment(path, 4)
    assert found is not None
    assert list(found.metadata) == [None, odd]
    assert list(found.digests) == ["00" * 32, "ff" * 32]
    stored = StoredPrints(found)
    np.testing.assert_array_equal(np.stack([stored.read(0), stored.read(1)]), np.stack([NO_PRINT, NO_PRINT + 1]))


def test_what_numpy_writes_is_read(tmp_path: Path) -> None:
    """The format is an NPZ: files of earlier versions, which NumPy itself wrote, stay of use."""
    odd = Metadata(3, 2, "Canon", "2024-06-01T12:30:00", "04", quantization=2.25, has_gps=True)
    arrays = index_arrays([None, odd])
    path = by_numpy(tmp_path / "x.pixels", arrays)
    found = read_segment(path, 4)
    assert found is not None
    assert list(found.metadata) == [None, odd]
    assert list(found.digests) == ["00" * 32, "01" * 32]
    np.testing.assert_array_equal(StoredPrints(found).read(1), arrays["prints"][1])
    without = read_segment(path, 4, with_metadata=False)
    assert without is not None
    assert list(without.metadata) == []


def test_what_is_written_numpy_reads(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path, "x", 4, 2)
    for number in range(2):
        writer.add(f"0{number}" * 32, np.zeros((4, 4, 3), np.uint8), None, NO_PRINT + number)
    path = writer.finish()
    assert path is not None
    content = path.read_bytes()[2 * 48 : -TRAILER.size]
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        assert set(arrays) == {"digests", "checksums", "prints", "metadata"}
        np.testing.assert_array_equal(arrays["digests"], np.repeat([[0], [1]], 32, 1))
        np.testing.assert_array_equal(arrays["prints"], np.stack([NO_PRINT, NO_PRINT + 1]))
        assert arrays["checksums"].tolist() == [zlib.crc32(bytes(48))] * 2
        assert arrays["metadata"].tobytes() == b"[null, null]"


def test_an_index_that_is_none(tmp_path: Path) -> None:
    """A folder that others write to holds numbers, and no code."""
    sound = index_arrays([None, None])
    assert read_segment(by_numpy(tmp_path / "sound", sound), 4) is not None
    bad: dict[str, dict[str, Any]] = {
        "pickle": {"metadata": np.array([object], object)},
        "short metadata": {"metadata": np.frombuffer(b"[null]", np.uint8)},
        "long metadata": {"metadata": np.frombuffer(b"[null, null, null]", np.uint8)},
        "other metadata": {"metadata": np.frombuffer(b'[null, {"width": 3}]', np.uint8)},
        "text": {"metadata": np.frombuffer(b"[null, nothing]", np.uint8)},
        "prints": {"prints": sound["prints"][:, :-1]},
        "fewer prints": {"prints": sound["prints"][:1]},
        "large": {"metadata": np.frombuffer(b'[null, {"width": 3e99, "height": 1}]', np.uint8)},
        "checksums": {"checksums": sound["checksums"][:1]},
    }
    for name, changed in bad.items():
        assert read_segment(by_numpy(tmp_path / name, sound | changed), 4) is None, name
    assert read_segment(by_numpy(tmp_path / "compressed", sound, np.savez_compressed), 4) is None
    without = {name: array for name, array in sound.items() if name != "prints"}
    assert read_segment(by_numpy(tmp_path / "without", without), 4) is None


def index_arrays(metadata: list[Metadata | None]) -> dict[str, Any]:
    texts = json.dumps([None if entry is None else asdict(entry) for entry in metadata])
    numbers = np.arange(len(metadata), dtype=np.uint8)[:, None]
    return {
        "digests": np.repeat(numbers, 32, 1),
        "checksums": np.zeros(len(metadata), np.uint32),
        "prints": np.repeat(numbers + 7, PRINT_BYTES, 1),
        "metadata": np.frombuffer(texts.encode(), np.uint8),
    }


def by_numpy(path: Path, arrays: dict[str, Any], save: Callable[..., None] = np.savez) -> Path:
    """Two squares of side 4 and an index of these arrays."""
    saved = io.BytesIO()
    save(saved, **arrays)
    content = saved.getvalue()
    path.write_bytes(bytes(2 * 48) + content + TRAILER.pack(b"BLDMLPX1", len(content), zlib.crc32(content)))
    return path


def test_places_of_digests_that_begin_alike() -> None:
    digests = [f"{'ab' * 8}{number:048x}" for number in range(4)] + ["cd" * 32]
    segments = [
        Segment(Path(), Digests(np.array([list(bytes.fromhex(digest)) for digest in some], np.uint8).reshape(-1, 32)),
                np.zeros(len(some), np.uint32), MetadataTable(0), 0)
        for some in ([digests[2], digests[0]], [], [digests[4], digests[3], digests[0]])
    ]  # fmt: skip
    found = Places(segments)
    assert len(found) == 5
    assert [found.find(digest) for digest in digests] == [(0, 1), None, (0, 0), (2, 1), (2, 0)]
    assert found.find("") is None
    assert Places([]).find(digests[0]) is None


def test_a_file_that_went_away_after_its_index_was_read(samples: list[Sample], folder: Path) -> None:
    results, first = keep(samples, folder)
    assert first.written is not None
    gone = Keeper([folder], SIDE, SIZE, len(samples), write=True)
    first.written.unlink()
    assert gone.find(results[0].digest) is None
    again = list(verify(samples, SIZE, 2, gone))
    gone.close()
    assert again == results
    assert len(squares(again, folder)) == len(samples)


def test_a_writer_is_small(tmp_path: Path) -> None:
    """What it holds of each photograph until the end; the prints alone have 484 bytes."""
    count, square = 8000, np.zeros((2, 2, 3), np.uint8)
    writer = SegmentWriter(tmp_path, "x", 2, count)
    tracemalloc.start()
    try:
        for number in range(count):
            metadata = Metadata(number, number, "Canon EOS R5", "2024-06-01T12:30:00")
            writer.add(f"{number:064x}", square, metadata, NO_PRINT)
        size = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert size < 200 * count
    path = writer.finish()
    writer.abandon()
    assert path is not None
    found = read_segment(path, 2)
    assert found is not None
    assert found.metadata[count - 1] == metadata
    assert sorted(file.name for file in tmp_path.iterdir()) == [path.name]
