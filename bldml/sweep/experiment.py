"""The YAML file of an experiment: what runs have in common, in what they differ, and the plan that follows."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import count, product
from math import prod
from pathlib import Path
from typing import Any

import yaml

from bldml.dataset.files import show_path
from bldml.errors import ConfigError
from bldml.io.atomic import check_name
from bldml.io.documents import LARGEST_CONFIGURATION, load_yaml, read_text
from bldml.metrics.registry import METRICS
from bldml.sweep.plan import MOST_RUNS, Candidate, check_size
from bldml.sweep.search.space import KEYS as SEARCH_KEYS
from bldml.sweep.search.space import Search, WrongSpace, read_search

KEYS = ("base", "options", "grid", "configurations", "search", "seeds", "folds", "metric", "chosen", "baseline")
GROUPS = ("model", "data", "trainer", "unfreezing", "early_stopping", "plateau", "operating_point", "card")
MOST_FILES, DEEPEST = 100, 20  # base files, and dots in the name of an option
# What makes a baseline, and what else it takes over from the first configuration with the same, if that sets it.
FEATURES = ("model.backbone", "model.weights", "model.image_size")
OF_BASELINE = (*FEATURES, "model.pos_weight", "data.", "operating_point.", "trainer.precision", "trainer.accelerator")
OF_TRAINING = ("data.augmentation", "data.batch_size", "data.num_workers", "data.cache")
# What the sweep sets itself, and what to write instead.
OWN = {
    "run_name": "the sweep names its runs",
    "resume": "the sweep resumes its runs itself",
    "config": "write the file as base",
    "output": "set --output of the sweep",
    "trainer.default_root_dir": "set --output of the sweep",
    "test_after_fit": "the sweep decides what is evaluated: its test set stays sealed",
}
OF_RIVALS = {
    "seed_everything": "seeds are replicates, not rivals; write seeds: [1, 2]",
    "data.fold": "folds are replicates, not rivals; write folds: 5, or folds: manifest for those of the manifest",
}


@dataclass(frozen=True)
class Division:
    """How folds are made.

    Args:
        number: Number of folds, at least 2; None for as many as the manifest has.
        group: Which photographs are kept together, as `--group` of the command split takes it; empty for bursts, and
            for the groups of the manifest if it has any.
        seed: Random seed for ties.
        val: Fraction of a run's photographs outside its fold that becomes its validation split, in (0, 1).
        gap_seconds: Maximum gap (s) between photographs of one burst; 0 turns burst detection off.
    """

    number: int | None = None
    group: str = ""
    seed: int = 0
    val: float = 0.2
    gap_seconds: float = 10.0


@dataclass(frozen=True)
class ExperimentFile:
    """What the YAML file of an experiment says.

    Args:
        path: The file.
        base: Configuration files of all runs, in their order.
        options: What else all runs have in common, by dotted key.
        candidates: The configurations; none yet with a search, whose trials they are.
        seeds: Seeds of the replicates; None alone for the seed of the configuration.
        division: How folds are made; None for no folds.
        metric: Name of the metric by which configurations are compared.
        chosen: Name of the configuration chosen beforehand for the test set, if any.
        search: The search that proposes the configurations; None without.
    """

    path: Path
    base: tuple[Path, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    candidates: tuple[Candidate, ...] = ()
    seeds: tuple[int | None, ...] = (None,)
    division: Division | None = None
    metric: str = "balanced_accuracy"
    chosen: str | None = None
    search: Search | None = None


def read_experiment(path: Path) -> ExperimentFile:
    """Read the file of an experiment.

    Raises:
        ConfigError: It cannot be read, or says something that cannot be; the message names the key.
    """
    try:
        content = load_yaml(read_text(path, LARGEST_CONFIGURATION))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        message = f"The experiment {show_path(path)} cannot be read: {reason}."
        raise ConfigError(message, "experiment-unreadable", path=path, reason=reason) from error
    except yaml.YAMLError as error:
        problem = str(error).replace('in "<unicode string>", ', "")
        message = f"The experiment {show_path(path)} cannot be used: {problem}"
        raise ConfigError(message, "experiment-not-yaml", path=path, reason=problem) from error
    try:
        return _experiment(path, content)
    except _Wrong as error:
        message = f"{show_path(path)}: {error}"
        raise ConfigError(message, "experiment-wrong", path=path, key=error.key, reason=str(error)) from error


class _Wrong(Exception):
    """What is wrong with the value of a key, in a sentence."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


