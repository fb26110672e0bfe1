"""When stages are unfrozen, and when learning rates fall: against torch's own, over a resume, and on two processes."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils.data import DataLoader, TensorDataset

from bldml.training.finetuning import PlateauLR, ProgressiveUnfreezing, classifier
from bldml.training.module import Batch, LeafClassifier
from tests.support import REPOSITORY, mistake

pytestmark = [
    # Frozen stages are, and that is what is tested here.
    pytest.mark.filterwarnings(r"ignore:Found \d+ module\(s\) in eval mode"),
    # https://github.com/Lightning-AI/pytorch-lightning/issues/21326
    pytest.mark.filterwarnings(r"ignore:.*isinstance\(treespec, LeafSpec\):FutureWarning"),
    # Three photographs of one batch need not be of both classes.
    pytest.mark.filterwarnings(r"ignore:No (positive|negative) samples"),
]


def trainer(folder: Path, **arguments: Any) -> Trainer:
    return Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=folder, **arguments,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("start_epoch", "stages", "every", "depths"),
    [
        (0, 2, 0, [2, 2, 2, 2, 2, 2]),
        (3, 2, 0, [0, 0, 0, 2, 2, 2]),
        (3, 0, 0, [0, 0, 0, 0, 0, 0]),
        (3, 0, 1, [0, 0, 0, 0, 0, 0]),
        (0, 3, 1, [1, 2, 3, 3, 3, 3]),
        (1, 3, 1, [0, 1, 2, 3, 3, 3]),
        (1, 3, 2, [0, 1, 1, 2, 2, 3]),
        (9, 3, 2, [0, 0, 0, 0, 0, 0]),
    ],
)
def test_schedule(start_epoch: int, stages: int, every: int, depths: list[int]) -> None:
    unfreezing = ProgressiveUnfreezing(start_epoch, stages, every)
    assert [unfreezing.depth(epoch) for epoch in range(6)] == depths
    # A pure function: asked out of order, as after a resume, it says the same.
    assert [unfreezing.depth(epoch) for epoch in reversed(range(6))] == depths[::-1]
    assert unfreezing.state_dict() == {}


def test_blocks_count_instead_of_stages() -> None:
    unfreezing = ProgressiveUnfreezing(1, 2, 1, blocks=3)
    assert unfreezing.unit == "blocks"
    assert [unfreezing.depth(epoch) for epoch in range(6)] == [0, 1, 2, 3, 3, 3]
    assert ProgressiveUnfreezing(1, 2, 1, blocks=0).depth(5) == 0


@pytest.mark.parametrize("name", ["start_epoch", "stages", "every_n_epochs", "blocks"])
def test_schedule_without_negative_numbers(name: str) -> None:
    with mistake("unfreezing-out-of-range", key=name, found=-1):
        ProgressiveUnfreezing(**{name: -1})  # type: ignore[arg-type]


class Observer(Callback):
    """Notes, in each batch, how many stages are unfrozen, and after each epoch, every number of the network."""

    def __init__(self) -> None:
        self.depths: list[int] = []
        self.states: list[dict[str, Tensor]] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        module = classifier(pl_module)
        trained = [
            all(p.requires_grad for path in stage for p in module.network.get_submodule(path).parameters())
            for stage in module.row.stages
        ]
        norms = [
            any(
                isinstance(m, _BatchNorm) and m.training
                for p in stage
                for m in module.network.get_submodule(p).modules()
            )
            for stage in module.row.stages
        ]
        assert trained == sorted(trained, reverse=True)
        assert norms == ([False] * len(norms) if module.freeze_batchnorm else trained)
        self.depths.append(sum(trained))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.states.append({k: v.clone() for k, v in classifier(pl_module).network.state_dict().items()})


def batches(count: int) -> DataLoader[Batch]:
    generator = torch.Generator().manual_seed(0)
    items = [
        {"image": torch.randn(3, 64, 64, generator=generator), "label": i % 2, "path": "", "group": ""}
        for i in range(count)
    ]
    return DataLoader(items, batch_size=3)  # type: ignore[arg-type]  # a list is a dataset


@pytest.mark.parametrize("freeze_batchnorm", [True, False])
def test_unfreezing_in_a_run_with_validation(freeze_batchnorm: bool, tmp_path: Path) -> None:
    """Validation between the epochs switches modes; no batch may be trained on in the wrong ones."""
    module = LeafClassifier("mobilenet_v2_x0_35", "none", 64, freeze_batchnorm=freeze_batchnorm)
    observer = Observer()
    used = trainer(tmp_path, max_epochs=4, val_check_interval=1, callbacks=[ProgressiveUnfreezing(1, 2, 2), observer])
    used.fit(module, batches(6), batches(6))
    assert observer.depths == [0, 0, 1, 1, 1, 1, 2, 2]
    for before, after, depth in zip(observer.states, observer.states[1:], (1, 1, 2), strict=False):
        moved = {key for key, value in after.items() if not torch.equal(value, before[key])}
        unfrozen = tuple(f"{p}." for stage in module.row.stages[:depth] for p in stage)
        assert all(key.startswith(("classifier.1.", *unfrozen)) for key in moved)
        assert {"classifier.1.weight", "features.18.0.weight"} <= moved
        assert ("features.18.1.running_mean" in moved) != freeze_batchnorm


class OptimizerAtStart(Callback):
    """Notes, when each epoch's first batch is done, the learning rates and how many steps each moment has seen."""

    def __init__(self) -> None:
        self.rates: list[list[float]] = []
        self.steps: list[set[int]] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        (optimizer,) = trainer.optimizers
        if trainer.is_last_batch:
            return
        self.rates.append([float(group["lr"]) for group in optimizer.param_groups][:2])
        self.steps.append({int(state["step"]) for state in optimizer.state.values()})


