"""Seeded buyer-seller cases whose probability of being an abusive claim is known exactly.

`generate_messages` makes cases in the layout of configs/messages.json: two texts, numbers and
categories; `posterior` says how likely each is abuse and labels are drawn from exactly that, so the
AUC of `oracle_p` is the best any model can reach. Decisions:

- The posterior reads the row's own columns and nothing else: intents are looked for in the finished
  text (`intents`), sentence by sentence. The hidden story of a case only makes sentences, reasons
  and numbers appear together; it never enters the posterior.
- All sentences come from messages.txt. A sentence belongs to one intent and no intent's sentence is part of
  another's; markup, links, emoji and cases change nothing inside a sentence, and a mistyped sentence is one
  more known sentence, so every intent can be read back.
- Order numbers and product names stand in sentences without an intent.
- A missing number adds nothing to the logit. Cells are missing at random, but for `hoursToAnswer`,
  which is null where nobody answered.
- One table row per sentence, joined to messages and then to dialogues: numpy and polars, no loop over cases.
"""

from datetime import UTC, datetime
from functools import cache
from itertools import product
from pathlib import Path
from re import findall, split

import numpy as np
import polars as pl
from scipy.special import expit

START = int(datetime(2025, 1, 6, tzinfo=UTC).timestamp())
SPAN = 182 * 86_400  # seconds
LANGUAGES = ("en", "de", "fr", "es", "it", "ja")
# marketplace -> share of cases, language, a second language and its share there
MARKETS: dict[str, tuple[float, str, str, float]] = {
    "US": (24, "en", "es", 0.08), "GB": (14, "en", "fr", 0.03), "CA": (8, "en", "fr", 0.25),
    "DE": (16, "de", "en", 0.06), "FR": (10, "fr", "en", 0.04), "ES": (8, "es", "en", 0.04),
    "IT": (9, "it", "en", 0.03), "JP": (11, "ja", "en", 0.03),
}  # fmt: skip
BUYER = (
    "polite", "thanks", "defect", "misfit", "notArrived", "empty", "keepItem", "badReview", "chargeback",
    "outside",
)  # fmt: skip
SELLER = ("signed", "delay", "offersReturn", "asksPhotos", "refunded")
FILLERS = {"buyer": ("order", "purchase", "waiting"), "seller": ("greeting", "hours")}
THREATS = ("badReview", "chargeback")
LATENESS = {"polite": -0.6, "badReview": 0.6, "chargeback": 0.6, "outside": 0.4}  # place in the dialogue
NAMES = ["Quilvo", "Drabelu", "Zenturik", "Mowixa", "Plorindo", "Fandiko", "Hurvelo", "Tasimbo", "Orbenka"]
MODELS = ["Mini", "XL", "20", "300", "Duo", "Light", "Set", "Neo"]
EMOJI = ["🙂", "😀", "🙏", "📦", "👍", "😢", "😡", "❤️", "🎁", "🤔"]

# Hidden stories: share, then the chance of each buyer's intent, the factor on refunds, usual reason.
STORIES: dict[str, tuple[float, tuple[float, ...], float, str]] = {
    "question": (20, (0.80, 0.40, 0.00, 0.10, 0.05, 0.00, 0.02, 0.02, 0.01, 0.02), 0.8, "question"),
    "late": (27, (0.45, 0.20, 0.00, 0.00, 0.95, 0.00, 0.08, 0.20, 0.15, 0.05), 0.9, "not_received"),
    "faulty": (20, (0.40, 0.20, 0.85, 0.05, 0.02, 0.03, 0.30, 0.20, 0.10, 0.07), 1.0, "damaged"),
    "misfit": (12, (0.50, 0.30, 0.05, 0.90, 0.00, 0.01, 0.20, 0.12, 0.04, 0.06), 1.0, "wrong_size"),
    "empty": (9, (0.30, 0.10, 0.05, 0.00, 0.10, 0.90, 0.35, 0.30, 0.25, 0.12), 1.2, "missing_parts"),
    "pressure": (12, (0.35, 0.05, 0.25, 0.10, 0.30, 0.15, 0.70, 0.55, 0.40, 0.35), 1.8, "billing"),
}
# Chance of each seller's intent: base, and what each buyer's intent makes of it.
ANSWERS = (0.06, 0.08, 0.15, 0.15, 0.12)
REPLIES: dict[str, tuple[float, ...]] = {
    "notArrived": (0.45, 0.35, 0.04, 0.05, 0.12), "defect": (0.05, 0.05, 0.45, 0.50, 0.20),
    "misfit": (0.05, 0.05, 0.70, 0.15, 0.15), "empty": (0.40, 0.05, 0.10, 0.55, 0.15),
    "keepItem": (0.15, 0.06, 0.55, 0.35, 0.15),
}  # fmt: skip

