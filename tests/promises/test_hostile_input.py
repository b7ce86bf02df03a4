"""Hostile input: whatever is handed over, a score, a row refused with its reason, or one message comes back.

Each case does what a user or an attacker may do and says what must come of it: the words of the message, or
what is given. NAME stands in the data, and in no message.
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
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from n3r import cli, pipeline, tables
from n3r.bundle import Bundle
from n3r.calibrate import fit_calibration
from n3r.clean import compose
from n3r.custom_transformer.corpus import byte_pair_tokenizer, find_documents, read_documents
from n3r.custom_transformer.corpus import load_tokenizer as load_prose_tokenizer
from n3r.custom_transformer.language_model import LanguageModel, LanguageModelConfig
from n3r.evaluation.comparison import compare, compare_models
from n3r.evaluation.decisions import Costs, operating_points
from n3r.evaluation.evaluate import EvaluationConfig, evaluate_model
from n3r.evaluation.scored import matched, only_model, read_scored, with_labels
from n3r.features import FeatureConfig, TabularFeatures, read_precomputed
from n3r.files.manifest import MANIFEST, write_manifest
from n3r.inputs import Inputs
from n3r.legacy.layouts import import_legacy
from n3r.legacy.trainer import LegacyLSTM2Risk, LegacyLSTMConfig
from n3r.model import configure
from n3r.preprocess import PrepareConfig, prepare
from n3r.schema import ColumnMap
from n3r.score import REJECTS, Scorer, score_files
from n3r.synthetic.orders import generate_orders
from n3r.tables import read_chunks
from n3r.tokenizer import BertTokenizer, NameTokenizer, TextConfig, load_tokenizer
from n3r.train import TrainConfig
from n3r.vocabulary import TokenizerConfig, train_tokenizer

PROMISE = "hostile input"
NAME = "Zebedee Quux"  # a person's, in the bad data
LONGEST_MESSAGE = 2000
SECONDS = 30  # for a case; a hang is a failure
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
    name: str
    act: Act  # of an empty folder and the small bundle
    says: tuple[str, ...] = ()  # words of the message; none: it is no error
    gives: Any = None  # what is handed back


CASES: list[Case] = []


def refused(kind: str, name: str, act: Act, *says: str) -> None:
    CASES.append(Case(kind, name, act, says))


def handled(kind: str, name: str, act: Act, gives: Any) -> None:
    CASES.append(Case(kind, name, act, (), gives))


# ---- what cases are made of ----


def after(*acts: Act) -> Act:
    """Do one after the other; what the last one gives."""
    return lambda place, small: [act(place, small) for act in acts][-1]


@cache
def scorer_of(folder: Path) -> Scorer:
    return Scorer(folder, threads=1)


def put(path: Path, content: bytes | str | pl.DataFrame) -> Path:
    """Write a file; a table as Parquet."""
    if isinstance(content, pl.DataFrame):
        content.write_parquet(path)
        return path
    path.write_bytes(content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content)
    return path


def put_json(path: Path, content: Any) -> Path:
    return put(path, json.dumps(content))


def line(small, key: str = "1", name: str = NAME, amount: str = "5", separator: str = ",") -> str:
    """A row with the columns of `header`; all but three cells are empty."""
    names = scorer_of(small.folder).inputs.names
    cells = dict.fromkeys(names, "") | {names[0]: key, "customerName": name, "orderAmount": amount}
    return separator.join(cells.values()) + "\n"


def header(small, separator: str = ",") -> str:
    return separator.join(scorer_of(small.folder).inputs.names) + "\n"


def an_order(small, **changes: Any) -> dict[str, Any]:
    names = scorer_of(small.folder).inputs.names
    return {**dict.fromkeys(names), "objectId": "1", "customerName": NAME, "orderAmount": 5.0, **changes}


def some_orders(small, n: int = 3, **changes: Any) -> pl.DataFrame:
    return small.orders.head(n).with_columns(**changes)


def score(small, *paths: Path, to: Path | None = None, **options: Any) -> str:
    """Score files with bad rows skipped; how many were scored and why the others were not."""
    output = to or paths[0].parent / "scores.csv"
    counts = score_files(
        scorer_of(small.folder), list(map(str, paths)), output, skip=True, progress=False, **options
    )
    assert counts.read == counts.scored + counts.rejected
    found = pl.read_csv(output, schema_overrides={"objectId": pl.String})
    assert found.height == counts.scored and found["score"].is_between(0, 1).all()
    rejects = output.with_name(f"{output.stem}.rejects.csv")
    reasons = pl.read_csv(rejects, schema=REJECTS) if rejects.exists() else pl.DataFrame(schema=REJECTS)
    assert reasons.height == counts.rejected and reasons["reason"].str.len_chars().gt(0).all()
    told = sorted(
        set(reasons.select(pl.concat_str("column", "reason", separator=" ", ignore_nulls=True)).to_series())
    )
    assert NAME not in str(told)
    return "; ".join([f"{counts.scored} scored, {counts.rejected} rejected", *told])


def score_text(*parts: Any, name: str = "orders.csv") -> Act:
    """Score a file of these parts; a function of the bundle is asked for its part."""

    def act(place: Path, small) -> str:
        texts = [part(small) if callable(part) else part for part in parts]
        return score(
            small, put(place / name, b"".join(t if isinstance(t, bytes) else t.encode() for t in texts))
        )

    return act


def score_frame(name: str = "orders.parquet", **changes: Any) -> Act:
    """Score three orders with other columns from Parquet."""

    def act(place: Path, small) -> str:
        some_orders(small, **changes).write_parquet(place / name)
        return score(small, place / name)

    return act


def one(**changes: Any) -> Act:
    """Score one order given as a dict."""
    return lambda place, small: round(scorer_of(small.folder).score_one(an_order(small, **changes)), 4)


def same_as(**changes: Any) -> Callable[[Any], float]:
    return lambda small: one(**changes)(None, small)


def parquet_bytes(small) -> bytes:
    """A whole Parquet file of some rows."""
    from io import BytesIO

    out = BytesIO()
    some_orders(small, 300).write_parquet(out, compression="uncompressed")
    return out.getvalue()


def column_map(**changes: Any) -> ColumnMap:
    return ColumnMap(**{**MAP, **changes})


def map_file(content: Any, name: str = "map.json") -> Act:
    """Read a column map from a file with this content."""

    def act(place: Path, small) -> ColumnMap:
        path = (
            put(place / name, content)
            if isinstance(content, str | bytes)
            else put_json(place / name, content)
        )
        return ColumnMap.from_file(path)

    return act


def raw(n: int = 60, **changes: Any) -> pl.DataFrame:
    """Orders that MAP fits, a third of them fraud."""
    frame = pl.DataFrame(
        {
            "id": [str(i) for i in range(n)],
            "name": [NAME] * n,
            "fraud": ["0", "1", "0"] * (n // 3),
            "when": [f"2024-01-{i % 28 + 1:02}" for i in range(n)],
            "amount": [float(i) for i in range(n)],
        }
    )
    return frame.with_columns(**changes)


def prepared(
    map_changes: dict[str, Any] | None = None, config: dict[str, Any] | None = None, **changes: Any
) -> Act:
    """Prepare orders with other columns; how many rows are kept, and what was dropped for what."""

    def act(place: Path, small) -> str:
        frame = raw(**changes)
        found = prepare(frame.lazy(), column_map(**map_changes or {}), PrepareConfig(**config or {}))
        steps = found.report.steps.filter(pl.col("rows_dropped") > 0)
        kept = sum(split.height for split in found.splits.values())
        assert kept + steps["rows_dropped"].sum() == frame.height
        return "; ".join(
            [f"{kept} kept", *(f"{n} {why}" for why, n in steps.select("reason", "rows_dropped").iter_rows())]
        )

    return act


def scanned(content: Any, name: str = "orders.csv", **map_changes: Any) -> Act:
    """Scan a raw file and collect it; its number of rows."""

    def act(place: Path, small) -> int:
        path = place / name
        put(path, content)
        source = tables.scan(path, column_map(**map_changes))
        with source.reading():
            return source.frame.collect().height

    return act


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


def scorer(**files: Any) -> Act:
    """Score with a bundle that has these files."""
    return lambda place, small: Scorer(bundle_with(small, place, **files), 1).score(some_orders(small)).height


def loaded(**files: Any) -> Act:
    """Load a bundle that has these files for training's use."""
    return lambda place, small: type(Bundle.load(bundle_with(small, place, **files))).__name__


def setting(*keys: str, to: Any) -> Callable[[Any], None]:
    """Put a value at a place of a JSON object; "*" is its first key."""

    def change(content: Any) -> None:
        for key in keys[:-1]:
            content = content[next(iter(content)) if key == "*" else key]
        content[next(iter(content)) if keys[-1] == "*" else keys[-1]] = to

    return change


def removing(*keys: str) -> Callable[[Any], None]:
    def change(content: Any) -> None:
        for key in keys[:-1]:
            content = content[next(iter(content)) if key == "*" else key]
        del content[keys[-1]]

    return change


def graph(inputs: dict[str, int], output: str = "probs", values: Any = None, columns: int = 2) -> bytes:
    """An ONNX graph that reads these inputs (name -> type) and gives constant probabilities for each row."""
    values = [1 / columns] * columns if values is None else values
    nodes = [
        helper.make_node("Shape", [next(iter(inputs))], ["shape"], start=0, end=1),
        helper.make_node("Concat", ["shape", "n"], ["size"], axis=0),
        helper.make_node("Expand", ["row", "size"], [output]),
    ]
    fixed = [
        helper.make_tensor("n", TensorProto.INT64, [1], [columns]),
        helper.make_tensor("row", TensorProto.FLOAT, [1, columns], values),
    ]
    reads = [helper.make_tensor_value_info(name, kind, [None, None]) for name, kind in inputs.items()]
    gives = [helper.make_tensor_value_info(output, TensorProto.FLOAT, [None, columns])]
    made = helper.make_model(
        helper.make_graph(nodes, "hostile", reads, gives, fixed), opset_imports=[helper.make_opsetid("", 17)]
    )
    made.ir_version = 8
    return made.SerializeToString()


def legacy_weights(small, place: Path) -> Path:
    """A whole state_dict of the legacy, for the bundle's tokenizer and one feature."""
    config = LegacyLSTMConfig(n_embed=small.bundle.tokenizer.vocab_size, n_tab_features=1, hidden_size=4)
    torch.save(LegacyLSTM2Risk(config).state_dict(), place / "m.pt")
    return place / "m.pt"


READS = {"text": TensorProto.INT64, "attn_mask": TensorProto.BOOL, "tabular": TensorProto.FLOAT}


def tokenizer_with(content: Any, metadata: Any = None) -> Act:
    """Load a tokenizer that was changed, or has this text, and encode a name."""

    def act(place: Path, small) -> int:
        for name in ("tokenizer.json", "tokenizer_metadata.json"):
            shutil.copy(small.folder / name, place / name)
        path = place / "tokenizer.json"
        if callable(content):
            state = json.loads(path.read_text())
            content(state)
            put_json(path, state)
        elif content is not None:
            put(path, content)
        if metadata is not None:
            put(place / "tokenizer_metadata.json", metadata)
        return len(load_tokenizer(place).encode([[NAME]]).ids)

    return act


def score_file(content: str | bytes | pl.DataFrame, name: str = "scores.csv", **options: Any) -> Act:
    """Read a file of scores; how many rows it has."""

    def act(place: Path, small) -> int:
        return read_scored(put(place / name, content), **options).height

    return act


def documents(content: str | bytes | pl.DataFrame, name: str = "prose.txt", **options: Any) -> Act:
    """Find the documents of a file."""

    def act(place: Path, small) -> int:
        path = put(place / name, content)
        return {split: len(found) for split, found in find_documents(str(path), "name", **options).items()}

    return act


def command(*arguments: str) -> str:
    """Run `n3r` in this process; a mistake (exit status 2, one message) is raised as a ValueError."""
    out, err, before = StringIO(), StringIO(), sys.argv
    sys.argv = ["n3r", *arguments]
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


# fmt: off
# ---- files ----

IS_READ = "1 scored, 0 rejected"
TOO_LONG = "is longer than 16777216 bytes, or a quote is open"
CUT_OPEN = f"1 scored, 20001 rejected; has 1 cells, the header 46; has 43 cells, the header 46; {TOO_LONG}"

refused("files", "empty CSV", score_text(b""), "orders.csv", "is empty")
handled("files", "CSV of a header alone", score_text(header), "0 scored, 0 rejected")
handled("files", "CSV of a header without a line end", score_text(lambda s: header(s)[:-1]),
    "0 scored, 0 rejected")
