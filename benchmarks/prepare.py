"""Tokenizers, epochs of batches and preprocessing: n3r beside the legacy, interleaved in one process.

    python -m benchmarks.prepare tokenizer     training on 200,000 texts
    python -m benchmarks.prepare epoch         tokenising and collating 200,000 texts
    python -m benchmarks.prepare preprocess    orders per second from Parquet to splits, no legacy
    python -m benchmarks.prepare wide          the same of tables with many columns, CSV beside Parquet
    python -m benchmarks.prepare out-of-core   orders on the engine disk with 1 GB, by their number
    python -m benchmarks.prepare ray           orders on two nodes of Ray on this machine, beside in memory
    python -m benchmarks.prepare memory        peak memory of a training, by the number of orders

One JSON line per pair or size, and one with the medians. Texts and orders are synthetic, four fields of names
joined. `epoch` times the first epoch, in which n3r tokenises, and later ones, in which it only collates; the
legacy tokenises in each, and is timed on a twentieth of the texts. Memory is the peak of a process of its
own, on Linux; `memory` trains the smallest LSTM2Risk for an epoch, so that what grows is data.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.cluster import OWN_NETWORK
from n3r import tables
from n3r.data import OrderDataset, build_lstm2risk_collate_fn, make_loader
from n3r.encode import RowEncoder
from n3r.legacy.trainer import LegacyTextDataset, LegacyTokenizer, legacy_lstm_collate, legacy_tabular
from n3r.preprocess import prepare
from n3r.schema import LABEL, TEXT, ColumnMap
from n3r.synthetic.orders import generate_orders
from n3r.tokenizer import Reader, TextConfig
from n3r.vocabulary import train_tokenizer

COLUMNS = Path(__file__).resolve().parent.parent / "configs" / "orders.json"
BATCH = 512
PART = 1_000_000  # orders of one Parquet file
DIFFERENT = 10  # files of different orders
SMALLEST = 2_000  # orders that can be split
WIDE = {"id": "id", "text": ["name"], "label": "label", "label_values": {"0": 0, "1": 1}, "numeric": ["*"]}
WIDE["split_by"] = "random"

OWN_PEAK = """
import json, re, sys, time
from pathlib import Path
from n3r import preprocess, tables
from n3r.schema import ColumnMap
columns, started = ColumnMap.from_file(sys.argv[1]), time.perf_counter()
def finish(**figures):
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    peak = int(re.search(r"VmHWM:\\s+(\\d+)", status)[1]) / 1024
    print(json.dumps({"seconds": time.perf_counter() - started, "peak_mb": peak, **figures}))
"""
PREPROCESS = f"""{OWN_PEAK}
source = tables.scan(sys.argv[2], columns)
found = preprocess.prepare_source(source, columns)
tables.write_splits(sys.argv[3], found.splits, found.column_map, source.format)
finish()
"""
OUT_OF_CORE = f"""{OWN_PEAK}
from n3r.engine import start
engine = start("disk", Path(sys.argv[3] + "-engine"), "1GB")
source = tables.scan(sys.argv[2], columns, engine=engine)
found = preprocess.prepare_source(source, columns, engine=engine)
tables.write_splits(sys.argv[3], found.parts, found.column_map)
engine.close()
finish()
"""
TWO_NODES = f"""{OWN_PEAK}
import os, tempfile, threading
from n3r.engine.ray import Ray  # before Ray itself, which reads its settings
from ray.cluster_utils import Cluster
def taken():  # of all processes in this network, which are its own; what they share counts once
    network, total = os.readlink("/proc/self/ns/net"), 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(process / "ns" / "net") == network:
                total += int(re.search(r"Pss:\\s+(\\d+)", (process / "smaps_rollup").read_text())[1]) / 1024
        except (OSError, TypeError):
            pass  # it has ended
    return total
def watch():
    while peak[1]:
        peak[0] = max(peak[0], taken())
        time.sleep(0.3)
