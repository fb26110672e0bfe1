"""LeafClassifier: logits, loss, metrics, unfreezing, and what a checkpoint takes along."""

import math
from typing import Any, cast

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EarlyStopping
from numpy.typing import NDArray
from sklearn import metrics as sklearn_metrics
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import DataLoader, Dataset
from torchvision.ops import StochasticDepth

from bldml.metrics.operating_point import OperatingPoint, choose_operating_point
from bldml.metrics.registry import shown_in
from bldml.training.backbones import BackboneName, image_size_of
from bldml.training.checkpoint import KEY
from bldml.training.data.loading import Item
from bldml.training.module import Batch, LeafClassifier
from tests.oracles import second_opinion
from tests.support import mistake

pytestmark = [
    # Frozen stages are, and that is what is tested here.
    pytest.mark.filterwarnings(r"ignore:Found \d+ module\(s\) in eval mode"),
    # https://github.com/Lightning-AI/pytorch-lightning/issues/21326
    pytest.mark.filterwarnings(r"ignore:.*isinstance\(treespec, LeafSpec\):FutureWarning"),
]
SIZE = 64


class Noise(Dataset[Item]):
    """Pictures of noise whose brightness says a little about the label."""

    def __init__(self, count: int, *, nan_at: tuple[int, ...] = ()) -> None:
        generator = torch.Generator().manual_seed(count)
        self.labels = [int(i % 3 == 0) for i in range(count)]
        self.images = torch.randn(count, 3, SIZE, SIZE, generator=generator)
        self.images += torch.tensor(self.labels)[:, None, None, None] * 0.3
        self.images[list(nan_at)] = math.nan

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Item:
        return {"image": self.images[index], "label": self.labels[index], "path": f"{index}.jpg", "group": ""}

    def sort(self, order: NDArray[np.int64]) -> None:
        self.images = self.images[torch.from_numpy(order)]
        self.labels = [self.labels[i] for i in order]

    def batch(self) -> Batch:
        n = len(self)
        return {"image": self.images, "label": torch.tensor(self.labels), "path": [""] * n, "group": [""] * n}


def small(**arguments: Any) -> LeafClassifier:
    """A small classifier of random weights whose logits are spread out, far beyond [0, 1]."""
    torch.manual_seed(1)
    module = LeafClassifier("mobilenet_v2_x0_35", "none", SIZE, **arguments)
    # As built, BatchNorm's running statistics fit no layer, and all logits are nearly 0.
    norms = [m for m in module.network.modules() if isinstance(m, _BatchNorm)]
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
    with torch.no_grad():
        module.network(torch.randn(16, 3, SIZE, SIZE))
        head = cast(nn.Linear, module.network.get_submodule("classifier.1"))
        head.weight.mul_(8)
    for norm in norms:
        norm.momentum = 0.1
    return module.unfreeze(0)


def trainer(**arguments: Any) -> Trainer:
    return Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, **arguments,
    )  # fmt: skip


def evaluated(module: LeafClassifier, data: Noise) -> NDArray[np.float64]:
    module.eval()
    with torch.no_grad():
        logits: NDArray[np.float64] = module(data.images).double().numpy()
    return logits


def oracle(stage: str, labels: list[int], logits: NDArray[np.float64]) -> dict[str, float]:
    """Every metric that a training follows, by scikit-learn."""
    scores = 1 / (1 + np.exp(-logits))
    return {f"{stage}_{metric.name}": second_opinion(metric.name, labels, scores) for metric in shown_in("history")}


def plain(metrics: dict[str, Tensor]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items()}


@pytest.mark.parametrize("n", [1, 2, 5])
def test_logits_keep_their_axis(n: int) -> None:
    module, images = small(), torch.randn(n, 3, SIZE, SIZE)
    module.eval()
    with torch.no_grad():
        logits = module(images)
        assert logits.shape == (n,)
        assert logits.dtype == torch.float32
        torch.testing.assert_close(logits, module.network(images)[:, 0])
        with torch.autocast("cpu", torch.bfloat16):
            assert module(images).dtype == torch.float32


def test_loss_is_the_weighted_cross_entropy() -> None:
    module, data = small(pos_weight=3.0), Noise(8)
    module.balance(5, 3)
    module.eval()
    loss = module.training_step(data.batch(), 0).item()
    scores, labels = 1 / (1 + np.exp(-evaluated(module, data))), np.array(data.labels)
    expected = -np.mean(3 * labels * np.log(scores) + (1 - labels) * np.log(1 - scores))
    assert loss == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("rule", "value"), [("none", 1.0), ("auto", 4.0), (2.5, 2.5), (3, 3.0)])
