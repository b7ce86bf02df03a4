"""Every registered class, end to end on made-up messages: it trains, comes back, scores unlabelled rows."""

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from n3r import steps
from n3r.bert import word_embeddings
from n3r.bundle import Bundle, Recipe, train_bundle
from n3r.data import OrderDataset
from n3r.encode import RowEncoder
from n3r.features import FeatureConfig, TabularFeatures
from n3r.files.manifest import MANIFEST, write_manifest
from n3r.legacy.layouts import write_sagemaker
from n3r.model import (
    MODEL_CLASSES,
    TEXTS,
    BimodalCNN,
    LSTM2Risk,
    ModelConfig,
    RiskModel,
    TextLSTM,
    configure,
)
from n3r.preprocess import prepare
from n3r.schema import LABEL, ORACLE, ColumnMap
from n3r.score import Scorer
from n3r.synthetic.messages import generate_messages
from n3r.tokenizer import BertTokenizer, NameTokenizer, Reader, TextConfig, load_tokenizer
from n3r.train import Fitted, TrainConfig, fit
from n3r.vocabulary import TokenizerConfig, train_tokenizer, train_wordpiece

CLASSES = list(MODEL_CLASSES)
WITH_FEATURES = [name for name, row in MODEL_CLASSES.items() if row.tabular]
TRIMODAL = [name for name, row in MODEL_CLASSES.items() if row.n_texts == 2]
CHOSEN = ["lstm2risk", "bert", "trimodal_gate_fusion"]  # an LSTM, a BERT and two texts
TINY = {
    "lstm": {"embedding_size": 4, "hidden_size": 6, "n_lstm_layers": 1},
    "lstm_ends": {"embedding_size": 4, "hidden_size": 6, "n_lstm_layers": 1},
    "transformer": {
        "embedding_size": 8,
        "hidden_size": 6,
        "n_blocks": 1,
        "n_heads": 2,
        "block_size": 32,
    },
    "cnn": {"embedding_size": 4, "kernel_sizes": [3, 5], "n_channels": [4, 6], "hidden_common_dim": 8},
    "bert": {"embedding_size": 8, "n_blocks": 1, "n_heads": 2, "block_size": 32, "hidden_common_dim": 8},
}
CLEAN = ["dialogue_splitter", "html_normalizer", "emoji_remover"]
STEPS = {
    "bpe": [*CLEAN, "custom_bpe_tokenizer"],
    "bert": [*CLEAN, "dialogue_chunker", "tokenizer"],
}


@dataclass
class Messages:
    """Prepared splits of one kind of labels, and all that a model of them needs but the model."""

    splits: dict[str, pl.DataFrame]
    column_map: ColumnMap
    features: TabularFeatures
    tokenizers: dict[str, NameTokenizer | BertTokenizer]

    def config(self, model_class: str, **changes) -> ModelConfig:
        row = MODEL_CLASSES[model_class]
        return configure(
            model_class,
            **{
                "vocab_size": self.tokenizers[TEXTS[row.encoder].tokenizer].vocab_size,
                "n_tab_features": len(self.features) if row.tabular else 0,
                "n_classes": self.column_map.n_classes,
                **TINY[row.encoder],
                **changes,
            },
        )

    def recipe(self, model_class: str, **settings) -> Recipe:
        kind = TEXTS[MODEL_CLASSES[model_class].encoder].tokenizer
        texts = TextConfig(steps=STEPS[kind], secondary_steps=STEPS[kind], max_tokens=32, max_chunks=3)
        training = TrainConfig(
            **{"epochs": 1, "batch_size": 64, "lr": 5e-3, "precision": "float32", **settings}
        )
        return Recipe(self.tokenizers[kind], self.features, self.column_map, training, texts)

    def train(self, model_class: str, folder: Path, **settings) -> tuple[Bundle, Fitted]:
        recipe = self.recipe(model_class, **settings)
        return train_bundle(self.config(model_class), self.splits, recipe, folder)


