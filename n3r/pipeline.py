"""The step graph and the strict notebook runner.

Decisions:
- A step is a notebook; papermill runs it. Papermill only warns of an unknown parameter and turns a tuple into
  a string, so names and types are checked here against the parameters cell before anything runs.
- A step's key is the hash of its code, the package files that it imports, its parameters, its input files
  and the metrics of the steps it needs. A finished step with the same key is skipped, so an interrupted run
  continues. The package's `report/` counts only for steps with pages: an edit of a figure trains no model
  again.
- A step is finished when its `metrics.json`, its notebook's last act, and then its `done.json` are written.
- One runner at a time works in a run's folder. Its kernels inherit the lock: the next waits for them, too.
"""

import ast
import hashlib
import json
import os
import re
import sys
import time
from collections.abc import Callable
from contextlib import chdir, suppress
from pathlib import Path
from typing import Any

import typer

from n3r.files import lock
from n3r.files.json_io import key_values, near, read_json, without_links, write_json
from n3r.files.manifest import sha256, versions
from n3r.files.places import HOME, ROOT, SHIPPED
from n3r.files.sources import fingerprint
from n3r.notebook import STEPS, Step, needed, reports_folder, typed
from n3r.presets import contradictions, settled
from n3r.process import settled_anew
from n3r.progress import SESSION, WATCHED, is_watched

SIZES = ("dev", "quick", "full")
REGIONAL = "hyperparameters_"  # how the names of the regions' files begin
PROGRESS = r"(?:[\w ]+: \w+ [\d.]+ of [^\n]*\n|\s)*"  # lines of `progress.Progress`
OPTIONS = {"name": "name", "data": "data", "column_map": "map"}  # parameters with an option of their own


DEFAULT = "08_evaluate"  # what `n3r run` runs, with the steps it needs
Parameters = dict[str, dict[str, Any]]  # step -> parameter -> value


class StepError(RuntimeError):
    """A notebook's cell failed; the message is short and names the executed notebook."""


# ---- parameters ----


def notebook_parameters(step: str) -> dict[str, dict[str, Any]]:
    """Each parameter of a step's notebook: its `default` value and the `help` of its comment."""
    from papermill import inspect_notebook

    found = inspect_notebook(notebook_path(step))
    return {
        name: {"default": ast.literal_eval(spec["default"]), "help": spec["help"]}
        for name, spec in found.items()
    }


def resolve_parameters(
    size: str,
    given: dict[str, Any],
    overrides: list[str],
    steps: list[Step] | None = None,
    region: str | None = None,
) -> Parameters:
    """All parameters of the steps of a run, of every step by default, but its name, which is its folder's.

    The notebook's defaults, over them the size's, over both what the preset has in their place, then the
    region's, then `given` to the steps that have them, then the KEY=VALUE texts.

    A key is a parameter's name, for all steps that have it, or `step.name`, where the step's number will do.
    Raises ValueError naming every key that no step has or that none of the run's reads, every value of
    another type than the default, and all that contradicts the preset. What steps that do not run are given
    is not looked at.
    """
    defaults = {
        step.name: {name: spec["default"] for name, spec in notebook_parameters(step.name).items()}
        for step in STEPS
    }
    running = [step.name for step in (STEPS if steps is None else steps)]
    chosen: Parameters = {step: dict(defaults[step]) for step in running}
    problems: list[str] = []
    told: dict[str, set[str]] = {step: set() for step in running}  # what a user gave
    sized = _settings(size_file(size))
    users = [*([] if region is None else regional(region)), *given.items(), *_given_texts(overrides).items()]
    for i, (key, value) in enumerate([*sized, *users]):
        where, _, name = key.rpartition(".")
        owners = [s for s in defaults if name in defaults[s] and (not where or where in (s, s[:2]))]
        readers = [step for step in owners if step in running]
        if isinstance(value, _Text) or not owners:
            problems += _unread(key, owners, readers, defaults)
        for step in readers:
            told[step] |= {name} if i >= len(sized) else set()
            try:
                chosen[step][name] = _typed(f"{step}.{name}", value, defaults[step][name])
            except ValueError as error:
                problems.append(str(error))
    if problems := problems or contradictions(chosen, told):
        raise ValueError("; ".join(problems))
    for values in chosen.values():
        values.pop("name", None)
    return {step: settled(values) for step, values in chosen.items()}


def regions() -> list[str]:
    """The regions that have a file of settings."""
    files = (SHIPPED / "configs").glob(f"{REGIONAL}*.json")
    return sorted(path.stem.removeprefix(REGIONAL) for path in files)


def regional(region: str) -> list[tuple[str, Any]]:
    """The settings of a region as `step.name` and value; ValueError lists the regions that have a file."""
    if region not in (known := regions()):
        raise ValueError(
            f"no configs/{REGIONAL}{region}.json; the regions with a file are {', '.join(known)}"
        )
    return _settings(SHIPPED / "configs" / f"{REGIONAL}{region}.json")


