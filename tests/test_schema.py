import json
import unicodedata
from datetime import date, datetime
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from n3r.schema import OWN, ColumnMap, check, mask

CONFIGS = Path(__file__).parents[1] / "configs"
BASE = {
    "id": "order", "text": ["name"], "label": "status", "label_values": {"F": 1, "N": 0}, "time": "when",
}  # fmt: skip


def column_map(**changes) -> ColumnMap:
    return ColumnMap(**{**BASE, **changes})


def frame(**changes) -> pl.DataFrame:
    columns = {"order": ["a", "b"], "name": ["x", "y"], "status": ["F", "N"], "when": ["2025-01-01"] * 2}
    return pl.DataFrame(columns | changes)


def test_the_committed_maps_load():
    orders = ColumnMap.from_file(CONFIGS / "orders.json")
    assert orders.text == ["emailAddress", "billingAddressName", "customerName", "paymentAccountHolderName"]
    assert orders.label_values == {"F": 1, "I": 1, "N": 0}
    twitter = ColumnMap.from_file(CONFIGS / "twitter_bots.json")
    assert len(twitter.numeric) == 10 and "fdb_row" in twitter.ignore


def test_all_twelve_columns_of_the_legacy_are_required():
    orders = ColumnMap.from_file(CONFIGS / "orders.json")
    wanted = [
        *("objectId", "customerId", "transactionDate", "marketplaceCountryCode", "emailAddress"),
        *("billingAddressName", "customerName", "paymentAccountHolderName", "emailDomain", "status"),
        *("orderDate", "daysSinceFirstCompletedOrder"),
    ]
    with pytest.raises(ValueError) as error:
        check(pl.DataFrame({"x": [1]}), orders)
    assert all(repr(name) in str(error.value) for name in wanted)


def test_maps_survive_json():
    for path in CONFIGS.glob("*.json"):
        content = json.loads(path.read_text())
        if "label_values" in content:
            loaded = ColumnMap.from_file(path)
            assert ColumnMap(**json.loads(loaded.model_dump_json())) == loaded


@pytest.mark.parametrize(
    ("content", "phrases"),
    [
        ("{", ["cannot be read as JSON"]),
        ("[1]", ["one JSON object", "list"]),
        (json.dumps(BASE | {"segmnet": "s"}), ["unknown key 'segmnet'", "did you mean 'segment'?"]),
        (json.dumps({"id": "a"}), ["'text'", "'label'", "'label_values'"]),
        (json.dumps(BASE | {"time": 3}), ["'time'", "expected a text"]),
        (json.dumps(BASE | {"label_values": {"F": 1}}), ["classes 0, 1"]),
        (
            json.dumps(BASE | {"numeric": ["f", "f", "status"]}),
            ["'f' twice", "'status' is listed as numeric"],
        ),
        (json.dumps(BASE | {"time": None}), ['split_by "time" needs `time`']),
        (json.dumps(BASE | {"internal_domains": ["."]}), ["needs `email_domain`", "empty name"]),
        (json.dumps(BASE | {"split_files": {"*": "dev"}}), ["'dev'"]),
        (json.dumps(BASE | {"text": ["name", "status"]}), ["'status' is the label and also an input"]),
        (json.dumps(BASE | {"ignore": ["name"]}), ["'name' is ignored and also has a role"]),
        (json.dumps(BASE | {"ignore": ["age"], "groups": ["age"]}), ["'age' is ignored and also has a role"]),
        (json.dumps(BASE | {"groups": ["f"], "numeric": ["f"]}), ["'f' is listed as numeric"]),
        (json.dumps(BASE | {"amount": "status"}), ["'status' is the amount and also has another role"]),
    ],
)
def test_a_bad_map_is_one_message_with_file_and_key(tmp_path, content, phrases):
    path = tmp_path / "map.json"
    path.write_text(content)
    with pytest.raises(ValueError) as error:
        ColumnMap.from_file(path)
    assert str(path) in str(error.value) and all(phrase in str(error.value) for phrase in phrases)


CSV = {"separator": ";", "encoding": "cp1252", "quote": None, "header": False}


def test_a_map_says_how_files_and_numbers_are_written():
    columns = column_map(csv=CSV, number_format="de")
    assert columns.csv.model_dump() == CSV and columns.number_format == "de"
    assert ColumnMap(**json.loads(columns.model_dump_json())) == columns
    assert column_map().csv.model_dump() == {
        "separator": None,
        "encoding": "utf-8",
        "quote": '"',
        "header": True,
    }


