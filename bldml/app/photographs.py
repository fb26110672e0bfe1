"""What is known of a run's photographs: photographs.csv, excluded.csv, leaks.csv, phashes.npz; the search for leaks."""

import io
import zipfile
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import accumulate, chain
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.utilities import rank_zero_info

from bldml.app.messages import say_warning
from bldml.dataset.duplicates.find import find_duplicates
from bldml.dataset.duplicates.leaks import KnownPhotograph, Leak, find_leaks, leak_summary
from bldml.dataset.duplicates.phash import (
    COEFFICIENT_BYTES,
    PHASH_BYTES,
    NearDuplicate,
    PHashes,
    find_near_duplicates,
    find_near_duplicates_between,
)
from bldml.dataset.files import escape_path, show_path
from bldml.dataset.folders import check_outside
from bldml.errors import DatasetError, RunError
from bldml.io.atomic import write_atomically
from bldml.io.documents import LARGEST_TABLE
from bldml.io.grammar import check_output_folder
from bldml.io.text import counted, first_few, to_csv
from bldml.run.folder import RunFolder
from bldml.run.photographs import PhotographRow, described, differences, photographs_text, read_photograph_table
from bldml.run.provenance import DIGEST_DIGITS
from bldml.training.checkpoint import Checkpoint
from bldml.training.data.datamodule import LeafDataModule
from bldml.training.data.reading import PreparedData

SHOWN = 5  # examples in a message
MANY = 5000  # photographs; the search of more is announced
WAY_OUT = "`python -m bldml audit` shows them; `python -m bldml split` keeps them in one split."


def rows_of(data: PreparedData) -> Iterator[PhotographRow]:
    """Yield one row per photograph, split after split."""
    for split, samples in data.collection.splits.items():
        contents = data.contents_of(split)
        for sample, metadata, digest in zip(samples, contents.metadata, contents.digests, strict=True):
            yield PhotographRow(
                path=sample.name,
                split=split,
                true_class=sample.class_name,
                group=sample.group,
                sha256=digest,
                original_class=sample.original_class,
                burst=data.bursts[sample.name],
                **described(metadata),
            )


def bursts_of(data: PreparedData, split: str, run: RunFolder | None) -> dict[str, str]:
    """Return the burst of each photograph of a split by its name; empty outside a burst.

    Bursts of the run's own photographs are those of its table: a part of them does not show that two photographs are of
    one burst if a third one, which links them, is in another split.
    """
    recorded: dict[tuple[str, str], str] = {}
    with suppress(RunError):
        if run is not None:
            recorded = {
                (row.path, row.sha256): row.burst
                for row in read_photograph_table(run.photographs)
                if row.split == split and row.original_class  # a table of 0.1 has neither
            }
    names = [sample.name for sample in data.samples(split)]
    keys = list(zip(names, data.contents_of(split).digests, strict=True))
    if all(key in recorded for key in keys):
        return {key[0]: recorded[key] for key in keys}
    return {name: data.bursts[name] for name in names}


def photographs_table(data: PreparedData) -> str:
    """Return the content of photographs.csv."""
    return photographs_text(rows_of(data))


def excluded_table(data: PreparedData) -> str:
    """Return the content of excluded.csv: photographs that could not be read, with reasons; empty if there are none."""
    collection = data.collection
    heif = [(escape_path(p.relative_to(collection.root)), "HEIC: needs bldml[heif]") for p in collection.heif]
    rows = [*data.excluded, *heif]
    return to_csv([("path", "reason"), *rows]) if rows else ""


def write_set_tables(folder: Path, data: PreparedData, *, is_external: bool) -> None:
    """Write excluded.csv of an evaluation and, of an external set, photographs.csv.

    Raises:
        RunError: A table cannot be written.
    """
    if text := excluded_table(data):
        write_atomically(folder / "excluded.csv", text)
    else:
        (folder / "excluded.csv").unlink(missing_ok=True)  # of an earlier evaluation
    if is_external:
        write_atomically(folder / "photographs.csv", photographs_table(data))


