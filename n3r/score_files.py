"""Files of rows scored into files.

Decisions:
- Files are read, scored and written a chunk of rows at a time, so that memory does not grow with them. The
  output gets its name when its last row is written.
- A rank needs every score: where rows are ranked, chunks wait in a private folder beside the output.
- `-` is standard input, or output: rows go out as they come, those that cannot be read to standard error.
"""

import os
import sys
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from io import BufferedReader
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from n3r.files.encoding import BOM
from n3r.files.formats import FORMATS, SUFFIXES, as_folder, find_files, format_of, written_as
from n3r.files.limits import MAX_EXPANSION
from n3r.files.lock import alone
from n3r.files.records import ALL
from n3r.files.writer import Printer, Writer, writer
from n3r.rows.chunks import CHUNK, column_type, read_chunks
from n3r.rows.rejects import Reject, refusal, told
from n3r.rows.values import as_typed
from n3r.schema import id_name
from n3r.score import Scorer, ranks
from n3r.thresholds import Rule

STANDARD = "-"
REJECTS = {"file": pl.String, "row": pl.Int64, "id": pl.String, "column": pl.String, "reason": pl.String}


class Counts(NamedTuple):
    """What became of the rows of files: read = scored + rejected."""

    read: int
    scored: int
    rejected: int


def score_files(  # noqa: PLR0913 - one argument an option
    scorer: Scorer,
    items: Sequence[str | Path],
    output: str | Path,
    kind: str | None = None,
    skip: bool = False,
    progress: bool = True,
    max_expansion: float = MAX_EXPANSION,
    for_spreadsheets: bool = False,
    rule: Rule | None = None,
    reasons: int = 0,
) -> Counts:
    """Score files, folders and patterns of Parquet, CSV, TSV and JSON lines, rows and files in their order.

    The one item "-" is standard input, the output "-" standard output: both of CSV or JSON lines. Another
    `output` that ends in .parquet, .csv, .tsv or .jsonl is one file of all rows; else it is a folder that
    gets a file for each file, in the `kind` given or its own. With `skip` rows that cannot be read are listed
    beside the output, in `<its name>.rejects.csv`; otherwise the first of them is a ValueError naming file,
    row and column, and nothing is written; they are printed, and rows before them too, where the output is
    "-". Warns as `Scorer.score`. `max_expansion`: see limits.py,
    `for_spreadsheets`: writer.py; with a `rule` rows also get what `Scorer.decide` gives, ranks by file.
    """
    from tqdm import tqdm

    job = Job(scorer, skip, max_expansion, for_spreadsheets, rule, reasons)
    counts = Counts(0, 0, 0)
    prints = str(output) == STANDARD
    hidden = {} if progress and not prints else {"disable": True}  # False would overrule TQDM_DISABLE
    with tqdm(
        desc="scored", unit=" rows", unit_scale=True, mininterval=0.5, file=sys.stderr, **hidden
    ) as bar:
        stream = sys.stdin.buffer if STANDARD in map(str, items) else None
        files = find_files(items) if stream is None else {_input(items, stream): None}
        targets = _printed(files, kind) if prints else targets_of(files, Path(output), kind)
        with nullcontext() if prints else alone(Path(output)) as place:
            for target, sources in targets.items():
                scored = chain.from_iterable(job.scored(*source, stream=stream) for source in sources)
                shown = _moving(bar, scored)
                found = job.write(target, [path for path, _ in sources], shown, place, prints)
                counts = Counts(*(a + b for a, b in zip(counts, found, strict=True)))
    return counts


def _input(items: Sequence[str | Path], stream: BufferedReader) -> Path:
    """What standard input is called, by its format: JSON lines begin with a brace, all else is CSV."""
    if len(items) > 1:
        raise ValueError("- is standard input: give it alone, without files")
    head = stream.peek(4).removeprefix(BOM).lstrip()
    return Path("stdin.jsonl" if head.startswith((b"{", b"[")) else "stdin.csv")


