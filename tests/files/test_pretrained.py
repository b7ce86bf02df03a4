"""Where pretrained models are looked for, and what is said when there is none."""

import json
import shutil

import pytest
from transformers import BertConfig, BertModel, RobertaConfig, RobertaModel

from n3r.bert import TextBertBase, n_places
from n3r.files.pretrained import architecture, found
from n3r.model import configure


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    config = BertConfig(
        vocab_size=40, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16
    )
    BertModel(config).save_pretrained(folder)
    return folder


def test_the_architecture_of_a_folder(tiny):
    seen = architecture(str(tiny))
    assert (seen["model_type"], seen["hidden_size"], seen["vocab_size"]) == ("bert", 8, 40)
    assert str(tiny) not in json.dumps(seen)  # a bundle holds it, and is handed on


def test_what_is_no_model_is_named_with_what_to_give(tiny, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("nothing to see")
    for name, lost in (("bare", "model.safetensors"), ("headless", "config.json"), ("odd", "config.json")):
        shutil.copytree(tiny, tmp_path / name)
        (tmp_path / name / lost).unlink()
    (tmp_path / "odd" / "config.json").write_text("{")
    reasons = dict.fromkeys(["empty", "file", "headless"], "no config.json")
    reasons |= {"odd": "is not a BERT model", "gone": "no such folder", "bare": "is not a BERT model"}
    branch = TextBertBase(architecture(str(tiny)), 4)
    for name, reason in reasons.items():
        path = str(tmp_path / name)
        for load in (branch.load_pretrained, *([] if name == "bare" else [architecture])):
            with pytest.raises(ValueError, match=reason) as error:
                load(path)
            text = str(error.value)
            assert text.startswith(f"{path} is not a BERT model: ") and "save_pretrained" in text
            assert "\n" not in text


def test_minilm_is_found_or_its_command_is_told():
    try:
        with found("minilm") as path:
            assert path.endswith("model")
    except ValueError as error:
        assert "make bert" in str(error)


def test_damaged_weights_are_one_plain_message(tiny, tmp_path):
    for path in tiny.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    branch = TextBertBase(architecture(str(tmp_path)), 4)
    branch.load_pretrained(str(tmp_path), reinit_layers=1)
    (tmp_path / "model.safetensors").write_bytes(b"\x07" * 100)
    with pytest.raises(ValueError, match="is not a BERT model") as error:
        branch.load_pretrained(str(tmp_path), reinit_layers=1)
    assert str(error.value).count("\n") == 0


def test_weights_are_never_unpickled(tiny, tmp_path):
    for path in tiny.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match="safetensors"):
        TextBertBase(architecture(str(tmp_path)), 4).load_pretrained(str(tmp_path))


def test_more_new_layers_than_there_are_is_refused(tiny):
    with pytest.raises(ValueError, match="reinit_layers 3: .* has 2 layers"):
        TextBertBase(architecture(str(tiny)), 4).load_pretrained(str(tiny), reinit_layers=3)


def test_roberta_has_fewer_places_than_positions(tmp_path):
    config = RobertaConfig(
        vocab_size=40,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=34,
    )
    RobertaModel(config).save_pretrained(tmp_path)
    assert n_places(architecture(str(tmp_path))) == 32
    made = configure("bert", vocab_size=40, n_tab_features=0, pretrained=str(tmp_path))
    assert made.max_tokens == 32


def test_an_unknown_kind_of_model_is_named_shortly():
    kind = {"model_type": "nosuch", "vocab_size": 9, "max_position_embeddings": 8, "hidden_size": 8}
    with pytest.raises(ValueError, match="nosuch") as error:
        TextBertBase(kind, 4)
    assert len(str(error.value)) < 200
