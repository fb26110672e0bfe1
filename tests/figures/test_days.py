"""Bars of photographs by day and class."""

from collections import Counter

import pytest
from matplotlib.patches import Rectangle

from bldml.figures.days import MOST_BARS, photographs_by_day


@pytest.mark.parametrize(("days", "by_month"), [(3, False), (MOST_BARS, False), (MOST_BARS + 1, True)])
def test_bars_are_the_counts(days: int, by_month: bool) -> None:
    names = ("BLD", "aphids", "healthy")
    taken = [
        (f"2024-{6 + n // 28:02}-{n % 28 + 1:02}", names[n * k % 3]) for n in range(days) for k in range(1, n % 5 + 2)
    ]
    figure = photographs_by_day(taken)
    (axes,) = figure.axes
    bars = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    keys = sorted({day[:7] if by_month else day for day, _ in taken})
    expected = Counter((day[:7] if by_month else day, name) for day, name in taken)
    found = {}
    for number, name in enumerate(sorted({name for _, name in taken})):
        for key, bar in zip(keys, bars[number * len(keys) : (number + 1) * len(keys)], strict=True):
            found[key, name] = round(bar.get_height())
    assert {key: n for key, n in found.items() if n} == dict(expected)
    assert max(bar.get_y() + bar.get_height() for bar in bars) == max(
        Counter(key for key, _ in expected.elements()).values()
    )
    assert axes.get_xlabel() == ("Month" if by_month else "Day")


def test_classes_beyond_the_colours_are_drawn_together() -> None:
    figure = photographs_by_day([("2024-06-01", f"class {n}") for n in range(9)])
    legend = figure.axes[0].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == [*(f"class {n}" for n in range(6)), "others"]
