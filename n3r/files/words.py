"""Lists of words in files of text, a list under each name."""

import re
from pathlib import Path


def read_words(path: Path) -> dict[str, frozenset[str]]:
    """The words of each name: "name: word word ..", a line of which may go on, indented, in the next."""
    lists = re.findall(r"^(\w+): ((?:.+\n?)(?: +.+\n?)*)", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {name: frozenset(words.split()) for name, words in lists}
