"""Where things are: what n3r is shipped with, and where runs and reports go.

Decisions:
- In a checkout all is beside the package, so that commands and notebooks do the same from any folder.
- An installed n3r has its notebooks and configs inside the package, and writes to the folder that it is
  called from.
- N3R_HOME names another folder for runs/ and reports/; the runner tells its notebooks so where theirs are.
"""

import os
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
IS_CHECKOUT = (PACKAGE.parent / "pyproject.toml").is_file() and (PACKAGE.parent / "notebooks").is_dir()
SHIPPED = PACKAGE.parent if IS_CHECKOUT else PACKAGE  # holds notebooks/ and configs/
HOME = "N3R_HOME"
ROOT = Path(os.environ.get(HOME) or (PACKAGE.parent if IS_CHECKOUT else Path.cwd())).absolute()


def shipped(path: str | Path) -> Path:
    """A file as it is named, or where there is none the one of that name that n3r is shipped with."""
    return Path(path) if Path(path).exists() else SHIPPED / path
