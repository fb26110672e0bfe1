"""What is recorded of an evaluation: its provenance, its line in the ledger, what is reached without the leaf."""

import sys
from collections.abc import Iterable
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bldml.app.explain.pictures import remove_pictures
from bldml.app.messages import format_metrics, format_predictions, say_warning, were_in_training
from bldml.app.photographs import bursts_of, rows_of, seen_by
from bldml.dataset.files import escape_path
from bldml.errors import RunError
from bldml.io.locks import SHORTLY_S, hold_output
from bldml.io.screen import say
from bldml.io.system import sha256_of
from bldml.metrics.assessment import EvaluationMetrics
from bldml.metrics.checked import units_of
from bldml.run.baselines import compute_baselines
from bldml.run.digests.record import digests_of_run, write_provenance
from bldml.run.folder import RunFolder
from bldml.run.ledger import LedgerEntry, append_entry, read_ledger
from bldml.run.photographs import PhotographRow, read_photograph_table
from bldml.run.predictions import digest_of_distances, digest_of_predictions, read_predictions, write_metrics
from bldml.run.provenance import DIGEST_DIGITS, ROLES, Provenance, count_known, role_of
from bldml.run.subgroups import find_subgroups
from bldml.training.checkpoint import Checkpoint, software_versions
from bldml.training.data.datamodule import LeafDataModule
from bldml.training.data.reading import PreparedData
from bldml.training.recording import PredictionRecorder
from bldml.training.resume.unfinished import UnfinishedEvaluation, pass_key


def hold_results(folder: Path) -> AbstractContextManager[None]:
    """Keep other processes from writing, or reading for a report, the evaluation in a folder; see `hold_output`."""
    of_run = folder.parent.name == "evaluations"  # all of a run wait for one another, whatever their names
    return hold_output(folder.parent.parent if of_run else folder, wait=SHORTLY_S, option="" if of_run else "--output")


def record_evaluation(
    recorder: PredictionRecorder,
    datamodule: LeafDataModule,
    checkpoint: Checkpoint,
    origin: Provenance,
    unfinished: UnfinishedEvaluation,
) -> None:
    """Write what `run_pass` has recorded, and print it; see `bldml.app.evaluation.run_evaluation`."""
    folder, split = recorder.folder, origin.split
    same = columns_of(checkpoint) if split == "predict" else {}
    recorder.write(bursts_of(datamodule.photographs, split, RunFolder.of_checkpoint(checkpoint.path)), same)
    if recorder.metrics is not None:
        recorder.metrics = complete_metrics(recorder, datamodule.photographs, checkpoint, split)
        write_metrics(folder, recorder.metrics)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    provenance = replace(
        origin,
        created=now,
        begun=unfinished.time,
        seconds=recorder.seconds,
        device=recorder.device,
        **digests_of(recorder, checkpoint),
    )
    write_provenance(folder, provenance)
    with suppress(RunError):  # images of a previous evaluation that remain do not match and are not shown
        remove_pictures(folder)
    if recorder.metrics is not None:
        look = unfinished.time, unfinished.is_resumed
        enter_in_ledger(checkpoint, folder.name, split, provenance.dataset_fingerprint, recorder.metrics.n, look)
        say(format_metrics(split, recorder.metrics, checkpoint.header))
    elif split == "predict":
        say(format_predictions(recorder.rows, checkpoint.header, datamodule.photographs.excluded, checkpoint.novelty))
        if text := were_in_training(provenance.known or {}, len(recorder.rows)):
            say_warning(text)
    unfinished.note(split, pass_key(datamodule.photographs, split), folder)


def digests_of(recorder: PredictionRecorder, checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the digests of `Provenance`, by which a later report sees whether these files were changed."""
    run, of_run = RunFolder.of_checkpoint(checkpoint.path), dict[str, Any]()
    if run is not None:
        with suppress(RunError):  # a damaged history or ledger, which the report names
            of_run = digests_of_run(run)
    digests = {"checkpoint": sha256_of(checkpoint.path)}
    rows = read_predictions(recorder.folder / "predictions.csv")
    digests |= {"predictions": digest_of_predictions(rows), "distances": digest_of_distances(rows)}
    return {**of_run, "sha256": digests | of_run.get("sha256", {})}


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


def enter_in_ledger(checkpoint: Checkpoint, name: str, split: str, digest: str, n: int, look: tuple[str, bool]) -> None:
    """Add an evaluation to the ledger of the checkpoint's run, if it lies in one.

    `look` says when the evaluation began, and whether it was interrupted since: one that is done again for that reason
    is in the ledger once.
    """
    run, path = RunFolder.of_checkpoint(checkpoint.path), checkpoint.path.absolute()
    if run is None:
        return
    shown = path.relative_to(run.path.absolute()) if path.is_relative_to(run.path.absolute()) else path
    begun, is_resumed = look
    entry = LedgerEntry(begun, name, split, digest, n, escape_path(shown))
    try:
        if not (is_resumed and entry in read_ledger(run)):
            append_entry(run, entry)
    except RunError as error:
        say_warning(f"This evaluation was not added to the ledger of its run. {error}")
