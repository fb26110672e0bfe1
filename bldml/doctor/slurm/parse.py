"""What Slurm writes, read: times, memory, the lines of scontrol."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

UNLIMITED = 10**10  # seconds; three centuries


def read_time(text: str) -> int | None:
    """Seconds of a time as Slurm writes and takes it; None if it is not one.

    Minutes, minutes:seconds, hours:minutes:seconds, days-hours, days-hours:minutes, days-hours:minutes:seconds.

    >>> [read_time(text) for text in ("30", "10:30", "08:00:00", "2-00:00:00", "1-12", "UNLIMITED", "8h")]
    [1800, 630, 28800, 172800, 129600, 10000000000, None]
    """
    if text.upper() in ("UNLIMITED", "INFINITE"):
        return UNLIMITED
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", text)
    if match is None:
        return None
    days, first, second, third = match[1], *(int(part or 0) for part in match.groups()[1:])
    if days is not None:
        return int(days) * 86400 + first * 3600 + second * 60 + third
    if match[4] is not None:
        return first * 3600 + second * 60 + third
    return first * 60 + second


def format_time(seconds: int) -> str:
    """Seconds as Slurm writes them.

    >>> format_time(93784), format_time(UNLIMITED)
    ('1-02:03:04', 'UNLIMITED')
    """
    if seconds >= UNLIMITED:
        return "UNLIMITED"
    days, rest = divmod(seconds, 86400)
    clock = f"{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}"
    return f"{days}-{clock}" if days else clock


def read_settings(text: str) -> dict[str, str]:
    r"""`scontrol show config` as a mapping.

    >>> read_settings("Configuration data as of 2026-11-25\nKillWait                = 30 sec\n")
    {'KillWait': '30 sec'}
    """
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
    return {key.strip(): value.strip() for key, _, value in pairs}


def read_records(text: str) -> Iterator[dict[str, str]]:
    r"""`scontrol -o show …`: one record a line, key=value.

    >>> list(read_records("PartitionName=low MaxTime=2-00:00:00\nNo more\n"))
    [{'PartitionName': 'low', 'MaxTime': '2-00:00:00'}]
    """
    for line in text.splitlines():
        record = dict(re.findall(r"(?:^|\s)([A-Za-z][\w/:]*)=(\S*)", line))
        if record:
            yield record


@dataclass(frozen=True)
class Reservation:
    """A time at which nodes are kept back.

    Attributes:
        name: What the site calls it.
        start: When it begins, in the cluster's local time.
        maintenance: Whether it is one during which nothing runs.
    """

    name: str
    start: datetime
    maintenance: bool


def read_reservations(text: str) -> list[Reservation]:
    """`scontrol -o show reservation`; those whose start cannot be read are left out."""
    found = []
    for record in read_records(text):
        try:
            start = datetime.fromisoformat(record["StartTime"])
        except (KeyError, ValueError):
            continue
        flags = record.get("Flags", "").upper()
        found.append(Reservation(record.get("ReservationName", "?"), start, "MAINT" in flags))
    return found


@dataclass(frozen=True)
class Signal:
    """What `--signal` asks for.

    Attributes:
        flags: The letters before the colon: B for the batch shell alone, R for reservations.
        name: The signal, without SIG.
        seconds: How long before the end; 60 if not said.
    """

    flags: str
    name: str
    seconds: int


def read_signal(text: str) -> Signal | None:
    """The value of `--signal`; None if it cannot be understood.

    >>> read_signal("USR1@180"), read_signal("B:10@60")
    (Signal(flags='', name='USR1', seconds=180), Signal(flags='B', name='USR1', seconds=60))
    """
    match = re.fullmatch(r"(?:([RBrb]+):)?(?:SIG)?([A-Za-z]+[0-9]?|[0-9]+)(?:@([0-9]+))?", text)
    if match is None:
        return None
    name = {"10": "USR1", "12": "USR2", "15": "TERM"}.get(match[2], match[2].upper())
    return Signal((match[1] or "").upper(), name, int(match[3] or 60))
