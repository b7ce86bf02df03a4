"""Which rows a member of a blend is fitted on, and which it is then judged by.

Decisions:
- A split by time holds out its last block alone: a fold of mixed times would be judged by the past of the
  rows that it learned from, and flatters.
- A random split is held out in folds. Rows whose texts differ only in case, digits and signs stay together,
  unless they are more than a fold holds: apart, one would tell the other's label.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import polars as pl

from n3r.schema import LABEL, TIME, ColumnMap, joined_text

MIN_HELD = 10  # rows of each class in the last block of time, where there are as many
LARGEST_BLOCK = 0.5  # of all rows


class Fold(NamedTuple):
    """Numbers of the rows to fit on and of those held out, both ascending."""

    fit: np.ndarray
    held: np.ndarray


def make_folds(rows: pl.DataFrame, n_last: int, columns: ColumnMap, n_folds: int, seed: int) -> list[Fold]:
    """Folds of labelled rows, the training rows and behind them `n_last` validation rows.

    Split by time there is one: the validation rows, with as many rows before them as it takes to hold
    `MIN_HELD` of each class. Otherwise there are `n_folds`, fewer where a class has fewer rows; with
    `n_folds` 1, one that holds out about `n_last` rows. Raises ValueError where a class has fewer than two
    rows.
    """
    label = rows[LABEL].to_numpy()
    counts = np.bincount(label, minlength=columns.n_classes)
    if counts.min() < 2:
        c = int(counts.argmin())
        raise ValueError(f"class {c} has {counts[c]} of {len(rows)} rows: it takes 2 at least to hold out")
    if columns.splits_by_time:
        return [_last_block(rows, n_last, counts)]
    n_parts = n_folds if n_folds > 1 else max(2, round(len(rows) / max(1, n_last)))
    return _stratified(rows, columns, min(n_parts, int(counts.min())), seed)[:n_folds]


def _last_block(rows: pl.DataFrame, n_last: int, counts: np.ndarray) -> Fold:
    order = np.argsort(rows[TIME].fill_null(strategy="min").to_numpy(), kind="stable")
    label = rows[LABEL].to_numpy()[order]
    enough = np.minimum(MIN_HELD, counts // 2)
    n_held = n_last
    for c, n in enumerate(enough):
        n_held = max(n_held, len(label) - int(np.flatnonzero(label == c)[-n]))
    n_held = min(n_held, max(n_last, int(LARGEST_BLOCK * len(label))))
    return Fold(np.sort(order[:-n_held]), np.sort(order[-n_held:]))


def _stratified(rows: pl.DataFrame, columns: ColumnMap, n_folds: int, seed: int) -> list[Fold]:
    from sklearn.model_selection import StratifiedGroupKFold  # sklearn takes a second to import

    bare, has_letters = bare_text(columns.all_text)
    own = pl.concat_str(pl.lit("row "), pl.int_range(pl.len()).cast(pl.String))
    # A text without letters, and one of more rows than a fold holds, is nothing that tells rows apart.
    shared = has_letters.fill_null(False) & (pl.len().over(bare) <= len(rows) // n_folds)
    groups = rows.select(pl.when(shared).then(bare).otherwise(own).rank("dense")).to_series()
    splitter = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
    return [Fold(*pair) for pair in splitter.split(rows[LABEL].to_numpy(), rows[LABEL].to_numpy(), groups)]


def bare_text(fields: Sequence[str]) -> tuple[pl.Expr, pl.Expr]:
    """A row's texts without case, digits and signs, and whether there is a letter in them."""
    bare = joined_text(fields).str.to_lowercase().str.replace_all(r"[^\p{L}]", "")
    return bare, pl.any_horizontal(pl.col(fields).str.contains(r"\p{L}"))
