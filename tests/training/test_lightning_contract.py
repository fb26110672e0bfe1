"""What every user of Lightning types, outside our command line: Trainer, LeafClassifier and LeafDataModule alone."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import seed_everything
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import (
    BatchSizeFinder,
    Callback,
    EMAWeightAveraging,
    LearningRateFinder,
    ModelCheckpoint,
    StochasticWeightAveraging,
)

from bldml.app.options import hint_renamed
from bldml.training.backbones import build
from bldml.training.checkpoint import read_checkpoint
from bldml.training.data.datamodule import LeafDataModule
from bldml.training.module import LeafClassifier
from bldml.training.transforms import Augmentation
from tests.support import SMALL, THREE_LAYERS, Bldml, mistake

pytestmark = [
    pytest.mark.filterwarnings(r"ignore:Found \d+ module\(s\) in eval mode"),
    pytest.mark.filterwarnings(r"ignore:Checkpoint directory .* exists and is not empty"),
    pytest.mark.filterwarnings("ignore:No (positive|negative) samples"),
    # https://github.com/Lightning-AI/pytorch-lightning/issues/21326
    pytest.mark.filterwarnings(r"ignore:.*isinstance\(treespec, LeafSpec\):FutureWarning"),
]
SIZE = 64


def classifier(**arguments: Any) -> LeafClassifier:
    settings: dict[str, Any] = {"weights": "none", "image_size": SIZE, **arguments}
    return LeafClassifier("mobilenet_v2_x0_35", **settings)


def data(root: Path | str, **arguments: Any) -> LeafDataModule:
    settings: dict[str, Any] = {"root": root, "positive_class": "BLD", "batch_size": 8, "num_workers": 0, **arguments}
    return LeafDataModule(**settings)


def trainer(folder: Path, *callbacks: Callback, **arguments: Any) -> Trainer:
    return Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False, max_epochs=1,
        default_root_dir=folder, callbacks=[ModelCheckpoint(folder, "own"), *callbacks], num_sanity_val_steps=0,
        **arguments,
    )  # fmt: skip


@pytest.fixture(scope="module")
def checkpoint(split_leaves: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Written by three lines of Python; the root is a text, as most people type it."""
    folder = tmp_path_factory.mktemp("contract")
    seed_everything(7)
    model, photographs = classifier(pos_weight="auto"), data(str(split_leaves))
    with pytest.warns(match="LeafSpec|eval mode|log_every_n_steps"):
        trainer(folder).fit(model, datamodule=photographs)
    assert (model.seed, photographs.seed) == (7, 7)
    assert photographs.image_size == SIZE
    assert float(model.pos_weight) == 1.0  # as many of both
    return folder / "own.ckpt"


def test_a_checkpoint_written_without_our_command_line_describes_itself(checkpoint: Path, split_leaves: Path) -> None:
    header = read_checkpoint(checkpoint).header
    assert (header.backbone, header.image_size) == ("mobilenet_v2_x0_35", SIZE)
    assert (header.class_names, header.positive_class) == (("BLD", "No_BLD"), "BLD")
    assert header.settings["data"]["root"] == str(split_leaves)
    assert header.seen
    assert header.fingerprints.keys() == {"train", "val", "test"}


def test_our_command_line_takes_such_a_checkpoint(checkpoint: Path, bldml: Bldml, tmp_path: Path) -> None:
    outcome = bldml("test", "--ckpt_path", checkpoint, "--data.num_workers=0", "--output", tmp_path / "out")
    assert outcome.code == 0, outcome.err
    assert (tmp_path / "out/metrics.json").is_file()


@pytest.mark.parametrize("options", [{}, {"weights_only": True}])
def test_load_from_checkpoint_makes_the_same_classifier(checkpoint: Path, options: dict[str, Any]) -> None:
    model = LeafClassifier.load_from_checkpoint(checkpoint, **options)
    assert model.hparams["pos_weight"] == "auto"
    assert (model.backbone, model.image_size, model.seed) == ("mobilenet_v2_x0_35", SIZE, 7)
    found = read_checkpoint(checkpoint)
    assert all(torch.equal(value, found.state_dict[name]) for name, value in model.state_dict().items())
    assert model.operating_point == found.header.operating_point
    assert model.description["positive_class"] == "BLD"


def test_validate_test_and_predict(checkpoint: Path, split_leaves: Path, tmp_path: Path) -> None:
    model = LeafClassifier.load_from_checkpoint(checkpoint)
    worker = trainer(tmp_path)
    assert "val_loss" in worker.validate(model, datamodule=data(split_leaves), verbose=False)[0]
    assert "test_auroc" in worker.test(model, datamodule=data(split_leaves), verbose=False)[0]
    logits = worker.predict(model, datamodule=data(split_leaves / "test"))
    assert logits is not None
    assert sum(len(batch) for batch in logits) == 6


