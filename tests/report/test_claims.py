"""Each sentence about an evaluation: where it is true it is said, where it would be false it is not."""

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bldml.metrics.checked import UnitKind
from bldml.report import claims
from bldml.run.evidence import KINDS, Evidence

TEST = Evidence("test", 100, known={"train": 0, "val": 0, "test": 100}, searched=True)
UNSEARCHED = replace(TEST, searched=False)
RELATED = replace(TEST, relatives={"near": 2, "burst": 80})
COPIED = replace(TEST, relatives={"exact": 1})
EXTERNAL = Evidence("external", 50, known={"train": 0, "val": 0, "test": 0}, searched=True)
MIXED = Evidence("mixed", 50, known={"train": 3, "val": 0, "test": 7}, seen=3, searched=True)
MIXED_ONE = replace(MIXED, known={"seen": 1}, seen=1, relatives={"near": 4})
TRAINING, VALIDATION = Evidence("training", 9, seen=9), Evidence("validation", 9, seen=9)
GROUPS = replace(TEST, unit="group", groups=12, bursts=0)
LONE = replace(GROUPS, bursts=None, lone=1)
NEITHER = replace(GROUPS, lone=2)
BURSTS = replace(TEST, unit="burst", bursts=10, lone=70)
BOTH = replace(TEST, unit="group or burst", groups=1, bursts=3, lone=5)
FOUND_NONE = replace(TEST, bursts=0, lone=100)
APART = replace(TEST, groups=90, bursts=0, lone=10)
UNKNOWN, UNLABELLED = Evidence("unknown", 9), Evidence("unlabelled", 9)

# A part of each sentence; evidence of which it is true; evidence of which it would be false.
SENTENCES: dict[str, tuple[Evidence, Evidence]] = {
    "Training split.": (TRAINING, VALIDATION),
    "Validation split: the best epoch and the operating point were chosen on it.": (VALIDATION, TEST),
    "Test split.": (TEST, EXTERNAL),
    "External set: none of its photographs belongs to this run.": (EXTERNAL, MIXED),
    "Photographs without labels.": (UNLABELLED, TEST),
    "How these photographs relate to the run is not recorded.": (UNKNOWN, TEST),
    "Mixed set: 3 from the training split, 7 from the test split, 40 that do not belong to this run.": (MIXED, TEST),
    "Mixed set: 1 from the training or the validation split, 49": (MIXED_ONE, MIXED),
    "the classifier was trained on these photographs": (TRAINING, VALIDATION),
    "epoch and operating point were chosen on these photographs": (VALIDATION, TRAINING),
    "3 of these 50 photographs are training or validation photographs of this run": (MIXED, EXTERNAL),
    "1 of these 50 photographs is a training or validation photograph of this run, and 4 others have a relative among "
    "the training and validation photographs (a near duplicate: 4)": (MIXED_ONE, MIXED),
    "82 of these 100 photographs have a relative among the training and validation photographs (a near duplicate: 2, a "
    "photograph of the same burst: 80)": (RELATED, TEST),
    "1 of these 100 photographs has a relative among the training and validation photographs (the same file: 1)": (
        COPIED, RELATED,
    ),
    "The search for duplicates and bursts found no relative": (TEST, RELATED),
    "None of them is a near duplicate of a training or validation photograph.": (EXTERNAL, MIXED_ONE),
    "Whether they have relatives among the training and validation photographs was not searched for.": (
        UNSEARCHED, TEST,
    ),
    "so the metrics may be optimistic": (RELATED, TEST),
    "the test split, which was not used for training": (TEST, RELATED),
    "the external set ohio": (EXTERNAL, MIXED),
    "the mixed set ohio": (MIXED, EXTERNAL),
    "the validation split": (VALIDATION, TRAINING),
    "the training split": (TRAINING, VALIDATION),
    "the set ohio": (UNKNOWN, EXTERNAL),
    "The photographs of one given group count as one sampling unit (12 groups).": (GROUPS, BOTH),
    "1 photograph without a group, whose bursts are not recorded, counts as one.": (LONE, NEITHER),
    "2 photographs with neither count as one each.": (NEITHER, LONE),
    "No groups (tree, site) were given, so the photographs of one burst count as one sampling unit (10 bursts). 70 "
    "photographs outside a burst count as one each. If several bursts show one tree, the intervals are too narrow.": (
        BURSTS, BOTH,
    ),
    "The photographs of one given group or, without one, of one burst count as one sampling unit (1 group, 3 bursts). "
    "5 photographs with neither count as one each.": (BOTH, BURSTS),
    "No groups (tree, site) were given, and no two photographs are known to be of one burst, so each photograph counts "
    "as one sampling unit. If several show one tree, the intervals are too narrow.": (FOUND_NONE, TEST),
    "No groups (tree, site) were given, and bursts are not recorded, so each photograph counts as one sampling unit. "
    "If several show one tree, the intervals are too narrow.": (TEST, FOUND_NONE),
    "No two photographs are of one given group, and no two photographs are known to be of one burst, so each "
    "photograph counts as one sampling unit. If several show one tree, the intervals are too narrow.": (
        APART, FOUND_NONE,
    ),
    " from 12 groups": (GROUPS, LONE),
    " from 13 sampling units": (LONE, GROUPS),
    " from 80 sampling units": (BURSTS, TEST),
    " from 9 sampling units": (BOTH, FOUND_NONE),
}  # fmt: skip


