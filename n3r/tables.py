"""One reader of files of rows, whole or chunk by chunk, and the prepared splits.

Decisions:
- Every file is read by the same rules, with one of two policies: rows that cannot be read are listed
  (`read_chunks`), or the first of them is a ValueError naming file, row and column (`scan`, `read_frames`).
- CSV, TSV and JSON lines are read as text throughout, so that customers called "NA", "None" or "007" keep
  their names (defect 33). Only columns the map declares numeric, or "*" finds to be numbers to the last row,
  are then made Float64. They are read once; Parquet stays a lazy table, read as often as it is used.
- Columns keep the names in the file, never a position (defect 28), and each file is read once,
  however many arguments lead to it (defect 30).
- Of several files the shared columns are kept, in the first file's order; `dropped_columns` names the rest.
  Where types differ between them, texts, ids, categories and the like become texts (rows/values.py).
  A column the map needs must be in every file, of JSON lines in one of the first lines.
- Memory is bounded by the chunk in scoring, and by the file when files of text are read for training.
"""

import hashlib
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, islice
from pathlib import Path

import polars as pl

from n3r.engine import Engine
from n3r.files.atomic import atomic_folder
from n3r.files.formats import FORMATS, find_files, format_of, part_path, written_as
from n3r.files.json_io import read_json, write_json
from n3r.files.limits import MAX_EXPANSION, check_parquet
from n3r.files.reader import Schema, in_utf8, reading, scan_parquet
from n3r.files.writer import POLARS_ERRORS, write
from n3r.rows.alike import alike, kind_of
from n3r.rows.chunks import CHUNK, REGION, hint, read_frames
from n3r.rows.columns import spread
from n3r.rows.keys import Piece, numbered_pieces, piece_sizes
from n3r.rows.numbers import form_of, number
from n3r.rows.parts import RowsInParts
from n3r.rows.wide import Parts
from n3r.schema import EVERY_OTHER, FILE_COLUMN, OWN, SPLITS, ColumnMap, is_pattern

PART = 1 << 18  # rows of a part of a prepared split
PIECE = 1 << 18  # rows of a file at most that are read apart, where not all fit into memory
CELL = 6  # a third of the bytes of one: a piece is not sorted, and may be so much larger than a bucket
MAX_OWN_RECORD = 1 << 30  # bytes of a record that n3r wrote: it joins texts
_DTYPES = {
    str(kind): kind for kind in (pl.String, pl.Float32, pl.Float64, pl.Int8, pl.Int64, pl.Datetime("us"))
}


