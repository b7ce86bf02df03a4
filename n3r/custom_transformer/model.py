"""A decoder-only transformer on plain tensors, with hand-written backward passes and updates.

`CustomTransformer` has forward, backward and update; `CustomTransformerWrapper` uses it as a language model.
Decisions:

- Layer norms stand before attention and feed-forward and once at the end, so that gradients of the first
  step reach every block; positions are learned vectors; the output head is a matrix of its own.
- Labels are the input ids: the wrapper compares the prediction at position t with the label at t + 1. A row
  that is padded at its end needs no mask, since no position reads a later one; its labels there are IGNORED.
- Parameters of lower precision than float32 have a float32 copy that is updated: bfloat16 rounds away a
  change of less than one part in 256.
- A checkpoint is a folder: config.json, model.safetensors, optimizer.safetensors.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

import polars as pl
import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from n3r.custom_transformer.layers import (
    IGNORED,
    Block,
    Embedding,
    Gradients,
    Initialiser,
    Layer,
    LayerNorm,
    Linear,
    cross_entropy,
    cross_entropy_backward,
    dotted,
)
from n3r.custom_transformer.optimizers import OPTIMIZERS
from n3r.files.atomic import atomic_folder
from n3r.files.json_io import read_model, write_json

DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16}
MODEL, OPTIMIZER, CONFIG = "model.safetensors", "optimizer.safetensors", "config.json"


class CustomTransformerConfig(BaseModel):
    """Dimensions, number type, device and optimiser; the dimensions' defaults are the published ones."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    vocab_size: int = Field(128, ge=2)
    max_seq_len: int = Field(128, ge=2)
    n_blocks: int = Field(8, ge=1)
    n_heads: int = Field(4, ge=1)
    d_model: int = Field(128, ge=1)
    d_ffn: int = Field(128, ge=1)  # of the feed-forward layers inside
    optimizer: Literal["adam", "sgd"] = "adam"
    dtype: Literal["float32", "float64", "bfloat16"] = "float32"
    device: str = "cpu"  # as torch names it; "auto": a GPU where there is one

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.d_model % self.n_heads:
            raise ValueError(f"d_model {self.d_model} is not divisible by n_heads {self.n_heads}")
        return self

    @property
    def min_bytes(self) -> int:
        """A lower bound of the parameters' size."""
        d, blocks = self.d_model, self.n_blocks * (4 * self.d_model + 2 * self.d_ffn)
        return self.get_dtype().itemsize * d * (self.vocab_size + self.max_seq_len + blocks)

    def differences(self, other: "CustomTransformerConfig") -> str:
        """Every setting but the device that differs, with both values; empty if none does."""
        own, theirs = (config.model_dump(exclude={"device"}) for config in (self, other))
        return "; ".join(
            f"{key} {theirs[key]!r}, here {own[key]!r}" for key in own if own[key] != theirs[key]
        )

    def get(self, name: str, default: Any = None) -> Any:
        """The setting of a name, or the default where there is none."""
        return getattr(self, name) if name in type(self).model_fields else default

    def get_dtype(self) -> torch.dtype:
        """The number type of the tensors."""
        return DTYPES[self.dtype]

    def get_device(self) -> torch.device:
        """The device of the tensors; ValueError if it cannot be used."""
        name = "cuda" if torch.cuda.is_available() else "cpu"
        name = name if self.device == "auto" else self.device
        try:
            return torch.empty(0, device=name).device
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"device {name!r} cannot be used: {reason}") from None


