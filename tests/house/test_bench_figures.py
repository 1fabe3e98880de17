"""The bench counts what it says it counts."""

from hurlbat_app.bench.figures import (
    Memory,
    Percentiles,
    Start,
    duplicates,
    lost,
    memory,
    percentiles,
    read_log,
    start_latencies,
)

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
