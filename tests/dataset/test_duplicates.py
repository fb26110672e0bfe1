"""Photographs that are there more than once."""

import numpy as np
import pytest

from bldml.dataset.duplicates.find import (
    component_roots,
    copies_by_name,
    exact_groups,
    find_duplicates,
    groups_of_equal,
    same_name_groups,
)
from bldml.dataset.duplicates.phash import NearDuplicate, PHashes, find_near_duplicates, perceptual_hash
from bldml.dataset.synthetic.drawing import draw_leaf


def phashes(*numbers: int) -> PHashes:
    return np.stack([perceptual_hash(draw_leaf(False, 96, np.random.default_rng(number))) for number in numbers])


def test_component_roots_do_not_depend_on_the_order_of_pairs() -> None:
    pairs = [(0, 5), (3, 4), (5, 3), (7, 8)]
    assert component_roots(9, pairs) == [0, 1, 2, 0, 0, 0, 6, 7, 7]
    assert component_roots(9, [(b, a) for a, b in reversed(pairs)]) == component_roots(9, pairs)
    assert groups_of_equal(component_roots(9, pairs)) == [(0, 3, 4, 5), (7, 8)]
    chain = [(i, i + 1) for i in range(20_000)]
    assert set(component_roots(20_001, chain[::-1])) == {0}


def test_equal_content() -> None:
    assert exact_groups(["x", "", "y", "x", "", "y", "x"]) == [(0, 3, 6), (2, 5)]


def test_same_names_differ_only_in_case_suffix_or_unicode_form() -> None:
    names = ["BLD/é.JPG", "BLD/e\u0301.jpg", "BLD/a.b.jpg", "BLD/a.jpg", "train/BLD/a.jpg", "BLD/A.jpeg", "noext"]
    assert same_name_groups(names) == [(0, 1), (3, 5)]


@pytest.mark.parametrize(
    "copy",
    [
        "IMG_0012 - Copy.jpg", "IMG_0012 - Copy (3).jpg", "IMG_0012 - Kopie.JPG", "IMG_0012 - Kopie (2).jpg",
        "IMG_0012 - Copie.jpg", "IMG_0012 – copie (2).jpg", "IMG_0012 - copia.jpg", "IMG_0012 copy.jpg",
        "IMG_0012 copy 2.jpg", "IMG_0012_copy.jpg", "IMG_0012 Kopie 2.jpg", "IMG_0012 (1).jpg", "IMG_0012(1).jpg",
        "IMG_0012_edited.jpg", "IMG_0012-edited.jpg", "IMG_0012-bearbeitet.jpg", "IMG_0012-modifié.jpg",
        "IMG_0012-editada.jpg", "IMG_0012-Edit.tif", "IMG_0012~2.jpg", "IMG_E0012.JPG", "Copy of IMG_0012.jpg",
        "Copy (2) of IMG_0012.jpg", "Kopie von IMG_0012.jpg", "Copie de IMG_0012.jpg", "Copia de IMG_0012.jpg",
        "IMG_0012 - Copy - Copy.jpg", "Copy of IMG_0012 (1).jpg",
    ],
)  # fmt: skip
def test_names_of_copies(copy: str) -> None:
    assert copies_by_name([f"BLD/{copy}", "BLD/IMG_0012.jpg", "BLD/IMG_0013.jpg"]) == [(1, 0)]
    assert copies_by_name([f"val/BLD/{copy}", "train/BLD/IMG_0012.jpg"]) == [(1, 0)]
    assert copies_by_name([f"No_BLD/{copy}", "BLD/IMG_0012.jpg"]) == []


@pytest.mark.parametrize("name", ["copy.jpg", "(1).jpg", "leaf_2.jpg", "photocopy.jpg", "leaf2.jpg", "a-2.jpg"])
def test_names_of_no_copies(name: str) -> None:
    assert copies_by_name([name, "leaf.jpg", "photo.jpg", "a.jpg", ".jpg"]) == []


def test_files_of_the_same_name_are_no_copies() -> None:
    assert copies_by_name(["BLD/a.jpg", "BLD/a.JPG", "BLD/a (1).jpg"]) == [(1, 2)]
    assert copies_by_name(["train/BLD/a.jpg", "val/BLD/a.jpg"]) == []


def test_a_copy_by_name_counts_only_where_the_picture_agrees() -> None:
    names = ["a.jpg", "a (1).jpg", "b.jpg", "b (1).jpg", "c.jpg", "c - Copy.jpg"]
    same = find_duplicates(
        names, [""] * 6, ["1", "1", "3", "4", "5", "6"], find_near_duplicates(phashes(1, 1, 2, 3, 4, 4))
    )
    assert same.copies == ((0, 1), (4, 5))
    assert same.exact == ((0, 1),)
    assert [(pair.a, pair.b) for pair in same.near_duplicates] == [(4, 5)]
    assert same.groups == ((0, 1), (4, 5))


def test_the_same_photograph_in_two_classes() -> None:
    near = [NearDuplicate(0, 3, 0.97)]
    digests = ["1", "2", "2", "3", "4"]
    found = find_duplicates(
        [f"{i}.jpg" for i in range(5)], ["BLD", "BLD", "BLD", "No_BLD", ""], digests, near_duplicates=near
    )
    assert found.groups == ((0, 3), (1, 2))
    assert found.two_classes == ()
    assert found.near_two_classes == ((0, 3),)
    assert found.near_duplicates == (near[0],)


def test_exact_and_near_duplicates_are_joined_into_one_group() -> None:
    found = find_duplicates(["a", "b", "c"], [""] * 3, ["1", "1", "2"], near_duplicates=[NearDuplicate(1, 2, 0.95)])
    assert found.groups == ((0, 1, 2),)
    assert find_duplicates(["a", "b"], ["", ""], ["", ""], []).groups == ()
