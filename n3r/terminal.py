"""What the `n3r` command says in a terminal of a run's results, and how Ctrl-C ends it."""

import os
import re
import shlex
import signal
import sys
import threading
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer
from typer import echo
from typer.core import TyperGroup

from n3r.estimate import Estimate
from n3r.files.json_io import MAX_TOLD
from n3r.notebook import Step, read_metrics, reports_folder
from n3r.rows.accounts import in_words

ESTIMATE = ("auroc", "auroc_low", "auroc_high", "n")
NETWORKS = {"03_train_lstm2risk": "lstm2risk", "04_train_transformer2risk": "transformer2risk"}  # bundles


def print_table(head: Iterable[str], rows: Iterable[Iterable[str]], err: bool = False) -> None:
    """A table as wide as the terminal, or of 120 characters where there is none."""
    from rich.console import Console
    from rich.table import Table

    table = Table(*head)
    for row in rows:
        table.add_row(*row)
    Console(stderr=err, width=None if sys.stdout.isatty() else 120).print(table)


def result_of(folder: Path, step: Step) -> str:
    """What a finished step has found, in a line, and where it is, behind what is said of its end."""
    if step.name in LINES:
        found = LINES[step.name](read_metrics(folder, step.name))
    else:
        path = folder / "steps" / step.name / "answer.txt"
        answer = path.read_text(encoding="utf-8") if path.is_file() else ""
        found = re.split(r";|\.(?: (?=[A-Z])|$)", answer)[0]
    if step.pages:
        place = reports_folder(folder) / step.pages[0]
    elif step.outputs:
        place = (folder / step.outputs[0]).parent
    else:
        place = folder / "notebooks" / f"{step.name}.ipynb"
    return f": {found} ({os.path.relpath(place)})"


def _kept(found: Mapping[str, Any]) -> str:
    splits = ", ".join(f"{split} {n:,}" for split, n in _sizes(found).items())
    return f"{sum(_sizes(found).values()):,} of {found['data']['n_rows']:,} rows kept: {splits}"


def _sizes(found: Mapping[str, Any]) -> dict[str, int]:
    """The rows of each split."""
    counts: dict[str, int] = {}
    for row in found["preparation"]["splits"]:
        counts[row["split"]] = counts.get(row["split"], 0) + row["n"]
    return counts


def _tokens(found: Mapping[str, Any]) -> str:
    made = found["tokenizer"]
    return f"{made['vocab_size']:,} tokens, of {made['compression']:.2f} characters each"


LINES = {"01_preprocess": _kept, "02_tokenizer": _tokens}


def say_results(folder: Path, steps: Collection[str]) -> None:
    """Print what the steps of a run have found, its leaderboard last."""
    for step, say in SAY.items():
        if step in steps:
            say(folder)
    _say_leaderboard(folder, steps)


def _say_leaderboard(folder: Path, steps: Collection[str]) -> None:
    """Print how all that was tried ranks the test rows, and the command that scores with the first."""
    rows = leaderboard(folder, steps)
    if not rows:
        return
    print_table(
        ("model", "what it is", "held out AUROC [95 %]", "test AUROC [95 %]", "recall at 1 % FPR"), rows
    )
    networks = {step: read_metrics(folder, step)["model"] for step in NETWORKS if step in steps}
    chosen = max(networks, key=lambda step: networks[step]["val"].get("auroc") or 0, default=None)
    bundle = os.path.relpath(folder / ("best" if "09_best" in steps else NETWORKS[chosen]))
    echo(f"to score orders: n3r score --bundle {shlex.quote(bundle)} ORDERS -o SCORES")


def leaderboard(folder: Path, steps: Collection[str]) -> list[tuple[str, ...]]:
    """What a run has tried, the best recipe first, then by test AUROC, what is attainable last.

    The order says how test rows turned out. What a run serves is chosen on rows held out.
    """
    first, others, last = [], [], []
    for step in (step for step in NETWORKS if step in steps):
        others.append(_of_model(read_metrics(folder, step)["model"], "network"))
    if "09_best" in steps:
        found = read_metrics(folder, "09_best")
        first.append(_of_model(found["model"], "n3r"))
        for one in found["members"]:
            what = f"{100 * one['weight']:.0f} % of the best recipe" if one["weight"] else "tried, not taken"
            others.append((one["member"], what, one["held_out"], one.get("test", ""), ""))
        last = [("oracle", "attainable", "", found["attainable"], "")] if found["attainable"] else []
    known = {name for name, *_ in (*first, *others)}
    for row in read_metrics(folder, "05_parity")["models"] if "05_parity" in steps else ():
        name = row["model"]
        kind = "legacy" if name.startswith("legacy") else "attainable" if name == "oracle" else "baseline"
        shown = (name, kind, "", row["test AUROC [95 %]"], row["recall at 1 % FPR"])
        if name == "oracle":
            last = [shown]
        elif name not in known:
            others.append(shown)
    others.sort(key=lambda row: row[3] if row[3][:1].isdigit() else "", reverse=True)
    return [*first, *others, *last]


def _of_model(model: Mapping[str, Any], kind: str) -> tuple[str, ...]:
    """The row of a model by what its step recorded."""
    aucs = [_auc(model.get(split) or {}) for split in ("val", "test")]
    recall = (model.get("test") or {}).get("recall_at_fpr_1")
    return (model["name"], kind, *aucs, "" if recall is None else f"{100 * recall:.1f} %")


