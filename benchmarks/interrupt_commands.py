"""Plain commands as jobs of a real Slurm that are interrupted at random moments, against commands left in peace.

    python -m benchmarks.interrupt_commands [--commands audit …] [--events 3] --output FILE

Each command is submitted by scripts/slurm/command.sbatch, and meets so many events: preemption with and without grace
time, the signal near the wall time, `scontrol requeue`, `scancel`, SIGTERM and SIGKILL. A job that has ended is
submitted again. After each event no half file and no temporary one may be there (a kill leaves temporary ones); at the
end all files must be equal to those of the command left in peace, except those that say when and how it ran. A real
Slurm of one node is started for it, as for the tests.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.faults import _write_review
from benchmarks.interrupt_slurm import EVENTS, REQUEUED
from bldml.dataset.synthetic.leaves import write_leaves
from bldml.training.resume.stopping import NO_PROGRESS
from tests.faults.commands import APPENDED, COUNTING, TEMPORARY, digests_of
from tests.slurm.cluster import ENDED, LARGE, Cluster, Job
from tests.slurm.fits import HERE, SCRIPTS
from tests.support import ALONE, REPOSITORY, THREE_LAYERS

RUN, OTHER = "lightning_logs/run", "lightning_logs/other"
# FEW and MANY are folders of photographs.
COMMANDS: dict[str, tuple[str, ...]] = {
    "test": ("test", RUN, "--data.num_workers=2"),
    "validate": ("validate", RUN, "--data.num_workers=0"),
    "predict": ("predict", RUN, "MANY", "--output=out", "--data.num_workers=2"),
    "explain": ("explain", RUN, "MANY", "--output=out", "--device=cpu"),
    "survey": ("survey", RUN, "MANY", "--output=out", "--device=cpu"),
    "audit": ("audit", "MANY", *ALONE, "--workers=2", "--output=out"),
    "split": ("split", "MANY", "--output=splits.csv"),
    "export": ("export", RUN, "--output=out", "--photographs=FEW"),
    "report": ("report", RUN),
    "compare": ("compare", RUN, OTHER, "--output=out"),
    "review": ("review", "confirmed.csv", RUN, "more", "--output=out"),
}
# An evaluation that is requeued behind its last result is done again, and is another look.
COUNTED = ("ledger.csv", "ledger.tex", "provenance.json", "report.html")
KILLED = ("SIGKILL", "preemption, no grace time", "scontrol requeue")
SOONEST_S = 1.0
# Files that say when and how something was done; files.csv has the SHA-256 of environment.json, which says it too.
TOLD = (*COUNTING, "log.txt", "tables/run/files.csv", ".lock")


class Bench:
    """A cluster, and a folder that a command's jobs work in, made anew for each trial."""

    def __init__(self, cluster: Cluster, folder: Path, seed: int) -> None:
        self.cluster, self.folder, self.chance = cluster, folder, random.Random(seed)
        self.world, self.work = folder / "world", folder / "work"
        self.leaves = {"FEW": folder / "few", "MANY": folder / "many"}
        write_leaves(self.leaves["FEW"], 24, 96, seed=3)
        write_leaves(self.leaves["MANY"], 150, 96, seed=4)
        self.environment = folder / "environment"  # whose `python -m bldml` knows the network of the tests
        (self.environment / "bin").mkdir(parents=True)
        (self.environment / "bin" / "activate").write_text(f'PATH="{self.environment}/bin:{sys.prefix}/bin:$PATH"\n')
        python = self.environment / "bin" / "python"
        python.write_text(f'#!/bin/bash\nexec "{sys.executable}" -m tests.three_layers "${{@:3}}"\n')
        python.chmod(0o755)
        self.world.mkdir()
        _write_review(self.world)
        fit = ("fit", *THREE_LAYERS, f"--data.root={self.leaves['FEW']}", "--run_name=run", "--trainer.max_epochs=2")
        command = [sys.executable, "-m", "tests.three_layers", *fit, "--trainer.logger=false"]
        subprocess.run(command, cwd=self.world, env=os.environ | self.variables(), check=True, capture_output=True)
        shutil.copytree(self.world / RUN, self.world / OTHER)

    def variables(self) -> dict[str, str]:
        """Environment of the jobs."""
        return {
            "BLDML_ENV": str(self.environment),
            "PYTHONPATH": str(REPOSITORY),
            "BLDML_CACHE": str(self.folder / "cache"),
            "OMP_NUM_THREADS": "1",
        }

    def submit(self, words: Sequence[str]) -> Job:
        """Submit a command."""
        filled = [str(self.leaves.get(word.removeprefix("--photographs="), word)) for word in words]
        filled = [
            f"--photographs={new}" if old.startswith("--photographs=") else new
            for old, new in zip(words, filled, strict=True)
        ]
        options = (*HERE, "--partition=low", f"--cpus-per-task={LARGE}", f"--output={self.folder}/%j.out")
        return self.cluster.submit(
            SCRIPTS / "command.sbatch", *filled, options=options, environment=self.variables(), folder=self.work
        )  # fmt: skip

    def in_peace(self, words: Sequence[str]) -> tuple[dict[str, str], float]:
        """Return what a command leaves that nothing interrupts, and how long it takes."""
        self.reset()
        job = self.submit(words)
        job.wait_for("RUNNING", "COMPLETED")
        began = time.monotonic()
        job.wait_for("COMPLETED")
        return digests_of(self.work), time.monotonic() - began

    def reset(self) -> None:
        """Make the folder anew."""
        shutil.rmtree(self.work, ignore_errors=True)
        shutil.copytree(self.world, self.work)


