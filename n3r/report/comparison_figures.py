"""Figures of systems beside each other: n3r and the legacy, deviations, attacks, sizes of training data."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from numpy.typing import ArrayLike

from n3r.estimate import bounded, checked
from n3r.report import style
from n3r.report.style import BAND, GREEN, GREY, RED, REFERENCE, canvas, look

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Tables = Mapping[str, pl.DataFrame]  # by system
VERDICTS = {"equivalent": (GREEN, "o"), "different": (RED, "D"), "not shown": (GREY, "s")}


def paired_difference(
    table: pl.DataFrame,
    margin: float = 0.01,
    ax: "Axes | None" = None,
    names: tuple[str, str] = ("A", "B"),
) -> "Axes":
    """Forest plot of `metrics.paired_by_segment`: AUC of A less AUC of B beside the ±margin band."""
    style.require_columns(table, "verdict")
    asides = [
        ("difference", 40, style.cell("difference", "+.3f")),
        ("verdict", 98, lambda row: row["verdict"] if row["verdict"] in VERDICTS else ""),
    ]
    words = f"AUC of {names[0]} less AUC of {names[1]}\n95 % interval; band: ±{margin:g}"
    marks = {"line": 0, "nbins": 5, "mark": lambda row: VERDICTS.get(row["verdict"], (GREY, "s"))}
    ax = style.forest(table, "group", "difference", ("Paired difference", words), asides, ax, **marks)
    ax.axvspan(-margin, margin, color=BAND, lw=0)
    return ax


def rank_agreement(
    y: ArrayLike,
    a: ArrayLike,
    b: ArrayLike,
    names: tuple[str, str] = ("A", "B"),
    ax: "Axes | None" = None,
) -> "Axes":
    """Where two scores put the same row, in percentiles of rank: legitimate rows as density, frauds as marks.

    At most 300 frauds are marked, evenly spaced by the first score.
    """
    y, a, b = checked(y, a=a, b=b)
    x, z = (100 * (np.argsort(np.argsort(p, kind="stable")) + 0.5) / max(p.size, 1) for p in (a, b))
    frauds = np.flatnonzero(y)[np.argsort(x[y], kind="stable")]
    shown = frauds[np.unique(np.linspace(0, frauds.size - 1, min(frauds.size, 300)).astype(int))]
    labels = {"xlabel": f"percentile by {names[0]}", "ylabel": f"percentile by {names[1]}"}
    labels |= {"xlim": (0, 100), "ylim": (0, 100)}
    with canvas(ax, "Rank agreement", style.class_counts([y]), **labels) as ax:
        density = {"gridsize": 22, "extent": (0, 100, 0, 100), "mincnt": 1, "bins": "log", "cmap": "Blues"}
        ax.hexbin(x[~y], z[~y], lw=0, **density)
        ax.plot([0, 100], [0, 100], **REFERENCE)
        label = f"frauds, {shown.size} of {frauds.size}"
        ax.plot(x[shown], z[shown], color=RED, marker="x", ms=3, lw=0, label=label)
        style.legend_below(ax)
    return ax


def ablation_forest(table: pl.DataFrame, ax: "Axes | None" = None) -> "Axes":
    """Forest plot of `ablation.table`: what each deviation from the legacy adds to its AUC and its speed.

    Triangles mark differences whose 95 % interval leaves zero out.
    """
    style.require_columns(table, "deviation", "n_seeds", "auc", "speed_ratio")
    is_base = pl.col("deviation") == "none"
    auc = next((f" of {value:.3f}" for value in table.filter(is_base)["auc"].drop_nulls()), "")
    below = f"95 % interval, {table['n_seeds'].max() or 0} seeds; speed: of training"
    words = ("Deviations", f"added to the AUC{auc} with none of them\n{below}")
    asides = [
        ("difference", 40, style.cell("difference", "+.3f")),
        ("speed", 76, lambda row: f"{row['speed_ratio']:.2f}×"),
    ]
    marks = {"line": 0, "nbins": 5, "mark": _direction, "counts": style.largest}
    return style.forest(table.filter(~is_base), "deviation", "difference", words, asides, ax, **marks)


def _direction(row: Mapping[str, float | None]) -> tuple[str, str]:
    """Colour and marker of an interval above zero, below it, or neither."""
    _, low, high = (row[name] for name in bounded("difference"))
    if low is not None and low > 0:
        return GREEN, "^"
    return (RED, "v") if high is not None and high < 0 else (GREY, "s")


def learning_curve(table: pl.DataFrame, oracle: float | None = None, ax: "Axes | None" = None) -> "Axes":
    """AUC with its 95 % band over training rows, a line a model; dotted is what no model can pass.

    Columns: model and those of `learning_curves.learning_curve`.
    """
    style.require_columns(table, "model", "n_rows", *bounded("auroc"), "n", "n_positive")
    counts = list(dict.fromkeys(table.select("n", "n_positive").iter_rows()))
    labels = {"xlabel": "training rows", "ylabel": "test AUC"}
    with canvas(ax, "Learning curve", counts, **labels) as ax:
        if oracle is not None:
            style.draw_level(ax, oracle, f"oracle {oracle:.3f}")
        for i, ((model,), rows) in enumerate(table.group_by("model", maintain_order=True)):
            known = rows.drop_nulls("auroc_low").sort("n_rows")
            style.draw_curve(ax, i, (known["n_rows"], known["auroc"]), model, marker=look(i)["marker"])
            style.draw_band(ax, i, known["n_rows"], known["auroc_low"], known["auroc_high"])
        ax.set_xscale("log")
        sizes = sorted(set(table["n_rows"]))
        ax.set_xticks(sizes, [f"{n:,}" for n in sizes])
        ax.set_xticks([], minor=True)
        style.legend_below(ax)
    return ax


def attack_losses(tables: Tables, ax: "Axes | None" = None) -> "Axes":
    """Forest plot of what each attack at its full strength does to each system's AUC, worst on top.

    Takes the tables of `attacks.attack_curve` by system, such as n3r's and the legacy's.
    """
    every = _attacked(tables)
    strongest = every.filter(pl.col("strength") == pl.col("strength").max().over("attack"))
    first = strongest.filter(system=next(iter(tables))).sort("difference", nulls_last=True)
    names = pl.concat([first, strongest])["attack"].unique(maintain_order=True).to_list()
    strength = strongest["strength"].max()
    shown = "" if strength is None else f"at strength {strength:g}"
    height = 1.35 + (0.12 + 0.15 * len(tables)) * max(2, len(names))
    labels = {"above": 13, "xlabel": "attacked less clean AUC, 95 % interval"}
    with canvas(ax, "AUC under attack", [style.largest(every)], height, shown=shown, **labels) as ax:
        ax.axvline(0, **REFERENCE)
        style.name_rows(ax, names)
        for i, system in enumerate(tables):
            colour, marker = look(i)["color"], look(i)["marker"]
            ax.plot([], [], color=colour, marker=marker, lw=0, label=system)
            losses = strongest.filter(system=system).select("attack", *bounded("difference"))
            for attack, *figures in losses.iter_rows():
                at = names.index(attack) + 0.3 * (i - (len(tables) - 1) / 2)
                style.draw_interval(ax, at, *figures, colour, marker)
        style.legend_below(ax)
    return ax


def attack_curves(tables: Tables, ax: "Axes | None" = None) -> "Axes":
    """AUC over the strength of each attack, one panel per attack, one line with its 95 % band per system.

    Takes the tables of `attacks.attack_curve` by system. At strength 0 stands the clean AUC.
    """
    every = _attacked(tables)
    attacks = every["attack"].unique(maintain_order=True).to_list()
    n_rows = max(1, -(-len(attacks) // 3))
    known = every.drop_nulls("auroc_low")
    xlabel = "strength: share of characters, words or fields changed"
    with canvas(ax, "AUC under attack", [style.largest(every)], 1.3 + 1.05 * n_rows, xlabel=xlabel) as ax:
        ax.grid(visible=False)
        ax.spines[:].set_visible(False)
        ax.set(xticks=[], yticks=[])
        for i, attack in enumerate(attacks):
            column, row = i % 3, i // 3
            panel = ax.inset_axes((0.08 + 0.32 * column, 1 - (row + 0.84) / n_rows, 0.28, 0.64 / n_rows))
            style.dress(panel)
            panel.set_title(attack, loc="left", fontsize=8, pad=3)
            panel.set(xlim=(-0.04, 1.04), xticks=[0, 0.5, 1], xticklabels=["0", ".5", "1"])
            if known.height:
                panel.set_ylim(known["auroc_low"].min() - 0.01, known["auroc_high"].max() + 0.01)
            panel.tick_params(labelsize=7.5, labelleft=column == 0, labelbottom=i + 3 >= len(attacks))
            _draw_attack(panel, known.filter(attack=attack), list(tables))
        handles = [style.draw_curve(ax, i, None, system) for i, system in enumerate(tables)]
        style.legend_below(ax, handles=handles)
    return ax


def _draw_attack(panel: "Axes", known: pl.DataFrame, systems: Sequence[str]) -> None:
    """The curve of each system in one panel, or in words that there is none."""
    if known.is_empty():
        style.say_not_enough(panel, fontsize=7.5)
    for i, system in enumerate(systems):
        own = known.filter(system=system).sort("strength")
        if len(own):
            clean = own["auroc"][0] - own["difference"][0]
            style.draw_curve(panel, i, ([0, *own["strength"]], [clean, *own["auroc"]]), system)
            style.draw_band(panel, i, own["strength"], own["auroc_low"], own["auroc_high"])


def _attacked(tables: Tables) -> pl.DataFrame:
    """The curves of all systems in one table, with the column `system`."""
    needed = ("attack", "strength", "n", "n_positive", *bounded("auroc"), *bounded("difference"))
    if not tables:
        raise ValueError("no system's curve was given")
    for table in tables.values():
        style.require_columns(table, *needed)
    return pl.concat(table.select(*needed, system=pl.lit(name)) for name, table in tables.items())
