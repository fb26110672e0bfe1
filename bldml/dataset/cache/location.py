"""Whether decoded pixels may be kept where the user says: not among the photographs themselves."""

import os
from pathlib import Path

from bldml.dataset.cache.writer import FOLDER, VARIABLE
from bldml.dataset.files import show_path
from bldml.dataset.samples import Collection
from bldml.errors import DatasetError


def check_place(given: Path | None, collection: Collection, *, by_folders: bool) -> None:
    """Refuse a folder for decoded pixels that lies among the photographs, as far as the user has named one.

    What lies in a data folder is taken for a class sooner or later, copied with it and counted with it.

    Args:
        given: The configuration's folder; None for that of the environment variable, if there is one.
        collection: The photographs.
        by_folders: Whether folders are the classes, so that nothing else belongs below the root. A manifest's root may
            hold other things beside the folders with photographs.

    Raises:
        DatasetError: It lies there; links are followed.
    """
    told = os.environ.get(VARIABLE, "") if given is None else str(given)
    if not told:
        return
    place, root = Path(os.path.realpath(Path(told).expanduser())), Path(os.path.realpath(collection.root))
    taken = {root}
    if not by_folders:
        parents = {sample.path.parent for samples in collection.splits.values() for sample in samples}
        taken = {Path(os.path.realpath(parent)) for parent in parents}
    around = next((folder for folder in (place, *place.parents) if folder in taken), root if place == root else None)
    if around is None:
        return
    option = "data.cache_dir" if given is not None else f"The environment variable {VARIABLE}"
    beside = show_path(root.parent / FOLDER)
    where = "is" if place == around else "lies in"
    raise DatasetError(
        f"{option} {show_path(told)} {where} a folder of the photographs themselves, {show_path(around)}; decoded "
        f"pixels do not belong there. Give a folder outside, such as --data.cache_dir {beside}, or "
        f"{'leave it out' if given is not None else 'unset the variable'}."
    )
