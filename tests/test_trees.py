"""Trees: graphs that give scikit-learn's probabilities, classes without rows, the same on any threads."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnxruntime import InferenceSession
from sklearn.metrics import roc_auc_score

from n3r import trees
from n3r.trees import TREES, Trees, column_gains, fit_trees

F = 5


def rows(n: int, seed: int = 0, missing: float = 0.1) -> np.ndarray:
    """Numbers of any size, few distinct ones, two columns that are nearly alike and missing values."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, F)).astype(np.float32)
    X[:, 1] = rng.integers(0, 4, n)
    X[:, 2] *= 10.0 ** rng.integers(-45, 38, n)  # denormals too
    X[:, 3] = np.float32(1) + rng.integers(0, 9, n) * np.finfo(np.float32).eps
    X[rng.random(X.shape) < missing] = np.nan
    return X


def labels(X: np.ndarray, n_classes: int = 2, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=len(X))
    score = np.nan_to_num(X[:, 0]) + (X[:, 1] == 2) + np.isnan(X[:, 4]) + (X[:, 3] > 1) + 0.3 * noise
    return np.digitize(score, np.quantile(score, np.arange(1, n_classes) / n_classes))


def thresholds(member: Trees) -> np.ndarray:
    return np.concatenate([tree.threshold[~tree.is_leaf] for tree in member._trees()])


def graph_probs(member: Trees, X: np.ndarray) -> np.ndarray:
    session = InferenceSession(member.graph().SerializeToString())
    return session.run(["probs"], {"tabular": X})[0]


@pytest.fixture(scope="module")
def few(monkeypatch_module) -> None:
    """All kinds with fewer trees."""
    for kind, config in TREES.items():
        fewer = {name: 12 for name in ("n_iterations", "n_trees") if name in type(config).model_fields}
        monkeypatch_module.setitem(trees.TREES, kind, config.model_copy(update=fewer))


@pytest.fixture(scope="module")
def monkeypatch_module():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module", params=[(kind, c) for kind in TREES for c in (2, 3)], ids=str)
def fitted(request, few) -> Trees:
    kind, n_classes = request.param
    X = rows(900)
    return fit_trees(kind, X, labels(X, n_classes), n_classes, seed=1)


EXTREMES = [np.nan, 0.0, -0.0, 1e38, -1e38, 1e-45, -1e-45, 1.1754944e-38, 1.0, 1.0000001]


def test_a_graph_gives_scikit_learns_probabilities(fitted):
    X = np.vstack([rows(500, seed=7), np.random.default_rng(0).choice(EXTREMES, (500, F))]).astype(np.float32)
    probs = graph_probs(fitted, X)
    np.testing.assert_allclose(probs, fitted.model.predict_proba(X), rtol=0, atol=1e-5)
    np.testing.assert_array_equal(fitted.predict(X), fitted.model.predict_proba(X).astype(np.float32))
    assert probs.std(axis=0).min() > 0.01, "rows that are all alike prove nothing"


def test_values_on_and_beside_thresholds_go_where_scikit_learn_sends_them(fitted):
    near = np.unique(thresholds(fitted).astype(np.float32))
    near = near[np.isfinite(near)]
    values = np.concatenate([near, np.nextafter(near, np.float32(np.inf)), np.nextafter(near, -np.inf)])
    X = np.repeat(values[:, None], F, axis=1).astype(np.float32)
    np.testing.assert_allclose(graph_probs(fitted, X), fitted.predict(X), rtol=0, atol=1e-5)


FLOATS = st.floats(-(2.0**127), 2.0**127, width=32) | st.just(float("nan"))


@pytest.fixture(scope="module")
def session(few):
    X = rows(900)
    member = fit_trees("boosting", X, labels(X), 2)
    return member, InferenceSession(member.graph().SerializeToString())


@given(X=arrays(np.float32, st.tuples(st.integers(1, 9), st.just(F)), elements=FLOATS))
def test_any_numbers(session, X):
    member, graph = session
    np.testing.assert_allclose(graph.run(["probs"], {"tabular": X})[0], member.predict(X), rtol=0, atol=1e-5)


def test_thresholds_are_rounded_down():
    exact = np.array([1.0, 1 + 1e-9, 1 - 1e-9, 0.1, -0.1, 1e38, -1e38, 1e-44, -1e-44, 1e-50, -1e-50])
    down = trees._rounded_down(exact)
    assert down.dtype == np.float32 and down[:2].tolist() == [1, 1]
    assert (down <= exact).all() and (np.nextafter(down, np.float32(np.inf)) > exact).all()
    assert trees._rounded_down(np.array([np.inf, 1e300]))[0] == np.inf


