"""The search through a messy folder, and names that hold any bytes."""

import io
import os
import random
import shutil
import stat
import tempfile
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path

import pytest
from PIL import Image

from bldml.dataset.files import (
    HIDDEN,
    RENAME,
    Found,
    escape_path,
    escape_text,
    is_ignored_name,
    list_folder,
    search_folders,
    show_path,
    subfolders,
    unescape_path,
)
from bldml.dataset.images import heif_available
from tests.support import mistake

BROKEN, OUT, KNOWN = "broken link", "link to outside the data folder", "link to a file or folder already found"


def put(root: Path, *names: str) -> None:
    """Empty files: the search goes by names and kinds, not by content."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def search(root: Path, *folders: str) -> list[Found]:
    return search_folders(root, [root / folder for folder in folders or (".",)])


def names(found: Found, root: Path) -> list[str]:
    return [str(path.relative_to(root)) for path in found.photographs]


@contextmanager
def nobody() -> Iterator[None]:
    """Root, who may do everything, becomes another user meanwhile."""
    heif_available()  # imported now, by one who may
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter, unlike `tmp_path`."""
    name = tempfile.mkdtemp()
    Path(name).chmod(0o755)
    yield Path(name)
    for path, _, _ in os.walk(name):
        Path(path).chmod(0o755)
    shutil.rmtree(name)


# What is found and what is left out


@pytest.mark.parametrize(
    "name",
    [".DS_Store", "._leaf.jpg", ".ipynb_checkpoints", "Thumbs.db", "DESKTOP.INI", "__MACOSX", "@eaDir", "__pycache__",
     "$RECYCLE.BIN", "System Volume Information", "lost+found", "#recycle"],
)  # fmt: skip
def test_what_systems_and_notebooks_leave_is_ignored_and_counted(name: str, tmp_path: Path) -> None:
    assert is_ignored_name(name)
    put(tmp_path, "a.jpg", f"{name}/b.jpg", f"deep/{name}")
    (found,) = search(tmp_path)
    assert names(found, tmp_path) == ["a.jpg"]
    assert found.ignored == {HIDDEN: 2}
    assert [path.name for path in subfolders(tmp_path)] == ["deep"]


@pytest.mark.parametrize("name", ["leaf.jpg", "thumbs.jpg", "_leaf", "a.b", "~a", "DS_Store", "Thumbs.db.jpg"])
def test_what_is_not_ignored(name: str) -> None:
    assert not is_ignored_name(name)


def test_every_kind_of_photograph_and_nothing_else(tmp_path: Path) -> None:
    photographs = [
        "a.jpg", "b.JPG", "c.jpeg", "d.Jpe", "e.jfif", "f.mpo", "g.png", "h.tif", "i.TIFF", "j.webp", "k.bmp",
        "l.avif", "x.y.jpg",
    ]  # fmt: skip
    put(tmp_path, *photographs, "m.gif", "n.GIF", "o.cr2", "p.txt", "jpg", "q.jpg ", "r.jpg~", "s.thisislong")
    (found,) = search(tmp_path)
    assert names(found, tmp_path) == photographs
    not_read = "file ({}), which is not read: export it as JPEG"
    assert found.ignored == {
        f"GIF {not_read.format('.gif')}": 2, f"RAW {not_read.format('.cr2')}": 1, ".txt file": 1, "other file": 4,
    }  # fmt: skip


def test_photographs_under_other_names_are_said(tmp_path: Path) -> None:
    """By their content: a table beside a photograph has a name like it."""
    picture = io.BytesIO()
    Image.new("RGB", (9, 9)).save(picture, "JPEG")
    photographs = ["1.jpeg_1642", "photo.jpg.download", "x.JPG_original", "IMG_1234", "a.jpg.crdownload", "b.JPG~"]
    for name in photographs:
        (tmp_path / name).write_bytes(picture.getvalue())
    for name in ("photo.jpg.json", "photo.jpg.xmp", "README", "notes.jpg_text"):
        (tmp_path / name).write_bytes(b"{}")
    for name in ("a.NEF", "b.dng", "c.jxl"):
        (tmp_path / name).write_bytes(picture.getvalue())
    (found,) = search(tmp_path)
    (renamed,) = [reason for reason in found.ignored if reason.startswith(RENAME)]
    assert found.ignored.pop(renamed) == len(photographs)
    assert renamed == f"{RENAME}, such as 1.jpeg_1642: rename it"
    assert found.ignored == {
        ".json file": 1,
        ".xmp file": 1,
        "other file": 2,
        "RAW file (.nef), which is not read: export it as JPEG": 1,
        "RAW file (.dng), which is not read: export it as JPEG": 1,
        "JPEG XL file (.jxl), which is not read: export it as JPEG": 1,
    }