@dataclass(frozen=True)
class Source:
    """Raw files as one lazy table."""

    frame: pl.LazyFrame
    format: str  # one of FORMATS, in which prepared splits are written
    files: tuple[Path, ...]  # each once, in reading order
    dropped_columns: tuple[str, ...]  # in some files but not in all
    left_out: Mapping[str, str]  # column that "*" might stand for -> why it does not
    n_rows: int  # as the files count them
    pieces: tuple[Piece, ...]  # of the frame, to be read apart: one, or so small that each fits into memory

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Within it, a polars error on damaged data becomes a ValueError naming the files."""
        with _naming_damage(self.files, self.format):
            yield


def scan(
    data: str | Path | Sequence[str | Path],
    column_map: ColumnMap,
    max_expansion: float = MAX_EXPANSION,
    engine: Engine | None = None,
) -> Source:
    """One lazy table of files, folders and patterns, with the columns that the map may use.

    "NA=path" gives the rows of that path the value NA in a column `region`, in place of the file's. With
    `split_files` in the map, each row also gets the name of its file. An engine with a folder of its own gets
    files of text there as Parquet, and small pieces. Raises FileNotFoundError, or ValueError
    naming the file at fault and its first rows that cannot be read, also for a file that holds more than
    `max_expansion` times its size (limits.py).
    """
    regions = find_files(data)
    formats = sorted({format_of(path) for path in regions})
    if len(formats) > 1:
        raise ValueError(f"one call reads one format, found {' and '.join(formats)} files")
    folder = engine.folder if engine else None
    opened = _opened(regions, formats[0], column_map, max_expansion, engine if folder else None)
    if not opened:
        raise ValueError(" and ".join(f"{path} has no rows" for path in regions))
    whole = {path: pl.concat([f for f, _ in found], how="diagonal") for path, found in opened.items()}
    schemas = {path: frame.collect_schema() for path, frame in whole.items()}
    every = dict.fromkeys(name for schema in schemas.values() for name in schema)
    shared = [name for name in every if all(name in schema for schema in schemas.values())]
    chosen = alike(schemas, shared, column_map.values)
    frame = pl.concat([f.select(chosen[path]) for path, f in whole.items()], how="vertical_relaxed")
    sizes = {path: sum(n_rows for _, n_rows in found) for path, found in opened.items()}
    with _naming_damage(sizes, formats[0]):
        frame, left_out, numbers = spread(frame, column_map, [*sizes.items()], formats[0], folder is not None)
    dropped = [name for name in every if name not in shared]
    left_out |= {name: "not all files have it" for name in dropped if EVERY_OTHER in column_map.numeric}
    left_out.pop(REGION if any(regions.values()) else None, None)
    n_rows = sum(sizes.values())
    pieces = [Piece(frame, 0, n_rows)]
    if folder:
        form, parts = form_of(formats[0], column_map.number_format), []
        for path, found in opened.items():
            empty = pl.DataFrame(schema=schemas[path]).lazy()
            whole = [(pl.concat([empty, own], how="diagonal"), n) for own, n in found]
            parts += [(own.select(chosen[path]), n) for own, n in whole]
        parts = [(own.with_columns(number(name, form) for name in numbers), n) for own, n in parts]
        pieces = numbered_pieces(parts, frame.collect_schema())
    return Source(
        frame, written_as(formats[0]), tuple(regions), tuple(dropped), left_out, n_rows, tuple(pieces)
    )


def _opened(
    regions: Mapping[Path, str | None],
    kind: str,
    column_map: ColumnMap,
    max_expansion: float,
    engine: Engine | None,
) -> dict[Path, list[tuple[pl.LazyFrame, int]]]:
    """Files that have rows, each as one frame or, for an engine, as pieces, and their numbers of rows."""
    opened = {}
    for place, (path, region) in enumerate(regions.items()):
        origin = {} if region is None else {REGION: region}
        origin |= {FILE_COLUMN: in_utf8(path.name)} if column_map.split_files else {}
        columns = _Columns(path, column_map, origin)
        if kind == "parquet":
            found = _open_parquet(path, columns, max_expansion, engine)
        else:
            found = _read_text(path, columns, max_expansion, engine, f"raw-{place:06d}")
        if any(n_rows for _, n_rows in found):  # without rows a file need not tell columns or their types
            literals = [pl.lit(value).alias(name) for name, value in origin.items()]
            opened[path] = [(frame.with_columns(literals), n_rows) for frame, n_rows in found]
    return opened


@contextmanager
def _naming_damage(files: Iterable[Path], format: str) -> Iterator[None]:
    try:
        yield
    except POLARS_ERRORS:
        damaged = [str(path) for path in files if format == "parquet" and not _is_whole(path)]
        if not damaged:
            raise
        raise ValueError(f"damaged, write anew: {', '.join(damaged)}") from None


def fingerprint(files: Iterable[str | Path]) -> str:
    """sha256 over the files' contents, in the order given."""
    total = hashlib.sha256()
    for path in files:
        with Path(path).open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


def write_splits(
    folder: str | Path,
    splits: Mapping[str, pl.DataFrame] | Parts,
    column_map: ColumnMap,
    format: str = "parquet",
) -> None:
    """Write prepared splits, in parts, and `columns.json`: the resolved map, the format, the types and parts.

    Parts that were written already, in their own format, are moved. An earlier run's stay until these are all
    there. Raises ValueError naming the folder when it cannot be written or holds something else, or an
    unknown split or format.
    """
    format = splits.format if isinstance(splits, Parts) else format
    names = splits.n_rows if isinstance(splits, Parts) else splits
    if sorted(names) != sorted(SPLITS) or format not in FORMATS:
        raise ValueError(
            f"expected the splits {SPLITS} as {', '.join(FORMATS)}, found {tuple(names)} as {format!r}"
        )
    schema = splits.schema if isinstance(splits, Parts) else splits["train"].schema
    odd = [f"{name!r} ({kind_of(kind)})" for name, kind in schema.items() if str(kind) not in _DTYPES]
    if odd:
        raise ValueError(f"prepared tables hold only {list(_DTYPES)}, found {', '.join(odd)}")
    content = {"format": format, "types": {name: str(kind) for name, kind in schema.items()}}
    content |= {"parts": {}, "column_map": column_map.model_dump()}
    with atomic_folder(folder, "prepared data", "columns.json") as aside:
        for split in SPLITS:
            place = partial(part_path, aside, split, kind=format)
            content["parts"][split] = _move(splits, split, place) or _write_parts(splits, split, place)
        write_json(aside / "columns.json", content)


