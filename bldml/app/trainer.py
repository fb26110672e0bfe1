"""Settings of the Lightning trainer, the Lightning messages that are hidden, and one pass over a split."""

import logging
import os
import re
import sys
import time
import warnings
from typing import Any

import torch
from jsonargparse import Namespace
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import (
    BatchSizeFinder,
    LearningRateFinder,
    ModelCheckpoint,
    ProgressBar,
    WeightAveraging,
)
from lightning.pytorch.utilities import rank_zero_info

from bldml.app.messages import device_name
from bldml.app.options import MONITORS, hint_renamed
from bldml.app.screen.bar import LeafProgressBar
from bldml.dataset.files import show_path
from bldml.errors import ConfigError
from bldml.io.screen import escape_message
from bldml.metrics.registry import canonical
from bldml.training.data.datamodule import LeafDataModule
from bldml.training.lightning_internals import cpu_has_bf16, disarm
from bldml.training.module import LeafClassifier
from bldml.training.process import LOGGERS
from bldml.training.recording import PredictionRecorder
from bldml.training.resume.callback import interrupt_evaluation
from bldml.training.resume.signals import InterruptSignals
from bldml.training.resume.slurm import RequeueEnvironment
from bldml.training.resume.state import AtomicCheckpointIO
from bldml.training.resume.unfinished import UNUSABLE, UnfinishedEvaluation, pass_key

TRAINER_DEFAULTS = {
    "max_epochs": 100,
    "precision": "16-mixed",
    "gradient_clip_val": 1.0,
    # All photographs were decoded before; a sanity check would only draw random numbers and fill metrics.
    "num_sanity_val_steps": 0,
    # Our samplers distribute photographs over processes, without Lightning's padding.
    "use_distributed_sampler": False,
    # Values are logged only at the end of an epoch; a larger number only causes a warning.
    "log_every_n_steps": 1,
    "enable_model_summary": False,
}
# Lightning divides by the first two; more processes than these would only fill the memory or wait for one another.
LARGEST_COUNTS = {
    **dict.fromkeys(("max_epochs", "min_epochs", "accumulate_grad_batches", "check_val_every_n_epoch"), 2**31),
    "devices": 256,
    "num_nodes": 4096,
}
_ALSO_LESS = ("max_epochs", "min_epochs", "devices")  # than 1
NOISE = ("💡", "Restor", "GPU available", "TPU available", "`Trainer.fit` stopped", "Using bfloat16", "Using 16bit")


def hush() -> None:
    """Hide Lightning's advertisements and notes on its internals."""
    for name in LOGGERS:
        logging.getLogger(name).addFilter(lambda record: not record.getMessage().startswith(NOISE))
        logging.getLogger(name).addFilter(escape_message)
    # Logged values are already the same on all ranks.
    warnings.filterwarnings("ignore", r"It is recommended to use `self\.log\(.*sync_dist=True\)`")
    warnings.filterwarnings("ignore", r"Found \d+ module\(s\) in eval mode")  # they are frozen
    warnings.filterwarnings("ignore", r"This DataLoader will create \d+ worker processes")  # as the user asked
    warnings.filterwarnings("ignore", r"The `srun` command is available")  # not needed on a login node
    warnings.filterwarnings("ignore", r"Checkpoint directory .* exists and is not empty")  # of a resumed run
    # Every split has both classes; the few batches of fast_dev_run may not.
    warnings.filterwarnings("ignore", r"No (positive|negative) samples (in targets|found in target)")
    # https://github.com/Lightning-AI/pytorch-lightning/issues/21326
    warnings.filterwarnings("ignore", r".*isinstance\(treespec, LeafSpec\)", FutureWarning)


