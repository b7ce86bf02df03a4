"""Which split a kept row belongs to: by time, at random or by its file; and splits that cannot be used.

Decisions:
- Splits have exact sizes: rows are cut at ranks, of their time and id or of what is drawn for each id.
- Files that bring a split keep it. Their train rows are then cut into train and val, unless a file is val.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import polars as pl

from n3r.rows.accounts import DROP, ENTITY, ENTITY_TIME, SPLIT
from n3r.rows.cuts import Cut, axis, is_before, part_numbers
from n3r.rows.precedence import draws, in_order
from n3r.rows.wide import PART
from n3r.schema import FILE_COLUMN, KEY, LABEL, OWN, ROW, SEGMENT, SPLITS, TIME, ColumnMap

DRAW = OWN + "draw"


def with_parts(kept: pl.DataFrame, edges: Sequence[Cut]) -> pl.DataFrame:
    """The kept rows of a bucket in (time, id) order, with the parts of their splits."""
    part = len(SPLITS) * part_numbers(kept, edges) + kept[SPLIT]
    return kept.drop(SPLIT).with_columns(part.alias(PART))


@dataclass(frozen=True)
class Splitting:
    """How rows are split; `train` and `val` are shares."""

    map: ColumnMap
    train: float
    val: float
    seed: int

    @property
    def value(self) -> pl.Expr:
        """What rows are cut by, their ids apart."""
        return axis(DRAW if self.map.split_by == "random" else TIME)

    def drawn(self, keys: pl.DataFrame) -> pl.DataFrame:
        """Rows with what is drawn for them, where that decides."""
        if self.map.split_by != "random":
            return keys
        return keys.with_columns(draws(keys[KEY].fill_null(""), self.seed).alias(DRAW))

    def cut_rows(self, keys: pl.LazyFrame) -> pl.LazyFrame:
        """The kept rows that are cut: all, or those of files of train."""
        kept = keys.filter(pl.col(DROP).is_null())
        return kept.filter(self._of_files(kept.collect()) == 0) if self.map.split_files else kept

    def ranks(self, n_rows: int) -> list[int]:
        """Where so many rows are cut, the end of train and that of val."""
        train, val, files = self.train, self.val, self.map.split_files
        if "val" in files.values():
            return []
        if files:
            train, val = train / (train + val), val / (train + val)
        return [round(n_rows * train), round(n_rows * (train + val))]

    def split(self, keys: pl.DataFrame, cuts: Sequence[Cut]) -> pl.DataFrame:
        """The kept rows of a bucket in (time, id) order with their splits; what decided is left out."""
        kept = keys.drop(ENTITY, ENTITY_TIME).filter(pl.col(DROP).is_null())
        brought = self._of_files(kept) if self.map.split_files else pl.zeros(kept.height, pl.Int8, eager=True)
        behind = sum(((~is_before(self.value, cut)).cast(pl.Int8) for cut in cuts), pl.col(SPLIT))
        kept = kept.with_columns(brought.alias(SPLIT))
        split = pl.when(pl.col(SPLIT) == 0).then(behind).otherwise(SPLIT).alias(SPLIT)
        return in_order(kept.select(ROW, KEY, TIME, SEGMENT, LABEL, split))

    def _of_files(self, rows: pl.DataFrame) -> pl.Series:
        """The place in SPLITS of each row by its file's name; ValueError for a name that has none."""
        patterns, found = self.map.split_files, {}
        for name in rows[FILE_COLUMN].unique().sort():
            found[name] = next((SPLITS.index(s) for p, s in patterns.items() if fnmatchcase(name, p)), None)
            if found[name] is None:
                raise ValueError(f"the file {name} matches no pattern of split_files: {list(patterns)}")
        return rows[FILE_COLUMN].replace_strict(found, return_dtype=pl.Int8).alias(SPLIT)


def check_splits(cells: pl.DataFrame, shares: dict[str, float], why: str, m: ColumnMap) -> None:
    """Raise ValueError for a split that is empty or of one class, saying why.

    `cells`: `accounts.split_cells`; `shares`: of each split, 0 where it may be empty.
    """
    n_kept = cells["n"].sum()
    for code, (split, share) in enumerate(shares.items()):
        own = cells.filter(pl.col(SPLIT) == code)
        n_rows, classes = own["n"].sum(), own[LABEL].unique()
        if share and not n_rows:
            raise ValueError(f"the split {split!r} of {n_kept} rows is empty{why or '; give more rows'}")
        if n_rows and len(classes) == 1:
            told = f"all {n_rows} rows of the split {split!r} have the class {classes[0]}"
            raise ValueError(f"{told}{why or _where_others_are(cells, classes[0], m)}")


def _where_others_are(cells: pl.DataFrame, c: int, m: ColumnMap) -> str:
    """Of rows of which a split has one class, how many others there are, and when."""
    others, n_kept = cells.filter(pl.col(LABEL) != c), cells["n"].sum()
    n = others["n"].sum()
    if not n:
        return f": label_values gives no row of {n_kept} another; are its values those of {m.label!r}?"
    if m.splits_by_time:
        when = f"from {others['first'].min():%Y-%m-%d} to {others['last'].max():%Y-%m-%d}"
        advice = 'give more rows, other shares, or split_by "random"'
        return f": the {n} rows of other classes are {when}; {advice}"
    return f": there are {n} rows of other classes in {n_kept}; give more rows or other shares"