refused("files", "CSV of blank lines alone", score_text(b"\n\r\n\n"), "orders.csv", "is empty")
refused("files", "CSV of one NUL byte", score_text(b"\0"), "orders.csv", "'objectId' is missing")
handled("files", "UTF-8 with a byte order mark", score_text(b"\xef\xbb\xbf", header, line), IS_READ)
handled("files", "two byte order marks are a column's name",
    score_text(b"\xef\xbb\xbf", header, "\ufeff", line), IS_READ)
refused("files", "UTF-16", score_text(lambda s: (header(s) + line(s)).encode("utf-16")), "orders.csv",
    "header row that cannot be read", "not UTF-8")
refused("files", "UTF-16 without a mark", score_text(lambda s: (header(s) + line(s)).encode("utf-16-le")),
    "orders.csv", "is missing")
refused("files", "latin-1 header", score_text("Größe,".encode("latin-1"), header, line), "orders.csv",
    "not UTF-8")
handled("files", "latin-1 cell between good rows",
    score_text(header, line, lambda s: line(s, "2", "Zoé").encode("latin-1"), partial(line, key="3")),
    "2 scored, 1 rejected; customerName is not UTF-8 text")
handled("files", "NUL bytes in a name", score_text(header, partial(line, name="Zoe\0\0")), IS_READ)
refused("files", "line ends of CR alone",
    lambda place, small: next(read_chunks(put(place / "o.csv",
    f"id,nameOfTheCustomerInFull\r{NAME},{NAME}\r"), Inputs("id", ["nameOfTheCustomerInFull"], [], []))),
    "o.csv", "'nameOfTheCustomerInFull' is missing")
refused("files", "no header row but a person",
    lambda place, small: next(read_chunks(put(place / "o.csv", f"1,{NAME}\n2,{NAME}\n"),
    Inputs("id", ["name"], [], []))), "o.csv", "'id' is missing")
handled("files", "line ends mixed", score_text(header, lambda s: line(s)[:-1] + "\r\n", line),
    "2 scored, 0 rejected")
handled("files", "a row cut short, one too long",
    score_text(header, f"1,{NAME}\n", line, lambda s: line(s)[:-1] + f",{NAME}\n"),
    "1 scored, 2 rejected; has 2 cells, the header 46; has 47 cells, the header 46")
handled("files", "a quote that is never closed",
    score_text(header, partial(line, name=f'"{NAME}'), line, line),
    "2 scored, 1 rejected; a quote is opened and never closed")
handled("files", "text behind a closing quote", score_text(header, partial(line, name=f'"{NAME}"x'), line),
    "1 scored, 1 rejected; a quoted cell goes on after its closing quote")
handled("files", "a quote within a cell is itself", score_text(header, partial(line, name='Zoe "Z" Quux')),
    IS_READ)
handled("files", "line ends in a quoted cell", score_text(header, partial(line, name='"Zoe\n\nQuux"')),
    IS_READ)
handled("files", "CSV behind the separator of TSV",
    score_text(partial(header, separator="\t"), partial(line, separator="\t"), name="orders.tsv"), IS_READ)
refused("files", "semicolons for commas", score_text(lambda s: header(s).replace(",", ";"), line),
    "orders.csv", "is missing")
handled("files", "a line of 20 MB", score_text(header, lambda s: line(s, "2", "x" * 20_000_000), line),
    f"1 scored, 1 rejected; {TOO_LONG}")
handled("files", "a quote that is open for 20 MB",
    score_text(header, line, lambda s: line(s, "2", '"' + ("x" * 1000 + "\n") * 20_000)),
    CUT_OPEN)
refused("files", "gzip that is none", score_text(header, line, name="orders.csv.gz"),
    "orders.csv.gz cannot be read as csv")
refused("files", "gzip cut short", score_text(lambda s: gzip.compress((header(s) + line(s) * 2000).encode())[:
    -400], name="orders.csv.gz"), "orders.csv.gz cannot be read as csv")
refused("files", "gzip with a wrong checksum",
    score_text(lambda s: gzip.compress((header(s) + line(s)).encode())[:-8] + b"\1" * 8,
    name="orders.csv.gz"), "orders.csv.gz cannot be read as csv")
refused("files", "gzip with a tail of something else",
    score_text(lambda s: gzip.compress((header(s) + line(s)).encode()) + b"tail", name="orders.csv.gz"),
    "orders.csv.gz cannot be read as csv")
handled("files", "gzip of two members",
    score_text(lambda s: gzip.compress((header(s) + line(s)).encode()) + gzip.compress(line(s).encode()),
    name="orders.csv.gz"), "2 scored, 0 rejected")
refused("files", "Parquet of 0 bytes", score_text(b"", name="orders.parquet"),
    "orders.parquet cannot be read as parquet")
refused("files", "Parquet that is CSV", score_text(header, line, name="orders.parquet"),
    "orders.parquet cannot be read")
refused("files", "Parquet of its magic alone", score_text(b"PAR1PAR1", name="orders.parquet"),
    "orders.parquet cannot be read")
refused("files", "Parquet without its footer",
    score_text(lambda s: parquet_bytes(s)[:-200], name="orders.parquet"), "orders.parquet cannot be read")
refused("files", "Parquet with a footer of a wrong length",
    score_text(lambda s: parquet_bytes(s)[:-8] + b"\xff\xff\xff\x7fPAR1", name="orders.parquet"),
    "orders.parquet cannot be read")
refused("files", "Parquet with a footer of zeros",
    score_text(lambda s: parquet_bytes(s)[:-2000] + b"\0" * 1992 + parquet_bytes(s)[-8:],
    name="orders.parquet"), "orders.parquet cannot be read")
refused("files", "Parquet with a body of 0xFF",
    score_text(lambda s: b"PAR1" + b"\xff" * 30_000 + parquet_bytes(s)[30_004:], name="orders.parquet"),
    "orders.parquet cannot be read")
handled("files", "Parquet without rows",
    after(lambda place, small: some_orders(small, 0).write_parquet(place / "o.parquet"),
    lambda place, small: score(small, place / "o.parquet")), "0 scored, 0 rejected")
handled("files", "JSON lines that are one array",
    score_text(lambda s: json.dumps([an_order(s)]), name="o.jsonl"),
    "0 scored, 1 rejected; is not a JSON object")
refused("files", "JSON lines, empty, as a column map's file", map_file("", "o.jsonl"),
    "o.jsonl cannot be read as JSON")
handled("files", "JSON lines with lines that are none",
    score_text(lambda s: f'{json.dumps(an_order(s))}\n{{"{NAME}\n[]\n5\nnull\n\n"{NAME}"\n', name="o.jsonl"),
    "1 scored, 5 rejected; is not JSON; is not a JSON object")
handled("files", "JSON lines of 100,000 brackets",
    score_text(lambda s: f"{json.dumps(an_order(s))}\n{DEEP}\n" + '{"a":' * 100_000, name="o.jsonl"),
    "1 scored, 2 rejected; is not JSON")
handled("files", "JSON lines with NaN, Infinity and an integer of 5,000 digits",
    score_text(lambda s: "".join(json.dumps(an_order(s)).replace("5.0", v) + "\n" for v in ("NaN",
    "-Infinity", "9" * 5000)), name="o.jsonl"), "3 scored, 0 rejected")
handled("files", "JSON lines with a key twice",
    score_text(lambda s: '{"customerName": [],' + json.dumps(an_order(s))[1:], name="o.jsonl"), IS_READ)
handled("files", "JSON lines with half a character",
    score_text(lambda s: json.dumps(an_order(s, customerName="\ud800")), name="o.jsonl"), IS_READ)
handled("files", "JSON lines with lists and objects in cells",
    score_text(lambda s: json.dumps(an_order(s, customerName=[NAME])) + "\n" + json.dumps(an_order(s,
    orderAmount={NAME: 1})), name="o.jsonl"),
    "0 scored, 2 rejected; customerName is a list or an object; orderAmount is a list or an object")
handled("files", "JSON lines in UTF-16",
    score_text(lambda s: json.dumps(an_order(s)).encode("utf-16") + b"\n\0", name="o.jsonl"),
    "0 scored, 2 rejected; is not JSON; is not UTF-8 text")
refused("files", "a folder for a file",
    after(lambda place, small: (place / "orders.csv").mkdir(),
    lambda place, small: score(small, place / "orders.csv")), "orders.csv holds no file")
refused("files", "a link to nothing", after(lambda place, small: (place / "o.csv").symlink_to("nowhere"),
    lambda place, small: score(small, place / "o.csv")), "no file, folder or pattern", "o.csv")
refused("files", "a link to itself", after(lambda place, small: (place / "o.csv").symlink_to("o.csv"),
    lambda place, small: score(small, place / "o.csv")), "no file, folder or pattern", "o.csv")
refused("files", "a pipe that nobody writes to",
    after(lambda place, small: os.mkfifo(place / "o.csv"),
    lambda place, small: score(small, place / "o.csv")), "no file, folder or pattern", "o.csv")
refused("files", "a pipe in a folder", after(lambda place, small: os.mkfifo(place / "o.csv"),
    lambda place, small: score(small, place)), "holds no file ending in")
refused("files", "a device without an end",
    after(lambda place, small: (place / "o.csv").symlink_to("/dev/zero"),
    lambda place, small: score(small, place / "o.csv")), "no file, folder or pattern", "o.csv")
refused("files", "a pipe for a column map",
    after(lambda place, small: os.mkfifo(place / "m.json"),
    lambda place, small: ColumnMap.from_file(place / "m.json")), "m.json cannot be read as JSON", "no file")
refused("files", "a device for a column map", lambda place, small: ColumnMap.from_file("/dev/zero"),
    "/dev/zero cannot be read as JSON", "no file")
refused("files", "a pipe for scores to compare",
    after(lambda place, small: os.mkfifo(place / "s.csv"), lambda place, small: only_model(place / "s.csv")),
    "s.csv is no score file")
refused("files", "a pipe for scores", after(lambda place, small: os.mkfifo(place / "s.csv"),
    lambda place, small: read_scored(place / "s.csv")), "no score file", "s.csv")
refused("files", "a pipe for precomputed values",
    after(lambda place, small: os.mkfifo(place / "p.json"),
    lambda place, small: read_precomputed(place / "p.json")), "p.json", "no such file")
refused("files", "a pipe for a language model's config",
    after(lambda place, small: os.mkfifo(place / "c.json"),
    lambda place, small: LanguageModelConfig.from_file(place / "c.json")), "no config", "c.json")
refused("files", "a pipe for prose", after(lambda place, small: os.mkfifo(place / "p.txt"),
    lambda place, small: find_documents(str(place / "p.txt"), "name")), "p.txt holds no file")
refused("files", "a pipe for a tokenizer",
    after(lambda place, small: os.mkfifo(place / "tokenizer.json"),
    lambda place, small: load_tokenizer(place)), "tokenizer.json", "run step 02_tokenizer")
refused("files", "an ending that n3r does not read", score_text(b"PK", name="orders.xlsx"),
    "orders.xlsx: the name must end in")
refused("files", "bzip2", score_text(b"BZh9", name="orders.csv.bz2"), "orders.csv.bz2: the name must end in")
refused("files", "a pattern that nothing fits", lambda place, small: score(small, place / "*.csv"),
    "no file, folder or pattern")
handled("files", "a name with a line end and quotes", score_text(header, line, name="or\"d\ners'.csv"),
    IS_READ)
handled("files", "a name that is not UTF-8",
    score_text(header, f"1,{NAME}\n", line, name=os.fsdecode(b"orders\xff.csv")),
    "1 scored, 1 rejected; has 2 cells, the header 46")
handled("files", "the same file three times",
    after(lambda place, small: put(place / "o.csv", header(small) + line(small)),
    lambda place, small: score(small, place / "o.csv", place / "o.csv", place / "." / "*.csv",
    to=place / "out" / "s.csv")), IS_READ)
refused("files", "an output that is the input",
    after(lambda place, small: put(place / "o.csv", header(small)),
    lambda place, small: score(small, place / "o.csv", to=place / "o.csv")), "would replace the input")
refused("files", "an output that links to the input",
    after(lambda place, small: put(place / "o.csv", header(small)),
    lambda place, small: (place / "s.csv").symlink_to("o.csv"),
    lambda place, small: score(small, place / "o.csv", to=place / "s.csv")), "would replace the input")
handled("files", "an output that is a link to itself",
    after(lambda place, small: put(place / "o.csv", header(small) + line(small)),
    lambda place, small: (place / "s.csv").symlink_to("s.csv"),
    lambda place, small: score(small, place / "o.csv", to=place / "s.csv")), IS_READ)
refused("files", "an output below a file",
    after(lambda place, small: put(place / "o.csv", header(small)),
    lambda place, small: score(small, place / "o.csv", to=place / "o.csv" / "s.csv")),
    "cannot write s.csv into")
refused("files", "an output with a name too long",
    after(lambda place, small: put(place / "o.csv", header(small)),
    lambda place, small: score(small, place / "o.csv", to=place / f"{'s' * 300}.csv")), "cannot write",
    "File name too long")
