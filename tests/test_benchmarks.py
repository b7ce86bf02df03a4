"""The benchmark programs run and print what they promise; they are not timed here."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


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
            assert set(pairs[0]) == {"legacy", "n3r", "n3r int8"}
    assert lines == []


@pytest.mark.slow
def test_the_report_benchmark_prints_a_line_a_run_and_the_medians():
    one, medians = run("benchmarks.report", "--rows", "2000", "--runs", "1")
    assert medians == {"case": "report", "rows": 2000, **one}
    assert one["peak_mb"] > 100


@pytest.mark.slow
def test_quality_prints_a_line_a_seed_and_model_and_the_means():
    *pairs, means = run("benchmarks.quality", "--size", "dev", "--seeds", "0")
    assert [pair["seed"] for pair in pairs] == [0, 0]
    assert means["case"] == "quality" and set(means["n3r"]) == {pair["model"] for pair in pairs}


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


def test_growth_is_drawn():
    from benchmarks.__main__ import plot, shown

    rows = {n: {"seconds": n / 100, "peak_mb": 100.0} for n in (10, 100)}
    assert plot({"preprocessing": rows}).startswith("<svg")
    assert shown({"10": 1234.5, "20": 3}) == "1,234 (10), 3 (20)"


@pytest.mark.slow
def test_a_profile_names_the_dearest_operations():
    lines = run("benchmarks.profile", "lstm2risk", "names", "--batch", "16", "--top", "3")
    assert len(lines) == 3 and lines[0]["share"] >= lines[1]["share"] > 0
    assert "mkldnn_rnn_layer" in lines[0]["operation"]
