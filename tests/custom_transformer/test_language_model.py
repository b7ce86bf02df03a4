import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from n3r.custom_transformer.corpus import END
from n3r.custom_transformer.language_model import (
    LanguageModel,
    LanguageModelConfig,
    train_language_model,
)

SIZES = {"max_seq_len": 16, "n_blocks": 1, "n_heads": 2, "d_model": 24, "d_ffn": 32, "vocab_size": 300}
CONFIG = LanguageModelConfig(**SIZES, epochs=3, batch_size=16, learning_rate=1e-2, eval_every=10)


@pytest.fixture(scope="module")
def documents(names):
    texts = names(400)["billing"].to_list()
    return {"train": texts[:300], "val": texts[300:350], "test": texts[350:]}


@pytest.fixture(scope="module")
def trained(documents, tmp_path_factory):
    folder = tmp_path_factory.mktemp("lm")
    return train_language_model(CONFIG, folder, documents), folder


def test_perplexity_falls_far_below_that_of_a_guess(trained, documents):
    model, _ = trained
    perplexities = [row["val_perplexity"] for row in model.history]
    assert perplexities[-1] < perplexities[0] / 2
    assert model.evaluate(documents["test"])["perplexity"] < 12  # of 300 tokens


def test_figures_are_those_of_the_definition(trained, documents):
    model, _ = trained
    end, total, n_tokens = model.tokenizer.token_to_id(END), 0.0, 0
    for text in documents["test"]:
        ids = [end, *model.tokenizer.encode(text).ids, end]
        assert len(ids) <= 16
        p = model.wrapper.forward(torch.tensor([ids]))["logits"][0].double().softmax(-1)
        total -= sum(math.log(p[i, ids[i + 1]]) for i in range(len(ids) - 1))
        n_tokens += len(ids) - 1
    n_characters = sum(len(text) + 1 for text in documents["test"])
    found = model.evaluate(documents["test"])
    assert found["loss"] == pytest.approx(total / n_tokens, rel=1e-5)
    assert found["perplexity"] == pytest.approx(math.exp(total / n_tokens), rel=1e-5)
    assert found["bits_per_character"] == pytest.approx(total / math.log(2) / n_characters, rel=1e-5)
    assert (found["n_tokens"], found["n_characters"]) == (n_tokens, n_characters)


def test_surprisal_is_a_texts_own_and_adds_up(trained, documents):
    model, _ = trained
    texts = pl.Series([*documents["test"], None, "", "a text of more tokens than one window holds " * 2])
    found = model.surprisal(texts)
    assert found["nats"].null_count() == 1 and found["nats"][len(documents["test"])] is None
    one = model.surprisal(texts[3:4])
    assert one["nats"][0] == pytest.approx(found["nats"][3], rel=1e-5)
    figures = model.evaluate(documents["test"])
    total = found["nats"][: len(documents["test"])].sum()
    assert total == pytest.approx(figures["loss"] * figures["n_tokens"], rel=1e-5)
    bits = found["nats"][3] / math.log(2) / (len(texts[3]) + 1)
    assert found["bits_per_character"][3] == pytest.approx(bits)
    assert model.surprisal(pl.Series([], dtype=pl.String)).height == 0


def test_random_letters_have_a_higher_surprisal_than_names(trained, documents):
    model, _ = trained
    rng = np.random.default_rng(0)
    noise = ["".join(rng.choice(list("bcdfgqxz79"), 10)) for _ in range(50)]
    names, random = (model.surprisal(pl.Series(t))["nats"] for t in (documents["test"], noise))
    assert random.min() > names.max()


def test_attention_reads_nothing_from_the_right_and_its_weights_sum_to_one(trained):
    weights, tokens = trained[0].attention("Ana")
    assert weights.shape == (1, 2, len(tokens), len(tokens)) and "".join(tokens) == "·Ana"
    assert torch.equal(weights, weights.tril())
    assert torch.allclose(weights.sum(-1), torch.ones(weights.shape[:-1]))


def test_what_it_generates_begins_with_the_prompt_and_is_the_seeds(trained):
    model, _ = trained
    drawn = model.generate("An", 4, seed=1)
    assert len(drawn) == 4 and all(text.startswith("An") for text in drawn)
    assert drawn == model.generate("An", 4, seed=1) != model.generate("An", 4, seed=2)
    assert len(set(model.generate("", 3, temperature=0))) == 1
    with pytest.raises(ValueError, match="max_seq_len is 16"):
        model.generate("a beginning that fills it all, and more")


def test_a_model_is_the_same_from_its_files(trained, documents):
    model, folder = trained
    for place in (folder, folder / "best"):
        again = LanguageModel.load(place)
        assert again.evaluate(documents["test"]) == model.evaluate(documents["test"])
        assert again.config == CONFIG


class Interrupted(Exception):
    pass


def test_a_training_goes_on_to_the_same_weights_and_is_not_trained_again(trained, documents, tmp_path):
    model, _ = trained
    seen = []

    def interrupt(row):
        seen.append(row)
        if len(seen) == 3:
            raise Interrupted

    with pytest.raises(Interrupted):
        train_language_model(CONFIG, tmp_path, documents, report=interrupt)
    again = train_language_model(CONFIG, tmp_path, documents, report=seen.append)
    assert again.history == model.history == seen
    theirs = again.wrapper.model.parameters
    assert all(torch.equal(p, theirs[name]) for name, p in model.wrapper.model.parameters.items())
    finished = train_language_model(
        CONFIG, tmp_path, documents, report=lambda row: pytest.fail("trained again")
    )
    assert finished.history == model.history


