"""Joined graphs: the weighted mean of networks and scikit-learn's models, and clear refusals."""

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from onnxruntime import InferenceSession

from n3r.export import export_onnx, quantize_onnx
from n3r.graphs import constant_probs, cut_texts, join_graphs, mean_probs, member_graph, tabular_input
from n3r.model import model_select
from n3r.ngrams import code_points, fit_ngrams
from n3r.trees import fit_trees

N, F = 40, 6
SIZES = {
    "lstm2risk": {"embedding_size": 4, "hidden_size": 6, "n_lstm_layers": 2},
    "transformer2risk": {
        "embedding_size": 8,
        "hidden_size": 6,
        "n_blocks": 1,
        "n_heads": 2,
        "block_size": 12,
    },
}


def batch(n: int = N, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    mask = np.arange(12) < rng.integers(1, 13, n)[:, None]
    texts = ["".join(rng.choice(list("abcdef "), length)) for length in rng.integers(0, 20, n)]
    return {
        "text": rng.integers(0, 30, (n, 12)) * mask,
        "attn_mask": mask,
        "tabular": rng.normal(size=(n, F)).astype(np.float32),
        "characters": code_points(texts),
    }


def run(graph: onnx.ModelProto, rows: dict[str, np.ndarray]) -> np.ndarray:
    session = InferenceSession(graph.SerializeToString())
    return session.run(["probs"], {node.name: rows[node.name] for node in session.get_inputs()})[0]


def network(model_class: str, n_features: int, folder) -> onnx.ModelProto:
    torch.manual_seed(0)
    model = model_select(model_class, vocab_size=30, n_tab_features=n_features, **SIZES[model_class])
    export_onnx(model, folder / f"{model_class}.onnx")
    return onnx.load(folder / f"{model_class}.onnx")


@pytest.fixture(scope="module")
def members(tmp_path_factory) -> dict[str, onnx.ModelProto]:
    """Networks of torch, trees and n-grams; all of two classes."""
    folder, rows, rng = tmp_path_factory.mktemp("graphs"), batch(400), np.random.default_rng(0)
    y = (rows["tabular"][:, 0] + rng.normal(size=400) > 0).astype(int)
    texts = ["".join(chr(code) for code in row if code >= 0) for row in rows["characters"]]
    return {
        "lstm2risk": network("lstm2risk", F, folder),
        "transformer2risk": network("transformer2risk", F, folder),
        "boosting": fit_trees("boosting", rows["tabular"], y, 2).graph(),
        "character n-grams": fit_ngrams("character n-grams", texts, y, 2).graph(),
        "boosting on n-grams": fit_ngrams("boosting on n-grams", texts, y, 2, X=rows["tabular"]).graph(),
    }


WEIGHTS = {
    "lstm2risk": 2,
    "transformer2risk": 1,
    "boosting": 3.5,
    "character n-grams": 0.5,
    "boosting on n-grams": 1,
}


def test_a_joined_graph_is_the_mean_of_networks_trees_and_n_grams(members):
    before = {name: member.SerializeToString() for name, member in members.items()}
    joined = join_graphs(members, WEIGHTS)
    onnx.checker.check_model(joined, full_check=True)
    assert {name: member.SerializeToString() for name, member in members.items()} == before
    assert sorted(value.name for value in joined.graph.input) == [
        "attn_mask",
        "characters",
        "tabular",
        "text",
    ]
    for n in (1, 2, N):
        rows = batch(n, seed=n)
        probs = [run(member, rows) for member in members.values()]
        want = mean_probs(probs, list(WEIGHTS.values()))
        np.testing.assert_allclose(run(joined, rows), want, rtol=0, atol=1e-5)
    assert want.std(axis=0).min() > 0.01


def test_a_graph_can_be_joined_from_joined_ones_and_from_one(members):
    one = join_graphs({"boosting": members["boosting"]}, {"boosting": 5})
    rows = batch()
    np.testing.assert_allclose(run(one, rows), run(members["boosting"], rows), rtol=0, atol=1e-6)
    two = join_graphs({"a": one, "b": members["lstm2risk"]}, {"a": 1, "b": 1})
    want = mean_probs([run(members["boosting"], rows), run(members["lstm2risk"], rows)], [1, 1])
    np.testing.assert_allclose(run(two, rows), want, rtol=0, atol=1e-5)


def test_a_transformer_reads_as_many_tokens_as_it_has_places_for(members):
    rows, longest = batch(), 3
    first = rows | {name: rows[name][:, :longest] for name in ("text", "attn_mask")}
    cut = cut_texts(members["transformer2risk"], longest)
    np.testing.assert_allclose(run(cut, rows), run(members["transformer2risk"], first), rtol=0, atol=1e-6)
    assert np.abs(run(cut, rows) - run(members["transformer2risk"], rows)).max() > 1e-6


def test_a_network_with_8_bit_weights_can_be_joined(members, tmp_path):
    onnx.save(members["lstm2risk"], tmp_path / "model.onnx")
    quantize_onnx(tmp_path / "model.onnx", tmp_path / "int8.onnx")
    small, rows = onnx.load(tmp_path / "int8.onnx"), batch()
    joined = join_graphs({"a": small, "b": members["boosting"]}, {"a": 1, "b": 1})
    want = mean_probs([run(small, rows), run(members["boosting"], rows)], [1, 1])
    np.testing.assert_allclose(run(joined, rows), want, rtol=0, atol=1e-5)


def constant(*row: float) -> onnx.ModelProto:
    row = np.array(row)
    return member_graph(*constant_probs("tabular", row), [tabular_input(F)], len(row))


def test_mean_of_three_classes_by_hand():
    """Log-probabilities are cut at 1e-7: sqrt(0.5 * 1e-7) : sqrt(0.25 * 0.5) : sqrt(0.25 * 0.5)."""
    joined = join_graphs({"a": constant(0.5, 0.25, 0.25), "b": constant(0, 0.5, 0.5)}, {"a": 2, "b": 2})
    parts = np.sqrt([0.5 * 1e-7, 0.125, 0.125])
    np.testing.assert_allclose(run(joined, batch(3)), np.tile(parts / parts.sum(), (3, 1)), atol=1e-6)
    np.testing.assert_allclose(
        mean_probs([np.array([[0.5, 0.25, 0.25]]), np.array([[0, 0.5, 0.5]])], [2, 2])[0], parts / parts.sum()
    )


def branching() -> onnx.ModelProto:
    """A loop in a branch; both take weights and values from outside, under names that other members have."""
    node, value = helper.make_node, helper.make_tensor_value_info
    body = helper.make_graph(
        [node("Identity", ["go"], ["go_out"]), node("Add", ["carried", "step"], ["carried_out"])],
        "body",
        [
            value("i", TensorProto.INT64, []),
            value("go", TensorProto.BOOL, []),
            value("carried", 1, ["rows", 2]),
        ],
        [value("go_out", TensorProto.BOOL, []), value("carried_out", 1, ["rows", 2])],
    )
    then = helper.make_graph(
        [node("Loop", ["times", "", "logits"], ["looped"], body=body)],
        "then",
        [],
        [value("looped", 1, ["rows", 2])],
    )
    other = helper.make_graph(
        [node("Identity", ["logits"], ["same"])], "else", [], [value("same", 1, ["rows", 2])]
    )
    nodes = [
        node("Gather", ["tabular", "places"], ["logits"], axis=1),
        node("If", ["yes"], ["chosen"], then_branch=then, else_branch=other),
        node("Softmax", ["chosen"], ["probs"]),
    ]
    constants = {
        "places": np.array([0, 1]),
        "yes": np.array(True),
        "times": np.array(3),
        "step": np.array([[0, 0.5]], np.float32),
    }
    return member_graph(nodes, constants, [tabular_input(F)], 2)


def test_loops_and_branches_keep_what_they_take_from_outside():
    member, rows = branching(), batch()
    logits = rows["tabular"][:, :2] + [0, 1.5]
    want = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(run(member, rows), want, atol=1e-6)
    joined = join_graphs({"a": member, "b": member}, {"a": 1, "b": 2})
    np.testing.assert_allclose(run(joined, rows), want, rtol=0, atol=1e-5)


def test_functions_of_a_member_are_written_out():
    twice = helper.make_function(
        "own",
        "Twice",
        ["x"],
        ["y"],
        [helper.make_node("Add", ["x", "x"], ["y"])],
        [helper.make_opsetid("", 20)],
    )
    member = branching()
    member.graph.node[-1].input[0] = "doubled"
    member.graph.node.insert(2, helper.make_node("Twice", ["chosen"], ["doubled"], domain="own"))
    member.functions.append(twice)
    member.opset_import.append(helper.make_opsetid("own", 1))
    rows = batch()
    joined = join_graphs({"a": member}, {"a": 1})
    np.testing.assert_allclose(run(joined, rows), run(member, rows), rtol=0, atol=1e-6)


def test_errors_say_what_is_wrong():
    a, b = constant(0.5, 0.5), constant(0.2, 0.3, 0.5)
    for weights in ({}, {"b": 1}, {"a": -1}, {"a": 0}, {"a": np.nan}):
        with pytest.raises(ValueError, match="weights"):
            join_graphs({"a": a}, weights)
    with pytest.raises(ValueError, match="members"):
        join_graphs({}, {})
    with pytest.raises(ValueError, match="of other classes: {'a': 2, 'b': 3}"):
        join_graphs({"a": a, "b": b}, {"a": 1, "b": 1})
    narrow = member_graph(*constant_probs("tabular", np.array([0.5, 0.5])), [tabular_input(2)], 2)
    with pytest.raises(ValueError, match="b: input 'tabular'"):
        join_graphs({"a": a, "b": narrow}, {"a": 1, "b": 1})
    older, named = constant(0.5, 0.5), constant(0.5, 0.5)
    older.opset_import[0].version = 17
    with pytest.raises(ValueError, match=r"b: opset 17 .* beside 20"):
        join_graphs({"a": a, "b": older}, {"a": 1, "b": 1})
    named.graph.output[0].name = "scores"
    with pytest.raises(ValueError, match=r"\['a'\] have no output 'probs'"):
        join_graphs({"a": named}, {"a": 1})
