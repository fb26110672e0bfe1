"""`bldml export --format onnx`: the same numbers as the checkpoint, or no export."""

import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import ExifTags, Image
from torch import nn

import bldml
from bldml.errors import CheckpointError
from bldml.export.card import model_card
from bldml.export.graph import ActivationMap, heads_of, scaled_map
from bldml.export.parity import Parity
from bldml.export.storage import rounded, store_weights
from bldml.inference.exported import read_exported, with_checksum
from bldml.inference.gradcam import class_activation_map
from bldml.training.checkpoint import read_checkpoint
from bldml.training.module import LeafClassifier
from tests.dataset.test_images import DISPLAY_P3
from tests.export.checkpoints import SIZE, write_run
from tests.support import REPOSITORY, Bldml, mistake


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, run: Path) -> Path:
    """The output folder of an export of the trained run."""
    from bldml.cli import main

    folder = tmp_path_factory.mktemp("export") / "onnx"
    assert main(["export", str(run), f"--output={folder}"]) == 0
    return folder


@pytest.fixture
def names(leaves: Path) -> list[str]:
    """Eight photographs of either class, by their names below the folder of leaves."""
    found = [sorted((leaves / name).iterdir())[:8] for name in ("BLD", "No_BLD")]
    return [path.relative_to(leaves).as_posix() for paths in found for path in paths]


@pytest.fixture(scope="module")
def varied(tmp_path_factory: pytest.TempPathFactory, leaves: Path) -> tuple[Path, Path]:
    """A run whose probabilities differ much among photographs, with its threshold in their middle, and its export."""
    from bldml.cli import main

    folder, names = (
        tmp_path_factory.mktemp("varied"),
        [path.relative_to(leaves) for path in sorted(leaves.rglob("*.jpg"))],
    )
    val = [name.as_posix() for name in names[::4]]
    write_run(folder / "run", leaves, val)
    verdicts = bldml.load(folder / "run", device="cpu").predict([leaves / name for name in names])
    write_run(folder / "run", leaves, val, threshold=float(np.median([v.probability for v in verdicts])))
    assert main(["export", str(folder / "run"), f"--output={folder / 'out'}"]) == 0
    return folder / "run", folder / "out" / "model.onnx"


def test_the_exported_file_gives_the_checkpoints_verdicts(varied: tuple[Path, Path], leaves: Path) -> None:
    photographs = sorted(leaves.rglob("*.jpg"))
    ours, theirs = bldml.load(varied[0], device="cpu"), bldml.load(varied[1])
    expected, found = ours.predict(photographs), theirs.predict(photographs)
    assert len({verdict.label for verdict in expected}) == 2
    assert np.ptp([verdict.probability for verdict in expected]) > 0.01
    assert [verdict.label for verdict in found] == [verdict.label for verdict in expected]
    np.testing.assert_allclose([v.probability for v in found], [v.probability for v in expected], atol=1e-6)
    # A batch of one, an array, and a stream.
    first = photographs[0]
    assert theirs.predict(first).probability == pytest.approx(expected[0].probability, abs=1e-6)
    assert theirs.predict(np.asarray(Image.open(first))).probability == pytest.approx(expected[0].probability, abs=1e-6)
    assert theirs.header.threshold == ours.header.threshold


def test_the_exported_file_has_the_checkpoints_maps(varied: tuple[Path, Path], leaves: Path, tmp_path: Path) -> None:
    ours, theirs = bldml.load(varied[0], device="cpu"), bldml.load(varied[1])
    shown = [(ours.verdict_with_map(path)[1], theirs.verdict_with_map(path)) for path in sorted(leaves.rglob("*.jpg"))]
    assert max(np.ptp(expected) for expected, _ in shown) > 0.3
    for expected, (verdict, found) in shown:
        np.testing.assert_allclose(found, expected, atol=1e-4)
        assert verdict == theirs.predict(verdict.path)
    photograph = next(leaves.rglob("*.jpg"))
    with Image.open(photograph) as file:
        assert theirs.explain(photograph).size == file.size
    older = onnx.load(varied[1])
    (output,) = (one for one in older.graph.output if one.name == "map")
    older.graph.output.remove(output)
    del older.metadata_props[1]  # the checksum
    onnx.save(older, tmp_path / "older.onnx")
    with mistake("onnx-without-layers"):
        bldml.load(tmp_path / "older.onnx").explain(photograph)


