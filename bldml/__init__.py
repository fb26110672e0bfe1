"""Binary leaf-disease classifiers: trained, evaluated and handed over.

In Python:

    import bldml

    leaf = bldml.load("lightning_logs/run")       # a run folder or a checkpoint
    leaf.predict("leaf.jpg").probability          # of the positive class
    leaf.explain("leaf.jpg")                      # a picture with its Grad-CAM map
    bldml.Run("lightning_logs/run").figure("roc")

Importing bldml loads nothing else; torch is loaded when `load` is first used.

docs/architecture.md is the map of the packages, and tests/test_import_law.py says which may import which.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bldml.inference.classifier import Classifier, Verdict, load
    from bldml.notebook import Run

__version__ = "0.1.0"
__all__ = ["Classifier", "Run", "Verdict", "load"]

_MODULES = {"Classifier": "inference.classifier", "Verdict": "inference.classifier", "load": "inference.classifier"}
_MODULES["Run"] = "notebook"


def __getattr__(name: str) -> Any:
    """Import what was asked for."""
    if name not in _MODULES:
        raise AttributeError(f"module 'bldml' has no attribute {name!r}")
    return getattr(import_module(f"bldml.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    """Name what can be imported lazily too."""
    return sorted([*globals(), *__all__])
