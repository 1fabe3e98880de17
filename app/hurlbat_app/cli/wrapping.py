"""Break long sentences into lines as wide as the terminal; what is not a terminal counts as 80 columns wide."""

import shutil
import textwrap
from typing import Final

NARROWEST: Final = 40
"""Columns; on less nobody reads sentences, and words would stand alone."""


def wrapped(text: str, indent: int = 0) -> str:
    """Return a text in lines, with so many spaces before all but the first of each paragraph. No word is broken."""
    width = max(NARROWEST, shutil.get_terminal_size().columns)
    return "\n".join(_lines(line, width, " " * indent) for line in text.split("\n"))


def _lines(line: str, width: int, indent: str) -> str:
    return textwrap.fill(
        line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False, tabsize=4
    )
