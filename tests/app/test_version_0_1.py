"""What version 0.1 left behind is still read: run folders, checkpoints, configurations (tests/fixtures/run_0_1)."""

import csv
import re
import shutil
import tarfile
from pathlib import Path

import pytest
import torch

from bldml.app.options import hint_renamed
from bldml.dataset.synthetic.leaves import write_leaves
from bldml.metrics.registry import canonical
from bldml.run.folder import RunFolder
from bldml.run.reader import read_run
from bldml.training.checkpoint import KEY
from tests.support import REPOSITORY, Bldml

FIXTURE = REPOSITORY / "tests" / "fixtures" / "run_0_1"
CPU = ("--trainer.accelerator=cpu", "--data.num_workers=0", "--report=false")
# The folder has moved since.
OWN = ("--data.root=leaves", "--data.manifest=finished/splits.csv")


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bldml: Bldml) -> Path:
    """A copy with its checkpoints, in which the command line runs: the configurations say `leaves`."""
    copy = shutil.copytree(FIXTURE, tmp_path / "old")
    with tarfile.open(copy / "checkpoints.tar.xz") as archive:
        archive.extractall(copy, filter="data")
    monkeypatch.chdir(copy)
    return copy


def probabilities(predictions: Path) -> dict[str, float]:
    with predictions.open(encoding="utf-8", newline="") as file:
        return {row["path"]: float(row["probability"]) for row in csv.DictReader(file)}


def same(now: Path, then: Path) -> None:
    """The same photographs with the same probabilities; another CPU may compute in another precision."""
    assert probabilities(now) == pytest.approx(probabilities(then), abs=0.02)


def test_report(old: Path, bldml: Bldml) -> None:
    outcome = bldml("report", "finished")
    assert outcome.code == 0, outcome.err
    assert "Warning" not in outcome.err
    page = (old / "finished/report.html").read_text(encoding="utf-8")
    # Every part that 0.1 had a file for.
    for words in ("Beech leaves", "e54dd29", "coarse.pth", "leaf_0003.jpg"):
        assert words in page, words
    assert page.count("<img") > 20


def test_roles_of_its_evaluations_are_derived(old: Path) -> None:
    data = read_run(RunFolder(old / "finished"))
    found = {one.name: (one.role, one.provenance.known) for one in data.evaluations}
    assert found == {
        "test": ("test", None),
        "other": ("external", {"train": 0, "val": 0, "test": 0}),
        "val": ("validation", None),
        "train": ("training", None),
    }


@pytest.mark.parametrize(
    ("command", "data", "evaluation"),
    [("validate", OWN, "val"), ("test", OWN, "test"), ("test", ("--data.root=other",), "other")],
)
def test_evaluation(command: str, data: tuple[str, ...], evaluation: str, old: Path, bldml: Bldml) -> None:
    outcome = bldml(command, "--ckpt_path=finished/checkpoints/best.ckpt", *data, "--output=out", "--name=now", *CPU)
    assert outcome.code == 0, outcome.err
    same(old / "out/predictions.csv", old / f"finished/evaluations/{evaluation}/predictions.csv")


def test_evaluation_in_the_run_folder(old: Path, bldml: Bldml) -> None:
    lines = (old / "finished/ledger.csv").read_text().splitlines()
    assert bldml("test", "--ckpt_path=finished/checkpoints/best.ckpt", *OWN, *CPU).code == 0
    after = (old / "finished/ledger.csv").read_text().splitlines()
    assert after[: len(lines)] == lines
    assert len(after) == len(lines) + 1


def test_photographs_of_its_training_are_known(old: Path, bldml: Bldml) -> None:
    path = sorted(probabilities(old / "finished/evaluations/train/predictions.csv"))[0]
    shutil.copytree("other", "mixed")
    shutil.copy(old / "leaves" / path, old / "mixed" / path.split("/")[0] / "renamed.jpg")
    outcome = bldml("test", "--ckpt_path=finished/checkpoints/last.ckpt", "--data.root=mixed", *CPU)
    assert outcome.code == 1
    assert "renamed.jpg" in outcome.err


def test_predict(old: Path, bldml: Bldml) -> None:
    checkpoint = "--ckpt_path=finished/checkpoints/best.ckpt"
    outcome = bldml("predict", checkpoint, "--data.root=other", "--output=out", *CPU[:2])
    assert outcome.code == 0, outcome.err
    same(old / "out/predictions.csv", old / "finished/evaluations/other/predictions.csv")


def test_explain(old: Path, bldml: Bldml) -> None:
    outcome = bldml("explain", "other/BLD", "--ckpt_path=finished/checkpoints/last.ckpt", "--device=cpu")
    assert outcome.code == 0, outcome.err
    assert len(list(Path("cams").glob("*_leaf_*.png"))) == 4


