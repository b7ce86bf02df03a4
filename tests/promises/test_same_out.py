"""Same in, same out: another hash seed, process or order of the rows changes no digit of a run."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from n3r import pipeline
from n3r.features import TabularFeatures
from n3r.files.manifest import sha256
from n3r.preprocess import prepare
from n3r.synthetic.orders import generate_orders

PROMISE = "same out"
N3R = [sys.executable, "-m", "n3r.cli", "run"]
MODELS = ("lstm2risk", "transformer2risk")
OF_THE_INPUT = ("config.json", "MODEL_CARD.md")  # these hold the fingerprint of the input's bytes


def run(data: Path, name: str, hash_seed: int, results: Callable) -> dict[str, object]:
    """The results of a whole run in its own process."""
    folder = pipeline.ROOT / "runs" / name
    command = [*N3R, "--name", name, "--size", "dev", "--data", str(data), "-p", "sizes=[250]"]
    command += ["-p", 'deviations=["bins"]', "-p", "n_attacked=20", "-p", "int8=true"]
    environment = {**os.environ, "PYTHONHASHSEED": str(hash_seed)}
    try:
        subprocess.run(command, cwd=pipeline.ROOT, env=environment, check=True, capture_output=True)
        pages = pipeline.reports_folder(folder)
        pictures = {path.name: sha256(path) for path in pages.iterdir() if path.suffix in (".png", ".svg")}
        assert len(pictures) == 16
        return results(folder) | pictures
    finally:
        for place in (folder, pipeline.reports_folder(folder)):
            shutil.rmtree(place, ignore_errors=True)


def without_fingerprint(found: dict[str, object]) -> dict[str, object]:
    """What of two runs on the same rows in another order is to be equal."""
    content = json.loads(json.dumps(found))
    del content["01_preprocess"]["data"]["fingerprint"]
    for model in MODELS:
        for name in OF_THE_INPUT:
            del content[model][name]
    return content


@pytest.mark.slow
def test_the_whole_pipeline_gives_the_same_with_another_hash_seed_and_order_of_rows(tmp_path, results, tally):
    orders = generate_orders(1500, seed=4, base_rate=0.15)
    shuffled = orders.sample(fraction=1, shuffle=True, seed=1)
    for name, rows in (("a", orders), ("b", shuffled)):
        (tmp_path / name).mkdir()
        rows.write_csv(tmp_path / name / "orders.csv")
    name = f"test-{os.getpid()}-same"
    first = run(tmp_path / "a" / "orders.csv", name, 1, results)
    again = run(tmp_path / "a" / "orders.csv", name, 4242, results)
    assert again == first
    tally(
        PROMISE, "whole runs in another process with another hash seed: equal metrics, predictions, checksums"
    )
    other = run(tmp_path / "b" / "orders.csv", name, 7, results)
    assert without_fingerprint(other) == without_fingerprint(first)
    tally(PROMISE, "whole runs on rows in another order: equal but for the fingerprint of the file")


HASHES = """
import sys
from hashlib import sha256
from pathlib import Path
from tests.conftest import train_small

for path in sorted(train_small(Path(sys.argv[1])).folder.iterdir()):
    print(path.name, sha256(path.read_bytes()).hexdigest())
"""


@pytest.mark.slow
def test_a_bundle_is_the_same_to_the_byte_in_another_process(small, tmp_path, run_fresh, tally):
    told = run_fresh(HASHES, tmp_path, PYTHONHASHSEED="123").splitlines()
    assert told == [f"{path.name} {sha256(path)}" for path in sorted(small.folder.iterdir())]
    assert len(told) == 12
    tally(PROMISE, "bundles trained in another process with another hash seed: equal to the byte")


@pytest.mark.parametrize("seed", range(2))
def test_the_order_of_the_rows_changes_nothing(seed, small, tally):
    """Splits and features of the same rows in another order; a vocabulary is trained on the splits."""
    columns = small.prepared.column_map
    shuffled = prepare(small.orders.sample(fraction=1, shuffle=True, seed=seed).lazy(), columns)
    for split, frame in small.prepared.splits.items():
        assert frame.equals(shuffled.splits[split])
    train = small.prepared.splits["train"]
    mixed = train.sample(fraction=1, shuffle=True, seed=seed)
    states = [TabularFeatures().fit(rows, columns.numeric).to_dict() for rows in (train, mixed)]
    assert np.all([states[0][key] == states[1][key] for key in states[0]])
    tally(PROMISE, "rows prepared in another order: equal splits and features")
