"""From photographs to a run folder, through the real command line."""

import csv
import io
import json
import math
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from scipy import special
from sklearn import metrics as sklearn_metrics
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from bldml.dataset.images import load_rgb
from bldml.dataset.manifest import read_manifest
from bldml.metrics.registry import shown_in
from bldml.run.photographs import read_photograph_table
from bldml.run.predictions import read_metrics, read_predictions
from bldml.training.backbones import BACKBONES, build
from bldml.training.checkpoint import KEY, read_checkpoint
from bldml.training.module import LeafClassifier
from bldml.training.transforms import evaluation_image
from tests.oracles import TOLERANCES, second_opinion
from tests.prepared import Prepared
from tests.support import REPOSITORY, SMALL, THREE_LAYERS, Bldml
from tests.three_layers import NAME

NAMES = ("loss", *(metric.name for metric in shown_in("history")))


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_run_folder_holds_every_file_of_the_design(run: Path) -> None:
    expected = {".lock", "config.yaml", "environment.json", "history.csv", "splits.csv", "checkpoints", "evaluations"}
    expected |= {"photographs.csv", "leaks.csv", "phashes.npz", "training_time.json", "log.txt"}
    expected |= {"ledger.csv", "stretches.json", "report.html", "figures", "tables"}
    found = {path.name for path in run.iterdir()}
    events = {name for name in found if name.startswith("events.out.tfevents.")}
    assert len(events) == 2  # of the training, and of the evaluations after it
    assert found - events == expected
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    for split in ("val", "test"):
        files = {path.name for path in (run / "evaluations" / split).iterdir()}
        assert files == {"predictions.csv", "metrics.csv", "metrics.json", "provenance.json", "explanations"}


def test_history_has_a_row_an_epoch_with_all_metrics(run: Path) -> None:
    rows = table(run / "history.csv")
    assert [int(row["epoch"]) for row in rows] == [0, 1, 2, 3]
    for row in rows:
        for split in ("train", "val"):
            for name in NAMES:
                assert math.isfinite(float(row[f"{split}_{name}"])), f"{split}_{name}"
    assert float(rows[0]["lr_head"]) == 1e-3
    assert float(rows[0]["lr_features.18"]) == 1e-4
    shares = [float(row["trainable_share"]) for row in rows]
    assert shares[0] < 0.01 < shares[1] < shares[2] == shares[3]


def test_plateau_lowers_every_group(run: Path) -> None:
    rows = table(run / "history.csv")
    reference = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e-3)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(reference, factor=0.5, patience=0)
    for row in rows:
        lr = reference.param_groups[0]["lr"]
        assert float(row["lr_head"]) == pytest.approx(lr)
        assert float(row["lr_features.6"]) == pytest.approx(lr / 10)
        plateau.step(float(row["val_loss"]))


def test_tensorboard_has_the_same_curves(run: Path) -> None:
    events = EventAccumulator(str(run))
    events.Reload()
    rows = table(run / "history.csv")
    tags = {"val_loss": "loss/val", "train_auroc": "auroc/train", "lr_head": "lr/head"}
    tags |= {"lr_features.18": "lr/features.18", "trainable_share": "trainable_share"}
    for name, tag in tags.items():
        values = [event.value for event in events.Scalars(tag)]
        assert values == pytest.approx([float(row[name]) for row in rows]), name


