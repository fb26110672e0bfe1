"""constraints-lowest.txt names the floor of every requirement of pyproject.toml, and constraints.txt one above it."""

import re
import tomllib

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.support import REPOSITORY


def requirements() -> dict[str, Requirement]:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    texts = [*project["dependencies"], *(text for extra in project["optional-dependencies"].values() for text in extra)]
    return {canonicalize_name(found.name): found for found in map(Requirement, texts)}


def pins(file: str) -> dict[str, str]:
    lines = re.findall(r"^([\w.-]+)==(\S+)$", (REPOSITORY / file).read_text(encoding="utf-8"), re.M)
    return {canonicalize_name(name): version for name, version in lines}


def test_lowest_versions_are_the_floors() -> None:
    lowest = pins("constraints-lowest.txt")
    assert lowest.keys() == requirements().keys()
    for name, requirement in requirements().items():
        (floor,) = [clause.version for clause in requirement.specifier if clause.operator == ">="]
        assert f"{lowest[name]}.".startswith(f"{floor}."), f"{name}: {floor} in pyproject.toml, {lowest[name]} here"


def test_tested_versions_are_allowed() -> None:
    tested = pins("constraints.txt")
    for name, requirement in requirements().items():
        assert Version(tested[name]) in requirement.specifier, name
