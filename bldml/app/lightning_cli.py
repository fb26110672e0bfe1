"""fit, validate, test and predict as a LightningCLI."""

import logging
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from jsonargparse import Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities import rank_zero_info

from bldml.app.evaluation import evaluate_after_fit, evaluate_checkpoint, report_stopped
from bldml.app.parser import Parser, add_arguments, check_division, check_nulls, checked_seed, take_from_checkpoint
from bldml.app.start import start_run
from bldml.config import ConfigError
from bldml.training.checkpoint import Checkpoint, read_checkpoint
from bldml.training.datamodule import LeafDataModule
from bldml.training.finetuning import TrainingConditions
from bldml.training.module import LeafClassifier

TRAINER_DEFAULTS = {
    "max_epochs": 100,
    "precision": "16-mixed",
    "gradient_clip_val": 1.0,
    # The photographs were all decoded before; a sanity check would only draw numbers and fill metrics.
    "num_sanity_val_steps": 0,
    # The samplers share photographs out among processes themselves, without Lightning's padding.
    "use_distributed_sampler": False,
    # Nothing is logged between the ends of epochs; a larger number only brings a warning.
    "log_every_n_steps": 1,
    "enable_model_summary": False,
}
NOISE = ("💡", "GPU available", "TPU available", "`Trainer.fit` stopped", "Using bfloat16", "Using 16bit")
DESCRIPTIONS = {
    "fit": "Train a classifier on labelled photographs; writes a run folder.",
    "validate": "Evaluate a checkpoint on its validation split.",
    "test": "Evaluate a checkpoint on its test split or on another labelled folder.",
    "predict": "Classify photographs without labels, in a folder and all folders below it.",
}


def hush() -> None:
    """Keep Lightning's advertisements and notes on its own inside from the user's screen."""
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.rank_zero"):
        logging.getLogger(name).addFilter(lambda record: not record.getMessage().startswith(NOISE))
    # What is logged is the same on all ranks already.
    warnings.filterwarnings("ignore", r"It is recommended to use `self\.log\(.*sync_dist=True\)`")
    warnings.filterwarnings("ignore", r"Found \d+ module\(s\) in eval mode")  # they are frozen
    warnings.filterwarnings("ignore", r"This DataLoader will create \d+ worker processes")  # as the user asked
    # Every split has both classes; the few batches of a fast_dev_run may not.
    warnings.filterwarnings("ignore", r"No (positive|negative) samples (in targets|found in target)")
    # https://github.com/Lightning-AI/pytorch-lightning/issues/21326
    warnings.filterwarnings("ignore", r".*isinstance\(treespec, LeafSpec\)", FutureWarning)


