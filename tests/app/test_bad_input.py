"""What bad input gets: a clear message, an exit code, no traceback, nothing half written.

Beside what tests/messages holds, whose pages check the same of their own mistakes.
"""

import csv
import io
import os
import shutil
import zipfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from bldml.dataset.synthetic.leaves import write_leaves
from bldml.io.system import free_memory
from tests.support import SMALL, THREE_LAYERS, Bldml


def copy(leaves: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(leaves, tmp_path / "data"))


def class_missing_in_val(root: Path) -> None:
    for split in ("train", "val"):
        (root / split).mkdir()
        shutil.copytree(root / "No_BLD", root / split / "No_BLD")
    (root / "BLD").rename(root / "train" / "BLD")
    shutil.rmtree(root / "No_BLD")


def empty_test_split(root: Path) -> None:
    for split in ("train", "val", "test"):
        for name in ("BLD", "No_BLD"):
            shutil.copytree(root / name, root / split / name)
    for name in ("BLD", "No_BLD"):
        shutil.rmtree(root / name)
        for path in (root / "test" / name).iterdir():
            path.unlink()


def damaged(root: Path) -> None:
    for number in (1, 2):
        path = root / "BLD" / f"leaf_000{number}.jpg"
        path.write_bytes(path.read_bytes()[:500])


@pytest.mark.parametrize(
    ("spoil", "code", "fields"),
    [
        (class_missing_in_val, "class-missing-in-split", {"split": "val", "found": "BLD"}),
        (empty_test_split, "split-empty", {"split": "test"}),
    ],
)
def test_folder(
    spoil: Callable[[Path], None], code: str, fields: dict[str, object], leaves: Path, tmp_path: Path, bldml: Bldml
) -> None:
    root = copy(leaves, tmp_path)
    spoil(root)
    outcome = bldml("fit", *THREE_LAYERS, "--data.root", root)
    assert (outcome.code, outcome.mistake) == (1, code)
    assert outcome.fields | fields == outcome.fields
    assert_clean(outcome.err)


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--early_stoping.patience=3"], "option-wrong"),
        (["--trainer.max_epoch=3"], "option-wrong"),
        (["--model.lr=.inf"], "model-number-wrong"),
        (["--model.backbone=inception_v3", "--model.image_size=96"], "image-size-wrong"),
        (["--trainer.strategy=ddp_spawn"], "choice-unknown"),
        (["--data.num_workers=100000"], "workers-wrong"),
        (["--data.batch_size=10000000000"], "batch-size-wrong"),
        (["--trainer.accumulate_grad_batches=0"], "trainer-count-wrong"),
        (["--trainer.check_val_every_n_epoch=0"], "trainer-count-wrong"),
        (["--trainer.max_epochs=9223372036854775808"], "trainer-count-wrong"),
        (["--trainer.val_check_interval=0"], "trainer-option-unsupported"),
        (["--trainer.num_nodes=2"], "nodes-not-started"),
        (["--trainer.devices=2147483648"], "trainer-count-wrong"),
        (["--trainer.num_nodes=9223372036854775808"], "trainer-count-wrong"),
        (["--data.augmentation.strength=null"], "settings-refused"),
        (["--model.lr=0x" + "f" * 6000], "argument-too-much"),
        ([""], "argument-empty"),
        (["--data.root", " "], "argument-empty"),
        (["--data.root="], "argument-empty"),
        (["--run_name", ""], "argument-empty"),
        (["--data.root=$SCRATCH/leaves"], "variable-not-replaced"),
        (["--trainer.default_root_dir=/project/${USER}/runs"], "variable-not-replaced"),
        (["--trainer.gradient_clip_val=" + "9" * 400], "argument-too-much"),
        (["--model.lr", "[" * 5000 + "]" * 5000], "argument-too-much"),
        (["--data=" + "{" * 5000], "argument-too-much"),
        (["--seed_everything", "9" * 6000], "argument-too-much"),
        (["--run_name", "x" * 100_000], "argument-too-much"),
    ],
)
def test_option(options: list[str], code: str, leaves: Path, bldml: Bldml) -> None:
    outcome = bldml("fit", *SMALL, "--data.root", leaves, *options)
    assert outcome.mistake == code
    assert_clean(outcome.err)


