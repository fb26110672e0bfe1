"""Run folders, atomic files and tables, on a real file system and with real parallel writers."""

import csv
import json
import multiprocessing
import os
import random
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from bldml.io.atomic import check_name, write_atomically
from bldml.metrics.assessment import EvaluationMetrics, evaluate
from bldml.metrics.checked import SamplingUnit
from bldml.metrics.operating_point import OperatingPoint
from bldml.run.folder import RunFolder
from bldml.run.predictions import Prediction, read_metrics, read_predictions, write_metrics, write_predictions
from tests.support import mistake

FILES = {"config.yaml": "seed_everything: 1\n"}
HEADER = "path,group,true_class,predicted_class,probability\n"


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Let writes beyond `size` bytes fail half way, as on a full disk."""
    resource = pytest.importorskip("resource")  # Windows has none
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def read_only_folder() -> Iterator[Path]:
    """A folder that this process may read but not write to; root, who may, becomes another user meanwhile."""
    user = os.geteuid()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "run").mkdir(mode=0o755)
        (folder / "run" / "old.csv").write_text("old")
        (folder / "run").chmod(0o555)
        folder.chmod(0o555)
        if user == 0:
            os.seteuid(65534)
        yield folder
        os.seteuid(user)
        folder.chmod(0o755)
        (folder / "run").chmod(0o755)


@pytest.fixture
def processes() -> Iterator[ProcessPoolExecutor]:
    """Four processes that wait for each other before they begin; needs four jobs or more."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(4, spawn, initializer=spawn.Barrier(4).wait) as pool:
        yield pool


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


# Names


@pytest.mark.parametrize("name", ["resnet50", "resnet50 2026-01-31 12:00", "Вяз_3", "榉树", "a.b", "x" * 200])
def test_good_names(name: str, tmp_path: Path) -> None:
    check_name(name, "run")
    assert RunFolder.create(tmp_path, name, FILES).path.is_dir()


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("", "is empty"),
        ("  ", "is empty"),
        ("a/b", "path separator"),
        ("/tmp", "path separator"),
        ("a\\b", "path separator"),
        (".", "starts with '.'"),
        ("..", "starts with '.'"),
        (".hidden", "starts with '.'"),
        ("-rf", "starts with '-'"),
        ("a\nb", "control characters"),
        ("a\0b", "control characters"),
        ("a\x7f", "control characters"),
        ("a\u2028b", "control characters"),
        ("a\udcff", "invalid text"),
        ("x" * 201, "201 bytes long; 200 are allowed"),
        ("ä" * 101, "202 bytes long"),
    ],
)
def test_bad_names(name: str, problem: str, tmp_path: Path) -> None:
    with mistake("name-refused", found=name, what="evaluation") as raised:
        check_name(name, "evaluation")
    assert problem in raised.value.fields["reason"]
    assert str(raised.value).isprintable()
    with mistake("name-refused"):
        RunFolder.create(tmp_path / "logs", name, FILES)
    with mistake("name-refused"):
        RunFolder(tmp_path).evaluation(name)
    assert not list(tmp_path.iterdir())


# Run folders


def test_places_in_a_run() -> None:
    run = RunFolder(Path("logs/a"))
    places = {
        run.config: "config.yaml",
        run.environment: "environment.json",
        run.lock: ".lock",
        run.history: "history.csv",
        run.splits: "splits.csv",
        run.excluded: "excluded.csv",
        run.checkpoints: "checkpoints",
        run.best_checkpoint: "checkpoints/best.ckpt",
        run.last_checkpoint: "checkpoints/last.ckpt",
        run.evaluation("test"): "evaluations/test",
    }
    assert all(place == Path("logs/a") / expected for place, expected in places.items())


def test_create_makes_the_folder_and_its_parents(tmp_path: Path) -> None:
    with umask(0o002):
        run = RunFolder.create(tmp_path / "a" / "lightning_logs", "beech", FILES)
    assert run.path == tmp_path / "a" / "lightning_logs" / "beech"
    assert {path.name: path.read_text() for path in run.path.iterdir()} == FILES
    assert mode(run.path) == mode(run.path.parent) == 0o775


def test_create_refuses_an_existing_run_and_leaves_it_alone(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path, "beech", FILES)
    run.config.write_text("old")
    with mistake("run-folder-exists", path=run.path):
        RunFolder.create(tmp_path, "beech", FILES)
    assert run.config.read_text() == "old"
    assert list(tmp_path.iterdir()) == [run.path]


