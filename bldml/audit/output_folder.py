"""The output folder of an audit: outside the data folder, and no files of others in it are overwritten."""

import json
import os
import shlex
from pathlib import Path

from bldml.audit.store import NAME
from bldml.dataset.files import show_path
from bldml.errors import DatasetError
from bldml.io.system import hash_of_path

OWN = ("audit.csv", "audit.html", "pairs.csv")
INTACT = "Nothing was written."


def check_output(output: Path, root: Path) -> None:
    """Check that an audit of a data folder may write to an output folder.

    Raises:
        DatasetError: The output folder is inside the data folder, or contains the audit of another data folder or
            files that are not an audit's.
    """
    real, real_root = Path(os.path.realpath(output)), Path(os.path.realpath(root))
    if real.is_relative_to(real_root):
        other = shlex.quote(show_path(real_root.parent / "audit"))
        where = "is" if real == real_root else "is inside"
        raise DatasetError(
            f"The output folder {show_path(output)} {where} the data folder {show_path(root)}. Choose a folder outside "
            f"it, such as --output {other}.",
            "audit-output-among-photographs",
            path=output,
            root=root,
        )
    if _exists(output / "audit.json"):
        _check_own(output, root)
    elif found := [name for name in OWN if _exists(output / name)]:
        raise DatasetError(
            f"{show_path(output / found[0])} exists without an audit.json and may not be an audit's. {INTACT} Choose "
            "another --output, or move the file away.",
            "audit-output-foreign",
            path=output / found[0],
        )
    if _exists(output / NAME) and not _read(output / NAME, 64).startswith(b'{"examined_by"'):
        raise DatasetError(
            f"{show_path(output / NAME)} was not written by an audit. {INTACT} "
            "Choose another --output, or move the file away.",
            "audit-output-foreign",
            path=output / NAME,
        )


def _check_own(output: Path, root: Path) -> None:
    path = output / "audit.json"
    try:
        content = json.loads(_read(path))
    except ValueError:
        content = None
    if not isinstance(content, dict) or not {"bldml", "root"} <= content.keys():
        message = f"{show_path(path)} was not written by an audit. {INTACT} "
        message += "Choose another --output, or move the file away."
        raise DatasetError(message, "audit-output-foreign", path=path)
    # Version 0.1 wrote the hash as "place", and before that only the path as it was typed.
    stored = content.get("root_hash", content.get("place"))
    same_root = content["root"] == show_path(root) if stored is None else stored == hash_of_path(root)
    if not same_root:
        raise DatasetError(
            f"{show_path(output)} contains the audit of another data folder, {show_path(str(content['root']))}. "
            f"{INTACT} Choose another --output. If the data folder was only moved or renamed, move audit.json, "
            "audit.csv, audit.html and pairs.csv away; photographs already read are not read again.",
            "audit-output-of-other-data",
            path=output,
            found=content["root"],
        )


def _exists(path: Path) -> bool:
    return os.path.lexists(path)


def _read(path: Path, size: int = -1) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(size)
    except OSError as error:
        message = f"Cannot read {show_path(path)}: {error.strerror}. Choose another --output."
        raise DatasetError(message, "audit-output-unreadable", path=path, reason=error.strerror) from error
