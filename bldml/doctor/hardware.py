"""GPU, precision and CPUs: whether this PyTorch can use those of this machine, or of the requested partition."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bldml.doctor.checks import GIVE_CONFIG, Finding, fail, ok, ok_or_warn, skip, warn
from bldml.doctor.configuration import Settings
from bldml.doctor.tools import ask
from bldml.training.lightning_internals import built_architectures

V100 = (7, 0)
# The last builds with code for a V100 are those for CUDA 12.6, of torch 2.10 to 2.14.
CU126 = "pip install 'torch>=2.10,<2.15' torchvision --index-url …/whl/cu126     (PyTorch's builds for CUDA 12.6)"
# GPU name contained in a partition's name -> its compute capability.
CAPABILITIES = {"v100": V100, "a100": (8, 0), "l40": (8, 9), "h100": (9, 0), "h200": (9, 0), "t4": (7, 5)}
ON_GPU = ("gpu", "cuda")


@dataclass(frozen=True)
class Gpu:
    """The GPU that a fit would use, and the PyTorch build.

    Attributes:
        name: Name reported by the driver; empty if PyTorch finds no GPU.
        capability: Its compute capability.
        architectures: Architectures that the build has code for, such as sm_80 and compute_120.
        built_for: CUDA version of the build; None for a CPU build.
        driver: Device and driver reported by nvidia-smi; empty if it reports nothing.
        bf16: Whether the device supports bf16 in hardware.
    """

    name: str = ""
    capability: tuple[int, int] = (0, 0)
    architectures: tuple[str, ...] = ()
    built_for: str | None = None
    driver: str = ""
    bf16: bool = False


def detect_gpu() -> Gpu:
    """Return the GPU found by PyTorch and nvidia-smi."""
    import torch

    cuda: Any = torch.cuda
    built_for = torch.version.cuda
    answer = ask("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader")
    driver = answer.text.splitlines()[0] if answer.good and answer.text else ""
    if not cuda.is_available():
        # get_arch_list() is empty without a GPU, though the build holds what it holds.
        return Gpu(architectures=built_architectures(), built_for=built_for, driver=driver)
    return Gpu(
        cuda.get_device_name(0),
        cuda.get_device_capability(0),
        tuple(cuda.get_arch_list()),
        built_for,
        driver,
        cuda.is_bf16_supported(including_emulation=False),
    )


def runs_on(capability: tuple[int, int], architectures: Sequence[str]) -> bool:
    """Return whether a build runs on a device: code for its generation and not newer, or PTX for the driver to compile.

    >>> runs_on((8, 9), ["sm_80"]), runs_on((7, 0), ["sm_75", "compute_120"]), runs_on((12, 1), ["compute_120"])
    (True, False, True)
    """
    for architecture in architectures:
        match = re.fullmatch(r"(sm|compute)_(\d+)(\d)", architecture)  # sm_90a and similar run on exactly that device
        if match is None:
            continue
        known = (int(match[2]), int(match[3]))
        if match[1] == "compute" and known <= capability:
            return True
        if match[1] == "sm" and known[0] == capability[0] and known[1] <= capability[1]:
            return True
    return f"sm_{capability[0]}{capability[1]}a" in architectures


def check_gpu(gpu: Gpu, settings: Settings | None) -> Iterable[Finding]:
    """Check that there is a GPU that this PyTorch build can use."""
    name = "GPU"
    if gpu.name:
        sm = f"sm_{gpu.capability[0]}{gpu.capability[1]}"
        found = f"{gpu.name}, {sm}; PyTorch for CUDA {gpu.built_for}; driver {gpu.driver or 'not known'}"
        if runs_on(gpu.capability, gpu.architectures):
            yield ok(name, found)
        else:
            remedy = CU126 if gpu.capability == V100 else "install a build of torch with code for this device"
            yield fail(name, f"{found}. The build has no code for {sm}, only for {' '.join(gpu.architectures)}", remedy)
        return
    wanted = settings.accelerator if settings else "auto"
    if gpu.driver and wanted != "cpu":
        reason = (
            f"PyTorch for CUDA {gpu.built_for} cannot use it" if gpu.built_for else "this is a CPU build of PyTorch"
        )
        yield fail(
            name,
            f"nvidia-smi finds {gpu.driver}, but {reason}",
            "install a build for a CUDA version that the driver supports (nvidia-smi shows it at the upper right), for "
            f"example\n{CU126}",
        )
    elif wanted in ON_GPU:
        yield fail(
            name,
            f"no GPU on this machine, but trainer.accelerator is {wanted}",
            "request one: #SBATCH --gres=gpu:1, or run doctor inside a job; without a GPU: --trainer.accelerator cpu",
        )
    elif wanted == "cpu":
        yield ok(name, "not needed (trainer.accelerator is cpu)")
    else:
        yield warn(
            name,
            "no GPU on this machine: a fit started here would run on the CPU",
            "submit a job with #SBATCH --gres=gpu:1; with --trainer.accelerator gpu a fit refuses to run without a GPU",
        )


def check_partition_gpu(gpu: Gpu, partition: str) -> Iterable[Finding]:
    """Check that this PyTorch build runs on the GPUs of a partition, if its name contains their type."""
    kind = next((kind for kind in CAPABILITIES if kind in partition.lower()), None)
    name = f"PyTorch for {partition}"
    if kind is None:
        return
    capability = CAPABILITIES[kind]
    sm = f"sm_{capability[0]}{capability[1]}"
    if not gpu.built_for:
        remedy = CU126 if capability == V100 else "pip install --force-reinstall torch torchvision"
        yield fail(name, f"this is a CPU build of PyTorch; the partition's GPUs are {sm}", remedy)
    elif not gpu.architectures:
        yield skip(name, f"this PyTorch does not report its architectures; the partition's GPUs are {sm}")
    else:
        good = runs_on(capability, gpu.architectures)
        architectures = " ".join(gpu.architectures)
        remedy = CU126 if capability == V100 else "use another partition, or another build of torch"
        found = f"{sm}; the build for CUDA {gpu.built_for} has code for {architectures}"
        yield ok_or_warn(good, name, found, remedy, otherwise="FAIL")


def check_precision(gpu: Gpu, settings: Settings | None) -> Iterable[Finding]:
    """Check that the device supports the configured precision."""
    name = "precision"
    if settings is None:
        yield skip(name, GIVE_CONFIG)
        return
    precision = settings.precision
    on_gpu = bool(gpu.name) and settings.accelerator != "cpu"
    if not on_gpu and precision in ("16-mixed", "16"):
        yield ok(name, f"{precision}; a CPU uses bf16 instead, or float32")
    elif on_gpu and "bf16" in precision and not gpu.bf16:
        yield warn(
            name,
            f"{precision}: the {gpu.name} does not support bf16 and would emulate it slowly",
            "--trainer.precision 16-mixed",
        )
    elif precision in ("16-true", "bf16-true"):
        yield warn(name, f"{precision}: weights stored in 16 bits train poorly", "--trainer.precision 16-mixed")
    else:
        yield ok(name, f"{precision} on {gpu.name if on_gpu else 'the CPU'}")


def check_cpus(granted: int, environ: Mapping[str, str], settings: Settings | None) -> Iterable[Finding]:
    """Check that this process has enough CPUs for the workers, and as many as the job requested."""
    name = "CPUs"
    workers = settings.num_workers if settings else "auto"
    found = f"{granted} available; data.num_workers {workers}"
    too_many = isinstance(workers, int) and workers > granted
    yield ok_or_warn(
        not too_many,
        name,
        found,
        f"--data.num_workers auto, or {granted}; or more CPUs: #SBATCH --cpus-per-task={workers}",
    )
    asked = environ.get("SLURM_CPUS_PER_TASK", "")
    if not asked.isdigit():
        return
    name = "CPUs of the step"
    remedy = "export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK     (in the sbatch file, before srun)"
    if granted < int(asked):
        yield warn(name, f"the job requested {asked} per task, this process may use {granted}", remedy)
    elif "SLURM_STEP_ID" not in environ and "SRUN_CPUS_PER_TASK" not in environ:
        yield warn(
            name, "since Slurm 22.05 srun does not inherit --cpus-per-task; SRUN_CPUS_PER_TASK is not set", remedy
        )
    else:
        yield ok(name, f"{granted}, as requested by the job")
