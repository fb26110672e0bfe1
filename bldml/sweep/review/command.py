"""The command `review` for an experiment: the page of labels to look at again, and the manifest with corrected ones."""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bldml.dataset.files import shell_word, show_path
from bldml.dataset.manifest import COLUMNS, OPTIONAL, manifest_text
from bldml.dataset.samples import class_name
from bldml.dataset.tables.reading import read_rows
from bldml.errors import DatasetError, RunError, UsageError
from bldml.io.atomic import make_folder, write_atomically
from bldml.io.documents import dump_yaml, load_yaml, read_text
from bldml.io.locks import SHORTLY_S, hold_output
from bldml.io.screen import say
from bldml.io.text import Cell, counted, csv_text, first_few, without_apostrophe
from bldml.metrics.checked import Classes
from bldml.run.reader import RunData
from bldml.survey.review import photographs_root, read_reviewed
from bldml.sweep.plan import PlannedRun, SweepFolder, find_experiment, read_plan
from bldml.sweep.results.gathering import Contender, doubtful, gather
from bldml.sweep.results.page import OUT_OF_FOLD
from bldml.sweep.review.maps import unseen_maps
from bldml.sweep.review.page import label_page
from bldml.sweep.review.ranking import REASONS, Doubt, rank

REVIEW = "review"  # column of the manifest: which table confirmed or changed a label
FLATTERS = (
    "Only labels that these classifiers doubt were looked at. Errors in labels that they share stay, so figures on "
    "corrected labels flatter them."
)


@dataclass(frozen=True)
class LabelSource:
    """A configuration of an experiment whose photographs were predicted out of fold.

    Attributes:
        folder: The folder of the experiment.
        contender: The configuration, with its pooled predictions.
        run: One of the runs that are pooled, which has recorded all photographs of the folds.
        root: Folder of the photographs.
    """

    folder: SweepFolder
    contender: Contender
    run: RunData
    root: Path

    @property
    def classes(self) -> Classes:
        """The classes of its runs."""
        return self.run.classes

    @classmethod
    def of(cls, source: Path) -> "LabelSource":
        """Find what a path names: a configuration, the table of its predictions, or an experiment that has one only.

        Raises:
            UsageError: There is no such experiment or configuration.
            RunError: It has no out-of-fold predictions yet, or its photographs are not where they were.
        """
        if source.parent.name == OUT_OF_FOLD:
            source = source.parent.parent / source.name.removesuffix(".csv")
        folder, name = find_experiment(source, "review")
        plan = read_plan(folder)
        names = [one.name for one in plan.configurations]
        if name is None and len(names) > 1:
            message = f"{show_path(folder.path)} has {len(names)} configurations; name one: "
            message += f"{shell_word(folder.path / names[0])}. The others: {first_few(names[1:], 10, ', ', ' and ')}."
            raise UsageError(message, "review-configuration-missing", found=names)
        if plan.folds is None:
            message = (
                f"{show_path(folder.path)} has no folds, so its photographs have no out-of-fold predictions. Write "
            )
            message += "folds: 5 into the experiment, and start it with another --output."
            raise RunError(message, "review-no-folds", path=folder.path)
        name = name or names[0]
        contender = next(one for one in gather(folder, plan, {}).configurations if one.candidate.name == name)
        if contender.result is None:
            why = "; ".join(contender.left_out) or "no fold is finished"
            message = f"{name} has no seed with all folds: {why}. Do the missing runs first: python -m bldml sweep."
            raise RunError(message, "review-seed-incomplete", path=folder.path, found=name)
        run, planned = next(
            (one.data, one.planned)
            for one in contender.runs
            if one.data and one.evaluation and one.planned.seed in contender.result.seeds
        )
        return cls(folder, contender, run, _planned_root(folder, planned) or photographs_root(run))


def _planned_root(folder: SweepFolder, planned: PlannedRun) -> Path | None:
    """Return where the photographs of an experiment are now, which may have moved since a run; None if not recorded."""
    with suppress(Exception):  # written by the sweep, but anybody may have changed it
        root = Path(load_yaml(read_text(folder.task(planned.name)))["data"]["root"])
        return root if root.is_dir() else None
    return None