def prepared(frame: pl.DataFrame, **changes) -> Messages:
    content = json.loads((Path(__file__).parents[1] / "configs" / "messages.json").read_text())
    whole = prepare(frame.lazy(), ColumnMap(**{**content, **changes}))
    train, column_map = whole.splits["train"], whole.column_map
    features = TabularFeatures(FeatureConfig(count_threshold=5)).fit(
        train, column_map.numeric, column_map.categorical, column_map.n_classes
    )
    texts = train.select(column_map.all_text)
    tokenizers = {
        "bpe": train_tokenizer(texts, TokenizerConfig(min_frequency=5, max_vocab=400))[0],
        "bert": train_wordpiece(texts, vocab_size=400),
    }
    return Messages(whole.splits, column_map, features, tokenizers)


@pytest.fixture(scope="module")
def messages() -> Messages:
    return prepared(generate_messages(300, seed=1))


@pytest.fixture(scope="module")
def three() -> Messages:
    """String labels of three classes: the honest cases are the doubtful and the clear ones."""
    frame = generate_messages(300, seed=1)
    clear = pl.col("oracle_p") < pl.col("oracle_p").median()
    kind = pl.when(pl.col("outcome") == "abuse").then(pl.lit("abuse")).when(clear).then(pl.lit("clear"))
    frame = frame.with_columns(outcome=kind.otherwise(pl.lit("doubtful")))
    return prepared(frame, label_values={"clear": 0, "doubtful": 1, "abuse": 2})


@pytest.fixture(scope="module")
def trained(messages, tmp_path_factory) -> dict[str, tuple[Bundle, Fitted]]:
    """Each class after one epoch."""
    folder = tmp_path_factory.mktemp("trained")
    return {name: messages.train(name, folder / name) for name in CLASSES}


@pytest.fixture(scope="module")
def reloaded(trained, messages, tmp_path_factory, run_fresh) -> dict[str, pl.DataFrame]:
    """What each class's bundle scores of unlabelled rows in one other process."""
    folder = tmp_path_factory.mktemp("bundles")
    for name, (bundle, _) in trained.items():
        bundle.save(folder / name)
    unlabelled(messages).write_parquet(folder / "rows.parquet")
    code = """
import pathlib, sys, polars as pl
from n3r.bundle import Bundle
folder = pathlib.Path(sys.argv[1])
rows = pl.read_parquet(folder / "rows.parquet")
for bundle in [path for path in folder.iterdir() if path.is_dir()]:
    Bundle.load(bundle).predictions(rows).write_parquet(folder / f"{bundle.name}.scored.parquet")
"""
    run_fresh(code, folder)
    return {name: pl.read_parquet(folder / f"{name}.scored.parquet") for name in CLASSES}


def unlabelled(messages: Messages) -> pl.DataFrame:
    """The test split in another order, without a label and what follows from it."""
    rows = messages.splits["test"]
    return rows.sample(fraction=1, shuffle=True, seed=3).drop(LABEL, ORACLE)


every = pytest.mark.parametrize("model_class", CLASSES)
# What takes seconds a class: the first of the chosen always, the others when there is time.
first_often = pytest.mark.parametrize(
    "model_class", [CHOSEN[0], *(pytest.param(c, marks=pytest.mark.slow) for c in CHOSEN[1:])]
)


# ---- each class


@every
def test_defect_05_every_class_trains_and_is_validated(trained, messages, model_class):
    bundle, fitted = trained[model_class]
    figures = ["epoch", "train_loss", "val_accuracy", "val_auroc", "val_average_precision", "val_f1"]
    figures += ["val_loss", "val_precision", "val_recall"]
    assert [list(epoch) for epoch in fitted.history] == [figures]
    assert all(np.isfinite(list(fitted.history[0].values())))
    val = messages.splits["val"]
    p = bundle.predict(val)
    label = val[LABEL].to_numpy()
    assert -np.log(p[np.arange(len(val)), label]).mean() == pytest.approx(
        fitted.history[0]["val_loss"], abs=1e-5
    )
    assert bundle.model.config.model_class == model_class


@pytest.mark.parametrize(
    "model_class", [c if c in CHOSEN else pytest.param(c, marks=pytest.mark.slow) for c in CLASSES]
)
def test_every_class_learns(messages, model_class, tmp_path):
    """On the training rows themselves, of which 60 can be learnt by heart."""
    few = {"train": messages.splits["train"][:60], "val": messages.splits["val"][:0]}
    recipe = messages.recipe(model_class, epochs=8, lr=1e-2)
    history = train_bundle(messages.config(model_class), few, recipe, tmp_path)[1].history
    assert history[-1]["train_loss"] < 0.97 * history[0]["train_loss"]


