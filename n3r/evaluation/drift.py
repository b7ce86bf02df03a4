"""Population stability: how far scores and columns of later rows have moved from the training rows.

The population stability index (PSI) compares the shares of rows in bins. Decisions:
- Rows are counted, all of them, some at a time. Bins are quantiles of the training rows, of more than 500,000
  of their sample (`rows/parts.py`). A value that fills a bin by itself is a bin of its own, so a column of
  few values is compared value by value, and values below, between or above them are seen when they come.
- Missing and NaN are one more bin. Categories too rare to compare are pooled; one that only the later rows
  have counts like any other. Bins that neither side fills are left out.
- Every bin gets half a row on each side, so that an empty one gives a finite value. With 5 rows per bin or
  more, two samples of one population then pass the null level in 3 to 5 % of 4,000 draws; with next to
  nothing added it is 11 % for 1,000 rows against 50 and 28 % for 50 against 50.
- The conventional limits 0.1 and 0.25 ignore the numbers of rows and bins: 50 rows against 50 pass 0.25 by
  chance in 63 % of draws, 200 against 200 pass 0.1 in 34 %. So a value comes with its null level, and one
  below that level is called stable.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import ArrayLike

from n3r.estimate import NOT_ENOUGH, table
from n3r.rows.parts import Rows, sample, slices
from n3r.rows.values import is_text

SOME_SHIFT, SHIFTED = 0.1, 0.25  # the conventional limits
MIN_PER_BIN = 5  # rows per bin, on both sides; below it the null level is no longer to be trusted
RARE = 0.01  # mean share of a category below which it is pooled with the others like it
SMOOTHING = 0.5  # rows added to each bin
SIDE_BY_SIDE = 50  # columns that are counted at a time
COLUMNS = ("column", "kind", "psi", "null_level", "verdict", "missing_train", "missing_test", "note")


@dataclass(frozen=True)
class Psi:
    """Population stability index of two samples; `str()` gives "0.012 (null level 0.034): stable".

    value and null_level are None with fewer than 5 rows a bin on either side. null_level: what two samples
    of one population stay below in 95 % of cases. n_bins: those that either side fills, one if
    nothing varies.
    """

    n_expected: int
    n_actual: int
    n_bins: int | None = None
    value: float | None = None
    null_level: float | None = None
    note: str | None = None

    @property
    def verdict(self) -> str:
        """One word for the value: this is the rule, and the only place that has it."""
        if self.value is None:
            return NOT_ENOUGH
        if self.value <= max(self.null_level, SOME_SHIFT):
            return "stable"
        return "some shift" if self.value <= SHIFTED else "shifted"

    def __str__(self) -> str:
        value = "" if self.value is None else f"{self.value:.3f} (null level {self.null_level:.3f}): "
        return value + self.verdict


def psi(expected: ArrayLike | pl.Series, actual: ArrayLike | pl.Series, n_bins: int = 10) -> Psi:
    """PSI of later values against those trained on: numbers, booleans (as 0 and 1) or text.

    Numbers fall into quantile bins of `expected`; `n_bins` is how many, ties apart. Text is compared
    category by category. None and NaN are a bin of their own. Null level: (1/n + 1/m) times the 95 %
    quantile of chi-square with bins - 1 degrees of freedom, Yurdakul & Naranjo 2020. Raises ValueError on
    values that are neither, or numbers on one side and text on the other.
    """
    if n_bins < 2:
        raise ValueError(f"n_bins {n_bins}: expected a whole number from 2")
    expected, actual = _series("expected", expected), _series("actual", actual)
    kinds = [_kind(values.dtype) for values in (expected, actual)]
    if problem := _misfit(*kinds):
        raise ValueError(f"values: {problem}")
    name = "values"
    sides = (values.alias(name).to_frame() for values in (expected, actual))
    return _psi(*_count(*sides, {name: "text" in kinds}, n_bins)[name], n_bins)


def drift(train: Rows, test: Rows, columns: Sequence[str]) -> pl.DataFrame:
    """PSI of each column of two tables of any number of rows, largest first.

    Columns: column, kind (number, boolean or text), psi, null_level, verdict, missing_train and missing_test
    (shares of rows), note. Raises ValueError naming every column that a table lacks, that is of no such
    kind, or that is text in one table and numbers in the other.
    """
    types = [rows.select([n for n in columns if n in rows.columns]).schema for rows in (train, test)]
    if problems := [problem for name in columns if (problem := _problem(name, *types))]:
        raise ValueError(f"columns to compare: {'; '.join(problems)}")
    rows, kinds = [], {name: [_kind(own[name]) for own in types] for name in columns}
    for start in range(0, len(columns), SIDE_BY_SIDE):
        are_text = {name: "text" in kinds[name] for name in columns[start : start + SIDE_BY_SIDE]}
        counted = _count(train, test, are_text)
        rows += [_compared(name, kinds[name], *sides) for name, sides in counted.items()]
    found = table(rows, COLUMNS, words=COLUMNS[:2])
    return found.sort("psi", descending=True, maintain_order=True)


class _Counted:
    """Rows of one column: how many, how many of them missing, and in which bin or category the others are."""

    def __init__(self, ends: np.ndarray | None):
        self.n, self.n_missing, self.ends = 0, 0, ends  # no ends: of text
        self.bins = np.zeros(1 if ends is None else len(ends) + 1, np.int64)
        self.categories = pl.DataFrame(schema={"category": pl.String, "n": pl.Int64})

    def add(self, values: pl.Series) -> None:
        """Count some more rows."""
        self.n += len(values)
        if self.ends is None:
            more = values.cast(pl.String).alias("category").drop_nulls().value_counts(name="n")
            both = pl.concat([self.categories, more.cast({"n": pl.Int64})])
            self.categories = both.group_by("category").agg(pl.sum("n"))
            self.n_missing += values.null_count()
        else:
            known = _known_numbers(values)
            self.bins += np.bincount(self.ends.searchsorted(known), minlength=len(self.bins))
            self.n_missing += len(values) - known.size


def _count(
    expected: Rows, actual: Rows, are_text: Mapping[str, bool], n_bins: int = 10
) -> dict[str, list[_Counted]]:
    """Both sides of each column, numbers in quantile bins of `expected`."""
    numbers = [name for name, is_text in are_text.items() if not is_text]
    looked_at = sample(expected, numbers)[0] if numbers else pl.DataFrame()
    ends = {
        name: None if is_text else edges(_known_numbers(looked_at[name]), n_bins)
        for name, is_text in are_text.items()
    }
    found = {name: [_Counted(own), _Counted(own)] for name, own in ends.items()}
    for side, rows in enumerate((expected, actual)):
        for part in slices(rows, list(found)):
            for name, sides in found.items():
                sides[side].add(part[name])
    return found


def _psi(expected: _Counted, actual: _Counted, n_bins: int = 10) -> Psi:
    """The index of one column that was counted."""
    n, m = expected.n, actual.n
    if min(n, m) < MIN_PER_BIN * n_bins:
        return Psi(n, m, note=NOT_ENOUGH)
    known = _of_categories(expected, actual) if expected.ends is None else [expected.bins, actual.bins]
    counts = np.hstack([known, [[expected.n_missing], [actual.n_missing]]])
    counts = counts[:, counts.any(axis=0)]
    bins = counts.shape[1]
    return Psi(n, m, bins, _index(counts), _null_level(n, m, bins), _note(expected, actual, bins))


def _compared(name: str, kinds: Sequence[str], train: _Counted, test: _Counted) -> dict[str, Any]:
    """What `drift` says of one column."""
    found = _psi(train, test)
    kinds = [kind for kind in kinds if kind != "nothing"]
    missing = [side.n_missing / side.n if side.n else None for side in (train, test)]
    return {
        "column": name,
        "kind": "number" if "number" in kinds else kinds[0] if kinds else None,
        "psi": found.value,
        "null_level": found.null_level,
        "verdict": found.verdict,
        "missing_train": missing[0],
        "missing_test": missing[1],
        "note": found.note,
    }


def _problem(name: str, train: pl.Schema, test: pl.Schema) -> str | None:
    """What is wrong with a column of the two tables, in one phrase."""
    lacking = [which for which, own in (("train", train), ("test", test)) if name not in own]
    if lacking:
        return f"{name!r} is missing from {' and '.join(lacking)}"
    types = train[name], test[name]
    why = _misfit(*map(_kind, types))
    # An Enum in full would list its categories.
    return f"{name!r} (train {types[0].base_type()}, test {types[1].base_type()}): {why}" if why else None


def _misfit(expected: str | None, actual: str | None) -> str | None:
    """Why values of these two kinds cannot be compared."""
    if None in (expected, actual):
        return "expected numbers, booleans or text"
    if "text" in (expected, actual) and {expected, actual} & {"number", "boolean"}:
        return "text on one side, numbers on the other"
    return None


def _kind(dtype: pl.DataType) -> str | None:
    """What a column holds; "nothing" goes with everything, None with nothing."""
    if dtype.is_numeric():
        return "number"
    if is_text(dtype):
        return "text"
    return {pl.Boolean: "boolean", pl.Null: "nothing"}.get(dtype.base_type())


def _series(what: str, values: ArrayLike | pl.Series) -> pl.Series:
    try:
        return values if isinstance(values, pl.Series) else pl.Series(values, strict=False)
    except (TypeError, ValueError, pl.exceptions.PolarsError):  # their messages would repeat a value
        raise ValueError(f"{what}: expected one column of numbers, booleans or text") from None


def _known_numbers(values: pl.Series) -> np.ndarray:
    values = values.cast(pl.Float64).drop_nulls().to_numpy()
    return values[~np.isnan(values)]


def edges(values: np.ndarray, n_bins: int) -> np.ndarray:
    """Upper ends of all bins but the last; a value that two quantiles share is set apart on both sides."""
    if not values.size:
        return np.empty(0)
    at = (np.arange(1, n_bins) * values.size - 1) // n_bins
    quantiles = np.partition(values, at)[at]
    shared = quantiles[1:][quantiles[1:] == quantiles[:-1]]
    return np.unique(np.concatenate([quantiles, np.nextafter(shared, -np.inf)]))


def _of_categories(expected: _Counted, actual: _Counted) -> np.ndarray:
    """Rows (2, bins) of expected and actual in each category; the last bin is of rare ones.

    A category stands alone when the mean of its two shares is 1 %, and 5 rows of the smaller side.
    """
    sides = expected.categories, actual.categories.rename({"n": "m"})
    both = sides[0].join(sides[1], on="category", how="full", coalesce=True).fill_null(0).sort("category")
    counts = both.select("n", "m").to_numpy().T.astype(np.int64)
    sizes = np.array([expected.n, actual.n])
    common = (counts / sizes[:, None]).mean(axis=0) >= max(RARE, MIN_PER_BIN / sizes.min())
    rare = counts[:, ~common].sum(axis=1, keepdims=True)
    return np.hstack([counts[:, common], rare])


def _index(counts: np.ndarray) -> float:
    smooth = counts + SMOOTHING
    expected, actual = smooth / smooth.sum(axis=1, keepdims=True)
    return float(((actual - expected) * np.log(actual / expected)).sum())


def _null_level(n: int, m: int, n_bins: int) -> float:
    from scipy.stats import chi2  # scipy.stats takes 0.5 s to import

    return float((1 / n + 1 / m) * chi2.ppf(0.95, n_bins - 1)) if n_bins > 1 else 0.0


def _note(expected: _Counted, actual: _Counted, n_bins: int) -> str | None:
    """What a reader should know of columns where the index says little."""
    empty = [which for which, s in (("train", expected), ("test", actual)) if s.n_missing == s.n]
    if empty:
        return f"no value in {' and '.join(empty)}"
    if n_bins == 1:
        return "constant" if len(expected.categories) < 2 else "every category is rare"
    return None
