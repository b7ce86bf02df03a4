"""Excel workbooks, made here of their parts: n3r writes none."""

import zipfile
from pathlib import Path
from xml.sax.saxutils import escape

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from n3r.files.limits import ALWAYS
from n3r.rows.chunks import read_chunks
from n3r.rows.inputs import Inputs
from n3r.schema import ColumnMap
from n3r.tables import scan

MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
PACKAGE = "http://schemas.openxmlformats.org/package/2006"
TYPES = "application/vnd.openxmlformats-officedocument.spreadsheetml"
MAP = ColumnMap(
    id="id", text=["name"], label="y", label_values={"0": 0, "1": 1}, split_by="random", numeric=["*"],
    number_format="de",
)  # fmt: skip
ROWS = [
    ["id", "name", "y", "amount", "visits", "note", "", "paid"],
    [1, "007", 0, "1.234,50", 3, "a", None, True],
    [2, "NA", 1, "7", 4.5, None, None, False],
    [None] * 8,
    [3, "Ana & Bo", 1, None, None, 5, None, None],
]


def related(kind: str, target: str) -> str:
    link = f'<Relationship Id="rId1" Type="{OFFICE}/{kind}" Target="{target}"/>'
    return f'<Relationships xmlns="{PACKAGE}/relationships">{link}</Relationships>'


def cell(value) -> str:
    if value is None:
        return "<c/>"
    if isinstance(value, bool):
        return f'<c t="b"><v>{int(value)}</v></c>'
    if isinstance(value, int | float):
        return f"<c><v>{value}</v></c>"
    return f'<c t="inlineStr"><is><t xml:space="preserve">{escape(value)}</t></is></c>'


def workbook(path: Path, rows: list[list], more: str = "") -> Path:
    cells = "".join(f"<row>{''.join(map(cell, row))}</row>" for row in rows) + more
    sheet = f'<sheet name="Orders" sheetId="1" r:id="rId1" xmlns:r="{OFFICE}"/>'
    kinds = [("workbook", "sheet.main"), ("worksheets/sheet1", "worksheet")]
    own = [f'<Override PartName="/xl/{n}.xml" ContentType="{TYPES}.{kind}+xml"/>' for n, kind in kinds]
    rels = (
        '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
    )
    parts = {
        "[Content_Types].xml": f'<Types xmlns="{PACKAGE}/content-types">{rels}{"".join(own)}</Types>',
        "_rels/.rels": related("officeDocument", "xl/workbook.xml"),
        "xl/workbook.xml": f'<workbook xmlns="{MAIN}"><sheets>{sheet}</sheets></workbook>',
        "xl/_rels/workbook.xml.rels": related("worksheet", "worksheets/sheet1.xml"),
        "xl/worksheets/sheet1.xml": f'<worksheet xmlns="{MAIN}"><sheetData>{cells}</sheetData></worksheet>',
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in parts.items():
            file.writestr(name, f'<?xml version="1.0" encoding="UTF-8"?>{content}')
    return path


def test_a_workbook_is_read_for_training_and_scoring(tmp_path):
    path = workbook(tmp_path / "Orders.xlsx", ROWS)
    source = scan(path, MAP)
    expected = {
        "id": [1, 2, 3],
        "name": ["007", "NA", "Ana & Bo"],
        "y": [0, 1, 1],
        "amount": [1234.5, 7.0, None],
        "visits": [3.0, 4.5, None],
        "paid": [True, False, None],
    }
    assert_frame_equal(source.frame.select(*expected).collect(), pl.DataFrame(expected))
    assert (source.n_rows, source.format, [*source.left_out]) == (3, "csv", ["note"])
    inputs = Inputs("id", ["name"], ["amount", "visits"], [], "de")
    chunks = list(read_chunks(path, inputs, size=2))
    assert [chunk.n_rows for chunk in chunks] == [2, 1]
    assert pl.concat(chunk.frame for chunk in chunks)["amount"].to_list() == [1234.5, 7.0, None]


@pytest.mark.parametrize(
    ("rows", "phrase"),
    [
        ([], "has nothing in its first sheet"),
        ([["id", "name", "id"], [1, "a", 2]], "has columns of one name, 1 and 3 of those named"),
        ([["id", "Name", "y"], [1, "Zebedee", 2]], "'name' (text) is missing (did you mean 'Name'?)"),
        ([["id", "name", "y"]], "has no rows"),
    ],
)
def test_a_sheet_that_is_no_table_is_named(tmp_path, rows, phrase):
    path = workbook(tmp_path / "o.xlsx", rows)
    with pytest.raises(ValueError) as error:
        scan(path, MAP)
    assert "o.xlsx" in str(error.value) and phrase in str(error.value) and "Zebedee" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "phrase"),
    [
        (b"", "cannot be read as an Excel workbook"),
        (b"id,name\n", "cannot be read as an Excel workbook"),
        (b"PK\x03\x04" + b"x" * 99, "cannot be read as an Excel workbook"),
        (
            b"\xd0\xcf\x11\xe0" + b"x" * 99,
            "is an old Excel workbook or one with a password: save it as .xlsx",
        ),
    ],
)
def test_what_is_no_workbook_is_named(tmp_path, content, phrase):
    path = tmp_path / "o.xlsx"
    path.write_bytes(content)
    with pytest.raises(ValueError) as error:
        scan(path, MAP)
    assert "o.xlsx" in str(error.value) and phrase in str(error.value)


def test_a_small_workbook_of_much_content_is_refused(tmp_path):
    path = workbook(tmp_path / "o.xlsx", ROWS)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as file, file.open("xl/more.xml", "w") as part:
        for _ in range(ALWAYS // (1 << 24) + 1):
            part.write(bytes(1 << 24))
    with pytest.raises(ValueError, match="200 times its size: a bomb"):
        scan(path, MAP)


@pytest.mark.parametrize("reference", ["XFD1048576", "xfd1048576", "&#88;FD1048576"])
def test_a_cell_far_off_fills_no_memory(tmp_path, reference):
    far = f"<row r='1048576'><c r = '{reference}'><v>1</v></c></row>"
    with pytest.raises(ValueError, match="200 times its size: a bomb|cannot be read as an Excel workbook"):
        scan(workbook(tmp_path / "o.xlsx", ROWS, far), MAP)


@given(changes=st.lists(st.tuples(st.floats(0, 1), st.binary(max_size=4)), min_size=1, max_size=4))
def test_damage_is_one_value_error_or_none(tmp_path, changes):
    path = workbook(tmp_path / "o.xlsx", ROWS)
    content = bytearray(path.read_bytes())
    for where, junk in changes:
        at = int(where * len(content))
        content[at : at + len(junk)] = junk
    path.write_bytes(content)
    try:
        scan(path, MAP)
    except ValueError as error:
        assert "o.xlsx" in str(error) and "Ana" not in str(error)


def test_without_its_reader_one_sentence_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "fastexcel", None)
    with pytest.raises(ValueError, match=r"o\.xlsx needs fastexcel to be read: pip install 'n3r\[xlsx\]'"):
        scan(workbook(tmp_path / "o.xlsx", ROWS), MAP)
