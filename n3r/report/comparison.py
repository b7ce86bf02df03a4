"""What a report says about two systems on the same rows: which ranks better, do they decide alike."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from n3r.estimate import NOT_ENOUGH, bounded
from n3r.files.json_io import plain
from n3r.report import comparison_figures
from n3r.report.page import Page, Section, glossary, show, tabulate, write_page
from n3r.report.parts import COUNTS, Scores, curves, frame, interval
from n3r.report.style import drawable

MODEL = {"model": ("model", "")}
LEAD = (
    "Both systems score the same rows, and the paired difference decides. Equivalent: its 90 % interval lies "
    "inside the margin. Not shown: too few rows to tell, which proves no difference either. The interval of "
    "one training of each is for other rows; over several seeds it is for other trainings too. The "
    "p-values by segment are corrected for their number (Holm)."
)
ALIKE = (
    "Each system flags orders at its own threshold, the lowest that flags no more than the given share of "
    "legitimate orders. A flip is an order that only one of them flags. Equal AUCs can hide many."
)
PHRASES = {
    "equivalent": "{a} is equivalent to {b} within {margin:g}",
    "different": "{a} ranks {way} than {b}",
    "not shown": "{a} is not shown to be equivalent to {b} within {margin:g}",
    NOT_ENOUGH: "there is not enough data to compare {a} with {b}",
}
WORDS = ("AUROC", "[low, high], 95 % interval", "p", "Spearman's rank correlation", "Flip", "McNemar", "n/a")
AGREEMENT = {
    "rank correlation": ("spearman", ".3f"),
    "flagged by A": ("n_flagged_a", ","),
    "flagged by B": ("n_flagged_b", ","),
    "by both": ("n_flagged_both", ","),
    "flips": ("n_flips", ","),
    "of all rows": ("flip_share", "%"),
    "frauds": ("n_fraud_flips", ","),
    "only A right": ("n_only_a_right", ","),
    "only B right": ("n_only_b_right", ","),
    "McNemar p": ("mcnemar_p", "p"),
}


def write_comparison(content: dict[str, Any], scores: Mapping[str, Scores], folder: Path) -> Path:
    """Write comparison.html, .md and .json into a folder; return the page's path.

    content: `name` and `comparisons`, each `comparison.compare` with a `model`. scores: the two systems'
    labels and scores of each model. Raises ValueError naming the folder when it cannot be written.
    """
    content = plain(content, sort_keys=True)
    rows = content["comparisons"]
    sections = [*comparison_sections(rows), *_curves(scores)]
    page = Page(content["name"], verdict(rows), [], sections, glossary(*WORDS))
    return write_page(page, content, folder, "comparison")


def verdict(rows: Sequence[Mapping[str, Any]]) -> str:
    """All comparisons in one sentence, from the report's JSON alone."""
    parts = []
    for row in rows:
        better = "better" if (row["difference"] or 0) > 0 else "worse"
        words = {"a": row["names"][0], "b": row["names"][1], "margin": row["margin"], "way": better}
        seeds = len(row["by_seed"])
        over = f", over {seeds} seeds" if seeds > 1 else ""
        model = f"{row['model']}: " if len(rows) > 1 else ""
        parts.append(f"{model}{PHRASES[row['verdict']].format(**words)}{_difference(row)}{over}")
    return "; ".join(parts) + "."


def comparison_sections(rows: Sequence[Mapping[str, Any]]) -> Iterator[Section]:
    """The parts of a report on comparisons that all have the same two names."""
    names = rows[0]["names"]
    columns = {
        "verdict": ("verdict", ""),
        names[0]: ("auc_a", ".3f"),
        names[1]: ("auc_b", ".3f"),
        f"{names[0]} - {names[1]} [95 %]": interval("difference", "+.4f"),
    }
    tables = [tabulate("AUROC on the same rows", MODEL | columns | {"p": ("p_value", "p")} | COUNTS, rows)]
    if n_seeds := max((len(row["by_seed"]) for row in rows if len(row["by_seed"]) > 1), default=0):
        heads = [f"seed {i + 1}" for i in range(n_seeds)]
        seeds = [{"model": row["model"], **dict(zip(heads, row["by_seed"], strict=False))} for row in rows]
        columns_of = MODEL | {head: (head, "+.4f") for head in heads}
        tables.append(tabulate(f"{names[0]} - {names[1]}, each seed", columns_of, seeds, 1))
    drawn = []
    by_segment = {"segment": ("group", "")} | columns | {"p": ("p_holm", "p")} | COUNTS
    for row in rows:
        if segments := row.get("segments"):
            axes = comparison_figures.paired_difference(frame(segments, "group"), row["margin"], names=names)
            drawn.append((row["model"], axes))
            tables.append(tabulate(f"{row['model']} by segment", by_segment, segments))
    notes = [f"{row['model']}: {row['sentence']}" for row in rows]
    yield Section(f"{names[0]} and {names[1]}: which ranks better?", drawn, tables, notes, LEAD)
    yield _agreement(rows, names)


def _agreement(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Section:
    found = [
        {"model": row["model"], "training": f"{i + 1}", **one}
        for row in rows
        for i, one in enumerate(row["agreement"])
    ]
    several = any(len(row["agreement"]) > 1 for row in rows)
    columns = MODEL | ({"training": ("training", "")} if several else {})
    columns |= {_named(head, names): column for head, column in AGREEMENT.items()}
    title = f"Decisions when {show(rows[0]['agreement'][0]['fpr'], '%')} of legitimate orders may be flagged"
    return Section("Do they decide alike?", [], [tabulate(title, columns, found, 1 + several)], lead=ALIKE)


def _named(head: str, names: Sequence[str]) -> str:
    return re.sub(r"\b[AB]\b", lambda found: names["AB".index(found[0])], head)


def _curves(scores: Mapping[str, Scores]) -> Iterator[Section]:
    for model, systems in scores.items():
        (y, a), (_, b) = systems.values()
        drawn = curves(systems)
        ranks = comparison_figures.rank_agreement(y, a, b, tuple(map(drawable, systems)))
        yield Section(f"{model}: curves", [*drawn, ("Where each puts the same row", ranks)], [])


def _difference(row: Mapping[str, Any]) -> str:
    difference, low, high = (row[name] for name in bounded("difference"))
    return "" if low is None else f" ({difference:+.4f} [{low:+.4f}, {high:+.4f}])"
