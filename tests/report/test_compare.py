"""Comparisons through the real command line, recomputed with SciPy and scikit-learn."""

import csv
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score, roc_curve

from bldml.io.text import latex
from bldml.metrics.assessment import evaluate
from bldml.metrics.operating_point import OperatingPoint
from bldml.run.folder import RunFolder
from bldml.run.ledger import LedgerEntry, append_entry
from bldml.run.photographs import PhotographRow, photographs_text
from bldml.run.predictions import Prediction, read_predictions, write_metrics, write_predictions
from tests.report.pages import Page, read
from tests.support import Bldml

# TN, FP, FN, TP on the external test set of the BLD-ML paper: 116 photographs, 45 of them positive.
PAPER = {
    "efficientnet": (67, 4, 0, 45),
    "inception": (69, 2, 14, 31),
    "mobilenet": (64, 7, 7, 38),
    "resnet50": (59, 12, 5, 40),
}
ACCURACIES = {
    "efficientnet": (0.9655, 0.915, 0.987),
    "inception": (0.8621, 0.788, 0.913),
    "mobilenet": (0.8793, 0.808, 0.927),
    "resnet50": (0.8534, 0.778, 0.906),
}


THRESHOLD = 0.5


def write_run(
    folder: Path,
    rows: Sequence[Prediction],
    *,
    evaluation: str = "test",
    config: str = "data: {positive_class: BLD}\n",
    positive: str = "BLD",
) -> Path:
    place = RunFolder(folder).evaluation(evaluation)
    write_predictions(place / "predictions.csv", rows)
    labels = [row.true_class == positive for row in rows]
    write_metrics(place, evaluate(labels, [row.probability for row in rows], OperatingPoint(THRESHOLD, 1.0)))
    (place / "provenance.json").write_text('{"schema": 1, "role": "test"}')
    (folder / "config.yaml").write_text(config, encoding="utf-8")
    return folder


def rows_of(counts: tuple[int, int, int, int], seed: int = 0, groups: int = 0) -> list[Prediction]:
    """Predictions with these counts; which photographs are wrong depends on the seed."""
    tn, fp, fn, tp = counts
    generator = np.random.default_rng(seed)
    rows = []
    for name, right, wrong in (("No_BLD", tn, fp), ("BLD", tp, fn)):
        wrong_ones = set(generator.permutation(right + wrong)[:wrong].tolist())
        for index in range(right + wrong):
            positive = (name == "BLD") != (index in wrong_ones)
            probability = float(generator.uniform(0.5, 1) if positive else generator.uniform(0, 0.5))
            group = f"{name} tree {index % groups}" if groups else ""
            called = "BLD" if positive else "No_BLD"
            rows.append(Prediction(f"{name}/leaf_{index:03}.jpg", group, name, called, probability))
    return rows


@pytest.fixture
def paper(tmp_path: Path) -> list[Path]:
    runs = [
        write_run(tmp_path / "logs" / name, rows_of(counts, seed)) for seed, (name, counts) in enumerate(PAPER.items())
    ]
    write_predictions(  # the order of the rows does not matter
        runs[2] / "evaluations" / "test" / "predictions.csv", rows_of(PAPER["mobilenet"], 2)[::-1]
    )
    return runs


def test_the_papers_confusion_matrices(paper: list[Path], bldml: Bldml) -> None:
    outcome = bldml("compare", *paper, "--output", "out")
    assert outcome.code == 0, outcome.err
    assert "out/comparison.html" in outcome.out
    table = {row["run"]: row for row in read(Path("out/comparison.csv"))}
    assert list(table) == ["efficientnet", "mobilenet", "inception", "resnet50"]  # most accurate first
    page, tex = Path("out/comparison.html").read_text(), Path("out/comparison.tex").read_text()
    for name, (value, low, high) in ACCURACIES.items():
        row, (tn, fp, fn, tp) = table[name], PAPER[name]
        assert (int(row["tn"]), int(row["fp"]), int(row["fn"]), int(row["tp"])) == PAPER[name]
        assert round(float(row["accuracy"]), 4) == value
        assert (round(float(row["accuracy_low"]), 3), round(float(row["accuracy_high"]), 3)) == (low, high)
        for measure, k, n in (("accuracy", tp + tn, 116), ("sensitivity", tp, tp + fn), ("specificity", tn, tn + fp)):
            interval = binomtest(k, n).proportion_ci(method="wilson")
            assert float(row[measure]) == pytest.approx(k / n, abs=1e-12)
            assert float(row[f"{measure}_low"]) == pytest.approx(interval.low, abs=1e-6)
            assert float(row[f"{measure}_high"]) == pytest.approx(interval.high, abs=1e-6)
        for text in (f"{value:.3f}", f"{low:.3f}, {high:.3f}", f"{tp + tn}/116"):
            assert text in page
            assert text in tex
        predictions = read_predictions(paper[list(PAPER).index(name)] / "evaluations" / "test" / "predictions.csv")
        area = roc_auc_score([row.true_class == "BLD" for row in predictions], [row.probability for row in predictions])
        assert float(row["auroc"]) == pytest.approx(area, abs=1e-6)
        assert float(row["auroc_low"]) < area < float(row["auroc_high"])


