"""Tables as notebooks show them: a title, digits as a reader wants them, numbers to the right."""

from collections.abc import Iterable, Mapping
from html import escape

import polars as pl

from n3r.report.page import Table, show


class Titled(Table):
    """A table of a notebook, in HTML and in plain text."""

    def _repr_html_(self) -> str:
        def row(cells: Iterable[str], kind: str) -> str:
            sides = ["left"] * self.n_words + ["right"] * (len(self.head) - self.n_words)
            made = (
                f'<{kind} style="text-align:{side}">{escape(cell)}</{kind}>'
                for cell, side in zip(cells, sides, strict=True)
            )
            return f"<tr>{''.join(made)}</tr>\n"

        caption = '<caption style="caption-side:top;text-align:left;font-weight:bold">'
        return (
            f"<table>{caption}{escape(self.title)}</caption>\n<thead>{row(self.head, 'th')}</thead>\n"
            f"<tbody>\n{''.join(row(cells, 'td') for cells in self.rows)}</tbody></table>"
        )

    def __repr__(self) -> str:
        columns = []
        for i, column in enumerate(zip(self.head, *self.rows, strict=True)):
            width = max(map(len, column))
            columns.append([cell.ljust(width) if i < self.n_words else cell.rjust(width) for cell in column])
        return "\n".join([self.title, *("  ".join(line).rstrip() for line in zip(*columns, strict=True))])

    def content(self) -> dict[str, str]:
        """Both, by kind."""
        return {"text/html": self._repr_html_(), "text/plain": repr(self)}


def titled(
    frame: pl.DataFrame,
    title: str,
    formats: Mapping[str, str] | None = None,
    digits: int = 3,
    n_words: int | None = None,
) -> Titled:
    """A frame as a table with a title; names of columns lose their underscores.

    `formats` by column are those of `page.show`; other fractions get `digits`, whole numbers commas. The
    first `n_words` columns stand left, by default those of text before the first of numbers.
    """
    kinds = frame.schema
    specs = {
        name: f".{digits}f" if kind.is_float() else "," * kind.is_integer() for name, kind in kinds.items()
    }
    specs |= formats or {}
    rows = [tuple(show(row[name], specs[name]) for name in kinds) for row in frame.iter_rows(named=True)]
    if n_words is None:
        n_words = next((i for i, kind in enumerate(kinds.values()) if kind != pl.String), len(kinds))
    return Titled(title, [name.replace("_", " ") for name in kinds], rows, n_words)
