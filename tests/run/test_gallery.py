"""Which photographs a report shows, how their pictures are found, and the ledger of evaluations."""

import json
import random
import threading
from pathlib import Path

import pytest

from bldml.metrics.assessment import evaluate
from bldml.metrics.operating_point import OperatingPoint
from bldml.run.folder import RunFolder
from bldml.run.gallery import GalleryKind, advice, certainty, choose_photographs, gallery_text, read_gallery
from bldml.run.ledger import LedgerEntry, append_entry, read_ledger
from bldml.run.predictions import Prediction, write_metrics, write_predictions
from bldml.run.reader import read_run
from tests.support import mistake

THRESHOLD = 0.3


def prediction(path: str, true: str, probability: float) -> Prediction:
    return Prediction(path, "", true, "BLD" if probability >= THRESHOLD else "No_BLD", probability)


def many(count: int = 400, seed: int = 0) -> list[Prediction]:
    draw = random.Random(seed)
    return [prediction(f"{i:04}.jpg", draw.choice(("BLD", "No_BLD")), draw.random()) for i in range(count)]


def of(kind: GalleryKind, chosen: list[tuple[GalleryKind, Prediction]]) -> list[Prediction]:
    return [row for found, row in chosen if found == kind]


def test_the_most_certain_errors_come_first_and_no_more_than_48() -> None:
    rows = many()
    wrong = [row for row in rows if row.true_class != row.predicted_class]
    assert len(wrong) > 48
    shown = of("error", choose_photographs(rows, THRESHOLD))
    assert len(shown) == 48
    expected = sorted(
        wrong, key=lambda r: -((r.probability - 0.3) / 0.7 if r.probability >= 0.3 else (0.3 - r.probability) / 0.3)
    )
    assert shown == expected[:48]


def test_every_error_is_shown_where_there_are_few() -> None:
    rows = [prediction("a", "BLD", 0.1), prediction("b", "No_BLD", 0.9), prediction("c", "BLD", 0.8)]
    assert [row.path for row in of("error", choose_photographs(rows, THRESHOLD))] == ["b", "a"]


def test_least_certain_ones_are_nearest_to_the_threshold_errors_too() -> None:
    rows = many()
    shown = of("uncertain", choose_photographs(rows, THRESHOLD))
    assert shown == sorted(rows, key=lambda row: certainty(row.probability, THRESHOLD))[:12]
    assert any(row.predicted_class != row.true_class for row in shown)


def test_correct_ones_are_of_both_classes_and_of_every_certainty() -> None:
    rows = many()
    shown = of("correct", choose_photographs(rows, THRESHOLD))
    assert len({row.path for row in shown}) == 12
    for name in ("BLD", "No_BLD"):
        own = [row for row in shown if row.true_class == name]
        assert len(own) == 6
        certainties = [certainty(row.probability, THRESHOLD) for row in own]
        assert certainties == sorted(certainties, reverse=True)
        assert (certainties[0] > 0.9, certainties[-1] < 0.1) == (True, True)
    assert all(row.predicted_class == row.true_class for row in shown)


@pytest.mark.parametrize(("sick", "healthy", "expected"), [(1, 30, 12), (0, 5, 5), (0, 0, 0), (3, 2, 5), (0, 1, 1)])
def test_one_class_makes_up_for_the_other(sick: int, healthy: int, expected: int) -> None:
    rows = [prediction(f"s{i}", "BLD", 0.9 - i / 100) for i in range(sick)]
    rows += [prediction(f"h{i:02}", "No_BLD", 0.2 - i / 1000) for i in range(healthy)]
    shown = of("correct", choose_photographs(rows, THRESHOLD))
    assert len({row.path for row in shown}) == len(shown) == expected
    assert sum(row.true_class == "BLD" for row in shown) == sick


def test_nothing_is_chosen_without_labels_and_the_order_of_the_rows_does_not_matter() -> None:
    rows = [prediction(str(i), "", 0.5) for i in range(5)]
    assert choose_photographs(rows, THRESHOLD) == []
    ties = [prediction(f"{i:02}", "BLD", 0.9) for i in range(40)]
    assert choose_photographs(ties[::-1], THRESHOLD) == choose_photographs(ties, THRESHOLD)


@pytest.mark.parametrize("threshold", [0.0, 1.0, 1e-300, 0.5])
def test_certainty_is_a_share_at_the_edges_too(threshold: float) -> None:
    for probability in (0.0, 1e-12, 0.5, 1 - 1e-12, 1.0):
        assert 0 <= certainty(probability, threshold) <= 1


HOSTILE = ['<img src=x onerror="a()">, "q".jpg', "\u202egpj.exe", "./=1+1.jpg", "'a.jpg", "é\\x0a.jpg", " b.jpg"]


@pytest.fixture
def shown(tmp_path: Path) -> Path:
    """An evaluation with three errors, and pictures of them under hostile names."""
    rows = [prediction(name, "BLD", 0.1 + i / 100) for i, name in enumerate(HOSTILE)]
    write_predictions(tmp_path / "predictions.csv", rows)
    folder = tmp_path / "explanations"
    folder.mkdir()
    entries = [("error", row, f"{i}.jpg", f"{i}_seen.jpg") for i, row in enumerate(rows)]
    (folder / "gallery.csv").write_text(gallery_text(entries))  # type: ignore[arg-type]  # kinds are literals
    for _, _, *names in entries:
        for name in names:
            (folder / str(name)).write_bytes(b"picture")
    return tmp_path


