"""Hostile input: whatever is handed over, a score, a row refused with its reason, or one message comes back.

Each case does what a user or an attacker may do and says what must come of it: the words of the message, or
what is given. NAME stands in the data, and in no message. A case's name begins with its kind of fault; the
first of each fault of a reader is tried in `make test`, and all of them in `make torture`.
"""

import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from datetime import date, timedelta
from decimal import Decimal
from functools import cache, partial
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from n3r import cli, pipeline, tables
from n3r.bundle import Bundle
from n3r.custom_transformer.corpus import find_documents
from n3r.custom_transformer.language_model import LanguageModelConfig
from n3r.evaluation.evaluate import EvaluationConfig, evaluate_model
from n3r.evaluation.scored import read_scored
from n3r.features import FeatureConfig
from n3r.files.manifest import MANIFEST, write_manifest
from n3r.legacy.layouts import import_legacy
from n3r.legacy.models import LegacyLSTM2Risk, LegacyLSTMConfig
from n3r.precomputed import read_precomputed
from n3r.preprocess import PrepareConfig, prepare
from n3r.schema import LABEL, OWN, ROW, ColumnMap
from n3r.score import Scorer
from n3r.score_files import REJECTS, score_files
from n3r.tokenizer import TextConfig, load_tokenizer
from n3r.train import TrainConfig
from n3r.vocabulary import TokenizerConfig

PROMISE = "hostile input"
KINDS = {"files", "columns", "values", "configs", "parameters", "bundles", "tokenizers"}
NAME = "Zebedee Quux"  # a person's, in the bad data
MAX_MESSAGE = 2000
SECONDS = 30  # for a case; a hang is a failure
NAN = float("nan")
DEEP = "[" * 100_000
MAP = {
    "id": "id",
    "text": ["name"],
    "label": "fraud",
    "label_values": {"0": 0, "1": 1},
    "time": "when",
    "numeric": ["amount"],
}
Act = Callable[[Path, Any], Any]


class Case(NamedTuple):
    """Something bad, what is done with it, and what must come of it."""

    kind: str
    reader: str
    name: str  # "fault: what exactly"
    act: Act  # of an empty folder and the small bundle
    says: tuple[str, ...] = ()  # words of the message; none: it is no error
    gives: Any = None  # what is handed back


CASES: list[Case] = []


def refused(
    kind: str, reader: str, rows: dict[str, tuple], act: Callable | None = None, *always: str
) -> None:
    """Cases that end in a message: name -> an act, or what `act` makes one of, and words of the message."""
    for name, (made, *says) in rows.items():
        CASES.append(Case(kind, reader, name, _act(act, made), (*always, *says)))


def handled(kind: str, reader: str, rows: dict[str, tuple], act: Callable | None = None) -> None:
    """Cases that are no error: name -> an act, or what `act` makes one of, and what is given."""
    for name, (made, gives) in rows.items():
        CASES.append(Case(kind, reader, name, _act(act, made), gives=gives))


def _act(act: Callable | None, made: Any) -> Act:
    if act is None:
        return made
    return act(*made) if isinstance(made, tuple) else act(made)


# ---- acts ----


def call(function: Callable, *arguments: Any, **named: Any) -> Act:
    """Call something that needs neither the folder nor the bundle."""
    return lambda place, small: function(*arguments, **named)


def put(path: Path, content: Any) -> Path:
    """Write a file: text, bytes, a table as Parquet, anything else as JSON."""
    if isinstance(content, pl.DataFrame):
        content.write_parquet(path)
        return path
    text = content if isinstance(content, str | bytes) else json.dumps(content)
    path.write_bytes(text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text)
    return path


def putting(name: str, content: Any) -> Act:
    """Write a file; its path."""
    return lambda place, small: put(place / name, content)


def reading(read: Callable[[Path], Any], name: str) -> Callable[..., Act]:
    """What makes acts of contents: write one under this name, or another, and read it."""
    return lambda content, name=name: lambda place, small: read(put(place / name, content))


def at(name: str, make: Callable | None = None, read: Callable[[Path], Any] | None = None) -> Act:
    """Make something that is no file, and read or score it."""

    def act(place: Path, small) -> Any:
        if make:
            make(place / name)
        return read(place / name) if read else score(small, place / name)

    return act


