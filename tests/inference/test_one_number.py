"""One photograph has one probability, whichever command or function computes it, however the classifier was trained."""

import csv
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import bldml as package
from bldml.dataset.images import load_rgb
from bldml.dataset.synthetic.leaves import write_leaves
from bldml.run.predictions import read_predictions
from bldml.training.checkpoint import KEY
from bldml.training.module import LeafClassifier
from tests.export.checkpoints import SIZE, write_run
from tests.support import THREE_LAYERS, Bldml

SAME = 1e-6
CPU = ("--trainer.accelerator=cpu", "--report=false")


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labelled JPEGs, large enough that a reduced scale of decoding would be chosen; some are to be turned."""
    root = tmp_path_factory.mktemp("large") / "test"
    write_leaves(root, images_per_class=6, size=700, seed=9)
    for number, path in enumerate(sorted(root.rglob("*.jpg"))):
        with Image.open(path) as image:
            pixels = image.convert("RGB")
        exif = Image.Exif()
        exif[0x0112] = 1 + number % 8
        pixels.save(path, quality=92, exif=exif)
    return root


def name_of(path: str | Path) -> str:
    """Class folder and name."""
    return "/".join(Path(path).parts[-2:])


def of_command(folder: Path) -> dict[str, float]:
    return {name_of(row.path): row.probability for row in read_predictions(folder / "predictions.csv")}


@pytest.fixture(scope="module")
def own(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose network tells photographs apart, as a trained one does; the shared run's hardly does."""
    folder = tmp_path_factory.mktemp("own") / "run"
    write_run(folder, folder, [], offset=2.9)
    return folder


@pytest.fixture(scope="module")
def expected(own: Path, photographs: Path) -> dict[str, float]:
    leaf = package.load(own, "cpu")
    found = {name_of(path): leaf.predict(path).probability for path in sorted(photographs.rglob("*.jpg"))}
    assert max(found.values()) - min(found.values()) > 0.5
    return found


def apart(found: dict[str, float], expected: dict[str, float]) -> float:
    assert found.keys() == expected.keys()
    return max(abs(found[name] - expected[name]) for name in expected)


@pytest.mark.parametrize(
    "options",
    [
        ("--data.batch_size=1", "--data.num_workers=0"),
        ("--data.batch_size=5", "--data.num_workers=2", "--data.cache=off", "--trainer.precision=bf16-mixed"),
    ],
)
def test_test_and_predict(
    own: Path, photographs: Path, expected: dict[str, float], bldml: Bldml, options: tuple[str, ...]
) -> None:
    assert bldml("test", own, photographs, "--output=tested", *CPU, *options).code == 0
    assert bldml("predict", own, photographs, "--output=predicted", *CPU[:1], *options).code == 0
    assert apart(of_command(Path("tested")), expected) <= SAME
    assert apart(of_command(Path("predicted")), expected) <= SAME


def test_explain_and_all_functions(own: Path, photographs: Path, expected: dict[str, float], bldml: Bldml) -> None:
    assert bldml("explain", own, photographs, "--output=cams", "--device=cpu", "--size=64").code == 0
    with Path("cams/explanations.csv").open(newline="") as file:
        explained = {name_of(row["path"]): float(row["probability"]) for row in csv.DictReader(file)}
    assert apart(explained, expected) <= SAME

    leaf = package.load(own / "checkpoints" / "best.ckpt", "cpu")
    paths = sorted(photographs.rglob("*.jpg"))
    table = leaf.predict_folder(photographs)
    assert apart(dict(zip(map(name_of, table["path"]), table["probability"], strict=True)), expected) <= SAME
    together = leaf.predict(paths)
    assert apart({name_of(path): one.probability for path, one in zip(paths, together, strict=True)}, expected) <= SAME
    images = [Image.open(path) for path in paths]
    arrays = [np.asarray(load_rgb(path)) for path in paths]
    for kind in (images, arrays):
        found = {name_of(path): one.probability for path, one in zip(paths, leaf.predict(kind), strict=True)}
        assert apart(found, expected) <= SAME


