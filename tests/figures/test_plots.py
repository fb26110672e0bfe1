"""What each figure draws, its files, its SVG for a page, and edges."""

import itertools
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image
from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_curve

from bldml.errors import RunError, UsageError
from bldml.figures import plots
from bldml.figures import style as figures
from bldml.metrics.auroc import Band
from bldml.metrics.checked import Classes
from bldml.metrics.estimates import Estimate, Interval
from bldml.metrics.proportions import proportion_by_unit

SVG = "{http://www.w3.org/2000/svg}"
pytestmark = pytest.mark.usefixtures("all_formats")

NAMES = Classes("healthy", "beech leaf disease")
HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "</text></svg><script>alert(1)</script>",
    "\"'&amp;&#x3c;]]>",
    r"$\frac{",
    "a$b$c",
    "\u202egpj.exe",
    "nul\x00\x1b[31m\ud800\ufffe\uffff",
    "葉" * 85,
    "",
]


def scores(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = (generator.random(n) < 0.4).astype(int)
    return labels, 1 / (1 + np.exp(-generator.normal(size=n) - 2 * labels + 1))


LABELS, PROBABILITIES = scores(116)
ROWS: list[dict[str, float | None]] = [
    {"epoch": e, "train_loss": 0.7 - e / 10, "val_loss": 0.8 - e / 10, "val_auroc": 0.5 + e / 10} for e in range(5)
]


DRAW: dict[str, Callable[[], Figure]] = {
    "learning": lambda: plots.learning_curve(ROWS, "loss", [2], best_epoch=4),
    "roc": lambda: plots.roc([("a", LABELS, PROBABILITIES)]),
    "precision_recall": lambda: plots.precision_recall([("a", LABELS, PROBABILITIES)]),
    "calibration": lambda: plots.calibration(LABELS, PROBABILITIES),
    "probabilities": lambda: plots.probabilities(LABELS, PROBABILITIES, 0.4, NAMES),
    "decision_curve": lambda: plots.decision_curve(LABELS, PROBABILITIES, 0.4),
    "forest": lambda: plots.forest([("camera: a", Estimate(0.9, Interval(0.8, 0.95, "Wilson")), Estimate(None))]),
    "confusion": lambda: plots.confusion({"tp": 45, "fp": 4, "fn": 0, "tn": 67}, NAMES),
    "predictive_values": lambda: plots.predictive_value_curves(
        Estimate(1.0, Interval(0.92, 1, "Wilson")), Estimate(0.94, Interval(0.86, 0.98, "Wilson")), 0.39
    ),
}


def svg(figure: Figure, title: str = "A figure", description: str = "What it shows") -> str:
    return figures.to_svg(figure, title=title, description=description)


def texts(text: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(text).iter(f"{SVG}text")]


def heights(axes: Axes) -> list[float]:
    return [bar.get_height() for bar in axes.patches if isinstance(bar, Rectangle)]


def squeezed(text: str) -> str:
    return re.sub(r"\s", "", text)


# What is drawn.


def test_roc_is_the_same_curve_as_scikit_learns() -> None:
    labels, probabilities = LABELS, np.round(PROBABILITIES, 1)  # with ties
    _, line = plots.roc([("a", labels, probabilities)]).axes[0].lines
    wrong, right, _ = roc_curve(labels, probabilities)
    x, y = np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float)
    assert np.allclose(np.interp(wrong[1:], x, y)[np.diff(wrong) > 0], right[1:][np.diff(wrong) > 0])
    assert auc(x, y) == pytest.approx(auc(wrong, right), abs=1e-12)


def test_area_below_precision_and_recall_is_the_average_precision() -> None:
    labels, probabilities = LABELS, np.round(PROBABILITIES, 1)
    line, _ = plots.precision_recall([("a", labels, probabilities)]).axes[0].lines
    x, y = np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float)
    assert np.trapezoid(y, x) == pytest.approx(average_precision_score(labels, probabilities), abs=1e-12)
    precision, _, _ = precision_recall_curve(labels, probabilities)
    assert y.min() == pytest.approx(precision[:-1].min())


