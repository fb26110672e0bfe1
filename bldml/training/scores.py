"""Metrics that are followed during training: of all logits of an epoch at once."""

import math
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torchmetrics import CatMetric

from bldml.metrics.metric import Scored
from bldml.metrics.operating_point import to_probabilities
from bldml.metrics.registry import shown_in


class Epoch(NamedTuple):
    """What an epoch of a stage came to.

    Attributes:
        values: Each metric by its logged name.
        logits: float32 (n,), of all ranks.
        labels: int64 (n,).
    """

    values: dict[str, float]
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
        # Of a single photograph torchmetrics gives no axis.
        logits, labels = self.logits.compute().reshape(-1), self.labels.compute().long().reshape(-1)
        self.logits.reset()
        self.labels.reset()
        loss = weighted_loss(logits, labels, pos_weight)
        values = {"loss": float(loss)} | metrics_of(logits, labels, diverged=not math.isfinite(loss))
        return Epoch({f"{self.stage}_{name}": value for name, value in values.items()}, logits, labels)


def metrics_of(logits: Tensor, labels: Tensor, *, diverged: bool) -> dict[str, float]:
    """Every metric that a training follows, at 0.5 where it needs a threshold.

    One that these photographs do not define, such as the PPV where none is predicted positive, has the worst value of
    its range: it has to be comparable where it chooses the best epoch.

    Args:
        logits: (n,).
        labels: 1 for positive, (n,).
        diverged: The loss is no finite number. Then all are nan, so that a diverged model never becomes the best.
    """
    followed = shown_in("history")
    if diverged:
        return dict.fromkeys((metric.name for metric in followed), math.nan)
    scored = Scored(labels.cpu().numpy(), to_probabilities(logits.cpu().numpy()))
    values = ((metric, metric.value(scored)) for metric in followed)
    return {metric.name: metric.worst if value is None else value for metric, value in values}


def weighted_loss(logits: Tensor, labels: Tensor, pos_weight: Tensor) -> Tensor:
    """Mean binary cross-entropy of logits (n,), positive photographs weighted by `pos_weight` ()."""
    return binary_cross_entropy_with_logits(logits, labels.float(), pos_weight=pos_weight)