def test_between_evaluations_it_logs_and_saves(trained, documents, tmp_path):
    """Killed at a log, it goes on from the checkpoint before it to the history of a training that was not."""
    model, _ = trained
    config = CONFIG.model_copy(update={"log_every": 3, "save_every": 4})
    steps = []

    def interrupt(row):
        steps.append(row["step"])
        if row["step"] == 15:
            raise Interrupted

    with pytest.raises(Interrupted):
        train_language_model(config, tmp_path, documents, report=interrupt)
    assert steps == [3, 6, 9, 10, 12, 15]
    rows = []
    again = train_language_model(config, tmp_path, documents, report=rows.append)
    assert [row["step"] for row in rows[:4]] == [15, 18, 20, 21]  # from step 12 on
    assert [list(row) for row in rows[:2]] == [["step", "epoch", "train_loss"]] * 2
    assert again.history == model.history


def test_the_published_training_configuration():
    found = LanguageModelConfig.from_file(
        Path(__file__).parents[2] / "configs" / "language_model_published.json"
    )
    sizes = {"d_model": 256, "n_heads": 4, "n_blocks": 4, "d_ffn": 512, "max_seq_len": 256}
    training = {"use_subset": True, "subset_size": 5000, "epochs": 5, "tokenizer": "gpt2"}
    assert {name: found.get(name) for name in sizes | training} == sizes | training
    assert found.log_every and found.save_every


def test_a_folder_with_another_training_is_left_alone_unless_it_is_to_be_replaced(documents, tmp_path):
    short = CONFIG.model_copy(update={"epochs": 1})
    train_language_model(short, tmp_path, documents)
    with pytest.raises(ValueError, match=r"another training \(epochs 1, here 3\): choose another folder"):
        train_language_model(CONFIG, tmp_path, documents)
    with pytest.raises(ValueError, match="of other documents"):
        train_language_model(short, tmp_path, {**documents, "train": documents["train"][1:]})
    assert len(train_language_model(CONFIG, tmp_path, documents, replace=True).history) > 3


def test_it_stops_when_validation_gets_no_better_and_keeps_the_best(documents, tmp_path):
    config = CONFIG.model_copy(update={"epochs": 60, "patience": 2, "learning_rate": 3e-2})
    few = {**documents, "train": documents["train"][:20]}
    model = train_language_model(config, tmp_path, few)
    losses = [row["val_loss"] for row in model.history]
    assert len(losses) < 60 * 2 / 10 and np.argmin(losses) == len(losses) - 3
    figures = model.evaluate(documents["val"])
    assert figures["loss"] == pytest.approx(min(losses), rel=1e-6)


def test_packed_prose_is_learned_too(tmp_path):
    words = np.random.default_rng(0).choice(["the", "cat", "sat", "on", "a", "mat"], (60, 40))
    texts = [" ".join(row) + "." for row in words]
    config = CONFIG.model_copy(update={"packed": True, "epochs": 6})
    model = train_language_model(config, tmp_path, {"train": texts[:50], "val": texts[50:], "test": []})
    assert model.evaluate(texts[50:])["bits_per_character"] < 1.5
    with pytest.raises(ValueError, match="no documents"):
        model.evaluate([])


def test_configs_from_files(tmp_path):
    file = tmp_path / "c.json"
    file.write_text('{"d_model": 32, "packed": true}')
    config = LanguageModelConfig.from_file(file, ["epochs=7", "data=x.txt", "packed=false"])
    assert (config.d_model, config.epochs, config.data, config.packed) == (32, 7, "x.txt", False)
    with pytest.raises(FileNotFoundError, match="no config"):
        LanguageModelConfig.from_file(tmp_path / "d.json")
    for overrides, message in (
        (["epoch=7"], "unknown key 'epoch' .did you mean 'epochs'"),
        (["epochs"], "expected KEY=VALUE, found epochs"),
        (["epochs=many"], "key 'epochs'"),
        (["n_heads=5"], "d_model 32 is not divisible by n_heads 5"),
        (["vocab_size=100"], "key 'vocab_size'"),
    ):
        with pytest.raises(ValueError, match=message):
            LanguageModelConfig.from_file(file, overrides)
    file.write_text("[]")
    with pytest.raises(ValueError, match="JSON object"):
        LanguageModelConfig.from_file(file)


def test_what_is_no_language_model(trained, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"not a language model, it has no training\.json"):
        LanguageModel.load(tmp_path)
    model, _ = trained
    model.save(tmp_path / "a")
    (tmp_path / "a" / "tokenizer.json").unlink()
    with pytest.raises(FileNotFoundError, match="no tokenizer"):
        LanguageModel.load(tmp_path / "a")
    (tmp_path / "a" / "training.json").write_text("{}")
    with pytest.raises(ValueError, match="training.json: key 'config'"):
        LanguageModel.load(tmp_path / "a")


def test_a_training_that_leaves_the_numbers_says_so(documents, tmp_path):
    wild = CONFIG.model_copy(update={"learning_rate": 1e30, "optimizer": "sgd", "warmup": 0.0})
    with pytest.raises(ValueError, match="the loss at step .* take a lower learning_rate"):
        train_language_model(wild, tmp_path, documents)
