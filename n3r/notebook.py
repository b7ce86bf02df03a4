"""What a notebook asks of n3r: its run's folder, whether it may begin, and its record.

Decisions:
- Papermill sets parameters that a notebook does not have, and those of another type, with a warning at most:
  `begin`, the first line after the parameters, refuses them, and names the steps that have to run before.
- Paths come from `files.places`, not from the current folder, which is the notebook's in JupyterLab, nbval
  and nbconvert, and the caller's in papermill.
- A mistake that n3r names itself is shown in a notebook as its one sentence; `%tb` shows where it was raised.
  Any other error keeps its traceback.
"""

import ast
import os
import re
import resource
import sys
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple
from urllib.parse import quote

from n3r.files.atomic import atomic_file
from n3r.files.json_io import near, plain, read_json, without_links, write_json
from n3r.files.places import PACKAGE, ROOT

MAX_SHOWN = 80  # characters of a value in a message
INJECTED = "# Parameters\n"  # how the cell begins that papermill puts behind the parameters
MISTAKES = (ValueError, FileNotFoundError)


class Step(NamedTuple):
    """One notebook of the run, what it needs and what it leaves."""

    name: str
    needs: tuple[str, ...]
    outputs: tuple[str, ...] = ()  # in the run's folder
    pages: tuple[str, ...] = ()  # in `reports_folder`
    binary_only: bool = False


STEPS = (
    Step("01_preprocess", (), ("data/columns.json",), pages=("data.html",)),
    Step("02_tokenizer", ("01_preprocess",), ("tokenizer/tokenizer.json",)),
    Step("03_train_lstm2risk", ("02_tokenizer",), ("lstm2risk/MANIFEST.json",)),
    Step("04_train_transformer2risk", ("02_tokenizer",), ("transformer2risk/MANIFEST.json",)),
    Step("09_best", ("02_tokenizer",), ("best/MANIFEST.json",), pages=("best.html",)),  # until 08 says more
    Step(
        "05_parity",
        ("03_train_lstm2risk", "04_train_transformer2risk", "09_best"),
        pages=("report.html",),
    ),
    Step("06_multimodal", (), ("multimodal/data/columns.json",), pages=("multimodal_data.html",)),
    Step("07_custom_transformer", ("03_train_lstm2risk",), binary_only=True),
    Step(
        "08_evaluate",
        ("05_parity",),
        pages=("best.html", "lstm2risk.html", "transformer2risk.html"),
    ),
)


def needed(names: Sequence[str], steps: Sequence[Step] = STEPS) -> list[Step]:
    """The steps of these names and all that they need, in order."""
    wanted = list(names)
    for name in wanted:  # grows while it is read
        wanted += [need for step in steps if step.name == name for need in step.needs if need not in wanted]
    return [step for step in steps if step.name in wanted]


def checked_name(name: str) -> str:
    """The name of a run, which folders in runs/ and reports/ have; ValueError where it cannot be one."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise ValueError(f"the run name {name!r} may hold letters, digits, '_', '-' and '.' only")
    if name == "example" or (ROOT / "reports" / name).is_file():
        raise ValueError(f"reports/{name} belongs to the repository; choose another name for the run")
    return name


def begin(step: str, given: Mapping[str, Any]) -> Path:
    """The folder of a notebook's run; `given` is its `vars()`, parameters and all.

    Raises ValueError naming every parameter that papermill was given and the notebook does not have, or that
    is of another type, and FileNotFoundError naming the steps that have to run before.
    """
    if "get_ipython" in given:
        given["get_ipython"]().set_custom_exc(MISTAKES, _show_mistake)
    if problems := list(_refused(step, given)):
        raise ValueError("; ".join(problems))
    run = ROOT / "runs" / checked_name(given["name"])
    before = [one.name for one in needed([step]) if one.name != step]
    if missing := [name for name in before if not _record(run, name).is_file()]:
        first = " and ".join(filter(None, (", ".join(missing[:-1]), missing[-1])))
        raise FileNotFoundError(f"runs/{run.name} does not hold what {step} reads: run {first} first")
    return run


def _refused(step: str, given: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with the parameters that papermill was given, by the cells that have run."""
    defaults: dict[str, Any] = {}
    injected: set[str] = set()
    for cell in given.get("In", ()):
        if cell.startswith(INJECTED):
            injected |= {target.id for one in ast.parse(cell).body for target in one.targets}
        else:
            defaults |= _annotated(cell)
    for name in sorted(injected):
        if name not in defaults:
            asked = near(name, defaults)
            yield f"{step} has no parameter {name!r}{asked}; `n3r params {step[:2]}` lists them"
            continue
        try:
            typed(f"{step}.{name}", given[name], defaults[name])
        except ValueError as error:
            yield str(error)


