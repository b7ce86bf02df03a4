"""Trainings that are kept: resumed as if never interrupted, never by another plan, shared by processes."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from sklearn.metrics import f1_score, roc_auc_score
from torch import nn

from n3r.bundle import Bundle, Recipe, train_bundle
from n3r.checkpoints import load, plan, resumable
from n3r.data import OrderDataset, write_store
from n3r.features import TabularFeatures
from n3r.model import Parts, configure
from n3r.schema import LABEL, ColumnMap
from n3r.train import TrainConfig, fit, predict

PAD = 1
SIZES = {"vocab_size": 16, "n_tab_features": 3}
LSTM = {**SIZES, "embedding_size": 4, "hidden_size": 6, "n_lstm_layers": 1}
MODEL = configure("lstm2risk", **LSTM)
BLOCKS = {"embedding_size": 8, "hidden_size": 6, "n_blocks": 1, "n_heads": 2, "block_size": 9}
TRANSFORMER = configure("transformer2risk", **SIZES, **BLOCKS)


def settings(**changes) -> TrainConfig:
    return TrainConfig(**{"epochs": 4, "batch_size": 32, "lr": 1e-2, "precision": "float32", **changes})


def same_weights(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


class PowerCut(OrderDataset):
    """Fails when batch `budget` + 1 is asked for."""

    budget = 0

    def __getitem__(self, rows):
        self.budget -= 1
        if self.budget < 0:
            raise RuntimeError("power cut")
        return super().__getitem__(rows)


def interrupted(data: OrderDataset, n_batches: int) -> PowerCut:
    failing = PowerCut(*vars(data).values())
    failing.budget = n_batches
    return failing


# ---- interrupted and resumed


@pytest.mark.parametrize(("n_batches", "flipped"), [(3, False), (24, False), (17, True)])
def test_a_resumed_training_ends_as_an_uninterrupted_one(n_batches, flipped, planted, tmp_path):
    """5 batches per epoch: the power goes in the first, in the last, and while patience runs."""
    train, val = planted(150, 1), planted(100, 2, flipped=flipped)
    config = settings(epochs=5, patience=3)
    whole = fit(MODEL, train, val, config, tmp_path / "whole", PAD)
    with pytest.raises(RuntimeError, match="power cut"):
        fit(MODEL, interrupted(train, n_batches), val, config, tmp_path / "cut", PAD)
    resumed = fit(MODEL, train, val, config, tmp_path / "cut", PAD)
    assert resumed.history == whole.history
    assert resumed.best_epoch == whole.best_epoch
    assert same_weights(resumed.model, whole.model)


@pytest.mark.slow
def test_a_killed_training_is_resumed_by_another_process(planted, tmp_path, run_fresh):
    code = """
import os, sys
sys.path.insert(0, "tests")
from conftest import planted_orders
import test_checkpoints as t

class Killed(t.OrderDataset):
    n_batches = 12
    def __getitem__(self, rows):
        self.n_batches -= 1
        if not self.n_batches:
            os._exit(0)
        return super().__getitem__(rows)

