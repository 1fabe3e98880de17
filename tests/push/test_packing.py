"""Which runs travel in one delivery: so many as the worker takes, and so much as it reads."""

from collections import deque
from typing import Any

import pytest

from hurlbat.reading import MAX_DELIVERY_BYTES
from hurlbat_dispatcher.parcels import MAX_DELIVERY_CHARS, take
from tests.push.delivering import run

LARGE = MAX_DELIVERY_CHARS // 2
"""Two of these, and what else a run has, are too much."""


@pytest.mark.parametrize("member", ["input", "metadata", "trigger", "parents"])
def test_no_more_runs_travel_together_than_a_worker_reads(member: str) -> None:
    payload: dict[str, Any] = {member: "x" * LARGE}
    large = run()._replace(**payload)
    queue = deque([run(), large, run(), large, large])
    taken = [len(take(queue, 64)) for _ in range(3)]
    assert (taken, len(queue)) == ([3, 1, 1], 0)


def test_a_run_that_is_too_large_for_others_goes_alone() -> None:
    huge = run()._replace(parents="x" * MAX_DELIVERY_CHARS)
    queue = deque([huge, run(), run()])
    assert [len(take(queue, 64)) for _ in range(2)] == [1, 2]


def test_a_full_delivery_of_any_characters_is_one_that_a_worker_reads() -> None:
    assert MAX_DELIVERY_CHARS * len("\u20ac".encode()) < MAX_DELIVERY_BYTES


def test_no_more_runs_travel_together_than_the_worker_takes() -> None:
    queue = deque(run() for _ in range(5))
    assert [len(take(queue, 2)) for _ in range(3)] == [2, 2, 1]
