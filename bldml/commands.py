"""The plain commands: typed functions, whose docstrings are their help. Each loads what it needs when it is called."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from bldml import __version__


def demo(folder: Path, images_per_class: int = 400, size: int = 256, seed: int = 0) -> None:
    """Draw beech leaves, healthy and diseased, to try everything on.

    Args:
        folder: Where to; must not exist yet, or be empty.
        images_per_class: How many of each class.
        size: Longer side in pixels.
        seed: The same seed draws the same leaves.
    """
    from bldml.dataset.synthetic import write_leaves

    count = write_leaves(folder, images_per_class=images_per_class, size=size, seed=seed)
    sys.stdout.write(
        f"Drew {count} leaves in {folder}. Next:\n"
        f"  python -m bldml fit --config configs/demo.yaml --data.root {folder}\n"
    )


def prefetch(backbone: str = "all", to: Path | None = None) -> None:
    """Download the ImageNet weights of backbones, for compute nodes without internet.

    Args:
        backbone: Name of a backbone, or all.
        to: Folder that becomes TORCH_HOME; torch's own cache if null.
    """
    from bldml.training.errors import TrainingError
    from bldml.training.weights import prefetch as fetch

    try:
        fetch(backbone, to)
    except TrainingError as error:
        raise ValueError(str(error)) from error


def compare(runs: list[Path], evaluation: str = "test", output: Path = Path("comparison")) -> None:
    """Compare runs on the same photographs: intervals, paired differences and tests.

    Args:
        runs: Run folders, two or more.
        evaluation: Name of the evaluation that all of them have.
        output: Folder for comparison.html, comparison.csv, differences.csv, comparison.tex and figures/.
    """
    from bldml.results.compare import compare_runs
    from bldml.results.comparison_files import write_comparison
    from bldml.results.run import RunError

    try:
        written = write_comparison(compare_runs(runs, evaluation), output, version=__version__)
    except RunError as error:
        raise ValueError(str(error)) from error
    sys.stdout.write("".join(f"Wrote {path}\n" for path in written))


def report(run: Path) -> None:
    """Write the report of a run again, from what lies in its folder.

    Args:
        run: The run folder.
    """
    from bldml.results.gallery import advice
    from bldml.results.report import write_report
    from bldml.results.run import RunError, RunFolder

    try:
        sys.stdout.write(f"Wrote {write_report(RunFolder(run))}\n{advice(RunFolder(run))}")
    except RunError as error:
        raise ValueError(str(error)) from error


def explain(
    photographs: Path,
    ckpt_path: Path | None = None,
    output: Path = Path("cams"),
    masks: Path | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
) -> None:
    """Show by Grad-CAM where in photographs a checkpoint sees the positive class.

    Args:
        photographs: Folder, searched with all folders below it, or one photograph.
        ckpt_path: The checkpoint; it must be given.
        output: Folder for overlays, contact sheet and table; must not exist yet, or be empty.
        masks: Folder of masks (black background, green leaf, red lesion) named NAME_mask.png or NAME.png.
        device: Where to compute; auto takes a GPU if there is one.
    """
    if ckpt_path is None:
        raise ValueError("Which checkpoint? Give --ckpt_path FILE.")
    from bldml.app.explaining import explain_folder
    from bldml.dataset.files import DatasetError
    from bldml.results.run import RunError
    from bldml.training.checkpoint import CheckpointError
    from bldml.training.errors import TrainingError

    try:
        explain_folder(ckpt_path, photographs, output, masks, device)
    except (CheckpointError, DatasetError, RunError, TrainingError) as error:
        raise ValueError(str(error)) from error


COMMANDS: dict[str, Callable[..., None]] = {
    function.__name__: function for function in (compare, report, demo, prefetch, explain)
}
