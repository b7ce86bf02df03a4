"""Tables of scored rows: read from runs and score files, given their labels, and matched by id.

Decisions:
- Of more than two classes a table has a score of each beside one score, the risk of any class but 0: figures
  are of each class against the rest, decisions of class 0 against the rest (`as_two`).
- A table has an id (text), a score and, where known, label, segment, time, oracle_p, amount and p_calibrated,
  under n3r's own names (`schema.OWN`), so that users' columns can stand beside them. Files have plain names.
- All readers of such tables check here: ids are unique, scores are numbers, two tables hold the same ids.
  Messages give counts, never an id.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import count, takewhile
from pathlib import Path

import numpy as np
import polars as pl

from n3r.files.formats import SUFFIXES, find_files, format_of
from n3r.files.json_io import near
from n3r.files.limits import MAX_EXPANSION
from n3r.rows.chunks import read_frames
from n3r.rows.numbers import number
from n3r.rows.parts import Rows, RowsInParts, whole
from n3r.rows.times import parse_time
from n3r.rows.values import as_text
from n3r.schema import (
    AMOUNT,
    CALIBRATED,
    KEY,
    LABEL,
    ORACLE,
    OWN,
    SCORE,
    SEGMENT,
    TIME,
    is_nameless,
    is_pattern,
    plain,
)

OPTIONAL = (LABEL, SEGMENT, TIME, ORACLE, AMOUNT, CALIBRATED)
REJECTS = ".rejects.csv"  # beside score files: rows that could not be read
NUMBERS = (SCORE, LABEL, CALIBRATED, ORACLE, AMOUNT)
is_of_class = re.compile(rf"({SCORE}|{CALIBRATED})_\d+").fullmatch


def named(predictions: Rows) -> Rows:
    """A table of plain names, such as predictions, under n3r's own, which rows in parts have already."""
    if isinstance(predictions, RowsInParts):
        return predictions
    if any(name.startswith(OWN) for name in predictions.columns):
        return _with_risk(predictions)
    names = {plain(name): name for name in (KEY, SCORE, *OPTIONAL)}
    names |= {name: OWN + name for name in predictions.columns if is_of_class(OWN + name)}
    return _with_risk(predictions.rename(names, strict=False))


def own_columns(rows: Rows) -> pl.DataFrame:
    """The scores of rows and what n3r knows of each beside its id, under n3r's own names."""
    rows = named(rows)
    return whole(rows, [name for name in rows.columns if name in (SCORE, *OPTIONAL) or is_of_class(name)])


def beside(rows: Rows, scores: pl.DataFrame) -> Rows:
    """Prepared rows with the scores that `Scorer.score` gave them, its first column, the id, left out."""
    return rows.hstack(_with_risk(scores[:, 1:].rename(lambda name: OWN + name)))


def n_classes(table: pl.DataFrame) -> int:
    """How many classes a table under n3r's own names has scores of."""
    return len(_of_classes(SCORE, SCORE, table.columns)) or 2


def class_scores(table: Rows) -> np.ndarray:
    """The scores of rows under n3r's own names: (N,), or (N, C) of more than two classes."""
    names = _of_classes(SCORE, SCORE, table.columns)
    return whole(table, list(names)).to_numpy() if names else whole(table, [SCORE])[SCORE].to_numpy()


def as_two(table: pl.DataFrame) -> pl.DataFrame:
    """A table of more than two classes as class 0 against the rest; one of two classes as it is.

    The known probability of synthetic rows is of one class, and left out. Raises ValueError for labels that
    are none of the classes.
    """
    names = _of_classes(SCORE, SCORE, table.columns)
    if not names:
        return table
    table = table.drop(ORACLE, strict=False)
    if LABEL not in table.columns:
        return table
    if (
        wrong := table.height
        - table[LABEL].cast(pl.Float64).is_in([float(c) for c in range(len(names))]).sum()
    ):
        raise ValueError(
            f"labels: {wrong} of {table.height} are not of the classes 0 to {len(names) - 1} that have scores"
        )
    return table.with_columns((pl.col(LABEL) > 0).cast(pl.Int8))


