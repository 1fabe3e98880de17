"""Say what the server logs as `hurlbat dev` says everything else, so that a screen has one kind of lines."""

import logging
from collections.abc import Collection
from typing import Any, Final

from hurlbat_app.dev.screen import Screen

_HEAD: Final = frozenset({"event", "level", "logger", "timestamp", "exc_info"})
_PASSING: Final = frozenset({"ready", "unreachable"})
"""States of a worker that come and go with it, while its runs wait."""


class Voice(logging.Handler):
    """Takes the place of the log. `watched` workers are told of by whoever watches them."""

    def __init__(self, screen: Screen, watched: Collection[str]) -> None:
        super().__init__()
        self._screen = screen
        self._watched = watched

    def emit(self, record: logging.LogRecord) -> None:
        """Say one record."""
        said: dict[str, Any] = record.msg if isinstance(record.msg, dict) else {"event": record.getMessage()}
        match said:
            case {"worker": str(name), "state": str(state), "problem": problem}:
                if name not in self._watched:
                    say = self._screen.remark if state in _PASSING else self._screen.warn
                    say(f"worker {name} is {state}" + (f": {problem}" if problem else ""))
            case _:
                more = ", ".join(f"{name} {value}" for name, value in said.items() if name not in _HEAD)
                say = self._screen.warn if record.levelno >= logging.WARNING else self._screen.remark
                say(f"{said['event']}" + (f": {more}" if more else ""))
        raised = said.get("exc_info") or record.exc_info
        if isinstance(raised, BaseException):
            raised = type(raised), raised, raised.__traceback__
        if isinstance(raised, tuple) and raised[0] is not None:
            self._screen.say(logging.Formatter().formatException(raised))
