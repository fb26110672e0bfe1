"""Tables and sentences of a report on its photographs: counts, groups, exclusions, cameras, external sets."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

from bldml.errors import RunError
from bldml.io.system import sha256_of
from bldml.io.text import counted, number, plain
from bldml.report.tables import Entry, Shown, Table, count, text_table
from bldml.run.files import text_at
from bldml.run.photographs import describe, differences, some_dated
from bldml.run.provenance import ROLES
from bldml.run.reader import Evaluation, RunData

SPLITS = tuple(ROLES)
MAX_SHOWN = 20  # on the page; the CSV file contains all


def counts_table(data: RunData) -> Table:
    """Return the photographs of each split, then of each other set, by class, with the dataset digest."""
    negative, positive = data.classes.names
    digests = data.environment.get("dataset_fingerprint")
    labels = {
        split: [(row["label"], row.get("group")) for row in data.splits if row["split"] == split] for split in ROLES
    }
    sets = [(split, photographs, text_at(digests, split)) for split, photographs in labels.items()]
    sets += [
        (
            f"{plain(evaluation.name)} ({evaluation.role})",
            [(row.true_class, row.group) for row in evaluation.rows],
            evaluation.provenance.dataset_fingerprint,
        )
        for evaluation in data.evaluations
        if evaluation.role not in ROLES.values()
    ]
    rows: list[list[Shown]] = []
    for name, photographs, digest in sets:
        counts, n = Counter(label for label, _ in photographs), len(photographs)
        groups = len({group for _, group in photographs if group})
        proportion = number(counts[positive] / n) if n else None
        missing = Entry("Not stated", look="missing") if n else None
        rows.append([name, counts[positive], counts[negative], n, proportion, groups or "not known", digest or missing])
    header = ("Set", plain(positive), plain(negative), "All", "Proportion positive", "Groups",
              "Dataset digest (SHA-256)")  # fmt: skip
    caption = "Photographs of each set by class. The dataset digest identifies the photographs’ contents and classes."
    return text_table("photographs", caption, header, rows)


def groups_sentence(data: RunData) -> str:
    """Say whether photographs of one group (tree, site, burst) are in more than one split."""
    splits_of: dict[str, set[str]] = {}
    for row in data.splits:
        if row.get("group"):
            splits_of.setdefault(row["group"], set()).add(row["split"])
    if not data.splits:
        return "The split of each photograph is not recorded."
    if not splits_of:
        return (
            "No photograph has a group (tree, site, burst), so it is not known whether photographs of one tree are in "
            "two splits. If they are, all metrics here are optimistic."
        )
    shared = sorted(name for name, splits in splits_of.items() if len(splits) > 1)
    without = sum(not row.get("group") for row in data.splits)
    rest = f" {counted(without, 'photograph')} {'has' if without == 1 else 'have'} no group." if without else ""
    if not shared:
        return f"No group (tree, site, burst) has photographs in two splits ({counted(len(splits_of), 'group')}).{rest}"
    names = ", ".join(plain(name) for name in shared[:MAX_SHOWN])
    more = " …" if len(shared) > MAX_SHOWN else ""
    have = "has" if len(shared) == 1 else "have"
    return (
        f"{count(len(shared))} of {counted(len(splits_of), 'group')} (tree, site, burst) {have} photographs in more "
        f"than one split, so the splits are not independent: {names}{more}.{rest}"
    )


def leaks_sentence(data: RunData) -> str:
    """Say which photographs of one split have a duplicate or a photograph of the same burst in another."""
    if data.leaks is None:
        return ""
    if not data.leaks:
        return (
            "The search for leaks found no photograph with an exact duplicate, a near duplicate or a photograph of the "
            "same burst in another split."
        )
    matches = {"exact": "an exact duplicate", "near": "a near duplicate", "burst": "a photograph of the same burst"}
    counts = Counter((row["kind"], row["split"], row["partner_split"]) for row in data.leaks)
    listed = "; ".join(
        f"{count(n)} of {plain(split)} with {matches.get(kind, plain(kind))} in {plain(partner)}"
        for (kind, split, partner), n in counts.items()
    )
    return f"The splits share photographs, so the metrics here are optimistic: {listed} (listed in leaks.csv)."


def unit_sentence(data: RunData) -> str:
    """State the unit of analysis, and how the photographs were assigned to splits."""
    fold = data.setting("data", "fold")
    if fold:
        how = f"the folds of a manifest (fold {fold} is val, the other folds are train)"
    elif data.setting("data", "manifest"):
        how = "the splits of a manifest"
    else:
        fractions = " and ".join(filter(None, (data.setting("data", k) for k in ("val_fraction", "test_fraction"))))
        how = (
            "their folder (train, val or test) if the data folder has such folders, otherwise by a hash of their names"
        )
        how += f" (fractions for val and test: {fractions or 'not stated'}); the run does not record which"
    return f"The unit of analysis is the photograph. Photographs were assigned to splits by {how}."


def excluded_photographs_table(data: RunData) -> Table | None:
    """Return the excluded photographs with the reason; None where there are none."""
    found = [("the run", row) for row in data.excluded]
    for evaluation in (*data.evaluations, *data.unlabelled):
        found += [(plain(evaluation.name), row) for row in evaluation.excluded]
    if not found:
        return None
    lines = [[plain(row["path"]), name, plain(row["reason"])] for name, row in found]
    rows = tuple(tuple(Entry(cell) for cell in line) for line in lines[:MAX_SHOWN])
    header = ("Photograph", "Excluded from", "Reason")
    caption = f"{counted(len(found), 'photograph')} could not be used."
    return Table("excluded", caption, header, rows, (header, lines), left_out=max(0, len(found) - MAX_SHOWN))


def difference_sentences(data: RunData, evaluation: Evaluation) -> list[str]:
    """Return sentences on how an external set differs from the training photographs."""
    if evaluation.role in ROLES.values():
        return []
    training = [row for row in data.photographs if row.split == "train"]
    found = differences(training, evaluation.photographs, data.classes.positive)
    near = evaluation.provenance.near_training_photographs
    if near is not None:
        are = "is a near duplicate" if near == 1 else "are near duplicates"
        found.append(
            f"{count(near)} of them {are} of training or validation photographs."
            if near
            else "None of them is a near duplicate of a training or validation photograph."
        )
    return [plain(text) for text in found] or [
        "How these photographs differ from the training photographs is not recorded."
    ]


def cameras_table(data: RunData) -> tuple[Table | None, str]:
    """Return the photographs by camera, split and class, and a sentence on their dates."""
    known = [row for row in data.photographs if row.camera]
    dates = _dates(data)
    if not known:
        return None, f"The cameras are not known. {dates}"
    negative, positive = data.classes.names
    cells = Counter((row.camera, row.split, row.true_class) for row in data.photographs)
    splits = [split for split in SPLITS if any(row.split == split for row in data.photographs)]
    names = [name for name, _ in Counter(row.camera for row in data.photographs).most_common()]
    rows: list[list[Shown]] = [
        [name or "not known", *(cells[name, split, label] for split in splits for label in (positive, negative))]
        for name in names
    ]
    header = ("Camera", *(plain(f"{split}, {label}") for split in splits for label in (positive, negative)))
    caption = (
        "Photographs by camera, split and class, according to their metadata. If the classes were photographed with "
        "different cameras, a classifier may learn the camera instead of the leaf."
    )
    table = text_table("cameras", caption, header, rows)
    return replace(table, rows=table.rows[:MAX_SHOWN], left_out=max(0, len(rows) - MAX_SHOWN)), dates


def _dates(data: RunData) -> str:
    found = {
        split: describe(rows, data.classes.positive)
        for split in SPLITS
        if (rows := [row for row in data.photographs if row.split == split])
    }
    dated = {split: one for split, one in found.items() if one.first}
    if not dated:
        return "The dates of the photographs are not known."
    listed = "; ".join(
        f"{split} {f'from {one.first} to {one.last}' if one.first else 'at an unknown time'}{some_dated(one)}"
        for split, one in found.items()
    )
    verdict = ""
    if "train" in dated and "test" in dated:
        later = dated["test"].first > dated["train"].last
        verdict = f" The test photographs are {'' if later else 'not '}all later than the training photographs."
    return f"Dates: {listed}.{verdict}"


def files_table(data: RunData) -> Table:
    """Return the main files behind this report, with their hashes.

    Raises:
        RunError: One of them cannot be read.
    """
    run = data.run
    paths = [run.config, run.environment, run.splits, run.history, run.best_checkpoint]
    for evaluation in (*data.evaluations, *data.unlabelled):
        paths += [evaluation.folder / "predictions.csv", evaluation.folder / "metrics.json"]
    rows = []
    for path in filter(Path.is_file, paths):
        try:
            rows.append([str(path.relative_to(run.path)), count(path.stat().st_size), sha256_of(path)])
        except OSError as error:
            message = f"Cannot read {path}: {error.strerror}."
            raise RunError(message, "file-unreadable", path=path, reason=error.strerror) from error
    return text_table("files", "The main files behind this report.", ("File", "Bytes", "SHA-256"), rows)