# The logit: what is read from the texts, what from pairs of conditions, from numbers (weight *
# (log1p - centre)) and from categories. "manyRefunds" is 3 or more, "dear" an amount above 100,
# "escalated" a polite first and a threatening last message.
INTERCEPT = -3.0
WEIGHTS = {
    "polite": -0.8, "thanks": -0.9, "defect": -0.5, "misfit": -0.6, "notArrived": 0.2, "empty": 0.6,
    "keepItem": 0.7, "badReview": 0.6, "chargeback": 0.6, "outside": 1.2, "signed": 0.6, "delay": -1.2,
    "offersReturn": 0.1, "asksPhotos": 0.3, "refunded": -0.8, "escalated": 1.6,
}  # fmt: skip
INTERACTIONS = {
    ("notArrived", "signed"): 3.0, ("notArrived", "delay"): -1.2, ("keepItem", "offersReturn"): 2.0,
    ("empty", "signed"): 1.0, ("keepItem", "manyRefunds"): 1.6, ("empty", "dear"): 1.8,
    ("defect", "manyRefunds"): 0.8,
}  # fmt: skip
NUMBERS = {
    "daysSinceOrder": (0.25, 2.4), "orderAmount": (0.35, 3.7), "buyerOrders": (-0.40, 2.2),
    "refundsLastYear": (0.70, 0.7), "hoursToAnswer": (-0.15, 2.1),
}  # fmt: skip
CATEGORIES: dict[str, dict[str, float]] = {
    "category": {
        "electronics": 0.7, "jewelry": 0.8, "phones": 0.9, "shoes": 0.1, "clothing": 0.0, "kitchen": -0.3,
        "toys": -0.2, "books": -0.7, "garden": -0.4, "beauty": 0.3, "sports": 0.0, "pets": -0.5,
    },
    "reason": {
        "question": -0.5, "not_received": 0.2, "damaged": 0.0, "wrong_size": -0.3, "missing_parts": 0.4,
        "no_longer_needed": -0.1, "billing": 0.3, "other": 0.0,
    },
    "channel": {"web": 0.0, "app": 0.2, "email": -0.2, "phone": -0.4},
}  # fmt: skip
MISSING = {"daysSinceOrder": 0.02, "orderAmount": 0.01, "buyerOrders": 0.03, "refundsLastYear": 0.04}
NO_TEXT, EMPTY_TEXT, NO_ANSWER, NO_MARKERS, MISTYPED = 0.02, 0.015, 0.15, 0.04, 0.06
LOWER, UPPER, HTML, SMILING, LINKED = 0.12, 0.04, 0.25, 0.15, 0.04  # shares of messages

# An intent or filler, then its sentences in each of LANGUAGES; (a|b) stands for either.
PHRASES = Path(__file__).with_name("messages.txt")


def generate_messages(n: int, seed: int = 0) -> pl.DataFrame:
    """Buyer-seller cases in the layout of configs/messages.json, one row per case, in no order of time.

    `oracle_p` is the posterior (see `posterior`) from which each row's `outcome`, "abuse" or
    "honest", was drawn; about a fifth are abuse. `sellerMessages` is null where nobody answered.

    Raises ValueError if `n` is below 1.
    """
    if n < 1:
        raise ValueError(f"n is {n}; expected at least 1")
    rng = np.random.default_rng(seed)
    shares, chances, _, _ = zip(*STORIES.values(), strict=True)
    story = rng.choice(len(STORIES), n, p=np.array(shares) / sum(shares))
    market, language = _markets(rng, n)
    said = rng.random((n, len(BUYER))) < np.array(chances)[story]
    names = _names(rng, n)
    buyer = _dialogues(rng, said, "buyer", language, names)
    seller = _dialogues(rng, _answers(rng, said), "seller", language, names)
    empty, silent, unanswered = (rng.random(n) < p for p in (EMPTY_TEXT, NO_TEXT, NO_ANSWER))

    cases = pl.select(
        caseId=pl.format("M{}", pl.Series(10**8 + rng.permutation(n))),
        openedAt=pl.from_epoch(pl.Series(START + rng.integers(0, SPAN, n))).dt.strftime("%FT%T"),
        marketplace=pl.Series(list(MARKETS)).gather(market),
        buyerId=pl.format("B{}", pl.Series(10**7 + rng.integers(0, n, n))),
        buyerMessages=_without(silent, buyer.set(pl.Series(empty), "")),
        sellerMessages=_without(unanswered, seller),
    )
    cases = cases.with_columns(**_numbers(rng, story, unanswered), **_categories(rng, story))
    p = posterior(cases)
    outcome = pl.Series(np.where(rng.random(n) < p, "abuse", "honest"))
    return cases.with_columns(outcome=outcome, oracle_p=pl.Series(p))


