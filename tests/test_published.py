"""The published systems' own ways: classes, configurations and batches, as their users have them."""

import copy
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from transformers import BertConfig, BertModel

from n3r import model as models
from n3r.bert import TextBertBase
from n3r.bundle import Bundle
from n3r.model import (
    CLASSES,
    LSTM2Risk,
    ModelConfig,
    MultimodalBert,
    RiskModel,
    TextLSTM,
    Transformer2Risk,
    TrimodalBert,
    TrimodalCrossAttn,
    configure,
    model_select,
)

SIZES = {"n_embed": 30, "embedding_size": 8, "hidden_size": 6, "dropout_rate": 0.3}
COLUMNS = ["total", "n_orders", "age"]
# The published configuration of a run, with every kind of key: of the model, its data, training and serving.
RUN = {
    **{"adam_epsilon": 1e-8, "batch_size": 256, "class_weights": [1, 1], "device": -1, "header": 0},
    **{"early_stop_metric": "val_loss", "fp16": False, "gradient_clip_val": 1.0, "id_name": "customerId"},
    **{"lr": 0.001, "lr_decay": 0.05, "max_epochs": 2, "max_sen_len": 12, "max_total_chunks": 3},
    **{"metric_choices": ["f1_score", "auroc"], "momentum": 0.9, "optimizer": "SGD", "run_scheduler": True},
    **{"text_name": "text", "text_processing_steps": ["custom_bpe_tokenizer"], "warmup_steps": 300},
    **{"text_input_ids_key": "input_ids", "text_attention_mask_key": "attention_mask", "is_binary": True},
    **{
        "tab_field_list": COLUMNS,
        "input_tab_dim": 11,
        "num_classes": 2,
        "weight_decay": 0,
        "load_ckpt": True,
    },
    **{"kernel_size": [3, 5], "num_channels": [4, 6], "num_layers": 2, "hidden_common_dim": 8},
    **{"reinit_pooler": True, "reinit_layers": 2, "dropout_keep": 0.5, "model_path": "", "n_heads": 2},
    **{"n_blocks": 1, "n_lstm_layers": 2, **SIZES},
}


def config_of(model_class: str, **changes):
    with torch.device("meta"):
        return CLASSES[model_class](RUN, **changes).config


# ---- classes


@pytest.mark.parametrize("model_class", list(CLASSES))
def test_each_model_class_is_a_class(model_class):
    with torch.device("meta"):
        n_tab = 3 if models.MODEL_CLASSES[model_class].tabular else 0
        model = model_select(model_class, vocab_size=30, n_tab_features=n_tab)
        again = RiskModel(model.config)
    for one in (model, again, copy.deepcopy(model)):
        assert [cls for cls in CLASSES.values() if isinstance(one, cls)] == [CLASSES[model_class]]
    assert getattr(models, type(model).__name__) is type(model)


def test_a_loaded_bundle_has_its_class(small):
    model = Bundle.load(small.folder).model
    assert isinstance(model, LSTM2Risk) and not isinstance(model, Transformer2Risk)


@dataclass
class Sizes:
    n_embed: int = 30
    n_tab_features: int = 3
    embedding_size: int = 8
    hidden_size: int = 6
    dropout_rate: float = 0.3
    n_lstm_layers: int = 2


def test_a_config_an_object_a_dict_and_keywords_are_the_same_model():
    own = configure(
        "lstm2risk",
        **{"vocab_size": 30, "n_tab_features": 3, "embedding_size": 8, "hidden_size": 6},
        **{"dropout_rate": 0.3, "n_lstm_layers": 2},
    )
    given = [Sizes(), vars(Sizes()), SimpleNamespace(**vars(Sizes())), RUN, own, own.model_dump()]
    models = [LSTM2Risk(config) for config in given]
    models += [LSTM2Risk(**vars(Sizes())), LSTM2Risk({**RUN, "n_embed": 9}, vocab_size=30)]
    assert [model.config for model in models] == [own] * len(models)


# ---- configurations


def test_a_published_configuration_gives_each_class_its_dimensions():
    transformer = config_of("transformer2risk")
    assert (transformer.block_size, transformer.n_blocks, transformer.n_heads) == (12, 1, 2)
    cnn = config_of("bimodal_cnn")
    assert (cnn.kernel_sizes, cnn.n_channels, cnn.hidden_common_dim) == ([3, 5], [4, 6], 8)
    lstm = config_of("lstm")
    assert (lstm.hidden_size, lstm.n_lstm_layers, lstm.dropout_rate, lstm.n_tab_features) == (8, 2, 0.5, 0)
    assert config_of("lstm2risk").n_tab_features == len(COLUMNS)