refused("files", "an output of another kind than asked",
    after(lambda place, small: put(place / "o.csv", header(small)),
    lambda place, small: score(small, place / "o.csv", kind="tsv")), "scores.csv is to be tsv")
refused("files", "two files that would become one",
    after(lambda place, small: (place / "a").mkdir(), lambda place, small: (place / "b").mkdir(),
    lambda place, small: put(place / "a" / "o.csv", header(small)),
    lambda place, small: put(place / "b" / "o.csv", header(small)),
    lambda place, small: score(small, place / "a", place / "b", to=place / "out")),
    "several files would become o.csv")
refused("files", "one file for two regions",
    after(lambda place, small: put(place / "o.csv", header(small)),
    lambda place, small: score_files(scorer_of(small.folder), [f"NA={place}/o.csv", f"EU={place}/o.csv"],
    place / "s.csv")), "o.csv is given for two regions")
refused("files", "a chunk of no rows", lambda place, small: next(read_chunks(put(place / "o.csv", "id\n"),
    Inputs("id", [], [], []), 0)), "at least one row")
refused("files", "raw CSV, empty", scanned(b""), "orders.csv is empty")
refused("files", "raw CSV without rows", scanned("id,name,fraud,when,amount\n"), "orders.csv has no rows")
refused("files", "raw CSV with a row too long",
    scanned(f"id,name,fraud,when,amount\n1,{NAME},0,2024-01-01,5,{NAME}\n"),
    "orders.csv cannot be read as CSV")
refused("files", "raw CSV with an open quote",
    scanned(f'id,name,fraud,when,amount\n1,"{NAME},0,2024-01-01,5\n2,x,0,2024-01-01,5\n'), "orders.csv")
refused("files", "raw CSV in UTF-16", scanned(f"id,name,fraud,when,amount\n1,{NAME},0,2024-01-01,5\n".encode(
    "utf-16")), "orders.csv")
refused("files", "raw CSV in latin-1", scanned("id,name,fraud,when,amount\n1,Zoé,0,2024-01-01,5\n".encode(
    "latin-1")), "orders.csv cannot be read as CSV")
refused("files", "raw TSV that is CSV",
    scanned(f"id,name,fraud,when,amount\n1,{NAME},0,2024-01-01,5\n", "orders.tsv"), "orders.tsv",
    "is missing")
refused("files", "raw Parquet cut short",
    lambda place, small: scanned(parquet_bytes(small)[:-100], "o.parquet")(place, small),
    "o.parquet cannot be read as Parquet")
refused("files", "raw JSON lines", scanned("{}", "orders.jsonl"), "orders.jsonl: the name must end in")
refused("files", "raw files of two formats",
    after(lambda place, small: put(place / "a.csv", "id\n1\n"),
    lambda place, small: put(place / "b.tsv", "id\n1\n"),
    lambda place, small: tables.scan(place, column_map())), "one call reads one format, found csv and tsv")
refused("files", "prepared data that are not there", lambda place, small: tables.read_split(place, "train"),
    "no prepared data in", "run 01_preprocess first")
refused("files", "a split that there is not",
    lambda place, small: tables.read_split(small.folder.parent / "data", "../train"), "no split '../train'")
refused("files", "prepared data of 100,000 brackets",
    after(lambda place, small: put(place / "columns.json", DEEP),
    lambda place, small: tables.read_split(place, "train")), "columns.json is damaged")
refused("files", "a prepared split cut short",
    after(lambda place, small: shutil.copytree(small.folder.parent / "data", place / "d"),
    lambda place, small: put(place / "d" / "train.parquet",
    (place / "d" / "train.parquet").read_bytes()[:-99]),
    lambda place, small: tables.read_split(place / "d", "train")), "train.parquet is damaged")

refused("files", "raw CSV with a name too long",
    lambda place, small: tables.scan(f"{'o' * 300}.csv", column_map()), "no file, folder or pattern ooo")
refused("files", "raw CSV at the home of nobody",
    lambda place, small: tables.scan("~nobody-of-this-name/o.csv", column_map()),
    "no file, folder or pattern ~nobody")
refused("files", "raw CSV with NUL in its name", lambda place, small: tables.scan("o\0.csv", column_map()),
    "no file, folder or pattern o")
refused("files", "raw CSV with a name that is not UTF-8",
    scanned(f"id,name,fraud,when,amount\n1,{NAME},0,2024-01-01,5\n", os.fsdecode(b"o\xff.csv")), ".csv",
    "UTF-8")
refused("files", "Parquet with a name that is not UTF-8",
    lambda place, small: score_text(parquet_bytes, name=os.fsdecode(b"o\xff.parquet"))(place, small),
    ".parquet", "UTF-8")
refused("files", "no raw file at all", lambda place, small: tables.scan([], column_map()),
    "no input: give a file, a folder or a pattern")
refused("files", "prepared data that would replace a folder",
    after(lambda place, small: (place / "t.csv").mkdir(),
    lambda place, small: tables.write(raw(), place / "t.csv")), "cannot write t.csv into")

# ---- columns ----

refused("columns", "one column missing",
    score_text(lambda s: header(s).replace("customerName", "custmerName"), line), "orders.csv",
    "'customerName' is missing (did you mean 'custmerName'?)")
refused("columns", "a column in another case",
    score_text(lambda s: header(s).replace("customerName", "CUSTOMERNAME"), line),
    "did you mean 'CUSTOMERNAME'?")
refused("columns", "blanks around a column's name",
    score_text(lambda s: header(s).replace("customerName", " customerName "), line),
    "did you mean ' customerName '?")
refused("columns", "a column twice", score_text(lambda s: "customerName," + header(s), line),
    "orders.csv has 1 column names twice")
refused("columns", "a raw column twice",
    scanned(f"id,name,fraud,when,amount,id\n1,{NAME},0,2024-01-01,5,1\n"),
    "orders.csv has 1 column names twice")
handled("columns", "10,000 columns more",
    score_text(lambda s: "".join(f"x{i}," for i in range(10_000)) + header(s),
    lambda s: "," * 10_000 + line(s)), IS_READ)
refused("columns", "10,000 columns, not one of them known",
    score_text(",".join(f"x{i}" for i in range(10_000)) + "\n"),
    "orders.csv (10000 columns) does not fit the model")
handled("columns", "a text column of nulls", score_frame(customerName=pl.lit(None)), "3 scored, 0 rejected")
handled("columns", "a number column of nulls", score_frame(orderAmount=pl.lit(None)), "3 scored, 0 rejected")
refused("columns", "text that is a list", score_frame(customerName=pl.concat_list(pl.lit(NAME))),
    "orders.parquet", "'customerName' is List, expected text")
refused("columns", "text that is a struct with a name for a field",
    score_frame(customerName=pl.struct(pl.lit(1).alias(NAME))), "'customerName' is Struct, expected text")
refused("columns", "text that is bytes", score_frame(customerName=pl.lit(NAME.encode())),
    "'customerName' is Binary, expected text")
refused("columns", "text that is a date", score_frame(customerName=pl.lit(date(2024, 1, 1))),
    "'customerName' is Date, expected text")
handled("columns", "text that is numbers", score_frame(customerName=pl.lit(5)), "3 scored, 0 rejected")
handled("columns", "text that is categorical", score_frame(customerName=pl.lit(NAME).cast(pl.Categorical)),
    "3 scored, 0 rejected")
refused("columns", "a number that is a duration", score_frame(orderAmount=pl.lit(timedelta(1))),
    "'orderAmount' is Duration, expected text, a number")
handled("columns", "a number that is decimal", score_frame(orderAmount=pl.lit(Decimal("1.5"))),
    "3 scored, 0 rejected")
handled("columns", "a number of 128 bits", score_frame(orderAmount=pl.lit(2**100, dtype=pl.Int128)),
    "3 scored, 0 rejected")
refused("columns", "an id that is a list", score_frame(objectId=pl.concat_list(pl.lit(NAME))),
    "'objectId' is List")
handled("columns", "ids that are null", score_frame(objectId=pl.lit(None, pl.String)), "3 scored, 0 rejected")
handled("columns", "ids that are all the same", score_frame(objectId=pl.lit("a")), "3 scored, 0 rejected")
refused("columns", "no frame but a LazyFrame",
    lambda place, small: scorer_of(small.folder).score(small.orders.lazy()),
    "expected a polars DataFrame, found LazyFrame")
refused("columns", "a frame of no columns",
    lambda place, small: scorer_of(small.folder).score(pl.DataFrame()), "'objectId' is missing")
refused("columns", "an order without a column",
    lambda place, small: scorer_of(small.folder).score_one({"customerName": NAME}), "the row (1 columns)",
    "'orderAmount' is missing")
refused("columns", "an order that is nothing", lambda place, small: scorer_of(small.folder).score_one(None),
    "expected a row as a dict", "NoneType")
refused("columns", "an order that is a list of pairs",
    lambda place, small: scorer_of(small.folder).score_one([("customerName", NAME)]),
    "expected a row as a dict", "list")
refused("columns", "an order with keys that are no text",
    lambda place, small: scorer_of(small.folder).score_one({1: NAME, None: 2, (): 3}), "the row (0 columns)",
    "is missing")
refused("columns", "an explanation of a class that there is not",
    lambda place, small: scorer_of(small.folder).explain_one(an_order(small), 2), "of_class", "0 to 1")
refused("columns", "an explanation of no class",
    lambda place, small: scorer_of(small.folder).explain_one(an_order(small), None), "of_class", "0 to 1")
refused("columns", "an output that there is not",
    lambda place, small: scorer_of(small.folder).score_one(an_order(small), "nope"), "gives no 'nope'",
    "p_calibrated")
refused("columns", "training: a column missing",
    prepared(name=pl.lit(None, pl.String), map_changes={"text": ["nmae"]}),
    "'nmae' (text) is missing (did you mean 'name'?)")
refused("columns", "training: a number that is text", prepared(amount=pl.lit(NAME)),
    "'amount' (numeric) is String, expected a number")
refused("columns", "training: a number of given names", prepared(amount=pl.lit(NAME).cast(pl.Enum([NAME]))),
    "'amount' (numeric) is Enum, expected a number")
refused("columns", "training: text that is bytes", prepared(name=pl.lit(NAME.encode())),
    "'name' (text) is Binary, expected text")
refused("columns", "training: an id that is a fraction", prepared(id=pl.lit(1.5)),
    "'id' (id) is Float64, expected text or an integer")
refused("columns", "training: a label that is a list", prepared(fraud=pl.concat_list(pl.lit("0"))),
    "'fraud' (label) is List")
refused("columns", "training: a time that is a number", prepared(when=pl.lit(5)),
    "'when' (time) is Int32, expected a date")
refused("columns", "training: a group that is a list",
    prepared({"groups": ["g"]}, g=pl.concat_list(pl.lit(NAME))), "'g' (groups) is List")
refused("columns", "training: a name that prepared tables have",
    lambda place, small: prepare(raw().rename({"amount": "text"}).lazy(), column_map(numeric=["text"])),
    "'text' (numeric) has a name that prepared tables use")
refused("columns", "training: the number of a row for a column",
    lambda place, small: prepare(raw(__row__=pl.lit(1)).lazy(), column_map()),
    "['__row__'], names that n3r uses itself")
refused("columns", "training: a mark for an id",
    lambda place, small: prepare(raw().rename({"id": "__drop__"}).lazy(), column_map(id="__drop__")),
    "['__drop__'], names that n3r uses itself")
refused("columns", "training: a feature whose name is a pattern",
    lambda place, small: prepare(raw().rename({"amount": "^.*$"}).lazy(), column_map(numeric=["*"])),
    "'^.*$' (numeric) is a name that polars takes for a pattern")
handled("columns", "training: a column without a name",
    lambda place, small: (prepare(raw().rename({"name": ""}).lazy(),
    column_map(text=[""])).splits["train"].height), 42)
handled("columns", "training: 10,000 columns more",
    lambda place, small: len(prepare(raw().with_columns(pl.lit(1).alias(f"x{i}") for i in range(
    10_000)).lazy(), column_map()) .splits["train"] .columns), 7)
handled("columns", "training: text that is null in every row", prepared(name=pl.lit(None, pl.String)),
    "60 kept")
handled("columns", "training: numbers that are null in every row", prepared(amount=pl.lit(None)), "60 kept")
refused("columns", "training: ids that are null in every row", prepared(id=pl.lit(None, pl.String)),
    "no rows left after the step 'duplicate_id' (no id)")
refused("columns", "training: a column of text in one file, of numbers in another",
    after(lambda place, small: raw(amount=pl.lit(NAME)).write_parquet(place / "a.parquet"),
    lambda place, small: raw().write_parquet(place / "b.parquet"),
    lambda place, small: tables.scan(place, column_map())), "column 'amount' differs between files",
    "b.parquet")