def _move(splits: Mapping[str, pl.DataFrame] | Parts, split: str, place: Callable[[int], Path]) -> list[int]:
    """Move the parts of a split that were written, under numbers without gaps; their rows."""
    if not isinstance(splits, Parts):
        return []
    for i, own in enumerate(splits.n_rows[split]):
        place(i).parent.mkdir(exist_ok=True)
        shutil.move(part_path(splits.folder, split, own, splits.format), place(i))
    return list(splits.n_rows[split].values())


def _write_parts(
    splits: Mapping[str, pl.DataFrame] | Parts, split: str, place: Callable[[int], Path]
) -> list[int]:
    """Write a split, in parts, one at least; their rows."""
    rows = pl.DataFrame(schema=splits.schema) if isinstance(splits, Parts) else splits[split]
    parts = list(rows.iter_slices(PART)) or [rows]
    with ThreadPoolExecutor(2) as pool:  # one alone does not keep two processors busy
        list(pool.map(write, parts, map(place, range(len(parts)))))
    return [part.height for part in parts]


def read_split(folder: str | Path, split: str, columns: Sequence[str] | None = None) -> pl.DataFrame:
    """One prepared split, all of its columns or those given, as it was written.

    Raises FileNotFoundError when nothing is prepared there, ValueError on an unknown name.
    """
    return pl.concat(read_parts(folder, split, columns))


def read_parts(
    folder: str | Path,
    split: str,
    columns: Sequence[str] | None = None,
    numbers: Collection[int] | None = None,
) -> Iterator[pl.DataFrame]:
    """The parts of a prepared split in their order, at least one; together they are `read_split`.

    With `numbers` those of them alone, from 0.

    Raises as `read_split`, at the first part or at one that is missing or damaged.
    """
    content = _read_columns(folder)
    if split not in SPLITS:
        raise ValueError(f"there is no split {split!r}, only {SPLITS}")
    unknown = [name for name in columns or [] if name not in content["types"]]
    if unknown:
        raise ValueError(f"the prepared data in {folder} have no column {', '.join(unknown)}")
    types = {name: _DTYPES[content["types"][name]] for name in columns or content["types"]}
    for place, n_rows in enumerate(content["parts"][split]):
        if numbers is not None and place not in numbers:
            continue
        path = part_path(Path(folder), split, place, content["format"])
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing; run 01_preprocess first")
        try:
            part = _read_part(path, types)
        except (*POLARS_ERRORS, ValueError):
            part = None
        if part is None or part.height != n_rows:
            raise ValueError(f"{path} is damaged; run 01_preprocess again")
        yield part


def split_rows(folder: str | Path, split: str) -> RowsInParts:
    """A prepared split to be read part by part, as often as it takes; raises as `read_split`."""
    content = _read_columns(folder)
    if split not in SPLITS:
        raise ValueError(f"there is no split {split!r}, only {SPLITS}")
    return RowsInParts(
        partial(read_parts, folder, split), list(content["types"]), sum(content["parts"][split])
    )


def part_sizes(folder: str | Path, split: str) -> list[int]:
    """The numbers of rows of the parts of a prepared split, in their order."""
    return _read_columns(folder)["parts"][split]


def _read_part(path: Path, types: Mapping[str, pl.DataType]) -> pl.DataFrame:
    if path.suffix == ".parquet":
        return scan_parquet(path).select(list(types)).collect(engine="streaming")
    texts = pl.concat(read_frames(path, lambda _: types, max_record=MAX_OWN_RECORD))
    return texts.select(_as_written(name, kind) for name, kind in types.items())


def _as_written(name: str, kind: pl.DataType) -> pl.Expr:
    if kind == pl.Datetime:  # with a T in CSV, a blank in JSON
        return pl.col(name).str.replace(" ", "T").str.to_datetime("%Y-%m-%dT%H:%M:%S%.f", time_unit="us")
    return pl.col(name).cast(kind)


