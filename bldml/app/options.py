"""Options and configurations of fit, validate, test and predict: definition, strict reading, names of version 0.1."""

import secrets
import sys
from argparse import SUPPRESS, ArgumentParser, ArgumentTypeError
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn, get_args

import jsonargparse
import yaml
from jsonargparse import Namespace
from jsonargparse.typing import PositiveFloat
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.utilities import rank_zero_info

from bldml.app.allowed import refusal
from bldml.errors import ConfigError
from bldml.io.arguments import explain_mistake
from bldml.io.documents import LARGEST_CONFIGURATION, WordLoader, dump_yaml, load_yaml, read_text
from bldml.io.grammar import pattern
from bldml.metrics.operating_point import ThresholdCriterion
from bldml.metrics.registry import METRICS, canonical, shown_in
from bldml.run.card import Card
from bldml.training.backbones import image_size_of
from bldml.training.finetuning import PlateauLR, ProgressiveUnfreezing
from bldml.training.lightning_internals import (
    actions_of,
    forget_import_rules,
    look_up_stubs_in,
    may_import_anything,
    type_of_option,
)
from bldml.training.resume.job import SlurmStep

GROUPS = ("model", "data", "trainer", "unfreezing", "early_stopping", "plateau", "operating_point", "card")
MONITORED = ("early_stopping", "plateau")
# The metrics that can be monitored: the validation loss and every metric in the history.
MONITORS = ("val_loss", *(f"val_{metric.name}" for metric in shown_in("history")))
# Options of version 0.1 and their present names.
RENAMED = {"model.kept_features": "model.feature_cache", "card.sites": "card.site"}
# Classes that configurations and run folders of version 0.1 name by another path.
MOVED = {"bldml.training.slurm.RequeueEnvironment": "bldml.training.resume.slurm.RequeueEnvironment"}


class Parser(LightningArgumentParser):
    """A parser that raises a ConfigError with the nearest key instead of printing pages of usage."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # An abbreviation that works today is ambiguous once an option is added.
        super().__init__(*args, allow_abbrev=False, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise ConfigError."""
        if refused := refusal(message, trusted=may_import_anything()):
            raise ConfigError(refused, "class-refused", reason=message) from ex
        parser = getattr(ex, "subcommand_parser", None) or self
        keys = [action.dest for action in actions_of(parser) if action.option_strings]
        text = f"{explain_mistake(message, keys)}\nAll options: {parser.prog.replace(' [options]', '')} --help=all"
        raise ConfigError(text, "option-wrong", reason=message) from ex


class UnknownMonitor(ArgumentTypeError, ValueError):
    """There is no such metric. argparse prints the message of the one base class, jsonargparse that of the other."""


class Monitor:
    """The type of --monitor: the name of a metric that training logs, or the name that version 0.1 had for it."""

    def __call__(self, name: str) -> str:
        """Return the present name of the metric; raises UnknownMonitor if there is none."""
        present = canonical(str(name))
        if present not in MONITORS:
            raise UnknownMonitor(f"{name} cannot be monitored. Set monitor to one of {', '.join(MONITORS)}.")
        if present != name:
            hint_renamed(name, present)
        return present

    def __repr__(self) -> str:
        """Return what --help shows as the type."""
        return "metric"


@cache
def hint_renamed(old: str, new: str) -> None:
    """Tell the user once that a name of version 0.1 has changed."""
    rank_zero_info(f"Note: {old} was renamed {new}. The next version will not accept the old name.")


def mode_of(monitor: str) -> str:
    """Return whether a smaller (min) or a larger (max) value of a monitored metric is better.

    >>> mode_of("val_loss"), mode_of("val_auroc")
    ('min', 'max')
    """
    return "min" if METRICS[Monitor()(monitor).removeprefix("val_")].better == "lower" else "max"


