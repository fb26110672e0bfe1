"""One flipped bit in each file of a run folder, a survey, an audit, a sweep, an ensemble and an export.

Each must be refused or said, or give an equal result.

    python -m benchmarks.flips [--bits 200] [--seed 0] --output benchmarks/results/flips.json

A file of a run is read as report, compare and `bldml.Run` read it: the damaged file is refused, or is named as changed,
or all that was read is equal to what was read before, to 12 digits, but for the names in the ledger, and the card and
the place of the photographs, which may be corrected. The files of a survey and an audit are read by the command that
resumes there, whose results must be equal. Those of a sweep are read as `sweep`, `--collect`, `--open_test` and
`ensemble` read them; what it writes anew each time (tables, pooled predictions, page, figures) is read by none of them.
The page of an export is read as its scripts read their parts, and by its list of checksums. Checkpoints of runs and
weights have tests of their own.
"""

import argparse
import base64
import gzip
import hashlib
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from benchmarks.faults import FIT, RUN
from bldml.dataset.synthetic.leaves import write_leaves
from bldml.errors import BldmlError
from bldml.inference.exported import read_exported
from bldml.report.run_claims import changed_files
from bldml.run.evidence import evidence_of_run
from bldml.run.folder import RunFolder
from bldml.run.gallery import read_gallery
from bldml.run.reader import read_run
from bldml.sweep.experiment import read_experiment
from bldml.sweep.plan import SweepFolder, check_manifests, ensembles_elsewhere, opened_note, read_plan
from bldml.sweep.planning import plan_experiment
from bldml.sweep.records import write_record
from bldml.sweep.results import claims
from bldml.sweep.results.assessment import assess_experiment
from bldml.sweep.results.gathering import gather
from bldml.training.checkpoint import read_checkpoint
from tests.faults.commands import CACHE, digests_of, import_everything, last_line, run_forked

# No command reads them, or TensorBoard alone does; nor the figures and tables of a report.
UNREAD = ("log.txt", "report.html", ".lock", "said.txt")


def read_by_reports(run: RunFolder) -> tuple[object, list[str]]:
    """Return all that a report reads of a run's tables and documents, and what it says was changed."""
    data = read_run(run)
    evidence = evidence_of_run(data)
    pictures = [read_gallery(one.folder) for one in data.evaluations]
    said = changed_files(evidence)
    said += [f"{run.name}: {run.unreadable} lines of the ledger" for run in data.log_folder if run.unreadable]
    looks = [(one.time, one.split, one.dataset_fingerprint, one.n) for one in data.log_folder[0].entries or ()]
    of_data = data.config.get("data")
    of_data = {key: one for key, one in of_data.items() if key not in ("root", "manifest")} if of_data else None
    shown = (repr(replace(data, config={**data.config, "card": None, "data": of_data})), repr(looks), repr(pictures))
    return [_rounded(text) for text in shown], said


def _rounded(text: str) -> str:
    """Return a text with the numbers to 12 digits, as digests have them: a spreadsheet keeps no more than 15."""
    return re.sub(r"\d+\.\d{12,}", lambda found: f"{float(found[0]):.12g}", text)


def flips(content: bytes, bits: int, chance: random.Random) -> Iterator[tuple[int, bytes]]:
    """Yield positions of bits and the content with that bit flipped: all, or as many as are asked for."""
    everywhere = range(8 * len(content))
    for bit in chance.sample(everywhere, min(bits, len(everywhere))):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        yield bit, bytes(changed)


def of_run(run: RunFolder, bits: int, seed: int) -> Iterator[tuple[str, Counter[str], list[str]]]:
    """Yield each file of a run with the outcomes and the findings."""
    before, said = read_by_reports(run)
    assert not said, said
    for path in sorted(path for path in run.path.rglob("*") if path.is_file()):
        name = path.relative_to(run.path).as_posix()
        if (
            name.endswith((".ckpt", ".npz"))
            or name in UNREAD
            or "events.out" in name
            or name.startswith(("figures/", "tables/"))
        ):
            continue
        yield name, *_outcomes(path, before, partial(read_by_reports, run), bits, random.Random(f"{seed} {name}"))


def _outcomes(
    path: Path, before: object, read: Callable[[], tuple[object, list[str]]], bits: int, chance: random.Random
) -> tuple[Counter[str], list[str]]:
    """Return what a reader says behind each of some flipped bits of a file, and what is not as it must be."""
    content, outcomes, found = path.read_bytes(), Counter[str](), list[str]()
    for bit, changed in flips(content, bits, chance):
        path.write_bytes(changed)
        try:
            now, said = read()
            outcome = "said" if said else "equal" if now == before else "silent"
        except BldmlError:
            outcome = "refused"
        except Exception as error:
            outcome = f"traceback: {error!r}"
        outcomes[outcome.split(":")[0]] += 1
        if outcome.startswith(("silent", "traceback")):
            found.append(f"bit {bit}: {outcome}")
    path.write_bytes(content)
    return outcomes, found


