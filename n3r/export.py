"""A `RiskModel` as one ONNX graph or TorchScript, from token ids and features to probabilities, each checked.

Decisions:
- The graph is the trained function: eval mode, then softmax; output `probs` (B, C). Its inputs are what the
  model reads of a batch, under the batch's own names: what feeds the model feeds the graph (defect 2).
- Any number of rows, tokens and chunks. Before a file gets its name, its probabilities have been compared
  with the model's at two shapes, and onnx's checker has passed a graph: the exporter can silently freeze a
  length, as it did with `torch.lstm` (that graph read only texts of the example's length).
- torch's exporter turns an LSTM of unknown length into a loop over tokens. `_OnnxBiLSTM` takes its place:
  one ONNX LSTM per layer for both directions, which gets each row's length (defect 11).
- For torch itself there is TorchScript, by tracing: torch.export refuses an LSTM of unknown length.
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

from n3r.encode import TEXT_KEYS
from n3r.files.atomic import writing
from n3r.kernels import BiLSTM
from n3r.model import Batch, ModelConfig, RiskModel
from n3r.runtime import session

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

TOLERANCE = 1e-4  # of a probability; rounding in float32 makes 2e-7


def export_onnx(model: RiskModel, path: Path) -> None:
    """Write the graph of a model to `path`.

    One file, with the weights in a second one, `<name>.data`, when they exceed 1.5 GB. Raises RuntimeError
    when there is no correct graph; then nothing is written. NOTE[DIFF] seven published model classes log
    success over a failed export (defect 53).
    """
    import onnx

    with _checked(path, "the ONNX export") as graph:
        _write_graph(model, graph, example_batch(model))
        onnx.checker.check_model(graph, full_check=True)
        _refuse(largest_difference(model, graph, _shapes(model)))


def export_torchscript(model: RiskModel, path: Path) -> None:
    """Write a model as TorchScript: a dict of the inputs -> `probs` (B, C); errors as of `export_onnx`.

    `torch.jit.load(path)` needs torch and none of n3r.
    """
    net = _Probabilities(model)
    with _checked(path, "the TorchScript export") as script, _quiet(), torch.inference_mode():
        traced = torch.jit.trace(net, (example_batch(model),), strict=False, check_trace=False)
        _refuse(max(float((traced(batch) - net(batch)).abs().max()) for batch in _shapes(model)))
        with script.open("wb") as file:  # given a path, it ends the process when the disk is full
            torch.jit.save(traced, file)


def quantize_onnx(path: Path, target: Path) -> None:
    """Write a graph with the weights of its matrix products and LSTMs in 8 bits (dynamic quantisation).

    A quarter of the size, 0.3 to 0.6 of the time. Activations are scaled by the largest of the batch:
    a score moves by up to 0.016, also with its batch-mates. What scales and encodes the features stays as
    it is: columns differ so much in size that with one scale for all of them scores moved by up to 0.14.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    graph = onnx.load(path)
    del graph.graph.value_info[:]  # shapes of the weights before they are transposed
    of_features = ("model.tabular.", "model.scaling.")
    kept = [n.name for n in graph.graph.node if any(part in name for name in n.input for part in of_features)]
    kept += [f"{name}_MatMul" for name in kept]  # what the quantiser calls a Gemm
    with _checked(target, "the quantisation") as aside, _quiet():
        quantize_dynamic(graph, aside, weight_type=QuantType.QInt8, nodes_to_exclude=kept)


