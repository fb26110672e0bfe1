"""The command `survey`: every photograph judged once, by one or several processes, then all results written."""

import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Literal

from tqdm import tqdm

from bldml.dataset.files import show_path
from bldml.dataset.folders import read_unlabelled
from bldml.dataset.images import UnreadableImage
from bldml.dataset.samples import Collection, Sample, no_photographs
from bldml.dataset.tables.reading import remove_table
from bldml.errors import DatasetError, UsageError
from bldml.inference.classifier import BATCH_SIZE, Classifier, Device, classifier_of
from bldml.io.atomic import write_atomically
from bldml.io.locks import Lock, Taken
from bldml.io.safe_points import safe_point
from bldml.io.screen import say
from bldml.io.system import hash_of_path, processors, sha256_of
from bldml.io.text import counted
from bldml.survey.positions import Policy, read_origins
from bldml.survey.progress import Record, SurveyProgress, WorkShard, open_progress, stamp_of, undone
from bldml.survey.rows import SurveyRow, qgis_style, survey_csv, survey_geojson
from bldml.survey.sheet import triage_page
from bldml.survey.units import COLUMNS as UNIT_COLUMNS
from bldml.survey.units import Grouping, describe_rule, rule_of, units_csv
from bldml.training.checkpoint import Checkpoint, Header, read_checkpoint


@dataclass(frozen=True)
class Wanted:
    """What is written at the end: how photographs are grouped, what of positions, and how many on the sheet."""

    grouping: Grouping | None = None
    positions: Policy = "rounded"
    sheet: int = 200

    def __post_init__(self) -> None:
        """Raise UsageError for a sheet that no page can hold."""
        if not 0 <= self.sheet <= 2000:
            message = f"--sheet must be a number of photographs from 0 to 2000, not {self.sheet}."
            raise UsageError(message, "sheet-size-wrong", found=self.sheet)


def survey_photographs(
    checkpoint_path: Path,
    photographs: Path,
    output: Path,
    wanted: Wanted,
    shard: WorkShard,
    device: Device = "auto",
    *,
    unreadable: Literal["exclude", "error"] = "exclude",
    version: str,
) -> None:
    """Judge a folder of photographs, or one shard of it, and write the results when all photographs are done.

    What an interrupted command has done is kept; see `bldml.commands.survey`.

    Raises:
        CheckpointError, DatasetError, RunError: The checkpoint, the photographs, the table of groups or the output
            folder cannot be used.
    """
    checkpoint = read_checkpoint(checkpoint_path)
    collection = read_unlabelled(photographs)
    samples = collection.splits["predict"]
    if not samples:
        raise DatasetError(no_photographs(collection), "photographs-none", path=collection.root)
    model = sha256_of(checkpoint.path)
    settings = {"checkpoint": model, "folder of photographs": hash_of_path(collection.root)}
    progress = open_progress(output, photographs, settings)
    if wanted.grouping and wanted.grouping.kind != "gps":  # a wrong table is found before the work, not after it
        wanted.grouping.units([sample.name for sample in samples], [], notes := list[str]())
        say("".join(f"{note}\n" for note in notes))
    classifier = classifier_of(checkpoint, device)
    with ExitStack() as locks:
        progress.begin(shard, locks)
        left = list(undone(samples, progress.read(), shard))
        _announce(collection, len(samples), len(left), shard, output)
        _judge(classifier, samples, shard, left, progress, stop=unreadable == "error")
    records = progress.read()
    waiting = sum(1 for _ in undone(samples, records, WorkShard()))
    if waiting:
        say(
            f"Shard {shard.number}/{shard.of} is done; {counted(waiting, 'photograph')} of other shards are not. The "
            "last shard, or the same command without --shard, writes the results.\n"
        )
        return
    try:
        with Lock(output / ".results.lock"):
            Results(checkpoint, model, collection, records, wanted, version).write(output, classifier)
    except Taken:
        say("Another process writes the results.\n")


def _announce(collection: Collection, count: int, left: int, shard: WorkShard, output: Path) -> None:
    for reason, ignored in sorted(collection.ignored.items()):
        say(f"Ignored: {ignored} × {reason}\n")
    if collection.heif:
        say(f"Ignored: {len(collection.heif)} × HEIC photograph; install bldml[heif], or export as JPEG\n")
    part = f" in shard {shard.number}/{shard.of}" if shard.of > 1 else ""
    say(
        f"{counted(count, 'photograph')} in {show_path(collection.root)}; {left:,} to judge{part}. Results: "
        f"{show_path(output)}\n"
    )
    sys.stdout.flush()


def _judge(
    classifier: Classifier,
    samples: Sequence[Sample],
    shard: WorkShard,
    left: Sequence[int],
    progress: SurveyProgress,
    *,
    stop: bool,
) -> None:
    """Judge those photographs, and record each as soon as it is done.

    They are judged in the batches in which an uninterrupted survey judges them, because the last digits of a
    probability depend on them.

    Raises:
        DatasetError: A photograph cannot be read, and the command is to stop there.
    """
    stamps: dict[str, tuple[int, int]] = {}
    missing = {samples[index].name for index in left}
    of_shard = (sample for sample in samples if shard.has(sample.name))
    batches = iter(lambda: list(islice(of_shard, BATCH_SIZE)), [])
    judged = [sample for batch in batches for sample in batch if missing.intersection(one.name for one in batch)]

    def ahead() -> Iterator[Sample]:
        for sample in judged:
            stamps[sample.name] = stamp_of(sample.path)  # before it is read, so that a later change is noticed
            yield sample

    found = tqdm(classifier.stream(ahead()), total=len(judged), desc="Survey", unit="photo", leave=False, disable=None)
    for sample, verdict in found:
        stamp = stamps.pop(sample.name)
        if sample.name not in missing:
            continue
        if not isinstance(verdict, UnreadableImage):
            record = Record(stamp, verdict.probability, verdict.band or "", familiar=verdict.is_familiar)
            progress.add(sample.name, record)
            safe_point(kept=1)
            continue
        if stop:
            message = f"The photograph {show_path(sample.path)} cannot be read: {verdict.reason}. "
            message += "--unreadable exclude continues without it. What is done is kept."
            raise DatasetError(message, "survey-photograph-unreadable", path=sample.path, reason=verdict.reason)
        progress.add(sample.name, Record(stamp, reason=verdict.reason))
        safe_point(kept=1)


