"""The notebooks' form: reports that call the package, with literal parameters and fresh outputs."""

import ast
import json
import re
from pathlib import Path

import pytest

from n3r.pipeline import STEPS, notebook_parameters

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = [step.name for step in STEPS]


def _cells(name: str, kind: str) -> list[dict]:
    book = json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text())
    return [{**c, "source": "".join(c["source"])} for c in book["cells"] if c["cell_type"] == kind]


def _tagged(name: str, tag: str) -> list[dict]:
    return [cell for cell in _cells(name, "code") if tag in cell["metadata"].get("tags", [])]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_defines_nothing_and_stays_short(name):
    code = _cells(name, "code")
    trees = [ast.parse(cell["source"]) for cell in code]
    assert not [n for t in trees for n in ast.walk(t) if isinstance(n, ast.FunctionDef | ast.ClassDef)]
    parameters = _tagged(name, "parameters")[0]["source"]
    assert all(c["source"].count("\n") < (50 if c["source"] == parameters else 30) for c in code)
    assert sum(bool(line.strip()) for c in code for line in c["source"].splitlines()) <= 110
    imports = [
        i for i, t in enumerate(trees) if any(isinstance(n, ast.Import | ast.ImportFrom) for n in t.body)
    ]
    assert imports == [0]
    assert len(_cells(name, "markdown")) >= 0.4 * len(code)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_one_parameters_cell_of_literals_with_comments(name):
    (cell,) = _tagged(name, "parameters")
    for node in ast.parse(cell["source"]).body:
        assert isinstance(node, ast.AnnAssign)  # papermill shows the type
        ast.literal_eval(node.value)
    assert all(spec["help"] for spec in notebook_parameters(name).values())


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_outputs_are_fresh_and_compared(name):
    code = _cells(name, "code")
    counts = [cell["execution_count"] for cell in code]
    assert counts == list(range(1, len(code) + 1)), "run `make notebooks`"
    checked = _tagged(name, "nbval-check-output")
    assert checked and all(cell["outputs"] for cell in checked), "nbval would compare nothing"
    assert not [o for cell in code for o in cell["outputs"] if o["output_type"] == "error"]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_file_is_clean(name):
    path = ROOT / "notebooks" / f"{name}.ipynb"
    book = json.loads(path.read_text())
    assert path.stat().st_size < 300_000
    assert "papermill" not in book["metadata"]
    assert book["metadata"]["kernelspec"]["name"] == "python3"
    assert not re.search(r"(?<![\w.])/(home|root|work|tmp)/", path.read_text())


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_preview_shows_no_identity(name):
    text = (ROOT / "notebooks" / f"{name}.ipynb").read_text()
    addresses = set(re.findall(r"[\w.+-]+@[\w-]+\.[a-z]+", text))
    assert {a for a in addresses if not a.endswith(("example.com", "example.org"))} <= {
        a for a in addresses if set(a) <= set("Aa9@.-_+")
    }


@pytest.mark.parametrize("name", [name for name in NOTEBOOKS if name >= "03"])
def test_the_first_cell_answers_with_a_number_and_its_interval(name):
    (answer,) = re.findall(r"\*\*Answer\.\*\* [^\n]+", _cells(name, "markdown")[0]["source"])
    assert re.search(r"\d\.\d{3,4}[^\[]* \[[+-]?\d\.\d+, [+-]?\d\.\d+\]", answer), "run `make notebooks`"
