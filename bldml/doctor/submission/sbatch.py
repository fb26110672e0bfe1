"""Checks of an sbatch file: what sbatch or Lightning would refuse, what could lose a run, limits of the cluster."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path

from bldml.doctor.checks import Finding, fail, ok, ok_or, ok_or_fail, ok_or_warn, skip, warn
from bldml.doctor.configuration import Settings
from bldml.doctor.slurm import Site, count_devices, format_time, read_time
from bldml.doctor.submission.script import COMMAND_LINE, OPTIONS, Command, Script
from bldml.doctor.tools import ask, is_on_path
from bldml.io.text import counted
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
FIT = re.compile(r"(?:\bpython[\d.]*\s+(?:-\w\s+)*?-m\s+bldml|\bbldml)\s+fit\b")
SRUN = re.compile(r"(?:^|[;&|({]|\b(?:exec|time|then|do))\s*srun\b")


@dataclass(frozen=True)
class JobRequest:
    """An sbatch file with everything that its checks need."""

    script: Script
    site: Site
    settings: Settings | None
    environ: Mapping[str, str]
    folder: Path

    @property
    def partition(self) -> str:
        """The requested partition, or the default partition; empty if not known."""
        return self.script.value("partition").split(",")[0] or self.site.default_partition

    @property
    def fits(self) -> list[Command]:
        """The commands that start a fit."""
        return [command for command in self.script.commands if FIT.search(command.text)]

    @property
    def gpus(self) -> int:
        """Number of GPUs per node that the script requests.

        >>> from bldml.doctor.submission.script import parse_script
        >>> scripts = (parse_script(f"#SBATCH {text}") for text in ("--gres=gpu:a100:2", "--gres=gpu", "-G 3", "-c 2"))
        >>> [JobRequest(script, Site(), None, {}, Path()).gpus for script in scripts]
        [2, 1, 3, 0]
        """
        for name in ("gres", "gpus-per-node", "gpus", "gpus-per-task"):
            for item in filter(None, self.script.value(name).split(",")):
                words = item.split(":")
                if name != "gres" or words[0] in ("gpu", "gres/gpu"):
                    return int(words[-1]) if words[-1].isdigit() else 1
        return 0


def check_known(request: JobRequest) -> Iterable[Finding]:
    """Check for options that sbatch does not know, lines it cannot parse, and lines it does not read."""
    script = request.script
    name = "sbatch options"
    unknown = [option for option in script.options if option.name not in OPTIONS]
    for source, problem in script.problems:
        yield fail(name, f"{source}: {problem}", f"correct {source}")
    for option in unknown:
        near = TYPOS.get(option.name) or next(iter(get_close_matches(option.name, OPTIONS, 1, 0.7)), "")
        found = f"{option.source}: unknown option --{option.name.lstrip('-')}"
        if near:
            value = "" if "=" in near or not option.value else f"={option.value}"
            yield fail(name, found, f"#SBATCH --{near}{value}")
        else:
            yield warn(name, f"{found} in the Slurm versions that bldml knows", "man sbatch")
    if script.late:
        lines = ", ".join(map(str, script.late))
        yield warn(name, f"line {lines}: sbatch ignores #SBATCH lines after the first command", "move them to the top")
    if not (script.problems or unknown or script.late):
        yield ok(name, f"{len(script.options)} options read")


def check_account(request: JobRequest) -> Finding:
    """Check that the job has an account; SCINet refuses jobs without one."""
    account = request.script.value("account")
    good = bool(account) and PLACEHOLDER not in account
    found = account if good else f"{account}: replace it" if account else "not set"
    remedy = "#SBATCH --account=PROJECT     (your project's name; sacctmgr -n show assoc user=$USER format=account)"
    return ok_or("FAIL" if request.site.has_slurm else "WARN", good, "sbatch --account", found, remedy)


def check_partition_name(request: JobRequest) -> Finding:
    """Check that the partition exists, and that the cluster has GPUs if they are requested."""
    name = "sbatch --partition"
    asked = request.script.value("partition")
    known = request.site.partitions
    cluster = request.site.settings.get("ClusterName") or request.environ.get("SLURM_CLUSTER_NAME", "")
    if cluster.lower() == "ceres" and ("gpu" in asked or request.gpus):
        remedy = "submit the job on Atlas, whose partitions are gpu-l40s, gpu-a100, gpu-v100"
        return fail(name, "Ceres has no GPUs", remedy)
    if unknown := [title for title in asked.split(",") if title and known and title not in known]:
        near = get_close_matches(unknown[0], list(known), 1, 0.4) or sorted(known)[:1]
        found = f"{unknown[0]} does not exist; partitions: {', '.join(sorted(known))}"
        return fail(name, found, f"#SBATCH --partition={near[0]}")
    if asked:
        return ok(name, asked if known else f"{asked}; not checked whether it exists")
    if request.partition:
        return ok(name, f"not set: {request.partition}")
    remedy = "#SBATCH --partition=NAME     (sinfo -s)"
    return warn(name, "not set: the default partition, which rarely has GPUs", remedy)


def check_time(request: JobRequest) -> Finding:
    """Check that a time limit is set and does not exceed that of the partition."""
    name, remedy = "sbatch --time", "#SBATCH --time=08:00:00"
    asked = request.script.value("time")
    if not asked:
        return warn(name, "not set: the default of the site, often 2 hours", remedy)
    seconds = read_time(asked)
    if seconds is None:
        return fail(name, f"{asked} is not a time", f"{remedy}     (or days-hours:minutes:seconds)")
    limit = read_time(request.site.partitions.get(request.partition, {}).get("MaxTime", ""))
    if limit is not None and seconds > limit:
        found = f"{asked} exceeds the limit of {request.partition}, {format_time(limit)}"
        return fail(name, found, f"#SBATCH --time={format_time(limit)}     (a requeued fit resumes)")
    return ok(name, format_time(seconds))


def check_gres(request: JobRequest) -> Finding:
    """Check that a GPU is requested."""
    name, remedy = "sbatch --gres", "#SBATCH --gres=gpu:1"
    if request.gpus:
        return ok(name, f"{counted(request.gpus, 'GPU')} per node")
    if request.settings and request.settings.accelerator == "cpu":
        return ok(name, "none; trainer.accelerator is cpu")
    if "gpu" in request.partition:
        return fail(name, f"no GPU requested: a job in {request.partition} does not get one automatically", remedy)
    return warn(name, "no GPU requested: the fit would run on the CPU", remedy)


def check_requested_cpus(request: JobRequest) -> Finding:
    """Check that enough CPUs are requested for the workers and the training process."""
    name = "sbatch --cpus-per-task"
    asked = request.script.value("cpus-per-task")
    workers = request.settings.num_workers if request.settings else "auto"
    wanted = workers + 1 if isinstance(workers, int) else 8
    remedy = f"#SBATCH --cpus-per-task={wanted}"
    if not asked.isdigit():
        return warn(name, f"{asked or 'not set: one CPU'} for loading and training", remedy)
    if isinstance(workers, int) and int(asked) < wanted:
        return warn(name, f"{asked} for {counted(workers, 'worker')} and the training process", remedy)
    return ok(name, f"{asked}; data.num_workers {workers}")


def check_tasks(request: JobRequest) -> Iterable[Finding]:
    """Check that the script starts as many processes as the trainer expects."""
    script, settings = request.script, request.settings
    ntasks, per_node, nodes = (script.value(option) for option in ("ntasks", "ntasks-per-node", "nodes"))
    name = "sbatch --ntasks-per-node"
    devices = None if settings is None else count_devices(settings, request.gpus)
    both = per_node.isdigit() and nodes.isdigit()
    # Both together: srun starts as many as --ntasks says.
    if ntasks.isdigit() and int(ntasks) > 1 and (not per_node or (both and int(ntasks) != int(per_node) * int(nodes))):
        if devices is None or not nodes.isdigit() or int(ntasks) != devices * int(nodes):
            per = "one process" if devices is None else counted(devices, "process", "processes")
            found = f"--ntasks={ntasks}: srun starts {ntasks} processes, on {nodes or 'any number of'} nodes; "
            remedy = "#SBATCH --ntasks-per-node=1     (= trainer.devices)\n#SBATCH --cpus-per-task=8     (for CPUs)"
            yield fail(name, f"{found}a fit takes {per} per node, one for each of trainer.devices", remedy)
            return
        per_node = str(devices)
    if settings is None:
        yield skip(name)
        return
    found = f"{per_node or '1 (not set)'}; trainer.devices {settings.devices}"
    good = devices is None or devices == int(per_node if per_node.isdigit() else 1)
    yield ok_or_fail(good, name, found, f"#SBATCH --ntasks-per-node={devices}     (= trainer.devices)")
    nodes = re.split(r"[-,]", script.value("nodes", "1"))[-1]
    found = f"{nodes}; trainer.num_nodes {settings.num_nodes}"
    remedy = f"#SBATCH --nodes={settings.num_nodes}, or --trainer.num_nodes {nodes}"
    yield ok_or_fail(nodes == str(settings.num_nodes), "sbatch --nodes", found, remedy)


def check_job_name(request: JobRequest) -> Finding:
    """Check that the job is not taken for an interactive one."""
    name, title = "sbatch --job-name", request.script.value("job-name")
    if title in INTERACTIVE_NAMES:
        found = f"{title}: such a job counts as interactive, and is neither resumed nor requeued by itself"
        return fail(name, found, "#SBATCH --job-name=bldml-fit")
    return ok(name, title or "name of the file")


def check_output_file(request: JobRequest) -> Finding:
    """Check that the folder of the log exists; Slurm does not create it, and the job would fail without a message."""
    name = "sbatch --output"
    output = request.script.value("output", "slurm-%j.out")
    below = Path(output).parent
    folder = request.folder / request.script.value("chdir", ".") / below
    if "%" in str(below):
        return skip(name, f"not checked: the folder of {output} depends on the job")
    return ok_or_fail(folder.is_dir(), name, f"{output} in {folder}", f"mkdir -p {folder}")


def check_signal(request: JobRequest) -> Finding:
    """Check that the fit receives a signal early enough before the time limit."""
    script = request.script
    name, remedy = "sbatch --signal", "#SBATCH --signal=USR1@180"
    text = script.value("signal")
    if not text:
        return warn(name, "not set: training since the last checkpoint is lost at the time limit", remedy)
    found = read_signal(text)
    if found is None:
        return fail(name, f"{text} is not a valid value", remedy)
    flags, sent, seconds = found
    # `trap "" USR1` ignores the signal, and so do the processes that the shell starts.
    trap = re.compile(rf"\btrap\s+(?!\"\"|'')\S.*\b(SIG)?{sent}\b")
    trapped = any(trap.search(command.text) for command in script.commands)
    if "B" in flags and not trapped:
        return fail(name, f"{text}: B: signals the shell only, never the fit started by srun", remedy)
    if sent != "USR1":
        return warn(name, f"{text}: a fit saves and requeues at USR1", remedy)
    if seconds < MIN_SIGNAL_S:
        return warn(name, f"{text}: {seconds} s may be too short to save", remedy)
    return ok(name, text)


def read_signal(text: str) -> tuple[str, str, int] | None:
    """Return flags, signal without SIG, and seconds before the time limit of `--signal`; None if it is not valid.

    >>> read_signal("USR1@180"), read_signal("B:10")
    (('', 'USR1', 180), ('B', 'USR1', 60))
    """
    match = re.fullmatch(r"(?:([RBrb]+):)?(?:SIG)?([A-Za-z]+[0-9]?|[0-9]+)(?:@([0-9]+))?", text)
    if match is None:
        return None
    name = {"10": "USR1", "12": "USR2", "15": "TERM"}.get(match[2], match[2].upper())
    return (match[1] or "").upper(), name, int(match[3] or 60)


def check_requeue(request: JobRequest) -> Finding:
    """Check that the job can be requeued and then appends to its log."""
    script = request.script
    name, append = "sbatch --requeue", "#SBATCH --open-mode=append"
    last = next((option.name for option in reversed(script.options) if option.name in ("requeue", "no-requeue")), "")
    if last == "no-requeue":
        return warn(name, "--no-requeue", f"#SBATCH --requeue\n{append}")
    if not last:
        found = "not set: whether the job is requeued after its time limit depends on the site"
        return warn(name, found, f"#SBATCH --requeue\n{append}")
    if script.value("open-mode") not in ("append", "a"):
        return warn(name, "without --open-mode=append a requeued job overwrites its log", append)
    return ok(name, "with --open-mode=append")


def check_mail(request: JobRequest) -> Iterable[Finding]:
    """Check that requested mail has an address."""
    script = request.script
    kinds, user = script.value("mail-type"), script.value("mail-user")
    if kinds and kinds.upper() != "NONE":
        good = bool(user) and PLACEHOLDER not in user
        to = f" to {user}" if user else "; without --mail-user the mail goes to a mailbox on the cluster"
        yield ok_or_warn(good, "sbatch --mail-type", f"{kinds}{to}", "#SBATCH --mail-user=YOU@EXAMPLE.ORG")


def check_srun(request: JobRequest) -> Finding:
    """Check that srun starts the fit, so that Slurm's signals reach it."""
    name, fits = "sbatch srun", request.fits
    if not fits:
        return skip(name, "not checked: no command `bldml fit` was found in the file")
    bare = [command for command in fits if not SRUN.search(command.text.split("bldml")[0])]
    if not bare:
        return ok(name, f"line {fits[0].line}")
    tasks = request.script.value("ntasks-per-node", "1")
    found = f"line {bare[0].line} starts the fit without srun: "
    remedy = "put srun before it: srun --kill-on-bad-exit=1 python -m bldml fit …"
    if tasks != "1":
        return fail(name, f"{found}only one of {tasks} processes would start", remedy)
    return warn(name, f"{found}the signal of --signal does not reach it", remedy)


