"""A search for parameters as a page: its trials, which parameters decided, the best beside the defaults."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from n3r.files.json_io import plain
from n3r.report import style
from n3r.report.page import Page, Section, Table, cell, glossary, show, write_page
from n3r.report.parts import interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FLATTERED = (
    "The best of many trials was chosen by the rows that judge it here, so its lead is partly luck and its "
    "interval too narrow. Test rows were not read: what they say after a run with it is the figure to trust."
)
SAMPLED = (
    "Trials are fitted on, and judged by, a sample of {n_read:,} of the {n:,} training and validation rows."
)
FEW = "Which parameters decided is said of ten complete trials or more."


def headline(content: Mapping[str, Any]) -> str:
    """What was found in a sentence or two."""
    rows, done = content["judged_by"]["n_rows"], len(content["trials"]) - 1
    aucs = {name: cell(row, *interval("auroc", ".3f")) for name, row in content["auroc"].items()}
    if content["best"] == 0:
        return f"None of {done} trials of {content['step']} is better than the parameters as they are."
    ahead = ""
    if content["difference"]["difference"] is not None:
        ahead = f", difference {cell(content['difference'], *interval('difference', '+.4f'))}"
    return (
        f"Of {done} trials of {content['step']} trial {content['best']} is the best: AUROC {aucs['best']} on "
        f"{rows:,} validation rows, with the parameters as they are {aucs['defaults']}{ahead}."
    )


def write_tuning(content: Mapping[str, Any], folder: Path, stem: str) -> Path:
    """Write <stem>.html, .md and .json of `tuning.described` into a folder; return the page's path."""
    content = plain(dict(content))
    trials, figure = content["trials"], content["judged_by"]["figure"]
    states = [trial["state"] for trial in trials[1:]]
    tiles = [
        (str(len(states)), "trials"),
        (str(states.count("pruned")), "of them stopped early"),
        (cell(content["difference"], *interval("difference", "+.4f")), "AUROC of the best less that before"),
    ]
    rows = content["rows"]
    notes = [FLATTERED, *([SAMPLED.format(**rows)] if rows["n_read"] < rows["n"] else [])]
    sections = [
        Section("The best", [], [_parameters(content)], notes),
        Section("What decided", *_importance(content["importance"])),
        Section("All trials", [("Trials", _history(content))], [_trials(trials, figure)]),
    ]
    words = glossary("AUROC", "[low, high], 95 % interval", "n/a")
    page = Page(f"Parameters of {content['step']}", headline(content), tiles, sections, words)
    return write_page(page, content, folder, stem)


def _parameters(content: Mapping[str, Any]) -> Table:
    """Each parameter searched: before, in the best trial, and what it could have been."""
    best, rows = content["trials"][content["best"]]["values"], []
    for name, spec in content["space"].items():
        own, _, key = name.partition(".")
        before = content["parameters"][own]
        before = before.get(key) if key else before
        ends = ", ".join(map(_value, spec)) if isinstance(spec, list) else _between(spec)
        rows.append((name, ends, _value(before), _value(best.get(name, before))))
    return Table("", ("parameter", "searched", "before", "best"), rows)


def _between(spec: Mapping[str, Any]) -> str:
    return f"{_value(spec['low'])} to {_value(spec['high'])}{', by its logarithm' if spec['log'] else ''}"


def _value(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else show(value)


def _importance(shares: Mapping[str, float]) -> "tuple[list[tuple[str, Axes]], list[Table], list[str]]":
    if not shares:
        return [], [], [FEW]
    height = style.rows_height(len(shares))
    with style.canvas(None, "Importance", height=height, xlabel="share (PED-ANOVA)") as ax:
        style.draw_bars(ax, list(shares), list(shares.values()))
    return [("Importance", ax)], [], []


def _history(content: Mapping[str, Any]) -> "Axes":
    trials, judged = content["trials"], content["judged_by"]
    done = [trial for trial in trials if trial["state"] == "complete"]
    numbers, values = [trial["number"] for trial in done], [trial["value"] for trial in done]
    so_far = (np.maximum if judged["maximised"] else np.minimum).accumulate(values)
    labels = {"xlabel": "trial", "ylabel": judged["figure"]}
    with style.canvas(None, "Trials", height=style.HEIGHT * 0.85, **labels) as ax:
        style.draw_level(ax, values[0], "before")
        ax.plot(numbers, values, color=style.BLUE, marker="o", ls="none", label="complete")
        ax.step(numbers, so_far, where="post", color=style.RED, label="best so far")
        stopped = [trial for trial in trials if trial["state"] == "pruned" and trial["epochs"]]
        ends = [trial["number"] for trial in stopped], [trial["epochs"][-1] for trial in stopped]
        ax.plot(*ends, color=style.GREY, marker="x", ls="none", label="stopped early")
        ax.xaxis.get_major_locator().set_params(integer=True)
        style.legend_below(ax)
    return ax


def _trials(trials: list[dict[str, Any]], figure: str) -> Table:
    names = list(dict.fromkeys(name for trial in trials for name in trial["values"]))
    rows = [
        (
            str(trial["number"]) if trial["number"] else "before",
            trial["why"] or trial["state"],
            show(trial["value"], ".4f"),
            str(len(trial["epochs"]) or ""),
            *(_value(trial["values"][name]) if name in trial["values"] else "" for name in names),
        )
        for trial in trials
    ]
    return Table("", ("trial", "state", figure, "epochs", *names), rows)
