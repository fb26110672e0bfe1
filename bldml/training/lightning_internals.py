"""Every private name of Lightning, torchmetrics, torch and jsonargparse that bldml touches, each with its reason.

A new version may move any of them without a word; `tests/training/test_lightning_internals.py` then says which, and who
needs it. Nothing is imported before it is asked for, so that the plain commands stay light and `doctor` can look at an
installation in which something is missing.
"""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from bldml.errors import BldmlError

if TYPE_CHECKING:
    from argparse import Action, ArgumentParser, HelpFormatter

    import torch
    from lightning.pytorch import LightningModule, Trainer
    from lightning.pytorch.cli import LightningCLI
    from lightning.pytorch.strategies import DDPStrategy
    from torchmetrics import Metric

CLI = TypeVar("CLI", bound="LightningCLI")
# Where jsonargparse keeps what set_loader is given.
LOADING = ("loaders", "loader_exceptions", "loader_json_superset", "loader_params")


def disarm(trainer: "Trainer") -> "Trainer":
    """Switch off what Lightning does by itself with signals and with checkpoints that lie around; it has no option.

    Its handlers save nothing at SIGTERM, and run in loader workers too. And it loads a hpc_ckpt_1.ckpt that any other
    job has left in the folder.
    """
    from lightning.pytorch.trainer.connectors.checkpoint_connector import _CheckpointConnector
    from lightning.pytorch.trainer.connectors.signal_connector import _SignalConnector

    class NoHandlers(_SignalConnector):
        def register_signal_handlers(self) -> None:
            """Leave signals to InterruptSignals."""

    class NoForeignCheckpoint(_CheckpointConnector):
        _hpc_resume_path = None

    trainer._signal_connector = NoHandlers(trainer)
    trainer._checkpoint_connector = NoForeignCheckpoint(trainer)
    return trainer


def attached_trainer(module: "LightningModule") -> "Trainer | None":
    """The trainer of a module; None outside one, where `module.trainer` raises."""
    trainer: Trainer | None = module._trainer
    return trainer


def is_between_steps(trainer: "Trainer") -> bool:
    """Whether, at the end of a training batch, neither gradients wait to be applied nor a validation comes now.

    Lightning decides that in its loops, from many settings, and tells no callback.
    """
    loop = trainer.fit_loop
    fetcher = loop._data_fetcher
    assert fetcher is not None
    return not (loop._should_accumulate() or loop.epoch_loop._should_check_val_fx(fetcher))


def has_gradients_waiting(trainer: "Trainer") -> bool:
    """Whether gradients of earlier batches wait to be applied; they are in no checkpoint."""
    return bool(trainer.fit_loop._should_accumulate())


def can_end_early(trainer: "Trainer") -> bool:
    """Whether a training that shall stop may do so now, past `min_epochs` and `min_steps`."""
    return bool(trainer.fit_loop._can_stop_early)


def batches_logged(checkpoint: Mapping[str, Any]) -> int:
    """The step of what is logged next, which a checkpoint keeps in the state of the loop and nowhere else."""
    return int(checkpoint["loops"]["fit_loop"]["epoch_loop.state_dict"]["_batches_that_stepped"])


def let_ddp_skip_parameters(strategy: "DDPStrategy") -> None:
    """Keep DDP from waiting for gradients of frozen stages; its constructor takes that, but was called long before."""
    strategy._ddp_kwargs["find_unused_parameters"] = True


def is_started_by_fork(trainer: "Trainer") -> bool:
    """Whether the strategy starts its processes by fork or spawn, where signals do not reach them."""
    from lightning.pytorch.strategies.launchers.multiprocessing import _MultiProcessingLauncher

    return isinstance(trainer.strategy.launcher, _MultiProcessingLauncher)


def check_srun_shape() -> None:
    """Lightning's own check of srun's variables, which it makes only later and in the middle of a traceback.

    Raises:
        RuntimeError: There is --ntasks in place of --ntasks-per-node.
    """
    from lightning.fabric.plugins.environments.slurm import SLURMEnvironment

    SLURMEnvironment._validate_srun_variables()


def forget_hyper_parameters(cls: "type[CLI]") -> "type[CLI]":
    """Keep a checkpoint's hyper-parameters from changing a configuration that was checked; Lightning has no option."""
    return _replaced(cls, _parse_ckpt_path=lambda self: None)


def parse_only(cls: "type[CLI]") -> "type[CLI]":
    """Let a command line be parsed whole, with its verb, and neither run nor draw a seed; `run=False` knows no verb."""
    return _replaced(cls, _run_subcommand=lambda self, subcommand: None, _set_seed=lambda self: None)


def metric_state(metric: "Metric") -> dict[str, Any]:
    """What a metric has gathered; its own `state_dict` leaves out what is not persistent, and the count always."""
    return {"updates": metric._update_count, "state": {name: getattr(metric, name) for name in metric._defaults}}


def put_metric_state(metric: "Metric", state: Mapping[str, Any]) -> None:
    """Put back what `metric_state` gave, and forget a value that was computed from something else."""
    for name, value in state["state"].items():
        setattr(metric, name, value)
    metric._update_count, metric._computed = state["updates"], None


def is_batchnorm(module: "torch.nn.Module") -> bool:
    """Whether a layer is a BatchNorm of any dimension; torch names only each."""
    from torch.nn.modules.batchnorm import _BatchNorm

    return isinstance(module, _BatchNorm)


