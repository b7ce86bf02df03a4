"""The search for parameters: on validation rows alone, resumed, pruned, and a size that a run takes."""

import json
import os
import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from n3r import notebook, pipeline, tables
from n3r.cli import app
from n3r.files import lock
from n3r.files.json_io import read_json
from n3r.report.tuning import write_tuning
from n3r.rows import parts
from n3r.studies.tuning import Range, Task, described, read_space, search, with_values

pytest.importorskip("optuna")

SPACE = {"lr": Range(low=1e-3, high=1e-1, log=True), "hidden_size": [4, 8]}
TINY = ("embedding_size=4", "hidden_size=4", "n_tab_bins=2", "epochs=2")
ONLY = dict.fromkeys(["weight_decay", "dropout_rate", "n_tab_bins", "tab_gain_power", "n_lstm_layers"])


def parameters(step: str, *given: str) -> dict:
    [chosen] = [one for one in pipeline.STEPS if one.name == step]
    return pipeline.resolve_parameters("dev", {}, list(given), [chosen])[step]


@pytest.fixture
def run(small, tmp_path, monkeypatch) -> Path:
    """A run of prepared rows without those of the test split, in a folder of its own."""
    monkeypatch.setattr(pipeline, "ROOT", tmp_path)
    folder = tmp_path / "runs" / "dev"
    shutil.copytree(small.folder.parent / "data", folder / "data")
    shutil.rmtree(folder / "data" / "test")
    small.bundle.tokenizer.save(folder / "tokenizer")
    return folder


def task(run: Path, **space: object) -> Task:
    return Task(run, "03_train_lstm2risk", parameters("03_train_lstm2risk", *TINY), space or SPACE)


def told(trials: list) -> list:
    return [(trial.told, trial.p.tolist()) for trial in trials]


def n3r(*arguments: object):
    return CliRunner().invoke(app, ["tune", *map(str, arguments)])


def test_a_search_that_is_stopped_ends_as_one_that_is_not_and_trains_nothing_twice(run, tmp_path):
    done = []

    def stop(trial):
        done.append(trial)
        if len(done) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(task(run), 3, say=stop)
    kept = {path: path.stat().st_mtime_ns for path in run.glob("tune/*/trial_*/*")}
    assert {path.parent.name for path in kept} == {"trial_0", "trial_1"}
    gone_on, _ = search(task(run), 3)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    shutil.rmtree(run / "tune")
    whole, _ = search(task(run), 3)
    assert told(gone_on) == told(whole) and len(whole) == 4
    assert all(trial.state == "complete" and len(trial.epochs) == 2 for trial in whole)
    assert [trial.value for trial in whole] == [max(trial.epochs) for trial in whole]
    assert [len(trial.p) for trial in whole] == [len(tables.read_split(run / "data", "val"))] * 4
    assert len({json.dumps(trial.values) for trial in whole}) == 4


def test_no_time_is_left_for_another_trial(run):
    trials, _ = search(task(run), 3, minutes=1e-9)
    assert [trial.number for trial in trials] == [0]