def test_pairs_against_scipy_and_holm_by_hand(paper: list[Path], bldml: Bldml) -> None:
    assert bldml("compare", *paper, "--output", "out").code == 0
    right = {
        path.name: {
            row.path: row.true_class == row.predicted_class
            for row in read_predictions(path / "evaluations" / "test" / "predictions.csv")
        }
        for path in paper
    }
    pairs = read(Path("out/differences.csv"))
    assert len({frozenset((pair["first"], pair["second"])) for pair in pairs}) == len(pairs) == 6
    for pair in pairs:
        first, second = right[pair["first"]], right[pair["second"]]
        b = sum(first[path] and not second[path] for path in first)
        c = sum(second[path] and not first[path] for path in first)
        assert (int(pair["b"]), int(pair["c"])) == (b, c)
        assert float(pair["accuracy_difference"]) == pytest.approx((b - c) / 116, abs=1e-12)
        assert float(pair["accuracy_low"]) < (b - c) / 116 < float(pair["accuracy_high"])
        exact = binomtest(min(b, c), b + c).pvalue
        assert float(pair["mcnemar_exact_p"]) == pytest.approx(exact, abs=1e-9)
        assert float(pair["accuracy_p"]) == float(pair["mcnemar_mid_p"])
        assert 0 < float(pair["mcnemar_mid_p"]) <= exact
    for p, adjusted in (("accuracy_p", "accuracy_p_holm"), ("auroc_p", "auroc_p_holm")):
        greatest = 0.0
        for rank, pair in enumerate(sorted(pairs, key=lambda pair: float(pair[p]))):
            greatest = max(greatest, min(1.0, (6 - rank) * float(pair[p])))
            assert float(pair[adjusted]) == pytest.approx(greatest, abs=1e-12)


def test_letters_follow_the_adjusted_tests(paper: list[Path], bldml: Bldml) -> None:
    assert bldml("compare", *paper, "--output", "out").code == 0
    table = {row["run"]: row for row in read(Path("out/comparison.csv"))}
    pairs = read(Path("out/differences.csv"))
    for family in ("accuracy", "auroc"):
        for pair in pairs:
            letters = [set(table[pair[side]][f"letters_{family}"]) for side in ("first", "second")]
            assert all(letters)
            assert bool(letters[0] & letters[1]) == (float(pair[f"{family}_p_holm"]) >= 0.05)
    assert {float(pair["accuracy_p_holm"]) < 0.05 for pair in pairs} == {True, False}  # the matrices show both


def verdict_of(folder: str) -> str:
    page = Path(folder, "comparison.html").read_text()
    found = re.search(r'<div class="verdict">(.*?)</div>', page, re.DOTALL)
    assert found
    return "\n".join(re.findall(r"<p><strong>(.*?)</strong></p>", found[1]))


def test_the_verdict_names_every_family(tmp_path: Path, bldml: Bldml) -> None:
    """Equal at the threshold, far apart in AUROC: the first sentences must not say that the runs are alike."""

    def with_errors_at(positive: float, negative: float) -> list[Prediction]:
        at = {"BLD": positive, "No_BLD": negative}
        return [
            row if row.true_class == row.predicted_class else replace(row, probability=at[row.predicted_class])
            for row in rows_of(PAPER["resnet50"])
        ]

    runs = [
        write_run(tmp_path / "good", with_errors_at(0.5, 0.499)), write_run(tmp_path / "bad", with_errors_at(1.0, 0.0))
    ]  # fmt: skip
    assert bldml("compare", *runs, "--output", "out").code == 0
    (pair,) = read(Path("out/differences.csv"))
    assert float(pair["accuracy_p_holm"]) == 1
    said = verdict_of("out")
    assert "Accuracy: no two runs differ significantly." in said
    assert float(pair["auroc_p_holm"]) < 0.05
    assert "AUROC: 1 of 1 pair differs significantly; good is significantly better than every other run." in said


