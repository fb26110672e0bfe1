"""The optimizer: one named group for the head and one for each stage, from the first step to the last."""

from typing import Any

import torch
from torch import nn

from bldml.training.backbones import Backbone


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
    # It could undo the gradient scaler's factor by itself, but then Lightning could not clip before.
    optimizer._step_supports_amp_scaling = False
    return optimizer
