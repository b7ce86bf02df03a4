"""Reading and writing tables: raw ones of any make, and the prepared splits.

Decisions:
- CSV and TSV are read as text throughout, so that customers called "NA", "None" or "007" stay who
  they are (defect 33); an unquoted empty cell is null, a quoted one is "". Only columns the map
  declares numeric, or "*" finds to be numbers to the last row, are then made Float64.
- Columns keep the names in the file, never a position (defect 28), and each file is read once,
  however many arguments lead to it (defect 30).
- Of several files the columns they share are kept, in the first file's order and without the
  map's `ignore`; `dropped_columns` names the rest. A column the map needs must be in every file.
- Each CSV is read once in full before it is used (its numbers must be typed anyway), which finds
  damage early. A Parquet body is decoded only when used: `Source.reading` then names the file.
- A polars message may quote the cell it stumbled on, a person's name: none is ever passed on.
- Everything is written aside and renamed; a folder of splits is replaced as a whole.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from polars.exceptions import PanicException, PolarsError

from n3r.files.atomic import atomic_file, atomic_folder
from n3r.files.json_io import read_json
from n3r.files.limits import MAX_EXPANSION, check_gzip, check_parquet
from n3r.schema import EVERY_OTHER, FILE_COLUMN, OWN, ROW, SPLITS, ColumnMap, is_pattern

SUFFIXES = {
    ".parquet": "parquet",
    ".csv": "csv",
    ".csv.gz": "csv",
    ".tsv": "tsv",
    ".tsv.gz": "tsv",
}  # ".snappy.parquet" ends in ".parquet"
SEPARATORS = {"csv": ",", "tsv": "\t"}
REGION = "region"
POLARS_ERRORS = (PolarsError, PanicException)  # damaged Parquet can bring about the second
TRUE, FALSE = ["true", "True", "TRUE"], ["false", "False", "FALSE"]
_DTYPES = {
    str(kind): kind for kind in (pl.String, pl.Float32, pl.Float64, pl.Int8, pl.Int64, pl.Datetime("us"))
}


@dataclass(frozen=True)
class Source:
    """Raw files as one lazy table."""

    frame: pl.LazyFrame
    format: str  # "parquet", "csv" or "tsv"
    files: tuple[Path, ...]  # each once, in reading order
    dropped_columns: tuple[str, ...]  # in some files but not in all

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Within it, a polars error on damaged data becomes a ValueError naming the files."""
        try:
            yield
        except POLARS_ERRORS:
            damaged = [str(path) for path in self.files if not _is_whole(path, self.format)]
            if not damaged:
                raise
            raise ValueError(f"damaged, write anew: {', '.join(damaged)}") from None


def scan(
    data: str | Path | Sequence[str | Path], column_map: ColumnMap, max_expansion: float = MAX_EXPANSION
) -> Source:
    """One lazy table of files, folders and patterns.

    "NA=path" gives the rows of that path the value NA in a column `region`, in place of the file's. With
    `split_files` in the map, each row also gets the name of its file. Raises FileNotFoundError, or ValueError
    naming the file at fault, also one that holds more than `max_expansion` times its size (limits.py).
    """
    regions = find_files([data] if isinstance(data, str | Path) else data)
    formats = sorted({format_of(path) for path in regions})
    if len(formats) > 1:
        raise ValueError(f"one call reads one format, found {' and '.join(formats)} files")
    frames = {path: _open(path, formats[0], max_expansion) for path in regions}
    frames = {path: _with_origin(frames[path], path, regions[path], column_map) for path in frames}
    shared, dropped = _shared_columns(frames, column_map)
    for path in frames if formats[0] == "parquet" else []:
        check_parquet(path, shared, max_expansion)
    if formats[0] in SEPARATORS:
        numbers = _number_columns(frames, shared, column_map)
        frames = {p: f.with_columns(number(name) for name in numbers) for p, f in frames.items()}
    frame = pl.concat([f.select(shared) for f in frames.values()], how="vertical_relaxed")
    return Source(frame, formats[0], tuple(frames), dropped)


def fingerprint(files: Iterable[str | Path]) -> str:
    """sha256 over the files' contents, in the order given."""
    total = hashlib.sha256()
    for path in files:
        with Path(path).open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


