"""The `n3r` command: run the notebooks, score rows, hand models on and take them over.

Exit status 0, 2 for a user's mistake, 1 for a failure of ours. Each command imports what it needs: scoring
starts without torch.
"""

import os
import re
import sys
from functools import partial
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Argument, Option, echo

from n3r import __version__, pipeline
from n3r.commands import language_model
from n3r.commands.check import check
from n3r.commands.evaluate import compare, evaluate
from n3r.commands.legacy import import_features, import_legacy
from n3r.commands.map import map_files, map_for_run
from n3r.commands.monitor import monitor
from n3r.commands.score import score
from n3r.commands.tune import tune
from n3r.files.formats import split_region
from n3r.files.json_io import without_links, write_json
from n3r.files.manifest import sha256, verify, versions
from n3r.files.places import SHIPPED
from n3r.notebook import checked_name
from n3r.terminal import AtHome, print_table, result_of, resumable, say_results

Region = Annotated[
    str | None, Option(help="settings of configs/hyperparameters_REGION.json, over the size's and under -p's")
]
BundleFolder = Annotated[Path, Option(help="the model's folder, such as runs/quick/lstm2risk")]

GOALS = {"model": "09_best", "parity": "05_parity", "all": pipeline.DEFAULT}
app = typer.Typer(cls=AtHome, no_args_is_help=True, pretty_exceptions_enable=False)
app.add_typer(language_model.lm, name="lm")
app.command(name="map")(map_files)
app.command()(check)
app.command()(monitor)
app.command()(score)
app.command()(evaluate)
app.command()(compare)
app.command()(tune)
app.command(name="import-features")(import_features)
app.command(name="import-legacy")(import_legacy)


def _say_version(asked: bool) -> None:
    if asked:
        echo(f"n3r {__version__}")
        raise typer.Exit()


@app.callback()
def _program(
    version: Annotated[
        bool, Option("--version", is_eager=True, callback=_say_version, help="print the version and end")
    ] = False,
) -> None:
    """Risk of first-order fraud from identity strings and tabular features.

    The exit status is 0; 2 for a mistake in the command or the data, in one sentence; 1 for a failure of n3r
    or of the machine; 130 where Ctrl-C ended it.
    """


@app.command(epilog=f"Steps: {', '.join(step.name for step in pipeline.STEPS)}")
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


@app.command()
def export(
    target: Annotated[Path, Argument(help="the folder or file to write")],
    bundle: BundleFolder,
    layout: Annotated[str, Option(help="sagemaker (a folder) or torchscript (a file)")],
    predictions: Annotated[Path | None, Option(help="label and score, for predict_results.pth")] = None,
) -> None:
    """Write a bundle as the published artefacts, or as TorchScript; ONNX is in the bundle."""
    if layout not in ("sagemaker", "torchscript"):
        raise ValueError(f"--layout takes sagemaker or torchscript, not {layout!r}")
    if predictions and layout != "sagemaker":
        raise ValueError("--predictions goes with --layout sagemaker")
    verify(bundle)  # before torch is imported, which takes seconds
    from n3r.bundle import Bundle
    from n3r.export import export_torchscript
    from n3r.legacy.layouts import write_sagemaker

    if layout == "sagemaker":
        write_sagemaker(bundle, target, predictions)
    else:
        export_torchscript(Bundle.load(bundle).model, target)
    echo(f"{layout}: {target}", err=True)


@app.command(name="verify")
def verify_bundle(
    bundle: Annotated[Path, Argument(help="the model's folder, such as runs/quick/lstm2risk")],
) -> None:
    """Check every file of a bundle against its checksum, and say which versions wrote it."""
    writers = verify(bundle)
    echo(f"{bundle} is whole; written with " + ", ".join(f"{name} {v}" for name, v in writers.items()))


@app.command()
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


@app.command()
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


def main() -> None:
    """The `n3r` command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a notebook's or a test's is none
            stream.reconfigure(errors="replace")  # where the locale has no such character
    try:
        app()
    except (ValueError, FileNotFoundError) as error:
        echo(f"n3r: {without_links(str(error))}", err=True)
        sys.exit(2)
    except ModuleNotFoundError as error:
        extra = "tune" if error.name == "optuna" else "train"
        echo(f"n3r: {error.name} is not installed, which this needs: pip install 'n3r[{extra}]'", err=True)
        sys.exit(2)
    except (pipeline.StepError, OSError) as error:  # a full disk, say, where nothing else names it
        echo(f"n3r: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