def size_file(size: str) -> Path:
    """The file of a size by its name, or that of a path; ValueError lists the names."""
    if size.endswith(".json"):
        return Path(size)
    if size not in SIZES:
        known = f"there are {', '.join(SIZES)}, and files that end in .json"
        raise ValueError(f"no size {size!r}{near(size, SIZES)}; {known}")
    return SHIPPED / "configs" / f"size_{size}.json"


def _settings(path: Path) -> list[tuple[str, Any]]:
    """The settings of a file as `step.name` and value; ValueError names the file."""
    content = read_json(path)
    if not isinstance(content, dict) or not all(isinstance(values, dict) for values in content.values()):
        raise ValueError(f"{path} must hold an object of steps, each with an object of its parameters")
    return [(f"{step}.{key}", value) for step, values in content.items() for key, value in values.items()]


def _unread(key: str, owners: list[str], readers: list[str], defaults: Parameters) -> list[str]:
    """What is wrong with a parameter that no step of a run reads."""
    if not owners:
        names = {
            f"{own}{name}" for step in defaults for name in defaults[step] for own in ("", f"{step[:2]}.")
        }
        meant = near(key, sorted(names))
        return [f"no step has the parameter {key!r}{meant}; `n3r params 03` lists those of a step"]
    return [] if readers else [f"{key} is read by {', '.join(owners)} alone, which this run does not include"]


class _Text(str):
    """A value from the command line, still to be read as the parameter's type."""


def _given_texts(overrides: list[str]) -> dict[str, _Text]:
    """The values of KEY=VALUE texts; paths are made absolute, as the notebooks run in another folder."""
    found = key_values(overrides)
    for key in found.keys() & OPTIONS.keys():
        raise ValueError(f"give {key} with --{OPTIONS[key]}, not with -p")
    for key, value in found.items():
        is_path = (Path(value).suffix == ".json" or "/" in value) and Path(value).exists()
        found[key] = _Text(Path(value).resolve() if is_path else value)
    return found


def _typed(name: str, value: Any, default: Any) -> Any:
    """`value`, read from text where it is given so, as the type of `default`; ValueError when it is none."""
    if isinstance(value, _Text) and not isinstance(default, str):
        with suppress(ValueError, RecursionError):
            value = json.loads(value)
    return typed(name, str(value) if isinstance(value, _Text) else value, default)


# ---- running ----


def with_needs(names: list[str]) -> list[Step]:
    """The steps of these names or numbers and all that they need; ValueError lists what there is."""
    return needed([notebook_path(name).stem for name in names], STEPS)


def run_steps(
    folder: Path,
    parameters: Parameters,
    inputs: list[Path],
    steps: list[Step] | None = None,
    result: Callable[[Step], str] = lambda _: "",
) -> dict[str, dict[str, Any]]:
    """Run each step that is not finished with the same key; return what each one's `done.json` says.

    `result` says in a line what a finished step has found. Raises StepError at the first failing cell, and
    ValueError with the process that runs the folder already; what was finished before stays finished.
    """
    done: dict[str, dict[str, Any]] = {}
    with lock.held(folder) as held:
        for step in STEPS if steps is None else steps:
            key = _key(step, parameters[step.name], inputs if not step.needs else [], done)
            record, state = _finished(folder, step, key), "unchanged, skipped"
            if record is None:
                typer.echo(f"{step.name} ...", err=True)
                record = _execute(folder, step, parameters[step.name], key, held)
                state = f"done in {record['seconds']:.1f} s"
            typer.echo(f"{step.name} {state}{result(step)}", err=True)
            done[step.name] = record
    return done


def _execute(folder: Path, step: Step, parameters: dict[str, Any], key: str, held: int) -> dict[str, Any]:
    import papermill
    from papermill.exceptions import PapermillExecutionError

    records = folder / "steps" / step.name
    executed = folder / "notebooks" / f"{step.name}.ipynb"
    for leftover in (*(records / name for name in ("done.json", "metrics.json", "answer.txt")), executed):
        leftover.unlink(missing_ok=True)
    for later in _rewriting(step):  # what they wrote into this step's pages goes
        (folder / "steps" / later.name / "done.json").unlink(missing_ok=True)
    executed.parent.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    try:
        papermill.execute_notebook(
            notebook_path(step.name),
            executed,
            parameters={"name": folder.name, **parameters},
            kernel_name="python3",
            cwd=executed.parent,  # where links in it are seen from
            progress_bar=False,
            stderr_file=sys.stderr,  # shows the training's progress bar
            kernel_manager_class=_kernels(folder.parents[1], held),
            shutdown_kernel="immediate",  # asked to end, a kernel would finish its cell first
        )
    except PapermillExecutionError as error:
        mistake = error.ename in ("ValueError", "FileNotFoundError", "ValidationError")
        raise (ValueError if mistake else StepError)(
            f"{step.name} failed: {without_links(error.evalue)}\nthe failing cell is marked in {executed}"
        ) from None
    except RuntimeError as error:  # nbclient's and jupyter_client's, each its own
        told = str(error).rstrip(".")
        raise StepError(
            f"the kernel of {step.name} was killed from outside ({told}): out of memory?"
        ) from None
    finally:
        _tidy(executed, records)
    metrics = records / "metrics.json"
    if not metrics.is_file():
        raise StepError(f"{step.name} ended without recording its metrics; see {executed}")
    record = {
        "key": key,
        "metrics": sha256(metrics),
        "seconds": round(time.perf_counter() - started, 2),
        **read_json(records / "resources.json"),
        "parameters": parameters,
    }
    write_json(records / "done.json", record)
    return record


