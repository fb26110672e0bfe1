"""After a fit: bands of certainty and the distribution of the training photographs, added to the best checkpoint."""

from collections.abc import Mapping
from dataclasses import asdict

import torch

from bldml.app.photographs import bursts_of
from bldml.metrics.certainty.conformal import choose_bands
from bldml.metrics.certainty.novelty import fit_novelty
from bldml.metrics.checked import units_of
from bldml.run.folder import RunFolder
from bldml.training.checkpoint import KEY, NOVELTY, Checkpoint, read_checkpoint
from bldml.training.data.reading import PreparedData
from bldml.training.networks.distribution import plain_novelty
from bldml.training.recording import PredictionRecorder
from bldml.training.resume.state import AtomicCheckpointIO


def with_certainty(
    checkpoint: Checkpoint,
    recorders: Mapping[str, PredictionRecorder],
    data: PreparedData,
    run: RunFolder,
    band_error: float | None,
) -> Checkpoint:
    """Return the checkpoint with bands and distribution, which are written to its file unless it has them.

    A checkpoint that a resumed fit writes again has none, so that they always belong to its weights. `recorders` have
    evaluated the training and the validation split; one whose evaluation was written before an interruption is missing,
    and then the checkpoint is as it was made.

    Raises:
        RunError, CheckpointError: The evaluation is not complete, or the file cannot be written; it is unchanged.
    """
    if set(recorders) == {"train", "val"} and checkpoint.header.bands is None and checkpoint.novelty is None:
        train, val = recorders["train"], recorders["val"]
        train.judge(bursts_of(data, "train", run))
        rows = val.judge(bursts_of(data, "val", run))
        units = units_of([row.unit for row in rows], len(rows))
        novelty = fit_novelty(train.features, val.features, units)
        content = torch.load(checkpoint.path, map_location="cpu", weights_only=True)
        if band_error is not None:
            threshold = checkpoint.header.threshold
            content[KEY]["bands"] = asdict(choose_bands(val.labels, val.probabilities, units, threshold, band_error))
        if novelty is not None:
            content[NOVELTY] = plain_novelty(novelty)
        AtomicCheckpointIO().save_checkpoint(content, checkpoint.path)
        checkpoint = read_checkpoint(checkpoint.path)
    for recorder in recorders.values():
        recorder.complete(checkpoint.header, checkpoint.novelty)
    return checkpoint
