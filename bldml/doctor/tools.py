"""Output of other programs (Slurm's commands, quota, nvidia-smi), with a time limit of a few seconds."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from typing import NamedTuple

TIMEOUT_S = 10.0


class Answer(NamedTuple):
    """Output of a program."""

    code: int | None  # None if the program is missing or did not end in time
    text: str = ""
    problem: str = ""  # its error message, or that of the operating system, on one line


def ask(*command: str, environ: Mapping[str, str] = os.environ) -> Answer:
    """Run a program that changes nothing, found on the PATH of `environ`."""
    program = shutil.which(command[0], path=environ.get("PATH"))
    if program is None:
        return Answer(None, problem=f"{command[0]} is not on the PATH")
    # Slurm prints times in a fixed format, whatever the user has set.
    plain = {**environ, "SLURM_TIME_FORMAT": "standard", "LC_ALL": "C.UTF-8"}
    try:
        done = subprocess.run(
            [program, *command[1:]],
            capture_output=True,
            timeout=TIMEOUT_S,
            check=False,
            env=plain,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        return Answer(None, problem=f"{command[0]} did not answer within {TIMEOUT_S:.0f} s")
    except OSError as error:
        return Answer(None, problem=f"{command[0]} cannot be run: {error.strerror}")
    text, message = (stream.decode("utf-8", "replace") for stream in (done.stdout, done.stderr))
    return Answer(done.returncode, text, last_lines(message or text) if done.returncode else "")


def last_lines(message: str) -> str:
    r"""Return the last two lines of an error message, which name the cause, on one line.

    >>> last_lines("scontrol: error: first\nscontrol: error: second\nslurm_load_ctl_conf error: third\n")
    'scontrol: error: second; slurm_load_ctl_conf error: third'
    """
    found = [line.strip() for line in message.splitlines() if line.strip() and not line.startswith('Try "')]
    return "; ".join(found[-2:]) or "no reason given"


def is_on_path(program: str, environ: Mapping[str, str]) -> bool:
    """Return whether a program is on the PATH."""
    return shutil.which(program, path=environ.get("PATH")) is not None
