"""The state of each run of an experiment, as its files tell it: nothing else is recorded."""

import csv
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Literal

from bldml.io.documents import load_yaml, mapping_or_nothing, read_text
from bldml.io.locks import is_taken
from bldml.io.screen import printable
from bldml.io.text import counted
from bldml.metrics.registry import METRICS
from bldml.run.folder import RunFolder
from bldml.run.provenance import positive_number
from bldml.sweep.plan import Plan, PlannedRun, SweepFolder
from bldml.training.resume.stretches import read_starts, shown

State = Literal["missing", "queued", "running", "interrupted", "failed", "finished", "pruned", "left out"]
FINISHED = "finished"  # the phase in which a fit has written everything
# With 128 and their number, or as subprocess returns it: somebody interrupted the run.
INTERRUPTS = {sign * (128 * (sign > 0) + number) for sign in (1, -1) for number in (1, 2, 10, 12, 15)}
_SIGKILL = 9  # Windows has no name for it
_ERROR = "bldml: error: "
_TAIL = 20_000  # bytes of a log in which the error is looked for


@dataclass(frozen=True)
class RunState:
    """The state of one run.

    Attributes:
        run: The run.
        state: missing: not begun. queued: Slurm will start it. running: a process trains in it. interrupted: begun,
            to be resumed. failed: its last process ended with an error. finished: everything is written. pruned: its
            trial was ended early. left out: its trial has failed in another run.
        epochs: Number of epochs that are recorded.
        of: Largest number of epochs; None if it is not known.
        best: Best value of its monitored metric so far; None before the first.
        monitor: Name of that metric; empty if it is not known.
        left: Seconds to the largest number of epochs, at the speed so far, for a running one; else None.
        reason: Why it failed, in a sentence.
    """

    run: PlannedRun
    state: State
    epochs: int = 0
    of: int | None = None
    best: float | None = None
    monitor: str = ""
    left: float | None = None
    reason: str = ""


def is_finished(run: RunFolder) -> bool:
    """Return whether a fit has written all its results into a run folder."""
    return any(start.phase == FINISHED for start in read_starts(run))


def has_begun(folder: SweepFolder, name: str) -> bool:
    """Return whether there is anything of a run, or a process that has taken it."""
    return folder.run(name).path.exists() or is_taken(folder.claim(name))


def manifests_to_read(folder: SweepFolder, plan: Plan) -> set[str]:
    """Return the names of the manifests of folds that the runs read which are still to be done."""
    ended = [trial.name for trial in plan.trials if trial.state in ("pruned", "failed")]
    left = [run for run in plan.runs if run.configuration not in ended and not is_finished(folder.run(run.name))]
    folds = {run.fold for run in left}
    if len(plan.trials) < plan.search.get("trials", 0):
        folds |= {*plan.search["folds"]}
    return {folder.manifest(fold).name for fold in folds if fold is not None}


def read_states(folder: SweepFolder, plan: Plan, queued: Mapping[str, str] | None = None) -> list[RunState]:
    """Return the state of each run, in the order of the plan.

    Args:
        folder: The folder of the experiment.
        plan: Its plan.
        queued: Slurm's state of the runs that are in its queue, by name; None where there is no Slurm.
    """
    ended: dict[str, State] = {"pruned": "pruned", "failed": "left out"}
    of_trials = {trial.name: ended[trial.state] for trial in plan.trials if trial.state in ended}
    found = [state_of(folder, run, (queued or {}).get(run.name, "")) for run in plan.runs]
    return [
        replace(one, state=of_trials[one.run.configuration])
        if one.run.configuration in of_trials and one.state in ("missing", "interrupted")
        else one
        for one in found
    ]


def state_of(folder: SweepFolder, run: PlannedRun, queued: str = "") -> RunState:
    """Return the state of one run; `queued` is Slurm's state of its job, empty if it has none."""
    path = folder.run(run.name)
    epochs, best, monitor, of = _progress(path)
    state: State = "missing"
    reason, left = "", None
    code = last_code(folder, run.name)
    if is_finished(path):
        state = "finished"
    elif is_taken(path.lock) or is_taken(folder.claim(run.name)) or queued == "RUNNING":
        state, left = "running", _left(path, epochs, of)
    elif queued:
        state = "queued"
    elif code is not None and code not in INTERRUPTS:
        state, reason = "failed", reason_of(folder, run.name, code)
    elif path.path.exists():
        state = "interrupted"
    return RunState(run, state, epochs, of, best, monitor, left, reason)


