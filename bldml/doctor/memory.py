"""Whether one training step fits into the GPU: by doing one, with random weights."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from bldml.doctor.checks import GIVE_CONFIG, Finding, fail, ok_or_warn, skip
from bldml.doctor.configuration import Settings
from bldml.io.text import counted

if TYPE_CHECKING:
    from bldml.training.module import LeafClassifier

NAME = "GPU memory"
NEARLY_FULL = 0.9


def check_memory(settings: Settings | None, model: "LeafClassifier | None") -> Iterable[Finding]:
    """One forward, backward and optimizer step at the deepest thaw; nothing of it is kept."""
    import torch

    if settings is None or model is None:
        yield skip(NAME, GIVE_CONFIG if settings is None else "not checked: these settings cannot be used")
        return
    if not torch.cuda.is_available() or settings.accelerator == "cpu":
        yield skip(NAME, "not checked: no GPU is used here")
        return
    depth, unit = settings.thawed
    size, batch_size = settings.image_size, settings.batch_size
    what = f"a batch of {batch_size} at {size} px with {counted(depth, unit[:-1])} thawed"
    total = torch.cuda.mem_get_info()[1]
    remedy = f"--data.batch_size {max(1, batch_size // 2)} --trainer.accumulate_grad_batches 2"
    try:
        peak = one_step(model, settings)
    except torch.OutOfMemoryError:
        yield fail(NAME, f"{what} does not fit into {_gib(total)}", remedy)
        return
    finally:
        model.cpu()
        torch.cuda.empty_cache()
    yield ok_or_warn(peak < NEARLY_FULL * total, NAME, f"{what} takes {_gib(peak)} of {_gib(total)}", remedy)


def one_step(model: "LeafClassifier", settings: Settings) -> int:
    """Take one training step on the GPU.

    Returns:
        The most bytes that PyTorch held meanwhile.
    """
    import torch

    device = torch.device("cuda", 0)
    kinds = {"16-mixed": torch.float16, "16": torch.float16, "bf16-mixed": torch.bfloat16, "bf16": torch.bfloat16}
    kind = kinds.get(settings.precision)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    # The random weights must not differ in what follows, nor draw from the process's own generator.
    with torch.random.fork_rng(devices=[0]):
        model.unfreeze(*settings.thawed).to(device)
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
