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

from n3r import canvas, plots
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
    "different": "ranks {way} than the legacy",
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
    own = ("name", "system")  # and no other key: a model's precision is not its scores'
    rows = [{**{key: m[key] for key in own}, **(m[split] or {})} for m in models if split in m]
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
    note = (
        f"{data['n_rows']:,} rows ({data['format']}) from {data['source']}; fingerprint {data['fingerprint']}"
    )
    drawn, tables = [], []
    if steps := preparation.get("steps"):
        columns = {"step": ("step", ""), "reason": ("reason", "")}
        columns |= {name: (f"rows_{name}", ",") for name in ("in", "kept", "dropped")}
        tables = [_table("Rows dropped, and why", columns, steps)]
    if splits := preparation.get("splits"):
        drawn = [("Rows kept, by split", plots.split_counts(pl.DataFrame(splits)))]
        kinds = {0: "good", 1: "fraud"}
        cells = [(r["segment"] or "(none)", f"{r['split']}, {kinds[r['label']]}", r["n"]) for r in splits]
        wide = pl.DataFrame(cells, ["marketplace", "of", "n"], orient="row").pivot(
            "of", values="n", aggregate_function="sum"
        )
        rows = [(name, *(f"{n or 0:,}" for n in counts)) for name, *counts in wide.rows()]
        tables.append(Table("Rows kept", wide.columns, rows, 1))
    return Section("Data", drawn, tables, [note, *(preparation.get("warnings") or [])])


def _best(models: list[dict], split: str) -> dict | None:
    """The n3r model with the highest AUROC, if any has one."""
    known = [m for m in models if m["system"] == "n3r" and (m.get(split) or {}).get("auroc") is not None]
    return max(known, key=lambda model: model[split]["auroc"], default=None)


def _attained(models: list[dict]) -> str | None:
    """What share of the oracle's lead over chance the best n3r model has."""
    oracle = next((m["test"]["auroc"] for m in models if m["system"] == "oracle" and m["test"]), None)
    best = _best(models, "test")
    if best is None or oracle is None or oracle <= 0.5:
        return None
    return _show((best["test"]["auroc"] - 0.5) / (oracle - 0.5), "%")


def _headline(content: dict[str, Any]) -> str:
    models, parity = content.get("models") or [], content.get("parity") or {}
    parts = [f"{NOT_ENOUGH.capitalize()} for a test AUROC"]
    if best := _best(models, "test"):
        parts = [f"The best n3r model, {best['name']}, reaches a test AUROC of {_cell(best['test'], *AUROC)}"]
    if share := _attained(models):
        parts[0] += f", {share} of the attainable lift over chance"
    for row in parity.get("comparisons") or []:
        words = {"margin": parity["margin"], "way": "better" if (row["difference"] or 0) > 0 else "worse"}
        phrase = PHRASES.get(row["verdict"], "{verdict}").format(**words, verdict=row["verdict"])
        parts.append(f"{row['model_class']} {phrase} ({_show(row['difference'], '+.4f')})")
    return "; ".join(parts) + "."


def _table(title: str, columns: Columns, rows: Iterable[Mapping], n_words: int = 2) -> Table:
    cells = [tuple(_cell(row, *column) for column in columns.values()) for row in rows]
    return Table(title, tuple(columns), cells, n_words)


def _cell(row: Mapping, keys: str, spec: str) -> str:
    value, *ends = (row.get(key) for key in keys.split())
    known = ends and value is not None and None not in ends
    return _show(value, spec) + (f" [{', '.join(_show(end, spec) for end in ends)}]" if known else "")


def _show(value: Any, spec: str = "") -> str:
    if value is None:
        return MISSING
    return f"{100 * value:.1f} %" if spec == "%" else format(value, spec)


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Dotted names and texts of what nested objects hold."""
    if not isinstance(value, dict):
        yield name, _show(value)
        return
    for key in value:
        yield from _leaves(value[key], f"{name}.{key}" if name else key)


def _frame(segments: list[dict]) -> pl.DataFrame:
    rows = [{**row, "segment": _drawable(row["segment"])} for row in segments]
    return pl.DataFrame(rows, infer_schema_length=None)


def _drawable(name: str) -> str:
    return name.replace("$", r"\$")  # matplotlib reads $...$ as a formula


def _markdown(content: dict[str, Any], sections: list[Section]) -> str:
    blocks = [f"# {_escaped(content['name'])}", _escaped(_headline(content))]
    for section in sections:
        blocks += [f"## {section.title}", *map(_escaped, section.notes)]
        for table in section.tables:
            rule = [":--" if i < table.n_words else "--:" for i in range(len(table.head))]
            lines = [map(_escaped, table.head), rule, *(map(_escaped, row) for row in table.rows)]
            blocks += [f"**{_escaped(table.title)}**"] if table.title else []
            blocks.append("\n".join(f"| {' | '.join(cells)} |" for cells in lines))
    return "\n\n".join(blocks) + "\n"


def _escaped(text: str) -> str:
    text = re.sub(r"([\\`*_|~$]|(?<=\])(?=\())", r"\\\1", " ".join(text.split()))
    return escape(text, quote=False)


def _html(content: dict[str, Any], sections: list[Section]) -> str:
    from jinja2 import Environment, StrictUndefined

    source = files("n3r").joinpath("report.html.j2").read_text(encoding="utf-8")
    page = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    name, headline, models = content["name"], _headline(content), content.get("models") or []
    shown = {"name": name, "headline": headline, "best": _best(models, "test"), "attained": _attained(models)}
    return page.from_string(source).render(**shown, sections=sections, show=_show, svg=_svg)


def _svg(axes: "Axes", caption: str, key: str) -> str:
    """The figure without its XML envelope; `key` keeps its ids apart from the other figures'."""
    svg = canvas.to_svg(axes.figure)
    svg = re.sub(r'<metadata>.*?</metadata>|<!--.*?-->| xmlns(:\w+)?="[^"]*"', "", svg, flags=re.DOTALL)
    svg = re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{key}-", svg)
    return svg.replace("<svg", f'<svg role="img" aria-label="{escape(caption)}"', 1)


def _write(folder: Path, texts: Mapping[str, str]) -> None:
    """Write all files aside, then rename them."""
    asides = {name: folder / f".{name}.partial" for name in texts}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any((folder / name).is_dir() for name in texts):
            raise IsADirectoryError(0, f"a folder has the name of one of {', '.join(texts)}")
        for name, aside in asides.items():
            aside.write_bytes(texts[name].encode("utf-8", "replace"))
        for name, aside in asides.items():
            aside.replace(folder / name)
    except OSError as error:
        reason = f"{error.strerror}; choose a folder that can be written"
        raise ValueError(f"cannot write the report into {folder}: {reason}") from None
    finally:
        for aside in asides.values():
            if aside.is_file():
                aside.unlink()