# The heads of a mean and one layer, of two layers, and of two layers of which both are new.
@pytest.mark.parametrize(
    ("backbone", "head"),
    [
        *((name, "last_layer") for name in ("resnet50", "mobilenet_v3_large", "inception_v3", "mobilenet_v2_x0_35")),
        ("mobilenet_v3_large", "whole_classifier"),
    ],
)
def test_maps_need_no_gradient(backbone: Any, head: Any) -> None:
    torch.manual_seed(0)
    size = 128
    model = LeafClassifier(backbone=backbone, weights="none", image_size=size, head=head).eval()
    (layers,) = heads_of(model)
    channels = next(layer.in_features for layer in layers if isinstance(layer, nn.Linear))
    activations = torch.rand(3, channels, 4, 4, requires_grad=True)
    with torch.no_grad():
        for layer in layers:
            if isinstance(layer, nn.Linear):  # far enough from 0 for all parts of a hard swish
                layer.weight.normal_(0, 8 / layer.in_features**0.5)
    values = activations.mean((2, 3))
    for layer in layers:
        values = values if isinstance(layer, nn.Flatten) else layer(values)
    (gradient,) = torch.autograd.grad(values.sum(), [activations])
    expected = [class_activation_map([both]) for both in zip(activations.detach(), gradient, strict=True)]
    assert all(np.count_nonzero(one) > 0 for one in expected)
    with torch.no_grad():
        np.testing.assert_allclose(scaled_map(ActivationMap(layers)(activations)), expected, atol=1e-5)
    # What comes before these layers is what the network has there.
    seen: list[Any] = []
    model.network.get_submodule(model.row.gradcam).register_forward_hook(lambda _, __, output: seen.append(output))
    image = torch.randint(0, 256, (1, 3, size, size), dtype=torch.uint8)
    with torch.inference_mode():
        logit, values = model.evaluate(image), seen[0].mean((2, 3))
        for layer in layers:
            values = values if isinstance(layer, nn.Flatten) else layer(values)
    assert float(values) == pytest.approx(float(logit), rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("weights", ["fp32", "fp16", "int8"])
def test_the_file_says_what_is_unlike_the_training_photographs(
    tmp_path: Path, leaves: Path, names: list[str], bldml: Bldml, weights: str
) -> None:
    from bldml import load  # the fixture has the package's name

    photographs = sorted(leaves.rglob("*.jpg"))
    write_run(tmp_path / "run", leaves, names, known=photographs[::2])
    assert bldml("export", tmp_path / "run", "--output=out", f"--weights={weights}").code == 0
    shown = [*photographs[1::2], np.full((80, 60, 3), (255, 0, 255), np.uint8)]
    expected, found = load(tmp_path / "run", device="cpu").predict(shown), load("out/model.onnx").predict(shown)
    distances = [verdict.distance for verdict in expected]
    assert [verdict.distance for verdict in found] == pytest.approx(distances, rel=1e-4 if weights == "fp32" else 0.05)
    assert (found[-1].is_familiar, expected[-1].is_familiar) == (False, False)
    assert sum(verdict.is_familiar is True for verdict in found) > len(shown) / 2
    parity = json.loads(Path("out/parity.json").read_text())
    assert 0 < parity["largest_difference_of_distance"] < 0.01


def test_the_file_describes_itself_and_tells_no_secrets(exported: Path, run: Path, leaves: Path) -> None:
    content = (exported / "model.onnx").read_bytes()
    onnx.checker.check_model(onnx.load_from_string(content))
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (image,), (probability, distance, cam) = session.get_inputs(), session.get_outputs()
    assert (cam.name, cam.type, cam.shape) == ("map", "tensor(float)", ["n", SIZE // 32, SIZE // 32])
    assert (distance.name, distance.type, distance.shape) == ("distance", "tensor(float)", ["n"])
    assert (image.name, image.type, image.shape) == ("image", "tensor(uint8)", ["n", SIZE, SIZE, 3])
    assert (probability.name, probability.type, probability.shape) == ("probability", "tensor(float)", ["n"])
    said = json.loads(session.get_modelmeta().custom_metadata_map["bldml"])
    header = bldml.load(run, device="cpu").header
    assert (said["positive_class"], said["negative_class"]) == ("BLD", "No_BLD")
    assert said["threshold"] == header.threshold
    checkpoint = (run / "checkpoints" / "best.ckpt").read_bytes()
    assert said["checkpoint_sha256"] == hashlib.sha256(checkpoint).hexdigest()
    assert not said.keys() & {"seen", "settings"}
    for place in (leaves, run, Path(torch.__file__).parent, REPOSITORY):
        assert str(place).encode() not in content
        assert str(place) not in (exported / "README.md").read_text() + (exported / "parity.json").read_text()
    for word in (b".py", b"/home", b"/tmp", b"stack_trace"):
        assert word not in content


def test_parity_and_card_say_what_was_found(exported: Path, run: Path) -> None:
    parity = json.loads((exported / "parity.json").read_text())
    assert parity["photographs"] == "the run's validation split"
    assert parity["n"] == sum(line.split(",")[2] == "val" for line in (run / "splits.csv").read_text().splitlines())
    assert parity["verdicts_changed"] == 0
    assert 0 <= parity["largest_difference"] <= 1e-4
    assert parity["model_sha256"] == hashlib.sha256((exported / "model.onnx").read_bytes()).hexdigest()
    card = (exported / "README.md").read_text()
    assert f"on {parity['n']} photographs (the run's validation split)" in card
    assert "| Sensitivity |" in card
    assert "Test split." in card
    assert "- Intended use: not stated" in card
    assert sorted(path.name for path in exported.iterdir()) == ["README.md", "SHA256SUMS", "model.onnx", "parity.json"]


def test_the_card_claims_no_metrics_of_another_checkpoint(tmp_path: Path, run: Path, exported: Path) -> None:
    """Evaluations of a run are those of its best checkpoint; the last one is of another epoch."""
    copied = tmp_path / "run"
    shutil.copytree(run, copied)
    path = copied / "checkpoints" / "best.ckpt"
    content = torch.load(path, weights_only=True)
    torch.save(content | {"epoch": content["epoch"] + 1}, path)
    model, parity = read_exported(exported / "model.onnx"), Parity("a folder", 3, 0.0, 0.0, (), 0.1, 1e-4)
    said = "No evaluation of this checkpoint is recorded."
    assert said in model_card(read_checkpoint(path), model, parity, [])
    torch.save(content, path)
    assert said not in model_card(read_checkpoint(path), model, parity, [])


@pytest.mark.parametrize("weights", ["fp16", "int8"])
def test_a_verdict_that_changes_refuses_the_export(
    tmp_path: Path, leaves: Path, names: list[str], bldml: Bldml, weights: str
) -> None:
    """The threshold is put between what float32 and the fewer bits give for one photograph."""
    from bldml import load  # the fixture has the package's name

    write_run(tmp_path / "run", leaves, names)
    assert bldml("export", tmp_path / "run", f"--weights={weights}", "--output=half").code == 0
    sizes = json.loads(Path("half/parity.json").read_text())
    assert 0 < sizes["largest_difference"] < 0.02
    photographs = [leaves / name for name in names]
    full = [v.probability for v in load(tmp_path / "run", device="cpu").predict(photographs)]
    half = [v.probability for v in load("half/model.onnx").predict(photographs)]
    at = int(np.argmax(np.abs(np.subtract(full, half))))
    write_run(tmp_path / "run", leaves, names, threshold=(full[at] + half[at]) / 2)
    refused = bldml("export", tmp_path / "run", f"--weights={weights}", "--output=out")
    assert (refused.code, refused.mistake, refused.fields["found"]) == (1, "parity-verdicts-changed", 1)
    assert names[at] in refused.err
    assert not Path("out").exists()
    assert not list(Path.cwd().glob(".bldml*"))
    accepted = bldml("export", tmp_path / "run", "--weights=fp32", "--output=out", "--photographs", leaves)
    assert accepted.code == 0
    assert json.loads(Path("out/parity.json").read_text())["n"] == 60


@pytest.mark.parametrize(("weights", "precision"), [("fp16", 2**-11), ("int8", 1 / 127)])
def test_fewer_bits_are_stored_and_float32_is_computed(weights: Any, precision: float) -> None:
    """Channels of very different sizes, so that one scale for all, or one along the other axis, would not do."""
    generator = np.random.default_rng(0)
    sizes = np.logspace(-3, 1, 20)
    values = {
        "layer": generator.normal(0, sizes[:, None], (20, 10)),
        "matrix": generator.normal(0, sizes, (20, 20)) * (np.arange(20) > 0),  # its first channel is zero
        "small": generator.normal(0, 1, (20, 1)),  # below 5 % of the weights
        "basis": generator.normal(0, 1, (1, 300)),
        "wide": np.full((300, 2), 1e6),  # float16 ends at 65504
        "bias": generator.normal(0, 1e-9, 20),
    }
    tensors = {name: value.astype(np.float32) for name, value in values.items()}
    chain = ["x", "a", "b", "c", "d", "y"]
    nodes = [onnx.helper.make_node("Gemm", ["x", "layer", "bias"], ["a"], transB=1)]
    for number, name in enumerate(("matrix", "small", "basis", "wide"), 1):
        nodes.append(onnx.helper.make_node("MatMul", [chain[number], name], [chain[number + 1]]))
    described = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, width])
        for name, width in (("x", 10), ("y", 2))
    ]
    initializers = [onnx.numpy_helper.from_array(value, name) for name, value in tensors.items()]
    graph = onnx.helper.make_graph(nodes, "g", described[:1], described[1:], initializers)
    store_weights(graph, weights)
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for name, axis in (("layer", 0), ("matrix", 1)):
        if weights == "fp16":
            found = stored.pop(f"{name}_float16")
            assert found.dtype == np.float16
            found = found.astype(np.float32)
        else:
            steps, scales = stored.pop(f"{name}_int8"), stored.pop(f"{name}_scale")
            assert steps.dtype == np.int8
            assert (scales.size, scales.shape[axis]) == (20, 20)
            found = steps * scales
        largest = np.abs(tensors[name]).max(1 - axis, keepdims=True)
        assert (np.abs(found - tensors[name]) <= precision * largest + 1e-12).all()
        tensors[name] = found.astype(np.float32)
    for name, value in stored.items():
        np.testing.assert_array_equal(value, tensors[name], strict=True)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    x = generator.normal(0, 1, (1, 10)).astype(np.float32)
    expected = (x @ tensors["layer"].T + tensors["bias"]).astype(np.float64)
    for name in ("matrix", "small", "basis", "wide"):
        expected = expected @ tensors[name]
    np.testing.assert_allclose(session.run(None, {"x": x})[0], expected, rtol=1e-4)


