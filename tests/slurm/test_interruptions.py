"""Fits that a real Slurm stops in all ways it knows come to the very same as one that it leaves alone.

Several jobs wait for Slurm at the same time; a thread looks after each. What Lightning's own auto-requeue does in
their place: the signal also reaches the loader's processes, each of which writes a checkpoint of the state it was
forked with, epoch 0, over the right one, and requeues the job a second time.
"""

import re
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.sameness import assert_same, checkpoint, curves
from tests.slurm.cluster import LARGE, Cluster
from tests.slurm.fits import EPOCHS, TRAIN_BATCHES, Bench, Fit

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

CONFIG = "configs/efficientnet.yaml"
PREEMPTED = ("train-1-3", "validation-2-1")


def reference(bench: Bench) -> list[Fit]:
    return [bench.submit(CONFIG).complete()]


def wall_time(bench: Bench) -> list[Fit]:
    # Slurm sends the signal up to a minute early: 29 to 59 s after each start of a job of one minute.
    fit = bench.submit(CONFIG, moments=("train-1-4", "train-2-6"), options=("--time=1", "--signal=SIGUSR1@1"))
    fit.reach("train-1-4")
    fit.reach("train-2-6")
    fit.await_restart(2)
    # The last stretch may take as long as it likes.
    bench.cluster.command("scontrol", "update", f"JobId={fit.job.id}", "TimeLimit=60")
    return [fit.complete()]


def held_python(bench: Bench, name: str) -> tuple[Path, Path, Path]:
    """An environment whose python holds when it is first called, before Python itself has started, until told to go on.

    Returns the environment, the file that shows that it holds, and the file that lets it go on.
    """
    folder = bench.folder / name
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "activate").write_text(f'PATH="{folder}/bin:{sys.prefix}/bin:$PATH"\n')
    python, held, go = folder / "bin" / "python", folder / "held", folder / "go"
    wait = f'while [[ ! -e "{go}" ]]; do sleep .1; done'
    python.write_text(
        f'#!/bin/bash\n[[ -e "{held}" ]] || {{ touch "{held}"; {wait}; }}\nexec "{sys.executable}" "$@"\n'
    )
    python.chmod(0o755)
    return folder, held, go


def preemption(bench: Bench) -> list[Fit]:
    environment, held, go = held_python(bench, "preempted")
    fit = bench.submit(
        CONFIG, moments=PREEMPTED, options=("--partition=low", f"--cpus-per-task={LARGE}"),
        environment={"BLDML_ENV": str(environment)},
    )  # fmt: skip
    fit.job.wait_until(held.exists, "its python was called")
    for number, moment in enumerate(("", *PREEMPTED), 1):
        if moment:
            fit.reach(moment)
        preemptor = bench.cluster.preempt()
        if not moment:
            fit.job.wait_until(lambda: fit.job.show()["PreemptTime"] != "None", "it was preempted")
            go.touch()
        fit.await_restart(number)
        preemptor.wait_for("COMPLETED")
    return [fit.complete()]


def preemption_that_cancels(bench: Bench) -> list[Fit]:
    fit = bench.submit(
        CONFIG, moments=("train-1-1",), options=("--partition=cancelled", f"--cpus-per-task={LARGE}")
    )  # fmt: skip
    fit.reach("train-1-1")
    bench.cluster.preempt()
    fit.job.wait_for("FAILED")
    return [fit]


def sigterm_by_hand(bench: Bench) -> list[Fit]:
    fit = bench.submit(CONFIG, moments=("train-1-1",))
    fit.reach("train-1-1")
    fit.job.signal("TERM")
    fit.job.wait_for("FAILED")
    return [fit]


def cancellation(bench: Bench) -> list[Fit]:
    fit = bench.submit(CONFIG, moments=("train-1-5",))
    fit.reach("train-1-5")
    fit.job.cancel()
    fit.job.wait_for("CANCELLED")
    fit.job.wait_until(lambda: "Saved" in fit.job.text, "it had saved", 60)
    resumed = bench.submit("--resume", f"lightning_logs/{fit.run.name}", moments=("validation-3-1",))
    resumed.interrupt("validation-3-1")
    return [fit, resumed.complete()]


def cancellation_while_saving(bench: Bench) -> list[Fit]:
    # The wall time's signal first; while the run saves, the user cancels the job.
    fit = bench.submit(CONFIG, moments=("train-0-3", "save-0"))
    fit.reach("train-0-3")
    fit.job.signal("USR1")
    fit.reach("save-0")
    fit.job.cancel()
    fit.job.wait_for("CANCELLED")
    fit.job.wait_until(lambda: "not requeued" in fit.job.text, "it had said that it is not requeued", 60)
    return [fit]


