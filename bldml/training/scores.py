"""Metrics during training, computed from all logits of an epoch at once."""

import math
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torchmetrics import CatMetric

from bldml.metrics.metric import Scored
from bldml.metrics.operating_point import to_probabilities
from bldml.metrics.registry import shown_in


class Epoch(NamedTuple):
    """Results of an epoch on one split, of all ranks."""

    values: dict[str, float]  # by logged name
    logits: Tensor  # float32 (n,)
    labels: Tensor  # int64 (n,)


class EpochScores(nn.Module):
    """Collect the logits of an epoch on a split; metrics are computed at its end: no step waits for a number."""

    def __init__(self, split: str) -> None:
        super().__init__()
        self.split = split
        # By default torchmetrics drops nan, which would hide a diverged model.
        self.logits, self.labels = CatMetric("disable"), CatMetric("disable")

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """Add a batch: logits (n,), labels (n,) with 1 for positive."""
        self.logits.update(logits.detach())
        self.labels.update(labels)

    def finish(self, pos_weight: Tensor) -> Epoch:
        """Compute all metrics over all ranks, the loss with this positive class weight, and reset."""
        # For a single photograph torchmetrics returns no axis.
        logits, labels = self.logits.compute().reshape(-1), self.labels.compute().long().reshape(-1)
        self.logits.reset()
        self.labels.reset()
        loss = weighted_loss(logits, labels, pos_weight)
        values = {"loss": float(loss)} | metrics_of(logits, labels, diverged=not math.isfinite(loss))
        return Epoch({f"{self.split}_{name}": value for name, value in values.items()}, logits, labels)


def metrics_of(logits: Tensor, labels: Tensor, *, diverged: bool) -> dict[str, float]:
    """Return every metric of the history, at the threshold 0.5 if it needs one.

    A metric that is undefined for these photographs, such as the PPV if none is predicted positive, gets the worst
    value of its range, because values must be comparable when they choose the best epoch.

    Args:
        logits: (n,).
        labels: (n,).
        diverged: Whether the loss is not finite. Then all metrics are nan, so that a diverged model is never the best.
    """
    metrics = shown_in("history")
    if diverged:
        return dict.fromkeys((metric.name for metric in metrics), math.nan)
    scored = Scored(labels.cpu().numpy(), to_probabilities(logits.cpu().numpy()))
    values = ((metric, metric.value(scored)) for metric in metrics)
    return {metric.name: metric.worst if value is None else value for metric, value in values}


def weighted_loss(logits: Tensor, labels: Tensor, pos_weight: Tensor) -> Tensor:
    """Return the mean binary cross-entropy of logits (n,), with positive photographs weighted by `pos_weight` ()."""
    return binary_cross_entropy_with_logits(logits, labels.float(), pos_weight=pos_weight)