def of_resumed(
    world: Path, work: Path, words: list[str], name: str, bits: int, seed: int
) -> Iterator[tuple[str, Counter[str], list[str]]]:
    """Yield the state file of a command with the outcomes of the same command behind flipped bits."""
    shutil.copytree(world, work)
    ended = run_forked(words, work, None)
    assert ended.code == 0, ended.said
    whole, content = _tables(work), (work / name).read_bytes()
    outcomes, found = Counter[str](), list[str]()
    for bit, changed in flips(content, bits, random.Random(f"{seed} {name}")):
        (work / name).write_bytes(changed)
        ended = run_forked(words, work, None)
        outcome = "refused" if ended.code in (1, 2) else "equal" if _tables(work) == whole else "silent"
        if "Traceback" in ended.said or ended.code not in (0, 1, 2):
            outcome = "traceback"
        outcomes[outcome] += 1
        if outcome in ("silent", "traceback"):
            found.append(f"bit {bit}: {outcome}: {last_line(ended.said)}")
    yield name, outcomes, found


def _tables(work: Path) -> dict[str, str]:
    return {path: one for path, one in digests_of(work).items() if path.startswith("out/") and path.endswith("csv")}


BASE = """
model: {backbone: three_layers, weights: none, image_size: 64}
data: {root: leaves, positive_class: BLD, num_workers: 0, batch_size: 8}
trainer: {max_epochs: 1, accelerator: cpu}
report: false
"""
EXPERIMENT = (
    "base: base.yaml\nconfigurations: [{name: a}, {name: b, model.lr: 0.01}]\nseeds: [1]\nfolds: 2\nchosen: a\n"
)


def make_sweep(folder: Path) -> SweepFolder:
    """Do a sweep of four runs, make an ensemble elsewhere and two exports, and note that the test set is opened."""
    (folder / "base.yaml").write_text(BASE)
    (folder / "tiny.yaml").write_text(EXPERIMENT)
    sweep = SweepFolder(folder / "sweeps" / "tiny")
    run = str(sweep.run("a_seed1_fold0").path)
    for words in (
        ["tests.sweep.forking", "sweep", "tiny.yaml"],
        ["tests.three_layers", "ensemble", "sweeps/tiny/a", "--output=ensemble"],
        ["tests.three_layers", "export", run, "--output=onnx", "--photographs=leaves"],
        ["tests.three_layers", "export", run, "--output=web", "--format=web", "--photographs=leaves"],
    ):
        subprocess.run([sys.executable, "-m", *words], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    write_record(sweep.opened, {"schema": 1, "configuration": "a", "how": "beforehand", "time": "2026-01-02"})
    return sweep


def read_by_sweeps(sweep: SweepFolder) -> tuple[object, list[str]]:
    """Return all that the commands read of a sweep, and what they say was changed."""
    plan = read_plan(sweep)
    check_manifests(sweep, plan, plan.digests)
    findings = assess_experiment(gather(sweep, plan, {}))
    experiment = findings.experiment
    said = [*claims.changed(findings), claims.missing(experiment), claims.not_pooled(experiment)]
    said = [text for text in said if text]
    pooled = [(one.name, one.left_out, one.result and repr(one.result)) for one in experiment.configurations]
    return (repr(plan), opened_note(sweep, plan), ensembles_elsewhere(sweep), pooled), said


def read_by_planning(sweep: SweepFolder) -> tuple[object, list[str]]:
    """Return the files that the next `sweep` starts its runs with, which it writes where they differ."""
    plan_experiment(read_experiment(Path("tiny.yaml")), sweep)
    return [path.read_bytes() for path in sorted((*sweep.base.iterdir(), *sweep.task("a").parent.iterdir()))], []


def read_by_page(path: Path) -> tuple[object, list[str]]:
    """Return a part of the page as its script unpacks it; a BldmlError stands for what the page says."""
    found = re.search(r'= "([^"]*)"', path.read_text(errors="replace"))
    try:
        return gzip.decompress(base64.b64decode(found[1] if found else "", validate=True)), []
    except (ValueError, EOFError, OSError, zlib.error) as error:
        raise BldmlError(str(error), "page-damaged") from error


def read_by_checksums(folder: Path) -> tuple[object, list[str]]:
    """Return what `sha256sum -c` would say of an exported folder."""
    lines = (folder / "SHA256SUMS").read_text(errors="replace").splitlines()
    listed = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    names = sorted(path.name for path in folder.iterdir() if path.name != "SHA256SUMS")
    digests = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}
    return None, [name for name in {*names, *listed} if listed.get(name) != digests.get(name)]


