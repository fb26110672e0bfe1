"""What a fit reads: pretrained weights, and photographs, of which a sample is decoded and a few batches are loaded."""

import os
import time
from collections.abc import Iterable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlparse
from zipfile import is_zipfile

from bldml.doctor.checks import GIVE_CONFIG, Finding, fail, first_line, ok, ok_or_fail, ok_or_warn, skip, warn
from bldml.doctor.configuration import Settings
from bldml.errors import BldmlError, TrainingError
from bldml.io.text import counted

# What needs NumPy or Pillow is imported in the functions: the doctor examines incomplete installations too.
if TYPE_CHECKING:
    from bldml.dataset.samples import Collection, Sample
    from bldml.training.data.datamodule import LeafDataModule
    from bldml.training.data.reading import PreparedData

WEIGHTS = "weights"
PROBE_S = 5.0
SAMPLE = 32  # photographs to decode
BATCHES = 4  # to load
MAX_NAMES = 200_000  # of files to compare


def check_weights(settings: Settings | None) -> Finding:
    """Check the pretrained weights; nothing is downloaded or loaded into a model."""
    if settings is None:
        return skip(WEIGHTS)
    if settings.weights == "none":
        return ok(WEIGHTS, "none: the fit starts from random weights")
    from bldml.training.networks.timm_rows import is_timm

    if settings.weights == "imagenet":
        return _check_timm(settings.backbone) if is_timm(settings.backbone) else _check_imagenet(settings.backbone)
    return check_file(Path(settings.weights).expanduser())


def _check_imagenet(backbone: str) -> Finding:
    from bldml.training.backbones import BACKBONES
    from bldml.training.download import matches, probe
    from bldml.training.weights import weights_file, weights_url

    name = next(name for name in BACKBONES if name == backbone)
    file = weights_file(name)
    prefetch = f"python -m bldml prefetch --backbone {backbone}     (with internet access, for example on a login node)"
    if file is None:
        remedy = "--model.weights FILE, or --model.weights none"
        return fail(WEIGHTS, f"torchvision has no weights for {backbone}", remedy)
    if file.is_file():
        good = matches(file)
        found = f"{file}" if good else f"{file} is damaged: its SHA-256 does not match its name"
        return ok_or_fail(good, WEIGHTS, found, f"rm {file}\n{prefetch}")
    url = weights_url(name) or ""
    missing = f"{file} does not exist; {urlparse(url).hostname}"
    try:
        probe(url, PROBE_S)
    except TrainingError:
        return fail(WEIGHTS, f"{missing} cannot be reached from this machine", prefetch)
    return warn(WEIGHTS, f"{missing} can be reached from this machine", prefetch)


def _check_timm(backbone: str) -> Finding:
    from bldml.training.download import probe
    from bldml.training.networks.timm_weights import hub_url, is_whole, timm_file

    prefetch = f"python -m bldml prefetch --backbone {backbone}     (with internet access, for example on a login node)"
    try:
        file = timm_file(backbone)
    except BldmlError as error:
        return fail(WEIGHTS, str(error), "--model.weights FILE, or --model.weights none")
    if file is not None:
        good = is_whole(file)
        found = f"{file}" if good else f"{file} is damaged: it has not the SHA-256 that the hub named it by"
        return ok_or_fail(good, WEIGHTS, found, f"rm {file}\n{prefetch}")
    missing = f"the weights of {backbone} are not in the cache of the Hugging Face hub; {urlparse(hub_url()).hostname}"
    try:
        probe(hub_url(), PROBE_S)
    except TrainingError:
        return fail(WEIGHTS, f"{missing} cannot be reached from this machine", prefetch)
    return warn(WEIGHTS, f"{missing} can be reached from this machine", prefetch)


def check_file(file: Path) -> Finding:
    """Check that a file of weights exists and contains tensors."""
    import torch

    if not file.is_file():
        return fail(WEIGHTS, f"{file} does not exist", "--model.weights takes imagenet, none, or a file (.pth)")
    try:
        # The format of old files is not zip; they cannot be memory-mapped.
        state = torch.load(file, map_location="cpu", weights_only=True, mmap=is_zipfile(file))
    except Exception as error:  # a damaged file can raise anything
        found = f"{file} cannot be loaded: {first_line(error)}"
        return fail(WEIGHTS, found, "the file is damaged; download it again")
    good = isinstance(state, dict) and all(isinstance(value, torch.Tensor) for value in state.values())
    found = f"{file}: {len(state)} tensors" if good else f"{file} is not a state dict (tensors by name)"
    return ok_or_fail(good, WEIGHTS, found, "save the model's state_dict() and use that file")