refused("columns", "scores of no such column", score_file("id,scroe\n1,0.5\n"),
    "scores.csv has no column 'score' beside its id (did you mean 'scroe'?)")
refused("columns", "scores in the first column", score_file("score,id\n0.5,1\n"),
    "scores.csv has no column 'score' beside its id")
refused("columns", "scores: an id that is a list",
    score_file(pl.DataFrame({"id": [[NAME]], "score": [0.5]}), "s.parquet"), "s.parquet", "'id' is List")
refused("columns", "scores: a label that is bytes",
    score_file(pl.DataFrame({"id": ["1"], "score": [0.5], "label": [NAME.encode()]}), "s.parquet"),
    "s.parquet", "'label' is Binary")
refused("columns", "scores: a time that is a duration",
    score_file(pl.DataFrame({"id": ["1"], "score": [0.5], "time": [timedelta(1)]}), "s.parquet"),
    "s.parquet", "time")
refused("columns", "prose: no such column among 10,000",
    documents(pl.DataFrame({f"x{i}": [NAME] for i in range(10_000)}), "p.parquet"),
    "p.parquet has no column 'name'")
refused("columns", "prose: a column of numbers", documents(pl.DataFrame({"name": [1]}), "p.parquet"),
    "p.parquet", "Int64, not text")
refused("columns", "a tokenizer of a list column",
    lambda place, small: train_tokenizer(pl.DataFrame({"name": [None] * 20}, schema={"name": pl.String})),
    "no characters to learn from")
refused("columns", "features: a column missing",
    lambda place, small: TabularFeatures().fit(raw(), ["amout"], []), "lack the columns ['amout']")
refused("columns", "features: a column twice",
    lambda place, small: TabularFeatures().fit(raw(), ["amount", "amount"], []),
    "two features are named 'amount'")

refused("columns", "training: an unused column of a CSV whose name is a pattern",
    scanned(f"id,name,fraud,when,amount,^.*$\n1,{NAME},0,2024-01-01,5,6\n"), "orders.csv", "pattern")
refused("columns", "training: an unused column of a CSV with the number of a row",
    scanned(f"id,name,fraud,when,amount,__row__\n1,{NAME},0,2024-01-01,5,6\n"), "orders.csv", "__row__")

# ---- values ----

NOT_A_NUMBER = "0 scored, 1 rejected; orderAmount is not a number"
for what, cell in {
    "a name for a number": NAME,
    "a comma for a decimal point": '"1,5"',
    "a currency": "EUR 5",
    "a hexadecimal number": "0x10",
    "underscores in a number": "1_000",
    "digits of another script": "١٢",
    "a superscript": "5²",
    "two numbers": "5 6",
    "NUL for a number": "\0",
    "a right-to-left mark before a number": "\u200f5",
    "a minus sign that is none": "\u22125",
}.items():
    handled("values", what, score_text(header, partial(line, amount=cell)), NOT_A_NUMBER)
for what, cell in {
    "NaN": "nan", "infinity": "-inf", "a number beyond float64": "1e400", "500 digits": "9" * 500,
    "blanks for a number": "   ", "blanks around a number": " 5 ", "a denormal number": "5e-324",
        "minus nought": "-0",
}.items():
    handled("values", what, score_text(header, partial(line, amount=cell)), IS_READ)
for what, value in {
    "a list": [NAME], "an object": {NAME: 1}, "a set": {NAME}, "bytes": NAME.encode(),
        "a date": date(2024, 1, 1),
    "any object": object(), "an array": np.array([1.0]), "numpy's date": np.datetime64("2024-01-01"),
        "complex": 1 + 2j,
}.items():
    refused(
        "values",
        f"one order: {what} for a number",
        one(orderAmount=value),
        "'orderAmount' is ",
        "expected text, a number",
    )
refused("values", "one order: text for a number", one(orderAmount=NAME),
    "column 'orderAmount' is not a number")
refused("values", "one order: a list for a name", one(customerName=[NAME]),
    "'customerName' is List, expected text")
handled("values", "one order: an integer of 400 digits is missing", one(orderAmount=10**400),
    same_as(orderAmount=None))
handled("values", "one order: NaN is missing", one(orderAmount=float("nan")), same_as(orderAmount=None))
handled("values", "one order: a number spelled as text", one(orderAmount="5"), same_as(orderAmount=5.0))
handled("values", "one order: half a character", one(customerName="Zoe\ud800"),
    same_as(customerName="Zoe\ufffd"))
handled("values", "one order: invisible characters", one(customerName="Ze\u200bbe\u202edee"),
    same_as(customerName="zebedee"))
handled("values", "one order: a typed separator is no separator",
    lambda place, small: (one(customerName="a|b")(place, small) != one(customerName="a",
    paymentAccountHolderName="b")(place, small)), True)
handled("values", "one order: a typed special token is text",
    lambda place, small: one(customerName="[MISSING]")(place, small) != one(customerName=None)(place, small),
    True)
handled("values", "one order: a name of 1 MB of combining marks",
    lambda place, small: 0 <= one(customerName="e" + "\u0301" * 500_000)(place, small) <= 1, True)
refused("values", "training: labels outside the map", prepared(fraud=pl.lit("7")),
    "column 'fraud' (label): 60 rows", "'7' (60 rows)")
refused("values", "training: a name in the label", prepared(fraud=pl.col("name")), "column 'fraud' (label)",
    "'Aaaaaaa Aaaa' (60 rows)")
refused("values", "training: a label of 1 MB", prepared(fraud=pl.lit("x" * 1_000_000)),
    "column 'fraud' (label)", "'aaaa")
refused("values", "training: a label for each row", prepared(fraud=pl.col("name") + pl.col("id")),
    "60 different values, not shown")
refused("values", "training: no label at all", prepared(fraud=pl.lit(None, pl.String)),
    "no rows left after the step 'label' (no label)")
refused("values", "training: labels NaN", prepared(fraud=pl.lit(float("nan"))),
    "no rows left after the step 'label' (no label)")
handled("values", "training: labels as whole fractions", prepared(fraud=pl.Series([0.0, 1.0, None] * 20)),
    "40 kept; 20 no label")
refused("values", "training: labels of one class", prepared(fraud=pl.lit("0")),
    "split 'train' have the class 0")
refused("values", "training: three rows", lambda place, small: prepare(raw(3).lazy(), column_map()),
    "split 'val' have the class 0")
refused("values", "training: no rows", lambda place, small: prepare(raw(0).lazy(), column_map()),
    "no rows left", "0 rows reached")
refused("values", "training: times in another format", prepared(when=pl.lit("31.12.2024")),
    "column 'when' (time): 60 of 60 rows", "'99.99.9999'")
refused("values", "training: a name for a time", prepared(when=pl.col("name")), "'Aaaaaaa Aaaa'",
    "set time_format")
refused("values", "training: times of 1 MB", prepared(when=pl.lit("x" * 1_000_000)), "column 'when' (time)",
    "'aaaa")
refused("values", "training: the 30th of February", prepared(when=pl.lit("2024-02-30")),
    "60 of 60 rows have no time")
refused("values", "training: the year 0", prepared(when=pl.lit("0000-01-01")), "60 of 60 rows have no time")
handled("values", "training: the last microsecond of 9999",
    prepared(when=pl.lit("9999-12-31T23:59:59.999999")), "60 kept")
for what, number, kind in (
    ("the year 20032", 570_000_000 * 10**9, pl.Datetime("us")),
    ("the first microsecond there is", -(2**63) + 1, pl.Datetime("us")),
    ("the last millisecond there is", 2**63 - 1, pl.Datetime("ms")),
    ("the year 148108 in Tokyo", 2**62, pl.Datetime("us", "Asia/Tokyo")),
):
    refused(
        "values", f"training: {what}", prepared(when=pl.lit(number).cast(kind)), "60 of 60 rows have no time"
    )
refused("values", "training: the last date there is",
    prepared(when=pl.lit(2**31 - 1, pl.Int32).cast(pl.Date)), "60 of 60 rows have no time")
refused("values", "training: epoch in milliseconds",
    prepared({"time_format": "epoch"}, when=pl.lit("1700000000000")), "no time in the format 'epoch'",
    "'9999999999999'")
refused("values", "training: epoch far below 0", prepared({"time_format": "epoch"}, when=pl.lit(-(10**12))),
    "no time in the format 'epoch'")
handled("values", "training: epoch a little below 0", prepared({"time_format": "epoch"}, when=pl.lit(-5)),
    "60 kept")
handled("values", "training: one time of many unreadable",
    prepared(config={"max_bad_dates": 0.05},
    when=pl.when(pl.col("id") == "7").then(pl.lit("soon")).otherwise("when")),
    "59 kept; 1 time missing or unreadable")
handled("values", "training: ids twice and ids null",
    prepared(id=pl.when(pl.col("id").str.len_chars() == 1).then(pl.lit("a")).when(pl.col("id") != "10").then(
    "id")), "50 kept; 1 no id; 9 an earlier row has the same id")
handled("values", "training: NaN and infinity",
    lambda place, small: (prepare(raw(amount=pl.Series([np.nan, np.inf, -np.inf, 1e39, 1.0,
    2.0] * 10)).lazy(), column_map()).report.not_finite), {"amount": 40})
refused("values", "training: text in a declared number of a CSV",
    scanned(f"id,name,fraud,when,amount\n1,x,0,2024-01-01,5\n2,x,0,2024-01-01,{NAME}\n"),
    "'amount': 1 cells of", "orders.csv, the first in data row 2")
refused("values", "training: every order internal",
    lambda place, small: prepare(raw(mail=pl.lit("amazon.com")).lazy(),
    column_map(email_domain="mail", internal_domains=["amazon"])),
    "no rows left after the step 'internal_domain'")
refused("values", "scores that are NaN", score_file("id,score\n1,nan\n2,0.5\n"),
    "scores.csv: 1 of 2 values of 'score' are no finite numbers")
refused("values", "scores that are a name", score_file(f"id,score\n1,{NAME}\n"),
    "scores.csv: 1 of 1 values of 'score' are no finite numbers")
refused("values", "scores that are infinite",
    score_file(pl.DataFrame({"id": ["1"], "score": [np.inf]}), "s.parquet"),
    "s.parquet: 1 of 1 values of 'score'")
refused("values", "scores: ids twice", score_file(f"id,score\n{NAME},0.5\n{NAME},0.5\n"),
    "scores.csv: 1 rows have an id that an earlier row has")
refused("values", "scores: ids null", score_file("id,score\n,0.5\n"), "scores.csv: 1 rows have no id")
refused("values", "scores: times that are none", score_file(f"id,score,time\n1,0.5,{NAME}\n"),
    "values of 'time' are no dates")
refused("values", "scores: an open quote", score_file(f'id,score\n"{NAME},0.5\n2,0.5\n'), "scores.csv")
refused("values", "scores: objects in JSON lines",
    score_file(f'{{"id": {{"{NAME}": 1}}, "score": 0.5}}', "s.jsonl"), "s.jsonl", "'id' is Struct")
refused("values", "scores: a line that is no JSON",
    score_file(f'{{"id": "1", "score": 0.5}}\n{NAME}', "s.jsonl"), "s.jsonl cannot be read as jsonl")
refused("values", "scores: brackets without end", score_file(DEEP, "s.jsonl"), "s.jsonl")
refused("values", "an evaluation of scores above 1",
    lambda place, small: evaluate_model(pl.DataFrame({"id": ["1", "2"], "label": [0, 1],
    "score": [0.5, 7.0]})), "score")
refused("values", "an evaluation of labels 0 to 2",
    lambda place, small: evaluate_model(pl.DataFrame({"id": ["1", "2", "3"], "label": [0, 1, 2],
    "score": [0.5] * 3})), "label")
refused("values", "an evaluation of no labels",
    lambda place, small: evaluate_model(pl.DataFrame({"id": ["1"], "label": [None], "score": [0.5]},
    schema={"id": pl.String, "label": pl.Float64, "score": pl.Float64})), "label")
refused("values", "scores of other ids",
    lambda place, small: matched(pl.DataFrame({"id": [NAME]}), pl.DataFrame({"id": ["2"]})),
    "1 of 1 ids of A are not in the other")
refused("values", "scores without labels",
    lambda place, small: compare_models(*[{"m": pl.DataFrame({"id": ["1"], "score": [0.5]})}] * 2,
    names=("A", "B")), "no label on every row of A or B")
refused("values", "scores of other orders",
    after(lambda place, small: put(place / "o.csv", f"id,name,fraud,when,amount\n1,{NAME},0,2024-01-01,5\n"),
    lambda place, small: with_labels(pl.DataFrame({"id": [NAME], "score": [0.5]}), [place / "o.csv"],
    column_map())), "1 of 1 scored ids are not among the orders given")
