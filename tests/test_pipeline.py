"""The runner refuses what papermill lets pass, skips what is done, and goes on after a failure."""

import json
import subprocess
import sys
from pathlib import Path

import nbformat
import polars as pl
import pytest

from n3r import notebook, pipeline
from n3r.pipeline import DEFAULT, STEPS, Step, resolve_parameters, run_steps, with_needs
from n3r.synthetic import orders as synth
from n3r.tables import read_split

ROOT = Path(__file__).resolve().parent.parent
N3R = [sys.executable, "-m", "n3r.cli"]


def write_notebook(path: Path, parameters: str, *code: str) -> None:
    cells = [nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})]
    cells += [nbformat.v4.new_code_cell(source) for source in code]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    book = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    nbformat.write(book, path)


@pytest.fixture
def house(tmp_path, monkeypatch):
    """A checkout with two small notebooks, the second reading what the first wrote."""
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "size_dev.json").write_text('{"01_first": {"n": 3}}')
    begin = "from n3r import notebook\nrun = notebook.begin('0{}', vars())\n"
    write_notebook(
        tmp_path / "notebooks" / "01_first.ipynb",
        'name: str = "dev"  # the run\nn: int = 1  # how many\nrate: float = 0.5  # a share\n'
        'parts: list[str] = ["a"]  # a list\nweights: dict = None  # any',
        begin.format("1_first") + "(run / 'out').write_text(str(n))",
        "notebook.finish_step(run, '01_first', {'n': n})",
    )
    write_notebook(
        tmp_path / "notebooks" / "02_second.ipynb",
        'name: str = "dev"  # the run\nfail: bool = False  # to fail',
        begin.format("2_second")
        + "assert not fail, 'told to'\nn = notebook.read_metrics(run, '01_first')['n']",
        "page = notebook.reports_folder(run) / 'page.html'\n"
        "page.parent.mkdir(parents=True, exist_ok=True)\npage.write_text(name)",
        "notebook.finish_step(run, '02_second', {'twice': 2 * n})",
    )
    monkeypatch.setattr(pipeline, "ROOT", tmp_path)
    monkeypatch.setattr(pipeline, "SHIPPED", tmp_path)
    steps = (Step("01_first", (), ("out",)), Step("02_second", ("01_first",), pages=("page.html",)))
    monkeypatch.setattr(pipeline, "STEPS", steps)
    return tmp_path


def run(house: Path, *overrides: str, inputs: tuple[Path, ...] = ()) -> dict[str, int]:
    """When each step's record was written; the same moment means that the step was skipped."""
    folder = house / "runs" / "x"
    run_steps(folder, resolve_parameters("dev", {}, list(overrides)), list(inputs))
    return {step.name: written(folder, step.name) for step in pipeline.STEPS}


def written(folder: Path, step: str) -> int:
    return (folder / "steps" / step / "done.json").stat().st_mtime_ns


def test_runs_skips_and_reruns_what_changed(house):
    data = house / "data.csv"
    data.write_text("a")
    first = run(house, inputs=(data,))
    assert notebook.read_metrics(house / "runs" / "x", "02_second") == {"twice": 6}
    assert run(house, inputs=(data,)) == first
    assert run(house, "fail=false", inputs=(data,)) == first  # the default, spelled out
    changed = run(house, "n=5", inputs=(data,))
    assert notebook.read_metrics(house / "runs" / "x", "02_second") == {"twice": 10}
    data.write_text("b")
    assert run(house, "n=5", inputs=(data,))["01_first"] != changed["01_first"]


def test_a_lost_output_or_an_edited_metric_is_made_again(house):
    run(house)
    (house / "runs" / "x" / "out").unlink()
    run(house)
    assert (house / "runs" / "x" / "out").read_text() == "3"
    (house / "reports" / "x" / "page.html").unlink()
    run(house)
    assert (house / "reports" / "x" / "page.html").read_text() == "x"
    (house / "runs" / "x" / "steps" / "01_first" / "metrics.json").write_text('{"n": 50}')
    run(house)
    assert notebook.read_metrics(house / "runs" / "x", "01_first") == {"n": 3}