def test_resume(old: Path, bldml: Bldml) -> None:
    """The weights that it began with are gone and not needed. What comes of it is compared with the other old run."""
    before = list(csv.DictReader((old / "stopped/metrics.csv").read_text().splitlines()))
    outcome = bldml("fit", "--resume=stopped", "--report=false")
    assert outcome.code == 0, outcome.err
    assert "epoch 2, step 8" in outcome.err
    after = list(csv.DictReader((old / "stopped/metrics.csv").read_text().splitlines()))
    assert len(after) == 6
    assert not (old / "stopped/history.csv").exists(), "it goes on in its old file"
    for then, now in zip(before, after, strict=False):
        logged = {canonical(name): value for name, value in then.items()}
        assert now == now | logged, "what 0.1 has logged stays, under the names of today"
    assert float(after[3]["trainable_share"]) < 0.01 < float(after[4]["trainable_share"])
    for split in ("train", "val", "test"):
        assert (old / f"stopped/evaluations/{split}/metrics.json").is_file()
    assert bldml("compare", "finished", "stopped").code == 0


def test_its_configuration_repeats_the_run(old: Path, bldml: Bldml) -> None:
    options = ("--run_name=again", "--model.weights=none", "--trainer.max_epochs=1", "--unfreezing.start_epoch=1")
    outcome = bldml("fit", "--config=finished/config.yaml", *options, "--report=false")
    assert outcome.code == 0, outcome.err
    splits = (old / "lightning_logs/again/splits.csv").read_bytes()
    assert splits == (old / "finished/splits.csv").read_bytes(), "the division of a flat folder"
    assert re.search(r"train 28 .*val 14 .*test 6", outcome.err)


def test_resume_of_a_run_that_monitored_recall(old: Path, bldml: Bldml) -> None:
    """Its best value so far is known under the new name; the hint is one line."""
    config = old / "stopped/config.yaml"
    config.write_text(config.read_text().replace("monitor: val_loss", "monitor: val_recall"))
    last = old / "stopped/checkpoints/last.ckpt"
    checkpoint = torch.load(last, weights_only=True)
    states = checkpoint["callbacks"]
    for key in list(states):
        state = states[re.sub("'val_loss', 'mode': 'min'", "'val_recall', 'mode': 'max'", key)] = states.pop(key)
        for name in ("best_model_score", "current_score", "kth_value"):
            if name in state:
                state[name] = torch.tensor(1.0)  # which no epoch betters
        if "best_k_models" in state:
            state["best_k_models"] = dict.fromkeys(state["best_k_models"], torch.tensor(1.0))
    torch.save(checkpoint, last)
    best = torch.load(old / "stopped/checkpoints/best.ckpt", weights_only=True)
    hint_renamed.cache_clear()
    outcome = bldml("fit", "--resume=stopped", "--report=false", "--test_after_fit=false")
    assert outcome.code == 0, outcome.err
    assert outcome.err.count("val_recall was renamed val_sensitivity") == 1
    # It is the same one; what its training photographs are like has been added.
    now = torch.load(old / "stopped/checkpoints/best.ckpt", weights_only=True)
    assert (now["epoch"], now[KEY]) == (best["epoch"], best[KEY] | {"bands": now[KEY].get("bands")})
    assert all(torch.equal(value, best["state_dict"][name]) for name, value in now["state_dict"].items())
    after = torch.load(last, weights_only=True)["callbacks"]
    assert not [key for key in after if "val_recall" in key]


def test_a_resumed_run_is_evaluated_as_its_checkpoint_says(tmp_path: Path, bldml: Bldml) -> None:
    """Version 0.1 decoded JPEGs at a reduced scale: its temperature and threshold are of that."""
    write_leaves(tmp_path / "leaves", images_per_class=8, size=256, seed=3)
    model = ("--model.backbone=three_layers", "--model.weights=none", "--model.image_size=32")
    data = (f"--data.root={tmp_path / 'leaves'}", "--data.positive_class=BLD", "--data.cache=off")
    options = ("--trainer.max_epochs=1", "--run_name=old", *CPU)
    assert bldml("fit", *model, *data, *options).code == 0
    run, table = Path("lightning_logs/old"), Path("evaluations/test/predictions.csv")
    full = probabilities(run / table)
    for name in ("best.ckpt", "last.ckpt"):
        checkpoint = torch.load(run / "checkpoints" / name, weights_only=True)
        assert checkpoint[KEY].pop("decode") == "full"
        torch.save(checkpoint, run / "checkpoints" / name)
    shutil.rmtree(run / "evaluations")
    outcome = bldml("fit", "--resume", run, "--report=false")
    assert outcome.code == 0, outcome.err
    resumed = probabilities(run / table)
    assert resumed != pytest.approx(full, abs=1e-6)
    assert bldml("test", run / "checkpoints/best.ckpt", "--output=out", *CPU).code == 0
    assert probabilities(Path("out/predictions.csv")) == pytest.approx(resumed, abs=1e-6)
