"""The #SBATCH lines of a script: what sbatch or Lightning would refuse, and what would lose a run."""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

from bldml.doctor.checks import Finding, fail, ok, ok_or_warn, skip, warn
from bldml.doctor.slurm.job import TYPED
from bldml.doctor.slurm.parse import read_signal
from bldml.doctor.slurm.resources import (
    JobRequest,
    asks_for_gpu,
    check_gpus,
    check_requested_cpus,
    check_tasks,
    check_time,
)
from bldml.doctor.slurm.script import OPTIONS, Script

SHORTEST_WARNING_S = 120  # the signal may come 60 s early or late, and a save takes its time
TYPOS = {
    "memory": "mem",
    "cpus": "cpus-per-task",
    "gpu": "gres=gpu:1",
    "tasks": "ntasks-per-node",
    "queue": "partition",
}
UNCHANGED = "CHANGE_ME"


def check_options(request: JobRequest) -> Iterable[Finding]:
    """All checks of the #SBATCH lines."""
    yield from check_known(request.script)
    yield check_account(request)
    yield from check_partition_name(request)
    yield check_time(request)
    yield check_gpus(request)
    yield check_requested_cpus(request)
    yield from check_tasks(request)
    yield check_job_name(request.script)
    yield check_output_file(request)
    yield check_signal(request.script)
    yield check_requeue(request.script)
    yield from check_mail(request.script)


def check_known(script: Script) -> Iterable[Finding]:
    """Options that sbatch does not know, lines that it cannot read, lines that it does not look at."""
    name = "sbatch options"
    bad = False
    for line, problem in script.problems:
        bad = True
        yield fail(name, f"line {line}: {problem}", f"correct line {line}")
    for option in script.options:
        if option.name in OPTIONS:
            continue
        bad = True
        near = TYPOS.get(option.name) or next(iter(get_close_matches(option.name, OPTIONS, 1, 0.7)), "")
        found = f"line {option.line}: there is no option --{option.name.lstrip('-')}"
        if near:
            value = "" if "=" in near or not option.value else f"={option.value}"
            yield fail(name, found, f"#SBATCH --{near}{value}")
        else:
            yield warn(name, f"{found} in the Slurm versions known here", "man sbatch")
    if script.late:
        bad = True
        lines = ", ".join(map(str, script.late))
        yield warn(name, f"line {lines}: sbatch reads no #SBATCH line behind the first command", "move it to the top")
    if not bad:
        yield ok(name, f"{len(script.options)} read")


def check_account(request: JobRequest) -> Finding:
    """Whether a project pays for the job; SCINet refuses jobs without one."""
    name = "sbatch --account"
    account = request.script.value("account") or request.environ.get("SBATCH_ACCOUNT", "")
    good = bool(account) and UNCHANGED not in account
    found = account if good else f"{account}: still to be filled in" if account else "not given"
    remedy = "#SBATCH --account=PROJECT     (your project's name; sacctmgr -n show assoc user=$USER format=account)"
    return ok_or_warn(good, name, found, remedy, otherwise="FAIL" if request.site.there else "WARN")


def check_partition_name(request: JobRequest) -> Iterable[Finding]:
    """Whether the partition exists, and has GPUs where they are asked for."""
    name = "sbatch --partition"
    asked = request.script.value("partition")
    known = request.site.partitions
    cluster = (request.site.cluster or request.environ.get("SLURM_CLUSTER_NAME", "")).lower()
    if cluster == "ceres" and ("gpu" in asked or asks_for_gpu(request.script)):
        yield fail(
            name, "Ceres has no GPUs", "submit the job on Atlas, whose partitions are gpu-l40s, gpu-a100, gpu-v100"
        )
        return
    unknown = [part for part in asked.split(",") if part and known and part not in known]
    if unknown:
        near = get_close_matches(unknown[0], list(known), 1, 0.4) or sorted(known)[:1]
        there = f"there is no {unknown[0]}; there are {', '.join(sorted(known))}"
        yield fail(name, there, f"#SBATCH --partition={near[0]}")
    elif not asked and request.partition:
        yield ok(name, f"not given: {request.partition}")
    elif not asked:
        yield warn(
            name, "not given: the site's default, which rarely has GPUs", "#SBATCH --partition=NAME     (sinfo -s)"
        )
    else:
        yield ok(name, asked + ("" if known else "; whether it exists is not known here"))


def check_job_name(script: Script) -> Finding:
    """Whether Lightning will take the job for a batch job."""
    job_name = script.value("job-name")
    found = f"{job_name}: Lightning takes such a job for an interactive one" if job_name in TYPED else job_name
    remedy = "#SBATCH --job-name=bldml-fit"
    return ok_or_warn(job_name not in TYPED, "sbatch --job-name", found or "the file's", remedy, otherwise="FAIL")


def check_output_file(request: JobRequest) -> Finding:
    """Whether the folder of the log exists; Slurm does not make it, and the job dies without a word."""
    name = "sbatch --output"
    output = request.script.value("output", "slurm-%j.out")
    start = request.folder / request.script.value("chdir", ".")
    folder = start / Path(output).parent
    if "%" in str(Path(output).parent):
        return skip(name, f"not checked: the folder of {output} depends on the job")
    return ok_or_warn(folder.is_dir(), name, f"{output} in {folder}", f"mkdir -p {folder}", otherwise="FAIL")


def check_signal(script: Script) -> Finding:
    """Whether the fit hears in time that its time is over."""
    name = "sbatch --signal"
    remedy = "#SBATCH --signal=USR1@180"
    text = script.value("signal")
    if not text:
        return warn(name, "not given: what was learned since the last checkpoint is lost at the time limit", remedy)
    found = read_signal(text)
    if found is None:
        return fail(name, f"{text} cannot be understood", remedy)
    trapped = any(re.search(rf"\btrap\b.*\b(SIG)?{found.name}\b", command.text) for command in script.commands)
    if "B" in found.flags and not trapped:
        return fail(name, f"{text}: B: signals the shell alone, never the fit below srun", remedy)
    if found.name != "USR1":
        return warn(name, f"{text}: a fit saves and requeues at USR1", remedy)
    if found.seconds < SHORTEST_WARNING_S:
        return warn(name, f"{text}: {found.seconds} s may be too short to save", remedy)
    return ok(name, text)


def check_requeue(script: Script) -> Finding:
    """Whether the job may start again, and keeps its log when it does."""
    name = "sbatch --requeue"
    requeue, never = script.get("requeue"), script.get("no-requeue")
    if requeue is None or (never is not None and never.line > requeue.line):
        found = "--no-requeue" if never else "not given: whether a job goes on after its time limit is up to the site"
        return warn(name, found, "#SBATCH --requeue\n#SBATCH --open-mode=append")
    if script.value("open-mode") not in ("append", "a"):
        return warn(name, "without --open-mode=append a restart erases the log", "#SBATCH --open-mode=append")
    return ok(name, "with --open-mode=append")


def check_mail(script: Script) -> Iterable[Finding]:
    """Whether mail that is asked for has an address."""
    name = "sbatch --mail-type"
    kinds, user = script.value("mail-type"), script.value("mail-user")
    if kinds and kinds.upper() != "NONE":
        good = bool(user) and UNCHANGED not in user
        found = (
            f"{kinds} to {user}" if user else f"{kinds}, but without --mail-user it goes to the cluster's own mailbox"
        )
        yield ok_or_warn(good, name, found, "#SBATCH --mail-user=YOU@EXAMPLE.ORG")
