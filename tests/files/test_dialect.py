"""How files of CSV are written: what is written is read, and what is wrong is said with its remedy."""

import csv
import io
from pathlib import Path

import polars as pl
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from n3r.rows.chunks import read_chunks
from n3r.rows.inputs import Inputs
from n3r.rows.numbers import FORMATS
from n3r.schema import ColumnMap
from n3r.tables import scan

ENCODINGS = {  # and letters that each has
    "utf-8": "éß漢\u202f",
    "utf-8-sig": "éß漢",
    "latin-1": "éßÿ",
    "cp1252": "éß€œ",
    "cp1250": "łžß",
    "cp1251": "яжЮ",
    "cp850": "éß",
    "mac-roman": "éß",
    "shift_jis": "漢あ",
    "gb18030": "漢é",
    "utf-16": "éß漢\U0001f600",
    "utf-16-le": "éß漢",
    "utf-16-be": "éß漢",
    "utf-32": "é漢",
}
SINGLE = ("latin-1", "cp1252", "cp1250", "cp1251", "cp850", "mac-roman")  # "ß€" of cp1252 is UTF-8, too
BASE = {"id": "id", "text": ["name"], "label": "y", "label_values": {"0": 0, "1": 1}, "split_by": "random"}
NAME = "Zebedee Quux"  # of a person, in no message


def column_map(**changes) -> ColumnMap:
    return ColumnMap(**(BASE | changes))


def put(path: Path, rows, encoding="utf-8", separator=",", quote='"', header=True, end="\r\n") -> Path:
    file = io.StringIO(newline="")
    quoting = {"quoting": csv.QUOTE_NONE, "quotechar": None} if quote is None else {"quotechar": quote}
    writer = csv.writer(file, delimiter=separator, lineterminator=end, **quoting)
    writer.writerows([("id", "name", "y", "amount"), *rows] if header else rows)
    path.write_bytes(file.getvalue().encode(encoding))
    return path


@pytest.mark.parametrize("encoding", ENCODINGS)
@given(data=st.data())
def test_what_is_written_is_read_for_training_and_scoring(tmp_path, encoding, data):
    separator = data.draw(st.sampled_from(",;\t|^~ \x01"))
    quote = data.draw(st.sampled_from(['"', "'", "`", None]))
    end = data.draw(st.sampled_from(["\n", "\r\n", "\r"]))
    header, is_german = data.draw(st.booleans()), data.draw(st.booleans())
    odd = [separator, *"\"'` ,;a", *ENCODINGS[encoding]] + ["\n"] * (end != "\r\n")
    words = st.lists(st.sampled_from(odd), max_size=6).map("".join)
    names = data.draw(st.lists(words, min_size=1, max_size=9))
    if quote is None:
        names = [name.replace(separator, "_").replace("\n", "_") for name in names]
    if end == "\r":
        names = [name.replace("\n", "_") for name in names]  # a CR in it would end it as LF
    cents = [7 * i + 123456 for i, _ in enumerate(names)]
    amounts = [f"{cent / 100:,.2f}" for cent in cents]
    if is_german:
        amounts = [a.translate(str.maketrans(",.", ".,")) for a in amounts]
    if quote is None:
        amounts = [amount.replace(separator, "") for amount in amounts]
        assume(is_german <= (separator not in ",."))
    rows = [
        (f"A{i}", name, i % 2, amount) for i, (name, amount) in enumerate(zip(names, amounts, strict=True))
    ]
    path = put(tmp_path / "o.csv", rows, encoding, separator, quote, header, end)
    assume(encoding not in SINGLE or path.read_bytes().isascii() or not is_utf8(path.read_bytes()))
    dialect = {"separator": separator, "encoding": encoding, "quote": quote, "header": header}
    own = {} if header else {"id": "column_1", "text": ["column_2"], "label": "column_3"}
    amount = "amount" if header else "column_4"
    columns = column_map(csv=dialect, number_format="de" if is_german else "en", numeric=[amount], **own)
    frame = scan(path, columns).frame.collect()
    assert [name or "" for name in frame[columns.text[0]]] == names
    assert frame[amount].to_list() == [cent / 100 for cent in cents]
    inputs = Inputs(columns.id, columns.text, [amount], [], columns.number_format)
    (chunk,) = read_chunks(path, inputs, dialect=columns.csv)
    assert chunk.rejects == [] and chunk.frame[columns.text[0]].equals(frame[columns.text[0]])


