"""Reports of run folders that the tests write, recomputed with other libraries; one of a real run."""

import base64
import csv
import hashlib
import itertools
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from scipy import special
from scipy.stats import norm
from sklearn import metrics as oracle
from statsmodels.stats.proportion import proportion_confint

from bldml.figures import style
from bldml.metrics.assessment import evaluate
from bldml.metrics.operating_point import OperatingPoint
from bldml.metrics.proportions import proportion_by_unit
from bldml.metrics.registry import METRICS
from bldml.report import page as report
from bldml.report.page import write_report
from bldml.run.card import TITLES
from bldml.run.folder import RunFolder
from bldml.run.gallery import FOLDER, TABLE, choose_photographs, gallery_text
from bldml.run.ledger import LedgerEntry, append_entry
from bldml.run.photographs import PhotographRow, photographs_text
from bldml.run.predictions import Prediction, read_predictions, write_metrics, write_predictions
from tests.oracles import TOLERANCES, second_opinion
from tests.report.pages import Page, read
from tests.support import REPOSITORY, Bldml, mistake

CONFIG = """\
model: {backbone: resnet50, weights: imagenet, image_size: null, lr: 0.001}
data: {root: leaves, manifest: null, positive_class: BLD, val_fraction: 0.2, test_fraction: 0.2, batch_size: 16}
monitor: val_loss
operating_point: {maximize: f1, sensitivity: null, specificity: null, threshold: null}
card: {intended_use: "Screening.\\nNever alone.", contact: null}
"""
THRESHOLD = 0.4


def rows_of(
    n: int, seed: int, *, errors: bool = True, groups: int = 0, classes: tuple[str, str] = ("No_BLD", "BLD")
) -> list[Prediction]:
    generator = np.random.default_rng(seed)
    rows = []
    for index in range(n):
        truth = index % 2
        low, high = (0.0, 0.75) if errors else (0.0, 0.35)
        probability = float(generator.uniform(low, high))
        probability = 1 - probability * 0.9 if truth else probability
        group = f"tree {index % groups}" if groups else ""
        called = classes[probability >= THRESHOLD]
        rows.append(Prediction(f"{classes[truth]}/leaf_{index:05}.jpg", group, classes[truth], called, probability))
    return rows


def write_evaluation(
    run: Path,
    name: str,
    rows: Sequence[Prediction],
    positive: str = "BLD",
    threshold: float = THRESHOLD,
    temperature: float = 1.5,
) -> None:
    folder = RunFolder(run).evaluation(name)
    write_predictions(folder / "predictions.csv", rows)
    labels = [row.true_class == positive for row in rows]
    point = OperatingPoint(threshold, temperature)
    write_metrics(folder, evaluate(labels, [row.probability for row in rows], point))
    provenance = {
        "schema": 1,
        "role": {"train": "training", "val": "validation", "test": "test"}.get(name, "external"),
        "created": "2026-05-01T10:00:00+00:00",
        "command": ["x", "test", "--name", name],
        "epoch": 2,
        "dataset_fingerprint": hashlib.sha256(name.encode()).hexdigest(),
    }
    (folder / "provenance.json").write_text(json.dumps(provenance))


def write_run(
    folder: Path, evaluations: dict[str, list[Prediction]], config: str = CONFIG, positive: str = "BLD"
) -> RunFolder:
    folder.mkdir(parents=True)
    run = RunFolder(folder)
    run.config.write_text(config, encoding="utf-8")
    fingerprints = {"train": "aa" * 32, "val": "bb" * 32, "test": "cc" * 32}
    run.environment.write_text(
        json.dumps(
            {
                "created": "2026-05-01T09:00:00+00:00",
                "versions": {"bldml": "0.1.0", "torch": "2.10"},
                "seed": 7,
                "command": ["x", "fit", "--config", "my config.yaml"],
                "gpu": None,
                "dataset_fingerprint": fingerprints,
            }
        )
    )
    run.history.write_text(
        "epoch,step,train_loss,val_loss,val_auroc,train_auroc,train_recall,trainable_share\n"
        "0,9,0.7,0.6,0.7,0.8,0.75,0.01\n1,18,0.5,,0.8,0.85,0.8,0.01\n2,27,0.4,0.5,0.9,0.875,0.8125,0.4\n"
    )
    with run.splits.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "split", "group"])
        names = sorted({row.true_class for rows in evaluations.values() for row in rows} | {positive})
        writer.writerows([f"{name}/t{i}.jpg", name, "train", ""] for name in names for i in range(30))
        for split in ("val", "test"):
            writer.writerows([row.path, row.true_class, split, row.group] for row in evaluations.get(split, []))
    for name, rows in evaluations.items():
        write_evaluation(folder, name, rows, positive)
    return run


def write_photographs(run: RunFolder) -> None:
    """What the files of photographs say: the test was taken a year later, another site's with another camera."""
    rows = [
        PhotographRow(r["path"], r["split"], r["label"], r["group"], 4000, 3000, f"Phone {r['label']}", taken)
        for r in read(run.splits)
        for taken in ["2025-06-01T12:00:00" if r["split"] == "test" else "2024-06-01T12:00:00"]
    ]
    (run.path / "photographs.csv").write_text(photographs_text(rows))
    other = [
        PhotographRow(f"{i}.jpg", "test", ("BLD", "No_BLD")[i >= 10], "", 4000, 2000, "Camera", "") for i in range(50)
    ]
    (run.evaluation("ohio_2024") / "photographs.csv").write_text(photographs_text(other))