def link(to: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(to)


# ---- orders to score ----


@cache
def scorer_of(folder: Path) -> Scorer:
    return Scorer(folder, threads=1)


def score(small, *paths: Path, to: Path | None = None, **options: Any) -> str:
    """Score files with bad rows skipped; how many were scored and why the others were not."""
    output = to or paths[0].parent / "scores.csv"
    files = list(map(str, paths))
    counts = score_files(scorer_of(small.folder), files, output, skip=True, progress=False, **options)
    assert counts.read == counts.scored + counts.rejected
    found = pl.read_csv(output, schema_overrides={"objectId": pl.String})
    assert found.height == counts.scored and found["score"].is_between(0, 1).all()
    rejects = output.with_name(f"{output.stem}.rejects.csv")
    reasons = pl.read_csv(rejects, schema=REJECTS) if rejects.exists() else pl.DataFrame(schema=REJECTS)
    assert reasons.height == counts.rejected and reasons["reason"].str.len_chars().gt(0).all()
    told = reasons.select(pl.concat_str("column", "reason", separator=" ", ignore_nulls=True)).to_series()
    assert NAME not in str(told.to_list())
    return "; ".join([f"{counts.scored} scored, {counts.rejected} rejected", *sorted(set(told))])


def joined(small, parts: tuple) -> bytes:
    """The parts in a row; a function of the bundle is asked for its part."""
    texts = [part(small) if callable(part) else part for part in parts]
    return b"".join(text if isinstance(text, bytes) else text.encode() for text in texts)


def scored(*parts: Any, name: str = "orders.csv") -> Act:
    """Score a file of these parts."""
    return lambda place, small: score(small, put(place / name, joined(small, parts)))


def scored_to(to: str, make: Callable[[Path], Any] | None = None, **options: Any) -> Act:
    """Score o.csv into this path, where something may be already."""

    def act(place: Path, small) -> str:
        put(place / "o.csv", joined(small, (head(), row())))
        if make:
            make(place / to)
        return score(small, place / "o.csv", to=place / to, **options)

    return act


def head(old: str = "", new: str = "") -> Callable[[Any], str]:
    """The header of orders, changed."""
    return lambda small: ",".join(scorer_of(small.folder).inputs.names).replace(old, new) + "\n"


def row(
    key: str = "1", name: str = NAME, amount: str = "5", end: str = "\n", codec: str = "utf-8"
) -> Callable[[Any], bytes]:
    """A row with the columns of `head`; all but three cells are empty."""

    def text(small) -> bytes:
        names = scorer_of(small.folder).inputs.names
        errors = "surrogatepass" if codec == "utf-8" else "strict"
        cells = dict.fromkeys(names, "") | {names[0]: key, "customerName": name, "orderAmount": amount}
        return (",".join(cells.values()) + end).encode(codec, errors)

    return text


def an_order(small, **changes: Any) -> dict[str, Any]:
    names = scorer_of(small.folder).inputs.names
    return {**dict.fromkeys(names), "objectId": "1", "customerName": NAME, "orderAmount": 5.0, **changes}


def order(old: str = "", new: str = "", **changes: Any) -> Callable[[Any], str]:
    """An order as a line of JSON, changed."""
    return lambda small: json.dumps(an_order(small, **changes)).replace(old, new) + "\n"


def encoded(codec: str, *parts: Any) -> Callable[[Any], bytes]:
    return lambda small: joined(small, parts).decode().encode(codec)


def zipped(*parts: Any, change: Callable[[bytes], bytes] = bytes) -> Callable[[Any], bytes]:
    return lambda small: change(gzip.compress(joined(small, parts)))


def some_orders(small, n: int = 3, **changes: Any) -> pl.DataFrame:
    return small.orders.head(n).with_columns(**changes)


def parquet(change: Callable[[bytes], bytes] = bytes) -> Callable[[Any], bytes]:
    """A Parquet file of some rows, changed."""

    def content(small) -> bytes:
        out = BytesIO()
        some_orders(small, 300).write_parquet(out, compression="uncompressed")
        return change(out.getvalue())

    return content


def scored_frame(changes: dict[str, Any]) -> Act:
    """Score three orders with other columns from Parquet."""
    return lambda place, small: score(small, put(place / "orders.parquet", some_orders(small, **changes)))


def one(changes: dict[str, Any]) -> Act:
    """Score one order given as a dict."""
    return lambda place, small: round(scorer_of(small.folder).score_one(an_order(small, **changes)), 4)


def same_as(changes: dict[str, Any]) -> Callable[[Any], float]:
    return lambda small: one(changes)(None, small)


def asked(method: str, *arguments: Any) -> Act:
    """Ask the scorer; a function of the bundle is asked for its argument."""

    def act(place: Path, small) -> Any:
        values = [value(small) if callable(value) else value for value in arguments]
        return getattr(scorer_of(small.folder), method)(*values)

    return act


# ---- orders to train on ----


def column_map(**changes: Any) -> ColumnMap:
    return ColumnMap(**{**MAP, **changes})


def raw(n: int = 60, **changes: Any) -> pl.DataFrame:
    """Orders that MAP fits, a third of them fraud."""
    columns = {
        "id": [str(i) for i in range(n)],
        "name": [NAME] * n,
        "fraud": ["0", "1", "0"] * (n // 3),
        "when": [f"2024-01-{i % 28 + 1:02}" for i in range(n)],
        "amount": [float(i) for i in range(n)],
    }
    return pl.DataFrame(columns).with_columns(**changes)


def prepared(changes: dict[str, Any], map_changes: dict | None = None, config: dict | None = None) -> Act:
    """Prepare orders with other columns; how many rows are kept, and what was dropped for what."""

    def act(place: Path, small) -> str:
        frame = raw(**changes)
        found = prepare(frame.lazy(), column_map(**map_changes or {}), PrepareConfig(**config or {}))
        steps = found.report.steps.filter(pl.col("rows_dropped") > 0)
        kept = sum(split.height for split in found.splits.values())
        assert kept + steps["rows_dropped"].sum() == frame.height
        dropped = [f"{n} {why}" for why, n in steps.select("reason", "rows_dropped").iter_rows()]
        return "; ".join([f"{kept} kept", *dropped])

    return act


def renamed(names: dict[str, str], map_changes: dict[str, Any]) -> Act:
    """Prepare orders whose columns have other names; the rows to train on."""
    return lambda *_: len(prepare(raw().rename(names).lazy(), column_map(**map_changes)).splits["train"])


def scanned(content: Any, name: str = "orders.csv") -> Act:
    """Scan a raw file and collect it."""

    def act(place: Path, small) -> pl.DataFrame:
        source = tables.scan(put(place / name, joined(small, (content,))), column_map())
        with source.reading():
            return source.frame.collect()

    return act


RAW = "id,name,fraud,when,amount"
RAW_ROW = f"1,{NAME},0,2024-01-01,5"

# ---- scores, prose, parameters ----


def scores_read(content: str | dict[str, list]) -> Act:
    """Read scores from CSV, JSON lines, or Parquet of such columns; how many rows there are."""
    kind = "parquet" if isinstance(content, dict) else "jsonl" if content.startswith("{") else "csv"
    table = pl.DataFrame({"id": ["1"], "score": [0.5], **content}) if kind == "parquet" else content
    return lambda place, small: read_scored(put(place / f"scores.{kind}", table)).height


def documents_of(path: Path | str) -> dict[str, int]:
    """How many documents each split of a text has."""
    return {split: len(texts) for split, texts in find_documents(str(path), "name").items()}


prose = reading(documents_of, "prose.txt")


def parameters(*texts: str) -> Act:
    """What step 03 gets for its epochs and rate."""

    def act(place: Path, small) -> dict[str, Any]:
        found = pipeline.resolve_parameters("quick", {}, list(texts))["03_train_lstm2risk"]
        return {key: found[key] for key in ("epochs", "lr")}

    return act


# ---- bundles and tokenizers ----


def bundle_with(small, place: Path, **files: Any) -> Path:
    """A copy of the bundle with other files and a manifest that fits them: not damaged but hostile.

    Content is text, bytes, or a function that changes what the JSON says.
    """
    folder = shutil.copytree(small.folder, place / "bundle")
    for name, content in files.items():
        path = folder / name.replace("__", ".")
        if callable(content):
            found = json.loads(path.read_text())
            content = json.dumps(found if (made := content(found)) is None else made)
        put(path, content)
    (folder / MANIFEST).unlink()
    write_manifest(folder)
    return folder


def used(use: Callable[[Path, Any], Any], file: str) -> Callable[[Any], Act]:
    """What makes acts of contents of a bundle's file: use a bundle with it."""
    return lambda content: lambda place, small: use(bundle_with(small, place, **{file: content}), small)


def serve(folder: Path, small) -> int:
    return Scorer(folder, 1).score(some_orders(small)).height


def encode(folder: Path, small) -> int:
    return len(load_tokenizer(folder).encode([[NAME]]))


def loaded(file: str, content: Any) -> Act:
    """Load a bundle with such a file for training's use."""
    return lambda place, small: Bundle.load(bundle_with(small, place, **{file: content}))


def setting(*keys: str, to: Any) -> Callable[[Any], None]:
    """Put a value at a place of a JSON object; "*" is its first key."""

    def change(content: Any) -> None:
        for key in keys[:-1]:
            content = content[next(iter(content)) if key == "*" else key]
        content[next(iter(content)) if keys[-1] == "*" else keys[-1]] = to

    return change


def graph(inputs: dict[str, int], output: str = "probs", values: Any = None, columns: int = 2) -> bytes:
    """An ONNX graph that reads these inputs (name -> type) and gives constant probabilities for each row."""
    nodes = [
        helper.make_node("Shape", [next(iter(inputs))], ["shape"], start=0, end=1),
        helper.make_node("Concat", ["shape", "n"], ["size"], axis=0),
        helper.make_node("Expand", ["row", "size"], [output]),
    ]
    fixed = [
        helper.make_tensor("n", TensorProto.INT64, [1], [columns]),
        helper.make_tensor("row", TensorProto.FLOAT, [1, columns], values or [1 / columns] * columns),
    ]
    reads = [helper.make_tensor_value_info(name, kind, [None, None]) for name, kind in inputs.items()]
    gives = [helper.make_tensor_value_info(output, TensorProto.FLOAT, [None, columns])]
    body = helper.make_graph(nodes, "hostile", reads, gives, fixed)
    made = helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)])
    made.ir_version = 8
    return made.SerializeToString()


def imported(name: str, content: Any) -> Act:
    """Take over legacy weights (m.pt), tokenizer (t.json) and features (f.json), one of them hostile."""

    def act(place: Path, small) -> Any:
        config = LegacyLSTMConfig(n_embed=small.bundle.tokenizer.vocab_size, n_tab_features=1, hidden_size=4)
        torch.save(LegacyLSTM2Risk(config).state_dict(), place / "m.pt")
        shutil.copy(small.folder / "tokenizer.json", place / "t.json")
        put(place / "f.json", ["amount"])
        put(place / name, content)
        return import_legacy(place / "m.pt", "lstm2risk", place / "t.json", place / "f.json", column_map())

    return act


def there(place: Path, small) -> Path:
    return place


def command(*arguments: Any) -> Act:
    """Run `n3r` in this process; a mistake (exit status 2, one message) is raised as a ValueError.

    A function of the folder and the bundle is asked for its argument.
    """

    def act(place: Path, small) -> str:
        out, err, before = StringIO(), StringIO(), sys.argv
        sys.argv = ["n3r", *(str(a(place, small) if callable(a) else a) for a in arguments)]
        try:
            with redirect_stdout(out), redirect_stderr(err):
                cli.main()
        except SystemExit as end:
            said = err.getvalue()
            assert "Traceback" not in said and "\x1b" not in said
            if end.code == 2:
                raise ValueError(said) from None
            assert end.code == 0, said
        finally:
            sys.argv = before
        return out.getvalue()

    return act


# fmt: off
# ---- files ----

IS_READ, ALL_READ, NONE_READ = "1 scored, 0 rejected", "3 scored, 0 rejected", "0 scored, 0 rejected"
TOO_LONG = "is longer than 16777216 bytes, or a quote is open"
CUT_OPEN = f"1 scored, 20001 rejected; has 1 cells, the header 46; has 43 cells, the header 46; {TOO_LONG}"
NO_FILE, NO_JSON = "no file, folder or pattern", "cannot be read as JSON"
BRACKETS = f"{NO_JSON}: too many brackets"
NEVER_CLOSED = "a quote is opened and never closed"
AFTER_QUOTE = "a quoted cell goes on after its closing quote"
ONE_OF_TWO = "1 scored, 1 rejected; "
TWO_CELLS = ONE_OF_TWO + "has 2 cells, the header 46"
NO_UTF8 = "customerName is not UTF-8 text"
NO_OBJECT = "0 scored, 1 rejected; is not a JSON object"
A_LIST = "is a list or an object"

