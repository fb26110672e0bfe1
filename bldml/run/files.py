"""CSV, JSON and YAML of a run folder: a file is read completely, or refused with a message that names it."""

import csv
import io
import math
from pathlib import Path
from typing import Any

import yaml

from bldml.errors import RunError
from bldml.io.documents import LARGEST_CONFIGURATION, TextLoader, load_yaml, read_mapping, read_text
from bldml.io.text import plain
from bldml.metrics.registry import canonical

SCHEMA = 1
"""The newest schema of a JSON document that is understood; documents written before 0.2 have none."""

Row = dict[str, str]


def text_at(values: object, *keys: str) -> str:
    """Return a value inside nested mappings as text; empty where there is none.

    >>> text_at({"model": {"lr": 0.1}}, "model", "lr"), text_at({}, "model", "lr")
    ('0.1', '')
    """
    for key in keys:
        values = values.get(key) if isinstance(values, dict) else None
    return "" if values is None or isinstance(values, dict | list) else plain(str(values))


def read_json(path: Path) -> dict[str, Any]:
    """Return the mapping in a JSON file; empty if the file does not exist.

    Raises:
        RunError: The file is damaged, or of a newer version of bldml.
    """
    if not path.is_file():
        return {}
    value = read_mapping(path)
    if isinstance(schema := value.get("schema", 0), int) and schema > SCHEMA:
        message = f"{path} was written by a newer version of bldml (schema {schema}). Install that version."
        raise RunError(message, "document-newer", path=path, found=schema, expected=SCHEMA)
    return value


def read_config(path: Path) -> dict[str, Any]:
    """Return a configuration, every scalar of it text or None; empty if the file does not exist.

    Raises:
        RunError: It is damaged.
    """
    if not path.is_file():
        return {}
    try:
        value = load_yaml(read_text(path, LARGEST_CONFIGURATION), TextLoader)
    except OSError as error:
        raise RunError(
            f"Cannot read {path}: {error.strerror}.", "run-config-unreadable", path=path, reason=error.strerror
        ) from error
    except (ValueError, yaml.YAMLError) as error:
        message = f"{path} is not a configuration: {error}. Restore the original file."
        raise RunError(message, "run-config-damaged", path=path, reason=str(error)) from error
    if not isinstance(value, dict):
        message = f"{path} is not a configuration: it contains no settings. Restore the original file."
        raise RunError(message, "run-config-no-mapping", path=path)
    return value


def read_table(path: Path, columns: tuple[str, ...]) -> tuple[Row, ...]:
    """Return the rows of a CSV file; none if the file does not exist.

    Raises:
        RunError: The file is damaged, or lacks one of the columns.
    """
    if not path.is_file():
        return ()
    try:
        reader = csv.DictReader(io.StringIO(read_text(path), newline=""), strict=True, restval="", restkey="")
        rows = [{key: value for key, value in row.items() if isinstance(value, str)} for row in reader]
    except OSError as error:
        raise RunError(
            f"Cannot read {path}: {error.strerror}.", "run-table-unreadable", path=path, reason=error.strerror
        ) from error
    except (ValueError, csv.Error) as error:
        message = f"{path} is not CSV in UTF-8: {error}. Restore the original file."
        raise RunError(message, "run-table-damaged", path=path, reason=str(error)) from error
    missing = [column for column in columns if column not in (reader.fieldnames or ())]
    if missing:
        message = f"{path} has no column {', '.join(missing)}. Restore the original file."
        raise RunError(message, "run-table-column-missing", path=path, expected=missing)
    return tuple(rows)


def read_epochs(path: Path) -> tuple[dict[str, float | None], ...]:
    """Return the numbers of a history, also of version 0.1, by current names; None if a cell is empty or not finite.

    Raises:
        RunError: The file is damaged.
    """
    epochs = []
    for line, row in enumerate(read_table(path, ("epoch",)), 2):
        values: dict[str, float | None] = {}
        for key, cell in row.items():
            try:
                value = float(cell) if cell else None
            except ValueError as error:
                message = f"{path}, row {line}: {key} is {cell!r}, which is not a number. Correct the row."
                raise RunError(message, "cell-no-number", path=path, row=line, key=key, found=cell) from error
            values[canonical(key)] = value if value is not None and math.isfinite(value) else None
        if values["epoch"] is None:
            raise RunError(
                f"{path}, row {line}: the epoch is missing. Correct the row.", "epoch-missing", path=path, row=line
            )
        epochs.append(values)
    return tuple(epochs)