def test_tensorboard_has_images_and_settings_beside_final_metrics(run: Path) -> None:
    events = EventAccumulator(str(run))
    events.Reload()
    epoch = read_checkpoint(run / "checkpoints" / "best.ckpt").epoch
    step = int(table(run / "history.csv")[epoch]["step"])
    names = ("training images after augmentation", "confusion/val", "roc/val", "confusion/test", "roc/test")
    pictures = {}
    for name in names:
        (image,) = events.Images(name)
        assert image.step == (0 if name == names[0] else step)
        pictures[name] = np.asarray(Image.open(io.BytesIO(image.encoded_image_string)))
    assert set(events.Tags()["images"]) == set(names)
    # 8 images of 64 px, 4 a row, 2 px around each.
    grid = pictures[names[0]]
    assert grid.shape == (2 * 66 + 2, 4 * 66 + 2, 3)
    assert len({grid[y : y + 64, x : x + 64].tobytes() for y in (2, 68) for x in (2, 68, 134, 200)}) == 8
    for split in ("val", "test"):
        metrics = read_metrics(run / "evaluations" / split)
        (point,) = events.Scalars(f"final/{split}_auroc")
        assert (point.step, point.value) == (step, pytest.approx(metrics.overall["auroc"]))
        (point,) = events.Scalars(f"final/{split}_sensitivity")
        assert point.value == pytest.approx(metrics.at_threshold["sensitivity"])
    plugin = events.summary_metadata["_hparams_/session_start_info"].plugin_data
    settings = HParamsPluginData.FromString(plugin.content).session_start_info.hparams
    assert settings["model.backbone"].string_value == "mobilenet_v2_x0_35"
    assert settings["model.lr"].number_value == 1e-3
    assert settings["unfreezing.start_epoch"].number_value == 1
    assert settings["data.batch_size"].number_value == 8


def test_best_checkpoint_is_that_of_the_smallest_val_loss(run: Path) -> None:
    losses = [float(row["val_loss"]) for row in table(run / "history.csv")]
    assert read_checkpoint(run / "checkpoints" / "best.ckpt").epoch == losses.index(min(losses))
    assert read_checkpoint(run / "checkpoints" / "last.ckpt").epoch == 3


def test_checkpoint_describes_itself(run: Path, leaves: Path) -> None:
    header = read_checkpoint(run / "checkpoints" / "best.ckpt").header
    assert (header.backbone, header.image_size) == ("mobilenet_v2_x0_35", 64)
    assert (header.class_names, header.positive_class) == (("BLD", "No_BLD"), "BLD")
    assert header.settings["data"]["root"] == str(leaves)
    assert header.fingerprints == json.loads((run / "environment.json").read_text())["dataset_fingerprint"]
    assert header.versions["torch"] == torch.__version__.split("+")[0]


def test_threshold_and_temperature_come_from_validation_of_that_epoch(run: Path) -> None:
    """Test and validation metrics use the checkpoint's own; on validation they are the best that there is."""
    header = read_checkpoint(run / "checkpoints" / "best.ckpt").header
    for split in ("val", "test"):
        metrics = json.loads((run / "evaluations" / split / "metrics.json").read_text())
        assert (metrics["threshold"], metrics["temperature"]) == (header.threshold, header.temperature)
    rows = read_predictions(run / "evaluations" / "val" / "predictions.csv")
    labels = [row.true_class == "BLD" for row in rows]
    best = max(
        float(sklearn_metrics.f1_score(labels, [row.probability >= candidate.probability for row in rows]))
        for candidate in rows
    )
    metrics = json.loads((run / "evaluations" / "val" / "metrics.json").read_text())
    assert metrics["at_threshold"]["f1"] == pytest.approx(best, abs=1e-12)