def test_pos_weight(rule: Any, value: float) -> None:
    module = small(pos_weight=rule)
    assert float(module.pos_weight) == 1.0
    module.balance(negatives=20, positives=5)
    assert float(module.pos_weight) == value
    assert float(module.state_dict()["pos_weight"]) == value


@pytest.mark.parametrize("split", ["val", "test"])
def test_evaluation_metrics_are_scikit_learns(split: str) -> None:
    """The last batch is smaller, so that a mean of batches would not do."""
    module, data = small(pos_weight=2.0), Noise(41)
    module.balance(1, 1)
    # Torchmetrics takes logits for probabilities if those of a batch happen to lie in [0, 1]: the first batch's do.
    data.sort(np.argsort(np.abs(evaluated(module, data) - 0.5)))
    logits = evaluated(module, data)
    assert logits[:4].min() > 0
    assert logits[:4].max() < 1
    assert 0 < sklearn_metrics.roc_auc_score(data.labels, logits) < 1
    assert logits.min() < 0 < logits.max()
    used, loader = trainer(), DataLoader(data, batch_size=4)
    runs = []
    for _ in range(2):
        (used.validate if split == "val" else used.test)(module, loader, verbose=False)
        runs.append(plain(used.callback_metrics))
    expected = oracle(split, data.labels, logits)
    expected[f"{split}_loss"] = float(
        nn.functional.binary_cross_entropy_with_logits(
            torch.tensor(logits), torch.tensor(data.labels).double(), pos_weight=torch.tensor(2.0)
        )
    )
    assert runs[0] == pytest.approx(expected, abs=1e-5)
    # Nothing of the first run is left in the second.
    assert runs[1] == runs[0]


def test_training_metrics_are_those_of_the_logits_that_were_trained_on() -> None:
    module, data = small(lr=0.0), Noise(19)
    logits: list[Tensor] = []
    head = module.network.get_submodule(module.row.head)
    head.register_forward_hook(lambda _m, _i, output: logits.append(output.detach()[:, 0]))
    used = trainer(max_epochs=2, limit_val_batches=0)
    used.fit(module, DataLoader(data, batch_size=8), DataLoader(data))
    last_epoch = torch.cat(logits[3:]).double()
    expected = oracle("train", data.labels, last_epoch.numpy())
    expected["train_loss"] = float(
        nn.functional.binary_cross_entropy_with_logits(last_epoch, torch.tensor(data.labels).double())
    )
    assert plain(used.callback_metrics) == pytest.approx(expected, abs=1e-5)
    # The head's dropout was on.
    assert not np.allclose(last_epoch.numpy(), evaluated(module, data), atol=1e-3)


def test_operating_point_is_that_of_the_validation_logits() -> None:
    module, data = small(), Noise(23)
    expected = choose_operating_point(evaluated(module, data), data.labels)
    assert expected.temperature != 1.0
    trainer().validate(module, DataLoader(data, batch_size=8), verbose=False)
    assert module.operating_point.threshold == pytest.approx(expected.threshold, abs=1e-5)
    assert module.operating_point.temperature == pytest.approx(expected.temperature, abs=1e-4)
    trainer().test(module, DataLoader(Noise(12), batch_size=8), verbose=False)
    assert module.operating_point.threshold == pytest.approx(expected.threshold, abs=1e-5)


@pytest.mark.parametrize("nan_at", [(9,), (0, 1, 2, 3), tuple(range(12))])
def test_a_diverged_model_is_seen_and_does_not_crash(nan_at: tuple[int, ...]) -> None:
    module = small()
    used = trainer()
    used.validate(module, DataLoader(Noise(12), batch_size=4), verbose=False)
    sound = module.operating_point
    assert sound != OperatingPoint(0.5, 1.0)
    used.validate(module, DataLoader(Noise(12, nan_at=nan_at), batch_size=4), verbose=False)
    # Torchmetrics would give a model whose logits are all nan an AUROC of 1, and it would be the best.
    assert {name for name, value in plain(used.callback_metrics).items() if not math.isnan(value)} == set()
    assert module.operating_point == OperatingPoint(0.5, 1.0)
    used.validate(module, DataLoader(Noise(12), batch_size=4), verbose=False)
    assert math.isfinite(float(used.callback_metrics["val_loss"]))
    assert module.operating_point == sound


def test_early_stopping_ends_a_diverged_run() -> None:
    module = small()
    stopping = EarlyStopping("val_loss", patience=100)
    used = trainer(max_epochs=50, callbacks=[stopping])
    used.fit(module, DataLoader(Noise(4), batch_size=4), DataLoader(Noise(8, nan_at=(5,)), batch_size=4))
    assert used.current_epoch == 1
    assert "not finite" in str(stopping.stopping_reason_message)


