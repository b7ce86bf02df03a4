"""The registry of model classes, and the config of a model.

Decisions:
- A model class is a row of `MODEL_CLASSES`: its parts, how many texts it reads, and which published
  dimensions of the parts it changes. Encoder and fusion can be replaced in any class.
- A dimension that none of the class's parts reads is an error, never ignored (defect 4).
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, model_validator
from torch import nn

from n3r.bert import n_places, word_embeddings
from n3r.branches import BERT_DIMENSIONS, TEXTS
from n3r.encode import TEXT_KEYS
from n3r.files.json_io import explain
from n3r.files.pretrained import architecture
from n3r.fusion import (
    FUSIONS,
    HIDDEN,
    linear_head,
    lstm2risk_head,
    transformer2risk_head,
    two_layer_head,
)
from n3r.tabular import TabAE, TabularEncoder

MAX_LAYERS = 1000  # of a kind: more are a mistake, and would be built one by one before that shows


class ModelConfig(BaseModel):
    """A model's class, parts and dimensions; those that are not given are the class's published ones.

    Raises pydantic's ValidationError (a ValueError); `model_select` turns it into one plain message.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model_class: str
    vocab_size: int = Field(ge=1)
    n_tab_features: int = Field(ge=0)
    n_classes: int = Field(2, ge=2, le=10_000)
    dropout_rate: float = Field(0.2, ge=0, lt=1)
    n_tab_bins: int = Field(0, ge=0)  # bins that each tabular feature is also seen through; 0 as published
    tab_gain_power: float = Field(0, ge=0, le=10)  # see `fit`: of a feature's gain; 0 as published
    encoder: Literal["lstm", "lstm_ends", "transformer", "cnn", "bert"]
    fusion: Literal["concat", "gate", "mixture", "cross_attention"]
    embedding_size: int | None = Field(None, ge=1)
    hidden_size: int | None = Field(None, ge=1)  # of one LSTM direction; half a Transformer's text vector
    n_lstm_layers: int | None = Field(None, ge=1, le=MAX_LAYERS)
    n_blocks: int | None = Field(None, ge=1, le=MAX_LAYERS)  # of a Transformer or a new BERT
    n_heads: int | None = Field(None, ge=1)
    block_size: int | None = Field(None, ge=1)  # longest text in tokens
    kernel_sizes: list[PositiveInt] | None = Field(None, min_length=1, max_length=MAX_LAYERS)
    n_channels: list[PositiveInt] | None = Field(None, min_length=1, max_length=MAX_LAYERS)  # of a layer
    hidden_common_dim: int | None = Field(None, ge=1)  # width of the text vector
    pretrained: str | None = None  # folder or hub name that the first weights of a BERT come from
    bert: dict[str, Any] | None = None  # its architecture, as transformers has it
    reinit_pooler: bool | None = None
    reinit_layers: int | None = Field(None, ge=0)  # last layers that start anew
    gradient_checkpointing: bool | None = None  # less memory, more time
    embeddings: str | None = None  # folder or hub name of a BERT whose word embeddings the first ones are
    train_embeddings: bool | None = None  # false: they stay as they came
    secondary: "ModelConfig | None" = None  # of the second text alone, where that differs; given in part
    fusion_dim: int | None = Field(None, ge=1)  # None: the widest vector's, in whole heads
    fusion_heads: int | None = Field(None, ge=1)
    fusion_hidden_dim: int | None = Field(None, ge=1)  # of a head of two layers; None: half its input or 128

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, given: dict[str, Any]) -> dict[str, Any]:
        """Fill in class, parts and dimensions; refuse what no part reads."""
        given = {name: value for name, value in given.items() if value is not None}
        row = registered(given.get("model_class", ""))
        given["model_class"] = row.name
        parts = {"encoder": row.encoder, "fusion": row.fusion, **given}
        if parts["encoder"] not in TEXTS or parts["fusion"] not in FUSIONS:
            return parts  # pydantic says what there is
        known = cls.read(row, parts["encoder"], parts["fusion"])
        foreign = [name for name in parts if name in cls.model_fields and name not in known]
        if foreign:
            chosen = f"{row.name} with encoder {parts['encoder']} and fusion {parts['fusion']}"
            raise ValueError(f"{chosen} has no {', '.join(foreign)}")
        defaults = {**TEXTS[parts["encoder"]].defaults, **FUSIONS[parts["fusion"]].defaults}
        defaults |= {name: value for name, value in row.dimensions.items() if name in known}
        own_text = {name: parts[name] for name in parts if name in TEXTS[parts["encoder"]].optional}
        parts = {**defaults, **parts}
        parts |= _of_embeddings(given)
        if parts["encoder"] == "bert":
            own = {name: parts.pop(name) for name in BERT_DIMENSIONS if name in parts}
            if own and ("bert" in parts or "pretrained" in parts):
                raise ValueError(
                    f"a BERT whose architecture is given takes no {', '.join(own)}: leave them out"
                )
            if "bert" not in parts:
                parts["bert"] = _architecture(parts, own)
            if "pretrained" in parts:
                parts.setdefault("vocab_size", parts["bert"].get("vocab_size"))
        if isinstance(parts.get("secondary"), dict):
            parts["secondary"] = cls._second(parts, own_text, parts["secondary"])
        return parts

    @classmethod
    def _second(
        cls, parts: dict[str, Any], own_text: dict[str, Any], given: dict[str, Any]
    ) -> dict[str, Any]:
        """The whole config of the second text: what is not given is the first one's, by the same encoder."""
        given = {name: value for name, value in given.items() if value is not None}
        encoder = given.get("encoder", parts["encoder"])
        same = {name: parts[name] for name in ("n_classes", "dropout_rate") if name in parts}
        if encoder == parts["encoder"]:
            shared = TEXTS[encoder].defaults.keys() - ({"embedding_size"} if "embeddings" in given else set())
            same |= {name: parts[name] for name in shared if name in parts}
            if not given.keys() & {"bert", "pretrained", "embeddings"}:
                is_new = given.keys() & {*BERT_DIMENSIONS, "vocab_size"}
                same |= {name: own_text[name] for name in own_text if not is_new or name in BERT_DIMENSIONS}
                same["vocab_size"] = parts.get("vocab_size")
        return {**same, "model_class": "bert", "encoder": encoder, "n_tab_features": 0, **given}

    @classmethod
    def read(cls, row: "ModelClass", encoder: str, fusion: str) -> set[str]:
        """The fields that a class's model of these parts reads; those of other parts have None in it."""
        of_all = {name for name, field in cls.model_fields.items() if field.default is not None}
        of_all |= {"secondary"} if row.n_texts == 2 else set()
        of_all |= {HIDDEN[row.head]} if row.head in HIDDEN else set()
        return {*of_all, *TEXTS[encoder].defaults, *TEXTS[encoder].optional, *FUSIONS[fusion].defaults}

    @model_validator(mode="after")
    def _fits(self) -> "ModelConfig":
        row = MODEL_CLASSES[self.model_class]
        if row.tabular is None and self.n_tab_features:
            raise ValueError(
                f"{self.model_class} reads text alone: give it n_tab_features 0 or choose another class"
            )
        if row.needs_tabular and not self.n_tab_features:
            raise ValueError(
                f"{self.model_class} fuses text with tabular columns and there are none; "
                "name numeric or categorical columns in the column map, or choose bimodal_bert, bert or lstm"
            )
        lacking = [name for name in _ARCHITECTURE if self.bert and name not in self.bert]
        if lacking:
            raise ValueError(f"bert lacks {', '.join(lacking)}: give all that transformers' config.json has")
        layers = [n for key, n in (self.bert or {}).items() if key.startswith("num_") and isinstance(n, int)]
        if any(n > MAX_LAYERS for n in layers):
            raise ValueError(f"bert has more than {MAX_LAYERS} layers or heads")
        if self.bert and self.vocab_size > self.bert["vocab_size"]:
            raise ValueError(
                f"a tokenizer of {self.vocab_size} tokens for a BERT of {self.bert['vocab_size']}: "
                "take the tokenizer of the pretrained model"
            )
        return self

    @property
    def n_texts(self) -> int:
        """How many texts a row has: 2 for trimodal classes."""
        return MODEL_CLASSES[self.model_class].n_texts

    @property
    def of_texts(self) -> dict[str, "ModelConfig"]:
        """The config of each text's branch, by the batch key of the text's ids."""
        branches = [self, self.secondary or self][: self.n_texts]
        return dict(zip(TEXT_KEYS, branches, strict=False))

    @property
    def max_tokens(self) -> int | None:
        """Longest text, or chunk of a text, that the branch reads; None: any."""
        return n_places(self.bert) if self.bert else self.block_size


