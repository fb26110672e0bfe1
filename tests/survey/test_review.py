"""`bldml review`: what a person confirmed becomes part of the next training, through the real commands."""

import csv
import re
import shlex
import shutil
from pathlib import Path

import pytest

from tests.support import THREE_LAYERS, Bldml

HEAD = "path,verdict,label,predicted,probability,unit,model\n"


@pytest.fixture
def photographs(split_leaves: Path, tmp_path: Path) -> Path:
    """Leaves that the run has not seen, and one that it has."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    for label in ("BLD", "No_BLD"):
        for path in sorted((split_leaves / "train" / label).iterdir())[:4]:
            shutil.copy(path, folder / f"{label}_{path.name}")
    return folder


def table(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as text:
        return list(csv.DictReader(text, strict=True))


def written(photographs: Path, unit: str = "") -> Path:
    """Every second BLD leaf confirmed, the others rejected; one is not a leaf."""
    lines = []
    for number, path in enumerate(sorted(photographs.iterdir())):
        label = path.name.split("_leaf")[0]
        predicted = label if number % 2 else "BLD" if label == "No_BLD" else "No_BLD"
        verdict = "confirm" if number % 2 else "reject"
        lines.append(f"{path.name},{verdict},{label},{predicted},0.5,{unit and unit + str(number // 2)},ab\n")
    lines[0] = lines[0].replace(",reject,BLD,", ",not a leaf,,")
    file = Path("confirmed.csv")
    file.write_text(HEAD + "".join(lines))
    return file


def test_next_training_uses_what_was_confirmed(run: Path, photographs: Path, leaves: Path, bldml: Bldml) -> None:
    seen = sorted((leaves / "BLD").iterdir())[0]
    shutil.copy(seen, photographs / "BLD_leaf_seen.jpg")
    outcome = bldml("review", written(photographs, "tree "), run, photographs, "--test=0.4")
    assert outcome.code == 0, outcome.err
    assert "1 as not a leaf, 1 because the run has them already" in outcome.out
    rows, kept_out = table(Path("review/manifest.csv")), table(Path("review/test.csv"))
    old = {row["path"]: row["split"] for row in table(run / "splits.csv")}
    assert {row["path"]: row["split"] for row in rows if row["source"].startswith("run ")} == old
    new = [row for row in rows if row["source"].startswith("survey")]
    assert len(new) + len(kept_out) == 7
    assert new
    assert kept_out
    assert {row["split"] for row in new} == {"train"}
    assert not {row["group"] for row in new} & {row["group"] for row in kept_out}  # units stay together
    for row in [*new, *kept_out]:
        assert Path(row["path"]).name.startswith(f"{row['label']}_leaf")

    options = ["--trainer.max_epochs=1", "--trainer.default_root_dir=logs", "--run_name=new", "--data.cache=off"]
    # The training as it is printed, but for its name and length.
    (printed,) = re.findall(r"python -m bldml (fit .*)", outcome.out)
    fit = bldml(*shlex.split(printed), *THREE_LAYERS, *options)
    assert fit.code == 0, fit.err
    split = {row["path"]: row["split"] for row in table(Path("logs/lightning_logs/new/splits.csv"))}
    assert all(split[row["path"]] == "train" for row in new)
    assert not {row["path"] for row in kept_out} & split.keys()
    # Old against new on what was kept out.
    shutil.copytree(run, Path("logs/lightning_logs/old"))
    for name in ("old", "new"):
        on = ("--manifest=review/test.csv", "--name=survey", "--trainer.accelerator=cpu")
        tested = bldml("test", Path("logs/lightning_logs") / name, leaves, *on)
        assert tested.code == 0, tested.err
    runs = [Path("logs/lightning_logs") / name for name in ("old", "new")]
    compared = bldml("compare", *runs, "--evaluation=survey")
    assert compared.code == 0, compared.err


def test_wrong_rows_are_listed(run: Path, photographs: Path, bldml: Bldml) -> None:
    names = [path.name for path in sorted(photographs.iterdir())]
    Path("confirmed.csv").write_text(
        f"{HEAD}{names[0]},perhaps,BLD\n{names[1]},confirm,BLT\ngone.jpg,confirm,BLD\n{names[2]},confirm,BLD\n"
        f"{names[2]},reject,BLD\n"
    )
    outcome = bldml("review", "confirmed.csv", run, photographs)
    assert outcome.mistake == "review-rows-wrong"
    kinds = [(2, "verdict-unknown"), (3, "class-unknown"), (4, "file-missing"), (6, "file-twice")]
    assert outcome.fields["found"] == kinds
    assert not Path("review").exists()
    (photographs / "none.jpg").write_text("no photograph")
    Path("confirmed.csv").write_text(
        f"{HEAD}{names[0]},confirm,No_BLD,BLD\n{names[1]},reject,BLD,BLD\nnone.jpg,confirm,BLD,BLD\n"
    )
    kinds = [(2, "verdict-contradicted"), (3, "verdict-contradicted"), (4, "not-photograph")]
    assert bldml("review", "confirmed.csv", run, photographs).fields["found"] == kinds
    Path("confirmed.csv").write_text(HEAD)
    assert bldml("review", "confirmed.csv", run, photographs).mistake == "review-no-rows"
    Path("confirmed.csv").write_text(f"{HEAD}{names[0]},not a leaf,\n")
    assert bldml("review", "confirmed.csv", run, photographs).mistake == "review-empty"
    assert bldml("review", "confirmed.csv", run, photographs, "--test=1").mistake == "review-fraction-wrong"
    Path("confirmed.csv").write_text("my,own\n")
    assert bldml("review", "confirmed.csv", run, photographs).mistake == "column-missing"


def test_table_that_a_spreadsheet_saved_is_read(run: Path, photographs: Path, bldml: Bldml) -> None:
    names = [path.name for path in sorted(photographs.iterdir())]
    shutil.move(photographs / names[1], photographs / "Bäume.jpg")
    lines = [(names[0].upper(), "Confirm", "BLD", "BLD", "Bäume"), ("Bäume.jpg", "reject", "BLD", "", "")]
    text = "path;verdict;label;predicted;unit\r\n" + "".join(f"{';'.join(line)}\r\n" for line in lines)
    Path("confirmed.csv").write_bytes(text.encode("cp1252"))
    outcome = bldml("review", "confirmed.csv", run, photographs, "--test=0")
    assert outcome.code == 0, outcome.err
    assert "2 reviewed photographs, 1 of them predicted wrongly" in outcome.out  # as its verdict says
    assert "1 path was read as Windows-1252" in outcome.out
    new = [row for row in table(Path("review/manifest.csv")) if row["source"].startswith("survey")]
    assert [(Path(row["path"]).name, row["group"]) for row in new] == [(names[0], "Bäume"), ("Bäume.jpg", "")]


@pytest.mark.parametrize(
    "others", ["", "path,label\nmine.jpg,BLD\n", "path,label,split,group,source\na,BLD,test,,me\n"]
)
def test_only_a_table_of_an_earlier_review_is_removed(others: str, run: Path, photographs: Path, bldml: Bldml) -> None:
    confirmed, kept = written(photographs), Path("review/test.csv")
    assert bldml("review", confirmed, run, photographs, "--test=0.6").code == 0
    assert table(kept)
    if others:
        kept.write_text(others)
    outcome = bldml("review", confirmed, run, photographs, "--test=0")
    assert outcome.code == 0, outcome.err
    assert (kept.read_text() if kept.exists() else "") == others
    assert ("is not of this review" in outcome.out) == bool(others)
