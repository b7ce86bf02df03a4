"""A report as one HTML page to pass on, the same as Markdown, and its figures as JSON.

Decisions:
- The page stands alone: inline CSS and SVG, one script, page.js, no link out; its own policy forbids the
  rest by the script's hash. What the script shows it has from the page; without it the tables say the same.
- A part may be folded, and so are the tables behind plots, and rows that are mostly "n/a".
- A chart has one name, its caption: the title that it has as a picture is left out.
- A section is plots, sentences and tables of finished text; HTML and Markdown print the same ones.
- Every value from outside is escaped for where it goes: HTML, Markdown or a plot.
- Rounding happens where a reader looks; the JSON keeps every digit, and a NaN becomes null.
- "n/a" is a figure that the rows cannot give, never a zero.
- Equal content gives equal bytes: sorted keys, no date, no random id.
"""

import json
import re
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from html import escape
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from n3r.files.atomic import write_together
from n3r.files.json_io import plain
from n3r.files.lock import alone
from n3r.report import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Heading -> (key of a row, or the keys of a value and the ends of its interval; format, "%" for a share)
Columns = Mapping[str, tuple[str, str]]
MISSING = "n/a"


class Table(NamedTuple):
    """Cells as text; the first `n_words` columns hold words, the others numbers."""

    title: str
    head: Sequence[str]
    rows: list[tuple[str, ...]]
    n_words: int = 2

    @property
    def known(self) -> list[tuple[str, ...]]:
        """Rows that say something; all, where none does."""
        return [row for row in self.rows if not self._is_unknown(row)] or self.rows

    @property
    def unknown(self) -> list[tuple[str, ...]]:
        """The other rows: most of their figures are "n/a"."""
        return [] if self.known is self.rows else [row for row in self.rows if self._is_unknown(row)]

    def _is_unknown(self, row: tuple[str, ...]) -> bool:
        return 2 * row.count(MISSING) > len(row) - self.n_words


class Choice(NamedTuple):
    """A threshold to choose with a slider: `points` is JSON of `evaluation.evaluate_model`'s choice.

    of: what each of its sets of rows is; figures: the rows of its table, as page.js knows them; fpr in per
    cent; by_amount: a missed fraud costs by its amount.
    """

    points: str
    of: Mapping[str, str]
    figures: Mapping[str, str]
    fpr: float
    missed: float
    alarm: float
    by_day: bool
    by_amount: bool


class Bar(NamedTuple):
    """One bar of a card: a share of the rows, their rate of fraud, and whether they lack a value."""

    share: float
    rate: float | None
    is_missing: bool = False


class Card(NamedTuple):
    """One column of a table: its name, facts as text, bars of its values, and the rate of fraud of all."""

    title: str
    facts: Mapping[str, str]
    bars: Sequence[Bar]
    rate: float


class Section(NamedTuple):
    """A part of a page; `plots` are pairs of a caption and the Axes drawn on, `lead` says how to read it.

    The first `n_open` tables are shown, the others folded.
    """

    title: str
    plots: "list[tuple[str, Axes]]"
    tables: list[Table]
    notes: Sequence[str] = ()
    lead: str = ""
    cards: Sequence[Card] = ()
    choice: Choice | None = None
    n_open: int | None = None  # None: none beside plots, all without
    is_folded: bool = False

    @property
    def open_tables(self) -> list[Table]:
        return self.tables[: self._n_open]

    @property
    def folded_tables(self) -> list[Table]:
        return self.tables[self._n_open :]

    @property
    def _n_open(self) -> int:
        return (0 if self.plots else len(self.tables)) if self.n_open is None else self.n_open


class Page(NamedTuple):
    """A report: a name, its answer in one sentence, a few large figures (figure, what it is), the parts.

    `pictures` are files of their own beside the page, by what their names end in.
    """

    name: str
    headline: str
    tiles: list[tuple[str, str]]
    sections: list[Section]
    glossary: Mapping[str, str]
    pictures: "Mapping[str, Axes]" = MappingProxyType({})


def write_page(page: Page, content: dict[str, Any], folder: Path, stem: str) -> Path:
    """Write <stem>.html, .md, .json and each picture's .svg and .png into a folder; return the page's path.

    Raises ValueError naming the folder when it cannot be written, or another process writes there; then it is
    left as it was.
    """
    finite = plain(content, sort_keys=True)
    texts = {
        f"{stem}.json": json.dumps(finite, ensure_ascii=False, indent=1, allow_nan=False) + "\n",
        f"{stem}.md": _markdown(page),
        f"{stem}.html": _html(page),
        **{f"{stem}_{name}.svg": style.to_svg(axes.figure) for name, axes in page.pictures.items()},
    }
    files = {name: text.encode("utf-8", "replace") for name, text in texts.items()}
    files |= {f"{stem}_{name}.png": style.to_png(axes.figure) for name, axes in page.pictures.items()}
    with alone(Path(folder)):
        write_together(folder, files)
    return Path(folder) / f"{stem}.html"