def last_code(folder: SweepFolder, name: str) -> int | None:
    """Return the exit code of a run's last process; None if none has ended, or it was not recorded."""
    with suppress(OSError, ValueError):
        return int(folder.code(name).read_text(encoding="ascii"))
    return None


def reason_of(folder: SweepFolder, name: str, code: int) -> str:
    """Return why a run failed: the error that its process printed last, or how the process ended."""
    if code in (-_SIGKILL, 128 + _SIGKILL):
        return "it was killed (SIGKILL); often the machine or the job had no memory left"
    with suppress(OSError):
        text = folder.log(name).read_bytes()[-_TAIL:].decode("utf-8", "replace")
        lines = text.splitlines()
        for line in reversed(lines):
            if line.startswith(_ERROR):
                return printable(line.removeprefix(_ERROR))
        if lines:
            return f"exit code {code}: {printable(lines[-1].strip())}"
    return f"exit code {code}"


def _progress(run: RunFolder) -> tuple[int, float | None, str, int | None]:
    """Return epochs, best monitored value, its metric and the largest number of epochs, as far as they are recorded."""
    monitor, of, best = "", None, None
    with suppress(Exception):  # an incomplete or foreign file says nothing
        config: Any = load_yaml(read_text(run.config))
        monitor, of = str(config.get("monitor", "")), config.get("trainer", {}).get("max_epochs")
    rows, column = read_values(run, monitor)
    values = [value for value in column if math.isfinite(value)]
    if values and (metric := METRICS.get(monitor.removeprefix("val_"))):
        best = min(values) if metric.better == "lower" else max(values)
    return rows, best, monitor, of if isinstance(of, int) and of > 0 else None


def read_values(run: RunFolder, monitor: str) -> tuple[int, list[float]]:
    """Return the number of epochs that are recorded, and the value of a metric in each; nan where it has none."""
    rows: list[dict[str, str]] = []
    with suppress(OSError, ValueError, csv.Error):
        rows = list(csv.DictReader(read_text(run.history).splitlines()))
    values = [math.nan] * len(rows)
    for epoch, row in enumerate(rows):
        with suppress(ValueError, TypeError):
            values[epoch] = float(row.get(monitor) or "")
    return len(rows), values


def _left(run: RunFolder, epochs: int, of: int | None) -> float | None:
    """Return the seconds for the epochs that are left, from the recorded time of those that are done."""
    seconds = positive_number(mapping_or_nothing(run.training_time).get("training_seconds"))
    if not epochs or of is None or seconds is None:
        return None
    return max(0.0, seconds / epochs * (of - epochs))


def table_of(states: Sequence[RunState]) -> str:
    """Return the table of runs as text."""
    monitors = sorted({one.monitor for one in states} - {""})
    title = f"best {monitors[0]}" if len(monitors) == 1 else "best"
    rows = [("run", "state", "epoch", title, "time left")]
    for one in states:
        best = "" if one.best is None else f"{one.best:.4f}"
        best = f"{best} {one.monitor}" if best and len(monitors) > 1 else best
        epoch = f"{one.epochs}/{one.of}" if one.of else str(one.epochs or "")
        left = "" if one.left is None else f"at most {shown(one.left)}"
        rows.append((one.run.name, one.state, epoch, best, left))
    lines = aligned(rows)
    counts = {state: sum(one.state == state for one in states) for state in State.__args__}  # type: ignore[attr-defined]
    total = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    failed = [f"{one.run.name} failed: {one.reason}" for one in states if one.state == "failed"]
    return "\n".join([*lines, f"{counted(len(states), 'run')}: {total}.", *failed]) + "\n"


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the rows of a table as lines with aligned columns.

    >>> aligned([("run", "state"), ("a_seed1", "missing")])
    ['run      state', 'a_seed1  missing']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
