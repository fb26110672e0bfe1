"""Collections, what makes them trainable, the positive class and the dataset digest."""

import hashlib
import os
import random
import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bldml.dataset.contents import Texts
from bldml.dataset.samples import (
    Collection,
    Sample,
    Samples,
    check_positive_class,
    check_trainable,
    class_name,
    dataset_digest,
    no_photographs,
)
from tests.support import mistake

ROOT = Path("two\nlines/data")


def collect(splits: dict[str, str], heif: int = 0, ignored: dict[str, int] | None = None) -> Collection:
    """`{"train": "BBN"}` makes two photographs of B and one of N."""
    made = {
        split: tuple(Sample(ROOT / f"{split}/{i}.jpg", f"{split}/{i}.jpg", name) for i, name in enumerate(names))
        for split, names in splits.items()
    }
    return Collection(ROOT, made, ignored or {}, tuple(ROOT / f"{i}.heic" for i in range(heif)))


def test_names_of_classes_and_counts() -> None:
    collection = collect({"train": "NNB", "val": "", "test": "BA"})
    assert collection.class_names == ("A", "B", "N")
    assert collection.counts() == {"train": {"N": 2, "B": 1}, "val": {}, "test": {"A": 1, "B": 1}}
    unlabelled = Collection(ROOT, {"predict": (Sample(ROOT / "a.jpg", "a.jpg"),)})
    assert unlabelled.class_names == ()


def test_without() -> None:
    collection = collect({"train": "BN", "val": "BN"}, heif=1, ignored={"x": 1})
    rest = collection.without(iter(["train/1.jpg", "val/0.jpg", "unknown"]))
    assert {split: [s.name for s in v] for split, v in rest.splits.items()} == {
        "train": ["train/0.jpg"],
        "val": ["val/1.jpg"],
    }
    assert (rest.root, rest.ignored, rest.heif) == (collection.root, collection.ignored, collection.heif)


@pytest.mark.parametrize(
    "splits", [{"train": "BN", "val": "BN"}, {"train": "NB", "val": "BBN", "test": "NB"}, {"val": "BN", "train": "BN"}]
)
def test_trainable(splits: dict[str, str]) -> None:
    check_trainable(collect(splits))


@pytest.mark.parametrize(
    ("splits", "code", "fields"),
    [
        ({}, "photographs-none", {}),
        ({"train": "", "val": ""}, "photographs-none", {}),
        ({"train": "BB", "val": "B"}, "classes-not-two", {"found": ["B"]}),
        ({"train": "BNS", "val": "BN"}, "classes-not-two", {"found": ["B", "N", "S"]}),
        ({"train": "BN", "val": "BN", "test": "X"}, "classes-not-two", {"found": ["B", "N", "X"]}),
        ({"train": "BN", "test": "BN"}, "split-missing", {"split": "val", "found": ["train", "test"]}),
        ({"val": "BN", "test": "BN"}, "split-missing", {"split": "train", "found": ["val", "test"]}),
        ({"train": "", "val": "BN"}, "split-empty", {"split": "train"}),
        ({"train": "BN", "val": "BN", "test": ""}, "split-empty", {"split": "test"}),
        ({"train": "BBN", "val": "NN"}, "class-missing-in-split", {"split": "val", "found": "B"}),
        ({"train": "BN", "val": "BN", "test": "N"}, "class-missing-in-split", {"split": "test", "found": "B"}),
    ],
)
def test_not_trainable(splits: dict[str, str], code: str, fields: dict[str, Any]) -> None:
    with mistake(code, **fields) as raised:
        check_trainable(collect(splits))
    assert r"in two\nlines/data" in str(raised.value)


def test_a_manifest_with_folds_says_how_one_becomes_val() -> None:
    there = replace(collect({"train": "BN", "test": "BN"}), folds={"a": "10", "b": "2"})
    with mistake("split-missing", split="val") as raised:
        check_trainable(there)
    assert "--data.fold 2." in str(raised.value)


def test_no_photographs_says_what_was_found_instead() -> None:
    assert no_photographs(collect({})) == r"There are no photographs in two\nlines/data. Ignored: nothing."
    message = no_photographs(collect({}, ignored={".gif file": 60, "broken link": 2}, heif=4))
    assert "60 × .gif file; 2 × broken link; 4 × HEIC photograph" in message
    assert "pip install 'bldml[heif]'" in message


# Names of classes


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("BLD", "BLD"),
        (" No BLD\t", "No BLD"),
        ("a\u0308", "\u00e4"),
        (os.fsdecode(b"ros\xe9"), r"ros\xe9"),
        (r"ros\xe9", r"ros\xe9"),
        ("two\nlines", r"two\x0alines"),
        ("  ", r"\x20\x20"),
        ("-", "-"),
        ("0123", "0123"),
        ("", ""),
    ],
)
def test_class_name(text: str, name: str) -> None:
    assert class_name(text) == name
    assert class_name(name) == name
    assert class_name(text, {f" {text} ": "BLD"} if text.strip() else {text: "BLD"}) == "BLD"
    assert class_name(text, {"other": "BLD"}) == name


# The positive class


@pytest.mark.parametrize("names", [("BLD", "No_BLD"), ("A", "BLD"), ("BLD", "healthy")])
def test_positive_class(names: tuple[str, str]) -> None:
    for name in names:
        assert check_positive_class(name, names) == name


