"""The command `export`: a checkpoint as an ONNX file or as a page, compared with it before anything is written."""

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from bldml.dataset.files import list_folder, show_path
from bldml.errors import RunError
from bldml.export.card import model_card, stated_items
from bldml.export.graph import INPUT, has_map, output_names
from bldml.export.onnx import OPSET, onnx_bytes
from bldml.export.page import page_files, single_name
from bldml.export.parity import (
    Parity,
    check_parity,
    compare_with_checkpoint,
    photographs_below,
    validation_photographs,
)
from bldml.export.storage import Weights
from bldml.inference.classifier import Classifier, classifier_of
from bldml.inference.exported import LEFT_OUT, ExportedModel, require_onnx
from bldml.io.atomic import make_folder
from bldml.io.safe_points import safe_point
from bldml.io.screen import say
from bldml.io.system import sha256_of
from bldml.io.text import counted
from bldml.training.checkpoint import Checkpoint, read_checkpoint

Format = Literal["onnx", "web"]
PACKAGES = ("torch", "onnx", "onnxscript", "onnxruntime", "numpy", "pillow")
PURPOSES = {
    "model.onnx": "the classifier, for any program that reads ONNX; its metadata describe it (key bldml)",
    "index.html": "the page as a folder, to be served by HTTPS and kept by the browser; it opens from the disk too",
    "parity.json": "how this export compares with its checkpoint",
}


def export_checkpoint(
    checkpoint_path: Path,
    kind: Format,
    output: Path,
    weights: Weights,
    photographs: Path | None = None,
    *,
    version: str,
) -> None:
    """Export a checkpoint, and print what was written; see `bldml.commands.export`.

    Raises:
        CheckpointError: The checkpoint cannot be used, or the export does not give its verdicts.
        DatasetError: The photographs to compare on cannot be used.
        RunError: The output folder cannot be used or written; it is then as before.
        UsageError: The extra `onnx` is not installed.
    """
    require_onnx("onnx", "onnxscript", "onnxruntime")
    _check_output(output, photographs)
    checkpoint = read_checkpoint(checkpoint_path)
    compared = validation_photographs(checkpoint) if photographs is None else photographs_below(photographs)
    classifier, header = classifier_of(checkpoint, "cpu"), checkpoint.header
    content = onnx_bytes(classifier, weights, describe_export(classifier, checkpoint, weights, version))
    safe_point()
    exported = ExportedModel(content, output / "model.onnx")
    # A browser decodes JPEGs at full size, as evaluations of new checkpoints do.
    decode = "full" if kind == "web" else header.decode
    parity = compare_with_checkpoint(classifier, exported, compared, decode, weights)
    check_parity(parity)
    files = {"model.onnx": content}
    safe_point()
    if kind == "web":
        files = page_files(exported, content, parity, stated_items(checkpoint))
    files["parity.json"] = _parity_json(exported, content, parity)
    purposes = PURPOSES | {single_name(header.positive_class, header.negative_class): "the page as one file"}
    listed = [(name, purpose) for name, purpose in purposes.items() if name in files]
    files["README.md"] = model_card(checkpoint, exported, parity, listed).encode()
    files["SHA256SUMS"] = "".join(f"{hashlib.sha256(files[name]).hexdigest()}  {name}\n" for name in files).encode()
    _write_folder(output, files)
    written = [*(name for name, _ in listed), "README.md"]
    say(
        f"Compared on {counted(parity.n, 'photograph')}: largest difference {parity.largest:.1e}, no verdict changed.\n"
        + "".join(f"Wrote {show_path(output / name)} ({_size(files[name])})\n" for name in written[::-1])
    )


def describe_export(classifier: Classifier, checkpoint: Checkpoint, weights: Weights, version: str) -> dict[str, Any]:
    """Return what the file says of itself: the header, without the run's photographs and paths, and its own facts."""
    header = checkpoint.header
    side = header.image_size
    return {
        **{key: value for key, value in asdict(header).items() if key not in LEFT_OUT},
        "negative_class": header.negative_class,
        "checkpoint_sha256": sha256_of(checkpoint.path),
        "exported_with": {"bldml": version, **{name: metadata.version(name) for name in PACKAGES}},
        "opset": OPSET,
        "weights": weights,
        "input": f"{INPUT}: uint8 (n, {side}, {side}, 3), RGB; the whole upright photograph in sRGB, resized to a "
        "square by a triangle filter (PIL: BILINEAR)",
        "outputs": output_names(checkpoint.novelty is not None, has_map(classifier.network)),
    }


def _size(content: bytes) -> str:
    return f"{len(content) / 1e6:.1f} MB" if len(content) >= 1e6 else f"{len(content) / 1e3:.1f} kB"


def _parity_json(exported: ExportedModel, content: bytes, parity: Parity) -> bytes:
    document = {
        "schema": 1,
        "model_sha256": hashlib.sha256(content).hexdigest(),
        **{key: exported.description[key] for key in ("checkpoint_sha256", "weights", "opset", "exported_with")},
        **parity.numbers(),
    }
    return f"{json.dumps(document, indent=2)}\n".encode()


def _check_output(output: Path, photographs: Path | None) -> None:
    """Raise a RunError unless the output folder is new or empty, and not among the photographs."""
    if photographs is not None and photographs.is_dir() and output.resolve().is_relative_to(photographs.resolve()):
        message = f"{show_path(output)} lies inside {show_path(photographs)}. Give an --output outside."
        raise RunError(message, "export-inside-photographs", path=output, root=photographs)
    if os.path.lexists(output) and not output.is_dir():
        raise RunError(f"{show_path(output)} is not a folder. Give another --output.", "output-no-folder", path=output)
    if output.is_dir() and list_folder(output):
        message = f"{show_path(output)} holds files already and is left as it is. Give another --output."
        raise RunError(message, "output-not-empty", path=output)


def _write_folder(output: Path, files: Mapping[str, bytes]) -> None:
    """Write a folder in one step: after an error, such as a full disk, nothing of it is there."""
    output = output.absolute()
    make_folder(output.parent)
    hidden = output.with_name(f".bldml-{secrets.token_hex(8)}.tmp")
    try:
        hidden.mkdir()
        for name, content in files.items():
            with (hidden / name).open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        if output.is_dir():  # empty; not every system renames over it
            output.rmdir()
        hidden.rename(output)
    except OSError as error:
        _check_output(output, None)  # another process may have written there in the meantime
        message = (
            f"Cannot write {show_path(output)}: {error.strerror}. Nothing was written. Check write permission and "
        )
        message += "free space."
        raise RunError(message, "export-not-writable", path=output, reason=error.strerror) from error
    finally:
        with suppress(OSError):
            shutil.rmtree(hidden, ignore_errors=True)