def write_gallery(run: RunFolder, name: str, content: bytes) -> list[tuple[str, Prediction]]:
    folder = run.evaluation(name) / FOLDER
    folder.mkdir()
    chosen = choose_photographs(read_predictions(run.evaluation(name) / "predictions.csv"), THRESHOLD)
    lines = []
    for index, (kind, row) in enumerate(chosen):
        names = (f"{index}.jpg", f"{index}_cam.jpg")
        for file in names:
            (folder / file).write_bytes(b"\xff\xd8\xff" + file.encode() + content)
        lines.append((kind, row, *names))
    (folder / TABLE).write_text(gallery_text(lines))
    return [(kind, row) for kind, row, *_ in lines]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No files of figures: for tests of other things."""
    monkeypatch.setattr(style, "save", lambda *_: None)


@pytest.fixture
def bare(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without figures, which take most of the time."""
    monkeypatch.setattr(report, "evaluation_figures", lambda *_: [])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, shipped_figures: tuple[int, object]) -> RunFolder:
    """A run with everything, reported once."""
    sets = {"val": rows_of(60, 1), "test": rows_of(80, 2, groups=20), "ohio_2024": rows_of(50, 3)}
    run = write_run(tmp_path_factory.mktemp("logs") / "whole", sets)
    write_photographs(run)
    write_gallery(run, "test", b"x" * 50)
    for number in range(3):
        append_entry(
            run, LedgerEntry(f"2026-05-0{number + 1}T00:00:00+00:00", "test", "test", "cc" * 32, 80, "best.ckpt")
        )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(style, "DPI", 40)
        patch.setattr(style, "FORMATS", shipped_figures[1])
        write_report(run)
    return run


@pytest.fixture(scope="module")
def page(whole: RunFolder) -> Page:
    return Page(whole.path / "report.html")


@pytest.mark.parametrize("name", ["test", "val", "ohio_2024"])
def test_every_number_again_by_other_libraries(whole: RunFolder, name: str) -> None:
    rows = read_predictions(whole.evaluation(name) / "predictions.csv")
    truth = np.array([row.true_class == "BLD" for row in rows])
    probability = np.array([row.probability for row in rows])
    table = {(row["metric"], row["at"]): row for row in read(whole.path / "tables" / name / "scores.csv")}
    for point, threshold in (("operating point", THRESHOLD), ("0.5", 0.5)):
        call = probability >= threshold
        tn, fp, fn, tp = oracle.confusion_matrix(truth, call).ravel()
        for score in (name for name, one in METRICS.items() if one.needs_threshold):
            row, value = table[score, point], second_opinion(score, truth, probability, threshold)
            assert float(row["value"]) == pytest.approx(value, abs=1e-6), score
            assert float(row["low"]) <= value <= float(row["high"])
            assert row["method"]
        for score, k, n in (("sensitivity", tp, tp + fn), ("specificity", tn, tn + fp), ("ppv", tp, tp + fp)):
            if name == "test":
                assert table[score, point]["method"].startswith(("beta-binomial, 10 units", "band from both limits"))
                continue
            low, high = proportion_confint(k, n, method="wilson")
            assert float(table[score, point]["low"]) == pytest.approx(low, abs=1e-6)
            assert float(table[score, point]["high"]) == pytest.approx(high, abs=1e-6)
    overall = {row["metric"]: row for row in read(whole.path / "tables" / name / "overall.csv")}
    without = special.expit(1.5 * special.logit(probability))  # the temperature is 1.5
    found = float(overall.pop("loss_uncalibrated")["value"])
    assert found == pytest.approx(oracle.log_loss(truth, without), abs=1e-6)
    assert overall.keys() == {name for name, one in METRICS.items() if not one.needs_threshold}
    for score, row in overall.items():
        value = second_opinion(score, truth, probability)
        assert float(row["value"]) == pytest.approx(value, abs=TOLERANCES.get(score, 1e-6)), score
        assert row["method"]
        assert not row["low"] or float(row["low"]) < value < float(row["high"])


def test_predictive_values_by_bayes_rule(whole: RunFolder) -> None:
    scores = {row["metric"]: float(row["value"]) for row in read(whole.path / "tables/val/scores.csv")[::2]}
    found = read(whole.path / "tables" / "val" / "predictive_values.csv")
    assert [float(row["prevalence"]) for row in found[::2]] == [0.01, 0.05, 0.1, 0.3]
    for row in found:
        share, hit, right = float(row["prevalence"]), scores["sensitivity"], scores["specificity"]
        yes, no = hit * share, right * (1 - share)
        value = yes / (yes + (1 - right) * (1 - share)) if row["metric"] == "ppv" else no / (no + (1 - hit) * share)
        assert float(row["value"]) == pytest.approx(value, abs=1e-9)
        assert float(row["low"]) < value < float(row["high"])


