"""Names that several test files use."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent
SHARED = REPOSITORY.parent / "shared"
# The smallest fit that is still the real one.
SMALL = (
    "--model.backbone=mobilenet_v2_x0_35",
    "--model.weights=none",
    "--model.image_size=64",
    "--data.positive_class=BLD",
    "--data.num_workers=0",
    "--data.batch_size=8",
    "--trainer.accelerator=cpu",
    "--report=false",
)


@dataclass(frozen=True)
class Outcome:
    """What a command line came to."""

    code: int
    out: str
    err: str


Bldml = Callable[..., Outcome]
