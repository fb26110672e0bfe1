"""Settings of runs: in which they differ, and which runs are replicates of one configuration and no rivals."""

import re
from collections.abc import Sequence
from typing import Any

from bldml.io.text import plain
from bldml.run.reader import RunData

# Keys of config.yaml that say where and under which name a run was made, not how.
NOT_SETTINGS = (
    "run_name",
    "config",
    "resume",
    "report",
    "card",
    "output",
    "trainer.default_root_dir",
    "trainer.logger",
)
# Keys in which replicates differ. The first is the one that is set; the others follow from it, or choose a fold.
REPLICATES = ("seed_everything", "model.seed", "data.seed", "data.fold")
MANIFEST = "data.manifest"
_OF_FOLD = re.compile(r"(?P<folder>(.*[/\\])?folds[/\\])fold\d+\.csv")  # as a sweep names them


def settings_of(data: RunData) -> dict[str, str]:
    """Return the settings of a run as text, by dotted key; empty if they are not recorded."""
    return _flat(data.config)


def _flat(settings: dict[str, Any], above: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in settings.items():
        name = f"{above}{key}"
        if name in NOT_SETTINGS:
            continue
        if isinstance(value, dict):
            found |= _flat(value, f"{name}.")
        else:
            found[name] = "null" if value is None else plain(str(value))
    return found


def configuration_of(data: RunData) -> dict[str, str]:
    """Return the settings without seed and fold: equal ones belong to one configuration."""
    found = {key: value for key, value in settings_of(data).items() if key not in REPLICATES}
    if MANIFEST in found and (of_fold := _OF_FOLD.fullmatch(found[MANIFEST])):
        found[MANIFEST] = of_fold["folder"]
    return found


def replicates_differ_in(runs: Sequence[RunData]) -> list[str]:
    """Return in which of seed and fold runs of one configuration differ; empty if they are no replicates of one."""
    found = [settings_of(data) for data in runs]
    if len(runs) < 2 or any(configuration_of(data) != configuration_of(runs[0]) for data in runs):
        return []
    keys = [key for key in (*REPLICATES, MANIFEST) if len({settings.get(key) for settings in found}) > 1]
    return [key for key in keys if not (key in ("model.seed", "data.seed") and "seed_everything" in keys)]