@pytest.fixture
def lenient() -> Iterator[None]:
    """What a user's program may have allowed: less than float32 inside float32."""
    torch.set_float32_matmul_precision("medium")
    yield
    torch.set_float32_matmul_precision("highest")


@pytest.mark.usefixtures("lenient")
def test_the_process_may_allow_less_precision(own: Path, photographs: Path, expected: dict[str, float]) -> None:
    leaf = package.load(own, "cpu")
    with torch.autocast("cpu", torch.bfloat16):
        found = {name_of(one.path): one.probability for one in leaf.predict(sorted(photographs.rglob("*.jpg")))}
    assert apart(found, expected) <= SAME
    assert torch.get_float32_matmul_precision() == "medium"


def test_a_fit_in_16_bits_chooses_its_threshold_in_float32(leaves: Path, bldml: Bldml) -> None:
    """What the fit wrote of its validation split is what `validate` and Python compute from the checkpoint."""
    options = ("--run_name=r", "--trainer.max_epochs=2", "--trainer.precision=bf16-mixed", "--data.cache=off")
    assert bldml("fit", *THREE_LAYERS, "--data.root", leaves, *options).code == 0
    of_fit = of_command(Path("lightning_logs/r/evaluations/val"))
    with Path("lightning_logs/r/history.csv").open(newline="") as file:
        best = min(float(row["val_loss"]) for row in csv.DictReader(file))
    assert bldml("validate", "lightning_logs/r", "--output=again", *CPU, "--data.batch_size=3").code == 0
    assert apart(of_command(Path("again")), of_fit) <= SAME
    # The loss of the best epoch, from its own uncalibrated logits in float32.
    leaf = package.load("lightning_logs/r", "cpu")
    rows = read_predictions(Path("again/predictions.csv"))
    images = torch.stack([leaf.image(leaves / row.path) for row in rows])
    with torch.inference_mode():
        logits = leaf.network.evaluate(images)
    labels = torch.tensor([float(row.true_class == "BLD") for row in rows])
    loss = float(torch.nn.functional.binary_cross_entropy_with_logits(logits, labels))
    assert loss == pytest.approx(best, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_weights_of_other_types_are_computed_with_in_float32(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = LeafClassifier("mobilenet_v2_x0_35", "none", 64).eval().to(dtype)
    plain = LeafClassifier("mobilenet_v2_x0_35", "none", 64).eval()
    plain.load_state_dict(model.state_dict())
    images = torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8)
    with torch.inference_mode():
        assert torch.equal(model.evaluate(images), plain.evaluate(images))
    assert next(model.parameters()).dtype == dtype


def test_a_checkpoint_of_0_1_is_decoded_as_then(own: Path, photographs: Path, tmp_path: Path, bldml: Bldml) -> None:
    """Version 0.1 decoded at a reduced scale; its threshold belongs to that, in all commands."""
    old = Path(shutil.copytree(own, tmp_path / "old")) / "checkpoints" / "best.ckpt"
    content = torch.load(old, weights_only=True)
    del content[KEY]["decode"]
    torch.save(content, old)
    leaf = package.load(old, "cpu")
    now = package.load(own, "cpu")
    paths = sorted(photographs.rglob("*.jpg"))
    expected = {name_of(path): leaf.predict(path).probability for path in paths}
    assert all(torch.equal(leaf.image(path), now.image(load_rgb(path, SIZE))) for path in paths)
    assert apart(expected, {name_of(path): now.predict(path).probability for path in paths}) > 10 * SAME
    for options in ((), ("--data.cache=off",)):
        assert bldml("test", old, photographs, "--output=tested", *CPU, *options).code == 0
        assert apart(of_command(Path("tested")), expected) <= SAME
    assert bldml("explain", old, photographs, "--output=cams", "--device=cpu", "--size=64").code == 0
    with Path("cams/explanations.csv").open(newline="") as file:
        explained = {name_of(row["path"]): float(row["probability"]) for row in csv.DictReader(file)}
    assert apart(explained, expected) <= SAME
