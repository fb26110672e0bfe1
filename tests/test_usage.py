"""The short help of fit, validate, test and predict, and how photographs and checkpoints are named in all commands."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from bldml.cli import VERBS
from bldml.usage import VERB_HELP
from tests.support import ALONE, REPOSITORY, SMALL, Bldml

CPU = ("--trainer.accelerator=cpu", "--data.num_workers=0", "--report=false")


@pytest.mark.parametrize("verb", VERBS)
def test_help_is_short_and_loads_nothing_heavy(verb: str, tmp_path: Path) -> None:
    code = (
        "import sys; from bldml.cli import main; code = main(sys.argv[1:]);"
        "heavy = {'torch', 'lightning', 'numpy', 'jsonargparse', 'yaml'} & set(sys.modules);"
        "sys.exit(code or (f'loaded {heavy}' if heavy else 0))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, verb, "--help"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False, env={"COLUMNS": "100", "PATH": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 100
    assert f"bldml {verb} --help=all lists all options." in lines


@pytest.mark.parametrize("verb", VERBS)
def test_help_names_options_and_defaults_of_the_parser(verb: str, bldml: Bldml) -> None:
    everything = " ".join(bldml(verb, "--help_all").out.split())
    for option, _, default in VERB_HELP[verb][1]:
        if not option.startswith("--"):
            continue
        short = option.split()[0].removeprefix("--")
        output = "trainer.default_root_dir" if verb == "fit" else "output"
        key = {"output": output}.get(short, f"data.{short}" if f" --data.{short} " in everything else short)
        entry = re.search(rf" --{re.escape(key)} [A-Z{{][^ ]* ((?:(?! --\w).)*)", everything.partition(" options:")[2])
        assert entry or key == "config", key
        if default and " " not in default and entry:
            assert f"default: {default}" in entry[1].lower(), key


@pytest.mark.parametrize("verb", VERBS)
def test_the_example_can_be_typed(verb: str, bldml: Bldml, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    words = shlex.split(VERB_HELP[verb][2].replace("lightning_logs/<run>", shlex.quote(str(run))))
    assert bldml(verb, *words, "--print_config").code == 0


def test_photographs_have_the_same_names_everywhere(bldml: Bldml, leaves: Path) -> None:
    table = "splits.csv"
    assert bldml("split", "--data.root", leaves, "--output", table).code == 0
    assert bldml("split", leaves, "--output=again.csv").code == 0
    assert Path("again.csv").read_bytes() == Path(table).read_bytes()
    by_position = bldml(
        "fit", leaves, *SMALL, "--manifest", table, "--unreadable=exclude", "--output=here",
        "--class_aliases", "{a: b}", "--positive_class=BLD", "--print_config",
    )  # fmt: skip
    by_name = bldml(
        "fit", *SMALL, f"--data.root={leaves}", f"--data.manifest={table}", "--data.unreadable=exclude",
        "--trainer.default_root_dir=here", "--data.class_aliases={a: b}", "--data.positive_class=BLD", "--print_config",
    )  # fmt: skip
    assert by_position.code == 0, by_position.err
    assert by_position.out == by_name.out
    data = yaml.safe_load(by_position.out)["data"]
    assert data["class_aliases"] == {"a": "b"}
    assert (data["root"], data["unreadable"]) == (str(leaves), "exclude")
    new = bldml("audit", *ALONE, leaves, "--manifest", table, "--positive_class=BLD", "--output=one")
    old = bldml(
        "audit", *ALONE, f"--data.root={leaves}", "--data.manifest", table, "--data.positive_class=BLD", "--output=two"
    )
    assert new.out.replace("one/", "two/") == old.out


def test_a_run_folder_stands_for_its_best_checkpoint(bldml: Bldml, run: Path, leaves: Path, tmp_path: Path) -> None:
    shutil.copytree(run, own := tmp_path / "own")
    outcome = bldml("predict", own, leaves / "BLD", *CPU)
    assert outcome.code == 0, outcome.err
    found = (own / "evaluations" / "BLD" / "predictions.csv").read_bytes()
    again = bldml("predict", leaves / "BLD", f"--ckpt_path={own}/checkpoints/best.ckpt", *CPU, "--output=out")
    assert again.code == 0, again.err
    assert Path("out/predictions.csv").read_bytes() == found
    assert bldml("validate", own, *CPU).code == 0
    (own / "checkpoints" / "best.ckpt").unlink()
    assert bldml("test", own, *CPU).mistake == "checkpoint-folder-without-best"
    assert bldml("test", leaves, *CPU).mistake == "checkpoint-folder-without-best"