def leaks_table(leaks: Iterable[Leak]) -> str:
    """Return the content of leaks.csv."""
    rows = (
        (k.kind, k.b, k.split_b, k.a, k.split_a, "" if np.isnan(k.similarity) else f"{k.similarity:.4f}") for k in leaks
    )
    return to_csv([("kind", "photograph", "split", "partner", "partner_split", "similarity"), *rows])


def compare_with_training(data: PreparedData, run: RunFolder | None) -> None:
    """Print how an external set differs from the run's training photographs."""
    if run is None or not run.photographs.is_file():
        return
    assert data.positive_class is not None
    try:
        training = [row for row in read_photograph_table(run.photographs) if row.split == "train"]
    except RunError as error:
        rank_zero_info(f"These photographs were not compared with the training photographs. {error}")
        return
    for sentence in differences(training, list(rows_of(data)), data.positive_class):
        rank_zero_info(sentence)


def check_splits(data: PreparedData, on_leak: str) -> list[Leak] | None:
    """Report the photographs of one split that another split contains as well, and return them; None if off.

    Raises:
        DatasetError: There are leaks, and `data.on_leak` is error.
    """
    if on_leak == "off":
        return None
    photographs = _Photographs(data)
    if len(photographs) > MANY:
        rank_zero_info("Searching for photographs that are in two splits; --data.on_leak off skips this.")
    near_duplicates = find_near_duplicates(data.contents.phashes)
    _check_labels(photographs, near_duplicates)
    leaks = find_leaks(photographs, near_duplicates)
    if leaks:
        _report(leak_summary(leaks, photographs), on_leak, WAY_OUT)
    return leaks


class _Photographs(Sequence[KnownPhotograph]):
    """All photographs of a data module, split after split; created on access, because a list would need much memory."""

    def __init__(self, data: PreparedData) -> None:
        self._contents, self._splits = data.contents, list(data.collection.splits.items())
        self._ends = list(accumulate(len(samples) for _, samples in self._splits))

    def __len__(self) -> int:
        return len(self._contents)

    def __getitem__(self, index: Any) -> Any:
        number = bisect_right(self._ends, index)
        split, samples = self._splits[number]  # an IndexError ends a loop
        sample, contents = samples[index - self._ends[number] + len(samples)], self._contents
        digest, phash, metadata = contents.digests[index], contents.phashes[index], contents.metadata[index]
        return KnownPhotograph(sample.name, split, sample.class_name, digest, phash, metadata)


def _check_labels(photographs: Sequence[KnownPhotograph], near_duplicates: list[NearDuplicate]) -> None:
    """Warn of photographs that are in two classes, whatever their splits."""
    names, classes = [p.name for p in photographs], [p.class_name for p in photographs]
    digests = [p.digest for p in photographs]
    duplicates = find_duplicates(names, classes, digests, near_duplicates=near_duplicates)
    for found, what, so in (
        (duplicates.two_classes, "The same photograph is", "so one label is wrong"),
        (duplicates.near_two_classes, "Near duplicates are", "so please look at them"),
    ):
        if found:
            groups = [
                " and ".join(f"{show_path(names[i])} ({show_path(classes[i])})" for i in group) for group in found
            ]
            say_warning(
                f"{what} in two classes, {counted(len(found), 'time')}, {so}: {first_few(groups, SHOWN)}. "
                "`python -m bldml audit` shows them."
            )


def check_external(data: PreparedData, run: RunFolder | None, on_leak: str) -> int | None:
    """Return how many photographs of an external set have a near duplicate in training or validation.

    None if the search is off or not possible: the checkpoint is outside a run, or the run has no perceptual hashes.

    Raises:
        DatasetError: There are some, and `data.on_leak` is error.
    """
    if on_leak == "off":
        return None
    known = None if run is None else read_phashes(run)
    if known is None:
        why = (
            "the checkpoint is not in its run folder, which contains phashes.npz"
            if run is None
            else f"{show_path(run.phashes)} is missing or damaged"
        )
        rank_zero_info(f"Near duplicates of training photographs were not searched: {why}.")
        return None
    names, phashes = known
    ours = [sample.name for samples in data.collection.splits.values() for sample in samples]
    found: dict[int, int] = {}
    for pair in find_near_duplicates_between(phashes, data.contents.phashes):
        found.setdefault(pair.b, pair.a)
    if found:
        pairs = [f"{show_path(ours[b])} and {show_path(names[a])}" for b, a in found.items()]
        have = "has" if len(found) == 1 else "have"
        _report(
            f"{len(found)} of {len(ours)} photographs {have} a near duplicate in the training or validation split.\n"
            f"For example: {first_few(pairs, SHOWN)}.",
            on_leak,
            "Remove them from the set.",
        )
    return len(found)


