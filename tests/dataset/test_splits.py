"""What every split must hold, on drawn-up groups of any kind; and what is said when one cannot be."""

import random
import tracemalloc
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold

from bldml.dataset.duplicates.phash import NO_PHASH, PHASH_BYTES
from bldml.dataset.samples import Collection, Sample
from bldml.dataset.splitting.groups import Join
from bldml.dataset.splitting.partition import divide_groups, missing_classes
from bldml.dataset.splitting.previous import Assignment, KeptAssignments
from bldml.dataset.splitting.splits import SplitRequest, assign_samples
from bldml.dataset.splitting.together import _read
from bldml.dataset.verify import Verified
from bldml.errors import DatasetError
from tests.support import mistake

ROOT = Path("data")
# The same cases every time, and nothing kept on the disk.
cases = settings(max_examples=150, deadline=None, derandomize=True, database=None)

sizes = st.lists(st.integers(1, 12), min_size=5, max_size=30)
mixed = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)).filter(any), min_size=3, max_size=25)
requests = st.builds(
    SplitRequest,
    val=st.sampled_from([0.1, 0.2, 0.3]),
    test=st.sampled_from([0.0, 0.1, 0.2, 0.4]),
    folds=st.sampled_from([None, 2, 3, 5]),
    seed=st.integers(0, 3),
)


def photographs(groups: list[tuple[int, int]], start: int = 0) -> list[Sample]:
    """Of each group so many of BLD and so many of No_BLD; a group of one photograph is its own."""
    found = []
    for number, counts in enumerate(groups, start):
        for kind, count in zip(("BLD", "No_BLD"), counts, strict=True):
            for i in range(count):
                name = f"{kind}/{number:03}_{i}.jpg"
                found.append(Sample(ROOT / name, name, kind, f"tree {number}" if sum(counts) > 1 else ""))
    return found


def assign(samples: list[Sample], request: SplitRequest, kept: KeptAssignments | None = None) -> Collection:
    return assign_samples(ROOT, samples, {s.name: "0" * 64 for s in samples}, request, kept)


def try_to_assign(
    samples: list[Sample], request: SplitRequest, kept: KeptAssignments | None = None
) -> Collection | str:
    """The splits, or the code of why there are none, which must be for one of two reasons."""
    try:
        return assign(samples, request, kept)
    except DatasetError as error:
        code = error.code
    assert code in ("class-in-too-few-groups", "split-impossible")
    return code


def assignments(collection: Collection) -> dict[str, tuple[str, str]]:
    return {
        sample.name: (split, collection.folds.get(sample.name, ""))
        for split, samples in collection.splits.items()
        for sample in samples
    }


def kept_from(collection: Collection) -> KeptAssignments:
    return KeptAssignments(
        {name: Assignment(name, split, fold) for name, (split, fold) in assignments(collection).items()}
    )


def whole_and_complete(collection: Collection, samples: list[Sample], request: SplitRequest) -> None:
    """Every photograph has one split and fold, every group one; every part has every class."""
    found = assignments(collection)
    assert sorted(found) == sorted(s.name for s in samples)
    assignments_of = defaultdict(set)
    for sample in samples:
        assignments_of[sample.group or sample.name].add(found[sample.name])
    assert all(len(distinct) == 1 for distinct in assignments_of.values())
    for split, fraction in request.fractions.items():
        in_split = {s.class_name for s in samples if found[s.name][0] == split}
        assert in_split == ({s.class_name for s in samples} if fraction else set())
    for split, fold in found.values():
        assert (fold == "") == (request.folds is None or split == "test")
    for k in range(request.folds or 0):
        in_fold = {s.class_name for s in samples if found[s.name][1] == str(k)}
        assert in_fold == {s.class_name for s in samples}


@cases
@given(mixed, requests)
def test_no_group_is_divided_and_no_class_is_missing(groups: list[tuple[int, int]], request: SplitRequest) -> None:
    samples = photographs(groups)
    collection = try_to_assign(samples, request)
    if not isinstance(collection, str):
        whole_and_complete(collection, samples, request)


