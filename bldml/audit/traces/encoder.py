"""How a file was written: subsampling, scan, segments, tables, program. It depends on the encoder, not on the leaf.

Of texts that people may have written, only the name of a known program is read; no owner, no title, no comment.
"""

import re
import struct
import zlib
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from PIL import ExifTags, Image

from bldml.dataset.images import parse_header, silence_pil_warnings

_PROGRAMS = (
    "Lightroom", "Photoshop", "Adobe", "GIMP", "Picasa", "Snapseed", "Google", "HDR+", "ImageMagick", "GraphicsMagick",
    "darktable", "RawTherapee", "Capture One", "digiKam", "Shotwell", "IrfanView", "XnView", "FastStone", "ACDSee",
    "Paint.NET", "Paint Shop", "Affinity", "Pixelmator", "Canva", "Instagram", "WhatsApp", "Windows Photo", "Microsoft",
    "Photos", "Preview", "Screenshot", "Gallery", "VSCO", "Polish", "PicsArt", "MediaTek", "Matplotlib", "ImageJ",
)  # fmt: skip
_FIRMWARE = re.compile(r"(?:ver\.? ?)?v?[\d.]+", re.I)  # such as 15.4.1, which phones and cameras write
_CREATOR = re.compile(rb"CreatorTool(?:\s*=\s*[\"']([^\"'<>]{1,200})|>([^<]{1,200})<)")
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # JPEG markers that give size and components
_MAX_XMP = 2**16  # bytes searched
_EXIF, _XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"


class Encoder(NamedTuple):
    """How one file was written, as texts to compare with those of others; empty where it does not apply."""

    chroma: str = ""  # sampling factors of a JPEG's components, such as 2x2 1x1 1x1
    scan: str = ""  # baseline, progressive; interlaced, tiled
    segments: str = ""  # of a JPEG before its pixels, chunks of a PNG or WebP, in their order
    tables: str = ""  # checksum of a JPEG's quantisation tables; how other formats compress
    huffman: str = ""  # whether a JPEG's Huffman tables are those of the standard
    program: str = ""  # known program, firmware number, or the checksum of another text
    exif: str = ""  # its byte order, and whether it contains a small preview
    depth: str = ""  # bits and colour type of other formats

    def __reduce__(self) -> tuple[Any, ...]:
        return shared_encoder, (*self,)


NO_ENCODER = Encoder()


@lru_cache(maxsize=4096)
def shared_encoder(*texts: str) -> Encoder:
    """Return the same object for the same texts, because a set of photographs has few encoders."""
    return Encoder(*texts)


def read_encoder(path: Path) -> Encoder:
    """Read how a file was written; what is damaged counts as missing."""
    silence_pil_warnings()
    try:
        with path.open("rb") as file:
            start = file.read(2)
            file.seek(0)
            return _read_jpeg(file) if start == b"\xff\xd8" else _read_other(file)
    except Exception:  # a damaged header may raise almost anything; load_rgb reports the reason
        return NO_ENCODER


