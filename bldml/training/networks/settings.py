"""Checks of the classifier's settings, alone and together with trainer and data module."""

import math
from collections.abc import Callable, Mapping
from typing import Literal

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import StochasticWeightAveraging

from bldml.errors import ConfigError, TrainingError
from bldml.io.arguments import check_choices

# `linear` is another word for `last_layer`.
HeadName = Literal["last_layer", "linear", "whole_classifier", "logistic"]


def check_settings(owner: Callable[..., None], numbers: Mapping[str, float], words: Mapping[str, object]) -> None:
    """Raise a ConfigError unless the numbers are finite and at least 0, the words known, and the weight above 0.

    Both are values of parameters of `owner`, by name.
    """
    for name, value in numbers.items():
        if not (math.isfinite(value) and value >= 0):
            message = f"model.{name} must be a finite number of at least 0, not {value}."
            raise ConfigError(message, "model-number-wrong", key=name, found=value, expected=0)
    check_choices("model", owner, words)
    pos_weight = words["pos_weight"]
    if isinstance(pos_weight, float | int) and not (math.isfinite(pos_weight) and pos_weight > 0):
        message = f"model.pos_weight must be none, auto or a number above 0, not {pos_weight}."
        raise ConfigError(message, "pos-weight-wrong", found=pos_weight)


def check_sides(expected: int, found: int | None) -> None:
    """Raise a TrainingError unless the data module makes images of the classifier's side, in pixels, or of any."""
    if found not in (None, expected):
        message = f"The classifier needs images of {expected} px, but the data module makes images of {found} px. "
        message += "Set the same image_size for both, or none for the data module."
        raise TrainingError(message, "image-sizes-differ", found=found, expected=expected)


def refuse_averaging(trainer: Trainer) -> None:
    """Raise a TrainingError if a callback recomputes the statistics of BatchNorm layers."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # set by a connector
    if any(isinstance(callback, StochasticWeightAveraging) for callback in callbacks):
        message = "StochasticWeightAveraging cannot be used: it recomputes the statistics of BatchNorm layers, "
        message += "which this classifier keeps as pretrained."
        raise TrainingError(message, "averaging-refused")
