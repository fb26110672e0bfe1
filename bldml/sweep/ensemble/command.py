"""The command `ensemble`: the runs of an experiment as one classifier, in a run folder of its own."""

import errno
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bldml.dataset.files import list_folder, shell_word, show_path
from bldml.dataset.folders import check_outside
from bldml.dataset.manifest import COLUMNS, OPTIONAL
from bldml.dataset.samples import class_name
from bldml.dataset.tables.reading import read_rows
from bldml.errors import RunError, UsageError
from bldml.io.atomic import make_folder, write_atomically
from bldml.io.documents import dump_yaml
from bldml.io.locks import Lock
from bldml.io.safe_points import safe_point
from bldml.io.screen import say
from bldml.io.system import sha256_of
from bldml.io.text import counted, csv_text, without_apostrophe
from bldml.metrics.assessment import EvaluationMetrics, evaluate
from bldml.metrics.certainty.conformal import choose_bands
from bldml.metrics.certainty.novelty import JointNovelty
from bldml.metrics.checked import units_of
from bldml.metrics.operating_point import OperatingPoint, ThresholdCriterion, assurance_of, choose_operating_point
from bldml.run.digests.record import digests_of_run, environment_text, write_provenance
from bldml.run.folder import RunFolder
from bldml.run.photographs import PhotographRow, photographs_text
from bldml.run.predictions import (
    Prediction,
    digest_of_distances,
    digest_of_predictions,
    write_metrics,
    write_predictions,
)
from bldml.run.provenance import DIGEST_DIGITS, Provenance
from bldml.survey.review import photographs_root
from bldml.sweep.ensemble.members import Ingredient, check_same, joint_novelty, pooled_logits, read_ingredients
from bldml.sweep.plan import Plan, SweepFolder, check_manifests, ensembles_elsewhere, find_experiment, read_plan
from bldml.sweep.records import write_record
from bldml.sweep.search.study import rank_trials
from bldml.training.backbones import row_of
from bldml.training.checkpoint import KEY, NOVELTY, Header, software_versions
from bldml.training.networks.distribution import plain_novelty
from bldml.training.networks.ensemble import Member, ensemble_name, join_weights
from bldml.training.recording import record_conditions, record_environment
from bldml.training.resume.state import AtomicCheckpointIO
from bldml.training.transforms import MEAN, STD


def make_ensemble(source: Path, output: Path | None) -> None:
    """Make one classifier of the runs of an experiment, and print what it is; see `bldml.commands.ensemble`.

    Args:
        source: Folder of an experiment, or the name of one of its configurations in that folder.
        output: Run folder to make; None for one in the folder of the experiment.

    Raises:
        UsageError: There is no such experiment or configuration, or it has one run only.
        RunError: A run is not finished, or the runs do not fit together; nothing was written.
        CheckpointError: A checkpoint cannot be read.
    """
    folder, name = find_experiment(source, "ensemble")
    plan = read_plan(folder)
    if plan.search and name is None:
        best = next((one.name for one in rank_trials(plan)), "")
        message = f"{show_path(folder.path)} is a search; name one of its trials."
        if best:
            message += f" That with the best objective: {shell_word(folder.path / best)}"
        raise UsageError(message, "ensemble-trial-missing", path=folder.path, expected=best)
    check_manifests(folder, plan, [folder.final.name])
    ensembles_elsewhere(folder)  # damaged, it cannot be written again; said before anything is made
    ingredients = read_ingredients(folder, plan, name)
    check_same(ingredients)
    if output is not None:
        _check_place(output, plan, ingredients)
    output = output or folder.ensembles / (name or "all")
    if os.path.lexists(output) and not (output.is_dir() and not list_folder(output)):
        raise _existing(output)
    has_folds = ingredients[0].planned.fold is not None
    rows, logits = pooled_logits(ingredients)
    judged = _Judged.of(folder, plan, ingredients, rows, logits)
    with _new_run(output) as run:
        _write(folder, run, output, ingredients, judged, has_folds=has_folds)
        _note_place(folder, output)
    say(_said(output, ingredients, judged, has_folds=has_folds, has_test=folder.final.is_file()))


def _check_place(output: Path, plan: Plan, ingredients: Sequence[Ingredient]) -> None:
    """Raise a ConfigError if the folder lies among the photographs of the runs, where these can still be found."""
    first = ingredients[0]
    own = {one.name: one.options for one in plan.configurations}[first.planned.configuration]
    with suppress(RunError):
        manifest = {**plan.settings, **own}.get("data.manifest")
        check_outside(output, "--output", photographs_root(first.data), Path(manifest) if manifest else None)


def _existing(output: Path) -> RunError:
    message = f"{show_path(output)} exists already and is left as it is. Give another --output."
    return RunError(message, "ensemble-exists", path=output)


