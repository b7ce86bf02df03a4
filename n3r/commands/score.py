"""`n3r score`: rows of files, or of a pipe, scored and decided on."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Exit, Option, echo

from n3r.files.limits import MAX_EXPANSION
from n3r.files.lock import alone
from n3r.terminal import plain_warnings

if TYPE_CHECKING:
    from n3r.score_files import Counts


@contextmanager
def _as_filter() -> Iterator[None]:
    """Within it, Ctrl-C and the end of whoever reads the output end the command, as they do `cat`."""
    if hasattr(signal, "siginterrupt"):  # polars has a read of a pipe go on behind Ctrl-C
        signal.siginterrupt(signal.SIGINT, True)
    try:
        yield
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes it when it ends
        raise Exit(141) from None


def score(  # noqa: PLR0913 - one argument an option
    inputs: Annotated[
        list[str],
        Argument(
            help="Parquet, CSV, TSV, JSON lines, .xlsx: files, folders, REGION=path; or - to read a pipe"
        ),
    ],
    bundle: Annotated[Path, Option(help="the model's folder, such as runs/quick/best")],
    output: Annotated[
        Path | None,
        Option("-o", "--output", help="a file for all rows, a folder, or - to print; of - it is -"),
    ] = None,
    format: Annotated[str | None, Option(help="parquet, csv, tsv or jsonl; default: as the input")] = None,
    on_error: Annotated[str, Option(help="stop at rows that cannot be read, or skip and list them")] = "stop",
    int8: Annotated[bool, Option(help="the 8-bit weights, where the bundle has them")] = False,
    threads: Annotated[int | None, Option(help="of the model; default: all processors", min=1)] = None,
    for_spreadsheets: Annotated[
        bool, Option("--for-spreadsheets", help="a ' before text of a CSV that would run as a formula")
    ] = False,
    max_expansion: Annotated[
        float, Option(help="refuse a file that holds more times its size", min=1)
    ] = MAX_EXPANSION,
    fpr: Annotated[float | None, Option(help="flag at most this share of legitimate orders")] = None,
    budget: Annotated[str | None, Option(help="flag what can be reviewed: 50/day, or 2% of orders")] = None,
    cost_missed: Annotated[
        float | None, Option(help="flag at the least cost: of a missed fraud, or of each unit of its amount")
    ] = None,
    cost_alarm: Annotated[float | None, Option(help="and of a false alarm")] = None,
    threshold: Annotated[float | None, Option(help="flag scores at or above it")] = None,
    reasons: Annotated[int, Option(help="how many reasons flagged rows get, in words", min=0)] = 0,
    engine: Annotated[str, Option(help="ray or spark: files, in parts, as tasks of a cluster")] = "memory",
    address: Annotated[str, Option(help="of the cluster: HOST:PORT, or spark://HOST:PORT")] = "",
) -> None:
    """Score rows with a bundle: id, score, p_calibrated, percentile, in the rows' order; and decide.

    --fpr, --budget, --cost-missed with --cost-alarm, or --threshold add decision and rank.
    """
    from n3r.score import Scorer
    from n3r.score_files import STANDARD, score_files
    from n3r.thresholds import Rule

    if on_error not in ("stop", "skip"):
        raise ValueError(f"--on-error takes stop or skip, not {on_error!r}")
    if format not in (None, "parquet", "csv", "tsv", "jsonl"):
        raise ValueError(f"--format takes parquet, csv, tsv or jsonl, not {format!r}")
    if output is None and inputs != [STANDARD]:
        raise ValueError("say where the scores go: -o FILE, FOLDER, or - for standard output")
    output = output or Path(STANDARD)
    options = {"max_expansion": max_expansion, "for_spreadsheets": for_spreadsheets}
    ways = {
        "fpr": fpr,
        "budget": budget,
        "cost_missed": cost_missed,
        "cost_alarm": cost_alarm,
        "threshold": threshold,
    }
    rule = Rule.of(**ways) if any(way is not None for way in ways.values()) else None
    options |= {"rule": rule, "reasons": reasons, "skip": on_error == "skip"}
    alone = engine == "memory" and not address
    if alone or rule:
        scorer = Scorer(bundle, threads, int8)
    if rule:
        echo(str(scorer.decision(rule)), err=True)
    if not alone:
        return _on_engine(engine, address, bundle, inputs, output, kind=format, int8=int8, **options)
    with plain_warnings(), _as_filter():
        counts = score_files(scorer, inputs, output, format, **options)
    _say(counts, output)


def _on_engine(
    name: str, address: str, bundle: Path, inputs: list[str], output: Path, **options: Any
) -> None:
    """Score files as tasks of an engine."""
    from n3r.engine import start
    from n3r.score_files import STANDARD
    from n3r.score_tasks import score_tasks

    if STANDARD in (*inputs, str(output)):
        raise ValueError("an engine scores files into files, no pipe: leave --engine out")
    with alone(output) as place:
        engine = start(name, place / "engine", address=address)
        try:
            with plain_warnings():
                _say(score_tasks(engine, bundle, inputs, output, **options), output)
        finally:
            engine.close()


def _say(counts: "Counts", output: Path) -> None:
    """What became of the rows."""
    from n3r.score_files import STANDARD, rejects_of

    summary = f"{counts.read:,} rows read, {counts.scored:,} scored, {counts.rejected:,} rejected"
    if str(output) == STANDARD:
        return echo(summary, err=True)
    listed = f"; those rejected, and why, are in {rejects_of(output)}" if counts.rejected else ""
    echo(f"{summary}: {output}{listed}", err=True)
