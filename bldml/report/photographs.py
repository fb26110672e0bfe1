"""What a report says of the photographs: counts, groups, what was left out, how an external set differs."""

import hashlib
from collections import Counter
from dataclasses import replace
from pathlib import Path

from bldml.errors import RunError
from bldml.io.text import counted, number, plain
from bldml.report.tables import Entry, Table, count, simple
from bldml.run.files import text_at
from bldml.run.photographs import describe, differences, some_dated
from bldml.run.provenance import ROLES
from bldml.run.reader import Evaluation, RunData

SPLITS = tuple(ROLES)
SHOWN = 20


def counts(data: RunData) -> Table:
    """Photographs by split and class, with the fingerprint of each split; external sets below."""
    negative, positive = data.classes.names
    by_split = Counter((row["split"], row["label"]) for row in data.splits)
    prints = data.environment.get("dataset_fingerprint")
    rows: list[list[str | int | Entry | None]] = []
    for split in SPLITS:
        yes, no = by_split[split, positive], by_split[split, negative]
        total = sum(n for (name, _), n in by_split.items() if name == split)
        groups = {row["group"] for row in data.splits if row["split"] == split and row.get("group")}
        rows.append(_row(split, yes, no, total, len(groups), text_at(prints, split)))
    for evaluation in data.evaluations:
        if evaluation.role in ROLES.values():
            continue
        yes = int(evaluation.labels(data.classes).sum())
        groups = {row.group for row in evaluation.rows if row.group}
        n = len(evaluation.rows)
        found = plain(evaluation.provenance.dataset_fingerprint)
        rows.append(_row(f"{plain(evaluation.name)} ({evaluation.role})", yes, n - yes, n, len(groups), found))
    header = ("Set", plain(positive), plain(negative), "All", "Share of positives", "Groups", "Fingerprint (SHA-256)")
    caption = "Photographs of each set by class. A fingerprint is of the photographs’ contents and their classes."
    return simple("photographs", caption, header, rows)


def _row(name: str, yes: int, no: int, total: int, groups: int, found: str) -> list[str | int | Entry | None]:
    share = number(yes / total) if total else None
    missing = Entry("Not stated", look="missing")
    return [name, yes, no, total, share, groups or "not known", found or (missing if total else None)]


def groups_sentence(data: RunData) -> str:
    """How photographs of one tree, site or burst lie in the splits."""
    places: dict[str, set[str]] = {}
    for row in data.splits:
        if row.get("group"):
            places.setdefault(row["group"], set()).add(row["split"])
    if not data.splits:
        return "Which photograph was in which split is not recorded."
    if not places:
        return (
            "No photograph has a group (tree, site, burst), so whether photographs of one tree lie in two splits is "
            "not known. If they do, all figures here are too good."
        )
    shared = sorted(name for name, splits in places.items() if len(splits) > 1)
    without = sum(not row.get("group") for row in data.splits)
    rest = f" {counted(without, 'photograph')} {'has' if without == 1 else 'have'} no group." if without else ""
    if not shared:
        return f"Of {counted(len(places), 'group')} (tree, site, burst) none has photographs in two splits.{rest}"
    names = ", ".join(plain(name) for name in shared[:SHOWN])
    more = " …" if len(shared) > SHOWN else ""
    have = "has" if len(shared) == 1 else "have"
    return (
        f"{count(len(shared))} of {counted(len(places), 'group')} (tree, site, burst) {have} photographs in more than "
        f"one split, so the test is not independent of the training: {names}{more}.{rest}"
    )


def leaks_sentence(data: RunData) -> str:
    """Which photographs of one split are in another as well."""
    if data.leaks is None:
        return ""
    if not data.leaks:
        return (
            "No photograph of one split was found again in another, neither the same nor nearly the same nor one of "
            "the same burst."
        )
    words = {"exact": "the same as", "near": "nearly the same as", "burst": "of the same burst as"}
    counts = Counter((row["kind"], row["split"], row["partner_split"]) for row in data.leaks)
    told = "; ".join(
        f"{count(n)} of {plain(split)} {words.get(kind, plain(kind))} one of {plain(partner)}"
        for (kind, split, partner), n in counts.items()
    )
    return f"Photographs are in two splits, so the figures here are too good: {told} (leaks.csv names them)."


