"""The house itself: layers, import weight, the README's map, nothing of one machine in the files."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# A module imports only from rows above its own.
LAYERS = [
    [
        "schema",
        "clean",
        "metrics",
        "legacy",
        "synth",
        "messages",
        "pretrained",
        "processes",
        "memory",
        "lock",
        "limits",
        "whole",
        "spelling",
    ],
    ["custom_layers"],
    ["manifest", "calibrate", "card", "records"],
    ["decisions", "reliability", "groups", "origin", "stability", "failures", "attacks", "baselines"],
    ["tables", "preprocess", "features", "tokenizer", "canvas", "custom_transformer"],
    ["plots", "evaluation_plots", "language_plots", "page"],
    ["rows", "vocabulary", "data", "text"],
    ["score", "scored", "fusion", "bert", "tabular", "corpus"],
    ["model", "comparison", "evaluation", "language_model"],
    ["comparison_report", "evaluation_report"],
    ["export", "train"],
    ["bundle"],
    ["ablation", "learning", "report", "published"],
    ["parity", "interop"],
    ["pipeline"],
    ["cli"],
]
MODULES = sorted(path.stem for path in (ROOT / "n3r").glob("*.py") if path.stem != "__init__")
TRACKED = subprocess.run(
    ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
).stdout.split("\n")[:-1]


def _imported(module: str) -> list[str]:
    tree = ast.parse((ROOT / "n3r" / f"{module}.py").read_text())
    found = [n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module]
    found += [a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names]
    names = [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module == "n3r"]
    return [m.removeprefix("n3r.") for m in found if m.startswith("n3r.")] + [
        alias.name for node in names for alias in node.names
    ]


def test_every_module_has_its_row():
    assert sorted(name for row in LAYERS for name in row) == MODULES


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_upward_only(module):
    row = next(i for i, names in enumerate(LAYERS) if module in names)
    above = [name for names in LAYERS[:row] for name in names]
    assert [name for name in _imported(module) if name not in above] == []


def test_importing_n3r_is_light_and_leaves_nothing(tmp_path):
    code = (
        "import sys, time; start = time.perf_counter(); import n3r; "
        "print(time.perf_counter() - start, 'torch' in sys.modules, 'polars' in sys.modules)"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout.split()
    assert out[1:] == ["False", "False"]
    assert list(tmp_path.iterdir()) == []


def test_modules_draw_without_pyplot(tmp_path):
    code = (
        "import sys, n3r.pipeline, n3r.plots, n3r.report; "
        "print('matplotlib.pyplot' in sys.modules, 'papermill' in sys.modules)"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert out.stdout.split() == ["False", "False"]


def test_readme_maps_every_file_of_the_package_and_the_notebooks():
    readme = (ROOT / "README.md").read_text()
    files = [f"{module}.py" for module in MODULES]
    files += [path.stem for path in (ROOT / "notebooks").glob("*.ipynb")]
    files += [path.name for path in (ROOT / "configs").glob("*.json")]
    assert [name for name in files if name not in readme] == []


def test_readme_commands_exist():
    readme = (ROOT / "README.md").read_text()
    makefile = (ROOT / "Makefile").read_text()
    targets = sorted(set(re.findall(r"(?:^|`)make ([a-z]+)", readme, re.MULTILINE)))
    assert targets
    assert [t for t in targets if not re.search(rf"^{t}:", makefile, re.MULTILINE)] == []


def test_no_path_of_one_machine_and_no_registry_host():
    found = []
    for name in TRACKED:
        path = ROOT / name
        if path.suffix in {".png", ".parquet", ".html"} or not path.is_file():
            continue
        text = path.read_text()
        if re.search(r"(?<![\w.])/(work|root|home)/", text) or re.search(
            r"pypi\.org|files\.pythonhosted", text
        ):
            found.append(name)
    assert [name for name in found if name != "tests/test_repo.py"] == []


def test_no_module_unpickles():
    """The published layout is written with pickles for those who read them; nothing here does."""
    for module in MODULES:
        text = (ROOT / "n3r" / f"{module}.py").read_text()
        code = re.sub(r'"""[\s\S]*?"""|#.*', "", text)
        uses = re.findall(r"\bpickle\b(?!\.?\")\S{0,7}|joblib|\bdill\b|\bmarshal\b", code)
        assert set(uses) <= ({"pickle", "pickle.dumps("} if module == "interop" else set()), module
        assert text.count("torch.load(") == text.count("weights_only=True, map_location"), module


def test_constraints_pin_everything_that_pyproject_asks_for():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + [r for rs in project["optional-dependencies"].values() for r in rs]
    pinned = (ROOT / "constraints.txt").read_text().lower().replace("_", "-")
    names = [re.split(r"[>=\[]", requirement)[0].lower().replace("_", "-") for requirement in wanted]
    assert [name for name in names if name != "n3r" and f"\n{name}==" not in f"\n{pinned}"] == []
