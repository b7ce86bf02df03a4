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
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import polars as pl

from n3r.files.atomic import atomic_folder
from n3r.files.dialect import PLAIN, Dialect
from n3r.files.formats import FORMATS, SEPARATORS, find_files, format_of, written_as
from n3r.files.json_io import read_json, write_json
from n3r.files.limits import MAX_EXPANSION, check_parquet
from n3r.files.reader import Schema, Wanted, in_utf8, read_batches, reading, scan_parquet
from n3r.files.records import MAX_RECORD
from n3r.files.workbook import read_workbook
from n3r.files.writer import POLARS_ERRORS, write
from n3r.rows.alike import alike, kind_of
from n3r.rows.columns import missing_columns, spread, told_numbers
from n3r.rows.inputs import Inputs, require, to_numbers, typed
from n3r.rows.numbers import form_of
from n3r.rows.rejects import Reject, refusal, rejected
from n3r.schema import EVERY_OTHER, FILE_COLUMN, OWN, SPLITS, ColumnMap, is_pattern

REGION = "region"
CHUNK = 16384  # rows of a file at a time
PART = 1 << 18  # rows of a part of a prepared split
MAX_OWN_RECORD = 1 << 30  # bytes of a record that n3r wrote: it joins texts
_DTYPES = {
    str(kind): kind for kind in (pl.String, pl.Float32, pl.Float64, pl.Int8, pl.Int64, pl.Datetime("us"))
}


class Chunk(NamedTuple):
    """Some rows of a file, in its order."""

    frame: pl.DataFrame  # readable rows, as `typed` gives them
    rejects: list[Reject]  # by row, one each
    n_rows: int  # readable and rejected


