"""Two commands that write the same output at the same time, again and again: the end must be that of some order.

    python -m benchmarks.together [--pairs audit …] [--times 10] [--seed 0] --output benchmarks/results/together.json

The second command starts at a drawn moment of the first. Each must end with exit code 0, or with one that says why. All
files at the end must be those of one of the commands alone, or of both one after the other in either order.
"""

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.faults import FIT, RUN, _serve_weights, _write_review
from bldml.dataset.synthetic.leaves import write_leaves
from bldml.io.locks import OUTPUT_LOCK
from tests.faults.commands import CACHE, COUNTING, Ended, digests_of, import_everything, last_line, run_forked
from tests.faults.commands import start_forked as start

Words = tuple[str, ...]
PREDICT, AUDIT = ("predict", RUN), ("--power=off", "--look_alikes=off", "--workers=1", "--output=out")
FIT_LEAVES = (*FIT, "--data.root=LEAVES", "--trainer.logger=false")
DEMO = ("demo", "drawn", "--images_per_class=5", "--size=48")
NO_WORKERS = "--data.num_workers=0"
# Files that say when and how something was done; files.csv has the SHA-256 of environment.json, which says it too.
TOLD = (*COUNTING, "log.txt", "said.txt", "tables/run/files.csv")
# Two commands each; LEAVES and MORE are two folders of photographs.
PAIRS: dict[str, tuple[Words, Words]] = {
    "split": (("split", "LEAVES", "--output=splits.csv"), ("split", "MORE", "--output=splits.csv", "--seed=1")),
    "demo": ((*DEMO, "--seed=1"), (*DEMO, "--seed=2")),
    "prefetch": (("prefetch", "--backbone=resnet50", "--to=home"),) * 2,
    "audit": (("audit", "LEAVES", *AUDIT),) * 2,
    "audit of others": (("audit", "LEAVES", *AUDIT), ("audit", "MORE", *AUDIT)),
    "fit": (FIT_LEAVES, (*FIT_LEAVES, "--seed_everything=7")),
    "resume": (("fit", "--resume", RUN),) * 2,
    "survey": (("survey", RUN, "LEAVES", "--output=out", "--device=cpu"),) * 2,
    "survey of others": (
        ("survey", RUN, "LEAVES", "--output=out", "--device=cpu"),
        ("survey", RUN, "MORE", "--output=out", "--device=cpu"),
    ),
    "review": (
        ("review", "confirmed.csv", RUN, "more", "--output=out"),
        ("review", "confirmed.csv", RUN, "more", "--output=out", "--test=0"),
    ),
    "predict": ((*PREDICT, "LEAVES", "--output=out", NO_WORKERS),) * 2,
    "predict others": (
        (*PREDICT, "LEAVES", "--output=out", NO_WORKERS),
        (*PREDICT, "MORE", "--output=out", NO_WORKERS),
    ),
    "test": (("test", RUN, NO_WORKERS, "--report=false"),) * 2,
    "test others": (
        ("test", RUN, "MORE", "--name=site", NO_WORKERS, "--report=false"),
        ("test", RUN, "THIRD", "--name=site", NO_WORKERS, "--report=false"),
    ),
    "test and report": (("test", RUN, NO_WORKERS), ("report", RUN)),
    "report": (("report", RUN),) * 2,
    "compare": (
        ("compare", RUN, "lightning_logs/other", "--output=out"),
        ("compare", "lightning_logs/other", RUN, "--output=out"),
    ),
    "compare and report": (("compare", RUN, "lightning_logs/other", "--output=out"), ("report", RUN)),
    "resume and report": (("fit", "--resume", RUN), ("report", RUN)),
    "resume and test": (("fit", "--resume", RUN), ("test", RUN, NO_WORKERS, "--report=false")),
    "review and survey": (
        ("review", "confirmed.csv", RUN, "more", "--output=out"),
        ("survey", RUN, "LEAVES", "--output=surveyed", "--device=cpu"),
    ),
    "audit and fit": (("audit", "LEAVES", *AUDIT), FIT_LEAVES),
    "split and fit": (("split", "LEAVES", "--output=splits.csv"), FIT_LEAVES),
    "prefetch and fit": (("prefetch", "--backbone=resnet50", "--to=home"), FIT_LEAVES),
    "survey and audit": (
        ("survey", RUN, "LEAVES", "--output=surveyed", "--device=cpu"),
        ("audit", "LEAVES", *AUDIT),
    ),
    "explain": (("explain", RUN, "LEAVES", "--output=out", "--device=cpu"),) * 2,
    "explain others": (
        ("explain", RUN, "LEAVES", "--output=out", "--device=cpu"),
        ("explain", RUN, "MORE", "--output=out", "--device=cpu"),
    ),
    "export": (("export", RUN, "--output=out", "--photographs=LEAVES"),) * 2,
}
UNTRAINED = ("split", "demo", "prefetch", "audit", "fit")