class CustomTransformer(Layer):
    """ids (B, T) -> logits (B, T, V), and the backward pass.

    `backward` follows a `forward` and uses up its caches; `update_parameters` follows a `backward`.
    """

    def __init__(self, config: CustomTransformerConfig, seed: int = 0):
        self.config = config
        init = Initialiser(torch.Generator().manual_seed(seed), config.get_device(), config.get_dtype())
        n, n_blocks = config.d_model, config.n_blocks
        self.embedding = Embedding(init, config.vocab_size, config.max_seq_len, n)
        self.blocks = [Block(init, n, config.n_heads, config.d_ffn, n_blocks) for _ in range(n_blocks)]
        self.norm = LayerNorm(init, n)
        self.head = Linear(init, n, config.vocab_size)
        self.optimizer = OPTIMIZERS[config.optimizer](self.parameters)
        self.caches: list[Any] = []
        self.gradients: Gradients = {}

    @property
    def layers(self) -> dict[str, Layer]:
        """The layers in the order a token passes them, by the names their parameters begin with."""
        blocks = {f"blocks.{i}": block for i, block in enumerate(self.blocks)}
        return {"embedding": self.embedding, **blocks, "norm": self.norm, "head": self.head}

    def forward(self, ids: Tensor, keep: bool = True) -> Tensor:
        """Logits (B, T, V) of ids (B, T) int64; with `keep`, ready for a `backward`.

        Raises ValueError for ids of another shape or type, out of range, or longer than `max_seq_len`.
        """
        x, self.caches = self._checked(ids), []
        for layer in self.layers.values():
            x, cache = layer.forward(x)
            if keep:
                self.caches.append(cache)
        return x

    def backward(self, loss_gradient: Tensor) -> Gradients:
        """Gradients of all parameters, from the gradient of the loss with respect to the logits (B, T, V).

        They stay in `gradients`. Raises ValueError without a `forward` before.
        """
        if not self.caches:
            raise ValueError("nothing to go back through: call forward first, once for each backward")
        d_x, found = loss_gradient, {}
        for name, layer in reversed(self.layers.items()):
            d_x, found[name] = layer.backward(d_x, self.caches.pop())
        self.gradients = dotted(found)
        return self.gradients

    def update_parameters(self, learning_rate: float) -> None:
        """One step of the config's optimiser along `gradients`, which are then gone."""
        if not self.gradients:
            raise ValueError("no gradients to follow: call backward first, once for each update")
        self.optimizer.step(self.gradients, learning_rate)
        self.gradients = {}

    def attention_weights(self, ids: Tensor) -> Tensor:
        """How much each position reads of each earlier one: (n_blocks, B, H, T, T), rows sum to 1."""
        self.forward(ids)
        caches, self.caches = self.caches[1:-2], []
        pairs = zip(self.blocks, caches, strict=True)
        return torch.stack([block.attention.weights(cache["attention"]) for block, cache in pairs])

    def _checked(self, ids: Tensor) -> Tensor:
        config = self.config
        if ids.ndim != 2 or ids.is_floating_point() or not ids.numel():
            raise ValueError(f"ids must be integers (B, T), B and T at least 1, not {_described(ids)}")
        if ids.shape[1] > config.max_seq_len:
            raise ValueError(f"sequences of {ids.shape[1]} tokens; max_seq_len is {config.max_seq_len}")
        _require_known(ids, config.vocab_size, "ids")
        return ids.to(config.get_device())