refused("files", "CSV", {
    "empty: a file": (b"", "is empty"),
    "empty: blank lines alone": (b"\n\r\n\n", "is empty"),
    "empty: one NUL byte": (b"\0", "'objectId' is missing"),
    "encoding: UTF-16": (encoded("utf-16", head(), row()), "orders.csv is UTF-16 text"),
    "encoding: UTF-16 without a mark": (encoded("utf-16-le", head(), row()), "orders.csv is UTF-16 text"),
    "encoding: a header in latin-1": (("Größe,".encode("latin-1"), head(), row()), "not UTF-8"),
    "missing: a column": ((head("customerName", "custmerName"), row()), "(did you mean 'custmerName'?)"),
    "missing: a column in another case": ((head("customerName", "CUSTOMERNAME"), row()), "'CUSTOMERNAME'?"),
    "missing: blanks around a column": ((head("customerName", " customerName "), row()), "' customerName '?"),
    "missing: all but a person": (f"1,{NAME}\n2,{NAME}\n", "is missing"),
    "missing: all of 10,000": (",".join(f"x{i}" for i in range(10_000)), "(10000 columns) does not fit"),
    "twice: a column": (("customerName,", head(), row()), "orders.csv has 1 column names twice"),
}, scored, "orders.csv")
handled("files", "rows of CSV", {
    "empty: a header alone": (head(), NONE_READ),
    "empty: a header without a line end": (lambda small: head()(small)[:-1], NONE_READ),
    "encoding: latin-1": ((head(), row(), row(name="Zoé", codec="latin-1")), ONE_OF_TWO + NO_UTF8),
    "encoding: a byte order mark": ((b"\xef\xbb\xbf", head(), row()), IS_READ),
    "missing: semicolons separate": (lambda s: joined(s, (head(), row())).replace(b",", b";"), IS_READ),
    "missing: LF at line ends": (lambda s: joined(s, (head(), row())).replace(b"\n", b"\r"), IS_READ),
    "encoding: NUL bytes in a name": ((head(), row(name="Zoe\0\0")), IS_READ),
    "damaged: too few cells": ((head(), f"1,{NAME}\n", row()), TWO_CELLS),
    "damaged: too many": ((head(), row(end=f",{NAME}\n"), row()), f"{ONE_OF_TWO}has 47 cells, the header 46"),
    "damaged: a quote never closed": ((head(), row(name=f'"{NAME}'), row()), ONE_OF_TWO + NEVER_CLOSED),
    "damaged: text behind a quote": ((head(), row(name=f'"{NAME}"x'), row()), ONE_OF_TWO + AFTER_QUOTE),
    "damaged: a quote within a cell is itself": ((head(), row(name='Zoe "Z" Quux')), IS_READ),
    "damaged: line ends mixed": ((head(), row(end="\r\n"), row()), "2 scored, 0 rejected"),
    "range: 20 MB": ((head(), row(name="x" * 20_000_000), row()), ONE_OF_TWO + TOO_LONG),
    "range: 20 MB in a quote": ((head(), row(), row(name='"' + ("x" * 1000 + "\n") * 20_000)), CUT_OPEN),
}, scored)
TABBED = (lambda small: joined(small, (head(), row())).replace(b",", b"\t"),)
handled("files", "names of files", {
    "path: the separator of TSV": ((*TABBED, "orders.tsv"), IS_READ),
    "path: a line end and quotes": ((head(), row(), "or\"d\ners'.csv"), IS_READ),
    "path: not UTF-8": ((head(), f"1,{NAME}\n", row(), os.fsdecode(b"o\xff.csv")), TWO_CELLS),
}, lambda *parts: scored(*parts[:-1], name=parts[-1]))
refused("files", "gzip", {
    "damaged: none": ((head(), row()),),
    "damaged: cut short": (zipped(head(), *[row()] * 2000, change=lambda b: b[:-400]),),
    "damaged: a wrong checksum": (zipped(head(), row(), change=lambda b: b[:-8] + b"\1" * 8),),
    "damaged: a tail of something else": ((zipped(head(), row()), b"tail"),),
}, partial(scored, name="orders.csv.gz"), "orders.csv.gz cannot be read as csv")
handled("files", "gzip", {
    "damaged: not by a second member": ((zipped(head(), row()), zipped(row())), "2 scored, 0 rejected"),
}, partial(scored, name="orders.csv.gz"))
refused("files", "Parquet", {
    "empty: 0 bytes": (b"",),
    "damaged: CSV": ((head(), row()),),
    "damaged: without its footer": (parquet(lambda whole: whole[:-200]),),
    "damaged: a footer of a wrong length": (parquet(lambda whole: whole[:-8] + b"\xff\xff\xff\x7fPAR1"),),
    "damaged: a footer of zeros": (parquet(lambda whole: whole[:-2000] + b"\0" * 1992 + whole[-8:]),),
}, partial(scored, name="orders.parquet"), "orders.parquet cannot be read")
handled("files", "JSON lines", {
    "damaged: none": ((order(), f'{{"{NAME}\n'), "1 scored, 1 rejected; is not JSON"),
    "damaged: other values": (f'[]\n5\nnull\n\n"{NAME}"\n', "0 scored, 4 rejected; is not a JSON object"),
    "damaged: 100,000 brackets": ((order(), f"{DEEP}\n"), "1 scored, 1 rejected; is not JSON"),
    "damaged: 100,000 objects": ('{"a":' * 100_000, "0 scored, 1 rejected; is not JSON"),
    "range: NaN": (order("5.0", "NaN"), IS_READ),
    "range: an integer of 5,000 digits": (order("5.0", "9" * 5000), IS_READ),
    "twice: a key": (order("{", '{"customerName": [],'), "0 scored, 1 rejected; gives a key twice"),
    "encoding: half a character": (order(customerName="\ud800"), IS_READ),
    "encoding: no UTF-8": (b'{"customerName": "\xff"}', "0 scored, 1 rejected; is not UTF-8 text"),
    "type: a list for a name": (order(customerName=[NAME]), f"0 scored, 1 rejected; customerName {A_LIST}"),
}, partial(scored, name="o.jsonl"))
refused("files", "no file to score", {
    "path: a pipe that nobody writes to": (("o.csv", os.mkfifo), NO_FILE, "o.csv"),
    "path: a link to nothing": (("o.csv", link("nowhere")), NO_FILE, "o.csv"),
    "path: a device without an end": (("o.csv", link("/dev/zero")), NO_FILE, "o.csv"),
    "path: a folder": (("orders.csv", Path.mkdir), "orders.csv holds no file"),
    "path: another ending": (("orders.xlsx", Path.touch), "orders.xlsx: the name must end in"),
    "path: nothing that a pattern fits": ("*.csv", NO_FILE),
}, at)
refused("files", "a pipe", {
    "path: for a column map": (("m.json", ColumnMap.from_file), f"m.json {NO_JSON}", "not a file"),
    "path: for scores": (("s.csv", read_scored), "no file", "s.csv"),
    "path: for precomputed values": (("p.json", read_precomputed), "p.json", "no such file"),
    "path: for a language model's config": (("c.json", LanguageModelConfig.from_file), "no config", "c.json"),
    "path: for a tokenizer": (("tokenizer.json", lambda path: load_tokenizer(path.parent)), "02_tokenizer"),
}, lambda name, read: at(name, os.mkfifo, read))
refused("files", "output", {
    "twice: the input": ("o.csv", "would replace the input"),
    "twice: a link to the input": (("s.csv", link("o.csv")), "would replace the input"),
    "path: below a file": ("o.csv/s.csv", "cannot write s.csv into"),
    "path: a name too long": (f"{'s' * 300}.csv", "cannot write", "File name too long"),
}, scored_to)
handled("files", "output", {"path: a link to itself": (("s.csv", link("s.csv")), IS_READ)}, scored_to)
refused("files", "raw files", {
    "damaged: an open quote": (f'{RAW}\n1,"{NAME},0,2024-01-01,5\n2,x,0,2024-01-01,5\n', "orders.csv"),
    "encoding: UTF-16": (f"{RAW}\n{RAW_ROW}\n".encode("utf-16"), "orders.csv"),
    "unknown: an unused pattern": (f"{RAW},^.*$\n{RAW_ROW},6\n", "orders.csv", "pattern"),
    "unknown: an unused name of n3r's own": (f"{RAW},{ROW}\n{RAW_ROW},6\n", "orders.csv", ROW),
    "type: text for a number": (f"{RAW}\n2,x,0,2024-01-01,{NAME}\n", "row 1, column 'amount': is no"),
    "damaged: one JSON array": (("[\n{}]", "orders.jsonl"), "orders.jsonl is a JSON array"),
    "empty: JSON lines": (("{}", "orders.jsonl"), "orders.jsonl, row 1: is an object without keys"),
    "path: Parquet, not UTF-8": ((parquet(), os.fsdecode(b"o\xff.parquet")), ".parquet", "UTF-8"),
    "damaged: Parquet": ((parquet(lambda whole: whole[:-100]), "o.parquet"), "o.parquet cannot be read"),
}, scanned)
for what, read in {"orders": lambda path: tables.scan(path, column_map()), "prose": documents_of}.items():
    refused("files", f"where {what} are not", {
        "path: a name too long": ("o" * 300, "ooo"),
        "path: the home of nobody": ("~nobody-of-this-name/o.csv", "~nobody"),
        "path: NUL in its name": ("o\0.csv", "o"),
    }, partial(call, read), "no file")

# ---- columns ----

