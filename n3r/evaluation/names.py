"""The script of a name and the group of locales that it resembles, to see for whom a score errs.

Decisions:
- A name is not its bearer's origin, and both are guesses from spelling: use them for sums over many orders,
  never for a decision on one.
- Letters decide, after NFKC, which turns full-width and styled letters into the ones they stand for. Two
  scripts make a name "mixed"; Han beside kana is Japanese and is not.
- Locale groups are those that can be told apart: Spanish with Portuguese, Polish with Russian and Ukrainian.
  The lists know nothing of, say, Dutch, Vietnamese or Yoruba names, which come out as the nearest group.
- A script other than Latin decides the group by itself. For Latin a logistic regression on n-grams of
  characters is trained on the lists of names that people.py draws from, with equal weight for each list
  within a group and for each group. On names it has not seen it is right in 81 % and on average 86 % sure;
  naive Bayes is right as often but 97 % sure, so that a floor would not sort its guesses.
- Words are scored and a name is the sum of its words: a million names have few distinct words.
- Trained on three quarters of the words, it makes a guess for 81 % of full names out of the other quarter
  and is right in 90 % of these (82 % of the English, 95 % of the Slavic ones). The names of synthetic orders
  are all from the lists: of 20,000 it guesses 95 %, and 98 % of these rightly.
- Names are romanised as in people.py. For Arabic those are bare consonants, so that the group is never wrong
  on the lists and of no use for names as people write them: "Fatima Hassan" comes out as German.
"""

import importlib
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import polars as pl
from scipy.special import softmax

from n3r.synthetic.orders import LOCALES, romanise

if TYPE_CHECKING:
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression

NONE, MIXED, OTHER, UNCERTAIN = "none", "mixed", "other", "uncertain"
FLOOR = 0.7  # a guess below this probability is "uncertain"
LATIN, HAN, KANA = "Latin", "Han", "Kana"
# fmt: off
INDIC = ["Devanagari", "Bengali", "Gurmukhi", "Gujarati", "Oriya", "Tamil", "Telugu", "Kannada", "Malayalam",
         "Sinhala"]
SCRIPTS = [LATIN, HAN, KANA, "Hangul", "Cyrillic", "Arabic", "Greek", "Hebrew", "Armenian", "Georgian",
           "Thai", *INDIC]
# fmt: on
EAST_ASIAN, SOUTH_ASIAN = "East Asian", "South Asian"
SCRIPT_GROUPS = {
    **dict.fromkeys([HAN, KANA, "Hangul"], EAST_ASIAN),
    **dict.fromkeys(INDIC, SOUTH_ASIAN),
    "Cyrillic": "Slavic",
    "Arabic": "Arabic",
    MIXED: UNCERTAIN,
    NONE: NONE,
}
OTHER_SCRIPT = "other script"  # the group of every other script
# synth's locale -> the group of its names
LOCALE_GROUPS: dict[str, str] = {
    **dict.fromkeys(["en_US", "en_GB"], "English"),
    **dict.fromkeys(["es_ES", "es_MX", "pt_BR"], "Spanish/Portuguese"),
    "fr_FR": "French",
    "it_IT": "Italian",
    "de_DE": "German",
    "tr_TR": "Turkish",
    **dict.fromkeys(["pl_PL", "ru_RU", "uk_UA"], "Slavic"),
    **dict.fromkeys(["en_IN", "hi_IN", "ta_IN"], SOUTH_ASIAN),
    **dict.fromkeys(["zh_CN", "ja_JP", "ko_KR"], EAST_ASIAN),
    "ar_AA": "Arabic",
}


class LocaleModel(NamedTuple):
    """What tells the groups of Latin words apart."""

    ngrams: "CountVectorizer"
    regression: "LogisticRegression"

    def evidence(self, words: Sequence[str]) -> pl.DataFrame:
        """The logit of each group (a column) for each lower-case word (a row)."""
        logits = self.regression.decision_function(self.ngrams.transform(words))
        return pl.DataFrame(logits, schema=self.regression.classes_.tolist())


