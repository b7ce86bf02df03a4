"""The house itself: layers, import weight, the README's map, nothing of one machine in the files."""

import ast
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from n3r.cli import app

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# The core, as a table of contents: a module imports only `files` and what stands above its own row.
CORE = [
    ["rows/values", "rows/time_formats", "rows/numbers"],
    ["rows/times", "epoch_order", "rows/parts"],
    ["notebook", "process", "progress"],
    ["schema", "estimate", "presets", "thresholds", "token_arrays"],
    ["rows/inputs", "rows/accounts", "rows/amounts", "rows/labels", "rows/plausible", "rows/rejects"],
    ["rows/cuts", "rows/customers"],
    ["clean", "spelling", "metrics", "card"],
    ["calibrate", "rows/columns", "rows/alike", "multiclass", "kernels", "risk_tables", "graphs", "folds"],
    ["rows/keys", "rows/chunks"],
    ["rows/precedence"],
    ["rows/wide"],
    ["rows/splitting"],
    ["identity/characters", "identity/mail", "identity/repeats", "identity/words", "trees", "precomputed"],
    ["identity/relations", "ngrams"],
    ["identity/features", "blend/weights"],
    ["tables", "tokenizer", "vocabulary", "features"],
    ["preprocess"],
    ["encode", "text", "identity/selection"],
    ["data", "runtime", "published"],
    ["bert", "tabular", "fusion", "reasons"],
    ["branches"],
    ["registry"],
    ["model"],
    ["checkpoints", "export", "score"],
    ["train", "score_files", "predictions"],
    ["score_tasks"],
    ["bundle"],
    ["blend/members"],
    ["blend/config"],
    ["blend/recipe"],
    ["steps"],
    ["pipeline"],
    ["terminal", "front"],
    ["classifier"],
    ["cli"],
]
# Room -> what its modules import from beside their own room. Only commands and the cli, inside functions,
# reach any.
MAY_IMPORT = {
    "files": set(),
    "engine": {"files"},
    "synthetic": {"files"},
    "core": {"files", "engine"},
    "evaluation": {"core", "files", "engine", "synthetic"},
    "checks": {"core", "files", "engine", "evaluation", "report"},
    "report": {"core", "files", "evaluation"},
    "custom_transformer": {"core", "files", "synthetic"},
    "legacy": {"core", "files"},
    "studies": {"core", "files", "legacy"},
    "proposal": {"core", "files", "checks"},
    "commands": {"core", "files"},
}
DOORS = ("cli", "front")
PACKAGE = ROOT / "n3r"
MODULES = sorted(
    path.relative_to(PACKAGE).with_suffix("").as_posix()
    for path in PACKAGE.rglob("*.py")
    if path != PACKAGE / "__init__.py"
)
# Modules without a test file of their own, and the test of the module that they are a part of.
TESTED_WITH = {
    "files/places": "test_installed",
    "proposal/counts": "proposal/test_propose",
    "proposal/decide": "proposal/test_propose",
    "proposal/kinds": "proposal/test_propose",
    "proposal/labels": "proposal/test_propose",
    "proposal/leaks": "proposal/test_propose",
    "proposal/numbers": "proposal/test_propose",
    "proposal/dates": "proposal/test_propose",
    "proposal/questions": "proposal/test_propose",
    "proposal/roles": "proposal/test_propose",
    "proposal/sample": "proposal/test_files",
    "proposal/words": "proposal/test_propose",
    "proposal/since": "proposal/test_say",  # n3r map --check
    "commands/map": "proposal/test_say",
    "rows/accounts": "test_preprocess",  # its report
    "branches": "test_model",
    "evaluation/labelled": "evaluation/test_scored",
    "checks/alone": "checks/test_check",
    "checks/cards": "checks/test_check",
    "checks/findings": "checks/test_check",
    "checks/seen": "checks/test_check",
    "commands/monitor": "checks/test_monitor",
    "commands/tune": "studies/test_tuning",
    "report/tuning": "studies/test_tuning",
    "report/monitor": "checks/test_monitor",
    "commands/check": "checks/test_check",
    "commands/score": "test_score",
    "commands/evaluate": "test_cli",
    "commands/export": "test_cli",
    "commands/run": "test_pipeline",
    "commands/language_model": "test_cli",
    "commands/legacy": "test_cli",
    "identity/words": "identity/test_features",
    "precomputed": "test_features",
    "rows/parts": "test_features",
    "identity/characters": "identity/test_features",
    "rows/columns": "test_tables",
    "custom_transformer/optimizers": "custom_transformer/test_model",
    "encode": "test_score",
    "files/atomic": "files/test_writer",
    "files/encoding": "files/test_dialect",
    "files/limits": "promises/test_strangers_files",
    "files/reader": "promises/test_hostile_input",
    "files/sources": "studies/test_plans",
    "files/ranges": "test_epoch_order",
    "files/words": "proposal/test_propose",
    "legacy/artefacts": "legacy/test_layouts",
    "legacy/models": "legacy/test_trainer",
    "legacy/weights": "legacy/test_trainer",
    "blend/members": "blend/test_recipe",
    "blend/config": "blend/test_recipe",
    "rows/labels": "test_mistakes",
    "rows/rejects": "test_tables",
    "rows/chunks": "test_tables",
    "rows/keys": "test_preprocess",
    "rows/precedence": "test_preprocess",
    "rows/wide": "test_preprocess",
    "rows/splitting": "test_preprocess",
    "rows/cuts": "engine/test_engine",
    "rows/customers": "engine/test_engine",
    "engine/memory": "engine/test_engine",
    "engine/disk": "engine/test_engine",
    "engine/ray": "engine/test_cluster",
    "engine/spark": "engine/test_cluster",
    "engine/processes": "promises/test_many_machines",
    "rows/time_formats": "rows/test_times",
    "rows/plausible": "test_preprocess",
    "token_arrays": "test_data",
    "rows/alike": "test_tables",
    "identity/relations": "identity/test_features",
    "identity/repeats": "identity/test_features",
    "registry": "test_model",
    "reasons": "test_score",
    "report/acting": "report/test_evaluation",
    "report/comparison": "test_cli",  # n3r compare
    "report/data": "checks/test_check",
    "report/parts": "report/test_evaluation",
    "report/titled": "report/test_explorer",
    "progress": "test_notebook",
    "risk_tables": "test_features",
    "runtime": "test_score",
    "score_files": "test_score",
    "studies/beside": "studies/test_parity",
    "studies/parts": "studies/test_ablation",
    "synthetic/people": "synthetic/test_orders",
    "synthetic/shop": "test_walkthrough",
}
TRACKED = subprocess.run(
    ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
).stdout.split("\n")[:-1]