def test_the_best_of_several_is_said_to_gain_by_that(tmp_path: Path, bldml: Bldml) -> None:
    runs = [write_run(tmp_path / f"run{seed}", rows_of((40, 6, 6, 40), seed)) for seed in range(6)]
    for run in (*runs, write_run(tmp_path / "seventh", rows_of((40, 6, 6, 40), 9))):
        append_entry(
            RunFolder(run), LedgerEntry("2026-01-01T00:00:00+00:00", "test", "test", "ab" * 32, 92, "best.ckpt")
        )
        provenance = run / "evaluations/test/provenance.json"
        content = json.loads(provenance.read_text()) if provenance.is_file() else {"schema": 1, "role": "test"}
        provenance.write_text(json.dumps(content | {"dataset_fingerprint": "ab" * 32}))
    assert bldml("compare", *runs, "--output", "out").code == 0
    found = re.search(r"best of these 6 runs .* too high by about (0\.\d+) \(Accuracy\) and", verdict_of("out"))
    assert found, verdict_of("out")
    assert 0.01 < float(found[1]) < 0.06, "six equal classifiers on 92 photographs"
    assert "7 runs were evaluated on these photographs, so it may be more." in verdict_of("out")


def test_a_pair_without_a_test_is_no_significant_difference(tmp_path: Path, bldml: Bldml) -> None:
    """DeLong's test has no variance between a perfect and a constant score."""
    perfect, mediocre = rows_of((50, 0, 0, 50)), rows_of((30, 20, 20, 30))
    constant = [replace(row, probability=0.5, predicted_class="BLD") for row in perfect]
    named = {"perfect": perfect, "mediocre": mediocre, "constant": constant}
    runs = [write_run(tmp_path / name, rows) for name, rows in named.items()]
    assert bldml("compare", *runs, "--output", "out").code == 0
    untested = [pair for pair in read(Path("out/differences.csv")) if not pair["auroc_p"]]
    assert [(pair["first"], pair["second"]) for pair in untested] == [("perfect", "constant")]
    assert "the best run, perfect, does not differ significantly from constant." in verdict_of("out")


def test_runs_that_were_trained_on_the_photographs_say_so_first(tmp_path: Path, bldml: Bldml) -> None:
    runs = [
        write_run(tmp_path / name, rows_of(PAPER[name]), evaluation="train") for name in ("efficientnet", "resnet50")
    ]
    for run in runs:
        (run / "evaluations/train/provenance.json").write_text('{"schema": 1, "role": "training"}')
    assert bldml("compare", *runs, "--evaluation", "train", "--output", "out").code == 0
    assert verdict_of("out").startswith(
        "Caution: photographs of this set trained or chose efficientnet, resnet50. The comparison is no evidence for "
        "new photographs."
    )


def test_groups_are_the_units_of_the_tests(tmp_path: Path, bldml: Bldml) -> None:
    runs = [write_run(tmp_path / name, rows_of(PAPER[name], groups=12)) for name in ("efficientnet", "resnet50")]
    outcome = bldml("compare", *runs, "--output", "out")
    assert outcome.code == 0, outcome.err
    (pair,) = read(Path("out/differences.csv"))
    assert pair["accuracy_method"] == "clustered t, 24 units"
    assert pair["auroc_method"] == "swap permutation, 24 units"
    assert 0 < float(pair["accuracy_p"]) <= 1
    assert float(pair["accuracy_low"]) <= float(pair["accuracy_difference"]) <= float(pair["accuracy_high"])
    assert read(Path("out/comparison.csv"))[0]["n_units"] == "24"
    assert "24 groups" in Path("out/comparison.html").read_text()


def test_bursts_that_one_run_records_are_the_units_of_all(tmp_path: Path, bldml: Bldml) -> None:
    """The order in which the runs are named does not matter."""
    old, new = (rows_of(PAPER[name]) for name in ("efficientnet", "resnet50"))
    new = [replace(row, burst=f"{row.true_class} {index // 2}") for index, row in enumerate(new)]
    runs = [write_run(tmp_path / name, rows) for name, rows in (("old", old), ("new", new))]
    found = []
    for folder, order in (("out", runs), ("back", runs[::-1])):
        assert bldml("compare", *order, "--output", folder).code == 0
        found.append(read(Path(folder) / "comparison.csv"))
        n_units = len({row.burst for row in new})
        assert {(row["n_units"], row["unit"]) for row in found[-1]} == {(str(n_units), "burst")}
        assert {row["sensitivity_method"].partition(",")[0] for row in found[-1]} == {"beta-binomial"}
        assert f"as one sampling unit ({n_units} bursts)" in Path(folder, "comparison.html").read_text()
    assert found[0] == found[1]


