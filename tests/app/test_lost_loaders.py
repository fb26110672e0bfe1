"""Loader processes that are killed, or cannot pass photographs on, end a command with one true sentence."""

import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import get_worker_info

from bldml.app.screen import epochs
from bldml.dataset.samples import Sample
from bldml.errors import MachineError
from bldml.training.data.loading import EvaluationSampler, Item, LeafDataset, LeafLoader, leaf_loader
from bldml.training.resume.state import AtomicCheckpointIO
from tests.support import REPOSITORY, THREE_LAYERS, Bldml, Outcome, mistake

KILLED = "A loader process was killed (signal 9, SIGKILL). The usual cause is memory"


@pytest.fixture
def end_worker_if(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let worker processes end, instead of giving a photograph, where something holds."""

    def arrange(doomed: Callable[[LeafDataset], bool], end: Callable[[], Any] | int = signal.SIGKILL) -> None:
        give = LeafDataset.__getitem__

        def item(dataset: LeafDataset, key: tuple[int, int]) -> Item:
            if get_worker_info() is not None and doomed(dataset):
                end() if callable(end) else os.kill(os.getpid(), end)
            return give(dataset, key)

        monkeypatch.setattr(LeafDataset, "__getitem__", item)

    return arrange


def check_told(outcome: Outcome, run: Path | None) -> None:
    """One sentence that is true, and how to go on."""
    assert outcome.mistake == "loader-killed", outcome.err
    assert (outcome.fields["signal"], outcome.fields["workers"]) == (9, 1)
    assert KILLED in outcome.err
    assert all(word in outcome.err for word in ("--mem", "--data.num_workers, which is 1"))
    assert not [word for word in ("Traceback", "callback", "checkpoint") if word in outcome.err]
    assert (f"Resume: python -m bldml fit --resume {run}\n" in outcome.err) == (run is not None)


@pytest.mark.parametrize("phase", ["sanity check", "training", "validation", "save", "after the fit"])
def test_killed_in_a_fit(
    phase: str, leaves: Path, bldml: Bldml, end_worker_if: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = [*THREE_LAYERS, f"--data.root={leaves}", "--run_name=hurt", "--trainer.max_epochs=1"]
    options += ["--data.num_workers=1", "--data.cache=off"]
    with monkeypatch.context() as fault:
        now = Path("now").absolute()
        if phase == "sanity check":
            options.append("--trainer.num_sanity_val_steps=1")
        if phase == "save":
            save = AtomicCheckpointIO.save_checkpoint

            def kill_and_save(*arguments: Any, **options: Any) -> None:
                for worker in multiprocessing.active_children():
                    os.kill(worker.pid or 0, signal.SIGKILL)
                    worker.join()
                save(*arguments, **options)

            fault.setattr(AtomicCheckpointIO, "save_checkpoint", kill_and_save)
            options[options.index("--trainer.max_epochs=1")] = "--trainer.max_epochs=2"
        elif phase == "after the fit":
            say_ending = epochs.say_ending

            def note_and_say(*arguments: Any) -> None:
                now.touch()
                say_ending(*arguments)

            fault.setattr("bldml.app.lightning_cli.say_ending", note_and_say)
            end_worker_if(lambda _: now.exists())
        else:
            end_worker_if(lambda dataset: (dataset.augmentation is None) == (phase != "training"))
        check_told(bldml("fit", *options), Path("lightning_logs/hurt").absolute())
    if phase == "save":
        assert Path("lightning_logs/hurt/checkpoints/last.ckpt").is_file()


@pytest.mark.parametrize("verb", ["validate", "test", "predict"])
def test_killed_in_an_evaluation(
    verb: str, run: Path, leaves: Path, bldml: Bldml, end_worker_if: Callable[..., None]
) -> None:
    end_worker_if(lambda _: True)
    options = [] if verb == "validate" else [f"--data.root={leaves}"]
    outcome = bldml(verb, run, *options, "--data.num_workers=1", "--data.cache=off", "--output=out")
    check_told(outcome, None)
    assert not Path("out").exists()


@pytest.fixture
def loader(leaves: Path) -> Callable[[], LeafLoader]:
    samples = [Sample(path, path.name, "BLD") for path in sorted(leaves.glob("BLD/*"))[:8]]
    return lambda: leaf_loader(LeafDataset(samples, "BLD", 64), EvaluationSampler(len(samples)), 2, 2, 0)


@pytest.mark.parametrize(
    ("end", "code", "words"),
    [
        (signal.SIGBUS, "loader-killed", "(signal 7, SIGBUS). The usual cause is memory. Loader processes pass"),
        (
            signal.SIGSEGV,
            "loader-killed",
            "(signal 11, SIGSEGV). The usual causes are memory and an error in a library",
        ),
        (signal.SIGUSR1, "loader-killed", ""),  # ignored: only its parent interrupts a loader
        (signal.SIGALRM, "loader-killed", "(signal 14, SIGALRM). The system or another program sent that signal"),
        (lambda: os._exit(3), "loader-ended", "ended by itself (exit code 3). --data.num_workers 0"),
    ],
)
def test_what_is_known_of_the_end(
    end: Any, code: str, words: str, loader: Callable[[], LeafLoader], end_worker_if: Callable[..., None]
) -> None:
    end_worker_if(lambda _: True, end)
    if not words:
        assert len(list(loader())) == 4
        return
    with mistake(code) as raised:
        list(loader())
    assert words in str(raised.value)


def test_death_is_told_where_its_loader_is_asked_and_nowhere_else(loader: Callable[[], LeafLoader]) -> None:
    before = multiprocessing.active_children()
    hurt, other = iter(loader()), iter(loader())
    next(hurt)
    victim = next(child for child in hurt._workers if child not in before)
    os.kill(victim.pid, signal.SIGKILL)
    victim.join()
    time.sleep(0.1)  # the handler of SIGCHLD runs here, and raises nothing
    assert len(list(other)) == 4
    with mistake("loader-killed", signal=9):
        list(hurt)


def test_killed_worker_takes_a_lock_along(loader: Callable[[], LeafLoader]) -> None:
    hurt = iter(loader())
    next(hurt)
    with hurt._workers_done_event._cond:  # as if the worker had held it
        hurt._workers[0].kill()
        hurt._workers[0].join()
        with pytest.raises(RuntimeError, match="exited unexpectedly"):  # torch notices it first, while it waits
            all(hurt._try_get_data(0.2) for _ in range(100))
        with mistake("loader-killed"):
            list(hurt)
        hurt._shutdown_workers()
    assert not any(worker.is_alive() for worker in hurt._workers)


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    before, ignored = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


def test_shared_memory_is_full(loader: Callable[[], LeafLoader]) -> None:
    with file_size_limit(1000), mistake("shared-memory-full", reason="File too large", workers=2) as raised:
        list(loader())
    assert "/dev/shm, of whose" in str(raised.value)
    assert isinstance(raised.value, MachineError)


def descendants(process: int) -> list[int]:
    """The processes that a process has started, and so on."""
    found = []
    for task in Path(f"/proc/{process}/task").glob("*/children"):
        with suppress(OSError):
            found += [int(child) for child in task.read_text().split()]
    return [one for child in found for one in (child, *descendants(child))]


def lives(process: int) -> bool:
    """Whether it exists and has not ended."""
    with suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def is_loader_of_rank_1(process: int) -> bool:
    with suppress(OSError):
        about = Path(f"/proc/{process}")
        is_rank = b"\0LOCAL_RANK=1\0" in b"\0" + (about / "environ").read_bytes()
        # What a process is named after: pt_data_worker in newer versions of torch, else as the main one.
        parent = int((about / "stat").read_text().rpartition(")")[2].split()[1])
        above = b"\0" + Path(f"/proc/{parent}/environ").read_bytes()
        return is_rank and b"\0LOCAL_RANK=1\0" in above
    return False


@pytest.mark.slow
def test_killed_in_the_second_of_two_processes(leaves: Path, tmp_path: Path) -> None:
    """Both end, with the sentence of the one that lost it, and the run can be resumed."""
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "MASTER_", "LOCAL_", "NODE_"))},
        **{"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
        **{"MASTER_ADDR": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo"},
    }
    options = [f"--data.root={leaves}", "--trainer.devices=2", "--data.batch_size=4", "--data.num_workers=1"]
    options += ["--run_name=r", "--trainer.max_epochs=1000", "--early_stopping.patience=1000", "--data.cache=off"]
    command = [sys.executable, "-m", "tests.three_layers", "fit", *THREE_LAYERS, *options]
    run = tmp_path / "lightning_logs/r"
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        while process.poll() is None and not (run / "checkpoints/last.ckpt").exists():
            time.sleep(0.05)
        started = descendants(process.pid)
        for one in filter(is_loader_of_rank_1, started):
            os.kill(one, signal.SIGKILL)
        _, err = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == 1, err
    assert err.count(KILLED) == 1
    assert "The connection to another process of this training is broken." in err
    assert f"Resume: python -m bldml fit --resume {run}" in err
    assert "Traceback" not in err, err
    end = time.monotonic() + 60  # loaders look every few seconds whether their parent lives
    while any(map(lives, started)) and time.monotonic() < end:
        time.sleep(0.1)
    assert not [one for one in started if lives(one)]
