"""Figures of one model's evaluation: what a team that acts on scores asks, in the house style of style.py.

Every function takes tables of the evaluation's statistics and an optional Axes, draws on it and returns it.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import ArrayLike

from n3r.estimate import NO_GROUP, NOT_ENOUGH, bounded, checked
from n3r.evaluation.drift import SHIFTED, SOME_SHIFT, psi
from n3r.metrics import ALPHA
from n3r.report import style
from n3r.report.figures import SCORE_AXES, SCORE_BINS, UNIT
from n3r.report.style import BLUE, GREEN, GREY, HEIGHT, INK, ORANGE, RED, REFERENCE, canvas, look, rows_height

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Tables = Mapping[str, pl.DataFrame]  # by score
MAX_SHOWN = 15  # columns or traits
# what `groups.by_group` calls a rate -> its name, of what, how many those are in a row, colour and marker
GROUP_RATES = {
    "recall": ("recall", "frauds", lambda row: row["n_positive"], BLUE, "o"),
    "fpr": ("false-positive rate", "legitimate", lambda row: row["n"] - row["n_positive"], RED, "D"),
    "alert_rate": ("alert rate", "orders", lambda row: row["n"], GREEN, "s"),
}
SHIFTS = {"stable": (BLUE, None), "some shift": (ORANGE, "////"), "shifted": (RED, "xxxx")}  # a word's bar
RATIO_TICKS = (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50)


def group_rates(
    table: pl.DataFrame, rate: str, overall: float | None = None, ax: "Axes | None" = None
) -> "Axes":
    """Forest plot of one rate of `groups.by_group` with its 95 % interval, largest group on top.

    `rate` is "recall", "fpr" or "alert_rate"; the line is `overall`, the rate of all rows.
    """
    name, of, n_shown, *mark = GROUP_RATES[rate]
    asides = [("rate", 36, style.cell(rate, ".1%")), (of, 96, lambda row: f"{n_shown(row):,}")]
    xlabel = f"{name}, 95 % interval" + ("" if overall is None else f"\nline: all rows, {overall:.1%}")
    words = (f"{name[0].upper()}{name[1:]} by group", xlabel)
    marks = {"line": overall, "nbins": 5, "mark": lambda row: tuple(mark)}
    ax = style.forest(table, "group", rate, words, asides, ax, **marks)
    ax.xaxis.set_major_formatter(lambda v, _: f"{100 * v:.3g}%")
    return ax


def group_calibration(table: pl.DataFrame, ax: "Axes | None" = None) -> "Axes":
    """Forest plot of observed to expected frauds of `groups.by_group`, 95 % interval, line at 1.

    What reaches past twice the largest ratio (at least past 2) is cut off by the frame.
    """
    style.require_columns(table, "mean_score")
    asides = [
        ("ratio", 30, style.cell("ratio", ".2f")),
        ("observed", 76, style.cell("n_positive", ",")),
        ("expected", 122, lambda row: f"{row['mean_score'] * row['n']:,.1f}"),
    ]
    words = ("Frauds observed / expected", "ratio, 95 % interval")
    ax = style.forest(table, "group", "ratio", words, asides, ax, line=1)
    shown = table.head(style.MAX_ROWS)
    largest, end = (max([1.0, *shown[name].drop_nulls()]) for name in ("ratio", "ratio_high"))
    ax.set_xlim(0, 1.05 * min(end, 2 * largest))
    return ax


def slice_trend(table: pl.DataFrame, ax: "Axes | None" = None) -> "Axes":
    """AUC with its 95 % interval (left) and alert rate (right) over the time slices of `groups.by_group`.

    Slices are in the order of their labels and are named by their beginning; rows without a time are left
    out.
    """
    columns = (*bounded("auroc"), "alert_rate")
    style.require_columns(table, "group", "n", "n_positive", *columns)
    slices = table.filter(pl.col("group") != NO_GROUP).sort("group")
    auc, low, high, alerts = slices.select(pl.col(columns).cast(pl.Float64)).to_numpy().T
    place = np.arange(len(slices))
    labels = {"xlabel": "beginning of the slice", "ylabel": "AUC", "above": 16}
    with canvas(ax, "AUC and alerts over time", [style.totals(slices)], **labels) as ax:
        right = style.twin(ax)
        bars = {"capsize": 2.5, "elinewidth": 1.3, "label": "AUC, 95 % interval"}
        drawn = ax.errorbar(place, auc, (auc - low, high - auc), color=BLUE, marker="o", **bars)
        line = right.plot(place, alerts, color=RED, marker="D", ls="--", label="alert rate (right)")
        words = {"transform": ax.get_xaxis_transform(), "rotation": 90, "va": "top", "fontsize": 8}
        for at in place[np.isnan(auc)]:
            style.say_not_enough(ax, at, 0.98, **words)
        # The curves have no scale in common, so they keep apart: alerts below, AUC above.
        if np.isfinite(auc).any():
            bottom, top = ax.get_ylim()
            ax.set_ylim(bottom - 0.55 * (top - bottom), top)
        else:
            ax.set_yticks([])
        highest = max([1e-3, *alerts[np.isfinite(alerts)]])
        right.set_ylim(-0.1 * highest, 3.4 * highest)
        right.set_yticks([0, highest], ["0%", f"{100 * highest:.3g}%"])
        right.set_ylabel("alert rate", color=RED)
        beginnings = [group.split(" to ")[0] for group in slices["group"]]
        ax.set_xticks(place, beginnings, rotation=30, ha="right")
        ax.set_xlim(-0.5, max(len(slices), 1) - 0.5)
        above = {"loc": "lower left", "ncol": 2, "bbox_to_anchor": (0, 1), "borderaxespad": 0}
        ax.legend(handles=[drawn, *line], **above)
    return ax


def operating_recall(tables: Tables, ax: "Axes | None" = None) -> "Axes":
    """Recall and its 95 % interval over the allowed false-positive rate, of `{name: operating_points}`."""
    labels = {"xlabel": "false-positive rate allowed", "ylabel": "recall, 95 % interval"}
    title, ylim = "Recall at chosen false-positive rates", (-0.02, 1.02)
    return _at_shares(tables, "fpr", "recall", ax, title=title, ylim=ylim, **labels)


def lift(tables: Tables, ax: "Axes | None" = None) -> "Axes":
    """Lift over the base rate and its 95 % interval in the top shares, of `{name: top_shares}`."""
    labels = {"xlabel": "top share of orders", "ylabel": "lift, 95 % interval"}
    ax = _at_shares(tables, "share", "lift", ax, title="Lift in the top shares", **labels)
    ax.axhline(1, **REFERENCE)
    ax.set_ylim(0, None)
    ax.yaxis.set_major_formatter(lambda v, _: f"{v:g}×")
    return ax


def _at_shares(tables: Tables, x: str, value: str, ax: "Axes | None", **labels: Any) -> "Axes":
    """A line with intervals for each table, each a little to the right of the one before."""
    bounds = bounded(value)[1:]
    for table in tables.values():
        style.require_columns(table, x, value, *bounds, "n", "n_positive")
    height = HEIGHT + style.legend_height(list(tables))
    with canvas(ax, counts=_sizes(tables), height=height, **labels) as ax:
        if all(table[value].is_null().all() for table in tables.values()):
            _leave_empty(ax)
            return ax
        for i, (name, table) in enumerate(tables.items()):
            shown = table.drop_nulls(value).with_columns(pl.col(*bounds).fill_null(pl.col(value)))
            at = shown[x].to_numpy() * 1.06 ** (i - (len(tables) - 1) / 2)
            _draw_errors(ax, i, name, at, *shown.select(value, *bounds).to_numpy().T)
        shares = sorted({share for table in tables.values() for share in table[x]})
        ax.set(xscale="log", xlim=(shares[0] / 1.3, shares[-1] * 1.3))
        ax.set_xticks(shares, [f"{100 * share:g}%" for share in shares])
        ax.xaxis.set_minor_formatter("")
        style.legend_below(ax)
    return ax


def gain(curves: Tables, tops: Tables | None = None, ax: "Axes | None" = None) -> "Axes":
    """Share of frauds caught over share of orders flagged, of `{name: gain_points}`.

    `tops`, `{name: top_shares}`, marks the captures; the legend gives that of the largest share. The diagonal
    is what flagging at random catches.
    """
    tops = tops or {}
    for table in curves.values():
        style.require_columns(table, "flagged", "caught", "n", "n_positive")
    named = [name + (_last(tops.get(name)) if len(t) else f": {NOT_ENOUGH}") for name, t in curves.items()]
    labels = {"xlabel": "share of orders flagged", "ylabel": "share of frauds caught", **UNIT}
    height = HEIGHT + style.legend_height(named)
    with canvas(ax, "Gain", _sizes(curves) or _sizes(tops), height, **labels) as ax:
        ax.plot([0, 1], [0, 1], **REFERENCE)
        drawn = []
        for i, (label, (name, table)) in enumerate(zip(named, curves.items(), strict=True)):
            if name in tops:
                shown = tops[name].drop_nulls("capture")
                ax.plot(shown["share"], shown["capture"], **{**look(i), "ls": "none", "ms": 4})
            drawn.append(style.draw_curve(ax, i, (table["flagged"], table["caught"]), label))
        style.legend_below(ax, handles=drawn)
    return ax


def _last(table: pl.DataFrame | None) -> str:
    """The capture of the largest share, in words."""
    if table is None:
        return ""
    style.require_columns(table, "share", "capture")
    shown = table.drop_nulls("capture").sort("share")
    return "" if shown.is_empty() else f", top {100 * shown['share'][-1]:g}%: {shown['capture'][-1]:.0%}"


def cost_curve(
    curve: pl.DataFrame,
    cheapest: Mapping[str, float | None],
    chosen: Mapping[str, float | None] | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """Cost per 1,000 orders over the share flagged, of `cost_points`; a dotted line is flagging none.

    `cheapest` is marked, and so is `chosen`, the row (`at_threshold`) of a threshold chosen on other rows.
    Costs far above that of flagging none are cut off.
    """
    style.require_columns(curve, "flagged", "cost_per_1000")
    labels = {"xlabel": "share of orders flagged", "ylabel": "cost per 1,000 orders"}
    with canvas(ax, "Cost of a threshold", [(cheapest["n"], cheapest["n_positive"])], **labels) as ax:
        if curve.is_empty():
            _leave_empty(ax)
        else:
            _draw_costs(ax, curve, {"cheapest": cheapest, "chosen on validation": chosen})
    return ax


def _draw_costs(
    ax: "Axes", curve: pl.DataFrame, marked: Mapping[str, Mapping[str, float | None] | None]
) -> None:
    none = top = curve["cost_per_1000"][0]
    some = curve.filter(pl.col("flagged") >= 1e-4)
    style.draw_curve(ax, 0, (some["flagged"], some["cost_per_1000"]), "_")
    style.draw_level(ax, none, f"flag none: {none:,.0f}")
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
    style.legend_below(ax)


def _share_axis(ax: "Axes", side: str, low: float) -> None:
    """A logarithmic axis of shares, in per cent."""
    ax.set(**{f"{side}scale": "log", f"{side}lim": (low, 1.15)})
    axis = {"x": ax.xaxis, "y": ax.yaxis}[side]
    axis.set_major_formatter(lambda v, _: f"{100 * v:g}%")
    axis.set_minor_formatter("")


def _draw_errors(
    ax: "Axes", i: int, name: str, x: np.ndarray, value: np.ndarray, low: np.ndarray, high: np.ndarray
) -> None:
    label = name if x.size else f"{name}: {NOT_ENOUGH}"
    lines = {"lw": 1.1, "ms": 4, "capsize": 2, "elinewidth": 1.1}
    ax.errorbar(x, value, yerr=np.abs([value - low, high - value]), label=label, **look(i), **lines)


def _leave_empty(ax: "Axes") -> None:
    style.say_not_enough(ax)
    ax.set(xticks=[], yticks=[])


def _sizes(tables: Tables) -> list[tuple[int, int]]:
    """The distinct (rows, positive rows) of tables that repeat both in each row."""
    return list(dict.fromkeys(t.select("n", "n_positive").row(0) for t in tables.values() if len(t)))


def reliability_diagram(tables: Tables, ax: "Axes | None" = None) -> "Axes":
    """Observed rate and its Wilson interval over the mean score, of `{name: reliability}`.

    On the dotted line scores are the rates they promise. Axes are logarithmic: most bins of a rare class lie
    near zero. A bin without a fraud is a hollow mark at its upper bound.
    """
    return _calibration(tables, "observed", "Reliability", "observed rate, 95 % interval", ax)


def posterior_calibration(tables: Tables, ax: "Axes | None" = None) -> "Axes":
    """Mean true probability, with its 10 to 90 % range, over the mean score, of `{name: posterior_bins}`."""
    title = "Scores against the true probability"
    return _calibration(tables, "mean_posterior", title, "true probability, 10 to 90 %", ax)


def _calibration(tables: Tables, value: str, title: str, ylabel: str, ax: "Axes | None") -> "Axes":
    for table in tables.values():
        style.require_columns(table, "mean_score", *bounded(value), "n")
    sizes = [(t["n"].sum(), round((t["n"] * t[value]).sum())) for t in tables.values()]  # and frauds expected
    labels = {"xlabel": "mean score of a bin of equal numbers of rows", "ylabel": ylabel}
    with canvas(ax, title, list(dict.fromkeys(sizes)), **labels) as ax:
        _draw_bins(ax, {name: t.select("mean_score", *bounded(value)) for name, t in tables.items()})
    return ax


def _draw_bins(ax: "Axes", tables: Tables) -> None:
    """Values with intervals over mean scores, on two equal logarithmic axes."""
    bins = [table.to_numpy() for table in tables.values()]
    centres = np.concatenate([rows[:, :2].ravel() for rows in bins]) if bins else np.zeros(0)
    if not centres.size:
        return _leave_empty(ax)
    floor = max(1e-5, 0.6 * centres[centres > 0].min(initial=1))  # lower scores lie on the edge
    hollow = {"ls": "none", "ms": 5, "mfc": "none"}
    for i, (name, rows) in enumerate(zip(tables, bins, strict=True)):
        some = rows[:, 1] > 0
        _draw_errors(ax, i, name, *rows[some].clip(floor).T)
        ax.plot(rows[~some, 0].clip(floor), rows[~some, 3], **{**look(i), **hollow})
    if any((rows[:, 1] == 0).any() for rows in bins):
        ax.plot([], [], color=GREY, marker="o", label="hollow: none seen, upper bound", **hollow)
    ax.plot([floor, 1], [floor, 1], zorder=1, **REFERENCE)
    for side in ("x", "y"):
        _share_axis(ax, side, floor / 1.1)
    style.legend_below(ax)


def drift_bars(table: pl.DataFrame, ax: "Axes | None" = None) -> "Axes":
    """Bars of `drift.drift`, largest on top, each with a tick at its null level; at most 15 columns.

    Dotted lines are the conventional limits. A bar past 0.5 is cut off there and ends in an arrow.
    """
    style.require_columns(table, "column", "psi", "null_level", "verdict")
    rows = table.head(MAX_SHOWN).to_dicts()
    known = [value for row in rows for value in (row["psi"], row["null_level"]) if value is not None]
    end = min(max([0.12, *(1.08 * value for value in known)]), 2 * SHIFTED)
    labels = {"xlabel": "population stability index; tick: null level", "xlim": (0, end), "above": 13}
    shown = style.partly(len(rows), len(table))
    height = 0.35 + rows_height(len(rows))
    with canvas(ax, "Shift of columns", height=height, shown=shown, **labels) as ax:
        for limit in (SOME_SHIFT, SHIFTED):
            ax.axvline(limit, **REFERENCE)
        for word, (colour, hatch) in SHIFTS.items():
            ax.barh(0, 0, color=colour, hatch=hatch, ec="white", lw=0, label=word)
        for at, row in enumerate(rows):
            _draw_shift(ax, at, row, end)
        style.name_rows(ax, [row["column"] for row in rows])
        ax.xaxis.get_major_locator().set_params(nbins=5)
        style.draw_asides(ax, rows, [("PSI", 34, style.cell("psi", ".3f"))])
        style.legend_below(ax)
    return ax


def _draw_shift(ax: "Axes", at: int, row: Mapping[str, object], end: float) -> None:
    """One column's bar and its tick, or in words that there is none."""
    if row["psi"] is None:
        style.draw_interval(ax, at, None, None, None, GREY, "o")
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
    named = {f"{name} (n = {p.size:,})": p for name, p in zip(names, sides, strict=True)}
    labels = {"xlabel": f"score; PSI {psi(*sides)}", "ylabel": "share of the rows", **SCORE_AXES}
    with canvas(ax, f"Scores, {names[0]} and {names[1]}", height=HEIGHT * 0.85, **labels) as ax:
        style.draw_shares(ax, SCORE_BINS, named)
        style.legend_below(ax)
    return ax