def name_of(frame: pl.DataFrame, columns: Sequence[str]) -> pl.Series:
    """The first name of each row that is neither missing nor blank, in the order of `columns`.

    Raises ValueError naming the columns that the frame lacks.
    """
    if missing := [name for name in columns if name not in frame.columns]:
        raise ValueError(f"names: no columns {', '.join(missing)}; the frame has {', '.join(frame.columns)}")
    given = [pl.col(name).cast(pl.String) for name in columns]
    return frame.select(name=pl.coalesce(pl.when(n.str.contains(r"\S")).then(n) for n in given))["name"]


def script_of(names: pl.Series) -> pl.Series:
    """The script of each name's letters: one of `SCRIPTS`, "other", "mixed", or "none" without a letter."""
    text = names.cast(pl.String).fill_null("").str.normalize("NFKC")
    patterns = _patterns()
    # Most names are Latin and nothing else: a million take 0.4 s, and 5.4 s with every pattern tried on each.
    plain = text.str.contains(patterns[LATIN]) & ~text.str.contains(patterns["not Latin"])
    rest = pl.DataFrame({"text": text.filter(~plain)}).select(
        pl.col("text").str.contains(patterns[script]).alias(script) for script in (*SCRIPTS, OTHER)
    )
    rest = rest.with_columns(pl.col(HAN) & ~pl.col(KANA))
    n_scripts = pl.sum_horizontal(pl.all())
    only = pl.coalesce(pl.when(script).then(pl.lit(script)) for script in rest.columns)
    script = pl.when(n_scripts == 0).then(pl.lit(NONE)).when(n_scripts > 1).then(pl.lit(MIXED))
    found = rest.select(script=script.otherwise(only))["script"]
    return pl.repeat(LATIN, len(names), eager=True).scatter((~plain).arg_true(), found).alias("script")


def _patterns() -> dict[str, str]:
    """What a name of each script contains; "other" is a letter of none of them."""
    classes = {script: rf"\p{{{script}}}" for script in SCRIPTS} | {KANA: r"\p{Hiragana}\p{Katakana}"}
    nobodys = r"\p{Common}\p{Inherited}"
    return {
        **{script: rf"[[{inside}]&&\p{{L}}]" for script, inside in classes.items()},
        OTHER: rf"[\p{{L}}--[{''.join(classes.values())}{nobodys}]]",
        "not Latin": rf"[\p{{L}}--[{classes[LATIN]}{nobodys}]]",
    }


def locale_group(names: pl.Series, model: LocaleModel | None = None) -> pl.Series:
    """The group of locales that each name is likely from; "uncertain" below `FLOOR`, "none" without a letter.

    A value of `LOCALE_GROUPS`, or "other script". `model` stands in for the one trained on all lists.
    """
    distinct = pl.DataFrame({"name": names.cast(pl.String)}).unique(maintain_order=True)
    script = script_of(distinct["name"])
    group = script.replace_strict(SCRIPT_GROUPS, default=OTHER_SCRIPT, return_dtype=pl.String)
    is_latin = script == LATIN
    if is_latin.any():
        latin = _latin_groups(distinct["name"].filter(is_latin), model or _trained())
        group = group.scatter(is_latin.arg_true(), latin)
    rows, table = names.cast(pl.String).to_frame("name"), distinct.with_columns(group=group)
    return rows.join(table, on="name", how="left", nulls_equal=True, maintain_order="left")["group"]


def _latin_groups(names: pl.Series, model: LocaleModel) -> pl.Series:
    """The groups of names in Latin letters; a single letter is no word."""
    letters = names.str.normalize("NFKC").str.to_lowercase()
    rows = letters.str.extract_all(r"[\p{L}\p{M}]{2,}").to_frame("word").with_row_index("row")
    words = rows.explode("word").drop_nulls()
    if words.is_empty():
        return pl.repeat(UNCERTAIN, len(names), eager=True)
    distinct = words.select(pl.col("word").unique(maintain_order=True))
    groups = model.regression.classes_.tolist()
    evidence = distinct.hstack(model.evidence(distinct["word"].to_list()))
    scored = words.join(evidence, on="word", how="left", maintain_order="left")
    sums = scored.group_by("row", maintain_order=True).agg(pl.col(groups).sum())
    logits = rows.join(sums, on="row", how="left", maintain_order="left").select(pl.col(groups).fill_null(0))
    p = softmax(logits.to_numpy(), axis=1)
    best = pl.Series(groups).gather(p.argmax(axis=1))
    return pl.select(pl.when(pl.Series(p.max(axis=1) >= FLOOR)).then(best).otherwise(pl.lit(UNCERTAIN)))[:, 0]


