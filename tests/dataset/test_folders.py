"""Samples from folders: the layouts, the splits of a flat folder, and what messy folders hold besides."""

import json
import os
import random
import shutil
import subprocess
import sys
import unicodedata
from collections import Counter
from collections.abc import Callable
from pathlib import Path, PurePath

import pytest
from PIL import Image

from bldml.dataset.files import HIDDEN
from bldml.dataset.folders import read_folders, read_unlabelled, require_folder, split_of
from bldml.dataset.manifest import read_manifest, to_manifest
from bldml.dataset.samples import SPLITS, Collection, check_trainable
from tests.support import REPOSITORY, mistake

LOOSE, KNOWN = "file outside the class folders", "link to a file or folder already found"
OUT, EMPTY = "link to outside the data folder", "folder without photographs"


def put(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), "green").save(path, "JPEG")


def contents(collection: Collection) -> dict[str, list[tuple[str, str]]]:
    return {split: [(s.name, s.class_name) for s in samples] for split, samples in collection.splits.items()}


def everything(collection: Collection) -> dict[str, tuple[str, str]]:
    """Class and split by name."""
    return {s.name: (s.class_name, split) for split, samples in collection.splits.items() for s in samples}


def state(root: Path) -> dict[str, tuple[int, int, int, bytes]]:
    """All that one could change about files."""
    found = {}
    for path in sorted(root.rglob("*")):
        info = path.lstat()
        content = path.read_bytes() if path.is_file() else b""
        found[str(path)] = (info.st_mode, info.st_ino, info.st_mtime_ns, content)
    return found


# Split folders


def test_split_folders(tmp_path: Path) -> None:
    put(
        tmp_path, "train/BLD/1.jpg", "train/No/2.jpg", "train/No/tree 7/north/3.jpg", "val/BLD/4.jpg", "val/No/5.jpg",
        "test/BLD/1.jpg", "test/No/6.jpg",
    )  # fmt: skip
    collection = read_folders(tmp_path)
    assert contents(collection) == {
        "train": [("train/BLD/1.jpg", "BLD"), ("train/No/2.jpg", "No"), ("train/No/tree 7/north/3.jpg", "No")],
        "val": [("val/BLD/4.jpg", "BLD"), ("val/No/5.jpg", "No")],
        "test": [("test/BLD/1.jpg", "BLD"), ("test/No/6.jpg", "No")],
    }
    assert all(s.path == tmp_path / s.name and s.path.is_file() for v in collection.splits.values() for s in v)
    assert collection.ignored == {}
    check_trainable(collection)
    # The fractions are those of a flat folder only.
    assert contents(read_folders(tmp_path, test_fraction=0)) == contents(collection)


def test_split_folders_without_test(tmp_path: Path) -> None:
    put(tmp_path, "train/BLD/1.jpg", "val/BLD/2.jpg")
    assert list(read_folders(tmp_path).splits) == ["train", "val"]


def test_whole_takes_the_test_folder_alone(tmp_path: Path) -> None:
    put(tmp_path, "train/BLD/1.jpg", "val/BLD/2.jpg", "test/BLD/3.jpg", "train/a.jpg", "test/b.jpg")
    (tmp_path / "test" / "BLD" / "trained_on.jpg").symlink_to("../../train/BLD/1.jpg")
    collection = read_folders(tmp_path, whole=True)
    assert contents(collection) == {"test": [("test/BLD/3.jpg", "BLD")]}
    assert collection.ignored == {KNOWN: 1, LOOSE: 1}


def test_whole_without_a_test_folder(tmp_path: Path) -> None:
    put(tmp_path, "train/BLD/1.jpg", "val/BLD/2.jpg")
    with mistake("test-folder-missing", found=["train", "val"]):
        read_folders(tmp_path, whole=True)


