"""What a configuration may name: nothing that it holds is imported, called or opened unless it is allowed."""

import copy
import inspect
import itertools
import json
import os
import pkgutil
import shutil
import socket
import subprocess
import sys
import types
import typing
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

import lightning.pytorch
import pytest
import torch
from jsonargparse import ArgumentParser, Namespace, _stubs_resolver

import bldml.training
from bldml.app.allowed import ALLOWED, FREE_TEXT, allowed_paths, paths_of
from bldml.app.lightning_cli import LeafCLI
from bldml.errors import ConfigError
from bldml.training.resume.signals import InterruptSignals
from tests.prepared import Prepared
from tests.support import ALONE, REPOSITORY, SMALL, THREE_LAYERS, Bldml

ADDRESS = "http://127.0.0.1:9/sentinel"
SENTINELS: dict[str, Any] = {
    "function": "sentinel.function",
    "function with arguments": {"class_path": "sentinel.function", "init_args": {"text": "x"}},
    "class": {"class_path": "sentinel.Class"},
    "function of torch": {"class_path": "torch.hub.download_url_to_file", "init_args": {"url": ADDRESS, "dst": "x"}},
    "method of an allowed class": "lightning.pytorch.callbacks.ModelCheckpoint.format_checkpoint_name",
    "allowed class": {"class_path": "lightning.pytorch.callbacks.ModelSummary"},
    "address": ADDRESS,
    "chained address": f"simplecache::{ADDRESS}",
}
TEXTS = ("function", "method of an allowed class")
# Events of the interpreter itself, whoever causes them.
EVENTS = ("socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.system", "os.exec")
seen: list[str] = []
watching = False


def watch(event: str, arguments: tuple[Any, ...]) -> None:
    # Between processes of this machine; and git, asked for the version of bldml.
    local = event == "socket.connect" and arguments[0].family == socket.AF_UNIX
    local = local or (event == "subprocess.Popen" and arguments[0] == "git")
    if (
        watching
        and not local
        and (event in EVENTS or (event in ("open", "import") and "sentinel" in str(arguments[0])))
    ):
        seen.append(f"{event} {arguments[:2]}")


sys.addaudithook(watch)  # for good: they cannot be taken away


class Options(LeafCLI):
    """A command line that is parsed and whose classes are made only when it is asked for."""

    def instantiate_classes(self) -> None:
        pass

    def _run_subcommand(self, subcommand: str) -> None:
        pass

    def _set_seed(self) -> None:
        pass

    def feed(self, key: str, value: Any) -> bool:
        """Read a file with this value, and make the classes if it is accepted; whether it was."""
        content = value
        for part in reversed(key.split(".")):
            content = {part: content}
        Path("fed.yaml").write_text(json.dumps(content))
        try:
            self.config = self._parsed(self.parser, ["fit", *SMALL, "--config=fed.yaml"])
        except ConfigError:
            return False
        with suppress(Exception):  # a text that is no such thing is refused later, which is not looked at here
            LeafCLI.instantiate_classes(self)
        return True


def remember_defaults(parser: ArgumentParser) -> None:
    """Let a parser find its defaults once: they are the same for thousands of files, and take most of the time."""
    found: dict[str, Namespace] = {}
    find = parser.get_defaults

    def get_defaults(*arguments: Any, **options: Any) -> Namespace:
        key = repr((arguments, options))
        if key not in found:
            found[key] = find(*arguments, **options)
        return copy.deepcopy(found[key])

    parser.get_defaults = get_defaults  # type: ignore[method-assign]


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Options]:
    """A command line, in a folder of its own from which `sentinel` could be imported."""
    folder, before = tmp_path_factory.mktemp("allowed"), Path.cwd()
    (folder / "sentinel.py").write_text("raise RuntimeError('sentinel was imported')\n")
    sys.path.insert(0, str(folder))
    os.chdir(folder)
    found = Options(["fit", *SMALL], InterruptSignals())
    for parser in (found.parser, found._parser("fit")):
        remember_defaults(parser)
    found.feed(
        "trainer.strategy", {"class_path": "DDPStrategy"}
    )  # jsonargparse starts a process once, to look up types
    yield found
    os.chdir(before)
    sys.path.remove(str(folder))


