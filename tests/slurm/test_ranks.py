"""Two ranks under srun: the same as each other, as one with their common batch, and as without an interruption."""

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from tests.sameness import assert_same, checkpoint
from tests.slurm.cluster import LARGE, Cluster
from tests.slurm.fits import EPOCHS, Bench, Fit

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

CONFIG = "configs/efficientnet.yaml"
TWO = ("--trainer.devices=2", "--trainer.strategy=ddp", "--data.batch_size=4")
# Statistics of a batch are those of a rank's own share of it.
COMMON = ("--model.freeze_batchnorm=true",)
NO_DROPOUT = {"NO_DROPOUT": "1"}
# The node's name has no address; gloo would take that of the host's.
LOOPBACK = {"MASTER_ADDR": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo"}


def submit_two(bench: Bench, moments: Sequence[str] = (), options: Sequence[str] = ()) -> Fit:
    return bench.submit(
        CONFIG, *TWO, *COMMON, moments=moments, options=("--ntasks-per-node=2", *options),
        environment={**LOOPBACK, **NO_DROPOUT},
    )  # fmt: skip


def two_ranks(bench: Bench) -> Fit:
    return submit_two(bench).complete()


def two_ranks_interrupted(bench: Bench) -> Fit:
    near_the_wall_time, preempted = moments = ("train-1-4", "validation-2-1")
    fit = submit_two(bench, moments, ("--partition=low", f"--cpus-per-task={LARGE // 2}"))
    fit.interrupt(near_the_wall_time, ranks=2)
    fit.reach(preempted, ranks=2)
    bench.cluster.preempt()
    fit.await_restart(2)  # within the grace time: one rank decides for both
    return fit.complete()


def one_rank(bench: Bench) -> Fit:
    return bench.submit(CONFIG, *COMMON, environment=NO_DROPOUT).complete()


SCENARIOS: tuple[Callable[[Bench], Fit], ...] = (two_ranks_interrupted, two_ranks, one_rank)
Fits = Callable[[Callable[[Bench], Fit]], Fit]


@pytest.fixture(scope="module")
def fits(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fits]:
    """What a scenario came to; the first call starts all of them."""
    bench = Bench(cluster, tmp_path_factory.mktemp("ranks") / "work")
    with ThreadPoolExecutor(len(SCENARIOS)) as threads:
        futures = {scenario: threads.submit(scenario, bench) for scenario in SCENARIOS}
        yield lambda scenario: futures[scenario].result()


@pytest.mark.parametrize("scenario", [two_ranks, two_ranks_interrupted])
def test_ranks_are_equal_after_each_epoch(scenario: Callable[[Bench], Fit], fits: Fits) -> None:
    fit = fits(scenario)
    epochs = [json.loads((fit.moments / f"epoch-{epoch}.json").read_text()) for epoch in range(EPOCHS)]
    for hashes in epochs:
        assert len(hashes) == 2
        assert hashes[0] == hashes[1]
    assert len({hashes[0] for hashes in epochs}) == EPOCHS, "nothing was learnt"
    with (fit.run / "history.csv").open(newline="") as file:
        fractions = [float(row["trainable_share"]) for row in csv.DictReader(file)]
    assert fractions[0] < fractions[1] < fractions[2], "nothing unfrozen"


def test_two_ranks_interrupted_come_to_the_same(fits: Fits) -> None:
    fit = fits(two_ranks_interrupted)
    assert fit.job.restarts == 2
    assert fit.job.text.count("is requeued") == 2
    assert_same(fit.run, fits(two_ranks).run)


def test_two_ranks_learn_what_one_does_with_their_common_batch(fits: Fits) -> None:
    two, one = (fits(scenario).run / "checkpoints" / "last.ckpt" for scenario in (two_ranks, one_rank))
    ours, theirs = checkpoint(two)["state_dict"], checkpoint(one)["state_dict"]
    assert ours.keys() == theirs.keys()
    # The order of summation differs; dropout, which does so on purpose, is switched off. Steps are of 1e-3.
    far = [key for key, value in theirs.items() if not torch.allclose(ours[key], value, rtol=1e-3, atol=1e-4)]
    assert not far
