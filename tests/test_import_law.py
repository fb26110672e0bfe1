"""Who may import whom in bldml, and how large a room may grow."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from importlib.util import resolve_name
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = Path(__file__).parents[1] / "bldml"

# Importer -> what it may import of bldml. A name stands for the module and all below it, except that the
# importer `bldml` is the package's __init__ alone. The longest name that fits decides; what has no row may
# not exist.
LAW: dict[str, tuple[str, ...]] = {
    "bldml": (),
    "bldml.dataset": ("bldml.dataset",),
    "bldml.results": ("bldml.results",),
    "bldml.config": (),
    "bldml.training": (
        "bldml.training",
        "bldml.dataset",
        "bldml.results.run",
        "bldml.results.tables",
        "bldml.results.evaluation",
        "bldml.results.operating_point",
    ),
    "bldml.inference": (
        "bldml.inference",
        "bldml.dataset",
        "bldml.training.backbones",
        "bldml.training.transforms",
        "bldml.training.module",
        "bldml.training.checkpoint",
    ),
    "bldml.audit": ("bldml.audit", "bldml.dataset", "bldml.results"),
    "bldml.app": ("bldml",),
    "bldml.doctor": ("bldml",),
    "bldml.commands": ("bldml",),
    "bldml.cli": ("bldml",),
    "bldml.__main__": ("bldml.cli",),
}
# What the table alone would allow. All of these packages import torch.
HEAVY = ("torch", "torchvision", "torchmetrics", "lightning", "pytorch_lightning")
NEVER: dict[str, tuple[str, ...]] = {
    "bldml": HEAVY,
    "bldml.dataset": HEAVY,
    "bldml.results": HEAVY,
    "bldml.training.module": ("bldml.training.datamodule",),
    "bldml.training.datamodule": ("bldml.training.module",),
    "bldml.app": ("bldml.cli", "bldml.commands"),
    "bldml.doctor": ("bldml.cli", "bldml.commands"),
    "bldml.audit": ("bldml.cli", "bldml.commands", *HEAVY),
    "bldml.commands": ("bldml.cli",),
}
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


def test_imports_follow_the_law() -> None:
    assert len(read_imports(PACKAGE)) > 1, f"no imports found below {PACKAGE}"
    broken = list(broken_laws(PACKAGE))
    assert not broken, "\n" + "\n".join(broken)


def test_rooms_and_functions_are_small() -> None:
    large = list(large_rooms(PACKAGE))
    assert not large, "\n" + "\n".join(large)


LONG_FUNCTION = "def long():\n" + "    pass\n" * FUNCTION_LINES


@pytest.mark.parametrize(
    ("file", "source", "complaint"),
    [
        ("dataset/folders.py", "\nimport bldml.results.run", "bldml/dataset/folders.py:2: "),
        ("dataset/folders.py", "def find():\n    from bldml.training import module", "folders.py:2: "),
        ("dataset/folders.py", "from ..results import run", "may not import bldml.results.run"),
        ("dataset/__init__.py", "from ..results.run import write", "may not import bldml.results.run"),
        ("dataset/folders.py", "import importlib\nimportlib.import_module('bldml.cli')", "folders.py:2: "),
        ("dataset/folders.py", "import torch.nn as nn", "may never import torch.nn"),
        ("results/run.py", "if True:\n    from lightning.pytorch import Trainer", "run.py:2: "),
        ("training/module.py", "from bldml.training import datamodule", "never import bldml.training.data"),
        ("training/datamodule.py", "from .module import LeafClassifier", "never import bldml.training.mod"),
        ("training/module.py", "from bldml.results import plots", "may not import bldml.results.plots"),
        ("inference/export.py", "import bldml.training.datamodule", "may not import bldml.training.data"),
        ("config.py", "from bldml.dataset import folders", "of bldml only nothing"),
        ("app.py", "from bldml import cli", "bldml.app may never import bldml.cli"),
        ("__init__.py", "from bldml.dataset import folders", "bldml may not import bldml.dataset.folders"),
        ("__main__.py", "import bldml.app", "of bldml only bldml.cli"),
        ("utils.py", "", "bldml/utils.py:1: bldml.utils has no row in LAW"),
        ("training/module.py", "from . import backbones", "circle of imports"),
        ("dataset/images.py", "\n" * 401, "a file of 401 lines; at most 400"),
        ("dataset/images.py", LONG_FUNCTION, "bldml/dataset/images.py:1: long has 61 lines"),
    ],
)
def test_planted_violation_is_found(tmp_path: Path, file: str, source: str, complaint: str) -> None:
    package = tmp_path / "bldml"
    lawful = {
        "__init__.py": "__version__ = '0.1.0'",
        "__main__.py": "from bldml.cli import main",
        "cli.py": "import importlib\nimportlib.import_module('bldml.results.run')\nfrom bldml.app import run",
        "app.py": "import torch\nfrom bldml import config\nfrom .training import module, datamodule",
        "config.py": "import yaml",
        "dataset/__init__.py": "from bldml.dataset.folders import find",
        "dataset/folders.py": "from pathlib import Path\nfrom . import images",
        "dataset/images.py": "import torch_free",
        "results/__init__.py": "",
        "results/run.py": "import csv",
        "results/plots.py": "from .run import read",
        "training/__init__.py": "",
        "training/backbones.py": "def f():\n    from bldml.training.module import LeafClassifier",
        "training/module.py": "from bldml.results import run",
        "training/datamodule.py": "import lightning\nfrom ..dataset import folders",
        "inference/__init__.py": "",
        "inference/export.py": "from bldml.training import backbones",
    }
    for name, text in lawful.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text, encoding="utf-8")
    assert [*broken_laws(package), *large_rooms(package)] == []

    (package / file).write_text(source, encoding="utf-8")
    found = [*broken_laws(package), *large_rooms(package)]
    assert any(complaint in line for line in found), found
