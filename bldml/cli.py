"""The entry point: lists all commands, and imports only what the typed command needs."""

import errno
import os
import re
import sys
from argparse import ArgumentError
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from difflib import get_close_matches
from functools import partial
from inspect import getdoc
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, get_type_hints

from bldml import __version__
from bldml.commands import COMMANDS
from bldml.errors import BldmlError, MachineError, TrainingError, UsageError
from bldml.io.grammar import (
    POSITIONS,
    WRITING_A_FILE,
    check_output_folder,
    check_variables,
    check_words,
    is_address,
    pattern,
    typed_class,
    written_out,
)
from bldml.io.platform import write_any_text
from bldml.io.screen import complain, say, show_all
from bldml.training.process import Session, loading_libraries, wait_briefly
from bldml.training.resume.job import check_single
from bldml.training.resume.signals import InterruptSignals, ignore_to_the_end, let_through
from bldml.training.resume.stopping import run_interruptible
from bldml.usage import verb_help

if TYPE_CHECKING:
    from bldml.training.module import LeafClassifier

VERBS = {
    "fit": "train a classifier on labelled photographs",
    "validate": "evaluate a checkpoint on its validation split",
    "test": "evaluate a checkpoint on its test split or another labelled folder",
    "predict": "classify photographs without labels",
}
# The others would write the same files in each task of srun.
MANY_PROCESSES = {"fit", "survey"}
# Plain commands that go on behind what an interrupted start has done; the others start again.
RESUMING = {"audit", "explain", "survey", "prefetch", "sweep"}
# doctor accepts the options of fit beside its own, so it parses its arguments itself.
DOCTOR = "check before submitting a job that a fit with these options would run"
MODEL_CLASS = "model_class"  # of a plain command that trains: it comes from Python, not from the command line
_WIDEST = 2000  # characters of a line of an error message


