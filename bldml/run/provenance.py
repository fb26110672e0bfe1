"""What an evaluation was made of, `provenance.json`, and what its photographs are to the run."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from bldml.run.photographs import PhotographRow

Role = Literal["training", "validation", "test", "external", "mixed", "unlabelled", "unknown"]
ROLES: dict[str, Role] = {"train": "training", "val": "validation", "test": "test"}
"""What the photographs of each split are to the run that it was divided for."""
DIGITS = 16  # of a SHA-256 in hexadecimal: 64 bits tell 100,000 photographs apart


@dataclass(frozen=True)
class Provenance:
    """One evaluation: its photographs, its checkpoint, how it was made. Empty or None where that is not recorded.

    Args:
        role: What the photographs are to the run, by their contents. `training`, `validation`, `test`: photographs of
            that split. `external`: none is one of the run's. `mixed`: of several of these. `unlabelled`: photographs
            without labels, whatever else they are. `unknown`: not recorded.
        known: How many of the photographs the run's `train`, `val` and `test` have, by content; a checkpoint outside
            its run tells `seen` alone, those of train or val. None where there was nothing to compare with.
        split: `train`, `val`, `test` or `predict`, as the command asked.
        dataset_fingerprint: SHA-256 over the photographs' contents and classes.
        created: ISO 8601, UTC.
        command: The command line.
        checkpoint: Absolute path of the checkpoint.
        epoch: Epoch of the checkpoint, counted from 0.
        root: Absolute path of the folder with the photographs.
        manifest: Absolute path of the manifest, if any.
        fold: Fold of the manifest that was val, if any.
        seconds: Time that the evaluation took.
        device: What it was computed on.
        near_training_photographs: How many look nearly the same as a photograph of training or validation.
        ignored: Files that are no photographs, by suffix.
        excluded: Photographs that could not be used.
        versions: Of the software.
        schema: Version of the document; 0 for one of before 0.2.
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
    versions: Mapping[str, str] = field(default_factory=dict)
    schema: int = 1


def to_provenance(document: Mapping[str, Any]) -> Provenance:
    """Read what provenance.json holds; a value of a wrong type counts as not recorded.

    >>> to_provenance({"role": "test", "seconds": -1}).seconds is None
    True
    """
    role, known, command = (document.get(name) for name in ("role", "known", "command"))
    texts = ("split", "dataset_fingerprint", "created", "checkpoint", "root", "device")
    manifest, fold = document.get("manifest"), document.get("fold")
    return Provenance(
        role=next((one for one in get_args(Role) if one == role), "unknown"),
        known={str(name): n for name, n in known.items() if _is_count(n)} if isinstance(known, dict) else None,
        **{name: value for name in texts if isinstance(value := document.get(name), str)},
        command=tuple(map(str, command)) if isinstance(command, list) else (),
        epoch=_count(document.get("epoch")),
        manifest=manifest if isinstance(manifest, str) else None,
        fold=fold if isinstance(fold, int | str) else None,
        seconds=positive_number(document.get("seconds")),
        near_training_photographs=_count(document.get("near_training_photographs")),
        ignored=_mapping(document.get("ignored")),
        excluded=_count(document.get("excluded")) or 0,
        versions=_mapping(document.get("versions")),
        schema=_count(document.get("schema")) or 0,
    )


def count_known(digests: Iterable[str], photographs: Iterable[PhotographRow]) -> dict[str, int] | None:
    """Count the photographs that each split of a run has too, by content.

    Args:
        digests: SHA-256 of the photographs, hexadecimal.
        photographs: The run's own.

    Returns:
        Counts of train, val and test, each photograph counted once; None where the run tells no contents.

    >>> row = PhotographRow("a.jpg", "val", "BLD", "", 0, 0, "", "", "ab" * 32)
    >>> count_known(["ab" * 32, "cd" * 32], [row])
    {'train': 0, 'val': 1, 'test': 0}
    """
    rows = {split: {row.sha256[:DIGITS] for row in photographs if row.split == split} - {""} for split in ROLES}
    if not any(rows.values()):
        return None
    found = dict.fromkeys(ROLES, 0)
    for digest in digests:
        split = next((split for split, contents in rows.items() if digest[:DIGITS] in contents), None)
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
    """Say what the photographs of an evaluation are to the run: by their contents, never by a name.

    Args:
        split: `train`, `val`, `test` or `predict`, as the command asked; empty where that is not recorded.
        digest: Dataset fingerprint of the evaluation; empty where that is not recorded.
        own_digests: Those of the run's splits.
        n: Photographs.
        known: How many of them each split of the run has; see `Provenance`.
        own: Whether the command asked for a split of the run's own photographs. Such a set may have grown since.

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
        # Without other folders, train and val are always the run's own; a test may be of any photographs.
        return ROLES[split] if split in ("train", "val") else "unknown"
    found = [name for name, count in known.items() if count]
    if not found:
        return "external"
    if found[0] in ROLES and len(found) == 1 and (known[found[0]] == n or (own and found[0] == split)):
        return ROLES[found[0]]
    return "mixed"


def positive_number(value: object) -> float | None:
    """A finite number above 0, or None; true is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) and value > 0 else None


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and _is_count(value) else None


def _mapping(value: object) -> dict[str, Any]:
    return {str(name): one for name, one in value.items()} if isinstance(value, dict) else {}
