"""Files of rows scored as tasks of an engine: the bytes are those that one process writes.

Decisions:
- A task scores a file, or where that is large some chunks of it, with one thread. What it leaves goes through
  the same writer in the same chunks as one process's: ranks, rejects and warnings are those of whole outputs.
- A CSV is read from its beginning for each of its parts: reading a row takes some hundredth of scoring it.
- What is finished lies in a private folder beside the output. A driver that died is started again, and goes
  on with what is not there, or whose input, model or options are others now. The folder goes at the end.
- A task writes into a folder of its own and renames: an engine may run one twice, at the same time.
"""

import hashlib
import json
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache, partial
from itertools import chain, pairwise
from pathlib import Path
from threading import Event, Thread
from typing import Any, NamedTuple

import polars as pl

from n3r.engine import Engine
from n3r.files.atomic import writing
from n3r.files.formats import beside, find_files, format_of
from n3r.files.json_io import read_json, write_json
from n3r.files.manifest import MANIFEST, sha256
from n3r.files.reader import about_batches, in_utf8
from n3r.files.writer import POLARS_ERRORS
from n3r.progress import Progress
from n3r.rows.chunks import CHUNK
from n3r.rows.rejects import Reject
from n3r.score import Scorer
from n3r.score_files import Counts, Job, Scored, reject_table, rejects_of, targets_of

PART = 4  # chunks of a file that a task scores, some seconds
MAX_PARTS = 16  # of a file of text, which each part is read of from its beginning
RECORD = "record.json"
LOOK = 1.0  # seconds between two looks at what is finished


class _Part(NamedTuple):
    """Chunks of a file to score, and the folder that they then lie in."""

    given: Path  # as the user names it
    source: Path
    region: str | None
    chunks: slice
    folder: Path

    def is_done(self) -> bool:
        return _record(self).is_file()


class _Target(NamedTuple):
    """A file to write, the parts that its rows come from, and the folder that tells that it is written."""

    path: Path
    parts: list[_Part]
    folder: Path

    def is_done(self) -> bool:
        return _record(self).is_file() and self.path.is_file()


def _record(task: _Part | _Target) -> Path:
    """What tells that a task is done, and of its rows."""
    return task.folder / RECORD


