"""The search space of an experiment: which options of fit vary, and between which values."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_LARGEST = 1e300
HIGHEST_SEED = 2**32 - 1
MOST_TRIALS = 10_000
KEYS = ("trials", "hours", "ranges", "pruning", "seed")


class WrongSpace(Exception):
    """What is wrong with the value of a key of `search`, in a sentence."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`; whole ones if both are whole. With `log`, uniform on a logarithmic scale."""

    low: float
    high: float
    log: bool = False

    @property
    def is_whole(self) -> bool:
        """Whether only whole numbers are proposed."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    @property
    def size(self) -> float:
        """Number of different values; inf for real numbers."""
        return self.high - self.low + 1 if self.is_whole else math.inf

    @property
    def written(self) -> dict[str, Any]:
        """The range as the experiment has it."""
        return {"low": self.low, "high": self.high, "log": self.log}

    def corner(self, number: int) -> float:
        """Return the low end for the number 0, else the high end."""
        return self.high if number else self.low


@dataclass(frozen=True)
class Choices:
    """One of several values, without an order."""

    values: tuple[Any, ...]

    @property
    def size(self) -> float:
        """Number of different values."""
        return len(self.values)

    @property
    def written(self) -> list[Any]:
        """The values as the experiment has them."""
        return list(self.values)

    def corner(self, number: int) -> Any:
        """Return the value of this number; the first one again after the last."""
        return self.values[number % len(self.values)]


Ranges = Mapping[str, Range | Choices]

# The five keys that matter most for a pretrained network: how fast the head and the backbone learn, how much of the
# backbone, from when on, and how much the photographs are varied.
DEFAULTS: Ranges = {
    "model.lr": Range(1e-4, 1e-2, log=True),
    "model.backbone_lr_factor": Range(0.01, 1.0, log=True),
    "unfreezing.stages": Range(0, 4),
    "unfreezing.start_epoch": Range(0, 6),
    "data.augmentation.strength": Range(0.0, 2.0),
}
# Whole numbers as ends, such as 0 and 2, would else mean 0, 1 and 2 alone.
_REAL = {*(key for key, one in DEFAULTS.items() if isinstance(one, Range) and not one.is_whole), "model.weight_decay"}
# Of `data`, only this changes nothing but the training.
_OF_TRAINING = ("data.batch_size", "data.augmentation")
_REFUSED = {
    "data": "trials must be compared on the same photographs, classes and splits; set it under options",
    "monitor": "trials are compared by its value; set it under options",
    "seed_everything": "seeds are replicates of a trial; write seeds: [1, 2]",
    "model.seed": "seeds are replicates of a trial; write seeds: [1, 2]",
    "operating_point": "the threshold is chosen after training, so no objective depends on it",
    "card": "it changes no result",
    "report": "it changes no result",
    "run_name": "the sweep names its runs",
    "resume": "the sweep resumes its runs itself",
    **dict.fromkeys(
        ("trainer.accelerator", "trainer.devices", "trainer.num_nodes", "trainer.strategy", "trainer.logger",
         "trainer.callbacks", "trainer.profiler", "trainer.default_root_dir", "trainer.log_every_n_steps",
         "trainer.enable_checkpointing", "trainer.enable_progress_bar", "trainer.enable_model_summary",
         "trainer.detect_anomaly", "trainer.benchmark"),
        "it is of the machine or of what is recorded, and is to change no result; set it under options",
    ),
    "trust_config": "it changes no result",
    "checkpoint_minutes": "it changes no result",
    "model.feature_cache": "it changes no result",
    "model.compile": "it changes no result",
    **dict.fromkeys(
        ("trainer.limit_val_batches", "trainer.overfit_batches", "trainer.fast_dev_run",
         "trainer.check_val_every_n_epoch", "trainer.val_check_interval"),
        "trials must be validated on the same photographs, once per epoch",
    ),
}  # fmt: skip
# With the training criterion as the objective, what changes the criterion.
_OF_LOSS = {"model.pos_weight": "val_loss is the training criterion with this weight, so its values are not comparable"}


@dataclass(frozen=True)
class Search:
    """What `search` of an experiment says.

    Args:
        trials: Number of trials of the study, at least 1, with those that are pruned or fail.
        ranges: The search space, by key of fit.
        hours: No trial begins when the runs of all trials have trained for so many hours together; None for no limit.
        pruning: Whether trials that are worse than the median are ended early.
        seed: Seed of the sampler.
    """

    trials: int
    ranges: Ranges = field(default_factory=lambda: DEFAULTS)
    hours: float | None = None
    pruning: bool = True
    seed: int = 0

    @property
    def identity(self) -> dict[str, Any]:
        """What must not change while a study goes on, as JSON keeps it."""
        space = {key: one.written for key, one in self.ranges.items()}
        return {"ranges": space, "pruning": self.pruning, "seed": self.seed}

    def corners(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield settings, with a name, that have both ends of each range and each choice at least once."""
        most = max((len(one.values) for one in self.ranges.values() if isinstance(one, Choices)), default=1)
        yield "the low ends of search.ranges", {key: one.corner(0) for key, one in self.ranges.items()}
        for number in range(1, most + 1):
            which = "" if most == 1 else f" and choice {number % most + 1}"
            yield (
                f"the high ends{which} of search.ranges",
                {key: one.corner(number) for key, one in self.ranges.items()},
            )


