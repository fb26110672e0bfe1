"""Slurm's configuration: preemption, time left to save a checkpoint, limits, maintenance."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from bldml.doctor.checks import Finding, ok, ok_or_warn, skip, warn
from bldml.doctor.slurm.parse import (
    UNLIMITED,
    Reservation,
    format_time,
    read_records,
    read_reservations,
    read_settings,
    read_time,
)
from bldml.doctor.tools import ask, is_on_path

DEFAULT_KILL_WAIT_S = 30.0


@dataclass(frozen=True)
class Site:
    """Configuration reported by Slurm's controller.

    Attributes:
        has_slurm: Whether Slurm's commands are on this machine.
        problem: Why the controller does not answer; empty if it does.
        settings: Settings from `scontrol show config`.
        partitions: Records from `scontrol show partition`, by name.
        reservations: Reservations from `scontrol show reservation`.
    """

    has_slurm: bool = False
    problem: str = "there is no Slurm on this machine"
    settings: Mapping[str, str] = field(default_factory=dict)
    partitions: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    reservations: tuple[Reservation, ...] = ()

    @property
    def cluster(self) -> str:
        """Name of the cluster; empty if not known."""
        return self.settings.get("ClusterName", "")

    @property
    def kill_wait(self) -> float | None:
        """Seconds between SIGTERM and SIGKILL; None if not known."""
        first = self.settings.get("KillWait", "").split()[:1]
        return float(first[0]) if first and first[0].isdigit() else None

    @property
    def default_partition(self) -> str:
        """Partition of a job that does not set one; empty if not known."""
        return next((name for name, record in self.partitions.items() if record.get("Default") == "YES"), "")


def query_site(environ: Mapping[str, str]) -> Site:
    """Return the configuration reported by the controller."""
    if not is_on_path("scontrol", environ):
        has_slurm = is_on_path("sbatch", environ) or "SLURM_JOB_ID" in environ
        return Site(has_slurm, "scontrol is not on the PATH" if has_slurm else Site.problem)
    settings = ask("scontrol", "show", "config", environ=environ)
    if not settings.good:
        return Site(True, f"the controller does not answer: {settings.problem.split('; ')[-1]}")
    records = ask("scontrol", "show", "partition", "-o", environ=environ)
    partitions = {record.get("PartitionName", "?"): record for record in read_records(records.text)}
    # If a site hides the records, sinfo still lists the names.
    names = ask("sinfo", "-h", "-o", "%R", environ=environ)
    for name in names.text.split() if names.good else ():
        partitions.setdefault(name, {})
    reservations = read_reservations(ask("scontrol", "show", "reservation", "-o", environ=environ).text)
    return Site(True, "", read_settings(settings.text), partitions, tuple(reservations))


def check_site(site: Site) -> Iterable[Finding]:
    """Report the cluster's configuration."""
    if site.problem:
        yield skip("cluster", site.problem)
        return
    shown = ("PreemptType", "PreemptMode", "JobRequeue", "KillWait", "JobFileAppend")
    found = ", ".join(f"{key} {site.settings[key]}" for key in shown if key in site.settings)
    version = site.settings.get("SLURM_VERSION", "(version not known)")
    yield ok("cluster", f"{site.cluster or 'unnamed'}, Slurm {version}: {found}")


def check_partition(site: Site, partition: str) -> Iterable[Finding]:
    """Check state, limits and grace time of the job's partition."""
    record = site.partitions.get(partition)
    if not record:
        return
    name = f"partition {partition}"
    limit, grace = record.get("MaxTime", "not known"), record.get("GraceTime", "not known")
    mode = record.get("PreemptMode", site.settings.get("PreemptMode", "not known"))
    found = f"MaxTime {limit}, PreemptMode {mode}, GraceTime {grace} s, State {record.get('State', 'not known')}"
    if record.get("State", "UP") != "UP":
        yield warn(name, found, "use another partition, or wait: sinfo -s")
    elif "CANCEL" in mode.upper():
        yield warn(name, f"{found}: a preempted job is cancelled", "resume the run by hand, or use another partition")
    else:
        yield ok(name, found)


def check_save_time(site: Site, seconds: float, size: int) -> Finding:
    """Check that a checkpoint can be written in the time between Slurm's SIGTERM and SIGKILL.

    Args:
        site: Configuration of the cluster.
        seconds: Measured time to write a checkpoint.
        size: Size of the checkpoint in bytes.
    """
    allowed = site.kill_wait
    what = f"{size / 1e6:.0f} MB in {seconds:.1f} s"
    limit = DEFAULT_KILL_WAIT_S if allowed is None else allowed
    found = f"{what}; {'KillWait' if allowed is not None else 'usual KillWait'} {limit:.0f} s"
    return ok_or_warn(
        seconds < limit,
        "checkpoint write",
        found,
        "put the run folder on a faster file system: --trainer.default_root_dir FOLDER",
    )


def check_reservations(site: Site, limit: int | None, now: datetime) -> Iterable[Finding]:
    """Check that no maintenance begins before the job would end; otherwise the job does not start.

    Args:
        site: Configuration of the cluster.
        limit: Time limit of the job in seconds; None if not known.
        now: Current time, in the time zone of the cluster.
    """
    name = "maintenance"
    if site.problem:
        return
    coming = sorted((r for r in site.reservations if r.start > now and r.maintenance), key=lambda r: r.start)
    running = [r for r in site.reservations if r.start <= now and r.maintenance]
    if running:
        yield warn(name, f"{running[0].name} is in progress", "jobs wait until it ends: scontrol show reservation")
    elif not coming:
        yield ok(name, "none announced")
    elif limit is not None and limit < UNLIMITED and now + timedelta(seconds=limit) <= coming[0].start:
        yield ok(name, f"{coming[0].name} from {coming[0].start:%Y-%m-%d %H:%M}, after the job's end")
    else:
        free = max(0, int((coming[0].start - now).total_seconds()))
        yield warn(
            name,
            f"{coming[0].name} from {coming[0].start:%Y-%m-%d %H:%M}: a job of "
            f"{format_time(limit) if limit is not None else 'unknown length'} waits until it ends",
            f"#SBATCH --time={format_time(max(60, free // 3600 * 3600 or free // 60 * 60))}     (or less)",
        )


def time_limit(site: Site, partition: str, asked: str) -> int | None:
    """Return the time limit of a job in seconds: the one requested, or the partition's default, or its maximum."""
    record = site.partitions.get(partition, {})
    for text in (asked, record.get("DefaultTime", ""), record.get("MaxTime", "")):
        seconds = read_time(text) if text else None
        if seconds is not None:
            return seconds
    return None