def test_the_page_says_what_the_tables_say(whole: RunFolder, page: Page) -> None:
    for name in ("test", "val", "ohio_2024"):
        for row in read(whole.path / "tables" / name / "scores.csv"):
            value = f"{float(row['value']):.3f}".replace("-", "−")
            limits = f"[{float(row['low']):.3f}, {float(row['high']):.3f}]".replace("-", "−")
            assert re.search(rf"{re.escape(value)}\s*\w*\s*(\d+/\d+)?\s*{re.escape(limits)}", page.words), row
    sensitivity = read(whole.path / "tables" / "test" / "scores.csv")[0]
    assert f"(sensitivity {100 * float(sensitivity['value']):.1f} %, 95 % interval " in page.words
    assert page.source.count('<dd><strong class="missing">Not stated</strong></dd>') == len(TITLES) - 1
    assert "Screening.\nNever alone." in page.text
    for text in (
        "BLD or No_BLD? Report on a photograph classifier (resnet50)",
        "run whole",
        "2026-05-01T09:00:00+00:00",
        "bldml 0.1.0",
        "the 80 photographs of the test split, it detected",
        "Results: ohio_2024",
        "External set: none of its photographs belongs to this run.",
        "20 % (10 of 50) of these photographs are BLD; in training 50 % (30 of 60)."
        " Their median size is 8.0 megapixels; in training 12.0.",
        "The test photographs are all later than the training photographs.",
        "python -m bldml fit --config 'my config.yaml'",
        "Layers unfrozen at epoch 2",
        "Best epoch (counted from 0) 2",
    ):
        assert text in page.words, text


def test_the_first_table_has_test_and_other_sets_and_natural_frequencies(whole: RunFolder, page: Page) -> None:
    found = read(whole.path / "tables" / "run" / "headline.csv")
    assert list(dict.fromkeys(row["set"] for row in found)) == ["test", "ohio_2024"], "validation is no evidence"
    rates = {(row["set"], row["metric"]): row for row in found}
    for name in ("test", "ohio_2024"):
        tables = [read(whole.path / "tables" / name / f"{part}.csv") for part in ("scores", "overall")]
        scores = {row["metric"]: row for table in tables for row in table if row.get("at", "") != "0.5"}
        for score in ("sensitivity", "specificity", "auroc"):
            assert {key: rates[name, score][key] for key in ("value", "low", "high", "method")} == {
                key: scores[score][key] for key in ("value", "low", "high", "method")
            }
        sensitivity, specificity = (float(scores[score]["value"]) for score in ("sensitivity", "specificity"))
        for row in read(whole.path / "tables" / name / "predictive_values.csv")[::2]:
            prevalence = float(row["prevalence"])
            assert rates[name, f"ppv_at_{prevalence:g}"]["value"] == row["value"]
            sick = round(1000 * prevalence)
            hits, alarms = round(sick * sensitivity), round((1000 - sick) * (1 - specificity))
            assert f"{hits} found, {sick - hits} missed, {alarms} false alarm" in page.words
    table = page.words[: page.words.index("ROC curve")]
    assert re.search(r"Set test ohio_2024 \(external\) Photographs 80\s*40 BLD from 20 groups 50\s*25 BLD Sens", table)
    assert "The prevalence in the field is not stated (card.prevalence), so several are shown." in table
    assert page.words.index("Of 1,000 leaves") < page.words.index("Results: test")


@pytest.mark.parametrize(("prevalence", "leaves"), [(0.02, 1000), (0.0005, 100_000)])
def test_what_to_expect_at_the_prevalence_that_the_card_states(
    prevalence: float, leaves: int, tmp_path: Path, bare: None
) -> None:
    run = write_run(tmp_path / "run", {"test": rows_of(80, 2)})
    run.config.write_text(run.config.read_text().replace("contact: null", f"prevalence: {prevalence}"))
    page = Page(write_report(run))
    rates = {row["metric"]: float(row["value"]) for row in read(run.path / "tables/run/headline.csv")}
    sensitivity, specificity = rates["sensitivity"], rates["specificity"]
    true, false = prevalence * sensitivity, (1 - prevalence) * (1 - specificity)
    assert rates[f"ppv_at_{prevalence:g}"] == pytest.approx(true / (true + false))
    sick = round(leaves * prevalence)
    hits, alarms = round(sick * sensitivity), round((leaves - sick) * (1 - specificity))
    assert f"Of {leaves:,} leaves, {sick} BLD" in page.words
    assert f"{hits} found, {sick - hits} missed, {alarms:,} false alarms" in page.words
    assert page.words.count(f"Of {leaves:,} leaves") == 1
    assert "The prevalence is stated in the card." in page.words
    assert "is not stated (card.prevalence)" not in page.words


def test_what_is_wrong_comes_first(tmp_path: Path, bare: None) -> None:
    sets = {"val": rows_of(40, 1, groups=8), "test": rows_of(40, 2, groups=10)}
    run = write_run(tmp_path / "run", sets)
    run.leaks.write_text("kind,split,photograph,partner_split,partner\nnear,test,BLD/leaf_00001.jpg,val,x.jpg\n")
    page = Page(write_report(run))
    first = page.words[: page.words.index("Sensitivity")]
    parts = (
        "test: Caution: ",
        "The splits have photographs that seem to be related",
        "8 of 10 groups (tree, site, burst) have photographs in more than one split",
    )
    assert [first.index(part) for part in parts] == sorted(first.index(part) for part in parts)
    assert "not shown that" not in first, "no metadata, no baselines"


def test_more_sets_than_columns(tmp_path: Path, bare: None) -> None:
    run = write_run(tmp_path / "run", {"test": rows_of(20, 1)} | {f"site_{n}": rows_of(20, n) for n in range(5)})
    page = Page(write_report(run))
    assert "2 more sets: see All sets compared." in page.words
    assert len({row["set"] for row in read(run.path / "tables/run/headline.csv")}) == 6


def test_sets_side_by_side(whole: RunFolder) -> None:
    found = {(row["set"], row["metric"]): row for row in read(whole.path / "tables" / "run" / "sets.csv")}
    assert {name for name, _ in found} == {"train", "val", "test", "ohio_2024"}
    assert float(found["train", "auroc"]["value"]) == 0.875  # of the best epoch, in history.csv
    assert float(found["train", "sensitivity"]["value"]) == 0.8125
    for name in ("val", "test", "ohio_2024"):
        scores = {row["metric"]: row for row in read(whole.path / "tables" / name / "scores.csv")[::2]}
        assert found[name, "sensitivity"]["value"] == scores["sensitivity"]["value"]


