"""test, validate and predict from a bare checkpoint, through the real command line."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import ExifTags, Image

from bldml.dataset.synthetic.leaves import write_leaves
from bldml.run.photographs import photographs_text, read_photograph_table
from bldml.run.predictions import read_predictions
from bldml.training.data.datamodule import LeafDataModule
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
    for name in ("predictions.csv", "metrics.csv"):
        assert (folder / name).read_bytes() == (run / "evaluations" / split / name).read_bytes()
    here, there = (json.loads((one / "metrics.json").read_text()) for one in (folder, run / "evaluations" / split))
    # The training photographs, on which the baselines are fitted, are recorded in the run only.
    assert "baselines" in there
    assert here == {key: value for key, value in there.items() if key != "baselines"}
    assert "AUROC" in outcome.out
    assert str(folder) in outcome.out
    assert list(Path().iterdir()) == [], "nothing is written where the command was typed"


def test_checkpoint_in_its_run_folder_writes_there(run: Path, tmp_path: Path, bldml: Bldml) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    shutil.rmtree(copy / "evaluations")
    options = ("--trainer.accelerator=cpu", "--report=false")
    assert bldml("test", "--ckpt_path", copy / "checkpoints/best.ckpt", *options).code == 0
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


def test_external_set_in_a_run_says_how_it_differs(run: Path, tmp_path: Path, bldml: Bldml) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    other = tmp_path / "ohio"
    write_leaves(other, images_per_class=3, size=64, seed=9)
    shutil.rmtree(other / "BLD")
    (other / "BLD").mkdir()
    exif = Image.Exif()
    exif[ExifTags.Base.Model] = "=Camera"
    write_leaves(tmp_path / "more", images_per_class=1, size=64, seed=10)
    for file in (tmp_path / "more" / "BLD").iterdir():
        with Image.open(file) as picture:
            picture.save(other / "BLD" / "one.jpg", exif=exif)
    options = ("--data.root", other, "--trainer.accelerator=cpu", "--data.num_workers=0", "--report=false")
    outcome = bldml("test", "--ckpt_path", copy / "checkpoints/best.ckpt", *options)
    assert outcome.code == 0, outcome.err
    said = outcome.out + outcome.err
    assert "25 % (1 of 4) of these photographs are BLD; in training" in said
    assert "do not record the camera" in said
    rows = read_photograph_table(copy / "evaluations" / "ohio" / "photographs.csv")
    assert sorted((row.path, row.split, row.camera) for row in rows)[0] == ("BLD/one.jpg", "test", "=Camera")
    assert {row.taken for row in rows} == {""}


def test_how_many_are_dated_is_said_where_not_all_are(run: Path, tmp_path: Path, bldml: Bldml) -> None:
    copy, other = Path(shutil.copytree(run, tmp_path / "run")), tmp_path / "ohio"
    rows = read_photograph_table(copy / "photographs.csv")
    split = {name: [row for row in rows if row.split == name] for name in ("train", "val", "test")}
    train, val = (split["train"][:5], split["val"])
    dated = {row.path: "2024-06-01T12:00:00" for row in [*train, *val]}
    text = photographs_text([replace(row, taken=dated.get(row.path, "")) for row in rows])
    (copy / "photographs.csv").write_text(text)
    write_leaves(other, images_per_class=2, size=64, seed=9)
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = "2024:06:02 12:00:00"
    one = next((other / "BLD").iterdir())
    with Image.open(one) as picture:
        picture.save(one, exif=exif)
    options = ("--data.root", other, "--trainer.accelerator=cpu", "--data.num_workers=0")
    outcome = bldml("test", "--ckpt_path", copy / "checkpoints/best.ckpt", *options)
    assert outcome.code == 0, outcome.err
    said = (
        "They were taken from 2024-06-02 to 2024-06-02 (1 of 4 dated); the training photographs from 2024-06-01 to "
        f"2024-06-01 (5 of {len(split['train'])} dated): the periods do not overlap."
    )
    assert said in outcome.out + outcome.err
    page = (copy / "report.html").read_text()
    assert said in page
    assert (
        f"Dates: train from 2024-06-01 to 2024-06-01 (5 of {len(split['train'])} dated); val from "
        f"2024-06-01 to 2024-06-01; test at an unknown time (0 of {len(split['test'])} dated)." in page
    )


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
    assert "2 photographs could not be read and were excluded" in excluded.err
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


def test_photographs_of_the_training_are_refused_whatever_the_folder_is_called(
    bare: Path, run: Path, leaves: Path, tmp_path: Path, bldml: Bldml
) -> None:
    """The same folder by another spelling is the same; a copy of it is found out, and its test split can be had."""
    options = ("test", "--ckpt_path", bare, "--trainer.accelerator=cpu", "--data.num_workers=0", "--data.root")
    (tmp_path / "link").symlink_to(leaves)
    for spelling in (tmp_path / "link", leaves / "BLD" / ".."):
        assert bldml(*options, spelling).code == 0
        before = (run / "evaluations/test/predictions.csv").read_bytes()
        assert (bare.parent / "evaluations/test/predictions.csv").read_bytes() == before
    moved = shutil.copytree(leaves, tmp_path / "moved")
    refused = bldml(*options, moved)
    assert refused.code == 1
    assert "54 of 60 photographs are those of the training or validation split" in refused.err
    assert not (bare.parent / "evaluations/moved").exists()
    again = bldml(*options, moved, "--data.manifest", run / "splits.csv", "--name=moved")
    assert again.code == 0
    assert (bare.parent / "evaluations/moved/predictions.csv").read_bytes() == before


def test_another_division_of_the_same_photographs_is_refused(bare: Path, bldml: Bldml) -> None:
    outcome = bldml("test", "--ckpt_path", bare, "--data.test_fraction=0.6")
    assert outcome.code == 2
    assert (outcome.mistake, outcome.fields["key"]) == ("splits-differ", "test_fraction")


def test_every_photograph_is_evaluated_whatever_the_trainer_is_told(run: Path, bare: Path, bldml: Bldml) -> None:
    options = ("test", "--ckpt_path", bare, "--trainer.accelerator=cpu", "--data.num_workers=0")
    assert bldml(*options, "--trainer.devices=2", "--trainer.strategy=ddp").code == 0
    folder = bare.parent / "evaluations/test"
    whole = (folder / "predictions.csv").read_bytes()
    assert whole == (run / "evaluations/test/predictions.csv").read_bytes()
    for limit in ("--trainer.limit_test_batches=0", "--trainer.limit_test_batches=2", "--trainer.fast_dev_run=true"):
        outcome = bldml(*options, limit, "--data.batch_size=1")
        assert outcome.code == 1, limit
        assert "of 6 photographs were evaluated" in outcome.err, limit
    assert (folder / "predictions.csv").read_bytes() == whole


def test_evaluations_of_two_sites_do_not_overwrite_each_other(bare: Path, tmp_path: Path, bldml: Bldml) -> None:
    options = ("test", "--ckpt_path", bare, "--trainer.accelerator=cpu", "--data.num_workers=0", "--data.root")
    for seed, site in enumerate(("a", "b")):
        write_leaves(tmp_path / site / "photos", images_per_class=3, size=96, seed=100 + seed)
    assert bldml(*options, tmp_path / "a" / "photos").code == 0
    before = (bare.parent / "evaluations/photos/predictions.csv").read_bytes()
    refused = bldml(*options, tmp_path / "b" / "photos")
    assert refused.code == 1
    assert "another --name" in refused.err
    assert (bare.parent / "evaluations/photos/predictions.csv").read_bytes() == before
    assert bldml(*options, tmp_path / "b" / "photos", "--name=b").code == 0
    assert bldml(*options, tmp_path / "b" / "photos", "--name=test").mistake == "evaluation-name-reserved"


def test_predict_takes_a_folder_and_no_manifest(bare: Path, run: Path, leaves: Path, bldml: Bldml) -> None:
    for options in ((), ("--data.root", leaves, "--data.manifest", run / "splits.csv")):
        outcome = bldml("predict", "--ckpt_path", bare, *options)
        assert outcome.code == 2
        assert outcome.mistake == "data-root-not-given"
