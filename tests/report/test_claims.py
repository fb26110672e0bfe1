"""Each sentence about an evaluation: where it is true it is said, where it would be false it is not."""

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bldml.metrics.certainty.conformal import Bands
from bldml.metrics.certainty.novelty import Flagged
from bldml.metrics.checked import UnitKind
from bldml.metrics.estimates import Estimate, Interval
from bldml.metrics.operating_point import ThresholdCriterion
from bldml.metrics.proportions import Assurance, proportion
from bldml.report import certainty, claims, run_claims
from bldml.run.evidence import KINDS, Evidence, RunEvidence
from bldml.run.photographs import Description

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
OHIO = replace(EXTERNAL, site="Ohio 2024")
BESIDE = replace(OHIO, site_of_run="Kent 2020")
SAME = replace(OHIO, site_of_run=" ohio\n 2024")
AGAIN = replace(TEST, looks=10, looked=4)
EXCLUDED, EXCLUDED_SOMEWHERE = replace(EXTERNAL, excluded=1), replace(TEST, excluded=None, excluded_of_run=3)
DEFAULT, RESUMED = replace(TEST, has_own_criterion=False), replace(TEST, resumed=2)

SCREEN = ThresholdCriterion(sensitivity=0.95, assurance=0.9)
ASSURED = replace(VALIDATION, criterion=SCREEN, assurance=Assurance(0.95, 100, 1.0, permitted=1, missed=1))
SHORT = replace(ASSURED, assurance=Assurance(0.95, 20, 1.0))
IN_UNITS = replace(SHORT, assurance=Assurance(0.95, 80, 4.0))
PLAIN_MINIMUM = replace(
    VALIDATION, criterion=ThresholdCriterion(specificity=0.9), assurance=Assurance(0.9, 20, 1.0, permitted=2, missed=1)
)

ONE_UNLIKE, FEW_UNLIKE, MANY_UNLIKE = (Flagged(n, proportion(n, 100), 0.02) for n in (1, 5, 30))
UNLIKE, STRANGE = replace(TEST, flagged=FEW_UNLIKE), replace(TEST, flagged=MANY_UNLIKE)
LIMITING, FITTED = replace(VALIDATION, n=100, flagged=ONE_UNLIKE), replace(TRAINING, flagged=FEW_UNLIKE)
BANDED = replace(TEST, bands=Bands(0.05, 45, 200, 0.2, 0.75))
SHARP = replace(TEST, bands=Bands(0.05, 45, 200, 0.5, 0.5))
TOO_FEW = replace(TEST, bands=Bands(0.05, 45, 18))