@pytest.mark.slow
@every
def test_defect_07_every_class_reloads_in_another_process_with_equal_scores(
    trained, reloaded, messages, model_class
):
    here = trained[model_class][0].predictions(unlabelled(messages))
    np.testing.assert_allclose(reloaded[model_class]["score"], here["score"], rtol=0, atol=1e-7)
    assert here["score"].n_unique() > 5


@pytest.mark.slow
@every
def test_defect_43_every_class_scores_unlabelled_rows_in_their_order(
    trained, reloaded, messages, model_class
):
    rows, scored = unlabelled(messages), reloaded[model_class]
    assert scored.columns == ["caseId", "segment", "time", "score"]
    assert scored["caseId"].equals(rows["caseId"])
    assert scored["score"].is_between(0, 1).all()
    bundle = trained[model_class][0]
    alone = [bundle.predictions(rows[i])["score"].item() for i in (0, 7, 20)]
    np.testing.assert_allclose(scored["score"][[0, 7, 20]], alone, atol=1e-6)


@pytest.mark.parametrize("model_class", WITH_FEATURES)
def test_defect_37_categorical_columns_enter_every_class(trained, messages, model_class):
    bundle, rows = trained[model_class][0], messages.splits["test"]
    before = bundle.predict(rows)
    for name in messages.column_map.categorical:
        other = rows.with_columns(rows[name].sample(fraction=1, shuffle=True, seed=5).alias(name))
        moved = np.abs(bundle.predict(other) - before).max(axis=1) > 1e-6
        assert moved.mean() > 0.2, name


@pytest.mark.parametrize("model_class", TRIMODAL)
def test_the_second_text_enters_every_class_that_reads_it(trained, messages, model_class):
    bundle, rows = trained[model_class][0], messages.splits["test"]
    other = rows.with_columns(sellerMessages=rows["sellerMessages"].reverse())
    assert (np.abs(bundle.predict(other) - bundle.predict(rows)).max(axis=1) > 1e-7).mean() > 0.5


@pytest.mark.slow
def test_a_bundle_whose_second_text_has_a_bert_of_its_own(messages, tmp_path):
    second = {"hidden_common_dim": 6, "embedding_size": 4, "n_heads": 1}
    config = messages.config("trimodal_bert", secondary=second)
    bundle, _ = train_bundle(config, messages.splits, messages.recipe("trimodal_bert"), tmp_path / "fit")
    bundle.save(tmp_path / "bundle")
    again, rows = Bundle.load(tmp_path / "bundle"), unlabelled(messages)
    assert [text.d_out for text in again.model.texts] == [8, 6]
    assert again.predictions(rows).equals(bundle.predictions(rows))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model_class", "first", "second"),
    [
        ("trimodal_bert", "bert", "bert"),
        ("trimodal_cross_attn", "lstm", "bert"),
        ("trimodal_gate_fusion", "bert", "transformer"),
    ],
)
def test_a_bundle_whose_second_text_has_a_tokenizer_of_its_own(
    messages, tmp_path, model_class, first, second
):
    own = messages.splits["train"].select(messages.column_map.secondary_text)
    known = messages.tokenizers | {"second": train_wordpiece(own, vocab_size=200)}
    kinds = [TEXTS[encoder].tokenizer for encoder in (first, second)]
    tokenizers = [known[kinds[0]], known["second" if second == "bert" else "bpe"]]
    texts = [TextConfig(steps=STEPS[kind], max_tokens=32 if kind == "bert" else 60) for kind in kinds]
    features, training = messages.features, messages.recipe("bert").train_config
    others = {"secondary": Reader(tokenizers[1], texts[1])}
    parts = tokenizers[0], features, messages.column_map, training, texts[0]
    secondary = {"encoder": second, "vocab_size": tokenizers[1].vocab_size, **TINY[second]}
    sizes = {"vocab_size": tokenizers[0].vocab_size, "n_tab_features": len(features), **TINY[first]}
    config = configure(model_class, encoder=first, secondary=secondary, **sizes)
    bundle, _ = train_bundle(config, messages.splits, Recipe(*parts, others=others), tmp_path / "fit")
    bundle.save(tmp_path / "bundle")
    again, rows = Bundle.load(tmp_path / "bundle"), unlabelled(messages)
    assert [c.encoder for c in again.model.config.of_texts.values()] == [first, second]
    assert again.others["secondary"].tokenizer.vocab_size == tokenizers[1].vocab_size
    predicted = bundle.predictions(rows)
    assert again.predictions(rows).equals(predicted)
    scorer = Scorer(tmp_path / "bundle", threads=1)
    np.testing.assert_allclose(scorer.score(rows)["score"], predicted["score"], rtol=0, atol=1e-5)
    assert scorer.score_one(rows.row(3, named=True)) == pytest.approx(predicted["score"][3], abs=1e-5)
    moved = rows.with_columns(sellerMessages=rows["sellerMessages"].reverse())
    assert (bundle.predictions(moved)["score"] - predicted["score"]).abs().max() > 1e-6
    with pytest.raises(
        ValueError, match="its second text has a tokenizer of its own, and that layout has room"
    ):
        write_sagemaker(tmp_path / "bundle", tmp_path / "layout")
    steps = texts[0].model_copy(update={"secondary_steps": STEPS[kinds[0]]})
    with pytest.raises(ValueError, match="give its `steps` there and no `secondary_steps` here"):
        replace(bundle, texts=steps).predict(rows)
    with pytest.raises(ValueError, match="the second text .* (is of another kind|holds the token id)"):
        replace(bundle, texts=steps, others={}).predict(rows)


