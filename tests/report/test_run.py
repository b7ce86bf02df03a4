import copy
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from n3r import metrics
from n3r.evaluation import comparison
from n3r.multiclass import measure
from n3r.report import run

RNG = np.random.default_rng(5)
Y = RNG.random(300) < 0.2
A, B, BEST = (np.clip(RNG.normal(0.3 + shift * Y, 0.2), 0, 1) for shift in (0.3, 0.2, 0.5))
SEGMENT = np.where(np.arange(300) < 200, "US", "DE")
SEGMENT[:4] = "MX"
CURVES = {"test": {"LSTM2Risk": (Y, A), "legacy LSTM2Risk": (Y, B), "oracle": (Y, BEST)}}
EVIL = "<img src=x onerror=alert(1)>"
VOID = {"meta", "br", "img"}


def model(name, system, scores, **more):
    test = metrics.evaluate(Y, scores)
    sizes = {"n_parameters": 1234567, "dimensions": {"hidden_size": 128}, "epochs": 2}
    return {"name": name, "system": system, **sizes, "precision": "float32", "test": test, **more}


def content(**changes):
    tables = [
        pl.DataFrame({"id": np.arange(300), "label": Y, "segment": SEGMENT, "score": p}) for p in (A, B)
    ]
    compared = {"model": "lstm2risk", **comparison.compare(*tables, names=("n3r", "legacy"))}
    history = [{"epoch": 1, "train_loss": 0.6, "val_loss": 0.5, "val_auroc": 0.7}]
    segments = metrics.by_segment(SEGMENT, Y, A).to_dicts()
    models = [
        model("LSTM2Risk", "n3r", A, history=history, segments=segments, orders_per_second=4321.4, val=None),
        model("legacy LSTM2Risk", "legacy", B, orders_per_second=None, segments=None, history=[]),
        {"name": "oracle", "system": "oracle", "test": metrics.evaluate(Y, BEST)},
    ]
    step = {"step": "label", "reason": "no label", "rows_in": 12345, "rows_kept": 12000, "rows_dropped": 345}
    splits = [("train", "US", 0, 9000), ("train", "US", 1, 250), ("test", "DE", 0, 2750)]
    return {
        "name": "golden",
        "data": {
            "source": "orders.csv",
            "fingerprint": "c0ffee",
            "format": "csv",
            "n_rows": 12345,
            "left_out": {"": "no name"},
        },
        "preparation": {
            "steps": [step],
            "splits": [dict(zip(("split", "segment", "label", "n"), row, strict=True)) for row in splits],
            "times": [{"split": "train", "first": "2025-01-01 00:00:00", "last": "2025-02-01 00:00:00"}],
            "findings": [{"name": "rows", "severity": "warning", "what": "'v' is null", "advice": "look"}],
        },
        "tokenizer": {
            "vocab_size": 2000,
            "compression": 2.4,
            "target_compression": 2.5,
            "curve": [{"vocab_size": 1000, "compression": 2.0}, {"vocab_size": 2000, "compression": 2.4}],
        },
        "models": models,
        "parity": {"margin": 0.01, "comparisons": [compared]},
        "deviations": [{"where": "text.py", "what": "padding has no weight"}],
        "provenance": {"versions": {"polars": "2.1.0"}, "seed": 7},
        **changes,
    }


def bare(**changes):
    """The least that a report can be made of."""
    return {"name": "bare", "data": content()["data"], "models": content()["models"][1:2]} | changes


