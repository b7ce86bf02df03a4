"""What is printed and what errors say: never a cell of a person's, and a line that mends."""

import io
import json
import sys

import pytest

from n3r import cli
from n3r.commands.map import map_for_run

from .conftest import FAMILY, GIVEN, orders


@pytest.fixture
def n3r(capsys, monkeypatch):
    """Run the command in this process: status, output."""

    def run(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["n3r", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        return ended.value.code or 0, captured.out + captured.err

    return run


PERSONAL = {
    "plain": ({}, {}),
    "no header": ({}, {"header": False}),
    "names twice in a row": ({"ship_to": lambda row, i: row["card_holder"]}, {"header": False}),
    "a name in a column of numbers": (
        {"amount": lambda row, i: row["card_holder"] if i == 5 else row["amount"]},
        {},
    ),
    "a name for a time": ({"created": lambda row, i: row["card_holder"] if i < 3 else row["created"]}, {}),
    "two people": ({"card_holder": lambda row, i: f"{GIVEN[i % 2]} {FAMILY[i % 2]}", "fraud": None}, {}),
    "one person": ({"card_holder": lambda row, i: f"{GIVEN[0]} {FAMILY[0]}"}, {}),
    "an address as id": ({"order_no": None}, {}),
    "a short row": ({}, {"short": 20}),
    "another encoding": ({"card_holder": ["Zoë Müller Abernal"]}, {"encoding": "cp1252", "separator": ";"}),
}


@pytest.mark.parametrize("case", PERSONAL)
def test_no_output_shows_a_person(n3r, write, tmp_path, case):
    changes, how = PERSONAL[case]
    path = write(changes, **how)
    map_file = tmp_path / "map.json"
    status, output = n3r("map", path, "-o", map_file, "--yes")
    assert status in (0, 2) and output.strip()
    written = map_file.read_text() if map_file.exists() else ""
    people = {word for row in orders() for word in row["card_holder"].split()} | {"Zoë", "Müller"}
    shown = [word for word in people if word.lower() in (output + written).lower()]
    assert shown == []
    assert "@post" not in output + written


def test_the_proposal_is_printed_written_and_checked(n3r, write, tmp_path):
    path = write({"amount": lambda row, i: f"{row['amount']:.2f}".replace(".", ",")}, separator=";")
    status, output = n3r("map", path, "-o", tmp_path / "map.json")
    assert status == 0
    for words in (
        "separated by semicolons",
        "numbers as 1.234,56",
        "60 rows, 8 columns",
        "fraud 'yes', 10 rows",
    ):
        assert words in output
    assert f"next: n3r run --data {path} --map" in output
    content = json.loads((tmp_path / "map.json").read_text())
    assert content["number_format"] == "de" and content["$schema"].endswith("configs/column_map.schema.json")
    status, output = n3r("map", "--check", tmp_path / "map.json", path)
    assert status == 0 and "fits: 60 rows" in output


CHANGED = {
    "separator": ({}, {"separator": ","}, "separator is now ',', in the map ';'"),
    "a column less": ({"items": None}, {}, "the column 'items' (numeric) is missing"),
    "no label": ({"fraud": None}, {}, "new: no 'fraud': the rows can be scored"),
    "a new column": ({"voucher": ["a", "b"]}, {}, "new: 'voucher' is a new column"),
    "numbers": ({"amount": lambda row, i: f"{row['amount']:,.2f}"}, {}, "`number_format` 'en' reads more"),
    "times": (
        {"created": lambda row, i: f"{row['created']:%d.%m.%Y}"},
        {},
        "the format '%d.%m.%Y' reads them",
    ),
    "a new label": (
        {"fraud": lambda row, i: "maybe" if i == 3 else "no"},
        {},
        "1 rows have a label that `label_values` lacks: 'maybe'",
    ),
    "repeated ids": (
        {"order_no": lambda row, i: f"B-{i // 2}"},
        {},
        "new: 30 of 60 rows repeat an 'order_no'",
    ),
    "encoding": (
        {"card_holder": ["Zoë Müller"]},
        {"encoding": "cp1252"},
        "encoding is now 'cp1252', in the map 'utf-8'",
    ),
}


@pytest.mark.parametrize("case", CHANGED)
def test_what_has_changed_since_a_map_was_made(n3r, write, tmp_path, case):
    changes, how, words = CHANGED[case]
    comma = {"amount": lambda row, i: f"{row['amount']:.2f}".replace(".", ",")}
    assert n3r("map", write(comma, separator=";"), "-o", tmp_path / "map.json")[0] == 0
    later = write(comma | changes, name="later.csv", **{"separator": ";"} | how)
    status, output = n3r("map", later, "--check", tmp_path / "map.json")
    assert words in output, output
    assert status == (0 if words.startswith("new") else 2)


def test_a_question_is_asked_and_answered_or_refused(n3r, write, monkeypatch, tmp_path):
    path = write({"created": lambda row, i: f"{1 + i * 7 % 12:02}/{1 + i * 5 % 12:02}/2025"})
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    status, output = n3r("map", path)
    assert status == 2 and "--yes for the best guess" in output and "-p time_format=.." in output
    monkeypatch.setattr(sys, "stdin", io.StringIO("2\n"))
    status, output = n3r("map", path, "-o", tmp_path / "map.json")
    assert status == 0 and "guess" not in output and "%m/%d/%Y" in (tmp_path / "map.json").read_text()
    status, output = n3r("map", path, "--yes", "-o", tmp_path / "map.json")
    assert status == 0 and "guess: Every 'created'" in output
    status, output = n3r("map", path, "-p", "time_format=%m/%d/%Y", "-o", tmp_path / "map.json")
    assert status == 0 and "guess" not in output


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("labl=fraud", "a column map has no key 'labl' (did you mean 'label'?)"),
        ("label=frod", "there is no column 'frod'"),
        ("csv.separator=;;", "separator"),
        ("number_format=xx", "number_format"),
        ("split_by=never", "split_by"),
    ],
)
def test_a_wrong_key_is_named(n3r, write, given, words):
    status, output = n3r("map", write(), "--yes", "-p", given)
    assert status == 2 and words in output and "pydantic" not in output


def test_without_a_file_to_write_the_map_is_printed_alone(write, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["n3r", "map", str(write())])
    with pytest.raises(SystemExit):
        cli.main()
    assert json.loads(capsys.readouterr().out)["id"] == "order_no"


def test_a_run_without_a_map_takes_the_default_where_it_fits_and_else_proposes(write, tmp_path, capsys):
    path, target = write(), tmp_path / "runs" / "shop" / "map.json"
    default = tmp_path / "default.json"
    names = {"id": "order_no", "text": ["e_mail"], "label": "fraud", "label_values": {"no": 0, "yes": 1}}
    default.write_text(json.dumps(names | {"split_by": "random"}))
    assert map_for_run([str(path)], default, target) == default and not target.exists()
    default.write_text(json.dumps(names | {"id": "objectId", "split_by": "random"}))
    assert map_for_run([str(path)], default, target) == target
    assert json.loads(target.read_text())["id"] == "order_no"
    output = capsys.readouterr().out
    assert (
        "whose columns the data have" in output
        and "as proposed" in output
        and "class 1: fraud 'yes'" in output
    )
