"""A folder with an experiment of small runs, and the command that does it, as processes of their own."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from bldml.io.locks import Lock
from bldml.sweep.experiment import read_experiment
from bldml.sweep.plan import Plan, SweepFolder, read_plan
from bldml.sweep.planning import plan_with_photographs
from bldml.sweep.search.study import Study, space_of
from bldml.sweep.states import RunState, read_states
from tests.prepared import Prepared
from tests.support import REPOSITORY

BASE = """
model: {backbone: three_layers, weights: none, image_size: 64}
data: {positive_class: BLD, num_workers: 0, batch_size: 8}
trainer: {max_epochs: 8, accelerator: cpu}
report: false
"""
ONE = "base: base.yaml\nconfigurations: [{name: a}]\nseeds: [1]\nfolds: 2\n"
FORKING = "tests.sweep.forking"


class Bench:
    """A folder with an experiment, and the command that does it."""

    def __init__(self, folder: Path, leaves: Path) -> None:
        self.folder = folder
        folder.mkdir()
        shutil.copytree(leaves, folder / "leaves")
        (folder / "base.yaml").write_text(f"{BASE}\n".replace("data: {", "data: {root: leaves, "))
        self.write(ONE)
        self.processes: list[subprocess.Popen[str]] = []

    @property
    def sweep(self) -> SweepFolder:
        return SweepFolder(self.folder / "sweeps" / "tiny")

    @property
    def plan(self) -> Plan:
        return read_plan(self.sweep)

    def write(self, text: str) -> None:
        (self.folder / "tiny.yaml").write_text(text)

    def start(self, *options: str, program: str = FORKING) -> "subprocess.Popen[str]":
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "BLDML_CACHE": str(self.folder / "cache")}
        process = Prepared(
            [sys.executable, "-m", program, "sweep", "tiny.yaml", *options], cwd=self.folder,
            env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self.processes.append(process)
        return process

    def complete(self, *options: str, program: str = FORKING) -> tuple[int, str]:
        process = self.start(*options, program=program)
        said = process.communicate(timeout=600)[0]
        return process.returncode, said

    def end(self) -> None:
        for process in self.processes:
            if process.returncode is None:
                process.kill()
                process.communicate()

    def states(self) -> dict[str, RunState]:
        return {one.run.name: one for one in read_states(self.sweep, self.plan)}

    def wait_for(self, there: Callable[[], bool]) -> None:
        end = time.monotonic() + 600
        while not there():
            assert time.monotonic() < end
            time.sleep(0.2)

    def epochs(self, name: str) -> int:
        history = self.sweep.run(name).history
        return max(0, len(history.read_text().splitlines()) - 1) if history.is_file() else 0

    def starts(self, name: str) -> int:
        return len(json.loads((self.sweep.run(name).path / "stretches.json").read_text())["stretches"])

    def runs(self) -> list[str]:
        return [run.name for run in self.plan.runs]


def write_good_trials(experiment: Path, sweep: SweepFolder) -> None:
    """Begin a search with five complete trials: of their runs only histories are there, which no training reaches."""
    plan, _ = plan_with_photographs(read_experiment(experiment), sweep)
    with Lock(sweep.lock) as lock:
        study = Study(sweep.study, space_of(plan), lock)
        for number in range(5):
            study.ask()
            study.tell(number, "complete", 0.01)
            history = sweep.run(f"trial-{number:04}_seed1").history
            history.parent.mkdir(parents=True)
            history.write_text("epoch,val_loss\n" + "".join(f"{epoch},0.01\n" for epoch in range(4)))
