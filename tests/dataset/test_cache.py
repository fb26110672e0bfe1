"""Cached images: the very ones that decoding gives, found again by content, and never half a shard."""

import errno
import json
import os
import pickle
import shutil
import threading
import time
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bldml.dataset.cache import format as cache_format
from bldml.dataset.cache import writer as cache_writer
from bldml.dataset.cache.format import (
    CachedImages,
    DamagedRow,
    RowIndex,
    Shard,
    cache_name,
    pixel_bytes,
    read_shard,
    row_bytes,
)
from bldml.dataset.cache.location import FOLDER, VARIABLE, find_folders, is_writable
from bldml.dataset.cache.writer import ImageCache, ShardWriter, describe_cache
from bldml.dataset.contents import Digests, MetadataTable
from bldml.dataset.duplicates.phash import NO_PHASH
from bldml.dataset.images import load_rgb, resize_to_square
from bldml.dataset.metadata import Metadata
from bldml.dataset.samples import Sample
from bldml.dataset.synthetic.leaves import write_leaves
from bldml.dataset.unchanged import load_unchanged
from bldml.dataset.verify import Verified, verify
from tests.clocks import DAY_S, set_clock

SIDE, SIZE = 40, 32


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    """Eight drawn leaves."""
    write_leaves(tmp_path / "leaves", images_per_class=4, size=96)
    return [Sample(path, path.name) for path in sorted((tmp_path / "leaves").rglob("*.jpg"))]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def fill(
    samples: Sequence[Sample], folder: Path, *, write: bool = True, side: int = SIDE
) -> tuple[list[Verified], ImageCache]:
    cache = ImageCache([folder], side, SIZE, len(samples), write=write)
    results = list(verify(samples, SIZE, 3, cache))
    cache.close()
    return results, cache


def cached(results: Sequence[Verified], folder: Path, side: int = SIDE) -> CachedImages:
    return CachedImages([folder], side, SIZE, [result.digest for result in results])


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def files(folder: Path, pattern: str = "*px-*") -> list[str]:
    """What lies there beside what marks the folder as a cache."""
    return sorted(path.name for path in folder.glob(pattern))


def index_of(folder: Path) -> Path:
    (index,) = folder.glob("*.npz")
    return index


def test_cached_images_are_what_decoding_gives(samples: list[Sample], folder: Path) -> None:
    results, cache = fill(samples, folder)
    assert cache.trouble == ""
    assert [result.sample for result in results] == samples
    found = cached(results, folder)
    assert len(found) == len(samples)
    for number, sample in enumerate(samples):
        image = found.read(number)
        assert image is not None
        expected = resize_to_square(load_rgb(sample.path, SIZE), SIDE)
        assert image.dtype == np.uint8
        assert image.shape == (SIDE, SIDE, 3)
        assert (image == expected).all()


