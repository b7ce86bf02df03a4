"""Honest baselines on the same rows: what a reader would try first, to see what the nets add.

scikit-learn learns; what is here turns prepared rows into its inputs. Decisions:

- Text: n-grams of 1 to 4 characters with their case, across field borders, and C = 3. Orders want shorter
  ones (0.752 with 1 to 3, 0.742, 0.732 with 1 to 5; 0.70 without single characters), profiles and reviews
  longer ones (0.821, 0.826, 0.828; 0.947, 0.950, 0.953).
- Boosting reads the numbers and categories, and `string_statistics` of the identity fields. On orders the
  numbers alone reach 0.841, with figures of each field 0.883, with those of each two fields 0.896, and with
  the number of training rows that share a value 0.901; on twitter_bots 0.925 from the numbers to the last.
- A training row does not count itself among the rows that share its value: all values would be seen, and
  of later rows' values most would not.
- An e-mail address is known by its own shape, not by its column: it counts by its user name, and its domain
  by the number of rows that share it. The domain as a category too lost 0.003 on orders, where most domains
  are rare, and gained 0.001 on twitter_bots; the entropy of characters added nothing to the share of
  distinct ones; the mean logit of both baselines was 0.012 and 0.008 worse than boosting.
- One thread: more of them changed the last digits of the regression, and beside other programs made two
  threads take 7 s for the boosting that one does in 0.7 s.
- Nothing stops early, so no row is held out; nothing that was learned is saved or shown.

The figures are AUC on validation rows or in five folds of training and validation rows, of 30,000 synthetic
orders, twitter_bots and womens_reviews.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
import polars as pl

from n3r.schema import LABEL, MISSING, SEPARATOR, SPLITS, ColumnMap

MIN_ROWS = 20  # of a category; rarer and unseen ones share a code
MAX_CATEGORIES = 254  # with a code of their own: the boosting takes 255 in all
VALUE, COUNT, RANK = "value", "count", "rank"
CHUNK = 100_000  # rows that are predicted at a time
EMAIL = r"^\s*([^@\s]+)@([^@\s]+)\s*$"  # user name, domain
SHARES = {
    "capitals": r"\p{Lu}",
    "digits": r"\d",
    "symbols": r"[^\p{L}\p{M}\d\s]",
    "non-ASCII": r"[^\x00-\x7F]",
}


@dataclass(frozen=True, eq=False)
class Baseline:
    """A fitted baseline: `inputs` of a frame are what `model`, scikit-learn's, reads."""

    inputs: Callable[[pl.DataFrame], Any]
    model: Any
    columns: list[str]

    def predict(self, frame: pl.DataFrame) -> np.ndarray:
        """Probability of class 1 of each row, (N,) float64; ValueError names the columns it lacks."""
        _check_columns(frame, self.columns)
        with _one_thread():
            parts = [self.model.predict_proba(self.inputs(part))[:, 1] for part in frame.iter_slices(CHUNK)]
        return np.concatenate(parts) if parts else np.empty(0)


def fit_baseline(name: str, train: pl.DataFrame, column_map: ColumnMap, seed: int = 0) -> Baseline:
    """The baseline of `BASELINES` with this name, fitted on prepared training rows.

    The same rows and seed give the same probabilities to the last digit, on any number of threads.
    Raises ValueError on an unknown name, on missing columns and on rows that are not of two classes.
    """
    if name not in BASELINES:
        raise ValueError(f"there is no baseline {name!r}, only {list(BASELINES)}")
    _check_columns(train, [*_inputs(column_map), LABEL])
    return BASELINES[name](train, _labels(train[LABEL]), column_map, seed)


