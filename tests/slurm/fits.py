"""Small fits in the queue, through scripts/slurm/, and how to tell whether two of them came to the same."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bldml.dataset.synthetic.leaves import write_leaves
from tests.slurm.cluster import ENDED, Cluster, Job
from tests.support import REPOSITORY

SCRIPTS = REPOSITORY / "scripts" / "slurm"
BACKBONE = "mobilenet_v2_x0_35"
TRAIN_BATCHES, VAL_BATCHES, EPOCHS = 9, 3, 4
# What the lines at the top of the scripts ask for, and this cluster has not.
HERE = ("--account=", "--gres=none", "--mem=0", "--mail-type=NONE", "--time=60", "--cpus-per-task=1")


def settings(leaves: Path, seed: int = 42) -> dict[str, Any]:
    """A fit of seconds in which everything happens that a requeue could disturb: unfreezing, plateau, dropout."""
    return {
        "seed_everything": seed,
        "model": {
            "backbone": BACKBONE,
            "weights": "none",
            "image_size": 64,
            "lr": 4e-3,
            "backbone_lr_factor": 1.0,
            "freeze_batchnorm": False,
        },
        "data": {"root": str(leaves), "positive_class": "BLD", "batch_size": 8, "num_workers": 2},
        "report": False,
        "unfreezing": {"start_epoch": 1, "stages": 2, "every_n_epochs": 1},
        "plateau": {"factor": 0.5, "patience": 0},
        "trainer": {
            "max_epochs": EPOCHS,
            "accelerator": "cpu",
            # Rounds less than the 16 bits of a real fit, and so shows smaller differences.
            "precision": "32-true",
            "callbacks": [{"class_path": "moments.Moments"}],
        },
    }


def own_script(folder: Path, here: Mapping[str, str]) -> None:
    """Write the script of a fit with lines for this cluster; an array takes the lines of the script that it is of."""
    text = (SCRIPTS / "fit.sbatch").read_text().splitlines()
    own = [line for line in text if not line.startswith(("#SBATCH --account", "#SBATCH --gres", "#SBATCH --mail"))]
    own = [line for line in own if not any(line.startswith(f"#SBATCH --{name}=") for name in here)]
    own[1:1] = [f"#SBATCH --{name}={value}" for name, value in here.items()]
    (folder / "own.sbatch").write_text("\n".join(own) + "\n")


@dataclass(frozen=True)
class Fit:
    """A fit in the queue."""

    job: Job
    folder: Path

    @property
    def run(self) -> Path:
        """Its run folder, if it is a new run of the default name."""
        return self.folder / "lightning_logs" / f"{BACKBONE}_{self.job.id.replace('_', '-')}"

    @property
    def moments(self) -> Path:
        """What its callback has written."""
        return self.folder / "moments" / self.job.show()["JobId"]

    def reach(self, moment: str, ranks: int = 1) -> None:
        """Wait until every rank is held at the moment."""
        markers = [self.moments / f"{moment}.{rank}" for rank in range(ranks)]

        def there() -> bool:
            if all(marker.exists() for marker in markers):
                return True
            if (state := self.job.state) in ENDED:
                self.job.fail(f"it is {state} and has not reached {moment}")
            return False

        self.job.wait_until(there, f"it reached {moment}")

    def release(self, moment: str) -> None:
        """Let it go on without a signal that it hears."""
        (self.moments / f"{moment}.go").touch()

    def interrupt(self, *moments: str, ranks: int = 1) -> None:
        """At each moment send the signal that Slurm sends when the wall time is near, and wait for the requeue."""
        before = self.job.restarts
        for number, moment in enumerate(moments, before + 1):
            self.reach(moment, ranks)
            self.job.signal("USR1")
            self.await_restart(number)

    def await_restart(self, number: int) -> None:
        """Wait until it has been put into the queue again so often; fail if it ends instead."""

        def there() -> bool:
            shown = self.job.show()
            if shown["JobState"] in ENDED:
                self.job.fail(f"it is {shown['JobState']} and not in the queue again")
            return int(shown["Restarts"]) >= number

        self.job.wait_until(there, f"it started again for the {number}. time")

    def complete(self) -> "Fit":
        """Wait for the end."""
        self.job.wait_for("COMPLETED")
        return self


class Bench:
    """A folder from which fits are submitted, all into the same lightning_logs/.

    Args:
        cluster: The cluster.
        folder: A folder that does not exist yet.
    """

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster, self.folder = cluster, folder
        folder.mkdir()
        self.leaves = folder / "leaves"
        # 72 for training (9 batches of 8), 18 each for validation (3 batches, the last of 2) and test.
        write_leaves(self.leaves, 54, 96, seed=3, splits={"train": 2 / 3, "val": 1 / 6, "test": 1 / 6})
        (folder / "scripts").symlink_to(REPOSITORY / "scripts")
        (folder / "configs").mkdir()
        (folder / "configs" / "slurm.yaml").symlink_to(REPOSITORY / "configs" / "slurm.yaml")
        # The names that backbones.sbatch and fit.sbatch know.
        for seed, name in ((42, "efficientnet"), (43, "resnet50")):
            (folder / "configs" / f"{name}.yaml").write_text(yaml.safe_dump(settings(self.leaves, seed)))

    def submit(
        self,
        *arguments: str,
        script: str = "fit.sbatch",
        moments: Sequence[str] = (),
        options: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> Fit:
        """Submit a fit.

        Args:
            arguments: Of the script: a configuration, options of bldml.
            script: Which of scripts/slurm/.
            moments: Where it is to wait for a signal.
            options: For sbatch.
            environment: Further variables.
        """
        variables = {
            "BLDML_ENV": sys.prefix,
            "PYTHONPATH": str(Path(__file__).parent),
            "MOMENTS_FOLDER": str(self.folder / "moments"),
            "MOMENTS": " ".join(moments),
        }
        job = self.cluster.submit(
            SCRIPTS / script, *arguments, "--trust_config", options=(*HERE, "--partition=normal", *options),
            environment={**variables, **(environment or {})}, folder=self.folder,
        )  # fmt: skip
        return Fit(job, self.folder)
