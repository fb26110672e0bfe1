"""Which photographs of a survey are of one unit, such as a tree; and the verdict on each unit."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from bldml.dataset.files import show_path
from bldml.dataset.splitting.groups import table_groups
from bldml.errors import DatasetError, RunError, UsageError
from bldml.io.text import Cell, counted, csv_text, first_few
from bldml.metrics.certainty.unit_verdicts import Outcome, UnitAssessment, choose_unit_rule
from bldml.run.folder import RunFolder
from bldml.run.predictions import read_metrics, read_predictions
from bldml.survey.positions import Position
from bldml.survey.rows import SurveyRow
from bldml.training.checkpoint import Checkpoint

EARTH_RADIUS = 6_371_008.8  # metres, mean radius (IUGG)
_CHUNK = 1024
COLUMNS = (
    "unit",
    "photographs",
    "positive",
    "negative",
    "uncertain",
    "unlike",
    "unreadable",
    "score",
    "verdict",
    "take_more",
)


@dataclass(frozen=True)
class Grouping:
    """How photographs are put into units.

    Args:
        kind: `folder`, `gps`, or `table`.
        metres: Distance of positions within which two photographs are of one unit; of `gps` only.
        table: CSV with the columns path and group; of `table` only.
    """

    kind: str
    metres: float = 0.0
    table: Path = Path()

    @classmethod
    def parse(cls, text: str) -> "Grouping":
        """Return the grouping of an option.

        Raises:
            UsageError: It has another form.

        >>> Grouping.parse("gps:15m").metres
        15.0
        """
        if text == "folder":
            return cls("folder")
        if (found := re.fullmatch(r"gps:(\d+(?:\.\d+)?)\s*m?", text)) and 0 < float(found[1]) <= 100_000:
            return cls("gps", metres=float(found[1]))
        if text.lower().endswith(".csv"):
            return cls("table", table=Path(text).expanduser())
        message = f"--group must be folder, a distance such as gps:15m, or a table such as trees.csv, not {text}."
        raise UsageError(message, "survey-group-unknown", found=text)

    def units(
        self, names: Sequence[str], positions: Sequence[Position | None], notes: list[str] | None = None
    ) -> list[str]:
        """Return the unit of each photograph; empty for none. What a table has otherwise than usual is added to notes.

        Raises:
            DatasetError: The table has errors, or there is nothing to make units of.
        """
        if self.kind == "table":
            units, unknown = table_groups(self.table, names, notes)
            if unknown:
                message = f"{show_path(self.table)} names files that are not among the photographs: "
                message += f"{first_few(unknown, 5, ', ', ' and ')}. Correct the table, or the folder."
                raise DatasetError(message, "survey-group-files-unknown", path=self.table, found=unknown)
            return units
        if self.kind == "folder":
            units = [str(parent) if (parent := PurePosixPath(name).parent).name else "" for name in names]
            if not any(units):
                message = "--group folder needs photographs in subfolders, such as tree_1/; there are none."
                raise DatasetError(message, "survey-group-folders-none")
            return units
        if not any(positions):
            message = "--group gps needs photographs with a position; none has one that can be used. "
            message += "All are judged, and that is kept: the same command without --group writes the results."
            raise DatasetError(message, "survey-group-positions-none")
        return units_by_distance(positions, self.metres)


def units_by_distance(positions: Sequence[Position | None], metres: float) -> list[str]:
    """Return the unit of each photograph: photographs within this distance are of one unit, and so are chains of them.

    Distances are those of a great circle, so they are right at a pole and across the date line. Units are numbered in
    the order of their first photograph, which tells nothing about where they are.

    >>> units_by_distance([Position(8, 50), None, Position(8.0001, 50), Position(9, 50)], 15)
    ['gps 1', '', 'gps 1', 'gps 2']
    """
    known = [index for index, position in enumerate(positions) if position is not None]
    degrees = np.array([position[::-1] for position in positions if position is not None], dtype=np.float64)
    # Photographs at the very same position, as of one fix, are one point: the others need no neighbours.
    points, point_of = np.unique(np.radians(degrees).reshape(-1, 2), axis=0, return_inverse=True)
    component = _components(points, metres / EARTH_RADIUS)[point_of.ravel()]
    units, numbers = [""] * len(positions), dict[int, int]()
    for index, found in zip(known, component.tolist(), strict=True):
        units[index] = f"gps {numbers.setdefault(found, len(numbers) + 1)}"
    return units


def _components(points: NDArray[np.float64], radius: float) -> NDArray[np.int64]:
    """Return the connected component, (n,), of each point (latitude, longitude) in radians, (n, 2)."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components
    from sklearn.neighbors import BallTree

    count = len(points)
    tree, component = BallTree(points, metric="haversine"), np.arange(count)
    for start in range(0, count, _CHUNK):
        found = tree.query_radius(points[start : start + _CHUNK], radius)
        rows = np.repeat(np.arange(start, start + len(found)), [len(near) for near in found])
        columns = np.concatenate(found)
        edges = component[rows], component[columns]
        graph = coo_array((np.ones(rows.size, dtype=bool), edges), shape=(count, count))
        component = connected_components(graph, directed=False)[1][component].astype(np.int64)
    return component


