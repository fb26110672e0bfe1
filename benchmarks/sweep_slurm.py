"""A sweep as a job array on a real Slurm, preempted again and again, and the same sweep here: does anything differ?

    python -m benchmarks.sweep_slurm --photographs FOLDER --weights FILE --output RESULT

The experiment and the comparison are those of `sweep.py`. A Slurm of one node is started for it, as for the tests. Two
runs of the array run at a time; at random moments a job of higher priority takes the node from both.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.sweep import experiment, result_of, start
from bldml.io.documents import dump_yaml
from bldml.sweep.plan import SweepFolder, read_plan
from bldml.sweep.states import is_finished, read_states
from tests.slurm.cluster import CPUS, Cluster
from tests.slurm.fits import own_script
from tests.support import REPOSITORY


def type_sweep(cluster: Cluster, folder: Path) -> str:
    """Submit the runs that are missing; return what the command says."""
    environment = {**cluster.environment, "PYTHONPATH": str(REPOSITORY), "BLDML_ENV": sys.prefix}
    environment |= {"BLDML_CACHE": str(folder / "cache of array"), "OMP_NUM_THREADS": "1"}
    words = ["-m", "bldml", "sweep", "experiment.yaml", "--output=array", "--slurm=own.sbatch"]
    done = subprocess.run([sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    return done.stdout


def running_in(sweep: SweepFolder) -> list[str]:
    """Return the names of the runs that are running."""
    return [one.run.name for one in read_states(sweep, read_plan(sweep)) if one.state == "running"]


def do_with_preemptions(cluster: Cluster, folder: Path, moments: list[float]) -> list[dict[str, Any]]:
    """Do the sweep as an array; a moment is the time from when a run of those after the last preemption has begun."""
    said = type_sweep(cluster, folder)
    sweep, preemptions = SweepFolder(folder / "array"), list[dict[str, Any]]()
    for seconds in moments:
        finished = sum(is_finished(sweep.run(run.name)) for run in read_plan(sweep).runs)
        while not running_in(sweep):
            time.sleep(0.5)
        time.sleep(seconds)
        running = running_in(sweep)
        cluster.preempt().wait_for("COMPLETED")
        preemptions.append({"seconds": round(seconds, 1), "running": running, "finished": finished})
    while not all(is_finished(sweep.run(run.name)) for run in read_plan(sweep).runs):
        time.sleep(1)
    # The last files of a job are written when its run is finished.
    while cluster.command("squeue", "--noheader", "--partition=low").strip():
        time.sleep(1)
    assert "Submitted" in said
    assert "Submitted" not in type_sweep(cluster, folder), "nothing is missing"  # and its tables are written
    return preemptions


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", type=Path, required=True)
    parser.add_argument("--positive_class", default="diseased")
    parser.add_argument("--weights", default="none", help="of mobilenet_v2_x0_35; a file, or none")
    parser.add_argument("--preemptions", type=int, default=3)
    parser.add_argument("--longest", type=float, default=25.0, help="seconds to the moment of a preemption, at most")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    rng, began = random.Random(options.seed), time.monotonic()
    weights = options.weights if options.weights == "none" else str(Path(options.weights).absolute())
    with tempfile.TemporaryDirectory(prefix="bldml-slurm-") as temporary:
        Path(temporary).chmod(0o755)  # munged is another user
        folder = Path(temporary) / "work"
        folder.mkdir()
        (Path(temporary) / "slurm").mkdir()
        content = experiment(options.photographs.absolute(), options.positive_class, weights, options.epochs)
        (folder / "experiment.yaml").write_text(dump_yaml(content))
        for name in ("scripts", "configs"):
            (folder / name).symlink_to(REPOSITORY / name)
        here = {"partition": "low", "cpus-per-task": str(CPUS // 2 - 2), "mem": "0", "time": "60"}
        own_script(folder, here)
        cluster = Cluster(Path(temporary) / "slurm")
        cluster.start()
        try:
            moments = [rng.uniform(0, options.longest) for _ in range(options.preemptions)]
            preemptions = do_with_preemptions(cluster, folder, moments)
        finally:
            cluster.stop()
        if start(folder, "whole", 2).wait():
            sys.exit((folder / "whole.txt").read_text())
        array, whole = SweepFolder(folder / "array"), SweepFolder(folder / "whole")
        own = {"seed": options.seed, "preemptions": preemptions}
        result = result_of(content, array, whole, own, began)
    text = json.dumps(result, indent=2) + "\n"
    print(text)
    if options.output:
        options.output.write_text(text)
    return int(bool(result["differences"]) or not any(one["running"] for one in preemptions))


if __name__ == "__main__":
    sys.exit(main())