class Together:
    """A pair of commands in copies of one folder.

    Args:
        name: Of the pair.
        folder: An empty folder.
        leaves: Folders of photographs by the words of `PAIRS`.
    """

    def __init__(self, name: str, folder: Path, leaves: dict[str, Path]) -> None:
        self.world, self.work = folder / "world", folder / "work"
        self.world.mkdir(parents=True)
        os.environ["BLDML_CACHE"] = str(self.work / CACHE)
        first, second = ([_filled(word, leaves) for word in words] for words in PAIRS[name])
        self.words = first, second
        if name.partition(" ")[0] not in UNTRAINED:
            made = run_forked([*FIT, f"--data.root={leaves['LEAVES']}", "--trainer.logger=false"], self.world, None)
            assert made.code == 0, made.said
        if name in ("compare", "compare and report"):
            shutil.copytree(self.world / RUN, self.world / "lightning_logs/other")
            (self.world / "lightning_logs/other/evaluations/test/metrics.csv").unlink()  # so that they differ
        if name in ("review", "review and survey"):
            _write_review(self.world)
        if name.startswith("prefetch"):
            _serve_weights()
        orders = ([first], [second], [first, second], [second, first])
        began = time.monotonic()
        states = [self._in_order(order) for order in orders]
        self.seconds = (time.monotonic() - began) / 6
        again = [self._in_order(order) for order in orders]
        # Files that differ between two runs say when they were written.
        timed = {path for one, two in zip(states, again, strict=True) for path in one if one[path] != two.get(path)}
        self.timed = {path for path in timed if not path.endswith(".csv")}
        self.states = [self._stable(state) for state in states]

    def _stable(self, state: dict[str, str]) -> dict[str, str]:
        return {path: "" if path in self.timed or path.endswith(TOLD) else digest for path, digest in state.items()}

    def _reset(self) -> None:
        shutil.rmtree(self.work, ignore_errors=True)
        shutil.copytree(self.world, self.work, symlinks=True)

    def _in_order(self, order: Sequence[Sequence[str]]) -> dict[str, str]:
        self._reset()
        ended = [run_forked(words, self.work, None) for words in order]
        assert ended[0].code == 0, ended[0].said
        return digests_of(self.work)

    def try_once(self, delay: float) -> tuple[list[int], list[str]]:
        """Return the exit codes of both, and what is not as it must be."""
        self._reset()
        first = start(self.words[0], self.work, None, "first")
        time.sleep(delay)
        ended = [wait() for wait in (start(self.words[1], self.work, None, "second"), first)][::-1]
        found = [one for each in ended for one in _told(each)]
        if all(one.code for one in ended):
            found.append("neither has done it: " + "; ".join(last_line(one.said) for one in ended))
        state = self._stable(digests_of(self.work))
        if state not in self.states:
            near = min(self.states, key=lambda one: len(one.items() ^ state.items()))
            found.append(f"another end than in order: {sorted({path for path, _ in near.items() ^ state.items()})}")
        found += [f"{path} is left" for path in state if path.endswith(OUTPUT_LOCK)]
        return [one.code for one in ended], found


def _filled(word: str, leaves: dict[str, Path]) -> str:
    for key, folder in leaves.items():
        word = word.replace(key, str(folder))
    return word


def _told(ended: Ended) -> list[str]:
    found = [f"ends with {ended.code}"] if ended.code not in (0, 1, 2) else []
    if "Traceback" in ended.said:
        found.append(f"a traceback: {last_line(ended.said)}")
    if ended.code and "bldml: error: " not in ended.said:
        found.append("no error is told")
    return found


def try_all(names: Sequence[str], times: int, seed: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each pair with its numbers and findings."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place).resolve()
        leaves = {name: folder / name.lower() for name in ("LEAVES", "MORE", "THIRD")}
        for number, one in enumerate(leaves.values()):
            write_leaves(one, images_per_class=10, size=48, seed=1 + number)
        for name in names:
            pair, chance = Together(name, folder / name.replace(" ", "_"), leaves), random.Random(f"{seed} {name}")
            ended: Counter[str] = Counter()
            findings: list[str] = []
            for _ in range(times):
                delay = chance.uniform(0, pair.seconds) if chance.random() < 0.7 else 0.0
                codes, found = pair.try_once(delay)
                ended[" and ".join(map(str, codes))] += 1
                findings += [f"after {delay:.2f} s: {one}" for one in found]
            yield name, {"seed": seed, "times": times, "exit_codes": dict(ended), "findings": findings}


def main() -> None:
    """Try the pairs, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", nargs="+", default=list(PAIRS), choices=PAIRS)
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    import_everything()
    for name, result in try_all(options.pairs, options.times, options.seed):
        sys.stderr.write(f"{name} {json.dumps(result)}\n")
        old = json.loads(options.output.read_text())["pairs"] if options.output.exists() else {}
        both = {**old, name: result}
        about = {"python": sys.version.split()[0], "pairs": {key: both[key] for key in PAIRS if key in both}}
        options.output.write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