def test_cameras_by_class_and_split(whole: RunFolder) -> None:
    rows = {row["Camera"]: row for row in read(whole.path / "tables" / "run" / "cameras.csv")}
    assert {name: (row["train, BLD"], row["train, No_BLD"], row["test, No_BLD"]) for name, row in rows.items()} == {
        "Phone BLD": ("30", "0", "0"),
        "Phone No_BLD": ("0", "30", "40"),
    }


def test_the_training_split_is_shown_beside_the_others_alone(tmp_path: Path, bare: None) -> None:
    sets = {"val": rows_of(40, 1), "test": rows_of(40, 2), "train": rows_of(60, 3)}
    run = write_run(tmp_path / "run", sets)
    page = Page(write_report(run))
    found = {(row["set"], row["metric"]): row for row in read(run.path / "tables" / "run" / "sets.csv")}
    right = sum(row.true_class == row.predicted_class for row in sets["train"])
    assert float(found["train", "accuracy"]["value"]) == pytest.approx(right / 60)
    assert "Results: train" not in page.words
    assert "during the best epoch" not in page.words


def test_photographs_are_counted(whole: RunFolder, page: Page) -> None:
    rows = {row["Set"]: row for row in read(whole.path / "tables" / "run" / "photographs.csv")}
    assert (rows["train"]["BLD"], rows["train"]["No_BLD"], rows["train"]["All"]) == ("30", "30", "60")
    assert (rows["test"]["All"], rows["test"]["Groups"], rows["val"]["Groups"]) == ("80", "20", "not known")
    assert rows["test"]["Dataset digest (SHA-256)"] == "cc" * 32
    assert rows["ohio_2024 (external)"]["All"] == "50"
    assert (
        "No group (tree, site, burst) has photographs in two splits (20 groups). 120 photographs have no group."
        in page.words
    )


def test_operating_point_with_the_interval_of_its_choice(whole: RunFolder, page: Page) -> None:
    rows = {row["Item"]: row["Value"] for row in read(whole.path / "tables" / "run" / "operating_point.csv")}
    assert rows["Threshold criterion"] == "highest F1"
    assert rows["Decision threshold (lowest probability that is predicted positive)"] == "0.400"
    assert rows["Validation photographs used to choose it"] == "60 (30 positive)"
    predictions = read_predictions(whole.evaluation("val") / "predictions.csv")
    truth = np.array([row.true_class == "BLD" for row in predictions])
    probability = np.array([row.probability for row in predictions])

    def best(index: np.ndarray) -> float:
        """By trying the middle of every step, and of equally good ones the nearest to a half."""
        steps = np.unique(np.concatenate([probability[index], [0.0]]))
        middles = (steps[1:] + steps[:-1]) / 2
        called = probability[index] >= middles[:, None]
        f1 = 2 * (called & truth[index]).sum(1) / (called.sum(1) + truth[index].sum())
        return float(middles[np.lexsort([np.abs(middles - 0.5), -f1.round(12)])[0]])

    generator = np.random.default_rng(5)
    classes = [np.flatnonzero(truth == value) for value in (False, True)]
    draws = [best(np.concatenate([generator.choice(indices, 30) for indices in classes])) for _ in range(2000)]
    low, high = map(float, rows["95 % interval of the chosen threshold"].strip("[]").split(", "))
    assert low == pytest.approx(np.quantile(draws, 0.025), abs=0.02)
    assert high == pytest.approx(np.quantile(draws, 0.975), abs=0.02)
    assert f"the threshold would be {best(np.arange(60)):.3f}" in page.words  # the test's own was not chosen so
    assert "bootstrap, 60 photographs" in page.words


def test_groups_are_listed_and_small_ones_are_grey(whole: RunFolder, page: Page) -> None:
    found = read(whole.path / "tables" / "test" / "groups.csv")
    assert len(found) == 20
    assert sum(int(row["n"]) for row in found) == 80
    predictions = read_predictions(whole.evaluation("test") / "predictions.csv")
    for row in found:
        of_group = [one for one in predictions if one.group == row["group"]]
        right = sum(one.true_class == one.predicted_class for one in of_group)
        assert float(row["value"]) == right / len(of_group)
        low, high = proportion_confint(right, len(of_group), method="wilson")
        assert (float(row["low"]), float(row["high"])) == pytest.approx((low, high), abs=1e-6)
        assert int(row["missed"]) + int(row["false_alarms"]) == len(of_group) - right
    assert len([a for a in page.all("th") if a.get("class") == "faint"]) == 20  # four photographs each
    assert "jackknife, 20 units" in page.words


def test_what_the_number_of_photographs_can_show(page: Page) -> None:
    z2 = norm.ppf(0.975) ** 2
    text = "even a classifier without errors only has a proven sensitivity of at least"
    assert f"With 30 positives, {text} {30 / (30 + z2):.3f}" in page.words
    # Of twenty groups, ten are of positives: each group is of one class.
    units = proportion_by_unit(np.ones(40), np.repeat(np.arange(10), 4)).interval
    assert units is not None
    at_best = f"With 40 positives from 10 sampling units, {text} {units.low:.3f} (lower 95 % limit, beta-binomial)"
    assert at_best in page.words


