"""Find bursts: photographs taken seconds apart, by camera and time or by the frame numbers in their names.

There are three kinds of evidence. Weaker evidence is not used for two photographs that both have stronger evidence.

1. EXIF time (strongest). Photographs of one camera (maker and model) within `gap_seconds` form a burst, in whatever
   folders they are; if no camera is named, only within one folder. A second that more than 30 photographs share is
   ignored: it comes from a stopped clock or an export.
2. A time in the name, as phones and drones write it (`20240601_123000`, `DJI_20240601123000_0001_D`), within one folder
   and with the same beginning. More than 20 of them are a burst only where the beginning is that of a camera.
3. Consecutive frame numbers of a camera (`IMG_0012`, `0C7A0012`; see `cameras`) within one folder. A series of more
   than 20 frames without times is weak evidence: it is divided at every tenth number, or is no series at all if the
   names may be those of an export.

Split folders are ignored, because a burst across splits is what has to be found.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import NamedTuple, TypeVar

from bldml.dataset.duplicates.cameras import Frame, frame_in_name, time_in_name
from bldml.dataset.duplicates.find import component_roots
from bldml.dataset.duplicates.names import folder_without_split, source_name
from bldml.dataset.metadata import Metadata
from bldml.io.text import counted

Value = TypeVar("Value", Frame, datetime)

SAME_SECOND = 30  # largest number of photographs with one time of one camera that counts as a burst; phones reach this
LONGEST_SERIES = 20  # largest number of consecutive frames without times that counts as one burst
_KINDS = ("time", "name_time", "frame")  # of evidence, strongest first
_CUT = 10  # frame numbers; a longer series is divided at their multiples

# What cameras write before a time, without digits and separators; other beginnings may be those of an export.
_OF_CAMERAS = {
    *("", "img", "imgburst", "pxl", "mvimg", "burst", "p", "wp", "win", "dji", "dsc", "dscburst", "dscpdcburst", "cam"),
    *("imag", "vid", "mov", "bebop", "vlcsnap"),
}


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
    links += _by_time([clue.name_time for clue in clues], names, timed, gap_seconds, _is_of_camera)
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
    frame: tuple[Hashable, Frame] | None


def _clues(names: Sequence[str], metadata: Sequence[Metadata | None]) -> list[_Clues]:
    times = Counter((m.camera, m.taken) for m in metadata if m and m.taken)
    clues = []
    for name, known in zip(names, metadata, strict=True):
        stem, folder = source_name(name), folder_without_split(name)
        camera, taken = (known.camera, known.taken) if known else ("", "")
        time = _time(taken) if times[camera, taken] <= SAME_SECOND else None
        in_name = time_in_name(stem)
        capitals = name.rpartition("/")[2].rpartition(".")[0].isupper()
        frame = None if in_name else frame_in_name(stem, capitals, folder.casefold())
        clues.append(
            _Clues(
                ((camera, "" if camera else folder), time) if time else None,
                ((folder, in_name.prefix), in_name.time) if in_name else None,
                ((folder, frame.prefix), frame) if frame else None,
            )
        )
    return clues


def _time(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text).replace(tzinfo=None)
    except ValueError:
        return None


def _is_of_camera(series: Hashable) -> bool:
    return isinstance(series, tuple) and re.sub("[^a-z]", "", series[1]) in _OF_CAMERAS


def _by_time(
    clues: Sequence[tuple[Hashable, datetime] | None],
    names: Sequence[str],
    known: Sequence[bool],
    gap_seconds: float,
    may_be_long: Callable[[Hashable], bool] = lambda _: True,
) -> list[tuple[int, int]]:
    """Link times near each other, except of two photographs whose times are `known` otherwise."""
    links = []
    for key, series in _series(clues, names):
        near = _divided(series, lambda before, after: (after - before).total_seconds() <= gap_seconds)
        for times in near:
            if len(times) <= LONGEST_SERIES or may_be_long(key):
                links += [(a, b) for (_, a), (_, b) in pairwise(times) if not (known[a] and known[b])]
    return links


def _by_frame(
    clues: Sequence[tuple[Hashable, Frame] | None], names: Sequence[str], known: Sequence[bool]
) -> list[tuple[int, int]]:
    """Link consecutive frame numbers, except of two photographs whose times are `known`."""
    links = []
    for _, series in _series(clues, names):
        for frames in _divided(series, lambda before, after: after.number - before.number <= 1):
            first, last = frames[0][0], frames[-1][0]
            count = last.number - first.number + 1
            if count < first.least or (count > LONGEST_SERIES and not first.may_be_long):
                continue
            links += [
                (a, b)
                for (before, a), (after, b) in pairwise(frames)
                if not (known[a] and known[b])
                and not (count > LONGEST_SERIES and before.number // _CUT != after.number // _CUT)
            ]
    return links


def _divided(
    series: Sequence[tuple[Value, int]], are_near: Callable[[Value, Value], bool]
) -> Iterator[list[tuple[Value, int]]]:
    """Yield the parts of a series between which neighbours are not near each other."""
    part = [series[0]]
    for before, after in pairwise(series):
        if not are_near(before[0], after[0]):
            yield part
            part = []
        part.append(after)
    yield part


def _series(
    clues: Sequence[tuple[Hashable, Value] | None], names: Sequence[str]
) -> Iterator[tuple[Hashable, list[tuple[Value, int]]]]:
    """Yield each series and its key, as (value, index), ascending by value."""
    series: dict[Hashable, list[tuple[Value, str, int]]] = defaultdict(list)
    for i, (clue, name) in enumerate(zip(clues, names, strict=True)):
        if clue is not None:
            series[clue[0]].append((clue[1], name, i))
    for key, values in series.items():
        yield key, [(value, i) for value, _, i in sorted(values)]