def test_more_rows_than_a_sample_has_are_tuned_on_the_sample_that_step_09_takes(run, small, monkeypatch):
    both = pl.concat([small.prepared.splits["train"], small.prepared.splits["val"]])
    monkeypatch.setattr(parts, "SAMPLE", n := len(both) // 2)
    one = task(run)
    assert pl.concat(one.splits.values()).equals(parts.sample(both)[0]) and min(map(len, one.splits.values()))
    content, _ = described(one, *search(one, 1, minutes=1e-9))
    page = write_tuning(content, run, "tune").read_text()
    assert f"a sample of {n:,} of the {len(both):,} training and validation rows" in page


def made_up(run: Path, epochs_of) -> SimpleNamespace:
    """A task whose epochs are a function of its parameter x, and the values that were trained to the end."""
    ended = []

    def judged(parameters, watch):
        history = []
        for value in epochs_of(parameters["x"]):
            watch(history)
            history.append({"val_loss": value})
        ended.append(parameters["x"])
        watch.report(history)
        return min(h["val_loss"] for h in history), np.array([0, 1]), np.full((2, 2), 0.5)

    fields = {"seed": 3, "monitor": "val_loss", "maximises": False, "plan": "", "ended": ended}
    rows = {"folder": run / "tune" / "made_up", "columns": SimpleNamespace(n_classes=2)}
    return SimpleNamespace(
        parameters={"x": 0.5}, space={"x": Range(low=0.0, high=1.0)}, judged=judged, **fields, **rows
    )


def test_trials_worse_than_the_median_are_pruned_and_the_best_found(tmp_path):
    task = made_up(tmp_path, lambda x: [(x - 0.8) ** 2 + 1 / epoch for epoch in range(1, 6)])
    trials, study = search(task, 30)
    pruned = [trial for trial in trials if trial.state == "pruned"]
    assert len(pruned) > 5 and len(task.ended) == 31 - len(pruned)
    assert all(2 <= len(trial.epochs) < 5 and trial.value is None for trial in pruned)
    assert abs(study.best_params["x"] - 0.8) < 0.1
    again, _ = search(task, 30)
    assert told(again) == told(trials) and len(task.ended) == 31 - len(pruned)


def test_values_that_a_model_refuses_are_told_and_the_search_goes_on(tmp_path):
    def diverges(x):
        if x > 0.5:
            raise ValueError("the loss is nan in epoch 1")
        return [x]

    trials, _ = search(made_up(tmp_path, diverges), 8)
    assert {(trial.state, trial.why) for trial in trials if trial.values.get("x", 0) > 0.5} == {
        ("refused", "the loss is nan in epoch 1")
    }
    assert len(trials) == 9
    task = made_up(tmp_path / "other", diverges)
    task.parameters = {"x": 0.7}
    with pytest.raises(ValueError, match="the loss is nan"):
        search(task, 8)


def test_the_command_leaves_a_page_and_a_size_that_a_run_takes(run, tmp_path):
    (tmp_path / "space.json").write_text(json.dumps({**ONLY, "hidden_size": [4, 8]}))
    command = ["03", "--size", "dev", "--space", tmp_path / "space.json", *(f"-p{one}" for one in TINY)]
    done = n3r(*command, "--trials", 2)
    assert done.exit_code == 0, done.output
    assert "trial 2 of 2: val_auroc 0." in done.stderr
    page = read_json(tmp_path / "reports" / "dev" / "tune_03_train_lstm2risk.json")
    assert len(page["trials"]) == 3 and page["importance"] == {}
    size = run / "tune" / "03_train_lstm2risk" / "size.json"
    best = page["trials"][page["best"]]
    assert f"n3r run 03 --name dev --size {os.path.relpath(size)}" in done.stderr
    found = pipeline.resolve_parameters(str(size), {}, [])["03_train_lstm2risk"]
    assert found == with_values(parameters("03_train_lstm2risk", *TINY), best["values"])
    html = (tmp_path / "reports" / "dev" / "tune_03_train_lstm2risk.html").read_text()
    assert "luck" in html and "hidden_size" in html
    again = n3r(*command, "--trials", 2)
    assert (again.exit_code, again.stdout) == (0, done.stdout)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["99"], "no step '99'"),
        (["05"], "there is nothing to tune in 05_parity, only in 03_train_lstm2risk"),
        (["03", "--trials", "0"], "--trials must be 1 or more"),
        (["03", "--minutes", "0"], "--minutes above 0"),
        (["03", "--name", "none"], "has no prepared rows and tokenizer: n3r run 02 --name none makes them"),
        (["03", "--name", "../dev"], "the run name '../dev' may hold letters"),
        (["03", "--size", "huge"], "no size 'huge'"),
        (["03", "--size", "no/such.json", "--name", "dev"], "no/such.json does not exist"),
        (["03", "-p", "epocs=1"], "no step has the parameter 'epocs'"),
        (["03", "-p", "preset=published"], "the preset decides n_tab_bins, tab_gain_power"),
    ],
)
def test_a_mistake_is_one_sentence(run, arguments, message):
    done = n3r(*arguments, *([] if "--size" in arguments else ["--size", "dev"]))
    assert isinstance(done.exception, (ValueError, FileNotFoundError)) and message in str(done.exception)
    assert "\n" not in str(done.exception) and not (run / "tune").exists()


