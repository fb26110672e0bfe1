"""Tables and sentences of a report on its photographs: counts, groups, exclusions, cameras, external sets."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

from bldml.errors import RunError
from bldml.io.system import sha256_of
from bldml.io.text import counted, number, plain
from bldml.report.tables import Entry, Shown, Table, count, text_table
from bldml.run.files import text_at
from bldml.run.photographs import differences
from bldml.run.provenance import ROLES
from bldml.run.reader import Evaluation, RunData

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
            f"{', '.join(plain(one.name) for one in same)} ({same[0].role})",
            [(row.true_class, row.group) for row in same[0].rows],
            same[0].provenance.dataset_fingerprint,
        )
        for same in data.sets
        if same[0].role not in ROLES.values()
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
    return [plain(text) for text in differences(training, evaluation.photographs, data.classes.positive)]


def cameras_table(data: RunData) -> Table | None:
    """Return the photographs by camera, split and class; None where no camera is known."""
    if not any(row.camera for row in data.photographs):
        return None
    negative, positive = data.classes.names
    cells = Counter((row.camera, row.split, row.true_class) for row in data.photographs)
    columns = [(split, label) for split in _splits(data) for label in (positive, negative)]
    names = [name for name, _ in Counter(row.camera for row in data.photographs).most_common()]
    rows: list[list[Shown]] = [
        [name or "not known", *(cells[name, split, label] for split, label in columns)] for name in names
    ]
    header = ("Camera", *(plain(f"{split}, {label}") for split, label in columns))
    caption = (
        "Photographs by camera, split and class, according to their metadata. If the classes were photographed with "
        "different cameras, a classifier may learn the camera instead of the leaf."
    )
    table = text_table("cameras", caption, header, rows)
    return replace(table, rows=table.rows[:MAX_SHOWN], left_out=max(0, len(rows) - MAX_SHOWN))


def _splits(data: RunData) -> list[str]:
    return [split for split in ROLES if any(row.split == split for row in data.photographs)]


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
            rows.append([path.relative_to(run.path).as_posix(), count(path.stat().st_size), sha256_of(path)])
        except OSError as error:
            message = f"Cannot read {path}: {error.strerror}."
            raise RunError(message, "file-unreadable", path=path, reason=error.strerror) from error
    return text_table("files", "The main files behind this report.", ("File", "Bytes", "SHA-256"), rows)
