"""A decoder-only transformer on raw tensors, with hand-written backward passes and updates.

`CustomTransformer` is the machine: forward, backward, update. `CustomTransformerWrapper` uses it as any
language model is used. Decisions:

- Layer norms stand before attention and feed-forward and once at the end, so that gradients of the first
  step reach every block; places are learned vectors; the output head is a matrix of its own.
- Labels are the input ids: the wrapper compares what place t predicts with the label at t + 1. A row that is
  padded at its end needs no mask, since nothing looks ahead; its labels there are IGNORED.
- Parameters of lower precision than float32 have a float32 copy that is updated: bfloat16 rounds away a
  change of less than one part in 256.
- A checkpoint is a folder: config.json, model.safetensors, optimizer.safetensors.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

import polars as pl
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from n3r.custom_transformer.layers import (
    IGNORED,
    Block,
    Embedding,
    Gradients,
    Layer,
    LayerNorm,
    Linear,
    Start,
    cross_entropy,
    cross_entropy_backward,
)
from n3r.files.atomic import atomic_folder
from n3r.files.json_io import explain, read_json, write_json

DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16}
MODEL, OPTIMIZER, CONFIG = "model.safetensors", "optimizer.safetensors", "config.json"


class CustomTransformerConfig(BaseModel):
    """Dimensions, number type, place and update rule; the dimensions' defaults are the published ones."""

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
    def least_bytes(self) -> int:
        """What the parameters take at least."""
        d, blocks = self.d_model, self.n_blocks * (4 * self.d_model + 2 * self.d_ffn)
        return DTYPES[self.dtype].itemsize * d * (self.vocab_size + self.max_seq_len + blocks)

    def differences(self, other: "CustomTransformerConfig") -> str:
        """What the other has and this one, of all that differs but the device; empty where nothing does."""
        own, theirs = (config.model_dump(exclude={"device"}) for config in (self, other))
        return "; ".join(
            f"{key} {theirs[key]!r}, here {own[key]!r}" for key in own if own[key] != theirs[key]
        )

    @property
    def torch_device(self) -> torch.device:
        """Where the tensors lie; ValueError where there is no such device."""
        name = self.device
        if name == "auto":
            name = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            return torch.empty(0, device=name).device
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"device {name!r} cannot be used: {reason}") from None


class CustomTransformer(Layer):
    """ids (B, T) -> logits (B, T, V), and the way back.

    `backward` follows a `forward`, whose caches it uses up, and `update_parameters` a `backward`.
    """

    def __init__(self, config: CustomTransformerConfig, seed: int = 0):
        self.config = config
        start = Start(torch.Generator().manual_seed(seed), config.torch_device, DTYPES[config.dtype])
        n, n_blocks = config.d_model, config.n_blocks
        self.embedding = Embedding(start, config.vocab_size, config.max_seq_len, n)
        self.blocks = [Block(start, n, config.n_heads, config.d_ffn, n_blocks) for _ in range(n_blocks)]
        self.norm = LayerNorm(start, n)
        self.head = Linear(start, n, config.vocab_size)
        self.optimizer = OPTIMIZERS[config.optimizer](self.parameters)
        self.caches: list[Any] = []
        self.gradients: Gradients = {}

    @property
    def layers(self) -> dict[str, Layer]:
        """The layers in the order a token passes them, by the names their parameters begin with."""
        blocks = {f"blocks.{i}": block for i, block in enumerate(self.blocks)}
        return {"embedding": self.embedding, **blocks, "norm": self.norm, "head": self.head}

    def forward(self, ids: Tensor, keep: bool = True) -> Tensor:
        """Logits (B, T, V) of ids (B, T) int64; without `keep` nothing is kept for a way back.

        Raises ValueError for ids of another shape or type, out of range, or longer than `max_seq_len`.
        """
        x = self._checked(ids)
        self.caches = []
        for layer in self.layers.values():
            x, cache = layer.forward(x)
            if keep:
                self.caches.append(cache)
        return x

    def backward(self, loss_gradient: Tensor) -> Gradients:
        """Gradients of all parameters, from that of the loss with respect to the logits (B, T, V).

        They stay in `gradients`, and the caches are gone. Raises ValueError without a `forward` before.
        """
        if not self.caches:
            raise ValueError("nothing to go back through: call forward first, once for each backward")
        d_x, self.gradients = loss_gradient, {}
        for name, layer in reversed(self.layers.items()):
            d_x, found = layer.backward(d_x, self.caches.pop())
            self.gradients |= {f"{name}.{key}": gradient for key, gradient in found.items()}
        return self.gradients

    def update_parameters(self, learning_rate: float) -> None:
        """One step of the config's optimiser along `gradients`, which are then gone."""
        if not self.gradients:
            raise ValueError("no gradients to follow: call backward first, once for each update")
        self.optimizer.step(self.gradients, learning_rate)
        self.gradients = {}

    def attention_weights(self, ids: Tensor) -> Tensor:
        """How much each place reads of each earlier one: (n_blocks, B, H, T, T), rows sum to 1."""
        self.forward(ids)
        blocks = zip(self.blocks, self.caches[1:-2], strict=True)
        weights = torch.stack([block.attention.weights(cache[1]) for block, cache in blocks])
        self.caches = []
        return weights

    def _checked(self, ids: Tensor) -> Tensor:
        config = self.config
        if ids.ndim != 2 or ids.is_floating_point() or not ids.numel():
            raise ValueError(f"ids must be integers (B, T), B and T at least 1, not {describe(ids)}")
        if ids.shape[1] > config.max_seq_len:
            raise ValueError(f"sequences of {ids.shape[1]} tokens; max_seq_len is {config.max_seq_len}")
        require_known(ids, config.vocab_size, "ids")
        return ids.to(config.torch_device)


