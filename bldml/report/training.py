"""Tables of a report on the model, its training, its operating point, its evaluations and the machine."""

import re
import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePath

from bldml.io.text import counted, number, plain
from bldml.metrics.estimates import Interval
from bldml.metrics.operating_point import TEMPERATURE_RANGE, choose_threshold, temperature_interval
from bldml.metrics.resampling import bootstrap
from bldml.report.claims import caution, minimum, sampling, units
from bldml.report.evaluation_tables import best_epoch
from bldml.report.figures import unfreeze_epochs
from bldml.report.headline import Part
from bldml.report.tables import Entry, Shown, Table, count, duration, interval_text, precise_number, text_table
from bldml.run.evidence import effect_of, evidence_of, stretches_of, threshold_again
from bldml.run.files import text_at
from bldml.run.ledger import LedgerEntry, looks_at
from bldml.run.provenance import ROLES, changed_conditions
from bldml.run.reader import Evaluation, RunData

UNKNOWN = "not recorded"
MISSING = Entry("Not stated", look="missing")
SETTINGS = (
    ("Backbone", "model", "backbone"),
    ("Initial weights", "model", "weights"),
    ("Head", "model", "head"),
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
ENVIRONMENT = (
    ("Run started", "created"),
    ("Git commit of the program", "git_commit"),
    ("Device", "device"),
    ("GPU", "gpu"),
    ("CUDA", "cuda"),
    ("Platform", "platform"),
    ("CPU", "cpu"),
    ("CPU threads", "cpu_threads"),
    ("Precision", "precision"),
    ("Processes", "processes"),
    ("Host", "host"),
    ("Slurm job", "slurm_job"),
)


def settings_table(data: RunData) -> Table:
    """Return the settings of the model and of its training, with what the training took."""
    rows: list[list[Shown]] = [[title, _setting(data, keys)] for title, *keys in SETTINGS]
    fractions = [value for row in data.epochs if (value := row.get("trainable_share")) is not None]
    unfrozen, best = unfreeze_epochs(data), best_epoch(data)
    rows += [
        ["Parameters", data.parameters or MISSING],
        ["Training time", duration(data.training_seconds) if data.training_seconds else MISSING],
        ["Epochs trained", len(data.epochs) if data.epochs else MISSING],
        ["Best epoch (counted from 0)", best if best is not None else MISSING],
        ["Layers unfrozen at epoch", ", ".join(map(str, unfrozen)) or "never"],
        ["Fraction of parameters trained, first to last epoch",
         f"{number(fractions[0])} to {number(fractions[-1])}" if fractions else MISSING],
        ["Random seed", text_at(data.environment, "seed") or data.setting("seed_everything") or MISSING],
    ]  # fmt: skip
    caption = "Model and training. config.yaml contains all settings."
    return text_table("training", caption, ("Setting", "Value"), rows)


def _setting(data: RunData, keys: Sequence[str]) -> str | Entry:
    """Return the text of a setting, marked as a default where it is recorded which settings were stated."""
    shown: str | Entry = _initial_weights(data) if keys[-1] == "weights" else _without_folders(data.setting(*keys))
    shown = shown or _default(data, keys)
    if data.stated is None or ".".join(keys) in data.stated or not isinstance(shown, str) or "default" in shown:
        return shown
    return f"{shown} (default)"


def _initial_weights(data: RunData) -> str:
    """Return the setting; `imagenet` means of a backbone of timm what timm publishes, trained on whatever it was."""
    shown = _without_folders(data.setting("model", "weights"))
    is_published = shown == "imagenet" and data.setting("model", "backbone").startswith("timm:")
    return "published by timm" if is_published else shown


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
    effect = effect_of(data, validation, criterion)
    return bootstrap(
        lambda index: choose_threshold(labels[index], probabilities[index], criterion, effect),
        labels,
        validation.units,
    )


def _criterion_origin(data: RunData) -> str:
    return "stated in the configuration" if data.has_own_criterion else "the default: none was stated"


def operating_point_table(data: RunData) -> tuple[Table | None, list[str]]:
    """Return threshold and temperature with their origin, and warnings; no table without an evaluation."""
    criterion, validation = data.criterion, data.of_role("validation")
    if not data.evaluations:
        return None, []
    point, warnings = (validation or data.evaluations[0]).point, []
    rows: list[list[Shown]] = [
        ["Threshold criterion", Entry(str(criterion), _criterion_origin(data)) if criterion else MISSING],
        ["Decision threshold (lowest probability that is predicted positive)", precise_number(point.threshold)],
    ]
    if validation is None:
        rows.append(["Validation photographs used to choose it", MISSING])
    else:
        labels = validation.labels(data.classes)
        is_fixed = criterion is not None and criterion.threshold is not None
        used = "none (fixed threshold)" if is_fixed else f"{count(labels.size)} ({count(int(labels.sum()))} positive)"
        rows.append(["Validation photographs used to choose it", used])
        if (interval := threshold_interval(data, validation)) is not None:
            limits = f"[{precise_number(interval.low)}, {precise_number(interval.high)}]"
            rows.append(["95 % interval of the chosen threshold", Entry(limits, interval.method)])
        again = threshold_again(data, validation, criterion) if criterion else point.threshold
        if abs(again - point.threshold) > 1e-6:
            warnings.append(
                f"Chosen again from the predictions in evaluations/{plain(validation.name)}, the threshold would be "
                f"{precise_number(again)}. Either it was chosen on other photographs, or the threshold criterion in "
                "config.yaml has been changed."
            )
        if text := minimum(evidence_of(data, validation)):
            rows.append(["Assurance on new leaves", text])
    origin = _origin_of_temperature(data, point.temperature)
    rows.append(["Calibration temperature (divides the logit; 1: no change)", Entry(number(point.temperature), origin)])
    if validation and (interval := _interval_of_temperature(data, validation)):
        limits = f"[{number(interval.low)}, {number(interval.high)}]"
        rows.append(["95 % interval of the temperature", Entry(limits, interval.method)])
    warnings += [
        f"The evaluation {plain(other.name)} used another threshold, {precise_number(other.point.threshold)}, so it "
        "belongs to another checkpoint."
        for other in data.evaluations
        if abs(other.point.threshold - point.threshold) > 1e-12
    ]
    caption = "Operating point: how a probability becomes a prediction."
    if validation is not None and not warnings:
        caption += " It was chosen without test photographs."
    return text_table("operating_point", caption, ("Item", "Value"), rows), warnings


def _interval_of_temperature(data: RunData, validation: Evaluation) -> Interval | None:
    logits = validation.point.uncalibrated(validation.probabilities)
    return temperature_interval(logits, validation.labels(data.classes))


def _origin_of_temperature(data: RunData, temperature: float) -> str:
    validation = data.of_role("validation")
    if temperature != 1:
        at_limit = min(abs(temperature - limit) for limit in TEMPERATURE_RANGE) < 1e-9
        return "at the limit of the allowed range" if at_limit else "fitted on the validation split"
    if validation is None:
        return "not fitted"
    labels, probabilities = validation.labels(data.classes), validation.probabilities
    positive, negative = probabilities[labels == 1], probabilities[labels == 0]
    if not positive.size or not negative.size:
        return "not fitted: the validation split has one class only"
    if positive.min() > negative.max() or negative.min() > positive.max():
        return "not fitted: a threshold separates the validation classes without error"
    return "not fitted: the validation split does not tell it from 1"


def ledger_table(data: RunData) -> Table | None:
    """Return how often each set was evaluated, by this run and by all of the log folder; None without a record."""
    # The same photographs evaluated under two names count as one set.
    by_set: dict[str, list[LedgerEntry]] = {}
    for entry in data.log_folder[0].entries or ():
        by_set.setdefault(entry.dataset_fingerprint or f"only {entry.evaluation}", []).append(entry)
    rows: list[list[Shown]] = []
    for found in by_set.values():
        names, times = dict.fromkeys(entry.evaluation for entry in found), [entry.time for entry in found]
        digest = found[0].dataset_fingerprint
        looks = looks_at(digest, data.log_folder)
        everyone = (sum(looks.values()), len(looks)) if digest else (None, None)
        rows.append([", ".join(names), digest[:12] or None, len(times), min(times), max(times), *everyone])
    caption = (
        "Evaluations of this run, and of all runs of its folder on the same photographs. Repeated evaluation on a test "
        "set biases its metrics."
    )
    header = ("Evaluation", "Dataset digest (first 12 digits)", "Times evaluated", "First", "Last",
              "Times, all runs of the folder", "Runs")  # fmt: skip
    return text_table("ledger", caption, header, rows) if rows else None


def environment_table(data: RunData) -> Table:
    """Return the software and hardware of the training."""
    found = data.environment
    resumed, versions = found.get("continued"), found.get("versions")
    rows: list[list[Shown]] = [
        [title, text_at(found, key) or ("none" if key in found else MISSING)] for title, key in ENVIRONMENT
    ]
    rows.append(["Times resumed", len(resumed) if isinstance(resumed, list) else 0])
    if isinstance(versions, dict):
        rows += [[name, text_at(versions, name)] for name in versions]
    for stretch, what in changed_conditions(stretches_of(data)):
        rows.append([f"Changed at step {stretch.step:,} ({stretch.time}, {stretch.host})", "; ".join(what)])
    return text_table("environment", "Software and hardware used for training.", ("Item", "Value"), rows)


def commands(data: RunData) -> list[tuple[str, str]]:
    """Return (title, command) of what was run."""
    run = {"Training": data.environment.get("command")}
    for evaluation in (*data.evaluations, *data.unlabelled):
        run[f"Evaluation {plain(evaluation.name)}"] = evaluation.provenance.command
    return [
        (title, plain(_command(words))) for title, words in run.items() if isinstance(words, list | tuple) and words
    ]


def command_to_train_again(data: RunData) -> str:
    """Return the command that trains again, for the folder in which the training was started.

    The run folder lies in its log folder, whose name is that of the disk, unless the run was moved.
    """
    logs = PurePath(data.setting("trainer", "default_root_dir"), data.run.path.resolve().parent.name)
    config = PurePath("RUN_FOLDER") if logs.is_absolute() else logs / data.run.path.resolve().name
    words = ("--config", str(config / "config.yaml"), "--run_name", "NEW_NAME")
    return plain(f"python -m bldml fit {shlex.join(words)}")


def methods(data: RunData, first: Part | None) -> str:
    """Return a paragraph for a paper from what the run recorded; `first` is the set whose result it gives."""

    def fact(*keys: str) -> str:
        return plain(_without_folders(data.setting(*keys))) or UNKNOWN

    count_of = Counter(row["split"] for row in data.splits)
    sizes = ", ".join(f"{count_of[split]:,} {split}" for split in ROLES if count_of[split]) or UNKNOWN
    versions = (text_at(data.environment, "versions", name) or f"({UNKNOWN})" for name in ("bldml", "torch"))
    head = "head: logistic regression on features of the frozen backbone, fitted once; " * (
        data.setting("model", "head") == "logistic"
    )
    best, criterion = best_epoch(data), data.criterion if data.config.get("operating_point") else None
    text = (
        f"A classifier of {plain(data.classes.positive)} (positive class) and {plain(data.classes.negative)} was "
        "trained with bldml {} and PyTorch {}. ".format(*map(plain, versions))
        + f"Photographs: {sizes}. Backbone: {fact('model', 'backbone')}; initial weights: "
        f"{plain(_initial_weights(data)) or UNKNOWN}; "
        f"{head}learning rate: {fact('model', 'lr')}; batch size: {fact('data', 'batch_size')}; maximum epochs: "
        f"{fact('trainer', 'max_epochs')}; random seed: "
        f"{text_at(data.environment, 'seed') or fact('seed_everything')}. Best epoch (counted from 0): "
        f"{UNKNOWN if best is None else best}, by {fact('monitor')}. Threshold criterion: {criterion or UNKNOWN}."
    )
    if first is None:
        return f"{text} No evaluation is recorded."
    point, assessment = first.evaluation.point, first.assessment
    rates = {name: assessment.at_threshold[name] for name in ("sensitivity", "specificity")}
    found = (rates | {"AUROC": assessment.overall["auroc"]}).items()
    values = ", ".join(
        f"{name} {number(one.value)} {interval_text(one)}".rstrip()
        + (f" ({one.interval.method})" if one.interval else "")
        for name, one in found
    )
    return (
        f"{text} On {counted(assessment.n, 'photograph')}{units(first.evidence)} of the set {first.title}, at the "
        f"threshold {precise_number(point.threshold)} and the temperature {number(point.temperature)}, 95 % intervals "
        f"in brackets: {values}. {sampling(first.evidence)} {caution(first.evidence)}".rstrip()
    )


def _command(words: Sequence[object]) -> str:
    return " ".join(["python -m bldml", *(shlex.quote(_without_folders(str(word))) for word in words[1:])])


def _without_folders(text: str) -> str:
    """Return a setting or an option of which an absolute path shows its last part only, because pages are passed on.

    >>> _without_folders("--data.root=/home/me/leaves"), _without_folders("data/leaves")
    ('--data.root=…/leaves', 'data/leaves')
    """
    return re.sub(r"(^|=)/.*/(?=[^/])", r"\1…/", text)
