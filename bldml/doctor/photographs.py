"""The photographs: finds and counts them, decodes a sample, and loads a few training batches."""

import os
import time
from collections.abc import Iterable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from bldml.doctor.checks import Finding, fail, ok, ok_or_warn, skip, warn
from bldml.doctor.configuration import Settings
from bldml.io.text import counted

if TYPE_CHECKING:
    from bldml.dataset.samples import Collection, Sample
    from bldml.training.data.datamodule import LeafDataModule
    from bldml.training.data.reading import PreparedData

NAME = "photographs"
SAMPLE = 32
BATCHES = 4
MAX_NAMES = 200_000


def check_photographs(settings: Settings | None, datamodule: "LeafDataModule | None") -> Iterable[Finding]:
    """Run all checks of the photographs that take a few seconds."""
    from bldml.errors import DatasetError

    if settings is None or datamodule is None:
        yield skip(NAME, skip(NAME).found if settings is None else "not checked: the settings are not valid")
        return
    try:
        found = datamodule.find_for_fit()
    except DatasetError as error:
        first, _, rest = str(error).partition("\n")
        yield fail(NAME, first, rest or "as the message says; python -m bldml fit would report the same")
        return
    collection, positive = found.collection, str(found.positive_class)
    yield ok(NAME, describe_collection(collection, positive) + describe_folds(datamodule, collection))
    yield from check_names(collection.root)
    samples = [sample for split in collection.splits.values() for sample in split]
    bad, findings = check_sample(samples, datamodule.image_size or 224, datamodule.unreadable)
    yield from findings
    yield check_loader(datamodule, replace(found, collection=collection.without(bad)))


def describe_collection(collection: "Collection", positive: str) -> str:
    """Return the counts of all classes and splits on one line."""
    from bldml.dataset.files import show_path

    counts = "; ".join(
        f"{split} {', '.join(f'{count} {name}' for name, count in sorted(counter.items()))}"
        for split, counter in collection.counts().items()
    )
    return f"{show_path(collection.root)}: {counts}. Positive class: {positive}"


def describe_folds(datamodule: "LeafDataModule", collection: "Collection") -> str:
    """Return which fold of the manifest is val, or that its folds are not used."""
    from bldml.dataset.files import show_path

    if datamodule.manifest is None:
        return ""
    if datamodule.fold is not None:
        return f". Fold {datamodule.fold} of {show_path(datamodule.manifest)} is val"
    if collection.folds:
        return f". The folds of {show_path(datamodule.manifest)} are not used: data.fold is not set"
    return ""


def check_names(root: Path) -> Iterable[Finding]:
    """Check for files left by macOS, and for names that differ in case only."""
    from bldml.dataset.files import show_path

    leftovers: list[str] = []
    same_names: list[str] = []
    seen = 0
    for parent, _, names in os.walk(root):
        seen += len(names)
        if seen > MAX_NAMES:
            break
        leftovers += [str(Path(parent, name)) for name in names if name.startswith("._")]
        known: dict[str, str] = {}
        others = ((known.setdefault(name.lower(), name), name) for name in sorted(names))
        same_names += [f"{Path(parent, other)} and {name}" for other, name in others if other != name]
    if same_names:
        pairs = counted(len(same_names), "pair")
        found = f"{pairs} of names that differ in case only; first: {show_path(same_names[0])}"
        yield warn("file names", found, "check whether they are the same photograph, and keep one")
    if leftovers:
        found = f"{counted(len(leftovers), 'file')} of macOS, not photographs; first: {show_path(leftovers[0])}"
        yield warn("file names", f"{found}; ignored", f"find {show_path(root)} -name '._*' -delete")
    if not same_names and not leftovers:
        yield ok("file names", "no files left by macOS, no names that differ in case only")


def check_sample(samples: "list[Sample]", image_size: int, unreadable: str) -> tuple[list[str], list[Finding]]:
    """Decode up to 32 photographs, evenly spaced over the dataset.

    Returns:
        Names of the unreadable ones, and the finding.
    """
    from bldml.dataset.files import show_path
    from bldml.dataset.verify import verify

    name = "sample decoded"
    count = min(SAMPLE, len(samples))
    chosen = [samples[number * len(samples) // count] for number in range(count)]
    results = list(verify(chosen, image_size, 2))
    bad = [result for result in results if result.reason]
    if not bad:
        return [], [ok(name, f"{len(results)} of {counted(len(samples), 'photograph')}, all readable")]
    first = f"{show_path(bad[0].sample.name)}: {bad[0].reason}"
    finding = ok_or_warn(
        False,
        name,
        f"{len(bad)} of {len(results)} cannot be read; first: {first}",
        "replace or remove them, or exclude them: --data.unreadable exclude",
        otherwise="WARN" if unreadable == "exclude" else "FAIL",
    )
    return [result.sample.name for result in bad], [finding]


def check_loader(datamodule: "LeafDataModule", data: "PreparedData") -> Finding:
    """Load a few training batches with as many workers as the fit would use, and time them."""
    name = "loading"
    workers, size = datamodule.num_workers, datamodule.batch_size
    datamodule.prepared = data
    what = f"{counted(workers, 'worker')}, batches of {size}"
    remedy = "--data.num_workers 2 or 0; a smaller --data.batch_size; or repair the photograph named"
    start = time.monotonic()
    try:
        loader = datamodule.train_dataloader()
        count = sum(len(batch["path"]) for batch in islice(loader, BATCHES))
    # A worker may raise anything, or be killed.
    except Exception as error:
        lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        return warn(name, f"{what}: {lines[-1].strip()}", remedy)
    seconds = time.monotonic() - start
    return ok_or_warn(
        count > 0,
        name,
        f"{what}: {count / max(seconds, 1e-6):.0f} photographs per second, including the start of the workers",
        remedy,
    )