def write(frame: pl.DataFrame, path: str | Path) -> None:
    """Write a table in the format of the path's suffix: .parquet, .csv or .tsv.

    Raises ValueError naming the folder when it cannot be written; no half file is left.
    """
    path = Path(path)
    kind = path.suffix.removeprefix(".")
    if kind != "parquet" and kind not in SEPARATORS:
        raise ValueError(f"cannot write {path}: the name must end in .parquet, .csv or .tsv")
    with atomic_file(path, *POLARS_ERRORS) as aside:
        if kind == "parquet":
            frame.write_parquet(
                aside, compression_level=1
            )  # 3, the default, takes twice as long for 12 % less
        else:
            # The default quoting, "necessary", is the one that keeps null apart from "".
            frame.write_csv(aside, separator=SEPARATORS[kind])


def write_splits(
    folder: str | Path,
    splits: Mapping[str, pl.DataFrame],
    column_map: ColumnMap,
    format: str = "parquet",
) -> None:
    """Write prepared splits and `columns.json`: the resolved map, the format and the types.

    An earlier run's stay until these are all written. Raises ValueError naming the folder when it cannot be
    written or holds something else, or an unknown split or format.
    """
    folder = Path(folder)
    if sorted(splits) != sorted(SPLITS) or format not in SUFFIXES.values():
        raise ValueError(
            f"expected the splits {SPLITS} as parquet, csv or tsv, found {tuple(splits)} as {format!r}"
        )
    types = {name: str(kind) for name, kind in splits["train"].schema.items()}
    odd = [f"{name!r} ({kind})" for name, kind in types.items() if kind not in _DTYPES]
    if odd:
        raise ValueError(f"prepared tables hold only {list(_DTYPES)}, found {', '.join(odd)}")
    content = {"format": format, "types": types, "column_map": column_map.model_dump()}
    with atomic_folder(folder, "prepared data", "columns.json") as aside:
        for split in SPLITS:
            write(splits[split], aside / f"{split}.{format}")
        (aside / "columns.json").write_text(
            json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8"
        )


def read_split(folder: str | Path, split: str, columns: Sequence[str] | None = None) -> pl.DataFrame:
    """One prepared split, all of its columns or those given, as it was written.

    Raises FileNotFoundError when nothing is prepared there, ValueError on an unknown name.
    """
    content = _read_columns(folder)
    if split not in SPLITS:
        raise ValueError(f"there is no split {split!r}, only {SPLITS}")
    types = {name: _DTYPES[kind] for name, kind in content["types"].items()}
    unknown = [name for name in columns or [] if name not in types]
    if unknown:
        raise ValueError(f"the prepared data in {folder} have no column {', '.join(unknown)}")
    path = Path(folder) / f"{split}.{content['format']}"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; run 01_preprocess first")
    try:
        frame = scan_file(path, content["format"], types)
        return frame.select(columns or list(types)).collect(engine="streaming")
    except POLARS_ERRORS:
        raise ValueError(f"{path} is damaged; run 01_preprocess again") from None


def read_column_map(folder: str | Path) -> ColumnMap:
    """The resolved column map that prepared splits were made with.

    Raises FileNotFoundError when nothing is prepared there.
    """
    return ColumnMap(**_read_columns(folder)["column_map"])


def prepared_format(folder: str | Path) -> str:
    """The format of the input that prepared splits came from: "parquet", "csv" or "tsv".

    Raises FileNotFoundError when nothing is prepared there.
    """
    return _read_columns(folder)["format"]


def _read_columns(folder: str | Path) -> dict:
    path = Path(folder) / "columns.json"
    try:
        content = read_json(path)
        ColumnMap(**content["column_map"])
        return content
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(
            f"no prepared data in {folder} (no columns.json); run 01_preprocess first"
        ) from None
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path} is damaged; run 01_preprocess again") from None


def format_of(path: Path, suffixes: Mapping[str, str] = SUFFIXES) -> str | None:
    """The format that the file's name tells, or None."""
    name = path.name.lower()
    return next((kind for suffix, kind in suffixes.items() if name.endswith(suffix)), None)


def find_files(items: Sequence[str | Path], suffixes: Mapping[str, str] = SUFFIXES) -> dict[Path, str | None]:
    """File -> region, each file once, in the order given and by name within a folder; raises as `scan`."""
    regions: dict[Path, str | None] = {}
    seen: dict[Path, str | None] = {}
    for item in items:
        try:
            region, place = _region(str(item))
            paths = _expand(place, suffixes)
        except FileNotFoundError:
            raise
        except (OSError, RuntimeError):  # of a name that no system takes, or the home of nobody
            raise FileNotFoundError(f"no file, folder or pattern {item}") from None
        for path in paths:
            if seen.setdefault(path.resolve(), region) != region:
                raise ValueError(f"{path} is given for two regions, {seen[path.resolve()]} too")
            if path.resolve() not in {other.resolve() for other in regions}:
                regions[path] = region
    if not regions:
        raise ValueError("no input: give a file, a folder or a pattern")
    return regions