refused("columns", "a frame to score", {
    "type: a list": ({"customerName": pl.concat_list(pl.lit(NAME))}, "'customerName' is List, expected text"),
    "type: a struct": ({"customerName": pl.struct(pl.lit(1).alias(NAME))}, "is Struct, expected text"),
    "type: bytes": ({"customerName": pl.lit(NAME.encode())}, "'customerName' is Binary, expected text"),
    "type: a duration": ({"orderAmount": pl.lit(timedelta(1))}, "is Duration, expected text, a number"),
}, scored_frame)
handled("columns", "a frame to score", {
    "empty: text": ({"customerName": pl.lit(None)}, ALL_READ),
    "empty: ids": ({"objectId": pl.lit(None, pl.String)}, ALL_READ),
    "twice: ids": ({"objectId": pl.lit("a")}, ALL_READ),
    "type: numbers for text": ({"customerName": pl.lit(5)}, ALL_READ),
    "type: a decimal": ({"orderAmount": pl.lit(Decimal("1.5"))}, ALL_READ),
    "type: a number of 128 bits": ({"orderAmount": pl.lit(2**100, dtype=pl.Int128)}, ALL_READ),
}, scored_frame)
refused("columns", "the scorer", {
    "empty: a frame": (("score", pl.DataFrame()), "'objectId' is missing"),
    "missing: a column": (("score_one", {"customerName": NAME}), "the row (1 columns)", "is missing"),
    "type: no order": (("score_one", None), "expected a row as a dict", "NoneType"),
    "type: keys that are no text": (("score_one", {1: NAME, None: 2}), "the row (0 columns)", "is missing"),
    "range: a class that there is not": (("explain_one", an_order, 2), "of_class", "0 to 1"),
    "unknown: an output": (("score_one", an_order, "nope"), "gives no 'nope'", "p_calibrated"),
}, asked)
refused("columns", "raw orders", {
    "type: text for a number": ({"amount": pl.lit(NAME)}, "'amount' (numeric) is String, expected a number"),
    "type: bytes": ({"name": pl.lit(NAME.encode())}, "'name' (text) is Binary, expected text"),
    "type: a list for a label": ({"fraud": pl.concat_list(pl.lit("0"))}, "'fraud' (label) is List"),
    "type: a number for a time": ({"when": pl.lit(5)}, "'when' (time) is Int32, expected a date"),
    "type: a list": (({"g": pl.concat_list(pl.lit(NAME))}, {"groups": ["g"]}), "'g' (groups) is List"),
}, prepared)
handled("columns", "raw orders", {
    "empty: text": ({"name": pl.lit(None, pl.String)}, "60 kept"),
    "empty: numbers": ({"amount": pl.lit(None)}, "60 kept"),
}, prepared)
refused("columns", "names of columns", {
    "unknown: of n3r's own": (({"amount": ROW}, {"numeric": ["*"]}), f"{ROW!r} begins with {OWN!r}"),
    "unknown: n3r's own for an id": (({"id": LABEL}, {"id": LABEL}), f"{LABEL!r} begins with {OWN!r}"),
    "unknown: a pattern": (({"amount": "^.*$"}, {"numeric": ["*"]}), "'^.*$' (numeric) is a name that"),
}, renamed)
handled("columns", "names of columns", {"empty: one": (({"name": ""}, {"text": [""]}), 42)}, renamed)
refused("columns", "scores", {
    "missing: behind their ids": ("score,id\n0.5,1\n", "scores.csv has no column 'score' beside its id"),
    "type: an id that is a list": ({"id": [[NAME]]}, "'id' is List"),
    "type: a time that is a duration": ({"time": [timedelta(1)]}, "time"),
    "twice: a column": ("id,score,score\n1,0.5,0.6\n", "1 column names twice"),
    "unknown: a pattern": ("^.*$,score\n1,0.5\n", "columns named as a pattern"),
}, scores_read, "scores.")
refused("columns", "prose", {
    "missing: among 10,000": (pl.DataFrame({f"x{i}": [NAME] for i in range(10_000)}), "has no column 'name'"),
    "type: numbers": (pl.DataFrame({"name": [1]}), "Int64, not text"),
}, partial(prose, name="p.parquet"), "p.parquet")

# ---- values ----

NO_NUMBER = "0 scored, 1 rejected; orderAmount is not a number"
handled("values", "a number in CSV", {
    "type: a name": (NAME, NO_NUMBER),
    "type: a comma for a decimal point": ('"1,5"', NO_NUMBER),
    "type: hexadecimal": ("0x10", NO_NUMBER),
    "type: underscores": ("1_000", NO_NUMBER),
    "type: digits of another script": ("١٢", NO_NUMBER),
    "type: NUL": ("\0", NO_NUMBER),
    "type: a right-to-left mark": ("\u200f5", NO_NUMBER),
    "type: a minus sign that is none": ("\u22125", NO_NUMBER),
    "range: NaN": ("nan", IS_READ),
    "range: infinity": ("-inf", IS_READ),
    "range: beyond float64": ("1e400", IS_READ),
    "range: minus nought": ("-0", IS_READ),
    "empty: blanks alone": ("   ", IS_READ),
    "empty: not with blanks around it": (" 5 ", IS_READ),
}, lambda cell: scored(head(), row(amount=cell)))
DAYS = date(2024, 1, 1), np.datetime64("2024-01-01")
for value in ([NAME], {NAME: 1}, {NAME}, NAME.encode(), *DAYS, object(), np.ones(1), 1 + 2j):
    rows = {f"type: {type(value).__name__}": ({"orderAmount": value}, "expected text, a number")}
    refused("values", "one order", rows, one, "'orderAmount' is ")
refused("values", "one order", {
    "type: text for a number": ({"orderAmount": NAME}, "column 'orderAmount' is not a number"),
    "type: a list for a name": ({"customerName": [NAME]}, "'customerName' is List, expected text"),
}, one)
handled("values", "one order", {
    "range: 400 digits are missing": ({"orderAmount": 10**400}, same_as({"orderAmount": None})),
    "range: NaN is missing": ({"orderAmount": NAN}, same_as({"orderAmount": None})),
    "type: a number as text": ({"orderAmount": "5"}, same_as({"orderAmount": 5.0})),
    "encoding: half a character": ({"customerName": "Zoe\ud800"}, same_as({"customerName": "Zoe\ufffd"})),
    "encoding: invisible": ({"customerName": "Ze\u200bbe\u202edee"}, same_as({"customerName": "zebedee"})),
}, one)
handled("values", "one order, other than another", {
    "type: a mark for two texts": (("a|b", "a", "b"), True),
    "type: a special token for none": (("[MISSING]", None, None), True),
    "range: 1 MB of combining marks": (("e" + "\u0301" * 500_000, None, None), True),
}, lambda name, other, holder: lambda *given: one({"customerName": name})(*given) != one(
    {"customerName": other, "paymentAccountHolderName": holder})(*given))
