"""A signal at each 50 ms of the life of a fit: its exit code, its folder, and what it is once it was resumed.

    python -m benchmarks.interrupt_grid [--step 0.05] [--sample 20] --output benchmarks/results/interrupt_grid.json

The moments are counted in processor time, which other work on the machine does not change. Two lives are tried: of a
process that is forked after everything was imported, from the command line to its end; and of one from exec on, as the
job script starts it, until it has a run folder. A fit must end with 0, or with 128 and the signal's number; then it has
either no run folder or one that can be resumed. Then the fit is resumed, or typed again. Weights, optimizer,
history.csv and predictions must be equal to the last bit to those of a run that was left in peace.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import tests.three_layers  # noqa: F401  # first, because it adds a backbone
from benchmarks.interrupt import content
from bldml.dataset.synthetic.leaves import write_leaves
from bldml.run.folder import RunFolder
from tests.faults.commands import TEMPORARY, import_everything, last_line, run_forked
from tests.support import REPOSITORY, THREE_LAYERS

RUN = "lightning_logs/run"
FIT = ("fit", *THREE_LAYERS, "--run_name=run", "--trainer.max_epochs=2", "--model.image_size=32")
KINDS = (signal.SIGTERM, signal.SIGUSR1)
GUARD = ("env", "--block-signal=TERM,USR1,USR2")
TICK_S = 1 / os.sysconf("SC_CLK_TCK")
LIMIT_S = 300.0


class Life:
    """A fit in a folder of its own, which is made anew for each trial.

    Args:
        folder: An empty folder.
        from_exec: Whether the process begins with exec; else it is forked with everything imported.
    """

    def __init__(self, folder: Path, *, from_exec: bool) -> None:
        self.from_exec, self.work = from_exec, folder / "work"
        write_leaves(folder / "leaves", images_per_class=10, size=48, seed=1)
        os.environ["BLDML_CACHE"] = str(self.work / "cache")
        self.words = (*FIT, f"--data.root={folder / 'leaves'}", "--trainer.logger=false")
        self.reference: dict[str, Any] = {}
        code, self.seconds, said = self._run(self.words, None)
        assert code == 0, said
        self.reference = content(RunFolder(self.work / RUN))

    def _run(self, words: Sequence[str], kind: signal.Signals | None, moment: float = 0.0) -> tuple[int, float, str]:
        """Run a fit, with a signal at that moment; return exit code, processor time, and what it said."""
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir()
        log = self.work.parent / "said.txt"
        process = self._start(words, log)
        end, spent = time.monotonic() + LIMIT_S, 0.0
        while (found := os.waitpid(process, os.WNOHANG))[0] == 0:
            spent = max(spent, processor_time(process))
            if kind is not None and spent >= moment:
                os.kill(process, kind)
                kind = None
            if self.from_exec and self.reference == {} and (self.work / RUN).exists():
                os.kill(process, signal.SIGKILL)  # the rest of its life is the other one's
            if time.monotonic() > end:
                os.kill(process, signal.SIGKILL)
            time.sleep(0.002)
        return os.waitstatus_to_exitcode(found[1]), spent, log.read_text(errors="replace")

    def _start(self, words: Sequence[str], log: Path) -> int:
        if self.from_exec:
            command = [*GUARD, sys.executable, "-m", "tests.three_layers", *words]
            variables = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
            with log.open("w") as out:
                return subprocess.Popen(command, cwd=self.work, env=variables, stdout=out, stderr=out).pid
        sys.stdout.flush()
        sys.stderr.flush()
        signal.pthread_sigmask(signal.SIG_BLOCK, KINDS)  # as the job script does: they wait from the first moment
        child = os.fork()
        if child == 0:
            _live(words, self.work, log)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, KINDS)
        return child

    def try_at(self, moment: float, kind: signal.Signals) -> tuple[str, list[str]]:
        """Return what became of a fit that got a signal at a moment, and what is not as it must be."""
        code, _, said = self._run(self.words, kind, moment)
        run = RunFolder(self.work / RUN)
        state = "no run folder" if not run.path.exists() else "run folder without last.ckpt"
        state = "last.ckpt" if run.last_checkpoint.exists() else state
        found = [] if code in (0, 128 + kind) else [f"exit code {code}: {last_line(said)}"]
        if "Traceback" in said:
            found.append(f"a traceback: {last_line(said)}")
        left = (path for path in (self.work / "lightning_logs").rglob("*") if path.name.endswith(TEMPORARY))
        found += [f"{path.name} is left" for path in left]
        if code:
            again = ("fit", "--resume", RUN) if run.path.exists() else self.words
            resumed = run_forked(again, self.work, None)
            if resumed.code:
                return f"{code}, {state}", [*found, f"resuming ends with {resumed.code}: {last_line(resumed.said)}"]
        now = content(run)
        keys = sorted(self.reference.keys() | now.keys())
        found += [f"{key} differs" for key in keys if self.reference.get(key) != now.get(key)]
        return f"{code}, {state}", found


def _live(words: Sequence[str], folder: Path, log: Path) -> None:
    """Be the fit; never returns. Signals wait until it listens, as after `python -m bldml`."""
    code = 99
    try:
        os.chdir(folder)
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, 1)
        os.dup2(file, 2)
        sys.stdout, sys.stderr = (open(number, "w", buffering=1, closefd=False) for number in (1, 2))  # noqa: SIM115
        from bldml.cli import main

        code = main(list(words))
    except SystemExit as stop:
        code = int(stop.code or 0)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def processor_time(process: int) -> float:
    """Return the processor time of a process in seconds."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) * TICK_S


