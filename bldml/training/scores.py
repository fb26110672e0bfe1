"""Metrics that are followed during training: of all logits of an epoch at once."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torchmetrics import CatMetric
from torchmetrics.functional import classification as F

# Of positive-class probabilities, at 0.5 where a threshold is needed.
SCORES: dict[str, Callable[..., Tensor]] = {
    "accuracy": F.binary_accuracy,
    "precision": F.binary_precision,
    "recall": F.binary_recall,
    "specificity": F.binary_specificity,
    "f1": F.binary_f1_score,
    "auroc": F.binary_auroc,
    "average_precision": F.binary_average_precision,
}


class Epoch(NamedTuple):
    """What an epoch of a stage came to.

    Attributes:
        values: Each metric by its logged name.
        logits: float32 (n,), of all ranks.
        labels: int64 (n,).
    """

    values: dict[str, Tensor]
    logits: Tensor
    labels: Tensor


class EpochScores(nn.Module):
    """Keeps the logits of an epoch; its metrics are computed at its end, so that no step waits for a number.

    Args:
        stage: train, val or test; begins the names of the metrics.
    """

    def __init__(self, stage: str) -> None:
        super().__init__()
        self.stage = stage
        # By default torchmetrics drops nan, and a diverged model would look sound.
        self.logits, self.labels = CatMetric("disable"), CatMetric("disable")

    def keep(self, logits: Tensor, labels: Tensor) -> None:
        """Add a batch: logits (n,), labels (n,) with 1 for positive."""
        self.logits.update(logits.detach())
        self.labels.update(labels)

    def finish(self, pos_weight: Tensor) -> Epoch:
        """Compute all metrics over all ranks, and begin anew.

        Args:
            pos_weight: The loss's weight of positive photographs.
        """
        logits, labels = self.logits.compute(), self.labels.compute().long()
        self.logits.reset()
        self.labels.reset()
        loss = weighted_loss(logits, labels, pos_weight)
        if bool(loss.isfinite()):
            # Probabilities, not logits: torchmetrics would apply a sigmoid or not by what it sees.
            probabilities = logits.sigmoid()
            values = {name: score(probabilities, labels) for name, score in SCORES.items()}
        else:
            # Of nan torchmetrics makes numbers, even an AUROC of 1: a diverged model would become the best.
            values = dict.fromkeys(SCORES, torch.full_like(loss, math.nan))
        values["balanced_accuracy"] = (values["recall"] + values["specificity"]) / 2
        values["loss"] = loss
        return Epoch({f"{self.stage}_{name}": value for name, value in values.items()}, logits, labels)


def weighted_loss(logits: Tensor, labels: Tensor, pos_weight: Tensor) -> Tensor:
    """Mean binary cross-entropy of logits (n,), positive photographs weighted by `pos_weight` ()."""
    return binary_cross_entropy_with_logits(logits, labels.float(), pos_weight=pos_weight)
