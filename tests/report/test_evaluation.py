"""The evaluation as a page: it stands alone, shows every part, and says n/a where rows cannot say."""

import json
import re
from base64 import b64encode
from hashlib import sha256
from html import unescape
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from n3r.evaluation.attacks import ATTACKS, attack_curve
from n3r.evaluation.evaluate import EvaluationConfig, evaluate_model
from n3r.preprocess import prepare
from n3r.report.evaluation import headline, summary, write_evaluation
from n3r.report.parts import attained, misstated_in_words
from n3r.schema import LABEL, ORACLE, SCORE, ColumnMap
from n3r.synthetic import orders as synth

NO_FIGURES = ("auroc", "recall", "fpr", "alert_rate", "fraud_rate", "ratio")
EVIL = "<img src=x onerror=alert(1)>$x_{$"
DRIVER = {"name": "all texts together", "lost": 0.1, "lost_low": 0.05, "lost_high": 0.2, "moved": 0.01}
CASE = {
    "id": "order 7",
    "score": 0.9,
    "p_calibrated": None,
    "class": 1,
    "texts": {"e mail": "aaa@aaa.aa", "name": "Aaa"},
    "reasons": ["n is 3, 1 is usual", "another"],
}
EXAMPLE = Path("reports/example")
# Parts that only the whole page needs: each draws figures.
ELSEWHERE = ("stability", "fairness", "learning")


@pytest.fixture(scope="module")
def rows():
    prepared = prepare(
        synth.generate_orders(2500, seed=6, base_rate=0.1).lazy(), ColumnMap.from_file("configs/orders.json")
    )
    test = prepared.splits["test"].with_columns(**{SCORE: pl.col(ORACLE).sqrt()})
    return prepared.column_map, test, prepared.splits["train"]


@pytest.fixture(scope="module")
def content(rows):
    columns, test, train = rows
    found = evaluate_model(test, None, columns, None, train, {"coin": np.linspace(0, 1, len(test))})
    curve = attack_curve(
        lambda frame: frame[columns.text[0]].str.len_chars().fill_null(0).to_numpy() / 100,
        test, columns.text, LABEL, attacks=[next(iter(ATTACKS))], strengths=[1.0],
    )  # fmt: skip
    learning = {
        "n_rows": 100,
        "n_frauds": 9,
        "auroc": 0.7,
        "auroc_low": 0.6,
        "auroc_high": 0.8,
        "n": 300,
        "n_positive": 30,
    }
    return {
        "name": "LSTM2Risk",
        **found,
        "attacks": {"LSTM2Risk": curve.to_dicts(), "legacy": curve.to_dicts()},
        "learning": [{"model": "LSTM2Risk", **learning}, {"model": "LSTM2Risk", **learning, "n_rows": 400}],
        "drivers": {
            **{"n": 60, "n_positive": 30, "n_shuffles": 3, "auroc": 0.8, "auroc_low": 0.7, "auroc_high": 0.9},
            "columns": [DRIVER],
            "features": [DRIVER],
        },
        "cases": [CASE] * 9,
    }


def curves(rows, name="LSTM2Risk"):
    _, test, _ = rows
    return {name: (test[LABEL], test[SCORE])}


