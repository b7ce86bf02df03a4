"""The best recipe as a classifier of scikit-learn, for its cross-validation and its pipelines."""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import polars as pl
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import Tags
from sklearn.utils.multiclass import unique_labels
from sklearn.utils.validation import check_is_fitted

from n3r.blend.config import DEFAULT
from n3r.front import Model, fit, to_polars

LABEL = "n3r_label"


class RiskClassifier(ClassifierMixin, BaseEstimator):
    """`n3r.fit` on all rows of `X`, a frame that has the columns `text` and `categorical`, with two labels.

    Every other numeric column is a feature. `members` and `n_folds` are those of `blend.config.BlendConfig`;
    one fold is fast, and few rows are held out to weigh the members by. `accept` is that of `n3r.fit`.
    """

    def __init__(
        self,
        text: Sequence[str] = (),
        categorical: Sequence[str] = (),
        members: Sequence[str] = DEFAULT,
        n_folds: int = 1,
        seed: int = 0,
        accept: Sequence[str] = (),
    ):
        self.text, self.categorical = text, categorical
        self.members, self.n_folds, self.seed, self.accept = members, n_folds, seed, accept

    def __sklearn_tags__(self) -> Tags:
        """What scikit-learn is to know: frames of texts and numbers with gaps are read, of two classes."""
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False  # arrays have no names of columns
        tags.input_tags.string = tags.input_tags.categorical = tags.input_tags.allow_nan = True
        tags.classifier_tags.multi_class = False
        return tags

    def fit(self, X: Any, y: Any) -> Self:
        """Fit on rows and their labels; ValueError in one sentence for what cannot be fitted."""
        rows = to_polars(X)
        labels = _labels(y)
        if labels.shape != (rows.height,):
            raise ValueError(f"y has the shape {labels.shape}, {rows.height} rows need ({rows.height},)")
        self.classes_ = unique_labels(labels)
        if (n := len(self.classes_)) != 2:
            plural = "" if n == 1 else "es"
            raise ValueError(
                f"y has {n} class{plural}, two are needed: Only binary classification is supported."
            )
        if LABEL in rows.columns:
            raise ValueError(f"X has a column {LABEL!r}, as y is called here: rename it")
        codes = (labels == self.classes_[1]).astype(np.int8)
        self.model_: Model = fit(
            rows.with_columns(pl.Series(LABEL, codes)),
            label=LABEL,
            text=list(self.text),
            categorical=list(self.categorical),
            test=0,
            seed=self.seed,
            members=list(self.members),
            n_folds=self.n_folds,
            accept=self.accept,
        )
        self.n_features_in_ = rows.width
        self.feature_names_in_ = np.array(rows.columns, dtype=object)
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """(N, 2) probabilities of `classes_`."""
        check_is_fitted(self)
        p = self.model_.score(X)["score"].to_numpy().astype(np.float64)
        return np.column_stack([1 - p, p])

    def predict(self, X: Any) -> np.ndarray:
        """The likelier label of each row."""
        p = self.predict_proba(X)
        return self.classes_[p.argmax(axis=1)]


def _labels(y: Any) -> np.ndarray:
    """Labels as an array of one type; ValueError where some are missing."""
    values = np.asarray(y)
    listed = values.ravel().tolist()
    # pandas' own sign of a missing value is equal to nothing, and not even true or false when compared.
    n_missing = sum(one is None or type(one).__name__ == "NAType" or one != one for one in listed)
    if n_missing:
        raise ValueError(f"y has {n_missing} missing labels: leave out those rows (y contains NaN)")
    return np.array(values.tolist()) if values.dtype == object else values