@pytest.mark.parametrize("axis", [0, 1])
def test_channels_in_int8_keep_their_sums(axis: int) -> None:
    """Else errors add up, since what comes into a layer is mostly positive."""
    kernel = np.random.default_rng(1).normal(0.1, 1, (30, 40, 3, 3)).astype(np.float32)
    steps, scales = rounded(kernel, axis)
    shape = [-1 if number == axis else 1 for number in range(4)]
    errors = steps * scales.reshape(shape) / scales.reshape(shape) - kernel / scales.reshape(shape)
    assert np.abs(errors).max() < 1.001
    others = tuple(number for number in range(4) if number != axis)
    assert np.abs(errors.sum(others)).max() < 0.51
    assert np.abs((np.rint(kernel / scales.reshape(shape)) - kernel / scales.reshape(shape)).sum(others)).max() > 2


def test_int8_is_refused_beyond_what_is_allowed(tmp_path: Path, leaves: Path, names: list[str], bldml: Bldml) -> None:
    """Of one photograph at the steepest place: its verdict stays, its probability does not."""
    from bldml import load  # the fixture has the package's name

    write_run(tmp_path / "run", leaves, names, temperature=1.0, offset=0.0)
    assert bldml("export", tmp_path / "run", "--weights=int8", "--output=out").code == 0
    parity, card = json.loads(Path("out/parity.json").read_text()), Path("out/README.md").read_text()
    assert (parity["weights"], parity["tolerance"], parity["tolerance_of_distance"]) == ("int8", 0.05, 0.1)
    assert 1e-5 < parity["largest_difference"] < 0.05
    assert "| Weights | stored as int8 with one scale per output channel" in card
    assert f"differ by at most {parity['largest_difference']:.1e}" in card
    photograph = leaves / names[0]
    (tmp_path / "one").mkdir()
    shutil.copy(photograph, tmp_path / "one")
    full, few = (load(path, device="cpu").predict(photograph) for path in (tmp_path / "run", "out/model.onnx"))
    logit, other = (float(np.log(v.probability / (1 - v.probability))) for v in (full, few))
    steeper = 0.6 / abs(other - logit)  # by which the logit of this photograph differs by .6
    path = write_run(tmp_path / "run", leaves, names, temperature=1.0, offset=0.0, threshold=0.1)
    content = torch.load(path, weights_only=True)
    head = {name: content["state_dict"][f"network.head.{name}"] for name in ("weight", "bias")}
    head["bias"].sub_(logit)
    for values in head.values():
        values.mul_(steeper)
    torch.save(content, path)
    options = ("--photographs", tmp_path / "one", "--output=refused")
    refused = bldml("export", tmp_path / "run", "--weights=int8", *options)
    assert (refused.code, refused.mistake) == (1, "parity-too-far"), refused.err
    assert refused.fields["expected"] == 0.05
    assert refused.fields["found"] == pytest.approx(0.145, abs=0.02)
    assert "no verdict changes on 1 photograph" in refused.err
    assert not Path("refused").exists()
    assert bldml("export", tmp_path / "run", *options).code == 0


