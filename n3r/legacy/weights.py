"""The legacy's weights under n3r's names: what a state_dict of the one is called in the other."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from n3r.legacy.models import (
    LegacyLSTM2Risk,
    LegacyLSTMConfig,
    LegacyModel,
    LegacyTransformer2Risk,
    LegacyTransformerConfig,
)

RENAMES = [  # tried in this order on every key
    (r"^text_projection\.token_embedding_table", "texts.0.encoder.embedding"),
    (r"^text_projection\.position_embedding_table", "texts.0.encoder.position"),
    (r"^text_projection\.(lstm_pooling|attention_pooling)", "texts.0.pool"),
    (r"^text_projection\.(lstm_)?(norm|proj)", r"texts.0.pool.\2"),
    (r"^text_projection", "texts.0.encoder"),
    (r"^tab_projection", "tabular.net"),
    (r"^net(\.\d+)\.net", r"head.net\1.ffn"),
    (r"^net", "head.net"),
    (r"\.ln(\d)", r".norm\1"),
    (r"\.sa\.proj", ".proj"),
    (r"\.ffwd\.net", ".ffn"),
    (r"\.ffwd\.0", ".norm"),
    (r"\.ffwd\.1", ".ffn.0"),
    (r"\.ffwd\.3", ".ffn.2"),
]


def to_n3r(state_dict: Mapping[str, Tensor], model_class: str) -> dict[str, Tensor]:
    """A legacy state_dict ("lstm2risk" or "transformer2risk") under n3r's names.

    The heads of a block become one `qkv` (all queries, all keys, all values), `tab_layer` goes, and
    the sigmoid's logit z becomes two, (0, z), with softmax(0, z)[1] = sigmoid(z). ValueError names
    keys that are missing or unknown.
    """
    like = _same_depth(state_dict, model_class)
    keys = like.state_dict().keys()
    missing = [key for key in keys if key not in state_dict]
    unknown = [key for key in state_dict if key not in keys]
    if missing or unknown:
        raise ValueError(f"not a legacy {model_class}: keys missing {missing}, unknown {unknown}")
    mapped = {}
    for key, value in state_dict.items():
        if ".heads." not in key and ".tab_layer." not in key:
            for pattern, name in RENAMES:
                key = re.sub(pattern, name, key)
            mapped[key] = value
    for b in range(getattr(like.config, "n_blocks", 0)):
        heads = f"text_projection.blocks.{b}.sa.heads"
        qkv = [state_dict[f"{heads}.{h}.qkv.weight"].chunk(3) for h in range(like.config.n_heads)]
        rows = [head[part] for part in range(3) for head in qkv]
        mapped[f"texts.0.encoder.blocks.{b}.qkv.weight"] = torch.cat(rows)  # (3 * D, D)
    for key in ("head.net.12.weight", "head.net.12.bias"):
        mapped[key] = torch.cat([torch.zeros_like(mapped[key]), mapped[key]])
    return mapped


def _same_depth(state_dict: Mapping[str, Tensor], model_class: str) -> LegacyModel:
    """A model without memory that has as many layers, blocks and heads as `state_dict` names."""

    def count(numbered: str) -> int:
        found = [int(number) for key in state_dict for number in re.findall(numbered, key)]
        return 1 + max(found, default=0)

    with torch.device("meta"):
        if model_class == "lstm2risk":
            return LegacyLSTM2Risk(LegacyLSTMConfig(n_lstm_layers=count(r"weight_ih_l(\d+)")))
        if model_class == "transformer2risk":
            depth = {"n_blocks": count(r"\.blocks\.(\d+)"), "n_heads": count(r"\.heads\.(\d+)")}
            return LegacyTransformer2Risk(LegacyTransformerConfig(**depth))
    raise ValueError(f"model_class {model_class!r}: expected lstm2risk or transformer2risk")
