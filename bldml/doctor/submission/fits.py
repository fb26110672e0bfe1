"""The fits that a job would run: one, or those of the tasks of an array. The file is read, never run."""

import re
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from bldml.doctor.checks import Finding, fail, ok
from bldml.doctor.submission.command_line import Submission
from bldml.doctor.submission.sbatch import FIT
from bldml.doctor.submission.script import Script

MAX_FITS = 12  # of an array are checked
MAX_TASKS = 10_000
_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)\})")
_ALL = re.compile(r"\$(?:[@*]|\{@(?::(\d+))?\})")


@dataclass(frozen=True)
class PlannedFit:
    """The options of a fit in a job."""

    options: tuple[str, ...] = ()
    task: str = ""  # name of the task of an array; empty for a job that is none
    named: bool = False  # whether the task's name follows --run_name (BLDML_TASK)
    problem: str = ""  # why the options are not known


def tasks_of(text: str) -> list[int]:
    """Return the numbers of an array's tasks; empty if the value is not valid.

    >>> tasks_of("0-3%2"), tasks_of("1,7-11:2"), tasks_of("")
    ([0, 1, 2, 3], [1, 7, 9, 11], [])
    """
    found: list[int] = []
    for part in text.partition("%")[0].split(","):
        match = re.fullmatch(r"(\d+)(?:-(\d+)(?::([1-9]\d*))?)?", part.strip())
        if match is None:
            return []
        numbers = range(int(match[1]), int(match[2] or match[1]) + 1, int(match[3] or 1))
        found += islice(numbers, MAX_TASKS)
    return found


def plan_fits(script: Script, submission: Submission, environ: Mapping[str, str]) -> list[PlannedFit]:
    """Return the fits of a job. Known are the scripts of bldml, and plain commands `srun … bldml fit …`."""
    arguments = submission.arguments
    tasks = tasks_of(script.value("array"))
    everything = "\n".join(command.text for command in script.commands)
    default = re.search(r"^CONFIG=(\S+)", everything, re.MULTILINE)
    names = re.search(r"^backbones=\(([^)]*)\)", everything, re.MULTILINE)
    whole = any(word == "--config" or word.startswith("--config=") for word in arguments)
    if arguments and not submission.typed and (whole or not default):
        return [PlannedFit(arguments)]
    if default and names:
        titles = names[1].split()
        chosen = [titles[task] for task in tasks if task < len(titles)]
        return [PlannedFit(_of_fit_script("", [f"configs/{name}.yaml", *arguments]), name, True) for name in chosen]
    if default:
        options = _of_fit_script(default[1], arguments)
        return [PlannedFit(options, str(task), True) for task in tasks] or [PlannedFit(options)]
    command = next((command for command in script.commands if FIT.search(command.text)), None)
    if command is None:
        unknown = PlannedFit(problem="no command `bldml fit` was found in the file")
        return [unknown if submission.typed and arguments else PlannedFit(arguments)]
    words = _words_of(FIT.split(command.text, 1)[1])
    by_task = "SLURM_ARRAY_TASK_ID" in command.text
    plans = []
    for task in tasks if by_task else [None]:
        known = {**environ, "SLURM_ARRAY_TASK_ID": str(task)} if task is not None else environ
        plans.append(_expanded(words, arguments, known, str(task) if task is not None else ""))
    return plans or [PlannedFit(problem="its command uses SLURM_ARRAY_TASK_ID, and there is no --array")]


def _words_of(command: str) -> list[str]:
    """Return the arguments of a command, up to an operator of the shell.

    >>> _words_of("--config a.yaml > log.txt 2>&1"), _words_of("--config a.yaml; echo done")
    (['--config', 'a.yaml'], ['--config', 'a.yaml'])
    """
    words: list[str] = []
    for word in shlex.split(command):
        if re.match(r"\d*[<>|&;]", word):
            break
        words.append(word.removesuffix(";"))
        if word.endswith(";"):
            break
    return words


def _of_fit_script(default: str, arguments: Sequence[str]) -> tuple[str, ...]:
    """Return the options that fit.sbatch makes of its arguments."""
    config, rest = default, list(arguments)
    chosen = bool(rest) and not rest[0].startswith("-")
    if chosen:
        config = rest.pop(0)
    resumes = any(word == "--resume" or word.startswith("--resume=") for word in rest)
    own = () if resumes and not chosen else ("--config", config)
    return (*own, "--config", "configs/slurm.yaml", *rest)


def _expanded(words: list[str], arguments: Sequence[str], known: Mapping[str, str], task: str) -> PlannedFit:
    options: list[str] = []
    for word in words:
        if match := _ALL.fullmatch(word):
            options += arguments[max(int(match[1] or 1) - 1, 0) :]
            continue
        missing: list[str] = []

        def value(match: re.Match[str], missing: list[str] = missing) -> str:
            name = match[1] or match[2]
            place = int(name) - 1 if name.isdigit() else -1
            found = arguments[place] if 0 <= place < len(arguments) else known.get(name)
            missing += [name] if found is None else []
            return found or ""

        text = _VARIABLE.sub(value, word)
        if missing or "$" in text or "`" in text:
            return PlannedFit(task=task, problem=f"{word} in its command is not known here")
        options.append(text)
    return PlannedFit(tuple(options), task)


def check_array(script: Script, plans: Sequence[PlannedFit]) -> Iterable[Finding]:
    """Check the tasks of an array."""
    name, text = "sbatch --array", script.value("array")
    names = re.search(r"^backbones=\(([^)]*)\)", script.text, re.MULTILINE)
    if names and (not text or max(tasks_of(text), default=-1) >= len(names[1].split())):
        last = len(names[1].split()) - 1
        yield fail(
            name, f"{text or 'not set'}: the backbones have the numbers 0 to {last}", f"#SBATCH --array=0-{last}"
        )
    elif text and not tasks_of(text):
        yield fail(name, f"{text} is not a list of numbers", "#SBATCH --array=0-3")
    elif text:
        shown = ", ".join(plan.task for plan in plans[:MAX_FITS] if plan.task)
        more = f"; only the first {MAX_FITS} are checked" if len(plans) > MAX_FITS else ""
        yield ok(name, f"{text}{f': {shown}' if shown else ''}{more}")


def check_run_names(script: Script, runs: Sequence[Path]) -> Iterable[Finding]:
    """Check that the runs of a job are new, and differ from task to task; `runs` are their folders, if set."""
    name = "run name"
    tasks = len(tasks_of(script.value("array")))
    twice = [run for run, count in Counter(runs).items() if count > 1]
    if not twice and len(runs) == 1 and tasks > 1 and "BLDML_TASK" not in script.text:
        twice = list(runs)
    for run in twice:
        found = f"{run.name}: {tasks} tasks would use this run folder, and all but the first would fail"
        yield fail(name, found, f"--run_name {run.name}_$SLURM_ARRAY_TASK_ID in the file, or export BLDML_TASK=… in it")
    for run in dict.fromkeys(run for run in runs if run.exists()):
        found = f"{run} already exists"
        yield fail(name, found, f"set another --run_name, or resume it: --resume {run}")
    if runs and not twice and not any(run.exists() for run in runs):
        yield ok(name, ", ".join(run.name for run in runs))