def of_files(
    folder: Path, names: list[str], read: Callable[[Path], tuple[object, list[str]]], bits: int, seed: int
) -> Iterator[tuple[str, Counter[str], list[str]]]:
    """Yield files with the outcomes of a reader, which gets their path, behind flipped bits."""
    for name in names:
        path = folder / name
        before, said = read(path)
        assert not said, said
        yield name, *_outcomes(path, before, partial(read, path), bits, random.Random(f"{seed} {name}"))


def of_sweep(sweep: SweepFolder, bits: int, seed: int) -> Iterator[tuple[str, Counter[str], list[str]]]:
    """Yield the files of a sweep and of one of its runs."""
    root = sweep.path
    records = [
        "plan.json",
        "opened.json",
        "ensembles.json",
        *(f"folds/{one}.csv" for one in ("fold0", "fold1", "final")),
    ]
    test = "lightning_logs/b_seed1_fold1/evaluations/test"
    records += [f"{test}/{name}" for name in ("predictions.csv", "metrics.json", "provenance.json")]
    records += [f"lightning_logs/b_seed1_fold1/{name}" for name in ("config.yaml", "splits.csv", "environment.json")]
    yield from of_files(root, records, lambda _: read_by_sweeps(sweep), bits, seed)
    started = sorted(path.relative_to(root).as_posix() for path in (*root.glob("base/*"), *root.glob("tasks/*")))
    yield from of_files(root, started, lambda _: read_by_planning(sweep), bits, seed)


def of_exports(folder: Path, bits: int, seed: int) -> Iterator[tuple[str, Counter[str], list[str]]]:
    """Yield the files of an ensemble's checkpoint and of two exports."""

    def checkpoint(path: Path) -> tuple[object, list[str]]:
        read = read_checkpoint(path)
        return (repr(read.header), {name: one.numpy().tobytes() for name, one in read.state_dict.items()}), []

    yield from of_files(folder, ["ensemble/checkpoints/best.ckpt"], checkpoint, bits, seed)
    yield from of_files(
        folder, ["onnx/model.onnx"], lambda path: (repr(read_exported(path).description), []), bits, seed
    )
    yield from of_files(folder, ["web/settings.js", "web/model.js"], read_by_page, bits, seed)
    for kind in ("onnx", "web"):
        names = [f"{kind}/{path.name}" for path in sorted((folder / kind).iterdir())]
        yield from of_files(folder, names, lambda path: read_by_checksums(path.parent), bits, seed)


def main() -> None:
    """Flip the bits, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bits", type=int, default=200, help="of each file of a run; a tenth of a resumed command")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    import_everything()
    results = {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place).resolve()
        leaves, others, world = folder / "leaves", folder / "site", folder / "world"
        write_leaves(leaves, images_per_class=10, size=48, seed=1)
        write_leaves(others, images_per_class=8, size=48, seed=5)
        world.mkdir()
        os.environ["BLDML_CACHE"] = str(folder / CACHE)
        for words in (
            [*FIT, f"--data.root={leaves}", "--trainer.logger=false"],
            ["test", RUN, str(others), "--data.num_workers=0"],
        ):
            ended = run_forked(words, world, None)
            assert ended.code == 0, ended.said
        survey = ["survey", RUN, str(leaves), "--output=out", "--device=cpu", "--sheet=0"]
        audit = ["audit", str(leaves), "--output=out", "--power=off", "--look_alikes=off", "--workers=1"]
        few = options.bits // 10
        os.chdir(folder)
        sweep = make_sweep(folder)
        for kind, found in (
            ("sweep", of_sweep(sweep, options.bits, options.seed)),
            ("export", of_exports(folder, options.bits, options.seed)),
            ("ensemble", of_run(RunFolder(folder / "ensemble"), options.bits, options.seed)),
            ("survey", of_resumed(world, folder / "a", survey, "out/progress.jsonl", few, options.seed)),
            ("audit", of_resumed(world, folder / "b", audit, "out/examined.jsonl", few, options.seed)),
            ("run", of_run(RunFolder(world / RUN), options.bits, options.seed)),
        ):
            for name, outcomes, findings in found:
                label = f"{kind} {name}" if f"{kind} {name}" not in results else f"{kind} {name} by SHA256SUMS"
                results[label] = {**outcomes, "findings": findings}
                sys.stderr.write(f"{label} {json.dumps(results[label])[:2000]}\n")
                about = {"python": sys.version.split()[0], "seed": options.seed, "bits": options.bits, "files": results}
                options.output.write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