def _printed(files: Mapping[Path, str | None], kind: str | None) -> dict[Path, list]:
    """What standard output is called, by its format, and the files that its rows come from."""
    kind = kind or written_as(format_of(next(iter(files))))
    if kind == "parquet":
        raise ValueError("standard output takes rows of text: add --format csv, tsv or jsonl")
    return {Path(f"stdout.{kind}"): list(files.items())}


def targets_of(files: Mapping[Path, str | None], output: Path, kind: str | None) -> dict[Path, list]:
    """Each file to write and the files that its rows come from."""
    if output.suffix.removeprefix(".") in FORMATS:
        if kind not in (None, output.suffix.removeprefix(".")):
            raise ValueError(f"{output} is to be {kind}: let its name end so, or leave the format out")
        targets = {output: list(files.items())}
    else:
        targets, output = {}, as_folder(output, f".{', .'.join(FORMATS)}")
        for path, region in files.items():
            ending = next(suffix for suffix in SUFFIXES if path.name.lower().endswith(suffix))
            name = f"{path.name[: -len(ending)]}.{kind or written_as(SUFFIXES[ending])}"
            targets.setdefault(output / name, []).append((path, region))
        several = [target.name for target, sources in targets.items() if len(sources) > 1]
        if several:
            raise ValueError(f"several files would become {', '.join(several)}: give one output file")
    inputs = {os.path.realpath(path) for path in files}  # Path.resolve raises on a link to itself
    if over := [str(target) for target in targets if os.path.realpath(target) in inputs]:
        raise ValueError(f"the output would replace the input {', '.join(over)}: choose another name")
    return targets


def rejects_of(output: Path) -> Path:
    """Where rows that could not be read are listed, of an output that is a file; of a folder a pattern."""
    if output.suffix.removeprefix(".") in FORMATS:
        return output.with_name(f"{output.stem}.rejects.csv")
    return output / "*.rejects.csv"


class Scored(NamedTuple):
    """Some rows of a file, scored."""

    frame: pl.DataFrame
    rejects: list[Reject]
    n_rows: int  # scored and rejected
    unseen: Mapping[str, Sequence[int]]  # counts of `Unseen`


class Job:
    """How files are scored; the arguments are those of `score_files`."""

    def __init__(
        self,
        scorer: Scorer,
        skip: bool = False,
        max_expansion: float = MAX_EXPANSION,
        for_spreadsheets: bool = False,
        rule: Rule | None = None,
        reasons: int = 0,
    ):
        if reasons and rule is None:
            raise ValueError("reasons are those of flagged rows: say which orders to flag")
        self.scorer, self.skip, self.max_expansion = scorer, skip, max_expansion
        self.for_spreadsheets, self.reasons = for_spreadsheets, reasons
        self.decision = scorer.decision(rule) if rule else None

    def scored(
        self, path: Path, region: str | None = None, part: slice = ALL, stream: BufferedReader | None = None
    ) -> Iterator[Scored]:
        """The rows of a file, scored a chunk at a time, of which `part` is given; without ranks."""
        options = {
            "region": region,
            "max_expansion": self.max_expansion,
            "dialect": self.scorer.column_map.csv,  # as the model's column map says
            "stream": stream,
            "part": part,
        }
        for chunk in read_chunks(path, self.scorer.inputs, CHUNK, **options):
            if chunk.rejects and not self.skip:
                advice = "mend them, or list them and go on with --on-error skip"
                raise ValueError(refusal(chunk.rejects, advice))
            unseen = self.scorer.unseen()
            unseen.count(chunk.frame)
            yield Scored(self._scores(chunk.frame), chunk.rejects, chunk.n_rows, unseen.counts)

    def write(
        self,
        target: Path,
        sources: Collection[Path],
        chunks: Iterable[Scored],
        place: Path | None,
        prints: bool = False,
    ) -> Counts:
        """Write what `scored` gave of some files into one, or to standard output, and warn of its rows.

        `place` is a folder in which rows may wait for their ranks.
        """
        n_read = n_scored = n_rejected = 0
        with ExitStack() as files:
            rows, list_rejects = (files.enter_context(one) for one in self._outputs(target, place, prints))
            unseen, id = self.scorer.unseen(), self.scorer.inputs.id
            # An id may be a whole number in one file, a float in another and is text in CSV.
            types = {column_type(path, id) for path in sources}
            ids = [as_typed(id_name(id))] if len(types) > 1 else []
            for chunk in chunks:
                unseen.add(chunk.unseen)
                rows.write(chunk.frame.with_columns(ids))
                if chunk.rejects:
                    list_rejects(chunk.rejects)
                n_read += chunk.n_rows
                n_scored += chunk.frame.height
                n_rejected += len(chunk.rejects)
            if n_read != n_scored + n_rejected:  # inside, so that nothing is written
                raise RuntimeError(f"{n_read} rows read, {n_scored} scored and {n_rejected} rejected")
            unseen.warn()
        return Counts(n_read, n_scored, n_rejected)

    def _outputs(self, target: Path, place: Path | None, prints: bool) -> Iterator[AbstractContextManager]:
        """Where scored rows go and, opened after it, where rejects do."""
        kind = target.suffix.removeprefix(".")
        if prints:
            rows = nullcontext(Printer(kind, self.for_spreadsheets))
        else:
            rows = writer(target, kind, self.for_spreadsheets)
        yield rows if self.decision is None else _ranked(rows, place)
        yield nullcontext(_tell) if prints else _listed(rejects_of(target), self.for_spreadsheets)

    def _scores(self, rows: pl.DataFrame) -> pl.DataFrame:
        if self.decision is None:
            return self.scorer.score_typed(rows)
        return self.scorer.decide_typed(rows, self.decision, self.reasons)