def test_equal_runs_and_one_class_have_no_zero_p_and_no_nan(tmp_path: Path, bldml: Bldml) -> None:
    perfect = rows_of((5, 0, 0, 5))
    runs = [write_run(tmp_path / "perfect" / name, perfect) for name in "ab"]
    one_class = [row for row in rows_of((5, 2, 0, 5)) if row.true_class == "No_BLD"]
    runs_of_one = [write_run(tmp_path / "one" / name, one_class) for name in "ab"]
    for number, given in enumerate((runs, runs_of_one)):
        outcome = bldml("compare", *given, "--output", f"out{number}")
        assert outcome.code == 0, outcome.err
        (pair,) = read(Path(f"out{number}/differences.csv"))
        assert float(pair["mcnemar_exact_p"]) == float(pair["accuracy_p_holm"]) == 1
        for file in Path(f"out{number}").glob("*.*"):
            assert not re.search(r"\b(nan|inf|None)\b", file.read_text()), file
    assert float(read(Path("out0/differences.csv"))[0]["auroc_p"]) == 1
    assert read(Path("out1/differences.csv"))[0]["auroc_p"] == ""
    assert "not estimable" in Path("out1/comparison.html").read_text()


def test_other_photographs_are_refused_and_listed(paper: list[Path], bldml: Bldml) -> None:
    rows = rows_of(PAPER["resnet50"])
    changed = Prediction(rows[1].path, "", "BLD", rows[1].predicted_class, rows[1].probability)
    renamed = Prediction("No_BLD/other.jpg", "", "No_BLD", rows[0].predicted_class, rows[0].probability)
    write_run(paper[3], [renamed, changed, *rows[2:]])
    outcome = bldml("compare", *paper, "--output", "out")
    assert outcome.mistake == "evaluations-differ"
    assert outcome.fields["found"] == [
        "No_BLD/leaf_000.jpg: only in efficientnet",
        "No_BLD/other.jpg: only in resnet50",
        "No_BLD/leaf_001.jpg: class 'No_BLD' in efficientnet, 'BLD' in resnet50",
    ]
    assert not Path("out").exists()


def test_long_lists_of_differing_files_are_cut(paper: list[Path], bldml: Bldml) -> None:
    write_run(paper[1], rows_of((10, 0, 0, 10)))
    outcome = bldml("compare", *paper[:2])
    assert outcome.code == 1
    assert outcome.err.count(": only in ") == 20
    assert "and 76 more" in outcome.err


def test_other_groups_are_refused(tmp_path: Path, bldml: Bldml) -> None:
    runs = [write_run(tmp_path / str(groups), rows_of((5, 1, 1, 5), groups=groups)) for groups in (2, 3)]
    outcome = bldml("compare", *runs)
    assert outcome.mistake == "evaluations-differ"
    assert any("group 'BLD tree 0' in 2, 'BLD tree 2' in 3" in one for one in outcome.fields["found"])


