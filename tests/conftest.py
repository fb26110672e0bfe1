"""What several test files share: drawn leaves, one small trained run, and the command line run inside this process."""

import ctypes
import gc
import importlib
import logging
import os
import sys
import warnings
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

# Before torch and numpy are loaded, here and in every process that a test starts: the tests share the cores among
# processes, and threads that wait for one another spin, which takes a fifth of the time of a small fit or audit.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import tests.three_layers  # noqa: F401  # adds the row before any test file imports the names of the backbones
from bldml.errors import BldmlError
from tests import prepared
from tests.support import SHARED, SMALL, Bldml, Outcome

# These take longest, those of Slurm mostly by waiting: begun first, none is left for the end.
LONGEST = (
    "slurm/test_interruptions.py",
    "app/test_interruption.py",
    "slurm/test_sweep.py",
    "test_every_system.py",
    "sweep/test_sweep.py",
    "sweep/test_search.py",
    "app/test_allowed.py",
    "test_real_photographs.py",
    "test_main_backbones.py",
    "slurm/test_ranks.py",
    "slurm/test_steps.py",
    "slurm/test_same_directory.py",
    "slurm/test_lost_node.py",
    "faults/test_faults.py",
    "app/test_evaluation.py",
    "app/test_fit.py",
    "browser/test_export_page.py",
    "report/test_page.py",
    "report/test_compare.py",
    "test_cli.py",
    "training/test_threads.py",
)
# What `make quick` leaves out, beside what its own file marks: whole folders and files, and whoever uses a trained run.
SLOW_PLACES = (
    "app",
    "audit",
    "browser",
    "dataset/test_lookalikes.py",
    "doctor/test_command.py",
    "export",
    "faults",
    "figures",
    "fuzz",
    "inference",
    "report/test_compare.py",
    "slurm",
    "sweep",
    "test_prefetch.py",
    "test_real_photographs.py",
    "training/networks/test_timm.py",
    "training/test_allocator.py",
    "training/test_signals.py",
)
# They use signals, links, modes, pipes, names of any bytes or a shell. What of them other systems have was not tried.
ONLY_LINUX = (
    *("audit/test_examine.py", "audit/test_usage.py", "app/test_after_evaluation.py", "app/test_cache_location.py"),
    *("app/test_evaluation.py", "app/test_interruption.py", "app/test_looks.py", "app/test_screen.py", "browser"),
    *("dataset/test_cache.py", "dataset/test_files.py", "dataset/test_folders.py", "dataset/test_images.py"),
    *(
        "dataset/test_manifest.py",
        "dataset/test_verify.py",
        "doctor",
        "fuzz",
        "messages",
        "run/test_folder.py",
        "slurm",
    ),
    *("test_prefetch.py", "test_printed_commands.py", "training/test_allocator.py", "training/test_signals.py"),
    *("training/test_slurm.py", "sweep"),
)
SLOW_FIXTURES = {"run", "split_leaves", "small_weights", "coffee"}


def pytest_addoption(parser: pytest.Parser) -> None:
    """The pages of messages are written anew on request."""
    parser.addoption("--update-messages", action="store_true", help="write tests/messages/*.txt anew")


def pytest_configure(config: pytest.Config) -> None:
    """Let pytest-xdist hand out the files in the order below; its own has the files of few long tests at the end.

    By default, searches for garbage take a tenth of the time; see below.
    """
    gc.set_threshold(20_000, 10, 10)
    config.option.loadscopereorder = False


def pytest_collection_finish() -> None:
    """Let no search for garbage visit the million objects of torch, Lightning and the tests, which stay.

    Hypothesis must be loaded: trio registers its generator there, and then asks who refers to it, which frozen objects
    no longer tell.
    """
    importlib.import_module("hypothesis")
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, None, None]:
    """After each file, give back what its fits have left; a process that keeps its freed memory grows to 5 GB."""
    yield
    if nextitem is None or nextitem.path != item.path:
        with warnings.catch_warnings(action="ignore"):  # of files that garbage holds open, as at the end of a process
            gc.collect()
        if sys.platform == "linux":
            ctypes.CDLL(None).malloc_trim(0)