def grid(life: Life, step: float, kinds: Sequence[signal.Signals]) -> list[tuple[float, signal.Signals]]:
    """Return the moments of a life, each with each of the signals; from exec on with one of them in turn."""
    moments = [number * step for number in range(int(life.seconds / step) + 1)]
    if life.from_exec:
        return [(moment, kinds[number % len(kinds)]) for number, moment in enumerate(moments)]
    return [(moment, kind) for moment in moments for kind in kinds]


def try_life(
    life: Life, step: float, sample: int, seed: int, kinds: Sequence[signal.Signals], note: Callable[[str], object]
) -> dict[str, Any]:
    """Return the numbers of a life and all findings."""
    trials = grid(life, step, kinds)
    if sample and sample < len(trials):
        trials = sorted(random.Random(seed).sample(trials, sample))
    became: dict[str, Counter[str]] = {kind.name: Counter() for kind in KINDS}
    findings = []
    for number, (moment, kind) in enumerate(trials):
        state, found = life.try_at(moment, kind)
        became[kind.name][state] += 1
        findings += [f"{kind.name} after {moment:.2f} s: {one}" for one in found]
        note(f"{number + 1}/{len(trials)} {kind.name} {moment:.2f} s: {state} {found or ''}\n")
    return {
        "processor_seconds": round(life.seconds, 2),
        "step": step,
        "signals": len(trials),
        "became": {kind: dict(counts) for kind, counts in became.items()},
        "things_compared": len(life.reference),
        "findings": findings,
    }


def try_lives(names: Sequence[str], options: argparse.Namespace) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each life with what was found."""
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder).resolve()
            (place / "forked").mkdir()
            life = Life(place / "forked", from_exec=False)
            if name == "exec":
                life = _from_exec(place / "exec", life)
            yield (
                name,
                try_life(
                    life,
                    options.step,
                    options.sample,
                    options.seed,
                    KINDS[:: -1 if options.other else 1],
                    sys.stderr.write,
                ),
            )


def _from_exec(folder: Path, forked: Life) -> Life:
    folder.mkdir()
    life = Life.__new__(Life)
    life.from_exec, life.work, life.reference = True, forked.work, {}
    life.words = forked.words
    _, life.seconds, _ = life._run(life.words, None)
    life.reference = forked.reference
    return life


def main() -> int:
    """Try the lives, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lives", nargs="+", default=["forked", "exec"], choices=["forked", "exec"])
    parser.add_argument("--step", type=float, default=0.05)
    parser.add_argument("--sample", type=int, default=0, help="signals of each life; 0 for all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--other", action="store_true", help="begin with the other signal")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    import_everything()
    failed = False
    for name, result in try_lives(options.lives, options):
        old = json.loads(options.output.read_text())["lives"] if options.output.exists() else {}
        about = {"python": sys.version.split()[0], "seed": options.seed, "lives": {**old, name: result}}
        options.output.write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        failed |= bool(result["findings"])
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
