"""The files that Python code depends on, so that the fingerprint of a result covers the code that made it.

Decisions:
- Imports are read, not run, including those inside functions: files that they do not reach change no result.
- A folder's other files (word lists, templates) belong to each of its modules.
"""

import ast
import hashlib
from collections.abc import Collection
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent


def sources(code: str, without: Collection[str] = (), package: Path = PACKAGE) -> list[Path]:
    """Files of `package` that code imports, directly or by way of others, none of the folders `without`."""
    found: dict[Path, None] = {}
    waiting = _imported(code, package)
    while waiting:
        path = waiting.pop()
        folder = path.parent.relative_to(package).as_posix()
        if path not in found and folder not in without:
            found[path] = None
            waiting += _imported(path.read_text(encoding="utf-8"), package)
    data = [p for folder in {path.parent for path in found} for p in folder.iterdir() if p.suffix != ".py"]
    return sorted([*found, *(path for path in data if path.is_file())])


def fingerprint(code: str, without: Collection[str] = (), package: Path = PACKAGE) -> str:
    """sha256, in hexadecimal, over the names and contents of `sources`."""
    total = hashlib.sha256()
    for path in sources(code, without, package):
        name, content = path.relative_to(package).as_posix().encode(), path.read_bytes()
        total.update(b"%d %b %d " % (len(name), name, len(content)) + content)
    return total.hexdigest()


def _imported(code: str, package: Path) -> list[Path]:
    own = [name.split(".") for name in _names(code) if name.split(".")[0] == package.name]
    places = [package.joinpath(*parts[1:i]) for parts in own for i in range(1, len(parts) + 1)]
    files = [file for place in places for file in (place.with_suffix(".py"), place / "__init__.py")]
    return [file for file in dict.fromkeys(files) if file.is_file()]


@cache
def _names(code: str) -> list[str]:
    """What code imports: modules, and what may be modules in them."""
    names: list[str] = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return list(dict.fromkeys(names))
