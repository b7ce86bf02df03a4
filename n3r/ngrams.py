"""n-grams of texts under a logistic regression or under boosting, and their exact ONNX graphs.

Decisions:
- A graph reads code points, or the token ids that networks read: ONNX's TfIdfVectorizer counts runs of
  integers. With the strings inside, skl2onnx's graph is off by 0.03.
- A graph takes logarithms and sums of a row's own n-grams only, some two hundred of 30,000: NonZero, then
  Gather. On one thread that takes 0.05 ms a row of 60 characters in a batch, with every n-gram 0.13 ms.
- AUC on validation rows of 30,000 synthetic orders, twitter_bots and womens_reviews: 1 to 4 characters 0.742,
  0.825, 0.950, and no better with 100,000 n-grams in place of 30,000; 2 to 5 characters 0.692, 0.826, 0.952.
- The fields of a row are joined as one text and each is closed, so that no row is without an n-gram.
- Token ids are fitted as if they were characters: one vectorizer serves both.
- Boosting reads how often each of the 300 most telling n-grams occurs, beside the feature array: 0.899 on
  orders for 0.893 without, 0.922 for 0.923 on twitter_bots; 600 gain nothing on orders, 100 half as much.

This module imports scikit-learn only to fit, and onnx only to make a graph.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from n3r.files.json_lines import SURROGATE
from n3r.graphs import PROBS, TABULAR, constant_probs, member_graph, tabular_input
from n3r.schema import MISSING, SEPARATOR
from n3r.trees import ABSENT, Trees, checked_labels, class_columns, fit_trees, limited

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, ValueInfoProto

CHARACTERS, TOKENS = "characters", "text"  # inputs of graphs
PAD = -1  # what fills up a row of code points
FIRST_TOKEN = 0x10000  # the character that stands for token 0; no white space and no surrogate is above it
SPACES = re.compile(r"\s\s+")  # scikit-learn reads such a run as one space


class NgramConfig(BaseModel):
    """Which n-grams are counted, and what reads them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: Literal["characters", "text"] = CHARACTERS
    shortest: int = Field(1, ge=1)
    longest: int = Field(4, ge=1)
    min_rows: int = Field(3, ge=1)  # with an n-gram; rarer ones are left out
    max_ngrams: int = Field(30_000, ge=1)  # the most frequent
    C: float = Field(3.0, gt=0)  # of the logistic regression
    boosted: int = Field(0, ge=0)  # n-grams that boosting reads; 0: logistic regression reads all


NGRAMS = {
    "character n-grams": NgramConfig(),
    "long character n-grams": NgramConfig(shortest=2, longest=5, max_ngrams=60_000),
    "token n-grams": NgramConfig(source=TOKENS, longest=2),
    "boosting on n-grams": NgramConfig(boosted=300),
}


def joined_texts(fields: Sequence[Sequence[str | None]]) -> list[str]:
    """One text a row from columns of strings; null becomes [MISSING]."""
    closed = [[(MISSING if value is None else value) + SEPARATOR for value in field] for field in fields]
    return ["".join(row) for row in zip(*closed, strict=True)]


def token_texts(ids: np.ndarray, offsets: np.ndarray) -> list[str]:
    """Texts in which a character stands for a token: row i of N is `ids[offsets[i]:offsets[i + 1]]`."""
    text = (ids.astype("<u4") + FIRST_TOKEN).tobytes().decode("utf-32-le")
    return [text[start:end] for start, end in zip(offsets, offsets[1:], strict=False)]


