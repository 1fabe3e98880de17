"""Two servers at a time, in every schedule: a child beside the cancellation of its parent, and one key twice."""

import pytest

from hurlbat_dispatcher.store import runs
from tests.interleavings.scenes import FLYING, HEIR, OWNER, PEER, cancel, child, does, scene, tick
from tests.interleavings.stage import Stage
from tests.interleavings.stepper import Fault

pytestmark = pytest.mark.anyio

ALIVE = ("cancelled 1", "queued 0")
"""A parent that was cancelled, and a child that lives."""


async def test_a_child_beside_the_cancellation_of_its_parent_is_refused_or_cancelled(stage: Stage) -> None:
    outcome = await stage.show(scene(FLYING), does(OWNER, cancel(FLYING)), does(PEER, child(1)))
    assert outcome.broken == {}
    assert outcome.endings == {("cancelled 1",), ("cancelled 1", "cancelled 0")}
    assert outcome.waits > 0


async def test_a_child_beside_a_cancellation_elsewhere_is_refused_or_cancelled_once_the_owner_hears(
    stage: Stage,
) -> None:
    outcome = await stage.show(scene(FLYING), does(PEER, cancel(FLYING)), does(OWNER, child(1), tick))
    assert outcome.broken == {}
    assert ("cancelled 1",) in outcome.endings
    assert ("cancelled 1", "cancelled 0") in outcome.endings


@pytest.mark.parametrize("other", [OWNER, HEIR])
async def test_of_one_child_key_at_two_servers_there_is_one_child(stage: Stage, other: str) -> None:
    outcome = await stage.show(scene(FLYING), does(PEER, child(1)), does(other, child(2)))
    assert outcome.broken == {}
    assert outcome.endings == {("running 1", "queued 0")}
    assert outcome.waits > 0


async def test_a_schedule_shows_that_a_child_outlives_its_parent(stage: Stage) -> None:
    nothing = Fault(runs.LOAD, r" FOR UPDATE", "")
    outcome = await stage.show(scene(FLYING), does(OWNER, cancel(FLYING)), does(PEER, child(1)), faults=(nothing,))
    assert ALIVE in outcome.endings