def test_gallery_shows_the_right_pictures_in_order(whole: RunFolder, page: Page) -> None:
    chosen = choose_photographs(read_predictions(whole.evaluation("test") / "predictions.csv"), THRESHOLD)
    pictures = page.all("img")
    assert len(pictures) == 2 * len(chosen) > 40
    for index, (_, row) in enumerate(chosen):
        for picture, name in zip(
            pictures[2 * index : 2 * index + 2], (f"{index}.jpg", f"{index}_cam.jpg"), strict=True
        ):
            kind, _, content = str(picture["src"]).partition(",")
            assert kind == "data:image/jpeg;base64"
            assert base64.b64decode(content) == b"\xff\xd8\xff" + name.encode() + b"x" * 50
            assert row.path in str(picture["alt"])
    errors = [row for kind, row in chosen if kind == "error"]
    assert f"Errors, most certain first ({len(errors)})" in page.words
    assert f"{len(errors)} photographs were misclassified at the operating point. Left: the photograph" in page.words


def test_earlier_evaluations_are_counted(whole: RunFolder, page: Page) -> None:
    (row,) = read(whole.path / "tables" / "run" / "ledger.csv")
    assert (row["Evaluation"], row["Times evaluated"]) == ("test", "3")
    assert "0 other runs in the same folder use the same validation photographs" in page.words


def test_captions_say_what_the_bands_are(page: Page) -> None:
    by_unit = "Band: pointwise 95 % intervals, from 20 units, of the"
    assert f"{by_unit} sensitivity at each false-positive rate, not for the whole curve at once." in page.words
    assert f"{by_unit} precision at each recall, for this proportion of positives, not" in page.words
    assert "Band: pointwise 95 % intervals, from 60 photographs, of the" in page.words


def test_figures_and_tables_lie_beside_it(whole: RunFolder) -> None:
    names = ("calibration", "confusion", "precision_recall", "predictive_values", "probabilities", "roc")
    places = [f"{part}/{name}" for part in ("test", "val", "ohio_2024") for name in (*names, "decision_curve")]
    places += ["test/subgroups", "val/subgroups"]  # of two cameras
    places += [
        "run/learning_loss",
        "run/learning_auroc",
    ]
    found = {str(path.relative_to(whole.path / "figures")) for path in whole.path.glob("figures/*/*")}
    assert found == {f"{place}.{suffix}" for place in places for suffix in ("png", "pdf", "svg")}
    tables = {path.relative_to(whole.path / "tables").with_suffix("") for path in whole.path.glob("tables/*/*")}
    for table in tables:
        text = (whole.path / "tables" / table).with_suffix(".tex").read_text()
        assert text.startswith(r"\begin{table}")
        assert read((whole.path / "tables" / table).with_suffix(".csv"))


def test_how_to_cite_is_that_of_the_citation_file(page: Page) -> None:
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))
    (paper,) = citation["references"]
    authors = " and ".join(f"{one['family-names']}, {one['given-names']}" for one in paper["authors"])
    first, last = paper["start"], paper["end"]
    for text in (
        f"title = {{{{{citation['title']}}}}}, version = {{0.1.0}}, license = {{{citation['license']}}}",
        f"author = {{{{{citation['authors'][0]['name']}}}}}",
        f"author = {{{authors}}}, title = {{{{{paper['title']}}}}}, journal = {{{paper['journal']}}}, "
        f"volume = {{{paper['volume']}}}, number = {{{paper['issue']}}}, pages = {{{first}--{last}}}, "
        f"year = {{{paper['year']}}}, doi = {{{paper['doi']}}}, note = {{{paper['notes'].rstrip('.')}}}",
    ):
        assert text in page.words


def test_methods_say_what_the_run_recorded(tmp_path: Path, page: Page, bare: None) -> None:
    def paragraph(page: Page) -> str:
        return page.words.partition("Methods paragraph to copy")[2].partition("How to cite")[0]

    for text in (
        "A classifier of BLD (positive class) and No_BLD was trained with bldml 0.1.0 and PyTorch 2.10. Photographs: "
        "60 train, 60 val, 80 test. Backbone: resnet50; initial weights: imagenet; learning rate: 0.001; batch size: "
        "16; maximum epochs: not recorded; random seed: 7. Best epoch (counted from 0): 2, by val_loss. Threshold "
        "criterion: highest F1. On 80 photographs from 20 groups of the set test, at the threshold 0.400 and the "
        "temperature 1.500, 95 % intervals in brackets: sensitivity",
        "(beta-binomial, 10 units)",
        "The photographs of one given group count as one sampling unit (20 groups).",
    ):
        assert text in paragraph(page), paragraph(page)
    (tmp_path / "config.yaml").write_text("data: {positive_class: BLD}\nmodel: {weights: /home/me/my weights.pth}\n")
    empty = Page(write_report(RunFolder(tmp_path)))
    assert paragraph(empty).count("not recorded") == 11
    assert "initial weights: …/my weights.pth;" in paragraph(empty)
    assert "/home" not in empty.text
    assert "No evaluation is recorded." in paragraph(empty)