def read_column_map(folder: str | Path) -> ColumnMap:
    """The resolved column map of prepared splits; FileNotFoundError when nothing is prepared there."""
    return ColumnMap(**_read_columns(folder)["column_map"])


def prepared_format(folder: str | Path) -> str:
    """The format of prepared splits, their input's; FileNotFoundError when nothing is prepared there."""
    return _read_columns(folder)["format"]


def _read_columns(folder: str | Path) -> dict:
    path = Path(folder) / "columns.json"
    try:
        content = read_json(path)
        ColumnMap(**content["column_map"])
        content["parts"]["train"][0]
        return content
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(
            f"no prepared data in {folder} (no columns.json); run 01_preprocess first"
        ) from None
    except (ValueError, LookupError, TypeError):
        raise ValueError(f"{path} is damaged or of another version; run 01_preprocess again") from None


def _is_whole(path: Path) -> bool:
    """Whether every column of a Parquet file can be decoded."""
    try:
        frame = scan_parquet(path)
        for name in frame.collect_schema().names():
            frame.select(pl.col(name)).collect(engine="streaming")
    except (*POLARS_ERRORS, OSError):
        return False
    return True


class _Columns:
    """Which columns of a raw file a map needs and which it may use."""

    def __init__(self, path: Path, column_map: ColumnMap, origin: Collection[str]):
        m = column_map
        self.path, self.map, self.origin = path, m, origin  # `origin`: columns that the file need not have
        self.numbers = [name for name in (*m.declared_numeric, m.amount, m.oracle) if name is not None]
        self.named = {*m.roles.values(), *m.all_text, *m.categorical, *m.groups, *self.numbers}

    def check(self, schema: Schema) -> None:
        """Raise ValueError naming the columns that are missing."""
        if problems := self.map.missing_from([*schema, *self.origin]):
            listed = "".join(f"\n- {self.path}: {problem}" for problem in problems)
            told = hint(self.path, schema, {*self.map.roles.values(), *self.map.all_text}, self.map.csv)
            raise ValueError(f"columns that the column map names are missing:{listed}{told}")

    def used(self, schema: Schema) -> list[str]:
        """Those to read; ValueError for a name that none may have."""
        if odd := [name for name in schema if is_pattern(name) or name.startswith(OWN)]:
            raise ValueError(
                f"{self.path} has a column name that is a pattern or n3r's own: rename {odd[0]!r}"
            )
        spread = EVERY_OTHER in self.map.numeric
        return [name for name in schema if name in self.named or (spread and self.map.may_be_feature(name))]


def _open_parquet(
    path: Path, columns: _Columns, max_expansion: float, engine: Engine | None
) -> list[tuple[pl.LazyFrame, int]]:
    """A file, or pieces of it for an engine, and their numbers of rows."""
    with reading(path):
        frame = scan_parquet(path)
        schema, n_rows = frame.collect_schema(), frame.select(pl.len()).collect().item()
    columns.check(schema)
    names = columns.used(schema)
    groups = check_parquet(path, names, max_expansion)
    if engine is None:
        return [(frame.select(names), n_rows)]
    most = max(1, min(PIECE, n_rows // engine.buckets(n_rows * len(names) * CELL)))
    sizes = piece_sizes(groups if sum(groups) == n_rows else [n_rows], most)
    return [
        (frame.select(names).slice(end - n, n), n) for end, n in zip(accumulate(sizes), sizes, strict=True)
    ]


def _read_text(
    path: Path, columns: _Columns, max_expansion: float, engine: Engine | None, name: str
) -> list[tuple[pl.LazyFrame, int]]:
    """A file of text or of Excel, read; what the map declares numeric is Float64. An engine gets pieces."""
    found = read_frames(
        path,
        columns.used,
        columns.numbers,
        columns.check,
        columns.named,
        max_expansion=max_expansion,
        written=columns.map,
    )
    if engine is None:
        frame = pl.concat(list(found), how="diagonal")  # a key may be missing from all lines of a batch
        return [(frame.lazy(), frame.height)]
    pieces, n_batches = [], 1
    while frames := list(islice(found, n_batches)):
        frame, piece = pl.concat(frames, how="diagonal"), engine.folder / name / f"{len(pieces):06d}.parquet"
        write(frame, piece)
        pieces.append((scan_parquet(piece), frame.height))
        most = max(1, PIECE // CHUNK)
        n_batches = max(1, most // engine.buckets(most / n_batches * frame.estimated_size()))
    return pieces
