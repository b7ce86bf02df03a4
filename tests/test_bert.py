"""Chunked BERT: a row depends on its own chunks alone; which first weights it takes."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

from n3r.bert import ChunkPool, TextBertBase
from n3r.kernels import Dropout
from n3r.model import RiskModel, configure, model_select

VOCAB = 20


def test_chunk_pool_worked_example():
    """First tokens atanh 0.5, 0.1 and 0.9: the mean of the two real chunks is 0.3, times 10 it is 3."""
    pool = ChunkPool(1, 1, 0.5).eval()
    with torch.no_grad():
        pool.dense.weight.fill_(1.0)
        pool.dense.bias.zero_()
        pool.proj.weight.fill_(10.0)
        pool.proj.bias.zero_()
    first = torch.tensor([0.5, 0.1, 0.9]).atanh()
    tokens = torch.stack([first, torch.full((3,), 77.0)], dim=1)[None, :, :, None]  # (1, 3, 2, 1)
    mask = torch.tensor([[[True, True], [True, False], [False, False]]])
    torch.testing.assert_close(pool(tokens, mask), torch.tensor([[3.0]]))


ARCHITECTURE = {
    "model_type": "bert",
    "vocab_size": VOCAB,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 32,
}


def bert(seed: int = 0, **options) -> TextBertBase:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return TextBertBase(ARCHITECTURE, 8, **options).eval()


def chunked(rows: list[list[int]], n_chunks: int = 0, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Random ids (B, K, T) of rows of chunks of these lengths, and their mask."""
    n_chunks = max(n_chunks, *map(len, rows))
    lengths = torch.tensor([row + [0] * (n_chunks - len(row)) for row in rows])
    width = int(lengths.max())
    ids = torch.randint(0, VOCAB, (*lengths.shape, width), generator=torch.Generator().manual_seed(seed))
    return ids, torch.arange(width) < lengths[:, :, None]


some_chunks = st.lists(st.lists(st.integers(1, 7), min_size=1, max_size=3), min_size=1, max_size=4)


@given(some_chunks, st.integers(0, 5))
def test_defect_19_a_bert_row_does_not_depend_on_chunks_of_its_batch_mates(rows, n_chunks):
    model = bert()
    ids, mask = chunked(rows, n_chunks)
    with torch.no_grad():
        together = model(ids, mask).vector
        for row, lengths in enumerate(rows):
            kept = (slice(row, row + 1), slice(len(lengths)), slice(max(lengths)))
            alone = model(ids[kept], mask[kept]).vector[0]
            torch.testing.assert_close(together[row], alone, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("rows", "computed"), [([[3], [2, 7, 1], [4]], 5), ([[3, 1], [2, 7]], 4)])
def test_defect_19_chunks_that_are_all_padding_are_not_computed(rows, computed):
    model, seen = bert(), []
    model.encoder.bert.encoder.register_forward_pre_hook(lambda _, arguments: seen.append(len(arguments[0])))
    ids, mask = chunked(rows)
    vector, tokens, flat = model(ids, mask)
    assert seen == [computed]
    assert vector.shape == (len(rows), 8)
    assert tokens.shape == (len(rows), ids[0].numel(), 16)
    assert torch.equal(flat, mask.flatten(1))
    assert not tokens.unflatten(1, ids.shape[1:])[~mask.any(dim=2)].any()


def test_defect_19_a_row_of_empty_chunks_is_refused():
    ids, mask = chunked([[3], [2, 4]])
    mask[0] = False
    with pytest.raises(ValueError, match="chunks are all empty"):
        bert()(ids, mask)


def test_chunks_over_the_places_of_the_bert_are_refused():
    ids, mask = chunked([[33], [2, 4]])
    with pytest.raises(ValueError, match="33 tokens; this model reads 32"):
        bert()(ids, mask)
    assert bert()(ids[..., :32], mask[..., :32]).vector.shape == (2, 8)


def test_dropout_is_the_architectures_and_the_pools_and_none_is_on_attention_weights():
    model = TextBertBase({**ARCHITECTURE, "hidden_dropout_prob": 0.25}, 8, dropout_rate=0.75)
    assert {m.p for m in model.encoder.modules() if isinstance(m, Dropout)} == {0.25, 0.0}
    assert model.pool.drop.p == 0.75
    assert not [m for m in model.modules() if isinstance(m, nn.Dropout)]


def test_gradient_checkpointing_gives_the_same_loss_and_gradients_and_runs_each_layer_twice():
    ids, mask = chunked([[3, 6], [2]])
    results = []
    for checkpointing in (False, True):
        model, runs = bert(gradient_checkpointing=checkpointing).train(), []
        layer = model.encoder.bert.encoder.layer[0].attention
        layer.register_forward_pre_hook(lambda *_, runs=runs: runs.append(1))
        with torch.random.fork_rng():
            torch.manual_seed(5)  # of the dropout
            loss = model(ids, mask).vector.square().sum()
        loss.backward()
        assert len(runs) == 1 + checkpointing
        results.append([loss, *(parameter.grad for parameter in model.parameters())])
    for plain, checkpointed in zip(*results, strict=True):
        torch.testing.assert_close(checkpointed, plain)


