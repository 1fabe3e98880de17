"""What is shown of an error: its stack, from where the user's own code begins."""

import contextlib
import os
import traceback
from types import TracebackType
from typing import Final

from hurlbat.payloads import printable
from hurlbat.wire import MAX_STACK_CHARS

_OURS: Final = (os.path.dirname(__file__), contextlib.__file__)
"""Where no code of the user's is: this package, and what it enters generators with."""


def stack_of(error: BaseException) -> str:
    """Return the end of an error's traceback, without what of us lies before it; nothing where it cannot be shown."""
    frame: TracebackType | None = error.__traceback__
    while frame is not None and frame.tb_frame.f_code.co_filename.startswith(_OURS):
        frame = frame.tb_next
    try:
        lines = traceback.format_exception(error.with_traceback(frame))
    except Exception:  # a user's own __str__
        return ""
    return printable("".join(lines))[-MAX_STACK_CHARS:]
