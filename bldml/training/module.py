"""LeafClassifier: a backbone with one logit, its loss, its metrics, its parameter groups and its unfreezing."""

import math
from collections.abc import Mapping
from typing import Any, Literal, TypedDict, cast

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import StochasticWeightAveraging
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn

from bldml.errors import CheckpointError, ConfigError, TrainingError
from bldml.metrics.operating_point import BEST_F1, OperatingPoint, choose_operating_point
from bldml.training.backbones import BACKBONES, Backbone, BackboneName, Unit, build, image_size_of
from bldml.training.checkpoint import (
    DESCRIBED,
    KEY,
    Header,
    described_photographs,
    header_of,
    rename_monitors,
    software_versions,
)
from bldml.training.lightning_internals import attached_trainer, is_batchnorm, leave_scaling
from bldml.training.process import default_seed
from bldml.training.scores import Epoch, EpochScores, weighted_loss
from bldml.training.transforms import MEAN, STD, Normalization
from bldml.training.trunk import FeatureCache, Trunk
from bldml.training.weights import load_pretrained

Stage = Literal["train", "val", "test"]
STAGES: tuple[Stage, ...] = ("train", "val", "test")


class Batch(TypedDict):
    """Images uint8 (n, 3, s, s), labels int64 (n,) with 1 for positive, names and groups of the photographs."""

    image: Tensor
    label: Tensor
    path: list[str]
    group: list[str]