@pytest.mark.parametrize("reset", [True, False])
def test_the_optimizer_begins_anew_at_each_unfreezing_if_asked(reset: bool, tmp_path: Path) -> None:
    """Two batches an epoch; no progress is enough, so the plateau lowers the rates after each epoch."""
    module = LeafClassifier("mobilenet_v2_x0_35", "none", 64, lr=1e-3, weight_decay=0.0)
    observer, plateau = OptimizerAtStart(), PlateauLR(patience=0, threshold=1.0)
    callbacks = [ProgressiveUnfreezing(2, blocks=3, reset_optimizer=reset), plateau, observer]
    trainer(tmp_path, max_epochs=5, callbacks=callbacks, num_sanity_val_steps=0).fit(module, batches(6), batches(6))
    halves = [0, 1, 0, 1, 2] if reset else [0, 1, 2, 3, 4]
    assert observer.rates == [[1e-3 * 0.5**n, 1e-4 * 0.5**n] for n in halves]
    head = [1, 3, 1, 3, 5] if reset else [1, 3, 5, 7, 9]
    assert [max(steps) for steps in observer.steps] == head
    # Three blocks, which are less than three stages.
    assert module.trainable_fraction() < module.unfreeze(3).trainable_fraction()
    assert module.unfreeze(3, "blocks").network.get_submodule("features.15").training is False
    # Without it what was unfrozen has a history of its own.
    assert [len(steps) for steps in observer.steps] == ([1] * 5 if reset else [1, 1, 2, 2, 2])


def test_only_this_classifier() -> None:
    with pytest.raises(TypeError, match="expected a LeafClassifier, got LightningModule"):
        classifier(LightningModule())


class Scripted(LightningModule):
    """Logs a validation loss for each epoch as it was told; two groups with learning rates of their own."""

    def __init__(self, values: list[float]) -> None:
        super().__init__()
        self.values = values
        self.head, self.body = nn.Linear(1, 1), nn.Linear(1, 1)
        self.seen: list[list[float]] = []

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        loss: Tensor = self.head(self.body(batch[0])).sum()
        return loss

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        # During the sanity check, a value that would be the best of all.
        self.log("val_loss", -1e9 if self.trainer.sanity_checking else self.values[self.current_epoch])

    def on_train_epoch_start(self) -> None:
        self.seen.append([float(group["lr"]) for group in self.trainer.optimizers[0].param_groups])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(
            [{"params": self.head.parameters(), "lr": 1e-2}, {"params": self.body.parameters(), "lr": 1e-3}]
        )


ONE: DataLoader[Any] = DataLoader(TensorDataset(torch.ones(1, 1)))
SERIES = [1.0, 0.9, 0.95, 0.91, 0.92, 0.89999, 0.5, float("nan"), 0.6, 0.7, 0.4, 0.4, 0.4, 0.4, 0.3, 0.8, 0.8, 0.8]


def torchs(values: list[float], **arguments: Any) -> list[list[float]]:
    """Learning rates at the start of each epoch by torch's scheduler."""
    optimizer = Scripted(values).configure_optimizers()
    plateau = ReduceLROnPlateau(optimizer, **arguments)
    found = []
    for value in values:
        found.append([float(group["lr"]) for group in optimizer.param_groups])
        plateau.step(float(torch.tensor(value)))  # Lightning logs float32
    return found


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize(
    "arguments",
    [
        {"factor": 0.5, "patience": 2},
        {"factor": 0.1, "patience": 0},
        {"factor": 0.5, "patience": 1, "threshold": 0.1},
        {"factor": 0.5, "patience": 0, "min_lr": 2e-4},
    ],
)
def test_plateau_is_torchs(arguments: dict[str, Any], mode: Literal["min", "max"], tmp_path: Path) -> None:
    module, plateau = Scripted(SERIES), PlateauLR(**arguments, mode=mode)
    trainer(tmp_path, max_epochs=len(SERIES), callbacks=[plateau]).fit(module, ONE, ONE)
    assert module.seen == torchs(SERIES, **arguments, mode=mode)
    assert module.seen[-1][0] < 1e-2
    if "min_lr" in arguments:
        assert module.seen[-1][1] == 2e-4


