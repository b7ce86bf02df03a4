"""`n3r tune`: the search for parameters of a step, on the validation rows of a run."""

import os
from pathlib import Path
from typing import Annotated

from typer import Argument, Option, echo

from n3r import pipeline
from n3r.files import lock
from n3r.files.json_io import read_json, write_json
from n3r.notebook import checked_name, reports_folder
from n3r.terminal import resumable

TUNED = ("03_train_lstm2risk", "04_train_transformer2risk", "09_best")


def tune(
    step: Annotated[str, Argument(help="03, 04 or 09")],
    trials: Annotated[
        int, Option(help="how many sets of parameters are tried in all, earlier ones counted")
    ] = 20,
    minutes: Annotated[float | None, Option(help="begin no more after so many, and end the last one")] = None,
    name: Annotated[str | None, Option(help="the run whose rows are taken; default: the size's")] = None,
    size: Annotated[str, Option(help="what is changed: dev, quick, full, or a file like theirs")] = "quick",
    space: Annotated[
        Path | None, Option(help="parameters and their values (JSON), over the step's own")
    ] = None,
    region: Annotated[str | None, Option(help="settings of a region, as in `n3r run`")] = None,
    p: Annotated[list[str] | None, Option("-p", help="KEY=VALUE, a parameter as in `n3r run`")] = None,
) -> None:
    """Search for better parameters of a step with Optuna; only training and validation rows are read.

    The same command goes on from the trials that are done.
    """
    import optuna  # noqa: F401 - where it is not there, say so first

    from n3r.report.tuning import headline, write_tuning
    from n3r.studies.tuning import Task, described, read_space, search

    if trials < 1 or (minutes is not None and not minutes > 0):
        raise ValueError("--trials must be 1 or more, and --minutes above 0")
    step = pipeline.notebook_path(step).stem
    if step not in TUNED:
        raise ValueError(f"there is nothing to tune in {step}, only in {', '.join(TUNED)}")
    run = pipeline.ROOT / "runs" / checked_name(name or pipeline.size_file(size).stem.removeprefix("size_"))
    if not (run / "tokenizer" / "tokenizer.json").is_file():
        raise ValueError(f"{run} has no prepared rows and tokenizer: n3r run 02 --name {run.name} makes them")
    [chosen] = [one for one in pipeline.STEPS if one.name == step]
    parameters = pipeline.resolve_parameters(size, {}, p or [], [chosen], region)[step]
    values = read_space(step, parameters, space)
    with resumable(), lock.held(run):
        task = Task(run, step, parameters, values)
        found = search(task, trials, minutes, lambda trial: echo(task.line(trial, trials), err=True))
        content, best = described(task, *found)
        page = write_tuning(content, reports_folder(run), f"tune_{step}")
        write_json(task.folder / "size.json", read_json(pipeline.size_file(size)) | {step: best})
    echo(headline(content))
    echo(f"report: {page}", err=True)
    found_size = os.path.relpath(task.folder / "size.json")
    echo(f"to run with it: n3r run {step[:2]} --name {run.name} --size {found_size}", err=True)
