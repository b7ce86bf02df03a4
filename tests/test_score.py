"""A row's score is one number: from the training process, alone, in a batch, from any file, without torch."""

import json
import shutil
import signal
import subprocess
import sys
import time
from io import BufferedReader, BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from n3r.bundle import Bundle, Recipe, train_bundle
from n3r.evaluation.explanations import explain_model
from n3r.evaluation.scored import beside
from n3r.features import FeatureConfig, TabularFeatures
from n3r.files.manifest import MANIFEST, write_manifest
from n3r.model import configure
from n3r.schema import LABEL, SEGMENT, ColumnMap
from n3r.score import Scorer
from n3r.score_files import score_files
from n3r.thresholds import Rule
from n3r.tokenizer import TextConfig
from n3r.train import TrainConfig
from n3r.vocabulary import TokenizerConfig, train_tokenizer, train_wordpiece

TEXT, NUMERIC = ["email", "name"], ["amount", "age"]
SMALL = {
    "lstm2risk": {"embedding_size": 8, "hidden_size": 8, "n_lstm_layers": 2, "n_tab_bins": 4},
    "transformer2risk": {
        "embedding_size": 8,
        "hidden_size": 8,
        "n_blocks": 1,
        "n_heads": 2,
        "block_size": 12,
        "n_classes": 3,
    },
    "trimodal_gate_fusion": {"embedding_size": 8, "n_blocks": 1, "n_heads": 2, "hidden_common_dim": 8},
    "lstm": {"embedding_size": 8, "hidden_size": 8},
}
BLOCKED = ("torch", "lightning", "transformers", "sklearn", "scipy", "onnx")
N3R = [sys.executable, "-m", "n3r.cli"]


def columns(model_class: str) -> ColumnMap:
    n_classes = SMALL[model_class].get("n_classes", 2)
    apart = model_class.startswith("trimodal")
    return ColumnMap(
        id="order",
        text=TEXT[:1] if apart else TEXT,
        secondary_text=TEXT[1:] if apart else [],
        label="fraud",
        label_values={str(c): c for c in range(n_classes)},
        numeric=NUMERIC,
        categorical=["shop"],
        split_by="random",
    )


def prepared(n: int, seed: int = 0, n_classes: int = 2) -> pl.DataFrame:
    """Rows as preprocessing leaves them; the label is in the names and in the amount."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, n_classes, n)
    names = np.array(["Ana Ober", "Bo Li", "Дарья Кин"])[(label + (rng.random(n) < 0.2)) % 3]
    return pl.DataFrame(
        {
            "order": [f"o{seed}-{i}" for i in range(n)],
            "email": [f"{name.split(' ')[0].lower()}{i}@box.example" for i, name in enumerate(names)],
            "name": [None if i % 9 == 0 else name for i, name in enumerate(names)],
            "amount": pl.Series(label + rng.normal(size=n), dtype=pl.Float32),
            "age": pl.Series([None if i % 7 == 0 else float(i % 50) for i in range(n)], dtype=pl.Float32),
            "shop": [["toys", "books", None][i % 3] for i in range(n)],
            SEGMENT: ["US"] * n,
            LABEL: pl.Series(label, dtype=pl.Int8),
        },
        strict=False,
    )


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """Model class -> a trained bundle and where it is saved; each is made once."""
    done: dict[str, tuple[Bundle, Path]] = {}

    def make(model_class: str) -> tuple[Bundle, Path]:
        if model_class not in done:
            done[model_class] = _train(model_class, tmp_path_factory.mktemp(model_class))
        return done[model_class]

    return make


def _train(model_class: str, folder: Path) -> tuple[Bundle, Path]:
    column_map = columns(model_class)
    splits = {
        name: prepared(n, seed, column_map.n_classes)
        for seed, (name, n) in enumerate((("train", 300), ("val", 120), ("test", 60)))
    }
    bert = model_class.startswith("trimodal")
    texts = splits["train"].select(TEXT)
    tokenizer = (
        train_wordpiece(texts, 200) if bert else train_tokenizer(texts, TokenizerConfig(min_frequency=2))[0]
    )
    features = TabularFeatures(FeatureConfig(count_threshold=2)).fit(
        splits["train"], NUMERIC, ["shop"], column_map.n_classes
    )
    config = configure(
        model_class,
        vocab_size=tokenizer.vocab_size,
        n_tab_features=0 if model_class == "lstm" else len(features),
        **SMALL[model_class],
    )
    settings = TrainConfig.for_model(config, epochs=2, batch_size=32, lr=0.01, precision="float32", seed=1)
    text_config = TextConfig(max_tokens=24, steps=["text_normalizer"] if bert else [])
    recipe = Recipe(tokenizer, features, column_map, settings, text_config)
    bundle, _ = train_bundle(config, splits, recipe, folder / "training")
    rows = splits["test"] if model_class == "lstm2risk" else None
    bundle.save(folder / "model", int8_rows=rows)
    return bundle, folder / "model"


OFTEN = ("lstm2risk", "trimodal_gate_fusion")  # the others take as long and are read by the same code
every = pytest.mark.parametrize(
    "model_class", [c if c in OFTEN else pytest.param(c, marks=pytest.mark.slow) for c in SMALL]
)
ORDER = {
    "order": "o1",
    "email": "ana@box.example",
    "name": "Ana Ober",
    "amount": 3.0,
    "age": 40,
    "shop": "toys",
}


# --- one score


@pytest.mark.parametrize(
    "model_class",
    [pytest.param(c, marks=[pytest.mark.slow] if c != "trimodal_gate_fusion" else []) for c in SMALL],
)
def test_a_process_without_torch_scores_as_the_training_process_does(made, model_class, tmp_path, run_fresh):
    bundle, folder = made(model_class)
    rows = prepared(257, seed=7, n_classes=bundle.model.config.n_classes)
    rows = pl.concat([rows, rows[:2].with_columns(name=pl.lit(""), email=pl.lit("x" * 3000))])
    rows.drop(LABEL).write_parquet(tmp_path / "rows.parquet")
    rows.drop(LABEL, SEGMENT).write_csv(tmp_path / "rows.csv")
    code = f"""
