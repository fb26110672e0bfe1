"""Private names of Lightning, torch, torchmetrics and jsonargparse are touched in one file alone.

Any version may move them: `tests/training/test_lightning_internals.py` says when one has.
"""

import ast
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from tests.training.test_lightning_internals import names_in_constructors

PACKAGE = Path(__file__).parents[1] / "bldml"
LIBRARIES = ("jsonargparse", "lightning", "pytorch_lightning", "torch", "torchmetrics", "torchvision")
# Of these, private modules and names may not be imported either.
IMPORTED = (*LIBRARIES, "PIL", "cv2", "jinja2", "matplotlib", "numpy", "onnx", "onnxruntime", "onnxscript", "optuna",
            "scipy", "simplejpeg", "sklearn", "tensorboard", "timm")  # fmt: skip
THE_FILE = "training/lightning_internals.py"
# Private by their name and of none of these libraries.
ALLOWED = {
    ("training/resume/signals.py", "_exit"): "os._exit is documented",
    ("audit/reading.py", "_exit"): "os._exit is documented",
    ("__main__.py", "_exit"): "os._exit is documented",
    ("__main__.py", "_shutdown"): "Python: what its own end does first; multiprocessing calls it too",
    ("__main__.py", "_run_exitfuncs"): "Python: what its own end does next",
    (
        "dataset/formats/tiff.py",
        "PIL._imaging",
    ): "Pillow: its library holds libtiff, whose messages nothing public ends",
    ("dataset/metadata.py", "_getmp"): "Pillow: the second picture of an MPO file, which nothing public gives",
}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def own_names(tree: ast.AST) -> set[str]:
    """Private names that a file itself makes: functions, classes, variables, attributes of self and cls."""
    names = set()
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name) | ast.Name(id=name, ctx=ast.Store()):
                names.add(name)
            case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name, ctx=ast.Store()):
                names.add(name)
    return names


def foreign_bases(tree: ast.Module) -> Iterator[tuple[ast.ClassDef, type]]:
    """Classes of a file that stand on a library's class, with it."""
    imported = {
        alias.asname or alias.name: (node.module, alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in LIBRARIES
        for alias in node.names
    }
    for node in ast.walk(tree):
        for base in node.bases if isinstance(node, ast.ClassDef) else ():
            root, *path = ast.unparse(base).partition("[")[0].split(".")
            if isinstance(node, ast.ClassDef) and root in imported:
                module, name = imported[root]
                found = getattr(import_module(module), name)
                for step in path:
                    found = getattr(found, step)
                yield node, found


def touched(path: Path, file: str) -> Iterator[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    own = own_names(tree)
    for node in ast.walk(tree):
        found: list[str] = []
        match node:
            case ast.Import(names=aliases):
                found = [alias.name for alias in aliases if alias.name.split(".")[0] in IMPORTED]
            case ast.ImportFrom(module=str(module), names=aliases) if module.split(".")[0] in IMPORTED:
                found = [f"{module}.{alias.name}" for alias in aliases]
            case ast.Attribute(attr=name) if name not in own and (file, name) not in ALLOWED:
                found = [name]
            case ast.Call(
                func=ast.Name(id="getattr" | "setattr" | "hasattr"), args=[_, ast.Constant(value=str(name)), *_]
            ):
                found = [name]
            case ast.Subscript(slice=ast.Constant(value=str(name))):
                found = [name]
        for name in found:
            if any(is_private(part) for part in name.split(".")) and (file, name) not in ALLOWED:
                yield f"{file}:{getattr(node, 'lineno', 1)}: {name}"
    for cls, base in foreign_bases(tree):
        inherited = {name for names in names_in_constructors(base) for name in names} | set(dir(base))
        for name in sorted(own_names(cls)):
            if is_private(name) and name in inherited:
                yield f"{file}:{cls.lineno}: {cls.name}.{name} is {base.__name__}'s"


def broken(package: Path) -> list[str]:
    files = {str(path.relative_to(package)): path for path in sorted(package.rglob("*.py"))}
    return [line for file, path in files.items() if file != THE_FILE for line in touched(path, file)]


def test_private_names_are_touched_in_one_file_alone() -> None:
    found = broken(PACKAGE)
    assert not found, f"\n{THE_FILE} is the place for these:\n" + "\n".join(found)


def test_what_is_allowed_is_needed() -> None:
    for file, name in ALLOWED:
        called = name.rpartition(".")[2]
        assert re.search(rf"(\.{called}\(|import {called}$)", (PACKAGE / file).read_text(encoding="utf-8"), re.M)


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("from torch.nn.modules.batchnorm import _BatchNorm", "a.py:1: torch.nn.modules.batchnorm._BatchNorm"),
        ("from optuna.storages._base import x", "a.py:1: optuna.storages._base.x"),
        ("import jsonargparse._common as c", "a.py:1: jsonargparse._common"),
        ("def f(trainer):\n    trainer._signal_connector = None", "a.py:2: _signal_connector"),
        ("def f(m):\n    return getattr(m, '_trainer')", "a.py:2: _trainer"),
        ("def f(state):\n    return state['_batches_that_stepped']", "a.py:2: _batches_that_stepped"),
        ("class A:\n    def f(self):\n        return self._get('x')", "a.py:3: _get"),
        (
            "from lightning.pytorch.cli import LightningCLI\nclass A(LightningCLI):\n    def _set_seed(self): ...",
            "a.py:2: A._set_seed is LightningCLI's",
        ),
        (
            "from lightning.pytorch import LightningModule\nclass A(LightningModule):\n"
            "    def f(self):\n        self._trainer = 1",
            "a.py:2: A._trainer is LightningModule's",
        ),
    ],
)
def test_a_planted_one_is_found(tmp_path: Path, source: str, complaint: str) -> None:
    (tmp_path / "a.py").write_text(source, encoding="utf-8")
    assert complaint in broken(tmp_path)


def test_own_private_names_are_nobodys_business(tmp_path: Path) -> None:
    text = "from torch import nn\nclass A(nn.Module):\n    def f(self):\n        self._own = _g()\n"
    (tmp_path / "a.py").write_text(f"{text}        return self._own\ndef _g(): ...\n", encoding="utf-8")
    assert broken(tmp_path) == []