def _moving(bar: Any, chunks: Iterable[Scored]) -> Iterator[Scored]:
    """The chunks, and the bar with them."""
    for chunk in chunks:
        yield chunk
        bar.update(chunk.n_rows)


def reject_table(rejects: list[Reject]) -> pl.DataFrame:
    """Rows that cannot be read as a table."""
    return pl.DataFrame(rejects, schema=REJECTS, orient="row")


def _tell(rejects: list[Reject]) -> None:
    """Print rows that cannot be read to standard error."""
    sys.stderr.writelines(f"{told(one)}\n" for one in rejects)


@contextmanager
def _listed(path: Path, for_spreadsheets: bool) -> Iterator[Callable[[list[Reject]], None]]:
    """What lists rows that cannot be read in a file, which is there at the end if there are any."""
    rows: list[Writer] = []
    with ExitStack() as files:

        def take(rejects: list[Reject]) -> None:
            if not rows:
                rows.append(files.enter_context(writer(path, "csv", for_spreadsheets)))
            rows[0].write(reject_table(rejects))

        yield take
    if not rows:
        path.unlink(missing_ok=True)  # of an earlier run


@contextmanager
def _ranked(output: AbstractContextManager, place: Path | None) -> Iterator["_Unranked"]:
    """`.write(frame)` takes tables with a score, which go to the output with their ranks at the end."""
    with output as rows, tempfile.TemporaryDirectory(prefix="n3r-", dir=place) as folder:
        waiting = _Unranked(Path(folder))
        yield waiting
        waiting.release(rows)


class _Unranked:
    """Chunks that wait until the scores of all are known."""

    def __init__(self, folder: Path):
        self.folder, self.scores = folder, [pl.Series([], dtype=pl.Float32)]

    def write(self, frame: pl.DataFrame) -> None:
        """Take a chunk."""
        frame.write_parquet(self.folder / str(len(self.scores)))
        self.scores.append(frame["score"])

    def release(self, rows: Writer | Printer) -> None:
        """Write all with their ranks."""
        rank = ranks(pl.concat(self.scores))
        start = 0
        for i, scores in enumerate(self.scores[1:], 1):
            own = rank.slice(start, len(scores))
            rows.write(pl.read_parquet(self.folder / str(i)).with_columns(own))
            start += len(scores)
