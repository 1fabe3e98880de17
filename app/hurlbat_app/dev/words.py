"""What the app's process says to the one that started it: one JSON object a line, over a pipe."""

from dataclasses import asdict, dataclass, field
from typing import Literal

import orjson

CANDIDATES = ("/hurlbat/", "/hurlbat", "/", "/api/hurlbat/", "/api/hurlbat")
"""Where a worker is looked for that is not found in the app's routes."""


@dataclass(frozen=True, slots=True)
class Found:
    """The app was imported. What `Hurlbat` objects it has, and at which paths they are seen to be served."""

    interface: Literal["asgi", "wsgi"]
    paths: list[str]
    hurlbats: int
    secrets: list[str] = field(default_factory=list, repr=False)
    """The first signing secret of each `Hurlbat`."""
    names: list[str] = field(default_factory=list)
    """The names that they insist on."""
    servers: list[str] = field(default_factory=list)
    """Where their calls go."""
    grace: float = 0.0
    """For how many seconds their tasks may go on when the app stops."""


@dataclass(frozen=True, slots=True)
class Serving:
    """The app has started and takes requests."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The app cannot be served; why."""

    sentence: str
    mistaken: bool = False
    """Whether it is the name of the app that is wrong, and not the app."""


Word = Found | Serving | Refused
_WORDS: dict[str, type[Found] | type[Serving] | type[Refused]] = {
    "found": Found,
    "serving": Serving,
    "refused": Refused,
}


def written(word: Word) -> bytes:
    """Return a word as a line."""
    return orjson.dumps({"word": type(word).__name__.lower(), **asdict(word)}) + b"\n"


def read(line: bytes) -> Word:
    """Return the word of a line."""
    said = orjson.loads(line)
    return _WORDS[said.pop("word")](**said)
