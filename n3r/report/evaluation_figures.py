"""Figures of an evaluation: what a team that acts on scores asks, in the house style of canvas.py.

Every function takes tables of the evaluation's statistics and an optional Axes, draws on it and returns it.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from numpy.typing import ArrayLike

from n3r.estimate import NOT_ENOUGH, bounded, checked
from n3r.evaluation.drift import SHIFTED, SOME_SHIFT, psi
from n3r.metrics import ALPHA
from n3r.report.style import (
    BLUE,
    COLOURS,
    DASHES,
    GREEN,
    GREY,
    HEIGHT,
    INK,
    ORANGE,
    RED,
    canvas,
    draw_column,
    draw_curve,
    draw_interval,
    dress,
    forest_height,
    forest_rows,
    heading,
    legend_below,
    require_columns,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes


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
    with canvas(ax) as ax:
        density = {"gridsize": 22, "extent": (0, 100, 0, 100), "mincnt": 1, "bins": "log", "cmap": "Blues"}
        ax.hexbin(x[~y], z[~y], lw=0, **density)
        ax.plot([0, 100], [0, 100], color=GREY, lw=0.8, ls=":")
        label = f"frauds, {shown.size} of {frauds.size}"
        ax.plot(x[shown], z[shown], color=RED, marker="x", ms=3, lw=0, label=label)
        ax.set(xlabel=f"percentile by {names[0]}", ylabel=f"percentile by {names[1]}")
        ax.set(xlim=(0, 100), ylim=(0, 100))
        ax.legend(loc="upper left", frameon=True, framealpha=0.9)
        heading(ax, "Rank agreement", (y.size, int(y.sum())))
    return ax


_MARKERS = ("o", "s", "D", "^", "v", "P")  # one a system, beside its colour


def attack_losses(tables: Mapping[str, pl.DataFrame], ax: "Axes | None" = None) -> "Axes":
    """Forest plot of what each attack at its full strength does to each system's AUC, worst on top.

    Takes the tables of `attacks.attack_curve` by system, such as n3r's and the legacy's.
    """
    every = _attacked(tables)
    strongest = every.filter(pl.col("strength") == pl.col("strength").max().over("attack"))
    names = strongest.filter(system=next(iter(tables))).sort("difference", nulls_last=True).select("attack")
    names = pl.concat([names, strongest.select("attack")]).unique(maintain_order=True)
    strength = strongest["strength"].max()
    with canvas(ax, 1.35 + (0.12 + 0.15 * len(tables)) * max(2, len(names))) as ax:
        ax.axvline(0, color=GREY, lw=0.8, ls=":")
        title = "AUC under attack" if strength is None else f"AUC under attack at strength {strength:g}"
        rows = forest_rows(ax, names, "attack", title, _largest(every))
        line = {row["attack"]: at for at, row in enumerate(rows)}
        for i, system in enumerate(tables):
            colour, marker = COLOURS[i % len(COLOURS)], _MARKERS[i % len(_MARKERS)]
            ax.plot([], [], color=colour, marker=marker, lw=0, label=system)
            own = strongest.filter(system=system)
            for attack, *figures in own.select("attack", "^difference.*$").iter_rows():
                at = line[attack] + 0.3 * (i - (len(tables) - 1) / 2)
                draw_interval(ax, at, *figures, colour, marker)
        ax.set(xlabel="attacked less clean AUC, 95 % interval")
        legend_below(ax)
    return ax


def attack_curves(tables: Mapping[str, pl.DataFrame], ax: "Axes | None" = None) -> "Axes":
    """AUC over the strength of each attack, a panel an attack and a line with its 95 % band a system.

    Takes the tables of `attacks.attack_curve` by system. At strength 0 stands the clean AUC.
    """
    every = _attacked(tables)
    attacks = every["attack"].unique(maintain_order=True).to_list()
    n_rows = max(1, -(-len(attacks) // 3))
    known = every.drop_nulls("auroc_low")
    with canvas(ax, 1.3 + 1.05 * n_rows) as ax:
        ax.grid(visible=False)
        ax.spines[:].set_visible(False)
        ax.set(xlabel="strength: share of characters, words or fields changed", xticks=[], yticks=[])
        heading(ax, "AUC under attack", _largest(every))
        for i, attack in enumerate(attacks):
            column, row = i % 3, i // 3
            panel = ax.inset_axes((0.08 + 0.32 * column, 1 - (row + 0.84) / n_rows, 0.28, 0.64 / n_rows))
            dress(panel)
            panel.set_title(attack, loc="left", fontsize=8, pad=3)
            panel.set(xlim=(-0.04, 1.04), xticks=[0, 0.5, 1], xticklabels=["0", ".5", "1"])
            if known.height:
                panel.set_ylim(known["auroc_low"].min() - 0.01, known["auroc_high"].max() + 0.01)
            panel.tick_params(labelsize=7.5, labelleft=column == 0, labelbottom=i + 3 >= len(attacks))
            _draw_attack(panel, every.filter(attack=attack), list(tables))
        handles = [draw_curve(ax, i, None, system) for i, system in enumerate(tables)]
        legend_below(ax, handles=handles)
    return ax


def _draw_attack(panel: "Axes", table: pl.DataFrame, systems: Sequence[str]) -> None:
    """The curve of each system in one panel, or in words that there is none."""
    known = table.drop_nulls("auroc_low")
    for i, system in enumerate(systems):
        own = known.filter(system=system).sort("strength")
        if own.is_empty():
            continue
        clean = own["auroc"][0] - own["difference"][0]
        x, y = (np.concatenate([[start], own[name]]) for start, name in ((0, "strength"), (clean, "auroc")))
        draw_curve(panel, i, (x, y), system)
        band = {"color": COLOURS[i % len(COLOURS)], "alpha": 0.15, "lw": 0}
        panel.fill_between(own["strength"], own["auroc_low"], own["auroc_high"], **band)
    if known.is_empty():
        place = {"transform": panel.transAxes, "ha": "center", "va": "center", "fontsize": 7.5}
        panel.text(0.5, 0.5, NOT_ENOUGH, color=GREY, **place)


def _attacked(tables: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """The curves of all systems in one table, with the column `system`."""
    needed = ("attack", "strength", "n", "n_positive", *bounded("auroc"), *bounded("difference"))
    if not tables:
        raise ValueError("no system's curve was given")
    for table in tables.values():
        require_columns(table, *needed)
    return pl.concat(table.select(*needed, system=pl.lit(name)) for name, table in tables.items())


def _largest(table: pl.DataFrame) -> tuple[int, int]:
    """Rows and positive rows, the same for every attack."""
    return table["n"].max() or 0, table["n_positive"].max() or 0


def ablation_forest(table: pl.DataFrame, ax: "Axes | None" = None) -> "Axes":
    """Forest plot of `ablation.table`: what each deviation from the legacy adds to its AUC and its speed.

    Triangles mark differences whose 95 % interval leaves zero out.
    """
    require_columns(table, "deviation", "n_seeds", "n", "n_positive", "auc", *bounded("difference"))
    base, rest = (table.filter(pl.col("deviation").eq("none") == is_base) for is_base in (True, False))
    counts = (table["n"].max() or 0, table["n_positive"].max() or 0)
    with canvas(ax, forest_height(rest)) as ax:
        ax.axvline(0, color=GREY, lw=0.8)
        rows = forest_rows(ax, rest, "deviation", "Deviations", counts)
        for at, row in enumerate(rows):
            low, high = row["difference_low"], row["difference_high"]
            known = low is not None
            colour, marker = (
                (GREEN, "^") if known and low > 0 else (RED, "v") if known and high < 0 else (GREY, "s")
            )
            draw_interval(ax, at, row["difference"], low, high, colour, marker)
        values = ["" if r["difference"] is None else f"{r['difference']:+.3f}" for r in rows]
        draw_column(ax, 40, "difference", values)
        draw_column(ax, 76, "speed", [f"{r['speed_ratio']:.2f}×" for r in rows])
        ax.xaxis.get_major_locator().set_params(nbins=5)
        auc = next((f" of {value:.3f}" for value in base["auc"].drop_nulls()), "")
        below = f"95 % interval, {table['n_seeds'].max() or 0} seeds; speed: of training"
        ax.set(xlabel=f"added to the AUC{auc} with none of them\n{below}")
    return ax


def learning_curve(table: pl.DataFrame, oracle: float | None = None, ax: "Axes | None" = None) -> "Axes":
    """AUC with its 95 % band over training rows, a line a model; dotted is what no model can pass.

    Columns: model and those of `learning.learning_curve`.
    """
    require_columns(table, "model", "n_rows", *bounded("auroc"), "n", "n_positive")
    with canvas(ax) as ax:
        if oracle is not None:
            ax.axhline(oracle, color=GREY, lw=0.8, ls=":")
            place = {"transform": ax.get_yaxis_transform(), "va": "bottom", "fontsize": 8}
            ax.text(0.01, oracle, f"oracle {oracle:.3f}", color=GREY, **place)
        for i, ((model,), rows) in enumerate(table.group_by("model", maintain_order=True)):
            known = rows.drop_nulls("auroc_low").sort("n_rows")
            line = draw_curve(ax, i, (known["n_rows"], known["auroc"]), model)
            line.set_marker(_MARKERS[i % len(_MARKERS)])
            band = {"color": COLOURS[i % len(COLOURS)], "alpha": 0.12, "lw": 0}
            ax.fill_between(known["n_rows"], known["auroc_low"], known["auroc_high"], **band)
        ax.set(xlabel="training rows", ylabel="test AUC", xscale="log")
        ax.xaxis.set_major_formatter(lambda v, _: f"{v:,.0f}")
        legend_below(ax)
        heading(ax, "Learning curve", *dict.fromkeys(table.select("n", "n_positive").iter_rows()))
    return ax


# what `groups.by_group` calls a rate -> its name, what it is a share of, colour and marker
GROUP_RATES = {
    "recall": ("recall", "frauds", BLUE, "o"),
    "fpr": ("false-positive rate", "legitimate orders", RED, "D"),
    "alert_rate": ("alert rate", "orders", GREEN, "s"),
}


def group_rates(
    table: pl.DataFrame, rate: str, overall: float | None = None, ax: "Axes | None" = None
) -> "Axes":
    """Forest plot of one rate of `groups.by_group` with its 95 % interval, largest group on top.

    `rate` is "recall", "fpr" or "alert_rate"; the line is `overall`, the rate of all rows.
    """
    name, of, colour, marker = GROUP_RATES[rate]
    require_columns(table, "group", "n", "n_positive", *bounded(rate))
    n = {"recall": pl.col("n_positive"), "fpr": pl.col("n") - pl.col("n_positive"), "alert_rate": pl.col("n")}
    with canvas(ax, forest_height(table)) as ax:
        counts = table["n"].sum(), table["n_positive"].sum()
        title = f"{name[0].upper()}{name[1:]} by group"
        rows = forest_rows(ax, table.with_columns(n_shown=n[rate]), "group", title, counts)
        if overall is not None:
            ax.axvline(overall, color=GREY, lw=0.8, ls=":")
        for at, row in enumerate(rows):
            draw_interval(ax, at, *(row[name] for name in bounded(rate)), colour, marker)
        draw_column(ax, 36, "rate", ["" if r[rate] is None else f"{r[rate]:.1%}" for r in rows])
        draw_column(ax, 96, of, [f"{r['n_shown']:,}" for r in rows])
        line = "" if overall is None else f"\nline: all rows, {overall:.1%}"
        ax.xaxis.get_major_locator().set_params(nbins=5)
        ax.xaxis.set_major_formatter(lambda v, _: f"{100 * v:.3g}%")
        ax.set(xlabel=f"{name}, 95 % interval{line}")
    return ax


def group_calibration(table: pl.DataFrame, ax: "Axes | None" = None) -> "Axes":
    """Forest plot of observed to expected frauds of `groups.by_group`, 95 % interval, line at 1.

    What reaches past twice the largest ratio (at least past 2) is cut off by the frame.
    """
    require_columns(table, "group", "n", "n_positive", "mean_score", "ratio", "ratio_low", "ratio_high")
    with canvas(ax, forest_height(table)) as ax:
        counts = table["n"].sum(), table["n_positive"].sum()
        ax.axvline(1, color=GREY, lw=0.8, ls=":")
        rows = forest_rows(ax, table, "group", "Frauds observed / expected", counts)
        for at, row in enumerate(rows):
            draw_interval(ax, at, row["ratio"], row["ratio_low"], row["ratio_high"], BLUE, "o")
        draw_column(ax, 30, "ratio", ["" if r["ratio"] is None else f"{r['ratio']:.2f}" for r in rows])
        draw_column(ax, 76, "observed", [f"{r['n_positive']:,}" for r in rows])
        draw_column(ax, 122, "expected", [f"{r['mean_score'] * r['n']:,.1f}" for r in rows])
        most = max([1.0, *(r["ratio"] for r in rows if r["ratio"] is not None)])
        ends = [r["ratio_high"] for r in rows if r["ratio_high"] is not None]
        ax.set(xlabel="ratio, 95 % interval", xlim=(0, 1.05 * min(max([1.0, *ends]), 2 * most)))
    return ax


def slice_trend(table: pl.DataFrame, ax: "Axes | None" = None) -> "Axes":
    """AUC with its 95 % interval (left) and alert rate (right) over the time slices of `groups.by_group`.

    Slices stand in the order of their labels and are named by their beginning; rows without a time are left
    out.
    """
    require_columns(table, "group", "n", "n_positive", "auroc", "auroc_low", "auroc_high", "alert_rate")
    rows = table.filter(pl.col("group") != "(none)").sort("group").to_dicts()
    place = np.arange(len(rows))
    auc, low, high, alerts = (
        np.array([np.nan if row[key] is None else row[key] for row in rows], dtype=np.float64)
        for key in ("auroc", "auroc_low", "auroc_high", "alert_rate")
    )
    with canvas(ax) as ax:
        twin = ax.twinx()
        dress(twin)
        twin.grid(False)
        bars = {"capsize": 2.5, "elinewidth": 1.3, "label": "AUC, 95 % interval"}
        drawn = ax.errorbar(place, auc, (auc - low, high - auc), color=BLUE, marker="o", **bars)
        line = twin.plot(place, alerts, color=RED, marker="D", ls="--", label="alert rate (right)")
        for at in place[np.isnan(auc)]:
            words = {"color": GREY, "rotation": 90, "ha": "center", "va": "top", "fontsize": 8}
            ax.text(at, 0.98, NOT_ENOUGH, transform=ax.get_xaxis_transform(), **words)
        # The curves have no scale in common, so they keep apart: alerts below, AUC above.
        if np.isfinite(auc).any():
            bottom, top = ax.get_ylim()
            ax.set_ylim(bottom - 0.55 * (top - bottom), top)
        else:
            ax.set_yticks([])
        highest = max([1e-3, *alerts[np.isfinite(alerts)]])
        twin.set_ylim(-0.1 * highest, 3.4 * highest)
        twin.set_yticks([0, highest], ["0%", f"{100 * highest:.3g}%"])
        ax.set_xticks(place, [row["group"].split(" to ")[0] for row in rows], rotation=30, ha="right")
        ax.set_xlim(-0.5, max(len(rows), 1) - 0.5)
        ax.set(ylabel="AUC", xlabel="beginning of the slice")
        twin.set_ylabel("alert rate", color=RED)
        above = {"loc": "lower left", "ncol": 2, "bbox_to_anchor": (0, 1), "borderaxespad": 0}
        ax.legend(handles=[drawn, *line], **above)
        counts = sum(row["n"] for row in rows), sum(row["n_positive"] for row in rows)
        heading(ax, "AUC and alerts over time", counts, above=16)
    return ax


def operating_recall(tables: Mapping[str, pl.DataFrame], ax: "Axes | None" = None) -> "Axes":
    """Recall and its 95 % interval over the allowed false-positive rate, of `{name: operating_points}`."""
    with canvas(ax) as ax:
        _draw_at_shares(ax, tables, "fpr", "recall")
        ax.set(xlabel="false-positive rate allowed", ylabel="recall, 95 % interval", ylim=(-0.02, 1.02))
        heading(ax, "Recall at chosen false-positive rates", *_sizes(tables))
    return ax


def lift(tables: Mapping[str, pl.DataFrame], ax: "Axes | None" = None) -> "Axes":
    """Lift over the base rate and its 95 % interval in the top shares, of `{name: top_shares}`."""
    with canvas(ax) as ax:
        ax.axhline(1, color=GREY, lw=0.8, ls=":")
        _draw_at_shares(ax, tables, "share", "lift")
        ax.set(xlabel="top share of orders", ylabel="lift, 95 % interval", ylim=(0, None))
        ax.yaxis.set_major_formatter(lambda v, _: f"{v:g}×")
        heading(ax, "Lift in the top shares", *_sizes(tables))
    return ax


def gain(
    curves: Mapping[str, pl.DataFrame],
    tops: Mapping[str, pl.DataFrame] | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """Share of frauds caught over share of orders flagged, of `{name: gain_points}`.

    `tops`, `{name: top_shares}`, marks the captures; the legend gives that of the largest share. The diagonal
    is what flagging at random catches.
    """
    tops = tops or {}
    with canvas(ax) as ax:
        ax.plot([0, 1], [0, 1], color=GREY, lw=0.8, ls=":")
        drawn = []
        for i, (name, table) in enumerate(curves.items()):
            require_columns(table, "flagged", "caught", "n", "n_positive")
            points = (table["flagged"].to_numpy(), table["caught"].to_numpy())
            marks = _mark_captures(ax, i, tops[name]) if name in tops else ""
            drawn.append(draw_curve(ax, i, points, name + (marks if len(table) else f": {NOT_ENOUGH}")))
        ax.set(xlabel="share of orders flagged", ylabel="share of frauds caught")
        ax.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
        ax.legend(handles=drawn, loc="lower right")
        heading(ax, "Gain", *(_sizes(curves) or _sizes(tops)))
    return ax


def cost_curve(
    curve: pl.DataFrame,
    cheapest: Mapping[str, float | None],
    chosen: Mapping[str, float | None] | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """Cost per 1,000 orders over the share flagged, of `cost_points`; a dotted line is flagging none.

    `cheapest` is marked, and so is `chosen`, the row (`at_threshold`) of a threshold chosen on other rows.
    Costs far above that of stopping none are cut off.
    """
    require_columns(curve, "flagged", "cost_per_1000")
    with canvas(ax) as ax:
        if curve.is_empty():
            _say_not_enough(ax)
        else:
            _draw_costs(ax, curve, {"cheapest": cheapest, "chosen on validation": chosen})
        ax.set(xlabel="share of orders flagged", ylabel="cost per 1,000 orders")
        heading(ax, "Cost of a threshold", (cheapest["n"], cheapest["n_positive"]))
    return ax


def reliability_diagram(tables: Mapping[str, pl.DataFrame], ax: "Axes | None" = None) -> "Axes":
    """Observed rate and its Wilson interval over the mean score, of `{name: reliability}`.

    On the dotted line scores are the rates they promise. Axes are logarithmic: most bins of a rare class lie
    near zero. A bin without a fraud is a hollow mark at its upper bound.
    """
    with canvas(ax) as ax:
        _draw_calibration(ax, tables, "observed")
        ax.set(xlabel="mean score of a bin of equal numbers of rows", ylabel="observed rate, 95 % interval")
        heading(ax, "Reliability", *_bin_sizes(tables, "observed"))
    return ax


def posterior_calibration(tables: Mapping[str, pl.DataFrame], ax: "Axes | None" = None) -> "Axes":
    """Mean true probability, with its 10 to 90 % range, over the mean score, of `{name: posterior_bins}`."""
    with canvas(ax) as ax:
        _draw_calibration(ax, tables, "mean_posterior")
        ax.set(xlabel="mean score of a bin of equal numbers of rows", ylabel="true probability, 10 to 90 %")
        heading(ax, "Scores against the true probability", *_bin_sizes(tables, "mean_posterior"))
    return ax


def _draw_at_shares(ax: "Axes", tables: Mapping[str, pl.DataFrame], x: str, value: str) -> None:
    """A line with intervals for each table, each a little to the right of the one before."""
    bounds = list(bounded(value)[1:])
    for table in tables.values():
        require_columns(table, x, value, *bounds, "n", "n_positive")
    if all(table[value].is_null().all() for table in tables.values()):
        return _say_not_enough(ax)
    for i, (name, table) in enumerate(tables.items()):
        shown = table.drop_nulls(value).with_columns(pl.col(bounds).fill_null(pl.col(value)))
        at = shown[x].to_numpy() * 1.06 ** (i - (len(tables) - 1) / 2)
        _draw_errors(ax, i, name, at, *shown.select(value, *bounds).to_numpy().T)
    shares = sorted({share for table in tables.values() for share in table[x]})
    ax.set(xscale="log", xlim=(shares[0] / 1.3, shares[-1] * 1.3))
    ax.set_xticks(shares, [f"{100 * share:g}%" for share in shares])
    ax.xaxis.set_minor_formatter("")
    ax.legend(loc="best")


def _draw_calibration(ax: "Axes", tables: Mapping[str, pl.DataFrame], value: str) -> None:
    """Values over mean scores on two equal logarithmic axes."""
    columns = ("mean_score", *bounded(value))
    for table in tables.values():
        require_columns(table, *columns, "n")
    figures = [table.select(columns).to_numpy() for table in tables.values()]
    centres = np.concatenate([rows[:, :2].ravel() for rows in figures]) if figures else np.zeros(0)
    if not centres.size:
        return _say_not_enough(ax)
    floor = max(1e-5, 0.6 * centres[centres > 0].min(initial=1))  # lower scores lie on the edge
    for i, (name, rows) in enumerate(zip(tables, figures, strict=True)):
        some = rows[:, 1] > 0
        _draw_errors(ax, i, name, *rows[some].clip(floor).T)
        hollow = {"color": COLOURS[i % len(COLOURS)], "ls": "none", "ms": 5, "mfc": "none"}
        hollow["marker"] = _MARKERS[i % len(_MARKERS)]
        ax.plot(rows[~some, 0].clip(floor), rows[~some, 3], **hollow)
    if any((rows[:, 1] == 0).any() for rows in figures):
        ax.plot([], [], color=GREY, ls="none", marker="o", mfc="none", label="hollow: none seen, upper bound")
    ax.plot([floor, 1], [floor, 1], color=GREY, lw=0.8, ls=":", zorder=1)
    for side in ("x", "y"):
        _share_axis(ax, side, floor / 1.1)
    ax.legend(loc="best")


def _draw_errors(
    ax: "Axes", i: int, name: str, x: np.ndarray, value: np.ndarray, low: np.ndarray, high: np.ndarray
) -> None:
    line = {"color": COLOURS[i % len(COLOURS)], "ls": DASHES[i % len(DASHES)], "lw": 1.1}
    marks = {"marker": _MARKERS[i % len(_MARKERS)], "ms": 4, "capsize": 2, "elinewidth": 1.1}
    label = name if x.size else f"{name}: {NOT_ENOUGH}"
    ax.errorbar(x, value, yerr=np.abs([value - low, high - value]), label=label, **line, **marks)


def _mark_captures(ax: "Axes", i: int, table: pl.DataFrame) -> str:
    """Marks on the gain curve, and the last in words."""
    require_columns(table, "share", "capture")
    shown = table.drop_nulls("capture").sort("share")
    if shown.is_empty():
        return ""
    style = {"color": COLOURS[i % len(COLOURS)], "marker": _MARKERS[i % len(_MARKERS)]}
    ax.plot(shown["share"], shown["capture"], ls="none", ms=4, **style)
    return f", top {100 * shown['share'][-1]:g}%: {shown['capture'][-1]:.0%}"


def _draw_costs(
    ax: "Axes", curve: pl.DataFrame, marked: Mapping[str, Mapping[str, float | None] | None]
) -> None:
    none = top = curve["cost_per_1000"][0]
    some = curve.filter(pl.col("flagged") >= 1e-4)
    draw_curve(ax, 0, (some["flagged"].to_numpy(), some["cost_per_1000"].to_numpy()), "_")
    ax.axhline(none, color=GREY, lw=0.8, ls=":")
    place = {"transform": ax.get_yaxis_transform(), "va": "bottom", "fontsize": 8}
    ax.text(0.02, none, f"flag none: {none:,.0f}", color=GREY, **place)
    left = some["flagged"].min()
    for (name, row), colour, marker in zip(marked.items(), (RED, GREEN), ("D", "s"), strict=True):
        if row is None or row["cost_per_1000"] is None:
            continue
        cost, at = row["cost_per_1000"], max(row["flagged"], left)  # flagging none is off a logarithmic axis
        top = max(top, cost)
        hollow = {"color": colour, "marker": marker, "ms": 7, "mfc": "none", "mew": 1.8, "ls": "none"}
        ax.plot(at, cost, label=f"{name}: {cost:,.0f}", **hollow)
    _share_axis(ax, "x", left / 1.2)
    ax.set_ylim(top=1.1 * top)
    ax.yaxis.set_major_formatter(lambda v, _: f"{v:,.0f}")
    legend_below(ax)


def _share_axis(ax: "Axes", side: str, low: float) -> None:
    """A logarithmic axis of shares, in per cent."""
    ax.set(**{f"{side}scale": "log", f"{side}lim": (low, 1.15)})
    axis = {"x": ax.xaxis, "y": ax.yaxis}[side]
    axis.set_major_formatter(lambda v, _: f"{100 * v:g}%")
    axis.set_minor_formatter("")


def _say_not_enough(ax: "Axes") -> None:
    ax.text(0.5, 0.5, NOT_ENOUGH, color=GREY, transform=ax.transAxes, ha="center", va="center")
    ax.set(xticks=[], yticks=[])


def _sizes(tables: Mapping[str, pl.DataFrame]) -> list[tuple[int, int]]:
    """The distinct (rows, positive rows) of tables that repeat both in each row."""
    pairs = [(table["n"][0], table["n_positive"][0]) for table in tables.values() if len(table)]
    return list(dict.fromkeys(pairs))


def _bin_sizes(tables: Mapping[str, pl.DataFrame], rate: str) -> list[tuple[int, int]]:
    """The distinct (rows, positive or expected positive rows) of tables that split both into bins."""
    return list(dict.fromkeys((t["n"].sum(), round((t["n"] * t[rate]).sum())) for t in tables.values()))


SHIFTS = {"stable": (BLUE, None), "some shift": (ORANGE, "////"), "shifted": (RED, "xxxx")}  # a word's bar


def drift_bars(table: pl.DataFrame, ax: "Axes | None" = None) -> "Axes":
    """Bars of `drift.drift`, largest on top, each with a tick at its null level; at most 15 columns.

    Dotted lines are the conventional limits. A bar past 0.5 is cut off there and ends in an arrow.
    """
    require_columns(table, "column", "psi", "null_level", "verdict")
    rows = table.head(15).to_dicts()
    known = [value for row in rows for value in (row["psi"], row["null_level"]) if value is not None]
    end = min(max([0.12, *(1.08 * value for value in known)]), 2 * SHIFTED)
    with canvas(ax, 1.5 + 0.25 * max(2, len(rows))) as ax:
        for limit in (SOME_SHIFT, SHIFTED):
            ax.axvline(limit, color=GREY, lw=0.8, ls=":")
        for word, (colour, hatch) in SHIFTS.items():
            ax.barh(0, 0, color=colour, hatch=hatch, ec="white", lw=0, label=word)
        for at, row in enumerate(rows):
            _draw_shift(ax, at, row, end)
        names = [row["column"] for row in rows]
        ax.set_yticks(range(len(rows)), [name if len(name) <= 20 else f"{name[:19]}…" for name in names])
        ax.set(xlim=(0, end), ylim=(max(len(rows), 1) - 0.4, -0.6))
        ax.grid(axis="y", visible=False)
        ax.xaxis.get_major_locator().set_params(nbins=5)
        draw_column(ax, 34, "PSI", ["" if r["psi"] is None else f"{r['psi']:.3f}" for r in rows])
        ax.set(xlabel="population stability index; tick: null level")
        legend_below(ax)
        of_all = "" if len(rows) == len(table) else f", largest 15 of {len(table)}"
        heading(ax, f"Shift of columns{of_all}", above=13)
    return ax


def _draw_shift(ax: "Axes", at: int, row: Mapping[str, object], end: float) -> None:
    """One column's bar and its tick, or in words that there is none."""
    if row["psi"] is None:
        draw_interval(ax, at, None, None, None, GREY, "o")
        return
    colour, hatch = SHIFTS[row["verdict"]]
    ax.barh(at, row["psi"], color=colour, hatch=hatch, ec="white", lw=0, height=0.62)
    ax.plot([row["null_level"]] * 2, [at - 0.42, at + 0.42], color=INK, lw=1.8, solid_capstyle="butt")
    if row["psi"] > end:
        ax.plot([end], [at], color=colour, marker=">", ms=9, clip_on=False)


