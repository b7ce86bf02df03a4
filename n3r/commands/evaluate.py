"""`n3r evaluate` and `n3r compare`: scored rows judged by their labels, alone and beside others."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option, echo

from n3r.commands.map import ORDERS, MapFile
from n3r.files.formats import as_folder
from n3r.files.lock import alone

if TYPE_CHECKING:
    from n3r.schema import ColumnMap

Orders = Annotated[list[Path] | None, Option(help="raw orders with labels and columns, by id; repeatable")]
Column = Annotated[str, Option(help="the column of scores in a file")]


def evaluate(
    scores: Annotated[
        Path, Argument(help="a model of a run (runs/quick/lstm2risk), a score file, or a folder of some")
    ],
    output: Annotated[Path, Option("-o", "--output", help="the report's folder")] = Path("evaluation"),
    orders: Orders = None,
    map: MapFile = None,
    validation: Annotated[
        Path | None, Option(help="scored rows to choose thresholds on; default: these")
    ] = None,
    reference: Annotated[
        Path | None, Option(help="scored rows of training, or earlier ones: what has moved?")
    ] = None,
    column: Column = "score",
    p: Annotated[
        list[str] | None, Option("-p", help="KEY=VALUE: fpr, cost_missed, cost_alarm, n_slices, seed")
    ] = None,
) -> None:
    """Report on one model's scores: what it catches, what it costs, calibration, drift, errors, fairness."""
    from n3r.evaluation.evaluate import EvaluationConfig, evaluate_model
    from n3r.evaluation.labelled import engine_for, with_labels
    from n3r.evaluation.scored import labels_of, only_model, own_columns
    from n3r.report.evaluation import headline, write_evaluation
    from n3r.schema import LABEL, SCORE

    config, output = EvaluationConfig.from_texts(p or []), as_folder(output)
    column_map, id = _column_map(map, orders)
    tables = [only_model(place, column, id) if place else None for place in (scores, validation, reference)]
    with alone(output) as place:
        if orders:
            tables = [
                None
                if table is None
                else with_labels(table, orders, column_map, engine_for(orders, place / str(i)))
                for i, table in enumerate(tables)
            ]
        test, val, train = tables
        labels_of({str(scores): test})
        of_orders = column_map if orders else None
        content = {"name": scores.stem, **evaluate_model(test, config, of_orders, val, train)}
        own = own_columns(test)
    page = write_evaluation(content, {scores.stem: (own[LABEL] > 0, own[SCORE])}, output, "evaluation")
    echo(headline(content))
    echo(f"report: {page}", err=True)


def compare(
    a: Annotated[Path, Argument(help="a run, a model of a run (runs/quick/lstm2risk) or a score file")],
    b: Annotated[Path, Argument(help="another; where both are runs, models of one name are compared")],
    output: Annotated[Path, Option("-o", "--output", help="folder for the report")] = Path("comparison"),
    margin: Annotated[float, Option(help="AUC difference that counts as none")] = 0.01,
    fpr: Annotated[float, Option(help="share of legitimate orders that each may flag")] = 0.01,
    column: Column = "score",
    orders: Orders = None,
    map: MapFile = None,
) -> None:
    """Compare two runs or score files on the same rows: AUC, equivalence, decisions, overlaid curves."""
    from n3r.evaluation.comparison import compare_models
    from n3r.evaluation.labelled import with_labels
    from n3r.evaluation.scored import scored_models
    from n3r.report.comparison import verdict, write_comparison

    (column_map, id), output = _column_map(map, orders), as_folder(output)
    models = [scored_models(place, column, id) for place in (a, b)]
    if orders:
        read = partial(with_labels, orders=orders, column_map=column_map, wide=False)
        models = [{name: read(table) for name, table in tables.items()} for tables in models]
    content, scores = compare_models(*models, names=_apart(a, b), margin=margin, fpr=fpr)
    page = write_comparison(content, scores, output)
    echo(verdict(content["comparisons"]))
    echo(f"report: {page}", err=True)


def _column_map(path: Path | None, orders: list[Path] | None) -> "tuple[ColumnMap | None, str | None]":
    """The map that is given or that of orders, and what score files call its id; None without either."""
    from n3r.schema import ColumnMap, id_name

    if not (path or orders):
        return None, None
    column_map = ColumnMap.from_file(path or ORDERS)
    return column_map, id_name(column_map.id)


def _apart(a: Path, b: Path) -> tuple[str, str]:
    """The shortest endings of two paths that differ; ValueError where the paths do not."""
    if a.resolve() == b.resolve():
        raise ValueError(f"both are {a}: there is nothing to compare")
    paths = [path.resolve() for path in (a, b)]
    bare = [path.with_suffix("") if path.is_file() else path for path in paths]
    ends = [path.parts[::-1] for path in (bare if bare[0] != bare[1] else paths)]
    n = 1 + next(i for i, (x, y) in enumerate(zip(*ends, strict=False)) if x != y)
    return tuple("/".join(end[:n][::-1]) for end in ends)
