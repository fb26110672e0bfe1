"""Backbones of timm: rows made from its metadata, steps found by tracing, weights of others, and a whole fit."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from bldml.errors import CheckpointError, ConfigError, RunError, TrainingError
from bldml.inference.classifier import load
from bldml.inference.gradcam import grad_cam
from bldml.training.backbones import TimmName, build, check_shapes, row_of, steps_of
from bldml.training.checkpoint import KEY, read_checkpoint
from bldml.training.module import LeafClassifier
from bldml.training.networks import timm_weights
from bldml.training.networks.row import parameters_of
from bldml.training.networks.timm_rows import timm_row
from bldml.training.weights import load_pretrained

# The smallest of their families: modern and classic convolutions, tokens with and without a class token.
SMALL: dict[TimmName, int] = {
    "timm:convnext_atto": 64,
    "timm:convnextv2_atto": 64,
    "timm:efficientnet_lite0": 64,
    "timm:mobilenetv4_conv_small": 64,
    "timm:regnetx_002": 64,
    "timm:regnety_004": 64,
    "timm:resnet10t": 64,
    "timm:vit_tiny_patch16_224": 64,
    "timm:deit_tiny_patch16_224": 64,
    "timm:eva02_tiny_patch14_224": 56,
    "timm:mambaout_femto": 64,
}
# Only described, not built: 370 MB.
LARGE: list[TimmName] = [
    "timm:vit_base_patch16_siglip_224",
    "timm:swin_tiny_patch4_window7_224",
    "timm:efficientnet_b0",
    "timm:convnextv2_nano",
]
POSITIONS: TimmName = "timm:vit_relpos_small_patch16_224"  # tables of relative positions, which are not stored
SMALLEST: TimmName = "timm:mobilenetv4_conv_small"


@pytest.mark.parametrize("name", [*SMALL, *LARGE])
def test_head_and_parts_hold_every_parameter_once(name: TimmName) -> None:
    row = row_of(name)
    with torch.device("meta"):
        network = build(name)
    for parts in (row.stages, row.blocks or row.stages):
        held = [id(p) for part in ((row.head,), *parts) for p in parameters_of(network, part)]
        assert len(held) == len(set(held))
        assert set(held) == {id(p) for p in network.parameters()}
    assert len({stage[0] for stage in row.stages} | {"head"}) == len(row.stages) + 1
    assert len(row.stages) >= 4
    order = [path for path, _ in network.named_parameters()]
    # Registered from the image to the head, so that the first parameters of the parts go back.
    firsts = [min(map(order.index, _names(network, part))) for part in row.stages]
    assert firsts == sorted(firsts, reverse=True)


def _names(network: nn.Module, part: tuple[str, ...]) -> Iterator[str]:
    wanted = {id(p) for p in parameters_of(network, part)}
    return (name for name, p in network.named_parameters() if id(p) in wanted)


@pytest.mark.parametrize("name", SMALL)
def test_steps_freezing_gradients_and_gradcam(name: TimmName) -> None:
    """At each depth, frozen part and rest are the network, and only what is unfrozen gets a gradient."""
    torch.manual_seed(0)
    size = SMALL[name]
    model = LeafClassifier(name, "none", size, frozen_mode="eval")
    pixels = torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8)
    network, row = model.network, model.row
    assert len(steps_of(network, row)) > len(row.stages)
    images = model.prepared(pixels)
    frozen = []
    for depth in (0, 1, len(row.stages)):
        model.unfreeze(depth)
        network.eval()
        frozen.append(model.trunk.frozen)
        logits = model.trunk.logits(model.trunk.features(images))
        assert torch.equal(logits, network(images))
        model.zero_grad()
        logits.sum().backward()  # type: ignore[no-untyped-call]
        trained = {id(p) for part in ((row.head,), *row.stages[:depth]) for p in parameters_of(network, part)}
        assert {id(p) for p in network.parameters() if p.grad is not None} == trained
    assert frozen[0] > frozen[1] > frozen[2] == 0
    grid = 4 if row.layout == "tokens" else 2
    logit, cam = grad_cam(model, pixels[0])
    assert np.isfinite(logit)
    assert cam.shape == (grid, grid)
    assert cam.max() in (0, 1)


def test_normalisation_is_that_of_the_architecture() -> None:
    size = 64
    model = LeafClassifier("timm:vit_tiny_patch16_224", "none", size)
    assert (model.row.mean, model.row.std) == ((0.5,) * 3, (0.5,) * 3)
    white = torch.full((1, 3, size, size), 255, dtype=torch.uint8)
    assert torch.equal(model.prepared(white), torch.ones(1, 3, size, size))
    assert model.eval().evaluate(white) == model.network(torch.ones(1, 3, size, size)).squeeze(1)
    halved = model.half()
    assert torch.allclose(halved.evaluate(white), model.float().evaluate(white), atol=1e-3)


@pytest.mark.parametrize(
    ("name", "size", "code"),
    [
        ("timm:no_such_network", None, "timm-backbone-unknown"),
        ("timm:convnextv2_nano.no_such_weights", None, "timm-backbone-unknown"),
        ("timm:deit_tiny_distilled_patch16_224", None, "timm-backbone-refused"),
        ("timm:vit_tiny_patch16_224", 72, "image-size-no-multiple"),
        ("timm:convnext_atto", 32, "image-size-wrong"),
        (POSITIONS, 1024, "image-size-needs-tables"),
        ("timm:swin_tiny_patch4_window7_224", 5000, "image-size-wrong"),
    ],
)
def test_what_cannot_be_used_is_refused(name: TimmName, size: int | None, code: str) -> None:
    with pytest.raises(ConfigError) as error:
        LeafClassifier(name, "none", size)
    assert error.value.code == code


def test_without_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    timm_row.cache_clear()
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ConfigError, match=r"pip install 'bldml\[timm\]'") as error:
        row_of(SMALLEST)
    assert error.value.code == "timm-not-installed"


def test_weights_of_a_file_are_laid_on_all_but_the_head(tmp_path: Path) -> None:
    import timm

    published = timm.create_model(SMALLEST.removeprefix("timm:"), num_classes=7)
    file = tmp_path / "model.safetensors"
    save_file(published.state_dict(), file)
    network = build(SMALLEST)
    load_pretrained(network, SMALLEST, str(file))
    wanted, found = published.state_dict(), network.state_dict()
    assert all(torch.equal(wanted[key], found[key]) for key in wanted if not key.startswith("classifier."))
    save_file({**wanted, "conv_stem.weight": wanted["conv_stem.weight"] * float("nan")}, file)
    with pytest.raises(TrainingError, match="not finite"):
        load_pretrained(network, SMALLEST, str(file))
    with pytest.raises(TrainingError, match="do not fit"):
        load_pretrained(build("timm:regnetx_002"), "timm:regnetx_002", _saved(tmp_path / "other.safetensors", wanted))
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(TrainingError, match="damaged"):
        load_pretrained(network, SMALLEST, str(file))


def _saved(file: Path, state: dict[str, Tensor]) -> str:
    save_file(state, file)
    return str(file)


def test_positions_of_a_transformer_are_resized(tmp_path: Path) -> None:
    name: TimmName = "timm:vit_tiny_patch16_224"
    large, small = build(name), build(name, 96)
    state = large.state_dict()
    state["pos_embed"] = torch.full_like(state["pos_embed"], 0.25)
    load_pretrained(small, name, _saved(tmp_path / "vit.safetensors", state))
    found = small.state_dict()
    assert found["pos_embed"].shape == (1, 37, 192)
    torch.testing.assert_close(found["pos_embed"], torch.full((1, 37, 192), 0.25))
    assert all(torch.equal(state[k], found[k]) for k in found if k != "pos_embed" and not k.startswith("head."))


def test_published_weights_come_from_the_cache_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Laid into the cache as the hub's client does: the content under its SHA-256, and a link to it."""
    from bldml.io.system import sha256_of

    state = build(SMALLEST).state_dict()
    repository, file_name = timm_weights.published(SMALLEST)
    place = tmp_path / "hub" / f"models--{repository.replace('/', '--')}"
    for folder in ("blobs", "refs", "snapshots/abc"):
        (place / folder).mkdir(parents=True)
    (place / "refs" / "main").write_text("abc")
    raw = Path(_saved(tmp_path / "raw.safetensors", state))
    blob = raw.rename(place / "blobs" / sha256_of(raw))
    (place / "snapshots/abc" / file_name).symlink_to(blob)
    found = timm_weights.timm_file(SMALLEST, tmp_path)
    assert found == place / "snapshots/abc" / file_name
    monkeypatch.setattr(timm_weights, "_cache", lambda home: str(tmp_path / "hub"))  # HF_HOME is read at import
    network = build(SMALLEST)
    load_pretrained(network, SMALLEST, "imagenet")
    assert torch.equal(network.state_dict()["conv_stem.weight"], state["conv_stem.weight"])
    assert timm_weights.is_whole(found)
    content = bytearray(blob.read_bytes())
    content[-1] ^= 1
    blob.write_bytes(content)
    with pytest.raises(TrainingError, match="damaged"):
        load_pretrained(network, SMALLEST, "imagenet")