train = Killed(*vars(planted_orders(150, 1)).values())
t.fit(t.TRANSFORMER, train, planted_orders(100, 2), t.settings(), sys.argv[1], t.PAD)
"""
    train, val = planted(150, 1), planted(100, 2)
    run_fresh(code, tmp_path / "killed")
    seen = torch.load(tmp_path / "killed" / "checkpoints" / "last.ckpt", weights_only=True)
    assert len(seen["history"]) == 2
    resumed = fit(TRANSFORMER, train, val, settings(), tmp_path / "killed", PAD)
    whole = fit(TRANSFORMER, train, val, settings(), tmp_path / "whole", PAD)
    assert resumed.history == whole.history
    assert same_weights(resumed.model, whole.model)


@pytest.mark.parametrize("with_val", [True, False])
def test_a_finished_training_is_not_done_again(with_val, planted, tmp_path):
    """Neither after its last epoch nor when patience ended it before: flipped labels fare ever worse."""
    train, config = planted(100, 1), settings(epochs=5, patience=2)
    val = planted(64, 2, flipped=True) if with_val else None
    first = fit(MODEL, train, val, config, tmp_path, PAD)
    assert (len(first.history) < 5) == with_val
    for _ in range(2):
        again = fit(MODEL, interrupted(train, 0), val, config, tmp_path, PAD)
        assert again.orders_per_second == first.orders_per_second
        assert (again.history, again.best_epoch) == (first.history, first.best_epoch)
        assert same_weights(again.model, first.model)


def test_a_moved_folder_is_resumed_and_no_finished_epoch_is_trained_again(planted, tmp_path):
    """Flipped labels: epoch 1 is the best, and the power goes in epoch 3 of 4."""
    train, val = planted(150, 1), planted(100, 2, flipped=True)
    whole = fit(MODEL, train, val, settings(), tmp_path / "whole", PAD)
    with pytest.raises(RuntimeError, match="power cut"):
        fit(MODEL, interrupted(train, 12), val, settings(), tmp_path / "cut", PAD)
    (tmp_path / "cut").rename(tmp_path / "moved")
    rest = interrupted(train, 2 * 5)
    resumed = fit(MODEL, rest, val, settings(), tmp_path / "moved", PAD)
    assert rest.budget == 0
    assert (resumed.history, resumed.best_epoch) == (whole.history, whole.best_epoch)
    assert same_weights(resumed.model, whole.model)


@pytest.mark.parametrize("what", ["settings", "model", "data", "parts"])
def test_a_checkpoint_of_another_plan_is_not_resumed(what, planted, tmp_path):
    train, val = planted(100, 1), planted(64, 2)
    fit(MODEL, train, val, settings(epochs=2), tmp_path / "used", PAD)
    config = settings(epochs=2, seed=int(what == "settings"))
    model = configure("lstm2risk", **LSTM | {"hidden_size": 7}) if what == "model" else MODEL
    if what == "data":
        train.label[0] = 1 - train.label[0]
    parts = Parts(dropout=nn.Identity) if what == "parts" else Parts()
    again, fresh = (fit(model, train, val, config, tmp_path / name, PAD, parts) for name in ("used", "fresh"))
    assert again.history == fresh.history
    assert same_weights(again.model, fresh.model)


@pytest.mark.parametrize("place", ["2 processes in float32", "1 process in bfloat16"])
def test_a_training_computed_in_another_way_begins_anew_and_says_so(place, planted, tmp_path):
    fit(MODEL, planted(64, 1), None, settings(epochs=1), tmp_path, PAD)
    kept = load(tmp_path, "last")["plan"]
    assert resumable(tmp_path, kept) is not None
    with pytest.warns(
        UserWarning, match=f"is of 1 process in float32, this training of {place}: it begins anew"
    ):
        assert resumable(tmp_path, f"{kept.split()[0]} {place}") is None
    assert not (tmp_path / "checkpoints").exists()


def test_a_plan_tells_settings_and_every_array(planted):
    data = planted(64, 1)
    known = {plan([{"lr": 1}, data.digest]), plan([{"lr": 2}, data.digest]), plan([{"lr": 1}])}
    for array in data.arrays.values():
        before = array.flat[5]
        array.flat[5] += 1
        known.add(plan([{"lr": 1}, data.digest]))
        array.flat[5] = before
    assert len(known) == 3 + len(data.arrays) and plan([{"lr": 1}, data.digest]) in known


def test_a_damaged_checkpoint_is_told_and_training_begins_anew(planted, tmp_path):
    data = planted(64, 1)
    whole = fit(MODEL, data, None, settings(epochs=1), tmp_path, PAD)
    (tmp_path / "checkpoints" / "last.ckpt").write_bytes(b"half")
    with pytest.warns(UserWarning, match="last.ckpt is damaged: training begins anew"):
        again = fit(MODEL, data, None, settings(epochs=1), tmp_path, PAD)
    assert same_weights(again.model, whole.model)


# ---- several processes


@pytest.mark.slow
def test_defect_44_two_processes_train_one_model_and_resume(planted, own_network, tmp_path, capfd):
    """Metrics are over all rows of both; nothing is left of the second process but its work."""
    train, val = planted(301, 1), planted(203, 2)
    config = settings(processes=2, seed=2)
    fitted = fit(MODEL, train, val, config, tmp_path, PAD)
    assert "WORLD_SIZE" not in os.environ
    assert len(fitted.history) == 4
    figures = fitted.history[fitted.best_epoch - 1]
    p = predict(fitted.model, val, PAD)
    assert figures["val_auroc"] == pytest.approx(roc_auc_score(val.label, p[:, 1]), abs=1e-6)
    losses = -np.log(p[np.arange(203), val.label])
    assert figures["val_loss"] == pytest.approx(losses.mean(), abs=1e-6)
    assert figures["val_f1"] == pytest.approx(f1_score(val.label, p[:, 1] > 0.5), abs=1e-6)
    test = planted(400, 3)
    assert roc_auc_score(test.label, predict(fitted.model, test, PAD)[:, 1]) > 0.75
    assert fitted.history[-1]["train_loss"] < fitted.history[0]["train_loss"]
    files = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert files == ["best.ckpt", "last.ckpt"]
    assert len(list((tmp_path / "tensorboard").glob("events.*"))) == 1
    speed = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["callbacks"]["Speed"]
    assert speed["n_rows"] == pytest.approx(4 * 301, abs=4 * 10)  # the first process's share, twice
    shown = capfd.readouterr()
    assert shown.out == ""
    assert "val_auroc" in shown.err
    assert "Initializing" not in shown.err
    # The power goes in epoch 3, in both.
    with pytest.raises(Exception, match="power cut"):
        fit(MODEL, interrupted(train, 22), val, config, tmp_path / "cut", PAD)
    seen = torch.load(tmp_path / "cut" / "checkpoints" / "last.ckpt", weights_only=True)["history"]
    assert seen == fitted.history[:2]
    resumed = fit(MODEL, train, val, config, tmp_path / "cut", PAD)
    assert resumed.history == fitted.history
    assert same_weights(resumed.model, fitted.model)


@pytest.mark.slow
def test_three_processes_that_are_interrupted_end_in_the_same_weights(planted, own_network, tmp_path):
    """Of three numbers, other than of two, the order of their sum shows."""
    train, val, config = planted(301, 1), planted(203, 2), settings(processes=3)
    whole = fit(MODEL, train, val, config, tmp_path / "whole", PAD)
    with pytest.raises(Exception, match="power cut"):
        fit(MODEL, interrupted(train, 22), val, config, tmp_path / "cut", PAD)
    resumed = fit(MODEL, train, val, config, tmp_path / "cut", PAD)
    assert resumed.history == whole.history
    assert same_weights(resumed.model, whole.model)


SCRIPT = """
import os, sys, time
from pathlib import Path
import polars as pl, torch
sys.path.insert(0, "tests")
from conftest import made_up_names, planted_orders
import test_checkpoints as t
from n3r import predictions, tables
from n3r.bundle import Recipe, train_bundle
from n3r.features import TabularFeatures
from n3r.schema import ColumnMap
from n3r.tokenizer import NameTokenizer
from n3r.checkpoints import is_first_process