def test_unique_names_are_numbered(tmp_path: Path) -> None:
    (tmp_path / "beech-3").write_text("a file has this name")
    found = [RunFolder.create(tmp_path, "beech", FILES, unique=True).path.name for _ in range(3)]
    assert found == ["beech", "beech-2", "beech-4"]


def test_unique_names_of_parallel_jobs(tmp_path: Path, processes: ProcessPoolExecutor) -> None:
    logs = tmp_path / "lightning_logs"
    create = partial(RunFolder.create, logs, content=FILES, unique=True)
    made = [run.path.name for run in processes.map(create, ["beech"] * 240, chunksize=60)]
    assert sorted(made) == sorted({"beech", *(f"beech-{number}" for number in range(2, 241))})
    assert {folder.name for folder in logs.iterdir()} == set(made)


@pytest.mark.parametrize("unique", [False, True])
def test_create_where_nothing_may_be_written(read_only_folder: Path, unique: bool) -> None:
    for logs in (read_only_folder, read_only_folder / "new" / "logs"):
        with mistake("run-folder-not-makable", path=logs / "beech", reason="Permission denied"):
            RunFolder.create(logs, "beech", FILES, unique=unique)
    assert [folder.name for folder in read_only_folder.iterdir()] == ["run"]


@pytest.mark.parametrize("unique", [False, True])
def test_create_with_a_file_in_the_way(tmp_path: Path, unique: bool) -> None:
    (tmp_path / "file").write_text("old")
    for logs in (tmp_path / "file", tmp_path / "file" / "logs"):
        with mistake("run-folder-not-makable", path=logs / "beech"):
            RunFolder.create(logs, "beech", FILES, unique=unique)
    assert (tmp_path / "file").read_text() == "old"