def written(content, rows, folder, name="LSTM2Risk"):
    page = write_evaluation(content, curves(rows, name), folder, "model")
    return page.read_text(encoding="utf-8"), (folder / "model.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(content, rows, tmp_path_factory):
    """The page and its Markdown, and the folder that they are in."""
    folder = tmp_path_factory.mktemp("page")
    return *written(content, rows, folder), folder


def test_every_part_has_its_section_and_charts_come_first(page):
    html, md, _ = page
    titles = re.findall(r"<h2>(.*?)</h2>", html)
    assert titles == [
        "How well fraud is ranked", "What a team catches", "Where to draw the line, and what it costs",
        "What drives the score", "Cases to review first", "Do scores mean what they say?", "By marketplace",
        "Over time", "Has the population moved?", "Where it fails",
        "Does it serve all alike?", "Under attack", "What more rows would win", "The metrics in plain words",
    ]  # fmt: skip
    parts = re.split(r'<details class="part"', html)[1:-1]
    for title, part in zip(titles, parts, strict=False):
        if title not in ("Cases to review first", "Where to draw the line, and what it costs"):
            assert 0 < part.index("<figure") < part.index("<table")
    folded = [title for title, part in zip(titles, parts, strict=False) if " open>" not in part[:30]]
    assert folded == titles[titles.index("By marketplace") : -1]
    assert all(f"## {title}" in md for title in titles[:-1])


def test_page_stands_alone(page):
    html, _, folder = page
    assert "://" not in html and "<img" not in html and html.count("<script") == 1
    script = re.search(r"<script>(.*)</script>", html, re.DOTALL)[1]
    allowed = b64encode(sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{allowed}'" in html
    assert not re.search(r"url\((?!#)|@import|\bsrc=", html)
    curves = [f"model_{name}{kind}" for name in ("precision_recall", "roc") for kind in (".png", ".svg")]
    names = ["model.html", "model.json", "model.md", *curves]
    assert sorted(path.name for path in folder.iterdir()) == names


def test_json_is_the_content_and_gives_the_headline(content, page):
    html, _, folder = page
    kept = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    assert kept == json.loads(json.dumps(content))
    sentence = headline(kept)
    assert sentence in html.replace("&#39;", "'")
    own, *_, oracle = content["models"]
    found = summary(kept)
    assert (found["headline"], found["auroc"]["LSTM2Risk"]) == (sentence, own["auroc"])
    assert found["attained"] == attained(own["auroc"], oracle["auroc"])
    assert sentence.startswith(f"LSTM2Risk reaches an AUROC of {own['auroc']:.3f} [{own['auroc_low']:.3f}")


def test_no_identity_is_on_the_page(page, rows):
    columns, test, _ = rows
    html, _, _ = page
    words = re.sub(r"<svg.*?</svg>|<style.*?</style>", "", html, flags=re.DOTALL)
    for field in columns.text:
        for value in test[field].drop_nulls().unique():
            assert value not in words or len(value) < 4


def test_every_curve_holds_all_systems_and_a_chart_has_one_name(page):
    html, _, _ = page
    ranked, caught = re.split(r'<details class="part"', html)[1:3]
    figures = re.findall(r"<figure>.*?</figure>", ranked + caught, re.DOTALL)
    assert [re.search(r"<figcaption>(\w+)", one)[1] for one in figures] == [
        "ROC", "Precision", "Scores", "Recall", "Gain", "Lift"
    ]  # fmt: skip
    assert all("<title>" not in one for one in figures)
    assert "label 0" not in html and "label 1" not in html


def test_the_slider_holds_the_thresholds_and_counts_of_the_content(content, page):
    html, _, _ = page
    held = json.loads(unescape(re.search(r'data-choice="(.*?)"', html)[1]))
    assert held == content["choice"]
    point = [row for row in content["decisions"]["thresholds"] if row["n_flagged"]][0]
    assert (
        point["n_caught"]
        == held["of"]["here"]["caught"][held["of"]["here"]["flagged"].index(point["n_flagged"])]
    )


def test_rows_without_figures_are_folded_away(content, rows, tmp_path):
    few = {**content["groups"]["segment"][0], "group": "few", **dict.fromkeys(NO_FIGURES)}
    odd = {key: part for key, part in content.items() if key not in ELSEWHERE}
    odd |= {"groups": {"segment": [*content["groups"]["segment"], few]}}
    html, md = written(odd, rows, tmp_path)
    assert html.count("<td>few") + html.count(">few</th>") == 1 and "| few |" in md
    assert html.index("1 more row with few figures") < html.index(">few</th>")


@pytest.mark.parametrize(
    ("ratio", "low", "high", "said"),
    [
        (0.78, 0.7, 0.9, "Scores overstate risk by 28 %: 39 frauds were seen where they add up to 50.0."),
        (2.0, 1.5, 3.0, "Scores understate risk by 50 %: 39 frauds were seen where they add up to 19.5."),
        (0.9, 0.7, 1.2, "Scores overstate risk by 11 %, which may be chance: 39 frauds were seen"),
        (None, None, None, "Scores: not enough data to say whether they over- or understate risk."),
    ],
)
def test_by_how_much_scores_misstate_risk_is_a_sentence(ratio, low, high, said):
    names = ("observed_expected", "observed_expected_low", "observed_expected_high")
    summary = {"n_positive": 39, **dict(zip(names, (ratio, low, high), strict=True))}
    assert misstated_in_words(summary, "Scores").startswith(said)


def test_the_page_says_by_how_much_its_scores_misstate_risk(content, page):
    _, md, _ = page
    assert misstated_in_words(content["calibration"]["score"]["summary"], "Scores") in md


def test_markup_in_names_stays_text(content, rows, tmp_path):
    evil = {key: part for key, part in content.items() if key not in ELSEWHERE}
    evil["drivers"] = content["drivers"] | {"features": [{**DRIVER, "name": EVIL}]}
    evil["cases"] = [{**CASE, "id": EVIL, "texts": {EVIL: EVIL}, "reasons": [EVIL]}]
    evil |= {"name": EVIL}
    evil["groups"] = {"segment": [{**row, "group": EVIL} for row in content["groups"]["segment"][:1]]}
    evil["attacks"] = {EVIL: content["attacks"]["legacy"]}
    evil["models"] = [*content["models"], {**content["models"][1], "name": EVIL}]
    html, md = written(evil, rows, tmp_path, EVIL)
    assert "<img" not in html and "<" not in md


def test_defect_42_what_rows_cannot_say_is_na(rows, tmp_path):
    columns, test, _ = rows
    poor = test.filter(**{LABEL: 0}).head(10)
    content = {"name": "poor", **evaluate_model(poor, None, columns)}
    page = write_evaluation(content, {"poor": (poor[LABEL], poor[SCORE])}, tmp_path, "model")
    html = page.read_text(encoding="utf-8")
    assert "Not enough data to evaluate poor." in html
    table = html[html.index("At chosen false-positive rates") :]
    assert table[: table.index("</table>")].count("n/a") >= 5 * 3
    assert ">0.0 %<" not in table[: table.index("</table>")].replace("<th", "<td")


def test_any_operating_point_is_in_the_headline(rows):
    _, test, _ = rows
    content = {"name": "m", **evaluate_model(test, EvaluationConfig(fpr=0.033))}
    assert "of frauds when 3.3 % of legitimate orders may be flagged" in headline(content)


def test_attained_share():
    assert attained(0.8, 0.9) == pytest.approx(0.75)
    assert attained(None, 0.9) is attained(0.8, None) is attained(0.6, 0.5) is None


def test_the_committed_example_has_the_headline_that_its_json_gives():
    content = json.loads((EXAMPLE / "best.json").read_text(encoding="utf-8"))
    page = (EXAMPLE / "best.html").read_text(encoding="utf-8")
    assert f'<p class="headline">{headline(content)}</p>' in page


def test_the_page_of_three_classes_says_what_a_figure_is_of(rows, in_three, tmp_path):
    columns, test, train = rows
    several = in_three(test)
    content = {"name": "LSTM2Risk", **evaluate_model(several, None, columns, None, train)}
    risk = 1 - several[f"{SCORE}_0"]
    write_evaluation(content, {"LSTM2Risk": (several[LABEL] > 0, risk)}, tmp_path, "model")
    said, page = headline(content), (tmp_path / "model.md").read_text()
    assert "the mean of each of 3 classes against the rest; of class 0 against the rest it is 0." in said
    assert "There are 3 classes. Fraud stands for every class but 0" in page
    assert "Each class against the rest" in page and "the mean of each class against the rest" in page