def test_a_second_tokenizer_for_a_class_with_one_text(messages, tmp_path):
    others = {"secondary": Reader(messages.tokenizers["bpe"], TextConfig())}
    refused(messages, "bert", tmp_path, "text 'secondary', which this model does not read", others=others)


# ---- word embeddings of a BERT


@pytest.fixture(scope="module")
def a_bert(messages, made_bert, tmp_path_factory) -> str:
    """Its tokenizer is that of the messages; 16 wide."""
    return made_bert(tmp_path_factory.mktemp("bert"), messages.tokenizers["bert"])


FLAT = TextConfig(steps=STEPS["bert"], max_tokens=32, max_chunks=3, flat=True)


def without_width(encoder: str) -> dict:
    return {name: size for name, size in TINY[encoder].items() if name != "embedding_size"}


@pytest.mark.parametrize(
    "model_class", ["bimodal_cnn", *(pytest.param(c, marks=pytest.mark.slow) for c in ("lstm", "lstm2risk"))]
)
def test_word_embeddings_of_a_bert_start_a_cnn_or_an_lstm(messages, a_bert, tmp_path, model_class):
    row, wide = MODEL_CLASSES[model_class], word_embeddings(a_bert)
    n_features = len(messages.features) if row.tabular else 0
    source = shutil.copytree(a_bert, tmp_path / "bert")
    sizes = without_width(row.encoder)
    config = configure(model_class, embeddings=str(source), n_tab_features=n_features, **sizes)
    assert (config.vocab_size, config.embedding_size) == tuple(wide.shape)
    assert wide.shape == (messages.tokenizers["bert"].vocab_size, 16)
    start = RiskModel(config)
    before = start.texts[0].encoder.embedding.weight.clone()
    assert not torch.equal(before, wide)
    assert torch.equal(start.load_pretrained().texts[0].encoder.embedding.weight, wide)
    recipe = replace(messages.recipe(model_class), tokenizer=messages.tokenizers["bert"], texts=FLAT)
    bundle, _ = train_bundle(config, messages.splits, recipe, tmp_path / "fit")
    moved = (bundle.model.texts[0].encoder.embedding.weight - wide).abs()
    assert 0 < moved.mean() < 0.05  # it was trained from there; drawn anew, rows would differ by 1.1
    bundle.save(tmp_path / "bundle")
    shutil.rmtree(source)
    rows = unlabelled(messages)
    predicted = bundle.predictions(rows)
    assert Bundle.load(tmp_path / "bundle").predictions(rows).equals(predicted)
    served = Scorer(tmp_path / "bundle", threads=1).score(rows)["score"]
    np.testing.assert_allclose(served, predicted["score"], rtol=0, atol=1e-5)
    card = (tmp_path / "bundle" / "MODEL_CARD.md").read_text()
    assert "word embeddings of bert to start with" in card and str(source) not in card