def check_step_cpus(request: JobRequest) -> Iterable[Finding]:
    """Check that srun receives --cpus-per-task, which it does not inherit since Slurm 22.05."""
    script, fits = request.script, [command.text for command in request.fits]
    if script.value("cpus-per-task") in ("", "1") or not any(SRUN.search(text) for text in fits):
        return
    good = any("SRUN_CPUS_PER_TASK=" in command.text for command in script.commands)
    good = good or all(re.search(r"\bsrun\b.*\s(--cpus-per-task|-c)\b", FIT.split(text)[0]) for text in fits)
    found = "passed to srun" if good else "srun does not inherit --cpus-per-task since Slurm 22.05"
    remedy = "export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK     (before srun)"
    yield ok_or_warn(good, "sbatch step CPUs", found, remedy)


def check_form(request: JobRequest) -> Finding:
    """Check that sbatch accepts the file as a script."""
    script = request.script
    name = "sbatch form"
    if "\r" in script.text:
        return fail(name, "Windows line endings (CR LF); sbatch refuses the file", r"sed -i 's/\r$//' FILE")
    if not script.text.startswith("#!"):
        return fail(name, "the first line does not begin with #!; sbatch refuses the file", "#!/bin/bash -l")
    return ok(name, script.text.splitlines()[0])


