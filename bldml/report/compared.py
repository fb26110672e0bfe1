"""Runs to be compared: read their predictions, and make sure that they are of the same photographs."""

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray

from bldml.errors import RunError
from bldml.io.text import plain
from bldml.run.costs import Costs, read_costs
from bldml.run.folder import RunFolder
from bldml.run.photographs import read_photograph_table
from bldml.run.predictions import Prediction, read_predictions

LISTED = 20  # differing photographs in a message; a terminal shows no more


@dataclass(frozen=True)
class ComparedRun:
    """One run and what it says of the photographs; arrays of all compared runs have the same order.

    Args:
        name: what it is called in the comparison; unique there.
        path: its folder.
        backbone: the architecture, empty where the run does not say.
        costs: parameters, file size, speed, training time, as far as recorded.
        classes: the positive and the negative class.
        rows: the predictions, sorted by path.
        contents: SHA-256 of each photograph by its path, as far as the run says.
    """

    name: str
    path: Path
    backbone: str
    costs: Costs
    classes: tuple[str, str]
    rows: tuple[Prediction, ...]
    contents: Mapping[str, str] = field(default_factory=dict)

    @property
    def labels(self) -> NDArray[np.int64]:
        """1 for a photograph of the positive class, shape (n,)."""
        return np.array([row.true_class == self.classes[0] for row in self.rows], dtype=np.int64)

    @property
    def called(self) -> NDArray[np.int64]:
        """1 for a photograph that was called positive at the run's own operating point, shape (n,)."""
        return np.array([row.predicted_class == self.classes[0] for row in self.rows], dtype=np.int64)

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """Calibrated probability of the positive class, shape (n,)."""
        return np.array([row.probability for row in self.rows], dtype=np.float64)

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether each photograph was called by its own class, shape (n,)."""
        return np.asarray(self.labels == self.called, dtype=np.bool_)

    @property
    def groups(self) -> list[str]:
        """The group of each photograph, empty where unknown."""
        return [row.group for row in self.rows]


def read_compared(paths: Sequence[Path], evaluation: str) -> list[ComparedRun]:
    """Read two or more runs and check that they were evaluated on the same photographs.

    Raises:
        RunError: fewer than two different runs, one without this evaluation, a damaged table, or tables of different
            photographs; the message lists the differing ones.
    """
    if len(paths) < 2:
        found = plain(str(paths[0])) if paths else "none"
        raise RunError(f"A comparison needs two runs or more, found {found}. Give run folders, lightning_logs/<run>.")
    same = [path for path, count in Counter(path.resolve() for path in paths).items() if count > 1]
    if same:
        raise RunError(f"The run {plain(str(same[0]))} is given more than once. Name each run once.")
    runs = [_read(path, name, evaluation) for path, name in zip(paths, _names(paths), strict=True)]
    runs[1:] = [_renamed(run, runs[0]) for run in runs[1:]]
    for run in runs[1:]:
        _check_same(runs[0], run, evaluation)
    return runs


def _renamed(run: ComparedRun, like: ComparedRun) -> ComparedRun:
    """A run whose photographs bear the paths that they have in another; as it is where they cannot be told by content.

    Photographs that lie elsewhere or have been renamed are the same photographs.
    """
    ours, theirs = ({path: one.contents.get(path, "") for path in (r.path for r in one.rows)} for one in (run, like))
    paths = {digest: path for path, digest in theirs.items()}
    contents = set(ours.values())
    if ours.keys() == theirs.keys() or contents != paths.keys() or not len(contents) == len(ours) == len(theirs):
        return run
    rows = sorted((replace(row, path=paths[ours[row.path]]) for row in run.rows), key=lambda row: row.path)
    return replace(run, rows=tuple(rows), contents=like.contents)


def _contents(run: RunFolder, evaluation: str) -> dict[str, str]:
    """SHA-256 by path, from the table of photographs of the evaluation, or of the run; empty where there is none."""
    for folder in (run.evaluation(evaluation), run.path):
        with suppress(RunError):
            return {row.path: row.sha256 for row in read_photograph_table(folder / "photographs.csv") if row.sha256}
    return {}


def _names(paths: Sequence[Path]) -> list[str]:
    """The folders' own names, or their paths where a name occurs twice."""
    names = [plain(path.resolve().name) for path in paths]
    count = Counter(names)
    return [name if count[name] == 1 else plain(str(path)) for name, path in zip(names, paths, strict=True)]


def _read(path: Path, name: str, evaluation: str) -> ComparedRun:
    run = RunFolder(path)
    file = run.evaluation(evaluation) / "predictions.csv"
    if not path.is_dir():
        raise RunError(f"There is no run folder {plain(str(path))}. Give folders such as lightning_logs/<run>.")
    if not file.is_file():
        raise RunError(_without_evaluation(run, evaluation))
    rows = sorted(read_predictions(file), key=lambda row: row.path)
    _check_rows(file, rows)
    settings = _settings(run)
    return ComparedRun(
        name=name,
        path=path,
        backbone=plain(_text(settings, "model", "backbone")),
        costs=read_costs(run, evaluation, len(rows)),
        classes=_classes(file, rows, _text(settings, "data", "positive_class")),
        rows=tuple(rows),
        contents=_contents(run, evaluation),
    )