@pytest.mark.parametrize("stop", [1, 4, 5, 6, 11])
def test_plateau_over_a_resume(stop: int, tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"factor": 0.5, "patience": 2}
    first = Scripted(SERIES)
    used = trainer(tmp_path, max_epochs=stop, callbacks=[PlateauLR(**arguments)])
    used.fit(first, ONE, ONE)
    used.save_checkpoint(tmp_path / "last.ckpt")
    second = Scripted(SERIES)
    used = trainer(tmp_path, max_epochs=len(SERIES), callbacks=[PlateauLR(**arguments)])
    used.fit(second, ONE, ONE, ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    assert first.seen + second.seen == torchs(SERIES, **arguments)


def test_plateau_state_is_plain(tmp_path: Path) -> None:
    plateau = PlateauLR()
    assert plateau.state_dict() == {}
    trainer(tmp_path, max_epochs=3, callbacks=[plateau]).fit(Scripted(SERIES), ONE, ONE)
    state = plateau.state_dict()
    assert {type(value) for value in state.values()} <= {int, float, str, bool}
    assert state["best"] == pytest.approx(0.9)
    assert (state["num_bad_epochs"], state["last_epoch"]) == (1, 3)


def test_plateau_looks_at_nothing_else(tmp_path: Path) -> None:
    """Not at a validation outside of a fit, nor at a metric that is not logged."""
    plateau, module = PlateauLR(patience=0), Scripted([1.0] * 9)
    used = trainer(tmp_path, max_epochs=1, callbacks=[plateau])
    used.fit(module, ONE, ONE)
    before = plateau.state_dict()
    used.validate(module, ONE, verbose=False)
    assert plateau.state_dict() == before
    absent = PlateauLR(patience=0, monitor="val_auroc")
    trainer(tmp_path, max_epochs=3, callbacks=[absent]).fit(module, ONE, ONE)
    assert absent.state_dict()["last_epoch"] == 0


@pytest.mark.parametrize(
    "arguments",
    [
        {"factor": 0.0}, {"factor": 1.0}, {"factor": -0.5}, {"factor": float("nan")}, {"patience": -1},
        {"threshold": -1e-4}, {"threshold": float("inf")}, {"min_lr": -1.0}, {"min_lr": float("nan")},
    ],
)  # fmt: skip
def test_plateau_ranges(arguments: dict[str, Any]) -> None:
    with mistake("plateau-out-of-range"):
        PlateauLR(**arguments)


TWO_PROCESSES = """
import os
import warnings

import torch

warnings.simplefilter("ignore")
torch.set_num_threads(1)
from lightning.pytorch import Callback, Trainer
from torch.utils.data import DataLoader

from bldml.training.finetuning import ProgressiveUnfreezing, TrainingConditions
from bldml.training.module import LeafClassifier

generator = torch.Generator().manual_seed(0)
items = [
    {"image": torch.randn(3, 64, 64, generator=generator), "label": i % 2, "path": "", "group": ""} for i in range(9)
]


class Compare(Callback):
    def on_train_epoch_end(self, trainer, module):
        ranks = module.all_gather(torch.cat([p.detach().flatten() for p in module.network.parameters()]))
        losses = module.all_gather(trainer.callback_metrics["val_loss"])
        if trainer.is_global_zero:
            print("difference", float((ranks[0] - ranks[1]).abs().max()), float(losses[0] - losses[1]), flush=True)


torch.manual_seed(0)
module = LeafClassifier("mobilenet_v2_x0_35", "none", 64, lr=1e-2, backbone_lr_factor=1.0)
trainer = Trainer(
    accelerator="cpu", devices=2, strategy="ddp", max_epochs=3, logger=False, enable_checkpointing=False,
    enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0, use_distributed_sampler=False,
    callbacks=[ProgressiveUnfreezing(1, 1, 1), TrainingConditions(), Compare()],
)


# Ranks train on different photographs, and have different numbers of validation batches.
def loader(count, batch_size):
    rank = int(os.environ.get("LOCAL_RANK", 0))
    return DataLoader(items[rank:count:2], batch_size=batch_size)


trainer.fit(module, loader(8, 2), loader(9, 4))
"""


@pytest.mark.slow
def test_two_processes_stay_equal_after_unfreezing(tmp_path: Path) -> None:
    """DDP forgets parameters that were frozen when it wrapped the module: their gradients are never averaged."""
    script = tmp_path / "two.py"
    script.write_text(TWO_PROCESSES)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "MASTER_", "LOCAL_", "NODE_"))}
    environment |= {"PYTHONPATH": str(REPOSITORY), "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("difference")]
    assert lines == [["0.0", "0.0"]] * 3