@pytest.mark.parametrize(
    ("step", "space", "message"),
    [
        ("03", {"lrr": [1.0]}, r"has no parameter 'lrr' to search \(did you mean 'lr'"),
        ("03", {"seed": [1, 2]}, "has no parameter 'seed' to search"),
        ("03", {"lr": [0.1, "high"]}, "values of lr: expected float, such as 0.001"),
        ("03", {"hidden_size": {"low": 0.5, "high": 8}}, "values of hidden_size: expected int, such as"),
        ("03", {"lr": {"low": 2, "high": 1}}, "values of lr: expected low below high"),
        ("03", {"lr": {"low": 0, "high": 1, "log": True}}, "above 0 where log is true"),
        ("03", {"lr": {"lowest": 0}}, "values of lr: key 'low': it is missing"),
        ("03", {"lr": []}, "values of lr: expected a list of them, or an object"),
        ("03", {"lr": 3}, "values of lr: expected a list of them, or an object"),
        ("03", [], "must hold a JSON object of parameters"),
        ("03", {**ONLY, "lr": None, "hidden_size": None}, "leaves no parameter of 03_train_lstm2risk"),
        ("09", {"lstm2risk.hidden": [1]}, "has no parameter 'lstm2risk.hidden' to search"),
        ("09", {"transformer2risk.lr": [0.1]}, "transformer2risk is not among the members"),
        ("09", {"members": ["lstm2risk"]}, "values of members: expected list"),
    ],
)
def test_a_space_that_cannot_be_searched_is_one_sentence(tmp_path, step, space, message):
    (tmp_path / "space.json").write_text(json.dumps(space))
    name = pipeline.notebook_path(step).stem
    with pytest.raises(ValueError, match=message):
        read_space(name, parameters(name), tmp_path / "space.json")


def test_two_at_once_are_refused_and_so_is_a_python_without_optuna(run, monkeypatch):
    with lock.held(run):
        done = n3r("03", "--size", "dev")
    assert "is in use by the process" in str(done.exception)
    monkeypatch.setitem(sys.modules, "optuna", None)
    done = n3r("03", "--size", "dev")
    assert isinstance(done.exception, ModuleNotFoundError) and done.exception.name == "optuna"


def test_the_blend_is_tuned_by_rows_held_out_and_unchanged_members_are_kept(run):
    step, given = "09_best", ['members=["slow boosting", "lstm2risk"]', 'lstm2risk={"hidden_size": 4}']
    space = {"lstm2risk.epochs": [1, 2]}
    settings = parameters(step, *given, "identity=off", "n_folds=1")
    trials, _ = search(Task(run, step, {**settings, "lstm2risk": {"hidden_size": 4, "epochs": 1}}, space), 2)
    assert [trial.state for trial in trials] == ["complete"] * 3
    fits = list(run.glob("tune/09_best/training/slow_boosting/*"))
    assert len(fits) == 1 and not list(run.glob("tune/09_best/training/*/all"))
    assert {trial.values.get("lstm2risk.epochs") for trial in trials} <= {None, 1, 2}


@pytest.mark.slow
def test_a_run_with_the_size_found_reaches_what_the_trial_reached(tmp_path, monkeypatch):
    """By the commands: prepared, tuned, run; the validation AUROC of the notebook is the trial's."""
    monkeypatch.setattr(pipeline, "ROOT", tmp_path)
    runner = CliRunner()
    assert runner.invoke(app, ["run", "02", "--size", "dev"]).exit_code == 0
    done = n3r("03", "--size", "dev", "--trials", 2, "-p", "epochs=2")
    assert done.exit_code == 0, done.output
    command = re.search(r"n3r (run 03 .*)", done.stderr)[1].split()
    done = runner.invoke(app, command)
    assert done.exit_code == 0 and "02_tokenizer unchanged, skipped" in done.output, done.output
    page = read_json(tmp_path / "reports" / "dev" / "tune_03_train_lstm2risk.json")
    history = notebook.read_metrics(tmp_path / "runs" / "dev", "03_train_lstm2risk")["model"]["history"]
    assert [epoch["val_auroc"] for epoch in history] == page["trials"][page["best"]]["epochs"]
