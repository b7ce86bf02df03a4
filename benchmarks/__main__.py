"""Every benchmark, one after the other, and what they found: reports/benchmarks.md and its plot.

    python -m benchmarks                    all, some 75 minutes on two cores that do nothing else
    python -m benchmarks --resume           the same, without the programs that an interrupted run finished
    python -m benchmarks --smoke            each program and case once, tiny, in this process; no report
    python -m benchmarks --only train       those whose command has this word; no report
    python -m benchmarks --renew train      the same, and their rows of the report anew

A figure is a ratio to the legacy in the same run, the median of at least three pairs; each program says what
it measures.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
from contextlib import redirect_stdout
from datetime import date
from importlib import import_module
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks import published
from n3r.files.manifest import versions
from n3r.report.style import COLOURS, canvas, heading, legend_below, to_svg

ROOT = Path(__file__).resolve().parent.parent
FINISHED = ROOT / "runs" / "benchmarks.json"  # what each program printed
REPORT = ROOT / "reports" / "benchmarks.md"
ON_DISK, GROWTH_ON_DISK = "prepare out-of-core", "benchmarks_out_of_core.svg"
PUBLISHED = "Speed and size at the published dimensions"  # a section of the report


class Program(NamedTuple):
    """One row of the report."""

    what: str
    command: str
    smoke: str | None  # options that make it tiny; None: a smoke leaves it out, a neighbour runs the same
    figures: dict[str, str] = {"n3r": "n3r", "legacy": "legacy", "ratio": "ratio"}  # shown -> key
    asked: str = ""


STORE = {"anonymous MB": "anonymous_mb", "all MB": "all_mb"}
TINY_TRAIN, TINY_PREPARE = "--pairs 1 --batch 16", "--pairs 1 --rows 5000"
TINY_SCORE = "--small --pairs 1 --rows 300"
SPEEDS = {"rows/s": "rows_a_second", "ratio": "median_ratio"}
LATENCY = {"ms": "p50_ms", "ratio": "ratio"}
EPOCHS = {"first epoch": "ratio_first", "later ones": "ratio_later", "ten": "ratio_of_10_epochs"}
PEAK = {"orders/s": "orders_a_second", "peak MB": "peak_mb"}
PROGRAMS = (
    Program("train LSTM2Risk, names, orders/s", "train lstm2risk names", TINY_TRAIN, asked="ratio 3, aim 5"),
    Program("train LSTM2Risk, long texts", "train lstm2risk bots", None, asked="ratio 15, aim 30"),
    Program("train Transformer2Risk, names", "train transformer2risk names", None, asked="5, aim 9"),
    Program("train Transformer2Risk, long texts", "train transformer2risk bots", None, asked="5, aim 9"),
    Program(
        "test AUC, 3 seeds",
        "quality",
        None,  # notebooks 01 to 05, which nbval runs
        {name: name for name in ("n3r", "legacy", "difference", "low", "high")},
        "difference above -0.003",
    ),
    Program("train a tokenizer, s", "prepare tokenizer", TINY_PREPARE, asked="ratio 8, aim 15"),
    Program("tokenise and collate, ratios", "prepare epoch", TINY_PREPARE, EPOCHS, "ratio 20, aim 50"),
    Program("preprocess", "prepare preprocess", TINY_PREPARE, PEAK, "500,000 orders/s, 4,000 MB"),
    Program(
        "train from a token store, by rows, beyond the model",
        "store 1000000 10000000 30000000 --steps 20",
        None,  # it trains in processes of its own, which load torch; tests run it
        STORE,
        "2,000 MB, flat",
    ),
    Program("preprocess out of core, 1 GB", ON_DISK, "--rows 2000", PEAK, "200,000 orders/s, 1,200 MB, flat"),
    Program(
        "preprocess wide tables, s",
        "prepare wide",
        None,  # a smoke would take seconds; tests run it
        {name: name for name in ("parquet", "csv", "ratio")},
        "ratio 3",
    ),
    Program(
        "preprocess on two nodes of Ray",
        "prepare ray",
        None,  # it takes a network of its own; tests run the engine
        {"ratio to in memory": "ratio", "peak MB": "peak_mb"},
        "ratio 4, 4,000 MB",
    ),
    Program("train, by orders", "prepare memory", "--rows 2000", {"peak MB": "peak_mb"}, "2,000 MB grown"),
    Program("score with LSTM2Risk", "score lstm2risk batch", TINY_SCORE, SPEEDS, "ratio 3, aim 8"),
    Program("score with Transformer2Risk", "score transformer2risk batch", None, SPEEDS, "3, aim 8"),
    Program("one order, LSTM2Risk", "score lstm2risk latency", None, LATENCY),
    Program("one order, Transformer2Risk", "score transformer2risk latency", TINY_SCORE, LATENCY),
    Program("import to first score, LSTM2Risk", "score lstm2risk cold", None, {"s": "median_s"}),
    Program("score files, by rows", "score lstm2risk memory --small", TINY_SCORE, {"peak MB": "peak_mb"}),
    Program(
        "score a file on Ray, a worker a processor, beside one thread",
        "cluster",
        None,  # it starts Ray; a test runs it
        {"ratio": "ratio", "s": "s", "until rows are asked for": "start"},
        "ratio 1.6, aim 1.9",
    ),
    Program(
        "identity features",
        "identity",
        "--rows 2000",
        {"s": "seconds", "peak MB": "peak_mb", "ms an order": "p50_ms"},
        "60 s, 2,000 MB",
    ),
    Program(
        "the best recipe beside LSTM2Risk",
        "best",
        "--rows 700 --pairs 1",
        {"fit s": "fit_seconds", "rows/s": "rows_a_second", "ratio": "ratio", "ms an order": "p50_ms"},
        "180 s, ratio 1, 2 ms",
    ),
    Program(
        "n3r.fit of 20,000 rows; decisions and reasons of 1,000 in 100,000; n3r monitor of a million",
        "front",
        "--rows 700 500 700",
        {
            "fit s": "fit_seconds",
            "decisions, ratio": "decide_ratio",
            "monitor s": "monitor_seconds",
            "peak MB": "monitor_peak_mb",
        },
        "180 s, ratio 1.5, 60 s, 2,000 MB",
    ),
    *(
        Program(
            f"{case} beside one busy program a processor, of a fair share",
            f"company {case}",
            None,  # its processes would each load torch
            {"n3r": "n3r_of_fair_share", "defaults": "defaults_of_fair_share", "alone, ratio": "alone_ratio"},
            "0.33, alone 0.95",
        )
        for case in ("train", "score")
    ),
    Program(
        PUBLISHED,
        "published",
        "--small --rows 64 --scored 5 --systems lstm2risk legacy_lstm2risk",
        {},
    ),
    Program(
        "evaluation report, by scored rows",
        "report 1000000 10000000",
        None,  # it runs in processes of its own, and takes none but these rows; tests run it
        {"s": "seconds", "peak MB": "peak_mb"},
        "4,000 MB",
    ),
    Program(
        "hand-written step, ms",
        "custom_transformer",
        "--small --pairs 1 --steps 1",
        {"by hand": "written", "autograd": "autograd", "time ratio": "ratio", "peak MB": "peak_mb"},
        "time ratio 2",
    ),
)
SMOKED = (  # what has no row in the report
    "profile lstm2risk names --system n3r --steps 1 --batch 16",
    "profile transformer2risk bots --system legacy --steps 1 --batch 16",
    "peers --smoke",
    "quality seeds --rows 1000 --seeds 0 --members boosting lstm2risk",
    "quality ablation --rows 1000 --seeds 0 --members boosting lstm2risk",
)


def run(command: str) -> list[dict[str, Any]]:
    """The JSON lines that a program prints, in a process of its own."""
    module, *options = f"benchmarks.{command}".split()
    print(f"{module} {' '.join(options)} ...", file=sys.stderr, flush=True)
    done = subprocess.run(
        [sys.executable, "-m", module, *options], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def run_here(command: str) -> list[dict[str, Any]]:
    """The same in this process, which has imported everything already: quicker, and no measurement."""
    module, *sys.argv[1:] = f"benchmarks.{command}".split()
    print(f"{module} {' '.join(sys.argv[1:])} ...", file=sys.stderr, flush=True)
    with redirect_stdout(StringIO()) as out:
        import_module(module).main()
    return [json.loads(line) for line in out.getvalue().splitlines()]


Lines = dict[str, list[dict[str, Any]]]  # command -> what it printed
Growth = dict[str, dict[int, dict[str, float]]]  # stage -> orders -> seconds, and peak_mb where measured


def growth(lines: Lines) -> Growth:
    """Seconds and peak memory of each stage, by the number of orders."""
    prepared = [run(f"prepare preprocess --rows {n} --pairs 1")[-1] for n in (10_000, 100_000, 1_000_000)]
    prepared.append(lines["prepare preprocess"][-1])
    trained, scored = lines["prepare memory"][:-1], lines["score lstm2risk memory --small"][:-1]
    found = {"preprocessing": prepared, "tokenizer and an epoch": trained, "scoring": scored}
    growing = {stage: by_rows(rows) for stage, rows in found.items()}
    for stage in ("tokenizer", "epoch"):
        growing[stage] = {row["rows"]: {"seconds": row[f"{stage}_seconds"]} for row in trained}
    return growing


def by_rows(lines: list[dict[str, Any]]) -> dict[int, dict[str, float]]:
    """Seconds and peak memory by the number of rows."""
    return {line["rows"]: {key: line[key] for key in ("seconds", "peak_mb")} for line in lines}


def plot(found: Growth) -> str:
    """Seconds and memory by orders, both scales logarithmic; the grey line grows in proportion."""
    from matplotlib.figure import Figure

    fig = Figure(figsize=(8.4, 3.6), layout="constrained")
    for place, (key, name) in enumerate((("seconds", "seconds"), ("peak_mb", "peak memory, MB"))):
        with canvas(fig.add_subplot(1, 2, place + 1)) as ax:
            for colour, (what, rows) in zip(COLOURS, found.items(), strict=False):
                values = {n: row[key] for n, row in rows.items() if key in row}
                if values:
                    ax.loglog(list(values), list(values.values()), color=colour, marker="o", label=what)
            first, last = min(map(min, found.values())), max(map(max, found.values()))
            top = max(row[key] for rows in found.values() for row in rows.values() if key in row)
            ax.loglog([first, last], [top * first / last, top], color="#aaaaaa", lw=1, label="in proportion")
            ax.set(xlabel="orders", ylabel=name)
            legend_below(ax)
            heading(ax, name.capitalize())
    return to_svg(fig)


def shown(value: Any) -> str:
    """A figure, or one a size."""
    if isinstance(value, dict):
        return ", ".join(f"{shown(inner)} ({size})" for size, inner in value.items())
    if isinstance(value, float):
        return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
    return str(value)


def profiles() -> list[str]:
    """The operations that a training step of each system spends its time on, in Markdown."""
    text = []
    for model in ("lstm2risk", "transformer2risk"):
        text += [f"`profile {model} names`, share of the time and milliseconds per step:", ""]
        text += ["| legacy | share | ms | n3r | share | ms |", "|---|---|---|---|---|---|"]
        command = f"profile {model} names --top 8 --system"
        for pair in zip(*(run(f"{command} {system}") for system in ("legacy", "n3r")), strict=True):
            cells = (f"`{row['operation']}` | {row['share']:.0%} | {row['ms']:,.0f}" for row in pair)
            text.append(f"| {' | '.join(cells)} |")
        text.append("")
    return text[:-1]


def sizes(found: dict[str, Any]) -> str:
    """How large and of which kind what a program measured was, as far as its last line says."""
    words = {
        "rows": "{:,} rows",
        "batch": "batches of {}",
        "mean_tokens": "{} tokens in the mean",
        "longest": "{} at most",
    }
    parts = [text.format(found[key]) for key, text in words.items() if key in found]
    types = found.get("dtype", {})
    parts.append(types if isinstance(types, str) else " beside ".join(types.values()))
    return ", ".join(filter(None, parts))


def processor() -> str:
    """The name of this machine's processor."""
    info = Path("/proc/cpuinfo")
    text = info.read_text(encoding="utf-8") if info.is_file() else ""
    if names := re.findall(r"^model name\s*:\s*(.+)$", text, re.MULTILINE):
        return names[-1]
    return platform.processor() or platform.machine()


