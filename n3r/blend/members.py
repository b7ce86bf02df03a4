"""The members of a blend: each is fitted on rows, gives the probabilities of rows, and becomes an ONNX graph.

Decisions:
- All read the same encoded rows, so a row that is scored is encoded once for all of them.
- A member is fitted from one seed, on one thread unless it is a network, and is then nothing but its graph.
- A pretrained BERT has a tokenizer of its own, and so inputs of its own. It is fine-tuned: with 4,000 reviews
  (womens_reviews, 1,500 validation rows) logistic regression on MiniLM's own embeddings reaches an AUC of
  0.921, an epoch of fine-tuning 0.960, two 0.963.
"""

import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from n3r.bundle import Recipe
from n3r.data import OrderDataset
from n3r.encode import TEXT_KEYS, Encoded
from n3r.export import export_onnx
from n3r.graphs import cut_texts, rename_inputs
from n3r.model import MODEL_CLASSES, TEXTS, ModelConfig, RiskModel, configure
from n3r.ngrams import CHARACTERS, NGRAMS, fit_ngrams, token_texts
from n3r.train import TrainConfig, fit, predict
from n3r.trees import TREES, fit_trees

if TYPE_CHECKING:
    from onnx import ModelProto


FINE_TUNING = {"reinit_layers": 0, "epochs": 1, "batch_size": 32, "lr": 1e-4}  # of a pretrained BERT


class Rows(NamedTuple):
    """N labelled rows as members read them."""

    encoded: Encoded
    label: np.ndarray  # (N,) int64


class Context(NamedTuple):
    """What is the same for all members."""

    recipe: Recipe  # with the features fitted on the rows that the members are fitted on
    networks: Mapping[str, Mapping[str, Any]]  # model class -> dimensions and training, by name
    pretrained: str | None  # the model that BERT classes fine-tune
    seed: int
    folder: Path  # of the networks' checkpoints

    @property
    def n_classes(self) -> int:
        return self.recipe.column_map.n_classes


class Fitted(NamedTuple):
    """A fitted member."""

    predict: Callable[[Encoded], np.ndarray]  # rows -> probabilities (N, C)
    graph: Callable[[], "ModelProto"]


Member = Callable[[Rows, Context], Fitted]


def _trees(kind: str, rows: Rows, context: Context) -> Fitted:
    fitted = fit_trees(kind, rows.encoded.tabular, rows.label, context.n_classes, context.seed)
    return Fitted(lambda encoded: fitted.predict(encoded.tabular), fitted.graph)


def _ngrams(kind: str, rows: Rows, context: Context) -> Fitted:
    def texts(encoded: Encoded) -> list[str]:
        if NGRAMS[kind].source == CHARACTERS:
            return encoded.joined
        return token_texts(*encoded.texts["text"])

    encoded, sizes = rows.encoded, (context.n_classes, context.seed)
    fitted = fit_ngrams(kind, texts(encoded), rows.label, *sizes, X=encoded.tabular)
    return Fitted(lambda others: fitted.predict(texts(others), others.tabular), fitted.graph)


def _network(model_class: str, rows: Rows, context: Context) -> Fitted:
    recipe, given = context.recipe, context.networks.get(model_class, {})
    key, tokenizer = "text", recipe.tokenizer
    if model_class in PRETRAINED:
        key, tokenizer = "pretrained", recipe.others["pretrained"].tokenizer
        given = {**FINE_TUNING, **given, "pretrained": context.pretrained}
    reads_features = MODEL_CLASSES[model_class].tabular is not None
    n_features = len(recipe.features) if reads_features else 0
    sizes = {"vocab_size": tokenizer.vocab_size, "n_tab_features": n_features}
    dimensions = {name: value for name, value in given.items() if name in ModelConfig.model_fields}
    settings = {name: value for name, value in given.items() if name in TrainConfig.model_fields}
    config = configure(model_class, n_classes=context.n_classes, **sizes, **dimensions)
    train_config = TrainConfig.for_model(config, **{"seed": context.seed, **settings})
    pad_token, knots = tokenizer.pad_token, recipe.features.knots if reads_features else None

    def dataset(encoded: Encoded, label: np.ndarray | None = None) -> OrderDataset:
        return OrderDataset(encoded.texts[key], encoded.tabular, label)

    data = dataset(rows.encoded, rows.label)
    model = fit(config, data, None, train_config, context.folder, pad_token, knots=knots).model
    return Fitted(lambda encoded: predict(model, dataset(encoded), pad_token), lambda: _graph_of(model))


def _graph_of(model: RiskModel) -> "ModelProto":
    """The graph of a network, its inputs under the names of what a blend's rows hold."""
    import onnx

    with tempfile.TemporaryDirectory() as aside:
        export_onnx(model, Path(aside) / "model.onnx")
        made = onnx.load(Path(aside) / "model.onnx")
    if model.config.model_class in PRETRAINED:
        names = {"text": "pretrained", TEXT_KEYS["text"]: TEXT_KEYS["pretrained"]}
        return rename_inputs(made, names)
    return made if model.config.block_size is None else cut_texts(made, model.config.block_size)


def _reading(tokenizer: str) -> list[str]:
    """The classes that read all text fields as one text by a kind of tokenizer."""
    return [
        c.name for c in MODEL_CLASSES.values() if c.n_texts == 1 and TEXTS[c.encoder].tokenizer == tokenizer
    ]


PRETRAINED = _reading("bert")
NETWORKS = [*_reading("bpe"), *PRETRAINED]
MEMBERS: dict[str, Member] = {
    **{name: partial(_trees, name) for name in TREES},
    **{name: partial(_ngrams, name) for name in NGRAMS},
    **{name: partial(_network, name) for name in NETWORKS},
}
