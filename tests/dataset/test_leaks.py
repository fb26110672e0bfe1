"""What one split has of another."""

import math
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from bldml.dataset.duplicates.leaks import KnownPhotograph, Leak, find_leaks, leak_counts, leak_summary
from bldml.dataset.duplicates.phash import NEAR_SIMILARITY, NearDuplicate, PHash, perceptual_hash
from bldml.dataset.metadata import Metadata
from bldml.dataset.synthetic.drawing import draw_leaf


def leaf(number: int) -> Image.Image:
    return draw_leaf(False, 96, np.random.default_rng(number))


def phash_of(number: int) -> PHash:
    return perceptual_hash(leaf(number))


def named(leaks: list[Leak]) -> list[tuple[str, str, str]]:
    return [(leak.kind, leak.a, leak.b) for leak in leaks]


def test_each_kind_across_splits() -> None:
    turned = perceptual_hash(leaf(2).transpose(Image.Transpose.ROTATE_90))
    photographs = [
        KnownPhotograph("val/BLD/x.jpg", "val", "BLD", "1", phash_of(1)),
        KnownPhotograph("train/BLD/a.jpg", "train", "BLD", "1", phash_of(1)),
        KnownPhotograph("train/BLD/b.jpg", "train", "BLD", "2", phash_of(2)),
        KnownPhotograph("test/BLD/b.jpg", "test", "BLD", "3", turned),
        KnownPhotograph("train/BLD/IMG_0012.jpg", "train", "BLD", "4", phash_of(4)),
        KnownPhotograph("val/BLD/IMG_0013.jpg", "val", "BLD", "5", phash_of(5)),
        KnownPhotograph("val/BLD/alone.jpg", "val", "BLD", "6", phash_of(6)),
    ]
    leaks = find_leaks(photographs)
    assert named(leaks) == [
        ("exact", "train/BLD/a.jpg", "val/BLD/x.jpg"),
        ("near", "train/BLD/b.jpg", "test/BLD/b.jpg"),
        ("burst", "train/BLD/IMG_0012.jpg", "val/BLD/IMG_0013.jpg"),
    ]
    assert leaks[0].similarity == 1
    assert NEAR_SIMILARITY <= leaks[1].similarity <= 1
    assert math.isnan(leaks[2].similarity)
    assert [(leak.split_a, leak.split_b) for leak in leaks] == [("train", "val"), ("train", "test"), ("train", "val")]
    assert named(find_leaks(photographs[::-1])) == named(leaks)


def test_within_a_split_nothing_leaks() -> None:
    same = [KnownPhotograph(f"{i}.jpg", "train", digest="1", phash=phash_of(1)) for i in range(3)]
    assert find_leaks(same) == []
    assert find_leaks([*same, KnownPhotograph("val.jpg", "val", digest="2", phash=phash_of(2))]) == []
    assert find_leaks([]) == []


def test_the_strongest_kind_alone_is_named() -> None:
    photographs = [
        KnownPhotograph("train/IMG_0001.jpg", "train", digest="1", phash=phash_of(1)),
        KnownPhotograph("val/IMG_0002.jpg", "val", digest="1", phash=phash_of(1)),
    ]
    assert [leak.kind for leak in find_leaks(photographs)] == ["exact"]


def test_each_later_photograph_once_for_each_earlier_split() -> None:
    splits = ["train"] * 50 + ["val"] * 20 + ["test"] * 10
    photographs = [KnownPhotograph(f"{i}.jpg", split, digest="1") for i, split in enumerate(splits)]
    leaks = find_leaks(photographs, near_duplicates=[], bursts=[str(i) for i in range(80)])
    assert leak_counts(leaks) == {
        ("exact", "train", "val"): 20,
        ("exact", "train", "test"): 10,
        ("exact", "val", "test"): 10,
    }


def test_linked_through_others() -> None:
    photographs = [KnownPhotograph(f"{i}.jpg", "train" if i == 0 else "val") for i in range(4)]
    near = [NearDuplicate(0, 1, 0.97), NearDuplicate(1, 2, 0.95), NearDuplicate(2, 3, 0.99)]
    leaks = find_leaks(photographs, near_duplicates=near, bursts=["a", "b", "c", "d"])
    assert [(leak.a, leak.b, leak.similarity) for leak in leaks] == [
        ("0.jpg", "1.jpg", 0.97),
        ("0.jpg", "2.jpg", 0.95),
        ("0.jpg", "3.jpg", 0.95),
    ]


def test_the_nearest_partner_of_several() -> None:
    photographs = [
        KnownPhotograph("a.jpg", "train"),
        KnownPhotograph("b.jpg", "train"),
        KnownPhotograph("c.jpg", "val"),
    ]
    near = [NearDuplicate(0, 2, 0.95), NearDuplicate(1, 2, 0.99)]
    assert named(find_leaks(photographs, near_duplicates=near, bursts=["a", "b", "c"])) == [("near", "b.jpg", "c.jpg")]


def test_the_nearest_frame_of_a_burst() -> None:
    def photograph(second: int, split: str) -> KnownPhotograph:
        metadata = Metadata(4, 3, "Canon R5", f"2024-06-01T12:00:{second:02d}")
        return KnownPhotograph(f"{split}/{second:02d}.jpg", split, metadata=metadata)

    photographs = [photograph(s, "val" if s in (1, 10, 31) else "train") for s in (1, 7, 10, 15, 22, 31)]
    assert named(find_leaks(photographs)) == [
        ("burst", "train/07.jpg", "val/01.jpg"),
        ("burst", "train/07.jpg", "val/10.jpg"),
        ("burst", "train/22.jpg", "val/31.jpg"),
    ]


def test_large_groups_stay_cheap() -> None:
    count = 6000
    photographs = [KnownPhotograph(f"{i:05d}.jpg", ("train", "val")[i % 2]) for i in range(count)]
    chain = [NearDuplicate(a, b, 0.95) for a, b in pairwise(range(count))]
    assert len(find_leaks(photographs, near_duplicates=chain, bursts=["one"] * count)) == count // 2


def test_summary() -> None:
    assert leak_summary([]) == ""
    photographs = [KnownPhotograph(f"train/{i}\n.jpg", "train", digest=str(i)) for i in range(7)]
    photographs += [KnownPhotograph(f"val/{i}.jpg", "val", digest=str(i)) for i in range(14)]
    text = leak_summary(find_leaks(photographs), photographs)
    lines = text.splitlines()
    assert lines[0] == "7 photographs (50 %) of val have an identical file in train."
    assert lines[1].startswith("For example: val/0.jpg and train/0\\n.jpg; val/1.jpg")
    assert lines[1].endswith("; and 2 more.")
    assert len(lines) == 2


def test_summary_begins_with_the_largest_leak() -> None:
    leaks = [Leak("exact", "train/a.jpg", "val/b.jpg", "train", "val", 1.0)]
    leaks += [Leak("burst", f"train/{i}.jpg", f"test/{i}.jpg", "train", "test", math.nan) for i in range(3)]
    lines = leak_summary(leaks).splitlines()
    assert lines[0] == "3 photographs of test have a photograph of the same burst in train."
    assert lines[1].startswith("1 photograph of val")
    assert lines[2].startswith("For example: test/0.jpg and train/0.jpg")


@pytest.mark.parametrize("missing", [None, np.zeros_like(phash_of(1))])
def test_photographs_without_perceptual_hash_are_no_near_duplicates(missing: PHash | None) -> None:
    photographs = [KnownPhotograph("a.jpg", "train", phash=missing), KnownPhotograph("b.jpg", "val", phash=missing)]
    assert find_leaks(photographs) == []
