"""A last.ckpt that a stranger has changed: refused with its name, or resumed; never a traceback."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support import Bldml

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("loops",), {}),
        (("callbacks",), [1]),
        (("optimizer_states",), "x"),
        (("bldml_resume", "metrics"), [3]),
        (("bldml_resume", "epoch"), "many"),
        (("bldml_resume", "rows"), [{"epoch": "a"}]),
        (("pytorch-lightning_version",), [1]),
        (("hyper_parameters",), [1]),
    ],
)
def test_what_cannot_be_restored_is_refused(keys: tuple[str, ...], value: Any, run: Path, bldml: Bldml) -> None:
    own = Path(shutil.copytree(run, "lightning_logs/r"))
    last, config = own / "checkpoints" / "last.ckpt", own / "config.yaml"
    content = part = torch.load(last, weights_only=True)
    for key in keys[:-1]:
        part = part[key]
    part[keys[-1]] = value
    torch.save(content, last)
    config.write_text(config.read_text().replace("max_epochs: 4", "max_epochs: 5"))
    outcome = bldml("fit", "--resume=lightning_logs/r", "--report=false", "--test_after_fit=false")
    if keys == ("hyper_parameters",):  # which nobody reads
        assert outcome.code == 0
    else:
        assert outcome.code == 1
        assert outcome.mistake in ("checkpoint-not-restorable", "checkpoint-progress-wrong")
        assert "last.ckpt" in outcome.err