def _experiment(path: Path, content: Any) -> ExperimentFile:
    if not isinstance(content, dict):
        raise _Wrong("", f"an experiment has keys ({', '.join(KEYS)}), not {content!r}.")
    _check_keys("", content, KEYS)
    base = _texts("base", content.get("base"))
    options = _settings("options", content.get("options"))
    search = _search(content, options)
    candidates = () if search else _with_baselines(content, base, options, _candidates(path, content, options))
    for key in _reserved(options, OWN | OF_RIVALS):
        raise _Wrong("options", f"options cannot set {key}: {(OWN | OF_RIVALS)[key]}.")
    seeds, division = _seeds(content), _division(content)
    check_size(
        path, search.trials if search else len(candidates), len(seeds), (division.number or 1) if division else 1
    )
    _check_run_names(candidates, seeds, division)
    chosen = content.get("chosen")
    names = [candidate.name for candidate in candidates]
    if chosen is not None and chosen not in names:
        raise _Wrong("chosen", f"chosen is {chosen!r}, which is not a configuration.{_nearest(str(chosen), names)}")
    metric = content.get("metric", ExperimentFile.metric)
    if not isinstance(metric, str) or metric not in METRICS:
        raise _Wrong("metric", f"metric is {metric!r}, which is not a metric.{_nearest(str(metric), METRICS)}")
    return ExperimentFile(path, tuple(map(Path, base)), options, candidates, seeds, division, metric, chosen, search)


def _check_run_names(candidates: Iterable[Candidate], seeds: Sequence[int | None], division: Division | None) -> None:
    """Raise UsageError unless the longest name that a run of each configuration can have is one of a folder."""
    seed = max((f"_seed{one}" for one in seeds if one is not None), key=len, default="")
    fold = "" if division is None else f"_fold{(division.number or MOST_RUNS) - 1}"
    for candidate in candidates:
        check_name(f"{candidate.name}{seed}{fold}", "run")


def _check_keys(where: str, content: Mapping[str, Any], known: Iterable[str]) -> None:
    for key in content:
        if key not in known:
            inside = f"{where}." if where else ""
            raise _Wrong(f"{inside}{key}", f"unknown key {inside}{key}.{_nearest(key, known)}")


def _nearest(typed: str, known: Iterable[str]) -> str:
    found = list(known)
    near = get_close_matches(typed, found, 1, 0.5)
    return f" Did you mean {near[0]}?" if near else f" Use one of {', '.join(found[:20])}."


def _texts(key: str, value: Any) -> list[str]:
    values = value if isinstance(value, list) else [] if value is None else [value]
    for one in values:
        if not isinstance(one, str) or not one.strip():
            raise _Wrong(key, f"{key} must be a configuration file or a list of them, not {value!r}.")
    if len(values) > MOST_FILES:
        raise _Wrong(key, f"{key} has {len(values):,} files; at most {MOST_FILES} are read.")
    return values