def _segments(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Yield marker and content of a JPEG's segments up to the first scan."""
    file.seek(2)
    while True:
        byte = file.read(1)
        while byte == b"\xff":
            byte = file.read(1)
        if not byte or byte == b"\xda":
            return
        (length,) = struct.unpack(">H", file.read(2))
        yield byte[0], file.read(length - 2)


def _read_jpeg(file: BinaryIO) -> Encoder:
    names, tables, huffman = [], b"", []
    chroma = scan = program = exif = ""
    for marker, content in _segments(file):
        names.append(_segment_name(marker, content))
        if marker in _FRAMES:
            factors = content[7::3][: content[5]]
            chroma = " ".join(f"{factor >> 4}x{factor & 15}" for factor in factors)
            scan = {0: "baseline", 1: "extended", 2: "progressive"}.get(marker - 0xC0, "other")
        elif marker == 0xDB:
            tables += content
        elif marker == 0xC4:
            huffman.append(content)
        elif marker == 0xE1 and content.startswith(_EXIF) and not exif:
            exif, named = _read_exif(content)
            program = program or named
        elif marker == 0xE1 and content.startswith(_XMP):
            program = program or _program_of_xmp(content)
    return Encoder(
        chroma,
        scan,
        _in_order(names),
        f"{zlib.crc32(tables):08x}",
        "standard" if _is_standard(b"".join(huffman)) else "own",
        program,
        exif,
    )


def _in_order(names: Iterable[str]) -> str:
    """Return the names in their order; how many tables are in a row is counted, since encoders differ in it.

    >>> _in_order(["APP0:JFIF", "APP2:ICC", "APP2:ICC", "DQT", "DQT"])
    'APP0:JFIF APP2:ICC DQT×2'
    """
    counted = [(name, len(list(same))) for name, same in groupby(names)]
    return " ".join(f"{name}×{count}" if name in ("DQT", "DHT") and count > 1 else name for name, count in counted)


def _segment_name(marker: int, content: bytes) -> str:
    if 0xE0 <= marker <= 0xEF:
        word = re.match(rb"[A-Za-z]{0,12}", content)
        return f"APP{marker - 0xE0}:{word[0].decode() if word else ''}"
    if marker in _FRAMES:
        return "SOF"
    return {0xDB: "DQT", 0xC4: "DHT", 0xDD: "DRI", 0xFE: "COM"}.get(marker, f"{marker:02X}")


def _is_standard(content: bytes) -> bool:
    """Return whether the first Huffman table has the code lengths of the standard's luminance (K.3)."""
    return content[1:17] == bytes([0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0])


def _read_exif(content: bytes) -> tuple[str, str]:
    """Return byte order and preview, and the program."""
    try:
        exif = Image.Exif()
        exif.load(content)
        preview = " preview" if exif.get_ifd(ExifTags.IFD.IFD1) else ""
        return f"{content[6:8].decode('ascii')}{preview}", program_of(exif.get(ExifTags.Base.Software))
    except Exception:  # damaged EXIF may raise anything
        return "damaged", ""


def _program_of_xmp(content: bytes) -> str:
    found = _CREATOR.search(content[:_MAX_XMP])
    return program_of(found[1] or found[2]) if found else ""


def program_of(value: Any) -> str:
    """Return the known program or the firmware in a text, else a checksum: people may write names of persons there.

    >>> program_of("Adobe Photoshop 24.1 (Windows)"), program_of("15.4.1"), program_of(None)
    ('Photoshop', '15.4.1', '')
    >>> program_of("Ann Example's tool")
    'other 0f96c188'
    """
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value if isinstance(value, str) else ""
    text = text.split("\0", 1)[0].strip()
    known = next((name for name in _PROGRAMS if name.casefold() in text.casefold()), "")
    if known or not text:
        return known
    return text[:20] if _FIRMWARE.fullmatch(text) else f"other {zlib.crc32(text.encode()):08x}"


def _read_other(file: BinaryIO) -> Encoder:
    """Read a file that is no JPEG through PIL's header."""
    head = file.read(2**12)
    file.seek(0)
    with parse_header(file) as image:
        info, kind = image.info, image.format or ""
        tags = getattr(image, "tag_v2", {})
        exif = image.getexif()
        scan = "interlaced" if info.get("interlace") else "tiled" if 322 in tags else ""
        texts = (exif.get(ExifTags.Base.Software), info.get("Software"), info.get("software"))
        xmp = info.get("xmp") or info.get("XML:com.adobe.xmp") or tags.get(700) or b""
        xmp = xmp.encode() if isinstance(xmp, str) else xmp
        program = next(filter(None, map(program_of, texts)), "") or _program_of_xmp(bytes(xmp))
        segments = depth = tables = ""
        if kind == "PNG":
            segments, depth = _in_order(_png_chunks(head)), f"{head[24]} {head[25]}"
            data = head.find(b"IDAT")
            tables = f"zlib {head[data + 5] >> 6}" if 0 <= data < len(head) - 5 else ""  # level of compression
        elif kind == "WEBP":
            segments = head[12:16].decode("ascii", "replace").strip()
        elif kind == "TIFF":
            depth = f"{tags.get(258)} {tags.get(262)}"
            tables = f"{tags.get(259)} {tags.get(317)} {'strip' if tags.get(278, 0) < image.height else 'whole'}"
        elif kind in ("HEIF", "AVIF"):
            segments = head[8:12].decode("ascii", "replace")
        return Encoder(scan=scan, segments=segments, tables=tables, program=program, depth=depth, exif=_kind(exif))


def _kind(exif: Image.Exif) -> str:
    return {"<": "II", ">": "MM"}.get(exif.endian or "", "") if len(exif) else ""


def _png_chunks(head: bytes) -> Iterator[str]:
    """Yield the names of a PNG's chunks up to its pixels."""
    at = 8
    while at + 8 <= len(head):
        length, name = struct.unpack(">I4s", head[at : at + 8])
        yield name.decode("ascii", "replace")
        if name == b"IDAT":
            return
        at += 12 + length