@pytest.mark.parametrize(
    ("change", "code", "fields"),
    [
        ("one", "runs-too-few", {}),
        ("twice", "run-given-twice", {}),
        ("nowhere", "run-folder-missing", {"path": Path("lightning_logs/none")}),
        ("evaluation", "evaluation-missing", {"expected": "'ohio'", "found": "test (test)"}),
        ("no role", "evaluation-missing", {"found": "test (unknown)"}),
        ("newer", "document-newer", {"found": 2}),
        ("no metrics", "metrics-unreadable", {}),
        ("other metrics", "metrics-contradict-predictions", {}),
        ("no labels", "evaluation-unlabelled", {}),
        ("separator", "name-refused", {"what": "evaluation"}),
        ("damaged", "predictions-foreign", {}),
        ("probability", "probability-wrong", {"row": 3, "found": "'high'"}),
        ("empty", "predictions-empty", {}),
        ("unlabelled", "class-unknown", {"found": ""}),
        ("double", "prediction-twice", {}),
        ("three", "class-unknown", {"found": "Rust", "expected": "No_BLD and BLD"}),
        ("positive", "positive-class-unclear", {"found": "Rust"}),
        ("side", "prediction-contradicts-threshold", {"found": "BLD", "expected": "No_BLD"}),
        ("other positive", "positive-classes-differ", {"found": ["BLD", "No_BLD"]}),
    ],
)
def test_mistakes_are_messages(
    change: str, code: str, fields: dict[str, object], paper: list[Path], bldml: Bldml
) -> None:
    arguments: list[str | Path] = [*paper[:2]]
    file = paper[1] / "evaluations" / "test" / "predictions.csv"
    rows = rows_of(PAPER["inception"], 1)
    match change:
        case "one":
            arguments.pop()
        case "twice":
            arguments[1] = paper[0] / ".." / paper[0].name
        case "nowhere":
            arguments[1] = "lightning_logs/none"
        case "evaluation" | "separator":
            arguments += ["--evaluation", "ohio" if change == "evaluation" else "../test"]
        case "no role":
            (file.parent / "provenance.json").unlink()
        case "newer":
            (file.parent / "provenance.json").write_text('{"schema": 2}')
        case "no metrics":
            (file.parent / "metrics.json").unlink()
        case "other metrics":
            write_metrics(file.parent, evaluate([0, 1], [0.2, 0.7], OperatingPoint(THRESHOLD, 1.0)))
        case "no labels":
            (file.parent / "metrics.json").unlink()
            write_predictions(file, [replace(row, true_class="") for row in rows])
            arguments += ["--evaluation", "test"]
        case "damaged":
            file.write_bytes(b"\x00PNG nothing")
        case "probability":
            lines = file.read_text().splitlines()
            file.write_text("\n".join([*lines[:2], lines[2].rpartition(",")[0] + ",high", *lines[3:]]))
        case "empty":
            write_predictions(file, [])
        case "unlabelled":
            write_predictions(
                file, [Prediction(row.path, "", "", row.predicted_class, row.probability) for row in rows]
            )
        case "double":
            write_predictions(file, [*rows, next(row for row in rows if row.path == "BLD/leaf_000.jpg")])
        case "three":
            write_predictions(file, [*rows, Prediction("x.jpg", "", "Rust", "BLD", 1.0)])
        case "positive":
            (paper[1] / "config.yaml").write_text("data: {positive_class: Rust}")
        case "side":
            write_predictions(file, [*rows[1:], Prediction(rows[0].path, "", "No_BLD", "BLD", 0.001)])
        case "other positive":
            turned = [Prediction(r.path, "", r.true_class, r.predicted_class, 1 - r.probability) for r in rows]
            write_run(paper[1], turned, config="data: {positive_class: No_BLD}", positive="No_BLD")
    outcome = bldml("compare", *arguments, "--output", "out")
    assert outcome.code == (2 if change in ("one", "twice", "separator") else 1)
    assert outcome.mistake == code
    assert outcome.fields | fields == outcome.fields
    assert not Path("out").exists()


def test_no_configuration_is_needed(paper: list[Path], bldml: Bldml) -> None:
    for path in paper[:2]:
        (path / "config.yaml").unlink()
    assert bldml("compare", *paper[:2], "--output", "out").code == 0
    assert [row["tp"] for row in read(Path("out/comparison.csv"))] == ["45", "31"]
    assert bldml("report", paper[0]).code == 0
    assert "45 of 45 BLD" in Page(paper[0] / "report.html").text
    (paper[1] / "config.yaml").write_text("a: [", encoding="utf-8")
    for command in (["compare", *paper[:2]], ["report", paper[1]]):
        refused = bldml(*command)
        assert refused.mistake == "run-config-damaged"


HOSTILE = [
    "<img src=x onerror=alert(1)>",
    '=HYPERLINK("http:evil","x")',
    "a' onmouseover='x \"{{ 7*7 }}",
    "\u202egpj.exe\u05d0\u05d1",
    "new\nline_&%$#{}~^\\input",
    "x" * 255,
]


def test_hostile_names_are_text(tmp_path: Path, bldml: Bldml) -> None:
    config = "model: {backbone: '<script>alert(2)</script>'}\ndata: {positive_class: '<b>BLD'}\n"
    rows = [
        Prediction(
            row.path,
            "",
            row.true_class.replace("BLD", "<b>BLD"),
            row.predicted_class.replace("BLD", "<b>BLD"),
            row.probability,
        )
        for row in rows_of((5, 1, 1, 5))
    ]
    runs = [write_run(tmp_path / "logs" / name, rows, config=config, positive="<b>BLD") for name in HOSTILE]
    outcome = bldml("compare", *runs, "--output", "out")
    assert outcome.code == 0, outcome.err
    page = Page(Path("out/comparison.html"))
    source = page.source
    assert not {"script", "img", "b", "link", "iframe"} & {tag for tag, _ in page.tags}
    assert not [
        (name, value)
        for _, attributes in page.tags
        for name, value in attributes.items()
        if name.startswith("on") or name == "src" or (name == "href" and not str(value).startswith("#"))
    ]
    for name in (HOSTILE[0], HOSTILE[1], HOSTILE[2], HOSTILE[5], "<script>alert(2)</script>", "<b>BLD"):
        assert name in page.text
    assert "\u202e" not in source
    assert "\\u202egpj.exe" in page.text
    outside = source.replace("http:evil", "").replace("http://www.w3.org/2000/svg", "")  # a name, never fetched
    assert "http:" not in outside
    for file in ("comparison.csv", "differences.csv"):
        text = Path("out", file).read_text(encoding="utf-8")
        cells = [cell for row in csv.reader(text.splitlines()) for cell in row]
        assert "'" + HOSTILE[1] in cells
        assert not [cell for cell in cells if cell.startswith("=")]
    tex = Path("out/comparison.tex").read_text(encoding="utf-8")
    assert latex(HOSTILE[4]) in tex
    assert "\\input" not in tex
    assert r"\_\&\%\$\#\{\}\textasciitilde{}\textasciicircum{}\textbackslash{}input" in tex


