"""Trained models from strangers: `last.ckpt` as given to `--resume`, an exported ONNX file, and the exported page."""

import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import bldml as package
from bldml.inference.exported import with_checksum
from tests.fuzz.inputs import bent, changed, texts
from tests.fuzz.rule import examples, obey, obey_command
from tests.fuzz.test_fuzz import few_leaves, load, plain_tensors, put, saved, zipped  # noqa: F401  # a fixture
from tests.support import THREE_LAYERS, Bldml
from tests.training.test_checkpoint import HEADER

SIDE = 32
QUIET = ("--report=false", "--test_after_fit=false", "--trainer.logger=false")


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one epoch whose configuration asks for two."""
    from bldml.cli import main
    from bldml.dataset.synthetic.leaves import write_leaves

    folder = tmp_path_factory.mktemp("interrupted")
    write_leaves(folder / "leaves", images_per_class=5, size=SIDE, seed=1)
    words = ["fit", *THREE_LAYERS, f"--data.root={folder / 'leaves'}", f"--model.image_size={SIDE}", "--run_name=r"]
    before = Path.cwd()
    os.chdir(folder)
    try:
        assert main([*words, *QUIET, "--trainer.max_epochs=1"]) == 0
    finally:
        os.chdir(before)
    run = folder / "lightning_logs" / "r"
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("max_epochs: 1", "max_epochs: 2"))
    return run


@examples(2)
@given(change=st.data())
def test_resume(change: st.DataObject, interrupted: Path, bldml: Bldml) -> None:
    run = Path("lightning_logs/r")
    shutil.rmtree(run, ignore_errors=True)
    shutil.copytree(interrupted, run)
    last = run / "checkpoints" / "last.ckpt"
    content = last.read_bytes()
    if change.draw(st.booleans()):
        content = change.draw(bent(content) | zipped(content))
    else:
        try:
            content = saved(change.draw(changed(torch.load(last, weights_only=True), plain_tensors)))
        except (OverflowError, UnicodeEncodeError):  # torch itself cannot write it
            return
    put(last, content)
    obey_command("resume", bldml, "fit", f"--resume={run}", "--report=false", "--test_after_fit=false")


def exported(description: str) -> onnx.ModelProto:
    """Return the mean brightness as a probability, in a file with this description."""
    nodes = [
        helper.make_node("Cast", ["image"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["numbers", "axes"], ["mean"], keepdims=0),
        helper.make_node("Div", ["mean", "largest"], ["probability"]),
    ]
    arrays = [numpy_helper.from_array(np.array([1, 2, 3]), "axes")]
    arrays.append(numpy_helper.from_array(np.array(255, np.float32), "largest"))
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", SIDE, SIDE, 3])
    probability = helper.make_tensor_value_info("probability", TensorProto.FLOAT, ["n"])
    graph = helper.make_graph(nodes, "bldml", [image], [probability], arrays)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(model, {"bldml": description})
    return model


DESCRIPTION = {key: value for key, value in asdict(HEADER).items() if key not in ("seen", "settings")}
DESCRIPTION |= {"image_size": SIDE, "negative_class": "No_BLD", "checkpoint_sha256": "ab" * 32}
IMAGE = np.full((40, 50, 3), 100, np.uint8)


@st.composite
def models(draw: st.DrawFn) -> bytes:
    """An exported file whose description, graph or bytes are changed; its checksum is right, wrong or missing."""
    description = draw(st.just(DESCRIPTION) | changed(DESCRIPTION))
    model = exported(load(description).decode())
    graph = model.graph
    for _ in range(draw(st.integers(0, 2))):
        node, array = draw(st.sampled_from(graph.node)), draw(st.sampled_from(graph.initializer))
        what = draw(st.sampled_from(["kind", "name", "size", "bytes", "type", "shape", "output", "opset", "outside"]))
        if what == "kind":
            node.op_type = draw(st.sampled_from(["Relu", "Shape", "Identity", "Range", "Expand", "Loop", "If", "x"]))
        elif what == "name":
            node.input[0] = draw(st.sampled_from(["image", "axes", "largest", "probability", "gone"]))
        elif what == "size":
            array.dims.append(draw(st.sampled_from([0, 1, -1, 2**40, 2**63 - 1])))
        elif what == "bytes":
            array.raw_data = draw(bent(array.raw_data) | st.binary(max_size=30))
        elif what == "type":
            array.data_type = draw(st.integers(0, 25))
        elif what == "shape":
            graph.input[0].type.tensor_type.shape.dim[draw(st.integers(0, 3))].dim_value = draw(st.integers(-1, 2**40))
        elif what == "output":
            graph.output[0].name = draw(texts.filter(str.isprintable))
        elif what == "opset":
            model.opset_import[0].version = draw(st.sampled_from([-1, 0, 1, 13, 9999]))
        else:
            array.data_location = TensorProto.EXTERNAL
            array.external_data.add(key="location", value=draw(st.sampled_from(["/etc/passwd", "../x", "/dev/zero"])))
    content = model.SerializeToString()
    if draw(st.booleans()):
        content = draw(bent(content))
    return draw(st.just(content) | st.just(with_checksum(content)) | bent(with_checksum(content)))


@examples(60)
@given(models())
def test_exported(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = put(tmp_path_factory.getbasetemp() / "fuzzed.onnx", content)
    verdict = obey("exported", lambda: package.load(path).predict([IMAGE] * 2))
    if isinstance(verdict, list):
        assert all(0 <= one.probability <= 1 and one.label in ("BLD", "No_BLD") for one in verdict)


@examples(60)
@given(bent(with_checksum(exported(json.dumps(DESCRIPTION)).SerializeToString())))
def test_bits_of_an_exported_file(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = put(tmp_path_factory.getbasetemp() / "bent.onnx", content)
    verdict = obey("bits of an exported file", lambda: package.load(path).predict([IMAGE])[0])
    if isinstance(verdict, package.Verdict):  # refused or equal
        assert verdict.probability == pytest.approx(100 / 255)


@examples(3)
@given(
    verb=st.sampled_from(["predict", "test", "validate", "explain", "survey", "export", "report"]),
    name=st.sampled_from(["", "index.html", "model.onnx", "model.js", "parity.json"]),
    content=st.binary(max_size=300) | bent(b'globalThis.ASSETS ??= {};\nASSETS.model = "UEsDBA==";\n'),
)
def test_page(verb: str, name: str, content: bytes, few_leaves: Path, bldml: Bldml) -> None:  # noqa: F811
    """No command reads the page; each says so."""
    page = Path("web")
    page.mkdir(exist_ok=True)
    for file in ("index.html", "model.js", "model.onnx", "parity.json"):
        put(page / file, content)
    words = [] if verb in ("export", "report") else [few_leaves]
    options = [] if verb == "report" else ["--output=out"]
    assert obey_command("page", bldml, verb, page / name, *words, *options).code == 1
    assert not Path("out").exists()
