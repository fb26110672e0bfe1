"""An estimate with its interval."""

from dataclasses import dataclass
from statistics import NormalDist

LEVEL = 0.95
Z = NormalDist().inv_cdf((1 + LEVEL) / 2)


@dataclass(frozen=True)
class Interval:
    """A 95 % interval.

    Args:
        low: Lower limit.
        high: Upper limit.
        method: How it was computed, as it is to be printed.
    """

    low: float
    high: float
    method: str


@dataclass(frozen=True)
class Estimate:
    """A figure with its interval.

    Args:
        value: The figure; None where the data do not define it.
        interval: None where there is none.
        note: Why there is no figure or no interval.
    """

    value: float | None
    interval: Interval | None = None
    note: str = ""


def undefined(note: str) -> Estimate:
    """An estimate that cannot be had, and why.

    >>> undefined("no photograph").value is None
    True
    """
    return Estimate(None, None, note)