def main(argv: Sequence[str] | None = None, model_class: "type[LeafClassifier] | None" = None) -> int:
    """Run a command line.

    Called from Python with `argv`, it restores the state of the process afterwards (`bldml.training.process.Session`).

    Args:
        argv: Arguments without the program's name; None for those of this process.
        model_class: A classifier class of your own for fit, validate, test and predict; None for LeafClassifier.

    Returns:
        The exit code: 0 for success, that of `bldml.errors` after a mistake, 130 after Ctrl-C.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if argv is None:
        write_any_text(sys.stdout, sys.stderr)
    try:
        if argv is None and not {*VERBS, *COMMANDS} >= set(arguments[:1]):  # which handle them
            let_through()
        # A process that ends with its command is not restored: a late signal must not fail a finished job.
        check_words(arguments)
        with nullcontext() if argv is None else Session() as session:
            return _run(arguments, model_class, session)
    except BldmlError as error:
        return show_mistake(error, arguments[0] if arguments else "")
    except KeyboardInterrupt as stop:
        return _fail(str(stop) or "interrupted", 130)
    finally:
        if argv is None:
            ignore_to_the_end()


def close_output(code: int) -> int:
    """Write what stdout still holds, before the process ends; return with what code it then ends."""
    try:
        show_all()
    except MachineError as error:
        return code or show_mistake(error, "")
    return code


def show_mistake(error: BldmlError, command: str) -> int:
    """Print a user error to stderr and return its exit code."""
    # Messages name the options of fit; plain commands have them without the group `data`, but not an experiment.
    message = "\n".join([str(error), *getattr(error, "__notes__", ())])
    return _fail(
        re.sub(r"--data\.(?!root)(?=\w)", "--", message) if command in {*COMMANDS} - {"sweep"} else message,
        error.exit_code,
    )


def _run(arguments: list[str], model_class: "type[LeafClassifier] | None", session: Session | None) -> int:
    name = arguments[0] if arguments else "help"
    arguments = _with_help(arguments)
    asks_help = bool({"-h", "--help"} & set(arguments))
    if name in {*VERBS, *COMMANDS} - MANY_PROCESSES and not asks_help:
        check_single(name)
    if name in VERBS and asks_help:
        say(verb_help(name))
    elif name in COMMANDS:
        _run_command(COMMANDS[name], arguments, session, model_class)
    elif name == "doctor":
        from bldml.doctor.command import main as doctor

        return doctor(arguments[1:])
    elif name in VERBS or name.startswith("--print_completion"):
        _run_verb(arguments, model_class, session)
    elif name in ("-h", "--help", "help"):
        say(overview())
    elif name == "--version":
        say(f"bldml {__version__}\n")
    else:
        raise _unknown(name)
    return 0


def _with_help(arguments: list[str]) -> list[str]:
    """Return a command line with one spelling of `--help=all`; of a plain command, `--help` lists all options."""
    everything = "--help=all" if arguments[:1] and arguments[0] in VERBS else "--help"
    return [everything if word in ("--help=all", "--help_all", "--help-all") else word for word in arguments]


def _unknown(name: str) -> UsageError:
    if name.startswith("-"):
        message = f"Write the command before its options: bldml fit {name} …\n{overview()}"
        return UsageError(message, "command-not-first", found=name)
    near = get_close_matches(name, [*VERBS, *COMMANDS, "doctor"], 1)
    hint = f" Did you mean {near[0]}?" if near else ""
    return UsageError(f"There is no command {name!r}.{hint}\n{overview()}", "command-unknown", found=name, near=near)


def overview() -> str:
    """Return all commands with one line each."""
    plain = {name: _first_line(function).rstrip(".") for name, function in COMMANDS.items()}
    plain = {name: text[0].lower() + text[1:] for name, text in plain.items()}
    lines = (f"  {name:10} {text}\n" for name, text in (VERBS | plain | {"doctor": DOCTOR}).items())
    return (
        "usage: bldml COMMAND [options]      (or python -m bldml COMMAND)\n\n"
        "Train and evaluate binary leaf-disease classifiers.\n\n" + "".join(lines) + "\n"
        "bldml COMMAND --help lists a command's options; bldml fit --print_config prints a commented configuration.\n"
        "Where a checkpoint is asked for, a run folder stands for its best one.\n"
    )


def _run_command(
    function: Callable[..., None],
    arguments: list[str],
    session: Session | None,
    model_class: "type[LeafClassifier] | None",
) -> None:
    import jsonargparse

    from bldml.io.arguments import explain_mistake
    from bldml.training.lightning_internals import actions_of, plain_help

    program = f"bldml {arguments[0]}"
    parser = jsonargparse.ArgumentParser(
        prog=program, description=_first_line(function), formatter_class=plain_help(), exit_on_error=False
    )
    lists = [name for name, kind in get_type_hints(function).items() if kind == list[Path]]
    parser.add_function_arguments(function, as_positional=True, skip={*lists, MODEL_CLASS})
    for name in lists:  # jsonargparse would expect a list in JSON
        parser.add_argument(name, nargs="+", type=Path, help=_help_of(function, name))
    switches = {f"--{name}" for name, kind in get_type_hints(function).items() if kind is bool}
    words = written_out([arguments[0], *_switched(arguments[1:], switches)])
    try:
        options = parser.instantiate(parser.parse_args(words[1:]))
    except ArgumentError as error:
        known = [action.dest for action in actions_of(parser) if action.option_strings]
        text = explain_mistake(str(error), known + list(POSITIONS.get(arguments[0], ())), words)
        if missing := re.match("Missing argument: (.+)[.]", text):
            text += f" The command is: {pattern(arguments[0])}" if arguments[0] in POSITIONS else ""
            names = missing[1].split(", ")
            text += "".join(f"\n  {name}: {said}" for name in names if (said := _help_of(function, name)))
        raise UsageError(f"{text}\nAll options: {program} --help", "option-wrong", reason=str(error)) from error
    if options.get("positive_class", "") is None:
        options["positive_class"] = typed_class(words)
    for name, value in options.items():
        for path in value if isinstance(value, list) else [value]:
            if not isinstance(path, Path):
                continue
            if is_address(str(path)):
                message = f"{name} is a URL, {path}: bldml reads and writes only files of this machine."
                raise UsageError(message, "path-is-address", key=name, found=str(path))
            check_variables(str(path), name)
    if isinstance(folder := options.get("output"), Path) and arguments[0] not in WRITING_A_FILE:
        check_output_folder(folder)
    given = {MODEL_CLASS: model_class} if MODEL_CLASS in get_type_hints(function) else {}
    signals = InterruptSignals()
    if session is not None:
        session.callback(signals.restore)
    with _machine_errors():
        run_interruptible(partial(function, **options, **given), signals, resumes=arguments[0] in RESUMING)


# What gloo and NCCL say in a process when another one has ended.
PEER_GONE = ("Connection closed by peer", "Connection reset by peer", "remote process exited")


@contextmanager
def _machine_errors() -> Iterator[None]:
    """Make a MachineError of an error of disk, path or memory, wherever it occurs."""
    try:
        yield
    except OSError as error:
        message = error.strerror or str(error)
        if error.filename is not None and error.strerror:
            path = error.filename2 or error.filename  # of a rename, where it leads to
            message = f"Cannot use {os.fsdecode(path) if isinstance(path, str | bytes) else path}: {error.strerror}. "
            message += "Check the path, your permission and the free space."
        if error.errno == errno.ENAMETOOLONG and error.filename is not None:
            whole = os.fsdecode(error.filename)
            name = max(Path(whole).parts, key=lambda part: len(os.fsencode(part)), default="")
            n, text, most = len(os.fsencode(name)), f"The name {name[:20]}…", "most disks allow 255"
            if n <= 255:
                n, text, most = len(os.fsencode(whole)), f"The path {whole[:20]}…", "most systems allow 4,095"
            message = f"{text} has {n:,} bytes. Use a shorter one: {most}."
        raise _with_notes(
            MachineError(message, "file-failed", path=error.filename, reason=error.strerror), error
        ) from error
    except (MemoryError, RuntimeError) as error:
        # Of torch; the class is torch.OutOfMemoryError, which a plain command need not load.
        on_gpu, words = type(error).__name__ == "OutOfMemoryError", str(error)
        if any(one in words for one in PEER_GONE):
            message = "The connection to another process of this training is broken. Probably that process has ended; "
            message += "its own message says why."
            raise _with_notes(MachineError(message, "process-lost", reason=words), error) from error
        if isinstance(error, RuntimeError) and not on_gpu and "DefaultCPUAllocator" not in words:
            raise
        message = (
            "The GPU has not enough free memory. Use a smaller --data.batch_size, or a GPU that no other program uses."
            if on_gpu
            else "There is not enough memory. Ask for more (--mem in Slurm), or use a smaller --data.batch_size."
        )
        raise _with_notes(MachineError(message, "memory-failed", reason=words), error) from error


def _with_notes(error: MachineError, cause: Exception) -> MachineError:
    error.exit_code = getattr(cause, "exit_code", error.exit_code)  # of a command that says which
    for note in getattr(cause, "__notes__", ()):
        error.add_note(note)
    return error


def _run_verb(arguments: list[str], model_class: "type[LeafClassifier] | None", session: Session | None) -> None:
    """Run a Lightning command; settings that must precede the import of torch, which takes seconds, come first."""
    wait_briefly()
    signals = InterruptSignals()
    if arguments[0] in VERBS:
        signals.install()
        if session is not None:
            session.callback(signals.restore)
    with loading_libraries() if session is None else nullcontext():
        from lightning.fabric.utilities.exceptions import MisconfigurationException

        from bldml.app.lightning_cli import LeafCLI  # loads torch

    if session is not None:
        session.keep_libraries()
    # Lightning's --print_config prints comments only on request.
    other = {"--print_config": "--print_config=comments", "--help=all": "--help"}
    try:
        with _machine_errors():
            LeafCLI([other.get(argument, argument) for argument in arguments], signals, model_class)
    except MisconfigurationException as error:
        raise TrainingError(str(error), "lightning-refused") from error


def _switched(arguments: list[str], switches: set[str]) -> list[str]:
    """Allow `--fresh` without a value, where jsonargparse requires `--fresh true`."""
    return [
        f"{argument}=true" if argument in switches and after.lower() not in ("true", "false") else argument
        for argument, after in pairwise([*arguments, ""])
    ]


def _help_of(function: Callable[..., None], name: str) -> str:
    """Return the description of an argument in the docstring; empty if it has none."""
    found = re.search(rf"^    {name}: (.+(?:\n {{8}}.+)*)", getdoc(function) or "", re.MULTILINE)
    return " ".join(found[1].split()) if found else ""


def _first_line(function: Callable[..., None]) -> str:
    return (function.__doc__ or function.__name__).splitlines()[0]


def _fail(message: str, code: int) -> int:
    # A line may repeat what a file holds.
    lines = message.rstrip().split("\n")
    lines = [line if len(line) <= _WIDEST else f"{line[:_WIDEST]} … ({len(line):,} characters)" for line in lines]
    complain("bldml: error: " + "\n".join(lines) + "\n")
    return code
