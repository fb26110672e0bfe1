"""Slurm's answers: its configuration, its partitions, announced maintenance, and the job of this process."""

import re
import signal
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from bldml.doctor.checks import Finding, ok, ok_or_fail, ok_or_warn, skip, warn
from bldml.doctor.configuration import Settings
from bldml.doctor.submission.script import parse_script
from bldml.doctor.tools import Answer, ask, is_on_path
from bldml.io.platform import change_signal_mask, signals
from bldml.io.text import counted
from bldml.training.resume.job import INTERACTIVE_NAMES, SlurmStep, interactive_kind

UNLIMITED = 10**10  # seconds; three centuries
SIGNALS = signals("SIGUSR1", "SIGTERM")


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
    days, first, second, third = (int(number or 0) for number in match.groups())
    if match[1] is None and match[4] is None:
        return first * 60 + second
    return days * 86400 + first * 3600 + second * 60 + third


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
    records = (dict(re.findall(r"(?:^|\s)([A-Za-z][\w/:]*)=(\S*)", line)) for line in text.splitlines())
    return (record for record in records if record)


def read_maintenance(text: str) -> list[tuple[datetime, str]]:
    """Return start and name of each maintenance in `scontrol -o show reservation`, the earliest first."""
    found = []
    for record in read_records(text):
        try:
            start = datetime.fromisoformat(record["StartTime"])
        except (KeyError, ValueError):
            continue
        if "MAINT" in record.get("Flags", "").upper():
            found.append((start, record.get("ReservationName", "?")))
    return sorted(found)


@dataclass(frozen=True)
class Site:
    """Configuration reported by Slurm's controller."""

    has_slurm: bool = False  # on this machine
    problem: str = "there is no Slurm on this machine"  # why the controller does not answer; empty if it does
    settings: Mapping[str, str] = field(default_factory=dict)
    partitions: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # records by name
    maintenance: tuple[tuple[datetime, str], ...] = ()  # start (in the cluster's local time) and name

    @property
    def kill_wait(self) -> float | None:
        """Seconds between SIGTERM and SIGKILL; None if not known."""
        first = self.settings.get("KillWait", "").partition(" ")[0]
        return float(first) if first.isdigit() else None

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
    if settings.code != 0:
        return Site(True, f"the controller does not answer: {settings.problem.split('; ')[-1]}")
    records = ask("scontrol", "show", "partition", "-o", environ=environ)
    partitions = {record.get("PartitionName", "?"): record for record in read_records(records.text)}
    # If a site hides the records, sinfo still lists the names.
    names = ask("sinfo", "-h", "-o", "%R", environ=environ)
    for name in names.text.split() if names.code == 0 else ():
        partitions.setdefault(name, {})
    maintenance = read_maintenance(ask("scontrol", "show", "reservation", "-o", environ=environ).text)
    return Site(True, "", read_settings(settings.text), partitions, tuple(maintenance))


def time_limit(site: Site, partition: str, asked: str) -> int | None:
    """Return the time limit of a job in seconds: the one requested, or the partition's default, or its maximum."""
    record = site.partitions.get(partition, {})
    times = (read_time(text) for text in (asked, record.get("DefaultTime", ""), record.get("MaxTime", "")))
    return next((seconds for seconds in times if seconds is not None), None)


def check_site(site: Site) -> Finding:
    """Report the cluster's configuration."""
    if site.problem:
        return skip("cluster", site.problem)
    shown = ("PreemptType", "PreemptMode", "JobRequeue", "KillWait", "JobFileAppend")
    found = ", ".join(f"{key} {site.settings[key]}" for key in shown if key in site.settings)
    version = site.settings.get("SLURM_VERSION", "(version not known)")
    return ok("cluster", f"{site.settings.get('ClusterName') or 'unnamed'}, Slurm {version}: {found}")


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


def check_maintenance(site: Site, limit: int | None, now: datetime) -> Iterable[Finding]:
    """Check that no maintenance begins before the job would end; otherwise the job does not start.

    The time limit of the job is in seconds, None if not known; `now` is in the time zone of the cluster.
    """
    name = "maintenance"
    if site.problem:
        return
    running = next((title for start, title in site.maintenance if start <= now), None)
    if running:
        yield warn(name, f"{running} is in progress", "jobs wait until it ends: scontrol show reservation")
        return
    if not site.maintenance:
        yield ok(name, "none announced")
        return
    start, title = site.maintenance[0]
    found = f"{title} from {start:%Y-%m-%d %H:%M}"
    if limit is not None and limit < UNLIMITED and now + timedelta(seconds=limit) <= start:
        yield ok(name, f"{found}, after the job's end")
        return
    free = max(0, int((start - now).total_seconds()))
    length = format_time(limit) if limit is not None else "unknown length"
    remedy = f"#SBATCH --time={format_time(max(60, free // 3600 * 3600 or free // 60 * 60))}     (or less)"
    yield warn(name, f"{found}: a job of {length} waits until it ends", remedy)


def check_commands(environ: Mapping[str, str]) -> Finding:
    """Check that Slurm's commands are on the PATH; requeueing a job needs scontrol."""
    name, commands = "Slurm commands", ("sbatch", "srun", "scontrol")
    missing = [program for program in commands if not is_on_path(program, environ)]
    if not missing:
        return ok(name, ", ".join(commands))
    if "SLURM_JOB_ID" in environ and "scontrol" in missing:
        return warn(
            name,
            "scontrol is not on the PATH (a container?): the job cannot be requeued at its time limit",
            "make Slurm's commands visible in the container, or remove #SBATCH --requeue and resume by hand",
        )
    if len(missing) == len(commands):
        return skip(name, "there is no Slurm on this machine")
    return warn(name, f"{', '.join(missing)} not on the PATH", "load the site's slurm module: module load slurm")