# Type, default and help of the options outside model, data and trainer. All verbs accept them: one file fits all.
OPTIONS: dict[str, tuple[Any, Any, str]] = {
    "run_name": (str | None, None, "Name of the run folder; null: backbone, fold, time or job."),
    "monitor": (Monitor(), "val_loss",
        f"Metric for the best checkpoint, the plateau and early stopping: {', '.join(MONITORS)}."),
    "test_after_fit": (bool, True,
        "After training, evaluate the best checkpoint on train, val and test; false: only on train and val."),
    "report": (bool, True,
        "Write report.html after training and after each evaluation, with images of errors and their Grad-CAM."),
    "checkpoint_minutes": (PositiveFloat, 15.0,
        "Minutes between checkpoints within an epoch; a power failure loses the training since the last one."),
    "operating_point": (ThresholdCriterion, ThresholdCriterion(),
        "Threshold criterion on the validation split: maximize (f1 or youden), sensitivity, specificity, or a fixed "
        "threshold; with assurance, a minimum sensitivity or specificity holds on new leaves."
        " band_error is that of the bands."),
    "card": (Card, Card(), "Facts for the report that no program can know."),
}  # fmt: skip
OPTIONS_OF_FIT = {"resume": (Path | None, None, "Run folder to resume (with its own configuration).")}
OPTIONS_OF_EVALUATIONS = {
    "ckpt_path": (Path | None, None, "Checkpoint, or a run folder for its best one (required)."),
    "name": (str | None, None, "Name of this evaluation; null: split or folder name."),
    "site": (str | None, None,
        "Where and when these photographs were taken, such as \"Ohio 2024\", if they are not the run's own."),
    "output": (Path | None, None,
        "Output folder; null: evaluations/<name> in the checkpoint's run folder, or beside the checkpoint."),
}  # fmt: skip
USED_OF_TRAINER = (
    "accelerator",
    "enable_progress_bar",
    "callbacks",
    "deterministic",
    "benchmark",
    "profiler",
)
UNUSED_BY_PREDICT = (
    "manifest", "fold", "positive_class", "class_aliases", "val_fraction", "test_fraction", "on_leak",
)  # fmt: skip


def add_arguments(parser: LightningArgumentParser, verb: str) -> None:
    """Add our options to the parser of a verb."""
    own = OPTIONS_OF_FIT if verb == "fit" else OPTIONS_OF_EVALUATIONS
    for name, (kind, default, text) in (OPTIONS | own).items():
        parser.add_argument(f"--{name}", type=kind, default=default, help=text)
    parser.add_lightning_class_args(ProgressiveUnfreezing, "unfreezing")
    parser.add_lightning_class_args(EarlyStopping, "early_stopping")
    parser.add_lightning_class_args(PlateauLR, "plateau")
    # Not strict: a training that ends before its first validation has nothing to stop.
    parser.set_defaults({"early_stopping.patience": 5, "early_stopping.strict": False})
    for key in MONITORED:
        parser.link_arguments("monitor", f"{key}.monitor")
        parser.link_arguments("monitor", f"{key}.mode", compute_fn=mode_of)
    for key in ("model.seed", "data.seed"):
        parser.link_arguments("seed_everything", key, compute_fn=int)
    parser.link_arguments(("model.backbone", "model.image_size"), "data.image_size", compute_fn=image_size_of)
    parser.usage = pattern(verb)
    for action in actions_of(parser):
        if verb != "fit" and _is_of_fit(action.dest, verb):
            action.help = SUPPRESS


def _is_of_fit(key: str, verb: str) -> bool:
    """Return whether an evaluation accepts an option but does not use it: one configuration fits all commands."""
    group, _, name = key.rpartition(".")
    if group == "trainer":
        return name not in USED_OF_TRAINER and name != f"limit_{verb.replace('validate', 'val')}_batches"
    if group == "data":
        return name == "augmentation" or (verb == "predict" and name in UNUSED_BY_PREDICT)
    whole = ("data", "trainer", "config", "help", "print_config", "seed_everything", "report", *OPTIONS_OF_EVALUATIONS)
    return bool(group) or name not in whole or (verb == "predict" and name in ("report", "site"))


def unused_options(arguments: Sequence[str]) -> list[str]:
    """Return the options typed for an evaluation that it accepts but does not use, sorted.

    >>> unused_options(["test", "--ckpt_path=run", "--operating_point.threshold", "0.3", "--data.batch_size=4"])
    ['--operating_point.threshold']
    """
    verb, *rest = arguments
    typed = {argument.partition("=")[0].rstrip("+") for argument in rest if argument.startswith("--")}
    return sorted(option for option in typed if _is_of_fit(option[2:], verb))