def test_calibration_has_bars_by_unit_and_the_distribution_of_probabilities() -> None:
    probability, label = np.linspace(0.02, 0.98, 40), np.tile([0, 1, 1, 1], 10)
    for units in (np.arange(40), np.arange(40) // 2):
        upper, lower = plots.calibration(label, probability, units).axes
        points, _, (bars,) = upper.containers[0]
        assert np.allclose(points.get_xdata(), probability.reshape(10, 4).mean(axis=1))
        assert np.allclose(points.get_ydata(), 0.75)
        for number, segment in enumerate(bars.get_segments()):
            inside = slice(4 * number, 4 * number + 4)
            expected = proportion_by_unit(label[inside], units[inside]).interval
            assert expected is not None
            assert segment[:, 1] == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert heights(lower) == np.histogram(probability, np.linspace(0, 1, 21))[0].tolist()


def test_distribution_counts_all_and_those_on_the_wrong_side() -> None:
    figure = plots.probabilities([0, 0, 0, 1, 1], [0.1, 0.5, 0.9, 0.49, 0.5], 0.5, NAMES)
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == [
        "healthy: 3 photographs, 2 at or above the threshold",
        "beech leaf disease: 2 photographs, 1 below the threshold",
    ]
    assert [sum(heights(axes)) for axes in figure.axes] == [3, 2]


def test_confusion_has_each_count_in_its_place() -> None:
    axes = plots.confusion({"tp": 40, "fp": 12, "fn": 5, "tn": 1059}, NAMES).axes[0]
    place = {text.get_text(): tuple(round(v) for v in text.get_position()) for text in axes.texts}
    assert {key: place[key] for key in ("40", "12", "5", "1,059")} == {
        "1,059": (0, 0),
        "12": (1, 0),
        "5": (0, 1),
        "40": (1, 1),
    }
    assert "88.9 % of the class" in place
    assert axes.get_ylim() == (1.5, -0.5)  # the first row is above


def test_predictive_values_follow_bayes_and_the_corners() -> None:
    axes = plots.predictive_value_curves(
        Estimate(0.9, Interval(0.8, 0.95, "Wilson")), Estimate(0.8, Interval(0.7, 0.9, "Wilson")), 0.25
    ).axes[0]
    ppv, npv, mark = axes.lines
    x = np.asarray(ppv.get_xdata(), float)
    assert np.interp(10, x, np.asarray(ppv.get_ydata(), float)) == pytest.approx(0.09 / (0.09 + 0.18), abs=1e-3)
    assert np.interp(10, x, np.asarray(npv.get_ydata(), float)) == pytest.approx(0.72 / (0.72 + 0.01), abs=1e-3)
    assert mark.get_xdata() == [25, 25]
    edges = np.asarray(axes.collections[0].get_paths()[0].vertices)
    at_ten = edges[np.isclose(edges[:, 0], 10)][:, 1]
    assert at_ten.min() == pytest.approx(0.08 / (0.08 + 0.27))
    assert at_ten.max() == pytest.approx(0.095 / (0.095 + 0.09))


def test_learning_curves_mark_unfreezing_and_leave_gaps() -> None:
    rows: list[dict[str, float | None]] = [*ROWS, {"epoch": 5, "val_loss": float("nan"), "train_loss": None}]
    loss, score = (plots.learning_curve(rows, name, [1, 3], best_epoch=2).axes[0] for name in plots.MEASURES)
    drawn = {line.get_label(): line for line in loss.lines}
    assert np.isnan(np.asarray(drawn["validation"].get_ydata(), float)).tolist() == [False] * 5 + [True]
    assert np.asarray(drawn["training"].get_ydata(), float)[:5].tolist() == [row["train_loss"] for row in ROWS]
    assert [line.get_xdata()[0] for line in score.lines[1:]] == [1, 3, 2]  # type: ignore[index]
    assert np.asarray(score.lines[0].get_ydata(), float)[:5].tolist() == [row["val_auroc"] for row in ROWS]
    assert {line.get_label() for line in score.lines} >= {"validation", "layers unfrozen", "best epoch"}


def test_roc_marks_the_operating_point_with_both_intervals() -> None:
    rates = Estimate(0.8, Interval(0.6, 0.9, "Wilson")), Estimate(0.7, Interval(0.65, 0.85, "Wilson"))
    (point,) = plots.roc([("a", LABELS, PROBABILITIES)], rates).axes[0].containers
    marker, _, (across, up) = point.lines  # type: ignore[attr-defined]
    assert (marker.get_xdata()[0], marker.get_ydata()[0]) == pytest.approx((0.3, 0.8))
    assert sorted(across.get_segments()[0][:, 0]) == pytest.approx([0.15, 0.35])
    assert sorted(up.get_segments()[0][:, 1]) == pytest.approx([0.6, 0.9])
    assert not plots.roc([("a", LABELS, PROBABILITIES)], (Estimate(None), rates[1])).axes[0].containers


def test_decision_curve_of_classifier_all_and_none() -> None:
    axes = plots.decision_curve(LABELS, PROBABILITIES, 0.4).axes[0]
    drawn = {line.get_label(): line for line in axes.lines}
    n, share = LABELS.size, LABELS.mean()
    for name, treated in (("classifier", PROBABILITIES), ("treat all", np.ones(n))):
        for t, height in np.asarray(drawn[name].get_xydata(), float):
            hits, alarms = sum((treated >= t) & (LABELS == 1)), sum((treated >= t) & (LABELS == 0))
            assert height == pytest.approx(hits / n - alarms / n * t / (1 - t))
    at, benefit = np.asarray(drawn["treat all"].get_xydata(), float).T
    assert np.interp(share, at, benefit) == pytest.approx(0, abs=0.01)
    assert drawn["treat none"].get_ydata() == [0, 0]
    assert drawn["operating point 0.4"].get_xdata() == [0.4, 0.4]
    assert "Not estimable" in " ".join(texts(svg(plots.decision_curve([1, 1], [0.2, 0.9], 0.4))))
    assert "Not estimable" in " ".join(texts(svg(plots.decision_curve([], [], 0.4))))


def test_forest_has_each_subgroup_with_its_interval() -> None:
    known = Estimate(0.9, Interval(0.7, 0.95, "Wilson"))
    left, right = plots.forest([("a", known, Estimate(None)), ("b", known, Estimate(0.8, known.interval))]).axes
    assert [label.get_text() for label in left.get_yticklabels()] == ["a", "b"]
    for axes, rows in ((left, [0, 1]), (right, [1])):
        marker, _, (bars,) = axes.containers[0].lines  # type: ignore[attr-defined]
        assert marker.get_ydata().tolist() == rows
        assert [bar[:, 0].tolist() for bar in bars.get_segments()] == [pytest.approx([0.7, 0.95])] * len(rows)
    svg(plots.forest([("a", Estimate(None), Estimate(None))]))


# Files.


def test_files_have_300_dpi_and_their_size(
    tmp_path: Path, shipped_figures: tuple[int, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures, "DPI", shipped_figures[0])
    figure = plots.roc([("a", LABELS, PROBABILITIES)])
    png, pdf, svg = figures.save(figure, tmp_path / "figures", "roc")
    assert [place.name for place in sorted((tmp_path / "figures").iterdir())] == ["roc.pdf", "roc.png", "roc.svg"]
    assert ElementTree.fromstring(svg.read_bytes()).tag == f"{SVG}svg"
    with Image.open(png) as image:
        assert image.info["dpi"] == pytest.approx((300, 300), abs=0.1)
        assert image.size == (1320, 1320)
        colours = image.convert("RGB").getcolors(1 << 24) or []
        assert len(colours) > 50
        assert max(colours)[1] == (255, 255, 255)
    assert pdf.read_bytes().startswith(b"%PDF")
    assert b"CreationDate" not in pdf.read_bytes()
    first = png.read_bytes(), pdf.read_bytes(), svg.read_bytes()
    figures.save(plots.roc([("a", LABELS, PROBABILITIES)]), tmp_path / "figures", "roc")
    assert (png.read_bytes(), pdf.read_bytes(), svg.read_bytes()) == first


def test_a_figure_is_laid_out_once_and_drawn_once_for_each_format(tmp_path: Path) -> None:
    figure, drawn = plots.roc([("a", LABELS, PROBABILITIES)]), []
    figure.canvas.mpl_connect("draw_event", lambda _: drawn.append(figure.axes[0].get_position().bounds))
    paths = figures.save(figure, tmp_path, "roc")
    svg(figure)
    assert len(drawn) == len(paths) + 1
    assert len(set(drawn)) == 1


def test_file_that_cannot_be_written_is_a_run_error(tmp_path: Path) -> None:
    figure = plots.confusion({"tp": 1, "fp": 0, "fn": 0, "tn": 1}, NAMES)
    (tmp_path / "taken").write_text("")
    with pytest.raises(RunError, match="taken"):
        figures.save(figure, tmp_path / "taken", "a")
    with pytest.raises(UsageError, match="path separator"):
        figures.save(figure, tmp_path, "../a")


@pytest.mark.parametrize("draw", [plots.roc, plots.precision_recall])
def test_curves_differ_in_colour_or_dash(draw: Callable[[list[tuple[str, object, object]]], Figure]) -> None:
    figure = draw([(f"run {number}", LABELS, PROBABILITIES) for number in range(12)])
    lines = [line for line in figure.axes[0].lines if str(line.get_label()).startswith("run")]
    looks = {(line.get_color(), str(line._unscaled_dash_pattern)) for line in lines}  # type: ignore[attr-defined]
    assert len(lines) == len(looks) == 12
    svg(figure)


# Pages.


@pytest.mark.parametrize("name", list(DRAW))
def test_svg_needs_nothing_from_outside_and_can_be_read_out(name: str) -> None:
    text = svg(DRAW[name](), title="Title & <b>", description='"Description"')
    root = ElementTree.fromstring(text)
    assert text.startswith("<svg ")
    assert root.get("role") == "img"
    assert [(root[0].tag, root[0].text), (root[1].tag, root[1].text)] == [
        (f"{SVG}title", "Title & <b>"),
        (f"{SVG}desc", '"Description"'),
    ]
    assert root.get("aria-labelledby") == f"{root[0].get('id')} {root[1].get('id')}"
    assert set(re.findall(r"\w+://[^\"\s]+", text)) == {"http://www.w3.org/2000/svg"}
    identifiers = [value for element in root.iter() if (value := element.get("id"))]
    assert len(identifiers) == len(set(identifiers))
    for element in root.iter():
        tag = element.tag.removeprefix(SVG)
        assert element.tag.startswith(SVG)
        assert tag in {"svg", "title", "desc", "defs", "g", "path", "use", "text", "tspan", "clipPath", "rect"}
        for attribute, value in element.attrib.items():
            assert attribute != "style"
            assert not attribute.startswith("on")
            if attribute == "href" or "url(" in value:
                assert re.sub(r"^url\(#(.*)\)$|^#(.*)$", r"\1\2", value) in identifiers
    assert "currentColor" in text  # takes part in light and dark
    assert not re.search(r"#000000|\bblack\b|" + figures.INK, text)
    assert "202" not in re.sub(r"[\d.]*\d\.\d+|f[0-9a-f]{10}-\w+", "", "".join(texts(text)))  # no date


def test_identifiers_of_figures_on_one_page_differ() -> None:
    pages = [set(re.findall(r'\bid="([^"]+)"', svg(draw()))) for draw in DRAW.values()]
    same = plots.roc([("a", LABELS, PROBABILITIES)])
    pages += [set(re.findall(r'\bid="([^"]+)"', svg(same, title))) for title in ("Test", "Validation")]
    assert all(pages)
    assert not any(a & b for a, b in itertools.combinations(pages, 2))


@pytest.mark.parametrize("name", list(DRAW))
def test_same_figure_is_the_same_svg_whatever_the_users_matplotlibrc(name: str) -> None:
    first = svg(DRAW[name]())
    with matplotlib.rc_context({"lines.linewidth": 9, "font.size": 30, "svg.fonttype": "path", "axes.grid": False}):
        assert svg(DRAW[name]()) == first


@pytest.mark.parametrize("name", HOSTILE, ids=[str(number) for number in range(len(HOSTILE))])
def test_hostile_names_are_text(name: str, tmp_path: Path) -> None:
    curve = (name, LABELS, PROBABILITIES)
    drawn: list[Figure] = [
        plots.roc([curve]),
        plots.precision_recall([curve]),
        plots.probabilities(LABELS, PROBABILITIES, 0.5, Classes(name, name)),
        plots.confusion({"tp": 1, "fp": 0, "fn": 0, "tn": 1}, Classes(name, name)),
    ]
    for figure in drawn:
        text = svg(figure, title=name, description=name)
        root = ElementTree.fromstring(text)
        assert not {e.tag.removeprefix(SVG) for e in root.iter()} & {"img", "script", "image", "a"}
        assert "<img" not in text
        assert "<script" not in text
        assert "\u202e" not in text
        assert squeezed(figures.label_of(name)) in squeezed("".join(texts(text)))
    figures.save(drawn[-1], tmp_path, "confusion")
    assert (tmp_path / "confusion.png").stat().st_size > 1000


def test_ten_thousand_photographs_stay_small() -> None:
    labels, probabilities = scores(10_000)
    noise = np.random.default_rng(1).random(10_000)
    for values in (probabilities, noise):
        drawn = [
            plots.roc([("a", labels, values)]),
            plots.precision_recall([("a", labels, values)]),
            plots.calibration(labels, values),
            plots.probabilities(labels, values, 0.5, NAMES),
        ]
        assert [len(svg(figure)) < 150_000 for figure in drawn] == [True] * 4, [len(svg(f)) for f in drawn]


# Edges.


@pytest.mark.parametrize(
    ("labels", "values"),
    [([], []), ([1], [1.0]), ([0], [0.0]), ([1, 1], [0.2, 0.9]), ([0, 0], [0.5, 0.5]), ([0, 1], [0.5, 0.5])],
)
def test_one_class_and_few_photographs_give_a_figure(labels: list[int], values: list[float], tmp_path: Path) -> None:
    drawn = {
        "roc": plots.roc([("run", labels, values)]),
        "pr": plots.precision_recall([("run", labels, values)]),
        "calibration": plots.calibration(labels, values),
        "probabilities": plots.probabilities(labels, values, 1.0, NAMES),
    }
    shown = {name: " ".join(texts(svg(figure))) for name, figure in drawn.items()}
    assert ("not estimable: one class" in shown["roc"]) == (len(set(labels)) < 2)
    assert ("not estimable: no positives" in shown["pr"]) == (1 not in labels)
    assert ("No photographs" in shown["calibration"]) == (not labels)
    assert "nan" not in " ".join(shown.values())
    figures.save(drawn["calibration"], tmp_path, "calibration")


def test_nothing_to_draw_is_said() -> None:
    assert "Not recorded" in texts(svg(plots.learning_curve([], "loss", [1], 2)))
    assert "no photographs" in texts(svg(plots.confusion({"tp": 0, "fp": 0, "fn": 0, "tn": 3}, NAMES)))
    for sensitivity, specificity in ((Estimate(None), Estimate(0.5)), (Estimate(0.5), Estimate(None))):
        figure = plots.predictive_value_curves(sensitivity, specificity, 0.0)
        assert any(text.startswith("Not estimable") for text in texts(svg(figure)))
    assert plots.precision_recall([]).axes[0].get_legend() is None
    svg(plots.predictive_value_curves(Estimate(0.0), Estimate(1.0), 1.0))  # the PPV is 0/0


@pytest.mark.parametrize(
    "draw",
    [
        lambda: plots.probabilities([0, 1], [0.1, 0.9], 1.5, NAMES),
        lambda: plots.decision_curve([0, 1], [0.1, 0.9], 1.5),
        lambda: plots.predictive_value_curves(Estimate(0.9), Estimate(0.9), 39.0),
        lambda: plots.probabilities([0, 1], [0.1, 0.9], float("nan"), NAMES),
    ],
)
def test_share_out_of_range_is_a_run_error(draw: Callable[[], Figure]) -> None:
    with pytest.raises(RunError, match=r"must lie in \[0, 1\]"):
        draw()


def test_colours_can_be_read_on_white_and_on_black() -> None:
    def luminance(colour: str) -> float:
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgba(colour)[:3]]
        return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))

    for colour in figures.COLOURS[:3]:  # WCAG 2.2, 1.4.11: 3 to 1
        light = luminance(colour)
        assert 1.05 / (light + 0.05) >= 3
        assert (light + 0.05) / 0.05 >= 3


