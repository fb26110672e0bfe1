"""Runs of an experiment on this machine: each a process of its own, one after the other or several at a time."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from bldml.dataset.files import show_path
from bldml.io.atomic import write_atomically
from bldml.io.locks import Lock, Taken, is_taken
from bldml.io.safe_points import note_kept, safe_point
from bldml.io.screen import say
from bldml.sweep.plan import PlannedRun, SweepFolder, read_plan
from bldml.sweep.planning import arguments_of
from bldml.sweep.states import INTERRUPTS, is_finished, last_code, reason_of
from bldml.training.resume.signals import Interrupted, blocked

PAUSE_S = 0.2
SAY_AGAIN_S = 300.0
# Variables of the job and of a fit that this process runs in: its runs are neither that job nor of that fit.
_NOT_INHERITED = ("SLURM_", "SRUN_", "BLDML_RUN", "BLDML_TASK")


def program() -> list[str]:
    """Return the command with which the program of this process is started again, without its arguments.

    That is `python -m bldml`, or the user's own program if it runs the command line of bldml, for example with a
    classifier class of its own.
    """
    main = sys.modules["__main__"]
    starts = ("bldml.cli", "bldml.__main__")
    is_own = any(getattr(value, "__module__", None) in starts for value in vars(main).values())
    spec = getattr(main, "__spec__", None)
    if is_own and spec is not None:
        return [sys.executable, "-m", spec.name.removesuffix(".__main__")]
    if is_own and getattr(main, "__file__", None) and str(main.__file__).endswith(".py"):
        return [sys.executable, str(main.__file__)]
    return [sys.executable, "-m", "bldml"]


def own_environment() -> dict[str, str]:
    """Return the environment of a run: without the variables of the job or fit that this process is in."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_INHERITED)}
    return {**kept, "PYTHONUNBUFFERED": "1"}


def visible_gpus() -> list[str]:
    """Return the GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them; empty without any."""
    import torch

    there = torch.cuda.device_count()  # of those that the variable names; those after one that is not there are none
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = map(str, range(there)) if listed is None else map(str.strip, listed.split(","))
    return list(names)[:there]


@dataclass
class _Started:
    """A run that this process has started."""

    run: PlannedRun
    process: "subprocess.Popen[bytes]"
    claim: Lock
    gpu: str | None = None  # the only one that it sees; None for all