class Page(HTMLParser):
    """Tags, texts and table rows; fails on a tag that is not closed in order."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.rows, self.ids, self.words = [], [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.ids += [value for name, value in attrs if name == "id"]
        self.rows += [[]] if tag == "tr" else []
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.ids += [value for name, value in attrs if name == "id"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data.strip())
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data

    def row(self, *start):
        return next(row for row in self.rows if tuple(row[: len(start)]) == start)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return run.write_report(content(), CURVES, tmp_path_factory.mktemp("written") / "new" / "folder")


@pytest.fixture(scope="module")
def page(written):
    return Page(written.read_text(encoding="utf-8"))


def write_bare(folder, curves=None, **changes):
    path = run.write_report(bare(**changes), curves or {}, folder)
    return path.read_text(encoding="utf-8"), (folder / "report.md").read_text(encoding="utf-8")


def test_writes_the_page_in_three_forms_and_its_curves_in_two(written):
    names = sorted(path.name for path in written.parent.iterdir())
    curves = [f"report_{name}{kind}" for name in ("precision_recall", "roc") for kind in (".png", ".svg")]
    assert names == ["report.html", "report.json", "report.md", *curves]


def test_page_stands_alone(written, page):
    text = written.read_text(encoding="utf-8")
    assert "://" not in text
    assert not {"link", "img", "iframe", "object", "base"} & set(page.tags) and page.tags.count("script") == 1
    assert not re.search(r"url\((?!#)|@import|\bsrc=|\son\w+=", text)
    assert all(target.startswith("#") for target in re.findall(r'href="([^"]*)"', text))
    assert page.tags.count("svg") == page.tags.count("figure") == 8


def test_ids_are_unique_and_every_reference_has_its_target(written, page):
    text = written.read_text(encoding="utf-8")
    assert len(page.ids) == len(set(page.ids))
    assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', text)) <= set(page.ids)


def test_every_model_has_its_row(page):
    for row in content()["models"]:
        assert row["name"] in [cells[0] for cells in page.rows]
    values = content()["models"][0]["test"]
    shown = f"{values['auroc']:.3f} [{values['auroc_low']:.3f}, {values['auroc_high']:.3f}]"
    assert page.row("LSTM2Risk", "n3r")[2] == shown
    assert page.row("LSTM2Risk", "n3r", "float32")[3:] == ["1,234,567", "2", "4,321"]


def test_headline_gives_auroc_share_of_the_attainable_and_verdict(written, page):
    ours, oracle = (content()["models"][i]["test"]["auroc"] for i in (0, 2))
    [headline] = [word for word in page.words if word.startswith("The best n3r model")]
    assert f"LSTM2Risk, reaches a test AUROC of {ours:.3f} [" in headline
    assert f"{100 * (ours - 0.5) / (oracle - 0.5):.1f} % of the attainable" in headline
    assert "n3r ranks better than legacy (+0." in headline
    assert "reaches a test AUROC of" in (written.parent / "report.md").read_text(encoding="utf-8")


def test_the_best_of_several_models_is_named(tmp_path):
    models = [model("Weak", "n3r", B), model("Strong", "n3r", A), model("Old", "legacy", BEST)]
    assert "The best n3r model, Strong, " in write_bare(tmp_path, models=models)[0]


@pytest.mark.parametrize(
    "kind, says",
    [
        ("equivalent", "n3r is equivalent to legacy within 0.01"),
        ("different", "n3r ranks worse than legacy"),
        ("not shown", "n3r is not shown to be equivalent to legacy within 0.01"),
        ("not enough data", "there is not enough data to compare n3r with legacy"),
    ],
)
def test_every_verdict_is_phrased(tmp_path, kind, says):
    parity = copy.deepcopy(content()["parity"])
    parity["comparisons"][0] |= {"verdict": kind, "segments": [], "difference": -0.02}
    if kind == "not enough data":
        parity["comparisons"][0] |= dict.fromkeys(
            ["auc_a", "auc_b", *metrics.bounded("difference"), "p_value"]
        )
    html, _ = write_bare(tmp_path, parity=parity)
    assert says in html
    assert Page(html).row("lstm2risk")[1] == kind


def test_defect_42_what_the_rows_cannot_say_is_na_never_zero(tmp_path, page):
    assert page.row("MX")[3:] == ["n/a"]
    empty = metrics.evaluate([0, 0, 0], [0.1, 0.2, 0.3])
    models = [{**model("One class", "n3r", A), "test": empty}, {**model("No rows", "n3r", A), "test": None}]
    html, _ = write_bare(tmp_path, models=models)
    assert Page(html).row("One class", "n3r")[2:7] == ["n/a"] * 5
    assert set(Page(html).row("No rows", "n3r")[2:]) == {"n/a"}
    assert "Not enough data for a test AUROC." in html


def test_a_measured_zero_is_zero(page):
    assert page.row("US", "9,000")[2:] == ["250", "0"]
    assert page.row("DE", "0")[2:] == ["0", "2,750"]


def test_markup_and_formulas_in_names_stay_text(tmp_path):
    evil = copy.deepcopy(content(name=EVIL))
    evil["data"]["source"] = EVIL
    evil["preparation"]["findings"][0] |= {"what": EVIL, "name": EVIL}
    evil["deviations"][0]["what"] = evil["provenance"][EVIL] = f"{EVIL} --> </svg>"
    evil["models"][0] |= {"name": EVIL, "dimensions": {EVIL: EVIL}}
    evil["models"][0]["segments"][0]["group"] = r"$\broken{$" + EVIL
    evil["parity"]["comparisons"][0]["model"] = '"><script>x</script>'
    evil["parity"]["comparisons"][0]["segments"][0]["group"] = EVIL
    path = run.write_report(evil, {"test": {EVIL + "$x_{$": (Y, A), EVIL: (Y, B)}}, tmp_path)
    html, md = path.read_text(encoding="utf-8"), (tmp_path / "report.md").read_text(encoding="utf-8")
    tags = Page(html).tags
    assert "img" not in tags and tags.count("script") == 1  # the page's own
    assert "<img" not in html and html.count("<script") == 1
    assert "<" not in md
    assert json.loads((tmp_path / "report.json").read_text(encoding="utf-8")) == evil


def test_json_is_the_content_in_full_precision(written):
    text = (written.parent / "report.json").read_text(encoding="utf-8")
    assert json.loads(text) == json.loads(json.dumps(content()))


def test_nan_and_infinity_are_null(tmp_path):
    models = [model("m", "n3r", A, orders_per_second=float("nan"))]
    html, _ = write_bare(tmp_path, models=models, provenance={"deep": [float("inf"), 1.5]})
    text = (tmp_path / "report.json").read_text(encoding="utf-8")
    assert "NaN" not in text and "Infinity" not in text
    assert json.loads(text)["models"][0]["orders_per_second"] is None
    assert json.loads(text)["provenance"]["deep"] == [None, 1.5]
    assert not re.search(r">(nan|inf)<", html)


def turned(value):
    """Equal content whose keys were set in another order."""
    if isinstance(value, dict):
        return {key: turned(value[key]) for key in reversed(value)}
    return [turned(item) for item in value] if isinstance(value, list) else value


def test_equal_content_gives_equal_bytes(written, tmp_path):
    run.write_report(turned(content()), CURVES, tmp_path)
    for path in written.parent.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name


def test_absent_parts_are_left_out(tmp_path, page):
    parts = ["By marketplace", "n3r and legacy: which ranks better?", "Tokenizer"]
    parts += ["Deviations from the legacy", "Provenance", "Rows dropped, and why", "Training"]
    assert set(parts) <= set(page.words)
    empty = {"tokenizer": None, "parity": {}, "deviations": [], "preparation": {}, "provenance": {}}
    for changes in ({}, empty):
        html, md = write_bare(tmp_path, **changes)
        assert not set(parts[:-1]) & set(Page(html).words)
        assert not any(f"# {part}" in md for part in parts[:-1])
        assert "svg" not in Page(html).tags
    html, _ = write_bare(tmp_path, models=[content()["models"][2]])
    assert "Training" not in Page(html).words


def test_validation_is_shown_where_there_is_any(tmp_path, page):
    title = "The same on validation"
    assert title not in page.words  # None for the one model that has the key
    models = [model("Both", "n3r", A, val=metrics.evaluate(Y, B)), model("Test only", "legacy", A)]
    html, _ = write_bare(tmp_path, {"val": {"Both": (Y, B)}}, models=models)
    assert title in Page(html).words
    assert [row[0] for row in Page(html).rows].count("Both") == 3  # test, validation, training
    assert [row[0] for row in Page(html).rows].count("Test only") == 2


def test_columns_that_are_no_features_and_the_ends_of_splits_are_listed(page):
    assert page.row("(blank)", "no name") and page.row("train", "2025-01-01 00:00:00", "2025-02-01 00:00:00")


def test_what_the_vocabulary_holds_of_people_is_said(tmp_path):
    tokenizer = {**content()["tokenizer"], "min_frequency": 25}
    write_bare(tmp_path, tokenizer=tokenizer)
    assert (
        "is a token only where it comes 25 times or more in training" in (tmp_path / "report.md").read_text()
    )


def test_markdown_has_the_tables_and_escapes(tmp_path):
    name = "a|b`c*_d_ [x](y) <b>\n$e$"
    models = [{**content()["models"][0], "name": name}]
    _, md = write_bare(tmp_path, models=models, parity=content()["parity"])
    tables = [block.split("\n") for block in md.strip().split("\n\n") if block.startswith("|")]
    assert len(tables) == 8  # test, markets, parity, by segment, decisions, models, sizes, columns left out
    for lines in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1
    assert r"a\|b\`c\*\_d\_ [x]\(y) &lt;b&gt; \$e\$" in tables[0][2]
    assert tables[0][1].startswith("| :-- | :-- | --: |")
    assert [line.split(" | ")[0] for line in tables[1][2:]] == ["| US", "| DE", "| MX"]


def test_what_cannot_be_written_is_named_and_leaves_nothing(tmp_path):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(ValueError, match=r"cannot write inner into .*file \(Not a directory"):
        run.write_report(bare(), {}, tmp_path / "file" / "inner")
    (tmp_path / "taken" / "report.html").mkdir(parents=True)
    with pytest.raises(ValueError, match="taken"):
        run.write_report(bare(), {}, tmp_path / "taken")
    (tmp_path / "stuck" / ".report.html.partial").mkdir(parents=True)
    with pytest.raises(ValueError, match="stuck"):
        run.write_report(bare(), {}, tmp_path / "stuck")
    found = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
    assert found == ["file", "stuck", "stuck/.report.html.partial", "taken", "taken/report.html"]


def test_a_failed_rewrite_keeps_the_earlier_report(tmp_path):
    run.write_report(bare(), {}, tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match="labels"):
        run.write_report(bare(name="other"), {"test": {"m": ([0, 7], [0.1, 0.2])}}, tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_summary_has_six_columns_of_text():
    rows = run.summary(content()["models"])
    assert [row["model"] for row in rows] == ["LSTM2Risk", "legacy LSTM2Risk", "oracle"]
    assert [row["orders/s in training"] for row in rows] == ["4,321", "n/a", "n/a"]
    assert all(len(row) == 6 and all(isinstance(cell, str) for cell in row.values()) for row in rows)
    assert rows[0]["test AUROC [95 %]"].startswith(f"{content()['models'][0]['test']['auroc']:.3f} [")


@given(st.text(), st.text())
def test_any_text_survives(tmp_path_factory, name, what):
    folder = tmp_path_factory.getbasetemp() / "any"
    deviations = [{"where": name, "what": what}]
    html, md = write_bare(folder, name=name, deviations=deviations)
    assert json.loads((folder / "report.json").read_bytes())["deviations"] == deviations
    assert len(Page(html).row("file")) == 2
    assert "<" not in md


def test_the_verdict_of_the_committed_example_is_reproduced_from_its_json():
    example = Path("reports/example")
    content = json.loads((example / "report.json").read_text(encoding="utf-8"))
    page = (example / "report.html").read_text(encoding="utf-8")
    assert f'<p class="headline">{run.headline(content)}</p>' in page
    for row in content["parity"]["comparisons"]:
        low, high = row["difference"] - 1.6449 * row["se"], row["difference"] + 1.6449 * row["se"]
        inside = -row["margin"] < low and high < row["margin"]
        kind = "equivalent" if inside else "different" if row["p_value"] < 0.05 else "not shown"
        assert row["df"] is None and row["verdict"] == kind


def test_a_baseline_that_is_ahead_is_named_in_the_headline(tmp_path):
    ahead = {"name": "boosting", "system": "baseline", "test": metrics.evaluate(Y, BEST)}
    behind = {**ahead, "name": "n-grams", "test": metrics.evaluate(Y, B)}
    html, _ = write_bare(tmp_path, models=[model("Net", "n3r", A), behind, ahead])
    assert f"; boosting, a baseline, reaches {ahead['test']['auroc']:.3f} [" in html
    assert [row[0] for row in Page(html).rows].count("boosting") == 1  # it has no row of a training
    html, _ = write_bare(tmp_path, models=[model("Net", "n3r", BEST), behind])
    assert "a baseline, reaches" not in html


@pytest.mark.parametrize("preset", ["n3r", "published"])
def test_the_preset_of_a_run_is_told(tmp_path, preset):
    found = content(models=[model("Net", "n3r", A, preset=preset), model("legacy Net", "legacy", B)])
    run.write_report(found, CURVES, tmp_path)
    html = (tmp_path / "report.html").read_text()
    assert f"preset {preset}: " in html and f"preset {preset}: " in (tmp_path / "report.md").read_text()
    assert json.loads((tmp_path / "report.json").read_text())["models"][0]["preset"] == preset


def test_the_members_of_the_best_recipe_have_a_table(tmp_path):
    members = [
        {
            "member": "boosting",
            "weight": 0.75,
            "held_out": "0.910 [0.880, 0.930]",
            "adds": 0.0123,
            "seconds": 4.2,
        }
        | {"test": "0.905", "blend_ahead": "+0.001", "ms_a_row": 0.012, "megabytes": 0.1, "left_out": None},
        {"member": EVIL, "weight": 0.0, "held_out": "not enough data", "adds": None, "seconds": 1.0}
        | {"left_out": "ValueError: it wants more"},
    ]
    run.write_report(content(members=members), CURVES, tmp_path)
    rows = Page((tmp_path / "report.html").read_text()).rows
    (best,) = [row for row in rows if row[0] == "boosting"]
    assert best[1:4] == ["75.0 %", "0.910 [0.880, 0.930]", "+0.0123"] and best[-1] == "no"
    (failed,) = [row for row in rows if row[-1] == "ValueError: it wants more"]
    assert failed[0] == EVIL and failed[3] == "n/a"


def test_the_report_of_three_classes_says_what_a_figure_is_of(tmp_path):
    label = Y * (1 + np.arange(300) % 2)
    p = np.stack([RNG.dirichlet(1 + 3 * np.eye(3)[c]) for c in label])
    own = {"name": "LSTM2Risk", "system": "n3r", "test": measure(label, p)}
    splits = [{"split": "test", "segment": "DE", "label": c, "n": int((label == c).sum())} for c in range(3)]
    preparation = {**content()["preparation"], "splits": splits}
    curves = {"test": {"LSTM2Risk": (label > 0, 1 - p[:, 0])}}
    changes = {"models": [own], "preparation": preparation, "parity": {"note": "binary only: one logit"}}
    page, text = write_bare(tmp_path, curves, **changes)
    assert "test orders of 3 classes" in page and "flagged</" not in page.split("<table")[0].split("<h2")[0]
    assert "rarest class" in text and "the mean of each class against the rest" in text
    assert "test, class 2" in text and "binary only: one logit" in text
