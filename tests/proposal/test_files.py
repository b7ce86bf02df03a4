"""Several files, other formats, and what is said of files from which nothing can be proposed."""

import gzip
import json

import polars as pl
import pytest

from n3r.proposal.propose import propose
from n3r.proposal.questions import Question

from .conftest import FAMILY, GIVEN, as_csv, changed, orders

LATER = {"order_no": lambda row, i: f"C-{1001 + i}"}


def typed(n: int = 60) -> pl.DataFrame:
    return pl.DataFrame(orders(n))


def test_files_of_one_shape_make_one_map(write):
    first, second = write(name="a.csv"), write(name="b.csv", rows=orders(40, seed=1))
    proposal = propose([str(first), str(second)])
    assert proposal.counts.n_rows == 100 and proposal.content["id"] == "order_no"
    assert "40 of 100 rows repeat an 'order_no'" in " ".join(proposal.notes)


def test_a_column_that_one_file_lacks_is_told(write):
    first, second = write(name="a.csv"), write({"items": None}, name="b.csv", rows=orders(40, seed=1))
    proposal = propose([str(first), str(second)])
    assert proposal.content["numeric"] == ["amount"]
    assert "not in every file, and not read: 'items'" in proposal.notes


def test_regions_become_the_segment(write):
    first, second = write(name="a.csv"), write(name="b.csv", rows=orders(40, seed=1))
    proposal = propose([f"NA={first}", f"EU={second}"])
    assert proposal.content["segment"] == "region" and "country" in proposal.content["categorical"]


def test_files_that_bring_a_split_keep_it(write):
    paths = [write(name="train.csv"), write(LATER, name="test.csv")]
    assert propose(list(map(str, paths))).content["split_files"] == {"train.csv": "train", "test.csv": "test"}


def test_a_file_in_ascii_goes_with_one_in_another_encoding(write):
    accents = {"card_holder": lambda row, i: f"Zoë Müller{i}"}
    paths = [write(name="a.csv"), write(LATER | accents, name="b.csv", encoding="cp1252")]
    assert propose(list(map(str, paths))).content["csv"]["encoding"] == "cp1252"


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "csv.gz", "jsonl.gz", "xlsx"])
def test_other_formats(tmp_path, kind):
    path = tmp_path / f"orders.{kind}"
    if kind == "parquet":
        typed().write_parquet(path)
    elif kind == "xlsx":
        pytest.importorskip("fastexcel")
        pytest.importorskip("xlsxwriter")
        typed().write_excel(path)
    else:
        content = as_csv(orders()) if kind == "csv.gz" else typed().write_ndjson().encode()
        path.write_bytes(gzip.compress(content) if kind.endswith(".gz") else content)
    found = propose([str(path)]).content
    expected = {"id": "order_no", "text": ["e_mail", "card_holder"], "label": "fraud", "time": "created"}
    assert {key: found[key] for key in expected} == expected
    assert found["numeric"] == ["amount", "items"] and found["categorical"] == ["country"]
    assert set(found["label_values"]) == ({"no", "yes"} if kind == "csv.gz" else {"false", "true"})


def sheet() -> bytes:
    return b"PK\x03\x04" + b"\x00" * 26 + b"[Content_Types].xml" + b"\x00" * 400


NOTHING = {
    "an Excel workbook called .csv": (sheet(), "is an Excel workbook"),
    "a web page": (b"<!doctype html><html></html>", "is a web page"),
    "nothing at all": (b"", "is empty"),
    "a header alone": (b"id,e_mail,fraud\n", "has no rows"),
    "a name twice": (as_csv(orders()).replace(b"card_holder", b"e_mail", 1), "rename them"),
    "no label": (
        as_csv(changed(orders(), {"fraud": None})),
        "no column looks like a label.* -p label=COLUMN",
    ),
    "no id": (
        as_csv(changed(orders(), {"order_no": None, "e_mail": None})),
        "no column has a value of its own",
    ),
    "no text": (
        as_csv(changed(orders(), {"e_mail": None, "card_holder": None})),
        "no column holds names, e-mail addresses or other texts",
    ),
    "numbers alone": (b"a,b\n1,2\n3,4\n5,6\n", "no column"),
    "one column": (b"name\nAnina\nBelto\n", "no column"),
}