class Optimizer(ABC):
    """Parameters that are moved in place, and what is remembered of each.

    `state` holds tensors by name, `n_steps` how many steps they saw.
    """

    remembered: tuple[str, ...] = ()

    def __init__(self, parameters: Mapping[str, Tensor]):
        self.parameters = dict(parameters)
        self.n_steps = 0
        self.state: dict[str, Tensor] = {}
        for name, parameter in self.parameters.items():
            exact = parameter.to(torch.promote_types(parameter.dtype, torch.float32))
            self.state |= {f"{name}.{what}": torch.zeros_like(exact) for what in self.remembered}
            if exact is not parameter:
                self.state[f"{name}.exact"] = exact

    def step(self, gradients: Gradients, learning_rate: float) -> None:
        """Move every parameter once."""
        self.n_steps += 1
        for name, parameter in self.parameters.items():
            exact = self.state.get(f"{name}.exact", parameter)
            self.move(name, exact, gradients[name].to(exact.dtype), learning_rate)
            if exact is not parameter:
                parameter.copy_(exact)

    @abstractmethod
    def move(self, name: str, w: Tensor, d_w: Tensor, learning_rate: float) -> None:
        """Move the parameter `w` of this name, in place, by its gradient `d_w`."""


class SGD(Optimizer):
    """w <- w - rate d_w."""

    def move(self, name: str, w: Tensor, d_w: Tensor, learning_rate: float) -> None:
        w.sub_(d_w, alpha=learning_rate)


class Adam(Optimizer):
    """w <- w - rate m' / (sqrt(v') + epsilon), m and v running means of d_w and of its square.

    m <- b1 m + (1 - b1) d_w, v <- b2 v + (1 - b2) d_w^2. They start at 0 and are too small by 1 - b^t after t
    steps: m' = m / (1 - b1^t), v' = v / (1 - b2^t). Kingma and Ba, "Adam", 2015.
    """

    B1, B2, EPSILON = 0.9, 0.999, 1e-8
    remembered = ("mean", "square")

    def move(self, name: str, w: Tensor, d_w: Tensor, learning_rate: float) -> None:
        m = self.state[f"{name}.mean"].lerp_(d_w, 1 - self.B1)
        v = self.state[f"{name}.square"].mul_(self.B2).addcmul_(d_w, d_w, value=1 - self.B2)
        root = (v / (1 - self.B2**self.n_steps)).sqrt_().add_(self.EPSILON)
        w.addcdiv_(m, root, value=-learning_rate / (1 - self.B1**self.n_steps))