def _of_embeddings(given: dict[str, Any]) -> dict[str, int]:
    """The sizes of an embedding that starts from a BERT's, where not all are known; ValueError for others."""
    source, vocab_size, width = (given.get(key) for key in ("embeddings", "vocab_size", "embedding_size"))
    if source is None or (vocab_size and width):  # a loaded model's are known
        return {}
    n_tokens, d = word_embeddings(source).shape
    if width not in (None, d):
        raise ValueError(f"the word embeddings of {source} are {d} wide: leave embedding_size out")
    if vocab_size is not None and vocab_size > n_tokens:
        raise ValueError(
            f"a tokenizer of {vocab_size} tokens for the {n_tokens} word embeddings of {source}: "
            "take the tokenizer of that model"
        )
    return {"vocab_size": vocab_size or n_tokens, "embedding_size": d}


_ARCHITECTURE = ("model_type", "vocab_size", "max_position_embeddings")  # what of it is read here


def _architecture(parts: dict[str, Any], own: dict[str, int]) -> dict[str, Any]:
    """The pretrained model's architecture, or that of a new BERT of the given dimensions."""
    if "pretrained" in parts:
        return architecture(parts["pretrained"])
    own = {**BERT_DIMENSIONS, **own}
    return {
        "model_type": "bert",
        "vocab_size": parts.get("vocab_size"),
        "hidden_size": own["embedding_size"],
        "num_hidden_layers": own["n_blocks"],
        "num_attention_heads": own["n_heads"],
        "intermediate_size": 4 * own["embedding_size"],
        "max_position_embeddings": own["block_size"],
        "hidden_dropout_prob": parts["dropout_rate"],
    }


