"""Bar chart of photographs by day and class, for an audit."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bldml.figures.style import COLOURS, label_of, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_BARS = 60  # days; more are counted by month
MOST_CLASSES = 6  # the others are drawn together


@styled()
def photographs_by_day(taken: Sequence[tuple[str, str]]) -> "Figure":
    """Draw the number of photographs by day, one bar with a part for each class.

    Days without photographs have no bar.

    Args:
        taken: Day (YYYY-MM-DD) and class of each photograph whose day is known.
    """
    from matplotlib.ticker import MaxNLocator

    days = {day for day, _ in taken}
    length = 10 if len(days) <= MOST_BARS else 7
    counts = Counter((day[:length], class_name) for day, class_name in taken)
    bars = sorted({day for day, _ in counts})
    classes = [name for name, _ in Counter(name for _, name in taken).most_common()]
    shown = sorted(classes[:MOST_CLASSES])
    parts = {name: [name] for name in shown} | ({"others": classes[MOST_CLASSES:]} if classes[MOST_CLASSES:] else {})
    figure = new_figure(2.6, width=7.0)
    axes = figure.subplots()
    bottom = [0] * len(bars)
    for (name, members), colour in zip(parts.items(), [*COLOURS, "#888888"], strict=False):
        heights = [sum(counts[bar, member] for member in members) for bar in bars]
        axes.bar(range(len(bars)), heights, bottom=bottom, color=colour, label=label_of(name))
        bottom = [low + height for low, height in zip(bottom, heights, strict=True)]
    step = max(1, -(-len(bars) // 12))
    axes.set_xticks(range(0, len(bars), step), bars[::step], rotation=30, ha="right")
    axes.set(ylabel="Photographs", xlabel="Month" if length == 7 else "Day")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(visible=False, axis="x")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure
