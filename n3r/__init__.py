"""n3r: risk of first-order fraud from identity strings and tabular features."""

import os
from typing import TYPE_CHECKING, Any

from n3r.process import settle

if TYPE_CHECKING:
    from n3r.front import Model, fit, load

__version__ = "0.1.0"
__all__ = ["Model", "fit", "load"]

settle(os.environ)


def __getattr__(name: str) -> Any:
    """`n3r.fit`, `n3r.load` and `n3r.Model`, imported when they are asked for."""
    if name not in __all__:
        raise AttributeError(f"module 'n3r' has no attribute {name!r}")
    from n3r import front

    return getattr(front, name)