import json, sys
for name in {BLOCKED}: sys.modules[name] = None  # an import of it raises
import polars as pl
from n3r.score import Scorer
from n3r.score_files import score_files
scorer = Scorer(sys.argv[1])
for kind in ("parquet", "csv"):
    score_files(scorer, [f"{{sys.argv[2]}}/rows.{{kind}}"], f"{{sys.argv[2]}}/out.{{kind}}", progress=False)
rows = pl.read_parquet(f"{{sys.argv[2]}}/rows.parquet")
print(json.dumps([scorer.score_one(row, scorer.outputs[-1]) for row in rows[:20].to_dicts()]))
"""
    alone = json.loads(run_fresh(code, folder, tmp_path))
    want = bundle.predictions(rows)
    scored = {kind: getattr(pl, f"read_{kind}")(tmp_path / f"out.{kind}") for kind in ("parquet", "csv")}
    names = [name for name in want.columns if name.startswith("score")]
    for table in scored.values():
        assert table["order"].equals(rows["order"])
        np.testing.assert_allclose(table.select(names), want.select(names), atol=1e-5)
    last = Scorer(folder).outputs[-1]
    np.testing.assert_allclose(alone, scored["parquet"][last][:20], atol=1e-5)
    assert want.select(names).to_numpy()[:, 0].std() > 0.005, "rows that are all alike prove nothing"


text = (
    st.none()
    | st.sampled_from(["", "NA", "null", "Ana", "a|b", "[PAD]", "ＡＮＡ", " "])
    | st.text(max_size=40)
)
number = st.none() | st.floats(allow_nan=False, width=32) | st.integers(-5, 5).map(float)
row = st.fixed_dictionaries(
    {"email": text, "name": text, "amount": number, "age": number, "shop": st.none() | st.text(max_size=5)}
)
# CSV has no cell for a NUL or for a lone carriage return that every reader agrees on.
csv_row = row.filter(lambda r: not any("\0" in v or "\r" in v for v in r.values() if isinstance(v, str)))


@every
@given(rows=st.lists(csv_row, min_size=1, max_size=5))
@example(rows=[{"email": "x" * 3000, "name": None, "amount": 1e30, "age": -0.0, "shop": "toys"}] * 2)
def test_all_ways_to_a_score_give_the_same(made, model_class, tmp_path, rows):
    bundle, folder = made(model_class)
    scorer = _scorer(folder)
    kinds = {
        "email": pl.String,
        "name": pl.String,
        "amount": pl.Float64,
        "age": pl.Float64,
        "shop": pl.String,
    }
    frame = pl.DataFrame(rows, schema=kinds).with_row_index("order").cast({"order": pl.String})
    want = scorer.score(frame)
    assert want.drop("order").select(pl.all_horizontal(pl.all().is_finite().all())).item()
    names = [name for name in bundle.predictions(frame[:0]).columns if name.startswith("score")]
    trained = bundle.predictions(frame).select(names).to_numpy()
    np.testing.assert_allclose(want.select(names), trained, atol=1e-5)
    for name in scorer.outputs[: len(names)]:
        alone = [scorer.score_one(row, name) for row in frame.to_dicts()]
        np.testing.assert_allclose(alone, want[name], atol=1e-6)
    for kind, write in (("parquet", "write_parquet"), ("csv", "write_csv"), ("jsonl", "write_ndjson")):
        getattr(frame.select(reversed(frame.columns)), write)(tmp_path / f"rows.{kind}")
        score_files(scorer, [tmp_path / f"rows.{kind}"], tmp_path / "out.parquet", progress=False)
        scored = pl.read_parquet(tmp_path / "out.parquet")
        assert scored.columns == want.columns and scored["order"].equals(want["order"])
        np.testing.assert_allclose(scored.drop("order"), want.drop("order"), atol=1e-4)


_scorers: dict[Path, Scorer] = {}


def _scorer(folder: Path) -> Scorer:
    if folder not in _scorers:
        _scorers[folder] = Scorer(folder, threads=1)
    return _scorers[folder]


def test_defect_33_customers_called_na_none_and_null_keep_their_names(made, tmp_path):
    _, folder = made("lstm2risk")
    names = ["NA", "None", "null", "nan", "", None]
    frame = pl.DataFrame(
        [{**ORDER, "order": str(i), "name": name} for i, name in enumerate(names)], strict=False
    )
    want = Scorer(folder).score(frame)["score"]
    assert want.n_unique() == len(names)
    frame.write_csv(tmp_path / "rows.csv")
    score_files(Scorer(folder), [tmp_path / "rows.csv"], tmp_path / "out.csv", progress=False)
    np.testing.assert_allclose(pl.read_csv(tmp_path / "out.csv")["score"], want, atol=1e-6)


def test_defect_52_one_order_goes_the_way_of_many_and_changes_nothing_on_it(made):
    """The published server's fast path raised for names models; each call changed its config."""
    _, folder = made("lstm2risk")
    scorer, order = Scorer(folder), dict(ORDER)
    first = [scorer.score_one(order, output) for output in scorer.outputs]
    table = scorer.score(pl.DataFrame([order]))
    np.testing.assert_allclose(first, table.drop("order").row(0), atol=1e-6)
    assert [scorer.score_one(order, output) for output in scorer.outputs] == first and order == ORDER


