"""The weights of members: those that help get some, and the blend is not behind its best member."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from n3r.blend.weights import LOSS, blended, choose_weights, gains
from n3r.metrics import class_auc


def scores(label, strength, seed):
    """Probabilities (N, 2) that tell the label by so much."""
    z = strength * (label - 0.5) + np.random.default_rng(seed).normal(size=len(label))
    p = 1 / (1 + np.exp(-z))
    return np.column_stack([1 - p, p])


@pytest.fixture
def label():
    return np.random.default_rng(0).integers(0, 2, 2000)


def test_members_that_err_apart_share_and_noise_gets_nothing(label):
    p = {"a": scores(label, 1.5, 1), "b": scores(label, 1.4, 2), "noise": scores(label, 0, 3)}
    weights = choose_weights(label, p)
    assert sum(weights.values()) == pytest.approx(1)
    assert set(weights) == {"a", "b"} and min(weights.values()) > 0.2
    blend = class_auc(label, blended(p, weights)).value
    assert blend > class_auc(label, p["a"]).value + 0.03
    added = gains(label, p, weights)
    assert added["a"] > added["b"] > 0.02


def test_a_copy_that_is_worse_leaves_a_blend_of_one(label):
    best = scores(label, 2.0, 1)
    worse = np.clip(best + np.random.default_rng(5).normal(0, 0.4, (len(label), 1)) * [[-1, 1]], 0.01, 0.99)
    worse /= worse.sum(axis=1, keepdims=True)
    assert choose_weights(label, {"worse": worse, "best": best}) == {"best": 1.0}
    assert gains(label, {"best": best}, {"best": 1.0})["best"] > 0.3, "less a chance of 0.5"


@given(st.integers(0, 10_000), st.integers(2, 4), st.integers(30, 200), st.integers(2, 3))
def test_a_blend_is_never_behind_its_best_member(seed, n_members, n_rows, n_classes):
    rng = np.random.default_rng(seed)
    label = np.concatenate([np.arange(n_classes).repeat(2), rng.integers(0, n_classes, n_rows)])
    signal = np.eye(n_classes)[label]
    p = {}
    for i in range(n_members):
        z = rng.uniform(0, 2) * signal + rng.normal(size=signal.shape)
        p[str(i)] = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    weights = choose_weights(label, p)
    best = max(class_auc(label, one).value for one in p.values())
    assert class_auc(label, blended(p, weights)).value >= best - LOSS
    assert sum(weights.values()) == pytest.approx(1) and min(weights.values()) > 0


@pytest.mark.parametrize(("n_frauds", "least", "most"), [(10, 0.45, 0.5), (600, 0.1, 0.2)])
def test_a_greedy_choice_among_few_frauds_is_trusted_little(n_frauds, least, most):
    label = np.array([1] * n_frauds + [0] * 2000)
    p = scores(label, 1.0, 0)
    weights = choose_weights(label, {"first": p, "as good": p.copy()})
    assert least < weights["as good"] < most