def _annotated(cell: str) -> dict[str, Any]:
    """The names that a cell gives a type and a literal value, as only parameters get one, and the values."""
    try:
        body = ast.parse(cell).body
        return {one.target.id: ast.literal_eval(one.value) for one in body if isinstance(one, ast.AnnAssign)}
    except (SyntaxError, ValueError):  # no cell of parameters
        return {}


def typed(name: str, value: Any, default: Any) -> Any:
    """`value` as the type of `default`; ValueError when it is none."""
    if isinstance(default, float) and type(value) is int:
        value = float(value)
    if default is not None and type(value) is not type(default):
        shown = repr(value)[:MAX_SHOWN]
        raise ValueError(f"{name} is {shown}; expected {type(default).__name__}, such as {default!r}")
    return value


def _show_mistake(
    shell: Any, kind: type, error: BaseException, trace: TracebackType, tb_offset: int | None = None
) -> None:
    """Show an error as IPython does, but one that n3r raised, or pydantic in its name, as a sentence."""
    last = trace
    while last.tb_next:
        last = last.tb_next
    is_own = Path(last.tb_frame.f_code.co_filename).is_relative_to(PACKAGE)
    if is_own or "errors.pydantic.dev" in str(error):
        sys.last_type, sys.last_value, sys.last_traceback = kind, error, trace  # for %tb
        shell._showtraceback(kind, error, [without_links(str(error))])
    else:
        shell.showtraceback((kind, error, trace), tb_offset=tb_offset)


# ---- records ----


def reports_folder(run: Path) -> Path:
    """Where the pages and pictures of runs/<name> go: reports/<name> beside runs/."""
    return Path(run).parent.parent / "reports" / Path(run).name


class Links(NamedTuple):
    """What a step has left to read: the name of each file, and whether it is there."""

    files: list[tuple[str, Path]]

    def _repr_html_(self) -> str:
        links = [
            f'<a href="{quote(_from_here(path))}">{escape(name)}</a>' if path.is_file() else escape(name)
            for name, path in self.files
        ]
        return f"<p><b>To read:</b> {' &middot; '.join(links)}</p>"

    def __repr__(self) -> str:
        return "to read: " + ", ".join(f"{name} ({_from_here(path)})" for name, path in self.files)


def _from_here(path: Path) -> str:
    """A path as seen from the current folder, which is that of the notebook."""
    return Path(os.path.relpath(path)).as_posix()


def finish_step(run: Path, step: str, metrics: dict[str, Any], answer: str = "") -> Links:
    """Record a step's metrics and its process's peak memory; a notebook's last act, which shows what to read.

    `answer` is the notebook's answer in a sentence or two, with its figures: the runner writes it into the
    first cell, behind "Answer.", so that a reader finds it without scrolling.
    """
    folder = Path(run) / "steps" / step
    folder.mkdir(parents=True, exist_ok=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # kB on Linux, bytes on macOS
    unit = 1024**2 if sys.platform == "darwin" else 1024
    write_json(folder / "resources.json", {"peak_memory_mb": round(peak / unit)})
    with atomic_file(folder / "answer.txt") as aside:
        aside.write_text(answer, encoding="utf-8")
    write_json(folder / "metrics.json", plain(metrics))
    return Links([*_pages(Path(run), step), ("metrics.json", _record(run, step))])


def _pages(run: Path, step: str) -> Iterator[tuple[str, Path]]:
    """The pages that a step has written, or what is there of the model that it has made."""
    for own in (one for one in STEPS if one.name == step):
        models = [Path(output).parent.name for output in own.outputs if output.endswith("MANIFEST.json")]
        yield from ((page, reports_folder(run) / page) for page in own.pages)
        yield from ((f"the model card of {name}", run / name / "MODEL_CARD.md") for name in models)
        later = [page for page in (f"{name}.html" for name in models) if page not in own.pages]
        yield from ((f"{page}, which 08_evaluate writes", reports_folder(run) / page) for page in later)


def _record(run: Path, step: str) -> Path:
    return Path(run) / "steps" / step / "metrics.json"


def read_metrics(run: Path, step: str) -> dict[str, Any]:
    """What `finish_step` recorded; FileNotFoundError tells to run the step first."""
    path = _record(run, step)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: run step {step} first")
    return read_json(path)
