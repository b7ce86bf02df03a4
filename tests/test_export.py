"""The ONNX graphs: the models' probabilities for any rows, lengths and chunks, or an error and no file."""

import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from n3r.export import export_onnx, export_torchscript, largest_difference, onnx_scores, quantize_onnx
from n3r.model import MODEL_CLASSES, Batch, RiskModel, model_select

VOCAB, F, MAX_TOKENS = 30, 3, 12
TINY = {
    "lstm": {"embedding_size": 4, "hidden_size": 6, "n_lstm_layers": 2},
    "lstm_ends": {"embedding_size": 4, "hidden_size": 6, "n_lstm_layers": 1},
    "transformer": {
        "embedding_size": 8,
        "hidden_size": 6,
        "n_blocks": 1,
        "n_heads": 2,
        "block_size": MAX_TOKENS,
    },
    "cnn": {"embedding_size": 4, "kernel_sizes": [3, 5], "n_channels": [4, 6], "hidden_common_dim": 8},
    "bert": {
        "embedding_size": 8,
        "n_blocks": 1,
        "n_heads": 2,
        "block_size": MAX_TOKENS,
        "hidden_common_dim": 8,
    },
}
# Every class as published, and two texts without BERT.
PARTS = [(name, row.encoder, F if row.tabular else 0) for name, row in MODEL_CLASSES.items()]
PARTS += [("trimodal_gate_fusion", "cnn", F)]


def tiny(model_class: str, encoder: str, n_features: int, **changes) -> RiskModel:
    """A small model, in training mode, whose biases, norms and batch statistics are no neutral 0 or 1."""
    heads = {"fusion_heads": 2} if MODEL_CLASSES[model_class].fusion == "cross_attention" else {}
    dims = {"vocab_size": VOCAB, "n_tab_features": n_features, "encoder": encoder, **TINY[encoder], **heads}
    dims["n_classes"] = 3 if model_class in ("lstm2risk", "lstm", "trimodal_bert", "bimodal_moe") else 2
    model = model_select(model_class, **{**dims, **changes})
    draw = torch.Generator().manual_seed(0)
    for name, value in model.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 2, generator=draw)
        elif value.is_floating_point():
            width = value.shape[1] if value.ndim > 1 and "embedding" not in name else 4
            value.normal_(0, width**-0.5, generator=draw)
    return model


def example(model: RiskModel, lengths: list[int], n_chunks: int = 1, seed: int = 0) -> Batch:
    """A batch of rows of the given lengths and more keys than a model reads.

    For BERT every third row has `n_chunks` chunks and the others one, and an empty row has its [CLS].
    """
    draw = torch.Generator().manual_seed(seed)
    batch = {"label": torch.zeros(len(lengths)), "text_length": torch.tensor(lengths)}
    batch["tabular"] = torch.randn(len(lengths), F, generator=draw)
    for ids, mask, n_more in (("text", "attn_mask", 0), ("secondary", "secondary_mask", 2)):
        n = torch.tensor([length + n_more if length else 0 for length in lengths]).clamp(max=MAX_TOKENS)
        if model.config.encoder == "bert":
            filled = torch.arange(n_chunks) < torch.where(torch.arange(len(n)) % 3 == 0, n_chunks, 1)[:, None]
            n = n.clamp(min=1)[:, None] * filled  # (B, K)
        batch[mask] = torch.arange(max(1, int(n.max()))) < n[..., None]
        batch[ids] = torch.randint(0, VOCAB, batch[mask].shape, generator=draw) * batch[mask]
    return batch


def lengths_of(n_rows: int) -> list[int]:
    """0, 1 and the longest first, then any."""
    drawn = np.random.default_rng(n_rows).integers(0, MAX_TOKENS + 1, n_rows)
    return [0, 1, MAX_TOKENS, *drawn.tolist()][:n_rows]


# An export takes seconds: of one encoder it is here, of BERT in test_score, of the others in test_layouts and
# in the notebooks. The rest is slow.
OFTEN = ("lstm2risk",)
SOME = [part if part[0] in OFTEN else pytest.param(part, marks=pytest.mark.slow) for part in PARTS]


@pytest.fixture(scope="module", params=SOME, ids=lambda part: "-".join(map(str, part)))
def exported(request, tmp_path_factory) -> tuple[RiskModel, Path]:
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    model = tiny(*request.param)
    export_onnx(model, path)
    return model.eval(), path