def _settings(key: str, value: Any) -> dict[str, Any]:
    """Return options of a fit by dotted key; groups may be nested or part of the key."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _Wrong(key, f"{key} must hold options of fit, such as model.lr: 1e-3, not {value!r}.")
    found: list[tuple[str, Any]] = []
    for name, item in value.items():
        is_group = name in GROUPS and isinstance(item, dict)
        found += [(f"{name}.{below}", inner) for below, inner in item.items()] if is_group else [(name, item)]
    if deep := [name for name, _ in found if name.count(".") > DEEPEST]:
        raise _Wrong(key, f"{key} sets {deep[0][:40]}…, which has more than {DEEPEST} dots.")
    twice = [name for name, times in Counter(name for name, _ in found).items() if times > 1]
    if twice:
        raise _Wrong(key, f"{key} sets {twice[0]} twice.")
    return {name.removeprefix("--"): item for name, item in found}


def _reserved(options: Iterable[str], reserved: Iterable[str]) -> Iterator[str]:
    return (name for option in options for name in reserved if f"{option}.".startswith(f"{name}."))


def _candidates(path: Path, content: Mapping[str, Any], options: Mapping[str, Any]) -> tuple[Candidate, ...]:
    if "grid" in content and "configurations" in content:
        raise _Wrong("grid", "an experiment has a grid or a list of configurations, not both.")
    if "configurations" in content:
        found = _listed(content["configurations"], options)
    elif "grid" in content:
        found = list(_of_grid(path, content["grid"]))
    else:
        base = _texts("base", content.get("base"))
        found = [Candidate(Path(base[-1]).stem if base else "plain")]
        check_name(found[0].name, "configuration")
    twice = [name for name, times in Counter(one.name for one in found).items() if times > 1]
    if twice:
        raise _Wrong("configurations", f"two configurations are called {twice[0]}.")
    for candidate in found:
        for key in _reserved(candidate.options, OWN | OF_RIVALS):
            why = (OWN | OF_RIVALS)[key]
            raise _Wrong("configurations", f"the configuration {candidate.name} cannot set {key}: {why}.")
    return tuple(found)


def _with_baselines(
    content: Mapping[str, Any], base: Sequence[str], options: Mapping[str, Any], candidates: tuple[Candidate, ...]
) -> tuple[Candidate, ...]:
    """Return the configurations, and with `baseline: true` a logistic head for each kind of features without one."""
    wanted = content.get("baseline", False)
    if not isinstance(wanted, bool):
        raise _Wrong("baseline", f"baseline must be true or false, not {wanted!r}.")
    if not wanted:
        return candidates
    common = {**_of_files(base, {}), **options}

    def settings(candidate: Candidate, *keys: str) -> list[Any]:
        return [candidate.options.get(key, common.get(key)) for key in keys]

    have = [settings(one, *FEATURES) for one in candidates if settings(one, "model.head") == ["logistic"]]
    added: list[Candidate] = []
    for one in candidates:
        features = settings(one, *FEATURES)
        if features in have:
            continue
        have.append(features)
        title = "logistic" if features[0] is None else f"logistic_{_title('model.backbone', features[0])}"
        same = sum(other.name.startswith(title) for other in added)
        name = f"{title}-{same + 1}" if same else title
        check_name(name, "configuration")
        kept = {
            key: value
            for key, value in one.options.items()
            if key.startswith(OF_BASELINE) and not key.startswith(OF_TRAINING)
        }
        one_device = {} if settings(one, "trainer.devices") == [None] else {"trainer.devices": 1}
        added.append(Candidate(name, {**kept, **one_device, "model.head": "logistic"}))
    if taken := {one.name.casefold(): one.name for one in added}.keys() & {one.name.casefold() for one in candidates}:
        raise _Wrong("baseline", f"baseline: true adds the configuration {min(taken)}; call yours otherwise.")
    return (*candidates, *added)


def _search(content: Mapping[str, Any], options: Mapping[str, Any]) -> Search | None:
    if "search" not in content:
        return None
    value = content["search"]
    for other in ("grid", "configurations", "baseline"):
        if content.get(other, False) is not False:
            raise _Wrong("search", f"an experiment has search or {other}, not both: a search proposes configurations.")
    if "chosen" in content:
        message = "chosen cannot be set with search: no trial is known beforehand. The best one by inner validation is "
        raise _Wrong("chosen", f"{message}taken for the test set.")
    if not isinstance(value, dict):
        raise _Wrong("search", f"search must hold at least trials, such as search: {{trials: 40}}, not {value!r}.")
    _check_keys("search", value, SEARCH_KEYS)
    ranges = _settings("search.ranges", value["ranges"] or {}) if "ranges" in value else None
    for key in _reserved(ranges or {}, OWN | OF_RIVALS):
        raise _Wrong(f"search.ranges.{key}", f"{key} cannot be in search.ranges: {(OWN | OF_RIVALS)[key]}.")
    try:
        return read_search(value, ranges, options)
    except WrongSpace as error:
        raise _Wrong(f"search.{error.key}", str(error)) from error


def _listed(value: Any, options: Mapping[str, Any]) -> list[Candidate]:
    if not isinstance(value, list) or not value:
        raise _Wrong("configurations", "configurations must be a list, such as [{name: plain, model.lr: 1e-3}].")
    found = []
    for number, item in enumerate(value, 1):
        if not isinstance(item, dict) or not isinstance(item.get("name"), str):
            message = f"configuration {number} needs a name and its options, such as {{name: plain, model.lr: 1e-3}}."
            raise _Wrong("configurations", message)
        name = item["name"]
        check_name(name, "configuration")
        own = _settings(f"configuration {name}", {key: one for key, one in item.items() if key not in ("name", "base")})
        found.append(Candidate(name, {**_of_files(_texts("base", item.get("base")), options), **own}))
    return found


def _of_files(paths: Iterable[str], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the own files of a configuration set; what the experiment's `options` set stays."""
    found: dict[str, Any] = {}
    for path in paths:
        try:
            content = load_yaml(read_text(Path(path), LARGEST_CONFIGURATION))
        except (OSError, ValueError, yaml.YAMLError) as error:
            reason = getattr(error, "strerror", None) or str(error).replace('in "<unicode string>", ', "")
            raise _Wrong("base", f"the configuration {path} cannot be read: {reason}") from error
        found |= _settings(path, content)
    return {key: value for key, value in found.items() if key not in options}


