"""Sentences about the photographs of a run: functions of the recorded facts alone, as in `claims`."""

from collections.abc import Mapping, Sequence

from bldml.io.text import counted, first_few, plain
from bldml.run.evidence import RunEvidence
from bldml.run.provenance import Stretch, changed_conditions

MATCHES = {
    "exact": "an exact duplicate",
    "near": "a near duplicate",
    "source": "a file that is named as made from the same photograph",
    "burst": "a photograph of the same burst",
}
SHOWN = 20  # groups


def photographs(run: RunEvidence) -> str:
    """Say all that is known of how the photographs were assigned to splits."""
    return " ".join(filter(None, (division(run), groups(run), leaks(run))))


def taken(run: RunEvidence) -> str:
    """Say all that is known of how and when the photographs were taken."""
    return f"{cameras(run)} {dates(run)}".strip()


def division(run: RunEvidence) -> str:
    """Say how photographs were assigned to splits."""
    how, detail = run.division
    if how == "fold":
        by = f"the folds of a manifest (fold {plain(detail)} is val, the other folds are train)"
    elif how == "manifest":
        by = "the splits of a manifest"
    else:
        by = (
            "their folder (train, val or test) if the data folder has such folders, otherwise by a hash of their names "
            f"(fractions for val and test: {plain(detail) or 'not stated'}); the run does not record which"
        )
    return f"The unit of analysis is the photograph. Photographs were assigned to splits by {by}."


def groups(run: RunEvidence) -> str:
    """Say whether groups have photographs in several splits."""
    if not run.n:
        return "The split of each photograph is not recorded."
    if not run.groups:
        return (
            "No photograph has a group (tree, site, burst), so it is not known whether photographs of one tree are in "
            "two splits. If they are, all metrics here may be optimistic."
        )
    names = ", ".join(run.shared[:SHOWN]) + (" …" if len(run.shared) > SHOWN else "")
    text = (
        f"{shared_groups(run)}: {names}."
        if run.shared
        else f"No group (tree, site, burst) has photographs in two splits ({counted(run.groups, 'group')})."
    )
    if run.without_group:
        have = "has" if run.without_group == 1 else "have"
        text += f" {counted(run.without_group, 'photograph')} {have} no group."
    return text


def shared_groups(run: RunEvidence) -> str:
    """Say how many groups are in several splits, without the full stop; empty if none is."""
    n = len(run.shared)
    have = f"{counted(run.groups, 'group')} (tree, site, burst) {'has' if n == 1 else 'have'}"
    return f"{n:,} of {have} photographs in more than one split, so the splits are not independent" if n else ""


CHANGED = {
    "provenance": "provenance.json does not have the values that were written: it was changed since, so it does not "
    "tell whether the other files were",
    "checkpoint": "best.ckpt is not the file that was evaluated: it was changed, replaced or trained further since",
    "predictions": "the rows of predictions.csv are not those that were written: the table was changed since",
    "distances": "a distance or a band in predictions.csv is not the one that was written: the table was changed since",
    "metrics": "metrics.json is missing or does not have the values that were written",
    "table": "metrics.csv is missing or does not have the values that were written",
    "photographs": "photographs.csv of the evaluation is missing or does not have the values that were written",
    "excluded": "excluded.csv of the evaluation is missing or does not have the values that were written",
    "pictures": "a picture in explanations, or its row in gallery.csv, was changed or removed since, and is not shown",
    "history": "history.csv has other values for the epochs before this evaluation than it had then",
    "environment": "environment.json has other values for the training before this evaluation than it had then",
    "training_time": "training_time.json is missing or has another value than when this evaluation was written",
    "ledger": "ledger.csv lacks this evaluation, or has others before it than it had then, so the number of "
    "evaluations may be wrong",
}


def changed_files(run: RunEvidence) -> list[str]:
    """Say which files are not what they were when their digests were recorded; empty where none is known to differ."""
    return changes_said(run.changes)


