"""The previous manifest: which photographs keep their assignment."""

from pathlib import Path

import pytest

from bldml.dataset.manifest import to_manifest
from bldml.dataset.samples import Collection, Sample
from bldml.dataset.splitting.previous import Assignment, KeptAssignments, keep_assignments, read_previous
from tests.support import mistake

FILE = Path("splits.csv")


def digest(text: str) -> str:
    return (text * 64)[:64]


def samples(*names: str) -> list[Sample]:
    return [Sample(Path(name), name, "BLD") for name in names]


def test_what_was_written_is_read(tmp_path: Path) -> None:
    names = ["BLD/a.jpg", "./=b.jpg", "BLD/caf\\xe9.jpg", 'BLD/"c", d.jpg']
    photographs = tuple(Sample(tmp_path / name, name, "=BLD", "-1") for name in names)
    collection = Collection(
        tmp_path,
        {"train": photographs[:3], "test": photographs[3:]},
        digests={name: digest(str(i)) for i, name in enumerate(names[1:])},
        folds=dict.fromkeys(names[:3], "1"),
    )
    path = tmp_path / "splits.csv"
    path.write_text(to_manifest(collection), encoding="utf-8")
    assert read_previous(path) == [
        Assignment(names[0], "train", "1", "", "=BLD"),
        Assignment(names[1], "train", "1", digest("0"), "=BLD"),
        Assignment(names[2], "train", "1", digest("1"), "=BLD"),
        Assignment(names[3], "test", "", digest("2"), "=BLD"),
    ]
    # As a spreadsheet saves it.
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert len(read_previous(path)) == 4


def test_without_a_file_nothing_is_assigned(tmp_path: Path) -> None:
    assert read_previous(tmp_path / "splits.csv") == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "path,label,split\nBLD/a.jpg,BLD,train\n",
        "path,label,split,group,sha256,note\n",
        "path,label,split,sha256,group\n",
        "tree,height\n1,2\n",
        "\x89PNG\r\n",
        '{"a": 1}',
    ],
)
def test_what_split_did_not_write_is_not_touched(text: str, tmp_path: Path) -> None:
    path = tmp_path / "splits.csv"
    path.write_bytes(text.encode("latin-1"))
    with mistake("previous-foreign", path=path):
        read_previous(path)


def test_a_damaged_manifest(tmp_path: Path) -> None:
    path = tmp_path / "splits.csv"
    path.write_text("path,label,split,group,sha256\na.jpg,BLD,train,,\nb.jpg,BLD,training,,\n", encoding="utf-8")
    with mistake("previous-split-unknown", found="training", row=3):
        read_previous(path)
    assert read_previous(path, fresh=True) == []  # as the message advises
    path.write_text("path,label,split,group,fold,sha256\na.jpg,BLD,train,,one,\n", encoding="utf-8")
    with mistake("previous-fold-no-number", found="one", row=2):
        read_previous(path)
    with mistake("previous-unreadable", path=tmp_path):
        read_previous(tmp_path)


def test_assignments_go_by_content_then_by_name() -> None:
    previous = [
        Assignment("a", "train", "0", digest("a")),
        Assignment("b", "test", "", digest("b")),
        Assignment("c", "val", "1", digest("c")),
        Assignment("d", "val", "1", digest("d")),
        Assignment("e", "test", "", ""),
    ]
    now = samples("a", "c", "e", "moved/b", "new")
    found = {"a": digest("a"), "c": digest("x"), "e": digest("e"), "moved/b": digest("b"), "new": digest("n")}
    kept = keep_assignments(previous, now, found, FILE)
    assert kept == KeptAssignments(
        {"a": previous[0], "c": previous[2], "e": previous[4], "moved/b": previous[1]},
        changed=("c",),
        renamed=1,
        missing=1,
    )


def test_two_photographs_that_changed_names() -> None:
    """The one that was tested on stays in the test split, whatever it is called."""
    previous = [Assignment("a", "train", "", digest("a")), Assignment("b", "test", "", digest("b"))]
    kept = keep_assignments(previous, samples("a", "b"), {"a": digest("b"), "b": digest("a")}, FILE)
    assert {name: assignment.split for name, assignment in kept.assignments.items()} == {"a": "test", "b": "train"}
    assert (kept.changed, kept.missing) == ((), 0)


def test_equal_contents_keep_each_their_own() -> None:
    previous = [Assignment("a", "train", "", digest("a")), Assignment("b", "test", "", digest("a"))]
    kept = keep_assignments(previous, samples("a", "b"), {"a": digest("a"), "b": digest("a")}, FILE)
    assert {name: assignment.split for name, assignment in kept.assignments.items()} == {"a": "train", "b": "test"}


def test_a_copy_of_an_old_photograph_is_new() -> None:
    previous = [Assignment("a", "train", "", digest("a")), Assignment("b", "test", "", digest("b"))]
    now = samples("a", "a - Copy", "c", "d")
    kept = keep_assignments(
        previous, now, {"a": digest("a"), "a - Copy": digest("a"), "c": digest("b"), "d": digest("b")}, FILE
    )
    # b is called c now, so that d is its copy.
    assert kept == KeptAssignments({"a": previous[0], "c": previous[1]}, renamed=1, copies=2)


def test_another_label() -> None:
    previous = [Assignment("a", "train", "", digest("a"), "No_BLD"), Assignment("b", "test", "", digest("b"), "BLD")]
    kept = keep_assignments(previous, samples("a", "b"), {"a": digest("a"), "b": digest("b")}, FILE)
    assert kept.relabelled == (("a", "No_BLD", "BLD"),)


def test_other_photographs_of_the_same_names() -> None:
    previous = [Assignment(name, "train", "", digest(name)) for name in "abcd"]
    half = {"a": digest("1"), "b": digest("2"), "c": digest("c"), "d": digest("d")}
    assert keep_assignments(previous, samples(*"abcd"), half, FILE).changed == ("a", "b")
    with mistake("previous-changed", found=[*"abc"]):
        keep_assignments(previous, samples(*"abcd"), half | {"c": digest("3")}, FILE)
    # Numbered anew they are the same still.
    anew = dict(zip("abcd", map(digest, "bcda"), strict=True))
    assert keep_assignments(previous, samples(*"abcd"), anew, FILE).changed == ()


def test_other_photographs() -> None:
    previous = [Assignment("a", "train", "", digest("a"))]
    with mistake("previous-of-other-data", path=FILE):
        keep_assignments(previous, samples("b"), {"b": digest("b")}, FILE)
    # One that cannot be read is known by its name.
    assert keep_assignments(previous, samples("a"), {}, FILE).assignments == {"a": previous[0]}
