"""The cells of a comparison's tables, as the page and the LaTeX file show them."""

from dataclasses import dataclass

from bldml.io.text import number, p_value, plain
from bldml.metrics.estimates import Estimate
from bldml.report.compare import ALPHA, Comparison, Difference, Standing
from bldml.run.costs import Costs, duration

MEASURES = ("accuracy", "sensitivity", "specificity", "auroc")
RUN_COLUMNS = (
    "Run",
    "Accuracy",
    "Sensitivity",
    "Specificity",
    "AUROC",
    "Letters by accuracy",
    "Letters by AUROC",
)
COST_COLUMNS = ("Parameters", "Checkpoint", "Photographs/s", "Training time")
DIFFERENCE_COLUMNS = (
    "Pair",
    "Accuracy",
    "b / c",
    "McNemar exact p",
    "mid-p",
    "Holm p, accuracy",
    "AUROC",
    "p, AUROC",
    "Holm p, AUROC",
)


@dataclass(frozen=True)
class ShownDifference:
    """A cell of the page: its value, what stands smaller below it, and whether it tells two runs apart."""

    value: str
    detail: str = ""
    apart: bool = False


def all_estimates(comparison: Comparison) -> list[Estimate]:
    """Every estimate that a comparison shows."""
    found = [estimate(standing, measure) for standing in comparison.standings for measure in MEASURES]
    return [*found, *(of_pair for d in comparison.differences for of_pair in (d.accuracy, d.auroc))]


def estimate(standing: Standing, measure: str) -> Estimate:
    """One of MEASURES of a run."""
    found = getattr(standing, measure)
    assert isinstance(found, Estimate)
    return found


def _shown(estimate: Estimate, *, sign: bool = False, part: str = "") -> ShownDifference:
    if estimate.value is None:
        return ShownDifference("not estimable", estimate.note)
    parts = [part] if part else []
    if estimate.interval is not None:
        low, high = (number(limit, sign=sign) for limit in (estimate.interval.low, estimate.interval.high))
        parts.append(f"[{low}, {high}]")
    return ShownDifference(number(estimate.value, sign=sign), "; ".join(parts))


def run_cells(standing: Standing) -> list[ShownDifference]:
    """A run in the order of RUN_COLUMNS, less its name."""
    tp, fp, fn, tn = (standing.counts[name] for name in ("tp", "fp", "fn", "tn"))
    return [
        _shown(standing.accuracy, part=f"{tp + tn}/{tp + fp + fn + tn}"),
        _shown(standing.sensitivity, part=f"{tp}/{tp + fn}"),
        _shown(standing.specificity, part=f"{tn}/{tn + fp}"),
        _shown(standing.auroc),
        ShownDifference(standing.accuracy_letters or "–"),
        ShownDifference(standing.auroc_letters or "–"),
    ]


def cost_cells(costs: Costs) -> list[ShownDifference]:
    """What a run costs, in the order of COST_COLUMNS; a dash for what was not recorded."""
    parameters, size, speed, seconds = (
        costs.parameters,
        costs.checkpoint_bytes,
        costs.images_per_second,
        costs.training_seconds,
    )
    return [
        ShownDifference("–" if parameters is None else f"{parameters / 1e6:.2f} million"),
        ShownDifference("–" if size is None else f"{size / 2**20:.1f} MiB"),
        ShownDifference("–") if speed is None else ShownDifference(f"{speed:.3g}", plain(costs.device)),
        ShownDifference("–" if seconds is None else duration(seconds)),
    ]


def pair_cells(difference: Difference) -> list[ShownDifference]:
    """A pair in the order of DIFFERENCE_COLUMNS, less its names."""
    accuracy, area = difference.accuracy_adjusted, difference.auroc_adjusted
    return [
        _shown(difference.accuracy, sign=True),
        ShownDifference(f"{difference.mcnemar.b}\u00a0/\u00a0{difference.mcnemar.c}"),
        ShownDifference(p_value(difference.mcnemar.exact)),
        ShownDifference(p_value(difference.mcnemar.mid)),
        ShownDifference(p_value(accuracy), apart=accuracy is not None and accuracy < ALPHA),
        _shown(difference.auroc, sign=True),
        ShownDifference(p_value(difference.auroc_p)),
        ShownDifference(p_value(area), apart=area is not None and area < ALPHA),
    ]
