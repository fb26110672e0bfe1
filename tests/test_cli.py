"""The front door as a user meets it: separate processes, and nothing heavy loaded before it is needed."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from bldml.cli import VERBS
from bldml.commands import COMMANDS
from tests.prepared import Prepared
from tests.support import REPOSITORY, SMALL, Bldml


def python(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *(str(argument) for argument in arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, check=False)


def prepared(*arguments: str | Path, cwd: Path) -> tuple[int, str]:
    """Run a command in a process of its own that has torch loaded; return its exit code and its errors."""
    command = [sys.executable, "-m", "bldml", *map(str, arguments)]
    process = Prepared(command, cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    said = process.communicate(timeout=300)[1]
    return process.returncode, said


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["help"]])
def test_help_lists_everything_and_loads_nothing_heavy(arguments: list[str], tmp_path: Path) -> None:
    code = (
        "import sys; from bldml.cli import main; code = main(sys.argv[1:]);"
        "heavy = {'torch', 'lightning', 'torchvision', 'numpy', 'PIL', 'jsonargparse', 'yaml'} & set(sys.modules);"
        "sys.exit(code or (f'loaded {heavy}' if heavy else 0))"
    )
    done = python("-c", code, *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for name in (*VERBS, *COMMANDS):
        assert f"\n  {name} " in done.stdout


def test_python_m_and_console_script_are_the_same(tmp_path: Path) -> None:
    script = Path(sys.executable).parent / "bldml"
    by_script = subprocess.run([script, "--version"], capture_output=True, text=True, timeout=60, check=True)
    assert python("-m", "bldml", "--version", cwd=tmp_path).stdout == by_script.stdout


@pytest.mark.parametrize("name", [*VERBS, *COMMANDS, "doctor"])
def test_help_of_each_command_shows_no_object_of_python(name: str, bldml: Bldml) -> None:
    outcome = bldml(name, "--help=all")
    assert outcome.code == 0
    text = " ".join(outcome.out.split())
    assert [word for word in ("<class", "<function", "<bound", " object at 0x") if word in text] == []
    if name in COMMANDS:
        assert "type: PATH" in text
        assert "Path" not in text
    if name in VERBS:
        of_fit = ("--model.backbone", "--trainer.max_epochs", "--early_stopping.patience", "--run_name", "--card.site")
        shown = [option in text for option in of_fit]
        assert shown == [name == "fit"] * len(of_fit)
        assert "--data.root" in text
        assert ("Name of the positive class" in text) == (name != "predict")


def test_print_config_is_commented_and_can_be_used(bldml: Bldml, leaves: Path) -> None:
    outcome = bldml("fit", *SMALL, "--data.root", leaves, "--print_config")
    assert outcome.code == 0
    assert "# Photographs in a training batch" in outcome.out
    assert yaml.safe_load(outcome.out)["data"]["positive_class"] == "BLD"
    Path("mine.yaml").write_text(outcome.out)
    again = bldml("fit", "--config=mine.yaml", "--print_config")
    assert again.out == outcome.out


def test_two_configs_are_layered_and_the_command_line_wins(bldml: Bldml) -> None:
    Path("site.yaml").write_text("data: {root: /photographs, batch_size: 4}\ntrainer: {max_epochs: 7}\n")
    outcome = bldml(
        "fit", "--config", REPOSITORY / "configs/resnet50.yaml", "--config=site.yaml", "--data.batch_size=5",
        "--print_config",
    )  # fmt: skip
    config = yaml.safe_load(outcome.out)
    assert config["model"]["backbone"] == "resnet50"
    assert (config["data"]["root"], config["data"]["batch_size"]) == ("/photographs", 5)
    assert config["trainer"]["max_epochs"] == 7


SHIPPED = sorted(path.relative_to(REPOSITORY) for path in (REPOSITORY / "configs").rglob("*.yaml"))


@pytest.mark.parametrize("config", SHIPPED, ids=map(str, SHIPPED))
def test_every_shipped_configuration_is_understood_without_trust(config: Path, bldml: Bldml) -> None:
    outcome = bldml("fit", "--config", REPOSITORY / config, "--print_config")
    assert outcome.code == 0, outcome.err
    written, read = yaml.safe_load((REPOSITORY / config).read_text()), yaml.safe_load(outcome.out)
    for group, keys in written.items():
        for key, value in keys.items() if isinstance(keys, dict) else ():
            if isinstance(value, dict):
                assert {name: read[group][key][name] for name in value} == value, f"{group}.{key}"
            elif not isinstance(value, list):
                assert read[group][key] == value, f"{group}.{key}"


def test_demo_draws_leaves(bldml: Bldml) -> None:
    assert bldml("demo", "leaves", "--images_per_class=2", "--size=96").code == 0
    assert len(list(Path("leaves").rglob("*.jpg"))) == 4


@pytest.mark.slow
def test_trust_config_lets_a_configuration_import(leaves: Path, bldml: Bldml, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path.cwd()
    monkeypatch.syspath_prepend(folder)  # as of `python -m bldml`
    (folder / "mine.py").write_text(
        "from lightning.pytorch import Callback\n"
        "class Marker(Callback):\n"
        "    def on_fit_start(self, trainer, pl_module):\n"
        "        open('marker_was_here', 'w').close()\n"
    )
    (folder / "mine.yaml").write_text("trainer: {callbacks: [{class_path: mine.Marker}], fast_dev_run: true}\n")
    command = ("fit", *SMALL, "--data.root", leaves, "--config=mine.yaml")
    refused = bldml(*command)
    assert refused.code == 2
    assert "--trust_config" in refused.err
    assert "mine" not in sys.modules
    code, said = prepared(*command, "--trust_config", cwd=folder)
    assert code == 0, said
    assert (folder / "marker_was_here").exists()


def test_command_line_works_in_a_process_of_its_own(run: Path, leaves: Path, tmp_path: Path) -> None:
    """The whole way once without pytest's process around it."""
    done = python(
        "-m", "bldml", "predict", "--ckpt_path", run / "checkpoints/best.ckpt", "--data.root", leaves / "BLD",
        "--output", tmp_path / "out", "--trainer.accelerator=cpu", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "out" / "predictions.csv").read_text().splitlines()) == 31
    assert not {"Traceback", "leaked"} & set(done.stderr.split())
    code, said = prepared("test", "--ckpt_path=gone.ckpt", cwd=tmp_path)
    assert code == 1
    assert said.startswith("bldml: error: ")
