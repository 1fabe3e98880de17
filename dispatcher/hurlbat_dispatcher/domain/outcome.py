"""What an answer of a worker means: for the run, for what it is charged, and for the worker.

"Charged" is what counts against `max_attempts`. Whether an answer is charged is a property of its type here and nowhere
else: `Failed` is, the others are not.
"""

from dataclasses import dataclass
from enum import StrEnum


class ErrorCode(StrEnum):
    """Why an attempt did not succeed. The list is fixed; a program may rely on it."""

    # no byte of the request was sent
    CONNECT_REFUSED = "connect_refused"
    CONNECT_TIMEOUT = "connect_timeout"
    CONNECT_FAILED = "connect_failed"
    DNS_ERROR = "dns_error"
    TLS_ERROR = "tls_error"
    DESTINATION_BLOCKED = "destination_blocked"
    PROXY_ERROR = "proxy_error"
    # it may have run
    CONNECTION_RESET = "connection_reset"
    ATTEMPT_TIMEOUT = "attempt_timeout"
    EXECUTION_TIMEOUT = "execution_timeout"
    HEARTBEAT_LOST = "heartbeat_lost"
    RESPONSE_TOO_LARGE = "response_too_large"
    BAD_ENCODING = "bad_encoding"
    PROTOCOL_ERROR = "protocol_error"
    REDIRECT_REFUSED = "redirect_refused"
    NOT_A_WORKER = "not_a_worker"
    BAD_RESULT = "bad_result"
    HTTP_ERROR = "http_error"
    LEASE_EXPIRED = "lease_expired"
    UNKNOWN_OUTCOME = "unknown_outcome"
    # the task said so
    TASK_ERROR = "task_error"
    INVALID_INPUT = "invalid_input"
    WOULD_DEADLOCK = "would_deadlock"
    UNKNOWN_TASK = "unknown_task"
    WRONG_TARGET = "wrong_target"
    # the dispatcher's own
    SCHEDULE_TIMEOUT = "schedule_timeout"
    WORKER_UNAUTHORIZED = "worker_unauthorized"
    WORKER_GONE = "worker_gone"
    BACKPRESSURE = "backpressure"
    NOT_STARTED = "not_started"
    CANCELLED = "cancelled"
    # of nodes of workflows
    EXPRESSION_FAILED = "expression_failed"
    PARENTS_TOO_LARGE = "parents_too_large"
    NODE_REFUSED = "node_refused"


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The attempt succeeded; `output` is raw JSON."""

    output: str


@dataclass(frozen=True, slots=True)
class Failed:
    """The attempt failed, or may have run and is not known to have succeeded. Charged.

    `type` is the kind of error in the task's own words, `retry_after` (seconds) overrides the policy's wait, `raw` is
    the beginning of an answer that could not be read, `details` raw JSON. `rate_limit_key`, which comes only with
    `retry_after`, is the rate limit that has to wait so long, if the run draws on it.
    """

    code: ErrorCode
    message: str
    type: str = ""
    stack: str | None = None
    details: str | None = None
    retryable: bool = True
    retry_after: float | None = None
    raw: str | None = None
    rate_limit_key: str | None = None


@dataclass(frozen=True, slots=True)
class NotSent:
    """No byte of the request was sent. The worker is unreachable, its runs wait."""

    code: ErrorCode
    message: str


@dataclass(frozen=True, slots=True)
class PushedBack:
    """The worker has no room now. `asked` is its `Retry-After` as it came, `retry_after` (seconds) what is used.

    `rate_limit_key`, which comes only with `retry_after`, is the rate limit that has to wait so long, if the run draws
    on it.
    """

    message: str
    retry_after: float | None = None
    asked: str | None = None
    rate_limit_key: str | None = None


@dataclass(frozen=True, slots=True)
class Held:
    """The worker is misconfigured (401, 403) or gone (410): its runs are held until someone acts."""

    code: ErrorCode
    message: str


@dataclass(frozen=True, slots=True)
class Unstarted:
    """The worker took the delivery but never said that this run started, nor gave a result."""

    message: str


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The task itself has ended its run as cancelled, for this reason."""

    reason: str | None = None


Answer = Succeeded | Failed | Cancelled | NotSent | PushedBack | Held | Unstarted


def shows_health(answer: Answer) -> bool:
    """Tell whether an answer shows a worker in good health: it took the attempt up and says how that ended."""
    if isinstance(answer, Failed):
        return answer.code in (ErrorCode.TASK_ERROR, ErrorCode.INVALID_INPUT, ErrorCode.WOULD_DEADLOCK)
    return isinstance(answer, Succeeded | Cancelled)
