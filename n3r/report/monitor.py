"""New rows beside a model's training as a page: what to look at, alerts over time, scores, columns."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from n3r.files.json_io import plain
from n3r.report import evaluation_figures
from n3r.report.data import findings_section
from n3r.report.page import Page, Section, cell, glossary, show, tabulate, write_page
from n3r.report.parts import interval, misstated_in_words
from n3r.rows.parts import SAMPLE

ALERTS = {
    "slice of time": ("group", ""),
    "orders": ("n", ","),
    "orders flagged [95 %]": interval("alert_rate", "%"),
    "mean score": ("mean_score", ".4f"),
}
RANKED = {"AUROC [95 %]": interval("auroc", ".3f"), "recall [95 %]": interval("recall", "%")}
DRIFT = {
    "column": ("column", ""),
    "verdict": ("verdict", ""),
    "PSI": ("psi", ".3f"),
    "by chance": ("null_level", ".3f"),
    "missing in training": ("missing_train", "%"),
    "now": ("missing_test", "%"),
}
MEASURED = {
    "rows": ("of", ""),
    "orders": ("n", ","),
    "frauds": ("n_positive", ","),
    "AUROC [95 %]": interval("auroc", ".3f"),
    "recall at 1 % FPR": ("recall_at_fpr_1", "%"),
    "log loss": ("log_loss", ".3f"),
}
WORDS = ("AUROC", "[low, high], 95 % interval", "PSI, population stability index", "Recall at 1 % FPR", "n/a")


def write_monitor(content: Mapping[str, Any], answer: str, folder: Path, stem: str = "monitor") -> Path:
    """Write <stem>.html, .md and .json of `checks.monitor.monitor` into a folder; return the page's path."""
    content = plain(dict(content))
    sections = [
        *findings_section(content["findings"]),
        *_over_time(content),
        *_quality(content),
        _columns(content),
    ]
    page = Page("New orders beside the training", answer, _tiles(content), sections, glossary(*WORDS))
    return write_page(page, content, folder, stem)


def _tiles(content: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows, moved = content["rows"], [row for row in content["columns"] if row["verdict"] == "shifted"]
    n = rows["n_compared"]
    tiles = [
        (show(rows["n_new"], ","), "new orders"),
        *([(show(n, ","), "of them drawn, and compared here")] if n < rows["n_new"] else []),
        (show(content["alert_rate"]["alert_rate"], ".2%"), "of them flagged"),
        (show(content["alert_rate_held_out"], ".2%"), "flagged when the model was made"),
        (str(len(moved)), "columns that have shifted"),
    ]
    found = content["measured"]
    return tiles + ([(cell(found, *RANKED["AUROC [95 %]"]), "AUROC where labels are known")] if found else [])


def _over_time(content: Mapping[str, Any]) -> Iterator[Section]:
    slices = content["time"]
    if not slices:
        return
    columns = {**ALERTS, **(RANKED if "auroc" in slices[0] else {})}
    alerts = pl.DataFrame(slices, infer_schema_length=None)
    overall = content["alert_rate_held_out"]
    if "n_positive" not in alerts.columns:
        alerts = alerts.with_columns(n_positive=0)
    chart = evaluation_figures.group_rates(alerts, "alert_rate", overall)
    lead = "The line is the rate of the rows that were held out when the model was made."
    yield Section(
        "Alerts over time", [("Orders flagged", chart)], [tabulate("", columns, slices, 1)], lead=lead
    )


def _quality(content: Mapping[str, Any]) -> Iterator[Section]:
    held, found = content["reference"]["held_out"], content["measured"]
    rows = [{"of": "held out when the model was made", **held}]
    if found:
        rows.insert(0, {"of": "new, with labels", **found})
        notes = [misstated_in_words(found["calibration"], "Calibrated scores")]
    else:
        notes = ["Too few labels have arrived to say how well new orders are ranked."]
    yield Section("Ranking", [], [tabulate("", MEASURED, rows, 1)], notes)


def _columns(content: Mapping[str, Any]) -> Section:
    score = content["score"]
    told = f"Score: PSI {show(score['psi'], '.3f')} (by chance up to {show(score['null_level'], '.3f')})"
    rows = content["columns"]
    shown = [row for row in rows if row["verdict"] != "stable"] or rows[:5]
    bars = evaluation_figures.drift_bars(pl.DataFrame(rows, infer_schema_length=None)) if rows else None
    plots = [("Columns", bars)] if bars is not None else []
    notes = [f"{told}: {score['verdict']}."]
    if (n := content["reference"]["n_train"]) > SAMPLE:
        notes.append(f"Bins of numbers are quantiles of a sample of {SAMPLE:,} of {n:,} training rows.")
    return Section("What has moved", plots, [tabulate("", DRIFT, shown, 2)] if shown else [], notes)