def _without_evaluation(run: RunFolder, evaluation: str) -> str:
    place = run.path / "evaluations"
    there = sorted(folder.name for folder in place.iterdir()) if place.is_dir() else []
    found = f"it has {', '.join(plain(name) for name in there)}" if there else "it has none at all"
    return (
        f"The run {plain(str(run.path))} has no evaluation {plain(evaluation)!r}; {found}. Give --evaluation NAME for "
        "one that every run has, or evaluate the run: bldml test --ckpt_path <run>/checkpoints/best.ckpt."
    )


def _check_rows(file: Path, rows: Sequence[Prediction]) -> None:
    shown = plain(str(file))
    if not rows:
        raise RunError(f"{shown} has no row. Run the evaluation again.")
    twice = [path for path, count in Counter(row.path for row in rows).items() if count > 1]
    if twice:
        raise RunError(f"{shown} has more than one row of {plain(twice[0])}. Run the evaluation again.")
    for row in rows:
        if not row.true_class or not row.predicted_class:
            which = "true_class" if not row.true_class else "predicted_class"
            raise RunError(f"{shown}: {plain(row.path)} has no {which}. Compare evaluations of labelled photographs.")


def _classes(file: Path, rows: Sequence[Prediction], positive: str) -> tuple[str, str]:
    """The positive class, as the configuration or the predictions tell it, and the other one."""
    names = {row.true_class for row in rows} | {row.predicted_class for row in rows}
    if len(names) > 2:
        found = ", ".join(plain(name) for name in sorted(names))
        raise RunError(f"{plain(str(file))} has more than two classes: {found}. Run the evaluation again.")
    best, worst = max(rows, key=lambda row: row.probability), min(rows, key=lambda row: row.probability)
    if not positive and best.predicted_class != worst.predicted_class:
        positive = best.predicted_class
    if not positive or (len(names) == 2 and positive not in names):
        raise RunError(
            f"Which class is the positive one in {plain(str(file))} cannot be told: the run's config.yaml has "
            f"positive_class {plain(positive) or 'missing'}, the table has {', '.join(sorted(map(plain, names)))}."
        )
    called = [row.probability for row in rows if row.predicted_class == positive]
    others = [row for row in rows if row.predicted_class != positive]
    if called and others and min(called) <= max(row.probability for row in others):
        wrong = max(others, key=lambda row: row.probability)
        raise RunError(
            f"{plain(str(file))}: the predicted class of {plain(wrong.path)} is on the wrong side of the threshold for "
            f"its probability {wrong.probability}. The table was changed by hand: run the evaluation again."
        )
    return positive, next(iter(sorted(names - {positive})), "")


def _check_same(first: ComparedRun, other: ComparedRun, evaluation: str) -> None:
    """Refuse two tables that are not of the same photographs with the same classes and groups."""
    a, b = ({row.path: row for row in run.rows} for run in (first, other))
    told = [f"{plain(path)}: only in {first.name}" for path in sorted(a.keys() - b.keys())]
    told += [f"{plain(path)}: only in {other.name}" for path in sorted(b.keys() - a.keys())]
    for path in sorted(a.keys() & b.keys()):
        for what, one, two in (
            ("class", a[path].true_class, b[path].true_class),
            ("group", a[path].group, b[path].group),
            ("content", *_both(first.contents.get(path), other.contents.get(path))),
        ):
            if one != two:
                told.append(f"{plain(path)}: {what} {plain(one)!r} in {first.name}, {plain(two)!r} in {other.name}")
    if told:
        more = f"\n  and {len(told) - LISTED} more" if len(told) > LISTED else ""
        raise RunError(
            f"The runs {first.name} and {other.name} were not evaluated on the same photographs (evaluation "
            f"{evaluation!r}: {len(a)} and {len(b)}), so they cannot be compared. {len(told)} differences:\n  "
            + "\n  ".join(told[:LISTED])
            + f"{more}\nEvaluate all runs on one folder: bldml test --ckpt_path … --data.root FOLDER --name NAME."
        )
    if first.classes[0] != other.classes[0]:
        raise RunError(
            f"The positive class of {first.name} is {plain(first.classes[0])!r}, that of {other.name} "
            f"{plain(other.classes[0])!r}. Compare runs that look for the same class."
        )


def _both(one: str | None, two: str | None) -> tuple[str, str]:
    """The beginnings of two checksums; nothing where one is not known."""
    return (one[:12], two[:12]) if one and two else ("", "")


def _settings(run: RunFolder) -> object:
    """config.yaml as plain text values (`No` is a class name, not False); None where there is none to read."""
    try:
        # BaseLoader makes strings, lists and mappings and nothing else.
        return yaml.load(run.config.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return None


def _text(settings: object, *keys: str) -> str:
    for key in keys:
        settings = settings.get(key) if isinstance(settings, dict) else None
    return settings if isinstance(settings, str) and settings != "null" else ""
