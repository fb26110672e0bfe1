"""Pixels that are kept: the very ones that decoding gives, found again by content, and never half a file."""

import errno
import os
import pickle
import shutil
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bldml.dataset import cache, segment
from bldml.dataset.cache import FOLDER, VARIABLE, Keeper, cache_name, describe, find_folders, is_writable
from bldml.dataset.images import load_rgb
from bldml.dataset.metadata import Metadata
from bldml.dataset.perceptual import NO_PRINT
from bldml.dataset.pixels import squash
from bldml.dataset.samples import Sample
from bldml.dataset.segment import SegmentWriter, read_segment
from bldml.dataset.squares import DamagedSquare, Squares
from bldml.dataset.synthetic import write_leaves
from bldml.dataset.verify import Verified, verify

SIDE, SIZE = 40, 32


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
        assert (square.mode, square.size) == ("RGB", (SIDE, SIDE))
        assert square.tobytes() == expected.tobytes()


def test_nothing_is_decoded_twice(samples: list[Sample], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = keep(samples, folder)
    before = files(folder)
    monkeypatch.setattr("bldml.dataset.verify.load_rgb", None)
    monkeypatch.setattr("bldml.dataset.verify.read_metadata", None)
    monkeypatch.setattr("bldml.dataset.verify.fingerprint", None)
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
    write = segment.write_at

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
    assert keeper.trouble == "the disk or your quota is full"
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
    assert keeper.trouble == "the disk or your quota is full"
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
    text = describe([keeper.written])
    assert str(folder) in text
    assert " MiB in all" in text


def test_metadata_of_any_kind(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path, "x", 4, 2)
    odd = Metadata(3, 2, "Canon \\xe9 \u2028", "2024-06-01T12:30:00")
    writer.add("00" * 32, Image.new("RGB", (4, 4)), None, NO_PRINT)
    writer.add("ff" * 32, Image.new("RGB", (4, 4), "red"), odd, NO_PRINT + 1)
    path = writer.finish()
    assert path is not None
    found = read_segment(path, 4)
    assert found is not None
    assert found.metadata == [None, odd]
    assert found.digests == ["00" * 32, "ff" * 32]
    np.testing.assert_array_equal(found.prints, np.stack([NO_PRINT, NO_PRINT + 1]))


def test_no_pickle_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that others write to holds numbers, and no code."""
    saved: list[dict[str, Any]] = []
    savez = np.savez

    def with_object(file: Any, **arrays: Any) -> None:
        saved.append(arrays)
        arrays["metadata"] = np.array([object], object)
        savez(file, **arrays)

    monkeypatch.setattr(np, "savez", with_object)
    writer = SegmentWriter(tmp_path, "x", 4, 1)
    writer.add("00" * 32, Image.new("RGB", (4, 4)), None, NO_PRINT)
    path = writer.finish()
    assert path is not None
    assert saved
    assert read_segment(path, 4) is None
