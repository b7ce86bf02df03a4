"""Commands that hand models on and take them over; `run` and `score` are in test_pipeline and test_score."""

import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from importlib.metadata import version
from io import StringIO
from pathlib import Path
from unittest.mock import patch

import numpy as np
import polars as pl
import pytest
import torch

from n3r import cli
from n3r.files.lock import alone
from n3r.files.writer import write
from n3r.legacy.models import LegacyLSTM2Risk, LegacyLSTMConfig
from n3r.legacy.trainer import LegacyTextDataset, LegacyTokenizer, legacy_tabular, predict_legacy
from n3r.schema import ColumnMap, joined_text
from n3r.score import Scorer
from n3r.synthetic.orders import generate_orders

TEXT = ["email", "billing", "holder"]
COLUMNS = ColumnMap(
    id="order", text=TEXT, label="fraud", label_values={"0": 0, "1": 1}, numeric=["amount"], split_by="random"
)


def n3r(*arguments: object) -> subprocess.CompletedProcess:
    """What the command says and ends with, in this process: one of its own takes seconds to start."""
    out, err = StringIO(), StringIO()
    words = patch.object(sys, "argv", ["n3r", *map(str, arguments)])
    with pytest.raises(SystemExit) as end, words, redirect_stdout(out), redirect_stderr(err):
        cli.main()
    return subprocess.CompletedProcess(arguments, end.value.code or 0, out.getvalue(), err.getvalue())


@pytest.fixture(scope="module")
def rows(names) -> pl.DataFrame:
    amount = pl.Series([None if i % 5 == 0 else float(i) for i in range(300)])
    return names(300).with_columns(order=pl.int_range(300).cast(pl.String), amount=amount)


def test_version_goals_and_exit_statuses():
    assert n3r("--version").stdout == f"n3r {version('n3r')}\n"
    told = n3r("run", "--goal", "speed")
    assert (told.returncode, told.stderr) == (2, "n3r: --goal takes model, parity, all, not 'speed'\n")
    assert "give steps or --goal model, not both" in n3r("run", "03", "--goal", "model").stderr
    assert n3r("run", "--size", "huge").returncode == 2
    assert "130" in n3r("--help").stdout


def test_the_command_lists_what_it_can_do():
    done = n3r("--help")
    assert done.returncode == 0
    for command in (
        "run",
        "score",
        "evaluate",
        "compare",
        "export",
        "import-features",
        "import-legacy",
        "params",
        "refresh",
        "verify",
    ):
        assert command in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--size", "huge"], "no size 'huge'"),
        (["run", "--name", "../x"], "run name"),
        (["run", "--name", "example"], "reports/example belongs to the repository"),
        (["run", "--name", "LOG.md"], "reports/LOG.md belongs to the repository"),
        (["run", "--data", "no/such.csv"], "no/such.csv"),
        (["run", "--map", "no/such.json"], "no/such.json"),
        (["run", "-p", "epocs=3"], "epocs"),
        (["run", "06", "--engine", "ray"], "engine is read by 01_preprocess, 03_train_lstm2risk, "),
        (["run", "06", "--memory", "2GB"], "memory is read by 01_preprocess alone, which this run does not"),
        (["run", "01", "-p", "epochs=3"], "epochs is read by 03_train_lstm2risk, 04_train_transformer2risk"),
        (
            ["run", "-p", "03.monitor=val_auc"],
            "03_train_lstm2risk: key 'monitor': expected 'val_auroc', ",
        ),
        (["run", "04", "-p", "lr=0"], "04_train_transformer2risk: key 'lr': expected more than 0"),
        (["run", "-p", "03.max_tokens=2"], "03_train_lstm2risk: key 'max_tokens': expected "),
        (["run", "-p", "imputation=guess"], "03_train_lstm2risk: key 'imputation': expected "),
        (["params"], "name a step, such as 03, or give --region"),
        (["params", "10"], "no step '10'"),
        (["run", "--region", "US"], "the regions with a file are EU, FE, NA"),
        (["params", "03", "--region", "US"], "the regions with a file are EU, FE, NA"),
        (["run", "--bogus"], "No such option"),
    ],
)
def test_a_mistake_is_one_message_and_exit_status_2(arguments, message):
    done = n3r(*arguments)
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr


def test_params_lists_a_notebooks_parameters():
    done = n3r("params", "03")
    assert "hidden_size" in done.stdout and "published 128" in done.stdout
    assert re.search(r"weight_decay +\W 0\.01 ", done.stdout)
    done = n3r("params", "03", "--region", "EU", "--size", "full")
    assert re.search(r"weight_decay +\W 0\.0 ", done.stdout)
    assert re.search(r"hidden_size +\W 128 ", done.stdout)
    done = n3r("params", "--region", "EU")
    assert "03_train_lstm2risk" in done.stdout and "04_train_transformer2risk" in done.stdout
    assert done.stdout.count("'val_loss'") == 2


@pytest.fixture(scope="module")
def of_three(tmp_path_factory) -> Path:
    """A column map of the synthetic orders with frauds of two kinds."""
    content = json.loads((Path(__file__).parents[1] / "configs" / "orders.json").read_text())
    path = tmp_path_factory.mktemp("three") / "map.json"
    path.write_text(json.dumps({**content, "label_values": {"N": 0, "F": 1, "I": 2}}))
    return path


def test_a_step_that_is_binary_only_says_so(of_three):
    done = n3r("run", "07", "--map", of_three)
    assert done.returncode == 2 and "3 classes, and 07_custom_transformer is binary only" in done.stderr
    assert "03_train_lstm2risk" not in done.stderr


def test_scores_of_three_classes_are_evaluated_and_compared(of_three, tmp_path):
    orders = generate_orders(600, seed=4, base_rate=0.3)
    orders.write_parquet(tmp_path / "orders.parquet")
    rng, known = np.random.default_rng(0), orders.filter(pl.col("status").is_in(["N", "F", "I"]))
    for name in ("new", "old"):
        p = np.stack([rng.dirichlet(1 + 3 * np.eye(3)["NFI".index(kind)]) for kind in known["status"]])
        scores = {f"score_{c}": p[:, c] for c in range(3)}
        known.select("objectId").with_columns(**scores).write_csv(tmp_path / f"{name}.csv")
    given = ("--orders", tmp_path / "orders.parquet", "--map", of_three)
    done = n3r("evaluate", tmp_path / "new.csv", *given, "-o", tmp_path / "evaluation")
    assert done.returncode == 0 and "of 3 classes against the rest" in done.stdout, done.stderr
    done = n3r("compare", tmp_path / "new.csv", tmp_path / "old.csv", *given, "-o", tmp_path / "comparison")
    assert done.returncode == 0, done.stderr
    done = n3r("evaluate", tmp_path / "new.csv", "--orders", tmp_path / "orders.parquet")
    assert done.returncode == 2 and "scores of 3 classes, and the column map has 2" in done.stderr


def test_the_command_starts_without_torch_and_papermill(run_fresh):
    heavy = "{'torch', 'lightning', 'transformers', 'papermill'}"
    code = f"import sys, n3r.cli, n3r.score; print({heavy} & set(sys.modules))"
    assert run_fresh(code).strip() == "set()"


def test_a_bundle_becomes_torchscript(small, tmp_path):
    done = n3r("export", tmp_path / "model.pt", "--bundle", small.folder, "--layout", "torchscript")
    assert done.returncode == 0, done.stderr
    rows = small.prepared.splits["test"][:1]
    data = small.bundle.dataset(rows)
    batch = {
        "text": torch.from_numpy(data.text.row(0).astype(np.int64))[None],
        "attn_mask": torch.ones(1, len(data.text.row(0)), dtype=torch.bool),
        "tabular": torch.from_numpy(data.tabular),
    }
    np.testing.assert_allclose(
        torch.jit.load(tmp_path / "model.pt")(batch), small.bundle.predict(rows), atol=1e-6
    )


