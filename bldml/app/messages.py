"""Texts for the terminal."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import get_args

import torch
from lightning.pytorch.utilities import rank_zero_info

from bldml.dataset.files import shell_word, show_path
from bldml.errors import RunError
from bldml.io.screen import say
from bldml.io.text import counted, first_few, plain
from bldml.metrics.assessment import EvaluationMetrics
from bldml.metrics.certainty.conformal import BandName
from bldml.metrics.certainty.novelty import AnyNovelty
from bldml.metrics.registry import shown_in
from bldml.run.folder import RunFolder
from bldml.run.gallery import certainty
from bldml.run.predictions import Prediction
from bldml.training.checkpoint import Header
from bldml.training.data.reading import PreparedData

FEW = 10  # photographs of a class in a split; names in a message
LEAST = 5  # least certain predictions


def say_warning(message: str) -> None:
    """Print a warning, without the file and line of Python's warnings."""
    rank_zero_info(f"Warning: {message}")


def describe_failure(error: Exception) -> str:
    """Return what went wrong in one line, with the kind of an error that is not a user's."""
    return (
        str(error) if isinstance(error, RunError) else f"{type(error).__name__}: {''.join(str(error).splitlines()[:1])}"
    )


def device_name(device: torch.device) -> str:
    """Return a readable name of a device."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def report_data(data: PreparedData, fold: int | None = None) -> None:
    """Print the numbers of photographs, and what was excluded."""
    collection = data.collection
    counts = "; ".join(
        # `predict` is no split of the photographs.
        f"{split} {sum(count.values())} "
        f"({', '.join(f'{n} {plain(name)}' for name, n in sorted(count.items()) if name)})"
        for split, count in collection.counts().items()
    )
    counts = counts.replace(" ()", "").removeprefix("predict ")
    positive = plain(str(data.positive_class))
    rank_zero_info(f"Photographs in {show_path(collection.root)}: {counts}. Positive class: {positive}.")
    for split, count in collection.counts().items():
        few = [f"{number} {plain(name)}" for name, number in sorted(count.items()) if name and number < FEW]
        if few:
            say_warning(f"Only {' and '.join(few)} photographs in {split}: metrics on this split will be unreliable.")
    if collection.ignored:
        ignored = ", ".join(f"{count} × {reason}" for reason, count in sorted(collection.ignored.items()))
        rank_zero_info(f"Ignored, because they are not photographs of a class: {ignored}.")
    for note in collection.notes:
        rank_zero_info(note)
    if data.unlisted:
        are = "is" if len(data.unlisted) == 1 else "are"
        first = show_path(data.unlisted[0].relative_to(collection.root))
        say_warning(
            f"{counted(len(data.unlisted), 'photograph')} below {show_path(collection.root)} {are} not in the "
            f"manifest and {are} not used, first {first}. If they are to be used, python -m bldml split with the same "
            "--output adds them."
        )
    if fold is not None:
        rank_zero_info(f"Validation split: fold {fold} of the manifest.")
    if collection.heif:
        are = "is" if len(collection.heif) == 1 else "are"
        names = [show_path(path.relative_to(collection.root)) for path in collection.heif]
        say_warning(
            f"{counted(len(collection.heif), 'HEIC photograph')} {are} not read: "
            f"{first_few(names, 10, ', ', ' and ')}. Install bldml[heif], or export them as JPEG."
        )


def report_excluded(data: PreparedData, path: Path) -> None:
    """Print, at the end, how many photographs were excluded."""
    if data.excluded:
        were = "was" if len(data.excluded) == 1 else "were"
        count = counted(len(data.excluded), "photograph")
        say_warning(f"{count} could not be read and {were} excluded: see {path}.")


def report_interrupted(run: RunFolder | None) -> None:
    """Print what an interrupted run has saved, and how to resume it."""
    if run is None:
        say("\nInterrupted before the first step: nothing to save.\n")
        return
    best = run.best_checkpoint
    say(f"\nInterrupted. Run folder: {show_path(run.path)}\n")
    say(f"Resume:\n  python -m bldml fit --resume {shell_word(run.path)}\n")
    if best.is_file():
        say(f"Evaluate the best checkpoint so far:\n  python -m bldml test --ckpt_path {shell_word(best)}\n")


def format_metrics(title: str, metrics: EvaluationMetrics, header: Header) -> str:
    """Return the metrics with their intervals as lines for the terminal."""

    def show(value: float | None, limits: dict[str, float | None]) -> str:
        low, high = limits.get("low"), limits.get("high")
        brackets = "" if low is None or high is None else f"[{low:.3f}, {high:.3f}]"
        return f"{'–':>7} {'':14}" if value is None else f"{value:7.4f} {brackets:14}"

    shown, limits = shown_in("terminal"), metrics.intervals
    points = ((metrics.at_threshold, limits.get("at_threshold", {})), (metrics.at_half, limits.get("at_0.5", {})))
    without = [m for m in shown if not m.needs_threshold]
    errors = [(int(at["fn"] or 0), int(at["fp"] or 0)) for at, _ in points]
    lines = [
        f"\n{title}: {counted(metrics.n, 'photograph')}, of which {metrics.n_positive} {plain(header.positive_class)}; "
        "95 % intervals in brackets",
        *(f"  {m.label:20}   {show(metrics.overall[m.name], limits.get(m.name, {}))}".rstrip() for m in without),
        f"  {'':20}  {f'at {metrics.threshold:.4f}':>10}{'':14} at 0.5",
        *(
            f"  {m.label:20}   {' '.join(show(at[m.name], of.get(m.name, {})) for at, of in points)}".rstrip()
            for m in shown
            if m.needs_threshold
        ),
        f"  errors: {errors[0][0]} missed, {counted(errors[0][1], 'false alarm')} "
        f"(at 0.5: {errors[1][0]}, {errors[1][1]})",
        *_original_classes(metrics),
    ]
    return "\n".join(lines) + "\n"


def format_predictions(
    rows: Sequence[Prediction],
    header: Header,
    unreadable: Sequence[tuple[str, str]] = (),
    novelty: AnyNovelty | None = None,
) -> str:
    """Return the verdict on one photograph, or how many of each class were predicted, as lines for the terminal.

    Several photographs are followed by the least certain predictions; both by those that could not be read, as pairs
    of name and reason.
    """
    positive, threshold = plain(header.positive_class), f"{header.threshold:.4f}"
    if len(rows) == 1 and not unreadable:
        (row,) = rows
        return (
            f"\n{row.path}: {plain(row.predicted_class)}\n"
            f"  The probability of {positive} is {row.probability:.4f}; {positive} is predicted from {threshold} on.\n"
            + "".join(f"  {line}\n" for line in _doubts(rows, header, novelty))
        )
    counts = Counter(row.predicted_class for row in rows)
    predicted = ", ".join(f"{counts[name]} {plain(name)}" for name in (header.positive_class, header.negative_class))
    least = sorted(rows, key=lambda row: (certainty(row.probability, header.threshold), row.path))[:LEAST]
    lines = [
        f"\n{counted(len(rows), 'photograph')}, predicted: {predicted}",
        f"  {positive} is predicted from a probability of {threshold} on. Least certain, nearest to it first:",
        *(f"    {row.probability:.4f}  {plain(row.predicted_class)}  {row.path}" for row in least),
    ]
    lines[1:1] = [f"  {line}" for line in _doubts(rows, header, novelty)]
    if unreadable:
        names = [f"{show_path(name)} ({reason})" for name, reason in unreadable]
        lines.append(f"  Could not be read: {first_few(names, FEW)}")
    return "\n".join(lines) + "\n"


def _doubts(rows: Sequence[Prediction], header: Header, novelty: AnyNovelty | None) -> Iterator[str]:
    """Yield how certain the predictions are, and which photographs are unlike the training photographs."""
    missing = ["bands of certainty"] if header.bands is None else []
    if header.bands is not None and header.bands.low is not None and header.bands.high is not None:
        limits = f"negative below {header.bands.low:.4f}, positive from {header.bands.high:.4f} on"
        counts = Counter(row.band for row in rows)
        shown = rows[0].band if len(rows) == 1 else ", ".join(f"{counts[name]} {name}" for name in get_args(BandName))
        yield f"Band{'' if len(rows) == 1 else 's'}: {shown} ({limits})."
    if novelty is None:
        missing.append("what the photographs are like that the classifier learned from")
    elif unlike := [row for row in rows if not row.is_familiar]:
        far = sorted(unlike, key=lambda row: row.distance or 0, reverse=True)
        names = [f"{row.path} ({row.distance:.1f} times the limit)" for row in far]
        are = "is" if len(far) == 1 else "are"
        yield (
            f"{counted(len(far), 'photograph')} {are} not like those that the classifier learned from, so nothing is "
            f"known of {'its' if len(far) == 1 else 'their'} verdict: {first_few(names, LEAST)}."
        )
    if missing:
        yield f"Not recorded in this checkpoint: {' and '.join(missing)}."


def were_in_training(known: Mapping[str, int], n: int) -> str:
    """Return a warning if some of n photographs were in training or validation, by content; otherwise nothing.

    >>> were_in_training({"train": 2, "val": 1, "test": 3}, 9)[:72]
    '3 of 9 photographs were in training or validation (2 train, 1 val): thei'
    >>> were_in_training({"test": 3}, 9), were_in_training({"seen": 1}, 1)[:54]
    ('', '1 of 1 photograph was in training or validation: its p')
    """
    found = {name: count for name, count in known.items() if count and name != "test"}
    if not found:
        return ""
    number = sum(found.values())
    splits = ", ".join(f"{count} {name}" for name, count in found.items() if name != "seen")
    was, their = ("was", "its") if number == 1 else ("were", "their")
    return (
        f"{number} of {counted(n, 'photograph')} {was} in training or validation{f' ({splits})' if splits else ''}: "
        f"{their} predictions do not show how the classifier does on new leaves."
    )


def _original_classes(metrics: EvaluationMetrics) -> Iterator[str]:
    """Yield a line for each original class of merged classes, the one with the lowest rate first."""
    merged = [one for one in metrics.subgroups if one["by"] == "original class"]
    if merged:
        yield f"  original classes at {metrics.threshold:.4f}, lowest rate first:"
    names = [plain(one["value"]) for one in merged]
    for value, one in zip(names, merged, strict=True):
        name = "sensitivity" if one["n_positive"] else "specificity"
        rate, n = one[name], one["n"]
        yield (
            f"    {value:{max(map(len, names))}}  {name} {rate['value']:.4f} [{rate['low']:.3f}, {rate['high']:.3f}], "
            f"{round(rate['value'] * n)} of {counted(n, 'photograph')}"
        )