# ---- pretrained


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A three-layer BERT with its pooler, as transformers saves it."""
    from transformers import BertConfig, BertModel

    path = tmp_path_factory.mktemp("bert")
    torch.manual_seed(7)
    model = BertModel(BertConfig(**ARCHITECTURE))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)  # biases and norms too
    model.save_pretrained(path / "whole")
    return path / "whole"


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("reinit_pooler", [False, True])
@pytest.mark.parametrize("reinit_layers", [0, 1, 2, 3])
def test_defect_19_reinit_pooler_and_reinit_layers_do_not_depend_on_each_other(
    folder, reinit_pooler, reinit_layers
):
    model, before, source = bert(), bert().state_dict(), weights_of(folder)
    model.load_pretrained(str(folder), reinit_pooler, reinit_layers)
    fresh = tuple(f"encoder.layer.{i}." for i in range(3 - reinit_layers, 3))
    pooler = {"dense.weight": "pooler.dense.weight", "dense.bias": "pooler.dense.bias"}
    after = model.state_dict()
    for name, value in after.items():
        if name.startswith("encoder.bert."):
            inner = name.removeprefix("encoder.bert.")
            expected = before[name] if inner.startswith(fresh) else source[inner]
        elif name.removeprefix("pool.") in pooler and not reinit_pooler:
            expected = source[pooler[name.removeprefix("pool.")]]
        else:
            expected = before[name]
        assert torch.equal(value, expected), name
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert ("pool.dense.weight" in changed) != reinit_pooler
    for i in range(3):
        name = f"encoder.bert.encoder.layer.{i}.output.dense.weight"
        assert (name in changed) == (i < 3 - reinit_layers)


def test_a_new_pooler_is_drawn_as_bert_draws_it():
    dense = TextBertBase({**ARCHITECTURE, "initializer_range": 0.5, "hidden_size": 64}, 8).pool.dense
    assert dense.weight.std().item() == pytest.approx(0.5, rel=0.1)
    assert not dense.bias.any()


def test_a_pretrained_model_scores_as_the_source_does(folder):
    """One chunk a row: our pooled vector is transformers' `pooler_output`."""
    from transformers import AutoModel

    model = bert()
    model.load_pretrained(str(folder), reinit_pooler=False, reinit_layers=0)
    ids, mask = chunked([[5], [2]])
    with torch.no_grad():
        theirs = AutoModel.from_pretrained(folder)(ids[:, 0], attention_mask=mask[:, 0].long()).pooler_output
        torch.testing.assert_close(model(ids, mask).vector, model.pool.proj(theirs))


def test_a_model_class_takes_architecture_and_weights_and_needs_the_folder_no_more(folder, tmp_path):
    gone = tmp_path / "gone"
    shutil.copytree(folder, gone)
    dimensions = {"vocab_size": VOCAB, "n_tab_features": 2, "reinit_layers": 1, "reinit_pooler": False}
    model = model_select("trimodal_bert", pretrained=str(gone), **dimensions)
    source = weights_of(folder)
    for text in model.texts:
        name = "encoder.layer.1.output.dense.weight"
        assert torch.equal(text.encoder.bert.state_dict()[name], source[name])
        assert torch.equal(text.pool.dense.weight, source["pooler.dense.weight"])
    assert model.config.max_tokens == 32
    shutil.rmtree(gone)
    again = RiskModel(configure(**json.loads(json.dumps(model.config.model_dump()))))
    again.load_state_dict(model.state_dict())


def without(folder: Path, path: Path, *names: str) -> str:
    """A copy of a model folder without some of its weights."""
    shutil.copytree(folder, path)
    kept = {name: value for name, value in weights_of(folder).items() if name not in names}
    save_file(kept, path / "model.safetensors", metadata={"format": "pt"})
    return str(path)


POOLER = ("pooler.dense.weight", "pooler.dense.bias")
LAYER = "encoder.layer.1.output.dense.weight"


def test_a_model_without_a_pooler_or_a_layer_gives_the_rest_where_these_start_anew(folder, tmp_path):
    """Such as one saved after masked-language training: transformers would draw a pooler at random."""
    headless, part = (
        without(folder, tmp_path / "headless", *POOLER),
        without(folder, tmp_path / "part", LAYER),
    )
    model = bert()
    model.load_pretrained(headless, reinit_pooler=True, reinit_layers=0)
    assert torch.equal(model.pool.dense.weight, bert().pool.dense.weight)
    bert().load_pretrained(part, reinit_layers=2)
    wider = TextBertBase({**ARCHITECTURE, "hidden_size": 8}, 8)
    for into, path, options, message in (
        (bert(), headless, {"reinit_pooler": False}, f"{headless} has no pooler; set reinit_pooler"),
        (bert(), part, {"reinit_layers": 1}, f"{part} lacks 1 weights of the architecture: {LAYER}"),
        (wider, str(folder), {}, f"{folder} lacks .* weights of the architecture"),
    ):
        with pytest.raises(ValueError, match=message):
            into.load_pretrained(path, **options)
