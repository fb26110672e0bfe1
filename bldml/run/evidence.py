"""What a run has recorded about one of its evaluations. Pages and the terminal claim only what follows from it."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from bldml.metrics.checked import UnitKind, unit_kind
from bldml.run.provenance import ROLES, Role
from bldml.run.reader import Evaluation, RunData

Kind = Literal["exact", "near", "burst", "group"]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""How two photographs can be related, the closest first."""
SEEN = ("train", "val")  # the splits that trained the classifier and chose epoch, threshold and temperature


@dataclass(frozen=True)
class Evidence:
    """The recorded facts about one evaluation.

    Attributes:
        role: How its photographs relate to the run, by their contents.
        n: Number of photographs.
        known: Number of them in each split of the run, by content; see `Provenance`.
        seen: Number of them that trained or chose the classifier.
        relatives: Number of the others that have a relative among those, by the closest kind: a file with the same
            content, a near duplicate, a photograph of the same burst, one of the same group.
        related: Paths of the photographs that are seen or have a relative, as far as the run records which they are.
        searched: Whether near duplicates of the photographs that trained or chose the classifier were searched for
            among all of them.
        unit: What the sampling units of all statistics are.
        groups: Number of groups that were given for them.
        bursts: Number of bursts among those without a group; None if not recorded.
        lone: Number of photographs with neither, each of which is a unit of its own.
    """

    role: Role
    n: int
    known: Mapping[str, int] = field(default_factory=dict)
    seen: int = 0
    relatives: Mapping[Kind, int] = field(default_factory=dict)
    related: frozenset[str] = frozenset()
    searched: bool = False
    unit: UnitKind = "photograph"
    groups: int = 0
    bursts: int | None = None
    lone: int = 0

    @property
    def n_related(self) -> int:
        """Number of photographs that are seen or have a relative."""
        return self.seen + sum(self.relatives.values())

    @property
    def n_unrelated(self) -> int:
        """Number of photographs without a known relative, if the run records which they are; else 0."""
        return self.n - len(self.related) if len(self.related) == self.n_related else 0


def evidence_of(data: RunData, evaluation: Evaluation) -> Evidence:
    """Return what a run has recorded about one of its evaluations."""
    role, known = evaluation.role, evaluation.provenance.known or {}
    n = len(evaluation.rows)
    seen_paths = _seen_paths(data, evaluation)
    seen = n if role in ("training", "validation") else sum(known.get(name, 0) for name in (*SEEN, "seen"))
    closest = {path: kind for path, kind in _relatives(data, evaluation).items() if path not in seen_paths}
    counts = Counter(closest.values())
    near = evaluation.provenance.near_training_photographs
    if near is not None:  # of a set of another folder; only their number is recorded, which includes those seen
        counts["near"] = max(counts["near"], min(near, n - counts["burst"] - counts["group"]) - seen)
    # The run has searched its own photographs, not those that were added to its test split later.
    own = data.leaks is not None and known.get("test", n) == n
    units = [row.unit for row in evaluation.rows]
    number = Counter(unit.kind for unit in set(units) if unit)
    recorded = all(row.burst is not None for row in evaluation.rows)
    return Evidence(
        role=role,
        n=n,
        known=known,
        seen=seen,
        relatives={kind: counts[kind] for kind in KINDS if counts[kind]},
        related=seen_paths | closest.keys(),
        searched=near is not None if role in ("external", "mixed", "unknown") else own,
        unit=unit_kind(units),
        groups=number["group"],
        bursts=number["burst"] if recorded else None,
        lone=units.count(None),
    )


def _seen_paths(data: RunData, evaluation: Evaluation) -> frozenset[str]:
    """Return the photographs of an evaluation that trained or chose the classifier."""
    if evaluation.role in ("training", "validation"):
        return frozenset(row.path for row in evaluation.rows)
    contents = {row.sha256 for row in data.photographs if row.split in SEEN} - {""}
    return frozenset(row.path for row in evaluation.photographs if row.sha256 in contents)


def _relatives(data: RunData, evaluation: Evaluation) -> dict[str, Kind]:
    """Return the closest kind of relative by path, of the photographs of the run in an evaluation."""
    own = _own_paths(data, evaluation)
    found: dict[str, Kind] = {}
    for row in data.leaks or ():
        kind: Kind | None = next((one for one in KINDS if one == row["kind"]), None)
        for path in own.get(row.get("photograph", ""), ()):
            if kind and row["partner_split"] in SEEN:
                found[path] = min(found.get(path, kind), kind, key=KINDS.index)
    groups = {row["group"] for row in data.splits if row["split"] in SEEN and row.get("group")}
    for row in data.splits:
        for path in own.get(row["path"], ()) if row.get("group") in groups else ():
            found.setdefault(path, "group")
    return found


def _own_paths(data: RunData, evaluation: Evaluation) -> dict[str, list[str]]:
    """Return the paths in the evaluation of the photographs of the run, by their paths in the run."""
    if evaluation.photographs:  # of another folder, in which they may have other names
        there: dict[str, list[str]] = {}
        for row in evaluation.photographs:
            there.setdefault(row.sha256, []).append(row.path)
        return {row.path: there[row.sha256] for row in data.photographs if row.sha256 and row.sha256 in there}
    if evaluation.role not in ROLES.values():  # photographs of others may have the same names
        return {}
    paths = {row.path for row in evaluation.rows}
    return {row["path"]: [row["path"]] for row in data.splits if row["path"] in paths}