@pytest.mark.parametrize("split", ["val", "test"])
def test_every_metric_is_what_scikit_learn_computes_from_the_predictions(run: Path, split: str) -> None:
    folder = run / "evaluations" / split
    metrics = json.loads((folder / "metrics.json").read_text())
    rows = read_predictions(folder / "predictions.csv")
    labels = [int(row.true_class == "BLD") for row in rows]
    scores = [row.probability for row in rows]
    assert metrics.pop("schema") == 2
    intervals = metrics.pop("intervals")
    assert ("baselines" in metrics) == (split != "train"), "of the training photographs there is nothing to fit on"
    metrics.pop("baselines", None)
    for name in ("bands", "novelty"):  # of certainty, which has tests of its own
        metrics.pop(name, None)
    at = {metrics["threshold"]: metrics.pop("at_threshold"), 0.5: metrics.pop("at_0.5")}
    assert intervals["at_0.5"]["accuracy"]["low"] <= at[0.5]["accuracy"] <= intervals["at_0.5"]["accuracy"]["high"]
    assert metrics.pop("n") == len(rows)
    assert metrics.pop("n_positive") == sum(labels)
    threshold, temperature = metrics.pop("threshold"), metrics.pop("temperature")
    logits = temperature * special.logit(np.array(scores))
    uncalibrated = sklearn_metrics.log_loss(labels, special.expit(logits))
    assert metrics.pop("loss_uncalibrated") == pytest.approx(uncalibrated, abs=1e-6)
    assert [row.predicted_class == "BLD" for row in rows] == [score >= threshold for score in scores]
    assert metrics.keys() | at[0.5].keys() >= {metric.name for metric in shown_in("evaluation")}
    for point, found in ((0.5, metrics), *at.items()):
        predicted = [int(score >= point) for score in scores]
        cells = sklearn_metrics.confusion_matrix(labels, predicted, labels=[0, 1]).ravel().tolist()
        if found is not metrics:
            assert [found.pop(cell) for cell in ("tn", "fp", "fn", "tp")] == cells
        for name, value in found.items():
            if name.startswith("calibration_") and np.ptp(scores) < 1e-6:
                continue  # so close to equal that neither implementation finds a slope
            expected = second_opinion(name, labels, scores, point)
            if math.isnan(expected):
                assert value is None, name
            else:
                assert value == pytest.approx(expected, abs=TOLERANCES.get(name, 1e-6)), name


def test_predictions_name_the_right_files_and_classes(run: Path, leaves: Path) -> None:
    rows = read_predictions(run / "evaluations" / "test" / "predictions.csv")
    in_test = read_manifest(run / "splits.csv", leaves).splits["test"]
    assert [row.path for row in rows] == [sample.name for sample in in_test]
    for row in rows:
        assert (leaves / row.path).is_file()
        assert row.path.startswith(f"{row.true_class}/")


def test_training_photographs_are_evaluated_as_they_are(run: Path, leaves: Path) -> None:
    rows = {row.path: row for row in read_predictions(run / "evaluations" / "train" / "predictions.csv")}
    splits = {row["path"]: row for row in table(run / "splits.csv")}
    assert rows.keys() == {path for path, row in splits.items() if row["split"] == "train"}
    assert all(row.true_class == splits[path]["label"] for path, row in rows.items())
    # Without augmentation, by the weights and the threshold of the best checkpoint.
    checkpoint = read_checkpoint(run / "checkpoints" / "best.ckpt")
    path, row = next(iter(rows.items()))
    model = LeafClassifier(backbone="mobilenet_v2_x0_35", weights="none", image_size=64)
    model.load_state_dict(checkpoint.state_dict)
    with torch.inference_mode():
        logit = float(model.eval()(evaluation_image(load_rgb(leaves / path, 64), 64)[None]))
    probability = 1 / (1 + math.exp(-logit / checkpoint.header.temperature))
    assert row.probability == pytest.approx(probability, abs=0.02)  # 16-mixed


def test_table_of_photographs_has_each_with_its_size(run: Path) -> None:
    rows = read_photograph_table(run / "photographs.csv")
    assert [(row.path, row.split, row.true_class) for row in rows] == [
        (row["path"], row["split"], row["label"]) for row in table(run / "splits.csv")
    ]
    assert {max(row.width, row.height) for row in rows} == {96}


def test_splits_csv_is_a_manifest_that_gives_the_same_run(run: Path, leaves: Path, bldml: Bldml) -> None:
    outcome = bldml(
        "fit", *SMALL, "--data.root", leaves, "--data.manifest", run / "splits.csv", "--run_name=again",
        "--trainer.max_epochs=1", "--test_after_fit=false",
    )  # fmt: skip
    assert outcome.code == 0
    assert Path("lightning_logs/again/splits.csv").read_bytes() == (run / "splits.csv").read_bytes()
    evaluated = {path.name for path in Path("lightning_logs/again/evaluations").iterdir()}
    assert evaluated == {"train", "val"}, "the test split stays sealed"
    again, before = table(Path("lightning_logs/again/history.csv")), table(run / "history.csv")
    assert again[0]["val_loss"] == before[0]["val_loss"]


