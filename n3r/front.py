"""The package in three lines: `n3r.fit` gives a model that scores, decides, explains; `n3r.load` reads one.

Decisions:
- A frame is one of polars, pandas, pyarrow or whatever else narwhals reads, its index left aside; what comes
  back is a polars frame.
- What is fitted is what `n3r run --goal model` fits at its default size, through the functions that it calls.
- A row of the frame is an order that is kept: only rows without a label, or of an id that repeats, are not.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from shutil import copytree
from typing import TYPE_CHECKING, Any

import polars as pl

from n3r.files.atomic import atomic_folder
from n3r.files.json_io import explain, near, read_json
from n3r.files.manifest import MANIFEST
from n3r.files.places import SHIPPED
from n3r.rows.values import texts_of
from n3r.schema import LABEL, SPLITS, ColumnMap
from n3r.score import Scorer
from n3r.thresholds import Rule

if TYPE_CHECKING:
    from n3r.blend.recipe import Blend
    from n3r.preprocess import Prepared

VAL, MAX_TEST = 0.15, 0.7
TEST = 0.15  # share of the rows that the report and the leaderboard are made on
NO_ID = "row"  # the made id column's name, unless a user's is called so


def fit(  # noqa: PLR0913 - one argument a role
    frame: Any,
    map: ColumnMap | Mapping[str, Any] | str | Path | None = None,
    *,
    label: str | None = None,
    text: Sequence[str] = (),
    id: str | None = None,
    time: str | None = None,
    categorical: Sequence[str] = (),
    amount: str | None = None,
    test: float = TEST,
    seed: int = 0,
    accept: Sequence[str] = (),
    **settings: Any,
) -> "Model":
    """The best recipe fitted on a frame of orders.

    Either a column map (`schema.ColumnMap`, its keys, or its file), or the columns: the label, whose rarer
    value is fraud unless it is 0 and 1, and the identity strings; an id (else the rows are numbered), a time
    (else rows are split at random), categories, and what an order is worth; every numeric column is a
    feature. The share `test` of the rows is left out for the report; 0 for none. Rows are checked as a run's
    are: `accept` names severe findings that are meant. `settings` are those of `blend.config.BlendConfig`;
    networks have the dimensions of configs/size_quick.json unless it is given others.
    Raises ValueError in one sentence for what cannot be fitted.
    """
    from pydantic import ValidationError

    from n3r.blend.config import BlendConfig
    from n3r.preprocess import PrepareConfig, prepare

    rows = to_polars(frame)
    if (map is None) == (label is None):
        raise ValueError("n3r.fit takes a column map, or label and text: one of the two")
    if map is None:
        rows, columns = _described(rows, label, text, id, time, categorical, amount)
    else:
        columns = _map_of(map)
    try:
        config = BlendConfig(seed=seed, **{"networks": _quick(), **settings})
    except ValidationError as error:
        raise ValueError(f"n3r.fit: {explain(error, BlendConfig.model_fields)}") from None
    if not 0 <= test <= MAX_TEST:
        raise ValueError(f"test: expected a share from 0 to {MAX_TEST}")
    shares = PrepareConfig(train=1 - VAL - test, val=VAL, test=test, seed=seed)
    prepared = prepare(rows.lazy(), columns, shares, rows.height)
    _check(prepared, accept, seed)
    return _fit(prepared.splits, prepared.column_map, config)


def _quick() -> dict[str, dict[str, Any]]:
    """Dimensions and training of the networks at the size "quick"; as published they take minutes a fit."""
    from n3r.blend.members import NETWORKS

    found = read_json(SHIPPED / "configs" / "size_quick.json")["09_best"]
    return {name: values for name, values in found.items() if name in NETWORKS}


def _check(prepared: "Prepared", accept: Sequence[str], seed: int) -> None:
    """ValueError in one sentence for the first severe finding of rows that is not accepted by its name."""
    from n3r.checks import check_rows, severe_of

    found = severe_of(check_rows(prepared, seed=seed)["preparation"]["findings"])
    if left := [one for one in found if one.name not in accept]:
        more = f" (and {len(left) - 1} more)" if len(left) > 1 else ""
        raise ValueError(
            f"the rows are not to be trained on: {left[0].what}{more}; {left[0].advice}; or accept what is "
            f"meant: accept={[one.name for one in found]}"
        )


def load(folder: str | Path) -> "Model":
    """A model that `Model.save` or a run wrote; raises FileNotFoundError or ValueError as `Scorer` does."""
    return Model(Path(folder), Scorer(folder))


@dataclass(frozen=True, eq=False)
class Model:
    """A bundle that scores frames; one that was fitted here also reports on its test rows."""

    folder: Path
    scorer: Scorer
    splits: Mapping[str, pl.DataFrame] | None = None
    blend: "Blend | None" = None
    aside: Any = None  # a temporary folder that lives as long as the model

    def score(self, frame: Any) -> pl.DataFrame:
        """`Scorer.score` of a frame; without an id column the rows are numbered."""
        return self.scorer.score(self._rows(frame))

    def decide(self, frame: Any, reasons: int = 0, **rule: Any) -> pl.DataFrame:
        """`Scorer.decide` by fpr, budget, cost_missed with cost_alarm, or threshold."""
        return self.scorer.decide(self._rows(frame), Rule.of(**rule), reasons)

    def explain(self, order: Mapping[str, Any] | Any, n: int = 5) -> pl.DataFrame:
        """The `n` reasons of one order, a dict or a frame of one row: `Scorer.reasons`."""
        if not isinstance(order, Mapping):
            rows = to_polars(order)
            if rows.height != 1:
                raise ValueError(f"explain takes one order, found {rows.height} rows")
            order = rows.row(0, named=True)
        return self.scorer.reasons(order, n)

    def leaderboard(self) -> pl.DataFrame:
        """The blend and its members by how they rank test rows; ValueError for a bundle that has none."""
        rows = read_json(self.folder / "metrics.json").get("leaderboard")
        if not rows:
            raise ValueError(f"{self.folder} has no leaderboard: n3r.fit makes one")
        return pl.DataFrame(rows, infer_schema_length=None)

    def report(self, folder: str | Path = "report") -> Path:
        """Write the evaluation on the test rows as a page into a folder; its path.

        Raises ValueError for a model that was loaded: a bundle holds no rows.
        """
        from n3r.report.evaluation import report_model

        if self.splits is None or self.blend is None or not len(self.splits["test"]):
            raise ValueError(
                "a report needs the test rows, which a bundle does not hold: call it after n3r.fit"
            )
        held = self.blend.predictions(self.blend.held, self.blend.held_probs)
        members = {name: found.p for name, found in self.blend.measure(self.splits["test"]).items()}
        page = Path(folder) / "report.html"
        return report_model("best recipe", self.scorer, self.splits, held, members, page)

    def save(self, folder: str | Path) -> Path:
        """Copy the bundle, which `load` and `n3r score` read; ValueError where something is there already."""
        if Path(folder).exists():
            raise ValueError(f"{folder} is there already: choose another folder, or remove it")
        with atomic_folder(Path(folder), "the bundle", MANIFEST) as aside:
            copytree(self.folder, aside, dirs_exist_ok=True)
        return Path(folder)

    def __repr__(self) -> str:
        return f"n3r.Model({self._figure()})"

    def _repr_html_(self) -> str:
        board = read_json(self.folder / "metrics.json").get("leaderboard")
        table = (
            "" if not board else self.leaderboard().with_columns(pl.col(pl.Float64).round(3))._repr_html_()
        )
        return f"<p><b>n3r model</b>: {escape(self._figure())}</p>{table}"

    def _figure(self) -> str:
        test = read_json(self.folder / "metrics.json").get("test", {})
        if test.get("auroc") is None:
            return "not measured"
        low, high = test["auroc_low"], test["auroc_high"]
        return f"test AUROC {test['auroc']:.3f} [{low:.3f}, {high:.3f}] on {test['n']:,} orders"

    def _rows(self, frame: Any) -> pl.DataFrame:
        rows, id = to_polars(frame), self.scorer.inputs.id
        return rows if id in rows.columns or id != NO_ID else rows.with_row_index(NO_ID)


def to_polars(frame: Any) -> pl.DataFrame:
    """A table of polars, pandas, pyarrow or the like as polars'; ValueError for anything else."""
    import narwhals

    if isinstance(frame, pl.LazyFrame):
        return frame.collect()
    if isinstance(frame, pl.DataFrame):
        return frame
    kind = f"{type(frame).__module__.partition('.')[0]}.{type(frame).__name__}"
    if not narwhals.dependencies.is_into_dataframe(frame):
        raise ValueError(f"expected a table of polars, pandas or pyarrow, found {kind}")
    try:
        return narwhals.from_native(frame, eager_only=True).to_polars()
    except ImportError:
        raise ValueError(f"reading a {kind} needs pyarrow: pip install pyarrow") from None
    except Exception:  # of each library its own, and its text may quote a cell
        raise ValueError(
            f"the {kind} cannot be read: its columns need names of their own and one type each"
        ) from None


