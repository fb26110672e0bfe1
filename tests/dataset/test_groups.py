"""Groups from folders and tables, and what joins them."""

import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bldml.dataset.files import escape_path
from bldml.dataset.splitting.groups import Join, Link, folder_groups, join_groups, table_groups
from tests.support import mistake

NAMES = ["BLD/site 1/IMG_1.JPG", "BLD/site 1/IMG_2.jpg", "No_BLD/IMG_3.jpg", "No_BLD/caf\u00e9.jpg", "./=x/1.jpg"]


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "groups.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def complaint(table: Path, names: list[str]) -> dict[str, Any]:
    with mistake("group-table-wrong") as raised:
        table_groups(table, names)
    return raised.value.fields


# Folders


def test_folders_below_the_class_folder() -> None:
    names = ["BLD/a/b/1.jpg", "BLD/a/2.jpg", "BLD/3.jpg", "No_BLD/a/b/4.jpg", "./=BLD/a/5.jpg"]
    assert folder_groups(names, 1) == ["a/b", "a", "", "a/b", "a"]
    assert folder_groups(names, 1, level=1) == ["a", "a", "", "a", "a"]
    assert folder_groups([f"train/{name}" for name in names[:4]], 2) == ["a/b", "a", "", "a/b"]
    assert folder_groups([], 1) == []
    with mistake("group-level-too-deep", found=3, expected=2):
        folder_groups(names, 1, level=3)
    with mistake("group-folders-none"):
        folder_groups(["BLD/1.jpg", "No_BLD/2.jpg"], 1)


# Tables


@pytest.mark.parametrize(
    "cells",
    [
        ["BLD/site 1/IMG_1.JPG", "BLD/site 1/IMG_2.jpg", "No_BLD/IMG_3.jpg", "No_BLD/caf\u00e9.jpg", "./=x/1.jpg"],
        ["IMG_1.JPG", "IMG_2.jpg", "IMG_3.jpg", "cafe\u0301.jpg", "1.jpg"],
        ["IMG_1", "IMG_2", "IMG_3", "caf\u00e9", "1"],
        ["BLD\\site 1\\IMG_1.JPG", ".\\BLD\\site 1\\IMG_2.jpg", "./No_BLD//IMG_3.jpg", " caf\u00e9 ", "=x/1.jpg"],
    ],
    ids=["paths", "names of files, decomposed", "stems", "written on Windows, and other spellings"],
)
def test_ways_to_name_a_photograph(cells: list[str], tmp_path: Path) -> None:
    groups = ["tree 1", "tree 1", "'=1", "", "\u00e9"]
    rows = list(zip(cells, groups, strict=True))
    random.Random(0).shuffle(rows)
    table = write(tmp_path, "\ufeffnote,group,path\r\n" + "".join(f"x,{g},{c}\r\n" for c, g in rows))
    assert table_groups(table, NAMES) == (["tree 1", "tree 1", "=1", "", "\u00e9"], [])


def test_names_with_any_bytes(tmp_path: Path) -> None:
    names = [escape_path(name) for name in ("BLD/two\nlines.jpg", "BLD/caf\udce9.jpg", "BLD/a\\x41.jpg")]
    table = write(tmp_path, "path,group\n" + "".join(f"{name},t{i}\n" for i, name in enumerate(names)))
    assert table_groups(table, names) == (["t0", "t1", "t2"], [])
    table = write(tmp_path, b'path,group\n"BLD/two\nlines.jpg",t0\nBLD/caf\xe9.jpg,t1\nBLD/a\\x41.jpg,t2\n')
    assert table_groups(table, names) == (["t0", "t1", "t2"], [])


def test_a_stem_means_all_of_its_folder(tmp_path: Path) -> None:
    table = write(tmp_path, "path,group\nIMG_1,tree 1\n")
    assert table_groups(table, ["BLD/IMG_1.JPG", "BLD/IMG_1.jpg"]) == (["tree 1", "tree 1"], [])
    fields = complaint(table, ["BLD/IMG_1.jpg", "No_BLD/IMG_1.jpg"])
    assert (fields["found"], fields["missing"]) == ([(2, "path-ambiguous")], [])
    table = write(tmp_path, "path,group\nIMG_1,tree 1\nIMG_1,tree 2\nBLD/IMG_1.jpg,tree 3\n")
    fields = complaint(table, ["BLD/IMG_1.jpg", "No_BLD/IMG_1.jpg", "BLD/IMG_2.jpg"])
    assert fields["found"] == [(2, "path-ambiguous"), (3, "path-ambiguous")]
    assert fields["missing"] == ["BLD/IMG_2.jpg"]


