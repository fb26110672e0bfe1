"""A folder with what users get wrong: photographs, tables, configurations, checkpoints and runs."""

import shutil
from pathlib import Path
from typing import Any

import torch

from bldml.dataset.synthetic.leaves import write_leaves
from bldml.training.checkpoint import KEY
from bldml.training.module import LeafClassifier
from bldml.training.resume.slurm import RequeueEnvironment  # noqa: F401  # torch and Lightning are loaded once, here

HEADER = {
    "backbone": "mobilenet_v2_x0_35", "image_size": 64, "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225),
    "class_names": ("BLD", "No_BLD"), "positive_class": "BLD", "threshold": 0.5, "temperature": 1.0,
    "fingerprints": {}, "seen": "", "versions": {}, "format": 1,
    "settings": {"data": {"root": "data", "val_fraction": 0.2, "test_fraction": 0.2}, "precision": "32-true"},
}  # fmt: skip
CONFIGS = {
    "damaged": "model: [1",
    "twice": "model: {lr: 0.1, lr: 0.2}",
    "infinite": "model: {lr: .inf}",
    "text": "hello",
    "group": "trainer: null",
    "monitor": "early_stopping: {monitor: val_auroc}",
    "null": "model: {lr: null}",
    "foreign": "trainer: {callbacks: [{class_path: evil.X}]}",
    "augmentation": "data: {augmentation: {crop_area: [0.9, 0.5]}}",
    "goals": "operating_point: {sensitivity: 0.9, specificity: 0.9}",
    "assurance": "operating_point: {assurance: 0.9}",
    "percent": "card: {prevalence: 5}",
    "certain": "operating_point: {sensitivity: 1.0, assurance: 0.9}",
    "bands": "operating_point: {band_error: 0.9}",
    "point": "operating_point: 0.9",
    "path": "data: {root: [data]}",
    "callbacks": "trainer: {callbacks: [3]}",
    "other-program": "epochs: 3",
    "overfit": "trainer: {overfit_batches: 1}",
}
OF_SWEEP = (
    "options: {model.backbone: mobilenet_v2_x0_35, model.weights: none, trainer.accelerator: cpu, "
    "data.positive_class: BLD"
)
EXPERIMENTS = {
    "unknown-key": "grid: {model.lr: [1e-3]}\nseed: [1]",
    "empty-grid": "grid: {}",
    "grid-no-list": "grid: {model.lr: 1e-3}",
    "grid-twice": "grid: {model.lr: [1e-3, 0.001]}",
    "grid-of-seeds": "grid: {seed_everything: [1, 2]}",
    "grid-of-folds": "configurations: [{name: a, data.fold: 1}]",
    "both": "grid: {model.lr: [1e-3]}\nconfigurations: [{name: a}]",
    "same-name": "configurations: [{name: a}, {name: a, model.lr: 0.1}]",
    "no-name": "configurations: [{model.lr: 0.1}]",
    "own-run-name": "options: {run_name: mine}",
    "seeds-number": "seeds: 3",
    "seeds-twice": "seeds: [1, 1]",
    "one-fold": "folds: 1",
    "fold-key": "folds: {nummer: 5}",
    "val-all": "folds: {number: 5, val: 1.0}",
    "metric-unknown": "metric: acuracy",
    "chosen-unknown": "grid: {model.lr: [1e-3]}\nchosen: lr-0.01",
    "base-missing": "base: gone.yaml",
    "base-damaged": "base: damaged.yaml",
    "option-unknown": f"{OF_SWEEP}, data.root: data, model.lrr: 1}}",
    "no-photographs": f"{OF_SWEEP}}}",
    "class-unknown": f"{OF_SWEEP.replace('BLD', 'BLT')}, data.root: data}}\nfolds: 2",
    "folds-many": f"{OF_SWEEP}, data.root: data}}\nfolds: 9",
    "folds-of-none": f"{OF_SWEEP}, data.root: data}}\nfolds: manifest",
    "folds-differ": f"{OF_SWEEP}, data.root: data, data.manifest: folds.csv}}\nfolds: 5",
    "fold-lacks-class": f"{OF_SWEEP}, data.root: data, data.manifest: folds.csv}}\nfolds: manifest",
    "folds-unreadable": f"{OF_SWEEP}, data.root: damaged}}\nfolds: 2",
    "roots-differ": f"{OF_SWEEP}}}\ngrid: {{data.root: [data, damaged]}}\nfolds: 2",
}
TABLES = {
    "no-split": "path,label\nBLD/leaf_0001.jpg,BLD\n",
    "wrong-rows": "path,label,split\nBLD/leaf_0001.jpg,BLD,train\nBLD/gone.jpg,BLD,val\nBLD/leaf_0002.jpg,BLD,dev\n"
    "BLD/leaf_0003.jpg,,train\nBLD/../BLD/leaf_0001.jpg,BLD,val\n",
    "folds": "path,label,split,fold\nBLD/leaf_0001.jpg,BLD,train,0\nNo_BLD/leaf_0001.jpg,No_BLD,train,1\n",
    "quote": 'path,label,split\n"BLD/leaf_0001.jpg,BLD,train\n',
    "groups": "path,group\nBLD/gone.jpg,a\nBLD/leaf_0001.jpg,a\nBLD/leaf_0001.jpg,b\n",
    "foreign": "my,own,table\n",
    "previous": "path,label,split,group,sha256\nBLD/other.jpg,BLD,train,,\n",
}


