"""Messages of jsonargparse and argparse as plain sentences; the check of words that no parser has seen."""

import ast
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal, get_args, get_origin, get_type_hints

from bldml.errors import ConfigError
from bldml.io.hints import nearest_option

_TYPES = {
    "<class 'float'>": "a number",
    "<class 'int'>": "a whole number",
    "<class 'bool'>": "true, false",
    "<class 'str'>": "text",
    "<class 'dict'>": "settings such as {KEY: VALUE}",
    "<class 'list'>": "a list",
    "<class 'tuple'>": "a list",
    "<class 'NoneType'>": "null",
}
_CLASS = _TYPES["<class 'dict'>"]  # of an option whose value is an object
_RULES = {"v>0": "a number above 0", "v>=0": "a number of at least 0"}


def explain_mistake(message: str, keys: Sequence[str], words: Sequence[str] = ()) -> str:
    r"""Return a parser's message as a sentence; unchanged if it has an unknown form.

    Args:
        message: Message of jsonargparse or argparse.
        keys: All options of the parser as dotted keys, for the nearest one to an unknown option.
        words: The command line, for the value of an unknown option that the message does not give.

    >>> print(explain_mistake("Parser key \"val\":\n  Expected a <class 'float'>. Got value: many", []))
    --val must be a number, not 'many'.
    >>> explain_mistake("Group 'model' does not accept option 'lrr'", ["model.lr", "data.root"])
    'Unknown option --model.lrr. Did you mean --model.lr?'
    >>> explain_mistake("the following arguments are required: root", [])
    'Missing argument: root.'
    """
    message = re.sub(r"^Call to compute_fn of link .* failed: ", "", message)
    if missing := re.match(r"the following arguments are required: (.+)", message):
        return f"Missing argument: {missing[1]}."
    if no_value := re.match(r"argument (\S+): expected one argument", message):
        return f"{no_value[1]} needs a value."
    if unknown := _unknown_options(message, words):
        near = [hint for name, value in unknown if (hint := nearest_option(name, value, keys))]
        typed = ", ".join(f"--{name}" for name, _ in unknown)
        hint = f" Did you mean {' '.join(near)}?" if near else ""
        return f"Unknown option{'s' if unknown[1:] else ''} {typed}.{hint}"
    if other := re.match(r"[Uu]nrecognized arguments: (.+)", message):
        return f"Unknown argument {other[1]}."
    if own := re.match(r"argument \S+: (.+)", message, re.DOTALL):
        return own[1]
    return _wrong_value(message, keys) or message


def check_choices(block: str, owner: Callable[..., Any], values: Mapping[str, object]) -> None:
    """Raise a ConfigError for a text that is none of the words of its parameter, as only Python lets it through.

    Args:
        block: Its name in a configuration, such as `model`.
        owner: Function or dataclass whose parameters have the types.
        values: Of the parameters to check, each with `Literal` in its type and without `str`.
    """
    hints = get_type_hints(owner)
    for name, value in values.items():
        kinds = (hints[name], *get_args(hints[name]))
        words = [str(word) for one in kinds if get_origin(one) is Literal for word in get_args(one)]
        if isinstance(value, str) and value not in words:
            *first, last = [*words, *(_TYPES[str(one)] for one in kinds if str(one) in _TYPES)]
            message = f"{block}.{name} must be {', '.join(first)} or {last}, not {value!r}."
            raise ConfigError(message, "word-unknown", key=name, found=value, expected=words)


def _unknown_options(message: str, words: Sequence[str]) -> list[tuple[str, str]]:
    """Return the unknown options that a message is about, and their values; none if it is about something else."""
    if typed := re.match(r"[Uu]nrecognized arguments: (--.+)", message, re.DOTALL):
        found: list[tuple[str, str]] = []
        for word in typed[1].split():
            if word.startswith("--"):
                name, _, value = word[2:].partition("=")
                found.append((name, value))
            elif not found[-1][1]:
                found[-1] = (found[-1][0], word)
        after = {name: value for name, value in pairwise(words) if value[:2] != "--"}
        return [(name, after.get(f"--{name}") or value) for name, value in found]
    name = re.search(r"does not accept (?:nested key|option) '([^']+)'", message)
    name = name or re.search(r"Option '([^']+)' is not accepted", message)
    if name is None:
        return []
    group = re.search(r"(?:Group|key) '([^']+)' does not accept", message) or re.match(r'Parser key "([^"]+)"', message)
    prefix = f"{group[1]}." if group and not name[1].startswith(f"{group[1]}.") else ""
    return [(f"{prefix}{name[1]}", "")]


def _wrong_value(message: str, options: Sequence[str]) -> str:
    """Return what an option must be and what it is; empty if the message does not tell."""
    keys = re.findall(r'Parser key "([^"]+)"', message)
    if not keys:
        return ""
    # A group of settings has a parser of its own, whose sentence is part of this message.
    if inner := re.search(
        r"- (Unknown option )?--(\S+?)(\.| must be .+?)( Did you mean --(.+))?$", message, re.MULTILINE
    ):
        near = f" Did you mean --{keys[0]}.{inner[5]}" if inner[5] else ""
        return f"{inner[1] or ''}--{keys[0]}.{inner[2]}{inner[3]}{near}"
    first, last = keys[0], keys[-1]
    key = last if last.startswith(first) else f"{first}.{last}"
    body = message.rpartition(f'Parser key "{last}"')[2]
    value = re.search(r"(?:Got value: |Given value: |Unable to load config \"|PositiveFloat: )(.*?)(?:\"| does not|$)",
                      body, re.MULTILINE)  # fmt: skip
    expected: list[str] = []
    for kind in re.findall(r"Expected a (.+?)(?:\. Got value: .*)?$", body, re.MULTILINE):
        if choices := re.fullmatch(r"typing\.Literal\[(.+)\]", kind):
            expected += map(str, ast.literal_eval(f"[{choices[1]}]"))
        elif kind.startswith("dot import path"):
            expected.append(_CLASS)
        elif kind in _TYPES:
            expected += _TYPES[kind].split(", ")
    expected += [text for rule, text in _RULES.items() if body.endswith(f"restriction {rule}")]
    expected += ["a path"] if "Not of type Path" in body else []
    expected += [_CLASS] if "Not a valid subclass of" in body else []
    expected += ["timm:NAME (an architecture of timm)"] if "Not of type TimmName" in body else []
    if "Unable to load config" in body:
        expected.append(_CLASS)
    if not expected or value is None:
        return ""
    expected = [kind for kind in dict.fromkeys(expected) if kind != "null"] + ["null"] * ("null" in expected)
    listed = ", ".join(expected[:-1]) + (" or " if expected[1:] else "") + expected[-1]
    found = "null" if value[1] == "None" else repr(value[1])
    meant = nearest_option(key, value[1], options) if key in ("model", "data") else ""
    return f"--{key} must be {listed}, not {found}.{f' Did you mean {meant}?' if meant else ''}"