def is_utf8(content: bytes) -> bool:
    try:
        return bool(content.decode())
    except UnicodeDecodeError:
        return False


def told(path: Path, **changes) -> str:
    """What is said of a file that cannot be read."""
    with pytest.raises(ValueError) as error:
        scan(path, column_map(**changes))
    assert (
        NAME not in str(error.value) and "Zebedee" not in str(error.value) and path.name in str(error.value)
    )
    return str(error.value)


ROWS = [("a", NAME, 0, "5"), ("b", "René", 1, "7")]
HEAD = b"id;name;y;amount\n"
DATA = f"a7;{NAME};0;5,5\nb7;x@example.org;1;2025-01-31\n"
MEANT = "'en' and 'de' all read them: set number_format to the one that is meant"
CASES = {
    "UTF-16": (
        "".join(map(str, ROWS)).encode("utf-16"),
        {},
        'is UTF-16 text: put "csv": {"encoding": "utf-16"} into the column map',
    ),
    "UTF-16 without a mark": ("id,name\n".encode("utf-16-le"), {}, '"csv": {"encoding": "utf-16"}'),
    "UTF-16 in the map alone": (HEAD, {"encoding": "utf-16"}, "is not utf-16 text, as the column map's csv"),
    "UTF-8 in a map of Latin-1": (
        "id,name,y\na,René,0\n".encode(),
        {"encoding": "latin-1"},
        "is UTF-8 text and not latin-1, as the column map's csv says: put "
        '"csv": {"encoding": "utf-8"} there',
    ),
    "a mark of UTF-8": (b"\xef\xbb\xbfid,name,y\n", {"encoding": "cp1252"}, "is UTF-8 text and not cp1252"),
    "Latin-1": (
        "id,name,y\na,René,0\n".encode("latin-1"),
        {},
        "row 1, column 'name': is not UTF-8 text\nmend them; save the file as UTF-8, or if it is Latin-1 or "
        'Windows-1252 put "csv": {"encoding": "cp1252"} into the column map',
    ),
    "Latin-1 in the header": ("id,größe\n".encode("latin-1"), {}, 'put "csv": {"encoding": "cp1252"} into'),
    "a byte that cp1252 has not": (
        b"id,name,y\na,\x81,0\n",
        {"encoding": "cp1252"},
        "row 1, column 'name': is not cp1252 text",
    ),
    "half a character": (
        "id,name,y\na,b,0\n".encode("utf-16-le")[:-1] + b"\xd8",
        {"encoding": "utf-16-le"},
        "column 'y': is not utf-16-le text",
    ),
    "a comma in a name of the header": (
        b"id;name;y;amount, EUR\na;b;0;1\n",
        {},
        'its header has them between \';\': put "csv": {"separator": ";"} into the column map',
    ),
    "a row in quotes as a whole": (b'"id;name;y"\n"a;b;0"\n', {}, "its lines stand in quotes as a whole"),
    "no header": (
        DATA.encode(),
        {},
        'its first row looks like data: "csv": {"separator": ";", "header": false} in the column map',
    ),
    "no header, tabs": (
        DATA.replace(";", "\t").encode(),
        {},
        '"csv": {"separator": "\\t", "header": false}',
    ),
    "a header in the map of none": (HEAD + b"a;b;0;1\n", {"header": False}, "columns are column_1, column_2"),
    "a header twice": (
        b"id,name,y\na,b,0\nid,name,y\nc,d,1\n",
        {},
        "row 2: repeats the header: delete the row",
    ),
    "a name twice": (
        b"id,name,y,name\n",
        {},
        'columns 2 and 4 have one name; rename them, or put "csv": {"header": false} into the column map',
    ),
    "Excel": (
        b"PK\x03\x04" + bytes(26) + b"[Content_Types].xml",
        {},
        "is an Excel workbook: let its name end in .xlsx",
    ),
    "a zip archive": (b"PK\x03\x04" + bytes(26) + b"orders.csv", {}, "is a zip archive: unpack it"),
    "old Excel": (
        b"\xd0\xcf\x11\xe0" + bytes(30),
        {},
        "is an old Excel workbook or one with a password: save it as .xlsx",
    ),
    "CR CR LF": (
        b"id,name,y\r\r\na,b,0\r\r\n",
        {},
        "ends lines with CR CR LF, or some with CR alone; save it",
    ),
    "CR and LF by turns": (
        b"id,name,y\ra,b,0\nc,d,1\n",
        {},
        "ends lines with CR CR LF, or some with CR alone",
    ),
    "no row": (b"", {"header": False}, "is empty"),
    "a first row that is open": (b'a,"b\n', {"header": False}, "has a first row that cannot be read"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_wrong_is_said_with_its_remedy(tmp_path, case):
    content, dialect, phrase = CASES[case]
    path = tmp_path / "o.csv"
    path.write_bytes(content)
    assert phrase in told(path, csv=dialect)


@pytest.mark.parametrize(
    ("cells", "form", "reason", "better"),
    [
        (["7", "1,234.50"], None, "1 of 2 cells is no number, in row 2 of o.csv, form 9,999.99", "en"),
        (["7,5", "1.234,50"], None, "are no numbers, the first in row 1 of o.csv, form 9,9", "de"),
        (["1 234,5", "€ 7"], None, "the first in row 1 of o.csv, form 9 999,9", "fr"),
        (["1'234.5", "7"], None, "in row 1 of o.csv, form 9'999.9", "ch"),
        (["€ 5", "5 USD"], None, "form * 9", "plain"),
        (["1,234.5", "7"], "de", "1 of 2 cells is no number, in row 1 of o.csv, form 9,999.9", "en"),
        (["1,234", "€ 5"], None, "form 9,999", MEANT),
        (["1,234.5", "1.234,5"], None, "the first in row 1 of o.csv, form 9,999.9", None),
        (["web", "ios"], "de", "text", None),
        (["", ""], None, "no row has a value", None),
    ],
)  # fmt: skip
def test_columns_of_numbers_that_are_left_out_say_which_format_reads_them(
    tmp_path, cells, form, reason, better
):
    path = put(tmp_path / "o.csv", [("a", NAME, 0, cells[0]), ("b", "x", 1, cells[1])])
    told = scan(path, column_map(numeric=["*"], number_format=form)).left_out["amount"]
    remedy = f"number_format {better!r} reads all" if better in FORMATS else better
    assert reason in told and told.endswith(f"; {remedy}" if better else reason)
    if better in FORMATS:
        assert not scan(path, column_map(numeric=["*"], number_format=better)).left_out


def test_a_declared_column_of_numbers_says_it_too(tmp_path):
    path = put(tmp_path / "o.csv", [("a", NAME, 0, "7"), ("b", "x", 1, "1,234.50")])
    said = told(path, numeric=["amount"])
    assert "row 2, column 'amount': is not a number" in said
    assert "the first has the form 9,999.99; number_format 'en' reads all" in said


def test_json_lines_and_parquet_have_numbers_of_their_own(tmp_path):
    rows = pl.DataFrame({"id": ["a", "b"], "name": ["x", "y"], "y": ["0", "1"], "amount": [1.234, 5.678]})
    rows.write_parquet(tmp_path / "o.parquet")
    rows.write_ndjson(tmp_path / "o.jsonl")
    columns = column_map(numeric=["amount"], number_format="de", csv={"separator": ";"})
    for name in ("o.parquet", "o.jsonl"):
        assert scan(tmp_path / name, columns).frame.collect()["amount"].to_list() == [1.234, 5.678]
        (chunk,) = read_chunks(tmp_path / name, Inputs("id", ["name"], ["amount"], [], "de"))
        assert chunk.frame["amount"].round(3).to_list() == pytest.approx([1.234, 5.678])


def test_texts_of_json_that_are_numbers_elsewhere_are_named(tmp_path):
    rows = {"id": ["a", "b"], "name": [NAME, "y"], "y": ["0", "1"], "amount": ["1,5", "2,5"]}
    pl.DataFrame(rows).write_ndjson(tmp_path / "o.jsonl")
    left_out = scan(tmp_path / "o.jsonl", column_map(numeric=["*"], number_format="de")).left_out
    assert left_out["amount"].endswith("form 9,9; write them as numbers of JSON")


def test_scoring_says_what_is_wrong_with_a_header_too(tmp_path):
    path = tmp_path / "o.csv"
    path.write_text(DATA)
    with pytest.raises(ValueError, match='"csv": {"separator": ";", "header": false}') as error:
        list(read_chunks(path, Inputs("id", ["name"], ["amount"], [])))
    assert NAME not in str(error.value)


def test_a_file_of_another_separator_than_the_maps_is_read_by_its_own(tmp_path):
    path = put(tmp_path / "o.csv", ROWS)
    assert scan(path, column_map(csv={"separator": ";"})).n_rows == 2
