"""Where an audit may write: never among the photographs, never over what is not its own."""

import hashlib
import json
import os
import shlex
from pathlib import Path

from bldml.audit.store import NAME
from bldml.dataset.files import show_path
from bldml.errors import DatasetError

OWN = ("audit.csv", "audit.html", "pairs.csv")
INTACT = "Nothing was written."


def place_of(root: Path) -> str:
    """What an audit remembers of where its data folder lies; a hash, because audits are passed on and paths are not."""
    return hashlib.sha256(os.fsencode(os.path.realpath(root))).hexdigest()[:24]


def check_output(output: Path, root: Path) -> None:
    """Check that nothing is spoilt by writing an audit of a data folder there.

    Raises:
        DatasetError: The output lies among the photographs, or holds the audit of another folder or files of others.
    """
    real, real_root = Path(os.path.realpath(output)), Path(os.path.realpath(root))
    if real.is_relative_to(real_root):
        other = shlex.quote(show_path(real_root.parent / "audit"))
        where = "is" if real == real_root else "lies inside"
        raise DatasetError(
            f"The output folder {show_path(output)} {where} the data folder {show_path(root)}; an audit does not write "
            f"among the photographs. Give a folder outside it, for example --output {other}."
        )
    if _exists(output / "audit.json"):
        _check_own(output, root)
    elif found := [name for name in OWN if _exists(output / name)]:
        raise DatasetError(
            f"{show_path(output / found[0])} is there, but no audit.json beside it, so it may be something else's. "
            f"{INTACT} Give another --output, or move it away."
        )
    if _exists(output / NAME) and not _read(output / NAME, 64).startswith(b'{"examined_by"'):
        raise DatasetError(
            f"{show_path(output / NAME)} was not written by an audit. {INTACT} Give another --output, or move it away."
        )


def _check_own(output: Path, root: Path) -> None:
    path = output / "audit.json"
    try:
        content = json.loads(_read(path))
    except ValueError:
        content = None
    if not isinstance(content, dict) or not {"bldml", "root"} <= content.keys():
        raise DatasetError(
            f"{show_path(path)} was not written by an audit. {INTACT} Give another --output, or move it away."
        )
    # An audit from before places were written down tells the folder as it was given.
    known = content["place"] == place_of(root) if "place" in content else content["root"] == show_path(root)
    if not known:
        raise DatasetError(
            f"{show_path(output)} holds the audit of another data folder, {show_path(str(content['root']))}. {INTACT} "
            "Give another --output. If it is the same folder, moved or renamed: move audit.json, audit.csv, "
            "audit.html and pairs.csv away; what was read is kept."
        )


def _exists(path: Path) -> bool:
    return os.path.lexists(path)


def _read(path: Path, most: int = -1) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(most)
    except OSError as error:
        raise DatasetError(f"Cannot read {show_path(path)}: {error.strerror}. Give another --output.") from error
