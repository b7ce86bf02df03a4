r"""Where a model fails: traits and shapes of the identity strings that it ranks wrongly.

A missed fraud is a fraud whose score lies below the threshold, a false alarm another row at or above it.
Decisions:
- No text leaves this module. A trait is a sentence that is true of a row or not; a shape is the text in the
  stand-ins of `schema.mask` with runs made one ("Ana Smith 71" -> "Aa Aa 9").
- A shape is listed only if at least 5 rows of the data have it: one that nobody shares points at a person.
- The code knows no field names: a field reads as e-mail where most of its values hold one "@".
- A trait is judged against the rows of the same class that lack it, by a ratio of rates with its interval and
  by Fisher's exact test, Holm-corrected: of 60 traits that mean nothing, three pass 5 % by chance.
- Accents are taken off before names are looked for in an e-mail, for they cannot be written there.
- Regular expressions and arrays only, no Python a row: 1,000,000 orders of four fields take 7 s
  on two cores and 0.5 GB.
"""

from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np
import polars as pl
from numpy.typing import ArrayLike
from scipy.special import ndtri

from n3r import metrics
from n3r.metrics import FEW_ROWS, NOT_ENOUGH
from n3r.schema import MISSING, address_fields, mask

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
_TRAIT_COLUMNS = (
    *("trait", "n", "n_positive", "auroc", "low", "high"),
    *("missed", "missed_share", "missed_ratio", "missed_low", "missed_high", "missed_p_holm"),
    *("alarms", "alarm_share", "alarm_ratio", "alarm_low", "alarm_high", "alarm_p_holm", "note"),
)
_COUNTS = ("n", "n_positive", "missed", "alarms", "n_class")
_WORDS = ("trait", "note", "failure", "field", "shape")
_END = "\0"  # between the texts of a column


def traits(frame: pl.DataFrame, text: Sequence[str]) -> pl.DataFrame:
    """Boolean columns (N rows), one a trait of the text fields; each name is a sentence.

    A missing value has the trait "missing" and no other. Long and short are judged by the field's own
    lengths. What compares two fields is true of no row where one of them has no word. Raises ValueError on
    fields that the frame lacks or that are not text.
    """
    fields = _texts(frame, text)
    emails = address_fields(fields, text)
    names = [name for name in text if name not in emails]
    found = []
    for field in text:
        found += _of_any_field(field)
        found += _of_name(field) if field in names else _of_email(field, names)
    found += [trait for pair in combinations(names, 2) for trait in _of_pair(*pair)]
    return fields.lazy().select(trait.fill_null(False).alias(name) for name, trait in found).collect()


def mis_ranked(
    traits: pl.DataFrame, y: ArrayLike, p: ArrayLike, threshold: float, min_rows: int = FEW_ROWS
) -> pl.DataFrame:
    """How the model ranks the rows with each trait, the traits most surely over-represented first.

    Columns: trait, n, n_positive, auroc, low, high (within the trait, 95 %); missed (frauds with the trait
    below the threshold), missed_share (of all missed), missed_ratio, missed_low, missed_high, missed_p_holm;
    the same of alarms; note. A ratio compares the rate of failures among the rows of a class with the trait
    and without it; its interval is the score interval, Koopman 1984. Where no row without the trait fails,
    high is null, and half a row added to each count keeps the ratio finite. Rows are sorted by the larger of
    the two lower ends. Figures are null, with the note "not enough data", for fewer than `min_rows` rows of a
    class with the trait or without it, or where all rows of a class or none fail. Raises ValueError on bad
    labels or scores, and on traits that are not Boolean.
    """
    y, p = metrics.checked(y, p=p)
    _check(traits, y, threshold)
    flagged = p >= threshold
    rows = []
    for trait in _booleans(traits):
        has = trait.to_numpy()
        n_positive, n = int((has & y).sum()), int(has.sum())
        enough = min(n_positive, n - n_positive) >= max(1, min_rows)
        auc = metrics.auc_ci(y[has], p[has]) if enough else metrics.AUC(n, n_positive)
        missed = _failed(has[y], ~flagged[y], min_rows)
        alarms = _failed(has[~y], flagged[~y], min_rows)
        note = NOT_ENOUGH if None in (auc.value, missed[2], alarms[2]) else None
        rows.append((trait.name, n, n_positive, auc.value, auc.low, auc.high, *missed, *alarms, note))
    table = _table(rows, _TRAIT_COLUMNS)
    table = table.with_columns(_holm(table, name) for name in ("missed_p_holm", "alarm_p_holm"))
    strength = pl.max_horizontal("missed_low", "alarm_low")
    return table.sort(strength, descending=True, nulls_last=True, maintain_order=True)


