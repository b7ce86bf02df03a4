"""Seeded shop orders with a planted fraud process whose exact posterior is known.

`generate_orders` makes raw orders in the layout of configs/orders.json; `posterior` says how likely
each is to be fraud, and labels are drawn from exactly that, so the AUC of `oracle_p` is the best any
model can reach. Decisions:

- The posterior reads the row's own columns and nothing else (`risk_terms`): logit = intercept +
  sum of weight_m(time) * signal_m(strings) + tabular terms + two interactions. Hidden causes (the
  scheme a customer follows) only make signals appear together; they never enter the posterior.
- Relations between names are decided on romanised strings (`romanise`), by the same function that
  makes e-mail user names out of names, so "IVAN PETROV" fits its Cyrillic original.
- Everything random is numpy, everything about strings polars; no Python runs per row.
- Missing cells, other statuses and missing labels are drawn independently of risk.
"""

from datetime import UTC, datetime

import numpy as np
import polars as pl
from scipy.special import expit

from n3r.synthetic.people import LOCALES, draw_people, filled, pick, romanise

START = int(datetime(2025, 2, 15, tzinfo=UTC).timestamp())
SPAN = 90 * 86_400  # seconds; the last order falls on 2025-05-15
DATE_FORMAT = "%a %b %d %H:%M:%S UTC %Y"
RING = 12  # identities in one run of near-copies
ORDERS_PER_CUSTOMER = 1.3

REGIONS: dict[str, list[str]] = {
    "NA": ["US", "CA", "MX", "BR"],
    "EU": ["GB", "DE", "FR", "IT", "ES", "TR", "AE"],
    "FE": ["JP", "IN", "AU", "SG"],
}
# marketplace -> share of customers, and the locales they come from (relative shares)
MARKETS: dict[str, tuple[float, dict[str, float]]] = {
    "US": (22, {"en_US": 70, "es_MX": 15, "zh_CN": 6, "en_IN": 4, "ko_KR": 3, "ru_RU": 2}),
    "CA": (6, {"en_US": 60, "fr_FR": 25, "zh_CN": 8, "en_IN": 7}),
    "MX": (5, {"es_MX": 95, "en_US": 5}),
    "BR": (4, {"pt_BR": 95, "ja_JP": 5}),
    "GB": (10, {"en_GB": 80, "en_IN": 10, "pl_PL": 6, "ar_AA": 4}),
    "DE": (9, {"de_DE": 78, "tr_TR": 8, "ru_RU": 6, "uk_UA": 5, "pl_PL": 3}),
    "FR": (6, {"fr_FR": 88, "ar_AA": 8, "es_ES": 4}),
    "IT": (5, {"it_IT": 94, "uk_UA": 3, "zh_CN": 3}),
    "ES": (5, {"es_ES": 92, "ar_AA": 4, "en_GB": 4}),
    "TR": (2, {"tr_TR": 95, "ar_AA": 5}),
    "AE": (2, {"ar_AA": 60, "en_IN": 25, "hi_IN": 15}),
    "JP": (8, {"ja_JP": 95, "zh_CN": 3, "ko_KR": 2}),
    "IN": (6, {"en_IN": 55, "hi_IN": 30, "ta_IN": 15}),
    "AU": (3, {"en_GB": 80, "zh_CN": 12, "en_IN": 8}),
    "SG": (2, {"zh_CN": 60, "ta_IN": 15, "en_GB": 25}),
}
# Groups of e-mail domains; in each, the first are the commonest. The last two companies look
# internal and are not.
DOMAINS = {
    "NA": "gmail.com yahoo.com outlook.com hotmail.com icloud.com aol.com comcast.net uol.com.br",
    "EU": "gmail.com hotmail.com outlook.com gmx.de web.de orange.fr libero.it yahoo.co.uk wp.pl",
    "FE": "gmail.com yahoo.co.jp docomo.ne.jp qq.com 163.com rediffmail.com bigpond.com naver.com",
    "company": "northwindfreight.com brightwater.co alderandsons.co.uk baumgart-technik.de "
    "lacosta-diseno.es sakurabuild.co.jp tanglinpartners.sg amazonia-travel.org myamazonx.net",
    "internal": "amazon.com amazon.co.uk",
    "disposable": "mailinator.com guerrillamail.com yopmail.com trashmail.com sharklasers.com "
    "maildrop.cc getnada.com dispostable.com mohmal.com 10minutemail.com",
}
WORDS = "sunny lucky happy blue night star gamer tiger music dream coffee rider ocean fox pixel"

