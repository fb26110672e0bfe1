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
    """
    if configured := given or os.environ.get(VARIABLE):
        return [Path(configured).expanduser()]
    return [Path(os.path.realpath(data)).parent / FOLDER, Path.cwd() / FOLDER]


def is_writable(folder: Path) -> bool:
    """Whether files can be made in a folder, or the folder can be made."""
    there = next((place for place in (folder, *folder.absolute().parents) if os.path.lexists(place)), None)
    return there is not None and os.path.isdir(there) and os.access(there, os.R_OK | os.W_OK | os.X_OK)  # noqa: PTH112


def make_cache_folder(folder: Path) -> None:
    """Make the folder of a cache where it is missing, and mark it as one that others need not keep, or raise OSError.

    A folder of another name that was there before is not marked: the user may have more in it.
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
        by_folders: Whether folders are the classes; a manifest's root may hold other things beside photographs.

    Raises:
        DatasetError: It lies there; links are followed.
    """
    configured = os.environ.get(VARIABLE, "") if given is None else str(given)
    if not configured:
        return
    place, root = Path(os.path.realpath(Path(configured).expanduser())), Path(os.path.realpath(collection.root))
    taken = {root}
    if not by_folders:
        taken = {Path(os.path.realpath(folder)) for folder in {s.path.parent for s in collection.samples()}}
    around = next((folder for folder in (place, *place.parents) if folder in taken), root if place == root else None)
    if around is None:
        return
    option, way_out = "--data.cache_dir", "omit --data.cache_dir"
    if given is None:
        option, way_out = f"environment variable {VARIABLE}", "unset the variable"
    where = "is" if place == around else "is inside"
    message = (
        f"The cache folder {show_path(configured)} ({option}) {where} the photograph folder {show_path(around)}. Use a "
        f"folder outside it, such as --data.cache_dir {show_path(root.parent / FOLDER)}, or {way_out}."
    )
    raise DatasetError(message, "cache-among-photographs", path=configured, root=around)