@pytest.fixture
def watched() -> Iterator[None]:
    global watching
    seen.clear()
    watching = True
    yield
    watching = False
    assert seen == []
    assert "sentinel" not in sys.modules


def bases_in(hint: Any) -> set[type]:
    """The classes that a type hint names, however deep."""
    if isinstance(hint, type) and not isinstance(hint, types.GenericAlias):
        return {hint}
    return {base for argument in typing.get_args(hint) for base in bases_in(argument)}


def below(cls: type) -> Iterator[type]:
    yield cls
    children: list[type] = type.__subclasses__(cls)
    for child in children:
        yield from below(child)


def parameters(cls: type) -> set[str]:
    """All that its constructor takes, and those above it, to which it may pass on what it does not know."""
    names: set[str] = set()
    for ancestor in cls.__mro__[:-1]:
        if "__init__" in vars(ancestor):
            found = inspect.signature(ancestor.__init__).parameters.values()  # type: ignore[misc]
            names |= {p.name for p in found if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)} - {"self"}
    return names


@pytest.fixture
def places(options: Options) -> dict[str, list[type]]:
    """Each option that takes a class, and every class that Lightning, torch and bldml have for it."""
    for package in (lightning.pytorch, bldml.training):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            with suppress(Exception):  # for hardware and services that are not here
                import_module(module.name)
    found: dict[str, list[type]] = {}
    for action in options._parser("fit")._actions:
        bases = [b for b in bases_in(getattr(action, "_typehint", None)) if b.__module__.split(".")[0] in OURS]
        classes = {cls for base in bases for cls in below(base)}
        if classes:
            found[action.dest] = sorted(classes, key=lambda cls: f"{cls.__module__}.{cls.__qualname__}")
    return found


OURS = ("lightning", "torch", "torchvision", "torchmetrics", "bldml")


@pytest.mark.slow
def test_no_class_and_no_parameter_calls_or_opens_what_a_configuration_names(
    places: dict[str, list[type]], options: Options, watched: None
) -> None:
    """Whatever classes and parameters the installed Lightning has: they are found, not listed."""
    assert ALLOWED.keys() <= places.keys()
    wrong, classes, fed, taken = [], set(), 0, 0
    for key, found in places.items():
        for cls in found:
            classes.add(cls)
            path, names = f"{cls.__module__}.{cls.__qualname__}", sorted(parameters(cls))
            allowed = cls in ALLOWED.get(key, (None, ()))[1]
            if allowed:  # each parameter with each value, alone
                settings = [(what, {name: value}) for name in names for what, value in SENTINELS.items()]
            else:  # what is refused is refused whatever it holds: nothing, and all parameters at once, in three ways
                turns = [itertools.islice(itertools.cycle(SENTINELS.values()), first, None) for first in (0, 3, 6)]
                settings = [("", {}), *(("", dict(zip(names, turn, strict=False))) for turn in turns)]
            for what, values in settings:
                accepted = options.feed(key, {"class_path": path, "init_args": values})
                fed, taken = fed + 1, taken + accepted
                # What is text may be a name; then it stays text.
                if accepted and not (allowed and what in TEXTS):
                    wrong.append(f"{key}: {path}({', '.join(values)}={what})")
    assert not wrong, wrong
    assert len(classes) > 60
    assert 0 < taken < fed / 10
    print(f"{len(places)} options, {len(classes)} classes, {fed} values, of which {taken} were taken as text")


@pytest.mark.slow
def test_no_option_calls_or_opens_what_a_configuration_names(options: Options, watched: None) -> None:
    keys = [action.dest for action in options._parser("fit")._actions if getattr(action, "_typehint", None)]
    assert len(keys) > 100
    wrong = []
    for key in keys:
        if key == "resume":  # names a run folder, whose files are read to find out whether it can be resumed
            continue
        for what, sentinel in SENTINELS.items():
            for value in (sentinel, [sentinel]):
                if not options.feed(key, value):
                    continue
                own = what == "allowed class" and key == "trainer.callbacks"
                if not (what in TEXTS or own or key.startswith(FREE_TEXT)):
                    wrong.append(f"{key}={value}")
    assert not wrong, wrong