def test_a_bundle_becomes_the_published_artefacts(small, tmp_path):
    pl.DataFrame({"label": [0, 1], "score": [0.1, 0.9]}).write_csv(tmp_path / "predictions.csv")
    arguments = ("--layout", "sagemaker", "--predictions", tmp_path / "predictions.csv")
    done = n3r("export", tmp_path / "artefacts", "--bundle", small.folder, *arguments)
    assert done.returncode == 0, done.stderr
    names = {path.name for path in (tmp_path / "artefacts").iterdir()}
    assert {
        "model.pth",
        "model.onnx",
        "hyperparameters.json",
        "feature_columns.txt",
        "predict_results.pth",
    } <= names


def test_wrong_requests_end_in_one_message_and_status_2(small, tmp_path):
    folder = small.folder
    for arguments, message in (
        (("--bundle", folder, "--layout", "tensorflow"), "sagemaker or torchscript, not 'tensorflow'"),
        (("--bundle", tmp_path, "--layout", "sagemaker"), "MANIFEST.json"),
        (
            ("--bundle", folder, "--layout", "torchscript", "--predictions", "x.csv"),
            "goes with --layout sagemaker",
        ),
    ):
        done = n3r("export", tmp_path / "out", *arguments)
        assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr
        assert not (tmp_path / "out").exists()


def test_verify_says_who_wrote_a_bundle_or_which_files_are_at_fault(small, tmp_path):
    done = n3r("verify", small.folder)
    assert done.returncode == 0 and "is whole; written with python 3." in done.stdout
    folder = tmp_path / "copy"
    shutil.copytree(small.folder, folder)
    (folder / "vocab.json").write_bytes((folder / "vocab.json").read_bytes()[:-1])
    (folder / "features.json").unlink()
    done = n3r("verify", folder)
    assert done.returncode == 2
    assert "features.json is missing; vocab.json is truncated" in done.stderr
    assert n3r("verify", tmp_path).returncode == 2


def test_the_legacys_feature_lists_become_a_column_map(rows, tmp_path):
    rows.with_columns(fraud=pl.lit("0")).write_parquet(tmp_path / "rows.parquet")
    (tmp_path / "map.json").write_text(json.dumps(COLUMNS.model_copy(update={"numeric": ["*"]}).model_dump()))
    for region, text in {"NA": "gone\namount\norder\n", "EU": "order\namount\ngone\nmore\n"}.items():
        (tmp_path / f"{region}.txt").write_text(text)
    given = [tmp_path / "NA.txt", tmp_path / "EU.txt", "--map", tmp_path / "map.json"]
    done = n3r("import-features", *given, "--data", tmp_path / "rows.parquet", "-o", tmp_path / "my.json")
    assert done.returncode == 0, done.stderr
    assert "left out 'gone': the rows do not have it" in done.stderr and "1 numeric columns, 2" in done.stderr
    assert ColumnMap.from_file(tmp_path / "my.json") == COLUMNS.model_copy(update={"numeric": ["amount"]})
    done = n3r("import-features", tmp_path / "JP.txt", "-o", tmp_path / "other.json")
    assert done.returncode == 2 and "JP.txt: no such file" in done.stderr


