"""What a data check finds of planted mistakes, what it does not find where there is none, what it shows."""

import json
import os
import re
import shutil
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from n3r import pipeline, tables
from n3r.checks import check_rows, read_rows, refuse
from n3r.checks.alone import alone, histogram, sample
from n3r.preprocess import PrepareConfig, prepare
from n3r.report.data import headline, write_data_page
from n3r.schema import LABEL, TIME, ColumnMap
from n3r.synthetic.messages import generate_messages
from n3r.synthetic.orders import generate_orders
from tests.test_cli import n3r

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "data"
N = 2000
START = datetime(2025, 1, 1)
MAP = {
    "id": "order",
    "text": ["email", "billing"],
    "label": "fraud",
    "label_values": {"0": 0, "1": 1},
    "time": "created",
    "numeric": ["amount", "age"],
    "categorical": ["country"],
}


@pytest.fixture(scope="module")
def orders(names) -> pl.DataFrame:
    """Orders in which nothing is to be doubted: a tenth is fraud, and younger accounts more often."""
    rng = np.random.default_rng(7)
    age = rng.gamma(2.0, 50.0, N).round(1)
    # A name has many letters of chance, so that no two people are alike but for digits.
    letters = ["".join(rng.choice(list("abcdefghijkl"), 9)) for _ in range(N)]
    fraud = rng.random(N) < np.where(age < 50, 0.2, 0.05)
    return names(N, seed=2).with_columns(
        pl.col("email") + pl.Series(letters),
        order=pl.int_range(N).cast(pl.String),
        amount=pl.Series(rng.lognormal(3, 1, N).round(2)),
        age=pl.Series(age),
        country=pl.Series(rng.choice(["FR", "DE", "IT"], N)),
        created=pl.Series([START + timedelta(hours=3 * i) for i in range(N)]),
        fraud=pl.Series(fraud.astype(int)),
    )


def found_in(frame: pl.DataFrame, bundle: Path | None = None, n_rows: dict | None = None, **changes) -> dict:
    prepared = prepare(frame.lazy(), ColumnMap(**MAP | changes), PrepareConfig(**n_rows or {}))
    return check_rows(prepared, bundle=bundle)


def names_of(found: dict, severity: str | None = None) -> list[str]:
    every = found["preparation"]["findings"]
    return [one["name"] for one in every if severity in (None, one["severity"])]


def some(share: float, value: pl.Expr, otherwise: str, seed: int = 0) -> pl.Expr:
    hit = pl.Series(np.random.default_rng(seed).random(N) < share)
    return pl.when(hit).then(value).otherwise(pl.col(otherwise))


FRAUD = pl.col("fraud") == 1
LATER = pl.int_range(N) > N * 0.8
# what was planted -> (columns, changes of the map, name of the finding, severity)
PLANTED = {
    "the outcome as a number": (
        {"back": pl.when(FRAUD).then(pl.col("amount")).otherwise(0.0)},
        {"numeric": ["amount", "age", "back"]}, "leak:back", "severe",
    ),
    "the outcome as a word": (
        {"review": pl.when(FRAUD).then(pl.lit("lost")).otherwise(pl.lit("kept"))},
        {"categorical": ["country", "review"]}, "leak:review", "severe",
    ),
    "filled in for fraud alone, most of the time": (
        {"case": pl.when(FRAUD & (pl.int_range(N) % 3 > 0)).then(pl.int_range(N))},
        {"numeric": ["amount", "age", "case"]}, "leak:case", "severe",
    ),
    "filled in for fraud alone, now and then": (
        {"case": pl.when(FRAUD & (pl.int_range(N) % 4 == 0)).then(pl.int_range(N))},
        {"numeric": ["amount", "age", "case"]}, "leak:case", "warning",
    ),
    "missing in the middle of the range": (  # no single direction: bins see it, a rank would not
        {"odd": pl.when(FRAUD).then(50.0).otherwise(pl.int_range(N) % 2 * 100.0)},
        {"numeric": ["amount", "odd"]}, "leak:odd", "severe",
    ),
    "words the wrong way round": (
        {"fraud": pl.when(FRAUD).then(pl.lit("fraud")).otherwise(pl.lit("legit"))},
        {"label_values": {"fraud": 0, "legit": 1}}, "inverted_label", "severe",
    ),
    "1 is the usual": ({}, {"label_values": {"0": 1, "1": 0}}, "inverted_label", "severe"),
    "1 is more than half": (
        {"fraud": (pl.int_range(N) % 10 < 6).cast(int)}, {}, "inverted_label", "note",
    ),
    "most ids come again": (
        {"order": (pl.int_range(N) % 900).cast(pl.String)}, {}, "repeated_id", "severe",
    ),
    "some ids come again": (
        {"order": (pl.int_range(N) % 1900).cast(pl.String)}, {}, "repeated_id", "warning",
    ),
    "one customer has a tenth": (
        {"who": pl.when(pl.int_range(N) % 10 == 0).then(pl.lit("guest")).otherwise(pl.col("order"))},
        {"entity": "who"}, "rows", "warning",
    ),
    "a constant": ({"age": pl.lit(3.0)}, {}, "constant:age", "warning"),
    "a category for each row": ({"country": pl.col("order")}, {}, "unique_categories:country", "warning"),
    "a word for nothing": (
        {"country": some(0.2, pl.lit("Unknown"), "country")}, {}, "placeholder:country", "note",
    ),
    "-1 for nothing": ({"age": some(0.2, pl.lit(-1.0), "age")}, {}, "placeholder:age", "note"),
    "9999 for nothing": ({"age": some(0.2, pl.lit(9999.0), "age")}, {}, "placeholder:age", "note"),
    "a date for nothing": (
        {"created": some(0.05, pl.lit(datetime(1900, 1, 1)), "created")}, {}, "rows", "warning",
    ),
    "a time that stands still": ({"created": some(0.9, pl.lit(START), "created")}, {}, "rows", "warning"),
    "a number that counts on": (
        {"age": pl.col("age") + pl.int_range(N) / 2}, {}, "drift:age", "warning",
    ),
    "a new category": (
        {"country": pl.when(LATER).then(pl.lit("ES")).otherwise(pl.col("country"))}, {},
        "drift:country", "warning",
    ),
    "no time": ({}, {"time": None, "split_by": "random"}, "no_time", "note"),
}  # fmt: skip


