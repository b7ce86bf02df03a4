"""The house style of figures: a canvas to draw on, its headings, curves, forest plots, and files.

Decisions:
- 4.2 inches wide, 8 to 9.5 pt type: legible at 400 px and in a printed column.
- Okabe-Ito colours, with a line style or marker each, so no reading rests on colour alone.
- A Figure of its own, outside pyplot's registry, so nothing leaks and nothing pops up.
- SVG and PNG are pure functions of the figure: no date, no random ids.
"""

import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import ArrayLike

from n3r.estimate import NOT_ENOUGH, bounded

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

BLUE, RED, GREEN, PURPLE, ORANGE, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
COLOURS = (BLUE, RED, GREEN, PURPLE, ORANGE, SKY)
DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)))
MARKERS = ("o", "s", "D", "^", "v", "P")
INK, GREY, RULE, BAND = "#222222", "#6b6b6b", "#e2e2e2", "#dcebf5"
REFERENCE = {"color": GREY, "lw": 0.8, "ls": ":"}  # a line to compare with
MAX_ROWS = 25  # of a forest plot; more do not fit a page, and the smallest say least
WIDTH, HEIGHT = 4.2, 3.3  # inches
STYLE = {
    "font.size": 8.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.titlesize": 9.5,
    "axes.axisbelow": True,
    "legend.fontsize": 8,
    "legend.framealpha": 0.85,  # words can be read where a line runs under them
    "legend.edgecolor": "none",
    "lines.linewidth": 1.6,
    "lines.markersize": 5,
}
Counts = Sequence[tuple[int, int]]  # rows and positive rows, one pair a system, or the one that all share
Aside = tuple[str, int, Callable[[dict], str]]  # heading, points right of the frame, a row's text


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
    import matplotlib

    engine = fig.get_layout_engine()
    if engine is not None:
        engine.execute(fig)
        with matplotlib.rc_context({"figure.autolayout": False, "figure.constrained_layout.use": False}):
            # With the engine "none" a figure is drawn twice to be saved, with none at all once.
            fig.set_layout_engine(None)