class Trial:
    """A command, what it leaves in peace, and jobs of it that are interrupted."""

    def __init__(self, bench: Bench, name: str) -> None:
        self.bench, self.name, self.words = bench, name, COMMANDS[name]
        bench.reset()
        self.before = digests_of(bench.work)
        self.results, self.seconds = bench.in_peace(self.words)
        other, seconds = bench.in_peace(self.words)
        self.seconds = min(self.seconds, seconds)
        self.timed = {path for path in self.results if self.results[path] != other.get(path) or path.endswith(TOLD)}
        self.events: list[dict[str, Any]] = []
        self.is_other_look = False
        self.findings: list[str] = []

    def interrupt(self, number: int, kinds: Sequence[str]) -> None:
        """Do the command with so many events, or fewer if it ends before."""
        self.bench.reset()
        job, restarts, left, self.is_other_look = self.bench.submit(self.words), 0, number, False
        while True:
            job.wait_until(lambda job=job: job.state == "RUNNING" or job.state in ENDED, "it runs")  # type: ignore[misc]
            delay = self.bench.chance.uniform(SOONEST_S, self.seconds) if left > 0 else 3600.0
            end = time.monotonic() + delay
            while job.state not in ENDED and time.monotonic() < end:
                time.sleep(0.1)
            if job.state not in ENDED:
                left -= 1
                restarts = self._happen(job, restarts, delay, self.bench.chance.choice(kinds))
            if job.state == "COMPLETED":
                break
            if job.state in ENDED:
                if not self.events or self.events[-1]["became"] != job.state:
                    self._find(job, f"it is {job.state}")
                job, restarts = self.bench.submit(self.words), 0
        self._compare()

    def _happen(self, job: Job, restarts: int, delay: float, kind: str) -> int:
        act, expected = EVENTS[kind]
        began = time.monotonic()
        if job.state in ENDED:
            return restarts
        try:
            act(self.bench.cluster, job)
        except BaseException as error:  # pytest's: the job has just ended
            if job.state not in ENDED:
                raise AssertionError(f"{kind}: {error}") from error
        # A preemption that is over may have let the job run on: then it was at its end.
        job.wait_until(lambda: job.state in ENDED or job.restarts > restarts, f"something became of it after {kind}")
        found = REQUEUED if job.restarts > restarts else job.state
        # A third start that has kept nothing is not requeued at its wall time.
        gives_up = kind == "wall time" and restarts >= 2 and NO_PROGRESS in job.text
        event = {"kind": kind, "after": round(delay, 1), "became": found, "seconds": round(time.monotonic() - began, 1)}
        self.events.append(event)
        if found not in (expected, "COMPLETED", *(["FAILED"] if gives_up else [])):
            self._find(job, f"after {kind} it is {found}")
        if "Traceback" in job.text:
            self._find(job, "a traceback")
        self.is_other_look |= found != "COMPLETED" and self._is_whole()
        self.findings += [f"after {kind} at {delay:.1f} s: {one}" for one in self._half(kind)]
        sys.stderr.write(f"{self.name} {json.dumps(event)}\n")
        return job.restarts

    def _find(self, job: Job, what: str) -> None:
        self.findings.append(what)
        sys.stderr.write(f"{self.name}: {what}\n{job.text[-3000:]}\n")

    def _is_whole(self) -> bool:
        now = digests_of(self.bench.work)
        return all(now.get(path) == digest for path, digest in self.results.items() if path not in self.timed)

    def _is_counted(self, path: str) -> bool:
        return self.is_other_look and path.endswith(COUNTED)

    def _half(self, kind: str) -> list[str]:
        now, found = digests_of(self.bench.work), []
        for path, digest in now.items():
            whole = {self.results.get(path), self.before.get(path)} - {None}
            is_kept = path in self.timed or path.endswith(APPENDED) or self._is_counted(path)
            if whole and not is_kept and digest not in whole:
                found.append(f"{path} is half")
            if path.endswith(TEMPORARY) and kind not in KILLED:
                found.append(f"{path} is left")
        return found

    def _compare(self) -> None:
        now = digests_of(self.bench.work)
        for path in sorted(now.keys() | self.results.keys()):
            if path in now and path in self.results:
                is_kept = path in self.timed or self._is_counted(path)
                if not is_kept and now[path] != self.results[path]:
                    self.findings.append(f"{path} differs in the end")
            else:
                self.findings.append(f"{path} is {'left' if path in now else 'missing'} in the end")

    def summary(self, trials: int, seed: int) -> dict[str, Any]:
        """Return what is written about the command."""
        return {
            "seed": seed,
            "seconds": round(self.seconds, 1),
            "trials": trials,
            "events": len(self.events),
            "became": {
                kind: dict(Counter(one["became"] for one in self.events if one["kind"] == kind))
                for kind in EVENTS if any(one["kind"] == kind for one in self.events)
            },
            "longest_seconds_until_then": max((one["seconds"] for one in self.events), default=0.0),
            "compared_files": len(self.results) - len(self.timed),
            "findings": self.findings,
        }  # fmt: skip


def main() -> int:
    """Try the commands, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commands", nargs="+", default=list(COMMANDS), choices=list(COMMANDS))
    parser.add_argument("--kinds", nargs="+", default=list(EVENTS), choices=list(EVENTS))
    parser.add_argument("--events", type=int, default=3, help="of one trial, at most")
    parser.add_argument("--trials", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    place, failed = Path(tempfile.mkdtemp(prefix="bldml-slurm-")), False
    place.chmod(0o755)
    cluster = Cluster(place)
    with tempfile.TemporaryDirectory() as folder:
        try:
            cluster.start()
            bench = Bench(cluster, Path(folder).resolve(), options.seed)
            for name in options.commands:
                trial = Trial(bench, name)
                for number in range(options.trials):
                    trial.interrupt(options.events, options.kinds)
                    old = json.loads(options.output.read_text())["commands"] if options.output.exists() else {}
                    about = {"commands": {**old, name: trial.summary(number + 1, options.seed)}}
                    options.output.write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
                failed |= bool(trial.findings)
        finally:
            cluster.stop()
            shutil.rmtree(place)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
