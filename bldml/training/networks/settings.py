"""Checks of the classifier's settings."""

import math
from collections.abc import Mapping

from bldml.errors import ConfigError


def check_settings(numbers: Mapping[str, float], pos_weight: float | str) -> None:
    """Raise a ConfigError unless the numbers, by name, are finite and at least 0, and the weight a rule or above 0."""
    for name, value in numbers.items():
        if not (math.isfinite(value) and value >= 0):
            message = f"model.{name} must be a finite number of at least 0, not {value}."
            raise ConfigError(message, "model-number-wrong", key=name, found=value, expected=0)
    if isinstance(pos_weight, float | int) and not (math.isfinite(pos_weight) and pos_weight > 0):
        message = f"model.pos_weight must be none, auto or a number above 0, not {pos_weight}."
        raise ConfigError(message, "pos-weight-wrong", found=pos_weight)
