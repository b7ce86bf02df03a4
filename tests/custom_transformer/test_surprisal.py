import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from n3r.custom_transformer.language_model import LanguageModelConfig
from n3r.custom_transformer.surprisal import (
    FEATURES,
    as_scores,
    cross_fitted_surprisal,
    sentence,
    user_names,
    with_surprisal,
)
from n3r.metrics import paired_auc
from n3r.schema import ColumnMap

SIZES = {"max_seq_len": 16, "n_blocks": 1, "n_heads": 2, "d_model": 24, "d_ffn": 32, "vocab_size": 300}
ORDERS = json.loads((Path(__file__).parents[2] / "configs" / "orders.json").read_text())


def test_surprisal_as_a_feature_comes_from_a_model_of_other_rows(tmp_path):
    rng = np.random.default_rng(0)
    secret = ["".join(rng.choice(list("abcdefgh"), 8)) for _ in range(80)]
    texts = {"train": pl.Series([*secret[:60], None]), "test": pl.Series(secret[60:])}
    config = LanguageModelConfig(
        **SIZES, epochs=40, patience=99, batch_size=16, learning_rate=1e-2, eval_every=10
    )
    found, models = cross_fitted_surprisal({**texts, "val": texts["train"]}, config, tmp_path)
    assert {split: len(part) for split, part in found.items()} == {"train": 61, "test": 20, "val": 61}
    assert found["train"]["nats"].null_count() == 1 and len(models) == 2
    known = max(model.surprisal(texts["train"])["nats"].mean() for model in models)
    assert found["train"]["nats"].mean() == pytest.approx(found["test"]["nats"].mean(), rel=0.1)
    assert known < 0.9 * found["train"]["nats"].mean()  # a model of the rows themselves knows half of them


@pytest.mark.parametrize(
    ("text", "field", "expected"),
    [(["who", "mail"], "mail", ["ana.b", None]), (["who"], "who", ["Ana B", "Bo"])],
)
def test_user_names_are_those_of_the_address_or_else_the_first_text(text, field, expected):
    frame = pl.DataFrame({"who": ["Ana B", "Bo"], "mail": ["ana.b@x.example", None]})
    found, names = user_names({"train": frame}, ColumnMap(**{**ORDERS, "text": text}))
    assert found == field and names["train"].to_list() == expected


def test_surprisal_as_columns_and_as_scores():
    surprisal = {
        split: pl.DataFrame({"nats": [1.0, last], "bits_per_character": [0.5, last]})
        for split, last in (("train", 3.0), ("test", None))
    }
    frames = with_surprisal({split: pl.DataFrame({"id": [7, 8]}) for split in surprisal}, surprisal)
    assert frames["train"].columns == ["id", *FEATURES]
    assert frames["test"][FEATURES[0]].to_list() == [1.0, None]
    assert as_scores(surprisal)["nats"].to_list() == [1.0, 2.0]


def test_the_sentence_says_whether_a_difference_is_shown():
    y = np.arange(200) % 2
    noise = np.random.default_rng(0).normal(size=(2, 200))
    assert sentence(paired_auc(y, y + noise[0] / 9, noise[1])).endswith("; a difference is shown.")
    assert sentence(paired_auc(y, *noise)).endswith("; no difference is shown.")
    assert sentence(paired_auc(y[:1], y[:1], y[:1])).startswith("Too few")