def make_label_sheet(source: Path, output: Path | None, count: int, *, version: str) -> None:
    """Write `labels.html`, the photographs to look at again, and `labels.csv`, all photographs in that order.

    Args:
        source: A configuration of an experiment.
        output: Folder for them; None for one in the folder of the experiment.
        count: Largest number of photographs on the page.
        version: Of bldml.

    Raises:
        UsageError, RunError: The configuration has no out-of-fold predictions.
    """
    if not 0 <= count <= 2000:
        message = f"--sheet must be a number of photographs from 0 to 2000, not {count}."
        raise UsageError(message, "label-sheet-wrong", found=count)
    found = LabelSource.of(source)
    output = output or _folder(found)
    assert found.contender.result is not None
    doubts = rank(found.contender.result, found.classes.negative)
    digests = {row.path: row.sha256 for row in found.run.photographs}
    chosen = [one for one in doubts if one.reason][:count]
    maps, why = unseen_maps(found.contender, [one.path for one in chosen], found.root)
    page, not_shown = label_page(
        doubts, chosen, maps, digests, found.root, found.classes, found.contender.name, version=version
    )
    make_folder(output)
    with hold_output(output, wait=SHORTLY_S):
        write_atomically(output / "labels.csv", _table(doubts))
        write_atomically(output / "labels.html", page)
    numbers = Counter(one.reason for one in doubts)
    confident = sum(one.is_confident for one in doubts)
    hard = sum(one.is_hard_negative for one in doubts)
    doubt = doubtful(found.contender.runs)
    disagree = f"Seeds disagree on {numbers[REASONS[1]]} more, and " if doubts[0].seeds > 1 else ""
    lines = [
        f"{counted(len(doubts), 'photograph')}, each predicted by runs that did not learn from it.",
        f"The label is contradicted for {numbers[REASONS[0]]}, confidently for {confident} of them; {hard} of them are "
        f"hard negatives (labelled {show_path(found.classes.negative)}). {disagree}{numbers[REASONS[2]]} more are near "
        "the threshold.",
        "A contradicted label is a reason to look at it, not a sign that it is wrong.",
        *([f"Warning: {doubt[0]} {doubt[1]}"] if doubt else []),
        *([f"Not shown, because they are gone or changed: {counted(not_shown, 'photograph')}."] if not_shown else []),
        *([f"{len(maps)} of {counted(len(chosen), 'photograph')} have a heat map: {why}"] if why else []),
        f"Wrote {show_path(output / 'labels.html')}",
        f"Wrote {show_path(output / 'labels.csv')}",
        "Look at them, save confirmed.csv from the page, and make the manifest of it:",
        f"  python -m bldml review confirmed.csv {shell_word(source)}",
    ]
    say("".join(f"{line}\n" for line in lines))


def _folder(found: LabelSource) -> Path:
    return found.folder.path / "review" / found.contender.candidate.name


def _table(doubts: list[Doubt]) -> str:
    header = (
        *("path", "unit", "label", "predicted", "probability", "margin", "against", "seeds", "reason", "confident"),
        *("hard_negative", "unit_contradicted", "unit_photographs"),
    )
    rows: Iterator[list[Cell]] = (
        [
            *(one.path, one.unit, one.label, one.predicted, one.probability, one.margin, one.against, one.seeds),
            *(one.reason, *("yes" if flag else "no" for flag in (one.is_confident, one.is_hard_negative))),
            *one.of_unit,
        ]
        for one in doubts
    )
    return csv_text(header, rows)


