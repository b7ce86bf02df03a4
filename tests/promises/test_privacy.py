"""Private data stays private: made-up people go through everything and are looked for in what comes out."""

import json
import os
import random
import shutil
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from n3r import pipeline, tables
from n3r.features import TabularFeatures
from n3r.preprocess import prepare
from n3r.schema import LABEL, ColumnMap, mask
from n3r.score import Scorer
from n3r.score_files import score_files
from n3r.synthetic.orders import generate_orders

PROMISE = "privacy"
N3R = [sys.executable, "-m", "n3r.cli"]
FIELDS = ("emailAddress", "billingAddressName", "customerName", "paymentAccountHolderName")
MODELS = ("lstm2risk", "transformer2risk")
N_RARE, N_COMMON, ORDERS_EACH = 30, 4, 120
SYLLABLES = ["zyx", "quv", "brw", "ontl", "kjv", "ipq", "wuz", "oxq", "vlj", "eqz", "жыг", "щюх"]


def people(n: int, seed: int) -> list[tuple[str, str]]:
    """Given and family names of nobody: no list of names and no English word has them."""
    rng = random.Random(seed)
    return [tuple("".join(rng.sample(SYLLABLES, 4)) for _ in range(2)) for _ in range(n)]


RARE, COMMON = people(N_RARE, 1), people(N_COMMON, 2)


def planted(orders: pl.DataFrame) -> pl.DataFrame:
    """The orders, each rare person's names on one of them and each common person's on many, at all times."""
    owners: list[tuple[str, str] | None] = [*RARE, *(person for person in COMMON for _ in range(ORDERS_EACH))]
    owners += [None] * (len(orders) - len(owners))
    random.Random(3).shuffle(owners)
    changed = {}
    for field in FIELDS:
        address = field == "emailAddress"
        spelled = [
            p and (f"{p[0]}.{p[1]}@post.example" if address else f"{p[0].title()} {p[1].title()}")
            for p in owners
        ]
        changed[field] = pl.Series(spelled, dtype=pl.String)
    return orders.with_columns(
        pl.coalesce(values, pl.col(field)).alias(field) for field, values in changed.items()
    )


def traces(content: bytes, words: list[str]) -> list[str]:
    """The words that the bytes hold, in any case, as UTF-8 or UTF-16 or escaped as in JSON."""
    lowered = content.decode("utf-8", "ignore").lower()
    wide = content.decode("utf-16-le", "ignore").lower()
    escaped = {word: json.dumps(word)[1:-1] for word in words}
    return [word for word in words if word in lowered or word in wide or escaped[word] in lowered]


def pieces(path: Path) -> Iterator[bytes]:
    """All that a file says, unpacked where it is packed."""
    content = path.read_bytes()
    yield content
    yield str(path).encode()
    if path.suffix == ".parquet":
        yield pl.read_parquet(path).write_csv().encode()
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as parts:
            yield from (parts.read(part) for part in parts.infolist())
    if content[:2] == b"\x1f\x8b":
        yield zlib.decompress(content, 31)


def found_in(place: Path, words: list[str]) -> dict[str, list[str]]:
    """File -> the words that it holds."""
    found = {}
    for path in sorted(place.rglob("*")):
        if path.is_file():
            held = sorted({word for piece in pieces(path) for word in traces(piece, words)})
            if held:
                found[str(path.relative_to(place))] = held
    return found


WORDS = {"rare": [word for person in RARE for word in person], "common": [w for p in COMMON for w in p]}
VOCABULARY = ("tokenizer.json", "vocab.json", "model_artifacts.pth")  # the published layout's has one inside


def test_what_is_looked_for_is_found_where_it_is(tmp_path):
    word = RARE[0][0]
    (tmp_path / "plain.txt").write_text(f"x{word.upper()}y")
    (tmp_path / "escaped.json").write_text(json.dumps([word]))
    (tmp_path / "wide.bin").write_bytes(word.encode("utf-16-le"))
    pl.DataFrame({"a": [word] * 9}).write_parquet(tmp_path / "t.parquet")
    with zipfile.ZipFile(tmp_path / "z.pt", "w", zipfile.ZIP_DEFLATED) as parts:
        parts.writestr("x", word * 5)
    assert set(found_in(tmp_path, [word])) == {"plain.txt", "escaped.json", "wide.bin", "t.parquet", "z.pt"}


