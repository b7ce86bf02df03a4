"""Times: which texts are read as one, what to say where they are not, and which times are hard to believe.

Decisions:
- A year has four digits in the text, or the format says %y: "31-01-25" is not a day of the year 31.
- polars takes chrono's formats, which differ from strptime's without a word: `%f` counts nanoseconds, `%Z`
  skips a zone's name, `%y` is always of this century. `.%f` is read as strptime does, `%Z` is refused, and 69
  to 99 are 1969 to 1999, as POSIX has it.
- Without a format a time is ISO 8601, with an offset or none; one without is taken for UTC.
- What is only hard to believe is read and warned of, in words that hold no row's content but times.
"""

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import partial

import polars as pl
from polars.exceptions import PolarsError

from n3r.rows.time_formats import candidates

EPOCH_RANGE = (-2.2e9, 7.2e9)  # seconds, 1900 to 2198: milliseconds (1.7e12) are not taken for it
# Python knows no other years: what polars reads beyond them breaks at the first look.
YEARS = (datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59, 999999))
_YEAR_1000 = datetime(1000, 1, 1)
_CLOCK = "%Y-%m-%dT%H:%M"
_PLAIN = "%Y-%m-%d %H:%M:%S%.f"
_ISO_FORMATS = (f"{_CLOCK}:%S%.f", f"{_CLOCK}:%S%.f%#z", _CLOCK, f"{_CLOCK}%#z", "%Y-%m-%d")
_ZONED = r":\d\d.*(Z|z|UTC|GMT|[+-]\d\d(:?\d\d)?)$"
_DAYS = pl.Series(["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"])
_LAST_TWO_DIGIT_YEAR = 2068
FAR = 20 * 365 * 86_400_000_000  # microseconds, 20 years, from the median: no table of orders spans so much
FIRST_YEARS = datetime(1970, 1, 1), datetime(1972, 1, 1)  # where days or minutes lie that pass for seconds
FEWEST = 30  # rows, for a statement on how times are spread
NO_MONTH = 12  # the last day that can be taken for a month
_TRIED = 25  # texts whose formats are tried
# What a column of numbers is that was taken for text of times.
_NUMBERS = {
    r"\d{5}(\.\d+)?": "days as a spreadsheet counts them: write dates",
    r"-?\d{10}(\.\d+)?": 'seconds since 1970: the format "epoch"',
    r"-?\d{13}": 'milliseconds since 1970: divide by 1,000 for the format "epoch"',
    r"-?\d{16}": 'microseconds since 1970: divide by 1,000,000 for the format "epoch"',
    r"-?\d{19}": 'nanoseconds since 1970: divide by 1,000,000,000 for the format "epoch"',
    r".*:\d\d.*\s[A-Z]{3,5}": "times with the name of a zone: write its offset, such as +01:00",
}


def format_problem(time_format: str | None) -> str | None:
    """Why times cannot be read by a format, or None."""
    if "%Z" in (time_format or ""):
        return "has %Z, the name of a zone, which tells no offset: use %z, or write the one name as it stands"
    if re.search(r"(?<!\.)%f", time_format or ""):
        return "has %f without a point before it: only .%f is read"
    bare = re.search(r"%\d(?!f)", time_format or "")  # polars breaks at it
    try:
        pl.Series([""]).str.to_datetime(_chrono(time_format or "%Y"), strict=False)
    except PolarsError:
        bare = True
    return "is not a strptime format of a time: see configs/" if bare else None


def parse_time(name: str | None, time_format: str | None, schema: Mapping[str, pl.DataType]) -> pl.Expr:
    """The column as Datetime(us) in UTC without a zone; null where it does not parse, or beyond `YEARS`."""
    kind = schema[name] if name else pl.Null
    if kind == pl.Null:
        return pl.lit(None, dtype=pl.Datetime("us"))
    if kind in (pl.Date, pl.Datetime):
        return _in_years(in_utc(name, kind))
    if time_format == "epoch":
        seconds = pl.col(name).cast(pl.String).str.strip_chars().cast(pl.Float64, strict=False)
        micros = pl.when(seconds.is_between(*EPOCH_RANGE)).then(seconds * 1e6)
        return micros.cast(pl.Int64).cast(pl.Datetime("us"))
    read = partial(_read, time_format=time_format)
    return pl.col(name).cast(pl.String).map_batches(read, pl.Datetime("us"), is_elementwise=True)


