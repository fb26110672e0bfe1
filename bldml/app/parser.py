"""The command line of fit, validate, test and predict: what can be typed, and what a checkpoint fills in."""

import os
import secrets
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args

from jsonargparse import Namespace
from jsonargparse.typing import PositiveFloat
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.cli import LightningArgumentParser

from bldml.app.allowed import refusal
from bldml.config import ConfigError, explain, keys_of
from bldml.results.card import Card
from bldml.results.operating_point import Goal
from bldml.training.backbones import image_size_of
from bldml.training.checkpoint import Header
from bldml.training.finetuning import PlateauLR, ProgressiveUnfreezing

# What of the data settings an evaluation takes from the checkpoint where the command line is silent.
DATA_SETTINGS = ("fold", "class_aliases", "val_fraction", "test_fraction", "unreadable", "batch_size")


Monitor = Literal[
    "val_loss",
    "val_auroc",
    "val_average_precision",
    "val_balanced_accuracy",
    "val_f1",
    "val_accuracy",
    "val_precision",
    "val_recall",
    "val_specificity",
]


class Parser(LightningArgumentParser):
    """A parser that raises its complaints, with the nearest key, instead of printing pages of usage."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # An abbreviation that works today is ambiguous once an option is added.
        super().__init__(*args, allow_abbrev=False, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise ConfigError."""
        if refused := refusal(message):
            raise ConfigError(refused) from ex
        parser = getattr(ex, "subcommand_parser", None) or self
        raise ConfigError(f"{explain(message, keys_of(parser))}\nAll options: {parser.prog} --help") from ex


def add_arguments(parser: LightningArgumentParser, verb: str) -> None:
    """Add what is neither model, data nor trainer. All verbs take the keys of a run, so that its file fits them all."""
    parser.add_argument("--run_name", type=str | None, help="Name of the run's folder; null for backbone, fold, time.")
    parser.add_argument(
        "--monitor",
        type=Monitor,
        default="val_loss",
        help="Metric that chooses the best checkpoint, the plateau and the early stop; a loss is best small.",
    )
    parser.add_argument(
        "--test_after_fit",
        type=bool,
        default=True,
        help="Evaluate the best checkpoint on train, val and test when training has ended.",
    )
    parser.add_argument(
        "--report",
        type=bool,
        default=True,
        help="Write report.html after a fit and after an evaluation, with pictures of errors and where they are seen.",
    )
    parser.add_argument(
        "--checkpoint_minutes",
        type=PositiveFloat,
        default=15.0,
        help="Minutes between two checkpoints within an epoch: at most so much is lost when power fails.",
    )
    parser.add_argument(
        "--operating_point",
        type=Goal,
        default=Goal(),
        help="What the threshold is chosen for, on validation: maximize (f1 or youden), sensitivity, specificity, or a "
        "fixed threshold.",
    )
    parser.add_argument("--card", type=Card, default=Card(), help="What the report is to say and no program can know.")
    parser.add_lightning_class_args(ProgressiveUnfreezing, "unfreezing")
    parser.add_lightning_class_args(EarlyStopping, "early_stopping")
    parser.add_lightning_class_args(PlateauLR, "plateau")
    # Not strict: a training that ends before its first validation has nothing to stop.
    parser.set_defaults({"early_stopping.patience": 5, "early_stopping.strict": False})
    for key in ("early_stopping", "plateau"):
        parser.link_arguments("monitor", f"{key}.monitor")
        parser.link_arguments("monitor", f"{key}.mode", compute_fn=mode_of)
    parser.link_arguments("seed_everything", "model.seed", compute_fn=seed_of)
    parser.link_arguments("seed_everything", "data.seed", compute_fn=seed_of)
    parser.link_arguments(("model.backbone", "model.image_size"), "data.image_size", compute_fn=image_size_of)
    if verb == "fit":
        parser.add_argument(
            "--resume", type=Path | None, help="Run folder to go on with, with its own configuration if none is given."
        )
    else:
        parser.add_argument(
            "--ckpt_path", type=Path | None, help="The checkpoint, such as <run>/checkpoints/best.ckpt."
        )
        parser.add_argument("--name", type=str | None, help="Name of this evaluation; null for the split or folder.")
        parser.add_argument(
            "--output",
            type=Path | None,
            help="Folder for the results; null for evaluations/<name> in the checkpoint's run folder, or beside it.",
        )