# Hidden schemes: share of customers in per cent at the start and the end of the window, then the
# chances of a user name that (fits, is a handle, fits someone else, is random, is serial), of a
# foreign holder, of a disposable domain and of a velocity burst.
SCHEMES: dict[str, tuple[float, float, tuple[float, ...], float, float, float]] = {
    "none": (86, 86, (0.87, 0.08, 0.035, 0.008, 0.007), 0.035, 0.010, 0.02),
    "stolen card": (5, 2, (0.50, 0.10, 0.25, 0.12, 0.03), 0.90, 0.10, 0.15),
    "bots": (2, 5, (0.05, 0.05, 0.00, 0.90, 0.00), 0.20, 0.30, 0.40),
    "ring": (4, 1, (0.05, 0.00, 0.05, 0.00, 0.90), 0.25, 0.25, 0.30),
    "throwaway": (1, 4, (0.40, 0.10, 0.20, 0.25, 0.05), 0.30, 0.95, 0.15),
    "impostor": (1, 1, (0.05, 0.05, 0.90, 0.00, 0.00), 0.35, 0.10, 0.10),
    "burst": (1, 1, (0.70, 0.10, 0.10, 0.05, 0.05), 0.10, 0.10, 0.95),
}
# fmt: off
# Weight of each mechanism in the logit at the start and at the end of the window.
WEIGHTS: dict[str, tuple[float, float]] = {
    "holderMismatch": (1.8, 1.0), "randomUser": (1.4, 2.0), "serialUser": (2.4, 1.8),
    "disposableDomain": (1.3, 1.9), "emailMismatch": (0.5, 0.3), "velocityBurst": (1.1, 0.6),
}
MECHANISMS: tuple[str, ...] = tuple(WEIGHTS)
TEXT_MECHANISMS: tuple[str, ...] = MECHANISMS[:5]
# Tabular terms: weight * (log1p(feature) - centre); a missing feature adds nothing.
TABULAR_TERMS: dict[str, tuple[float, float]] = {
    "ordersPerEmail24h": (0.30, 0.5), "ordersPerDevice24h": (0.30, 0.6),
    "ordersPerCard7d": (0.24, 1.0), "failedPayments24h": (0.36, 0.2),
    "nearDuplicateIdentities7d": (0.35, 0.2), "accountAgeDays": (-0.28, 5.0),
    "cardAgeDays": (-0.24, 5.5), "emailAgeDays": (-0.18, 6.0), "orderAmount": (0.28, 4.0),
    "giftCardAmount": (0.24, 1.5), "ipBillingDistanceKm": (0.20, 3.5),
    "sessionSeconds": (-0.24, 6.0),
}
INTERACTIONS = {("holderMismatch", "newCard"): 1.0, ("randomUser", "velocityBurst"): 0.8}