def test_order_is_that_of_bytes_whatever_the_order_of_writing(tmp_path: Path) -> None:
    wanted = ["B.jpg", "a.jpg", "b/a.jpg", "b/c/a.jpg", "d/a.jpg", "z.jpg", "é.jpg"]
    for seed in range(3):
        root = tmp_path / str(seed)
        put(root, *random.Random(seed).sample(wanted, len(wanted)))
        (found,) = search(root)
        assert names(found, root) == ["B.jpg", "a.jpg", "z.jpg", "é.jpg", "b/a.jpg", "b/c/a.jpg", "d/a.jpg"]


@pytest.mark.parametrize("kind", [stat.S_IFIFO, stat.S_IFSOCK])
def test_what_is_no_regular_file_is_left_alone(kind: int, tmp_path: Path) -> None:
    """To open a pipe would wait for ever."""
    put(tmp_path, "a.jpg")
    os.mknod(tmp_path / "pipe.jpg", kind | 0o600)
    (tmp_path / "link.jpg").symlink_to("pipe.jpg")
    (found,) = search(tmp_path)
    assert names(found, tmp_path) == ["a.jpg"]
    assert found.ignored == {"not a regular file": 2}


def test_device_is_left_alone(tmp_path: Path) -> None:
    """To read this one would never end."""
    try:
        os.mknod(tmp_path / "zero.jpg", stat.S_IFCHR | 0o600, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("only root may make a device")
    (found,) = search(tmp_path)
    assert found.photographs == []
    assert found.ignored == {"not a regular file": 1}


def test_deeper_than_python_may_recurse(tmp_path: Path) -> None:
    here = Path.cwd()
    root = tmp_path / "r"
    root.mkdir()
    os.chdir(root)
    try:
        for _ in range(1200):
            Path("d").mkdir()
            os.chdir("d")
        Path("a.jpg").touch()
    finally:
        os.chdir(here)
    try:
        (found,) = search(root)
        assert len(found.photographs) == 1
        assert len(found.photographs[0].relative_to(root).parts) == 1201
    finally:
        # What removes tmp_path later recurses: cut the chain in the middle until it is short.
        for cut in range(1050, 0, -150):
            inner = root.joinpath(*["d"] * cut)
            inner.rename(root / f"rest{cut}")


# Links


def test_links_that_loop_end(tmp_path: Path) -> None:
    put(tmp_path, "a/1.jpg", "a/b/2.jpg")
    (tmp_path / "a" / "b" / "up").symlink_to("..")
    (tmp_path / "a" / "b" / "top").symlink_to(tmp_path)
    (tmp_path / "a" / "self").symlink_to("self")
    (tmp_path / "x").symlink_to("y")
    (tmp_path / "y").symlink_to("x")
    (found,) = search(tmp_path)
    assert names(found, tmp_path) == ["a/1.jpg", "a/b/2.jpg"]
    assert found.ignored == {KNOWN: 2, BROKEN: 3}
    assert [path.name for path in subfolders(tmp_path)] == ["a"]


def test_links_that_lead_out(tmp_path: Path) -> None:
    root = tmp_path / "root"
    put(tmp_path, "root/a.jpg", "rootlike/b.jpg", "outside/c.jpg")
    (root / "file.jpg").symlink_to("../outside/c.jpg")
    (root / "folder").symlink_to("../outside")
    (root / "absolute").symlink_to(tmp_path / "rootlike")  # its path begins with the root's
    (root / "parent").symlink_to("..")
    (root / "system").symlink_to("/")
    (found,) = search(root)
    assert names(found, root) == ["a.jpg"]
    assert found.ignored == {OUT: 5}


def test_broken_links(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").symlink_to("gone.jpg")
    (tmp_path / "b.jpg").symlink_to("/gone/b.jpg")
    (tmp_path / "c.jpg").symlink_to("x" * 300)
    put(tmp_path, "file")
    (tmp_path / "d.jpg").symlink_to("file/d.jpg")
    (found,) = search(tmp_path)
    assert found.photographs == []
    assert found.ignored == {BROKEN: 4, "other file": 1}


def test_linked_file_is_found_where_it_really_is(tmp_path: Path) -> None:
    put(tmp_path, "b/real.jpg", "b/deep/real.jpg")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "link.jpg").symlink_to("../b/real.jpg")
    (tmp_path / "a" / "folder").symlink_to("../b/deep")
    (tmp_path / "b" / "alias.jpg").symlink_to("real.jpg")
    a, b = search(tmp_path, "a", "b")
    assert names(a, tmp_path) == []
    assert names(b, tmp_path) == ["b/real.jpg", "b/deep/real.jpg"]
    assert a.ignored == {KNOWN: 2}
    assert b.ignored == {KNOWN: 1}


def test_pool_inside_the_root_is_found_through_links_once(tmp_path: Path) -> None:
    put(tmp_path, ".pool/1.jpg", ".pool/2.jpg", ".pool/more/3.jpg", ".pool/.hidden.jpg", ".pool/abc")
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    (tmp_path / "a" / "one.jpg").symlink_to("../.pool/1.jpg")
    (tmp_path / "a" / "blob.jpg").symlink_to("../.pool/abc")  # as git-annex and DVC store files
    (tmp_path / "b" / "one.jpg").symlink_to("../.pool/1.jpg")
    (tmp_path / "b" / "pool").symlink_to("../.pool")
    (tmp_path / "b" / "zmore").symlink_to("../.pool/more")
    a, b = search(tmp_path, "a", "b")
    assert names(a, tmp_path) == ["a/blob.jpg", "a/one.jpg"]
    assert names(b, tmp_path) == ["b/pool/2.jpg", "b/pool/more/3.jpg"]
    # The link, then what it names inside the pool once more, then the folder inside the pool.
    assert b.ignored == {KNOWN: 3, HIDDEN: 1, "other file": 1}


def test_chain_of_links_and_links_inside_a_pool(tmp_path: Path) -> None:
    put(tmp_path, ".pool/1.jpg")
    (tmp_path / ".pool" / "2.jpg").symlink_to("1.jpg")
    (tmp_path / ".pool" / "loop").symlink_to(".")
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to(".pool")
    (found,) = search(tmp_path)
    assert names(found, tmp_path) == ["a/1.jpg"]
    assert found.ignored == {KNOWN: 3, HIDDEN: 1}


def test_link_up_to_the_root_takes_nothing(tmp_path: Path) -> None:
    put(tmp_path, "loose.jpg", "a/1.jpg", "b/2.jpg")
    (tmp_path / "0").symlink_to(".")
    (tmp_path / "b" / "up").symlink_to("..")
    zero, a, b = search(tmp_path, "0", "a", "b")
    assert [names(found, tmp_path) for found in (zero, a, b)] == [[], ["a/1.jpg"], ["b/2.jpg"]]
    assert zero.ignored == b.ignored == {KNOWN: 1}


def test_root_that_is_a_link(tmp_path: Path) -> None:
    put(tmp_path, "real/a/1.jpg", "outside.jpg")
    (tmp_path / "real" / "out.jpg").symlink_to(tmp_path / "outside.jpg")
    (tmp_path / "link").symlink_to("real")
    (found,) = search(tmp_path / "link")
    assert names(found, tmp_path) == ["link/a/1.jpg"]
    assert found.ignored == {OUT: 1}


@pytest.mark.parametrize("root", [".", "x/../", "./a/.."])
def test_relative_root(root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "a/1.jpg", "x/2.jpg")
    monkeypatch.chdir(tmp_path)
    (found,) = search_folders(Path(root), [Path(root) / "a"])
    assert [os.path.normpath(path) for path in found.photographs] == ["a/1.jpg"]


def test_heic_twice_through_a_link_is_one(tmp_path: Path) -> None:
    put(tmp_path, "a.heic")
    (tmp_path / "b.heic").symlink_to("a.heic")
    (found,) = search(tmp_path)
    assert len(found.photographs + found.heif) == 1
    assert found.ignored == {KNOWN: 1}


# Permissions


def test_folder_that_cannot_be_listed(open_folder: Path) -> None:
    put(open_folder, "a/secret\nroom/1.jpg")
    (open_folder / "a" / "secret\nroom").chmod(0)
    with nobody(), mistake("folder-unreadable", path=open_folder / "a" / "secret\nroom"):
        search(open_folder)


def test_folder_that_can_be_listed_but_not_entered(open_folder: Path) -> None:
    """The photographs are named, so that the check of each says why it cannot be read."""
    put(open_folder, "a/1.jpg")
    (open_folder / "a").chmod(0o444)
    with nobody():
        (found,) = search(open_folder)
    assert names(found, open_folder) == ["a/1.jpg"]


def test_links_into_forbidden_folders(open_folder: Path) -> None:
    put(open_folder, "root/a/1.jpg", "root/.secret/2.jpg", "outside/3.jpg")
    root = open_folder / "root"
    (root / "out.jpg").symlink_to("../outside/3.jpg")
    (open_folder / "outside").chmod(0)
    with nobody():
        (found,) = search(root)
        assert names(found, root) == ["a/1.jpg"]
        assert found.ignored == {HIDDEN: 1, BROKEN: 1}
        assert [path.name for path in subfolders(root)] == ["a"]
    (root / "in.jpg").symlink_to(".secret/2.jpg")
    (root / ".secret").chmod(0)
    with nobody(), mistake("link-broken", path=root / "in.jpg"):
        search(root)


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with mistake("folder-unreadable", path=tmp_path / "gone"):
        list_folder(tmp_path / "gone")


# Names as text

PIECES = [
    b"\\", b"x", b"\\x", b"\\x4", b"\\x41", b"\\x5cx", b"5c", b"41", b" ", b"\t", b"\n", b"\r", b"\x7f", b"'",
    b'"', b",", b";", b"=", b"+", b"-", b"@", b".", b"a", b"\xff", b"\xc3", b"\xc3\xa9", b"e\xcc\x81", b"\xed\xa0\x80",
    b"\xe2\x80\xae", b"\xd7\x90", b"\xe2\x80\xa8", b"\xc2\x85", b"\xc2\xa0", b"\xef\xbb\xbf", b"\xf0\x9f\x8d\x83",
]  # fmt: skip


def random_names(count: int, seed: int) -> list[bytes]:
    generator = random.Random(seed)
    pieces = [*PIECES, *(bytes([b]) for b in range(1, 256) if b != ord("/"))]
    made = {b"".join(generator.choices(pieces, k=generator.randint(1, 12))) for _ in range(count)}
    return sorted(made - {b"", b".", b".."})


def assert_round_trip(raw: bytes) -> str:
    path = Path(os.fsdecode(raw))
    text = escape_path(path)
    assert os.fsencode(Path(unescape_path(text))) == os.fsencode(path)
    text.encode()  # UTF-8
    assert text == text.strip()
    assert text[0] not in "=+-@\t\r\n"
    assert not [c for c in text if unicodedata.category(c) == "Cc"]
    return text


def test_random_names_come_back() -> None:
    raw = random_names(20_000, seed=1)
    texts = {assert_round_trip(name) for name in raw}
    # One text never means two files.
    assert len(texts) == len({Path(os.fsdecode(name)) for name in raw})


def test_all_short_names_come_back() -> None:
    """Every byte, and every sequence of up to five of those that escapes are made of."""
    seen = {assert_round_trip(bytes([byte])) for byte in range(1, 256) if byte not in b"/."}
    assert len(seen) == 253
    seen = set()
    alphabet = b"\\x05c\xff"
    for length in range(1, 6):
        for raw in product(alphabet, repeat=length):
            seen.add(assert_round_trip(bytes(raw)))
    assert len(seen) == sum(len(alphabet) ** length for length in range(1, 6))


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"BLD/leaf 1.jpg", "BLD/leaf 1.jpg"),
        ("Bäume/榉树.jpg".encode(), "Bäume/榉树.jpg"),
        (b"caf\xe9.jpg", r"caf\xe9.jpg"),
        (rb"caf\xe9.jpg", r"caf\x5cxe9.jpg"),
        (rb"a\b.jpg", r"a\b.jpg"),
        (b"two\nlines.jpg", r"two\x0alines.jpg"),
        (b"a\rb.jpg", r"a\x0db.jpg"),
        (b"\xc2\x85.jpg", r"\xc2\x85.jpg"),
        (b" a.jpg", r"\x20a.jpg"),
        (b"\xc2\xa0a.jpg", r"\xc2\xa0a.jpg"),
        (b"=1+1.jpg", "./=1+1.jpg"),
        (b"-rf.jpg", "./-rf.jpg"),
        (b"@a.jpg", "./@a.jpg"),
        (b"+a.jpg", "./+a.jpg"),
        (b"\t=1.jpg", r"\x09=1.jpg"),
        (b"/=1.jpg", "/=1.jpg"),
    ],
)
def test_escaped(raw: bytes, text: str) -> None:
    assert escape_path(os.fsdecode(raw)) == escape_path(Path(os.fsdecode(raw))) == text
    assert Path(unescape_path(text)) == Path(os.fsdecode(raw))


def test_escaped_text_stays_as_it_is() -> None:
    for name in random_names(3000, seed=2):
        text = escape_text(os.fsdecode(name))
        assert escape_text(text) == text == text.strip()


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b"a b.jpg", "a b.jpg"),
        (b"\xff\n", r"\xff\n"),
        ("\u202egpj.a".encode(), r"\u202egpj.a"),
        (b"\x1b[31m", r"\x1b[31m"),
    ],
)
def test_shown_on_one_line(raw: bytes, shown: str) -> None:
    assert show_path(os.fsdecode(raw)) == shown


@pytest.mark.parametrize("name", [b"n" * 251 + b".jpg", b"\xff" * 251 + b".jpg", b"a\\x41\xe9\n\r.jpg", b"=1.jpg"])
@pytest.mark.parametrize("transform", [escape_path, os.fspath])
def test_names_on_disk(name: bytes, transform: Callable[[Path], str], tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(name)
    path.touch()
    (found,) = search(tmp_path)
    assert found.photographs == [path]
    if transform is escape_path:
        assert tmp_path / unescape_path(escape_path(path.relative_to(tmp_path))) == path