def row(program: Program, found: dict[str, Any]) -> str:
    """A program's row of the table, in Markdown."""
    figures = "; ".join(f"{name} {shown(found[key])}" for name, key in program.figures.items())
    cells = program.what, figures, program.asked, sizes(found), f"`{program.command}`", f"{date.today()}"
    return f"| {' | '.join(cells)} |"


def head() -> list[str]:
    """What stands above the table."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU was available"
    libraries = ", ".join(f"{name} {version}" for name, version in versions().items())
    return [
        "# Benchmarks",
        "",
        f"{processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, {gpu}.",
        f"{libraries}.",
        "",
        "Written by `make bench`. A row's command is `python -m benchmarks.` and its words; it says what is",
        "measured. Figures are medians of at least three pairs; `ratio` is the legacy's time by n3r's.",
        "Scoring and the hand-written transformer are measured in float32, `int8` with 8-bit weights.",
    ]


def pictures(lines: Lines, whole: bool) -> dict[str, list[str]]:
    """The sections of the report that have plots, which are drawn, and profiles; those of a `whole` run."""
    more = {}
    if whole:
        REPORT.with_suffix(".svg").write_text(plot(growth(lines)), encoding="utf-8")
        more["Growth"] = ["![Seconds and memory by orders](benchmarks.svg)"]
        more["Where a training step's time goes"] = profiles()
    if ON_DISK in lines:
        found = {"preparation on disk": by_rows(lines[ON_DISK][:-1])}
        REPORT.with_name(GROWTH_ON_DISK).write_text(plot(found), encoding="utf-8")
        more["Growth out of core, with 1 GB"] = [f"![Seconds and memory by orders]({GROWTH_ON_DISK})"]
    return more


def sections(page: str) -> dict[str, list[str]]:
    """Heading -> lines of a report's sections below its table."""
    parts = (part.partition("\n") for part in page.split("\n## ")[1:])
    return {heading: text.strip("\n").split("\n") for heading, _, text in parts}