def _rewriting(step: Step) -> list[Step]:
    """The later steps that write pages of this one."""
    after = STEPS[STEPS.index(step) + 1 :] if step in STEPS else ()
    return [later for later in after if {*later.pages} & {*step.pages}]


def _kernels(home: Path, *held: int) -> type:
    """The class of kernels whose runs are in `home`, and that hold the locks given as long as they live.

    They speak over files of this user's, where the default is ports that any user of the machine can read.
    """
    from jupyter_client import AsyncKernelManager

    class HoldingKernel(AsyncKernelManager):
        def __init__(self, **options: Any):
            super().__init__(transport="ipc", **options)

        async def start_kernel(self, **options: Any) -> None:
            await super().start_kernel(pass_fds=held, env=_environment(home), **options)

    return HoldingKernel


def _environment(home: Path) -> dict[str, str]:
    """Of a kernel that no notebook server started, whose runs are in `home`."""
    own = {name: value for name, value in settled_anew().items() if name not in (SESSION, WATCHED)}
    return {**own, HOME: str(home), **({WATCHED: "1"} if is_watched() else {})}


def _tidy(executed: Path, records: Path) -> None:
    """Keep the lines of a notebook's progress without its bars; put the answer into its first cell."""
    try:
        book = json.loads(executed.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):  # stopped before papermill wrote it, or while
        return
    for cell in book["cells"]:
        for output in cell.get("outputs", []):
            if output["output_type"] == "stream":
                output["text"] = text = re.sub(r"[^\n]*\r", "", "".join(output["text"]))
                if re.fullmatch(PROGRESS, text):
                    output["name"] = "stdout"  # which no reader shows in red
    put_answer(book, records)
    write_json(executed, book)


def put_answer(book: dict[str, Any], records: Path) -> None:
    """Put the answer that a step recorded behind "Answer." in its notebook's first cell."""
    path = records / "answer.txt"
    if path.is_file() and (answer := path.read_text(encoding="utf-8")):
        text = "".join(book["cells"][0]["source"])
        found = re.sub(r"(?<=\*\*Answer\.\*\* )[^\n]+", lambda _: answer, text, count=1)
        book["cells"][0]["source"] = found


def _finished(folder: Path, step: Step, key: str) -> dict[str, Any] | None:
    records = folder / "steps" / step.name
    wanted = [records / "done.json", records / "metrics.json", *(folder / name for name in step.outputs)]
    wanted += [reports_folder(folder) / name for name in step.pages]
    if not all(path.is_file() for path in wanted):
        return None
    record = read_json(wanted[0])
    return record if record["key"] == key and record["metrics"] == sha256(wanted[1]) else None


def _key(step: Step, parameters: dict[str, Any], inputs: list[Path], done: dict[str, dict[str, Any]]) -> str:
    cells = json.loads(notebook_path(step.name).read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    parts = {
        "code": code,
        "sources": fingerprint("\n".join(code), without=() if step.pages else ("report",)),
        "parameters": parameters,
        "inputs": [sha256(path) for path in inputs],
        "needs": [done[name]["metrics"] for name in step.needs],
        "versions": versions(),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True, allow_nan=False).encode()).hexdigest()


def refresh_notebook(step: str) -> None:
    """Run a notebook at dev size and keep its outputs."""
    import nbformat
    from nbclient import NotebookClient

    os.environ["TQDM_DISABLE"] = "1"  # bars hold timings, which differ from run to run
    path = notebook_path(step)
    book = nbformat.read(path, as_version=4)
    options = {"kernel_name": "python3", "kernel_manager_class": _kernels(ROOT), "record_timing": False}
    with chdir(path.parent):  # of the kernel, too
        NotebookClient(book, **options).execute()
    put_answer(book, ROOT / "runs" / "dev" / "steps" / step)
    nbformat.write(book, path)


def notebook_path(step: str) -> Path:
    """A step's notebook by its name or number; ValueError lists the steps."""
    for known in STEPS:
        if step in (known.name, known.name[:2], f"{known.name}.ipynb"):
            path = SHIPPED / "notebooks" / f"{known.name}.ipynb"
            if not path.is_file():
                raise FileNotFoundError(f"{path} does not exist: install n3r again")
            return path
    names = [known.name for known in STEPS]
    raise ValueError(f"no step {step!r}{near(step, names)}; `n3r run --help` lists them")
