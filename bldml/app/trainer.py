"""The trainer: what is set that Lightning would do otherwise, and what of its talk is kept from the user's screen."""

import logging
import os
import sys
import warnings
from typing import Any

import torch
from jsonargparse import Namespace
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.callbacks import (
    BatchSizeFinder,
    LearningRateFinder,
    ModelCheckpoint,
    ProgressBar,
    WeightAveraging,
)
from lightning.pytorch.utilities import rank_zero_info

from bldml.errors import ConfigError
from bldml.training.lightning_internals import check_srun_shape, cpu_has_bf16
from bldml.training.process import LOGGERS
from bldml.training.resume.slurm import RequeueEnvironment
from bldml.training.resume.writing import AtomicCheckpointIO

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
NOISE = ("💡", "Restor", "GPU available", "TPU available", "`Trainer.fit` stopped", "Using bfloat16", "Using 16bit")


def hush() -> None:
    """Keep Lightning's advertisements and notes on its own inside from the user's screen."""
    for name in LOGGERS:
        logging.getLogger(name).addFilter(lambda record: not record.getMessage().startswith(NOISE))
    # What is logged is the same on all ranks already.
    warnings.filterwarnings("ignore", r"It is recommended to use `self\.log\(.*sync_dist=True\)`")
    warnings.filterwarnings("ignore", r"Found \d+ module\(s\) in eval mode")  # they are frozen
    warnings.filterwarnings("ignore", r"This DataLoader will create \d+ worker processes")  # as the user asked
    warnings.filterwarnings("ignore", r"The `srun` command is available")  # on a login node it need not be used
    warnings.filterwarnings("ignore", r"Checkpoint directory .* exists and is not empty")  # of a run that goes on
    # Every split has both classes; the few batches of a fast_dev_run may not.
    warnings.filterwarnings("ignore", r"No (positive|negative) samples (in targets|found in target)")
    # https://github.com/Lightning-AI/pytorch-lightning/issues/21326
    warnings.filterwarnings("ignore", r".*isinstance\(treespec, LeafSpec\)", FutureWarning)


def trainer_settings(config: Namespace, verb: str) -> dict[str, Any]:
    """What a verb passes to the trainer instead of what the configuration says: loggers come with the run folder.

    Args:
        config: The trainer's part of the configuration, instantiated.
        verb: fit, validate, test or predict.

    Raises:
        ConfigError: The configuration asks for what cannot be.
    """
    callbacks = config["callbacks"] or []
    callbacks = list(callbacks) if isinstance(callbacks, list) else [callbacks]
    settings: dict[str, Any] = {
        "callbacks": callbacks,
        "precision": plain_precision(config["precision"], config["accelerator"]),
        "plugins": plugins(config["plugins"], verb),
    }
    if config["enable_progress_bar"] is None:
        own = any(isinstance(callback, ProgressBar) for callback in callbacks)
        settings["enable_progress_bar"] = own or sys.stderr.isatty()
    if not config["logger"] or config["logger"] is True:
        settings["logger"] = False
    if verb == "fit":
        if not any(isinstance(callback, ModelCheckpoint) for callback in callbacks):
            settings["enable_checkpointing"] = False
    else:
        # One process sees every photograph once; shared out, each would write its own part as the whole.
        settings |= {"devices": 1, "num_nodes": 1, "strategy": "auto", "logger": False, "enable_checkpointing": False}
        # The configuration may be that of a run with more checkpoints than ours.
        settings["callbacks"] = [c for c in callbacks if not isinstance(c, ModelCheckpoint)]
    if any(isinstance(callback, WeightAveraging) for callback in callbacks):
        raise ConfigError(
            "WeightAveraging and EMAWeightAveraging cannot be used here: best.ckpt would hold averaged weights, and an "
            "interrupted run could not be resumed exactly. Outside this command line, Trainer.fit takes them.",
            "averaging-unsupported",
        )
    if any(isinstance(callback, BatchSizeFinder | LearningRateFinder) for callback in callbacks):
        raise ConfigError(
            "BatchSizeFinder and LearningRateFinder cannot be used here: the configuration of the run would name "
            "another batch size or learning rate than it was trained with, and an interrupted run could not be resumed "
            "exactly. Use them in Python with Trainer.fit, then set --data.batch_size and --model.lr to their results.",
            "finder-unsupported",
        )
    if config["overfit_batches"]:
        message = "trainer.overfit_batches replaces the order of the photographs; give limit_train_batches."
        raise ConfigError(message, "trainer-option-unsupported", key="overfit_batches")
    if config["max_steps"] != -1:
        # Lightning skips an epoch when such a run goes on from an epoch's end.
        message = "trainer.max_steps is not supported; give trainer.max_epochs."
        raise ConfigError(message, "trainer-option-unsupported", key="max_steps")
    if not isinstance(config["val_check_interval"], int | float | None):
        message = "trainer.val_check_interval must be a number of batches or a share of the epoch, not a time."
        raise ConfigError(message, "trainer-option-unsupported", key="val_check_interval")
    return settings


def plugins(given: Any, verb: str) -> list[Any]:
    """The trainer's plugins: those of the configuration, the writing of checkpoints, and where processes are found.

    Lightning takes any process inside a Slurm job, a notebook too, for a task of srun; RequeueEnvironment looks closer.
    """
    found = [] if given is None else list(given) if isinstance(given, list | tuple) else [given]
    in_step = RequeueEnvironment.detect()
    if in_step:
        try:
            check_srun_shape()
        except RuntimeError as error:
            raise ConfigError(str(error), "strategy-refused", reason=str(error)) from error
    if verb == "fit":
        found.append(AtomicCheckpointIO())
    elif in_step and os.environ.get("SLURM_STEP_NUM_TASKS", "1") != "1":
        raise ConfigError(
            f"bldml {verb} is one process: start it by srun --ntasks=1.", "processes-too-many", found=verb
        )
    if verb != "fit" or not in_step:
        # A configuration that was made for Slurm works on a laptop too.
        found = [plugin for plugin in found if not isinstance(plugin, RequeueEnvironment)]
    if not any(isinstance(plugin, ClusterEnvironment) for plugin in found):
        elastic = TorchElasticEnvironment.detect()
        found.append(
            RequeueEnvironment() if verb == "fit" and in_step
            else TorchElasticEnvironment() if elastic else LightningEnvironment()
        )  # fmt: skip
    return found


def plain_precision(precision: Any, accelerator: str) -> Any:
    """The precision that this machine has: a CPU computes in bf16 what a GPU computes in fp16, if it knows bf16.

    One that does not would imitate it: a step of mobilenet_v2_x0_35 then takes 10 to 14 times as long as in float32.
    """
    on_cpu = accelerator == "cpu" or (accelerator == "auto" and not torch.cuda.is_available())
    if on_cpu and precision in ("16-mixed", "16", 16):
        if not cpu_has_bf16():
            rank_zero_info("No GPU is used, and this CPU has no 16-bit format of its own: computing in float32.")
            return "32-true"
        rank_zero_info("No GPU is used: computing in bf16, the CPU's 16-bit format, instead of fp16.")
        return "bf16-mixed"
    return precision
