"""The files of a run folder as a report needs them: each is read whole, or refused with a message that names it."""

import csv
import json
import math
from pathlib import Path
from typing import Any

import yaml

from bldml.errors import RunError
from bldml.io.text import plain
from bldml.metrics.registry import canonical

SCHEMA = 1
"""The newest version of a JSON document that is understood; one without a number is of before 0.2."""

Row = dict[str, str]


def text_at(values: object, *keys: str) -> str:
    """A value inside nested mappings as text; empty where there is none.

    >>> text_at({"model": {"lr": 0.1}}, "model", "lr"), text_at({}, "model", "lr")
    ('0.1', '')
    """
    for key in keys:
        values = values.get(key) if isinstance(values, dict) else None
    return "" if values is None or isinstance(values, dict | list) else plain(str(values))


def read_json(path: Path) -> dict[str, Any]:
    """A mapping from a JSON file; empty where there is no such file.

    Raises:
        RunError: The file is damaged, or of a newer version of bldml.
    """
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunError(f"Cannot read {path}: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path} is not JSON: {error}. Put the file back as it was, or move it away.") from error
    if not isinstance(value, dict):
        raise RunError(f"{path} must hold a mapping. Put the file back as it was, or move it away.")
    if isinstance(schema := value.get("schema", 0), int) and schema > SCHEMA:
        raise RunError(f"{path} was written by a newer version of bldml (schema {schema}). Install that version.")
    return value


class _TextLoader(yaml.SafeLoader):
    """Scalars are text (`No` is a class name, not False) or, for null, None."""


_TextLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.endswith((":null", ":merge"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read_config(path: Path) -> dict[str, Any]:
    """A configuration, every scalar of it text or None; empty where there is no such file.

    Raises:
        RunError: It is damaged.
    """
    if not path.is_file():
        return {}
    try:
        value = yaml.load(path.read_text(encoding="utf-8"), Loader=_TextLoader)
    except OSError as error:
        raise RunError(f"Cannot read {path}: {error.strerror}.") from error
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise RunError(f"{path} is no configuration: {error}. Put the file back as it was.") from error
    if not isinstance(value, dict):
        raise RunError(f"{path} is no configuration: it holds no settings. Put the file back as it was.")
    return value


def read_table(path: Path, columns: tuple[str, ...]) -> tuple[Row, ...]:
    """A table from a CSV file; empty where there is no such file.

    Args:
        path: The file.
        columns: Those that it must have.

    Raises:
        RunError: The file is damaged.
    """
    if not path.is_file():
        return ()
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True, restval="", restkey="")
            rows = [{key: value for key, value in row.items() if isinstance(value, str)} for row in reader]
    except OSError as error:
        raise RunError(f"Cannot read {path}: {error.strerror}.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise RunError(f"{path} is no CSV in UTF-8: {error}. Put the file back as it was.") from error
    missing = [column for column in columns if column not in (reader.fieldnames or ())]
    if missing:
        raise RunError(f"{path} has no column {', '.join(missing)}. Put the file back as it was.")
    return tuple(rows)


def read_epochs(path: Path) -> tuple[dict[str, float | None], ...]:
    """The numbers of a history, also one of 0.1, by the names of today; None where a cell is empty or not finite.

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
                raise RunError(f"{path}, row {line}: {key} is {cell!r}, which is no number. Mend the row.") from error
            values[canonical(key)] = value if value is not None and math.isfinite(value) else None
        if values["epoch"] is None:
            raise RunError(f"{path}, row {line}: there is no epoch. Mend the row.")
        epochs.append(values)
    return tuple(epochs)
