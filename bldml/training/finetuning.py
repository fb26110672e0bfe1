"""Callbacks of transfer learning: when stages are unfrozen, when learning rates are lowered."""

import math
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.trainer.states import TrainerFn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from bldml.errors import ConfigError, TrainingError
from bldml.training.backbones import Unit
from bldml.training.lightning_internals import let_ddp_skip_parameters
from bldml.training.module import LeafClassifier
from bldml.training.networks.ensemble import is_ensemble


class ProgressiveUnfreezing(Callback):
    """Train only the head first, then unfreeze the backbone's stages or blocks, beginning with those nearest the head.

    The unfrozen part is a pure function of the epoch and is set at the start of each epoch.

    Args:
        start_epoch: First epoch, counted from 0, in which the backbone is trained.
        stages: Number of stages to unfreeze, those nearest the head; 0 trains only the head.
        every_n_epochs: Epochs between one stage or block and the next; 0 unfreezes all of them at once.
        blocks: Number of blocks to unfreeze, instead of `stages`. Blocks are the smaller parts that the scripts of the
            BLD-ML paper unfreeze, such as one of the three bottlenecks of ResNet50's last stage.
        reset_optimizer: Reset the optimizer at each unfreezing: initial learning rates, no moments, plateau counters at
            zero.
    """

    def __init__(
        self,
        start_epoch: int = 3,
        stages: int = 4,
        every_n_epochs: int = 0,
        blocks: int | None = None,
        reset_optimizer: bool = False,
    ) -> None:
        super().__init__()
        numbers = {"start_epoch": start_epoch, "stages": stages, "every_n_epochs": every_n_epochs}
        for name, value in (numbers | {"blocks": blocks or 0}).items():
            if value < 0:
                message = f"unfreezing.{name} must be at least 0, not {value}."
                raise ConfigError(message, "unfreezing-out-of-range", key=name, found=value, expected=0)
        self.start_epoch, self.every_n_epochs, self.reset_optimizer = start_epoch, every_n_epochs, reset_optimizer
        self.deepest, self.unit = deepest(stages, blocks)

    def depth(self, epoch: int) -> int:
        """Return the number of unfrozen stages or blocks in an epoch, counted from 0.

        >>> [ProgressiveUnfreezing(2, 3).depth(epoch) for epoch in range(4)]
        [0, 0, 3, 3]
        >>> [ProgressiveUnfreezing(1, 3, every_n_epochs=2).depth(epoch) for epoch in range(8)]
        [0, 1, 1, 2, 2, 3, 3, 3]
        """
        if epoch < self.start_epoch:
            return 0
        if self.every_n_epochs == 0:
            return self.deepest
        return min(self.deepest, 1 + (epoch - self.start_epoch) // self.every_n_epochs)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Unfreeze everything for now: DDP synchronises only what is trainable when it wraps the module."""
        if stage == "fit":
            classifier(pl_module).unfreeze()
            if isinstance(trainer.strategy, DDPStrategy):
                let_ddp_skip_parameters(trainer.strategy)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set what the first epoch trains; an epoch that is resumed has no `on_train_epoch_start`."""
        classifier(pl_module).unfreeze(self.depth(trainer.current_epoch), self.unit)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set what this epoch trains, and every module's mode, which validation has changed."""
        epoch = trainer.current_epoch
        classifier(pl_module).unfreeze(self.depth(epoch), self.unit)
        if self.reset_optimizer and epoch > 0 and self.depth(epoch) != self.depth(epoch - 1):
            _reset(trainer, classifier(pl_module))


def _reset(trainer: Trainer, module: LeafClassifier) -> None:
    (optimizer,) = trainer.optimizers
    optimizer.state.clear()
    for group, fresh in zip(optimizer.param_groups, module.configure_optimizers().param_groups, strict=True):
        group["lr"] = fresh["lr"]
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # set by a connector
    for callback in callbacks:
        if isinstance(callback, PlateauLR):
            callback.restart(trainer)


class PlateauLR(Callback):
    """Lower every group's learning rate when the monitored metric has stopped improving.

    Args:
        factor: Factor for the learning rates, in (0, 1).
        patience: Validations (one per epoch) without improvement before the learning rates are lowered.
        threshold: Smallest relative change that counts as an improvement.
        min_lr: Minimum learning rate.
        monitor: Logged metric (set by monitor).
        mode: Whether a smaller or a larger value is better (set by monitor).
    """

    def __init__(
        self,
        factor: float = 0.5,
        patience: int = 2,
        threshold: float = 1e-4,
        min_lr: float = 0.0,
        monitor: str = "val_loss",
        mode: Literal["min", "max"] = "min",
    ) -> None:
        super().__init__()
        if not 0 < factor < 1:
            message = f"plateau.factor must lie in (0, 1), not {factor}."
            raise ConfigError(message, "plateau-out-of-range", key="factor", found=factor)
        if patience < 0 or not (math.isfinite(threshold) and threshold >= 0 and min_lr >= 0):
            message = "plateau.patience, plateau.threshold and plateau.min_lr must be at least 0."
            raise ConfigError(message, "plateau-out-of-range", expected=0)
        self.monitor = monitor
        self._arguments: dict[str, Any] = {
            "factor": factor, "patience": patience, "threshold": threshold, "min_lr": min_lr, "mode": mode,
        }  # fmt: skip
        self._scheduler: ReduceLROnPlateau | None = None
        self._resumed: dict[str, Any] | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Attach to the optimizer; restore the counters of a resumed run."""
        self.restart(trainer)
        if self._resumed is not None:
            assert self._scheduler is not None
            self._scheduler.load_state_dict(self._resumed)

    def restart(self, trainer: Trainer) -> None:
        """Reset the counters and the best value."""
        self._scheduler = ReduceLROnPlateau(trainer.optimizers[0], **self._arguments)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Evaluate the monitored metric after each validation."""
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking or self._scheduler is None:
            return
        value = trainer.callback_metrics.get(self.monitor)
        if value is not None:
            self._scheduler.step(float(value))

    def state_dict(self) -> dict[str, Any]:
        """Return counters and best value, in plain types."""
        if self._scheduler is None:
            return {}
        state = self._scheduler.state_dict()
        return {k: v for k, v in state.items() if isinstance(v, int | float | str | bool)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Store the counters until the optimizer exists."""
        self._resumed = state_dict


class TrainingConditions(Callback):
    """Log each group's learning rate and the trainable fraction of the parameters, as they were during the epoch.

    They are read at the start of an epoch and logged at its end, because values that wait in Lightning for logging are
    not in a checkpoint.
    """

    def __init__(self) -> None:
        super().__init__()
        self._conditions: dict[str, float] = {}

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read them."""
        rates = {f"lr_{group['name']}": float(group["lr"]) for group in trainer.optimizers[0].param_groups}
        self._conditions = {**rates, "trainable_share": classifier(pl_module).trainable_fraction()}

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log them."""
        for name, value in self._conditions.items():
            pl_module.log(name, torch.tensor(value, dtype=torch.float64))

    def state_dict(self) -> dict[str, float]:
        """Return the values of this epoch."""
        return dict(self._conditions)

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        """Restore the values of the resumed epoch."""
        self._conditions = dict(state_dict)


def deepest(stages: int, blocks: int | None) -> tuple[int, Unit]:
    """Return how many parts are unfrozen at most, and their unit.

    >>> deepest(2, None), deepest(2, 3)
    ((2, 'stages'), (3, 'blocks'))
    """
    return (stages, "stages") if blocks is None else (blocks, "blocks")


def check_depth(module: LeafClassifier, unfreezing: Any) -> None:
    """Raise a ConfigError, before training, if the backbone has fewer stages or blocks than are to be unfrozen.

    A TrainingError if it is an ensemble, whose networks are trained already.
    """
    if is_ensemble(module.backbone):
        message = (
            f"{module.backbone} is not trained: python -m bldml ensemble makes it of runs of an experiment. Set a "
        )
        message += "backbone."
        raise TrainingError(message, "ensemble-not-trainable", found=module.backbone)
    module.unfreeze(*deepest(unfreezing.stages, unfreezing.blocks)).unfreeze(0)


def classifier(module: LightningModule) -> LeafClassifier:
    """Return the module as a LeafClassifier; these callbacks need one."""
    if not isinstance(module, LeafClassifier):
        raise TypeError(f"expected a LeafClassifier, got {type(module).__name__}")
    return module
