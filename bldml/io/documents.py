"""JSON documents that hold a mapping, as all of bldml's do."""

import json
from pathlib import Path
from typing import Any

from bldml.errors import RunError


def read_mapping(path: Path) -> dict[str, Any]:
    """Read a JSON document.

    Raises:
        RunError: The file is missing or damaged; the message names it.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunError(
            f"Cannot read {path}: {error.strerror}. Check the path and your permissions.", "json-unreadable", path=path
        ) from error
    except (ValueError, RecursionError) as error:
        message = f"{path} is not valid JSON: {error}. Restore the file, or move it away."
        raise RunError(message, "json-damaged", path=path) from error
    if not isinstance(value, dict):
        message = f"{path} must contain a JSON object. Restore the file, or move it away."
        raise RunError(message, "json-no-mapping", path=path, found=type(value).__name__)
    return value


def mapping_or_nothing(path: Path) -> dict[str, Any]:
    """Read an optional JSON document; return an empty mapping if it is missing or damaged."""
    try:
        return read_mapping(path)
    except RunError:
        return {}
