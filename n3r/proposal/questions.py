"""What the files do not tell, and who answers it."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple


class Question(NamedTuple):
    """What the files do not tell."""

    key: str  # of the map
    says: str
    answers: dict[str, Any]  # in words -> the value; the first is the best guess


Ask = Callable[[Question], str]  # the answer in words


def best_guess(question: Question) -> str:
    """The first answer, for whoever is not asked."""
    return next(iter(question.answers))


class Answers:
    """The answers of a proposal: what its owner has given, else what is asked, else the best guess."""

    def __init__(self, given: Mapping[str, Any], ask: Ask):
        self.given, self.ask = dict(given), ask
        self.guesses: list[str] = []  # a sentence for each question that nobody answered

    def of(self, question: Question) -> Any:
        """The value of a question's key."""
        if question.key in self.given:
            return self.given[question.key]
        words = self.ask(question)
        if self.ask is best_guess:
            others = " or ".join(answer for answer in question.answers if answer != words)
            self.guesses.append(f"{question.says} Taken: {words}. Else: {others} (-p {question.key}=..).")
        return question.answers[words]
