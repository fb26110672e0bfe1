"""The contract: every private name that bldml touches is there, or a sentence says which is gone and who needs it."""

import argparse
import ast
import dis
import inspect
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import pytest
import torch
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.trainer.connectors import checkpoint_connector
from torchmetrics import Metric

from bldml.training import lightning_internals

CONNECTORS = "lightning.pytorch.trainer.connectors"
LOOPS = "lightning.pytorch.loops"
PARSING = (
    "jsonargparse._common:parsing_settings",
    "jsonargparse._loaders_dumpers:loaders",
    "jsonargparse._loaders_dumpers:loader_exceptions",
    "jsonargparse._loaders_dumpers:loader_json_superset",
    "jsonargparse._loaders_dumpers:loader_params",
    "jsonargparse._optionals:_config_read_mode",
    "jsonargparse._stubs_resolver:stubs_resolver",
)
# Of each function, where its private names are: a module and what is in it, or what an object of it has.
NEEDED: dict[str, tuple[str, ...]] = {
    "disarm": (
        f"{CONNECTORS}.checkpoint_connector:_CheckpointConnector._hpc_resume_path",
        f"{CONNECTORS}.signal_connector:_SignalConnector.register_signal_handlers",
        "lightning.pytorch:Trainer._checkpoint_connector",
        "lightning.pytorch:Trainer._signal_connector",
    ),
    "attached_trainer": ("lightning.pytorch:LightningModule._trainer",),
    "is_between_steps": (
        f"{LOOPS}.fit_loop:_FitLoop._data_fetcher",
        f"{LOOPS}.fit_loop:_FitLoop._should_accumulate",
        f"{LOOPS}.training_epoch_loop:_TrainingEpochLoop._should_check_val_fx",
    ),
    "has_gradients_waiting": (f"{LOOPS}.fit_loop:_FitLoop._should_accumulate",),
    "can_end_early": (f"{LOOPS}.fit_loop:_FitLoop._can_stop_early",),
    "batches_logged": (f"{LOOPS}.training_epoch_loop:_TrainingEpochLoop._batches_that_stepped",),
    "let_ddp_skip_parameters": ("lightning.pytorch.strategies:DDPStrategy._ddp_kwargs",),
    "is_started_by_fork": ("lightning.pytorch.strategies.launchers.multiprocessing:_MultiProcessingLauncher",),
    "forget_hyper_parameters": ("lightning.pytorch.cli:LightningCLI._parse_ckpt_path",),
    "parse_only": (
        "lightning.pytorch.cli:LightningCLI._run_subcommand",
        "lightning.pytorch.cli:LightningCLI._set_seed",
    ),
    "metric_state": ("torchmetrics:Metric._update_count", "torchmetrics:Metric._defaults"),
    "put_metric_state": ("torchmetrics:Metric._update_count", "torchmetrics:Metric._computed"),
    "is_batchnorm": ("torch.nn.modules.batchnorm:_BatchNorm",),
    "is_dropout": ("torch.nn.modules.dropout:_DropoutNd",),
    "version_of": ("torch:Tensor._version",),
    "leave_scaling": ("torch.optim:AdamW._step_supports_amp_scaling",),
    "cpu_has_bf16": ("torch:cpu._is_avx512_bf16_supported",),
    "built_architectures": ("torch:_C._cuda_getArchFlags",) if torch.version.cuda else ("torch:_C",),
    "send_mistakes_whole": (
        "torch._utils:ExceptionWrapper.reraise",
        "torch.utils.data._utils.worker:ExceptionWrapper",
    ),
    "watch_workers": ("torch.utils.data:DataLoader._get_iterator",),
    "watched_workers": tuple(
        f"torch.utils.data.dataloader:_MultiProcessingDataLoaderIter.{name}"
        for name in (
            *("_index_queues", "_mark_worker_as_unavailable", "_reset", "_shutdown", "_shutdown_workers"),
            *("_worker_pids_set", "_workers"),
        )
    )
    + tuple(
        f"torch.utils.data._utils.signal_handling:{name}"
        for name in ("_error_if_any_worker_fails", "_remove_worker_pids")
    ),
    "actions_of": ("argparse:ArgumentParser._actions",),
    "type_of_option": ("jsonargparse._typehints:ActionTypeHint._typehint",),
    "forget_import_rules": (
        "jsonargparse._common:default_import_path_denylist",
        "jsonargparse._common:parsing_settings",
    ),
    "parsing_state": PARSING,
    "put_parsing_state": PARSING,
    "may_import_anything": ("jsonargparse._common:parsing_settings",),
    "look_up_stubs_in": (
        "jsonargparse._stubs_resolver:StubsResolver",
        "jsonargparse._stubs_resolver:stubs_resolver",
    ),
    "plain_help": ("jsonargparse:DefaultHelpFormatter._get_type_str",),
}