@contextmanager
def canvas(
    ax: "Axes | None",
    title: str = "",
    counts: Counts = (),
    height: float = HEIGHT,
    above: int = 0,
    shown: str = "",
    **axes: Any,
) -> Iterator["Axes"]:
    """The Axes to draw on, in the house style, which is undone for the caller's other figures.

    At the end it gets its heading, under which `above` leaves points free, and what `Axes.set` takes. `shown`
    says where not all is.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        if ax is None:
            ax = Figure(figsize=(WIDTH, height), layout="constrained").add_subplot()
        dress(ax)
        yield ax
        ax.set(**axes)
        if title:
            heading(ax, title, *counts, above=above, shown=shown)


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


def twin(ax: "Axes") -> "Axes":
    """A second scale on the right."""
    right = ax.twinx()
    dress(right)
    right.grid(False)
    return right


def heading(ax: "Axes", title: str, *counts: tuple[int, int], above: int = 0, shown: str = "") -> None:
    """The name and, on a line below it, n, base rate and `shown`; `above` leaves points free under both."""
    if len(counts) > 1:
        low, high = (f(n for n, _ in counts) for f in (min, max))
        text = f"n = {low:,}, base rates differ" if low == high else f"n = {low:,} to {high:,}"
    else:
        text = sized(*counts[0]) if counts else ""
    text = ", ".join(part for part in (text, shown) if part)
    ax.set_title(title, loc="left", fontweight="bold", pad=above + (17 if text else 5))
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
    """Rows and the rate of fraud in words."""
    return f"n = {n:,}" + (f", {n_positive / n:.1%} fraud" if n else "")


def partly(shown: int, n: int, words: str = "largest {} of {}") -> str:
    """What a heading says where not all is shown."""
    return "" if shown == n else words.format(shown, n)


def say_not_enough(ax: "Axes", x: float = 0.5, y: float = 0.5, **options: Any) -> None:
    """Words in place of what the rows cannot show."""
    place = {"ha": "center", "va": "center", "transform": ax.transAxes, **options}
    ax.text(x, y, NOT_ENOUGH, color=GREY, **place)


def legend_below(ax: "Axes", **options: Any) -> None:
    """Under the x label, where no line can run through it, in as many columns as its words leave room for."""
    labels = [line.get_label() for line in options.get("handles") or ax.get_legend_handles_labels()[0]]
    place = {"loc": "upper center", "bbox_to_anchor": (0.5, 0), "borderaxespad": 4.2}
    ax.legend(ncol=_columns(labels), handlelength=3, **place, **options)


def legend_height(labels: Sequence[str], title: bool = False) -> float:
    """Inches that a legend of these words needs."""
    return 0.17 * (-(-len(labels) // _columns(labels)) + title) + 0.1


def _columns(labels: Sequence[str]) -> int:
    return max(1, min(3, len(labels), 62 // (9 + max(map(len, labels), default=0))))


def look(i: int) -> dict[str, Any]:
    """The colour, dash and marker of the i-th of several systems."""
    again, at = divmod(i, len(COLOURS))
    return {
        "color": COLOURS[at],
        **{kind: of[(at + again) % len(of)] for kind, of in (("ls", DASHES), ("marker", MARKERS))},
    }


def draw_curve(
    ax: "Axes", i: int, points: tuple[ArrayLike, ArrayLike] | None, label: str, **options: Any
) -> "Line2D":
    """The i-th of several curves, without marks; None draws nothing and keeps the label."""
    [line] = ax.plot(*(points or ([], [])), label=label, **{**look(i), "marker": "None", **options})
    return line


def draw_band(ax: "Axes", i: int, x: ArrayLike, low: ArrayLike, high: ArrayLike) -> None:
    """The intervals of the i-th curve."""
    ax.fill_between(x, low, high, color=look(i)["color"], alpha=0.15, lw=0)


def draw_level(ax: "Axes", y: float, words: str, x: float = 0.01) -> None:
    """A dotted line across, and words on it that begin at the share x of its length."""
    ax.axhline(y, **REFERENCE)
    ax.text(x, y, words, color=GREY, transform=ax.get_yaxis_transform(), va="bottom", fontsize=8)


def draw_shares(ax: "Axes", edges: np.ndarray, sides: Mapping[str, ArrayLike]) -> None:
    """The share of each of two sides' values in bins."""
    for (label, values), colour, dash in zip(sides.items(), (BLUE, RED), ("-", "--"), strict=True):
        share = np.histogram(values, edges)[0] / max(len(values), 1)
        ax.stairs(share, edges, color=colour, fill=True, alpha=0.15)
        ax.stairs(share, edges, color=colour, lw=1.4, ls=dash, label=label)


def rows_height(n: int) -> float:
    """Inches that so many lines need, those of a forest plot or bars."""
    return 1.15 + 0.27 * max(2, min(n, MAX_ROWS))


def name_rows(ax: "Axes", names: Sequence[str], max_length: int = 20) -> None:
    """A line for each name, the first on top."""
    ax.set_yticks(
        range(len(names)), [n if len(n) <= max_length else f"{n[: max_length - 1]}…" for n in names]
    )
    ax.set_ylim(max(len(names), 1) - 0.4, -0.6)
    ax.grid(axis="y", visible=False)


def name_above(ax: "Axes", at: int, name: str) -> None:
    """A long name over line `at` of a forest plot."""
    box = {"fc": "white", "ec": "none", "pad": 0.5}
    place = {"transform": ax.get_yaxis_transform(), "fontsize": 7.5, "va": "center", "bbox": box}
    ax.text(0.01, at - 0.45, name, color=INK, **place)


