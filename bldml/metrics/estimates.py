"""An estimate with its 95 % interval."""

import math
from dataclasses import dataclass
from statistics import NormalDist

Z = NormalDist().inv_cdf(0.975)
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
