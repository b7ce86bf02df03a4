"""The report of a run: one HTML page to pass on, the same in Markdown, and its figures as JSON.

Decisions:
- The page stands alone: inline CSS and SVG, no script, no link out; its own policy forbids the rest.
- A section is plots, sentences and tables of finished text; HTML and Markdown print the same ones.
- Every value from outside is escaped for where it goes: HTML, Markdown or a plot.
- Rounding happens where a reader looks; the JSON keeps every digit, and a NaN becomes null.
- "n/a" is a figure that the rows cannot give, never a zero. A part without content is left out.
- Equal content gives equal bytes: sorted keys, no date, no random id.
"""

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl
from numpy.typing import ArrayLike

from n3r import plots
from n3r.metrics import NOT_ENOUGH

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Columns = Mapping[str, tuple[str, str]]  # heading -> (key of a row, format; "%" is a share)
Curves = Mapping[str, Mapping[str, tuple[ArrayLike, ArrayLike]]]

MISSING = "n/a"
SYSTEM = {"model": ("name", ""), "system": ("system", "")}
METRICS = {
    "AUROC [95 %]": ("auroc_text", ""),
    "AP": ("average_precision", ".3f"),
    "recall at 1 % FPR": ("recall_at_fpr_1", "%"),
    "recall at 5 % FPR": ("recall_at_fpr_5", "%"),
    "precision": ("precision", "%"),
    "recall": ("recall", "%"),
    "F1": ("f1", ".3f"),
    "accuracy": ("accuracy", "%"),
    "log loss": ("log_loss", ".3f"),
    "Brier": ("brier", ".4f"),
    "rows": ("n", ","),
    "fraud": ("base_rate", "%"),
}
COUNTS = {"rows": ("n", ","), "frauds": ("n_positive", ","), "share": ("share", "%")}
COMPARED = {
    "n3r": ("auc_a", ".3f"),
    "legacy": ("auc_b", ".3f"),
    "n3r - legacy [95 %]": ("difference_text", ""),
    "p": ("p_value", ".3f"),
}
PHRASES = {
    "equivalent": "is equivalent to the legacy within {margin:g}",
    "different": "differs from the legacy",
    "not shown": "is not shown to be equivalent to the legacy within {margin:g}",
    NOT_ENOUGH: "has not enough data to be compared with the legacy",
}


class Table(NamedTuple):
    """Cells as text; the first `n_words` columns hold words, the others numbers."""

    title: str
    head: Sequence[str]
    rows: list[tuple[str, ...]]
    n_words: int = 2


class Section(NamedTuple):
    """A part of the report; `plots` are pairs of a caption and the Axes drawn on."""

    title: str
    plots: "list[tuple[str, Axes]]"
    tables: list[Table]
    notes: Sequence[str] = ()
    in_markdown: bool = False


def write_report(content: dict[str, Any], curves: Curves, folder: Path) -> Path:
    """Write report.html, report.md and report.json into a folder; return the page's path.

    content: JSON types. curves: {"val" | "test": {model: (labels, probabilities)}}.
    Raises ValueError naming the folder when it cannot be written; then it is left as it was.
    """
    content, folder = _finite(content), Path(folder)
    sections = list(_sections(content, curves))
    texts = {
        "report.json": json.dumps(content, ensure_ascii=False, indent=1, sort_keys=True) + "\n",
        "report.md": _markdown(content, sections),
        "report.html": _html(content, sections),
    }
    _write(folder, texts)
    return folder / "report.html"