# A part of each sentence; evidence of which it is true; evidence of which it would be false.
SENTENCES: dict[str, tuple[Evidence, Evidence]] = {
    "Training split.": (TRAINING, VALIDATION),
    "Validation split: the best epoch and the operating point were chosen on it.": (VALIDATION, TEST),
    "Test split.": (TEST, EXTERNAL),
    "External set: none of its photographs belongs to this run.": (EXTERNAL, MIXED),
    "Photographs without labels.": (UNLABELLED, TEST),
    "Whether they come from another place is not stated.": (EXTERNAL, OHIO),
    "They are from Ohio 2024, as stated with --site.": (OHIO, BESIDE),
    "They are from Ohio 2024, as stated with --site; those of the run from Kent 2020, as stated in its card.": (
        BESIDE, OHIO,
    ),
    "They are from Ohio 2024, as stated with --site, the same site as those of the run.": (SAME, BESIDE),
    "This set was evaluated 10 times, by 4 runs of this folder; the best of several results on one set may be "
    "optimistic.": (AGAIN, replace(AGAIN, looks=1, looked=1)),
    "1 photograph could not be read and is not among them.": (EXCLUDED, EXTERNAL),
    "3 photographs of the run's folder could not be read; how many of them belong to this split is not recorded.": (
        EXCLUDED_SOMEWHERE, replace(EXCLUDED_SOMEWHERE, excluded=0),
    ),
    "The threshold was chosen by the default criterion; none was stated.": (
        DEFAULT, replace(DEFAULT, has_own_criterion=None),
    ),
    "The training was interrupted and resumed 2 times.": (RESUMED, replace(RESUMED, resumed=1)),
    "The training was interrupted and resumed once.": (replace(RESUMED, resumed=1), RESUMED),
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
    "The search found no near duplicate of a training or validation photograph among them.": (EXTERNAL, MIXED_ONE),
    "Whether they have relatives among the training and validation photographs was not searched for.": (
        UNSEARCHED, TEST,
    ),
    "so the metrics may be optimistic": (RELATED, AGAIN),
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
    "The threshold gives an assurance of 0.96 of a sensitivity of at least 0.95 on new leaves like these (at most 1 of "
    "100 positive photographs misclassified).": (ASSURED, SHORT),
    "The threshold gives an assurance of 0.64 of a sensitivity of at least 0.95 on new leaves like these (at most 0 of "
    "20 positive photographs misclassified). The assurance of 0.9 that was asked for is not reached: 45 are needed "
    "with none misclassified.": (SHORT, ASSURED),
    "(at most 0 of 80 positive photographs misclassified, which count as 20.0 independent ones (correlation of 0.5 "
    "within a sampling unit assumed)). The assurance of 0.9 that was asked for is not reached: 180 are needed, in "
    "sampling units of this size, with none misclassified.": (IN_UNITS, SHORT),
    "an assurance of 0.32 of a specificity of at least 0.9 on new leaves like these (at most 2 of 20 negative "
    "photographs misclassified). It was chosen for 0.9 on the validation photographs, without "
    "operating_point.assurance.": (PLAIN_MINIMUM, ASSURED),
    "Whether they are like the photographs that the classifier learned from is not recorded.": (TEST, UNLIKE),
    "5 of 100 photographs are not like those that the classifier learned from (proportion 0.050 [0.022, 0.112]; 0.02 "
    "are expected of leaves like those of validation).": (UNLIKE, FITTED),
    "1 of 100 photographs is not like those that the classifier learned from: the limit was chosen on them.": (
        LIMITING, UNLIKE,
    ),
    "Far more photographs than expected are not like those that the classifier learned from.": (STRANGE, UNLIKE),
    "30 of 100 photographs are not like those that the classifier learned from (proportion 0.300 [0.219, 0.396]; 0.02 "
    "are expected of leaves like those of validation).": (STRANGE, UNLIKE),
    "Bands of certainty are not recorded.": (TEST, BANDED),
    "There are no bands of certainty: an error of 0.05 needs 19 sampling units of each class in validation, which has "
    "45 positive and 18 negative sampling units.": (TOO_FEW, BANDED),
    "Bands: negative below 0.200, positive from 0.750 on, uncertain between them.": (BANDED, SHARP),
    "Bands: negative below 0.500, positive from 0.500 on, nothing is uncertain.": (SHARP, BANDED),
    "On average, at most 0.05 of new leaves of a class get the band of the other. The limits come from 45 positive and "
    "200 negative sampling units; with so many, about one fit in 20 exceeds 0.10 of the positive and 0.08 of the "
    "negative leaves. Where the same photographs chose among several epochs, both are a little higher.": (
        replace(BANDED, role="validation"), BANDED,
    ),
    " from 13 sampling units": (LONE, GROUPS),
    " from 80 sampling units": (BURSTS, TEST),
    " from 9 sampling units": (BOTH, FOUND_NONE),
}  # fmt: skip


RUN = RunEvidence(n=9, has_test=True, test_looks={})
# The same of the sentences about several evaluations.
SENTENCES_ON_SETS: dict[str, tuple[list[Evidence], list[Evidence]]] = {
    "No external set was evaluated; other sites": ([TEST, MIXED], [EXTERNAL]),
    "No set is recorded to be external; other sites": ([UNKNOWN], [TEST]),
    "Only 1 external set was evaluated: whether it comes from another place is not stated.": ([EXTERNAL], [OHIO]),
    "Only 2 external sets were evaluated: whether 2 of them come from another place is not stated.": (
        [EXTERNAL, EXTERNAL],
        [replace(EXTERNAL, dataset_digest="ab"), replace(EXTERNAL, dataset_digest="ab")],
    ),
    "Only 2 external sets were evaluated: from Ohio 2024, as stated with --site; whether 1 of them comes from": (
        [OHIO, EXTERNAL],
        [replace(OHIO, dataset_digest="ab"), replace(EXTERNAL, dataset_digest="ab")],
    ),
    "'External validation',": ([TEST], [TEST, EXTERNAL]),
    "'External validation at another site',": ([SAME], [SAME, OHIO]),
    "'Test set',": ([EXTERNAL], [TEST]),
    "No set is recorded to be the test split": ([UNKNOWN], [EXTERNAL]),
    "The test set was not opened": ([EXTERNAL], [TEST]),
}


def described(n: int, first: str = "", last: str = "", *, dated: int = 0, camera: str = "") -> Description:
    return Description(n, 1, None, ((camera, n),), first, last, dated)