# --- what is in the output


def test_scores_come_with_probability_and_percentile(made):
    bundle, folder = made("lstm2risk")
    rows = prepared(80, seed=5)
    scored = Scorer(folder).score(rows)
    assert scored.columns == ["order", "score", "p_calibrated", "percentile"]
    p = bundle.predict(rows)
    np.testing.assert_allclose(scored["p_calibrated"], bundle.calibration.calibrated(p)[:, 1], atol=1e-4)
    np.testing.assert_allclose(scored["percentile"], bundle.calibration.percentile(p[:, 1]), atol=2e-3)
    in_order = scored.sort("score")
    assert (np.diff(in_order["p_calibrated"]) >= 0).all() and (np.diff(in_order["percentile"]) >= 0).all()


def test_three_classes_have_a_column_each(made):
    _, folder = made("transformer2risk")
    scored = Scorer(folder).score(prepared(30, seed=5, n_classes=3))
    kinds = ("score", "p_calibrated")
    assert scored.columns == ["order", *(f"{kind}_{c}" for kind in kinds for c in range(3))]
    for kind in kinds:
        np.testing.assert_allclose(scored.select(f"^{kind}_.*$").to_numpy().sum(axis=1), 1, atol=1e-5)
    with pytest.raises(ValueError, match="gives no 'score'; it gives score_0"):
        Scorer(folder).score_one(ORDER, "score")


def test_eight_bit_weights_are_measured_and_close(made):
    _, folder = made("lstm2risk")
    measured = json.loads((folder / "metrics.json").read_text())["int8"]
    assert (
        measured["rows"] == 60
        and measured["difference_low"] <= measured["difference"] <= measured["difference_high"]
    )
    assert measured["auroc_int8"] - measured["auroc"] == pytest.approx(measured["difference"])
    rows = prepared(60, seed=2)
    exact, small = (Scorer(folder, int8=small).score(rows)["score"].to_numpy() for small in (False, True))
    assert 0 < np.abs(exact - small).max() < 0.05
    _, without = made("transformer2risk")
    with pytest.raises(ValueError, match="no 8-bit weights"):
        Scorer(without, int8=True)