peak = [0, True]
os.environ["POLARS_MAX_THREADS"] = "1"
Path(tempfile.gettempdir(), "ray").mkdir(exist_ok=True)  # where a cluster notes its address
with tempfile.TemporaryDirectory(prefix="n3r-") as place:
    node = dict(num_cpus=1, object_store_memory=200 * 10**6, temp_dir=place, node_ip_address="127.0.0.1")
    cluster = Cluster(True, head_node_args=node)
    cluster.add_node(**node)
    threading.Thread(target=watch).start()
    started = time.perf_counter()
    engine = Ray(Path(sys.argv[3] + "-engine"), 10**9, cluster.address)
    source = tables.scan(sys.argv[2], columns, engine=engine)
    found = preprocess.prepare_source(source, columns, engine=engine)
    tables.write_splits(sys.argv[3], found.parts, found.column_map)
    seconds, peak[1] = time.perf_counter() - started, False
    engine.close()
    cluster.shutdown()
finish(seconds=seconds, peak_mb=peak[0])
"""
TRAINING = f"""{OWN_PEAK}
from n3r.bundle import Recipe, train_bundle
from n3r.features import TabularFeatures
from n3r.model import configure
from n3r.train import TrainConfig
from n3r.vocabulary import train_tokenizer
columns = tables.read_column_map(sys.argv[2])
splits = {{name: tables.read_split(sys.argv[2], name) for name in ("train", "val")}}
begun = time.perf_counter()
tokenizer, _ = train_tokenizer(splits["train"].select(columns.text))
tokenizer_seconds = time.perf_counter() - begun
features = TabularFeatures().fit(splits["train"], columns.numeric, columns.categorical)
sizes = {{"embedding_size": 4, "hidden_size": 4, "n_lstm_layers": 1, "n_tab_bins": 0}}
config = configure("lstm2risk", vocab_size=tokenizer.vocab_size, n_tab_features=len(features), **sizes)
recipe = Recipe(tokenizer, features, columns, TrainConfig(epochs=1))
begun = time.perf_counter()
train_bundle(config, splits, recipe, Path(sys.argv[3]))
finish(tokenizer_seconds=tokenizer_seconds, epoch_seconds=time.perf_counter() - begun)
"""


def seconds(call: Callable[[], object]) -> float:
    """How long a call takes."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def prepared(n_rows: int) -> tuple[pl.DataFrame, ColumnMap]:
    """So many prepared training rows."""
    orders = generate_orders(round(n_rows * 2.1), seed=0)
    found = prepare(orders.lazy(), ColumnMap.from_file(COLUMNS))
    return found.splits["train"].head(n_rows), found.column_map


def tokenizer_case(n_rows: int, n_pairs: int) -> list[dict[str, float]]:
    """Seconds of training a tokenizer."""
    frame, columns = prepared(n_rows)
    fields, texts, sizes, pairs = frame.select(columns.text), frame[TEXT].to_list(), {}, []
    for _ in range(n_pairs):
        pair = {
            "n3r": seconds(lambda: sizes.update(n3r=train_tokenizer(fields)[0].vocab_size)),
            "legacy": seconds(lambda: sizes.update(legacy=LegacyTokenizer().train(texts).vocab_size)),
        }
        pairs.append({**pair, "ratio": pair["legacy"] / pair["n3r"]})
        print(json.dumps({**_rounded(pairs[-1]), "rows": len(frame), "vocab_size": sizes}), flush=True)
    return pairs