def report(lines: Lines, before: str = "", more: dict[str, list[str]] | None = None) -> str:
    """The report in Markdown, with `more` sections; what was not measured now is as in the one `before`."""
    old = (line for line in before.partition("\n## ")[0].split("\n") if line.endswith(" |"))
    rows = {line.split(" | ")[-2]: line for line in old}
    rows |= {f"`{p.command}`": row(p, lines[p.command][-1]) for p in PROGRAMS if p.command in lines}
    table = [rows[f"`{p.command}`"] for p in PROGRAMS if p.figures and f"`{p.command}`" in rows]
    text = [*head(), "", "| what | figures | asked | of | command | measured |", "|---" * 6 + "|", *table]
    parts = sections(before) | (more or {})
    if "published" in lines:
        found = lines["published"][-1]
        told = f"`published`, {date.today()}, {found['rows']:,} orders to train on, "
        told += f"threads: {found['threads']}."
        parts[PUBLISHED] = [told, "", *published.markdown(found["systems"])]
    for heading_line, part in parts.items():
        text += ["", f"## {heading_line}", "", *part]
    return "\n".join(text) + "\n"


def main() -> None:
    """Run what is asked for; write the report of a whole run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, and no report")
    parser.add_argument("--only", default="", help="a word of the commands to run")
    parser.add_argument("--renew", default="", help="the same, and their rows of the report anew")
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted run")
    arguments = parser.parse_args()
    word = arguments.only or arguments.renew
    chosen = [program for program in PROGRAMS if word in program.command]
    if arguments.smoke:
        smokes = [program for program in chosen if program.smoke is not None]
        print(report({each.command: run_here(f"{each.command} {each.smoke}") for each in smokes}))
        for command in [] if word else SMOKED:
            run_here(command)
        return
    lines = (
        json.loads(FINISHED.read_text(encoding="utf-8")) if arguments.resume and FINISHED.is_file() else {}
    )
    for program in chosen:
        if program.command not in lines:
            lines[program.command] = run(program.command)
            if not word:
                FINISHED.parent.mkdir(exist_ok=True)
                FINISHED.write_text(json.dumps(lines))
    print(report(lines))
    if not arguments.only:
        before = REPORT.read_text(encoding="utf-8") if REPORT.is_file() else ""
        REPORT.write_text(report(lines, before, pictures(lines, not word)), encoding="utf-8")


if __name__ == "__main__":
    main()
