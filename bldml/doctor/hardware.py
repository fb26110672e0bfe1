"""GPU, its memory, precision and CPUs: whether this PyTorch can use those of this machine or of a partition."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bldml.doctor.checks import GIVE_CONFIG, Finding, fail, ok, ok_or_fail, ok_or_warn, skip, warn
from bldml.doctor.configuration import Settings
from bldml.doctor.tools import ask
from bldml.io.text import counted
from bldml.training.lightning_internals import built_architectures

if TYPE_CHECKING:
    from bldml.training.module import LeafClassifier

Capability = tuple[int, int]
V100 = (7, 0)
# The last builds with code for a V100 are those for CUDA 12.6, of torch 2.10 to 2.14.
CU126 = "pip install 'torch>=2.10,<2.15' torchvision --index-url …/whl/cu126     (PyTorch's builds for CUDA 12.6)"
# GPU name contained in a partition's name -> its compute capability.
CAPABILITIES = {"v100": V100, "a100": (8, 0), "l40": (8, 9), "h100": (9, 0), "h200": (9, 0), "t4": (7, 5)}
MAX_MEMORY = 0.9  # of the GPU, used by one training step


@dataclass(frozen=True)
class Gpu:
    """The GPU that a fit would use, and the PyTorch build."""

    name: str = ""  # empty if PyTorch finds no GPU
    capability: Capability = (0, 0)
    architectures: tuple[str, ...] = ()  # that the build has code for, such as sm_80 and compute_120
    built_for: str | None = None  # CUDA version of the build; None for a CPU build
    driver: str = ""  # device and driver reported by nvidia-smi; empty if it reports nothing
    bf16: bool = False  # supported in hardware
    count: int = 0


def detect_gpu() -> Gpu:
    """Return the GPU found by PyTorch and nvidia-smi."""
    import torch

    cuda: Any = torch.cuda
    built_for = torch.version.cuda
    answer = ask("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader")
    driver = answer.text.partition("\n")[0] if answer.code == 0 else ""
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
        cuda.device_count(),
    )


def runs_on(capability: Capability, architectures: Sequence[str]) -> bool:
    """Return whether a build runs on a device: code for its generation and not newer, or PTX for the driver to compile.

    >>> runs_on((8, 9), ["sm_80"]), runs_on((7, 0), ["sm_75", "compute_120"]), runs_on((12, 1), ["compute_120"])
    (True, False, True)
    """
    for architecture in architectures:
        match = re.fullmatch(r"(sm|compute)_(\d+)(\d)", architecture)  # sm_90a and similar run on exactly that device
        if match is None:
            continue
        known = (int(match[2]), int(match[3]))
        if known <= capability and (match[1] == "compute" or known[0] == capability[0]):
            return True
    return f"{_sm(capability)}a" in architectures


def _sm(capability: Capability) -> str:
    return f"sm_{capability[0]}{capability[1]}"


def check_gpu(gpu: Gpu, settings: Settings | None) -> Finding:
    """Check that there is a GPU that this PyTorch build can use."""
    name = "GPU"
    if gpu.name:
        sm = _sm(gpu.capability)
        found = f"{gpu.name}, {sm}; PyTorch for CUDA {gpu.built_for}; driver {gpu.driver or 'not known'}"
        if runs_on(gpu.capability, gpu.architectures):
            return ok(name, found)
        remedy = CU126 if gpu.capability == V100 else "install a build of torch with code for this device"
        return fail(name, f"{found}. The build has no code for {sm}, only for {' '.join(gpu.architectures)}", remedy)
    wanted = settings.accelerator if settings else "auto"
    if wanted == "cpu":
        return ok(name, "not needed (trainer.accelerator is cpu)")
    if gpu.driver:
        cuda = f"PyTorch for CUDA {gpu.built_for} cannot use it" if gpu.built_for else "this is a CPU build of PyTorch"
        remedy = (
            "install a build for a CUDA version that the driver supports (nvidia-smi shows it at the upper right), "
        )
        return fail(name, f"nvidia-smi finds {gpu.driver}, but {cuda}", f"{remedy}for example\n{CU126}")
    if wanted in ("gpu", "cuda"):
        return fail(
            name,
            f"no GPU on this machine, but trainer.accelerator is {wanted}",
            "request one: #SBATCH --gres=gpu:1, or run doctor inside a job; without a GPU: --trainer.accelerator cpu",
        )
    return warn(
        name,
        "no GPU on this machine: a fit started here would run on the CPU",
        "submit a job with #SBATCH --gres=gpu:1; with --trainer.accelerator gpu a fit refuses to run without a GPU",
    )


def check_partition_gpu(gpu: Gpu, partition: str) -> Iterable[Finding]:
    """Check that this PyTorch build runs on the GPUs of a partition, if its name contains their type."""
    capability = next((CAPABILITIES[kind] for kind in CAPABILITIES if kind in partition.lower()), None)
    if capability is None:
        return
    name, sm = f"PyTorch for {partition}", _sm(capability)
    if not gpu.built_for:
        remedy = CU126 if capability == V100 else "pip install --force-reinstall torch torchvision"
        yield fail(name, f"this is a CPU build of PyTorch; the partition's GPUs are {sm}", remedy)
    elif not gpu.architectures:
        yield skip(name, f"this PyTorch does not report its architectures; the partition's GPUs are {sm}")
    else:
        good = runs_on(capability, gpu.architectures)
        remedy = CU126 if capability == V100 else "use another partition, or another build of torch"
        found = f"{sm}; the build for CUDA {gpu.built_for} has code for {' '.join(gpu.architectures)}"
        yield ok_or_fail(good, name, found, remedy)


def check_precision(gpu: Gpu, settings: Settings | None) -> Finding:
    """Check that the device supports the configured precision."""
    name, remedy = "precision", "--trainer.precision 16-mixed"
    if settings is None:
        return skip(name)
    precision = settings.precision
    on_gpu = bool(gpu.name) and settings.accelerator != "cpu"
    if not on_gpu and precision in ("16-mixed", "16"):
        return ok(name, f"{precision}; a CPU uses bf16 instead, or float32")
    if on_gpu and "bf16" in precision and not gpu.bf16:
        found = f"{precision}: the {gpu.name} does not support bf16 and would emulate it slowly"
        return warn(name, found, remedy)
    if precision in ("16-true", "bf16-true"):
        return warn(name, f"{precision}: weights stored in 16 bits train poorly", remedy)
    return ok(name, f"{precision} on {gpu.name if on_gpu else 'the CPU'}")


def check_memory(settings: Settings | None, model: "LeafClassifier | None") -> Finding:
    """Check that one training step fits, with the largest number of unfrozen layers; no result is stored."""
    import torch

    name = "GPU memory"
    if settings is None or model is None:
        return skip(name, GIVE_CONFIG if settings is None else "not checked: the settings are not valid")
    if not torch.cuda.is_available() or settings.accelerator == "cpu":
        return skip(name, "not checked: no GPU is used on this machine")
    depth, unit = settings.unfrozen
    size, batch_size = settings.image_size, settings.batch_size
    what = f"a batch of {batch_size} at {size} px with {counted(depth, unit[:-1])} unfrozen"
    total = torch.cuda.mem_get_info()[1]
    remedy = f"--data.batch_size {max(1, batch_size // 2)} --trainer.accumulate_grad_batches 2"
    try:
        peak = training_step(model, settings)
    except torch.OutOfMemoryError:
        return fail(name, f"{what} needs more than {_gib(total)}", remedy)
    finally:
        model.cpu()
        torch.cuda.empty_cache()
    return ok_or_warn(peak < MAX_MEMORY * total, name, f"{what} needs {_gib(peak)} of {_gib(total)}", remedy)


def training_step(model: "LeafClassifier", settings: Settings) -> int:
    """Run one training step on the GPU with random weights; return the peak memory in bytes reserved by PyTorch."""
    import torch

    device = torch.device("cuda", 0)
    kinds = {"16-mixed": torch.float16, "16": torch.float16, "bf16-mixed": torch.bfloat16, "bf16": torch.bfloat16}
    kind = kinds.get(settings.precision)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    # This step must not change the random numbers of the process.
    with torch.random.fork_rng(devices=[0]):
        model.unfreeze(*settings.unfrozen).to(device)
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=0.0)
        images = torch.randn(settings.batch_size, 3, settings.image_size, settings.image_size, device=device)
        labels = torch.zeros(settings.batch_size, device=device)
        with torch.autocast("cuda", dtype=kind or torch.float16, enabled=kind is not None):
            logits = model(images)
        torch.nn.functional.binary_cross_entropy_with_logits(logits, labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return int(torch.cuda.max_memory_reserved(device))


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"


def check_cpus(granted: int, environ: Mapping[str, str], settings: Settings | None) -> Iterable[Finding]:
    """Check that this process has enough CPUs for the workers, and as many as the job requested."""
    workers = settings.num_workers if settings else "auto"
    yield ok_or_warn(
        isinstance(workers, str) or workers <= granted,
        "CPUs",
        f"{granted} available; data.num_workers {workers}",
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
        found = "since Slurm 22.05 srun does not inherit --cpus-per-task; SRUN_CPUS_PER_TASK is not set"
        yield warn(name, found, remedy)
    else:
        yield ok(name, f"{granted}, as requested by the job")