def check_photographs(settings: Settings | None, datamodule: "LeafDataModule | None") -> Iterable[Finding]:
    """Run all checks of the photographs that take a few seconds."""
    name = "photographs"
    if settings is None or datamodule is None:
        yield skip(name, GIVE_CONFIG if settings is None else "not checked: the settings are not valid")
        return
    try:
        data = datamodule.find_for_fit()
    except BldmlError as error:
        first, _, rest = str(error).partition("\n")
        yield fail(name, first, rest or "as the message says; python -m bldml fit would report the same")
        return
    collection = data.collection
    yield ok(name, _describe(datamodule, collection, str(data.positive_class)))
    yield from check_names(collection.root)
    samples = [sample for split in collection.splits.values() for sample in split]
    bad, finding = _check_sample(samples, datamodule.image_size or 224, datamodule.unreadable)
    yield finding
    yield _check_loader(datamodule, replace(data, collection=collection.without(bad)))


def _describe(datamodule: "LeafDataModule", collection: "Collection", positive: str) -> str:
    from bldml.dataset.files import show_path

    counts = "; ".join(
        f"{split} {', '.join(f'{count} {name}' for name, count in sorted(counter.items()))}"
        for split, counter in collection.counts().items()
    )
    text = f"{show_path(collection.root)}: {counts}. Positive class: {positive}"
    if datamodule.manifest is not None and datamodule.fold is not None:
        return f"{text}. Fold {datamodule.fold} of {show_path(datamodule.manifest)} is val"
    if datamodule.manifest is not None and collection.folds:
        return f"{text}. The folds of {show_path(datamodule.manifest)} are not used: data.fold is not set"
    return text


def check_names(root: Path) -> Iterable[Finding]:
    """Check for files left by macOS, and for names that differ in case only."""
    from bldml.dataset.files import show_path

    name = "file names"
    leftovers: list[str] = []
    same_names: list[str] = []
    seen = 0
    for parent, _, files in os.walk(root):
        seen += len(files)
        if seen > MAX_NAMES:
            break
        leftovers += [str(Path(parent, file)) for file in files if file.startswith("._")]
        known: dict[str, str] = {}
        others = ((known.setdefault(file.lower(), file), file) for file in sorted(files))
        same_names += [f"{Path(parent, other)} and {file}" for other, file in others if other != file]
    if same_names:
        pairs = counted(len(same_names), "pair")
        found = f"{pairs} of names that differ in case only; first: {show_path(same_names[0])}"
        yield warn(name, found, "check whether they are the same photograph, and keep one")
    if leftovers:
        found = f"{counted(len(leftovers), 'file')} of macOS, not photographs; first: {show_path(leftovers[0])}"
        yield warn(name, f"{found}; ignored", f"find {show_path(root)} -name '._*' -delete")
    if not same_names and not leftovers:
        yield ok(name, "no files left by macOS, no names that differ in case only")


def _check_sample(samples: "list[Sample]", image_size: int, unreadable: str) -> tuple[list[str], Finding]:
    """Decode some photographs, evenly spaced; return the names of the unreadable ones, and the finding."""
    from bldml.dataset.files import show_path
    from bldml.dataset.verify import verify

    name = "sample decoded"
    count = min(SAMPLE, len(samples))
    results = list(verify([samples[number * len(samples) // count] for number in range(count)], image_size, 2))
    bad = [result for result in results if result.reason]
    if not bad:
        return [], ok(name, f"{len(results)} of {counted(len(samples), 'photograph')}, all readable")
    first = f"{show_path(bad[0].sample.name)}: {bad[0].reason}"
    found = f"{len(bad)} of {len(results)} cannot be read; first: {first}"
    remedy = "replace or remove them, or exclude them: --data.unreadable exclude"
    return [one.sample.name for one in bad], Finding("WARN" if unreadable == "exclude" else "FAIL", name, found, remedy)


def _check_loader(datamodule: "LeafDataModule", data: "PreparedData") -> Finding:
    """Load a few training batches with as many workers as the fit would use, and time them."""
    datamodule.prepared = data
    what = f"{counted(datamodule.num_workers, 'worker')}, batches of {datamodule.batch_size}"
    remedy = "--data.num_workers 2 or 0; a smaller --data.batch_size; or repair the photograph named"
    start = time.monotonic()
    try:
        loader = datamodule.train_dataloader()
        count = sum(len(batch["path"]) for batch in islice(loader, BATCHES))
    # A worker may raise anything, or be killed.
    except Exception as error:
        lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        return warn("loading", f"{what}: {lines[-1].strip()}", remedy)
    speed = count / max(time.monotonic() - start, 1e-6)
    found = f"{what}: {speed:.0f} photographs per second, including the start of the workers"
    return ok_or_warn(count > 0, "loading", found, remedy)