@pytest.mark.parametrize(
    ("change", "phrase"),
    [
        ({"csv": {"separatr": ";"}}, "unknown key 'csv.separatr' (did you mean 'csv.separator'?)"),
        ({"csv": {"separator": ";;"}}, "key 'csv.separator': expected one character"),
        ({"csv": {"separator": "x"}}, "key 'csv.separator': expected one character"),
        ({"csv": {"separator": "¦"}}, "key 'csv.separator': expected one character"),
        ({"csv": {"quote": "\n"}}, "key 'csv.quote': expected one character"),
        ({"csv": {"separator": "|", "quote": "|"}}, "key 'csv': separator and quote are the same"),
        ({"csv": {"quote": ";"}}, "key 'csv': separator and quote are the same"),
        ({"csv": {"encoding": "latin-99"}}, "key 'csv.encoding': is no encoding"),
        ({"csv": {"encoding": "base64"}}, "key 'csv.encoding': is no encoding of files"),
        ({"csv": {"encoding": "utf-7"}}, "key 'csv.encoding': is no encoding of files"),
        ({"number_format": "us"}, "key 'number_format'"),
    ],
)
def test_a_wrong_dialect_is_named(tmp_path, change, phrase):
    path = tmp_path / "map.json"
    path.write_text(json.dumps(BASE | change))
    with pytest.raises(ValueError) as error:
        ColumnMap.from_file(path)
    assert phrase in str(error.value)


def test_the_json_schema_of_maps_is_that_of_the_model_and_the_maps_name_it():
    """Written anew by `make schema`."""
    assert json.loads((CONFIGS / "column_map.schema.json").read_text()) == ColumnMap.json_schema()
    contents = [json.loads(path.read_text()) for path in CONFIGS.glob("*.json")]
    maps = [content for content in contents if "label_values" in content]
    assert [content["$schema"] for content in maps] == ["column_map.schema.json"] * 4
    assert set(ColumnMap.json_schema()["properties"]) == {*ColumnMap.model_fields, "$schema"}