@pytest.mark.parametrize("kind", TREES)
@pytest.mark.parametrize("present", [[0, 2], [1, 2], [1], [0, 1, 3]], ids=str)
def test_a_class_without_rows_has_probability_0(few, kind, present):
    X = rows(120)
    y = np.array(present)[labels(X, len(present)) if len(present) > 1 else np.zeros(120, int)]
    member = fit_trees(kind, X, y, n_classes=4)
    absent = sorted({0, 1, 2, 3} - set(present))
    for probs in (member.predict(X), graph_probs(member, X)):
        assert probs.shape == (120, 4) and probs.dtype == np.float32
        np.testing.assert_allclose(probs.sum(axis=1), 1, atol=1e-5)
        assert probs[:, absent].max() < 1e-6
    np.testing.assert_allclose(graph_probs(member, X), member.predict(X), rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", TREES)
@pytest.mark.parametrize("n", [1, 2, 10])
def test_few_rows_and_trees_without_a_split(few, kind, n):
    X = rows(n, missing=0)
    member = fit_trees(kind, X, np.arange(n) % 2, 2)
    np.testing.assert_allclose(graph_probs(member, X), member.predict(X), rtol=0, atol=1e-5)
    assert graph_probs(member, X[:0]).shape == member.predict(X[:0]).shape == (0, 2)


@pytest.mark.parametrize("kind", TREES)
def test_columns_that_are_empty_or_constant_in_training(few, kind):
    X = rows(300, missing=0)
    X[:, 0], X[:, 2] = np.nan, 7
    member = fit_trees(kind, X, labels(X), 2)
    other = rows(200, seed=3, missing=0.3)
    np.testing.assert_allclose(graph_probs(member, other), member.predict(other), rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", TREES)
def test_a_planted_signal_is_learnt_the_same_on_any_threads(few, kind):
    X, other = rows(900), rows(900, seed=5)
    one, two = (fit_trees(kind, X, labels(X), 2, seed=3, threads=n) for n in (1, 2))
    np.testing.assert_array_equal(one.predict(other), two.predict(other))
    assert roc_auc_score(labels(other, seed=5), one.predict(other)[:, 1]) > 0.8
    aucs = []
    for seed in range(8):
        shuffled = np.random.default_rng(seed).permutation(labels(X))
        null = fit_trees(kind, X, shuffled, 2, seed).predict(other)[:, 1]
        aucs.append(roc_auc_score(labels(other, seed=5), null))
    assert abs(np.mean(aucs) - 0.5) < 0.1


@pytest.mark.parametrize("n_classes", [2, 3])
def test_gains_of_columns(few, n_classes):
    X = rows(900)
    gains = column_gains(X, labels(X, n_classes), n_classes)
    np.testing.assert_array_equal(gains, column_gains(X, labels(X, n_classes), n_classes))
    assert gains.argmax() == 0 and gains[0] == 1  # the column that labels are made of most
    assert (gains[[1, 3, 4]] > 0).all() and 0 <= gains[2] < 0.2
    constant = np.where(np.arange(F) == 2, np.float32(7), X)
    assert column_gains(constant, labels(X, n_classes), n_classes)[2] == 0


def test_gains_without_a_split_are_all_alike(few):
    X = rows(60)
    for y in (np.zeros(60, int), np.arange(60) % 2):
        assert column_gains(X[:12], y[:12], 2).tolist() == [1] * F
    assert column_gains(X, np.ones(60, int), 2).tolist() == [1] * F


def test_gains_of_many_rows_are_those_of_some(few, monkeypatch):
    X = rows(900)
    monkeypatch.setattr(trees, "GAIN_ROWS", 300)
    drawn = np.random.default_rng(5).choice(900, 300, replace=False)
    gains = column_gains(X, labels(X), 2, seed=5)
    np.testing.assert_array_equal(gains, column_gains(X[drawn], labels(X)[drawn], 2, seed=5))


def test_errors_say_what_is_wrong():
    X = rows(20)
    y = labels(X)
    with pytest.raises(ValueError, match="no trees 'birch'"):
        fit_trees("birch", X, y, 2)
    with pytest.raises(ValueError, match=r"at least one feature.*\(20, 0\)"):
        fit_trees("boosting", X[:, :0], y, 2)
    with pytest.raises(ValueError, match="from 0 to 1"):
        fit_trees("boosting", X, y + 1, 2)
    with pytest.raises(ValueError, match="20 rows with labels"):
        fit_trees("boosting", X, y[:9], 2)
    with pytest.raises(ValueError, match="finite or NaN"):
        fit_trees("boosting", np.where(np.isnan(X), np.inf, X), y, 2)
    member = fit_trees("extra trees", X, y, 2)
    with pytest.raises(ValueError, match="read 5 features"):
        member.predict(X[:, :3])