def shapes(
    frame: pl.DataFrame, text: Sequence[str], y: ArrayLike, p: ArrayLike, threshold: float, top: int = 10
) -> pl.DataFrame:
    """The commonest shapes of each field among the missed frauds, then among the false alarms.

    Columns: failure, field, shape, n (failures with the shape), share (of all such failures), n_class (rows
    of the class with it, failed or not), class_share (of all rows of the class). At most `top` a field and
    failure, and only those that at least 5 rows of the data have. Raises ValueError as `traits` and
    `mis_ranked`.
    """
    y, p = metrics.checked(y, p=p)
    fields = _texts(frame, text)
    _check(fields, y, threshold)
    flagged = p >= threshold
    groups = {"missed fraud": (y, y & ~flagged), "false alarm": (~y, ~y & flagged)}
    rows = {failure: [] for failure in groups}
    for field in fields:
        shape = collapsed(field).fill_null(MISSING).replace("", EMPTY)
        for failure, (of_class, failed) in groups.items():
            common = _common(shape, of_class, failed).head(top).iter_rows()
            sizes = max(failed.sum(), 1), max(of_class.sum(), 1)
            rows[failure] += [
                (failure, field.name, name, n, n / sizes[0], n_class, n_class / sizes[1])
                for name, n, n_class in common
            ]
    columns = ("failure", "field", "shape", "n", "share", "n_class", "class_share")
    return _table([row for listed in rows.values() for row in listed], columns)


