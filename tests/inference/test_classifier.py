"""`import bldml`: load, Classifier, Verdict and Run, as a user of Python types them."""

import re
import subprocess
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from PIL import Image

import bldml as package
from bldml.inference.pictures import overlay
from bldml.run.predictions import read_predictions
from tests.support import REPOSITORY, mistake


@pytest.fixture(scope="module")
def leaf(run: Path) -> "package.Classifier":
    return package.load(run, "cpu")


@pytest.fixture
def photograph(leaves: Path) -> Path:
    return sorted((leaves / "BLD").iterdir())[0]


def test_importing_loads_nothing_else() -> None:
    code = "import bldml, sys; print(sorted(m for m in sys.modules if m.partition('.')[0] in "
    code += "('torch', 'numpy', 'PIL', 'lightning', 'pandas', 'matplotlib')), bldml.__version__, dir(bldml))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.startswith("[] ")
    assert all(f"'{name}'" in said for name in package.__all__)


def test_a_run_is_read_without_torch(run: Path) -> None:
    code = f"import bldml, sys; bldml.Run({str(run)!r}).figure('roc'); print('torch' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said == "False\n"


def test_unknown_names_are_refused() -> None:
    assert {name for name in package.__all__ if getattr(package, name)} == set(package.__all__)
    with pytest.raises(AttributeError, match="lode"):
        _ = package.lode


def test_a_verdict(leaf: "package.Classifier", photograph: Path) -> None:
    one = leaf.predict(photograph)
    assert one.path == str(photograph)
    assert one.threshold == leaf.header.threshold
    assert one.is_positive == (one.probability >= one.threshold)
    assert one.label == ("BLD" if one.is_positive else "No_BLD")
    assert leaf.predict(str(photograph)) == one
    for again in leaf.predict([photograph, str(photograph)]):
        assert (again.path, again.label, again.band, again.is_familiar) == (
            one.path, one.label, one.band, one.is_familiar
        )  # fmt: skip
        assert (again.probability, again.distance) == pytest.approx((one.probability, one.distance), abs=1e-6)
    assert leaf.predict([]) == []
    assert leaf.predict(path for path in [photograph, photograph]) == leaf.predict((photograph, photograph))
    assert "BLD against No_BLD" in repr(leaf)


def test_an_image_opened_by_another_program(leaf: "package.Classifier", photograph: Path, tmp_path: Path) -> None:
    """Its orientation, transparency and grey levels mean what they mean in a file."""
    with Image.open(photograph) as image:
        pixels = image.convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    pixels.convert("L").save(tmp_path / "grey.png")
    clear = pixels.convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(pixels.size))
    clear.save(tmp_path / "clear.png")
    for name in ("turned", "grey", "clear"):
        path = tmp_path / f"{name}.png"
        with Image.open(path) as opened:
            before = opened.size
            assert leaf.predict(opened).probability == leaf.predict(path).probability
            assert opened.size == before
    assert leaf.predict(tmp_path / "turned.png").probability == leaf.predict(pixels).probability


@pytest.mark.parametrize(
    ("given", "code"),
    [
        (np.zeros((4, 4), np.uint8), "array-wrong"),
        (np.zeros((4, 4, 4), np.uint8), "array-wrong"),
        (np.zeros((4, 4, 3), np.float32), "array-wrong"),
        (np.zeros((0, 4, 3), np.uint8), "array-wrong"),
        (Image.new("F", (4, 4)), "image-unusable"),
        (Image.new("RGB", (0, 4)), "image-unusable"),
        (17, "photograph-of-other-type"),
        (b"missing.jpg", "photograph-of-other-type"),
        (BytesIO(b"missing.jpg\n"), "photograph-of-other-type"),
        ("", "path-unusable"),
        ("https://example.org/leaf.jpg", "path-unusable"),
        ("missing.jpg", "photograph-unreadable"),
        (__file__, "photograph-unreadable"),
    ],
)
def test_what_is_no_photograph(leaf: "package.Classifier", given: object, code: str) -> None:
    with mistake(code):
        leaf.predict(given)  # type: ignore[call-overload]
    with mistake(code):
        leaf.explain(given)  # type: ignore[arg-type]


def test_what_is_no_classifier(tmp_path: Path) -> None:
    (tmp_path / "best.ckpt").write_bytes(b"no checkpoint")
    for path, code in ((tmp_path / "best.ckpt", "checkpoint-damaged"), (tmp_path, "checkpoint-folder-without-best")):
        with mistake(code):
            package.load(path)
    with mistake("checkpoint-missing"):
        package.load("nowhere.ckpt")
    (tmp_path / "parity.json").touch()
    with mistake("checkpoint-folder-without-best") as caught:
        package.load(tmp_path)
    assert "is an export" in str(caught.value)


