"""Figures of a data set, a training and its ranking, in the house style of canvas.py.

Every function takes its data and an optional Axes, draws on it and returns it; without one it makes
a Figure of its own.

Decisions:
- n and base rate are printed on every plot of scores, an interval beside every AUC.
- What the rows cannot show is said in words ("not enough data"), never drawn as zero.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from numpy.typing import ArrayLike

from n3r import metrics
from n3r.report.style import (
    BAND,
    BLUE,
    GREY,
    HEIGHT,
    MAX_ROWS,
    RED,
    SKY,
    VERDICTS,
    canvas,
    class_counts,
    draw_column,
    draw_curve,
    draw_interval,
    drawable,
    dress,
    forest_height,
    forest_rows,
    heading,
    legend_below,
    require_columns,
    sized,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Curves = Mapping[str, tuple[ArrayLike, ArrayLike]]
CAPTIONS = {
    "roc": "Frauds caught for legitimate orders flagged",
    "precision_recall": "How many of the flagged orders are fraud",
}


def ranking(curves: Curves) -> dict[str, "Axes"]:
    """What CAPTIONS names, of systems of any name; of none it is empty."""
    named = {drawable(name): pair for name, pair in curves.items()}
    return {"roc": roc(named), "precision_recall": precision_recall(named)} if named else {}


def roc(curves: Curves, ax: "Axes | None" = None) -> "Axes":
    """ROC curves of `{name: (labels, scores)}`; the legend gives AUC and its 95 % interval."""
    with canvas(ax) as ax:
        ax.plot([0, 1], [0, 1], color=GREY, lw=0.8, ls=":")
        drawn = [
            draw_curve(ax, i, metrics.roc_points(y, p), f"{name}  {metrics.auc_ci(y, p)}")
            for i, (name, (y, p)) in enumerate(curves.items())
        ]
        ax.set(xlabel="false-positive rate", ylabel="recall", xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
        heading(ax, "ROC", *class_counts(y for y, _ in curves.values()))
        ax.legend(handles=drawn, loc="lower right", title="AUC [95 % interval]")
    return ax


def precision_recall(curves: Curves, ax: "Axes | None" = None) -> "Axes":
    """Precision over recall of `{name: (labels, probabilities)}`; the legend gives AP.

    A dotted line at the base rate is what random scores reach.
    """
    with canvas(ax) as ax:
        counts = class_counts(y for y, _ in curves.values())
        for rate in [n_positive / n for n, n_positive in counts if n]:
            ax.axhline(rate, color=GREY, lw=0.8, ls=":")
            ax.text(0.08, rate, f"base rate {rate:.1%}", color=GREY, va="bottom", fontsize=8)
        drawn = []
        for i, (name, (y, p)) in enumerate(curves.items()):
            ap = metrics.evaluate(y, p)["average_precision"]
            shown = metrics.NOT_ENOUGH if ap is None else f"{ap:.3f}"
            drawn.append(draw_curve(ax, i, metrics.pr_points(y, p), f"{name}  {shown}"))
        ax.set(xlabel="recall", ylabel="precision", xlim=(-0.01, 1.01), ylim=(-0.01, 1.02))
        heading(ax, "Precision and recall", *counts)
        ax.legend(handles=drawn, loc="upper right", title="average precision")
    return ax


def segment_auc(table: pl.DataFrame, ax: "Axes | None" = None) -> "Axes":
    """Forest plot of `metrics.by_segment`: AUC and its 95 % interval, largest segment on top."""
    require_columns(table, "group", "n", "n_positive", *metrics.bounded("auroc"))
    with canvas(ax, forest_height(table)) as ax:
        ax.axvline(0.5, color=GREY, lw=0.8, ls=":")
        counts = table["n"].sum(), table["n_positive"].sum()
        rows = forest_rows(ax, table, "group", "AUC by segment", counts)
        for at, row in enumerate(rows):
            draw_interval(ax, at, *(row[name] for name in metrics.bounded("auroc")), BLUE, "o")
        draw_column(ax, 34, "AUC", ["" if r["auroc"] is None else f"{r['auroc']:.3f}" for r in rows])
        draw_column(ax, 72, "n", [f"{r['n']:,}" for r in rows])
        draw_column(ax, 112, "positive", [f"{r['n_positive'] / r['n']:.1%}" for r in rows])
        ax.set(xlabel="AUC, 95 % interval")
    return ax


def model_auc(table: pl.DataFrame, ax: "Axes | None" = None) -> "Axes":
    """Forest plot of models scored on the same rows: AUC and its 95 % interval, in the table's order.

    Columns: model, auroc with _low and _high and, the same in each row, n and n_positive.
    """
    require_columns(table, "model", *metrics.bounded("auroc"), "n", "n_positive")
    with canvas(ax, forest_height(table)) as ax:
        ax.axvline(0.5, color=GREY, lw=0.8, ls=":")
        rows = forest_rows(ax, table, "model", "AUC by model", (table["n"][0], table["n_positive"][0]))
        for at, row in enumerate(rows):
            draw_interval(ax, at, *(row[name] for name in metrics.bounded("auroc")), BLUE, "o")
        draw_column(ax, 34, "AUC", ["" if r["auroc"] is None else f"{r['auroc']:.3f}" for r in rows])
        ax.set(xlabel="AUC, 95 % interval")
    return ax


def risk_table(name: str, table: Mapping[str, object], ax: "Axes | None" = None) -> "Axes":
    """The risk of each category of a column as bars from the risk of unseen ones, highest on top."""
    base = table["default_bin"]
    bins = sorted(table["bins"].items(), key=lambda item: (-item[1], item[0]))
    shown = bins if len(bins) <= MAX_ROWS else [*bins[: MAX_ROWS // 2], *bins[-(MAX_ROWS // 2) :]]
    with canvas(ax, 1.15 + 0.27 * max(2, len(shown))) as ax:
        labels = [label if len(label) <= 20 else f"{label[:19]}…" for label, _ in shown]
        ax.barh(range(len(shown)), [risk - base for _, risk in shown], left=base, color=BLUE, height=0.6)
        ax.axvline(base, color=GREY, lw=0.8)
        ax.set_yticks(range(len(shown)), labels)
        ax.set_ylim(max(len(shown), 1) - 0.4, -0.6)
        ax.grid(axis="y", visible=False)
        heading(ax, name if len(shown) == len(bins) else f"{name}, {len(shown)} of {len(bins)} categories")
        ax.set(xlabel=f"risk; the line is that of unseen categories, {base:.3f}")
    return ax


def contributions(table: pl.DataFrame, ax: "Axes | None" = None) -> "Axes":
    """Bars of `Scorer.explain_one`: what each input adds to a score or takes from it, largest on top.

    At most 15 inputs; those that are missing already add nothing and are left out.
    """
    require_columns(table, "input", "is_missing", "contribution")
    known = table.filter(~pl.col("is_missing"))
    shown = known.head(15)
    with canvas(ax, 1.15 + 0.27 * max(2, len(shown))) as ax:
        labels = [name if len(name) <= 24 else f"{name[:23]}…" for name in shown["input"]]
        values = shown["contribution"].to_list()
        ax.barh(range(len(shown)), values, color=[RED if v > 0 else BLUE for v in values], height=0.6)
        ax.axvline(0, color=GREY, lw=0.8)
        ax.set_yticks(range(len(shown)), labels)
        ax.set_ylim(max(len(shown), 1) - 0.4, -0.6)
        ax.grid(axis="y", visible=False)
        heading(
            ax,
            "Why this score" + ("" if len(shown) == len(known) else f", {len(shown)} of {len(known)} inputs"),
        )
        ax.set(xlabel="score less the score without the input")
    return ax


def histogram(values: ArrayLike, what: str, of: str, ax: "Axes | None" = None) -> "Axes":
    """How many `of` have each number of `what`; wide ranges in at most 40 bars."""
    values = np.asarray(values)
    low, high = (int(values.min()), int(values.max())) if values.size else (0, 0)
    step = -(-(high - low + 1) // 40)
    with canvas(ax) as ax:
        ax.hist(values, np.arange(low, high + 2 * step, step) - 0.5, rwidth=0.85, color=BLUE)
        ax.grid(axis="x", visible=False)
        ax.set(xlabel=what, ylabel=of)
    return ax


def paired_difference(
    table: pl.DataFrame,
    margin: float = 0.01,
    ax: "Axes | None" = None,
    names: tuple[str, str] = ("A", "B"),
) -> "Axes":
    """Forest plot of `metrics.paired_by_segment`: AUC of A less AUC of B beside the ±margin band."""
    require_columns(table, "group", "n", "n_positive", *metrics.bounded("difference"), "verdict")
    with canvas(ax, forest_height(table)) as ax:
        ax.axvspan(-margin, margin, color=BAND, lw=0)
        ax.axvline(0, color=GREY, lw=0.8)
        counts = table["n"].sum(), table["n_positive"].sum()
        rows = forest_rows(ax, table, "group", "Paired difference", counts)
        for at, row in enumerate(rows):
            colour, marker = VERDICTS.get(row["verdict"], (GREY, "s"))
            draw_interval(ax, at, *(row[name] for name in metrics.bounded("difference")), colour, marker)
        values = ["" if r["difference"] is None else f"{r['difference']:+.3f}" for r in rows]
        draw_column(ax, 40, "difference", values)
        draw_column(ax, 98, "verdict", [r["verdict"] if r["verdict"] in VERDICTS else "" for r in rows])
        ax.xaxis.get_major_locator().set_params(nbins=5)
        ax.set(xlabel=f"AUC of {names[0]} less AUC of {names[1]}\n95 % interval; band: ±{margin:g}")
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
    with canvas(ax, HEIGHT * 0.85) as ax:
        size, value = np.asarray(sizes, float), np.asarray(compression, float)
        order = np.argsort(size, kind="stable")
        ax.axhline(target, color=GREY, lw=0.8, ls="--")
        ax.text(
            0.01, target, f"target {target:g}", color=GREY, transform=ax.get_yaxis_transform(), va="bottom"
        )
        ax.plot(size[order], value[order], color=BLUE, marker="o", ms=3.5)
        for at in np.flatnonzero(size == chosen)[:1]:
            ax.plot(size[at], value[at], color=RED, marker="D", ms=7, ls="none")
            text = f"chosen {chosen:,}: {value[at]:.2f}"
            ax.annotate(text, (size[at], value[at]), (4, -12), textcoords="offset points", color=RED)
        ax.set_xscale("log")
        ax.set(xlabel="vocabulary size", ylabel="characters per token")
        ax.xaxis.set_major_formatter(lambda v, _: f"{v:,.0f}")
        ax.xaxis.set_minor_formatter("")
        heading(ax, "Compression")
    return ax


def training_curve(history: Sequence[Mapping[str, float | None]], ax: "Axes | None" = None) -> "Axes":
    """Losses (left) and validation AUC (right, on a twin axis) by epoch; the best AUC is marked.

    Keys: epoch, train_loss, val_loss, val_auroc; a missing or None value leaves a gap.
    """
    with canvas(ax, HEIGHT * 0.95) as ax:
        epochs = [row["epoch"] for row in history]
        columns = {
            key: np.array([np.nan if row.get(key) is None else row[key] for row in history], float)
            for key in ("train_loss", "val_loss", "val_auroc")
        }
        twin = ax.twinx()
        dress(twin)
        twin.grid(False)
        hollow = {"ls": "--", "mfc": "white", "label": "train loss"}
        lines = [
            *ax.plot(epochs, columns["train_loss"], color=BLUE, marker="o", **hollow),
            *ax.plot(epochs, columns["val_loss"], color=BLUE, marker="o", label="val loss"),
            *twin.plot(epochs, columns["val_auroc"], color=RED, marker="D", label="val AUC (right)"),
        ]
        if np.isfinite(columns["val_auroc"]).any():
            best = int(np.nanargmax(columns["val_auroc"]))
            at = (epochs[best], columns["val_auroc"][best])
            twin.plot(*at, color=RED, marker="D", ms=9, mfc="none", ls="none")
            twin.annotate(f"{at[1]:.3f}", at, (0, 7), textcoords="offset points", color=RED, ha="center")
            twin.margins(y=0.15)
        ax.set(xlabel="epoch", ylabel="loss")
        ax.xaxis.get_major_locator().set_params(integer=True)
        twin.set_ylabel("AUC", color=RED)
        legend_below(ax, handles=lines)
        heading(ax, "Training")
    return ax


def score_distribution(y: ArrayLike, p: ArrayLike, ax: "Axes | None" = None) -> "Axes":
    """Each class's share of rows by score, in 25 bins of [0, 1] and on a log scale.

    On a linear scale the rare high scores of a 2 % class, the ones acted on, are invisible.
    """
    y, p = metrics.checked(y, probability=True, p=p)
    [(n, n_positive)] = class_counts([y])
    with canvas(ax, HEIGHT * 0.85) as ax:
        edges = np.linspace(0, 1, 26)
        for label, colour, dash, count in ((0, BLUE, "-", n - n_positive), (1, RED, "--", n_positive)):
            share = np.histogram(p[y == label], edges)[0] / max(count, 1)
            text = f"label {label} (n = {count:,})"
            ax.stairs(share, edges, color=colour, fill=True, alpha=0.15)
            ax.stairs(share, edges, color=colour, lw=1.4, ls=dash, label=text)
        ax.set(xlabel="score", ylabel="share of the class", xlim=(0, 1), yscale="log")
        ax.legend(loc="upper right")
        heading(ax, "Scores by label", (n, n_positive))
    return ax


def split_counts(table: pl.DataFrame, ax: "Axes | None" = None) -> "Axes":
    """Stacked bars of rows by split and label, from a table with columns split, label, n.

    Rows of the same split and label (say, one a segment) are added up.
    """
    require_columns(table, "split", "label", "n")
    with canvas(ax, HEIGHT * 0.65) as ax:
        known = {"train": 0, "val": 1, "test": 2}
        splits = sorted(table["split"].unique(maintain_order=True), key=lambda s: known.get(s, 3))
        totals = table.group_by("split", "label").agg(pl.col("n").sum())
        sums = {(split, label): n for split, label, n in totals.iter_rows()}
        left = np.zeros(len(splits))
        for label, colour, hatch in ((0, SKY, None), (1, RED, "////")):
            widths = np.array([sums.get((split, label), 0) for split in splits], float)
            ax.barh(splits, widths, left=left, color=colour, hatch=hatch, ec="white", label=f"label {label}")
            left += widths
        for at, split in enumerate(splits):
            text = sized(int(left[at]), sums.get((split, 1), 0))
            ax.annotate(text, (1, at), (6, 0), ax.get_yaxis_transform(), "offset points", va="center")
        ax.invert_yaxis()
        ax.grid(axis="y", visible=False)
        ax.xaxis.set_major_formatter(lambda v, _: f"{v:,.0f}")
        ax.xaxis.get_major_locator().set_params(nbins=4)
        ax.set(xlabel="rows")
        legend_below(ax)
        heading(ax, "Rows by split")
    return ax