def baseline_scores(
    splits: Mapping[str, pl.DataFrame], column_map: ColumnMap, seed: int = 0
) -> dict[str, dict[str, np.ndarray]]:
    """Baseline -> split -> probabilities in row order, for each split but "train", which they learn from.

    Raises ValueError as `fit_baseline` does.
    """
    learnt_from = SPLITS[0]
    if learnt_from not in splits:
        raise ValueError(f"the baselines learn from the split {learnt_from!r}, found {list(splits)}")
    scores = {}
    for name in BASELINES:
        baseline = fit_baseline(name, splits[learnt_from], column_map, seed)
        others = {split: frame for split, frame in splits.items() if split != learnt_from}
        scores[name] = {split: baseline.predict(frame) for split, frame in others.items()}
    return scores


def string_statistics(frame: pl.DataFrame, text: Sequence[str]) -> pl.DataFrame:
    """What an analyst would count in identity strings: figures of each field and of each two fields.

    A row for a row, Float64, columns such as "email digits" and "email ~ holder trigrams". Of an e-mail
    address only the user name is read. Capitals, digits and their like are shares of a value's
    characters. Of two fields, "words" is the share of the shared words in the value that has fewer,
    "trigrams" the Jaccard index of their runs of three characters, "equal" 0 or 1; case, accents and
    punctuation do not count. What a value that is missing, empty or only punctuation cannot have is null.
    """
    _check_columns(frame, text)
    values = frame.lazy().select(_user_name(name) for name in text)
    folded = values.select(_folded(name) for name in text)
    plain = folded.select(pl.col(text).str.replace_all(r"[^\p{L}\d]", "").replace("", None))
    words = folded.select(_words(name) for name in text)
    trigrams = plain.select(_trigrams(name) for name in text)
    pairs = list(combinations(text, 2))
    figures = [
        values.select(figure for name in text for figure in _figures(name)),
        folded.select(figure for name in text for figure in _sounds(name)),
        words.select(_overlap(a, b).alias(f"{a} ~ {b} words") for a, b in pairs),
        trigrams.select(_jaccard(a, b).alias(f"{a} ~ {b} trigrams") for a, b in pairs),
        plain.select((pl.col(a) == pl.col(b)).alias(f"{a} ~ {b} equal") for a, b in pairs),
    ]
    return pl.concat(pl.collect_all(figures), how="horizontal").cast(pl.Float64)


def _user_name(name: str) -> pl.Expr:
    """The value, or the part of an e-mail address before the @."""
    value = pl.col(name).cast(pl.String)
    return pl.coalesce(value.str.extract(EMAIL, 1), value).alias(name)


def _folded(name: str) -> pl.Expr:
    """Without case and accents."""
    return pl.col(name).str.to_lowercase().str.normalize("NFKD").str.replace_all(r"\p{M}", "")


def _words(name: str) -> pl.Expr:
    """The distinct words; null without one."""
    words = pl.col(name).str.extract_all(r"[\p{L}\d]+").list.unique()
    return pl.when(words.list.len() > 0).then(words).alias(name)


def _trigrams(name: str) -> pl.Expr:
    """The distinct runs of three characters; of one or two, the value itself."""
    value = pl.col(name)
    runs = [value.str.slice(start).str.extract_all("...") for start in range(3)]
    return pl.concat_list(*runs, value.str.extract_all("^..?$")).list.unique().alias(name)


def _share(name: str, pattern: str) -> pl.Expr:
    """Matches per character; null for an empty value."""
    return _ratio(pl.col(name).str.count_matches(pattern), pl.col(name).str.len_chars())


def _ratio(part: pl.Expr, whole: pl.Expr) -> pl.Expr:
    return part / pl.when(whole > 0).then(whole)


def _longest(name: str, pattern: str) -> pl.Expr:
    """Characters of the longest match, 0 without one."""
    lengths = pl.col(name).str.extract_all(pattern).list.eval(pl.element().str.len_chars())
    return pl.when(pl.col(name).is_not_null()).then(lengths.list.max().fill_null(0))


