"""Two servers at a time, in every schedule: the owner of the lanes with another, and two that own nothing."""

import pytest

from tests.interleavings.scenes import (
    DELAYED,
    ENDED,
    FLYING,
    HEIR,
    HELD,
    KEYED,
    NEXT,
    ORPHAN,
    OWNER,
    PEER,
    SILENT,
    WAITING,
    Turn,
    beat,
    cancel,
    detach,
    does,
    failure,
    look,
    not_sent,
    recall,
    replay,
    result,
    scene,
    stopped,
    submit,
    submit_plain,
    sweep,
    take,
    tick,
)
from tests.interleavings.stage import Stage

pytestmark = pytest.mark.anyio

BUSY = scene(FLYING, WAITING, NEXT, ENDED, free=1)
OF_THE_OWNER: dict[str, Turn] = {
    "the owner starts": look,
    "the owner has a result": result(FLYING),
    "the owner has a failure": failure(FLYING),
    "the owner cancels": cancel(FLYING),
    "the owner replays": replay(ENDED),
    "the owner accepts": submit(1),
}
OF_ANYBODY: dict[str, Turn] = {
    "another has the result": result(FLYING),
    "another has a failure": failure(FLYING),
    "another could not send": not_sent(FLYING),
    "another cancels": cancel(FLYING),
    "another cancels what waits": cancel(WAITING),
    "another lets go": detach(FLYING),
    "another takes what it is to send": take,
    "another recalls": recall,
    "another replays": replay(ENDED),
    "another accepts": submit(2),
}
RESCUES: dict[str, tuple[str, Turn, Turn]] = {
    "a lease is over and a beat comes": (SILENT, sweep, beat(SILENT)),
    "a lease is over and the result comes": (SILENT, sweep, result(SILENT)),
    "a lease is over and the run is cancelled": (SILENT, sweep, cancel(SILENT)),
    "a sender is gone and its result comes": (ORPHAN, sweep, result(ORPHAN)),
    "a sender is gone and its stream breaks": (ORPHAN, sweep, detach(ORPHAN)),
    "a sender is gone and the run is cancelled": (ORPHAN, sweep, cancel(ORPHAN)),
    "a hold is over and the stop is confirmed": (HELD, tick, stopped(HELD)),
    "a hold is over and the run is replayed": (HELD, tick, replay(HELD)),
    "a run is due and is cancelled": (DELAYED, tick, cancel(DELAYED)),
}
OF_TWO_PEERS: dict[str, tuple[str, Turn, Turn]] = {
    "result and cancel": (FLYING, result(FLYING), cancel(FLYING)),
    "result and failure": (FLYING, result(FLYING), failure(FLYING)),
    "two replays": (ENDED, replay(ENDED), replay(ENDED)),
    "replay and late result": (ENDED, replay(ENDED), result(ENDED)),
    "two submits with one key": (ENDED, submit(1), submit(2)),
    "beat and result": (SILENT, beat(SILENT), result(SILENT)),
    "beat and cancel": (SILENT, beat(SILENT), cancel(SILENT)),
    "stop and replay": (HELD, stopped(HELD), replay(HELD)),
    "recall and result": (FLYING, recall, result(FLYING)),
}


@pytest.mark.parametrize("of_another", OF_ANYBODY)
@pytest.mark.parametrize("of_the_owner", OF_THE_OWNER)
async def test_no_schedule_of_the_owner_and_another_breaks_a_promise(
    stage: Stage, of_the_owner: str, of_another: str
) -> None:
    outcome = await stage.show(BUSY, does(OWNER, OF_THE_OWNER[of_the_owner]), does(PEER, OF_ANYBODY[of_another]))
    assert outcome.broken == {}
    assert outcome.schedules > 1


@pytest.mark.parametrize("case", RESCUES)
async def test_no_schedule_of_a_rescue_and_what_comes_after_all_breaks_a_promise(stage: Stage, case: str) -> None:
    run_id, rescue, other = RESCUES[case]
    outcome = await stage.show(scene(run_id, NEXT), does(OWNER, rescue), does(PEER, other))
    assert outcome.broken == {}
    assert outcome.waits > 0


@pytest.mark.parametrize("case", OF_TWO_PEERS)
async def test_no_schedule_of_two_that_own_nothing_breaks_a_promise(stage: Stage, case: str) -> None:
    run_id, one, other = OF_TWO_PEERS[case]
    outcome = await stage.show(scene(run_id), does(PEER, one), does(HEIR, other))
    assert outcome.broken == {}
    assert outcome.schedules > 1


@pytest.mark.parametrize(
    "late", [result(FLYING), cancel(FLYING), not_sent(FLYING)], ids=["a result", "a cancel", "not sent"]
)
async def test_what_comes_while_a_run_is_put_back_and_starts_again_counts_for_one_attempt(
    stage: Stage, late: Turn
) -> None:
    outcome = await stage.show(scene(FLYING), does(OWNER, failure(FLYING), tick), does(PEER, late))
    assert outcome.broken == {}
    assert outcome.waits > 0


async def test_of_two_submits_with_one_key_one_makes_the_run_and_the_other_finds_it(stage: Stage) -> None:
    outcome = await stage.show(scene(), does(PEER, submit(1)), does(HEIR, submit(2)))
    assert outcome.broken == {}
    assert outcome.endings == {("queued 0",)}
    assert outcome.clashes > 0


async def test_of_two_submits_with_a_key_whose_time_is_over_one_makes_the_run(stage: Stage) -> None:
    outcome = await stage.show(scene(KEYED, old_key=True), does(PEER, submit(1)), does(HEIR, submit(2)))
    assert outcome.broken == {}
    assert outcome.clashes > 0


async def test_of_two_submits_into_a_lane_that_is_new_one_makes_it_and_both_runs_are_there(stage: Stage) -> None:
    outcome = await stage.show(scene(new_lane=True), does(PEER, submit_plain(1)), does(HEIR, submit_plain(2)))
    assert outcome.broken == {}
    assert outcome.endings == {("queued 0", "queued 0")}
    assert outcome.waits > 0


async def test_of_two_submits_into_a_new_lane_the_owner_starts_its_own(stage: Stage) -> None:
    new = scene(new_lane=True, free=1)
    outcome = await stage.show(new, does(OWNER, submit_plain(1)), does(PEER, submit_plain(2)))
    assert outcome.broken == {}
    assert outcome.endings == {("running 1", "queued 0")}
