"""Who may import whom in bldml, and how large a room may grow."""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from importlib.util import resolve_name
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = Path(__file__).parents[1] / "bldml"

# The floors, from the ground up: each may import itself and the floors named, all of which come before it in this list.
# A name stands for the module and all below it, except that the importer `bldml` is the package's __init__ alone. The
# longest name that fits decides; what has no row may not exist.
FLOORS: dict[str, tuple[str, ...]] = {
    "errors": (),
    "io": ("errors",),
    "metrics": ("errors", "io"),
    "run": ("errors", "io", "metrics"),
    "dataset": ("errors", "io"),
    "training": ("errors", "io", "metrics", "run", "dataset"),
    "inference": (
        *("errors", "io", "dataset", "figures.style"),
        *("training.backbones", "training.transforms", "training.module", "training.checkpoint"),
        *("metrics.certainty", "training.trunk"),
    ),
    "figures": ("errors", "io", "metrics"),
    "report": ("errors", "io", "metrics", "run", "figures"),
    "export": (
        *("errors", "io", "metrics.certainty.novelty", "run", "dataset", "inference", "report"),
        *("training.backbones", "training.checkpoint", "training.module", "training.transforms", "training.trunk"),
        *("figures.style", "training.networks"),
    ),
    "audit": ("errors", "io", "metrics", "run", "dataset", "figures", "report", "training.resume.signals"),
    "survey": (
        *("errors", "io", "metrics", "run", "dataset", "inference", "report.html"),
        "training.checkpoint",
    ),
}
LAW: dict[str, tuple[str, ...]] = {
    # Both are imported when they are first used.
    "bldml": ("bldml.inference.classifier", "bldml.notebook"),
    **{f"bldml.{floor}": tuple(f"bldml.{name}" for name in (floor, *above)) for floor, above in FLOORS.items()},
    "bldml.usage": ("bldml.io",),
    "bldml.notebook": tuple(f"bldml.{name}" for name in ("errors", "io", "run", "report")),
    "bldml.app": ("bldml",),
    "bldml.doctor": ("bldml",),
    "bldml.sweep": ("bldml",),
    "bldml.commands": ("bldml",),
    "bldml.cli": ("bldml",),
    "bldml.__main__": ("bldml.cli",),
}
# What the table alone would allow. All of these packages import torch.
HEAVY = ("torch", "torchvision", "torchmetrics", "lightning", "pytorch_lightning")
LIGHT = ("errors", "io", "metrics", "run", "dataset", "figures", "report", "audit")
NEVER: dict[str, tuple[str, ...]] = {
    "bldml": HEAVY,
    **{f"bldml.{floor}": HEAVY for floor in LIGHT},
    "bldml.training.module": ("bldml.training.data",),
    "bldml.training.data": ("bldml.training.module",),
    "bldml.app": ("bldml.cli", "bldml.commands", "bldml.doctor"),
    "bldml.doctor": ("bldml.cli", "bldml.commands"),
    "bldml.sweep": ("bldml.cli", "bldml.commands"),
    "bldml.commands": ("bldml.cli",),
}
FOLDER_MODULES = 12
ROOM_LINES = 400
FUNCTION_LINES = 60


class Import(NamedTuple):
    importer: str
    target: str
    place: str  # file:line


def is_below(module: str, name: str) -> bool:
    return module == name or module.startswith(f"{name}.")


def is_in_row(importer: str, row: str) -> bool:
    return importer == row if row == "bldml" else is_below(importer, row)


def read_modules(package: Path) -> dict[str, Path]:
    paths = sorted(package.rglob("*.py"))
    names = [".".join(path.relative_to(package.parent).with_suffix("").parts) for path in paths]
    return {name.removesuffix(".__init__"): path for name, path in zip(names, paths, strict=True)}


def targets_of(node: ast.AST, home: str, modules: dict[str, Path]) -> list[str]:
    """What one statement or call imports; `home` is the package that relative names start from."""
    match node:
        case ast.Import(names=aliases):
            return [alias.name for alias in aliases]
        case ast.ImportFrom(module=module, names=aliases, level=level):
            base = resolve_name("." * level + (module or ""), home)
            below = [f"{base}.{alias.name}" for alias in aliases]
            return [name if name in modules else base for name in below]
        case ast.Call(func=ast.Attribute(attr=called) | ast.Name(id=called), args=args, keywords=keywords):
            named = [*args[:1], *(keyword.value for keyword in keywords if keyword.arg == "name")]
            if called in ("import_module", "__import__"):
                texts = [arg.value for arg in named if isinstance(arg, ast.Constant)]
                return [resolve_name(text, home) for text in texts if isinstance(text, str)]
    return []