def killing(bench: Bench) -> list[Fit]:
    fit = bench.submit(CONFIG, "--checkpoint_minutes=0.0001", moments=("train-1-6", "save-2"))
    for moment in ("train-1-6", "save-2"):
        fit.reach(moment)
        fit.job.signal("KILL")
        fit.job.wait_for("FAILED")
        if moment == "train-1-6":
            fit.job.requeue()
    resumed = bench.submit("--resume", f"lightning_logs/{fit.run.name}")
    return [fit, resumed.complete()]


def early_moments(bench: Bench) -> list[Fit]:
    environment, held, go = held_python(bench, "early")
    fit = bench.submit(CONFIG, moments=("start", "validation-1-1"), environment={"BLDML_ENV": str(environment)})
    fit.job.wait_until(held.exists, "its python was called")
    fit.job.signal("USR1")
    time.sleep(2)  # Slurm does not say when the signal has arrived
    go.touch()
    fit.await_restart(1)
    fit.interrupt("start", "validation-1-1")
    return [fit.complete()]


def late_moments(bench: Bench) -> list[Fit]:
    last_batch = f"train-2-{TRAIN_BATCHES - 1}"
    fit = bench.submit(CONFIG, moments=("save-1", last_batch))
    fit.interrupt("save-1", last_batch)
    return [fit.complete()]


def array(bench: Bench) -> list[Fit]:
    whole = bench.submit(script="backbones.sbatch", moments=("train-1-3",), options=("--array=0-1",))
    fits = [Fit(type(whole.job)(bench.cluster, f"{whole.job.id}_{task}"), bench.folder) for task in (0, 1)]
    for fit in fits:
        fit.reach("train-1-3")
    for fit in fits:
        fit.job.signal("USR1")
    return [fit.complete() for fit in fits]


def other_seed(bench: Bench) -> list[Fit]:
    fit = bench.submit("configs/resnet50.yaml", moments=("exit",))
    fit.reach("exit")
    fit.job.signal("USR1")
    time.sleep(2)  # Slurm does not say when the signal has arrived
    fit.release("exit")
    return [fit.complete()]


# Those that take longest come first.
SCENARIOS: tuple[Callable[[Bench], list[Fit]], ...] = (
    wall_time, preemption, killing, cancellation, early_moments, late_moments, array, reference, other_seed,
    cancellation_while_saving, preemption_that_cancels, sigterm_by_hand,
)  # fmt: skip
# More at once would only compete for the processors, and Python take as long to start as a job's wall time.
AT_ONCE = 4
Fits = Callable[[Callable[[Bench], list[Fit]]], list[Fit]]


@pytest.fixture(scope="module")
def fits(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fits]:
    """What a scenario came to; the first call starts all of them."""
    bench = Bench(cluster, tmp_path_factory.mktemp("interruptions") / "work")
    with ThreadPoolExecutor(AT_ONCE) as threads:
        futures: dict[Callable[[Bench], list[Fit]], Future[list[Fit]]] = {
            scenario: threads.submit(scenario, bench) for scenario in SCENARIOS
        }
        yield lambda scenario: futures[scenario].result()


@pytest.fixture(scope="module")
def undisturbed(fits: Fits) -> Path:
    """The run that nobody interrupted."""
    return fits(reference)[0].run


def continued(fit: Fit) -> list[int]:
    """The steps from which a job went on, as its log says."""
    return [int(number) for number in re.findall(r"^[-:\d ]+ Resuming .* step (\d+)\.", fit.job.text, re.MULTILINE)]


def test_a_run_that_nobody_interrupts_is_whole(fits: Fits, undisturbed: Path) -> None:
    (fit,) = fits(reference)
    assert fit.job.restarts == 0
    assert "Resuming" not in fit.job.text
    points = curves(undisturbed)
    assert [step for step, _ in points["loss/val"]] == [TRAIN_BATCHES * epoch - 1 for epoch in range(1, EPOCHS + 1)]
    assert checkpoint(undisturbed / "checkpoints" / "last.ckpt")["global_step"] == TRAIN_BATCHES * EPOCHS


def test_the_wall_time_twice(fits: Fits, undisturbed: Path) -> None:
    (fit,) = fits(wall_time)
    assert fit.job.restarts >= 2  # more if a start took longer than its time
    assert_same(fit.run, undisturbed)


def test_a_signal_to_loader_workers_loses_no_step_and_requeues_once(fits: Fits) -> None:
    # With the stock parts the job would go on from step 0, and be requeued once more by each worker.
    (fit,) = fits(late_moments)
    assert fit.job.restarts == 2
    assert continued(fit) == [TRAIN_BATCHES, TRAIN_BATCHES * 3]
    assert fit.job.text.count("SIGUSR1 received") == 2