refused("values", "prose that is not UTF-8", documents("Zoé".encode("latin-1")),
    "prose.txt is not a text in UTF-8")
refused("values", "prose of blank lines", documents("\n\n \n"), "prose.txt holds no documents")
handled("values", "prose of NUL bytes", documents("\0\0\n\n\0"), {"train": 2})
refused("values", "prose: a table that is none", documents(b"PAR1", "p.parquet"),
    "p.parquet cannot be read as parquet")
handled("values", "prose: JSON lines of other types further down",
    documents('{"name": "a"}\n' * 200 + '{"name": {"x": [1]}}\n', "p.jsonl"), {"train": 201})
refused("values", "too little prose", lambda place, small: read_documents(str(put(place / "p.txt", NAME)),
    "name"), "1 documents to train on", "10 are needed")
refused("values", "a tokenizer of nine names",
    lambda place, small: train_tokenizer(pl.DataFrame({"name": [NAME] * 9})), "9 rows are too few")
refused("values", "a tokenizer of blanks",
    lambda place, small: train_tokenizer(pl.DataFrame({"name": [" \u200b"] * 50})),
    "no characters to learn from")
refused("values", "features of labels beyond the classes",
    lambda place, small: TabularFeatures().fit(pl.DataFrame({"c": ["a"] * 4, "label": [0, 1, 5, 1]}), [],
    ["c"]), "column 'label' holds class 5")
refused("values", "a calibration of NaN", lambda place, small: fit_calibration([0, 1], [[np.nan, 1], [0, 1]]),
    "1 of 2 rows are not in [0, 1]")
refused("values", "a calibration of labels beyond the classes",
    lambda place, small: fit_calibration([0, 7], [[0.5, 0.5]] * 2), "labels: 1 of 2 are not -1")

refused("values", "scores: a column twice", score_file("id,score,score\n1,0.5,0.6\n"),
    "scores.csv has 1 columns named twice or as a pattern")
refused("values", "scores: an id column that is a pattern", score_file("^.*$,score\n1,0.5\n"),
    "scores.csv has 1 columns named twice or as a pattern")
refused("values", "scores, empty", score_file(""), "scores.csv cannot be read as csv")
handled("values", "scores of no rows", score_file("id,score\n"), 0)
refused("values", "an evaluation of scores with a name too long", lambda place, small: only_model("s" * 300),
    "no score file or run sss")
refused("values", "prose: a name too long", lambda place, small: find_documents("p" * 300, "name"),
    "no file or folder ppp")
refused("values", "prose: the home of nobody",
    lambda place, small: find_documents("~nobody-of-this-name/p.txt", "name"), "no file or folder ~nobody")
refused("values", "prose: a data set's name with NUL",
    lambda place, small: find_documents("a\0b.txt", "name"), "no file or folder a")

# ---- configs ----

refused("configs", "a map that is not there", lambda place, small: ColumnMap.from_file(place / "m.json"),
    "no column map at", "m.json", "see configs/")
refused("configs", "a map that is a folder", lambda place, small: ColumnMap.from_file(place),
    "cannot be read as JSON: it is no file")
refused("configs", "a map with a name too long", lambda place, small: ColumnMap.from_file("m" * 300), "mmm",
    "cannot be read as JSON")
refused("configs", "a map, empty", map_file(b""), "map.json cannot be read as JSON")
refused("configs", "a map in UTF-16", map_file(json.dumps(MAP).encode("utf-16")),
    "map.json cannot be read as JSON")
handled("configs", "a map with a byte order mark",
    lambda place, small: map_file(b"\xef\xbb\xbf" + json.dumps(MAP).encode())(place, small).id, "id")
refused("configs", "a map of 100,000 brackets", map_file(DEEP),
    "map.json cannot be read as JSON: too many brackets within brackets")
refused("configs", "a map of objects in objects", map_file('{"id":' * 100_000),
    "map.json cannot be read as JSON: too many brackets")
refused("configs", "a map with an integer of 5,000 digits", map_file('{"id": ' + "9" * 5000 + "}"),
    "map.json cannot be read as JSON")
refused("configs", "a map that is a list", map_file([MAP]), "map.json must hold one JSON object, found list")
refused("configs", "a map with NaN for a name", map_file('{"id": NaN}'),
    "map.json: key 'id': Input should be a valid string")
refused("configs", "a map that is Python", map_file(str(MAP)), "map.json cannot be read as JSON")
refused("configs", "a map with comments", map_file("{} // mine"), "map.json cannot be read as JSON")
refused("configs", "a map with a key twice, the last one wrong",
    map_file(json.dumps(MAP)[:-1] + ', "id": 5}'), "map.json: key 'id'")
refused("configs", "a map with 10,000 unknown keys", map_file({**MAP, **{f"k{i}": i for i in range(10_000)}}),
    "unknown key 'k0'", "and 9990 more")
for what, changes, says in (
    (
        "one class",
        {"label_values": {"0": 0, "1": 0}},
        "label_values must use the classes 0, 1, ... (two or more), found [0]",
    ),
    ("no labels", {"label_values": {}}, "label_values must use the classes"),
    ("classes with a gap", {"label_values": {"a": 0, "b": 2}}, "found [0, 2]"),
    ("10,000 classes with gaps", {"label_values": {str(i): 2 * i for i in range(10_000)}}, "16, 18, ..]"),
    ("200 classes", {"label_values": {str(i): i for i in range(200)}}, "200 classes, at most 128"),
    ("a class of 31 digits", {"label_values": {"a": 0, "b": 10**30}}, "found [0, 1e+30]"),
    ("a class that is half a number", {"label_values": {"a": 0, "b": 0.5}}, "key 'label_values.b'"),
    ("no text", {"text": []}, "text must name at least one column"),
    ("text that is no list", {"text": "name"}, "key 'text': Input should be a valid list"),
    ("text twice", {"text": ["name", "name"]}, "text names 'name' twice"),
    ("a label among the texts", {"text": ["fraud"]}, "'fraud' is the label and also an input"),
    ("a label among the categories", {"categorical": ["fraud"]}, "'fraud' is the label and also an input"),
    ("a number that is text", {"numeric": ["name"]}, "'name' is listed as numeric and also has another role"),
    (
        "a number that is ignored",
        {"ignore": ["amount"]},
        "'amount' is listed as numeric and also has another role",
    ),
    ("an id that is ignored", {"ignore": ["id"]}, "'id' is ignored and also has a role"),
    ("a split by no time", {"time": None}, 'split_by "time" needs `time`'),
    ("a split by chance and time", {"split_by": "both"}, "key 'split_by'"),
    ("internal domains of no column", {"internal_domains": ["a"]}, "internal_domains needs `email_domain`"),
    ("an internal domain of dots", {"email_domain": "m", "internal_domains": [". ."]}, "holds an empty name"),
    ("an entity's time of no entity", {"entity_time": "when"}, "entity_time needs `entity`"),
    (
        "files for a split that there is not",
        {"split_files": {"*": "dev"}},
        "split_files names the split 'dev'",
    ),
    ("a format of half a time", {"time_format": "%H"}, "time_format is no strptime format"),
    ("a format of half a fraction", {"time_format": "%3"}, "time_format is no strptime format"),
    ("an id that is a pattern", {"id": "^.*$"}, "'^.*$' is a name that polars takes for a pattern"),
    ("a text that is every column", {"text": ["*"]}, "'*' is a name that polars takes for a pattern"),
    (
        "a number that is a pattern",
        {"numeric": ["^a.*$"]},
        "'^a.*$' is a name that polars takes for a pattern",
    ),
    ("an unknown key near a known one", {"sgment": "x"}, "unknown key 'sgment' (did you mean 'segment'?)"),
    ("null for a name", {"label": None}, "key 'label': Input should be a valid string"),
):
    refused("configs", f"a map of {what}", map_file({**MAP, **changes}), "map.json", says)
refused("configs", "a time format that fits nothing", prepared({"time_format": "%Q"}),
    "no time in the format '%Q'")
refused("configs", "a file that no split has",
    after(lambda place, small: raw().write_parquet(place / "o.parquet"),
    lambda place, small: prepare(tables.scan(place, column_map(split_files={"train*": "train"})).frame,
    column_map(split_files={"train*": "train"}))), "the file o.parquet matches no pattern of split_files")
for what, kind, content, says in (
    ("shares of a split that are 0.7 together", PrepareConfig, {"train": 0.5, "val": 0.1, "test": 0.1},
        "must sum to 1"),
    ("a share that is NaN", PrepareConfig, {"train": float("nan")}, "train"),
    ("a share below 0", PrepareConfig, {"train": 1.0, "val": -0.1, "test": 0.1}, "val"),
    ("a seed below 0", PrepareConfig, {"seed": -1}, "seed"),
    ("a share of bad dates that is NaN", PrepareConfig, {"max_bad_dates": float("nan")}, "max_bad_dates"),
    ("an unknown key", PrepareConfig, {"trian": 1}, "trian"),
    ("an infinite smoothing", FeatureConfig, {"smooth_factor": float("inf")}, "smooth_factor"),
    ("a billion folds", FeatureConfig, {"n_folds": 10**9}, "n_folds"),
    ("one quantile", FeatureConfig, {"n_quantiles": 1}, "n_quantiles"),
    ("an imputation that there is not", FeatureConfig, {"imputation": "guess"}, "imputation"),
    ("an infinite compression", TokenizerConfig, {"target_compression": float("inf")}, "target_compression"),
    ("a vocabulary of 10**12 tokens", TokenizerConfig, {"max_vocab": 10**12}, "max_vocab"),
    ("a vocabulary of none", TokenizerConfig, {"max_vocab": 0}, "max_vocab"),
    ("a frequency of 31 digits", TokenizerConfig, {"min_frequency": 10**30}, "min_frequency"),
    ("nothing held out", TokenizerConfig, {"held_out": 0}, "held_out"),
    ("texts of 7 tokens", TextConfig, {"max_tokens": 7}, "max_tokens"),
    ("a step that there is not", TextConfig, {"steps": ["tokeniser"]}, "did you mean 'tokenizer'?"),
    ("steps in a wrong order", TextConfig, {"steps": ["tokenizer", "html_normalizer"]},
        "html_normalizer must come before tokenizer"),
    ("no epochs", TrainConfig, {"epochs": 0}, "epochs"),
    ("a rate that is NaN", TrainConfig, {"lr": float("nan")}, "lr"),
    ("a batch of one row", TrainConfig, {"batch_size": 1}, "batch_size"),
    ("infinite costs", EvaluationConfig, {"cost_missed": float("inf")}, "cost_missed"),
    ("a billion slices of time", EvaluationConfig, {"n_slices": 10**9}, "n_slices"),
):
    refused(
        "configs",
        f"{kind.__name__} of {what}",
        lambda place, small, kind=kind, content=content: kind(**content),
        says,
    )
refused("configs", "cleaning steps that are one text", lambda place, small: compose("tokenizer"),
    "must be a list of step names")
refused("configs", "a class that there is not",
    lambda place, small: configure("lstm3risk", vocab_size=9, n_tab_features=1),
    "no model class 'lstm3risk'")
refused("configs", "a class without its vocabulary",
    lambda place, small: configure("lstm2risk", n_tab_features=1), "vocab_size")
refused("configs", "a model of a negative size",
    lambda place, small: configure("lstm2risk", vocab_size=9, n_tab_features=1, hidden_size=-8),
    "hidden_size")
refused("configs", "a model with another's dimension",
    lambda place, small: configure("lstm2risk", vocab_size=9, n_tab_features=1, n_blocks=2),
    "has no n_blocks")
refused("configs", "a fusion with nothing",
    lambda place, small: configure("bimodal_gate_fusion", vocab_size=9, n_tab_features=0),
    "fuses text with tabular columns and there are none")
refused("configs", "costs that are NaN", lambda place, small: Costs(float("nan"), 1.0),
    "positive finite number")
refused("configs", "a false-positive rate of 2",
    lambda place, small: operating_points([0, 1], [0.1, 0.9], rates=[2.0]), "2.0 not in (0, 1)")
refused("configs", "a margin that is NaN",
    lambda place, small: compare(*[pl.DataFrame({"id": ["1", "2"], "label": [0, 1],
    "score": [0.1, 0.9]})] * 2, margin=float("nan")), "margin nan: expected a number in (0, 1)")
refused("configs", "no synthetic orders", lambda place, small: generate_orders(0), "n_orders is 0")
refused("configs", "synthetic orders of all frauds", lambda place, small: generate_orders(10, base_rate=2.0),
    "base_rate is 2.0")
refused("configs", "a language model's config of 100,000 brackets",
    lambda place, small: LanguageModelConfig.from_file(put(place / "c.json", DEEP)),
    "c.json cannot be read as JSON: too many brackets")