def test_what_lies_beside_the_split_folders_is_counted(tmp_path: Path) -> None:
    put(
        tmp_path, "train/BLD/1.jpg", "val/BLD/2.jpg", "old/BLD/3.jpg", "raw/4.jpg", "loose.jpg", "train/loose.jpg",
        ".git/5.jpg", "train/.ipynb_checkpoints/6.jpg",
    )  # fmt: skip
    (tmp_path / "README.txt").touch()
    (tmp_path / "val" / "empty").mkdir()
    collection = read_folders(tmp_path)
    assert everything(collection).keys() == {"train/BLD/1.jpg", "val/BLD/2.jpg"}
    assert collection.ignored == {"folder that is not a split": 2, LOOSE: 3, HIDDEN: 2, EMPTY: 1}


def test_a_photograph_linked_into_two_splits_is_in_one(tmp_path: Path) -> None:
    put(tmp_path, "test/BLD/1.jpg", ".pool/2.jpg")
    for split in ("train", "val"):
        (tmp_path / split / "BLD").mkdir(parents=True)
        (tmp_path / split / "BLD" / "1.jpg").symlink_to("../../test/BLD/1.jpg")
        (tmp_path / split / "BLD" / "2.jpg").symlink_to("../../.pool/2.jpg")
    collection = read_folders(tmp_path)
    assert contents(collection) == {
        "train": [("train/BLD/2.jpg", "BLD")],
        "val": [],
        "test": [("test/BLD/1.jpg", "BLD")],
    }
    assert collection.ignored[KNOWN] == 3


def test_split_folders_that_are_links(tmp_path: Path) -> None:
    root = tmp_path / "root"
    put(tmp_path, "root/.pool/a/BLD/1.jpg", "root/val/BLD/2.jpg", "outside/BLD/3.jpg")
    (root / "train").symlink_to(".pool/a")
    (root / "test").symlink_to("../outside")
    collection = read_folders(root)
    assert contents(collection) == {
        "train": [("train/BLD/1.jpg", "BLD")],
        "val": [("val/BLD/2.jpg", "BLD")],
        "test": [],
    }
    assert collection.ignored == {HIDDEN: 1, OUT: 1, EMPTY: 1}


def test_split_folder_that_is_a_link_to_another(tmp_path: Path) -> None:
    put(tmp_path, "val/BLD/1.jpg")
    (tmp_path / "train").symlink_to("val")
    assert contents(read_folders(tmp_path)) == {"train": [], "val": [("val/BLD/1.jpg", "BLD")]}


# Flat folder


def test_flat_folder(tmp_path: Path) -> None:
    put(tmp_path, *(f"{name}/tree {i % 3}/{i}.jpg" for name in ("BLD", "No") for i in range(60)))
    put(tmp_path, "loose.jpg", ".hidden/1.jpg", ".DS_Store")
    (tmp_path / "BLD" / "notes.txt").touch()
    (tmp_path / "empty" / "inner").mkdir(parents=True)
    collection = read_folders(tmp_path)
    assert list(collection.splits) == list(SPLITS)
    found = everything(collection)
    assert len(found) == 120
    assert {(name.split("/")[0], label) for name, (label, _) in found.items()} == {("BLD", "BLD"), ("No", "No")}
    for name, (_, split) in found.items():
        assert split == split_of(PurePath(*PurePath(name).parts[1:]), 0.2, 0.2)
    assert collection.ignored == {LOOSE: 1, HIDDEN: 2, ".txt file": 1, EMPTY: 1}
    check_trainable(collection)


def test_no_test_split_when_its_fraction_is_0(tmp_path: Path) -> None:
    put(tmp_path, *(f"{name}/{i}.jpg" for name in ("BLD", "No") for i in range(40)))
    collection = read_folders(tmp_path, test_fraction=0)
    assert list(collection.splits) == ["train", "val"]
    assert len(everything(collection)) == 80
    check_trainable(collection)


