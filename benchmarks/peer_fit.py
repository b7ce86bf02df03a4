"""One peer of n3r, fitted and measured with the libraries of `.peers`; it imports nothing of n3r.

    .peers/bin/python benchmarks/peer_fit.py PEER FOLDER

Reads FOLDER/task.json (columns by kind, the label's name, seconds, threads) and train, val and test.parquet.
Writes FOLDER/found.json: scores of the test rows, what it cost, its settings and versions. A peer gets the
columns as they are, one by one. Those that stop early choose how many trees on validation rows; every one is
fitted on training and validation rows in the end.
"""

import json
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

SEED = 0
MAX_TREES, RATE, PATIENCE = 2000, 0.05, 100


class Task(NamedTuple):
    """Which columns there are, and what a peer may take."""

    text: list[str]
    numeric: list[str]
    categorical: list[str]
    label: str
    seconds: float  # AutoGluon's limit
    threads: int

    def features(self, frame: pd.DataFrame) -> pd.DataFrame:
        """The columns that a peer reads; strings never null, since not every peer takes null."""
        strings = {name: frame[name].fillna("").astype(str) for name in self.text + self.categorical}
        return frame[self.text + self.categorical + self.numeric].assign(**strings)


class Fitted(NamedTuple):
    """A peer that has seen its rows."""

    predict: Callable[[pd.DataFrame], np.ndarray]  # rows of a prepared split -> (N,)
    save: Callable[[Path], Any]  # into a folder
    settings: str
    libraries: tuple[str, ...]


def autogluon(task: Task, train: pd.DataFrame, val: pd.DataFrame, folder: Path) -> Fitted:
    """AutoGluon's best quality within its time limit."""
    from autogluon.tabular import FeatureMetadata, TabularPredictor

    rows = task.features(pd.concat([train, val], ignore_index=True))
    metadata = FeatureMetadata.from_df(rows).add_special_types({name: ["text"] for name in task.text})
    predictor = TabularPredictor(task.label, eval_metric="roc_auc", path=str(folder / "autogluon"))
    predictor.fit(
        rows.assign(**{task.label: [*train[task.label], *val[task.label]]}),
        presets="best_quality",
        time_limit=task.seconds,
        num_cpus=task.threads,
        num_gpus=0,
        feature_metadata=metadata,
    )
    return Fitted(
        lambda frame: predictor.predict_proba(task.features(frame))[1].to_numpy(),
        lambda place: predictor.clone_for_deployment(str(place / "autogluon")),
        f"best_quality, {task.seconds:.0f} s, text columns declared as text",
        ("autogluon.tabular", "lightgbm", "catboost", "xgboost-cpu", "fastai", "torch"),
    )


def catboost(task: Task, train: pd.DataFrame, val: pd.DataFrame, folder: Path) -> Fitted:
    """CatBoost with its own features of words and of letters."""
    from catboost import CatBoostClassifier, Pool

    tokenizer = {"tokenizer_id": "Space", "separator_type": "ByDelimiter", "lowercasing": "true"}
    tokenizer |= {"delimiter": " "}
    words = {"dictionary_id": "Word", "gram_order": "1", "occurrence_lower_bound": "1"}
    letters = {"dictionary_id": "Letters", "token_level_type": "Letter", "gram_order": "3"}
    letters |= {"occurrence_lower_bound": "1"}
    processing = {"tokenizers": [tokenizer], "dictionaries": [words, letters]}
    processing["feature_processing"] = {
        "default": [
            {"dictionaries_names": [name], "feature_calcers": [calcer], "tokenizers_names": ["Space"]}
            for name in ("Word", "Letters")
            for calcer in ("BoW:top_tokens_count=500", "NaiveBayes")
        ]
    }

    def pool(frame: pd.DataFrame) -> Pool:
        label = frame[task.label]
        return Pool(task.features(frame), label, cat_features=task.categorical, text_features=task.text)

    def model(n_trees: int) -> CatBoostClassifier:
        own = {"text_processing": processing} if task.text else {}
        return CatBoostClassifier(
            iterations=n_trees,
            learning_rate=RATE,
            eval_metric="AUC",
            random_seed=SEED,
            thread_count=task.threads,
            allow_writing_files=False,
            verbose=False,
            **own,
        )

    first = model(MAX_TREES)
    first.fit(pool(train), eval_set=pool(val), early_stopping_rounds=PATIENCE)
    n_trees = first.get_best_iteration() + 1
    last = model(n_trees).fit(pool(pd.concat([train, val])))
    return Fitted(
        lambda frame: last.predict_proba(pool(frame))[:, 1],
        lambda place: last.save_model(str(place / "model.cbm")),
        f"words and letter trigrams, rate {RATE}, {n_trees} trees by validation rows",
        ("catboost",),
    )