def _note_place(folder: SweepFolder, output: Path) -> None:
    """Note in the folder of the experiment where an ensemble is, so that its looks at the test set are found."""
    path = output.resolve()
    if path.parent == folder.ensembles.resolve():
        return
    try:
        with Lock(folder.lock, wait=None, waiting=safe_point):
            paths = sorted({*ensembles_elsewhere(folder), str(path)})
            write_record(folder.ensembles_elsewhere, {"schema": 1, "paths": paths})
    except (OSError, RunError):  # an experiment of somebody else
        say(
            f"{show_path(folder.path)} is not writable, so its page will not know of this ensemble, nor of its looks "
            "at the test set.\n"
        )


@dataclass(frozen=True)
class _Judged:
    """The photographs as the ensemble judges them.

    Attributes:
        header: Of its checkpoint.
        rows: Their predictions.
        metrics: Of these.
        novelty: The distances of its networks as one; None if they are not recorded.
    """

    header: Header
    rows: list[Prediction]
    metrics: EvaluationMetrics
    novelty: JointNovelty | None

    @classmethod
    def of(
        cls,
        folder: SweepFolder,
        plan: Plan,
        ingredients: Sequence[Ingredient],
        rows: list[Prediction],
        logits: NDArray[np.float64],
    ) -> "_Judged":
        """Choose temperature, threshold, bands and the limit of novelty on these logits and distances."""
        first = ingredients[0]
        criterion, classes = first.data.criterion or ThresholdCriterion(), first.data.classes
        labels = np.array([row.true_class == classes.positive for row in rows], dtype=np.int64)
        units = units_of([row.unit for row in rows], len(rows))
        effect = 1.0
        if criterion.minimum is not None:
            of_class = labels == (criterion.minimum[0] == "sensitivity")
            assured = assurance_of(criterion, np.ones(int(of_class.sum())), units[of_class])
            effect = assured.design_effect if assured else 1.0
        point = choose_operating_point(logits, labels, criterion, 0.0, effect)
        probabilities = point.probabilities(logits)
        bands = None
        if criterion.band_error is not None:
            bands = choose_bands(labels, probabilities, units, point.threshold, criterion.band_error)
        header = replace(_header(folder, plan, ingredients, point), bands=bands)
        novelty, distances = joint_novelty(ingredients, rows)
        described = {key: getattr(novelty, key) for key in ("rate", "n_train", "n_val")} if novelty else {}
        judged = [
            replace(
                row,
                probability=float(p),
                predicted_class=header.label_of(p),
                band=(bands and bands.band(p)) or "",
                distance=distance,
            )
            for row, p, distance in zip(rows, probabilities.tolist(), distances, strict=True)
        ]
        metrics = evaluate(labels, probabilities, point, [row.unit for row in rows])
        metrics = replace(metrics, bands=asdict(bands) if bands else {}, novelty=described)
        return cls(header, judged, metrics, novelty)


def _header(folder: SweepFolder, plan: Plan, ingredients: Sequence[Ingredient], point: OperatingPoint) -> Header:
    """Return the header: of the first network where all agree. An ensemble has seen what any of them has seen.

    Its own photographs are those of the experiment, whose test split none of them has seen.
    """
    headers = [one.checkpoint.header for one in ingredients]
    seen = {one.seen[i : i + DIGEST_DIGITS] for one in headers for i in range(0, len(one.seen), DIGEST_DIGITS)}
    data: dict[str, Any] = dict(headers[0].settings["data"])
    if plan.folds is not None:  # those of the first network are of its fold
        data["manifest"] = str(folder.final.absolute()) if folder.final.is_file() else None
    return replace(
        headers[0],
        backbone=ensemble_name([header.backbone for header in headers]),
        **asdict(point),
        mean=MEAN,
        std=STD,
        fingerprints={} if plan.folds else headers[0].fingerprints,
        seen="".join(sorted(seen)),
        versions=software_versions(),
        settings={"data": data},
        bands=None,
    )


@contextmanager
def _new_run(output: Path) -> Iterator[RunFolder]:
    """Give a hidden folder, which becomes the run folder at the end, so that there is never half of one."""
    output = output.absolute()
    make_folder(output.parent)
    hidden = output.with_name(f".bldml-{secrets.token_hex(8)}.tmp")
    try:
        (hidden / "checkpoints").mkdir(parents=True)
        yield RunFolder(hidden)
        if output.is_dir():  # empty; not every system renames over it
            output.rmdir()
        hidden.rename(output)
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY):  # by now: another process was faster
            raise _existing(output) from error
        message = f"Cannot write {show_path(output)}: {error.strerror}. Nothing was written. Check write permission "
        message += "and free space."
        raise RunError(message, "ensemble-not-writable", path=output, reason=error.strerror) from error
    finally:
        shutil.rmtree(hidden, ignore_errors=True)


def _sealed(folder: SweepFolder, aliases: Mapping[str, str]) -> Iterator[PhotographRow]:
    """Yield what is recorded of the sealed photographs, by which an evaluation knows them as the test split.

    `aliases` are the names of classes for the labels of the manifest.
    """
    if folder.final.is_file():
        for _, cells, _ in read_rows(folder.final, COLUMNS, OPTIONAL):
            if cells["split"] == "test":
                label, group = (without_apostrophe(cells.get(key, "")) for key in ("label", "group"))
                digest = cells.get("sha256", "")
                yield PhotographRow(cells["path"], "test", class_name(label, aliases), group, 0, 0, "", "", digest)


