"""Figures with their intervals, tables of them, the one check of labels and scores, the one count of ranks.

Decisions:
- A figure with its interval is an `Estimate`; in a table a metric m has the columns m, m_low and m_high.
- A figure that the rows cannot give is None and reads "not enough data"; 0.0 is always a measured zero.
- Public statistics check their input once, with `checked`; the functions they call trust the arrays.
  Messages give counts, never a row's content.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import ArrayLike

LEVEL = 0.95  # of every interval of a table
NOT_ENOUGH = "not enough data"
FEW_ROWS = 5  # with 5 rows of a class the 95 % interval of an AUC covers the truth in 88 % of samples
NO_GROUP = "(none)"  # the group of rows without one


@dataclass(frozen=True)
class Estimate:
    """A figure, its interval and how many rows it is of; `str()` gives "0.832 [0.819, 0.845]".

    The value is None where the rows cannot give it, low and high where they give no interval.
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0

    def __str__(self) -> str:
        if self.low is None:
            return NOT_ENOUGH if self.value is None else f"{self.value:.3f}"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"

    def columns(self, name: str) -> dict[str, float | None]:
        """The three columns of a metric in a table."""
        return dict(zip(bounded(name), (self.value, self.low, self.high), strict=True))


def bounded(name: str) -> tuple[str, str, str]:
    """The columns of a metric and of the ends of its interval."""
    return name, f"{name}_low", f"{name}_high"


def table(
    rows: Sequence[Mapping[str, Any]], columns: Iterable[str], words: Iterable[str] = ()
) -> pl.DataFrame:
    """Rows as a table; its columns are counts (n, n_...), words, and otherwise figures."""
    text = {"group", "verdict", "note", *words}
    kinds = {
        c: pl.String if c in text else pl.Int64 if f"{c}_".startswith("n_") else pl.Float64 for c in columns
    }
    return pl.DataFrame(rows, schema=kinds)


def wilson(part: int, whole: int, min_rows: int = 1) -> Estimate:
    """A rate with Wilson's 95 % interval; without a value below `min_rows` rows."""
    from scipy.stats import binomtest  # scipy.stats takes 0.7 s to import

    if whole < min_rows:
        return Estimate(n=int(whole))
    low, high = binomtest(int(part), int(whole)).proportion_ci(method="wilson")
    return Estimate(float(part / whole), float(low), float(high), int(whole))


def holm(p_values: Iterable[float | None]) -> list[float | None]:
    """Holm's step-down correction of a family of p-values, in their order; None is no member of it.

    Source: Holm 1979.
    """
    p = np.array([np.nan if value is None else value for value in p_values], dtype=np.float64)
    order = np.argsort(p, kind="stable")[: np.isfinite(p).sum()]
    stepped = np.maximum.accumulate(p[order] * (order.size - np.arange(order.size)))
    p[order] = np.minimum(stepped, 1)
    return [None if np.isnan(value) else value for value in p.tolist()]


def checked(y: ArrayLike, probability: bool = False, **scores: ArrayLike) -> list[np.ndarray]:
    """Labels as bool and scores as float64; one ValueError names all that is wrong with them."""
    labels = _numbers("labels", y)
    columns = {name: _numbers(f"scores {name}", values) for name, values in scores.items()}
    problems = []
    if wrong := int((~np.isin(labels, (0, 1))).sum()):
        problems.append(f"labels: {wrong} of {labels.size} are not 0 or 1")
    for name, p in columns.items():
        finite = np.isfinite(p)
        outside = int(((p < 0) | (p > 1))[finite].sum()) if probability else 0
        if p.size != labels.size:
            problems.append(f"scores {name} have {p.size} values, labels have {labels.size}")
        if not finite.all():
            problems.append(f"scores {name}: {int((~finite).sum())} of {p.size} are NaN or infinite")
        if outside:
            problems.append(f"scores {name}: {outside} of {p.size} are outside [0, 1] (logits?)")
    if problems:
        raise ValueError("; ".join(problems))
    return [labels == 1, *columns.values()]


def classes(y: np.ndarray) -> tuple[int, int]:
    """How many positive and how many negative rows."""
    return int(y.sum()), int((~y).sum())


def placements(y: np.ndarray, p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Per positive the negatives below it, per negative the positives above it; a tie is a half."""
    positive, negative = p[y], p[~y]  # differences of midranks in halves: sums and zeros are exact
    return _below(positive, negative), positive.size - _below(negative, positive)


def rank_auc(y: np.ndarray, p: np.ndarray) -> float | None:
    """AUC of scores p (N,) of rows y (N,) bool, without an interval; None with one class only."""
    n_pairs = np.prod(classes(y))
    return float(_below(p[y], p[~y]).sum() / n_pairs) if n_pairs else None


def _below(scores: np.ndarray, others: np.ndarray) -> np.ndarray:
    """How many of the others are below each score, ties as a half."""
    ordered = np.sort(others)
    return (np.searchsorted(ordered, scores) + np.searchsorted(ordered, scores, "right")) / 2


def group_names(group: ArrayLike, n_rows: int) -> pl.Series:
    """The group of each row as text; ValueError if there are not as many as rows."""
    names = pl.Series("group", group).cast(pl.String).fill_null(NO_GROUP)
    if len(names) != n_rows:
        raise ValueError(f"group has {len(names)} values, labels have {n_rows}")
    return names


def group_rows(group: ArrayLike, n_rows: int) -> Iterator[tuple[str, np.ndarray]]:
    """Each group's name and row positions."""
    rows = group_names(group, n_rows).to_frame().with_row_index("row").group_by("group", maintain_order=True)
    for (name,), found in rows:
        yield name, found["row"].to_numpy()


def _numbers(what: str, values: ArrayLike) -> np.ndarray:
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):  # numpy's own message would repeat a value
        raise ValueError(f"{what}: expected numbers") from None
    if array.ndim != 1:
        raise ValueError(f"{what}: expected one dimension, got shape {array.shape}")
    return array