@dataclass(frozen=True)
class Results:
    """All that is known at the end of a survey."""

    checkpoint: Checkpoint
    model: str  # SHA-256 of the checkpoint
    collection: Collection
    records: Mapping[str, Record]
    wanted: Wanted
    version: str

    @property
    def header(self) -> Header:
        """What the checkpoint says of its classifier."""
        return self.checkpoint.header

    def write(self, output: Path, classifier: Classifier) -> None:
        """Write all files, and print a summary."""
        samples = self.collection.splits["predict"]
        rows, problems = self._rows(samples)
        written = {
            "survey.csv": survey_csv(rows, self.model),
            "survey.geojson": survey_geojson(rows, self.model),
            "survey.qml": qgis_style(rows, self.header.positive_class, self.header.negative_class),
        }
        if self.wanted.sheet:
            root, sheet = self.collection.root, self.wanted.sheet
            written["triage.html"] = triage_page(rows, root, classifier, sheet, self.model, self.version)
        lines = self._summary(rows, problems)
        if self.wanted.grouping:
            rule = rule_of(self.checkpoint)
            written["units.csv"], verdicts = units_csv(rows, rule, self.header.positive_class)
            lines += describe_rule(rule, verdicts, len({row.unit for row in rows} - {""}))
        facts = {
            "bldml": self.version,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "model": self.model,
            "threshold": self.header.threshold,
            "positive_class": self.header.positive_class,
            "positions": self.wanted.positions,
            "unusable_positions": dict(problems),
            "summary": lines,
        }
        written["survey.json"] = json.dumps(facts, indent=2, ensure_ascii=False) + "\n"
        for name, text in written.items():
            safe_point()
            write_atomically(output / name, text)
        if "units.csv" not in written:  # of an earlier command, whose units these photographs have no longer
            remove_table(output / "units.csv", UNIT_COLUMNS, lambda _: True)
        say("".join(f"{line}\n" for line in lines))
        say("".join(f"Wrote {show_path(output / name)}\n" for name in written))

    def _rows(self, samples: Sequence[Sample]) -> tuple[list[SurveyRow], Counter[str]]:
        """Return a row for each photograph, and the reasons why positions cannot be used with their numbers."""
        paths = (sample.path for sample in samples)
        read = tqdm(
            read_origins(paths, processors()), total=len(samples), desc="Times", unit="photo", leave=False, disable=None
        )
        origins = []
        for origin in read:
            safe_point()
            origins.append(origin)
        units = [""] * len(samples)
        if self.wanted.grouping:
            names = [sample.name for sample in samples]
            units = self.wanted.grouping.units(names, [origin.position for origin in origins])
        rows = []
        for sample, origin, unit in zip(samples, origins, units, strict=True):
            record = self.records[sample.name]
            label = "" if record.probability is None else self.header.label_of(record.probability)
            position = origin.position.written(self.wanted.positions) if origin.position else None
            rows.append(
                SurveyRow(
                    *(sample.name, origin.date, position, label, record.probability, record.band),
                    *(record.familiar, unit, record.reason),
                )
            )
        return rows, Counter(origin.problem for origin in origins if origin.problem)

    def _summary(self, rows: Sequence[SurveyRow], problems: Counter[str]) -> list[str]:
        labels = Counter(row.label for row in rows if row.label)
        shown = ", ".join(
            f"{labels[name]:,} {name}" for name in (self.header.positive_class, self.header.negative_class)
        )
        unread = sum(bool(row.unreadable) for row in rows)
        lines = [f"{counted(len(rows), 'photograph')}: predicted {shown}; {unread:,} cannot be read."]
        if bands := Counter(row.band for row in rows if row.band):
            lines.append(
                "Bands: " + ", ".join(f"{bands[b]:,} {b}" for b in ("positive", "uncertain", "negative")) + "."
            )
        if any(row.familiar is not None for row in rows):
            unlike = sum(row.familiar is False for row in rows)
            lines.append(f"Not like the photographs that the classifier learned from: {unlike:,}.")
        if self.wanted.positions == "none":
            lines.append("No position is written (--positions none).")
        else:
            placed = sum(row.position is not None for row in rows)
            note = (
                "rounded to 0.01 degrees, about 1 km, because they are private (--positions exact writes them in full)"
                if self.wanted.positions == "rounded"
                else "in full: think of who will see them"
            )
            lines.append(f"Positions: {placed:,} of {counted(len(rows), 'photograph')}, {note}.")
        if problems:
            reasons = "; ".join(f"{count:,} × {reason}" for reason, count in sorted(problems.items()))
            lines.append(f"Positions that cannot be used: {reasons}.")
        return lines
