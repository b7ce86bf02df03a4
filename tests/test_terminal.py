"""What a run says at its end: a line a step, a leaderboard, and the command to score with its first."""

import pytest

from n3r.notebook import finish_step
from n3r.pipeline import with_needs
from n3r.terminal import leaderboard, result_of, say_results


def measured(auroc: float) -> dict:
    return {
        "auroc": auroc,
        "auroc_low": auroc - 0.1,
        "auroc_high": auroc + 0.05,
        "n": 90,
        "recall_at_fpr_1": 0.3,
    }


def model(name: str, val: float, test: float) -> dict:
    return {"model": {"name": name, "val": measured(val), "test": measured(test)}}


@pytest.fixture
def run(tmp_path):
    """What the steps of a run have recorded, in which a network ranks the test rows best, by chance."""
    folder = tmp_path / "runs" / "mine"
    kept = [{"split": "train", "n": 1000}, {"split": "train", "n": 200}, {"split": "test", "n": 90}]
    preparation = {"splits": kept, "steps": [], "times": [], "findings": []}
    first = {"data": {"n_rows": 1500, "left_out": {}}, "preparation": preparation}
    members = [
        {
            "member": "slow boosting",
            "weight": 0.75,
            "held_out": "0.890 [0.8, 0.9]",
            "test": "0.880 [0.7, 0.9]",
        },
        {"member": "token n-grams", "weight": 0.0, "held_out": "0.700 [0.6, 0.8]"},
    ]
    rows = {
        "legacy LSTM2Risk": "0.750 [0.7, 0.8]",
        "best recipe": "0.900 [0.8, 0.95]",
        "oracle": "0.980 [0.9, 1.0]",
    }
    compared = [
        {"model": name, "test AUROC [95 %]": text, "recall at 1 % FPR": "1.0 %"}
        for name, text in rows.items()
    ]
    recorded = {
        "01_preprocess": (first, ""),
        "02_tokenizer": ({"tokenizer": {"vocab_size": 2741, "compression": 2.5}}, ""),
        "03_train_lstm2risk": (
            model("LSTM2Risk", 0.8, 0.95),
            "It reaches 0.950 [0.8, 1.0]. At 1 % it catches 30 %.",
        ),
        "04_train_transformer2risk": (model("Transformer2Risk", 0.85, 0.7), "It reaches 0.7."),
        "09_best": (
            model("best recipe", 0.91, 0.9) | {"members": members, "attainable": "0.970 [0.9, 1.0]"},
            "The blend reaches 0.900; it is made of boosting.",
        ),
        "05_parity": ({"models": compared, "verdicts": ["as good"], "report": "report.html"}, "As good."),
        "08_evaluate": ({"best": {"headline": "it catches 30 %", "report": "best.html"}}, "It catches 30 %."),
    }
    for step, (metrics, answer) in recorded.items():
        finish_step(folder, step, metrics, answer)
    return folder


@pytest.mark.parametrize(
    ("steps", "names", "bundle"),
    [
        (["09"], ["best recipe", "slow boosting", "token n-grams", "oracle"], "best"),
        (
            ["05"],
            [
                "best recipe",
                "LSTM2Risk",
                "slow boosting",
                "legacy LSTM2Risk",
                "Transformer2Risk",
                "token n-grams",
            ]
            + ["oracle"],
            "best",
        ),
        (["03", "04"], ["LSTM2Risk", "Transformer2Risk"], "transformer2risk"),  # chosen on validation rows
    ],
)
def test_the_leaderboard_of_each_goal(run, steps, names, bundle, capsys, monkeypatch):
    monkeypatch.chdir(run.parent.parent)
    ran = [step.name for step in with_needs(steps)]
    rows = leaderboard(run, ran)
    assert [row[0] for row in rows] == names
    say_results(run, ran)
    said = capsys.readouterr().out
    assert said.endswith(f"to score orders: n3r score --bundle runs/mine/{bundle} ORDERS -o SCORES\n")
    assert all(name in said for name in names)


def test_rows_say_what_each_is(run):
    rows = {row[0]: row[1:] for row in leaderboard(run, ["09_best", "05_parity"])}
    assert rows["best recipe"] == ("n3r", "0.910 [0.810, 0.960]", "0.900 [0.800, 0.950]", "30.0 %")
    assert rows["slow boosting"] == ("75 % of the best recipe", "0.890 [0.8, 0.9]", "0.880 [0.7, 0.9]", "")
    assert rows["token n-grams"][0] == "tried, not taken" and rows["legacy LSTM2Risk"][0] == "legacy"
    assert rows["oracle"] == ("attainable", "", "0.980 [0.9, 1.0]", "1.0 %")


def test_a_line_a_step_and_where_it_is(run, monkeypatch, capsys):
    monkeypatch.chdir(run.parent.parent)
    assert [result_of(run, step) for step in with_needs(["08"])] == [
        ": 1,290 of 1,500 rows kept: train 1,200, test 90 (reports/mine/data.html)",
        ": 2,741 tokens, of 2.50 characters each (runs/mine/tokenizer)",
        ": It reaches 0.950 [0.8, 1.0] (runs/mine/lstm2risk)",
        ": It reaches 0.7 (runs/mine/transformer2risk)",
        ": The blend reaches 0.900 (reports/mine/best.html)",
        ": As good (reports/mine/report.html)",
        ": It catches 30 % (reports/mine/best.html)",
    ]
    say_results(run, ["02_tokenizer"])  # no model
    assert capsys.readouterr().out == ""
