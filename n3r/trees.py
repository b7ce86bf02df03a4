"""Boosting and forests on the feature array, as scikit-learn fits them, and their exact ONNX graphs.

Decisions:
- scikit-learn learns and predicts. A graph holds its trees node by node and gives its probabilities to 1e-6;
  the converters of today do not (skl2onnx 1.20 fails on this boosting).
- Thresholds are rounded down to float32: a float32 is at most a threshold exactly when it is at most that.
- `TreeEnsemble` (ai.onnx.ml 5) takes a third of the bytes of `TreeEnsembleRegressor`, which spells out the
  mode of each node. Its leaves have one target, so a forest of C classes holds each tree C - 1 times.
- A tree of a forest is grown on at most 4,000 rows, which bounds its time and its graph: for 15,512 orders a
  random forest takes 3.5 s and 0.3 MB, not 14 s and 0.8 MB, and reaches 0.878 on validation rows, not 0.874.
- A class without a training row has probability 0, and one class alone has 1: folds of few rows have such.
- There is no early stopping, so no row is held out. A forest predicts in one thread: the order in which trees
  are added up shows in the last digit.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from n3r.files.arrays import taken
from n3r.graphs import PROBS, TABULAR, constant_probs, member_graph, tabular_input

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

GAIN_ROWS = 50_000  # that the gain of columns is measured on; 200 columns take 7 s on one thread
ABSENT = -1e4  # logit of a class without a training row: its probability is 0


class BoostingConfig(BaseModel):
    """Of scikit-learn's HistGradientBoostingClassifier."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    learning_rate: float = Field(0.05, gt=0)
    n_iterations: int = Field(200, ge=1)
    max_leaves: int = Field(15, ge=2)  # of a tree
    min_leaf: int = Field(20, ge=1)  # rows
    max_features: float = Field(0.3, gt=0, le=1)  # share of the columns that a split is chosen from
    l2: float = Field(1.0, ge=0)

    def unfitted(self, n_rows: int, seed: int, threads: int) -> Any:
        from sklearn.ensemble import HistGradientBoostingClassifier  # sklearn takes a second to import

        return HistGradientBoostingClassifier(
            learning_rate=self.learning_rate,
            max_iter=self.n_iterations,
            max_leaf_nodes=self.max_leaves,
            min_samples_leaf=self.min_leaf,
            max_features=self.max_features,
            l2_regularization=self.l2,
            early_stopping=False,
            categorical_features=None,
            random_state=seed,
        )


class ForestConfig(BaseModel):
    """Of scikit-learn's RandomForestClassifier, or ExtraTreesClassifier with `random_splits`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    random_splits: bool = False
    n_trees: int = Field(100, ge=1)
    max_rows: int = Field(4000, ge=1)  # drawn for a tree, with replacement
    min_leaf: int = Field(5, ge=1)  # rows
    max_features: float = Field(0.3, gt=0, le=1)  # share of the columns that a split is chosen from

    def unfitted(self, n_rows: int, seed: int, threads: int) -> Any:
        from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier

        return (ExtraTreesClassifier if self.random_splits else RandomForestClassifier)(
            n_estimators=self.n_trees,
            min_samples_leaf=self.min_leaf,
            max_features=self.max_features,
            bootstrap=True,
            max_samples=min(self.max_rows, n_rows),
            n_jobs=threads,
            random_state=seed,
        )


TREES: dict[str, BoostingConfig | ForestConfig] = {
    "boosting": BoostingConfig(),
    "slow boosting": BoostingConfig(
        learning_rate=0.03, n_iterations=400, max_leaves=7, min_leaf=40, max_features=0.15
    ),
    "random forest": ForestConfig(),
    "extra trees": ForestConfig(random_splits=True, min_leaf=2, max_features=1.0),
}


class _Tree(NamedTuple):
    """One tree by nodes, the root first; `value` is what a leaf adds to the score of the class `target`."""

    target: int
    is_leaf: np.ndarray
    feature: np.ndarray
    threshold: np.ndarray
    missing_left: np.ndarray
    left: np.ndarray
    right: np.ndarray
    value: np.ndarray


@dataclass(frozen=True, eq=False)
class Trees:
    """Fitted trees: `model` is scikit-learn's, None where the training rows were of one class."""

    model: Any
    classes: np.ndarray  # that the training rows have, ascending
    n_classes: int
    n_features: int

    def predict(self, X: np.ndarray) -> np.ndarray:
        """(N, F) -> probabilities (N, C) float32; NaN is a missing value."""
        X = _checked(X, self.n_features)
        if self.model is None or not len(X):
            return class_columns(np.ones((len(X), len(self.classes))), self.classes, self.n_classes)
        return class_columns(self.model.predict_proba(X), self.classes, self.n_classes)

    def graph(self) -> "ModelProto":
        """`tabular` (rows, F) float -> `probs` (rows, C) float."""
        return member_graph(*self.nodes(TABULAR), [tabular_input(self.n_features)], self.n_classes)

    def nodes(self, source: str) -> "tuple[list[NodeProto], dict[str, np.ndarray]]":
        """Nodes and weights of a graph from the value `source` (rows, F) to `probs`."""
        from onnx import helper

        if self.model is None:
            alone = class_columns(np.ones((1, 1)), self.classes, self.n_classes)
            return constant_probs(source, alone[0])
        trees = {"domain": "ai.onnx.ml", **_attributes(list(self._trees()), self.n_classes)}
        ensemble = helper.make_node("TreeEnsemble", [source], ["sums"], **trees)
        if self._boosted:
            base = np.full(self.n_classes, ABSENT, np.float32)
            base[self.classes] = 0
            base[self._targets] = self.model._baseline_prediction.ravel()
            nodes = [
                helper.make_node("Add", ["sums", "base"], ["scores"]),
                helper.make_node("Softmax", ["scores"], [PROBS], axis=1),
            ]
            return [ensemble, *nodes], {"base": base}
        # Each target takes its share from the first class, which has no trees of its own.
        taken, first = np.eye(self.n_classes, dtype=np.float32), self.classes[0]
        taken[:, first] = -1
        taken[first] = 0
        start = np.zeros(self.n_classes, np.float32)
        start[first] = 1
        return [ensemble, helper.make_node("Gemm", ["sums", "taken", "start"], [PROBS])], {
            "taken": taken,
            "start": start,
        }

    @property
    def _boosted(self) -> bool:
        return hasattr(self.model, "_predictors")

    @property
    def _targets(self) -> np.ndarray:
        """The classes that have trees: boosted ones of more than two all, else all but the first."""
        return self.classes if self._boosted and len(self.classes) > 2 else self.classes[1:]

    def _trees(self) -> "Iterator[_Tree]":
        if self._boosted:
            for trees in self.model._predictors:
                for target, tree in zip(self._targets, trees, strict=True):
                    yield _boosted_tree(target, tree.nodes)
            return
        for one in self.model.estimators_:
            shares = one.tree_.value[:, 0] / len(self.model.estimators_)  # (nodes, classes)
            for target, share in zip(self._targets, shares.T[1:], strict=True):
                yield _forest_tree(target, one.tree_, share)


