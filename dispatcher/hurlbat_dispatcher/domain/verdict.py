"""What an answer does to the run: the one place where an attempt is judged, whatever way its end became known."""

from dataclasses import dataclass
from typing import Final

from hurlbat_dispatcher.domain.lifecycle import RunEvent
from hurlbat_dispatcher.domain.outcome import (
    Answer,
    Cancelled,
    ErrorCode,
    Failed,
    Held,
    NotSent,
    PushedBack,
    Succeeded,
    Unstarted,
)

PUSHED_BACK_WAIT: Final = 1.0
"""Seconds that a run waits after backpressure that did not say how long, and after a delivery that never started it.

Doubled with every start that was not charged, up to `PUSHED_BACK_MOST`.
"""

PUSHED_BACK_MOST: Final = 60.0
AT_ONCE: Final = 3
"""How often a run that was not sent is due again at once; then it waits, so that nothing goes in circles."""
NOT_SENT_MOST: Final = 5.0
"""Seconds that it waits at most: its worker's gate knows better when to try."""

_LOST: Final = frozenset(
    {
        ErrorCode.CONNECTION_RESET,
        ErrorCode.ATTEMPT_TIMEOUT,
        ErrorCode.HEARTBEAT_LOST,
        ErrorCode.LEASE_EXPIRED,
        ErrorCode.PROTOCOL_ERROR,
        ErrorCode.RESPONSE_TOO_LARGE,
        ErrorCode.BAD_ENCODING,
        ErrorCode.BAD_RESULT,
    }
)
"""Failures after which nobody knows whether the task did its work."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What happens to the run next.

    `charged` tells whether the start counts against `max_attempts`; `wait` is in seconds from now, for a run that is
    put back; `kind` names the timeline row; `failure` is what the run shows as its error. `sent` is False when no byte
    went out: then it was no start, and what it took of rate limits is given back.
    """

    event: RunEvent
    charged: bool
    kind: str
    wait: float | None = None
    failure: Failed | None = None
    note: str | None = None
    sent: bool = True


def judge(
    answer: Answer, *, tries: int, max_attempts: int, backoff: float, free: int = 0, once: bool = False
) -> Verdict:
    """Decide on a running attempt.

    `once`: the task is not to run twice, and this is its one start, e.g. in the second life of a run that was replayed.
    `tries` includes this start, `backoff` (seconds) is the policy's wait after it, and `free` counts the starts before
    it that were not charged: a worker that takes runs and never starts them is asked less and less often.
    """
    once = once or max_attempts == 1
    again = min(PUSHED_BACK_MOST, PUSHED_BACK_WAIT * 2 ** min(free, 10))
    match answer:
        case Succeeded():
            return Verdict(RunEvent.SUCCEEDED, True, "completed")
        case Cancelled():
            return Verdict(RunEvent.CANCELLED, True, "cancelled")
        case Failed():
            return _failed(answer, tries, max_attempts, backoff, once=once)
        case NotSent(code, message):
            wait = 0.0 if free < AT_ONCE else min(again, NOT_SENT_MOST)
            return Verdict(RunEvent.PUT_BACK, False, "not_sent", wait, note=f"{code}: {message}", sent=False)
        case PushedBack(message, retry_after):
            wait = again if retry_after is None else retry_after
            return Verdict(RunEvent.PUT_BACK, False, "pushed_back", wait, note=message)
        case Held(code, message):
            return Verdict(RunEvent.PUT_BACK, False, "held", 0.0, note=f"{code}: {message}")
        case Unstarted(message):
            if once:
                lost = Failed(ErrorCode.UNKNOWN_OUTCOME, f"the answer was lost: {message}", retryable=False)
                return Verdict(RunEvent.GAVE_UP, True, "failed", failure=lost)
            return Verdict(RunEvent.PUT_BACK, False, "not_started", again, note=message)


def _failed(failure: Failed, tries: int, max_attempts: int, backoff: float, *, once: bool) -> Verdict:
    if failure.retryable and tries < max_attempts:
        wait = backoff if failure.retry_after is None else failure.retry_after
        return Verdict(RunEvent.PUT_BACK, True, "retry", wait, failure=failure)
    if once and failure.code in _LOST:
        failure = Failed(
            ErrorCode.UNKNOWN_OUTCOME,
            f"{failure.message} ({failure.code}); with max_attempts 1 it is not repeated",
            retryable=False,
            raw=failure.raw,
        )
    return Verdict(RunEvent.GAVE_UP, True, "failed", failure=failure)