def test_what_is_allowed_is_what_its_place_expects() -> None:
    for place, (base, classes) in ALLOWED.items():
        for cls in classes:
            assert issubclass(cls, base), place
            assert not inspect.isabstract(cls), place
            for path in paths_of(cls):
                module, _, name = path.rpartition(".")
                assert getattr(import_module(module), name) is cls
    assert not [path for path in allowed_paths() if path.split(".")[0] not in ("lightning", "bldml")]


def test_the_promise_names_what_is_allowed() -> None:
    promise = (REPOSITORY / "SECURITY.md").read_text(encoding="utf-8")
    for _, classes in ALLOWED.values():
        for cls in classes:
            assert f"`{cls.__name__}`" in promise


HOSTILE = {
    "function for a callable": """
        trainer:
          callbacks:
            class_path: lightning.pytorch.callbacks.LambdaCallback
            init_args:
              on_fit_start:
                class_path: torch.fx.graph_module._exec_with_source
                init_args: {src: "open('PWNED', 'w').write('x')", globals: {}}
        """,
    "short name": "trainer: {callbacks: [{class_path: LambdaCallback, init_args: {setup: os.getcwd}}]}",
    "code cache": """
        trainer:
          callbacks:
            class_path: LambdaCallback
            init_args:
              on_fit_start:
                class_path: torch._inductor.codecache.PyCodeCache.load
                init_args: {source_code: "open('PWNED', 'w').write('x')"}
        """,
    "function where a class belongs": "trainer: {logger: {class_path: torch.hub.load, init_args: {repo_or_dir: .}}}",
    "function alone": "trainer: {profiler: torch.hub.load}",
    "downloading": """
        trainer:
          logger:
            class_path: torch.hub.download_url_to_file
            init_args: {url: "http://127.0.0.1:9/x", dst: PWNED}
        """,
    "unpickling": "trainer: {logger: {class_path: torch.serialization.load, init_args: {f: x, weights_only: false}}}",
    "hook of a strategy": """
        trainer:
          strategy:
            class_path: lightning.pytorch.strategies.DDPStrategy
            init_args:
              ddp_comm_hook: {class_path: torch.fx.graph_module._exec_with_source, init_args: {src: "1", globals: {}}}
        """,
    "hook by name": "trainer: {strategy: {class_path: DDPStrategy, init_args: {ddp_comm_hook: os.system}}}",
    "more than is known": "trainer: {strategy: {class_path: DDPStrategy, dict_kwargs: {nonsense: 1}}}",
    "logger that calls home": "trainer: {logger: {class_path: WandbLogger}}",
    "address of a folder": "trainer: {logger: {class_path: TensorBoardLogger, init_args: {save_dir: http://127.0.0.1:9}}}",
    "address of checkpoints": "trainer: {callbacks: [{class_path: ModelCheckpoint, init_args: {dirpath: s3://b/c}}]}",
    "address of all": "trainer: {default_root_dir: 'memory://x'}",
    "address of weights": "model: {weights: 'https://127.0.0.1:9/w.pth'}",
    "address of photographs": "data: {root: 'http://127.0.0.1:9/x'}",
    "class for the model": "model: {class_path: torch.nn.Linear, init_args: {in_features: 1, out_features: 1}}",
    "class for a number": "model: {lr: {class_path: torch.hub.load}}",
    "class for a path": "data: {cache_dir: {class_path: torch.hub.load}}",
    "module": "trainer: {plugins: [torch.utils.cpp_extension]}",
    "template that reaches into objects": """
        trainer:
          callbacks:
          - class_path: ModelCheckpoint
            init_args: {filename: "{epoch].backward.__globals__[torch].os.environ[HOME}"}
        """,
    "template that makes an address": """
        trainer:
          callbacks:
          - {class_path: ModelCheckpoint, init_args: {dirpath: "", filename: "http:{epoch:/>3}@127.0.0.1:9/{epoch}"}}
        """,
    "template without a name": "trainer: {callbacks: [{class_path: ModelCheckpoint, init_args: {filename: '{0}'}}]}",
    "template not closed": "trainer: {callbacks: [{class_path: ModelCheckpoint, init_args: {filename: '{epoch'}}]}",
    "variable of the environment": "trainer: {logger: {class_path: TensorBoardLogger, init_args: {save_dir: $HOME}}}",
    "variable that hides a scheme": """
        trainer: {logger: {class_path: TensorBoardLogger, init_args: {save_dir: "", name: "s${PL_GLOBAL_SEED}://b/x"}}}
        """,
    "address behind a space": "trainer: {default_root_dir: ' http:/127.0.0.1:9'}",
    "chained": "trainer: {default_root_dir: 'simplecache::x'}",
    "profiler by name": "trainer: {profiler: pytorch}",
    "strategy by name": "trainer: {strategy: deepspeed}",
    "precision by name": "trainer: {precision: transformer-engine}",
    "accelerator by name": "trainer: {accelerator: tpu}",
    "registry": "trainer: {model_registry: x}",
    "class for a group": "operating_point: {class_path: torch.hub.load}",
    "class for the card": "card: {class_path: torch.hub.load}",
    "itself": "model: &a [*a]",
    "more than fits": "a: &a [x]\n" + "".join(f"{n}: &{n} [{8 * f'*{p}, '}]\n" for p, n in pairwise("abcdefghijklmno")),
    "deep": "model: " + 3000 * "[" + 3000 * "]",
    "nothing": "# only a comment",
}  # fmt: skip


