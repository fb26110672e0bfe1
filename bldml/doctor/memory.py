"""GPU memory: runs one training step with random weights to see whether it fits."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from bldml.doctor.checks import GIVE_CONFIG, Finding, fail, ok_or_warn, skip
from bldml.doctor.configuration import Settings
from bldml.io.text import counted

if TYPE_CHECKING:
    from bldml.training.module import LeafClassifier

NAME = "GPU memory"
MAX_USED = 0.9


def check_memory(settings: Settings | None, model: "LeafClassifier | None") -> Iterable[Finding]:
    """Check that one training step fits, with the largest number of unfrozen layers; no result is stored."""
    import torch

    if settings is None or model is None:
        yield skip(NAME, GIVE_CONFIG if settings is None else "not checked: the settings are not valid")
        return
    if not torch.cuda.is_available() or settings.accelerator == "cpu":
        yield skip(NAME, "not checked: no GPU is used on this machine")
        return
    depth, unit = settings.unfrozen
    size, batch_size = settings.image_size, settings.batch_size
    what = f"a batch of {batch_size} at {size} px with {counted(depth, unit[:-1])} unfrozen"
    total = torch.cuda.mem_get_info()[1]
    remedy = f"--data.batch_size {max(1, batch_size // 2)} --trainer.accumulate_grad_batches 2"
    try:
        peak = training_step(model, settings)
    except torch.OutOfMemoryError:
        yield fail(NAME, f"{what} needs more than {_gib(total)}", remedy)
        return
    finally:
        model.cpu()
        torch.cuda.empty_cache()
    yield ok_or_warn(peak < MAX_USED * total, NAME, f"{what} needs {_gib(peak)} of {_gib(total)}", remedy)


def training_step(model: "LeafClassifier", settings: Settings) -> int:
    """Run one training step on the GPU.

    Returns:
        Peak memory in bytes reserved by PyTorch.
    """
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
