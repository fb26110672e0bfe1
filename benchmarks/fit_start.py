"""Time and memory of the start of a fit on many small files, up to its first training step.

Draws the files of `audit.py` and starts a fit of a three-layer network on them, first without caches and then with
those of the first start.

    python -m benchmarks.fit_start --files 10000

With `--against FOLDER …`, checkouts of earlier versions, each starts on the same files too, in turn, `--rounds` times.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from benchmarks.audit import HERE, commit, draw_all, watched

RESULT = Path(__file__).parent / "results" / "fit_start.json"

# Run in the fit's process: at the first training step, it writes the processor time so far and ends.
STOPPED = """
import json, os, runpy, sys, time
begun = time.perf_counter()
from pathlib import Path
from lightning.pytorch.loops.optimization import _AutomaticOptimization, _ManualOptimization

def ticks():
    children, spent = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append(int(folder.name))
        spent[int(folder.name)] = sum(map(int, fields[11:15]))
    total, waiting = 0, [os.getpid()]
    while waiting:
        one = waiting.pop()
        total += spent.get(one, 0)
        waiting += children.get(one, [])
    return total

def stop(*_, **__):
    Path(os.environ["STARTED"]).write_text(json.dumps(ticks() / os.sysconf("SC_CLK_TCK")))
    os._exit(0)

_AutomaticOptimization.run = _ManualOptimization.run = stop
runpy.run_module("tests.three_layers", run_name="__main__", alter_sys=True)
"""


def start(root: Path, manifest: Path, work: Path, version: Path) -> dict[str, float | int]:
    """Start one fit of a version and stop it at its first training step."""
    command = [sys.executable, "-c", STOPPED, "fit", f"--data.root={root}", f"--data.manifest={manifest}"]
    command += [f"--data.cache_dir={work / 'cache'}", "--data.positive_class=BLD", "--model.backbone=three_layers"]
    command += ["--model.weights=none", "--model.image_size=64", "--trainer.accelerator=cpu"]
    started = work / "started.json"
    started.unlink(missing_ok=True)
    result = watched(command, version, work, {"STARTED": str(started)})
    if not started.exists():
        raise SystemExit(f"the fit ended with exit code {result['exit_code']} before its first step: {work}")
    return {**result, "processor_seconds": round(json.loads(started.read_text(encoding="utf-8")), 1)}


def measure(count: int, versions: dict[str, Path], rounds: int) -> dict[str, object]:
    """Start a fit of each version without and with caches, in turn."""
    with tempfile.TemporaryDirectory() as folder:
        root, manifest = Path(folder) / "data", Path(folder) / "manifest.csv"
        paths = draw_all(root, count)
        splits = ["train"] * 7 + ["val", "val", "test"]  # both of a planted pair lie in one
        rows = [f"{path},{path.partition('/')[0]},{splits[number // 4 % 10]}" for number, path in enumerate(paths)]
        manifest.write_text("\n".join(["path,label,split", *rows]) + "\n", encoding="utf-8")
        found: dict[str, list[dict[str, object]]] = {name: [] for name in versions}
        for number in range(rounds):
            for name, version in versions.items():
                work = Path(folder) / f"{name}_{number}"
                work.mkdir()
                found[name].append({when: start(root, manifest, work, version) for when in ("first", "with_caches")})
    return {"files": count, "rounds": found}


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=10000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--against", type=Path, nargs="+", default=[], help="checkouts of earlier versions")
    parser.add_argument("--hardware", default="AMD EPYC, 2 cores")
    parser.add_argument("--output", type=Path, default=RESULT)
    arguments = parser.parse_args()
    versions = {commit(one): one.resolve() for one in (HERE, *arguments.against)}
    content = {"hardware": arguments.hardware, "now": commit(HERE)}
    content |= measure(arguments.files, versions, arguments.rounds)
    arguments.output.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