def test_a_signal_after_the_end_changes_nothing(fits: Fits) -> None:
    (fit,) = fits(other_seed)
    assert fit.job.restarts == 0


def test_no_requeue_is_taken_for_refused(fits: Fits) -> None:
    # Slurm ends the processes of a requeued job, scontrol's among them, before it has heard the answer.
    cancelled, *resumed = fits(cancellation)
    assert "not requeued: it was cancelled" in cancelled.job.text
    for fit in (
        *resumed,
        *(fit for scenario in (wall_time, early_moments, late_moments, array) for fit in fits(scenario)),
    ):
        assert "not requeued" not in fit.job.text


def test_the_script_starts_again_with_the_same_arguments(fits: Fits) -> None:
    (fit,) = fits(wall_time)
    starts = re.findall(r" start (\d+), on node: (.*)", fit.job.text)
    assert [int(number) for number, _ in starts] == list(range(1, fit.job.restarts + 2))
    assert {arguments for _, arguments in starts} == {
        f"fit --config {CONFIG} --config configs/slurm.yaml --trust_config"
    }


def test_preemption_before_python_listens_in_an_epoch_and_in_validation(fits: Fits, undisturbed: Path) -> None:
    (fit,) = fits(preemption)
    assert fit.job.restarts == 3
    assert fit.job.text.count("is requeued") == 3  # by itself, within the grace time
    assert_same(fit.run, undisturbed)


def test_a_cancelled_job_stays_dead_and_its_run_goes_on_in_another(fits: Fits, undisturbed: Path) -> None:
    cancelled, resumed = fits(cancellation)
    assert (cancelled.job.state, cancelled.job.restarts) == ("CANCELLED", 0)
    assert resumed.job.restarts == 1
    assert not resumed.run.exists()
    assert_same(cancelled.run, undisturbed)


def test_a_job_cancelled_while_it_saves_for_a_requeue_is_not_raised_from_the_dead(fits: Fits) -> None:
    (cancelled,) = fits(cancellation_while_saving)
    time.sleep(15)  # a requeued job would start again after six seconds
    assert (cancelled.job.state, cancelled.job.restarts) == ("CANCELLED", 0)
    assert checkpoint(cancelled.run / "checkpoints" / "last.ckpt")["global_step"] == 4


def test_killed_in_an_epoch_and_while_saving(fits: Fits, undisturbed: Path) -> None:
    killed, resumed = fits(killing)
    assert killed.job.state == "FAILED"
    # Within the second epoch, not at its start.
    assert TRAIN_BATCHES < continued(killed)[0] < 2 * TRAIN_BATCHES
    assert not resumed.run.exists()
    assert_same(killed.run, undisturbed)


@pytest.mark.parametrize("scenario", [preemption_that_cancels, sigterm_by_hand])
def test_where_slurm_will_not_requeue_the_job_leaves_at_once(
    scenario: Callable[[Bench], list[Fit]], fits: Fits
) -> None:
    (fit,) = fits(scenario)
    shown = fit.job.show()  # PREEMPTED or RUNNING if it had waited
    assert (shown["JobState"], shown["ExitCode"], shown["Restarts"]) == ("FAILED", "143:0", "0")
    assert "Saved" in fit.job.text
    assert f"--resume {fit.run}" in fit.job.text


@pytest.mark.parametrize(("scenario", "restarts"), [(early_moments, 3), (late_moments, 2)])
def test_signals_at_awkward_moments(
    scenario: Callable[[Bench], list[Fit]], restarts: int, fits: Fits, undisturbed: Path
) -> None:
    (fit,) = fits(scenario)
    assert fit.job.restarts == restarts
    assert_same(fit.run, undisturbed)


def test_two_jobs_of_an_array_interrupted_at_once(fits: Fits, undisturbed: Path) -> None:
    first, second = fits(array)
    assert (first.job.restarts, second.job.restarts) == (1, 1)
    assert_same(first.run, undisturbed)
    (other,) = fits(other_seed)
    assert_same(second.run, other.run)
    with pytest.raises(AssertionError):
        assert_same(second.run, undisturbed)


def test_every_job_in_one_directory_has_a_run_of_its_own(fits: Fits, undisturbed: Path) -> None:
    expected = {undisturbed, *(fit.run for fit in fits(array))}
    expected |= {fits(scenario)[0].run for scenario in SCENARIOS}
    assert set(undisturbed.parent.iterdir()) == expected
