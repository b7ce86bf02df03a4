"""Nothing runs that was handed in: files from a stranger execute nothing, lead nowhere and fill no memory."""

import gzip
import json
import os
import pickle
import re
import shutil
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from onnx import TensorProto, helper

from n3r import cli, pipeline
from n3r.bundle import Bundle
from n3r.custom_transformer.corpus import find_documents
from n3r.custom_transformer.language_model import LanguageModel, LanguageModelConfig
from n3r.evaluation.scored import read_scored
from n3r.files.json_io import MAX_JSON
from n3r.files.manifest import FILES, MANIFEST, verify, write_manifest
from n3r.legacy.layouts import import_legacy
from n3r.precomputed import read_precomputed
from n3r.schema import ColumnMap
from n3r.score import Scorer
from n3r.score_files import score_files
from n3r.tables import scan
from n3r.tokenizer import load_tokenizer

PROMISE = "strangers' files"
N3R = [sys.executable, "-m", "n3r.cli"]
COLUMNS = ColumnMap(
    id="id", text=["name"], label="y", label_values={"0": 0, "1": 1}, numeric=["x"], split_by="random"
)


class Payload:
    """Unpickled anywhere, it makes a file."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.mark),)


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """What would be there if anything had run."""
    return tmp_path / "it_ran"


@pytest.fixture
def bundle(small, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small.folder, tmp_path / "bundle"))


def resealed(bundle: Path) -> Path:
    """The bundle with a manifest that fits its files, as its author would write it."""
    (bundle / MANIFEST).unlink(missing_ok=True)
    write_manifest(bundle)
    return bundle


DISGUISES: dict[str, Callable[[Path], bytes]] = {
    "pickle": lambda mark: pickle.dumps(Payload(mark)),
    "YAML object": lambda mark: f"!!python/object/apply:os.mkdir ['{mark}']\n".encode(),
    "Python": lambda mark: f"__import__('os').mkdir({str(mark)!r})\n".encode(),
}


# ---- code


def taken_over(weights: Path) -> object:
    """Import legacy weights with a tokenizer and features beside them."""
    (weights.parent / "t.json").write_text("{}")
    (weights.parent / "f.txt").write_text("x\n")
    return import_legacy(weights, "lstm2risk", weights.parent / "t.json", weights.parent / "f.txt", COLUMNS)


READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "a column map": ("map.json", ColumnMap.from_file),
    "Parquet orders": ("orders.parquet", lambda path: scan(path, COLUMNS)),
    "CSV orders": ("orders.csv", lambda path: scan(path, COLUMNS)),
    "compressed orders": ("orders.csv.gz", lambda path: scan(path, COLUMNS)),
    "imputation values": ("impute_dict.pkl", read_precomputed),
    "scores": ("scores.parquet", read_scored),
    "scores in JSON lines": ("scores.jsonl", read_scored),
    "a language model's config": ("config.json", LanguageModelConfig.from_file),
    "a language model": ("training.json", lambda path: LanguageModel.load(path.parent)),
    "a tokenizer": ("tokenizer.json", lambda path: load_tokenizer(path.parent)),
    "a manifest": (MANIFEST, lambda path: verify(path.parent)),
    "legacy weights": ("model_9.pt", taken_over),
}


@pytest.mark.parametrize("disguise", DISGUISES)
@pytest.mark.parametrize("reader", READERS)
def test_what_is_no_data_is_refused_and_never_run(reader, disguise, mark, tmp_path, tally):
    name, read = READERS[reader]
    (tmp_path / name).write_bytes(DISGUISES[disguise](mark))
    with pytest.raises((ValueError, FileNotFoundError)):
        read(tmp_path / name)
    assert not mark.exists()
    tally(PROMISE, "pickles, YAML objects and code in place of data: none run")


def test_the_pickle_of_these_tests_does_run_where_it_is_loaded(mark):
    pickle.loads(DISGUISES["pickle"](mark))
    assert mark.exists()


@pytest.mark.parametrize("name", FILES)
def test_a_sealed_bundle_with_a_pickle_for_one_of_its_files_runs_nothing(name, bundle, mark, tally):
    (bundle / name).write_bytes(DISGUISES["pickle"](mark))
    resealed(bundle)
    for load in (Scorer, Bundle.load):
        try:
            load(bundle)  # a card, say, is not read at all
        except ValueError as error:
            assert name in str(error)
    assert not mark.exists()
    tally(PROMISE, "bundles whose manifest fits, with a pickle for a file: none run")


def test_a_checkpoint_that_is_a_pickle_is_not_run(planted, mark, tmp_path, tally):
    from n3r.model import configure
    from n3r.train import TrainConfig, fit

    data = planted(60)
    config = configure("lstm2risk", vocab_size=40, n_tab_features=3, hidden_size=4, embedding_size=4)
    settings = TrainConfig(epochs=1, batch_size=16)
    for name in ("last", "best"):
        path = tmp_path / "checkpoints" / f"{name}.ckpt"
        path.parent.mkdir(exist_ok=True)
        torch.save({"plan": "x", "state_dict": Payload(mark)}, path)
    with pytest.warns(UserWarning, match=r"last.ckpt is damaged: training begins anew"):
        fit(config, data, data, settings, tmp_path, pad_token=1)
    assert not mark.exists()
    tally(PROMISE, "checkpoints with a pickle: none run, training begins anew")


def test_a_bert_config_names_no_code(bundle, tally):
    """A configuration that asks for a repository's own classes or kernels gets transformers' own."""
    from n3r.bert import BertEncoder

    plain = {"model_type": "bert", "vocab_size": 20, "hidden_size": 8, "num_hidden_layers": 1}
    plain |= {"num_attention_heads": 2, "intermediate_size": 8, "max_position_embeddings": 16}
    evil = {
        **plain,
        "auto_map": {"AutoModel": "stranger/repository--modeling.Evil", "AutoConfig": "s/r--c.Evil"},
        "_attn_implementation": "stranger/kernels",
        "attn_implementation": "stranger/kernels",
        "quantization_config": {"quant_method": "stranger"},
    }
    encoder = BertEncoder(evil)
    assert type(encoder.bert).__module__.startswith("transformers.models.bert")
    assert not hasattr(encoder.bert.config, "auto_map")
    tally(PROMISE, "BERT configurations that name code: built of transformers' own classes")


# ---- paths


def _name_in_manifest(bundle: Path, secret: Path, name: str) -> None:
    content = json.loads((bundle / MANIFEST).read_text())
    content["files"][name] = {"bytes": secret.stat().st_size, "sha256": "0" * 64}
    (bundle / MANIFEST).write_text(json.dumps(content))


def _link(bundle: Path, secret: Path, name: str) -> None:
    (bundle / name).unlink()
    (bundle / name).symlink_to(secret)


def _outside(bundle: Path, secret: Path, location: str) -> None:
    """A graph whose weights are said to lie outside the bundle."""
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4])
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("length", "16")):
        tensor.external_data.add(key=key, value=value)
    ids = helper.make_tensor_value_info("text", TensorProto.INT64, ["B", "T"])
    probs = helper.make_tensor_value_info("probs", TensorProto.FLOAT, [4])
    graph = helper.make_graph(
        [helper.make_node("Identity", ["w"], ["probs"])], "g", [ids], [probs], initializer=[tensor]
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    made.ir_version = 9
    (bundle / "model.onnx").write_bytes(made.SerializeToString())
    resealed(bundle)


PATHS: dict[str, Callable[[Path, Path], None]] = {
    "a parent in the manifest": lambda b, s: _name_in_manifest(b, s, "../secret"),
    "an absolute path in the manifest": lambda b, s: _name_in_manifest(b, s, str(s)),
    "a folder's file in the manifest": lambda b, s: _name_in_manifest(b, s, "sub/secret"),
    "a link for the card": lambda b, s: _link(b, s, "MODEL_CARD.md"),
    "a link for the weights": lambda b, s: _link(b, s, "model.safetensors"),
    "a link for the graph": lambda b, s: _link(b, s, "model.onnx"),
    "a link for the manifest": lambda b, s: _link(b, s, MANIFEST),
    "a graph's weights in the parent": lambda b, s: _outside(b, s, "../secret"),
    "a graph's weights at an absolute path": lambda b, s: _outside(b, s, str(s)),
    "a graph's weights up and down": lambda b, s: _outside(b, s, "./x/../../secret"),
}


@pytest.mark.parametrize("way", PATHS)
def test_no_path_leads_out_of_a_bundle(way, bundle, tmp_path, tally):
    secret = tmp_path / "secret"
    secret.write_bytes(np.float32([0.25, 0.25, 0.25, 0.25]).tobytes())  # a graph could read them
    PATHS[way](bundle, secret)
    with pytest.raises((ValueError, FileNotFoundError)):
        Scorer(bundle)
    tally(PROMISE, "paths out of a bundle: none followed")


@pytest.mark.parametrize("name", ["../stranger", "/tmp/stranger", "a/b", "..", ".hidden", "-x"])
def test_a_run_has_no_name_that_leads_elsewhere(name, monkeypatch, capsys, tally):
    monkeypatch.setattr(sys, "argv", ["n3r", "run", "01", "--size", "dev", f"--name={name}"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 2 and "may hold letters, digits" in capsys.readouterr().err
    tally(PROMISE, "run names that lead elsewhere: refused")


# ---- sizes


ABSURD = {"vocab_size": 10**10, "hidden_size": 10**7, "n_tab_features": 10**8}
ABSURD |= dict.fromkeys(("embedding_size", "n_lstm_layers", "n_tab_bins", "n_classes"), 10**9)
LOAD = """
import resource, sys
from n3r.bundle import Bundle
resource.setrlimit(resource.RLIMIT_DATA, (6 << 30, 6 << 30))
for folder in sys.argv[1:]:
    try:
        Bundle.load(folder)
    except ValueError as error:
        print("refused:", error)
