"""The risk model: text branches, tabular encoder, fusion and head, and its classes.

Decisions:
- A class of the registry is a class of Python too: `RiskModel(config)` gives an instance of the config's.
- Models know nothing of training. They return logits, one per class; `predict` and export take probabilities.
"""

from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from n3r.bert import word_embeddings
from n3r.branches import BERT_DIMENSIONS, OWN_PARTS, TEXTS, Parts
from n3r.encode import TEXT_KEYS
from n3r.fusion import FUSIONS, HIDDEN, Widths, build_fusion
from n3r.published import BatchKeys, as_settings, dimensions, renamed
from n3r.registry import MODEL_CLASSES, ModelConfig, configure, registered
from n3r.tabular import FeatureTokens, QuantileMap
from n3r.text import Modality

Batch = dict[str, Tensor]


class RiskModel(nn.Module):
    """Any model class, built from its registry row, a config and a table of parts; returns logits (B, C).

    `knots`, those of the features, scale the features that they are of; without, these stay as they come.
    A class of its own (`LSTM2Risk`) also takes a published configuration, a dict or an object, and keywords
    over it, and then has the weights of `pretrained`; a model of a `ModelConfig` has random ones.
    """

    name: ClassVar[str | None] = None  # of the registry row

    def __new__(cls, config: Any = None, *args: Any, **settings: Any) -> "RiskModel":
        """An instance of the config's own class."""
        is_any = cls is RiskModel and isinstance(config, ModelConfig)
        return super().__new__(CLASSES[config.model_class] if is_any else cls)

    def __init__(
        self,
        config: Any = None,
        parts: Parts = OWN_PARTS,
        knots: np.ndarray | None = None,
        **settings: Any,
    ):
        super().__init__()
        self.batch_keys = BatchKeys()
        if isinstance(config, ModelConfig) and not settings:
            self._build(config, parts, knots)
            return
        given = {} if config is None else as_settings(config)
        self.batch_keys = BatchKeys.of(given)
        self._build(_configured(self.name, given, settings), parts, knots)
        self.load_pretrained()

    def _build(self, config: ModelConfig, parts: Parts, knots: np.ndarray | None) -> None:
        if self.name not in (None, config.model_class):
            raise ValueError(
                f"{type(self).__name__} is {self.name}; the configuration is of {config.model_class}"
            )
        row = MODEL_CLASSES[config.model_class]
        drop = parts.dropout(config.dropout_rate)
        self.config = config
        branches = config.of_texts.values()
        self.texts = nn.ModuleList(TEXTS[c.encoder].build(c, parts, drop) for c in branches)
        for text, c in zip(self.texts, branches, strict=True):
            if c.train_embeddings is False:
                text.encoder.embedding.requires_grad_(False)
        widths = [Widths(text.d_out, text.d_tokens) for text in self.texts]
        self.tabular = self.feature_tokens = self.scaling = None
        if config.n_tab_features:
            if knots is not None and knots.shape[1] > config.n_tab_features:
                raise ValueError(f"knots of {knots.shape[1]} features for {config.n_tab_features}")
            self.scaling = None if knots is None else QuantileMap(knots)
            d, n = self.texts[0].d_out, config.n_tab_features
            self.tabular = row.tabular(n, d, drop, config.n_tab_bins, config.tab_gain_power > 0)
            if FUSIONS[config.fusion].needs_tokens:
                self.feature_tokens = FeatureTokens(n, d)
            widths.append(Widths(d, d))
        d = config.fusion_dim or max(width.vector for width in widths)
        if not config.fusion_dim and config.fusion_heads:
            # NOTE[DIFF] the published trimodal attention stops at its own defaults, 100 wide with 8 heads.
            d += -d % config.fusion_heads
        self.fusion = build_fusion(config.fusion, widths, d, config.fusion_heads, drop)
        width = getattr(config, HIDDEN[row.head]) if row.head in HIDDEN else None
        self.head = parts.head(row.head(self.fusion.d_out, width, config.n_classes, drop))

    @property
    def inputs(self) -> list[str]:
        """The batch keys that the model reads."""
        texts = [key for ids in self.config.of_texts for key in (ids, TEXT_KEYS[ids])]
        return [*texts, "tabular"] if self.tabular else texts

    def forward(self, batch: Batch) -> Tensor:
        """Batch of `text` (B, T) or (B, K, T), `attn_mask` alike, `tabular` (B, F) .. -> logits (B, C).

        A batch of the published models, legacy or not, is read as `BatchKeys.read` says.
        """
        if not self.batch_keys.are_own(batch, self.inputs):
            chunked = [ids for ids, c in self.config.of_texts.items() if c.encoder == "bert"]
            batch = self.batch_keys.read(batch, self.inputs, chunked)
        texts = zip(self.texts, self.config.of_texts, strict=True)
        modalities = [text(batch[ids], batch[TEXT_KEYS[ids]]) for text, ids in texts]
        if self.tabular:
            modalities.append(self._look_at_features(batch["tabular"]))
        return self.head(self.fusion(modalities))

    def _look_at_features(self, x: Tensor) -> Modality:
        x = self.scaling(x) if self.scaling else x
        vector = self.tabular(x)  # (B, D)
        tokens = self.feature_tokens(x) if self.feature_tokens else vector[:, None]  # (B, F or 1, D)
        return Modality(vector, tokens, torch.ones_like(tokens[:, :, 0], dtype=torch.bool))

    def load_pretrained(self) -> "RiskModel":
        """Take the weights of each text's `pretrained` model or its word `embeddings`, where it has such."""
        for text, c in zip(self.texts, self.config.of_texts.values(), strict=True):
            if c.pretrained:
                text.load_pretrained(c.pretrained, c.reinit_pooler, c.reinit_layers)
            if c.embeddings:
                text.start_from(word_embeddings(c.embeddings))
        return self


