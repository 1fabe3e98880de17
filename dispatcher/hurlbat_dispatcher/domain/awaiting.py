"""Would a run that waits for another wait for ever? It would where the other needs what those who wait for it hold.

Who waits holds slots of its worker and places in its concurrency groups until it goes on. What other runs hold is no
such matter: they end, and then there is room.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from hurlbat_dispatcher.domain.policies import Draws, Strategy
from hurlbat_dispatcher.domain.terms import RuleTerms

QUEUING: Final = frozenset({Strategy.GROUP_ROUND_ROBIN, Strategy.QUEUE_NEWEST_ONLY, Strategy.QUEUE_OLDEST_ONLY})
"""Strategies by which a run that finds its group full waits; by the others one is cancelled, and nobody waits."""
SHOWN: Final = 5
"""Workers that are named."""


class Waiter(NamedTuple):
    """A run that goes on only when the awaited one has ended, and what it holds; the worker is "" of a workflow."""

    run_id: str
    worker: str
    draws: Draws


class Room(NamedTuple):
    """What a worker has room for: its slots, and what its window is pinned at, if it is."""

    slots: int
    pinned: int | None = None

    def fits(self, cost: int, held: int) -> bool:
        """Tell whether it takes a run of this cost when it does nothing but what holds so many slots."""
        most = self.slots if self.pinned is None else min(self.pinned, self.slots)
        return cost <= most - held or (held == 0 and cost <= self.slots)


class Work(NamedTuple):
    """What has to start for the awaited run to end: what it draws on, and the workers that may take it, by name.

    Without any it waits for one to be registered, or it is a workflow, and starts anywhere.
    """

    task: str
    draws: Draws
    workers: Mapping[str, Room]


def held_back(waiters: Sequence[Waiter], needed: Sequence[Work], rules: Mapping[str, RuleTerms]) -> str | None:
    """Return why some of the work could never start while these wait, and what to do, in a sentence; None if it can."""
    slots: Counter[str] = Counter()
    places: Counter[tuple[str, str]] = Counter()
    for waiter in waiters:
        if waiter.worker:
            slots[waiter.worker] += waiter.draws.cost
        places.update(waiter.draws.groups)
    who, hold, wait = ("run", "holds", "waits") if len(waiters) == 1 else ("runs", "hold", "wait")
    for work in needed:
        for rule, value in work.draws.groups:
            terms = rules.get(rule)
            if terms is not None and terms.strategy in QUEUING and places[rule, value] >= terms.max_runs:
                return (
                    f"{work.task} could never start: the {who} that {wait} for it {hold} all places ({terms.max_runs})"
                    f" of its concurrency group {value!r}; raise max_runs, give it another key, or do not wait for it"
                )
        if _is_full(work, slots):
            names = sorted(work.workers)
            listed = ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
            workers = f"worker {listed} serves" if len(names) == 1 else f"workers {listed} serve"
            takes = "a slot" if work.draws.cost == 1 else f"{work.draws.cost} slots"
            return (
                f"{work.task} could never start: it takes {takes}, only {workers} it, and the {who} that {wait} for it"
                f" {hold} the slots there; give a worker more slots, let another serve {work.task}, or do not wait"
                " for it"
            )
    return None


def _is_full(work: Work, slots: Mapping[str, int]) -> bool:
    """Tell whether only those who wait keep the work from starting."""
    cost = work.draws.cost
    if any(room.fits(cost, slots.get(name, 0)) for name, room in work.workers.items()):
        return False
    return any(room.fits(cost, 0) for room in work.workers.values())
