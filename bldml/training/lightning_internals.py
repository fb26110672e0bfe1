"""All private names of Lightning, torchmetrics, torch and jsonargparse that bldml uses, each with its reason.

A new version may change any of them without notice; `tests/training/test_lightning_internals.py` then reports which one
and who needs it. Imports are inside the functions, so that the plain commands stay light and `doctor` can examine an
incomplete installation.
"""

import re
import sys
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from bldml.errors import BldmlError

if TYPE_CHECKING:
    from argparse import Action, ArgumentParser, HelpFormatter

    import torch
    from lightning.pytorch import LightningModule, Trainer
    from lightning.pytorch.cli import LightningCLI
    from lightning.pytorch.strategies import DDPStrategy
    from torch.utils.data import DataLoader
    from torchmetrics import Metric

CLI = TypeVar("CLI", bound="LightningCLI")
LOADER = TypeVar("LOADER", bound="DataLoader[Any]")
# Where jsonargparse keeps what set_loader is given.
LOADING = ("loaders", "loader_exceptions", "loader_json_superset", "loader_params")


def disarm(trainer: "Trainer") -> "Trainer":
    """Turn off Lightning's signal handlers and its search for checkpoints, for which it has no option.

    Its handlers save nothing at SIGTERM, and run in loader workers too. It also loads a hpc_ckpt_1.ckpt that another
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
    """Return the trainer of a module; None without one, when `module.trainer` raises an error."""
    return module._trainer


def is_between_steps(trainer: "Trainer") -> bool:
    """Return whether, at the end of a training batch, no gradients wait to be applied and no validation follows.

    Lightning decides this in its loops, from many settings, and does not pass it to callbacks.
    """
    loop = trainer.fit_loop
    fetcher = loop._data_fetcher
    assert fetcher is not None
    return not (loop._should_accumulate() or loop.epoch_loop._should_check_val_fx(fetcher))


def has_gradients_waiting(trainer: "Trainer") -> bool:
    """Return whether gradients of previous batches wait to be applied; checkpoints do not contain them."""
    return bool(trainer.fit_loop._should_accumulate())


def can_end_early(trainer: "Trainer") -> bool:
    """Return whether training may stop early now, after `min_epochs` and `min_steps`."""
    return bool(trainer.fit_loop._can_stop_early)


def batches_logged(checkpoint: Mapping[str, Any]) -> int:
    """Return the next step to be logged, which a checkpoint contains only in the state of the loop."""
    return int(checkpoint["loops"]["fit_loop"]["epoch_loop.state_dict"]["_batches_that_stepped"])


def let_ddp_skip_parameters(strategy: "DDPStrategy") -> None:
    """Make DDP not wait for gradients of frozen stages: a constructor argument, set on an existing object."""
    strategy._ddp_kwargs["find_unused_parameters"] = True


def is_started_by_fork(trainer: "Trainer") -> bool:
    """Return whether the strategy starts its processes by fork or spawn; then signals do not reach them."""
    from lightning.pytorch.strategies.launchers.multiprocessing import _MultiProcessingLauncher

    return isinstance(trainer.strategy.launcher, _MultiProcessingLauncher)


def forget_hyper_parameters(cls: "type[CLI]") -> "type[CLI]":
    """Prevent a checkpoint's hyper-parameters from changing a checked configuration; Lightning has no option for it."""
    return _replaced(cls, _parse_ckpt_path=lambda self: None)


def parse_only(cls: "type[CLI]") -> "type[CLI]":
    """Parse the whole command line with its verb, without running it or drawing a seed; `run=False` has no verbs."""
    return _replaced(cls, _run_subcommand=lambda self, subcommand: None, _set_seed=lambda self: None)


def metric_state(metric: "Metric") -> dict[str, Any]:
    """Return the state of a metric; its `state_dict` omits states that are not persistent, and the update count."""
    return {"updates": metric._update_count, "state": {name: getattr(metric, name) for name in metric._defaults}}


