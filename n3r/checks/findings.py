"""What about prepared rows is to be doubted before a model is trained on them, each with what to do.

Decisions:
- "severe" is what makes figures of a model meaningless, or the opposite of what they say: a run stops unless
  it is accepted by its name. "warning" is what may be meant, or may be a mistake. "note" is good to know.
- A column alone that ranks class 1 with an AUROC of 0.97 is taken to know the outcome, and so is one whose
  values tell half of the rarer class for sure: what is known when an order is made seldom ranks above 0.92
  (docs/data.md has the best column alone of three sets). The end of the interval counts, so that few rows
  convict nobody.
- What chance alone can bring about is no finding: drift has its null level, rates of periods a test.
- A sentence names columns, counts and shapes, never a value of a text.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from n3r.checks.alone import Alone, Sample
from n3r.checks.cards import inputs
from n3r.estimate import FEW_ROWS
from n3r.evaluation.drift import drift
from n3r.files.json_io import near
from n3r.folds import bare_text
from n3r.preprocess import Prepared
from n3r.rows.accounts import in_words
from n3r.rows.labels import FAIR, FRAUD, NO, YES, bare_label
from n3r.rows.plausible import NOBODY
from n3r.schema import LABEL, TIME, ColumnMap

SEVERITIES = ("severe", "warning", "note")
LEAK, LEAK_LOW, STRONG, STRONG_LOW = 0.97, 0.95, 0.95, 0.92  # AUROC of one column, and its lower end
SURE_HALF, SURE_PART = 0.5, 0.1  # of the rarer class
TWINS_SEVERE, TWINS = 0.10, 0.01  # of the test rows
MAX_TWINS = 10  # training rows of one text; one that more have tells nobody apart
REPEATED_SEVERE, REPEATED = 0.5, 0.01  # of the rows
INVERTED = 0.9  # share of class 1 that no table of orders has
SINGLES = 0.5  # share of rows that are the only ones of their category
FILLER = 0.01  # share of rows with a word or a number that may stand for nothing
FEW = 20  # rows of a class, below which an interval is wide
SHIFT_ROWS = 50_000  # rows of a split that are compared
YOUNG, YOUNG_Z = 0.5, 4.0  # a last tenth with less than half of the rate before it, beyond chance
_WORDS = [word for word in NOBODY if any(map(str.isalpha, word))]
_FILLERS = (*(-(10.0**n - 1) for n in range(1, 7)), -1.0, *(10.0**n - 1 for n in range(2, 10)))


class Finding(NamedTuple):
    """One doubt: its name such as "leak:amount", how bad it is, what was seen, and what to do."""

    name: str
    severity: str  # one of SEVERITIES
    what: str
    advice: str


def findings(
    prepared: Prepared, drawn: Sample, told: Mapping[str, Alone], cards: Iterable[Mapping[str, Any]]
) -> list[Finding]:
    """All findings of prepared rows, the severest first."""
    m, splits = prepared.column_map, prepared.splits
    cards = {card["column"]: card for card in cards}
    found = [
        *leaks({name: told[name] for name in inputs(m)}),
        *_label(m, drawn.rate),
        *_twins(splits, m),
        *_repeated(prepared.report.steps, m),
        *(Finding("rows", "warning", sentence, "") for sentence in prepared.report.warnings),
        *_constants(cards, inputs(m)),
        *_singles(splits["train"], m),
        *_fillers(splits["train"], m),
        *_drifts(splits, m),
        *_time(splits, m),
        *_few(splits, m),
    ]
    return by_severity(found)


def by_severity(found: Iterable[Finding]) -> list[Finding]:
    """The severest first."""
    return sorted(found, key=lambda one: SEVERITIES.index(one.severity))


def severe_of(found: Iterable[Mapping[str, str]]) -> list[Finding]:
    """The severe ones of findings as plain data."""
    return [one for one in (Finding(**one) for one in found) if one.severity == "severe"]


def refuse(
    found: Iterable[Mapping[str, str]], accept: Collection[str] = (), page: Path | None = None
) -> None:
    """ValueError naming the severe findings that are not accepted by name, and how to accept them."""
    severe = severe_of(found)
    if not (left := [one for one in severe if one.name not in accept]):
        return
    listed = "".join(f"\n- {one.name}: {in_words(one._asdict())}" for one in left)
    odd = [name for name in accept if name not in {one.name for one in severe}]
    named = dict.fromkeys([*(name for name in accept if name not in odd), *(one.name for one in left)])
    names = ", ".join(f'"{name}"' for name in named)
    unknown = "".join(
        f"\nnothing of the name {name!r} was found{near(name, [o.name for o in left])}" for name in odd
    )
    shows = f"; {page.resolve()} shows it" if page else ""
    raise ValueError(
        f"the rows are not to be trained on as they are:{listed}{unknown}\n"
        f"mend that, or accept it by name: -p accept='[{names}]'{shows}"
    )


def leaks(told: Mapping[str, Alone]) -> Iterator[Finding]:
    """Columns that alone tell the label, or nearly so."""
    for name, one in told.items():
        value, low = one.auroc.value, one.auroc.low
        if value is None:
            continue
        ranks = f"the column {name!r} alone ranks class 1 with an AUROC of {one.auroc}"
        tells = f"the column {name!r} alone tells {one.sure:.0%} of the rarer class for sure"
        ask = 'is it known when an order is made? If not, list it under "ignore" in the column map'
        if value >= LEAK and (low or 0) >= LEAK_LOW:
            yield Finding(f"leak:{name}", "severe", ranks, ask)
        elif one.sure >= SURE_HALF:
            yield Finding(f"leak:{name}", "severe", tells, ask)
        elif value >= STRONG and (low or 0) >= STRONG_LOW:
            yield Finding(f"leak:{name}", "warning", ranks, ask)
        elif one.sure >= SURE_PART:
            yield Finding(f"leak:{name}", "warning", tells, ask)


def _label(m: ColumnMap, rate: float) -> Iterator[Finding]:
    """Whether class 1 seems to be what class 0 should be."""
    if m.n_classes != 2:
        return
    words = {c: {bare_label(raw) for raw, c_ in m.label_values.items() if c_ == c} for c in (0, 1)}
    reversed_ = words[1] & FAIR or words[0] & FRAUD
    doubtful = words[1] & NO and words[0] & YES and rate > 0.5
    share = f"class 1 has {rate:.1%} of the rows"
    ask = "class 1 is what is looked for, fraud: are the classes of `label_values` the right way round?"
    if reversed_ or doubtful:
        raw = ", ".join(f"{raw!r} to {c}" for raw, c in m.label_values.items())
        yield Finding("inverted_label", "severe", f"the map takes {raw}, and {share}", ask)
    elif rate > INVERTED:
        yield Finding("inverted_label", "severe", share, ask)
    elif rate > 0.5:
        yield Finding("inverted_label", "note", share, ask)


def _twins(splits: Mapping[str, pl.DataFrame], m: ColumnMap) -> Iterator[Finding]:
    """Test rows that are in training too, but for case, digits and signs of their texts."""
    train, test = (_keys(splits[split], m) for split in ("train", "test"))
    if not len(test):
        return
    counts = train.drop_nulls("text").group_by("text").agg(pl.len().alias("n"), pl.col("rest").unique())
    known = test.join(counts.filter(pl.col("n") <= MAX_TWINS), on="text", how="inner")
    alike = (
        known.filter(pl.col("rest").is_in(pl.col("rest_right"))) if m.numeric or m.categorical else known[:0]
    )
    n, n_alike, n_test = len(known), len(alike), len(test)
    if n_alike >= TWINS_SEVERE * n_test and n_alike >= FEW_ROWS:
        what = f"{n_alike:,} of {n_test:,} test rows are training rows too, but for case, digits and signs"
        yield Finding("near_duplicates", "severe", what, "remove copies of rows, or name the right `id`")
    elif n >= TWINS * n_test and n >= FEW_ROWS:
        what = (
            f"{n:,} of {n_test:,} test rows have the texts of a training row, but for case, digits and signs"
            f", {n_alike:,} of them its numbers and categories too"
        )
        ask = "if they are one customer's, name the customer as `entity`: figures flatter where he is known"
        yield Finding("near_duplicates", "warning", what, ask)


def _keys(rows: pl.DataFrame, m: ColumnMap) -> pl.DataFrame:
    """Of each row a hash of its bare texts, null without a letter, and one of its other inputs."""
    text, has_letters = bare_text(m.all_text)
    others = rows.select([*m.numeric, *m.categorical])
    rest = others.hash_rows() if others.width else pl.zeros(len(rows), pl.UInt64, eager=True)
    hashed = rows.lazy().select(text=pl.when(has_letters).then(text).hash()).collect(engine="streaming")
    empty = rows.select(has_letters.fill_null(False).alias("has")).to_series()
    return hashed.with_columns(pl.when(empty).then("text").alias("text"), rest.alias("rest"))


def _repeated(steps: pl.DataFrame, m: ColumnMap) -> Iterator[Finding]:
    """Rows that are dropped because their id, or their entity, came before."""
    for reason, role, column in (("same id", "id", m.id), ("earlier order", "entity", m.entity)):
        own = steps.filter(pl.col("reason").str.contains(reason, literal=True))
        for n_in, n in own.select("rows_in", "rows_dropped").iter_rows():
            what = f"{n:,} of {n_in:,} rows are dropped: their {role}, {column!r}, has an earlier row"
            ask = f"is {column!r} what tells orders apart?" if role == "id" else f"is {column!r} a customer?"
            share = n / max(n_in, 1)
            limit = REPEATED_SEVERE if role == "id" else 0.9
            if share >= limit:
                yield Finding(f"repeated_{role}", "severe", what, ask)
            elif share >= REPEATED and role == "id":
                yield Finding("repeated_id", "warning", what, ask)
            elif n and role == "id":
                yield Finding("repeated_id", "note", what, ask)


def _constants(cards: Mapping[str, Mapping[str, Any]], names: Iterable[str]) -> Iterator[Finding]:
    for name in names:
        card = cards[name]
        if card["constant"] and not card["missing"]:
            what = f"the column {name!r} has one value in all rows"
            yield Finding(f"constant:{name}", "warning", what, 'list it under "ignore": it tells nothing')


def _singles(train: pl.DataFrame, m: ColumnMap) -> Iterator[Finding]:
    for name in m.categorical:
        n_known = len(train) - train[name].null_count()
        n = int(train[name].drop_nulls().hash().is_unique().sum())
        if n_known >= FEW and n >= SINGLES * n_known:
            what = f"{n:,} of {n_known:,} training rows are the only one of their category in {name!r}"
            ask = "is it an id or a text? A category tells something where rows share it"
            yield Finding(f"unique_categories:{name}", "warning", what, ask)


def _fillers(train: pl.DataFrame, m: ColumnMap) -> Iterator[Finding]:
    """Words and numbers that may stand for no value."""
    n_rows = len(train)
    ask = "if it stands for no value, leave the cells empty"
    for name in dict.fromkeys([*m.all_text, *m.categorical]):
        words = train[name].alias("word").str.strip_chars().str.to_lowercase()
        counts = words.filter(words.is_in(_WORDS)).value_counts(name="n", sort=True)
        for word, n in counts.head(1).iter_rows():
            if n >= FILLER * n_rows:
                what = f"{n:,} of {n_rows:,} training rows have the word {word!r} in {name!r}"
                yield Finding(f"placeholder:{name}", "note", what, ask)
    for name in m.numeric:
        column = train[name].drop_nulls()
        if (value := _filler(column)) is not None:
            n = (column == value).sum()
            what = f"{n:,} of {n_rows:,} training rows have {value:g} in {name!r}, far from the others"
            yield Finding(f"placeholder:{name}", "note", what, ask)


def _filler(column: pl.Series) -> float | None:
    """A number such as -1, 999 or -9999 that many rows have and that no other row comes near."""
    if not len(column) or (ends := (column.min(), column.max()))[0] == ends[1]:
        return None
    for value in ends:
        if value not in _FILLERS or (column == value).sum() < FILLER * len(column):
            continue
        rest = column.filter(column != value)
        if value < 0 <= rest.min() or value > 2 * max(rest.max(), 1) > 0:
            return value
    return None


def _drifts(splits: Mapping[str, pl.DataFrame], m: ColumnMap) -> Iterator[Finding]:
    """Columns whose test rows are others than the training rows, or that move with the time."""
    train, test = (splits[split] for split in ("train", "test"))
    if not len(test):
        return
    train, test = (rows.gather_every(max(1, len(rows) // SHIFT_ROWS)) for rows in (train, test))
    columns = list(dict.fromkeys([*m.numeric, *m.categorical]))
    for row in drift(train, test, columns).iter_rows(named=True):
        if row["verdict"] == "shifted":
            what = (
                f"the column {row['column']!r} has other values in test than in training (PSI "
                f"{row['psi']:.2f}; by chance up to {row['null_level']:.2f})"
            )
            ask = "a model cannot learn what comes later: look whether it counts, or was filled otherwise"
            yield Finding(f"drift:{row['column']}", "warning", what, ask)


def _time(splits: Mapping[str, pl.DataFrame], m: ColumnMap) -> Iterator[Finding]:
    if not m.splits_by_time:
        if not m.split_files:
            what = "rows are split at random, so that test rows are of the same time as training rows"
            advice = "name the order's `time` where there is one" if m.time is None else 'see "split_by"'
            yield Finding("no_time", "note", what, advice)
        return
    label = pl.concat([rows.select(TIME, LABEL) for rows in splits.values()]).sort(TIME)[LABEL] > 0
    n = len(label) // 10
    last, before = label[-n:] if n else label[:0], label[: len(label) - n]
    if n < FEW or not before.sum():
        return
    rate, usual = last.mean(), before.mean()
    pooled = label.mean()
    z = (usual - rate) / max(np.sqrt(pooled * (1 - pooled) * (1 / n + 1 / len(before))), 1e-12)
    if rate < YOUNG * usual and z > YOUNG_Z:
        what = f"class 1 has {rate:.1%} of the last tenth of the rows and {usual:.1%} of those before"
        ask = "have the last rows had time to become known as fraud? Leave out those that have not"
        yield Finding("young_labels", "warning", what, ask)


def _few(splits: Mapping[str, pl.DataFrame], m: ColumnMap) -> Iterator[Finding]:
    """Classes that are too rare for figures to say much."""
    for split in ("train", "test"):
        label = splits[split][LABEL]
        counts = np.bincount(label, minlength=m.n_classes)
        for c, n in enumerate(counts.tolist()):
            if len(label) and n < FEW:
                severity = "warning" if n < FEW_ROWS else "note"
                no = "no figure has an interval" if n < FEW_ROWS else "intervals are wide"
                of = f"of class {c}" if m.n_classes > 2 else ("legitimate", "fraud")[c]
                what = f"{n} of {len(label):,} rows of {split} are {of}: {no}"
                yield Finding(f"rare_class:{c}", severity, what, "give more rows, or a larger share of them")