def read_imports(package: Path) -> list[Import]:
    modules = read_modules(package)
    imports = []
    for importer, path in modules.items():
        home = importer if path.name == "__init__.py" else importer.rpartition(".")[0]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            place = f"{path.relative_to(package.parent)}:{getattr(node, 'lineno', 1)}"
            imports += [Import(importer, target, place) for target in targets_of(node, home, modules)]
    return imports


def broken_laws(package: Path) -> Iterator[str]:
    row_of = {
        importer: max((row for row in LAW if is_in_row(importer, row)), key=len, default="")
        for importer in read_modules(package)
    }
    for importer, path in read_modules(package).items():
        if not row_of[importer]:
            yield f"{path.relative_to(package.parent)}:1: {importer} has no row in LAW"
    for importer, target, place in read_imports(package):
        allowed = LAW.get(row_of[importer], ())
        if is_below(target, "bldml") and not any(is_below(target, name) for name in allowed):
            of_bldml = ", ".join(allowed) or "nothing"
            yield f"{place}: {importer} may not import {target}; of bldml only {of_bldml}"
        never = [name for row, names in NEVER.items() if is_in_row(importer, row) for name in names]
        if any(is_below(target, name) for name in never):
            yield f"{place}: {importer} may never import {target}"
    yield from circles(package)


