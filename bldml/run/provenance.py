"""The origin of an evaluation, `provenance.json`, and its role; the starts of a training and their conditions."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal, get_args

from bldml.io.text import plain
from bldml.run.digests.content import digests_in
from bldml.run.photographs import PhotographRow

Role = Literal["training", "validation", "test", "external", "mixed", "unlabelled", "unknown"]
ROLES: dict[str, Role] = {"train": "training", "val": "validation", "test": "test"}
"""The role of each split."""
DIGEST_DIGITS = 16  # hexadecimal digits of a SHA-256: 64 bits distinguish 100,000 photographs
CONDITIONS = {
    "git_commit": "git commit",
    "code": "code of bldml",
    "device": "device",
    "gpu": "GPU",
    "cuda": "CUDA",
    "cudnn": "cuDNN",
    "cpu": "CPU",
    "cpu_threads": "CPU threads",
    "precision": "precision",
    "processes": "processes",
    "nodes": "nodes",
}
"""Names of the conditions on which the last bits of a result depend, beside the versions of software, by key."""


@dataclass(frozen=True)
class Stretch:
    """A part of a training, from one start of its command to the next.

    Attributes:
        step: Optimizer step from which it went on.
        time: ISO 8601, UTC; empty if not recorded.
        host: Name of the machine; empty if not recorded.
        conditions: Versions and the `CONDITIONS`, by their names; those that are not recorded are missing.
    """

    step: int
    time: str
    host: str
    conditions: Mapping[str, str]


def conditions_of(document: Mapping[str, Any]) -> dict[str, str]:
    """Return versions and `CONDITIONS` in environment.json, or in one of its notes about a resumed run, by their names.

    >>> conditions_of({"versions": {"torch": "2.10.0"}, "gpu": None, "device": "cuda:1", "seed": 3})
    {'torch': '2.10.0', 'device': 'cuda', 'GPU': 'none'}
    """
    versions = document.get("versions")
    found = {str(name): str(version) for name, version in versions.items()} if isinstance(versions, dict) else {}
    for key, name in CONDITIONS.items():
        value = document.get(key, {})
        if not isinstance(value, dict | list):
            found[name] = "none" if value is None else str(value).split(":")[0] if key == "device" else str(value)
    return {plain(name): plain(value) for name, value in found.items()}


def read_stretches(environment: Mapping[str, Any], steps: int | None = None) -> tuple[Stretch, ...]:
    """Return the parts of a training that its weights come from, as recorded in environment.json.

    A part whose steps were all computed again, or that computed none, is left out. `steps` is the number of steps of
    the training so far; None if not known.

    >>> notes = [{"step": 0, "host": "b"}, {"step": 8, "host": "c"}, {"step": 12, "host": "d"}]
    >>> [stretch.host for stretch in read_stretches({"host": "a", "continued": notes}, 12)]
    ['b', 'c']
    """
    notes = environment.get("continued")
    resumed = [note for note in notes if isinstance(note, dict)] if isinstance(notes, list) else []
    documents = [dict(environment), *resumed]
    starts = [0, *(_count(note.get("step")) or 0 for note in resumed)]
    found = []
    for document, start, end in zip(documents, starts, [*starts[1:], steps], strict=True):
        if end is None or end > start:
            values = document.get("time", document.get("created")), document.get("host")
            time, host = (plain(value) if isinstance(value, str) else "" for value in values)
            found.append(Stretch(start, time, host, conditions_of(document)))
    return tuple(found)


def changes(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """Return how conditions differ, of those that both record.

    >>> changes({"torch": "2.10.0", "GPU": "none", "numpy": "2.0"}, {"torch": "2.11.0", "GPU": "none"})
    ['torch 2.10.0 → 2.11.0']
    """
    different = [name for name in before if name in after and before[name] != after[name]]
    commit, code = CONDITIONS["git_commit"], CONDITIONS["code"]
    if code not in different and code in before and code in after:
        different = [name for name in different if name != commit]  # of a change of other files
    elif commit in different:
        different = [name for name in different if name != code]
    return [f"{name} {_short(name, before[name])} → {_short(name, after[name])}" for name in different]


def changed_conditions(stretches: Sequence[Stretch]) -> list[tuple[Stretch, list[str]]]:
    """Return the parts of a training whose conditions differ from those of the part before, with how they differ."""
    found = ((after, changes(before.conditions, after.conditions)) for before, after in pairwise(stretches))
    return [(stretch, differences) for stretch, differences in found if differences]


def _short(name: str, value: str) -> str:
    commit, plus, edited = value.partition("+")
    return f"{commit[:12]}{plus}{edited}" if name == CONDITIONS["git_commit"] else value


@dataclass(frozen=True)
class Provenance:
    """The origin of one evaluation: photographs, checkpoint, command. A value is empty or None if it is not recorded.

    Args:
        role: How the photographs relate to the run, by their contents. `training`, `validation`, `test`: photographs of
            that split. `external`: none belongs to the run. `mixed`: a mixture of these. `unlabelled`: photographs
            without labels, of any origin. `unknown`: not recorded.
        known: Number of the photographs that are in `train`, `val` and `test` of the run, by content; for a checkpoint
            outside its run only `seen`, those in train or val. None if there was nothing to compare with.
        split: `train`, `val`, `test` or `predict`, as requested by the command; `out_of_fold` for the photographs of an
            experiment, each judged by the networks of an ensemble that did not learn from it.
        dataset_fingerprint: SHA-256 over the photographs' contents and classes.
        created: ISO 8601, UTC.
        command: The command line.
        checkpoint: Absolute path of the checkpoint.
        epoch: Epoch of the checkpoint, counted from 0.
        root: Absolute path of the folder with the photographs.
        manifest, fold: Absolute path of the manifest, and its fold that was used as val, if any.
        seconds, device: Duration and device of the evaluation.
        near_training_photographs: Number of near duplicates of training or validation photographs.
        ignored: Number of files that are not photographs, by suffix.
        excluded: Number of photographs that could not be used.
        site: Where the photographs come from, as stated with `--site`.
        sha256: Digests of the `checkpoint`'s file and of the content of other files, as they were when the evaluation
            was written: of the evaluation `predictions`, their `distances`, `metrics`, `table` (metrics.csv),
            `photographs`, `excluded` and `provenance` itself; of the run `environment` and `training_time` after so
            many `starts`, the first `epochs` rows of `history`, and the first `looks` lines of `ledger`.
        begun: When the evaluation began, as its line in the ledger says.
        schema: Version of the document; 0 for a document written before 0.2.
    """

    role: Role = "unknown"
    known: Mapping[str, int] | None = None
    split: str = ""
    dataset_fingerprint: str = ""
    created: str = ""
    command: tuple[str, ...] = ()
    checkpoint: str = ""
    epoch: int | None = None
    root: str = ""
    manifest: str | None = None
    fold: int | str | None = None
    seconds: float | None = None
    device: str = ""
    near_training_photographs: int | None = None
    ignored: Mapping[str, int] = field(default_factory=dict)
    excluded: int = 0
    site: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    sha256: Mapping[str, str] = field(default_factory=dict)
    epochs: int | None = None
    starts: int | None = None
    looks: int | None = None
    begun: str = ""
    schema: int = 1


def to_provenance(document: Mapping[str, Any]) -> Provenance:
    """Return what a program reads of provenance.json; a value of a wrong type counts as not recorded.

    >>> to_provenance({"role": "test", "seconds": -1}).seconds is None
    True
    """
    role, known, command = (document.get(name) for name in ("role", "known", "command"))
    texts: dict[str, Any] = {
        name: document[name]
        for name in ("split", "dataset_fingerprint", "created", "checkpoint", "device", "site", "begun")
        if isinstance(document.get(name), str)
    }
    return Provenance(
        sha256=digests_in(document),
        epochs=_count(document.get("epochs")),
        starts=_count(document.get("starts")),
        looks=_count(document.get("looks")),
        role=next((one for one in get_args(Role) if one == role), "unknown"),
        known={name: n for name, n in known.items() if _count(n) is not None} if isinstance(known, dict) else None,
        command=tuple(map(str, command)) if isinstance(command, list) else (),
        seconds=positive_number(document.get("seconds")),
        **texts,
        epoch=_count(document.get("epoch")),
        near_training_photographs=_count(document.get("near_training_photographs")),
    )


def count_known(digests: Iterable[str], photographs: Iterable[PhotographRow]) -> dict[str, int] | None:
    """Count the photographs with these SHA-256 that are also in each split of a run; each is counted once.

    Returns:
        Counts of train, val and test; None if the run records no contents.

    >>> row = PhotographRow("a.jpg", "val", "BLD", "", 0, 0, "", "", "ab" * 32)
    >>> count_known(["ab" * 32, "cd" * 32], [row])
    {'train': 0, 'val': 1, 'test': 0}
    """
    rows = {split: {row.sha256[:DIGEST_DIGITS] for row in photographs if row.split == split} - {""} for split in ROLES}
    if not any(rows.values()):
        return None
    found = dict.fromkeys(ROLES, 0)
    for digest in digests:
        split = next((split for split, contents in rows.items() if digest[:DIGEST_DIGITS] in contents), None)
        if split is not None:
            found[split] += 1
    return found


def role_of(
    split: str,
    digest: str,
    own_digests: Mapping[str, str],
    n: int,
    known: Mapping[str, int] | None,
    *,
    own: bool = False,
) -> Role:
    """Return how the photographs of an evaluation relate to the run: by their contents, never by a name.

    Args:
        split: As in `Provenance`.
        digest: Dataset digest of the evaluation; empty if not recorded.
        own_digests: Dataset digests of the splits of the run.
        n: Number of photographs.
        known: Number of them in each split of the run; see `Provenance`.
        own: Whether the command requested a split of the run. The photographs of that split may have changed since.

    >>> role_of("test", "", {}, 10, {"train": 5, "val": 0, "test": 0}), role_of("test", "", {}, 10, {"train": 0})
    ('mixed', 'external')
    >>> role_of("test", "ab", {"train": "ab"}, 10, None), role_of("val", "", {}, 10, None)
    ('training', 'validation')
    """
    if split == "predict":
        return "unlabelled"
    for name, role in ROLES.items():
        if digest and own_digests.get(name) == digest:
            return role
    if known is None:
        # train and val are always splits of the run; a test may be of any photographs.
        return ROLES[split] if split in ("train", "val") else "unknown"
    found = [name for name, count in known.items() if count]
    if not found:
        return "external"
    if found[0] in ROLES and len(found) == 1 and (known[found[0]] == n or (own and found[0] == split)):
        return ROLES[found[0]]
    return "mixed"


def positive_number(value: object) -> float | None:
    """Return a finite number above 0; None for any other value, also for True.

    >>> positive_number(2), positive_number(10**400), positive_number(float("nan"))
    (2.0, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 < value <= sys.float_info.max else None


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