refused("values", "labels", {
    "unknown: a name": ({"fraud": pl.col("name")}, "column 'fraud' (label)", "'Aaaaaaa Aaaa' (60 rows)"),
    "unknown: 1 MB": ({"fraud": pl.lit("x" * 1_000_000)}, "column 'fraud' (label)", "'aaaa"),
    "empty: NaN": ({"fraud": pl.lit(NAN)}, "no rows left after the step 'label' (no label)"),
}, prepared)
NO_TIMES = "60 of 60 rows have no time"
EPOCH = {"time_format": "epoch"}
refused("values", "times", {
    "type: a name": ({"when": pl.col("name")}, "'Aaaaaaa Aaaa'", "set time_format"),
    "type: 1 MB": ({"when": pl.lit("x" * 1_000_000)}, "column 'when' (time)", "'aaaa"),
    "type: a format that fits nothing": (({}, {"time_format": "%Q"}), "no time in the format '%Q'"),
    "range: the 30th of February": ({"when": pl.lit("2024-02-30")}, NO_TIMES),
    "range: the year 0": ({"when": pl.lit("0000-01-01")}, NO_TIMES),
    "range: the first there is": ({"when": pl.lit(-(2**63) + 1).cast(pl.Datetime("us"))}, NO_TIMES),
    "range: in Tokyo, 148108": ({"when": pl.lit(2**62).cast(pl.Datetime("us", "Asia/Tokyo"))}, NO_TIMES),
    "range: the last date there is": ({"when": pl.lit(2**31 - 1, pl.Int32).cast(pl.Date)}, NO_TIMES),
    "range: epoch in milliseconds": (({"when": pl.lit("1700000000000")}, EPOCH), "'9999999999999'"),
    "range: epoch far below 0": (({"when": pl.lit(-(10**12))}, EPOCH), "no time in the format 'epoch'"),
}, prepared)
SOON = {"when": pl.when(pl.col("id") == "7").then(pl.lit("soon")).otherwise("when")}
TWICE = pl.when(pl.col("id").str.len_chars() == 1).then(pl.lit("a")).when(pl.col("id") != "10").then("id")
handled("values", "raw orders", {
    "type: labels as fractions": ({"fraud": pl.Series([0.0, 1.0, None] * 20)}, "40 kept; 20 no label"),
    "type: one time of many": ((SOON, {}, {"max_bad_dates": 0.05}), "59 kept; 1 time missing or unreadable"),
    "range: the last microsecond of 9999": ({"when": pl.lit("9999-12-31T23:59:59.999999")}, "60 kept"),
    "range: epoch a little below 0": (({"when": pl.lit(-5)}, EPOCH), "60 kept"),
    "range: NaN and infinity": ({"amount": pl.Series([NAN, np.inf, -np.inf, 1e39, 1, 2] * 10)}, "60 kept"),
    "twice: ids": ({"id": TWICE}, "50 kept; 1 no id; 9 an earlier row has the same id"),
}, prepared)
refused("values", "scores", {
    "range: infinity": ({"score": [np.inf]}, "scores.parquet: 1 of 1 values of 'score'"),
    "type: times that are none": (f"id,score,time\n1,0.5,{NAME}\n", "values of 'time' are not dates"),
    "damaged: an open quote": (f'id,score\n"{NAME},0.5\n2,0.5\n', "scores.csv"),
    "empty: a file": ("", "scores.csv is empty"),
    "damaged: JSON lines": (f'{{"id": "1", "score": 0.5}}\n{NAME}', "scores.jsonl, row 2: is not JSON"),
    "damaged: brackets without end": (f"{{{DEEP}", "scores.jsonl"),
    "type: objects in JSON lines": (f'{{"id": {{"{NAME}": 1}}, "score": 0.5}}', "'id': is a list or"),
}, scores_read)
handled("values", "scores", {"empty: no rows": ("id,score\n", 0)}, scores_read)
refused("values", "an evaluation", {
    "range: scores above 1": ({"id": ["1", "2"], "label": [0, 1], "score": [0.5, 7.0]}, "score"),
    "range: labels 0 to 2": ({"id": ["1", "2", "3"], "label": [0, 1, 2], "score": [0.5] * 3}, "label"),
    "empty: labels": ({"id": ["1"], "label": pl.Series([None], dtype=pl.Float64), "score": [0.5]}, "label"),
}, lambda columns: call(evaluate_model, pl.DataFrame(columns)))
refused("values", "prose", {
    "encoding: latin-1": ("Zoé".encode("latin-1"), "prose.txt is not a text in UTF-8"),
    "empty: blank lines": ("\n\n \n", "prose.txt holds no documents"),
    "damaged: Parquet": ((b"PAR1", "p.parquet"), "p.parquet cannot be read as parquet"),
    "type: others further on": (('{"name": "a"}\n' * 200 + '{"name": [1]}', "p.jsonl"), "p.jsonl, row 201"),
}, prose)
handled("values", "prose", {"encoding: NUL bytes": ("\0\0\n\n\0", {"train": 2})}, prose)

# ---- configs ----

MANY_KEYS = {f"k{i}": i for i in range(10_000)}
in_map = reading(ColumnMap.from_file, "map.json")
refused("configs", "a column map", {
    "damaged: empty": (b"", NO_JSON),
    "damaged: UTF-16": (json.dumps(MAP).encode("utf-16"), NO_JSON),
    "damaged: an integer of 5,000 digits": ('{"id": ' + "9" * 5000 + "}", NO_JSON),
    "damaged: 100,000 brackets": (DEEP, BRACKETS),
    "type: a list": ([MAP], "must hold one JSON object, found list"),
    "type: null for a name": ({**MAP, "label": None}, "key 'label': expected a text"),
    "twice: a key, the last one wrong": (json.dumps(MAP)[:-1] + ', "id": 5}', "key 'id'"),
    "unknown: 10,000 keys": ({**MAP, **MANY_KEYS}, "unknown key 'k0'", "and 9990 more"),
}, in_map, "map.json")
refused("configs", "a column map", {
    "path: a folder": (".", "cannot be read as JSON: it is not a file"),
    "path: a device": ("/dev/zero", f"/dev/zero {NO_JSON}", "not a file"),
    "path: a name too long": ("m" * 300, "mmm", NO_JSON),
}, lambda path: call(ColumnMap.from_file, path))
PATTERN = "is a name that polars takes for a pattern"
refused("configs", "what a column map says", {
    "range: classes with a gap": ({"label_values": {"a": 0, "b": 2}}, "found [0, 2]"),
    "range: 10,000 classes": ({"label_values": {str(i): 2 * i for i in range(10_000)}}, "16, 18, ..]"),
    "range: 200 classes": ({"label_values": {str(i): i for i in range(200)}}, "200 classes, at most 128"),
    "empty: no text": ({"text": []}, "text must name at least one column"),
    "empty: a domain of dots": ({"email_domain": "m", "internal_domains": [". ."]}, "holds an empty name"),
    "twice: a text": ({"text": ["name", "name"]}, "text names 'name' twice"),
    "twice: a label": ({"categorical": ["fraud"]}, "'fraud' is the label and also an input"),
    "twice: a number": ({"numeric": ["name"]}, "'name' is listed as numeric and also has another role"),
    "missing: an entity of its time": ({"entity_time": "when"}, "entity_time needs `entity`"),
    "unknown: a split": ({"split_by": "both"}, "key 'split_by'"),
    "unknown: half a time": ({"time_format": "%H"}, "time_format is not a strptime format"),
    "unknown: a pattern for an id": ({"id": "^.*$"}, f"'^.*$' {PATTERN}"),
}, lambda changes: in_map({**MAP, **changes}), "map.json")
refused("configs", "settings", {
    "range: a share below 0": ((PrepareConfig, {"train": 1.0, "val": -0.1, "test": 0.1}), "val"),
    "range: a share that is NaN": ((PrepareConfig, {"train": NAN}), "train"),
    "range: a seed below 0": ((PrepareConfig, {"seed": -1}), "seed"),
    "range: a billion folds": ((FeatureConfig, {"n_folds": 10**9}), "n_folds"),
    "range: infinite compression": ((TokenizerConfig, {"target_compression": float("inf")}), "compression"),
    "range: 10**12 tokens": ((TokenizerConfig, {"max_vocab": 10**12}), "max_vocab"),
    "range: a rate that is NaN": ((TrainConfig, {"lr": NAN}), "lr"),
    "range: infinite costs": ((EvaluationConfig, {"cost_missed": float("inf")}), "cost_missed"),
    "unknown: a step": ((TextConfig, {"steps": ["tokeniser"]}), "did you mean 'tokenizer'?"),
    "unknown: an order": ((TextConfig, {"steps": ["tokenizer", "html_normalizer"]}), "must come before"),
}, lambda config, changes: call(config, **changes))
refused("configs", "a language model", {
    "damaged: 100,000 brackets": (DEEP, BRACKETS),
    "type: values": ({"epochs": "many", "n_heads": 3, "zzz": 1}, "key 'epochs'", "unknown key 'zzz'"),
    "range: heads that do not divide": ({"d_model": 16, "n_heads": 3}, "not divisible by n_heads 3"),
    "range: an infinite rate": ('{"learning_rate": Infinity}', "c.json: key 'learning_rate'"),
}, reading(LanguageModelConfig.from_file, "c.json"), "c.json")
refused("configs", "precomputed values", {
    "damaged: 100,000 brackets": (DEEP, "too many brackets"),
    "damaged: a pickle": (b"\x80\x04\x95", "write a pickled one as JSON"),
    "type: a list": ("[]", "p.json: expected a JSON object"),
    "type: risks": ({"c": {"bins": [NAME], "default_bin": 0}, "d": 5}, "for ['c', 'd']"),
    "range: NaN": ('{"amount": NaN}', "need a finite number for ['amount']"),
    "range: risks above 1": ({"c": {"bins": {NAME: 2}, "default_bin": 0}}, "for ['c']"),
}, reading(read_precomputed, "p.json"), "p.json")

# ---- parameters ----

