"""An earlier division, read again: who keeps which place."""

from pathlib import Path

import pytest

from bldml.dataset.manifest import to_manifest
from bldml.dataset.samples import Collection, Sample
from bldml.dataset.splitting.previous import Kept, Place, keep, read_earlier
from bldml.errors import DatasetError

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
    assert read_earlier(path) == [
        Place(names[0], "train", "1", "", "=BLD"),
        Place(names[1], "train", "1", digest("0"), "=BLD"),
        Place(names[2], "train", "1", digest("1"), "=BLD"),
        Place(names[3], "test", "", digest("2"), "=BLD"),
    ]
    # As a spreadsheet saves it.
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert len(read_earlier(path)) == 4


def test_no_file_is_no_division(tmp_path: Path) -> None:
    assert read_earlier(tmp_path / "splits.csv") == []


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
def test_what_is_no_division_is_not_touched(text: str, tmp_path: Path) -> None:
    path = tmp_path / "splits.csv"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(DatasetError, match="no manifest that bldml split wrote"):
        read_earlier(path)


def test_a_damaged_division(tmp_path: Path) -> None:
    path = tmp_path / "splits.csv"
    path.write_text("path,label,split,group,sha256\na.jpg,BLD,train,,\nb.jpg,BLD,training,,\n", encoding="utf-8")
    with pytest.raises(DatasetError, match="unknown split 'training' in row 3"):
        read_earlier(path)
    assert read_earlier(path, fresh=True) == []  # as the message advises
    path.write_text("path,label,split,group,fold,sha256\na.jpg,BLD,train,,one,\n", encoding="utf-8")
    with pytest.raises(DatasetError, match="fold 'one' in row 2"):
        read_earlier(path)
    with pytest.raises(DatasetError, match="cannot be read: Is a directory"):
        read_earlier(tmp_path)


def test_places_go_by_content_then_by_name() -> None:
    places = [
        Place("a", "train", "0", digest("a")),
        Place("b", "test", "", digest("b")),
        Place("c", "val", "1", digest("c")),
        Place("d", "val", "1", digest("d")),
        Place("e", "test", "", ""),
    ]
    now = samples("a", "c", "e", "moved/b", "new")
    found = {"a": digest("a"), "c": digest("x"), "e": digest("e"), "moved/b": digest("b"), "new": digest("n")}
    kept = keep(places, now, found, FILE)
    assert kept == Kept(
        {"a": places[0], "c": places[2], "e": places[4], "moved/b": places[1]}, changed=("c",), moved=1, gone=1
    )


def test_two_photographs_that_changed_names() -> None:
    """The one that was tested on stays in the test split, whatever it is called."""
    places = [Place("a", "train", "", digest("a")), Place("b", "test", "", digest("b"))]
    kept = keep(places, samples("a", "b"), {"a": digest("b"), "b": digest("a")}, FILE)
    assert {name: place.split for name, place in kept.places.items()} == {"a": "test", "b": "train"}
    assert (kept.changed, kept.gone) == ((), 0)


def test_equal_contents_keep_each_their_own() -> None:
    places = [Place("a", "train", "", digest("a")), Place("b", "test", "", digest("a"))]
    kept = keep(places, samples("a", "b"), {"a": digest("a"), "b": digest("a")}, FILE)
    assert {name: place.split for name, place in kept.places.items()} == {"a": "train", "b": "test"}


def test_a_copy_of_an_old_photograph_is_new() -> None:
    places = [Place("a", "train", "", digest("a")), Place("b", "test", "", digest("b"))]
    now = samples("a", "a - Copy", "c", "d")
    kept = keep(places, now, {"a": digest("a"), "a - Copy": digest("a"), "c": digest("b"), "d": digest("b")}, FILE)
    # b is called c now, so that d is its copy.
    assert kept == Kept({"a": places[0], "c": places[1]}, moved=1, copies=2)


def test_another_label() -> None:
    places = [Place("a", "train", "", digest("a"), "No_BLD"), Place("b", "test", "", digest("b"), "BLD")]
    kept = keep(places, samples("a", "b"), {"a": digest("a"), "b": digest("b")}, FILE)
    assert kept.relabelled == (("a", "No_BLD", "BLD"),)


def test_other_photographs_of_the_same_names() -> None:
    places = [Place(name, "train", "", digest(name)) for name in "abcd"]
    half = {"a": digest("1"), "b": digest("2"), "c": digest("c"), "d": digest("d")}
    assert keep(places, samples(*"abcd"), half, FILE).changed == ("a", "b")
    with pytest.raises(DatasetError, match=r"3 of the 4 photographs .*another content: a, b, c\)"):
        keep(places, samples(*"abcd"), half | {"c": digest("3")}, FILE)
    # Numbered anew they are the same still.
    anew = dict(zip("abcd", map(digest, "bcda"), strict=True))
    assert keep(places, samples(*"abcd"), anew, FILE).changed == ()


def test_other_photographs() -> None:
    places = [Place("a", "train", "", digest("a"))]
    with pytest.raises(DatasetError, match=r"Of 1 photograph in splits\.csv not one is here"):
        keep(places, samples("b"), {"b": digest("b")}, FILE)
    # One that cannot be read is known by its name.
    assert keep(places, samples("a"), {}, FILE).places == {"a": places[0]}
