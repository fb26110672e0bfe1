"""Parser of sbatch files, following sbatch: the options and the shell commands after them."""

import math
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

# Options of sbatch without a value or with an optional one; then those that need one (man sbatch, and newer Slurm).
_FLAGS = (
    "contiguous exclusive get-user-env help hold ignore-pbs nice no-kill no-requeue overcommit oversubscribe parsable "
    "propagate quiet reboot requeue spread-job test-only usage use-min-nodes verbose version wait"
)
_VALUED = (
    "account acctg-freq array batch bb bbf begin chdir cluster-constraint clusters comment constraint container "
    "container-id core-spec cores-per-socket cpu-freq cpus-per-gpu cpus-per-task deadline delay-boot dependency "
    "distribution error exclude export export-file extra extra-node-info gid gpu-bind gpu-freq gpus gpus-per-node "
    "gpus-per-socket gpus-per-task gres gres-flags hint input job-name kill-on-invalid-dep licenses mail-type "
    "mail-user mcs-label mem mem-bind mem-per-cpu mem-per-gpu mincpus network nodefile nodelist nodes ntasks "
    "ntasks-per-core ntasks-per-gpu ntasks-per-node ntasks-per-socket open-mode output partition power prefer "
    "priority profile qos reservation resv-ports segment signal sockets-per-node stepmgr switches thread-spec "
    "threads-per-core time time-min tmp tres-bind tres-per-task uid wait-all-nodes wckey wrap"
)
VALUED = frozenset(_VALUED.split())
OPTIONS = VALUED | frozenset(_FLAGS.split())
SHORT = {
    "A": "account", "a": "array", "b": "begin", "D": "chdir", "M": "clusters", "C": "constraint", "S": "core-spec",
    "c": "cpus-per-task", "d": "dependency", "m": "distribution", "e": "error", "x": "exclude",
    "B": "extra-node-info", "G": "gpus", "h": "help", "H": "hold", "i": "input", "J": "job-name", "L": "licenses",
    "k": "no-kill", "F": "nodefile", "w": "nodelist", "N": "nodes", "n": "ntasks", "o": "output",
    "O": "overcommit", "s": "oversubscribe", "p": "partition", "q": "qos", "Q": "quiet", "t": "time", "v": "verbose",
    "V": "version", "W": "wait",
}  # fmt: skip
LARGEST_SCRIPT = 2**22  # bytes; Slurm takes no larger one unless the site has set max_script_size
COMMAND_LINE = "the command line"
# Variables that sbatch reads as options, if not SBATCH_ and the name of the option.
_VARIABLES = {
    "SBATCH_ARRAY_INX": "array", "SBATCH_DEBUG": "verbose", "SBATCH_MEM_PER_NODE": "mem",
    "SBATCH_REQ_SWITCH": "switches", "SBATCH_TIMELIMIT": "time", "SLURM_CLUSTERS": "clusters", "SLURM_HINT": "hint",
}  # fmt: skip
_BEFORE_COMMENT = re.compile(r"""(?:\\.|'[^']*'?|"(?:\\.|[^"\\])*"?|(?<=\S)\#|[^#])*+""", re.DOTALL)
_COMMAND = re.compile(r"^[ \t]*+(?!#)(?:[^\\\n]|\\.)+", re.DOTALL | re.MULTILINE)  # with its continuation lines


class Option(NamedTuple):
    """One option: where it is set, its long name (as written if sbatch does not know it) and its value."""

    source: str  # "line 7" of the file, COMMAND_LINE, or the name of a variable
    name: str
    value: str  # empty for a flag


class Command(NamedTuple):
    """One shell command without comments; lines ending in a backslash are joined."""

    line: int  # number of its first line, from 1
    text: str


@dataclass(frozen=True)
class Script:
    """An sbatch file."""

    text: str = ""
    options: tuple[Option, ...] = ()  # in order; of equal names the last one counts
    problems: tuple[tuple[str, str], ...] = ()  # where there is something that sbatch would refuse, with the reason
    late: tuple[int, ...] = ()  # numbers of #SBATCH lines after the first command, which sbatch ignores
    commands: tuple[Command, ...] = ()

    def value(self, name: str, otherwise: str = "") -> str:
        """Return the value of an option, or `otherwise` if it is not set."""
        option = self.option(name)
        return option.value if option else otherwise

    def option(self, name: str) -> Option | None:
        """Return an option as it counts; None if it is not set."""
        return next((option for option in reversed(self.options) if option.name == name), None)

    @property
    def cleans(self) -> bool:
        """Whether the file removes what it inherits from a session, as the scripts of bldml do."""
        text = "\n".join(command.text for command in self.commands)
        return '"${!SLURM_@}"' in text and 'unset "$name"' in text


