"""What a user brings to an experiment: classes of their own, GPUs for runs at a time, a job array."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bldml.sweep import local
from bldml.sweep.array import array_script
from bldml.sweep.local import LocalRuns
from bldml.sweep.plan import Candidate, Plan, PlannedRun, SweepFolder, write_plan
from tests.prepared import Prepared
from tests.support import REPOSITORY, mistake

# Says what it was started with, and waits until so many have been.
STANDS_IN = """
import json, os, sys, time
from pathlib import Path
here = Path(__file__).parent
place = here / f"seen-{os.getpid()}.json"
place.write_text(json.dumps([os.environ.get("CUDA_VISIBLE_DEVICES"), sys.argv[1:]]))
end = time.monotonic() + 60
while len(list(here.glob("seen-*"))) < 2 and time.monotonic() < end:
    time.sleep(0.05)
"""
OWN = """
import sys
import tests.three_layers  # first: it adds the row
from lightning.pytorch.callbacks import Callback
from bldml.cli import main
from bldml.training.module import LeafClassifier

class Mine(LeafClassifier):
    def __init__(self, *args, extra: float = 0.0, **more):
        super().__init__(*args, **more)

class Note(Callback):
    def on_fit_start(self, trainer, module):
        with open("noted.txt", "a") as file:
            file.write(f"{type(module).__name__} {trainer.max_epochs}\\n")

if __name__ == "__main__":
    sys.exit(main(model_class=Mine))
"""
BASE = """
model: {backbone: three_layers, weights: none, image_size: 64}
data: {root: leaves, positive_class: BLD, num_workers: 0, batch_size: 8}
trainer: {max_epochs: 1, accelerator: cpu, callbacks: [{class_path: own.Note}]}
report: false
"""


def planned(folder: Path, **settings: object) -> tuple[SweepFolder, list[PlannedRun]]:
    """An experiment of two runs, of which nothing has begun."""
    sweep = SweepFolder(folder / "sweep")
    runs = [PlannedRun(f"a_seed{seed}", "a", seed) for seed in (1, 2)]
    for path in (sweep.base, sweep.task("a").parent, sweep.log("a").parent):
        path.mkdir(parents=True)
    for run in runs:
        sweep.task(run.name).write_text("report: false\n")
    write_plan(sweep, Plan("sweep", (Candidate("a"),), tuple(runs), "auroc", settings=settings))
    return sweep, runs


@pytest.mark.parametrize(
    ("visible", "there", "jobs", "settings", "expected"),
    [
        ("4, GPU-8f", 2, 2, {}, ["4", "GPU-8f"]),
        ("4,7,9", 3, 2, {"trainer.devices": 1}, ["4", "7"]),
        ("4,7", 2, 2, {"trainer.devices": 2}, ["4,7", "4,7"]),
        ("4,7", 2, 2, {"trainer.accelerator": "cpu"}, ["4,7", "4,7"]),
        ("4", 1, 2, {}, ["4", "4"]),
        ("4,-1,7", 1, 2, {}, ["4,-1,7", "4,-1,7"]),
        ("0,1,2,3", 2, 2, {}, ["0", "1"]),  # only two are there
        ("0,1", 0, 2, {}, ["0,1", "0,1"]),
        ("", 0, 2, {}, ["", ""]),
        ("4,7", 2, 1, {}, ["4", "4"]),  # as a run that is resumed with more jobs
    ],
)
def test_each_run_gets_a_gpu(
    visible: str,
    there: int,
    jobs: int,
    settings: dict[str, object],
    expected: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sweep, runs = planned(tmp_path, **settings)
    (tmp_path / "stands_in.py").write_text(STANDS_IN.replace("< 2", f"< {jobs}"))
    monkeypatch.setattr(local, "program", lambda: [sys.executable, str(tmp_path / "stands_in.py")])
    monkeypatch.setattr("torch.cuda.device_count", lambda: there)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    LocalRuns(sweep, jobs, ["--trust_config"]).do(runs, {})
    found = [json.loads(path.read_text()) for path in tmp_path.glob("seen-*")]
    assert sorted(gpus for gpus, _ in found) == expected
    assert all(words[0] == "fit" and words[-1] == "--trust_config" for _, words in found)


def test_classes_of_ones_own_need_trust_and_reach_every_run(leaves: Path, tmp_path: Path) -> None:
    """A classifier class with an option of its own, and a callback that no other configuration may name."""
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "leaves").symlink_to(leaves)
    (tmp_path / "base.yaml").write_text(BASE)
    (tmp_path / "tiny.yaml").write_text("base: base.yaml\ngrid: {model.extra: [0.5]}\n")

    def sweep(*options: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "own", "sweep", "tiny.yaml", *options]
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        process = Prepared(
            command, cwd=tmp_path, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        said = process.communicate(timeout=300)[0]
        return process.returncode, said

    code, said = sweep()
    assert (code, "--trust_config" in said, "Traceback" in said) == (2, True, False), said
    assert not (tmp_path / "sweeps").exists()
    code, said = sweep("--trust_config")
    assert code == 0, said
    assert (tmp_path / "noted.txt").read_text() == "Mine 1\n"


def test_an_array_passes_trust_on(tmp_path: Path) -> None:
    sweep, runs = planned(tmp_path)
    script = tmp_path / "one.sbatch"
    script.write_text("#SBATCH --time=60\nprintf '%s\\n' \"$@\"\n")
    for options in ([], ["--trust_config"]):
        (tmp_path / "array.sh").write_text(array_script(sweep, runs, script, script.read_text(), options))
        environment = {"SLURM_ARRAY_TASK_ID": "1", "PATH": "/usr/bin:/bin"}
        subprocess.run(["bash", tmp_path / "array.sh"], env=environment, check=True)
        log = sweep.log("a_seed2")
        assert log.read_text().split() == [str(sweep.task("a_seed2").absolute()), *options]
        log.unlink()


@pytest.mark.parametrize("name", ["a\ntouch injected", 'a"b', "a%jb", "a\\b"])
def test_a_folder_that_would_end_a_line_of_a_job_script(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    sweep, runs = planned(tmp_path / name)
    script = tmp_path / "one.sbatch"
    script.write_text("true\n")
    with mistake("sweep-path-not-for-slurm", path=str(sweep.log("a").parent)):
        array_script(sweep, runs, script, script.read_text())
    sweep, runs = planned(tmp_path)
    if "\n" in name:
        with mistake("sweep-path-not-for-slurm", path=str(tmp_path / name / "one.sbatch")):
            array_script(sweep, runs, tmp_path / name / "one.sbatch", script.read_text())
