"""Facts about a classifier that only people know: the `card:` block of a configuration."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from bldml.errors import ConfigError
from bldml.io.text import plain


@dataclass(frozen=True)
class Card:
    """Facts that a report should state and no program can know; missing ones are printed as "Not stated".

    After STARD-AI 2025, CLAIM 2024, REFORMS and the model cards of Mitchell et al. 2019.

    Args:
        intended_use: What the classifier is intended for, and which decision it supports (triage, screening,
            confirmation).
        intended_user: Who should use it, and with what training.
        out_of_scope: What it must not be used for, such as other hosts, drone pictures, legal proof.
        population: The leaves, trees, sites and seasons that the results apply to.
        prevalence: Proportion of leaves with the disease where the classifier will be used, in (0, 1), such as 0.05.
            The report then says what to expect of 1,000 leaves there.
        site: Where and when the photographs were taken; `--site` states it of other photographs.
        collection_protocol: How they were taken: side of the leaf, light, distance, leaf attached or detached.
        exclusion_rules: Which photographs were excluded by rule, and who applied the rule.
        reference_standard: How a leaf was determined to be diseased, such as nematode recovery, PCR or
            visual inspection.
        labellers: Who labelled the photographs, with what experience and agreement.
        blinding: Whether the labellers knew each other's labels or the classifier's predictions.
        lookalikes: Which similar damage occurs among the negatives, such as aphids, erineum mites, anthracnose or
            scorch.
        limitations: Known weaknesses and biases.
        data_availability: Where the photographs are available, and under which licence.
        licence: Licence of the classifier.
        contact: Contact person.
        funding: Funding and conflicts of interest.
        ethics: Permissions and privacy, such as whether locations were removed.
        citation: How to cite the classifier.
    """

    intended_use: str | None = None
    intended_user: str | None = None
    out_of_scope: str | None = None
    population: str | None = None
    prevalence: float | None = None
    site: str | None = None
    collection_protocol: str | None = None
    exclusion_rules: str | None = None
    reference_standard: str | None = None
    labellers: str | None = None
    blinding: str | None = None
    lookalikes: str | None = None
    limitations: str | None = None
    data_availability: str | None = None
    licence: str | None = None
    contact: str | None = None
    funding: str | None = None
    ethics: str | None = None
    citation: str | None = None

    def __post_init__(self) -> None:
        """Check that the prevalence is a proportion."""
        if self.prevalence is not None and not 0 < self.prevalence < 1:
            message = f"card.prevalence must lie in (0, 1), such as 0.05 for one leaf in twenty, not {self.prevalence}."
            raise ConfigError(message, "prevalence-out-of-range", found=self.prevalence, expected="(0, 1)")


TITLES = {
    "intended_use": "Intended use",
    "intended_user": "Intended users",
    "out_of_scope": "Out of scope",
    "population": "Population that the results apply to",
    "prevalence": "Prevalence where it will be used",
    "site": "Sites and dates of the photographs",
    "collection_protocol": "How the photographs were taken",
    "exclusion_rules": "Photographs excluded by rule",
    "reference_standard": "Reference standard",
    "labellers": "Labellers",
    "blinding": "Blinding",
    "lookalikes": "Similar damage among the negatives",
    "limitations": "Limitations",
    "data_availability": "Availability of the photographs",
    "licence": "Licence",
    "contact": "Contact",
    "funding": "Funding and interests",
    "ethics": "Ethics and privacy",
    "citation": "Citation",
}
assert list(TITLES) == [field.name for field in fields(Card)]


def read_card(config: Mapping[str, Any]) -> dict[str, str | None]:
    """Return title and plain lines of every item of a configuration's card; None for an item that is not stated.

    >>> read_card({"card": {"licence": " MIT "}})["Licence"], read_card({})["Contact"]
    ('MIT', None)
    >>> read_card({"card": {"sites": "Ohio"}})["Sites and dates of the photographs"]  # the name of 0.1
    'Ohio'
    """
    block = config.get("card")
    card = block if isinstance(block, Mapping) else {}
    card = {"site": card.get("sites"), **card}
    stated = {key: "" if card.get(key) is None else str(card[key]).strip() for key in TITLES}
    return {title: "\n".join(map(plain, stated[key].splitlines())) or None for key, title in TITLES.items()}


def stated_prevalence(config: Mapping[str, Any]) -> float | None:
    """Return the prevalence of a configuration's card, in (0, 1); None if it is not stated, or no proportion.

    >>> stated_prevalence({"card": {"prevalence": "0.05"}}), stated_prevalence({"card": {"prevalence": "rare"}})
    (0.05, None)
    """
    block = config.get("card")
    try:
        found = float(block["prevalence"]) if isinstance(block, Mapping) else math.nan
    except (KeyError, TypeError, ValueError):
        return None
    return found if 0 < found < 1 else None