def test_nothing_is_found_where_nothing_is_planted(orders):
    found = found_in(orders)
    assert names_of(found) == [] and headline(found).endswith("no warning.")


@pytest.mark.parametrize("what", PLANTED)
def test_a_planted_mistake_is_found_and_no_other_stops_the_run(orders, what):
    columns, changes, name, severity = PLANTED[what]
    found = found_in(orders.with_columns(**columns), **changes)
    assert name in names_of(found, severity), names_of(found)
    assert set(names_of(found, "severe")) <= {name}
    for one in found["preparation"]["findings"]:
        assert one["what"] and not re.search(r"None|nan", one["what"])


def test_copies_of_training_rows_in_test_are_found(orders):
    columns = ["email", "billing", "amount", "age", "country"]
    copied = orders.with_columns(
        pl.when(LATER & (pl.int_range(N) % 3 == 0)).then(pl.col(name).shift(1500)).otherwise(name).alias(name)
        for name in columns
    ).with_columns(pl.col("email").str.to_uppercase())
    assert "near_duplicates" in names_of(found_in(copied), "severe")
    again = orders.with_columns(
        pl.when(LATER & (pl.int_range(N) % 3 == 0)).then(pl.col(name).shift(1500)).otherwise(name).alias(name)
        for name in columns[:2]
    )
    assert "near_duplicates" in names_of(found_in(again), "warning")


def test_labels_that_are_not_known_yet_and_rare_classes_are_found(orders):
    young = orders.with_columns(fraud=pl.when(pl.int_range(N) > N * 0.91).then(0).otherwise("fraud"))
    assert "young_labels" in names_of(found_in(young), "warning")
    few = orders.with_columns(fraud=(pl.int_range(N) % 100 == 7).cast(int))
    found = found_in(few)
    assert "rare_class:1" in names_of(found, "warning") and "young_labels" not in names_of(found)


def test_what_a_column_tells_alone_by_hand():
    rows = pl.DataFrame({LABEL: [0, 1] * 60, TIME: [None] * 120, "x": [0.0, 1.0] * 60, "s": ["a", None] * 60})
    drawn = sample(rows.cast({TIME: pl.Datetime("us")}))
    assert drawn.rate == 0.5 and drawn.slices == []
    for name in ("x", "s"):
        told = alone(drawn, drawn.rows[name])
        assert told.auroc.value == 1 and told.sure == 1
    bars = histogram(drawn, drawn.rows["x"])["bars"]
    assert [(bar["share"], bar["rate"]) for bar in bars] == [(0.5, 0.0), (0.5, 1.0), (0.0, None)]