def test_a_folder_in_which_the_events_of_tensorboard_would_go_astray(
    leaves: Path, bldml: Bldml, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("$HOME").mkdir()
    monkeypatch.chdir("$HOME")
    outcome = bldml("fit", *SMALL, "--data.root", leaves, "--trainer.default_root_dir=runs")
    assert (outcome.code, outcome.mistake) == (2, "events-elsewhere")
    assert not list(Path().iterdir())


def test_a_setting_that_does_not_fit_the_number_of_batches(leaves: Path, bldml: Bldml) -> None:
    """Lightning finds it when it sets up the first epoch, and raised a ValueError."""
    outcome = bldml("fit", *THREE_LAYERS, "--data.root", leaves, "--run_name=r", "--trainer.val_check_interval=1000")
    assert (outcome.code, outcome.mistake) == (1, "lightning-refused")
    assert "val_check_interval" in outcome.err


def doubled(levels: int, line: str) -> str:
    """Each line names the one before nine times."""
    names = [chr(ord("a") + level) for level in range(levels + 1)]
    rest = [line.format(new=new, nine=", ".join([f"*{old}"] * 9)) for old, new in pairwise(names)]
    return "\n".join(["a: &a {k: 1}", *rest])


@pytest.mark.parametrize(
    "text",
    [
        doubled(12, "{new}: &{new} [{nine}]"),
        doubled(9, "{new}: &{new} {{<<: [{nine}]}}"),
        "[" * 5000 + "]" * 5000,
        "[" * 19_000,
        "a: " + "9" * 6000,
        "a: 1e" + "9" * 6000,
    ],
)
def test_a_short_text_that_means_much(text: str, bldml: Bldml) -> None:
    assert len(text) < 20_000
    Path("much.yaml").write_text(text)
    outcome = bldml("fit", *THREE_LAYERS, "--config=much.yaml", "--data.root=leaves")
    assert (outcome.code, outcome.mistake) == (2, "config-not-yaml")
    assert len(outcome.err) < 1000
    assert_clean(outcome.err)


@pytest.mark.parametrize(
    "words",
    [
        ("demo", "s3://bucket/leaves"),
        ("audit", "leaves", "--output=gs://bucket/audit"),
        ("split", "leaves", "--output=http://host/manifest.csv"),
        ("report", "https://host/run"),
        ("compare", "here", "s3://bucket/there"),
        ("predict", "s3://bucket/best.ckpt", "leaves"),
        ("fit", "leaves", "--output=s3://bucket/runs"),
        ("fit", "leaves", "--output=s3://bucket/runs", "--trust_config"),
        ("fit", "leaves", "--config=https://host/base.yaml"),
        ("fit", "--resume=file:///runs/a"),
    ],
)
def test_an_address_is_no_folder_of_this_machine(words: tuple[str, ...], bldml: Bldml) -> None:
    outcome = bldml(*words)
    assert (outcome.code, outcome.mistake) in [
        (2, code) for code in ("address-refused", "path-is-address", "path-unusable")
    ]
    assert "is a URL" in outcome.err
    assert not list(Path.cwd().iterdir())


@pytest.mark.parametrize(
    "words",
    [
        ("predict", "{run}", "{leaves}", "--output=x.csv"),
        ("test", "{run}", "--output=out/metrics.JSON"),
        ("fit", "{leaves}", "--output=x.csv"),
        ("explain", "{run}", "{leaves}", "--output=x.png"),
        ("export", "{run}", "--output=x.onnx"),
        ("survey", "{run}", "{leaves}", "--output=x.geojson"),
        ("audit", "{leaves}", "--output=x.html"),
        ("compare", "{run}", "{run}", "--output=x.tex"),
        ("review", "{leaves}", "{run}", "{leaves}", "--output=x.csv"),
        ("ensemble", "{leaves}", "--output=x.ckpt"),
        ("sweep", "{leaves}", "--output=x.yaml"),
    ],
)
def test_the_name_of_a_file_is_no_folder(words: tuple[str, ...], run: Path, leaves: Path, bldml: Bldml) -> None:
    outcome = bldml(*(word.format(run=run, leaves=leaves) for word in words))
    assert (outcome.code, outcome.mistake) == (2, "output-is-file-name")
    assert not list(Path.cwd().iterdir())


def test_a_checkpoint_that_asks_for_more_memory_than_there_is(
    run: Path, leaves: Path, tmp_path: Path, bldml: Bldml, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its images have 4096 px. Somebody who means it can try."""
    content = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    content["bldml"]["image_size"] = 4096
    torch.save(content, tmp_path / "best.ckpt")
    monkeypatch.setattr("bldml.training.data.loading.free_memory", lambda: 2**27)
    words = ("predict", tmp_path / "best.ckpt", leaves, "--data.num_workers=2", "--trainer.accelerator=cpu")
    outcome = bldml(*words)
    assert (outcome.code, outcome.mistake) == (2, "batch-exceeds-memory")
    assert "Batches of 16 images of 4096 px need 2.4 GB in this process and in 2 loader processes" in outcome.err
    assert not (tmp_path / "evaluations").exists()
    monkeypatch.setattr("bldml.training.module.LeafClassifier.predict_step", lambda *_: 1 / 0)
    monkeypatch.setattr("bldml.training.data.loading.free_memory", lambda: 2**20)
    monkeypatch.setenv("BLDML_MEMORY_CHECK", "off")
    with pytest.raises(ZeroDivisionError):
        bldml(*words, "--data.batch_size=1", "--data.num_workers=0")


def test_free_memory_is_that_of_the_machine_or_less() -> None:
    free = free_memory()
    assert free is None or 2**20 < free < 2**50


def test_results_do_not_go_among_the_photographs(run: Path, leaves: Path, bldml: Bldml) -> None:
    before = sorted(leaves.rglob("*"))
    options = f"data.root: {leaves}, data.positive_class: BLD, model.backbone: three_layers, model.weights: none"
    Path("tiny.yaml").write_text(f"options: {{{options}}}\nseeds: [1, 2]\n")
    for words in (
        ("predict", run, leaves, "--output", leaves / "results"),
        ("test", run, leaves, "--output", leaves / "BLD"),
        ("fit", *THREE_LAYERS, "--data.root", leaves, "--output", leaves),
        ("sweep", "tiny.yaml", "--output", leaves / "BLD" / "sweep"),
    ):
        outcome = bldml(*words)
        assert (outcome.code, outcome.mistake) == (2, "output-among-photographs"), words
    assert sorted(leaves.rglob("*")) == before


def test_a_mistake_in_a_configuration_names_its_file(leaves: Path, bldml: Bldml) -> None:
    Path("mine.yaml").write_text("model: {lrr: 1}\n")
    Path("other.yaml").write_text("trainer: {default_root_dir: 's3://a'}\n")
    for name in ("mine.yaml", "other.yaml"):
        outcome = bldml("fit", *THREE_LAYERS, "--data.root", leaves, "--config", name)
        assert outcome.code == 2
        assert f"error: {name}: " in outcome.err
    typed = bldml("fit", *THREE_LAYERS, "--data.root", leaves, "--model.lrr=1", "--config=mine.yaml")
    assert "mine.yaml" not in typed.err


@pytest.mark.parametrize("name", ["null", "1e3", "true"])
def test_a_class_may_be_called_as_yaml_calls_something_else(
    name: str, leaves: Path, tmp_path: Path, bldml: Bldml
) -> None:
    root = copy(leaves, tmp_path)
    (root / "BLD").rename(root / name)
    options = [option for option in THREE_LAYERS if "positive_class" not in option]
    fit = ("fit", *options, "--data.root", root, "--trainer.max_epochs=1", "--trainer.fast_dev_run=1")
    assert bldml(*fit, "--data.positive_class", name).code == 0
    Path("mine.yaml").write_text(f"data: {{positive_class: '{name}'}}\n")
    assert bldml(*fit, "--config=mine.yaml").code == 0
    Path("mine.yaml").write_text(f"data: {{class_aliases: {{{name}: BLD, No_BLD: {name}}}, positive_class: BLD}}\n")
    assert bldml(*fit, "--config=mine.yaml").code == 0
    assert bldml(*fit, f"--data.class_aliases={{{name}: BLD}}", "--data.positive_class=BLD").code == 0
    if name != "null":  # printed before bldml knows
        Path("printed.yaml").write_text(bldml(*fit, "--data.positive_class", name, "--print_config").out)
        assert bldml(*fit, "--config=printed.yaml").code == 0


def test_a_class_whose_name_begins_as_a_comment(leaves: Path, tmp_path: Path, bldml: Bldml) -> None:
    root = copy(leaves, tmp_path)
    (root / "BLD").rename(root / "#3")
    options = [option for option in THREE_LAYERS if "positive_class" not in option]
    assert bldml("fit", *options, "--data.root", root, "--trainer.fast_dev_run=1", "--data.positive_class=#3").code == 0


def test_output_folder_that_cannot_be_written(leaves: Path, bldml: Bldml) -> None:
    # Nobody, root included, can make a folder there.
    outcome = bldml("fit", *THREE_LAYERS, "--data.root", leaves, "--trainer.default_root_dir=/proc")
    assert outcome.code == 1
    assert "/proc" in outcome.err
    assert_clean(outcome.err)


def test_imagenet_weights_that_cannot_be_had(
    leaves: Path, tmp_path: Path, bldml: Bldml, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty cache, and a proxy that refuses: as on a compute node."""
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    for name in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    # Said before any photograph is looked for.
    outcome = bldml(
        "fit", *SMALL, "--data.root", leaves / "missing", "--model.backbone=resnet50", "--model.weights=imagenet",
        "--model.image_size=64",
    )  # fmt: skip
    assert outcome.code == 1
    assert "resnet50-11ad3fa6.pth" in outcome.err
    assert str(tmp_path / "cache") in outcome.err
    assert "login node" in outcome.err
    assert "python -m bldml prefetch --backbone resnet50\n" in outcome.err
    assert_clean(outcome.err)


class Evil:
    """Unpickled, it would leave a file behind."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch evil_was_here",)


def test_checkpoint_that_is_not_one(run: Path, tmp_path: Path, bldml: Bldml) -> None:
    good = (run / "checkpoints" / "best.ckpt").read_bytes()
    path = tmp_path / "best.ckpt"
    pickled = io.BytesIO()
    with zipfile.ZipFile(pickled, "w") as archive:
        archive.writestr("archive/data.pkl", b"cos\nsystem\n(S'touch evil_was_here'\ntR.")
    hostile = io.BytesIO()
    torch.save({"state_dict": Evil()}, hostile)
    cases = (good[: len(good) // 2], b"", b"hello", hostile.getvalue(), pickled.getvalue())
    for number, content in enumerate(cases):
        path.write_bytes(content)
        outcome = bldml("test", "--ckpt_path", path)
        assert outcome.mistake == "checkpoint-damaged", number
        assert_clean(outcome.err)
    assert not Path("evil_was_here").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"backbone": "alexnet"}, "backbone"),
        ({"positive_class": "rust"}, "positive_class"),
        ({"temperature": float("nan")}, "temperature"),
        ({"image_size": 10**9}, "image_size"),
    ],
)
def test_checkpoint_that_describes_itself_wrongly(
    change: dict[str, object], words: str, run: Path, tmp_path: Path, bldml: Bldml
) -> None:
    content = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    content["bldml"] |= change
    torch.save(content, tmp_path / "best.ckpt")
    outcome = bldml("test", "--ckpt_path", tmp_path / "best.ckpt", "--trainer.accelerator=cpu")
    assert outcome.mistake == "checkpoint-header-wrong"
    assert words in outcome.err
    assert_clean(outcome.err)


def test_empty_test_split_of_a_run_without_one(leaves: Path, bldml: Bldml) -> None:
    fit = bldml(
        "fit", *THREE_LAYERS, "--data.root", leaves, "--data.test_fraction=0", "--trainer.max_epochs=1", "--run_name=r"
    )
    assert fit.code == 0
    assert not Path("lightning_logs/r/evaluations/test").exists()
    assert Path("lightning_logs/r/evaluations/val/metrics.json").exists()
    outcome = bldml("test", "--ckpt_path=lightning_logs/r/checkpoints/best.ckpt", "--trainer.accelerator=cpu")
    assert outcome.code == 1
    assert "The test split" in outcome.err
    assert "--data.root" in outcome.err


@pytest.mark.parametrize("backbone", ["mobilenet_v2_x0_35", "inception_v3"])
@pytest.mark.parametrize("freeze", ["true", "false"])
def test_a_batch_of_one_in_every_split_is_fine(backbone: str, freeze: str, tmp_path: Path, bldml: Bldml) -> None:
    """Not an error: a last batch of one must neither lose its axis nor stop BatchNorm."""
    root = tmp_path / "data"
    write_leaves(root, images_per_class=3, size=96, seed=4)
    manifest = tmp_path / "manifest.csv"
    with manifest.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "split"])
        # Nine in each split, in batches of eight.
        for split in ("train", "val", "test"):
            for number in range(9):
                name = ("BLD", "No_BLD")[number % 2]
                target = root / name / f"{split}_{number}.jpg"
                shutil.copy(root / name / f"leaf_000{number % 3 + 1}.jpg", target)
                writer.writerow([target.relative_to(root), name, split])
    size = 107 if backbone == "inception_v3" else 64
    outcome = bldml(
        "fit", *SMALL, "--data.root", root, "--data.manifest", manifest, f"--model.backbone={backbone}",
        f"--model.image_size={size}", f"--model.freeze_batchnorm={freeze}", "--unfreezing.start_epoch=0",
        "--trainer.max_epochs=1", "--run_name=r",
    )  # fmt: skip
    assert outcome.code == 0
    assert len(Path("lightning_logs/r/evaluations/test/predictions.csv").read_text().splitlines()) == 10


def test_yaml_of_a_colleague(leaves: Path, bldml: Bldml) -> None:
    """Nothing outside the named packages is imported, duplicate keys and infinite numbers are refused."""
    Path("evil.py").write_text("open('evil_was_here', 'w')\nclass X: pass\n")
    cases = {
        "trainer: {callbacks: [evil.X]}": "class-refused",
        "trainer: {logger: {class_path: evil.X}}": "class-refused",
        "trainer: {plugins: [{class_path: os.system}]}": "class-refused",
        "model: {lr: .nan}": "config-not-yaml",
        "model: {lrr: 0.1}": "option-wrong",
        "unfreezing: {start_epoc: 0}": "option-wrong",
    }
    for text, code in cases.items():
        Path("colleague.yaml").write_text(text + "\n")
        outcome = bldml("fit", *THREE_LAYERS, "--data.root", leaves, "--config=colleague.yaml")
        assert outcome.mistake == code, text
        assert_clean(outcome.err)
    assert not Path("evil_was_here").exists()


def assert_clean(err: str) -> None:
    """No traceback, and nothing written where the command was typed but what the test itself put there."""
    assert "NoneType" not in err
    assert "Traceback" not in err
    assert not Path("lightning_logs").exists()
    assert not Path("checkpoints").exists()


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("early_stopping: null", "config-group-no-mapping"),
        ("early_stopping: false", "config-group-no-mapping"),
        ("unfreezing: 2", "config-group-no-mapping"),
        ("plateau: {factor: null}", "option-null"),
        ("monitor: null", "option-wrong"),
        ("monitor: val_roc", "option-wrong"),
        ("data: {augmentation: {hue: 3}}", "settings-refused"),
        ("data: {augmentation: {rotaton: 5}}", "option-wrong"),
        ("trainer: {callbacks: [{class_path: EarlyStopping, init_args: {monitor: val_loss}}]}", "class-refused"),
    ],
)
def test_configuration_that_would_be_misunderstood(text: str, code: str, leaves: Path, bldml: Bldml) -> None:
    Path("mine.yaml").write_text(text + "\n")
    outcome = bldml("fit", *THREE_LAYERS, "--data.root", leaves, "--config=mine.yaml")
    assert outcome.mistake == code
    assert_clean(outcome.err)


def test_training_without_validation_says_that_there_is_no_best_checkpoint(leaves: Path, bldml: Bldml) -> None:
    outcome = bldml("fit", *THREE_LAYERS, "--data.root", leaves, "--run_name=r", "--trainer.max_epochs=0")
    assert outcome.code == 1
    assert "no validation took place" in outcome.err
    assert "Best checkpoint:" not in outcome.out


def test_fit_without_the_unreadable_lists_them_and_says_so_at_the_end(
    leaves: Path, tmp_path: Path, bldml: Bldml
) -> None:
    root = copy(leaves, tmp_path)
    damaged(root)
    before = {path: path.read_bytes() for path in root.rglob("*.jpg")}
    options = ("--data.unreadable=exclude", "--run_name=r", "--trainer.max_epochs=1")
    outcome = bldml("fit", *THREE_LAYERS, "--data.root", root, *options)
    assert outcome.code == 0
    run = Path("lightning_logs/r")
    listed = {line.split(",")[0] for line in (run / "excluded.csv").read_text().splitlines()[1:]}
    assert listed == {"BLD/leaf_0001.jpg", "BLD/leaf_0002.jpg"}
    used = {line.split(",")[0] for line in (run / "splits.csv").read_text().splitlines()[1:]}
    assert len(used) == 58
    assert not used & listed
    assert "2 photographs could not be read and were excluded" in outcome.err.splitlines()[-1]
    assert {path: path.read_bytes() for path in root.rglob("*.jpg")} == before
