"""Files of rows: their formats, known by the endings of their names, and which files a user means."""

import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

FORMATS = ("parquet", "csv", "tsv", "jsonl")  # that are written
SEPARATORS = {"csv": ",", "tsv": "\t"}
_PLAIN = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
SUFFIXES = {".parquet": "parquet", **_PLAIN, **{f"{suffix}.gz": kind for suffix, kind in _PLAIN.items()}}
SUFFIXES[".xlsx"] = "xlsx"


def format_of(path: Path) -> str | None:
    """The format that the file's name tells, or None."""
    name = path.name.lower()
    return next((kind for suffix, kind in SUFFIXES.items() if name.endswith(suffix)), None)


def written_as(kind: str) -> str:
    """The format in which what comes of files of a format is written."""
    return "csv" if kind == "xlsx" else kind


def find_files(items: str | Path | Sequence[str | Path]) -> dict[Path, str | None]:
    """File -> region of files, folders, patterns and "NA=path", each file once, in the order given.

    Files of a folder come by name, then those of its Hive partitions (`month=2025-01`). Raises
    FileNotFoundError where there is nothing, ValueError for another ending or a file given for two regions.
    """
    regions: dict[Path, str | None] = {}
    seen: dict[Path, str | None] = {}
    for item in [items] if isinstance(items, str | Path) else items:
        try:
            region, place = split_region(str(item))
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


def split_region(item: str) -> tuple[str | None, str]:
    """Region and path of "NA=path"; None and the item where that is a path or a pattern itself."""
    match = re.fullmatch(r"(\w[\w-]*)=(.+)", item)
    with suppress(OSError):  # of a name that no system takes
        if match and not _found(Path(item)):
            return match.groups()
    return None, item


def _found(path: Path) -> list[Path]:
    """The path, if there is one, or what it matches as a pattern."""
    return [path] if path.exists() else sorted(Path(path.anchor).glob(str(path.relative_to(path.anchor))))


def _expand(place: str) -> list[Path]:
    path = Path(place).expanduser()
    if path.is_dir():
        if not (found := _inside(path)):
            raise FileNotFoundError(f"the folder {path} holds no file ending in {', '.join(SUFFIXES)}")
        return found
    matches = _found(path)
    found = [inside for match in matches for inside in ([match] if match.is_file() else _inside(match))]
    if not found:
        raise FileNotFoundError(f"no file, folder or pattern {path}")
    unknown = [str(p) for p in found if not format_of(p)]
    if unknown:
        raise ValueError(f"{', '.join(unknown)}: the name must end in {', '.join(SUFFIXES)}")
    return found


def _inside(folder: Path) -> list[Path]:
    """Files of rows in a folder and in its partitions, folders named "month=2025-01", by name."""
    inside = sorted(p for p in folder.iterdir() if p.name[0] not in "._") if folder.is_dir() else []
    found = [p for p in inside if p.is_file() and format_of(p)]
    partitions = [p for p in inside if "=" in p.name and p.is_dir() and not p.is_symlink()]
    return found + [file for partition in partitions for file in _inside(partition)]


def part_path(folder: Path, split: str, number: int, kind: str) -> Path:
    """Where a part of a split lies in a folder of prepared data."""
    return folder / split / f"part-{number:06d}.{kind}"


def beside(output: Path, what: str) -> Path:
    """A hidden folder in an output that is a folder, or beside one that is a file."""
    if output.suffix.removeprefix(".") in FORMATS:
        return output.with_name(f".{output.name}.{what}")
    return output / f".{what}"


def as_folder(path: Path, formats: str = "none") -> Path:
    """The path of a folder to write into; ValueError where it ends as a file does, naming `formats`."""
    if re.fullmatch(r"\.[A-Za-z][A-Za-z0-9]{1,7}", path.suffix) and not path.is_dir():
        raise ValueError(
            f"{path} is to be a folder and ends as a file does: leave {path.suffix!r} out (files that can be "
            f"written here end in: {formats})"
        )
    return path
