"""Manifests as people and spreadsheets write them, and what is said about bad ones."""

import csv
import errno
import io
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from bldml.dataset.manifest import MOST_ROWS_SHOWN, check_unchanged, read_labels, read_manifest, to_manifest
from bldml.dataset.samples import Collection, Sample
from bldml.errors import DatasetError
from tests.support import mistake


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Photographs `BLD/1.jpg` to `BLD/5.jpg` and `No/1.jpg` to `No/5.jpg`."""
    for name in ("BLD", "No"):
        (tmp_path / "root" / name).mkdir(parents=True)
        for number in range(1, 6):
            Image.new("RGB", (4, 4), "green").save(tmp_path / "root" / name / f"{number}.jpg")
    return tmp_path / "root"


def write(folder: Path, text: str | bytes, name: str = "manifest.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def rows(collection: Collection) -> list[tuple[str, str, str, str]]:
    return [(s.name, s.class_name, split, s.group) for split, samples in collection.splits.items() for s in samples]


def error(manifest: Path, root: Path | None = None) -> DatasetError:
    with pytest.raises(DatasetError) as raised:
        read_manifest(manifest, root)
    return raised.value


def wrong_rows(manifest: Path, root: Path | None = None) -> list[tuple[int, str]]:
    found = error(manifest, root)
    assert found.code == "manifest-rows-wrong"
    rows: list[tuple[int, str]] = found.fields["found"]
    return rows


PLAIN = [("BLD/1.jpg", "BLD", "train", "tree 1"), ("No/1.jpg", "No", "val", "")]


@pytest.mark.parametrize(
    "text",
    [
        "path,label,split,group\nBLD/1.jpg,BLD,train,tree 1\nNo/1.jpg,No,val,\n",
        "path,label,split,group\r\nBLD/1.jpg,BLD,train,tree 1\r\nNo/1.jpg,No,val,\r\n",
        "path,label,split,group\rBLD/1.jpg,BLD,train,tree 1\rNo/1.jpg,No,val,",
        "\ufeffpath,label,split,group\r\nBLD/1.jpg,BLD,train,tree 1\r\nNo/1.jpg,No,val,\r\n",
        '\ufeff"path","label","split","group"\n"BLD/1.jpg","BLD","train","tree 1"\n"No/1.jpg","No","val",""\n',
        "path,label,split,group\nNo/1.jpg,No,val\nBLD/1.jpg,BLD,train,tree 1",
        "split,note,group,label,path,\ntrain,wet,tree 1,BLD,BLD/1.jpg,\nval,,,No,No/1.jpg,,,\n",
        "note,path,label,split,group,note\na,BLD/1.jpg,BLD,train,tree 1,b\n,No/1.jpg,No,val,,\n",
        "path, label, split , group\nBLD/1.jpg, BLD, train, tree 1\n No/1.jpg ,No\t, val,\n",
        "path,label,split,group\n\n,,,\nBLD/1.jpg,BLD,train,tree 1\n , ,\n\nNo/1.jpg,No,val,\n\n\n",
        "path,label,split,group\n./BLD/1.jpg,BLD,train,tree 1\nNo//1.jpg,No,val,\n",
    ],
    ids=[
        "plain", "CRLF", "CR", "BOM", "quoted", "short row", "other columns", "column twice", "spaces", "empty rows",
        "spelling",
    ],
)  # fmt: skip
def test_ways_to_write_a_manifest(text: str, root: Path, tmp_path: Path) -> None:
    assert rows(read_manifest(write(root, text), None)) == PLAIN
    collection = read_manifest(write(tmp_path, text), root)
    assert rows(collection) == PLAIN
    assert collection.root == root
    assert [s.path for v in collection.splits.values() for s in v] == [root / "BLD/1.jpg", root / "No/1.jpg"]


TWO = "path,label,split,group\nBLD/1.jpg,BLD,train,tree 1\nNo/1.jpg,No,val,\n"


def changed(*changes: tuple[str, str]) -> str:
    text = TWO
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (TWO.replace(",", ";"), ["with semicolons between cells"]),
        (TWO.replace(",", "\t"), ["with tabs between cells"]),
        ("sep=;\n" + TWO.replace(",", ";"), ["with semicolons between cells"]),
        ('"' + TWO.replace(",", '";"').replace("\n", '"\n"')[:-1], ["with semicolons between cells"]),
        (TWO.encode("utf-16"), ["as UTF-16"]),
        (b"\xfe\xff" + TWO.replace(",", "\t").encode("utf-16-be"), ["as UTF-16, with tabs between cells"]),
        ("\r\n\r\n" + TWO, []),
        (changed(("path", "Path"), ("label", "LABEL"), ("split", "Split ")), ["Path as path, LABEL as label, Split"]),
        (changed(("path", "File Name"), ("label", "class"), ("split", "subset")), ["the column File Name as path"]),
        (changed(("path", "image"), ("label", "target"), ("split", "set")), ["image as path, target as label"]),
        ("No/1.jpg,No,val\nBLD/1.jpg,BLD,train\n", ["without a header, with the columns path, label, split"]),
        ("val;No;No/1.jpg\ntrain;BLD;BLD/1.jpg\n", ["semicolons between cells, without a header"]),
        (changed(("train", "Train"), ("val", "valid")), ["Train was read as train in 1 row, valid as val"]),
        (changed(("train", "training"), ("val", "Validation")), ["training was read as train in 1 row, Validation"]),
        (changed(("BLD/", "BLD\\"), ("No/", "No\\")), ["2 paths were read with / for \\"]),
        (changed(("BLD/", "root/BLD/"), ("No/", "root/No/")), ["2 paths were read without “root/” at the beginning"]),
        (changed(("BLD/", "/home/ana/leaves/BLD/"), ("No/", "/home/ana/leaves/No/")), ["“/home/ana/leaves/” at the"]),
        (changed(("BLD/", "C:\\new\\BLD\\"), ("No/", "C:\\new\\No\\")), ["without “C:/new/” at", "with / for"]),
        (changed((".jpg", ".JPG")), ["2 paths were read in other capitals than the file"]),
        (changed(("BLD/1", "bld/1")), ["1 path was read in other capitals"]),
        (changed((".jpg", "")), ["2 paths were read without the suffix of the file"]),
        (changed(("/1.jpg", "/1.0")), ["2 paths were read without “.0”"]),
        (changed(("/1.jpg", "/1.0.jpg")), ["2 paths were read without “.0”"]),
        (TWO.encode("utf-16-le"), ["as UTF-16"]),
        (TWO.encode("utf-32"), ["as UTF-32"]),
        (b"\xef\xbb\xbf\xef\xbb\xbf" + TWO.encode() + b"\x1a", []),
        ("Leaves of 2024,,\n\n" + TWO, ["was read from row 3 on"]),
        ("# by Ana\r\n" + TWO.replace(",", ";"), ["from row 2 on, with semicolons between cells"]),
        (changed(("BLD/1", "1,BLD/1"), ("No/1", "2,No/1")), ["with a first column that has no name"]),
        (re.sub(r"[^,\n]+", r"'\g<0>'", TWO), ["with quotes around cells"]),
        (changed(("path", "Image ID"), ("label", "Disease"), ("split", "Partition")), ["Image ID as path, Disease as"]),
        (changed(("path", "Datei"), ("label", "Klasse"), ("split", "Aufteilung")), ["Datei as path, Klasse as label"]),
        (changed(("path", "archivo"), ("label", "clase"), ("split", "conjunto")), ["archivo as path, clase as label"]),
        (changed(("train", "entrenamiento"), ("val", "validacio\u0301n")), ["entrenamiento was read as train"]),
        (changed(("train", "训练"), ("val", "验证集")), ["训练 was read as train in 1 row, 验证集 as val"]),
        (changed(("train", "train_set"), ("val", "val/")), ["train_set was read as train in 1 row, val/ as val"]),
        (changed(("BLD/1.jpg", "'BLD/1.jpg"), ("No/1.jpg", "“No/1.jpg”")), ["2 paths were read without quotes"]),
        (changed(("BLD/", "BLD%2F"), ("No/", "No%2F")), ["2 paths were read with the characters that % codes"]),
        (changed(("BLD/1.jpg", '"BLD/1,0"')), ["1 path was read without “.0”"]),
        (TWO + "No/1.jpg,No,val,\n", ["1 row was left out, the same as another row"]),
        ("path,BLD,No,split\nBLD/1.jpg,1,0,train\nNo/1.jpg,0,1,val\n", ["the label from the columns BLD, No: the one"]),
        ("path,No,BLD,rust,tree,split\nBLD/1.jpg,,x,,4,train\nNo/1.jpg,X,,,5,val\n", ["from the columns No, BLD: the"]),
        ("path,BLD,No,note,split\nBLD/1.jpg,1,0,,train\nNo/1.jpg,0,1,,val\n", ["from the columns BLD, No: the one"]),
        ("path,BLD,No,rust,split\nBLD/1.jpg,1,0,0,train\nNo/1.jpg,0,1,0,val\n", ["the columns BLD, No, rust: the"]),
        ("Leaves of 2024\n\npath,BLD,No,split\nBLD/1.jpg,1,0,train\nNo/1.jpg,0,1,val\n",
         ["was read from row 3 on, with the label from the columns BLD, No: the one"]),
        ("Images;;;\nDatei;BLD;No;set\nBLD/1.jpg;1;0;train\nNo/1.jpg;0;1;val\n", ["from row 2 on, with semicolons"]),
        (re.sub(r"[^,\n]+", r"'\g<0>'", "path,BLD,No,split\nBLD/1.jpg,1,0,train\nNo/1.jpg,0,1,val\n"),
         ["with quotes around cells, with the label from the columns BLD, No: the one"]),
        ("id;BLD;No;set\nBLD/1;True;False;train\nNo/1;False;True;val\n",
         ["with semicolons between cells, with the column id as path, set as split", "without the suffix"]),
        (changed(("BLD/", "gs://leaves/BLD/"), ("No/", "gs://leaves/No/")), ["without “gs://leaves/” at the"]),
        (changed(("BLD/", "https://x.org/BLD/"), ("No/", "https://x.org/No/"), (".jpg", ".jpg?raw=1")),
         ["without what an address has behind the file", "without “https://x.org/” at the beginning"]),
        (changed(("BLD/", "/data/local-files/?d=BLD/"), ("No/", "/data/local-files/?d=No/"), ("label", "choice")),
         ["choice as label", "without what an address has behind the file"]),
        (changed(("tree 1", '"tree 1"'), (",val,", ",val,NaN")), ["NaN was read as no group in 1 row"]),
    ],
)  # fmt: skip
def test_other_ways_to_write_a_manifest_are_read_and_said(text: str | bytes, said: list[str], root: Path) -> None:
    collection = read_manifest(write(root, text), None)
    without_group = [row[:3] for row in rows(collection)]
    assert without_group == [row[:3] for row in PLAIN]
    assert rows(collection) == PLAIN or "group" not in str(text)
    assert len(collection.notes) == len(said)
    assert all(any(part in note for note in collection.notes) for part in said), collection.notes
    # What the run writes has the true names.
    again = read_manifest(write(root, to_manifest(collection), "splits.csv"), None)
    assert (again, again.notes) == (collection, ())


def test_columns_that_a_program_changed(root: Path) -> None:
    text = "path,label,split,group,fold\nBLD/1.jpg,1.0,train,7.0,0.0\nBLD/2.jpg,1.0,train,,1.0\n"
    text += "No/1.jpg,0.0,val,12.0,0.0\n"
    collection = read_manifest(write(root, text), None)
    assert [row[1:] for row in rows(collection)] == [("1", "train", "7"), ("1", "train", ""), ("0", "val", "12")]
    assert set(collection.folds.values()) == {"0", "1"}
    assert "1.0 was read as 1 in 2 rows" in " ".join(collection.notes)
    # Among other texts it may be meant so.
    collection = read_manifest(write(root, text.replace("12.0", "12.5")), None)
    assert [row[3] for row in rows(collection)] == ["7.0", "", "12.5"]
    collection = read_manifest(write(root, text.replace("7.0", "06. Jan").replace("12.0", "2024-06-01")), None)
    assert [row[3] for row in rows(collection)] == ["06. Jan", "", "2024-06-01"]
    assert "06. Jan in the column group looks like a date that a spreadsheet made" in collection.notes[-1]
    assert len([note for note in collection.notes if "date" in note]) == 1


def test_a_table_of_a_western_windows(root: Path) -> None:
    (root / "No/1.jpg").rename(root / "No/é.jpg")
    text = "path,label,split,group\nBLD/1.jpg,kränk,train,tree ß\nNo/é.jpg,No,val,\n"
    collection = read_manifest(write(root, text.encode("cp1252")), None)
    assert rows(collection) == [("BLD/1.jpg", "kränk", "train", "tree ß"), ("No/é.jpg", "No", "val", "")]
    assert [note.partition(": ")[2] for note in collection.notes] == [
        "1 path was read as Windows-1252.",
        "2 cells without UTF-8 were read as Windows-1252.",
    ]


def test_file_names_alone(root: Path) -> None:
    for number in range(1, 6):
        (root / f"No/{number}.jpg").rename(root / f"No/no{number}.jpg")
    text = "filename,class,set\n1.jpg,BLD,train\nno1,No,val\n2,BLD,train\n"
    collection = read_manifest(write(root, text), None)
    assert [row[0] for row in rows(collection)] == ["BLD/1.jpg", "BLD/2.jpg", "No/no1.jpg"]
    assert "3 paths were read without the folder of the file" in collection.notes[-1]


def test_a_table_of_labels_without_splits(root: Path) -> None:
    (root / "BLD/2.jpg").rename(root / "BLD/IMG_2.jpg")
    (root / "No/2.jpg").rename(root / "No/IMG_3.jpg")
    text = "id,image,choice,group,fold\n0,/data/upload/1/8f3c2a1b-IMG_2.jpg,BLD,tree 1,a\n"
    table = write(root, text + "1,/data/upload/1/0a1b2c3d-IMG_3.jpg,No,,b\n")
    found = read_labels(table, root)
    assert rows(found) == [("BLD/IMG_2.jpg", "BLD", "unassigned", "tree 1"), ("No/IMG_3.jpg", "No", "unassigned", "")]
    assert "without the mark that Label Studio writes" in " ".join(found.notes)
    assert found.folds == {}
    message = str(error(table))
    assert "has no column split" in message
    assert "python -m bldml split PHOTOGRAPHS --manifest " in message
    # A date is no such mark: it may be another photograph.
    table.write_text(text.replace("8f3c2a1b", "20240601"), encoding="utf-8")
    with mistake("manifest-rows-wrong"):
        read_labels(table, root)


@pytest.mark.parametrize("path", ["No/00001234-7.jpg", "8f3c2a1b-7.jpg", "upload/00001234-7.jpg"])
def test_eight_digits_are_no_mark_of_label_studio_anywhere_else(path: str, root: Path) -> None:
    (root / "BLD/5.jpg").rename(root / "BLD/7.jpg")
    table = write(root, f"path,label,split\nBLD/1.jpg,BLD,train\n{path},No,train\n")
    assert wrong_rows(table) == [(3, "file-missing")]


@pytest.mark.parametrize("start", ["", "/data/", "https://x.org/data/"])
def test_a_file_by_label_studio_is_searched_in_its_own_folder_if_that_is_there(start: str, root: Path) -> None:
    (root / "BLD/5.jpg").rename(root / "BLD/7.jpg")
    (root / "upload/1").mkdir(parents=True)
    (root / "BLD/2.jpg").rename(root / "upload/1/2.jpg")
    text = f"path,label,split\n{start}upload/1/8f3c2a1b-2.jpg,BLD,train\n"
    assert [row[0] for row in rows(read_manifest(write(root, text), None))] == ["upload/1/2.jpg"]
    assert wrong_rows(write(root, f"{text}{start}upload/1/0000abcd-7.jpg,No,train\n")) == [(3, "file-missing")]


def test_folds_are_no_contradiction_where_they_are_not_read(root: Path) -> None:
    table = write(root, "path,label,fold,fold,sha256\nBLD/1.jpg,BLD,0,,a\nBLD/1.jpg,BLD,1,2,b\n")
    found = read_labels(table, root)
    assert rows(found) == [("BLD/1.jpg", "BLD", "unassigned", "")]
    assert "1 row was left out, the same as another row" in found.notes[0]
    with mistake("manifest-rows-wrong", found=[(3, "file-twice")]):
        read_labels(write(root, "path,label,group\nBLD/1.jpg,BLD,a\nBLD/1.jpg,BLD,b\n"), root)


@pytest.mark.parametrize(
    ("path", "split", "text"),
    [
        ("BLD/3.jpg", "vall", "unknown split 'vall'; did you mean val?"),
        ("BLD/3.jpg", "left", "unknown split 'left' (use train, val, test)"),
        ("BLD/3.png", "train", "file BLD/3.png does not exist; the file is called BLD/3.jpg"),
        ("BLD/leaf.png", "train", "file BLD/leaf.png does not exist; the file is called BLD/leaf.jpg"),
        ("BLD/7.jpg", "train", "file BLD/7.jpg does not exist; the file is called BLD/0007.jpg"),
        ("other/BLD/3.jpg", "train", "file other/BLD/3.jpg does not exist; take away other/"),
        ("3.jpg", "train", "file 3.jpg does not exist; BLD/3.jpg, No/3.jpg have this name"),
        ("BLD/2024-06-01.jpg", "train", "the file is called BLD/6-1.jpg"),
        ("BLD/06. Jan", "train", "the file is called BLD/6-1.jpg"),
        ("BLD/laef.jpg", "train", "did you mean BLD/leaf.jpg?"),
        ("BLD/1.000", "train", "file BLD/1.000 does not exist; the file is called BLD/1000.jpg"),
        ("1.00E+03", "train", "file 1.00E+03 does not exist; a spreadsheet wrote this for another text: restore it, "
         "and format the column as text"),
        ("########", "train", "file ######## does not exist; a spreadsheet wrote this for another text: restore it, "
         "and format the column as text"),
        ("BLD/3.jpg", "", "no split (use train, val, test)"),
        ("BLD/1.jpg", "val", "same file as row 2 (BLD/1.jpg), which has split train"),
        ('"BLD/2.jpg; 4.jpg"', "train", "BLD/2.jpg; 4.jpg does not exist; it names several files: write a row for"),
        ("BLD/x y z.jpg", "train", "file BLD/x y z.jpg does not exist"),
        ("BLD/LEAF2.jpg", "train", "BLD/Leaf2.jpg, BLD/leaf2.jpg have this name"),
    ],
)  # fmt: skip
def test_the_next_step(path: str, split: str, text: str, root: Path) -> None:
    for name in ("leaf", "0007", "6-1", "Leaf2", "leaf2", "1000"):
        (root / "BLD" / f"{name}.jpg").write_bytes(b"")
    manifest = write(root, f"path,label,split\nBLD/1.jpg,BLD,train\n{path},BLD,{split}\n")
    message = str(error(manifest))
    assert f"row 3: {text}\n" in message or (text in message and not text.startswith("file"))


def test_photographs_of_another_folder_are_not_taken_for_those_of_the_manifest(root: Path) -> None:
    """`site/BLD/1.jpg` is not `BLD/1.jpg`, although all such files are there."""
    text = changed(("BLD/", "site/BLD/"), ("No/", "site/No/"))
    mistaken = error(write(root, text))
    assert mistaken.code == "manifest-root-wrong"
    assert "take away site/" in str(mistaken)
    # Only some of the paths have a folder too many.
    assert wrong_rows(write(root, changed(("BLD/", "root/BLD/")))) == [(2, "file-missing")]


def test_paths_start_from_the_manifests_folder_or_the_root(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "path,label,split\nBLD/1.jpg,BLD,train\n"
    monkeypatch.chdir(root)
    assert wrong_rows(write(tmp_path, text)) == [(2, "file-missing")]
    assert wrong_rows(write(root, text), tmp_path) == [(2, "file-missing")]
    assert len(rows(read_manifest(write(root, text).relative_to(root), None))) == 1
    assert len(rows(read_manifest(write(tmp_path, text), Path()))) == 1
    assert rows(read_manifest(write(tmp_path, text), Path("../root"))) == [("BLD/1.jpg", "BLD", "train", "")]


def test_absolute_paths_and_paths_out_of_the_root(root: Path, tmp_path: Path) -> None:
    shutil.copy(root / "BLD/1.jpg", tmp_path / "outside.jpg")
    shutil.copy(root / "BLD/1.jpg", tmp_path / "beside.jpg")
    text = f"path,label,split\n{root}/BLD/2.jpg,BLD,train\n{tmp_path}/outside.jpg,BLD,train\n../beside.jpg,No,train\n"
    collection = read_manifest(write(root, text), None)
    assert [s.name for s in collection.splits["train"]] == ["BLD/2.jpg", f"{tmp_path}/outside.jpg", "../beside.jpg"]
    assert all(s.path.is_file() for s in collection.splits["train"])
    again = read_manifest(write(tmp_path, to_manifest(collection), "splits.csv"), root)
    assert again.splits == collection.splits


def test_parent_folder_of_a_link_is_that_of_its_target(root: Path, tmp_path: Path) -> None:
    """`link/../1.jpg` is not `1.jpg`."""
    (tmp_path / "far" / "deep").mkdir(parents=True)
    shutil.copy(root / "BLD/1.jpg", tmp_path / "far" / "1.jpg")
    shutil.copy(root / "BLD/1.jpg", root / "1.jpg")
    (root / "link").symlink_to(tmp_path / "far" / "deep")
    collection = read_manifest(write(root, "path,label,split\nlink/../1.jpg,BLD,train\n"), None)
    again = read_manifest(write(tmp_path, to_manifest(collection), "splits.csv"), root)
    assert again.splits["train"][0].path.samefile(tmp_path / "far" / "1.jpg")


def test_order_is_that_of_rows_within_the_splits(root: Path) -> None:
    order = ["No/3.jpg", "BLD/2.jpg", "No/1.jpg", "BLD/5.jpg"]
    text = "path,label,split\n" + "".join(f"{name},{name[:2]},{s}\n" for name in order for s in ["test"])
    text += "BLD/1.jpg,BL,train\n"
    collection = read_manifest(write(root, text), None)
    assert list(collection.splits) == ["train", "test"]
    assert [s.name for s in collection.splits["test"]] == order


def test_labels(root: Path) -> None:
    text = "path,label,split\nBLD/1.jpg,1_BLD,train\nBLD/2.jpg,'=1,train\nBLD/3.jpg,a\u0308,train\nBLD/4.jpg,01,train\n"
    collection = read_manifest(write(root, text), None, aliases={"1_BLD": "BLD", "\u00e4": "leaf"})
    assert [s.class_name for s in collection.splits["train"]] == ["BLD", "=1", "leaf", "01"]


@pytest.mark.parametrize("name", ["a\nb.jpg", "a\r\nb.jpg", "a\rb.jpg", 'a"b.jpg', "a,b.jpg", " a.jpg", "a\\x41.jpg"])
def test_hand_written_names(name: str, root: Path) -> None:
    """Any name in quotes, as a program would write it that does not know our escapes."""
    (root / name).write_bytes((root / "BLD/1.jpg").read_bytes())
    text = f'path,label,split\n"{name.replace(chr(34), chr(34) * 2)}",BLD,train\nBLD/1.jpg,BLD,train\n'
    collection = read_manifest(write(root, text), None)
    assert [s.path for s in collection.splits["train"]] == [root / name, root / "BLD/1.jpg"]
    assert read_manifest(write(root, to_manifest(collection), "splits.csv"), None).splits == collection.splits


def test_hand_written_name_that_looks_escaped_beside_white_space(root: Path) -> None:
    (root / r"a\x41.jpg").write_bytes(b"")
    collection = read_manifest(write(root, "path,label,split\n a\\x41.jpg , BLD, train\n"), None)
    assert [s.path.name for s in collection.splits["train"]] == [r"a\x41.jpg"]
    # Where both are there, the cell is read as what bldml wrote.
    (root / "aA.jpg").write_bytes(b"")
    collection = read_manifest(write(root, "path,label,split\na\\x41.jpg,BLD,train\na\\x5cx41.jpg,BLD,val\n"), None)
    assert [s.path.name for v in collection.splits.values() for s in v] == ["aA.jpg", r"a\x41.jpg"]


def test_hand_written_bytes(root: Path) -> None:
    path = root / os.fsdecode(b"caf\xe9.jpg")
    shutil.copy(root / "BLD/1.jpg", path)
    collection = read_manifest(write(root, b"path,label,split,group\ncaf\xe9.jpg,ros\xe9,train,\xff\n"), None)
    assert collection.splits["train"] == (Sample(path, r"caf\xe9.jpg", r"ros\xe9", r"\xff"),)
    to_manifest(collection).encode()


def test_no_cell_is_a_formula_and_no_line_end_is_left(root: Path) -> None:
    samples = tuple(Sample(root / "a", "a", start + "1", start + "tree") for start in ("=", "+", "-", "@", "'=", "''-"))
    text = to_manifest(Collection(root, {"train": samples}))
    cells = [cell for row in csv.reader(io.StringIO(text)) for cell in row]
    assert not [cell for cell in cells if cell[:1] in ("=", "+", "-", "@", "\t", "\r")]
    assert cells[:4] == ["path", "label", "split", "group"]


def test_groups_and_labels_that_look_like_formulas_come_back(root: Path) -> None:
    starts = ["=", "'=", "''-", "@x,y", '"']
    samples = tuple(
        Sample(root / f"BLD/{i}.jpg", f"BLD/{i}.jpg", f"{start}a", f"{start}b") for i, start in enumerate(starts, 1)
    )
    text = to_manifest(Collection(root, {"val": samples}))
    assert read_manifest(write(root, text), None).splits == {"val": samples}


# What is said about bad ones


ROWS = "manifest-rows-wrong"


@pytest.mark.parametrize(
    ("text", "code", "found"),
    [
        ("", "table-empty", None),
        ("\n\n", "table-empty", None),
        ("path,label,split\n", "manifest-empty", None),
        ("path,label,split\n\n,,\n", "manifest-empty", None),
        ("path,label,split\nBLD/1.jpg,BLD,0\nNo/1.jpg,No,1\n", "manifest-splits-unknown", {"0": 1, "1": 1}),
        ("path,label,split\nBLD/1.jpg,BLD,T\nNo/1.jpg,No,V\n", "manifest-splits-unknown", {"T": 1, "V": 1}),
        ("path,label,split\nBLD/1.jpg,BLD,T\nNo/1.jpg,No,val\n", ROWS, [(2, "split-unknown")]),
        ("path,BLD,split\nBLD/1.jpg,1,train\nNo/1.jpg,0,val\n", "column-missing", ["path", "BLD", "split"]),
        ("path,BLD,No\nBLD/1.jpg,1,1\nNo/1.jpg,0,1\n", "column-missing", ["path", "BLD", "No"]),
        ("path,label,is_train,is_test\nBLD/1.jpg,1,1,0\n", "column-missing", ["path", "label", "is_train", "is_test"]),
        ("path,label\nBLD/1.jpg,BLD\n", "column-missing", ["path", "label"]),
        ("Path;Label;Place\n", "column-missing", ["Path", "Label", "Place"]),
        ("image,file,label,split\nBLD/1.jpg,1,BLD,train\n", "column-twice", ["path"]),
        ("BLD/1.jpg,BLD,left\n", "column-missing", ["BLD/1.jpg", "BLD", "left"]),
        ("BLD/1.jpg,BLD,train,1\n", "column-missing", ["BLD/1.jpg", "BLD", "train", "1"]),
        ("path,label,split,split\nBLD/1.jpg,BLD,train,val\n", "column-twice", ["split"]),
        ("path label split\nBLD/1.jpg BLD train\n", "column-missing", ["path label split"]),
        ("path,label,split\nBLD/1.jpg,NaN,train\n", ROWS, [(2, "label-empty")]),
        (b"PK\x03\x04" + bytes(99), "table-no-text", "a workbook (xlsx or ods) or another archive"),
        ('[{"path": "BLD/1.jpg"}]', "table-no-text", "JSON"),
        ("<html><td>path</td></html>", "table-no-text", "a page or XML"),
        (bytes(range(256)), "table-no-text", ""),
        ("path,label,split\nBLD/9.jpg,BLD,train\n", ROWS, [(2, "file-missing")]),
        ("path,label,split\nBLD,BLD,train\n", ROWS, [(2, "file-missing")]),
        ("path,label,split\n,BLD,train\n", ROWS, [(2, "file-missing")]),
        ("path,label,split\nBLD/1.jpg,,train\n", ROWS, [(2, "label-empty")]),
        ("path,label,split\nBLD/1.jpg\n", ROWS, [(2, "label-empty")]),
        ("path,label,split\nBLD/1.jpg,BLD,\n", ROWS, [(2, "split-unknown")]),
        ("path,label,split\nBLD/1.jpg,BLD,left\n", ROWS, [(2, "split-unknown")]),
        ("path,label,split\nBLD/1.jpg,BLD,val\nBLD/2.jpg,BLD,dev\n", ROWS, [(3, "split-ambiguous")]),
        ("path,label,split\nBLD/1.jpg,BLD,train\n\n,,\nBLD/9.jpg,BLD,val\n", ROWS, [(5, "file-missing")]),
        ('path,label,split,n\nBLD/1.jpg,BLD,train,"a\nb"\nBLD/9.jpg,BLD,val\n', ROWS, [(3, "file-missing")]),
        ('path,label,split\n"BLD/\n9.jpg",BLD,train\n', ROWS, [(2, "file-missing")]),
        ("path,label,split,group\nBLD/1.jpg,BLD,train,site 1, north\n", ROWS, [(2, "too-many-cells")]),
        ('path,label,split\nBLD/1.jpg,BLD,train\n"BLD/2.jpg,BLD,val\nBLD/3', "csv-damaged", 2),
        ('path,label,split\n"BLD/1.jpg"x,BLD,train\n', "csv-damaged", 1),
        ("path,label,split\n" + "x" * 200_000 + ",BLD,train\n", "csv-damaged", 1),
        ("path,label,split\n" + "x" * 300 + ".jpg,BLD,train\n", ROWS, [(2, "file-missing")]),
        ("path,label,split\n" + "x/" * 3000 + "a.jpg,BLD,train\n", ROWS, [(2, "file-missing")]),
        ("path,label,split\na\0b.jpg,BLD,train\n", ROWS, [(2, "file-missing")]),
        ("path,label,split\na\\x00b.jpg,BLD,train\n", ROWS, [(2, "file-missing")]),
        (b"path,label,split\ncaf\xe9.jpg,BLD,train\n", ROWS, [(2, "file-missing")]),
        ("path,label,split\n\x1b[31m.jpg,BLD,train\n", ROWS, [(2, "file-missing")]),
    ],
)
def test_bad_manifest(text: str | bytes, code: str, found: Any, root: Path) -> None:
    mistaken = error(write(root, text))
    assert mistaken.code == code
    assert found is None or found == mistaken.fields["row" if code == "csv-damaged" else "found"]
    message = str(mistaken)
    assert "manifest.csv" in message
    message.encode()
    assert not re.search(r"[\x00-\x08\x0b-\x1f]", message)


def test_the_same_file_twice(root: Path) -> None:
    (root / "link.jpg").symlink_to("BLD/1.jpg")
    (root / "folder").symlink_to("BLD")
    text = "path,label,split\nBLD/1.jpg,BLD,train\n" + "".join(
        f"{name},BLD,val\n"
        for name in ("BLD/1.jpg", "./BLD/1.jpg", "No/../BLD/1.jpg", "link.jpg", "folder/1.jpg", root / "BLD/1.jpg")
    )
    assert wrong_rows(write(root, text)) == [(number, "file-twice") for number in range(3, 9)]


def test_pipe_is_no_photograph(root: Path) -> None:
    os.mkfifo(root / "pipe.jpg")
    assert wrong_rows(write(root, "path,label,split\npipe.jpg,BLD,train\n")) == [(2, "file-missing")]


def test_many_problems_are_cut_with_a_count(root: Path) -> None:
    def text(count: int) -> str:
        return "path,label,split\nBLD/1.jpg,BLD,val\n" + "".join(f"gone{i}.jpg,BLD,train\n" for i in range(count))

    message = str(error(write(root, text(MOST_ROWS_SHOWN))))
    assert message.count("\n  row ") == 20
    assert "…" not in message
    message = str(error(write(root, text(1234))))
    assert message.count("\n  row ") == 20
    assert "… and 1214 more" in message


@pytest.mark.parametrize(
    ("folder", "meant"),
    [("rot", "root"), (".", "root"), ("root/BLD", "root"), ("elsewhere/none", None), ("root/BLD/1.jpg", "root")],
)
def test_a_wrong_folder_is_one_error(root: Path, folder: str, meant: str | None) -> None:
    """Not one for each of 221 rows."""
    home = root.parent / "home"
    shutil.move(root, home / "root")
    (root.parent / "tables").mkdir()
    table = root.parent / "tables" / "manifest.csv"
    table.write_text("path,label,split\n" + "".join(f"{p}.jpg,BLD,train\n" for p in ("BLD/1", "BLD/2", "No/3")))
    assert sum(len(samples) for samples in read_manifest(table, home / "root").splits.values()) == 3
    with pytest.raises(DatasetError) as caught:
        read_manifest(table, home / folder)
    assert caught.value.code == "manifest-root-wrong"
    assert caught.value.fields["found"] == 3
    assert caught.value.fields["likely"] == (None if meant is None else home / meant)
    message = str(caught.value)
    assert "\n" not in message
    assert ("Did you mean" in message) == (meant is not None)


def test_manifest_that_cannot_be_read(root: Path, tmp_path: Path) -> None:
    (tmp_path / "loop.csv").symlink_to("loop.csv")
    for path, number in (
        (tmp_path / "gone.csv", errno.ENOENT),
        (root, errno.EISDIR),
        (tmp_path / "loop.csv", errno.ELOOP),
    ):
        with mistake("table-unreadable", path=path, reason=os.strerror(number)):
            read_manifest(path, None)


def test_photograph_in_a_forbidden_folder() -> None:
    user = os.geteuid()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "secret").mkdir()
        (folder / "secret" / "a.jpg").touch()
        manifest = write(folder, "path,label,split\nsecret/a.jpg,BLD,train\n")
        (folder / "secret").chmod(0)
        if user == 0:
            os.seteuid(65534)
        try:
            assert wrong_rows(manifest) == [(2, "file-missing")]
        finally:
            os.seteuid(user)
            (folder / "secret").chmod(0o755)


@pytest.mark.parametrize(
    ("table", "text"),
    [
        ("path,BLD,split\nBLD/1.jpg,1,train\nNo/1.jpg,0,val\n", "BLD has only 0 and 1, or no and yes. If it says the"),
        ("path,BLD,note,split\nBLD/1.jpg,1,,train\nNo/1.jpg,1,,val\n", "BLD has only 0 and 1, or no and yes. If it"),
        ("path,BLD,note,split\nBLD/1.jpg,1,,train\nNo/1.jpg,0,,val\n", "BLD has only 0 and 1, or no and yes. If it"),
        ("path,note,split\nBLD/1.jpg,,train\nNo/1.jpg,,val\n", "columns: path, label, split (group is optional)."),
        ("path,label,split\nBLD/1.jpg,BLD,\nNo/1.jpg,No,\n",
         "manifest.csv is empty. To make the splits: python -m bldml split PHOTOGRAPHS --manifest "),
        ("path,BLD,No,split\nBLD/1.jpg,1,1,train\nNo/1.jpg,0,0,val\n\nNo/2.jpg,0,1,val\n",
         "2 rows have none or several of them: row 2 (BLD and No), row 3 (none). Correct them, or"),
        ("path,label,split\nBLD/1.jpg,BLD,0\nNo/1.jpg,No,1\n", "If they are the folds of a cross-validation"),
        ("BLD/1.jpg 0\nNo/1.jpg 1\n", "Put commas between them."),
    ],
)  # fmt: skip
def test_what_to_do_with_a_table_of_another_kind(table: str, text: str, root: Path) -> None:
    assert text in str(error(write(root, table)))


# Contents and folds


DIGESTS = {f"{label}/{i}.jpg": f"{i}{len(label)}" + "ab" * 31 for label in ("BLD", "No") for i in (1, 2, 3)}


def with_extras(root: Path) -> Collection:
    def samples(*names: str) -> tuple[Sample, ...]:
        return tuple(Sample(root / name, name, name.split("/")[0], f"tree {name[-5]}") for name in names)

    splits = {
        "train": samples("BLD/1.jpg", "No/1.jpg"),
        "val": samples("BLD/2.jpg", "No/2.jpg"),
        "test": samples("BLD/3.jpg", "No/3.jpg"),
    }
    folds = {"BLD/1.jpg": "0", "No/1.jpg": "1", "BLD/2.jpg": "1", "No/2.jpg": "10"}
    return Collection(root, splits, digests=DIGESTS, folds=folds)


def test_digests_and_folds_come_back(root: Path) -> None:
    collection = with_extras(root)
    text = to_manifest(collection)
    assert text.splitlines()[0] == "path,label,split,group,fold,sha256"
    assert read_manifest(write(root, text), None) == collection
    capitals = text.replace("ab" * 31, "AB" * 31)
    assert read_manifest(write(root, capitals), None) == collection


def test_a_fold_becomes_val(root: Path) -> None:
    manifest = write(root, to_manifest(with_extras(root)))
    collection = read_manifest(manifest, None, fold=1)
    assert {split: [s.name for s in v] for split, v in collection.splits.items()} == {
        "train": ["BLD/1.jpg", "No/2.jpg"],
        "val": ["BLD/2.jpg", "No/1.jpg"],
        "test": ["BLD/3.jpg", "No/3.jpg"],
    }
    assert collection.digests == DIGESTS
    # The run's own manifest says what was done, and has no folds any more.
    assert to_manifest(collection).splitlines()[0] == "path,label,split,group,sha256"


def test_a_fold_that_is_not_there(root: Path) -> None:
    manifest = write(root, to_manifest(with_extras(root)))
    with mistake("fold-unknown", found=2, known=["0", "1", "10"]):
        read_manifest(manifest, None, fold=2)
    manifest = write(root, "path,label,split,fold\nBLD/1.jpg,BLD,train,\nNo/1.jpg,No,test,0\n")
    with mistake("fold-unknown", found=0, known=[]):
        read_manifest(manifest, None, fold=0)
    manifest = write(root, "path,label,split,fold\nBLD/1.jpg,BLD,train,0\nNo/1.jpg,No,val,\nNo/2.jpg,No,test,\n")
    with mistake("fold-incomplete", found=["No/1.jpg"]):
        read_manifest(manifest, None, fold=0)
    # Without a fold, the column may hold anything.
    manifest = write(root, "path,label,split,fold\nBLD/1.jpg,BLD,train,left\n")
    assert len(rows(read_manifest(manifest, None))) == 1


def test_photographs_that_have_changed(root: Path) -> None:
    collection = with_extras(root)
    names = [sample.name for samples in collection.splits.values() for sample in samples]
    check_unchanged(collection, [DIGESTS.get(name, "") for name in names])
    check_unchanged(Collection(root, collection.splits), ["0" * 64] * len(names))
    with mistake("photographs-changed-since-split", found=["No/2.jpg"]):
        check_unchanged(collection, ["0" * 64 if name == "No/2.jpg" else DIGESTS.get(name, "") for name in names])
    samples = tuple(Sample(root / str(i), str(i)) for i in range(30))
    many = Collection(root, {"train": samples}, digests={s.name: "a" * 64 for s in samples})
    with mistake("photographs-changed-since-split", found=[s.name for s in samples]) as raised:
        check_unchanged(many, ["b" * 64] * 30)
    assert "… and 10 more" in str(raised.value)


def test_a_digest_that_is_none(root: Path) -> None:
    text = (
        f"path,label,split,sha256\nBLD/1.jpg,BLD,train,{'a' * 63}\nBLD/2.jpg,BLD,train,\nNo/1.jpg,No,val,{'g' * 64}\n"
    )
    assert wrong_rows(write(root, text)) == [(2, "sha256-wrong"), (4, "sha256-wrong")]