class LeafCLI(LightningCLI):
    """The four verbs.

    Args:
        args: The command line without the program's name.
    """

    model: LeafClassifier
    datamodule: LeafDataModule

    def __init__(self, args: ArgsType) -> None:
        self.checkpoint: Checkpoint | None = None
        self.external = False
        hush()
        self._verbs = iter(self.subcommands())
        super().__init__(
            LeafClassifier,
            LeafDataModule,
            save_config_callback=None,
            # Behind the thawing and the plateau, whose decisions it logs.
            trainer_defaults={**TRAINER_DEFAULTS, "callbacks": [TrainingConditions()]},
            seed_everything_default=42,
            parser_kwargs={"prog": "bldml", **{verb: {"description": text} for verb, text in DESCRIPTIONS.items()}},
            parser_class=Parser,
            args=args,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """The verbs, and the arguments of the trainer's methods that are not to be typed."""
        hidden = {"model", "datamodule", "weights_only", "ckpt_path"}
        return {
            "fit": hidden | {"train_dataloaders", "val_dataloaders"},
            "validate": hidden | {"dataloaders", "verbose"},
            "test": hidden | {"dataloaders", "verbose"},
            "predict": hidden | {"dataloaders", "return_predictions"},
        }

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Called once for each verb, in the order of `subcommands`."""
        add_arguments(parser, next(self._verbs))

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse; for an evaluation, a second time with the checkpoint's own settings as defaults."""
        self.config = self._parsed(parser, args)
        verb = self.config.subcommand
        if verb == "fit":
            return
        typed = self.config[verb]
        if not typed.ckpt_path:
            raise ConfigError(
                f"Which classifier? Give --ckpt_path FILE, such as: bldml {verb} --ckpt_path "
                "lightning_logs/<run>/checkpoints/best.ckpt"
            )
        if verb == "predict" and (typed.data.root is None or typed.data.manifest is not None):
            raise ConfigError("Which photographs? predict takes a folder and no manifest: --data.root FOLDER.")
        self.checkpoint = read_checkpoint(Path(typed.ckpt_path))
        header = self.checkpoint.header
        defaults, self.external = take_from_checkpoint(typed, header)
        self._parser(verb).set_defaults(defaults)
        self.config = self._parsed(parser, args)
        config = self.config[verb]
        if not self.external:
            check_division(config.data, header)
        # What the classifier is, its checkpoint alone says, whatever a configuration file was written for.
        config.model.backbone, config.model.image_size, config.model.weights = (
            header.backbone, header.image_size, "none",
        )  # fmt: skip
        config.data.image_size = header.image_size
        for key in ("root", "manifest"):
            config.data[key] = defaults[f"data.{key}"]

    def _parsed(self, parser: LightningArgumentParser, args: ArgsType) -> Namespace:
        config = parser.parse_args(args)  # type: ignore[arg-type]
        verb = config.subcommand
        check_nulls(self._parser(verb), config[verb])
        config[verb].seed_everything = checked_seed(config[verb].seed_everything)
        return config

    def instantiate_classes(self) -> None:
        """As LightningCLI does; a value that a class refuses is the user's mistake."""
        try:
            super().instantiate_classes()
        except (MisconfigurationException, ValueError) as error:
            raise ConfigError(f"These settings cannot be used: {error}") from error

    def before_instantiate_classes(self) -> None:
        """Pass on the seed that was set, which may have been drawn."""
        config = self.config[self.subcommand]
        seed = config.seed_everything
        config.model.seed = config.data.seed = 0 if seed is False else int(seed)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The trainer, without loggers and checkpoints: a fit gets them once its run folder is there."""
        config: Namespace = self._get(self.config_init, "trainer")
        callbacks = config["callbacks"] or []
        callbacks = list(callbacks) if isinstance(callbacks, list) else [callbacks]
        kwargs["precision"] = plain_precision(config["precision"], config["accelerator"])
        if config["enable_progress_bar"] is None:
            kwargs["enable_progress_bar"] = sys.stderr.isatty()
        if not config["logger"] or config["logger"] is True:
            kwargs["logger"] = False
        if self.subcommand == "fit":
            if not any(isinstance(callback, ModelCheckpoint) for callback in callbacks):
                kwargs["enable_checkpointing"] = False
        else:
            # One process sees every photograph once; shared out, each would write its own part as the whole.
            kwargs |= {"devices": 1, "num_nodes": 1, "strategy": "auto"}
            kwargs |= {"logger": False, "enable_checkpointing": False}
        if config["overfit_batches"]:
            raise ConfigError(
                "trainer.overfit_batches replaces the order of the photographs; give limit_train_batches."
            )
        try:
            return super().instantiate_trainer(callbacks=callbacks, **kwargs)
        except RuntimeError as error:
            raise ConfigError(f"The trainer cannot be set up so: {error}") from error

    def fit(self, model: LightningModule, datamodule: LightningDataModule) -> None:
        """Train, then evaluate the best checkpoint."""
        config = self.config["fit"]
        run = start_run(
            self.trainer, self.model, self.datamodule, config, self._parser("fit").dump(config, skip_unset=False)
        )
        try:
            self.trainer.fit(model, datamodule=datamodule)
        except (KeyboardInterrupt, SystemExit):
            if run is not None and self.trainer.is_global_zero:
                report_stopped(run)
            raise SystemExit(130) from None
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            # One process evaluates: its metrics must not wait for the others.
            torch.distributed.barrier()
            torch.distributed.destroy_process_group()
        if run is None or not self.trainer.is_global_zero:
            return
        splits = ("val", "test") if config.test_after_fit else ()
        evaluate_after_fit(self.trainer, self.model, self.datamodule, run, splits)

    def validate(self, model: LightningModule, datamodule: LightningDataModule) -> None:
        """Evaluate on the validation split."""
        self._evaluate("val")

    def test(self, model: LightningModule, datamodule: LightningDataModule) -> None:
        """Evaluate on the test split or another labelled folder."""
        self._evaluate("test")

    def predict(self, model: LightningModule, datamodule: LightningDataModule) -> None:
        """Classify photographs without labels."""
        self._evaluate("predict")

    def _evaluate(self, split: str) -> None:
        assert self.checkpoint is not None
        config = self.config[self.subcommand]
        evaluate_checkpoint(
            self.trainer, self.model, self.datamodule, self.checkpoint, split,
            external=self.external, name=config.name, output=config.output,
        )  # fmt: skip


def plain_precision(precision: Any, accelerator: str) -> Any:
    """The precision that this machine has: a CPU computes in bf16 what a GPU computes in fp16."""
    on_cpu = accelerator == "cpu" or (accelerator == "auto" and not torch.cuda.is_available())
    if on_cpu and precision in ("16-mixed", "16", 16):
        rank_zero_info("No GPU is used: computing in bf16, the CPU's 16-bit format, instead of fp16.")
        return "bf16-mixed"
    return precision