@pytest.mark.parametrize("case", NOTHING)
def test_what_is_said_of_files_from_which_nothing_can_be_proposed(tmp_path, case):
    content, sentence = NOTHING[case]
    path = tmp_path / "orders.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"(?s){sentence}"):
        propose([str(path)])


def test_files_that_differ_are_refused(write):
    first = write(name="a.csv")
    second = write(name="b.csv", separator=";")
    with pytest.raises(ValueError, match="a.csv and .*b.csv are written in two ways, their separator"):
        propose([str(first), str(second)])
    other = write(dict.fromkeys(orders(1)[0]) | {"x": ["1", "2"], "y": ["a", "b"]}, name="c.csv")
    with pytest.raises(ValueError, match="no column in common"):
        propose([str(first), str(other)])
    typed().write_parquet(first.with_name("d.parquet"))
    with pytest.raises(ValueError, match="one map is of one format"):
        propose([str(first), str(first.with_name("d.parquet"))])


def test_what_is_given_is_not_looked_for(write):
    path = write({"refund": ["no", "yes", "no"]})
    given = {"label": "refund", "id": "e_mail", "text": ["card_holder"], "segment": None, "ignore": ["items"]}
    found = propose([str(path)], given)
    assert found.content["label"] == "refund" and found.content["id"] == "e_mail"
    assert found.content["text"] == ["card_holder"] and "segment" not in found.content
    assert found.content["numeric"] == ["amount"] and found.content["ignore"] == ["order_no", "items"]
    with pytest.raises(ValueError, match="no column 'refnd'"):
        propose([str(path)], {"label": "refnd"})


def test_who_is_asked_decides(write):
    path = write({"created": lambda row, i: f"{1 + i * 7 % 12:02}/{1 + i * 5 % 12:02}/2025"})
    asked: list[Question] = []

    def last(question: Question) -> str:
        asked.append(question)
        return list(question.answers)[-1]

    proposal = propose([str(path)], ask=last)
    assert [question.key for question in asked] == ["time_format"] and proposal.guesses == []
    assert proposal.content["time_format"] == list(asked[0].answers)[-1]
    assert propose([str(path)], {"time_format": "%m/%d/%Y"}).content["time_format"] == "%m/%d/%Y"


def test_a_large_file_is_read_in_pieces_and_counted_whole(write, monkeypatch):
    monkeypatch.setattr("n3r.proposal.sample.WHOLE", 1 << 16)
    monkeypatch.setattr("n3r.proposal.sample._HEAD", 1 << 13)
    monkeypatch.setattr("n3r.proposal.sample._PIECE", 1 << 10)
    late = {
        "fraud": lambda row, i: i > 2700,
        "card_holder": lambda row, i: GIVEN[i % 15] + " " + FAMILY[i % 12],
    }
    path = write(late, rows=orders(3000), encoding="utf-16")
    proposal = propose([str(path)])
    assert proposal.counts.n_rows == 3000 and proposal.counts.labels == {"no": 2701, "yes": 299}
    assert len(proposal.columns[0].texts) < 2500 and proposal.content["csv"]["encoding"] == "utf-16"


def test_the_map_names_its_schema_and_is_read_again(write, tmp_path):
    path = write()
    proposal = propose([str(path)])
    schema = tmp_path / "configs" / "column_map.schema.json"
    (tmp_path / "maps").mkdir()
    proposal.write(tmp_path / "maps" / "map.json", schema)
    content = json.loads((tmp_path / "maps" / "map.json").read_text())
    assert content["$schema"] == "../configs/column_map.schema.json"
    assert proposal.column_map.from_file(tmp_path / "maps" / "map.json") == proposal.column_map
