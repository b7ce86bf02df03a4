"""The evaluation as a page: it stands alone, shows every part, and says n/a where rows cannot say."""

import json
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from n3r.evaluation.attacks import ATTACKS, attack_curve
from n3r.evaluation.evaluate import EvaluationConfig, evaluate_model
from n3r.preprocess import prepare
from n3r.report.evaluation import headline, summary, write_evaluation
from n3r.report.parts import attained
from n3r.schema import LABEL, ORACLE, SCORE, ColumnMap
from n3r.synthetic import orders as synth

EVIL = "<img src=x onerror=alert(1)>$x_{$"
EXAMPLE = Path("reports/example")


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
        "How well fraud is ranked", "What a team catches", "What it costs", "Do scores mean what they say?",
        "By marketplace", "Over time", "Has the population moved?", "Where it fails",
        "Does it serve all alike?", "Under attack", "What more rows would win", "The metrics in plain words",
    ]  # fmt: skip
    for part in re.findall(r"<section.*?</section>", html, re.DOTALL)[:-1]:
        assert 0 < part.index("<figure") < part.index("<table")
    assert all(f"## {title}" in md for title in titles[:-1])


def test_page_stands_alone(page):
    html, _, folder = page
    assert "://" not in html and "<script" not in html and "<img" not in html
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


def test_markup_in_names_stays_text(content, rows, tmp_path):
    evil = {
        key: content[key] for key in ("config", "operating", "data", "models", "decisions", "calibration")
    }
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
