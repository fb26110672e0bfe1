"""The page of labels to look at again: one file that opens offline, with verdicts that can be saved."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from bldml.dataset.files import unescape_path
from bldml.dataset.images import UnreadableImage
from bldml.inference.gradcam import Map
from bldml.inference.pictures import overlay
from bldml.io.safe_points import safe_point
from bldml.io.system import sha256_of
from bldml.io.text import with_apostrophe
from bldml.metrics.checked import Classes
from bldml.report.html import TEMPLATES, page_template, script_hash
from bldml.survey.thumbnails import data_url, thumbnail
from bldml.sweep.review.ranking import REASONS, Doubt

TITLES = {
    REASONS[0]: "The label is contradicted",
    REASONS[1]: "Seeds disagree",
    REASONS[2]: "Near the threshold",
}


@dataclass(frozen=True)
class LabelCard:
    """One photograph on the page.

    Attributes:
        doubt: What is known of it.
        number: Of the card, from 1.
        label, predicted, other, unit: Names as in a CSV cell.
        photograph: Data URL of pixels alone, without metadata.
        heat: The same under its Grad-CAM map; empty if it has none.
    """

    doubt: Doubt
    number: int
    label: str
    predicted: str
    other: str
    unit: str
    photograph: str
    heat: str


def label_page(
    doubts: Sequence[Doubt],
    chosen: Sequence[Doubt],
    maps: Mapping[str, Map],
    digests: Mapping[str, str],
    root: Path,
    classes: Classes,
    name: str,
    *,
    version: str,
) -> tuple[str, int]:
    """Return the page, and how many photographs are not on it because they are gone or changed.

    Args:
        doubts: All photographs in the order in which to look at them.
        chosen: Those to be shown, the first of them that have a reason.
        maps: Grad-CAM maps of these, (rows, columns) in [0, 1], by path.
        digests: SHA-256 of the photographs when they were predicted, as far as recorded, by path.
        root: Folder of the photographs.
        classes: Names of the classes.
        name: Of the configuration.
        version: Of bldml.
    """
    script = (TEMPLATES / "triage.js").read_text(encoding="utf-8").strip()
    cards = list(_cards(chosen, maps, digests, root))
    predictions = hashlib.sha256(repr([(one.path, one.label, one.margin) for one in doubts]).encode()).hexdigest()
    page = page_template("labels.html").render(
        created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        version=version,
        name=name,
        predictions=predictions,
        survey=f"labels {predictions[:16]}",  # verdicts in the browser belong to these predictions and labels
        total=len(doubts),
        left=sum(bool(one.reason) for one in doubts) - len(chosen),
        not_shown=len(chosen) - len(cards),
        seeds=doubts[0].seeds,
        positive=classes.positive,
        negative=classes.negative,
        n_cards=len(cards),
        n_maps=sum(bool(card.heat) for card in cards),
        sections=[
            (title, reason, [card for card in cards if card.doubt.reason == reason]) for reason, title in TITLES.items()
        ],
        script=script,
        script_hash=script_hash(script),
    )
    return page, len(chosen) - len(cards)


def _cards(
    chosen: Sequence[Doubt], maps: Mapping[str, Map], digests: Mapping[str, str], root: Path
) -> Iterator[LabelCard]:
    number = 0
    for one in chosen:
        safe_point()
        path, digest = root / unescape_path(one.path), digests.get(one.path, "")
        with suppress(OSError, UnreadableImage):  # gone, or changed since it was predicted
            if digest and sha256_of(path) != digest:
                continue
            picture = thumbnail(path)
            heat = data_url(overlay(picture, maps[one.path])) if one.path in maps else ""
            number += 1
            label, predicted, other, unit = map(with_apostrophe, (one.label, one.predicted, one.other, one.unit))
            yield LabelCard(one, number, label, predicted, other, unit, data_url(picture), heat)
