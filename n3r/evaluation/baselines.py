"""Baselines on the same rows: what a reader would try first, to see what the networks add.

scikit-learn does the learning; this module turns prepared rows into its inputs. Decisions:

- Text: n-grams of 1 to 4 characters with their case, across field borders, and C = 3. Shorter ones suit
  orders (0.752 with 1 to 3, 0.742, 0.732 with 1 to 5; 0.70 without single characters), longer ones suit
  profiles and reviews (0.821, 0.826, 0.828; 0.947, 0.950, 0.953).
- Boosting reads the numbers, the identity features and the categories. On validation rows of
  three sets of orders the numbers alone reach 0.843, 0.858 and 0.851, with identity features 0.908, 0.939 and
  0.912 (0.899, 0.921 and 0.899 with fewer string statistics); on twitter_bots 0.923 and 0.931 (0.921).
- A training row does not count itself among the rows that share its value: otherwise every training value
  would look seen, while most values of later rows are new.
- The mean logit of both baselines was 0.012 and 0.008 worse than boosting.
- One thread: more threads changed the last digits of the regression, and beside other programs two threads
  took 7 s for the boosting that one does in 0.7 s.
- There is no early stopping, so no row is held out; nothing that was learned is saved or shown.

The figures are AUC on validation rows or in five folds of training and validation rows, of 30,000 synthetic
orders, twitter_bots and womens_reviews.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import polars as pl

from n3r.identity.features import IdentityFeatures
from n3r.ngrams import joined_texts
from n3r.rows.parts import Rows, slices
from n3r.schema import LABEL, SPLITS, ColumnMap

MIN_ROWS = 20  # of a category; rarer and unseen ones share a code
MAX_CATEGORIES = 254  # with a code of their own: the boosting takes 255 in all
VALUE, COUNT, RANK = "value", "count", "rank"


@dataclass(frozen=True, eq=False)
class Baseline:
    """A fitted baseline: `inputs` of a frame are what `model`, scikit-learn's, reads."""

    inputs: Callable[[pl.DataFrame], Any]
    model: Any
    columns: list[str]
    n_classes: int = 2

    def predict(self, rows: Rows) -> np.ndarray:
        """Probabilities of rows, of class 1 (N,) or of more than two classes (N, C), float64.

        Raises ValueError naming the columns it lacks.
        """
        _check_columns(rows, self.columns)
        p, start = np.zeros((len(rows), self.n_classes)), 0
        with _one_thread():
            for part in slices(rows, self.columns):
                if len(part):
                    own = slice(start, start := start + len(part))
                    p[own, self.model.classes_] = self.model.predict_proba(self.inputs(part))
        return p[:, 1] if self.n_classes == 2 else p


def fit_baseline(name: str, train: pl.DataFrame, column_map: ColumnMap, seed: int = 0) -> Baseline:
    """The baseline of `BASELINES` with this name, fitted on prepared training rows.

    The same rows and seed give the same probabilities to the last digit, on any number of threads.
    Raises ValueError on an unknown name, on missing columns, on labels that are not among the map's classes,
    and on rows of one class.
    """
    if name not in BASELINES:
        raise ValueError(f"there is no baseline {name!r}, only {list(BASELINES)}")
    _check_columns(train, [*_inputs(column_map), LABEL])
    return BASELINES[name](train, _labels(train[LABEL], column_map.n_classes), column_map, seed)


def baseline_scores(
    splits: Mapping[str, Rows], column_map: ColumnMap, seed: int = 0
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


class _Codes:
    """A category as a number: 0 for the commonest and so on."""

    def __init__(self, values: pl.Series):
        counted = values.rename(VALUE).drop_nulls().value_counts(name=COUNT)
        self.table = counted.sort([COUNT, VALUE], descending=[True, False]).with_row_index(RANK)
        self.n_codes = min((self.table[COUNT] >= MIN_ROWS).sum(), MAX_CATEGORIES)

    def __call__(self, values: pl.Series) -> np.ndarray:
        """(N,) float64, `n_codes` for all rare and unseen ones, NaN for missing."""
        found = values.rename(VALUE).to_frame().join(self.table, on=VALUE, how="left", maintain_order="left")
        code = pl.col(RANK).fill_null(self.n_codes).clip(0, self.n_codes).cast(pl.Float64)
        return found.select(pl.when(pl.col(VALUE).is_not_null()).then(code)).to_series().to_numpy()


class _Table:
    """Rows as the matrix that the boosting reads: numbers, identity features, then categories."""

    def __init__(self, train: pl.DataFrame, column_map: ColumnMap):
        self.numeric = column_map.numeric
        self.identity = IdentityFeatures().fit(train, column_map)
        self.codes = {name: _Codes(train[name].cast(pl.String)) for name in column_map.categorical}

    def __call__(self, frame: pl.DataFrame, training: bool = False) -> np.ndarray:
        """(N, F) float64, NaN where missing; `training`: of the very rows that it was made of."""
        numbers = [frame[name].cast(pl.Float64).to_numpy() for name in self.numeric]
        read = self.identity.transform_training if training else self.identity.transform
        codes = [code(frame[name].cast(pl.String)) for name, code in self.codes.items()]
        matrix = np.column_stack([*numbers, read(frame), *codes])
        matrix[~np.isfinite(matrix)] = np.nan
        return matrix


def _joined(frame: pl.DataFrame, column_map: ColumnMap) -> list[str]:
    return joined_texts([frame[name].cast(pl.String).to_list() for name in column_map.all_text])


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
    solver = "liblinear" if column_map.n_classes == 2 else "lbfgs"  # the first knows two classes alone
    model = make_pipeline(terms, LogisticRegression(C=3.0, solver=solver, random_state=seed))
    inputs, fitted = partial(_joined, column_map=column_map), partial(_fitted, model)
    return Baseline(inputs, fitted(inputs(train), label), column_map.all_text, column_map.n_classes)


def _boosting(train: pl.DataFrame, label: np.ndarray, column_map: ColumnMap, seed: int) -> Baseline:
    from sklearn.ensemble import HistGradientBoostingClassifier

    table = _Table(train, column_map)
    matrix = table(train, training=True)
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
    return Baseline(table, _fitted(model, matrix, label), _inputs(column_map), column_map.n_classes)


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


def _check_columns(rows: Rows, columns: Sequence[str]) -> None:
    if absent := [name for name in columns if name not in rows.columns]:
        raise ValueError(f"the rows lack the columns {absent} that the baselines read")


def _labels(label: pl.Series, n_classes: int) -> np.ndarray:
    """(N,) classes, two at least of which have rows."""
    label = label.cast(pl.Float64, strict=False)
    known = [float(c) for c in range(n_classes)]
    if wrong := len(label) - label.is_in(known).sum():
        told = "0 or 1" if n_classes == 2 else f"0 to {n_classes - 1}"
        raise ValueError(f"label: {wrong} of {len(label)} rows are not {told}, the classes of the column map")
    if label.n_unique() < 2:
        raise ValueError(f"label: the {len(label)} rows are not of two classes; baselines need rows of both")
    return label.cast(pl.Int8).to_numpy()
