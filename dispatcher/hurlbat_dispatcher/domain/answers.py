"""What the head of a worker's answer means, as one table.

The first row that fits decides. What is charged follows from the type of the answer (`outcome`), what becomes of the
worker's window and state from the signal.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final
from urllib.parse import urljoin

from hurlbat_dispatcher.domain.outcome import ErrorCode, Failed, Held, PushedBack
from hurlbat_dispatcher.domain.retry_after import NOTHING_ASKED, RetryAfter
from hurlbat_dispatcher.domain.workers import Mode

MAX_WORDS: Final = 500
"""Characters of an error's body that are kept."""


class Signal(StrEnum):
    """What a delivery says of the worker."""

    OK = "ok"
    UNREACHABLE = "unreachable"
    """No byte was sent."""
    LOCAL = "local"
    """No byte was sent, by a fault on our side (the proxy): it says nothing of the worker, the runs wait."""
    PUSHED_BACK = "pushed_back"
    TROUBLE = "trouble"
    """Answers that an overloaded or broken worker gives: the window halves."""
    UNAUTHORIZED = "unauthorized"
    GONE = "gone"


class Meaning(StrEnum):
    """What kind of answer it is."""

    RESULTS = "results"
    """The body tells how the runs ended."""
    ACCEPTED = "accepted"
    """The worker will report."""
    NOT_A_WORKER = "not_a_worker"
    REDIRECT = "redirect"
    UNAUTHORIZED = "unauthorized"
    GONE = "gone"
    BUSY = "busy"
    """Backpressure: nothing was started."""
    OVERLOADED = "overloaded"
    """Somebody on the way gave up; it may have run."""
    FAILURE = "failure"


SIGNALS: Final[Mapping[Meaning, Signal]] = {
    Meaning.RESULTS: Signal.OK,
    Meaning.ACCEPTED: Signal.OK,
    Meaning.NOT_A_WORKER: Signal.TROUBLE,
    Meaning.REDIRECT: Signal.TROUBLE,
    Meaning.UNAUTHORIZED: Signal.UNAUTHORIZED,
    Meaning.GONE: Signal.GONE,
    Meaning.BUSY: Signal.PUSHED_BACK,
    Meaning.OVERLOADED: Signal.TROUBLE,
    Meaning.FAILURE: Signal.OK,
}


@dataclass(frozen=True, slots=True)
class Head:
    """What of an answer's head matters. `marked`: it carries `hurlbat-worker`; `will_report`: `hurlbat-async: 1`."""

    status: int
    marked: bool = False
    will_report: bool = False
    no_retry: bool = False
    retry_after: RetryAfter = NOTHING_ASKED
    location: str | None = None
    rate_limit_key: str | None = None


@dataclass(frozen=True, slots=True)
class Received:
    """What a worker tells of a request whose signature it refuses: the length and SHA-256 of the body as it came there.

    `skew` is the worker's clock minus the request's time (seconds), `signed` whether any signature came, `known` how
    many keys the worker has.
    """

    bytes: int
    sha256: str
    skew: float | None = None
    signed: bool = True
    known: int | None = None
    hint: str | None = None


@dataclass(frozen=True, slots=True)
class Words:
    """What the body of an error says: its text, and the members of an RFC 9457 problem that we know.

    A run's error keeps the text; a sentence about the worker prefers the `detail`, which is written for people.
    """

    text: str = ""
    detail: str | None = None
    code: str | None = None
    retryable: bool = True
    rate_limit_key: str | None = None
    received: Received | None = None
    """What the worker received, where it refuses the signature and tells."""
    beside: str = ""
    """What is said on this side, after the worker's own words."""

    @property
    def for_people(self) -> str:
        """The best sentence there is, cut to `MAX_WORDS`."""
        return (self.detail or self.text)[:MAX_WORDS]


@dataclass(frozen=True, slots=True)
class _Row:
    """A condition, where None takes either, and what it means."""

    statuses: Collection[int]
    meaning: Meaning
    mode: Mode | None = None
    marked: bool | None = None
    will_report: bool | None = None
    asked: bool | None = None
    no_retry: bool | None = None

    def fits(self, head: Head, mode: Mode) -> bool:
        return (
            head.status in self.statuses
            and self.mode in (None, mode)
            and self.marked in (None, head.marked)
            and self.will_report in (None, head.will_report)
            and self.asked in (None, head.retry_after.asked is not None)
            and self.no_retry in (None, head.no_retry)
        )