def read_script(path: Path) -> Script:
    """Read an sbatch file; one that cannot be read, or is larger than Slurm takes, is empty."""
    try:
        if not path.is_file():  # a device may have no end
            return Script()
        with path.open("rb") as file:
            content = file.read(LARGEST_SCRIPT + 1)
    except OSError:
        return Script()
    return parse_script(content.decode("utf-8", "replace")) if len(content) <= LARGEST_SCRIPT else Script()


def parse_script(text: str) -> Script:
    r"""Parse the text of an sbatch file.

    >>> script = parse_script("#!/bin/bash\n#SBATCH -t 60 --gres=gpu:1  # one\nsrun true\n#SBATCH --requeue\n")
    >>> [(option.name, option.value) for option in script.options], script.late
    ([('time', '60'), ('gres', 'gpu:1')], (4,))
    """
    lines = text.splitlines()
    plain = "\n".join(lines)
    commands = [
        Command(plain.count("\n", 0, match.start()) + 1, without_comment(match[0].replace("\\\n", " ")).strip())
        for match in _COMMAND.finditer(plain)
    ]
    end = commands[0].line if commands else math.inf
    options: list[Option] = []
    problems: list[tuple[str, str]] = []
    late: list[int] = []
    for number, line in enumerate(lines, 1):
        if line.startswith("#SBATCH") and number > end:
            late.append(number)
        elif line.startswith("#SBATCH"):
            _read_line(f"line {number}", line.removeprefix("#SBATCH"), options, problems)
    return Script(text, tuple(options), tuple(problems), tuple(late), tuple(commands))


def _read_line(source: str, text: str, options: list[Option], problems: list[tuple[str, str]]) -> None:
    try:
        words = shlex.split(without_comment(text))
    except ValueError as error:
        problems.append((source, f"{error}: {text.strip()}"))
        return
    while words := read_options(source, words, options, problems):
        problems.append((source, f"{words.pop(0)!r} is not an option"))


def read_options(source: str, words: list[str], options: list[Option], problems: list[tuple[str, str]]) -> list[str]:
    """Read options, as sbatch does, up to the first word that is none; return the words from there.

    >>> options = []
    >>> read_options(COMMAND_LINE, ["-N2", "--time", "5", "fit.sbatch", "--model.lr=1"], options, [])
    ['fit.sbatch', '--model.lr=1']
    >>> [(option.name, option.value) for option in options]
    [('nodes', '2'), ('time', '5')]
    """
    words = list(words)
    while words:
        word = words[0]
        if re.match(r"--\w", word):
            name, equals, value = word[2:].partition("=")
            name = full_name(name)
        elif re.match(r"-\w", word):
            name, value = SHORT.get(word[1], word[:2]), word[2:]
            equals = value
        else:
            return words[1:] if word == "--" else words
        del words[0]
        if not equals and name in VALUED:
            if not words:
                problems.append((source, f"--{name} needs a value"))
            value = words.pop(0) if words else ""
        options.append(Option(source, name, value))
    return words


def options_of_variables(environ: Mapping[str, str]) -> Iterator[Option]:
    """Yield the options that sbatch reads from environment variables; they count more than the lines of the file.

    >>> [option.name for option in options_of_variables({"SBATCH_TIMELIMIT": "5", "SBATCH_REQUEUE": "0", "HOME": "/"})]
    ['time']
    """
    for variable, value in environ.items():
        name = _VARIABLES.get(variable, variable.removeprefix("SBATCH_").lower().replace("_", "-"))
        if not (variable in _VARIABLES or variable.startswith("SBATCH_")) or name not in OPTIONS:
            continue
        # A flag is set by an empty value, by yes and by a number that is not 0.
        if name in VALUED or name == "exclusive":
            yield Option(variable, name, value)
        elif value.lower() in ("", "yes") or (value.isdigit() and int(value)):
            yield Option(variable, name, "")


def full_name(name: str) -> str:
    """Return the full name of an option; sbatch accepts any unambiguous prefix.

    >>> full_name("cpus-per-t"), full_name("memory"), full_name("tim")
    ('cpus-per-task', 'memory', 'tim')
    """
    matching = [option for option in OPTIONS if option.startswith(name)]
    return matching[0] if len(matching) == 1 else name


def without_comment(text: str) -> str:
    """Return the text before a # that is at the beginning or after a space, outside quotation marks.

    >>> without_comment("--job-name=a#b --comment='no # here'  # don't"), without_comment(" # all")
    ("--job-name=a#b --comment='no # here'  ", ' ')
    """
    return next(_BEFORE_COMMENT.finditer(text))[0]
