"""Metrics during training, computed from all logits of an epoch at once."""

import math

from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torchmetrics import CatMetric

from bldml.metrics.metric import Scored
from bldml.metrics.operating_point import to_probabilities
from bldml.metrics.registry import shown_in


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

    def finish(self, pos_weight: Tensor) -> tuple[dict[str, float], Tensor, Tensor]:
        """Return all metrics by logged name, logits float32 (n,) and labels int64 (n,), over all ranks; reset.

        The metrics are the loss with this positive class weight and those of the history, at the threshold 0.5 if they
        need one. A metric that is undefined for these photographs, such as the PPV if none is predicted positive, gets
        the worst value of its range, because values must be comparable when they choose the best epoch. All are nan if
        the loss is not finite, so that a diverged model is never the best.
        """
        # For a single photograph torchmetrics returns no axis.
        logits, labels = self.logits.compute().reshape(-1), self.labels.compute().long().reshape(-1)
        self.logits.reset()
        self.labels.reset()
        loss = float(weighted_loss(logits, labels, pos_weight))
        values = {f"{self.split}_loss": loss}
        scored = Scored(labels.cpu().numpy(), to_probabilities(logits.cpu().numpy())) if math.isfinite(loss) else None
        for metric in shown_in("history"):
            value = math.nan if scored is None else metric.value(scored)
            values[f"{self.split}_{metric.name}"] = metric.worst if value is None else value
        return values, logits, labels


def weighted_loss(logits: Tensor, labels: Tensor, pos_weight: Tensor) -> Tensor:
    """Return the mean binary cross-entropy of logits (n,), with positive photographs weighted by `pos_weight` ()."""
    return binary_cross_entropy_with_logits(logits, labels.float(), pos_weight=pos_weight)