_SUCCESS: Final = range(200, 300)
_ERRORS: Final = range(400, 600)
_ROWS: Final = (
    _Row({202}, Meaning.ACCEPTED, Mode.PROTOCOL, marked=True),
    _Row({202}, Meaning.ACCEPTED, Mode.PLAIN, will_report=True),
    _Row(_SUCCESS, Meaning.NOT_A_WORKER, Mode.PROTOCOL, marked=False),
    _Row(_SUCCESS, Meaning.RESULTS),
    _Row(range(300, 400), Meaning.REDIRECT),
    _Row({401, 403}, Meaning.UNAUTHORIZED),
    _Row({410}, Meaning.GONE),
    _Row(_ERRORS, Meaning.FAILURE, no_retry=True),
    _Row({429, 503}, Meaning.BUSY, Mode.PROTOCOL, marked=True),
    _Row({429, 503}, Meaning.BUSY, Mode.PLAIN, asked=True),
    _Row({429, 502, 503, 504}, Meaning.OVERLOADED),
    _Row(_ERRORS, Meaning.FAILURE),
)


def meaning_of(head: Head, mode: Mode) -> Meaning:
    """Return what an answer with this head (status 200 to 599) means from a worker of this mode."""
    return next(row.meaning for row in _ROWS if row.fits(head, mode))


def answer_of(meaning: Meaning, head: Head, words: Words, url: str) -> Failed | PushedBack | Held:
    """Return the answer that every run of the delivery gets, for a meaning other than results and accepted."""
    status = f"the worker answered {head.status}"
    body = f"{status}: {words.text[:MAX_WORDS]}" if words.text else status
    said = (f"{status}: {words.for_people}" if words.for_people else status) + words.beside
    match meaning:
        case Meaning.NOT_A_WORKER:
            message = f"{status} without the hurlbat-worker header: something else answers at {url}"
            return Failed(ErrorCode.NOT_A_WORKER, message)
        case Meaning.REDIRECT:
            return Failed(ErrorCode.REDIRECT_REFUSED, f"{status}; {redirect_words(head, url)}")
        case Meaning.UNAUTHORIZED:
            misled = words.code == ErrorCode.WRONG_TARGET
            return Held(ErrorCode.WRONG_TARGET if misled else ErrorCode.WORKER_UNAUTHORIZED, said)
        case Meaning.GONE:
            return Held(ErrorCode.WORKER_GONE, said)
        case Meaning.BUSY:
            return PushedBack(said, head.retry_after.used, head.retry_after.asked, _rate_limit_key(head, words))
        case Meaning.OVERLOADED:
            return Failed(
                ErrorCode.HTTP_ERROR,
                body,
                retryable=words.retryable,
                retry_after=head.retry_after.used,
                rate_limit_key=_rate_limit_key(head, words),
            )
        case Meaning.FAILURE:
            return Failed(ErrorCode.HTTP_ERROR, body, retryable=words.retryable and not head.no_retry)
        case Meaning.RESULTS | Meaning.ACCEPTED:
            raise ValueError(f"{meaning} is not an answer for every run")


def signal_of(meaning: Meaning, answer: Failed | PushedBack | Held) -> Signal:
    """Return what such an answer says of the worker: nothing, where it names a rate limit that has to wait instead."""
    named = isinstance(answer, Failed | PushedBack) and answer.rate_limit_key is not None
    return Signal.OK if named else SIGNALS[meaning]


def _rate_limit_key(head: Head, words: Words) -> str | None:
    """Return the rate limit that has to wait; without a time to wait there is none."""
    return (head.rate_limit_key or words.rate_limit_key) if head.retry_after.used else None


def redirect_words(head: Head, url: str) -> str:
    """Say where a refused redirect leads, and what to register instead where that is plain."""
    if not head.location:
        return "redirects are not followed"
    target = urljoin(url, head.location)
    if target.rstrip("/") == url.rstrip("/") and target != url:
        return f"register {target[:500]} instead"
    return f"redirects are not followed (Location: {head.location[:500]})"