@pytest.mark.slow
def test_legacy_weights_become_a_bundle_that_scores_as_they_did(rows, tmp_path):
    joined = rows.select(joined_text(TEXT)).to_series().to_list()
    tokenizer = LegacyTokenizer(min_frequency=3).train(joined)
    sizes = {"embedding_size": 4, "hidden_size": 6, "n_lstm_layers": 1}
    model = LegacyLSTM2Risk(LegacyLSTMConfig(n_tab_features=1, n_embed=tokenizer.vocab_size, **sizes))
    torch.save(model.state_dict(), tmp_path / "model_9.pt")
    tokenizer.tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "features.txt").write_text("amount\n")
    (tmp_path / "map.json").write_text(json.dumps(COLUMNS.model_dump()))
    files = ("--tokenizer", tmp_path / "tokenizer.json", "--features", tmp_path / "features.txt")
    rest = ("--map", tmp_path / "map.json", "-o", tmp_path / "bundle")
    done = n3r("import-legacy", tmp_path / "model_9.pt", "--model-class", "lstm2risk", *files, *rest)
    assert done.returncode == 0, done.stderr
    dataset = LegacyTextDataset(
        joined, legacy_tabular(rows, ["amount"]), np.zeros(len(rows), np.float32), tokenizer
    )
    scored = Scorer(tmp_path / "bundle").score(rows)
    assert scored.columns == ["order", "score"], "nothing to calibrate on"
    np.testing.assert_allclose(scored["score"], predict_legacy(model, dataset), atol=1e-6)
    shutil.copy(tmp_path / "features.txt", tmp_path / "weights.pt")
    done = n3r("import-legacy", tmp_path / "weights.pt", "--model-class", "lstm2risk", *files, *rest)
    assert done.returncode == 2 and "weights.pt" in done.stderr and "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def scores(tmp_path_factory) -> Path:
    """Raw orders, two score files of them, and a run with predictions."""
    folder = tmp_path_factory.mktemp("scores")
    orders = generate_orders(1500, seed=4, base_rate=0.2)
    orders.write_parquet(folder / "orders.parquet")
    rng = np.random.default_rng(0)
    for name in ("new", "old"):
        noise = pl.Series(rng.random(len(orders)))
        score = (orders["oracle_p"] + noise) / 2
        orders.select("objectId").with_columns(score=score).write_csv(folder / f"{name}.csv")
    (folder / "run" / "predictions").mkdir(parents=True)
    labelled = orders.filter(pl.col("status").is_in(["F", "I", "N"])).select(
        "objectId",
        segment="marketplaceCountryCode",
        time=pl.from_epoch(pl.col("orderDate").cast(pl.Int64)),
        label=(pl.col("status") != "N").cast(pl.Int8),
        score="oracle_p",
    )
    labelled.write_parquet(folder / "run" / "predictions" / "lstm2risk_test.parquet")
    return folder


