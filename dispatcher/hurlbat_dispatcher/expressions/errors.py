"""What is wrong with an expression."""

from typing import Final

NO_CEL: Final = (
    "only paths such as input.user_id and constants can be read here, as the package cel-expr-python is not installed;"
    " install it, or write a path"
)


class ExpressionError(ValueError):
    """A sentence that says what to do; `position` is the character (from 1) where it shows, if that is known.

    `code` tells a program which rule was broken: `expression_invalid` before, `expression_failed` while it is
    evaluated, `key_wrong_type`, `key_too_long` and `number_wrong_type` by what comes of it.
    """

    def __init__(self, sentence: str, position: int | None = None, *, code: str = "expression_failed") -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.position = position
        self.code = code


def invalid(sentence: str, position: int | None = None) -> ExpressionError:
    """Return the error of an expression that is wrong whatever the input is."""
    return ExpressionError(sentence, position, code="expression_invalid")
