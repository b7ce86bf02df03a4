"""What was written is what is read by the proposed map, whatever writes it."""

import codecs
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from n3r import tables
from n3r.proposal.dialect import find_encoding, has_header
from n3r.proposal.propose import propose
from n3r.rows.keys import add_keys
from n3r.schema import LABEL, TIME

from .conftest import as_csv, orders

# Encoding -> names as people there have them.
NAMES = {
    "utf-8": ["Zoë Müller", "Łukasz Żółć", "Иван Петров", "李 小龙", "Ana Smith"],
    "utf-8-sig": ["Zoë Müller", "Łukasz Żółć", "Ana Smith"],
    "cp1252": ["Zoë Müller", "René Bañó", "Søren Åse", "François Lefèvre", "Ana Smith"],
    "cp1250": ["Łukasz Wójcik", "Zbigniew Święty", "Jiří Dvořák", "Ana Smith"],
    "cp1251": ["Иван Петров", "Ольга Ильина", "Юрий Щукин", "Ana Smith"],
    "utf-16": ["Zoë Müller", "Łukasz Żółć", "Иван Петров", "Ana Smith"],
}
FORMS = {  # thousands mark, decimal mark, behind
    None: ("", ".", ""),
    "en": (",", ".", ""),
    "de": (".", ",", " €"),
    "fr": ("\u00a0", ",", " EUR"),
    "ch": ("'", ".", ""),
}
TIMES = [
    "%Y-%m-%d %H:%M:%S",
    "%d/%m/%Y %H:%M",
    "%m/%d/%Y %H:%M",
    "%d.%m.%Y",
    "%b %d, %Y",
    "%Y%m%d",
    "%d-%b-%y",
]


@given(
    encoding=st.sampled_from(list(NAMES)),
    separator=st.sampled_from([",", ";", "\t", "|"]),
    quote=st.sampled_from(['"', "'"]),
    end=st.sampled_from(["\n", "\r\n"]),
    form=st.sampled_from(list(FORMS)),
    time_format=st.sampled_from(TIMES),
    header=st.booleans(),
    seed=st.integers(0, 99),
)
def test_what_was_written_is_what_is_read(encoding, separator, quote, end, form, time_format, header, seed):
    assume(quote == '"' or form != "ch")  # that mark is the quote
    thousands, point, behind = FORMS[form]
    rows = orders(seed=seed)
    times = [row["created"] for row in rows]
    amounts = [row["amount"] for row in rows]
    for i, row in enumerate(rows):
        row["card_holder"] = NAMES[encoding][i % len(NAMES[encoding])]
        whole = f"{row['amount']:,.2f}".replace(",", "T").replace(".", point).replace("T", thousands)
        row["amount"], row["created"] = whole + behind, row["created"].strftime(time_format)
        row["note"] = f"a{separator} b {quote}c{quote} {i}"
    content = as_csv(rows, separator, encoding, quote, end, header=header)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "orders.csv"
        path.write_bytes(content)
        m = propose([str(path)]).column_map
        assert m.csv.header == header and m.csv.separator == separator
        names = dict(zip(rows[0], rows[0] if header else [f"column_{i + 1}" for i in range(9)], strict=True))
        assert m.id == names["order_no"] and m.label == names["fraud"] and names["amount"] in m.numeric
        frame = tables.scan(path, m).frame
        read = frame.pipe(add_keys, m).collect()
    assert read[names["order_no"]].to_list() == [row["order_no"] for row in rows]
    assert read[names["card_holder"]].to_list() == [row["card_holder"] for row in rows]
    assert read[names["amount"]].to_list() == pytest.approx(amounts)
    has_clock = "%H" in time_format
    assert read[TIME].to_list() == [
        t if has_clock else datetime(t.year, t.month, t.day) for t in whole_minutes(times, time_format)
    ]
    assert read[LABEL].to_list() == [int(i % 6 == 4) for i in range(len(rows))]


def whole_minutes(times: list[datetime], time_format: str) -> list[datetime]:
    return times if "%S" in time_format else [t - timedelta(seconds=t.second) for t in times]


@given(st.sampled_from(list(NAMES)), st.lists(st.integers(0, 4), min_size=3, max_size=30))
def test_the_encoding_that_wrote_names_reads_them(encoding, picks):
    names = "\n".join(NAMES[encoding][i % len(NAMES[encoding])] for i in picks) + "\n"
    assume(not names.isascii())
    content = names.encode(encoding)
    assert content.decode(find_encoding(content)).removeprefix("\ufeff") == names


@pytest.mark.parametrize("name", ["shift_jis", "gb18030", "euc_kr"])
def test_east_asian_encodings_are_found(name):
    people = {
        "shift_jis": "山田 はなこ タロウ",
        "gb18030": "李小龙 王秀英 张伟",
        "euc_kr": "김민준 이서연 박지훈",
    }[name]
    content = "\n".join(people.split() * 9).encode(name)
    assert codecs.lookup(find_encoding(content)).name == codecs.lookup(name).name


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([["name", "city"], ["Anina", "Bonn"], ["Belto", "Bern"]], True),
        ([["Anina Abernal", "Bonn"], ["Belto Bostrik", "Bonn"], ["Corvin Gunders", "Bern"]], False),
        (
            [["Anina Abernal", "y", "web"], ["Belto Bostrik", "n", "app"], ["Corvin Gunders", "y", "web"]],
            False,
        ),
        ([["a", "b"], ["1", "2"], ["3", "4"]], True),
        ([["5", "6"], ["1", "2"], ["3", "4"]], False),
        ([["2021", "2022"], ["1", "2"], ["3", "4"]], False),
        ([["ana@post.example", "x"], ["belto@post.example", "y"]], False),
        ([["Betrag", "Datum"], ["1,5", "01.02.2025"]], True),
        ([["7,5", "03.02.2025"], ["1,5", "01.02.2025"]], False),
    ],
)
def test_a_first_line_is_a_header_or_a_row(rows, expected):
    assert has_header(rows) == expected


def test_a_header_needs_no_rows():
    assert has_header([["anything"]]) and has_header([])
