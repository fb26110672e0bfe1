"""The runs of an ensemble: which they are, whether they fit together, and what they say of photographs unseen."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bldml.dataset.files import show_path
from bldml.errors import RunError, UsageError
from bldml.io.text import counted, first_few
from bldml.metrics.certainty.novelty import JointNovelty, Novelty, join_novelties
from bldml.metrics.checked import units_of
from bldml.metrics.operating_point import OperatingPoint
from bldml.report.run_claims import changes_said
from bldml.run.digests.record import changed_since
from bldml.run.predictions import Prediction
from bldml.run.reader import Evaluation, RunData, read_run
from bldml.sweep.plan import Plan, PlannedRun, SweepFolder
from bldml.sweep.results.changes import OF_ENSEMBLE, is_settled, remedy
from bldml.training.backbones import row_of
from bldml.training.checkpoint import Checkpoint, read_checkpoint
from bldml.training.networks.ensemble import MOST_MEMBERS

UNSHARED = ("image_size", "decode", "class_names", "positive_class")
_AS_GIVEN = OperatingPoint(threshold=0.5, temperature=1.0)


@dataclass(frozen=True)
class Ingredient:
    """A finished run of an experiment.

    Attributes:
        planned: What the plan says of it.
        data: Its folder, read.
        checkpoint: Its best checkpoint.
        unseen: The predictions of the photographs that are its test fold; without folds, of its validation split.
    """

    planned: PlannedRun
    data: RunData
    checkpoint: Checkpoint
    unseen: Sequence[Prediction]


def read_ingredients(folder: SweepFolder, plan: Plan, name: str | None) -> list[Ingredient]:
    """Return the runs of a configuration, or of all of them if none is named, read.

    Raises:
        UsageError: An ensemble cannot have so many.
        RunError: One is not finished.
        CheckpointError: A checkpoint cannot be read.
    """
    runs = plan.runs if name is None else plan.of(name)
    if not 2 <= len(runs) <= MOST_MEMBERS:
        message = f"An ensemble has 2 to {MOST_MEMBERS} runs; {name or show_path(folder.path)} has {len(runs)}."
        raise UsageError(message, "ensemble-size-wrong", found=len(runs), expected=2)
    found, missing = list[tuple[PlannedRun, RunData, Evaluation]](), list[str]()
    for planned in runs:
        run, role = folder.run(planned.name), "validation" if planned.fold is None else "test"
        data = read_run(run) if run.best_checkpoint.is_file() else None
        unseen = data.of_role("validation" if planned.fold is None else "test") if data else None
        if data is None or unseen is None:
            missing.append(f"{planned.name} ({'no best checkpoint' if data is None else f'no {role} evaluation'})")
        elif not is_settled(run):
            missing.append(f"{planned.name} (interrupted, or still being written)")
        else:
            found.append((planned, data, unseen))
    if missing:
        shown = first_few(missing, 5, ", ", " and ")
        message = f"{len(missing)} of {counted(len(runs), 'run')} are not finished: {shown}. Run the sweep to its end."
        raise RunError(message, "ensemble-runs-unfinished", path=folder.path, found=missing)
    for one in found:
        _check_unchanged(*one)
    return [
        Ingredient(planned, data, read_checkpoint(data.run.best_checkpoint), unseen.rows)
        for planned, data, unseen in found
    ]


def _check_unchanged(planned: PlannedRun, data: RunData, unseen: Evaluation) -> None:
    """Raise a RunError if a file that an ensemble is computed from is not as the run wrote it."""
    changes = changed_since(data, [unseen], OF_ENSEMBLE)
    if said := changes_said(changes):
        message = f"{planned.name} cannot be part of an ensemble: {said[0]} {remedy(data.run, changes)}"
        raise RunError(message, "ensemble-run-changed", path=data.run.path, found=sorted(changes))


def check_same(ingredients: Sequence[Ingredient]) -> None:
    """Raise a RunError unless all networks answer the same question about the same picture."""
    first = ingredients[0]
    for one in ingredients:
        for key in UNSHARED:
            here, there = (getattr(i.checkpoint.header, key) for i in (first, one))
            if here != there:
                message = f"{first.planned.name} has {key} {here}, {one.planned.name} has {there}. The networks of an "
                message += "ensemble look at the same picture: set it for all of them in the experiment."
                raise RunError(message, "ensemble-members-differ", key=key, found=there, expected=here)
        header, row = one.checkpoint.header, row_of(one.checkpoint.header.backbone)
        if (header.mean, header.std) != (row.mean, row.std):
            message = (
                f"{one.planned.name} normalises its images by {header.mean} and {header.std}, but {header.backbone} of "
            )
            message += f"the timm that is installed by {row.mean} and {row.std}. Install the timm that trained it."
            raise RunError(message, "ensemble-normalization-differs", path=one.checkpoint.path)
        if one.data.criterion != first.data.criterion:
            message = f"{first.planned.name} and {one.planned.name} choose their thresholds by different criteria "
            message += f"({first.data.criterion}; {one.data.criterion})."
            raise RunError(message, "ensemble-criteria-differ", found=one.planned.name)


def pooled_logits(ingredients: Sequence[Ingredient]) -> tuple[list[Prediction], NDArray[np.float64]]:
    """Return each photograph once, sorted, with the mean of its calibrated logits by the runs that judged it unseen.

    Raises:
        RunError: Runs contradict each other about a photograph, or one was not judged as often as the others.
    """
    logits, rows = defaultdict[str, list[float]](list), dict[str, Prediction]()
    for one in ingredients:
        found = _AS_GIVEN.uncalibrated([row.probability for row in one.unseen])
        for row, logit in zip(one.unseen, found.tolist(), strict=True):
            logits[row.path].append(logit)
            known = rows.setdefault(row.path, row)
            if (known.true_class, known.unit) != (row.true_class, row.unit):
                message = f"{row.path} has not the same class or group in all runs. Repeat the sweep."
                raise RunError(message, "ensemble-rows-differ", path=row.path)
    often = {len(values) for values in logits.values()}
    if len(often) > 1:
        message = f"Some photographs were judged {min(often)} times, others {max(often)} times by runs that did not "
        message += "learn from them. An ensemble needs every fold of a configuration with the same seeds."
        raise RunError(message, "ensemble-folds-incomplete", found=sorted(often))
    paths = sorted(rows)
    return [rows[path] for path in paths], np.array([np.mean(logits[path]) for path in paths])


def joint_novelty(
    ingredients: Sequence[Ingredient], rows: Sequence[Prediction]
) -> tuple[JointNovelty | None, list[float | None]]:
    """Return the distances of all networks as one, and those of these photographs, on which its limit is chosen.

    Args:
        ingredients: The runs.
        rows: The photographs of `pooled_logits`, each judged by the networks that did not learn from it.

    Returns:
        None and Nones unless every run has recorded the distribution of its training photographs and these distances.
    """
    found = defaultdict[str, list[float]](list)
    for one in ingredients:
        for row in one.unseen:
            if row.distance is not None:
                found[row.path].append(row.distance)
    parts = [one.checkpoint.novelty for one in ingredients if isinstance(one.checkpoint.novelty, Novelty)]
    judged = sum(len(one.unseen) for one in ingredients)
    if len(parts) < len(ingredients) or sum(map(len, found.values())) < judged:
        return None, [None] * len(rows)
    distances = np.array([np.mean(found[row.path]) for row in rows])
    learned = {row["path"] for one in ingredients for row in one.data.splits if row["split"] == "train"}
    novelty = join_novelties(parts, distances, units_of([row.unit for row in rows], len(rows)), len(learned))
    return novelty, (distances / novelty.limit).tolist() if novelty else [None] * len(rows)
