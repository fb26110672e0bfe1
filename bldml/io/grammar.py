"""One grammar for all commands: where checkpoint and photographs stand, and the short names of common options."""

import os
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from bldml.errors import UsageError

# What a command takes without the name of an option, in this order.
POSITIONS: dict[str, tuple[str, ...]] = {
    "fit": ("data.root",),
    **dict.fromkeys(("validate", "test", "predict", "explain", "survey"), ("ckpt_path", "data.root")),
    "export": ("ckpt_path",),
    "audit": ("data.root",),
    "split": ("data.root",),
}
VERBS = ("fit", "validate", "test", "predict")
WRITING_A_FILE = ("split",)
"""Commands whose --output is a file, and not a folder."""

_NAMES = {"ckpt_path": "CHECKPOINT", "data.root": "PHOTOGRAPHS"}
_OPTIONAL = {("fit", "data.root"), ("validate", "data.root"), ("test", "data.root")}
# Short names that all commands share, and the keys of the configuration that they set.
_SHORT = {name: f"data.{name}" for name in ("manifest", "positive_class", "class_aliases", "unreadable")}
_WITHOUT_VALUE = ("-h", "--help", "--help_all", "--trust_config", "--print_config")

# More than any command needs; parsers of deep or long texts end in errors of their own, or not at all.
_LONGEST_WORD, _DEEPEST, _LONGEST_NUMBER = 2**16, 50, 250  # characters, levels of brackets, characters
_LONGEST_NAME = 255  # bytes of one part of a path, on every usual file system
_NUMBER = re.compile(rf"[0-9][0-9a-fA-FxX_.]{{{_LONGEST_NUMBER},}}")
# `https://…`, `s3://…`, and `https:/…`, which pathlib makes of the first. A scheme or a chained file system (`a::b`,
# `data:…`) is fsspec's syntax; Lightning opens the paths of its trainer with fsspec.
_ADDRESS = re.compile(r"://|^\s*[A-Za-z][\w+.-]+:/|^\s*[A-Za-z][\w+.-]*::|^\s*data:", re.ASCII)

_VARIABLE = re.compile(r"^[$][A-Za-z_]\w*|[$]\{\w+\}", re.ASCII)

# Names of what commands write, and of what one may expect them to write.
_FILE = re.compile(
    r"[.](ckpt|csv|docx|geojson|gif|html|jpe?g|json|md|onnx|parquet|pdf|png|pth?|svg|tex|tiff?|tsv|txt|xlsx?|ya?ml|zip)",
    re.IGNORECASE,
)

NULLS = ("null", "Null", "NULL", "~")
"""How YAML writes that there is nothing; a class may be called so."""


def is_address(text: str) -> bool:
    """Return whether a text is an address of another machine, or asks for a chain of file systems.

    >>> is_address("s3://leaves"), is_address("https:/a/b"), is_address("my leaves/a"), is_address("C:/leaves")
    (True, True, False, False)
    """
    return _ADDRESS.search(text) is not None


def check_variables(path: str, what: str) -> None:
    """Raise a UsageError for a path with a folder that is called as a variable and is not there: no shell replaced it.

    >>> check_variables("my leaves/50$a", "data.root")
    """
    parts = Path(os.path.expanduser(path)).parts  # noqa: PTH111  # Path.expanduser raises where ~x is no user
    for number, part in enumerate(parts, 1):
        name = _VARIABLE.search(part)
        if name and not os.path.lexists(Path(*parts[:number])):
            message = f"{what} is {path}, and nothing replaces {name[0]} there: only a shell does, outside single "
            message += "quotes. Write the path out, or set it on the command line."
            raise UsageError(message, "variable-not-replaced", key=what, found=path)