def trainer_settings(config: Namespace, verb: str) -> dict[str, Any]:
    """Return the trainer settings of a verb that replace those of the instantiated configuration.

    Loggers of a fit need the run folder first.

    Raises:
        ConfigError: A setting of the configuration is not supported.
    """
    callbacks = as_list(config["callbacks"])
    settings: dict[str, Any] = {
        "callbacks": callbacks,
        "plugins": plugins(config["plugins"], verb),
    }
    own = any(isinstance(callback, ProgressBar) for callback in callbacks)
    if config["enable_progress_bar"] is None:
        settings["enable_progress_bar"] = own or sys.stderr.isatty()
    if settings.get("enable_progress_bar", config["enable_progress_bar"]) and not own:
        callbacks.append(LeafProgressBar())
    if config["accelerator"] == "auto" and torch.backends.mps.is_available():
        settings["accelerator"] = "cpu"  # an Apple GPU only on request: nobody has checked its results
    if not config["logger"] or config["logger"] is True:
        settings["logger"] = False
    if verb == "fit":
        settings["precision"] = plain_precision(config["precision"], config["accelerator"])
        if not any(isinstance(callback, ModelCheckpoint) for callback in callbacks):
            settings["enable_checkpointing"] = False
    else:
        # One process sees every photograph once; of several, each would write its part as the whole.
        settings |= {"devices": 1, "num_nodes": 1, "strategy": "auto", "logger": False, "enable_checkpointing": False}
        settings["precision"] = "32-true"  # `LeafClassifier.evaluate` computes in float32 whatever is set
        # The configuration may be of a run with additional checkpoint callbacks.
        settings["callbacks"] = [c for c in callbacks if not isinstance(c, ModelCheckpoint)]
    _check_settings(config, callbacks)
    alone = any(isinstance(plugin, LightningEnvironment) for plugin in settings["plugins"])
    if verb == "fit" and alone and config["num_nodes"] > 1 and "MASTER_ADDR" not in os.environ:
        message = f"trainer.num_nodes is {config['num_nodes']}, but nothing started this process on several nodes: it "
        message += (
            "would wait for the others forever. Use srun in a Slurm job, torchrun, or set MASTER_ADDR and NODE_RANK."
        )
        raise ConfigError(message, "nodes-not-started", found=config["num_nodes"])
    return settings


def _check_settings(config: Namespace, callbacks: list[Any]) -> None:
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
    for key, wrong, text in (
        ("overfit_batches", config["overfit_batches"],
         "would change the order of the photographs; use trainer.limit_train_batches."),
        # Lightning skips an epoch if such a run is resumed at an epoch's end.
        ("max_steps", config["max_steps"] != -1, "is not supported; use trainer.max_epochs."),
        ("val_check_interval", not isinstance(config["val_check_interval"], int | float | None),
         "must be a number of batches or a fraction of the epoch, not a time."),
        ("val_check_interval", config["val_check_interval"] == 0, "must be above 0."),  # by which Lightning divides
    ):  # fmt: skip
        if wrong:
            raise ConfigError(f"trainer.{key} {text}", "trainer-option-unsupported", key=key)
    for key, largest in LARGEST_COUNTS.items():
        found = config[key]
        count = len(found) if isinstance(found, list) else int(found) if str(found).isdecimal() else found
        # auto, null, for devices lists as text, and for some 0 and -1 are Lightning's to judge.
        if isinstance(count, int) and not (1 <= count <= largest or (key in _ALSO_LESS and count < 1)):
            message = f"trainer.{key} must be from 1 to {largest}, not {str(found)[:40]}."
            raise ConfigError(message, "trainer-count-wrong", key=key, found=found)


def check_monitors(callbacks: list[Any], *, closed: bool) -> None:
    """Give callbacks of a configuration the present names of metrics; `closed` says that nothing else logs any.

    Raises:
        ConfigError: A callback monitors what is never logged, which Lightning finds at the end of the first epoch.
    """
    for callback in callbacks:
        name = getattr(callback, "monitor", None)
        if not isinstance(name, str):
            continue
        if (present := canonical(name)) != name:
            hint_renamed(name, present)
            callback.monitor = present
        is_known = re.sub("^train_", "val_", present) in (*MONITORS, "epoch", "step", "trainable_share")
        if closed and not is_known and not present.startswith("lr_"):
            message = (
                f"{type(callback).__name__} cannot monitor {name}. Set its monitor to one of {', '.join(MONITORS)}."
            )
            raise ConfigError(message, "callback-monitor-unknown", found=name, expected=[*MONITORS])


def as_list(configured: Any) -> list[Any]:
    """Return a setting that may be one value, several or none as a list."""
    return list(configured) if isinstance(configured, list | tuple) else [configured] if configured else []


def environment_of(configured: Any) -> RequeueEnvironment | None:
    """Return the RequeueEnvironment that a parsed configuration turns off, before any plugin is created; else None."""
    settings = (getattr(plugin, "init_args", None) or {} for plugin in as_list(configured))
    is_off = any(one.get("auto_requeue") is False for one in settings)
    return RequeueEnvironment(auto_requeue=False) if is_off else None


