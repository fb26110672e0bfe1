"""The command `audit`: examine every photograph once, run the checks, write the results."""

from collections.abc import Mapping
from pathlib import Path

from bldml.audit.output_folder import check_output
from bldml.audit.outputs import audit_json, pairs_csv, photographs_csv, summary_text
from bldml.audit.page import audit_page
from bldml.audit.reading import examine_all
from bldml.audit.result import AuditResult, run_audit_checks
from bldml.audit.store import Store
from bldml.dataset.files import show_path
from bldml.dataset.folders import read_folders, require_folder
from bldml.dataset.manifest import read_manifest
from bldml.dataset.samples import Collection, check_positive_class, no_photographs
from bldml.errors import DatasetError, UsageError
from bldml.io.atomic import make_folder, write_atomically
from bldml.io.system import processors


def audit_photographs(
    root: Path,
    output: Path,
    *,
    version: str,
    manifest: Path | None = None,
    positive_class: str | None = None,
    class_aliases: Mapping[str, str] | None = None,
    workers: int | None = None,
    quiet: bool = False,
) -> tuple[AuditResult, str]:
    """Audit a data folder and write `audit.html`, `audit.csv`, `pairs.csv` and `audit.json`.

    Args:
        root: Folder with split folders or class folders, or the folder that a manifest's paths are relative to.
        output: Folder for the results; a previous audit in it is resumed.
        version: Version of bldml.
        manifest: Manifest with the splits.
        positive_class: The class to test shortcuts for; with two classes it may be left out.
        class_aliases: Class name by folder name, where they differ.
        workers: Number of reading processes; None for one per CPU.
        quiet: Show no progress bar.

    Returns:
        The result, and its summary for the terminal.

    Raises:
        DatasetError: The photographs cannot be found, or the audit cannot be done.
        RunError: A file cannot be written.
    """
    if workers is not None and workers < 1:
        raise UsageError(f"--workers must be auto or at least 1, not {workers}.", "workers-too-few", found=workers)
    workers = processors() if workers is None else workers
    require_folder(root)
    check_output(output, root)
    if manifest is not None:
        collection = read_manifest(manifest, root, class_aliases)
    else:
        collection = read_folders(root, aliases=class_aliases)
    if not any(collection.splits.values()) and not collection.heif:
        raise DatasetError(no_photographs(collection), "photographs-none", path=root)
    positive = _positive(collection, positive_class)
    make_folder(output)
    store = Store(output)
    complete = False
    try:
        rows = examine_all(collection, store, workers, quiet=quiet)
        complete = True
    finally:
        store.close(complete=complete)
    result = run_audit_checks(root, manifest, collection, rows, positive)
    files = {
        "audit.json": audit_json(result, version),  # first: it identifies the other files as an audit's
        "audit.csv": photographs_csv(result),
        "pairs.csv": pairs_csv(result),
        "audit.html": audit_page(result, version, workers),
    }
    for name, text in files.items():
        write_atomically(output / name, text)
    return result, summary_text(result, [show_path(output / name) for name in files])


def _positive(collection: Collection, positive_class: str | None) -> str:
    """Return the class to predict: the one given, or the first of two; empty for any other number of classes."""
    names = collection.class_names
    if positive_class is not None:
        return check_positive_class(positive_class, names)
    return names[0] if len(names) == 2 else ""
