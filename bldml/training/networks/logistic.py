"""A head that is fitted to convergence on features of the frozen backbone: L2-regularised logistic regression."""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_info
from numpy.typing import NDArray
from torch import Tensor, nn
from torchmetrics import CatMetric

from bldml.errors import ConfigError, TrainingError

# Strengths of the penalty, λ in mean weighted cross-entropy + λ/2 |w|², for standardised features; strongest first.
STRENGTHS = tuple(float(10.0**exponent) for exponent in np.arange(1, -5.5, -0.5))
DEFAULT_STRENGTH = 0.1  # where too few groups leave no inner validation
MOST_FOLDS, MOST_ITERATIONS = 5, 2000


@dataclass(frozen=True)
class FittedHead:
    """A linear layer with one output, and how its penalty was chosen."""

    weight: NDArray[np.float64]  # (d,)
    bias: float
    strength: float  # of the penalty
    folds: int  # of the inner validation; 0 if there was none
    losses: tuple[float, ...]  # of the inner validation at each of `STRENGTHS`; empty if there was none


class KeptFeatures(nn.Module):
    """Features, labels and groups of the training photographs of one epoch; kept in a checkpoint like its metrics."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.labels, self.groups = (CatMetric("disable") for _ in range(3))

    def add(self, features: Tensor, labels: Tensor, groups: Sequence[str]) -> None:
        """Add a batch: features float32 (n, d), labels (n,), sampling units of the photographs."""
        self.features.update(features)
        self.labels.update(labels)
        # Numbers below 2**24 are exact in float32. Two groups of the same number stay together, which does no harm.
        numbers = [zlib.crc32(group.encode("utf-8", "surrogatepass")) % 2**24 for group in groups]
        self.groups.update(torch.tensor(numbers, device=labels.device))

    def take(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return features float32 (n, d), labels int64 (n,) and groups int64 (n,) of all batches, and forget them."""
        labels, groups = self.labels.compute().reshape(-1).long(), self.groups.compute().reshape(-1).long()
        features = self.features.compute().reshape(len(labels), -1)
        for metric in (self.features, self.labels, self.groups):
            metric.reset()
        return features, labels, groups


def keep_within(scores: nn.Module) -> KeptFeatures:
    """Return kept features that are part of the training's scores, which a checkpoint within an epoch holds."""
    kept = KeptFeatures()
    scores.add_module("kept", kept)
    return kept


def fit_head(
    features: NDArray[Any], labels: NDArray[Any], groups: NDArray[Any], pos_weight: float, seed: int
) -> FittedHead:
    """Fit a logistic regression, with the penalty that an inner validation by group finds best.

    Args:
        features: (n, d), finite.
        labels: (n,), 1 for positive; both classes.
        groups: (n,); photographs of one group are never on both sides of the inner validation.
        pos_weight: Weight of positives in the loss, above 0.
        seed: Of the folds of the inner validation.

    Raises:
        TrainingError: Features are not finite, or there is only one class.
    """
    x, y = features.astype(np.float64), labels.astype(np.int64)
    if not np.isfinite(x).all() or len(np.unique(y)) != 2:
        message = "The head cannot be fitted: the features of the training photographs are not finite, or only one "
        message += "class is left."
        raise TrainingError(message, "head-not-fittable", found=len(y))
    weights = np.where(y == 1, pos_weight, 1.0)
    folds = list(_folds(y, groups, seed))
    losses = np.zeros(len(STRENGTHS))
    for inner, outer in folds:
        for number, (weight, bias) in enumerate(_path(x[inner], y[inner], weights[inner], STRENGTHS)):
            logits = x[outer] @ weight + bias
            # Cross-entropy, summed over each photograph once.
            losses[number] += weights[outer] @ np.logaddexp(0, np.where(y[outer] == 1, -logits, logits))
    losses /= weights.sum()
    best = int(losses.argmin()) if folds else STRENGTHS.index(_nearest(DEFAULT_STRENGTH))
    *_, (weight, bias) = _path(x, y, weights, STRENGTHS[: best + 1])
    return FittedHead(weight, bias, STRENGTHS[best], len(folds), tuple(losses.tolist()) if folds else ())


def _nearest(strength: float) -> float:
    return min(STRENGTHS, key=lambda one: float(abs(np.log(one / strength))))


