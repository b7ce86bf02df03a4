r"""Error analysis: traits and shapes of the identity strings that a model ranks wrongly.

A missed fraud is a fraud with a score below the threshold, a false alarm any other row at or above it.
Decisions:
- No text leaves this module. A trait is a sentence that is true of a row or not; a shape is the text in the
  stand-ins of `schema.mask` with each run shortened to one ("Ana Smith 71" -> "Aa Aa 9").
- A shape is listed only if at least 5 rows of the data have it: a unique one points at a person.
- The code knows no field names: a field counts as e-mail if most of its values hold one "@".
- A trait is judged against the rows of the same class that lack it, by a ratio of rates with its interval and
  by Fisher's exact test, Holm-corrected: of 60 traits that mean nothing, three pass 5 % by chance.
- Accents are removed before names are looked for in an e-mail, which cannot contain them.
- Regular expressions and arrays only, no loop over rows, of which some are read at a time: 1,000,000 orders
  of four fields take 7 s on two cores.
"""

from collections.abc import Iterator, Sequence, Sized
from itertools import combinations, product
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import ArrayLike
from scipy.special import ndtri

from n3r.estimate import FEW_ROWS, NOT_ENOUGH, Estimate, bounded, checked, classes, holm, table
from n3r.identity.mail import address_fields
from n3r.metrics import auc_ci
from n3r.rows.parts import Rows, slices
from n3r.rows.values import is_text
from n3r.schema import MISSING, mask

MIN_SHARED = 5  # rows of the data that have a shape before it is listed
HEAD = 64  # characters of a text that its shape covers, more than two whole names have
EMPTY = "(empty)"  # the shape of a text without a character
SCRIPTS = (
    *(rf"\p{{{name}}}" for name in ("Latin", "Cyrillic", "Greek", "Arabic", "Hebrew")),
    r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}]",  # ordinary names mix them
    r"[\p{L}--\p{Latin}\p{Cyrillic}\p{Greek}\p{Arabic}\p{Hebrew}"
    r"\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}\p{Common}]",
)
ASCII_SIGN = r"[\x00-\x7f&&[^a-z]]"
CONSONANT = "[bcdfghjklmnpqrstvwxz]"
USER_TRAITS = {
    "digits at the end of the user name": r"\d$",
    "4 or more digits in the user name": r"(?s)(?:\d.*){4}",
    "digits between letters of the user name": r"\p{L}\d+\p{L}",
    "a plus tag in the user name": r"\+",
    "5 consonants in a row in the user name": rf"(?i){CONSONANT}{{5}}",
    "no vowel in the user name": rf"(?i)^(?:{ASCII_SIGN}*{CONSONANT}){{4,}}{ASCII_SIGN}*$",
}
TRAIT_COLUMNS = (
    *("trait", "n", "n_positive", *bounded("auroc")),
    *("n_missed", "missed_share", *bounded("missed_ratio"), "missed_p_holm"),
    *("n_alarms", "alarms_share", *bounded("alarms_ratio"), "alarms_p_holm", "note"),
)
_END = "\0"  # between the texts of a column


def traits(rows: Rows, text: Sequence[str]) -> pl.DataFrame:
    """Boolean columns (N rows), one a trait of the text fields; each name is a sentence.

    A missing value has the trait "missing" and no other. Long and short are judged by the field's own
    lengths. What compares two fields is true of no row where one of them has no word. Raises ValueError on
    fields that the rows lack or that are not text.
    """
    lengths = pl.concat(part.select(pl.col(text).str.len_chars()) for part in _texts(rows, text))
    emails = address_fields(rows, text)
    names = [name for name in text if name not in emails]
    found = []
    for field in text:
        found += _of_any_field(field, *_extremes(lengths[field]))
        found += _of_name(field) if field in names else _of_email(field, names)
    found += [trait for pair in combinations(names, 2) for trait in _of_pair(*pair)]
    asked = [trait.fill_null(False).alias(name) for name, trait in found]
    return pl.concat(part.lazy().select(asked).collect() for part in _texts(rows, text))