@cases
@given(sizes, sizes, requests)
def test_groups_of_one_class_can_always_be_divided(
    diseased: list[int], healthy: list[int], request: SplitRequest
) -> None:
    """As soon as a class has as many groups as there are parts outside and inside the folds."""
    parts = (request.folds or 2) + 2
    samples = photographs([(n, 0) for n in diseased * parts] + [(0, n) for n in healthy * parts])
    whole_and_complete(assign(samples, request), samples, request)


@cases
@given(sizes, sizes, requests)
def test_fractions_are_met_to_within_one_group(diseased: list[int], healthy: list[int], request: SplitRequest) -> None:
    """In every class, where no part is asked to be smaller than a group."""
    counts = np.array([(n, 0) for n in diseased * 3] + [(0, n) for n in healthy * 3])
    names = [str(i) for i in range(len(counts))]
    fractions = list(request.fractions.values())
    parts = np.array(divide_groups(counts, names, fractions, request.seed))
    for kind in range(2):
        total, largest = counts[:, kind].sum(), counts[:, kind].max()
        if min(fraction for fraction in fractions if fraction) * total < largest:
            continue
        for part, fraction in enumerate(fractions):
            assert abs(counts[parts == part, kind].sum() - fraction * total) <= largest + 1e-9


@cases
@given(mixed, requests, st.randoms(use_true_random=False))
def test_order_of_the_files_does_not_matter(
    groups: list[tuple[int, int]], request: SplitRequest, shuffle: random.Random
) -> None:
    samples = photographs(groups)
    first = try_to_assign(samples, request)
    again = try_to_assign(shuffle.sample(samples, len(samples)), request)
    assert again == first
    if not isinstance(first, str) and not isinstance(again, str):
        assert list(again.splits.items()) == list(first.splits.items())


