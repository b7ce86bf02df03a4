"""The report of a run: how well every model ranks, by marketplace, beside the legacy, and on what data.

Decisions:
- A part without content is left out.
- The headline and the large figures are about the n3r model with the best test AUROC.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from n3r.estimate import NOT_ENOUGH, bounded
from n3r.files.json_io import plain
from n3r.report import comparison_figures, figures
from n3r.report.comparison import comparison_sections, verdict
from n3r.report.data import data_section, findings_section
from n3r.report.page import Page, Section, Table, cell, glossary, show, tabulate, write_page
from n3r.report.parts import COUNTS, FEW_FRAUDS, Scores, attained, curves, frame, interval

Curves = Mapping[str, Scores]

AUROC = interval("auroc", ".3f")
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
MARKETPLACE = {"marketplace": ("group", "")}
SEVERAL = (
    "Figures of more than two classes are the mean of each class against the rest; precision, recall and F1 "
    "are of the likeliest class, accuracy is the share of rows whose class it is. Curves and marketplaces "
    "are of class 0 against the rest."
)
SCORED = (
    "Scored on test orders that no model has seen. Precision, recall, F1 and accuracy count a score of 0.5 "
    "or more as fraud, which rare fraud seldom reaches: the recalls at 1 % and 5 % false positives (FPR) say "
    "more."
)
MEMBERS = (
    "Weights come from held-out rows alone, which a member had not seen when it scored them. What it adds is "
    "the held-out AUROC of the blend less that of the others in it. On test rows both score the same orders."
)
CHOSEN = "The rows on which the best epoch was chosen; a model should do about as well on test."
FUNCTION = (
    "The weights that the legacy learned give the legacy's probabilities in n3r's model when all deviations "
    "are off. With one on, a difference larger than rounding comes from it, on the rows it concerns."
)
ALONE = (
    "n3r trained with all deviations off, as the legacy trains; then with each on alone, and with all. An "
    "interval that holds 0 shows no effect on these rows; the deviation may be for others, or for speed."
)
PRESET = {
    "n3r": "preset n3r: features, tokenizer and training as n3r has them",
    "published": "preset published: tokenizer, features, parts and training as published",
}
UNMEASURED = "n/a: not on the way from a prepared row to a score, or not among those that were tried alone."
REPEATABLE = "What it takes to get the same figures again."
WORDS = ("AUROC", "[low, high], 95 % interval", "AP, average precision", "Recall at 1 % FPR", "Precision")
WORDS += ("Recall", "F1", "Accuracy", "Log loss", "Brier", "Share of the attainable lift over chance", "p")
WORDS += ("Spearman's rank correlation", "Flip", "McNemar", "n/a")


def write_report(content: dict[str, Any], scores: Curves, folder: Path) -> Path:
    """Write report.html, .md, .json and the test rows' curves into a folder; return the page's path.

    content: JSON types. scores: {"val" | "test": {model: (labels, probabilities)}}.
    Raises ValueError naming the folder when it cannot be written; then it is left as it was.
    """
    content = plain(content, sort_keys=True)
    name = f"{content['name']}: risk of a first order being fraud"
    models = content.get("models") or []
    sections, pictures = list(_sections(content, scores)), figures.ranking(scores.get("test") or {})
    page = Page(name, headline(content), _tiles(models), sections, glossary(*WORDS), pictures)
    return write_page(page, content, folder, "report")


def _tiles(models: list[dict]) -> list[tuple[str, str]]:
    """The best model's figures that a reader in a hurry looks for."""
    if (best := _best(models, "test")) is None:
        return []
    test = best["test"]
    tiles = [
        (show(test["auroc"], ".3f"), "test AUROC of the best model"),
        (show(test["recall_at_fpr_1"], "%"), "of frauds caught when 1 in 100 legitimate orders is flagged"),
        (_attained(models), "of what any model could gain over chance"),
        (show(test["n"], ","), f"test orders, {show(test['base_rate'], '%')} of them fraud"),
    ]
    if n_classes := test.get("n_classes"):
        tiles = [tiles[0], (show(test["n"], ","), f"test orders of {n_classes} classes")]
    return [tile for tile in tiles if tile[0] is not None]