def mis_ranked(
    traits: pl.DataFrame, y: ArrayLike, p: ArrayLike, threshold: float, min_rows: int = FEW_ROWS
) -> pl.DataFrame:
    """How the model ranks the rows with each trait, the traits most surely over-represented first.

    Columns: trait, n, n_positive, auroc (within the trait); n_missed (frauds with the trait below the
    threshold), missed_share (of all missed), missed_ratio, missed_p_holm; the same of alarms; note; auroc and
    ratios with 95 % limits in _low and _high. A ratio compares the rate of errors among the rows of a class
    with the trait and without it; its interval is the score interval, Koopman 1984. Where no row without the
    trait is an error, the upper limit is null, and half a row added to each count keeps the ratio finite.
    Rows are sorted by the larger of the two lower limits. Figures are null, with the note "not enough data",
    for fewer than `min_rows` rows of a class with the trait or without it, and where all or none of a class
    are errors. Raises ValueError on bad labels or scores, traits that are not Boolean or have nulls, and
    another number of rows.
    """
    y, p = checked(y, p=p)
    _check(traits, y, threshold)
    if wrong := [t.name for t in traits if t.dtype != pl.Boolean or t.null_count()]:
        raise ValueError(f"traits are Boolean without nulls, these are not: {', '.join(wrong)}")
    flagged = p >= threshold
    rows = []
    for trait in traits:
        has = trait.to_numpy()
        enough = min(classes(y[has])) >= max(1, min_rows)
        auc = auc_ci(y[has], p[has]) if enough else Estimate()
        row = {"trait": trait.name, "n": int(has.sum()), "n_positive": int(y[has].sum())}
        row |= auc.columns("auroc")
        for error, of in (("missed", y), ("alarms", ~y)):
            row |= _compared(error, has[of], (flagged ^ y)[of], min_rows)
        unknown = None in (row["auroc"], row["missed_ratio"], row["alarms_ratio"])
        rows.append(row | {"note": NOT_ENOUGH if unknown else None})
    for name in ("missed_p_holm", "alarms_p_holm"):
        for row, p_holm in zip(rows, holm(row[name] for row in rows), strict=True):
            row[name] = p_holm
    strength = pl.max_horizontal("missed_ratio_low", "alarms_ratio_low")
    found = table(rows, TRAIT_COLUMNS, words=("trait",))
    return found.sort(strength, descending=True, nulls_last=True, maintain_order=True)


def shapes(
    rows: Rows, text: Sequence[str], y: ArrayLike, p: ArrayLike, threshold: float, top: int = 10
) -> pl.DataFrame:
    """The commonest shapes of each field among the missed frauds, then among the false alarms.

    Columns: error, field, shape, n (errors with the shape), share (of all such errors), n_class (rows of the
    class with it, errors or not), class_share (of all rows of the class). At most `top` a field and error,
    and only those that at least 5 rows of the data have. Raises ValueError as `traits` and `mis_ranked`.
    """
    y, p = checked(y, p=p)
    _check(rows, y, threshold)
    is_error, found = (p >= threshold) ^ y, []
    sides = {f"{kind}_{c}": of for c, own in enumerate((y, ~y))
             for kind, of in (("n", own & is_error), ("n_class", own))}  # fmt: skip
    counts, start = {field: [] for field in text}, 0
    for part in _texts(rows, text):
        own = [pl.Series(name, side[start : start + part.height]) for name, side in sides.items()]
        for field in text:
            counts[field].append(_counted(part[field], own))
        start += part.height
    counted = {field: _added(parts) for field, parts in counts.items()}
    for (c, error), field in product(enumerate(("missed fraud", "false alarm")), text):
        n_errors, n_class = (max(int(sides[f"{kind}_{c}"].sum()), 1) for kind in ("n", "n_class"))
        for row in _common(counted[field], c).head(top).to_dicts():
            shares = {"share": row["n"] / n_errors, "class_share": row["n_class"] / n_class}
            found.append({"error": error, "field": field, **row, **shares})
    columns = ("error", "field", "shape", "n", "share", "n_class", "class_share")
    return table(found, columns, words=columns[:3])


