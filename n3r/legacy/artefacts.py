"""Names in the published code: of its hyperparameters, its weights and the inputs of its graphs.

Decisions:
- A published graph is the bundle's own with nodes put before it: the same network, no second export.
- These nodes fill in what is missing and say so, as `TabularFeatures.transform` does. Raw numbers and risks
  go in; what scales them is part of the network.
- A server that imputes gets the same score: impute_dict holds a mark where the model is told what is missing,
  a number beside the fill by which these nodes know a missing number.
- The classes for names read `text_tokens`, `text_lengths` or `attn_mask`, and `tabular`; the others read ids
  and mask of each text and every column by its own name. That is what the published server feeds (defect 2).
"""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from n3r.bundle import Bundle
from n3r.encode import TEXT_KEYS
from n3r.features import TabularFeatures
from n3r.model import ModelConfig
from n3r.precomputed import FLOAT32
from n3r.schema import LABEL, MISSING, SEPARATOR, plain

if TYPE_CHECKING:
    from onnx import ModelProto

NAMES_CLASSES = {"lstm2risk": "lstm", "transformer2risk": "transformer"}  # and the published encoder
OURS, FRONT = "n3r/", "front/"  # prefixes of values in a published graph
BESIDE = np.pi * 1e-5  # how far from the fill a mark lies, by the fill's size
MARKED, SMALLEST = 2.0**20, 1e-20  # limits of that size: float32 beyond are whole, or next to subnormal
MONITORED = {
    "val_auroc": "val/auroc",
    "val_average_precision": "val/average_precision",
    "val_f1": "val/f1_score",
    "val_precision": "val/precision",
    "val_recall": "val/recall",
    "val_accuracy": "val/accuracy",
}
RESERVED = (  # names in a published graph that no column can have
    "",
    "probs",
    *(f"{ids}_{part}" for ids in ("text", "secondary") for part in ("input_ids", "attention_mask")),
)
DIMENSIONS = {
    "vocab_size": "n_embed",
    "kernel_sizes": "kernel_size",
    "n_channels": "num_channels",
    "fusion_heads": "num_heads",
}
WEIGHTS = [  # from n3r's names, tried in this order on every key
    (r"^texts\.0\.encoder\.embedding", "text_encoder.token_embedding"),
    (r"^texts\.0\.encoder\.position", "text_encoder.position_embedding"),
    (r"^texts\.0\.pool\.attention", "text_encoder.pooling.attention"),
    (r"^texts\.0\.(encoder|pool)", "text_encoder"),
    (r"(\.blocks\.\d+)\.norm", r"\1.ln"),
    (r"(\.blocks\.\d+)\.proj", r"\1.self_attn.proj"),
    (r"(\.blocks\.\d+)\.ffn", r"\1.ffn.net"),
    (r"^tabular\.net", "tab_encoder"),
    (r"^head\.net", "classifier"),
]


def has_published_weights(config: ModelConfig, features: TabularFeatures) -> bool:
    """Whether a published class with this model's weights scores as it does, padding apart (defect 10).

    It reads raw columns: with weights trained on scaled ones its scores would be wrong without a message.
    """
    as_published = NAMES_CLASSES.get(config.model_class) == config.encoder and config.fusion == "concat"
    plain = not (config.n_tab_bins or config.tab_gain_power) and features.config.scaling == "none"
    return as_published and plain and config.n_tab_features > 0


def to_published(state_dict: Mapping[str, Tensor], n_heads: int | None) -> dict[str, Tensor]:
    """Weights of an lstm2risk or transformer2risk under the published names, a qkv for each head."""
    mapped = {}
    for key, value in state_dict.items():
        for pattern, name in WEIGHTS:
            key = re.sub(pattern, name, key)
        if not key.endswith(".qkv.weight"):
            mapped[key] = value
            continue
        heads = zip(*(part.chunk(n_heads) for part in value.chunk(3)), strict=True)  # q, k, v of each
        for h, qkv in enumerate(heads):
            mapped[key.replace(".qkv.", f".self_attn.heads.{h}.qkv.")] = torch.cat(qkv)
    return mapped


def is_names_model(config: ModelConfig) -> bool:
    """Whether the graph gets the inputs of the published LSTM2Risk and Transformer2Risk."""
    return config.model_class in NAMES_CLASSES and config.encoder != "bert"


def raw_columns(config: ModelConfig, features: TabularFeatures) -> list[str]:
    """The columns that a graph reads, numbers before categories, each once."""
    return features.columns if config.n_tab_features else []


def published_tables(
    config: ModelConfig, features: TabularFeatures
) -> tuple[dict[str, float], dict[str, dict[str, Any]]]:
    """Numeric column -> what is imputed, and categorical column -> risk table, of what the model reads."""
    if not config.n_tab_features:
        return {}, {}
    tables = features.risk_tables_.values()
    risks = {table["column"]: {key: table[key] for key in ("bins", "default_bin")} for table in tables}
    return features.imputation_ | marks(features), risks