# --- explanations


@every
def test_contributions_are_what_a_missing_value_in_the_place_changes(made, model_class):
    _, folder = made(model_class)
    scorer = Scorer(folder)
    order = {**ORDER, "age": None}
    why = scorer.explain_one(order)
    asked = {"email", "name"} | ({"amount", "age", "shop"} if model_class != "lstm" else set())
    assert set(why["input"]) == asked
    output = scorer.outputs[1 if model_class == "transformer2risk" else 0]
    score = scorer.score_one(order, output)
    for line in why.iter_rows(named=True):
        without = scorer.score_one({**order, line["input"]: None}, output)
        assert line["score_without"] == pytest.approx(without, abs=1e-6)
        assert line["contribution"] == pytest.approx(score - without, abs=2e-6)
        assert line["is_missing"] == (order[line["input"]] is None)
    assert why["contribution"].abs().is_sorted(descending=True)
    assert why["contribution"][0] != 0


@every
def test_reasons_are_what_a_usual_value_in_the_place_changes(made, model_class):
    bundle, folder = made(model_class)
    scorer = Scorer(folder)
    why = scorer.reasons({**ORDER, "amount": 9.0}, n=50)
    assert why.columns == ["reason", "score_without", "contribution"]
    assert why.is_empty() == (model_class == "lstm")  # reads texts alone
    if len(why):
        assert any(said.startswith("amount is 9, ") for said in why["reason"])
        usual = bundle.features.imputation_["amount"]
        output = "score_1" if "score_1" in scorer.outputs else "score"
        without = scorer.score_one({**ORDER, "amount": usual}, output)
        row = why.filter(pl.col("reason").str.starts_with("amount is 9, "))
        assert row["score_without"][0] == pytest.approx(without, abs=1e-6)
    with pytest.raises(ValueError, match="n: expected a whole number from 1"):
        scorer.reasons(ORDER, n=0)
    with pytest.raises(ValueError, match="of_class"):
        scorer.reasons(ORDER, of_class=9)


def test_decisions_of_a_table_and_of_files_are_those_of_the_rule(made, tmp_path):
    scorer, rows = Scorer(made("lstm2risk")[1]), prepared(300, seed=9)
    rule = Rule(fpr=0.1)
    decided = scorer.decide(rows, rule, reasons=2)
    decision = scorer.decision(rule)
    assert decided["decision"].eq("flag").to_list() == decision.flags(decided["score"].to_numpy()).tolist()
    assert 0 < decided["decision"].eq("flag").sum() < len(rows)
    assert decided.sort("score", descending=True)["rank"].is_sorted() and decided["rank"].min() == 1
    passed = decided.filter(decision="pass")
    assert passed["reason_1"].null_count() == len(passed)
    flagged = decided.filter(decision="flag").row(0, named=True)
    order = rows.row(by_predicate=pl.col("order") == flagged["order"], named=True)
    raising = scorer.reasons(order, n=99).filter(pl.col("contribution") > 0)["reason"].to_list()
    assert [flagged["reason_1"], flagged["reason_2"]] == (raising + [None, None])[:2]
    rows.drop(SEGMENT, LABEL).write_csv(tmp_path / "rows.csv")
    counts = score_files(
        scorer, [tmp_path / "rows.csv"], tmp_path / "out.parquet", progress=False, rule=rule, reasons=2
    )
    assert counts == (300, 300, 0) and sorted(path.name for path in tmp_path.iterdir()) == [
        "out.parquet",
        "rows.csv",
    ]
    written = pl.read_parquet(tmp_path / "out.parquet")
    assert_frame_equal(written.select(decided.columns), decided, abs_tol=1e-5)


@pytest.mark.parametrize("model_class", ["transformer2risk", pytest.param("lstm", marks=pytest.mark.slow)])
def test_three_classes_and_texts_alone_are_explained(made, model_class):
    scorer = Scorer(made(model_class)[1])
    test = prepared(60, seed=8, n_classes=SMALL[model_class].get("n_classes", 2))
    content = explain_model(scorer, beside(test, scorer.score(test)), n_per_class=10)
    drivers, cases = content["drivers"], content["cases"]
    assert {"email", "name", "all texts together"} <= {row["name"] for row in drivers["columns"]}
    reads_texts_alone = model_class == "lstm"
    assert (drivers["features"] == []) == reads_texts_alone
    assert any(one["reasons"] for one in cases) != reads_texts_alone
    assert cases == sorted(cases, key=lambda one: -one["score"]) and cases[0]["score"] <= 1


