"""Photographs in two splits, and photographs of training in an external set, through the real command line."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bldml.app.photographs import read_phashes
from bldml.dataset.duplicates.phash import COEFFICIENT_BYTES
from bldml.dataset.synthetic.leaves import write_leaves
from bldml.run.folder import RunFolder
from tests.support import THREE_LAYERS, Bldml


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def leaky(split_leaves: Path, tmp_path: Path) -> Path:
    """A split folder in which validation has a copy and a small mirrored version of two training photographs."""
    root = tmp_path / "leaky"
    shutil.copytree(split_leaves, root)
    one, two = sorted((root / "train/BLD").iterdir())[:2]
    shutil.copy(one, root / "val/BLD/again.jpg")
    with Image.open(two) as image:
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).resize((80, 60)).save(root / "val/BLD/mirrored.png")
    return root


FIT = ("fit", *THREE_LAYERS, "--trainer.max_epochs=1", "--unfreezing.stages=0")


def test_a_fit_names_them_and_writes_them_down(leaky: Path, bldml: Bldml) -> None:
    for split, number in (("train", 2), ("val", 0)):
        sorted((leaky / split / "No_BLD").iterdir())[number].rename(
            leaky / split / f"No_BLD/oak_jpg.rf.{number:032}.jpg"
        )
    outcome = bldml(*FIT, f"--data.root={leaky}", "--run_name=r", "--report=true")
    assert outcome.code == 0
    assert "1 photograph (" in outcome.err
    assert "of val has an identical file in train" in outcome.err
    assert "of val has a near duplicate in train" in outcome.err
    rows = {(row["kind"], row["photograph"]): row for row in read(Path("lightning_logs/r/leaks.csv"))}
    source = f"val/No_BLD/oak_jpg.rf.{0:032}.jpg"
    assert set(rows) == {("exact", "val/BLD/again.jpg"), ("near", "val/BLD/mirrored.png"), ("source", source)}
    assert rows["source", source]["similarity"] == ""
    assert "of val has a file that is named as made from the same photograph in train" in outcome.err
    assert {row["partner_split"] for row in rows.values()} == {"train"}
    page = Path("lightning_logs/r/report.html").read_text()
    assert "The splits share photographs" in page
    assert "1 of val with a file that is named as made from the same photograph in train" in page
    assert "Duplicates and bursts across splits" not in page


def test_test_photographs_with_relatives_in_training_are_said_first(
    split_leaves: Path, tmp_path: Path, bldml: Bldml
) -> None:
    """On the screen and in the summary, with the metrics of the others beside those of all."""
    root = tmp_path / "related"
    shutil.copytree(split_leaves, root)
    for name in ("BLD", "No_BLD"):
        shutil.copy(min((root / "train" / name).iterdir()), root / "test" / name / "again.jpg")
    outcome = bldml(*FIT, f"--data.root={root}", "--run_name=r", "--report=true")
    assert outcome.code == 0
    run = Path("lightning_logs/r")
    rows = read(run / "evaluations/test/predictions.csv")
    sentence = (
        f"Caution: 2 of these {len(rows)} photographs have a relative among the training and validation photographs "
        "(the same file: 2), so the metrics may be optimistic."
    )
    others = [row for row in rows if "again" not in row["path"]]
    hits = [row["predicted_class"] == "BLD" for row in others if row["true_class"] == "BLD"]
    rest = f"Without them, on {len(others)} photographs: sensitivity {sum(hits) / len(hits):.3f} ["
    for text in (outcome.out, (run / "report.html").read_text().partition("Limits: performance")[0]):
        assert sentence in text
        assert rest in text
    page = (run / "report.html").read_text()
    assert "which was not used for training" not in page
    assert page.index(sentence) < page.index("This classifier takes one photograph")


def test_bursts_are_units_where_no_groups_were_given(tmp_path: Path, bldml: Bldml) -> None:
    """A flat folder of a camera's frames: after a fit and in a later test, whose part of a burst has gaps."""
    root = tmp_path / "flat"
    write_leaves(root, images_per_class=40, size=96, seed=3)
    for name in ("BLD", "No_BLD"):
        for number, path in enumerate(sorted((root / name).iterdir())):
            path.rename(path.with_name(f"IMG_{1000 + number // 8 * 100 + number % 8:04}.png"))
    options = ("--data.test_fraction=0.4", "--run_name=r", "--report=true")
    outcome = bldml(*FIT, f"--data.root={root}", *options)
    assert outcome.code == 0, outcome.err
    run = Path("lightning_logs/r")
    rows = read(run / "evaluations/test/predictions.csv")
    assert {row["burst"] for row in rows} == {
        min(row["path"] for row in read(run / "photographs.csv") if row["burst"] == burst)
        for burst in {row["burst"] for row in rows}
    }
    assert len({row["burst"] for row in rows}) < len(rows)
    document = json.loads((run / "evaluations/test/metrics.json").read_text())
    sensitivity = document["intervals"]["at_threshold"]["sensitivity"]
    bursts = {row["burst"] for row in rows if row["true_class"] == "BLD"}
    assert sensitivity["method"] == f"beta-binomial, {len(bursts)} units"
    assert sensitivity["unit"] == "burst"
    page = (run / "report.html").read_text()
    n = len({row["burst"] for row in rows})
    assert f"so the photographs of one burst count as one sampling unit ({n} bursts)." in page
    assert "each photograph counts as one sampling unit" not in page
    before = (run / "evaluations/test/predictions.csv").read_bytes()
    again = bldml("test", "--ckpt_path", run / "checkpoints/best.ckpt", "--trainer.accelerator=cpu", "--report=false")
    assert again.code == 0, again.err
    assert (run / "evaluations/test/predictions.csv").read_bytes() == before


