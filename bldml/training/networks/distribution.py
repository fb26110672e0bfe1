"""The distribution of the training photographs, or those of the networks of an ensemble, as a checkpoint holds it."""

import math
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bldml.metrics.certainty.novelty import AnyNovelty, JointNovelty, Novelty

_WRONG = "the distribution of the training photographs invalid"
_PARTS = "parts"
_OF_JOINT = ("limit", "rate", "n_train", "n_val")


def plain_novelty(novelty: AnyNovelty) -> dict[str, Any]:
    """Return the fields in types that load with `weights_only=True`: tensors, numbers, lists and tables."""
    if isinstance(novelty, JointNovelty):
        own = {name: getattr(novelty, name) for name in _OF_JOINT}
        return own | {_PARTS: [plain_novelty(part) for part in novelty.parts]}
    values = {field.name: getattr(novelty, field.name) for field in fields(Novelty)}
    return {name: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for name, v in values.items()}


def novelty_of(plain: Any, width: tuple[int, ...] | None) -> AnyNovelty:
    """Return what `plain_novelty` made.

    Args:
        plain: From a checkpoint.
        width: Number of features of the network; None if it is not known.

    Raises:
        TypeError, ValueError, KeyError: It is something else, or does not fit the network.
    """
    if not isinstance(plain, dict):
        raise TypeError(f"{_WRONG}: not a table")
    found = _joint(plain) if _PARTS in plain else _single(plain)
    numbers = found.limit, found.rate
    good = (
        (width is None or width == (found.width,))
        and all(isinstance(number, float) and 0 < number < math.inf for number in numbers)
        and found.rate < 1
        and all(type(count) is int and 0 <= count < 2**63 for count in (found.n_train, found.n_val))
    )
    if not good:
        raise ValueError(_WRONG)
    return found


def _joint(plain: dict[str, Any]) -> JointNovelty:
    parts = [novelty_of(part, None) for part in plain[_PARTS] if isinstance(part, dict) and _PARTS not in part]
    found = tuple(part for part in parts if isinstance(part, Novelty))
    if len(found) < 2 or len(found) != len(plain[_PARTS]):
        raise ValueError(_WRONG)
    return JointNovelty(found, *(plain[name] for name in _OF_JOINT))


def _single(plain: dict[str, Any]) -> Novelty:
    values: dict[str, Any] = {field.name: plain[field.name] for field in fields(Novelty)}
    values = {name: value.detach().numpy() if isinstance(value, Tensor) else value for name, value in values.items()}
    novelty = Novelty(**values)
    arrays, d = (novelty.mean, novelty.basis, novelty.variances), np.size(novelty.mean)
    good = (
        all(isinstance(one, np.ndarray) and one.dtype == np.float32 and np.isfinite(one).all() for one in arrays)
        and (novelty.mean.shape, novelty.basis.shape) == ((d,), (len(novelty.variances), d))
        and isinstance(novelty.rest, float)
        and 0 < novelty.rest < math.inf
        and (novelty.variances > 0).all()
    )
    if not good:
        raise ValueError(_WRONG)
    return novelty