def given_path(value: object, what: str) -> Path:
    """Return a path that a Python program gives, with the home folder for `~`.

    Args:
        value: Text, or an object such as `pathlib.Path`.
        what: What it is a path of, as the subject of a message.

    Raises:
        UsageError: It is no path, or none of a file of this machine.

    >>> given_path("leaves/a.jpg", "The photograph").name
    'a.jpg'
    """
    text = os.fspath(value) if isinstance(value, str | os.PathLike) else value
    if not isinstance(text, str):
        problem = f"must be a path as text or pathlib.Path, not {type(value).__name__}"
    elif not text.strip():
        problem = "is an empty path"
    elif is_address(text):
        problem = f"is a URL, {text}: bldml reads only files of this machine"
    elif "\0" in text or any(len(os.fsencode(part)) > _LONGEST_NAME for part in Path(text).parts):
        problem = "is a path that no file can have"
    else:
        return Path(os.path.expanduser(text))  # noqa: PTH111  # Path.expanduser raises where ~x is no user
    raise UsageError(f"{what} {problem}.", "path-unusable", found=repr(value)[:200])


def check_output_folder(folder: Path) -> None:
    """Raise a UsageError if a name for a new folder is that of a file, as of a table that one expects to be written.

    A run folder is refused too: a command would write over its files, such as photographs.csv.

    >>> check_output_folder(Path("results.v2"))
    """
    # Of `os.path`, which answers of a name that is too long too.
    there = {name for name in ("config.yaml", "environment.json", "checkpoints") if os.path.exists(folder / name)}  # noqa: PTH110
    if "config.yaml" in there and len(there) > 1:
        message = f"--output {folder} is the folder of a run and stays as it is. "
        message += f"Choose another folder, such as --output {folder / 'results'}."
        raise UsageError(message, "output-is-run", found=str(folder))
    if _FILE.fullmatch(folder.suffix) and not os.path.exists(folder):  # noqa: PTH110
        inside = folder.with_suffix("")
        message = f"--output is a folder for several files, and {folder} is named as one file. Type --output {inside}."
        raise UsageError(message, "output-is-file-name", found=str(folder), expected=str(inside))


def check_words(words: Sequence[str]) -> None:
    """Raise a UsageError for a word of a command line that no parser should see.

    >>> check_words(["fit", "--data", "{root: leaves}"])
    """
    before = ""
    for word in words:
        depth = deepest = 0
        for character in word if word.count("[") + word.count("{") > _DEEPEST else "":
            depth += (character in "[{") - (character in "]}")
            deepest = max(deepest, depth)
        number = _NUMBER.search(word)
        option, equals, value = word.partition("=") if word.startswith("--") else (before, "", word)
        if not (value if equals else word).strip() and option != "--site":  # which says itself what belongs there
            what = f"The value of {option}" if option.startswith("--") else "An argument"
            message = f"{what} is empty, as of a shell variable that is not set."
            raise UsageError(message, "argument-empty", found=word)
        before = "" if equals else word
        if "\0" in word:  # from Python: no shell passes it
            problem = "a NUL character"
        elif any("\ud800" <= character <= "\udfff" for character in word):  # no parser of YAML takes them
            problem = "bytes that are not UTF-8, as names of old systems have. Rename it, or work inside that folder"
        elif len(word) > _LONGEST_WORD:
            problem = f"{len(word):,} characters; {_LONGEST_WORD:,} are allowed"
        elif deepest > _DEEPEST:
            problem = f"brackets in {deepest:,} levels; {_DEEPEST} are allowed"
        elif number:
            problem = f"a number of {len(number[0]):,} characters; {_LONGEST_NUMBER:,} are allowed"
        else:
            continue
        option = word.partition("=")[0] if word.startswith("--") else word
        message = f"The argument {option[:60]}{'…' if len(option) > 60 else ''} has {problem}."
        raise UsageError(message, "argument-too-much", reason=problem)