def test_a_caution_is_of_the_evaluation_in_this_folder(run: Path, tmp_path: Path, bldml: Bldml) -> None:
    """Not of the run's own evaluation of that name, here that of the training split."""
    write_leaves(tmp_path / "site", images_per_class=3, size=96, seed=9)
    command = ("test", "--ckpt_path", run / "checkpoints/best.ckpt", f"--data.root={tmp_path / 'site'}")
    outcome = bldml(*command, "--output", tmp_path / "train", "--trainer.accelerator=cpu", "--report=false")
    assert outcome.code == 0, outcome.err
    assert "Caution" not in outcome.out


def test_it_can_stop_or_not_look(leaky: Path, bldml: Bldml) -> None:
    stopped = bldml(*FIT, f"--data.root={leaky}", "--run_name=r", "--data.on_leak=error")
    assert stopped.code == 1
    assert "val/BLD/mirrored.png" in stopped.err
    assert "bldml split" in stopped.err
    assert not Path("lightning_logs/r").exists()
    silent = bldml(*FIT, f"--data.root={leaky}", "--run_name=r", "--data.on_leak=off")
    assert silent.code == 0
    assert "near duplicate" not in silent.err
    assert not Path("lightning_logs/r/leaks.csv").exists()


def test_a_clean_division_has_an_empty_list(run: Path) -> None:
    assert read(run / "leaks.csv") == []
    assert "The search for leaks found no photograph" in (run / "report.html").read_text()


def test_photographs_of_training_in_an_external_set(run: Path, leaves: Path, tmp_path: Path, bldml: Bldml) -> None:
    own = tmp_path / "run"
    shutil.copytree(run, own)
    site = tmp_path / "site"
    shutil.copytree(leaves, site)
    trained = [row["path"] for row in read(run / "splits.csv") if row["split"] in ("train", "val")]
    for name in trained:
        if name != trained[0]:
            (site / name).unlink()
    with Image.open(leaves / trained[0]) as image:  # stored anew: other content, the same photograph
        image.rotate(90, expand=True).save(site / trained[0], quality=60)
    command = ("test", "--ckpt_path", own / "checkpoints/best.ckpt", f"--data.root={site}", "--report=true")
    outcome = bldml(*command, "--name=site")
    assert outcome.code == 0, outcome.err
    assert "1 of 7 photographs has a near duplicate in the training or validation split" in outcome.err
    assert trained[0] in outcome.err
    provenance = json.loads((own / "evaluations/site/provenance.json").read_text())
    assert provenance["near_training_photographs"] == 1
    assert (
        "has a relative among the training and validation photographs (a near duplicate: 1)"
        in (own / "report.html").read_text()
    )
    stopped = bldml(*command, "--name=other", "--data.on_leak=error")
    assert stopped.code == 1
    assert not (own / "evaluations/other").exists()
    phashes = RunFolder(own).phashes
    names, hashes = read_phashes(RunFolder(own)) or pytest.fail("no perceptual hashes")
    assert sorted(names) == sorted(trained)
    np.savez_compressed(own / "prints.npz", names=names, prints=hashes)  # as version 0.1 wrote it
    phashes.rename(own / "new")
    old_names, old_hashes = read_phashes(RunFolder(own)) or pytest.fail("no perceptual hashes of 0.1")
    assert old_names == names
    np.testing.assert_array_equal(old_hashes, hashes)
    # Hashes of version 1 have no details and are compared without them.
    np.savez_compressed(own / "prints.npz", names=names, prints=hashes[:, :COEFFICIENT_BYTES])
    outcome = bldml(*command, "--name=old", "--report=false")
    assert "1 of 7 photographs has a near duplicate in the training or validation split" in outcome.err
    (own / "new").rename(phashes)
    phashes.write_bytes(phashes.read_bytes()[:-100])
    unknown = bldml(*command, "--name=third", "--report=false")
    assert unknown.code == 0
    assert "were not searched" in unknown.err
    assert "phashes.npz is missing or damaged" in unknown.err


def test_the_same_photograph_in_two_classes(split_leaves: Path, tmp_path: Path, bldml: Bldml) -> None:
    """Both in one split, so that it is no leak."""
    root = tmp_path / "confused"
    shutil.copytree(split_leaves, root)
    one = min((root / "train/BLD").iterdir())
    shutil.copy(one, root / "train/No_BLD/oops.jpg")
    outcome = bldml(*FIT, f"--data.root={root}", "--run_name=r")
    assert outcome.code == 0
    assert f"train/BLD/{one.name} (BLD) and train/No_BLD/oops.jpg (No_BLD)" in outcome.err
    assert read(Path("lightning_logs/r/leaks.csv")) == []


def test_photographs_that_a_manifest_does_not_name(run: Path, leaves: Path, tmp_path: Path, bldml: Bldml) -> None:
    root = tmp_path / "grown"
    shutil.copytree(leaves, root)
    fit = (*FIT, f"--data.root={root}", "--data.manifest", run / "splits.csv")
    assert "not in the manifest" not in bldml(*fit, "--run_name=all").err
    (root / "BLD/new leaf.jpg").write_bytes(min((leaves / "BLD").iterdir()).read_bytes())
    outcome = bldml(*fit, "--run_name=one_more")
    assert outcome.code == 0
    assert "1 photograph below" in outcome.err
    assert "is not in the manifest and is not used, first BLD/new leaf.jpg" in outcome.err
