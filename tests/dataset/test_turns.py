"""Turns at decoding photographs into the cache: those who have waited in vain do not keep one another waiting."""

import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from bldml.dataset.cache import turns
from bldml.dataset.cache.turns import take_turn
from bldml.dataset.cache.writer import ImageCache
from bldml.dataset.samples import Sample
from bldml.dataset.synthetic.leaves import write_leaves
from bldml.dataset.verify import verify
from tests.support import REPOSITORY

SIDE, SIZE = 40, 32
# A process that keeps what it gets until its input ends.
WAIT = """
import sys
from pathlib import Path
from bldml.dataset.cache import turns
from bldml.dataset.samples import Sample
folder, root = map(Path, sys.argv[1:])
samples = [Sample(path, path.name) for path in sorted(root.rglob("*.jpg"))]
turns.LOOK_S = 1e9
tell = lambda text: print(text, flush=True)
turn = turns.take_turn([folder], 40, 32, root, [samples[:5], samples[5:]], lambda: None, tell)
tell("turn" if turn else "no turn")
sys.stdin.read()
"""


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    """Eight drawn leaves."""
    write_leaves(tmp_path / "leaves", images_per_class=4, size=96)
    return [Sample(path, path.name) for path in sorted((tmp_path / "leaves").rglob("*.jpg"))]


def fill(folder: Path, samples: Sequence[Sample]) -> None:
    cache = ImageCache([folder], SIDE, SIZE, len(samples), write=True)
    assert len(list(verify(samples, SIZE, 1, cache))) == len(samples)
    cache.close()


def test_three_who_waited_go_on_together(tmp_path: Path, samples: list[Sample]) -> None:
    folder, root = tmp_path / "cache", tmp_path / "leaves"
    turn = take_turn([folder], SIDE, SIZE, root, [samples], lambda: None, print)
    assert turn is not None
    with ExitStack() as stack:
        command = [sys.executable, "-c", WAIT, str(folder), str(root)]
        waiters = [
            stack.enter_context(
                subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY)
            )
            for _ in range(3)
        ]
        for waiter in waiters:
            assert waiter.stdout is not None
            assert waiter.stdout.readline().startswith("Waiting: another process is decoding")
        fill(folder, samples)
        turn.close()
        assert [waiter.stdout.readline() for waiter in waiters if waiter.stdout] == ["no turn\n"] * 3


def test_waiting_ends_once_every_split_is_cached(
    tmp_path: Path, samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also while the other process keeps its turn; nothing is said against it then."""
    monkeypatch.setattr(turns, "LOOK_S", 0.0)
    monkeypatch.setattr(turns, "PATIENCE_S", 0.0)
    folder, root, splits = tmp_path / "cache", tmp_path / "leaves", [samples[:5], samples[5:]]
    left, said = list(splits), []

    def decode() -> None:
        said.append(f"{len(left)} left")
        if left:
            fill(folder, left.pop(0))

    command = [sys.executable, "-c", WAIT, str(folder), str(root)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "turn\n"
        assert take_turn([folder], SIDE, SIZE, root, splits, decode, said.append) is None
        assert other.stdin is not None
        other.stdin.close()
    waiting = f"Waiting: another process is decoding these photographs into {folder}."
    assert said == ["2 left", waiting, "1 left"]
