"""What follows an evaluation, through the real command line: pictures, ledger, report."""

import csv
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from bldml.app import evaluation
from bldml.app.explain import pictures as reporting
from bldml.dataset.images import load_rgb
from bldml.dataset.samples import Sample
from bldml.dataset.synthetic.leaves import write_leaves
from bldml.inference.classifier import Classifier
from bldml.inference.pictures import overlay
from bldml.io.system import sha256_of
from bldml.report import page as report
from bldml.run.folder import RunFolder
from bldml.run.gallery import choose_photographs, read_gallery
from bldml.run.ledger import read_ledger
from bldml.run.predictions import Prediction, read_metrics, read_predictions
from bldml.training.checkpoint import Checkpoint, read_checkpoint
from bldml.training.module import LeafClassifier
from bldml.training.resume.signals import Interrupted
from tests.support import SMALL, Bldml

CPU = ("--trainer.accelerator=cpu", "--data.num_workers=0")


@pytest.fixture
def no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page takes seconds, and is not what these tests are about."""
    monkeypatch.setattr(evaluation, "report_run", lambda run: None)


@pytest.fixture
def own(run: Path, tmp_path: Path) -> RunFolder:
    """A copy of the run that a test may change."""
    return RunFolder(Path(shutil.copytree(run, tmp_path / "own")))


def classifier(run: RunFolder) -> tuple[Checkpoint, LeafClassifier]:
    checkpoint = read_checkpoint(run.best_checkpoint)
    header = checkpoint.header
    model = LeafClassifier(backbone=header.backbone, weights="none", image_size=header.image_size)
    model.load_state_dict(checkpoint.state_dict)
    return checkpoint, model


def digested(leaves: Path, rows: Iterable[Prediction]) -> list[tuple[Sample, str]]:
    """Return the photographs of these rows, with their SHA-256."""
    return [(Sample(leaves / row.path, row.path), sha256_of(leaves / row.path)) for row in rows]


def pixels(path: Path, size: tuple[int, int]) -> NDArray[np.float64]:
    return np.asarray(load_rgb(path).resize(size, Image.Resampling.BICUBIC, reducing_gap=None), dtype=np.float64)


@pytest.mark.parametrize("split", ["val", "test"])
def test_after_a_fit_the_pictures_are_those_of_the_photographs_named(run: Path, leaves: Path, split: str) -> None:
    folder = run / "evaluations" / split
    rows, threshold = read_predictions(folder / "predictions.csv"), read_metrics(folder).threshold
    gallery = read_gallery(folder)
    assert [(shown.kind, shown.prediction) for shown in gallery] == choose_photographs(rows, threshold)
    assert gallery
    for shown in gallery:
        picture = np.asarray(Image.open(shown.photograph), dtype=np.float64)
        size = (picture.shape[1], picture.shape[0])
        apart = {row.path: float(np.abs(pixels(leaves / row.path, size) - picture).mean()) for row in rows}
        assert min(apart, key=lambda name: apart[name]) == shown.prediction.path
        assert apart[shown.prediction.path] < 4
    listed = {shown.photograph for shown in gallery} | {shown.overlay for shown in gallery}
    assert set((folder / "explanations").iterdir()) == listed | {folder / "explanations" / "gallery.csv"}


def test_overlay_is_the_grad_cam_of_the_photograph_beside_it(own: RunFolder, leaves: Path) -> None:
    (checkpoint, model), folder = classifier(own), own.evaluation("val")
    with torch.no_grad():  # hardly trained, it sees nothing that speaks for the class; turned round, it does
        dict(model.named_parameters())["network.classifier.1.weight"].neg_()
    rows = read_predictions(folder / "predictions.csv")
    maps = []
    assert reporting.make_pictures(model, checkpoint, folder, digested(leaves, rows)) == []
    for shown in read_gallery(folder):
        _, cam = Classifier(checkpoint.header, model).verdict_with_map(leaves / shown.prediction.path)
        expected = np.asarray(overlay(load_rgb(leaves / shown.prediction.path), cam), dtype=np.float64)
        apart = np.abs(np.asarray(Image.open(shown.overlay), dtype=np.float64) - expected)
        assert apart.mean() < 8
        maps.append(cam)
    assert all(cam.any() for cam in maps)


@pytest.mark.usefixtures("no_page")
def test_external_photographs_upright_small_and_without_metadata(own: RunFolder, tmp_path: Path, bldml: Bldml) -> None:
    site = tmp_path / "site"
    write_leaves(site, images_per_class=3, size=500, seed=9)
    source = min((site / "BLD").iterdir())
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "SecretCamera"  # to be turned by 90 degrees clockwise
    with Image.open(source) as image:
        image.resize((480, 240)).save(site / "BLD" / "<b>turned.jpg", exif=exif, comment=b"SecretComment")
    outcome = bldml("test", "--ckpt_path", own.best_checkpoint, "--data.root", site, *CPU)
    assert outcome.code == 0, outcome.err
    gallery = read_gallery(own.evaluation("site"))
    assert {shown.prediction.path.split("/")[0] for shown in gallery} == {"BLD", "No_BLD"}
    turned = [shown for shown in gallery if "turned" in shown.prediction.path]
    assert turned
    for shown in gallery:
        for path in (shown.photograph, shown.overlay):
            with Image.open(path) as picture:
                assert (picture.format, picture.mode, max(picture.size)) == ("JPEG", "RGB", 320)
                assert not picture.getexif()
                assert (picture.size == (160, 320)) == (shown in turned)
                assert "comment" not in picture.info
            assert b"Secret" not in path.read_bytes()
            assert path.stat().st_size < 60_000


@pytest.mark.usefixtures("no_page")
def test_pictures_of_an_earlier_evaluation_go(own: RunFolder, bldml: Bldml) -> None:
    folder = own.evaluation("test")
    assert read_gallery(folder)
    (folder / "explanations" / "stale.jpg").write_bytes(b"")
    options = ("test", "--ckpt_path", own.best_checkpoint, *CPU)
    assert bldml(*options).code == 0
    assert read_gallery(folder)
    assert not (folder / "explanations" / "stale.jpg").exists()
    assert bldml(*options, "--report=false").code == 0
    assert not (folder / "explanations").exists()
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


@pytest.mark.usefixtures("no_page")
def test_a_folder_of_someone_elses_is_left_alone(own: RunFolder, bldml: Bldml) -> None:
    folder = own.evaluation("test") / "explanations"
    (folder / "gallery.csv").unlink()
    before = sorted(folder.iterdir())
    outcome = bldml("test", "--ckpt_path", own.best_checkpoint, *CPU)
    assert outcome.code == 0
    assert "is not changed" in outcome.err
    assert sorted(folder.iterdir()) == before


def test_predictions_without_labels_get_no_pictures_and_no_line(own: RunFolder, leaves: Path, bldml: Bldml) -> None:
    before = read_ledger(own)
    command = ("predict", "--ckpt_path", own.best_checkpoint, "--data.root", leaves / "BLD", *CPU)
    assert bldml(*command).code == 0
    assert not (own.evaluation("BLD") / "explanations").exists()
    assert read_ledger(own) == before


def test_ledger_has_a_line_for_every_evaluation(own: RunFolder, tmp_path: Path, bldml: Bldml) -> None:
    first = read_ledger(own)
    assert [(entry.evaluation, entry.split) for entry in first] == [
        (split, split) for split in ("train", "val", "test")
    ]
    header = read_checkpoint(own.best_checkpoint).header
    for entry in first:
        assert entry.dataset_fingerprint == header.fingerprints[entry.split]
        assert entry.n == read_metrics(own.evaluation(entry.evaluation)).n
        assert entry.checkpoint == "checkpoints/best.ckpt"
    options = ("test", "--ckpt_path", own.best_checkpoint, *CPU, "--report=false")
    assert bldml(*options).code == 0
    assert bldml(*options, "--output", tmp_path / "elsewhere").code == 0
    again = read_ledger(own)
    assert again[:3] == first
    assert [(entry.evaluation, entry.dataset_fingerprint) for entry in again[3:]] == [
        ("test", first[2].dataset_fingerprint),
        ("elsewhere", first[2].dataset_fingerprint),
    ]
    with own.ledger.open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 5


@pytest.mark.usefixtures("no_page")
def test_checkpoint_outside_a_run_gets_pictures_and_no_report(run: Path, tmp_path: Path, bldml: Bldml) -> None:
    bare = tmp_path / "bare" / "best.ckpt"
    bare.parent.mkdir()
    shutil.copy(run / "checkpoints" / "best.ckpt", bare)
    outcome = bldml("validate", "--ckpt_path", bare, *CPU)
    assert outcome.code == 0
    assert read_gallery(bare.parent / "evaluations" / "val")
    assert {path.name for path in bare.parent.iterdir()} == {"best.ckpt", "evaluations"}
    assert "Report:" not in outcome.out


def test_no_failure_of_pictures_or_report_fails_a_fit(
    leaves: Path, bldml: Bldml, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object) -> None:
        raise RuntimeError("out of memory, say")

    monkeypatch.setattr(Classifier, "verdict_with_map", broken)
    monkeypatch.setattr(report, "write_report", broken)
    command = ("fit", *SMALL, "--data.root", leaves, "--run_name=r", "--trainer.max_epochs=1", "--report=true")
    outcome = bldml(*command)
    assert outcome.code == 0, outcome.err
    assert outcome.err.count("No images were stored for") == 2
    assert outcome.err.count("RuntimeError: out of memory, say") == 3
    assert "python -m bldml report lightning_logs/r" in outcome.err.replace(f"{Path.cwd()}/", "")
    folder = Path("lightning_logs/r/evaluations/test")
    assert {path.name for path in folder.iterdir()} == {
        "predictions.csv", "metrics.csv", "metrics.json", "provenance.json",
    }  # fmt: skip


def test_a_photograph_that_is_gone_or_another_is_left_out_and_named(own: RunFolder, leaves: Path) -> None:
    (checkpoint, model), folder = classifier(own), own.evaluation("test")
    rows = read_predictions(folder / "predictions.csv")
    samples = digested(leaves, rows)
    samples[0] = Sample(leaves / "gone.jpg", rows[0].path), samples[0][1]
    samples[1] = Sample(leaves / rows[2].path, rows[1].path), samples[1][1]  # another photograph came in its place
    left_out = reporting.make_pictures(model, checkpoint, folder, samples)
    assert sorted(left_out) == sorted(
        [f"{rows[0].path}: the file does not exist", f"{rows[1].path}: its content has changed since it was first read"]
    )
    shown = {entry.prediction.path for entry in read_gallery(folder)}
    assert shown == {row.path for row in rows[2:]}


def test_a_stop_between_two_pictures_leaves_the_old_ones(own: RunFolder, leaves: Path) -> None:
    (checkpoint, model), folder = classifier(own), own.evaluation("test")
    samples = digested(leaves, read_predictions(folder / "predictions.csv"))
    calls: list[int] = []

    def check() -> None:
        calls.append(1)
        if len(calls) == 3:
            raise Interrupted(signal.SIGTERM)

    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(Interrupted):
        reporting.draw_images(model, checkpoint, {folder: samples}, model.device, check)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


@pytest.mark.usefixtures("no_page")
def test_a_signal_during_the_pictures_stops_the_fit(
    leaves: Path, bldml: Bldml, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    real = Classifier.verdict_with_map

    def predict(*args: object) -> object:
        seen.append(1)
        if len(seen) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*args)  # type: ignore[arg-type]  # passed on as they came

    monkeypatch.setattr(Classifier, "verdict_with_map", predict)
    command = ("fit", *SMALL, "--data.root", leaves, "--run_name=r", "--trainer.max_epochs=1", "--report=true")
    outcome = bldml(*command)
    assert outcome.code == 143
    assert len(seen) == 2
    assert "Traceback" not in outcome.err
    run = RunFolder(Path("lightning_logs/r"))
    monkeypatch.setattr(Classifier, "verdict_with_map", real)
    assert bldml("fit", "--resume", run.path).code == 0
    assert read_gallery(run.evaluation("test"))
    # It was not evaluated again: one look is one look.
    assert [entry.evaluation for entry in read_ledger(run)] == ["train", "val", "test"]


def test_test_adds_an_external_evaluation_to_the_report(own: RunFolder, tmp_path: Path, bldml: Bldml) -> None:
    write_leaves(tmp_path / "site", images_per_class=3, size=96, seed=77)
    own.path.joinpath("report.html").unlink(missing_ok=True)
    command = ("test", "--ckpt_path", own.best_checkpoint, "--data.root", tmp_path / "site", "--name=ohio_2024", *CPU)
    outcome = bldml(*command)
    assert outcome.code == 0, outcome.err
    assert f"Report: {own.path / 'report.html'}" in outcome.out
    assert "ohio_2024" in (own.path / "report.html").read_text()


def test_report_command_needs_no_torch(own: RunFolder) -> None:
    own.path.joinpath("report.html").unlink(missing_ok=True)
    code = (
        "import sys; from bldml.cli import main; code = main(sys.argv[1:]);"
        "heavy = {'torch', 'lightning', 'torchvision', 'torchmetrics', 'tensorboard'} & set(sys.modules);"
        "sys.exit(code or (f'loaded {heavy}' if heavy else 0))"
    )
    done = subprocess.run([sys.executable, "-c", code, "report", own.path], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert f"Wrote {own.path / 'report.html'}" in done.stdout
    assert "no pictures" not in done.stdout
    assert own.path.joinpath("report.html").is_file()


def test_report_command_says_how_to_get_pictures(
    own: RunFolder, tmp_path: Path, bldml: Bldml, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(own.evaluation("test") / "explanations")
    with monkeypatch.context() as quick:
        quick.setattr(report, "write_report", lambda run: run.path / "report.html")
        outcome = bldml("report", own.path)
    assert outcome.code == 0, outcome.err
    assert f"python -m bldml test --ckpt_path {own.best_checkpoint}" in outcome.out
    assert "validate" not in outcome.out
    missing = bldml("report", tmp_path / "nowhere")
    assert missing.code == 1
    assert "nowhere" in missing.err
    assert "Traceback" not in missing.err
