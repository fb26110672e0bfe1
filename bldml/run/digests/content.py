"""The SHA-256 of the content of a file, whatever its layout; JSON documents with digests of files and of themselves."""

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from bldml.io.documents import TextLoader, load_json, load_yaml, read_text


def digest_of(rows: Iterable[Iterable[object]]) -> str:
    """Return the SHA-256 of a table's content; a table that a spreadsheet has saved unchanged has the same.

    >>> digest_of([["a", 0.1]]) == digest_of([["a", 0.1000000000000001]]), digest_of([["a", 0.1]]) == digest_of([])
    (True, False)
    """
    cells = ([f"{cell:.12g}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows)
    return hashlib.sha256("".join(f"{row!r}\n" for row in cells).encode(errors="backslashreplace")).hexdigest()


def digest_of_document(document: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the content of a JSON document, whatever its layout and the order of its keys.

    It is empty for one that is nested more deeply, or has other keys, than any that bldml writes.

    >>> digest_of_document({"a": 1, "b": [0.5]}) == digest_of_document({"b": (0.5,), "a": 1})
    True
    """
    try:
        return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
    except (RecursionError, TypeError):
        return ""


def digest_of_epochs(epochs: Iterable[Mapping[str, float | None]]) -> str:
    """Return the SHA-256 of the rows of a history, whatever the order of their columns."""
    return digest_of([cell for one in sorted(row.items()) if one[1] is not None for cell in one] for row in epochs)


def plain_cell(text: str) -> str:
    """Return a cell as it is compared: a spreadsheet writes 0.0 as 0, and rounds to 15 digits.

    >>> plain_cell("0.0"), plain_cell("0.12345678901234567"), plain_cell("BLD/7.jpg")
    ('0', '0.123456789012', 'BLD/7.jpg')
    """
    try:
        return f"{float(text):.12g}"
    except ValueError:
        return text


def digest_of_text(name: str, text: str) -> str:
    """Return the SHA-256 of the content of a CSV, YAML or JSON file with this name; empty if it is not such a file.

    Of a configuration, what may be corrected later is left out: the card, which states facts about the photographs, and
    where these are.
    """
    try:
        if name.endswith(".csv"):
            table = csv.DictReader(io.StringIO(text, newline=""), strict=True, restval="", restkey="")
            # Of a row with more cells than columns, the rest is a list.
            rows = (
                [text for key, cell in sorted(row.items()) for text in (key, plain_cell(str(cell)))] for row in table
            )
            return digest_of(sorted(rows))
        value = load_json(text) if name.endswith(".json") else load_yaml(text, TextLoader)
    except (ValueError, csv.Error, yaml.YAMLError):
        return ""
    parts = {key: part for key, part in value.items() if key != "card"} if isinstance(value, dict) else {}
    if isinstance(data := parts.get("data"), dict):
        parts["data"] = {key: part for key, part in data.items() if key not in ("root", "manifest")}
    return digest_of_document(parts)


def digest_of_file(path: Path) -> str:
    """Return the `digest_of_text` of a file; empty also if it cannot be read or does not exist."""
    try:
        return digest_of_text(path.name, read_text(path))
    except (OSError, ValueError):
        return ""


def with_digests(name: str, document: Mapping[str, Any], **digests: str) -> dict[str, Any]:
    """Return a JSON document with an entry `sha256`: digests of files and, under the name, of its own content.

    >>> whole = with_digests("environment", {"seed": 1}, splits="ab")
    >>> whole["sha256"]["splits"], is_sealed("environment", whole), is_sealed("environment", {**whole, "seed": 2})
    ('ab', True, False)
    """
    content = json.loads(json.dumps(document))  # as it will be read: keys are text
    content["sha256"] = {key: one for key, one in {**digests_in(content), **digests}.items() if key != name}
    own = digest_of_document(content)
    content["sha256"][name] = own
    return dict(content)


def is_sealed(name: str, document: Mapping[str, Any]) -> bool | None:
    """Return whether a JSON document has the content that `with_digests` gave it; None if that is not recorded.

    >>> is_sealed("environment", {"seed": 1}) is None
    True
    """
    digests = digests_in(document)
    if name not in digests:
        return None
    rest = {key: one for key, one in digests.items() if key != name}
    return digest_of_document({**document, "sha256": rest}) == digests[name]


def digests_in(document: Mapping[str, Any]) -> dict[str, str]:
    """Return the digests that a JSON document records; empty if it records none."""
    digests = document.get("sha256")
    return {str(key): str(one) for key, one in digests.items()} if isinstance(digests, dict) else {}