def test_page_is_one_accessible_file(page: Page) -> None:
    policy = next(a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert str(policy).startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'")
    assert page.source.startswith("<!DOCTYPE html>")
    assert page.all("html") == [{"lang": "en"}]
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.tags}
    assert not [a for _, a in page.tags if any(name.startswith("on") for name in a)]
    assert all(str(a["src"]).startswith("data:image/") for _, a in page.tags if "src" in a)
    identifiers = [a["id"] for _, a in page.tags if "id" in a]
    assert len(identifiers) == len(set(identifiers))
    links = [str(a["href"]) for _, a in page.tags if "href" in a]
    assert all(link.startswith("#") and link[1:] in identifiers for link in links)
    for _, a in page.tags:
        assert set(str(a.get("aria-labelledby") or "").split()) <= set(identifiers)
    assert page.all("a")[0] == {"class": "skip", "href": "#main"}
    assert len(page.all("table")) == len(page.all("caption")) > 15
    assert all(a.get("scope") in ("col", "row") for a in page.all("th"))
    assert all(a.get("alt") for a in page.all("img"))
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 == levels.count(1)
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert not re.search(r"\b(nan|inf|None|NaN)\b", page.text)


def test_same_run_same_bytes(whole: RunFolder, page: Page, quick: None) -> None:
    assert write_report(whole).read_text() == page.source


def test_without_a_test_set(tmp_path: Path, bare: None) -> None:
    page = Page(write_report(write_run(tmp_path / "run", {"val": rows_of(40, 1)})))
    assert "Caution: epoch and operating point were chosen on these photographs" in page.words
    assert "Test set. This run has no test split." in page.words
    assert "The evaluations of this run are not recorded" in page.words


def test_what_photographs_are_is_said_by_their_role(tmp_path: Path, bare: None) -> None:
    """And not by the name: a set called test of which half was trained on, one called site that is the test split."""
    run = write_run(tmp_path / "run", {"test": rows_of(40, 1), "site": rows_of(30, 2), "val": rows_of(20, 3)})

    def say(name: str, role: str, **known: int) -> None:
        (run.evaluation(name) / "provenance.json").write_text(json.dumps({"role": role, "known": known or None}))

    say("test", "mixed", train=20, val=0, test=4)
    say("site", "test")
    say("val", "unknown")
    page = Page(write_report(run))
    assert (
        "Mixed set: 20 from the training split, 4 from the test split, 16 that do not belong to this run." in page.words
    )
    assert "On the 30 photographs of the test split, it detected" in page.words
    assert "How these photographs relate to the run is not recorded." in page.words
    assert "Caution" not in page.words.partition("Limits: performance")[0].replace("test (mixed): Caution", "")
    headings = re.findall(r"Results: (\w+)", page.words)
    assert headings[:3] == headings[3:] == ["site", "test", "val"]

    shutil.rmtree(run.evaluation("site"))
    page = Page(write_report(run))
    assert "test (mixed): Caution: 20 of these 40 photographs are training or validation photographs" in page.words
    assert page.words.index("Caution: 20 of these 40") < page.words.index("Sensitivity")
    assert "Test set. No set is recorded to be the test split of this run." in page.words, "val may be it"
    assert "performance on photographs unlike these is unknown. No set is recorded to be the test split" in page.words
    assert "External validation. No set is recorded to be external." in page.words


def test_without_any_evaluation(tmp_path: Path, bare: None) -> None:
    page = Page(write_report(write_run(tmp_path / "run", {})))
    assert "It has not been evaluated, so its performance is unknown." in page.words
    assert "No evaluation is stored." in page.words


def test_nothing_but_a_configuration(tmp_path: Path, quick: None) -> None:
    (tmp_path / "config.yaml").write_text(CONFIG)
    page = Page(write_report(RunFolder(tmp_path)))
    assert "The split of each photograph is not recorded." in page.words
    assert "date not stated" in page.words


def test_one_error_and_none(tmp_path: Path, bare: None) -> None:
    perfect = rows_of(40, 1, errors=False)
    one = [Prediction(perfect[0].path, "", "No_BLD", "BLD", 0.45), *perfect[1:]]
    run = write_run(tmp_path / "run", {"val": perfect, "test": one})
    write_evaluation(run.path, "val", perfect, temperature=1.0)
    write_evaluation(run.path, "test", one, temperature=1.0)
    page = Page(write_report(run))
    assert "1 photographs were misclassified" not in page.words
    assert "One photograph was misclassified at the operating point." in page.words
    assert "No photograph was misclassified at the operating point." in page.words
    assert "not fitted: a threshold separates the validation classes without error" in page.words
    assert "it detected 20 of 20 BLD photographs (sensitivity 100.0 %, 95 % interval 83.9 % to 100.0 %)" in page.words


def test_one_class_alone(tmp_path: Path, bare: None) -> None:
    only = [row for row in rows_of(40, 1) if row.true_class == "BLD"]
    page = Page(write_report(write_run(tmp_path / "run", {"val": rows_of(40, 2), "test": only})))
    assert "All photographs are of one class" in page.words
    assert "There are no negatives, so the specificity cannot be estimated." in page.words
    assert "not estimable" in page.words
    assert not re.search(r"\b(nan|inf|None)\b", page.text)


def test_performance_at_chance_is_reported(tmp_path: Path, bare: None) -> None:
    generator = np.random.default_rng(0)
    rows = [
        Prediction(f"{i}.jpg", "", ("No_BLD", "BLD")[i % 2], ("No_BLD", "BLD")[p >= THRESHOLD], p)
        for i, p in enumerate(map(float, generator.uniform(size=60)))
    ]
    page = Page(write_report(write_run(tmp_path / "run", {"test": rows})))
    assert "includes 0.5: performance is not distinguishable from chance." in page.words


def test_groups_in_two_splits_are_said(tmp_path: Path, bare: None) -> None:
    sets = {"val": rows_of(40, 1, groups=8), "test": rows_of(40, 2, groups=10)}
    page = Page(write_report(write_run(tmp_path / "run", sets)))
    assert "8 of 10 groups (tree, site, burst) have photographs in more than one split" in page.words
    assert "tree 0, tree 1, tree 2, tree 3, tree 4, tree 5, tree 6, tree 7." in page.words


