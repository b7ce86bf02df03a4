"""The evaluation of one model as a page: charts first, then the tables behind them.

`evaluate.evaluate_model` and `explanations.explain_model` make the content. What is not in it is left out.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from n3r.estimate import NOT_ENOUGH
from n3r.evaluation.evaluate import EvaluationConfig, evaluate_model, ranked
from n3r.evaluation.explanations import explain_model
from n3r.evaluation.scored import beside
from n3r.files.json_io import plain
from n3r.metrics import ALPHA
from n3r.report import comparison_figures, evaluation_figures, figures
from n3r.report.acting import OPERATING, acting_sections, operating_point
from n3r.report.page import Page, Section, cell, glossary, show, tabulate, write_page
from n3r.report.parts import (
    COUNTS,
    FEW_FRAUDS,
    SEVERAL,
    Scores,
    attained,
    class_tables,
    curves,
    frame,
    interval,
    misstated,
    misstated_in_words,
)
from n3r.report.style import drawable
from n3r.rows.parts import Rows
from n3r.score import Scorer

Content = Mapping[str, Any]
N_SHOWN = 20  # traits of the table; all are in the JSON
SCORES = {"score": "scores", "p_calibrated": "calibrated scores"}

MODELS = {
    "model": ("name", ""),
    "AUROC [95 %]": interval("auroc", ".3f"),
    "this model's lead [95 %]": interval("difference", "+.4f"),
    "p": ("p_value", "p"),
    "AP [95 %]": interval("average_precision", ".3f"),
    "recall at 1 % FPR": ("recall_at_fpr_1", "%"),
    "at 5 %": ("recall_at_fpr_5", "%"),
    "log loss": ("log_loss", ".3f"),
    "Brier": ("brier", ".4f"),
}
BINS = {
    "mean score": ("mean_score", ".4f"),
    "fraud [95 %]": interval("observed", "%"),
    **COUNTS,
}
GROUP = {
    "AUROC [95 %]": interval("auroc", ".3f"),
    "recall [95 %]": interval("recall", "%"),
    "false-positive rate [95 %]": interval("fpr", "%"),
    "orders flagged [95 %]": interval("alert_rate", "%"),
    "fraud": ("fraud_rate", "%"),
    "observed / expected [95 %]": interval("ratio", ".2f"),
    **COUNTS,
    "note": ("note", ""),
}
SUMMARY = {
    "of the": ("of", ""),
    "Brier [95 %]": interval("brier", ".4f"),
    "skill": ("brier_skill", "%"),
    "ECE": ("ece", ".4f"),
    "by chance up to": ("ece_null_high", ".4f"),
    "observed / expected [95 %]": interval("observed_expected", ".2f"),
    "slope [95 %]": interval("slope", ".2f"),
    "error against the known risk": ("error", ".4f"),
}
TRAITS = {
    "trait": ("trait", ""),
    **COUNTS,
    "AUROC within [95 %]": interval("auroc", ".3f"),
    "frauds missed": ("n_missed", ","),
    "how many times as often [95 %]": interval("missed_ratio", ".2f"),
    "p": ("missed_p_holm", "p"),
    "false alarms": ("n_alarms", ","),
    "times as often [95 %]": interval("alarms_ratio", ".2f"),
    "p ": ("alarms_p_holm", "p"),
}
SHAPES = {
    "field": ("field", ""),
    "shape": ("shape", ""),
    "rows": ("n", ","),
    "of these errors": ("share", "%"),
    "of all rows of the class": ("class_share", "%"),
}
DISPARITIES = {
    "rate": ("rate", ""),
    "lowest": ("smallest_group", ""),
    "highest": ("largest_group", ""),
    "of all rows": ("overall", "%"),
    "lowest rate": ("smallest", "%"),
    "highest rate": ("largest", "%"),
    "disparity ratio [95 %]": interval("ratio", ".2f"),
    "by chance": ("null_ratio", ".2f"),
    "p": ("p_holm", "p"),
    "groups": ("n_groups", ","),
    "left out": ("n_left_out", ","),
}
GUESSES = {
    "true locale group": ("truth", ""),
    "rows": ("n", ","),
    "guessed right": ("share_right", "%"),
    "uncertain": ("share_uncertain", "%"),
}
ATTACKS = {
    "attack": ("attack", ""),
    "system": ("system", ""),
    "strength": ("strength", ".2f"),
    "AUROC [95 %]": interval("auroc", ".3f"),
    "change [95 %]": interval("difference", "+.4f"),
    "still caught": ("still_caught", "%"),
}
LEARNING = {
    "model": ("model", ""),
    "training rows": ("n_rows", ","),
    "frauds among them": ("n_frauds", ","),
    "AUROC [95 %]": interval("auroc", ".3f"),
    "of the attainable lift": ("attained", "%"),
}
DRIFT = {
    "column": ("column", ""),
    "verdict": ("verdict", ""),
    "PSI": ("psi", ".3f"),
    "by chance": ("null_level", ".3f"),
    "missing in train": ("missing_train", "%"),
    "in test": ("missing_test", "%"),
}
WORDS = (
    "AUROC", "[low, high], 95 % interval", "AP, average precision", "Recall at 1 % FPR", "Operating point",
    "Capture", "Lift", "Cost", "Log loss", "Brier", "ECE, expected calibration error", "Observed / expected",
    "PSI, population stability index", "Disparity ratio", "Baseline", "p", "n/a",
)  # fmt: skip


def write_evaluation(content: Content, scores: Scores, folder: Path, stem: str) -> Path:
    """Write <stem>.html, .md, .json and its curves into a folder; return the page's path.

    content: that of `evaluation.evaluate_model` with the model's `name`, and where known `attacks` and
    `learning`. Raises ValueError naming the folder when it cannot be written.
    """
    content = plain(dict(content))
    sections, pictures = list(_sections(content, scores)), figures.ranking(scores)
    page = Page(content["name"], headline(content), _tiles(content), sections, glossary(*WORDS), pictures)
    return write_page(page, content, folder, stem)


def report_model(
    name: str,
    scorer: Scorer,
    splits: Mapping[str, Rows],
    held_out: pl.DataFrame,
    others: Mapping[str, np.ndarray],
    page: Path,
    n_explained: int = 200,
    seed: int = 0,
) -> Path:
    """Evaluate a bundle on the prepared test rows and write the page, as `write_evaluation`.

    held_out: scored rows that the model did not learn from, on which thresholds are chosen; others: scores of
    the test rows that stand beside the model's. n_explained: `explanations.explain_model`.
    """
    test = beside(splits["test"], scorer.score(splits["test"]))
    config, columns = EvaluationConfig(seed=seed), scorer.column_map
    found = evaluate_model(test, config, columns, held_out, splits["train"], others, scorer.orders_a_day)
    content = {"name": name, **found, **explain_model(scorer, test, n_explained, seed)}
    return write_evaluation(content, ranked(name, test, others), page.parent, page.stem)


def headline(content: Content) -> str:
    """The evaluation in one sentence, from its JSON alone."""
    own, point = content["models"][0], operating_point(content)
    if own["auroc"] is None:
        return f"{NOT_ENOUGH.capitalize()} to evaluate {content['name']}."
    auroc, several = cell(own, *MODELS["AUROC [95 %]"]), content.get("classes")
    parts = [f"{content['name']} reaches an AUROC of {auroc} on {own['n']:,} test orders"]
    if several:
        mean = cell(several["models"][0], *MODELS["AUROC [95 %]"])
        parts = [
            f"{content['name']} reaches an AUROC of {mean} on {own['n']:,} test orders, the mean of each of "
            f"{len(several['each'])} classes against the rest; of class 0 against the rest it is {auroc}"
        ]
    if point and point["recall"] is not None:
        caught = cell(point, *OPERATING["recall [95 %]"])
        allowed = f"{show(point['fpr'], '%')} of legitimate orders may be flagged"
        parts.append(f"it catches {caught} of frauds when {allowed}")
    others = [row for row in content["models"][1:] if row["name"] != "oracle"]
    if others := [row for row in others if row["auroc"] is not None]:
        best = max(others, key=lambda row: row["auroc"])
        way = "ahead of" if best["difference"] > 0 else "behind"
        lead = f"{abs(best['difference']):.4f}"
        sure = "" if best["p_value"] is not None and best["p_value"] < ALPHA else ", which may be chance"
        parts.append(f"its AUROC is {lead} {way} that of the best of the others, {best['name']}{sure}")
    return "; ".join(parts) + "."


def _tiles(content: Content) -> list[tuple[str, str]]:
    own, point = content["models"][0], operating_point(content)
    top = next((row for row in content["decisions"]["top_shares"] if row["share"] == 0.01), None)
    tiles = [(own["auroc"], ".3f", "AUROC on test orders")]
    if point:
        tiles.append((point["recall"], "%", f"of frauds caught at {show(point['fpr'], '%')} false positives"))
    if top:
        tiles.append((top["precision"], "%", "of the riskiest 1 % of orders are fraud"))
    tiles.append((own["n"], ",", f"test orders, {show(own['base_rate'], '%')} of them fraud"))
    shown = [(show(value, spec), what) for value, spec, what in tiles if value is not None]
    name = "p_calibrated" if "p_calibrated" in content["calibration"] else "score"
    if found := misstated(content["calibration"][name]["summary"]):
        shown.append((f"{100 * found.share:.0f} %", f"by which {SCORES[name]} {found}"))
    return shown


def _sections(content: Content, scores: Scores) -> Iterator[Section]:
    yield _ranking(content, scores)
    yield from acting_sections(content)
    yield _meaning(content)
    for key, parts in (
        ("groups", _grouped),
        ("stability", _moved),
        ("error_analysis", _failing),
        ("fairness", _fair),
        ("attacks", _attacked),
        ("learning", _attainable),
    ):
        if content.get(key):
            yield from (section._replace(is_folded=True) for section in parts(content))


def _ranking(content: Content, scores: Scores) -> Section:
    own = figures.score_distribution(*next(iter(scores.values())))
    drawn = [*curves(scores), ("Scores of either class", own)]
    rows = [{**row, "name": row["name"] or content["name"]} for row in content["models"]]
    lead = (
        "Test orders that no model has seen. What stands beside the model learned from the same training "
        "orders; the interval of its lead says whether that is more than chance."
    )
    tables, notes = [tabulate("On the same rows", MODELS, rows, 1)], []
    if several := content.get("classes"):
        tables += class_tables(several, content["name"])
        notes = [SEVERAL.format(len(several["each"]))]
    return Section("How well fraud is ranked", drawn, tables, notes, lead, n_open=1)


def _meaning(content: Content) -> Section:
    found = {key: content["calibration"][key] for key in SCORES if key in content["calibration"]}
    names = {key: words.removesuffix("s") for key, words in SCORES.items()}
    bins = {names[key]: frame(part["bins"]) for key, part in found.items()}
    drawn = [("Does a score of 0.2 mean one fraud in five?", evaluation_figures.reliability_diagram(bins))]
    known = {names[key]: part["posterior"] for key, part in found.items() if "posterior" in part}
    if known:
        risks = {name: frame(part["bins"]) for name, part in known.items()}
        drawn.append(("Score against the known risk", evaluation_figures.posterior_calibration(risks)))
    error = {name: part["summary"]["mean_absolute_error"] for name, part in known.items()}
    rows = [{**found[key]["summary"], "of": names[key], "error": error.get(names[key])} for key in found]
    tables = [tabulate("Calibration", SUMMARY, rows, 1)]
    tables += [tabulate(f"Bins of the {names[key]}", BINS, part["bins"], 0) for key, part in found.items()]
    notes = [misstated_in_words(part["summary"], SCORES[key].capitalize()) for key, part in found.items()]
    return Section("Do scores mean what they say?", drawn, tables, notes)


def _grouped(content: Content) -> Iterator[Section]:
    found = content["groups"]
    if rows := found.get("segment"):
        table = frame(rows, "group")
        drawn = [
            ("AUROC by marketplace", figures.segment_auc(table)),
            ("Frauds seen for each expected", evaluation_figures.group_calibration(table)),
        ]
        found_by = tabulate("", {"marketplace": ("group", "")} | GROUP, rows, 1)
        yield Section("By marketplace", drawn, [found_by], lead=FEW_FRAUDS)
    if rows := found.get("time"):
        trend = evaluation_figures.slice_trend(frame(rows, "group"))
        found_by = tabulate("", {"from, to": ("group", "")} | GROUP, rows, 1)
        yield Section("Over time", [("AUROC and orders flagged over time", trend)], [found_by])


def _moved(content: Content) -> Iterator[Section]:
    found = content["stability"]
    drawn = [("Columns that moved most", evaluation_figures.drift_bars(frame(found["features"])))]
    splits = [row for row in content["data"] if row["split"] != "val"]
    notes = ["Compared: " + " against ".join(f"{row['n']:,} {row['split']} rows" for row in splits)]
    if score := found.get("score"):
        psi, null_level = score["value"], score["null_level"]
        value = "" if psi is None else f"{psi:.3f}, by chance up to {null_level:.3f}: "
        notes.append(f"PSI of the score: {value}{score['verdict']}")
    lead = "Train against test. A column that moved is a reason to look, not yet a fault of the model."
    yield Section("Has the population moved?", drawn, [tabulate("", DRIFT, found["features"])], notes, lead)


def _failing(content: Content) -> Iterator[Section]:
    found = content["error_analysis"]
    counts = content["models"][0]["n"], content["models"][0]["n_positive"]
    forest = evaluation_figures.trait_forest(frame(found["traits"], "trait"), counts)
    drawn = [("Over-represented among missed frauds", forest)]
    shown = [row for row in found["traits"] if row["missed_ratio"] or row["alarms_ratio"]]
    tables = [tabulate("By trait, the strongest first", TRAITS, shown[:N_SHOWN], 1)]
    for error in ("missed fraud", "false alarm"):
        rows = [row for row in found["shapes"] if row["error"] == error]
        if rows:
            tables.append(tabulate(f"Commonest shapes: {error}s", SHAPES, rows))
    lead = (
        "Frauds below the operating threshold, and legitimate orders above it, by what their strings look "
        "like. No text is shown: A and a stand for letters, 9 for digits, a run for one; a shape is listed "
        "when five orders have it. A ratio of 2: frauds with the trait are missed twice as often as those "
        "without it; traits overlap, so counts do not add up."
    )
    yield Section("Where it fails", drawn, tables, lead=lead)


def _fair(content: Content) -> Iterator[Section]:
    drawn, tables, notes = [], [], []
    for part in content["fairness"]["by"]:
        by, rows = part["by"], part["groups"]
        if len(rows) < 2:
            continue
        table, overall = frame(rows, "group"), {row["rate"]: row["overall"] for row in part["disparities"]}
        flagged = evaluation_figures.group_rates(table, "fpr", overall["false-positive rate"])
        caught = evaluation_figures.group_rates(table, "recall", overall["recall"])
        drawn += [(f"Legitimate orders flagged, by {by}", flagged), (f"Frauds caught, by {by}", caught)]
        tables.append(tabulate(f"Rates by {by}", {by: ("group", "")} | GROUP, rows, 1))
        tables.append(tabulate(f"Disparities by {by}", DISPARITIES, part["disparities"], 3))
        notes.append(part["conclusion"])
    if guess := content["fairness"].get("guess"):
        tables.append(tabulate("How good the guess is, where the truth is known", GUESSES, guess, 1))
    lead = (
        "Names carry origin, and a score that reads names can treat groups of people unlike. The script "
        "and the likely locale are guessed from the name; they are not anybody's origin."
    )
    yield Section("Does it serve all alike?", drawn, tables, notes, lead)


def _attacked(content: Content) -> Iterator[Section]:
    named = {drawable(name): frame(rows) for name, rows in content["attacks"].items()}
    drawn = [
        ("What each attack costs", comparison_figures.attack_losses(named)),
        ("By its strength", comparison_figures.attack_curves(named)),
    ]
    rows = [{"system": name, **row} for name, found in content["attacks"].items() for row in found]
    rows.sort(key=lambda row: (row["attack"], row["strength"]))
    lead = (
        "Frauds alone are changed, as a fraudster would change his own order; legitimate orders stay. Still "
        "caught: of the frauds above the threshold before, those that are still above it."
    )
    yield Section("Under attack", drawn, [tabulate("", ATTACKS, rows)], lead=lead)


def _attainable(content: Content) -> Iterator[Section]:
    oracle = oracle_auroc(content)
    rows = [{**row, "attained": attained(row["auroc"], oracle)} for row in content["learning"]]
    drawn = [("More rows", comparison_figures.learning_curve(frame(rows), oracle))]
    lead = (
        "Trained anew on ever more of the training rows. On synthetic orders the oracle is the "
        "probability that labels were drawn with: no model can rank better."
    )
    yield Section("What more rows would win", drawn, [tabulate("", LEARNING, rows, 1)], lead=lead)


def oracle_auroc(content: Content) -> float | None:
    """The AUROC that no model can pass, where it is known."""
    return next((row["auroc"] for row in content["models"] if row["name"] == "oracle"), None)


def summary(content: Content) -> dict[str, Any]:
    """What a run's record keeps of an evaluation: the headline, every model's AUROC, the share attained."""
    aurocs = {row["name"] or content["name"]: row["auroc"] for row in content["models"]}
    share = attained(content["models"][0]["auroc"], oracle_auroc(content))
    return {"headline": headline(content), "auroc": aurocs, "attained": share}
