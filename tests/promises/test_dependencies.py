"""Dependencies: the exact versions have no known holes, and reports/licences*.md list their licences."""

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
    known = licences()
    assert sorted(installed(_site()).keys() - known.keys()) == []
    assert [name for name, licence in known.items() if licence in ("", "UNKNOWN", "unknown")] == []
    tally(PROMISE, "packages whose licence is listed", len(known))


def test_what_is_installed_is_what_is_pinned(tally):
    """A fault that is found here is found in the versions that everybody gets."""
    found = installed(_site())
    assert not_as_pinned(found) == {}
    tally(PROMISE, "installed versions equal to the pinned ones", len(found))


# What pip resolves torch 2.13.0 to on Linux beyond its CPU build.
CUDA_BUILD = """
    cuda-bindings 13.5.0, cuda-pathfinder 1.9.1, cuda-toolkit 13.0.3.0, nvidia-cublas 13.1.1.3,
    nvidia-cuda-cupti 13.0.85, nvidia-cuda-nvrtc 13.0.88, nvidia-cuda-runtime 13.0.96,
    nvidia-cudnn-cu13 9.20.0.48, nvidia-cufft 12.0.0.61, nvidia-cufile 1.15.1.6, nvidia-curand 10.4.0.35,
    nvidia-cusolver 12.0.4.66, nvidia-cusparse 12.6.3.3, nvidia-cusparselt-cu13 0.8.1,
    nvidia-nccl-cu13 2.29.7, nvidia-nvjitlink 13.5.37, nvidia-nvshmem-cu13 3.4.5, nvidia-nvtx 13.0.85,
    triton 3.7.1
"""


@pytest.mark.parametrize(
    "added", [CUDA_BUILD + ", torch 2.13.0", "pip 26.0, setuptools 80.9.0, wheel 0.45.1"]
)
def test_the_cuda_build_and_the_packages_of_an_installer_are_as_pinned_and_listed(added, tmp_path):
    for name, version in (entry.split() for entry in added.split(",")):
        folder = tmp_path / f"{name.replace('-', '_')}-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\n")
    found = installed([str(tmp_path)])
    assert len(found) == len(added.split(","))
    assert sorted(found.keys() - licences().keys()) == [] and not_as_pinned(found) == {}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="torch has a CUDA build of that name on Linux alone")
def test_the_cuda_build_resolves_to_pinned_packages():
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet"]
    command += ["--report", "-", "--constraint", str(ROOT / "constraints.txt"), f"torch==={PINNED['torch']}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if done.returncode:
        pytest.skip(f"no index of packages can be reached: {done.stderr.strip()[-200:]}")
    found = {plain(entry["metadata"]["name"]) for entry in json.loads(done.stdout)["install"]}
    assert "triton" in found
    assert sorted(found - {plain(name) for name in PINNED} - {"setuptools"}) == []
    assert sorted(found - licences().keys()) == []


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


def installed(places: list[str]) -> dict[str, str]:
    """The versions of the packages in these folders, by name; n3r itself left out."""
    found = {plain(each.metadata["Name"]): each.version for each in distributions(path=places)}
    return {name: version for name, version in found.items() if name != "n3r"}


def licences() -> dict[str, str]:
    rows: list[tuple[str, str]] = []
    for page in ("licences.md", "licences_besides.md"):
        text = (ROOT / "reports" / page).read_text(encoding="utf-8")
        rows += re.findall(r"^\| ([^|]+?) \| [^|]+? \| ([^|]+?) \|", text, re.MULTILINE)
    return {plain(name): licence for name, licence in rows}


def not_as_pinned(found: dict[str, str]) -> dict[str, tuple[str, str]]:
    """The pinned and the installed version where these differ but for the build, such as +cpu."""
    versions = {name: (version, found.get(plain(name), version)) for name, version in PINNED.items()}
    return {name: (pin, own) for name, (pin, own) in versions.items() if own.partition("+")[0] != pin}
