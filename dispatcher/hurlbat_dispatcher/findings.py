"""What a checkup can find, and how it is told."""

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """Whether a promise is broken, or something should be looked at."""

    VIOLATION = "violation"
    WARNING = "warning"


class Code(StrEnum):
    """What can be found. Programs may rely on it."""

    # of one run's row
    UNKNOWN_STATE = "unknown_state"
    ENDED_WITHOUT_TIME = "ended_without_time"
    ENDED_WITH_LEASE = "ended_with_lease"
    ENDED_WITHOUT_RESULT = "ended_without_result"
    ENDED_WITHOUT_START = "ended_without_start"
    OPEN_WITH_END = "open_with_end"
    WAITING_WITH_LEFTOVERS = "waiting_with_leftovers"
    RUNNING_INCOMPLETE = "running_incomplete"
    HELD_WITHOUT_CANCEL = "held_without_cancel"
    TOO_MANY_TRIES = "too_many_tries"
    NO_TRIES_LEFT = "no_tries_left"
    STARTED_EARLY = "started_early"
    LANE_WRONG = "lane_wrong"
    # of a run and its timeline
    TOLD_AHEAD = "told_ahead"
    PUT_BACK_TWICE = "put_back_twice"
    RUNNING_AFTER_END = "running_after_end"
    CHARGES_WRONG = "charges_wrong"
    WAITING_UNEXPLAINED = "waiting_unexplained"
    # of more than one row
    SLOTS_OVERSOLD = "slots_oversold"
    SLOTS_LOWERED = "slots_lowered"
    KEY_WITHOUT_RUN = "key_without_run"
    KEY_OF_ANOTHER_RUN = "key_of_another_run"
    KEY_OUTLIVES_RUN = "key_outlives_run"
    OWNERS_WRONG = "owners_wrong"
    OWNER_UNKNOWN = "owner_unknown"
    # of flow control
    LANE_MISNAMED = "lane_misnamed"
    GROUP_OVERSOLD = "group_oversold"
    RATE_OVERSOLD = "rate_oversold"
    USE_IMPOSSIBLE = "use_impossible"
    TIMELINE_WITHOUT_RUN = "timeline_without_run"
    # of workflows
    SHAPE_MISSING = "shape_missing"
    WORKFLOW_FORGOTTEN = "workflow_forgotten"
    NODE_WITHOUT_WORKFLOW = "node_without_workflow"
    SUSPENDED_WITHOUT_WAIT = "suspended_without_wait"
    WAIT_WITHOUT_RUN = "wait_without_run"
    # late
    LEASE_NOT_RESCUED = "lease_not_rescued"
    SENDER_GONE = "sender_gone"
    DUE_NOT_SEEN = "due_not_seen"
    EXPIRY_NOT_APPLIED = "expiry_not_applied"
    HELD_TOO_LONG = "held_too_long"
    WAITING_BESIDE_ROOM = "waiting_beside_room"
    WORKER_GONE = "worker_gone"
    WORKFLOW_NOT_BEGUN = "workflow_not_begun"
    NODE_NOT_WOKEN = "node_not_woken"
    NODE_OUTLIVES_WORKFLOW = "node_outlives_workflow"
    SLEEP_NOT_SEEN = "sleep_not_seen"
    WAIT_OUTLIVES_RUN = "wait_outlives_run"
    NEWS_NOT_READ = "news_not_read"
    # of the database itself
    NOT_DURABLE = "not_durable"
    CLOCK_OFF = "clock_off"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that was found; `subject` is the run, worker or server that it is about, where it is about one."""

    code: Code
    severity: Severity
    subject: str | None
    sentence: str


def warn(code: Code, subject: str | None, sentence: str) -> Finding:
    """Return something that should be looked at, and breaks no promise."""
    return Finding(code, Severity.WARNING, subject, sentence)