def rule_of(checkpoint: Checkpoint) -> UnitAssessment | str:
    """Return the rule for units of the checkpoint's run, or the reason why there is none.

    It is chosen on the groups of the validation photographs, as the run recorded them when it ended.
    """
    run = RunFolder.of_checkpoint(checkpoint.path)
    if run is None:
        return "the checkpoint does not lie in a run folder, whose validation photographs it would be chosen on"
    try:
        rows, metrics = read_predictions(run.evaluation("val") / "predictions.csv"), read_metrics(run.evaluation("val"))
    except RunError:
        return "the run has no evaluation of its validation photographs that can be read"
    header = checkpoint.header
    if (metrics.threshold, metrics.temperature) != (header.threshold, header.temperature):
        return "the evaluation of the validation photographs is of another checkpoint of the run"
    grouped = [row for row in rows if row.group and row.is_familiar is not False]
    if not grouped:
        return "the validation photographs of the run have no groups"
    numbers: dict[str, int] = {}
    return choose_unit_rule(
        [row.true_class == header.positive_class for row in grouped],
        [row.probability for row in grouped],
        [numbers.setdefault(row.group, len(numbers)) for row in grouped],
        header.threshold,
    )


def units_csv(rows: Sequence[SurveyRow], rule: UnitAssessment | str, positive_class: str) -> tuple[str, Counter[str]]:
    """Return the table of units, and how many have each verdict; without a rule there are counts only."""
    members: dict[str, list[SurveyRow]] = {}
    for row in rows:
        if row.unit:
            members.setdefault(row.unit, []).append(row)
    verdicts: Counter[str] = Counter()
    lines: list[list[Cell]] = []
    for unit, own in members.items():
        probabilities = [row.probability for row in own if row.probability is not None]
        positive = sum(row.label == positive_class for row in own)
        cells: list[Cell] = [unit, len(own), positive, len(probabilities) - positive]
        for recorded, count in (
            (any(row.band for row in own), sum(row.band == "uncertain" for row in own)),
            (any(row.familiar is not None for row in own), sum(row.familiar is False for row in own)),
        ):
            cells.append(count if recorded else None)
        cells.append(len(own) - len(probabilities))
        # Of a photograph that is like none that the classifier learned from, its probability says nothing.
        probabilities = [row.probability for row in own if row.probability is not None and row.familiar is not False]
        if isinstance(rule, str) or not probabilities:
            cells += [None, "", None]
        else:
            verdict = rule.rule.judge(probabilities)
            verdicts[verdict.outcome] += 1
            cells += [round(verdict.score, 4), verdict.outcome, verdict.more or None]
        lines.append(cells)
    return csv_text(COLUMNS, lines), verdicts


def describe_rule(rule: UnitAssessment | str, verdicts: Counter[str], units: int) -> list[str]:
    """Return what is said of the verdicts on units, a sentence a line."""
    if isinstance(rule, str):
        return [f"{counted(units, 'unit')}: counts only, no verdicts, because {rule}."]
    shown = ", ".join(f"{verdicts[name]} {name}" for name in get_args(Outcome))
    negative, positive = rule.units
    lines = [f"{counted(units, 'unit')}: {shown}."]
    rates = []
    for name, estimate in (("sensitivity", rule.sensitivity), ("specificity", rule.specificity)):
        if estimate.value is not None and estimate.interval is not None:
            limits = f"[{estimate.interval.low:.3f}, {estimate.interval.high:.3f}]"
            rates.append(f"{name} {estimate.value:.3f} {limits}")
        else:
            rates.append(f"{name} not estimable")
    lines.append(
        f"On {positive} positive and {negative} negative groups of the validation photographs, each left out in turn: "
        f"{' and '.join(rates)} among those decided; {sum(rule.undecided)} were not decided."
    )
    least, median, most = rule.sizes
    sizes = f"{least} to {most} photographs (median {median})" if least != most else f"{least} photographs each"
    lines.append(f"Those groups have {sizes}. The numbers hold for units of that kind.")
    return lines