def test_what_differs_beside_verdicts_is_stated() -> None:
    values = {"changed": (), "nearest": 0.1, "tolerance": 0.05, "largest": 0.02, "mean": 0.01}
    plain = Parity("a folder", 30, **values).sentence  # type: ignore[arg-type]
    assert plain.endswith("by at most 2.0e-02, and no verdict differs.")
    said = Parity("a folder", 30, **values, bands_changed=2, familiarity_changed=1).sentence  # type: ignore[arg-type]
    assert said.removeprefix(plain) == (
        " The band of 2 photographs differs. Whether it is unlike the training photographs differs for 1 photograph."
    )


@contextmanager
def full_disk(largest: int) -> Iterator[None]:
    """Files of this process cannot grow beyond so many bytes."""
    resource = pytest.importorskip("resource")  # Windows has none
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_leaves_nothing(tmp_path: Path, leaves: Path, names: list[str], bldml: Bldml) -> None:
    write_run(tmp_path / "run", leaves, names)
    Path("out").mkdir()
    with full_disk(20_000):
        outcome = bldml("export", tmp_path / "run", "--output=out")
    assert outcome.mistake == "export-not-writable"
    assert "File too large" in outcome.err
    assert [path.name for path in Path.cwd().rglob("*")] in ([], ["out"])