def test_a_page_that_an_earlier_step_wrote_again_is_written_anew(house, monkeypatch):
    _, second = pipeline.STEPS
    write_notebook(
        house / "notebooks" / "01_first.ipynb",
        'name: str = "dev"  # the run\nn: int = 1  # how many',
        "from n3r import notebook\nrun = notebook.begin('01_first', vars())",
        "page = notebook.reports_folder(run) / 'page.html'\n"
        "page.parent.mkdir(parents=True, exist_ok=True)\npage.write_text('less')",
        "notebook.finish_step(run, '01_first', {'n': 1})",
    )
    monkeypatch.setattr(pipeline, "STEPS", (Step("01_first", (), pages=("page.html",)), second))
    page, before = house / "reports" / "x" / "page.html", run(house, "n=1")
    assert page.read_text() == "x" and run(house, "n=1") == before
    run_steps(house / "runs" / "x", resolve_parameters("dev", {}, ["n=2"]), [], [pipeline.STEPS[0]])
    assert page.read_text() == "less"
    run(house, "n=2")  # its metrics are the same, and the later page is gone
    assert page.read_text() == "x"


def test_a_failing_cell_is_told_shortly_and_the_run_goes_on_from_there(house):
    with pytest.raises(pipeline.StepError, match=r"02_second failed: told to\n.*02_second\.ipynb") as failure:
        run(house, "fail=true")
    assert "Traceback" not in str(failure.value)
    before = written(house / "runs" / "x", "01_first")
    assert run(house)["01_first"] == before


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("m=1", "no step has the parameter 'm'; `n3r params 03` lists"),
        ("02.n=1", "no step has the parameter '02.n'"),
        ("n=1.5", "01_first.n is 1.5; expected int"),
        ("n=true", "01_first.n is True; expected int"),
        ("rate=much", "01_first.rate is 'much'; expected float"),
        ("parts=a", "01_first.parts is 'a'; expected list"),
        ("fail=1", "02_second.fail is 1; expected bool"),
        ("n", "expected KEY=VALUE, found n"),
        ("name=other", "give name with --name"),
    ],
)
def test_unknown_and_ill_typed_parameters_are_refused_before_anything_runs(house, override, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        run(house, override)
    assert not (house / "runs").exists()


def test_a_parameter_that_no_step_of_the_run_reads_is_refused(house):
    first, second = pipeline.STEPS
    for key in ("fail", "02.fail"):
        with pytest.raises(ValueError, match=f"^{key} is read by 02_second alone, which this run does not"):
            resolve_parameters("dev", {}, [f"{key}=true", "n=2"], [first])
    assert resolve_parameters("dev", {}, ["n=2"], [first])["01_first"]["n"] == 2
    assert set(resolve_parameters("dev", {}, ["fail=true"], [second])) == {"02_second"}


def test_values_take_the_type_of_the_default(house):
    given = resolve_parameters("dev", {}, ["n=4", "01.rate=1", 'parts=["b", "c"]', "weights=[1, 2]"])
    assert given["01_first"] == {"n": 4, "rate": 1.0, "parts": ["b", "c"], "weights": [1, 2]}
    assert given["02_second"] == {"fail": False}


def test_a_file_given_by_its_name_is_found_from_the_notebooks_folder(house, monkeypatch):
    (house / "table.json").write_text("{}")
    monkeypatch.chdir(house)
    given = resolve_parameters("dev", {}, ["weights=table.json"])
    assert given["01_first"]["weights"] == str((house / "table.json").resolve())


def test_several_mistakes_are_named_at_once(house):
    with pytest.raises(ValueError, match=r"'m'.*01_first\.n is 'x'"):
        run(house, "m=1", "n=x")


@pytest.mark.parametrize("size", pipeline.SIZES)
def test_the_sizes_fit_the_notebooks(size):
    assert set(resolve_parameters(size, {}, [])) == {step.name for step in STEPS}


def test_defect_09_every_region_has_a_file_that_fits_the_notebooks():
    assert pipeline.regions() == ["EU", "FE", "NA"]
    for region in pipeline.regions():
        found = resolve_parameters("full", {}, [], None, region)["03_train_lstm2risk"]
        assert (found["weight_decay"], found["hidden_size"]) == (0.0, 128)


def test_a_region_goes_over_the_size_and_the_command_line_over_both(house):
    first = [pipeline.STEPS[0]]
    (house / "configs" / "hyperparameters_EU.json").write_text('{"01_first": {"n": 7}, "02_second": {}}')
    assert resolve_parameters("dev", {}, [], first)["01_first"]["n"] == 3
    assert resolve_parameters("dev", {}, [], first, "EU")["01_first"]["n"] == 7
    assert resolve_parameters("dev", {}, ["n=9"], first, "EU")["01_first"]["n"] == 9


@pytest.mark.parametrize(
    ("content", "region", "message"),
    [
        ("{}", "US", "no configs/hyperparameters_US.json; the regions with a file are EU"),
        ("{}", "../EU", "no configs/hyperparameters_../EU.json"),
        ("[1]", "EU", "hyperparameters_EU.json must hold an object of steps"),
        ('{"n": 1}', "EU", "hyperparameters_EU.json must hold an object of steps"),
        ('{"01_first": {"m": 1}}', "EU", "no step has the parameter '01_first.m'"),
        ('{"01_first": {"n": "a"}}', "EU", "01_first.n is 'a'; expected int"),
    ],
)
def test_a_mistaken_region_is_refused(house, content, region, message):
    (house / "configs" / "hyperparameters_EU.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        resolve_parameters("dev", {}, [], None, region)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["03"], ["01_preprocess", "02_tokenizer", "03_train_lstm2risk"]),
        (["06"], ["06_multimodal"]),
        (["06_multimodal", "01"], ["01_preprocess", "06_multimodal"]),
        (["05_parity"], [step.name for step in STEPS[:6]]),
    ],
)
def test_steps_come_with_what_they_need_in_order(names, expected):
    assert [step.name for step in pipeline.with_needs(names)] == expected