def correct_labels(confirmed: Path, source: Path, output: Path | None) -> None:
    """Write `manifest.csv`: the photographs of an experiment with the labels of a review, folds and test set as before.

    Args:
        confirmed: Table that the page saved.
        source: The configuration whose page it was.
        output: Folder for it; None for one in the folder of the experiment.

    Raises:
        UsageError, RunError: There is no such configuration.
        DatasetError: The table has errors.
    """
    found = LabelSource.of(source)
    output = output or _folder(found)
    reviewed, not_leaves = read_reviewed(confirmed, found.root, found.classes.names)
    rows = _manifest_rows(found.folder)
    in_folds = {row["path"] for row in rows if row["split"] != "test"}
    unknown = [name for name in (*(one.name for one in reviewed), *not_leaves) if name not in in_folds]
    if unknown:
        message = f"{show_path(confirmed)} names {counted(len(unknown), 'photograph')} that no fold of "
        message += (
            f"{show_path(found.folder.path)} has, such as {show_path(unknown[0])}. Use the table of its own page."
        )
        raise DatasetError(message, "review-of-other-photographs", path=confirmed, found=unknown[:10])
    aliases = found.run.config.get("data", {}).get("class_aliases") or {}
    seen = {one.name: one.label for one in reviewed}
    own_names = {class_name(row["label"], aliases): row["label"] for row in rows}  # of a class, before aliases
    changed: Counter[tuple[str, str]] = Counter()
    written: list[list[str]] = []
    for row in rows:
        if row["path"] in not_leaves:
            continue
        label, before, note = seen.get(row["path"]), class_name(row["label"], aliases), ""
        if label is not None and label != before:
            changed[before, label] += 1
            row = {**row, "label": own_names.get(label, label)}
            note = f"{confirmed.name}, before {before}"
        elif label is not None:
            note = f"{confirmed.name}, confirmed"
        written.append([*(row.get(column, "") for column in (*COLUMNS, *OPTIONAL)), note])
    make_folder(output)
    manifest, left_out = output / "manifest.csv", len(rows) - len(written)
    with hold_output(output, wait=SHORTLY_S):
        earlier = _reviewed_before(manifest) - {*seen, *not_leaves}
        write_atomically(manifest, manifest_text((*COLUMNS, *OPTIONAL, REVIEW), written))
    _say(found, manifest, len(reviewed), changed, left_out)
    if earlier:
        say(
            f"{counted(len(earlier), 'photograph')} that the manifest before this one had as reviewed, such as "
            f"{show_path(min(earlier))}, {'is' if len(earlier) == 1 else 'are'} not in {show_path(confirmed)} and "
            "labelled as at first again. Save the table from the page with all verdicts to keep them.\n"
        )


def _reviewed_before(manifest: Path) -> set[str]:
    """Return the photographs that an earlier manifest has as reviewed; those left out of it are not known."""
    if not manifest.is_file():
        return set()
    return {cells["path"] for _, cells, _ in read_rows(manifest, COLUMNS, (REVIEW,)) if cells.get(REVIEW)}


def _manifest_rows(folder: SweepFolder) -> list[dict[str, str]]:
    """Return the photographs of an experiment once, with their fold; the sealed ones are test and have none.

    Without sealed ones, the validation split is that of the first fold, and its test split is train.
    """
    numbers = sorted({run.fold for run in read_plan(folder).runs if run.fold is not None})
    folds = {
        row["path"]: str(number)
        for number in numbers
        for row in _rows_of(folder.manifest(number))
        if row["split"] == "test"
    }
    if folder.final.is_file():
        return [{**row, "fold": folds.get(row["path"], "")} for row in _rows_of(folder.final)]
    splits = {"test": "train"}
    return [
        {**row, "fold": folds[row["path"]], "split": splits.get(row["split"], row["split"])}
        for row in _rows_of(folder.manifest(numbers[0]))
    ]


def _rows_of(manifest: Path) -> list[dict[str, str]]:
    return [
        {key: without_apostrophe(cell) if key in ("label", "group") else cell for key, cell in cells.items()}
        for _, cells, _ in read_rows(manifest, COLUMNS, OPTIONAL)
    ]


def _say(
    found: LabelSource, manifest: Path, reviewed: int, changed: Mapping[tuple[str, str], int], left_out: int
) -> None:
    kinds = ", ".join(f"{n} from {show_path(old)} to {show_path(new)}" for (old, new), n in sorted(changed.items()))
    total = sum(changed.values())
    keys = {"options": {"data.root": str(found.root), "data.manifest": str(manifest)}, "folds": "manifest"}
    lines = [
        f"{counted(reviewed + left_out, 'photograph')} reviewed: {counted(reviewed - total, 'label')} confirmed, "
        f"{total} changed{f' ({kinds})' if kinds else ''}, {left_out} left out as not a leaf.",
        f"Wrote {show_path(manifest)}: the other photographs of the experiment, in the same folds."
        if left_out
        else f"Wrote {show_path(manifest)}: the photographs of the experiment, in the same folds.",
        FLATTERS,
        "Train with them in a new experiment, a copy of the file with these keys, and with another --output:",
        *(f"  {line}" for line in dump_yaml(keys).splitlines()),
    ]
    say("".join(f"{line}\n" for line in lines))