def _write(
    folder: SweepFolder,
    run: RunFolder,
    output: Path,
    ingredients: Sequence[Ingredient],
    judged: _Judged,
    *,
    has_folds: bool,
) -> None:
    header = judged.header
    members = [
        Member(row_of(one.checkpoint.header.backbone), one.checkpoint.state_dict, one.checkpoint.header.operating_point)
        for one in ingredients
    ]
    state = join_weights(members)
    hyper_parameters = {"backbone": header.backbone, "weights": "none", "image_size": header.image_size}
    content = {"epoch": -1, "global_step": 0, "state_dict": state, KEY: asdict(header)}
    content |= {"hyper_parameters": hyper_parameters, "pytorch-lightning_version": software_versions()["lightning"]}
    content |= {NOVELTY: plain_novelty(judged.novelty)} if judged.novelty else {}
    AtomicCheckpointIO().save_checkpoint(content, run.best_checkpoint)
    photographs = {row.path: row for one in ingredients for row in one.data.photographs}
    labels = {row["path"]: (row["label"], row["split"]) for one in ingredients for row in one.data.splits}
    if has_folds:  # every network has seen others; the operating point was chosen on all of them
        photographs = {path: replace(row, split="val") for path, row in photographs.items()}
        labels = {path: (label, "val") for path, (label, _) in labels.items()}
        sealed = list(_sealed(folder, header.settings["data"].get("class_aliases") or {}))
        photographs |= {row.path: row for row in sealed}
        labels |= {row.path: (row.true_class, "test") for row in sealed}
    parameters = sum(value.numel() for value in state.values())
    environment = record_environment(0, record_conditions(torch.device("cpu")), {}, parameters)
    environment |= {"seed": None, "slurm_job": None, "members": [_described(one) for one in ingredients]}
    texts = {
        run.config: dump_yaml(_configuration(header, ingredients[0])),
        run.splits: csv_text(("path", "label", "split"), ([path, *labels[path]] for path in sorted(labels))),
        run.photographs: photographs_text(photographs[path] for path in sorted(photographs)),
    }
    texts[run.environment] = environment_text(environment, {path.name: text for path, text in texts.items()})
    for path, text in texts.items():
        write_atomically(path, text)
    evaluation = run.evaluation("out_of_fold" if has_folds else "val")
    write_predictions(evaluation / "predictions.csv", judged.rows)
    write_metrics(evaluation, judged.metrics)
    recorded = digests_of_run(run)
    origin = Provenance(
        role="validation",
        split="out_of_fold" if has_folds else "val",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        checkpoint=str(output.absolute() / "checkpoints" / "best.ckpt"),
        versions=software_versions(),
        sha256={
            "checkpoint": sha256_of(run.best_checkpoint),
            "predictions": digest_of_predictions(judged.rows),
            "distances": digest_of_distances(judged.rows),
            **recorded["sha256"],
        },
        starts=recorded["starts"],
    )
    write_provenance(evaluation, origin)


def _configuration(header: Header, first: Ingredient) -> dict[str, Any]:
    of_data = first.data.config.get("data", {})
    return {
        "model": {"backbone": header.backbone, "image_size": header.image_size},
        "data": {key: of_data.get(key) for key in ("root", "class_aliases")}
        | {"positive_class": header.positive_class},
        "operating_point": first.data.config.get("operating_point"),
    }


def _described(one: Ingredient) -> dict[str, Any]:
    header = one.checkpoint.header
    return {
        "run": one.planned.name,
        "backbone": header.backbone,
        "seed": one.planned.seed,
        "fold": one.planned.fold,
        "epoch": one.checkpoint.epoch,
        "temperature": header.temperature,
        "offset": header.offset,
        "sha256": sha256_of(one.checkpoint.path),
    }


def _said(output: Path, ingredients: Sequence[Ingredient], judged: _Judged, *, has_folds: bool, has_test: bool) -> str:
    metrics, header = judged.metrics, judged.header
    chosen = (
        f"Temperature {header.temperature:.3g} and threshold {header.threshold:.3g} were chosen on "
        f"{counted(metrics.n, 'photograph')}, each judged by "
    )
    chosen += (
        "the networks that did not learn from it."
        if has_folds
        else "all networks, which chose their own epoch, temperature and threshold on them: these figures are too good."
    )
    sealed = f"  python -m bldml test {shell_word(output)}    # opens the sealed test set\n" if has_test else ""
    return (
        f"{header.backbone}: {len(ingredients)} networks, one classifier.\n{chosen}\n\n"
        f"Next:\n{sealed}  python -m bldml test {shell_word(output)} OTHER_FOLDER\n"
        f"  python -m bldml predict {shell_word(output)} PHOTOGRAPHS\n"
    )
