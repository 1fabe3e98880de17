"""What users may import. A name that comes or goes is a decision, and changes this file."""

import hurlbat
import hurlbat.testing
import hurlbat_dispatcher

HURLBAT = [
    "AnyOf",
    "ApiError",
    "AsyncClient",
    "Backoff",
    "BlockingCall",
    "CancelRun",
    "Cancelled",
    "Client",
    "Concurrency",
    "ConfigError",
    "ConnectionFailed",
    "Context",
    "Cron",
    "Debounce",
    "Depends",
    "Event",
    "Filter",
    "Hurlbat",
    "HurlbatError",
    "Node",
    "NonRetryable",
    "OnEvent",
    "PayloadError",
    "RateLimit",
    "RetryAfter",
    "Run",
    "RunCancelled",
    "RunError",
    "RunFailed",
    "RunRef",
    "RunTimedOut",
    "Schedule",
    "ScheduleRef",
    "Sleep",
    "Task",
    "Throttle",
    "When",
    "Workflow",
    "WouldDeadlock",
    "any_of",
]
DISPATCHER = [
    "MAX_METADATA_BYTES",
    "Accepted",
    "AcceptedEvent",
    "AttemptView",
    "BudgetView",
    "Bulk",
    "BulkOperation",
    "CannotOpen",
    "CheckedExpression",
    "Conflict",
    "DatabaseTrouble",
    "Engine",
    "Event",
    "EventSpec",
    "Events",
    "Examination",
    "Explanation",
    "Family",
    "FilterChange",
    "Finding",
    "Following",
    "Forbidden",
    "HeartbeatReply",
    "Invalid",
    "Limits",
    "MethodRefused",
    "Missed",
    "Mode",
    "News",
    "NodeView",
    "NotFound",
    "OperationKind",
    "OperationState",
    "Outside",
    "Overlap",
    "Overloaded",
    "Page",
    "Problem",
    "RateLimit",
    "Receipt",
    "Registered",
    "Run",
    "RunFilter",
    "RunKind",
    "RunState",
    "Schedule",
    "ScheduleFire",
    "ScheduleSpec",
    "Schedules",
    "Settings",
    "SettingsError",
    "Severity",
    "ShownFilter",
    "SigningKey",
    "Start",
    "Submission",
    "Task",
    "TimelineEntry",
    "TooLarge",
    "TooMany",
    "Unauthorized",
    "Unavailable",
    "UnsupportedMedia",
    "Watch",
    "Webhook",
    "WebhookSpec",
    "Webhooks",
    "Worker",
    "WorkerSpec",
    "WorkerState",
    "Workflows",
    "WrongKey",
    "check_expression",
    "examine",
    "load_settings",
    "migrate",
]


TESTING = ["Faults", "World", "WrongLoop", "simulated", "world_fixture"]


def test_the_names_for_users_tests_are_pinned_and_documented() -> None:
    assert hurlbat.testing.__all__ == TESTING
    assert [name for name in TESTING if not getattr(hurlbat.testing, name).__doc__] == []


def test_the_names_of_the_sdk_are_pinned() -> None:
    assert hurlbat.__all__ == HURLBAT


def test_the_names_of_the_engine_s_door_are_pinned() -> None:
    assert hurlbat_dispatcher.__all__ == DISPATCHER


def test_every_public_name_of_the_sdk_is_there_and_documented() -> None:
    assert [name for name in HURLBAT if not getattr(hurlbat, name).__doc__] == []


def test_dir_shows_what_is_loaded_late() -> None:
    assert set(HURLBAT) <= set(dir(hurlbat))
