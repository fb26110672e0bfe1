"""Which files of a run an evaluation, and the start of the run, record the SHA-256 of, and which were changed since."""

import json
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import asdict, astuple
from pathlib import Path
from typing import Any

from bldml.errors import RunError
from bldml.io.atomic import write_atomically
from bldml.io.documents import mapping_or_nothing
from bldml.io.system import sha256_of
from bldml.run.digests.content import (
    digest_of,
    digest_of_document,
    digest_of_epochs,
    digest_of_file,
    digest_of_text,
    digests_in,
    is_sealed,
    with_digests,
)
from bldml.run.files import read_epochs
from bldml.run.folder import RunFolder
from bldml.run.gallery import has_changed_pictures
from bldml.run.ledger import read_ledger
from bldml.run.predictions import digest_of_distances, digest_of_predictions
from bldml.run.provenance import Provenance
from bldml.run.reader import Evaluation, RunData

# The whole files by what their digests are called: of an evaluation in provenance.json, and those that a run begins
# with in environment.json.
OF_EVALUATION = {
    "metrics": "metrics.json", "table": "metrics.csv", "photographs": "photographs.csv", "excluded": "excluded.csv",
}  # fmt: skip
OF_RUN = {
    "config": "config.yaml", "splits": "splits.csv", "photographs": "photographs.csv", "excluded": "excluded.csv",
    "leaks": "leaks.csv",
}  # fmt: skip


def write_provenance(folder: Path, origin: Provenance) -> None:
    """Write provenance.json of an evaluation, with the digests of its other files and of its own content.

    Raises:
        RunError: The file cannot be written.
    """
    files = {key: folder / name for key, name in OF_EVALUATION.items()}
    digests = {key: digest_of_file(path) for key, path in files.items() if path.is_file()}
    text = json.dumps(with_digests("provenance", asdict(origin), **digests), indent=2) + "\n"
    write_atomically(folder / "provenance.json", text)


def environment_text(document: Mapping[str, Any], files: Mapping[str, str]) -> str:
    """Return environment.json of a new run, with the digests of its first files, whose text is given by name."""
    digests = {key: digest_of_text(name, files[name]) for key, name in OF_RUN.items() if name in files}
    return json.dumps(with_digests("environment", document, **digests), indent=2) + "\n"


def environment_again(document: Mapping[str, Any], **added: object) -> str:
    """Return environment.json with other entries; one that was changed by others, or has no digest, keeps that."""
    whole = {**document, **added}
    content = with_digests("environment", whole) if is_sealed("environment", document) else whole
    return json.dumps(content, indent=2) + "\n"


def digests_of_run(run: RunFolder) -> dict[str, Any]:
    """Return the digests of what a run has recorded so far, and how much that was, as fields of `Provenance`.

    Raises:
        RunError: The history or the ledger is damaged.
    """
    epochs, environment = read_epochs(run.history), mapping_or_nothing(run.environment)
    counts = {"epochs": len(epochs), "starts": _starts(environment), "looks": len(read_ledger(run))}
    return {"sha256": _of_run(run, **counts), **counts}


def _of_run(run: RunFolder, epochs: int | None, starts: int | None, looks: int | None) -> dict[str, str]:
    """Return the digests of the first epochs, starts and lines of the ledger of a run; None for none of them."""
    found, environment, rows = {}, mapping_or_nothing(run.environment), read_epochs(run.history)
    if epochs:
        found["history"] = digest_of_epochs(rows[:epochs])
    if starts is not None:
        others = {key: one for key, one in digests_in(environment).items() if key != "environment"}
        then = {**environment, "continued": _notes(environment)[:starts], "sha256": others}
        found["environment"] = digest_of_document(then)
        if (starts, epochs) == (_starts(environment), len(rows)):  # a start and an epoch add to the time
            found["training_time"] = digest_of_file(run.training_time)
    if looks is not None:
        with suppress(RunError):  # a damaged one, which the report names
            found["ledger"] = digest_of(map(astuple, read_ledger(run)[:looks]))
    return found


def _notes(environment: Mapping[str, Any]) -> list[Any]:
    notes = environment.get("continued")
    return notes if isinstance(notes, list) else []


def _starts(environment: Mapping[str, Any]) -> int:
    return len(_notes(environment))


def changed_of_start(run: RunFolder) -> list[str]:
    """Return the names of the files that are not as they were when a run was started; none if that is not recorded."""
    environment = mapping_or_nothing(run.environment)
    if is_sealed("environment", environment) is False:
        return [run.environment.name]  # its digests prove nothing
    digests = digests_in(environment)
    return [name for key, name in OF_RUN.items() if key in digests and digest_of_file(run.path / name) != digests[key]]


def changed_since(
    data: RunData, of: Collection[Evaluation] | None = None, files: Collection[str] | None = None
) -> dict[str, tuple[str, ...]]:
    """Return which files of a run are not what they were, with the names of the evaluations that record their digests.

    A file is called as its digest is in provenance.json; `no digests` is a provenance.json without any, where there
    must be some. Files whose digest the start of the run records have their own names, and no evaluation.

    Args:
        data: The run.
        of: The evaluations that are looked at; None for all.
        files: The files that are looked at, as they are called here; None for all. Without `checkpoint` and `ledger`
            less is read.
    """

    def is_looked_at(what: str) -> bool:
        return files is None or what in files

    found: dict[str, list[str]] = {name: [] for name in changed_of_start(data.run)}
    has_best = is_looked_at("checkpoint") and data.run.best_checkpoint.is_file()
    best = sha256_of(data.run.best_checkpoint) if has_best else ""
    for one in (*data.evaluations, *data.unlabelled) if of is None else of:
        for what in _changed(data, one, best, with_ledger=is_looked_at("ledger")):
            found.setdefault(what, []).append(one.name)
    if data.run.environment.name in found:
        found.pop("environment", None)  # the same once more
    return {what: tuple(names) for what, names in found.items() if is_looked_at(what)}


def _changed(data: RunData, one: Evaluation, best: str, *, with_ledger: bool) -> list[str]:
    origin, document = one.provenance, mapping_or_nothing(one.folder / "provenance.json")
    whole = is_sealed("provenance", document)
    if whole is False:
        return ["provenance"]  # its other digests prove nothing
    if whole is None and is_sealed("environment", data.environment) is not None:
        return ["no digests"]  # although the version that began the run records them
    now = {key: digest_of_file(one.folder / name) for key, name in OF_EVALUATION.items()}
    now |= {
        "predictions": digest_of_predictions(one.rows),
        "distances": digest_of_distances(one.rows),
        **_of_run(data.run, origin.epochs, origin.starts, origin.looks),
    }
    # The run may have been moved or renamed since.
    if best and Path(origin.checkpoint).parts[-2:] == data.run.best_checkpoint.parts[-2:]:
        now["checkpoint"] = best
    found = [what for what, digest in now.items() if origin.sha256.get(what, digest) != digest]
    if has_changed_pictures(one.folder):
        found.append("pictures")
    is_counted = with_ledger and one.metrics is not None and origin.begun and origin.looks is not None
    if is_counted and "ledger" not in found and not _is_in_ledger(data, one):
        found.append("ledger")
    return found


def _is_in_ledger(data: RunData, one: Evaluation) -> bool:
    origin = one.provenance
    line = origin.begun, origin.split, origin.dataset_fingerprint, len(one.rows)
    entries = data.log_folder[0].entries or ()
    return any(line == (entry.time, entry.split, entry.dataset_fingerprint, entry.n) for entry in entries)