def collapsed(values: pl.Series) -> pl.Series:
    """The shape of each text: its first 64 characters in the stand-ins of `schema.mask`, each run as one.

    "ana.smith77@mail.example" -> "a.a9@a.a"; a missing text stays null.
    """
    if values.is_empty():
        return values
    texts = values.fill_null("").str.head(HEAD).str.replace_all(_END, "*", literal=True)
    codes = np.frombuffer(texts.str.join(_END).item().encode("utf-32-le"), np.uint32)
    masked = _stand_ins(codes)[codes]
    masked = masked[masked >= 0]
    is_first = np.append(True, masked[1:] != masked[:-1])[: masked.size]
    kept = masked[is_first | (masked == ord(_END))]  # two ends in a row are an empty text
    shape = pl.Series(values.name, [kept.tobytes().decode("utf-32-le")]).str.split(_END).explode()
    return shape.to_frame().select(pl.when(values.is_not_null()).then(pl.col(values.name))).to_series()


def _stand_ins(codes: np.ndarray) -> np.ndarray:
    """What each code point that occurs becomes; -1: it vanishes."""
    table = np.full(0x110000, -1, np.int32)
    occurs = np.zeros(table.size, bool)
    occurs[codes] = True
    for code in np.flatnonzero(occurs):
        stand_in = mask(chr(code))
        table[code] = ord(stand_in) if stand_in else -1
    table[ord(_END)] = ord(_END)
    return table


def _counted(values: pl.Series, sides: Sequence[pl.Series]) -> pl.DataFrame:
    """How many rows have each shape: of all (n_data) and of each side."""
    shape = collapsed(values).fill_null(MISSING).replace("", EMPTY).alias("shape")
    names = [side.name for side in sides]
    rows = pl.DataFrame([shape, *sides]).group_by("shape")
    return rows.agg(pl.col(names).sum().cast(pl.Int64), n_data=pl.len().cast(pl.Int64))


def _added(counts: Sequence[pl.DataFrame]) -> pl.DataFrame:
    return pl.concat(counts).group_by("shape").agg(pl.all().sum())


def _common(counts: pl.DataFrame, c: int) -> pl.DataFrame:
    """Columns shape, n, n_class of the shapes that errors have and enough rows share, commonest first."""
    listed = counts.filter(pl.col("n_data") >= MIN_SHARED, pl.col(f"n_{c}") > 0)
    listed = listed.select("shape", n=f"n_{c}", n_class=f"n_class_{c}")
    return listed.sort(["n", "shape"], descending=[True, False])


def _texts(rows: Rows, text: Sequence[str]) -> Iterator[pl.DataFrame]:
    """The text fields as strings, some rows at a time."""
    types = rows.schema
    problems = [f"{name!r} is missing" for name in text if name not in types]
    for name in text:
        if name in types and not (is_text(types[name]) or types[name] == pl.Null):
            problems.append(f"{name!r} is {types[name].base_type()}, expected text")
    if not text:
        problems.append("expected at least one")
    if problems:
        raise ValueError(f"text fields: {'; '.join(problems)}")
    return (part.select(pl.col(text).cast(pl.String)) for part in slices(rows, text))


def _check(rows: Sized, y: np.ndarray, threshold: float) -> None:
    if len(rows) != y.size:
        raise ValueError(f"the table has {len(rows)} rows, labels have {y.size}")
    if not np.isfinite(threshold):
        raise ValueError(f"threshold {threshold}: expected a number")


def _compared(error: str, has: np.ndarray, is_error: np.ndarray, min_rows: int) -> dict[str, Any]:
    """What `mis_ranked` says of one kind of error, of the rows of its class."""
    from scipy.stats import fisher_exact  # scipy.stats takes 0.5 s to import

    with_trait, without = ((int(is_error[side].sum()), int(side.sum())) for side in (has, ~has))
    n_errors, ratio, p_value = int(is_error.sum()), Estimate(), None
    if min(with_trait[1], without[1]) >= max(1, min_rows) and 0 < n_errors < is_error.size:
        ratio = _ratio(*with_trait, *without)
        p_value = float(fisher_exact([[k, n - k] for k, n in (with_trait, without)]).pvalue)
    share = with_trait[0] / n_errors if n_errors else None
    told = {f"n_{error}": with_trait[0], f"{error}_share": share, f"{error}_p_holm": p_value}
    return told | ratio.columns(f"{error}_ratio")


