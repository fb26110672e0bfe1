"""What is recorded of an evaluation: its provenance, its line in the ledger, what is reached without the leaf."""

import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from bldml.app.messages import say_warning
from bldml.app.photographs import rows_of, seen_by
from bldml.dataset.files import escape_path
from bldml.errors import RunError
from bldml.io.system import sha256_of
from bldml.metrics.assessment import EvaluationMetrics
from bldml.metrics.checked import units_of
from bldml.run.baselines import compute_baselines
from bldml.run.folder import RunFolder
from bldml.run.ledger import LedgerEntry, append_entry
from bldml.run.photographs import PhotographRow, read_photograph_table
from bldml.run.provenance import DIGEST_DIGITS, ROLES, Provenance, count_known, role_of
from bldml.run.subgroups import find_subgroups
from bldml.training.checkpoint import Checkpoint, software_versions
from bldml.training.data.datamodule import LeafDataModule
from bldml.training.data.reading import PreparedData
from bldml.training.recording import PredictionRecorder


def complete_metrics(
    recorder: PredictionRecorder, data: PreparedData, checkpoint: Checkpoint, split: str
) -> EvaluationMetrics:
    """Return the metrics with those of subgroups and what is reached without the leaf.

    The latter only if the checkpoint is in a run that records its photographs.
    """
    metrics, run = recorder.metrics, RunFolder.of_checkpoint(checkpoint.path)
    assert metrics is not None
    rows, positive = [row for row in rows_of(data) if row.split == split], checkpoint.header.positive_class
    subgroups = find_subgroups(recorder.rows, {row.path: row for row in rows}, positive)
    metrics = replace(metrics, subgroups=[one.to_plain() for one in subgroups])
    training: list[PhotographRow] = []
    if run is not None and split != "train":
        with suppress(RunError):  # a run of an older version, or one without its table
            training = [row for row in read_photograph_table(run.photographs) if row.split == "train"]
    if not training:
        return metrics
    units = units_of([row.unit for row in recorder.rows], len(rows))
    found = compute_baselines(training, rows, recorder.labels, recorder.probabilities, units, positive)
    return replace(metrics, baselines=found.to_plain(metrics.intervals["auroc"]["unit"]))


def provenance_of(datamodule: LeafDataModule, checkpoint: Checkpoint, split: str, *, external: bool) -> Provenance:
    """Return the origin of an evaluation and its role: what its photographs are to the run."""
    data = datamodule.photographs
    collection, digests, header = data.collection, data.contents_of(split).digests, checkpoint.header
    digest = data.dataset_digests.get(split, "")
    if split in ROLES and header.fingerprints.get(split) == digest:
        known: dict[str, int] | None = dict.fromkeys(ROLES, 0) | {split: len(digests)}
    else:
        known = _count_known(digests, checkpoint)
    return Provenance(
        role=role_of(split, digest, header.fingerprints, len(digests), known, own=not external),
        known=known,
        split=split,
        dataset_fingerprint=digest,
        command=tuple(sys.argv),
        checkpoint=str(checkpoint.path.absolute()),
        epoch=checkpoint.epoch,
        root=str(collection.root.absolute()),
        manifest=None if datamodule.manifest is None else str(Path(datamodule.manifest).absolute()),
        fold=datamodule.fold,
        ignored=dict(collection.ignored),
        excluded=len(data.excluded),
        versions=software_versions(),
    )


def _count_known(digests: Iterable[str], checkpoint: Checkpoint) -> dict[str, int] | None:
    """Count the photographs that belong to the run: by its table or, without one, by the digests in the checkpoint."""
    run = RunFolder.of_checkpoint(checkpoint.path)
    with suppress(RunError):  # a run of an older version, or one without its table
        if run is not None and (known := count_known(digests, read_photograph_table(run.photographs))) is not None:
            return known
    seen = seen_by(checkpoint)
    return {"seen": sum(digest[:DIGEST_DIGITS] in seen for digest in digests)} if seen else None


def columns_of(checkpoint: Checkpoint) -> dict[str, str]:
    """Return the columns that a table of predictions has where no metrics.json says the same.

    They are the class whose probability it is, the threshold from which on that class is predicted, and the first
    digits of the checkpoint's SHA-256.
    """
    header = checkpoint.header
    digest = sha256_of(checkpoint.path)[:DIGEST_DIGITS]
    return {
        "probability_of": header.positive_class, "threshold": repr(header.threshold), "checkpoint_sha256": digest,
    }  # fmt: skip


def enter_in_ledger(checkpoint: Checkpoint, name: str, split: str, digest: str, n: int) -> None:
    """Add an evaluation to the ledger of the checkpoint's run, if it lies in one."""
    run, path = RunFolder.of_checkpoint(checkpoint.path), checkpoint.path.absolute()
    if run is None:
        return
    shown = path.relative_to(run.path.absolute()) if path.is_relative_to(run.path.absolute()) else path
    now = datetime.now(UTC).isoformat(timespec="seconds")
    try:
        append_entry(run, LedgerEntry(now, name, split, digest, n, escape_path(shown)))
    except RunError as error:
        say_warning(f"This evaluation was not added to the ledger of its run. {error}")
