"""The card says what was recorded, names what was not, and shows names as text whatever they hold."""

import json

import numpy as np
import pytest
from bs4 import BeautifulSoup
from huggingface_hub import ModelCard
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from n3r.calibrate import fit_calibration
from n3r.card import MAX_NAME, MAX_NAMES, model_card
from n3r.metrics import evaluate
from n3r.schema import ColumnMap

TITLES = [
    "What it is",
    "Data",
    "Metrics",
    "Calibration",
    "How to score",
    "Intended use",
    "What must not be concluded",
    "Limits",
    "Versions and licence",
]
CONFIG = {
    "model": {
        "model_class": "lstm2risk",
        "encoder": "lstm",
        "fusion": "concat",
        "n_classes": 2,
        "hidden_size": 64,
        "pretrained": None,
    },
    "train": {"epochs": 6, "lr": 0.001, "class_weights": None, "seed": 0},
    "texts": {"steps": [], "max_tokens": 512},
    "versions": {"torch": "2.13.0+cpu", "n3r": "0.1.0"},
}
COLUMNS = ColumnMap(
    id="orderId",
    text=["email", "billing_name"],
    label="status",
    label_values={"F": 1, "I": 1, "N": 0},
    segment="country",
    numeric=[f"n{i}" for i in range(20)],
    categorical=["browser"],
    split_by="random",
).model_dump()
DATA = {
    "source": "EU.parquet, NA.parquet",
    "fingerprint": "ab" * 32,
    "format": "parquet",
    "n_rows": 2000,
    "left_out": {"Unnamed: 0": "no name of its own", "zip": "text"},
    "splits": {
        "train": {"rows": 1400, "classes": {"0": 1200, "1": 200}, "from": "2025-02-15", "to": "2025-05-01"},
        "val": {"rows": 300, "classes": {"0": 260, "1": 40}},
    },
}
TAGS = {"h1", "h2", "p", "ul", "li", "table", "thead", "tbody", "tr", "th", "td", "pre", "code"}


