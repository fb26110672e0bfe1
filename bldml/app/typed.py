"""What was typed: configuration files before any parser sees them, and in which of them a mistake is."""

import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from bldml.app.options import GROUPS, MONITORED, config_files, flat, values_of
from bldml.errors import ConfigError
from bldml.io.documents import LARGEST_CONFIGURATION, WordLoader, load_yaml, read_text
from bldml.io.grammar import NULLS, given_path, typed_class
from bldml.io.hints import nearest_option


def with_text_aliases(arguments: list[str]) -> list[str]:
    """Return a command line whose `--data.class_aliases` are text, whatever YAML would make of the names.

    >>> with_text_aliases(["test", "--data.class_aliases={BLD: null}"])
    ['test', '--data.class_aliases={"BLD": "null"}']
    """
    words, name = list(arguments), "--data.class_aliases"
    for i, word in enumerate(arguments):
        value = word.partition("=")[2] if word.startswith(f"{name}=") else ""
        value = word if i and arguments[i - 1] == name else value
        with suppress(yaml.YAMLError):
            if value and isinstance(aliases := load_yaml(value, WordLoader), dict):
                words[i] = word.removesuffix(value) + json.dumps(aliases, ensure_ascii=False)
    return words


def class_called_null(arguments: list[str]) -> str | None:
    """Return the positive class if it is typed, or quoted in a configuration, as parsers call nothing; else None."""
    if typed := typed_class(arguments):
        return typed
    for path in reversed(config_files(arguments)):
        with suppress(OSError, ValueError, yaml.YAMLError):
            found = flat(load_yaml(read_text(path, LARGEST_CONFIGURATION))).get("data.positive_class")
            if found is not None:
                return found if found in NULLS else None
    return None


def with_file(error: ConfigError, arguments: list[str]) -> ConfigError:
    """Return a mistake with the name of the configuration file that it is in; unchanged if it was typed."""
    named = re.search(r'--([\w.]+)|^(?:Parser key )?"?([a-z_]+(?:\.\w+)*)"?[ :]', str(error))
    key = str(error.fields.get("key") or (named and (named[1] or named[2])) or "").rstrip(".")
    if not key or any(re.match(rf"--{re.escape(key)}\b", word) for word in arguments):
        return error
    for path in reversed(config_files(arguments)):
        with suppress(OSError, ValueError, yaml.YAMLError):
            keys = flat(load_yaml(read_text(path, LARGEST_CONFIGURATION)))
            if any(f"{key}.".startswith(f"{one}.") or one.startswith(f"{key}.") for one in keys):
                return type(error)(f"{path}: {error}", error.code, **{**error.fields, "path": path})
    return error


def check_files(arguments: list[str]) -> None:
    """Raise ConfigError for a configuration file on a command line that is missing or not strict YAML, by its name."""
    for path in config_files(arguments):
        given_path(path, "The configuration")
        try:
            content = load_yaml(read_text(path, LARGEST_CONFIGURATION))
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            message = f"The configuration {path} cannot be read: {reason}"
            raise ConfigError(message, "config-unreadable", path=path, reason=reason) from error
        except yaml.YAMLError as error:
            problem = str(error).replace('in "<unicode string>", ', "")
            message = f"The configuration {path} cannot be used: {problem}"
            raise ConfigError(message, "config-not-yaml", path=path, reason=problem) from error
        _check_groups(path, content)
    for group in GROUPS:
        for value in values_of(arguments, f"--{group}"):
            _check_is_text(group, value, arguments[0])


def _check_is_text(group: str, value: str, verb: str) -> None:
    """Refuse `--model best.ckpt`, which jsonargparse would read as YAML."""
    try:
        read_text(Path(value), LARGEST_CONFIGURATION)
    except ValueError as error:  # no text, or too long; a NUL is in no name
        if not Path(value).is_file():
            return
        options = ["model.weights" if verb == "fit" else "ckpt_path"] if group == "model" else ["data.root"]
        meant = nearest_option("weights" if group == "model" else group, value, options)
        message = f"--{group} takes settings such as {{KEY: VALUE}} or a YAML file; {value} is neither."
        message += f" Did you mean {meant}?" if meant else ""
        raise ConfigError(message, "option-is-file", path=value, reason=str(error)) from error
    except OSError:
        pass  # no file


def _check_groups(path: Path, content: Any) -> None:
    """Refuse what the parser would drop in silence: a group that holds no keys, a monitor of its own below one."""
    if not isinstance(content, dict):
        message = f"The configuration {path} must hold keys such as model: and data:, not {content!r}."
        raise ConfigError(message, "config-no-mapping", path=path, found=content)
    for group in GROUPS:
        if group not in content:
            continue
        keys = content[group]
        if not isinstance(keys, dict):
            hint = f" To do without, give {group}: {{patience: 100000}}." if group in MONITORED else ""
            message = f"The configuration {path}: {group} must hold keys, not {keys!r}.{hint}"
            raise ConfigError(message, "config-group-no-mapping", path=path, key=group, found=keys)
        if group in MONITORED and (own := {"monitor", "mode"} & keys.keys()):
            message = f"The configuration {path}: {group}.{min(own)} cannot be set. Set monitor once, for all."
            raise ConfigError(message, "config-key-reserved", path=path, key=f"{group}.{min(own)}")