def test_config_of_a_run_repeats_it(run: Path, bldml: Bldml) -> None:
    outcome = bldml(
        "fit", "--config", run / "config.yaml", "--run_name=again", "--test_after_fit=false", "--report=false"
    )
    assert outcome.code == 0
    assert Path("lightning_logs/again/history.csv").read_bytes() == (run / "history.csv").read_bytes()


@pytest.fixture
def pretrained(tmp_path: Path) -> Path:
    """A file of weights whose BatchNorm statistics are not the initial ones."""
    generator = torch.Generator().manual_seed(5)
    state = build("mobilenet_v2_x0_35").state_dict()
    for key, value in state.items():
        # Near the activations' own, which grow weaker with depth: else every ReLU after them is dead.
        if "running_mean" in key:
            state[key] = 1e-3 * torch.randn(value.shape, generator=generator)
        elif "running_var" in key:
            state[key] = 0.05 + 0.05 * torch.rand(value.shape, generator=generator)
    torch.save({key: value for key, value in state.items() if not key.startswith("classifier.")}, tmp_path / "w.pth")
    return tmp_path / "w.pth"


def test_in_every_epoch_statistics_frozen_stages_and_groups_are_the_same(
    pretrained: Path, leaves: Path, bldml: Bldml
) -> None:
    """A checkpoint of each epoch, through a callback of the configuration, against the pretrained file."""
    every = "{class_path: ModelCheckpoint, init_args: {dirpath: all, filename: '{epoch}', save_top_k: -1}}"
    Path("every.yaml").write_text(f"trainer: {{callbacks: [{every}]}}\n")
    outcome = bldml(
        "fit", *SMALL, "--data.root", leaves, "--config=every.yaml", "--model.weights", pretrained, "--run_name=r",
        "--unfreezing={start_epoch: 1, stages: 3, every_n_epochs: 1}", "--trainer.max_epochs=4",
        "--test_after_fit=false",
    )  # fmt: skip
    assert outcome.code == 0
    row = BACKBONES["mobilenet_v2_x0_35"]
    initial = torch.load(pretrained, weights_only=True)
    names = ["head", *(stage[0] for stage in row.stages)]
    for epoch in range(4):
        content = torch.load(f"all/epoch={epoch}.ckpt", weights_only=True)
        unfrozen = tuple(f"{path}." for stage in row.stages[:epoch] for path in stage)
        moved = set()
        for key, before in initial.items():
            same = torch.equal(content["state_dict"][f"network.{key}"], before)
            if "running_" in key or "num_batches" in key or not key.startswith(unfrozen):
                assert same, f"epoch {epoch}: {key}"
            elif not same:
                moved.add(next(prefix for prefix in unfrozen if key.startswith(prefix)))
        assert moved == set(unfrozen), f"epoch {epoch}"
        optimizer = content["optimizer_states"][0]
        assert [group["name"] for group in optimizer["param_groups"]] == names
        assert sum(len(group["params"]) for group in optimizer["param_groups"]) == len(list(initial)) - 3 * 52 + 2
        # Frozen stages are never stepped: the optimizer holds no moments for them.
        held = {number for group in optimizer["param_groups"][: epoch + 1] for number in group["params"]}
        assert set(optimizer["state"]) == held


