"""Files of a run that were changed since an evaluation recorded them: said, where numbers are read from them."""

import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from bldml.notebook import Run
from bldml.run.folder import RunFolder
from bldml.run.gallery import read_gallery
from tests.support import Bldml

CPU = "--trainer.accelerator=cpu"
CHECKPOINT = "best.ckpt is not the file that was evaluated"
PREDICTIONS = "test: the rows of predictions.csv are not those that were written"
METRICS = "test: metrics.json is missing or does not have the values that were written"
PROVENANCE = "test: provenance.json does not have the values that were written"
HISTORY = "history.csv has other values for the epochs"


@pytest.fixture
def own(run: Path, tmp_path: Path) -> RunFolder:
    return RunFolder(Path(shutil.copytree(run, tmp_path / "logs" / "copy")))


def page_of(own: RunFolder, bldml: Bldml) -> str:
    outcome = bldml("report", own.path)
    assert outcome.code == 0, outcome.err
    return (own.path / "report.html").read_text(encoding="utf-8")


def test_nothing_is_said_of_a_run_that_was_only_moved(own: RunFolder, bldml: Bldml) -> None:
    page = page_of(own, bldml)
    assert "changed since" not in page
    assert "by the SHA-256" not in page
    recorded = json.loads((own.evaluation("test") / "provenance.json").read_text())
    of_run = {"checkpoint", "history", "environment", "training_time", "ledger"}
    assert recorded["sha256"].keys() == of_run | {"predictions", "distances", "metrics", "table", "provenance"}
    assert (recorded["epochs"], recorded["starts"], recorded["looks"]) == (4, 0, 2)
    recorded = json.loads(own.environment.read_text())
    assert recorded["sha256"].keys() == {"config", "splits", "photographs", "leaks", "environment"}


def test_another_checkpoint_is_said_by_the_report_and_the_next_evaluation(own: RunFolder, bldml: Bldml) -> None:
    content = torch.load(own.best_checkpoint, weights_only=True)
    content["state_dict"] = {key: value + 0 for key, value in content["state_dict"].items()}
    content["bldml"]["threshold"] *= 0.999
    torch.save(content, own.best_checkpoint)
    assert CHECKPOINT in page_of(own, bldml)
    outcome = bldml("test", f"--ckpt_path={own.best_checkpoint}", "--report=false", CPU)
    assert outcome.code == 0
    assert f"train, val: {CHECKPOINT}" in outcome.err or f"val, train: {CHECKPOINT}" in outcome.err


def test_an_edited_table_is_said_where_no_metric_shows_it(own: RunFolder, bldml: Bldml) -> None:
    path = own.evaluation("test") / "predictions.csv"
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    rows[0]["group"] = "tree 7"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(reversed(rows))
    assert PREDICTIONS in page_of(own, bldml)
    rows[0]["group"] = ""
    with path.open("w", newline="") as file:  # as a spreadsheet would save it
        writer = csv.DictWriter(file, rows[0], quoting=csv.QUOTE_ALL)
        writer.writeheader()
        writer.writerows(rows)
    assert PREDICTIONS not in page_of(own, bldml)


def edit(path: Path, change: Callable[[dict[str, Any]], object], indent: int | None = None) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(dict(reversed(document.items())), indent=indent))


