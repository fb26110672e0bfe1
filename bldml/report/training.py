"""What a report says of the model, its training, its operating point and the machine."""

import json
import shlex
from collections.abc import Sequence

from bldml.io.text import number, plain
from bldml.metrics.bootstrap import bootstrap, has_groups
from bldml.metrics.estimates import Interval
from bldml.metrics.operating_point import TEMPERATURE_RANGE, choose_threshold
from bldml.report.figures import unfreeze_epochs
from bldml.report.scores import best_epoch
from bldml.report.tables import Entry, Table, count, fine, simple
from bldml.run.costs import duration
from bldml.run.files import text_at
from bldml.run.ledger import LedgerEntry, read_ledger
from bldml.run.reader import Evaluation, RunData

MISSING = Entry("Not stated", look="missing")
SETTINGS = (
    ("Backbone", "model", "backbone"),
    ("Weights at the start", "model", "weights"),
    ("Image size in pixels", "model", "image_size"),
    ("Learning rate", "model", "lr"),
    ("Share of it for the backbone", "model", "backbone_lr_factor"),
    ("Weight decay", "model", "weight_decay"),
    ("Weight of positives in the loss", "model", "pos_weight"),
    ("BatchNorm frozen", "model", "freeze_batchnorm"),
    ("Batch size", "data", "batch_size"),
    ("Epochs at most", "trainer", "max_epochs"),
    ("Precision", "trainer", "precision"),
    ("Best checkpoint chosen by", "monitor"),
    ("Early stopping after epochs without progress", "early_stopping", "patience"),
)


def settings(data: RunData) -> Table:
    """How the model was trained."""
    rows: list[list[str | int | Entry | None]] = [
        [title, data.setting(*keys) or _default(data, keys)] for title, *keys in SETTINGS
    ]
    fractions = [fraction for row in data.epochs if (fraction := row.get("trainable_share")) is not None]
    unfrozen, best = unfreeze_epochs(data), best_epoch(data)
    costs = data.costs()
    rows += [
        ["Parameters", costs.parameters or MISSING],
        ["Training time", duration(costs.training_seconds) if costs.training_seconds else MISSING],
        ["Epochs trained", len(data.epochs) if data.epochs else MISSING],
        ["Best epoch, counted from 0", best if best is not None else MISSING],
        ["Layers unfrozen at epoch", ", ".join(map(str, unfrozen)) or "never"],
        ["Fraction of parameters trained, first to last epoch",
         f"{number(fractions[0])} to {number(fractions[-1])}" if fractions else MISSING],
        ["Seed", text_at(data.environment, "seed") or data.setting("seed_everything") or MISSING],
    ]  # fmt: skip
    caption = "Model and training. All settings are in config.yaml."
    return simple("training", caption, ("Setting", "Value"), rows)


def _default(data: RunData, keys: Sequence[str]) -> str | Entry:
    """What stands where a setting is null or missing."""
    block = data.config.get(keys[0])
    known = keys[-1] in block if isinstance(block, dict) and len(keys) > 1 else False
    return "the backbone’s own" if known and keys[-1] == "image_size" else "none" if known else MISSING


def threshold_interval(data: RunData, validation: Evaluation) -> Interval | None:
    """Interval of the threshold: the choice made again on resampled validation photographs; None where it was fixed."""
    criterion = data.criterion
    labels, probabilities = validation.labels(data.classes), validation.probabilities
    if criterion is None or criterion.threshold is not None or labels.min() == labels.max():
        return None
    groups = [row.group for row in validation.rows]
    return bootstrap(
        lambda index: choose_threshold(labels[index], probabilities[index], criterion),
        labels,
        groups if has_groups(groups) else None,
    )


def operating_point(data: RunData) -> tuple[Table | None, list[str]]:
    """How probabilities become calls, and warnings; no table without an evaluation."""
    criterion, validation, warnings = data.criterion, data.of_role("validation"), []
    evaluation = validation or next(iter(data.evaluations), None)
    if evaluation is None or evaluation.threshold is None:
        return None, []
    rows: list[list[str | int | Entry | None]] = [
        ["Threshold criterion, set before training", str(criterion) if criterion else MISSING],
        ["Threshold: least probability that is called positive", fine(evaluation.threshold)],
    ]
    if validation is not None:
        labels, probabilities = validation.labels(data.classes), validation.probabilities
        positives = int(labels.sum())
        n = f"{count(labels.size)} ({count(positives)} positive)"
        is_fixed = criterion is not None and criterion.threshold is not None
        rows.append(["Validation photographs that chose it", "none: it was fixed" if is_fixed else n])
        interval = threshold_interval(data, validation)
        if interval is not None:
            limits = f"[{fine(interval.low)}, {fine(interval.high)}]"
            rows.append(["95 % interval of the chosen threshold", Entry(limits, interval.method)])
        again = choose_threshold(labels, probabilities, criterion) if criterion else evaluation.threshold
        if abs(again - evaluation.threshold) > 1e-6:
            warnings.append(
                f"Chosen anew from the predictions in evaluations/{plain(validation.name)} the threshold would be "
                f"{fine(again)}: those photographs are not the ones that chose it, or the criterion in config.yaml is "
                "another now."
            )
    else:
        rows.append(["Validation photographs that chose it", MISSING])
    rows.append(["Temperature: divides the logit, 1 changes nothing", _temperature(data, evaluation)])
    warnings += [
        f"The evaluation {plain(other.name)} was made with another threshold, {fine(other.threshold)}: it is of "
        "another checkpoint."
        for other in data.evaluations
        if abs((other.threshold or 0) - evaluation.threshold) > 1e-12
    ]
    caption = "From a probability to a call. Test photographs had no part in this."
    return simple("operating_point", caption, ("What", "Value"), rows), warnings


