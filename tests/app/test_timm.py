"""A backbone of timm on the command line, from the fit to the export."""

import csv
import json
from pathlib import Path

import pytest

from bldml.inference.exported import MAP, read_exported
from tests.support import SMALL, Bldml

NAME = "timm:mobilenetv4_conv_small"
TIMM = (f"--model.backbone={NAME}", *SMALL[1:])


def test_fit_test_predict_explain_export(bldml: Bldml, split_leaves: Path) -> None:
    """Frozen for one epoch, with one stage unfrozen in the second; then everything that a checkpoint is used for."""
    options = ("--trainer.max_epochs=2", "--unfreezing.start_epoch=1", "--unfreezing.stages=1", "--run_name=a")
    fitted = bldml("fit", *TIMM, f"--data.root={split_leaves}", *options)
    assert fitted.code == 0, fitted.err
    run = Path("lightning_logs/a")
    environment = json.loads((run / "environment.json").read_text())
    assert environment["versions"]["timm"]
    with (run / "evaluations/test/predictions.csv").open() as file:
        rows = {row["path"]: float(row["probability"]) for row in csv.DictReader(file)}
    again = bldml("test", run, split_leaves, "--name=again")
    assert again.code == 0, again.err
    with (run / "evaluations/again/predictions.csv").open() as file:
        assert {row["path"]: float(row["probability"]) for row in csv.DictReader(file)} == rows
    photographs = split_leaves / "test" / "BLD"
    explained = bldml("explain", run, photographs, "--output", "maps")
    assert explained.code == 0, explained.err
    exported = bldml("export", run, "--output", "onnx", "--photographs", photographs)
    assert exported.code == 0, exported.err
    model = read_exported(Path("onnx/model.onnx"))
    assert model.header.backbone == NAME
    assert not model.has_map  # what follows its last feature map is more than a mean and a linear layer
    assert MAP not in model.description["outputs"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("timm:mobilenetv4_conv_smal", "timm:mobilenetv4_conv_small"),
        ("timm:hf-hub:somebody/network", "timm:NAME"),
        ("mobilenet", "timm:NAME"),
    ],
)
def test_wrong_names(bldml: Bldml, split_leaves: Path, name: str, text: str) -> None:
    outcome = bldml("fit", *TIMM[1:], f"--model.backbone={name}", f"--data.root={split_leaves}", "--run_name=b")
    assert outcome.code == 2
    assert text in outcome.err
    assert not Path("lightning_logs").exists()


def test_weights_that_are_nowhere(bldml: Bldml, split_leaves: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before any photograph is read, with the command that downloads them."""
    monkeypatch.setattr("bldml.training.networks.timm_weights._cache", lambda home: str(Path("empty").absolute()))
    monkeypatch.setattr("bldml.training.weights.hub_url", lambda: "http://127.0.0.1:9")
    options = ("--model.weights=imagenet", f"--data.root={split_leaves}", "--run_name=c")
    outcome = bldml("fit", *TIMM, *options)
    assert outcome.mistake == "timm-weights-not-at-hand"
    assert f"prefetch --backbone {NAME}" in outcome.err
    checked = bldml("doctor", "fit", *TIMM, *options)
    assert f"the weights of {NAME} are not in the cache" in checked.out
