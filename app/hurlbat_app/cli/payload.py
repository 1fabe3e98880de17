"""Read JSON from the command line: as it stands, from `@file`, or from standard input with `-`."""

import sys
from pathlib import Path

from hurlbat.jsontext import JsonTextError, parse
from hurlbat_app.cli.failure import Exit, Failure


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
        raise Failure(
            f"{source} is not JSON: {error.message}, at character {error.position}.", Exit.BAD_INPUT
        ) from error
    return text