# Features that are exp(normal): median, spread, shared hidden factor, missing share.
LOG_NORMAL: dict[str, tuple[float, float, str | None, float]] = {
    "accountAgeDays": (200, 1.5, "tenure", 0.0), "emailAgeDays": (600, 1.3, "tenure", 0.12),
    "cardAgeDays": (300, 1.5, "tenure", 0.05), "addressAgeDays": (350, 1.4, "tenure", 0.03),
    "phoneAgeDays": (500, 1.3, "tenure", 0.20), "deviceAgeDays": (150, 1.2, "tenure", 0.08),
    "orderAmount": (45, 1.1, "wealth", 0.0), "maxItemAmount": (30, 1.1, "wealth", 0.0),
    "amountLast30d": (120, 1.4, "wealth", 0.02), "shippingFee": (5, 0.8, "wealth", 0.01),
    "discountAmount": (4, 1.2, "wealth", 0.15), "giftCardAmount": (3, 1.6, None, 0.10),
    "ipBillingDistanceKm": (25, 1.9, None, 0.10), "shippingBillingDistanceKm": (8, 2.0, None, 0.04),
    "sessionSeconds": (400, 1.0, "attention", 0.06), "pagesViewed": (9, 0.8, "attention", 0.06),
    "secondsSinceLogin": (300, 1.5, "attention", 0.10), "loyaltyPoints": (150, 1.6, "tenure", 0.30),
}
# Features that are Poisson: mean, factor in a velocity burst, missing share.
COUNTS: dict[str, tuple[float, float, float]] = {
    "failedPayments24h": (0.15, 8, 0.0), "itemsInBasket": (2.5, 1, 0.0),
    "cardsOnFile": (1.4, 1, 0.02), "addressesOnFile": (1.8, 1, 0.02),
    "reviewsWritten": (3.0, 1, 0.25), "returnsLast90d": (0.4, 1, 0.05),
}
VELOCITY_ENTITIES = {"Email": 0.15, "Device": 0.25, "Card": 0.20, "Ip": 0.40}  # mean of the 1h count
CONSTANTS = {"apiVersion": 3.0, "legacyFlag": 0.0}
# fmt: on
MISSING_TEXT = 0.015
NAME_COLUMNS = ["billingAddressName", "customerName", "paymentAccountHolderName"]
TEXT_COLUMNS = ["emailAddress", "emailDomain", *NAME_COLUMNS]

USER_STYLES = "{g}.{f} {g}{f} {i}{f} {g}_{f}{yy} {f}.{g} {g}{yyyy} {i}.{f}{yy} {short}y{yy}"
RANDOM_LETTERS = "bcdfghjklmnpqrstvwxzaeiouy0123456789"


def generate_orders(n_orders: int, seed: int = 0, base_rate: float = 0.05) -> pl.DataFrame:
    """Raw orders in the layout of configs/orders.json, one row an order, in no order of time.

    Beside the shop's columns: `region`, `locale` (the customer's own) and `oracle_p`, the posterior
    (see `posterior`) from which each row's label was drawn; its mean is `base_rate`. Label 1 is
    status F or I, label 0 is N, and 4 % of rows have P or C whatever their risk.

    Raises ValueError if `n_orders` is below 1 or `base_rate` is not between 0 and 0.5.
    """
    if n_orders < 1:
        raise ValueError(f"n_orders is {n_orders}; expected at least 1")
    if not 0 < base_rate < 0.5:
        raise ValueError(f"base_rate is {base_rate}; expected a rate between 0 and 0.5")
    rng = np.random.default_rng(seed)
    owner = _owners(rng, n_orders)
    paid = START + rng.integers(0, SPAN, n_orders)
    ordered = paid - np.minimum(1 + rng.lognormal(7, 1.5, n_orders).astype(np.int64), 86_400)
    first = np.full(owner.max() + 1, START + SPAN)
    np.minimum.at(first, owner, ordered)
    days = (ordered - first[owner]) / 86_400

    customers, scheme = _customers(rng, np.clip((first - START) / SPAN, 0, 1))
    orders = customers[owner].with_columns(
        objectId=pl.format("O{}", pl.Series(10**9 + rng.permutation(n_orders))),
        transactionDate=pl.from_epoch(pl.Series(paid)).dt.strftime(DATE_FORMAT),
        orderDate=pl.Series(ordered).cast(pl.String),
        daysSinceFirstCompletedOrder=pl.Series(days),
    )
    features = _features(rng, scheme[owner], owner, ordered, days)
    orders = _drop_cells(rng, orders).with_columns(**features)
    p = posterior(orders, base_rate)
    return orders.with_columns(status=_status(rng, p), oracle_p=pl.Series(p))


def posterior(orders: pl.DataFrame, base_rate: float = 0.05) -> np.ndarray:
    """Probability of fraud of each order, from its observed columns; shape (n_orders,).

    The intercept is the one that gives these rows the mean `base_rate` (bisection), so pass the
    whole frame of `generate_orders`, in any row order; `risk_terms` serves any part of it.
    """
    # numpy, because the last bits of polars' sum_horizontal depend on its threads: one, two and four
    # gave different sums of the same terms, two gave two sums in turn (200 calls, 500 rows)
    logit = risk_terms(orders).to_numpy().sum(axis=1)
    low, high = -60.0, 60.0
    for _ in range(64):
        middle = (low + high) / 2
        low, high = (low, middle) if expit(logit + middle).mean() > base_rate else (middle, high)
    return expit(logit + (low + high) / 2)