def check_backslashes(request: JobRequest) -> Finding:
    """Check that no line of a long command lacks its backslash at the end."""
    name = "sbatch lines"
    for line, text in request.script.commands[1:]:
        if re.match(r"--?[A-Za-z]", text):
            found = f"line {line} begins with {text.split()[0]}, but the line before has no backslash"
            remedy = f"end the line before line {line} with a backslash, without a space after it"
            return fail(name, found, remedy)
    return ok(name, "no missing line continuations")


CHECKS: tuple[Callable[[JobRequest], Finding | Iterable[Finding]], ...] = (
    *(check_known, check_account, check_partition_name, check_time, check_gres, check_requested_cpus, check_tasks),
    *(check_job_name, check_output_file, check_signal, check_requeue, check_mail),
    *(check_form, check_backslashes, check_srun, check_step_cpus),
)


def judge(check: Callable[[JobRequest], Finding | Iterable[Finding]], request: JobRequest) -> Iterable[Finding]:
    """Run a check; where the command line or a variable overrides the file, the remedy says so."""
    found = check(request)
    for finding in [found] if isinstance(found, Finding) else found:
        match = re.match(r"#SBATCH --([\w-]+)", finding.remedy)
        option = request.script.option(match[1]) if match else None
        if option is None or option.source.startswith("line "):
            yield finding
        elif option.source == COMMAND_LINE:
            yield replace(finding, remedy=finding.remedy.replace("#SBATCH ", "sbatch ", 1))
        else:
            yield replace(
                finding, remedy=f"unset {option.source}, or {finding.remedy.replace('#SBATCH ', 'sbatch ', 1)}"
            )


def check_syntax(path: Path, environ: Mapping[str, str]) -> Finding:
    """Check the syntax of the file with bash, without running it."""
    name = "sbatch syntax"
    if not is_on_path("bash", environ):
        return skip(name, "not checked: bash is not on the PATH")
    answer = ask("bash", "-n", str(path.absolute()), environ=environ)
    return ok_or_fail(answer.code == 0, name, answer.problem or "bash -n finds no error", "correct that line")


def check_verdict(path: Path, words: Sequence[str], site: Site, environ: Mapping[str, str]) -> Finding:
    """Check the file with sbatch and these options, without submitting it."""
    name = "sbatch --test-only"
    if not is_on_path("sbatch", environ):
        return skip(name, "not checked: sbatch is not on the PATH")
    if site.problem:
        return skip(name, f"not checked: {site.problem}")
    answer = ask("sbatch", "--test-only", *words, str(path.absolute()), environ=environ)
    if answer.code is None:
        return skip(name, f"not checked: {answer.problem}")
    return ok_or_fail(answer.code == 0, name, answer.problem or "Slurm would accept the job", "see Slurm's message")