def fit_trees(
    kind: str, X: np.ndarray, y: np.ndarray, n_classes: int, seed: int = 0, threads: int = 1
) -> Trees:
    """The trees of `TREES` with this name, fitted on rows (N, F) of the classes 0 to C - 1.

    The same rows and seed give the same trees on any number of threads. Raises ValueError on an unknown name,
    on rows without a column or with infinite values, and on labels that are no class.
    """
    if kind not in TREES:
        raise ValueError(f"there are no trees {kind!r}, only {list(TREES)}")
    if X.ndim != 2 or not X.shape[1]:
        raise ValueError(f"trees need rows of at least one feature, found an array of shape {X.shape}")
    X, y = _checked(X, X.shape[1]), checked_labels(y, len(X), n_classes)
    classes = np.unique(y)
    if len(classes) == 1:
        return Trees(None, classes, n_classes, X.shape[1])
    X = np.where(np.isnan(X).all(axis=0), np.float32(0), X)  # scikit-learn 1.9 fails on an empty column
    model = TREES[kind].unfitted(len(X), seed, threads)
    with limited(threads):
        model.fit(X, y)
    if hasattr(model, "n_jobs"):
        model.n_jobs = 1
    return Trees(model, classes, n_classes, X.shape[1])


def column_gains(X: np.ndarray, y: np.ndarray, n_classes: int, seed: int = 0) -> np.ndarray:
    """What each column adds to the boosting of rows (N, F), (F,) in [0, 1]; the largest is 1.

    That is the fall of the loss in all splits by it; all 1 where there is no split. Of more than `GAIN_ROWS`
    rows as many are drawn. Raises ValueError as `fit_trees` does.
    """
    if len(X) > GAIN_ROWS:
        drawn = np.random.default_rng(seed).choice(len(X), GAIN_ROWS, replace=False)
        X, y = taken(X, drawn), taken(y, drawn)
    fitted = fit_trees("boosting", X, y, n_classes, seed)
    gains = np.zeros(X.shape[1])
    for tree in () if fitted.model is None else (t for trees in fitted.model._predictors for t in trees):
        splits = tree.nodes[tree.nodes["is_leaf"] == 0]
        np.add.at(gains, splits["feature_idx"], splits["gain"])
    largest = gains.max()
    return gains / largest if largest > 0 else np.ones_like(gains)


def limited(threads: int) -> AbstractContextManager:
    """To be entered once a model is made: only libraries that are loaded can be held to their threads."""
    from threadpoolctl import threadpool_limits  # comes with scikit-learn, which heeds it

    return threadpool_limits(threads)


