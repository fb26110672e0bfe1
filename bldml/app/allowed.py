"""What a configuration may name without being trusted: these classes, with plain values. Nothing else is imported.

The boundary is what a thing may be, not where it comes from: torch and Lightning hold functions that run text as code,
write any file or fetch from any address, and a `class_path` calls whatever it names.
"""

import re
import sys
from collections.abc import Mapping
from datetime import timedelta
from os import PathLike
from typing import Any

from jsonargparse import Namespace
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.pytorch.callbacks import (
    Callback,
    GradientAccumulationScheduler,
    LearningRateMonitor,
    ModelCheckpoint,
    ModelSummary,
    TQDMProgressBar,
)
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.profilers import AdvancedProfiler, Profiler, SimpleProfiler
from lightning.pytorch.strategies import DDPStrategy, Strategy

from bldml.errors import ConfigError
from bldml.training.resume.slurm import RequeueEnvironment
from bldml.training.transforms import Augmentation

# Where a class may stand, what it must be there, and which ones were tried with bldml (tests/app/test_allowed.py).
ALLOWED: dict[str, tuple[type, tuple[type, ...]]] = {
    "data.augmentation": (Augmentation, (Augmentation,)),
    "trainer.callbacks": (
        Callback,
        (
            GradientAccumulationScheduler,
            LearningRateMonitor,
            ModelCheckpoint,
            ModelSummary,
            TQDMProgressBar,
        ),
    ),
    "trainer.logger": (Logger, (CSVLogger, TensorBoardLogger)),
    "trainer.plugins": (ClusterEnvironment, (RequeueEnvironment,)),
    "trainer.profiler": (Profiler, (AdvancedProfiler, SimpleProfiler)),
    "trainer.strategy": (Strategy, (DDPStrategy,)),
}
# Text for people; nothing opens it.
FREE_TEXT = ("card",)
RISK = "It can then run any program with your rights: trust only what you wrote yourself or have read line by line."
# `https://…`, `s3://…`, `a::b` of fsspec, and `https:/…`, which is what a path makes of the first.
_ADDRESS = re.compile(r"[A-Za-z][\w+.-]+:/|::|^data:", re.ASCII)
# Each may keep plain values only, which no constructor calls.
_PLAIN = (bool, int, float, timedelta, type(None))


def allowed_paths() -> list[str]:
    """Every path by which an allowed class can be named."""
    return [path for _, classes in ALLOWED.values() for cls in classes for path in paths_of(cls)]


def paths_of(cls: type) -> list[str]:
    """The path of a class, and those of the packages above that give it the same name.

    >>> paths_of(LearningRateMonitor)[-1]
    'lightning.pytorch.callbacks.LearningRateMonitor'
    """
    parts = cls.__module__.split(".")
    modules = (".".join(parts[:end]) for end in range(len(parts), 0, -1))
    return [f"{m}.{cls.__name__}" for m in modules if getattr(sys.modules.get(m), cls.__name__, None) is cls]


def refusal(message: str) -> str | None:
    """What to say where jsonargparse complains that it may not import something; None for other complaints."""
    name = re.search(r"Importing '([^']+)' is not allowed", message)
    if name is None:
        return None
    key = re.search(r'key "([\w.]+)"', message)
    return _refusal(key[1] if key else "A configuration", name[1])


def _refusal(key: str, what: str) -> str:
    rows = (f"  {place}: {', '.join(c.__name__ for c in classes)}" for place, (_, classes) in ALLOWED.items())
    return (
        f"{key} may not name {what}. Without --trust_config a configuration may name these classes, with numbers and "
        "text as their settings:\n" + "\n".join(rows) + f"\nWith --trust_config it may name any class. {RISK}"
    )


def check_allowed(config: Namespace) -> None:
    """Check a configuration that was parsed and of which nothing was instantiated.

    Args:
        config: That of one verb.

    Raises:
        ConfigError: It names a class that is not allowed there; a value is neither number nor text; an address stands
            where a file or a name belongs.
    """
    for key, value in vars(config).items():
        _check(value, key)


def _check(value: Any, key: str) -> None:
    if isinstance(value, Namespace | Mapping):
        fields = vars(value) if isinstance(value, Namespace) else value
        if "class_path" in fields:
            _check_class(fields, key)
        else:
            for name, item in fields.items():
                _check(item, f"{key}.{name}")
    elif isinstance(value, list | tuple | set | frozenset):
        for item in value:
            _check(item, key)
    elif isinstance(value, str | PathLike):
        if key.split(".")[0] not in FREE_TEXT and _ADDRESS.search(str(value)):
            raise ConfigError(f"{key} is an address, {value}: bldml reads and writes files of this machine only.")
    elif not isinstance(value, _PLAIN):
        raise ConfigError(_refusal(key, repr(value)))


def _check_class(spec: Mapping[str, Any], key: str) -> None:
    path = spec["class_path"]
    _, classes = ALLOWED.get(key, (object, ()))
    if not any(path in paths_of(cls) for cls in classes):
        raise ConfigError(_refusal(key, path))
    if "dict_kwargs" in spec:
        raise ConfigError(_refusal(key, f"dict_kwargs of {path}"))
    settings = spec.get("init_args") or {}
    for name, value in (vars(settings) if isinstance(settings, Namespace) else settings).items():
        _check(value, f"{key}.init_args.{name}")