def in_utc(name: str, kind: pl.DataType) -> pl.Expr:
    """A column of days or of times, with a zone or none, as Datetime(us) in UTC without a zone."""
    if kind == pl.Date:
        return pl.col(name).cast(pl.Datetime("us"), strict=False)
    zoned = getattr(kind, "time_zone", None) is not None
    time = pl.col(name).dt.convert_time_zone("UTC") if zoned else pl.col(name)
    return time.dt.replace_time_zone(None).cast(pl.Datetime("us"), strict=False)


def _in_years(time: pl.Expr) -> pl.Expr:
    return pl.when(time.is_between(*map(pl.lit, YEARS))).then(time)


def _read(texts: pl.Series, time_format: str | None) -> pl.Series:
    """Texts as times: what one format does not read, the next may; most columns need one of them."""
    texts = texts.str.strip_chars()
    if time_format is not None:
        return _read_by(texts, time_format)
    times = _read_by(texts, _PLAIN)
    rest = (times.is_null() & (texts != "")).arg_true()
    iso = texts.gather(rest).str.replace(r"^(\d{4}-\d\d-\d\d)[ t]", "${1}T")
    iso = iso.str.replace(r"(:\d\d(?:\.\d+)?)\s*(?:UTC|GMT|z)$", "${1}Z")
    for iso_format in _ISO_FORMATS:
        if not len(rest):
            break
        found = _read_by(iso, iso_format)
        times = times.scatter(rest, found)
        left = found.is_null()
        rest, iso = rest.filter(left), iso.filter(left)
    return times


def _read_by(texts: pl.Series, time_format: str) -> pl.Series:
    time = _parsed(texts, time_format)
    if re.search("%[yDx]", time_format):
        frame = pl.DataFrame({"time": time})
        last_century = pl.col("time").dt.year() > _LAST_TWO_DIGIT_YEAR
        shifted = pl.when(last_century).then(pl.col("time").dt.offset_by("-100y")).otherwise("time")
        return frame.select(shifted).to_series()
    early = (time < _YEAR_1000).arg_true()
    if len(early):
        has_four_digits = texts.gather(early).str.contains(r"0\d{3}")
        time = time.scatter(early.filter(~has_four_digits), None)
    return time.to_frame().select(_in_years(pl.first())).to_series()


def _parsed(texts: pl.Series, time_format: str) -> pl.Series:
    """Texts as polars reads them by a format, without a zone."""
    if re.fullmatch(r"%a([^%]|%[bdmYHMS])+", time_format):
        # The day first holds polars up: what is behind it takes a fifth of the time.
        time = texts.str.slice(3).str.to_datetime(time_format[2:], strict=False, time_unit="us", cache=False)
        is_its_day = texts.str.starts_with(_DAYS.gather(time.dt.weekday() - 1))
        rest = (~is_its_day.fill_null(False)).arg_true()
        return time.scatter(rest, _parsed_whole(texts.gather(rest), time_format)) if len(rest) else time
    return _parsed_whole(texts, time_format)


def _parsed_whole(texts: pl.Series, time_format: str) -> pl.Series:
    time = texts.str.to_datetime(_chrono(time_format), strict=False, time_unit="us")
    return time.dt.replace_time_zone(None)


def _chrono(time_format: str) -> str:
    return time_format.replace(".%f", "%.f")


def advice(
    cells: pl.Series, role: str, every: pl.Series | None = None, time_format: str | None = None
) -> str:
    """What to do about texts that are no times in the format: one phrase, which shows none of them.

    `every` are texts of the whole column, those that the format reads too.
    """
    texts = _filled(cells)
    if texts.is_empty():
        return "fill them in, or set max_bad_dates"
    for pattern, words in _NUMBERS.items():
        if texts.str.contains(f"^(?:{pattern})$").all():
            return f"they look like {words}"
    every = texts if every is None else _filled(every)
    found = list(_fitting(every))
    if len(found) > 1:
        read_by = " and ".join(map(repr, found[:2]))
        return f"{read_by} both read them: set {role}_format to the one that is meant"
    if found:
        return f"{role}_format {found[0]!r} reads them{_swapped(found[0], time_format)}"
    best, share = most_read(every)
    if best and share > max(0.5, _share(every, time_format)):
        told = f"{role}_format {best!r} reads most of them, {share:.0%}{_swapped(best, time_format)}"
        return f"{told}; mend the others, or set max_bad_dates"
    rest, share = most_read(texts)
    also = f"; {share:.0%} of these are in the format {rest!r}: bring all into one" if rest else ""
    return f"set {role}_format in the column map, or max_bad_dates{also}"


def _filled(cells: pl.Series) -> pl.Series:
    texts = cells.drop_nulls().cast(pl.String).str.strip_chars()
    return texts.filter(texts != "")


