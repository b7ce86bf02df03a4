"""`n3r map`: propose the column map of files, or say what has changed in files since a map was made."""

import json
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option, echo

from n3r.files.json_io import key_values, near
from n3r.files.lock import held
from n3r.files.places import SHIPPED
from n3r.terminal import print_table

if TYPE_CHECKING:
    from n3r.proposal.propose import Proposal
    from n3r.proposal.questions import Question

SCHEMA = SHIPPED / "configs" / "column_map.schema.json"
ORDERS = SHIPPED / "configs" / "orders.json"  # the map of orders that come without one
MapFile = Annotated[Path | None, Option(help="their column map (JSON); default: configs/orders.json")]


def map_files(
    data: Annotated[list[str], Argument(help="files of one shape, a folder, or REGION=path")],
    output: Annotated[
        Path | None, Option("-o", "--output", help="the map to write, such as map.json")
    ] = None,
    yes: Annotated[bool, Option("--yes", "-y", help="take the best guess wherever one must ask")] = False,
    check: Annotated[
        Path | None, Option(help="a map: say what has changed in the files since it was made")
    ] = None,
    p: Annotated[
        list[str] | None, Option("-p", help="KEY=VALUE of the map that you know, such as label=is_bad")
    ] = None,
) -> None:
    """Propose the column map of files: how they are written, and what their columns mean.

    What is found is printed with masked examples. It asks only where the files do not tell.
    """
    if check is not None:
        return _check(data, check)
    from n3r.proposal.propose import propose
    from n3r.proposal.questions import best_guess

    proposal = propose(data, values_of(p or []), best_guess if yes else _ask)
    say(proposal, err=output is None)
    if output is None:
        echo(json.dumps(proposal.content, ensure_ascii=False, indent=1, allow_nan=False))
        return
    proposal.write(output, SCHEMA)
    echo(f"map: {output}")
    items = " ".join(f"--data {shlex.quote(item)}" for item in data)
    echo(f"next: n3r run {items} --map {shlex.quote(str(output))}")


def map_for_run(data: Sequence[str], default: Path, target: Path) -> Path:
    """The column map of a run that is given none: the default if the files have its columns, else a proposal.

    A proposal is printed and written to `target`, with the best guess wherever one must ask.
    """
    from n3r.proposal.propose import propose
    from n3r.proposal.since import has_columns_of
    from n3r.schema import ColumnMap

    if has_columns_of(data, ColumnMap.from_file(default)):
        echo(f"column map: {os.path.relpath(default)}, whose columns the data have")
        return default
    proposal = propose(data)
    say(proposal)
    with held(target.parent):
        proposal.write(target, SCHEMA)
    echo(f"column map: {os.path.relpath(target)}, as proposed; to change it, edit a copy and give --map")
    return target


def say(proposal: "Proposal", err: bool = False) -> None:
    """Print what a proposal has found."""
    from n3r.proposal.say import heading, lines, table

    echo(heading(proposal), err=err)
    print_table(("role", "column", "what it holds", "examples, masked"), table(proposal), err)
    for line in lines(proposal):
        echo(line, err=err)


def values_of(texts: Sequence[str]) -> dict[str, Any]:
    """Values of a map by key: JSON, or else the text itself; ValueError for a key that no map has."""
    from n3r.files.dialect import Dialect
    from n3r.schema import ColumnMap

    found: dict[str, Any] = {}
    for key, text in key_values(texts).items():
        whole, _, part = key.partition(".")
        known = [*ColumnMap.model_fields, *(f"csv.{name}" for name in Dialect.model_fields)]
        if key not in known:
            raise ValueError(f"a column map has no key {key!r}{near(key, known)}")
        if part:
            found[whole] = {**found.get(whole, {}), part: _value(text)}
        else:
            found[key] = _value(text)
    return found


def _value(text: str) -> Any:
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return text if isinstance(value, int | float) and not isinstance(value, bool) else value


def _ask(question: "Question") -> str:
    """Ask for one of a question's answers by its number; ValueError where nobody is there to answer."""
    answers = list(question.answers)
    echo(question.says, err=True)
    for i, answer in enumerate(answers, 1):
        echo(f"  {i}  {answer}", err=True)
    answer = ""
    try:
        while answer not in map(str, range(1, len(answers) + 1)):
            answer = typer.prompt("which", default="1", err=True)
    except typer.Abort:
        given = f"-p {question.key}=.."
        raise ValueError(
            f"{question.says} Nobody answers: give {given}, or --yes for the best guess"
        ) from None
    return answers[int(answer) - 1]


def _check(data: Sequence[str], path: Path) -> None:
    """Say what has changed in files since their map was made; ValueError where they no longer fit."""
    from n3r.proposal.since import changes
    from n3r.schema import ColumnMap

    found = changes(data, ColumnMap.from_file(path))
    for line in found.news:
        echo(f"new: {line}")
    if found.misfits:
        listed = "".join(f"\n- {line}" for line in found.misfits)
        raise ValueError(
            f"{', '.join(data)} no longer fits {path}:{listed}\nmend the map, or make it anew: n3r map"
        )
    echo(f"{path} fits: {found.n_rows:,} rows")
