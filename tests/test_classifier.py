"""n3r's best recipe where scikit-learn's tools expect a classifier."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import estimator_checks

from n3r.classifier import RiskClassifier
from n3r.synthetic.orders import generate_orders

TEXT = ["emailAddress", "customerName", "paymentAccountHolderName"]
FEW = {"text": TEXT, "members": ["random forest"]}


@pytest.fixture(scope="module")
def rows() -> tuple[pd.DataFrame, np.ndarray]:
    orders = generate_orders(900, seed=5, base_rate=0.25)
    label = np.where(orders["status"].is_in(["F", "I"]).fill_null(False), "fraud", "good")
    return orders.select(*TEXT, "accountAgeDays", "orderAmount").to_pandas(), label


# Those that need no rows: the others feed arrays without names of columns, in which there is no text.
@pytest.mark.parametrize(
    "check",
    [
        "check_estimator_cloneable",
        "check_estimator_repr",
        "check_no_attributes_set_in_init",
        "check_get_params_invariance",
        "check_set_params",
        "check_parameters_default_constructible",
        "check_estimator_tags_renamed",
        "check_valid_tag_types",
    ],
)
def test_scikit_learns_own_checks(check):
    getattr(estimator_checks, check)("RiskClassifier", RiskClassifier(text=TEXT))


def test_cross_validation_pipelines_and_probabilities(rows):
    X, y = rows
    assert cross_val_score(RiskClassifier(**FEW), X, y, cv=2, scoring="roc_auc").min() > 0.6
    made = make_pipeline(FunctionTransformer(), RiskClassifier(**FEW)).fit(X, y)
    p = made.predict_proba(X)
    assert made.classes_.tolist() == ["fraud", "good"] and p.shape == (900, 2)
    np.testing.assert_allclose(p.sum(axis=1), 1)
    assert (made.predict(X) == made.classes_[p.argmax(axis=1)]).all()
    again = clone(made).fit(pl.from_pandas(X), pl.Series(y))
    np.testing.assert_allclose(again.predict_proba(X), p)
    assert np.mean(p[y == "fraud", 0]) > np.mean(p[y == "good", 0])


@pytest.mark.parametrize(
    ("y", "why"),
    [
        (lambda y: y[:-1], "shape"),
        (lambda y: np.full(len(y), "good"), "1 labels"),
        (lambda y: np.arange(len(y)) % 3, "3 labels"),
    ],
)
def test_labels_that_do_not_fit_are_refused(rows, y, why):
    with pytest.raises(ValueError, match=why):
        RiskClassifier(**FEW).fit(rows[0], y(rows[1]))


def test_a_classifier_that_is_not_fitted_says_so(rows):
    with pytest.raises(NotFittedError):
        RiskClassifier(**FEW).predict(rows[0])
    with pytest.raises(ValueError, match="found numpy.ndarray"):
        RiskClassifier(**FEW).fit(np.zeros((900, 2)), rows[1])
