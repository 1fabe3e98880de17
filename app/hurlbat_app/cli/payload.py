"""Read JSON from the command line (as it stands, from `@file`, or from standard input with `-`), and pairs."""

import json
import re
import shlex
import sys
from pathlib import Path

from hurlbat.jsontext import JsonTextError, parse
from hurlbat_app.cli.failure import Exit, Failure

_WORD = re.compile(r"[^\s\[{\"][^\[{\"]{0,59}")
"""What was hardly meant as an object, a list or a text in quotes."""


def read_json(text: str, option: str) -> str:
    """Return the JSON that an option's value means, as the text that it was written as. Raises `Failure`."""
    source = option
    try:
        if text == "-":
            source = "standard input"
            text = sys.stdin.read()
        elif text.startswith("@"):
            source = text[1:]
            text = Path(source).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise Failure(f"{source} cannot be read: {reason}.", Exit.BAD_INPUT) from error
    try:
        parse(text)
    except JsonTextError as error:
        said = f"{source} is not JSON: {error.message}, at character {error.position}"
        raise Failure(f"{said}{_meant(text) if source == option else ''}.", Exit.BAD_INPUT) from error
    return text


def _meant(text: str) -> str:
    """Say how a word is given, which a shell leaves without its quotes."""
    return f"; a text is given as {shlex.quote(json.dumps(text))}" if _WORD.fullmatch(text) else ""


def read_pairs(listed: list[str] | None, option: str) -> dict[str, str] | None:
    """Return what an option says as `name=value`, once or several times; None where it is not there.

    Raises `Failure`.
    """
    if not listed:
        return None
    pairs = {}
    for text in listed:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise Failure(f"{option} takes name=value, and {text!r} is none.", Exit.BAD_INPUT)
        pairs[name] = value
    return pairs
