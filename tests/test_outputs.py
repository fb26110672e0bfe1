"""What --output cannot be is said in words, with what to type instead, before anything is read or written."""

import re
import shutil
from pathlib import Path

import pytest

from tests.support import Bldml


def test_a_folder_where_split_writes_a_file(leaves: Path, bldml: Bldml) -> None:
    Path("there").mkdir()
    outcome = bldml("split", leaves, "--output=there")
    assert outcome.mistake == "previous-unreadable"
    assert "there is a folder. Type --output there/splits.csv." in outcome.err


def test_a_file_in_the_way(leaves: Path, bldml: Bldml) -> None:
    Path("file").touch()
    outcome = bldml("split", leaves, "--output=file/splits.csv")
    assert outcome.mistake == "output-folder-missing"
    assert "file, in which --output is to be, is not a folder" in outcome.err


@pytest.mark.parametrize(
    ("command", "name", "code", "words"),
    [
        ("split", "x" * 300, 1, "The name xxxxxxxxxxxxxxxxxxxx… has 300 bytes"),
        ("audit", "x" * 300 + ".csv", 2, "is a folder for several files"),
        ("audit", "a\udcffb", 2, "has bytes that are not UTF-8"),
        ("split", "a\udcffb", 2, "has bytes that are not UTF-8"),
        ("audit", "$SCRATCH/out", 2, "output is $SCRATCH/out, and nothing replaces $SCRATCH there"),
    ],
)
def test_names_that_are_none(command: str, name: str, code: int, words: str, leaves: Path, bldml: Bldml) -> None:
    outcome = bldml(command, leaves, f"--output={name}")
    assert outcome.code == code
    assert words in outcome.err
    assert "Errno" not in outcome.err
    assert not list(Path().iterdir())


def test_what_the_system_says_has_the_path_and_what_to_check(bldml: Bldml) -> None:
    Path("file").touch()
    Path("leads nowhere").symlink_to("nowhere")
    for name, reason in (("file/demo", "File exists"), ("leads nowhere", "Not a directory")):
        outcome = bldml("demo", name, "--images_per_class=1", "--size=48")
        assert outcome.code == 1
        assert re.search(f"Cannot use .*{name.split('/')[0]}: {reason}. Check the path", outcome.err), outcome.err
        assert "Errno" not in outcome.err


@pytest.mark.parametrize("command", ["test", "predict", "audit", "review", "compare"])
def test_the_folder_of_a_run(command: str, run: Path, leaves: Path, tmp_path: Path, bldml: Bldml) -> None:
    """An evaluation of another set replaced photographs.csv of the run and removed its excluded.csv."""
    own = Path(shutil.copytree(run, tmp_path / "own"))
    (own / "excluded.csv").write_text("path,reason\nBLD/x.jpg,cut off\n")
    before = {path: path.read_bytes() for path in own.rglob("*") if path.is_file()}
    words: dict[str, list[Path | str]] = {
        "audit": [leaves],
        "predict": [own, leaves, "--data.num_workers=0"],
        "review": [own / "splits.csv", own, leaves],
        "compare": [own, run],
    }
    outcome = bldml(command, *words.get(command, [own, "--data.num_workers=0"]), f"--output={own}")
    assert (outcome.code, outcome.mistake) == (2, "output-is-run"), outcome.err
    assert {path: path.read_bytes() for path in own.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("command", ["export", "explain", "survey", "predict", "audit"])
def test_among_the_photographs(command: str, run: Path, leaves: Path, bldml: Bldml) -> None:
    if command == "export":
        pytest.importorskip("onnxscript")
    words: dict[str, list[Path | str]] = {"audit": [leaves], "export": [run, f"--photographs={leaves}"]}
    outcome = bldml(command, *words.get(command, [run, leaves]), f"--output={leaves / 'out'}")
    assert outcome.code in (1, 2)
    assert "outside" in outcome.err
    assert not (leaves / "out").exists()
