"""GPU, precision, CPUs and memory, judged from what a machine says of itself."""

from dataclasses import replace

import pytest
import torch

from bldml.doctor.configuration import Settings
from bldml.doctor.hardware import (
    CU126,
    Gpu,
    check_cpus,
    check_gpu,
    check_memory,
    check_partition_gpu,
    check_precision,
    runs_on,
)
from bldml.training.module import LeafClassifier
from tests.doctor.settings import SETTINGS

CU132 = ("sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120")
V100 = Gpu("Tesla V100-SXM2-32GB", (7, 0), CU132, "13.2", "Tesla V100-SXM2-32GB, 570.1")
L40S = Gpu("NVIDIA L40S", (8, 9), CU132, "13.2", "NVIDIA L40S, 580.2", bf16=True)
NONE = Gpu(architectures=CU132, built_for="13.2")


@pytest.mark.parametrize(
    ("capability", "architectures", "answer"),
    [
        ((8, 0), ("sm_80",), True),
        ((8, 9), ("sm_80", "sm_90"), True),
        ((8, 0), ("sm_86",), False),
        ((9, 0), ("sm_80",), False),
        ((7, 0), CU132, False),
        ((7, 0), ("sm_50", "sm_60", "sm_70"), True),
        ((12, 1), ("compute_120",), True),
        ((9, 0), ("compute_120",), False),
        ((9, 0), ("sm_90a",), True),
        ((9, 1), ("sm_90a",), False),
        ((8, 0), (), False),
    ],
)
def test_code_for_a_device(capability: tuple[int, int], architectures: tuple[str, ...], answer: bool) -> None:
    assert runs_on(capability, architectures) is answer


@pytest.mark.parametrize(
    ("gpu", "accelerator", "status", "words"),
    [
        (L40S, "auto", "OK", "sm_89"),
        (V100, "auto", "FAIL", CU126),
        (replace(L40S, architectures=("sm_90",)), "gpu", "FAIL", "no code for sm_89"),
        (NONE, "auto", "WARN", "on the CPU"),
        (NONE, "gpu", "FAIL", "trainer.accelerator is gpu"),
        (NONE, "cuda", "FAIL", "--trainer.accelerator cpu"),
        (NONE, "cpu", "OK", "not needed"),
        (replace(NONE, driver="Tesla V100, 470.1"), "auto", "FAIL", "PyTorch for CUDA 13.2 cannot use it"),
        (Gpu(driver="Tesla V100, 470.1"), "auto", "FAIL", "CPU build"),
        (replace(NONE, driver="Tesla V100, 470.1"), "cpu", "OK", "not needed"),
    ],
)
def test_gpu(gpu: Gpu, accelerator: str, status: str, words: str) -> None:
    finding = check_gpu(gpu, replace(SETTINGS, accelerator=accelerator))
    assert finding.status == status
    assert words in f"{finding.found}\n{finding.remedy}"


@pytest.mark.parametrize(
    ("gpu", "partition", "status", "words"),
    [
        (NONE, "gpu-v100", "FAIL", CU126),
        (replace(NONE, architectures=("sm_60", "sm_70"), built_for="12.6"), "gpu-v100", "OK", "sm_70"),
        (NONE, "gpu-l40s", "OK", "sm_89"),
        (NONE, "gpu-a100-mig7", "OK", "sm_80"),
        (Gpu(), "gpu-v100", "FAIL", CU126),
        (Gpu(), "gpu-a100", "FAIL", "CPU build"),
        (Gpu(built_for="13.2"), "gpu-a100", "SKIP", "does not report"),
    ],
)
def test_build_for_the_gpus_of_a_partition(gpu: Gpu, partition: str, status: str, words: str) -> None:
    (finding,) = check_partition_gpu(gpu, partition)
    assert finding.status == status
    assert words in f"{finding.found}\n{finding.remedy}"


def test_partition_without_a_known_gpu_says_nothing() -> None:
    assert not list(check_partition_gpu(NONE, "atlas"))
    assert not list(check_partition_gpu(NONE, ""))


@pytest.mark.parametrize(
    ("gpu", "precision", "status", "words"),
    [
        (V100, "bf16-mixed", "WARN", "--trainer.precision 16-mixed"),
        (V100, "16-mixed", "OK", "Tesla"),
        (L40S, "bf16-mixed", "OK", "L40S"),
        (L40S, "16-true", "WARN", "train poorly"),
        (NONE, "16-mixed", "OK", "bf16 instead"),
        (NONE, "32-true", "OK", "the CPU"),
    ],
)
def test_precision(gpu: Gpu, precision: str, status: str, words: str) -> None:
    finding = check_precision(gpu, replace(SETTINGS, precision=precision))
    assert (finding.status, words in f"{finding.found}\n{finding.remedy}") == (status, True), finding


@pytest.mark.parametrize(
    ("granted", "environ", "workers", "statuses"),
    [
        (8, {}, "auto", ["OK"]),
        (8, {}, 8, ["OK"]),
        (2, {}, 8, ["WARN"]),
        (8, {"SLURM_CPUS_PER_TASK": "8", "SLURM_STEP_ID": "0"}, "auto", ["OK", "OK"]),
        (1, {"SLURM_CPUS_PER_TASK": "8", "SLURM_STEP_ID": "0"}, "auto", ["OK", "WARN"]),
        (8, {"SLURM_CPUS_PER_TASK": "8"}, "auto", ["OK", "WARN"]),
        (8, {"SLURM_CPUS_PER_TASK": "8", "SRUN_CPUS_PER_TASK": "8"}, "auto", ["OK", "OK"]),
    ],
)
def test_cpus(granted: int, environ: dict[str, str], workers: int | str, statuses: list[str]) -> None:
    findings = list(check_cpus(granted, environ, replace(SETTINGS, num_workers=workers)))
    assert [finding.status for finding in findings] == statuses
    if statuses[-1] == "WARN" and environ:
        assert "export SRUN_CPUS_PER_TASK=" in findings[-1].remedy


def test_memory_is_not_tried_where_no_gpu_is_used() -> None:
    model = LeafClassifier("mobilenet_v2_x0_35", "none", 64)
    finding = check_memory(replace(SETTINGS, accelerator="cpu"), model)
    assert finding.status == "SKIP"


@pytest.mark.parametrize(
    ("peak", "status", "words"),
    [
        (5 * 2**30, "OK", "5.0 GiB of 10.0 GiB"),
        (9.5 * 2**30, "WARN", "--data.batch_size 4"),
        (None, "FAIL", "needs more than 10.0 GiB"),
    ],
)
def test_memory_is_judged_by_the_step_taken(
    peak: float | None, status: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def step(model: LeafClassifier, settings: Settings) -> int:
        if peak is None:
            raise torch.OutOfMemoryError
        return int(peak)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (2**30, 10 * 2**30))
    monkeypatch.setattr("bldml.doctor.hardware.training_step", step)
    finding = check_memory(SETTINGS, LeafClassifier("mobilenet_v2_x0_35", "none", 64))
    assert finding.status == status
    assert words in f"{finding.found}\n{finding.remedy}"


@pytest.mark.gpu
def test_step_on_a_real_gpu_needs_more_for_more_photographs() -> None:
    if not torch.cuda.is_available():
        pytest.skip("there is no GPU")
    from bldml.doctor.hardware import training_step

    model = LeafClassifier("mobilenet_v2_x0_35", "none", 64)
    few, many = (training_step(model, replace(SETTINGS, batch_size=size)) for size in (2, 512))
    model.cpu()
    assert 0 < few < many