def test_whole_takes_a_flat_folder_undivided(tmp_path: Path) -> None:
    put(tmp_path, *(f"{name}/{i}.jpg" for name in ("BLD", "No") for i in range(5)))
    collection = read_folders(tmp_path, whole=True)
    assert list(collection.splits) == ["test"]
    assert len(collection.splits["test"]) == 10


def test_aliases_and_names_of_classes(tmp_path: Path) -> None:
    nfc, nfd = (unicodedata.normalize(form, "Blätter") for form in ("NFC", "NFD"))
    put(tmp_path, "1_BLD/a.jpg", "rust/b.jpg", " No_BLD/c.jpg", f"{nfc}/d.jpg", f"{nfd}/e.jpg", "+/f.jpg", "=1/g.jpg")
    collection = read_folders(tmp_path, aliases={"1_BLD": "BLD", "rust": "BLD", "No_BLD": "sound", nfd: "leaves"})
    originals = {sample.name: sample.original_class for sample in collection.samples()}
    assert (originals["rust/b.jpg"], originals[r"\x20No_BLD/c.jpg"], originals[f"{nfd}/e.jpg"]) == (
        "rust",
        "No_BLD",
        nfc,
    )
    found = everything(collection)
    assert {name: label for name, (label, _) in found.items()} == {
        "1_BLD/a.jpg": "BLD",
        "rust/b.jpg": "BLD",
        r"\x20No_BLD/c.jpg": "sound",
        f"{nfc}/d.jpg": "leaves",
        f"{nfd}/e.jpg": "leaves",
        "./+/f.jpg": "+",
        "./=1/g.jpg": "=1",
    }


def test_class_folders_that_are_links(tmp_path: Path) -> None:
    root = tmp_path / "root"
    put(tmp_path, "root/.pool/rust/1.jpg", "root/No/2.jpg", "outside/3.jpg", "root/loose.jpg")
    (root / "BLD").symlink_to(".pool/rust")
    (root / "Away").symlink_to("../outside")
    (root / "Loop").symlink_to("Loop")
    (root / "Also").symlink_to("No")
    (root / "All").symlink_to(".")
    (root / "Broken").symlink_to("gone")
    collection = read_folders(root)
    assert {name: label for name, (label, _) in everything(collection).items()} == {
        "BLD/1.jpg": "BLD",
        "No/2.jpg": "No",
    }
    # The links to itself and to nothing are no folders; the other three are, and hold nothing of their own.
    assert collection.ignored == {OUT: 1, KNOWN: 2, EMPTY: 3, LOOSE: 3, HIDDEN: 1}


def test_root_that_is_a_link(tmp_path: Path) -> None:
    put(tmp_path, *(f"real/{name}/{i}.jpg" for name in ("BLD", "No") for i in range(10)))
    (tmp_path / "link").symlink_to("real")
    assert contents(read_folders(tmp_path / "link")) == contents(read_folders(tmp_path / "real"))


def test_relative_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, *(f"d/{name}/{i}.jpg" for name in ("BLD", "No") for i in range(10)))
    wanted = contents(read_folders(tmp_path / "d"))
    assert len(wanted["train"]) > 0
    monkeypatch.chdir(tmp_path / "d")
    for root in (".", "../d", "BLD/.."):
        assert contents(read_folders(Path(root))) == wanted


def test_link_between_classes_is_found_where_it_really_is(tmp_path: Path) -> None:
    put(tmp_path, "No/1.jpg")
    (tmp_path / "BLD").mkdir()
    (tmp_path / "BLD" / "1.jpg").symlink_to("../No/1.jpg")
    assert [label for label, _ in everything(read_folders(tmp_path)).values()] == ["No"]


def test_nothing_is_changed(tmp_path: Path) -> None:
    put(tmp_path, "BLD/1.jpg", "No/2.jpg", "No/._3.jpg", "No/4.heic", "loose.jpg")
    (tmp_path / "BLD" / "bad.jpg").write_bytes(b"no picture")
    (tmp_path / "BLD" / "link.jpg").symlink_to("1.jpg")
    before = state(tmp_path)
    collection = read_folders(tmp_path)
    read_unlabelled(tmp_path)
    to_manifest(collection)
    assert state(tmp_path) == before


