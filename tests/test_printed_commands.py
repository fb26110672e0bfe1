"""Every command that the program, its pages, its documents or its scripts name exists, and so do its options."""

import ast
import html
import re
import shlex
import shutil
from functools import cache
from pathlib import Path

import pytest

from bldml.doctor.submission.script import OPTIONS
from tests.support import REPOSITORY, THREE_LAYERS, Bldml

VERBS = (
    *("fit", "validate", "test", "predict", "compare", "report", "demo", "prefetch", "explain", "export", "split"),
    *("audit", "survey", "review", "sweep", "ensemble"),
)
COMMAND = re.compile(r"(?:python -m bldml|(?<![\w./])bldml) ([A-Za-z]+)([^\n`#]*?)(?=\bbldml\b|[\n`#]|[.,;] |$)")
OPTION = re.compile(r"(?<=\s)--[a-z][\w.]*\w")
# After "bldml" stands a word that is no command in these.
PROSE = {"COMMAND"}
# What printed commands insert that is a word of bldml itself, or quoted already.
NO_PATHS = {"backbone", "name", "command", "fold", "_VERBS[one.role]", "options", "verb", "example"}


@cache  # and not when the tests are collected, which every process does
def texts() -> list[tuple[str, str]]:
    """Place and text: the strings of the package, templates, documents, configurations and scripts."""
    found = []
    for path in sorted((REPOSITORY / "bldml").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                parts = (str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
                found.append((path.name, "".join(parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append((path.name, node.value))
    pages = [*(REPOSITORY / "bldml").rglob("*.html"), *REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md")]
    pages += [*(REPOSITORY / "configs").rglob("*.yaml"), *(REPOSITORY / "scripts").rglob("*.sbatch")]
    pages += [REPOSITORY / "Makefile", *(REPOSITORY / ".github").rglob("*.yml")]
    return found + [(path.name, html.unescape(path.read_text(encoding="utf-8"))) for path in sorted(pages)]


@cache
def named() -> dict[str, set[str]]:
    """The options that are named of each command."""
    found: dict[str, set[str]] = {}
    for _, text in texts():
        for verb, rest in COMMAND.findall(text):
            found.setdefault(verb, set()).update(OPTION.findall(rest))
    return found


def test_commands_are_found() -> None:
    assert {*VERBS, "doctor"} <= named().keys()
    assert {"--resume", "--print_config"} <= named()["fit"]
    assert "--masks" in named()["explain"]


def test_no_other_command_is_named() -> None:
    """`python -m bldml` is always a command; of `bldml` alone it is one where options follow."""
    for place, text in texts():
        for verb in re.findall(r"python -m bldml ([A-Za-z]+)", text):
            assert verb in {*VERBS, "doctor"} | PROSE, place
        for verb, rest in COMMAND.findall(text):
            assert not OPTION.findall(rest) or verb in {*VERBS, "doctor"} | PROSE, f"{place}: bldml {verb}{rest}"


@pytest.mark.parametrize("verb", VERBS)
def test_its_options_are_known(verb: str, bldml: Bldml) -> None:
    shown = bldml(verb, "--help=all")
    assert shown.code == 0
    known = set(re.findall(r"--[\w.]+", shown.out)) | {"--trust_config", "--print_config"}
    known |= set(re.findall(r"--[\w.]+", bldml(verb, "--help").out))
    assert known >= named()[verb]


def test_doctor_takes_its_own_and_those_of_fit(bldml: Bldml) -> None:
    known = set(re.findall(r"--[\w.]+", bldml("fit", "--help=all").out)) | {"--sbatch", "--json", "--trust_config"}
    known |= {f"--{option}" for option in OPTIONS}  # doctor sbatch --time=… FILE
    assert named()["doctor"] <= known


def test_targets_of_make_and_files_are_there() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    for place, text in texts():
        code = (
            text
            if place.endswith((".yml", "Makefile"))
            else "\n".join(re.findall(r"```bash\n.*?```|`[^`\n]+`", text, re.DOTALL))
        )
        for target in re.findall(r"\bmake ([a-z][a-z-]+)\b", code):
            assert target in targets, f"{place}: make {target}"
        for file in re.findall(r"\b(?:scripts/slurm|configs(?:/paper)?)/[a-z_]+\.\w+", text):
            assert (REPOSITORY / file).is_file(), f"{place}: {file}"


def unquoted(source: str) -> list[str]:
    """What a printed command has in it that is not quoted for a shell, up to the end of its line."""
    found = []
    for node in ast.walk(ast.parse(source)):
        before = ""
        for part in node.values if isinstance(node, ast.JoinedStr) else ():
            if isinstance(part, ast.Constant):
                before += str(part.value)
            elif isinstance(part, ast.FormattedValue) and "python -m bldml " in before.rpartition("\n")[2]:
                called = ast.unparse(part.value).partition("(")
                if called[0] not in ("quoted", "shell_word", "shlex.join", "shlex.quote") and called[0] not in NO_PATHS:
                    found.append(ast.unparse(part.value))
    return found


def test_paths_in_printed_commands_are_quoted() -> None:
    assert unquoted('f"Run: python -m bldml test {path}"') == ["path"]
    for path in sorted((REPOSITORY / "bldml").rglob("*.py")):
        assert not unquoted(path.read_text(encoding="utf-8")), path.name


def commands_in(text: str) -> list[list[str]]:
    return [shlex.split(line)[3:] for line in re.findall(r"python -m bldml [^\n]+", text)]


def test_what_demo_prints_can_be_typed(bldml: Bldml, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = bldml("demo", "drawn leaves", "--images_per_class=3", "--size=32")
    (arguments,) = commands_in(outcome.out + outcome.err)
    folder = Path("drawn leaves").absolute()
    monkeypatch.chdir(REPOSITORY)  # for configs/
    shown = bldml(*arguments, "--print_config")
    assert shown.code == 0, shown.err
    assert arguments[-1] in (folder.name, str(folder))


@pytest.mark.slow
def test_what_a_report_names_can_be_typed(run: Path, bldml: Bldml, monkeypatch: pytest.MonkeyPatch) -> None:
    page = html.unescape(re.sub(r"<[^>]+>", "", (run / "report.html").read_text(encoding="utf-8")))
    found = set(re.findall(r"python -m bldml (?:fit|report)[^\n]*", page))
    assert len(found) >= 2
    for text in found:
        monkeypatch.chdir(run if " report " in text else run.parents[1])
        arguments = shlex.split(re.sub(r"(?<! )\.$", "", text.partition("; ")[0]))[
            3:
        ]  # the end of a sentence, no folder
        outcome = bldml(*arguments, *(["--print_config"] if arguments[0] == "fit" else []))
        assert outcome.code == 0, outcome.err


@pytest.mark.slow
def test_the_training_of_a_report_can_be_repeated(leaves: Path, bldml: Bldml) -> None:
    """In the folder that the page names, as it is typed there; the same photographs in the same splits."""
    shutil.copytree(leaves, "leaves")
    first = bldml("fit", *THREE_LAYERS[:-1], "--data.root=leaves", "--trainer.max_epochs=1", "--run_name=first run")
    assert first.code == 0, first.err
    page = Path("lightning_logs/first run/report.html").read_text(encoding="utf-8")
    named = "in the folder in which the training was started"
    text = html.unescape(page.partition(named)[2].partition("<code>")[2].partition("</code>")[0])
    again = bldml(*shlex.split(text)[3:])
    assert again.code == 0, again.err
    folders = [Path("lightning_logs") / name for name in ("first run", "NEW_NAME")]
    for file in ("splits.csv", "evaluations/test/predictions.csv"):
        assert len({(folder / file).read_bytes() for folder in folders}) == 1
