"""What a notebook asks of n3r: refusals in one sentence, where its run is, links, and progress as lines."""

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from n3r import notebook
from n3r.notebook import Links, begin, finish_step
from n3r.progress import SESSION, WATCHED, Progress

ROOT = Path(__file__).resolve().parents[1]
CELL = 'name: str = "dev"  # the run\nepochs: int = 3  # how many\nlr: float = 0.1\nbudget: "int" = None'


def given(injected: str = "", **values: object) -> dict:
    """The `vars()` of a notebook whose cells have run."""
    cells = ["import n3r", CELL, *([f"# Parameters\n{injected}"] if injected else []), "run = begin()"]
    return {"name": "dev", "epochs": 3, "lr": 0.1, "budget": None, "In": ["", *cells], **values}


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(notebook, "ROOT", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("injected", "values", "expected"),
    [
        (
            "epoch = 5",
            {"epoch": 5},
            r"01_preprocess has no parameter 'epoch' \(did you mean 'epochs'\?\); `n3r",
        ),
        ("n3r = 5", {"n3r": 5}, "01_preprocess has no parameter 'n3r'"),  # a name that the imports made
        ('epochs = "5"', {"epochs": "5"}, "01_preprocess.epochs is '5'; expected int, such as 3"),
        (
            "epochs = 2.5\nx = 1",
            {"epochs": 2.5},
            "epochs is 2.5; expected int.*; 01_preprocess has no .* 'x'",
        ),
        ('name = "a/b"', {"name": "a/b"}, "the run name 'a/b' may hold"),
    ],
)
def test_what_papermill_lets_pass_is_refused(home, injected, values, expected):
    with pytest.raises(ValueError, match=expected):
        begin("01_preprocess", given(injected, **values))


def test_what_fits_passes_wherever_the_notebook_runs(home, monkeypatch, tmp_path_factory):
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    values = {"epochs": 5, "lr": 1, "budget": 60, "name": "other"}
    written = "\n".join(f"{name} = {value!r}" for name, value in values.items())
    assert begin("01_preprocess", given(written, **values)) == home / "runs" / "other"
    assert begin("mine", given(mine=3)) == home / "runs" / "dev"  # a notebook of one's own, and its variables


def test_a_cold_notebook_names_what_runs_before_it(home):
    with pytest.raises(FileNotFoundError, match="run 01_preprocess and 02_tokenizer first$"):
        begin("03_train_lstm2risk", given())
    finish_step(home / "runs" / "dev", "01_preprocess", {})
    with pytest.raises(FileNotFoundError, match="runs/dev does not hold .*: run 02_tokenizer first$"):
        begin("03_train_lstm2risk", given())


def test_links_lead_from_the_notebooks_folder_to_what_is_there(home, monkeypatch):
    run = home / "runs" / "dev"
    page = notebook.reports_folder(run) / "data.html"
    (run / "notebooks").mkdir(parents=True)
    monkeypatch.chdir(run / "notebooks")
    links = finish_step(run, "01_preprocess", {})
    assert "href" not in links._repr_html_().partition("data.html")[0]
    page.parent.mkdir(parents=True)
    page.touch()
    assert '<a href="../../../reports/dev/data.html">data.html</a>' in links._repr_html_()
    assert repr(finish_step(run, "09_best", {})).startswith(
        "to read: best.html (../../../reports/dev/best.html), the model card of best (../best/MODEL_C"
    )
    odd = Links([("<b>", run / "a b.html")])
    (run / "a b.html").touch()
    assert '<a href="../a%20b.html">&lt;b&gt;</a>' in odd._repr_html_()


@pytest.mark.parametrize(("watched", "moving"), [(None, False), ("1", True)])
def test_a_line_stays_for_each_epoch_and_a_bar_moves_where_it_is_watched(
    capsys, monkeypatch, watched, moving
):
    for name in (SESSION, WATCHED, "TQDM_DISABLE"):
        monkeypatch.delenv(name, raising=False)
    if watched:
        monkeypatch.setenv(WATCHED, watched)
    with Progress("net", "batch", 4) as bar:
        for epoch in (1, 2):
            bar.update(2)
            bar.line(f"epoch {epoch} of 2")
    told = capsys.readouterr()
    assert told.out == "" and ("\r" in told.err) == moving
    lines = [line.rpartition("\r")[2] for line in told.err.split("\n")]
    assert [line for line in lines if line.startswith("net: epoch")] == [
        "net: epoch 1 of 2",
        "net: epoch 2 of 2",
    ]
    monkeypatch.setenv("TQDM_DISABLE", "1")
    with Progress("net", "batch", 4) as bar:
        bar.line("epoch 1 of 2")
    assert capsys.readouterr() == ("", "")


@pytest.mark.slow
def test_papermill_alone_runs_a_notebook_from_anywhere_and_shows_mistakes_as_a_sentence(tmp_path):
    """Outside the checkout: an unknown parameter, a cold notebook, then step 01 itself, with its own home."""
    environment = notebook.os.environ | {"N3R_HOME": str(tmp_path / "home")}
    papermill = [sys.executable, "-m", "papermill"]

    def run(step: str, *given: str) -> tuple[int, str, list[str]]:
        command = [*papermill, str(ROOT / "notebooks" / f"{step}.ipynb"), "out.ipynb", *given]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        outputs = [
            out for cell in nbformat.read(tmp_path / "out.ipynb", 4).cells for out in cell.get("outputs", [])
        ]
        return (
            done.returncode,
            done.stderr,
            [out["traceback"] for out in outputs if out.output_type == "error"],
        )

    code, _, shown = run("03_train_lstm2risk", "-p", "epoch", "5")
    (told,) = shown
    assert code == 1 and len(told) == 1 and told[0].startswith("03_train_lstm2risk has no parameter 'epoch'")
    code, _, shown = run("03_train_lstm2risk")
    assert code == 1 and shown == [
        ["runs/dev does not hold what 03_train_lstm2risk reads: run 01_preprocess and 02_tokenizer first"]
    ]
    code, told, _ = run("01_preprocess", "-p", "n_orders", "600")
    assert code == 0, told
    assert (tmp_path / "home" / "reports" / "dev" / "data.html").is_file()
    assert '"home/reports/dev/data.html' in (tmp_path / "out.ipynb").read_text().replace("\\", "")
    command = [*papermill, "--help-notebook", str(ROOT / "notebooks" / "03_train_lstm2risk.ipynb")]
    help = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "epochs: int (default 3)" in help and "class_weights: Optional[list[float]]" in help
    assert "Unknown type" not in help
