"""`bldml audit`: read everything once, say what is wrong, write it down."""

from collections.abc import Mapping
from pathlib import Path

from bldml.audit.audited import Audited, judge_photographs
from bldml.audit.division import is_undivided
from bldml.audit.outputs import audit_json, lines, pairs_csv, photographs_csv
from bldml.audit.page import audit_page
from bldml.audit.place import check_output
from bldml.audit.reading import processors, read_all
from bldml.audit.store import Store
from bldml.dataset.files import show_path
from bldml.dataset.folders import read_folders, require_folder
from bldml.dataset.manifest import read_manifest
from bldml.dataset.samples import Collection, check_positive_class, no_photographs
from bldml.errors import DatasetError
from bldml.io.atomic import make_folder, write_atomically


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
) -> tuple[Audited, str]:
    """Audit a data folder and write `audit.html`, `audit.csv`, `pairs.csv` and `audit.json`.

    Args:
        root: Split folders, class folders, or what a manifest's paths start from.
        output: Folder for what is written; an earlier audit there is gone on with.
        version: Of bldml.
        manifest: Manifest that divides the photographs.
        positive_class: The class that shortcuts are looked for; of two classes either will do.
        class_aliases: Class name for a folder's name, where they differ.
        workers: Processes that read; None for as many as there are processors.
        quiet: Show no progress.

    Returns:
        What was found, and lines for the screen.

    Raises:
        DatasetError: The photographs cannot be found, or the audit cannot be done.
        RunError: Something cannot be written.
    """
    if workers is not None and workers < 1:
        raise DatasetError(f"--workers is {workers}; it must be at least 1.")
    workers = processors() if workers is None else workers
    require_folder(root)
    check_output(output, root)
    if manifest is not None:
        collection = read_manifest(manifest, root, class_aliases)
    else:
        collection = read_folders(root, aliases=class_aliases)
    if not any(collection.splits.values()) and not collection.heif:
        raise DatasetError(no_photographs(collection))
    positive = _positive(collection, positive_class)
    make_folder(output)
    store = Store(output)
    complete = False
    try:
        rows = read_all(collection, store, workers, quiet=quiet)
        complete = True
    finally:
        store.close(complete=complete)
    audited = judge_photographs(root, manifest, collection, rows, positive, undivided=is_undivided(root, manifest))
    files = {
        "audit.json": audit_json(audited, version),  # first: by it the others are known as an audit's
        "audit.csv": photographs_csv(audited),
        "pairs.csv": pairs_csv(audited),
        "audit.html": audit_page(audited, version, workers),
    }
    for name, text in files.items():
        write_atomically(output / name, text)
    return audited, lines(audited, [show_path(output / name) for name in files])


def _positive(collection: Collection, positive_class: str | None) -> str:
    """The class to be predicted: as given, or of two either; empty where there is no telling."""
    names = collection.class_names
    if positive_class is not None:
        return check_positive_class(positive_class, names)
    return names[0] if len(names) == 2 else ""