def scored_models(place: str | Path, score: str = "score", id: str | None = None) -> dict[str, pl.DataFrame]:
    """The scored rows of score files, of one model of a run (runs/quick/lstm2risk), or of a run's models.

    Files are one, or all of a folder.
    A run's are those of its test rows. `score` and `id` are names of a file's columns; of more than two
    classes there are `score_0`, `score_1` and so on. Raises FileNotFoundError or ValueError naming the place.
    """
    place = Path(place)
    try:
        is_file = place.is_file()
    except OSError:  # a name too long for any file
        raise FileNotFoundError(f"no score file or run {place}") from None
    if is_file:
        return {place.stem: read_scored(place, score, id)}
    if (place / "predictions").is_dir():
        files = sorted((place / "predictions").glob("*_test.*"))
    else:
        files = sorted((place.parent / "predictions").glob(f"{place.name}_test.*"))
    found = {path.stem.removesuffix("_test"): read_scored(path) for path in files}
    if not found and place.is_dir() and any(map(format_of, place.iterdir())):
        found = {place.name: read_scored(place, score, id)}
    if not found:
        raise FileNotFoundError(
            f"{place} is neither a score file, nor a folder of some, nor a run, or a model of one, that has "
            "predictions"
        )
    return found


def only_model(place: str | Path, score: str = "score", id: str | None = None) -> pl.DataFrame:
    """The scored rows of a place that holds one model; ValueError names the models where it holds several."""
    found = scored_models(place, score, id)
    if len(found) > 1:
        raise ValueError(
            f"{place} holds {', '.join(found)}: name one, such as {Path(place) / next(iter(found))}"
        )
    return next(iter(found.values()))


def read_scored(
    path: str | Path, score: str = "score", id: str | None = None, max_expansion: float = MAX_EXPANSION
) -> pl.DataFrame:
    """A score file, or a folder of such: Parquet, CSV, TSV or JSON lines, as `n3r score` writes them.

    Its id is the column `id` if it has one, else its first, which must have a name: row numbers have none.
    Raises ValueError naming the file where it cannot be read, lacks the column `score`, or holds ids twice,
    rows without an id, scores and labels that are not finite numbers, or more than `max_expansion` times its
    size; and where files of a folder have other columns.
    """
    path = Path(path)
    files = (
        [file for file in find_files(path) if not file.name.endswith(REJECTS)] if path.is_dir() else [path]
    )
    if not files:
        raise ValueError(f"{path} holds no score file")
    tables = [_read_file(file, score, id, max_expansion) for file in files]
    for file, table in zip(files, tables, strict=True):
        if table.schema != tables[0].schema:
            raise ValueError(f"{file} has other columns of scores, labels and times than {files[0]}")
    table = pl.concat(tables)
    if twice := _n_repeated(table[KEY]):
        raise ValueError(f"{path}: {twice} rows have an id that an earlier row has")
    return _with_risk(table)


def _read_file(path: Path, score: str, id: str | None, max_expansion: float) -> pl.DataFrame:
    """One file of `read_scored`, whose columns are typed as they come."""
    if format_of(path) is None:
        raise ValueError(f"{path} is not a score file: its name must end in {', '.join(SUFFIXES)}")
    found: dict[str, str] = {}  # what a column is here -> its name in the file

    def find(schema: Mapping[str, pl.DataType]) -> None:
        found.update(_found(schema, path, score, id))

    def columns(_: object) -> list[str]:
        return list(dict.fromkeys(found.values()))

    frames, lost = [], Counter()
    for frame in read_frames(path, columns, check=find, max_expansion=max_expansion):
        typed, lost_here = _typed(frame.select(pl.col(name).alias(own) for own, name in found.items()), path)
        frames.append(typed)
        lost.update(lost_here)
    if not found:
        raise ValueError(f"{path} has no rows")
    table = pl.concat(frames)
    of = f"of {table.height} values of"
    told = {KEY: "rows have no id", TIME: f"{of} {plain(TIME)!r} are not dates or ISO times"}
    problems = [
        f"{n} {told.get(name, f'{of} {plain(name)!r} are not finite numbers')}"
        for name, n in lost.items()
        if n
    ]
    if problems:
        raise ValueError(f"{path}: {'; '.join(problems)}")
    return table


