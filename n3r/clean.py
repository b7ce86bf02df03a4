"""Text-cleaning steps under their published names, and their ordered composition.

Decisions:
- `compose` checks a list of step names before any text is seen and names everything wrong at once.
- A string is one message, never a sequence of characters (defect 20). Steps work on each message; messages
  are stripped, and empty ones are dropped.
- Splitters keep all text between their markers: text without markers is one message (the published splitter
  lost it, defect 25), and unbalanced or nested markers lose nothing.
- Markup and emoji are each found by one regular expression, in time linear in the text's length. The
  libraries made for it are quadratic on input that a customer can type (figures below); the table of emoji
  is the library's, and BeautifulSoup is the reference in the tests.
- `dialogue_chunker` and the tokenizer steps only say what the tokenizer does later, on token ids.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from html import unescape
from itertools import combinations, groupby
from typing import Literal, NamedTuple

from n3r.files.json_io import near

_DIALOGUE = re.compile(r"\[(?:bom|eom)\]", re.I)
_ROLE = re.compile(r"\[(bot|customer|agent)\](?::(?=\s))?", re.I)
# Each scan stops at the next "<" or at the next opener of its own kind, and `++` and `*+` never look back, so
# a text is read only a few times. A tag's name is followed by a blank, "/" or ">", and "@" stands in its
# quotes only: "<ana@x.example>", "a < b" and "<3" are text. An entity ends in ";" ("?a=1&copy=2" is a link)
# and has at most 7 digits: int() raises ValueError at 4,301.
_MARKUP = re.compile(
    r"""
    <!--(?:(?!<!--|-->).)*+-->                                    # a comment
    | <[!?][a-z\[][^<>]*+>                                        # a declaration or an instruction
    | <(script|style)\b[^<>]*+>(?:(?!<\1\b|</\1\s*>).)*+</\1\s*>  # with what is inside
    | </?[a-z][a-z0-9-]*+(?::[a-z][a-z0-9-]*+)?(?=[\s/>])(?:[^<>"'@]++|"[^"<]*+"|'[^'<]*+')*+>  # a tag
    | (?P<entity>&(?:[a-z][a-z0-9]{1,31}|\#\d{1,7}|\#x[\da-f]{1,6});)
    """,
    re.I | re.S | re.X | re.A,
)
# Signs and letters of ordinary names and sentences; the library counts them as emoji in any form.
_SIGNS = "©®™ℹ‼⁉Ⓜ〰〽㊗㊙"
_EMOJI_FORM = "\ufe0f"


def dialogue_splitter(text: str) -> list[str]:
    """The messages of a dialogue, cut at its [bom] and [eom] marks.

    NOTE[DIFF] the published splitter lost all text outside a [bom] and its [eom] (defect 25).
    """
    return _filled(_DIALOGUE.split(text))


def cs_chat_splitter(text: str) -> list[str]:
    """The turns of a customer-service chat as "[role]: content", cut at [bot], [customer] and [agent].

    Models trained on the published form read its brackets; a second split changes nothing.
    """
    first, *rest = _ROLE.split(text)
    turns = zip(rest[::2], (content.strip() for content in rest[1::2]), strict=True)
    return _filled([first, *(f"[{role.lower()}]: {content}" for role, content in turns if content)])


def html_normalizer(message: str) -> str:
    """The text of an HTML message: tags become blanks, entities characters, scripts and styles nothing.

    NOTE[DIFF] text in angle brackets that is no tag, such as an e-mail address, is kept, and so is all text
    behind a <script> that is never closed. Otherwise it gives what BeautifulSoup's get_text(" ") does, whose
    html.parser (Python 3.11) took 3.4 s for 20,000 characters of "<a ", in quadratic time, and raised on
    "<![" and on a number of 5,000 digits; behind this expression it still took 4.6 s for 1 MB of "<a>".
    """
    return _MARKUP.sub(lambda found: unescape(found["entity"] or " "), message).strip()


def emoji_remover(message: str) -> str:
    """The message without emoji, their joiners, skin tones and flags; every script's letters stay.

    A sign such as (c) or TM goes only with U+FE0F, which asks for its emoji form, a digit only as a keycap.
    NOTE[DIFF] the published ranges also took nearly all kanji, kana and Hangul (defect 25).
    """
    return message.strip() if message.isascii() else _emoji().sub("", message).strip()


def text_normalizer(message: str) -> str:
    """The message in lower case, each run of blanks made one."""
    return " ".join(message.lower().split())


def text_upper(message: str) -> str:
    """The message in upper case, each run of blanks made one."""
    return " ".join(message.upper().split())


class Step(NamedTuple):
    """One step: its place in the order, what it makes of a text, and the tokenizer it stands for."""

    kind: Literal["split", "clean", "chunk", "tokenizer"]
    run: Callable[[str], list[str]] | Callable[[str], str] | None = None  # None: done later, on token ids
    tokenizer: Literal["bpe", "bert"] | None = None


STEPS: dict[str, Step] = {
    "dialogue_splitter": Step("split", dialogue_splitter),
    "cs_chat_splitter": Step("split", cs_chat_splitter),
    "html_normalizer": Step("clean", html_normalizer),
    "emoji_remover": Step("clean", emoji_remover),
    "text_normalizer": Step("clean", text_normalizer),
    "text_upper": Step("clean", text_upper),
    "dialogue_chunker": Step("chunk"),
    "tokenizer": Step("tokenizer", tokenizer="bert"),
    "custom_bpe_tokenizer": Step("tokenizer", tokenizer="bpe"),
}
# Why two steps, or two kinds of step in this order, cannot stand together.
_APART = {
    ("dialogue_chunker", "custom_bpe_tokenizer"): "a BPE model reads one text, not chunks of it",
    ("text_normalizer", "text_upper"): "each undoes the other's case",
    ("dialogue_splitter", "cs_chat_splitter"): "what one has split has no marks of the other",
    ("tokenizer", "custom_bpe_tokenizer"): "a model reads the tokens of one tokenizer",
}
_LATER = {
    "chunk": "it measures the messages as the model reads them",
    "tokenizer": "it leaves token ids, no text",
}


class Cleaner(NamedTuple):
    """The steps of one text column, ready to run; made by `compose`."""

    steps: list[str]
    tokenizer: Literal["bpe", "bert"] | None  # None: there is no tokenizer step
    chunked: bool

    def __call__(self, text: str | None) -> list[str]:
        """The cleaned messages of one text, none of them empty; [] if nothing is left.

        Raises ValueError for anything but a text or None.
        """
        if not isinstance(text, str | None):
            raise ValueError(f"a text to clean must be a string or None, got {type(text).__name__}")
        messages = _filled([text or ""])
        for step in map(STEPS.__getitem__, self.steps):
            if step.kind == "split":
                messages = [part for message in messages for part in step.run(message)]
            elif step.kind == "clean":
                messages = _filled(map(step.run, messages))
        return messages


def compose(steps: Sequence[str]) -> Cleaner:
    """The cleaner that does these steps, in this order; without steps it only strips.

    Raises ValueError naming every unknown step (with the nearest known one and the list of all) and
    every pair that cannot stand in this order (with the one to come first, and why).
    """
    if isinstance(steps, str) or not isinstance(steps, Sequence):
        raise ValueError(
            f"text steps must be a list of step names, got {steps!r}; write ['tokenizer'] for one"
        )
    known = [name for name in steps if isinstance(name, str) and name in STEPS]
    unknown = [name for name in steps if name not in known]
    problems = [f"there is no step {name!r}{near(str(name).strip(), STEPS)}" for name in unknown]
    problems += [problem for pair in combinations(known, 2) if (problem := _conflict(*pair))]
    if problems:
        listing = f"; the steps are {', '.join(STEPS)}" if unknown else ""
        raise ValueError(f"text steps {list(steps)}: {'; '.join(dict.fromkeys(problems))}{listing}")
    return Cleaner(known, STEPS[known[-1]].tokenizer if known else None, "dialogue_chunker" in known)


def _conflict(first: str, then: str) -> str | None:
    if first == then:
        return f"{then} is listed twice, keep one"
    if reason := _APART.get((first, then)) or _APART.get((then, first)):
        return f"{first} and {then} cannot both be listed: {reason}"
    earlier, later = STEPS[first].kind, STEPS[then].kind
    if earlier in _LATER and later != "tokenizer":
        return f"{then} must come before {first}: {_LATER[earlier]}"
    return None


def _filled(messages: Iterable[str]) -> list[str]:
    return [stripped for message in messages if (stripped := message.strip())]


@cache
def _emoji() -> re.Pattern[str]:
    """One emoji after another, from the library's table of those that are one code point.

    The library's own `replace_emoji` takes 75 s for 100,000 characters of a woman and a joiner in turn.
    """
    from emoji import EMOJI_DATA

    codes = sorted(ord(char) for char in EMOJI_DATA if len(char) == 1 and char not in _SIGNS)
    # Spans, as `re` tries one entry after another: 1 MB of kanji took 1.4 s without them.
    spans = [
        [code for _, code in run] for _, run in groupby(enumerate(codes), lambda pair: pair[1] - pair[0])
    ]
    single = "".join(f"{chr(span[0])}-{chr(span[-1])}" for span in spans)
    behind = "\u200d\ufe0e\ufe0f\u20e3\U000e0020-\U000e007f"  # joiner, forms, keycap, the letters of a flag
    start = rf"[{single}\U0001f1e6-\U0001f1ff]|[{_SIGNS}]{_EMOJI_FORM}|[0-9#*]{_EMOJI_FORM}?\u20e3"
    return re.compile(f"(?:(?:{start})[{behind}]*+)++")
