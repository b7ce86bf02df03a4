"""Figures of several classes against scikit-learn's."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, average_precision_score, log_loss, precision_recall_fscore_support

from n3r import metrics
from n3r.multiclass import against_rest, each_class, measure
from n3r.predictions import prediction_table
from n3r.schema import LABEL, probabilities


def rows(n_classes: int, seed: int = 0, n: int = 120) -> tuple[np.ndarray, np.ndarray]:
    """Labels with at least two rows of each class, and probabilities that know something of them."""
    rng = np.random.default_rng(seed)
    label = np.concatenate([np.arange(n_classes).repeat(2), rng.integers(0, n_classes, n)])
    return label, np.stack([rng.dirichlet(1 + 2 * np.eye(n_classes)[c]) for c in label])


@given(n_classes=st.integers(3, 6), seed=st.integers(0, 2**31))
def test_figures_of_several_classes_are_scikit_learns(n_classes, seed):
    label, p = rows(n_classes, seed)
    found, decided = measure(label, p), p.argmax(axis=1)
    expected = precision_recall_fscore_support(label, decided, average="macro", zero_division=0)
    assert [found[key] for key in ("precision", "recall", "f1")] == pytest.approx(expected[:3])
    assert found["average_precision"] == pytest.approx(average_precision_score(label, p))
    assert found["accuracy"] == pytest.approx(accuracy_score(label, decided))
    assert found["log_loss"] == pytest.approx(log_loss(label, p))
    assert found["brier"] == pytest.approx(np.square(p - np.eye(n_classes)[label]).mean())
    assert {name: found[name] for name in ("auroc", "auroc_low", "auroc_high")} == metrics.class_auc(
        label, p
    ).columns("auroc")
    counts = np.bincount(label)
    assert (found["n"], found["n_positive"], found["n_classes"]) == (len(label), counts.min(), n_classes)
    at_1 = [metrics.recall_at_fpr(label == c, p[:, c], 0.01) for c in range(n_classes)]
    assert found["recall_at_fpr_1"] == pytest.approx(np.mean(at_1))


def test_two_classes_are_measured_as_two():
    label, p = rows(2)
    assert measure(label, p) == measure(label, p[:, 1]) == metrics.evaluate(label, p[:, 1])
    assert measure(*rows(3)).keys() - {"n_classes"} == metrics.evaluate(label, p[:, 1]).keys()
    other, risk = against_rest(label, p)
    assert (other == (label == 1)).all() and (risk == p[:, 1]).all()


def test_class_0_stands_against_the_others():
    label, p = rows(3)
    other, risk = against_rest(label, p)
    assert (other == (label > 0)).all() and risk == pytest.approx(p[:, 1] + p[:, 2])


def test_a_class_without_rows_leaves_the_means_unknown_and_one_never_the_likeliest_counts_as_0():
    label, p = rows(3)
    found = measure(np.minimum(label, 1), p)
    assert found["recall"] is found["auroc"] is found["average_precision"] is None
    assert found["accuracy"] is not None and found["n_positive"] == 0
    p = (p + [1, 1, 0]) / 3
    shown = each_class(label, p)[2]
    assert (shown["class"], shown["precision"], shown["recall"], shown["f1"]) == (2, 0, 0, 0)
    assert measure(label, p)["precision"] is not None
    assert measure([], np.empty((0, 3)))["accuracy"] is None


@pytest.mark.parametrize(
    ("label", "p", "message"),
    [
        ([0, 3], np.full((2, 3), 1 / 3), "labels: 1 of 2 are not the classes 0 to 2"),
        ([0, 1], np.full((3, 3), 1 / 3), "labels have 2"),
        ([0, 1, 2], np.full((3, 3), np.nan), "NaN"),
        ([0, 1], np.full((2, 1), 0.5), r"expected shape \(N, C\)"),
    ],
)
def test_mistakes_are_named(label, p, message):
    with pytest.raises(ValueError, match=message):
        measure(label, p)


@pytest.mark.parametrize("n_classes", [2, 3, 11])
def test_probabilities_come_back_from_a_table_of_predictions(n_classes):
    label, p = rows(n_classes)
    frame = pl.DataFrame({"score_9": range(len(label)), LABEL: label})
    np.testing.assert_allclose(probabilities(prediction_table(frame, "score_9", p)), p, atol=1e-12)