@pytest.mark.parametrize(("workers", "cache", "feature_cache"), [(2, "auto", 2.0), (4, "off", 2.0), (0, "auto", 0.0)])
def test_results_do_not_depend_on_workers_cache_and_feature_cache(
    run: Path, leaves: Path, bldml: Bldml, workers: int, cache: str, feature_cache: float
) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text())
    config |= {"run_name": "again", "report": False}
    config["data"] |= {"num_workers": workers, "cache": cache}
    config["model"]["feature_cache"] = feature_cache
    Path("config.yaml").write_text(yaml.safe_dump(config))
    assert bldml("fit", "--config=config.yaml").code == 0
    again = Path("lightning_logs/again")
    assert (again / "history.csv").read_bytes() == (run / "history.csv").read_bytes()
    for split in ("val", "test"):
        path = Path("evaluations") / split / "predictions.csv"
        assert (again / path).read_bytes() == (run / path).read_bytes()
    before = read_checkpoint(run / "checkpoints" / "last.ckpt").state_dict
    after = read_checkpoint(again / "checkpoints" / "last.ckpt").state_dict
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize("name", [path.name for path in sorted((REPOSITORY / "configs").glob("*.yaml"))])
def test_every_shipped_config_runs(name: str, leaves: Path, bldml: Bldml) -> None:
    # slurm.yaml and card.yaml hold only what is added to another.
    layered = name in ("slurm.yaml", "card.yaml")
    below = ("--config", REPOSITORY / "configs" / "mobilenet.yaml") if layered else ()
    outcome = bldml(
        "fit", *below, "--config", REPOSITORY / "configs" / name, "--data.root", leaves, "--model.weights=none",
        "--model.image_size=128", "--data.batch_size=2", "--data.num_workers=0", "--trainer.fast_dev_run=true",
        "--trainer.accelerator=cpu",
    )  # fmt: skip
    assert outcome.code == 0
    assert not Path("lightning_logs").exists()


def test_split_folders_with_aliases_and_automatic_pos_weight(split_leaves: Path, bldml: Bldml) -> None:
    outcome = bldml(
        "fit", *SMALL, "--data.root", split_leaves, "--data.class_aliases={BLD: sick, No_BLD: sound}",
        "--data.positive_class=sick", "--model.pos_weight=auto", "--trainer.max_epochs=1", "--run_name=s",
    )  # fmt: skip
    assert outcome.code == 0
    checkpoint = read_checkpoint(Path("lightning_logs/s/checkpoints/best.ckpt"))
    assert checkpoint.header.class_names == ("sick", "sound")
    assert float(checkpoint.state_dict["pos_weight"]) == 1.0
    rows = read_predictions(Path("lightning_logs/s/evaluations/test/predictions.csv"))
    assert {(row.path.split("/")[1], row.true_class) for row in rows} == {("BLD", "sick"), ("No_BLD", "sound")}


def test_probabilities_of_a_weighted_loss_are_shifted_back(leaves: Path, bldml: Bldml) -> None:
    """In test and explain alike, by the number in the checkpoint."""
    fit = ("fit", *THREE_LAYERS, f"--data.root={leaves}", "--trainer.max_epochs=1", "--trainer.precision=32-true")
    assert bldml(*fit, "--model.pos_weight=9", "--run_name=w").code == 0
    run = Path("lightning_logs/w")
    checkpoint = read_checkpoint(run / "checkpoints/best.ckpt")
    assert checkpoint.header.offset == pytest.approx(math.log(9))
    model = LeafClassifier(backbone=NAME, weights="none", image_size=64)
    model.load_state_dict(checkpoint.state_dict)
    rows = read_predictions(run / "evaluations/test/predictions.csv")
    images = torch.stack([evaluation_image(load_rgb(leaves / row.path, 64), 64) for row in rows])
    with torch.inference_mode():
        logits = model.eval()(images).double()
    expected = torch.sigmoid((logits - math.log(9)) / checkpoint.header.temperature)
    assert [row.probability for row in rows] == pytest.approx(expected.tolist(), abs=1e-5)
    explain = ("explain", "--ckpt_path", run / "checkpoints/best.ckpt", leaves / "BLD", "--output=cams", "--device=cpu")
    assert bldml(*explain).code == 0
    explained = {row["path"]: float(row["probability"]) for row in table(Path("cams/explanations.csv"))}
    ours = {Path(row.path).name: row.probability for row in rows if row.true_class == "BLD"}
    assert {name: explained[name] for name in ours} == pytest.approx(ours, abs=1e-5)


