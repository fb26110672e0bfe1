"""JSON documents that hold a mapping, as all of bldml's do."""

import json
from pathlib import Path
from typing import Any

from bldml.errors import RunError


def read_mapping(path: Path) -> dict[str, Any]:
    """Read a JSON document.

    Raises:
        RunError: There is none, or it is damaged; the message names the file.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunError(f"Cannot read {path}: {error.strerror}.", "json-unreadable", path=path) from error
    except (ValueError, RecursionError) as error:
        message = f"{path} is not JSON: {error}. Restore the file, or move it away."
        raise RunError(message, "json-damaged", path=path) from error
    if not isinstance(value, dict):
        message = f"{path} must hold a mapping. Restore the file, or move it away."
        raise RunError(message, "json-no-mapping", path=path, found=type(value).__name__)
    return value


def mapping_or_nothing(path: Path) -> dict[str, Any]:
    """Read a JSON document that nothing hangs on: empty where there is none, or a damaged one."""
    try:
        return read_mapping(path)
    except RunError:
        return {}