def test_pretrained_weights_that_cannot_be_had_end_a_fit_before_it_begins(split_leaves: Path, tmp_path: Path) -> None:
    with mistake("weights-missing", path=Path("/no/such/file")):
        trainer(tmp_path).fit(classifier(weights="/no/such/file"), datamodule=data(split_leaves))
    assert not (tmp_path / "own.ckpt").exists()


def test_pretrained_weights_are_laid_on_when_fitting_starts_and_never_else(split_leaves: Path, tmp_path: Path) -> None:
    torch.manual_seed(5)
    network = build("mobilenet_v2_x0_35")
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    model = classifier(weights=tmp_path / "weights.pth")
    trainer(tmp_path, limit_train_batches=1).fit(model, datamodule=data(split_leaves))
    first = next(network.parameters())
    assert torch.equal(next(model.parameters()), first)
    (tmp_path / "weights.pth").unlink()
    again = LeafClassifier.load_from_checkpoint(tmp_path / "own.ckpt", weights_only=True)
    with torch.no_grad():
        next(again.parameters()).fill_(3)
    worker = trainer(tmp_path, limit_train_batches=1)
    worker.test(again, datamodule=data(split_leaves), verbose=False)
    worker.fit(again, datamodule=data(split_leaves))
    assert bool((next(again.parameters()) == 3).all())


def test_values_that_only_python_lets_through_are_refused(split_leaves: Path) -> None:
    for wrong in ({"head": "x"}, {"pos_weight": "x"}, {"frozen_mode": "x"}):
        with mistake("word-unknown", found="x"):
            classifier(**wrong)
    with mistake("no-such-backbone", found="resnet99"):
        LeafClassifier("resnet99", weights="none")
    with mistake("word-unknown", found="block"):
        classifier().unfreeze(1, "block")  # type: ignore[arg-type]
    for wrong in ({"unreadable": "x"}, {"on_leak": "x"}, {"cache": "x"}, {"num_workers": "x"}):
        with mistake("word-unknown", found="x"):
            data(split_leaves, **wrong)
    with mistake("word-unknown", found="x"):
        Augmentation(flip="x")  # type: ignore[arg-type]
    with mistake("word-unknown", found="x"):
        Augmentation(surroundings="x")  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore:You requested to overfit")
def test_the_same_batches_again_and_again(split_leaves: Path, tmp_path: Path) -> None:
    """For overfit_batches, Lightning puts a sampler of its own, which knows no epoch, in place of ours."""
    trainer(tmp_path, overfit_batches=1).fit(classifier(), datamodule=data(split_leaves))
    assert (tmp_path / "own.ckpt").is_file()


def test_image_sizes_that_differ_are_refused(split_leaves: Path, tmp_path: Path) -> None:
    with mistake("image-sizes-differ", found=96, expected=64):
        trainer(tmp_path).fit(classifier(), datamodule=data(split_leaves, image_size=96))


def test_the_positive_class_of_checkpoint_and_photographs_must_be_one(
    checkpoint: Path, split_leaves: Path, tmp_path: Path
) -> None:
    other = LeafDataModule(root=split_leaves, positive_class="No_BLD", num_workers=0)
    with mistake("positive-class-of-other-checkpoint", found="No_BLD", expected="BLD"):
        trainer(tmp_path).test(classifier(), datamodule=other, ckpt_path=checkpoint, weights_only=True, verbose=False)


def test_a_wrong_description_is_found_before_training(split_leaves: Path, tmp_path: Path) -> None:
    for wrong, complaint in (({"positive_class": "x"}, "class_names"), ({"colour": "red"}, "colour")):
        model = classifier()
        model.describe(**wrong)
        with mistake("description-wrong") as caught:
            trainer(tmp_path).fit(model, datamodule=data(split_leaves))
        assert complaint in caught.value.fields["reason"]
    assert not (tmp_path / "own.ckpt").exists()


def test_a_checkpoint_without_description_says_why(split_leaves: Path, tmp_path: Path) -> None:
    photographs = data(split_leaves, image_size=SIZE)
    photographs.setup("fit")
    trainer(tmp_path).fit(classifier(), photographs.train_dataloader(), photographs.val_dataloader())
    with mistake("checkpoint-header-wrong") as caught:
        read_checkpoint(tmp_path / "own.ckpt")
    assert "trained without LeafDataModule" in caught.value.fields["reason"]
    LeafClassifier.load_from_checkpoint(tmp_path / "own.ckpt", weights_only=True)