def test_what_was_written_is_read_whatever_the_names(shown: Path) -> None:
    gallery = read_gallery(shown)
    assert [entry.prediction.path for entry in gallery] == HOSTILE
    assert [entry.photograph.name for entry in gallery] == [f"{i}.jpg" for i in range(6)]
    assert [entry.overlay.name for entry in gallery] == [f"{i}_seen.jpg" for i in range(6)]


def test_pictures_that_do_not_belong_to_the_predictions_are_not_shown(shown: Path) -> None:
    (shown / "explanations" / "5.jpg").unlink()
    rows = [prediction(name, "BLD", 0.1 + i / 100) for i, name in enumerate(HOSTILE)]
    rows[0] = prediction(HOSTILE[0], "BLD", 0.2)  # of another evaluation
    rows[1] = prediction(HOSTILE[1], "No_BLD", rows[1].probability)  # its label was corrected: no error any more
    write_predictions(shown / "predictions.csv", [*rows[:3], *rows[4:]])
    assert [entry.prediction.path for entry in read_gallery(shown)] == [HOSTILE[2], HOSTILE[4]]


def test_a_table_from_elsewhere_leads_to_no_other_file(shown: Path) -> None:
    (shown / "secret.jpg").write_bytes(b"secret")
    table = shown / "explanations" / "gallery.csv"
    table.write_text(table.read_text().replace(",0.jpg", ",../secret.jpg").replace(",1.jpg", f",{shown}/secret.jpg"))
    assert [entry.prediction.path for entry in read_gallery(shown)] == HOSTILE[2:]
    assert all(entry.photograph.parent == shown / "explanations" for entry in read_gallery(shown))


def test_no_pictures_are_no_mistake_and_a_damaged_table_is_named(shown: Path, tmp_path: Path) -> None:
    assert read_gallery(tmp_path / "elsewhere") == []
    table = shown / "explanations" / "gallery.csv"
    for damage in (b"\xff\xfe", b"kind,path\nerror,a\n", b'kind,path,probability,photograph,overlay\n"error,x'):
        table.write_bytes(damage)
        with mistake("gallery-damaged", path=table):
            read_gallery(shown)
    table.write_text("kind,path,probability,photograph,overlay\nerror\n")  # a row cut short
    assert read_gallery(shown) == []


def test_advice_says_how_to_get_pictures(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.config.write_text("data: {positive_class: BLD}")
    assert advice(read_run(run)) == ""
    rows = [Prediction("a.jpg", "", "BLD", "BLD", 0.9), Prediction("b.jpg", "", "No_BLD", "No_BLD", 0.2)]
    roles = {"early_look": "validation", "again": "test", "ohio": "external", "seen": "training"}
    for name, role in roles.items():
        folder = run.evaluation(name)
        write_predictions(folder / "predictions.csv", rows)
        write_metrics(folder, evaluate([1, 0], [0.9, 0.2], OperatingPoint(0.5, 1.0)))
        (folder / "provenance.json").write_text(json.dumps({"role": role}))
    text = advice(read_run(run))
    assert "again, early_look, ohio." in text
    for command in (
        f"bldml test --ckpt_path {run.best_checkpoint}",
        f"bldml validate --ckpt_path {run.best_checkpoint}",
        "`python -m bldml test` on the other photographs",
    ):
        assert text.count(command) == 1


def entry(name: str = "test", n: int = 5) -> LedgerEntry:
    return LedgerEntry("2026-11-25T09:00:00+00:00", name, "test", "ab" * 32, n, "checkpoints/best.ckpt")


def test_ledger_keeps_every_evaluation_in_order(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert read_ledger(run) == []
    entries = [entry(name, n) for n, name in enumerate(["test", "=1+1", "'=1+1", 'a,"b"', "日本", "test"])]
    for one in entries:
        append_entry(run, one)
    assert read_ledger(run) == entries
    text = run.ledger.read_text(encoding="utf-8")
    assert text.splitlines()[0] == "time,evaluation,split,dataset_fingerprint,n,checkpoint"
    assert len(text.splitlines()) == 7
    assert ",=1+1," not in text


def test_of_two_evaluations_at_once_none_is_lost(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)

    def work(number: int) -> None:
        for i in range(25):
            append_entry(run, entry(f"{number}-{i}"))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {one.evaluation for one in read_ledger(run)} == {f"{n}-{i}" for n in range(4) for i in range(25)}


def test_a_line_cut_short_spoils_no_other(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    append_entry(run, entry("first"))
    with run.ledger.open("ab") as file:
        file.write(b'2026,"cut \xc3')
    append_entry(run, entry("second"))
    assert [one.evaluation for one in read_ledger(run)] == ["first", "second"]


@pytest.mark.parametrize("before", [0, 1])
def test_half_a_line_is_completed_by_the_same_evaluation(tmp_path: Path, before: int) -> None:
    """As after a kill within the write: the evaluation is done again, and is one look."""
    run = RunFolder(tmp_path)
    first, entry = (LedgerEntry(f"2026-09-12T10:00:0{n}+00:00", "test", "test", "ab" * 32, 9, "c.ckpt") for n in (1, 2))
    for one in [first] * before:
        append_entry(run, one)
    known = run.ledger.stat().st_size if before else 0
    append_entry(run, entry)
    whole = run.ledger.read_bytes()
    for end in range(known + 1, len(whole) + 1):
        run.ledger.write_bytes(whole[:end])
        if entry not in read_ledger(run):
            append_entry(run, entry)
            assert run.ledger.read_bytes() == whole


def test_ledger_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    with mistake("ledger-not-writable", path=tmp_path / "missing" / "ledger.csv"):
        append_entry(RunFolder(tmp_path / "missing"), entry())