def measured(n=1000, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.beta(0.6, 6, n)
    return rng.random(n) < truth, truth**2


def card(**changes):
    y, p = measured()
    parts = {
        "config": CONFIG,
        "columns": COLUMNS,
        "metrics": {"val": evaluate(y, p), "test": evaluate(*measured(seed=1))},
        "calibration": fit_calibration(y, np.stack([1 - p, p], axis=1)).to_dict(),
        "data": DATA,
        "n_parameters": 123456,
    }
    return model_card(**{**parts, **changes})


def rendered(markdown):
    """As a page, without the metadata before it, which the hub reads."""
    parser = MarkdownIt("commonmark", {"html": True}).enable("table")
    return BeautifulSoup(parser.render(ModelCard(markdown).text), "html.parser")


def section(markdown, title):
    return markdown.split(f"## {title}\n")[1].split("\n## ")[0]


def test_it_says_what_was_recorded():
    text, metrics = card(), evaluate(*measured(seed=1))
    assert [h.text for h in rendered(text)("h2")] == TITLES
    assert ModelCard(text).data.to_dict() == {
        "library_name": "n3r",
        "tags": ["fraud-detection", "tabular-classification"],
    }
    what = section(text, "What it is")
    assert "lstm2risk: encoder lstm, fusion concat, 123,456 parameters" in what
    assert "text, in this order (2): email, billing\\_name." in what
    assert "class 0 (N), class 1 (F, I) of column status" in what
    data = section(text, "Data")
    assert "ab" * 32 in data and "EU.parquet, NA.parquet" in data
    assert "No features (2): Unnamed: 0 (no name of its own), zip (text)\n" in data
    assert "| train | 1,400 | 0: 1,200 (85.7 %), 1: 200 (14.3 %) | 2025-02-15 | 2025-05-01 |" in data
    interval = f"{metrics['auroc']:.3f} [{metrics['auroc_low']:.3f}, {metrics['auroc_high']:.3f}]"
    assert f"| test | 1,000 | {metrics['base_rate']:.1%}".replace("%", " %") in section(text, "Metrics")
    assert interval in section(text, "Metrics")
    assert "n3r 0.1.0, torch 2.13.0+cpu" in section(text, "Versions and licence")


def test_calibration_is_told_with_its_losses_and_resolution():
    y, p = measured()
    calibration = fit_calibration(y, np.stack([1 - p, p], axis=1)).to_dict()
    told = section(card(), "Calibration")
    assert f"Method: {calibration['method']}; labelled validation rows: 1,000." in told
    assert all(f"{name} {loss:.4f}" in told for name, loss in calibration["log_loss"].items())
    assert "rest on 1,000 rows: a share of traffic below 0.001 " in told


def test_a_calibration_that_was_not_fitted_says_why():
    few = fit_calibration([0, 1], [[0.5, 0.5]] * 2).to_dict()
    told = section(card(calibration=few), "Calibration")
    assert "none (too few labelled rows: 1 of class 0, 1 of class 1; 10 are needed)" in told
    assert "out of fold: not recorded." in told
    assert "None recorded" in section(card(calibration=None), "Calibration")
    several = fit_calibration([0, 1, 2], np.eye(3)).to_dict()
    assert "Percentiles: none." in section(card(calibration=several), "Calibration")


def test_what_is_missing_is_said_to_be_missing():
    text = model_card({}, {}, {"again": True})
    assert [h.text for h in rendered(text)("h2")] == TITLES
    assert text.count("not recorded") >= 14
    assert not rendered(text)("table")
    assert "None" not in text.replace("None recorded", "") and "nan" not in text.split()
    assert "test: not recorded" in section(text, "Metrics")


@pytest.mark.parametrize("part", ["config", "columns", "metrics", "data"])
def test_any_part_may_be_empty(part):
    whole, without = card(), card(**{part: {}})
    assert without.count("not recorded") > whole.count("not recorded")


def test_metrics_that_rows_could_not_define_are_not_zero():
    text = card(metrics={"test": evaluate([0, 0, 0], [0.1, 0.2, 0.3])})
    assert "| test | 3 | 0.0 % | not enough data | not enough data |" in text
    assert "- val: not recorded." in text
    assert len(rendered(section(text, "Metrics"))("table")) == 1
    small = {"int8": {"difference": -0.0012, "difference_low": -0.003, "difference_high": 0.0006}}
    assert "8-bit weights change the AUROC by -0.0012 [-0.0030, +0.0006]." in card(metrics=small)
    assert "| val | not recorded | not recorded | 0.500 |" in card(metrics={"val": {"auroc": 0.5}})


def test_warnings_are_there_and_fit_the_data():
    warned = section(card(), "What must not be concluded")
    for words in (
        "no proof",
        "ethnicity",
        "drift",
        "sampling error only",
        "Validation rows",
        "column country",
    ):
        assert words in warned
    assert "synthetic" not in warned
    assert "(oracle\\_p)" in card(columns={**COLUMNS, "oracle": "oracle_p"})
    assert "Risk tables" in card() and "Risk tables" not in card(columns={**COLUMNS, "categorical": []})
    assert "not stated" in section(card(), "Versions and licence")


def test_several_classes_and_bert():
    bert = {"hidden_size": 128, "vocab_size": 30522, "model_type": "bert"}
    model = {**CONFIG["model"], "n_classes": 3, "bert": bert, "pretrained": "/models/of/someone/minilm"}
    text = card(config={**CONFIG, "model": model})
    assert "one probability per class" in text
    assert "mean of each class against the rest" in text and "against the rest" not in card()
    assert "first weights minilm" in text and "bert hidden\\_size 128" in text
    assert "first weights random" in card(config={**CONFIG, "model": {**model, "pretrained": None}})
    assert "first weights org/model" in card(config={**CONFIG, "model": {**model, "pretrained": "org/model"}})


def test_no_folder_is_told():
    windows = "C:\\Users\\someone\\NA.csv"
    source = f"/data/someone/EU.parquet, {windows}, ~/someone/FE.tsv, ../someone/x.parquet, synthetic"
    text = card(data={**DATA, "source": source})
    assert "someone" not in text
    assert "EU.parquet, NA.csv, FE.tsv, x.parquet, synthetic;" in text


def test_it_is_short_and_the_same_for_the_same_bundle():
    assert len(card().split()) < 700  # two to three minutes
    shuffled = {key: CONFIG[key] for key in reversed(CONFIG)}
    shuffled["versions"] = dict(reversed(CONFIG["versions"].items()))
    assert card() == card() == card(config=shuffled)
    assert card() == card(config=json.loads(json.dumps(CONFIG)), columns=json.loads(json.dumps(COLUMNS)))
    long = card(columns={**COLUMNS, "numeric": [f"n{i}" for i in range(800)]})
    assert f"n{MAX_NAMES - 1}, and {800 - MAX_NAMES} more." in long


def everywhere(name):
    """The card with this name wherever a user gives one."""
    columns = {
        **COLUMNS,
        **dict.fromkeys(("id", "label", "segment", "oracle"), name),
        "text": [name],
        "numeric": [name],
        "label_values": {name: 0, "F": 1},
    }
    data = {**DATA, "source": f"x{name}", "fingerprint": name, "splits": {"val": {"from": name, "to": name}}}
    data["left_out"] = {name: name}
    config = {**CONFIG, "model": {**CONFIG["model"], "model_class": name}, "versions": {name: name}}
    return card(columns=columns, data=data, config=config)


@given(st.text(max_size=100).filter(lambda s: s.strip()))
@example("<img src=x onerror=alert(1)>")
@example("</td></table><script>alert(1)</script>")
@example("a|b | c\\|d")
@example("[click](https://evil.example) ![x](y) <https://evil.example>")
@example("``` `code` ~~~")
@example("line\n\n## heading\n\n- item\r\n---")
@example("*bold* _it_ **b** __c__ ~~d~~ $x$ &lt; &amp; &#60; \\")
@example("\x1b")
@example("name #")
@example("\u202eright to left\u0000\ud800")
def test_names_are_shown_as_they_are(name):
    page = rendered(everywhere(name))
    assert {tag.name for tag in page.find_all(True)} <= TAGS
    assert [h.text for h in page("h2")] == TITLES
    assert {len(row(["td", "th"])) for row in page("table")[0]("tr")} == {5}
    shown = " ".join("".join(c if c.isprintable() else " " for c in name).split())
    shown = (shown or "(blank)") if len(shown) <= MAX_NAME else shown[: MAX_NAME - 1] + "…"
    assert page.h1.text.removeprefix("Model card: ").strip() == shown
    assert f"in this order (1): {shown}." in page.text


def test_addresses_do_not_become_links():
    """Of GitHub's Markdown, which links bare addresses too."""
    text = everywhere("https://evil.example www.evil.example")
    assert "://" not in text and "www.evil" not in text
