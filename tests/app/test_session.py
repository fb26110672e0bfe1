"""A command that is called from Python leaves the process as it was."""

import logging
import os
import random
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonargparse
import numpy as np
import pytest
import torch
from jsonargparse import _stubs_resolver
from lightning.pytorch import Callback, LightningModule, Trainer

from bldml.training.lightning_internals import may_import_anything, parsing_state
from bldml.training.process import LOGGERS, Session
from bldml.training.resume.signals import INTERRUPTING
from tests.support import ALONE, SMALL, Bldml


class Meddler(Callback):
    """Changes what a callback of a trusted configuration may change, and looks at what the command has changed."""

    seen: dict[str, Any]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        Meddler.seen = state()
        torch.set_num_threads(2)
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.benchmark = True
        os.environ["BLDML_CACHE"] = "elsewhere"
        del os.environ["MEDDLER"]


def state() -> dict[str, Any]:
    numbers = np.random.get_state()
    assert isinstance(numbers, tuple)
    return {
        "environment": dict(os.environ),
        "warnings": list(warnings.filters),
        "loggers": [list(logging.getLogger(name).filters) for name in LOGGERS],
        "parser": parsing_state(),
        "loader": jsonargparse.get_loader("yaml"),
        "stubs": _stubs_resolver.stubs_resolver,
        "signals": {signum: signal.getsignal(signum) for signum in INTERRUPTING},
        "random": random.getstate(),
        "numpy": (numbers[0], numbers[1].tolist(), *numbers[2:]),
        "torch": torch.get_rng_state().tolist(),
        "threads": torch.get_num_threads(),
        "types": (torch.get_default_dtype(), torch.get_float32_matmul_precision(), torch.is_grad_enabled()),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "cudnn": (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic),
    }


@pytest.fixture
def fresh_parser() -> Iterator[None]:
    """jsonargparse as it is before any command of bldml, whatever other tests have left."""
    with Session():
        settings = jsonargparse._common.parsing_settings
        settings["import_path_verdicts"] = dict.fromkeys(jsonargparse._common.default_import_path_denylist, False)
        jsonargparse.set_loader("yaml", lambda text: text)
        _stubs_resolver.stubs_resolver = None
        yield


def differences(before: dict[str, Any]) -> set[str]:
    now = state()
    return {key for key, value in before.items() if now[key] != value}


@pytest.mark.usefixtures("fresh_parser")
def test_a_fit_a_mistake_and_a_trusted_configuration_leave_nothing(
    split_leaves: Path, bldml: Bldml, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDDLER", "set by the user")
    before = state()
    options = (*SMALL, "--data.root", split_leaves, "--trainer.max_epochs=1", "--test_after_fit=false")
    outcome = bldml(
        "fit", *options, "--run_name=r", "--trainer.deterministic=true", "--trust_config",
        "--trainer.callbacks+=tests.app.test_session.Meddler",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    assert differences(before) == set()
    # In between all of it was different, so that the comparison means something.
    unchanged = {key for key, value in before.items() if Meddler.seen[key] == value}
    assert unchanged == {"threads", "types", "cudnn"}, "these the callback changes"

    assert bldml("fit", *options, "--run_name=r").code == 1, "the name is taken"
    assert differences(before) == set()
    assert bldml("fit", *options, "--model.lr=-").code == 2
    assert differences(before) == set()
    assert bldml("doctor", *options).code in (0, 1)
    assert differences(before) == set()
    assert may_import_anything()


def test_plain_commands_leave_nothing(split_leaves: Path, bldml: Bldml) -> None:
    before = state()
    assert bldml("split", split_leaves).code == 0
    assert bldml("audit", *ALONE, split_leaves, "--output=audit").code in (0, 1)
    assert bldml("split", "nowhere").code == 1
    assert differences(before) == set()


LIBRARIES_LOADED_BY_THE_COMMAND = """
import os, signal, warnings
from bldml.cli import main
before = dict(os.environ), list(warnings.filters), signal.getsignal(signal.SIGTERM)
assert main(["fit", "--data.root=nowhere", "--model.lr=-"]) == 2
assert (dict(os.environ), list(warnings.filters), signal.getsignal(signal.SIGTERM)) == before
from bldml.training.lightning_internals import may_import_anything
assert may_import_anything()
"""


def test_libraries_that_the_command_loads_are_as_after_their_import() -> None:
    subprocess.run([sys.executable, "-c", LIBRARIES_LOADED_BY_THE_COMMAND], check=True)