def named_height(n: int) -> float:
    """Inches of so many lines with names over them."""
    return 1.25 + 0.36 * max(2, n)


def draw_bars(ax: "Axes", names: Sequence[str], values: ArrayLike, base: float = 0, **options: Any) -> None:
    """A bar for each name, from `base` to its value."""
    lengths = np.asarray(values, float) - base
    ax.barh(range(len(names)), lengths, left=base, height=0.6, **{"color": BLUE, **options})
    ax.axvline(base, color=GREY, lw=0.8)
    name_rows(ax, names, max_length=24)


def forest(
    table: pl.DataFrame,
    name: str,
    metric: str,
    words: tuple[str, str],
    asides: Sequence[Aside] = (),
    ax: "Axes | None" = None,
    **options: Any,
) -> "Axes":
    """A metric and its interval for each row of a table, the first on top; words: the title and the x label.

    options: `line` to compare with; `mark` gives a row's colour and marker, `counts` the rows and positive
    rows of the table, by default their sums; `nbins` are the most steps of the scale.
    Raises ValueError naming the columns that the table lacks.
    """
    require_columns(table, name, *bounded(metric), "n", "n_positive")
    rows, (title, xlabel) = table.head(MAX_ROWS).to_dicts(), words
    shown = partly(len(rows), len(table))
    counts, mark = options.get("counts", totals)(table), options.get("mark", lambda row: (BLUE, "o"))
    with canvas(ax, title, [counts], rows_height(len(table)), 13, shown, xlabel=xlabel) as ax:
        if options.get("line") is not None:
            ax.axvline(options["line"], **REFERENCE)
        name_rows(ax, [row[name] for row in rows])
        for at, row in enumerate(rows):
            draw_interval(ax, at, *(row[column] for column in bounded(metric)), *mark(row))
        draw_asides(ax, rows, asides)
        ax.xaxis.get_major_locator().set_params(nbins=options.get("nbins", "auto"))
    return ax


def draw_interval(
    ax: "Axes", at: int, value: float | None, low: float | None, high: float | None, colour: str, marker: str
) -> None:
    """A value and its interval on line `at` of a forest plot; None reads "not enough data"."""
    if value is None:
        paper = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}  # lines of the plot end at the words
        say_not_enough(ax, y=at, transform=ax.get_yaxis_transform(), bbox=paper)
        return
    ends = None if low is None else [[value - low], [high - value]]
    ax.errorbar([value], [at], xerr=ends, color=colour, marker=marker, capsize=2.5, elinewidth=1.3)


def draw_asides(ax: "Axes", rows: Sequence[dict], asides: Sequence[Aside]) -> None:
    """Words right of the frame, right-aligned, one cell a row."""
    place = {"textcoords": "offset points", "ha": "right", "fontsize": 8}
    for head, offset, text in asides:
        ax.annotate(head, (1, 1), (offset, 5), "axes fraction", color=GREY, **place)
        for at, row in enumerate(rows):
            ax.annotate(text(row), (1, at), (offset, 0), ax.get_yaxis_transform(), va="center", **place)


def cell(key: str, spec: str) -> Callable[[dict], str]:
    """The text of one value of a row, empty where there is none."""
    return lambda row: "" if row[key] is None else format(row[key], spec)


def totals(table: pl.DataFrame) -> tuple[int, int]:
    """Rows and positive rows of a table that splits both into groups."""
    return table["n"].sum(), table["n_positive"].sum()


def largest(table: pl.DataFrame) -> tuple[int, int]:
    """Rows and positive rows of a table that has the same in each row."""
    return table["n"].max() or 0, table["n_positive"].max() or 0


def require_columns(table: pl.DataFrame, *columns: str) -> None:
    """ValueError naming the columns that a table lacks."""
    if missing := [name for name in columns if name not in table.columns]:
        raise ValueError(f"table lacks the columns {', '.join(missing)}; it has {', '.join(table.columns)}")
