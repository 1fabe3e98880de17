"""The tests of this folder can fail: each guard of the transactions is broken once, and a schedule shows it.

A fault is planted into the SQL of one statement as it goes to the database; the scripts stay as they are.
"""

from typing import NamedTuple

import pytest

from hurlbat_dispatcher.store import leases, runs
from tests.interleavings.scenes import (
    DELAYED,
    ENDED,
    FLYING,
    HEIR,
    NEXT,
    NOW,
    ORPHAN,
    OWNER,
    PEER,
    SILENT,
    WAITING,
    Deed,
    Scene,
    cancel,
    does,
    failure,
    hands_over,
    look,
    recall,
    renews,
    replay,
    result,
    scene,
    submit,
    succeeds,
    sweep,
    tick,
)
from tests.interleavings.stage import Stage
from tests.interleavings.stepper import Fault

pytestmark = pytest.mark.anyio

FENCE_HOLDS_NOTHING = Fault(leases.FENCE, r" FOR UPDATE", "")
RENEWAL_LOCKS_NOTHING = Fault(leases._HOLD, r" FOR UPDATE SKIP LOCKED", "")
LOAD_LOCKS_NOTHING = Fault(runs.LOAD, r" FOR UPDATE", "")
START_LOCKS_NOTHING = Fault(runs.PAYLOADS, r" FOR UPDATE", "")
START_OF_ANY_STATE = Fault(runs.PAYLOADS, r" AND run\.state = 'queued'", "")
RESCUE_LOCKS_NOTHING = Fault(runs.LEASE_OVER, r" FOR UPDATE", "")
RESCUE_OF_ORPHANS_LOCKS_NOTHING = Fault(runs.ORPHANED, r" FOR UPDATE", "")
NOBODY_IS_WAITED_FOR = Fault(leases._GIVE, r" FOR UPDATE", "")
ENDS_ANY_ATTEMPT = Fault(runs.END, r"run\.attempt = (\$\d+::INTEGER)", r"\1 IS NOT NULL")
KEY_TAKEN_IS_NO_CLASH = Fault(runs.KEEP_KEY, r"\Z", " ON CONFLICT DO NOTHING")

LOST = scene(WAITING, NEXT, free=1, owned_until=NOW - 1)


class Case(NamedTuple):
    """Faults, where they are planted, and a part of the sentence that tells what they break."""

    faults: tuple[Fault, ...]
    scene: Scene
    one: Deed
    other: Deed
    sentence: str


CASES = {
    "a fence that holds nothing lets an old owner start runs": Case(
        (FENCE_HOLDS_NOTHING,),
        LOST,
        does(OWNER, look),
        succeeds(HEIR, look),
        "wrote in epoch 7 what only heir of epoch 8 may write",
    ),
    "two old owners sell a slot twice": Case(
        (FENCE_HOLDS_NOTHING,), LOST, does(OWNER, submit(1)), succeeds(HEIR, look), "2 slots of w are taken"
    ),
    "renewals that lock nothing give an epoch twice": Case(
        (RENEWAL_LOCKS_NOTHING,), LOST, renews(PEER), renews(HEIR), "epoch 8 was"
    ),
    "rows that are read without a lock end twice": Case(
        (LOAD_LOCKS_NOTHING,),
        scene(FLYING),
        does(OWNER, result(FLYING)),
        does(PEER, cancel(FLYING)),
        "became run …01 cancelled",
    ),
    "rows that are read without a lock are replayed twice": Case(
        (LOAD_LOCKS_NOTHING,),
        scene(ENDED),
        does(OWNER, replay(ENDED)),
        does(PEER, replay(ENDED)),
        "its timeline tells these numbers of ends of its attempts: [2]",
    ),
    "an end of any attempt takes an old answer for a new one": Case(
        (LOAD_LOCKS_NOTHING, ENDS_ANY_ATTEMPT),
        scene(FLYING),
        does(OWNER, failure(FLYING), tick),
        does(PEER, result(FLYING)),
        'completed in attempt 2 has "the answer of attempt 1"',
    ),
    "a start that locks nothing starts what was cancelled": Case(
        (START_LOCKS_NOTHING,),
        scene(WAITING, free=1),
        does(OWNER, look),
        does(PEER, cancel(WAITING)),
        "run …02 cancelled in attempt 0 became run …02 running",
    ),
    "a start that does not look at the state starts what was cancelled": Case(
        (START_OF_ANY_STATE,),
        scene(WAITING, free=1),
        does(OWNER, look),
        does(PEER, cancel(WAITING)),
        "run …02 cancelled in attempt 0 became run …02 running",
    ),
    "a rescue that locks nothing puts back what has ended": Case(
        (RESCUE_LOCKS_NOTHING,),
        scene(SILENT),
        does(OWNER, sweep),
        does(PEER, result(SILENT)),
        "run …05 completed in attempt 1 became run …05 queued",
    ),
    "a rescue of orphans that locks nothing puts back what has ended": Case(
        (RESCUE_OF_ORPHANS_LOCKS_NOTHING,),
        scene(ORPHAN),
        does(OWNER, sweep),
        does(PEER, result(ORPHAN)),
        "run …06 completed in attempt 1 became run …06 queued",
    ),
    "a recall that locks nothing puts back what has ended": Case(
        (LOAD_LOCKS_NOTHING,),
        scene(FLYING),
        does(PEER, recall),
        does(HEIR, result(FLYING)),
        "run …01 completed in attempt 1 became run …01 queued",
    ),
    "a peer that nothing holds is given work as it stops": Case(
        (NOBODY_IS_WAITED_FOR,),
        scene(DELAYED, free=1),
        does(OWNER, tick),
        hands_over(PEER),
        "was given to peer, which takes no more work",
    ),
    "a key whose second run does not clash has two": Case(
        (KEY_TAKEN_IS_NO_CLASH,), scene(), does(PEER, submit(1)), does(HEIR, submit(2)), "2 runs that have not ended"
    ),
}


@pytest.mark.parametrize("case", CASES)
async def test_a_schedule_shows_that(stage: Stage, case: str) -> None:
    faults, arranged, one, other, sentence = CASES[case]
    outcome = await stage.show(arranged, one, other, faults=faults, until_broken=sentence)
    assert [found for found in outcome.broken if sentence in found], list(outcome.broken)


async def test_an_old_answer_ends_no_new_attempt_even_if_its_row_was_read_without_a_lock(stage: Stage) -> None:
    outcome = await stage.show(
        scene(FLYING), does(OWNER, failure(FLYING), tick), does(PEER, result(FLYING)), faults=[LOAD_LOCKS_NOTHING]
    )
    assert not [found for found in outcome.broken if "completed in attempt 2 has" in found]


async def test_a_fault_that_no_longer_fits_its_statement_is_an_error(stage: Stage) -> None:
    fault = Fault(runs.LOAD, " FOR NOBODY", "")
    with pytest.raises(AssertionError, match="FOR NOBODY is there 0 times"):
        await stage.show(scene(FLYING), does(OWNER, result(FLYING)), does(PEER, look), faults=[fault])
