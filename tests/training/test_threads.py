"""How long OpenMP's threads wait busily, as the library itself says when it is loaded."""

import os
import re
import subprocess
import sys

import pytest

SETTINGS = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


# What a verb does before it loads anything else with threads; the rest of loading takes twice as long.
LOAD = "from bldml.training.process import wait_briefly; wait_briefly(); import torch"


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="GNU's OpenMP")
@pytest.mark.parametrize(
    ("given", "command", "spins"),
    [
        ({}, ["-m", "bldml", "fit", "--print_config"], "10000"),
        ({"GOMP_SPINCOUNT": "77"}, ["-c", LOAD], "77"),
        ({"OMP_WAIT_POLICY": "passive"}, ["-c", LOAD], "0"),
    ],
)
def test_a_verb_lets_threads_wait_briefly(given: dict[str, str], command: list[str], spins: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    done = subprocess.run(
        [sys.executable, *command],
        env={**environment, **given, "OMP_DISPLAY_ENV": "verbose"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert re.findall(r"GOMP_SPINCOUNT = '(\d+)'", done.stderr) == [spins]
