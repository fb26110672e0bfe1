"""JSON documents that hold a mapping. Strict YAML: no key twice, no infinite number, and `No` or `0123` is text.

A text is measured before it is parsed: a short one can be deep enough to end the process in a parser written in C.
"""

import json
import math
import re
from pathlib import Path
from typing import Any, ClassVar

import yaml
from yaml.constructor import ConstructorError

from bldml.errors import RunError

LARGEST_CONFIGURATION, LARGEST_DOCUMENT, LARGEST_TABLE = 2**20, 2**26, 2**28  # bytes
_LARGEST, _DEEPEST = 100_000, 50  # values and levels; a configuration has some hundreds on six levels
_LONGEST_NUMBER = 100  # characters; Python itself refuses to read very long ones


def read_text(path: Path, most: int = LARGEST_TABLE) -> str:
    """Return the content of a file in UTF-8, with or without a byte order mark, and with the line ends that it has.

    Raises:
        OSError: It cannot be read.
        ValueError: It is not UTF-8, or has more bytes than are read of such a file.
    """
    with path.open("rb") as file:
        content = file.read(most + 1)  # not its size, which a device does not have
    if len(content) > most:
        raise ValueError(f"it has more than {most / 2**20:.0f} MiB, the most that is read of such a file")
    return content.decode("utf-8-sig")


def load_json(text: str | bytes) -> Any:
    """Return the content of a JSON document.

    Raises:
        ValueError: It is not JSON, or is nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def read_mapping(path: Path) -> dict[str, Any]:
    """Read a JSON document.

    Raises:
        RunError: The file is missing or damaged; the message names it.
    """
    try:
        value = load_json(read_text(path, LARGEST_DOCUMENT))
    except OSError as error:
        raise RunError(
            f"Cannot read {path}: {error.strerror}. Check the path and your permissions.", "json-unreadable", path=path
        ) from error
    except ValueError as error:
        message = f"{path} is not valid JSON: {error}. Restore the file, or move it away."
        raise RunError(message, "json-damaged", path=path) from error
    if not isinstance(value, dict):
        message = f"{path} must contain a JSON object. Restore the file, or move it away."
        raise RunError(message, "json-no-mapping", path=path, found=type(value).__name__)
    return value


def mapping_or_nothing(path: Path) -> dict[str, Any]:
    """Read an optional JSON document; return an empty mapping if it is missing or damaged."""
    try:
        return read_mapping(path)
    except RunError:
        return {}


class StrictLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML 1.2 core schema, as far as users need it: `No`, `on` and `0123` are text; only true and false are bools.

    Duplicate keys and infinite numbers are refused. Keys are always text, so a class folder may be named 0.
    """

    yaml_implicit_resolvers: ClassVar[dict[str, list[tuple[str, re.Pattern[str]]]]] = {}

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return a mapping with unique text keys."""
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise ConstructorError(None, None, "a key must be plain text", key.start_mark)
            if key.value in seen:
                raise ConstructorError(None, None, f"the key {key.value!r} occurs twice", key.start_mark)
            seen.add(key.value)
            if key.tag != "tag:yaml.org,2002:merge":
                key.tag = "tag:yaml.org,2002:str"
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        return mapping

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Put merged keys (`<<`) into a mapping, which may hold many more than were written."""
        super().flatten_mapping(node)
        if len(node.value) > _LARGEST:
            raise ConstructorError(None, None, f"merged, it has more than {_LARGEST:,} keys", node.start_mark)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        """Return a number of a length that numbers have."""
        if len(node.value) > _LONGEST_NUMBER:
            raise ConstructorError(None, None, f"a number of {len(node.value):,} characters", node.start_mark)
        return int(super().construct_yaml_int(node))

    def construct_yaml_float(self, node: yaml.ScalarNode) -> float:
        """Return a finite number."""
        value = float(super().construct_yaml_float(node))
        if not math.isfinite(value):
            shown = node.value[:_LONGEST_NUMBER]
            raise ConstructorError(None, None, f"{shown} is not a finite number", node.start_mark)
        return value