def summary(models: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Each model's name, main test metrics and training speed as text, for a terminal."""
    names = {"AUROC [95 %]": "test AUROC [95 %]", "recall at 5 % FPR": "at 5 % FPR"}
    columns = {"model": ("name", "")} | {names.get(k, k): METRICS[k] for k in list(METRICS)[:4]}
    columns["orders/s in training"] = ("orders_per_second", ",.0f")
    table = tabulate("", columns, [{**m, **(m.get("test") or {})} for m in models])
    return [dict(zip(table.head, row, strict=True)) for row in table.rows]


def _sections(content: dict[str, Any], scores: Curves) -> Iterator[Section]:
    models, parity = content.get("models") or [], content.get("parity") or {}
    yield from findings_section((content.get("preparation") or {}).get("findings") or [])
    yield _ranking("How well fraud is ranked", SCORED, "test", models, scores)
    if members := content.get("members"):
        yield _members(members)
    if with_segments := [model for model in models if model.get("segments")]:
        yield _marketplaces(with_segments)
    yield from _parity(parity)
    yield from (section._replace(is_folded=True) for section in _details(content, scores))


def _details(content: dict[str, Any], scores: Curves) -> Iterator[Section]:
    """What is folded away until somebody asks."""
    models, parity = content.get("models") or [], content.get("parity") or {}
    if parity.get("ablation"):
        yield _each_deviation(parity["ablation"])
    if trained := [model for model in models if model["system"] in ("n3r", "legacy")]:
        yield _training(trained)
    if any(model.get("val") for model in models):
        yield _ranking("The same on validation", CHOSEN, "val", models, scores)
    if content.get("tokenizer"):
        yield _tokenizer(content["tokenizer"])
    yield data_section(content["data"], content.get("preparation") or {})
    if found := content.get("deviations"):
        yield _deviations(found, parity.get("ablation") or {})
    if rows := list(_leaves(content.get("provenance") or {})):
        yield Section("Provenance", [], [Table("", ("", "value"), rows)], lead=REPEATABLE)


def _ranking(title: str, lead: str, split: str, models: list[dict], scores: Curves) -> Section:
    scored = scores.get(split) or {}
    drawn = curves(scored)
    best = _best(models, split)
    if best and best["name"] in scored:
        drawn.append((f"Scores of {best['name']}", figures.score_distribution(*scored[best["name"]])))
    own = ("name", "system")  # and no other key: a model's precision is not its scores'
    rows = [{**{key: m[key] for key in own}, **(m[split] or {})} for m in models if split in m]
    columns, notes = SYSTEM | METRICS, []
    if any("n_classes" in row for row in rows):
        columns, notes = {**columns, "rarest class": columns["fraud"]}, [SEVERAL]
        del columns["fraud"]
    tables = [tabulate(f"Metrics, {split} rows", columns, rows)]
    return Section(title, drawn, tables, notes, lead, n_open=1)


def _members(members: list[dict]) -> Section:
    columns = {
        "member": ("member", ""),
        "weight": ("weight", "%"),
        "held-out AUROC [95 %]": ("held_out", ""),
        "adds": ("adds", "+.4f"),
        "test AUROC [95 %]": ("test", ""),
        "blend is ahead by [95 %]": ("blend_ahead", ""),
        "seconds to fit": ("seconds", ",.0f"),
        "ms a row": ("ms_a_row", ".2f"),
        "MB": ("megabytes", ".1f"),
        "left out": ("left_out", ""),
    }
    rows = [{**member, "left_out": member["left_out"] or "no"} for member in members]
    return Section("What the best recipe is made of", [], [tabulate("", columns, rows, 1)], lead=MEMBERS)


def _marketplaces(models: list[dict]) -> Section:
    drawn = [(model["name"], figures.segment_auc(frame(model["segments"], "group"))) for model in models]
    aurocs = {m["name"]: interval(f"auroc{i}", ".3f") for i, m in enumerate(models)}
    rows: dict[str, dict] = {}
    for i, model in enumerate(models):
        for row in model["segments"]:
            own = zip(bounded(f"auroc{i}"), (row[key] for key in bounded("auroc")), strict=True)
            rows[row["group"]] = row | rows.get(row["group"], {}) | dict(own)
    title = "AUROC [95 %] by marketplace, test rows"
    found = tabulate(title, MARKETPLACE | COUNTS | aurocs, rows.values(), 1)
    return Section("By marketplace", drawn, [found], lead=FEW_FRAUDS)


def _parity(parity: dict[str, Any]) -> Iterator[Section]:
    """The first two levels, the same function and as good when trained; or why not."""
    if parity.get("note"):
        yield Section("Beside the legacy", [], [], [parity["note"]])
    if parity.get("function"):
        yield _same_function(parity["function"])
    if parity.get("comparisons"):
        yield from comparison_sections(parity["comparisons"])


def _same_function(function: dict[str, list[dict]]) -> Section:
    rows = [{"model": model, **row} for model, found in function.items() for row in found]
    columns = {
        "model": ("model", ""),
        "deviations that are on": ("deviation", ""),
        "largest difference": ("largest", ".1e"),
        "mean": ("mean", ".1e"),
        "rows that moved": ("n_moved", ","),
        "rows": ("n_rows", ","),
        "what is on, or why it cannot be switched": ("note", ""),
    }
    found = tabulate("The legacy's weights in n3r's model, test rows in random batches", columns, rows)
    return Section("The same function?", [], [found], lead=FUNCTION)


def _each_deviation(ablation: dict[str, list[dict]]) -> Section:
    columns = {
        "deviation": ("deviation", ""),
        "what it does": ("what", ""),
        "AUROC": ("auc", ".3f"),
        "difference to all off [95 %]": interval("difference", "+.4f"),
        "orders/s": ("orders_per_second", ",.0f"),
        "times as fast": ("speed_ratio", ".2f"),
        "seeds": ("n_seeds", ""),
    }
    drawn, tables = [], []
    for model, rows in ablation.items():
        drawn.append((model, comparison_figures.ablation_forest(frame(rows))))
        tables.append(tabulate(model, columns, rows))
    return Section("What does each deviation do?", drawn, tables, lead=ALONE)


def _deviations(found: list[dict], ablation: dict[str, list[dict]]) -> Section:
    columns = {"file": ("where", ""), "what is done otherwise, and why": ("what", "")}
    for model in ablation:
        columns[f"AUROC, {model} [95 %]"] = interval(f"{model}_difference", "+.4f")
    notes = [UNMEASURED] if ablation else []
    return Section("Deviations from the legacy", [], [tabulate("", columns, found)], notes)


def _training(models: list[dict]) -> Section:
    drawn = [(m["name"], figures.training_curve(m["history"])) for m in models if m.get("history")]
    keys = {"parameters": "n_parameters", "epochs": "epochs", "orders/s": "orders_per_second"}
    columns = {"precision": ("precision", ""), **{head: (key, ",.0f") for head, key in keys.items()}}
    sized = {m["name"]: m["dimensions"] for m in models if m.get("dimensions")}
    keys = dict.fromkeys(key for dimensions in sized.values() for key in dimensions)
    rows = [(key, *(show(dimensions.get(key, "")) for dimensions in sized.values())) for key in keys]
    tables = [tabulate("Models", SYSTEM | columns, models, 3), Table("Dimensions", ("", *sized), rows, 1)]
    presets = dict.fromkeys(m["preset"] for m in models if m.get("preset"))
    return Section("Training", drawn, tables[: 1 + bool(rows)], [PRESET[name] for name in presets])


def _tokenizer(found: dict) -> Section:
    size, target, curve = found["vocab_size"], found["target_compression"], found.get("curve")
    reached = show(found["compression"], ".2f")
    note = f"{size:,} tokens from the training rows; one stands for {reached} characters (target {target:g})"
    drawn, tables = [], []
    if curve:
        points = ([row[key] for row in curve] for key in ("vocab_size", "compression"))
        drawn = [("The vocabulary chosen", figures.compression_curve(*points, size, target))]
        columns = {"vocabulary": ("vocab_size", ","), "characters per token": ("compression", ".3f")}
        tables = [tabulate("Vocabularies measured", columns, curve, 0)]
    notes = [note]
    if spelling := found.get("normalizer"):
        notes.append(f"a text's normal form: {spelling}")
    if fewest := found.get("min_frequency"):
        notes.append(
            f"a piece of a name is a token only where it comes {fewest:,} times or more in training; of a "
            "rarer one the vocabulary holds shorter pieces, at last single characters"
        )
    return Section("Tokenizer", drawn, tables, notes)


def _best(models: list[dict], split: str, system: str = "n3r") -> dict | None:
    """The model of a system with the highest AUROC, if any has one."""
    known = [m for m in models if m["system"] == system and (m.get(split) or {}).get("auroc") is not None]
    return max(known, key=lambda model: model[split]["auroc"], default=None)


def _attained(models: list[dict]) -> str | None:
    """What share of the oracle's lead over chance the best n3r model has."""
    best, oracle = (_best(models, "test", system) for system in ("n3r", "oracle"))
    if best is None or oracle is None:
        return None
    share = attained(best["test"]["auroc"], oracle["test"]["auroc"])
    return None if share is None else show(share, "%")


def headline(content: dict[str, Any]) -> str:
    """The report's answer in one sentence, from its JSON alone."""
    models, parity = content.get("models") or [], content.get("parity") or {}
    parts = [f"{NOT_ENOUGH.capitalize()} for a test AUROC"]
    if best := _best(models, "test"):
        parts = [f"The best n3r model, {best['name']}, reaches a test AUROC of {cell(best['test'], *AUROC)}"]
    if share := _attained(models):
        parts[0] += f", {share} of the attainable lift over chance"
    ahead = _best(models, "test", "baseline")
    if ahead and best and ahead["test"]["auroc"] > best["test"]["auroc"]:
        parts.append(f"{ahead['name']}, a baseline, reaches {cell(ahead['test'], *AUROC)}")
    if comparisons := parity.get("comparisons"):
        parts.append(verdict(comparisons).removesuffix("."))
    return "; ".join(parts) + "."


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Dotted names and texts of what nested objects hold."""
    if not isinstance(value, dict):
        yield name, show(value)
        return
    for key in value:
        yield from _leaves(value[key], f"{name}.{key}" if name else key)
