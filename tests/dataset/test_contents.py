"""What many files hold, in arrays: it comes back as it was, and is small."""

import numpy as np
import pytest

from bldml.dataset.contents import Contents, MetadataTable
from bldml.dataset.duplicates.phash import NO_PHASH, PHASH_BYTES
from bldml.dataset.metadata import Metadata

ALL = (
    Metadata(
        4032, 3024, "Apple iPhone 12", "2024-06-01T12:30:00", "123", "JPEG", "RGB", 2, 6, True, "Display P3", 1.17
    ),
    None,
    Metadata(1, 2**31 + 5),
    Metadata(4032, 3024, "Apple iPhone 12", "2024-06-01T12:30:01", "012345678", "JPEG", "RGB", 2, 6, True),
    Metadata(3, 4, "Bl\u00e4tter \\xe9 \u5317", format="PNG", mode="I;16", orientation=-7, quantization=0.1 + 0.2),
)


def test_metadata_come_back() -> None:
    table = MetadataTable(len(ALL))
    assert list(table) == [None] * len(ALL)
    for row, metadata in enumerate(ALL):
        table[row] = metadata
    assert tuple(table) == ALL
    found = table[0]
    assert found is not None
    assert [type(value) for value in (found.width, found.taken, found.has_gps, found.quantization)] == [
        int, str, bool, float,
    ]  # fmt: skip
    assert tuple(table[1:4]) == ALL[1:4]
    table[0] = None
    assert table[0] is None
    with pytest.raises(IndexError):
        table[len(ALL)]


def test_aspects() -> None:
    table = MetadataTable(3)
    table[0], table[2] = Metadata(30, 20), Metadata(20, 30)
    assert table.aspects().tolist() == [1.5, 1.0, 2 / 3]
    assert table[1:].aspects().tolist() == [1.0, 2 / 3]


def test_a_part_is_no_copy() -> None:
    contents = Contents(4)
    for row in range(4):
        contents.take_down(row, f"{row:064x}", Metadata(row + 1, 9), NO_PHASH + row)
    part = contents[1:3]
    assert len(part) == 2
    assert list(part.digests) == [f"{row:064x}" for row in (1, 2)]
    assert [metadata and metadata.width for metadata in part.metadata] == [2, 3]
    np.testing.assert_array_equal(part.phashes, np.repeat([[1], [2]], PHASH_BYTES, 1))
    contents.take_down(1, "f" * 64, None, NO_PHASH)
    assert (part.digests[0], part.metadata[0], part.phashes[0].any()) == ("f" * 64, None, False)


def test_perceptual_hashes_are_forgotten() -> None:
    contents = Contents(3)[:2]
    contents.forget_phashes()
    assert contents.phashes.base is None  # nothing holds what is no longer shown
    assert contents.phashes.size == 0
    assert len(contents) == 2
    assert len(contents[1:].digests) == 1
