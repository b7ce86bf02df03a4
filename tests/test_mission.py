"""docs/mission.md and the docs' figures: commands exist, CI runs the tests, reports have the figures."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MISSION = ROOT / "docs" / "mission.md"
REPORTS = [ROOT / "README.md", *(ROOT / "reports").glob("*.md"), ROOT / "reports" / "example" / "report.md"]
FIGURE = re.compile(
    r"(?<![\w.])(?:\d[\d,]*\.\d+(?:e-\d+)?|\d[\d,]*\d{2})"
)  # with decimals, or of three digits and more


def rows() -> list[list[str]]:
    """The cells of each row of the tables of systems and of criteria."""
    text = MISSION.read_text().partition("## Speed and size")[0]
    lines = [line for line in text.split("\n") if line.startswith("| ")]
    tables = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return [row for row in tables if row[-1].strip() != "date"]


def figures(text: str) -> set[str]:
    """The figures of a text, without commas."""
    return {found.replace(",", "") for found in FIGURE.findall(text)}


def is_slow(test: str) -> bool:
    """Whether a test, `file.py::name`, is marked slow; KeyError where there is none."""
    file, _, name = test.partition("::")
    tree = ast.parse((ROOT / "tests" / file).read_text())
    tests = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    return "pytest.mark.slow" in {ast.unparse(mark) for mark in tests[name].decorator_list}


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0][:40])
def test_a_row_names_what_shows_it_and_when(row):
    *_, shown_by, found, date = row
    assert re.fullmatch(r"-|2026-\d\d-\d\d", date)
    assert bool(figures(found)) == (date != "-"), "a figure has its date"
    commands = re.findall(r"`([^`]+)`", shown_by)
    for test in [command.split()[1] for command in commands if command.startswith("pytest ")]:
        assert found == ("slow" if is_slow(test) else "CI") or figures(found)
    programs = [command.split()[2] for command in commands if command.startswith("python -m ")]
    assert [p for p in programs if not (ROOT / f"{p.replace('.', '/')}.py").is_file()] == []


def test_each_measured_figure_stands_in_a_report():
    known = set().union(*(figures(page.read_text()) for page in REPORTS))
    assert {figure for row in rows() for figure in figures(row[-2])} - known == set()


@pytest.mark.parametrize("page", [MISSION, ROOT / "docs" / "figures.md"], ids=lambda page: page.name)
def test_figures_of_speed_are_those_of_the_benchmarks_report(page):
    section = re.search(r"## Speed and (?:memory|size)\n(.*?)(?=\n## |\Z)", page.read_text(), re.DOTALL)[1]
    measured = re.sub(r"\| published[^\n]*", "", section)  # rows of the plan's own expectations
    known = figures((ROOT / "reports" / "benchmarks.md").read_text())
    assert figures(measured) and figures(measured) - known == set()