def marks(features: TabularFeatures) -> dict[str, float]:
    """What stands for a missing number in each column of which the model is told what is missing.

    A number of many digits within a ten-thousandth of the fill, so that no price or count is read as it, and
    not one of the knots. Of a fill beyond 2**20 it is one beside 2**20: large float32 are whole numbers.
    """
    if features.config.scaling == "none":
        return {}
    found = {}
    for name in features.indicators_:
        knots = np.float32(features.knots_.get(name, {"value": []})["value"])
        fill = np.clip(features.imputation_[name], -MARKED, MARKED)
        scale = abs(fill) or np.abs(knots[knots != 0]).min(initial=1)
        mark = np.float32(fill + max(scale, SMALLEST) * BESIDE)
        while mark in knots or mark == np.floor(mark):
            mark = np.nextafter(mark, np.float32(np.inf))
        found[name] = float(mark)
    return found


def hyperparameters(bundle: Bundle) -> dict[str, Any]:
    """n3r's values under the published keys, and n3r's own where the published code has none.

    `text_separator` joins a row's text fields; `text_missing` stands for a missing one (None: nothing does).
    """
    c, t, m, texts = bundle.model.config, bundle.train_config, bundle.column_map, bundle.texts
    imputation, tables = published_tables(c, bundle.features)
    is_bpe = bundle.tokenizer.kind == "bpe"
    step, fields = "custom_bpe_tokenizer" if is_bpe else "tokenizer", m.all_text if c.n_texts == 1 else m.text
    dimensions = c.model_dump(exclude_none=True, exclude={"n_tab_features"})
    return {
        **{DIMENSIONS.get(name, name): value for name, value in dimensions.items()},
        "pad_token_id": bundle.tokenizer.pad_token,  # NOTE[DIFF] published as 0, which is [CLS] (defect 12)
        "input_tab_dim": len(imputation) + len(tables),
        "num_classes": c.n_classes,
        "is_binary": c.n_classes == 2,
        "multiclass_categories": list(range(c.n_classes)),
        "label_name": plain(LABEL),
        "label_to_id": m.label_values,
        "id_name": m.id,
        "text_name": "text",
        "primary_text_name": "text",
        "secondary_text_name": "secondary" if c.n_texts == 2 else None,
        "text_source_fields": fields,
        "cat_field_list": fields,
        "text_separator": SEPARATOR if is_bpe else bundle.tokenizer.metadata["sep_token"],
        "text_missing": MISSING if is_bpe else None,
        "text_processing_steps": [name for name in texts.steps if name != step] + [step],
        "text_field_overwrite": False,
        "text_input_ids_key": "input_ids",
        "text_attention_mask_key": "attention_mask",
        "tokenizer": "tokenizer.json" if is_bpe else "tokenizer",
        "max_sen_len": min(texts.max_tokens, c.max_tokens or texts.max_tokens),
        "chunk_trancate": True,
        "max_total_chunks": texts.max_chunks,
        "fixed_tokenizer_length": False,
        "tab_field_list": list(imputation),
        "categorical_features_to_encode": list(tables),
        "full_field_list": list(
            dict.fromkeys([m.id, plain(LABEL), *m.roles.values(), *m.all_text, *imputation, *tables])
        ),
        "imputation_dict": imputation,
        "risk_tables": tables,
        "smooth_factor": bundle.features.config.smooth_factor,
        "count_threshold": bundle.features.config.count_threshold,
        "batch_size": t.batch_size,
        "max_epochs": t.epochs,
        "optimizer": {"adamw": "AdamW", "sgd": "SGD"}[t.optimizer],
        "lr": t.lr,
        "lr_decay": 0.0,
        "momentum": 0.9,  # SGD's, and AdamW's first beta
        "weight_decay": t.weight_decay,
        "adam_epsilon": t.adam_epsilon,
        "run_scheduler": t.schedule not in ("constant", "none"),
        "warmup_steps": 0,
        "warmup_ratio": t.warmup,  # n3r warms up for a share of the steps
        "class_weights": t.class_weights or [1.0] * c.n_classes,
        "gradient_clip_val": t.gradient_clip,
        "early_stop_metric": MONITORED.get(t.monitor, t.monitor),
        "early_stop_patience": t.patience,
        "metric_choices": ["f1_score", "auroc"],
        "val_check_interval": 1.0,
        "load_ckpt": True,
        "fp16": False,
        "use_gradient_checkpointing": bool(c.gradient_checkpointing),
        "device": -1,
        "header": 0,
    }


