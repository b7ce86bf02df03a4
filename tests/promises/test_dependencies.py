"""Dependencies: the exact versions have no known holes, and reports/licences.md lists their licences."""

import json
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

import pytest

from n3r.pipeline import ROOT

PROMISE = "dependencies"
AUDIT = ROOT / ".audit" / "bin" / "pip-audit"
PINNED = dict(
    re.findall(r"^([A-Za-z0-9._-]+)==([^\s;]+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
)


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.slow
@pytest.mark.skipif(not AUDIT.is_file(), reason="pip-audit is not there: `make audit` installs it")
def test_no_pinned_version_has_a_known_hole(tally):
    command = [str(AUDIT), "--requirement", str(ROOT / "constraints.txt"), "--no-deps", "--disable-pip"]
    command += ["--progress-spinner", "off", "--timeout", "20", "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if not done.stdout.startswith("{"):
        pytest.skip(f"no list of known holes can be reached: {done.stderr.strip()[-200:]}")
    found = json.loads(done.stdout)["dependencies"]
    looked_up = [package for package in found if "skip_reason" not in package]
    if not looked_up:
        pytest.skip(f"no list of known holes can be reached: it knows none of {len(found)} packages")
    assert [package for package in looked_up if package["vulns"]] == []
    tally(PROMISE, "pinned versions looked up in the list of known holes", len(looked_up))


def test_every_installed_package_has_its_licence_listed(tally):
    listed = (ROOT / "reports" / "licences.md").read_text()
    rows = dict(re.findall(r"^\| ([^|]+?) \| [^|]+? \| ([^|]+?) \|", listed, re.MULTILINE))
    known = {plain(name): licence for name, licence in rows.items()}
    installed = {plain(found.metadata["Name"]) for found in distributions(path=_site())} - {"n3r"}
    assert sorted(installed - known.keys()) == []
    assert [name for name, licence in known.items() if licence in ("", "UNKNOWN", "unknown")] == []
    tally(PROMISE, "packages whose licence is listed", len(known))


def test_what_is_installed_is_what_is_pinned(tally):
    """A fault that is found here is found in the versions that everybody gets."""
    installed = {plain(found.metadata["Name"]): found.version for found in distributions(path=_site())}
    other = {
        name: (version, installed[plain(name)])
        for name, version in PINNED.items()
        if plain(name) in installed and installed[plain(name)].partition("+")[0] != version
    }
    assert other == {}
    tally(PROMISE, "installed versions equal to the pinned ones", len(installed))


@pytest.mark.slow
def test_a_run_needs_no_network_and_leaves_nothing_at_home(tmp_path, tally):
    """Under a locale that has no character but those of ASCII."""
    alone = ["unshare", "--net"]
    if shutil.which("unshare") is None or subprocess.run([*alone, "true"], check=False).returncode:
        pytest.skip("no network namespace of its own can be made")
    name = f"test-{os.getpid()}-home"
    places = [ROOT / place / name for place in ("runs", "reports")]
    locale = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], **locale}
    command = [*alone, sys.executable, "-m", "n3r.cli", "run", "--size", "dev", "--name", name]
    try:
        subprocess.run(command, env=environment, cwd=ROOT, check=True, capture_output=True, timeout=1200)
        assert (places[1] / "report.html").is_file()
    finally:
        for place in places:
            shutil.rmtree(place, ignore_errors=True)
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    known = (".cache/matplotlib/fontlist", ".ipython/profile_default")
    assert [path for path in left if not path.startswith(known)] == []
    tally(PROMISE, "whole runs without a network that left nothing at home", 1)


def _site() -> list[str]:
    return [path for path in sys.path if Path(path).name == "site-packages"]
