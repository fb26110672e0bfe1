"""Bands of certainty and photographs unlike the training photographs, from a fit to the report."""

import csv
import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import bldml as package
from bldml.metrics.certainty.novelty import fit_novelty
from bldml.run.predictions import read_predictions
from bldml.training.checkpoint import KEY, NOVELTY, read_checkpoint
from tests.support import SMALL, THREE_LAYERS, Bldml

CPU = ("--trainer.accelerator=cpu", "--data.num_workers=0")


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def strange(tmp_path: Path, leaves: Path) -> Path:
    """Two leaves, and two photographs of noise."""
    folder = tmp_path / "strange"
    folder.mkdir()
    for name in ("leaf_0001.jpg", "leaf_0002.jpg"):
        shutil.copy(leaves / "BLD" / name, folder / name)
    for number in range(2):
        pixels = np.random.default_rng(number).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"noise_{number}.png")
    return folder


def test_the_best_checkpoint_has_both_and_the_last_one_none(run: Path) -> None:
    best, last = (read_checkpoint(run / "checkpoints" / f"{name}.ckpt") for name in ("best", "last"))
    assert (last.header.bands, last.novelty) == (None, None)
    assert best.header.bands is not None
    splits = Counter((row["split"], row["label"]) for row in rows(run / "splits.csv"))
    bands = best.header.bands
    assert (bands.n_positive, bands.n_negative) == (splits["val", "BLD"], splits["val", "No_BLD"])
    assert bands.low is None, "too few photographs for an error of 0.05"
    assert best.novelty is not None
    assert best.novelty.n_train == splits["train", "BLD"] + splits["train", "No_BLD"]
    assert best.novelty.rate == pytest.approx(1 / (splits["val", "BLD"] + splits["val", "No_BLD"] + 1))


def test_the_distribution_is_that_of_the_training_photographs(run: Path, leaves: Path) -> None:
    """Features computed one photograph at a time, from the network's own layers."""
    leaf = package.load(run, "cpu")
    features: dict[str, list[np.ndarray]] = {"train": [], "val": []}
    for row in rows(run / "splits.csv"):
        if row["split"] in features:
            image = leaf.network.normalization(leaf.image(leaves / row["path"])[None])
            with torch.inference_mode():
                maps = leaf.network.network.features(image)  # type: ignore[operator]
            features[row["split"]].append(maps.mean(dim=(2, 3)).numpy()[0])
    train, val = (np.stack(found) for found in features.values())
    ours, stored = fit_novelty(train, val, np.arange(len(val))), leaf.novelty
    assert ours is not None
    assert stored is not None
    assert stored.distances(val) == pytest.approx(ours.distances(val), rel=1e-2)
    predictions = read_predictions(run / "evaluations" / "val" / "predictions.csv")
    recorded = [row.distance for row in predictions if row.distance is not None]
    assert max(recorded) == pytest.approx(1), "the limit is one of them"
    assert sorted(recorded) == pytest.approx(sorted(ours.distances(val)), rel=1e-2)


def test_predict_explain_and_python_tell_what_is_no_leaf(run: Path, strange: Path, bldml: Bldml) -> None:
    outcome = bldml("predict", run, strange, *CPU, "--output=out")
    assert outcome.code == 0, outcome.err
    table = {row["path"]: row for row in rows(Path("out/predictions.csv"))}
    assert {name: row["familiar"] for name, row in table.items() if "noise" in name} == {
        "noise_0.png": "no",
        "noise_1.png": "no",
    }
    n = sum(row["familiar"] == "no" for row in table.values())
    assert f"{n} photographs are not like those that the classifier learned from" in outcome.out
    assert "Not recorded" not in outcome.out
    verdicts = package.load(run, "cpu").predict_folder(strange)
    for name, distance, is_familiar in zip(verdicts.path, verdicts.distance, verdicts.is_familiar, strict=True):
        assert distance == pytest.approx(float(table[name]["distance"]), rel=1e-3)
        assert is_familiar == (distance <= 1)
    outcome = bldml("explain", run, strange, "--output=cams", "--device=cpu")
    assert outcome.code == 0, outcome.err
    assert f"{n} photographs are not like those" in outcome.err + outcome.out
    for row in rows(Path("cams/explanations.csv")):
        assert float(row["distance"]) == pytest.approx(float(table[row["path"]]["distance"]), rel=1e-3)
        assert row["familiar"] == table[row["path"]]["familiar"]


def test_one_strange_photograph_is_said(run: Path, strange: Path, bldml: Bldml) -> None:
    outcome = bldml("predict", run, strange / "noise_0.png", *CPU, "--output=out")
    assert "1 photograph is not like those that the classifier learned from, so nothing is known of its" in outcome.out


def test_a_checkpoint_without_them_says_that_they_are_not_recorded(run: Path, strange: Path, bldml: Bldml) -> None:
    outcome = bldml("predict", run / "checkpoints" / "last.ckpt", strange, *CPU, "--output=out")
    assert outcome.code == 0, outcome.err
    assert "Not recorded in this checkpoint: bands of certainty and what the photographs are like" in outcome.out
    assert not {"distance", "familiar", "band"} & set(rows(Path("out/predictions.csv"))[0])
    verdict = package.load(run / "checkpoints" / "last.ckpt", "cpu").predict(strange / "noise_0.png")
    assert (verdict.band, verdict.distance, verdict.is_familiar) == (None, None, None)