@dataclass(frozen=True)
class Source:
    """Raw files as one lazy table."""

    frame: pl.LazyFrame
    format: str  # one of FORMATS, in which prepared splits are written
    files: tuple[Path, ...]  # each once, in reading order
    dropped_columns: tuple[str, ...]  # in some files but not in all
    left_out: Mapping[str, str]  # column that "*" might stand for -> why it does not
    n_rows: int  # as the files count them

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Within it, a polars error on damaged data becomes a ValueError naming the files."""
        with _naming_damage(self.files, self.format):
            yield


def scan(
    data: str | Path | Sequence[str | Path], column_map: ColumnMap, max_expansion: float = MAX_EXPANSION
) -> Source:
    """One lazy table of files, folders and patterns, with the columns that the map may use.

    "NA=path" gives the rows of that path the value NA in a column `region`, in place of the file's. With
    `split_files` in the map, each row also gets the name of its file. Raises FileNotFoundError, or ValueError
    naming the file at fault and its first rows that cannot be read, also for a file that holds more than
    `max_expansion` times its size (limits.py).
    """
    regions = find_files(data)
    formats = sorted({format_of(path) for path in regions})
    if len(formats) > 1:
        raise ValueError(f"one call reads one format, found {' and '.join(formats)} files")
    open_file = _open_parquet if formats[0] == "parquet" else _read_text
    frames, counts = {}, {}
    for path, region in regions.items():
        origin = {} if region is None else {REGION: region}
        origin |= {FILE_COLUMN: in_utf8(path.name)} if column_map.split_files else {}
        frame, n_rows = open_file(path, _Columns(path, column_map, origin), max_expansion)
        if n_rows:  # without rows a file need not tell columns or their types
            frames[path] = frame.with_columns(pl.lit(value).alias(name) for name, value in origin.items())
            counts[path] = n_rows
    if not frames:
        raise ValueError(" and ".join(f"{path} has no rows" for path in regions))
    schemas = {path: frame.collect_schema() for path, frame in frames.items()}
    every = dict.fromkeys(name for schema in schemas.values() for name in schema)
    shared = [name for name in every if all(name in schema for schema in schemas.values())]
    chosen = alike(schemas, shared, column_map.values)
    frame = pl.concat([f.select(chosen[path]) for path, f in frames.items()], how="vertical_relaxed")
    with _naming_damage(counts, formats[0]):
        frame, left_out = spread(frame, column_map, [*counts.items()], formats[0])
    dropped = [name for name in every if name not in shared]
    left_out |= {name: "not all files have it" for name in dropped if EVERY_OTHER in column_map.numeric}
    left_out.pop(REGION if any(regions.values()) else None, None)
    return Source(
        frame, written_as(formats[0]), tuple(regions), tuple(dropped), left_out, sum(counts.values())
    )


@contextmanager
def _naming_damage(files: Iterable[Path], format: str) -> Iterator[None]:
    try:
        yield
    except POLARS_ERRORS:
        damaged = [str(path) for path in files if format == "parquet" and not _is_whole(path)]
        if not damaged:
            raise
        raise ValueError(f"damaged, write anew: {', '.join(damaged)}") from None


def read_chunks(
    path: str | Path,
    inputs: Inputs,
    size: int = CHUNK,
    *,
    region: str | None = None,
    max_record: int = MAX_RECORD,
    max_expansion: float = MAX_EXPANSION,
    dialect: Dialect = PLAIN,
) -> Iterator[Chunk]:
    """Rows of one file, at most `size` at a time; a file without rows gives one empty chunk.

    `region` becomes the column `region` of every row, in place of the file's; a CSV or TSV is written as
    `dialect` says. CSV records and JSON lines of
    more than `max_record` bytes are rejects. Raises FileNotFoundError, or ValueError naming the file when it
    cannot be read, lacks columns or holds more than `max_expansion` times its size (limits.py).
    """
    own = {} if region is None else {REGION: pl.lit(region)}
    names = [name for name in inputs.names if name not in own]

    def check(schema: Schema) -> None:
        try:
            require({**schema, **dict.fromkeys(own, pl.String())}, inputs, str(path))
        except ValueError as error:
            raise ValueError(f"{error}{_hint(Path(path), schema, {*names}, dialect)}") from None

    kind = format_of(Path(path))
    inputs = inputs._replace(number_format=form_of(kind, inputs.number_format))
    for batch in read_batches(Path(path), check, lambda _: names, size, max_record, max_expansion, dialect):
        frame, cells = typed(batch.frame.with_columns(**own), inputs)
        rejects = rejected(path, batch, [*batch.cells, *cells], inputs.id)
        if bad := {row for row, _, _ in (*batch.cells, *cells)}:
            frame = frame[[row for row in range(frame.height) if row not in bad]]
        yield Chunk(frame, rejects, batch.frame.height + len(batch.lost))


def column_type(path: str | Path, name: str) -> pl.DataType | None:
    """The type of a column in one file, None where it is missing; all is text in files of text."""
    if format_of(Path(path)) == "xlsx":
        with reading(Path(path)):
            return read_workbook(Path(path), MAX_EXPANSION).schema.get(name)
    if format_of(Path(path)) != "parquet":
        return pl.String()
    with reading(Path(path)):
        return scan_parquet(Path(path)).collect_schema().get(name)


def read_frames(
    path: str | Path,
    wanted: Wanted,
    numbers: Collection[str] = (),
    check: Callable[[Schema], None] = lambda _: None,
    strict: Collection[str] | None = None,
    *,
    written: ColumnMap | None = None,
    max_record: int = MAX_RECORD,
    max_expansion: float = MAX_EXPANSION,
) -> Iterator[pl.DataFrame]:
    """Rows of one file, some at a time, of the columns that `wanted` chooses of those there.

    Of text, the columns among `numbers` become Float64. `written` is the map that says how the file is
    written. Raises as `read_chunks`, what `check` raises of the columns, and ValueError naming the first rows
    that cannot be read; with `strict`, bad cells count in these columns alone.
    """
    dialect = written.csv if written else PLAIN
    kind = format_of(Path(path))
    form = form_of(kind, written.number_format if written else None)
    for batch in read_batches(Path(path), check, wanted, CHUNK, max_record, max_expansion, dialect):
        spelled = [name for name in numbers if batch.frame.schema.get(name) == pl.String]
        frame, cells = to_numbers(batch.frame, spelled, form)
        advice = "mend them; a missing number is an empty cell" if cells else "mend them"
        advice += told_numbers(batch.frame[cells[0][1]], cells[0][0], kind, form) if cells else ""
        cells = [*(cell for cell in batch.cells if strict is None or cell[1] in strict), *cells]
        if rejects := rejected(path, batch, cells):
            raise ValueError(refusal(rejects, advice))
        yield frame


def fingerprint(files: Iterable[str | Path]) -> str:
    """sha256 over the files' contents, in the order given."""
    total = hashlib.sha256()
    for path in files:
        with Path(path).open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