def test_flat_texts_are_the_chunks_end_to_end(messages):
    tokenizer, frame = messages.tokenizers["bert"], messages.splits["val"].select("buyerMessages")
    chunked = tokenizer.read(frame, FLAT.steps, FLAT.model_copy(update={"flat": False}))
    flat = tokenizer.read(frame, FLAT.steps, FLAT)
    assert chunked.n_chunks.max() > 1
    for row in range(len(frame)):
        assert flat.row(row).tolist() == np.concatenate(chunked.row(row)).tolist()


@pytest.mark.parametrize(
    ("model_class", "changes", "message"),
    [
        ("bimodal_cnn", {"embedding_size": 4}, "are 16 wide: leave embedding_size out"),
        (
            "lstm2risk",
            {"vocab_size": 999},
            r"tokenizer of 999 tokens for the \d+ word embeddings of .*: take",
        ),
        ("bimodal_bert", {"vocab_size": 400}, "has no embeddings"),
        ("transformer2risk", {"vocab_size": 400}, "has no embeddings"),
        ("lstm", {"embeddings": "/nowhere", "n_tab_features": 0}, "/nowhere is not a BERT model: there"),
    ],
)
def test_word_embeddings_that_do_not_fit(a_bert, model_class, changes, message):
    with pytest.raises(ValueError, match=message):
        configure(model_class, **{"embeddings": a_bert, "n_tab_features": 3, **changes})


def test_word_embeddings_with_texts_of_another_tokenizer_or_in_chunks(messages, a_bert, tmp_path):
    config = configure("lstm", embeddings=a_bert, n_tab_features=0, **without_width("lstm_ends"))
    other = train_wordpiece(messages.splits["val"].select("buyerMessages"), vocab_size=200)
    message = "the text starts from .*/bert.* and is read by a tokenizer of another vocabulary: take"
    for tokenizer, texts in ((messages.tokenizers["bpe"], TextConfig()), (other, FLAT)):
        refused(messages, "lstm", tmp_path, message, config=config, tokenizer=tokenizer, texts=texts)
    chunked, own = FLAT.model_copy(update={"flat": False}), messages.tokenizers["bert"]
    refused(messages, "lstm", tmp_path, "or `flat` texts", config=config, tokenizer=own, texts=chunked)
    sizes = {"vocab_size": own.vocab_size, "embedding_size": 9}
    wrong = configure("lstm", embeddings=a_bert, n_tab_features=0, **sizes)
    message = r"word embeddings of \d+ tokens, 16 wide, for a model of \d+ tokens, 9 wide: leave"
    refused(messages, "lstm", tmp_path, message, config=wrong, tokenizer=own, texts=FLAT)


def test_a_published_configurations_tokenizer_is_where_word_embeddings_come_from(a_bert):
    run = {"tokenizer": a_bert, "n_embed": 4000, "embedding_size": 128, "tab_field_list": ["total"]}
    for cls in (BimodalCNN, TextLSTM):
        for trainable in (True, False):
            model = cls({**run, "is_embeddings_trainable": trainable})
            weight = model.texts[0].encoder.embedding.weight
            assert torch.equal(weight, word_embeddings(a_bert)) and weight.requires_grad == trainable
            again = RiskModel(model.config).texts[0].encoder.embedding.weight
            assert again.requires_grad == trainable
    assert LSTM2Risk(run).config.vocab_size == 4000