refused("configs", "a language model's config that is a list",
    lambda place, small: LanguageModelConfig.from_file(put(place / "c.json", "[]")),
    "c.json must hold a JSON object")
refused("configs", "a language model's config of wrong values",
    lambda place, small: LanguageModelConfig.from_file(put_json(place / "c.json",
    {"epochs": "many", "n_heads": 3, "zzz": 1})), "c.json", "key 'epochs'", "unknown key 'zzz'")
refused("configs", "a language model with heads that do not divide",
    lambda place, small: LanguageModelConfig.from_file(put_json(place / "c.json",
    {"d_model": 16, "n_heads": 3})), "c.json", "not divisible by n_heads 3")
refused("configs", "a language model with an infinite rate",
    lambda place, small: LanguageModelConfig.from_file(put(place / "c.json", '{"learning_rate": Infinity}')),
    "c.json: key 'learning_rate'")
refused("configs", "a language model that is none", lambda place, small: LanguageModel.load(place),
    "is no language model", "training.json")
refused("configs", "a language model's record of wrong types",
    lambda place, small: LanguageModel.load(put_json(place / "training.json", {"config": []}).parent),
    "training.json is not that of a language model")
refused("configs", "a language model's record that is a list",
    lambda place, small: LanguageModel.load(put_json(place / "training.json", []).parent),
    "training.json is not that of a language model")
refused("configs", "a byte-pair vocabulary of 10", lambda place, small: byte_pair_tokenizer([NAME], 10),
    "vocab_size 10", "257 at least")
refused("configs", "precomputed values of 100,000 brackets",
    lambda place, small: read_precomputed(put(place / "p.json", DEEP)), "p.json", "too many brackets")
refused("configs", "precomputed values that are a pickle",
    lambda place, small: read_precomputed(put(place / "p.json", b"\x80\x04\x95")), "p.json",
    "write a pickled one as JSON")
refused("configs", "precomputed values that are a list",
    lambda place, small: read_precomputed(put(place / "p.json", "[]")), "p.json: expected a JSON object")
refused("configs", "precomputed values that are NaN",
    lambda place, small: read_precomputed(put(place / "p.json", '{"amount": NaN}')), "p.json",
    "need a finite number for ['amount']")
refused("configs", "precomputed risks above 1",
    lambda place, small: read_precomputed(put_json(place / "p.json",
    {"c": {"bins": {NAME: 2}, "default_bin": 0}})), "p.json", "for ['c']")
refused("configs", "precomputed risks of wrong types",
    lambda place, small: read_precomputed(put_json(place / "p.json",
    {"c": {"bins": [NAME], "default_bin": 0}, "d": 5})), "p.json", "for ['c', 'd']")

# ---- parameters ----


def parameters(*texts: str, size: str = "quick") -> Act:
    """What step 03 gets for its epochs and rate."""

    def act(place: Path, small) -> dict[str, Any]:
        found = pipeline.resolve_parameters(size, {}, list(texts))["03_train_lstm2risk"]
        return {key: found[key] for key in ("epochs", "lr")}

    return act


refused("parameters", "an unknown one", parameters("epoch=3"), "no step has the parameter 'epoch'", "epochs")
refused("parameters", "one of another step", parameters("01.hidden_size=3"),
    "no step has the parameter '01.hidden_size'")
refused("parameters", "one of a step that there is not", parameters("99.epochs=3"),
    "no step has the parameter '99.epochs'")
refused("parameters", "a path for a name", parameters("../../etc/passwd=3"),
    "no step has the parameter '../../etc/passwd'")
refused("parameters", "no value", parameters("epochs"), "-p takes KEY=VALUE, not 'epochs'")
refused("parameters", "an empty value", parameters("epochs="),
    "03_train_lstm2risk.epochs is ''; expected int")
refused("parameters", "no key", parameters("=3"), "no step has the parameter ''")
refused("parameters", "nothing", parameters(""), "-p takes KEY=VALUE, not ''")
refused("parameters", "a word for a number", parameters("epochs=many"),
    "03_train_lstm2risk.epochs is 'many'; expected int")
refused("parameters", "a fraction for a whole number", parameters("epochs=1.5"),
    "03_train_lstm2risk.epochs is 1.5; expected int")
refused("parameters", "a list for a number", parameters("epochs=[1, 2]"),
    "03_train_lstm2risk.epochs is [1, 2]; expected int")
refused("parameters", "true for a number", parameters("epochs=true"),
    "03_train_lstm2risk.epochs is True; expected int")
refused("parameters", "null for a number", parameters("epochs=null"),
    "03_train_lstm2risk.epochs is None; expected int")
refused("parameters", "NaN for a whole number", parameters("epochs=NaN"),
    "03_train_lstm2risk.epochs is nan; expected int")
refused("parameters", "an integer of 5,000 digits", parameters("epochs=" + "9" * 5000),
    "03_train_lstm2risk.epochs is", "expected int")
refused("parameters", "100,000 brackets", parameters("epochs=" + DEEP), "03_train_lstm2risk.epochs is",
    "expected int")
refused("parameters", "a value of 1 MB", parameters("epochs=" + "x" * 1_000_000),
    "03_train_lstm2risk.epochs is", "expected int")
refused("parameters", "a number for a list", parameters("seeds=3"), "seeds is 3; expected list")
refused("parameters", "one with an option of its own", parameters("data=orders.csv"),
    "give data with --data, not with -p")
handled("parameters", "one for all steps, another for one", parameters("epochs=3", "03.epochs=4", "lr=1"),
    {"epochs": 4, "lr": 1.0})
refused("parameters", "two wrong ones", parameters("epochs=x", "nope=1"), "03_train_lstm2risk.epochs",
    "no step has the parameter 'nope'")
refused("parameters", "a step by a path", lambda place, small: pipeline.notebook_path("../01_preprocess"),
    "no step '../01_preprocess'", "01_preprocess")
refused("parameters", "a step by nothing", lambda place, small: pipeline.notebook_path(""), "no step ''")
refused("parameters", "of an evaluation, unknown",
    lambda place, small: EvaluationConfig.from_texts(["fprr=0.1"]),
    "unknown key 'fprr' (did you mean 'fpr'?)")
refused("parameters", "of an evaluation, NaN", lambda place, small: EvaluationConfig.from_texts(["fpr=nan"]),
    "key 'fpr'")
refused("parameters", "of an evaluation, no value", lambda place, small: EvaluationConfig.from_texts(["fpr"]),
    "expected KEY=VALUE, found fpr")
refused("parameters", "of an evaluation, all of them wrong",
    lambda place, small: EvaluationConfig.from_texts(["fpr=2", "cost_alarm=-1", "seed=x"]), "key 'fpr'",
    "key 'cost_alarm'", "key 'seed'")
refused("parameters", "of a language model, unknown",
    lambda place, small: LanguageModelConfig.from_file(put(place / "c.json", "{}"), ["epoch=3"]),
    "unknown key 'epoch' (did you mean 'epochs'?)")
refused("parameters", "threads below 1", lambda place, small: Scorer(small.folder, threads=0),
    "threads: expected None or a whole number from 1 to 1024")
refused("parameters", "a billion threads", lambda place, small: Scorer(small.folder, threads=10**9),
    "threads: expected None or a whole number from 1 to 1024")
refused("parameters", "8-bit weights that are not there",
    lambda place, small: Scorer(small.folder, int8=True), "has no 8-bit weights")
refused("parameters", "command: no command", lambda place, small: command("frobnicate"), "No such command")
refused("parameters", "command: a run's name that leads out",
    lambda place, small: command("run", "--name", "../x"), "n3r: the run name '../x' may hold letters")
refused("parameters", "command: a size that there is not",
    lambda place, small: command("run", "--size", "huge"), "n3r: no size 'huge'; there are dev, quick, full")
refused("parameters", "command: a data file that is not there",
    lambda place, small: command("run", "--data", str(place / "o.csv")), "n3r: no file, folder or pattern",
    "o.csv")
refused("parameters", "command: a map of brackets",
    lambda place, small: command("run", "--map", str(put(place / "m.json", DEEP))), "n3r: ",
    "m.json cannot be read as JSON: too many brackets")
refused("parameters", "command: rows that cannot be read",
    lambda place, small: command("score", "--bundle", str(small.folder), "-o", str(place / "s.csv"),
    str(put(place / "o.csv", header(small) + line(small, amount=NAME)))), "n3r: rows that cannot be read",
    "o.csv, row 1, column 'orderAmount': is not a number", "--on-error skip")
refused("parameters", "command: an unknown way with bad rows",
    lambda place, small: command("score", "--bundle", str(small.folder), "-o", "s.csv", "o.csv",
    "--on-error", "ignore"), "n3r: --on-error takes stop or skip, not 'ignore'")
refused("parameters", "command: no bundle",
    lambda place, small: command("score", "--bundle", str(place), "-o", "s.csv", "o.csv"), "n3r: ",
    "is no complete bundle, it has no MANIFEST.json")
refused("parameters", "command: no threads",
    lambda place, small: command("score", "--bundle", str(place), "-o", "s.csv", "o.csv", "--threads", "0"),
    "threads")
refused("parameters", "command: scores twice the same",
    lambda place, small: command("compare", *[str(put(place / "s.csv", "id,score\n1,0.5\n"))] * 2),
    "n3r: both are", "s.csv")
refused("parameters", "command: scores without labels",
    lambda place, small: command("evaluate", str(put(place / "s.csv", "id,score\n1,0.5\n")), "-o",
    str(place / "e")), "n3r: no label on every row of", "s.csv")
refused("parameters", "command: a layout that there is not",
    lambda place, small: command("export", str(place / "x"), "--bundle", str(small.folder), "--layout",
    "pickle"), "n3r: --layout takes sagemaker or torchscript")
refused("parameters", "command: legacy weights that are text",
    lambda place, small: command("import-legacy", str(put(place / "m.pt", NAME)), "--model-class",
    "lstm2risk", "--tokenizer", str(small.folder / "tokenizer.json"), "--features",
    str(put(place / "f.txt", "amount")), "-o", str(place / "b")), "n3r: ",
    "m.pt cannot be read as tensors alone")
refused("parameters", "command: a notebook that there is not", lambda place, small: command("params", "99"),
    "n3r: no step '99'")
refused("parameters", "command: a language model's config that is a folder",
    lambda place, small: command("lm", "train", "--config", str(place)), "n3r: no config")

# ---- bundles ----

JSON_FILES = ("config", "columns", "features", "calibration")
for stem in JSON_FILES:
    refused(
        "bundles",
        f"{stem}.json of 100,000 brackets",
        scorer(**{f"{stem}__json": DEEP}),
        f"{stem}.json cannot be read as JSON: too many brackets",
    )
    refused("bundles", f"{stem}.json that is a list", scorer(**{f"{stem}__json": "[]"}), f"{stem}.json")
    refused("bundles", f"{stem}.json that is null", scorer(**{f"{stem}__json": "null"}), f"{stem}.json")
    refused("bundles", f"{stem}.json without keys", scorer(**{f"{stem}__json": "{}"}), f"{stem}.json")
    refused(
        "bundles",
        f"{stem}.json of bytes",
        scorer(**{f"{stem}__json": b"\xff\xfe\0"}),
        f"{stem}.json cannot be read as JSON",
    )
refused("bundles", "a manifest of 100,000 brackets",
    lambda place, small: Scorer(put(shutil.copytree(small.folder, place / "b") / MANIFEST, DEEP).parent),
    "MANIFEST.json", "too many brackets")
refused("bundles", "a manifest that is a list",
    lambda place, small: Scorer(put(shutil.copytree(small.folder, place / "b") / MANIFEST, "[]").parent),
    "cannot be trusted: MANIFEST.json was altered")
