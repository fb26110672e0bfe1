"""Many texts, and what the files of many photographs hold, in arrays: objects would take three times the memory."""

from array import array
from collections.abc import Iterable, Sequence
from copy import copy
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from bldml.dataset.duplicates.phash import PHASH_BYTES, PHash, PHashes
from bldml.dataset.metadata import Metadata

DIGEST_BYTES = 32  # of a SHA-256

_ROW = np.dtype(
    [
        ("kind", np.int32), ("width", np.int64), ("height", np.int64), ("taken", "S19"), ("subsec", "S9"),
        ("quantization", np.float64),
    ]
)  # fmt: skip


class Texts(Sequence[str]):
    """Many texts in one array.

    A list of them would take 50 bytes more for each, and be copied little by little into every process that is forked
    from this one: reading an object counts a reference to it, which is a write.

    Args:
        texts: Any, with lone surrogates too, as in the names of files.

    >>> list(Texts(["Fagus", "", "grandifolia"]))
    ['Fagus', '', 'grandifolia']
    """

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._bytes, self._ends = bytearray(), array("q", [0])
        for text in texts:
            self.append(text)

    def append(self, text: str) -> None:
        """Add one."""
        self._bytes += text.encode("utf-8", "surrogateescape")
        self._ends.append(len(self._bytes))

    def __len__(self) -> int:
        """How many."""
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        """One text, or some."""
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._bytes[self._ends[index] : self._ends[index + 1]].decode("utf-8", "surrogateescape")


class Digests(Sequence[str]):
    """SHA-256 of many files, in hexadecimal; held in a third of the space.

    Args:
        raw: Their bytes, (n, DIGEST_BYTES).

    >>> Digests(np.zeros((2, DIGEST_BYTES), np.uint8))[1][:4]
    '0000'
    """

    def __init__(self, raw: npt.NDArray[np.uint8]) -> None:
        self.raw = raw

    def __len__(self) -> int:
        """How many."""
        return len(self.raw)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> "Digests": ...
    def __getitem__(self, index: int | slice) -> "str | Digests":
        """One, or some that share their memory with these."""
        return Digests(self.raw[index]) if isinstance(index, slice) else self.raw[index].tobytes().hex()


class MetadataTable(Sequence[Metadata | None]):
    """What many files say of themselves; what many say alike, such as the camera, is there once.

    Args:
        length: Of how many.
    """

    def __init__(self, length: int) -> None:
        self._rows: npt.NDArray[Any] = np.zeros(length, _ROW)
        self._kinds: list[dict[str, Any] | None] = [None]
        self._numbers: dict[tuple[object, ...], int] = {}

    @classmethod
    def of(cls, rows: npt.NDArray[Any], kinds: list[Any]) -> "MetadataTable":
        """Return the table that has these `parts`.

        Raises:
            ValueError: They are not parts of one.
            TypeError: They are not parts of one.
        """
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
        """Return an array with a row for each file, and what many say alike, which JSON can hold."""
        return self._rows, self._kinds

    def double(self) -> None:
        """Make room for twice as many."""
        self._rows = np.concatenate([self._rows, np.zeros_like(self._rows)])

    def __len__(self) -> int:
        """Of how many."""
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Metadata | None: ...
    @overload
    def __getitem__(self, index: slice) -> "MetadataTable": ...
    def __getitem__(self, index: int | slice) -> "Metadata | MetadataTable | None":
        """Of one, or of some that share their memory with these."""
        if isinstance(index, slice):
            part = copy(self)
            part._rows = self._rows[index]
            return part
        number, width, height, taken, subsec, quantization = self._rows[index].item()
        kind = self._kinds[number]
        if kind is None:
            return None
        return Metadata(width, height, taken=taken.decode(), subsec=subsec.decode(), quantization=quantization, **kind)

    def aspects(self) -> npt.NDArray[np.float64]:
        """Width to height of each upright photograph; 1 where its file does not say."""
        aspects = np.ones(len(self))
        np.divide(self._rows["width"], self._rows["height"], where=self._rows["height"] > 0, out=aspects)
        return aspects

    def __setitem__(self, index: int, metadata: Metadata | None) -> None:
        """Take down what one says."""
        if metadata is None:
            self._rows[index] = 0
            return
        m = metadata
        kind = {
            "camera": m.camera, "format": m.format, "mode": m.mode, "frames": m.frames, "orientation": m.orientation,
            "has_gps": m.has_gps, "icc": m.icc,
        }  # fmt: skip
        number = self._numbers.setdefault(tuple(kind.values()), len(self._kinds))
        if number == len(self._kinds):
            self._kinds.append(kind)
        self._rows[index] = (number, m.width, m.height, m.taken, m.subsec, m.quantization)


class Contents:
    """Of many photographs.

    Args:
        length: How many.

    Attributes:
        digests: SHA-256 of each file's content.
        metadata: What each file says of itself.
        phashes: Their perceptual hashes (see `phash.perceptual_hash`).
    """

    def __init__(self, length: int) -> None:
        self.digests = Digests(np.zeros((length, DIGEST_BYTES), np.uint8))
        self.metadata = MetadataTable(length)
        self.phashes: PHashes = np.zeros((length, PHASH_BYTES), np.uint8)

    def __len__(self) -> int:
        """How many."""
        return len(self.digests)

    def __getitem__(self, part: slice) -> "Contents":
        """Some that share their memory with these."""
        some = copy(self)
        some.digests, some.metadata, some.phashes = self.digests[part], self.metadata[part], self.phashes[part]
        return some

    def forget_phashes(self) -> None:
        """Give back their memory, four fifths of all, when no photograph is to be found again any more."""
        self.phashes = self.phashes[:0].copy()

    def take_down(self, row: int, digest: str, metadata: Metadata | None, phash: PHash) -> None:
        """What one photograph's file holds."""
        self.digests.raw[row] = np.frombuffer(bytes.fromhex(digest), np.uint8)
        self.metadata[row] = metadata
        self.phashes[row] = phash
