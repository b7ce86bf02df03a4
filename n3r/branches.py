"""The text branches of a model by name: how each is built, and what dimensions it has."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from torch import nn

from n3r.bert import TextBertBase
from n3r.kernels import BiLSTM, Dropout
from n3r.text import (
    AttentionPool,
    CNNEncoder,
    EndsPool,
    LSTMEncoder,
    MaxPool,
    TextBranch,
    TransformerBlock,
    TransformerEncoder,
)

Config = Any  # a `ModelConfig`, whose module imports this one
BERT_DIMENSIONS = {"embedding_size": 128, "n_blocks": 2, "n_heads": 2, "block_size": 512}  # of a new one


def as_it_is(head: nn.Module) -> nn.Module:
    """A head, not changed."""
    return head


class Parts(NamedTuple):
    """What models are built of where a study may put a part of another make."""

    dropout: type[nn.Module] = Dropout  # takes the rate
    lstm: type[BiLSTM] = BiLSTM
    block: type[TransformerBlock] = TransformerBlock
    pool: type[AttentionPool] = AttentionPool
    head: Callable[[nn.Module], nn.Module] = as_it_is  # takes the class's own


OWN_PARTS = Parts()


def _lstm_text(c: Config, parts: Parts, drop: nn.Module) -> TextBranch:
    sizes = c.vocab_size, c.embedding_size, c.hidden_size, c.n_lstm_layers
    encoder = LSTMEncoder(*sizes, drop, parts.lstm)
    return TextBranch(encoder, parts.pool(encoder.d_out))


def _lstm_ends_text(c: Config, parts: Parts, drop: nn.Module) -> TextBranch:
    encoder = _lstm_text(c, parts, drop).encoder
    return TextBranch(encoder, EndsPool(encoder.d_out))


def _transformer_text(c: Config, parts: Parts, drop: nn.Module) -> TextBranch:
    sizes = c.vocab_size, c.embedding_size, c.n_blocks, c.n_heads, c.block_size
    encoder = TransformerEncoder(*sizes, drop, parts.block)
    return TextBranch(encoder, parts.pool(encoder.d_out, 2 * c.hidden_size))


def _cnn_text(c: Config, parts: Parts, drop: nn.Module) -> TextBranch:
    encoder = CNNEncoder(c.vocab_size, c.embedding_size, c.kernel_sizes, c.n_channels)
    return TextBranch(encoder, MaxPool(encoder.d_out, c.hidden_common_dim, drop))


def _bert_text(c: Config, parts: Parts, drop: nn.Module) -> TextBranch:
    return TextBertBase(
        c.bert,
        c.hidden_common_dim,
        dropout_rate=c.dropout_rate,
        gradient_checkpointing=c.gradient_checkpointing,
        attention_dropout=bool(c.pretrained),
    )


class TextPart(NamedTuple):
    """How a text branch is built, its published dimensions, and what else it can be given."""

    build: Callable[[Config, Parts, nn.Module], TextBranch]
    tokenizer: Literal["bpe", "bert"]  # the kind of tokenizer that makes its ids, `embeddings` apart
    defaults: dict[str, Any]
    optional: tuple[str, ...] = ()


EMBEDDINGS = ("embeddings", "train_embeddings")
TEXTS = {
    "lstm": TextPart(
        _lstm_text,
        "bpe",
        {"embedding_size": 16, "hidden_size": 128, "n_lstm_layers": 4},
        optional=EMBEDDINGS,
    ),
    "lstm_ends": TextPart(
        _lstm_ends_text,
        "bpe",
        {"embedding_size": 100, "hidden_size": 100, "n_lstm_layers": 1},
        optional=EMBEDDINGS,
    ),
    "transformer": TextPart(
        _transformer_text,
        "bpe",
        {"embedding_size": 128, "hidden_size": 256, "n_blocks": 8, "n_heads": 8, "block_size": 100},
    ),
    "cnn": TextPart(
        _cnn_text,
        "bpe",
        {
            "embedding_size": 100,
            "kernel_sizes": [3, 5, 7],
            "n_channels": [100, 100],
            "hidden_common_dim": 100,
            "dropout_rate": 0.5,
        },
        optional=EMBEDDINGS,
    ),
    "bert": TextPart(
        _bert_text,
        "bert",
        {
            "hidden_common_dim": 100,
            "dropout_rate": 0.1,
            "reinit_pooler": True,
            "reinit_layers": 2,
            "gradient_checkpointing": False,
        },
        optional=("pretrained", "bert", *BERT_DIMENSIONS),
    ),
}