def is_dropout(module: "torch.nn.Module") -> bool:
    """Whether a layer is a dropout of any kind; torch names only each."""
    from torch.nn.modules.dropout import _DropoutNd

    return isinstance(module, _DropoutNd)


def version_of(tensor: "torch.Tensor") -> int:
    """A number that grows with each change of a tensor in place; autograd's own, which nothing public tells."""
    return tensor._version


def leave_scaling(optimizer: "torch.optim.Optimizer") -> None:
    """Keep a fused optimizer from undoing the gradient scaler's factor by itself: Lightning could not clip before."""
    optimizer._step_supports_amp_scaling = False  # type: ignore[attr-defined]


def cpu_has_bf16() -> bool:
    """Whether this CPU computes in bf16 itself; torch would otherwise imitate it."""
    import torch

    return bool(torch.cpu._is_avx512_bf16_supported())


def built_architectures() -> tuple[str, ...]:
    """GPUs that torch was built for; `torch.cuda.get_arch_list` is empty where there is no GPU."""
    import torch

    # A build for the CPU does not have it.
    flags = getattr(torch._C, "_cuda_getArchFlags", lambda: "")() or ""
    return tuple(flags.split())


class SentMistake:
    """Stands where torch keeps the class of what a loader's process raised, and makes the mistake itself."""

    def __init__(self, error: BldmlError) -> None:
        self.error, self.__name__ = error, type(error).__name__

    def __call__(self, text: str) -> BldmlError:
        """The mistake, whatever torch's text with the traceback is."""
        return self.error


def send_mistakes_whole() -> None:
    """In a loader's process: let a mistake be raised in the main process with its code and fields, without a traceback.

    torch sends the class of what was raised and a text, and only that.
    """
    from torch._utils import ExceptionWrapper
    from torch.utils.data._utils import worker

    def wrap(*args: Any, **kwargs: Any) -> ExceptionWrapper:
        wrapped = ExceptionWrapper(*args, **kwargs)  # type: ignore[no-untyped-call]
        error = sys.exc_info()[1]
        if isinstance(error, BldmlError):
            wrapped.exc_type = SentMistake(error)
        return wrapped

    worker.ExceptionWrapper = wrap  # type: ignore[assignment, attr-defined]


def actions_of(parser: "ArgumentParser") -> "list[Action]":
    """The options of a parser; argparse lists them nowhere else."""
    return parser._actions


def type_of_option(action: "Action") -> Any:
    """The type that jsonargparse checks an option against; None where it checks none."""
    return getattr(action, "_typehint", None)


def forget_import_rules() -> None:
    """Undo what this process has allowed and denied before; jsonargparse only ever adds to its own list of denials."""
    from jsonargparse._common import default_import_path_denylist, parsing_settings

    parsing_settings["import_path_verdicts"] = dict.fromkeys(default_import_path_denylist, False)


def parsing_state() -> tuple[Any, ...]:
    """What `set_parsing_settings` and `set_loader` of jsonargparse and the functions beside this one change."""
    from jsonargparse import _loaders_dumpers, _optionals, _stubs_resolver
    from jsonargparse._common import parsing_settings

    loading = (getattr(_loaders_dumpers, name) for name in LOADING)
    return (
        dict(parsing_settings), [dict(table) for table in loading], _optionals._config_read_mode,
        _stubs_resolver.stubs_resolver,
    )  # fmt: skip


def put_parsing_state(state: tuple[Any, ...]) -> None:
    """Put back what `parsing_state` gave."""
    from jsonargparse import _loaders_dumpers, _optionals, _stubs_resolver
    from jsonargparse._common import parsing_settings

    settings, loading, _optionals._config_read_mode, _stubs_resolver.stubs_resolver = state
    for name, before in (("", settings), *zip(LOADING, loading, strict=True)):
        table = getattr(_loaders_dumpers, name) if name else parsing_settings
        table.clear()
        table.update(before)


def may_import_anything() -> bool:
    """Whether jsonargparse was not told to deny all imports but some."""
    from jsonargparse._common import parsing_settings

    return "*" not in parsing_settings["import_path_verdicts"]


def look_up_stubs_in(paths: list[Path]) -> None:
    """Say where packages lie: jsonargparse would run `python -c` to learn it, in the folder of a configuration."""
    from jsonargparse import _stubs_resolver
    from typeshed_client import get_search_context

    resolver = _stubs_resolver.StubsResolver(search_context=get_search_context(search_path=paths))
    _stubs_resolver.stubs_resolver = resolver  # type: ignore[assignment]  # declared as None


def plain_help() -> "type[HelpFormatter]":
    """How --help of a plain command is written: as jsonargparse does it, which shows a path as `<class 'Path'>`."""
    import jsonargparse

    class Formatter(jsonargparse.DefaultHelpFormatter):
        def _get_type_str(self, action: "Action") -> str | None:
            text = super()._get_type_str(action)
            return text and text.replace("<class 'Path'>", "PATH").replace("Path |", "PATH |")

    return Formatter


def _replaced(cls: type[CLI], **methods: Callable[..., None]) -> type[CLI]:
    for name, method in methods.items():
        if not hasattr(cls, name):  # or the new one would lie there, and the old one act under another name
            raise AttributeError(f"{cls.__name__} has no {name} any more: see {__name__}")
        setattr(cls, name, method)
    return cls