def _found(schema: Mapping[str, pl.DataType], path: Path, score: str, id: str | None) -> dict[str, str]:
    """What columns of a score file are here -> their names in it; ValueError where it lacks id or score."""
    if any(map(is_pattern, schema)):
        raise ValueError(f"{path} has columns named as a pattern: rename them")
    key = id if id in schema else next(iter(schema))
    names = [name for name in schema if name != key]
    scores = {score: SCORE} if score in names else _of_classes(score, SCORE, names)
    if not scores:
        raise ValueError(f"{path} has no column {score!r} beside its id{near(score, schema)}")
    if is_nameless(key):
        raise ValueError(
            f"{path}: its first column, the id, has no name, as row numbers have: write it without "
            "them (pandas: index=False), or give the column map that names the id"
        )
    others = {plain(name): name for name in OPTIONAL} | _of_classes(plain(CALIBRATED), CALIBRATED, names)
    named = {own: name for name, own in others.items() if name in names}
    return {KEY: key} | {own: name for name, own in scores.items()} | named


def _n_repeated(ids: pl.Series) -> int:
    """How many ids an earlier row has; hashes, which take less memory, tell that none has."""
    return 0 if ids.hash().n_unique() == len(ids) else len(ids) - ids.n_unique()


def _of_classes(name: str, own: str, names: Iterable[str]) -> dict[str, str]:
    """The columns `name`_0, `name`_1 and so on, two or more, and what they are under n3r's own names."""
    known = set(names)
    found = {f"{name}_{c}": f"{own}_{c}" for c in takewhile(lambda c: f"{name}_{c}" in known, count())}
    return found if len(found) > 1 else {}


def _with_risk(table: pl.DataFrame) -> pl.DataFrame:
    """A table with the scores of each class has the risk of any but class 0, too."""
    lacking = [
        kind for kind in (SCORE, CALIBRATED) if kind not in table.columns and f"{kind}_0" in table.columns
    ]
    return table.with_columns((1 - pl.col(f"{kind}_0")).clip(0, 1).alias(kind) for kind in lacking)


def matched(a: pl.DataFrame, b: pl.DataFrame, names: tuple[str, str] = ("A", "B")) -> pl.DataFrame:
    """The rows of `b` in the order of `a`; ValueError with counts where they do not hold the same ids."""
    only = [one.join(other, on=KEY, how="anti").height for one, other in ((a, b), (b, a))]
    if any(only):
        told = ", ".join(f"{n} of {table.height} ids of {name} are not in the other"
                         for n, table, name in zip(only, (a, b), names, strict=True))  # fmt: skip
        raise ValueError(f"the two do not hold the same rows: {told}")
    return a.select(KEY).join(b, on=KEY, how="left", maintain_order="left")


def labels_of(tables: Mapping[str, Rows]) -> Rows:
    """The first table that has labels on every row; ValueError says how to give them."""
    for table in tables.values():
        if LABEL in table.columns and not whole(table, [LABEL])[LABEL].null_count():
            return table
    raise ValueError(f"no label on every row of {' or '.join(tables)}: give the orders and their column map")


def _is_plain(kind: pl.DataType) -> bool:
    """Whether columns of the type can be read as text."""
    return not (kind.is_nested() or kind in (pl.Binary, pl.Object, pl.Duration, pl.Time))


def _typed(frame: pl.DataFrame, path: Path) -> tuple[pl.DataFrame, dict[str, int]]:
    """The id and words as text, numbers as numbers; of each column how many values are lost or not finite."""
    if odd := [f"{plain(n)!r} is {k.base_type()}" for n, k in frame.schema.items() if not _is_plain(k)]:
        raise ValueError(f"{path}: {', '.join(odd)}, expected text, numbers or dates")
    numbers = [name for name in frame.columns if name in NUMBERS or is_of_class(name)]
    table = frame.with_columns(as_text(name) for name in frame.columns if name not in (*numbers, TIME))
    if TIME in frame.columns:
        table = table.with_columns(parse_time(TIME, None, frame.schema).alias(TIME))
    texts = [name for name in numbers if frame.schema[name] == pl.String]
    others = [pl.col(name).cast(pl.Float64, strict=False) for name in numbers]
    table = table.with_columns(number(name) for name in texts).with_columns(others)
    lost = {}
    for name in (*numbers, *(name for name in (TIME,) if name in table.columns)):
        lost[name] = table[name].null_count() - (0 if name.startswith(SCORE) else frame[name].null_count())
        lost[name] += (~table[name].is_finite()).sum() if name in numbers else 0
    return table, lost | {KEY: table[KEY].null_count()}
