"""Numbers as people write them: thousands and decimal marks, currencies, percent signs, parentheses."""

from typing import Literal

NumberFormat = Literal["en", "de", "fr", "ch", "plain"]