EPOCHS = "03_train_lstm2risk.epochs is"
refused("parameters", "-p of a run", {
    "unknown: a name": ("epoch=3", "no step has the parameter 'epoch'", "epochs"),
    "unknown: a step": ("99.epochs=3", "no step has the parameter '99.epochs'"),
    "unknown: a path": ("../../etc/passwd=3", "no step has the parameter '../../etc/passwd'"),
    "empty: key": ("=3", "no step has the parameter ''"),
    "twice: one with an option of its own": ("data=orders.csv", "give data with --data, not with -p"),
    "type: a word for a number": ("epochs=many", f"{EPOCHS} 'many'; expected int"),
    "type: NaN for a whole number": ("epochs=NaN", f"{EPOCHS} nan; expected int"),
    "type: a number for a list": ("seeds=3", "seeds is 3; expected list"),
    "range: an integer of 5,000 digits": ("epochs=" + "9" * 5000, EPOCHS, "expected int"),
    "range: 100,000 brackets": ("epochs=" + DEEP, EPOCHS, "expected int"),
}, parameters)
handled("parameters", "-p of a run", {
    "twice: for all steps and for one": (("epochs=3", "03.epochs=4", "lr=1"), {"epochs": 4, "lr": 1.0}),
}, parameters)
refused("parameters", "a step", {
    "unknown: a path": ("../01_preprocess", "no step '../01_preprocess'", "01_preprocess"),
    "unknown: nothing": ("", "no step ''"),
}, partial(call, pipeline.notebook_path))
refused("parameters", "-p of an evaluation", {
    "unknown: a name": ("fprr=0.1", "unknown key 'fprr' (did you mean 'fpr'?)"),
    "empty: value": ("fpr", "expected KEY=VALUE, found fpr"),
    "range: NaN": ("fpr=nan", "key 'fpr'"),
    "range: all of them": (("fpr=2", "cost_alarm=-1", "seed=x"), "key 'fpr'", "'cost_alarm'", "'seed'"),
}, lambda *texts: call(EvaluationConfig.from_texts, list(texts)))
refused("parameters", "threads", {
    "range: below 1": (0, "threads: expected None or a whole number from 1 to 1024"),
    "range: a billion": (10**9, "threads: expected None or a whole number from 1 to 1024"),
}, lambda threads: lambda place, small: Scorer(small.folder, threads=threads))
SCORES = putting("s.csv", "id,score\n1,0.5\n")
SCORE = ("score", "-o", "s.csv", "o.csv", "--bundle")
IMPORT = ["import-legacy", "--model-class", "lstm2risk", "-o", "b", "--features", putting("f.txt", "amount")]
IMPORT += ["--tokenizer", lambda place, small: small.folder / "tokenizer.json"]
refused("parameters", "a command", {
    "unknown: command": ("frobnicate", "No such command"),
    "unknown: size": (("run", "--size", "huge"), "n3r: no size 'huge'; there are dev, quick, full"),
    "unknown: way with bad rows": ((*SCORE, "b", "--on-error", "ignore"), "n3r: --on-error takes stop or"),
    "path: a run's that leads out": (("run", "--name", "../x"), "n3r: the run name '../x' may hold letters"),
    "missing: a data file": (("run", "--data", there), "n3r: ", "holds no file"),
    "missing: a bundle": ((*SCORE, there), "n3r: ", "is not a complete bundle, it has no MANIFEST.json"),
    "missing: labels": (("evaluate", SCORES, "-o", "e"), "n3r: no label on every row of", "s.csv"),
    "missing: a config": (("lm", "train", "--config", there), "n3r: no config"),
    "damaged: a map": (("run", "--map", putting("m.json", DEEP)), "n3r: ", f"m.json {BRACKETS}"),
    "damaged: weights": ((*IMPORT, putting("m.pt", NAME)), "n3r: ", "m.pt cannot be read as tensors alone"),
    "range: no threads": ((*SCORE, there, "--threads", "0"), "threads"),
    "twice: the same scores": (("compare", SCORES, SCORES), "n3r: both are", "s.csv"),
}, command)

# ---- bundles ----

for stem in ("config", "columns", "features", "calibration"):
    refused("bundles", "JSON", {
        f"damaged: {stem}.json of 100,000 brackets": (DEEP, BRACKETS),
        f"damaged: {stem}.json of bytes": (b"\xff\xfe\0", NO_JSON),
        f"type: {stem}.json that is a list": ("[]",),
        f"type: {stem}.json that is null": ("null",),
        f"missing: all keys of {stem}.json": ("{}",),
    }, used(serve, f"{stem}__json"), f"{stem}.json")
refused("bundles", "a manifest", {
    "damaged: 100,000 brackets": (DEEP, "too many brackets"),
    "damaged: a list": ("[]", "cannot be trusted: MANIFEST.json was altered"),
}, lambda content: lambda place, small: Scorer(
    put(shutil.copytree(small.folder, place / "b") / MANIFEST, content).parent), MANIFEST)
refused("bundles", "a bundle", {"path: a name too long": (call(Scorer, "b" * 300), "bbb")})
OTHER_CLASSES = "config.json and calibration.json are of other classes"
NO_LENGTH = "block_size that is not a length"
MORE_TOKENS = "tokenizer.json has more tokens"
refused("bundles", "what config.json says", {
    "type: texts that are a list": (setting("texts", to=[]), "objects model, texts, train, data"),
    "type: a model that is null": (setting("model", to=None), "objects model, texts, train, data"),
    "type: a list for a step": (setting("texts", "steps", to=[[]]), "key 'steps.0'"),
    "type: classes that are text": (setting("model", "n_classes", to="2"), OTHER_CLASSES),
    "unknown: a step": (setting("texts", "steps", to=["nope"]), "no step 'nope'"),
    "unknown: a step here": (setting("texts", "steps", to=["dialogue_chunker"]), "not for a tokenizer of"),
    "range: 10**30 tokens": (setting("texts", "max_tokens", to=10**30), "key 'max_tokens'"),
    "range: -1 tokens": (setting("texts", "max_tokens", to=-1), "key 'max_tokens'"),
    "range: a negative length": (setting("model", "block_size", to=-5), NO_LENGTH),
    "range: a length beyond all": (setting("model", "block_size", to=2**63), NO_LENGTH),
    "range: a billion classes": (setting("model", "n_classes", to=10**9), OTHER_CLASSES),
    "range: too few tokens": (setting("model", "vocab_size", to=5), MORE_TOKENS),
}, used(serve, "config__json"), "bundle")
refused("bundles", "what columns.json says", {
    "type: an id that is a number": (setting("id", to=5), "key 'id'"),
    "twice: a column": (lambda c: c.update(text=["orderAmount"], numeric=[]), "numbers, which are text"),
    "unknown: a pattern for a text": (setting("text", to=["^.*$"]), "takes for a pattern"),
    "unknown: a pattern for an id": (setting("id", to="*"), "takes for a pattern"),
}, used(serve, "columns__json"), "bundle")
LINE = {"slope": 1, "intercept": 0, "limit": 1}
refused("bundles", "what calibration.json says", {
    "range: thresholds of NaN": (setting("percentile_thresholds", to=[NAN] * 999), "thresholds.0'"),
    "range: maps of NaN": (setting("maps", to=[{**LINE, "slope": NAN}]), "platt.slope'"),
    "range: maps that descend": (setting("maps", to=[{"score": [1, 0], "probability": [0, 1]}]), "ascending"),
    "range: a billion classes": (setting("n_classes", to=10**9), "calibration.json"),
    "unknown: a method": (setting("method", to="magic"), "'method': expected 'isotonic'"),
    "type: a method": (setting("method", to=[]), "'method': expected 'isotonic'"),
}, used(serve, "calibration__json"), "bundle")
ASCEND = "expected knots that ascend"
TABLE = {"bins": {}, "default_bin": 0.1, "column": "c", "class": 1}


def knots(value: list, score: list, name: str = "*") -> Callable[[Any], None]:
    return setting("knots", name, to={"value": value, "score": score})