EARLY, LATE = described(5, "2020-01-01", "2020-02-01", dated=5), described(5, "2021-01-01", "2021-02-01", dated=5)
DATED = replace(RUN, splits={"train": EARLY, "test": LATE})
PARTLY = replace(RUN, splits={"train": replace(EARLY, n_dated=2), "test": LATE})
REVERSED = replace(RUN, splits={"train": LATE, "test": EARLY})
GROUPED = replace(RUN, groups=4)
# The same of the sentences about the photographs of a run.
SENTENCES_ON_RUNS: dict[str, tuple[RunEvidence, RunEvidence]] = {
    "by the folds of a manifest (fold 2 is val": (replace(RUN, division=("fold", "2")), RUN),
    "by the splits of a manifest.": (replace(RUN, division=("manifest", "")), RUN),
    "otherwise by a hash of their names (fractions for val and test: 0.1 and 0.2)": (
        replace(RUN, division=("folders", "0.1 and 0.2")), RUN,
    ),
    "The split of each photograph is not recorded.": (RunEvidence(), RUN),
    "No photograph has a group (tree, site, burst), so it is not known": (RUN, GROUPED),
    "No group (tree, site, burst) has photographs in two splits (4 groups).": (
        GROUPED, replace(GROUPED, shared=("a",)),
    ),
    "1 of 4 groups (tree, site, burst) has photographs in more than one split, so the splits are not independent: a.": (
        replace(GROUPED, shared=("a",)), GROUPED,
    ),
    "2 photographs have no group.": (replace(GROUPED, without_group=2), GROUPED),
    "The splits have photographs that seem to be related, so the metrics here may be optimistic: 2 of test with a near "
    "duplicate in train": (replace(RUN, leaks={("near", "test", "train"): 2}), replace(RUN, leaks={})),
    "The splits share photographs, so the metrics here may be optimistic: 1 of test with an exact duplicate in train": (
        replace(RUN, leaks={("exact", "test", "train"): 1}), replace(RUN, leaks={("near", "test", "train"): 1}),
    ),
    "The search for leaks found no photograph": (replace(RUN, leaks={}), RUN),
    "They were not searched for.": (RUN, replace(RUN, leaks={})),
    "The cameras are not known.": (RUN, replace(RUN, splits={"train": described(3, camera="Phone")})),
    "It is not known whether cameras differ": (RUN, replace(RUN, splits={"train": described(3, camera="Phone")})),
    "The camera is known for 3 of 7 photographs.": (
        replace(RUN, splits={"train": described(3, camera="Phone"), "val": described(4)}), RUN,
    ),
    "The dates of the photographs are not known.": (RUN, PARTLY),
    "It is not known whether the test photographs are later": (RUN, PARTLY),
    "Dates: train from 2020-01-01 to 2020-02-01; test from 2021-01-01 to 2021-02-01.": (DATED, PARTLY),
    "The test photographs are all later than the training photographs.": (DATED, PARTLY),
    "The test photographs are not all later than the training photographs.": (REVERSED, DATED),
    "The 5 dated test photographs are all later than the 2 dated training photographs.": (PARTLY, DATED),
    "The test set was not opened: no run of this folder records an evaluation of it.": (
        RUN, replace(RUN, test_looks={"other": 1}),
    ),
    "but it was opened: its photographs were evaluated 3 times, by one, two.": (
        replace(RUN, test_looks={"one": 1, "two": 2}), RUN,
    ),
    "whether it was opened is not recorded": (replace(RUN, test_looks=None), RUN),
    "This run has no test split.": (replace(RUN, has_test=False), RUN),
    "Whether this run has a test split is not recorded.": (RunEvidence(), RUN),
    "1 other run in the same folder uses the same validation photographs. The more runs": (
        replace(RUN, same_validation=1), replace(RUN, same_validation=0),
    ),
    "0 other runs in the same folder use the same validation photographs.": (replace(RUN, same_validation=0), RUN),
}  # fmt: skip


def all_of_sets(sets: list[Evidence]) -> str:
    return claims.external_validation(sets) + str(claims.not_assessed(RUN, sets))


def all_of_run(run: RunEvidence) -> str:
    parts = run_claims.photographs(run), run_claims.taken(run), run_claims.sealed(run), run_claims.siblings(run)
    return f"{' '.join(parts)} {run_claims.not_known(run)}"


def all_of(evidence: Evidence) -> str:
    name = claims.name_of(evidence, "ohio")
    doubts = f"{certainty.doubts(evidence)} {certainty.unfamiliar(evidence)}"
    return f"{claims.standing(evidence)} {claims.sampling(evidence)} {doubts} {name}{claims.units(evidence)}"


@pytest.mark.parametrize("sentence", SENTENCES)
def test_a_sentence_is_said_where_it_is_true_and_not_where_it_is_false(sentence: str) -> None:
    true, false = SENTENCES[sentence]
    assert sentence in all_of(true)
    assert sentence not in all_of(false)


@pytest.mark.parametrize("sentence", SENTENCES_ON_SETS)
def test_of_several_evaluations(sentence: str) -> None:
    true, false = SENTENCES_ON_SETS[sentence]
    assert sentence in all_of_sets(true)
    assert sentence not in all_of_sets(false)