def test_graph_gives_the_models_probabilities(exported):
    model, path = exported
    batches = [example(model, lengths_of(n), n_chunks=k) for n, k in ((2, 3), (257, 2))]
    batches += [example(model, [length]) for length in (0, 1, MAX_TOKENS)]
    with torch.inference_mode():
        for batch in batches:
            want = model(batch).softmax(dim=1).numpy()
            np.testing.assert_allclose(onnx_scores(path, batch), want, rtol=0, atol=1e-5)
    assert onnx_scores(path, batches[1])[:, 1].std() > 1e-3, "rows that are all alike prove nothing"
    assert largest_difference(model, path, batches) <= 1e-5


def test_largest_difference_sees_other_weights(exported):
    model, path = exported
    other = tiny(model.config.model_class, model.config.encoder, model.config.n_tab_features)
    for value in other.parameters():
        value.data += 0.1
    assert largest_difference(other, path, [example(model, [5, 3])]) > 1e-3


def test_a_row_scores_alone_as_beside_longer_ones(exported):
    model, path = exported
    batch = example(model, [3, MAX_TOKENS, 1, 0, 7], n_chunks=2)
    together = onnx_scores(path, batch)
    for i in range(5):
        alone = {key: value[i : i + 1] for key, value in batch.items()}
        for ids, mask in (("text", "attn_mask"), ("secondary", "secondary_mask")):
            n = max(1, int(alone[mask].sum(dim=-1).max()))
            alone |= {ids: alone[ids][..., :n], mask: alone[mask][..., :n]}
        np.testing.assert_allclose(onnx_scores(path, alone)[0], together[i], rtol=0, atol=1e-6)


def test_defect_02_inputs_are_the_batch_keys(exported):
    model, path = exported
    graph = onnx.load(path)
    onnx.checker.check_model(graph, full_check=True)
    shapes = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in [*graph.graph.input, *graph.graph.output]
    }
    inner = ["chunks", "tokens"] if model.config.encoder == "bert" else ["tokens"]
    want = {
        "text": ["rows", *inner],
        "attn_mask": ["rows", *inner],
        "probs": ["rows", model.config.n_classes],
    }
    if model.config.n_texts == 2:
        want |= dict.fromkeys(("secondary", "secondary_mask"), ["rows", *(f"secondary_{n}" for n in inner)])
    if model.config.n_tab_features:
        want["tabular"] = ["rows", F]
    assert shapes == want
    kept = example(model, [2, 1])
    del kept["attn_mask"]
    with pytest.raises(ValueError, match="attn_mask"):
        onnx_scores(path, kept)


def test_one_file_that_names_no_folder_of_this_machine(exported):
    _, path = exported
    assert [part.name for part in path.parent.iterdir()] == ["model.onnx"]
    assert b".py" not in path.read_bytes()


@pytest.mark.parametrize("exported", PARTS[:1], indirect=True, ids=str)
def test_defect_11_onnx_backward_lstm_does_not_read_padding(exported):
    model, path = exported
    batch = example(model, [9, 4, 1, 0])
    scores = onnx_scores(path, batch)
    noise = torch.randint(0, VOCAB, batch["text"].shape, generator=torch.Generator().manual_seed(1))
    padding = {**batch, "text": torch.where(batch["attn_mask"], batch["text"], noise)}
    np.testing.assert_array_equal(onnx_scores(path, padding), scores)
    tokens = {**batch, "text": torch.where(batch["attn_mask"], noise, batch["text"])}
    assert np.abs(onnx_scores(path, tokens) - scores)[:3].max(axis=1).min() > 1e-4
    nodes = Counter(node.op_type for node in onnx.load(path).graph.node)
    assert nodes["LSTM"] == 2 and not nodes["Loop"] + nodes["Scan"], "one node a layer, nothing unrolled"


def test_defect_03_an_exported_lstm_needs_no_lengths_beside_what_a_loader_gives(tmp_path):
    """The published export asked the batch for lengths that no collate made, and ended every training."""
    model = tiny("lstm2risk", "lstm", F)
    export_onnx(model, tmp_path / "model.onnx")
    batch = {key: value for key, value in example(model, [5, 2]).items() if key in model.inputs}
    assert "text_length" not in batch
    assert largest_difference(model, tmp_path / "model.onnx", [batch]) < 1e-5


