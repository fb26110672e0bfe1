"""What the command line says of each mistake: one page of words for each command, kept beside this file.

`pytest tests/messages --update-messages` writes the pages anew; read their difference before you commit it.
"""

import os
import shlex
from pathlib import Path

import pytest

from tests.messages.world import build
from tests.support import SMALL, Bldml

HERE = Path(__file__).parent
OPTIONS = {
    "$ON_CPU": "--trainer.accelerator=cpu --data.num_workers=0 --data.cache=off",
    "$FIT": " ".join([*SMALL, "--data.cache=off", "--trainer.default_root_dir=logs"]),
}


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which all mistakes are made."""
    folder = tmp_path_factory.mktemp("messages")
    build(folder)
    return folder


def contents(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_size for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("page", [path.stem for path in sorted(HERE.glob("*.txt"))])
def test_page(
    page: str, world: Path, bldml: Bldml, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.chdir(world)
    monkeypatch.setenv("COLUMNS", "120")
    path, before, entries = HERE / f"{page}.txt", contents(world), []
    shown = path.read_text(encoding="utf-8")
    for line in shown.splitlines():
        if not line.startswith("$ bldml"):
            continue
        command = line.removeprefix("$ bldml")
        for name, options in OPTIONS.items():
            command = command.replace(name, options)
        outcome = bldml(*shlex.split(command))
        said = outcome.err[outcome.err.index("bldml: error:") :] if "bldml: error:" in outcome.err else outcome.err
        said = said.replace(str(world), "WORLD").replace(os.path.realpath(world), "WORLD")
        code = outcome.error.code if outcome.error else "none"
        assert outcome.code != 0, line
        assert "Traceback" not in outcome.err, line
        assert contents(world) == before, f"{line} left something behind"
        entries.append(f"{line}\nexit code {outcome.code}, {code}\n{said.rstrip()}\n")
    text = "\n".join(entries)
    if request.config.getoption("--update-messages"):
        path.write_text(text, encoding="utf-8")
        shown = text
    assert text == shown, "if the new words are right: pytest tests/messages --update-messages"