def _temperature(data: RunData, evaluation: Evaluation) -> Entry:
    value, validation = evaluation.temperature, data.of_role("validation")
    assert value is not None
    if value != 1:
        at_limit = min(abs(value - limit) for limit in TEMPERATURE_RANGE) < 1e-9
        return Entry(number(value), "at the limit of what is allowed" if at_limit else "fitted on validation")
    if validation is None:
        return Entry(number(value), "not fitted")
    labels, probabilities = validation.labels(data.classes), validation.probabilities
    yes, no = probabilities[labels == 1], probabilities[labels == 0]
    if not yes.size or not no.size:
        return Entry(number(value), "not fitted because validation has one class only")
    if yes.min() > no.max() or no.min() > yes.max():
        return Entry(number(value), "not fitted because validation is separable: a threshold parts it without error")
    return Entry(number(value), "not fitted")


def looks(data: RunData) -> tuple[Table | None, list[str]]:
    """How often each set was evaluated, and how many runs were tried on the same validation photographs."""
    entries = read_ledger(data.run)
    # The same photographs under another name are the same photographs.
    by_set: dict[str, list[LedgerEntry]] = {}
    for entry in entries:
        by_set.setdefault(entry.dataset_fingerprint or f"only {entry.evaluation}", []).append(entry)
    rows = []
    for found in by_set.values():
        names, times = dict.fromkeys(entry.evaluation for entry in found), [entry.time for entry in found]
        digest = found[0].dataset_fingerprint[:12] or None
        rows.append([plain(", ".join(names)), digest, len(times), plain(min(times)), plain(max(times))])
    caption = "Evaluations of this run. A set that is looked at again and again is no longer a test."
    header = ("Evaluation", "Fingerprint begins", "Times evaluated", "First", "Last")
    sentences = [] if entries else ["How often each set was evaluated is not recorded for this run."]
    siblings = _siblings(data)
    if siblings is not None:
        others = "is 1 other" if siblings == 1 else f"are {count(siblings)} others"
        sentences.append(
            f"Beside this run there {others} in the same folder, chosen on the same "
            "validation photographs. The more were tried, the more the best one’s validation figures flatter it."
        )
    return (simple("ledger", caption, header, rows) if rows else None), sentences


def _siblings(data: RunData) -> int | None:
    own = text_at(data.environment, "dataset_fingerprint", "val")
    if not own:
        return None
    found = 0
    folder = data.run.path.resolve()
    for path in folder.parent.glob("*/environment.json"):
        if path.parent == folder:
            continue
        try:
            other = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            continue  # another run's damage is not this report's
        found += text_at(other, "dataset_fingerprint", "val") == own
    return found


def environment_table(data: RunData) -> Table:
    """Software and hardware."""
    found = data.environment
    rows: list[list[str | int | Entry | None]] = []
    for title, key in (
        ("Run begun", "created"),
        ("Commit of the program", "git_commit"),
        ("Device", "device"),
        ("GPU", "gpu"),
        ("CUDA", "cuda"),
        ("Platform", "platform"),
        ("CPU threads", "cpu_threads"),
        ("Slurm job", "slurm_job"),
    ):
        rows.append([title, text_at(found, key) or ("none" if key in found else MISSING)])
    again = found.get("continued")
    rows.append(["Times that the run was continued", len(again) if isinstance(again, list) else 0])
    versions = found.get("versions")
    if isinstance(versions, dict):
        rows += [[plain(str(name)), text_at(versions, name)] for name in versions]
    return simple("environment", "Software and hardware of the training.", ("What", "Value"), rows)


def commands(data: RunData) -> list[tuple[str, str]]:
    """What was typed, and what to type to do it again."""
    found = [("Training", _command(data.environment.get("command") or ()))]
    found += [
        (f"Evaluation {plain(evaluation.name)}", _command(evaluation.provenance.command))
        for evaluation in (*data.evaluations, *data.unlabelled)
    ]
    found.append(("To train again", "python -m bldml fit --config config.yaml"))
    found.append(("To write this report again", f"python -m bldml report {shlex.quote(str(data.run.path))}"))
    return [(title, plain(text)) for title, text in found if text]


def _command(words: object) -> str:
    if not isinstance(words, list | tuple) or not words:
        return ""
    return shlex.join(["python", "-m", "bldml", *map(str, words[1:])])
