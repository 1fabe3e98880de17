"""What the engine hears of a delivery while it goes on, and what it is told when it is over."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hurlbat_dispatcher.domain.answers import Signal
from hurlbat_dispatcher.domain.outcome import Answer


@dataclass(frozen=True, slots=True)
class Started:
    """The worker began the attempt."""

    run_id: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Ended:
    """The attempt is over for this delivery, with this answer.

    `whole`: the answer is to all that is left of the delivery, and so may say something of the worker.
    """

    run_id: str
    attempt: int
    answer: Answer
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Detached:
    """The attempt goes on without a connection, on a lease of its own."""

    run_id: str
    attempt: int
    why: str


@dataclass(frozen=True, slots=True)
class Logged:
    """The task said something."""

    run_id: str
    attempt: int
    level: str
    message: str


@dataclass(frozen=True, slots=True)
class Progressed:
    """The task said how far it is."""

    run_id: str
    attempt: int
    value: float | None
    message: str | None


@dataclass(frozen=True, slots=True)
class Beat:
    """The worker is alive."""


Heard = Started | Ended | Detached | Logged | Progressed | Beat
Hear = Callable[[Sequence[Heard]], None]
"""Called synchronously with all that came in one piece."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """What a delivery says of the worker: its manifest's digest, what is wrong in a sentence, how long to wait."""

    signal: Signal
    manifest: str | None = None
    sentence: str | None = None
    retry_after: float | None = None
