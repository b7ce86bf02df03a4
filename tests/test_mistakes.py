"""Mistakes that people make: the one sentence that each ends in, and the line or command that mends it."""

import json
import re
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from n3r.files.json_io import in_own_words, without_links
from n3r.rows.labels import class_of
from tests.test_cli import n3r

N = 120
START = datetime(2025, 3, 1, 10)
MAP = {
    "id": "order",
    "text": ["name"],
    "label": "fraud",
    "label_values": {"0": 0, "1": 1},
    "time": "at",
    "numeric": ["amount"],
}
FRAUD = pl.col("fraud") == "1"


@pytest.fixture(scope="module")
def rows() -> pl.DataFrame:
    letters = np.random.default_rng(1).choice(list("abcdefgh"), (N, 8))
    return pl.DataFrame(
        {
            "order": [f"o{i:03}" for i in range(N)],
            "name": ["".join(word) for word in letters],
            "amount": [f"{i * 37 % 91}.5" for i in range(N)],
            "country": ["FR", "DE", "IT"] * (N // 3),
            "at": [str(START + timedelta(hours=9 * i)) for i in range(N)],
            "fraud": [str(int(i % 7 == 3)) for i in range(N)],
        }
    )


def at(form: str) -> pl.Expr:
    return pl.col("at").str.to_datetime().dt.strftime(form)


def words(fraud: str, legit: str) -> pl.Expr:
    return pl.when(FRAUD).then(pl.lit(fraud)).otherwise(pl.lit(legit))


SLASHED = {"at": at("%m/%d/%Y %H:%M")}
MOSTLY = {"at": pl.when(pl.int_range(N) % 5 > 0).then(at("%d.%m.%Y")).otherwise(pl.lit("soon"))}
ONE_BAD = pl.when(pl.int_range(N) == 5)
# What is wrong -> (columns, changes of the map, arguments of `n3r check`, what is said, what is not)
TABLES = {
    "labels: one that the map lacks": (
        {"fraud": ONE_BAD.then(pl.lit("chargeback")).otherwise("fraud")}, {}, (),
        ["1 rows have a label outside", "'chargeback' (1 rows)",
         '"label_values": {"0": 0, "1": 1, "chargeback": 1}'], ["drop"],
    ),
    "labels: words for numbers": (
        {"fraud": words("confirmed fraud", "legit")}, {}, (),
        ["'legit' (103 rows), 'confirmed fraud' (17 rows)", '"legit": 0, "confirmed fraud": 1}'], ["drop"],
    ),
    "labels: two of which no word tells, the rarer is 1": (
        {"fraud": words("Rückläufer", "bezahlt ")}, {}, (), ['"bezahlt ": 0', '"Rückläufer": 1'], [],
    ),
    "labels: one that is not decided yet": (
        {"fraud": ONE_BAD.then(pl.lit("pending review")).otherwise("fraud")}, {}, (),
        ["'pending review' (1 rows)", 'or "other_labels": "drop"'], [],
    ),
    "labels: one of more than 20 characters": (
        {"fraud": ONE_BAD.then(pl.lit("x" * 21)).otherwise("fraud")}, {}, (), ["'aaaaaaaaa"], ["xxx"],
    ),
    "labels: a column of names": (
        {"fraud": pl.col("name")}, {}, (), ["120 different values, not shown: is it the label?"], [],
    ),
    "labels: the same in a text column": (
        {"name": pl.lit("Zoe Sample"), "fraud": ONE_BAD.then(pl.lit("Zoe Sample")).otherwise("fraud")}, {},
        (), ["'Aaa Aaaaaa'"], ["Zoe"],
    ),
    "times: day and month the other way round": (
        SLASHED, {"time_format": "%d/%m/%Y %H:%M"}, (),
        ["time_format '%m/%d/%Y %H:%M' reads them: day and month are the other way round"], [],
    ),
    "times: most in one format": (
        MOSTLY, {}, (), ["time_format '%d.%m.%Y' reads most of them, 80%; mend the others"], ["soon"],
    ),
    "times: two formats in a column": (
        {"at": pl.when(pl.int_range(N) % 9 > 0).then(pl.col("at")).otherwise(at("%d.%m.%Y"))}, {}, (),
        ["100% of these are in the format '%d.%m.%Y': bring all into one"], [],
    ),
    "rows: an id that is none": (
        {}, {"id": "country"}, (), ["117 of 120 dropped: `id` repeats; is 'country' an id?"], ["more rows"],
    ),
    "rows: an entity that is none": (
        {}, {"entity": "country"}, (), ["117 of 120 dropped: `entity` repeats; is 'country' a customer?"], [],
    ),
    "rows: labels that are mostly dropped": (
        {"fraud": pl.when(pl.int_range(N) < 4).then(pl.lit("1")).otherwise(pl.lit("open"))},
        {"other_labels": "drop"}, (), ["116 of 120 dropped: label_values does not know their 'fraud'"], [],
    ),
    "rows: no label": (
        {"fraud": pl.lit(None, dtype=pl.String)}, {}, (),
        ["120 of 120 dropped: `label` is empty: is 'fraud'"], [],
    ),
    "rows: fraud of one season": (
        {"fraud": (pl.int_range(N) < 20).cast(int).cast(str)}, {}, (),
        ["the split 'val' have the class 0: the 20 rows of other classes are from 2025-03-01 to 2025-03-08",
         'split_by "random"'], [],
    ),
    "rows: one class": (
        {"fraud": pl.lit("0")}, {}, (), ["have the class 0: label_values gives no row of 120 another"], [],
    ),
    "map: an unknown key": (
        {}, {"nummeric": ["amount"]}, (),
        ["unknown key 'nummeric' (did you mean 'numeric'?)"], ["categorical"],
    ),
    "map: a number for a text": ({}, {"label": 3}, (), ["key 'label': expected a text"], ["Input should"]),
    "map: a word that is none": (
        {}, {"split_by": "tme"}, (),
        ["key 'split_by': expected 'time' or 'random' (did you mean 'time'?)"], [],
    ),
    "columns: a name that is none": (
        {}, {"numeric": ["amuont"]}, (),
        ["'amuont' (numeric) is missing (did you mean 'amount'?)"], ["country"],
    ),
    "parameters: a name that is none": (
        {}, {}, ("-p", "trian=0.5"),
        ["no step has the parameter 'trian' (did you mean 'train'"], ["batch_size"],
    ),
    "parameters: beyond the range": (
        {}, {}, ("-p", "train=2.0"), ["key 'train': expected 1 or less"], ["validation error", "pydantic"],
    ),
    "output: a page": ({}, {}, ("-o", "page.html"), ["page.html is to be a folder", "leave '.html' out"], []),
}  # fmt: skip


@pytest.mark.parametrize("what", TABLES)
def test_a_table_or_map_with_a_mistake_ends_in_one_sentence(rows, what, tmp_path, monkeypatch):
    columns, changes, arguments, said, unsaid = TABLES[what]
    monkeypatch.chdir(tmp_path)
    rows.with_columns(**columns).write_csv("orders.csv")
    Path("map.json").write_text(json.dumps(MAP | changes), encoding="utf-8")
    done = n3r("check", "orders.csv", "--map", "map.json", *arguments)
    assert done.returncode == 2 and done.stderr.startswith("n3r: "), done.stderr
    assert [phrase for phrase in said if phrase not in done.stderr] == [], done.stderr
    assert [phrase for phrase in unsaid if phrase in done.stderr] == [], done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["map.json", "orders.csv"]


COMMANDS = {
    "a step": (
        ("run", "03_train_lstm"),
        "no step '03_train_lstm' (did you mean '03_train_lstm2risk'?); `n3r run",
    ),
    "a size": (("run", "--size", "quik"), "no size 'quik' (did you mean 'quick'?)"),
    "a parameter of one step": (("run", "-p", "03.hiden_size=3"), "(did you mean '03.hidden_size'"),
    "a parameter of a step that does not run": (
        ("run", "01", "-p", "epochs=3"),
        "which this run does not include",
    ),
    "a choice": (("run", "-p", "03.monitor=val_auc"), "(did you mean 'val_auroc'?)"),
    "pages for a file": (("evaluate", "s.csv", "-o", "e.html"), "e.html is to be a folder"),
    "a comparison for a file": (("compare", "a.csv", "b.csv", "-o", "c.pdf"), "c.pdf is to be a folder"),
    "a bundle in the home of nobody": (("verify", "~nobody-at-all/x"), "~nobody-at-all/x is not a complete"),
}


@pytest.mark.parametrize("what", COMMANDS)
def test_a_command_with_a_mistake_says_what_may_be_meant(what):
    arguments, said = COMMANDS[what]
    done = n3r(*arguments)
    assert done.returncode == 2 and said in done.stderr, done.stderr
    assert len(done.stderr) < 400 and not re.search(r"pydantic|Input should|Traceback", done.stderr)


def test_the_steps_are_listed_on_help():
    assert "03_train_lstm2risk" in n3r("run", "--help").stdout


def test_a_folder_that_holds_bundles_names_them(small, tmp_path):
    for name in ("best", "lstm2risk"):
        (tmp_path / name).symlink_to(small.folder)
    done = n3r("score", "--bundle", tmp_path, "o.csv", "-o", "s.csv")
    inside = f"{tmp_path / 'best'}, {tmp_path / 'lstm2risk'}"
    assert done.returncode == 2 and f"give one of the bundles inside, {inside}" in done.stderr


def test_scores_go_into_a_file_that_can_be_written_and_rejects_are_named(small, tmp_path):
    orders = small.orders.head(50).with_columns(pl.col("orderAmount").cast(pl.String))
    bad = orders.with_row_index("n").with_columns(
        pl.when(pl.col("n") == 5).then(pl.lit("many")).otherwise("orderAmount").alias("orderAmount")
    )
    bad.drop("n").write_csv(tmp_path / "orders.csv")
    base = ("score", "--bundle", small.folder, tmp_path / "orders.csv", "--on-error", "skip", "-o")
    done = n3r(*base, tmp_path / "s.xlsx")
    assert done.returncode == 2 and "s.xlsx is to be a folder and ends as a file does" in done.stderr
    assert ".parquet, .csv, .tsv, .jsonl" in done.stderr and not (tmp_path / "s.xlsx").exists()
    done = n3r(*base, tmp_path / "s.csv")
    assert done.returncode == 0 and "50 rows read, 49 scored, 1 rejected" in done.stderr
    rejects = tmp_path / "s.rejects.csv"
    assert f"those rejected, and why, are in {rejects}" in done.stderr and rejects.is_file()


def test_the_users_folder_is_found_behind_any_option(rows, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    rows.write_csv(tmp_path / "orders.csv")
    (tmp_path / "map.json").write_text(json.dumps(MAP))
    done = n3r("check", "~/orders.csv", "--map=~/map.json", "--output=~/out")
    assert done.returncode == 0 and (tmp_path / "out" / "data.html").is_file(), done.stderr


def test_a_file_saved_twice_by_a_browser_gets_a_run_name(rows, tmp_path):
    rows.write_csv(tmp_path / "orders (1).csv")
    (tmp_path / "map.json").write_text(json.dumps(MAP))
    done = n3r("run", "--data", tmp_path / "orders (1).csv", "--map", tmp_path / "map.json", "-p", "epochs=x")
    assert done.returncode == 2 and "epochs is 'x'" in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("said", "own"),
    [
        ("Input should be greater than or equal to 0", "expected 0 or more"),
        ("Input should be a valid integer, unable to parse string as an integer", "expected a whole number"),
        ("Field required", "it is missing"),
        ("Value error, the shares must sum to 1", "the shares must sum to 1"),
        ("List should have at least 1 item after validation, not 0", "expected at least 1 item"),
        ("anything else", "anything else"),
    ],
)
def test_what_pydantic_says_is_said_in_own_words(said, own):
    assert in_own_words(said) == own


def test_links_of_pydantic_are_nowhere():
    told = (
        "1 validation error for C\nlr\n  Input should be greater than 0 [type=greater_than, input_value=0]\n"
    )
    told += "    For further information visit https://errors.pydantic.dev/2/v/greater_than"
    assert without_links(told) == "key 'lr': expected more than 0"
    assert without_links("plain") == "plain"


def test_words_of_labels():
    assert [class_of(word) for word in ("Fraud ", "yes", "1", "Legit", "no", "0")] == [1, 1, 1, 0, 0, 0]
    assert class_of("pending") is None
