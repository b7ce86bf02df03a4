"""The page of a data check: what is to be doubted, a card for each column, what became of the rows.

Decisions:
- Findings come first, the severest on top: what to do stands beside what was seen.
- Cards come in the order of what a column alone tells of the label. They show shapes, never a text.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from n3r.files.json_io import plain
from n3r.report import figures
from n3r.report.page import Bar, Card, Page, Section, Table, cell, glossary, show, tabulate, write_page
from n3r.report.parts import interval
from n3r.rows.accounts import in_words

FINDINGS = (
    "Severe findings make a model's figures meaningless, and stop a run unless they are accepted by name. A "
    "warning may be a mistake or be meant. Each says what to do."
)
COLUMNS = (
    "Blue: how the rows spread over a column's values; grey: those without one. Orange: the rate of fraud "
    "among them, and dashed that of all rows. AUROC alone: how well the column ranks fraud by itself, each "
    "row judged by the rates of others; 0.5 is chance. Quantiles: the least, the quarters, the largest. Of "
    "texts and categories the shape is shown, a letter for any letter and 9 for any digit; the bars of texts "
    "are their lengths."
)
WORDS = ("AUROC", "[low, high], 95 % interval", "PSI, population stability index", "n/a")
AUROC = interval("auroc", ".3f")


def write_data_page(content: dict[str, Any], folder: Path, name: str, stem: str = "data") -> Path:
    """Write <stem>.html, .md and .json of `checks.check_rows` into a folder; return the page's path.

    Raises ValueError naming the folder when it cannot be written; then it is left as it was.
    """
    content = plain(content, sort_keys=True)
    sections = [*findings_section(content["preparation"]["findings"]), _columns(content), _over_time(content)]
    sections.append(data_section({"left_out": content["left_out"]}, content["preparation"]))
    title = f"{name}: a first look at the data"
    shown = [section for section in sections if section.tables or section.cards or section.notes]
    page = Page(title, headline(content), _tiles(content), shown, glossary(*WORDS))
    return write_page(page, content, folder, stem)


def headline(content: Mapping[str, Any]) -> str:
    """The check's answer in a sentence or two."""
    found, rows = content["preparation"]["findings"], f"{content['rows']['n']:,} rows"
    severe = [one for one in found if one["severity"] == "severe"]
    n = sum(one["severity"] == "warning" for one in found)
    if not severe:
        warnings = {0: "no warning", 1: "one warning"}.get(n, f"{n} warnings")
        return f"Nothing in {rows} speaks against training on them; {warnings}."
    more = f" {len(severe) - 1} more findings are severe." if len(severe) > 1 else ""
    return f"Not to be trained on as they are: {in_words(severe[0])}.{more}"


def findings_section(findings: Sequence[Mapping[str, Any]]) -> Iterator[Section]:
    """What is to be doubted, if anything."""
    if findings:
        columns = {"severity": ("severity", ""), "what was seen, and what to do": ("told", "")}
        rows = [{**one, "told": in_words(one)} for one in findings]
        found = tabulate("", {**columns, "name": ("name", "")}, rows, 3)
        yield Section("What to look at first", [], [found], lead=FINDINGS)


def card_facts(card: Mapping[str, Any]) -> dict[str, str]:
    """What a card says beside its bars: name of a fact -> text."""
    facts = {"role": card["role"], "missing": show(card["missing"], "%")}
    facts["distinct"] = f"{'' if card['exact'] else 'about '}{card['distinct']:,}"
    if examples := card.get("examples"):
        facts["such as"] = "; ".join(examples)
    if quantiles := card.get("quantiles"):
        facts["quantiles"] = "; ".join("n/a" if value is None else f"{value:.4g}" for value in quantiles)
    facts["AUROC alone"] = cell(card, *AUROC)
    if over_time := card["over_time"]:
        facts["over time"] = "; ".join(show(one["auroc"], ".2f") for one in over_time)
    if card.get("scale"):
        facts["bars"] = card["scale"]
    return facts


def _columns(content: Mapping[str, Any]) -> Section:
    rate = content["rows"]["rate"]
    found = []
    for card in sorted(content["columns"], key=lambda card: -(card["auroc"] or 0)):
        bars = [Bar(bar["share"], bar["rate"]) for bar in card["bars"]]
        bars[-1] = bars[-1]._replace(is_missing=True)
        found.append(Card(card["column"], card_facts(card), bars, rate))
    return Section("Columns", [], [], lead=COLUMNS, cards=found)


def _over_time(content: Mapping[str, Any]) -> Section:
    columns = {"period": ("period", ""), "rate of fraud": ("rate", "%")}
    rows = content["rows"]["over_time"]
    return Section("Over time", [], [tabulate("", columns, rows, 1)] if rows else [])


def _tiles(content: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = content["rows"]
    tiles = [(f"{rows['n']:,}", "rows are kept"), (show(rows["rate"], "%"), "of them are fraud")]
    if rows["first"]:
        tiles.append((f"{rows['first'][:10]}", f"to {rows['last'][:10]}"))
    return [*tiles, (f"{len(content['columns'])}", "columns are used")]


def data_section(data: Mapping[str, Any], preparation: Mapping[str, Any]) -> Section:
    """Which rows were read, kept and dropped, and which columns are no features."""
    drawn, tables, notes = [], [], []
    if data.get("n_rows"):
        read = f"{data['n_rows']:,} rows ({data['format']}) from {data['source']}"
        notes.append(f"{read}; fingerprint {data['fingerprint']}")
    if steps := preparation.get("steps"):
        columns = {"step": ("step", ""), "reason": ("reason", "")}
        columns |= {name: (f"rows_{name}", ",") for name in ("in", "kept", "dropped")}
        tables = [tabulate("Rows dropped, and why", columns, steps)]
    if splits := preparation.get("splits"):
        drawn = [("Rows kept, by split", figures.split_counts(pl.DataFrame(splits)))]
        kinds = {0: "legitimate", 1: "fraud"}
        if max(row["label"] for row in splits) > 1:
            kinds = {row["label"]: f"class {row['label']}" for row in splits}
        cells = [(r["segment"] or "(none)", f"{r['split']}, {kinds[r['label']]}", r["n"]) for r in splits]
        counts = pl.DataFrame(cells, ["marketplace", "of", "n"], orient="row")
        wide = counts.pivot("of", values="n", aggregate_function="sum")
        rows = [(name, *(f"{n or 0:,}" for n in counts)) for name, *counts in wide.rows()]
        tables.append(Table("Rows kept", wide.columns, rows, 1))
    if ends := [row for row in preparation.get("times") or [] if row["first"]]:
        columns = {name: (name, "") for name in ("split", "first", "last")}
        tables.append(tabulate("Times, first and last of each split", columns, ends))
    if left_out := data.get("left_out"):
        rows = [(name or "(blank)", why) for name, why in left_out.items()]
        tables.append(Table("Columns that are no features, and why", ("column", "why"), rows))
    return Section("Data", drawn, tables, notes)
