"""ONNX graphs of probabilities: made of nodes, and joined into one that averages its members.

Decisions:
- A member reads inputs that have its batch's names and gives `probs` (rows, C). Members share an input of one
  name, so that a row is encoded once; all other names get the member's prefix, also inside the subgraphs of
  loops and branches (onnx.compose leaves out weights that a subgraph takes from outside).
- The mean is one of log-probabilities, which are cut at `LEAST`: a member that is sure must not outvote all.
- Opset and IR version are those that torch's exporter writes, so that no graph has to be converted.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto

OPSETS = {"": 20, "ai.onnx.ml": 5}
IR_VERSION = 10
TABULAR, PROBS = "tabular", "probs"
LEAST = 1e-7  # of a probability whose logarithm is taken


def member_graph(
    nodes: "Iterable[NodeProto]",
    weights: Mapping[str, np.ndarray],
    inputs: "Iterable[ValueInfoProto]",
    n_classes: int,
) -> "ModelProto":
    """A checked graph from inputs to `probs` (rows, C); `weights` are its constants by name."""
    from onnx import TensorProto, checker, helper, numpy_helper

    probs = helper.make_tensor_value_info(PROBS, TensorProto.FLOAT, ["rows", n_classes])
    constants = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(list(nodes), "n3r", list(inputs), [probs], constants)
    model = _model(graph, OPSETS)
    checker.check_model(model, full_check=True)
    return model


def tabular_input(n_features: int) -> "ValueInfoProto":
    """The feature array: `tabular` (rows, F) float."""
    from onnx import TensorProto, helper

    return helper.make_tensor_value_info(TABULAR, TensorProto.FLOAT, ["rows", n_features])


def constant_probs(source: str, row: np.ndarray) -> "tuple[list[NodeProto], dict[str, np.ndarray]]":
    """Nodes and weights that give each row of `source` the same probabilities (C,)."""
    from onnx import helper

    nodes = [
        helper.make_node("Shape", [source], ["rows"], start=0, end=1),
        helper.make_node("Concat", ["rows", "classes"], ["shape"], axis=0),
        helper.make_node("Expand", ["row", "shape"], [PROBS]),
    ]
    return nodes, {"classes": np.array([len(row)]), "row": row.astype(np.float32)[None]}


def mean_probs(probs: Sequence[np.ndarray], weights: Sequence[float]) -> np.ndarray:
    """What a joined graph gives, (N, C): the softmax of the weighted mean of the log-probabilities."""
    share = np.asarray(weights, np.float64) / np.sum(weights)
    logs = sum(s * np.log(np.clip(p, LEAST, 1)) for s, p in zip(share, probs, strict=True))
    powers = np.exp(logs - logs.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def join_graphs(members: "Mapping[str, ModelProto]", weights: Mapping[str, float]) -> "ModelProto":
    """One graph of several: `probs` as `mean_probs` of theirs, from the union of their inputs.

    The members are not changed. Raises ValueError on weights that fit no blend, and on members without
    `probs`, of other classes, opsets or kinds of input.
    """
    from onnx import checker, helper

    _check_weights(members, weights)
    joined = helper.make_graph([], "n3r", [], [])
    for place, (name, member) in enumerate(members.items()):
        _add_member(joined, _inlined(member), f"m{place}.", name)
    opsets = _shared_opsets(members)
    _add_mean(joined, [weights[name] for name in members])
    joined.output.append(_probs(members))
    model = _model(joined, opsets, max(member.ir_version for member in members.values()))
    checker.check_model(model, full_check=True)
    return model


def cut_texts(model: "ModelProto", longest: int) -> "ModelProto":
    """The same graph, reading the first `longest` tokens of each text: what a Transformer has places for."""
    from onnx import ModelProto, checker, helper, numpy_helper

    cut = ModelProto()
    cut.CopyFrom(model)
    graph = cut.graph
    texts = [value.name for value in graph.input if value.name != TABULAR]
    for node in graph.node:
        node.input[:] = [f"{name}.cut" if name in texts else name for name in node.input]
    ends = {"cut.start": [0], "cut.end": [longest], "cut.axis": [1]}
    graph.initializer.extend(numpy_helper.from_array(np.array(end), name) for name, end in ends.items())
    for place, name in enumerate(texts):
        graph.node.insert(place, helper.make_node("Slice", [name, *ends], [f"{name}.cut"]))
    checker.check_model(cut, full_check=True)
    return cut


def rename_inputs(model: "ModelProto", names: Mapping[str, str]) -> "ModelProto":
    """The same graph, its inputs under other names: old name -> new name."""
    from onnx import ModelProto, checker

    renamed = ModelProto()
    renamed.CopyFrom(model)
    _rename(renamed.graph, lambda name: names.get(name, name))
    checker.check_model(renamed, full_check=True)
    return renamed


def _model(graph: "GraphProto", opsets: Mapping[str, int], ir_version: int = IR_VERSION) -> "ModelProto":
    from onnx import helper

    imports = [helper.make_opsetid(domain, version) for domain, version in opsets.items()]
    return helper.make_model(graph, opset_imports=imports, ir_version=ir_version, producer_name="n3r")


def _check_weights(members: "Mapping[str, ModelProto]", weights: Mapping[str, float]) -> None:
    if not members or set(members) != set(weights):
        raise ValueError(
            f"members {list(members)} with weights of {list(weights)}: expected the same, one or more"
        )
    values = np.array(list(weights.values()), np.float64)
    if not np.isfinite(values).all() or (values < 0).any() or not values.sum() > 0:
        raise ValueError(f"weights {dict(weights)}: expected finite ones of at least 0, not all of them 0")


def _inlined(member: "ModelProto") -> "ModelProto":
    from onnx import inliner

    return inliner.inline_local_functions(member) if member.functions else member


def _shared_opsets(members: "Mapping[str, ModelProto]") -> dict[str, int]:
    """Domain -> version; ValueError where two members differ."""
    opsets: dict[str, int] = {}
    for name, member in members.items():
        for one in member.opset_import:
            domain = "" if one.domain == "ai.onnx" else one.domain
            if opsets.setdefault(domain, one.version) != one.version:
                raise ValueError(
                    f"{name}: opset {one.version} of {domain or 'ai.onnx'!r} beside {opsets[domain]}: "
                    "convert it with onnx.version_converter"
                )
    return opsets


def _probs(members: "Mapping[str, ModelProto]") -> "ValueInfoProto":
    """The output that all members have; ValueError where they differ."""
    found = {name: [v for v in member.graph.output if v.name == PROBS] for name, member in members.items()}
    if lacking := [name for name, values in found.items() if not values]:
        raise ValueError(f"the members {lacking} have no output {PROBS!r}")
    widths = {name: v[0].type.tensor_type.shape.dim[1].dim_value for name, v in found.items()}
    if len(set(widths.values())) > 1:
        raise ValueError(f"members of other classes: {widths}")
    return next(iter(found.values()))[0]


def _add_member(joined: "GraphProto", member: "ModelProto", prefix: str, name: str) -> None:
    """Add a member's nodes and weights under its prefix, and the inputs that are not there yet."""
    from onnx import GraphProto

    graph = GraphProto()
    graph.CopyFrom(member.graph)
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]  # old graphs list both
    for value in inputs:
        _share_input(joined, value, name)
    shared = {"", *(value.name for value in inputs)}
    _rename(graph, lambda own: own if own in shared else prefix + own)
    joined.node.extend(graph.node)
    joined.initializer.extend(graph.initializer)
    joined.sparse_initializer.extend(graph.sparse_initializer)


