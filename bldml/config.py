"""How a configuration is read: strict YAML, imports of named classes alone, and errors that name the nearest key."""

import math
import re
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, ClassVar

import jsonargparse
import yaml
from jsonargparse._common import parsing_settings
from yaml.constructor import ConstructorError

GROUPS = ("model", "data", "trainer", "unfreezing", "early_stopping", "plateau")
MONITORED = ("early_stopping", "plateau")
# What jsonargparse refuses to import by itself; its settings add to this for the rest of the process.
_OWN_VERDICTS = dict(parsing_settings["import_path_verdicts"])


class ConfigError(Exception):
    """The command line or a configuration file asks for something that cannot be; the message says what."""


class StrictLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML of the 1.2 core schema in what users meet: `No`, `on` and `0123` are text; only true and false are bools.

    Duplicate keys and numbers that are not finite are refused. Keys are always text, so a class folder may be named 0.
    """

    yaml_implicit_resolvers: ClassVar[dict[str, list[tuple[str, re.Pattern[str]]]]] = {}

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping with unique text keys."""
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise ConstructorError(None, None, "a key is not plain text", key.start_mark)
            if key.value in seen:
                raise ConstructorError(None, None, f"the key {key.value!r} is given twice", key.start_mark)
            seen.add(key.value)
            if key.tag != "tag:yaml.org,2002:merge":
                key.tag = "tag:yaml.org,2002:str"
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        return mapping

    def construct_yaml_float(self, node: yaml.ScalarNode) -> float:
        """A finite number."""
        value = float(super().construct_yaml_float(node))
        if not math.isfinite(value):
            raise ConstructorError(None, None, f"{node.value} is not a finite number", node.start_mark)
        return value


StrictLoader.add_constructor("tag:yaml.org,2002:float", StrictLoader.construct_yaml_float)
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


def load_yaml(text: str) -> Any:
    """Read YAML strictly.

    Raises:
        yaml.YAMLError: It is not YAML, holds a key twice or a number that is not finite.

    >>> load_yaml("{positive_class: No, lr: 1.0e-3, folder: 0123}")
    {'positive_class': 'No', 'lr': 0.001, 'folder': '0123'}
    """
    return yaml.load(text, Loader=StrictLoader)


def set_up_parsing(allowed: Sequence[str] | None) -> None:
    """Make jsonargparse read strictly and import nothing that was not allowed.

    Args:
        allowed: Paths of the classes that a configuration may name, checked before their modules are imported; None for
            a configuration that is trusted.
    """
    # Otherwise what an earlier command of this process has set would hold for this one too.
    parsing_settings["import_path_verdicts"] = dict(_OWN_VERDICTS)
    jsonargparse.set_loader("yaml", load_yaml, exceptions=(yaml.YAMLError,))
    jsonargparse.set_parsing_settings(
        import_path_denylist=[] if allowed is None else ["*"],
        import_path_allowlist=[] if allowed is None else list(allowed),
        # A dict that merely looks like a class stays a dict.
        instantiate_subclass_spec_in_any=False,
        config_read_mode_urls_enabled=False,
        add_print_completion_argument=True,
    )


def config_files(arguments: list[str]) -> list[Path]:
    """The configuration files named on a command line.

    >>> [str(path) for path in config_files(["--config", "a.yaml", "--config=b.yaml", "--data.root", "c"])]
    ['a.yaml', 'b.yaml']
    """
    return [Path(value) for value in values_of(arguments, "--config", "-c")]


def values_of(arguments: list[str], *names: str) -> list[str]:
    """The values of an option on a command line, before any parser has seen it.

    >>> values_of(["fit", "--resume", "a", "--resume=b", "--resume"], "--resume")
    ['a', 'b']
    """
    found = []
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        option, equals, value = argument.partition("=")
        if option in names and (equals or following):
            found.append(value if equals else following)
    return found


def check_files(arguments: list[str]) -> None:
    """Check that every configuration file named on a command line can be read, and say in which one it cannot.

    Raises:
        ConfigError: A file is missing or not strict YAML.
    """
    for path in config_files(arguments):
        try:
            content = load_yaml(path.read_text(encoding="utf-8-sig"))
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"The configuration {path} cannot be read: {error}") from error
        except yaml.YAMLError as error:
            problem = str(error).replace('in "<unicode string>", ', "")
            raise ConfigError(f"The configuration {path} cannot be used: {problem}") from error
        _check_groups(path, content)


def _check_groups(path: Path, content: Any) -> None:
    """Refuse what the parser would drop in silence: a group that holds no keys, a monitor of its own below one."""
    for group in GROUPS:
        if not isinstance(content, dict) or group not in content:
            continue
        keys = content[group]
        if not isinstance(keys, dict):
            hint = f" To do without, give {group}: {{patience: 100000}}." if group in MONITORED else ""
            raise ConfigError(f"The configuration {path}: {group} must hold keys, not {keys!r}.{hint}")
        if group in MONITORED and (own := {"monitor", "mode"} & keys.keys()):
            raise ConfigError(f"The configuration {path}: {group}.{min(own)} cannot be set. Set monitor once, for all.")


def explain(message: str, keys: list[str]) -> str:
    """Add to a parser's complaint about an unknown key the nearest one that there is.

    Args:
        message: What the parser says.
        keys: Every key that there is, dotted.

    >>> explain("Group 'model' does not accept option 'lrr'", ["model.lr", "data.root"])
    "Group 'model' does not accept option 'lrr'. Did you mean model.lr?"
    """
    unknown = re.search(r"does not accept (?:nested key|option) '([^']+)'", message)
    unknown = unknown or re.search(r"Option '([^']+)' is not accepted", message)
    group = re.search(r"(?:Group|key) '([^']+)' does not accept", message)
    given = re.search(r"[Uu]nrecognized arguments: --([\w.]+)", message)
    if given:
        key = given[1]
    elif unknown:
        key = f"{group[1]}.{unknown[1]}" if group and not unknown[1].startswith(f"{group[1]}.") else unknown[1]
    else:
        return message
    near = get_close_matches(key, keys, 1, 0.5)
    return f"{message.rstrip('.')}. Did you mean {near[0]}?" if near else message


def keys_of(parser: jsonargparse.ArgumentParser) -> list[str]:
    """Every option of a parser as a dotted key."""
    return [action.dest for action in parser._actions if action.option_strings]
