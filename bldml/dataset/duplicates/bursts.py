"""Photographs taken in one go: by camera and time, or by the frame numbers in their names.

Three kinds of evidence, the strongest first. A later one says nothing about two photographs that both have an earlier.

1. EXIF time. Photographs of one camera (maker and model) within `gap_seconds` belong together, whatever their folders;
   where no camera is named, of one folder. A second that more than 30 photographs share is no exposure but a clock that
   stood still, or an export; it does not count.
2. A time in the name, as phones write it (`20240601_123000`, `PXL_20240601_123000123`), within one folder.
3. Frame numbers of cameras (`IMG_0012`, `DSC00012`, `P1010012`), consecutive within one folder. Other numbered names
   (`leaf_0012`, `12`, `IMG-20240601-WA0003`) were given by an export, where neighbours say nothing. Where more than 20
   frames follow one another without a time, neighbourhood says little, too: the run is cut at each tenth number.

The folder of a split does not count: a burst divided among splits is what this is for.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import TypeVar

from bldml.dataset.duplicates.find import joined, place, plain_stem, without_copy_marks
from bldml.dataset.metadata import Metadata

Value = TypeVar("Value", int, datetime)

SAME_SECOND = 30
"""Most photographs that a camera takes in a second; phones reach this."""
LONGEST_RUN = 20
"""Most frames in a row that are taken for one burst where no time is known."""
_CUT = 10

_FRAME = re.compile(
    r"(img_?|_?dsc[nf_]?|_mg_|imgp|_igp|pict|sam_|gopr|dji_|cimg|hpim|sdc|p[1-9a-c]\d\d|l1\d\d|1\d\d[-_])(\d{4,5})"
)
_NAME_TIME = re.compile(r"(img|pxl|mvimg|burst|)[-_]?(20\d{6})[-_](\d{6})(?:\d{3})?(?!\d).*")


@dataclass(frozen=True)
class BurstEvidence:
    """How well bursts can be known; each photograph counts once, by its strongest evidence.

    Attributes:
        photographs: All.
        with_time: With an EXIF time.
        with_name_time: With a time in the name.
        with_frame: With a camera's frame number in the name.
        largest: Photographs in the largest burst.
    """

    photographs: int
    with_time: int
    with_name_time: int
    with_frame: int
    largest: int

    @property
    def weak(self) -> bool:
        """Whether less than half of the photographs have an EXIF time."""
        return 2 * self.with_time < self.photographs

    def sentence(self) -> str:
        """What this means, in plain words.

        >>> print(BurstEvidence(100, 90, 0, 5, 4).sentence())
        90 of 100 photographs have an EXIF time, 5 a frame number. The largest burst holds 4.
        """
        have = "has" if self.with_time == 1 else "have"
        parts = [f"{self.with_time} of {self.photographs} photographs {have} an EXIF time"]
        parts += [f"{self.with_name_time} a time in the name"] if self.with_name_time else []
        parts += [f"{self.with_frame} a frame number"] if self.with_frame else []
        largest = f"The largest burst holds {self.largest}." if self.largest > 1 else "No burst was found."
        warning = " Bursts are weakly known here: some may have been missed." if self.weak else ""
        return f"{', '.join(parts)}. {largest}{warning}"


@dataclass(frozen=True)
class _Clues:
    name: str
    place: str
    camera: str
    time: datetime | None
    name_time: tuple[str, datetime] | None  # prefix and time
    frame: tuple[str, int] | None  # prefix and number


def burst_groups(
    names: Sequence[str], metadata: Sequence[Metadata | None], gap_seconds: float = 10, gap_frames: int = 1
) -> list[str]:
    """Group photographs that were taken in one go.

    Args:
        names: Paths below the data folder, each once.
        metadata: What each file says of itself; None where nothing is known.
        gap_seconds: Most seconds between a photograph of a burst and the next.
        gap_frames: Most steps between their frame numbers.

    Returns:
        For each photograph the name of its burst: the smallest of the names in it. Neither the order nor photographs
        of other bursts change it.

    >>> burst_groups(["BLD/IMG_0012.jpg", "BLD/IMG_0013.jpg", "BLD/IMG_0020.jpg"], [None, None, None])
    ['BLD/IMG_0012.jpg', 'BLD/IMG_0012.jpg', 'BLD/IMG_0020.jpg']
    """
    clues = _clues(names, metadata)
    links = [*_by_time(clues, gap_seconds), *_by_name_time(clues, gap_seconds), *_by_frame(clues, gap_frames)]
    first = joined(len(names), links)
    smallest: dict[int, str] = {}
    for name, group in zip(names, first, strict=True):
        smallest[group] = min(name, smallest.get(group, name))
    return [smallest[group] for group in first]


def burst_evidence(
    names: Sequence[str], metadata: Sequence[Metadata | None], groups: Sequence[str] | None = None
) -> BurstEvidence:
    """Say how well bursts can be known.

    Args:
        names: Paths below the data folder.
        metadata: What each file says of itself.
        groups: What `burst_groups` returned, where it was called already.
    """
    clues = _clues(names, metadata)
    groups = burst_groups(names, metadata) if groups is None else groups
    return BurstEvidence(
        photographs=len(names),
        with_time=sum(clue.time is not None for clue in clues),
        with_name_time=sum(clue.time is None and clue.name_time is not None for clue in clues),
        with_frame=sum(clue.time is None and clue.name_time is None and clue.frame is not None for clue in clues),
        largest=max(Counter(groups).values(), default=0),
    )


def _clues(names: Sequence[str], metadata: Sequence[Metadata | None]) -> list[_Clues]:
    times = Counter((m.camera, m.taken) for m in metadata if m and m.taken)
    clues = []
    for name, known in zip(names, metadata, strict=True):
        stem = without_copy_marks(plain_stem(name))
        camera, taken = (known.camera, known.taken) if known else ("", "")
        time = _time(taken) if times[camera, taken] <= SAME_SECOND else None
        frame = _FRAME.fullmatch(stem)
        number = (frame[1], int(frame[2])) if frame else None
        clues.append(_Clues(name, place(name), camera, time, _name_time(stem), number))
    return clues


def _time(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text).replace(tzinfo=None)
    except ValueError:
        return None


def _name_time(stem: str) -> tuple[str, datetime] | None:
    """Prefix and time in a phone's name.

    >>> _name_time("pxl_20240601_123000123"), _name_time("img-20240601-wa0003")
    (('pxl', datetime.datetime(2024, 6, 1, 12, 30)), None)
    """
    match = _NAME_TIME.fullmatch(stem)
    time = _time(f"{match[2]}T{match[3]}") if match else None
    return (match[1], time) if match and time else None


def _by_time(clues: Sequence[_Clues], gap_seconds: float) -> Iterator[tuple[int, int]]:
    def key(clue: _Clues) -> tuple[Hashable, datetime] | None:
        return ((clue.camera, "" if clue.camera else clue.place), clue.time) if clue.time else None

    for series in _series(clues, key):
        yield from ((a, b) for (s, a), (t, b) in pairwise(series) if (t - s).total_seconds() <= gap_seconds)


def _by_name_time(clues: Sequence[_Clues], gap_seconds: float) -> Iterator[tuple[int, int]]:
    def key(clue: _Clues) -> tuple[Hashable, datetime] | None:
        return ((clue.place, clue.name_time[0]), clue.name_time[1]) if clue.name_time else None

    for series in _series(clues, key):
        for (s, a), (t, b) in pairwise(series):
            if (t - s).total_seconds() <= gap_seconds and not (clues[a].time and clues[b].time):
                yield a, b


def _by_frame(clues: Sequence[_Clues], gap_frames: int) -> Iterator[tuple[int, int]]:
    def key(clue: _Clues) -> tuple[Hashable, int] | None:
        return ((clue.place, clue.frame[0]), clue.frame[1]) if clue.frame else None

    for series in _series(clues, key):
        run = series[:1]
        for before, after in pairwise(series):
            if after[0] - before[0] > gap_frames or (clues[before[1]].time and clues[after[1]].time):
                yield from _links_of_run(run)
                run = []
            run.append(after)
        yield from _links_of_run(run)


def _links_of_run(run: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    is_long = bool(run) and run[-1][0] - run[0][0] >= LONGEST_RUN
    for (before, a), (after, b) in pairwise(run):
        if not (is_long and before // _CUT != after // _CUT):
            yield a, b


def _series(
    clues: Sequence[_Clues], key: Callable[[_Clues], tuple[Hashable, Value] | None]
) -> Iterator[list[tuple[Value, int]]]:
    """Series of (value, index) by a key, ascending."""
    series: dict[Hashable, list[tuple[Value, str, int]]] = defaultdict(list)
    for i, clue in enumerate(clues):
        if (found := key(clue)) is not None:
            series[found[0]].append((found[1], clue.name, i))
    for values in series.values():
        yield [(value, i) for value, _, i in sorted(values)]
