"""Many texts, and what the files of many photographs hold, in arrays: objects would take three times the memory.

Objects would also be copied little by little into every process that is forked from this one: reading an object counts
a reference to it, which is a write.
"""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from bldml.dataset.duplicates.phash import PHASH_BYTES, PHash, PHashes
from bldml.dataset.metadata import Metadata

DIGEST_BYTES = 32  # of a SHA-256
BORDER_NUMBERS = 7  # of `measure_border`, stored in hundredths
_NO_BORDER = 2**16 - 1

_ROW = np.dtype(
    [
        ("kind", np.int32), ("width", np.int64), ("height", np.int64), ("taken", "S19"), ("subsec", "S9"),
        ("quantization", np.float64), ("border", np.uint16, BORDER_NUMBERS),
    ]
)  # fmt: skip
_KIND = ("camera", "format", "mode", "frames", "orientation", "has_gps", "icc")  # fields that many files have alike


class Texts:
    """Many texts in one array, with lone surrogates too, as in the names of files."""

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._bytes, self._ends = bytearray(), array("q", [0])
        for text in texts:
            self.append(text)

    def append(self, text: str) -> None:
        """Append a text."""
        self._bytes += text.encode("utf-8", "surrogateescape")
        self._ends.append(len(self._bytes))

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __iter__(self) -> Iterator[str]:
        return map(self.__getitem__, range(len(self)))

    def __getitem__(self, index: int) -> str:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._bytes[self._ends[index] : self._ends[index + 1]].decode("utf-8", "surrogateescape")


class Digests(Sequence[str]):
    """SHA-256 of many files, in hexadecimal; `raw` holds their bytes, (n, DIGEST_BYTES)."""

    def __init__(self, raw: npt.NDArray[np.uint8]) -> None:
        self.raw = raw

    def __len__(self) -> int:
        return len(self.raw)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> "Digests": ...
    def __getitem__(self, index: int | slice) -> "str | Digests":
        """Return one digest, or some that share their memory with these."""
        return Digests(self.raw[index]) if isinstance(index, slice) else self.raw[index].tobytes().hex()


class MetadataTable(Sequence[Metadata | None]):
    """Metadata of `length` files, None at first; what many files have alike, such as the camera, is stored once."""

    def __init__(self, length: int) -> None:
        self._rows: npt.NDArray[Any] = np.zeros(length, _ROW)
        self._kinds: list[dict[str, Any] | None] = [None]
        self._numbers: dict[tuple[object, ...], int] = {}

    @classmethod
    def of(cls, rows: npt.NDArray[Any], kinds: list[Any]) -> "MetadataTable":
        """Return the table that has these `parts`; ValueError or TypeError if they are not parts of one."""
        if rows.dtype != _ROW or rows.ndim != 1 or kinds[:1] != [None] or set(rows["kind"]) - set(range(len(kinds))):
            raise ValueError("no table of metadata")
        for column in ("taken", "subsec"):
            rows[column].astype(str)  # ASCII
        table = cls(0)
        table._rows, table._kinds = rows, kinds
        for number, kind in enumerate(kinds[1:], start=1):
            Metadata(0, 0, **kind)
            table._numbers[tuple(kind.values())] = number
        return table

    def parts(self) -> tuple[npt.NDArray[Any], list[Any]]:
        """Return an array with a row for each file, and what many have alike, which JSON can hold."""
        return self._rows, self._kinds

    def double(self) -> None:
        """Make room for twice as many files."""
        self._rows = np.concatenate([self._rows, np.zeros_like(self._rows)])

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Metadata | None: ...
    @overload
    def __getitem__(self, index: slice) -> "MetadataTable": ...
    def __getitem__(self, index: int | slice) -> "Metadata | MetadataTable | None":
        """Return the metadata of one file, or of some that share their memory with these."""
        if isinstance(index, slice):
            part = copy(self)
            part._rows = self._rows[index]
            return part
        number, width, height, taken, subsec, quantization, stored = self._rows[index].item()
        kind = self._kinds[number]
        if kind is None:
            return None
        times = {"taken": taken.decode(), "subsec": subsec.decode()}
        border = () if stored[0] == _NO_BORDER else tuple(value / 100 for value in stored.tolist())
        return Metadata(width, height, **times, quantization=quantization, border=border, **kind)

    def aspects(self) -> npt.NDArray[np.float64]:
        """Return the ratio of width to height of each upright photograph; 1 where it is unknown."""
        aspects = np.ones(len(self))
        np.divide(self._rows["width"], self._rows["height"], where=self._rows["height"] > 0, out=aspects)
        return aspects

    def __setitem__(self, index: int, metadata: Metadata | None) -> None:
        if metadata is None:
            self._rows[index] = 0
            return
        m = metadata
        kind = {field: getattr(m, field) for field in _KIND}
        number = self._numbers.setdefault(tuple(kind.values()), len(self._kinds))
        if number == len(self._kinds):
            self._kinds.append(kind)
        border = [round(100 * value) for value in m.border] or [_NO_BORDER] * BORDER_NUMBERS
        self._rows[index] = (number, m.width, m.height, m.taken, m.subsec, m.quantization, border)


class Contents:
    """SHA-256, metadata and perceptual hash of the files of `length` photographs."""

    def __init__(self, length: int) -> None:
        self.digests = Digests(np.zeros((length, DIGEST_BYTES), np.uint8))
        self.metadata = MetadataTable(length)
        self.phashes: PHashes = np.zeros((length, PHASH_BYTES), np.uint8)

    def __len__(self) -> int:
        return len(self.digests)

    def __getitem__(self, part: slice) -> "Contents":
        """Return the data of some photographs, which share their memory with these."""
        some = copy(self)
        some.digests, some.metadata, some.phashes = self.digests[part], self.metadata[part], self.phashes[part]
        return some

    def forget_phashes(self) -> None:
        """Give back their memory, four fifths of all, when no photograph is to be found again any more."""
        self.phashes = self.phashes[:0].copy()

    def take_down(self, row: int, digest: str, metadata: Metadata | None, phash: PHash) -> None:
        """Store the data of one photograph."""
        self.digests.raw[row] = np.frombuffer(bytes.fromhex(digest), np.uint8)
        self.metadata[row] = metadata
        self.phashes[row] = phash
