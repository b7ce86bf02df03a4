"""The page in a real browser: its slider shows what the rules of `n3r score` choose, its parts fold."""

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from n3r.evaluation.evaluate import evaluate_model
from n3r.report.evaluation import write_evaluation
from n3r.rows.amounts import amounts
from n3r.schema import AMOUNT, LABEL, SCORE, SEGMENT
from n3r.thresholds import Ranking, Rule

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-sync"
FLAGS += " --disable-component-update --window-size=1280,800 --virtual-time-budget=3000 --dump-dom"
# What a reader does, and what the page shows then. The page's own policy would not let it run.
ACT = """
const box = document.querySelector(".slider"), shown = {};
const act = (name, value) => {
  const one = box.querySelector(`[name="${name}"]`);
  one.value = value;
  one.dispatchEvent(new Event("input", { bubbles: true }));
};
const read = name => {
  shown[name] = { threshold: box.querySelector("output").textContent };
  for (const cell of box.querySelectorAll("[data-figure]"))
    (shown[name][cell.dataset.figure] ??= []).push(cell.textContent);
};
read("fpr");
act("capacity", 40); read("capacity");
act("missed", 300); box.querySelector("button").click(); read("cheapest");
act("at", 0); read("none");
const folded = document.querySelector(".part:not([open])");
shown.screens = folded.offsetTop / 800;
document.querySelector(`nav a[href="#${folded.id}"]`).click();
shown.open = folded.open;
document.body.dataset.shown = JSON.stringify(shown);
"""
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium: its package brings a real browser"),
]


def scored(n: int, seed: int, worth: bool) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    p = rng.beta(0.5, 6, n)
    amount = {AMOUNT: rng.gamma(2, 30, n)} if worth else {}
    return pl.DataFrame(
        {LABEL: (rng.random(n) < p).astype(int), SCORE: p, SEGMENT: rng.choice(["DE", "FR"], n), **amount}
    )


def shown(page: Path, folder: Path) -> dict:
    """What a browser shows after a reader's acts."""
    html = re.sub(r'<meta http-equiv="Content-Security-Policy".*?>', "", page.read_text(encoding="utf-8"))
    acted = folder / "acted.html"
    acted.write_text(html.replace("</body>", f"<script>{ACT}</script></body>"), encoding="utf-8")
    command = [CHROMIUM, *FLAGS.split(), f"--user-data-dir={folder / 'profile'}", acted.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return json.loads(unescape(re.search(r'data-shown="(.*?)"', done.stdout)[1]))


def expected(decision, rows: pl.DataFrame, missed: float) -> dict[str, float]:
    """What a threshold does on rows; 500 orders a day, a false alarm costs 10."""
    fraud, flagged = rows[LABEL].to_numpy() == 1, decision.flags(rows[SCORE].to_numpy())
    worth = amounts(rows)
    lost = (fraud & ~flagged) @ (np.ones(len(rows)) if worth is None else worth)
    cost = (missed * lost + 10 * (flagged & ~fraud).sum()) / len(rows)
    found = {} if worth is None else {"amount": 100 - 100 * lost / (fraud @ worth)}
    return found | {
        "recall": 100 * flagged[fraud].mean(),
        "precision": 100 * fraud[flagged].mean(),
        "fpr": 100 * flagged[~fraud].mean(),
        "flagged": 100 * flagged.mean(),
        "alerts": 500 * flagged.mean(),
        "cost": 1000 * cost,
        "daily": 500 * cost,
    }


@pytest.mark.parametrize("worth", [False, True])
def test_the_slider_shows_what_the_rules_of_scoring_choose(tmp_path, worth):
    test, val = scored(4000, 0, worth), scored(3000, 1, worth)
    content = {"name": "m", **evaluate_model(test, None, None, val, orders_a_day=500.0)}
    page = write_evaluation(content, {"m": (test[LABEL], test[SCORE])}, tmp_path, "m")
    found = shown(page, tmp_path)
    ranking = Ranking.of(val[LABEL].to_numpy() == 1, val[SCORE].to_numpy(), amounts(val))
    default = content["config"]["cost_missed"]
    rules = {
        "fpr": (Rule(fpr=0.01), default),
        "capacity": (Rule(budget="40/day"), default),
        "cheapest": (Rule(cost_missed=300, cost_alarm=10), 300),
    }
    for name, (rule, missed) in rules.items():
        decision = ranking.decide(rule, 500)
        assert float(found[name].pop("threshold")) == float(f"{decision.threshold:.6g}")
        for at, rows in enumerate((val, test)):
            for figure, value in expected(decision, rows, missed).items():
                text = found[name][figure][at].removesuffix(" %").replace(",", "")
                assert float(text) == pytest.approx(value, abs=0.051 if "." in text else 0.51), (name, figure)
    assert found["none"]["threshold"].startswith("none") and found["none"]["precision"] == ["n/a", "n/a"]
    assert found["screens"] <= 6 and found["open"]