def test_reasons_without_a_rule_and_decisions_of_three_classes_are_refused(made, tmp_path):
    scorer = Scorer(made("lstm2risk")[1])
    with pytest.raises(ValueError, match="say which orders to flag"):
        score_files(scorer, ["rows.csv"], tmp_path / "out.csv", reasons=3)
    with pytest.raises(ValueError, match="two classes; this model has 3"):
        Scorer(made("transformer2risk")[1]).decide(prepared(3), Rule(fpr=0.1))


# --- files in, files out


def write(folder: Path, kind: str, name: str, rows: pl.DataFrame) -> Path:
    path = folder / f"{name}.{kind}"
    writers = {"parquet": rows.write_parquet, "csv": rows.write_csv, "jsonl": rows.write_ndjson}
    writers[kind](path) if kind in writers else rows.write_csv(path, separator="\t")
    return path


def n3r_score(folder: Path, *arguments: object) -> subprocess.CompletedProcess:
    command = [*N3R, "score", "--bundle", str(folder), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1])


def test_a_folder_of_files_becomes_a_folder_of_scores_each_in_its_format(made, tmp_path):
    _, folder = made("lstm2risk")
    (tmp_path / "in").mkdir()
    rows = prepared(40, seed=4)
    for at, kind in enumerate(("parquet", "csv", "tsv", "jsonl")):
        write(tmp_path / "in", kind, f"part{at}", rows[10 * at : 10 * at + 10])
    done = n3r_score(folder, tmp_path / "in", "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "40 rows read, 40 scored, 0 rejected" in done.stderr and "rows/s" in done.stderr
    names = ["part0.parquet", "part1.csv", "part2.tsv", "part3.jsonl"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    ids = [
        *pl.read_parquet(tmp_path / "out" / names[0])["order"],
        *pl.read_csv(tmp_path / "out" / names[1])["order"],
        *pl.read_csv(tmp_path / "out" / names[2], separator="\t")["order"],
        *pl.read_ndjson(tmp_path / "out" / names[3])["order"],
    ]
    assert ids == rows["order"].to_list()
    scorer = Scorer(folder)
    score_files(scorer, [tmp_path / "in"], tmp_path / "all.csv", progress=False)
    assert pl.read_csv(tmp_path / "all.csv")["order"].to_list() == ids
    score_files(scorer, [tmp_path / "in"], tmp_path / "csv", kind="csv", progress=False)
    assert {path.suffix for path in (tmp_path / "csv").iterdir()} == {".csv"}


def test_numbered_orders_of_two_formats_fit_one_output(made, tmp_path):
    _, folder = made("lstm2risk")
    rows = prepared(10, seed=4).with_columns(order=pl.int_range(10))
    parts = [write(tmp_path, "parquet", "2025.01", rows[:5]), write(tmp_path, "csv", "2025.02", rows[5:])]
    score_files(Scorer(folder), parts, tmp_path / "all.parquet", progress=False)
    assert pl.read_parquet(tmp_path / "all.parquet")["order"].to_list() == [str(i) for i in range(10)]
    score_files(Scorer(folder), parts, tmp_path / "apart", progress=False)
    assert sorted(p.name for p in (tmp_path / "apart").iterdir()) == ["2025.01.parquet", "2025.02.csv"]
    assert pl.read_parquet(tmp_path / "apart" / "2025.01.parquet")["order"].to_list() == list(range(5))


def test_outputs_that_would_be_lost_are_refused(made, tmp_path):
    _, folder = made("lstm2risk")
    scorer, rows = Scorer(folder), prepared(4)
    path = write(tmp_path, "csv", "rows", rows)
    other = write(tmp_path, "parquet", "rows", rows)
    for items, output, options, message in (
        ([path], path, {}, "replace the input"),
        ([path], tmp_path, {}, "replace the input"),
        ([path, other], tmp_path / "out", {"kind": "csv"}, "several files would become rows.csv"),
        ([path], tmp_path / "out.csv", {"kind": "parquet"}, "let its name end so"),
        ([path], path / "out.csv", {}, "cannot write"),
    ):
        with pytest.raises(ValueError, match=message):
            score_files(scorer, items, output, progress=False, **options)
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_file()) == ["rows.csv", "rows.parquet"]


# --- standard input and output


@pytest.fixture
def pipe(monkeypatch, capfdbinary):
    """What scoring of some bytes prints: standard output, standard error."""

    def run(folder: Path, content: bytes, **options: Any) -> tuple[bytes, str]:
        stdin = TextIOWrapper(BufferedReader(BytesIO(content)), encoding="utf-8")
        monkeypatch.setattr(sys, "stdin", stdin)
        capfdbinary.readouterr()  # of a training before
        score_files(Scorer(folder), ["-"], "-", **options)
        out, err = capfdbinary.readouterr()
        return out, err.decode()

    return run


def test_a_pipe_is_scored_as_a_file_is(made, tmp_path, pipe):
    _, folder = made("lstm2risk")
    rows = prepared(60, seed=4).drop(SEGMENT, LABEL)
    for kind, read in (("csv", "csv"), ("jsonl", "jsonl"), ("csv", "tsv")):
        path = write(tmp_path, read, f"rows_{read}", rows)
        for name, rule in (("scored", None), ("decided", Rule(fpr=0.1))):
            options = {"rule": rule, "reasons": 0 if rule is None else 2}
            expected = tmp_path / f"{name}.{kind}"
            score_files(Scorer(folder), [path], expected, progress=False, **options)
            assert pipe(folder, path.read_bytes(), **options) == (expected.read_bytes(), "")
    assert pipe(folder, b"\xef\xbb\xbf" + path.read_bytes(), kind="jsonl")[0].startswith(b'{"order":')
    assert not list(Path().glob("std*"))


def test_rows_of_a_pipe_that_cannot_be_read_are_told_beside_it(made, pipe):
    _, folder = made("lstm2risk")
    content = csv_of(GOOD, "o2,b@box.example,Bo,much,40,toys").encode()
    with pytest.raises(ValueError, match="stdin.csv, row 2, column 'amount': is not a number"):
        pipe(folder, content)
    out, err = pipe(folder, content, skip=True)
    assert len(out.splitlines()) == 2 and err == "stdin.csv, row 2, column 'amount': is not a number\n"


@pytest.mark.parametrize(
    ("items", "output", "kind", "why"),
    [
        (["-", "rows.csv"], "-", None, "- is standard input: give it alone"),
        (["rows.parquet"], "-", None, "add --format csv, tsv or jsonl"),
        (["rows.parquet"], "-", "parquet", "add --format csv, tsv or jsonl"),
    ],
)
def test_what_no_pipe_can_hold_is_refused(made, tmp_path, monkeypatch, items, output, kind, why):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "parquet", "rows", prepared(3))
    with pytest.raises(ValueError, match=why):
        score_files(Scorer(made("lstm2risk")[1]), items, output, kind)


