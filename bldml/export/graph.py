"""All that an exported file computes: photographs in, the calibrated probability out."""

import torch
from torch import Tensor, nn

from bldml.training.checkpoint import Header
from bldml.training.module import LeafClassifier

INPUT = "image"
OUTPUTS = ("probability",)
"""Names of what `ExportedGraph.forward` returns, in its order. One more output is one more name and one more value."""


class ExportedGraph(nn.Module):
    """The classifier with everything that comes before and after its network, in float32.

    Args:
        model: The classifier with its weights. It is put into evaluation mode.
        header: Description of its checkpoint, for temperature and offset.
    """

    def __init__(self, model: LeafClassifier, header: Header) -> None:
        super().__init__()
        model.eval()
        self.normalization = model.normalization
        self.network = model.network
        self.point = header.operating_point

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs, one for each of `OUTPUTS`: float32 (n,).

        Args:
            image: uint8 (n, s, s, 3), red, green and blue: the whole upright photograph, resized to a square.
        """
        logit = self.network(self.normalization(image.permute(0, 3, 1, 2))).squeeze(1)
        return (torch.sigmoid((logit - self.point.offset) / self.point.temperature),)