@pytest.mark.parametrize(
    ("given", "settings", "message"),
    [
        ({"hiden_size": 3}, {}, r"unknown key 'hiden_size' \(did you mean 'hidden_size'\?\)"),
        ({"model_class": "transformer2risk"}, {}, "is of the model class transformer2risk, not of lstm2risk"),
        ({"vocab_size": 31}, {}, "n_embed and vocab_size differ, and both mean n3r's vocab_size"),
        ({}, {"n_blocks": 3}, "lstm2risk with encoder lstm and fusion concat has no n_blocks"),
        ({}, {"lr": 3}, "unknown key 'lr'"),
    ],
)
def test_what_a_configuration_cannot_say_is_one_sentence(given, settings, message):
    with pytest.raises(ValueError, match=message) as caught:
        LSTM2Risk(RUN | given, **settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("wrong", [3, "lstm2risk", [1]])
def test_what_is_no_configuration(wrong):
    with pytest.raises(ValueError, match="a configuration is a dict or an object with settings"):
        LSTM2Risk(wrong)
    with pytest.raises(ValueError, match="RiskModel takes a ModelConfig"):
        RiskModel({"vocab_size": 30})


def test_another_classs_config():
    with pytest.raises(ValueError, match="TextLSTM is lstm; the configuration is of lstm2risk"):
        TextLSTM(LSTM2Risk(RUN).config)


# ---- batches


def rows(n_texts: int = 1) -> dict:
    draw = torch.Generator().manual_seed(0)
    lengths = torch.tensor([7, 4, 1])
    batch = {"tabular": torch.randn(3, 3, generator=draw)}
    for ids, mask in (("text", "attn_mask"), ("secondary", "secondary_mask"))[:n_texts]:
        batch[ids] = torch.randint(0, 30, (3, 7), generator=draw)
        batch[mask] = torch.arange(7) < lengths[:, None]
    return batch


@pytest.mark.parametrize("build", [LSTM2Risk, Transformer2Risk])
def test_the_batches_of_the_published_collates(build):
    model, own = build(RUN).eval(), rows()
    text, mask, tabular = own["text"], own["attn_mask"], own["tabular"]
    columns = {name: tabular[:, i].tolist() for i, name in enumerate(COLUMNS)}
    chunks = {"text_input_ids": text[:, None], "text_attention_mask": mask[:, None].long()}
    batches = [
        {"text": text, "attn_mask": mask.long(), "tabular": tabular, "label": torch.zeros(3)},
        {"text": text, "text_length": mask.sum(dim=1), "tabular": tabular},
        {"text_tokens": text, "text_lengths": mask.sum(dim=1), "tabular": tabular},
        {**chunks, **columns, "customerId": ["a", "b", "c"]},
    ]
    for batch in batches:
        torch.testing.assert_close(model(batch), model(own), rtol=0, atol=0)
    for absent, message in (("text", "the batch has none of text, text_input_ids"), ("tabular", "'tabular'")):
        lacking = {name: value for name, value in own.items() if name != absent}
        with pytest.raises(ValueError, match=message):
            build(**SIZES, n_tab_features=3)(lacking)
    with pytest.raises(ValueError, match="lacks the columns n_orders"):
        model({name: value for name, value in batches[3].items() if name != "n_orders"})
    with pytest.raises(ValueError, match="text comes in 2 chunks, and this model reads texts of one"):
        model({name: torch.cat([v, v], dim=1) if name in chunks else v for name, v in batches[3].items()})


def test_the_batches_of_the_published_classes_of_two_texts():
    sizes = {"vocab_size": 30, "embedding_size": 8, "n_blocks": 1, "n_heads": 2, "hidden_common_dim": 8}
    names = {"primary_text_name": "chat", "secondary_text_name": "events", "tab_field_list": COLUMNS}
    model = TrimodalBert(names, **sizes).eval()
    own = {name: value if name == "tabular" else value[:, None] for name, value in rows(2).items()}
    theirs = {name: own["tabular"][:, i].tolist() for i, name in enumerate(COLUMNS)}
    theirs |= {"chat_input_ids": own["text"], "chat_attention_mask": own["attn_mask"].long()}
    theirs |= {"events_input_ids": own["secondary"], "events_attention_mask": own["secondary_mask"].long()}
    torch.testing.assert_close(model(theirs), model(own), rtol=0, atol=0)


@pytest.fixture(scope="module")
def a_bert(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    sizes = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    BertModel(BertConfig(vocab_size=40, **sizes)).save_pretrained(folder)
    return folder


def test_multimodal_bert_takes_its_tokenizers_model(a_bert):
    model = MultimodalBert({**RUN, "tokenizer": str(a_bert), "n_embed": None})
    assert model.config.pretrained == str(a_bert)
    assert model.config.hidden_common_dim == 8
    assert model.config.vocab_size == model.config.bert["vocab_size"]
    with pytest.raises(ValueError, match="unknown key 'fusoin_dim'"):
        MultimodalBert({**RUN, "tokenizer": str(a_bert), "n_embed": None, "fusoin_dim": 3})


def test_text_bert_base_takes_an_architecture_a_configuration_or_keywords(a_bert):
    given = {**RUN, "tokenizer": str(a_bert), "reinit_pooler": False, "reinit_layers": 0, "text_name": "chat"}
    source = BertModel.from_pretrained(a_bert)
    branches = [TextBertBase(given), TextBertBase(SimpleNamespace(**given))]
    keywords = {name: given[name] for name in ("tokenizer", "reinit_pooler", "reinit_layers")}
    branches += [TextBertBase(**keywords, hidden_common_dim=8), TextBertBase(source.config.to_dict(), 8)]
    for branch in branches:
        assert branch.d_out == 8
        same = torch.equal(branch.pool.dense.weight, source.pooler.dense.weight)
        assert same == (branch is not branches[-1])
    ids = torch.randint(0, 40, (2, 3, 5))
    batch = {"chat_input_ids": ids, "chat_attention_mask": torch.ones(2, 3, 5, dtype=torch.int64)}
    branch = branches[0].eval()
    torch.testing.assert_close(branch(batch), branch(ids, torch.ones(2, 3, 5, dtype=torch.bool)).vector)
    for wrong, message in (
        ({"tokeniser": "x"}, r"has no tokeniser \(did"),
        ({}, "needs a model: its architecture, or `tokenizer`"),
    ):
        with pytest.raises(ValueError, match=message):
            TextBertBase(wrong)


def test_a_pretrained_berts_attention_keeps_its_dropout(a_bert):
    fresh = {"vocab_size": 30, "embedding_size": 8, "n_blocks": 1, "n_heads": 2, "n_tab_features": 0}
    for settings, rate in (({"tokenizer": str(a_bert), "n_tab_features": 0}, 0.1), (fresh, 0.0)):
        model = MultimodalBert(**settings)
        assert model.texts[0].encoder.bert.config.attention_probs_dropout_prob == rate
        assert RiskModel(model.config).texts[0].encoder.bert.config.attention_probs_dropout_prob == rate


def test_classes_of_two_texts_have_a_tokenizer_and_a_width_for_each(a_bert):
    sizes = {"vocab_size": 30, "embedding_size": 8, "n_blocks": 1, "n_heads": 2}
    for config in (
        {"primary_hidden_common_dim": 8, "secondary_hidden_common_dim": 6, "fusion_dropout": 0.2},
        {"hidden_common_dim": 8, "secondary": {"hidden_common_dim": 6}, "dropout_rate": 0.2},
    ):
        model = TrimodalBert(config, **sizes)
        assert [text.d_out for text in model.texts] == [8, 6]
        assert [text.encoder.bert.config.vocab_size for text in model.texts] == [30, 30]
        assert model.config == ModelConfig(**model.config.model_dump())
        assert {c.dropout_rate for c in model.config.of_texts.values()} == {0.2}
    model = TrimodalBert(
        {**config, "secondary_tokenizer": str(a_bert), "secondary_reinit_layers": 1}, **sizes
    )
    assert [text.encoder.bert.config.vocab_size for text in model.texts] == [30, 40]
    weight = BertModel.from_pretrained(a_bert).embeddings.word_embeddings.weight
    assert torch.equal(model.texts[1].encoder.bert.get_input_embeddings().weight, weight)
    alone = TrimodalBert(config, **sizes, secondary_vocab_size=50)
    assert [text.encoder.bert.config.vocab_size for text in alone.texts] == [30, 50]
    with pytest.raises(ValueError, match="bimodal_bert with encoder bert and fusion concat has no secondary"):
        MultimodalBert(config, **sizes, n_tab_features=0, secondary={"hidden_common_dim": 3})


@pytest.mark.parametrize(("n_heads", "width"), [(None, 104), (4, 100)])
def test_the_trimodal_attention_has_the_published_heads(n_heads, width):
    with torch.device("meta"):
        model = TrimodalCrossAttn(vocab_size=30, n_tab_features=3, fusion_heads=n_heads)
    assert (model.config.fusion_heads, model.fusion.d_out) == (n_heads or 8, 3 * width)