def put_metric_state(metric: "Metric", state: Mapping[str, Any]) -> None:
    """Restore a result of `metric_state`, and drop a value that was computed from another state."""
    for name, value in state["state"].items():
        setattr(metric, name, value)
    metric._update_count, metric._computed = state["updates"], None


def is_batchnorm(module: "torch.nn.Module") -> bool:
    """Return whether a layer is a BatchNorm of any dimension; torch has no public common class."""
    from torch.nn.modules.batchnorm import _BatchNorm

    return isinstance(module, _BatchNorm)


def is_dropout(module: "torch.nn.Module") -> bool:
    """Return whether a layer is a dropout of any kind; torch has no public common class."""
    from torch.nn.modules.dropout import _DropoutNd

    return isinstance(module, _DropoutNd)


def version_of(tensor: "torch.Tensor") -> int:
    """Return autograd's version of a tensor, which grows with each in-place change; there is no public access."""
    return tensor._version


def leave_scaling(optimizer: "torch.optim.Optimizer") -> None:
    """Prevent a fused optimizer from unscaling gradients itself, because then Lightning cannot clip them."""
    optimizer._step_supports_amp_scaling = False  # type: ignore[attr-defined]


def cpu_has_bf16() -> bool:
    """Return whether this CPU supports bf16; otherwise torch emulates it."""
    import torch

    return bool(torch.cpu._is_avx512_bf16_supported())


def built_architectures() -> tuple[str, ...]:
    """Return the GPU architectures that torch was built for; `torch.cuda.get_arch_list` is empty without a GPU."""
    import torch

    # A CPU build does not have this function.
    flags = getattr(torch._C, "_cuda_getArchFlags", lambda: "")() or ""
    return tuple(flags.split())


class SentMistake:
    """Replacement for the exception class that torch sends from a loader's worker; a call returns the error."""

    def __init__(self, error: BldmlError) -> None:
        self.error, self.__name__ = error, type(error).__name__

    def __call__(self, text: str) -> BldmlError:
        """Return the error; torch's text with the traceback is ignored."""
        return self.error


def send_mistakes_whole() -> None:
    """In a loader's worker: raise a BldmlError in the main process with its code and fields, without a traceback.

    torch sends only the class of an exception and a text.
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


class _Waiting:
    """The workers for which this process just waits, and of whose death it may be told now."""

    workers: Sequence[BaseProcess] = ()
    watched: ClassVar[list[None]] = []  # as many as there are iterators that look after their workers

    @classmethod
    def check(cls) -> None:
        if any(worker.exitcode for worker in cls.workers):
            raise RuntimeError("a worker ended")


class _Told:
    """What torch's handler of SIGCHLD calls; its own check where no iterator looks after its workers."""

    def __init__(self, check: Callable[[], None]) -> None:
        self.own = check

    def __call__(self) -> None:
        (_Waiting.check if _Waiting.watched else self.own)()


Explain = Callable[[Sequence[BaseProcess], Exception], Exception | None]


def watch_workers(explain: Explain) -> Callable[[type[LOADER]], type[LOADER]]:
    """Let the loaders of a class have the iterators of `watched_workers`; torch has no public way to replace them."""

    def watch(cls: type[LOADER]) -> type[LOADER]:
        usual = cls._get_iterator
        cls._get_iterator = lambda loader: (  # type: ignore[method-assign, assignment]
            watched_workers(loader, explain) if loader.num_workers else usual(loader)
        )
        return cls

    return watch


