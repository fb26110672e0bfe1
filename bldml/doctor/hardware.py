"""GPU, precision, CPUs: whether this PyTorch can use what this machine, or the partition asked for, has."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bldml.doctor.checks import GIVE_CONFIG, Finding, fail, ok, ok_or_warn, skip, warn
from bldml.doctor.configuration import Settings
from bldml.doctor.tools import ask
from bldml.training.lightning_internals import built_architectures

V100 = (7, 0)
# The last builds that hold code for a V100 are those for CUDA 12.6, of torch 2.10 to 2.14.
CU126 = "pip install 'torch>=2.10,<2.15' torchvision --index-url …/whl/cu126     (PyTorch's builds for CUDA 12.6)"
# Name of a GPU inside the name of a partition -> its compute capability.
CAPABILITIES = {"v100": V100, "a100": (8, 0), "l40": (8, 9), "h100": (9, 0), "h200": (9, 0), "t4": (7, 5)}
ON_GPU = ("gpu", "cuda")


@dataclass(frozen=True)
class Gpu:
    """The GPU that a fit would take, and the build of PyTorch that would use it.

    Attributes:
        name: As its driver calls it; empty where PyTorch sees none.
        capability: Its compute capability.
        architectures: What the build holds code for, such as sm_80 and compute_120.
        built_for: CUDA version of the build; None for a build for the CPU.
        driver: What nvidia-smi says of device and driver; empty where it says nothing.
        bf16: Whether the device computes in bf16 itself.
    """

    name: str = ""
    capability: tuple[int, int] = (0, 0)
    architectures: tuple[str, ...] = ()
    built_for: str | None = None
    driver: str = ""
    bf16: bool = False


def look_at_gpu() -> Gpu:
    """Ask PyTorch and nvidia-smi."""
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
    """Whether a build runs on a device: code for its generation that is not newer, or PTX that its driver compiles.

    >>> runs_on((8, 9), ["sm_80"]), runs_on((7, 0), ["sm_75", "compute_120"]), runs_on((12, 1), ["compute_120"])
    (True, False, True)
    """
    for architecture in architectures:
        match = re.fullmatch(r"(sm|compute)_(\d+)(\d)", architecture)  # sm_90a and the like run on that device alone
        if match is None:
            continue
        known = (int(match[2]), int(match[3]))
        if match[1] == "compute" and known <= capability:
            return True
        if match[1] == "sm" and known[0] == capability[0] and known[1] <= capability[1]:
            return True
    return f"sm_{capability[0]}{capability[1]}a" in architectures


def check_gpu(gpu: Gpu, settings: Settings | None) -> Iterable[Finding]:
    """Whether there is a GPU that this build of PyTorch can use."""
    name = "GPU"
    if gpu.name:
        sm = f"sm_{gpu.capability[0]}{gpu.capability[1]}"
        found = f"{gpu.name}, {sm}; PyTorch for CUDA {gpu.built_for}; driver {gpu.driver or 'not known'}"
        if runs_on(gpu.capability, gpu.architectures):
            yield ok(name, found)
        else:
            remedy = CU126 if gpu.capability == V100 else "install a build of torch that holds code for this device"
            yield fail(name, f"{found}. The build holds no code for {sm}: {' '.join(gpu.architectures)}", remedy)
        return
    wanted = settings.accelerator if settings else "auto"
    if gpu.driver and wanted != "cpu":
        reason = f"PyTorch for CUDA {gpu.built_for} cannot use it" if gpu.built_for else "this PyTorch is for the CPU"
        yield fail(
            name,
            f"nvidia-smi sees {gpu.driver}, but {reason}",
            "install a build for a CUDA version that the driver knows (nvidia-smi shows it at the upper right), such "
            f"as\n{CU126}",
        )
    elif wanted in ON_GPU:
        yield fail(
            name,
            f"none here, and trainer.accelerator is {wanted}",
            "ask for one: #SBATCH --gres=gpu:1, or look again inside a job; without: --trainer.accelerator cpu",
        )
    elif wanted == "cpu":
        yield ok(name, "none is wanted (trainer.accelerator is cpu)")
    else:
        yield warn(
            name,
            "none here: a fit started on this machine would run on the CPU",
            "start it as a job with #SBATCH --gres=gpu:1; trainer.accelerator gpu refuses to run without one",
        )


def check_partition_gpu(gpu: Gpu, partition: str) -> Iterable[Finding]:
    """Whether this build of PyTorch runs on the GPUs of a partition, as far as its name tells them."""
    kind = next((kind for kind in CAPABILITIES if kind in partition.lower()), None)
    name = f"PyTorch for {partition}"
    if kind is None:
        return
    capability = CAPABILITIES[kind]
    sm = f"sm_{capability[0]}{capability[1]}"
    if not gpu.built_for:
        remedy = CU126 if capability == V100 else "pip install --force-reinstall torch torchvision"
        yield fail(name, f"this PyTorch is for the CPU; the partition's GPUs are {sm}", remedy)
    elif not gpu.architectures:
        yield skip(name, f"this PyTorch does not say what it holds code for; the partition's GPUs are {sm}")
    else:
        good = runs_on(capability, gpu.architectures)
        held = " ".join(gpu.architectures)
        remedy = CU126 if capability == V100 else "take another partition, or another build of torch"
        found = f"{sm}; the build for CUDA {gpu.built_for} holds {held}"
        yield ok_or_warn(good, name, found, remedy, otherwise="FAIL")


def check_precision(gpu: Gpu, settings: Settings | None) -> Iterable[Finding]:
    """Whether the device computes in the precision asked for."""
    name = "precision"
    if settings is None:
        yield skip(name, GIVE_CONFIG)
        return
    precision = settings.precision
    on_gpu = bool(gpu.name) and settings.accelerator != "cpu"
    if not on_gpu and precision in ("16-mixed", "16"):
        yield ok(name, f"{precision}; a CPU computes in bf16 instead, or in float32")
    elif on_gpu and "bf16" in precision and not gpu.bf16:
        yield warn(
            name,
            f"{precision}: the {gpu.name} has no bf16 and would imitate it, slowly",
            "--trainer.precision 16-mixed",
        )
    elif precision in ("16-true", "bf16-true"):
        yield warn(name, f"{precision}: weights themselves in 16 bits learn badly", "--trainer.precision 16-mixed")
    else:
        yield ok(name, f"{precision} on {gpu.name if on_gpu else 'the CPU'}")


def check_cpus(granted: int, environ: Mapping[str, str], settings: Settings | None) -> Iterable[Finding]:
    """Whether the CPUs that this process may use are enough for the workers, and as many as the job asked for."""
    name = "CPUs"
    workers = settings.num_workers if settings else "auto"
    found = f"{granted} granted; data.num_workers {workers}"
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
        yield warn(name, f"the job asked for {asked} a task, this process may use {granted}", remedy)
    elif "SLURM_STEP_ID" not in environ and "SRUN_CPUS_PER_TASK" not in environ:
        yield warn(name, "srun does not pass --cpus-per-task on since Slurm 22.05; SRUN_CPUS_PER_TASK is unset", remedy)
    else:
        yield ok(name, f"{granted}, as the job asked for")