def test_exports_are_silent_leave_the_model_as_it_was_and_come_out_the_same_twice(tmp_path, capfd, caplog):
    model = tiny("lstm", "lstm_ends", 0, n_classes=3).double()
    model.texts.requires_grad_(False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ("one", "two"):
            export_onnx(model, tmp_path / name)
            quantize_onnx(tmp_path / name, tmp_path / f"{name}.int8")
        export_torchscript(model, tmp_path / "script.pt")
    assert capfd.readouterr() == ("", "")
    assert [record for record in caplog.records if record.levelname != "DEBUG"] == []
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert (tmp_path / "one.int8").read_bytes() == (tmp_path / "two.int8").read_bytes()
    assert model.training and model.head[1].weight.dtype == torch.float64
    assert onnx_scores(tmp_path / "one", example(model, [2, 0])).shape == (2, 3)


@pytest.mark.slow
def test_torchscript_of_all_classes_gives_the_models_probabilities_without_n3r(tmp_path, run_fresh):
    for part in PARTS:
        name = "-".join(map(str, part))
        model = tiny(*part)
        export_torchscript(model, tmp_path / f"{name}.pt")
        batches = [example(model, lengths_of(n), n_chunks=k) for n, k in ((9, 3), (2, 1))]
        batches = [{name: batch[name] for name in model.inputs} for batch in batches]
        with torch.inference_mode():
            want = [model.eval()(batch).softmax(dim=1) for batch in batches]
        torch.save({"batches": batches, "want": want}, tmp_path / f"{name}.rows")
    code = """
import sys, torch
from pathlib import Path
for path in sorted(Path(sys.argv[1]).glob("*.pt")):
    model, rows = torch.jit.load(path), torch.load(path.with_suffix(".rows"), weights_only=True)
    for batch, want in zip(rows["batches"], rows["want"], strict=True):
        assert (model(batch) - want).abs().max().numpy() <= 1e-6, path
    print(path.stem)
assert "n3r" not in sys.modules
"""
    assert len(run_fresh(code, tmp_path).split()) == len(PARTS)


@pytest.mark.parametrize("exported", [PARTS[0], PARTS[1], PARTS[3]], indirect=True, ids=str)
def test_eight_bit_weights_move_scores_a_little(exported, tmp_path):
    model, path = exported
    quantize_onnx(path, tmp_path / "int8.onnx")
    batch = example(model, lengths_of(50))
    moved = np.abs(onnx_scores(tmp_path / "int8.onnx", batch) - onnx_scores(path, batch))
    assert 0 < moved.max() < 0.05
    nodes = onnx.load(tmp_path / "int8.onnx").graph.node
    assert any("Integer" in node.op_type or "DynamicQuantize" in node.op_type for node in nodes)
    of_features = [
        n for n in nodes if any("model.tabular." in name for name in n.input) and "Mat" in n.op_type
    ]
    assert of_features and all(node.op_type == "MatMul" for node in of_features)


class Branching(nn.Linear):
    """Asks for a value, which a graph cannot."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if x.sum() > 0 else super().forward(-x)


class Frozen(nn.Linear):
    """Works in a graph for the example's number of rows."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + torch.zeros(int(x.shape[0]), 1)


class Drawing(nn.Linear):
    """Gives other values at each call, so that no graph has the model's."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + torch.randn(x.shape[0], self.out_features)


@pytest.mark.parametrize("head", [Branching, Frozen, Drawing])
def test_defect_53_failed_export_raises_and_leaves_no_file(head, tmp_path):
    model = tiny("lstm", "lstm_ends", 0)
    model.head = head(12, 2)
    with pytest.raises(RuntimeError, match="model.onnx was not written"):
        export_onnx(model, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_defect_53_failed_export_keeps_the_file_that_was_there(tmp_path):
    path, model = tmp_path / "model.onnx", tiny("lstm", "lstm_ends", 0)
    path.write_text("the last good one")
    model.head = Branching(12, 2)
    with pytest.raises(RuntimeError, match=str(path)):
        export_onnx(model, path)
    assert path.read_text() == "the last good one" and len(list(tmp_path.iterdir())) == 1
