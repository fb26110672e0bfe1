"""Names that cameras give to photographs: a time to the second, or a frame number.

Cameras keep to the *Design rule for Camera File system* (DCF, JEITA CP-3461): four characters of A to Z, 0 to 9 and _,
then four digits. Phones and drones write a time. What else is numbered (`leaf_0012`, `12`, `IMG-20240601-WA0003`) comes
from an export, where neighbours are unrelated; so does the time of a screenshot, a scan or a message.
"""

import re
from datetime import UTC, datetime
from typing import NamedTuple

_S = "[-_. ]"
_CLOCK = r"([0-2]?\d)[-_.:h ]?([0-5]\d)[-_.:m ]?([0-5]\d)(?:\d{1,3}(?!\d)|(?!\d))(?:s?\d*[ _]?([ap])\.?m\b)?"
_BETWEEN = rf"(?:{_S}{{0,3}}|t|[-_., ]+at[-_ ]|(?<=\d), )"
_TIMES = tuple(
    re.compile(pattern)
    for pattern in (
        rf"(?<!\d)(?P<year>(?:19|20)\d\d){_S}?(?P<month>\d\d){_S}?(?P<day>\d\d){_BETWEEN}{_CLOCK}",
        rf"(?<!\d)(?P<day>\d\d){_S}?(?P<month>\d\d){_S}?(?P<year>(?:19|20)\d\d){_BETWEEN}{_CLOCK}",
        r"(?<!\d)(?P<year>[0-3]\d)(?P<month>\d\d)(?P<day>\d\d)[-_]([0-2]\d)([0-5]\d)([0-5]\d)(?!\d)()",
        r"(?<!\d)(?P<year>[0-3]\d)-(?P<month>\d\d)-(?P<day>\d\d)[-_t]([0-2]\d)[-.:]([0-5]\d)[-.:]([0-5]\d)(?!\d)()",
    )
)
_MILLISECONDS = re.compile(r"(?<!\d)(1[1-9]\d{8})\d{3}(?!\d)")  # since 1970, from 2004 to 2033: apps and cameras
# Seconds since 1970, if a word says that it is a photograph: a bare number of ten digits may count anything.
_SECONDS = re.compile(
    r"(?:img|image|photo|pic|picture|capture|snap|snapshot|cam|camera|frame)[-_ ]?(1[2-9]\d{8})(?!\d)"
)
_CLOCK_ALONE = re.compile(r"([0-2]\d)\.([0-5]\d)\.([0-5]\d)\[[a-z]\]")  # Dahua: the folder has the date
_NOT_TAKEN = re.compile(
    r"screen|scan|whatsapp|signal|telegram|mmexport|fb_img|received|download|export|saved|^photo_\d{4}-\d\d-\d\d_"
)
# A phone numbers the photographs of a burst with three digits, copies and parts with fewer; frames of a video with any.
_COUNT, _COUNT_OF_FRAMES = re.compile(r"[-_ (]+\d{1,2}\)?"), re.compile(r"[-_ ]+\d+")
_MAKERS = (
    r"img_?|_?dsc[nfx_]?|_dsf|_mg_|imgp|_igp|pict|_?sam_?|gopr|g[hpx]\d\d|dji_|dcp_|cimg|rimg|hpim|flir|ir_|evo_|sdc|sdim|_sdi|syer|imag|rcnx|mfdc|ptdc"
    r"|ydxj|virb|stc_|cdy_|wgi_|max_|cam|yun|ek00|im00|mvi_|mov_|p[1-9a-c]\d\d|l1\d\d|1\d\d[-_]|ep-\d\d-\d+_"
)
_FRAME = re.compile(
    rf"({_MAKERS})(\d{{4,5}})(?:_[a-z]|_burst\d+(?:_cover)?)?|(wp_(?:(?:19|20)\d{{6}}_)?)(\d{{3}}|\d{{6}})"
)
_VIDEO_FRAME = re.compile(
    r"((?:frame|scene|vlcsnap|mpv-shot)[-_]?(?=\d)|(?:timelapse|video|vid|clip|movie|film)[-_]?(?=\d{3}))(\d+)"
)
_OF_SHOT = re.compile(r"(.+)_\d{1,2}")  # IMG_0012_3: a band or a crop of it
_DCF = re.compile(r"(?=\w{8}$)([a-z0-9_]{4})(\d{4})")
_MONTH_AND_DAY = re.compile(r"(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])")


class NameTime(NamedTuple):
    """The time in a name."""

    prefix: str  # before it; runs of digits, which may count, as 0
    time: datetime
    end: int  # where it ends in the stem


