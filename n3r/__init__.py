"""n3r: risk of first-order fraud from identity strings and tabular features."""

import os
from importlib import import_module
from typing import Any

from n3r.process import settle

__version__ = "0.1.0"
PUBLIC = {"Model": "n3r.front", "fit": "n3r.front", "load": "n3r.front", "RiskClassifier": "n3r.classifier"}

settle(os.environ)


def __getattr__(name: str) -> Any:
    """The public names, imported when they are asked for."""
    if name not in PUBLIC:
        raise AttributeError(f"module 'n3r' has no attribute {name!r}")
    return getattr(import_module(PUBLIC[name]), name)
