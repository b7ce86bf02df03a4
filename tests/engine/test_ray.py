"""Preparation on Ray, in a network of its own in which nothing else is: the same to the byte, and private."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from n3r.engine import start
from n3r.synthetic.orders import generate_orders
from n3r.tables import write

ROOT = Path(__file__).parents[2]
CANARY = "Zanzibarius Quillfeather"
CODE = """
import json, os, sys, threading, time
from pathlib import Path
import polars as pl
from n3r.engine import start
from n3r.engine.ray import PLACE
from n3r.preprocess import prepare, prepare_source
from n3r.schema import SPLITS, ColumnMap
from n3r.tables import read_split, scan, write_splits

folder, columns, what = Path(sys.argv[1]), ColumnMap.from_file("configs/orders.json"), sys.argv[2]
on = start("ray", folder / "engine", "600MB")
place = (folder / "engine" / PLACE).resolve()
modes = [oct(path.stat().st_mode & 0o777) for path in (folder / "engine", place)]
source = scan(folder / "raw", columns, engine=on)
if what == "damage":
    path = source.files[3]
    path.write_bytes(path.read_bytes()[:-2000])
    with source.reading():
        prepare_source(source, columns, None, on)

def kill_worker():
    import psutil
    parts = folder / "engine" / "parts"
    while not killed:
        time.sleep(0.01)
        at_work = [p for p in psutil.Process().children(recursive=True) if p.name().startswith("ray::Map")]
        killed.extend(at_work[:1] if any(parts.glob("*/part-*")) else [])
    killed[0].kill()

killed = []
if what == "kill":
    threading.Thread(target=kill_worker, daemon=True).start()
found = prepare_source(source, columns, None, on)
write_splits(folder / "data", found.parts, found.column_map)
logs = [path for path in place.rglob("*") if path.is_file() and "logs" in path.parts]
seen = [path.name for path in logs if sys.argv[3].encode() in path.read_bytes()]
on.close()
whole = scan(folder / "raw", columns)
expected = prepare(whole.frame, columns, None, whole.n_rows)
alike = {split: read_split(folder / "data", split).equals(expected.splits[split]) for split in SPLITS}
print(json.dumps({
    "alike": list(alike.values()), "report": found.report.to_dict() == expected.report.to_dict(),
    "modes": modes, "logs": len(logs), "seen": seen, "killed": len(killed),
    "left": [str(path) for path in (place, folder / "engine") if path.exists()],
}))
"""


SCORE = """
import json, sys
from pathlib import Path
from n3r.engine import start
from n3r.score import Scorer
from n3r.score_files import score_files
from n3r.score_tasks import score_tasks

raw, bundle, folder = map(Path, sys.argv[1:])
on = start("ray", folder / "engine", "600MB")
counts = score_tasks(on, bundle, [str(raw)], folder / "apart")
on.close()
alone = score_files(Scorer(bundle, 1), [raw], folder / "alone", progress=False)
names = sorted(path.name for path in (folder / "alone").iterdir())
alike = [(folder / "alone" / name).read_bytes() == (folder / "apart" / name).read_bytes() for name in names]
left = sorted(path.name for path in (folder / "apart").iterdir())
print(json.dumps([counts == alone, alike, left == names]))
"""


def alone(*command: str) -> list[str]:
    """A command in a network of its own that has nothing but the loopback."""
    return ["unshare", "--net", "bash", "-c", 'ip link set lo up && exec "$@"', "alone", *command]


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("ray", reason="Ray is an extra: pip install 'n3r[ray]'")
    if shutil.which("unshare") is None or subprocess.run(alone("true"), capture_output=True).returncode:
        pytest.skip("Ray runs in a network of its own, which this system does not let make (unshare --net)")
    folder = tmp_path_factory.mktemp("raw")
    orders = generate_orders(20_000, seed=1)
    for number, part in enumerate(orders.iter_slices(2_500)):
        named = part.with_columns(customerName=CANARY + " " + part["customerName"].fill_null(""))
        write(named, folder / f"{number}.parquet")
    return folder


def on_ray(folder: Path, raw: Path, what: str) -> subprocess.CompletedProcess[str]:
    shutil.copytree(raw, folder / "raw")
    command = alone(sys.executable, "-c", CODE, str(folder), what, CANARY)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=400)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["whole", "kill"])
def test_preparation_on_ray_is_the_same_and_private_though_a_worker_is_killed(tmp_path, raw, what):
    done = on_ray(tmp_path, raw, what)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["alike"] == [True] * 3 and found["report"] and found["killed"] == (what == "kill")
    assert found["modes"] == ["0o700", "0o700"] and found["left"] == []
    assert found["logs"] and found["seen"] == [] and CANARY not in done.stdout + done.stderr


@pytest.mark.slow
def test_a_file_that_was_cut_short_meanwhile_is_named_in_a_sentence(tmp_path, raw):
    done = on_ray(tmp_path, raw, "damage")
    last = done.stderr.strip().splitlines()[-1]
    assert last == f"ValueError: damaged, write anew: {tmp_path / 'raw' / '3.parquet'}"
    assert not (tmp_path / "engine").exists() and not (tmp_path / "data").exists()


@pytest.mark.slow
def test_files_scored_on_ray_are_those_of_one_process_to_the_byte(tmp_path, raw, small):
    command = alone(sys.executable, "-c", SCORE, str(raw), str(small.folder), str(tmp_path))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1]) == [True, [True] * 8, True]


def test_a_wrong_address_is_a_sentence_within_seconds(tmp_path):
    pytest.importorskip("ray", reason="Ray is an extra: pip install 'n3r[ray]'")
    for address in ("127.0.0.1:1", "127.0.0.1", "127.0.0.1:x"):
        with pytest.raises(
            ValueError, match=rf"no Ray cluster answers at '{address}' within 5 s: give HOST:PORT"
        ):
            start("ray", tmp_path / "engine", address=address)
    assert list(tmp_path.iterdir()) == []