def stage_of(module: LeafClassifier, name: str) -> int | None:
    """Number of the stage that a submodule or parameter lies in; None for the head and what lies between."""
    for number, stage in enumerate(module.row.stages):
        if any(f"{name}.".startswith(f"{path}.") for path in stage):
            return number
    return None


@pytest.mark.parametrize("freeze_batchnorm", [True, False])
@pytest.mark.parametrize("name", ["mobilenet_v2_x0_35", "mobilenet_v3_large", "efficientnet_v2_s"])
def test_unfreeze(name: BackboneName, freeze_batchnorm: bool) -> None:
    module = LeafClassifier(name, "none", SIZE, freeze_batchnorm=freeze_batchnorm)
    depths = list(range(len(module.row.stages) + 1))
    # Up, down, and after whatever Lightning may have done to the modes: only the depth counts.
    for depth in [*depths, *depths[::-2], 1, 1]:
        module.train(depth % 2 == 0)
        assert module.unfreeze(depth) is module
        for path, parameter in module.network.named_parameters():
            stage = stage_of(module, path)
            assert parameter.requires_grad == (stage is None or stage < depth), path
        for path, part in module.network.named_modules():
            stage = stage_of(module, path)
            unfrozen = stage is None or stage < depth
            if isinstance(part, _BatchNorm):
                assert part.training == (unfrozen and not freeze_batchnorm), path
            elif isinstance(part, nn.Dropout | StochasticDepth) or not list(part.children()):
                assert part.training == unfrozen, path
    assert any(isinstance(part, nn.Dropout) for part in module.network.modules())
    assert any(isinstance(part, StochasticDepth) for part in module.network.modules()) == (name == "efficientnet_v2_s")


@pytest.mark.parametrize("freeze_batchnorm", [True, False])
@pytest.mark.parametrize("name", ["resnet50", "efficientnet_v2_s"])
def test_frozen_stages_in_training_mode(name: BackboneName, freeze_batchnorm: bool) -> None:
    module = LeafClassifier(name, "none", SIZE, frozen_mode="train", freeze_batchnorm=freeze_batchnorm).unfreeze(1)
    for path, part in module.network.named_modules():
        stage = stage_of(module, path)
        assert all(p.requires_grad == (stage is None or stage < 1) for p in part.parameters(False)), path
        assert part.training == (not (isinstance(part, _BatchNorm) and freeze_batchnorm)), path
    # What draws or averages over the batch is no fixed function of a picture, so nothing of it may be kept.
    moving = not freeze_batchnorm or name == "efficientnet_v2_s"
    assert (module.trunk.frozen > 3) != moving


def test_the_whole_classifier_as_head() -> None:
    module = LeafClassifier("mobilenet_v3_large", "none", SIZE, head="whole_classifier", lr=1.0, backbone_lr_factor=0.5)
    names = {id(p): name for name, p in module.network.named_parameters()}
    groups = module.configure_optimizers().param_groups
    assert [names[id(p)] for p in groups[0]["params"]] == [
        "classifier.0.weight", "classifier.0.bias", "classifier.3.weight", "classifier.3.bias",
    ]  # fmt: skip
    assert [group["lr"] for group in groups] == [1.0, *[0.5] * 7]
    assert [group["name"] for group in groups][:2] == ["head", "features.16"]
    trained = {name for name, p in module.network.named_parameters() if p.requires_grad}
    assert {name.split(".")[0] for name in trained} == {"classifier"}
    # It makes no difference where the classifier is one layer.
    for name in ("resnet50", "efficientnet_v2_s"):
        one, other = LeafClassifier(name, "none", SIZE), LeafClassifier(name, "none", SIZE, head="whole_classifier")
        assert one.row == other.row


def test_unfreeze_all_and_too_many() -> None:
    module = small()
    assert module.unfreeze() is module
    assert all(parameter.requires_grad for parameter in module.network.parameters())
    for depth in (-1, 6):
        with mistake("depth-too-large", found=depth, expected=5):
            module.unfreeze(depth)
    assert module.trainable_fraction() == 1, "a refused depth changes nothing"


def test_trainable_fraction() -> None:
    module = small()
    total = sum(p.numel() for p in module.network.parameters())
    head = 1280 + 1
    assert module.trainable_fraction() == head / total
    # features.18: 112 -> 1280 channels by 1 × 1, and a BatchNorm.
    assert module.unfreeze(1).trainable_fraction() == (head + 112 * 1280 + 2 * 1280) / total
    assert module.unfreeze().trainable_fraction() == 1.0


