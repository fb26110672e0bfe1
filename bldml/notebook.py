"""A run folder in a notebook: its metrics, predictions and figures; loads no torch."""

import os
from functools import cached_property
from typing import TYPE_CHECKING, Any

from bldml.errors import RunError, UsageError
from bldml.io.documents import mapping_or_nothing
from bldml.io.frames import data_frame
from bldml.io.grammar import given_path
from bldml.io.screen import complain
from bldml.report.figures import figures_of, learning_figures
from bldml.report.run_claims import changed_files
from bldml.run.evidence import evidence_of_run
from bldml.run.folder import RunFolder
from bldml.run.reader import Evaluation, RunData, read_run

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame


class Run:
    """A run folder. Files that were changed since an evaluation was written are named on stderr.

    Args:
        path: The folder.

    Raises:
        RunError: It is no run folder, or a file in it is damaged.
        UsageError: It is no path.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.folder = RunFolder(given_path(path, "The run folder"))
        self.data: RunData = read_run(self.folder)
        for text in changed_files(evidence_of_run(self.data)):
            complain(f"Warning: {self.data.name}: {text}\n")

    def __repr__(self) -> str:
        """Name the run and its evaluations."""
        return f"<bldml run {self.data.name}: evaluations {', '.join(self.evaluations) or 'none'}>"

    @cached_property
    def evaluations(self) -> list[str]:
        """Names of its evaluations, those of photographs without labels last."""
        return [one.name for one in (*self.data.evaluations, *self.data.unlabelled)]

    def metrics(self, evaluation: str = "test") -> dict[str, Any]:
        """Return the content of an evaluation's metrics.json: estimates with their 95 % intervals, and counts.

        Raises:
            RunError: There is no such evaluation, or its photographs have no labels.
        """
        found = self._labelled(evaluation)
        return mapping_or_nothing(found.folder / "metrics.json")

    def predictions(self, evaluation: str = "test") -> "DataFrame":
        """Return an evaluation's predictions, one row for each photograph, with the columns of predictions.csv.

        Raises:
            RunError: There is no such evaluation.
        """
        return data_frame([vars(row) for row in self._evaluation(evaluation).rows])

    @property
    def history(self) -> "DataFrame":
        """Training metrics, one row for each epoch, with the columns of history.csv."""
        return data_frame(list(self.data.epochs))

    def figure(self, name: str, evaluation: str = "test") -> "Figure":
        """Return a figure of the report.

        Args:
            name: roc, precision_recall, calibration, probabilities, confusion, decision_curve, predictive_values, or of
                the training learning_loss, learning_auroc.
            evaluation: Name of the evaluation; not used for the training.

        Raises:
            RunError: There is no such evaluation, or its photographs have no labels.
            UsageError: There is no such figure.
        """
        known = []
        for known_name, figure in learning_figures(self.data):
            if known_name == name:
                return figure
            known.append(known_name)
        found = self._labelled(evaluation)
        for known_name, _, figure, _ in figures_of(found, found.assess(self.data.classes), self.data.classes):
            if known_name == name:
                return figure
            known.append(known_name)
        message = f"There is no figure {name!r}. There are: {', '.join(known)}."
        raise UsageError(message, "figure-unknown", found=name, expected=known)

    def _evaluation(self, name: str) -> Evaluation:
        found = next((one for one in (*self.data.evaluations, *self.data.unlabelled) if one.name == name), None)
        if found is None:
            names = ", ".join(self.evaluations) or "none"
            message = f"The run {self.data.name} has no evaluation {name!r}. It has: {names}."
            raise RunError(message, "evaluation-unknown", found=name, expected=self.evaluations)
        return found

    def _labelled(self, name: str) -> Evaluation:
        found = self._evaluation(name)
        if found.metrics is None:
            message = f"The photographs of the evaluation {name!r} have no labels, so there is nothing to compare with."
            raise RunError(message, "evaluation-without-labels", found=name)
        return found