def test_a_missing_map_is_file_not_found(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.json"):
        ColumnMap.from_file(tmp_path / "nothing.json")


def test_a_map_is_frozen():
    with pytest.raises(ValidationError):
        column_map().id = "other"


def test_star_stands_for_other_numbers_in_input_order():
    table = frame(
        z=[1, 2], flag=[True, False], a=[1.0, 2.0], b=[1, 2], words=["x", "y"], skip=[1, 2], p=[0.5, 0.5]
    )
    resolved = column_map(numeric=["a", "*"], ignore=["skip"], oracle="p").resolve_numeric(table.schema)
    assert resolved.numeric == ["a", "z", "flag", "b"]
    grouped = column_map(numeric=["*"], ignore=["skip"], oracle="p", groups=["z", "age"])
    assert grouped.resolve_numeric(table.schema).numeric == ["flag", "a", "b"]
    first = column_map(numeric=["*", "z"], ignore=["skip"], oracle="p", categorical=["b"])
    assert first.resolve_numeric(table.schema).numeric == ["flag", "a", "z"]
    for apart in ([], ["b"]):  # what an order is worth is a feature, too, unless it is ignored
        worth = column_map(numeric=["*"], ignore=["skip", *apart], oracle="p", amount="b")
        assert worth.resolve_numeric(table.schema).numeric == [
            "z",
            "flag",
            "a",
            *(["b"] if not apart else []),
        ]
    with pytest.raises(ValueError, match="'words' .amount. is String, expected a number"):
        check(table, column_map(amount="words"))


def test_numeric_roles_are_never_features():
    table = frame(order=[1, 2], status=[0, 1], when=[5, 6], who=[1, 2], place=[1, 2])
    roles = column_map(
        label_values={"0": 0, "1": 1}, time_format="epoch", entity="who", segment="place", numeric=["*"]
    )
    check(table, roles)
    assert roles.resolve_numeric(table.schema).numeric == []


def test_check_names_every_misfit_at_once():
    table = pl.DataFrame({"Order": ["a"], "name": [7], "status": ["F"], "when": [3], "f": ["x"], "p": ["y"]})
    with pytest.raises(ValueError) as error:
        check(table, column_map(numeric=["f", "g"], segment="place", oracle="p"))
    message = str(error.value)
    for phrase in (
        "'order' (id) is missing (did you mean 'Order'?)",
        "'name' (text) is Int64, expected text",
        "'when' (time) is Int64, expected a date",
        "'f' (numeric) is String, expected a number",
        "'g' (numeric) is missing",
        "'place' (segment) is missing",
        "'p' (oracle) is String",
    ):
        assert phrase in message


def test_check_shows_no_column_of_a_table_without_header():
    with pytest.raises(ValueError) as error:
        check(pl.DataFrame({"ana@example.org": ["x"], "Ana Smith": ["y"]}), column_map())
    assert "Ana" not in str(error.value) and "ana@" not in str(error.value) and "header" in str(error.value)


@pytest.mark.parametrize(
    ("values", "time_format", "fits"),
    [
        ([date(2025, 1, 1)] * 2, None, True),
        ([datetime(2025, 1, 1)] * 2, "epoch", True),
        (["2025-01-01"] * 2, "%Y", True),
        (["17"] * 2, "epoch", True),
        ([17, 18], "epoch", True),
        ([17, 18], None, False),
        ([17, 18], "%s", False),
        ([True, False], "epoch", False),
        ([None, None], None, True),
    ],
)
def test_time_type_must_suit_its_format(values, time_format, fits):
    if fits:
        check(frame(when=values), column_map(time_format=time_format))
    else:
        with pytest.raises(ValueError, match=r"'when' \(time\)"):
            check(frame(when=values), column_map(time_format=time_format))


def test_all_null_text_is_allowed():
    assert check(frame(name=[None, None]), column_map()) is None


def test_only_names_that_n3r_gives_are_refused():
    taken = f"{OWN}label"
    with pytest.raises(ValueError, match=f"'{taken}' begins with '{OWN}', as n3r's own do"):
        check(frame(**{taken: [1, 2]}), column_map())
    with pytest.raises(ValueError, match=f"'{taken}' begins with"):
        column_map(text=["name", taken])
    names = ["time", "segment", "label", "text", "score", "id", "row_id", "oracle_p", "n3r"]
    table = frame(**dict.fromkeys(names, [1, 2]))
    assert column_map(numeric=["*"]).resolve_numeric(table.schema).numeric[-len(names) :] == names
    assert check(table, column_map(numeric=["*"])) is None


def test_mask_keeps_the_shape():
    assert mask("Ana Smith 7") == "Aaa Aaaaa 9"
    assert mask("o.neil-1@mail.example|[MISSING]|山田") == "a.aaaa-9@aaaa.aaaaaaa|[MISSING]|漢漢"
    assert mask("\x00\n😀") == "* *"
    assert mask("") == ""


@given(st.text(max_size=60))
def test_mask_says_nothing_about_which_letter_or_digit(text):
    def other(character: str) -> str:
        if character.isascii() and character.isalpha():
            return "Q" if character.isupper() else "q"
        return "4" if unicodedata.category(character)[0] == "N" else character

    stand_ins = set("AaЯяΩω漢あア한عאअกXx9@.-|:/_+,' *")
    assert set(mask(text).replace("[MISSING]", "")) <= stand_ins
    if "[MISSING]" not in text:
        assert mask("".join(map(other, text))) == mask(text)


# ---- a second text


def test_a_second_text_is_required_checked_and_never_a_feature():
    m = column_map(secondary_text=["answer"], numeric=["*"])
    assert m.all_text == ["name", "answer"]
    with pytest.raises(ValueError, match="'answer' \\(text\\) is missing"):
        check(frame(), m)
    with pytest.raises(ValueError, match="'answer' \\(text\\) is Int64"):
        check(frame(answer=[1, 2]), m)
    assert m.resolve_numeric(frame(answer=["a", "b"], k=[1, 2]).schema).numeric == ["k"]


def test_a_second_text_cannot_have_another_role():
    with pytest.raises(ValueError, match="label and also an input"):
        column_map(secondary_text=["status"])
    with pytest.raises(ValueError, match="secondary_text names 'b' twice"):
        column_map(secondary_text=["b", "b"])


def test_classes_are_counted():
    assert column_map(label_values={"a": 0, "b": 1, "c": 2, "d": 2}).n_classes == 3