def test_an_edited_interval_is_said_wherever_the_metrics_are_shown(
    own: RunFolder, bldml: Bldml, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = own.evaluation("test") / "metrics.json"
    edit(path, lambda metrics: metrics["intervals"]["auroc"].update(low=0.99))
    assert METRICS in page_of(own, bldml)
    other = Path(shutil.copytree(own.path, own.path.parent / "other"))
    assert bldml("compare", own.path, other, f"--output={tmp_path / 'both'}").code == 0
    page = (tmp_path / "both" / "comparison.html").read_text()
    assert f"copy: {METRICS}" in page
    assert f"other: {METRICS}" in page
    Run(own.path)
    assert f"Warning: copy: {METRICS}" in capsys.readouterr().err


def test_another_layout_of_the_same_metrics_is_no_change(own: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("metrics.json", "provenance.json"):
        edit(own.evaluation("test") / name, lambda _: None, indent=7)
    Run(own.path)
    assert not capsys.readouterr().err


def test_an_edited_provenance_is_said_and_proves_nothing_of_other_files(
    own: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    path = own.evaluation("test") / "provenance.json"
    edit(path, lambda origin: origin["sha256"].update(checkpoint="ab" * 32))
    Run(own.path)
    said = capsys.readouterr().err
    assert PROVENANCE in said
    assert CHECKPOINT not in said


def test_an_older_run_records_no_digest_of_these(own: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    folder = own.evaluation("test")
    edit(folder / "metrics.json", lambda metrics: metrics["intervals"]["auroc"].update(low=0.99))
    edit(own.environment, lambda record: record.pop("sha256"))
    for name in ("train", "val", "test"):
        edit(own.evaluation(name) / "provenance.json", lambda origin: origin.pop("sha256"))
    Run(own.path)
    assert not capsys.readouterr().err


def test_an_edited_distance_is_said(own: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    path = own.evaluation("test") / "predictions.csv"
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    rows[0]["distance"] = "0.25"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    assert "test: a distance or a band in predictions.csv is not the one that was written" in said_of(own, capsys)


def test_a_cut_table_is_refused(own: RunFolder, bldml: Bldml) -> None:
    path = own.evaluation("test") / "predictions.csv"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    assert bldml("report", own.path).mistake == "metrics-contradict-predictions"


def test_an_edited_history_is_said(own: RunFolder, bldml: Bldml) -> None:
    lines = own.history.read_text().splitlines()
    column = lines[0].split(",").index("val_loss")
    cells = lines[2].split(",")
    cells[column] = "0.001"
    own.history.write_text("\n".join([*lines[:2], ",".join(cells), *lines[3:]]) + "\n")
    assert HISTORY in page_of(own, bldml)


def said_of(own: RunFolder, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    Run(own.path)
    return capsys.readouterr().err


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("config.yaml", "max_epochs: 4", "max_epochs: 5"),
        ("splits.csv", ",val", ",train"),
        ("photographs.csv", "train", "test"),
        ("leaks.csv", "photograph", "photographs"),
    ],
)
def test_an_edited_file_of_the_start_is_said(
    own: RunFolder, capsys: pytest.CaptureFixture[str], name: str, old: str, new: str
) -> None:
    path = own.path / name
    text = path.read_text()
    if name == "leaks.csv":
        path.unlink()  # leaks would count as not searched
    else:
        replace(path, old, new)
    told = f"Warning: copy: {name} is missing or does not have the values that this run wrote"
    assert told in said_of(own, capsys)
    path.write_text(text.replace("\n", "\r\n"))
    assert not said_of(own, capsys)


def test_tables_that_a_spreadsheet_saved_are_as_they_were(own: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    """It writes 0.0 as 0 and has fifteen digits."""
    folder = own.evaluation("test")
    tables = [own.path / "photographs.csv", own.splits, folder / "metrics.csv", folder / "explanations" / "gallery.csv"]
    changed = 0
    for path in tables:
        with path.open(newline="") as file:
            rows = list(csv.reader(file))
        shown = [
            [f"{float(cell):.15g}" if re.fullmatch(r"\d+\.\d+(e-\d+)?", cell) else cell for cell in row] for row in rows
        ]
        changed += shown != rows
        with path.open("w", newline="") as file:
            csv.writer(file).writerows(shown)
    assert changed > 1
    assert not said_of(own, capsys)


def test_a_damaged_table_of_pictures_does_not_stop_what_shows_none(
    own: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    (own.evaluation("test") / "explanations" / "gallery.csv").write_text('kind,path\n"')
    assert "test: a picture in explanations, or its row in gallery.csv, was changed" in said_of(own, capsys)


def test_an_evaluation_while_the_training_goes_on_is_not_blamed_for_its_time(
    own: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    with own.history.open("a") as file:
        file.write(own.history.read_text().splitlines()[-1].replace("3,", "4,", 1) + "\n")
    own.training_time.write_text('{"training_seconds": 12.5}')
    assert not said_of(own, capsys)


def test_a_fact_in_the_card_may_be_corrected(own: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    replace(own.config, "  site: null", "  site: Turrialba")
    replace(own.config, "  root: ", "  root: /elsewhere")
    assert not said_of(own, capsys)


def test_an_edited_environment_is_said_also_where_its_own_digest_fits(
    own: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(own.environment, lambda record: record.update(seed=99))
    said = said_of(own, capsys)
    assert "environment.json is missing or does not have the values that this run wrote" in said
    assert "environment.json has other values" not in said, "the same once more"
    own.environment.write_text(json.dumps({"seed": 99}))
    assert "environment.json has other values for the training before this evaluation" in said_of(own, capsys)


def test_an_edited_time_or_csv_of_metrics_is_said(own: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    own.training_time.write_text('{"training_seconds": 12.5}')
    assert "training_time.json is missing or has another value than when" in said_of(own, capsys)
    table = own.evaluation("test") / "metrics.csv"
    for old, new in (("chosen,0.", "chosen,0.9"), ("chosen,0.", "chosen,,0.")):  # another value, a cell too many
        text = table.read_text()
        replace(table, old, new)
        assert "test: metrics.csv is missing or does not have the values that were written" in said_of(own, capsys)
        table.write_text(text)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_an_evaluation_that_is_removed_from_the_ledger_is_said(
    own: RunFolder, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    lines = own.ledger.read_text().splitlines(keepends=True)
    assert len(lines) == 4
    own.ledger.write_text("".join(lines[:number] + lines[number + 1 :]))
    assert "ledger.csv lacks this evaluation, or has others before it" in said_of(own, capsys)


def test_a_provenance_that_is_replaced_or_removed_is_said(own: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    path = own.evaluation("test") / "provenance.json"
    text = path.read_text()
    for content in ('{"role": "test"}', "{}", ""):
        if content:
            path.write_text(content)
        else:
            path.unlink()
        assert "test: provenance.json is missing or records no SHA-256" in said_of(own, capsys)
    path.write_text((own.evaluation("val") / "provenance.json").read_text())  # whole, but of others
    assert PREDICTIONS in said_of(own, capsys)
    path.write_text(text)
    assert not said_of(own, capsys)


def test_a_resumed_run_says_what_was_changed_and_keeps_it(own: RunFolder, bldml: Bldml) -> None:
    replace(own.path / "photographs.csv", "train", "test")
    before = json.loads(own.environment.read_text())["sha256"]
    outcome = bldml("fit", f"--resume={own.path}", "--report=false", CPU)
    assert "photographs.csv is missing or does not have the values that this run wrote" in outcome.err
    record = json.loads(own.environment.read_text())
    assert len(record["continued"]) == 1
    assert record["sha256"]["photographs"] == before["photographs"]
    assert record["sha256"]["environment"] != before["environment"]


@pytest.mark.parametrize("what", ["photograph", "row", "comma"])
def test_a_changed_picture_is_said_and_not_shown(own: RunFolder, capsys: pytest.CaptureFixture[str], what: str) -> None:
    folder = own.evaluation("test")
    shown = read_gallery(folder)
    assert len(shown) > 1
    if what == "photograph":
        content = bytearray(shown[0].photograph.read_bytes())
        content[-20] ^= 1
        shown[0].photograph.write_bytes(content)
    elif what == "comma":
        replace(folder / "explanations" / "gallery.csv", f",{shown[0].photograph.name}", f"-{shown[0].photograph.name}")
    else:  # another photograph of the same gallery
        other = next(one.overlay.name for one in shown if one.overlay != shown[0].overlay)
        replace(folder / "explanations" / "gallery.csv", shown[0].overlay.name, other)
    assert "test: a picture in explanations, or its row in gallery.csv, was changed" in said_of(own, capsys)
    assert len(read_gallery(folder)) < len(shown)
