"""The lanes change hands: whoever has lost them starts nothing, in every schedule."""

from collections.abc import Callable

import pytest

from tests.interleavings.scenes import (
    DELAYED,
    FLYING,
    HEIR,
    NEXT,
    NOW,
    OWNER,
    PEER,
    WAITING,
    Deed,
    Turn,
    does,
    hands_over,
    leaves,
    look,
    renews,
    scene,
    succeeds,
    sweep,
    tick,
)
from tests.interleavings.stage import Stage

pytestmark = pytest.mark.anyio

LOST = scene(FLYING, WAITING, NEXT, free=1, owned_until=NOW - 1)
"""The owner's lease is over, and it does not know."""
TURNS: dict[str, Turn] = {"start": look, "sweep": sweep}
RIVALS: dict[str, tuple[Deed, Deed]] = {
    "two heirs": (renews(PEER), renews(HEIR)),
    "the owner comes back": (renews(OWNER), renews(HEIR)),
    "the owner leaves": (leaves(OWNER), succeeds(HEIR, look)),
    "the owner hands over": (hands_over(OWNER), succeeds(HEIR, look)),
}


@pytest.mark.parametrize("turn", TURNS)
async def test_no_schedule_lets_a_server_that_lost_the_lanes_start_a_run(stage: Stage, turn: str) -> None:
    outcome = await stage.show(LOST, does(OWNER, TURNS[turn]), succeeds(HEIR, look))
    assert outcome.broken == {}
    assert outcome.schedules > 1


@pytest.mark.parametrize("rivals", RIVALS)
async def test_no_schedule_gives_one_epoch_to_two_servers(stage: Stage, rivals: str) -> None:
    outcome = await stage.show(LOST, *RIVALS[rivals])
    assert outcome.broken == {}
    assert outcome.schedules > 1


async def test_an_owner_whose_lease_is_good_stays_it_in_every_schedule(stage: Stage) -> None:
    outcome = await stage.show(scene(WAITING, NEXT, free=1), does(OWNER, look), succeeds(HEIR, look))
    assert outcome.broken == {}
    assert outcome.owners == {OWNER}


@pytest.mark.parametrize("ends", [hands_over, leaves], ids=["hands over", "leaves"])
async def test_no_schedule_gives_work_to_a_server_that_stops(stage: Stage, ends: Callable[[str], Deed]) -> None:
    outcome = await stage.show(scene(DELAYED, free=1), does(OWNER, tick), ends(PEER))
    assert outcome.broken == {}
    assert outcome.endings == {("running 1",)}
    assert outcome.senders == {OWNER, PEER}