refused("bundles", "a bundle with a name too long", lambda place, small: Scorer("b" * 300), "bbb")
for what, file, change, says in (
    ("texts that are a list", "config", setting("texts", to=[]), "objects model, texts, train, data"),
    ("a model that is null", "config", setting("model", to=None), "objects model, texts, train, data"),
    ("a step that there is not", "config", setting("texts", "steps", to=["nope"]), "no step 'nope'"),
    ("a list for a step", "config", setting("texts", "steps", to=[[]]), "key 'steps.0'"),
    ("texts of 10**30 tokens", "config", setting("texts", "max_tokens", to=10**30), "key 'max_tokens'"),
    ("texts of -1 tokens", "config", setting("texts", "max_tokens", to=-1), "key 'max_tokens'"),
    ("a billion classes", "config", setting("model", "n_classes", to=10**9),
        "config.json and calibration.json are of other classes"),
    ("a text for its classes", "config", setting("model", "n_classes", to="2"),
        "config.json and calibration.json are of other classes"),
    ("texts of a negative length", "config", setting("model", "block_size", to=-5),
        "block_size that is no length"),
    ("texts of a length beyond all", "config", setting("model", "block_size", to=2**63),
        "block_size that is no length"),
    ("texts of a length that is text", "config", setting("model", "block_size", to="x"),
        "block_size that is no length"),
    ("fewer tokens than the tokenizer", "config", setting("model", "vocab_size", to=5),
        "tokenizer.json has more tokens"),
    ("a vocabulary of null", "config", setting("model", "vocab_size", to=None),
        "tokenizer.json has more tokens"),
    ("cleaning for another tokenizer", "config", setting("texts", "steps", to=["dialogue_chunker"]),
        "not for a tokenizer of the kind 'bpe'"),
    ("an id that is a number", "columns", setting("id", to=5), "key 'id'"),
    ("a text column that is a feature too", "columns", lambda c: c.update(text=["orderAmount"], numeric=[]),
        "as numbers, which are text"),
    ("a text column that is a pattern", "columns", setting("text", to=["^.*$"]), "takes for a pattern"),
    ("an id column that is a pattern", "columns", setting("id", to="*"), "takes for a pattern"),
    ("thresholds that are NaN", "calibration", setting("percentile_thresholds", to=[float("nan")] * 999),
        "percentile_thresholds: expected 999 ascending numbers"),
    ("thresholds that descend", "calibration", setting("percentile_thresholds", to=list(range(999, 0, -1))),
        "percentile_thresholds: expected 999 ascending numbers"),
    ("two thresholds", "calibration", setting("percentile_thresholds", to=[0.1, 0.2]),
        "percentile_thresholds: expected 999 ascending numbers"),
    ("a method that there is not", "calibration", setting("method", to="magic"),
        "method: expected isotonic, platt, none"),
    ("a method that is a list", "calibration", setting("method", to=[]),
        "method: expected isotonic, platt, none"),
    ("a billion classes to calibrate", "calibration", setting("n_classes", to=10**9), "calibration.json"),
    ("maps that are NaN", "calibration", setting("maps",
        to=[{"slope": float("nan"), "intercept": 0, "limit": 1}]), "maps: expected ascending knots"),
    ("maps that descend", "calibration", setting("maps", to=[{"score": [0.9, 0.1], "probability": [0, 1]}]),
        "maps: expected ascending knots"),
    ("maps of two lengths", "calibration", setting("maps", to=[{"score": [0.1], "probability": [0, 1]}]),
        "maps: expected ascending knots"),
    ("one map too many", "calibration", lambda c: c["maps"].append({"slope": 1, "intercept": 0, "limit": 1}),
        "maps: expected"),
    ("an unknown key of a calibration", "calibration", setting("zzz", to=1), "'zzz' is unknown"),
    ("features without knots", "features", removing("knots"), "lacks ['knots']"),
    ("features with an unknown key", "features", setting("zzz", to=1), "unknown keys ['zzz']"),
    ("an imputation that is a list", "features", setting("imputation", to=[]),
        "wrong values in ['imputation']"),
    ("an imputation that is text", "features", setting("imputation", "*", to=NAME), "of imputation"),
    ("an imputation that is NaN", "features", setting("imputation", "*", to=float("nan")), "of imputation"),
    ("knots that descend", "features", setting("knots", "*", to={"value": [2, 1], "score": [0, 1]}),
        "knots that do not ascend"),
    ("knots that are one point", "features",
        setting("knots", "*", to={"value": [1, 1, 1], "score": [0, 1, 2]}), "knots that do not ascend"),
    ("one knot", "features", setting("knots", "*", to={"value": [1], "score": [0]}),
        "knots that do not ascend, one score each"),
    ("no knots", "features", setting("knots", "*", to={"value": [], "score": []}),
        "knots that do not ascend, one score each"),
    ("knots without a score", "features", setting("knots", "*", to={"value": [1, 2]}), "of knots"),
    ("knots with a score too few", "features", setting("knots", "*", to={"value": [1, 2], "score": [0]}),
        "one score each"),
    ("a score that is NaN", "features", setting("knots", "*",
        to={"value": [1, 2], "score": [0, float("nan")]}), "of knots"),
    ("knots that span more than a float", "features",
        setting("knots", "*", to={"value": [-1e308, 1e308], "score": [0, 1]}), "knots that do not ascend"),
    ("knots of no feature", "features", setting("knots", "zzz", to={"value": [1, 2], "score": [0, 1]}),
        "knots of the unknown features ['zzz']"),
    ("an indicator of no feature", "features", lambda c: c["indicators"].append("zzz"),
        "indicators of the unknown features ['zzz']"),
    ("an indicator twice", "features", lambda c: c["indicators"].append(c["indicators"][0]),
        "indicators twice"),
    ("an indicator too few", "features", lambda c: c["indicators"].clear(), "the graph cannot run"),
    ("indicators that are lists", "features", setting("indicators", to=[[]]), "of indicators"),
    ("a risk above 1", "features", setting("risk_tables", "r",
        to={"bins": {NAME: 7.0}, "default_bin": 0.1, "column": "c", "class": 1}), "r of risk_tables"),
    ("a risk table without its column", "features",
        setting("risk_tables", "r", to={"bins": {NAME: 0.5}, "default_bin": 0.1}), "r of risk_tables"),
    ("a risk table named as a number", "features",
        setting("risk_tables", "orderAmount",
        to={"bins": {}, "default_bin": 0.1, "column": "c", "class": 1}),
        "two features named ['orderAmount']"),
    ("a feature config with an unknown key", "features", setting("config", "zzz", to=1),
        "wrong config: unknown key 'zzz'"),
    ("a feature config that is null", "features", setting("config", to=None), "wrong config"),
    ("precomputed risks that are text", "features", setting("precomputed_risk", to="yes"),
        "precomputed_risk"),
):
    refused("bundles", what, scorer(**{f"{file}__json": change}), "bundle", says)
refused("bundles", "a graph that is text", scorer(model__onnx=NAME), "model.onnx cannot be read")
refused("bundles", "a graph, empty", scorer(model__onnx=b""), "model.onnx cannot be read")
refused("bundles", "a graph cut short",
    lambda place, small: scorer(model__onnx=(small.folder / "model.onnx").read_bytes()[:5000])(place, small),
    "model.onnx cannot be read")
refused("bundles", "a graph that reads something else",
    scorer(model__onnx=graph({**READS, "secrets": TensorProto.FLOAT})),
    "the graph reads ['secrets'], which n3r does not know")
refused("bundles", "a graph that gives something else", scorer(model__onnx=graph(READS, "logits")),
    "the graph gives ['logits'] in place of probs")
refused("bundles", "a graph that gives three classes", scorer(model__onnx=graph(READS, columns=3)),
    "something else than a probability for each class")
refused("bundles", "a graph that gives NaN", scorer(model__onnx=graph(READS, values=[float("nan")] * 2)),
    "something else than a probability for each class")
refused("bundles", "a graph that gives infinity", scorer(model__onnx=graph(READS, values=[float("inf"), 0])),
    "something else than a probability for each class")
refused("bundles", "a graph that gives logits", scorer(model__onnx=graph(READS, values=[-3.0, 3.0])),
    "something else than a probability for each class")
refused("bundles", "a graph that reads a second text",
    scorer(model__onnx=graph({**READS, "secondary": TensorProto.INT64})),
    "name `secondary_text` in the column map")
refused("bundles", "a graph that reads texts as fractions",
    scorer(model__onnx=graph({**READS, "text": TensorProto.FLOAT})), "the graph cannot run")
handled("bundles", "a graph of constants, by the same names", scorer(model__onnx=graph(READS)), 3)
refused("bundles", "weights that are text", loaded(model__safetensors=NAME),
    "model.safetensors cannot be read")
refused("bundles", "weights of another size", loaded(config__json=setting("model", "hidden_size", to=9)),
    "model.safetensors cannot be read")
refused("bundles", "metrics of 100,000 brackets", loaded(metrics__json=DEEP),
    "metrics.json cannot be read as JSON")
refused("bundles", "to train on: a config that is a list", loaded(config__json="[]"),
    "config.json must hold an object")
refused("bundles", "to train on: texts that are a list", loaded(config__json=setting("texts", to=[])),
    "config.json must hold an object")
refused("bundles", "to train on: training that is a list", loaded(config__json=setting("train", to=[])),
    "config.json must hold an object")
refused("bundles", "to train on: an unknown setting of training",
    loaded(config__json=setting("train", "zzz", to=1)),
    "config.json does not describe a model and its training")
refused("bundles", "to train on: texts of -1 tokens",
    loaded(config__json=setting("texts", "max_tokens", to=-1)), "config.json", "key 'max_tokens'")
refused("bundles", "to train on: features that are null", loaded(features__json="null"), "features.json")
refused("bundles", "to train on: a calibration that is a list", loaded(calibration__json="[]"),
    "calibration.json")

# ---- tokenizers ----

for what, content, says in (
    ("empty", b"", "is not a tokenizer file"),
    ("not JSON", NAME, "is not a tokenizer file"),
    ("100,000 brackets", DEEP, "is not a tokenizer file"),
    ("100,000 brackets where a step is due", '{"normalizer": ' + DEEP, "is not a tokenizer file"),
    ("a list", "[]", "is not a tokenizer file"),
    ("no keys", "{}", "is not a tokenizer file"),
    ("bytes", b"\xff\xfe", "is not a tokenizer file"),
    ("a vocabulary that is empty", setting("model", "vocab", to={}), "tokenizer"),
    ("a vocabulary that is a list", setting("model", "vocab", to=[NAME]), "is not a tokenizer file"),
    ("a number for a token's number", setting("model", "vocab", "a", to=NAME), "is not a tokenizer file"),
    ("a token's number below 0", setting("model", "vocab", "a", to=-1), "is not a tokenizer file"),
    ("a token's number far beyond the others", setting("model", "vocab", "zzz", to=10**6),
        "not numbered one by one"),
    ("a token's number twice", setting("model", "vocab", "zzz", to=9), "not numbered one by one"),
    ("no special tokens", lambda s: [s["model"]["vocab"].pop(t) for t in ("[CLS]", "|")],
        "not numbered one by one"),
    ("special tokens in another order", lambda s: s["model"]["vocab"].update({"[CLS]": 1, "[PAD]": 0}),
        "special tokens"),
    ("merges of tokens that there are not", setting("model", "merges", to=[[NAME, NAME]]),
        "is not a tokenizer file"),
    ("merges that are numbers", setting("model", "merges", to=5), "is not a tokenizer file"),
    ("a model of another kind", setting("model", "type", to=NAME), "is not a tokenizer file"),
    ("a normaliser of another kind", setting("normalizer", to={"type": NAME}), "is not a tokenizer file"),
    ("a pattern that is none", setting("normalizer",
        to={"type": "Replace", "pattern": {"Regex": "("}, "content": ""}), "is not a tokenizer file"),
    ("a pre-tokeniser of a wrong type", setting("pre_tokenizer", to=[NAME]), "is not a tokenizer file"),
    ("a version of the future", setting("version", to="99"), "is not a tokenizer file"),
):
    refused("tokenizers", what, tokenizer_with(content), "tokenizer.json", says)
for what, content, says in (
    ("metadata that are a list", "[]", "tokenizer_metadata.json must hold one JSON object, found list"),
    ("metadata that are null", "null", "tokenizer_metadata.json must hold one JSON object"),
    ("metadata of 100,000 brackets", DEEP,
        "tokenizer_metadata.json cannot be read as JSON: too many brackets"),
    ("metadata of bytes", b"\xff", "tokenizer_metadata.json cannot be read as JSON"),
    ("metadata of a BERT without its tokens", '{"model_type": "BERT"}', "the tokenizer has no pad_token"),
    ("metadata of a BERT with lists for tokens", '{"model_type": "BERT", "pad_token": []}',
        "the tokenizer has no pad_token"),
):
    refused("tokenizers", what, tokenizer_with(None, content), says)
handled("tokenizers", "metadata of another kind",
    lambda place, small: tokenizer_with(None, '{"model_type": 5}')(place, small) > 0, True)
refused("tokenizers", "none in the folder", lambda place, small: NameTokenizer.load(place),
    "tokenizer.json does not exist: run step 02_tokenizer first")
refused("tokenizers", "a BERT's that is of names", lambda place, small: BertTokenizer.load(small.folder),
    "the tokenizer has no pad_token")
refused("tokenizers", "prose: of names", lambda place, small: load_prose_tokenizer(str(small.folder)),
    "has no token <|endoftext|>")
refused("tokenizers", "prose: none", lambda place, small: load_prose_tokenizer(str(place / "t.json")),
    "no tokenizer", "t.json")
refused("tokenizers", "prose: not JSON",
    lambda place, small: load_prose_tokenizer(str(put(place / "t.json", NAME))),
    "t.json is not a tokenizer file")
