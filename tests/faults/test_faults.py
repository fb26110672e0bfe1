"""A fault at some of the changes of files; `benchmarks/faults.py` can try all of them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import REPOSITORY


@pytest.mark.parametrize(("commands", "sample"), [(("split", "survey", "predict"), 2), (("fit",), 1)])
def test_old_or_new_and_never_half(commands: tuple[str, ...], sample: int, tmp_path: Path) -> None:
    words = ["--commands", *commands, "--sample", str(sample), "--output", str(tmp_path / "faults.json")]
    program = [sys.executable, "-m", "benchmarks.faults", *words]
    ended = subprocess.run(program, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    results = json.loads((tmp_path / "faults.json").read_text())["commands"]
    assert results.keys() == set(commands)
    assert {name: result["findings"] for name, result in results.items() if result["findings"]} == {}
    assert all(result["positions"] > sample and result["tried"] == 3 * sample for result in results.values())


def test_a_signal_in_the_life_of_a_fit(tmp_path: Path) -> None:
    """At two of the moments of `benchmarks/interrupt_grid.py`."""
    words = ["--lives", "forked", "--sample", "2", "--output", str(tmp_path / "grid.json")]
    program = [sys.executable, "-m", "benchmarks.interrupt_grid", *words]
    ended = subprocess.run(program, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    life = json.loads((tmp_path / "grid.json").read_text())["lives"]["forked"]
    assert (life["signals"], life["findings"]) == (2, [])
    assert life["things_compared"] > 50