class LeafClassifier(LightningModule):
    """A pretrained backbone whose head gives one logit: is this leaf diseased?

    Args:
        backbone: Which architecture.
        weights: imagenet (torchvision's, cached or downloaded once), none (random), or a file with a state dict.
        image_size: Side in pixels; null for the backbone's own.
        lr: Learning rate of the head.
        backbone_lr_factor: Learning rate of the backbone's stages as a share of the head's.
        weight_decay: Weight decay of AdamW.
        pos_weight: Weight of positive photographs in the loss: none, auto (negatives per positive in the training
            split), or a number.
        head: What is trained as the head from the first epoch: the new last layer (last_layer), or with it the linear
            layer before it, which mobilenet_v3_large alone has (whole_classifier).
        frozen_mode: Mode of frozen stages in training: eval, or train, in which dropout and stochastic depth act and,
            with freeze_batchnorm false, BatchNorm uses and learns the statistics of each batch.
        freeze_batchnorm: Hold the backbone's BatchNorm layers in evaluation mode always, so that their running
            statistics stay those of the pretrained weights.
        feature_cache: Memory in GiB, at least 0, for caching the frozen backbone's output on the validation
            photographs, which is the same in every epoch until more is unfrozen. 0 turns the cache off.
        compile: Let torch.compile make the network faster; the first epoch after each thaw then takes a minute longer.
        seed: Seed of dropout and stochastic depth (taken from seed_everything).
    """

    def __init__(
        self,
        backbone: BackboneName = "efficientnet_v2_s",
        weights: str = "imagenet",
        image_size: int | None = None,
        lr: float = 1e-3,
        backbone_lr_factor: float = 0.1,
        weight_decay: float = 1e-4,
        pos_weight: float | Literal["none", "auto"] = "none",
        head: Literal["last_layer", "whole_classifier"] = "last_layer",
        frozen_mode: Literal["eval", "train"] = "eval",
        freeze_batchnorm: bool = True,
        feature_cache: float = 2.0,
        compile: bool = False,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        # By these load_from_checkpoint makes the same network; plain values, so that it may ask for weights_only.
        self.save_hyperparameters(logger=False)
        self.seed = default_seed() if seed is None else seed
        plain = {"weights": str(weights), "seed": self.seed}
        self.hparams.update({name: value for name, value in plain.items() if name in self.hparams})
        self.image_size = image_size_of(backbone, image_size)
        self.row = BACKBONES[backbone] if head == "last_layer" else BACKBONES[backbone].with_whole_classifier()
        if self.image_size < self.row.min_size:
            size, least = self.image_size, self.row.min_size
            message = f"model.image_size {size} is too small for {backbone}: at least {least} px "
            message += f"(its own size is {self.row.image_size})."
            raise ConfigError(message, "image-size-too-small", found=size, expected=least)
        numbers = {"lr": lr, "backbone_lr_factor": backbone_lr_factor, "weight_decay": weight_decay}
        for name, value in (numbers | {"feature_cache": feature_cache}).items():
            if not (math.isfinite(value) and value >= 0):
                message = f"model.{name} must be a finite number of at least 0, not {value}."
                raise ConfigError(message, "model-number-wrong", key=name, found=value, expected=0)
        if isinstance(pos_weight, float | int) and not (math.isfinite(pos_weight) and pos_weight > 0):
            message = f"model.pos_weight must be none, auto or a number above 0, not {pos_weight}."
            raise ConfigError(message, "pos-weight-wrong", found=pos_weight)
        self.backbone, self.weights = backbone, weights
        self.freeze_batchnorm, self.frozen_mode = freeze_batchnorm, frozen_mode
        self.lr, self.backbone_lr_factor, self.weight_decay = lr, backbone_lr_factor, weight_decay
        self.pos_weight_rule = pos_weight
        self.criterion = BEST_F1
        # On the CPU, channels_last makes bf16 convolutions about twice as fast; on a GPU fp16 ones.
        self.network = build(backbone).to(memory_format=torch.channels_last)
        self.trunk = Trunk(self.network, self.row.steps, compiled=compile)
        self.feature_cache = FeatureCache(int(feature_cache * 2**30))
        self.register_buffer("pos_weight", torch.ones(()))
        self.pos_weight: Tensor
        self.normalization = Normalization()
        self.scores = nn.ModuleDict({f"{stage}_": EpochScores(stage) for stage in STAGES})
        self.operating_point = OperatingPoint(threshold=0.5, temperature=1.0)
        self.description: dict[str, Any] = {}
        self._is_told = False
        # Pretrained ones, or those of a checkpoint.
        self.has_weights = weights == "none"
        self.unfreeze(0)

    def load_pretrained(self) -> None:
        """Lay the pretrained weights on the backbone; they may have to be downloaded."""
        load_pretrained(self.network, self.backbone, self.weights)
        self.has_weights = True

    def describe(self, **description: Any) -> None:
        """Say what the module cannot know: class names, positive class and the rest of a checkpoint's `Header`.

        Whoever trains with a `LeafDataModule` need not: the module then asks it.
        """
        self.description, self._is_told = {"versions": software_versions(), **description}, True

    def setup(self, stage: str) -> None:
        """Take from the data module what `describe` and `balance` were not told; check that all fits together.

        Args:
            stage: fit, validate, test or predict, of Lightning.

        Raises:
            TrainingError: Data module or callbacks do not fit; the pretrained weights cannot be had.
            CheckpointError: What checkpoints would say of themselves is wrong.
        """
        photographs = described_photographs(self.trainer)
        if photographs is not None and photographs.image_size not in (None, self.image_size):
            raise TrainingError(
                f"The classifier takes images of {self.image_size} px, and the data module makes them "
                f"{photographs.image_size} px. Give both the same image_size, or the data module none.",
                "image-sizes-differ",
                found=photographs.image_size,
                expected=self.image_size,
            )
        if stage != "fit":
            return
        check_callbacks(self.trainer)
        if not self.has_weights:
            self.load_pretrained()
        if photographs is not None and not self._is_told:
            about = photographs.describe()
            about["settings"] |= {"precision": str(self.trainer.precision), "operating_point": vars(self.criterion)}
            self.description = {"versions": software_versions(), **about}
            self.balance(*photographs.photographs.class_counts())
        if self.description:
            try:
                header_of(self.header().to_plain())
            except (TypeError, ValueError, KeyError) as error:
                message = f"Checkpoints would describe this classifier wrongly: {error}."
                raise CheckpointError(message, "description-wrong", reason=str(error)) from error

    def balance(self, negatives: int, positives: int) -> None:
        """Set the loss's weight of positive photographs by `pos_weight`.

        Args:
            negatives: Number of negative training photographs.
            positives: Number of positive ones.
        """
        rule = self.pos_weight_rule
        value = 1.0 if rule == "none" else negatives / positives if rule == "auto" else float(rule)
        self.pos_weight.fill_(value)

    def unfreeze(self, depth: int | None = None, unit: Unit = "stages") -> "LeafClassifier":
        """Thaw the parts nearest the head and freeze the others; set every module's mode.

        Stateless: what is unfrozen afterwards depends on the arguments alone, so a resumed run has nothing to repair.

        Args:
            depth: Number of parts to thaw, from 0 (head alone) to all of them; None for all.
            unit: Which parts: stages, or the smaller blocks.
        """
        parts = self.row.parts(unit)
        depth = len(parts) if depth is None else depth
        if not 0 <= depth <= len(parts):
            message = f"{depth} {unit} cannot be unfrozen: {self.backbone} has {len(parts)} (0 trains only the head)."
            raise ConfigError(message, "depth-too-large", found=depth, expected=len(parts))
        self.network.train().requires_grad_(True)
        for number, part in enumerate(parts):
            for path in part:
                unfrozen = number < depth
                self.network.get_submodule(path).requires_grad_(unfrozen).train(unfrozen or self.frozen_mode == "train")
        if self.freeze_batchnorm:
            for module in self.network.modules():
                if is_batchnorm(module):
                    module.eval()
        self.trunk.split()
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Logits float32 (n,) of images (n, 3, s, s): uint8, or floating point and normalised already."""
        logits: Tensor = self.network(self.prepared(images))
        return logits.squeeze(1).float()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of a batch."""
        # Dropout and stochastic depth depend on the batch alone, not on what drew random numbers before. One step may
        # gather several batches.
        entropy = np.random.SeedSequence([self.seed, self.global_step, batch_idx, self.global_rank])
        torch.manual_seed(int(entropy.generate_state(1)[0]))
        logits = self.trunk.logits(self.trunk.features(self.prepared(batch["image"]))).squeeze(1).float()
        self._scores("train").keep(logits, batch["label"])
        return weighted_loss(logits, batch["label"], self.pos_weight)

    def validation_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Logits float32 (n,)."""
        trainer = attached_trainer(self)
        if trainer is not None and trainer.state.fn == TrainerFn.FITTING:
            logits = self.trunk.logits(self._features(batch)).squeeze(1).float()
        else:
            logits = self(batch["image"])
        self._scores("val").keep(logits, batch["label"])
        return logits

    def test_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Logits float32 (n,)."""
        logits: Tensor = self(batch["image"])
        self._scores("test").keep(logits, batch["label"])
        return logits

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Logits float32 (n,)."""
        return self.forward(batch["image"])

    def on_train_epoch_start(self) -> None:
        """Forget the operating point: it belongs to the weights of the epoch before."""
        self.operating_point = OperatingPoint(threshold=0.5, temperature=1.0)

    def on_train_epoch_end(self) -> None:
        """Log the epoch's training metrics."""
        self._log_scores("train")

    def on_validation_epoch_end(self) -> None:
        """Log the validation metrics and choose the operating point."""
        epoch = self._log_scores("val")
        # A diverged model has none; early stopping ends such a run.
        self.operating_point = OperatingPoint(threshold=0.5, temperature=1.0)
        if bool(epoch.logits.isfinite().all()):
            found, truth = epoch.logits.cpu().numpy(), epoch.labels.cpu().numpy()
            self.operating_point = choose_operating_point(found, truth, self.criterion)

    def on_test_epoch_end(self) -> None:
        """Log the test metrics."""
        self._log_scores("test")

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW with one named group for the head and one for each stage, from the first step to the last."""
        return adamw(self.network, self.row, self.lr, self.backbone_lr_factor, self.weight_decay)

    def trainable_fraction(self) -> float:
        """Share of the parameters that are being trained, in (0, 1]."""
        trained = sum(p.numel() for p in self.network.parameters() if p.requires_grad)
        return trained / sum(p.numel() for p in self.network.parameters())

    def header(self) -> Header:
        """What a checkpoint written now says of itself."""
        return Header(
            backbone=self.backbone,
            image_size=self.image_size,
            mean=MEAN,
            std=STD,
            threshold=self.operating_point.threshold,
            temperature=self.operating_point.temperature,
            **self.description,
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Let the checkpoint describe itself."""
        if self.description:
            checkpoint[KEY] = self.header().to_plain()
        else:
            point = {"threshold": self.operating_point.threshold, "temperature": self.operating_point.temperature}
            checkpoint[KEY] = {
                "undescribed": "it was trained without LeafDataModule and LeafClassifier.describe",
                **point,
            }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up the operating point, and what the checkpoint says of itself where nothing else was said.

        Raises:
            CheckpointError: Its positive class is not that of the photographs.
        """
        rename_monitors(checkpoint)
        plain = checkpoint[KEY]
        self.operating_point = OperatingPoint(plain["threshold"], plain["temperature"])
        if "undescribed" in plain:
            return
        self.description = self.description or {name: plain[name] for name in DESCRIBED}
        trainer = attached_trainer(self)
        photographs = None if trainer is None else described_photographs(trainer)
        positive = None if photographs is None else photographs.photographs.positive_class
        if positive not in (None, plain["positive_class"]):
            known = plain["positive_class"]
            message = f"The positive class is {known} in this checkpoint, {positive} in these photographs."
            raise CheckpointError(message, "positive-class-of-other-checkpoint", found=positive, expected=known)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """As torch does it; the pretrained weights are not laid over these when fitting starts."""
        self.has_weights = True
        return super().load_state_dict(state_dict, strict, assign)

    def on_train_start(self) -> None:
        """Give every group its own learning rate again where LearningRateFinder has set one for all of them."""
        groups = self.trainer.optimizers[0].param_groups
        if all(group["lr"] == self.lr for group in groups):
            for group in groups[1:]:
                group["lr"] = self.lr * self.backbone_lr_factor

    def on_fit_end(self) -> None:
        """Give the memory back."""
        self.feature_cache.clear()

    def prepared(self, images: Tensor) -> Tensor:
        """Images (n, 3, s, s) as the network takes them: normalised here, on the device, if they are uint8."""
        images = images.contiguous(memory_format=torch.channels_last)
        # The buffer's type is that of the weights, whatever trainer.precision made them.
        return images if images.is_floating_point() else self.normalization(images).to(self.pos_weight.dtype)

    def _features(self, batch: Batch) -> Tensor:
        """Output of the frozen part, computed once until more is unfrozen."""
        images = batch["image"]
        if not self.trunk.frozen:
            return self.prepared(images)
        key, device = self.trunk.key(images.device), images.device
        return self.feature_cache.get(batch["path"], key, lambda: self.trunk.exact(self.prepared(images)), device)

    def _scores(self, stage: Stage) -> EpochScores:
        return cast(EpochScores, self.scores[f"{stage}_"])

    def _log_scores(self, stage: Stage) -> Epoch:
        epoch = self._scores(stage).finish(self.pos_weight)
        for name, value in epoch.values.items():  # those of all ranks already
            self.log(name, value, prog_bar=name in ("val_loss", "val_auroc"))
        return epoch


def adamw(
    network: nn.Module, row: Backbone, lr: float, backbone_lr_factor: float, weight_decay: float
) -> torch.optim.AdamW:
    """AdamW over all parameters, frozen ones too, which it passes over as long as they have no gradient.

    Args:
        network: The network of that row.
        row: Where its stages are; all else is its head.
        lr: Learning rate of the head.
        backbone_lr_factor: That of the stages as a share of the head's.
        weight_decay: Of all groups.
    """
    groups: list[dict[str, Any]] = [{"name": "head", "lr": lr, "params": []}]
    for stage in row.stages:
        parameters = [p for path in stage for p in network.get_submodule(path).parameters()]
        groups.append({"name": stage[0], "lr": lr * backbone_lr_factor, "params": parameters})
    in_stages = {id(p) for group in groups for p in group["params"]}
    groups[0]["params"] = [p for p in network.parameters() if id(p) not in in_stages]
    # One kernel over all parameters instead of several for each.
    optimizer = torch.optim.AdamW(groups, weight_decay=weight_decay, fused=True)
    leave_scaling(optimizer)
    return optimizer


def check_callbacks(trainer: Trainer) -> None:
    """Refuse callbacks that would spoil a classifier without a word.

    Raises:
        TrainingError: There is one.
    """
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # set by a connector
    if any(isinstance(callback, StochasticWeightAveraging) for callback in callbacks):
        raise TrainingError(
            "StochasticWeightAveraging cannot be used: it computes the statistics of BatchNorm layers anew, which this "
            "classifier holds as they were pretrained.",
            "averaging-refused",
        )