def all_of(evidence: Evidence) -> str:
    name = claims.name_of(evidence, "ohio")
    return f"{claims.standing(evidence)} {claims.sampling(evidence)} {name}{claims.units(evidence)}"


@pytest.mark.parametrize("sentence", SENTENCES)
def test_a_sentence_is_said_where_it_is_true_and_not_where_it_is_false(sentence: str) -> None:
    true, false = SENTENCES[sentence]
    assert sentence in all_of(true)
    assert sentence not in all_of(false)


def test_the_table_has_every_sentence() -> None:
    """Taking away the parts of the table from what is said leaves punctuation only."""
    for evidence in {id(one): one for pair in SENTENCES.values() for one in pair}.values():
        said = f"{claims.standing(evidence)} {claims.sampling(evidence)}"
        for sentence in sorted(SENTENCES, key=len, reverse=True):
            said = said.replace(sentence, "")
        assert len(said.replace("Caution: ", "").strip(" .,")) < 120, said


counts = st.integers(0, 30)


@st.composite
def evidence(draw: Any) -> Evidence:
    role = draw(st.sampled_from(["training", "validation", "test", "external", "mixed", "unknown", "unlabelled"]))
    known = {split: draw(counts) for split in ("train", "val", "test")} if role == "mixed" else {}
    seen = known.get("train", 0) + known.get("val", 0)
    relatives = {kind: n for kind in KINDS if (n := draw(counts))}
    n = sum(known.values()) + sum(relatives.values()) + draw(st.integers(1, 50))
    seen = n if role in ("training", "validation") else seen
    groups, bursts = draw(st.integers(0, n // 2)), draw(st.one_of(st.none(), st.integers(0, n - n // 2)))
    lone = draw(st.integers(0, n - groups - (bursts or 0)))
    is_clustered = (groups or bursts) and groups + (bursts or 0) + lone < n
    kind: UnitKind = "group or burst" if groups and bursts else "group" if groups else "burst"
    return Evidence(
        role,
        n,
        known,
        seen,
        {} if seen == n else relatives,
        searched=draw(st.booleans()),
        unit=kind if is_clustered else "photograph",
        groups=groups,
        bursts=bursts,
        lone=lone,
    )


@given(evidence())
def test_no_two_sentences_contradict_each_other(one: Evidence) -> None:
    said = all_of(one)
    assert ("optimistic" in said) == (one.n_related > 0)
    good = ("found no relative", "None of them is", "was not used for training")
    assert not ("optimistic" in said and any(text in said for text in (*good, "was not searched for")))
    assert not ("was not searched for" in said and any(text in said for text in good))
    assert not ("External" in said and one.seen)
    assert "External" not in said or one.role == "external"
    assert not ("bursts are not recorded" in said and re.search(r"\d bursts?|of one burst", said))
    assert not ("No groups" in said and "of one given group" in said)
    assert ("each photograph counts as one" in said) != (" from " in claims.units(one)) or one.role == "unlabelled"


@given(evidence(), st.text(min_size=1))
def test_no_claim_depends_on_the_name(one: Evidence, name: str) -> None:
    assert claims.name_of(one, "x").rstrip("x") == claims.name_of(one, "val").removesuffix("val")
    assert claims.name_of(one, name)
