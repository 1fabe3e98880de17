"""Calls, which say what is asked of the server without doing it, and how a request is repeated until it is answered.

A call is a generator. It yields what it needs (a `Request` to send, a `Pause` to wait, other calls to make `Together`),
is sent what came of it, and returns its outcome; so one implementation stands behind sync and async code. The clients
drive calls over httpx. How long to wait between tries is tenacity's arithmetic, asked for a number.
"""

import json
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from math import inf
from typing import Any, Generic, TypeVar
from urllib.parse import quote, urlencode

from hurlbat import outside
from hurlbat.errors import ApiError, ConfigError, ConnectionFailed, WouldDeadlock
from hurlbat.jsontext import JsonTextError, Member, items, members

REQUEST_SECONDS = 30.0
BULK_ITEMS = 1_000
BULK_CHARS = 786_432
MAX_TRIES = 5
AWAY = (502, 503, 504)
"""What proxies answer for a server that is not there, and the server while it starts or stops."""
TOO_MANY = 429
"""What is answered to who asks too often; nothing was done."""
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 30.0


@dataclass(frozen=True, slots=True)
class Request:
    """A request to send. `repeatable` says that sending it twice does no harm, `within` for how many seconds.

    `timeout` is in seconds.
    """

    method: str
    path: str
    body: str | None = None
    repeatable: bool = True
    within: float = inf
    timeout: float = REQUEST_SECONDS


@dataclass(frozen=True, slots=True)
class Reply:
    """What the server answered."""

    status: int
    headers: Mapping[str, str]
    text: str


@dataclass(frozen=True, slots=True)
class Pause:
    """So many seconds to wait."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Together:
    """Calls that may be made at once; what is sent back is each one's outcome or `HurlbatError`, in order."""

    calls: "Sequence[Call[Any]]"


T = TypeVar("T")
Call = Generator[Request | Pause | Together, Any, T]


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A page of a list, and where the next one begins, or None at the end.

    There may be more as long as `next_cursor` is not None: where few of very many are meant, a page is short, or empty.
    """

    items: tuple[T, ...]
    next_cursor: str | None


def send(request: Request, most: int = MAX_TRIES) -> Call[Reply]:
    """Send a request until it is answered, as long as repeating it is safe. Raises `ApiError`, `ConnectionFailed`."""
    tries = 0
    end = outside.monotonic() + request.within
    while True:
        tries += 1
        try:
            reply: Reply = yield request
        except ConnectionFailed as error:
            pause = backoff(tries, FIRST_PAUSE, LONGEST_PAUSE)
            if tries >= most or (error.sent and not request.repeatable) or outside.monotonic() + pause > end:
                raise
        else:
            if reply.status < 300:
                return reply
            refusal = _refusal(reply)
            asked = _retry_after(reply)
            pause = backoff(tries, FIRST_PAUSE, LONGEST_PAUSE) if asked is None else asked
            if tries >= most or not _may_repeat(request, refusal) or outside.monotonic() + pause > end:
                raise refusal
        yield Pause(pause)


def backoff(tries: int, first: float, most: float, factor: float = 2.0) -> float:
    """Return the seconds to wait after so many tries (from 1): between half of `first × factor^(tries-1)` and all."""
    from tenacity import RetryCallState, Retrying, wait_exponential  # only who has to wait pays for the import

    state = RetryCallState(Retrying(), None, (), {})
    state.attempt_number = tries
    seconds = wait_exponential(multiplier=first, max=most, exp_base=factor)(state)
    return outside.uniform(seconds / 2, seconds)


def ask(
    method: str, *path: str, body: Mapping[str, Any] | None = None, asked: Mapping[str, Any] | None = None
) -> Call[dict[str, Any]]:
    """Ask about what has no type here, e.g. `ask("GET", "workers", name)`; the answer is what the API shows."""
    text = json.dumps(body) if body is not None else None
    reply = yield from send(Request(method, path_of(*path) + query(asked or {}), text))
    found: dict[str, Any] = json.loads(reply.text) if reply.text else {}
    return found


def list_page(path: str, asked: Mapping[str, Any], read: Callable[[Mapping[str, Member]], T]) -> Call[Page[T]]:
    """Return a page of a list; what is asked for as None is left out."""
    reply = yield from send(Request("GET", path + query(asked)))
    found = object_in(reply, "a list")
    return Page(tuple(read(members(text)) for text in items(found["items"].text)), found["next_cursor"].value)


def in_bulk(path: str, name: str, bodies: Sequence[str], within: float = inf) -> Call[list[str]]:
    """Post raw items in as few requests as their number and size allow; return each one's raw result, in order."""
    results: list[str] = []
    for chunk in _chunks(bodies):
        reply = yield from send(Request("POST", path, f'{{"{name}":[{",".join(chunk)}]}}', within=within))
        results += items(object_in(reply, "a list of results")["results"].text)
    return results