@pytest.mark.parametrize("sentence", SENTENCES_ON_RUNS)
def test_of_a_run(sentence: str) -> None:
    true, false = SENTENCES_ON_RUNS[sentence]
    assert sentence in all_of_run(true)
    assert sentence not in all_of_run(false)


def test_the_table_has_every_sentence() -> None:
    """Taking away the parts of the table from what is said leaves punctuation only."""
    for evidence in {id(one): one for pair in SENTENCES.values() for one in pair}.values():
        said = f"{claims.standing(evidence)} {claims.sampling(evidence)} {certainty.doubts(evidence)}"
        for sentence in sorted(SENTENCES, key=len, reverse=True):
            said = said.replace(sentence, "")
        assert len(said.replace("Caution: ", "").strip(" .,")) < 120, said


@pytest.mark.parametrize(
    ("low", "high", "short"),
    [
        (0.501, 0.9, ""),
        (0.5, 0.9, "performance is not distinguishable from chance"),
        (0.2, 0.5, "performance is not distinguishable from chance"),
        (0.1, 0.499, "performance is worse than chance"),
    ],
)
def test_an_auroc_at_chance_is_said(low: float, high: float, short: str) -> None:
    auroc = Estimate((low + high) / 2, Interval(low, high, "DeLong"))
    assert claims.chance(auroc) == short
    assert claims.at_chance(auroc).endswith(f"0.5: {short}." if short else "")
    assert bool(claims.at_chance(auroc)) == bool(short)
    assert ("includes" in claims.at_chance(auroc)) == (low <= 0.5 <= high)
    assert not claims.at_chance(Estimate(0.4, None, "one class"))


counts = st.integers(0, 30)


@st.composite
def evidence(draw: Any) -> Evidence:
    role = draw(st.sampled_from(["training", "validation", "test", "external", "mixed", "unknown", "unlabelled"]))
    known = {split: draw(counts) for split in ("train", "val", "test")} if role == "mixed" else {}
    seen = known.get("train", 0) + known.get("val", 0)
    relatives = {kind: n for kind in KINDS if (n := draw(counts))}
    n = sum(known.values()) + sum(relatives.values()) + draw(st.integers(1, 50))
    seen = n if role in ("training", "validation") else seen
    looks = draw(counts)
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
        site=draw(st.sampled_from(["", "Ohio"])),
        site_of_run=draw(st.sampled_from(["", "ohio", "Kent"])),
        looks=looks,
        looked=min(looks, 2),
        excluded=draw(st.sampled_from([None, 0, 3])),
        excluded_of_run=3,
        resumed=draw(st.integers(0, 2)),
        has_own_criterion=draw(st.sampled_from([None, True, False])),
        unit=kind if is_clustered else "photograph",
        groups=groups,
        bursts=bursts,
        lone=lone,
        bands=draw(
            st.sampled_from([None, Bands(0.05, 45, 45, 0.2, 0.7), Bands(0.05, 45, 3), Bands(0.1, 9, 9, 0.5, 0.5)])
        ),
        flagged=draw(st.sampled_from([None, *(Flagged(k, proportion(k, n), 0.02) for k in {0, n // 2, n})])),
    )


@given(evidence())
def test_no_two_sentences_contradict_each_other(one: Evidence) -> None:
    said = all_of(one)
    assert ("the metrics may be optimistic" in said) == (one.n_related > 0)
    assert ("This set was evaluated" in said) <= (one.looks > 1)
    assert not ("another place is not stated" in said and "as stated with --site" in said)
    assert ("the same site" in said) <= (one.site.casefold() == one.site_of_run.casefold() != "")
    assert one.role not in ("training", "validation", "test") or "--site" not in said, "their site is that of the card"
    good = ("found no relative", "None of them is", "was not used for training")
    assert not (
        "the metrics may be optimistic" in said and any(text in said for text in (*good, "was not searched for"))
    )
    assert not ("was not searched for" in said and any(text in said for text in good))
    assert ("Far more photographs" in said) <= ("not like those that the classifier learned from (" in said)
    assert not ("is not recorded" in certainty.familiarity(one) and one.flagged)
    assert ("Bands: " in said) + ("no bands" in said) + ("Bands of certainty are not recorded" in said) == 1
    assert not ("External" in said and one.seen)
    assert "External" not in said or one.role == "external"
    assert not ("bursts are not recorded" in said and re.search(r"\d bursts?|of one burst", said))
    assert not ("No groups" in said and "of one given group" in said)
    assert ("each photograph counts as one" in said) != (" from " in claims.units(one)) or one.role == "unlabelled"


@given(evidence(), st.text(min_size=1))
def test_no_claim_depends_on_the_name(one: Evidence, name: str) -> None:
    assert claims.name_of(one, "x").rstrip("x") == claims.name_of(one, "val").removesuffix("val")
    assert claims.name_of(one, name)
