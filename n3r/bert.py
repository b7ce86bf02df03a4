"""Chunked BERT: an encoder of the transformers library, its pooler, and the published branch of the two.

Decisions:
- BERT itself comes from transformers and only the pooler is ours, so any encoder of that library works.
- A model is rebuilt from its architecture, which its config holds: loading a bundle needs neither the folder
  nor the network that the first weights came from.
- Weights are read from safetensors only, never from a pickle.
"""

from typing import Any

import torch
from torch import Tensor, nn

from n3r.encode import TEXT_KEYS
from n3r.files.json_io import near
from n3r.files.pretrained import architecture, found
from n3r.kernels import Dropout
from n3r.published import BatchKeys, as_settings, dimensions, renamed
from n3r.text import TextBranch

# Of transformers' configuration what names code to fetch and run: kernels, a repository's own classes.
_NAMING_CODE = ("auto_map", "attn_implementation", "experts_implementation", "quantization_config")

# What a `TextBertBase` is given, under n3r's names.
_READ = {"bert", "pretrained", "hidden_common_dim", "dropout_rate", "gradient_checkpointing"}
_READ |= {"attention_dropout", "reinit_pooler", "reinit_layers"}


class BertEncoder(nn.Module):
    """An encoder of the transformers library over the chunks of a text.

    `architecture` is that library's configuration as a dict with its `model_type`. The weights are random
    until `load_pretrained`.
    """

    def __init__(
        self,
        architecture: dict[str, Any],
        gradient_checkpointing: bool = False,
        attention_dropout: bool = False,
    ):
        super().__init__()
        from transformers import AutoConfig, AutoModel

        plain = {k: v for k, v in architecture.items() if k[0] != "_" and k not in _NAMING_CODE}
        try:
            config = AutoConfig.for_model(**plain)
        except ValueError as error:  # which goes on to list 700 names
            raise ValueError(str(error).partition(". ")[0]) from None
        # NOTE[DIFF] a new BERT has no dropout on attention weights: drawn one by one, it took 15 % of a
        # training step. A pretrained one is fine-tuned with what it was trained with.
        if not attention_dropout:
            config.attention_probs_dropout_prob = 0.0
        self.bert = AutoModel.from_config(config)
        self.bert.pooler = None  # ChunkPool holds it
        if gradient_checkpointing:
            self.bert.activation_checkpointing_enable({"use_reentrant": False})
        for parent in list(self.bert.modules()):
            for name, child in parent.named_children():
                if isinstance(child, nn.Dropout):
                    setattr(parent, name, Dropout(child.p))
        self.d_out = config.hidden_size
        self.n_places = n_places(architecture)
        self.train()

    def train(self, mode: bool = True) -> "BertEncoder":
        """Training mode or not; on a CPU torch's fused attention is the faster one in scoring alone.

        MiniLM, 80 tokens, 2 cores, rows/s: 85 to 70 in scoring (float32), 38 to 53 in training (bfloat16).
        """
        fused = not mode or torch.cuda.is_available()
        self.bert.set_attn_implementation("sdpa" if fused else "eager")
        return super().train(mode)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """(B, K, T) and (B, K, T) -> (B, K, T, D); chunks that are all padding are not computed.

        Raises ValueError for a row without any token and for chunks of more tokens than BERT has places.
        """
        if torch.compiler.is_exporting():  # a graph has no branches: it computes every chunk
            return self._run(ids.flatten(0, 1), mask.flatten(0, 1)).unflatten(0, ids.shape[:2])
        if ids.shape[2] > self.n_places:
            raise ValueError(f"chunks of {ids.shape[2]} tokens; this model reads {self.n_places}: cut them")
        real = mask.any(dim=2)  # (B, K)
        if not real.any(dim=1).all():
            raise ValueError("a row's chunks are all empty: its text was not tokenised for BERT")
        if real.all():
            return self._run(ids.flatten(0, 1), mask.flatten(0, 1)).unflatten(0, ids.shape[:2])
        tokens = self._run(ids[real], mask[real])  # (N, T, D)
        out = tokens.new_zeros(*ids.shape, self.d_out)
        out[real] = tokens
        return out

    def _run(self, ids: Tensor, mask: Tensor) -> Tensor:
        """(N, T) and (N, T) -> (N, T, D)."""
        # An empty chunk looks at its first pad, so that its softmax is not 0 / 0; the pool ignores it.
        first = torch.arange(ids.shape[1], device=ids.device) == 0
        seen = mask | (first & ~mask.any(dim=1, keepdim=True))
        return self.bert(input_ids=ids, attention_mask=seen.long()).last_hidden_state


class ChunkPool(nn.Module):
    """BERT's pooler on the first token of each chunk, the mean over a row's chunks, and a projection."""

    def __init__(self, d: int, d_out: int, dropout: float):
        super().__init__()
        self.dense = nn.Linear(d, d)
        self.drop = Dropout(dropout)
        self.proj = nn.Linear(d, d_out)
        self.d_out = d_out

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """(B, K, T, D) and (B, K, T) -> (B, d_out); chunks that are all padding do not count."""
        real = mask.any(dim=2, keepdim=True)  # (B, K, 1)
        pooled = torch.tanh(self.dense(tokens[:, :, 0])).masked_fill(~real, 0)  # (B, K, D)
        return self.proj(self.drop(pooled.sum(dim=1) / real.sum(dim=1).clamp(min=1)))


