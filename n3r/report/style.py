"""The house style of figures: a canvas to draw on, its headings, curves, forest plots, and SVG.

Decisions:
- 4.2 inches wide, 8 to 9.5 pt type: legible at 400 px and in a printed column.
- Okabe-Ito colours, with a line style or marker each, so no reading rests on colour alone.
- A Figure of its own, outside pyplot's registry, so nothing leaks and nothing pops up.
- SVG is a pure function of the figure: no date, no random ids.
"""

import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from numpy.typing import ArrayLike

from n3r.estimate import NOT_ENOUGH

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

BLUE, RED, GREEN, PURPLE, ORANGE, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
COLOURS = (BLUE, RED, GREEN, PURPLE, ORANGE, SKY)
DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)))
INK, GREY, RULE, BAND = "#222222", "#6b6b6b", "#e2e2e2", "#dcebf5"
VERDICTS = {"equivalent": (GREEN, "o"), "different": (RED, "D"), "not shown": (GREY, "s")}
MAX_ROWS = 25  # of a forest plot; more do not fit a page, and the smallest say least
WIDTH, HEIGHT = 4.2, 3.3  # inches
STYLE = {
    "font.size": 8.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.titlesize": 9.5,
    "axes.axisbelow": True,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 5,
}


def to_svg(fig: "Figure") -> str:
    """The figure as an `<svg>` element to set into HTML; the same figure gives the same bytes."""
    import matplotlib

    _settle(fig)
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "n3r"}):
        fig.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def to_png(fig: "Figure", dpi: int = 200) -> bytes:
    """The figure as a PNG file; the same figure gives the same bytes."""
    _settle(fig)
    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def _settle(fig: "Figure") -> None:
    """Lay the figure out for good: matplotlib starts each draw from the last layout and drifts."""
    if fig.get_layout_engine() is not None:
        fig.draw_without_rendering()
        fig.set_layout_engine("none")


@contextmanager
def canvas(ax: "Axes | None", height: float = HEIGHT) -> Iterator["Axes"]:
    """The Axes to draw on, in the house style, which is undone for the caller's other figures."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        if ax is None:
            ax = Figure(figsize=(WIDTH, height), layout="constrained").add_subplot()
        dress(ax)
        yield ax


def dress(ax: "Axes") -> None:
    """Light grid, two spines; set on the Axes, since a given one was made under another style."""
    ax.grid(True, color=RULE, lw=0.6)
    ax.set_axisbelow(True)
    for axis in (ax.xaxis, ax.yaxis):
        axis.label.set(size=8.5, color=INK)
    ax.tick_params(labelsize=8, labelcolor=INK, color=GREY, length=3)
    for side, spine in ax.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set(color=GREY, linewidth=0.8)


def heading(ax: "Axes", title: str, *counts: tuple[int, int], above: int = 0) -> None:
    """The name and, on a line below it, n and base rate; `above` leaves points free under both."""
    ax.set_title(title, loc="left", fontweight="bold", pad=above + (17 if counts else 5))
    if len(counts) > 1:
        low, high = (f(n for n, _ in counts) for f in (min, max))
        text = f"n = {low:,}, base rates differ" if low == high else f"n = {low:,} to {high:,}"
    else:
        text = sized(*counts[0]) if counts else ""
    place = ("axes fraction", "offset points")
    ax.annotate(text, (0, 1), (0, above + 5), *place, color=GREY, fontsize=8)


def class_counts(labels: Iterable[ArrayLike]) -> list[tuple[int, int]]:
    """The distinct (rows, positive rows) of several label vectors, in order."""
    pairs = [(np.size(y), int(np.sum(np.asarray(y) == 1))) for y in labels]
    return list(dict.fromkeys(pairs))


def drawable(name: str) -> str:
    """A name from outside for a plot: matplotlib reads $...$ as a formula."""
    return name.replace("$", r"\$")


def sized(n: int, n_positive: int) -> str:
    """Rows and base rate in words."""
    return f"n = {n:,}" + (f", {n_positive / n:.1%} positive" if n else "")


def draw_curve(ax: "Axes", i: int, points: tuple[np.ndarray, np.ndarray] | None, label: str) -> "Line2D":
    """The i-th of several curves, in its colour and dash; None draws nothing and keeps the label."""
    x, y = ([], []) if points is None else points
    [line] = ax.plot(x, y, color=COLOURS[i % len(COLOURS)], ls=DASHES[i % len(DASHES)], label=label)
    return line


def forest_height(table: pl.DataFrame) -> float:
    """Inches that a forest plot of the table needs."""
    return 1.15 + 0.27 * max(2, min(len(table), MAX_ROWS))


def forest_rows(
    ax: "Axes", table: pl.DataFrame, column: str, title: str, counts: tuple[int, int]
) -> list[dict]:
    """Set up one line a row of the table, the first on top, and return the rows that have one."""
    rows = table.head(MAX_ROWS).to_dicts()
    names = [row[column] for row in rows]
    ax.set_yticks(range(len(rows)), [name if len(name) <= 20 else f"{name[:19]}…" for name in names])
    ax.set_ylim(max(len(rows), 1) - 0.4, -0.6)
    ax.grid(axis="y", visible=False)
    if len(table) > len(rows):
        title += f", largest {len(rows)} of {len(table)}"
    heading(ax, title, counts, above=13)
    return rows


def draw_interval(
    ax: "Axes", at: int, value: float | None, low: float | None, high: float | None, colour: str, marker: str
) -> None:
    """A value and its interval on line `at` of a forest plot; None reads "not enough data"."""
    if value is None:
        place = {"transform": ax.get_yaxis_transform(), "ha": "center", "va": "center"}
        paper = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}  # lines of the plot end at the words
        ax.text(0.5, at, NOT_ENOUGH, color=GREY, bbox=paper, **place)
        return
    ends = None if low is None else [[value - low], [high - value]]
    ax.errorbar([value], [at], xerr=ends, color=colour, marker=marker, capsize=2.5, elinewidth=1.3)


def draw_column(ax: "Axes", offset: int, head: str, cells: Sequence[str]) -> None:
    """Words right of the frame, right-aligned `offset` points from it, one cell a row."""
    place = {"textcoords": "offset points", "ha": "right", "fontsize": 8}
    ax.annotate(head, (1, 1), (offset, 5), "axes fraction", color=GREY, **place)
    for at, cell in enumerate(cells):
        ax.annotate(cell, (1, at), (offset, 0), ax.get_yaxis_transform(), va="center", **place)


def legend_below(ax: "Axes", **options: object) -> None:
    """Under the x label, where no line can run through it."""
    place = {"loc": "upper center", "bbox_to_anchor": (0.5, 0), "borderaxespad": 4.2}
    ax.legend(ncol=3, handlelength=3, **place, **options)


def require_columns(table: pl.DataFrame, *columns: str) -> None:
    """ValueError naming the columns that a table lacks."""
    if missing := [name for name in columns if name not in table.columns]:
        raise ValueError(f"table lacks the columns {', '.join(missing)}; it has {', '.join(table.columns)}")