def posterior(cases: pl.DataFrame) -> np.ndarray:
    """Probability of abuse of each case, from its texts, numbers and categories; shape (n,)."""
    # numpy, for polars' sum_horizontal depends on its threads in the last bits
    return expit(INTERCEPT + risk_terms(cases).to_numpy().sum(axis=1))


def risk_terms(cases: pl.DataFrame) -> pl.DataFrame:
    """The logit's terms without the intercept, one column each: texts, pairs, numbers, categories."""
    observed = intents(cases).hstack(
        cases.select(
            manyRefunds=(pl.col("refundsLastYear") >= 3).fill_null(False),
            dear=(pl.col("orderAmount") > 100).fill_null(False),
        )
    )
    numbers = [((pl.col(c).log1p() - centre) * w).fill_null(0.0) for c, (w, centre) in NUMBERS.items()]
    weighed = [pl.col(c).replace_strict(w, return_dtype=pl.Float64) for c, w in CATEGORIES.items()]
    return observed.select(
        **{name: pl.col(name) * w for name, w in WEIGHTS.items()},
        **{f"{a}:{b}": (pl.col(a) & pl.col(b)) * w for (a, b), w in INTERACTIONS.items()},
    ).hstack(cases.select(*numbers, *weighed))


def intents(cases: pl.DataFrame) -> pl.DataFrame:
    """Which intents each case's texts express: Boolean columns BUYER, SELLER and "escalated".

    Escalated: at least two messages in markers, the first polite, the last with one of THREATS.
    """
    parts = pl.col("buyer").str.split("[bom]")
    texts = cases.select(
        buyer=_folded(pl.col("buyerMessages")), seller=_folded(pl.col("sellerMessages"))
    ).with_columns(
        first=pl.when(parts.list.len() > 2).then(parts.list.get(1, null_on_oob=True)),
        last=parts.list.last(),
    )
    sentences = {kind: _sentences(kind) for kind in (*BUYER, *SELLER)}
    threats = [sentence for kind in THREATS for sentence in sentences[kind]]
    polite = pl.col("first").str.contains_any(sentences["polite"])
    threat = pl.col("last").str.contains_any(threats)
    return texts.select(
        **{kind: pl.col("buyer").str.contains_any(sentences[kind]) for kind in BUYER},
        **{kind: pl.col("seller").str.contains_any(sentences[kind]) for kind in SELLER},
        escalated=polite & threat,
    ).fill_null(False)


@cache
def phrases() -> pl.DataFrame:
    """Every sentence there is: `kind` (intent or filler), `language`, `sentence`, `mistyped`."""
    lines = iter(PHRASES.read_text(encoding="utf-8").splitlines())
    rows = [
        (kind, language, sentence, _mistype(sentence))
        for kind in lines
        for language in LANGUAGES
        for sentence in _variants(next(lines))
    ]
    return pl.DataFrame(rows, schema=["kind", "language", "sentence", "mistyped"], orient="row")


def _variants(template: str) -> list[str]:
    return ["".join(parts) for parts in product(*(part.split("|") for part in split(r"[()]", template)))]


def _mistype(sentence: str) -> str:
    """Two inner letters of the longest word change places."""
    word = max(findall(r"(?<![{\w])[^\W\d_]{3,}", sentence), key=len)
    return sentence.replace(word, word[0] + word[2] + word[1] + word[3:], 1)


