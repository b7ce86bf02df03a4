"""Figures of a data set, a training and its ranking, in the house style of style.py.

Every function takes its data and an optional Axes, draws on it and returns it; without one it makes
a Figure of its own.

Decisions:
- n and base rate are printed on every plot of scores, an interval beside every AUC.
- What the rows cannot show is said in words ("not enough data"), never drawn as zero.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from numpy.typing import ArrayLike

from n3r import metrics
from n3r.estimate import NOT_ENOUGH, bounded, checked
from n3r.report import style
from n3r.report.style import BLUE, GREY, HEIGHT, MAX_ROWS, RED, REFERENCE, SKY, canvas, rows_height

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Curves = Mapping[str, tuple[ArrayLike, ArrayLike]]
CAPTIONS = {
    "roc": "ROC: frauds caught for legitimate orders flagged",
    "precision_recall": "Precision and recall: how many of the flagged are fraud",
}
INTERVAL = "AUC, 95 % interval"
AUC_ASIDE = [("AUC", 34, style.cell("auroc", ".3f"))]
UNIT = {"xlim": (-0.01, 1.01), "ylim": (-0.01, 1.01)}
SCORE_BINS = np.linspace(0, 1, 26)
SCORE_AXES = {"xlim": (0, 1), "yscale": "log"}
FIGURES = {
    "val_auroc": "AUROC",
    "val_average_precision": "AP",
    "val_f1": "F1",
    "val_precision": "precision",
    "val_recall": "recall",
    "val_accuracy": "accuracy",
}
MAX_INPUTS = 15  # of a score that is explained
MAX_DRIVERS = 8


def ranking(curves: Curves) -> dict[str, "Axes"]:
    """What CAPTIONS names, of systems of any name; of none it is empty."""
    named = {style.drawable(name): pair for name, pair in curves.items()}
    return {"roc": roc(named), "precision_recall": precision_recall(named)} if named else {}


def roc(curves: Curves, ax: "Axes | None" = None) -> "Axes":
    """ROC curves of `{name: (labels, scores)}`; the legend gives AUC and its 95 % interval."""
    points = {f"{name}  {metrics.auc_ci(y, p)}": metrics.roc_points(y, p) for name, (y, p) in curves.items()}
    counts, labels = (
        style.class_counts(y for y, _ in curves.values()),
        {"xlabel": "false-positive rate", **UNIT},
    )
    with canvas(ax, "ROC", counts, _with_legend(points), ylabel="recall", **labels) as ax:
        ax.plot([0, 1], [0, 1], **REFERENCE)
        drawn = [style.draw_curve(ax, i, curve, name) for i, (name, curve) in enumerate(points.items())]
        style.legend_below(ax, handles=drawn, title="AUC [95 % interval]")
    return ax


def _with_legend(labels: Iterable[str]) -> float:
    """The height of a figure whose legend has a title and these words."""
    return HEIGHT + style.legend_height(list(labels), title=True)


def precision_recall(curves: Curves, ax: "Axes | None" = None) -> "Axes":
    """Precision over recall of `{name: (labels, probabilities)}`; the legend gives AP.

    A dotted line at the base rate is what random scores reach.
    """
    found = {name: metrics.evaluate(y, p)["average_precision"] for name, (y, p) in curves.items()}
    named = {name: f"{name}  {NOT_ENOUGH if ap is None else f'{ap:.3f}'}" for name, ap in found.items()}
    counts, labels = style.class_counts(y for y, _ in curves.values()), {"xlabel": "recall", **UNIT}
    height = _with_legend(named.values())
    with canvas(ax, "Precision and recall", counts, height, ylabel="precision", **labels) as ax:
        for rate in [n_positive / n for n, n_positive in counts if n]:
            style.draw_level(ax, rate, f"base rate {rate:.1%}", x=0.09)
        drawn = [
            style.draw_curve(ax, i, metrics.pr_points(y, p), named[name])
            for i, (name, (y, p)) in enumerate(curves.items())
        ]
        style.legend_below(ax, handles=drawn, title="average precision")
    return ax


def segment_auc(table: pl.DataFrame, ax: "Axes | None" = None) -> "Axes":
    """Forest plot of `metrics.by_segment`: AUC and its 95 % interval, largest segment on top."""
    asides = [
        *AUC_ASIDE,
        ("n", 72, style.cell("n", ",")),
        ("fraud", 112, lambda row: f"{row['n_positive'] / row['n']:.1%}"),
    ]
    return style.forest(table, "group", "auroc", ("AUC by segment", INTERVAL), asides, ax, line=0.5)


def model_auc(table: pl.DataFrame, ax: "Axes | None" = None) -> "Axes":
    """Forest plot of models scored on the same rows: AUC and its 95 % interval, in the table's order.

    Columns: model, auroc with _low and _high and, the same in each row, n and n_positive.
    """
    options = {"line": 0.5, "counts": style.largest}
    return style.forest(table, "model", "auroc", ("AUC by model", INTERVAL), AUC_ASIDE, ax, **options)


def score_distribution(y: ArrayLike, p: ArrayLike, ax: "Axes | None" = None) -> "Axes":
    """Each class's share of rows by score, in 25 bins of [0, 1] and on a log scale.

    On a linear scale the rare high scores of a 2 % class, the ones acted on, are invisible.
    """
    y, p = checked(y, probability=True, p=p)
    sides = {f"{name} (n = {side.sum():,})": p[side] for name, side in (("legitimate", ~y), ("fraud", y))}
    labels = {"xlabel": "score", "ylabel": "share of the class", **SCORE_AXES}
    with canvas(
        ax, "Scores of legitimate orders and of fraud", style.class_counts([y]), HEIGHT * 0.85, **labels
    ) as ax:
        style.draw_shares(ax, SCORE_BINS, sides)
        style.legend_below(ax)
    return ax


def contributions(table: pl.DataFrame, ax: "Axes | None" = None) -> "Axes":
    """Bars of `Scorer.explain_one`: what each input adds to a score or takes from it, largest on top.

    At most 15 inputs; those that are missing already add nothing and are left out.
    """
    style.require_columns(table, "input", "is_missing", "contribution")
    known = table.filter(~pl.col("is_missing"))
    shown = known.head(MAX_INPUTS)
    labels = {"height": rows_height(len(shown)), "xlabel": "score less the score without the input"}
    labels |= {"shown": style.partly(len(shown), len(known), "{} of {} inputs")}
    with canvas(ax, "Why this score", **labels) as ax:
        colours = [RED if value > 0 else BLUE for value in shown["contribution"]]
        style.draw_bars(ax, shown["input"].to_list(), shown["contribution"], color=colours)
    return ax


def drivers(table: pl.DataFrame, counts: tuple[int, int], ax: "Axes | None" = None) -> "Axes":
    """Forest plot of what an AUROC loses without a column or a feature, the 8 of the largest losses.

    Columns: name, lost with its bounds; `counts` are rows and frauds of the sample. A diamond: the interval
    leaves zero out.
    """
    style.require_columns(table, "name", *bounded("lost"))
    rows = table.head(MAX_DRIVERS).to_dicts()
    shown = style.partly(len(rows), len(table))
    labels = {"xlabel": "AUROC lost, 95 % interval; diamond: more than chance", "yticks": []}
    with canvas(
        ax, "What drives the score", [counts], style.named_height(len(rows)), 13, shown, **labels
    ) as ax:
        ax.axvline(0, **REFERENCE)
        ax.set_ylim(max(len(rows), 1) - 0.3, -0.9)
        for at, row in enumerate(rows):
            some = row["lost_low"] is not None and row["lost_low"] > 0
            lost = (row[column] for column in bounded("lost"))
            style.draw_interval(ax, at, *lost, *((RED, "D") if some else (GREY, "o")))
            style.name_above(ax, at, row["name"])
        style.draw_asides(ax, rows, [("lost", 34, style.cell("lost", ".3f"))])
        ax.xaxis.get_major_locator().set_params(nbins=5)
    return ax


def split_counts(table: pl.DataFrame, ax: "Axes | None" = None) -> "Axes":
    """Stacked bars of rows by split and label, 0 or any other, from a table with columns split, label, n.

    Rows of the same split and label (say, one a segment) are added up.
    """
    style.require_columns(table, "split", "label", "n")
    known = {"train": 0, "val": 1, "test": 2}
    splits = sorted(table["split"].unique(maintain_order=True), key=lambda split: known.get(split, 3))
    totals = table.group_by("split", pl.col("label") > 0).agg(pl.col("n").sum())
    sums = {(split, other): n for split, other, n in totals.iter_rows()}
    good, fraud = ([sums.get((split, other), 0) for split in splits] for other in (False, True))
    others = "fraud" if (table["label"].max() or 0) < 2 else "other classes"
    with canvas(ax, "Rows by split", height=HEIGHT * 0.65, xlabel="rows") as ax:
        ax.barh(splits, good, color=SKY, ec="white", label="legitimate")
        ax.barh(splits, fraud, left=good, color=RED, hatch="////", ec="white", label=others)
        for at, counts in enumerate(zip(good, fraud, strict=True)):
            place = ((1, at), (6, 0), ax.get_yaxis_transform(), "offset points")
            ax.annotate(style.sized(sum(counts), counts[1]), *place, va="center")
        ax.invert_yaxis()
        ax.grid(axis="y", visible=False)
        ax.xaxis.set_major_formatter(lambda v, _: f"{v:,.0f}")
        ax.xaxis.get_major_locator().set_params(nbins=4)
        style.legend_below(ax)
    return ax


def risk_table(name: str, table: Mapping[str, object], ax: "Axes | None" = None) -> "Axes":
    """The risk of each category of a column as bars from the risk of unseen ones, highest on top."""
    base = table["default_bin"]
    bins = sorted(table["bins"].items(), key=lambda item: (-item[1], item[0]))
    shown = bins if len(bins) <= MAX_ROWS else [*bins[: MAX_ROWS // 2], *bins[-(MAX_ROWS // 2) :]]
    labels = {"xlabel": f"risk; the line is that of unseen categories, {base:.3f}"}
    labels |= {"shown": style.partly(len(shown), len(bins), "{} of {} categories")}
    with canvas(ax, name, height=rows_height(len(shown)), **labels) as ax:
        style.draw_bars(ax, [label for label, _ in shown], [risk for _, risk in shown], base)
    return ax


def histogram(values: ArrayLike, what: str, of: str, ax: "Axes | None" = None) -> "Axes":
    """How many `of` have each number of `what`; wide ranges in at most 40 bars."""
    values = np.asarray(values)
    low, high = (int(values.min()), int(values.max())) if values.size else (0, 0)
    step = -(-(high - low + 1) // 40)
    with canvas(ax, xlabel=what, ylabel=of) as ax:
        ax.hist(values, np.arange(low, high + 2 * step, step) - 0.5, rwidth=0.85, color=BLUE)
        ax.grid(axis="x", visible=False)
    return ax


def compression_curve(
    sizes: Sequence[int],
    compression: Sequence[float],
    chosen: int,
    target: float,
    ax: "Axes | None" = None,
) -> "Axes":
    """Characters per token over vocabulary size, with the target and the size that was chosen."""
    if len(sizes) != len(compression):
        raise ValueError(f"sizes has {len(sizes)} values, compression has {len(compression)}")
    points = sorted(zip(sizes, compression, strict=True))
    labels = {"xlabel": "vocabulary size", "ylabel": "characters per token"}
    with canvas(ax, "Compression", height=HEIGHT * 0.85, **labels) as ax:
        style.draw_level(ax, target, f"target {target:g}")
        style.draw_curve(ax, 0, tuple(np.reshape(points, (-1, 2)).T), "", marker="o", ms=3.5)
        for at in [point for point in points if point[0] == chosen][:1]:
            ax.plot(*at, color=RED, marker="D", ms=7, ls="none")
            text = f"chosen {chosen:,}: {at[1]:.2f}"
            ax.annotate(text, at, (4, -12), textcoords="offset points", color=RED)
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter(lambda v, _: f"{v:,.0f}")
        ax.xaxis.set_minor_formatter("")
    return ax


def training_curve(history: Sequence[Mapping[str, float | None]], ax: "Axes | None" = None) -> "Axes":
    """Losses (left) and validation AUC (right, on a twin axis) by epoch; the best AUC is marked.

    Keys: epoch, train_loss, val_loss, val_auroc; a missing or None value leaves a gap.
    """
    epochs = [row["epoch"] for row in history]
    train, val, auroc = (
        np.array([row.get(key) for row in history], float) for key in ("train_loss", "val_loss", "val_auroc")
    )
    with canvas(ax, "Training", height=HEIGHT * 0.95, xlabel="epoch", ylabel="loss") as ax:
        right = style.twin(ax)
        right.set_ylabel("AUC", color=RED)
        lines = [
            *ax.plot(epochs, train, color=BLUE, marker="o", ls="--", mfc="white", label="train loss"),
            *ax.plot(epochs, val, color=BLUE, marker="o", label="val loss"),
            *right.plot(epochs, auroc, color=RED, marker="D", label="val AUC (right)"),
        ]
        if np.isfinite(auroc).any():
            best = int(np.nanargmax(auroc))
            at = (epochs[best], auroc[best])
            right.plot(*at, color=RED, marker="D", ms=9, mfc="none", ls="none")
            right.annotate(f"{at[1]:.3f}", at, (0, 7), textcoords="offset points", color=RED, ha="center")
            right.margins(y=0.15)
        ax.xaxis.get_major_locator().set_params(integer=True)
        style.legend_below(ax, handles=lines)
    return ax


def validation_curve(history: Sequence[Mapping[str, float | None]], ax: "Axes | None" = None) -> "Axes":
    """Each figure of the validation rows but the loss, by epoch. Keys: epoch and, or gaps, FIGURES'."""
    epochs = [row["epoch"] for row in history]
    labels = {"xlabel": "epoch", "ylabel": "of validation rows", "ylim": (-0.02, 1.02)}
    with canvas(ax, "Validation", height=HEIGHT * 0.95, **labels) as ax:
        for i, (key, name) in enumerate(FIGURES.items()):
            values = np.array([row.get(key) for row in history], float)
            ax.plot(epochs, values, label=name, **style.look(i))
        ax.xaxis.get_major_locator().set_params(integer=True)
        style.legend_below(ax)
    return ax


