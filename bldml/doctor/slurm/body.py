"""The shell commands of an sbatch file, and the checks of the file by bash and Slurm themselves."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from bldml.doctor.checks import Finding, fail, ok, ok_or_warn, skip, warn
from bldml.doctor.slurm.cluster import Site
from bldml.doctor.slurm.script import Command, Script
from bldml.doctor.tools import ask, is_on_path

FIT = re.compile(r"(?:\bpython[\d.]*\s+(?:-\w\s+)*?-m\s+bldml|\bbldml)\s+fit\b")
SRUN = re.compile(r"(?:^|[;&|({]|\b(?:exec|time|then|do))\s*srun\b")


def check_body(script: Script) -> Iterable[Finding]:
    """Check that the commands start the fit in such a way that Slurm's signals reach it."""
    yield check_form(script)
    yield check_backslashes(script)
    fits = [command for command in script.commands if FIT.search(command.text)]
    if not fits:
        yield skip("sbatch srun", "not checked: no command `bldml fit` was found in the file")
        return
    yield check_srun(script, fits)
    yield from check_step_cpus(script, fits)


def check_form(script: Script) -> Finding:
    """Check that sbatch accepts the file as a script."""
    name = "sbatch form"
    if "\r" in script.text:
        return fail(name, "Windows line endings (CR LF); sbatch refuses the file", r"sed -i 's/\r$//' FILE")
    if not script.text.startswith("#!"):
        return fail(name, "the first line does not begin with #!; sbatch refuses the file", "#!/bin/bash -l")
    return ok(name, script.text.splitlines()[0])


def check_backslashes(script: Script) -> Finding:
    """Check that no line of a long command lacks its backslash at the end."""
    name = "sbatch lines"
    for command in script.commands[1:]:
        if re.match(r"--?[A-Za-z]", command.text):
            return fail(
                name,
                f"line {command.line} begins with {command.text.split()[0]}, but the line before has no backslash",
                f"end the line before line {command.line} with a backslash, without a space after it",
            )
    return ok(name, "no missing line continuations")


def check_srun(script: Script, fits: list[Command]) -> Finding:
    """Check that srun starts the fit."""
    name = "sbatch srun"
    bare = [command for command in fits if not SRUN.search(command.text.split("bldml")[0])]
    if not bare:
        return ok(name, f"line {fits[0].line}")
    tasks = script.value("ntasks-per-node", "1")
    found = f"line {bare[0].line} starts the fit without srun: "
    remedy = "put srun before it: srun --kill-on-bad-exit=1 python -m bldml fit …"
    if tasks != "1":
        return fail(name, f"{found}only one of {tasks} processes would start", remedy)
    return warn(name, f"{found}the signal of --signal does not reach it", remedy)


def check_step_cpus(script: Script, fits: list[Command]) -> Iterable[Finding]:
    """Check that srun receives --cpus-per-task, which it does not inherit since Slurm 22.05."""
    if script.value("cpus-per-task") in ("", "1") or not any(SRUN.search(command.text) for command in fits):
        return
    exported = any("SRUN_CPUS_PER_TASK=" in command.text for command in script.commands)
    passed = all(re.search(r"\bsrun\b.*\s(--cpus-per-task|-c)\b", FIT.split(command.text)[0]) for command in fits)
    yield ok_or_warn(
        exported or passed,
        "sbatch step CPUs",
        "passed to srun" if exported or passed else "srun does not inherit --cpus-per-task since Slurm 22.05",
        "export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK     (before srun)",
    )


def check_syntax(path: Path, environ: Mapping[str, str]) -> Finding:
    """Check the syntax of the file with bash, without running it."""
    name = "sbatch syntax"
    if not is_on_path("bash", environ):
        return skip(name, "not checked: bash is not on the PATH")
    answer = ask("bash", "-n", str(path.absolute()), environ=environ)
    return ok_or_warn(
        answer.good, name, answer.problem or "bash -n finds no error", "correct that line", otherwise="FAIL"
    )


def check_verdict(path: Path, site: Site, environ: Mapping[str, str]) -> Finding:
    """Check the file with sbatch, without submitting it."""
    name = "sbatch --test-only"
    if not is_on_path("sbatch", environ):
        return skip(name, "not checked: sbatch is not on the PATH")
    if site.problem:
        return skip(name, f"not checked: {site.problem}")
    answer = ask("sbatch", "--test-only", str(path.absolute()), environ=environ)
    if answer.code is None:
        return skip(name, f"not checked: {answer.problem}")
    return ok_or_warn(
        answer.good, name, answer.problem or "Slurm would accept the job", "see Slurm's message", otherwise="FAIL"
    )
