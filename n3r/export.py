"""A `RiskModel` as one ONNX graph, from token ids and features to probabilities, and its parity check.

Decisions:
- The graph is the trained function: eval mode, then softmax; output `probs` (B, C). Its inputs are what the
  model reads of a batch, under the batch's own names: what feeds the model feeds the graph (defect 2).
- Any number of rows, tokens and chunks. Before a file gets its name, onnx's checker has passed it and its
  probabilities have been compared with the model's at two shapes: the exporter can freeze a length and say
  nothing, as it did with `torch.lstm` (that graph read texts of the example's length and no others).
- torch's exporter turns an LSTM of unknown length into a loop over tokens. `_OnnxBiLSTM` takes its place: one
  ONNX LSTM a layer for both directions, which is told each row's length (defect 11).
- A copy of the model is exported, on the CPU and in float32; the caller's keeps its device and mode.
"""

import copy
import logging
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from n3r.model import Batch, RiskModel
from n3r.text import BiLSTM

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

TOLERANCE = 1e-4  # of a probability; rounding in float32 makes 2e-7


def export_onnx(model: RiskModel, path: Path, batch: Batch) -> None:
    """Write the graph of a model to `path`; any batch that the model reads will do as the example.

    One file, with the weights in a second one, `<name>.data`, when they exceed 1.5 GB. Raises ValueError when
    the batch lacks what the model reads and RuntimeError when there is no correct graph; then nothing is
    written. NOTE[DIFF] seven published model classes log success over a failed export (defect 53).
    """
    import onnx

    path = Path(path)
    example = _example(batch, model.inputs)
    one_token = {k: v[:1] if v.is_floating_point() else v[(slice(1),) * v.ndim] for k, v in example.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as aside:
        graph = Path(aside) / path.name
        try:
            _write_graph(model, graph, example)
            onnx.checker.check_model(graph, full_check=True)
            difference = largest_difference(model, graph, [example, one_token])
            if not difference <= TOLERANCE:  # NaN is not
                raise ValueError(f"probabilities are off by {difference:.2g}")
        except Exception as error:
            cause = error.__cause__ or error  # the exporter wraps the error that says what is wrong
            reason = f"{type(cause).__name__}: {str(cause).strip()}".splitlines()[0]
            raise RuntimeError(f"{path} was not written, the ONNX export failed: {reason}") from error
        for part in sorted(Path(aside).iterdir(), reverse=True):  # the weights before the graph
            part.replace(path.parent / part.name)


def onnx_scores(path: Path, batch: Batch) -> np.ndarray:
    """Probabilities (B, C) of a batch through onnxruntime; ValueError when it lacks an input of the graph."""
    return _run(_session(path), batch)


def largest_difference(model: RiskModel, path: Path, batches: Iterable[Batch]) -> float:
    """Largest absolute difference between probabilities of the model in float32 and of its graph."""
    net, session = _Probabilities(model), _session(path)
    with torch.inference_mode():
        pairs = [(net(_pick(batch, model.inputs)).numpy(), _run(session, batch)) for batch in batches]
    return float(np.max([np.abs(ours - theirs).max() for ours, theirs in pairs]))


class _Probabilities(nn.Module):
    """A frozen copy of a model, and its softmax: batch -> (B, C)."""

    def __init__(self, model: RiskModel):
        super().__init__()
        self.model = copy.deepcopy(model).cpu().float()
        self.eval()

    def forward(self, batch: Batch) -> Tensor:
        return self.model(batch).softmax(dim=1)


class _OnnxBiLSTM(nn.Module):
    """A `BiLSTM` for the exporter: ONNX's own LSTM, both directions in a node, rows of known lengths."""

    def __init__(self, lstm: BiLSTM):
        super().__init__()
        self.hidden_size, self.n_layers = lstm.hidden_size, lstm.num_layers
        for layer in range(self.n_layers):
            for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                names = (f"{part}_l{layer}", f"{part}_l{layer}_reverse")
                both = [_onnx_gates(lstm.get_parameter(name)) for name in names]
                self.register_buffer(names[0], torch.stack(both))  # (2, 4H) or (2, 4H, width of the input)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """(T, B, D) and (B,) -> (T, B, 2H), zero at padded positions."""
        n_tokens, n_rows, _ = x.shape
        lengths = lengths.clamp(min=1).int()  # ONNX wants 32 bits, and the cuDNN path clamps as well
        for layer in range(self.n_layers):
            w_ih, w_hh = self.get_buffer(f"weight_ih_l{layer}"), self.get_buffer(f"weight_hh_l{layer}")
            b_ih, b_hh = self.get_buffer(f"bias_ih_l{layer}"), self.get_buffer(f"bias_hh_l{layer}")
            y = torch.onnx.ops.symbolic(
                "LSTM",
                (x, w_ih, w_hh, torch.cat([b_ih, b_hh], dim=1), lengths),
                {"direction": "bidirectional", "hidden_size": self.hidden_size},
                dtype=x.dtype,
                shape=(n_tokens, 2, n_rows, self.hidden_size),
            )
            x = y.transpose(1, 2).flatten(2)  # (T, B, 2H)
        return x


def _onnx_gates(weight: Tensor) -> Tensor:
    """From torch's order of an LSTM's gates (input, forget, cell, output) to ONNX's (i, o, f, c)."""
    i, f, c, o = weight.detach().chunk(4)
    return torch.cat([i, o, f, c])


def _pick(batch: Batch, names: list[str]) -> Batch:
    """What is wanted of a batch, on the CPU."""
    missing = [name for name in names if name not in batch]
    if missing:
        raise ValueError(f"a batch without {', '.join(missing)}: the model reads {', '.join(names)}")
    return {name: batch[name].cpu() for name in names}


def _example(batch: Batch, names: list[str]) -> Batch:
    """First and last row of a batch, padded where they have one token or chunk.

    The exporter takes a dimension of size 1 for one that is always 1.
    """
    example = {}
    for name, value in _pick(batch, names).items():
        value = value[[0, -1]]
        for dim in range(1, 1 if value.is_floating_point() else value.ndim):
            if value.shape[dim] == 1:
                value = torch.cat([value, torch.zeros_like(value)], dim)
        example[name] = value
    return example


def _write_graph(model: RiskModel, path: Path, example: Batch) -> None:
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    net = _Probabilities(model)
    for name, module in list(net.named_modules()):
        if isinstance(module, BiLSTM):
            net.set_submodule(name, _OnnxBiLSTM(module))
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            net.eval(),
            kwargs={"batch": example},
            input_names=list(example),
            output_names=["probs"],
            dynamic_shapes={"batch": {name: _dimensions(name, value) for name, value in example.items()}},
            verbose=False,
        )
    # Without the exporter's stack traces: they name folders of this machine and triple a small file.
    ClearMetadataAndDocStringPass()(program.model)
    program.save(path)


def _dimensions(name: str, value: Tensor) -> dict[int, str]:
    """Names of the dimensions that vary: rows and, of texts and masks, chunks and tokens."""
    if value.is_floating_point():
        return {0: "rows"}
    kind = "secondary_" if name.startswith("secondary") else ""
    inner = ("chunks", "tokens")[-(value.ndim - 1) :]
    return {0: "rows"} | {dim: kind + what for dim, what in enumerate(inner, start=1)}


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's words on its own deprecations, shared axis names and torchvision's absence."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.filterwarnings("ignore", "# The axis name")
            yield
    finally:
        logger.setLevel(level)


def _session(path: Path) -> "InferenceSession":
    from onnxruntime import InferenceSession, SessionOptions

    options = SessionOptions()
    options.log_severity_level = 4  # what it would log it also raises
    return InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _run(session: "InferenceSession", batch: Batch) -> np.ndarray:
    inputs = _pick(batch, [node.name for node in session.get_inputs()])
    return session.run(["probs"], {name: value.numpy() for name, value in inputs.items()})[0]