class ModelClass(NamedTuple):
    """A row of the registry."""

    name: str
    encoder: str  # a key of TEXTS
    fusion: str  # a key of FUSIONS
    head: Callable[[int, int | None, int, nn.Module], nn.Module]
    tabular: type[nn.Module] | None  # None: text alone
    n_texts: int = 1
    needs_tabular: bool = False  # nothing would be left to fuse without
    dimensions: dict[str, Any] = {}  # what it changes of its parts'
    training: dict[str, Any] = {}  # what it changes of TrainConfig's where a BERT is fine-tuned


# The published fine-tuning of BERT: AdamW without decay, linear warm-up and decay of the rate.
_FINE_TUNING = {"lr": 2e-5, "weight_decay": 0.0, "schedule": "linear"}


def _bert_class(name: str, fusion: str, head: Callable, **options: Any) -> ModelClass:
    return ModelClass(name, "bert", fusion, head, **{"tabular": TabAE, "training": _FINE_TUNING, **options})


# NOTE[DIFF] the published CNN and LSTM train by SGD at 0.02 without a schedule (`optimizer="sgd"`). On 2,100
# made-up messages, five epochs, means of two seeds, their AUC on validation rows is then 0.760 and 0.604; by
# AdamW at 0.004 it is 0.795 and 0.682.
_ROWS = (
    ModelClass("lstm2risk", "lstm", "concat", lstm2risk_head, TabularEncoder),
    ModelClass("transformer2risk", "transformer", "concat", transformer2risk_head, TabularEncoder),
    _bert_class("bimodal_bert", "concat", linear_head),
    ModelClass("bimodal_cnn", "cnn", "concat", linear_head, TabAE),
    _bert_class("bimodal_moe", "mixture", linear_head, needs_tabular=True),
    _bert_class("bimodal_gate_fusion", "gate", linear_head, needs_tabular=True),
    _bert_class("bimodal_cross_attn", "cross_attention", two_layer_head, needs_tabular=True),
    _bert_class("trimodal_bert", "concat", two_layer_head, n_texts=2),
    _bert_class(
        "trimodal_cross_attn",
        "cross_attention",
        two_layer_head,
        n_texts=2,
        dimensions={"fusion_heads": 8},
    ),
    _bert_class("trimodal_gate_fusion", "gate", linear_head, n_texts=2),
    _bert_class("bert", "concat", linear_head, tabular=None),
    ModelClass("lstm", "lstm_ends", "concat", linear_head, tabular=None),
)
MODEL_CLASSES = {row.name: row for row in _ROWS}
ALIASES = {
    "bimodal": "bimodal_bert",
    "trimodal": "trimodal_bert",
    "bimodal_lstm": "lstm2risk",
    "bimodal_transformer": "transformer2risk",
    **{name.replace("bimodal", "multimodal"): name for name in MODEL_CLASSES if name.startswith("bimodal")},
}


def registered(model_class: str) -> ModelClass:
    """The registry row of a model class or alias; an unknown name is a ValueError that lists all."""
    name = ALIASES.get(model_class, model_class)
    if name not in MODEL_CLASSES:
        names, aliases = ", ".join(MODEL_CLASSES), ", ".join(ALIASES)
        raise ValueError(f"no model class {model_class!r}; there are {names} (and the aliases {aliases})")
    return MODEL_CLASSES[name]


def configure(model_class: str, **dimensions: Any) -> ModelConfig:
    """The config of a model class, with its published dimensions where none are given.

    `vocab_size` and `n_tab_features` must be given. One ValueError names every wrong dimension.
    """
    try:
        return ModelConfig(model_class=model_class, **dimensions)
    except ValidationError as error:
        raise ValueError(explain(error, ModelConfig.model_fields)) from None
