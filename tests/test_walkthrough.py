"""The README's way from a messy file to scores, command by command."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from n3r import tables
from n3r.preprocess import prepare
from n3r.proposal.propose import propose
from n3r.schema import LABEL, ColumnMap
from n3r.synthetic.shop import shop_orders, write_shop

ROOT = Path(__file__).parents[1]
SECTION = (
    (ROOT / "README.md").read_text().partition("## From a messy file to scores")[2].partition("\n## ")[0]
)
COMMANDS, MAP = re.findall(r"```\w*\n(.*?)```", SECTION, re.DOTALL)[:2]


@pytest.fixture(scope="module")
def shop(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("shop")
    write_shop(folder, 3000)
    return folder


def test_the_readme_shows_the_map_that_is_proposed(shop):
    shown = json.loads(MAP)
    assert shown.pop("$schema") == "../configs/column_map.schema.json"
    proposal = propose([str(shop / "orders.csv")])
    assert proposal.content == shown and proposal.guesses == []


def test_what_the_shop_wrote_is_what_a_run_reads(shop):
    m = ColumnMap(**json.loads(MAP))
    source = tables.scan(shop / "orders.csv", m)
    prepared = prepare(source.frame, m, n_rows=source.n_rows)
    found = pl.concat(prepared.splits.values()).sort("Order no.")
    written = (
        shop_orders(3000).filter(pl.col("Order no.").is_in(found["Order no."].implode())).sort("Order no.")
    )
    assert (
        found.height > 1500 and found[LABEL].to_list() == (written["Fraud"] == "yes").cast(pl.Int64).to_list()
    )
    amounts = written["Amount"].str.replace_all(r"[.€ ]", "").str.replace(",", ".").cast(pl.Float32)
    assert found["Amount"].equals(amounts.alias("Amount"))
    assert found["Card holder"].equals(written["Card holder"])


@pytest.mark.slow
def test_the_commands_of_the_readme_lead_from_a_messy_file_to_scores(tmp_path):
    """At dev size, in a folder and a run of their own."""
    name = f"walkthrough-{tmp_path.name}"
    lines = [line.partition("#")[0] for line in COMMANDS.strip().splitlines()]
    assert len(lines) == 5
    try:
        for line in lines:
            words = [word.replace("runs/shop", f"runs/{name}") for word in shlex.split(line)]
            words = [name if word == "shop" and words[0] == "n3r" else word for word in words]
            words = [re.sub(r"^shop(?=/|$)", str(tmp_path / "shop"), word) for word in words]
            if words[0] == "python":
                words = [sys.executable, *words[1:], "4000"]
            else:
                words = [
                    sys.executable,
                    "-m",
                    "n3r.cli",
                    *words[1:],
                    *(["--size", "dev"] if words[1] == "run" else []),
                ]
            done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
            assert done.returncode == 0, (line, done.stdout[-2000:], done.stderr[-2000:])
        scores = pl.read_csv(tmp_path / "shop" / "scores.csv")
        assert scores.columns[:2] == ["Order no.", "score"] and scores["score"].is_between(0, 1).all()
        command = [sys.executable, "-m", "n3r.cli", "run", "01", "--size", "dev", "--name", f"{name}-alone"]
        command += ["--data", str(tmp_path / "shop" / "orders.csv")]  # without a map
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0 and f"column map: runs/{name}-alone/map.json, as proposed" in done.stdout
        new = (tmp_path / "shop" / "new.csv").read_bytes().decode("utf-16").count("\n") - 1
        assert scores.height == new
    finally:
        for top in ("runs", "reports"):
            for run in (name, f"{name}-alone"):
                shutil.rmtree(ROOT / top / run, ignore_errors=True)
