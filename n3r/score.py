"""Scores from a bundle, without torch: onnxruntime runs its graph, tokenizers and polars feed it.

Decisions:
- The `RowEncoder` that made the model's inputs in training makes the graph's. A row scores the same alone,
  beside others, and from any kind of file.
- One order given as a dict is scored without a table: a table of one row costs more than the graph.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from pydantic import ValidationError

from n3r.calibrate import Calibration
from n3r.encode import TEXT_KEYS, Encoded, RowEncoder, text_readers
from n3r.features import TabularFeatures
from n3r.files.json_io import explain, read_json
from n3r.files.manifest import MAX_BYTES, OTHER_TOKENIZERS, verify, written_by
from n3r.reasons import REASONS, Reason, find_reasons, reason_columns
from n3r.risk_tables import Unseen
from n3r.rows.inputs import Inputs, typed, typed_row
from n3r.rows.parts import Rows, RowsInParts, portions
from n3r.runtime import CHARACTERS, KNOWN, PROBS, TABULAR, Graph
from n3r.schema import ColumnMap, id_name, is_pattern
from n3r.thresholds import Decision, Rule, orders_a_day
from n3r.tokenizer import Reader, TextConfig, load_tokenizer

MAX_THREADS = 1024


class Parts(NamedTuple):
    """What the JSON files of a bundle say."""

    config: dict[str, Any]  # its "model", "texts", "train" and "data" are objects
    column_map: ColumnMap
    features: TabularFeatures
    calibration: Calibration
    texts: TextConfig


def read_parts(folder: Path) -> Parts:
    """Read and check the JSON files of a verified bundle.

    A manifest that fits says who wrote them, not that he meant well. Raises ValueError naming the file.
    """
    path = folder / "config.json"
    config = read_json(path)
    kinds = ("model", "texts", "train", "data")
    if not isinstance(config, dict) or not all(isinstance(config.get(key), dict) for key in kinds):
        raise ValueError(f"{path} must hold an object with the objects {', '.join(kinds)}")
    with _naming(path):
        texts = TextConfig(**config["texts"])
    found = []
    for name, kind in (("features.json", TabularFeatures), ("calibration.json", Calibration)):
        content = read_json(folder / name)
        with _naming(folder / name):
            found.append(kind.from_dict(content))
    return Parts(config, ColumnMap.from_file(folder / "columns.json"), *found, texts)


def read_readers(
    folder: Path, config: Mapping[str, Any], texts: TextConfig, writers: dict[str, str]
) -> tuple[Reader, dict[str, Reader]]:
    """The first reader of a verified bundle's texts and, by their batch keys, those of others.

    Raises ValueError naming the file.
    """
    with written_by(folder / "tokenizer.json", "tokenizers", writers):
        first = Reader(load_tokenizer(folder), texts)
    others = {}
    for key in [key for key in OTHER_TOKENIZERS if key in config]:
        with _naming(folder / "config.json"):
            texts = TextConfig.model_validate(config[key])
        with written_by(folder / f"{key}_tokenizer.json", "tokenizers", writers):
            others[key] = Reader(load_tokenizer(folder, prefix=f"{key}_"), texts)
    return first, others


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Within it, a ValueError names the file."""
    try:
        yield
    except ValidationError as error:
        raise ValueError(f"{path}: {explain(error, ())}") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