def write_splits(
    folder: str | Path, splits: Mapping[str, pl.DataFrame], column_map: ColumnMap, format: str = "parquet"
) -> None:
    """Write prepared splits, in parts, and `columns.json`: the resolved map, the format, the types and parts.

    An earlier run's stay until these are all written. Raises ValueError naming the folder when it cannot be
    written or holds something else, or an unknown split or format.
    """
    if sorted(splits) != sorted(SPLITS) or format not in FORMATS:
        raise ValueError(
            f"expected the splits {SPLITS} as {', '.join(FORMATS)}, found {tuple(splits)} as {format!r}"
        )
    types = {name: str(kind) for name, kind in splits["train"].schema.items()}
    odd = [f"{n!r} ({kind_of(k)})" for n, k in splits["train"].schema.items() if str(k) not in _DTYPES]
    if odd:
        raise ValueError(f"prepared tables hold only {list(_DTYPES)}, found {', '.join(odd)}")
    content = {"format": format, "types": types, "parts": {}, "column_map": column_map.model_dump()}
    with atomic_folder(folder, "prepared data", "columns.json") as aside:
        for split in SPLITS:
            parts = list(splits[split].iter_slices(PART)) or [splits[split]]
            for number, part in enumerate(parts):
                write(part, _part(aside, split, number, format))
            content["parts"][split] = [part.height for part in parts]
        write_json(aside / "columns.json", content)


def read_split(folder: str | Path, split: str, columns: Sequence[str] | None = None) -> pl.DataFrame:
    """One prepared split, all of its columns or those given, as it was written.

    Raises FileNotFoundError when nothing is prepared there, ValueError on an unknown name.
    """
    return pl.concat(read_parts(folder, split, columns))


def read_parts(
    folder: str | Path, split: str, columns: Sequence[str] | None = None
) -> Iterator[pl.DataFrame]:
    """The parts of a prepared split in their order, at least one; together they are `read_split`.

    Raises as `read_split`, at the first part or at one that is missing or damaged.
    """
    content = _read_columns(folder)
    if split not in SPLITS:
        raise ValueError(f"there is no split {split!r}, only {SPLITS}")
    unknown = [name for name in columns or [] if name not in content["types"]]
    if unknown:
        raise ValueError(f"the prepared data in {folder} have no column {', '.join(unknown)}")
    types = {name: _DTYPES[content["types"][name]] for name in columns or content["types"]}
    for number, n_rows in enumerate(content["parts"][split]):
        path = _part(Path(folder), split, number, content["format"])
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing; run 01_preprocess first")
        try:
            part = _read_part(path, types)
        except (*POLARS_ERRORS, ValueError):
            part = None
        if part is None or part.height != n_rows:
            raise ValueError(f"{path} is damaged; run 01_preprocess again")
        yield part


def part_sizes(folder: str | Path, split: str) -> list[int]:
    """The numbers of rows of the parts of a prepared split, in their order."""
    return _read_columns(folder)["parts"][split]


def _part(folder: Path, split: str, number: int, format: str) -> Path:
    return folder / split / f"part-{number:06d}.{format}"


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


def _hint(path: Path, schema: Schema, wanted: Set[str], dialect: Dialect) -> str:
    return missing_columns(list(schema), wanted, dialect) if format_of(path) in SEPARATORS else ""


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
            hint = _hint(self.path, schema, {*self.map.roles.values(), *self.map.all_text}, self.map.csv)
            raise ValueError(f"columns that the column map names are missing:{listed}{hint}")

    def used(self, schema: Schema) -> list[str]:
        """Those to read; ValueError for a name that none may have."""
        if odd := [name for name in schema if is_pattern(name) or name.startswith(OWN)]:
            raise ValueError(
                f"{self.path} has a column name that is a pattern or n3r's own: rename {odd[0]!r}"
            )
        spread = EVERY_OTHER in self.map.numeric
        return [name for name in schema if name in self.named or (spread and self.map.may_be_feature(name))]


def _open_parquet(path: Path, columns: _Columns, max_expansion: float) -> tuple[pl.LazyFrame, int]:
    with reading(path):
        frame = scan_parquet(path)
        schema, n_rows = frame.collect_schema(), frame.select(pl.len()).collect().item()
    columns.check(schema)
    names = columns.used(schema)
    check_parquet(path, names, max_expansion)
    return frame.select(names), n_rows


def _read_text(path: Path, columns: _Columns, max_expansion: float) -> tuple[pl.LazyFrame, int]:
    """A file of text or of Excel, read; what the map declares numeric is Float64."""
    found = read_frames(
        path,
        columns.used,
        columns.numbers,
        columns.check,
        columns.named,
        max_expansion=max_expansion,
        written=columns.map,
    )
    frame = pl.concat(list(found), how="diagonal")  # a key may be missing from all lines of a batch
    return frame.lazy(), frame.height