def circles(package: Path) -> Iterator[str]:
    """Yield the first circle; importing a.b.c imports a.b too, unless the importer lies in a.b itself."""
    modules = read_modules(package)
    places: dict[tuple[str, str], str] = {}
    for importer, target, place in read_imports(package):
        for name in modules:
            outside = name == target or (is_below(target, name) and not is_below(importer, name))
            if outside and name != importer:
                places.setdefault((importer, name), place)
    graph: dict[str, set[str]] = {name: set() for name in modules}
    for importer, target in places:
        graph[importer].add(target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        circle: list[str] = error.args[1][::-1]
        steps = [f"{places[step]} ({step[1]})" for step in pairwise(circle)]
        yield f"circle of imports, none is allowed: {circle[0]} -> {' -> '.join(steps)}"


def large_rooms(package: Path) -> Iterator[str]:
    for path in read_modules(package).values():
        source = path.read_text(encoding="utf-8")
        file = path.relative_to(package.parent)
        if (lines := len(source.splitlines())) > ROOM_LINES:
            yield f"{file}:{lines}: a file of {lines} lines; at most {ROOM_LINES}"
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > FUNCTION_LINES:
                    yield f"{file}:{node.lineno}: {node.name} has {lines} lines; at most {FUNCTION_LINES}"


def full_folders(package: Path) -> Iterator[str]:
    folders = Counter(path.parent for path in read_modules(package).values() if path.name != "__init__.py")
    for folder, count in folders.items():
        if count > FOLDER_MODULES:
            yield f"{folder.relative_to(package.parent)}: {count} modules; at most {FOLDER_MODULES}"


def twice_defined(package: Path) -> Iterator[str]:
    """Public functions and classes of one name in two files: one of them is the wrong one to find."""
    places: dict[str, list[str]] = {}
    for path in read_modules(package).values():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(f"{path.relative_to(package.parent)}:{node.lineno}")
    for name, found in places.items():
        # A plain command is called what its user types, and what does it may be called so too.
        others = [place for place in found if not place.startswith("bldml/commands.py:")]
        if len(others) > 1 and name != "main":
            yield f"{name} is defined twice: {', '.join(others)}"


def broken(package: Path) -> list[str]:
    return [*broken_laws(package), *large_rooms(package), *full_folders(package), *twice_defined(package)]


def test_imports_follow_the_law() -> None:
    assert len(read_imports(PACKAGE)) > 1, f"no imports found below {PACKAGE}"
    found = list(broken_laws(PACKAGE))
    assert not found, "\n" + "\n".join(found)


def test_folders_files_and_functions_are_small() -> None:
    large = [*large_rooms(PACKAGE), *full_folders(PACKAGE)]
    assert not large, "\n" + "\n".join(large)


def test_the_architecture_names_every_module_and_row() -> None:
    page = (PACKAGE.parent / "docs" / "architecture.md").read_text(encoding="utf-8")
    files = {path.name for path in read_modules(PACKAGE).values()} - {"__init__.py"}
    assert not [name for name in sorted(files) if name not in page]
    named = set(re.findall(r"\b\w+\.py\b", page))
    tests = {path.name for path in Path(__file__).parent.rglob("*.py")}
    assert not named - files - tests - {"__init__.py"}, "modules that do not exist"
    for floor, above in FLOORS.items():
        row = next(line for line in page.splitlines() if line.startswith(f"| `{floor}`"))
        shown = set(re.findall(r"`\.?([\w.]+)`", row.split("|")[2]))
        assert {name.removeprefix("training.") for name in shown} == {name.removeprefix("training.") for name in above}


def test_no_public_name_is_defined_twice() -> None:
    found = list(twice_defined(PACKAGE))
    assert not found, "\n" + "\n".join(found)


def test_a_full_folder_is_found(tmp_path: Path) -> None:
    package = tmp_path / "bldml"
    (package / "io").mkdir(parents=True)
    for name in ("__init__", *(f"m{number}" for number in range(12))):
        (package / "io" / f"{name}.py").write_text("")
    assert list(full_folders(package)) == []
    (package / "io" / "m12.py").write_text("")
    assert list(full_folders(package)) == ["bldml/io: 13 modules; at most 12"]


LONG_FUNCTION = "def long():\n" + "    pass\n" * FUNCTION_LINES


@pytest.mark.parametrize(
    ("file", "source", "complaint"),
    [
        ("dataset/folders.py", "\nimport bldml.run.folder", "bldml/dataset/folders.py:2: "),
        ("dataset/folders.py", "def find():\n    from bldml.training import module", "folders.py:2: "),
        ("dataset/folders.py", "from ..run import folder", "may not import bldml.run.folder"),
        ("dataset/__init__.py", "from ..run.folder import write", "may not import bldml.run.folder"),
        ("dataset/folders.py", "import importlib\nimportlib.import_module('bldml.cli')", "folders.py:2: "),
        ("dataset/folders.py", "import torch.nn as nn", "may never import torch.nn"),
        ("run/folder.py", "if True:\n    from lightning.pytorch import Trainer", "folder.py:2: "),
        ("metrics/scores.py", "from bldml.run import folder", "may not import bldml.run.folder"),
        ("io/text.py", "from bldml.dataset import folders", "may not import bldml.dataset.folders"),
        ("training/module.py", "from bldml.training.data import datamodule", "never import bldml.training.data"),
        ("training/data/datamodule.py", "from ..module import LeafClassifier", "never import bldml.training.mod"),
        ("training/module.py", "from bldml.figures import plots", "may not import bldml.figures.plots"),
        ("inference/export.py", "import bldml.training.data.datamodule", "may not import bldml.training.data"),
        ("errors.py", "from bldml.dataset import folders", "of bldml only bldml.errors"),
        ("app.py", "from bldml import cli", "bldml.app may never import bldml.cli"),
        ("__init__.py", "from bldml.dataset import folders", "bldml may not import bldml.dataset.folders"),
        ("__main__.py", "import bldml.app", "of bldml only bldml.cli"),
        ("utils.py", "", "bldml/utils.py:1: bldml.utils has no row in LAW"),
        ("training/module.py", "from . import backbones", "circle of imports"),
        ("dataset/images.py", "\n" * 401, "a file of 401 lines; at most 400"),
        ("dataset/images.py", "class A: ...\ndef find(): ...", "find is defined twice: bldml/dataset/folders.py:"),
        ("dataset/images.py", LONG_FUNCTION, "bldml/dataset/images.py:1: long has 61 lines"),
    ],
)
def test_planted_violation_is_found(tmp_path: Path, file: str, source: str, complaint: str) -> None:
    package = tmp_path / "bldml"
    lawful = {
        "__init__.py": "__version__ = '0.1.0'",
        "__main__.py": "from bldml.cli import main",
        "cli.py": "import importlib\nimportlib.import_module('bldml.run.folder')\nfrom bldml.app import run",
        "app.py": "import torch\nfrom .training import module\nfrom .training.data import leaves",
        "errors.py": "",
        "io/__init__.py": "",
        "io/text.py": "import yaml",
        "metrics/__init__.py": "",
        "metrics/scores.py": "from bldml.io import text",
        "dataset/__init__.py": "from bldml.dataset.folders import find",
        "dataset/folders.py": "from pathlib import Path\nfrom . import images\ndef find(): ...",
        "dataset/images.py": "import torch_free",
        "run/__init__.py": "",
        "run/folder.py": "import csv\nfrom bldml.errors import RunError",
        "figures/__init__.py": "",
        "figures/plots.py": "from bldml.metrics import scores",
        "training/__init__.py": "",
        "training/backbones.py": "def f():\n    from bldml.training.module import LeafClassifier",
        "training/module.py": "from bldml.run import folder",
        "training/data/__init__.py": "",
        "training/data/datamodule.py": "import lightning\nfrom ...dataset import folders",
        "inference/__init__.py": "",
        "inference/export.py": "from bldml.training import backbones",
    }
    for name, text in lawful.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text, encoding="utf-8")
    assert broken(package) == []

    (package / file).write_text(source, encoding="utf-8")
    found = broken(package)
    assert any(complaint in line for line in found), found