def summary(models: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Each model's name, main test metrics and speed as text, for a terminal."""
    speed = {"orders/s in training": ("orders_per_second", ",.0f")}
    columns = {"model": ("name", ""), **dict(list(METRICS.items())[:4]), **speed}
    table = _table("", columns, [{**m, **_measured(m, "test")} for m in models])
    return [dict(zip(table.head, row, strict=True)) for row in table.rows]


def _sections(content: dict[str, Any], curves: Curves) -> Iterator[Section]:
    models = content.get("models") or []
    parity = content.get("parity") or {}
    yield _ranking("How well fraud is ranked", "test", models, curves.get("test") or {})
    if with_segments := [model for model in models if model.get("segments")]:
        yield _marketplaces(with_segments)
    if parity.get("comparisons"):
        yield _parity(parity["comparisons"], parity["margin"])
    if trained := [model for model in models if model["system"] != "oracle"]:
        yield _training(trained)
    if any(model.get("val") for model in models):
        yield _ranking("The same on validation", "val", models, curves.get("val") or {})
    if content.get("tokenizer"):
        yield _tokenizer(content["tokenizer"])
    yield _data(content["data"], content.get("preparation") or {})
    if found := content.get("departures"):
        columns = {"file": ("where", ""), "what is done otherwise, and why": ("what", "")}
        yield Section("Departures from the legacy", [], [_table("", columns, found)])
    if rows := list(_flat(content.get("provenance") or {})):
        yield Section("Provenance", [], [Table("", ("", "value"), rows)])


def _ranking(title: str, split: str, models: list[dict], scored: Mapping) -> Section:
    drawn = []
    if scored:
        named = {_drawable(name): pair for name, pair in scored.items()}
        drawn = [("Frauds caught for good orders stopped", plots.roc(named))]
        drawn += [("How many of the stopped orders are fraud", plots.precision_recall(named))]
    best = _best(models, split)
    if best and best["name"] in scored:
        drawn.append((f"Scores of {best['name']}", plots.score_distribution(*scored[best["name"]])))
    rows = [{**model, **_measured(model, split)} for model in models]
    return Section(title, drawn, [_table(f"Metrics, {split} rows", SYSTEM | METRICS, rows)], (), True)


def _marketplaces(models: list[dict]) -> Section:
    drawn = [(model["name"], plots.segment_auc(_frame(model["segments"]))) for model in models]
    rows: dict[str, dict] = {}
    for i, model in enumerate(models):
        for row in model["segments"]:
            text = _interval(row["auroc"], row["low"], row["high"], ".3f")
            rows.setdefault(row["segment"], _with_share(row))[f"auroc {i}"] = text
    aurocs = {model["name"]: (f"auroc {i}", "") for i, model in enumerate(models)}
    columns = {"marketplace": ("segment", ""), **COUNTS, **aurocs}
    table = _table("AUROC [95 %] by marketplace, test rows", columns, rows.values(), 1)
    return Section("By marketplace", drawn, [table], (), True)


def _parity(comparisons: list[dict], margin: float) -> Section:
    columns = {"model": ("model_class", ""), "verdict": ("kind", ""), **COMPARED}
    tables = [_table("n3r and legacy, test rows", columns, map(_compared, comparisons))]
    columns = {"marketplace": ("segment", ""), "verdict": ("kind", ""), **COUNTS, **COMPARED}
    columns["p"] = ("p_holm", ".3f")
    drawn, notes = [], []
    for row in comparisons:
        notes.append(f"{row['model_class']}: {row.get('sentence') or row['verdict']}")
        if segments := row.get("segments"):
            axes = plots.paired_difference(_frame(segments), margin, names=("n3r", "legacy"))
            drawn.append((row["model_class"], axes))
            tables.append(_table(f"{row['model_class']} by marketplace", columns, map(_compared, segments)))
    return Section("As good as the legacy?", drawn, tables, notes, True)


def _training(models: list[dict]) -> Section:
    drawn = [(m["name"], plots.training_curve(m["history"])) for m in models if m.get("history")]
    columns = {"parameters": "n_parameters", "epochs": "epochs", "orders/s": "orders_per_second"}
    columns = {"precision": ("precision", ""), **{name: (key, ",.0f") for name, key in columns.items()}}
    sized = {m["name"]: m["dimensions"] for m in models if m.get("dimensions")}
    keys = dict.fromkeys(key for dimensions in sized.values() for key in dimensions)
    rows = [(key, *(_show(dimensions.get(key, "")) for dimensions in sized.values())) for key in keys]
    tables = [_table("Models", SYSTEM | columns, models, 3), Table("Dimensions", ("", *sized), rows, 1)]
    return Section("Training", drawn, tables[: 1 + bool(rows)])


def _tokenizer(found: dict) -> Section:
    notes = [
        f"{found['vocab_size']:,} tokens, learned from the training rows; one stands for "
        f"{_show(found['compression'], '.2f')} characters (target {found['target_compression']:g})."
    ]
    if not (curve := found.get("curve")):
        return Section("Tokenizer", [], [], notes)
    sizes, reached = ([row[key] for row in curve] for key in ("vocab_size", "compression"))
    axes = plots.compression_curve(sizes, reached, found["vocab_size"], found["target_compression"])
    columns = {"vocabulary": ("vocab_size", ","), "characters per token": ("compression", ".3f")}
    return Section("Tokenizer", [("The vocabulary chosen", axes)], [_table("", columns, curve, 0)], notes)


def _data(data: dict, preparation: dict) -> Section:
    source = f"{data['n_rows']:,} rows ({data['format']}) from {data['source']}; {data['fingerprint']}"
    drawn, tables = [], []
    if splits := preparation.get("splits"):
        drawn = [("Rows kept, by split", plots.split_counts(_frame(splits)))]
        sums = _frame(splits).group_by("split", "segment", maintain_order=True)
        n, positive = pl.col("n"), pl.col("label") == 1
        rows = sums.agg(n.sum(), n.filter(positive).sum().alias("n_positive")).to_dicts()
        columns = {"split": ("split", ""), "marketplace": ("segment", ""), **COUNTS}
        tables = [_table("Rows kept", columns, map(_with_share, rows))]
    if steps := preparation.get("steps"):
        columns = {"step": ("step", ""), "reason": ("reason", "")}
        columns |= {name: (f"rows_{name}", ",") for name in ("in", "kept", "dropped")}
        tables.insert(0, _table("Rows dropped, and why", columns, steps))
    return Section("Data", drawn, tables, [source, *(preparation.get("warnings") or [])])


def _best(models: list[dict], split: str) -> dict | None:
    """The n3r model with the highest AUROC, if any has one."""
    known = [m for m in models if m["system"] == "n3r" and (m.get(split) or {}).get("auroc") is not None]
    return max(known, key=lambda model: model[split]["auroc"], default=None)


def _attained(models: list[dict]) -> str | None:
    """What share of the oracle's lead over chance the best n3r model has."""
    oracle = next((m["test"]["auroc"] for m in models if m["system"] == "oracle" and m.get("test")), None)
    best = _best(models, "test")
    return _show((best["test"]["auroc"] - 0.5) / (oracle - 0.5), "%") if best and oracle else None


def _headline(content: dict[str, Any]) -> str:
    models, parity = content.get("models") or [], content.get("parity") or {}
    parts = [f"{NOT_ENOUGH.capitalize()} for a test AUROC"]
    if best := _best(models, "test"):
        auroc = _measured(best, "test")["auroc_text"]
        parts = [f"The best n3r model, {best['name']}, reaches a test AUROC of {auroc}"]
    if share := _attained(models):
        parts[0] += f", {share} of the attainable"
    for row in map(_compared, parity.get("comparisons") or []):
        phrase = PHRASES.get(row["kind"], row["kind"]).format(margin=parity["margin"])
        parts.append(f"{row['model_class']} {phrase} ({_show(row['difference'], '+.4f')})")
    return "; ".join(parts) + "."
