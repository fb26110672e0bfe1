"""`bldml survey` as a user meets it."""

import base64
import csv
import io
import json
import os
import re
import shutil
import struct
from pathlib import Path
from xml.etree import ElementTree

import pyogrio
import pytest
from PIL import Image
from scipy.special import logit

from bldml.metrics.certainty.unit_verdicts import UnitAssessment, choose_unit_rule
from bldml.run.predictions import read_predictions
from tests.support import THREE_LAYERS, Bldml

TREE = {1: "N", 2: (47.0, 30.0, 36.0), 3: "E", 4: (8.0, 15.0, 18.0)}
NEAR = {1: "N", 2: (47.0, 30.0, 36.2), 3: "E", 4: (8.0, 15.0, 18.0)}  # 6 m to the north
FAR = {1: "N", 2: (47.0, 30.0, 40.0), 3: "W", 4: (8.0, 15.0, 18.0)}
NOWHERE = {2: (47.0, 30.0, 36.0), 3: "E", 4: (8.0, 15.0, 18.0)}


@pytest.fixture
def photographs(leaves: Path, tmp_path: Path) -> Path:
    """Eight leaves in two folders, some with a position, and a damaged one."""
    folder = tmp_path / "photographs"
    places = (TREE, NEAR, FAR, NOWHERE)
    for name in ("BLD", "No_BLD"):
        (folder / name).mkdir(parents=True)
        for path, place in zip(sorted((leaves / name).iterdir())[:4], places, strict=True):
            exif = Image.Exif()
            exif[0x8825] = place
            exif[0x8769] = {0x9003: "2024:05:01 12:30:00", 0x9011: "+02:00"}
            exif[0x010F] = "SecretCamera"
            with Image.open(path) as picture:
                picture.save(folder / name / path.name, exif=exif, quality=95)
    (folder / "BLD" / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    return folder


def table(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as text:
        return list(csv.DictReader(text, strict=True))


def contents(folder: Path) -> dict[str, bytes]:
    """The results, without the time at which they were written."""
    found = {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in (".csv", ".geojson", ".qml")}
    facts = json.loads((folder / "survey.json").read_text())
    return found | {"survey.json": json.dumps(facts | {"created": ""}).encode()}


def test_table_and_map_say_what_predict_says(run: Path, photographs: Path, bldml: Bldml) -> None:
    outcome = bldml("survey", run, photographs, "--sheet=0")
    assert outcome.code == 0, outcome.err
    assert "1 cannot be read" in outcome.out
    assert "2 × the letter of the hemisphere is missing" in outcome.out
    rows = table(Path("survey/survey.csv"))
    options = ("--output=predicted", "--trainer.accelerator=cpu", "--unreadable=exclude")
    assert bldml("predict", run, photographs, *options).code == 0
    predicted = {p.path: p for p in read_predictions(Path("predicted/predictions.csv"))}
    judged = [row for row in rows if not row["unreadable"]]
    assert {row["path"] for row in judged} == set(predicted)
    for row in judged:
        assert float(row["probability"]) == pytest.approx(predicted[row["path"]].probability, abs=1e-6)
        assert row["label"] == predicted[row["path"]].predicted_class
        assert row["date"] == "2024-05-01T12:30:00+02:00"
    assert len(rows) == 9  # whatever the label
    (broken,) = [row for row in rows if row["unreadable"]]
    assert (broken["path"], broken["label"], broken["probability"]) == ("BLD/broken.jpg", "", "")
    assert [(row["longitude"], row["latitude"]) for row in judged[:4]] == [
        *(("8.26", "47.51"), ("8.26", "47.51"), ("-8.26", "47.51"), ("", "")),
    ]

    features = json.loads(Path("survey/survey.geojson").read_text(), parse_constant=pytest.fail)["features"]
    for row, feature in zip(rows, features, strict=True):
        place = feature["geometry"] and [str(degrees) for degrees in feature["geometry"]["coordinates"]]
        assert (place or ["", ""]) == [row["longitude"], row["latitude"]]
        assert feature["properties"]["probability"] == (float(row["probability"]) if row["probability"] else None)
    style = ElementTree.parse("survey/survey.qml").getroot()
    renderer = style.find("renderer-v2")
    assert renderer is not None
    assert renderer.get("attr") in features[0]["properties"]
    symbols = {symbol.get("name") for symbol in renderer.iter("symbol")}
    assert {category.get("symbol") for category in renderer.iter("category")} == symbols


@pytest.mark.parametrize(("policy", "north"), [("exact", 47.51), ("none", None)])
def test_positions_are_written_as_asked(run: Path, photographs: Path, bldml: Bldml, policy: str, north: object) -> None:
    assert bldml("survey", run, photographs, "--sheet=0", f"--positions={policy}").code == 0
    found = {row["path"]: row["latitude"] for row in table(Path("survey/survey.csv"))}
    first = next(name for name in sorted(found) if "broken" not in name)
    assert found[first] == ("" if north is None else str(north))
    if north is None:
        text = "".join(path.read_text(errors="replace") for path in Path("survey").rglob("*") if path.is_file())
        assert "47." not in text


def test_shards_and_kills_change_nothing(run: Path, photographs: Path, bldml: Bldml) -> None:
    assert bldml("survey", run, photographs, "--sheet=0", "--output=whole").code == 0
    first = bldml("survey", run, photographs, "--sheet=0", "--output=parts", "--shard=1/3")
    assert "of other shards" in first.out
    assert not Path("parts/survey.csv").exists()
    # A kill in the middle of a line.
    file = Path("parts/progress-1-of-3.jsonl")
    file.write_text(file.read_text()[:-30])
    for part in ("3/3", "2/3", "1/3"):
        assert bldml("survey", run, photographs, "--sheet=0", "--output=parts", f"--shard={part}").code == 0
    assert contents(Path("parts")) == contents(Path("whole"))
    again = bldml("survey", run, photographs, "--sheet=0", "--output=parts")
    assert "; 0 to judge" in again.out
    assert contents(Path("parts")) == contents(Path("whole"))


def test_changed_photograph_is_judged_again(run: Path, photographs: Path, bldml: Bldml) -> None:
    assert bldml("survey", run, photographs, "--sheet=0").code == 0
    one, other = sorted((photographs / "No_BLD").iterdir())[:2]
    shutil.copy(one, other)
    os.utime(other, ns=(1, 2**61))
    outcome = bldml("survey", run, photographs, "--sheet=0")
    assert "; 1 to judge" in outcome.out
    found = {row["path"]: row["probability"] for row in table(Path("survey/survey.csv"))}
    assert found[f"No_BLD/{one.name}"] == found[f"No_BLD/{other.name}"]


def test_unreadable_photograph_stops_if_asked_and_what_is_done_stays(
    run: Path, photographs: Path, bldml: Bldml
) -> None:
    outcome = bldml("survey", run, photographs, "--sheet=0", "--unreadable=error")
    assert outcome.mistake == "survey-photograph-unreadable"
    assert not Path("survey/survey.csv").exists()
    (photographs / "BLD" / "broken.jpg").unlink()
    assert bldml("survey", run, photographs, "--sheet=0", "--unreadable=error").code == 0
    assert len(table(Path("survey/survey.csv"))) == 8


def test_survey_of_another_checkpoint_or_folder_is_left_alone(
    run: Path, photographs: Path, tmp_path: Path, bldml: Bldml
) -> None:
    assert bldml("survey", run, photographs, "--sheet=0").code == 0
    before = contents(Path("survey"))
    shutil.copytree(photographs, tmp_path / "others")
    assert bldml("survey", run, tmp_path / "others", "--sheet=0").mistake == "output-of-other-survey"
    last = run / "checkpoints" / "last.ckpt"
    assert bldml("survey", last, photographs, "--sheet=0").fields["key"] == "checkpoint"
    assert contents(Path("survey")) == before


def test_units_without_groups_in_validation_are_counts_only(run: Path, photographs: Path, bldml: Bldml) -> None:
    outcome = bldml("survey", run, photographs, "--sheet=0", "--group=gps:15m")
    assert "counts only, no verdicts" in outcome.out
    assert "have no groups" in outcome.out
    units = {row["unit"]: row for row in table(Path("survey/units.csv"))}
    assert {name: row["photographs"] for name, row in units.items()} == {"gps 1": "4", "gps 2": "2"}
    assert all(row["verdict"] == "" for row in units.values())
    outcome = bldml("survey", run, photographs, "--sheet=0", "--group=folder")
    assert [row["unit"] for row in table(Path("survey/units.csv"))] == ["BLD", "No_BLD"]
    assert bldml("survey", run, photographs, "--sheet=0").code == 0
    assert not Path("survey/units.csv").exists()  # which says nothing of this survey any more


def test_table_of_groups_with_gaps_is_refused_before_the_work(run: Path, photographs: Path, bldml: Bldml) -> None:
    names = [f"{path.parent.name}/{path.name}" for path in sorted(photographs.rglob("*.jpg"))]
    Path("trees.csv").write_text("path,group\n" + "".join(f"{name},tree\n" for name in names[1:]))
    outcome = bldml("survey", run, photographs, "--group=trees.csv")
    assert outcome.mistake == "group-table-wrong"
    assert outcome.fields["missing"] == names[:1]
    assert not Path("survey").exists()
    Path("trees.csv").write_text("path,group\n" + "".join(f"{name},tree\n" for name in [*names, "gone.jpg"]))
    assert bldml("survey", run, photographs, "--group=trees.csv").mistake == "survey-group-files-unknown"
    Path("trees.csv").write_text("Photo;Tree ID\n" + "".join(f"{name};{i // 3}\n" for i, name in enumerate(names)))
    outcome = bldml("survey", run, photographs, "--group=trees.csv", "--sheet=0")
    assert "Tree ID as group" in outcome.out
    assert [row["unit"] for row in table(Path("survey/units.csv"))] == [str(i) for i in range(-(-len(names) // 3))]


def test_sheet_shows_first_what_is_nearest_to_the_threshold(run: Path, photographs: Path, bldml: Bldml) -> None:
    assert bldml("survey", run, photographs, "--sheet=3", "--positions=exact").code == 0
    page = Path("survey/triage.html").read_text(encoding="utf-8")
    rows = [row for row in table(Path("survey/survey.csv")) if row["probability"]]
    threshold = json.loads(Path("survey/survey.json").read_text())["threshold"]
    nearest = sorted(rows, key=lambda row: abs(logit(float(row["probability"])) - logit(threshold)))
    assert re.findall(r'data-path="([^"]+)"', page) == [row["path"] for row in nearest[:3]]
    assert "broken.jpg" in page
    assert str(photographs.parent) not in page
    pictures = [base64.b64decode(data) for data in re.findall(r"data:image/jpeg;base64,([^\"]+)", page)]
    assert len(pictures) == 6
    for data in pictures:
        with Image.open(io.BytesIO(data)) as picture:
            assert (max(picture.size), len(picture.getexif())) == (96, 0)
    assert not any(mark in data for data in pictures for mark in (b"SecretCamera", b"Exif", b"GPS"))


def test_map_is_read_by_gdal(run: Path, photographs: Path, bldml: Bldml) -> None:
    """A second library reads the same rows: GDAL, which QGIS uses too."""
    assert bldml("survey", run, photographs, "--sheet=0", "--positions=exact").code == 0
    rows = table(Path("survey/survey.csv"))
    about, _, geometry, columns = pyogrio.raw.read("survey/survey.geojson")
    assert about["crs"] == "EPSG:4326"
    found = dict(zip(about["fields"], columns, strict=True))
    assert list(found["path"]) == [row["path"] for row in rows]
    for row, point in zip(rows, geometry, strict=True):
        place = () if point is None else struct.unpack("<dd", point[5:])  # well-known binary
        assert place == tuple(float(row[name]) for name in ("longitude", "latitude") if row[name])


def test_units_have_verdicts_by_a_rule_of_the_validation_groups(leaves: Path, photographs: Path, bldml: Bldml) -> None:
    lines = []
    for label in ("BLD", "No_BLD"):
        for number, path in enumerate(sorted((leaves / label).iterdir())):
            split, tree = ("train", "") if number < 6 else ("val", f"{label} {number // 2}")
            lines.append(f"{label}/{path.name},{label},{split},{tree}\n")
    Path("trees.csv").write_text("path,label,split,group\n" + "".join(lines))
    options = ["--trainer.max_epochs=1", "--trainer.default_root_dir=logs", "--run_name=trees", "--data.cache=off"]
    fit = bldml("fit", *THREE_LAYERS, f"--data.root={leaves}", "--data.manifest=trees.csv", *options)
    assert fit.code == 0, fit.err
    trained = Path("logs/lightning_logs/trees")
    outcome = bldml("survey", trained, photographs, "--sheet=0", "--group=folder")
    assert "On 12 positive and 12 negative groups of the validation photographs" in outcome.out
    labelled = [p for p in read_predictions(trained / "evaluations/val/predictions.csv") if p.group and p.is_familiar]
    found = choose_unit_rule(
        [p.true_class == "BLD" for p in labelled],
        [p.probability for p in labelled],
        [sorted({q.group for q in labelled}).index(p.group) for p in labelled],
        json.loads(Path("survey/survey.json").read_text())["threshold"],
    )
    assert isinstance(found, UnitAssessment)
    rows = table(Path("survey/survey.csv"))
    for unit in table(Path("survey/units.csv")):
        own = [float(row["probability"]) for row in rows if row["unit"] == unit["unit"] and row["familiar"] == "yes"]
        verdict = found.rule.judge(own)
        assert unit["verdict"] == verdict.outcome
        assert float(unit["score"]) == pytest.approx(verdict.score, abs=1e-4)
        assert unit["take_more"] == (str(verdict.more) if verdict.more else "")
    shutil.copy(trained / "checkpoints/best.ckpt", "alone.ckpt")
    alone = bldml("survey", "alone.ckpt", photographs, "--group=folder", "--sheet=0", "--output=alone")
    assert "does not lie in a run folder" in alone.out
