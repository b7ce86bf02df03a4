"""What the studies' tests share: prepared orders, bundles that make every deviation their class can make."""

from collections.abc import Callable

import numpy as np
import polars as pl
import pytest
import torch

from n3r.bundle import Bundle
from n3r.features import FeatureConfig
from n3r.identity.selection import fit_features
from n3r.model import RiskModel, configure
from n3r.preprocess import PrepareConfig, prepare
from n3r.schema import ColumnMap
from n3r.synthetic.orders import generate_orders
from n3r.train import TrainConfig
from n3r.vocabulary import TokenizerConfig, train_tokenizer

SMALL = {
    "lstm2risk": {"embedding_size": 4, "hidden_size": 6, "n_lstm_layers": 2},
    "transformer2risk": {
        "embedding_size": 8,
        "hidden_size": 6,
        "n_blocks": 2,
        "n_heads": 2,
        "block_size": 20,
    },
}
TEXT = ["emailAddress", "customerName"]
NUMERIC = [f"x{i}" for i in range(5)]
COLUMNS = ColumnMap(
    id="objectId",
    text=TEXT,
    label="status",
    label_values={"F": 1, "N": 0},
    segment="marketplaceCountryCode",
    numeric=NUMERIC,
    categorical=["region"],
    split_by="random",
)


@pytest.fixture(scope="session")
def splits() -> dict[str, pl.DataFrame]:
    """300 synthetic orders with five features made here, of which x0 tells fraud and has holes."""
    orders = generate_orders(300, 0, base_rate=0.3)
    rng = np.random.default_rng(0)
    fraud = orders["status"].is_in(["F", "I"]).to_numpy()
    numbers = {name: rng.lognormal(0, 2, len(orders)) for name in NUMERIC}
    numbers["x0"] = np.where(rng.random(len(orders)) < 0.3, np.nan, 10 * fraud + numbers["x0"])
    frame = orders.select("objectId", "marketplaceCountryCode", "region", *TEXT).with_columns(
        status=pl.Series(np.where(fraud, "F", "N")), **numbers
    )
    config = PrepareConfig(train=0.6, val=0.2, test=0.2, first_order_only=False)
    return prepare(frame.lazy(), COLUMNS, config).splits


@pytest.fixture(scope="session")
def a_bundle(splits) -> Callable[..., Bundle]:
    """Makes a bundle of a model class, not trained."""

    def make(model_class: str, identity: bool = False, **training) -> Bundle:
        tokenizer, _ = train_tokenizer(splits["train"].select(TEXT), TokenizerConfig(min_frequency=3))
        features = fit_features(splits["train"], COLUMNS, FeatureConfig(), identity)
        config = configure(
            model_class,
            vocab_size=tokenizer.vocab_size,
            n_tab_features=len(features),
            n_tab_bins=4,
            **SMALL[model_class],
        )
        settings = {"epochs": 2, "batch_size": 32, "lr": 1e-2, "precision": "bfloat16", **training}
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = RiskModel(config, knots=features.knots).eval()
        return Bundle(tokenizer, features, COLUMNS, TrainConfig(**settings), model=model)

    return make
