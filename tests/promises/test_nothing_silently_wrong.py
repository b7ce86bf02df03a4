"""Nothing is silently wrong: odd files with the values, rows and reasons that are right.

Each case is read for training (`scan`, `prepare`) and for scoring (`read_chunks`). They must agree row by row
and account for every record. What is not read right is refused or warned of, in the words of the case.
"""

import base64
import csv
import io
import json
import zlib
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from n3r.files.formats import find_files
from n3r.files.json_lines import KEY_TWICE
from n3r.files.records import ESCAPED, REPEATED, Table, records
from n3r.preprocess import PrepareConfig, Prepared, prepare
from n3r.rows.chunks import read_chunks
from n3r.rows.inputs import Inputs
from n3r.schema import TIME, ColumnMap
from n3r.tables import Source, scan

PROMISE = "silently wrong"
N = 40
DAY = datetime(2025, 1, 1)
ROWS = pl.DataFrame(
    {
        "id": [f"o{i:02}" for i in range(N)],
        "name": [f"Ana Berg {i}" for i in range(N)],
        "y": ["0", "1"] * (N // 2),
        "at": [str(DAY + i * timedelta(hours=17)) for i in range(N)],
        "x": [i * 1.5 for i in range(N)],
    }
)
X = sum(ROWS["x"])
MAP = {"id": "id", "text": ["name"], "label": "y", "label_values": {"0": 0, "1": 1}, "time": "at"}
MAP |= {"numeric": ["x"]}
STAR, ENTITY = {"numeric": ["*"]}, {"entity": "customer"}
# Six rows in two row groups, between row groups without any, as pyarrow writes them.
EMPTY_GROUPS = (
    b"c-p;|!E4h{9LIkzO<voWNhy1e1j;DVK3Zu<lC{Ibz)psE=wXP*Ug9inu(h?Tvl9<8#!fqmco@=yC-FQ)#KTVh2_8I*9XxxK9"
    b"f~ini=?KsvBQPrSKj-"
    b"5zrXkU<pZIs%l9oJ6ChHR2S@_IC6^hJs}d}h$rXw3HBAvM5pAxVC3=A?68ym_zNu#16h=}c;}+0Ks!AkLKr6&}X1U>{@6_9m"
    b"xiv}XkTsqjSP^!eyl~ZRDCyQjJYl-Q8t02h-0*<h^;*7JQhCBQ?Q+qy_-"
    b"$W@TlUb_!sH1|a>J{qb0>n#uiGH5SY@*Nzp_{mu_R*oN?BL}$R${mTo&b_t;H}b3O*JJl9LrBnghKu05W%_K#a{Y=y-"
    b"c=y}soT6^NFVbZO&J7OL*CVktMAt-"
    b"5~$?fO@e)A5$7o9qJBjG9qnkRqCq1#Gwli9~^>=o|wU%cllyaEnhQj`7LZXc^k|X;wyScuPLf!@or8MWL=w^Ah<)^bk?rCVh"
    b">-8>0+3;mv{RbGnDv8DeiyzHs5<A;Eu^`0UtVfd4c!aC*aGx=B0io5Xrj&}xpfih(g*r!Dq1!d^v!K0MMlcnO%kN3@6751H-"
    b"DLF>|xRrQYS3g-c$FW8yF-YEfN-m}rZOfi2EbWedX%zHQ-"
    b"^e;FB_3t<g_H!J9`<rNhdk;?le;#GW(doedjIocgDZrn`*@yUa;QJ~&QvV(N0b=_a`+RK@`Qs=(983O03rGG`3qiiGg&}`56"
    b"N3DwnE?3{%_W~px19Eqr}a*8t<@?z?RN87dZ*sr-e@+`_Ts!bZy7cIwe#O_PXSov|66_o{a52%"
)


# ---- files


def changed(**changes: Any) -> pl.DataFrame:
    """The rows with other columns: values, or a function of a row's number and old value."""
    made = {
        name: [new(i, ROWS[name][i] if name in ROWS.columns else None) for i in range(N)]
        if callable(new)
        else new
        for name, new in changes.items()
    }
    return ROWS.with_columns(pl.Series(name, values, strict=False) for name, values in made.items())


def text(sep: str = ",", end: str = "\n", quoting: int = csv.QUOTE_MINIMAL, **changes: Any) -> bytes:
    """The rows as Python's csv module writes them."""
    frame, file = changed(**changes), io.StringIO(newline="")
    writer = csv.writer(file, delimiter=sep, lineterminator=end, quoting=quoting)
    writer.writerows([frame.columns, *frame.rows()])
    return file.getvalue().encode()


def parquet(rows: pl.DataFrame | None = None, **changes: Any) -> bytes:
    file = io.BytesIO()
    (changed(**changes) if rows is None else rows).write_parquet(file)
    return file.getvalue()


def jsonl(**changes: Any) -> list[bytes]:
    return [json.dumps(row).encode() + b"\n" for row in changed(**changes).to_dicts()]


def edited(row: int, old: str, new: str, **changes: Any) -> bytes:
    """The CSV with another text in one row; row 0 is the header."""
    lines = text(**changes).decode().split("\n")
    assert old in lines[row]
    lines[row] = lines[row].replace(old, new)
    return "\n".join(lines).encode()


def inserted(row: int, line: str) -> bytes:
    """The CSV with one more line behind a row."""
    lines = text().decode().split("\n")
    return "\n".join([*lines[: row + 1], line, *lines[row + 1 :]]).encode()


def halves(first: bytes, second: bytes, ending: str = "parquet") -> dict[str, bytes]:
    return {f"a.{ending}": first, f"b.{ending}": second}


def half(part: int, **changes: Any) -> pl.DataFrame:
    return changed(**changes)[part * N // 2 : (part + 1) * N // 2]


# ---- cases


class Case(NamedTuple):
    """Files, changes of the map, and what is right: figures of `found`, or the words of a refusal."""

    files: Mapping[str, bytes]
    columns: Mapping[str, Any]
    expected: Mapping[str, Any] | str
    rejects: tuple[tuple[int, str], ...] | None  # rows that scoring lists, or None: it refuses the file
    items: tuple[str, ...]  # what a user names, in the folder of the files
    kind: str


CASES: dict[str, Case] = {}
KINDS: list[str] = []  # the last is that of the cases below it
Content = bytes | Mapping[str, bytes]


def _add(name: str, content: Content, columns: Mapping, expected: Any, rejects: Any, items: Any) -> None:
    assert name not in CASES
    files = {"o.csv": content} if isinstance(content, bytes) else content
    CASES[name] = Case(files, columns, expected, rejects, items, KINDS[-1])


def right(
    name: str,
    content: Content,
    columns: Mapping | None = None,
    /,
    *,
    items: tuple[str, ...] = (".",),
    **more: Any,
) -> None:
    """A case that is read as ROWS are, but for what is given."""
    usual = {
        "n": N,
        "kept": more.get("n", N),
        "x": X,
        "nulls": 0,
        "dropped": {},
        "left_out": [],
        "warned": [],
    }
    _add(name, content, columns or {}, usual | more, (), items)


def refused(
    name: str,
    content: Content,
    says: str,
    columns: Mapping | None = None,
    rejects: tuple[tuple[int, str], ...] | None = None,
) -> None:
    """A case that training refuses in these words, and scoring too, unless it lists the rows."""
    _add(name, content, columns or {}, says, rejects, (".",))


def lost(name: str, content: Content, *rejects: tuple[int, str]) -> None:
    """A case with rows that cannot be read: training names them, scoring lists them."""
    row, reason = rejects[0]
    refused(name, content, f"row {row}: {reason}", rejects=rejects)


def found(source: Source, prepared: Prepared) -> dict[str, Any]:
    """The figures that are compared."""
    rows, report = prepared.splits["train"].sort("id"), prepared.report
    steps = report.steps.filter(pl.col("rows_dropped") > 0)
    return {
        "n": source.n_rows,
        "kept": rows.height,
        "dropped": dict(steps.select("reason", "rows_dropped").iter_rows()),
        "x": rows["x"].sum(),
        "nulls": rows["x"].null_count(),
        "name": rows[prepared.column_map.text[0]][1],
        "time": rows[TIME][1],
        "ends": report.times.row(0)[1:],
        "left_out": list(source.left_out),
        "why": "; ".join(source.left_out.values()),
        "numeric": prepared.column_map.numeric,
        "warned": [_kind(warning) for warning in report.warnings],
        "warning": "; ".join(report.warnings),
    }


def _kind(warning: str) -> str:
    words = ("one entity", "one id", "20 years from", "no time orders them", "right way round", "is its unit")
    words += ("an offset",)
    return next((kind for kind in words if kind in warning), warning)


# fmt: off
KINDS.append("files of odd quotes, separators, lines and encodings")

X4 = ROWS["x"][4]  # of row 5
right("plain", text())
right("quoted throughout", text(quoting=csv.QUOTE_ALL))
right("CR LF", text(end="\r\n"))
right("no last line end", text()[:-1])
right("a byte order mark", b"\xef\xbb\xbf" + text())
right("blank lines", text().replace(b"\n", b"\n\r\n\n"))
right("semicolons", text(sep=";"))
right("tabs in a .csv", text(sep="\t"))
right("bars", text(sep="|", name=lambda i, old: f"{old}; a, b"), name="Ana Berg 1; a, b")
right("commas in a .tsv", {"o.tsv": text(name=lambda i, old: f"{old}\t")}, name="Ana Berg 1\t")
right("a separator told", b"sep=;\r\n" + text(sep=";", end="\r\n"))
right("inch marks in a name", edited(2, "Ana Berg 1", '5" disk'), name='5" disk')
right("inch marks in a last column that is not read",
      text().replace(b"\n", b',5" disk\n').replace(b"disk", b"d", 1))
right("line ends in names", text(name=lambda i, old: f'{old}\nBerg, "x"'), name='Ana Berg 1\nBerg, "x"')
right("customers called NULL", text(name=lambda i, old: "NULL"), name="NULL")
right("nothing as databases write it", edited(5, f",{X4}", ",\\N"), x=X - X4, nulls=1)
right("the same within quotes", text(name=lambda i, old: "a,\\N,b"), name="a,\\N,b")
right("a path that ends in a backslash", edited(2, "Ana Berg 1", '"C:\\"'), name="C:\\")
right("JSON within a cell", text(name=lambda i, old: json.dumps({"n": f"\"{i}\""})), name='{"n": "\\"1\\""}')
right("JSON lines", {"o.jsonl": b"".join(jsonl())})
right("JSON lines with blank lines", {"o.jsonl": b"\n \n".join(jsonl())})
right("JSON lines that leave a key out", {"o.jsonl": b"".join(jsonl()).replace(b', "x": 6.0', b"")}, x=X - X4,
      nulls=1)
lost("Spark's quotes", edited(3, "Ana Berg 2", '"Ana \\"Ann\\" Berg"'), (3, ESCAPED))
lost("Spark's quotes at the end of a cell", text(quoting=csv.QUOTE_ALL).replace(b"Ana Berg 2\"", b'5\\""', 1),
     (3, ESCAPED))
lost("Spark's quotes before an empty cell",
     text(quoting=csv.QUOTE_ALL, y=lambda i, old: "" if i == 3 else old)
     .replace(b'Ana Berg 2"', b'5\\""', 1), (3, ESCAPED))
lost("a backslash before a separator", edited(3, "Ana Berg 2", "Ana\\, Berg"),
     (3, "has 6 cells, the header 5: is a backslash put before quotes or separators?"))
lost("a quote that is never closed", edited(3, "Ana Berg 2", '"Ana'),
     (3, "a quote is opened and never closed"))
lost("text after a quote", edited(3, "Ana Berg 2", '"Ana" Berg'),
     (3, "a quoted cell goes on after its closing quote"))
lost("short records", text()[: -len(",2025-01-28 15:00:00,58.5\n")] + b"\n",
     (40, "has 3 cells, the header 5"))
lost("long records", edited(7, "9.0", "9,0"), (7, "has 6 cells, the header 5"))
lost("blanks in a line", inserted(3, "   "), (4, "has 1 cells, the header 5"))
lost("a database's last line", text() + b"(40 rows)\n", (41, "has 1 cells, the header 5"))
lost("the end of a file of DOS", text() + b"\x1a", (41, "has 1 cells, the header 5"))
lost("two files behind each other", text() + text(), (41, REPEATED))
lost("two files with their marks", text() + b"\xef\xbb\xbf" + text(quoting=csv.QUOTE_MINIMAL), (41, REPEATED))
lost("a JSON line with a key twice",
     {"o.jsonl": b"".join(jsonl()).replace(b'"x": 6.0', b'"x": 6.0, "x": 7.0')},
     (5, KEY_TWICE))
refused("Latin-1", edited(3, "Ana Berg 2", "Zoé").decode().encode("latin-1"),
        "row 3, column 'name': is not UTF-8",
        rejects=((3, "is not UTF-8 text"),))
refused("Latin-1 in the header", text(é=[0] * N).decode().encode("latin-1"), "save the file as UTF-8")
refused("UTF-16", text().decode().encode("utf-16"), "or save it as UTF-8")
refused("UTF-16 without a mark", text().decode().encode("utf-16-be"), "is UTF-16 text")
refused("an Excel workbook", b"PK\x03\x04" + b"\0" * 26 + b"[Content_Types].xml", "is an Excel workbook")
refused("Parquet called CSV", parquet(), "is Parquet: let its name end in .parquet")
refused("gzip called CSV", b"\x1f\x8b\x08" + b"\0" * 99, "is compressed by gzip")
refused("a web page", b"<!DOCTYPE html><html>", "is a web page")
refused("a JSON array", {"o.jsonl": b"[" + b",".join(jsonl()) + b"]"},
        "is a JSON array: write an object a line")
right("CR line ends", text(end="\r"))
refused("CR CR LF", text(end="\r\r\n"), "CR CR LF")
refused("a name twice", text().replace(b"name", b"x", 1), "columns 2 and 5 have one name")
refused("two columns without a name", text().replace(b"\n", b",,\n"), "columns 6 and 7 have no name")
refused("a name twice in Parquet", {"o.parquet": parquet(zz=lambda i, old: i).replace(b"zz", b"id")},
        "has a column name twice")
refused("no header", text()[len("id,name,y,at,x\n"):], "'id' (id) is missing")

KINDS.append("times of odd forms, units, zones and values")

SOON = (str(DAY), str(DAY + 39 * timedelta(hours=17)))
right("the ends of a split", text(), ends=SOON)
right("times of UTC by name", text(at=lambda i, old: f"{old} UTC"), ends=SOON)
right("offsets", text(at=lambda i, old: f"{old}+01:00"),
      ends=(str(DAY - timedelta(hours=1)), "2025-01-28 14:00:00"))
right("two-digit years with their format", text(at=lambda i, old: f"{1 + i % 28:02}-01-{24 + i // 28}"),
      {"time_format": "%d-%m-%y"}, ends=("2024-01-01 00:00:00", "2025-01-12 00:00:00"))
right("years of the last century", text(at=lambda i, old: f"{1 + i % 28:02}/01/{69 + i // 28}"),
      {"time_format": "%d/%m/%y"}, ends=("1969-01-01 00:00:00", "1970-01-12 00:00:00"))
right("microseconds as Python writes them", text(at=lambda i, old: f"{old}.000500"),
      {"time_format": "%Y-%m-%d %H:%M:%S.%f"}, time=DAY + timedelta(hours=17, microseconds=500))
right("one unknown time of 1900", text(at=lambda i, old: "1900-01-01" if i == 7 else old),
      warned=["20 years from"],
      ends=("1900-01-01 00:00:00", SOON[1]))
right("the last day of 9999", text(at=lambda i, old: "9999-12-31" if i == 7 else old),
      warned=["20 years from"],
      ends=(SOON[0], "9999-12-31 00:00:00"))
right("the first second of 1970", text(at=lambda i, old: 0 if i == 7 else 1735689600 + 999 * i),
      {"time_format": "epoch"},
      warned=["20 years from"], ends=("1970-01-01 00:00:00", "2025-01-01 10:49:21"))
right("days taken for seconds", text(at=lambda i, old: 20089 + i), {"time_format": "epoch"},
      warned=["is its unit"], ends=("1970-01-01 05:34:49", "1970-01-01 05:35:28"))
right("one time for all rows", text(at=lambda i, old: "2025-01-01"), warned=["no time orders them"])
right("one time for most rows", text(at=lambda i, old: old if i < 15 else "2025-02-25"),
      warned=["no time orders them"])
right("day and month swapped", text(at=lambda i, old: f"2025-{1 + i % 12:02}-{1 + i % 11:02}"),
      warned=["right way round"])
right("offsets on some times alone", text(at=lambda i, old: f"{old}Z" if i % 2 else old),
      warned=["an offset"], ends=SOON)
right("milliseconds in one file, nanoseconds in another", halves(
    parquet(half(0).with_columns(pl.col("at").str.to_datetime(time_unit="ms"))),
    parquet(half(1).with_columns(pl.col("at").str.to_datetime(time_unit="ns")))), ends=SOON)
right("days in one file, times in another", halves(
    parquet(half(0, at=lambda i, old: date(2025, 1, 1 + i % 20))),
    parquet(half(1).with_columns(pl.col("at").str.to_datetime()))), ends=("2025-01-01 00:00:00", SOON[1]))
right("zones that differ between files", halves(
    parquet(half(0).with_columns(pl.col("at").str.to_datetime(time_zone="UTC"))),
    parquet(half(1).with_columns(pl.col("at").str.to_datetime(time_zone="UTC").dt.convert_time_zone("Asia/Tokyo")))),
    ends=SOON)
refused("zones in one file alone", halves(
    parquet(half(0).with_columns(pl.col("at").str.to_datetime())),
    parquet(half(1).with_columns(pl.col("at").str.to_datetime(time_zone="UTC")))),
    "'at' differs between files: a time in", rejects=())
refused("texts in one file, times in another", halves(
    parquet(half(0)), parquet(half(1).with_columns(pl.col("at").str.to_datetime()))), "text in", rejects=())
for what, times, says in (
    ("two-digit years", lambda i, old: f"{1 + i % 28:02}-01-25", "'%d-%m-%y' and '%y-%m-%d' both read them"),
    ("days first", lambda i, old: f"{1 + i % 28:02}/01/2025", "time_format '%d/%m/%Y' reads them"),
    ("months first", lambda i, old: f"01/{1 + i % 28:02}/2025 10:00", "'%m/%d/%Y %H:%M' reads them"),
    ("a zone's name", lambda i, old: f"{old} CET", "the name of a zone: write its offset"),
    ("days of a spreadsheet", lambda i, old: 45658 + i, "days as a spreadsheet counts them"),
    ("seconds", lambda i, old: 1735689600 + i, 'seconds since 1970: the format "epoch"'),
    ("impossible days", lambda i, old: "2025-02-30", "40 of 40 rows have no time"),
):
    refused(f"no ISO times: {what}", text(at=times), says, rejects=())
refused("milliseconds in one file of two", halves(
    text(at=lambda i, old: 1735689600 + i), text(at=lambda i, old: 1735689600000 + i), "csv"),
    "milliseconds since 1970", {"time_format": "epoch"}, rejects=())

KINDS.append('columns that "*" must leave out, by name')

for kind, write in (("csv", text), ("parquet", parquet), ("jsonl", lambda **more: b"".join(jsonl(**more)))):
    for name in ("", "Unnamed: 0", "__index_level_0__", "...1"):
        right(f"{kind}: row numbers called {name!r}",
              {f"o.{kind}": write(**{name: lambda i, old: i * 7 % N})}, STAR,
              left_out=[name], numeric=["x"], why="no name of its own, as row numbers have")
    right(f"{kind}: a column that counts the rows", {f"o.{kind}": write(nr=lambda i, old: i + 1)}, STAR,
          left_out=["nr"], numeric=["x"], why="it counts the rows")
    right(f"{kind}: a column that nearly counts the rows",
          {f"o.{kind}": write(nr=lambda i, old: i + (i > 9))}, STAR,
          numeric=["x", "nr"])
right("row numbers in another order", text(nr=lambda i, old: i * 7 % N), STAR, left_out=["nr"], numeric=["x"])
right("different whole numbers of no range", text(nr=lambda i, old: i * 7), STAR, numeric=["x", "nr"])
right("whole numbers that come again", text(nr=lambda i, old: i % 9), STAR, numeric=["x", "nr"])
right("each file counts its own rows", halves(parquet(half(0, nr=lambda i, old: i)),
      parquet(half(1, nr=lambda i, old: i % 20))), STAR, left_out=["nr"])
right("an empty last column", text().replace(b"\n", b",\n"), STAR, left_out=[""], numeric=["x"])
right("one bad cell", text(z=lambda i, old: "9,999.99" if i == 4 else i * i), STAR, left_out=["z"],
      numeric=["x"],
      why="1 of 40 cells is no number, in row 5 of o.csv, form 9,999.99; number_format 'en' reads all")
right("one bad cell of the second file", halves(text(z=lambda i, old: i * i), text(
      id=lambda i, old: f"p{i:02}", z=lambda i, old: "n/a" if i == 4 else i * i), "csv"), STAR, n=2 * N,
      x=2 * X,
      left_out=["z"], why="1 of 80 cells is no number, in row 5 of b.csv, form a/a")
right("decimal commas", text(z=lambda i, old: f"{i},5"), STAR, left_out=["z"],
      why="40 of 40 cells are no numbers, the first in row 1 of o.csv, form 9,9; "
      "number_format 'de' reads all")
right("a column of text", text(z=lambda i, old: "web"), STAR, left_out=["z"], why="text")
right("a column of text in Parquet", {"o.parquet": parquet(z=lambda i, old: "web")}, STAR, left_out=["z"],
      why="text")
right("a column of times in Parquet", {"o.parquet": parquet(z=lambda i, old: DAY)}, STAR, left_out=["z"],
      why="times")
right("a column without values", text(z=lambda i, old: ""), STAR, left_out=["z"], why="no row has a value")
right("a column of one file alone", halves(parquet(half(0, z=lambda i, old: i * i)), parquet(half(1))), STAR,
      left_out=["z"], why="not all files have it")
right("nothing that the map names is listed", text(z=lambda i, old: "web"))

KINDS.append("partitions, names, files and row groups without rows")

right("row groups without rows", {"o.parquet": zlib.decompress(base64.b85decode(EMPTY_GROUPS))}, n=6, x=22.5)
right("a Parquet file without rows among others", halves(parquet(), parquet(ROWS.clear())))
right("a CSV without rows among others", halves(text(), b"id,name,y,at,x\n", "csv"))
right("a part without rows and of another type",
      halves(parquet(), parquet(ROWS.clear().with_columns(x=pl.lit("a")))))
right("JSON lines without a line among others", halves(b"".join(jsonl()), b"", "jsonl"))
refused("no rows at all", halves(parquet(ROWS.clear()), parquet(ROWS.clear())), "a.parquet has no rows",
        rejects=())
PARTS = {"month=2025-01/a.parquet": parquet(half(0)), "month=2025-02/b.parquet": parquet(half(1))}
right("a folder of partitions", PARTS, ends=SOON)
right("one partition", PARTS, items=("month=2025-01",), n=20, x=sum(ROWS["x"][:20]))
right("a pattern of partitions", PARTS, items=("month=2025-0*",))
right("a pattern of their files", PARTS, items=("month=*/*.parquet",))
right("a region of a partition", PARTS, {"segment": "region"}, items=("EU=month=2025-01", "NA=month=2025-02"))
right("blanks and brackets in a name", {"orders (1) [x].csv": text()}, items=("orders (1) [x].csv",))
right("blanks in the name of a column", text().replace(b"name", b"full name", 1), {"text": ["full name"]},
      name="Ana Berg 1")
refused("blanks around the name of a column", text().replace(b"name", b" name", 1), "did you mean ' name'?")
right("names of an Enum that differ between files", halves(
    parquet(half(0).cast({"name": pl.Enum(ROWS["name"])})), parquet(half(1).cast({"name": pl.Categorical}))),
    name="Ana Berg 1")

KINDS.append("ids and entities that stand for nobody")

for blank in ("", " ", "\t"):
    right(f"a blank entity: {blank!r}",
          {"o.parquet": parquet(customer=lambda i, old, b=blank: b if i % 2 else f"c{i}")},
          ENTITY, warned=["20 rows have no 'customer' and are kept, each as a first order"])
    right(f"a blank id: {blank!r}",
          {"o.parquet": parquet(id=lambda i, old, b=blank: b if i % 4 == 3 else old)},
          kept=30, dropped={"no id": 10}, x=sum(x for i, x in enumerate(ROWS["x"]) if i % 4 != 3))
for nobody in ("0", "null", "unknown", "guest", "GUEST ", "N/A", "-1"):
    right(f"one entity of most rows: {nobody!r}",
          text(customer=lambda i, old, n=nobody: n if i > 3 else f"c{i}"),
          ENTITY, kept=5, dropped={"the entity has an earlier order": 35}, x=sum(ROWS["x"][:5]),
          warned=["one entity"])
right("guests of two rows", text(customer=lambda i, old: "guest" if i < 2 else f"c{i}"), ENTITY, kept=39,
      dropped={"the entity has an earlier order": 1}, x=X - 1.5, warned=["one entity"],
      warning="2 of 40 rows have one entity, the 'customer' 'guest', and only the first of them is kept: if "
      "it stands for nobody, leave the cell empty")
right("a customer of many rows", text(customer=lambda i, old: "Zoe Quux" if i < 12 else f"c{i}"), ENTITY,
      kept=29,
      dropped={"the entity has an earlier order": 11}, x=X - sum(ROWS["x"][1:12]), warned=["one entity"],
      warning="12 of 40 rows have one entity, the 'customer' of the shape 'Aaa Aaaa', and only the first of "
      "them is kept: if it stands for nobody, leave the cell empty")
right("customers of three rows", text(customer=lambda i, old: f"c{i // 3}"), ENTITY, kept=14,
      dropped={"the entity has an earlier order": 26}, x=sum(ROWS["x"][::3]))
right("one id of many rows", text(id=lambda i, old: "unknown" if i > 29 else old), kept=31,
      dropped={"an earlier row has the same id": 9}, x=sum(ROWS["x"][:31]), warned=["one id"])

# fmt: on

# ---- what must come of them


@pytest.mark.parametrize("name", CASES)
def test_every_record_is_right_or_refused_or_rejected(name, tmp_path, monkeypatch, tally):
    case = CASES[name]
    for file, content in case.files.items():
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_bytes(content)
    monkeypatch.chdir(tmp_path)
    column_map = ColumnMap(**{**MAP, **case.columns})
    if isinstance(case.expected, str):
        with pytest.raises(ValueError) as error:
            trained(case.items, column_map)
        assert case.expected in str(error.value)
    else:
        figures = found(*trained(case.items, column_map))
        assert {key: figures[key] for key in case.expected} == case.expected
    scored_as_trained(case, column_map)
    tally(PROMISE, f"{case.kind}: right, refused or warned of")


def trained(items: tuple[str, ...], column_map: ColumnMap) -> tuple[Source, Prepared]:
    source = scan(items, column_map)
    with source.reading():
        prepared = prepare(source.frame, column_map, PrepareConfig(train=1, val=0, test=0), source.n_rows)
    steps = prepared.report.steps
    assert source.n_rows == steps["rows_in"][0] == steps["rows_dropped"].sum() + len(prepared.splits["train"])
    return source, prepared


def scored_as_trained(case: Case, column_map: ColumnMap) -> None:
    """Scoring reads the rows that training reads, and lists those for which training refuses the files."""
    inputs = Inputs(column_map.id, column_map.text, ["x"], [])
    if case.rejects is None:
        with pytest.raises(ValueError):
            list(read_chunks(next(iter(find_files(case.items))), inputs))
        return
    chunks = [
        chunk for path in find_files(case.items) if path.stat().st_size for chunk in read_chunks(path, inputs)
    ]
    assert [(reject.row, reject.reason) for chunk in chunks for reject in chunk.rejects] == list(case.rejects)
    rows = pl.concat(chunk.frame for chunk in chunks).select(pl.col(column_map.id).cast(pl.String), "x")
    assert sum(chunk.n_rows for chunk in chunks) == rows.height + len(case.rejects)
    if isinstance(case.expected, Mapping):
        read = (
            scan(case.items, column_map)
            .frame.select(pl.col(column_map.id), pl.col("x").cast(pl.Float32))
            .collect()
        )
        assert rows.rows() == read.rows()


# ---- beside Python's own reader

PIECES = ["a", "bc", ",", '"', '""', "\n", "\r\n", " ", ";", "\t", "é", "\\", '","', '"\n"', "x,y\n"]


@given(content=st.lists(st.sampled_from(PIECES), max_size=40).map("".join))
def test_whatever_pythons_strict_reader_reads_is_read_alike(content, tally):
    """Its records of two cells, in order, are ours; others are lost, each with its row."""
    content = f"x,y\n{content}"
    try:
        expected = [row for row in csv.reader(io.StringIO(content, newline=""), strict=True) if row][1:]
    except csv.Error:
        return
    if '\\"' in content:  # which is refused by its name where it might be another dialect
        return
    split = records(io.BytesIO(content.encode()), b",", 1 << 24)
    batch = Table(next(split), b",").read(list(split), ["x", "y"])
    wrong = [i for i, row in enumerate(expected, start=1) if len(row) != 2 or row == ["x", "y"]]
    assert [row for row, _ in batch.lost] == wrong
    tally(PROMISE, "random CSV that Python's csv module reads too: the same records")
    kept = [row for i, row in enumerate(expected, start=1) if i not in wrong]
    assert [[cell or "" for cell in row] for row in batch.frame.rows()] == kept


CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\0"), max_size=8)


@given(
    rows=st.lists(st.tuples(CELLS, CELLS, st.floats(allow_nan=False, width=32)), min_size=1, max_size=8),
    sep=st.sampled_from(",;\t|"),
    end=st.sampled_from(["\n", "\r\n"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
)
def test_the_same_rows_in_every_format_and_dialect_are_the_same(rows, sep, end, quoting, tmp_path, tally):
    frame = pl.DataFrame(rows, {"id": pl.String, "name": pl.String, "x": pl.Float64}, orient="row")
    texts = io.StringIO(newline="")
    csv.writer(texts, delimiter=sep, lineterminator=end, quoting=quoting).writerows(
        [frame.columns, *frame.rows()]
    )
    (tmp_path / "o.csv").write_text(texts.getvalue(), encoding="utf-8", newline="")
    (tmp_path / "o.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in frame.to_dicts()))
    frame.write_parquet(tmp_path / "o.parquet")
    inputs = Inputs("id", ["name"], ["x"], [])
    read = {}
    for kind in ("csv", "jsonl", "parquet"):
        chunks = list(read_chunks(Path(tmp_path / f"o.{kind}"), inputs, size=3))
        rejects = [reject.reason for chunk in chunks for reject in chunk.rejects]
        assert rejects == [] or (kind == "csv" and set(rejects) <= {ESCAPED, REPEATED})
        if not rejects:  # an unquoted empty cell of CSV is null
            read[kind] = pl.concat(chunk.frame for chunk in chunks).fill_null("").rows()
    assert read["parquet"] == read["jsonl"] == read.get("csv", read["jsonl"])
    tally(PROMISE, "random tables in every format and dialect: the same rows")


def test_the_table_is_large():
    assert len(CASES) >= 130 and min(sum(c.kind == kind for c in CASES.values()) for kind in KINDS) >= 10
