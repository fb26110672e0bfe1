"""With cached images and without: the same batches, one warning if something is amiss, and nothing written in vain."""

import errno
import hashlib
import logging
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from bldml.dataset.border import measure_border
from bldml.dataset.cache.format import row_bytes
from bldml.dataset.duplicates.phash import perceptual_hash
from bldml.dataset.images import load_rgb
from bldml.dataset.metadata import read_metadata
from bldml.training.data.datamodule import LeafDataModule
from bldml.training.data.loading import EpochSampler, LeafDataset
from bldml.training.resume.signals import Interrupted
from bldml.training.transforms import Augmentation, resized_side
from tests.support import REPOSITORY, mistake

SIZE = 32


@pytest.fixture
def root(split_leaves: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(split_leaves, tmp_path / "data" / "leaves"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "pixels"


@pytest.fixture
def said() -> Iterator[list[str]]:
    """What is said to the user."""
    messages: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())

    logger, listener = logging.getLogger("lightning.pytorch.utilities.rank_zero"), Listener()
    logger.addHandler(listener)
    yield messages
    logger.removeHandler(listener)


def module(root: Path, folder: Path, **settings: Any) -> LeafDataModule:
    given: dict[str, Any] = {"num_workers": 0, "batch_size": 4, "seed": 3, "cache_dir": folder} | settings
    return LeafDataModule(root=root, positive_class="BLD", image_size=SIZE, **given)


def shards(folder: Path) -> list[Path]:
    return list(folder.glob("*.npz"))


def batches(datamodule: LeafDataModule) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    train = datamodule.train_dataloader()
    for epoch in range(2):
        assert isinstance(train.sampler, EpochSampler)
        train.sampler.set_epoch(epoch)
        found += list(train)
    return [*found, *datamodule.val_dataloader(), *datamodule.test_dataloader()]


def same(a: list[dict[str, Any]], b: list[dict[str, Any]]) -> bool:
    return len(a) == len(b) and all(
        torch.equal(x["image"], y["image"]) and torch.equal(x["label"], y["label"]) and x["path"] == y["path"]
        for x, y in zip(a, b, strict=True)
    )


@pytest.mark.parametrize(
    "augmentation",
    [
        Augmentation(),
        Augmentation(crop_area=(0.3, 1.0)),
        Augmentation(crop_aspect_relative=False, surroundings="fill", translate=0.1, scale=(0.8, 1.2), grayscale=0.5),
        None,
    ],
)
def test_cached_images_change_nothing(
    augmentation: Augmentation | None, root: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    off = module(root, folder, cache="off", augmentation=augmentation)
    off.read_for_fit()
    assert not folder.exists()
    expected = batches(off)
    assert expected[0]["image"].dtype == torch.uint8
    assert expected[0]["image"].shape == (4, 3, SIZE, SIZE)
    for run in range(2):
        auto = module(root, folder, augmentation=augmentation)
        auto.read_for_fit()
        with monkeypatch.context() as patch:
            patch.setattr("bldml.training.data.loading.load_rgb", None)  # no photograph is opened
            assert same(batches(auto), expected)
        assert auto.photographs.dataset_digests == off.photographs.dataset_digests
        assert list(auto.photographs.contents.metadata) == list(off.photographs.contents.metadata)
        # Training images have one side, the others another.
        sides = {SIZE, resized_side(SIZE, augmentation)}
        assert len(shards(folder)) == len(sides), run


def test_crops_of_a_ratio_know_the_photographs_own(root: Path, folder: Path) -> None:
    """Which the cached image does not show."""
    datamodule = module(root, folder, augmentation=Augmentation(crop_aspect_relative=False))
    datamodule.read_for_fit()
    dataset = datamodule.train_dataloader().dataset
    assert isinstance(dataset, LeafDataset)
    aspects = dataset.aspects
    expected = []
    for sample in datamodule.photographs.collection.splits["train"]:
        with Image.open(sample.path) as photograph:
            expected.append(photograph.width / photograph.height)
    assert aspects.tolist() == expected
    assert {round(aspect, 1) for aspect in expected} != {1.0}


def test_workers_read_cached_images(root: Path, folder: Path) -> None:
    alone, shared = module(root, folder), module(root, folder, num_workers=2)
    alone.read_for_fit()
    shared.read_for_fit()
    assert same(batches(alone), batches(shared))


def test_evaluation_batches_are_twice_as_large(root: Path, folder: Path) -> None:
    datamodule = module(root, folder, batch_size=2)
    datamodule.read_for_fit()
    assert [len(batch["path"]) for batch in datamodule.val_dataloader()] == [4, 2]
    assert [len(batch["path"]) for batch in datamodule.test_dataloader()] == [4, 2]
    assert {len(batch["path"]) for batch in datamodule.train_dataloader()} == {2}


def test_an_evaluation_uses_what_a_fit_has_cached_and_adds_nothing(
    root: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = module(root, folder)
    before.read_for_evaluation("test", ("BLD", "No_BLD"))
    assert not folder.exists()
    expected = list(before.test_dataloader())
    module(root, folder).read_for_fit()
    kept = sorted(folder.iterdir())
    monkeypatch.setattr("bldml.training.data.loading.load_rgb", None)
    monkeypatch.setattr("bldml.dataset.verify.load_rgb", None)
    after = module(root, folder)
    after.read_for_evaluation("test", ("BLD", "No_BLD"))
    assert same(list(after.test_dataloader()), expected)
    assert sorted(folder.iterdir()) == kept


def test_training_photographs_are_evaluated_like_others(root: Path, folder: Path) -> None:
    """Not by way of the larger image that augmentation acts on."""
    fitted = module(root, folder)
    fitted.read_for_fit()
    fitted.validated = "train"
    off = module(root, folder, cache="off")
    off.read_for_evaluation("train", ("BLD", "No_BLD"))
    off.validated = "train"
    assert same(list(fitted.val_dataloader()), list(off.val_dataloader()))


def test_only_the_first_process_writes(root: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    second = module(root, folder)
    second.read_for_fit()
    assert not folder.exists()
    monkeypatch.setenv("RANK", "0")
    module(root, folder).read_for_fit()
    # By now the first one has cached them, and the second opens them when it begins to train.
    monkeypatch.setattr("bldml.training.data.loading.load_rgb", None)
    assert next(iter(second.train_dataloader()))["image"].shape == (4, 3, SIZE, SIZE)


def test_what_is_known_of_each_photograph(root: Path, folder: Path) -> None:
    for _ in range(2):
        datamodule = module(root, folder)
        datamodule.read_for_fit()
        count = 0
        for split, samples in datamodule.photographs.collection.splits.items():
            contents = datamodule.photographs.contents_of(split)
            for sample, digest, metadata, found in zip(
                samples, contents.digests, contents.metadata, contents.phashes, strict=True
            ):
                assert digest == hashlib.sha256(sample.path.read_bytes()).hexdigest()
                header, photograph = read_metadata(sample.path), load_rgb(sample.path, SIZE)
                assert header is not None
                assert metadata == replace(header, border=measure_border(photograph))
                assert (found == perceptual_hash(photograph)).all()
                count += 1
        assert count == len(datamodule.photographs.contents) == 24


def test_where_and_how_much_is_said_once(root: Path, folder: Path, said: list[str]) -> None:
    module(root, folder).read_for_fit()
    (message,) = said
    assert message.startswith("Decoded images are cached")
    assert str(folder) in message
    said.clear()
    module(root, folder).read_for_fit()
    assert said == []


def test_an_image_size_that_nobody_has_set_is_said(root: Path, said: list[str]) -> None:
    datamodule = LeafDataModule(root=root, positive_class="BLD", cache="off")
    datamodule.read_for_evaluation("test")
    assert said == ["The data module has no image_size and no model: its images have 224 px."]
    assert datamodule.image_size is None  # a trainer's model may still set it


def test_a_folder_that_cannot_be_had(root: Path, tmp_path: Path, said: list[str]) -> None:
    (tmp_path / "file").touch()
    datamodule = module(root, tmp_path / "file")
    datamodule.read_for_fit()
    (message,) = said
    assert "Warning: decoded images are not cached" in message
    assert f"{tmp_path / 'file'} cannot be written to" in message
    assert "--data.cache_dir FOLDER" in message
    off = module(root, tmp_path / "file", cache="off")
    off.read_for_fit()
    assert len(said) == 1
    assert same(batches(datamodule), batches(off))


@pytest.mark.parametrize("workers", [0, 1])
def test_damaged_images_are_made_again(workers: int, root: Path, folder: Path, said: list[str]) -> None:
    datamodule = module(root, folder, num_workers=workers)
    datamodule.read_for_fit()
    expected = batches(datamodule)
    said.clear()
    files = list(folder.glob("*.rgb"))
    contents = [file.read_bytes() for file in files]
    for file, content in zip(files, contents, strict=True):
        side = int(file.name.partition("px")[0])
        rows = [
            bytes(9) + content[start + 9 : start + row_bytes(side)] for start in range(0, len(content), row_bytes(side))
        ]
        file.write_bytes(b"".join(rows))  # images, not hashes
    assert same(batches(datamodule), expected)
    if not workers:
        assert 1 <= len(said) <= 3  # one a loader
        assert all("cached images are damaged" in message for message in said)
        assert all(".rgb" in message for message in said)
    assert [file.read_bytes() for file in files] == contents
    said.clear()
    assert same(batches(datamodule), expected)
    assert said == []


def test_a_folder_beside_the_manifest_s_that_may_not_be_listed(
    root: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is somebody else's; as root, whom no permission stops, the tests deny it themselves."""
    rows = [f"{path.relative_to(root).as_posix()}" for path in sorted(root.rglob("*.jpg"))]
    lines = [f"{row},{row.split('/')[1]},{row.split('/')[0]}" for row in rows]
    (root / "m.csv").write_text("\n".join(["path,label,split", *lines]))
    (root / "theirs").mkdir()
    scan = os.scandir

    def denied(place: Any) -> Any:
        if Path(place).name == "theirs":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return scan(place)

    monkeypatch.setattr(os, "scandir", denied)
    data = module(root, folder, manifest=root / "m.csv").read_for_fit()
    assert len(list(data.collection.samples())) == len(rows)


def test_unreadable_photographs_and_cached_images(root: Path, folder: Path) -> None:
    bad = sorted((root / "train" / "BLD").iterdir())[0]
    good = bad.read_bytes()
    bad.write_bytes(good[:300])
    for _ in range(2):
        with mistake("photographs-unreadable") as caught:
            module(root, folder).read_for_fit()
        assert [name for name, _ in caught.value.fields["found"]] == [f"train/BLD/{bad.name}"]
    assert len(shards(folder)) == 2  # all others need not be decoded again
    without = module(root, folder, unreadable="exclude")
    without.read_for_fit()
    assert [name for name, _ in without.photographs.excluded] == [f"train/BLD/{bad.name}"]
    for split, samples in without.photographs.collection.splits.items():  # what comes behind it is still each one's own
        digests = [hashlib.sha256(sample.path.read_bytes()).hexdigest() for sample in samples]
        assert list(without.photographs.contents_of(split).digests) == digests
    assert same(batches(without), batches(without))
    bad.write_bytes(good)
    repaired = module(root, folder)
    repaired.read_for_fit()
    assert repaired.photographs.excluded == ()
    assert len(shards(folder)) == 3


def test_what_was_decoded_before_an_interrupt_is_cached(root: Path, folder: Path) -> None:
    asked = 0

    def check() -> None:
        nonlocal asked
        asked += 1
        if asked == 5:
            raise Interrupted(15)

    with pytest.raises(Interrupted):
        module(root, folder).read_for_fit(check)
    assert len(shards(folder)) == 1
    datamodule = module(root, folder)
    datamodule.read_for_fit()
    off = module(root, folder, cache="off")
    off.read_for_fit()
    assert same(batches(datamodule), batches(off))


def test_the_folder_beside_the_data(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BLDML_CACHE")
    LeafDataModule(root=root, positive_class="BLD", image_size=SIZE).read_for_fit()
    assert len(shards(root.parent / ".bldml_cache")) == 2
    assert sorted(path.name for path in root.iterdir()) == ["test", "train", "val"]


def test_a_photograph_that_changed_after_it_was_cached(root: Path, folder: Path) -> None:
    module(root, folder).read_for_fit()
    changed, other = sorted((root / "val" / "BLD").iterdir())[:2]
    shutil.copy(other, changed)
    auto, off = module(root, folder), module(root, folder, cache="off")
    auto.read_for_fit()
    off.read_for_fit()
    assert auto.photographs.dataset_digests == off.photographs.dataset_digests
    assert same(batches(auto), batches(off))


def test_a_process_that_was_not_forked_loads_the_same(root: Path, folder: Path) -> None:
    datamodule = module(root, folder)
    datamodule.read_for_fit()
    dataset = datamodule.train_dataloader().dataset
    expected = dataset[1, 2]["image"]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        image = pool.apply(_load, (dataset,))
    assert torch.equal(image, expected)


def _load(dataset: LeafDataset) -> torch.Tensor:
    torch.set_num_threads(1)
    assert os.getpid()
    return dataset[1, 2]["image"].clone()


DECODER = """
import os, sys
from pathlib import Path
from bldml.dataset import verify
from bldml.training.data.datamodule import LeafDataModule

decode, root, mark = verify.load_unchanged, Path(sys.argv[1]), Path(sys.argv[2])
count = 0

def counting(*arguments):
    global count
    count += 1
    if count == 1 and mark.with_suffix(".hold").exists():
        mark.write_text("decoding")
        os.kill(os.getpid(), 19)  # SIGSTOP, until the test lets it go on or kills it
    return decode(*arguments)

verify.load_unchanged = counting
LeafDataModule(root, positive_class="BLD", image_size=32, cache_dir=Path(sys.argv[3])).read_for_fit()
mark.write_text(str(count))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="stops a process by a signal")
@pytest.mark.parametrize("is_killed", [False, True])
def test_of_two_that_start_at_once_one_decodes(split_leaves: Path, tmp_path: Path, is_killed: bool) -> None:
    def start(mark: Path) -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", DECODER, str(split_leaves), str(mark), str(tmp_path / "cache")]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=REPOSITORY)

    first, second = tmp_path / "first", tmp_path / "second"
    first.with_suffix(".hold").touch()
    decoding = start(first)
    try:
        while not first.exists():
            assert decoding.poll() is None, decoding.communicate()
            time.sleep(0.05)
        waiting = start(second)
        assert waiting.stdout is not None
        said = next(line for line in waiting.stdout if "another process" in line)
        assert str(tmp_path / "cache") in said
        decoding.send_signal(signal.SIGKILL if is_killed else signal.SIGCONT)
        waiting.communicate(timeout=120)
    finally:
        decoding.send_signal(signal.SIGKILL if is_killed else signal.SIGCONT)
        decoding.communicate(timeout=120)
    photographs = sum(1 for _ in split_leaves.rglob("*.jpg"))
    assert int(second.read_text()) == (photographs if is_killed else 0)
    assert waiting.returncode == 0
    if not is_killed:
        assert int(first.read_text()) == photographs