def test_the_notebooks_parameters_for_a_second_text(messages, a_bert, tmp_path):
    """Its encoder, what it starts from and its sizes; where its tokenizer is the first one's, it has none."""
    given = {"steps": CLEAN, "chunks": True, "max_tokens": 32, "max_chunks": 3, "min_frequency": 5, "seed": 0}
    given |= {"pretrained": None, "embeddings": None, "epochs": 1, "batch_size": 64, "precision": "float32"}
    given |= {name: TINY[name] for name in ("bert", "lstm", "cnn", "transformer")}
    columns, splits = messages.column_map, messages.splits
    for secondary, kind, flat in (
        ({"encoder": "cnn", "embeddings": a_bert}, "bert", True),
        ({"encoder": "lstm"}, "bpe", False),
        ({"hidden_common_dim": 6}, None, None),
    ):
        parameters = {**given, "secondary": secondary}
        readers = steps.read_texts(splits["train"].select(columns.all_text), parameters)
        parts = readers, messages.features, columns, splits, tmp_path, parameters
        bundle, _ = steps.train_class("trimodal_gate_fusion", *parts)
        second = bundle.model.config.of_texts["secondary"]
        assert second.encoder == secondary.get("encoder", "bert")
        assert second.embedding_size == {"cnn": 16, "lstm": 4, "bert": None}[second.encoder]
        own = bundle.others.get("secondary")
        assert (own and own.tokenizer.kind, own and own.texts.flat) == (kind, flat)
        assert bundle.texts.secondary_steps == ([] if own else bundle.texts.steps)
    with pytest.raises(ValueError, match="secondary: there is no encoder 'gru', only lstm"):
        steps.train_class("trimodal_bert", *parts[:-1], {**given, "secondary": {"encoder": "gru"}})


# ---- several classes, weights


@first_often
def test_defect_06_multiclass_with_string_labels(three, model_class, tmp_path):
    bundle, fitted = three.train(model_class, tmp_path / "fit", epochs=2)
    assert "val_auroc" in fitted.history[-1]
    bundle.save(tmp_path / "bundle")
    rows = unlabelled(three)
    scored = Bundle.load(tmp_path / "bundle").predictions(rows)
    assert scored.columns == ["caseId", "segment", "time", "score_0", "score_1", "score_2"]
    assert scored.equals(bundle.predictions(rows))
    np.testing.assert_allclose(scored.select("^score_.$").sum_horizontal(), 1, rtol=1e-5)
    if MODEL_CLASSES[model_class].tabular:
        names = three.features.names
        assert {"reason risk of class 1", "reason risk of class 2"} <= set(names)


def test_defect_06_string_labels_are_not_all_the_same_class(three):
    counts = three.splits["train"][LABEL].value_counts().sort(LABEL)
    assert counts[LABEL].to_list() == [0, 1, 2]
    assert counts["count"].min() > 20


# ---- mistakes, told before training


def refused(messages: Messages, model_class: str, folder: Path, message: str, **changes) -> None:
    """Training with `changes` to the bundle or the splits fails and leaves no checkpoint."""
    splits = changes.pop("splits", messages.splits)
    config = changes.pop("config", messages.config(model_class))
    with pytest.raises(ValueError, match=message):
        train_bundle(config, splits, replace(messages.recipe(model_class), **changes), folder)
    assert not list(folder.rglob("*.ckpt"))


@pytest.mark.parametrize("model_class", CHOSEN)
def test_a_text_column_that_the_rows_lack(messages, model_class, tmp_path):
    splits = {name: rows.drop("buyerMessages") for name, rows in messages.splits.items()}
    refused(messages, model_class, tmp_path, r"lack the text columns \['buyerMessages'\]", splits=splits)


@pytest.mark.parametrize("model_class", TRIMODAL)
def test_a_trimodal_class_without_a_second_text(messages, model_class, tmp_path):
    alone = messages.column_map.model_copy(update={"secondary_text": []})
    refused(messages, model_class, tmp_path, "name `secondary_text`", column_map=alone)
    splits = {name: rows.drop("sellerMessages") for name, rows in messages.splits.items()}
    refused(messages, model_class, tmp_path, "sellerMessages", splits=splits)
    reader = Reader(messages.tokenizers["bert"], TextConfig(max_tokens=32))
    encoder = RowEncoder(alone, {"text": reader}, messages.features)
    one = OrderDataset.from_frame(splits["train"], encoder)
    with pytest.raises(ValueError, match="rows of the train split have one: name `secondary_text`"):
        fit(messages.config(model_class), one, None, TrainConfig(), tmp_path, 0)
    assert not list(tmp_path.rglob("*.ckpt"))