@pytest.mark.parametrize("verb", ["fit", "validate", "test", "predict", "resume"])
def test_hostile_configuration(verb: str, run: Path, leaves: Path, bldml: Bldml, watched: None) -> None:
    checkpoint = ("--ckpt_path", run / "checkpoints" / "best.ckpt", "--config=hostile.yaml")
    command = {"fit": ("fit", *SMALL, "--data.root", leaves, "--config=hostile.yaml"), "resume": ("fit", "--resume=r")}
    # The three commands that evaluate have one parser: each gets a third of the files.
    first, step = {"validate": (0, 3), "test": (1, 3), "predict": (2, 3)}.get(verb, (0, 1))
    for name, text in list(HOSTILE.items())[first::step]:
        Path("hostile.yaml").write_text(inspect.cleandoc(text))
        Path("r").mkdir(exist_ok=True)
        Path("r/config.yaml").write_text(inspect.cleandoc(text))
        outcome = bldml(*command.get(verb, (verb, *checkpoint)))
        assert outcome.code == 2, name
        assert "Traceback" not in outcome.err, name
        assert not Path("PWNED").exists(), name
        assert not Path("lightning_logs").exists(), name


@pytest.mark.parametrize("verb", ["fit", "doctor"])
def test_no_module_beside_a_configuration_is_run(verb: str, leaves: Path, bldml: Bldml) -> None:
    """Jsonargparse parses a file in its own folder, and would start a Python there to look up types."""
    Path("theirs").mkdir()
    Path("theirs/json.py").write_text("open('PWNED', 'w')\n")
    Path("theirs/c.yaml").write_text("trainer: {strategy: {class_path: DDPStrategy}, fast_dev_run: true}\n")
    _stubs_resolver.stubs_resolver = None  # as in a process that has parsed nothing yet
    bldml(verb, *SMALL, "--data.root", leaves, "--config=theirs/c.yaml", "--print_config")
    assert not Path("theirs/PWNED").exists()
    assert not Path("PWNED").exists()


@pytest.mark.parametrize("place", ["local://{}", "{}/x.ckpt/../../victim", "{}", "http://127.0.0.1:9/x.ckpt"])
def test_a_checkpoint_cannot_have_a_folder_removed(place: str, run: Path, bldml: Bldml, watched: None) -> None:
    """Checkpoint callbacks remember their files, and remove the worse ones, whatever a checkpoint says they are."""
    shutil.copytree(run, "lightning_logs/r")
    Path("victim").mkdir()
    Path("victim/precious.txt").write_text("x")
    target = place.format(Path("victim").absolute())
    last = Path("lightning_logs/r/checkpoints/last.ckpt")
    content = torch.load(last, weights_only=True)
    for state in content["callbacks"].values():
        if "best_k_models" in state:
            worst = torch.tensor(1e9)
            state |= {"best_k_models": {target: worst}, "kth_best_model_path": target, "kth_value": worst}
            state |= {"dirpath": os.path.realpath(last.parent), "best_model_score": worst}
    torch.save(content, last)
    config = Path("lightning_logs/r/config.yaml")
    config.write_text(config.read_text().replace("max_epochs: 4", "max_epochs: 6"))
    outcome = bldml("fit", "--resume=lightning_logs/r")
    assert outcome.code == 0, outcome.err
    assert "  5/5  " in outcome.err
    assert Path("victim/precious.txt").read_text() == "x"


