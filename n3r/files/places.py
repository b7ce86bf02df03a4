"""Where things are: what n3r is shipped with, and where runs and reports go.

Decisions:
- In a checkout all is beside the package, so that a command does the same from any folder.
- An installed n3r has its notebooks and configs inside the package, and writes to the folder that it is
  called from.
"""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
IS_CHECKOUT = (PACKAGE.parent / "pyproject.toml").is_file() and (PACKAGE.parent / "notebooks").is_dir()
SHIPPED = PACKAGE.parent if IS_CHECKOUT else PACKAGE  # holds notebooks/ and configs/
ROOT = PACKAGE.parent if IS_CHECKOUT else Path.cwd()  # holds runs/ and reports/
