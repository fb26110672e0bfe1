"""An estimate with its 95 % interval."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

Z = NormalDist().inv_cdf(0.975)
_LARGEST = 1e300  # that a value or a limit has
NO_VARIANCE = "no variance to be estimated from these photographs"
BOTH_CLASSES = "needs photographs of both classes"


@dataclass(frozen=True)
class Interval:
    """A 95 % interval, with the method by which it was computed, as printed in footnotes."""

    low: float
    high: float
    method: str


@dataclass(frozen=True)
class Estimate:
    """A value with its interval.

    Args:
        value: None if the data do not define it.
        interval: None if there is none.
        note: Reason why the value or the interval is missing.
    """

    value: float | None
    interval: Interval | None = None
    note: str = ""

    @property
    def numbers(self) -> tuple[float, float, float] | None:
        """Lower limit, value and upper limit; None without an interval."""
        if self.value is None or self.interval is None:
            return None
        return self.interval.low, self.value, self.interval.high


def plain_limits(estimate: Estimate, unit: str) -> dict[str, float | str | None]:
    """Return low, high, method and unit for metrics.json; without an interval, the reason stands for the method."""
    interval = estimate.interval
    low, high, method = (interval.low, interval.high, interval.method) if interval else (None, None, estimate.note)
    return {"low": low, "high": high, "method": method, "unit": unit}


def to_estimate(plain: Mapping[str, Any]) -> Estimate:
    """Return the estimate of a value with its `plain_limits`; a ValueError if it is none.

    >>> to_estimate({"value": 0.9, "low": None, "high": None, "method": "no variance", "unit": "group"})
    Estimate(value=0.9, interval=None, note='no variance')
    """
    if not isinstance(plain, Mapping) or not {"value", "low", "high", "method"} <= plain.keys():
        raise ValueError("an estimate needs value, low, high and method")
    value, low, high, method = (plain[name] for name in ("value", "low", "high", "method"))
    are_numbers = all(one is None or (type(one) in (int, float) and abs(one) < _LARGEST) for one in (value, low, high))
    if not are_numbers or (low is None) != (high is None) or not isinstance(method, str):
        raise ValueError("the value or the limits of an estimate are no numbers")
    return Estimate(value, None, method) if low is None else Estimate(value, Interval(low, high, method))


def undefined(note: str) -> Estimate:
    """Return an estimate without a value, with the reason."""
    return Estimate(None, None, note)


def student(n_units: int) -> float:
    """Return the 97.5 % quantile of Student's t with n_units - 1 degrees of freedom; infinite for one unit.

    >>> round(student(10), 3), student(1)
    (2.262, inf)
    """
    from scipy.special import stdtrit

    return float(stdtrit(n_units - 1, 0.975)) if n_units > 1 else math.inf
