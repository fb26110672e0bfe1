"""What a job gets besides its file and command line: variables that sbatch and srun read, of a session or a site."""

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

from bldml.doctor.checks import Finding, fail, ok, warn
from bldml.doctor.submission.sbatch import PLACEHOLDER, JobRequest
from bldml.doctor.submission.script import options_of_variables
from bldml.io.text import counted

# As in scripts/slurm/fit.sbatch: what describes a job, and what is an option of srun or describes a step.
OF_JOB = ("SLURM_JOB_*", "SLURM_CPUS_PER_TASK", "SLURM_NTASKS_PER_NODE", "SLURM_TASKS_PER_NODE")
OF_STEP = (
    *(
        "SRUN_*",
        "SLURM_*_PER_*",
        "SLURM_MEM_*",
        "SLURM_CPU_*",
        "SLURM_GPU_*",
        "SLURM_GPUS",
        "SLURM_GRES*",
        "SLURM_TRES*",
    ),
    *("SLURM_HINT", "SLURM_CORE_SPEC", "SLURM_THREAD*", "SLURM_DIST*", "SLURM_EX*", "SLURM_OVER*", "SLURM_CONSTRAINT"),
    *("SLURM_CLUSTERS", "SLURM_STEP_*", "SLURM_STEPID", "SLURM_SRUN_*", "SLURM_PTY_*", "SLURM_LAUNCH_*", "SLURM_HET_*"),
    *(
        "SLURM_RESV_PORTS",
        "SLURM_STD*MODE",
        "SLURM_WORKING_DIR",
        "SLURM_REMOTE_CWD",
        "SLURM_IMMEDIATE",
        "SLURM_NO_KILL",
    ),
    *("SLURM_SIGNAL", "SLURM_WAIT", "SLURM_TIMELIMIT", "SLURM_UNBUFFEREDIO", "SLURM_LABELIO", "SLURM_OPEN_MODE"),
    "SLURM_KILL_BAD_EXIT",
)
# srun refuses to start if two of them are set.
MEMORY = {"SLURM_MEM_PER_CPU": "mem-per-cpu", "SLURM_MEM_PER_GPU": "mem-per-gpu", "SLURM_MEM_PER_NODE": "mem"}
SHOWN = 6
CLEAN = "copy the lines from `# sbatch passes on` on from scripts/slurm/fit.sbatch, or submit from outside the session"


def inherited(environ: Mapping[str, str]) -> list[str]:
    """Return the variables that a job would inherit and that its srun, or bldml, would take for its own.

    >>> inherited({"SLURM_JOB_ID": "1", "SLURM_NTASKS": "4", "SLURM_MEM_PER_CPU": "9", "SLURM_ARRAY_TASK_ID": "1"})
    ['SLURM_ARRAY_TASK_ID', 'SLURM_MEM_PER_CPU']
    """

    def is_one_of(name: str, patterns: Iterable[str]) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in patterns)

    of_array = [name for name in environ if name.startswith("SLURM_ARRAY_")]
    return sorted([name for name in environ if is_one_of(name, OF_STEP) and not is_one_of(name, OF_JOB)] + of_array)


def check_inherited(request: JobRequest) -> Iterable[Finding]:
    """Check what the job would inherit from the session or job in which doctor runs, and sbatch probably too."""
    name = "sbatch environment"
    found = inherited(request.environ)
    if not found or request.script.value("export").upper() in ("NONE", "NIL"):
        return
    where = f"job {request.environ['SLURM_JOB_ID']}" if "SLURM_JOB_ID" in request.environ else "this shell"
    names = ", ".join(found[:SHOWN]) + (f" and {len(found) - SHOWN} more" if len(found) > SHOWN else "")
    if request.script.cleans:
        yield ok(name, f"the file removes {counted(len(found), 'variable')} of {where}: {names}")
        return
    asked = [variable for variable, option in MEMORY.items() if request.script.option(option)]
    clash = [variable for variable in MEMORY if variable in found and asked and variable not in asked]
    if clash:
        option = f"--{MEMORY[asked[0]]}"
        text = f"{clash[0]} of {where} and {option} of the job: srun refuses to start with both"
        yield fail(name, text, f"unset {' '.join(clash)}     (before sbatch)\n{CLEAN}")
    else:
        yield warn(name, f"the job inherits from {where}, and srun would use: {names}", CLEAN)


def check_kinds_of_memory(environ: Mapping[str, str]) -> Iterable[Finding]:
    """Check, inside a job, that srun would start."""
    kinds = [variable for variable in MEMORY if variable in environ]
    if "SLURM_JOB_ID" in environ and len(kinds) > 1:
        text = f"{' and '.join(kinds)} are set, one of them by the session from which the job was submitted"
        yield fail("memory of the job", f"{text}: srun refuses to start", f"unset {' '.join(kinds)}     (before srun)")


def check_overrides(request: JobRequest) -> Iterable[Finding]:
    """Check whether variables of this shell replace options of the file."""
    for option in options_of_variables(request.environ):
        name = f"{option.source}"
        shown = f"--{option.name}{f'={option.value}' if option.value else ''}"
        own = next((each for each in request.script.options if each.name == option.name), None)
        counts = request.script.option(option.name)
        if counts is None or counts.source != option.source:
            yield ok(name, f"{shown}, which the command line of sbatch overrides")
        elif own is None or own.source == option.source or own.value == option.value or PLACEHOLDER in own.value:
            yield ok(name, shown)
        else:
            text = f"{shown} of this shell overrides {own.value or 'none'} of {own.source}"
            yield warn(name, text, f"unset {option.source}     (if that is not intended)")


def check_export(request: JobRequest) -> Iterable[Finding]:
    """Check that the job gets the environment with bldml, and its fit what the file sets."""
    name, text = "sbatch --export", request.script.value("export")
    words = [word.strip() for word in text.split(",")]
    if not text or "ALL" in (word.upper() for word in words):
        return
    if not request.script.cleans:
        found = f"{text}: srun passes only this to the fit, not even the PATH of the file"
        yield fail(name, found, f"--export=ALL,{text}\n(or unset SLURM_EXPORT_ENV in the file)")
    elif not any(word.partition("=")[0] == "BLDML_ENV" for word in words) and "/" not in _environment(request):
        found = f"{text}: the job does not get the environment that is active here"
        yield warn(name, found, "--export=ALL,…, or --export=BLDML_ENV=PATH,…")
    else:
        yield ok(name, text)


def _environment(request: JobRequest) -> str:
    """Return the value of BLDML_ENV that the file itself sets."""
    lines = (command.text for command in request.script.commands if command.text.startswith("BLDML_ENV="))
    return next(lines, "")


CHECKS = (check_inherited, check_overrides, check_export)
