"""A checkpoint as one ONNX file that describes itself."""

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from bldml.export.graph import INPUT, ExportedGraph, has_map, output_names
from bldml.export.storage import Weights, store_weights
from bldml.inference.classifier import Classifier
from bldml.inference.exported import with_checksum

if TYPE_CHECKING:
    from onnx import ModelProto

OPSET = 20


def onnx_bytes(classifier: Classifier, weights: Weights, description: dict[str, Any]) -> bytes:
    """Return the ONNX file of a classifier.

    Args:
        classifier: That of the checkpoint, on the CPU.
        weights: How kernels and matrices are stored, see `storage.store_weights`.
        description: Stored as JSON in the metadata, under the key `bldml`; see `command.describe_export`. The last
            bytes are the checksum, see `exported.with_checksum`.
    """
    from onnx.helper import set_model_props

    header, novelty = classifier.header, classifier.novelty
    graph = ExportedGraph(classifier.network, header, novelty)
    proto = _converted(graph, header.image_size, output_names(novelty is not None, has_map(classifier.network)))
    _without_origin(proto)
    store_weights(proto.graph, weights)
    set_model_props(proto, {"bldml": json.dumps(description, ensure_ascii=False)})
    proto.producer_name, proto.producer_version = "bldml", description["exported_with"]["bldml"]
    proto.graph.name = "bldml"
    content: bytes = proto.SerializeToString(deterministic=True)
    return with_checksum(content)


def _converted(graph: ExportedGraph, size: int, outputs: list[str]) -> "ModelProto":
    # Two images, because the number 1 would become part of the graph.
    example = torch.zeros((2, size, size, 3), dtype=torch.uint8)
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            graph,
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=outputs,
            dynamic_shapes={"image": {0: torch.export.Dim("n", min=1)}},
            verbose=False,
        )
    assert program is not None  # only without dynamo
    proto: ModelProto = program.model_proto
    return proto


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide what torch and onnxscript say of their own progress."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _without_origin(proto: "ModelProto") -> None:
    """Remove what torch writes of the source of each node: it contains paths of this machine."""
    graph = proto.graph
    for part in (proto, graph, *graph.node, *graph.initializer, *graph.value_info, *graph.input, *graph.output):
        del part.metadata_props[:]
        part.doc_string = ""
    del graph.value_info[:]  # shapes in between, which a runtime infers itself
    for function in proto.functions:
        for node in (function, *function.node):
            del node.metadata_props[:]
            node.doc_string = ""
