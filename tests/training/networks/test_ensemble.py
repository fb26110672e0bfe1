"""An ensemble as a network: its logit is the mean of the calibrated logits of its members, whatever they are."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import bldml
from bldml.errors import CheckpointError
from bldml.export.graph import ExportedGraph, has_map
from bldml.inference.gradcam import grad_cam
from bldml.metrics.certainty.novelty import JointNovelty, Novelty
from bldml.metrics.operating_point import OperatingPoint
from bldml.training.backbones import is_backbone, row_of
from bldml.training.checkpoint import KEY
from bldml.training.module import LeafClassifier
from bldml.training.networks.ensemble import MOST_MEMBERS, Member, architectures_of, ensemble_name, join_weights
from bldml.training.transforms import MEAN, STD

SIZE = 96
VARIANCES = np.array([0.5, 2.0], np.float32)
POINTS = (OperatingPoint(0.5, 1.7, 0.4), OperatingPoint(0.2, 0.6), OperatingPoint(0.9, 1.0, -1.0))
# Two of one architecture, and one with another number of features and, at 96 px, another grid (12 × 12, not 3 × 3).
NAMES = ["mobilenet_v3_large", "mobilenet_v3_large", "three_layers"]


def trained(name: Any, seed: int) -> LeafClassifier:
    torch.manual_seed(seed)
    model = LeafClassifier(name, "none", SIZE).eval()
    head = model.last_layer
    assert isinstance(head, nn.Linear)
    with torch.no_grad():
        head.weight.normal_()
        head.bias.zero_()
        # Each has a say: the features of some are a thousand times those of others.
        image = torch.randint(0, 256, (1, 3, model.image_size, model.image_size), dtype=torch.uint8)
        head.weight.div_(model.evaluate(image).abs())
        head.bias.normal_()
    return model


@pytest.fixture(scope="module")
def members() -> list[LeafClassifier]:
    return [trained(name, seed) for seed, name in enumerate(NAMES)]


@pytest.fixture(scope="module")
def joined(members: list[LeafClassifier]) -> LeafClassifier:
    pairs = zip(members, POINTS, strict=True)
    state = join_weights([Member(one.row, one.state_dict(), point) for one, point in pairs])
    model = LeafClassifier(ensemble_name(NAMES), "none", SIZE).eval()
    model.load_state_dict(state)
    return model


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randint(0, 256, (3, 3, SIZE, SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))


def calibrated(members: list[LeafClassifier], images: torch.Tensor) -> torch.Tensor:
    pairs = zip(members, POINTS, strict=True)
    return torch.stack([(one.evaluate(images) - point.offset) / point.temperature for one, point in pairs]).mean(0)


def test_its_logit_is_the_mean_of_calibrated_logits(
    members: list[LeafClassifier], joined: LeafClassifier, images: torch.Tensor
) -> None:
    with torch.inference_mode():
        expected = calibrated(members, images)
        logits, features = joined.evaluate_with_features(images)
        own = [one.evaluate_with_features(images)[1] for one in members]
    assert expected.std() > 0.01, "the images differ"
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(features, torch.cat(own, 1))


def test_its_map_is_that_of_its_logit(
    members: list[LeafClassifier], joined: LeafClassifier, images: torch.Tensor
) -> None:
    """Against autograd by each network's activations, with the mean gradient of a cell as its share of the logit."""
    raw = torch.zeros(12, 12)
    for member, point in zip(members, POINTS, strict=True):
        kept: list[torch.Tensor] = []
        member.network.requires_grad_(True)
        layer = member.network.get_submodule(member.row.gradcam)
        hook = layer.register_forward_hook(lambda _, __, output, kept=kept: kept.append(output))
        logit = (member.evaluate(images[:1]) - point.offset) / point.temperature / len(members)
        hook.remove()
        (gradient,) = torch.autograd.grad(logit.sum(), kept)
        share = (gradient.sum((2, 3), keepdim=True) * kept[0]).sum(1, keepdim=True).detach()
        raw = raw + nn.functional.interpolate(share, (12, 12), mode="bilinear")[0, 0]
    expected = np.maximum(np.asarray(raw), 0)
    logit_of, cam = grad_cam(joined, images[0])
    with torch.inference_mode():
        assert logit_of == pytest.approx(float(joined.evaluate(images[:1])), rel=1e-5)
    assert cam.shape == (12, 12)
    np.testing.assert_allclose(cam, expected / expected.max(), atol=1e-4)
    assert has_map(joined)
    header: Any = type("Header", (), {"operating_point": OperatingPoint(0.5, 1.0)})
    with torch.inference_mode():
        features = joined.evaluate_with_features(images)[1].numpy()
        widths = [one.evaluate_with_features(images)[1].shape[1] for one in members]
        means = np.split(features[:1], np.cumsum(widths)[:-1], axis=1)
        parts = [Novelty(mean[0] + 0.1, np.eye(2, mean.size, dtype=np.float32), VARIANCES, 0.3, 2.0) for mean in means]
        joint = JointNovelty(tuple(parts), 1.5, 0.02, 9, 60)
        _, distance, exported = ExportedGraph(joined, header, joint)(images.permute(0, 2, 3, 1))
    np.testing.assert_allclose(exported[0].numpy(), cam, atol=1e-4)
    np.testing.assert_allclose(distance.numpy(), joint.distances(features), rtol=1e-4)
    assert len(set(distance.tolist())) == 3


