"""The bench counts what it says it counts."""

from collections import Counter

import orjson
import pytest

from hurlbat_app.bench.figures import (
    Grown,
    Memory,
    Percentiles,
    Ratio,
    Round,
    Start,
    burdened,
    duplicates,
    lost,
    memory,
    percentiles,
    read_log,
    start_latencies,
)
from hurlbat_app.bench.scenarios import DAY, Name, Sizes, scenario, zipf

LOG = ["a 1 5000000", "b 1 7000000", "b 2 9000000"]


def test_the_log_of_the_worker_is_read_line_by_line() -> None:
    assert read_log(LOG) == [Start("a", 1, 5_000_000), Start("b", 1, 7_000_000), Start("b", 2, 9_000_000)]


def test_a_run_is_lost_when_it_never_started_or_its_result_is_not_stored() -> None:
    started = [*read_log(LOG), Start("unstored", 1, 1)]

    assert lost(["a", "b", "unstored", "unstarted"], started, ["a", "b", "unstarted"]) == 2


def test_every_start_beyond_the_first_is_a_duplicate() -> None:
    assert duplicates(read_log(LOG)) == 1


def test_latency_counts_from_the_submit_to_the_first_start() -> None:
    assert start_latencies(["a", "b", "never"], [4_000_000, 4_000_000, 0], read_log(LOG)) == [1.0, 3.0]


def test_percentiles_are_values_that_were_measured() -> None:
    assert percentiles([float(value) for value in range(1, 101)]) == Percentiles(50.0, 95.0, 99.0)
    assert percentiles([7.0]) == Percentiles(7.0, 7.0, 7.0)


def test_memory_is_told_for_the_start_the_middle_and_the_end() -> None:
    assert memory([(0.0, 50.0), (5.0, 70.0), (9.0, 90.0), (10.0, 60.0)]) == Memory(50.0, 70.0, 60.0, 90.0)


def _round(rate: float, p99: float) -> Round:
    took = Percentiles(1.0, 2.0, p99)
    return Round(rate, took, took, Percentiles(1.0, 2.0, 2 * p99), refused=1)


def test_each_round_is_set_against_the_one_beside_it() -> None:
    """The machine was slow in the last round: neither the burden nor its absence is to blame."""
    empty = [_round(1000, 4), _round(1000, 4), _round(100, 40)]
    found = burdened(
        [_round(900, 5), _round(900, 5), _round(90, 50)],
        empty,
        waiting=7,
        loaded_per_second=0,
        duplicates=0,
        strayed=0,
        memory_mb=Grown(1, 2, 3),
        idle_cpu_percent=0,
    )

    assert found.ratio == Ratio(0.9, 1.25, 1.25)
    assert (found.runs_per_second, found.start_ms, found.refused) == (900, Percentiles(1.0, 2.0, 5), 3)


def test_the_keys_are_in_zipf_proportion_and_mingled() -> None:
    keys = zipf(100, 1_000)
    counted = Counter(keys)

    assert [counted[key] for key in (0, 1, 3, 9)] == [193, 96, 48, 19]
    assert len(counted) == 100
    assert 80 < Counter(keys[: len(keys) // 2])[0] < 113


@pytest.mark.parametrize(
    ("name", "waiting", "starts"),
    [
        (Name.EMPTY, 0, 0),
        (Name.BACKLOG, 500, 1),
        (Name.KEYS, len(zipf(200, 2_000)) - 2, 2),
        (Name.TIMERS, 40, 0),
        (Name.RATE_LIMITS, 300, 3),
    ],
)
def test_a_scenario_is_as_large_as_it_was_asked_to_be(name: Name, waiting: int, starts: int) -> None:
    found = scenario(name, Sizes(backlog=500, keys=200, timers=40, rate_limits=3))

    assert (found.waiting, found.starts) == (waiting, starts)
    assert sum(1 for _ in found.submissions("held")) == waiting + starts


def test_what_a_scenario_submits_says_its_key_and_when_it_is_due() -> None:
    sizes = Sizes().scaled(0.00002)

    assert sizes == Sizes(backlog=20, keys=1, timers=2, rate_limits=1)
    assert [orjson.loads(text) for text in scenario(Name.TIMERS, sizes).submissions("held")] == [
        {"task": "held", "input": {"key": f"customer-{number}"}, "delay": DAY} for number in range(2)
    ]
    hanging = next(scenario(Name.BACKLOG, sizes).submissions("held"))
    assert orjson.loads(hanging) == {"task": "held", "input": {"key": "customer-0", "hang": True}}