def _room(module: str) -> str:
    room = module.partition("/")[0]
    return room if room in MAY_IMPORT else "core"


def _imported(module: str, inside_functions: bool = True) -> set[str]:
    """The modules of n3r that a module imports, as MODULES names them."""
    tree = ast.parse((PACKAGE / f"{module}.py").read_text())
    nodes = list(ast.walk(tree)) if inside_functions else tree.body
    found = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module:
            found += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    paths = [name.removeprefix("n3r.").replace(".", "/") for name in found if name.startswith("n3r.")]
    return {name for path in paths for name in (path, f"{path}/__init__") if name in MODULES}


def test_every_core_module_has_its_row():
    assert sorted(name for row in CORE for name in row) == [
        m for m in MODULES if _room(m) == "core" and not m.endswith("__init__")
    ]


def test_every_module_has_a_test_file_or_is_tested_with_another():
    tests = ROOT / "tests"
    expected = {m: "/test_".join(m.rpartition("/")[::2]).lstrip("/") for m in MODULES}
    own = {m for m, test in expected.items() if (tests / f"{test}.py").is_file()}
    assert sorted(m for m in MODULES if not m.endswith("__init__") and m not in own) == sorted(TESTED_WITH)
    assert [test for test in TESTED_WITH.values() if not (tests / f"{test}.py").is_file()] == []


def test_deviations_lists_every_deviation_that_the_code_notes():
    text = (ROOT / "docs" / "deviations.md").read_text()
    listed = {module: int(n) for module, n in re.findall(r"^\| `([\w/]+)` \| (\d+) \|", text, re.MULTILINE)}
    counted = {module: (PACKAGE / f"{module}.py").read_text().count("NOTE[DIFF]") for module in MODULES}
    assert listed == {module: n for module, n in counted.items() if n}
    assert int(re.search(r"There are (\d+) such notes", text)[1]) == sum(listed.values())


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_imports_only_what_it_may(room):
    modules = [m for m in MODULES if _room(m) == room and m not in DOORS]
    everywhere = room != "commands"  # each command imports the rooms that it needs when it runs
    reached = {(m, o) for m in modules for o in _imported(m, everywhere)}
    reached = {(m, o) for m, o in reached if _room(o) not in {room, *MAY_IMPORT[room]}}
    assert reached == set()