@pytest.mark.slow
def test_model_classes_side_by_side_on_reviews(tmp_path):
    """Step 06 through the command, on the first rows of real reviews; titles are the second text."""
    reviews = ROOT.parent / "shared" / "data" / "womens_reviews" / "reviews.parquet"
    if not reviews.is_file():
        pytest.skip(f"{reviews.name} of womens_reviews is not beside the checkout")
    pl.read_parquet(reviews, n_rows=900).write_parquet(tmp_path / "some.parquet")
    name = f"test-{tmp_path.name}"
    command = [*N3R, "run", "06", "--size", "dev", "--name", name, "--data", str(tmp_path / "some.parquet")]
    command += ["--map", str(ROOT / "configs" / "reviews.json"), "-p", "epochs=1"]
    command += ["-p", 'model_classes=["lstm", "trimodal_gate_fusion"]']
    folder = ROOT / "runs" / name
    try:
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "trimodal_gate_fusion" in done.stdout and "seconds an epoch" in done.stdout
        scored = pl.read_parquet(folder / "multimodal" / "predictions" / "lstm_test.parquet")
        test = read_split(folder / "multimodal" / "data", "test")
        assert scored["__index_level_0__"].equals(test["__index_level_0__"])
        assert scored["score"].is_between(0, 1).all()
    finally:
        subprocess.run(["rm", "-rf", str(folder)], check=True)


@pytest.mark.slow
def test_three_classes_through_every_step_but_07(tmp_path):
    """Synthetic orders have two kinds of fraud; the legacy is binary only and says so, and the rest runs."""
    content = json.loads((ROOT / "configs" / "orders.json").read_text())
    content["label_values"] = {"N": 0, "F": 1, "I": 2}
    (tmp_path / "map.json").write_text(json.dumps(content))
    name = f"test-{tmp_path.name}"
    command = [*N3R, "run", "--size", "dev", "--name", name, "--map", str(tmp_path / "map.json")]
    command += [
        "-p",
        '09.members=["boosting", "character n-grams"]',
        "-p",
        "n_attacked=20",
        "-p",
        "sizes=[250]",
    ]
    folder, pages = ROOT / "runs" / name, ROOT / "reports" / name
    try:
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "The comparison with the legacy is binary only" in done.stdout
        assert done.stdout.count("the mean of each of 3 classes against the rest") == 3
        assert "binary only" in (pages / "report.md").read_text()
        assert "Each class against the rest" in (pages / "lstm2risk.md").read_text()
        for key in ("best", "lstm2risk", "transformer2risk"):
            scored = pl.read_parquet(folder / "predictions" / f"{key}_test.parquet")
            sums = scored.select(pl.sum_horizontal(f"score_{c}" for c in range(3))).to_series()
            assert sums.to_list() == pytest.approx([1] * len(scored), abs=1e-5)
        for step in ("03_train_lstm2risk", "04_train_transformer2risk", "09_best"):
            book = (folder / "notebooks" / f"{step}.ipynb").read_text()
            assert "mean of each class against the rest" in book and "0.00001: True" in book
            found = notebook.read_metrics(folder, step)["model"]["test"]
            assert found["auroc"] > 0.6 and found["n_classes"] == 3
        rows = [str(path) for path in (folder / "orders").glob("*.parquet")]
        command = [*N3R, "score", *rows, "--bundle", str(folder / "lstm2risk"), "-o", "scores.csv"]
        subprocess.run(command, cwd=tmp_path, check=True)
        assert {"score_0", "score_1", "score_2"} < set(pl.read_csv(tmp_path / "scores.csv").columns)
        command = [*N3R, "evaluate", str(folder / "lstm2risk")]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        assert "the mean of each of 3 classes against the rest" in done.stdout
    finally:
        subprocess.run(["rm", "-rf", str(folder), str(pages)], check=True)