refused("bundles", "what features.json says", {
    "missing: knots": (lambda c: c.pop("knots") and None, "'knots': it is missing"),
    "missing: a risk table's column": (setting("risk_tables", "r", to={"bins": {}}), "'risk_tables.r."),
    "missing: an indicator": (lambda c: c["indicators"].clear(), "the graph cannot run"),
    "unknown: a key": (setting("zzz", to=1), "unknown key 'zzz'"),
    "unknown: knots": (knots([1, 2], [0, 1], "zzz"), "knots of the unknown features ['zzz']"),
    "unknown: an indicator": (lambda c: c["indicators"].append("zzz"), "of the unknown features ['zzz']"),
    "type: a config that is null": (setting("config", to=None), "key 'config'"),
    "type: imputation": (setting("imputation", to=[]), "'imputation': expected an object"),
    "type: precomputed risks": (setting("precomputed_risk", to="yes"), "precomputed_risk"),
    "range: an imputed NaN": (setting("imputation", "*", to=NAN), "key 'imputation."),
    "range: knots that descend": (knots([2, 1], [0, 1]), ASCEND),
    "range: no knots": (knots([], []), f"{ASCEND}, one score each"),
    "range: knots with a score too few": (knots([1, 2], [0]), "one score each"),
    "range: a score that is NaN": (knots([1, 2], [0, NAN]), "score.1': "),
    "range: knots that span more than a float": (knots([-1e308, 1e308], [0, 1]), "value.0'"),
    "range: a risk above 1": (setting("risk_tables", "r", to={**TABLE, "bins": {NAME: 7}}), "in [0, 1]"),
    "twice: an indicator": (lambda c: c["indicators"].append(c["indicators"][0]), "indicators twice"),
    "twice: a feature": (setting("risk_tables", "orderAmount", to=TABLE), "two features named ['orderAmo"),
}, used(serve, "features__json"), "bundle")
READS = {"text": TensorProto.INT64, "attn_mask": TensorProto.BOOL, "tabular": TensorProto.FLOAT}
NO_PROBABILITY = "something else than a probability for each class"
refused("bundles", "a graph", {
    "damaged: text": (NAME, "model.onnx cannot be read"),
    "damaged: empty": (b"", "model.onnx cannot be read"),
    "damaged: cut short": (graph(READS)[:200], "model.onnx cannot be read"),
    "unknown: input": (graph({**READS, "secrets": TensorProto.FLOAT}), "the graph reads ['secrets']"),
    "unknown: text": (graph({**READS, "secondary": TensorProto.INT64}), "name `secondary_text` in the"),
    "unknown: output": (graph(READS, "logits"), "the graph gives ['logits'] in place of probs"),
    "type: of texts": (graph({**READS, "text": TensorProto.FLOAT}), "the graph cannot run"),
    "range: three classes": (graph(READS, columns=3), NO_PROBABILITY),
    "range: NaN": (graph(READS, values=[NAN] * 2), NO_PROBABILITY),
    "range: logits": (graph(READS, values=[-3.0, 3.0]), NO_PROBABILITY),
}, used(serve, "model__onnx"))
handled("bundles", "a graph", {"type: constants": (graph(READS), 3)}, used(serve, "model__onnx"))
NO_CONFIG = "config.json must hold an object"
refused("bundles", "a bundle to train on", {
    "damaged: weights": (("model__safetensors", NAME), "model.safetensors cannot be read"),
    "damaged: metrics": (("metrics__json", DEEP), f"metrics.json {NO_JSON}"),
    "type: a config that is a list": (("config__json", "[]"), NO_CONFIG),
    "type: features that are null": (("features__json", "null"), "features.json"),
    "type: a calibration that is a list": (("calibration__json", "[]"), "calibration.json"),
    "unknown: a setting": (("config__json", setting("train", "zzz", to=1)), "does not describe a model"),
    "range: -1 tokens": (("config__json", setting("texts", "max_tokens", to=-1)), "key 'max_tokens'"),
    "range: another size": (("config__json", setting("model", "hidden_size", to=9)), "model.safetensors"),
}, loaded)

# ---- tokenizers ----

NOT_ONE = "is not a tokenizer file"
GAPS = "not numbered one by one"
ODD_PATTERN = {"type": "Replace", "pattern": {"Regex": "("}, "content": ""}
refused("tokenizers", "tokenizer.json", {
    "damaged: empty": (b"", NOT_ONE),
    "damaged: bytes": (b"\xff\xfe", NOT_ONE),
    "damaged: 100,000 brackets": (DEEP, NOT_ONE),
    "damaged: 100,000 brackets where a step is due": ('{"normalizer": ' + DEEP, NOT_ONE),
    "type: a list": ("[]", NOT_ONE),
    "type: a vocabulary that is a list": (setting("model", "vocab", to=[NAME]), NOT_ONE),
    "type: a name for a token's number": (setting("model", "vocab", "a", to=NAME), NOT_ONE),
    "type: merges that are numbers": (setting("model", "merges", to=5), NOT_ONE),
    "type: a pre-tokeniser": (setting("pre_tokenizer", to=[NAME]), NOT_ONE),
    "range: a token's number below 0": (setting("model", "vocab", "a", to=-1), NOT_ONE),
    "range: a token's number far beyond": (setting("model", "vocab", "zzz", to=10**6), GAPS),
    "twice: a token's number": (setting("model", "vocab", "zzz", to=9), GAPS),
    "missing: all tokens": (setting("model", "vocab", to={}), "tokenizer"),
    "missing: a special token": (lambda s: s["model"]["vocab"].pop("|") and None, GAPS),
    "unknown: order of special tokens": (
        lambda s: s["model"]["vocab"].update({"[CLS]": 1, "[PAD]": 0}), "special tokens"),
    "unknown: tokens merged": (setting("model", "merges", to=[[NAME, NAME]]), NOT_ONE),
    "unknown: a model": (setting("model", "type", to=NAME), NOT_ONE),
    "unknown: a pattern that is none": (setting("normalizer", to=ODD_PATTERN), NOT_ONE),
}, used(encode, "tokenizer__json"), "tokenizer.json")
in_metadata = used(encode, "tokenizer_metadata__json")
refused("tokenizers", "metadata", {
    "damaged: 100,000 brackets": (DEEP, BRACKETS),
    "damaged: bytes": (b"\xff", NO_JSON),
    "type: a list": ("[]", "must hold one JSON object, found list"),
    "type: null": ("null", "must hold one JSON object"),
}, in_metadata, "tokenizer_metadata.json")
refused("tokenizers", "a BERT's", {
    "missing: its tokens": ('{"model_type": "BERT"}', "the tokenizer has no pad_token"),
    "type: a list for a token": ('{"model_type": "BERT", "pad_token": []}', "the tokenizer has no pad_token"),
}, in_metadata)
handled("tokenizers", "metadata", {"unknown: a kind": ('{"model_type": 5}', 1)}, in_metadata)
refused("tokenizers", "a bundle's tokenizer", {
    "type: a model that is a number": ('{"model": 5}', "tokenizer.json cannot be read"),
    "range: tokens beyond the graph's": (setting("model", "vocab", "zzz", to=956), MORE_TOKENS),
}, used(serve, "tokenizer__json"))
TOKENS = {"model": {"type": "BPE", "vocab": {"a": NAME}, "merges": []}}
refused("tokenizers", "with legacy weights", {
    "damaged: weights": (("m.pt", ""), "m.pt"),
    "damaged: features of 100,000 brackets": (("f.json", DEEP), "f.json"),
    "type: features that are numbers": (("f.json", "[1, 2]"), "f.json is not a list of column names"),
    "type: a token that is a name": (("t.json", TOKENS), "t.json is not a tokenizer file"),
}, imported)

# fmt: on
# ---- all of them ----


