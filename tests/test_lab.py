"""JupyterLab as users have it: a server on loopback with a token, a browser, notebook 09 and its slider."""

import base64
import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
TOKEN = "only-of-this-test"
PATIENCE = 240  # seconds
CHANGED = (  # of parameters: one member alone, and a run of which nothing is there
    ("09_best", r"= \[.*?\]", '= ["random forest"]'),
    ("03_train_lstm2risk", '"dev"', '"cold"'),
)
NOTEBOOK = "jupyterapp.shell.currentWidget.content"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine to open JupyterLab in"),
]


class Browser:
    """A page of Chromium, driven by its DevTools protocol."""

    def __init__(self, port: str, url: str):
        import websocket  # a dependency of jupyter_server

        asked = urllib.request.Request(f"http://127.0.0.1:{port}/json/new?{url}", method="PUT")
        page = json.load(urllib.request.urlopen(asked))
        self.socket = websocket.create_connection(
            page["webSocketDebuggerUrl"], timeout=PATIENCE, suppress_origin=True
        )
        self.n = 0

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self.n += 1
        self.socket.send(json.dumps({"id": self.n, "method": method, "params": parameters}))
        while (answer := json.loads(self.socket.recv())).get("id") != self.n:
            pass
        return answer["result"]

    def value(self, script: str) -> Any:
        """What a script gives; None where it fails, as it does while the page is loading."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        return answer["result"].get("value")

    def wait(self, script: str, what: str) -> Any:
        """The first value of a script that is true."""
        until = time.monotonic() + PATIENCE
        while not (found := self.value(script)):
            if time.monotonic() > until:
                self.picture("lab.png")
                raise TimeoutError(f"{what}: not within {PATIENCE} s")
            time.sleep(0.5)
        return found

    def press(self, key: str) -> None:
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key)

    def picture(self, path: str) -> None:
        """What is seen, into a file, where LAB_PICTURES names a folder for it."""
        if folder := os.environ.get("LAB_PICTURES"):
            shot = self.call("Page.captureScreenshot")["data"]
            (Path(folder) / path).write_bytes(base64.b64decode(shot))


def started(command: list[str], log: Path, says: str, **options: Any) -> tuple[subprocess.Popen, str]:
    """A process, and what it writes that `says` matches."""
    with log.open("w", encoding="utf-8") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, **options)
    until = time.monotonic() + PATIENCE
    while not (found := re.search(says, log.read_text("utf-8"))):
        assert process.poll() is None and time.monotonic() < until, log.read_text("utf-8")[-2000:]
        time.sleep(0.3)
    return process, found[1]


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Iterator[Browser]:
    """JupyterLab as `make lab` starts it, on a copy of the notebooks with runs beside it."""
    house = tmp_path_factory.mktemp("house")
    shutil.copytree(ROOT / "notebooks", house / "notebooks")
    shutil.copytree(ROOT / "configs", house / "configs")
    for step, old, new in CHANGED:
        path = house / "notebooks" / f"{step}.ipynb"
        book = json.loads(path.read_text())
        cell = next(c for c in book["cells"] if "parameters" in c["metadata"].get("tags", []))
        cell["source"] = re.sub(old, new, "".join(cell["source"]), count=1, flags=re.DOTALL)
        path.write_text(json.dumps(book))
    environment = {**os.environ, "N3R_HOME": str(house), "JUPYTER_TOKEN": TOKEN, "PYTHONPATH": str(ROOT)}
    environment["JUPYTER_CONFIG_PATH"] = str(ROOT / "configs" / "lab")
    for variable in (
        "JUPYTER_CONFIG_DIR",
        "JUPYTERLAB_WORKSPACES_DIR",
        "JUPYTERLAB_SETTINGS_DIR",
        "IPYTHONDIR",
    ):
        environment[variable] = str(house / ".jupyter")
    for step in ("01_preprocess", "02_tokenizer"):
        command = [sys.executable, "-m", "papermill", f"{step}.ipynb", str(house / f"{step}.out.ipynb")]
        subprocess.run(command, cwd=house / "notebooks", env=environment, check=True, capture_output=True)
    recipe = (ROOT / "Makefile").read_text().partition("\nlab:")[2].partition("\n\n")[0]
    options = re.findall(r"--\S+=\S+", recipe)
    assert "--notebook-dir=." in options
    command = [sys.executable, "-m", "jupyterlab", *options, "--no-browser", "--allow-root", "--port=0"]
    command += ["--LabApp.expose_app_in_browser=True"]
    server, url = started(
        command, house / "server.log", r"(http://127\.0\.0\.1:\d+/lab)", cwd=house, env=environment
    )
    command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1280,1000"]
    command += ["--remote-debugging-port=0", f"--user-data-dir={house / '.chromium'}", "about:blank"]
    chromium, port = started(
        command, house / "chromium.log", r"DevTools listening on ws://127\.0\.0\.1:(\d+)/"
    )
    try:
        yield Browser(port, f"{url}/tree/notebooks/09_best.ipynb?token={TOKEN}")
    finally:
        for process in (chromium, server):
            process.terminate()
            process.wait()


def run_all(lab: Browser) -> list[list[dict[str, Any]]]:
    """Run the current notebook to its end or to its first error; the outputs of each code cell."""
    cells = f"{NOTEBOOK}.widgets.filter(cell => cell.model.type === 'code')"
    lab.wait("jupyterapp.shell.currentWidget.sessionContext.session.kernel.status === 'idle'", "a kernel")
    lab.value("jupyterapp.commands.execute('notebook:run-all-cells').then(() => 1)")
    failed = "cell.model.outputs.toJSON().some(out => out.output_type === 'error')"
    ended = f"{cells}.every(cell => cell.model.executionCount) || {cells}.some(cell => {failed})"
    lab.wait(ended, "every cell runs")
    return json.loads(lab.value(f"JSON.stringify({cells}.map(cell => cell.model.outputs.toJSON()))"))


def test_a_notebook_runs_in_lab_its_slider_moves_and_its_link_leads_to_what_it_wrote(lab):
    lab.wait(f"{NOTEBOOK}.widgets.length", "the notebook opens")
    listed = "jupyterapp.serviceManager.contents.get('').then(root => root.content.map(one => one.name))"
    assert {"notebooks", "reports", "runs"} <= set(lab.value(listed))
    lab.picture("opened.png")
    outputs = run_all(lab)
    assert all(outputs[2:]), "every cell after the parameters shows something"
    kinds = {out.get("name", out["output_type"]) for own in outputs for out in own}
    assert not kinds & {"error", "stderr"}, outputs

    place = f"{NOTEBOOK}.widgets.findIndex(cell => cell.model.sharedModel.source.startsWith('explore('))"
    lab.value(
        f"{NOTEBOOK}.activeCellIndex = {place}, {NOTEBOOK}.scrollToItem({place}, 'start').then(() => 1)"
    )
    shown = "[...document.querySelectorAll('.widget-html')].map(one => one.innerText).join(' ')"
    before = lab.wait(shown, "the explorer")
    assert "frauds are caught" in before and "what raises its score" in before
    lab.picture("explorer.png")
    lab.value("document.querySelector('.widget-slider .noUi-handle').focus()")
    for _ in range(12):
        lab.press("ArrowRight")
    after = lab.wait(f"(text => text !== {json.dumps(before)} && text)({shown})", "the figures change")
    lab.picture("moved.png")
    flagged = [re.search(r"of ([\d,]+) flagged orders", text)[1].replace(",", "") for text in (before, after)]
    assert int(flagged[0]) < int(flagged[1])

    lab.value(f"{NOTEBOOK}.activeCellIndex = {NOTEBOOK}.widgets.length - 1, 1")
    lab.value(f"{NOTEBOOK}.scrollToItem({NOTEBOOK}.widgets.length - 1).then(() => 1)")
    link = "[...document.querySelectorAll('.jp-OutputArea a')].find(one => /model card/.test(one.innerText))"
    lab.wait(f"{link} && 1", "the link")
    lab.picture("end.png")
    lab.value(f"{link}.click()")
    titles = "[...jupyterapp.shell.widgets('main')].map(one => one.title.label)"
    lab.wait(f"{titles}.includes('MODEL_CARD.md')", "the link opens what it names")
    lab.picture("linked.png")


def test_a_notebook_whose_steps_before_have_not_run_says_so_in_a_sentence(lab):
    lab.value(
        "jupyterapp.commands.execute('docmanager:open', {path: 'notebooks/03_train_lstm2risk.ipynb'})"
        ".then(() => 1)"
    )
    lab.wait("jupyterapp.shell.currentWidget.context.path.includes('03_train') && 1", "it opens")
    (error,) = [out for own in run_all(lab) for out in own if out["output_type"] == "error"]
    lab.value(f"{NOTEBOOK}.scrollToItem(6).then(() => 1)")
    lab.picture("cold.png")
    (told,) = error["traceback"]
    assert told.endswith("run 01_preprocess and 02_tokenizer first")