out, rank = Path(sys.argv[1]), os.environ["RANK"]
frames = {name: pl.read_parquet(out / f"{name}.parquet") for name in ("train", "val", "test")}
columns = ColumnMap.from_file(out / "columns.json")
features = TabularFeatures().fit(frames["train"], columns.numeric)
tokenizer = NameTokenizer.load(out)
sizes = {"vocab_size": tokenizer.vocab_size, "n_tab_features": len(features)}
model = t.configure("lstm2risk", **t.LSTM | sizes)
config = t.settings(epochs=2)
recipe = Recipe(tokenizer, features, columns, config)
time.sleep(2 * int(rank))  # defect 44: the ranks are seconds apart
bundle, fitted = train_bundle(model, frames, recipe, out / "fit")
bundle.save(out / "bundle")
torch.save(fitted.model.state_dict(), out / f"weights.{rank}")
(out / f"history.{rank}").write_text(str(fitted.history))
for name, rows in (("test", frames["test"]), ("one", frames["test"][:1]), ("none", frames["test"][:0])):
    table = bundle.predictions(rows)
    table.write_parquet(out / f"{name}.scored.{rank}")
    if is_first_process():
        tables.write(table, out / f"{name}.scored.csv")
predictions.write_test_result(bundle.predictions(frames["test"]), "lstm2risk", out / "results")
torch.distributed.destroy_process_group()
"""


TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]
GROUP = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29617"}
MACHINES = ["--nnodes=2", "--nproc-per-node=1", "--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:29618"]
MACHINES += ["--local-addr=127.0.0.1", "--rdzv-id=n3r"]
# torch 2.13 hands restarted processes the store of those before them, in which are these ones' addresses.
FRESH = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
# Commands of a launcher and the variables that it sets.
LAUNCHERS = {
    "plain": [([sys.executable], {**GROUP, "RANK": rank, "LOCAL_RANK": rank}) for rank in ("0", "1")],
    "torchrun": [([*TORCHRUN, "--standalone", "--nproc-per-node=2"], {})],
    "two machines": [([*TORCHRUN, *MACHINES], {"GLOO_SOCKET_IFNAME": "lo"})] * 2,
    "restarts": [([*TORCHRUN, "--standalone", "--nproc-per-node=2", "--max-restarts=2"], FRESH)],
}


def launch(launcher: str, folder: Path) -> None:
    """The folder's script in two processes."""
    commands = [
        shlex.join([*(f"{key}={value}" for key, value in {"PYTHONPATH": ".", **variables}.items())])
        + " "
        + shlex.join([*command, str(folder / "script.py"), str(folder)])
        for command, variables in LAUNCHERS[launcher]
    ]
    together = " & ".join([*commands[:-1], f"{commands[-1]} && wait $!" if commands[1:] else commands[0]])
    done = subprocess.run(
        ["sh", "-c", together], cwd=Path(__file__).parents[1], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def two_processes(names, tokenizer, own_network, tmp_path_factory):
    """Splits, what reads them, and the bundle that `processes=2` trains on them."""
    columns = ColumnMap(
        id="order",
        text=["email", "billing"],
        label="fraud",
        label_values={"0": 0, "1": 1},
        numeric=["amount"],
        split_by="random",
    )
    rng = np.random.default_rng(0)
    frames = {
        name: names(n, seed=i).with_columns(
            order=pl.Series([f"o{k}" for k in rng.permutation(n)]),
            amount=pl.Series(rng.normal(size=n)),
            **{LABEL: pl.Series(rng.integers(0, 2, n), dtype=pl.Int8)},
        )
        for i, (name, n) in enumerate({"train": 121, "val": 61, "test": 1025}.items())
    }
    features = TabularFeatures().fit(frames["train"], columns.numeric)
    sizes = {"vocab_size": tokenizer.vocab_size, "n_tab_features": len(features)}
    recipe = Recipe(tokenizer, features, columns, settings(epochs=2, processes=2))
    folder = tmp_path_factory.mktemp("two")
    bundle, _ = train_bundle(configure("lstm2risk", **LSTM | sizes), frames, recipe, folder)
    return frames, columns, bundle.model.state_dict()


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["torchrun", "plain", "two machines"])
def test_defect_44_under_a_launcher_each_row_is_scored_once(launcher, two_processes, tokenizer, tmp_path):
    """Written once, in the rows' order, with their ids, and by both processes alike; the weights are those of
    two processes that `fit` starts itself.
    """
    frames, columns, expected = two_processes
    for name, rows in frames.items():
        rows.write_parquet(tmp_path / f"{name}.parquet")
    tokenizer.save(tmp_path)
    (tmp_path / "columns.json").write_text(columns.model_dump_json())
    (tmp_path / "script.py").write_text(SCRIPT)
    launch(launcher, tmp_path)
    bundle = Bundle.load(tmp_path / "bundle")
    histories = [(tmp_path / f"history.{rank}").read_text() for rank in (0, 1)]
    assert histories[0] == histories[1]
    weights = [torch.load(tmp_path / f"weights.{rank}", weights_only=True) for rank in (0, 1)]
    for name, value in bundle.model.state_dict().items():
        assert all(torch.equal(value, one[name]) for one in (*weights, expected))
    (file,) = (tmp_path / "results").glob("*/*")  # of the first process alone
    assert file.name == "test_result_rank0.tsv"
    assert pl.read_csv(file, separator="\t")["order"].to_list() == frames["test"]["order"].to_list()
    for name, n in {"test": 1025, "one": 1, "none": 0}.items():
        scored, other = (pl.read_parquet(tmp_path / f"{name}.scored.{rank}") for rank in (0, 1))
        assert scored.equals(other)
        assert scored["order"].equals(frames["test"]["order"][:n])
        np.testing.assert_allclose(
            scored["score"], bundle.predictions(frames["test"][:n])["score"], atol=1e-6
        )
        assert len(pl.read_csv(tmp_path / f"{name}.scored.csv")) == n
    assert not [path.name for path in tmp_path.rglob("*.partial")]
    assert sorted(path.name for path in (tmp_path / "fit").iterdir()) == ["checkpoints", "tensorboard"]
    assert len(list((tmp_path / "fit" / "tensorboard").glob("events.*"))) == 1


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
sys.path.insert(0, "tests")
from conftest import planted_orders
import test_checkpoints as t
from n3r.data import OrderDataset, open_store, write_store

