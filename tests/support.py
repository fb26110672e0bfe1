"""Names that several test files use."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bldml.errors import BldmlError

REPOSITORY = Path(__file__).parent.parent
SHARED = REPOSITORY.parent / "shared"
# An audit without the search for look-alikes and the planted copies, which take longest.
ALONE = ("--power=off", "--look_alikes=off")
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
# The same of a network that only tests have: see three_layers.py.
THREE_LAYERS = ("--model.backbone=three_layers", *SMALL[1:])


@dataclass(frozen=True)
class Outcome:
    """What a command line came to."""

    code: int
    out: str
    err: str
    error: BldmlError | None = None  # the mistake that `err` ends with

    @property
    def mistake(self) -> str | None:
        """The mistake's code; None if there was none, or its exit code is not the one that the command ended with."""
        return self.error.code if self.error and self.error.exit_code == self.code else None

    @property
    def fields(self) -> dict[str, Any]:
        """The values that the mistake names."""
        return self.error.fields if self.error else {}


Bldml = Callable[..., Outcome]


@contextmanager
def mistake(code: str, **fields: Any) -> Iterator[pytest.ExceptionInfo[BldmlError]]:
    """Expect a mistake with this code, and with these values among its fields."""
    with pytest.raises(BldmlError) as raised:
        yield raised
    assert raised.value.code == code
    assert {name: raised.value.fields.get(name) for name in fields} == fields


class Hostile:
    """Writes a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.file,)
