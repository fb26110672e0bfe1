"""How far each start of a fit got, in `stretches.json`: a job whose starts do nothing must not go on for ever.

A stretch is one start of the process. The first process writes the document, at the start, when its phase changes and
at the end.
"""

import json
import math
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from itertools import takewhile
from signal import Signals
from typing import Any

from bldml.dataset.files import shell_word
from bldml.errors import RunError
from bldml.io.atomic import write_atomically
from bldml.io.documents import mapping_or_nothing
from bldml.io.safe_points import count_kept
from bldml.io.text import counted
from bldml.run.folder import RunFolder
from bldml.training.resume.job import SlurmJob
from bldml.training.resume.signals import WALL_TIME, Interrupted
from bldml.training.resume.stopping import STARTED, STARTS

NAME = "stretches.json"
LEAD_S = 180.0  # `#SBATCH --signal=…@120` arrives 120 to 180 s before the wall time
MARGIN = 1.5
LONGEST_S = 1e9  # that any phase takes
MOST = 20  # starts that only add photographs to the cache: it may be erased after each


@dataclass(frozen=True)
class StartRecord:
    """One start of the process; all times in seconds.

    Attributes:
        started: ISO 8601, UTC.
        job: Key of the Slurm job; None outside one.
        phase: What it was doing last: start-up, training, validation, evaluation of a split, images, finished.
        first_step: Step from which it resumed.
        step: Last step that it saved.
        validations, evaluated: How many validations were completed, and which splits were evaluated.
        kept: Other results that need not be made again: photographs in the image cache, parts of an evaluation.
        seconds: Longest duration of each phase that was completed, by its name.
        done, of: Batches done of the phase in which it ended, and how many there are; 0 if they are not counted.
        in_phase: Time since that phase began.
        elapsed: Time since the process began.
        signal: Name of the signal that ended it; empty if none did.
    """

    started: str = ""
    job: str | None = None
    phase: str = "start-up"
    first_step: int = 0
    step: int = 0
    validations: int = 0
    evaluated: tuple[str, ...] = ()
    kept: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    done: int = 0
    of: int = 0
    in_phase: float = 0.0
    elapsed: float = 0.0
    signal: str = ""

    @property
    def has_results(self) -> bool:
        """Whether the next start has less to do, except that photographs may be in the cache."""
        return bool(self.step > self.first_step or self.validations or self.evaluated)


class StretchLog:
    """The record of this start, and those of the earlier ones.

    Without a run folder, nothing is written.

    Args:
        job: The Slurm job.
        first_step: Step from which the run is resumed.
    """

    def __init__(self, job: SlurmJob | None, first_step: int = 0) -> None:
        started = datetime.now(UTC).isoformat(timespec="seconds")
        self.job = job
        self.now = StartRecord(started, job.key if job else None, first_step=first_step, step=first_step)
        self.before: tuple[StartRecord, ...] = ()
        self._kept, self._phase_began = count_kept(), STARTED
        self._run: RunFolder | None = None

    def write_to(self, run: RunFolder) -> None:
        """Record in a run folder from now on."""
        self._run, self.before = run, read_starts(run)
        self.write()

    def enter(self, phase: str, of: int = 0) -> None:
        """Begin a phase, of so many batches; the one before is completed."""
        self._complete()
        self.now = replace(self.now, phase=phase, done=0, of=of)
        self._phase_began = time.monotonic()
        self.write()

    def count(self, done: int) -> None:
        """Note how many batches of the phase are done; written with the next change."""
        self.now = replace(self.now, done=done)

    def saved(self, step: int) -> None:
        """Note the step of a checkpoint that was saved."""
        self.now = replace(self.now, step=step)

    def validated(self) -> None:
        """Note that a validation is complete; the training goes on."""
        self.now = replace(self.now, validations=self.now.validations + 1)
        self.enter("training")

    def evaluated(self, split: str) -> None:
        """Note that a split is evaluated and its results are written."""
        self.now = replace(self.now, evaluated=(*self.now.evaluated, split))
        self.write()

    def end(self, interrupted: Interrupted | None = None) -> None:
        """Record the end of this start, which has finished unless it was interrupted."""
        if interrupted is None:
            self.enter("finished")
        else:
            self.now = replace(self.now, signal=Signals(interrupted.signum).name)
            self.write()

    def write(self) -> None:
        """Write the document; where that is not possible, the run continues without it."""
        began, now = self._phase_began, time.monotonic()
        self.now = replace(
            self.now,
            kept=count_kept() - self._kept,
            in_phase=round(now - began, 3),
            elapsed=round(now - STARTED, 3),
        )
        if self._run is not None:
            content = {"schema": 1, "stretches": [asdict(one) for one in (*self.before, self.now)]}
            with suppress(RunError):
                write_atomically(self._run.path / NAME, json.dumps(content, indent=1) + "\n")

    def check(self, interrupted: Interrupted) -> None:
        """Raise a RunError if three starts of the job reached the wall time since the last that made progress."""
        if self.job is None or self.job.interactive or interrupted.signum not in WALL_TIME:
            return
        earlier = [one for one in reversed(self.before) if one.job == self.job.key]
        since = list(takewhile(lambda one: not one.has_results, (self.now, *earlier)))
        idle = [one for one in since if one is self.now or is_at_wall_time(one)]
        number, starts = len(idle), f"{len(idle)} starts"
        if self._run is None:  # what earlier starts did is not recorded, only their number
            number, starts = self.job.restarts + 1, f"start {self.job.restarts + 1}"
        idle = idle[:STARTS][::-1]
        if number < STARTS or (any(one.kept for one in idle) and number <= MOST):
            return
        resume = f" --resume {shell_word(self._run.path)}" if self._run else ""
        enough = as_time(needed(idle, self.before))
        message = (
            f"Job {self.job.number} is not requeued: {starts} got {Signals(interrupted.signum).name}, the signal of "
            "the wall time, before a step, a whole validation or the evaluation of a split was done. "
            f"{describe_starts(idle)}\nThis start ended {shown(self.now.elapsed)} after the program had started. "
            "From these times, with a margin, one start needs about this --time (with --signal=SIGUSR1@120):\n  "
            f"sbatch --time={enough} SCRIPT{resume}"
        )
        raise RunError(message, "stretches-without-progress", found=number, phase=self.now.phase)

    def _complete(self) -> None:
        took = round(time.monotonic() - self._phase_began, 3)
        longest = {**self.now.seconds, self.now.phase: max(took, self.now.seconds.get(self.now.phase, 0.0))}
        self.now = replace(self.now, seconds=longest)


