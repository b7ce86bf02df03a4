"""What the tests of promises share: a small trained bundle, and the table of what was tried and lost."""

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import polars as pl
import pytest

from n3r import pipeline, tables
from n3r.bundle import Bundle, train_bundle
from n3r.features import TabularFeatures
from n3r.model import configure
from n3r.preprocess import Prepared, prepare
from n3r.schema import ColumnMap
from n3r.synth import generate_orders
from n3r.train import TrainConfig
from n3r.vocabulary import TokenizerConfig, train_tokenizer

TALLY = pytest.StashKey[dict[tuple[str, str], list[int]]]()


class Small(NamedTuple):
    """A bundle trained on 1,200 synthetic orders, and what it was made of."""

    bundle: Bundle
    folder: Path  # the bundle on disk: read it, copy it, never change it
    orders: pl.DataFrame  # raw
    prepared: Prepared


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    folder = tmp_path_factory.mktemp("small")
    orders = generate_orders(1200, seed=3, base_rate=0.2)
    prepared = prepare(orders.lazy(), ColumnMap.from_file(pipeline.ROOT / "configs" / "orders.json"))
    columns, train = prepared.column_map, prepared.splits["train"]
    tokenizer, _ = train_tokenizer(train.select(columns.all_text), TokenizerConfig(min_frequency=5))
    features = TabularFeatures().fit(train, columns.numeric, columns.categorical, columns.n_classes)
    config = configure(
        "lstm2risk",
        vocab_size=tokenizer.vocab_size,
        n_tab_features=len(features),
        embedding_size=8,
        hidden_size=8,
        n_lstm_layers=1,
        n_tab_bins=4,
    )
    settings = TrainConfig(epochs=1, batch_size=128, precision="float32")
    parts = Bundle(None, tokenizer, features, columns, settings, {})
    bundle, _ = train_bundle(config, prepared.splits, parts, folder / "training")
    bundle.save(folder / "bundle")
    tables.write_splits(folder / "data", prepared.splits, columns)
    return Small(bundle, folder / "bundle", orders, prepared)


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Callable[..., None]:
    """`tally(promise, what, tried, lost)` adds to the table that `make torture` writes."""

    def add(promise: str, what: str, tried: int = 1, lost: int = 0) -> None:
        row = request.config.stash[TALLY][promise, what]
        row[0], row[1] = row[0] + tried, row[1] + lost

    return add


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--tally", type=Path, help="write the table of what was tried into this file")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[TALLY] = defaultdict(lambda: [0, 0])
