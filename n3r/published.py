"""What the published models are given, as n3r's own: their configurations and their batches.

Decisions:
- A published configuration is that of a whole run. Its keys that no model reads, of data and training, are
  passed over here, and so are dimensions of other classes; a key that it does not have is left to
  `configure`, which names it. Keywords get no such grace: each must be read.
- NOTE[DIFF] one dropout rate serves a whole model. The published trimodal classes have one of their fusion
  and one of their attention beside the texts' 0.1; a configuration in which these differ is refused.
"""

from collections.abc import Container, Iterable, Mapping
from dataclasses import asdict, is_dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from n3r.encode import TEXT_KEYS

NAMES = {  # published -> n3r's
    "n_embed": "vocab_size",
    "input_tab_dim": "n_tab_features",
    "num_classes": "n_classes",
    "embed_size": "embedding_size",
    "kernel_size": "kernel_sizes",
    "num_channels": "n_channels",
    "num_heads": "fusion_heads",
    "cross_attention_heads": "fusion_heads",
    "use_gradient_checkpointing": "gradient_checkpointing",
}
_OF_ENCODER = {
    "lstm": {},
    "lstm_ends": {
        "hidden_common_dim": "hidden_size",
        "num_layers": "n_lstm_layers",
        "dropout_keep": "dropout_rate",
        "tokenizer": "embeddings",
        "is_embeddings_trainable": "train_embeddings",
    },
    "transformer": {"max_sen_len": "block_size"},
    "cnn": {
        "dropout_keep": "dropout_rate",
        "tokenizer": "embeddings",
        "is_embeddings_trainable": "train_embeddings",
    },
    "bert": {
        "tokenizer": "pretrained",
        "fusion_dropout": "dropout_rate",
        "cross_attention_dropout": "dropout_rate",
    },
}
FIRST, SECOND = "primary_", "secondary_"  # what a setting of one of two texts begins with
_OF_A_TEXT = {"tokenizer", "hidden_common_dim", "reinit_pooler", "reinit_layers"}
_OF_SECOND = {SECOND + key for key in (*_OF_A_TEXT, "vocab_size")}
_KEYS = """
    adam_epsilon batch_size cat_field_list categorical_features_to_encode chunk_trancate
    class_weights count_threshold cross_attention_dropout device dropout_keep dropout_rate
    early_stop_metric early_stop_patience embedding_size fixed_tokenizer_length fp16 full_field_list
    fusion_dim fusion_dropout fusion_hidden_dim gradient_clip_val header hidden_common_dim hidden_size id_name
    id_to_label imputation_dict is_binary is_embeddings_trainable label_name label_to_id load_ckpt
    lr lr_decay max_epochs max_sen_len max_total_chunks metric_choices model_class model_path
    momentum multiclass_categories n_blocks n_heads n_lstm_layers num_layers optimizer
    optimizer_type pad_token_id primary_text_name primary_text_processing_steps reinit_layers
    reinit_pooler risk_tables run_scheduler secondary_text_name secondary_text_processing_steps
    smooth_factor tab_field_list text_attention_mask_key text_field_overwrite text_input_ids_key
    text_name text_processing_steps text_source_fields tokenizer val_check_interval warmup_steps
    weight_decay
"""
_PUBLISHED = {*_KEYS.split(), *NAMES}  # all that a published configuration may have


def as_settings(config: Any) -> dict[str, Any]:
    """A mapping, dataclass, pydantic model or plain object as a dict of its settings that are not None.

    Raises ValueError for anything that has none.
    """
    if hasattr(config, "model_dump"):
        config = config.model_dump()
    elif is_dataclass(config) and not isinstance(config, type):
        config = asdict(config)
    elif not isinstance(config, Mapping) and hasattr(config, "__dict__") and not isinstance(config, type):
        config = vars(config)
    if not isinstance(config, Mapping):
        raise ValueError(
            f"a configuration is a dict or an object with settings, not a {type(config).__name__}"
        )
    return {name: value for name, value in config.items() if value is not None}


def renamed(settings: Mapping[str, Any], encoder: str) -> dict[str, Any]:
    """Settings under n3r's names; ValueError for two that mean the same and differ."""
    names = NAMES | _OF_ENCODER.get(encoder, {})
    second = {key.removeprefix(SECOND): settings[key] for key in settings if key in _OF_SECOND}
    out: dict[str, Any] = {}
    if second:
        out["secondary"] = {**settings.get("secondary", {}), **renamed(second, encoder)}
    for key, value in settings.items():
        if key in _OF_SECOND or (second and key == "secondary"):
            continue
        key = key.removeprefix(FIRST) if key.removeprefix(FIRST) in _OF_A_TEXT else key
        name = names.get(key, key)
        if name in out and out[name] != value:
            others = [other for other in settings if names.get(other, other) == name]
            raise ValueError(f"{' and '.join(others)} differ, and both mean n3r's {name}: give one")
        out[name] = value
    return out