def _ratio(k: int, n: int, k_other: int, n_other: int) -> Estimate:
    """The ratio of the rates k / n and k_other / n_other, with its 95 % score interval."""
    from scipy.optimize import brentq

    def z(log_ratio: float) -> float:
        """How many standard errors the rates lie above this ratio of theirs, if it is the true one."""
        ratio = np.exp(log_ratio)
        a, b = (n + n_other) * ratio, n * ratio + k + n_other + k_other * ratio
        rate = 2 * (k + k_other) / (b + np.sqrt(b * b - 4 * a * (k + k_other)))  # likeliest of the others
        variance = ratio * rate * (1 - ratio * rate) / n + ratio**2 * rate * (1 - rate) / n_other
        return (k / n - ratio * k_other / n_other) / np.sqrt(variance)

    quantile = ndtri(0.975)
    low = float(np.exp(brentq(lambda at: z(at) - quantile, -40, 40))) if k else 0.0
    high = float(np.exp(brentq(lambda at: z(at) + quantile, -40, 40))) if k_other else None
    value = k / n * n_other / k_other if k_other else (k + 0.5) / (n + 0.5) * (n_other + 0.5) / 0.5
    return Estimate(value, low, high, n + n_other)


def _extremes(lengths: pl.Series) -> tuple[float, float]:
    """Beyond which lengths the longest and the shortest texts are."""
    if not lengths.count():
        return np.inf, -np.inf
    return lengths.quantile(0.98, "lower"), lengths.quantile(0.02, "higher")


def _of_any_field(field: str, long: float, short: float) -> Iterator[tuple[str, pl.Expr]]:
    text, length = pl.col(field), pl.col(field).str.len_chars()
    scripts = pl.sum_horizontal(text.str.contains(script).cast(pl.UInt8) for script in SCRIPTS)
    yield f"{field}: missing", text.is_null()
    yield f"{field}: empty", text.str.strip_chars() == ""
    yield f"{field}: letters outside the Latin script", text.str.contains(r"[\p{L}--\p{Latin}]")
    yield f"{field}: letters of several scripts", scripts > 1
    yield f"{field}: all capitals", text.str.contains(r"(?s)^\P{Ll}*\p{Lu}\P{Ll}*\p{Lu}\P{Ll}*$")
    yield f"{field}: among the longest 2 %", length > long
    yield f"{field}: among the shortest 2 %", length < short


def _user(field: str) -> pl.Expr:
    """What an e-mail has before its one "@"."""
    return pl.col(field).str.extract("^([^@]*)@[^@]*$")


def _of_email(field: str, names: Sequence[str]) -> Iterator[tuple[str, pl.Expr]]:
    yield f"{field}: not one @", pl.col(field).str.count_matches("@", literal=True) != 1
    for trait, pattern in USER_TRAITS.items():
        yield f"{field}: {trait}", _user(field).str.contains(pattern)
    if names:
        yield f"{field}: the user name holds the first 3 letters of no name", _is_strange(field, names)


def _is_strange(field: str, names: Sequence[str]) -> pl.Expr:
    """Whether an e-mail's user name holds the first three letters of no word of the names."""
    letters = _user(field).str.to_lowercase().str.replace_all("[^a-z]", "")
    threes = pl.concat_list(letters.str.slice(i).str.extract_all("...") for i in range(3))
    name = pl.concat_str(names, separator=" ", ignore_nulls=True).str.normalize("NFKD")
    starts = name.str.replace_all(r"\p{M}", "").str.to_lowercase().str.extract_all(r"\b[a-z]{3}")
    return (starts.list.len() > 0) & (threes.list.set_intersection(starts).list.len() == 0)


def _words(field: str) -> pl.Expr:
    return pl.col(field).str.to_lowercase().str.extract_all(r"[\p{L}\p{M}\p{N}]+")


def _of_name(field: str) -> Iterator[tuple[str, pl.Expr]]:
    yield f"{field}: a digit in it", pl.col(field).str.contains(r"\d")
    yield f"{field}: a single word", _words(field).list.len() == 1


def _of_pair(a: str, b: str) -> Iterator[tuple[str, pl.Expr]]:
    n_shared = _words(a).list.set_intersection(_words(b)).list.len()
    both = (_words(a).list.len() > 0) & (_words(b).list.len() > 0)
    plain = [pl.col(field).str.to_lowercase().str.strip_chars() for field in (a, b)]
    yield f"{a} and {b} share no word", both & (n_shared == 0)
    yield f"{a} and {b} are identical", both & (plain[0] == plain[1])
