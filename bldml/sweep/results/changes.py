"""The files of runs from which something is computed: of these alone it matters whether they were changed."""

from bldml.dataset.files import shell_word
from bldml.io.locks import OUTPUT_LOCK, is_taken
from bldml.run.folder import RunFolder
from bldml.sweep.states import is_finished
from bldml.training.resume.stretches import read_starts

Changes = dict[str, tuple[str, ...]]

# As `changed_since` calls them. Of predictions: what is pooled. Of a page: its figures and tables. Of an ensemble: its
# networks, operating point and distances, and what the networks have learned from.
OF_PREDICTIONS = frozenset({"predictions", "metrics", "provenance", "no digests", "config.yaml"})
OF_PAGE = OF_PREDICTIONS | {"history", "training_time", "environment", "environment.json", "splits.csv"}
OF_ENSEMBLE = frozenset(
    {
        *("checkpoint", "predictions", "distances", "provenance", "no digests"),
        *("config.yaml", "splits.csv", "photographs.csv", "environment.json"),
    }
)
_OF_EVALUATION = ("predictions", "distances", "metrics", "provenance", "no digests")


def is_settled(run: RunFolder) -> bool:
    """Return whether a run is finished, as far as that is recorded, and no process writes an evaluation of it."""
    is_begun = bool(read_starts(run)) and not is_finished(run)
    return not (is_begun or is_taken(run.lock) or is_taken(run.path / OUTPUT_LOCK))


def remedy(run: RunFolder, changes: Changes) -> str:
    """Return what to do about changes that `changed_since` found, in a sentence."""
    evaluations = {name for names in changes.values() for name in names}
    if evaluations == {"test"} and all(what in _OF_EVALUATION for what in changes):
        return f"Repeat the evaluation: python -m bldml test {shell_word(run.path)}"
    return "Restore the file from a copy, or train the run again: remove its folder, and repeat the sweep."
