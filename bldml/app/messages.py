"""What is said to the user on the screen."""

import sys
from pathlib import Path

import torch
from lightning.pytorch.utilities import rank_zero_info

from bldml.dataset.files import shell_word, show_path
from bldml.io.text import counted
from bldml.metrics.assessment import EvaluationMetrics
from bldml.metrics.registry import shown_in
from bldml.run.folder import RunFolder
from bldml.training.checkpoint import Header
from bldml.training.data.prepared import PreparedData

FEW = 10


def say_warning(message: str) -> None:
    """Say something that the user should look at, without the file and line that Python's warnings print."""
    rank_zero_info(f"Warning: {message}")


def device_name(device: torch.device) -> str:
    """A device as a person would call it."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def report_data(data: PreparedData, fold: int | None = None) -> None:
    """Say what photographs there are and what was left out."""
    collection = data.collection
    counts = "; ".join(
        f"{split} {sum(count.values())} ({', '.join(f'{n} {name}' for name, n in sorted(count.items()) if name)})"
        for split, count in collection.counts().items()
    ).replace(" ()", "")
    rank_zero_info(f"Photographs in {show_path(collection.root)}: {counts}. Positive class: {data.positive_class}.")
    for split, count in collection.counts().items():
        few = [f"{number} {name}" for name, number in sorted(count.items()) if name and number < FEW]
        if few:
            say_warning(f"There are only {' and '.join(few)} in the {split} split: its figures will say little.")
    if collection.ignored:
        left_out = ", ".join(f"{count} × {reason}" for reason, count in sorted(collection.ignored.items()))
        rank_zero_info(f"Left out because they are no photographs of a class: {left_out}.")
    if data.unlisted:
        are = "is" if len(data.unlisted) == 1 else "are"
        first = show_path(data.unlisted[0].relative_to(collection.root))
        say_warning(
            f"{counted(len(data.unlisted), 'photograph')} below {show_path(collection.root)} {are} not in the "
            f"manifest and {are} not used, first {first}. To add them: python -m bldml split with the same --output."
        )
    if fold is not None:
        rank_zero_info(f"Fold {fold} of the manifest is val.")
    if collection.heif:
        are = "is" if len(collection.heif) == 1 else "are"
        names = ", ".join(show_path(path.relative_to(collection.root)) for path in collection.heif[:10])
        more = f" and {len(collection.heif) - 10} more" if len(collection.heif) > 10 else ""
        say_warning(
            f"{counted(len(collection.heif), 'HEIC photograph')} {are} not read: {names}{more}. Install bldml[heif], "
            "or export as JPEG."
        )


def report_excluded(data: PreparedData, path: Path) -> None:
    """Say at the end how many photographs were left out."""
    if data.excluded:
        were = "was" if len(data.excluded) == 1 else "were"
        count = counted(len(data.excluded), "photograph")
        say_warning(f"{count} could not be read and {were} left out: see {path}.")


def report_interrupted(run: RunFolder | None) -> None:
    """Say what a run that was stopped has left, and what can be done with it."""
    if run is None:
        sys.stdout.write("\nStopped before the first step: there was nothing to save.\n")
        return
    best = run.best_checkpoint
    sys.stdout.write(f"\nStopped. Run folder: {show_path(run.path)}\n")
    sys.stdout.write(f"Go on where it was:\n  python -m bldml fit --resume {shell_word(run.path)}\n")
    if best.is_file():
        sys.stdout.write(f"Evaluate the best epoch so far:\n  python -m bldml test --ckpt_path {shell_word(best)}\n")


def format_metrics(title: str, metrics: EvaluationMetrics, header: Header) -> str:
    """The metrics as lines for a terminal."""

    def show(value: float | None) -> str:
        return "      –" if value is None else f"{value:7.4f}"

    chosen, half, shown = metrics.at_threshold, metrics.at_half, shown_in("terminal")
    overall = (f"{m.label} {show(metrics.overall[m.name])}" for m in shown if not m.needs_threshold)
    errors = int(half["fn"] or 0), int(half["fp"] or 0)
    lines = [
        f"\n{title}: {counted(metrics.n, 'photograph')}, {metrics.n_positive} of them {header.positive_class}",
        f"  {'   '.join(overall)}",
        f"  {'':20} at {metrics.threshold:.4f}  at 0.5",
        *(f"  {m.label:20}   {show(chosen[m.name])} {show(half[m.name])}" for m in shown if m.needs_threshold),
        f"  errors: {chosen['fn']} missed, {counted(int(chosen['fp'] or 0), 'false alarm')} (at 0.5: {errors[0]}, "
        f"{errors[1]})",
    ]
    return "\n".join(lines) + "\n"