def test_doctor_refuses_what_a_fit_refuses(leaves: Path, bldml: Bldml) -> None:
    Path("hostile.yaml").write_text(inspect.cleandoc(HOSTILE["function for a callable"]))
    outcome = bldml("doctor", *SMALL, "--data.root", leaves, "--config=hostile.yaml")
    assert outcome.code == 1
    assert "FAIL  configuration           hostile.yaml: trainer.callbacks may not name" in outcome.out
    assert "--trust_config" in outcome.out
    assert not Path("PWNED").exists()


def test_a_refusal_says_what_is_allowed_and_how_to_trust(leaves: Path, bldml: Bldml) -> None:
    err = bldml("fit", *SMALL, "--data.root", leaves, "--trainer.callbacks=LambdaCallback").err
    assert "trainer.callbacks may not name lightning.pytorch.callbacks.LambdaCallback" in err
    assert "  trainer.logger: CSVLogger, TensorBoardLogger\n" in err
    assert "With --trust_config it may name others. It can then run any program with your rights" in err
    err = bldml(
        "fit", *SMALL, "--data.root", leaves, "--trainer.logger=CSVLogger", f"--trainer.logger.save_dir={ADDRESS}"
    ).err
    assert f"trainer.logger.init_args.save_dir is a URL, {ADDRESS}" in err


def test_what_is_never_allowed_is_said_so(leaves: Path, bldml: Bldml) -> None:
    err = bldml("fit", *SMALL, "--data.root", leaves, "--trainer.callbacks=os.system", "--trust_config").err
    assert "os.system is on the parser's list of names that no configuration may use, trusted or not" in err


def test_an_address_in_the_card_is_text(options: Options, watched: None) -> None:
    assert options.feed("card.data_availability", "https://example.org/leaves")
    assert options.config.fit.card.data_availability == "https://example.org/leaves"


@pytest.mark.parametrize(
    "change",
    [
        {"hyper_parameters": {"_class_path": "sentinel.Class", "_instantiator": "sentinel.function"}},
        {"hyper_parameters": {"backbone": "resnet50", "lr": {"class_path": "sentinel.Class"}}},
        {"bldml": {"precision": {"class_path": "sentinel.Class"}}},  # not read: every evaluation is in float32
        {"bldml": {"data": {"class_aliases": {"class_path": "sentinel.Class"}, "unreadable": "sentinel.function"}}},
        {"bldml": {"data": {"root": ADDRESS}}},
    ],
)
def test_a_checkpoint_feeds_nothing_into_the_configuration(
    change: dict[str, Any], run: Path, tmp_path: Path, bldml: Bldml, watched: None
) -> None:
    content = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    content["hyper_parameters"] = change.get("hyper_parameters", {})
    settings = content["bldml"]["settings"]
    for key, value in change.get("bldml", {}).items():
        settings[key] = settings[key] | value if isinstance(settings[key], dict) else value
    torch.save(content, tmp_path / "best.ckpt")
    outcome = bldml("test", "--ckpt_path", tmp_path / "best.ckpt", "--trainer.accelerator=cpu", "--report=false")
    data = change.get("bldml", {}).get("data", {})
    # A root that is none is named for --data.root; a header that no fit has written is a damaged file.
    assert outcome.code == (2 if "root" in data else 1 if data else 0), outcome.err
    assert "Traceback" not in outcome.err


EVERYTHING = """
trainer:
  callbacks:
    - class_path: lightning.pytorch.callbacks.GradientAccumulationScheduler
      init_args: {scheduling: {1: 2}}
    - class_path: LearningRateMonitor
      init_args: {logging_interval: epoch}
    - class_path: lightning.pytorch.callbacks.model_checkpoint.ModelCheckpoint
      init_args: {filename: "{epoch}", save_top_k: -1}
    - class_path: ModelSummary
      init_args: {max_depth: 2}
    - class_path: TQDMProgressBar
      init_args: {refresh_rate: 0}
  logger:
    - {class_path: CSVLogger, init_args: {save_dir: mine}}
    - {class_path: TensorBoardLogger, init_args: {save_dir: mine, name: board}}
  profiler: {class_path: PROFILER, init_args: {dirpath: profiles, filename: mine}}
  plugins: [{class_path: bldml.training.slurm.RequeueEnvironment}]
"""


