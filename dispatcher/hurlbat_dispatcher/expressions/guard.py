"""Look at an expression before CEL does, and refuse what could take long, or what CEL would say badly.

CEL itself stops at 32 levels of nesting. What is left that can take long are loops over lists (`map`, `filter`, `all`,
`exists`), which are refused, and regular expressions: RE2 needs time in proportion to the text times the size of the
pattern, so patterns are constants, and their counted repetitions are few.
"""

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from hurlbat_dispatcher.expressions.errors import invalid

MAX_PATTERN: Final = 500
"""Of all regular expressions of one: characters, each repetition counted as often as it repeats."""
CLASS_SIZE: Final = 20
"""What a class of Unicode (`\\pL`) counts of it."""
MAX_JOINS: Final = 16
"""Of one expression: each `+` copies what is on its left, which may be a long list."""
LOOPS: Final = frozenset({"all", "exists", "exists_one", "existsOne", "filter", "map"})
FUNCTIONS: Final = frozenset(
    {"bool", "bytes", "contains", "double", "duration", "dyn", "endsWith", "getDate", "getDayOfMonth", "getDayOfWeek"}
    | {"getDayOfYear", "getFullYear", "getHours", "getMilliseconds", "getMinutes", "getMonth", "getSeconds", "has"}
    | {"int", "matches", "size", "startsWith", "string", "timestamp", "type", "uint"}
)
WORDS: Final = frozenset({"true", "false", "null", "in"})
"""Words of CEL that cannot be names of members after a dot."""
TYPES: Final = frozenset({"bool", "bytes", "double", "int", "list", "map", "null_type", "string", "type", "uint"})

_TOKEN: Final = re.compile(
    r"""
      (?P<space>[ \t\r\n\f]+|//[^\n]*)
    | (?P<text>[rR]?(?:"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'))
    | (?P<number>0[xX][0-9a-fA-F]+[uU]?|(?:\d+\.\d+|\.\d+|\d+)(?:[eE][+-]?\d+)?[uU]?)
    | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
    | (?P<quoted>`[A-Za-z0-9_.\-/ ]+`)
    | (?P<mark>&&|\|\||[<>=!]=|[-+*/%<>!?:.,()\[\]{}])
    """,
    re.VERBOSE,
)
_ESCAPE: Final = re.compile(r"\\[xXuU0-7]")
"""In a text that is not raw: an escape that could hide a repetition."""
_CLASS: Final = re.compile(r"\\[pP]")
_COUNT: Final = re.compile(r"(\)?)\{(\d*)(?:,(\d*))?\}")


class Token(NamedTuple):
    """A word of an expression; `at` is its place, from 1."""

    kind: str
    text: str
    at: int


END: Final = Token("end", "", 0)

Path = tuple[str, ...]
"""A variable, and names of members of it."""


def look_over(source: str, variables: tuple[str, ...]) -> frozenset[Path]:
    """Return which parts of the variables an expression may read. Raises `ExpressionError` for what is refused."""
    tokens = list(_tokens(source))
    read: set[Path] = set()
    pattern = 0
    for place, token in enumerate(tokens):
        before = tokens[place - 1] if place else END
        after = tokens[place + 1] if place + 1 < len(tokens) else END
        member = before.text == "."
        if token.text == "." and not _ends_operand(before):
            raise invalid("a dot follows what has the member: write input.user_id", token.at)
        if token.kind == "text" and before.kind == "text":
            raise invalid("two texts without an operator between them; join them by +", token.at)
        if token.kind != "name":
            continue
        if after.text == "(" and token.text not in WORDS:
            pattern += _check_call(token, tokens, place)
        elif member:
            if token.text in WORDS:
                raise invalid(
                    f'{token.text} is a word of CEL: write ["{token.text}"] instead of .{token.text}', token.at
                )
        elif token.text in variables:
            read.add(_path(tokens, place))
        elif token.text not in WORDS and token.text not in TYPES:
            known = f"{', '.join(variables[:-1])} and {variables[-1]}"
            raise invalid(f"there is no variable {token.text} (there are {known}); put texts in quotes", token.at)
    joins = sum(token.text == "+" for token in tokens)
    if joins > MAX_JOINS:
        raise invalid(f"it has {joins} times +, and {MAX_JOINS} are allowed")
    if pattern > MAX_PATTERN:
        raise invalid(
            f"its regular expressions are too large ({pattern} of at most {MAX_PATTERN} characters, repetitions counted"
            " as often as they repeat)"
        )
    return frozenset(read)


def _tokens(source: str) -> Iterator[Token]:
    at = 0
    while at < len(source):
        match = _TOKEN.match(source, at)
        if match is None:
            found = source[at]
            if found in "\"'":
                raise invalid("a text that begins here does not end", at + 1)
            if found == "=":
                raise invalid("equality is written ==", at + 1)
            raise invalid(f"the character {found!r} means nothing here", at + 1)
        kind = match.lastgroup or ""
        if kind != "space":
            yield Token(kind, match.group(), at + 1)
        at = match.end()


def _ends_operand(token: Token) -> bool:
    return token.kind in ("name", "text", "quoted", "number") or token.text in (")", "]", "}")


def _check_call(token: Token, tokens: list[Token], place: int) -> int:
    """Refuse functions that are not known or not wanted. Returns the size of a regular expression."""
    if token.text in LOOPS:
        raise invalid(
            f"{token.text}() goes over a list, which is refused here; `x in list` and size(list) work", token.at
        )
    if token.text not in FUNCTIONS:
        raise invalid(f"there is no function {token.text}() (there are {', '.join(sorted(FUNCTIONS))})", token.at)
    if token.text != "matches":
        return 0
    before, given = tokens[place - 1] if place else END, tokens[place + 2 : place + 4]
    if before.text != "." or [one.kind for one in given] != ["text", "mark"] or given[1].text != ")":
        raise invalid('matches() takes one regular expression in quotes: input.name.matches("^a+$")', token.at)
    pattern = given[0].text
    if pattern[0] not in "rR" and _ESCAPE.search(pattern.replace("\\\\", "")):
        raise invalid("write a regular expression with escapes as a raw text: r'\\d+'", given[0].at)
    return _size_of_pattern(pattern)


def _size_of_pattern(text: str) -> int:
    classes = len(_CLASS.findall(text))
    size, groups = len(text) + classes * CLASS_SIZE, 1
    for group, low, high in _COUNT.findall(text):
        times = max(int(low[:6] or 0), int(high[:6] or 0), 1)
        if group:
            groups *= times
        else:
            size += times * (CLASS_SIZE if classes else 1)
    return size * groups


def _path(tokens: list[Token], place: int) -> Path:
    """Return the longest path of constant members from the variable at `place`."""
    path = [tokens[place].text]
    place += 1
    while True:
        ahead = tokens[place : place + 3] + [END] * 3
        if ahead[0].text == "." and ahead[1].kind in ("name", "quoted") and ahead[2].text != "(":
            path.append(ahead[1].text.strip("`"))
            place += 2
        elif ahead[0].text == "[" and ahead[1].kind == "text" and ahead[2].text == "]" and _is_simple(ahead[1].text):
            path.append(ahead[1].text[1:-1])
            place += 3
        else:
            return tuple(path)


def _is_simple(text: str) -> bool:
    return text[0] in "\"'" and "\\" not in text
