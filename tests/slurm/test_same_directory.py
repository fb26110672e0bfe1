"""Two fits at the same time in one directory, without Slurm's help, and a test there afterwards."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.prepared import Prepared
from tests.support import SMALL, Bldml

pytestmark = pytest.mark.slow

SEEDS = (42, 43)
OPTIONS = (*SMALL, "--trainer.max_epochs=2", "--unfreezing.start_epoch=1", "--data.num_workers=1")
RESULTS = ("history.csv", "splits.csv", "evaluations/val/predictions.csv", "evaluations/test/predictions.csv")


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "bldml", "fit", *arguments]
    return Prepared(command, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def outcomes(*processes: subprocess.Popen[str]) -> list[tuple[int, str]]:
    return [(process.returncode, text) for process in processes for text, _ in [process.communicate(timeout=300)]]


def hashes(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def together(leaves: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """The run folders of two fits with automatic names, which differ in their seed, by seed."""
    folder = tmp_path_factory.mktemp("together")
    data = f"--data.root={leaves}"
    for code, text in outcomes(*(start(folder, *OPTIONS, data, f"--seed_everything={seed}") for seed in SEEDS)):
        assert code == 0, text
    runs = list((folder / "lightning_logs").iterdir())
    return {yaml.safe_load((run / "config.yaml").read_text())["seed_everything"]: run for run in runs}


@pytest.mark.parametrize("seed", SEEDS)
def test_each_comes_to_what_it_would_alone(
    seed: int, together: dict[int, Path], leaves: Path, bldml: Bldml, tmp_path: Path
) -> None:
    assert set(together) == set(SEEDS)
    alone = tmp_path / "work" / "lightning_logs" / "alone"
    outcome = bldml("fit", *OPTIONS, f"--data.root={leaves}", f"--seed_everything={seed}", "--run_name=alone")
    assert outcome.code == 0, outcome.err
    for name in RESULTS:
        assert (together[seed] / name).read_bytes() == (alone / name).read_bytes(), name
    assert {path.name for path in together[seed].glob("checkpoints/*")} == {
        path.name for path in alone.glob("checkpoints/*")
    }


def test_a_test_of_one_leaves_the_other_alone(
    together: dict[int, Path], bldml: Bldml, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (together[seed] for seed in SEEDS)
    monkeypatch.chdir(first.parent.parent)
    before, expected = hashes(second), (first / "evaluations" / "test" / "predictions.csv").read_bytes()
    (first / "evaluations" / "test" / "predictions.csv").unlink()
    outcome = bldml("test", "--ckpt_path", str(first / "checkpoints" / "best.ckpt"), "--trainer.accelerator=cpu")
    assert outcome.code == 0, outcome.err
    assert (first / "evaluations" / "test" / "predictions.csv").read_bytes() == expected
    assert hashes(second) == before


def test_of_two_with_the_same_name_one_is_refused(leaves: Path, tmp_path: Path) -> None:
    options = (*OPTIONS, f"--data.root={leaves}", "--run_name=same", "--test_after_fit=false")
    first, second = outcomes(*(start(tmp_path, *options, f"--seed_everything={seed}") for seed in SEEDS))
    assert sorted((first[0], second[0])) == [0, 1], (first, second)
    winner, (_, said) = (SEEDS[0], second) if first[0] == 0 else (SEEDS[1], first)
    assert "same already exists" in said
    run = tmp_path / "lightning_logs" / "same"
    assert yaml.safe_load((run / "config.yaml").read_text())["seed_everything"] == winner
    # Of the training, and of the evaluations after it.
    assert len(list(run.glob("events.out.tfevents.*"))) == 2
