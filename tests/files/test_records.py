import csv
import io

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from n3r.files.records import (
    NOT_UTF8,
    STRAY,
    UNCLOSED,
    Table,
    batches,
    records,
)

LIMIT = 1 << 24
cells = st.lists(st.sampled_from(["a", ",", '"', "\r\n", "\n", " ", "é", "\t"]), max_size=5).map("".join)


def split(content: bytes, separator: bytes = b",", max_bytes: int = LIMIT, block: int = 1 << 20):
    return list(records(io.BytesIO(content), separator, max_bytes, block))


def read(content: bytes, names=None, separator: bytes = b","):
    found = records(io.BytesIO(content), separator, LIMIT)
    table = Table(next(found, None), separator)
    return table.read(list(found), names or table.names)


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@given(
    rows=st.lists(st.tuples(cells, cells, cells), max_size=6),
    block=st.integers(1, 40),
    separator=st.sampled_from(",\t"),
)
def test_what_the_csv_module_writes_is_split_and_read(quoting, end, rows, block, separator):
    file = io.StringIO(newline="")
    writer = csv.writer(file, delimiter=separator, quoting=quoting, lineterminator=end)
    writer.writerows([("x", "y", "z"), *rows])
    content = file.getvalue().encode()
    found = split(content, separator.encode(), block=block)
    assert [reason for _, _, reason in found] == [None] * (len(rows) + 1)
    batch = read(content, separator=separator.encode())
    assert not batch.cells and not batch.lost
    assert [tuple(cell or "" for cell in row) for row in batch.frame.rows()] == rows


@given(
    content=st.lists(st.sampled_from([b"a", b",", b'"', b"\n", b"\r", b"\xff"]), max_size=40),
    block=st.integers(1, 9),
)
@example([b'"', b"a", b'"', b"\r", b"\n", b"b", b"\n"], 3)
def test_every_byte_is_in_one_record_wherever_the_blocks_end(content, block):
    content = b"".join(content)
    found = split(content, block=block)
    assert found == split(content)
    assert [row for row, _, _ in found] == list(range(len(found)))
    if not any(reason for *_, reason in found):
        lines = [line for line in content.split(b"\n") if line not in (b"", b"\r")]
        kept = b"".join(record for _, record, _ in found)
        assert [line for line in kept.split(b"\n") if line not in (b"", b"\r")] == lines


@given(st.lists(st.sampled_from([b"a", b",", b'"', b"\n", b"\r", b"\xff", "é".encode(), b"\0"]), max_size=40))
def test_any_bytes_below_a_header_are_read_or_lost(content):
    found = split(b"x,y\n" + b"".join(content))[1:]
    batch = read(b"x,y\n" + b"".join(content))
    assert batch.frame.height + len(batch.lost) == len(found)
    assert sorted([*batch.rows, *(row for row, _ in batch.lost)]) == list(range(1, len(found) + 1))


def test_a_stray_quote_costs_its_line_and_no_other():
    found = split(b'x,y\n1,"a\n2,b\n3,"c"d\n4,"e\nf"\n5,g"h\n6,"i')
    assert [(row, reason) for row, _, reason in found] == [
        (0, None), (1, STRAY), (2, None), (3, STRAY), (4, None), (5, None), (6, UNCLOSED),
    ]  # fmt: skip
    assert found[4][1] == b'4,"e\nf"\n'


def test_quotes_inside_a_cell_that_is_not_quoted_are_its_own():
    frame = read(b'x,y\n5" pipe,Bob "Bo" B\na\rb, "c"\n').frame
    assert frame.rows() == [('5" pipe', 'Bob "Bo" B'), ("a\rb", ' "c"')]


def test_null_empty_blank_and_byte_order_marks():
    batch = read(b'\xef\xbb\xbfx,y\r\n\r\n,""\n\n\xef\xbb\xbfNA,None\r\n')
    assert batch.frame.rows() == [(None, ""), ("\ufeffNA", "None")] and list(batch.rows) == [1, 2]
    assert read(b'x\n\n""\n').frame.rows() == [("",)]


def test_records_that_do_not_fit_are_lost_and_bad_bytes_are_named():
    batch = read(b"x,y\n1\n2,3\n4,5,6\n7,\xff\n\xff,\xfe\n")
    assert list(batch.lost) == [(1, "has 1 cells, the header 2"), (3, "has 3 cells, the header 2")]
    assert list(batch.rows) == [2, 4, 5] and batch.frame["x"].to_list() == ["2", "7", "\ufffd"]
    assert list(batch.cells) == [(1, "y", NOT_UTF8), (2, "x", NOT_UTF8), (2, "y", NOT_UTF8)]


@pytest.mark.parametrize("block", [1, 7, 1 << 20])
def test_long_records_are_passed_by_in_little_memory(block):
    for long in (b"1," + b"z" * 99, b'1,"' + b"z" * 99 + b'"', b'1,"' + b"z" * 99):
        found = split(b"x,y\n" + long + b"\n2,b\n", max_bytes=50, block=block)
        assert [(row, reason is None) for row, _, reason in found] == [(0, True), (1, False), (2, True)]
        assert "50 bytes" in found[1][2] or found[1][2] == UNCLOSED
    assert len(split(b"x,y\n" + b"z" * 99, max_bytes=50, block=block)) == 2


@pytest.mark.parametrize(
    ("content", "phrase"),
    [
        (b"", "empty"),
        (b"\n\r\n", "empty"),
        (b'x,"y\n1,2\n', "never closed"),
        (b"x,\xff\n", "UTF-8"),
        (b"x,y,x\n", "1 column names twice"),
        (b"x,y\r\r\n1,2\r\r\n", "CR CR LF"),
    ],
)
def test_unusable_headers(content, phrase):
    with pytest.raises(ValueError, match=phrase):
        read(content)


def test_odd_names_in_the_header_and_chosen_columns():
    frame = read(b'"a,""b""\nc",d,\n1,2,3\n', ["", 'a,"b"\nc']).frame
    assert frame.to_dict(as_series=False) == {"": ["3"], 'a,"b"\nc': ["1"]}


def test_batches_by_rows_and_by_bytes():
    found = [(row, b"x" * (1 << 25), None) for row in range(7)]
    assert [len(batch) for batch in batches(found, 5)] == [3, 3, 1]
    assert [len(batch) for batch in batches([(r, b"x", None) for r in range(7)], 3)] == [3, 3, 1]