def test_create_that_fails_leaves_no_parents_behind(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    with mistake("run-folder-not-makable", reason="File name too long"):
        RunFolder.create(tmp_path / "kept" / "new" / ("x" * 300), "beech", FILES)
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")] == ["kept"]


def test_run_of_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunFolder.create(tmp_path, "beech", FILES)
    run.checkpoints.mkdir()
    run.best_checkpoint.write_bytes(b"")
    run.config.unlink()
    assert RunFolder.of_checkpoint(run.best_checkpoint) is None
    run.config.write_text("")
    assert RunFolder.of_checkpoint(run.best_checkpoint) == run
    assert RunFolder.of_checkpoint(run.path / "best.ckpt") is None
    assert RunFolder.of_checkpoint(run.path / "weights" / "best.ckpt") is None
    monkeypatch.chdir(run.checkpoints)
    assert RunFolder.of_checkpoint(Path("best.ckpt")) == run
    assert RunFolder.of_checkpoint(Path("../checkpoints/best.ckpt")) == run


def test_run_of_a_checkpoint_behind_links(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path, "beech", FILES)
    (tmp_path / "scratch").mkdir()
    run.checkpoints.symlink_to(tmp_path / "scratch")
    run.best_checkpoint.write_bytes(b"")
    assert RunFolder.of_checkpoint(run.best_checkpoint) == run
    other = RunFolder.create(tmp_path, "oak", FILES)
    other.checkpoints.mkdir()
    other.best_checkpoint.write_bytes(b"")
    (tmp_path / "chosen.ckpt").symlink_to(other.best_checkpoint)
    assert RunFolder.of_checkpoint(tmp_path / "chosen.ckpt") == other


# Atomic writing


def test_write_atomically_replaces_the_content(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_atomically(path, "first, longer")
    write_atomically(path, "Blätter\n")
    assert path.read_bytes() == b"Bl\xc3\xa4tter\n"
    write_atomically(path, b"\xff\r\n")
    assert path.read_bytes() == b"\xff\r\n"
    assert list(tmp_path.iterdir()) == [path]


def test_write_atomically_takes_the_longest_name(tmp_path: Path) -> None:
    write_atomically(tmp_path / ("x" * 255), "new")
    assert (tmp_path / ("x" * 255)).read_text() == "new"


def test_write_that_fails_half_way_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with file_size_limit(1000), mistake("file-not-writable", path=path, reason="File too large"):
        write_atomically(path, "x" * 100_000)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_content_that_cannot_be_encoded_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "x" * 100_000 + "\udcff")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_folder_in_the_way_leaves_no_temporary_file(tmp_path: Path) -> None:
    (tmp_path / "a.txt").mkdir()
    with mistake("file-not-writable", reason="Is a directory"):
        write_atomically(tmp_path / "a.txt", "new")
    assert [path.name for path in tmp_path.rglob("*")] == ["a.txt"]


def test_write_into_a_missing_folder(tmp_path: Path) -> None:
    with mistake("file-not-writable", reason="No such file or directory"):
        write_atomically(tmp_path / "missing" / "a.txt", "new")
    assert list(tmp_path.iterdir()) == []


def test_write_into_a_read_only_folder(read_only_folder: Path) -> None:
    with mistake("file-not-writable", reason="Permission denied"):
        write_atomically(read_only_folder / "run" / "old.csv", "new")
    assert (read_only_folder / "run" / "old.csv").read_text() == "old"


@pytest.mark.parametrize(("mask", "expected"), [(0o022, 0o644), (0o027, 0o640), (0o002, 0o664)])
def test_files_follow_the_umask(tmp_path: Path, mask: int, expected: int) -> None:
    with umask(mask):
        write_atomically(tmp_path / "a.txt", "new")
        write_atomically(tmp_path / "a.txt", "again")
    assert mode(tmp_path / "a.txt") == expected


def test_parallel_writers_and_a_reader_see_whole_files_only(tmp_path: Path, processes: ProcessPoolExecutor) -> None:
    path = tmp_path / "a.txt"
    contents = [str(number) * 200_000 for number in range(10)]
    write_atomically(path, contents[0])
    jobs = [processes.submit(write_atomically, path, contents[number % 10]) for number in range(80)]
    while not all(job.done() for job in jobs):
        assert path.read_text() in contents
    for job in jobs:
        job.result()
    assert path.read_text() in contents
    assert list(tmp_path.iterdir()) == [path]


# Predictions


NASTY = [
    *("", "BLD", "healthy leaf", "été", "榉树", "🍂", 'a "quoted" one', "a,b", "a;b", " padded ", "# x"),
    *("a\nb", "a\r\nb", "a\rb", "\n", "\r", "\t", "=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx", "=a,b\n"),
    *("'", "''", "'a", "'=1", "''=1", "''a", "'", "\ufeffa", "a\u2028b", "\\udcff", "\\", "\x1b[31m"),
]


@pytest.mark.parametrize("text", NASTY)
def test_predictions_round_trip(tmp_path: Path, text: str) -> None:
    predictions = [
        Prediction(path=f"a{text}.jpg", group=text, true_class="", predicted_class="x", probability=0.1),
        Prediction(path="b.jpg", group="", true_class=text, predicted_class=text, probability=1.0),
    ]
    write_predictions(tmp_path / "predictions.csv", predictions)
    assert read_predictions(tmp_path / "predictions.csv") == predictions


def test_random_predictions_round_trip(tmp_path: Path) -> None:
    rng = random.Random(0)

    def draw() -> str:
        return "".join(rng.choices("ab,'\"\n\r\t=+-@;é ", k=rng.randint(0, 5)))

    predictions = [
        Prediction(draw(), draw(), draw(), draw(), probability)
        for probability in [0.0, 1.0, 5e-324, 1 - 2**-53, 0.1 + 0.2, *(rng.random() for _ in range(3000))]
    ]
    write_predictions(tmp_path / "predictions.csv", iter(predictions))
    assert read_predictions(tmp_path / "predictions.csv") == predictions


def test_the_table_as_text(tmp_path: Path) -> None:
    path = tmp_path / "evaluations" / "test" / "predictions.csv"
    write_predictions(path, [Prediction("./=a.jpg", "tree 1", "BLD", "healthy", np.float64(0.25))])
    assert path.read_bytes().decode() == HEADER + "./=a.jpg,tree 1,BLD,healthy,0.25\n"
    in_burst = Prediction("b.jpg", "", "BLD", "BLD", 0.5, "a.jpg")
    write_predictions(path, [in_burst])
    assert path.read_bytes().decode() == f"{HEADER[:-1]},burst\nb.jpg,,BLD,BLD,0.5,a.jpg\n"
    assert read_predictions(path) == [in_burst]
    write_predictions(path, [])
    assert path.read_bytes().decode() == f"{HEADER[:-1]},burst\n"
    assert read_predictions(path) == []


@pytest.mark.parametrize("text", ["=1", "+1", "-1", "@A", "\tA", "\rA", "'=1"])
def test_no_text_cell_is_a_formula_and_no_number_is_text(tmp_path: Path, text: str) -> None:
    write_predictions(tmp_path / "a.csv", [Prediction("-a.jpg", text, text, text, 5e-324)])
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
        _, cells = csv.reader(file)
    assert cells == ["-a.jpg", f"'{text}", f"'{text}", f"'{text}", "5e-324"]


def test_lone_surrogates_do_not_stop_the_writing(tmp_path: Path) -> None:
    write_predictions(tmp_path / "a.csv", [Prediction("a\udcff.jpg", "\ud800", "x", "=\udcff", 0.5)])
    assert read_predictions(tmp_path / "a.csv") == [Prediction("a\\udcff.jpg", "\\ud800", "x", "=\\udcff", 0.5)]


@pytest.mark.parametrize("probability", [float("nan"), float("inf"), -0.1, 1.1])
def test_impossible_probability_keeps_the_old_table(tmp_path: Path, probability: float) -> None:
    path = tmp_path / "a.csv"
    path.write_text("old")
    with pytest.raises(ValueError, match=r"leaf\.jpg must lie in \[0, 1\], found"):
        write_predictions(path, [Prediction("leaf.jpg", "", "", "x", probability)])
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_table_that_went_through_a_spreadsheet(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    lines = "path,note,probability,group,true_class,predicted_class\r\n\r\na.jpg,look,0.5,g,'=x,y\r\n"
    path.write_bytes(b"\xef\xbb\xbf" + lines.encode())
    assert read_predictions(path) == [Prediction("a.jpg", "g", "=x", "y", 0.5)]


@pytest.mark.parametrize(
    ("content", "code", "fields"),
    [
        (b"", "foreign", {"found": []}),
        (b"path;group;true_class\n", "foreign", {"found": ["path;group;true_class"]}),
        (HEADER.replace(",probability", "").encode(), "foreign", {"expected": ["probability"]}),
        (HEADER.encode() + b"a,,,x,0.5\nb,,,x,often\n", "probability", {"row": 3, "found": "'often'"}),
        (HEADER.encode() + b"a,,,x,\n", "probability", {"row": 2, "found": "''"}),
        (HEADER.encode() + b'"a\nb",,,x,0.5\n\nb,,,x,1.5\n', "probability", {"row": 4, "found": "'1.5'"}),
        (HEADER.encode() + b"a,,,x,nan\n", "probability", {"row": 2, "found": "'nan'"}),
        (HEADER.encode() + b"a,,,x,0.5\nb,,\n", "cells", {"row": 3, "found": 3, "expected": 5}),
        (HEADER.encode() + b"a,b,,,x,0.5\n", "cells", {"row": 2, "found": 6, "expected": 5}),
        (HEADER.encode() + b"\xff,,,x,0.5\n", "damaged", {}),
        (HEADER.encode() + b'"cut off,,', "damaged", {"reason": "unexpected end of data"}),
        (HEADER.encode() + b"a" * 200_000, "damaged", {}),
    ],
)
def test_table_that_cannot_be_read(tmp_path: Path, content: bytes, code: str, fields: dict[str, object]) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    codes = {"probability": "probability-wrong", "cells": "prediction-cells-wrong"}
    with mistake(codes.get(code, f"predictions-{code}"), path=path, **fields):
        read_predictions(path)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with mistake("predictions-unreadable", path=tmp_path / "a.csv"):
        read_predictions(tmp_path / "a.csv")
    with mistake("metrics-unreadable", path=tmp_path / "metrics.json"):
        read_metrics(tmp_path)


@pytest.fixture
def written() -> EvaluationMetrics:
    """Metrics, computed before the rights to import SciPy are given up."""
    return metrics()


def test_unwritable_folder_is_named(written: EvaluationMetrics, read_only_folder: Path) -> None:
    for folder in (read_only_folder / "test", read_only_folder / "run" / "old.csv"):
        with mistake("folder-not-makable", path=folder):
            write_predictions(folder / "predictions.csv", [])
        with mistake("folder-not-makable", path=folder):
            write_metrics(folder, written)


# Metrics


A, B = SamplingUnit("group", "a"), SamplingUnit("burst", "a")  # two units of one name


def metrics() -> EvaluationMetrics:
    labels, probabilities = [0, 0, 1, 1, 1], [0.1, 0.6, 0.2, 0.7, 0.9]
    return evaluate(labels, probabilities, OperatingPoint(threshold=0.15, temperature=1.25), [A, A, B, None, None])


def test_metrics_round_trip(tmp_path: Path) -> None:
    write_metrics(tmp_path / "evaluations" / "test", metrics())
    assert read_metrics(tmp_path / "evaluations" / "test") == metrics()
    text = (tmp_path / "evaluations" / "test" / "metrics.json").read_text()
    assert text.startswith('{\n  "schema": 2,\n  "n": 5,\n')
    assert text.endswith("}\n")


def test_metrics_as_a_table(tmp_path: Path) -> None:
    write_metrics(tmp_path, metrics())
    with (tmp_path / "metrics.csv").open(encoding="utf-8", newline="") as file:
        header, chosen, half = csv.reader(file)
    at, overall = metrics().at_threshold, metrics().overall
    with_limits = [name for name in (*at, *overall) if name not in ("tp", "fp", "fn", "tn", "loss_uncalibrated")]
    assert header == [
        *("operating_point", "threshold", *at, "n", "n_positive", *overall, "temperature"),
        *(f"{name}_{part}" for name in with_limits for part in ("low", "high", "method", "unit")),
    ]
    intervals = metrics().intervals
    for row, key in ((chosen, "at_threshold"), (half, "at_0.5")):
        cells = dict(zip(header, row, strict=True))
        for name in with_limits:
            limits = intervals[key][name] if name in at else intervals[name]
            assert limits["unit"] == cells[f"{name}_unit"] == "group or burst"
            assert limits["method"] == cells[f"{name}_method"]
            assert ("" if limits["low"] is None else str(limits["low"])) == cells[f"{name}_low"]
    assert intervals["at_threshold"]["accuracy"]["method"] == "beta-binomial, 4 units"
    assert chosen[:6] == ["chosen", "0.15", "3", "1", "0", "1"]
    assert half[:6] == ["0.5", "0.5", "2", "1", "1", "1"]
    assert float(chosen[header.index("f1")]) == metrics().at_threshold["f1"]
    assert float(half[header.index("f1")]) == metrics().at_half["f1"]
    first, last, plain = header.index("n"), header.index("temperature") + 1, metrics().to_plain()
    assert half[first:last] == chosen[first:last]
    assert [float(cell) if cell else None for cell in half[first:last]] == [plain[key] for key in header[first:last]]
    assert b"\r" not in (tmp_path / "metrics.csv").read_bytes()


def test_metrics_of_0_1_are_read_by_the_names_of_today(tmp_path: Path) -> None:
    old = metrics().to_plain()
    del old["schema"], old["ece"], old["intervals"]
    for key in ("at_threshold", "at_0.5"):
        old[key]["recall"], old[key]["precision"] = old[key].pop("sensitivity"), old[key].pop("ppv")
    (tmp_path / "metrics.json").write_text(json.dumps(old))
    found = read_metrics(tmp_path)
    assert (found.at_threshold, found.at_half) == (metrics().at_threshold, metrics().at_half)
    expected = {
        name: value for name, value in metrics().overall.items() if name not in ("ece", "calibration_intercept")
    }
    assert (found.overall, found.intervals) == (expected, {})
    (tmp_path / "metrics.json").write_text(json.dumps(old | {"schema": 1}))
    assert read_metrics(tmp_path) == found


def test_undefined_metrics_are_empty_cells(tmp_path: Path) -> None:
    undefined = evaluate([0], [0.2], OperatingPoint(threshold=0.5, temperature=1.0))
    write_metrics(tmp_path, undefined)
    assert read_metrics(tmp_path) == undefined
    with (tmp_path / "metrics.csv").open(encoding="utf-8", newline="") as file:
        chosen, _ = csv.DictReader(file)
    assert chosen["auroc"] == chosen["sensitivity"] == ""
    assert chosen["specificity"] == "1.0"


def test_metrics_that_are_not_finite_are_not_written(tmp_path: Path) -> None:
    write_metrics(tmp_path, metrics())
    with pytest.raises(ValueError, match="Out of range float"):
        write_metrics(tmp_path, replace(metrics(), n=7, overall={"loss": float("nan")}))
    assert read_metrics(tmp_path) == metrics()
    assert ",7," not in (tmp_path / "metrics.csv").read_text()
    assert {path.name for path in tmp_path.iterdir()} == {"metrics.csv", "metrics.json"}


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"{", "metrics-damaged"),
        (b"\xff", "metrics-damaged"),
        (b"[]", "metrics-foreign"),
        (json.dumps({"n": 3}).encode(), "metrics-foreign"),
        (json.dumps({"schema": 2, "n": 3}).encode(), "metrics-foreign"),
    ],
)
def test_metrics_that_cannot_be_read(tmp_path: Path, content: bytes, code: str) -> None:
    (tmp_path / "metrics.json").write_bytes(content)
    with mistake(code, path=tmp_path / "metrics.json"):
        read_metrics(tmp_path)