def test_a_set_of_other_photographs_is_said_in_the_report(run: Path, tmp_path: Path, bldml: Bldml) -> None:
    copy = shutil.copytree(run, tmp_path / "copy")
    other = tmp_path / "noise"
    for label in ("BLD", "No_BLD"):
        (other / label).mkdir(parents=True)
        for number in range(8):
            pixels = np.random.default_rng(number).integers(0, 256, (64, 64, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(other / label / f"{label}_{number}.png")
    outcome = bldml("test", copy, other, *CPU, "--data.on_leak=warn", "--report=true")
    assert outcome.code == 0, outcome.err
    assert "noise: 16 of 16 photographs are not like those that the classifier learned from" in outcome.out
    page = (copy / "report.html").read_text(encoding="utf-8")
    assert "Far more photographs than expected are not like those that the classifier learned from." in page
    assert "There are no bands of certainty: an error of 0.05 needs 19 sampling units of each class" in page
    (line,) = rows(copy / "tables" / "noise" / "certainty.csv")
    assert (line["proportion"], line["hits"], line["n"]) == ("unlike", "16", "16")


def test_bands_from_the_fit_to_the_report(leaves: Path, bldml: Bldml) -> None:
    options = ("--run_name=banded", "--trainer.max_epochs=1", "--operating_point.band_error=0.3", "--report=true")
    outcome = bldml("fit", *SMALL, f"--data.root={leaves}", *options)
    assert outcome.code == 0, outcome.err
    run = Path("lightning_logs/banded")
    bands = read_checkpoint(run / "checkpoints" / "best.ckpt").header.bands
    assert bands is not None
    assert bands.low is not None
    assert bands.high is not None
    assert "val: Bands: negative below" in outcome.out
    found = read_predictions(run / "evaluations" / "val" / "predictions.csv")
    positive = [row for row in found if row.true_class == "BLD"]
    # Of n photographs of a class, 0.3 (n + 1) - 1 may have the other band.
    assert sum(row.band == "negative" for row in positive) <= 0.3 * (len(positive) + 1) - 1
    assert {row.band for row in found} <= {"positive", "uncertain", "negative"}
    assert all(row.band != "positive" or row.predicted_class == "BLD" for row in found)
    tests = read_predictions(run / "evaluations" / "test" / "predictions.csv")
    table = {row["proportion"]: row for row in rows(run / "tables" / "test" / "certainty.csv")}
    assert int(table["uncertain"]["hits"]) == sum(row.band == "uncertain" for row in tests)
    assert int(table["error"]["hits"]) == sum(row.is_error for row in tests if row.band != "uncertain")
    assert int(table["error"]["n"]) == sum(row.band != "uncertain" for row in tests)
    missed = [row for row in tests if row.true_class == "BLD"]
    assert int(table["positive_as_negative"]["hits"]) == sum(row.band == "negative" for row in missed)
    assert int(table["positive_as_negative"]["n"]) == len(missed)
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "On average, at most 0.3 of new leaves of a class get the band of the other." in page
    outcome = bldml("predict", run, leaves / "BLD", *CPU, "--output=out")
    counts = Counter(row.band for row in read_predictions(Path("out/predictions.csv")))
    said = ", ".join(f"{counts[name]} {name}" for name in ("positive", "uncertain", "negative"))
    assert f"Bands: {said} (negative below" in outcome.out
    verdict = package.load(run, "cpu").predict(sorted((leaves / "BLD").iterdir())[0])
    assert verdict.band == bands.band(verdict.probability)
    # A table that was changed by hand is refused.
    file = run / "evaluations" / "test" / "predictions.csv"
    other = "positive" if tests[0].band != "positive" else "negative"
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    lines[1] = lines[1].replace(tests[0].band, other)
    file.write_text("".join(lines), encoding="utf-8")
    refused = bldml("report", run)
    assert refused.error is not None
    assert refused.error.code == "prediction-contradicts-bands"


def test_without_bands_or_a_distribution_a_fit_still_ends(tmp_path: Path, bldml: Bldml) -> None:
    """Photographs that are all alike have no distribution."""
    root = tmp_path / "alike"
    for label in ("BLD", "No_BLD"):
        (root / label).mkdir(parents=True)
        for number in range(24):
            image = Image.new("RGB", (40, 40), (90, 120, 60))
            image.putpixel((39, 39), (90, 120, 61 + number))
            image.save(root / label / f"{label}_{number}.png")
    options = ("--run_name=alike", "--trainer.max_epochs=1", "--operating_point.band_error=null", "--data.on_leak=off")
    outcome = bldml("fit", *THREE_LAYERS, f"--data.root={root}", *options, "--model.image_size=32")
    assert outcome.code == 0, outcome.err
    assert read_checkpoint(Path("lightning_logs/alike/checkpoints/best.ckpt")).header.bands is None
    metrics = json.loads(Path("lightning_logs/alike/evaluations/val/metrics.json").read_text(encoding="utf-8"))
    assert "bands" not in metrics


def test_the_rest_of_the_checkpoint_is_as_the_fit_wrote_it(run: Path) -> None:
    content = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    last = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert {*content} ^ {*last} == {NOVELTY, "bldml_resume"}
    assert content[KEY].keys() == last[KEY].keys()