def _figures(name: str) -> Iterator[pl.Expr]:
    """What is counted in a value as it was typed."""
    value, length = pl.col(name), pl.col(name).str.len_chars()
    yield value.is_null().alias(f"{name} missing")
    yield length.alias(f"{name} length")
    yield value.str.count_matches(r"\S+").alias(f"{name} words")
    yield _longest(name, r"\S+").alias(f"{name} longest word")
    for figure, pattern in SHARES.items():
        yield _share(name, pattern).alias(f"{name} {figure}")
    yield value.str.count_matches(r"\d+").alias(f"{name} numbers")
    yield _longest(name, r"\d+").alias(f"{name} longest number")
    yield value.str.extract(r"(\d*)\s*$").str.len_chars().alias(f"{name} digits at the end")
    yield _ratio(value.str.split("").list.n_unique(), length).alias(f"{name} distinct characters")


def _sounds(name: str) -> Iterator[pl.Expr]:
    """What is counted in a folded value: random letters are hard to say."""
    yield _share(name, "[aeiou]").alias(f"{name} vowels")
    yield _longest(name, "[b-df-hj-np-tv-z]+").alias(f"{name} consonants in a row")


def _shared(a: str, b: str) -> pl.Expr:
    return pl.col(a).list.set_intersection(b).list.len().cast(pl.Int64)


def _overlap(a: str, b: str) -> pl.Expr:
    """What two lists share, of the shorter."""
    return _shared(a, b) / pl.min_horizontal(pl.col(a, b).list.len())


def _jaccard(a: str, b: str) -> pl.Expr:
    """What two lists share, of all that is in them."""
    return _shared(a, b) / (pl.col(a).list.len() + pl.col(b).list.len() - _shared(a, b))


class _Repeats:
    """How often each value of a column occurs in the training rows."""

    def __init__(self, values: pl.Series):
        counted = values.rename(VALUE).drop_nulls().value_counts(name=COUNT)
        self.table = counted.sort([COUNT, VALUE], descending=[True, False]).with_row_index(RANK)
        self.n_codes = min((self.table[COUNT] >= MIN_ROWS).sum(), MAX_CATEGORIES)

    def count(self, values: pl.Series) -> pl.Series:
        """Training rows with the same value; null where it is missing."""
        return self._look_up(values, pl.col(COUNT).fill_null(0))

    def code(self, values: pl.Series) -> pl.Series:
        """0 for the commonest value and so on, `n_codes` for all rare and unseen ones, null for missing."""
        return self._look_up(values, pl.col(RANK).fill_null(self.n_codes).clip(0, self.n_codes))

    def _look_up(self, values: pl.Series, result: pl.Expr) -> pl.Series:
        found = values.rename(VALUE).to_frame().join(self.table, on=VALUE, how="left", maintain_order="left")
        known = pl.when(pl.col(VALUE).is_not_null()).then(result.cast(pl.Float64))
        return found.select(known.alias(values.name)).to_series()


def _shared_values(frame: pl.DataFrame, text: Sequence[str]) -> list[pl.Series]:
    """What rows may share: the value of each field, and the domain of e-mail addresses."""
    values = frame.select(pl.col(text).cast(pl.String))
    domains = values.select(pl.all().str.extract(EMAIL, 2).str.to_lowercase().name.suffix(" domain"))
    return [*values, *domains]


class _Table:
    """Rows as the matrix that the boosting reads: numbers, string statistics, counts, then categories."""

    def __init__(self, train: pl.DataFrame, column_map: ColumnMap):
        self.text, self.numeric = column_map.all_text, column_map.numeric
        self.counts = [_Repeats(values) for values in _shared_values(train, self.text)]
        self.codes = {name: _Repeats(train[name].cast(pl.String)) for name in column_map.categorical}

    def __call__(self, frame: pl.DataFrame, own: int = 0) -> np.ndarray:
        """(N, F) float64, NaN where missing; `own` is how often a row itself is in the counts."""
        values = _shared_values(frame, self.text)
        columns = [
            *frame.select(self.numeric),
            *string_statistics(frame, self.text),
            *(repeats.count(one) - own for repeats, one in zip(self.counts, values, strict=True)),
            *(repeats.code(frame[name].cast(pl.String)) for name, repeats in self.codes.items()),
        ]
        matrix = np.column_stack([column.cast(pl.Float64).to_numpy() for column in columns])
        matrix[~np.isfinite(matrix)] = np.nan
        return matrix