"""


def test_a_config_of_absurd_sizes_is_refused_before_anything_is_allocated(small, tmp_path, run_fresh, tally):
    places = []
    for name, value in ABSURD.items():
        places.append(Path(shutil.copytree(small.folder, tmp_path / name)))
        config = json.loads((places[-1] / "config.json").read_text())
        config["model"][name] = value
        (places[-1] / "config.json").write_text(json.dumps(config))
        resealed(places[-1])
    told = run_fresh(LOAD, *places).splitlines()
    assert len(told) == len(ABSURD) and all(line.startswith("refused:") for line in told), told
    tally(PROMISE, "absurd dimensions: refused before anything is allocated", len(ABSURD))


def test_a_language_model_of_absurd_sizes_is_refused_before_anything_is_allocated(tmp_path, tally):
    from n3r.custom_transformer.model import CustomTransformerConfig, CustomTransformerWrapper

    CustomTransformerWrapper(CustomTransformerConfig(n_blocks=1, d_model=8, n_heads=2)).save_checkpoint(
        tmp_path / "lm"
    )
    for change in ({"vocab_size": 10**10}, {"d_model": 2**24}, {"n_blocks": 10**9}, {"d_ffn": 10**10}):
        config = json.loads((tmp_path / "lm" / "config.json").read_text())
        place = Path(shutil.copytree(tmp_path / "lm", tmp_path / "evil", dirs_exist_ok=True))
        (place / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(ValueError, match="does not hold the tensors that its config describes"):
            CustomTransformerWrapper.from_checkpoint(place)
        tally(PROMISE, "absurd dimensions: refused before anything is allocated")


@pytest.mark.parametrize(
    "name", ["config.json", "features.json", "calibration.json", "tokenizer.json", MANIFEST]
)
def test_a_huge_file_is_refused_before_it_is_read(name, bundle, tally):
    with (bundle / name).open("r+b") as file:
        file.truncate(MAX_JSON + 1)
    if name != MANIFEST:
        resealed(bundle)
    with pytest.raises(ValueError, match=rf"{name} .* more than {MAX_JSON:,} bytes"):
        Scorer(bundle)
    tally(PROMISE, "huge files: refused before they are read")


def test_a_bundle_of_more_bytes_than_a_limit_is_refused(bundle, tally):
    n_bytes = sum(path.stat().st_size for path in bundle.iterdir()) - (bundle / MANIFEST).stat().st_size
    for load in (Scorer, Bundle.load):
        load(bundle, max_bytes=n_bytes)
        with pytest.raises(ValueError, match=f"has {n_bytes:,} bytes, over {n_bytes - 1:,}.*raise max_bytes"):
            load(bundle, max_bytes=n_bytes - 1)
    tally(PROMISE, "huge files: refused before they are read")


# ---- bombs


def gzip_bomb(path: Path) -> None:
    header = b"id\tname\tx\ty\n" if ".tsv" in path.name else b"id,name,x,y\n"
    with gzip.open(path, "wb") as file:
        file.write(b"" if ".jsonl" in path.name else header)
        for _ in range(280):
            file.write(b"\0" * (1 << 20))


def many_rows(path: Path) -> None:
    n = 12_000_000
    repeated = {name: pl.repeat(value, n, eager=True) for name, value in (("id", 1), ("x", 0.5), ("y", 1))}
    pl.DataFrame(repeated).with_columns(name=pl.lit("a")).write_parquet(path)


def long_text(path: Path) -> None:
    frame = pl.DataFrame({"id": ["1"], "name": ["\0" * (300 << 20)], "x": [0.5], "y": [1]})
    frame.write_parquet(path, compression="zstd")


BOMBS = {
    "orders.csv.gz": gzip_bomb,
    "orders.tsv.gz": gzip_bomb,
    "orders.jsonl.gz": gzip_bomb,
    "rows.parquet": many_rows,
    "text.parquet": long_text,
}


QUICK = ("orders.csv.gz", "rows.parquet")  # the others take seconds each


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in QUICK else [pytest.mark.slow]) for n in BOMBS]
)
def test_bombs_are_refused_by_a_limit_that_is_a_parameter(name, small, tmp_path, tally):
    path = tmp_path / name
    BOMBS[name](path)
    assert path.stat().st_size < 1 << 20
    told = rf"{re.escape(name)} holds more than 200 times its size: a bomb\? if you .* raise max_expansion"
    with pytest.raises(ValueError, match=told):
        scan(path, COLUMNS)
    scorer = Scorer(small.folder)
    scorer.inputs = scorer.inputs._replace(id="id", text=["name"], numeric=["x"], categorical=[])
    with pytest.raises(ValueError, match=told):
        score_files(scorer, [path], tmp_path / "out.csv", skip=True, progress=False)
    assert not (tmp_path / "out.csv").exists()
    if "parquet" not in name:  # of which only the columns that are read count
        with pytest.raises(ValueError, match=told):
            read_scored(path, "x")
    if name != "rows.parquet":
        with pytest.raises(ValueError, match=told):
            find_documents(str(path), "name")
    if name == "text.parquet":
        assert scan(path, COLUMNS, max_expansion=1e9).frame.select(pl.len()).collect().item() == 1
    tally(PROMISE, "gzip, Parquet and zip bombs: refused")


@pytest.mark.slow
def test_a_parquet_footer_that_lies_hides_no_bomb(tmp_path, tally):
    """A reader allocates by the pages' own headers, and so n3r asks these, not the footer's sums."""
    path = tmp_path / "text.parquet"
    long_text(path)
    content = path.read_bytes()
    (length,) = struct.unpack("<I", content[-8:-4])
    footer = content[-8 - length :]
    sums = [varint(2 * ((300 << 20) + more)) for more in range(200)]
    lies = [found for found in sums if found in footer]
    assert lies
    for found in lies:
        footer = footer.replace(found, b"\x82" + b"\x80" * (len(found) - 2) + b"\x00")  # 1, as long
    path.write_bytes(content[: -8 - length] + footer)
    assert pl.read_parquet(path)["name"].str.len_bytes()[0] == 300 << 20
    with pytest.raises(ValueError, match="a bomb"):
        scan(path, COLUMNS)
    tally(PROMISE, "gzip, Parquet and zip bombs: refused")


def varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def test_a_compressed_checkpoint_is_refused(tmp_path, tally):
    torch.save({"w": torch.zeros(1 << 22)}, tmp_path / "model.pt")
    with (
        zipfile.ZipFile(tmp_path / "model.pt") as whole,
        zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for part in whole.infolist():
            bomb.writestr(part.filename, whole.read(part))
    with pytest.raises(ValueError, match="bomb.pt holds more than its size"):
        taken_over(tmp_path / "bomb.pt")
    tally(PROMISE, "gzip, Parquet and zip bombs: refused")


# ---- spreadsheets


FORMULAS = [
    "=1+1",
    "+1",
    "-1+1",
    "@SUM(A1)",
    "\tx",
    "\rx",
    "\n=1",
    " =1",
    "＝1",
    '=HYPERLINK("http://x","y")',
]


@pytest.mark.parametrize("kind", ["csv", "tsv"])
def test_formulas_are_neutralised_where_asked(kind, small, tmp_path, tally):
    ids = pl.Series([*FORMULAS, "plain"])
    small.orders.head(len(ids)).with_columns(objectId=ids).write_parquet(tmp_path / "orders.parquet")
    found = []
    for asked in (False, True):
        out = tmp_path / f"scores.{kind}"
        score_files(Scorer(small.folder), [tmp_path / "orders.parquet"], out, for_spreadsheets=asked)
        table = pl.read_csv(out, separator="\t" if kind == "tsv" else ",", infer_schema=False)
        found.append(table["objectId"].to_list())
    assert found == [[*FORMULAS, "plain"], [*(f"'{text}" for text in FORMULAS), "plain"]]
    tally(PROMISE, "formulas in ids: neutralised where asked", len(FORMULAS))


# ---- pages


EVIL = "<img src=x onerror=\"document.title='it ran'\"><script>document.title='it ran'</script>"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
FLAGS += " --disable-component-update --disable-sync --virtual-time-budget=2000 --dump-dom"


class Page(HTMLParser):
    """Title, text and elements of what the browser made of a page."""

    def __init__(self, page: Path, place: Path):
        super().__init__()
        command = [CHROMIUM, *FLAGS.split(), f"--user-data-dir={place / 'profile'}", page.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        self.elements, self.text = [], ""
        self.feed(done.stdout)
        self.title = re.search(r"<title>(.*?)</title>", done.stdout, re.S)

    def handle_starttag(self, tag: str, attributes: list) -> None:
        self.elements.append((tag, dict(attributes)))

    def handle_data(self, data: str) -> None:
        self.text += data

    @property
    def ran(self) -> bool:
        return self.title is not None and self.title[1].strip() == "it ran"


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium: its package brings a real browser")
def test_user_text_in_reports_is_shown_and_not_run(small, tmp_path, tally):
    trap = tmp_path / "trap.html"
    trap.write_text(f"<!doctype html><title>t</title><p>{EVIL}</p>")
    assert Page(trap, tmp_path).ran  # the browser would run it
    orders = small.orders.with_columns(
        marketplaceCountryCode=pl.lit(EVIL),
        customerName=pl.lit(EVIL),
        emailAddress=pl.lit(EVIL),
        locale=pl.lit(EVIL),
    )
    orders.write_parquet(tmp_path / "orders.parquet")
    ids = small.prepared.splits["test"][small.prepared.column_map.id]
    rng = np.random.default_rng(0)
    for name in (f"{EVIL.replace('/', '_')}.csv", "b.csv"):
        pl.DataFrame({"id": ids, "score": rng.random(len(ids))}).write_csv(tmp_path / name)
    a = tmp_path / f"{EVIL.replace('/', '_')}.csv"
    for command in (["evaluate", a], ["compare", a, tmp_path / "b.csv"]):
        out = tmp_path / command[0]
        whole = [*N3R, *command, "--orders", tmp_path / "orders.parquet", "-o", out]
        subprocess.run(list(map(str, whole)), check=True, capture_output=True, cwd=pipeline.ROOT)
        (path,) = out.glob("*.html")
        page = Page(path, tmp_path)
        assert not page.ran and "<img src=x onerror=" in page.text
        assert [tag for tag, _ in page.elements if tag in ("img", "script")] == ["script"]  # the page's own
        assert not [name for _, names in page.elements for name in names if name.startswith("on")]
        tally(PROMISE, "pages with hostile names, in a real browser: shown, not run")