class CustomTransformerWrapper:
    """A `CustomTransformer` used as a language model: loss, training step, sampling, checkpoints."""

    def __init__(self, config: CustomTransformerConfig | None = None, seed: int = 0):
        self.config = config or CustomTransformerConfig()
        self.model = CustomTransformer(self.config, seed)

    def forward(self, input_ids: Tensor, labels: Tensor | None = None) -> dict[str, Tensor | None]:
        """`logits` (B, T, V), and with labels the mean `loss`, in nats, of the tokens that come next.

        Labels are the input ids themselves, with IGNORED (-100) for those that are not to be predicted.
        Raises ValueError for labels of another shape, out of range, or that leave nothing to predict.
        """
        logits = self.model.forward(input_ids, keep=False)
        if labels is None:
            return {"logits": logits, "loss": None}
        return {"logits": logits, "loss": cross_entropy(logits, self._targets(input_ids, labels))[0]}

    __call__ = forward

    def train_step(self, input_ids: Tensor, labels: Tensor, learning_rate: float) -> dict[str, float]:
        """One forward pass, backward pass and update; the `loss` is that before the update."""
        targets = self._targets(input_ids, labels)
        loss, cache = cross_entropy(self.model.forward(input_ids), targets)
        self.model.backward(cross_entropy_backward(cache))
        self.model.update_parameters(learning_rate)
        return {"loss": float(loss)}

    def token_losses(self, input_ids: Tensor, labels: Tensor) -> Tensor:
        """-log p, in nats, of each next label given all tokens before it, (B, T); float32 at least.

        0 at the last position and where that label is IGNORED. Raises ValueError as `forward` does.
        """
        targets = self._targets(input_ids, labels)
        return cross_entropy(self.model.forward(input_ids, keep=False), targets, reduce=False)[0]

    def generate(
        self,
        input_ids: Tensor,
        max_length: int,
        temperature: float = 1.0,
        top_k: int | None = None,
        eos_token_id: int | None = None,
        seed: int | None = None,
    ) -> Tensor:
        """Prompts (B, T) continued to `max_length` tokens in all, (B, at most max_length) int64.

        Each token is drawn from softmax(logits / temperature) of all or of the `top_k` likeliest; at
        temperature 0 it is the likeliest. A row that drew `eos_token_id` is filled with it; generation ends
        when all rows have. Raises ValueError on a `max_length` beyond `max_seq_len` or not beyond the
        prompt, a negative temperature or a `top_k` below 1.
        """
        if not input_ids.shape[-1] < max_length <= self.config.max_seq_len:
            raise ValueError(
                f"max_length {max_length} with a prompt of {input_ids.shape[-1]} tokens: it counts the "
                f"prompt too, and max_seq_len is {self.config.max_seq_len}"
            )
        if not 0 <= temperature < math.inf:
            raise ValueError(f"temperature {temperature}; expected 0 or more")
        if top_k is not None and top_k < 1:
            raise ValueError(f"top_k {top_k}; expected 1 or more, or None for all tokens")
        generator = torch.Generator()
        generator.seed() if seed is None else generator.manual_seed(seed)
        ids = input_ids.to(self.config.get_device(), torch.int64)
        ended = torch.zeros(len(ids), dtype=torch.bool, device=ids.device)
        while ids.shape[1] < max_length and not ended.all():
            logits = self.model.forward(ids, keep=False)[:, -1].float()
            token = _draw(logits, temperature, top_k, generator)
            if eos_token_id is not None:
                token = token.masked_fill(ended, eos_token_id)
                ended |= token == eos_token_id
            ids = torch.cat([ids, token[:, None]], dim=1)
        return ids

    def count_parameters(self) -> int:
        """Numbers that are learned."""
        return _count(self.model)

    def get_model_info(self) -> dict[str, Any]:
        """Config, device, parameters in all and by layer, bytes, steps trained."""
        return {
            "model": "CustomTransformer",
            **self.config.model_dump(),
            "device": str(self.config.get_device()),
            "n_parameters": self.count_parameters(),
            "parameters_by_layer": {name: _count(layer) for name, layer in self.model.layers.items()},
            "bytes": sum(parameter.nbytes for parameter in self.model.parameters.values()),
            "n_steps": self.model.optimizer.n_steps,
        }

    def save_checkpoint(self, folder: Path) -> None:
        """Write config, parameters and the optimiser's state; `folder` is replaced only when all is written.

        Raises ValueError when it cannot be written.
        """
        with atomic_folder(folder, "the checkpoint", CONFIG, SafetensorError) as aside:
            self.write_checkpoint(aside)

    def write_checkpoint(self, folder: Path) -> None:
        """Write the checkpoint's files into a folder that exists."""
        write_json(folder / CONFIG, {**self.config.model_dump(), "n_steps": self.model.optimizer.n_steps})
        for name, tensors in self._tensors().items():
            save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, folder / name)
            # safetensors lets its owner alone read the file
            (folder / name).chmod((folder / CONFIG).stat().st_mode)

    def load_checkpoint(self, folder: Path) -> None:
        """Take parameters and optimiser state from a checkpoint of the same config; the device may differ.

        Raises FileNotFoundError for missing files and ValueError for damaged ones or another config, naming
        what differs; then nothing is changed.
        """
        saved = _read_config(folder)
        if differ := self.config.differences(saved):
            raise ValueError(f"the checkpoint {folder} is of another config: {differ}")
        own = self._tensors()
        found = {name: _read_tensors(Path(folder) / name, tensors) for name, tensors in own.items()}
        for name, tensors in own.items():
            for key, tensor in tensors.items():
                tensor.copy_(found[name][key])
        self.model.optimizer.n_steps = saved.n_steps

    @classmethod
    def from_checkpoint(cls, folder: Path, device: str = "cpu") -> Self:
        """The model of a checkpoint, on a device; raises as `load_checkpoint` does."""
        saved, weights = _read_config(folder), Path(folder) / MODEL
        if weights.is_file() and weights.stat().st_size < saved.min_bytes:  # before they are allocated
            raise ValueError(f"{weights} does not hold the tensors that its config describes")
        config = saved.model_dump(exclude={"n_steps"}) | {"device": device}
        wrapper = cls(CustomTransformerConfig(**config))
        wrapper.load_checkpoint(folder)
        return wrapper

    def _tensors(self) -> dict[str, dict[str, Tensor]]:
        """The tensors of a checkpoint, by file and name."""
        return {MODEL: self.model.parameters, OPTIMIZER: self.model.optimizer.state}

    def _targets(self, input_ids: Tensor, labels: Tensor) -> Tensor:
        """(B, T): at each position the label of the next one, IGNORED at the last."""
        if labels.shape != input_ids.shape or labels.is_floating_point():
            shape = tuple(input_ids.shape)
            raise ValueError(f"labels must be integers of the ids' shape {shape}, not {_described(labels)}")
        targets = labels.roll(-1, dims=1).to(self.config.get_device(), torch.int64)
        targets[:, -1:] = IGNORED
        known = targets[targets != IGNORED]
        if not len(known):
            raise ValueError("no label to predict: the first of a row is none, and all others are -100")
        _require_known(known, self.config.vocab_size, "labels")
        return targets


