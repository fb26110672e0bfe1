"""One flipped bit in each file of a run folder, a survey and an audit: refused, said, or an equal result.

    python -m benchmarks.flips [--bits 200] [--seed 0] --output benchmarks/results/flips.json

A file of a run is read as report, compare and `bldml.Run` read it: the damaged file is refused, or is named as changed,
or all that was read is equal to what was read before, to 12 digits, and but for the card, which may be corrected, and
the names in the ledger. The files of a survey and an audit are read by the command that resumes there, whose results
must be equal. Checkpoints, weights and exported files have tests of their own.
"""

import argparse
import json
import os
import random
import re
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from benchmarks.faults import FIT, RUN
from bldml.dataset.synthetic.leaves import write_leaves
from bldml.errors import BldmlError
from bldml.report.run_claims import changed_files
from bldml.run.evidence import evidence_of_run
from bldml.run.folder import RunFolder
from bldml.run.gallery import read_gallery
from bldml.run.reader import read_run
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
    shown = (repr(replace(data, config={**data.config, "card": None})), repr(looks), repr(pictures))
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
        content, outcomes, found = path.read_bytes(), Counter[str](), list[str]()
        for bit, changed in flips(content, bits, random.Random(f"{seed} {name}")):
            path.write_bytes(changed)
            try:
                now, said = read_by_reports(run)
                outcome = "said" if said else "equal" if now == before else "silent"
            except BldmlError:
                outcome = "refused"
            except Exception as error:
                outcome = f"traceback: {error!r}"
            outcomes[outcome.split(":")[0]] += 1
            if outcome.startswith(("silent", "traceback")):
                found.append(f"bit {bit}: {outcome}")
        path.write_bytes(content)
        yield name, outcomes, found


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
        for kind, found in (
            ("survey", of_resumed(world, folder / "a", survey, "out/progress.jsonl", few, options.seed)),
            ("audit", of_resumed(world, folder / "b", audit, "out/examined.jsonl", few, options.seed)),
            ("run", of_run(RunFolder(world / RUN), options.bits, options.seed)),
        ):
            for name, outcomes, findings in found:
                results[f"{kind} {name}"] = {**outcomes, "findings": findings}
                sys.stderr.write(f"{kind} {name} {json.dumps(results[f'{kind} {name}'])[:2000]}\n")
                about = {"python": sys.version.split()[0], "seed": options.seed, "bits": options.bits, "files": results}
                options.output.write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