def _joined(frame: pl.DataFrame, column_map: ColumnMap) -> pl.Series:
    """The text fields of each row as one; each is closed, so that no row is without an n-gram."""
    fields = [pl.col(name).cast(pl.String).fill_null(MISSING) + SEPARATOR for name in column_map.all_text]
    return frame.select(pl.concat_str(fields)).to_series()


def _text_baseline(train: pl.DataFrame, label: np.ndarray, column_map: ColumnMap, seed: int) -> Baseline:
    from sklearn.feature_extraction.text import TfidfVectorizer  # sklearn takes a second to import
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    terms = TfidfVectorizer(
        analyzer="char",
        ngram_range=(1, 4),
        lowercase=False,
        sublinear_tf=True,
        min_df=min(3, len(label)),
        max_features=100_000,
    )
    model = make_pipeline(terms, LogisticRegression(C=3.0, solver="liblinear", random_state=seed))
    inputs = partial(_joined, column_map=column_map)
    return Baseline(inputs, _fitted(model, inputs(train), label), column_map.all_text)


def _boosting(train: pl.DataFrame, label: np.ndarray, column_map: ColumnMap, seed: int) -> Baseline:
    from sklearn.ensemble import HistGradientBoostingClassifier

    table = _Table(train, column_map)
    matrix = table(train, own=1)
    matrix[:, np.isnan(matrix).all(axis=0)] = 0  # scikit-learn 1.9 fails on a column that is all missing
    model = HistGradientBoostingClassifier(
        learning_rate=0.05,
        max_iter=200,
        max_leaf_nodes=15,
        l2_regularization=1.0,
        max_features=0.3,
        early_stopping=False,
        categorical_features=np.arange(-matrix.shape[1], 0) >= -len(table.codes),
        random_state=seed,
    )
    return Baseline(table, _fitted(model, matrix, label), _inputs(column_map))


BASELINES: dict[str, Callable[[pl.DataFrame, np.ndarray, ColumnMap, int], Baseline]] = {
    "TF-IDF + logistic regression": _text_baseline,
    "gradient boosting": _boosting,
}


def _fitted(model: Any, inputs: Any, label: np.ndarray) -> Any:
    with _one_thread():
        return model.fit(inputs, label)


def _one_thread() -> AbstractContextManager:
    """To be entered once a model is made: only libraries that are loaded can be held to one thread."""
    from threadpoolctl import threadpool_limits  # comes with scikit-learn, which heeds it

    return threadpool_limits(1)


def _inputs(column_map: ColumnMap) -> list[str]:
    return list(dict.fromkeys([*column_map.all_text, *column_map.numeric, *column_map.categorical]))


def _check_columns(frame: pl.DataFrame, columns: Sequence[str]) -> None:
    if absent := [name for name in columns if name not in frame.columns]:
        raise ValueError(f"the rows lack the columns {absent} that the baselines read")


def _labels(label: pl.Series) -> np.ndarray:
    """(N,) 0 and 1, both present."""
    label = label.cast(pl.Float64, strict=False)
    if wrong := len(label) - label.is_in([0.0, 1.0]).sum():
        raise ValueError(
            f"label: {wrong} of {len(label)} rows are not 0 or 1, the classes baselines tell apart"
        )
    if label.n_unique() < 2:
        raise ValueError(f"label: the {len(label)} rows are not of two classes; baselines need rows of both")
    return label.cast(pl.Int8).to_numpy()