def dimensions(config: Mapping[str, Any], encoder: str, read: Iterable[str]) -> dict[str, Any]:
    """A published configuration as the dimensions of a model that reads `read`.

    A number of columns follows from their list; keys that are in no published configuration stay.
    """
    given = dict(config)
    if "tab_field_list" in given:
        given["input_tab_dim"] = len(given["tab_field_list"])
    # Where a class has a key of its own for it, the general one is another class's.
    general = {name for key, name in _OF_ENCODER[encoder].items() if key in given}
    if "secondary" in read:
        general |= {key for key in _OF_A_TEXT if FIRST + key in given}
    else:
        general |= {prefix + key for key in _OF_A_TEXT for prefix in (FIRST, SECOND)}
    found = renamed({key: value for key, value in given.items() if key not in general}, encoder)
    foreign = {name: name for name in _PUBLISHED} | NAMES
    foreign = {*foreign, *foreign.values()} - set(read)
    kept = {name: value for name, value in found.items() if name not in foreign}
    if encoder == "cnn" and given.get("num_layers", 0) not in (0, len(kept.get("n_channels", [0, 0]))):
        raise ValueError("num_layers is not the number of num_channels: a CNN has one number a layer")
    return kept


class BatchKeys(NamedTuple):
    """The names in published batches: of the text fields, their two parts, and the columns."""

    texts: tuple[str, ...] = ("text", "secondary")
    columns: tuple[str, ...] = ()
    ids: str = "input_ids"
    mask: str = "attention_mask"

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> "BatchKeys":
        """As a published configuration has them, or the published defaults."""
        first = settings.get("primary_text_name", settings.get("text_name", "text"))
        return cls(
            (first, settings.get("secondary_text_name", "secondary")),
            tuple(settings.get("tab_field_list", ())),
            settings.get("text_input_ids_key", "input_ids"),
            settings.get("text_attention_mask_key", "attention_mask"),
        )

    @staticmethod
    def are_own(batch: Mapping[str, Any], inputs: Iterable[str]) -> bool:
        """Whether a batch is n3r's already: every input under its name, masks of bool."""
        return all(
            key in batch and (not key.endswith("mask") or batch[key].dtype == torch.bool) for key in inputs
        )

    def read(
        self, batch: Mapping[str, Any], inputs: Iterable[str], chunked: Container[str]
    ) -> dict[str, Tensor]:
        """A batch of n3r's `inputs` from one of the legacy or of the published models.

        `chunked`: the texts that the model reads in chunks, by the batch key of their ids.
        Texts: `<name>_input_ids` and `_attention_mask` (B, K, T), or `text_tokens` (B, T) with `attn_mask`
        or `text_lengths` (B,). Columns: `tabular` (B, F), or B values under each column's name. Raises
        ValueError naming what is absent, and for several chunks where the model reads one.
        """
        inputs, out = list(inputs), {}
        for name, (ids, mask) in zip(self.texts, TEXT_KEYS.items(), strict=False):
            if ids in inputs:
                out[ids], out[mask] = self._text(batch, name, ids, mask, ids in chunked)
        if "tabular" in inputs:
            out["tabular"] = self._columns(batch)
        return out

    def _text(self, batch: Mapping[str, Any], name: str, own: str, own_mask: str, chunked: bool) -> tuple:
        ids = _first(batch, own, f"{name}_{self.ids}", f"{own}_tokens")
        known = [key for key in (own_mask, f"{name}_{self.mask}") if key in batch]
        mask = (
            batch[known[0]] > 0 if known else _inside(ids, _first(batch, f"{own}_length", f"{own}_lengths"))
        )
        if chunked or ids.ndim == 2:
            return ids, mask
        if ids.shape[1] != 1:
            raise ValueError(f"{name} comes in {ids.shape[1]} chunks, and this model reads texts of one")
        return ids[:, 0], mask[:, 0]

    def _columns(self, batch: Mapping[str, Any]) -> Tensor:
        if "tabular" in batch:
            return batch["tabular"]
        if absent := [name for name in self.columns if name not in batch]:
            raise ValueError(f"the batch lacks the columns {', '.join(absent)}")
        if not self.columns:
            raise ValueError("the batch has no 'tabular', and the model was given no tab_field_list")
        columns = [torch.as_tensor(batch[name], dtype=torch.float32).flatten() for name in self.columns]
        return torch.stack(columns, dim=1)  # (B, F)


def _first(batch: Mapping[str, Any], *keys: str) -> Tensor:
    found = [key for key in keys if key in batch]
    if not found:
        raise ValueError(f"the batch has none of {', '.join(keys)}; it has {', '.join(sorted(batch))}")
    return batch[found[0]]


def _inside(ids: Tensor, lengths: Tensor) -> Tensor:
    """(B, T) and (B,) -> (B, T), True on tokens."""
    return torch.arange(ids.shape[1], device=ids.device) < lengths.flatten()[:, None]
