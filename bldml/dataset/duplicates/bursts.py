"""Find bursts: photographs taken seconds apart, by camera and time or by the frame numbers in their names.

There are three kinds of evidence. Weaker evidence is not used for two photographs that both have stronger evidence.

1. EXIF time (strongest). Photographs of one camera (maker and model) within `gap_seconds` form a burst, in whatever
   folders they are; if no camera is named, only within one folder. A second that more than 30 photographs share is
   ignored: it comes from a stopped clock or an export.
2. A time in the name, as phones write it (`20240601_123000`, `PXL_20240601_123000123`), within one folder.
3. Consecutive frame numbers of a camera (`IMG_0012`, `DSC00012`, `P1010012`) within one folder. Other numbered names
   (`leaf_0012`, `12`, `IMG-20240601-WA0003`) come from an export, where neighbours are unrelated. A series of more than
   20 frames without times is weak evidence too: it is divided at every tenth number.

Split folders are ignored, because a burst across splits is what has to be found.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import NamedTuple, TypeVar

from bldml.dataset.duplicates.find import component_roots
from bldml.dataset.duplicates.names import folder_without_split, source_name
from bldml.dataset.metadata import Metadata
from bldml.io.text import counted

Value = TypeVar("Value", int, datetime)

SAME_SECOND = 30  # largest number of photographs with one time of one camera that counts as a burst; phones reach this
LONGEST_SERIES = 20  # largest number of consecutive frames without times that counts as one burst
_KINDS = ("time", "name_time", "frame")  # of evidence, strongest first
_CUT = 10  # frame numbers; a longer series is divided at their multiples

_FRAME = re.compile(
    r"(img_?|_?dsc[nf_]?|_mg_|imgp|_igp|pict|sam_|gopr|dji_|cimg|hpim|sdc|p[1-9a-c]\d\d|l1\d\d|1\d\d[-_])(\d{4,5})"
)
_NAME_TIME = re.compile(r"(img|pxl|mvimg|burst|)[-_]?(20\d{6})[-_](\d{6})(?:\d{3})?(?!\d).*")


@dataclass(frozen=True)
class BurstEvidence:
    """How much evidence there is for bursts; each photograph counts once, by its strongest evidence."""

    photographs: int  # number of photographs
    with_time: int  # photographs with an EXIF time
    with_name_time: int  # photographs with a time in the name
    with_frame: int  # photographs with a camera's frame number in the name
    largest: int  # photographs in the largest burst

    @property
    def weak(self) -> bool:
        """Whether fewer than half of the photographs have an EXIF time."""
        return 2 * self.with_time < self.photographs

    def sentence(self) -> str:
        """Return the evidence in plain words.

        >>> print(BurstEvidence(100, 90, 0, 5, 4).sentence())
        90 of 100 photographs have an EXIF time, 5 a frame number. The largest burst has 4 photographs.
        """
        have = "has" if self.with_time == 1 else "have"
        parts = [f"{self.with_time:,} of {counted(self.photographs, 'photograph')} {have} an EXIF time"]
        parts += [f"{self.with_name_time:,} a time in the name"] if self.with_name_time else []
        parts += [f"{self.with_frame:,} a frame number"] if self.with_frame else []
        largest = f"The largest burst has {self.largest} photographs." if self.largest > 1 else "No burst was found."
        warning = " Few photographs have timestamps, so bursts may have been missed." if self.weak else ""
        return f"{', '.join(parts)}. {largest}{warning}"


def burst_groups(names: Sequence[str], metadata: Sequence[Metadata | None], gap_seconds: float = 10) -> list[str]:
    """Return the burst of each photograph: the alphabetically first name in it.

    It depends neither on the order nor on photographs of other bursts. Names are paths below the data folder, each
    once; consecutive photographs of a burst are at most `gap_seconds` apart.

    >>> burst_groups(["BLD/IMG_0012.jpg", "BLD/IMG_0013.jpg", "BLD/IMG_0020.jpg"], [None, None, None])
    ['BLD/IMG_0012.jpg', 'BLD/IMG_0012.jpg', 'BLD/IMG_0020.jpg']
    """
    clues = _clues(names, metadata)
    timed = [clue.time is not None for clue in clues]
    links = _by_time([clue.time for clue in clues], names, [False] * len(names), gap_seconds)
    links += _by_time([clue.name_time for clue in clues], names, timed, gap_seconds)
    links += _by_frame([clue.frame for clue in clues], names, timed)
    roots = component_roots(len(names), links)
    smallest: dict[int, str] = {}
    for name, root in zip(names, roots, strict=True):
        smallest[root] = min(name, smallest.get(root, name))
    return [smallest[root] for root in roots]


def burst_evidence(names: Sequence[str], metadata: Sequence[Metadata | None], bursts: Sequence[str]) -> BurstEvidence:
    """Count the evidence for bursts; arguments and result of `burst_groups`."""
    strongest = Counter(
        next((kind for kind, clue in zip(_KINDS, clues, strict=True) if clue is not None), "none")
        for clues in _clues(names, metadata)
    )
    largest = max(Counter(bursts).values(), default=0)
    return BurstEvidence(len(names), strongest["time"], strongest["name_time"], strongest["frame"], largest)


class _Clues(NamedTuple):
    """The series that a photograph is in, and its place in it, by each kind of evidence, strongest first."""

    time: tuple[Hashable, datetime] | None
    name_time: tuple[Hashable, datetime] | None
    frame: tuple[Hashable, int] | None


def _clues(names: Sequence[str], metadata: Sequence[Metadata | None]) -> list[_Clues]:
    times = Counter((m.camera, m.taken) for m in metadata if m and m.taken)
    clues = []
    for name, known in zip(names, metadata, strict=True):
        stem, folder = source_name(name), folder_without_split(name)
        camera, taken = (known.camera, known.taken) if known else ("", "")
        time = _time(taken) if times[camera, taken] <= SAME_SECOND else None
        in_name, frame = _NAME_TIME.fullmatch(stem), _FRAME.fullmatch(stem)
        name_time = _time(f"{in_name[2]}T{in_name[3]}") if in_name else None
        clues.append(
            _Clues(
                ((camera, "" if camera else folder), time) if time else None,
                ((folder, in_name[1]), name_time) if in_name and name_time else None,
                ((folder, frame[1]), int(frame[2])) if frame else None,
            )
        )
    return clues


def _time(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text).replace(tzinfo=None)
    except ValueError:
        return None


def _by_time(
    clues: Sequence[tuple[Hashable, datetime] | None], names: Sequence[str], known: Sequence[bool], gap_seconds: float
) -> list[tuple[int, int]]:
    """Link times near each other, except of two photographs whose times are `known` otherwise."""
    return [
        (a, b)
        for series in _series(clues, names)
        for (before, a), (after, b) in pairwise(series)
        if (after - before).total_seconds() <= gap_seconds and not (known[a] and known[b])
    ]


def _by_frame(
    clues: Sequence[tuple[Hashable, int] | None], names: Sequence[str], known: Sequence[bool]
) -> list[tuple[int, int]]:
    """Link consecutive frame numbers, except of two photographs whose times are `known`."""
    links = []
    for series in _series(clues, names):
        consecutive = [series[:1]]
        for before, after in pairwise(series):
            if after[0] - before[0] > 1 or (known[before[1]] and known[after[1]]):
                consecutive.append([])
            consecutive[-1].append(after)
        for frames in consecutive:
            is_long = frames[-1][0] - frames[0][0] >= LONGEST_SERIES
            links += [
                (a, b)
                for (before, a), (after, b) in pairwise(frames)
                if not (is_long and before // _CUT != after // _CUT)
            ]
    return links


def _series(clues: Sequence[tuple[Hashable, Value] | None], names: Sequence[str]) -> Iterator[list[tuple[Value, int]]]:
    """Yield each series as (value, index), ascending by value."""
    series: dict[Hashable, list[tuple[Value, str, int]]] = defaultdict(list)
    for i, (clue, name) in enumerate(zip(clues, names, strict=True)):
        if clue is not None:
            series[clue[0]].append((clue[1], name, i))
    for values in series.values():
        yield [(value, i) for value, _, i in sorted(values)]
