"""All that an exported file computes: photographs in, the calibrated probability out, and how unfamiliar they are."""

import torch
from torch import Tensor, nn

from bldml.inference.exported import DISTANCE, PROBABILITY
from bldml.metrics.certainty.novelty import Novelty
from bldml.training.checkpoint import Header
from bldml.training.module import LeafClassifier
from bldml.training.trunk import inputs_of

INPUT = "image"


def outputs_of(novelty: Novelty | None) -> list[str]:
    """Return the names of what `ExportedGraph.forward` returns, in its order."""
    return [PROBABILITY] if novelty is None else [PROBABILITY, DISTANCE]


class Distance(nn.Module):
    """`Novelty.distances` in float32: from features (n, d) to distances (n,) in multiples of the limit."""

    def __init__(self, novelty: Novelty) -> None:
        super().__init__()
        for name in ("mean", "basis", "variances"):
            self.register_buffer(name, torch.from_numpy(getattr(novelty, name).copy()))
        self.mean: Tensor
        self.basis: Tensor
        self.variances: Tensor
        self.rest, self.limit = novelty.rest, novelty.limit

    def forward(self, features: Tensor) -> Tensor:
        """Return the distances."""
        centred = features - self.mean
        along = centred @ self.basis.T
        # Not as a difference of two sums of squares, which in float32 would cancel.
        beside = centred - along @ self.basis
        squared = (along**2 / self.variances).sum(1) + (beside**2).sum(1) / self.rest
        return torch.sqrt(squared) / self.limit


class ExportedGraph(nn.Module):
    """The classifier with everything that comes before and after its network, in float32.

    Args:
        model: The classifier with its weights. It is put into evaluation mode.
        header: Description of its checkpoint, for temperature and offset.
        novelty: The distribution of its training photographs; None if not recorded.
    """

    def __init__(self, model: LeafClassifier, header: Header, novelty: Novelty | None) -> None:
        super().__init__()
        model.eval()
        self._last_layer = [model.last_layer]  # in a list, because it is in the network already
        self.distance = None if novelty is None else Distance(novelty)
        self.normalization = model.normalization
        self.network = model.network
        self.point = header.operating_point

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs, one for each name of `outputs_of`: float32 (n,).

        Args:
            image: uint8 (n, s, s, 3), red, green and blue: the whole upright photograph, resized to a square.
        """
        with inputs_of(self._last_layer[0]) as features:
            logit = self.network(self.normalization(image.permute(0, 3, 1, 2))).squeeze(1)
        probability = torch.sigmoid((logit - self.point.offset) / self.point.temperature)
        return (probability,) if self.distance is None else (probability, self.distance(features[0]))