def code_points(texts: Sequence[str]) -> np.ndarray:
    """What graphs read as `characters`, (N, length) int32 filled up with `PAD`; a length is at least 1."""
    encoded = [_normalised(text).encode("utf-32-le") for text in texts]
    lengths = np.array([len(text) // 4 for text in encoded], np.int64)
    inside = np.arange(max(1, lengths.max(initial=0))) < lengths[:, None]
    codes = np.full(inside.shape, PAD, np.int32)
    codes[inside] = np.frombuffer(b"".join(encoded), "<i4")
    return codes


@dataclass(frozen=True, eq=False)
class LinearNgrams:
    """A logistic regression on TF-IDF: `model` is scikit-learn's, None where all rows were of one class."""

    config: NgramConfig
    counter: Any  # a CountVectorizer
    weighting: Any  # a TfidfTransformer
    model: Any
    classes: np.ndarray  # that the training rows have, ascending
    n_classes: int

    def predict(self, texts: Sequence[str], X: np.ndarray | None = None) -> np.ndarray:
        """Probabilities (N, C) float32 of texts; the feature array is not read."""
        if self.model is None or not len(texts):
            known = np.ones((len(texts), len(self.classes)))
        else:
            known = self.model.predict_proba(self.weighting.transform(_counts(self.counter, texts)))
        return class_columns(known, self.classes, self.n_classes)

    def graph(self) -> "ModelProto":
        """`characters` or `text` (rows, length) -> `probs` (rows, C) float."""
        source = self.config.source
        if self.model is None:
            alone = class_columns(np.ones((1, 1)), self.classes, self.n_classes)
            nodes, weights = constant_probs(source, alone[0])
        else:
            nodes, weights = self._nodes()
        return member_graph(nodes, weights, [_text_input(source)], self.n_classes)

    def _nodes(self) -> "tuple[list[NodeProto], dict[str, np.ndarray]]":
        """Sums over a row's n-grams: for each class weight * (1 + log count), and the square of the norm."""
        from onnx.helper import make_node as node

        idf, n_classes = self.weighting.idf_, self.n_classes
        targets = self.classes if len(self.classes) > 2 else self.classes[1:]
        table = np.zeros((len(idf), n_classes + 1), np.float32)
        table[:, targets] = (self.model.coef_ * idf).T
        table[:, -1] = idf**2
        bias = np.full(n_classes, ABSENT, np.float32)
        bias[self.classes] = 0
        bias[targets] = self.model.intercept_
        weights = {
            "all": np.array([-1]),
            "n_ngrams": np.array(len(idf)),
            "one": np.float32(1),
            "last": np.array([1]),
            "powers": np.array([0] * n_classes + [1]),
            "table": table,
            "width": np.array([n_classes + 1]),
            "zero": np.zeros((1, 1), np.float32),
            "parts": np.array([n_classes, 1]),
            "least": np.float32(1e-30),
            "bias": bias,
        }
        nodes = [
            _count_node(self.config, _terms(self.counter)),
            node("Reshape", ["counts", "all"], ["flat"]),
            node("NonZero", ["flat"], ["found"]),
            node("Reshape", ["found", "all"], ["places"]),  # of the n-grams that occur: row, n-gram
            node("Div", ["places", "n_ngrams"], ["row"]),
            node("Mod", ["places", "n_ngrams"], ["ngram"]),
            node("Gather", ["flat", "places"], ["count"]),
            node("Log", ["count"], ["log"]),
            node("Add", ["log", "one"], ["tf"]),
            node("Mul", ["tf", "tf"], ["squared"]),
            node("Unsqueeze", ["tf", "last"], ["tf_column"]),
            node("Unsqueeze", ["squared", "last"], ["squared_column"]),
            node("Concat", ["tf_column", "squared_column"], ["both"], axis=1),
            node("Gather", ["both", "powers"], ["of_classes"], axis=1),
            node("Gather", ["table", "ngram"], ["weight"], axis=0),
            node("Mul", ["of_classes", "weight"], ["terms"]),  # (n-grams that occur, C + 1)
            node("Shape", ["terms"], ["terms_shape"]),
            node("Unsqueeze", ["row", "last"], ["row_column"]),
            node("Expand", ["row_column", "terms_shape"], ["row_of_terms"]),
            node("Shape", ["counts"], ["rows"], start=0, end=1),
            node("Concat", ["rows", "width"], ["sums_shape"], axis=0),
            node("Expand", ["zero", "sums_shape"], ["zeros"]),
            node("ScatterElements", ["zeros", "row_of_terms", "terms"], ["sums"], axis=0, reduction="add"),
            node("Split", ["sums", "parts"], ["dot", "norm_squared"], axis=1),
            node("Sqrt", ["norm_squared"], ["root"]),
            node("Max", ["root", "least"], ["norm"]),
            node("Div", ["dot", "norm"], ["scaled"]),
            node("Add", ["scaled", "bias"], ["logits"]),
            node("Softmax", ["logits"], [PROBS], axis=1),
        ]
        return nodes, weights


@dataclass(frozen=True, eq=False)
class BoostedNgrams:
    """Boosting on the feature array and on the counts of some n-grams."""

    config: NgramConfig
    counter: Any  # a CountVectorizer
    trees: Trees

    def predict(self, texts: Sequence[str], X: np.ndarray) -> np.ndarray:
        """Probabilities (N, C) float32 of texts and their feature array (N, F)."""
        return self.trees.predict(_beside(X, _counts(self.counter, texts)))

    def graph(self) -> "ModelProto":
        """`characters` or `text` (rows, length), `tabular` (rows, F) if F > 0 -> `probs` (rows, C) float."""
        from onnx import helper

        terms = _terms(self.counter)
        n_features = self.trees.n_features - len(terms)
        inputs, both = [_text_input(self.config.source)], ["counts"]
        if n_features:
            inputs, both = [tabular_input(n_features), *inputs], [TABULAR, *both]
        nodes, weights = self.trees.nodes("both")
        join = helper.make_node("Concat", both, ["both"], axis=1)
        return member_graph(
            [_count_node(self.config, terms), join, *nodes], weights, inputs, self.trees.n_classes
        )


def fit_ngrams(
    kind: str,
    texts: Sequence[str],
    y: np.ndarray,
    n_classes: int,
    seed: int = 0,
    threads: int = 1,
    X: np.ndarray | None = None,
) -> LinearNgrams | BoostedNgrams:
    """The member of `NGRAMS` with this name, fitted on texts of the classes 0 to C - 1.

    Texts are `joined_texts`, for the source `text` `token_texts`. `X` is the feature array (N, F) for
    boosting; None is one of no column. Raises ValueError on an unknown name, on labels that are no class and
    where no n-gram occurs in enough rows.
    """
    if kind not in NGRAMS:
        raise ValueError(f"there are no n-grams {kind!r}, only {list(NGRAMS)}")
    config, y = NGRAMS[kind], checked_labels(y, len(texts), n_classes)
    counter, counts = _fitted_counter(config, texts)
    if config.boosted:
        counter, counts = _most_telling(config, counter, counts, y)
        X = np.zeros((len(texts), 0), np.float32) if X is None else X
        trees = fit_trees("boosting", _beside(X, counts), y, n_classes, seed, threads)
        return BoostedNgrams(config, counter, trees)
    return _fitted_linear(config, counter, counts, y, n_classes, seed)


def _fitted_linear(
    config: NgramConfig, counter: Any, counts: Any, y: np.ndarray, n_classes: int, seed: int
) -> LinearNgrams:
    from sklearn.feature_extraction.text import TfidfTransformer  # sklearn takes a second to import
    from sklearn.linear_model import LogisticRegression

    weighting, classes = TfidfTransformer(sublinear_tf=True), np.unique(y)
    weighted = weighting.fit_transform(counts)
    model = None
    if len(classes) > 1:
        solver = "liblinear" if len(classes) == 2 else "lbfgs"  # scikit-learn has the faster one for two only
        model = LogisticRegression(C=config.C, solver=solver, max_iter=1000, random_state=seed)
        with limited(1):  # more threads change the last digits
            model.fit(weighted, y)
    return LinearNgrams(config, counter, weighting, model, classes, n_classes)


def _fitted_counter(config: NgramConfig, texts: Sequence[str]) -> tuple[Any, Any]:
    """A CountVectorizer and its counts (N, V)."""
    from sklearn.feature_extraction.text import CountVectorizer

    counter = CountVectorizer(
        analyzer="char",
        lowercase=False,
        ngram_range=(config.shortest, config.longest),
        min_df=min(config.min_rows, len(texts)),
        max_features=config.max_ngrams,
    )
    try:
        return counter, counter.fit_transform(_normalised(text) for text in texts)
    except ValueError:
        raise ValueError(
            f"no n-gram of {config.shortest} to {config.longest} is in {config.min_rows} of {len(texts)} rows"
        ) from None


def _most_telling(config: NgramConfig, counter: Any, counts: Any, y: np.ndarray) -> tuple[Any, Any]:
    """Counter and counts of the n-grams whose presence best tells the classes apart; ties by code points."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.feature_selection import chi2

    gain = chi2(counts > 0, y)[0] if len(np.unique(y)) > 1 else np.zeros(counts.shape[1])
    chosen = np.sort(np.argsort(-gain, kind="stable")[: config.boosted])
    terms = _terms(counter)
    few = CountVectorizer(
        analyzer="char",
        lowercase=False,
        ngram_range=(config.shortest, config.longest),
        vocabulary=[terms[place] for place in chosen],
    )
    return few, counts[:, chosen]


def _normalised(text: str) -> str:
    """As a fitted model sees a text: no half of a character, no run of white space."""
    text = text if text.isascii() else SURROGATE.sub("\ufffd", text)
    return SPACES.sub(" ", text)


def _counts(counter: Any, texts: Sequence[str]) -> Any:
    """Of each n-gram in each text, (N, V) sparse."""
    return counter.transform(_normalised(text) for text in texts)


def _terms(counter: Any) -> list[str]:
    return list(counter.get_feature_names_out())


def _beside(X: np.ndarray, counts: Any) -> np.ndarray:
    """The feature array and counts as one, (N, F + V) float32."""
    return np.hstack([np.asarray(X, np.float32), counts.toarray().astype(np.float32)])


def _text_input(source: str) -> "ValueInfoProto":
    """int32 code points, or the int64 token ids that networks read."""
    from onnx import TensorProto, helper

    kind = TensorProto.INT32 if source == CHARACTERS else TensorProto.INT64
    length = "characters" if source == CHARACTERS else "tokens"
    return helper.make_tensor_value_info(source, kind, ["rows", length])


def _count_node(config: NgramConfig, terms: Sequence[str]) -> "NodeProto":
    """From code points or token ids to `counts` (rows, V) float, in the order of the terms."""
    from onnx import helper

    order = sorted(range(len(terms)), key=lambda place: len(terms[place]))  # ONNX lists the shorter first
    first = 0 if config.source == CHARACTERS else FIRST_TOKEN
    lengths = np.array([len(term) for term in terms])
    before = [int(lengths[lengths < size].sum()) for size in range(1, config.longest + 1)]
    return helper.make_node(
        "TfIdfVectorizer",
        [config.source],
        ["counts"],
        mode="TF",
        min_gram_length=config.shortest,
        max_gram_length=config.longest,
        max_skip_count=0,
        ngram_counts=before,
        ngram_indexes=order,
        pool_int64s=[ord(character) - first for place in order for character in terms[place]],
    )
