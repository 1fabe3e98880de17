"""What can go wrong, as users of this package meet it; the same in sync and async code.

HurlbatError
├── ConfigError            a setting or an argument that cannot be
│   ├── SecretInvalid      a signing secret that is none
│   └── TaskInvalid        a task that cannot be declared like this
├── PayloadError           an input or output that is not what its type says, or not JSON
├── BlockingCall           a sync call inside a running event loop
├── ConnectionFailed       the server was not reached, or the connection broke
├── ApiError               the server refused; `code` says why (RFC 9457)
│   └── WouldDeadlock      a task would wait for a run that needs what the task's own run holds
├── RunError               a run did not give an output
│   ├── RunFailed          it failed
│   ├── RunCancelled       it was cancelled or skipped; `reason` says by what, e.g. "concurrency"
│   └── RunTimedOut        it had not ended when the caller's timeout did; it goes on
├── TaskError              raised inside tasks, to say what shall follow
│   ├── NonRetryable       fail now, whatever the policy says
│   ├── RetryAfter         try again after so many seconds
│   ├── CancelRun          end the run as cancelled
│   └── Cancelled          raised by `Context.raise_if_cancelled`
└── SignatureError         a request is not signed by who we trust
    ├── SignatureMissing   a webhook header is missing
    ├── TimestampRefused   malformed, too old, or too far ahead
    └── SignatureWrong     no signature matches a key
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from hurlbat.wire import MAX_KEY_BYTES, is_rate_limit_key

if TYPE_CHECKING:
    from hurlbat.runs import Run


class HurlbatError(Exception):
    """Anything that this package raises on purpose."""


class ConfigError(HurlbatError, ValueError):
    """A setting or an argument that cannot be."""


class SecretInvalid(ConfigError):
    """A signing secret that is none. The message never contains it."""

    code = "secret_invalid"


class TaskInvalid(ConfigError):
    """A task that cannot be declared like this; raised by the decorator."""


class PayloadError(HurlbatError, ValueError):
    """An input or output that is not what its type says, or that JSON cannot hold.

    `details` is raw JSON: one object `{"loc", "msg", "type"}` for each field that was refused, or None.
    """

    def __init__(self, message: str, details: str | None = None) -> None:
        super().__init__(message)
        self.details = details


class BlockingCall(HurlbatError, RuntimeError):
    """A sync call inside a running event loop, which it would stop; await the async form there."""


class ConnectionFailed(HurlbatError):
    """The server was not reached or the connection broke. When `sent`, the request may have been carried out."""

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


class ApiError(HurlbatError):
    """The server refused. `code` is stable; `problem` holds every member of the RFC 9457 object."""

    def __init__(self, status: int, code: str, detail: str, problem: Mapping[str, Any]) -> None:
        super().__init__(f"{detail} ({status} {code})")
        self.status = status
        self.code = code
        self.detail = detail
        self.problem = problem


class WouldDeadlock(ApiError):
    """A task would wait for ever: the run that it waits for needs a slot, or a place, that its own run holds.

    Nothing was submitted. Uncaught it fails the task's run, which is not tried again, with the code `would_deadlock`.
    """

    word: ClassVar[str] = "would_deadlock"


class RunError(HurlbatError):
    """A run did not give an output; `run` is how it stood when last seen."""

    def __init__(self, message: str, run: "Run") -> None:
        super().__init__(message)
        self.run = run


class RunFailed(RunError):
    """The run failed. `code` is the server's word for why, `type` the error's name inside the task."""

    def __init__(self, run: "Run") -> None:
        error = run.error or {}
        self.code = str(error.get("code", ""))
        self.type = str(error.get("type") or self.code)
        self.details = error.get("details")
        super().__init__(f"{run.task} failed: {self.type}: {error.get('message', '')}", run)


class RunCancelled(RunError):
    """The run was cancelled, or skipped; `reason` says by what.

    It is what whoever cancelled it said, or one of our own words: `concurrency` (a rule of its task made room for
    another run; the timeline's `displaced` row names both), `ttl`. `by` says who that was: `request`, `task`, `parent`,
    `node`, `condition`, `concurrency` or `ttl`; it is None of one that was skipped.
    """

    def __init__(self, run: "Run") -> None:
        self.reason = run.reason
        self.by = run.cancelled_by
        super().__init__(f"{run.task} was {run.state}" + (f": {run.reason}" if run.reason else ""), run)


class RunTimedOut(RunError, TimeoutError):
    """The run had not ended when the caller's timeout did. It goes on; its id is `run.id`."""

    def __init__(self, run: "Run", timeout: float) -> None:
        super().__init__(f"{run.task} has not ended within {timeout:g} s; run {run.id} is {run.state} and goes on", run)


class TaskError(HurlbatError):
    """Raised inside a task, to say what shall follow."""


class NonRetryable(TaskError):
    """Fail the run now, however many retries its policy has left."""


class RetryAfter(TaskError):
    """Fail this attempt and try again after so many seconds, if the policy has retries left.

    `rate_limit_key` names a rate limit that the run draws on: until then no other run that draws on it starts, either.
    """

    def __init__(self, seconds: float, message: str = "", *, rate_limit_key: str | None = None) -> None:
        if not 0 <= seconds <= 31_536_000:
            raise ConfigError(f"RetryAfter({seconds!r}): the wait must be from 0 seconds to a year")
        if rate_limit_key is not None and not is_rate_limit_key(rate_limit_key):
            raise ConfigError(
                f"RetryAfter(rate_limit_key={rate_limit_key!r}): must be a text of 1 to {MAX_KEY_BYTES} bytes"
            )
        super().__init__(message or f"try again after {seconds:g} s")
        self.seconds = float(seconds)
        self.rate_limit_key = rate_limit_key


class CancelRun(TaskError):
    """End the run as cancelled, for this reason: it shall not go on, and that is no failure.

    Nothing is repeated, whatever the policy says; children of the run are cancelled, and so are the nodes after it in a
    workflow. Of a longer reason than 256 characters the beginning is kept.
    """

    def __init__(self, reason: str | None = None) -> None:
        super().__init__(reason or "")
        self.reason = reason


class Cancelled(TaskError):
    """The run was cancelled, or its time is over; raised by `Context.raise_if_cancelled`."""


class SignatureError(HurlbatError):
    """A request is not signed by who we trust. The message is safe to send back."""


class SignatureMissing(SignatureError):
    """One of the three webhook headers is missing or malformed."""


class TimestampRefused(SignatureError):
    """The timestamp is malformed, too old or too far ahead; `skew` is our clock minus theirs, in seconds."""

    def __init__(self, message: str, skew: float | None = None) -> None:
        super().__init__(message)
        self.skew = skew


class SignatureWrong(SignatureError):
    """No signature matches a key."""
