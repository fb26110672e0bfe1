"""What an experiment must not forget: JSON documents with a checksum, which are read whole or refused."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bldml.dataset.files import show_path
from bldml.errors import RunError
from bldml.io.atomic import write_atomically
from bldml.io.documents import read_mapping
from bldml.run.digests.content import digest_of_document

_CHECKSUM = "sha256"


def write_record(path: Path, content: Mapping[str, Any]) -> None:
    """Write a document with the SHA-256 of its content as the last entry.

    Raises:
        MachineError: The file cannot be written.
    """
    content = json.loads(json.dumps(content))  # as it will be read: keys are text
    document = {**content, _CHECKSUM: digest_of_document(content)}
    write_atomically(path, json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def read_record(path: Path, what: str, **kinds: type) -> dict[str, Any]:
    """Return the content of a document without its checksum, which one of an older version does not have.

    Args:
        path: The file; without it, nothing is returned.
        what: What the file records, for the message: a noun clause.
        kinds: Entries that it must have, and their types.

    Raises:
        RunError: It is damaged or was changed.
    """
    if not os.path.lexists(path):
        return {}
    try:
        content = read_mapping(path)
    except RunError as error:
        raise _damaged(path, what, "it cannot be read as JSON") from error
    digest = content.pop(_CHECKSUM, None)
    if digest not in (None, digest_of_document(content)):
        raise _damaged(path, what, "its checksum is not that of its content")
    if wrong := [name for name, kind in kinds.items() if not isinstance(content.get(name), kind)]:
        raise _damaged(path, what, f"its {wrong[0]} is missing or wrong")
    return content


def _damaged(path: Path, what: str, reason: str) -> RunError:
    message = f"{show_path(path)} was damaged or changed: {reason}. It records {what}. Restore it from a copy."
    return RunError(message, "sweep-record-damaged", path=path, reason=reason)