# Roots that are no data folder


def test_roots_that_are_none(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    for name, code in {
        "two\nlines": "data-folder-missing",
        "a.jpg/b": "data-folder-missing",
        "a.jpg": "data-folder-no-folder",
        "pipe": "data-folder-no-folder",
        "loop": "data-folder-unreachable",
        "x" * 300: "data-folder-unreachable",
    }.items():
        readers: list[Callable[[Path], object]] = [require_folder, read_folders]
        for read in readers if name == "a.jpg" else [*readers, read_unlabelled]:
            with mistake(code, path=tmp_path / name) as raised:
                read(tmp_path / name)
            assert "\n" not in str(raised.value)


def test_empty_root(tmp_path: Path) -> None:
    collection = read_folders(tmp_path)
    assert contents(collection) == {"train": [], "val": [], "test": []}
    assert collection.ignored == {}


# Photographs without labels


def test_unlabelled(tmp_path: Path) -> None:
    put(tmp_path, "b.jpg", "a/c.jpg", "train/BLD/d.jpg", ".hidden/e.jpg")
    (tmp_path / "a" / "b.jpg").symlink_to("../b.jpg")
    (tmp_path / "notes.txt").touch()
    collection = read_unlabelled(tmp_path)
    assert contents(collection) == {"predict": [("b.jpg", ""), ("a/c.jpg", ""), ("train/BLD/d.jpg", "")]}
    assert collection.ignored == {HIDDEN: 1, KNOWN: 1, ".txt file": 1}
    (tmp_path / "link").symlink_to("a")
    assert contents(read_unlabelled(tmp_path / "link")) == {"predict": [("c.jpg", "")]}


@pytest.mark.parametrize("name", ["leaf.jpg", "=leaf.jpg", "leaf without suffix", ".hidden.jpg"])
def test_one_photograph(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, name, "other.jpg")
    text = f"./{name}" if name.startswith("=") else name
    assert contents(read_unlabelled(tmp_path / name)) == {"predict": [(text, "")]}
    monkeypatch.chdir(tmp_path)
    assert contents(read_unlabelled(Path(name))) == {"predict": [(text, "")]}


# The splits of a flat folder


def leaf_names(count: int, seed: int) -> list[PurePath]:
    generator = random.Random(seed)
    kinds = ("IMG", "DSC", "tree/leaf")
    return [PurePath(f"{generator.choice(kinds)}_{generator.getrandbits(40)}.jpg") for _ in range(count)]


@pytest.mark.parametrize(("val", "test"), [(0.2, 0.2), (0.1, 0.3), (0.25, 0.0), (0.01, 0.01), (0.45, 0.45)])
def test_fractions_are_near_what_was_asked(val: float, test: float) -> None:
    count = 20_000
    found = Counter(split_of(name, val, test) for name in leaf_names(count, seed=3))
    for split, fraction in {"val": val, "test": test, "train": 1 - val - test}.items():
        # Four standard deviations of a binomial proportion.
        assert abs(found[split] / count - fraction) <= 4 * (fraction * (1 - fraction) / count) ** 0.5


def test_numbered_names_are_divided_like_random_ones() -> None:
    for pattern in ("leaf_{:04d}.jpg", "IMG_{}.JPG", "{}.png", "tree {}/1.jpg"):
        found = Counter(split_of(PurePath(pattern.format(i)), 0.2, 0.2) for i in range(5000))
        assert abs(found["val"] - 1000) < 4 * (5000 * 0.16) ** 0.5
        assert abs(found["test"] - 1000) < 4 * (5000 * 0.16) ** 0.5


def test_split_is_the_same_in_every_release() -> None:
    """A change of the rule would move photographs from train to test between two versions of bldml."""
    names = ["leaf_0001.jpg", "IMG_2041.JPG", "tree 7/DSC00012.jpeg", "Blätter/é.png", "榉树.webp", "a.b.c.tif"]
    assert [split_of(PurePath(name), 0.2, 0.2) for name in names] == ["test", "val", "train", "train", "test", "train"]
    assert split_of(PurePath(os.fsdecode(b"caf\xe9.jpg")), 0.5, 0.2) == "train"


def test_larger_fractions_only_add() -> None:
    for name in leaf_names(2000, seed=4):
        if split_of(name, 0.2, 0.2) == "test":
            assert split_of(name, 0.2, 0.3) == "test"
        if split_of(name, 0.3, 0.2) == "train":
            assert split_of(name, 0.2, 0.2) == "train"


def test_copies_of_another_format_stay_together() -> None:
    for name in leaf_names(300, seed=5):
        folder, stem = name.parent, name.stem
        copies = [f"{stem}.JPG", f"{stem}.jpeg", f"{stem.lower()}.png", f"{stem.upper()}.jpg", f"{stem}.heic"]
        assert {split_of(folder / copy, 0.3, 0.3) for copy in copies} == {split_of(name, 0.3, 0.3)}
        marked = f"Bä{stem}ệé.jpg"
        forms = [unicodedata.normalize(form, marked) for form in ("NFC", "NFD")]
        assert forms[0] != forms[1]
        assert len({split_of(PurePath(form), 0.3, 0.3) for form in forms}) == 1


def test_names_of_any_bytes_are_divided() -> None:
    generator = random.Random(6)
    for _ in range(3000):
        raw = bytes(generator.choices([b for b in range(1, 256) if b != ord("/")], k=generator.randint(1, 30)))
        assert split_of(PurePath(os.fsdecode(b"x" + raw)), 0.2, 0.2) in SPLITS


def test_old_photographs_stay_when_others_come_and_go(tmp_path: Path) -> None:
    put(tmp_path, *(f"{name}/{i}.jpg" for name in ("BLD", "No") for i in range(40)))
    before = everything(read_folders(tmp_path))
    put(tmp_path, *(f"{name}/new {i}.jpg" for name in ("BLD", "No") for i in range(40)))
    after = everything(read_folders(tmp_path))
    assert len(after) == 160
    assert {name: after[name] for name in before} == before
    for name in list(before)[::3]:
        (tmp_path / name).unlink()
    left = everything(read_folders(tmp_path))
    assert {name: after[name] for name in left} == left


def test_splits_do_not_depend_on_the_names_of_classes_or_the_root(tmp_path: Path) -> None:
    put(tmp_path / "one", *(f"{name}/sub/{i}.jpg" for name in ("BLD", "No") for i in range(30)))
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    (tmp_path / "two" / "BLD").rename(tmp_path / "two" / "z healthy")
    one, two = (everything(read_folders(tmp_path / root)) for root in ("one", "two"))
    assert {name.replace("BLD/", "z healthy/"): split for name, (_, split) in one.items()} == {
        name: split for name, (_, split) in two.items()
    }


# The splits as a manifest


HARD_NAMES = [
    b"plain.jpg", b" space.jpg", b"two\nlines.jpg", b"a\rb.jpg", b"c\r\nd.jpg", b"tab\t.jpg", b"=1+1.jpg", b"-rf.jpg",
    b"+a.jpg", b"@a.jpg", b"'=a.jpg", b'"quoted".jpg', b"comma, semicolon; .jpg", b"caf\xe9.jpg", rb"caf\xe9.jpg",
    rb"\x41.jpg", rb"\\x41.jpg", b"\\.jpg", b"\xff\xfe.jpg", b"n" * 251 + b".jpg", b"\xff" * 251 + b".jpg",
    "\u05d0\u202e\u05d1.jpg".encode(), "\u00e9.jpg".encode(), "e\u0301.jpg".encode(), "\u2028.jpg".encode(),
    "\u00a0.jpg".encode(),
    "\ufeffbom.jpg".encode(), b"\x1b[31m.jpg", b"%s{0}$HOME.jpg", b"a.JPG", b"a.jpg",
]  # fmt: skip


def hard_root(root: Path, layout: str) -> Path:
    """Hard names for photographs, folders between and classes."""
    source = root.parent / "source.jpg"
    put(source.parent, source.name)
    for part in SPLITS if layout == "split" else [""]:
        for label in (b"BLD\n", b" =No"):
            for inner in (b"", b" deep\xff", b"=deep"):
                folder = root / part / os.fsdecode(label) / os.fsdecode(inner)
                folder.mkdir(parents=True)
                for name in HARD_NAMES:
                    shutil.copy(source, folder / os.fsdecode(name))
    return root


@pytest.mark.parametrize("layout", ["split", "flat", "manifest"])
def test_hard_names_come_back_from_the_manifest(layout: str, tmp_path: Path) -> None:
    root = hard_root(tmp_path / "root", layout)
    collection = read_folders(root)
    if layout == "manifest":
        rows = (
            f'"{s.name.replace(chr(34), chr(34) * 2)}",{s.class_name},{split},"{group} {i % 5}"\n'
            for split, samples in collection.splits.items()
            for i, (s, group) in enumerate(
                zip(samples, ["tree", "=site", "'-x", "a,\nb\r"] * len(samples), strict=False)
            )
        )
        (root / "groups.csv").write_text("path,label,split,group\n" + "".join(rows), newline="")
        collection = read_manifest(root / "groups.csv", None)
        assert {s.group for s in collection.splits["val"]} >= {"tree 0", "=site 1", r"a,\x0ab\x0d 3"}
    expected = 2 * 3 * len(HARD_NAMES) * (3 if layout == "split" else 1)
    assert len(everything(collection)) == expected
    assert collection.class_names == ("=No", "BLD")
    written = tmp_path / "splits.csv"
    written.write_bytes(to_manifest(collection).encode())
    again = read_manifest(written, root)
    assert again.splits == collection.splits
    assert to_manifest(again).encode() == written.read_bytes()


# HEIC

READ = """
import json, sys
if sys.argv[2] == "without":
    sys.modules["pillow_heif"] = None
from pathlib import Path
from bldml.dataset.folders import read_folders, read_unlabelled
from bldml.dataset.samples import no_photographs
found = [read_folders(Path(sys.argv[1])), read_unlabelled(Path(sys.argv[1]))]
json.dump(
    [
        [sorted(s.name for v in c.splits.values() for s in v), sorted(p.name for p in c.heif), no_photographs(c)]
        for c in found
    ],
    sys.stdout,
)
"""


def read_in_a_process(root: Path, extra: str) -> list[tuple[list[str], list[str], str]]:
    result = subprocess.run(
        [sys.executable, "-c", READ, str(root), extra], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    found: list[tuple[list[str], list[str], str]] = json.loads(result.stdout)
    return found


def test_heic_without_the_extra_is_counted_and_named(tmp_path: Path) -> None:
    put(tmp_path, "BLD/1.jpg", "BLD/2.HEIC", "BLD/3.heif", "BLD/4.hif", "BLD/._5.heic")
    (tmp_path / "BLD" / "again.heic").symlink_to("2.HEIC")
    for photographs, heif, message in read_in_a_process(tmp_path, "without"):
        assert photographs == ["BLD/1.jpg"]
        assert heif == ["2.HEIC", "3.heif", "4.hif"]
        assert "3 × HEIC photograph" in message


def test_heic_with_the_extra_is_read(tmp_path: Path) -> None:
    pytest.importorskip("pillow_heif")
    put(tmp_path, "BLD/1.jpg", "BLD/2.HEIC", "BLD/3.heif")
    for photographs, heif, _ in read_in_a_process(tmp_path, "with"):
        assert photographs == ["BLD/1.jpg", "BLD/2.HEIC", "BLD/3.heif"]
        assert heif == []