def test_page_is_one_accessible_file(paper: list[Path], bldml: Bldml) -> None:
    assert bldml("compare", *paper, "--output", "out").code == 0
    page = Page(Path("out/comparison.html"))
    policy = next(a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert set(str(policy).split("; ")) == {
        "default-src 'none'", "style-src 'unsafe-inline'", "img-src data:", "base-uri 'none'", "form-action 'none'",
    }  # fmt: skip
    tags = [tag for tag, _ in page.tags]
    assert tags.count("table") == tags.count("caption") == 4
    assert all(attributes.get("scope") in ("col", "row") for tag, attributes in page.tags if tag == "th")
    assert ("html", {"lang": "en"}) in page.tags
    for tag, attributes in page.tags:
        assert "src" not in attributes
        assert str(attributes.get("href", "#")).startswith("#"), tag
    assert sorted(file.name for file in Path("out").iterdir()) == [
        "comparison.csv",
        "comparison.html",
        "comparison.tex",
        "differences.csv",
        "equal_specificity.csv",
        "figures",
    ]


def test_all_runs_are_in_the_overlaid_curves(paper: list[Path], bldml: Bldml, all_formats: None) -> None:
    assert bldml("compare", *paper, "--output", "out").code == 0
    source = Path("out/comparison.html").read_text(encoding="utf-8")
    figure = source[source.index("<svg") : source.index("</svg>")]
    for name in PAPER:
        assert f">{name}<" in figure  # in the legend
    areas = [f"{row['run']} {float(row['auroc']):.3f}" for row in read(Path("out/comparison.csv"))]
    assert f"Area under each curve: {'; '.join(areas)}." in figure
    assert Path("out/figures/roc.png").read_bytes().startswith(b"\x89PNG")
    assert Path("out/figures/roc.pdf").read_bytes().startswith(b"%PDF")


def test_settings_that_differ_and_learning_curves(paper: list[Path], bldml: Bldml) -> None:
    for number, run in enumerate(paper[:2]):
        settings = (
            f"run_name: own{number}\nmodel: {{backbone: {run.name}, lr: 0.00{number + 1}}}\ndata: {{batch_size: 16}}\n"
        )
        (run / "config.yaml").write_text(settings, encoding="utf-8")
        history = [f"{epoch},{0.5 - 0.1 * epoch * (number or epoch < 2)},0.9" for epoch in range(4)]
        (run / "history.csv").write_text("\n".join(["epoch,val_loss,val_auroc", *history]) + "\n", encoding="utf-8")
    assert bldml("compare", *paper[:2], "--output", "out").code == 0
    rows = {row["Setting"]: row for row in read(Path("out/settings.csv"))}
    assert rows.keys() == {"model.backbone", "model.lr"}
    assert [rows["model.lr"][run.name] for run in paper[:2]] == ["0.001", "0.002"]
    source = Path("out/comparison.html").read_text(encoding="utf-8")
    figure = source[source.index("<h2>Learning curves") :]
    assert all(f">{run.name}<" in figure for run in paper[:2])
    assert Path("out/figures/learning_curves.svg").is_file()
    page = Page(Path("out/comparison.html"))
    assert "The configurations of these runs are equal" not in page.text


def test_sensitivities_at_the_same_specificity(paper: list[Path], bldml: Bldml) -> None:
    assert bldml("compare", *paper, "--output", "out").code == 0
    found = read(Path("out/equal_specificity.csv"))
    assert len(found) == 6
    for row in found:
        for place in ("first", "second"):
            rows = read_predictions(
                next(run for run in paper if run.name == row[place]) / "evaluations/test/predictions.csv"
            )
            labels, scores = [one.true_class == "BLD" for one in rows], [one.probability for one in rows]
            alarms, hits, _ = roc_curve(labels, scores, drop_intermediate=False)
            expected = hits[1 - alarms >= 0.9 - 1e-9].max()
            assert float(row[f"sensitivity_{place}"]) == pytest.approx(expected)
        difference = float(row["sensitivity_first"]) - float(row["sensitivity_second"])
        assert float(row["difference"]) == pytest.approx(difference)
        assert float(row["low"]) <= difference <= float(row["high"])


def test_a_difference_without_an_interval_says_why(tmp_path: Path, bldml: Bldml) -> None:
    runs = [write_run(tmp_path / name, rows_of((9, 1, 1, 9))) for name in ("a", "b")]
    assert bldml("compare", *runs, "--output", "out").code == 0
    (row,) = read(Path("out/equal_specificity.csv"))
    assert (row["difference"], row["low"], row["high"]) == ("0.0", "", "")
    assert "no draw of the bootstrap changes the difference" in Page(Path("out/comparison.html")).text


def test_costs_are_shown_where_they_were_recorded(paper: list[Path], bldml: Bldml) -> None:
    (paper[0] / "environment.json").write_text('{"parameters": 20178769}')
    (paper[0] / "training_time.json").write_text('{"training_seconds": 7265}')
    (paper[0] / "evaluations" / "test" / "provenance.json").write_text(
        '{"role": "test", "seconds": 5.8, "device": "a <GPU>"}'
    )
    (paper[0] / "checkpoints").mkdir()
    (paper[0] / "checkpoints" / "best.ckpt").write_bytes(bytes(3 * 2**20))
    (paper[1] / "environment.json").write_text('{"parameters": true}')
    (paper[1] / "training_time.json").write_text('{"training_seconds": -1}')
    (paper[1] / "evaluations" / "test" / "provenance.json").write_text('{"role": "test", "seconds": NaN, "device": 7}')
    assert bldml("compare", *paper, "--output", "out").code == 0
    table = {row["run"]: row for row in read(Path("out/comparison.csv"))}
    row = table["efficientnet"]
    assert (row["parameters"], row["checkpoint_bytes"], row["device"]) == ("20178769", str(3 * 2**20), "a <GPU>")
    assert float(row["images_per_second"]) == pytest.approx(116 / 5.8)
    assert float(row["training_seconds"]) == 7265
    for name in ("inception", "mobilenet", "resnet50"):
        for column in ("parameters", "checkpoint_bytes", "images_per_second", "device", "training_seconds"):
            assert table[name][column] == ""
    text = Page(Path("out/comparison.html")).text
    for shown in ("20.18 million", "3.0 MiB", "a <GPU>", "2 h 1 min"):
        assert shown in text
    assert "20.18 million & 3.0 MiB & 20 a" in Path("out/comparison.tex").read_text()


def test_software_and_hardware_that_differ(tmp_path: Path, bldml: Bldml) -> None:
    runs = [write_run(tmp_path / name, rows_of((9, 1, 1, 9))) for name in ("a", "b")]
    first: dict[str, object] = {"versions": {"torch": "2.10.0", "numpy": "2.0"}, "gpu": "A100"}
    second = {**first, "continued": [{"step": 3, **first, "versions": {"torch": "2.11.0", "numpy": "2.0"}}]}
    for run, record in zip(runs, (first, second), strict=True):
        (run / "environment.json").write_text(json.dumps(record))
    assert bldml("compare", *runs, "--output", "out").code == 0
    assert read(Path("out/conditions.csv")) == [{"Condition": "torch", "a": "2.10.0", "b": "2.10.0 → 2.11.0"}]
    assert "2.10.0 → 2.11.0" in Page(Path("out/comparison.html")).text
    (runs[1] / "environment.json").write_text(json.dumps(first))
    assert bldml("compare", *runs, "--output", "same").code == 0
    assert not Path("same/conditions.csv").exists()


def test_comparison_and_report_show_the_same_numbers(
    tmp_path: Path, bldml: Bldml, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By groups too: one assessment, whose numbers are equal to the last bit. Without figures, which take the time."""
    monkeypatch.setattr("bldml.report.page.evaluation_figures", lambda *_: [])
    for groups in (0, 12):
        runs = [write_run(tmp_path / f"{groups}/{name}", rows_of(PAPER[name], groups=groups)) for name in PAPER]
        assert bldml("compare", *runs, "--output", "out").code == 0
        for row in read(Path("out/comparison.csv")):
            run = tmp_path / str(groups) / row["run"]
            assert bldml("report", run).code == 0
            tables = [run / "tables/test" / name for name in ("scores.csv", "overall.csv")]
            told = {
                one["metric"]: one for table in tables for one in read(table)[:: 2 if "at" in read(table)[0] else 1]
            }
            for score in ("accuracy", "sensitivity", "specificity", "auroc"):
                found = [row[name] for name in (score, f"{score}_low", f"{score}_high", f"{score}_method")]
                assert found == [told[score][name] for name in ("value", "low", "high", "method")]


def test_output_that_cannot_be_written_is_a_message(paper: list[Path], bldml: Bldml) -> None:
    Path("out").write_text("a file")
    outcome = bldml("compare", *paper, "--output", "out")
    assert outcome.mistake == "folder-not-makable"
    assert "out is not a folder" in outcome.err
    assert Path("out").read_text() == "a file"


def test_same_input_same_bytes(paper: list[Path], bldml: Bldml, all_formats: None) -> None:
    for folder in ("one", "two"):
        assert bldml("compare", *paper, "--output", folder).code == 0
    files = [file for file in Path("one").rglob("*") if file.is_file()]
    assert len(files) == 11
    for file in files:
        assert file.read_bytes() == (Path("two") / file.relative_to("one")).read_bytes()


def test_starts_without_anything_heavy(paper: list[Path], tmp_path: Path) -> None:
    code = (
        "import sys; from bldml.cli import main; code = main(sys.argv[1:]);"
        "heavy = {'torch', 'lightning', 'torchvision', 'torchmetrics', 'scipy.stats', 'sklearn'} & set(sys.modules);"
        "sys.exit(code or (f'loaded {heavy}' if heavy else 0))"
    )
    command = [sys.executable, "-c", code, "compare", *map(str, paper), "--output", str(tmp_path / "out")]
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert time.perf_counter() - start < 30  # two seconds on a free machine


def test_a_run_records_what_it_costs(run: Path, tmp_path: Path, bldml: Bldml) -> None:
    other = Path(shutil.copytree(run, tmp_path / "other"))
    outcome = bldml("compare", run, other, "--output", "out")
    assert outcome.code == 0, outcome.err
    first, second = read(Path("out/comparison.csv"))
    state = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    sizes = [
        values.numel()
        for name, values in state.items()
        if name.startswith("network.") and not re.search(r"running_(mean|var)|num_batches", name)  # BatchNorm's own
    ]
    assert int(first["parameters"]) == int(second["parameters"]) == sum(sizes)
    assert int(first["checkpoint_bytes"]) == (run / "checkpoints" / "best.ckpt").stat().st_size
    seconds = json.loads((run / "evaluations" / "test" / "provenance.json").read_text())["seconds"]
    assert 0 < seconds < 600
    assert float(first["images_per_second"]) == pytest.approx(int(first["n"]) / seconds)
    assert first["device"]


def test_photographs_are_told_by_content_where_they_lie_elsewhere(paper: list[Path], bldml: Bldml) -> None:
    """One run tested them under other names; then one of them is another photograph."""
    first, moved = paper[0], paper[1]
    names = {row.path: f"copy/{number:03}.jpg" for number, row in enumerate(rows_of(PAPER["inception"], 1)[::-1])}
    rows = [replace(row, path=names[row.path]) for row in rows_of(PAPER["inception"], 1)]
    write_predictions(moved / "evaluations/test/predictions.csv", rows)
    assert bldml("compare", first, moved).code == 1

    def table(paths: Mapping[str, str], different: str = "") -> str:
        digests = {old: f"{number:064x}" for number, old in enumerate(sorted(paths))}
        return photographs_text(
            PhotographRow(new, "test", "", "", 0, 0, "", "", "f" * 64 if old == different else digests[old])
            for old, new in paths.items()
        )

    (first / "photographs.csv").write_text(table({name: name for name in names}))
    (moved / "evaluations/test/photographs.csv").write_text(table(names))
    outcome = bldml("compare", first, moved)
    assert outcome.code == 0, outcome.err
    found = {row["run"]: float(row["accuracy"]) for row in read(Path("comparison/comparison.csv"))}
    assert found == pytest.approx({"efficientnet": 112 / 116, "inception": 100 / 116})
    (difference,) = read(Path("comparison/differences.csv"))
    right = {}
    for name, seed in (("efficientnet", 0), ("inception", 1)):
        right[name] = {row.path for row in rows_of(PAPER[name], seed) if row.true_class == row.predicted_class}
    assert int(difference["b"]) == len(right["efficientnet"] - right["inception"])

    write_predictions(moved / "evaluations/test/predictions.csv", rows_of(PAPER["inception"], 1))
    one = "BLD/leaf_003.jpg"
    (moved / "evaluations/test/photographs.csv").write_text(table({name: name for name in names}, one))
    refused = bldml("compare", first, moved, "--output=other")
    assert refused.mistake == "evaluations-differ"
    assert [found.partition(" '")[0] for found in refused.fields["found"]] == [f"{one}: content"]
    assert not Path("other").exists()