def test_the_command_is_a_filter(made, tmp_path):
    """It ends, without a word, with whoever reads it, and with Ctrl-C."""
    _, folder = made("lstm2risk")
    content = write(tmp_path, "csv", "rows", prepared(60, seed=4)).read_bytes()
    command = [*N3R, "score", "--bundle", str(folder), "-"]
    with subprocess.Popen(command, stdin=-1, stdout=-1, stderr=-1, cwd=Path(__file__).parents[1]) as read:
        read.stdout.close()
        _, err = read.communicate(content)
    assert (read.returncode, err) == (141, b"")
    with subprocess.Popen(command, stdin=-1, stdout=-1, stderr=-1, cwd=Path(__file__).parents[1]) as stopped:
        stopped.stdin.write(content)
        stopped.stdin.flush()
        maps = Path(f"/proc/{stopped.pid}/maps")
        while stopped.poll() is None and "onnxruntime" not in maps.read_text(encoding="utf-8"):
            time.sleep(0.05)
        time.sleep(0.5)  # it waits for the rest
        stopped.send_signal(signal.SIGINT)
        assert stopped.wait(30) == 130
        assert stopped.stdout.read() == b"" and stopped.stderr.read() == b""
    assert n3r_score(folder, tmp_path / "rows.csv").stderr.startswith("n3r: say where the scores go")


# --- bad input


def csv_of(*lines: str) -> str:
    return "\n".join(["order,email,name,amount,age,shop", *lines, ""])