@given(seed=st.integers(0, 2**31), kind=st.sampled_from(["unique", "few", "number", "missing"]))
def test_a_column_of_chance_tells_nothing(seed, kind):
    rng = np.random.default_rng(seed)
    label = (rng.random(900) < 0.2).astype(np.int8)
    values = {
        "unique": [f"v{i}" for i in range(900)],
        "few": rng.choice(["a", "b", "c", None], 900).tolist(),
        "number": rng.normal(size=900),
        "missing": np.where(rng.random(900) < 0.9, np.nan, 1.0),
    }[kind]
    column = pl.Series("x", values, nan_to_null=True)
    drawn = sample(
        pl.DataFrame({LABEL: label, TIME: pl.Series([None] * 900, dtype=pl.Datetime("us")), "x": column})
    )
    told = alone(drawn, drawn.rows["x"])
    assert 0.4 < told.auroc.value < 0.6 and told.sure == 0


def test_classes_of_a_large_table_are_sampled_and_weighed_back():
    n = 100_000
    label = np.arange(n) % 50 == 0
    time = pl.from_epoch(pl.Series(np.arange(n)))
    rows = pl.DataFrame({LABEL: label.astype(np.int8), TIME: time, "x": np.arange(n) % 7 == 0})
    drawn = sample(rows)
    assert len(drawn.rows) == 22_000 and drawn.rate == pytest.approx(0.02)
    bars = histogram(drawn, drawn.rows["x"])["bars"]
    assert bars[1]["share"] == pytest.approx(1 / 7, abs=0.01)
    assert len(drawn.slices) == 4 and sum(rows.sum() for _, rows in drawn.slices) == 22_000


REAL = {
    "synthetic orders": (lambda: generate_orders(8000, 0), "orders.json"),
    "synthetic messages": (lambda: generate_messages(2000, 0), "messages.json"),
    "twitter_bots": (SHARED / "twitter_bots", "twitter_bots.json"),
    "reviews": (SHARED / "womens_reviews", "reviews.json"),
}


@pytest.mark.parametrize("name", REAL)
def test_no_run_on_known_data_is_stopped_by_a_false_alarm(name):
    data, config = REAL[name]
    columns = ColumnMap.from_file(ROOT / "configs" / config)
    if isinstance(data, Path) and not data.exists():
        pytest.skip(f"the data set {data} is not here")
    frame = tables.scan(data, columns).frame if isinstance(data, Path) else data().lazy()
    found = check_rows(prepare(frame, columns))
    assert names_of(found, "severe") == []
    assert max(card["auroc"] for card in found["columns"]) < 0.9


@pytest.mark.skipif(not (SHARED / "womens_reviews").exists(), reason="the reviews are not here")
def test_the_rating_beside_a_recommendation_is_a_leak():
    columns = ColumnMap.from_file(ROOT / "configs" / "reviews.json")
    columns = columns.model_copy(update={"numeric": ["Age", "Rating"], "ignore": []})
    found = check_rows(prepare(tables.scan(SHARED / "womens_reviews", columns).frame, columns))
    assert names_of(found, "severe") == ["leak:Rating"]


def test_severe_findings_are_refused_unless_accepted_by_name(orders):
    columns, changes, name, _ = PLANTED["the outcome as a number"]
    found = found_in(orders.with_columns(**columns), **changes)["preparation"]["findings"]
    refuse(found, [name])
    with pytest.raises(ValueError, match=re.escape("-p accept='[\"leak:back\"]'")) as error:
        refuse(found)
    assert "the column 'back' alone ranks class 1" in str(error.value)
    with pytest.raises(ValueError, match=r"name 'leak:bock' was found \(did you mean 'leak:back'"):
        refuse(found, ["leak:bock"])


def test_rows_that_a_bundle_was_trained_on_are_found(small, tmp_path):
    columns = ColumnMap.from_file(ROOT / "configs" / "orders.json")
    found = check_rows(prepare(small.orders.lazy(), columns), bundle=small.folder)
    assert "seen" not in names_of(found, "severe")  # the split is the same: its test rows are new to it
    assert "seen" in names_of(found, "warning")
    other = PrepareConfig(train=0.3, val=0.2, test=0.5)
    found = check_rows(prepare(small.orders.lazy(), columns, other), bundle=small.folder)
    assert "seen" in names_of(found, "severe")
    shutil.copytree(small.folder, tmp_path / "elsewhere" / "bundle")  # away from its run
    found = check_rows(prepare(small.orders.lazy(), columns, other), bundle=tmp_path / "elsewhere" / "bundle")
    assert "seen" in names_of(found, "warning") and "seen" not in names_of(found, "severe")