def unit_sentence(data: RunData) -> str:
    """What is counted, and how the photographs were divided."""
    fold = data.setting("data", "fold")
    if fold:
        how = f"the folds of a manifest: fold {fold} is val, and the other folds are train"
    elif data.setting("data", "manifest"):
        how = "the splits of a manifest"
    else:
        fractions = " and ".join(filter(None, (data.setting("data", k) for k in ("val_fraction", "test_fraction"))))
        how = "split folders where there are such, else by a hash of each photograph’s name"
        how += f" (fractions for val and test: {fractions or 'not stated'})"
    return f"The unit of analysis is the photograph. They were divided by {how}."


def excluded(data: RunData) -> Table | None:
    """Photographs that were left out, and why; None where there are none."""
    found = [("the run", row) for row in data.excluded]
    for evaluation in (*data.evaluations, *data.unlabelled):
        found += [(plain(evaluation.name), row) for row in evaluation.excluded]
    if not found:
        return None
    lines = [[plain(row["path"]), name, plain(row["reason"])] for name, row in found]
    rows = tuple(tuple(Entry(cell) for cell in line) for line in lines[:SHOWN])
    header = ("Photograph", "Left out of", "Reason")
    caption = f"{counted(len(found), 'photograph')} could not be used."
    return Table("excluded", caption, header, rows, (header, lines), left_out=max(0, len(found) - SHOWN))


def difference_sentences(data: RunData, evaluation: Evaluation) -> list[str]:
    """Sentences on how an external set differs from the training photographs."""
    if evaluation.role in ROLES.values():
        return []
    training = [row for row in data.photographs if row.split == "train"]
    found = differences(training, evaluation.photographs, data.classes.positive)
    near = evaluation.provenance.near_training_photographs
    if near is not None:
        are = "is" if near == 1 else "are"
        found.append(
            f"{count(near)} of them {are} nearly the same as a photograph of training or validation."
            if near
            else "None of them is nearly the same as a photograph of training or validation."
        )
    return [plain(text) for text in found] or [
        "How these photographs differ from those of the training is not recorded."
    ]


def cameras(data: RunData) -> tuple[Table | None, str]:
    """Photographs by camera, split and class, and a sentence on when they were taken."""
    known = [row for row in data.photographs if row.camera]
    dates = _dates(data)
    if not known:
        return None, f"Which cameras took the photographs is not known. {dates}"
    negative, positive = data.classes.names
    cells = Counter((row.camera, row.split, row.true_class) for row in data.photographs)
    splits = [split for split in SPLITS if any(row.split == split for row in data.photographs)]
    names = [name for name, _ in Counter(row.camera for row in data.photographs).most_common()]
    rows: list[list[str | int | Entry | None]] = [
        [plain(name) or "not known", *(cells[name, split, label] for split in splits for label in (positive, negative))]
        for name in names
    ]
    header = ("Camera", *(plain(f"{split}, {label}") for split in splits for label in (positive, negative)))
    caption = (
        "Photographs by camera, split and class, as their files say. Where a class has cameras of its own, a "
        "classifier may learn the camera and not the leaf."
    )
    table = simple("cameras", caption, header, rows)
    return replace(table, rows=table.rows[:SHOWN], left_out=max(0, len(rows) - SHOWN)), dates


def _dates(data: RunData) -> str:
    found = {
        split: describe(rows, data.classes.positive)
        for split in SPLITS
        if (rows := [row for row in data.photographs if row.split == split])
    }
    dated = {split: one for split, one in found.items() if one.first}
    if not dated:
        return "When they were taken is not known."
    told = "; ".join(
        f"{split} {f'from {one.first} to {one.last}' if one.first else 'at an unknown time'}{some_dated(one)}"
        for split, one in found.items()
    )
    verdict = ""
    if "train" in dated and "test" in dated:
        later = dated["test"].first > dated["train"].last
        verdict = " The test is later than the training." if later else " The test is of the same time as the training."
    return f"When they were taken: {told}.{verdict}"


def files(data: RunData) -> Table:
    """The files from which this report can be made again, with their hashes."""
    run = data.run
    paths = [run.config, run.environment, run.splits, run.history, run.best_checkpoint]
    for evaluation in (*data.evaluations, *data.unlabelled):
        paths += [evaluation.folder / "predictions.csv", evaluation.folder / "metrics.json"]
    rows = [
        [plain(str(path.relative_to(run.path))), count(path.stat().st_size), _sha256(path)]
        for path in paths
        if path.is_file()
    ]
    caption = "Files from which every number here can be computed again."
    return simple("files", caption, ("File", "Bytes", "SHA-256"), rows)


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise RunError(
            f"Cannot read {path}: {error.strerror}.", "file-unreadable", path=path, reason=error.strerror
        ) from error