GOOD = "o1,ana@box.example,Ana,3.5,40,toys"
REJECTED = {
    "a number that is text": ("csv", csv_of(GOOD, "o2,b@box.example,Bo,much,40,toys"), 2, "amount"),
    "cut mid-row": ("csv", csv_of(GOOD, "o2,b@box.example,Bo").rstrip("\n"), 2, None),
    "no UTF-8": ("csv", csv_of(GOOD, "o2,b@box.example,B\udce9,3,4,toys"), 2, "name"),
    "a malformed line": (
        "jsonl",
        json.dumps(ORDER) + '\n{"order": "o2", "email": \n' + json.dumps(ORDER),
        2,
        None,
    ),
    "a list in a field": (
        "jsonl",
        json.dumps(ORDER) + "\n" + json.dumps({**ORDER, "name": ["Bo"]}),
        2,
        "name",
    ),
}


@pytest.mark.parametrize("case", REJECTED)
def test_rows_that_cannot_be_read_are_named_or_listed(made, tmp_path, case):
    _, folder = made("lstm2risk")
    kind, content, row, column = REJECTED[case]
    path, out = tmp_path / f"rows.{kind}", tmp_path / f"out.{kind}"
    path.write_bytes(content.encode(errors="surrogateescape"))
    where = f"rows.{kind}, row {row}" + (f", column {column!r}: " if column else ": ")
    with pytest.raises(ValueError, match=where):
        score_files(Scorer(folder), [path], out, progress=False)
    assert not out.exists()
    counts = score_files(Scorer(folder), [path], out, skip=True, progress=False)
    assert counts.read == counts.scored + counts.rejected and counts.rejected == 1
    rejects = pl.read_csv(tmp_path / "out.rejects.csv")
    assert rejects["row"].to_list() == [row] and rejects["column"].to_list() == [column]
    assert rejects["reason"].null_count() == 0
    scored = pl.read_csv(out) if kind == "csv" else pl.read_ndjson(out)
    assert len(scored) == counts.scored
    score_files(
        Scorer(folder), [write(tmp_path, "csv", "fine", prepared(3))], tmp_path / "out.csv", progress=False
    )
    assert kind != "csv" or not (tmp_path / "out.rejects.csv").exists(), "of an earlier run"


SCORED = {
    "extra columns in another order": {"note": "hello", **dict(reversed(ORDER.items()))},
    "an unseen category": {**ORDER, "shop": "never seen before"},
    "nulls everywhere": dict.fromkeys(ORDER),
    "numbers as text": {**ORDER, "amount": " 3.5 ", "age": "true"},
    "text as a number": {**ORDER, "name": 7},
    "infinite and huge numbers": {**ORDER, "amount": float("inf"), "age": 1e300},
    "half a character": {**ORDER, "name": "\ud83d"},
}


@pytest.mark.parametrize("case", SCORED)
def test_odd_rows_are_scored_by_the_documented_rules(made, tmp_path, case):
    _, folder = made("lstm2risk")
    scorer, order = Scorer(folder), SCORED[case]
    (tmp_path / "rows.jsonl").write_text(json.dumps(ORDER) + "\n" + json.dumps(order))
    counts = score_files(scorer, [tmp_path / "rows.jsonl"], tmp_path / "out.parquet", progress=False)
    assert counts == (2, 2, 0)
    scored = pl.read_parquet(tmp_path / "out.parquet")
    assert scored["order"].to_list() == ["o1", order["order"]]
    assert scored["score"][1] == pytest.approx(scorer.score_one(order), abs=1e-6)
    assert scored["score"].is_between(0, 1).all()


def test_values_that_cannot_be_used_count_as_missing(made):
    _, folder = made("lstm2risk")
    scorer = Scorer(folder)
    nothing = scorer.score_one({**ORDER, "age": None})
    for value in (float("nan"), float("-inf"), 1e39, 10**400, ""):
        assert scorer.score_one({**ORDER, "age": value}) == pytest.approx(nothing, abs=1e-7)
    assert scorer.score_one({**ORDER, "age": "40"}) == pytest.approx(scorer.score_one(ORDER), abs=1e-7)
    seen = scorer.score_one({**ORDER, "shop": None})
    assert scorer.score_one({**ORDER, "shop": "never seen"}) == pytest.approx(seen, abs=1e-7)