def risk_terms(orders: pl.DataFrame) -> pl.DataFrame:
    """The logit's terms without the intercept, one column each (row sum = logit).

    Columns: `MECHANISMS` (the first five, `TEXT_MECHANISMS`, read only text and time), the features
    of `TABULAR_TERMS`, and `INTERACTIONS`.
    """
    time = pl.col("transactionDate").str.to_datetime(DATE_FORMAT).dt.epoch("s")
    signals = mechanism_signals(orders).hstack(
        orders.select(t=(time - START) / SPAN, newCard=(pl.col("cardAgeDays") < 30).fill_null(False))
    )
    tabular = [
        ((pl.col(name).log1p() - centre) * weight).fill_null(0.0)
        for name, (weight, centre) in TABULAR_TERMS.items()
    ]
    return signals.select(
        **{n: pl.col(n) * (w + (end - w) * pl.col("t")) for n, (w, end) in WEIGHTS.items()},
        **{f"{a}:{b}": (pl.col(a) & pl.col(b)) * w for (a, b), w in INTERACTIONS.items()},
    ).hstack(orders.select(tabular))


def mechanism_signals(orders: pl.DataFrame) -> pl.DataFrame:
    """Which mechanisms each row shows: one Boolean column for each of `MECHANISMS`.

    holderMismatch: the holder has neither the first nor the last token of the customer's name.
    randomUser: digits between letters, or five consonants in a row. serialUser: letters, then a
    number 0dd at the end. emailMismatch: neither name's first three letters are in the user name.
    A signal that needs a missing cell is False.
    """
    holder = romanise(pl.col("paymentAccountHolderName"))
    parts = orders.select(
        user=pl.col("emailAddress").str.extract("^([^@]+)@"),
        domain=pl.col("emailAddress").str.extract("@(.+)$"),
        holder=pl.format(" {} ", holder),
        name=romanise(pl.col("customerName")),
        fast=pl.col("ordersPerDevice1h") + pl.col("ordersPerEmail1h") >= 5,
    ).with_columns(first=pl.col("name").str.extract(r"^(\S+)"), last=pl.col("name").str.extract(r"(\S+)$"))
    known = [pl.col("holder").str.contains(pl.format(" {} ", n), literal=True) for n in ("first", "last")]
    fits = [pl.col("user").str.contains(pl.col(n).str.head(3), literal=True) for n in ("first", "last")]
    signals = (
        ~pl.any_horizontal(known),
        pl.col("user").str.contains(r"[a-z]\d+[a-z]|[bcdfghjklmnpqrstvwxz]{5}"),
        pl.col("user").str.contains(r"[a-z]0\d\d$"),
        pl.col("domain").is_in(DOMAINS["disposable"].split()),
        ~pl.any_horizontal(fits),
        pl.col("fast"),
    )
    named = zip(MECHANISMS, signals, strict=True)
    return parts.select(s.fill_null(False).alias(name) for name, s in named)


def _draw(rng: np.random.Generator, p: np.ndarray) -> np.ndarray:
    """One index a row from rows of unnormalised probabilities (n, k)."""
    cumulative = p.cumsum(axis=1)
    return (cumulative <= rng.random((len(p), 1)) * cumulative[:, -1:]).sum(axis=1)


def _owners(rng: np.random.Generator, n_orders: int) -> np.ndarray:
    """Customer number of each order; every customer has at least one."""
    n_customers = int(np.ceil(n_orders / ORDERS_PER_CUSTOMER))
    again = rng.integers(0, n_customers, n_orders - n_customers)
    return rng.permutation(np.concatenate([np.arange(n_customers), again]))


