"""The synthetic messages: the frame's shape, the exactness of the oracle, and that both texts matter."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from bs4 import BeautifulSoup
from polars.testing import assert_frame_equal
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from n3r.preprocess import PrepareConfig, prepare
from n3r.schema import LABEL, ORACLE, SEGMENT, TEXT, TIME, ColumnMap, check
from n3r.synthetic import messages

CONFIGS = Path(__file__).parents[2] / "configs"
REVIEWS = Path(__file__).parents[3] / "shared/data/womens_reviews/reviews.parquet"
DIGEST = """
import hashlib
from n3r.synthetic.messages import generate_messages
print(hashlib.sha256(generate_messages(300, seed=5).write_csv().encode()).hexdigest())
"""
TEXTS = ["buyerMessages", "sellerMessages"]
# Words (or script) that only one of the languages has.
OF_LANGUAGE = {
    "en": "the|your|my",
    "de": "ich|die|der|mir",
    "fr": "je|votre|mon|est",
    "es": "el|por|gracias",
    "it": "il|per|non",
    "ja": r".*\p{Hiragana}.*",
}


@pytest.fixture(scope="module")
def cases() -> pl.DataFrame:
    return messages.generate_messages(6_000, seed=1)


@pytest.fixture(scope="module")
def column_map() -> ColumnMap:
    return ColumnMap.from_file(CONFIGS / "messages.json")


def by_hand(row: dict) -> float:
    """The logit of one case, decoded sentence by sentence from what an HTML reader shows."""
    said = [spoken(row[column]) for column in TEXTS]
    known = {kind for message in said[0] for kind in message if kind in messages.BUYER}
    known |= {kind for message in said[1] for kind in message if kind in messages.SELLER}
    if len(said[0]) > 1 and "polite" in said[0][0] and set(messages.THREATS) & set(said[0][-1]):
        known.add("escalated")
    known |= {"manyRefunds"} if (row["refundsLastYear"] or 0) >= 3 else set()
    known |= {"dear"} if (row["orderAmount"] or 0) > 100 else set()
    logit = messages.INTERCEPT + sum(w for name, w in messages.WEIGHTS.items() if name in known)
    logit += sum(w for pair, w in messages.INTERACTIONS.items() if set(pair) <= known)
    logit += sum(weights[row[name]] for name, weights in messages.CATEGORIES.items())
    present = {name: row[name] for name in messages.NUMBERS if row[name] is not None}
    return logit + sum(
        messages.NUMBERS[name][0] * (np.log1p(value) - messages.NUMBERS[name][1])
        for name, value in present.items()
    )


def spoken(text: str | None) -> list[list[str]]:
    """Intents of each message of a dialogue."""
    shown = BeautifulSoup(text or "", "html.parser").get_text(" ").casefold()
    known = [(s.casefold(), kind) for s, kind in sentences().items()]
    return [[kind for s, kind in known if s in part] for part in shown.split("[bom]") if part.strip()]


def sentences() -> dict[str, str]:
    """Sentence, mistyped or not -> its intent or filler."""
    table = messages.phrases()
    return {s: kind for c in ("sentence", "mistyped") for s, kind in table.select(c, "kind").iter_rows()}


def test_same_seed_gives_the_same_frame_in_any_process(run_fresh):
    first, second = (run_fresh(DIGEST, PYTHONHASHSEED=s, POLARS_MAX_THREADS=t) for s, t in ("01", "22"))
    assert first == second


@pytest.mark.parametrize("n", [1, 2, 3, 17])
def test_any_number_of_rows(n: int):
    frame = messages.generate_messages(n, seed=n)
    assert frame.height == n and frame.schema == messages.generate_messages(100).schema
    assert not frame.equals(messages.generate_messages(n, seed=n + 1))
    with pytest.raises(ValueError, match=f"n is {-n}; expected at least 1"):
        messages.generate_messages(-n)


def test_columns_are_those_of_the_column_map(cases, column_map):
    check(cases, column_map)
    roles = [*column_map.roles.values(), *column_map.all_text, *column_map.categorical]
    named = [*roles, *column_map.numeric, *column_map.ignore, column_map.oracle]
    assert sorted(cases.columns) == sorted(named)
    assert cases["caseId"].is_unique().all()
    assert cases["buyerId"].is_duplicated().any()
    assert cases["openedAt"].str.contains(r"^2025-0[1-7]-\d\dT\d\d:\d\d:\d\d$").all()
    assert set(cases["outcome"]) == {"abuse", "honest"}
    for name, weights in messages.CATEGORIES.items():
        assert sorted(cases[name].unique()) == sorted(weights)


def test_shares_of_missing_cells(cases):
    shares = {c: n / cases.height for c, n in cases.null_count().row(0, named=True).items() if n}
    expected = {**messages.MISSING, "buyerMessages": 0.02, "sellerMessages": 0.15, "hoursToAnswer": 0.15}
    assert shares == pytest.approx(expected, abs=0.02)
    assert (cases["buyerMessages"] == "").mean() == pytest.approx(messages.EMPTY_TEXT, abs=0.01)
    assert cases["hoursToAnswer"].is_null().equals(cases["sellerMessages"].is_null())


def test_markers_html_emoji_and_cases_appear(cases):
    text = cases["buyerMessages"].drop_nulls().filter(cases["buyerMessages"].drop_nulls() != "")
    for part in ("<p>", "<br/>", "&amp;", '<a href="https://shop.example/', " & "):
        assert 0.01 < text.str.contains(part, literal=True).mean() < 0.6, part
    assert 0.02 < (~text.str.contains("[bom]", literal=True)).mean() < 0.07
    assert text.str.count_matches("[bom]", literal=True).equals(text.str.count_matches("[eom]", literal=True))
    assert set(text.str.count_matches("[bom]", literal=True)) >= {0, 1, 2, 3, 4, 5}
    assert text.str.contains_any(messages.EMOJI).mean() > 0.1
    assert text.str.contains(r"\p{Lu}{4,} \p{Lu}{4,}").any()
    assert text.str.contains(r"^[^\p{Lu}]{30,}$").any()
    assert not text.str.contains(r"[{}|()\n]").any()


def test_messages_have_5_to_40_words(cases):
    spaced = cases.filter(~pl.col("buyerMessages").str.contains(r"\p{Hiragana}"))["buyerMessages"]
    found = spaced.str.extract_all(r"\[bom\].+?\[eom\]").explode(empty_as_null=False).drop_nulls()
    bare = found.str.replace_all(r"<[^>]+>|\[.om\]|&amp;", " ")
    n_words = bare.str.count_matches(r"[\p{L}\d'-]+")
    assert n_words.min() >= 5
    assert 25 < n_words.max() <= 40


@pytest.mark.parametrize("market", list(messages.MARKETS))
def test_each_marketplace_writes_its_languages(cases, market: str):
    text = cases.filter(pl.col("marketplace") == market)["buyerMessages"].drop_nulls()
    _, first, second, share = messages.MARKETS[market]
    found = {name: text.str.contains(rf"(?i)\b({words})\b").mean() for name, words in OF_LANGUAGE.items()}
    assert max(found, key=found.get) == first
    assert 0 < found[second] < found[first]
    assert found[second] / found[first] < 2 * share + 0.1


def test_no_intent_has_a_sentence_with_another_intents_sentence_in_it():
    lowered = [(s.lower().replace("ß", "ss"), kind) for s, kind in sentences().items()]
    intents = {*messages.BUYER, *messages.SELLER}
    for sentence, kind in lowered:
        within = {other for s, other in lowered if s in sentence and other in intents}
        assert within <= {kind}, sentence


def test_a_buyer_has_six_ways_to_say_each_thing_in_each_language():
    counts = messages.phrases().unique("sentence").group_by("kind", "language").len()
    fillers = [kind for kinds in messages.FILLERS.values() for kind in kinds]
    assert counts.height == len([*messages.BUYER, *messages.SELLER, *fillers]) * len(messages.LANGUAGES)
    assert counts["len"].min() >= 4
    assert counts.filter(pl.col("kind").is_in(messages.BUYER))["len"].min() >= 6


@pytest.mark.parametrize("kind", [*messages.BUYER, *messages.SELLER])
@pytest.mark.parametrize("change", [str.upper, str.lower, "<p>{}<br/>x &amp; y</p>".format])
def test_every_sentence_of_an_intent_is_read_as_that_intent_alone(kind: str, change):
    texts = [change(s) for s, of in sentences().items() if of == kind]
    column, other = TEXTS if kind in messages.BUYER else reversed(TEXTS)
    frame = pl.DataFrame({column: texts, other: None}, schema_overrides={other: pl.String})
    read = messages.intents(frame)
    assert read[kind].all()
    assert not read.drop(kind).to_numpy().any()


def test_escalation_is_a_polite_first_and_a_threatening_last_message():
    polite, threat = "Could you please tell me when it ships?", "Or I will post the worst review."
    texts = [f"[bom] {a} [eom] [bom] {b} [eom]" for a, b in ((polite, threat), (threat, polite))]
    texts += [f"[bom] {polite} {threat} [eom]", f"{polite} {threat}", f"[bom] {threat} [eom]" * 2]
    frame = pl.DataFrame({"buyerMessages": texts}).with_columns(sellerMessages=pl.lit("hello"))
    assert messages.intents(frame)["escalated"].to_list() == [True, False, False, False, False]


def test_oracle_is_exact_by_an_independent_reading(cases):
    sample = cases.head(200)
    logit = np.array([by_hand(row) for row in sample.iter_rows(named=True)])
    np.testing.assert_allclose(expit(logit), sample["oracle_p"], rtol=1e-10)


def test_oracle_needs_the_row_alone(cases):
    shuffled = cases.drop("oracle_p", "outcome").sample(500, shuffle=True, seed=3)
    same = shuffled.join(cases, on="caseId", how="left", maintain_order="left")["oracle_p"]
    np.testing.assert_allclose(messages.posterior(shuffled), same, rtol=1e-12)


def test_labels_follow_the_oracle():
    frame = messages.generate_messages(20_000, seed=2)
    p, y = frame["oracle_p"].to_numpy(), (frame["outcome"] == "abuse").to_numpy()
    assert 0.17 < y.mean() < 0.24
    for part in np.array_split(np.argsort(p), 20):
        spread = np.sqrt((p[part] * (1 - p[part])).sum())
        assert abs(y[part].sum() - p[part].sum()) < 4 * spread


def test_labels_do_not_follow_what_the_oracle_leaves_out(cases):
    """Whatever else stands in the row (markup, language, who writes) is independent given oracle_p."""
    p, y = cases["oracle_p"].to_numpy(), (cases["outcome"] == "abuse").to_numpy()
    text = cases["buyerMessages"].fill_null("")
    others = [text.str.contains(word, literal=True) for word in ("<p>", "&", "🙂", "Mini")]
    others += [cases["marketplace"] == name for name in messages.MARKETS]
    for other in (series.to_numpy() for series in others):
        spread = np.sqrt((p * (1 - p))[other].sum())
        assert abs((y - p)[other].sum()) < 4 * spread


def test_texts_and_table_each_tell_something_and_less_than_the_oracle(cases):
    y = (cases["outcome"] == "abuse").to_numpy()
    terms = messages.risk_terms(cases)
    seller_pairs = [c for c in terms.columns if set(c.split(":")) & set(messages.SELLER)]
    parts = {
        "buyer": terms.select([*messages.BUYER, "escalated"]),
        "seller": terms.select(seller_pairs),
        "table": terms.select([*messages.NUMBERS, *messages.CATEGORIES]),
    }
    auc = {name: roc_auc_score(y, part.to_numpy().sum(axis=1)) for name, part in parts.items()}
    oracle = roc_auc_score(y, cases["oracle_p"])
    assert 0.88 < oracle < 0.96
    assert all(0.55 < value < oracle - 0.05 for value in auc.values()), auc
    both = terms.select([*parts["buyer"].columns, *parts["seller"].columns]).to_numpy().sum(axis=1)
    assert roc_auc_score(y, both) > auc["buyer"] + 0.02


def test_prepared_by_time_with_both_texts(cases, column_map):
    prepared = prepare(cases.lazy(), column_map)
    train, test = prepared.splits["train"], prepared.splits["test"]
    assert sum(split.height for split in prepared.splits.values()) == cases.height
    assert train[TIME].max() <= test[TIME].min()
    kept = {TEXT, *TEXTS, ORACLE, SEGMENT, *column_map.numeric, *column_map.categorical}
    assert kept <= set(train.columns)
    assert "buyerId" not in train.columns
    joined = pl.concat(prepared.splits.values()).select("caseId", *TEXTS).sort("caseId")
    assert_frame_equal(joined, cases.select("caseId", *TEXTS).sort("caseId"))


@pytest.mark.skipif(not REVIEWS.exists(), reason="the reviews are not beside the repository")
def test_reviews_fit_their_column_map():
    column_map = ColumnMap.from_file(CONFIGS / "reviews.json")
    shares = PrepareConfig(train=0.64, val=0.16, test=0.2)
    prepared = prepare(pl.scan_parquet(REVIEWS), column_map, shares)
    n = {name: split.height for name, split in prepared.splits.items()}
    assert n == {"train": 15031, "val": 3758, "test": 4697}
    assert prepared.splits["test"][LABEL].mean() == pytest.approx(0.822, abs=0.02)
    assert not {"Rating", "Clothing ID"} & set(prepared.splits["train"].columns)
