"""Which texts are times, read right to the microsecond; what is said of the others and of odd ones."""

from datetime import date, datetime, timedelta, timezone

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from n3r.rows.times import advice, are_mixed, doubts, facts, format_problem, offsets, parse_time
from n3r.schema import ColumnMap

DAY = datetime(2025, 1, 31, 10)


def read(values: list, time_format: str | None = None) -> list[datetime | None]:
    table = pl.DataFrame({"t": values})
    return table.select(parse_time("t", time_format, table.schema)).to_series().to_list()


@pytest.mark.parametrize(
    ("value", "time_format", "expected"),
    [
        ("2025-01-02", None, datetime(2025, 1, 2)),
        ("2025-01-02 03:04:05", None, datetime(2025, 1, 2, 3, 4, 5)),
        ("2025-01-02T03:04:05.5", None, datetime(2025, 1, 2, 3, 4, 5, 500_000)),
        ("2025-01-02T03:04:05+02:00", None, datetime(2025, 1, 2, 1, 4, 5)),
        ("2025-01-02T03:04:05Z", None, datetime(2025, 1, 2, 3, 4, 5)),
        ("03/04/2025", None, None),
        ("Sat Feb 15 00:00:00 UTC 2025", "%a %b %d %H:%M:%S UTC %Y", datetime(2025, 2, 15)),
        ("Sun Feb 15 00:00:00 UTC 2025", "%a %b %d %H:%M:%S UTC %Y", None),
        ("sat feb 1 00:00:00 UTC 2025", "%a %b %d %H:%M:%S UTC %Y", datetime(2025, 2, 1)),
        ("Sat, 15 Feb 2025 10:00:00", "%a, %d %b %Y %H:%M:%S", datetime(2025, 2, 15, 10)),
        ("Sat Feb 15 01:00:00 +0200 2025", "%a %b %d %H:%M:%S %z %Y", datetime(2025, 2, 14, 23)),
        ("2025-01-02 03:00 +0100", "%Y-%m-%d %H:%M %z", datetime(2025, 1, 2, 2)),
        ("1700000000", "epoch", datetime(2023, 11, 14, 22, 13, 20)),
        (1700000000.5, "epoch", datetime(2023, 11, 14, 22, 13, 20, 500_000)),
        ("1700000000000", "epoch", None),
        (float("nan"), "epoch", None),
        (date(2025, 1, 2), "%d", datetime(2025, 1, 2)),
        # two digits of a year are none of the first century
        ("31-01-25", None, None),
        ("31/01/25", "%d/%m/%Y", None),
        ("31/01/25 10:00", "%d/%m/%Y %H:%M", None),
        ("31/01/0025", "%d/%m/%Y", datetime(25, 1, 31)),
        ("0001-01-01", None, datetime(1, 1, 1)),
        ("9999-12-31 23:59:59.999999", None, datetime(9999, 12, 31, 23, 59, 59, 999_999)),
        ("10000-01-01", None, None),
        ("31-01-25", "%d-%m-%y", datetime(2025, 1, 31)),
        ("01-01-68", "%d-%m-%y", datetime(2068, 1, 1)),
        ("01-01-69", "%d-%m-%y", datetime(1969, 1, 1)),
        ("29-02-72", "%d-%m-%y", datetime(1972, 2, 29)),
        ("12/31/99", "%D", datetime(1999, 12, 31)),
        # fractions as strptime has them
        ("2025-01-31 10:00:00.123456", "%Y-%m-%d %H:%M:%S.%f", DAY.replace(microsecond=123_456)),
        ("2025-01-31 10:00:00.5", "%Y-%m-%d %H:%M:%S.%f", DAY.replace(microsecond=500_000)),
        ("2025-01-31 10:00:00.123456789", None, DAY.replace(microsecond=123_456)),
        # zones
        ("2025-01-31 10:00:00 UTC", None, DAY),
        ("2025-01-31 10:00:00.25 GMT", None, DAY.replace(microsecond=250_000)),
        ("2025-01-31t10:00:00z", None, DAY),
        ("2025-01-31T10:00Z", None, DAY),
        ("2025-01-31 10:00-05:00", None, DAY.replace(hour=15)),
        ("2025-01-31 10:00:00 +0530", None, DAY.replace(hour=4, minute=30)),
        ("2025-01-31 10:00:00+00", None, DAY),
        ("2025-01-31 10:00:00 EST", None, None),
        ("2025-01-31 10:00:00 CET", None, None),
        # no times
        ("2025-02-29", None, None),
        ("2025-13-01", None, None),
        ("2025-01-31 25:00:00", None, None),
        ("45688", None, None),
        ("", None, None),
        ("0", "epoch", datetime(1970, 1, 1)),
        ("1e9", "epoch", datetime(2001, 9, 9, 1, 46, 40)),
    ],
)
def test_parse_time(value, time_format, expected):
    table = pl.LazyFrame({"t": [value, None]})
    parsed = table.select(parse_time("t", time_format, table.collect_schema())).collect()
    assert parsed.to_series().dtype == pl.Datetime("us") and parsed.to_series().to_list() == [expected, None]


def test_parse_time_takes_zones_to_utc():
    table = pl.LazyFrame({"t": ["2025-01-02 03:00"]}).select(
        pl.col("t").str.to_datetime("%Y-%m-%d %H:%M").dt.replace_time_zone("Europe/Berlin")
    )
    assert table.select(parse_time("t", None, table.collect_schema())).collect().item() == datetime(
        2025, 1, 2, 2
    )