@pytest.fixture(scope="module")
def content() -> dict[str, Any]:
    """Of a checkpoint that was not trained."""
    torch.manual_seed(1)
    model = LeafClassifier(SMALLEST, "none", 64)
    plain: dict[str, Any] = {
        "backbone": SMALLEST, "image_size": 64, "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.4),
        "class_names": ("BLD", "No_BLD"), "positive_class": "BLD", "threshold": 0.5, "temperature": 1.3, "offset": 0.2,
        "fingerprints": {}, "seen": "", "versions": {"timm": "0.9"}, "format": 1, "decode": "full",
        "settings": {"data": {"root": "leaves"}},
    }  # fmt: skip
    return {"epoch": 0, "state_dict": model.state_dict(), KEY: plain}


def written(folder: Path, content: dict[str, Any], **header: Any) -> Path:
    torch.save({**content, KEY: {**content[KEY], **header}}, folder / "a.ckpt")
    return folder / "a.ckpt"


def test_a_checkpoint_normalises_as_it_says(content: dict[str, Any], tmp_path: Path) -> None:
    """Not as the installed timm does, whose next version may say something else."""
    classifier = load(written(tmp_path, content), "cpu")
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    mean, std = (torch.tensor(content[KEY][key]).view(3, 1, 1) for key in ("mean", "std"))
    image = (torch.from_numpy(pixels).permute(2, 0, 1) / 255 - mean) / std
    with torch.inference_mode():
        logit = float(classifier.network.network(image[None]))
    expected = 1 / (1 + np.exp(-(logit - 0.2) / 1.3))
    assert classifier.predict(pixels).probability == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        # A file of 10 MB must not make a network of 22 GB.
        ({"backbone": "timm:eva02_enormous_patch14_clip_224"}, "has the shape"),
        ({"backbone": "timm:regnetx_002"}, "written with timm 0.9"),
        ({"backbone": "timm:hf-hub:somebody/something"}, "backbone invalid"),
        ({"backbone": "timm:local-dir:/tmp/x"}, "backbone invalid"),
        ({"backbone": "timm:../x"}, "backbone invalid"),
        ({"std": (0.0, 0.2, 0.2)}, "mean or std invalid"),
        ({"mean": (0.5, 0.5)}, "mean or std invalid"),
        ({"mean": (0.5, float("nan"), 0.5)}, "mean or std invalid"),
        ({"backbone": "resnet50"}, "mean or std invalid"),
    ],
)
def test_checkpoints_that_do_not_fit_are_refused(
    content: dict[str, Any], tmp_path: Path, header: dict[str, Any], reason: str
) -> None:
    with pytest.raises(CheckpointError, match=reason):
        read_checkpoint(written(tmp_path, content, **header))


def test_a_checkpoint_without_timm(content: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, content)
    timm_row.cache_clear()
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ConfigError, match=r"pip install 'bldml\[timm\]'"):
        load(path)


def test_no_gradcam_is_said(content: dict[str, Any], tmp_path: Path) -> None:
    model = LeafClassifier(SMALLEST, "none", 64)
    model.row = replace(model.row, gradcam="")
    with pytest.raises(RunError, match="no Grad-CAM"):
        grad_cam(model, torch.zeros(3, 64, 64, dtype=torch.uint8))


@pytest.mark.parametrize(
    ("name", "size", "tables"),
    [(POSITIONS, 224, ""), (POSITIONS, 1024, "1.5 GiB"), (f"ensemble:{POSITIONS}*2", 1024, "3.0 GiB")],
)
def test_a_small_file_cannot_ask_for_huge_tables(name: TimmName, size: int, tables: str) -> None:
    with torch.device("meta"):
        state = {f"network.{key}": value for key, value in build(name, size).state_dict().items()}
    wrong = check_shapes(name, size, state)
    assert wrong == (f"at {size} px it computes {tables} of tables that are not in the file" if tables else "")