@pytest.mark.parametrize("freeze_batchnorm", [True, False])
def test_what_is_frozen_does_not_move(freeze_batchnorm: bool) -> None:
    """Neither by weight decay nor by the optimizer's momentum from a time when it was unfrozen."""
    module = small(lr=0.01, weight_decay=0.5, backbone_lr_factor=1.0, freeze_batchnorm=freeze_batchnorm)
    optimizer, batch = module.configure_optimizers(), Noise(6).batch()
    for depth in (5, 1, 0, 2):
        module.unfreeze(depth)
        before = {key: value.clone() for key, value in module.network.state_dict().items()}
        for step in range(2):
            optimizer.zero_grad()
            module.training_step(batch, step).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        for key, value in module.network.state_dict().items():
            stage = stage_of(module, key)
            moving = stage is None or stage < depth
            if "running_" in key or "num_batches" in key:
                moving = moving and not freeze_batchnorm
            assert torch.equal(value, before[key]) != moving, (depth, key)


def test_optimizer_groups() -> None:
    module = small(lr=0.5, backbone_lr_factor=0.25, weight_decay=0.125)
    optimizer = module.configure_optimizers()
    assert isinstance(optimizer, torch.optim.AdamW)
    groups = optimizer.param_groups
    assert [group["lr"] for group in groups] == [0.5, *[0.125] * 5]
    assert {group["weight_decay"] for group in groups} == {0.125}
    held = [id(p) for group in groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in module.network.parameters())
    for number, group in enumerate(groups[1:]):
        names = {n for n, p in module.network.named_parameters() if any(p is q for q in group["params"])}
        assert {stage_of(module, name) for name in names} == {number}


def test_dropout_depends_on_seed_and_place_alone() -> None:
    module, batch = small(seed=3), Noise(6).batch()
    module.unfreeze(0)

    def loss(batch_idx: int) -> float:
        return module.training_step(batch, batch_idx).item()

    first = loss(0)
    torch.rand(17)
    assert loss(0) == first
    # The batches that are gathered for one optimizer step draw anew.
    assert loss(1) != first
    module.seed = 4
    assert loss(0) != first


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("image_size", 63, "image-size-wrong"),
        ("image_size", 0, "image-size-wrong"),
        ("image_size", 100_000, "image-size-wrong"),
        ("lr", -1.0, "model-number-wrong"),
        ("lr", math.nan, "model-number-wrong"),
        ("lr", math.inf, "model-number-wrong"),
        ("backbone_lr_factor", -0.1, "model-number-wrong"),
        ("weight_decay", math.inf, "model-number-wrong"),
        ("feature_cache", -1.0, "model-number-wrong"),
        ("pos_weight", 0.0, "pos-weight-wrong"),
        ("pos_weight", -2, "pos-weight-wrong"),
        ("pos_weight", math.nan, "pos-weight-wrong"),
    ],
)
def test_ranges(name: str, value: float, code: str) -> None:
    with mistake(code, found=value) as caught:
        LeafClassifier("mobilenet_v2_x0_35", "none", **{"image_size": SIZE, name: value})  # type: ignore[arg-type]
    assert caught.value.fields.get("key", name) == name


def test_image_size_defaults_to_the_backbones_own() -> None:
    assert image_size_of("inception_v3", None) == 299
    assert image_size_of("inception_v3", 128) == 128
    assert LeafClassifier("mobilenet_v2_x0_35", "none").image_size == 224


def test_checkpoint_takes_the_operating_point_along() -> None:
    module = small()
    module.describe(
        class_names=("a", "b"), positive_class="b", fingerprints={}, seen="", versions={}, settings={"data": {}}
    )
    module.operating_point = OperatingPoint(0.25, 2.0)
    checkpoint: dict[str, Any] = {}
    module.on_save_checkpoint(checkpoint)
    header = checkpoint[KEY]
    assert (header["threshold"], header["temperature"], header["image_size"]) == (0.25, 2.0, SIZE)
    assert header["mean"] == (0.485, 0.456, 0.406)
    resumed = small()
    resumed.on_load_checkpoint(checkpoint)
    assert resumed.operating_point == OperatingPoint(0.25, 2.0)


def test_metrics_are_no_part_of_the_weights() -> None:
    module = small()
    names = set(module.state_dict())
    trainer().validate(module, DataLoader(Noise(8), batch_size=4), verbose=False)
    assert set(module.state_dict()) == names == {"pos_weight"} | {f"network.{k}" for k in module.network.state_dict()}