def has(place: str) -> bool:
    """Whether a name is there: in its module, on its class, or given to each object by a constructor."""
    module, _, path = place.partition(":")
    try:
        owner: object = import_module(module)
    except ImportError:
        return False
    for name in path.split("."):
        if hasattr(owner, name):
            owner = getattr(owner, name)
        else:
            return isinstance(owner, type) and any(name in names for names in names_in_constructors(owner))
    return True


def names_in_constructors(cls: type) -> Iterator[tuple[str, ...]]:
    for base in cls.__mro__:
        function = inspect.unwrap(base.__init__) if "__init__" in vars(base) else None  # type: ignore[misc]
        if inspect.isfunction(function):
            yield tuple(step.argval for step in dis.get_instructions(function) if step.opname == "STORE_ATTR")


def moved() -> list[str]:
    """A sentence for each name that is gone."""
    sentences = []
    for function, places in NEEDED.items():
        why = (inspect.getdoc(getattr(lightning_internals, function)) or "").splitlines()[0]
        for place in places:
            library = place.split(":")[0].split(".")[0]
            number = version(library) if library != "argparse" else ""
            if not has(place):
                sentences.append(
                    f"{library} {number} has no {place.replace(':', '.')} any more; "
                    f"bldml.training.lightning_internals.{function} needs it: {why}"
                )
    return sentences


def test_nothing_has_moved() -> None:
    found = moved()
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize(
    ("owner", "name", "sentence"),
    [
        (
            LightningCLI,
            "_parse_ckpt_path",
            "_parse_ckpt_path any more; .*.forget_hyper_parameters needs it: Prevent a",
        ),
        (
            checkpoint_connector,
            "_CheckpointConnector",
            "_hpc_resume_path any more; .*.disarm needs",
        ),
        (
            Metric,
            "__init__",
            "torchmetrics 1.*Metric._update_count any more; .*.metric_state needs it: Return the state",
        ),
        (argparse._ActionsContainer, "__init__", "argparse.ArgumentParser._actions any more; .*.actions_of needs it"),
    ],
)
def test_what_moves_is_named(
    owner: type | ModuleType, name: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(owner, name)
    found = "\n".join(moved())
    with pytest.raises(AssertionError, match=sentence):
        assert not found, found


def test_every_private_name_is_in_the_contract() -> None:
    tree = ast.parse(Path(lightning_internals.__file__).read_text(encoding="utf-8"))
    functions = {f.name: f for f in tree.body if isinstance(f, ast.FunctionDef) and not f.name.startswith("_")}
    assert functions.keys() == NEEDED.keys()
    for function, node in functions.items():
        needed = {part for place in NEEDED[function] for part in place.replace(":", ".").split(".")}
        private = {name for name in map(name_of, ast.walk(node)) if name.startswith("_") and not name.endswith("__")}
        # The last is of instances: tests/app/test_lost_loaders.py fails without it.
        assert private - {"_replaced", "_cuda_getArchFlags", "_Told", "_Waiting", "_workers_status"} <= needed, function


def name_of(node: ast.AST) -> str:
    match node:
        case ast.Attribute(attr=name) | ast.alias(name=name) | ast.FunctionDef(name=name) | ast.Name(id=name):
            return name
        case ast.keyword(arg=str(name)) | ast.Constant(value=str(name)):
            return name if name.isidentifier() else ""
    return ""