def test_two_score_files_are_compared_on_their_orders(scores, tmp_path):
    out = tmp_path / "comparison"
    done = n3r(
        "compare", scores / "new.csv", scores / "old.csv", "--orders", scores / "orders.parquet", "-o", out
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("new is not shown to be equivalent to old within 0.01 (")
    content = json.loads((out / "comparison.json").read_text())
    assert content["comparisons"][0]["n"] > 1300
    assert "<svg" in (out / "comparison.html").read_text()


def test_one_name_in_two_formats_is_two_systems(scores, tmp_path):
    pl.read_csv(scores / "new.csv").write_parquet(scores / "new.parquet")
    files = scores / "new.csv", scores / "new.parquet"
    done = n3r("compare", *files, "--orders", scores / "orders.parquet", "-o", tmp_path / "out")
    assert done.stdout.startswith("new.csv is equivalent to new.parquet"), done.stderr


def test_a_model_of_a_run_and_a_score_file_are_evaluated(scores, tmp_path):
    done = n3r("evaluate", scores / "run" / "lstm2risk", "-o", tmp_path / "run", "-p", "fpr=0.05")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("lstm2risk reaches an AUROC of ")
    assert "over time" in (tmp_path / "run" / "evaluation.md").read_text().lower()
    orders = ("--orders", scores / "orders.parquet", "--validation", scores / "old.csv")
    done = n3r("evaluate", scores / "new.csv", *orders, "-o", tmp_path / "file")
    assert done.returncode == 0, done.stderr
    assert "Does it serve all alike?" in (tmp_path / "file" / "evaluation.md").read_text()


@pytest.mark.parametrize(
    "arguments, says",
    [
        (("evaluate", "new.csv"), "no label on every row of"),
        (("evaluate", "nothing.csv"), "is neither a score file, nor a folder of some, nor a run"),
        (("evaluate", "run/lstm2risk", "-p", "cost_mised=1"), "did you mean 'cost_missed'"),
        (("compare", "new.csv", "new.csv"), "nothing to compare"),
        (("compare", "new.csv", "run"), "do not hold the same rows"),
        (("compare", "new.csv", "old.csv", "--column", "scor"), "no column 'scor' beside its id"),
    ],
)
def test_a_mistake_in_what_is_evaluated_or_compared_is_one_message(scores, arguments, says, tmp_path):
    paths = [scores / a if "." in a and "=" not in a or a.startswith("run") else a for a in arguments]
    done = n3r(*paths, "-o", tmp_path / "out")
    assert done.returncode == 2
    assert says in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_an_output_that_another_process_writes_is_refused(scores, small, tmp_path):
    """Whatever the command, and the other goes on: its own files are as they were."""
    write(small.orders.head(20), tmp_path / "orders.csv")
    score = ("score", tmp_path / "orders.csv", "--bundle", small.folder)
    orders = ("--orders", scores / "orders.parquet")
    commands = {
        "a.csv": score,
        "a": score,
        "b.csv": (*score, "--engine", "disk"),
        "evaluation": ("evaluate", scores / "new.csv", *orders),
        "comparison": ("compare", scores / "new.csv", scores / "old.csv", *orders),
    }
    for name, words in commands.items():
        with alone(tmp_path / name) as place:
            (place / "its own").touch()
            done = n3r(*words, "-o", tmp_path / name)
            assert done.returncode == 2, done.stderr
            assert f"{tmp_path / name} is in use by the process {os.getpid()}: wait for it" in done.stderr
            assert (place / "its own").exists()
        done = n3r(*words, "-o", tmp_path / name)
        assert done.returncode == 0, done.stderr
        assert not list(tmp_path.rglob(".*"))


SMALL_LM = ("subset_size=400", "use_subset=true", "d_model=32", "n_blocks=1", "epochs=4", "eval_every=10")


@pytest.mark.slow
def test_a_language_model_is_trained_evaluated_and_sampled(tmp_path):
    config = Path(__file__).parents[1] / "configs" / "custom_transformer.json"
    options = [part for text in SMALL_LM for part in ("-p", text)]
    done = n3r("lm", "train", "--config", config, "-o", tmp_path / "lm", *options, "-p", "batch_size=16")
    assert done.returncode == 0, done.stderr
    perplexities = [float(x) for x in re.findall(r"perplexity ([\d.]+), [\d.]+ bits", done.stderr)]
    assert len(perplexities) > 3 and perplexities[-1] < perplexities[0] / 1.5
    test = re.search(r"^test: perplexity [\d.]+ a token, [\d.]+ bits a character .*$", done.stdout, re.M)[0]
    again = n3r("lm", "eval", "--checkpoint", tmp_path / "lm")
    assert again.stdout.strip() == test
    drawn = n3r("lm", "eval", "--checkpoint", tmp_path / "lm", "--generate", "Ma", "--n", "3")
    assert len(drawn.stdout.splitlines()) == 3 and drawn.stdout.startswith("Ma")
    (tmp_path / "names.txt").write_text("Ana Silva\n\nBo Li\n")
    other = n3r("lm", "eval", "--checkpoint", tmp_path / "lm", "--data", tmp_path / "names.txt")
    assert "16 characters" in other.stdout


def test_a_mistake_with_language_models_is_one_message(tmp_path):
    config = Path(__file__).parents[1] / "configs" / "custom_transformer.json"
    for arguments, says in (
        (("train", "--config", config, "-p", "d_model=30"), "d_model 30 is not divisible by n_heads 4"),
        (("train", "--config", config, "-p", "data=no.txt"), "no file or folder no.txt"),
        (("train", "--config", tmp_path / "no.json"), "no config"),
        (("eval", "--checkpoint", tmp_path), "is not a language model"),
    ):
        done = n3r("lm", *arguments)
        assert done.returncode == 2 and says in done.stderr and "Traceback" not in done.stderr