class Scorer:
    """Scores rows that have the columns of a bundle's column map; other columns do not matter.

    Attributes: `inputs` (the columns that are read), `outputs` (those that `score` gives beside the id),
    `orders_a_day` of the rows that the bundle was made of, None where their times are not known.
    """

    def __init__(
        self,
        bundle: str | Path,
        threads: int | None = None,
        int8: bool = False,
        max_bytes: int = MAX_BYTES,
    ):
        """Verify and read a bundle; `threads` for the graph (None: all processors), `int8` for 8-bit weights.

        A bundle of more than `max_bytes` is refused. Raises FileNotFoundError or ValueError naming the files
        at fault.
        """
        if threads is not None and not (type(threads) is int and 1 <= threads <= MAX_THREADS):
            raise ValueError(f"threads: expected None or a whole number from 1 to {MAX_THREADS}")
        folder = Path(bundle)
        writers = verify(folder, max_bytes)
        config, self.column_map, self.features, self.calibration, texts = read_parts(folder)
        first, others = read_readers(folder, config, texts, writers)
        graph = folder / ("model.int8.onnx" if int8 else "model.onnx")
        if not graph.is_file():
            raise ValueError(f"{folder} has no 8-bit weights: save it with int8_rows, or score without int8")
        self._n_classes = n_classes = self.calibration.n_classes
        self.orders_a_day = orders_a_day(config["data"].get("splits", {}))
        pads = {key: others.get(key, first).tokenizer.pad_token for key in TEXT_KEYS}
        branches = _branches(config["model"])
        longest = {key: size for key, own in branches.items() if (size := own.get("block_size")) is not None}
        with written_by(graph, "onnxruntime", writers):
            self._graph = Graph(graph, n_classes, pads, longest, threads)
        features = self.features if TABULAR in self._graph.inputs else None
        with _naming(folder):
            readers = text_readers(self._graph.texts, first, others)
        self._encoder = RowEncoder(self.column_map, readers, features, CHARACTERS in self._graph.inputs)
        self.inputs = self._find_inputs()
        with _naming(folder):
            self._check(config["model"], {"text": first, **readers}, others)
            # A row of nothing: what does not fit shows here, not at the first order.
            self.outputs = list(self._named(self._one(dict.fromkeys(self.inputs.names))))

    def _check(
        self, model: dict[str, Any], readers: Mapping[str, Reader], others: Mapping[str, Reader]
    ) -> None:
        """Raise ValueError where the parts of the bundle are not of one model."""
        inputs, gives = self.inputs, self._graph.outputs
        foreign = [name for name in self._graph.inputs if name not in KNOWN]
        n_classes, longest = model.get("n_classes"), self._graph.longest
        known = {key: own.get("vocab_size") for key, own in _branches(model).items()}
        more = {
            f"{key}_tokenizer.json" if key in others else "tokenizer.json"
            for key, (tokenizer, _) in readers.items()
            if not _is_size(known[key]) or tokenizer.vocab_size > known[key]
        }
        twice = [name for name in inputs.numeric if name in (inputs.id, *inputs.text, *inputs.categorical)]
        faults = {
            f"the graph reads {foreign}, which n3r does not know": foreign,
            f"the graph gives {gives} in place of probs": gives != [PROBS],
            f"its features read {twice} as numbers, which are text": twice,
            "its features read names that are patterns": any(map(is_pattern, inputs.names)),
            "config.json and calibration.json are of other classes": n_classes != self._n_classes,
            "config.json has a block_size that is not a length": not all(map(_is_size, longest.values())),
            f"{', '.join(sorted(more))} has more tokens than config.json says": more,
        }
        if wrong := [fault for fault, found in faults.items() if found]:
            raise ValueError(f"the files are not those of one model: {'; '.join(wrong)}")

    def _check_class(self, of_class: int) -> None:
        if type(of_class) is not int or not 0 <= of_class < self._n_classes:
            raise ValueError(f"of_class: expected a whole number from 0 to {self._n_classes - 1}")

    def _find_inputs(self) -> Inputs:
        columns = self.column_map
        texts = columns.all_text
        if TABULAR not in self._graph.inputs:
            return Inputs(columns.id, texts, [], [])
        identity = self.features.identity
        read = ([], []) if identity is None else (identity.text_, identity.numbers)
        texts, numeric = (
            list(dict.fromkeys([*own, *also]))
            for own, also in zip((texts, self.features.numeric), read, strict=True)
        )
        return Inputs(columns.id, texts, numeric, self.features.categorical, columns.number_format)

    def score(self, rows: Rows) -> pl.DataFrame:
        """The id of each row (`schema.id_name`) and, in their order, `score`, `p_calibrated`, `percentile`.

        With two classes `score` is the model's probability of class 1, `p_calibrated` the same after
        calibration on the validation rows, and `percentile` says how little of that traffic scored as high.
        With more classes they are `score_<c>` and `p_calibrated_<c>`. Without calibration there are scores
        alone.

        Warns of columns most of whose categories training did not see. Raises ValueError naming every column
        that is missing or of a wrong type, or the first cells that are.
        """
        unseen = self.unseen()
        parts = portions(rows) if isinstance(rows, RowsInParts) else [rows]
        scores = pl.concat(self.score_typed(self._typed(part, unseen)) for part in parts)
        unseen.warn()
        return scores

    def _typed(self, frame: pl.DataFrame, unseen: Unseen) -> pl.DataFrame:
        """The columns that are read, checked, and counted."""
        if not isinstance(frame, pl.DataFrame):
            raise ValueError(f"expected a polars DataFrame, found {type(frame).__name__}: see pl.from_pandas")
        rows, problems = typed(frame, self.inputs)
        if problems:
            shown = "; ".join(f"row {row + 1}, column {column!r}: {why}" for row, column, why in problems[:5])
            raise ValueError(f"{len(problems)} cells cannot be read: {shown}")
        unseen.count(rows)
        return rows

    def unseen(self) -> Unseen:
        """What counts rows of categories that training did not see."""
        return Unseen(self.features.risk_tables_.values() if TABULAR in self._graph.inputs else ())

    def score_typed(self, rows: pl.DataFrame) -> pl.DataFrame:
        """`score` of rows that `typed` or `read_chunks` gave."""
        scores = self._named(self.probabilities(self.encode(rows)))
        columns = (pl.Series(name, values) for name, values in scores.items())
        id = self.inputs.id
        return rows.select(pl.col(id).alias(id_name(id))).with_columns(columns)

    def encode(self, rows: pl.DataFrame) -> Encoded:
        """Rows that `typed` or `read_chunks` gave, as the model reads them."""
        return self._encoder.frame(rows)

    def probabilities(self, rows: Encoded) -> np.ndarray:
        """(N, C) float32 of rows that `encode` gave."""
        return self._graph.probabilities(rows)

    def score_one(self, order: Mapping[str, Any], output: str | None = None) -> float:
        """The first of `outputs`, or another, of one order: column -> text, number or None.

        Raises ValueError as `score` does. The id need not be there.
        """
        values = typed_row(order, self.inputs)
        scores = self._named(self._one(values))
        if (output or self.outputs[0]) not in scores:
            raise ValueError(f"this model gives no {output!r}; it gives {', '.join(scores)}")
        return float(scores[output or self.outputs[0]][0])

    def explain_one(self, order: Mapping[str, Any], of_class: int = 1) -> pl.DataFrame:
        """What each input column adds to the score of one order, largest first.

        Columns: `input`, `role`, `is_missing`, `score_without` (with a missing value in its place) and
        `contribution`, the score less that. Exact for any model and no more than it says: contributions of
        columns that say the same thing are small each, and they do not sum to the score. Raises ValueError as
        `score_one` does, and for a class that there is not.
        """
        self._check_class(of_class)
        inputs = self.inputs
        values = typed_row(order, inputs)
        roles = {"text": inputs.text, "number": inputs.numeric, "category": inputs.categorical}
        names = list(dict.fromkeys(name for names in roles.values() for name in names))
        rows = [values, *({**values, name: None} for name in names)]
        score, *without = self._graph.probabilities(self._encoder.rows(rows))[:, of_class].tolist()
        table = pl.DataFrame(
            {
                "input": names,
                "role": [", ".join(role for role in roles if name in roles[role]) for name in names],
                "is_missing": [values[name] is None for name in names],
                "score_without": without,
            }
        ).with_columns(contribution=score - pl.col("score_without"))
        return table.sort(pl.col("contribution").abs(), descending=True, maintain_order=True)

    def reasons(self, order: Mapping[str, Any], n: int = 3, of_class: int = 1) -> pl.DataFrame:
        """What the features of one order say, in words: the `n` that move its score most.

        Columns: `reason`, which shows nothing of the strings; `score_without`, with the usual value in the
        feature's place, by default the training rows' median; `contribution`, the score less that. A model
        that reads texts alone has no reasons. Raises ValueError as `explain_one`, and for an `n` below 1.
        """
        self._check_class(of_class)
        if type(n) is not int or n < 1:
            raise ValueError("n: expected a whole number from 1")
        row = self._encoder.rows([typed_row(order, self.inputs)])
        (found,) = find_reasons(self._graph, self._encoder.features, row, n, of_class)
        return pl.DataFrame(found, REASONS, orient="row")

    def decide(self, frame: pl.DataFrame, rule: Rule, reasons: int = 0) -> pl.DataFrame:
        """`score`, and by a rule `decision`, "flag" or "pass", and `rank`, 1 for the highest score.

        With `reasons` the flagged rows also get `reason_1` .., the features that raise their score most.
        Raises ValueError as `score` and `decision` do.
        """
        decision = self.decision(rule)
        unseen = self.unseen()
        rows = self._typed(frame, unseen)
        unseen.warn()
        decided = self.decide_typed(rows, decision, reasons)
        return decided.with_columns(ranks(decided["score"]))

    def decision(self, rule: Rule) -> Decision:
        """The threshold of a rule; ValueError for more than two classes and where none can be chosen."""
        if self._n_classes > 2:
            raise ValueError(f"decisions are of two classes; this model has {self._n_classes}")
        if rule.threshold is not None:
            return Decision(rule.threshold)
        if self.calibration.ranking is None:
            raise ValueError("this bundle keeps no ranking to choose a threshold by: give a threshold")
        return self.calibration.ranking.decide(rule, self.orders_a_day)

    def decide_typed(self, rows: pl.DataFrame, decision: Decision, reasons: int) -> pl.DataFrame:
        """`decide` of rows that `typed` or `read_chunks` gave, without ranks."""
        scored = self.score_typed(rows)
        flagged = decision.flags(scored["score"].to_numpy())
        found: list[list[Reason]] = [[] for _ in flagged]
        if reasons and flagged.any():
            encoded, features = self.encode(rows.filter(flagged)), self._encoder.features
            told = find_reasons(self._graph, features, encoded, reasons, raising=True)
            for at, own in zip(np.flatnonzero(flagged), told, strict=True):
                found[at] = own
        said = pl.Series("decision", np.where(flagged, "flag", "pass"), pl.String)
        return scored.with_columns(said, *reason_columns(found, reasons))

    def _one(self, values: Mapping[str, Any]) -> np.ndarray:
        """Probabilities (1, C) of one row."""
        return self._graph.run(self._encoder.rows([values]), [0])

    def _named(self, p: np.ndarray) -> dict[str, np.ndarray]:
        """Probabilities (N, C) as the columns of `outputs`, float32."""
        kinds = {"score": p}
        if self.calibration.log_loss:
            kinds["p_calibrated"] = self.calibration.calibrated(p)
        if self._n_classes > 2:
            named = {f"{kind}_{c}": values[:, c] for kind, values in kinds.items() for c in range(p.shape[1])}
        else:
            named = {kind: values[:, 1] for kind, values in kinds.items()}
            percentile = self.calibration.percentile(p[:, 1])
            named |= {} if percentile is None else {"percentile": percentile}
        return {name: values.astype(np.float32) for name, values in named.items()}


def _branches(model: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """What config.json says of each text's branch, by the batch key of the text's ids."""
    second = model.get("secondary")
    return {
        "text": model,
        "secondary": second if isinstance(second, dict) else model,
        "pretrained": {"vocab_size": model.get("pretrained_vocab_size")},
    }


def ranks(score: pl.Series) -> pl.Series:
    """The column `rank` of rows, 1 for the highest score; tied rows have the first of theirs."""
    return score.rank("min", descending=True).alias("rank")


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 < value < 2**31
