"""Who would wait for ever, by the rule alone."""

from collections.abc import Mapping, Sequence

import pytest

from hurlbat_dispatcher.domain.awaiting import Room, Waiter, Work, held_back
from hurlbat_dispatcher.domain.policies import PLAIN, Draws, GroupDraw, Strategy
from hurlbat_dispatcher.domain.terms import RuleTerms

ALL = GroupDraw("task:echo:'all'", "all")


def waiter(worker: str = "w", cost: int = 1, *groups: GroupDraw) -> Waiter:
    return Waiter("run", worker, Draws(groups, cost=cost))


def work(workers: Mapping[str, Room | int], cost: int = 1, *groups: GroupDraw) -> Work:
    rooms = {name: Room(room) if isinstance(room, int) else room for name, room in workers.items()}
    return Work("echo", Draws(groups, cost=cost), rooms)


def rules(most: int, strategy: Strategy = Strategy.GROUP_ROUND_ROBIN) -> Mapping[str, RuleTerms]:
    return {ALL.rule: RuleTerms(most, strategy)}


@pytest.mark.parametrize(
    ("waiters", "needed"),
    [
        ([waiter()], work({"w": 2})),
        ([waiter()], work({"w": 1, "v": 1})),
        ([waiter("v")], work({"w": 1})),
        ([waiter(), waiter("v")], work({"w": 1, "v": 2})),
        ([waiter("")], work({"w": 1})),
        ([waiter("w", 2)], work({"w": 5}, 3)),
        ([waiter("w", 2)], work({"w": 4}, 2)),
        ([waiter()], work({})),
        ([waiter()], work({"w": 1, "v": 1}, 2)),  # it could not start if nobody waited, either
        ([waiter("v")], work({"w": Room(8, pinned=1)}, 4)),  # it goes there when that does nothing else
        ([waiter()], work({"w": Room(8, pinned=2)})),
    ],
)
def test_who_leaves_room_for_the_awaited_is_not_held_back(waiters: Sequence[Waiter], needed: Work) -> None:
    assert held_back(waiters, [needed], {}) is None


@pytest.mark.parametrize(
    ("waiters", "needed"),
    [
        ([waiter()], work({"w": 1})),
        ([waiter(), waiter("w", 2)], work({"w": 3})),
        ([waiter(), waiter("v")], work({"w": 1, "v": 1})),
        ([waiter("w", 2)], work({"w": 4}, 3)),
        ([waiter()], work({"w": 2, "v": 1}, 2)),
        ([waiter()], work({"w": Room(8, pinned=1)})),
        ([waiter()], work({"w": Room(8, pinned=1)}, 4)),
    ],
)
def test_who_holds_what_the_awaited_needs_would_wait_for_ever(waiters: Sequence[Waiter], needed: Work) -> None:
    assert held_back(waiters, [needed], {}) is not None


def test_a_single_part_that_cannot_start_is_enough() -> None:
    assert held_back([waiter()], [work({"v": 1}), work({"w": 1})], {}) is not None


def test_a_group_is_full_by_those_who_wait_or_not_at_all() -> None:
    one, other = waiter("", 1, ALL), waiter("", 1, GroupDraw(ALL.rule, "other"))
    needed = work({"w": 9}, 1, ALL)
    assert held_back([one], [needed], rules(1)) is not None
    assert held_back([one], [needed], rules(2)) is None
    assert held_back([one, one], [needed], rules(2)) is not None
    assert held_back([other], [needed], rules(1)) is None
    assert held_back([one], [needed], {}) is None
    assert held_back([one], [work({"w": 9})], rules(1)) is None


@pytest.mark.parametrize("strategy", Strategy)
def test_only_who_finds_the_group_full_and_is_not_cancelled_waits(strategy: Strategy) -> None:
    found = held_back([waiter("", 1, ALL)], [work({"w": 9}, 1, ALL)], rules(1, strategy))
    assert (found is None) is strategy.startswith("CANCEL")


def test_the_sentence_says_what_is_short_and_what_to_do() -> None:
    assert held_back([waiter()], [work({"w": 1})], {}) == (
        "echo could never start: it takes a slot, only worker w serves it, and the run that waits for it holds the"
        " slots there; give a worker more slots, let another serve echo, or do not wait for it"
    )
    many = {f"w{n}": 1 for n in range(7)}
    assert held_back([waiter(name) for name in many], [work(many)], {}) == (
        "echo could never start: it takes a slot, only workers w0, w1, w2, w3, w4 and 2 more serve it, and the runs"
        " that wait for it hold the slots there; give a worker more slots, let another serve echo, or do not wait for"
        " it"
    )
    assert held_back([waiter("w", 2)], [work({"w": 3}, 3)], {}) == (
        "echo could never start: it takes 3 slots, only worker w serves it, and the run that waits for it holds the"
        " slots there; give a worker more slots, let another serve echo, or do not wait for it"
    )
    assert held_back([waiter("w", 1, ALL)], [work({"w": 9}, 1, ALL)], rules(1)) == (
        "echo could never start: the run that waits for it holds all places (1) of its concurrency group 'all'; raise"
        " max_runs, give it another key, or do not wait for it"
    )


def test_nobody_who_waits_holds_nothing() -> None:
    assert held_back([], [work({"w": 1}, 1, ALL)], rules(1)) is None
    assert held_back([Waiter("run", "w", PLAIN)], [], rules(1)) is None