def _map_of(map: ColumnMap | Mapping[str, Any] | str | Path) -> ColumnMap:
    from pydantic import ValidationError

    if isinstance(map, ColumnMap):
        return map
    if not isinstance(map, Mapping):
        return ColumnMap.from_file(map)
    try:
        return ColumnMap(**map)
    except ValidationError as error:
        raise ValueError(f"the column map: {explain(error, ColumnMap.model_fields)}") from None


def _described(
    rows: pl.DataFrame,
    label: str,
    text: Sequence[str],
    id: str | None,
    time: str | None,
    categorical: Sequence[str],
    amount: str | None,
) -> tuple[pl.DataFrame, ColumnMap]:
    """The rows, with an id where they had none, and the map of columns that are named one by one."""
    text, categorical = ([names] if isinstance(names, str) else list(names) for names in (text, categorical))
    named = [label, *text, *categorical, *(name for name in (id, time, amount) if name is not None)]
    if absent := [name for name in named if name not in rows.columns]:
        raise ValueError(f"the frame has no column {absent[0]!r}{near(absent[0], rows.columns)}")
    if id is None:
        if NO_ID in rows.columns:
            raise ValueError(
                f"name the id column: the frame has a column {NO_ID!r}, which numbered rows would be"
            )
        id, rows = NO_ID, rows.with_row_index(NO_ID)
    counts = texts_of(rows[label]).drop_nulls().value_counts(sort=True)
    values = counts[:, 0].to_list()
    if len(values) != 2:
        raise ValueError(
            f"the label column {label!r} has {len(values)} values, two are needed: or give a column map"
        )
    classes = {"0": 0, "1": 1} if set(values) == {"0", "1"} else {values[0]: 0, values[1]: 1}
    content = {
        "id": id,
        "text": text,
        "label": label,
        "label_values": classes,
        "time": time,
        "numeric": ["*"],
        "categorical": categorical,
        "amount": amount,
        "split_by": "random" if time is None else "time",
        "other_labels": "drop",
    }
    return rows, _map_of(content)