def read_starts(run: RunFolder) -> tuple[StartRecord, ...]:
    """Return the stretches of a run, oldest first; none if they are not recorded, as in a run of an older version."""
    found = mapping_or_nothing(run.path / NAME).get("stretches")
    return tuple(one for item in found if (one := _stretch(item))) if isinstance(found, list) else ()


def is_at_wall_time(stretch: StartRecord) -> bool:
    """Return whether a stretch ended by the signal that a job gets near its wall time."""
    return stretch.signal in [one.name for one in WALL_TIME]


def describe_starts(stretches: Sequence[StartRecord]) -> str:
    """Return how long the phases of stretches took, as sentences; they all ended in a phase that was not completed."""
    last = stretches[-1]
    longest: dict[str, float] = {}
    for phase, took in (item for one in stretches for item in one.seconds.items()):
        longest[phase] = max(took, longest.get(phase, 0.0))
    known = {phase: took for phase, took in longest.items() if phase not in ("training", last.phase)}
    texts = [f"{phase[0].upper()}{phase[1:]} took {shown(took)}." for phase, took in known.items()]
    text = f"{last.phase[0].upper()}{last.phase[1:]} was not finished after {shown(last.in_phase)}"
    if last.of:
        text += f": {last.done} of {counted(last.of, 'batch', 'batches')}"
        if last.done:
            text += f", so all of it takes about {shown(last.in_phase * last.of / last.done)}"
    return " ".join([*texts, f"{text}."])


def needed(stretches: Sequence[StartRecord], before: Sequence[StartRecord] = ()) -> float:
    """Return a wall time in seconds in which the phase that was never completed can be, with a margin."""
    last = stretches[-1]
    first = max((one.seconds.get("start-up", 0.0) for one in (*stretches, *before)), default=0.0)
    unfinished = last.in_phase * (last.of / last.done if last.of and last.done else 2.0)
    known = max((one.seconds.get(last.phase, 0.0) for one in before), default=0.0)
    start = 0.0 if last.phase == "start-up" else first
    return MARGIN * (start + max(unfinished, known)) + LEAD_S


def as_time(seconds: float) -> str:
    """Return a duration as Slurm's --time takes it, in whole minutes upwards.

    >>> as_time(61), as_time(90_000)
    ('00:02:00', '1-01:00:00')
    """
    minutes = max(1, math.ceil(seconds / 60))
    days, minutes = divmod(minutes, 24 * 60)
    return f"{f'{days}-' if days else ''}{minutes // 60:02}:{minutes % 60:02}:00"


def shown(seconds: float) -> str:
    """Return a duration for a sentence.

    >>> shown(4.2), shown(300)
    ('4 s', '5.0 min')
    """
    return f"{max(1, round(seconds))} s" if seconds < 120 else f"{seconds / 60:.1f} min"


def _stretch(item: Any) -> StartRecord | None:
    """Return the stretch of a document; None if it is none."""
    names = {one.name for one in fields(StartRecord)}
    if not isinstance(item, dict):
        return None
    known = {name: value for name, value in item.items() if name in names}
    with suppress(TypeError, ValueError, AttributeError, OverflowError):
        counts = ("first_step", "step", "validations", "kept", "done", "of")
        numbers: dict[str, Any] = {name: int(known.get(name, 0)) for name in counts}
        times: dict[str, Any] = {name: float(known.get(name, 0)) for name in ("in_phase", "elapsed")}
        texts: dict[str, Any] = {name: str(known.get(name, "")) for name in ("started", "signal")}
        phase = str(known.get("phase") or "start-up")
        seconds = {str(name): float(value) for name, value in dict(known.get("seconds", {})).items()}
        job = known.get("job")
        evaluated = tuple(map(str, known.get("evaluated", ())))
        if "" in seconds or not all(0 <= took < LONGEST_S for took in (*seconds.values(), *times.values())):
            return None
        job = None if job is None else str(job)
        return StartRecord(**texts, **times, **numbers, phase=phase, seconds=seconds, evaluated=evaluated, job=job)
    return None