def test_unlabelled_predictions_and_left_out_photographs(tmp_path: Path, bare: None) -> None:
    run = write_run(tmp_path / "run", {"test": rows_of(40, 1)})
    rows = [Prediction(row.path, "", "", row.predicted_class, row.probability) for row in rows_of(7, 2)]
    write_predictions(run.evaluation("field") / "predictions.csv", rows)
    run.excluded.write_text("path,reason\nBLD/broken.jpg,truncated\n")
    page = Page(write_report(run))
    assert "Predictions without labels, for which no metrics can be computed: field, 7 photographs." in page.words
    assert "1 photograph could not be used." in page.words
    assert "BLD/broken.jpg the run truncated" in page.words


def test_one_is_said_as_one(tmp_path: Path, bare: None) -> None:
    rows = [replace(row, group="only tree") for row in rows_of(30, 1)]
    run = write_run(tmp_path / "run", {"test": rows})
    write_predictions(run.evaluation("field") / "predictions.csv", [Prediction("a.jpg", "", "", "BLD", 0.9)])
    names = [f"{number}.jpg,broken" for number in range(21)]
    run.excluded.write_text("\n".join(["path,reason", *names]) + "\n")
    write_run(tmp_path / "other", {"test": rows})
    page = Page(write_report(run))
    assert "no metrics can be computed: field, 1 photograph." in page.words
    assert "1 more row is in the CSV file." in page.words
    assert "30 photographs from 1 group," in page.words
    assert "There is only 1 unit; intervals were tested with 8 units or more, and are not reliable" in page.words
    assert "1 other run in the same folder uses the same validation photographs" in page.words
    for wrong in ("1 groups", "1 photographs", "1 more rows", "are 1 "):
        assert not re.search(rf"(?<![\d,.]){wrong}", page.words)


@pytest.mark.slow
def test_ten_thousand_photographs(tmp_path: Path, quick: None) -> None:
    run = write_run(tmp_path / "run", {name: rows_of(10_000, 1, groups=2000) for name in ("test", "val")})
    for name in ("test", "val"):
        write_gallery(run, name, b"x" * 150_000)  # 72 photographs, twice, of two sets: 43 MB
    place = write_report(run)
    assert place.stat().st_size < 30 * 10**6
    page = Page(place)
    assert len(page.all("img")) > 100
    assert "Pictures omitted to limit the size of this page" in page.words
    assert "1900 more rows are in the CSV file" in page.words
    assert len(read(run.path / "tables" / "test" / "groups.csv")) == 2000


def edit(path: Path, change: Callable[[str], str]) -> None:
    text = path.read_text()
    assert change(text) != text
    path.write_text(change(text))


def line(number: int, change: Callable[[list[str]], list[str]]) -> Callable[[str], str]:
    """Change the cells of one line of a CSV file."""

    def changed(text: str) -> str:
        lines = text.splitlines()
        lines[number - 1] = ",".join(change(lines[number - 1].split(",")))
        return "\n".join(lines) + "\n"

    return changed


def swap(old: str, new: str) -> Callable[[str], str]:
    return lambda text: text.replace(old, new)


CONTRADICTION = "metrics-contradict-predictions"


@pytest.mark.parametrize(
    ("file", "change", "code", "fields"),
    [
        ("predictions.csv", line(4, lambda c: [*c[:4], "high"]), "probability-wrong", {"row": 4, "found": "'high'"}),
        ("predictions.csv", line(4, lambda c: [*c[:4], "1.5"]), "probability-wrong", {"row": 4}),
        ("predictions.csv", line(4, lambda c: c[:3]), "prediction-cells-wrong", {"row": 4, "found": 3}),
        ("predictions.csv", line(5, lambda c: [*c[:2], "Rust", *c[3:]]), "class-unknown", {"found": "Rust"}),
        ("predictions.csv", line(2, lambda c: [*c[:2], "BDL", *c[3:]]), "class-unknown", {"found": "BDL"}),
        ("predictions.csv", line(5, lambda c: [*c[:3], "No_BLD", c[4]]), "prediction-contradicts-threshold", {}),
        ("predictions.csv", line(5, lambda c: ["No_BLD/leaf_00000.jpg", *c[1:]]), "prediction-twice", {}),
        ("predictions.csv", line(5, lambda c: [*c[:2], "No_BLD", *c[3:]]), CONTRADICTION, {"key": "n_positive"}),
        ("predictions.csv", line(5, lambda c: [*c[:4], "0.999"]), CONTRADICTION, {}),
        ("predictions.csv", lambda t: t[: t.index("\n") + 1], "predictions-empty", {}),
        ("predictions.csv", lambda _: "\x00nothing", "predictions-foreign", {}),
        ("metrics.json", lambda t: t[:-20], "metrics-damaged", {}),
        ("metrics.json", lambda _: "[]", "metrics-foreign", {}),
        ("metrics.json", swap('"threshold": 0.4', '"threshold": "x"'), "metrics-value-wrong", {}),
        ("metrics.json", swap('"threshold": 0.4', '"threshold": 7'), "metrics-value-wrong", {"found": 7}),
        ("metrics.json", lambda t: re.sub('"auroc": [^,]*', '"auroc": 1.0', t), CONTRADICTION, {"key": "auroc"}),
        ("metrics.json", lambda t: re.sub('"auroc": [^,]*', f'"auroc": 1{"0" * 400}', t), CONTRADICTION, {}),
        ("metrics.json", lambda t: t.replace("{", '{"novelty": {"rate": [1]},', 1), "metrics-foreign", {}),
        ("provenance.json", lambda t: t[:-5], "json-damaged", {}),
        ("../../environment.json", lambda t: t[:-5], "json-damaged", {}),
        ("../../environment.json", lambda _: "[1]", "json-no-mapping", {}),
        ("../../history.csv", line(3, lambda c: ["x", *c[1:]]), "cell-no-number", {"row": 3, "key": "epoch"}),
        ("../../history.csv", swap("epoch", "age"), "run-table-column-missing", {"expected": ["epoch"]}),
        ("../../splits.csv", swap("label", "kind"), "run-table-column-missing", {"expected": ["label"]}),
        ("../../splits.csv", lambda t: t + '"', "run-table-damaged", {}),
        ("../../config.yaml", lambda t: t + "}", "run-config-damaged", {}),
        ("../../config.yaml", lambda _: "text", "run-config-no-mapping", {}),
        ("../../config.yaml", swap("maximize: f1", "maximize: f1, recall: 1"), "run-criterion-wrong", {}),
        ("../../config.yaml", swap("ivity: null", "ivity: 0.9"), "run-criterion-wrong", {}),
    ],
)  # fmt: skip
def test_damage_is_a_message(
    tmp_path: Path, bare: None, file: str, change: Callable[[str], str], code: str, fields: dict[str, object]
) -> None:
    run = write_run(tmp_path / "run", {"val": rows_of(40, 1), "test": rows_of(40, 2)})
    edit(run.evaluation("test") / file, change)
    with mistake(code, **fields) as raised:
        write_report(run)
    assert Path(file).name in str(raised.value)
    assert not (run.path / "report.html").exists()


