"""Update rules of parameters, written out."""

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor

from n3r.custom_transformer.layers import Gradients


class Optimizer(ABC):
    """Moves parameters in place; `state` holds its own tensors by name, `n_steps` counts its steps."""

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