def check_job(environ: Mapping[str, str], settings: Settings | None, gpus: int) -> Iterable[Finding]:
    """Check the job of this process by its environment variables; `gpus` is the number that PyTorch finds."""
    number, kind, step = environ.get("SLURM_JOB_ID"), interactive_kind(environ), SlurmStep.current(environ)
    name = environ.get("SLURM_JOB_NAME", "")
    if number is None:
        yield skip("job", "this process is not in a Slurm job")
        return
    if kind is None:
        yield ok("job name", name or "not known")
    else:
        why = f"{name!r}" if kind == "notebook" or name in INTERACTIVE_NAMES else "srun --pty"
        found = f"{why}: an interactive job, which is neither resumed nor requeued by itself"
        remedy = "for a short test this is fine; for a training: sbatch scripts/slurm/fit.sbatch"
        if kind == "terminal":
            remedy = "for a batch job: #SBATCH --job-name=bldml-fit, and srun without --pty"
        yield warn("job name", found, remedy)
    if step is not None:
        yield ok("srun", f"step {step.number} of job {number}")
    elif kind is None:
        found = "not started by srun: the signal of --signal does not reach this process, "
        remedy = "put srun before the command: srun python -m bldml fit …"
        yield warn("srun", f"{found}and the job is not requeued", remedy)
    yield check_shape(environ, step, settings, gpus)


def check_shape(environ: Mapping[str, str], step: SlurmStep | None, settings: Settings | None, gpus: int) -> Finding:
    """Check that the step has one task for each device of the trainer, by the definition that a fit uses."""
    name = "tasks"
    if step is None:
        tasks = environ.get("SLURM_NTASKS", "1")
        found = "none of srun: a fit starts one process for each of trainer.devices itself"
        if tasks == "1" or interactive_kind(environ) is not None:
            return ok(name, found)
        return warn(name, f"{found}, although the job has {tasks} tasks", "srun python -m bldml fit …")
    if settings is None:
        return skip(name)
    devices, nodes = count_devices(settings, gpus), settings.num_nodes
    # How many GPUs the trainer will find on another machine is not known here.
    known = devices if devices is not None else step.tasks_per_node[0]
    difference = step.difference(known, nodes)
    if difference is None:
        return ok(name, f"{step.tasks} of srun; trainer.devices {settings.devices} on {counted(nodes, 'node')}")
    return Finding("FAIL", name, difference, "\n".join(f"set {remedy}" for remedy in step.remedies(known, nodes)))


def count_devices(settings: Settings, gpus: int) -> int | None:
    """Return the processes per node that the trainer expects; None if this depends on another machine."""
    devices = str(settings.devices)
    if devices.isdigit() and devices != "0":
        return int(devices)
    if "," in devices:
        return len([part for part in devices.split(",") if part.strip()])
    return 1 if settings.accelerator == "cpu" else gpus or None


def check_current_job(environ: Mapping[str, str]) -> Iterable[Finding]:
    """Check this job as reported by Slurm: requeue, and the options in its script."""
    number = environ.get("SLURM_JOB_ID")
    if number is None or interactive_kind(environ) is not None:
        return
    record = ask("scontrol", "show", "job", "-o", number, environ=environ)
    script = ask("scontrol", "write", "batch_script", number, "-", environ=environ)
    yield from read_job(record, script)


def read_job(record: Answer, script: Answer) -> Iterable[Finding]:
    """Check requeue flag, signal and open mode of a job, as reported by `scontrol show job` and in its batch script."""
    job = next(read_records(record.text), {}) if record.code == 0 else {}
    if not job:
        yield skip("job's requeue", f"not reported by Slurm: {record.problem or 'no such job'}")
        return
    requeue = job.get("Requeue")
    yield ok_or_warn(
        requeue == "1",
        "job's requeue",
        f"Requeue={requeue or 'not visible'}, restarts so far: {job.get('Restarts', 'not visible')}",
        "for this job, now: scontrol update JobId=$SLURM_JOB_ID Requeue=1; for the next: #SBATCH --requeue",
    )
    options = parse_script(script.text if script.code == 0 else "")
    for option, wanted in (("signal", "USR1@180"), ("open-mode", "append")):
        name = f"job's {option}"
        if value := options.value(option):
            yield ok(name, f"{value} in the job's script")
        elif job.get("BatchFlag") == "0" or script.code != 0:
            yield skip(name, "not visible")
        else:
            found = "not in the job's script; sbatch's command line is not visible"
            yield warn(name, found, f"#SBATCH --{option}={wanted}")


def check_signals(environ: Mapping[str, str]) -> Iterable[Finding]:
    """Check that the signals that end a job reach a process started like this one."""
    if "SLURM_JOB_ID" not in environ:
        return
    mask = change_signal_mask("block", [])
    blocked = [f"{one.name} blocked" for one in SIGNALS if one in mask]
    # A fit installs its own handlers, even for ignored signals, but does not change the mask.
    ignored = [one for one in SIGNALS if signal.getsignal(one) is signal.SIG_IGN]
    told = blocked + [f"{one.name} ignored at the start, which a fit changes" for one in ignored]
    remedy = "the program that starts python blocks them: start it with srun alone"
    yield ok_or_fail(not blocked, "signals", ", ".join(told) or "SIGUSR1 and SIGTERM arrive", remedy)
