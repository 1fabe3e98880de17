"""The table of transitions."""

import itertools

import pytest

from hurlbat_dispatcher.domain.lifecycle import FINAL, TRANSITIONS, ImpossibleTransition, RunEvent, RunState, move

PAIRS = list(itertools.product(RunState, RunEvent))


@pytest.mark.parametrize(("state", "event"), PAIRS)
def test_every_pair_is_in_the_table_or_impossible(state: RunState, event: RunEvent) -> None:
    if (state, event) in TRANSITIONS:
        assert move(state, event) is TRANSITIONS[state, event]
        return
    with pytest.raises(ImpossibleTransition, match=f"a {state} run cannot be {event.replace('_', ' ')}") as impossible:
        move(state, event)
    assert (impossible.value.state, impossible.value.event) == (state, event)


@pytest.mark.parametrize("state", sorted(FINAL))
def test_a_final_state_is_left_by_a_replay_alone(state: RunState) -> None:
    assert [event for event in RunEvent if (state, event) in TRANSITIONS] == [RunEvent.REPLAYED]


def test_only_a_queued_run_starts_and_every_state_that_is_not_final_can_be_cancelled() -> None:
    assert [state for state in RunState if (state, RunEvent.STARTED) in TRANSITIONS] == [RunState.QUEUED]
    assert {state for state in RunState if (state, RunEvent.CANCELLED) in TRANSITIONS} == set(RunState) - FINAL


def test_every_state_is_reached_and_every_event_happens() -> None:
    assert {*TRANSITIONS.values()} == set(RunState)
    assert {event for _, event in TRANSITIONS} == set(RunEvent)
