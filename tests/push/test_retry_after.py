"""`Retry-After`, as workers write it."""

import pytest

from hurlbat_dispatcher.domain.retry_after import RetryAfter, read_retry_after

_NOW_MS = 1_700_000_000_000  # Tue, 14 Nov 2023 22:13:20 GMT


@pytest.mark.parametrize(
    ("values", "used"),
    [
        (["120"], 120.0),
        (["0"], 0.0),
        (["1.5"], 1.5),
        ([" 7 "], 7.0),
        (["-5"], 0.0),
        (["1e9"], 3_600.0),
        (["1000000000"], 3_600.0),
        (["9" * 400], 3_600.0),
        (["Tue, 14 Nov 2023 22:13:50 GMT"], 30.0),
        (["Tuesday, 14-Nov-23 22:13:50 GMT"], 30.0),
        (["Tue, 14 Nov 2023 22:13:50 -0000"], 30.0),
        (["Tue, 14 Nov 2023 22:00:00 GMT"], 0.0),
        (["Tue, 14 Nov 2099 22:13:50 GMT"], 3_600.0),
        (["soon"], None),
        ([""], None),
        (["inf"], None),
        (["nan"], None),
        (["0x10"], None),
        (["1e99999"], None),
        (["Tue, 99 Nov 2023 99:99:99 GMT"], None),
        (["Mon, 1 Jan 99999999999 00:00:00 GMT"], None),
        (["\u0663"], None),
        (["5", "10"], 10.0),
        (["soon", "10"], 10.0),
    ],
)
def test_it_is_clamped_and_garbage_is_ignored(values: list[str], used: float | None) -> None:
    found = read_retry_after(values, _NOW_MS)
    assert found == RetryAfter(", ".join(values)[:128], used)


def test_nothing_asked_is_nothing_used() -> None:
    assert read_retry_after([], _NOW_MS) == RetryAfter(None, None)