def check_gradients(
    config: CustomTransformerConfig, input_ids: Tensor, labels: Tensor, seed: int = 0, step: float = 1e-6
) -> pl.DataFrame:
    """Each parameter's hand-written gradient beside autograd's and a finite difference, in float64.

    Columns: parameter, n, norm (of the gradient), autograd (largest absolute difference), finite difference
    (absolute difference along one random direction of length 1, central, of `step`).
    """
    exact = CustomTransformerWrapper(config.model_copy(update={"dtype": "float64", "device": "cpu"}), seed)
    model, targets = exact.model, exact._targets(input_ids, labels)
    _, cache = cross_entropy(model.forward(input_ids), targets)
    written, parameters = model.backward(cross_entropy_backward(cache)), model.parameters
    for parameter in parameters.values():
        parameter.requires_grad_()
    loss, _ = cross_entropy(model.forward(input_ids, keep=False), targets)
    by_autograd = torch.autograd.grad(loss, list(parameters.values()))
    for parameter in parameters.values():
        parameter.requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for (name, parameter), expected in zip(parameters.items(), by_autograd, strict=True):
        way = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        way /= way.norm()
        losses = []
        for signed in (step, -step):
            parameter.add_(way, alpha=signed)
            losses.append(float(exact.forward(input_ids, labels)["loss"]))
            parameter.sub_(way, alpha=signed)
        slope = (losses[0] - losses[1]) / (2 * step)
        rows.append(
            {
                "parameter": name,
                "n": parameter.numel(),
                "norm": float(written[name].norm()),
                "autograd": float((written[name] - expected).abs().max()),
                "finite difference": abs(float((written[name] * way).sum()) - slope),
            }
        )
    return pl.DataFrame(rows)


class _Saved(CustomTransformerConfig):
    """The config file of a checkpoint."""

    n_steps: int = Field(ge=0)  # trained


def _read_config(folder: Path) -> _Saved:
    path = Path(folder) / CONFIG
    if not path.is_file():
        raise FileNotFoundError(f"{folder} is not a checkpoint, it has no {CONFIG}")
    return read_model(path, _Saved)


def _read_tensors(path: Path, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a file, which must have the names and shapes that are expected."""
    if not path.is_file():
        raise FileNotFoundError(f"the checkpoint has no {path.name}: {path.parent}")
    try:
        found = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    shapes = [{name: tensor.shape for name, tensor in part.items()} for part in (found, expected)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"{path} does not hold the tensors that its config describes")
    return found


def _draw(logits: Tensor, temperature: float, top_k: int | None, generator: torch.Generator) -> Tensor:
    """A token a row, (B,), of logits (B, V)."""
    if temperature == 0:
        return logits.argmax(-1)
    if top_k is not None and top_k < logits.shape[-1]:
        least = logits.topk(top_k).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    # The largest first: a difference of 0 at least, so that no temperature however small overflows.
    p = ((logits - logits.amax(-1, keepdim=True)) / temperature).softmax(-1)
    return torch.multinomial(p.cpu(), 1, generator=generator)[:, 0].to(logits.device)


def _count(layer: Layer) -> int:
    return sum(parameter.numel() for parameter in layer.parameters.values())


def _described(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def _require_known(ids: Tensor, vocab_size: int, what: str) -> None:
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or high >= vocab_size:
        raise ValueError(f"{what} run from {low} to {high}; the vocabulary has the ids 0 to {vocab_size - 1}")