def _share_input(joined: "GraphProto", value: "ValueInfoProto", name: str) -> None:
    for known in joined.input:
        if known.name == value.name:
            if _kind(known) != _kind(value):
                raise ValueError(
                    f"{name}: input {value.name!r} is {_kind(value)}, of another member {_kind(known)}"
                )
            return
    joined.input.append(value)


def _kind(value: "ValueInfoProto") -> tuple[str, list[int | None]]:
    """The type of an input and its fixed sizes."""
    from onnx import TensorProto

    tensor = value.type.tensor_type
    return TensorProto.DataType.Name(tensor.elem_type), [dim.dim_value or None for dim in tensor.shape.dim]


def _rename(graph: "GraphProto", named: Callable[[str], str]) -> None:
    """Give every name in a graph and its subgraphs another."""
    for node in graph.node:
        node.name = named(node.name)
        node.input[:] = [named(name) for name in node.input]
        node.output[:] = [named(name) for name in node.output]
        for attribute in node.attribute:
            for inner in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                _rename(inner, named)
    for sparse in graph.sparse_initializer:
        sparse.values.name, sparse.indices.name = named(sparse.values.name), named(sparse.indices.name)
    for value in [*graph.initializer, *graph.input, *graph.output, *graph.value_info]:
        value.name = named(value.name)


def _add_mean(joined: "GraphProto", weights: Sequence[float]) -> None:
    from onnx import helper, numpy_helper

    shares = (np.array(weights, np.float64) / np.sum(weights)).astype(np.float32)
    constants = {"mean.least": np.float32(LEAST), "mean.most": np.float32(1)}
    for place, share in enumerate(shares):
        names = [f"mean.{what}{place}" for what in ("share", "clipped", "log", "weighted")]
        own_share, clipped, log, weighted = names
        constants[own_share] = share
        joined.node.extend(
            [
                helper.make_node("Clip", [f"m{place}.{PROBS}", "mean.least", "mean.most"], [clipped]),
                helper.make_node("Log", [clipped], [log]),
                helper.make_node("Mul", [log, own_share], [weighted]),
            ]
        )
    logs = [f"mean.weighted{place}" for place in range(len(shares))]
    joined.node.append(helper.make_node("Sum", logs, ["mean.log"]))
    joined.node.append(helper.make_node("Softmax", ["mean.log"], [PROBS], axis=1))
    joined.initializer.extend(numpy_helper.from_array(np.array(a), name) for name, a in constants.items())