@contextmanager
def in_time(seconds: int) -> Iterator[None]:
    """Within it, what takes longer fails."""

    def stop(*_: Any) -> None:
        raise AssertionError(f"no answer in {seconds} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _marked() -> Iterator[Any]:
    """The cases; the first of each reader and fault is quick."""
    seen = set()
    for case in CASES:
        fault = case.reader, case.name.partition(": ")[0]
        marks = [pytest.mark.slow] if fault in seen else []
        seen.add(fault)
        yield pytest.param(case, id=f"{case.kind}: {case.reader}: {case.name}", marks=marks)


ALL = list(_marked())


@pytest.mark.parametrize("case", ALL)
def test_bad_input_is_handled_as_the_table_says(case, small, tmp_path, tally, capfd):
    with in_time(SECONDS):
        if case.says:
            with pytest.raises((ValueError, FileNotFoundError)) as caught:
                case.act(tmp_path, small)
            message = str(caught.value)
            assert all(words in message for words in case.says), message[:MAX_MESSAGE]
            assert len(message) <= MAX_MESSAGE, f"{len(message)} characters: {message[:200]}"
            assert NAME not in message and NAME.lower() not in message
        else:
            expected = case.gives(small) if callable(case.gives) else case.gives
            assert case.act(tmp_path, small) == expected
    said = "".join(capfd.readouterr())
    assert NAME not in said and "panicked" not in said and "Traceback" not in said
    tally(PROMISE, f"{case.kind} refused or handled as the table says")


def test_the_table_is_large_and_names_each_case_once():
    assert len(CASES) >= 350 and sum(not case.marks for case in ALL) >= 100
    assert len({case.id for case in ALL}) == len(CASES)
    assert {case.kind for case in CASES} == KINDS


def test_the_program_says_one_thing_and_ends_with_2(small, tmp_path, tally):
    rows = put(tmp_path / os.fsdecode(b"row\xffs.csv"), joined(small, (head(), row(amount=NAME), row())))
    n3r = [sys.executable, "-m", "n3r.cli", "score", "--bundle", small.folder, "-o", tmp_path / "scores.csv"]
    done = subprocess.run([*n3r, rows], cwd=pipeline.ROOT, capture_output=True, timeout=SECONDS)
    message = done.stderr.decode(errors="replace").rpartition("\r")[2]  # behind the progress bar
    assert done.returncode == 2 and "rows that cannot be read" in message and message.count("n3r:") == 1
    assert b"Traceback" not in done.stderr and NAME not in message and not done.stdout
    assert not (tmp_path / "scores.csv").exists()
    done = subprocess.run([*n3r, rows, "--on-error", "skip"], cwd=pipeline.ROOT, capture_output=True)
    assert done.returncode == 0 and b"2 rows read, 1 scored, 1 rejected" in done.stderr
    tally(PROMISE, "parameters refused or handled as the table says", 2)


# ---- anything at all ----

# What breaks programs: halves of characters, controls, combining marks, marks of direction, joined emoji.
ODD = [*'\0\r\n\t",|\x1b\x85\u2028\ufeff\ufffe\ud800\udfff\u0301\u0f7c\u200b\u200d\u200e\u200f\u202e\u2066']
ODD += ["\U000e0061", "\U0010ffff", "👩\u200d👩\u200d👧", "🇩🇪", "ﷺ", "ß", "İ", "ǆ", "e\u0301" * 9]
ODD += ["[MISSING]", "[CLS]", "а", "Ω", "漢"]
any_part = st.one_of(st.sampled_from(ODD), st.characters(), st.sampled_from(["Zoe", " "]))
any_text = st.lists(any_part, max_size=12).map("".join)
whole_text = st.one_of(st.none(), any_text.map(lambda text: text.encode(errors="replace").decode()))
any_number = st.one_of(st.none(), st.floats(), st.floats(width=32), st.booleans())
spelled_number = st.one_of(any_number, st.integers(), any_text, st.sampled_from(["1e999", "-0", "١", "0x1"]))
ROWS = "random Unicode rows through preparing, tokenising and scoring"
BYTES = "rows of random bytes scored or rejected with a reason"


def are_probabilities(scored: pl.DataFrame) -> bool:
    """Whether every column but the id holds numbers in [0, 1] alone."""
    numbers = [column for column in scored.iter_columns() if column.dtype.is_float()]
    return all(column.is_between(0, 1).all() and not column.null_count() for column in numbers)


def among_others(small, odd: pl.DataFrame) -> pl.DataFrame:
    """Odd orders and whole ones, which make splits of both classes."""
    return pl.concat([odd, small.orders.slice(100, 200)])


@given(data=st.data())
def test_any_text_and_number_is_prepared_tokenised_and_scored(small, tally, data):
    columns, bundle = small.bundle.column_map, small.bundle
    numbers = columns.numeric[:3]
    a_row = st.tuples(*[whole_text] * len(columns.text), *[any_number] * len(numbers))
    rows = list(zip(*data.draw(st.lists(a_row, min_size=1, max_size=8)), strict=True))
    found = dict(zip([*columns.text, *numbers], map(list, rows), strict=True))
    # Numbers as a Parquet of numbers has them.
    found |= {name: pl.Series(found[name], dtype=pl.Float64, strict=False) for name in numbers}
    found |= {name: pl.Series(found[name], dtype=pl.String) for name in columns.text}
    found |= dict.fromkeys(("objectId", "customerId"), pl.format("odd{}", pl.int_range(pl.len())))
    odd = small.orders.head(len(rows[0])).with_columns(**found)
    whole = among_others(small, odd)
    result = prepare(whole.lazy(), columns)
    kept = pl.concat(result.splits.values())
    assert kept.height + result.report.steps["rows_dropped"].sum() == whole.height
    mine = kept.filter(pl.col("objectId").str.starts_with("odd"))
    tokens = bundle.tokenizer.encode(mine.select(columns.text), 512)
    assert len(tokens) == mine.height and (tokens.lengths > 0).all() and (tokens.lengths <= 512).all()
    assert ((tokens.ids >= 0) & (tokens.ids < bundle.tokenizer.vocab_size)).all()
    assert np.isfinite(bundle.features.transform(mine)).all()
    scored = scorer_of(small.folder).score(odd)
    assert scored.height == odd.height and are_probabilities(scored)
    p = bundle.predict(mine)
    assert np.isfinite(p).all()
    same = mine.select("objectId").join(scored, on="objectId", how="left", maintain_order="left")
    assert np.abs(same["score"].to_numpy() - p[:, 1]).max(initial=0) < 1e-4
    tally(PROMISE, ROWS, odd.height)


@given(data=st.data())
def test_any_order_given_as_a_dict_is_scored_or_refused_by_column(small, tally, data):
    scorer = scorer_of(small.folder)
    numbers = scorer.inputs.numeric[:4]
    text = st.one_of(st.none(), any_text, st.integers(), st.floats())
    order = dict.fromkeys(scorer.inputs.names)
    order |= {name: data.draw(text) for name in scorer.inputs.text}
    order |= {name: data.draw(spelled_number) for name in numbers}
    try:
        score = scorer.score_one(order)
    except ValueError as error:
        assert "is not a number" in str(error) and any(f"{name!r}" in str(error) for name in numbers)
    else:
        assert 0 <= score <= 1 and scorer.explain_one(order)["contribution"].is_finite().all()
    tally(PROMISE, ROWS)


JUNK = [None, True, 0, -1, 1.5, 1e308, 1e-320, NAN, 10**30, 2**63, "", "x", "\ud800", "^.*$", "*"]
JUNK += [[], {}, [[]], [1], {"x": 1}, {"": None}, [1e308, -1e308]]
CONFIGS = ["config", "columns", "features", "calibration", "tokenizer", "tokenizer_metadata"]


@given(
    stem=st.sampled_from(CONFIGS),
    junk=st.sampled_from(JUNK),
    steps=st.lists(st.integers(0, 40), min_size=1, max_size=4),
)
def test_junk_anywhere_in_a_bundle_is_refused_or_does_no_harm(small, tmp_path, tally, stem, junk, steps):
    def change(content: Any) -> None:
        for left, step in zip(range(len(steps))[::-1], steps, strict=True):
            keys = list(content) if isinstance(content, dict) else range(len(content))
            key = keys[step % len(keys)]
            if not left or not (isinstance(content[key], dict | list) and content[key]):
                break
            content = content[key]
        content[key] = junk

    shutil.rmtree(tmp_path / "bundle", ignore_errors=True)
    try:
        scorer = Scorer(bundle_with(small, tmp_path, **{f"{stem}__json": change}), 1)
        scored = scorer.score(some_orders(small))
        assert are_probabilities(scored) and scored.height == 3
        assert scorer.explain_one(an_order(small))["contribution"].is_finite().all()
    except ValueError as error:
        assert len(str(error)) <= MAX_MESSAGE
    tally(PROMISE, "values anywhere in a bundle's JSON refused or without harm")


def count_rows(small, place: Path, name: str, *parts: Any) -> int:
    """Score a file of these parts; how many rows it has."""
    for old in place.iterdir():
        old.unlink()
    told = score(small, put(place / name, joined(small, parts)))
    return sum(int(part.split()[0]) for part in told.split(";")[0].split(","))


marks = st.sampled_from([b"\n", b'"', b",", b"\r\n", b"\0", b"\xff", b'{"', b"\\ud800"])
noise = st.lists(st.one_of(st.binary(max_size=40), marks), max_size=8).map(b"".join)


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl"])
@given(pieces=st.lists(st.one_of(noise, st.just(None)), max_size=6), cells=st.lists(any_text, max_size=3))
def test_rows_of_any_bytes_are_scored_or_rejected_with_a_reason(small, tmp_path, tally, kind, pieces, cells):
    if kind == "jsonl":
        first, good, odd = order(), order(), [order(customerName=cell) for cell in cells]
    else:
        first, good, odd = head(), row(), [row(name=cell) for cell in cells]
    whole = [joined(small, (part,)) for part in (first, good, *odd)]
    if kind == "tsv":
        whole = [part.replace(b",", b"\t") for part in whole]
    middle = (whole[1] if piece is None else piece for piece in pieces)
    tally(PROMISE, BYTES, count_rows(small, tmp_path, f"rows.{kind}", whole[0], *middle, *whole[2:]))


SPELLINGS = [*"x漢\u202eа.", "e\u0301", "👩\u200d", "a "]


@pytest.mark.parametrize(
    "what", [SPELLINGS[0], *(pytest.param(s, marks=pytest.mark.slow) for s in SPELLINGS[1:])]
)
def test_a_megabyte_in_each_text_column_is_read_in_time(small, tmp_path, tally, what):
    columns, scorer = small.bundle.column_map, scorer_of(small.folder)
    huge = what * (1_000_000 // len(what.encode()))
    with in_time(SECONDS):
        orders = small.orders.head(1).with_columns(pl.lit(huge).alias(name) for name in columns.text)
        alone = scorer.score(orders)
        assert are_probabilities(alone)
        by_itself = scorer.score_one(orders.row(0, named=True))
        assert by_itself == pytest.approx(alone["score"][0], abs=1e-5)
        assert count_rows(small, tmp_path, "huge.csv", head(), row(name=huge)) == 1
        for split in prepare(among_others(small, orders).lazy(), columns).splits.values():
            assert len(small.bundle.tokenizer.encode(split.select(columns.text), 512).ids)
    tally(PROMISE, ROWS)


def test_ten_thousand_columns_of_any_name_change_no_score(small, tally):
    names = [f"{ODD[i % len(ODD)]}{i}".encode(errors="replace").decode() for i in range(10_000)]
    more = [pl.lit(1.0).alias(name) for name in names]
    orders = small.orders.head(20)
    with in_time(SECONDS):
        scorer = scorer_of(small.folder)
        assert scorer.score(orders.with_columns(more)).equals(scorer.score(orders))
        wide = among_others(small, orders).with_columns(more)
        assert sum(map(len, prepare(wide.lazy(), small.bundle.column_map).splits.values())) > 0
    tally(PROMISE, ROWS, len(orders))
