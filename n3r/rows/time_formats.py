"""The formats of times that files of shops, databases and logs have, and which of them a text may be in.

Decisions:
- A format is a day, what stands between, and a clock. A text is compared with the day's signs first, so that
  of thousands of formats a few are tried.
"""

import re
from collections.abc import Iterable
from functools import cache
from itertools import product

_DAYS = ("%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%m.%d.%Y", "%d-%m-%Y", "%m-%d-%Y", "%d %m %Y", "%m %d %Y")
_DAYS += ("%Y/%m/%d", "%Y.%m.%d", "%Y-%m-%d", "%Y%m%d", "%Y/%d/%m")
_DAYS += ("%d/%m/%y", "%m/%d/%y", "%d.%m.%y", "%m.%d.%y", "%d-%m-%y", "%m-%d-%y", "%y-%m-%d", "%y/%m/%d")
_DAYS += ("%d %b %Y", "%b %d, %Y", "%b %d %Y", "%d-%b-%Y", "%d/%b/%Y", "%d-%b-%y", "%d %b %y", "%d. %b %Y")
_DAYS += ("%d %B %Y", "%B %d, %Y", "%B %d %Y", "%d. %B %Y", "%a, %d %b %Y", "%a %d %b %Y", "%A, %B %d, %Y")
_CLOCKS = ("%H:%M", "%H:%M:%S", "%H:%M:%S%.f", "%I:%M %p", "%I:%M:%S %p", "%I:%M%p", "%H.%M", "%H.%M.%S")
_CLOCKS += ("%H:%M:%S %z", "%H:%M %z", "%H:%M:%S%z", "%H:%M:%S%.f %z", "%H:%M:%S UTC", "%H:%M:%S GMT")
_CLOCKS += ("%Hh%M", "%H:%M Uhr", "%H%M%S")
_BETWEEN = (" ", ", ", "T", " - ", ":", "  ", " at ", "")
_WHOLE = ("%a %b %d %H:%M:%S UTC %Y", "%a %b %d %H:%M:%S %Y", "%a %b %d %H:%M:%S GMT %Y", "%H:%M:%S %d/%m/%Y")
_WHOLE += ("%a %b %d %H:%M:%S %z %Y", "%H:%M %d.%m.%Y", "%H:%M %d/%m/%Y", "%H:%M %m/%d/%Y")
_WHOLE += ("%Y-%m-%dT%H:%M:%S%.fZ",)
_CODES = {
    "%Y": r"\d{4}", "%m": r"\d{1,2}", "%d": r"\d{1,2}", "%y": r"\d\d(?!\d)", "%b": "[A-Za-z]{3}",
    "%B": "[A-Za-z]+",
    "%a": "[A-Za-z]{3}", "%A": "[A-Za-z]+", "%H": r"\d{1,2}", "%I": r"\d{1,2}", "%M": r"\d\d", "%S": r"\d\d",
    "%.f": r"(?:\.\d+)?", "%p": "[AaPp][Mm]", "%z": r"[+-]\d\d:?\d\d",
}  # fmt: skip


def candidates(texts: Iterable[str]) -> Iterable[str]:
    """The formats whose signs stand as in one of some texts."""
    texts = list(texts)
    found = [form for form in _WHOLE if any(_pattern(form).fullmatch(text) for text in texts)]
    for day, text in product(_DAYS, texts):
        if match := _pattern(day).match(text):
            clocks = [""] if match.end() == len(text) else map("".join, product(_BETWEEN, _CLOCKS))
            found += [day + clock for clock in clocks if _pattern(clock).fullmatch(text, match.end())]
    return dict.fromkeys(found)


@cache
def _pattern(time_format: str) -> re.Pattern[str]:
    """A regular expression of what a format's signs may stand for."""
    codes = re.split(r"(%\.f|%[a-zA-Z])", time_format)
    return re.compile("".join(_CODES.get(code) or re.escape(code) for code in codes))