def _folded(text: pl.Expr) -> pl.Expr:
    """Without case: SS is how a capital sharp s is written."""
    return text.str.to_lowercase().str.replace_all("ß", "ss", literal=True)


def _sentences(kind: str) -> list[str]:
    """What a text is searched for: the intent's sentences, folded, typed well or not."""
    found = phrases().filter(kind=kind).unpivot(["sentence", "mistyped"])
    return found.select(_folded(pl.col("value")))["value"].to_list()


@cache
def _spans(side: str) -> np.ndarray:
    """First row and number of rows in `phrases` of each (kind, language): (kinds, languages, 2)."""
    kinds = (BUYER if side == "buyer" else SELLER) + FILLERS[side]
    table = phrases().with_row_index().group_by("kind", "language").agg(pl.min("index"), pl.len())
    spans = {(kind, language): (first, n) for kind, language, first, n in table.iter_rows()}
    return np.array([[spans[kind, language] for language in LANGUAGES] for kind in kinds])


def _markets(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Marketplace and language of each case, as indices."""
    shares, first, second, second_share = zip(*MARKETS.values(), strict=True)
    market = rng.choice(len(MARKETS), n, p=np.array(shares) / sum(shares))
    language = [np.array([LANGUAGES.index(name) for name in names]) for names in (first, second)]
    foreign = rng.random(n) < np.array(second_share)[market]
    return market, np.where(foreign, language[1][market], language[0][market])


def _names(rng: np.random.Generator, n: int) -> pl.DataFrame:
    """Order `number` and `product` that each case is about."""
    words = [pl.Series(list_).gather(rng.integers(0, len(list_), n)) for list_ in (NAMES, MODELS)]
    number = rng.integers(10**7, 10**8, n)
    return pl.select(number=pl.Series(number).cast(pl.String), product=pl.format("{} {}", *words))


def _answers(rng: np.random.Generator, said: np.ndarray) -> np.ndarray:
    """Which of SELLER's intents each answer has, (n, 5): the likeliest of what the buyer calls for."""
    chance = np.tile(ANSWERS, (len(said), 1))
    for kind, chances in REPLIES.items():
        asked = said[:, [BUYER.index(kind)]]
        chance = np.where(asked, np.maximum(chance, chances), chance)
    return rng.random(chance.shape) < chance


def _dialogues(
    rng: np.random.Generator, said: np.ndarray, side: str, language: np.ndarray, names: pl.DataFrame
) -> pl.Series:
    """Text of each case that expresses the intents `said`, shape (n, kinds).

    At most two intents and two fillers a message, so that none has more than 40 words.
    """
    n_said = said.sum(axis=1)
    wanted = 1 + rng.poisson(1.3 if side == "buyer" else 0.4, len(said))
    n_messages = np.clip(wanted, (n_said + 1) // 2, 6)
    message, kind = _placed(rng, said, side, n_messages)
    case = np.repeat(np.arange(len(said)), n_messages)

    first, n = _spans(side)[kind, language[case][message]].T
    place = pl.Series(first + (rng.random(len(kind)) * n).astype(np.int64))
    clean, mistyped = (phrases()[column].gather(place) for column in ("sentence", "mistyped"))
    sentence = mistyped.zip_with(pl.Series(rng.random(len(kind)) < MISTYPED), clean)
    messages = pl.DataFrame({"message": message, "text": sentence}).group_by("message", maintain_order=True)
    marked = _marked_up(rng, messages.agg(pl.col("text").str.join("\n")).hstack(names[case]))

    plain = rng.random(len(said)) < NO_MARKERS
    marked = marked.with_columns(case=pl.Series(case), plain=pl.Series(plain[case]))
    text = pl.when("plain").then("text").otherwise(pl.format("[bom] {} [eom]", "text"))
    joined = marked.group_by("case", maintain_order=True).agg(text.str.join(" "))
    return joined["text"]


def _placed(
    rng: np.random.Generator, said: np.ndarray, side: str, n_messages: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(message, kind) of each sentence, in order of messages; an empty message gets a filler or two."""
    kinds, n_said, total = BUYER if side == "buyer" else SELLER, said.sum(axis=1), n_messages.sum()
    case, kind = np.nonzero(said)
    lateness = np.array([LATENESS.get(name, 0) for name in kinds])[kind] + rng.random(len(kind))
    order = np.lexsort((lateness, case))
    case, kind = case[order], kind[order]
    rank = np.arange(len(case)) - (n_said.cumsum() - n_said)[case]
    message = (n_messages.cumsum() - n_messages)[case] + rank * n_messages[case] // n_said[case]

    busy = np.bincount(message, minlength=total) > 0
    more = rng.random(total)
    filled = np.repeat(np.arange(total), np.where(busy, more < 0.5, 1 + (more < 0.3)))
    n_fillers = len(FILLERS[side])
    filler = (rng.integers(0, n_fillers, total)[filled] + np.arange(len(filled))) % n_fillers
    message, kind = np.append(message, filled), np.append(kind, len(kinds) + filler)
    order = np.lexsort((rng.random(len(message)), message))
    return message[order], kind[order]


def _marked_up(rng: np.random.Generator, messages: pl.DataFrame) -> pl.DataFrame:
    """Messages with their slots filled, in mixed case, some with HTML, a link and an emoji."""
    n, text = messages.height, pl.col("text")
    case, html, smiling = (pl.lit(pl.Series(rng.random(n))) for _ in range(3))
    emoji = pl.lit(pl.Series(EMOJI).gather(rng.integers(0, len(EMOJI), n)))
    filled = text
    for slot in ("number", "product"):
        filled = filled.str.replace(f"{{{slot}}}", pl.col(slot), literal=True)
    lower, upper = text.str.to_lowercase(), text.str.to_uppercase()
    cased = pl.when(case < LOWER).then(lower).when(case > 1 - UPPER).then(upper).otherwise(text)
    url = pl.format(' <a href="https://shop.example/orders/{}">{}</a>', "number", "number")
    link = pl.when(html < LINKED).then(url).otherwise(pl.lit(""))
    lines = text.str.replace_all("&", "&amp;", literal=True).str.replace_all("\n", "<br/>", literal=True)
    page, plain = pl.format("<p>{}{}</p>", lines, link), text.str.replace_all("\n", " ", literal=True)
    return (
        messages.with_columns(text=filled)
        .with_columns(text=cased)
        .with_columns(text=pl.when(html < HTML).then(page).otherwise(plain))
        .with_columns(text=pl.when(smiling < SMILING).then(pl.format("{} {}", text, emoji)).otherwise(text))
    )


def _numbers(rng: np.random.Generator, story: np.ndarray, unanswered: np.ndarray) -> dict[str, pl.Expr]:
    """The numeric columns, with cells missing at random; no hours without an answer."""
    n, habit = len(story), rng.normal(size=len(story))
    refunds = np.array([factor for _, _, factor, _ in STORIES.values()])[story]
    late = np.where(story == list(STORIES).index("late"), 1.8, 1.0)
    numbers = {
        "daysSinceOrder": np.round(1 + late * rng.lognormal(2.1, 0.8, n), 1),
        "orderAmount": np.round(1 + rng.lognormal(3.6, 1.1, n), 2),
        "buyerOrders": rng.poisson(np.exp(2.0 - 0.2 * habit + rng.normal(size=n))).astype(float),
        "refundsLastYear": rng.poisson(refunds * np.exp(0.9 * habit - 0.1)).astype(float),
        "hoursToAnswer": np.round(rng.lognormal(2.1, 1.0, n), 1),
    }
    missing = {name: rng.random(n) < share for name, share in MISSING.items()}
    missing["hoursToAnswer"] = unanswered
    return {name: _without(missing[name], pl.Series(cells)) for name, cells in numbers.items()}


def _without(gone: np.ndarray, cells: pl.Series) -> pl.Expr:
    return pl.when(pl.lit(pl.Series(~gone))).then(pl.lit(cells))


def _categories(rng: np.random.Generator, story: np.ndarray) -> dict[str, pl.Series]:
    """The categorical columns; two thirds of the reasons are the usual one of the story."""
    codes = {name: rng.integers(0, len(weights), len(story)) for name, weights in CATEGORIES.items()}
    usual = np.array([list(CATEGORIES["reason"]).index(reason) for *_, reason in STORIES.values()])
    codes["reason"] = np.where(rng.random(len(story)) < 0.67, usual[story], codes["reason"])
    return {name: pl.Series(list(CATEGORIES[name])).gather(code) for name, code in codes.items()}