def lightgbm(task: Task, train: pd.DataFrame, val: pd.DataFrame, folder: Path) -> Fitted:
    """LightGBM on numbers, categories and TF-IDF of the character n-grams of each text."""
    from lightgbm import LGBMClassifier, early_stopping
    from sklearn.compose import ColumnTransformer
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.preprocessing import OneHotEncoder

    def vectorizer() -> ColumnTransformer:
        grams = {"analyzer": "char_wb", "ngram_range": (2, 4), "min_df": 5, "max_features": 5000}
        parts = [(name, TfidfVectorizer(**grams, dtype=np.float32), name) for name in task.text]
        one_hot = OneHotEncoder(handle_unknown="ignore", min_frequency=5, dtype=np.float32)
        parts += [("categories", one_hot, task.categorical), ("numbers", "passthrough", task.numeric)]
        return ColumnTransformer(parts, sparse_threshold=1.0)

    def model(n_trees: int) -> LGBMClassifier:
        return LGBMClassifier(
            n_estimators=n_trees,
            learning_rate=RATE,
            colsample_bytree=0.5,
            random_state=SEED,
            n_jobs=task.threads,
            verbose=-1,
        )

    grams = vectorizer()
    first = model(MAX_TREES).fit(
        grams.fit_transform(task.features(train)),
        train[task.label],
        eval_set=[(grams.transform(task.features(val)), val[task.label])],
        eval_metric="auc",
        callbacks=[early_stopping(PATIENCE, first_metric_only=True, verbose=False)],
    )
    both, grams, n_trees = pd.concat([train, val]), vectorizer(), first.best_iteration_
    last = model(n_trees).fit(grams.fit_transform(task.features(both)), both[task.label])
    return Fitted(
        lambda frame: last.predict_proba(grams.transform(task.features(frame)))[:, 1],
        lambda place: _dump((grams, last), place),
        f"char_wb n-grams of 2 to 4, 5,000 a column, rate {RATE}, {n_trees} trees by validation rows",
        ("lightgbm", "scikit-learn"),
    )


def skrub(task: Task, train: pd.DataFrame, val: pd.DataFrame, folder: Path) -> Fitted:
    """The pipeline for tables as it comes: skrub's encoder of strings, then scikit-learn's boosting."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from skrub import StringEncoder, tabular_pipeline

    pipeline = tabular_pipeline(HistGradientBoostingClassifier(random_state=SEED))
    pipeline.set_params(tablevectorizer__high_cardinality=StringEncoder(random_state=SEED))
    both = pd.concat([train, val], ignore_index=True)
    pipeline.fit(task.features(both), both[task.label])
    return Fitted(
        lambda frame: pipeline.predict_proba(task.features(frame))[:, 1],
        lambda place: _dump(pipeline, place),
        "tabular_pipeline: TableVectorizer with StringEncoder, HistGradientBoostingClassifier",
        ("skrub", "scikit-learn"),
    )


PEERS = {"autogluon": autogluon, "catboost": catboost, "lightgbm": lightgbm, "skrub": skrub}


def _dump(model: Any, folder: Path) -> None:
    import joblib

    joblib.dump(model, folder / "model.joblib")


def _megabytes(save: Callable[[Path], Any]) -> float:
    with tempfile.TemporaryDirectory() as place:
        save(Path(place))
        return sum(path.stat().st_size for path in Path(place).rglob("*") if path.is_file()) / 1e6


def _ms_alone(predict: Callable[[pd.DataFrame], Any], rows: pd.DataFrame) -> float:
    """Milliseconds of one row given alone: the median of up to 50 rows or five seconds."""
    times: list[float] = []
    for i in range(min(50, len(rows))):
        started = time.perf_counter()
        predict(rows.iloc[i : i + 1])
        times.append(1000 * (time.perf_counter() - started))
        if sum(times) > 5000 and len(times) > 2:
            break
    return statistics.median(times)


def find(name: str, folder: Path) -> dict[str, Any]:
    """Fit the peer and score the test rows."""
    task = Task(**json.loads((folder / "task.json").read_text(encoding="utf-8")))
    train, val, test = (pd.read_parquet(folder / f"{split}.parquet") for split in ("train", "val", "test"))
    started = time.perf_counter()
    fitted = PEERS[name](task, train, val, folder)
    fit_seconds = time.perf_counter() - started
    fitted.predict(test[:100])  # what is loaded or compiled once
    started = time.perf_counter()
    scores = np.asarray(fitted.predict(test), dtype=np.float64)
    ms_a_row = 1000 * (time.perf_counter() - started) / len(test)
    if not np.isfinite(scores).all():
        raise ValueError("scores that are not finite")
    return {
        "scores": scores.tolist(),
        "fit_seconds": fit_seconds,
        "ms_a_row": ms_a_row,
        "ms_alone": _ms_alone(fitted.predict, test),
        "megabytes": _megabytes(fitted.save),
        "settings": fitted.settings,
        "versions": {library: version(library) for library in fitted.libraries},
    }


def main() -> None:
    """Write what was found, or the kind of the error alone: its message could quote a row."""
    name, folder = sys.argv[1], Path(sys.argv[2])
    try:
        found = find(name, folder)
    except ModuleNotFoundError:
        found = {"failed": "not installed: make peers"}
    except Exception as error:  # whatever a library raises, the other peers go on
        traceback.print_exc()
        found = {"failed": f"failed: {type(error).__name__}"}
    (folder / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