def watched_workers(loader: "DataLoader[Any]", explain: Explain) -> Any:
    """Return the iterator of a loader with workers; it tells of a worker's death only when a batch is asked for.

    By itself, torch raises a RuntimeError from its handler of SIGCHLD, wherever the main process happens to be, such
    as in the writing of a checkpoint. `explain` gets the workers and an error, and returns the one to raise instead.
    """
    from torch.utils.data import dataloader

    handling: Any = import_module("torch.utils.data._utils.signal_handling")

    class Watched(dataloader._MultiProcessingDataLoaderIter):
        def __next__(self) -> Any:
            return self.ask(super().__next__)

        def _reset(self, loader: Any, first_iter: bool = False) -> None:
            self.ask(partial(super()._reset, loader, first_iter))

        def ask(self, function: Callable[[], Any]) -> Any:
            try:
                if threading.current_thread() is threading.main_thread():
                    _Waiting.workers = self._workers
                    _Waiting.check()  # one may have died since the last batch
                return function()
            except StopIteration:
                raise
            except Exception as error:
                _Waiting.workers = ()  # first of all, so that the death of another worker is not raised in here
                explained = explain(self._workers, error)
                if explained is None:
                    raise
                raise explained from error
            finally:
                _Waiting.workers = ()

        def _mark_worker_as_unavailable(self, worker_id: int, shutdown: bool = False) -> None:
            if shutdown or self._workers[worker_id].is_alive():
                super()._mark_worker_as_unavailable(worker_id, shutdown)
            self._workers_status[worker_id] = False  # all that is left to do for a dead one, which may hold a lock

        def _shutdown_workers(self) -> None:
            if self._shutdown or not any(worker.exitcode for worker in self._workers):
                super()._shutdown_workers()
                return
            # torch's own way would wait forever for a lock that the dead worker holds.
            self._shutdown, self._worker_pids_set = True, False
            handling._remove_worker_pids(id(self))
            for worker in self._workers:
                worker.kill()
                worker.join(5)  # not without limit: it may wait for a file server
            for queue in self._index_queues:
                queue.cancel_join_thread()
                queue.close()

    if not isinstance(handling._error_if_any_worker_fails, _Told):
        handling._error_if_any_worker_fails = _Told(handling._error_if_any_worker_fails)
    loader.check_worker_number_rationality()
    iterator = Watched(loader)
    weakref.finalize(iterator, _Waiting.watched.remove, None)
    _Waiting.watched.append(None)
    return iterator


def actions_of(parser: "ArgumentParser") -> "list[Action]":
    """Return the options of a parser; argparse has no public list."""
    return parser._actions


def type_of_option(action: "Action") -> Any:
    """Return the type that jsonargparse checks an option against; None if there is none."""
    return getattr(action, "_typehint", None)


def forget_import_rules() -> None:
    """Reset what this process has allowed and denied before; jsonargparse only adds to its list of denials."""
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
    """Return whether jsonargparse may import anything, that is, has no rule that denies imports by default."""
    from jsonargparse._common import parsing_settings

    return "*" not in parsing_settings["import_path_verdicts"]


def look_up_stubs_in(paths: list[Path]) -> None:
    """Set the folders of packages: jsonargparse would find them by `python -c` in the folder of a configuration."""
    from jsonargparse import _stubs_resolver
    from typeshed_client import get_search_context

    resolver = _stubs_resolver.StubsResolver(search_context=get_search_context(search_path=paths))
    _stubs_resolver.stubs_resolver = resolver  # type: ignore[assignment]  # declared as None


def plain_help() -> "type[HelpFormatter]":
    """Return the formatter of --help of a plain command: jsonargparse's, with PATH instead of `<class 'Path'>`."""
    import jsonargparse

    class Formatter(jsonargparse.DefaultHelpFormatter):
        def _get_type_str(self, action: "Action") -> str | None:
            text = super()._get_type_str(action)
            if text and text.startswith("Literal["):  # the choices stand beside the option
                return None
            text = re.sub(r"^Optional\[(.+)\]$", r"\1 | null", text or "")
            return text.replace("<class 'Path'>", "PATH").replace("Path |", "PATH |") or None

    return Formatter


def _replaced(cls: type[CLI], **methods: Callable[..., None]) -> type[CLI]:
    for name, method in methods.items():
        if not hasattr(cls, name):  # otherwise the new method would have no effect
            raise AttributeError(f"{cls.__name__} has no {name} any more: see {__name__}")
        setattr(cls, name, method)
    return cls