def epoch_case(n_rows: int, n_pairs: int) -> list[dict[str, float]]:
    """Seconds of an epoch of batches, tokenising included."""
    frame, columns = prepared(n_rows)
    tokenizer, _ = train_tokenizer(frame[: n_rows // 4].select(columns.text))
    legacy = LegacyTokenizer().train(frame[TEXT][: n_rows // 4].to_list())
    texts, label = frame[TEXT].to_list(), frame[LABEL].to_numpy()
    tabular = legacy_tabular(frame, columns.numeric)
    fields = {name: frame[name].to_list() for name in columns.text}
    theirs = LegacyTextDataset(texts, tabular, label, legacy)
    collate, few = legacy_lstm_collate(legacy.pad_token), max(1, len(frame) // 20 // BATCH) * BATCH
    pairs = []
    for _ in range(n_pairs):
        started = time.perf_counter()
        texts = RowEncoder(columns, {"text": Reader(tokenizer, TextConfig())}).read(fields)
        data = OrderDataset(texts["text"], tabular, label)
        loader = make_loader(data, build_lstm2risk_collate_fn(tokenizer.pad_token), BATCH, shuffle=True)
        read = time.perf_counter() - started
        later = seconds(lambda loader=loader: [None for _ in loader])
        part = seconds(
            lambda: [
                collate([theirs[i] for i in range(s, min(s + BATCH, few))]) for s in range(0, few, BATCH)
            ]
        )
        pair = {"n3r_first": read + later, "n3r_later": later, "legacy": part * len(frame) / few}
        pair["ratio_first"] = pair["legacy"] / pair["n3r_first"]
        pair["ratio_later"] = pair["legacy"] / pair["n3r_later"]
        pair["ratio_of_10_epochs"] = 10 * pair["legacy"] / (read + 10 * later)
        pairs.append(pair)
        print(json.dumps({**_rounded(pair), "rows": len(frame)}), flush=True)
    return pairs


def preprocess_case(n_rows: int, n_pairs: int) -> list[dict[str, float]]:
    """Orders a second and peak memory from Parquet files to splits on disk."""
    with tempfile.TemporaryDirectory() as folder:
        raw = _write_orders(Path(folder) / "raw", n_rows)
        runs = [_process(PREPROCESS, raw, Path(folder) / "out", n_rows) for _ in range(n_pairs)]
    return runs


def out_of_core_case(n_rows: int, n_pairs: int) -> list[dict[str, float]]:
    """Orders a second and peak memory of 1, 3, 10 and 30 thirtieths of the orders."""
    n_files = 30 if n_rows >= 30 * SMALLEST else 1
    part, runs = n_rows // n_files, []
    with tempfile.TemporaryDirectory() as folder:
        raw = _write_orders(Path(folder) / "raw", n_files * part, part)
        for n in sorted({min(n, n_files) for n in (1, 3, 10, 30)}):
            some = Path(folder) / f"{n}"
            some.mkdir()
            for path in sorted(raw.iterdir())[:n]:
                (some / path.name).hardlink_to(path)
            runs.append(_process(OUT_OF_CORE, some, Path(folder) / "out", n * part))
    return runs


def ray_case(n_rows: int, n_pairs: int) -> list[dict[str, float]]:
    """Seconds on two nodes of Ray, a processor each, that are started here before, beside those in memory."""
    with tempfile.TemporaryDirectory() as folder:
        raw, out = _write_orders(Path(folder) / "raw", n_rows), Path(folder) / "out"
        alone = _process(PREPROCESS, raw, out, n_rows)["seconds"]
        run = _process(TWO_NODES, raw, out, n_rows, within=OWN_NETWORK)
    return [{**run, "in_memory": alone, "ratio": run["seconds"] / alone}]


def wide_case(n_rows: int, n_pairs: int) -> list[dict[str, float]]:
    """Seconds from a file to splits, of the same rows in Parquet and in CSV, by their shape."""
    pairs = []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "columns.json").write_text(json.dumps(WIDE))
        for rows, columns in ((n_rows, 300), (max(100, n_rows // 50), 2_000)):
            for kind in ("parquet", "csv"):
                tables.write(_wide(rows, columns), place / f"{rows}.{kind}")
            for _ in range(n_pairs):
                taken = {}
                for kind in ("parquet", "csv"):
                    run = _process(
                        PREPROCESS, place / f"{rows}.{kind}", place / "out", rows, place / "columns.json"
                    )
                    taken[kind] = run["seconds"]
                shape, ratio = f"{rows:,} x {columns:,}", taken["csv"] / taken["parquet"]
                pairs.append({"shape": shape, **taken, "ratio": ratio})
    return pairs


def _wide(n_rows: int, n_columns: int) -> pl.DataFrame:
    """A table of so many columns, of which all but three are numbers."""
    random = np.random.default_rng(0)
    numbers = random.lognormal(3, 2, (n_columns - 3, n_rows)).round(2)
    own = {"id": [f"id-{i}" for i in range(n_rows)], "name": ["Ana Smith"] * n_rows}
    own["label"] = random.integers(0, 2, n_rows)
    return pl.DataFrame(own | {f"x{i}": column for i, column in enumerate(numbers)})


def memory_case(n_rows: int, n_pairs: int) -> list[dict[str, float]]:
    """Peak memory of a training on a hundredth, a tenth and all of the orders."""
    runs = []
    for n in sorted({max(2000, n_rows // 100), max(2000, n_rows // 10), n_rows}):
        with tempfile.TemporaryDirectory() as folder:
            found = prepare(generate_orders(n, seed=0).lazy(), ColumnMap.from_file(COLUMNS))
            tables.write_splits(Path(folder) / "data", found.splits, found.column_map)
            runs.append(_process(TRAINING, Path(folder) / "data", Path(folder) / "training", n))
    return runs


def _write_orders(folder: Path, n_rows: int, part: int = PART) -> Path:
    """Synthetic orders as Parquet files of so many each; all have ids of their own.

    Files beyond the tenth have the orders of an earlier one again, which saves minutes.
    """
    folder.mkdir()
    for number, start in enumerate(range(0, n_rows, part)):
        n = min(part, n_rows - start)
        if number < DIFFERENT:
            orders = generate_orders(n, seed=number)
        else:
            orders = pl.read_parquet(folder / f"{number % DIFFERENT:03d}.parquet", n_rows=n)
        ids = [pl.format("{}-{}", pl.col(name), number).alias(name) for name in ("objectId", "customerId")]
        orders.with_columns(ids).write_parquet(folder / f"{number:03d}.parquet")
    return folder


def _process(
    code: str,
    source: Path,
    target: Path,
    n_rows: int,
    columns: Path = COLUMNS,
    within: Sequence[str] = (),
) -> dict[str, float]:
    """What a process of its own takes: seconds, orders per second and peak memory."""
    command = [*within, sys.executable, "-c", code, str(columns), str(source), str(target)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    run = {"rows": n_rows, **json.loads(done.splitlines()[-1])}
    run["orders_a_second"] = n_rows / run["seconds"]
    print(json.dumps(_rounded(run)), flush=True)
    return run


CASES = {
    "tokenizer": (tokenizer_case, 200_000),
    "epoch": (epoch_case, 200_000),
    "preprocess": (preprocess_case, 10_000_000),
    "wide": (wide_case, 20_000),
    "out-of-core": (out_of_core_case, 30_000_000),
    "ray": (ray_case, 10_000_000),
    "memory": (memory_case, 1_000_000),
}


def summary(case: str, runs: list[dict[str, float]]) -> dict[str, float | dict]:
    """Medians of the pairs, or figures by the number of rows or the shape."""
    if case == "out-of-core":
        by_rows = {
            key: {run["rows"]: round(run[key]) for run in runs} for key in ("orders_a_second", "peak_mb")
        }
        return {**_rounded(runs[-1]), **by_rows}
    if case == "memory":
        return {
            "peak_mb": {run["rows"]: round(run["peak_mb"]) for run in runs},
            "seconds": {run["rows"]: round(run["seconds"], 1) for run in runs},
        }
    if case == "wide":
        shapes = dict.fromkeys(run["shape"] for run in runs)
        return {
            key: {shape: _median(run[key] for run in runs if run["shape"] == shape) for shape in shapes}
            for key in ("parquet", "csv", "ratio")
        }
    return {key: _median(run[key] for run in runs) for key in runs[0]}


def _median(values: Iterable[float]) -> float:
    return round(statistics.median(values), 3)


def _rounded(figures: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 3) for name, value in figures.items()}


def main() -> None:
    """Print one JSON line per pair and the medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("case", choices=CASES)
    parser.add_argument("--rows", type=int)
    parser.add_argument("--pairs", type=int, default=3)
    arguments = parser.parse_args()
    measure, n_rows = CASES[arguments.case]
    pairs = measure(arguments.rows or n_rows, arguments.pairs)
    found = summary(arguments.case, pairs)
    print(json.dumps({"case": arguments.case, "rows": arguments.rows or n_rows, **found}))


if __name__ == "__main__":
    main()