def score_shift(
    expected: ArrayLike,
    actual: ArrayLike,
    names: tuple[str, str] = ("train", "test"),
    ax: "Axes | None" = None,
) -> "Axes":
    """Shares of two sets of scores in 25 bins of [0, 1] on a log scale, with their PSI in words."""
    sides = [checked(np.zeros(np.size(p)), probability=True, p=p)[1] for p in (expected, actual)]
    found = psi(*sides)
    with canvas(ax, HEIGHT * 0.85) as ax:
        edges = np.linspace(0, 1, 26)
        for p, name, colour, dash in zip(sides, names, (BLUE, RED), ("-", "--"), strict=True):
            share = np.histogram(p, edges)[0] / max(p.size, 1)
            ax.stairs(share, edges, color=colour, fill=True, alpha=0.15)
            ax.stairs(share, edges, color=colour, lw=1.4, ls=dash, label=f"{name} (n = {p.size:,})")
        ax.set(xlabel=f"score; PSI {found}", ylabel="share of the rows", xlim=(0, 1), yscale="log")
        ax.legend(loc="upper right")
        heading(ax, f"Scores, {names[0]} and {names[1]}")
    return ax


RATIO_TICKS = (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50)


def trait_forest(table: pl.DataFrame, counts: tuple[int, int], ax: "Axes | None" = None) -> "Axes":
    """Forest plot of `errors.mis_ranked`: how often frauds with a trait are missed, against those without.

    The 15 traits with the highest lower ends; `counts` are rows and frauds of the data. A diamond is
    significant after Holm's correction, an arrow is an interval that leaves the frame.
    """
    ends = bounded("missed_ratio")
    require_columns(table, "trait", "n_positive", "n_missed", *ends, "missed_p_holm")
    known = table.drop_nulls("missed_ratio")
    rows = (
        known.sort("missed_ratio_low", "missed_ratio", descending=True, maintain_order=True)
        .head(15)
        .to_dicts()
    )
    with canvas(ax, 1.25 + 0.36 * max(2, len(rows))) as ax:
        ax.axvline(1, color=GREY, lw=0.8, ls=":")
        values = [row[name] for row in rows for name in ends]
        values = [value for value in values if value]  # neither zero nor without an end
        low, high = max(0.03, 0.8 * min([0.8, *values])), min(40, 1.25 * max([1.6, *values]))
        ax.set(xscale="log", xlim=(low, high), yticks=[], ylim=(max(len(rows), 1) - 0.3, -0.9))
        ticks = [tick for tick in RATIO_TICKS if low <= tick <= high]
        ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        ax.set_xticks([], minor=True)
        for at, row in enumerate(rows):
            _draw_trait(ax, at, row, (low, high))
        if not rows:
            draw_interval(ax, 0, None, None, None, GREY, "o")
        draw_column(ax, 30, "ratio", [f"{row['missed_ratio']:.2f}" for row in rows])
        draw_column(ax, 88, "missed", [f"{row['n_missed']:,} of {row['n_positive']:,}" for row in rows])
        ax.set(xlabel="rate of missed frauds with / without the trait\n95 % interval; diamond: significant")
        of_all = "" if len(rows) == len(known) else f", top 15 of {len(known)}"
        heading(ax, f"Traits of missed frauds{of_all}", counts, above=13)
    return ax


def _draw_trait(ax: "Axes", at: int, row: Mapping[str, object], ends: tuple[float, float]) -> None:
    """One trait: its sentence, and under it the ratio and the interval as far as the frame goes."""
    colour, marker = (RED, "D") if row["missed_p_holm"] < ALPHA else (GREY, "o")
    figures = [row[name] for name in bounded("missed_ratio")]
    ratio, low, high = np.clip([np.inf if value is None else value for value in figures], *ends).tolist()
    draw_interval(ax, at, ratio, low, high, colour, marker)
    for end, arrow in ((low, "<"), (high, ">")):
        if end in ends:
            ax.plot([end], [at], color=colour, marker=arrow, clip_on=False)
    box = {"fc": "white", "ec": "none", "pad": 0.5}
    place = {"transform": ax.get_yaxis_transform(), "fontsize": 7.5, "va": "center", "bbox": box}
    ax.text(0.01, at - 0.45, row["trait"], color=INK, **place)