def _auc(measured: Mapping[str, Any]) -> str:
    return str(Estimate(*(measured.get(key) for key in ESTIMATE))) if measured else ""


def _say_comparison(folder: Path) -> None:
    """Print the parity verdicts and where the report is."""
    metrics = read_metrics(folder, "05_parity")
    for sentence in metrics["verdicts"]:
        echo(sentence)
    echo(f"report: {metrics['report']}")


def _say_classes(folder: Path) -> None:
    """Print the table of model classes."""
    columns = {
        "model class": ("model_class", ""),
        "test AUROC [95 %]": ("auroc_text", ""),
        "parameters": ("parameters", ","),
        "seconds an epoch": ("seconds_an_epoch", ".1f"),
        "ms a row": ("ms_a_row", ".2f"),
    }
    found = read_metrics(folder, "06_multimodal")
    rows = found["classes"]
    print_table(columns, ([format(row[key], spec) for key, spec in columns.values()] for row in rows))
    _say_oddities(found)


def _say_surprisal(folder: Path) -> None:
    """Print what a language model's surprisal is worth, alone and beside LSTM2Risk."""
    found = read_metrics(folder, "07_custom_transformer")
    for what, auc in found["alone"].items():
        echo(f"surprisal in {what}, alone: AUROC {auc['value']:.3f} [{auc['low']:.3f}, {auc['high']:.3f}]")
    echo(found["sentence"])


def _say_headlines(folder: Path) -> None:
    """Print what each model's evaluation says in one sentence, and where it is."""
    for found in read_metrics(folder, "08_evaluate").values():
        echo(f"{found['headline']}\nreport: {found['report']}")


def _say_preparation(folder: Path) -> None:
    """Print which rows and times each split has, which columns are no features, and what is odd."""
    found = read_metrics(folder, "01_preprocess")
    counts = _sizes(found)
    for step in found["preparation"]["steps"]:
        if step["rows_dropped"]:
            echo(f"{step['rows_dropped']:,} rows dropped: {step['reason']}")
    for row in found["preparation"]["times"]:
        ends = f": {row['first']} to {row['last']}" if row["first"] else ""
        echo(f"{row['split']}: {counts[row['split']]:,} rows{ends}")
    _say_oddities(found)
    echo(f"a first look at the data: {reports_folder(folder) / 'data.html'}")


def _say_oddities(found: Mapping[str, Any]) -> None:
    say_left_out(found["data"]["left_out"])
    for one in found["preparation"]["findings"]:
        say_finding(one)


def say_left_out(reasons: Mapping[str, str]) -> None:
    """Print which columns are no features, and why."""
    left_out = list(reasons.items())
    for column, reason in left_out[:MAX_TOLD]:
        echo(f"no feature: {column!r}, {reason}")
    if len(left_out) > MAX_TOLD:
        echo(f"no feature: {len(left_out) - MAX_TOLD} more columns, see the notebook of the step")


def say_finding(one: Mapping[str, str]) -> None:
    """Print one finding of a data check: how bad it is, its name, what was seen and what to do."""
    echo(f"{one['severity']}: {one['name']}: {in_words(one)}")


SAY = {
    "01_preprocess": _say_preparation,
    "05_parity": _say_comparison,
    "06_multimodal": _say_classes,
    "07_custom_transformer": _say_surprisal,
    "08_evaluate": _say_headlines,
}


class AtHome(TyperGroup):
    """A command whose paths may begin with ~, after `--option=` too, where a shell leaves it as it is."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:
        """The words of the command, each ~ at the start of a path replaced by the user's folder."""
        found = [re.fullmatch(r"([\w.-]+=|)(~.*)", word) for word in args]
        home = os.path.expanduser  # Path's raises where there is no such user
        words = [f"{m[1]}{home(m[2])}" if m else word for m, word in zip(found, args, strict=True)]
        return super().parse_args(ctx, words)

    def invoke(self, ctx: typer.Context) -> Any:
        """Run a command; Ctrl-C ends it with status 130, without a word."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise typer.Exit(130) from None


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Within it, a warning is a line of the command's own, without a place in the code."""
    with warnings.catch_warnings():
        warnings.showwarning = lambda told, *_: echo(f"n3r: {told}", err=True)
        yield


@contextmanager
def resumable() -> Iterator[None]:
    """Within it, Ctrl-C ends the command with status 130 and a word on how to go on."""
    hook, sys.unraisablehook = sys.unraisablehook, _interrupt_again
    try:
        yield
    except KeyboardInterrupt:
        again = shlex.join(["n3r", *sys.argv[1:]])
        echo(f"\nn3r: stopped; the same command goes on from what is finished: {again}", err=True)
        raise typer.Exit(130) from None
    finally:
        sys.unraisablehook = hook


def _interrupt_again(dropped: "sys.UnraisableHookArgs") -> None:
    """Raise a Ctrl-C anew that Python drops, as any error of a finalizer or of a weak reference's callback.

    These run whenever objects go: among them are asyncio's tasks and the sockets of a kernel.
    """
    if dropped.exc_type is not KeyboardInterrupt:
        return sys.__unraisablehook__(dropped)
    again = threading.Timer(0.05, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT))
    again.daemon = True
    again.start()
