"""Resized images, read from the cache."""

import os
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import Image

from bldml.dataset.cache.format import RowIndex, Rows, cache_name, read_shards, row_bytes, write_at
from bldml.dataset.images import ResizedImage, resize_to_square


class CachedImages:
    """The cached images of some photographs, read by the photographs' numbers.

    Holds arrays and no objects of its own for each photograph: processes that are forked from this one would copy them.

    Args:
        folders: Of the cache.
        side: Of the images, in pixels.
        target_size: See `cache_name`.
        digests: SHA-256 of the photographs' files.
    """

    def __init__(self, folders: Sequence[Path], side: int, target_size: int, digests: Sequence[str]) -> None:
        self.side = side
        shards = read_shards(folders, cache_name(side, target_size), side, with_metadata=False)
        index = RowIndex(shards)
        self._shard, self._row = np.full(len(digests), -1, np.int16), np.zeros(len(digests), np.int64)
        self._checksum = np.zeros(len(digests), np.uint32)
        for number, digest in enumerate(digests):
            if (found := index.find(digest)) is not None:
                shard, row = found
                self._shard[number], self._row[number] = found
                self._checksum[number] = shards[shard].checksums[row, 0]
        self._files = {int(shard): Rows(shards[shard].rows, side) for shard in np.unique(self._shard) if shard >= 0}

    def __len__(self) -> int:
        """Return how many of the photographs have a cached image."""
        return int((self._shard >= 0).sum())

    def read(self, number: int) -> ResizedImage | None:
        """Return the image of a photograph; None where none is cached.

        Raises:
            DamagedRow: It is not what was written, or cannot be read any more.
        """
        rows = self._files.get(int(self._shard[number]))
        return None if rows is None else rows.image(int(self._row[number]), int(self._checksum[number]))

    def repair(self, number: int, photograph: Image.Image) -> None:
        """Write a damaged image again, where that is possible and the photograph is still the same."""
        data = resize_to_square(photograph, self.side).tobytes()
        if zlib.crc32(data) != self._checksum[number]:
            return
        with suppress(OSError):
            file = os.open(self._files[int(self._shard[number])].path, os.O_WRONLY)
            try:
                write_at(file, data, int(self._row[number]) * row_bytes(self.side))
            finally:
                os.close(file)