def test_missing_and_unusable_columns_are_all_named(made, tmp_path):
    _, folder = made("lstm2risk")
    scorer = Scorer(folder)
    frame = prepared(3).drop("email").rename({"age": "Age"}).with_columns(shop=pl.lit([1, 2]))
    for attempt in (lambda: scorer.score(frame), lambda: scorer.score_one(frame.to_dicts()[0])):
        with pytest.raises(
            ValueError, match=r"(?s)'email' is missing.*'shop' is List.*'age' is missing \(did you mean 'Age'"
        ):
            attempt()
    with pytest.raises(ValueError, match=r"1 cells cannot be read: row 2, column 'amount': is not a number"):
        scorer.score(pl.DataFrame([{**ORDER, "amount": "1"}, {**ORDER, "amount": "secret"}]))
    with pytest.raises(ValueError, match="'amount' is not a number"):
        scorer.score_one({**ORDER, "amount": "secret"})
    with pytest.raises(ValueError, match="expected a polars DataFrame, found list"):
        scorer.score([ORDER])
    write(tmp_path, "jsonl", "rows", prepared(3).drop("name"))
    with pytest.raises(ValueError, match=r"(?s)rows.jsonl.*'name' is missing"):
        score_files(scorer, [tmp_path / "rows.jsonl"], tmp_path / "out.csv", progress=False)


def test_no_rows_give_an_output_without_rows(made, tmp_path):
    _, folder = made("lstm2risk")
    scorer, none = Scorer(folder), prepared(3)[:0]
    for kind in ("parquet", "csv", "tsv"):
        path = write(tmp_path, kind, "none", none)
        assert score_files(scorer, [path], tmp_path / f"out.{kind}", progress=False) == (0, 0, 0)
    assert pl.read_parquet(tmp_path / "out.parquet").columns == ["order", *scorer.outputs]
    assert pl.read_csv(tmp_path / "out.csv").columns == ["order", *scorer.outputs]
    assert scorer.score(none).height == 0


def test_exit_codes_and_one_message(made, tmp_path):
    _, folder = made("lstm2risk")
    (tmp_path / "rows.csv").write_text(csv_of(GOOD, "o2,secret@box.example,Bo,much,40,toys"))
    (tmp_path / "cut.parquet").write_bytes(b"PAR1 and no more")
    (tmp_path / "empty.csv").write_text("")
    out = ("-o", tmp_path / "out.csv")
    stopped = n3r_score(folder, tmp_path / "rows.csv", *out)
    assert stopped.returncode == 2 and "row 2, column 'amount'" in stopped.stderr
    assert "--on-error skip" in stopped.stderr and "secret" not in stopped.stderr
    skipped = n3r_score(folder, tmp_path / "rows.csv", *out, "--on-error", "skip")
    assert skipped.returncode == 0 and "2 rows read, 1 scored, 1 rejected" in skipped.stderr
    for arguments, message in (
        ((tmp_path / "cut.parquet", *out), "cut.parquet cannot be read as parquet"),
        ((tmp_path / "empty.csv", *out), "empty.csv is empty"),
        ((tmp_path / "nowhere.csv", *out), "no file, folder or pattern"),
        ((tmp_path / "rows.csv", *out, "--on-error", "guess"), "stop or skip"),
        ((tmp_path / "rows.csv", "-o", tmp_path / "x", "--format", "xlsx"), "takes parquet, csv"),
    ):
        done = n3r_score(folder, *arguments)
        assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr
    lost = n3r_score(tmp_path, tmp_path / "rows.csv", *out)
    assert lost.returncode == 2 and "MANIFEST.json" in lost.stderr


def test_files_are_read_as_the_models_column_map_says_they_are_written(made, tmp_path):
    """A CSV of another program, in another encoding and with other marks, scores as the table does."""
    folder = tmp_path / "bundle"
    shutil.copytree(made("lstm2risk")[1], folder)
    content = json.loads((folder / "columns.json").read_text())
    csv = {"separator": ";", "encoding": "utf-16", "quote": "'", "header": True}
    (folder / "columns.json").write_text(json.dumps(content | {"csv": csv, "number_format": "de"}))
    (folder / MANIFEST).unlink()
    write_manifest(folder)
    rows = prepared(40, seed=3).drop(SEGMENT, LABEL)
    spelled = rows.with_columns(pl.col(NUMERIC).cast(pl.String).str.replace(".", ",", literal=True))
    text = spelled.write_csv(separator=";", quote_char="'", line_terminator="\r\n")
    (tmp_path / "rows.csv").write_bytes(text.encode("utf-16"))
    scorer = Scorer(folder)
    score_files(scorer, [tmp_path / "rows.csv"], tmp_path / "out.parquet", progress=False)
    assert_frame_equal(pl.read_parquet(tmp_path / "out.parquet"), scorer.score(rows), abs_tol=1e-6)
    order = spelled.row(0, named=True)
    assert scorer.score_one(order) == pytest.approx(scorer.score_one(rows.row(0, named=True)), abs=1e-6)
