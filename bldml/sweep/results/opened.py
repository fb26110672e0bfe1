"""The opened test set of an experiment: what the runs of the one configuration did on it."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bldml.dataset.files import show_path
from bldml.errors import RunError
from bldml.io.documents import mapping_or_nothing
from bldml.metrics.estimates import Estimate
from bldml.metrics.metric import Metric
from bldml.metrics.replicates.pooled import estimate_pooled
from bldml.run.folder import RunFolder
from bldml.run.ledger import read_ledger
from bldml.sweep.plan import Plan, SweepFolder, ensembles_elsewhere, final_runs, opened_note
from bldml.sweep.results.gathering import CollectedRun, PooledRows, pool_seeds, read_planned, seed_name


@dataclass(frozen=True)
class Look:
    """One evaluation of the sealed test set by an ensemble.

    Attributes:
        ensemble: Its run folder as it is shown: relative to the folder of the experiment, or of one elsewhere its name.
        time: When the evaluation began, ISO 8601 in UTC.
    """

    ensemble: str
    time: str


@dataclass(frozen=True)
class OpenedTest:
    """For which configuration the sealed test set was opened, and what is recorded of its runs.

    Attributes:
        note: What opened.json says; empty while the test set is sealed.
        runs: The runs that are tested, one for each seed.
        result: Their predictions; None if none is there, or they cannot be pooled.
        left_out: Sentences on seeds that are not in it.
        looks: What ensembles of the experiment have seen of the test set, oldest first.
    """

    note: Mapping[str, Any] = field(default_factory=dict)
    runs: tuple[CollectedRun, ...] = ()
    result: PooledRows | None = None
    left_out: tuple[str, ...] = ()
    looks: tuple[Look, ...] = ()

    @property
    def configuration(self) -> str | None:
        """Name of the configuration; None while the test set is sealed."""
        name = self.note.get("configuration")
        return None if name is None else str(name)

    @property
    def missing(self) -> list[CollectedRun]:
        """The runs without an evaluation of the test set that can be used."""
        return [run for run in self.runs if run.evaluation is None]

    def estimates(self, metric: Metric) -> list[tuple[str, Estimate]]:
        """Return titles and estimates: the mean of the seeds, if there are several, and each seed alone."""
        if self.result is None:
            return []
        seeds, result = self.result.seeds, self.result
        each = [(seed_name(seed), estimate_pooled(metric, result.of_seeds([seed]))) for seed in seeds]
        mean = [(f"mean of {len(seeds)} seeds", estimate_pooled(metric, result.pooled))] if len(seeds) > 1 else []
        return [*mean, *each]


def read_opened(folder: SweepFolder, plan: Plan, reasons: Mapping[str, str]) -> OpenedTest:
    """Read what is recorded of the opened test set; what cannot be used is named, with its reason if one is given."""
    note, looks = opened_note(folder, plan), tuple(looks_of_ensembles(folder))
    if not note:
        return OpenedTest(looks=looks)
    runs = tuple(
        read_planned(folder, planned, "test", reasons.get(planned.name, ""))
        for planned in final_runs(plan, note["configuration"])
    )
    result, left_out = pool_seeds([run for run in runs if run.evaluation], has_folds=False)
    return OpenedTest(note, runs, result, left_out, looks)


def looks_of_ensembles(folder: SweepFolder) -> list[Look]:
    """Return the evaluations of the sealed test set by ensembles of an experiment, oldest first.

    They are in the ledgers of the ensembles' run folders: those in the folder of the experiment, and those elsewhere
    that are still where they were made.
    """
    found: set[tuple[str, Path]] = set()
    for path in _ensembles(folder):
        run = RunFolder(path)
        with suppress(RunError, OSError):
            for entry in read_ledger(run):
                provenance = mapping_or_nothing(run.evaluation(entry.evaluation) / "provenance.json")
                # Only the run's own test split may be called test.
                if entry.evaluation == "test" or (entry.split == "test" and provenance.get("role") == "test"):
                    found.add((entry.time, path))
    here = folder.path.resolve()
    return [  # a page names no path of this machine
        Look(show_path(path.relative_to(here) if path.is_relative_to(here) else path.name), time)
        for time, path in sorted(found)
    ]


def _ensembles(folder: SweepFolder) -> set[Path]:
    """Return the run folders of ensembles, each once."""
    there: set[Path] = set()
    with suppress(OSError):
        there = {path.resolve() for path in folder.ensembles.iterdir() if path.is_dir()}
    return there | {Path(path).resolve() for path in ensembles_elsewhere(folder)}