def _folds(y: NDArray[Any], groups: NDArray[Any], seed: int) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Yield the indices to fit on and to validate on, of as many folds as both classes have groups for."""
    from sklearn.model_selection import StratifiedGroupKFold

    count = min(MOST_FOLDS, *(len(np.unique(groups[y == label])) for label in (0, 1)))
    if count < 2:
        return
    splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed % 2**32)
    for inner, outer in splitter.split(y, y, groups):
        if len(np.unique(y[inner])) == 2:
            yield inner, outer


def _path(
    x: NDArray[np.float64], y: NDArray[Any], weights: NDArray[np.float64], strengths: Sequence[float]
) -> Iterator[tuple[NDArray[np.float64], float]]:
    """Yield weights (d,) and bias for features as given, at each penalty on standardised ones, each from the last."""
    from sklearn.linear_model import LogisticRegression

    mean, deviation = x.mean(0), x.std(0)
    deviation[deviation < 1e-12 * max(1.0, float(np.abs(x).max()))] = 1.0  # a feature that never changes
    standardised = (x - mean) / deviation
    model = LogisticRegression(tol=1e-6, max_iter=MOST_ITERATIONS, warm_start=True)
    for strength in strengths:
        # scikit-learn's penalty is beside the sum of the losses, not the mean.
        model.set_params(C=1 / (strength * weights.sum()))
        model.fit(standardised, y, sample_weight=weights)
        weight = model.coef_[0] / deviation
        yield weight, float(model.intercept_[0] - weight @ mean)


def fit_last_layer(
    layer: nn.Module, kept: KeptFeatures, pos_weight: float, seed: int, *, is_trial: bool = False
) -> tuple[Tensor, Tensor]:
    """Fit the last layer on kept features; return its logits float32 (n,) for them, and their labels.

    In a trial (`fast_dev_run`), whose one batch may hold one class, the layer then stays as it is.

    Raises:
        TrainingError: As `fit_head`.
    """
    features, labels, groups = kept.take()
    if is_trial and len(set(labels.tolist())) != 2:
        with torch.no_grad():
            return layer(features).squeeze(1), labels
    found = fit_head(features.cpu().numpy(), labels.cpu().numpy(), groups.cpu().numpy(), pos_weight, seed)
    assert isinstance(layer, nn.Linear)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(found.weight)[None])
        layer.bias.fill_(found.bias)
        logits = layer(features).squeeze(1)
    chosen = f"chosen by {found.folds} folds" if found.folds else "the default, because too few groups allow no choice"
    rank_zero_info(
        f"Head: logistic regression on {features.shape[1]} features of {len(labels)} training photographs; "
        f"L2 penalty {found.strength:.2g}, {chosen}."
    )
    return logits, labels


def _units(trainer: Trainer, names: Sequence[str], groups: Sequence[str]) -> list[str]:
    """Return the sampling unit of each photograph: its group, else its burst if bursts are known, else itself."""
    photographs = getattr(getattr(trainer, "datamodule", None), "photographs", None)
    bursts = getattr(photographs, "bursts", {})
    pairs = zip(names, groups, strict=True)
    return [f"group {group}" if group else f"burst {bursts.get(name) or name}" for name, group in pairs]


def kept_step(module: Any, kept: KeptFeatures, batch: Any) -> Tensor:
    """Keep the features of a training batch of a LeafClassifier; after the last one, fit the head on all.

    Returns a loss of 0, whose optimizer has the rate 0: so an epoch is counted as of every other training.
    """
    module.network.eval()
    with torch.no_grad():
        features = module.evaluate_with_features(batch["image"])[1]
        kept.add(features, batch["label"], _units(module.trainer, batch["path"], batch["group"]))
    if module.trainer.is_last_batch:
        settings, is_trial = (float(module.pos_weight), module.seed), bool(getattr(module.trainer, "fast_dev_run", 0))
        module.scores["train_"].add(*fit_last_layer(module.last_layer, kept, *settings, is_trial=is_trial))
    return torch.stack([0 * parameter.sum() for parameter in module.last_layer.parameters()]).sum()


def check_logistic(trainer: Trainer) -> None:
    """Check that a trainer and its data module leave all to the one fit of the head.

    Raises:
        ConfigError: There is more than one process, epoch or validation, or the photographs are augmented.
    """
    augmented = getattr(getattr(trainer, "datamodule", None), "augmentation", None)
    wrong = {
        "one process, which sees every photograph": trainer.world_size != 1,
        "trainer.max_epochs 1": trainer.max_epochs != 1 and not getattr(trainer, "fast_dev_run", False),
        "one validation, after the epoch (trainer.val_check_interval 1.0)": trainer.val_check_interval != 1.0,
        "trainer.precision 32-true or a mixed one": "true" in str(trainer.precision)
        and str(trainer.precision) != "32-true",
        "data.augmentation null": augmented is not None,
    }
    if needed := [text for text, is_wrong in wrong.items() if is_wrong]:
        message = f"model.head logistic, which is fitted once on features of every photograph, needs {needed[0]}."
        raise ConfigError(message, "logistic-refused", found=needed)