def _configured(name: str | None, given: dict[str, Any], settings: dict[str, Any]) -> ModelConfig:
    """The config of a class from a published configuration and keywords over it."""
    if name is None:
        raise ValueError(
            "RiskModel takes a ModelConfig; settings are for a class of its own, or model_select"
        )
    row = registered(name)
    theirs = [registered(source.pop("model_class", name)).name for source in (given, settings)]
    if foreign := [other for other in theirs if other != name]:
        raise ValueError(f"the configuration is of the model class {foreign[0]}, not of {name}")
    parts = {"encoder": row.encoder, "fusion": row.fusion, **given, **settings}
    encoder, fusion = parts["encoder"], parts["fusion"]
    if given and encoder in TEXTS and fusion in FUSIONS:
        read = ModelConfig.read(row, encoder, fusion)
        if {"tokenizer", "primary_tokenizer"} & given.keys() or "pretrained" in parts or "bert" in parts:
            read -= set(BERT_DIMENSIONS) if encoder == "bert" else set()
        read -= set() if row.tabular else {"n_tab_features"}
        given = {"n_tab_features": 0, **dimensions(given, encoder, read)}
        if "embeddings" in given:  # the published run gives sizes too, of its other classes
            given = {name: given[name] for name in given.keys() - {"vocab_size", "embedding_size"}}
    return configure(name, **given | renamed(settings, encoder))


def model_select(model_class: str, knots: np.ndarray | None = None, **dimensions: Any) -> RiskModel:
    """A new model of a class, of the dimensions that `configure` gives; a pretrained one has its weights."""
    return CLASSES[registered(model_class).name](knots=knots, **dimensions)


def _class_of(name: str, model_class: str) -> type[RiskModel]:
    doc = f"The model class `{model_class}`; see `RiskModel` for what it takes."
    return type(name, (RiskModel,), {"name": model_class, "__doc__": doc, "__module__": __name__})


LSTM2Risk = _class_of("LSTM2Risk", "lstm2risk")
Transformer2Risk = _class_of("Transformer2Risk", "transformer2risk")
MultimodalBert = BimodalBert = _class_of("BimodalBert", "bimodal_bert")
BimodalCNN = _class_of("BimodalCNN", "bimodal_cnn")
BimodalMoE = _class_of("BimodalMoE", "bimodal_moe")
BimodalGateFusion = _class_of("BimodalGateFusion", "bimodal_gate_fusion")
BimodalCrossAttn = _class_of("BimodalCrossAttn", "bimodal_cross_attn")
TrimodalBert = _class_of("TrimodalBert", "trimodal_bert")
TrimodalCrossAttn = _class_of("TrimodalCrossAttn", "trimodal_cross_attn")
TrimodalGateFusion = _class_of("TrimodalGateFusion", "trimodal_gate_fusion")
TextBertClassification = _class_of("TextBertClassification", "bert")
TextLSTM = _class_of("TextLSTM", "lstm")
CLASSES = {cls.name: cls for cls in RiskModel.__subclasses__()}
