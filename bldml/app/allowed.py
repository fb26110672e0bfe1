"""The classes that an untrusted configuration may name, with plain values. Nothing else is imported.

The list contains classes, not packages: torch and Lightning have functions that run text as code, write any file or
download from any URL, and a `class_path` calls whatever it names.
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
from bldml.io.grammar import check_variables, is_address
from bldml.training.resume.slurm import RequeueEnvironment
from bldml.training.transforms import Augmentation

# Key of the configuration, its base class, and allowed classes, each tested with bldml (tests/app/test_allowed.py).
ALLOWED: dict[str, tuple[type, tuple[type, ...]]] = {
    "data.augmentation": (Augmentation, (Augmentation,)),
    "trainer.callbacks": (
        Callback,
        (GradientAccumulationScheduler, LearningRateMonitor, ModelCheckpoint, ModelSummary, TQDMProgressBar),
    ),
    "trainer.logger": (Logger, (CSVLogger, TensorBoardLogger)),
    "trainer.plugins": (ClusterEnvironment, (RequeueEnvironment,)),
    "trainer.profiler": (Profiler, (AdvancedProfiler, SimpleProfiler)),
    "trainer.strategy": (Strategy, (DDPStrategy,)),
}
# Texts that Lightning and torch interpret as names of their classes; others are not allowed.
CHOICES: dict[str, tuple[str, ...]] = {
    "trainer.accelerator": ("auto", "cpu", "gpu", "cuda", "mps"),
    "trainer.strategy": ("auto", "ddp", "ddp_find_unused_parameters_true", "ddp_find_unused_parameters_false"),
    "trainer.profiler": ("simple", "advanced"),
    "trainer.precision": (
        *("64", "32", "16", "bf16"),
        *("64-true", "32-true", "16-true", "bf16-true", "16-mixed", "bf16-mixed"),
    ),
    "trainer.model_registry": (),
}
# Text for readers, and class names of leaves; nothing opens it as a file or URL.
FREE_TEXT = ("card", "data.positive_class", "data.class_aliases")
PATHS = (
    *("data.root", "data.manifest", "data.cache_dir", "model.weights", "trainer.default_root_dir"),
    *("ckpt_path", "output", "resume"),
)
RISK = "It can then run any program with your rights: trust only what you wrote yourself or have read line by line."
# Text in the settings of a class. Some is a template for str.format (a checkpoint's name), some gets environment
# variables inserted (TensorBoardLogger's folder): no brackets, no dollar, no colon except in {name:.2f}.
_SETTING = re.compile(r"(?:[\w ./,=+@~-]|\{[A-Za-z_]\w*(?::0?\d{0,2}(?:\.\d{1,2})?[dfeg]?)?\})*")
# Types of plain values, which no constructor calls.
_PLAIN = (bool, int, float, timedelta, type(None))


def allowed_paths() -> list[str]:
    """Return every import path of an allowed class."""
    return [path for _, classes in ALLOWED.values() for cls in classes for path in paths_of(cls)]


def paths_of(cls: type) -> list[str]:
    """Return the import paths of a class: of its module, and of the packages above that export it.

    >>> paths_of(LearningRateMonitor)[-1]
    'lightning.pytorch.callbacks.LearningRateMonitor'
    """
    parts = cls.__module__.split(".")
    modules = (".".join(parts[:end]) for end in range(len(parts), 0, -1))
    return [f"{m}.{cls.__name__}" for m in modules if getattr(sys.modules.get(m), cls.__name__, None) is cls]


def refusal(message: str, *, trusted: bool) -> str | None:
    """Return the message for jsonargparse's refusal of an import; None for its other errors."""
    name = re.search(r"Importing '([^']+)' is not allowed", message)
    if name is None:
        return None
    if trusted:
        return f"{name[1]} is on the parser's list of names that no configuration may use, trusted or not."
    key = re.search(r'key "([\w.]+)"', message)
    return _refusal(key[1] if key else "A configuration", name[1])


def _refusal(key: str, what: str) -> str:
    rows = (f"  {name}: {', '.join(c.__name__ for c in classes)}" for name, (_, classes) in ALLOWED.items())
    return (
        f"{key} may not name {what}. Without --trust_config a configuration may name these classes, with numbers and "
        "text as their settings:\n" + "\n".join(rows) + f"\nWith --trust_config it may name others. {RISK}"
    )


def check_allowed(config: Namespace) -> None:
    """Check a parsed configuration before any of its classes is instantiated.

    Args:
        config: Configuration of one verb.

    Raises:
        ConfigError: It names a class that is not allowed there, a value is neither a number nor text, or a file or name
            is a URL.
    """
    for key, value in vars(config).items():
        _check(value, key)


def check_addresses(config: Namespace) -> None:
    """Raise a ConfigError for a URL where bldml itself reads or writes; for a configuration that is trusted.

    Without this, pathlib would take it for a folder of this machine.
    """
    for key in PATHS:
        if isinstance(value := config.get(key), str | PathLike):
            _check_address(str(value), key)


def _check_address(text: str, key: str) -> None:
    if is_address(text):
        message = f"{key} is a URL, {text}: bldml reads and writes only files of this machine."
        raise ConfigError(message, "address-refused", key=key, found=text)
    if key in PATHS:
        check_variables(text, key)


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
        _check_text(str(value), key)
    elif not isinstance(value, _PLAIN):
        raise ConfigError(_refusal(key, repr(value)), "class-refused", key=key, found=repr(value))


def _check_text(text: str, key: str) -> None:
    if "\0" in text:
        raise ConfigError(f"{key} has a NUL character: {text!r}.", "text-with-nul", key=key, found=text)
    if key in CHOICES and text not in CHOICES[key]:
        known = " or ".join(filter(None, (", ".join(CHOICES[key][:-1]), *CHOICES[key][-1:]))) or "null"
        raise ConfigError(f"{key} must be {known}, not {text}.", "choice-unknown", key=key, found=text)
    if not any(key == free or key.startswith(f"{free}.") for free in FREE_TEXT):
        _check_address(text, key)
    if ".init_args." in key and not _SETTING.fullmatch(text):
        raise ConfigError(
            f"{key} may hold letters, numbers, spaces, the signs . , = + @ ~ - _ / and fields such as {{epoch}} or "
            f"{{val_loss:.2f}}, not {text!r}. With --trust_config it may hold any text. {RISK}",
            "text-refused",
            key=key,
            found=text,
        )


def _check_class(spec: Mapping[str, Any], key: str) -> None:
    path = spec["class_path"]
    _, classes = ALLOWED.get(key, (object, ()))
    if not any(path in paths_of(cls) for cls in classes):
        raise ConfigError(_refusal(key, path), "class-refused", key=key, found=path)
    if "dict_kwargs" in spec:
        raise ConfigError(_refusal(key, f"dict_kwargs of {path}"), "class-refused", key=key, found=path)
    settings = spec.get("init_args") or {}
    for name, value in (vars(settings) if isinstance(settings, Namespace) else settings).items():
        _check(value, f"{key}.init_args.{name}")