def _customers(rng: np.random.Generator, time: np.ndarray) -> tuple[pl.DataFrame, np.ndarray]:
    """Identity columns of each customer, and the hidden scheme (index into SCHEMES) followed."""
    start, end, users, foreign, disposable, _ = map(np.array, zip(*SCHEMES.values(), strict=True))
    scheme = _draw(rng, start + (end - start) * time[:, None])
    kind = _draw(rng, users[scheme])
    leader, number = _rings(kind == 4, time)

    mix = np.array([[m.get(name, 0) for name in LOCALES] for _, m in MARKETS.values()])
    share = np.array([weight for weight, _ in MARKETS.values()])
    market = rng.choice(len(share), len(time), p=share / share.sum())
    locale = _draw(rng, mix[market])
    region = pl.Series(list(MARKETS)).replace_strict({m: r for r in REGIONS for m in REGIONS[r]})
    person = draw_people(rng, locale).with_columns(
        marketplaceCountryCode=pl.Series(list(MARKETS)).gather(market),
        region=region.gather(market),
        domain=_domains(rng, region.gather(market), rng.random(len(time)) < disposable[scheme]),
    )
    stranger = draw_people(rng, rng.permutation(locale)).select(pl.all().name.prefix("other_"))
    people = (
        person[leader]
        .hstack(stranger)
        .with_columns(
            customerId=pl.format("A{}", pl.Series(10**8 + np.arange(len(time)))),
            number=pl.Series(number).cast(pl.String).str.zfill(3),
            foreign=pl.Series(rng.random(len(time)) < foreign[scheme]),
        )
    )
    return _identity(rng, people, _user_names(rng, people, kind)), scheme