def _fit(splits: Mapping[str, pl.DataFrame], columns: ColumnMap, config: Any) -> Model:
    """The tokenizer, the blend and its bundle, in a folder that goes with the model."""
    from n3r import steps
    from n3r.blend.recipe import fit_blend
    from n3r.blend.weights import blended
    from n3r.bundle import Recipe
    from n3r.features import TabularFeatures
    from n3r.vocabulary import TokenizerConfig, train_tokenizer

    aside = tempfile.TemporaryDirectory(prefix="n3r-")
    folder = Path(aside.name)
    texts = splits["train"].select(columns.all_text)
    tokenizer, _ = train_tokenizer(texts, TokenizerConfig(seed=config.seed))
    data = {"source": "a frame", "n_rows": sum(len(splits[name]) for name in SPLITS)}
    recipe = Recipe(tokenizer, TabularFeatures(), columns, data=data)
    blend = fit_blend(splits, recipe, config, folder / "training")
    alone = blend.measure(splits["test"]) if len(splits["test"]) else {}
    measured: dict[str, Any] = {
        "val": steps.measure(blend.held[LABEL], blend.held_probs),
        "leaderboard": steps.member_records(blend, splits["test"], alone),
    }
    if alone:
        probs = blended({member: found.p for member, found in alone.items()}, blend.weights)
        measured["test"] = steps.measure(splits["test"][LABEL], probs)
    blend.save(folder / "model", measured)
    return Model(folder / "model", Scorer(folder / "model"), splits, blend, aside)