def _region(item: str) -> tuple[str | None, str]:
    match = re.fullmatch(r"(\w[\w-]*)=(.+)", item)
    return (None, item) if match is None or Path(item).exists() else match.groups()


def _expand(place: str, suffixes: Mapping[str, str]) -> list[Path]:
    path = Path(place).expanduser()
    if path.is_dir():
        inside = sorted(p for p in path.iterdir() if p.is_file() and p.name[0] not in "._")
        found = [p for p in inside if format_of(p, suffixes)]
        if not found:
            raise FileNotFoundError(f"the folder {path} holds no file ending in {', '.join(suffixes)}")
        return found
    pattern = str(path.relative_to(path.anchor))
    found = [path] if path.is_file() else sorted(Path(path.anchor).glob(pattern))
    found = [p for p in found if p.is_file()]
    if not found:
        raise FileNotFoundError(f"no file, folder or pattern {path}")
    unknown = [str(p) for p in found if not format_of(p, suffixes)]
    if unknown:
        raise ValueError(f"{', '.join(unknown)}: the name must end in {', '.join(suffixes)}")
    return found


def scan_file(path: Path, kind: str, types: Mapping | None = None) -> pl.LazyFrame:
    """One file as a lazy table; a CSV or TSV as text throughout, unless `types` are given."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise ValueError(f"{path} has a name that is not UTF-8: rename it") from None
    if kind == "parquet":
        return pl.scan_parquet(path, glob=False, hive_partitioning=False)
    separator = SEPARATORS[kind]
    return pl.scan_csv(path, separator=separator, schema=types, infer_schema=False, glob=False)


def scan_rows(path: Path, kind: str, max_expansion: float = MAX_EXPANSION) -> pl.LazyFrame:
    """One file as a lazy table, JSON lines as well, whose types fit all rows and not the first ones alone.

    Raises ValueError naming a file that holds more than `max_expansion` times its size, and what polars and
    the system raise for one that cannot be read.
    """
    if path.name.lower().endswith(".gz"):
        check_gzip(path, max_expansion)
    if kind == "jsonl":
        return pl.scan_ndjson(path, infer_schema_length=None)
    frame = scan_file(path, kind)
    if kind == "parquet":
        check_parquet(path, frame.collect_schema().names(), max_expansion)
    return frame


def _open(path: Path, kind: str, max_expansion: float) -> pl.LazyFrame:
    """The file as a lazy table; raises ValueError if it is empty or cannot be read."""
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty (0 bytes)")
    try:
        if path.name.lower().endswith(".gz"):
            check_gzip(path, max_expansion)
        frame = scan_file(path, kind)
        names = frame.collect_schema().names()
        # The rows of a CSV are counted where they are decoded: an open quote would hide them here.
        _refuse_no_rows(path, 1 if kind in SEPARATORS else frame.select(pl.len()).collect().item())
    except (*POLARS_ERRORS, OSError):
        raise ValueError(_damage(path, kind)) from None
    if odd := [name for name in names if is_pattern(name) or name.startswith(OWN)]:
        raise ValueError(f"{path} has a column name that is a pattern or n3r's own: rename {odd[0]!r}")
    twice = [name for name in names if re.search(r"_duplicated_\d+$", name)]
    if kind in SEPARATORS and twice:
        raise ValueError(f"{path} has {len(twice)} column names twice; rename them in its header")
    return frame


def _refuse_no_rows(path: Path, n_rows: int) -> None:
    if n_rows == 0:
        raise ValueError(f"{path} has no rows; leave it out or write it anew")


def _damage(path: Path, kind: str) -> str:
    if kind == "parquet":
        return f"{path} cannot be read as Parquet: damaged, cut short or another format"
    return (
        f"{path} cannot be read as {kind.upper()}: an open quote, a row with more fields than the "
        "header, text that is not UTF-8, or a damaged file"
    )


def _is_whole(path: Path, kind: str) -> bool:
    """Whether every column of the file can be decoded."""
    try:
        frame = scan_file(path, kind)
        for name in frame.collect_schema().names():
            frame.select(pl.col(name)).collect(engine="streaming")
    except (*POLARS_ERRORS, OSError):
        return False
    return True


def _with_origin(frame: pl.LazyFrame, path: Path, region: str | None, column_map: ColumnMap) -> pl.LazyFrame:
    if region is not None:
        frame = frame.with_columns(pl.lit(region).alias(REGION))
    if column_map.split_files:
        frame = frame.with_columns(pl.lit(path.name).alias(FILE_COLUMN))
    return frame


def _shared_columns(
    frames: Mapping[Path, pl.LazyFrame], column_map: ColumnMap
) -> tuple[list[str], tuple[str, ...]]:
    """The columns all files have and those that only some have."""
    schemas = {path: frame.collect_schema() for path, frame in frames.items()}
    first = next(iter(schemas.values()))
    problems = [
        f"{path}: {problem}"
        for path, schema in schemas.items()
        for problem in column_map.missing_from(schema)
    ]
    if problems:
        listed = "".join(f"\n- {problem}" for problem in problems)
        raise ValueError(f"columns that the column map names are missing:{listed}")
    shared = [name for name in first if all(name in schema for schema in schemas.values())]
    shared = [name for name in shared if name not in column_map.ignore]
    every = dict.fromkeys(name for schema in schemas.values() for name in schema)
    dropped = [name for name in every if name not in shared and name not in column_map.ignore]
    _check_kinds(schemas, shared)
    return shared, tuple(dropped)


def _check_kinds(schemas: Mapping[Path, pl.Schema], shared: Sequence[str]) -> None:
    """Raise where a column is a number in one file and text, say, in another."""
    for name in shared:
        kinds: dict[str, Path] = {}
        for path, schema in schemas.items():
            number = schema[name].is_numeric() or schema[name] == pl.Boolean
            kinds.setdefault("a number" if number else str(schema[name]), path)
        kinds.pop("Null", None)
        if len(kinds) > 1:
            found = ", ".join(f"{kind} in {path}" for kind, path in kinds.items())
            raise ValueError(
                f"column {name!r} differs between files: {found}; make them agree or put it in "
                "the column map's `ignore`"
            )


def number(name: str) -> pl.Expr:
    """Column of text as Float64, true and false as 1 and 0, anything else null."""
    text = pl.col(name).str.strip_chars()
    # Membership, not a replacement table: that took 2.7 times as long on 34 columns of numbers.
    words = pl.when(text.is_in(TRUE)).then(1.0).when(text.is_in(FALSE)).then(0.0)
    return pl.coalesce(text.cast(pl.Float64, strict=False), words).alias(name)


def _number_columns(
    frames: Mapping[Path, pl.LazyFrame], shared: Sequence[str], column_map: ColumnMap
) -> list[str]:
    """Which text columns hold numbers; raises where one declared numeric does not."""
    declared = [name for name in shared if name in (*column_map.declared_numeric, column_map.oracle)]
    spread = shared if EVERY_OTHER in column_map.numeric else []
    candidates = [*declared, *(name for name in spread if column_map.may_be_feature(name))]
    filled, bad = dict.fromkeys(candidates, 0), {name: [] for name in candidates}
    for path, frame in frames.items():
        for name, (n_filled, n_numbers) in _count_numbers(frame, shared, candidates, path).items():
            filled[name] += n_filled
            bad[name] += [path] * (n_filled - n_numbers > 0)
    problems = [_first_text(frames[bad[name][0]], name, bad[name][0]) for name in declared if bad[name]]
    if problems:
        raise ValueError(
            "columns declared numeric hold text (a missing number is an empty cell): " + "; ".join(problems)
        )
    return [name for name in candidates if name in declared or (filled[name] and not bad[name])]


def _count_numbers(
    frame: pl.LazyFrame, shared: Sequence[str], candidates: Sequence[str], path: Path
) -> dict[str, tuple[int, int]]:
    """Column -> cells that are filled, cells that are numbers."""
    counts = [
        pl.struct((pl.col(name).str.strip_chars() != "").sum(), number(name).count().alias("n")).alias(name)
        for name in candidates
    ]
    # The other columns are only decoded, so that damage anywhere in the file shows here.
    rest = [pl.col(name).null_count() for name in shared if name not in candidates]
    try:
        found = frame.select(pl.len().alias(ROW), *counts, *rest).collect(engine="streaming")
    except POLARS_ERRORS:
        raise ValueError(_damage(path, format_of(path))) from None
    _refuse_no_rows(path, found[ROW].item())
    return {name: tuple(found[name][0].values()) for name in candidates}


def _first_text(frame: pl.LazyFrame, name: str, path: Path) -> str:
    """How many cells of the column are no numbers and where the first is, but not what it holds."""
    bad = (pl.col(name).str.strip_chars() != "") & number(name).is_null()
    rows = frame.with_row_index(ROW).filter(bad).select(pl.len(), pl.col(ROW).min().alias("first"))
    n_bad, first = rows.collect(engine="streaming").row(0)
    return f"{name!r}: {n_bad} cells of {path}, the first in data row {first + 1}"