class LocalRuns:
    """Does the runs of an experiment that are missing, one after the other or several at a time.

    Another process may do the same in the same folder: each run is claimed by a lock, and this process does the others
    first, then waits. Of several GPUs each run sees one, that with the fewest runs, so that it does not matter for a
    run that is resumed how many are done at a time; a run that asks for several devices sees all.

    Args:
        folder: Folder of the experiment.
        jobs: Number of runs at a time, at least 1.
        options: Options of fit for every run, after its own.
    """

    def __init__(self, folder: SweepFolder, jobs: int, options: Sequence[str] = ()) -> None:
        self.folder, self.jobs, self.options = folder, jobs, list(options)
        self._gpus = visible_gpus()
        self._before = {path: _version(path) for path in folder.code("any").parent.glob("*.code")}
        self._active: list[_Started] = []
        self._waiting: list[PlannedRun] = []
        self._ended: set[str] = set()
        self._said = 0.0
        self.total, self.done = 0, 0  # a total of 0: not known

    def command(self, arguments: Sequence[str]) -> list[str]:
        """Return the command of a run with these options of fit."""
        return [*program(), "fit", *arguments]

    def environment(self, run: PlannedRun) -> dict[str, str]:
        """Return the environment of a run."""
        return own_environment()

    def interrupt(self, name: str) -> None:
        """Let a run that this process has started save and end."""
        if process := self.process_of(name):
            self.note_ended(name)
            with suppress(OSError, ValueError):  # it has ended; on Windows it is killed
                process.terminate()

    def note_ended(self, name: str) -> None:
        """Note that this process ends a run early."""
        self._ended.add(name)

    def process_of(self, name: str) -> "subprocess.Popen[bytes] | None":
        """Return the process of a run that this one has started and that is not recorded as ended; None if none is."""
        return next((one.process for one in self._active if one.run.name == name), None)

    def do(self, runs: Sequence[PlannedRun], queued: Mapping[str, str]) -> None:
        """Do these runs, except those that are finished and those in Slurm's queue; return when all have ended.

        Raises:
            Interrupted, KeyboardInterrupt: A signal arrived. It was passed on, and the runs have saved and ended.
        """
        finished = [run for run in runs if is_finished(self.folder.run(run.name))]
        self._waiting = [run for run in runs if run not in finished and run.name not in queued]
        self.total, self.done = len(runs), len(finished)
        try:
            while self._waiting or self._active:
                safe_point()
                self.reap()
                self._start_some()
                time.sleep(PAUSE_S)
        except (Interrupted, KeyboardInterrupt) as stop:
            self.end(stop.signum if isinstance(stop, Interrupted) else signal.SIGINT)
            raise

    def _start_some(self) -> None:
        """Start runs while there is room; those that another process does stay waiting."""
        for run in list(self._waiting):
            if len(self._active) >= self.jobs:
                return
            found = self.try_to_start(run)
            if found != "taken":
                self._waiting.remove(run)
                self.done += found == "finished"
        if self._waiting and not self._active and time.monotonic() - self._said > SAY_AGAIN_S:
            self._said = time.monotonic()
            say(f"{clock()} waiting for {len(self._waiting)} that another process does: {self._waiting[0].name}, …\n")

    def try_to_start(self, run: PlannedRun) -> Literal["started", "taken", "finished", "failed"]:
        """Start a run, unless another process does it, or has ended it since this process began."""
        with ExitStack() as stack:
            try:
                claim = stack.enter_context(Lock(self.folder.claim(run.name)))
            except Taken:
                return "taken"
            if is_taken(self.folder.run(run.name).lock):  # a fit that somebody else has started
                return "taken"
            if is_over := self._is_over(run):
                return is_over
            gpu = self._gpu_for(run)
            self._active.append(_Started(run, self._start(run, gpu), claim, gpu))
            stack.pop_all()
        return "started"

    def _is_over(self, run: PlannedRun) -> Literal["finished", "failed", ""]:
        """Return how a run ended since this process began, by another one; empty if it is still to be done."""
        if is_finished(self.folder.run(run.name)):
            return "finished"
        code = self.folder.code(run.name)
        # By no clock, which may be wrong: a run that failed before would then not be tried again.
        is_new = _version(code) not in (None, self._before.get(code))
        return "failed" if is_new and last_code(self.folder, run.name) not in INTERRUPTS else ""

    def _gpu_for(self, run: PlannedRun) -> str | None:
        """Return the GPU that a run gets for itself; None where there is no choice, or the run is to choose."""
        if len(self._gpus) < 2:
            return None
        plan = read_plan(self.folder)
        options = next(one.options for one in plan.configurations if one.name == run.configuration)
        settings = {**plan.settings, **options}
        is_cpu = settings.get("trainer.accelerator") == "cpu"
        if is_cpu or settings.get("trainer.devices", 1) not in (1, "1", "auto"):
            return None
        used = Counter(one.gpu for one in self._active)
        return min(self._gpus, key=lambda gpu: used[gpu])

    def _start(self, run: PlannedRun, gpu: str | None) -> "subprocess.Popen[bytes]":
        self.folder.code(run.name).unlink(missing_ok=True)
        arguments = [*arguments_of(self.folder, run), *self.options]
        verb = "resumed" if arguments[0] == "--resume" else "started"
        # A session of its own, so that Ctrl-C in the terminal reaches it once, through this process.
        with self.folder.log(run.name).open("ab") as log, blocked():
            process = subprocess.Popen(
                self.command(arguments), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                env=self.environment(run) | ({} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu}),
                start_new_session=True,
            )  # fmt: skip
        which = f"{self.done + len(self._active) + 1} of {self.total}" if self.total else ""
        details = ", ".join(filter(None, (which, "" if gpu is None else f"GPU {gpu}")))
        say(f"{clock()} {run.name}: {verb}{f' ({details})' if details else ''}\n")
        sys.stdout.flush()
        return process

    def reap(self) -> None:
        """Record how those that have ended did."""
        for started in [one for one in self._active if one.process.poll() is not None]:
            self._active.remove(started)
            name, code = started.run.name, started.process.returncode
            if code and is_taken(self.folder.run(name).lock):
                self._waiting.append(started.run)  # another process, which was not of this sweep, was quicker
            else:
                write_atomically(self.folder.code(name), f"{code}\n")
                if code and code not in INTERRUPTS:
                    say(f"{clock()} {name}: failed: {reason_of(self.folder, name, code)}\n")
                    say(f"  Log: {show_path(self.folder.log(name))}\n")
                elif code and name not in self._ended:
                    say(f"{clock()} {name}: interrupted by a signal that was not of this command\n")
                elif not code:
                    self.done += 1
                    note_kept()
                    say(f"{clock()} {name}: finished\n")
            sys.stdout.flush()
            started.claim.close()

    def end(self, signum: int) -> None:
        """Pass a signal on to the runs, none if it is 0, and wait until they have saved; a second Ctrl-C kills them."""
        for started in self._active:
            with suppress(OSError, ValueError):  # on Windows there is no such signal
                started.process.send_signal(signum)
        if self._active:
            say(f"{clock()} {len(self._active)} running: saving at the next safe point.\n")
            sys.stdout.flush()
        killed: set[str] = set()
        try:
            for started in self._active:
                started.process.wait()
        except KeyboardInterrupt:
            for started in self._active:
                if started.process.poll() is None:
                    started.process.kill()
                    started.process.wait()
                    killed.add(started.run.name)  # by us, so it has not failed
        for started in self._active:
            if started.run.name not in killed:
                with suppress(OSError):
                    write_atomically(self.folder.code(started.run.name), f"{started.process.returncode}\n")
            started.claim.close()
        self._active.clear()


def _version(path: Path) -> tuple[int, int] | None:
    """Return what a file that is written anew, in another one's place, does not have in common with it."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def clock() -> str:
    """Return the time of day, at the beginning of a line about a run."""
    return f"{datetime.now():%H:%M:%S}"
