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

# Heading -> (key of a row, or the keys of a value and the ends of its interval; format, "%" for a share)
Columns = Mapping[str, tuple[str, str]]
Curves = Mapping[str, Mapping[str, tuple[ArrayLike, ArrayLike]]]

MISSING = "n/a"
AUROC = ("auroc auroc_low auroc_high", ".3f")
SYSTEM = {"model": ("name", ""), "system": ("system", "")}
METRICS = {
    "AUROC [95 %]": AUROC,
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
MARKETPLACE = {"marketplace": ("segment", "")}
COUNTS = {"rows": ("n", ","), "frauds": ("n_positive", ",")}
COMPARED = {
    "verdict": ("verdict", ""),
    "n3r": ("auc_a", ".3f"),
    "legacy": ("auc_b", ".3f"),
    "n3r - legacy [95 %]": ("difference low high", "+.4f"),
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


def write_report(content: dict[str, Any], curves: Curves, folder: Path) -> Path:
    """Write report.html, report.md and report.json into a folder; return the page's path.

    content: JSON types. curves: {"val" | "test": {model: (labels, probabilities)}}.
    Raises ValueError naming the folder when it cannot be written; then it is left as it was.
    """
    content = json.loads(json.dumps(content, sort_keys=True), parse_constant=lambda nan_or_infinite: None)
    sections = list(_sections(content, curves))
    texts = {
        "report.json": json.dumps(content, ensure_ascii=False, indent=1) + "\n",
        "report.md": _markdown(content, sections),
        "report.html": _html(content, sections),
    }
    _write(Path(folder), texts)
    return Path(folder) / "report.html"


def summary(models: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Each model's name, main test metrics and training speed as text, for a terminal."""
    names = {"AUROC [95 %]": "test AUROC [95 %]", "recall at 5 % FPR": "at 5 % FPR"}
    columns = {"model": ("name", "")} | {names.get(k, k): METRICS[k] for k in list(METRICS)[:4]}
    columns["orders/s in training"] = ("orders_per_second", ",.0f")
    table = _table("", columns, [{**m, **(m.get("test") or {})} for m in models])
    return [dict(zip(table.head, row, strict=True)) for row in table.rows]


def _sections(content: dict[str, Any], curves: Curves) -> Iterator[Section]:
    models, parity = content.get("models") or [], content.get("parity") or {}
    yield _ranking("How well fraud is ranked", "test", models, curves.get("test") or {})
    if with_segments := [model for model in models if model.get("segments")]:
        yield _marketplaces(with_segments)
    if parity.get("comparisons"):
        yield _parity(**parity)
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
    if rows := list(_leaves(content.get("provenance") or {})):
        yield Section("Provenance", [], [Table("", ("", "value"), rows)])


def _ranking(title: str, split: str, models: list[dict], scored: Mapping) -> Section:
    drawn = []
    if scored:
        named = {_drawable(name): pair for name, pair in scored.items()}
        drawn.append(("Frauds caught for good orders stopped", plots.roc(named)))
        drawn.append(("How many of the stopped orders are fraud", plots.precision_recall(named)))
    best = _best(models, split)
    if best and best["name"] in scored:
        drawn.append((f"Scores of {best['name']}", plots.score_distribution(*scored[best["name"]])))
    rows = [{**model, **(model[split] or {})} for model in models if split in model]
    return Section(title, drawn, [_table(f"Metrics, {split} rows", SYSTEM | METRICS, rows)])


def _marketplaces(models: list[dict]) -> Section:
    drawn = [(model["name"], plots.segment_auc(_frame(model["segments"]))) for model in models]
    aurocs = {model["name"]: (f"auroc{i} low{i} high{i}", ".3f") for i, model in enumerate(models)}
    rows: dict[str, dict] = {}
    for i, model in enumerate(models):
        for row in model["segments"]:
            own = {f"{key}{i}": row[key] for key in ("auroc", "low", "high")}
            rows[row["segment"]] = row | rows.get(row["segment"], {}) | own
    title = "AUROC [95 %] by marketplace, test rows"
    return Section("By marketplace", drawn, [_table(title, MARKETPLACE | COUNTS | aurocs, rows.values(), 1)])


def _parity(comparisons: list[dict], margin: float) -> Section:
    columns = {"model": ("model_class", ""), **COMPARED, "p": ("p_value", ".3f")}
    by_segment = MARKETPLACE | COMPARED | {"p": ("p_holm", ".3f")} | COUNTS
    drawn, tables = [], [_table("n3r and legacy, test rows", columns, comparisons)]
    for row in comparisons:
        if segments := row.get("segments"):
            axes = plots.paired_difference(_frame(segments), margin, names=("n3r", "legacy"))
            drawn.append((row["model_class"], axes))
            tables.append(_table(f"{row['model_class']} by marketplace", by_segment, segments))
    notes = [f"{row['model_class']}: {row.get('sentence') or row['verdict']}" for row in comparisons]
    return Section("As good as the legacy?", drawn, tables, notes)


def _training(models: list[dict]) -> Section:
    drawn = [(m["name"], plots.training_curve(m["history"])) for m in models if m.get("history")]
    keys = {"parameters": "n_parameters", "epochs": "epochs", "orders/s": "orders_per_second"}
    columns = {"precision": ("precision", ""), **{head: (key, ",.0f") for head, key in keys.items()}}
    sized = {m["name"]: m["dimensions"] for m in models if m.get("dimensions")}
    keys = dict.fromkeys(key for dimensions in sized.values() for key in dimensions)
    rows = [(key, *(_show(dimensions.get(key, "")) for dimensions in sized.values())) for key in keys]
    tables = [_table("Models", SYSTEM | columns, models, 3), Table("Dimensions", ("", *sized), rows, 1)]
    return Section("Training", drawn, tables[: 1 + bool(rows)])


def _tokenizer(found: dict) -> Section:
    size, target, curve = found["vocab_size"], found["target_compression"], found.get("curve")
    reached = _show(found["compression"], ".2f")
    note = f"{size:,} tokens from the training rows; one stands for {reached} characters (target {target:g})"
    drawn, tables = [], []
    if curve:
        points = ([row[key] for row in curve] for key in ("vocab_size", "compression"))
        drawn = [("The vocabulary chosen", plots.compression_curve(*points, size, target))]
        columns = {"vocabulary": ("vocab_size", ","), "characters per token": ("compression", ".3f")}
        tables = [_table("Vocabularies measured", columns, curve, 0)]
    return Section("Tokenizer", drawn, tables, [note])


def _data(data: dict, preparation: dict) -> Section:
    note = f"{data['n_rows']:,} rows ({data['format']}) from {data['source']}; fingerprint {data['fingerprint']}"
    drawn, tables = [], []
    if steps := preparation.get("steps"):
        columns = {"step": ("step", ""), "reason": ("reason", "")}
        columns |= {name: (f"rows_{name}", ",") for name in ("in", "kept", "dropped")}
        tables = [_table("Rows dropped, and why", columns, steps)]
    if splits := preparation.get("splits"):
        drawn = [("Rows kept, by split", plots.split_counts(_frame(splits)))]
        rows: dict[str, dict] = {}
        columns = dict(MARKETPLACE)
        for cell in splits:
            head = f"{cell['split']}, {'fraud' if cell['label'] == 1 else 'good'}"
            row = rows.setdefault(cell["segment"], {"segment": cell["segment"]})
            row[head] = row.get(head, 0) + cell["n"]
            columns[head] = (head.replace(" ", ""), ",")
        tables.append(_table("Rows kept", columns, rows.values(), 1))
    return Section("Data", drawn, tables, [note, *(preparation.get("warnings") or [])])
