"""`n3r run`, and what its notebooks take: `n3r params`; `n3r refresh` renews the committed ones."""

import os
import re
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option, echo

from n3r import pipeline
from n3r.commands.map import map_for_run
from n3r.files.formats import split_region
from n3r.files.json_io import write_json
from n3r.files.manifest import sha256, versions
from n3r.files.places import SHIPPED
from n3r.notebook import checked_name
from n3r.terminal import print_table, result_of, resumable, say_results

Region = Annotated[
    str | None, Option(help="settings of configs/hyperparameters_REGION.json, over the size's and under -p's")
]
GOALS = {"model": "09_best", "parity": "05_parity", "all": pipeline.DEFAULT}


def run(  # noqa: PLR0913 - one argument an option
    steps: Annotated[
        list[str] | None, Argument(help="steps, such as 06; default: 08 and what it needs")
    ] = None,
    size: Annotated[
        str, Option(help="dev, quick or full: size of models and synthetic data; or a file like theirs")
    ] = "quick",
    data: Annotated[
        list[str] | None, Option(help="file, folder or REGION=path; repeatable. Default: synthetic orders")
    ] = None,
    map: Annotated[
        Path | None,
        Option(help="column map (JSON); default: the notebook's if it fits, else one is proposed"),
    ] = None,
    name: Annotated[str | None, Option(help="results go to runs/NAME and reports/NAME")] = None,
    region: Region = None,
    goal: Annotated[
        str | None,
        Option(help="in place of steps: model (the best recipe, no legacy), parity, or all: the default"),
    ] = None,
    engine: Annotated[str | None, Option(help="disk, ray or spark: -p engine=..; see docs/scale.md")] = None,
    address: Annotated[str | None, Option(help="of the cluster, HOST:PORT or spark://HOST:PORT")] = None,
    memory: Annotated[str | None, Option(help="of the engine, such as 64GB: -p memory=..")] = None,
    p: Annotated[list[str] | None, Option("-p", help="KEY=VALUE, a parameter; see `n3r params`")] = None,
) -> None:
    """Prepare orders, train both models, compare them with the legacy, evaluate them, write the reports.

    `n3r run 06` trains all model classes side by side, on messages.
    """
    from n3r.schema import ColumnMap
    from n3r.tables import scan

    options = {"engine": engine, "address": address, "memory": memory}
    p = [*(f"{key}={value}" for key, value in options.items() if value), *(p or [])]
    words = [_stem(data[0])] if data else []
    words += [pipeline.size_file(size).stem.removeprefix("size_"), *([region] if region else [])]
    name = checked_name(name or "-".join(words))
    chosen = pipeline.with_needs(_chosen(steps, goal))
    folder = pipeline.ROOT / "runs" / name
    default = _default_map(chosen[0])
    map_file = (map or (map_for_run(data, default, folder / "map.json") if data else default)).resolve()
    column_map = ColumnMap.from_file(map_file)
    if column_map.n_classes > 2 and (binary := [step.name for step in chosen if step.binary_only]):
        raise ValueError(
            f"{map_file} has {column_map.n_classes} classes, and {', '.join(binary)} is binary only: "
            "leave it out, or map the labels to two classes"
        )
    first = chosen[0].name
    given: dict[str, Any] = {f"{first}.column_map": str(map_file)}
    if data:
        given[f"{first}.data"] = [_absolute(item) for item in data]
    parameters = pipeline.resolve_parameters(size, given, p, chosen, region)
    if (p or region) and any("optimizer" in values for values in parameters.values()):
        from n3r.steps import check_training  # which imports torch

        check_training(parameters)
    inputs = [map_file]
    if data:
        inputs += scan(given[f"{first}.data"], column_map, parameters[first]["max_expansion"]).files
    with resumable():
        done = pipeline.run_steps(folder, parameters, inputs, chosen, partial(result_of, folder))
    made_by = {"versions": versions(), "processors": os.cpu_count()}
    hashes = {str(path): sha256(path) for path in inputs}
    provenance = {"name": name, "size": size, "region": region, **made_by, "inputs": hashes, "steps": done}
    write_json(folder / "provenance.json", provenance)
    say_results(folder, done)


def params(
    notebook: Annotated[
        str | None, Argument(help="a step's name or number, such as 03; default: those that --region sets")
    ] = None,
    size: Annotated[
        str | None, Option(help="what results at a size; with --region: quick by default")
    ] = None,
    region: Region = None,
) -> None:
    """List a notebook's parameters with their defaults, or with what a size and a region make of them."""
    if notebook:
        names = [pipeline.notebook_path(notebook).stem]
    elif region:
        names = list(dict.fromkeys(key.partition(".")[0] for key, _ in pipeline.regional(region)))
    else:
        raise ValueError("name a step, such as 03, or give --region")
    resolved = pipeline.resolve_parameters(size or "quick", {}, [], None, region)
    for step in names:
        found = pipeline.notebook_parameters(step)
        values = {name: spec["default"] for name, spec in found.items()}
        values |= resolved[step] if size or region else {}
        echo(step)
        rows = ((name, repr(values[name]), spec["help"]) for name, spec in found.items())
        print_table(("parameter", "value" if size or region else "default", "meaning"), rows)


def refresh() -> None:
    """Run the notebooks at dev size and keep the outputs in them, as they are committed."""
    for step in pipeline.STEPS:
        pipeline.refresh_notebook(step.name)
        echo(f"{step.name} refreshed", err=True)


def _stem(item: str) -> str:
    """What a run on a data item is called: "orders (1).csv" is orders_1."""
    stem = Path(split_region(item)[1]).name.split(".")[0]
    return re.sub(r"[^A-Za-z0-9_-]+", "_", stem).strip("_-") or "data"


def _chosen(steps: list[str] | None, goal: str | None) -> list[str]:
    """The steps that are asked for by name or by a goal."""
    if steps and goal:
        raise ValueError(f"give steps or --goal {goal}, not both")
    if goal and goal not in GOALS:
        raise ValueError(f"--goal takes {', '.join(GOALS)}, not {goal!r}")
    return steps or [GOALS[goal or "all"]]


def _default_map(step: pipeline.Step) -> Path:
    """The column map of a step's parameters cell, which n3r is shipped with."""
    return SHIPPED / pipeline.notebook_parameters(step.name)["column_map"]["default"]


def _absolute(item: str) -> str:
    """A data item with its path made absolute; the notebooks run in another folder."""
    region, place = split_region(item)
    path = str(Path(place).expanduser().resolve())
    return path if region is None else f"{region}={path}"