def test_core_imports_go_upward_only_and_the_cli_reaches_rooms_inside_functions():
    rank = {name: i for i, row in enumerate(CORE) for name in row}
    core = {m: _imported(m) & rank.keys() for m in rank}
    same_row = {("vocabulary", "tokenizer")}
    below = {(m, o) for m in core for o in core[m] if rank[o] >= rank[m]} - same_row
    assert below == set()
    for door in DOORS:
        assert {_room(o) for o in _imported(door, inside_functions=False)} <= {"core", "files", "commands"}


def test_scoring_evaluation_and_reports_need_no_torch():
    code = (
        "import sys, n3r.score; heavy = {'torch', 'lightning', 'transformers'}; "
        "scored = heavy & set(sys.modules); "
        "import n3r.evaluation, n3r.report; print(scored, heavy & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["set()", "set()"]


def test_json_is_written_of_finite_numbers_alone():
    calls = [
        (module, "allow_nan" in {keyword.arg for keyword in node.keywords})
        for module in MODULES
        for node in ast.walk(ast.parse((PACKAGE / f"{module}.py").read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("json.dumps", "json.dump")
    ]
    assert calls and [module for module, is_told in calls if not is_told] == []


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
        "import sys, n3r.pipeline, n3r.report; "
        "print('matplotlib.pyplot' in sys.modules, 'papermill' in sys.modules)"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert out.stdout.split() == ["False", "False"]


def test_readme_and_docs_name_every_file_of_the_package_and_the_notebooks():
    text = "".join(page.read_text() for page in PAGES)
    files = [f"{module.rpartition('/')[2]}.py" for module in MODULES if not module.endswith("__init__")]
    files += [path.stem for path in (ROOT / "notebooks").glob("*.ipynb")]
    files += [path.name for path in (ROOT / "configs").glob("*.json")]
    assert [name for name in files if name not in text] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_links_of_a_page_exist(page):
    text = page.read_text()
    links = [target for target in re.findall(r"\]\(([^)#]+)", text) if "://" not in target]
    assert [target for target in links if not (page.parent / target).exists()] == []
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"(?:^|`)make ([a-z]+)", text, re.MULTILINE))
    assert [t for t in targets if not re.search(rf"^{t}:", makefile, re.MULTILINE)] == []
    for line in re.findall(r"(?:^|`)n3r ([^\n`#]+)", text, re.MULTILINE):
        command, words = get_command(app), shlex.split(line)
        while words and hasattr(command, "commands"):
            command = command.commands[words.pop(0)]
        options = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if re.match("-{1,2}[a-z]", word)} <= options, line


def test_ci_runs_make_test_and_every_test_draws_what_the_profile_says():
    assert "exec make test" in (ROOT / ".ci" / "run").read_text()
    own = [name for name in TRACKED if name.startswith("tests/") and name.endswith(".py")]
    override = re.compile(r"^@settings|max_examples=", re.MULTILINE)
    found = [name for name in own if (ROOT / name).is_file() and override.search((ROOT / name).read_text())]
    assert set(found) == {"tests/conftest.py", "tests/test_repo.py"}


def test_no_path_of_one_machine_and_no_registry_host():
    found = []
    for name in TRACKED:
        path = ROOT / name
        if path.suffix in {".png", ".parquet"} or not path.is_file():
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
        text = (PACKAGE / f"{module}.py").read_text()
        code = re.sub(r'"""[\s\S]*?"""|#.*', "", text)
        uses = re.findall(r"\bpickle\b(?!\.?\")\S{0,7}|joblib|\bdill\b|\bmarshal\b", code)
        assert set(uses) <= ({"pickle", "pickle.dumps("} if module == "legacy/layouts" else set()), module
        assert text.count("torch.load(") == text.count("weights_only=True, map_location"), module


def test_constraints_pin_everything_that_pyproject_asks_for():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + [r for rs in project["optional-dependencies"].values() for r in rs]
    pinned = (ROOT / "constraints.txt").read_text().lower().replace("_", "-")
    names = [re.split(r"[>=\[]", requirement)[0].lower().replace("_", "-") for requirement in wanted]
    assert [name for name in names if name != "n3r" and f"\n{name}==" not in f"\n{pinned}"] == []
