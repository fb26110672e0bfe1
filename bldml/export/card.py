"""The model card that travels with an export: Markdown, from what the checkpoint and its run recorded."""

from collections.abc import Iterable, Iterator, Sequence

from bldml.errors import RunError
from bldml.export.parity import Parity
from bldml.export.storage import STORED
from bldml.inference.exported import ExportedModel
from bldml.io.text import plain
from bldml.report import claims
from bldml.report.headline import Part, headline_parts, headline_table, read_parts
from bldml.report.tables import Table
from bldml.run.card import read_card
from bldml.run.files import read_config
from bldml.run.folder import RunFolder
from bldml.run.reader import read_run
from bldml.training.checkpoint import Checkpoint

# What Markdown and the HTML in it would take as markup; at the start of a line also what begins a list or heading.
_MARKUP = str.maketrans({character: f"\\{character}" for character in "\\`*_{}[]<>#|&!~"})


def stated_items(checkpoint: Checkpoint) -> dict[str, str | None]:
    """Return title and text of each item of the card in the run's configuration; None for one that is not stated."""
    run = RunFolder.of_checkpoint(checkpoint.path)
    return read_card({} if run is None else read_config(run.config))


def model_card(checkpoint: Checkpoint, model: ExportedModel, parity: Parity, files: Sequence[tuple[str, str]]) -> str:
    """Return the card.

    Args:
        checkpoint: The checkpoint; metrics are those that its run recorded of it.
        model: The exported file.
        parity: How it compares with the checkpoint.
        files: Name and purpose of the other files of the export.
    """
    header, said = checkpoint.header, model.description
    positive, negative = _text(header.positive_class), _text(header.negative_class)
    facts = {
        "Positive class": positive,
        "Negative class": negative,
        "Threshold": f"{header.threshold!r}: from this probability of {positive} the verdict is {positive}",
        "Backbone": header.backbone,
        "Input": _text(said["input"]),
        "JPEG decoding in evaluations": "at full size" if header.decode == "full" else "at a reduced scale",
        "Weights": f"stored as {STORED.get(said['weights'], said['weights'])}; computed in float32",
        "SHA-256 of the checkpoint": said["checkpoint_sha256"],
        "Exported by": ", ".join(f"{name} {number}" for name, number in said["exported_with"].items()),
        "ONNX opset": str(said["opset"]),
    }
    parts = [f"# {positive} or {negative}?", f"Exported by bldml {said['exported_with']['bldml']}.", "## Files"]
    parts.append("\n".join(f"- `{name}`: {purpose}" for name, purpose in files))
    parts += ["## Classifier", _markdown(("", ""), facts.items()), parity.sentence]
    parts.append(f"It answers {positive} or {negative} for every photograph, also for one of something else.")
    parts += ["## Stated by its makers", _stated(stated_items(checkpoint)), "## Metrics", *_metrics(checkpoint)]
    return "\n\n".join(parts) + "\n"


def _stated(items: dict[str, str | None]) -> str:
    return "\n".join(f"- {title}: {_text(text) if text else 'not stated'}" for title, text in items.items())


def _metrics(checkpoint: Checkpoint) -> Iterator[str]:
    """Yield what the run recorded of this checkpoint on photographs that did not train it."""
    run, parts = RunFolder.of_checkpoint(checkpoint.path), list[Part]()
    if run is not None:
        try:
            data = read_run(run)
        except RunError as error:
            yield f"The run's evaluations cannot be read: {_text(str(error))}"
            return
        shown = headline_parts(data, read_parts(data))
        parts = [part for part in shown if _is_of(part, checkpoint)]
    if not parts:
        yield "No evaluation of this checkpoint is recorded."
        return
    table = headline_table(parts, plain(checkpoint.header.positive_class))
    yield _text(table.caption)
    yield _markdown(table.header, _rows(table))
    yield from (f"{_text(part.title)}: {_text(claims.standing(part.evidence))}" for part in parts)


def _is_of(part: Part, checkpoint: Checkpoint) -> bool:
    """Whether an evaluation is recorded as one of this checkpoint: its epoch and its operating point."""
    evaluation, header = part.evaluation, checkpoint.header
    point = (header.threshold, header.temperature)
    found = (evaluation.point.threshold, evaluation.point.temperature)
    return evaluation.provenance.epoch == checkpoint.epoch and found == point


def _rows(table: Table) -> Iterator[Sequence[str]]:
    for row in table.rows:
        yield [_text(f"{entry.text} ({entry.detail})" if entry.detail else entry.text) for entry in row]


def _markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _text(text: str) -> str:
    """Return a text in one line that Markdown shows letter for letter."""
    return plain(" ".join(text.split())).translate(_MARKUP)