@pytest.mark.parametrize("model_class", CHOSEN)
def test_a_tokenizer_of_the_wrong_kind(messages, model_class, tmp_path):
    kind = TEXTS[MODEL_CLASSES[model_class].encoder].tokenizer
    other = {"bpe": "bert", "bert": "bpe"}[kind]
    plain = TextConfig(steps=CLEAN, secondary_steps=CLEAN, max_tokens=32)
    wrong = messages.tokenizers[other]
    message = (
        f"{model_class}.*needs a tokenizer of the kind '{kind}'.*; the text of the rows of the train split"
    )
    refused(messages, model_class, tmp_path, message, tokenizer=wrong, texts=plain)
    refused(messages, model_class, tmp_path, f"not for a tokenizer of the kind '{other}'", tokenizer=wrong)


@first_often
def test_a_bundle_with_a_tokenizer_of_the_other_kind_does_not_score(trained, messages, model_class, tmp_path):
    """Not even one whose manifest was made again."""
    bundle, rows = trained[model_class][0], messages.splits["test"]
    other = "bpe" if bundle.tokenizer.kind == "bert" else "bert"
    folder = tmp_path / "model"
    replace(bundle, tokenizer=messages.tokenizers[other]).save(folder)
    with pytest.raises(ValueError, match="cleaning steps"):
        Bundle.load(folder).predict(rows)
    config = json.loads((folder / "config.json").read_text())
    config["texts"] = TextConfig(max_tokens=32).model_dump()
    (folder / "config.json").write_text(json.dumps(config))
    (folder / MANIFEST).unlink()
    write_manifest(folder)
    with pytest.raises(ValueError, match="needs a tokenizer"):
        Bundle.load(folder).predict(rows)


@pytest.mark.parametrize("step", ["dialogue_chunker", "custom_bpe_tokenizer", "tokenizer"])
def test_steps_that_do_not_fit_the_tokenizer(messages, step, tmp_path):
    model_class = "bimodal_bert" if step == "custom_bpe_tokenizer" else "lstm2risk"
    texts = TextConfig(steps=[step], max_tokens=32)
    refused(messages, model_class, tmp_path, rf"cleaning steps \['{step}'\] are not for", texts=texts)


@pytest.mark.parametrize("model_class", CHOSEN)
def test_other_mistakes(messages, model_class, tmp_path):
    row = MODEL_CLASSES[model_class]
    known = messages.config(model_class, vocab_size=50)
    refused(messages, model_class, tmp_path, r"holds the token id \d+; the model knows 50", config=known)
    if row.tabular:
        wider = messages.config(model_class, n_tab_features=len(messages.features) + 1)
        message = f"{len(messages.features)} feature columns; the model reads {len(messages.features) + 1}"
        refused(messages, model_class, tmp_path, message, config=wider)
    if row.encoder == "bert":
        long = TextConfig(steps=CLEAN, secondary_steps=CLEAN)
        message = r"chunks of \d+ tokens; this BERT reads 32: set max_tokens"
        refused(messages, model_class, tmp_path, message, texts=long)


@pytest.mark.parametrize("load", [load_tokenizer, NameTokenizer.load, BertTokenizer.load])
def test_a_missing_tokenizer_names_the_step_that_makes_it(load, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.json does not exist: run step 02_tokenizer"):
        load(tmp_path)


@pytest.mark.parametrize("key", ["steps", "secondary_steps"])
@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (["html_normaliser"], "there is no step 'html_normaliser' .did you mean 'html_normalizer'"),
        (["tokenizer", "text_upper"], "text_upper must come before tokenizer"),
        ("tokenizer", "valid list"),
    ],
)
def test_defect_08_wrong_steps_are_told(key, steps, message):
    with pytest.raises(ValueError, match=message):
        TextConfig(**{key: steps})


def test_defect_08_default_steps_are_no_steps_and_work(messages, tmp_path):
    """The published default was none at all, which could not be run."""
    recipe = replace(messages.recipe("lstm2risk"), texts=TextConfig())
    assert recipe.texts.steps == []
    bundle, _ = train_bundle(messages.config("lstm2risk"), messages.splits, recipe, tmp_path)
    assert np.isfinite(bundle.predict(messages.splits["test"])).all()