def glossary(*words: str) -> dict[str, str]:
    """What these words mean in plain words (glossary.txt); a word that is not there is a KeyError."""
    lines = files("n3r.report").joinpath("glossary.txt").read_text(encoding="utf-8").splitlines()
    meanings = dict(line.split(": ", 1) for line in lines)
    return {word: meanings[word] for word in words}


def tabulate(title: str, columns: Columns, rows: Iterable[Mapping], n_words: int = 2) -> Table:
    """A table of some keys of each row."""
    cells = [tuple(cell(row, *column) for column in columns.values()) for row in rows]
    return Table(title, tuple(columns), cells, n_words)


def cell(row: Mapping, keys: str, spec: str) -> str:
    """A value of a row as text, with its interval where `keys` names the ends and both are known."""
    value, *ends = (row.get(key) for key in keys.split())
    if value is None and not spec:
        return ""  # a word, not a figure
    known = ends and value is not None and None not in ends
    return show(value, spec) + (f" [{', '.join(show(end, spec) for end in ends)}]" if known else "")


def show(value: Any, spec: str = "") -> str:
    """A value as text; "%" shows a share and "p" a p-value."""
    if value is None:
        return MISSING
    if spec == "p":
        return "< 0.001" if value < 0.001 else f"{value:.3f}"
    return f"{100 * value:.1f} %" if spec == "%" else format(value, spec)


def _markdown(page: Page) -> str:
    blocks = [f"# {_escaped(page.name)}", _escaped(page.headline)]
    for section in page.sections:
        blocks += [f"## {section.title}", *map(_escaped, section.notes)]
        for table in [*section.tables, *_as_table(section.cards)]:
            rule = [":--" if i < table.n_words else "--:" for i in range(len(table.head))]
            lines = [map(_escaped, table.head), rule, *(map(_escaped, row) for row in table.rows)]
            blocks += [f"**{_escaped(table.title)}**"] if table.title else []
            blocks.append("\n".join(f"| {' | '.join(cells)} |" for cells in lines))
    return "\n\n".join(blocks) + "\n"


def _as_table(cards: Sequence[Card]) -> Iterator[Table]:
    """What cards say, without their bars."""
    if cards:
        head = list(dict.fromkeys(fact for card in cards for fact in card.facts))
        rows = [(card.title, *(card.facts.get(fact, "") for fact in head)) for card in cards]
        yield Table("", ("column", *head), rows, 1 + len(head))


def _escaped(text: str) -> str:
    text = re.sub(r"([\\`*_|~$]|(?<=\])(?=\())", r"\\\1", " ".join(text.split()))
    return escape(text, quote=False)


def _html(page: Page) -> str:
    from jinja2 import Environment, StrictUndefined

    source, script = (
        files("n3r.report").joinpath(name).read_text(encoding="utf-8") for name in ("page.html.j2", "page.js")
    )
    found = b64encode(sha256(script.encode()).digest()).decode()
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    parts = {**page._asdict(), "script": script, "script_hash": found}
    return environment.from_string(source).render(**parts, svg=_svg, bars=_bars)


def _svg(axes: "Axes", caption: str, key: str) -> str:
    """The figure without its XML envelope; `key` keeps its ids apart from the other figures'."""
    axes.set_title("", loc="left")
    svg = style.to_svg(axes.figure)
    svg = re.sub(r'<metadata>.*?</metadata>|<!--.*?-->| xmlns(:\w+)?="[^"]*"', "", svg, flags=re.DOTALL)
    svg = re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{key}-", svg)
    return svg.replace("<svg", f'<svg role="img" aria-label="{escape(caption)}"', 1)


def _bars(card: Card) -> str:
    """The bars of a card: above, how many rows there are; below, in another colour, their rate of fraud.

    A line crosses the rates where that of all rows is. Missing values are the last bar, and grey.
    """
    bars = [bar for bar in card.bars if bar.share or not bar.is_missing]
    width, highest = 100 / max(len(bars), 1), max((bar.share for bar in bars), default=0) or 1
    top = max([2 * card.rate, *(bar.rate or 0 for bar in bars)]) or 1
    drawn = []
    for i, bar in enumerate(bars):
        sizes = (24, 22 * bar.share / highest), (40, 14 * (bar.rate or 0) / top)
        colours = style.GREY if bar.is_missing else style.BLUE, style.RED
        for (base, height), colour in zip(sizes, colours, strict=True):
            place = f'x="{(i + 0.08) * width:.2f}" y="{base - height:.2f}" width="{0.84 * width:.2f}"'
            drawn.append(f'<rect {place} height="{height:.2f}" fill="{colour}"/>')
    line = f'stroke="{style.INK}" stroke-width=".4" stroke-dasharray="1.5 1"'
    drawn.append(f'<path d="M0 {40 - 14 * card.rate / top:.2f}H100" {line}/>')
    label = escape(f"distribution of {card.title}, and the rate of fraud")
    frame = 'viewBox="0 0 100 41" preserveAspectRatio="none"'
    return f'<svg {frame} role="img" aria-label="{label}">{"".join(drawn)}</svg>'