def with_published_inputs(
    graph: "ModelProto", config: ModelConfig, features: TabularFeatures
) -> "ModelProto":
    """The graph of a model, which reads batches, made one that reads what the published server feeds.

    Names classes: `text_tokens` (B, T), `text_lengths` (B,) or `attn_mask` (B, T) int64, `tabular` (B, F)
    float. Others: `text_input_ids`, `text_attention_mask` (B, K, T) int64, of a second text `secondary_..`,
    and a float (B, 1) for each column. The output stays `probs` (B, C). The features have two classes.
    """
    from onnx.compose import add_prefix

    graph = add_prefix(graph, OURS, rename_outputs=False)
    front, columns = _Front(), raw_columns(config, features)
    if is_names_model(config):
        _feed_names(front, config.model_class)
        raw = front.input("tabular", "FLOAT", ["rows", len(columns)]) if columns else ""
    else:
        _feed_texts(front, config)
        fields = [front.input(name, "FLOAT", ["rows", 1]) for name in columns]
        raw = front("Concat", *fields, axis=1) if columns else ""
    if columns:
        _feed_features(front, raw, features)
    own = graph.graph
    nodes, constants = [*front.nodes, *own.node], [*front.constants, *own.initializer]
    for part in (own.input, own.node, own.initializer):
        del part[:]
    own.input.extend(front.inputs)
    own.node.extend(nodes)
    own.initializer.extend(constants)
    return graph


class _Front:
    """Nodes to be put before a graph; a call adds one and gives its output's name."""

    def __init__(self) -> None:
        self.inputs: list[Any] = []
        self.constants: list[Any] = []
        self.nodes: list[Any] = []

    def input(self, name: str, kind: str, shape: Sequence[str | int]) -> str:
        """An input of the kind "INT64" or "FLOAT"."""
        from onnx import TensorProto, helper

        self.inputs.append(helper.make_tensor_value_info(name, getattr(TensorProto, kind), shape))
        return name

    def constant(self, value: Any) -> str:
        from onnx import numpy_helper

        name = f"{FRONT}constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def __call__(self, kind: str, *inputs: Any, out: str | None = None, **attributes: Any) -> str:
        from onnx import helper

        names = [value if isinstance(value, str) else self.constant(value) for value in inputs]
        out = out or f"{FRONT}{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, names, [out], **attributes))
        return out


def _feed_names(front: _Front, model_class: str) -> None:
    tokens = front.input("text_tokens", "INT64", ["rows", "tokens"])
    front("Identity", tokens, out=f"{OURS}text")
    if model_class == "transformer2risk":
        mask = front.input("attn_mask", "INT64", ["rows", "tokens"])
        front("Greater", mask, np.int64(0), out=f"{OURS}attn_mask")
        return
    lengths = front.input("text_lengths", "INT64", ["rows"])
    n_tokens = front("Squeeze", front("Shape", tokens, start=1, end=2))
    steps = front("Range", np.int64(0), n_tokens, np.int64(1))  # (T,)
    front("Less", steps, front("Unsqueeze", lengths, np.array([1])), out=f"{OURS}attn_mask")  # (B, T)


def _feed_texts(front: _Front, config: ModelConfig) -> None:
    """Ids and mask (B, K, T) of each text; a model that knows no chunks takes one of them."""
    for ids, own in config.of_texts.items():
        more = "" if ids == "text" else "secondary_"
        shape = ["rows", f"{more}chunks", f"{more}tokens"]
        tokens = front.input(f"{ids}_input_ids", "INT64", shape)
        seen = front("Greater", front.input(f"{ids}_attention_mask", "INT64", shape), np.int64(0))
        for value, out in ((tokens, ids), (seen, TEXT_KEYS[ids])):
            if own.encoder == "bert":
                front("Identity", value, out=OURS + out)
            else:
                front("Squeeze", value, np.array([1]), out=OURS + out)


def _feed_features(front: _Front, raw: str, features: TabularFeatures) -> None:
    """What `features.transform` makes of the raw columns (B, F); NaN, infinity and marks are missing."""
    fills = missing_values(features)
    raw_names = list(fills)
    present = front("LessOrEqual", front("Abs", raw), np.float32(FLOAT32))
    if known := marks(features):
        own = np.float32([[known.get(name, np.nan) for name in raw_names]])
        present = front("And", present, front("Not", front("Equal", raw, own)))
    filled = front("Where", present, raw, np.float32([list(fills.values())]))
    if features.config.scaling == "none":
        front("Identity", filled, out=f"{OURS}tabular")
        return
    parts = []
    if features.knots_:
        parts.append(front("Gather", filled, np.array([raw_names.index(n) for n in features.knots_]), axis=1))
    if features.indicators_:
        at = np.array([raw_names.index(name) for name in features.indicators_])
        absent = front("Not", front("Gather", present, at, axis=1))
        parts.append(front("Where", absent, np.float32(1), np.float32(0)))
    front("Concat", *parts, axis=1, out=f"{OURS}tabular")


def missing_values(features: TabularFeatures) -> dict[str, float]:
    """What each raw column, under the name of what becomes of it, counts as where it is missing."""
    risks = {name: table["default_bin"] for name, table in features.risk_tables_.items()}
    return {**features.imputation_, **risks}
