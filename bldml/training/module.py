"""LeafClassifier: backbone with one logit, loss, metrics, parameter groups and unfreezing."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, Literal, TypedDict, cast

import numpy as np
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.func import functional_call

from bldml.dataset.images import Decode
from bldml.dataset.samples import SPLITS
from bldml.errors import CheckpointError, ConfigError
from bldml.metrics.operating_point import BEST_F1, OperatingPoint, choose_operating_point
from bldml.training.backbones import BackboneName, EnsembleName, TimmName, build, checked_image_size, row_of, steps_of
from bldml.training.checkpoint import (
    DESCRIBED,
    KEY,
    LARGEST_SIDE,
    Header,
    describing_datamodule,
    header_of,
    rename_monitors,
    software_versions,
)
from bldml.training.lightning_internals import attached_trainer, is_batchnorm, leave_scaling
from bldml.training.networks.logistic import check_logistic, keep_within, kept_step
from bldml.training.networks.row import Unit, parameters_of, set_part
from bldml.training.networks.settings import HeadName, check_settings, check_sides, refuse_averaging
from bldml.training.process import default_seed, exact_arithmetic
from bldml.training.scores import EpochScores, weighted_loss
from bldml.training.transforms import Normalization
from bldml.training.trunk import FeatureCache, Trunk, inputs_of
from bldml.training.weights import load_pretrained

# Until a validation has chosen one.
NO_POINT = OperatingPoint(threshold=0.5, temperature=1.0)


class Batch(TypedDict):
    """Images uint8 (n, 3, s, s), labels int64 (n,) with 1 for positive, names and groups of the photographs."""

    image: Tensor
    label: Tensor
    path: list[str]
    group: list[str]


class LeafClassifier(LightningModule):
    """Binary classifier: a pretrained backbone with a head that outputs one logit (is this leaf diseased?).

    Args:
        backbone: Architecture.
        weights: Initial weights: imagenet (torchvision's, downloaded once), none (random), or a file with a state dict.
        image_size: Side of the input image in pixels; null for the backbone's default.
        lr: Learning rate of the head.
        backbone_lr_factor: Learning rate of the backbone divided by that of the head.
        weight_decay: Weight decay of AdamW.
        pos_weight: Positive class weight in the loss: none, auto (negatives per positive in the training split), or a
            number.
        head: Layers trained from the first epoch: the new last layer (last_layer or linear), or also the linear layer
            before it (whole_classifier; only mobilenet_v3_large has one). With logistic, nothing is trained by
            gradient steps: the last layer is fitted once as a logistic regression on the frozen backbone's features.
        frozen_mode: Mode of frozen stages during training: eval, or train. In train mode, dropout and stochastic depth
            are active, and with freeze_batchnorm false BatchNorm uses batch statistics and updates its running ones.
        freeze_batchnorm: Always keep the backbone's BatchNorm layers in evaluation mode, with the running statistics of
            the pretrained weights.
        feature_cache: Memory in GiB, at least 0, for caching the frozen backbone's output on the validation
            photographs, which is the same in every epoch until more layers are unfrozen. 0 turns the cache off.
        compile: Use torch.compile; the first epoch, and the first after each unfreezing, takes a minute longer.
        seed: Seed of dropout and stochastic depth (set by seed_everything).
    """

    def __init__(
        self,
        backbone: BackboneName | TimmName | EnsembleName = "efficientnet_v2_s",
        weights: str = "imagenet",
        image_size: int | None = None,
        lr: float = 1e-3,
        backbone_lr_factor: float = 0.1,
        weight_decay: float = 1e-4,
        pos_weight: float | Literal["none", "auto"] = "none",
        head: HeadName = "last_layer",
        frozen_mode: Literal["eval", "train"] = "eval",
        freeze_batchnorm: bool = True,
        feature_cache: float = 2.0,
        compile: bool = False,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        # load_from_checkpoint builds the same network from these. Plain values, so that it can use weights_only.
        self.save_hyperparameters(logger=False)
        self.seed = default_seed() if seed is None else seed
        plain = {"backbone": str(backbone), "weights": str(weights), "seed": self.seed}
        self.hparams.update({name: value for name, value in plain.items() if name in self.hparams})
        self.image_size = checked_image_size(backbone, image_size, LARGEST_SIDE)
        self.row = row_of(backbone)
        if head == "whole_classifier":
            self.row = self.row.with_whole_classifier()
        rates = {"lr": lr, "backbone_lr_factor": backbone_lr_factor, "weight_decay": weight_decay}
        words = {"pos_weight": pos_weight, "head": head, "frozen_mode": frozen_mode}
        check_settings(LeafClassifier.__init__, rates | {"feature_cache": feature_cache}, words)
        self.backbone, self.weights = str(backbone), weights
        self.freeze_batchnorm, self.frozen_mode = freeze_batchnorm, frozen_mode
        self.lr, self.backbone_lr_factor, self.weight_decay = lr, backbone_lr_factor, weight_decay
        self.pos_weight_rule = pos_weight
        self.criterion = BEST_F1
        self.design_effect = 1.0
        # On the CPU, channels_last makes bf16 convolutions about twice as fast; on a GPU fp16 ones.
        self.network = build(backbone, self.image_size).to(memory_format=torch.channels_last)
        self.trunk = Trunk(steps_of(self.network, self.row), compiled=compile, folded=bool(self.row.steps))
        self.feature_cache = FeatureCache(int(feature_cache * 2**30))
        self.register_buffer("pos_weight", torch.ones(()))
        self.pos_weight: Tensor
        self.normalization = Normalization(self.row.mean, self.row.std)
        self.scores = nn.ModuleDict({f"{split}_": EpochScores(split) for split in SPLITS})
        self.kept = keep_within(self._scores("train")) if head == "logistic" else None
        self.operating_point = NO_POINT
        self.decode: Decode = "full"
        self.description: dict[str, Any] = {}
        self._is_described = False
        # Whether the initial weights are in place: pretrained, of a checkpoint, or random as requested.
        self.has_weights = weights == "none"
        self.unfreeze(0)

    def load_pretrained(self) -> None:
        """Load the pretrained weights into the backbone; download them if they are missing."""
        load_pretrained(self.network, self.backbone, self.weights)
        self.has_weights = True

    def describe(self, **description: Any) -> None:
        """Set what the module cannot know: class names, positive class and the other data fields of a `Header`.

        Not needed with a `LeafDataModule`: the module then asks it.
        """
        self.description, self._is_described = {"versions": software_versions(), **description}, True

    def setup(self, stage: str) -> None:
        """Get from the data module what `describe` and `balance` did not set; check that everything fits together.

        Raises:
            TrainingError: Data module or callbacks do not fit, or the pretrained weights are not available.
            CheckpointError: The header that checkpoints would have is invalid.
        """
        datamodule = describing_datamodule(self.trainer)
        if datamodule is not None:
            check_sides(self.image_size, datamodule.image_size)
        if stage != "fit":
            return
        refuse_averaging(self.trainer)
        if self.kept is not None:
            check_logistic(self.trainer)
        if not self.has_weights:
            self.load_pretrained()
        if datamodule is not None and not self._is_described:
            self.description = {"versions": software_versions(), **datamodule.describe()}
            own = {"precision": str(self.trainer.precision), "operating_point": vars(self.criterion)}
            self.description["settings"] |= own
            self.balance(*datamodule.photographs.class_counts())
            if assured := datamodule.photographs.best_assurance(self.criterion):
                self.design_effect = assured.design_effect
        if self.description:
            try:
                header_of(asdict(self.header()))
            except (TypeError, ValueError, KeyError) as error:
                message = f"The header of this classifier's checkpoints would be invalid: {error}."
                raise CheckpointError(message, "description-wrong", reason=str(error)) from error

    def balance(self, negatives: int, positives: int) -> None:
        """Set the positive class weight of the loss by the rule `pos_weight` from the numbers of photographs."""
        rule = self.pos_weight_rule
        value = 1.0 if rule == "none" else negatives / positives if rule == "auto" else float(rule)
        self.pos_weight.fill_(value)

    def unfreeze(self, depth: int | None = None, unit: Unit = "stages") -> "LeafClassifier":
        """Unfreeze the parts nearest the head and freeze the others; set every module's mode.

        Stateless: the result depends only on the arguments, so a resumed run has nothing to restore.

        Args:
            depth: Number of parts to unfreeze, from 0 (only the head is trained) to all of them; None for all.
            unit: Kind of parts: stages, or the smaller blocks.

        Raises:
            ConfigError: The backbone has fewer parts.
        """
        parts = self.row.parts(unit)
        depth = len(parts) if depth is None else depth
        if not 0 <= depth <= len(parts):
            message = f"{depth} {unit} cannot be unfrozen: {self.backbone} has {len(parts)} (0 trains only the head)."
            raise ConfigError(message, "depth-too-large", found=depth, expected=len(parts))
        self.network.train().requires_grad_(True)
        for number, part in enumerate(parts):
            trains = number < depth
            set_part(self.network, part, trains=trains, training=trains or self.frozen_mode == "train")
        if self.freeze_batchnorm:
            for module in self.network.modules():
                if is_batchnorm(module):
                    module.eval()
        self.trunk.split()
        return self

    def evaluate(self, images: Tensor) -> Tensor:
        """Return logits float32 (n,) of images as `forward`, computed in float32 whatever `trainer.precision` is.

        Every published number comes from here: of an evaluation, a prediction, an explanation or an export.
        """
        with exact_arithmetic(images.device.type):
            if self.pos_weight.dtype == torch.float32:
                logits: Tensor = self.network(self.prepared(images))
            else:  # a training in true 16 or 64 bits has converted its weights, and the constants of the normalisation
                plain_norm = Normalization(self.row.mean, self.row.std).to(images.device)
                prepared = plain_norm(images.contiguous(memory_format=torch.channels_last))
                plain = {name: value.float() for name, value in self.network.state_dict(keep_vars=True).items()}
                logits = functional_call(self.network, plain, (prepared,))
            return logits.squeeze(1)

    def normalize_by(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Normalise images by these, of each channel: those of a checkpoint, whatever the row says now."""
        self.row = replace(self.row, mean=tuple(mean), std=tuple(std))
        self.normalization = Normalization(mean, std).to(self.pos_weight.device, self.pos_weight.dtype)

    @property
    def last_layer(self) -> nn.Module:
        """The layer that makes logits from features."""
        return self.network.get_submodule(self.row.head)

    def evaluate_with_features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits of `evaluate`, and the features that the last layer makes them from, float32 (n, d)."""
        with inputs_of(self.last_layer) as features:
            return self.evaluate(images), torch.cat(features)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits float32 (n,) of images (n, 3, s, s): uint8, or floating point and already normalised."""
        logits: Tensor = self.network(self.prepared(images))
        return logits.squeeze(1).float()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of a batch."""
        if self.kept is not None:
            return kept_step(self, self.kept, batch)
        # Dropout and stochastic depth depend only on the batch, not on random numbers drawn before. One step may
        # accumulate several batches.
        entropy = np.random.SeedSequence([self.seed, self.global_step, batch_idx, self.global_rank])
        torch.manual_seed(int(entropy.generate_state(1)[0]))
        logits = self.trunk.logits(self.trunk.features(self.prepared(batch["image"]))).squeeze(1).float()
        self._scores("train").add(logits, batch["label"])
        return weighted_loss(logits, batch["label"], self.pos_weight)

    def validation_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return logits float32 (n,)."""
        trainer = attached_trainer(self)
        if trainer is not None and trainer.state.fn == TrainerFn.FITTING:
            logits = self._validated(batch)
        else:
            logits = self.evaluate(batch["image"])
        self._scores("val").add(logits, batch["label"])
        return logits

    def test_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return logits float32 (n,)."""
        logits = self.evaluate(batch["image"])
        self._scores("test").add(logits, batch["label"])
        return logits

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return logits float32 (n,)."""
        return self.evaluate(batch["image"])

    def on_train_epoch_start(self) -> None:
        """Reset the operating point: it belongs to the weights of the previous epoch."""
        self.operating_point = NO_POINT

    def on_train_epoch_end(self) -> None:
        """Log the epoch's training metrics."""
        self._log_scores("train")

    def on_validation_epoch_end(self) -> None:
        """Log the validation metrics and choose the operating point."""
        logits, labels = self._log_scores("val")
        # A diverged model has no operating point; early stopping ends such a run.
        self.operating_point = NO_POINT
        if bool(logits.isfinite().all()):
            # The weighted loss shifted the logits by this much; without it, probabilities have the true prevalence.
            offset = math.log(float(self.pos_weight))
            self.operating_point = choose_operating_point(
                logits.cpu().numpy(), labels.cpu().numpy(), self.criterion, offset, self.design_effect
            )

    def on_test_epoch_end(self) -> None:
        """Log the test metrics."""
        self._log_scores("test")

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return AdamW with one named group for the head and one for each stage, the same in all epochs."""
        groups: list[dict[str, Any]] = []
        for stage in self.row.stages:
            parameters = [*parameters_of(self.network, stage)]
            groups.append({"name": stage[0], "lr": self.lr * self.backbone_lr_factor, "params": parameters})
        in_stages = {id(p) for group in groups for p in group["params"]}
        head = [p for p in self.network.parameters() if id(p) not in in_stages]
        # Fused: one kernel over all parameters instead of several for each. Frozen ones are skipped: no gradient.
        optimizer = torch.optim.AdamW(
            [{"name": "head", "lr": self.lr, "params": head}, *groups], weight_decay=self.weight_decay, fused=True
        )
        if self.kept is not None:
            for group in optimizer.param_groups:
                group["lr"] = 0.0
        leave_scaling(optimizer)
        return optimizer

    def trainable_fraction(self) -> float:
        """Return the fraction of the parameters that is being trained, in (0, 1]."""
        trained = sum(p.numel() for p in self.network.parameters() if p.requires_grad)
        return trained / sum(p.numel() for p in self.network.parameters())

    def header(self) -> Header:
        """Return the header of a checkpoint written now."""
        return Header(
            backbone=self.backbone,
            image_size=self.image_size,
            mean=self.row.mean,
            std=self.row.std,
            decode=self.decode,
            **asdict(self.operating_point),
            **self.description,
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the header to the checkpoint."""
        reason = "it was trained without LeafDataModule and LeafClassifier.describe"
        undescribed = {"undescribed": reason, **asdict(self.operating_point)}
        checkpoint[KEY] = asdict(self.header()) if self.description else undescribed

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the operating point, and the description unless `describe` has set one.

        A CheckpointError if the checkpoint's positive class is not that of the photographs.
        """
        rename_monitors(checkpoint)
        plain = checkpoint[KEY]
        self.operating_point = OperatingPoint(plain["threshold"], plain["temperature"], plain.get("offset", 0.0))
        self.normalize_by(plain.get("mean", self.row.mean), plain.get("std", self.row.std))
        if (trainer := attached_trainer(self)) is None or trainer.state.fn != TrainerFn.FITTING:
            self.decode = plain.get("decode", "reduced")
        if "undescribed" in plain:
            return
        self.description = self.description or {name: plain[name] for name in DESCRIBED}
        datamodule = describing_datamodule(attached_trainer(self))
        positive = None if datamodule is None else datamodule.photographs.positive_class
        known = plain["positive_class"]
        if positive not in (None, known):
            message = f"The positive class is {known} in this checkpoint, {positive} in these photographs."
            raise CheckpointError(message, "positive-class-of-other-checkpoint", found=positive, expected=known)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load a state dict like torch; a fit then does not replace it with the pretrained weights."""
        self.has_weights = True
        return super().load_state_dict(state_dict, strict, assign)

    def on_train_start(self) -> None:
        """Set each group's own learning rate if LearningRateFinder has set the same one for all groups."""
        groups = self.trainer.optimizers[0].param_groups
        if all(group["lr"] == self.lr for group in groups):
            for group in groups[1:]:
                group["lr"] = self.lr * self.backbone_lr_factor

    def on_fit_end(self) -> None:
        """Free the memory of the feature cache."""
        self.feature_cache.clear()

    def prepared(self, images: Tensor) -> Tensor:
        """Return images (n, 3, s, s) as the network needs them: uint8 ones are normalised here, on the device."""
        images = images.contiguous(memory_format=torch.channels_last)
        # The buffer has the type of the weights, which trainer.precision sets.
        return images if images.is_floating_point() else self.normalization(images).to(self.pos_weight.dtype)

    def _validated(self, batch: Batch) -> Tensor:
        """Return what `evaluate` does, with the output of the frozen part computed once until more is unfrozen."""
        images = batch["image"]
        if not self.trunk.frozen or self.pos_weight.dtype != torch.float32:
            return self.evaluate(images)
        with exact_arithmetic(images.device.type):
            key, device = self.trunk.key(images.device), images.device
            exact = self.feature_cache.get(batch["path"], key, lambda: self.trunk.exact(self.prepared(images)), device)
            return self.trunk.logits(exact).squeeze(1)

    def _scores(self, split: str) -> EpochScores:
        return cast(EpochScores, self.scores[f"{split}_"])

    def _log_scores(self, split: str) -> tuple[Tensor, Tensor]:
        """Log the metrics of the epoch; return its logits and labels."""
        values, logits, labels = self._scores(split).finish(self.pos_weight)
        for name, value in values.items():  # already reduced over all ranks
            self.log(name, value, prog_bar=name in ("val_loss", "val_auroc"))
        return logits, labels