def test_photographs_that_are_gone_or_damaged(tmp_path: Path, leaves: Path, names: list[str], bldml: Bldml) -> None:
    write_run(tmp_path / "run", tmp_path / "moved", names)
    outcome = bldml("export", tmp_path / "run")
    assert outcome.mistake == "parity-photographs-missing"
    assert outcome.fields["found"] == len(names)
    assert "--photographs" in outcome.err
    (tmp_path / "some").mkdir()
    shutil.copy(leaves / names[0], tmp_path / "some" / "a.jpg")
    (tmp_path / "some" / "b.jpg").write_bytes((leaves / names[0]).read_bytes()[:900])
    outcome = bldml("export", tmp_path / "run", "--photographs", tmp_path / "some")
    assert outcome.mistake == "photograph-unreadable"
    assert not Path("export").exists()


def test_the_example_of_the_guide_gives_the_same_verdicts(
    tmp_path: Path, varied: tuple[Path, Path], leaves: Path
) -> None:
    """In a process of its own that has no bldml, on photographs that need turning and another colour profile."""
    guide = (REPOSITORY / "docs" / "howto" / "export.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", guide, re.S)
    (tmp_path / "classify.py").write_text(code)
    assert "bldml" not in code.replace('["bldml"]', "")
    leaf, photographs, turned = Image.open(next(leaves.rglob("*.jpg"))), [], Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    for name, options in {"plain": {}, "turned": {"exif": turned}, "wide": {"icc_profile": DISPLAY_P3}}.items():
        photographs.append(tmp_path / f"{name}.jpg")
        leaf.save(photographs[-1], quality=95, **options)  # type: ignore[arg-type]
    command = [
        sys.executable,
        "-I",
        str(tmp_path / "classify.py"),
        str(varied[1]),
        *map(str, photographs),
    ]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    verdicts = bldml.load(varied[1]).predict(photographs)
    assert len({verdict.probability for verdict in verdicts}) == 3
    assert lines == [f"{v.path}\t{v.probability:.4f}\t{v.label}" for v in verdicts]