@pytest.mark.filterwarnings("ignore:Precision .* is not supported by the model summary")
@pytest.mark.parametrize("profiler", ["AdvancedProfiler", "SimpleProfiler"])
def test_what_is_allowed_works(profiler: str, leaves: Path, bldml: Bldml) -> None:
    Path("mine.yaml").write_text(EVERYTHING.replace("PROFILER", profiler))
    named = {"DDPStrategy", "Augmentation", *(c.__name__ for _, classes in ALLOWED.values() for c in classes)}
    text = EVERYTHING.replace("PROFILER", "AdvancedProfiler SimpleProfiler") + "DDPStrategy Augmentation"
    assert all(name in text for name in named), "try what was allowed anew"
    outcome = bldml(
        "fit", *SMALL, "--data.root", leaves, "--config=mine.yaml", "--trainer.max_epochs=2", "--run_name=r",
        "--data.augmentation={rotation: 5}", "--test_after_fit=false",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    assert sorted(path.name for path in Path("lightning_logs/r/more_checkpoints").iterdir()) == [
        "epoch=0.ckpt", "epoch=1.ckpt",
    ]  # fmt: skip
    assert Path("mine/lightning_logs/version_0/metrics.csv").is_file()
    assert list(Path("mine/board").rglob("events.out.tfevents.*"))
    assert list(Path("profiles").glob("fit-mine*"))


def test_an_allowed_strategy_works(leaves: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        "trainer: {strategy: {class_path: DDPStrategy, init_args: {static_graph: false}}}\n"
    )
    process = Prepared(
        [sys.executable, "-m", "tests.three_layers", "fit", *THREE_LAYERS, f"--data.root={leaves}",
         "--config=mine.yaml", "--trainer.devices=2", "--trainer.max_epochs=1", "--test_after_fit=false",
         "--run_name=r"],
        cwd=tmp_path, stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip
    _, err = process.communicate()
    assert process.returncode == 0, err
    assert (tmp_path / "lightning_logs/r/checkpoints/best.ckpt").is_file()


NO_NETWORK = """
import json, socket, sys
def refuse(event, arguments):
    if event == "socket.getaddrinfo" or (event == "socket.connect" and arguments[0].family != socket.AF_UNIX):
        raise SystemExit(f"{event} {arguments[1:]} by {command}")
sys.addaudithook(refuse)
from bldml.cli import main
from bldml.figures import style
style.DPI, style.FORMATS = 50, {"svg": "Date"}  # sooner drawn
for command in json.loads(sys.argv[1]):
    code = main(command)
    if code:
        raise SystemExit(f"{command} came to {code}")
print("no command connected to anything")
"""


@pytest.mark.slow
def test_no_command_connects_to_anything(run: Path, leaves: Path, tmp_path: Path) -> None:
    """But prefetch, and a fit whose ImageNet weights are not there yet."""
    shutil.copytree(run, tmp_path / "again")
    given, cpu = ["--ckpt_path", str(tmp_path / "again" / "checkpoints" / "best.ckpt")], "--trainer.accelerator=cpu"
    commands = [
        ["demo", "drawn", "--images_per_class=2", "--size=96"],
        ["split", str(leaves), "--output", "splits.csv"],
        ["audit", *ALONE, str(leaves), "--output", "audit"],
        ["doctor", *SMALL, f"--data.root={leaves}"],
        ["fit", *SMALL, f"--data.root={leaves}", "--data.manifest=splits.csv", "--trainer.max_epochs=1",
         "--report=true", "--data.num_workers=2", "--trainer.default_root_dir=a", "--run_name=r"],
        ["fit", "--resume=a/lightning_logs/r", "--report=false"],
        ["validate", *given, cpu, "--output=v", "--report=false"],
        ["test", *given, cpu, "--output=t", "--report=false"],
        ["predict", *given, cpu, f"--data.root={leaves / 'BLD'}", "--output=p"],
        ["explain", *given, str(leaves / "BLD" / "leaf_0001.jpg"), "--output=e"],
        ["report", "a/lightning_logs/r"],
        ["compare", str(run), "again", "--output=c"],
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", NO_NETWORK, json.dumps(commands)],
        cwd=tmp_path, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "no command connected to anything" in done.stdout