def test_pyplot_is_never_imported_and_matplotlib_only_to_draw() -> None:
    program = (
        "import sys; from bldml.figures import plots, style; print('matplotlib' in sys.modules);"
        "style.to_svg(plots.roc([('a', [0, 1], [0.1, 0.9])]), title='t', description='d');"
        "print('matplotlib.pyplot' in sys.modules, 'torch' in sys.modules, 'pandas' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False", "False", "False"]


def test_heat_colours_are_told_by_lightness_and_from_a_leaf() -> None:
    colours = np.array([[int(stop[k : k + 2], 16) / 255 for k in (0, 2, 4)] for stop in figures.HEAT])
    luminance = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4) @ (
        0.2126,
        0.7152,
        0.0722,
    )
    assert np.all(np.diff(luminance) > 0)
    assert np.all(colours[:, 1] < np.minimum(colours[:, 0], colours[:, 2])), "less green than red and blue"


@pytest.mark.parametrize("known", [True, False])
def test_operating_point_on_both_curves(known: bool) -> None:
    estimates = [Estimate(value, Interval(value - 0.1, value + 0.05, "Wilson")) for value in (0.8, 0.9)]
    rates = (estimates[0], estimates[1] if known else Estimate(None, None, "no photograph"))
    curve = [("a", LABELS, PROBABILITIES)]
    for figure, x in ((plots.roc(curve, rates), 0.1), (plots.precision_recall(curve, rates), 0.8)):
        (axes,) = figure.axes
        points = [line for line in axes.lines if line.get_marker() == "o"]
        assert len(points) == known
        if known:
            (place,) = np.asarray(points[0].get_xydata()).tolist()
            assert place == pytest.approx([x, 0.8 if x == 0.1 else 0.9])
            bars = [one for one in axes.collections if isinstance(one, LineCollection)]
            ends = [np.asarray(segment) for one in bars for segment in one.get_segments()]
            horizontal, vertical = sorted(ends, key=lambda end: float(np.ptp(end[:, 0])), reverse=True)
            across = (0.05, 0.2) if x == 0.1 else (0.7, 0.85)
            upright = (0.7, 0.85) if x == 0.1 else (0.8, 0.95)
            assert horizontal[:, 0].tolist() == pytest.approx(across)
            assert vertical[:, 1].tolist() == pytest.approx(upright)


@pytest.mark.parametrize("draw", [plots.roc, plots.precision_recall])
def test_band_of_a_curve_is_drawn_only_if_given(draw: Callable[..., Any]) -> None:
    band = Band(np.array([0.0, 0.5, 1.0]), np.array([0.0, 0.3, 0.8]), np.array([0.6, 0.9, 1.0]))
    curves = [("a", LABELS, PROBABILITIES), ("b", LABELS, PROBABILITIES)]
    (shaded,) = [one for one in draw(curves, None, band).axes[0].collections if one.get_label().startswith("pointwise")]
    corners = {tuple(corner) for corner in np.asarray(shaded.get_paths()[0].vertices).round(6).tolist()}
    assert corners == {*zip(band.at.tolist(), band.low, strict=True), *zip(band.at.tolist(), band.high, strict=True)}
    assert not draw(curves).axes[0].collections