def test_one_bit_of_an_exported_file(tmp_path: Path, varied: tuple[Path, Path], leaves: Path) -> None:
    """Two of five changed probabilities without a word. Behind the checksum, and in older exports, is only the rest."""
    content, path = varied[1].read_bytes(), tmp_path / "model.onnx"
    photograph = next(leaves.rglob("*.jpg"))
    expected = bldml.load(varied[1]).predict(photograph).probability
    ends = [len(content) - back for back in (1, 40, 64, 65, 66, 70, 78, 79, 80, 81, 82)]
    for position in (*range(3, len(content), len(content) // 40), *ends):
        damaged = bytearray(content)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        found: Any = None
        try:
            found = bldml.load(path).predict(photograph).probability
        except CheckpointError as error:
            found = error.code
        refused = {"onnx-checksum-wrong"} if position < len(content) - 82 else {"onnx-damaged", expected}
        assert found in refused | {"onnx-checksum-wrong"}
    older = onnx.load_from_string(content)
    del older.metadata_props[1]
    path.write_bytes(older.SerializeToString())
    assert bldml.load(path).predict(photograph).probability == expected


def without_numbers(model: onnx.ModelProto, name: str) -> None:
    tensor = next(one for one in model.graph.initializer if one.name.endswith(name))
    array = np.full(tuple(tensor.dims), np.nan, np.float32)
    tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))


def with_huge_array(model: onnx.ModelProto) -> None:
    (node,) = (one for one in model.graph.node if "probability" in one.output)
    node.output[0] = "small"
    shape = onnx.numpy_helper.from_array(np.array([2**20, 2**20]), "shape")
    model.graph.initializer.append(shape)
    for one in (
        onnx.helper.make_node("ConstantOfShape", ["shape"], ["huge"]),
        onnx.helper.make_node("ReduceSum", ["huge"], ["sum"], keepdims=0),
        onnx.helper.make_node("Add", ["small", "sum"], ["probability"]),
    ):
        model.graph.node.append(one)


def with_loop(model: onnx.ModelProto) -> None:
    model.graph.node.append(onnx.helper.make_node("Loop", ["n", "go"], ["probability"], body=onnx.GraphProto()))


def with_other_input(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 3


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda model: without_numbers(model, "bias"), "onnx-not-computed"),
        (lambda model: without_numbers(model, "normalization.std"), "onnx-not-computed"),
        (with_huge_array, "onnx-not-computed"),
        (with_loop, "onnx-with-loop"),
        (with_other_input, "onnx-computes-other"),
    ],
)
def test_a_stranger_may_write_any_checksum(
    change: Callable[[onnx.ModelProto], None], code: str, varied: tuple[Path, Path], leaves: Path, tmp_path: Path
) -> None:
    model = onnx.load(varied[1])
    change(model)
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    with mistake("onnx-checksum-wrong"):
        read_exported(path)
    del model.metadata_props[1]
    path.write_bytes(with_checksum(model.SerializeToString()))
    with mistake(code):
        bldml.load(path).predict(next(leaves.rglob("*.jpg")))


def test_loading_what_is_no_exported_file(tmp_path: Path, exported: Path) -> None:
    content = (exported / "model.onnx").read_bytes()
    path = tmp_path / "model.onnx"
    with mistake("onnx-unreadable", path=path):
        bldml.load(path)
    for damaged in (b"", b"no ONNX at all", content[: len(content) // 2]):
        path.write_bytes(damaged)
        with mistake("onnx-damaged", path=path):
            bldml.load(path)
    foreign = onnx.load_from_string(content)
    del foreign.metadata_props[:]
    path.write_bytes(foreign.SerializeToString())
    with mistake("onnx-foreign", path=path):
        bldml.load(path)
    for text in ("no JSON", "[]", '{"threshold": 2}'):
        onnx.helper.set_model_props(foreign, {"bldml": text})
        path.write_bytes(foreign.SerializeToString())
        with mistake("onnx-header-wrong", path=path):
            bldml.load(path)