@cases
@given(mixed, mixed, st.lists(st.integers(0, 200)), requests, st.integers(0, 3))
def test_old_photographs_stay_where_they_were(
    groups: list[tuple[int, int]],
    new: list[tuple[int, int]],
    removed: list[int],
    request: SplitRequest,
    seed: int,
) -> None:
    """Whatever is added, to new groups and to old ones, and removed, with another seed."""
    samples = photographs(groups)
    first = try_to_assign(samples, request)
    if isinstance(first, str):
        return
    added = photographs(new, start=len(groups))
    joining = [Sample(ROOT / f"more/{s.name}", f"more/{s.name}", s.class_name, s.group) for s in samples if s.group][:4]
    gone = {samples[i].name for i in removed if i < len(samples) // 2}
    rest = [s for s in [*samples, *joining, *added] if s.name not in gone]
    later = SplitRequest(request.val, request.test, request.folds, seed)
    second = try_to_assign(rest, later, kept_from(first))
    if isinstance(second, str):
        # A part may have lost the last of a class, or a class is new and rare.
        assert gone or len({s.class_name for s in samples}) == 1
        return
    whole_and_complete(second, rest, request)
    before, now = assignments(first), assignments(second)
    assert all(now[s.name] == before[s.name] for s in samples if s.name not in gone)


def test_new_photographs_go_where_most_is_missing() -> None:
    request = SplitRequest(val=0.2, test=0.2)
    first = assign(photographs([(1, 0), (0, 1)] * 50), request)
    more = assign(photographs([(1, 0), (0, 1)] * 100), request, kept_from(first))
    for split, count in {"train": 60, "val": 20, "test": 20}.items():
        assert Counter(s.class_name for s in more.splits[split]) == {"BLD": count, "No_BLD": count}
    # A split that is too small by half is filled first.
    small = KeptAssignments({k: v for k, v in kept_from(first).assignments.items() if v.split != "test"})
    kept = photographs([(1, 0), (0, 1)] * 50)
    again = assign(kept, request, small)
    assert {s.name for s in again.splits["test"]} == {s.name for s in first.splits["test"]}


def test_the_seed_chooses_among_equals() -> None:
    samples = photographs([(1, 0), (0, 1)] * 40)
    results = {tuple(sorted(assignments(assign(samples, SplitRequest(seed=seed))).items())) for seed in range(5)}
    assert len(results) == 5


def test_large_groups_do_not_all_go_to_training() -> None:
    """Trees of 60 to 1 photographs: the mean size is about the same in every split."""
    counts = np.array([[n, n] for n in range(1, 61)])
    parts = np.array(divide_groups(counts, [str(i) for i in range(60)], (0.6, 0.2, 0.2)))
    means = [counts[parts == part].sum(axis=1).mean() for part in range(3)]
    assert max(means) / min(means) < 1.25


def test_not_further_from_the_fractions_than_scikit_learn() -> None:
    """Five folds of groups that hold both classes, beside StratifiedGroupKFold."""
    generator = np.random.default_rng(0)
    ours, theirs = [], []
    for trial in range(10):
        counts = generator.integers(0, 12, (30, 2)) + np.array([[0, 1]])
        groups = np.repeat(np.arange(30), counts.sum(axis=1))
        labels = np.concatenate([np.repeat([0, 1], row) for row in counts])
        folds = StratifiedGroupKFold(5, shuffle=True, random_state=trial).split(labels, labels, groups)
        wanted = counts.sum(axis=0) / 5
        theirs += [abs(np.bincount(labels[test], minlength=2) - wanted).max() for _, test in folds]
        parts = np.array(divide_groups(counts, [str(i) for i in range(30)], [0.2] * 5, trial))
        ours += [abs(counts[parts == k].sum(axis=0) - wanted).max() for k in range(5)]
    assert np.mean(ours) <= np.mean(theirs)


def test_a_part_without_a_class_takes_a_group_that_has_it() -> None:
    """Placing the groups one by one leaves the second part without BLD here, where another way is open."""
    counts = np.array([[5, 0], [2, 5], [2, 1], [1, 5]])
    assert missing_classes(counts, divide_groups(counts, list("abcd"), (0.6, 0.2, 0.2)), 3) == []


def test_many_small_parts_beside_a_large_one() -> None:
    """Where every part is filled at the same pace, the small ones overtake: 17 in the first instead of 19.2."""
    parts = divide_groups(np.ones((24, 1), dtype=np.int64), [str(i) for i in range(24)], (0.8, 0.05, 0.05, 0.05, 0.05))
    assert sorted(Counter(parts).values()) == [1, 1, 1, 2, 19]


def test_missing_classes() -> None:
    counts = np.array([[1, 0, 0], [0, 2, 0]])
    assert missing_classes(counts, [0, 1], 2) == [(0, 1), (1, 0)]  # of the third class there is none at all


# What cannot be


@pytest.mark.parametrize(
    ("groups", "request_", "needed"),
    [
        ([(5, 5), (5, 5)], SplitRequest(), (2, 3)),
        ([(9, 0), (0, 1), (0, 1), (0, 1)], SplitRequest(), (1, 3)),
        ([(5, 5)] * 4, SplitRequest(folds=5), (3, 5)),
        ([(5, 5)] * 2, SplitRequest(0.5, 0), None),
        # No tree can be in three splits.
        ([(5, 0), (5, 5), (5, 5), (0, 5)], SplitRequest(0.3, 0.3), None),
    ],
)
def test_too_few_groups(groups: list[tuple[int, int]], request_: SplitRequest, needed: tuple[int, int] | None) -> None:
    if needed is None:
        whole_and_complete(assign(photographs(groups), request_), photographs(groups), request_)
        return
    with mistake("class-in-too-few-groups", class_name="BLD", found=needed[0], expected=needed[1]):
        assign(photographs(groups), request_)


def test_what_made_groups_large_is_said() -> None:
    joins = [Join(("tree 12", "tree 17"), ("a.jpg", "b.jpg"), "near duplicates")] * 7
    with pytest.raises(DatasetError) as raised:
        assign_samples(ROOT, photographs([(5, 5), (5, 5)]), {}, SplitRequest(), None, joins)
    text = str(raised.value)
    assert "tree 12 and tree 17 were joined: near duplicates (a.jpg, b.jpg)" in text
    assert "and 2 more" in text


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"val": 0.5, "test": 0.5}, "fractions-wrong"),
        ({"val": -0.1}, "fractions-wrong"),
        ({"test": 1.0}, "fractions-wrong"),
        ({"val": float("nan")}, "fractions-wrong"),
        ({"folds": 1}, "folds-out-of-range"),
    ],
)
def test_no_such_fractions(arguments: dict[str, float], code: str) -> None:
    with mistake(code):
        SplitRequest(**arguments)  # type: ignore[arg-type]