out, rank = Path(sys.argv[1]), os.environ["RANK"]
kills = (out / "kills").read_text().split()

class Killed(OrderDataset):
    n_batches = int(kills[0]) if rank == "1" and kills else 0
    def __getitem__(self, rows):
        self.n_batches -= 1
        if not self.n_batches:
            (out / "kills").write_text(" ".join(kills[1:]))
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(rows)

stored = open_store(out / "store")
train, val = Killed(*vars(stored).values()), planted_orders(101, 2)
fitted = t.fit(t.MODEL, train, val, t.settings(), out / "fit", t.PAD)
torch.save(fitted.model.state_dict(), out / f"weights.{rank}")
torch.distributed.destroy_process_group()
"""


@pytest.mark.slow
@pytest.mark.parametrize("kills", [[3], [21, 4]], ids=str)
def test_a_killed_worker_is_restarted_and_the_weights_are_the_same(kills, planted, own_network, tmp_path):
    """10 batches an epoch, 4 epochs; it is killed at these batches of its attempts."""
    train = planted(301, 1)
    write_store(tmp_path / "store", [train])
    expected = fit(MODEL, train, planted(101, 2), settings(processes=2), tmp_path / "whole", PAD)
    (tmp_path / "kills").write_text(" ".join(map(str, kills)))
    (tmp_path / "script.py").write_text(KILLED)
    launch("restarts", tmp_path)
    for rank in (0, 1):
        weights = torch.load(tmp_path / f"weights.{rank}", weights_only=True)
        assert all(torch.equal(value, weights[name]) for name, value in expected.model.state_dict().items())
    assert sorted(path.name for path in (tmp_path / "fit").iterdir()) == ["checkpoints", "tensorboard"]


# ---- files


@pytest.mark.parametrize("monitor", ["val_auroc", "val_loss"])
def test_defect_41_54_checkpoints_lie_in_one_folder_and_are_read_without_pickle(monitor, planted, tmp_path):
    data = planted(64, 1)
    fitted = fit(MODEL, data, data, settings(epochs=2, monitor=monitor), tmp_path, PAD)
    files = sorted((tmp_path / "checkpoints").rglob("*"))
    assert [path.name for path in files] == ["best.ckpt", "last.ckpt"]
    for path in files:
        state = torch.load(path, weights_only=True)
        assert set(state["state_dict"]) == {f"model.{name}" for name in fitted.model.state_dict()}


def test_tensorboard_gets_every_figure_of_every_epoch(planted, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    data = planted(64, 1)
    fitted = fit(MODEL, data, data, settings(epochs=2), tmp_path, PAD)
    (file,) = (tmp_path / "tensorboard").glob("events.*")
    events = EventAccumulator(str(file))
    events.Reload()
    for name in fitted.history[0].keys() - {"epoch"}:
        values = [event.value for event in events.Scalars(name)]
        assert values == pytest.approx([epoch[name] for epoch in fitted.history], abs=1e-6)


def test_nothing_is_printed_and_nothing_left_in_the_working_directory(planted, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    data = planted(64, 1)
    fit(MODEL, data, data, settings(epochs=1), tmp_path / "run", PAD)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "val_auroc" in shown.err