def test_nothing_is_decoded_twice(samples: list[Sample], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = fill(samples, folder)
    before = files(folder)
    monkeypatch.setattr("bldml.dataset.verify.load_unchanged", None)
    monkeypatch.setattr("bldml.dataset.verify.read_metadata", None)
    monkeypatch.setattr("bldml.dataset.verify.perceptual_hash", None)
    again, cache = fill(samples, folder)
    assert again == first
    assert all((a.phash == b.phash).all() and a.phash.any() for a, b in zip(again, first, strict=True))
    assert cache.written is None
    assert files(folder) == before


def test_a_photograph_is_known_by_its_content(
    samples: list[Sample], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(samples, folder)
    (tmp_path / "elsewhere").mkdir()
    moved = Sample(tmp_path / "elsewhere" / "other name.jpg", "other name.jpg")
    shutil.copy(samples[5].path, moved.path)
    # Of the same name as one that is kept, but another picture.
    Image.effect_noise((64, 64), 40).convert("RGB").save(samples[0].path, quality=90)
    decoded: list[Path] = []

    def load(path: Path, digest: str, target_size: int) -> Image.Image:
        decoded.append(path)
        return load_unchanged(path, digest, target_size)

    monkeypatch.setattr("bldml.dataset.verify.load_unchanged", load)
    results, cache = fill([moved, *samples], folder)
    assert decoded == [samples[0].path]
    assert cache.written is not None
    found = cached(results, folder)
    assert len(found) == 9
    for number, sample in enumerate([moved, *samples]):
        image = found.read(number)
        assert image is not None
        assert image.tobytes() == resize_to_square(load_rgb(sample.path, SIZE), SIDE).tobytes()


def test_only_looking_keeps_nothing(samples: list[Sample], folder: Path) -> None:
    results, cache = fill(samples, folder, write=False)
    assert all(not result.reason for result in results)
    assert (files(folder), cache.written, cache.trouble) == ([], None, "")
    assert len(cached(results, folder)) == 0
    assert cached(results, folder).read(0) is None


def test_another_size_or_version_is_another_file(
    samples: list[Sample], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results, _ = fill(samples, folder)
    assert len(cached(results, folder, side=SIZE)) == 0
    assert (
        len(CachedImages([folder], SIDE, SIZE + 1, [result.digest for result in results])) == 0
    )  # another scale of JPEGs
    fill(samples, folder, side=SIZE)
    assert (len(cached(results, folder)), len(cached(results, folder, side=SIZE))) == (8, 8)
    before = cache_name(SIDE, SIZE)
    monkeypatch.setattr(cache_format, "CACHE_VERSION", 0)
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
        results, _ = fill(samples, folder)
        assert results == plain
        assert len(cached(results, folder)) == 4


def test_two_of_the_same_content_share_a_row(samples: list[Sample], folder: Path, tmp_path: Path) -> None:
    twin = Sample(tmp_path / "twin.jpg", "twin.jpg")
    shutil.copy(samples[1].path, twin.path)
    results, cache = fill([*samples, twin], folder)
    assert cache.written is not None
    found = read_shard(index_of(folder), SIDE)
    assert found is not None
    assert found.rows == cache.written
    assert len(found.digests) == 8
    assert len(cached(results, folder)) == 9


@pytest.mark.parametrize("damage", ["row", "cut", "gone", "index gone"])
def test_damage_is_noticed(damage: str, samples: list[Sample], folder: Path) -> None:
    results, cache = fill(samples, folder)
    assert cache.written is not None
    whole = cache.written.read_bytes()
    before = cached(results, folder)
    stored = read_shard(index_of(folder), SIDE)
    assert stored is not None
    place = stored.digests.index(results[0].digest) * row_bytes(SIDE)
    if damage.endswith("gone"):
        (index_of(folder) if damage == "index gone" else cache.written).unlink()
        assert before.read(0) is not None  # it was open
        assert len(cached(results, folder)) == 0
    else:
        with cache.written.open("r+b") as file:
            if damage == "cut":
                file.truncate(place + 10)
            else:
                file.seek(place + 7)
                file.write(bytes([whole[place + 7] ^ 1]))
        with pytest.raises(DamagedRow, match=rf"cache.*{cache.written.name}"):
            before.read(0)
    if damage != "row":
        assert damage == "index gone" or read_shard(index_of(folder), SIDE) is None
        again, second = fill(samples, folder)  # as if it were not there
        assert second.written is not None
        assert len(cached(again, folder)) == 8
        return
    before.repair(0, Image.new("RGB", (50, 50)))  # not the photograph that was cached
    with pytest.raises(DamagedRow):
        before.read(0)
    before.repair(0, load_rgb(samples[0].path, SIZE))
    assert cache.written.read_bytes() == whole
    assert before.read(0) is not None


def test_a_damaged_perceptual_hash_is_made_again(samples: list[Sample], folder: Path) -> None:
    first, cache = fill(samples, folder)
    assert cache.written is not None
    content = bytearray(cache.written.read_bytes())
    content[pixel_bytes(SIDE) + 20] ^= 255
    cache.written.write_bytes(content)
    again, second = fill(samples, folder)
    assert all((a.phash == b.phash).all() for a, b in zip(again, first, strict=True))
    assert second.written is not None
    assert second.written.stat().st_size == row_bytes(SIDE)  # of the one alone


def test_a_damaged_index_is_none_or_the_same(samples: list[Sample], folder: Path) -> None:
    """Whichever byte is damaged; some of an archive's say nothing."""
    fill(samples, folder)
    index = index_of(folder)
    whole, sound = index.read_bytes(), read_shard(index, SIDE)
    assert sound is not None
    refused = 0
    for place in range(0, len(whole), 7):
        content = bytearray(whole)
        content[place] ^= 255
        index.write_bytes(content)
        if (found := read_shard(index, SIDE)) is None:
            refused += 1
        else:
            assert (found.digests.raw == sound.digests.raw).all()
            assert (found.checksums == sound.checksums).all()
            assert (found.rows, list(found.metadata)) == (sound.rows, list(sound.metadata))
    assert refused > 0.8 * len(whole) / 7
    index.write_bytes(whole)
    assert read_shard(index, SIDE + 1) is None
    index.write_bytes(whole[:-30])
    assert read_shard(index, SIDE) is None
    assert read_shard(folder / "none", SIDE) is None


def test_nothing_unfinished_is_seen(samples: list[Sample], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither by others while it is written, nor after a process was killed; a day later it is removed."""
    cache = ImageCache([folder], SIDE, SIZE, len(samples), write=True)
    results = list(verify(samples, SIZE, 2, cache))
    (unfinished,) = folder.glob("*px-*")
    assert len(cached(results, folder)) == 0
    left = [folder / f"{name}px-0123.{suffix}" for name in (SIDE, 64) for suffix in ("rgb", "building")]
    others = [folder / name for name in ("40px-0123.pixels", "photograph.rgb")]  # of 0.1, and of somebody else
    two_days = time.time() - 2 * 86400
    for path in (*left, *others):
        path.write_bytes(b"left by a killed process")
        os.utime(path, (two_days, two_days))
    ShardWriter(folder, "other", SIDE, 1).abandon()
    assert not any(path.exists() for path in left)
    with monkeypatch.context() as elsewhere:  # on a node whose clock is wrong
        set_clock(elsewhere, lambda: 3650 * DAY_S)
        ShardWriter(folder, "other", SIDE, 1).abandon()
    assert unfinished.exists()
    os.utime(unfinished, (two_days, two_days))
    cache.close()
    assert len(cached(results, folder)) == 8
    os.utime(unfinished, (two_days, two_days))
    ShardWriter(folder, "other", SIDE, 1).abandon()  # an old shard is none that was left
    assert len(cached(results, folder)) == 8
    assert all(path.exists() for path in others)


def test_a_job_that_was_suspended_until_its_rows_were_removed(samples: list[Sample], folder: Path) -> None:
    cache = ImageCache([folder], SIDE, SIZE, len(samples), write=True)
    list(verify(samples, SIZE, 2, cache))
    (unfinished,) = folder.glob("*px-*")
    unfinished.unlink()
    cache.close()
    assert cache.trouble == f"{folder}: No such file or directory"
    assert (cache.written, files(folder)) == (None, [])


@pytest.mark.parametrize("moment", ["rows", "index", "name"])
def test_a_kill_leaves_the_old_state_or_the_new_one(moment: str, samples: list[Sample], folder: Path) -> None:
    first, _ = fill(samples[:4], folder)
    process = os.fork()
    if not process:
        stop = {"rows": "_write_index", "index": "_name", "name": "abandon"}[moment]
        owner = cache_writer if moment == "index" else ShardWriter
        setattr(owner, stop, lambda *_: os._exit(9))  # as SIGKILL would, in the middle of `finish` or behind it
        fill(samples, folder)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 9
    assert len(cached(first, folder)) == 4
    results = list(verify(samples, SIZE, 1))
    found = cached(results, folder)
    assert len(found) == (8 if moment == "name" else 4)
    assert sum(found.read(number) is not None for number in range(8)) == len(found)
    again, _ = fill(samples, folder)
    assert again == results
    assert len(cached(again, folder)) == 8


def test_a_run_that_was_stopped_keeps_what_it_had(samples: list[Sample], folder: Path) -> None:
    cache = ImageCache([folder], SIDE, SIZE, len(samples), write=True)
    results = verify(samples[:3], SIZE, 1, cache)
    next(results)
    results.close()
    cache.close()
    assert cache.written is not None
    again, _ = fill(samples, folder)
    assert len(cached(again, folder)) == 8
    assert len(files(folder)) == 4


def test_two_at_once(samples: list[Sample], folder: Path) -> None:
    caches = [ImageCache([folder], SIDE, SIZE, len(samples), write=True) for _ in range(2)]
    results: list[list[Verified]] = [[], []]

    def work(number: int) -> None:
        results[number] = list(verify(samples, SIZE, 2, caches[number]))
        caches[number].close()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results[0] == results[1]
    assert len(files(folder)) == 2
    found = cached(results[0], folder)
    assert all(found.read(number) is not None for number in range(8))


def test_the_shard_of_a_job_that_was_quicker_stays(samples: list[Sample], folder: Path) -> None:
    """On a file server one that is replaced can no longer be read by who has it open."""
    first, second = (ImageCache([folder], SIDE, SIZE, len(samples), write=True) for _ in range(2))
    results = list(verify(samples, SIZE, 1, first))
    list(verify(samples[::-1], SIZE, 1, second))
    first.close()
    assert first.written is not None
    index = index_of(folder).read_bytes()
    second.close()
    assert second.written is None
    assert files(folder, "*.rgb") == [first.written.name]
    assert index_of(folder).read_bytes() == index
    index_of(folder).write_bytes(b"damaged")
    fill(samples, folder)
    assert len(cached(results, folder)) == 8


def test_another_shard_of_the_same_photographs_is_not_repaired(samples: list[Sample], folder: Path) -> None:
    results, cache = fill(samples, folder)
    assert cache.written is not None
    mine = cached(results, folder)
    copied = pickle.dumps(mine)
    cache.written.unlink()
    _, other = fill(samples[::-1], folder)
    assert other.written is not None
    theirs = other.written.read_bytes()
    mine.repair(0, load_rgb(samples[0].path, SIZE))
    assert other.written.read_bytes() == theirs
    with pytest.raises(DamagedRow):
        pickle.loads(copied).read(0)


def test_cached_images_travel_to_a_process_that_was_not_forked(samples: list[Sample], folder: Path) -> None:
    results, _ = fill(samples, folder)
    found = cached(results, folder)
    copied = pickle.loads(pickle.dumps(found))
    one, other = found.read(3), copied.read(3)
    assert one is not None
    assert one.tobytes() == other.tobytes()


def test_files_are_closed(samples: list[Sample], folder: Path) -> None:
    results, _ = fill(samples, folder)
    before = open_files()
    found = cached(results, folder)
    assert open_files() == before + 1
    del found
    assert open_files() == before


def test_no_room(samples: list[Sample], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_writer, "SPARE", 2**60)
    results, cache = fill(samples, folder)
    assert all(not result.reason for result in results)
    assert "are needed" in cache.trouble
    assert cache.written is None
    assert files(folder) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fills_up(code: int, samples: list[Sample], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is given back: a run has checkpoints to write."""
    calls = 0
    write = cache_format.write_at

    def write_at(file: int, data: bytes, place: int) -> None:
        nonlocal calls
        calls += 1
        if calls > 3:
            raise OSError(code, os.strerror(code))
        write(file, data, place)

    monkeypatch.setattr(cache_writer, "write_at", write_at)
    cache = ImageCache([folder], SIDE, SIZE, len(samples), write=True)
    results = list(verify(samples, SIZE, 1, cache))
    assert all(not result.reason for result in results)
    assert cache.trouble == f"{folder}: the disk or your quota is full"
    assert [path.stat().st_size for path in folder.glob("*px-*")] == [0]
    cache.close()
    assert cache.written is None
    assert files(folder) == []
    assert calls == 4


def test_a_disk_that_is_full_at_the_end(samples: list[Sample], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fsync(file: int) -> None:
        raise OSError(errno.EDQUOT, "quota")

    monkeypatch.setattr(os, "fsync", fsync)
    _, cache = fill(samples, folder)
    assert cache.trouble == f"{folder}: the disk or your quota is full"
    assert (cache.written, files(folder)) == (None, [])


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
    cache = ImageCache(folders, SIDE, SIZE, len(samples), write=True)
    results = list(verify(samples, SIZE, 2, cache))
    cache.close()
    assert cache.written is not None
    assert cache.written.parent == folders[1]
    assert len(CachedImages(folders, SIDE, SIZE, [result.digest for result in results])) == 8
    cache = ImageCache(folders[:1], SIDE, SIZE, len(samples), write=True)
    list(verify(samples, SIZE, 2, cache))
    cache.close()
    assert "cannot be written to" in cache.trouble


def test_it_is_said_how_much_lies_where(samples: list[Sample], folder: Path) -> None:
    _, cache = fill(samples, folder)
    assert cache.written is not None
    text = describe_cache([cache.written])
    assert str(folder) in text
    assert f": {len(samples)} of {SIDE} px, which were not cached yet; " in text
    assert " MiB in all" in text


def test_files_of_an_older_version_are_named(samples: list[Sample], folder: Path) -> None:
    folder.mkdir()
    (folder / "40px-01234567-0123456789abcdef.pixels").write_bytes(bytes(3 * 2**20))
    _, cache = fill(samples, folder)
    assert cache.written is not None
    assert "Files *.pixels there (3 MiB) are of bldml 0.1; delete them" in describe_cache([cache.written])


def test_a_file_system_without_links(samples: list[Sample], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    results, cache = fill(samples, folder)
    assert cache.trouble == ""
    assert len(cached(results, folder)) == 8
    assert len(files(folder)) == 2


def test_a_new_folder_is_marked_as_a_cache(samples: list[Sample], folder: Path, tmp_path: Path) -> None:
    fill(samples, folder)
    assert (folder / ".gitignore").read_text() == "*\n"
    # The first 43 characters decide: https://bford.info/cachedir/
    assert (folder / "CACHEDIR.TAG").read_bytes()[:43] == b"Signature: 8a477f597d28d172789f06886806bc55"
    (tmp_path / "mine").mkdir()
    (tmp_path / FOLDER).mkdir()  # of 0.1, which did not mark it
    for name, marks in (("mine", []), (FOLDER, [".gitignore", "CACHEDIR.TAG"])):
        fill(samples, tmp_path / name)
        found = sorted(path.name for path in (tmp_path / name).iterdir() if "px-" not in path.name)
        assert found == marks


def two_rows(folder: Path, metadata: Sequence[Metadata | None] = (None, None)) -> Path:
    """The index of a shard of two images of side 4."""
    writer = ShardWriter(folder, "4px-0", 4, 1)
    for number, entry in enumerate(metadata):
        writer.add(f"{number}f" * 32, np.full((4, 4, 3), number, np.uint8), entry, NO_PHASH + number)
    assert writer.finish() is not None
    return index_of(folder)


def test_metadata_of_any_kind(tmp_path: Path) -> None:
    odd = Metadata(3, 2, "Canon \\xe9 \u2028 é\0", "2024-06-01T12:30:00", "04", quantization=2.25, has_gps=True)
    index = two_rows(tmp_path, [None, odd])
    found = read_shard(index, 4)
    assert found is not None
    assert list(found.metadata) == [None, odd]
    assert list(found.digests) == ["0f" * 32, "1f" * 32]
    without = read_shard(index, 4, with_metadata=False)
    assert without is not None
    assert list(without.metadata) == []


def test_an_index_that_is_none(tmp_path: Path) -> None:
    """A folder that others write to holds numbers, and no code."""
    index = two_rows(tmp_path)
    with np.load(index) as arrays:
        sound = dict(arrays)
    about = json.loads(sound["about"].item())

    def said(**changed: Any) -> dict[str, Any]:
        return {"about": np.array(json.dumps(about | changed))}

    def rows(**changed: Any) -> dict[str, Any]:
        metadata = sound["metadata"].copy()
        for column, value in changed.items():
            metadata[column] = value
        return {"metadata": metadata}

    assert reread(index, sound) is not None
    bad: dict[str, dict[str, Any]] = {
        "pickle": {"metadata": np.array([object], object)},
        "short metadata": {"metadata": sound["metadata"][:1]},
        "other metadata": {"metadata": np.zeros(2)},
        "unknown kind": rows(kind=1),
        "negative kind": rows(kind=-1),
        "no date": rows(taken=b"\xff"),
        "kind": said(kinds=[None, {"maker": "Canon"}]),
        "no kinds": said(kinds=[]),
        "text": {"about": np.array("{")},
        "elsewhere": said(rows=f"../{tmp_path.name}/{about['rows']}"),
        "no file": said(rows="4px-0-1.rgb"),
        "number": said(rows=3),
        "other digests": {"digests": sound["digests"].astype(np.int64)},
        "short digests": {"digests": sound["digests"][:, :-1]},
        "checksums": {"checksums": sound["checksums"][:1]},
    }
    for name, changed in bad.items():
        assert reread(index, sound | changed) is None, name
    for name in sound:
        assert reread(index, {key: array for key, array in sound.items() if key != name}) is None, name


def reread(index: Path, arrays: dict[str, Any]) -> Shard | None:
    np.savez(index, **arrays)
    return read_shard(index, 4)


def test_digests_that_begin_alike() -> None:
    digests = [f"{'ab' * 8}{number:048x}" for number in range(4)] + ["cd" * 32]
    shards = [
        Shard(Path(), Digests(np.array([list(bytes.fromhex(d)) for d in some], np.uint8).reshape(-1, 32)),
              np.zeros((len(some), 2), np.uint32), MetadataTable(0))
        for some in ([digests[2], digests[0]], [], [digests[4], digests[3], digests[0]])
    ]  # fmt: skip
    found = RowIndex(shards)
    assert len(found) == 5
    assert [found.find(digest) for digest in digests] == [(0, 1), None, (0, 0), (2, 1), (2, 0)]
    assert found.find("") is None
    assert RowIndex([]).find(digests[0]) is None


def test_rows_that_went_away_after_their_index_was_read(samples: list[Sample], folder: Path) -> None:
    results, first = fill(samples, folder)
    assert first.written is not None
    gone = ImageCache([folder], SIDE, SIZE, len(samples), write=True)
    first.written.unlink()
    assert gone.find(results[0].digest) is None
    again = list(verify(samples, SIZE, 2, gone))
    gone.close()
    assert again == results
    assert len(cached(again, folder)) == len(samples)


def test_a_writer_is_small(tmp_path: Path) -> None:
    """What it holds of each photograph until the end; a perceptual hash alone has 484 bytes."""
    count, image = 8000, np.zeros((2, 2, 3), np.uint8)
    writer = ShardWriter(tmp_path, "x", 2, count)
    tracemalloc.start()
    try:
        for number in range(count):
            metadata = Metadata(number, number, "Canon EOS R5", "2024-06-01T12:30:00")
            writer.add(f"{number:064x}", image, metadata, NO_PHASH)
        size = tracemalloc.get_traced_memory()[0]
        assert writer.finish() is not None
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert size < 200 * count
    assert peak < 500 * count
    found = read_shard(index_of(tmp_path), 2)
    assert found is not None
    assert found.metadata[count - 1] == metadata