# What the head `logistic` replaces: it is fitted once, on features of the frozen backbone.
SETTLED_BY_LOGISTIC = {
    "trainer.max_epochs": 1, "trainer.min_epochs": None, "trainer.max_steps": -1, "data.augmentation": None,
    "unfreezing.stages": 0, "unfreezing.blocks": None,
}  # fmt: skip
UNUSED_BY_LOGISTIC = (
    *("model.lr", "model.backbone_lr_factor", "model.weight_decay", "model.frozen_mode", "model.freeze_batchnorm"),
    *("unfreezing", "early_stopping", "plateau"),
)


def settle_logistic(config: Namespace, stated: Sequence[str], parser: LightningArgumentParser) -> list[str]:
    """Set, for the head `logistic`, what it leaves no choice of; return the stated settings that it does not use."""
    if config.model.head != "logistic":
        return []
    unused = []
    for key in stated:
        settled = next((name for name in SETTLED_BY_LOGISTIC if f"{key}.".startswith(f"{name}.")), None)
        if settled is None and not key.startswith(UNUSED_BY_LOGISTIC):
            continue
        # A run that is repeated by its own configuration states all of them.
        same = SETTLED_BY_LOGISTIC[settled] if settled else parser.get_default(key)
        if config.get(settled or key) != same and config.get(settled or key) is not None:
            unused.append(f"--{key}")
    for key, value in SETTLED_BY_LOGISTIC.items():
        config[key] = value
    return unused


def without(config: Namespace, key: str) -> Namespace:
    """Return a configuration without one key that must not be saved."""
    copy: Namespace = config.clone()
    copy.pop(key)
    return copy


def checked_seed(seed: bool | int) -> bool | int:
    """Return a seed that NumPy and torch both accept; true draws one.

    Raises:
        ConfigError: It is below 0 or has more than 32 bits, or several tasks of srun would each draw their own.
    """
    if seed is True and (step := SlurmStep.current()) and step.tasks > 1:
        message = "seed_everything: true would draw a different seed in each of these tasks. Set a number."
        raise ConfigError(message, "seed-drawn-by-each-task")
    if seed is True:
        return secrets.randbelow(2**32)
    if not 0 <= seed < 2**32:
        message = f"seed_everything must be true, false or a number from 0 to {2**32 - 1}, not {seed}."
        raise ConfigError(message, "seed-wrong", found=seed)
    return seed


def checked_site(site: str | None, *, external: bool) -> str:
    """Return the site of photographs that are not the run's own, in one line; empty if it is not stated.

    Raises:
        ConfigError: It is empty, or the photographs are the run's own.
    """
    if site is None:
        return ""
    if not site.strip():
        message = "--site is empty. Say where and when the photographs were taken, or leave it out."
        raise ConfigError(message, "site-empty")
    if not external:
        raise ConfigError(
            f"--site {site} is for photographs of others; these are the run's own, whose site is stated in its card "
            "(card.site). Leave --site out, or set --data.root.",
            "site-of-own-photographs",
            found=site,
        )
    return " ".join(site.split())


