"""Figures of a language model: its training, what its heads look at, how surprised it is by whom."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from n3r.estimate import checked
from n3r.report.style import BLUE, HEIGHT, RED, canvas, class_counts, heading, legend_below

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def perplexity_curve(
    histories: Mapping[str, Sequence[Mapping[str, float]]], ax: "Axes | None" = None
) -> "Axes":
    """Perplexity on training batches (dashed) and validation texts by epoch, on a log scale.

    histories: a name for each training, and its rows of epoch, train_loss and val_loss, in nats a token.
    """
    with canvas(ax, HEIGHT * 0.95) as ax:
        for (name, rows), colour in zip(histories.items(), (BLUE, RED), strict=False):
            epochs = [row["epoch"] for row in rows]
            dashed = {"ls": "--", "mfc": "white", "ms": 3.5, "label": f"{name}, training"}
            ax.plot(epochs, np.exp([row["train_loss"] for row in rows]), color=colour, marker="o", **dashed)
            solid = {"marker": "o", "ms": 3.5, "label": f"{name}, validation"}
            ax.plot(epochs, np.exp([row["val_loss"] for row in rows]), color=colour, **solid)
        ax.set_yscale("log")
        ax.yaxis.get_major_locator().set_params(subs=(1, 2, 5))
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_formatter("")
        ax.set(xlabel="epoch", ylabel="perplexity a token")
        legend_below(ax)
        heading(ax, "Training")
    return ax


def attention_map(weights: ArrayLike, tokens: Sequence[str], title: str, ax: "Axes | None" = None) -> "Axes":
    """How much each token (a row) reads of itself and of those before it (columns); a row sums to 1.

    weights: (T, T) of one head. Raises ValueError where the tokens are not T.
    """
    weights = np.asarray(weights, float)
    if weights.shape != (len(tokens), len(tokens)):
        raise ValueError(f"weights of shape {weights.shape} for {len(tokens)} tokens")
    with canvas(ax, HEIGHT) as ax:
        ax.imshow(weights, cmap="Blues", vmin=0, vmax=1)
        places = range(len(tokens))
        ax.set_xticks(places, tokens)
        ax.set_yticks(places, tokens)
        ax.grid(False)
        heading(ax, title)
    return ax


def class_density(y: ArrayLike, values: ArrayLike, what: str, ax: "Axes | None" = None) -> "Axes":
    """Each class's share of rows by a value that is no probability, in 30 bins from the least to the largest.

    y: 0 and 1; values: finite numbers. Raises ValueError on others.
    """
    y, values = checked(y, values=values)
    with canvas(ax, HEIGHT * 0.9) as ax:
        bins = np.linspace(values.min(), values.max() + 1e-9, 31) if len(values) else np.linspace(0, 1, 31)
        for label, name, colour, dash in ((0, "good", BLUE, "-"), (1, "fraud", RED, "--")):
            own = values[y == label]
            share = np.histogram(own, bins)[0] / max(1, len(own))
            ax.stairs(share, bins, color=colour, ls=dash, lw=1.6, label=name)
        ax.set(xlabel=what, ylabel="share of the class")
        legend_below(ax)
        heading(ax, "By class", *class_counts([y]))
    return ax
