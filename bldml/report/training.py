"""Tables of a report on the model, its training, its operating point, its evaluations and the machine."""

import json
import shlex
from collections.abc import Sequence

from bldml.io.text import counted, number, plain
from bldml.metrics.bootstrap import bootstrap, has_groups
from bldml.metrics.estimates import Interval
from bldml.metrics.operating_point import TEMPERATURE_RANGE, choose_threshold
from bldml.report.evaluation_tables import best_epoch
from bldml.report.figures import unfreeze_epochs
from bldml.report.tables import Entry, Table, count, duration, precise_number, text_table
from bldml.run.files import text_at
from bldml.run.ledger import LedgerEntry, read_ledger
from bldml.run.reader import Evaluation, RunData

MISSING = Entry("Not stated", look="missing")
SETTINGS = (
    ("Backbone", "model", "backbone"),
    ("Initial weights", "model", "weights"),
    ("Image size (pixels)", "model", "image_size"),
    ("Learning rate", "model", "lr"),
    ("Backbone learning-rate factor", "model", "backbone_lr_factor"),
    ("Weight decay", "model", "weight_decay"),
    ("Positive class weight in the loss", "model", "pos_weight"),
    ("BatchNorm frozen", "model", "freeze_batchnorm"),
    ("Batch size", "data", "batch_size"),
    ("Maximum epochs", "trainer", "max_epochs"),
    ("Numerical precision", "trainer", "precision"),
    ("Monitored metric (chooses the best checkpoint)", "monitor"),
    ("Early stopping: epochs without improvement", "early_stopping", "patience"),
)


def settings_table(data: RunData) -> Table:
    """Return the settings of the model and of its training, with what the training took."""
    rows: list[list[str | int | Entry | None]] = [
        [title, data.setting(*keys) or _default(data, keys)] for title, *keys in SETTINGS
    ]
    fractions = [value for row in data.epochs if (value := row.get("trainable_share")) is not None]
    unfrozen, best = unfreeze_epochs(data), best_epoch(data)
    costs = data.costs()
    rows += [
        ["Parameters", costs.parameters or MISSING],
        ["Training time", duration(costs.training_seconds) if costs.training_seconds else MISSING],
        ["Epochs trained", len(data.epochs) if data.epochs else MISSING],
        ["Best epoch (counted from 0)", best if best is not None else MISSING],
        ["Layers unfrozen at epoch", ", ".join(map(str, unfrozen)) or "never"],
        ["Fraction of parameters trained, first to last epoch",
         f"{number(fractions[0])} to {number(fractions[-1])}" if fractions else MISSING],
        ["Random seed", text_at(data.environment, "seed") or data.setting("seed_everything") or MISSING],
    ]  # fmt: skip
    caption = "Model and training. config.yaml contains all settings."
    return text_table("training", caption, ("Setting", "Value"), rows)


def _default(data: RunData, keys: Sequence[str]) -> str | Entry:
    """Return the text for a setting that is null or missing."""
    block = data.config.get(keys[0])
    known = keys[-1] in block if isinstance(block, dict) and len(keys) > 1 else False
    return "default of the backbone" if known and keys[-1] == "image_size" else "none" if known else MISSING


def threshold_interval(data: RunData, validation: Evaluation) -> Interval | None:
    """Return the interval of the threshold, chosen again on resampled validation photographs.

    None where the threshold was fixed, or the validation photographs are of one class.
    """
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


def operating_point_table(data: RunData) -> tuple[Table | None, list[str]]:
    """Return threshold and temperature with their origin, and warnings; no table without an evaluation."""
    criterion, validation, warnings = data.criterion, data.of_role("validation"), []
    evaluation = validation or next(iter(data.evaluations), None)
    if evaluation is None or evaluation.threshold is None:
        return None, []
    rows: list[list[str | int | Entry | None]] = [
        ["Threshold criterion (set in the configuration before training)", str(criterion) if criterion else MISSING],
        ["Decision threshold (lowest probability that is predicted positive)", precise_number(evaluation.threshold)],
    ]
    if validation is not None:
        labels, probabilities = validation.labels(data.classes), validation.probabilities
        positives = int(labels.sum())
        n = f"{count(labels.size)} ({count(positives)} positive)"
        is_fixed = criterion is not None and criterion.threshold is not None
        rows.append(["Validation photographs used to choose it", "none (fixed threshold)" if is_fixed else n])
        interval = threshold_interval(data, validation)
        if interval is not None:
            limits = f"[{precise_number(interval.low)}, {precise_number(interval.high)}]"
            rows.append(["95 % interval of the chosen threshold", Entry(limits, interval.method)])
        recomputed = choose_threshold(labels, probabilities, criterion) if criterion else evaluation.threshold
        if abs(recomputed - evaluation.threshold) > 1e-6:
            warnings.append(
                f"Chosen again from the predictions in evaluations/{plain(validation.name)}, the threshold would be "
                f"{precise_number(recomputed)}. Either it was chosen on other photographs, or the threshold criterion "
                "in config.yaml has been changed."
            )
    else:
        rows.append(["Validation photographs used to choose it", MISSING])
    rows.append(["Calibration temperature (divides the logit; 1: no change)", _temperature(data, evaluation)])
    warnings += [
        f"The evaluation {plain(other.name)} used another threshold, {precise_number(other.threshold)}, so it belongs "
        "to another checkpoint."
        for other in data.evaluations
        if abs((other.threshold or 0) - evaluation.threshold) > 1e-12
    ]
    caption = "Operating point: how a probability becomes a prediction."
    if validation is not None and not warnings:
        caption += " It was chosen without test photographs."
    return text_table("operating_point", caption, ("Item", "Value"), rows), warnings