class TextBertBase(TextBranch):
    """The published chunked BERT: (B, K, T) ids and mask -> a vector of `hidden_common_dim`.

    `config` is an architecture, whose weights are random, or a published configuration, a dict or an object,
    with its `tokenizer` (or `pretrained`), whose weights are taken; keywords go over it.
    """

    def __init__(self, config: Any = None, hidden_common_dim: int | None = None, **settings: Any):
        given = {} if config is None else as_settings(config)
        self.keys = BatchKeys.of(given)
        given = {"bert": given} if "model_type" in given else dimensions(given, "bert", _READ)
        given |= renamed(settings, "bert")
        if unknown := sorted(given.keys() - _READ):
            raise ValueError(
                f"TextBertBase has no {', '.join(unknown)}{near(unknown[0], {*_READ, 'tokenizer'})}"
            )
        pretrained = given.get("pretrained")
        if not pretrained and "bert" not in given:
            raise ValueError("TextBertBase needs a model: its architecture, or `tokenizer` with its name")
        encoder = BertEncoder(
            given.get("bert") or architecture(pretrained),
            given.get("gradient_checkpointing", False),
            given.get("attention_dropout", bool(pretrained)),
        )
        width = hidden_common_dim or given.get("hidden_common_dim", 100)
        super().__init__(encoder, ChunkPool(encoder.d_out, width, given.get("dropout_rate", 0.1)))
        nn.init.normal_(self.pool.dense.weight, std=encoder.bert.config.initializer_range)
        nn.init.zeros_(self.pool.dense.bias)
        if pretrained:
            self.load_pretrained(pretrained, given.get("reinit_pooler", True), given.get("reinit_layers", 2))

    def forward(self, ids: Any, mask: Tensor | None = None) -> Any:
        """Ids and mask, (B, K, T) both, -> their `Modality`; a published batch -> its vector (B, D)."""
        if mask is not None:
            return super().forward(ids, mask)
        batch = self.keys.read(ids, ("text", TEXT_KEYS["text"]), chunked=("text",))
        return super().forward(*batch.values()).vector

    def load_pretrained(self, pretrained: str, reinit_pooler: bool = True, reinit_layers: int = 2) -> None:
        """Take the weights of a model folder or hub name, but for its last layers and its pooler.

        NOTE[DIFF] the two can be asked for one without the other; the published `reinit_layers` does nothing
        unless `reinit_pooler` is set (defect 19). Raises ValueError if `pretrained` is not such a model.
        """
        bert, layers = self.encoder.bert, _layers(self.encoder.bert)
        if reinit_layers > len(layers):
            raise ValueError(f"reinit_layers {reinit_layers}: {pretrained} has {len(layers)} layers")
        source, weights = _read(pretrained)
        fresh = tuple(f"{name}." for name in layers[len(layers) - reinit_layers :])
        wanted = {name: value for name, value in bert.state_dict().items() if not name.startswith(fresh)}
        lacking = [k for k, v in wanted.items() if k not in weights or weights[k].shape != v.shape]
        if lacking:
            raise ValueError(
                f"{pretrained} lacks {len(lacking)} weights of the architecture: {lacking[0]}, .."
            )
        bert.load_state_dict({name: weights[name] for name in wanted}, strict=False)
        if not reinit_pooler:
            if "pooler.dense.weight" not in weights:
                raise ValueError(f"{pretrained} has no pooler; set reinit_pooler")
            self.pool.dense.load_state_dict(source.pooler.dense.state_dict())


def word_embeddings(pretrained: str) -> Tensor:
    """(V, D) of a model folder or hub name; ValueError where there is none."""
    source, weights = _read(pretrained)
    own = source.get_input_embeddings().weight
    name = next(name for name, value in source.named_parameters() if value is own)
    if name not in weights:
        raise ValueError(f"{pretrained} lacks its word embeddings, {name}")
    return weights[name]


def _read(pretrained: str) -> tuple[nn.Module, dict[str, Tensor]]:
    """A pretrained model, and the weights that its files hold."""
    from transformers import AutoModel

    options = {"dtype": torch.float32, "use_safetensors": True, "output_loading_info": True}
    with found(pretrained) as path:
        source, report = AutoModel.from_pretrained(path, **options)
    # What the files lack, transformers has drawn at random with no more than a warning.
    drawn = report["missing_keys"]
    return source, {name: value for name, value in source.state_dict().items() if name not in drawn}


def n_places(architecture: dict[str, Any]) -> int:
    """The longest chunk in tokens; RoBERTa and its kin count places from behind the padding's id."""
    offset = architecture["pad_token_id"] + 1 if "roberta" in architecture["model_type"] else 0
    return architecture["max_position_embeddings"] - offset


def _layers(bert: nn.Module) -> list[str]:
    """Names of an encoder's layers, from the first to the last."""
    n_layers = bert.config.num_hidden_layers
    for name, module in bert.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == n_layers:
            return [f"{name}.{i}" for i in range(n_layers)]
    raise ValueError(f"no layers found in a {bert.config.model_type}")