def pytest_unconfigure() -> None:
    """End the process that others were forked from; let Python free what some libraries count at its end."""
    prepared.close()
    gc.unfreeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first, the order within a file stays; mark what is slow by what it uses."""
    here = Path(__file__).parent
    ranks = {here / name: rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(item.path, len(LONGEST)))
    places, only_linux = ({here / name for name in names} for names in (SLOW_PLACES, ONLY_LINUX))
    for item in items:
        if sys.platform != "linux" and only_linux & {item.path, *item.path.parents}:
            item.add_marker(pytest.mark.skip(reason="was only tried on Linux"))
        if places & {item.path, *item.path.parents} or SLOW_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session", autouse=True)
def shipped_figures() -> Iterator[tuple[int, dict[str, str]]]:
    """Gives dots per inch and formats of a user's figures; those of tests are coarse and SVG only, drawn sooner."""
    from bldml.figures import style

    shipped = style.DPI, style.FORMATS
    style.DPI, style.FORMATS = 50, {"svg": style.FORMATS["svg"]}
    yield shipped
    style.DPI, style.FORMATS = shipped


@pytest.fixture
def all_formats(shipped_figures: tuple[int, dict[str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures in all formats, for tests of their files."""
    from bldml.figures import style

    monkeypatch.setattr(style, "FORMATS", shipped_figures[1])


@pytest.fixture(scope="session", autouse=True)
def pixel_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where images are cached: not beside photographs that others use too."""
    folder = tmp_path_factory.mktemp("pixels")
    os.environ["BLDML_CACHE"] = str(folder)
    return folder


@pytest.fixture
def bldml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Bldml:
    """Run a command line in an empty folder, as `python -m bldml` would."""
    from bldml import cli

    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    mistakes: list[BldmlError] = []
    show_mistake = cli.show_mistake

    def show(error: BldmlError, command: str) -> int:
        mistakes.append(error)
        return show_mistake(error, command)

    monkeypatch.setattr(cli, "show_mistake", show)

    def run(*arguments: str | Path) -> Outcome:
        capsys.readouterr()
        mistakes.clear()
        # Lightning's handlers hold the error stream of whichever test imported it first.
        for name in [name for name in logging.root.manager.loggerDict if name.startswith("lightning")]:
            for handler in logging.getLogger(name).handlers:
                if isinstance(handler, logging.StreamHandler):
                    handler.stream = sys.stderr  # setStream would flush the closed one
        try:
            code = cli.main([str(argument) for argument in arguments])
        except SystemExit as stop:  # --help and --print_config end so
            code = int(stop.code or 0)
        out, err = capsys.readouterr()
        return Outcome(code, out, err, mistakes[-1] if mistakes else None)

    return run


@pytest.fixture(scope="session")
def leaves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A flat folder of drawn leaves: BLD and No_BLD, 30 each, 96 px."""
    from bldml.dataset.synthetic.leaves import write_leaves

    root = tmp_path_factory.mktemp("leaves") / "flat"
    write_leaves(root, images_per_class=30, size=96, seed=1)
    return root


@pytest.fixture(scope="session")
def split_leaves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn leaves in train, val and test folders."""
    from bldml.dataset.synthetic.leaves import write_leaves

    root = tmp_path_factory.mktemp("leaves") / "split"
    write_leaves(root, images_per_class=12, size=96, seed=2, splits={"train": 0.5, "val": 0.25, "test": 0.25})
    return root


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory, leaves: Path) -> Path:
    """One small trained run, through the real command line; whatever comes after training uses it."""
    from bldml.cli import main

    folder = tmp_path_factory.mktemp("run")
    before = Path.cwd()
    os.chdir(folder)
    try:
        options = (
            "--run_name=small",
            "--trainer.max_epochs=4",
            "--unfreezing.start_epoch=1",
            "--unfreezing.every_n_epochs=1",
            "--unfreezing.stages=2",
            "--plateau.patience=0",
            "--report=true",
        )
        assert main(["fit", *SMALL, f"--data.root={leaves}", *options]) == 0
    finally:
        os.chdir(before)
    return folder / "lightning_logs" / "small"


@pytest.fixture(scope="session")
def coffee() -> Path:
    """Real photographs of coffee leaves, where they are at hand."""
    folder = SHARED / "data" / "coffee" / "images"
    if not folder.is_dir():
        pytest.skip("the coffee photographs are not on this machine")
    return folder


@pytest.fixture(scope="session")
def small_weights() -> Path:
    """ImageNet weights of mobilenet_v2_x0_35, where they are at hand."""
    file = SHARED / "weights" / "mobilenet_v2_x0_35-imagenet-features.pth"
    if not file.is_file():
        pytest.skip("the small ImageNet weights are not on this machine")
    return file
