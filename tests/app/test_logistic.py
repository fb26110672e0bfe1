"""The head `logistic` on the command line: one fit of the last layer on features of the frozen backbone."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from bldml.inference.classifier import Classifier, load
from bldml.training.networks.logistic import fit_head
from tests.support import THREE_LAYERS, Bldml

LOGISTIC = (*THREE_LAYERS, "--model.head=logistic", "--data.val_fraction=0.3", "--data.test_fraction=0.1")


def features_of(classifier: Classifier, paths: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    images = torch.stack([classifier.image(path) for path in paths])
    with torch.inference_mode():
        logits, features = classifier.network.evaluate_with_features(images)
    return logits.numpy(), features.numpy()


def test_fit(bldml: Bldml, leaves: Path) -> None:
    """The last layer is the fit on all training photographs as an evaluation sees them; everything else follows."""
    options = ("--run_name=a", "--trainer.max_epochs=9", "--model.pos_weight=2", "--unfreezing.stages=2")
    outcome = bldml("fit", *LOGISTIC, f"--data.root={leaves}", *options)
    assert outcome.code == 0, outcome.err
    assert "model.head logistic does not use --trainer.max_epochs, --unfreezing.stages." in outcome.err
    run = Path("lightning_logs/a")
    with (run / "history.csv").open() as file:
        (row,) = csv.DictReader(file)
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["trainer"]["max_epochs"] == 1
    assert config["data"]["augmentation"] is None
    with (run / "splits.csv").open() as file:
        training = [one for one in csv.DictReader(file) if one["split"] == "train"]
    labels = np.array([one["label"] == "BLD" for one in training])
    classifier = load(run, "cpu")
    logits, features = features_of(classifier, [leaves / one["path"] for one in training])
    found = fit_head(features, labels, np.arange(len(labels)), 2.0, seed=42)
    # The folds of the choice follow the order of the photographs, so that the penalty may differ by a step or two.
    assert np.corrcoef(logits, features @ found.weight + found.bias)[0, 1] > 0.9
    weights = np.where(labels, 2.0, 1.0)
    loss = (weights * np.logaddexp(0, np.where(labels, -logits, logits))).mean()
    assert float(row["train_loss"]) == pytest.approx(loss, rel=1e-4)
    # At the optimum, the weighted probabilities have the weighted prevalence, because the bias is not penalised.
    probabilities = 1 / (1 + np.exp(-logits))
    assert (weights * probabilities).sum() == pytest.approx((weights * labels).sum(), rel=1e-3)
    assert classifier.header.offset == pytest.approx(np.log(2))
    assert json.loads((run / "evaluations/test/metrics.json").read_text())
    # Repeated by its own configuration, without a word about what it states.
    again = bldml("fit", "--config", run / "config.yaml", "--run_name=b")
    assert again.code == 0, again.err
    assert "does not use" not in again.err
    for key, value in torch.load(run / "checkpoints/best.ckpt", weights_only=True)["state_dict"].items():
        other = torch.load("lightning_logs/b/checkpoints/best.ckpt", weights_only=True)["state_dict"][key]
        assert torch.equal(value, other), key


def test_what_contradicts_it_is_refused(bldml: Bldml, leaves: Path) -> None:
    outcome = bldml("fit", *LOGISTIC, f"--data.root={leaves}", "--run_name=c", "--trainer.val_check_interval=0.5")
    assert outcome.mistake == "logistic-refused"
    assert "one validation" in outcome.err
    assert not Path("lightning_logs/c").exists()
