"""What orders are worth, by which a missed fraud costs."""

import numpy as np
import polars as pl

from n3r.rows.parts import Rows, whole
from n3r.schema import AMOUNT


def worth(column: str) -> pl.Expr:
    """A column of amounts under n3r's own name, null where it is not finite or below 0."""
    amount = pl.col(column).cast(pl.Float64)
    return pl.when(amount.is_finite() & (amount >= 0)).then(amount).alias(AMOUNT)


def amounts(rows: Rows) -> np.ndarray | None:
    """What each of prepared or scored rows is worth, (N,); None where no row has an amount.

    A row without one counts as the mean of the others.
    """
    if AMOUNT not in rows.columns:
        return None
    known = whole(rows, [AMOUNT]).select(worth(AMOUNT)).to_series()
    return known.fill_null(strategy="mean").to_numpy() if known.count() else None