def test_the_page_and_the_command_show_columns_findings_and_no_person(orders, tmp_path):
    columns, changes, name, _ = PLANTED["the outcome as a number"]
    frame = orders.with_columns(**columns, secret=pl.lit("a remark"))
    frame.write_csv(tmp_path / "orders.csv")
    (tmp_path / "map.json").write_text(json.dumps(MAP | changes | {"numeric": ["*"]}))
    done = n3r("check", tmp_path / "orders.csv", "--map", tmp_path / "map.json", "-o", tmp_path / "out")
    assert done.returncode == 2 and f"severe: {name}: the column 'back' alone" in done.stdout
    assert "accept it by name" in done.stderr and "no feature: 'secret', text" in done.stdout
    accepted = f'accept=["{name}"]'
    again = n3r(
        "check",
        tmp_path / "orders.csv",
        "--map",
        tmp_path / "map.json",
        "-o",
        tmp_path / "out",
        "-p",
        accepted,
    )
    assert again.returncode == 0, again.stderr
    page = (tmp_path / "out" / "data.html").read_text()
    assert page.count('<article class="card">') == 6 and "Not to be trained on as they are" in page
    content = json.loads((tmp_path / "out" / "data.json").read_text())
    assert [card["column"] for card in content["columns"]][:2] == ["email", "billing"]
    told = done.stdout + done.stderr + page + (tmp_path / "out" / "data.md").read_text() + json.dumps(content)
    people = set(frame["email"]) | set(frame["billing"])
    assert [person for person in people if person in told] == []


def test_columns_may_be_called_anything(orders):
    names = {"country": "n", "age": "at", "billing": "value", "amount": "rest", "email": "text"}
    changes = {"text": ["text", "value"], "numeric": ["rest", "at"], "categorical": ["n"]}
    assert names_of(found_in(orders.rename(names), **changes)) == []
    odd = orders.rename(names).with_columns(n=pl.lit("unknown"), at=pl.lit(None, dtype=pl.Float64))
    assert {"placeholder:n", "constant:n", "rows"} <= set(names_of(found_in(odd, **changes)))


def test_a_page_without_findings_or_times_and_with_hostile_names_is_whole(orders, tmp_path):
    evil = "<b>$x$|"
    frame = orders.rename({"age": evil})
    found = found_in(frame, time=None, split_by="random", numeric=["amount", evil])
    page = write_data_page(found, tmp_path, "x")
    text = page.read_text()
    assert "<b>" not in text and "Over time" not in text


def test_a_step_reads_rows_and_leaves_a_page_also_where_it_stops(orders, tmp_path):
    columns, changes, name, _ = PLANTED["the outcome as a number"]
    page = tmp_path / "made" / "look.html"
    given = {"name": "x", "seed": 0, "max_expansion": 200, "train": 0.6, "val": 0.2, "test": 0.2}
    prepared, record = read_rows(orders.lazy(), [], ColumnMap(**MAP), given | {"accept": []}, page)
    assert len(prepared.splits["train"]) == 1200 and record["preparation"]["findings"] == []
    orders.with_columns(**columns).write_csv(tmp_path / "orders.csv")
    page.unlink()
    files, column_map = [str(tmp_path / "orders.csv")], ColumnMap(**MAP | changes)
    with pytest.raises(ValueError, match="look.html shows it"):
        read_rows(orders.lazy(), files, column_map, given | {"accept": []}, page)
    assert "Not to be trained on" in page.read_text()
    _, record = read_rows(orders.lazy(), files, column_map, given | {"accept": [name]}, page)
    assert record["preparation"]["findings"][0]["name"] == name and record["data"]["left_out"] == {}


def test_without_a_map_one_is_proposed_and_kept_beside_the_page(orders, tmp_path):
    orders.write_csv(tmp_path / "orders.csv")
    done = n3r("check", tmp_path / "orders.csv", "-o", tmp_path / "out")
    assert done.returncode == 0 and "as proposed" in done.stdout, done.stderr
    assert ColumnMap.from_file(tmp_path / "out" / "map.json").label == "fraud"
    assert "no warning" in done.stdout and (tmp_path / "out" / "data.html").is_file()


@pytest.mark.slow
def test_a_run_stops_at_a_leak_and_goes_on_when_it_is_accepted(orders, tmp_path):
    columns, changes, name, _ = PLANTED["the outcome as a number"]
    orders.with_columns(**columns).write_csv(tmp_path / "orders.csv")
    (tmp_path / "map.json").write_text(json.dumps(MAP | changes))
    run = f"test-{os.getpid()}-leak"
    arguments = [
        "run",
        "01",
        "--name",
        run,
        "--data",
        tmp_path / "orders.csv",
        "--map",
        tmp_path / "map.json",
    ]
    folders = pipeline.ROOT / "runs" / run, pipeline.ROOT / "reports" / run
    try:
        done = n3r(*arguments)
        assert done.returncode == 2 and f"- {name}: the column 'back' alone" in done.stderr
        assert (folders[1] / "data.html").is_file() and not (folders[0] / "data").exists()
        done = n3r(*arguments, "-p", f'accept=["{name}"]')
        assert done.returncode == 0 and f"severe: {name}: " in done.stdout, done.stderr
    finally:
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)