def _swapped(found: str, given: str | None) -> str:
    """What to add where a format is the given one with day and month the other way round."""
    other = found.translate(str.maketrans("dm", "md"))
    return ": day and month are the other way round" if other == (given or "").replace(".%f", "%.f") else ""


def _share(texts: pl.Series, time_format: str | None) -> float:
    frame = texts.to_frame("time")
    times = frame.select(parse_time("time", time_format, frame.schema)).to_series()
    return times.count() / max(len(times), 1)


def most_read(texts: pl.Series) -> tuple[str | None, float]:
    """The usual format that reads most of some texts, and their share; None where none reads one in ten."""
    some = texts.gather_every(max(1, len(texts) // _TRIED)).head(_TRIED)
    shares = {form: _share(texts, form) for form in candidates(some)}
    best = max(shares, key=shares.get, default=None)
    return (best, shares[best]) if best and shares[best] > 0.1 else (None, 0.0)


def _fitting(texts: pl.Series) -> Iterator[str]:
    """The usual formats that read all of some texts, of those that read the same times the first."""
    frame, seen = texts.to_frame("time"), []
    for time_format in candidates(texts.head(1)):
        times = frame.select(parse_time("time", time_format, frame.schema)).to_series()
        if not times.null_count() and not any(times.equals(other) for other in seen):
            seen.append(times)
            yield time_format


def offsets(frame: pl.LazyFrame, name: str) -> pl.DataFrame:
    """How many texts of a column give a time of day, and how many of these an offset."""
    text = pl.col(name).str.strip_chars()
    counts = (text.str.contains(r":\d\d").sum(), text.str.contains(_ZONED).sum().alias("n_zoned"))
    found = frame.select(pl.lit(name).alias("name"), counts[0].alias("n_timed"), counts[1])
    return found.cast({"n_timed": pl.Int64, "n_zoned": pl.Int64}).collect()


def are_mixed(offsets: pl.DataFrame) -> bool:
    """Whether some texts of a column give an offset and others none."""
    counts = offsets.group_by("name").agg(pl.sum("n_timed"), pl.sum("n_zoned"))
    return any(0 < n_zoned < n_timed for _, n_timed, n_zoned in counts.rows())


def facts(times: pl.Series, median: float) -> pl.DataFrame:
    """What tells, of some of a column's parsed times, which are hard to believe: one row.

    `median`, in microseconds, is that of all rows.
    """
    times = times.drop_nulls().alias("time")
    from_median = (times.to_physical() - median).abs()
    same, far = times.filter(from_median < 1), times.filter(from_median > FAR)
    days = times.dt.day()
    found = {
        "n": len(times), "first": times.min(), "last": times.max(),
        "n_same": len(same), "same": same.max(), "n_far": len(far), "far": far.min(), "farthest": far.max(),
        "day": days.max(), "months": times.dt.month().unique().sort().to_list(),
    }  # fmt: skip
    kinds = dict.fromkeys(found, pl.Int64) | dict.fromkeys(
        ("first", "last", "same", "far", "farthest"), times.dtype
    )
    return pl.DataFrame([found], schema=kinds | {"months": pl.List(pl.Int64)})


def doubts(facts: pl.DataFrame, name: str) -> list[str]:
    """What is hard to believe of a column's parsed times, all `facts` of which are given: a sentence each."""
    n_rows, n_same, n_far = (facts[key].sum() for key in ("n", "n_same", "n_far"))
    if not n_rows:
        return []
    first, last, found = facts["first"].min(), facts["last"].max(), []
    if n_rows >= FEWEST and 2 * n_same > n_rows:  # what more than half of the rows have is the median
        same = facts["same"].max()
        found.append(f"{n_same:,} of {n_rows:,} rows have the one {name!r} {same}: no time orders them")
    if n_far:
        pair = (facts["far"].min(), facts["farthest"].max())
        ends = " and ".join(dict.fromkeys(f"{time:%Y-%m-%d}" for time in pair))
        found.append(
            f"{n_far:,} of {n_rows:,} rows have a {name!r} more than 20 years from the others ({ends}): "
            "does it stand for an unknown time?"
        )
    if n_rows >= FEWEST and FIRST_YEARS[0] <= first and last < FIRST_YEARS[1]:
        found.append(f"no {name!r} lies after {last:%Y-%m-%d}: is its unit what the format says?")
    day, months = facts["day"].max(), facts["months"].explode().drop_nulls().n_unique()
    if n_rows >= FEWEST and 1 < day <= NO_MONTH and months > 1:
        found.append(
            f"no {name!r} of {n_rows:,} rows lies after day {day} of a month: are day and month the "
            "right way round?"
        )
    return found
