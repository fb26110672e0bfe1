"""Checks of the #SBATCH lines: options that sbatch or Lightning would refuse, or that could lose a run."""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

from bldml.doctor.checks import Finding, fail, ok, ok_or_warn, skip, warn
from bldml.doctor.slurm.parse import read_signal
from bldml.doctor.slurm.resources import (
    JobRequest,
    check_gpus,
    check_requested_cpus,
    check_tasks,
    check_time,
    requests_gpu,
)
from bldml.doctor.slurm.script import OPTIONS, Script
from bldml.training.resume.job import INTERACTIVE_NAMES

MIN_SIGNAL_S = 120  # Slurm may send the signal up to 60 s early or late, and saving takes time
TYPOS = {
    "memory": "mem",
    "cpus": "cpus-per-task",
    "gpu": "gres=gpu:1",
    "tasks": "ntasks-per-node",
    "queue": "partition",
}
PLACEHOLDER = "CHANGE_ME"


def check_options(request: JobRequest) -> Iterable[Finding]:
    """Run all checks of the #SBATCH lines."""
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
    """Check for options that sbatch does not know, lines it cannot parse, and lines it does not read."""
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
        found = f"line {option.line}: unknown option --{option.name.lstrip('-')}"
        if near:
            value = "" if "=" in near or not option.value else f"={option.value}"
            yield fail(name, found, f"#SBATCH --{near}{value}")
        else:
            yield warn(name, f"{found} in the Slurm versions that bldml knows", "man sbatch")
    if script.late:
        bad = True
        lines = ", ".join(map(str, script.late))
        yield warn(name, f"line {lines}: sbatch ignores #SBATCH lines after the first command", "move them to the top")
    if not bad:
        yield ok(name, f"{len(script.options)} options read")


def check_account(request: JobRequest) -> Finding:
    """Check that the job has an account; SCINet refuses jobs without one."""
    name = "sbatch --account"
    account = request.script.value("account") or request.environ.get("SBATCH_ACCOUNT", "")
    good = bool(account) and PLACEHOLDER not in account
    found = account if good else f"{account}: replace it" if account else "not set"
    remedy = "#SBATCH --account=PROJECT     (your project's name; sacctmgr -n show assoc user=$USER format=account)"
    return ok_or_warn(good, name, found, remedy, otherwise="FAIL" if request.site.has_slurm else "WARN")


def check_partition_name(request: JobRequest) -> Iterable[Finding]:
    """Check that the partition exists, and that the cluster has GPUs if they are requested."""
    name = "sbatch --partition"
    asked = request.script.value("partition")
    known = request.site.partitions
    cluster = (request.site.cluster or request.environ.get("SLURM_CLUSTER_NAME", "")).lower()
    if cluster == "ceres" and ("gpu" in asked or requests_gpu(request.script)):
        yield fail(
            name, "Ceres has no GPUs", "submit the job on Atlas, whose partitions are gpu-l40s, gpu-a100, gpu-v100"
        )
        return
    unknown = [part for part in asked.split(",") if part and known and part not in known]
    if unknown:
        near = get_close_matches(unknown[0], list(known), 1, 0.4) or sorted(known)[:1]
        found = f"{unknown[0]} does not exist; partitions: {', '.join(sorted(known))}"
        yield fail(name, found, f"#SBATCH --partition={near[0]}")
    elif not asked and request.partition:
        yield ok(name, f"not set: {request.partition}")
    elif not asked:
        yield warn(
            name, "not set: the default partition, which rarely has GPUs", "#SBATCH --partition=NAME     (sinfo -s)"
        )
    else:
        yield ok(name, asked + ("" if known else "; not checked whether it exists"))


def check_job_name(script: Script) -> Finding:
    """Check that Lightning will treat the job as a batch job."""
    job_name = script.value("job-name")
    found = (
        f"{job_name}: Lightning takes such a job for an interactive one" if job_name in INTERACTIVE_NAMES else job_name
    )
    remedy = "#SBATCH --job-name=bldml-fit"
    return ok_or_warn(
        job_name not in INTERACTIVE_NAMES, "sbatch --job-name", found or "name of the file", remedy, otherwise="FAIL"
    )


def check_output_file(request: JobRequest) -> Finding:
    """Check that the folder of the log exists; Slurm does not create it, and the job would fail without a message."""
    name = "sbatch --output"
    output = request.script.value("output", "slurm-%j.out")
    start = request.folder / request.script.value("chdir", ".")
    folder = start / Path(output).parent
    if "%" in str(Path(output).parent):
        return skip(name, f"not checked: the folder of {output} depends on the job")
    return ok_or_warn(folder.is_dir(), name, f"{output} in {folder}", f"mkdir -p {folder}", otherwise="FAIL")


def check_signal(script: Script) -> Finding:
    """Check that the fit receives a signal early enough before the time limit."""
    name = "sbatch --signal"
    remedy = "#SBATCH --signal=USR1@180"
    text = script.value("signal")
    if not text:
        return warn(name, "not set: training since the last checkpoint is lost at the time limit", remedy)
    found = read_signal(text)
    if found is None:
        return fail(name, f"{text} is not a valid value", remedy)
    trapped = any(re.search(rf"\btrap\b.*\b(SIG)?{found.name}\b", command.text) for command in script.commands)
    if "B" in found.flags and not trapped:
        return fail(name, f"{text}: B: signals the shell only, never the fit started by srun", remedy)
    if found.name != "USR1":
        return warn(name, f"{text}: a fit saves and requeues at USR1", remedy)
    if found.seconds < MIN_SIGNAL_S:
        return warn(name, f"{text}: {found.seconds} s may be too short to save", remedy)
    return ok(name, text)


def check_requeue(script: Script) -> Finding:
    """Check that the job can be requeued and then appends to its log."""
    name = "sbatch --requeue"
    requeue, never = script.get("requeue"), script.get("no-requeue")
    if requeue is None or (never is not None and never.line > requeue.line):
        found = (
            "--no-requeue" if never else "not set: whether the job is requeued after its time limit depends on the site"
        )
        return warn(name, found, "#SBATCH --requeue\n#SBATCH --open-mode=append")
    if script.value("open-mode") not in ("append", "a"):
        return warn(name, "without --open-mode=append a requeued job overwrites its log", "#SBATCH --open-mode=append")
    return ok(name, "with --open-mode=append")


def check_mail(script: Script) -> Iterable[Finding]:
    """Check that requested mail has an address."""
    name = "sbatch --mail-type"
    kinds, user = script.value("mail-type"), script.value("mail-user")
    if kinds and kinds.upper() != "NONE":
        good = bool(user) and PLACEHOLDER not in user
        found = (
            f"{kinds} to {user}" if user else f"{kinds}; without --mail-user the mail goes to a mailbox on the cluster"
        )
        yield ok_or_warn(good, name, found, "#SBATCH --mail-user=YOU@EXAMPLE.ORG")
