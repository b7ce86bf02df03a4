"""n3r: risk of first-order fraud from identity strings and tabular features."""

import os
from importlib import import_module
from typing import Any

from n3r.process import settle

__version__ = "0.1.0"
__all__ = ["Model", "RiskClassifier", "fit", "load"]

settle(os.environ)


def __getattr__(name: str) -> Any:
    """The public names, imported when they are asked for."""
    if name not in __all__:
        raise AttributeError(f"module 'n3r' has no attribute {name!r}")
    module = "n3r.classifier" if name == "RiskClassifier" else "n3r.front"
    return getattr(import_module(module), name)
