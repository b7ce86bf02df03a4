"""The files of a legacy training: as published, readable, and enough to score with any epoch's weights."""

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from n3r.legacy.epoch_files import EpochFiles, read_experiment
from n3r.legacy.models import LegacyTransformer2Risk, LegacyTransformerConfig
from n3r.legacy.trainer import LegacyTextDataset, LegacyTokenizer, predict_legacy

SIZES = {"embedding_size": 8, "hidden_size": 4, "n_blocks": 1, "n_heads": 2, "block_size": 12}
EPOCHS = [
    {"epoch": epoch, "lr": 0.1 / epoch, "train_loss": 0.5, "train_auc": 0.6, "seconds": 1.0, "test_auc": 0.7}
    for epoch in (1, 2)
]


@pytest.fixture(scope="module")
def tokenizer() -> LegacyTokenizer:
    return LegacyTokenizer(min_frequency=2).train(["marta rossi", "ana smith", "li wei"] * 20)


@pytest.fixture(scope="module")
def model(tokenizer):
    config = LegacyTransformerConfig(n_tab_features=2, n_embed=tokenizer.vocab_size, **SIZES)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return LegacyTransformer2Risk(config).eval()


@pytest.fixture(scope="module")
def markets(tokenizer):
    """A market of both classes and one of a single class."""
    rng = np.random.default_rng(0)
    texts = [f"{'marta' * (i % 5)}ana|rossi" for i in range(60)]
    tabular = rng.normal(size=(60, 2)).astype(np.float32)
    labels = np.array([i % 3 == 0 and i < 40 for i in range(60)], float)
    rows = LegacyTextDataset(texts, tabular, labels, tokenizer)
    return {"DE": rows.part(np.arange(40)), "JP": rows.part(np.arange(40, 60))}


def test_each_epoch_leaves_its_weights_and_a_row_of_metrics(tmp_path, model, markets, tokenizer):
    files = EpochFiles(tmp_path, "a plan")
    files.start(["age", "amount"], tokenizer)
    for n_written, epoch in enumerate(EPOCHS):
        assert not files.are_whole(2)
        files.write(epoch, model, markets, batch_size=7)
        content = json.loads(files.log.read_text())
        assert content["hyperparams"] == asdict(model.config)
        assert [row["step"] for row in content["metrics"]] == list(range(n_written + 1))
    assert files.are_whole(2)
    expected = roc_auc_score(markets["DE"].labels, predict_legacy(model, markets["DE"], 7))
    last = read_experiment(files.log).table.row(-1, named=True)
    assert last.pop("DE_auc") == pytest.approx(expected, abs=1e-12)
    assert last == {"step": 1, "lr": 0.05, "train_auc": 0.6, "test_auc": 0.7, "JP_auc": None}
    found = torch.load(tmp_path / "models" / "model_1.pt", weights_only=True)
    assert found.keys() == model.state_dict().keys()
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in found.items())
    assert (tmp_path / "features.txt").read_text() == "age\namount\n"
    assert json.loads((tmp_path / "tokenizer.json").read_text())["model"]["vocab"]


def test_one_plan_has_one_log_and_weights_of_an_earlier_training_go(tmp_path, model, tokenizer):
    first, same, other = (EpochFiles(tmp_path, plan) for plan in ("a", "a", "b"))
    assert first.log == same.log != other.log
    first.start(["age"], tokenizer)
    for epoch in EPOCHS:
        first.write(epoch, model, {}, 7)
    same.start(["age"], tokenizer)
    same.write(EPOCHS[0], model, {}, 7)
    assert len(read_experiment(same.log).metrics) == 1 and same.are_whole(1) and not same.are_whole(2)
    other.start(["age"], tokenizer)
    assert not list(tmp_path.glob("models/*")) and same.log.is_file(), "a log names no weights"


def test_a_column_that_no_line_can_hold_is_named(tmp_path, tokenizer):
    with pytest.raises(ValueError, match=r"features\.txt cannot hold the column name 'two\\nlines': rename"):
        EpochFiles(tmp_path, "a plan").start(["age", "two\nlines"], tokenizer)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "cannot be read as JSON"),
        ('{"metrics": []}', "key 'hyperparams': it is missing"),
        ('{"hyperparams": {}, "metrics": [{"step": "one"}]}', r"key 'metrics\.0\.step"),
    ],
)
def test_what_is_no_experiment_is_told(tmp_path, content, says):
    path = tmp_path / "e.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=rf"e\.json.*{says}"):
        read_experiment(path)
