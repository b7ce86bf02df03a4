"""`n3r import-features` and `n3r import-legacy`: what the legacy left behind, taken over."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option, echo

from n3r.commands.map import ORDERS, MapFile
from n3r.files.json_io import write_json


def import_legacy(
    state_dict: Annotated[Path, Argument(help="a legacy models/model_{epoch}.pt")],
    model_class: Annotated[str, Option(help="lstm2risk or transformer2risk")],
    tokenizer: Annotated[Path, Option(help="the legacy's tokenizer.json")],
    features: Annotated[Path, Option(help="its feature columns in the weights' order, one a line")],
    output: Annotated[Path, Option("-o", "--output", help="the bundle to write")],
    map: MapFile = None,
) -> None:
    """Make a bundle of the legacy's weights; it scores as the legacy did."""
    from n3r.legacy.layouts import import_legacy
    from n3r.schema import ColumnMap

    column_map = ColumnMap.from_file(map or ORDERS)
    import_legacy(state_dict, model_class, tokenizer, features, column_map).save(output)
    echo(f"bundle: {output}", err=True)


def import_features(
    lists: Annotated[list[Path], Argument(help="the legacy's features/*.txt, one column a line")],
    output: Annotated[Path, Option("-o", "--output", help="the column map to write")],
    data: Annotated[
        list[str] | None, Option(help="rows: listed columns that they do not have as numbers are left out")
    ] = None,
    map: MapFile = None,
) -> None:
    """Write a column map whose numeric columns are those that all of the legacy's lists name."""
    from n3r.legacy.feature_lists import common_features, with_features
    from n3r.schema import ColumnMap

    column_map = ColumnMap.from_file(map or ORDERS)
    column_map, left_out = with_features(column_map, common_features(lists), data or [])
    write_json(output, column_map.model_dump(exclude_defaults=True))
    for name, why in left_out.items():
        echo(f"left out {name!r}: {why}", err=True)
    echo(f"{len(column_map.numeric)} numeric columns, {len(left_out)} left out: {output}", err=True)
