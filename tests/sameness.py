"""How to tell whether two runs came to the very same."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def assert_same(run: Path, reference: Path) -> None:
    """Whether a run came to the very same as another: weights, optimizer, tables and curves, bit for bit."""
    files = ["history.csv"]
    files += [
        f"evaluations/{split}/{name}" for split in ("val", "test") for name in ("predictions.csv", "metrics.json")
    ]
    for name in files:
        assert (run / name).read_bytes() == (reference / name).read_bytes(), name
    for name in ("last.ckpt", "best.ckpt"):
        ours, theirs = checkpoint(run / "checkpoints" / name), checkpoint(reference / "checkpoints" / name)
        assert ours["state_dict"].keys() == theirs["state_dict"].keys()
        different = [
            key for key, value in theirs["state_dict"].items() if not torch.equal(ours["state_dict"][key], value)
        ]
        assert not different, name
        # best.ckpt names its own place, which a run that was moved has left.
        for key in (
            "epoch",
            "global_step",
            "optimizer_states",
            "bldml",
            *(["callbacks"] if name == "last.ckpt" else []),
        ):
            assert flat(ours[key], run) == flat(theirs[key], reference), f"{name}: {key}"
    assert curves(run) == curves(reference)


def checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint, read as safely as a user would."""
    loaded: dict[str, Any] = torch.load(path, weights_only=True)
    return loaded


def flat(value: Any, run: Path) -> Any:
    """Nested containers with tensors as lists, which can be compared; the run's own name and place left out."""
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if isinstance(value, dict):
        return {flat(key, run): flat(item, run) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [flat(item, run) for item in value]
    return value.replace(str(run.resolve()), "<run>") if isinstance(value, str) else value


def curves(run: Path) -> dict[str, list[tuple[int, float]]]:
    """TensorBoard's points: step and value of each, as its page would show them."""
    # Named by second, process and number: of a test, which runs in one process, number 10 of a second would be read
    # before number 9.
    files = sorted(
        run.glob("events.out.tfevents.*"), key=lambda path: [int(p) for p in path.name.split(".") if p.isdigit()]
    )
    with TemporaryDirectory() as folder:
        for number, path in enumerate(files):
            (Path(folder) / f"events.out.tfevents.{number:06}").write_bytes(path.read_bytes())
        events = EventAccumulator(folder, size_guidance={"scalars": 0})
        events.Reload()
        return {tag: [(point.step, point.value) for point in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