@pytest.mark.parametrize("missing", ["environment.json", "history.csv", "splits.csv"])
def test_missing_files_are_not_stated(tmp_path: Path, bare: None, missing: str) -> None:
    run = write_run(tmp_path / "run", {"val": rows_of(40, 1), "test": rows_of(40, 2)})
    before = Page(write_report(run)).words.count("Not stated")
    (run.path / missing).unlink()
    page = Page(write_report(run))
    assert page.words.count("Not stated") > before or "not recorded" in page.words
    assert not re.search(r"\b(nan|inf|None)\b", page.text)


def test_no_run_folder_is_a_message(tmp_path: Path) -> None:
    with mistake("run-folder-missing", path=tmp_path / "none"):
        write_report(RunFolder(tmp_path / "none"))
    with mistake("run-folder-empty"):
        write_report(RunFolder(tmp_path))


HOSTILE = "<img src=x onerror=alert(1)>"
NAMES = [HOSTILE, "a' onmouseover='x \"{{ 7*7 }}", "x" * 180, '=HYPERLINK("http:evil")']


@pytest.mark.parametrize("name", NAMES)
def test_hostile_names_are_text(tmp_path: Path, quick: None, name: str) -> None:
    classes = (f"No {name}", name)
    rows = [
        Prediction(f"{row.path}\u202egpj.exe", f"{name} tree", row.true_class, row.predicted_class, row.probability)
        for row in rows_of(24, 1, classes=classes)
    ]
    config: dict[str, Any] = {
        "model": {"backbone": name, "weights": name},
        "data": {"positive_class": name},
        "card": {"intended_use": f"{name}\u202e", "licence": "<b>MIT"},
    }
    run = write_run(tmp_path / name, {name: rows}, config=json.dumps(config), positive=name)
    write_gallery(run, name, b"")
    append_entry(run, LedgerEntry("<i>now", name, "test", "<i>", 24, "best.ckpt"))
    place = write_report(run)
    page = Page(place)
    assert not {"script", "b", "i", "link"} & {tag for tag, _ in page.tags}
    assert all(str(a.get("src")).startswith("data:image/jpeg;base64,") for a in page.all("img"))
    assert not [a for _, a in page.tags if any(key.startswith("on") for key in a)]
    assert name in page.text
    assert "<b>MIT" in page.text
    assert "\u202e" not in page.source
    for table in run.path.glob("tables/*/*.csv"):
        for row in csv.reader(table.read_text(encoding="utf-8").splitlines()):
            assert not [cell for cell in row if cell.startswith("=")], table


def test_a_real_run(run: Path, leaves: Path, bldml: Bldml, quick: None) -> None:
    page = Page(write_report(RunFolder(run)))
    metrics = json.loads((run / "evaluations" / "test" / "metrics.json").read_text())
    counts = metrics["at_threshold"]
    assert f"it detected {counts['tp']} of {counts['tp'] + counts['fn']} BLD" in page.words
    assert "Layers unfrozen at epoch 1, 2" in page.words
    assert "Chosen again from the predictions" not in page.words
    assert "No band: it needs at least 8 sampling units with photographs of each class." in page.words
    rows = {row["Set"]: row for row in read(run / "tables" / "run" / "photographs.csv")}
    assert int(rows["test"]["All"]) == metrics["n"]
    for path in (run.parents[1], leaves.parent, REPOSITORY):
        assert str(path) not in page.source, "a page is passed on"
    assert not re.search(r"\b(nan|inf|None)\b", page.text)


def test_starts_without_anything_heavy() -> None:
    code = (
        "import sys; import bldml.report.page;"
        "heavy = {'torch', 'lightning', 'torchvision', 'torchmetrics', 'scipy', 'sklearn', 'matplotlib', 'jinja2'};"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert time.perf_counter() - start < 30  # two seconds on a free machine
