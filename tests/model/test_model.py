"""The protocol of leases, fence and takeover keeps its promises in every state, and loses one with each guard."""

from dataclasses import replace

import pytest

from tests.model.explore import STUCK, Explored, explore
from tests.model.protocol import Model, Plant, Promise
from tests.support.processes import ROOT

SOUND = {
    Model(): 33_970,
    Model(max_attempts=1): 7_188,
    Model(pauses=2, crashes=0, max_attempts=1): 5_844,
    Model(servers=3, crashes=0): 16_157,
    Model(runs=2, crashes=0, max_attempts=1): 10_834,
    Model(runs=2, pauses=0, max_attempts=1): 3_867,
}
"""Worlds, and how many states each has."""
PLANTED = {
    Plant.NO_FENCE: Promise.ONE_ACTS,
    Plant.SAME_EPOCH: Promise.ONE_ACTS,
    Plant.PICTURE_KEPT: Promise.SLOTS,
    Plant.NO_LEASE_CHECK: Promise.SENT_IN_TIME,
    Plant.HANDS_KEPT: Promise.SENT_IN_TIME,
    Plant.LEASE_CHECKED_AFTER_SEND: Promise.TRIES,
    Plant.RESCUE_FREE: Promise.TRIES,
    Plant.ONE_TRY_MORE: Promise.CHARGED,
    Plant.SAME_ID: Promise.SENT_ONCE,
    Plant.FORGETFUL: Promise.SENT_ONCE,
    Plant.SENT_BEFORE_COMMIT: Promise.SENT_STORED,
    Plant.RESCUE_BLIND: Promise.LIVING,
    Plant.RESCUE_LATE: Promise.LIVING,
    Plant.ANY_ATTEMPT: Promise.OWN_ANSWER,
    Plant.AFTER_THE_END: Promise.FINAL,
    Plant.NO_RESCUE: STUCK,
    Plant.NO_SWEEP: STUCK,
    Plant.NO_RECOUNT: STUCK,
}
ENOUGH = {
    Plant.SAME_ID: Model(pauses=0),
    Plant.NO_RESCUE: Model(pauses=0),
    Plant.NO_SWEEP: Model(pauses=0, crashes=0),
    Plant.NO_RECOUNT: Model(runs=2, pauses=0, crashes=0),
    Plant.PICTURE_KEPT: Model(runs=2, pauses=0),
}
"""Which mishaps show a plant, where one pause does not."""


def walk(model: Model) -> Explored:
    """Walk through all states of a model."""
    return explore(model.begin(), model.steps, model.broken, model.ended)


@pytest.mark.parametrize("model", SOUND, ids=str)
def test_every_promise_holds_in_every_state(model: Model) -> None:
    found = walk(model)
    assert (found.broken, found.trace) == (None, ())
    assert found.states == SOUND[model]


@pytest.mark.parametrize("plant", Plant, ids=lambda plant: plant.name.lower())
def test_a_guard_that_is_left_out_breaks_a_promise_and_the_trace_tells_how(plant: Plant) -> None:
    found = walk(replace(ENOUGH.get(plant, Model(crashes=0)), plant=plant))
    print(f"{plant}: {'; '.join(found.trace)}")
    assert found.broken == PLANTED[plant]
    assert found.trace


def test_a_fence_that_is_missed_shows_after_a_pause_that_outlasts_the_lease() -> None:
    found = walk(Model(crashes=0, plant=Plant.NO_FENCE))
    assert found.trace[:5] == (
        "0 takes over",
        "0 is paused",
        "the lease of 0 runs out",
        "0 goes on",
        "1 takes over",
    )


def test_every_promise_is_seen_broken_by_some_plant() -> None:
    assert {*PLANTED.values()} == {*Promise, STUCK}


def test_the_guarantees_tell_how_much_was_walked_through() -> None:
    page = " ".join((ROOT / "docs" / "guarantees.md").read_text().split())
    assert f"In {sum(SOUND.values()):,} states of six such worlds" in page
    assert len(SOUND) == 6
    assert f"Each of {len(Plant)} guards was left out in turn" in page