@pytest.mark.filterwarnings("ignore:The number of training batches")
def test_finders_of_learning_rate_and_batch_size(leaves: Path, tmp_path: Path) -> None:
    model, photographs = classifier(), data(leaves, batch_size=1)
    finder = LearningRateFinder(max_lr=1e-2, num_training_steps=20, early_stop_threshold=None)
    trainer(tmp_path, finder, BatchSizeFinder(max_trials=2, steps_per_trial=1)).fit(model, datamodule=photographs)
    assert finder.optimal_lr is not None
    assert model.lr == finder.optimal_lr.suggestion() != 1e-3
    saved = torch.load(tmp_path / "own.ckpt", weights_only=True)
    rates = [group["lr"] for group in saved["optimizer_states"][0]["param_groups"]]
    assert rates == [model.lr, *[model.lr * model.backbone_lr_factor] * (len(rates) - 1)]


@pytest.mark.parametrize("finder", ["LearningRateFinder", "BatchSizeFinder"])
def test_our_command_line_refuses_finders(finder: str, split_leaves: Path, bldml: Bldml) -> None:
    """The recorded configuration would lie about the run, and a resumed run would search again."""
    outcome = bldml(
        "fit", *SMALL, "--data.root", split_leaves, "--trust_config",
        f"--trainer.callbacks+=lightning.pytorch.callbacks.{finder}",
    )  # fmt: skip
    assert outcome.code == 2
    assert outcome.error is not None
    assert outcome.error.code == "finder-unsupported"
    assert not Path("lightning_logs").exists()


def test_averaged_weights(split_leaves: Path, bldml: Bldml, tmp_path: Path) -> None:
    with mistake("averaging-refused"):
        trainer(tmp_path, StochasticWeightAveraging(1e-3)).fit(classifier(), datamodule=data(split_leaves))
    trainer(tmp_path, EMAWeightAveraging()).fit(classifier(), datamodule=data(split_leaves))
    assert read_checkpoint(tmp_path / "own.ckpt").header.positive_class == "BLD"
    outcome = bldml(
        "fit", *SMALL, "--data.root", split_leaves, "--run_name=r", "--trust_config",
        "--trainer.callbacks+=lightning.pytorch.callbacks.EMAWeightAveraging",
    )  # fmt: skip
    assert outcome.code == 2
    assert "EMAWeightAveraging cannot be used here: best.ckpt would hold averaged weights" in outcome.err
    assert not (Path.cwd() / "lightning_logs").exists()


def test_callbacks_of_a_configuration_monitor_what_is_logged(split_leaves: Path, bldml: Bldml) -> None:
    own = [f"--data.root={split_leaves}", "--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.mode=max"]
    outcome = bldml("fit", *SMALL, *own, "--trainer.callbacks.monitor=val_f3")
    assert outcome.mistake == "callback-monitor-unknown"
    assert not Path("lightning_logs").exists()
    # The name of version 0.1 is said to be old, and trains.
    hint_renamed.cache_clear()  # another test of this process may have been told
    options = ("--run_name=r", "--trainer.max_epochs=1", "--trainer.callbacks.filename=own", "--test_after_fit=false")
    outcome = bldml("fit", *THREE_LAYERS, *own, "--trainer.callbacks.monitor=val_recall", *options)
    assert outcome.code == 0, outcome.err
    assert "val_recall was renamed val_sensitivity" in outcome.err
    assert Path("lightning_logs/r/more_checkpoints/own.ckpt").is_file()


class Smoothed(LeafClassifier):
    """A classifier of one's own with a setting more.

    Args:
        smoothing: Added to the logits' gradient noise.
        kwargs: Of LeafClassifier.
    """

    def __init__(self, smoothing: float = 0.1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.smoothing = smoothing


def test_a_classifier_of_ones_own(split_leaves: Path, bldml: Bldml, capsys: pytest.CaptureFixture[str]) -> None:
    from bldml.cli import main

    options = [f"--data.root={split_leaves}", "--run_name=own", "--trainer.max_epochs=1", "--test_after_fit=false"]
    code = main(["fit", *SMALL, *options, "--model.smoothing=0.3"], model_class=Smoothed)
    assert code == 0, capsys.readouterr().err
    run = Path("lightning_logs/own")
    assert "smoothing: 0.3" in (run / "config.yaml").read_text()
    found = Smoothed.load_from_checkpoint(run / "checkpoints/best.ckpt", weights_only=True)
    assert (found.smoothing, found.backbone) == (0.3, "mobilenet_v2_x0_35")
    assert main(["test", f"--ckpt_path={run}/checkpoints/best.ckpt", "--report=false"], model_class=Smoothed) == 0