def read_search(content: Mapping[str, Any], given: Mapping[str, Any] | None, options: Mapping[str, Any]) -> Search:
    """Return the checked search.

    Args:
        content: The keys of `search`, all of them known.
        given: Its `ranges` by dotted key; None for the default ones, without those that `options` set.
        options: What all runs have in common.

    Raises:
        WrongSpace: A value cannot be.
    """
    for key in ("trials", "seed"):
        found = content.get(key, 0 if key == "seed" else None)
        low, high = (0, HIGHEST_SEED) if key == "seed" else (1, MOST_TRIALS)
        if type(found) is not int or not low <= found <= high:
            raise WrongSpace(key, f"search.{key} must be a whole number from {low} to {high}, not {found!r}.")
    hours = content.get("hours")
    if hours is not None and not (_is_number(hours) and hours > 0):
        raise WrongSpace("hours", f"search.hours must be a number above 0, not {hours!r}.")
    if not isinstance(pruning := content.get("pruning", True), bool):
        raise WrongSpace("pruning", f"search.pruning must be true or false, not {pruning!r}.")
    ranges: dict[str, Range | Choices] = {}
    if given is None:
        ranges = {key: one for key, one in DEFAULTS.items() if not _overlap(key, options)}
    for key, value in (given or {}).items():
        if other := _overlap(key, options):
            message = f"{key} is in search.ranges and {other} in options. An option either varies or is set."
            raise WrongSpace(f"ranges.{key}", message)
        if other := _overlap(key, ranges):
            raise WrongSpace(f"ranges.{key}", f"search.ranges has both {other} and {key}, which is part of it.")
        ranges[key] = _range(key, value)
    if not ranges:
        message = "search.ranges is empty. Write a range, such as model.lr: {low: 1e-4, high: 1e-2, log: true}."
        raise WrongSpace("ranges", message)
    trials = content["trials"]
    if (size := math.prod(one.size for one in ranges.values())) < trials:
        message = f"search.ranges has {size:.0f} different configurations, and trials is {trials}. Write them as a grid"
        raise WrongSpace("ranges", f"{message}, which does each once, or set fewer trials.")
    return Search(trials, ranges, None if hours is None else float(hours), pruning, content.get("seed", 0))


def check_comparable(ranges: Ranges, monitor: str, settings: Mapping[str, Any]) -> None:
    """Raise WrongSpace if trials of this space could not be compared by the best validation value of `monitor`.

    `settings` are those that all trials have in common; what they turn off cannot vary.
    """
    for key in ranges:
        if key.startswith("data.augmentation.") and settings.get("data.augmentation", key) is None:
            message = f"data.augmentation is null, so {key} cannot vary. Write other ranges as search.ranges, or "
            raise WrongSpace(f"ranges.{key}", f"{message}remove the null.")
    refused = _REFUSED | (_OF_LOSS if monitor == "val_loss" else {})
    for key in ranges:
        if not any(_is_within(key, one) for one in _OF_TRAINING):
            for name, why in refused.items():
                if _is_within(key, name) or _is_within(name, key):
                    raise WrongSpace(f"ranges.{key}", f"{key} cannot be in search.ranges: {why}.")


def ranges_of(written: Mapping[str, Any]) -> Ranges:
    """Return the search space that a plan has."""
    return {key: _range(key, value) for key, value in written.items()}


def _is_within(key: str, group: str) -> bool:
    return key == group or key.startswith(f"{group}.")


def _overlap(key: str, others: Mapping[str, Any]) -> str:
    return next((one for one in others if _is_within(key, one) or _is_within(one, key)), "")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _LARGEST


def _range(key: str, value: Any) -> Range | Choices:
    where = f"search.ranges.{key}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        if len(value) < 2:
            raise WrongSpace(f"ranges.{key}", f"{where} must be a list of at least two values, not {value!r}.")
        if len(value) > MOST_TRIALS:
            raise WrongSpace(f"ranges.{key}", f"{where} has {len(value):,} values, more than {MOST_TRIALS:,} trials.")
        if any(one in value[:number] for number, one in enumerate(value)):
            raise WrongSpace(f"ranges.{key}", f"{where} has a value twice.")
        return Choices(tuple(value))
    if not isinstance(value, Mapping) or not {"low", "high"} <= value.keys() <= {"low", "high", "log"}:
        message = f"{where} must be a range, such as {{low: 1e-4, high: 1e-2, log: true}}, or a list of values, not "
        raise WrongSpace(f"ranges.{key}", f"{message}{value!r}.")
    low, high, log = value["low"], value["high"], value.get("log", False)
    if not (_is_number(low) and _is_number(high)) or not isinstance(log, bool):
        raise WrongSpace(f"ranges.{key}", f"{where} needs numbers as low and high, and log: true or false.")
    if low >= high:
        raise WrongSpace(f"ranges.{key}", f"{where}: low must be below high, not {low} and {high}.")
    if log and low <= 0:
        raise WrongSpace(f"ranges.{key}", f"{where}: with log, low must be above 0, not {low}.")
    if key in _REAL:
        low, high = float(low), float(high)
    return Range(low, high, log)
