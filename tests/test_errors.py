"""The user's own mistakes: what they carry, and how they leave the program."""

import ast
import pickle
import re
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from bldml.commands import COMMANDS
from bldml.errors import BldmlError, CheckpointError, ConfigError, DatasetError, RunError, TrainingError, UsageError
from tests.support import REPOSITORY, Bldml

KINDS = {UsageError: 2, ConfigError: 2, DatasetError: 1, RunError: 1, CheckpointError: 1, TrainingError: 1}
# One kind of mistake that can be made, or noticed, in several places.
SEVERAL = {
    *("audit-output-not-writable", "audit-output-unreadable"),
    *("class-refused", "classes-not-two", "config-unreadable", "data-root-not-given"),
    *(
        "fractions-wrong",
        "model-diverged",
        "option-wrong",
        "photographs-all-unreadable",
        "photographs-none",
        "photographs-unreadable",
    ),
    *("output-no-folder", "output-not-empty"),
    *("plateau-out-of-range", "split-empty", "weights-not-published"),
}


def fail(kind: type[BldmlError]) -> None:
    raise kind("It is so.", "thing-wrong", path=Path("a"), found=3)


@pytest.mark.parametrize("kind", KINDS)
def test_mistake_comes_whole_out_of_another_process(kind: type[BldmlError]) -> None:
    with ProcessPoolExecutor(1) as pool, pytest.raises(kind) as caught:
        pool.submit(fail, kind).result()
    error = pickle.loads(pickle.dumps(caught.value))
    assert type(error) is kind
    assert (str(error), error.code, error.fields) == ("It is so.", "thing-wrong", {"path": Path("a"), "found": 3})


def test_each_kind_has_an_exit_code_and_a_code_of_its_own() -> None:
    assert {kind: kind.exit_code for kind in BldmlError.__subclasses__()} == KINDS
    assert len({kind("").code for kind in KINDS}) == len(KINDS)
    assert not issubclass(BldmlError, ValueError | OSError)


@pytest.mark.parametrize("kind", KINDS)
def test_mistake_is_one_line_and_a_bug_is_a_traceback(
    kind: type[BldmlError], bldml: Bldml, monkeypatch: pytest.MonkeyPatch
) -> None:
    def plain() -> None:
        """Fail."""
        fail(kind)

    def bug() -> None:
        """Fail otherwise."""
        raise ValueError("not the user's")

    monkeypatch.setitem(COMMANDS, "plain", plain)
    monkeypatch.setitem(COMMANDS, "bug", bug)
    outcome = bldml("plain")
    assert (outcome.code, outcome.out, outcome.err) == (kind.exit_code, "", "bldml: error: It is so.\n")
    assert outcome.error is not None
    assert outcome.error.code == "thing-wrong"
    with pytest.raises(ValueError, match="not the user's"):
        bldml("bug")


def raised() -> Iterator[tuple[str, str | None]]:
    """Where each mistake is made, and its code if that is written there."""
    names = {kind.__name__ for kind in KINDS} | {"BldmlError", "DamagedCheckpoint", "MachineError"}
    for path in sorted((REPOSITORY / "bldml").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names:
                code = node.args[1].value if len(node.args) > 1 and isinstance(node.args[1], ast.Constant) else None
                yield f"{path.relative_to(REPOSITORY)}:{node.lineno}", code if isinstance(code, str) else None


def test_each_mistake_has_a_code_of_its_own() -> None:
    places: dict[str, list[str]] = {}
    nameless = []
    for place, code in raised():
        if code is None or not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)+", code):
            nameless.append(place)
        else:
            places.setdefault(code, []).append(place)
    assert nameless == []
    several = {code for code, found in places.items() if len(found) > 1}
    assert several - SEVERAL == set(), {code: places[code] for code in several - SEVERAL}
    assert SEVERAL - several == set(), "made in one place only: take it off the list"
