"""The table of photographs that a run or an external evaluation leaves behind."""

from collections.abc import Iterator
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_info

from bldml.errors import RunError
from bldml.io.atomic import write_atomically
from bldml.run.folder import RunFolder
from bldml.run.photographs import PhotographRow, differences, photographs_text, read_photograph_table
from bldml.training.data.datamodule import LeafDataModule

TABLE = "photographs.csv"


def rows_of(datamodule: LeafDataModule) -> Iterator[PhotographRow]:
    """A row for each photograph of a data module that has read them."""
    assert datamodule.collection is not None
    for split, samples in datamodule.collection.splits.items():
        contents = datamodule.contents_of(split)
        for sample, found, digest in zip(samples, contents.metadata, contents.digests, strict=True):
            width, height, camera, taken = (
                (found.width, found.height, found.camera, found.taken) if found else (0, 0, "", "")
            )
            known = (sample.name, split, sample.class_name, sample.group, width, height, camera, taken)
            yield PhotographRow(*known, digest)


def photographs_table(datamodule: LeafDataModule) -> str:
    """The table as CSV."""
    return photographs_text(rows_of(datamodule))


def compare_with_training(datamodule: LeafDataModule, folder: Path, run: RunFolder | None) -> None:
    """Write the table of an external set and say how it differs from the training photographs.

    Args:
        datamodule: With the external photographs.
        folder: `evaluations/<name>`.
        run: The run of the classifier; None where its checkpoint lies elsewhere.

    Raises:
        RunError: The table cannot be written.
    """
    write_atomically(folder / TABLE, photographs_table(datamodule))
    if run is None or not (run.path / TABLE).is_file():
        return
    assert datamodule.positive_class is not None
    try:
        training = [row for row in read_photograph_table(run.path / TABLE) if row.split == "train"]
    except RunError as error:
        rank_zero_info(f"How these photographs differ from those of the training is not known. {error}")
        return
    for sentence in differences(training, list(rows_of(datamodule)), datamodule.positive_class):
        rank_zero_info(sentence)