class Frame(NamedTuple):
    """A frame number."""

    prefix: str
    number: int
    least: int  # consecutive numbers that are evidence of a series; 1 for two files of one number
    may_be_long: bool  # whether a long series may still be one of a camera


def time_in_name(stem: str) -> NameTime | None:
    """Return the time at which a photograph was taken, as its lower-case stem says; None if it does not.

    >>> time_in_name("wp_20140601_12_30_00_pro").time.isoformat(), time_in_name("screenshot_20240601-123000")
    ('2014-06-01T12:30:00', None)
    """
    if _NOT_TAKEN.search(stem):
        return None
    for pattern in _TIMES:
        for match in pattern.finditer(stem):
            if (time := _time(match)) is not None:
                return NameTime(re.sub(r"\d+", "0", stem[: match.start()]), time, match.end())
    if clock := _CLOCK_ALONE.match(stem):
        hour, minute, second = map(int, clock.groups())
        return NameTime("", datetime(1970, 1, 1, hour, minute, second), clock.end()) if hour < 24 else None
    if count := _MILLISECONDS.search(stem) or _SECONDS.match(stem):
        time = datetime.fromtimestamp(int(count[1]), UTC).replace(tzinfo=None)
        return NameTime(re.sub(r"\d+", "0", stem[: count.start(1)]), time, count.end())
    return None


def _time(match: re.Match[str]) -> datetime | None:
    year, month, day = (int(match[name]) for name in ("year", "month", "day"))
    hour, minute, second, half = match.groups()[-4:]
    clock = (int(hour) % 12 + 12 * (half == "p") if half else int(hour), int(minute), int(second))
    # Where the day comes first, Americans write the month first.
    orders = [(month, day), (day, month)] if match.start("day") < match.start("month") else [(month, day)]
    for one, other in orders:
        try:
            return datetime(year if year > 99 else 2000 + year, one, other, *clock)
        except ValueError:
            pass
    return None


def frame_in_name(stem: str, capitals: bool, folder: str) -> Frame | None:
    """Return the frame number of a lower-case stem; None if it is not the name of a camera.

    Args:
        stem: As `source_name` returns it.
        capitals: Whether the name was written in capitals, as cameras write.
        folder: Lower-case folder; a name that begins like one of its parts comes from an export.

    >>> (
    ...     frame_in_name("0c7a0012", True, "bld"),
    ...     frame_in_name("leaf0012", True, "bld"),
    ...     frame_in_name("leaf_0012", True, ""),
    ... )
    (Frame(prefix='0c7a', number=12, least=3, may_be_long=True), None, None)
    """
    part = _OF_SHOT.fullmatch(stem)
    if match := _FRAME.fullmatch(stem) or (part and _FRAME.fullmatch(part[1])):
        prefix, number = match[1] or match[3], match[2] or match[4]
        return Frame(prefix, int(number), 1, may_be_long=True)
    if match := _VIDEO_FRAME.fullmatch(stem):
        return Frame(match[1], int(match[2]), 3, may_be_long=True)
    match = _DCF.fullmatch(stem)
    if match is None or (stem.isdecimal() and not _MONTH_AND_DAY.fullmatch(match[1])):
        return None
    prefix = match[1]
    has_digit = any(c.isdecimal() for c in prefix)
    # Letters alone may be a word or the class: a camera's are neither.
    is_word = not has_digit and (not capitals or re.search("[aeiou]", prefix) is not None)
    is_word |= prefix[:3].isalpha() and not capitals  # and a number of more than four digits
    if is_word or prefix.strip("_") in re.split(r"\W|_", folder):
        return None
    return Frame(prefix, int(match[2]), 3, may_be_long=has_digit and not stem.isdecimal())


def is_camera_name(stem: str) -> bool:
    """Return whether a lower-case stem is a name that cameras write: a frame number or a time to the second.

    >>> [is_camera_name(stem) for stem in ("img_0012", "img_20240601_123000", "leaf_0012", "img_0012_2")]
    [True, True, False, False]
    """
    if _FRAME.fullmatch(stem) or _VIDEO_FRAME.fullmatch(stem):
        return True
    time = time_in_name(stem)
    count = _COUNT_OF_FRAMES if stem.startswith(("vid", "mov")) else _COUNT
    return time is not None and not count.fullmatch(stem, time.end)


def is_time_of_another_kind(stem: str) -> bool:
    """Return whether the time in a lower-case stem is that of a message, a scan or a screenshot."""
    return _NOT_TAKEN.search(stem) is not None and any(pattern.search(stem) for pattern in _TIMES)