@pytest.mark.parametrize("given", [None, 17, b"run", "", "~/a\0b", "a" * 300, "file:///run", ["run"]])
def test_what_is_no_path(leaf: "package.Classifier", given: Any) -> None:
    for read in (package.load, package.Run, leaf.predict_folder):
        with mistake("path-unusable"):
            read(given)


@pytest.mark.parametrize("device", ["gpu", "cuda:0", "CPU", None, 0])
def test_unknown_device_is_refused(device: Any, run: Path) -> None:
    with mistake("device-unknown", found=device):
        package.load(run, device)


def test_a_folder(leaf: "package.Classifier", leaves: Path, tmp_path: Path) -> None:
    table = leaf.predict_folder(leaves)
    assert len(table) == 60
    assert list(table.columns) == list(package.Verdict.__annotations__)
    assert set(table["path"]) == {path.relative_to(leaves).as_posix() for path in leaves.rglob("*.jpg")}
    folder = tmp_path / "mixed"
    folder.mkdir()
    for number, path in enumerate(sorted(leaves.rglob("*.jpg"))[:40]):
        data = path.read_bytes()
        (folder / f"{number:02}.jpg").write_bytes(data[:300] if number in (0, 17, 39) else data)
    with mistake("photograph-unreadable"):
        leaf.predict_folder(folder)
    with mistake("unreadable-unknown"):
        leaf.predict_folder(folder, unreadable="raise")  # type: ignore[arg-type]
    kept = leaf.predict_folder(folder, unreadable="exclude")
    assert list(kept["path"]) == [f"{number:02}.jpg" for number in range(40) if number not in (0, 17, 39)]
    (tmp_path / "empty").mkdir()
    with mistake("photographs-none"):
        leaf.predict_folder(tmp_path / "empty")


def test_an_explanation(leaf: "package.Classifier", photograph: Path) -> None:
    for size in (0, -1, 2.5, "large"):
        with mistake("picture-size-wrong"):
            leaf.explain(photograph, size)  # type: ignore[arg-type]
    picture = leaf.explain(photograph)
    _, cam = leaf.verdict_with_map(photograph)
    with Image.open(photograph) as image:
        expected = overlay(image.convert("RGB"), cam)
    assert (picture.size, picture.tobytes()) == (expected.size, expected.tobytes())
    assert max(leaf.explain(photograph, size=40).size) == 40
    assert picture._repr_png_()  # what a notebook shows


def test_a_run(run: Path) -> None:
    found = package.Run(run)
    assert found.evaluations == ["test", "val", "train"]
    assert found.metrics()["n"] == len(found.predictions())
    rows = read_predictions(run / "evaluations" / "val" / "predictions.csv")
    assert list(found.predictions("val")["probability"]) == [row.probability for row in rows]
    assert list(found.history["epoch"]) == [0, 1, 2, 3]
    assert "small" in repr(found)
    for name in ("roc", "calibration", "learning_loss"):
        assert found.figure(name).axes
    with mistake("figure-unknown", found="rok"):
        found.figure("rok")
    with mistake("evaluation-unknown", found="ohio"):
        found.metrics("ohio")


@pytest.mark.slow
def test_the_guide_for_notebooks_runs_in_a_notebook(run: Path, leaves: Path, tmp_path: Path) -> None:
    """Every block of Python in the guide, in one notebook with a real kernel."""
    text = (REPOSITORY / "docs" / "howto" / "notebook.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) >= 4
    (tmp_path / "lightning_logs").mkdir()
    (tmp_path / "lightning_logs" / "run").symlink_to(run)
    (tmp_path / "photographs").symlink_to(leaves)
    (tmp_path / "leaf.jpg").write_bytes(next((leaves / "BLD").iterdir()).read_bytes())
    # Where the tests run without an installed bldml, the kernel finds this one.
    path = f"import sys; sys.path.insert(0, {str(REPOSITORY)!r})"
    new: Any = nbformat.v4  # without types
    notebook = new.new_notebook(cells=[new.new_code_cell(code) for code in (path, *blocks)])
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = {kind for cell in notebook.cells for output in cell.outputs for kind in output.get("data", {})}
    assert {"image/png", "text/html", "text/plain"} <= shown