def perplexity_curve(
    histories: Mapping[str, Sequence[Mapping[str, float]]], ax: "Axes | None" = None
) -> "Axes":
    """Perplexity on training batches (dashed) and validation texts by epoch, on a log scale.

    histories: a name for each training, and its rows of epoch, train_loss and val_loss, in nats a token.
    """
    labels = {"xlabel": "epoch", "ylabel": "perplexity a token"}
    with canvas(ax, "Training", height=HEIGHT * 0.95, **labels) as ax:
        for (name, rows), colour in zip(histories.items(), (BLUE, RED), strict=False):
            epochs, marks = [row["epoch"] for row in rows], {"color": colour, "marker": "o", "ms": 3.5}
            train, val = (np.exp([row[key] for row in rows]) for key in ("train_loss", "val_loss"))
            ax.plot(epochs, train, ls="--", mfc="white", label=f"{name}, training", **marks)
            ax.plot(epochs, val, label=f"{name}, validation", **marks)
        ax.set_yscale("log")
        ax.yaxis.get_major_locator().set_params(subs=(1, 2, 5))
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_formatter("")
        style.legend_below(ax)
    return ax


def attention_map(weights: ArrayLike, tokens: Sequence[str], title: str, ax: "Axes | None" = None) -> "Axes":
    """How much each token (a row) reads of itself and of those before it (columns); a row sums to 1.

    weights: (T, T) of one head. Raises ValueError where the tokens are not T.
    """
    weights = np.asarray(weights, float)
    if weights.shape != (len(tokens), len(tokens)):
        raise ValueError(f"weights of shape {weights.shape} for {len(tokens)} tokens")
    with canvas(ax, title) as ax:
        ax.imshow(weights, cmap="Blues", vmin=0, vmax=1)
        ax.set_xticks(range(len(tokens)), tokens)
        ax.set_yticks(range(len(tokens)), tokens)
        ax.grid(False)
    return ax


def class_density(y: ArrayLike, values: ArrayLike, what: str, ax: "Axes | None" = None) -> "Axes":
    """Each class's share of rows by a value that need not be a probability, in 30 bins of equal width.

    y: 0 and 1; values: finite numbers. Raises ValueError on others.
    """
    y, values = checked(y, values=values)
    low, high = (values.min(), values.max() + 1e-9) if len(values) else (0, 1)
    labels = {"xlabel": what, "ylabel": "share of the class"}
    with canvas(ax, "By class", style.class_counts([y]), HEIGHT * 0.9, **labels) as ax:
        style.draw_shares(ax, np.linspace(low, high, 31), {"legitimate": values[~y], "fraud": values[y]})
        style.legend_below(ax)
    return ax