def test_datetimes_of_any_unit_and_beyond_python():
    for unit in ("ms", "us", "ns"):
        assert read(pl.Series([DAY], dtype=pl.Datetime(unit))) == [DAY]
    far = pl.Series([253_402_300_800_000, 0], dtype=pl.Datetime("ms"))  # the first instant of the year 10000
    assert read(far) == [None, datetime(1970, 1, 1)]


@given(
    st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30)),
    st.integers(-14 * 60, 14 * 60),
)
def test_what_python_writes_as_iso_is_read_to_the_microsecond(time, minutes):
    assert read([time.isoformat(), time.isoformat(" ")]) == [time, time]
    zoned = time.replace(tzinfo=timezone(timedelta(minutes=minutes))).isoformat()
    assert read([zoned]) == [time - timedelta(minutes=minutes)]


@pytest.mark.parametrize(
    ("time_format", "phrase"),
    [
        ("%Y-%m-%d %H:%M:%S %Z", "%Z, the name of a zone"),
        ("%H:%M:%S,%f", "%f without a point"),
        ("%H", "not a strptime format"),
        ("%Y-%m-%d %3", "not a strptime format"),
        ("%Y-%m-%d %I:%M", "not a strptime format"),
    ],
)
def test_formats_that_would_be_read_wrongly_are_refused_in_the_map(time_format, phrase):
    with pytest.raises(ValueError, match=phrase):
        ColumnMap(
            id="i", text=["t"], label="y", label_values={"0": 0, "1": 1}, time="at", time_format=time_format
        )
    assert format_problem(None) is None and format_problem("%Y-%m-%d %H:%M:%S.%f") is None


@pytest.mark.parametrize(
    ("cells", "phrase"),
    [
        (["13/02/2025", "01/02/2025"], "time_format '%d/%m/%Y' reads them"),
        (["02/13/2025 10:00"], "time_format '%m/%d/%Y %H:%M' reads them"),
        (["01/02/2025"], "'%d/%m/%Y' and '%m/%d/%Y' both read them"),
        (["31-01-25", "15-02-25"], "'%d-%m-%y' and '%y-%m-%d' both read them"),
        (["31.12.2025 23:59:59"], "'%d.%m.%Y %H:%M:%S' reads them"),
        (["20250131"], "'%Y%m%d' reads them"),
        (["31 Jan 2025"], "'%d %b %Y' reads them"),
        (["01/31/2025 10:00 PM"], "'%m/%d/%Y %I:%M %p' reads them"),
        (["45688", "45689.5"], "days as a spreadsheet counts"),
        (["1700000000"], 'the format "epoch"'),
        (["1700000000000"], "milliseconds since 1970"),
        (["1700000000000000"], "microseconds"),
        (["1700000000000000000"], "nanoseconds"),
        (["2025-01-31 10:00:00 CET"], "the name of a zone"),
        (["Ana", "31/01/2025"], "set time_format in the column map"),
        ([None, " "], "fill them in"),
    ],
)
def test_what_reads_the_cells_is_named_and_they_are_not(cells, phrase):
    told = advice(pl.Series(cells, dtype=pl.String), "time")
    assert phrase in told and not any(cell in told for cell in cells if cell and cell.strip())


def hours(n: int, start: datetime = DAY, step: timedelta = timedelta(hours=7)) -> list[datetime]:
    return [start + i * step for i in range(n)]


@pytest.mark.parametrize(
    ("times", "phrases"),
    [
        (hours(400), []),
        (hours(400, step=timedelta(days=8)), []),
        ([datetime(2025, m, 1) for m in range(1, 13)] * 5, []),  # a table by the month
        ([DAY] * 50, ["50 of 50 rows have the one 'at' 2025-01-31 10:00:00"]),
        (hours(40) + [DAY] * 45, ["46 of 85 rows have the one"]),
        ([*hours(400), datetime(1900, 1, 1)], ["1 of 401 rows .* 20 years from the others .1900-01-01."]),
        ([*hours(99), datetime(9999, 12, 31)], ["1 of 100 .*9999-12-31"]),
        ([*hours(99), datetime(1970, 1, 1), datetime(2099, 1, 1)], ["2 of 101 .*1970-01-01 and 2099-01-01"]),
        (
            [datetime(2025, d, m) for m in range(1, 13) for d in range(1, 13)],
            ["no 'at' of 144 rows lies after day 12"],
        ),
        ([datetime(2025, m, 3) for m in range(1, 13)] * 5, ["lies after day 3 "]),
        ([DAY], []),
        ([], []),
    ],
)
def test_times_that_are_hard_to_believe_are_told_and_others_are_not(times, phrases):
    column = pl.Series(times, dtype=pl.Datetime("us"))
    median = column.to_physical().median() or 0
    found = doubts(pl.concat(facts(part, median) for part in (column[:7], column[7:])), "at")
    assert len(found) == len(phrases), found
    for sentence, phrase in zip(found, phrases, strict=True):
        assert pl.Series([sentence]).str.contains(phrase).all(), sentence


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (["2025-01-31 10:00", "2025-01-31 10:00+02:00"], True),
        (["2025-01-31 10:00Z", "2025-01-31 10:00:00 UTC"], False),
        (["2025-01-31", "2025-01-31T10:00:00Z"], False),
        (["2025-01-31 10:00", None], False),
    ],
)
def test_offsets_on_some_times_alone_are_seen(values, found):
    assert (
        are_mixed(
            pl.concat(offsets(pl.LazyFrame({"t": [value]}, schema={"t": pl.String}), "t") for value in values)
        )
        is found
    )
