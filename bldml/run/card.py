"""What only people can say of a classifier: the `card:` block of a configuration."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Card:
    """What a report must say and no program can find out; what is missing is printed as "Not stated".

    After STARD-AI 2025, CLAIM 2024, REFORMS and the model cards of Mitchell et al. 2019.

    Args:
        intended_use: What the classifier is to be used for, and which decision it supports (triage, screening,
            confirmation).
        intended_user: Who is to use it, and with what training.
        out_of_scope: What it must not be used for, such as other hosts, drone pictures, legal proof.
        population: The leaves, trees, places and seasons that the figures are a claim about.
        sites: Where and when the photographs were taken.
        collection_protocol: How they were taken, such as the side of the leaf, light, distance, attached or not.
        exclusion_rules: Which photographs were left out by rule, and who applied it.
        reference_standard: How it was decided whether a leaf is diseased, such as nematode recovery, PCR or eye.
        labellers: Who labelled, with what experience, and whether they agreed.
        blinding: Whether those who labelled knew of each other's labels or of the classifier's.
        lookalikes: Which similar damage is among the negatives, such as aphids, erineum mites, anthracnose or scorch.
        limitations: Known weaknesses and biases.
        data_availability: Where the photographs are to be had, and under which licence.
        licence: Licence of the classifier.
        contact: Whom to ask.
        funding: Who paid, and conflicts of interest.
        ethics: Permissions and privacy, such as whether positions were removed.
        citation: How to cite.
    """

    intended_use: str | None = None
    intended_user: str | None = None
    out_of_scope: str | None = None
    population: str | None = None
    sites: str | None = None
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


TITLES = {
    "intended_use": "Intended use",
    "intended_user": "Intended users",
    "out_of_scope": "Not to be used for",
    "population": "Population that the figures are about",
    "sites": "Places and dates of the photographs",
    "collection_protocol": "How the photographs were taken",
    "exclusion_rules": "Photographs left out by rule",
    "reference_standard": "Reference standard",
    "labellers": "Who labelled",
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
    """Title and text of every item of a configuration's card; None where nothing is stated.

    Args:
        config: A configuration as read from YAML.

    >>> read_card({"card": {"licence": " MIT "}})["Licence"], read_card({})["Contact"]
    ('MIT', None)
    """
    block = config.get("card")
    card = block if isinstance(block, Mapping) else {}
    stated = {key: str(card[key]).strip() if card.get(key) is not None else "" for key in TITLES}
    return {title: stated[key] or None for key, title in TITLES.items()}
