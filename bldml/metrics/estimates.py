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
        method: Method by which it was computed, as printed in footnotes.
    """

    low: float
    high: float
    method: str


@dataclass(frozen=True)
class Estimate:
    """A value with its interval.

    Args:
        value: The value; None if the data do not define it.
        interval: The interval; None if there is none.
        note: Reason why the value or the interval is missing.
    """

    value: float | None
    interval: Interval | None = None
    note: str = ""


def undefined(note: str) -> Estimate:
    """Return an estimate without a value, with the reason.

    >>> undefined("no photograph").value is None
    True
    """
    return Estimate(None, None, note)
