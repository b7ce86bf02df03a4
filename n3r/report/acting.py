"""What a page says of acting on scores: what is caught, thresholds and costs, drivers of a score, cases.

Every part takes the content of `evaluation.evaluate_model`, with what `evaluation.explain_model` adds.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import polars as pl

from n3r.evaluation.explanations import TOGETHER
from n3r.report import evaluation_figures, figures
from n3r.report.page import Choice, Section, Table, cell, show, tabulate
from n3r.report.parts import frame, interval
from n3r.report.style import drawable
from n3r.thresholds import FEW_ROWS

Content = Mapping[str, Any]
N_SHOWN = 30  # features of the table; all are in the JSON
N_OPEN = 5  # cases that are not folded away

OPERATING = {
    "legitimate orders flagged, at most": ("fpr", "%"),
    "threshold": ("threshold", ".4f"),
    "recall [95 %]": interval("recall", "%"),
    "precision [95 %]": interval("precision", "%"),
    "orders flagged": ("flagged", "%"),
}
TOP = {
    "top share of orders": ("share", "%"),
    "orders": ("n_orders", ","),
    "precision [95 %]": interval("precision", "%"),
    "capture [95 %]": interval("capture", "%"),
    "lift [95 %]": interval("lift", ".1f"),
}
THRESHOLDS = {
    "threshold": ("threshold", ".4f"),
    "orders flagged": ("n_flagged", ","),
    "of all": ("flagged", "%"),
    "a day": ("a_day", ",.1f"),
    "frauds caught": ("n_caught", ","),
    "missed": ("n_missed", ","),
    "false alarms": ("n_false_alarms", ","),
    "precision": ("precision", "%"),
    "recall": ("recall", "%"),
    "amount caught": ("amount_caught", ",.0f"),
    "amount missed": ("amount_missed", ",.0f"),
    "cost of 1,000 orders": ("cost_per_1000", ",.0f"),
    "": ("mark", ""),
}
OF_AMOUNT = ("amount caught", "amount missed")
DRIVERS = {
    "AUROC lost [95 %]": interval("lost", "+.4f"),
    "a score moves by": ("moved", ".4f"),
}
FIGURES = {
    "recall": "of frauds are caught",
    "amount": "of their amount is caught",
    "precision": "of the flagged orders are fraud",
    "fpr": "of legitimate orders are flagged",
    "flagged": "of all orders are flagged",
    "alerts": "orders flagged a day",
    "cost": "cost of 1,000 orders",
    "daily": "cost a day",
}
SETS = {"validation": "validation orders: choose by these", "here": "test orders: expect this"}
DRIVEN = (
    "What the ranking loses when a column's values are shuffled among the orders, or when all have the usual "
    "value of a feature. Those that say the same stand in for each other, and lose little each."
)
REVIEWED = (
    "The test orders of the highest scores. Texts are shapes: A and a stand for letters, 9 for digits. A "
    "reason is a feature with which the score is higher than with their usual values."
)


def operating_point(content: Content) -> dict[str, Any] | None:
    """The row of the false-positive rate that the config names."""
    wanted = content["config"]["fpr"]
    return next((row for row in content["decisions"]["operating_points"] if row["fpr"] == wanted), None)


def acting_sections(content: Content) -> Iterator[Section]:
    """What is caught, thresholds and costs, and where they are known drivers and cases."""
    yield _catching(content)
    yield _cost(content)
    if content.get("drivers"):
        yield _driving(content["drivers"])
    if content.get("cases"):
        yield _reviewing(content)


def _catching(content: Content) -> Section:
    found = content["decisions"]
    systems = {content["name"]: found, **found["others"]}
    operating, top = (
        {drawable(name): frame(own[key]) for name, own in systems.items()}
        for key in ("operating_points", "top_shares")
    )
    gain = {drawable(name): pl.DataFrame(own["gain"]) for name, own in systems.items()}
    drawn = [
        (
            "Recall: frauds caught, by legitimate orders flagged",
            evaluation_figures.operating_recall(operating),
        ),
        ("Gain: frauds caught, by orders flagged (recall@k)", evaluation_figures.gain(gain, top)),
        ("Lift: how much denser frauds are at the top", evaluation_figures.lift(top)),
    ]
    tables = [
        tabulate("At chosen false-positive rates", OPERATING, found["operating_points"], 0),
        tabulate("In the top of the ranking", TOP, found["top_shares"], 0),
    ]
    return Section("What a team catches", drawn, tables, _caught_in_words(content))


def _caught_in_words(content: Content) -> list[str]:
    """What the operating point does to 1,000 orders."""
    point, own = operating_point(content), content["models"][0]
    if point is None or point["recall"] is None:
        return []
    flagged, frauds = 1000 * point["flagged"], 1000 * own["base_rate"]
    right = frauds * point["recall"]
    return [
        f"Of 1,000 orders {frauds:.1f} are fraud. When {show(point['fpr'], '%')} of legitimate orders may be "
        f"flagged, {flagged:.1f} are flagged: {right:.1f} of them fraud, {flagged - right:.1f} false alarms."
    ]


def _cost(content: Content) -> Section:
    found, config = content["decisions"], content["config"]
    best, chosen, per_day = (
        found["cheapest"],
        found["chosen_on_validation"],
        content["choice"]["orders_a_day"],
    )
    curve = pl.DataFrame(found["cost_curve"])
    drawn = [("Cost by orders flagged", evaluation_figures.cost_curve(curve, best, chosen))]
    rows = [{**row, "mark": "cheapest here" if row["is_cheapest"] else ""} for row in found["thresholds"]]
    if chosen:
        rows.append({**chosen, "mark": "chosen on validation"})
    columns = dict(THRESHOLDS)
    for head in [*(["a day"] if per_day is None else []), *([] if found["by_amount"] else OF_AMOUNT)]:
        del columns[head]
    rows = [{**row, "a_day": per_day and row["flagged"] and row["flagged"] * per_day} for row in rows]
    missed, alarm = (f"{config[key]:,.0f}" for key in ("cost_missed", "cost_alarm"))
    missed = f"{config['cost_missed']:,.2f} times its amount" if found["by_amount"] else missed
    notes = [f"A missed fraud costs {missed} and a false alarm {alarm} (cost_missed and cost_alarm)."]
    if best["cost_per_1000"] is not None:
        notes.append(
            f"1,000 orders cost {best['flag_none_per_1000']:,.0f} when none is flagged, "
            f"{best['cost_per_1000']:,.0f} at the threshold that is cheapest on these rows"
            + (f", {chosen['cost_per_1000']:,.0f} at the one chosen on validation rows." if chosen else ".")
        )
    lead = (
        "The threshold chosen on validation rows is the one to expect from; the cheapest on these rows "
        "flatters itself. n3r score takes the same rules: --fpr, --budget, --cost-missed with --cost-alarm, "
        "--threshold."
    )
    tables = [tabulate("Thresholds by what can be reviewed", columns, rows, 0)]
    return Section(
        "Where to draw the line, and what it costs", drawn, tables, notes, lead, choice=_choice(content)
    )


def _choice(content: Content) -> Choice | None:
    """The slider; None where the rows to choose by are too few."""
    choice, config = content["choice"], content["config"]
    rows = next(iter(choice["of"].values()))
    if min(rows["n_frauds"], rows["n"] - rows["n_frauds"]) < FEW_ROWS:
        return None
    by_day, by_amount = choice["orders_a_day"] is not None, content["decisions"]["by_amount"]
    left_out = [*([] if by_day else ["alerts", "daily"]), *([] if by_amount else ["amount"])]
    names = {key: words for key, words in FIGURES.items() if key not in left_out}
    sets = {key: SETS[key] for key in choice["of"]}
    points = json.dumps(choice, separators=(",", ":"), allow_nan=False)
    costs = config["cost_missed"], config["cost_alarm"]
    return Choice(points, sets, names, 100 * config["fpr"], *costs, by_day, by_amount)


def _driving(found: Mapping[str, Any]) -> Section:
    counts = found["n"], found["n_positive"]
    drawn, tables = [], []
    for key, caption, name in (
        ("columns", "By column: its values shuffled", "column"),
        ("features", "By feature: its usual value for all", "feature"),
    ):
        if rows := found[key]:
            drawn.append((caption, figures.drivers(frame(rows, "name"), counts)))
            title = f"By {name}, the largest loss first"
            tables.append(tabulate(title, {name: ("name", ""), **DRIVERS}, rows[:N_SHOWN], 1))
    notes = [
        f"On {found['n']:,} test orders, {found['n_positive']:,} of them fraud, where the model's AUROC is "
        f"{cell(found, *interval('auroc', '.3f'))}; each column was shuffled {found['n_shuffles']} times."
    ]
    for row in found["columns"]:
        if row["name"] in TOGETHER and row["lost"] is not None:
            notes.append(f"With {row['name']} shuffled it loses {cell(row, *interval('lost', '.3f'))} of it.")
    return Section("What drives the score", drawn, tables, notes, DRIVEN)


def _reviewing(content: Content) -> Section:
    rows, several = content["cases"], content.get("classes")
    kinds = ["legitimate", "fraud"]
    texts = " | ".join(rows[0]["texts"])
    head = ["id", "it was", "why its score is high", texts, "score"]
    is_calibrated = rows[0]["p_calibrated"] is not None
    cells = []
    for row in rows:
        was = f"class {row['class']}" if several else kinds[row["class"]]
        words = row["id"], was, "; ".join(row["reasons"]), " | ".join(row["texts"].values())
        calibrated = [show(row["p_calibrated"], "%")] if is_calibrated else []
        cells.append((*words, show(row["score"], ".4f"), *calibrated))
    head += ["calibrated"] if is_calibrated else []
    tables = [Table("", head, cells[:N_OPEN], 4), Table("More cases", head, cells[N_OPEN:], 4)]
    shown = tables if len(cells) > N_OPEN else tables[:1]
    return Section("Cases to review first", [], shown, lead=REVIEWED, n_open=1)