def plugins(configured: Any, verb: str) -> list[Any]:
    """Return the trainer's plugins: those of the configuration, checkpoint writing, and the cluster environment.

    Lightning treats any process in a Slurm job, even a notebook, as a task of srun; RequeueEnvironment checks more.
    """
    found = as_list(configured)
    in_step = RequeueEnvironment.detect()
    if verb == "fit":
        found.append(AtomicCheckpointIO())
    if verb != "fit" or not in_step:
        # So a configuration for Slurm also works on a laptop.
        found = [plugin for plugin in found if not isinstance(plugin, RequeueEnvironment)]
    if not any(isinstance(plugin, ClusterEnvironment) for plugin in found):
        elastic = TorchElasticEnvironment if TorchElasticEnvironment.detect() else LightningEnvironment
        found.append(RequeueEnvironment() if verb == "fit" and in_step else elastic())
    return found


def plain_precision(precision: Any, accelerator: str) -> Any:
    """Return the precision that this machine supports: on a CPU, bf16 instead of fp16, or float32 if it has no bf16.

    A CPU without bf16 emulates it: a step of mobilenet_v2_x0_35 then takes 10 to 14 times as long as in float32.
    """
    on_cpu = accelerator == "cpu" or (accelerator == "auto" and not torch.cuda.is_available())
    if on_cpu and precision in ("16-mixed", "16", 16):
        if not cpu_has_bf16():
            rank_zero_info("No GPU is used, and this CPU does not support bf16: computing in float32.")
            return "32-true"
        rank_zero_info("No GPU is used: computing in bf16 instead of fp16.")
        return "bf16-mixed"
    return precision


def single_trainer(trainer: Trainer, signals: InterruptSignals) -> Trainer:
    """Return a trainer on one device like the fit's."""
    with_bar = trainer.progress_bar_callback is not None
    single = Trainer(
        accelerator=trainer.strategy.root_device.type,
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=with_bar,
        default_root_dir=trainer.default_root_dir,
        plugins=[LightningEnvironment()],
        callbacks=[interrupt_evaluation(signals), *([LeafProgressBar()] if with_bar else [])],
    )
    return disarm(single)


def run_pass(
    trainer: Trainer,
    model: LeafClassifier,
    datamodule: LeafDataModule,
    split: str,
    recorder: PredictionRecorder,
    unfinished: UnfinishedEvaluation,
) -> None:
    """Run the model once on each photograph of a split, or of `predict`, behind those that an earlier start has done.

    Writes only what a later start would need.

    Raises:
        Interrupted: A signal was received; what is done is kept.
    """
    data, batch = datamodule.photographs, datamodule.evaluation_batch
    key = pass_key(data, split)
    done = unfinished.restore(recorder, split, key, batch)
    start = time.monotonic() - recorder.seconds
    if done < len(data.samples(split)):
        # First, so that it has a batch before another callback interrupts.
        trainer.callbacks.insert(0, recorder)  # type: ignore[attr-defined]  # set by a connector
        if isinstance(bar := trainer.progress_bar_callback, LeafProgressBar):
            bar.words = "Classifying" if split == "predict" else f"Evaluating {show_path(recorder.folder.name)}"
        datamodule.evaluated = done
        try:
            _run(trainer, model, datamodule, split)
        except BaseException as error:
            recorder.seconds = round(time.monotonic() - start, 3)
            if not isinstance(error, UNUSABLE):  # interrupted, or the machine failed
                unfinished.keep(recorder, split, key, batch)
            raise
        finally:
            datamodule.evaluated = 0
        recorder.seconds = round(time.monotonic() - start, 3)
        if recorder.collected == len(data.samples(split)):  # fewer are an error, which is raised later
            unfinished.keep(recorder, split, key, batch)
    recorder.device = device_name(trainer.strategy.root_device)


def _run(trainer: Trainer, model: LeafClassifier, datamodule: LeafDataModule, split: str) -> None:
    if split == "predict":
        trainer.predict(model, datamodule=datamodule, return_predictions=False)
    elif split in ("train", "val"):
        datamodule.validated = split
        trainer.validate(model, datamodule=datamodule, verbose=False)
    else:
        trainer.test(model, datamodule=datamodule, verbose=False)