refused("tokenizers", "a legacy's that is not JSON",
    lambda place, small: import_legacy(put(place / "m.pt", ""), "lstm2risk", put(place / "t.json", NAME),
    put(place / "f.txt", "a"), column_map()), "m.pt")
refused("tokenizers", "a tokenizer in a bundle that is not its own", scorer(tokenizer__json='{"model": 5}'),
    "tokenizer.json cannot be read")
refused("tokenizers", "tokens beyond the graph's in a bundle",
    scorer(tokenizer__json=setting("model", "vocab", "zzz", to=958)), "tokenizer.json has more tokens")

refused("tokenizers", "a legacy's features of 100,000 brackets",
    lambda place, small: import_legacy(legacy_weights(small, place), "lstm2risk",
    small.folder / "tokenizer.json", put(place / "f.json", DEEP), column_map()), "f.json")
refused("tokenizers", "a legacy's features that are numbers",
    lambda place, small: import_legacy(legacy_weights(small, place), "lstm2risk",
    small.folder / "tokenizer.json", put(place / "f.json", "[1, 2]"), column_map()),
    "f.json is no list of column names")
refused("tokenizers", "a legacy's that repeats a token in its message",
    lambda place, small: import_legacy(legacy_weights(small, place), "lstm2risk",
    put_json(place / "t.json", {"model": {"type": "BPE", "vocab": {"a": NAME}, "merges": []}}),
    put(place / "f.txt", "amount"), column_map()), "t.json is not a tokenizer file")

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


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.kind}: {case.name}")
def test_bad_input_is_handled_as_the_table_says(case, small, tmp_path, tally, capfd):
    with in_time(SECONDS):
        if case.says:
            with pytest.raises((ValueError, FileNotFoundError)) as caught:
                case.act(tmp_path, small)
            message = str(caught.value)
            assert all(words in message for words in case.says), message[:LONGEST_MESSAGE]
            assert len(message) <= LONGEST_MESSAGE, f"{len(message)} characters: {message[:200]}"
            assert NAME not in message and NAME.lower() not in message
        else:
            expected = case.gives(small) if callable(case.gives) else case.gives
            assert case.act(tmp_path, small) == expected
    said = "".join(capfd.readouterr())
    assert NAME not in said and "panicked" not in said and "Traceback" not in said
    tally(PROMISE, f"{case.kind} refused or handled as the table says", 1, 0)


def test_the_table_is_large_and_names_each_case_once():
    assert len(CASES) >= 150
    names = [(case.kind, case.name) for case in CASES]
    assert len(set(names)) == len(names)
    assert {case.kind for case in CASES} == {
        "files", "columns", "values", "configs", "parameters", "bundles", "tokenizers"
    }  # fmt: skip


def test_the_program_says_one_thing_and_ends_with_2(small, tmp_path, tally):
    names = [b"rows.csv", b"row\xffs.csv", b"nowhere.csv"]
    files = [tmp_path / os.fsdecode(name) for name in names]
    for path in files[:2]:
        put(path, header(small) + line(small, amount=NAME) + line(small))
    n3r = [sys.executable, "-m", "n3r.cli", "score", "--bundle", small.folder, "-o", tmp_path / "scores.csv"]
    said = ["rows that cannot be read", "rows that cannot be read", "no file, folder or pattern"]
    for path, words in zip(files, said, strict=True):
        with in_time(SECONDS):
            done = subprocess.run([*n3r, path], cwd=pipeline.ROOT, capture_output=True)
        message = done.stderr.decode(errors="replace").rpartition("\r")[2]  # behind the progress bar
        assert done.returncode == 2 and words in message and message.count("n3r:") == 1, message
        assert b"Traceback" not in done.stderr and NAME not in message and not done.stdout
        assert not (tmp_path / "scores.csv").exists()
        tally(PROMISE, "parameters refused or handled as the table says", 1, 0)
    done = subprocess.run([*n3r, files[1], "--on-error", "skip"], cwd=pipeline.ROOT, capture_output=True)
    assert done.returncode == 0 and b"2 rows read, 1 scored, 1 rejected" in done.stderr


# ---- anything at all ----

# What breaks programs: halves of characters, controls, combining marks, marks of direction, joined emoji.
ODD = [
    "\0",
    "\r",
    "\n",
    "\t",
    '"',
    ",",
    "|",
    "\x1b",
    "\x85",
    "\u2028",
    "\ufeff",
    "\ufffe",
    "\ud800",
    "\udfff",
]
ODD += [
    "\u0301",
    "\u0f7c",
    "\u200b",
    "\u200d",
    "\u200e",
    "\u200f",
    "\u202e",
    "\u2066",
    "\U000e0061",
    "\U0010ffff",
]
ODD += ["👩\u200d👩\u200d👧", "🇩🇪", "ﷺ", "ß", "İ", "ǆ", "e\u0301" * 9, "[MISSING]", "[CLS]", "а", "Ω", "漢"]
any_text = st.lists(
    st.one_of(st.sampled_from(ODD), st.characters(), st.sampled_from(["Zoe", " "])), max_size=12
).map("".join)
whole_text = st.one_of(st.none(), any_text.map(lambda text: text.encode(errors="replace").decode()))
any_number = st.one_of(st.none(), st.floats(), st.floats(width=32), st.booleans())
spelled_number = st.one_of(any_number, st.integers(), any_text, st.sampled_from(["1e999", "-0", "١", "0x1"]))
seldom = settings(
    max_examples=30, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
ROWS = "random Unicode rows through preparing, tokenising and scoring"
BYTES = "rows of random bytes scored or rejected with a reason"


def are_probabilities(scored: pl.DataFrame) -> bool:
    """Whether every column but the id holds numbers in [0, 1] alone."""
    return all(
        column.is_between(0, 1).all() and not column.null_count()
        for column in scored.iter_columns()
        if column.dtype.is_float()
    )


@given(data=st.data())
@seldom
def test_any_text_and_number_is_prepared_tokenised_and_scored(small, tally, data):
    columns = small.bundle.column_map
    numbers = columns.numeric[:3]
    rows = data.draw(
        st.lists(
            st.tuples(*[whole_text] * len(columns.text), *[any_number] * len(numbers)), min_size=1, max_size=8
        )
    )
    names = [*columns.text, *numbers]
    found = {name: list(values) for name, values in zip(names, zip(*rows, strict=True), strict=True)}
    # Numbers as a Parquet of numbers has them; the other orders make splits of both classes.
    found |= {name: pl.Series(found[name], dtype=pl.Float64, strict=False) for name in numbers}
    found |= {name: pl.Series(found[name], dtype=pl.String) for name in columns.text}
    odd = small.orders.head(len(rows)).with_columns(**found)
    odd = odd.with_columns(
        objectId=pl.format("odd{}", pl.int_range(pl.len())),
        customerId=pl.format("odd{}", pl.int_range(pl.len())),
    )
    whole = pl.concat([odd.select(small.orders.columns), small.orders.slice(100, 200)])
    result = prepare(whole.lazy(), columns)
    kept = pl.concat(result.splits.values())
    assert kept.height + result.report.steps["rows_dropped"].sum() == whole.height
    mine = kept.filter(pl.col("objectId").str.starts_with("odd"))
    tokens = small.bundle.tokenizer.encode(mine.select(columns.text), 512)
    assert len(tokens) == mine.height and (tokens.lengths > 0).all() and (tokens.lengths <= 512).all()
    assert (
        not len(tokens.ids) or 0 <= tokens.ids.min() <= tokens.ids.max() < small.bundle.tokenizer.vocab_size
    )
    assert np.isfinite(small.bundle.features.transform(mine)).all()
    scored = scorer_of(small.folder).score(odd)
    assert scored.height == odd.height and are_probabilities(scored)
    p = small.bundle.predict(mine)
    assert np.isfinite(p).all()
    same = mine.select("objectId").join(scored, on="objectId", how="left", maintain_order="left")
    assert np.abs(same["score"].to_numpy() - p[:, 1]).max(initial=0) < 1e-4
    tally(PROMISE, ROWS, len(rows), 0)


@given(data=st.data())
@seldom
def test_any_order_given_as_a_dict_is_scored_or_refused_by_column(small, tally, data):
    inputs = scorer_of(small.folder).inputs
    order = dict.fromkeys(inputs.names)
    order |= {
        name: data.draw(st.one_of(st.none(), any_text, st.integers(), st.floats())) for name in inputs.text
    }
    order |= {name: data.draw(spelled_number) for name in inputs.numeric[:4]}
    try:
        score = scorer_of(small.folder).score_one(order)
    except ValueError as error:
        assert "is not a number" in str(error) and any(
            f"{name!r}" in str(error) for name in inputs.numeric[:4]
        )
    else:
        assert 0 <= score <= 1
        table = scorer_of(small.folder).explain_one(order)
        assert table["contribution"].is_finite().all()
    tally(PROMISE, ROWS, 1, 0)


JUNK = [None, True, 0, -1, 1.5, 1e308, 1e-320, float("nan"), 10**30, 2**63, "", "x", "\ud800", "^.*$", "*"]
JUNK += [[], {}, [[]], [1], {"x": 1}, {"": None}, [1e308, -1e308]]
CONFIGS = ["config", "columns", "features", "calibration", "tokenizer", "tokenizer_metadata"]


@given(
    stem=st.sampled_from(CONFIGS),
    junk=st.sampled_from(JUNK),
    steps=st.lists(st.integers(0, 40), min_size=1, max_size=4),
)
@seldom
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
        assert len(str(error)) <= LONGEST_MESSAGE
    tally(PROMISE, "values anywhere in a bundle's JSON refused or without harm", 1, 0)


def count_bytes(small, place: Path, name: str, content: bytes) -> int:
    """Score a file of these bytes; how many rows it has."""
    for old in place.iterdir():
        old.unlink()
    told = score(small, put(place / name, content))
    return sum(int(part.split()[0]) for part in told.split(";")[0].split(","))


noise = st.lists(
    st.one_of(
        st.binary(max_size=40),
        st.sampled_from([b"\n", b'"', b",", b"\r\n", b"\0", b"\xff", b'{"', b"\\ud800"]),
    ),
    max_size=8,
).map(b"".join)


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl"])
@given(pieces=st.lists(st.one_of(noise, st.just(None)), max_size=6), cells=st.lists(any_text, max_size=3))
@seldom
def test_rows_of_any_bytes_are_scored_or_rejected_with_a_reason(small, tmp_path, tally, kind, pieces, cells):
    separator = "\t" if kind == "tsv" else ","
    if kind == "jsonl":
        good = json.dumps(an_order(small)).encode() + b"\n"
        head = good
        odd = [json.dumps(an_order(small, customerName=cell)).encode() + b"\n" for cell in cells]
    else:
        good, head = line(small, separator=separator).encode(), header(small, separator).encode()
        odd = [line(small, name=cell, separator=separator).encode(errors="surrogatepass") for cell in cells]
    content = head + b"".join(good if piece is None else piece for piece in pieces) + b"".join(odd)
    tally(PROMISE, BYTES, count_bytes(small, tmp_path, f"rows.{kind}", content), 0)


@pytest.mark.parametrize("what", ["x", "漢", "e\u0301", "\u202e", "а", "👩\u200d", "a ", "."])
def test_a_megabyte_in_each_text_column_is_read_in_time(small, tmp_path, tally, what):
    columns = small.bundle.column_map
    huge = what * (1_000_000 // len(what.encode()))
    with in_time(SECONDS):
        order = small.orders.head(1).with_columns(pl.lit(huge).alias(name) for name in columns.text)
        alone = scorer_of(small.folder).score(order)
        assert are_probabilities(alone)
        assert scorer_of(small.folder).score_one(order.row(0, named=True)) == pytest.approx(
            alone["score"][0], abs=1e-5
        )
        assert (
            count_bytes(small, tmp_path, "huge.csv", header(small).encode() + line(small, name=huge).encode())
            == 1
        )
        found = prepare(pl.concat([order, small.orders.slice(100, 200)]).lazy(), columns).splits
        assert max(
            len(small.bundle.tokenizer.encode(split.select(columns.text), 512).ids)
            for split in found.values()
        )
    tally(PROMISE, ROWS, 1, 0)


def test_ten_thousand_columns_of_any_name_change_no_score(small, tally):
    names = [f"{ODD[i % len(ODD)]}{i}".encode(errors="replace").decode() for i in range(10_000)]
    orders = small.orders.head(20)
    wide = orders.with_columns(pl.lit("x").alias(name) for name in names)
    with in_time(SECONDS):
        assert scorer_of(small.folder).score(wide).equals(scorer_of(small.folder).score(orders))
        kept = prepare(
            pl.concat([orders, small.orders.slice(100, 200)])
            .with_columns(pl.lit(1.0).alias(name) for name in names)
            .lazy(),
            small.bundle.column_map,
        )
        assert sum(map(len, kept.splits.values())) > 0
    tally(PROMISE, ROWS, len(orders), 0)