@pytest.mark.slow
def test_orders_in_csv_give_a_report_and_predictions_in_csv(tmp_path):
    """The whole command on a user's own files: two regions as CSV, tiny models."""
    orders = synth.generate_orders(1500, seed=3)
    for region in ("NA", "EU"):
        orders.filter(pl.col("region") == region).drop("oracle_p").write_csv(tmp_path / f"{region}.csv")
    name = f"test-{tmp_path.name}"
    tiny = ["epochs=1", "hidden_size=8", "embedding_size=8", "n_lstm_layers=1", "n_blocks=1", "n_heads=2"]
    command = [*N3R, "run", "--size", "dev", "--name", name]
    command += ["--data", f"NA={tmp_path / 'NA.csv'}", "--data", f"EU={tmp_path / 'EU.csv'}"]
    command += [part for setting in tiny for part in ("-p", setting)]
    folder, reports = ROOT / "runs" / name, ROOT / "reports" / name
    try:
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert str(reports / "report.html") in done.stdout
        test = read_split(folder / "data", "test")
        scored = pl.read_csv(folder / "predictions" / "lstm2risk_test.csv", infer_schema=False)
        assert scored["objectId"].equals(test["objectId"])
        assert (reports / "report.html").stat().st_size > 10_000
        provenance = json.loads((folder / "provenance.json").read_text())
        assert set(provenance["steps"]) == {step.name for step in with_needs([DEFAULT])}
        for model in ("lstm2risk", "transformer2risk"):
            assert f"{model}.html" in done.stdout and (reports / f"{model}.json").is_file()
            for curve in ("roc.png", "roc.svg", "precision_recall.png", "precision_recall.svg"):
                assert (reports / f"{model}_{curve}").is_file()
        assert all(record["peak_memory_mb"] > 50 for record in provenance["steps"].values())
        # Raw orders, as they came, get the scores that the prepared ones got in training.
        bundle, raw = folder / "lstm2risk", [f"{r}={tmp_path / r}.csv" for r in ("NA", "EU")]
        command_score = [*N3R, "score", "--bundle", str(bundle), *raw, "-o", str(tmp_path / "scores.parquet")]
        assert subprocess.run(command_score, cwd=tmp_path, capture_output=True).returncode == 0
        both = scored.join(pl.read_parquet(tmp_path / "scores.parquet"), on="objectId", suffix="_raw")
        assert len(both) == len(scored)
        assert (both["score"].cast(pl.Float64) - both["score_raw"]).abs().max() < 1e-6
        again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert again.stderr.count("unchanged, skipped") == len(with_needs([DEFAULT]))
    finally:
        subprocess.run(["rm", "-rf", str(folder), str(reports)], check=True)


def test_the_answer_stands_in_the_first_cell(tmp_path):
    book = {"cells": [{"source": ["# 3. Title\n", "\n", "**Answer.** As yet unknown.\n", "\n", "More."]}]}
    records = tmp_path / "steps" / "03_train"
    pipeline.put_answer(book, records)
    assert "As yet unknown." in "".join(book["cells"][0]["source"])
    notebook.finish_step(tmp_path, "03_train", {"n": 1}, r"AUROC 0.815 [0.779, 0.847] \1")
    pipeline.put_answer(book, records)
    assert book["cells"][0]["source"] == "# 3. Title\n\n**Answer.** AUROC 0.815 [0.779, 0.847] \\1\n\nMore."