def typed_class(words: Sequence[str]) -> str | None:
    """Return the positive class on a command line if parsers take its name for nothing or a comment; otherwise None.

    >>> typed_class(["fit", "--data.positive_class", "null"]), typed_class(["audit", "--positive_class=#3", "--x", "1"])
    ('null', '#3')
    """
    names = ("--data.positive_class", "--positive_class")
    typed = [word.partition("=")[2] for word in words if word.startswith(tuple(f"{name}=" for name in names))]
    typed += [value for option, value in pairwise(words) if option in names]
    return typed[-1] if typed and (typed[-1] in NULLS or typed[-1].startswith("#")) else None


def pattern(command: str) -> str:
    """Return how a command is typed.

    >>> pattern("test")
    'bldml test CHECKPOINT [PHOTOGRAPHS] [options]'
    """
    names = (f"[{_NAMES[key]}]" if (command, key) in _OPTIONAL else _NAMES[key] for key in POSITIONS.get(command, ()))
    return " ".join(("bldml", command, *names, "[options]"))


def written_out(arguments: list[str]) -> list[str]:
    """Return a command line as the parser of its command takes it.

    The parsers of fit, validate, test and predict take everything as options named by configuration keys; those of
    plain commands take checkpoint and photographs by position and other options by their short names.

    Raises:
        UsageError: There are more words than the command takes, or a configuration without `--config`.

    >>> written_out(["predict", "run", "photos", "--unreadable", "exclude"])
    ['predict', '--data.unreadable', 'exclude', '--ckpt_path=run', '--data.root=photos']
    >>> written_out(["explain", "photos", "--ckpt_path", "run", "--data.unreadable=exclude"])
    ['explain', '--unreadable=exclude', 'run', 'photos']
    """
    if not arguments or arguments[0] not in POSITIONS:
        return arguments
    command = arguments[0]
    is_verb, positions = command in VERBS, POSITIONS[command]
    names = dict(_SHORT) if is_verb else {key: short for short, key in _SHORT.items()}
    if command == "fit":
        names["output"] = "trainer.default_root_dir"
    options, given, free = [], dict[str, str](), []
    for name, value, separate in _options(arguments[1:]):
        if not name:
            free.append(value or "")
        elif name in positions and not is_verb and value is not None:
            given[name] = value
        else:
            present = f"--{names.get(name, name)}" if name[0] != "-" else name
            options += [present] if value is None else [present, value] if separate else [f"{present}={value}"]
            given |= {name: ""} if name in positions else {}
    missing = [key for key in positions if key not in given]
    _check_free(command, free, missing)
    filled = dict(zip(missing, free, strict=False))
    if is_verb:
        return [command, *options, *(f"--{key}={value}" for key, value in filled.items())]
    filled |= given
    return [command, *options, *(filled[key] for key in positions if key in filled)]


def _check_free(command: str, free: list[str], missing: list[str]) -> None:
    if command == "fit" and (configs := [word for word in free if word.endswith((".yaml", ".yml"))]):
        message = f"{configs[0]} is a configuration. Write --config {configs[0]}."
        raise UsageError(message, "config-without-option", found=configs[0])
    if len(free) > len(missing):
        shown = ", ".join(free[len(missing) :])
        message = f"Unknown argument {shown}. The command is: {pattern(command)}"
        raise UsageError(message, "arguments-too-many", found=free)


def _options(words: list[str]) -> list[tuple[str, str | None, bool]]:
    """Return option (short ones with their dash), value, and whether the value is a word of its own.

    Words that belong to no option have an empty name.
    """
    found: list[tuple[str, str | None, bool]] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-"):
            found.append(("", word, True))
            continue
        option, equals, value = word.partition("=")
        name = option.removeprefix("--") if option.startswith("--") else option
        if equals:
            found.append((name, value, False))
        elif option not in _WITHOUT_VALUE and not option.startswith("--print_") and rest and rest[0][:2] != "--":
            found.append((name, rest.pop(0), True))
        else:
            found.append((name, None, False))
    return found