def path_of(*parts: str) -> str:
    """Return the path of these parts, whatever they contain."""
    return "".join("/" + quote(part, safe="") for part in parts)


def query(asked: Mapping[str, Any]) -> str:
    """Return a query string without what is None."""
    said = {name: _said(value) for name, value in asked.items() if value is not None}
    return f"?{urlencode(said)}" if said else ""


def object_in(reply: Reply, what: str) -> dict[str, Member]:
    """Return the members of the object in an answer. Raises `ApiError` where it is something else."""
    try:
        return members(reply.text)
    except JsonTextError as error:
        raise not_hurlbat(reply.status, f"the answer is not {what} ({error})") from error


def values_of(found: Mapping[str, Member]) -> dict[str, Any]:
    """Return what the members of a JSON object are."""
    return {name: member.value for name, member in found.items()}


def api_error(problem: Mapping[str, Any], status: int) -> ApiError:
    """Return the error that a problem of RFC 9457 tells of."""
    detail = str(problem.get("detail") or problem.get("title") or "refused")
    kind = WouldDeadlock if problem["code"] == WouldDeadlock.word else ApiError
    return kind(int(problem.get("status", status)), str(problem["code"]), detail, problem)


def not_hurlbat(status: int, said: str) -> ApiError:
    """Return the error of an answer that cannot be from the server."""
    return ApiError(status, "not_hurlbat", f"{said}; is HURLBAT_URL right?", {})


def aware(moment: object, name: str) -> datetime:
    """Return the time. Raises `ConfigError` for one without a zone, and for what is no time."""
    if not isinstance(moment, datetime):
        raise ConfigError(f"{name} must be a datetime with a zone, not {type(moment).__name__}")
    if moment.tzinfo is None:
        raise ConfigError(f"{name} has no time zone; use datetime.now(UTC) + … or another aware datetime")
    return moment


def new_key() -> str:
    """Return a key by which the server knows a request that is repeated."""
    return f"auto:{outside.token()}"


def _said(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    return aware(value, "the time").isoformat() if isinstance(value, datetime) else value


def _may_repeat(request: Request, refusal: ApiError) -> bool:
    """Return whether a refusal is worth another try: some say by themselves that nothing was stored."""
    if refusal.status == TOO_MANY or (refusal.status == 503 and refusal.code == "overloaded"):
        return True
    return refusal.status in AWAY and request.repeatable


def _retry_after(reply: Reply) -> float | None:
    """Return how many seconds the answer asks to wait, in either form of RFC 9110, as far as we would."""
    asked = reply.headers.get("retry-after", "")
    if asked.isascii() and asked.isdigit():
        return min(float(asked), LONGEST_PAUSE)
    try:
        date = parsedate_to_datetime(asked)
    except ValueError:
        return None
    moment = date if date.tzinfo is not None else date.replace(tzinfo=UTC)
    return min(max(0.0, moment.timestamp() - outside.time()), LONGEST_PAUSE)


def _refusal(reply: Reply) -> ApiError:
    try:
        problem = json.loads(reply.text)
    except ValueError:
        problem = None
    if isinstance(problem, dict) and "code" in problem:
        return api_error(problem, reply.status)
    where = reply.headers.get("location")
    to = f" to {where}" if where else ""
    return not_hurlbat(reply.status, f"the server answered {reply.status}{to}, which is no answer of Hurlbat")


def _chunks(bodies: Sequence[str]) -> Iterable[list[str]]:
    chunk: list[str] = []
    size = 0
    for body in bodies:
        if chunk and (len(chunk) >= BULK_ITEMS or size + len(body) > BULK_CHARS):
            yield chunk
            chunk, size = [], 0
        chunk.append(body)
        size += len(body)
    if chunk:
        yield chunk
