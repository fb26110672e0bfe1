"""The command `audit`: examine every photograph once, run the checks, write the results."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NoReturn

from bldml.audit.checks.lookalikes import GROUPS_COLUMNS, GROUPS_NAME, JOINED, groups_csv, is_searched
from bldml.audit.keypoints import KEYPOINTS_NAME, KeypointStore
from bldml.audit.outputs import audit_json, pairs_csv, photographs_csv, summary_text
from bldml.audit.page import audit_page
from bldml.audit.reading import examine_all
from bldml.audit.result import AuditResult, run_audit_checks
from bldml.audit.store import NAME, Store
from bldml.dataset.files import shell_word, show_path
from bldml.dataset.folders import read_folders, require_folder
from bldml.dataset.manifest import read_manifest
from bldml.dataset.samples import check_positive_class, no_photographs
from bldml.dataset.tables.reading import remove_table
from bldml.errors import DatasetError, UsageError
from bldml.io.atomic import make_folder, write_atomically
from bldml.io.documents import LARGEST_DOCUMENT, load_json
from bldml.io.safe_points import safe_point
from bldml.io.screen import complain
from bldml.io.system import hash_of_path, processors

MOST_PROCESSES = 256


def audit_photographs(
    root: Path,
    output: Path,
    *,
    version: str,
    manifest: Path | None = None,
    positive_class: str | None = None,
    class_aliases: Mapping[str, str] | None = None,
    workers: int | None = None,
    power: bool = True,
    look_alikes: Literal["auto", "keypoints", "off"] = "auto",
    quiet: bool = False,
) -> tuple[AuditResult, str]:
    """Audit a data folder and write `audit.html`, `audit.csv`, `pairs.csv` and `audit.json`.

    The arguments are those of the command `audit`; None `workers` are one per CPU.

    Returns:
        The result, and its summary for the terminal.

    Raises:
        DatasetError: The photographs cannot be found, or the audit cannot be done.
        RunError: A file cannot be written.
    """
    if workers is not None and not 1 <= workers <= MOST_PROCESSES:
        message = f"--workers must be auto or from 1 to {MOST_PROCESSES}, not {workers}."
        raise UsageError(message, "workers-out-of-range", found=workers, expected=MOST_PROCESSES)
    workers = processors() if workers is None else workers
    require_folder(root)
    check_output(output, root)
    if manifest is not None:
        collection = read_manifest(manifest, root, class_aliases)
    else:
        collection = read_folders(root, aliases=class_aliases)
    if not any(collection.splits.values()) and not collection.heif:
        raise DatasetError(no_photographs(collection), "photographs-none", path=root)
    positive = collection.class_names[0] if len(collection.class_names) == 2 else ""
    if positive_class is not None:
        positive = check_positive_class(positive_class, collection.class_names)
    make_folder(output)
    store, keypoints = Store(output), None
    used: set[str] | None = None
    try:
        check_output(output, root)  # again, behind the lock: another audit may have written there in the meantime
        keypoints = KeypointStore(output) if is_searched(look_alikes, collection) else None
        rows = examine_all(collection, store, workers, keypoints=keypoints, quiet=quiet)
        used = {row.file.digest for row in rows}
        result = run_audit_checks(manifest, collection, rows, positive, output, keypoints, power=power, quiet=quiet)
        files = _write(output, _files(result, version, workers))
    finally:
        if keypoints is not None:
            keypoints.close(used)
        store.close(complete=used is not None)
    return result, summary_text(result, [show_path(path) for path in files])


def _write(output: Path, files: Mapping[str, str]) -> list[Path]:
    for name, text in files.items():
        safe_point()
        write_atomically(output / name, text)
    table = output / GROUPS_NAME
    if GROUPS_NAME not in files and not remove_table(table, GROUPS_COLUMNS, _are_groups):  # of an earlier audit
        complain(f"{show_path(table)} is not of this audit, which has no look-alikes.\n")
    return [output / name for name in files]


def _are_groups(rows: list[dict[str, str]]) -> bool:
    return any(row["group"].startswith(f"{JOINED} ") for row in rows)


def _files(result: AuditResult, version: str, workers: int) -> dict[str, str]:
    """Return the text of each file of the results, by name."""
    files = {
        "audit.json": audit_json(result, version),  # first: it identifies the other files as an audit's
        "audit.csv": photographs_csv(result),
        "pairs.csv": pairs_csv(result),
        "audit.html": audit_page(result, version, workers),
    }
    if result.look_alikes.pairs:
        files[GROUPS_NAME] = groups_csv(result.readable, result.look_alikes)
    return files


def check_output(output: Path, root: Path) -> None:
    """Check that the output folder is outside the data folder, and that no files of others in it are overwritten.

    Raises:
        DatasetError: It is inside, or contains the audit of another data folder or files that are not an audit's.
    """
    real, real_root = Path(os.path.realpath(output)), Path(os.path.realpath(root))
    if real.is_relative_to(real_root):
        other = shell_word(show_path(real_root.parent / "audit"))
        where = "is" if real == real_root else "is inside"
        raise DatasetError(
            f"The output folder {show_path(output)} {where} the data folder {show_path(root)}. Choose a folder outside "
            f"it, such as --output {other}.",
            "audit-output-among-photographs",
            path=output,
            root=root,
        )
    others = [name for name in ("audit.csv", "audit.html", "pairs.csv", GROUPS_NAME) if os.path.lexists(output / name)]
    if os.path.lexists(output / "audit.json"):
        _check_own(output, root)
    elif others:
        _refuse(output / others[0], "exists without an audit.json and may not be an audit's")
    if os.path.lexists(output / NAME) and not _read(output / NAME, 64).startswith(b'{"examined_by"'):
        _refuse(output / NAME, "was not written by an audit")
    if os.path.lexists(output / KEYPOINTS_NAME) and not _read(output / KEYPOINTS_NAME, 64).startswith(
        b'{"keypoints_by"'
    ):
        _refuse(output / KEYPOINTS_NAME, "was not written by an audit")


def _check_own(output: Path, root: Path) -> None:
    path = output / "audit.json"
    try:
        content = load_json(_read(path, LARGEST_DOCUMENT))
    except ValueError:
        content = None
    if not isinstance(content, dict) or not {"bldml", "root"} <= content.keys():
        _refuse(path, "was not written by an audit")
    # Version 0.1 wrote the hash as "place", and before that only the path as it was typed.
    stored = content.get("root_hash", content.get("place"))
    same_root = content["root"] == show_path(root) if stored is None else stored == hash_of_path(root)
    if not same_root:
        raise DatasetError(
            f"{show_path(output)} contains the audit of another data folder, {show_path(str(content['root']))}. "
            "Nothing was written. Choose another --output. If the data folder was only moved or renamed, move "
            f"audit.json, audit.csv, audit.html, pairs.csv and {GROUPS_NAME} away; photographs already read are not "
            "read again.",
            "audit-output-of-other-data",
            path=output,
            found=content["root"],
        )


def _refuse(path: Path, why: str) -> NoReturn:
    message = f"{show_path(path)} {why}. Nothing was written. Choose another --output, or move the file away."
    raise DatasetError(message, "audit-output-foreign", path=path)


def _read(path: Path, size: int = -1) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(size)
    except OSError as error:
        message = f"Cannot read {show_path(path)}: {error.strerror}. Choose another --output."
        raise DatasetError(message, "audit-output-unreadable", path=path, reason=error.strerror) from error
