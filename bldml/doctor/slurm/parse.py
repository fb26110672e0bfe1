"""Parsers of Slurm's formats: times, signals, and the output of scontrol."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

UNLIMITED = 10**10  # seconds; three centuries


def read_time(text: str) -> int | None:
    """Return a time in Slurm's format in seconds; None if it is not a time.

    Formats: minutes, minutes:seconds, hours:minutes:seconds, days-hours, days-hours:minutes or
    days-hours:minutes:seconds.

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
    """Return seconds in Slurm's format.

    >>> format_time(93784), format_time(UNLIMITED)
    ('1-02:03:04', 'UNLIMITED')
    """
    if seconds >= UNLIMITED:
        return "UNLIMITED"
    days, rest = divmod(seconds, 86400)
    clock = f"{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}"
    return f"{days}-{clock}" if days else clock


def read_settings(text: str) -> dict[str, str]:
    r"""Return the output of `scontrol show config` as a mapping.

    >>> read_settings("Configuration data as of 2026-11-25\nKillWait                = 30 sec\n")
    {'KillWait': '30 sec'}
    """
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
    return {key.strip(): value.strip() for key, _, value in pairs}


def read_records(text: str) -> Iterator[dict[str, str]]:
    r"""Yield the records of `scontrol -o show …`: one record per line, key=value.

    >>> list(read_records("PartitionName=low MaxTime=2-00:00:00\nNo more\n"))
    [{'PartitionName': 'low', 'MaxTime': '2-00:00:00'}]
    """
    for line in text.splitlines():
        record = dict(re.findall(r"(?:^|\s)([A-Za-z][\w/:]*)=(\S*)", line))
        if record:
            yield record


@dataclass(frozen=True)
class Reservation:
    """A reservation of nodes.

    Attributes:
        name: Name of the reservation.
        start: Start, in the local time of the cluster.
        maintenance: Whether it is for maintenance, during which no job runs.
    """

    name: str
    start: datetime
    maintenance: bool


def read_reservations(text: str) -> list[Reservation]:
    """Return the reservations of `scontrol -o show reservation`, without those whose start cannot be parsed."""
    reservations = []
    for record in read_records(text):
        try:
            start = datetime.fromisoformat(record["StartTime"])
        except (KeyError, ValueError):
            continue
        flags = record.get("Flags", "").upper()
        reservations.append(Reservation(record.get("ReservationName", "?"), start, "MAINT" in flags))
    return reservations


@dataclass(frozen=True)
class Signal:
    """The value of the option `--signal`.

    Attributes:
        flags: The letters before the colon: B for the batch shell only, R for reservations.
        name: The signal, without SIG.
        seconds: Seconds before the time limit; 60 if not set.
    """

    flags: str
    name: str
    seconds: int


def read_signal(text: str) -> Signal | None:
    """Return the parsed value of `--signal`; None if it is not valid.

    >>> read_signal("USR1@180"), read_signal("B:10@60")
    (Signal(flags='', name='USR1', seconds=180), Signal(flags='B', name='USR1', seconds=60))
    """
    match = re.fullmatch(r"(?:([RBrb]+):)?(?:SIG)?([A-Za-z]+[0-9]?|[0-9]+)(?:@([0-9]+))?", text)
    if match is None:
        return None
    name = {"10": "USR1", "12": "USR2", "15": "TERM"}.get(match[2], match[2].upper())
    return Signal((match[1] or "").upper(), name, int(match[3] or 60))
