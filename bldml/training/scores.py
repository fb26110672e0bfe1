"""Metrics that are followed during training."""

from torchmetrics import MetricCollection
from torchmetrics.classification import (
    BinaryAccuracy,
    BinaryAUROC,
    BinaryAveragePrecision,
    BinaryF1Score,
    BinaryPrecision,
    BinaryRecall,
    BinarySpecificity,
)


def binary_scores(prefix: str) -> MetricCollection:
    """Metrics of positive-class probabilities at 0.5, and the two that need no threshold."""
    return MetricCollection(
        {
            "accuracy": BinaryAccuracy(),
            "precision": BinaryPrecision(),
            "recall": BinaryRecall(),
            "specificity": BinarySpecificity(),
            "f1": BinaryF1Score(),
            "auroc": BinaryAUROC(),
            "average_precision": BinaryAveragePrecision(),
        },
        prefix=prefix,
    )
