"""Files of rows scored as tasks of an engine: each on some machine, as one process would.

Decisions:
- A file is a task, of one thread. What it becomes depends on no other file: a rank is that in its file.
- A finished file leaves a record beside the output. A driver that died is started again, and goes on with the
  files that have none, or whose input, model or options are others now. The records go when all is done.
"""

import hashlib
import json
import shutil
import warnings
from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from n3r.engine import Engine
from n3r.files.formats import FORMATS, find_files
from n3r.files.json_io import read_json, write_json
from n3r.files.manifest import MANIFEST, sha256
from n3r.score import Scorer
from n3r.score_files import Counts, score_files, targets_of

RECORDS = ".scored"  # the folder of records in the output's
_SCHEMA = {**dict.fromkeys(Counts._fields, pl.Int64), "told": pl.List(pl.String)}


class _Task(NamedTuple):
    """A file to score, the file to write, and the record that it was written."""

    source: Path
    region: str | None
    target: Path
    record: Path

    def done(self) -> dict[str, Any] | None:
        """What the record tells, where there is one and the file."""
        return read_json(self.record) if self.record.is_file() and self.target.is_file() else None


def score_tasks(
    engine: Engine,
    bundle: Path,
    items: Sequence[str],
    output: Path,
    kind: str | None = None,
    int8: bool = False,
    **options: Any,
) -> Counts:
    """`score_files` of files into a folder, each a task; warns once of what any of them warned of.

    `options` are others of `score_files`. All machines see bundle, files and output under their names here.
    Raises as `score_files` at the first file that cannot be scored, which leaves the finished ones, and
    ValueError for an output that is one file.
    """
    if output.suffix.removeprefix(".") in FORMATS:
        raise ValueError(f"{output} is one file, which one process writes: give a folder, for a file of each")
    output, bundle = output.resolve(), bundle.resolve()
    made_by = [sha256(bundle / MANIFEST), kind, int8, str(sorted(options.items()))]
    tasks = []
    for target, ((source, region),) in targets_of(find_files(items), output, kind).items():
        source, state = source.resolve(), source.stat()
        key = [str(source), region, state.st_size, state.st_mtime_ns, str(target), *made_by]
        name = hashlib.sha256(json.dumps(key, allow_nan=False).encode()).hexdigest()
        tasks.append(_Task(source, region, target, output / RECORDS / f"{name}.json"))
    if left := [task for task in tasks if task.done() is None]:
        work = partial(_score, bundle=bundle, int8=int8, options=options)
        engine.gather(engine.read(left, work))
    done = pl.DataFrame([task.done() for task in tasks], schema=_SCHEMA)
    shutil.rmtree(output / RECORDS)
    for told in done["told"].explode().drop_nulls().unique().sort():
        warnings.warn(told, stacklevel=2)
    return Counts(*(done[name].sum() for name in Counts._fields))


@lru_cache(1)
def _scorer(bundle: Path, int8: bool) -> Scorer:
    return Scorer(bundle, 1, int8)


def _score(task: _Task, bundle: Path, int8: bool, options: Mapping[str, Any]) -> pl.DataFrame:
    """Score one file and record that; a row that says so."""
    source = str(task.source) if task.region is None else f"{task.region}={task.source}"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        counts = score_files(_scorer(bundle, int8), [source], task.target, progress=False, **options)
    told = [str(one.message) for one in caught if issubclass(one.category, UserWarning)]
    task.record.parent.mkdir(exist_ok=True)
    write_json(task.record, {**counts._asdict(), "told": told})
    return pl.DataFrame({"done": [True]})
