"""Other programs' answers (Slurm's commands, quota, nvidia-smi), each within a few seconds or not at all."""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Answer:
    """What a program answered.

    Attributes:
        code: Its exit code; None if it is not there or did not answer in time.
        text: Its standard output.
        problem: What it or the operating system complained of, on one line; empty if nothing.
    """

    code: int | None
    text: str = ""
    problem: str = ""

    @property
    def good(self) -> bool:
        """Whether there is an answer to read."""
        return self.code == 0


def ask(*command: str, environ: Mapping[str, str] = os.environ) -> Answer:
    """Run a program that only reads.

    Args:
        command: The program and its arguments.
        environ: Its environment; PATH says where it is looked for.
    """
    program = shutil.which(command[0], path=environ.get("PATH"))
    if program is None:
        return Answer(None, problem=f"{command[0]} is not on the PATH")
    # Slurm's own times in a fixed form, whatever the user set.
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
    text, complaint = (stream.decode("utf-8", "replace") for stream in (done.stdout, done.stderr))
    return Answer(done.returncode, text, essence(complaint or text) if done.returncode else "")


def essence(complaint: str, lines: int = 2) -> str:
    r"""The last lines of a complaint, which name the cause, on one line.

    >>> essence("scontrol: error: first\nscontrol: error: second\nslurm_load_ctl_conf error: third\n")
    'scontrol: error: second; slurm_load_ctl_conf error: third'
    """
    found: Sequence[str] = [
        line.strip() for line in complaint.splitlines() if line.strip() and not line.startswith('Try "')
    ]
    return "; ".join(found[-lines:]) or "no reason given"


def is_there(program: str, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether a program is on the PATH."""
    return shutil.which(program, path=environ.get("PATH")) is not None