@pytest.mark.slow
def test_nobody_is_found_in_what_a_run_leaves(tmp_path, tally):
    orders = planted(generate_orders(3000, seed=5, base_rate=0.15))
    orders.write_csv(tmp_path / "orders.csv")
    name = f"test-{os.getpid()}-privacy"
    folder = pipeline.ROOT / "runs" / name
    reports, out = pipeline.reports_folder(folder), tmp_path / "out"
    out.mkdir()
    raw, scores, bundle = tmp_path / "orders.csv", out / "scores.csv", folder / "lstm2risk"
    run = ("--name", name, "--size", "dev", "--data", raw)
    commands = {
        "run": ("run", *run),
        "surprisal": ("run", "07", *run),
        "score": ("score", "--bundle", bundle, raw, "-o", scores),
        "evaluate": ("evaluate", scores, "--orders", raw, "-o", out / "e"),
        "compare": ("compare", *(folder / model for model in MODELS), "-o", out / "c"),
        "export": ("export", "--bundle", bundle, "--layout", "sagemaker", out / "s"),
    }
    try:
        for what, command in commands.items():
            arguments = [*N3R, *map(str, command)]
            done = subprocess.run(arguments, cwd=pipeline.ROOT, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr[-2000:]
            (out / f"{what}.log").write_text(done.stdout + done.stderr)
        found = {kind: found_in(folder, words) for kind, words in WORDS.items()}
        told = (reports / "report.md").read_text()
        shutil.move(reports, out / "reports")
        elsewhere = {kind: found_in(out, words) for kind, words in WORDS.items()}
        n_files = sum(path.is_file() for place in (folder, out) for path in place.rglob("*"))
    finally:
        for place in (folder, reports):
            shutil.rmtree(place, ignore_errors=True)
    assert "a piece of a name is a token only where it comes 25 times or more in training" in told
    tally(PROMISE, "the rule of the vocabulary: stated in report and card")
    prepared = {path for path in found["rare"] if path.startswith("data/")}
    # They did go through.
    assert prepared == {f"data/{split}/part-000000.csv" for split in ("train", "val", "test")}
    assert set(found["rare"]) == prepared and not elsewhere["rare"]
    tokens = {path for path in [*found["common"], *elsewhere["common"]] if not path.startswith("data/")}
    assert tokens and all(path.endswith(VOCABULARY) for path in tokens), tokens
    rare = f"people on one order, looked for in {n_files} files: found in prepared data alone"
    tally(PROMISE, rare, N_RARE)
    common = f"people on {ORDERS_EACH} orders, likewise: in prepared data and vocabularies alone"
    tally(PROMISE, common, N_COMMON)


def test_the_card_says_what_the_vocabulary_holds(small, tally):
    card = (small.folder / "MODEL_CARD.md").read_text()
    assert "the pieces of names that come min\\_frequency times or more" in card
    tally(PROMISE, "the rule of the vocabulary: stated in report and card")


def test_rare_names_leave_no_token(small, tally):
    """The vocabulary of a training holds no word that fewer than min_frequency texts have."""
    from n3r.vocabulary import TokenizerConfig, train_tokenizer

    orders = planted(small.orders.head(1000))
    tokenizer, _ = train_tokenizer(orders.select(FIELDS), TokenizerConfig(min_frequency=25))
    vocabulary = json.dumps(tokenizer.tokenizer.get_vocab(), ensure_ascii=False)
    assert not traces(vocabulary.encode(), WORDS["rare"])
    assert traces(vocabulary.encode(), WORDS["common"])
    tally(PROMISE, "rare people looked for in a vocabulary: none found", N_RARE)


def test_rare_categories_are_not_kept(tally):
    """A name in a categorical column is in the bundle only where many rows have it."""
    names = ["common"] * 40 + [f"{given} {family}" for given, family in RARE]
    label = [i % 4 == 0 for i in range(40)] + [i % 2 == 0 for i in range(N_RARE)]
    frame = pl.DataFrame({"shop": names, LABEL: np.array(label, np.int64)})
    kept = json.dumps(TabularFeatures().fit(frame, [], ["shop"]).to_dict(), ensure_ascii=False)
    assert "common" in kept and not traces(kept.encode(), WORDS["rare"])
    tally(PROMISE, "rare categories looked for in the features: none found", N_RARE)


# ---- errors


def column_map(**changes: object) -> ColumnMap:
    known = json.loads((pipeline.ROOT / "configs" / "orders.json").read_text())
    return ColumnMap(**{**known, **changes})


NAME = "customerName"
A_NUMBER = {"numeric": [NAME], "text": ["emailAddress"]}
AN_ID = {"id": NAME, "text": ["emailAddress"]}


def prepared(orders: pl.DataFrame, **changes: object) -> None:
    prepare(orders.lazy(), column_map(**changes))


# What is done with orders o in a folder p.
MISTAKES: dict[str, Callable[[pl.DataFrame, Path], object]] = {
    "a name for the label": lambda o, p: prepared(o, label=NAME, other_labels="error"),
    "a name for the label of few rows": lambda o, p: prepared(
        o.head(8), label=NAME, other_labels="error", split_by="random"
    ),
    "a name for the time": lambda o, p: prepared(o, time=NAME),
    "a name for the time of the entity": lambda o, p: prepared(o, entity_time=NAME),
    "a name for epoch seconds": lambda o, p: prepared(o, time=NAME, time_format="epoch"),
    "a name for a number": lambda o, p: prepared(o, **A_NUMBER),
    "a name for a number in CSV": lambda o, p: scan_csv(o, p, column_map(**A_NUMBER)),
    "a name for the id of all": lambda o, p: prepared(o.with_columns(pl.lit("x").alias(NAME)), **AN_ID),
    "no header row": lambda o, p: scan_csv(o, p, column_map(), header=False),
    "cells too many": lambda o, p: broken(o, p, ",,,"),
    "no UTF-8": lambda o, p: broken(o, p, "\udcff"),
}


def scan_csv(orders: pl.DataFrame, place: Path, columns: ColumnMap, header: bool = True) -> None:
    orders.write_csv(place / "orders.csv", include_header=header)
    prepare(tables.scan(place / "orders.csv", columns).frame, columns)


def broken(orders: pl.DataFrame, place: Path, what: str) -> None:
    lines = orders.write_csv().splitlines()
    lines[5] = what + lines[5] + what
    (place / "orders.csv").write_text("\n".join(lines), errors="surrogateescape")
    source = tables.scan(place / "orders.csv", column_map())
    with source.reading():
        prepare(source.frame, column_map())


@pytest.mark.parametrize("mistake", MISTAKES)
def test_no_message_shows_a_person(mistake, small, tmp_path, tally):
    everyone = [*RARE, *COMMON]
    orders = planted(small.orders.head(1000)).with_columns(
        pl.Series(NAME, [" ".join(everyone[i % len(everyone)]) for i in range(1000)])
    )
    with pytest.raises(Exception) as failed:
        MISTAKES[mistake](orders, tmp_path)
    assert isinstance(failed.value, ValueError), failed.value
    assert not traces(str(failed.value).encode(), [*WORDS["rare"], *WORDS["common"]]), "a name in a message"
    tally(PROMISE, "mistakes in roles and files: no message shows a name")


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_no_reject_shows_a_person(kind, small, tmp_path, tally):
    numeric = small.bundle.column_map.numeric[0]
    orders = planted(small.orders.head(1000)).with_columns(pl.col(NAME).alias(numeric))
    path = tmp_path / f"orders.{kind}"
    {"csv": orders.write_csv, "jsonl": orders.write_ndjson, "parquet": orders.write_parquet}[kind](path)
    scorer = Scorer(small.folder)
    with pytest.raises(ValueError, match="is not a number") as failed:
        score_files(scorer, [path], tmp_path / "out.csv", progress=False)
    assert not traces(str(failed.value).encode(), [*WORDS["rare"], *WORDS["common"]])
    assert score_files(scorer, [path], tmp_path / "out.csv", skip=True, progress=False).rejected > 900
    path.unlink()
    assert not found_in(tmp_path, [*WORDS["rare"], *WORDS["common"]])
    tally(PROMISE, "rejected rows: no name in a message or in the list of them", 1000)


def test_masked_previews_say_nothing(tally):
    for word in [*WORDS["rare"], *WORDS["common"]]:
        assert not traces(mask(word).encode(), [word])
        tally(PROMISE, "masked previews: no name in them")