def changes_said(changes: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the sentences of `changed_files` for what `changed_since` found."""
    found = []
    for what, names in changes.items():
        of = f"{', '.join(map(plain, names))}: "
        if what in CHANGED:
            place = "gallery.csv" if what == "pictures" else "provenance.json"
            found.append(f"{of}{CHANGED[what]} (by the SHA-256 in {place}).")
        elif names:
            found.append(
                f"{of}provenance.json is missing or records no SHA-256: the evaluation was cut short, another version "
                "wrote it, or the file was replaced or removed since. So it is not known whether its other files were "
                "changed."
            )
        else:
            found.append(changed_since_start(what))
    return found


def changed_since_start(name: str) -> str:
    """Say that a file of a run is not what it was when the run was started."""
    return f"{name} is missing or does not have the values that this run wrote (by the SHA-256 in environment.json)."


def leaks(run: RunEvidence) -> str:
    """Say what the search for relatives in other splits found; empty without a search."""
    if run.leaks is None:
        return ""
    if not run.leaks:
        return (
            "The search for leaks found no photograph with an exact duplicate, a near duplicate or a photograph of the "
            "same burst in another split."
        )
    found = "; ".join(
        f"{n:,} of {plain(split)} with {MATCHES.get(kind, plain(kind))} in {plain(partner)}"
        for (kind, split, partner), n in run.leaks.items()
    )
    certain = any(kind == "exact" for kind, _, _ in run.leaks)
    begin = "The splits share photographs" if certain else "The splits have photographs that seem to be related"
    return f"{begin}, so the metrics here may be optimistic: {found} (listed in leaks.csv)."


def cameras(run: RunEvidence) -> str:
    """Say of how many photographs the camera is known; empty if of all."""
    n, known = _known_cameras(run)
    if not known:
        return "The cameras are not known."
    return "" if n == known else f"The camera is known for {known:,} of {counted(n, 'photograph')}."


def dates(run: RunEvidence) -> str:
    """Say when the photographs of each split were taken, and whether the test split is later than training."""
    if not any(found.first for found in run.splits.values()):
        return "The dates of the photographs are not known."
    periods = (
        f"{split} {f'from {one.first} to {one.last}' if one.first else 'at an unknown time'}{one.some_dated}"
        for split, one in run.splits.items()
    )
    text = f"Dates: {'; '.join(periods)}."
    train, test = run.splits.get("train"), run.splits.get("test")
    if not train or not test or not train.first or not test.first:
        return text
    whole = train.n_dated == train.n and test.n_dated == test.n
    of_test, of_train = ("", "") if whole else (f"{test.n_dated:,} dated ", f"{train.n_dated:,} dated ")
    later = "not " if test.first <= train.last else ""
    return f"{text} The {of_test}test photographs are {later}all later than the {of_train}training photographs."


def sealed(run: RunEvidence) -> str:
    """Say whether the test split was opened, for a run without an evaluation of it."""
    if run.has_test is None:
        return "Whether this run has a test split is not recorded."
    if not run.has_test:
        return "This run has no test split."
    if run.test_looks is None:
        return "The test split is not among the evaluations of this run; whether it was opened is not recorded."
    if not run.test_looks:
        return "The test set was not opened: no run of this folder records an evaluation of it."
    n = sum(run.test_looks.values())
    times = "once" if n == 1 else f"{n:,} times"
    return (
        "The test split is not among the evaluations of this run, but it was opened: its photographs were evaluated "
        f"{times}, by {', '.join(map(plain, run.test_looks))}."
    )


def siblings(run: RunEvidence) -> str:
    """Say how many other runs were chosen on the same photographs; empty where it is not known."""
    n = run.same_validation
    if n is None:
        return ""
    use = "uses" if n == 1 else "use"
    text = f"{counted(n, 'other run')} in the same folder {use} the same validation photographs."
    return f"{text} The more runs are tried, the more optimistic the best validation metrics may be." if n else text


def conditions(stretches: Sequence[Stretch]) -> str:
    """Say whether parts of a training ran on other software or hardware than the part before; empty if none did."""
    found = [f"from step {one.step:,}, {'; '.join(what)}" for one, what in changed_conditions(stretches)]
    lost = sum("torch" not in one.conditions for one in stretches)
    parts = []
    if found:
        parts.append(
            f"It was resumed under other conditions: {first_few(found, SHOWN, ', ', ' and ')}. Resuming is exact only "
            "on the same versions and hardware, so an uninterrupted training may give other weights."
        )
    if lost:
        parts.append(f"For {lost:,} of its {len(stretches):,} parts, versions and hardware are not recorded.")
    return " ".join(parts)


def not_known(run: RunEvidence) -> list[tuple[str, str]]:
    """Return title and text of what is not known of the photographs."""
    found = []
    if not _known_cameras(run)[1]:
        found.append(("Cameras", "It is not known whether cameras differ between classes or sets."))
    if not any(one.first for one in run.splits.values()):
        text = "It is not known whether the test photographs are later than the training photographs."
        found.append(("Dates", text))
    if run.leaks is None:
        found.append(("Duplicates and bursts across splits", "They were not searched for."))
    return found


def _known_cameras(run: RunEvidence) -> tuple[int, int]:
    """Return the number of photographs, and of those with a known camera."""
    n = sum(one.n for one in run.splits.values())
    return n, n - sum(dict(one.cameras).get("", 0) for one in run.splits.values())