def test_rows_without_a_photograph_are_handed_back(tmp_path: Path) -> None:
    table = write(tmp_path, "path,group\nBLD/1.jpg,a\nBLD/9\n.jpg,b\n,c\n".replace("9\n", "9"))
    assert table_groups(table, ["BLD/1.jpg"]) == (["a"], ["BLD/9.jpg", "row 4 (empty path)"])


def test_photographs_without_a_row(tmp_path: Path) -> None:
    names = [f"BLD/{i}.jpg" for i in range(30)]
    fields = complaint(write(tmp_path, "path,group\nBLD/0.jpg,a\nBLD/zero.jpg,b\n"), names)
    assert (fields["found"], fields["missing"], fields["unknown"]) == ([], names[1:], ["BLD/zero.jpg"])


@pytest.mark.parametrize(
    ("text", "code", "found"),
    [
        (
            "path,group\nBLD/1.jpg,a\n1.jpg,b\nBLD/1.jpg,c\n",
            "group-table-wrong",
            [(3, "group-twice"), (4, "group-twice")],
        ),
        ("path,group\nBLD/1.jpg,a,b\n", "group-table-wrong", [(2, "too-many-cells")]),
        ("path,colour\nBLD/1.jpg,a\n", "column-missing", ["path", "colour"]),
        ("path,group,group\nBLD/1.jpg,a,b\n", "column-twice", ["group"]),
        ("", "table-empty", None),
        ('path,group\n"BLD/1.jpg,a\n', "csv-damaged", None),
        (None, "table-unreadable", None),
    ],
)
def test_bad_tables(text: str | None, code: str, found: Any, tmp_path: Path) -> None:
    table = tmp_path / "none.csv" if text is None else write(tmp_path, text)
    with mistake(code, path=table, found=found):
        table_groups(table, ["BLD/1.jpg"])


# Joining


def test_groups_are_joined_by_what_they_share() -> None:
    names = list("abcdef")
    links = [Link(0, 2, "near duplicates"), Link(1, 3, "same burst"), Link(4, 5, "identical files")]
    groups, joins = join_groups(names, ["t1", "t1", "t2", "t3", "", ""], links)
    assert groups == ["t1 + t2 + t3"] * 4 + ["e"] * 2
    assert joins == [
        Join(("t1", "t2"), ("a", "c"), "near duplicates"),
        Join(("t1", "t3"), ("b", "d"), "same burst"),
    ]


def test_a_photograph_without_a_group_joins_two_groups() -> None:
    links = [Link(1, 0, "near duplicates"), Link(1, 2, "same burst"), Link(0, 2, "identical files")]
    groups, joins = join_groups(["a", "b", "c"], ["t1", "", "t2"], links)
    assert groups == ["t1 + t2"] * 3
    assert [str(join) for join in joins] == ["t1 and t2 were joined: same burst (b, c)"]


def test_many_groups_have_a_short_name() -> None:
    own = [f"t{i}" for i in range(9)]
    groups, joins = join_groups([f"{i}" for i in range(9)], own, [Link(i, i + 1, "same burst") for i in range(8)])
    assert set(groups) == {"t0 + t1 + t2 + 6 more"}
    assert len(joins) == 8


def test_no_two_groups_have_the_same_name() -> None:
    names = ["a", "b", "c", "d", "e"]
    groups, _ = join_groups(names, ["", "a", "t1", "t2", "t1 + t2"], [Link(2, 3, "same burst")])
    assert groups == ["a'", "a", "t1 + t2'", "t1 + t2'", "t1 + t2"]


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(
    st.lists(st.sampled_from(["", "t1", "t2", "t3", "n1"]), min_size=1, max_size=12),
    st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=12),
    st.randoms(use_true_random=False),
)
def test_groups_are_the_components(own: list[str], pairs: list[tuple[int, int]], shuffle: random.Random) -> None:
    """By a second implementation: colours that spread until nothing changes; and in any order."""
    names = [f"n{i}" for i in range(len(own))]
    links = [Link(a, b, "same burst") for a, b in pairs if a < len(own) and b < len(own)]
    colours = list(range(len(own)))
    edges = [(link.a, link.b) for link in links]
    edges += [(i, j) for i in range(len(own)) for j in range(i) if own[i] and own[i] == own[j]]
    for _ in own:
        for a, b in edges:
            colours[a] = colours[b] = min(colours[a], colours[b])
    groups, _ = join_groups(names, own, links)
    for i in range(len(own)):
        for j in range(len(own)):
            assert (groups[i] == groups[j]) == (colours[i] == colours[j])
    order = shuffle.sample(range(len(own)), len(own))
    place = {i: position for position, i in enumerate(order)}
    mixed = [Link(place[link.b], place[link.a], link.reason) for link in shuffle.sample(links, len(links))]
    again, _ = join_groups([names[i] for i in order], [own[i] for i in order], mixed)
    assert [again[place[i]] for i in range(len(own))] == groups