def trait_forest(table: pl.DataFrame, counts: tuple[int, int], ax: "Axes | None" = None) -> "Axes":
    """Forest plot of `errors.mis_ranked`: how often frauds with a trait are missed, against those without.

    The 15 traits with the highest lower ends; `counts` are rows and frauds of the data. A diamond is
    significant after Holm's correction, an arrow is an interval that leaves the frame.
    """
    columns = bounded("missed_ratio")
    style.require_columns(table, "trait", "n_positive", "n_missed", *columns, "missed_p_holm")
    known = table.drop_nulls("missed_ratio")
    worst = known.sort("missed_ratio_low", "missed_ratio", descending=True, maintain_order=True)
    rows = worst.head(MAX_SHOWN).to_dicts()
    values = [row[name] for row in rows for name in columns if row[name]]  # neither zero nor without an end
    low, high = max(0.03, 0.8 * min([0.8, *values])), min(40, 1.25 * max([1.6, *values]))
    asides = [
        ("ratio", 30, style.cell("missed_ratio", ".2f")),
        ("missed", 88, lambda row: f"{row['n_missed']:,} of {row['n_positive']:,}"),
    ]
    shown = style.partly(len(rows), len(known), "top {} of {}")
    xlabel = "rate of missed frauds with / without the trait\n95 % interval; diamond: significant"
    height = style.named_height(len(rows))
    with canvas(ax, "Traits of missed frauds", [counts], height, 13, shown, xlabel=xlabel) as ax:
        ax.axvline(1, **REFERENCE)
        ax.set(xscale="log", xlim=(low, high), yticks=[], ylim=(max(len(rows), 1) - 0.3, -0.9))
        ticks = [tick for tick in RATIO_TICKS if low <= tick <= high]
        ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        ax.set_xticks([], minor=True)
        for at, row in enumerate(rows):
            _draw_trait(ax, at, row, [row[name] for name in columns], (low, high))
        if not rows:
            style.draw_interval(ax, 0, None, None, None, GREY, "o")
        style.draw_asides(ax, rows, asides)
    return ax


def _draw_trait(
    ax: "Axes", at: int, row: Mapping[str, object], figures: Sequence[float | None], ends: tuple[float, float]
) -> None:
    """One trait: its sentence, and under it the ratio and the interval as far as the frame goes."""
    colour, marker = (RED, "D") if row["missed_p_holm"] < ALPHA else (GREY, "o")
    ratio, low, high = np.clip([np.inf if value is None else value for value in figures], *ends).tolist()
    style.draw_interval(ax, at, ratio, low, high, colour, marker)
    for end, arrow in ((low, "<"), (high, ">")):
        if end in ends:
            ax.plot([end], [at], color=colour, marker=arrow, clip_on=False)
    style.name_above(ax, at, row["trait"])