def mode_of(monitor: str) -> str:
    """Whether a smaller or larger value of a metric is better.

    >>> mode_of("val_loss"), mode_of("val_auroc")
    ('min', 'max')
    """
    return "min" if monitor.endswith("loss") else "max"


def seed_of(seed: bool | int) -> int:
    """The seed as a number; 0 where none is set."""
    return int(seed)


def without(config: Namespace, key: str) -> Namespace:
    """A configuration less one key, which is not to be written down."""
    copy: Namespace = config.clone()
    copy.pop(key)
    return copy


def checked_seed(seed: bool | int) -> bool | int:
    """A seed that NumPy and torch both take; a drawn one for true.

    Raises:
        ConfigError: It is below 0 or has more than 32 bits, or several tasks of srun would each draw their own.
    """
    if seed is True and os.environ.get("SLURM_STEP_NUM_TASKS", "1") != "1":
        raise ConfigError("seed_everything: true draws a seed, and each of these tasks another: give a number.")
    if seed is True:
        return secrets.randbelow(2**32)
    if not 0 <= seed < 2**32:
        raise ConfigError(f"seed_everything must be true, false or a number from 0 to {2**32 - 1}, not {seed}.")
    return seed


def check_nulls(parser: LightningArgumentParser, config: Namespace) -> None:
    """Refuse null where a value is needed; jsonargparse lets it through.

    Raises:
        ConfigError: A key that must have a value has none.
    """
    for action in parser._actions:
        hint = getattr(action, "_typehint", None)
        if hint is None or action.default is None or type(None) in get_args(hint):
            continue
        if config.get(action.dest, action.default) is None:
            raise ConfigError(f"{action.dest} must have a value, not null; its default is {action.default}.")


def take_from_checkpoint(typed: Namespace, header: Header) -> tuple[dict[str, Any], bool]:
    """The defaults that a checkpoint gives to an evaluation.

    Args:
        typed: The verb's configuration without them.
        header: What the checkpoint says of itself.

    Returns:
        Defaults by dotted key, and whether the photographs are others than those that the run was divided from.

    Raises:
        ConfigError: The positive class typed is not the checkpoint's.
    """
    settings = header.settings
    if typed.data.positive_class not in (None, header.positive_class):
        raise ConfigError(
            f"The positive class of this checkpoint is {header.positive_class}, not {typed.data.positive_class}. Leave "
            "--data.positive_class out, or match names by --data.class_aliases."
        )
    defaults: dict[str, Any] = {
        f"data.{key}": settings["data"][key] for key in DATA_SETTINGS if key in settings["data"]
    }
    defaults["data.positive_class"] = header.positive_class
    defaults["trainer.precision"] = settings.get("precision", "16-mixed")
    given = {key: typed.data[key] for key in ("root", "manifest")}
    own = {key: Path(value) if (value := settings["data"].get(key)) else None for key in given}
    external = any(value is not None and _real(value) != _real(own[key]) for key, value in given.items())
    if external:
        defaults.pop("data.fold", None)  # a column of the run's own manifest
    for key, value in (given if external else own).items():
        defaults[f"data.{key}"] = value
    return defaults, external


def check_division(data: Namespace, header: Header) -> None:
    """Refuse another division of the checkpoint's own photographs: it would test on what was trained on.

    Raises:
        ConfigError: A share differs.
    """
    for key in ("val_fraction", "test_fraction", "fold"):
        own = header.settings["data"].get(key, data[key])
        if data[key] != own:
            raise ConfigError(
                f"data.{key} is {'null' if own is None else own} in this checkpoint's division, not {data[key]}. Leave "
                "it out."
            )


def _real(path: Path | None) -> Path | None:
    return None if path is None else Path(path).expanduser().resolve()
