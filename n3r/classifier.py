"""The best recipe as a classifier of scikit-learn, for its cross-validation and its pipelines."""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import polars as pl
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import unique_labels
from sklearn.utils.validation import check_is_fitted

from n3r.blend.recipe import DEFAULT
from n3r.front import Model, fit, to_polars

LABEL = "n3r_label"


class RiskClassifier(ClassifierMixin, BaseEstimator):
    """`n3r.fit` on all rows of `X`, a frame that has the columns `text` and `categorical`, with two labels.

    Every other numeric column is a feature. `members` and `n_folds` are those of `blend.recipe.BlendConfig`;
    one fold is fast, and few rows are held out to weigh the members by.
    """

    def __init__(
        self,
        text: Sequence[str] = (),
        categorical: Sequence[str] = (),
        members: Sequence[str] = DEFAULT,
        n_folds: int = 1,
        seed: int = 0,
    ):
        self.text, self.categorical = text, categorical
        self.members, self.n_folds, self.seed = members, n_folds, seed

    def fit(self, X: Any, y: Any) -> Self:
        """Fit on rows and their labels; ValueError in one sentence for what cannot be fitted."""
        rows = to_polars(X)
        labels = np.asarray(y)
        if labels.shape != (rows.height,):
            raise ValueError(f"y has the shape {labels.shape}, {rows.height} rows need ({rows.height},)")
        self.classes_ = unique_labels(labels)
        if len(self.classes_) != 2:
            raise ValueError(f"y has {len(self.classes_)} labels, two are needed")
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