StrictLoader.add_constructor("tag:yaml.org,2002:float", StrictLoader.construct_yaml_float)
StrictLoader.add_constructor("tag:yaml.org,2002:int", StrictLoader.construct_yaml_int)
for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)", "-+0123456789"),
    # A dot or an exponent makes a float: 0123 has neither.
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+"
     r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)", "-+0123456789."),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("merge", r"<<", "<"),
):  # fmt: skip
    StrictLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), list(_first))


class TextLoader(StrictLoader):
    """Strict loader whose scalars are text, or None for null: `0.50` and `true` stay as written."""


TextLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.endswith((":null", ":merge"))]
    for first, resolvers in StrictLoader.yaml_implicit_resolvers.items()
}


class WordLoader(StrictLoader):
    """Strict loader whose scalars are text, null too."""

    yaml_implicit_resolvers: ClassVar = {"<": StrictLoader.yaml_implicit_resolvers["<"]}


class StrictDumper(yaml.SafeDumper):
    """Dumper that quotes every text that `StrictLoader` would read as something else, such as 1e3."""


_resolvers = (yaml.SafeDumper.yaml_implicit_resolvers, StrictLoader.yaml_implicit_resolvers)
StrictDumper.yaml_implicit_resolvers = {
    first: [*_resolvers[0].get(first, []), *_resolvers[1].get(first, [])] for first in {*_resolvers[0], *_resolvers[1]}
}


def dump_yaml(value: Any) -> str:
    """Return plain values as YAML that `load_yaml` reads as the same ones.

    >>> print(dump_yaml({"name": "1e3", "rate": 0.5}), end="")
    name: '1e3'
    rate: 0.5
    """
    return str(yaml.dump(value, Dumper=StrictDumper, default_flow_style=False, sort_keys=False, allow_unicode=True))


def load_yaml(text: str, loader: type[StrictLoader] = StrictLoader) -> Any:
    """Read YAML strictly; with `TextLoader`, text instead of numbers and bools.

    Raises:
        yaml.YAMLError: It is not YAML, has a duplicate key or an infinite number, or is too large or nested too deeply.

    >>> load_yaml("{positive_class: No, lr: 1.0e-3, folder: 0123}")
    {'positive_class': 'No', 'lr': 0.001, 'folder': '0123'}
    >>> load_yaml("{lr: 1.0e-3, flip: true, weights: null, fill: [1, 2]}", TextLoader)
    {'lr': '1.0e-3', 'flip': 'true', 'weights': None, 'fill': ['1', '2']}
    """
    _measure(text, loader)
    content = yaml.load(text, Loader=loader)
    if _size(content, (), {}) > _LARGEST:
        raise yaml.YAMLError(f"with its aliases it has more than {_LARGEST:,} values")
    return content


def _measure(text: str, loader: type[StrictLoader]) -> None:
    """Raise a YAMLError for a text that is too long, or too deep; its events are read one after the other."""
    if len(text) > LARGEST_CONFIGURATION:
        raise yaml.YAMLError(f"it has {len(text):,} characters; {LARGEST_CONFIGURATION:,} are allowed")
    depth = 0
    for event in yaml.parse(text, Loader=loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST:
            raise yaml.YAMLError("it is nested too deeply")


def _size(value: Any, above: tuple[int, ...], known: dict[int, int]) -> int:
    """Return the number of values, with aliases expanded; a few lines of aliases can be billions of values."""
    if not isinstance(value, list | dict):
        return 1
    key = id(value)
    if key in above or len(above) > _DEEPEST:
        raise yaml.YAMLError("it is nested too deeply, or contains itself")
    if key not in known:
        items = value.values() if isinstance(value, dict) else value
        known[key] = 1 + sum(_size(item, (*above, key), known) for item in items)
    return known[key]