def build(world: Path) -> None:
    """Write it all."""
    data = world / "data"
    write_leaves(data, images_per_class=6, size=96, seed=1)
    shutil.copytree(data / "BLD", world / "one-class" / "BLD")
    shutil.copytree(data, world / "three-classes")
    shutil.copytree(data / "BLD", world / "three-classes" / "scorch")
    shutil.copytree(data, world / "damaged")
    for number in (1, 2):
        path = world / "damaged" / "BLD" / f"leaf_000{number}.jpg"
        path.write_bytes(path.read_bytes()[:500])
    (world / "no-photographs" / "BLD").mkdir(parents=True)
    (world / "no-photographs" / "BLD" / "leaf.gif").write_bytes(b"GIF89a")
    for split in ("train", "validation"):
        shutil.copytree(data, world / "misnamed" / split)
    (world / "full").mkdir()
    (world / "full" / "note.txt").write_text("mine")
    (world / "empty").mkdir()
    for name, text in CONFIGS.items():
        (world / f"{name}.yaml").write_text(f"{text}\n")
    for name, text in EXPERIMENTS.items():
        (world / f"sweep-{name}.yaml").write_text(f"{text}\n")
    for name, text in TABLES.items():
        (world / f"{name}.csv").write_text(text)
    (world / "audit-of-mine").mkdir()
    (world / "audit-of-mine" / "audit.csv").write_text("mine\n")
    (world / "logs" / "lightning_logs" / "taken").mkdir(parents=True)
    checkpoints(world)


def checkpoints(world: Path) -> None:
    """A sound checkpoint, never trained, and some that are not."""
    torch.manual_seed(0)
    model = LeafClassifier(backbone="mobilenet_v2_x0_35", weights="none", image_size=64)
    sound: dict[str, Any] = {"epoch": 0, "state_dict": model.state_dict(), KEY: HEADER}
    torch.save(sound, world / "sound.ckpt")
    torch.save(sound | {KEY: HEADER | {"backbone": "resnet50"}}, world / "other-backbone.ckpt")
    torch.save(sound | {KEY: HEADER | {"format": 99}}, world / "later-version.ckpt")
    torch.save({"state_dict": {}}, world / "foreign.ckpt")
    (world / "model.onnx").write_bytes(b"an export")
    (world / "damaged.ckpt").write_bytes((world / "sound.ckpt").read_bytes()[:5000])
    run = world / "run"
    (run / "checkpoints").mkdir(parents=True)
    shutil.copy(world / "sound.ckpt", run / "checkpoints" / "best.ckpt")