def test_positive_class_is_compared_as_the_classes_are() -> None:
    assert check_positive_class(" a\u0308", ("\u00e4", "b")) == "\u00e4"
    assert check_positive_class("\u00e4", (class_name("a\u0308"), "b")) == "\u00e4"


def test_positive_class_is_known_for_0_and_1_only() -> None:
    assert check_positive_class(None, ("0", "1")) == "1"
    assert check_positive_class("0", ("0", "1")) == "0"
    for names in [("BLD", "No_BLD"), ("1", "2"), ("0", "1", "2"), ("00", "01"), ("negative", "positive")]:
        with mistake("positive-class-not-given", found=[*names]):
            check_positive_class(None, names)


@pytest.mark.parametrize(
    ("given", "suggested"), [("bld", "BLD"), ("No-BLD", "No_BLD"), ("zzz", "BLD"), ("", "BLD"), ("False", "BLD")]
)
def test_positive_class_that_is_not_there(given: str, suggested: str) -> None:
    with mistake("positive-class-unknown", found=given, expected=["BLD", "No_BLD"], near=suggested):
        check_positive_class(given, ("BLD", "No_BLD"))


# Many samples


def test_samples_come_back() -> None:
    given = [
        Sample(ROOT / "BLD/a.jpg", "BLD/a.jpg", "BLD", "tree 1"),
        Sample(ROOT / os.fsdecode(b"caf\xe9.jpg"), r"caf\xe9.jpg", "BLD"),
        Sample(ROOT / r"a\x41.jpg", r"a\x5cx41.jpg", "No", "tree 1"),
        Sample(ROOT / "=1.jpg", "./=1.jpg", "No"),
        Sample(Path("/elsewhere/b.jpg"), "/elsewhere/b.jpg"),
        Sample(ROOT / "other.jpg", "name", "BLD", "tree 1"),  # not where its name says
    ]
    held = Samples(ROOT, iter(given))
    assert list(held) == given
    assert len(held) == 6
    assert held[1:3] == given[1:3]
    assert held == tuple(given)
    assert tuple(given) == held
    assert held == Samples(Path(), given)
    assert held != given[:-1]
    assert held != [*given[:-1], given[0]]
    assert {"train": held} == {"train": tuple(given)}
    assert len({sample.name for sample in held}) == 6
    with pytest.raises(IndexError):
        held[6]
    assert list(Samples(ROOT, [])) == []


def test_samples_are_small() -> None:
    count = 2000
    tracemalloc.start()
    try:
        held = Samples(ROOT, (Sample(ROOT / f"{i:030d}.jpg", f"{i:030d}.jpg", "BN"[i % 2]) for i in range(count)))
        size = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert len(held) == count
    assert size < 80 * count  # a name has 34 bytes


# The dataset digest


def digests(samples: Sequence[Sample]) -> list[str]:
    return [hashlib.sha256(s.path.name.encode()).hexdigest() for s in samples]


def test_dataset_digest() -> None:
    samples = [Sample(ROOT / str(i), f"a/{i}", "BN"[i % 2], f"tree {i}") for i in range(20)]
    first = dataset_digest(samples, digests(samples))
    assert len(first) == 64
    assert set(first) <= set("0123456789abcdef")
    shuffled = random.Random(7).sample(samples, len(samples))
    assert dataset_digest(iter(shuffled), digests(shuffled)) == first
    renamed = [Sample(s.path, f"moved/{i}", s.class_name) for i, s in enumerate(shuffled)]
    assert dataset_digest(renamed, digests(renamed)) == first


def test_dataset_digest_depends_on_contents_labels_and_number() -> None:
    samples = [Sample(ROOT / str(i), f"a/{i}", "BN"[i % 2]) for i in range(20)]
    content = digests(samples)
    changed = [*content[:3], "0" * 64, *content[4:]]
    relabelled = [*samples[:3], Sample(ROOT / "3", "a/3", "B"), *samples[4:]]
    # The same labels on the same contents, but two of them exchanged.
    exchanged = [Sample(ROOT / "0", "a/0", "N"), Sample(ROOT / "1", "a/1", "B"), *samples[2:]]
    seen = [
        dataset_digest(samples, content),
        dataset_digest(samples, changed),
        dataset_digest(relabelled, content),
        dataset_digest(exchanged, content),
        dataset_digest(samples[:-1], content[:-1]),
        dataset_digest([*samples, samples[0]], [*content, content[0]]),
        dataset_digest([], []),
    ]
    assert len(set(seen)) == len(seen)


def test_dataset_digest_by_hand() -> None:
    samples = [Sample(ROOT / "b", "b", "BLD"), Sample(ROOT / "a", "a", "No")]
    text = "1" * 64 + " No\n" + "2" * 64 + " BLD\n"
    assert dataset_digest(samples, ["2" * 64, "1" * 64]) == hashlib.sha256(text.encode()).hexdigest()


def test_texts_hold_any_name() -> None:
    names = ["a.jpg", "", "\udcff\udcfe.png", "Blätter/北.jpg", "x" * 300]
    texts = Texts(names)
    assert list(texts) == names
    assert len(texts) == 5
    with pytest.raises(IndexError):
        texts[5]
    assert list(Texts([])) == []
