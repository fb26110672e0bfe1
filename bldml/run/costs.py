"""What a run costs, as far as it was recorded: parameters, file size, speed, training time."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

from bldml.run.folder import RunFolder


@dataclass(frozen=True)
class Costs:
    """Each is None where the run does not say.

    Args:
        parameters: weights and biases of the network, > 0.
        checkpoint_bytes: size of `best.ckpt`.
        images_per_second: photographs of the evaluation by its time, reading included.
        device: what the evaluation was computed on, empty where unknown.
        training_seconds: time in epochs, without pauses between interrupted parts.
    """

    parameters: int | None = None
    checkpoint_bytes: int | None = None
    images_per_second: float | None = None
    device: str = ""
    training_seconds: float | None = None


def read_costs(run: RunFolder, evaluation: str, n: int) -> Costs:
    """Read what is there; a file that is missing or damaged says nothing.

    Args:
        run: the run folder.
        evaluation: whose speed is meant.
        n: photographs in it.
    """
    environment = _record(run.environment)
    provenance = _record(run.evaluation(evaluation) / "provenance.json")
    time = _record(run.training_time)
    checkpoint = run.best_checkpoint
    parameters, seconds = _positive(environment.get("parameters")), _positive(provenance.get("seconds"))
    device = provenance.get("device")
    return Costs(
        parameters=None if parameters is None else int(parameters),
        checkpoint_bytes=checkpoint.stat().st_size if checkpoint.is_file() else None,
        images_per_second=None if seconds is None else n / seconds,
        device=device if isinstance(device, str) else "",
        training_seconds=_positive(time.get("training_seconds")),
    )


def duration(seconds: float) -> str:
    """Return a time as a reader says it.

    >>> duration(0.4), duration(75), duration(3 * 3600 + 125)
    ('< 1 s', '1 min 15 s', '3 h 2 min')
    """
    if seconds < 1:
        return "< 1 s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _record(file: Path) -> dict[str, object]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _positive(value: object) -> float | None:
    """A finite number above 0, or None; true is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) and value > 0 else None
