"""The menu of chaos: a seed decides what happens, nothing is left out, and a fault explains no more than it does."""

import math
from itertools import islice

from tests.chaos.faults import AFTERMATH, SECONDS, Fault, Kind, Struck, explained, schedule


def struck(kind: Kind, began: float, ended: float) -> Struck:
    """Return a fault that was."""
    return Struck(Fault(kind, 0, ended - began), began, ended)


def every(step: float, begin: float, count: int) -> list[float]:
    """Return moments at which servers did something."""
    return [begin + step * number for number in range(count)]


def test_a_seed_decides_what_happens() -> None:
    first, again, other = (list(islice(schedule(seed, list(Kind), 3), 50)) for seed in ("1", "1", "2"))

    assert first == again
    assert first != other


def test_every_kind_comes_once_before_any_comes_again() -> None:
    faults = [fault for _, fault in islice(schedule("1", list(Kind), 3), 2 * len(Kind))]

    assert {fault.kind for fault in faults[: len(Kind)]} == {fault.kind for fault in faults[len(Kind) :]} == set(Kind)
    assert all(SECONDS[fault.kind][0] <= fault.seconds <= SECONDS[fault.kind][1] for fault in faults)
    assert {fault.place for fault in faults} == {0, 1, 2}


def test_a_deploy_explains_no_failure_and_a_killed_server_no_broken_connection() -> None:
    kinds = (Kind.SERVERS_ROLLED, Kind.SERVER_KILLED, Kind.WORKER_KILLED)
    killed, died = explained([struck(kind, 10.0, 11.0) for kind in kinds], [])

    assert "lease_expired" in killed.codes
    assert "connection_reset" not in killed.codes
    assert {"lease_expired", "connection_reset"} <= set(died.codes)


def test_the_aftermath_of_a_fault_is_over_when_servers_were_at_work_for_long_enough() -> None:
    fault = struck(Kind.SERVER_KILLED, 10.0, 11.0)

    [steady] = explained([fault], every(0.5, 0.0, 200))
    [interrupted] = explained([fault], [*every(0.5, 0.0, 23), *every(0.5, 60.0, 200)])
    [unfinished] = explained([fault], every(0.5, 0.0, 30))

    assert steady.until == 11.0 + AFTERMATH
    assert interrupted.until == 60.0 + AFTERMATH - 1
    assert unfinished.until == math.inf
