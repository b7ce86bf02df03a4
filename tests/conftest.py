"""What test files share: made-up names, a tokenizer trained on them, a planted signal, a trained bundle."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

# The matrices of tests are so small that a second thread only waits for the first.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, settings

from n3r.token_arrays import TokenizedText
from n3r.tokenizer import NameTokenizer
from n3r.vocabulary import TokenizerConfig, train_tokenizer

# A profile decides how many examples all tests draw: the same few in `make test`, others and more in torture.
CHECKS = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
ALIKE = {"deadline": None, "suppress_health_check": CHECKS}
settings.register_profile("n3r", max_examples=25, derandomize=True, **ALIKE)
settings.register_profile("torture", max_examples=300, **ALIKE)
settings.load_profile("n3r")

ROOT = Path(__file__).parents[1]
GIVEN = [
    "Anina",
    "Belto",
    "Corvin",
    "Dalmer",
    "Elshi",
    "Fenno",
    "Garish",
    "Hulda",
    "Imari",
    "Jorun",
    "Kasimo",
]
FAMILY = ["Abernal", "Bostrik", "Cavendo", "Drumond", "Eskelin", "Farqua", "Gunders", "Holmgar", "Lenka"]
MAIL = ["post.example", "mail.example", "box.example"]


def made_up_names(n: int, seed: int = 0) -> pl.DataFrame:
    """`n` rows of the text columns email, billing and holder; a tenth of the holders is missing."""
    rng = np.random.default_rng(seed)
    given, family = rng.choice(GIVEN, n), rng.choice(FAMILY, n)
    number, mail = rng.integers(1, 999, n), rng.choice(MAIL, n)
    email = [f"{g}.{f}{k}@{m}".lower() for g, f, k, m in zip(given, family, number, mail, strict=True)]
    billing = [f"{g} {f}" for g, f in zip(given, family, strict=True)]
    holder = [None if rng.random() < 0.1 else name.upper() for name in billing]
    return pl.DataFrame({"email": email, "billing": billing, "holder": holder})


def planted_orders(n: int, seed: int = 0, shuffled: bool = False, flipped: bool = False):
    """An OrderDataset of 40 token ids and 3 features; token 7 and feature 0 make the label.

    `shuffled` labels have nothing to do with the rows; `flipped` ones are the opposite of the signal.
    """
    from n3r.data import OrderDataset  # here, so that tests without torch start without it

    rng = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(rng.integers(1, 9, n))])
    ids = rng.integers(7, 16, offsets[-1]).astype(np.int32)
    tabular = rng.normal(size=(n, 3)).astype(np.float32)
    has_token = np.array([7 in ids[start:end] for start, end in zip(offsets, offsets[1:], strict=False)])
    label = (2 * has_token + tabular[:, 0] > 0.8).astype(np.int64)
    if shuffled:
        label = rng.permutation(label)
    return OrderDataset(TokenizedText(ids, offsets), tabular, 1 - label if flipped else label)


def in_three_classes(frame: pl.DataFrame, seed: int = 0) -> pl.DataFrame:
    """Prepared rows with frauds of two kinds, 1 and 2, and scores of three classes that know of them."""
    from n3r.schema import LABEL, SCORE

    rng = np.random.default_rng(seed)
    label = frame[LABEL].to_numpy() * rng.integers(1, 3, len(frame))
    p = np.stack([rng.dirichlet(1 + 3 * np.eye(3)[c]) for c in label])
    scores = {f"{SCORE}_{c}": pl.Series(p[:, c]) for c in range(3)}
    return frame.drop(SCORE, strict=False).with_columns(**{LABEL: pl.Series(label)}, **scores)


@pytest.fixture(scope="session")
def own_network() -> list[str]:
    """How a command begins that runs in a network of its own, of the loopback address alone."""
    alone = ["unshare", "--net"]
    if shutil.which("unshare") is None or subprocess.run([*alone, "true"], capture_output=True).returncode:
        pytest.skip("no network namespace of its own can be made")
    up = (
        "import fcntl, os, socket, struct, sys; "  # SIOCSIFFLAGS: IFF_UP and IFF_RUNNING
        "fcntl.ioctl(socket.socket(), 0x8914, struct.pack('16sh', b'lo', 0x41)); "
        "os.execvp(sys.argv[1], sys.argv[1:])"
    )
    return [*alone, sys.executable, "-c", up]


def in_fresh_process(code: str, *arguments: object, **environment: str) -> str:
    """What `code` prints in a new interpreter; its errors fail the test."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def names() -> Callable[..., pl.DataFrame]:
    return made_up_names