def name_lists() -> pl.DataFrame:
    """Faker's given and family names of one word, as people.py reads them.

    Columns: locale, part ("given" or "family"), native (as listed), latin (lower case, a to z), group, and
    weight, which is 1 in all for the names of each list.
    """
    tables = []
    for locale in LOCALES:
        provider = importlib.import_module(f"faker.providers.person.{locale}").Provider
        gendered = [*getattr(provider, "last_names_female", ()), *getattr(provider, "last_names_male", ())]
        parts = {
            "given": [*provider.first_names_female, *provider.first_names_male],
            "family": gendered or getattr(provider, "unisex_last_names", provider.last_names),
        }
        for part, names in parts.items():
            listed = pl.DataFrame({"native": list(dict.fromkeys(names))})
            tables.append(listed.select(pl.lit(locale).alias("locale"), pl.lit(part).alias("part"), "native"))
    latin = romanise(pl.col("native")).str.replace_all(" ", "", literal=True)
    one_word = ~pl.col("native").str.contains(r"\s") & (pl.col("latin").str.len_chars() > 1)
    names = pl.concat(tables).with_columns(latin=latin).filter(one_word)
    group = pl.col("locale").replace_strict(LOCALE_GROUPS)
    return names.with_columns(group=group, weight=1 / pl.len().over("locale", "part"))


def fit(names: pl.DataFrame) -> LocaleModel:
    """The model of some rows of `name_lists`; deterministic."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    # Customers write their names with accents or without, and in Latin letters whatever their own are.
    lower = names.with_columns(word=pl.col("native").str.to_lowercase())
    spelt = lower.filter(pl.col("word").str.contains(r"\p{Latin}"))
    words = pl.concat([spelt, names.with_columns(word="latin")])
    words = words.group_by("word", "group", maintain_order=True).agg(pl.col("weight").sum())
    share = words.select(pl.col("weight") / pl.col("weight").sum().over("group"))["weight"]
    weight = (share / share.mean()).cast(pl.Float32).to_numpy()
    ngrams = CountVectorizer(analyzer="char_wb", ngram_range=(1, 4), binary=True, min_df=3, dtype=np.float32)
    counts = ngrams.fit_transform(words["word"].to_list())
    regression = LogisticRegression(tol=1e-3, max_iter=200)  # fewer steps: listed names are known less well
    # Threads have nothing to share out here: two waited 34 s for each other on a busy machine, one took 4 s.
    with threadpool_limits(1):
        regression.fit(counts, words["group"].to_list(), weight)
    return LocaleModel(ngrams, regression)


@cache
def _trained() -> LocaleModel:
    return fit(name_lists())


def agreement(guess: pl.Series, truth: pl.Series) -> pl.DataFrame:
    """How often guessed groups are the true ones, the largest true group first.

    Columns: truth, n, n_right, share_right, share_uncertain, and the counts of each guess, in alphabetical
    order. Raises ValueError where the lengths differ.
    """
    if len(guess) != len(truth):
        raise ValueError(f"guess has {len(guess)} values, truth has {len(truth)}")
    pairs = pl.DataFrame({"truth": truth.cast(pl.String), "guess": guess.cast(pl.String)}).fill_null(NONE)
    right = pl.col("guess") == pl.col("truth")
    counts = {"n": pl.len(), "n_right": right.sum()}
    shares = {"share_right": right.mean(), "share_uncertain": (pl.col("guess") == UNCERTAIN).mean()}
    guesses = {g: (pl.col("guess") == g).sum() for g in sorted(pairs["guess"].unique())}
    table = pairs.group_by("truth").agg(**counts, **shares, **guesses)
    table = table.with_columns(pl.col("n", "n_right", *guesses).cast(pl.Int64))
    return table.sort(["n", "truth"], descending=[True, False])
