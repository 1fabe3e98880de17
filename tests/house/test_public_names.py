"""What users may import. A name that comes or goes is a decision, and changes this file."""

import hurlbat

HURLBAT = [
    "ApiError",
    "AsyncClient",
    "Backoff",
    "BlockingCall",
    "Cancelled",
    "Client",
    "ConfigError",
    "ConnectionFailed",
    "Context",
    "Hurlbat",
    "HurlbatError",
    "NonRetryable",
    "PayloadError",
    "RetryAfter",
    "Run",
    "RunCancelled",
    "RunError",
    "RunFailed",
    "RunRef",
    "RunTimedOut",
    "Task",
]


def test_the_names_of_the_sdk_are_pinned() -> None:
    assert hurlbat.__all__ == HURLBAT


def test_every_public_name_of_the_sdk_is_there_and_documented() -> None:
    assert [name for name in HURLBAT if not getattr(hurlbat, name).__doc__] == []


def test_dir_shows_what_is_loaded_late() -> None:
    assert set(HURLBAT) <= set(dir(hurlbat))
