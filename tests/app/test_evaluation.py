"""test, validate and predict from a bare checkpoint, through the real command line."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from bldml.dataset.synthetic import write_leaves
from bldml.results.tables import read_predictions
from bldml.training.datamodule import LeafDataModule
from tests.support import SMALL, Bldml


@pytest.fixture
def bare(run: Path, tmp_path: Path) -> Path:
    """The best checkpoint, copied to an empty folder."""
    folder = tmp_path / "bare"
    folder.mkdir()
    return Path(shutil.copy(run / "checkpoints" / "best.ckpt", folder))


@pytest.mark.parametrize(("verb", "split"), [("test", "test"), ("validate", "val")])
def test_bare_checkpoint_needs_no_config_and_gives_the_figures_of_the_run(
    run: Path, bare: Path, bldml: Bldml, verb: str, split: str
) -> None:
    outcome = bldml(verb, "--ckpt_path", bare, "--trainer.accelerator=cpu", "--data.num_workers=0")
    assert outcome.code == 0
    folder = bare.parent / "evaluations" / split
    for name in ("predictions.csv", "metrics.csv", "metrics.json"):
        assert (folder / name).read_bytes() == (run / "evaluations" / split / name).read_bytes()
    assert "AUROC" in outcome.out
    assert str(folder) in outcome.out
    assert list(Path().iterdir()) == [], "nothing is written where the command was typed"


def test_checkpoint_in_its_run_folder_writes_there(run: Path, tmp_path: Path, bldml: Bldml) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    shutil.rmtree(copy / "evaluations")
    assert bldml("test", "--ckpt_path", copy / "checkpoints/best.ckpt", "--trainer.accelerator=cpu").code == 0
    before = (run / "evaluations/test/predictions.csv").read_bytes()
    assert (copy / "evaluations/test/predictions.csv").read_bytes() == before


def test_another_labelled_folder_is_evaluated_whole(bare: Path, tmp_path: Path, bldml: Bldml) -> None:
    """Folders called by other names are matched by aliases; the prefix turns the alphabetical order round."""
    other = tmp_path / "other_site"
    write_leaves(other, images_per_class=5, size=96, seed=9, class_names=("0_No_BLD", "1_BLD"))
    options = ("--data.root", other, "--trainer.accelerator=cpu", "--data.num_workers=0")
    refused = bldml("test", "--ckpt_path", bare, *options)
    assert refused.code == 1
    assert "0_No_BLD, 1_BLD" in refused.err
    assert "class_aliases" in refused.err
    assert not (bare.parent / "evaluations").exists()

    aliases = "--data.class_aliases={1_BLD: BLD, 0_No_BLD: No_BLD}"
    assert bldml("test", "--ckpt_path", bare, *options, aliases).code == 0
    rows = read_predictions(bare.parent / "evaluations" / "other_site" / "predictions.csv")
    assert len(rows) == 10
    assert {(row.path.split("/")[0], row.true_class) for row in rows} == {("1_BLD", "BLD"), ("0_No_BLD", "No_BLD")}
    metrics = json.loads((bare.parent / "evaluations/other_site/metrics.json").read_text())
    assert (metrics["n"], metrics["n_positive"]) == (10, 5)
    named = bldml("test", "--ckpt_path", bare, *options, aliases, "--name=ohio_2024", "--output", tmp_path / "out")
    assert named.code == 0
    assert (tmp_path / "out" / "metrics.json").read_text() == json.dumps(metrics, indent=2) + "\n"


def test_predict_finds_photographs_in_all_folders_below(run: Path, bare: Path, leaves: Path, bldml: Bldml) -> None:
    outcome = bldml("predict", "--ckpt_path", bare, "--data.root", leaves, "--trainer.accelerator=cpu")
    assert outcome.code == 0
    folder = bare.parent / "evaluations" / leaves.name
    assert {path.name for path in folder.iterdir()} == {"predictions.csv", "provenance.json"}
    rows = {row.path: row for row in read_predictions(folder / "predictions.csv")}
    assert len(rows) == 60
    assert {row.true_class for row in rows.values()} == {""}
    for split in ("val", "test"):
        for row in read_predictions(run / "evaluations" / split / "predictions.csv"):
            # Batches differ, and with them the last bits of bf16.
            assert rows[row.path].probability == pytest.approx(row.probability, abs=0.02)
            assert rows[row.path].predicted_class in ("BLD", "No_BLD")


def test_predict_does_not_overwrite_an_evaluation_with_labels(bare: Path, leaves: Path, bldml: Bldml) -> None:
    options = ("--ckpt_path", bare, "--data.root", leaves, "--trainer.accelerator=cpu", "--name=x")
    (bare.parent / "evaluations/x").mkdir(parents=True)
    (bare.parent / "evaluations/x/metrics.json").write_text("{}")
    outcome = bldml("predict", *options)
    assert outcome.code == 1
    assert "--name" in outcome.err


def test_unreadable_photographs_stop_or_are_listed(bare: Path, leaves: Path, tmp_path: Path, bldml: Bldml) -> None:
    folder = tmp_path / "field"
    shutil.copytree(leaves / "BLD", folder)
    cut = folder / "leaf_0003.jpg"
    cut.write_bytes(cut.read_bytes()[:-700])
    (folder / "leaf_0004.jpg").write_bytes(b"")
    options = ("--ckpt_path", bare, "--data.root", folder, "--trainer.accelerator=cpu")
    stopped = bldml("predict", *options)
    assert stopped.code == 1
    assert "2 of 30" in stopped.err
    assert "leaf_0003.jpg" in stopped.err
    assert "leaf_0004.jpg" in stopped.err
    assert not (bare.parent / "evaluations").exists()

    excluded = bldml("predict", *options, "--data.unreadable=exclude")
    assert excluded.code == 0
    assert "2 photographs could not be read and were left out" in excluded.err
    result = bare.parent / "evaluations" / "field"
    assert len(read_predictions(result / "predictions.csv")) == 28
    listed = (result / "excluded.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in listed] == ["path", "leaf_0003.jpg", "leaf_0004.jpg"]
    assert cut.stat().st_size > 0, "photographs are never changed or removed"


@pytest.mark.parametrize(
    ("names", "positive"),
    [(("0_No_BLD", "1_BLD"), "1_BLD"), (("No_BLD", "BLD"), "BLD"), (("asymptomatic", "BLD"), "BLD"), (("0", "1"), "1")],
)
def test_order_of_the_folders_never_changes_which_class_is_positive(
    names: tuple[str, str], positive: str, tmp_path: Path, bldml: Bldml
) -> None:
    """Neither in what the network is trained on nor in what is reported."""
    root = tmp_path / "data"
    write_leaves(root, images_per_class=16, size=96, seed=3, class_names=names)
    fit = bldml(
        "fit", *SMALL, "--data.root", root, f"--data.positive_class={positive}", "--run_name=r",
        "--trainer.max_epochs=1", "--data.augmentation=null",
    )  # fmt: skip
    assert fit.code == 0
    rows = read_predictions(Path("lightning_logs/r/evaluations/test/predictions.csv"))
    for row in rows:
        assert row.true_class == row.path.split("/")[0]
    metrics = json.loads(Path("lightning_logs/r/evaluations/test/metrics.json").read_text())
    assert metrics["n_positive"] == sum(row.true_class == positive for row in rows)
    state = torch.load("lightning_logs/r/checkpoints/last.ckpt", weights_only=True)
    assert state["bldml"]["positive_class"] == positive
    data = LeafDataModule(root, positive_class=positive, num_workers=0, image_size=64)
    data.read_for_fit()
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        for batch in loader:
            labels = [int(path.split("/")[0] == positive) for path in batch["path"]]
            assert batch["label"].tolist() == labels