def _rings(serial: np.ndarray, time: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whose identity each customer copies (mostly its own), and its number in the run of copies."""
    members = np.flatnonzero(serial)
    members = members[np.argsort(time[members], kind="stable")]
    rank = np.arange(len(members))
    leader, number = np.arange(len(serial)), np.zeros(len(serial), dtype=np.int64)
    leader[members] = members[rank // RING * RING]
    number[members] = rank % RING + leader[members] % (100 - RING)
    return leader, number


def _domains(rng: np.random.Generator, region: pl.Series, disposable: np.ndarray) -> pl.Series:
    """E-mail domain of each customer; 9 % write from a company, 1 % from inside the shop."""
    lists = [names.split() for names in DOMAINS.values()]
    sizes = np.array([len(names) for names in lists])
    codes = region.replace_strict({name: i for i, name in enumerate(REGIONS)}).to_numpy()
    kind = rng.random(len(codes))
    group = np.select([disposable, kind < 0.01, kind < 0.1], [5, 4, 3], codes)
    place = (rng.random(len(codes)) ** 2 * sizes[group]).astype(np.int64)
    return pl.Series(sum(lists, [])).gather((sizes.cumsum() - sizes)[group] + place)


def _user_names(rng: np.random.Generator, people: pl.DataFrame, kind: np.ndarray) -> pl.Series:
    """Part of the address before @, by kind: fits, handle, other person's, random, serial."""
    n, theirs, words = len(kind), kind == 2, pl.Series(WORDS.split())
    own = [pl.when(pl.Series(theirs)).then(f"other_{c}").otherwise(c) for c in ("given", "family")]
    letters = np.frombuffer(RANDOM_LETTERS.encode(), np.uint8)
    noise = pl.Series(letters[rng.integers(0, len(letters), (n, 11))].view("S11").ravel())
    cells = people.select(
        "number",
        g=own[0],
        f=own[1],
        i=own[0].str.head(1),
        short=own[0].str.head(4),
        yy=pl.Series(rng.integers(60, 100, n)),
        yyyy=pl.Series(rng.integers(1955, 2009, n)),
        w=words.gather(rng.integers(0, len(words), n)),
        v=words.gather(rng.integers(0, len(words), n)),
        noise=noise.cast(pl.String).str.head(pl.Series(rng.integers(8, 12, n))),
    )
    styles = USER_STYLES.split()
    style = pl.Series(rng.integers(0, len(styles), n))
    fitting = pick(style, *map(filled, styles))
    serial = pick(style % 2, filled("{g}.{f}{number}"), filled("{i}{f}{number}"))
    handle = filled("{w}{v}{yy}")
    users = pick(pl.Series(kind), fitting, handle, fitting, pl.col("noise"), serial)
    return cells.select(users.alias("user"))["user"]


def _identity(rng: np.random.Generator, people: pl.DataFrame, users: pl.Series) -> pl.DataFrame:
    """The shop's identity columns; names are written in the several ways people write them."""
    n = people.height
    latin = pl.Series(rng.random(n) < 0.2)
    name = pl.when(latin).then("latin").otherwise("native")
    other = pl.when(latin).then("other_latin").otherwise("other_native")
    initial = pl.format("{} {}", pl.col("given").str.head(1), "family").str.to_uppercase()
    relative = filled("{other_given} {family}").str.to_titlecase()
    card = pl.col("latin").str.to_uppercase()
    styles = pl.Series(rng.choice(4, n, p=[0.6, 0.25, 0.08, 0.07]))
    holder = pl.when("foreign").then(other).otherwise(pick(styles, name, card, initial, relative))
    bill = pl.Series(rng.choice(3, n, p=[0.84, 0.08, 0.08]))
    return people.select(
        "customerId",
        "marketplaceCountryCode",
        "region",
        "locale",
        emailAddress=pl.format("{}@{}", users, "domain"),
        emailDomain="domain",
        billingAddressName=pick(bill, name, pl.col("latin"), holder),
        customerName=name,
        paymentAccountHolderName=holder,
    )


def _features(
    rng: np.random.Generator, scheme: np.ndarray, owner: np.ndarray, ordered: np.ndarray, days: np.ndarray
) -> dict[str, pl.Series]:
    """Numeric features of each order; a risky scheme shifts some, a velocity burst the counts."""
    n, risky = len(scheme), scheme > 0
    burst = rng.random(n) < np.array([row[-1] for row in SCHEMES.values()])[scheme]
    factors = {
        "tenure": rng.normal(size=n)[owner] - 0.6 * risky,
        "wealth": rng.normal(size=n) + 0.3 * risky,
        "attention": rng.normal(size=n) - 0.4 * risky,
    }
    columns: dict[str, np.ndarray] = {}
    for name, (median, spread, factor, _) in LOG_NORMAL.items():
        z = rng.normal(size=n)[owner if factor == "tenure" else slice(None)]
        z = 0.6 * z + 0.8 * factors[factor] if factor else z
        columns[name] = (median * np.exp(spread * z) + days * (factor == "tenure")).round(2)
    for name, (mean, factor, _) in COUNTS.items():
        columns[name] = _counts(rng, mean * np.where(burst, factor, 1))
    for entity, mean in VELOCITY_ENTITIES.items():
        rate, total = mean * np.where(burst, 12, 1), np.zeros(n)
        for window, growth in (("1h", 1), ("24h", 2), ("7d", 4)):  # each window holds the last
            total = total + _counts(rng, rate * growth)
            columns[f"ordersPer{entity}{window}"] = total
    ring = scheme == list(SCHEMES).index("ring")
    columns["nearDuplicateIdentities7d"] = _counts(rng, np.where(ring, 4.0, 0.15))
    columns["hourOfDay"] = ordered // 3600 % 24 * 1.0
    columns |= {name: np.full(n, value) for name, value in CONSTANTS.items()}
    for name, row in (LOG_NORMAL | COUNTS).items():
        columns[name][rng.random(n) < row[-1]] = np.nan
    return {name: pl.Series(values, nan_to_null=True) for name, values in columns.items()}


def _counts(rng: np.random.Generator, mean: np.ndarray) -> np.ndarray:
    """Overdispersed counts: Poisson whose rate varies by a gamma of shape 0.7."""
    return rng.poisson(mean * rng.gamma(0.7, 1 / 0.7, len(mean))).astype(float)


def _drop_cells(rng: np.random.Generator, orders: pl.DataFrame) -> pl.DataFrame:
    """Some text cells go missing, and the domain wherever its address did."""
    missing = {name: pl.Series(rng.random(orders.height) < MISSING_TEXT) for name in TEXT_COLUMNS}
    missing["emailDomain"] |= missing["emailAddress"]
    return orders.with_columns(pl.when(~gone).then(name).alias(name) for name, gone in missing.items())


def _status(rng: np.random.Generator, p: np.ndarray) -> pl.Series:
    """F or I for a drawn label 1, N for 0; 4 % of rows get P or C instead."""
    fraud, kind, other = rng.random((3, len(p)))
    label = np.where(fraud >= p, "N", np.where(kind < 0.7, "F", "I"))
    return pl.Series(np.where(other < 0.04, np.where(kind < 0.5, "P", "C"), label))