@pytest.fixture(scope="session")
def planted() -> Callable:
    return planted_orders


@pytest.fixture(scope="session")
def in_three() -> Callable[..., pl.DataFrame]:
    return in_three_classes


@pytest.fixture(scope="session")
def run_fresh() -> Callable[..., str]:
    return in_fresh_process


@pytest.fixture(scope="session")
def tokenizer() -> NameTokenizer:
    """Trained on 300 rows of made-up names."""
    return train_tokenizer(made_up_names(300), TokenizerConfig(min_frequency=3))[0]


def save_bert(folder: Path, wordpiece: Any) -> str:
    """The folder, with a BERT of random weights and its tokenizer in it as transformers saves them."""
    import torch
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    roles = {name: wordpiece.metadata[name] for name in ("cls_token", "sep_token", "pad_token")}
    PreTrainedTokenizerFast(tokenizer_object=wordpiece.tokenizer, **roles).save_pretrained(folder)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    torch.manual_seed(1)
    model = BertModel(BertConfig(vocab_size=wordpiece.vocab_size, **sizes, max_position_embeddings=40))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)  # as drawn they would be too small to tell rows apart
    model.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def made_bert() -> Callable[[Path, Any], str]:
    return save_bert


class Small(NamedTuple):
    """A bundle trained on 1,200 synthetic orders, and what it was made of."""

    bundle: Any
    folder: Path  # the bundle on disk: read it, copy it, never change it
    orders: pl.DataFrame  # raw
    prepared: Any


def train_small(folder: Path) -> Small:
    """Train the bundle and write it into the folder, the prepared splits beside it as `data`."""
    from n3r import tables
    from n3r.bundle import Recipe, train_bundle
    from n3r.features import TabularFeatures
    from n3r.model import configure
    from n3r.preprocess import prepare
    from n3r.schema import ColumnMap
    from n3r.synthetic.orders import generate_orders
    from n3r.train import TrainConfig

    orders = generate_orders(1200, seed=3, base_rate=0.2)
    prepared = prepare(orders.lazy(), ColumnMap.from_file(ROOT / "configs" / "orders.json"))
    columns, train = prepared.column_map, prepared.splits["train"]
    tokenizer, _ = train_tokenizer(train.select(columns.all_text), TokenizerConfig(min_frequency=5))
    features = TabularFeatures().fit(train, columns.numeric, columns.categorical, columns.n_classes)
    sizes = {"vocab_size": tokenizer.vocab_size, "n_tab_features": len(features), "hidden_size": 8}
    sizes |= {"embedding_size": 8, "n_lstm_layers": 1, "n_tab_bins": 4, "tab_gain_power": 1.0}
    config = configure("lstm2risk", **sizes)
    training = TrainConfig(epochs=1, batch_size=128, precision="float32")
    recipe = Recipe(tokenizer, features, columns, training)
    bundle, _ = train_bundle(config, prepared.splits, recipe, folder / "training")
    bundle.save(folder / "bundle")
    tables.write_splits(folder / "data", prepared.splits, columns)
    return Small(bundle, folder / "bundle", orders, prepared)


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    """The one trained bundle of a session, for whatever needs any: LSTM2Risk after an epoch."""
    return train_small(tmp_path_factory.mktemp("small"))