def test_neither_a_validation_split_nor_folds() -> None:
    with mistake("val-empty"):
        SplitRequest(val=0).following([])
    assert SplitRequest(val=0, folds=4).following([]) == SplitRequest(val=0, folds=4)


def test_folds_without_a_validation_split() -> None:
    request = SplitRequest(val=0, test=0.2, folds=4)
    samples = photographs([(1, 0), (0, 1)] * 20)
    collection = assign(samples, request)
    assert list(collection.splits) == ["train", "test"]
    whole_and_complete(collection, samples, request)


def test_a_photograph_between_two_splits() -> None:
    """Old photographs keep their assignments, so one that belongs to both is an error that names them."""
    groups = [(2, 2)] * 6
    first = kept_from(assign(photographs(groups), SplitRequest()))
    a, b = (
        next(n for n, p in first.assignments.items() if p.split == "train"),
        next(n for n, p in first.assignments.items() if p.split == "test"),
    )
    joined = {f"tree {int(name.split('/')[1][:3])}" for name in (a, b)}
    samples = [
        Sample(s.path, s.name, s.class_name, "one" if s.group in joined else s.group) for s in photographs(groups)
    ]
    samples.append(Sample(ROOT / "BLD/new.jpg", "BLD/new.jpg", "BLD", "one"))
    joins = [Join(("x", "y"), (a, "BLD/new.jpg"), "near duplicates"), Join(("u", "v"), ("p", "q"), "near duplicates")]
    with mistake("previous-groups-apart", found=1, without_new=0) as raised:
        assign_samples(ROOT, samples, {}, SplitRequest(), first, joins)
    text = str(raised.value)
    assert all(part in text for part in (a.split("_")[0], "(train)", "(test)", "BLD/new.jpg", "x and y"))
    assert "u and v" not in text


def test_other_folds_than_before() -> None:
    earlier = [Assignment("a", "train", "3"), Assignment("b", "test")]
    assert [SplitRequest(folds=folds).following(earlier).folds for folds in (None, 4)] == [4, 4]
    assert [SplitRequest(folds=folds).following(earlier[1:]).folds for folds in (None, 5)] == [None, 5]
    for folds in (3, 5):
        with mistake("folds-differ", found=folds, expected=4):
            SplitRequest(folds=folds).following(earlier)


def test_other_groups_than_before() -> None:
    """No photograph was added: to remove new ones would be no help."""
    groups = [(1, 1)] * 20
    first = kept_from(assign(photographs(groups), SplitRequest()))
    where = defaultdict(list)
    for sample in photographs(groups):
        if sample.class_name == "BLD":
            where[first.assignments[sample.name].split].append(sample.group)
    # Four pairs of a tree in train and one in test are now called alike.
    pairs = dict(zip(where["test"][:4], where["train"][:4], strict=True))
    samples = [Sample(s.path, s.name, s.class_name, pairs.get(s.group, s.group)) for s in photographs(groups)]
    with mistake("previous-groups-apart", found=4, without_new=4) as raised:
        assign_samples(ROOT, samples, {}, SplitRequest(), first)
    assert str(raised.value).count("(train)") == 3
    assert "… and 1 more" in str(raised.value)


def test_what_was_read_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    def verify(samples: Sequence[Sample], *_: object) -> Iterator[Verified]:
        for number, sample in enumerate(samples, 1):
            yield Verified(sample, phash=np.full(PHASH_BYTES, number % 256, np.uint8))

    monkeypatch.setattr("bldml.dataset.splitting.together.verify", verify)
    samples = [Sample(ROOT / f"{i}.jpg", f"{i}.jpg") for i in range(2000)]
    tracemalloc.start()
    try:
        results, phashes = _read(samples)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [result.sample for result in results] == samples
    assert all(result.phash is NO_PHASH for result in results)
    assert phashes[:, 0].tolist() == [number % 256 for number in range(1, 2001)]
    assert peak < (PHASH_BYTES + 300) * len(samples)