def collapsed(values: pl.Series) -> pl.Series:
    """The shape of each text: its first 64 characters in the stand-ins of `schema.mask`, each run made one.

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


def _common(shape: pl.Series, of_class: np.ndarray, failed: np.ndarray) -> pl.DataFrame:
    """Columns shape, n, n_class of the shapes that failures have and enough rows share, commonest first."""
    rows = pl.DataFrame({"shape": shape, "n": failed, "n_class": of_class})
    counts = rows.group_by("shape").agg(pl.col("n", "n_class").sum(), n_data=pl.len())
    listed = counts.filter(pl.col("n_data") >= MIN_SHARED, pl.col("n") > 0).drop("n_data")
    return listed.sort(["n", "shape"], descending=[True, False])


def _texts(frame: pl.DataFrame, text: Sequence[str]) -> pl.DataFrame:
    """The text fields as strings."""
    problems = [f"{name!r} is missing" for name in text if name not in frame.columns]
    for name in text:
        if name in frame.columns and frame[name].dtype not in (pl.String, pl.Categorical, pl.Enum, pl.Null):
            problems.append(f"{name!r} is {frame[name].dtype.base_type()}, expected text")
    if not text:
        problems.append("expected at least one")
    if problems:
        raise ValueError(f"text fields: {'; '.join(problems)}")
    return frame.select(pl.col(text).cast(pl.String))


def _check(table: pl.DataFrame, y: np.ndarray, threshold: float) -> None:
    if table.height != y.size:
        raise ValueError(f"the table has {table.height} rows, labels have {y.size}")
    if not np.isfinite(threshold):
        raise ValueError(f"threshold {threshold}: expected a number")


def _booleans(traits: pl.DataFrame) -> pl.DataFrame:
    if wrong := [t.name for t in traits if t.dtype != pl.Boolean or t.null_count()]:
        raise ValueError(f"traits are Boolean without nulls, these are not: {', '.join(wrong)}")
    return traits


def _failed(has: np.ndarray, failed: np.ndarray, min_rows: int) -> tuple:
    """Of the rows of one class: failures with the trait, their share of all, ratio, low, high, p-value."""
    from scipy.stats import fisher_exact  # scipy.stats takes 0.5 s to import

    with_trait, without = (((side & failed).sum().item(), side.sum().item()) for side in (has, ~has))
    n_failed = with_trait[0] + without[0]
    share = with_trait[0] / n_failed if n_failed else None
    if min(with_trait[1], without[1]) < max(1, min_rows) or n_failed in (0, failed.size):
        return with_trait[0], share, None, None, None, None
    p_value = fisher_exact([[k, n - k] for k, n in (with_trait, without)]).pvalue
    return with_trait[0], share, *_ratio(*with_trait, *without), float(p_value)


def _ratio(k: int, n: int, k_other: int, n_other: int) -> tuple[float, float, float | None]:
    """The ratio of the rates k / n and k_other / n_other, and the ends of its 95 % score interval."""
    from scipy.optimize import brentq

    def z(log_ratio: float) -> float:
        """How many standard errors the rates are above this ratio of theirs, were it the true one."""
        ratio = np.exp(log_ratio)
        a, b = (n + n_other) * ratio, n * ratio + k + n_other + k_other * ratio
        rate = 2 * (k + k_other) / (b + np.sqrt(b * b - 4 * a * (k + k_other)))  # likeliest of the others
        variance = ratio * rate * (1 - ratio * rate) / n + ratio**2 * rate * (1 - rate) / n_other
        return (k / n - ratio * k_other / n_other) / np.sqrt(variance)

    quantile = ndtri(0.975)
    low = float(np.exp(brentq(lambda at: z(at) - quantile, -40, 40))) if k else 0.0
    high = float(np.exp(brentq(lambda at: z(at) + quantile, -40, 40))) if k_other else None
    if k_other:
        return k / n * n_other / k_other, low, high
    return (k + 0.5) / (n + 0.5) * (n_other + 0.5) / 0.5, low, high


def _holm(table: pl.DataFrame, name: str) -> pl.Series:
    """Holm's correction of a column of p-values; null is no member of the family."""
    known = table[name].is_not_null()
    corrected = metrics.holm(table[name].drop_nulls())
    return table[name].scatter(known.arg_true(), corrected)


def _table(rows: list[tuple], columns: Sequence[str]) -> pl.DataFrame:
    kinds = dict.fromkeys(_COUNTS, pl.Int64) | dict.fromkeys(_WORDS, pl.String)
    return pl.DataFrame(rows, schema={name: kinds.get(name, pl.Float64) for name in columns}, orient="row")


def _of_any_field(field: str) -> Iterator[tuple[str, pl.Expr]]:
    text, length = pl.col(field), pl.col(field).str.len_chars()
    scripts = pl.sum_horizontal(text.str.contains(script).cast(pl.UInt8) for script in SCRIPTS)
    yield f"{field}: missing", text.is_null()
    yield f"{field}: empty", text.str.strip_chars() == ""
    yield f"{field}: letters outside the Latin script", text.str.contains(r"[\p{L}--\p{Latin}]")
    yield f"{field}: letters of several scripts", scripts > 1
    yield f"{field}: all capitals", text.str.contains(r"(?s)^\P{Ll}*\p{Lu}\P{Ll}*\p{Lu}\P{Ll}*$")
    yield f"{field}: among the longest 2 %", length > length.quantile(0.98, "lower")
    yield f"{field}: among the shortest 2 %", length < length.quantile(0.02, "higher")


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
