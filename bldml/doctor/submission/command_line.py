"""The command line of sbatch as a user types it, and what it makes of a file."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from bldml.doctor.submission.script import COMMAND_LINE, Option, Script, options_of_variables, read_options, read_script
from bldml.errors import UsageError

_ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)
_CALLED = re.compile(r"\b(?:bash|source)\s+([\w./-]+\.sbatch)\b")


@dataclass(frozen=True)
class Submission:
    """A command `NAME=VALUE sbatch OPTIONS FILE ARGUMENTS`."""

    file: Path
    words: tuple[str, ...] = ()  # sbatch's own options
    arguments: tuple[str, ...] = ()  # of the file
    variables: Mapping[str, str] = field(default_factory=dict)
    typed: bool = True  # whether the arguments are those of the file; else they are options of its fit

    def read(self, environ: Mapping[str, str], folder: Path) -> Script:
        """Return the file as sbatch takes it: its lines, then the variables, then the command line, the last counts.

        The commands of another sbatch file that it runs follow its own; `folder` is that of the submission.
        """
        script = read_script(self.file)
        options: list[Option] = []
        problems: list[tuple[str, str]] = []
        read_options(COMMAND_LINE, list(self.words), options, problems)
        called = (_CALLED.search(command.text) for command in script.commands)
        others = [read_script(folder / match[1]) for match in called if match]
        return replace(
            script,
            options=(*script.options, *options_of_variables(environ), *options),
            problems=(*script.problems, *problems),
            commands=(*script.commands, *(command for other in others for command in other.commands)),
        )


def read_submission(words: list[str]) -> Submission | None:
    """Return the submission that a command line is; None if it does not call sbatch.

    Raises:
        UsageError: It names no file.

    >>> submission = read_submission(["BLDML_ENV=/env", "sbatch", "-t", "5", "fit.sbatch", "a.yaml", "--model.lr=1"])
    >>> submission.file.name, submission.words, submission.arguments, submission.variables
    ('fit.sbatch', ('-t', '5'), ('a.yaml', '--model.lr=1'), {'BLDML_ENV': '/env'})
    """
    rest = list(words)
    variables = {}
    while rest and (match := _ASSIGNMENT.fullmatch(rest[0])):
        variables[match[1]] = match[2]
        del rest[0]
    if not rest or Path(rest[0]).name != "sbatch":
        return None
    options: list[Option] = []
    after = read_options(COMMAND_LINE, rest[1:], options, [])
    if not after or any(option.name == "wrap" for option in options):
        message = "doctor needs a command line of sbatch that names a file: bldml doctor sbatch FILE"
        raise UsageError(message, "doctor-no-script")
    typed = tuple(rest[1 : len(rest) - len(after)])
    return Submission(Path(after[0]), typed, tuple(after[1:]), variables)