def _of_grid(path: Path, value: Any) -> Iterator[Candidate]:
    grid = _settings("grid", value)
    if not grid:
        raise _Wrong("grid", "grid is empty. Write the values of a key, such as grid: {model.lr: [1e-3, 3e-4]}.")
    for key, values in grid.items():
        if not isinstance(values, list) or not values:
            raise _Wrong(f"grid.{key}", f"grid.{key} must be a list of values, not {values!r}.")
        check_size(path, prod(len(others) for others in grid.values() if isinstance(others, list)), 1, 1)
        if any(one in values[:number] for number, one in enumerate(values)):
            raise _Wrong(f"grid.{key}", f"grid.{key} has a value twice.")
    if next(_reserved(grid, OF_RIVALS), None):
        key = next(_reserved(grid, OF_RIVALS))
        raise _Wrong(f"grid.{key}", f"{key} cannot be in the grid: {OF_RIVALS[key]}.")
    used: set[str] = set()
    numbers: defaultdict[str, Iterator[int]] = defaultdict(lambda: count(1))
    for values in product(*grid.values()):
        options = dict(zip(grid, values, strict=True))
        title = "_".join(_title(key, one) for key, one in options.items())[:120]
        names = (title if number == 1 else f"{title}-{number}" for number in numbers[title.casefold()])
        name = next(one for one in names if one.casefold() not in used)  # some file systems ignore case
        used.add(name.casefold())
        check_name(name, "configuration")
        yield Candidate(name, options)


def _title(key: str, value: Any) -> str:
    """Return a setting as part of a name.

    >>> _title("model.backbone", "timm:convnextv2_nano"), _title("model.lr", 0.001), _title("data.augmentation", None)
    ('timm-convnextv2_nano', 'lr-0.001', 'augmentation-null')
    """
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    text = re.sub(r"[^\w.+-]+", "-", text, flags=re.ASCII).strip("-.") or "empty"
    return text if key == "model.backbone" else f"{key.rpartition('.')[2]}-{text}"


def _seeds(content: Mapping[str, Any]) -> tuple[int | None, ...]:
    if content.get("seeds") is None:
        return (None,)
    seeds = content["seeds"]
    if not isinstance(seeds, list) or not seeds or any(type(one) is not int or not 0 <= one < 2**32 for one in seeds):
        raise _Wrong("seeds", f"seeds must be a list of whole numbers from 0, such as [1, 2], not {seeds!r}.")
    if len(set(seeds)) < len(seeds):
        raise _Wrong("seeds", "seeds has a seed twice; the same seed trains the same run.")
    return tuple(seeds)


def _division(content: Mapping[str, Any]) -> Division | None:
    value = content.get("folds")
    if value is None:
        return None
    if not isinstance(value, dict):
        value = {"number": value}
    _check_keys("folds", value, Division.__dataclass_fields__)
    number = value.get("number")
    if number == "manifest":
        number = None
    elif type(number) is not int or number < 2:
        message = f"folds must be a number from 2, or manifest for the folds of the manifest, not {number!r}."
        raise _Wrong("folds", message)
    division = Division(**{**value, "number": number})
    for key, kind, least, most in (("seed", int, 0, 2**32), ("val", float, 0, 1), ("gap_seconds", float, -1, 1e9)):
        found = getattr(division, key)
        if isinstance(found, bool) or not isinstance(found, int | kind) or not least <= found < most:
            raise _Wrong(f"folds.{key}", f"folds.{key} cannot be {found!r}.")
    if not division.val or division.gap_seconds < 0 or not isinstance(division.group, str):
        key = "val" if not division.val else "gap_seconds" if division.gap_seconds < 0 else "group"
        raise _Wrong(f"folds.{key}", f"folds.{key} cannot be {getattr(division, key)!r}.")
    return division


def nested(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options by dotted key as a configuration file has them.

    >>> nested({"model.lr": 0.1, "model.backbone": "resnet50", "report": False})
    {'model': {'lr': 0.1, 'backbone': 'resnet50'}, 'report': False}
    """
    found: dict[str, Any] = {}
    for key, value in options.items():
        *groups, last = key.split(".")
        inside = found
        for group in groups:
            below = inside.setdefault(group, {})
            if not isinstance(below, dict):
                below = inside[group] = {}
            inside = below
        inside[last] = value
    return found