def stated_keys(arguments: Sequence[str]) -> list[str]:
    """Return the settings that were typed or are in a configuration file, by dotted key, sorted.

    >>> stated_keys(["fit", "--model.lr=1", "--data", "{root: leaves, fold: 1}", "--trainer.callbacks+=Timer"])
    ['data.fold', 'data.root', 'model.lr', 'trainer.callbacks']
    """
    found = [flat(load_configuration(read_text(path, LARGEST_CONFIGURATION))) for path in config_files([*arguments])]
    for argument, following in pairwise([*arguments, ""]):
        option, equals, value = argument.partition("=")
        if option.startswith("--"):
            with suppress(yaml.YAMLError):
                found.append(flat(load_configuration(value if equals else following), option[2:].rstrip("+")))
    return sorted({key for keys in found for key in keys} - {"config", "resume"})


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Return nested settings by dotted key.

    >>> flat({"model": {"lr": 1, "head": {}}, "seed": 2})
    {'model.lr': 1, 'model.head': {}, 'seed': 2}
    """
    if not isinstance(value, Mapping) or not value:
        return {prefix: value}
    below = (flat(item, f"{prefix}.{key}" if prefix else str(key)) for key, item in value.items())
    return {key: item for settings in below for key, item in settings.items()}


def check_nulls(parser: LightningArgumentParser, config: Namespace) -> None:
    """Raise ConfigError for null where a value is needed; jsonargparse lets it through."""
    for action in actions_of(parser):
        hint = type_of_option(action)
        needed = hint is not None and action.default is not None and type(None) not in get_args(hint)
        if needed and config.get(action.dest, action.default) is None:
            message = f"{action.dest} must have a value, not null; its default is {action.default}."
            raise ConfigError(message, "option-null", key=action.dest)


def load_configuration(text: str) -> Any:
    """Return a configuration as plain values, with the present names of options and classes.

    Raises:
        yaml.YAMLError: See `load_yaml`.

    >>> load_configuration("plugins: [{class_path: bldml.training.slurm.RequeueEnvironment}]")
    {'plugins': [{'class_path': 'bldml.training.resume.slurm.RequeueEnvironment'}]}
    """
    configuration = _with_present_classes(load_yaml(text))
    _keep_class_names(configuration, text)
    for old, new in RENAMED.items():
        (group, old_key), new_key = old.split("."), new.rpartition(".")[2]
        # The group itself, where its settings are given as one option: --model '{kept_features: 0}'.
        for settings in (configuration, configuration.get(group) if isinstance(configuration, dict) else None):
            if isinstance(settings, dict) and old_key in settings and new_key not in settings:
                hint_renamed(old, new)
                settings[new_key] = settings.pop(old_key)
    return configuration


def with_present_options(arguments: list[str]) -> list[str]:
    """Return a command line with the present names of its options.

    >>> with_present_options(["fit", "--model.lr=1", "--model.kept_features=0"])
    ['fit', '--model.lr=1', '--model.feature_cache=0']
    """
    present = list(arguments)
    for i, argument in enumerate(arguments):
        option, equals, value = argument.partition("=")
        if option.startswith("--") and (new := RENAMED.get(option[2:])):
            hint_renamed(option[2:], new)
            present[i] = f"--{new}{equals}{value}"
    return present


def _with_present_classes(value: Any) -> Any:
    if isinstance(value, list):
        return [_with_present_classes(item) for item in value]
    if isinstance(value, dict):
        return {key: _with_present_classes(item) for key, item in value.items()}
    return MOVED.get(value, value) if isinstance(value, str) else value


def _keep_class_names(configuration: Any, text: str) -> None:
    """Put the names of classes back as they were written: one may be called 1e3 or, in class_aliases, null."""
    data = configuration.get("data", configuration) if isinstance(configuration, dict) else None
    if not isinstance(data, dict) or not data.keys() & {"positive_class", "class_aliases"}:
        return
    written = load_yaml(text, WordLoader)
    written = written.get("data", written)
    if data.get("positive_class") is not None:
        data["positive_class"] = written["positive_class"]
    if isinstance(data.get("class_aliases"), dict):
        data["class_aliases"] = written["class_aliases"]


def set_up_parsing(allowed: Sequence[str] | None) -> None:
    """Make jsonargparse read strictly and import nothing that was not allowed.

    Args:
        allowed: Paths of the classes that a configuration may name, checked before their modules are imported; None for
            a configuration that is trusted.
    """
    forget_import_rules()
    look_up_stubs_in([Path(path) for path in sys.path if path])
    jsonargparse.set_loader("yaml", load_configuration, exceptions=(yaml.YAMLError,))
    jsonargparse.set_dumper("yaml", dump_yaml)
    jsonargparse.set_parsing_settings(
        import_path_denylist=[] if allowed is None else ["*"],
        import_path_allowlist=[] if allowed is None else list(allowed),
        # A dict that merely looks like a class stays a dict.
        instantiate_subclass_spec_in_any=False,
        config_read_mode_urls_enabled=False,
        add_print_completion_argument=True,
    )


def config_files(arguments: list[str]) -> list[Path]:
    """The configuration files named on a command line.

    >>> [str(path) for path in config_files(["--config", "a.yaml", "--config=b.yaml", "--data.root", "c"])]
    ['a.yaml', 'b.yaml']
    """
    return [Path(value) for value in values_of(arguments, "--config", "-c")]


def values_of(arguments: list[str], *names: str) -> list[str]:
    """The values of an option on a command line, before any parser has seen it.

    >>> values_of(["fit", "--resume", "a", "--resume=b", "--resume"], "--resume")
    ['a', 'b']
    """
    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument(*names, dest="values", nargs="?", action="append", default=[])
    return [value for value in parser.parse_known_args(arguments)[0].values if value is not None]
