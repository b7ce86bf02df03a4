"""Files of rows: their formats, known by the endings of their names, and which files a user means."""

import re
from collections.abc import Sequence
from pathlib import Path

FORMATS = ("parquet", "csv", "tsv", "jsonl")
SEPARATORS = {"csv": ",", "tsv": "\t"}
_PLAIN = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
SUFFIXES = {".parquet": "parquet", **_PLAIN, **{f"{suffix}.gz": kind for suffix, kind in _PLAIN.items()}}


def format_of(path: Path) -> str | None:
    """The format that the file's name tells, or None."""
    name = path.name.lower()
    return next((kind for suffix, kind in SUFFIXES.items() if name.endswith(suffix)), None)


def find_files(items: str | Path | Sequence[str | Path]) -> dict[Path, str | None]:
    """File -> region of files, folders, patterns and "NA=path", each file once, in the order given.

    Files of a folder come by name. Raises FileNotFoundError where there is nothing, ValueError for another
    ending or a file that is given for two regions.
    """
    regions: dict[Path, str | None] = {}
    seen: dict[Path, str | None] = {}
    for item in [items] if isinstance(items, str | Path) else items:
        try:
            region, place = _region(str(item))
            paths = [(path, path.resolve()) for path in _expand(place)]
        except FileNotFoundError:
            raise
        except (OSError, RuntimeError):  # of a name that no system takes, or the home of nobody
            raise FileNotFoundError(f"no file, folder or pattern {item}") from None
        for path, real in paths:
            if real not in seen:
                seen[real] = regions[path] = region
            elif seen[real] != region:
                raise ValueError(f"{path} is given for two regions, {seen[real]} too")
    if not regions:
        raise ValueError("no input: give a file, a folder or a pattern")
    return regions


def _region(item: str) -> tuple[str | None, str]:
    match = re.fullmatch(r"(\w[\w-]*)=(.+)", item)
    return (None, item) if match is None or Path(item).exists() else match.groups()


def _expand(place: str) -> list[Path]:
    path = Path(place).expanduser()
    if path.is_dir():
        inside = sorted(p for p in path.iterdir() if p.is_file() and p.name[0] not in "._")
        found = [p for p in inside if format_of(p)]
        if not found:
            raise FileNotFoundError(f"the folder {path} holds no file ending in {', '.join(SUFFIXES)}")
        return found
    pattern = str(path.relative_to(path.anchor))
    found = [path] if path.is_file() else sorted(Path(path.anchor).glob(pattern))
    found = [p for p in found if p.is_file()]
    if not found:
        raise FileNotFoundError(f"no file, folder or pattern {path}")
    unknown = [str(p) for p in found if not format_of(p)]
    if unknown:
        raise ValueError(f"{', '.join(unknown)}: the name must end in {', '.join(SUFFIXES)}")
    return found
