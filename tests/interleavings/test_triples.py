"""Three servers at a time, in schedules that a seed draws: all of them would be too many."""

import pytest

from tests.interleavings.scenes import (
    FLYING,
    HEIR,
    NEXT,
    NOW,
    OWNER,
    PEER,
    SILENT,
    WAITING,
    Deed,
    cancel,
    does,
    look,
    result,
    scene,
    submit,
    succeeds,
    sweep,
    tick,
    together,
)
from tests.interleavings.schedules import SomeSchedules
from tests.interleavings.stage import Stage

pytestmark = pytest.mark.anyio

MANY = 40
LOST = scene(FLYING, WAITING, NEXT, SILENT, free=1, owned_until=NOW - 1)
TRIPLES: dict[str, tuple[Deed, Deed, Deed]] = {
    "a start, a cancel and a takeover": (does(OWNER, look), does(PEER, cancel(WAITING)), succeeds(HEIR, look)),
    "a result, a cancel and a takeover": (
        does(OWNER, result(FLYING)),
        does(PEER, cancel(FLYING)),
        succeeds(HEIR, look),
    ),
    "a sweep, a late result and a takeover": (
        does(OWNER, sweep),
        does(PEER, result(SILENT)),
        succeeds(HEIR, sweep, tick),
    ),
    "three submits with one key": (does(OWNER, submit(1)), does(PEER, submit(2)), does(HEIR, submit(3))),
    "three ends in one turn each": (
        does(OWNER, together(result(FLYING), tick)),
        does(PEER, together(cancel(SILENT), cancel(FLYING))),
        does(HEIR, together(result(SILENT), result(FLYING))),
    ),
}


@pytest.mark.parametrize("triple", TRIPLES)
async def test_no_drawn_schedule_of_three_servers_breaks_a_promise(stage: Stage, triple: str) -> None:
    outcome = await stage.show(LOST, *TRIPLES[triple], schedules=SomeSchedules(seed=3, count=MANY))
    assert outcome.broken == {}
    assert outcome.schedules == MANY
    assert outcome.waits > 0
