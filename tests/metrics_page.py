"""docs/metrics.md, made from the registry: `python -m tests.metrics_page` writes it."""

import math
from pathlib import Path

import numpy as np

from bldml.metrics.metric import Metric, Scored
from bldml.metrics.registry import METRICS

PAGE = Path(__file__).parents[1] / "docs" / "metrics.md"
HEAD = """\
# Metrics

<!-- Made by `python -m tests.metrics_page` from bldml/metrics/registry.py: change the registry, not this page. -->

TP, FP, FN and TN count true and false positive and negative predictions. A photograph is predicted positive if its
probability is at least the threshold. A metric that the photographs do not define (0/0) is empty in a file and "not
estimable" in a report.

- `metrics.json`, `metrics.csv`, report and comparison: of the calibrated probabilities, at the threshold of
  the operating point and at 0.5.
- `metrics.json` and `metrics.csv` also hold `loss_uncalibrated`, the log loss that the probabilities would have without
  temperature, so that it shows what the temperature changes.
- History of a training (`train_`, `val_`): at 0.5 and without temperature, from all logits of the epoch. Of a metric
  that an epoch does not define, the worst value of its range is logged. `loss` is the one that is minimised, weighted
  by `pos_weight`.
- `--monitor` takes `val_loss` or any metric with "yes" in the last column, as `val_<name>`. Checkpoints, early stopping
  and plateau follow its direction.

Intervals are by sampling unit: the group of a photograph (tree, site), else its burst, else the photograph itself.
The table names the method for photographs that all are units of their own. Otherwise a proportion has the profile
likelihood of a beta-binomial distribution, PPV and NPV the band from sensitivity and specificity, and the AUROC
Newcombe's method 5 with the design effect. In the worst setting of a simulation the intervals of proportions, F1, MCC,
average precision and, by group, AUROC covered the true value in 93 % of the draws or more; those of Brier score and
loss in 84 and 83 %, with 8 groups nearly all without error; those of AUROC and calibration slope in 91 %, with 17
positive among 106 single photographs (`docs/explanation/statistics.md`).

To add a metric, add a row to `bldml/metrics/registry.py` and a second implementation to `tests/oracles.py`; then
write this page again by `python -m tests.metrics_page`.

| Name | Metric | Definition | Range | Better | 95 % interval | In training |
|---|---|---|---|---|---|---|
"""


def interval_of(metric: Metric) -> str:
    """By which method the interval of single photographs is found."""
    labels = np.tile([1, 1, 1, 1, 0, 0, 0, 0], 20)
    found = metric.estimate(Scored(labels, np.tile([0.9, 0.8, 0.6, 0.3, 0.7, 0.4, 0.2, 0.1], 20)))
    return found.interval.method.split(",")[0] if found.interval else found.note


def row(metric: Metric) -> str:
    """A line of the table."""
    low, high = (f"{limit:g}".replace("inf", "∞") for limit in metric.limits)
    opening, closing = "(["[math.isfinite(metric.limits[0])], ")]"[math.isfinite(metric.limits[1])]
    better = metric.better if isinstance(metric.better, str) else f"{metric.better:g} is ideal"
    before = f" (before: {', '.join(f'`{name}`' for name in metric.aliases)})" if metric.aliases else ""
    cells = [f"`{metric.name}`{before}", metric.title, metric.definition, f"{opening}{low}, {high}{closing}", better]
    cells += [interval_of(metric), "yes" if "history" in metric.shown else "no"]
    return f"| {' | '.join(str(cell).replace('|', '/') for cell in cells)} |"


def page() -> str:
    """The whole page."""
    return HEAD + "\n".join(map(row, METRICS.values())) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
