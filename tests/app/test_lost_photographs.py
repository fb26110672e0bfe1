"""A folder of photographs that is gone, or cannot be reached, is no folder of unreadable photographs."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from bldml.app.explain import command
from bldml.commands import COMMANDS
from bldml.dataset import images
from bldml.training.data import datamodule
from bldml.training.data.loading import LeafDataset
from tests.support import ALONE, THREE_LAYERS, Bldml


@pytest.fixture
def photographs(leaves: Path, tmp_path: Path) -> Path:
    return shutil.copytree(leaves, tmp_path / "photographs")


@pytest.fixture
def lose(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let something happen before the tenth photograph is decoded."""

    def arrange(happen: Callable[[], Any]) -> None:
        decode, count = images._decode, iter(range(1_000_000))

        def decode_or_lose(*arguments: Any) -> Any:
            if next(count) == 9:
                happen()
            return decode(*arguments)

        monkeypatch.setattr(images, "_decode", decode_or_lose)

    return arrange


def empty(folder: Path) -> None:
    """Leave the folder as a file system that is unmounted does."""
    shutil.rmtree(folder)
    folder.mkdir()


@pytest.mark.parametrize("leave", [shutil.rmtree, empty])
@pytest.mark.parametrize("verb", ["fit", "predict", "survey", "audit"])
def test_folder_is_gone_meanwhile(
    verb: str, leave: Callable[[Path], None], photographs: Path, run: Path, bldml: Bldml, lose: Callable[..., None]
) -> None:
    words: dict[str, list[Any]] = {
        "fit": [*THREE_LAYERS, f"--data.root={photographs}", "--data.unreadable=exclude", "--data.cache=off"],
        "predict": [run, photographs, "--data.unreadable=exclude", "--data.cache=off", "--data.num_workers=0"],
        "survey": [run, photographs, "--output=out", "--sheet=0"],
        "audit": [photographs, "--output=out", *ALONE, "--workers=1"],
    }
    lose(lambda: leave(photographs))
    outcome = bldml(verb, *words[verb])
    assert outcome.mistake == "photographs-gone", outcome.err
    assert outcome.fields["path"] in (photographs, photographs / "BLD", photographs / "No_BLD")
    assert "Was it moved or unmounted?" in outcome.err
    assert not Path("out/survey.csv").exists()


def test_one_photograph_is_missing_among_others(photographs: Path, bldml: Bldml, lose: Callable[..., None]) -> None:
    lose(lambda: sorted(photographs.glob("No_BLD/*"))[-1].unlink())
    words = [*THREE_LAYERS, f"--data.root={photographs}", "--data.cache=off", "--trainer.fast_dev_run=1"]
    assert bldml("fit", *words, "--data.unreadable=exclude").code == 0


@pytest.mark.parametrize("number", [errno.ESTALE, errno.ENOTCONN, errno.EMFILE, errno.EIO])
def test_reason_of_the_machine_excludes_no_photograph(
    number: int, photographs: Path, bldml: Bldml, lose: Callable[..., None]
) -> None:
    def fail() -> None:
        raise OSError(number, os.strerror(number))

    lose(fail)
    words = [*THREE_LAYERS, f"--data.root={photographs}", "--data.unreadable=exclude", "--data.cache=off"]
    outcome = bldml("fit", *words, "--trainer.fast_dev_run=1")
    if number == errno.EIO:  # a bad sector is of the one file
        assert outcome.code == 0
    else:
        assert outcome.mistake == "photographs-unreachable"
        assert outcome.fields["reason"] == os.strerror(number)


def test_folder_is_gone_in_an_epoch(photographs: Path, bldml: Bldml, monkeypatch: pytest.MonkeyPatch) -> None:
    give = LeafDataset.__getitem__

    def item(dataset: LeafDataset, key: tuple[int, int]) -> Any:
        if key[0] == 1:
            shutil.rmtree(photographs, ignore_errors=True)
        return give(dataset, key)

    monkeypatch.setattr(LeafDataset, "__getitem__", item)
    words = [*THREE_LAYERS, f"--data.root={photographs}", "--data.cache=off", "--run_name=lost"]
    outcome = bldml("fit", *words, "--data.num_workers=1", "--trainer.max_epochs=2")
    assert outcome.mistake == "photographs-gone", outcome.err
    assert f"Resume: python -m bldml fit --resume {Path('lightning_logs/lost').absolute()}" in outcome.err


@pytest.mark.parametrize("verb", ["fit", "predict", "explain"])
def test_another_photograph_in_its_place(
    verb: str, photographs: Path, run: Path, bldml: Bldml, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are all read first; then another whole photograph comes to the name of one."""
    first, second = sorted(photographs.rglob("*.jpg"))[:2]

    def replacing(module: Any, name: str) -> None:
        function = getattr(module, name)

        def replace_then_do(*arguments: Any, **options: Any) -> Any:
            shutil.copy(second, first)
            return function(*arguments, **options)

        monkeypatch.setattr(module, name, replace_then_do)

    replacing(command, "_explain") if verb == "explain" else replacing(datamodule, "LeafDataset")
    words: dict[str, list[Any]] = {
        "fit": [*THREE_LAYERS, f"--data.root={photographs}", "--data.cache=off", "--run_name=lost"],
        "predict": [run, photographs, "--data.cache=off", "--output=out"],
        "explain": [run, photographs, "--output=out"],
    }
    outcome = bldml(verb, *words[verb], *([] if verb == "explain" else ["--data.num_workers=0"]))
    assert outcome.code == 1
    assert outcome.mistake == ("photograph-unusable" if verb == "explain" else "photograph-changed"), outcome.err
    assert f"{first}: its content has changed since it was first read" in outcome.err.replace(" cannot be read", "")
    assert not Path("out/predictions.csv").exists()


def test_no_memory_is_told(bldml: Bldml, monkeypatch: pytest.MonkeyPatch) -> None:
    def allocate() -> None:
        """Ask for a petabyte."""
        torch.empty(2**50, dtype=torch.uint8)

    def ask() -> None:
        """Ask for it from Python."""
        bytearray(2**60)

    for name, function in (("allocate", allocate), ("ask", ask)):
        monkeypatch.setitem(COMMANDS, name, function)
        outcome = bldml(name)
        assert outcome.mistake == "memory-failed"
        assert outcome.err.startswith("bldml: error: There is not enough memory.")
