"""photographs.csv: the table of the photographs of a run or an external evaluation."""

from collections.abc import Iterator
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_info

from bldml.errors import RunError
from bldml.io.atomic import write_atomically
from bldml.run.folder import RunFolder
from bldml.run.photographs import PhotographRow, differences, photographs_text, read_photograph_table
from bldml.training.data.reading import PreparedData

TABLE = "photographs.csv"


def rows_of(data: PreparedData) -> Iterator[PhotographRow]:
    """Yield one row per photograph."""
    for split, samples in data.collection.splits.items():
        contents = data.contents_of(split)
        for sample, metadata, digest in zip(samples, contents.metadata, contents.digests, strict=True):
            width, height, camera, taken = (
                (metadata.width, metadata.height, metadata.camera, metadata.taken) if metadata else (0, 0, "", "")
            )
            fields = (sample.name, split, sample.class_name, sample.group, width, height, camera, taken)
            yield PhotographRow(*fields, digest)


def photographs_table(data: PreparedData) -> str:
    """Return the table as CSV."""
    return photographs_text(rows_of(data))


def compare_with_training(data: PreparedData, folder: Path, run: RunFolder | None) -> None:
    """Write the table of an external set, and print how it differs from the training photographs.

    Args:
        data: The external photographs.
        folder: `evaluations/<name>`.
        run: The run of the classifier; None if its checkpoint is outside a run folder.

    Raises:
        RunError: The table cannot be written.
    """
    write_atomically(folder / TABLE, photographs_table(data))
    if run is None or not (run.path / TABLE).is_file():
        return
    assert data.positive_class is not None
    try:
        training = [row for row in read_photograph_table(run.path / TABLE) if row.split == "train"]
    except RunError as error:
        rank_zero_info(f"These photographs were not compared with the training photographs. {error}")
        return
    for sentence in differences(training, list(rows_of(data)), data.positive_class):
        rank_zero_info(sentence)