def test_another_normalisation_is_kept(members: list[LeafClassifier], tmp_path: Path) -> None:
    pytest.importorskip("timm")
    name: Any = "timm:test_vit"  # of timm's own tests; normalised by one half
    torch.manual_seed(9)
    other = LeafClassifier(name, "none").eval()
    assert other.row.mean != members[0].row.mean
    small = trained("three_layers", 4)
    both = [small, other]
    state = join_weights([Member(one.row, one.state_dict(), point) for one, point in zip(both, POINTS, strict=False)])
    model = LeafClassifier(ensemble_name(["three_layers", name]), "none", other.image_size).eval()
    model.load_state_dict(state)
    pictures = torch.randint(0, 256, (2, 3, other.image_size, other.image_size), dtype=torch.uint8)
    with torch.inference_mode():
        logits = [(one.evaluate(pictures) - p.offset) / p.temperature for one, p in zip(both, POINTS, strict=False)]
        mean = torch.stack(logits).mean(0)
        torch.testing.assert_close(model.evaluate(pictures), mean, rtol=1e-4, atol=1e-5)
    # From a checkpoint too, whose header has ImageNet's constants.
    header = {
        "backbone": model.backbone, "image_size": model.image_size, "mean": MEAN, "std": STD, "format": 1,
        "class_names": ("BLD", "No_BLD"), "positive_class": "BLD", "threshold": 0.5, "temperature": 1.0,
        "fingerprints": {}, "seen": "", "versions": {}, "settings": {"data": {}}, "decode": "full",
    }  # fmt: skip
    path = tmp_path / "best.ckpt"
    torch.save({"epoch": -1, "state_dict": state, KEY: header}, path)
    found = bldml.load(path).predict([np.asarray(one.permute(1, 2, 0)) for one in pictures])
    assert [one.probability for one in found] == pytest.approx(torch.sigmoid(mean).tolist(), abs=1e-5)
    torch.save({"epoch": -1, "state_dict": state, KEY: header | {"mean": (0.5, 0.5, 0.5)}}, path)
    with pytest.raises(CheckpointError, match="mean or std invalid"):
        bldml.load(path)


@pytest.mark.parametrize(
    "name",
    [
        "ensemble:", "ensemble:resnet50", "ensemble:resnet50*1", "ensemble:resnet50,resnet50", "ensemble:resnet50*65",
        "ensemble:resnet50*999999999", "ensemble:no_such*2", "ensemble:ensemble:resnet50*2,resnet50*2", "resnet50*2",
        "ensemble:resnet50*2,", "ensemble:resnet50*٢", "ensemble:resnet50*-2", 7,
    ],
)  # fmt: skip
def test_a_checkpoint_cannot_name_what_is_none(name: object) -> None:
    assert not is_backbone(name)


def test_names_are_read_back() -> None:
    names = ["resnet50", "resnet50", "inception_v3", "resnet50"]
    assert architectures_of(ensemble_name(names)) == tuple(names)
    most: Any = ensemble_name(["resnet50"] * MOST_MEMBERS)
    assert is_backbone(most)
    assert len(row_of(most).members) == MOST_MEMBERS