def seen_by(checkpoint: Checkpoint) -> set[str]:
    """Return the beginnings of the SHA-256 of training and validation photographs; empty if the checkpoint has none."""
    seen = checkpoint.header.seen
    return {seen[start : start + DIGEST_DIGITS] for start in range(0, len(seen), DIGEST_DIGITS)}


def check_unseen(data: PreparedData, checkpoint: Checkpoint) -> None:
    """Check that a model is not tested on photographs it was trained or selected on, whatever their present names.

    Raises:
        DatasetError: It would be.
    """
    known = seen_by(checkpoint)
    digests, samples = data.contents.digests, chain(*data.collection.splits.values())
    found = [sample.name for sample, digest in zip(samples, digests, strict=True) if digest[:DIGEST_DIGITS] in known]
    if found:
        are = "is one of" if len(found) == 1 else "are those of"
        raise DatasetError(
            f"{len(found)} of {len(digests)} photographs {are} the training or validation split, "
            f"first {show_path(found[0])}. If the folder has only moved, test its own test split with "
            "--data.root FOLDER --data.manifest <run>/splits.csv.",
            "training-photographs-in-test",
            found=found,
        )


def write_phashes(run: RunFolder, data: PreparedData) -> None:
    """Write the perceptual hashes of the training and validation photographs for `check_external`."""
    splits = data.collection.splits
    assert list(splits)[:2] == ["train", "val"]
    names = np.array([sample.name for split in ("train", "val") for sample in splits[split]])
    phashes = data.contents.phashes[: len(names)]  # joining those of the two would double them
    content = io.BytesIO()
    np.savez_compressed(content, names=names, phashes=phashes)
    write_atomically(run.phashes, content.getvalue())


def read_phashes(run: RunFolder) -> tuple[list[str], PHashes] | None:
    """Read names and perceptual hashes of the training and validation photographs; None if they cannot be read."""
    # Version 0.1 named the file and the array prints.
    path, key = (run.phashes, "phashes") if run.phashes.exists() else (run.path / "prints.npz", "prints")
    try:
        # Its checksums are verified when it is read; its size comes first, because a few bytes can mean many.
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > LARGEST_TABLE:
                return None
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            names, phashes = np.asarray(file["names"]), np.asarray(file[key])
    except Exception:  # a damaged archive makes zipfile and NumPy raise nearly everything
        return None
    if names.dtype.kind != "U" or names.ndim != 1 or phashes.dtype != np.uint8:
        return None
    names = names.tolist()
    if phashes.shape == (len(names), COEFFICIENT_BYTES):  # version 1: without details, which are then not compared
        phashes = np.pad(phashes, ((0, 0), (0, PHASH_BYTES - COEFFICIENT_BYTES)))
    return (names, phashes) if phashes.shape == (len(names), PHASH_BYTES) else None


def check_results_folder(place: Path | None, option: str, datamodule: LeafDataModule) -> None:
    """Refuse a folder for results that has the name of a file, or lies among photographs in folders.

    A folder that the user has not named is not checked.

    Raises:
        UsageError: It has the name of a file.
        ConfigError: It lies there; links are followed.
    """
    if place is None:
        return
    check_output_folder(Path(place))  # the trainer's is a str
    check_outside(Path(place), option, datamodule.root, datamodule.manifest)


def _report(text: str, on_leak: str, way_out: str) -> None:
    if on_leak == "error":
        raise DatasetError(f"{text}\n{way_out} To continue nevertheless: --data.on_leak warn.", "leaks-found")
    say_warning(f"{text}\nMetrics on these photographs may be too optimistic. {way_out}")