OPTIMIZERS: dict[str, type[Optimizer]] = {"adam": Adam, "sgd": SGD}


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
        """-log p, in nats, of the label after each place given all up to it, (B, T); float32 at least.

        0 at the last place and where that label is IGNORED. Raises ValueError as `forward` does.
        """
        targets = self._targets(input_ids, labels)
        logits = self.model.forward(input_ids, keep=False)
        return cross_entropy(logits, targets, reduce=False)[0]

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

        Each token is drawn from softmax(logits / temperature), of the `top_k` likeliest only where given; at
        temperature 0 it is the likeliest. A row that drew `eos_token_id` is filled with it; when all have,
        generation ends. The same `seed` gives the same tokens. Raises ValueError on a `max_length` beyond
        `max_seq_len` or not beyond the prompt, a negative temperature or a `top_k` below 1.
        """
        self._check_sampling(input_ids, max_length, temperature, top_k)
        generator = torch.Generator()
        generator.seed() if seed is None else generator.manual_seed(seed)
        ids = input_ids.to(self.config.torch_device, torch.int64)
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
        return sum(parameter.numel() for parameter in self.model.parameters.values())

    def get_model_info(self) -> dict[str, Any]:
        """What it is and how large: config, parameters in all and by layer, bytes, steps trained."""
        by_layer = {
            name: sum(parameter.numel() for parameter in layer.parameters.values())
            for name, layer in self.model.layers.items()
        }
        parameters = self.model.parameters.values()
        return {
            "model": "CustomTransformer",
            **self.config.model_dump(),
            "device": str(self.config.torch_device),
            "n_parameters": self.count_parameters(),
            "parameters_by_layer": by_layer,
            "bytes": sum(parameter.nbytes for parameter in parameters),
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
        optimizer = self.model.optimizer
        write_json(folder / CONFIG, {**self.config.model_dump(), "n_steps": optimizer.n_steps})
        save_file({name: t.contiguous() for name, t in self.model.parameters.items()}, folder / MODEL)
        save_file(optimizer.state, folder / OPTIMIZER)
        for name in (MODEL, OPTIMIZER):  # safetensors lets its owner alone read them
            (folder / name).chmod((folder / CONFIG).stat().st_mode)

    def load_checkpoint(self, folder: Path) -> None:
        """Take parameters and optimiser state from a checkpoint of the same config.

        The device may be another. Raises FileNotFoundError where files are missing and ValueError where they
        are damaged or of another config, naming what differs.
        """
        config, n_steps = read_config(folder)
        if differ := self.config.differences(config):
            raise ValueError(f"the checkpoint {folder} is of another config: {differ}")
        optimizer = self.model.optimizer
        found = _read_tensors(Path(folder) / MODEL, self.model.parameters)
        state = _read_tensors(Path(folder) / OPTIMIZER, optimizer.state)
        for name, tensor in self.model.parameters.items():
            tensor.copy_(found[name])
        for name, tensor in optimizer.state.items():
            tensor.copy_(state[name])
        optimizer.n_steps = n_steps

    @classmethod
    def from_checkpoint(cls, folder: Path, device: str = "cpu") -> Self:
        """The model of a checkpoint, on a device; raises as `load_checkpoint` does."""
        config, _ = read_config(folder)
        weights = Path(folder) / MODEL
        if weights.is_file() and weights.stat().st_size < config.least_bytes:  # before they are allocated
            raise ValueError(f"{weights} does not hold the tensors that its config describes")
        wrapper = cls(config.model_copy(update={"device": device}))
        wrapper.load_checkpoint(folder)
        return wrapper

    def _targets(self, input_ids: Tensor, labels: Tensor) -> Tensor:
        """(B, T): at each place the label of the next one, IGNORED at the last."""
        if labels.shape != input_ids.shape or labels.is_floating_point():
            raise ValueError(
                f"labels must be integers of the ids' shape {tuple(input_ids.shape)}, not {describe(labels)}"
            )
        targets = labels.roll(-1, dims=1).to(self.config.torch_device, torch.int64)
        targets[:, -1:] = IGNORED
        known = targets[targets != IGNORED]
        if not len(known):
            raise ValueError("no label to predict: the first of a row is none, and all others are -100")
        require_known(known, self.config.vocab_size, "labels")
        return targets

    def _check_sampling(
        self, input_ids: Tensor, max_length: int, temperature: float, top_k: int | None
    ) -> None:
        if not input_ids.shape[-1] < max_length <= self.config.max_seq_len:
            raise ValueError(
                f"max_length {max_length} with a prompt of {input_ids.shape[-1]} tokens: it counts the "
                f"prompt too, and max_seq_len is {self.config.max_seq_len}"
            )
        if not temperature >= 0 or math.isinf(temperature):
            raise ValueError(f"temperature {temperature}; expected 0 or more")
        if top_k is not None and top_k < 1:
            raise ValueError(f"top_k {top_k}; expected 1 or more, or None for all tokens")


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
    written = model.backward(cross_entropy_backward(cache))
    parameters = model.parameters
    for parameter in parameters.values():
        parameter.requires_grad_()
    by_autograd = torch.autograd.grad(
        cross_entropy(model.forward(input_ids, keep=False), targets)[0], list(parameters.values())
    )
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


def read_config(folder: Path) -> tuple[CustomTransformerConfig, int]:
    """The config of a checkpoint, and the steps it was trained for."""
    path = Path(folder) / CONFIG
    if not path.is_file():
        raise FileNotFoundError(f"{folder} is no checkpoint, it has no {CONFIG}")
    content = read_json(path)
    try:
        n_steps = content.pop("n_steps")
        return CustomTransformerConfig(**content), int(n_steps)
    except ValidationError as error:
        raise ValueError(f"{path}: {explain(error, CustomTransformerConfig.model_fields)}") from None
    except (AttributeError, KeyError, TypeError, ValueError):
        raise ValueError(f"{path} is not the config of a checkpoint") from None


def describe(tensor: Tensor) -> str:
    """The type and shape of a tensor in words."""
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def require_known(ids: Tensor, vocab_size: int, what: str) -> None:
    """ValueError where ids are out of range."""
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or high >= vocab_size:
        raise ValueError(f"{what} run from {low} to {high}; the vocabulary has the ids 0 to {vocab_size - 1}")


def _read_tensors(path: Path, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a file, which must have the names and shapes that are expected."""
    if not path.is_file():
        raise FileNotFoundError(f"the checkpoint has no {path.name}: {path.parent}")
    try:
        found = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    shapes = [{name: tuple(tensor.shape) for name, tensor in part.items()} for part in (found, expected)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"{path} does not hold the tensors that its config describes")
    return found
