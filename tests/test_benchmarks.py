"""The benchmark programs run and print what they promise; they are not timed here."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import published
from n3r.notebook import finish_step


def run(*arguments: str) -> list[dict]:
    command = [sys.executable, "-m", *arguments]
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.slow
def test_training_benchmark_prints_a_line_a_pair_and_the_median():
    sizes = ("--pairs", "1", "--batch", "32")
    pair, median = run("benchmarks.train", "lstm2risk", "names", *sizes)
    assert pair["ratio"] > 0
    assert median["ratio"] == pair["ratio"]
    assert 24 < median["mean_tokens"] < 28


@pytest.mark.slow
def test_the_hand_written_step_is_that_of_autograd_and_its_figures_are_printed():
    pair, medians = run("benchmarks.custom_transformer", "--small", "--pairs", "1", "--steps", "1")
    assert medians["ratio"] == pair["ratio"] > 0
    assert medians["loss_difference"] < 1e-5
    assert set(medians["peak_mb"]) == {"written", "autograd"}


@pytest.mark.slow
def test_scoring_benchmarks_print_a_line_a_pair_and_the_medians():
    cases = {"latency": 1, "batch": 1, "cold": 1, "memory": 3}  # and the lines before the summary
    lines = run("benchmarks.score", "lstm2risk", *cases, "--small", "--pairs", "1", "--rows", "300")
    for case, n_lines in cases.items():
        *pairs, summary = lines[: n_lines + 1]
        lines = lines[n_lines + 1 :]
        assert all(value > 0 for pair in pairs for value in pair.values())
        assert summary["case"] == case and summary["dimensions"] != "published"
        if case in ("latency", "batch"):
            small = {"n3r small"} if case == "batch" else set()
            assert set(pairs[0]) == {"legacy", "n3r", "n3r int8"} | small
    assert lines == []


@pytest.mark.slow
def test_an_engine_scores_the_bytes_of_one_process_in_its_benchmark():
    pytest.importorskip("ray", reason="Ray is an extra: pip install 'n3r[ray]'")
    pair, medians = run("benchmarks.cluster", "--small", "--pairs", "1", "--rows", "70000")
    assert (
        medians["same"] and medians["rows"] == 70000 and medians["s"] == {k: v["s"] for k, v in pair.items()}
    )


@pytest.mark.slow
def test_the_store_benchmark_prints_a_line_a_size():
    line, peaks = run("benchmarks.store", "1500", "--steps", "2")
    assert peaks["all_mb"] == {"1500": round(line["all_mb"])}
    assert line["rows"] == 1500 and line["gigabytes"] > 0 and line["step"] > 0


@pytest.mark.slow
def test_the_report_takes_less_than_400_bytes_of_a_row():
    few, many, both = run("benchmarks.report", "600000", "1200000")
    peaks = [one["peak_mb"] for one in (few, many)]
    assert both["peak_mb"] == dict(zip(("600000", "1200000"), peaks, strict=True))
    assert (peaks[1] - peaks[0]) * 2**20 < 400 * 600_000


@pytest.mark.slow
def test_quality_prints_a_line_a_seed_and_model_and_the_means():
    *pairs, means = run("benchmarks.quality", "--size", "dev", "--seeds", "0")
    assert [pair["seed"] for pair in pairs] == [0, 0]
    assert means["case"] == "quality" and set(means["n3r"]) == {pair["model"] for pair in pairs}


@pytest.mark.slow
def test_quality_compares_over_data_seeds_and_without_each_part():
    tiny = ("--rows", "1500", "--seeds", "0", "1", "--members", "boosting", "lstm2risk")
    *rows, means = run("benchmarks.quality", "seeds", *tiny)
    assert [row["seed"] for row in rows] == [0, 1] and means["oracle"] > 0.85
    assert means["gain"] == pytest.approx(means["best"] - means["before"], abs=2e-4)
    lines = run("benchmarks.quality", "ablation", *tiny)
    assert all(line["low"] <= line["difference"] <= line["high"] for line in lines)
    assert [line["left_out"] for line in lines if line["of"] == "members"] == ["boosting", "lstm2risk"]


@pytest.mark.slow
def test_deviations_are_measured_beside_the_legacy_and_trained_once():
    tiny = ("--of", "decay", "--rows", "256", "--epochs", "1", "--orders", "2000", "--seeds", "0", "1")
    lines = run("benchmarks.deviations", "lstm2risk", *tiny)
    assert [line["on"] for line in lines] == ["none", "decay", "the legacy"]
    assert lines[0]["by_seed"] == [0, 0] and len(lines[1]["by_seed"]) == 2
    assert all(line["low"] <= line["difference"] <= line["high"] for line in lines)
    assert run("benchmarks.deviations", "lstm2risk", *tiny) == lines


@pytest.mark.slow
def test_all_benchmarks_can_be_asked_for_at_once():
    command = [sys.executable, "-m", "benchmarks", "--smoke", "--only", "custom"]
    root = Path(__file__).resolve().parent.parent
    page = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
    assert "| hand-written step, ms | by hand " in page and "time ratio 2" in page


@pytest.mark.slow
def test_the_preparing_benchmarks_print_a_line_a_pair_and_the_medians():
    size = ("--rows", "12000", "--pairs", "1")
    for case, key in (("tokenizer", "ratio"), ("epoch", "ratio_later"), ("preprocess", "orders_a_second")):
        *_, pair, medians = run("benchmarks.prepare", case, *size)
        assert medians["case"] == case and medians[key] == pair[key] > 0
    wide = run("benchmarks.prepare", "wide", "--rows", "200", "--pairs", "1")[-1]
    assert list(wide["ratio"]) == ["200 x 300", "100 x 2,000"] and min(wide["ratio"].values()) > 0


def test_growth_is_drawn():
    from benchmarks.__main__ import plot, shown

    rows = {n: {"seconds": n / 100, "peak_mb": 100.0} for n in (10, 100)}
    assert plot({"preprocessing": rows}).startswith("<svg")
    assert shown({"10": 1234.5, "20": 3}) == "1,234 (10), 3 (20)"


def test_a_report_is_renewed_in_part():
    from benchmarks.__main__ import PUBLISHED, report

    tokenizer = {"n3r": 3.0, "legacy": 30.0, "ratio": 10.0, "rows": 200_000}
    best = {"fit_seconds": 60.0, "rows_a_second": 9.0, "ratio": 0.9, "p50_ms": 1.0}
    first = report({"prepare tokenizer": [tokenizer], "best": [best]}, more={"Growth": ["as it was"]})
    system = {"parameters": 1_234_567, "onnx_mb": None, "p50_ms": 2.345, "dtype": "float32"}
    figures = dict.fromkeys(published.FIGURES.values(), 100.4) | system
    lines = {"prepare tokenizer": [tokenizer | {"ratio": 12.0}]}
    lines["published"] = [
        {"rows": 4096, "threads": 2, "systems": {"lstm2risk": figures, "legacy_lstm2risk": figures}}
    ]
    second = report(lines, first)
    assert "ratio 10" in first and "ratio 12" in second and "ratio 10" not in second
    kept = [line for line in first.split("\n") if "`best`" in line]
    assert len(kept) == 1 and kept[0] in second and "## Growth\n\nas it was" in second
    table = second.partition(f"## {PUBLISHED}\n")[2]
    assert "|  | LSTM2Risk | legacy LSTM2Risk |" in table
    assert "| parameters | 1,234,567 | 1,234,567 |" in table and "| one order, p50, ms | 2.35 |" in table
    assert "| ONNX graph, MB | none | none |" in table and "| checkpoint, MB | 100 |" in table
    assert report({}, second) == second


@pytest.mark.slow
def test_a_profile_names_the_dearest_operations():
    lines = run("benchmarks.profile", "lstm2risk", "names", "--batch", "16", "--top", "3")
    assert len(lines) == 3 and lines[0]["share"] >= lines[1]["share"] > 0
    assert "mkldnn_rnn_layer" in lines[0]["operation"]


@pytest.fixture
def peers(tmp_path, monkeypatch):
    """The benchmark, its options, and a run of 3,000 orders, where no peer is installed."""
    from benchmarks import peers

    monkeypatch.setattr(peers, "PYTHON", tmp_path / "none")
    options = peers.argparse.Namespace(only=None, seconds=1, threads=1, show=False)
    return peers, options, peers.smoke_run(tmp_path)


def test_peers_that_are_not_installed_are_named_and_kept_scores_are_compared(peers, monkeypatch, capsys):
    peers, options, run = peers
    rows = peers.compare(run, options)
    assert rows[peers.BEST] == {"failed": "not run"}
    assert all(rows[name] == {"failed": "not installed: make peers"} for name in peers.PEERS.values())

    label = peers.tables.read_split(run / "data", "test")[peers.LABEL].to_numpy()
    costs = {"fit_seconds": 1.5, "ms_a_row": 0.1, "ms_alone": 2.0, "megabytes": 3.0, "threads": 1}
    told = {"settings": "as it comes", "versions": {"it": "1"}}
    monkeypatch.setattr(peers, "in_process", lambda *_: {"scores": (-label).tolist(), **costs, **told})
    monkeypatch.setattr(peers, "PYTHON", Path(sys.executable))
    options.only = ["skrub"]
    assert peers.compare(run, options)["skrub"]["auc"].startswith("0.000")

    monkeypatch.setattr(peers, "in_process", lambda *_: {"failed": "failed: ValueError"})
    monkeypatch.setattr(peers, "find_best", lambda *_: {"scores": label.tolist(), **costs, **told})
    options.only = ["skrub", "catboost"]
    rows = peers.compare(run, options)
    assert rows["skrub"]["n3r_ahead"].startswith("+1.0000") and rows["skrub"]["recall_at_fpr_1"] == 0
    assert rows["AutoGluon"] == {"failed": "not run"}
    page = peers.page(peers.section(run, rows))
    assert "| CatBoost, text features | failed: ValueError |" in page
    assert "- skrub: as it comes. it 1." in page
    assert len(capsys.readouterr().out.splitlines()) == 18


def test_what_a_peer_found_on_other_rows_is_not_kept(peers):
    peers, options, run = peers
    (run / "peers").mkdir()
    (run / "peers" / "skrub.json").write_text('{"rows": "others", "scores": []}')
    assert "failed" in peers.fit_peer("skrub", run, options)


def test_a_peer_that_dies_is_told_by_its_status(peers, monkeypatch, tmp_path):
    peers, options, _ = peers
    monkeypatch.setattr(peers, "PYTHON", "false")
    assert peers.in_process("skrub", tmp_path, options) == {"failed": "ended with status 1"}


def test_peers_are_not_compared_on_three_classes(peers):
    peers, options, run = peers
    columns = json.loads((run / "data" / "columns.json").read_text())
    columns["column_map"]["label_values"] = {"F": 1, "I": 2, "N": 0}
    (run / "data" / "columns.json").write_text(json.dumps(columns))
    with pytest.raises(ValueError, match="smoke has 3 classes"):
        peers.compare(run, options)


def test_the_best_recipe_of_a_run_is_read_from_its_files(small, tmp_path):
    from benchmarks import peers

    splits, columns = small.prepared.splits, small.prepared.column_map
    peers.tables.write_splits(tmp_path / "data", splits, columns)
    assert peers.find_best(tmp_path, splits["test"], 1) == {"failed": "not run"}
    shutil.copytree(small.folder, tmp_path / "best")
    predictions = small.bundle.predictions(splits["test"])
    peers.tables.write(predictions, tmp_path / "predictions" / "best_test.parquet")
    members = [
        {"member": "slow", "weight": 0.25, "seconds": 2.0},
        {"member": "odd", "weight": 0, "seconds": 1.0},
    ]
    members.append({"member": "good", "weight": 0.75, "seconds": 4.0})
    finish_step(tmp_path, peers.STEP, {"members": members})
    found = peers.find_best(tmp_path, splits["test"], 1)
    assert found["scores"] == predictions["score"].to_list()
    assert found["fit_seconds"] == 7 and found["settings"] == "good 75%, slow 25%"
    assert min(found[key] for key in ("ms_a_row", "ms_alone", "megabytes")) > 0
    assert "not the test rows" in peers.find_best(tmp_path, splits["test"].reverse(), 1)["failed"]
