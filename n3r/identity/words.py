"""What the figures of identity strings are called, and what each value of one says in plain words."""

from typing import NamedTuple

USER_NAME, EQUAL, NEAR, DOMAIN, RISK, RATIO = (
    "user name",
    "equal values",
    "near-equal values",
    "domain count",
    "domain risk",
    "ratio",
)
ADDRESS = ("free", "disposable")
# Figure -> what a value of 0 says and what any other says, or what each says; {0} and {1} are the columns.
SAID = {
    "missing": ("{0} is there", "{0} is missing"),
    "length": ("{0} is empty", "{0} has {value:.0f} characters"),
    "words": ("{0} has no word", "{0} has {value:.0f} words"),
    "numbers": ("{0} has no number", "{0} has {value:.0f} numbers"),
    "consonants in a row": ("{0} has no consonant", "{0} has {value:.0f} consonants in a row"),
    "letter-digit switches": (
        "no digit of {0} stands beside a letter",
        "letters and digits take turns {value:.0f} times in {0}",
    ),
    "capitals": ("{0} has no capitals", "{value:.0%} of {0} are capitals"),
    "digits": ("{0} has no digits", "{value:.0%} of {0} are digits"),
    "symbols": ("{0} has no signs", "{value:.0%} of {0} are signs"),
    "non-ASCII": ("all of {0} is ASCII", "{value:.0%} of {0} are not ASCII"),
    "distinct characters": ("{value:.0%} of the characters of {0} differ",),
    "vowels": ("{0} has no vowels", "{value:.0%} of {0} are vowels"),
    "digits at the end": ("{0} ends in no digit", "digits at the end of {0}: {value:.0f}"),
    "zero before the last number": (
        "no number with a zero in front ends {0}",
        "a number with a zero in front ends {0}",
    ),
    USER_NAME: ("{1} does not occur in {0}", "{1} occurs in {0}"),
    "trigrams": ("{0} and {1} share no three characters", "{0} and {1} are {value:.0%} alike"),
    "containment": (
        "{0} and {1} share no three characters",
        "one of {0} and {1} has {value:.0%} of the other",
    ),
    "prefix": ("{0} and {1} begin differently", "{0} and {1} begin alike for {value:.0%} of the shorter"),
    "Jaro-Winkler": ("{0} and {1} are {value:.0%} alike (Jaro-Winkler)",),
    "inside": ("neither of {0} and {1} holds the other", "one of {0} and {1} holds the other"),
    "disposable": ("{0} is not of a provider of disposable addresses", "{0} is a disposable address"),
    "free": ("{0} is not of a large free provider", "{0} is of a large free provider"),
    EQUAL: ("{0} is new", "{value:.0f} training rows have the same {0}"),
    NEAR: ("nothing like {0} is known", "{value:.0f} training rows have nearly the same {0}"),
    DOMAIN: ("the domain of {0} is new", "{value:.0f} training rows have the domain of {0}"),
    RISK: ("the risk of the domain of {0} is {value:.1%}",),
    RATIO: ("{0} is {times:.3g} times {1} (each plus 1)",),
}


class Feature(NamedTuple):
    """One output column: a figure of a column, or of two."""

    figure: str
    columns: tuple[str, ...]

    @property
    def name(self) -> str:
        """What the column is called."""
        if self.figure == RATIO:
            return " / ".join(self.columns)
        return f"{' ~ '.join(self.columns)} {self.figure}"
