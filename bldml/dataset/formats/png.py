"""Whether a PNG is whole: the checksum of each of its chunks that a decoder needs."""

import zlib

from bldml.dataset.formats.refusal import Refused

_ANCILLARY = 0x20  # bit of the first letter: a decoder may skip the chunk


def check_chunks(data: bytes) -> None:
    """Check all chunks up to the end mark; PIL stops when the last row is filled.

    Raises:
        Refused: The end is missing, or a chunk is damaged.
    """
    at, kind = 8, b""
    while kind != b"IEND":
        length, kind = int.from_bytes(data[at : at + 4]), data[at + 4 : at + 8]
        end = at + 8 + length
        if end + 4 > len(data):
            raise Refused("truncated: the end of the file is missing")
        if not kind[0] & _ANCILLARY and zlib.crc32(data[at + 4 : end]) != int.from_bytes(data[end : end + 4]):
            raise Refused("damaged: picture data were overwritten (wrong checksum)")
        at = end + 4