def test_threshold_is_chosen_for_the_goal_given_on_validation(leaves: Path, bldml: Bldml) -> None:
    options = ("--run_name=screening", "--trainer.max_epochs=1", "--operating_point.specificity=0.9")
    result = bldml("fit", *SMALL, f"--data.root={leaves}", *options)
    assert result.code == 0, result.err
    folder = Path("lightning_logs/screening")
    written = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)[KEY]
    criterion = {"maximize": None, "sensitivity": None, "specificity": 0.9, "threshold": None, "assurance": None}
    criterion |= {"band_error": 0.05}
    assert written["settings"]["operating_point"] == criterion
    rows = read_predictions(folder / "evaluations" / "val" / "predictions.csv")
    labels = [int(row.true_class == "BLD") for row in rows]
    false_alarms, sensitivities, _ = sklearn_metrics.roc_curve(
        labels, [row.probability for row in rows], drop_intermediate=False
    )
    scores = json.loads((folder / "evaluations" / "val" / "metrics.json").read_text())["at_threshold"]
    assert scores["specificity"] >= 0.9
    assert scores["sensitivity"] == pytest.approx(sensitivities[1 - false_alarms >= 0.9].max())


def test_two_goals_for_one_threshold_are_refused(leaves: Path, bldml: Bldml) -> None:
    options = ("--operating_point.sensitivity=0.9", "--operating_point.maximize=youden")
    result = bldml("fit", *SMALL, f"--data.root={leaves}", *options)
    assert result.code == 2
    assert "one threshold criterion, not maximize and sensitivity" in result.err
    assert "Traceback" not in result.err
    assert not Path("lightning_logs").exists()


def test_lightnings_own_callbacks_and_a_drawn_seed(leaves: Path, bldml: Bldml) -> None:
    outcome = bldml(
        "fit", *SMALL, "--data.root", leaves, "--run_name=r", "--trainer.max_epochs=1", "--seed_everything=true",
        "--trainer.callbacks+=LearningRateMonitor", "--test_after_fit=false",
    )  # fmt: skip
    assert outcome.code == 0
    assert len(table(Path("lightning_logs/r/history.csv"))) == 1
    seed = json.loads(Path("lightning_logs/r/environment.json").read_text())["seed"]
    assert seed > 1
    assert yaml.safe_load(Path("lightning_logs/r/config.yaml").read_text())["seed_everything"] == seed


def test_ctrl_c_keeps_the_run_and_says_what_can_be_done_with_it(leaves: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bldml", "fit", *SMALL, f"--data.root={leaves}", "--run_name=r"]
    process = Prepared(
        [*command, "--trainer.max_epochs=1000", "--early_stopping.patience=1000"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    best = tmp_path / "lightning_logs/r/checkpoints/best.ckpt"
    while not best.is_file() and process.poll() is None:
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert f"test --ckpt_path {Path('lightning_logs/r/checkpoints/best.ckpt')}" in out.replace(f"{tmp_path}/", "")
    assert read_checkpoint(best).header.backbone == "mobilenet_v2_x0_35"


def test_tasks_of_an_array_never_share_a_run(leaves: Path, bldml: Bldml, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name comes from a configuration, as it may from the command line."""
    Path("name.yaml").write_text("run_name: sweep\n")
    options = ("--config=name.yaml", "--trainer.max_epochs=1", "--test_after_fit=false", f"--data.root={leaves}")
    for name, value in {"JOB_ID": "9", "ARRAY_JOB_ID": "9", "ARRAY_TASK_ID": "0"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.setenv("BLDML_TASK", "resnet50")
    assert bldml("fit", *THREE_LAYERS, *options).code == 0
    assert [path.name for path in Path("lightning_logs").iterdir()] == ["sweep_resnet50"]
    # A script of one's own that gives all tasks one name.
    Path("lightning_logs/sweep_resnet50").rename("lightning_logs/sweep")
    monkeypatch.delenv("BLDML_TASK")
    monkeypatch.setenv("SLURM_JOB_ID", "10")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "1")
    outcome = bldml("fit", *THREE_LAYERS, *options)
    assert outcome.mistake == "run-exists"
    assert "--resume" not in outcome.err
    assert "sweep is that of task 0 of the same array" in outcome.err
    assert "--run_name sweep_$SLURM_ARRAY_TASK_ID" in outcome.err