def _temperature(data: RunData, evaluation: Evaluation) -> Entry:
    value, validation = evaluation.temperature, data.of_role("validation")
    assert value is not None
    if value != 1:
        at_limit = min(abs(value - limit) for limit in TEMPERATURE_RANGE) < 1e-9
        return Entry(
            number(value), "at the limit of the allowed range" if at_limit else "fitted on the validation split"
        )
    if validation is None:
        return Entry(number(value), "not fitted")
    labels, probabilities = validation.labels(data.classes), validation.probabilities
    positive, negative = probabilities[labels == 1], probabilities[labels == 0]
    if not positive.size or not negative.size:
        return Entry(number(value), "not fitted: the validation split has one class only")
    if positive.min() > negative.max() or negative.min() > positive.max():
        return Entry(number(value), "not fitted: a threshold separates the validation classes without error")
    return Entry(number(value), "not fitted")


def evaluation_history(data: RunData) -> tuple[Table | None, list[str]]:
    """Return how often each set was evaluated, and how many runs used the same validation photographs."""
    entries = read_ledger(data.run)
    # The same photographs evaluated under two names count as one set.
    by_set: dict[str, list[LedgerEntry]] = {}
    for entry in entries:
        by_set.setdefault(entry.dataset_fingerprint or f"only {entry.evaluation}", []).append(entry)
    rows = []
    for found in by_set.values():
        names, times = dict.fromkeys(entry.evaluation for entry in found), [entry.time for entry in found]
        digest = found[0].dataset_fingerprint[:12] or None
        rows.append([plain(", ".join(names)), digest, len(times), plain(min(times)), plain(max(times))])
    caption = "Evaluations of this run. Repeated evaluation on a test set biases its metrics."
    header = ("Evaluation", "Dataset digest (first 12 digits)", "Times evaluated", "First", "Last")
    sentences = [] if entries else ["The evaluations of this run are not recorded."]
    siblings = _siblings(data)
    if siblings is not None:
        runs = f"{counted(siblings, 'other run')} in the same folder {'uses' if siblings == 1 else 'use'}"
        sentences.append(
            f"{runs} the same validation photographs. The more runs are tried, the more optimistic are the validation "
            "metrics of the best one."
        )
    return (text_table("ledger", caption, header, rows) if rows else None), sentences


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
    """Return the software and hardware of the training."""
    found = data.environment
    rows: list[list[str | int | Entry | None]] = []
    for title, key in (
        ("Run started", "created"),
        ("Git commit of the program", "git_commit"),
        ("Device", "device"),
        ("GPU", "gpu"),
        ("CUDA", "cuda"),
        ("Platform", "platform"),
        ("CPU threads", "cpu_threads"),
        ("Slurm job", "slurm_job"),
    ):
        rows.append([title, text_at(found, key) or ("none" if key in found else MISSING)])
    resumed = found.get("continued")
    rows.append(["Times resumed", len(resumed) if isinstance(resumed, list) else 0])
    versions = found.get("versions")
    if isinstance(versions, dict):
        rows += [[plain(str(name)), text_at(versions, name)] for name in versions]
    return text_table("environment", "Software and hardware used for training.", ("Item", "Value"), rows)


def commands(data: RunData) -> list[tuple[str, str]]:
    """Return (title, command) of what was run, and of what to run to repeat it."""
    found = [("Training", _command(data.environment.get("command") or ()))]
    found += [
        (f"Evaluation {plain(evaluation.name)}", _command(evaluation.provenance.command))
        for evaluation in (*data.evaluations, *data.unlabelled)
    ]
    found.append(("To repeat the training", "python -m bldml fit --config config.yaml --run_name NEW_NAME"))
    found.append(("To rewrite this report", f"python -m bldml report {shlex.quote(str(data.run.path))}"))
    return [(title, plain(text)) for title, text in found if text]


def _command(words: object) -> str:
    if not isinstance(words, list | tuple) or not words:
        return ""
    return shlex.join(["python", "-m", "bldml", *map(str, words[1:])])
