"""Where images may be cached: the folders, in which order, and not among the photographs themselves."""

import os
from contextlib import suppress
from pathlib import Path

from bldml.dataset.files import show_path
from bldml.dataset.samples import Collection
from bldml.errors import DatasetError

VARIABLE = "BLDML_CACHE"
FOLDER = ".bldml_cache"

# Programs that keep versions, or back up, pass over a folder with these. https://bford.info/cachedir/
_MARKS = {
    ".gitignore": "*\n",
    "CACHEDIR.TAG": "Signature: 8a477f597d28d172789f06886806bc55\n# Images cached by bldml; may be deleted when no run "
    "uses them. See https://bford.info/cachedir/\n",
}


def find_folders(given: Path | None, data: Path) -> list[Path]:
    """Return the folders that cached images may lie in, best first.

    The configured folder, else that of the environment variable BLDML_CACHE, and no other then. Otherwise beside the
    data folder, where there is room for photographs, and in the working directory, for data folders beside which the
    user may not write. Never in the home folder, which is small on clusters, nor in a temporary one, which may be in
    memory.

    Args:
        given: The configured folder.
        data: The data folder.
    """
    if given is not None:
        return [given.expanduser()]
    if os.environ.get(VARIABLE):
        return [Path(os.environ[VARIABLE]).expanduser()]
    return [Path(os.path.realpath(data)).parent / FOLDER, Path.cwd() / FOLDER]


def is_writable(folder: Path) -> bool:
    """Whether files can be made in a folder, or the folder can be made."""
    there = next((place for place in (folder, *folder.absolute().parents) if os.path.lexists(place)), None)
    return there is not None and os.path.isdir(there) and os.access(there, os.R_OK | os.W_OK | os.X_OK)  # noqa: PTH112


def make_cache_folder(folder: Path) -> None:
    """Make the folder of a cache where it is missing, and mark it as one that others need not keep.

    A folder of another name that was there before is not marked: the user may have more in it.

    Raises:
        OSError: It cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        if folder.name != FOLDER:
            return
    for name, text in _MARKS.items():
        with suppress(FileExistsError), (folder / name).open("x", encoding="utf-8") as file:
            file.write(text)


def check_place(given: Path | None, collection: Collection, *, by_folders: bool) -> None:
    """Refuse a cache folder that lies among the photographs, as far as the user has named one.

    What lies in a data folder is taken for a class sooner or later, copied with it and counted with it.

    Args:
        given: The configured folder; None for that of the environment variable, if there is one.
        collection: The photographs.
        by_folders: Whether folders are the classes, so that nothing else belongs below the root. A manifest's root may
            hold other things beside the folders with photographs.

    Raises:
        DatasetError: It lies there; links are followed.
    """
    configured = os.environ.get(VARIABLE, "") if given is None else str(given)
    if not configured:
        return
    place, root = Path(os.path.realpath(Path(configured).expanduser())), Path(os.path.realpath(collection.root))
    taken = {root}
    if not by_folders:
        parents = {sample.path.parent for samples in collection.splits.values() for sample in samples}
        taken = {Path(os.path.realpath(parent)) for parent in parents}
    around = next((folder for folder in (place, *place.parents) if folder in taken), root if place == root else None)
    if around is None:
        return
    option = "--data.cache_dir" if given is not None else f"environment variable {VARIABLE}"
    beside = show_path(root.parent / FOLDER)
    where = "is" if place == around else "is inside"
    raise DatasetError(
        f"The cache folder {show_path(configured)} ({option}) {where} the photograph folder {show_path(around)}. Use a "
        f"folder outside it, such as --data.cache_dir {beside}, or "
        f"{'omit --data.cache_dir' if given is not None else 'unset the variable'}.",
        "cache-among-photographs",
        path=configured,
        root=around,
    )