def example_batch(model: RiskModel, n_rows: int = 2, n_tokens: int = 5, n_chunks: int = 2) -> Batch:
    """Rows of random tokens and features, in every input that the model reads, on the CPU.

    The first row is full; the others get shorter, down to one token in one chunk. A second text is longer: of
    two sizes that are the same in its example, the exporter makes one.
    """
    draw, batch = torch.Generator().manual_seed(0), {}
    for ids, config in model.config.of_texts.items():
        more = n_rows if ids == "secondary" else 0
        mask = _staircase(config, n_rows, n_tokens + more, n_chunks + more)
        batch[TEXT_KEYS[ids]] = mask
        batch[ids] = torch.randint(config.vocab_size, mask.shape, generator=draw)
    if "tabular" in model.inputs:
        batch["tabular"] = torch.randn(n_rows, model.config.n_tab_features, generator=draw)
        if model.scaling:  # values between the outer knots
            low, high = model.scaling.low.cpu(), model.scaling.high.cpu()
            drawn = torch.rand(n_rows, len(low), generator=draw)
            batch["tabular"][:, : len(low)] = low + drawn * (high - low)
    return {name: batch[name] for name in model.inputs}


def _staircase(config: ModelConfig, n_rows: int, n_tokens: int, n_chunks: int) -> Tensor:
    """A mask (B, T), of chunks (B, K, T), in which each row is a token and a chunk shorter than the last."""
    n_tokens = min(n_tokens, config.max_tokens or n_tokens)
    row = torch.arange(n_rows)[:, None]
    mask = torch.arange(n_tokens) < (n_tokens - row).clamp(min=1)  # (B, T)
    if config.encoder != "bert":
        return mask
    filled = torch.arange(n_chunks) < (n_chunks - row).clamp(min=1)  # (B, K)
    return filled[:, :, None] & mask[:, None]


def onnx_scores(path: Path, batch: Batch) -> np.ndarray:
    """Probabilities (B, C) of a batch through onnxruntime; ValueError when it lacks an input of the graph."""
    return _run(session(path), batch)


def largest_difference(model: RiskModel, path: Path, batches: Iterable[Batch]) -> float:
    """Largest absolute difference between probabilities of the model in float32 and of its graph."""
    net, graph = _Probabilities(model), session(path)
    with torch.inference_mode():
        pairs = [(net(_pick(batch, model.inputs)).numpy(), _run(graph, batch)) for batch in batches]
    return float(np.max([np.abs(ours - theirs).max() for ours, theirs in pairs]))


class _Probabilities(nn.Module):
    """A frozen copy of a model, and its softmax: batch -> (B, C)."""

    def __init__(self, model: RiskModel):
        super().__init__()
        self.model = copy.deepcopy(model).cpu().float().requires_grad_(False)
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


def _shapes(model: RiskModel) -> list[Batch]:
    """Batches of other shapes than the exporter's example: what froze shows on them."""
    return [example_batch(model, 3, 7, 3), example_batch(model, 1, 1, 1)]


@contextmanager
def _checked(path: Path, what: str) -> Iterator[Path]:
    """A path to write to; what stands beside it in the end gets its name in `path`'s folder."""
    path = Path(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as aside:
            try:
                yield Path(aside) / path.name
            except OSError:  # a full disk
                raise
            except Exception as error:
                cause = error.__cause__ or error  # the exporter wraps the error that says what is wrong
                reason = f"{type(cause).__name__}: {str(cause).strip()}".splitlines()[0]
                raise RuntimeError(f"{path} was not written, {what} failed: {reason}") from error
            for part in sorted(Path(aside).iterdir(), reverse=True):  # the weights before the graph
                part.replace(path.parent / part.name)


def _refuse(difference: float) -> None:
    if not difference <= TOLERANCE:  # NaN is not
        raise ValueError(f"probabilities are off by {difference:.2g}")


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
    """Without the libraries' words on deprecations, shared axes, preparation and torchvision's absence."""
    names = ("torch.onnx._internal.exporter._registration", None)  # the quantiser writes to the root
    levels = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            for category in (FutureWarning, DeprecationWarning, torch.jit.TracerWarning):
                warnings.simplefilter("ignore", category)
            warnings.filterwarnings("ignore", "# The axis name")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def _run(graph: "InferenceSession", batch: Batch) -> np.ndarray:
    inputs = _pick(batch, [node.name for node in graph.get_inputs()])
    return graph.run(["probs"], {name: value.numpy() for name, value in inputs.items()})[0]