def checked_labels(y: np.ndarray, n_rows: int, n_classes: int) -> np.ndarray:
    """(N,) int64; ValueError where it is not one class of 0 to C - 1 for each row, or where no row is."""
    y = np.asarray(y)
    if y.shape != (n_rows,) or not n_rows:
        raise ValueError(
            f"{n_rows} rows with labels of shape {y.shape}: expected one for each row, one at least"
        )
    if not np.isin(y, np.arange(n_classes)).all():
        raise ValueError(f"labels must be whole numbers from 0 to {n_classes - 1}")
    return y.astype(np.int64)


def class_columns(known: np.ndarray, classes: np.ndarray, n_classes: int) -> np.ndarray:
    """(N, C) float32 from the columns of the classes that training rows have; 0 for the others."""
    probs = np.zeros((len(known), n_classes), np.float32)
    probs[:, classes] = known
    return probs


def _checked(X: np.ndarray, n_features: int) -> np.ndarray:
    """(N, F) float32; ValueError on another number of features and on infinite values."""
    X = np.asarray(X, np.float32)
    if X.ndim != 2 or X.shape[1] != n_features:
        raise ValueError(f"an array of shape {X.shape}: the trees read {n_features} features")
    if np.isinf(X).any():
        raise ValueError("features must be finite or NaN in float32")
    return X


def _boosted_tree(target: int, nodes: np.ndarray) -> _Tree:
    return _Tree(
        target,
        nodes["is_leaf"].astype(bool),
        nodes["feature_idx"],
        nodes["num_threshold"],
        nodes["missing_go_to_left"],
        nodes["left"],
        nodes["right"],
        nodes["value"],
    )


def _forest_tree(target: int, tree: Any, value: np.ndarray) -> _Tree:
    left, right = tree.children_left, tree.children_right
    missing = np.asarray(tree.missing_go_to_left)
    return _Tree(target, left < 0, tree.feature, tree.threshold, missing, left, right, value)


def _attributes(trees: list[_Tree], n_classes: int) -> dict[str, Any]:
    """Of the node TreeEnsemble: inner nodes and leaves of all trees, each numbered from 0."""
    from onnx import numpy_helper

    trees = [tree if len(tree.value) > 1 else _with_split(tree) for tree in trees]
    is_leaf = np.concatenate([tree.is_leaf for tree in trees])
    number = np.where(is_leaf, np.cumsum(is_leaf), np.cumsum(~is_leaf)) - 1
    first = np.cumsum([0, *(len(tree.value) for tree in trees)])[:-1]

    def inner(part: str) -> np.ndarray:
        return np.concatenate([getattr(tree, part)[~tree.is_leaf] for tree in trees])

    def child(side: str) -> np.ndarray:
        own = [getattr(tree, side)[~tree.is_leaf].astype(np.int64) for tree in trees]
        return np.concatenate([places + start for places, start in zip(own, first, strict=True)])

    left, right = child("left"), child("right")
    value = np.concatenate([tree.value[tree.is_leaf] for tree in trees])
    targets = np.concatenate([np.full(tree.is_leaf.sum(), tree.target) for tree in trees])
    return {
        "n_targets": n_classes,
        "aggregate_function": 1,  # the sum
        "tree_roots": number[first].tolist(),
        "nodes_featureids": inner("feature").tolist(),
        "nodes_modes": numpy_helper.from_array(np.zeros(len(left), np.uint8)),  # true: value <= split
        "nodes_splits": numpy_helper.from_array(_rounded_down(inner("threshold"))),
        "nodes_missing_value_tracks_true": inner("missing_left").astype(np.int64).tolist(),
        "nodes_truenodeids": number[left].tolist(),
        "nodes_trueleafs": is_leaf[left].astype(np.int64).tolist(),
        "nodes_falsenodeids": number[right].tolist(),
        "nodes_falseleafs": is_leaf[right].astype(np.int64).tolist(),
        "leaf_targetids": targets.tolist(),
        "leaf_weights": numpy_helper.from_array(value.astype(np.float32)),
    }


def _with_split(tree: _Tree) -> _Tree:
    """A tree that is one leaf, as a split between two such: a root of TreeEnsemble is no leaf."""
    zeros = np.zeros(3, np.int64)
    sides = {"left": zeros + 1, "right": zeros + 2, "value": np.repeat(tree.value, 3)}
    nothing = {"feature": zeros, "threshold": zeros.astype(np.float64), "missing_left": zeros}
    return _Tree(tree.target, np.array([False, True, True]), **nothing, **sides)


def _rounded_down(threshold: np.ndarray) -> np.ndarray:
    """The largest float32 that is not above each float64."""
    with np.errstate(over="ignore"):
        near = threshold.astype(np.float32)
    return np.where(near > threshold, np.nextafter(near, np.float32(-np.inf)), near)