def score_tasks(
    engine: Engine,
    bundle: Path,
    items: Sequence[str],
    output: Path,
    kind: str | None = None,
    int8: bool = False,
    progress: bool = True,
    **options: Any,
) -> Counts:
    """`score_files` of files in tasks of an engine; warns once of what any output warned of.

    `options` are those of `n3r.score_files.Job`. All machines see bundle, files and output under their names
    here. Raises as `score_files` at a file that cannot be scored, which leaves what is finished.
    """
    folder, bundle = beside(output, "scored").absolute(), bundle.resolve()
    made_by = [sha256(bundle / MANIFEST), kind, int8, CHUNK, str(sorted(options.items()))]
    targets = []
    for path, sources in targets_of(find_files(items), output, kind).items():
        parts = [part for source in sources for part in _parts(*source, folder, made_by)]
        key = _key(str(path.absolute()), *(part.folder.name for part in parts))
        targets.append(_Target(path.absolute(), parts, folder / key))
    with writing(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    work = partial(_work, bundle=bundle, manifest=made_by[0], int8=int8, options=options)
    whole = [target for target in targets if len(target.parts) == 1]
    divided = [target for target in targets if len(target.parts) > 1]
    parts = [part for target in divided if not target.is_done() for part in target.parts]
    for what, tasks in {"scored": [*whole, *parts], "joined": divided}.items():
        if left := [task for task in tasks if not task.is_done()]:
            bar = Progress(what, " parts", len(tasks), len(tasks) - len(left), progress)
            with bar, _watched(left, folder, bar):
                engine.gather(engine.read(left, work))
    done = [read_json(_record(target)) for target in targets]
    shutil.rmtree(folder)
    for told in sorted({told for one in done for told in one["told"]}):
        warnings.warn(told, stacklevel=2)
    return Counts(*(sum(one[name] for one in done) for name in Counts._fields))


def _key(*content: Any) -> str:
    return hashlib.sha256(json.dumps(content, allow_nan=False).encode()).hexdigest()


def _parts(given: Path, region: str | None, folder: Path, made_by: Sequence[Any]) -> Iterator[_Part]:
    """A file as a part, or as several of about as many chunks; the last ends with the file."""
    source, state = given.resolve(), given.stat()
    n_chunks = about_batches(source, CHUNK)
    n_parts = -(-n_chunks // PART)
    if format_of(source) != "parquet":
        n_parts = min(n_parts, MAX_PARTS)
    ends = [n_chunks * i // n_parts for i in range(1, n_parts)]
    for start, stop in pairwise([0, *ends, None]):
        what = [str(given), str(source), region, state.st_size, state.st_mtime_ns, start, stop]
        yield _Part(given, source, region, slice(start, stop), folder / _key(*what, *made_by))


@contextmanager
def _watched(tasks: Sequence[_Part | _Target], folder: Path, bar: Progress) -> Iterator[None]:
    """Within it, the bar moves with the tasks that are finished, on whatever machine."""
    waiting = {task.folder.name: _record(task) for task in tasks}
    rows: list[int] = []
    ended = Event()

    def look() -> None:
        new = waiting.keys() & {path.name for path in folder.iterdir()}
        rows.extend(read_json(waiting.pop(name))["read"] for name in new)
        bar.update(len(new), rows=f"{sum(rows):,}")

    def watch() -> None:
        while not ended.wait(LOOK):
            with suppress(OSError):  # a bar is not worth an error of the folder
                look()

    thread = Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    look()


@lru_cache(1)
def _scorer(bundle: Path, manifest: str, int8: bool) -> Scorer:
    return Scorer(bundle, 1, int8)


def _work(
    task: _Part | _Target, bundle: Path, manifest: str, int8: bool, options: Mapping[str, Any]
) -> pl.DataFrame:
    """Do one task, if it is not done, and record that; a row that says so."""
    if not task.is_done():
        job = Job(_scorer(bundle, manifest, int8), **options)
        with tempfile.TemporaryDirectory(dir=task.folder.parent) as place:
            own = Path(place) / "task"
            own.mkdir()
            _keep(job, task, own) if isinstance(task, _Part) else _write(job, task, own)
            with writing(task.folder):
                shutil.rmtree(task.folder, ignore_errors=True)
                own.rename(task.folder)
    return pl.DataFrame({"done": [True]})


def _keep(job: Job, part: _Part, folder: Path) -> None:
    """Score a part into a folder."""
    chunks = []
    for number, (frame, rejects, n_rows, unseen) in enumerate(_scored(job, part)):
        with writing(folder, *POLARS_ERRORS):
            frame.write_ipc(folder / f"{number}.scored")
            reject_table(rejects).write_ipc(folder / f"{number}.rejects")
        chunks.append([n_rows, unseen])
    write_json(folder / RECORD, {"read": sum(n_rows for n_rows, _ in chunks), "chunks": chunks})


def _kept(part: _Part) -> Iterator[Scored]:
    """What `_keep` left of a part."""
    for number, (n_rows, unseen) in enumerate(read_json(_record(part))["chunks"]):
        files = (part.folder / f"{number}.{kind}" for kind in ("scored", "rejects"))
        frame, rejects = (pl.read_ipc(file.read_bytes()) for file in files)
        yield Scored(frame, [Reject(*row) for row in rejects.iter_rows()], n_rows, unseen)


def _scored(job: Job, part: _Part) -> Iterator[Scored]:
    """The chunks of a part, its file under the name that the user gave it."""
    for chunk in job.scored(part.source, part.region, part.chunks):
        yield chunk._replace(rejects=[one._replace(file=in_utf8(part.given)) for one in chunk.rejects])


def _write(job: Job, target: _Target, folder: Path) -> None:
    """Write a target of what its parts left, or where it has one part of that, and a record into a folder."""
    if len(target.parts) == 1:
        chunks = _scored(job, target.parts[0])
    else:
        chunks = chain.from_iterable(map(_kept, target.parts))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        counts = job.write(folder / target.path.name, {part.source for part in target.parts}, chunks, folder)
    with writing(target.path):
        for final in (rejects_of(target.path), target.path):
            if (folder / final.name).is_file():
                (folder / final.name).replace(final)
            else:
                final.unlink(missing_ok=True)  # rejects of an earlier run
    told = [str(one.message) for one in caught if issubclass(one.category, UserWarning)]
    write_json(folder / RECORD, {**counts._asdict(), "told": told})
