"""What holds a lane: where admission left it, and how much room there is in all that its runs draw on.

Nothing is decided here: the holder is the budget in whose line the lane stands, or the slots of its pool.
"""

import json
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Final

from hurlbat_dispatcher.domain.budgets import Budget, Gate, Group, Need, Rate
from hurlbat_dispatcher.domain.flow import Picture
from hurlbat_dispatcher.domain.lanes import Lane, Pool
from hurlbat_dispatcher.domain.slots import Slots

MAX_OCCUPANTS: Final = 10
"""Runs that are named as those that occupy a budget."""


class Kind(StrEnum):
    """The kinds of budgets."""

    SLOTS = "slots"
    CONCURRENCY = "concurrency"
    RATE_LIMIT = "rate_limit"
    PAUSE = "pause"


@dataclass(frozen=True, slots=True)
class BudgetView:
    """One budget that a run draws on. Times and durations are ms.

    `name` is the worker, the rule, the key or the task; `key` the value of a concurrency key; `limit` and `used` are in
    `units` of which the run takes some; `opens_at` is when there is room by the passing of time alone; `note` is a
    sentence where there is more to say.
    """

    kind: Kind
    name: str
    room: bool
    holds: bool = False
    key: str | None = None
    limit: int | None = None
    used: int | None = None
    units: int = 1
    duration: int | None = None
    dynamic: bool = False
    opens_at: int | None = None
    occupied_by: tuple[str, ...] = ()
    reserved_for: str | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Holding:
    """How a waiting run stands: its budgets, and whether it is `next`, as nothing holds it."""

    budgets: tuple[BudgetView, ...] = ()
    next: bool = False


def look(picture: Picture, lane: Lane, now: int) -> Holding:
    """Return how a run stands that waits in this lane."""
    line = lane.place.line if lane.place is not None else None
    holder = line if isinstance(line, Need) else None
    budgets = [_keyed(picture, lane, need, holder, now) for need in lane.needs]
    slots = [_slots(picture, lane.pool, slots, now) for slots, _ in lane.pool.workers]
    by_slots = holder is None and lane.place is not None and lane.pool.choose(now) is None
    if by_slots:
        slots = [replace(one, holds=True, room=False) for one in slots]
        if not slots:
            slots = [BudgetView(Kind.SLOTS, "", room=False, holds=True, limit=0, used=0, units=lane.draws.cost)]
    return Holding((*budgets, *slots), next=holder is None and not by_slots)


def _keyed(picture: Picture, lane: Lane, need: Need, holder: Need | None, now: int) -> BudgetView:
    budget, units, limit = need
    holds = holder is not None and holder.budget is budget
    other = budget.reserved if budget.reserved not in (None, lane) else None
    head = other.head() if other is not None else None
    room = other is None and budget.room(now, units, limit)
    reserved = head.run_id if head is not None else None
    if isinstance(budget, Group):
        return BudgetView(
            Kind.CONCURRENCY,
            rule_said(budget.rule),
            room,
            holds,
            key=budget.value,
            limit=budget.cap,
            used=budget.used,
            occupied_by=_occupants(picture, budget),
            reserved_for=reserved,
        )
    if isinstance(budget, Rate):
        kind, _, key = budget.name.partition(":")
        paused = now < budget.paused_until
        return BudgetView(
            Kind.RATE_LIMIT,
            key,
            room,
            holds,
            limit=budget.most if budget.most is not None else limit or None,
            used=budget.counted(now),
            units=units,
            duration=budget.span,
            dynamic=kind == "dynamic",
            opens_at=budget.opens_at(now, units, limit) if not room else None,
            reserved_for=reserved,
            note="it is not known any longer" if not budget.known else "it is paused" if paused else None,
        )
    shut = isinstance(budget, Gate) and budget.shut
    return BudgetView(Kind.PAUSE, lane.task, room, holds, note="the task is paused" if shut else None)


def _slots(picture: Picture, pool: Pool, slots: Slots, now: int) -> BudgetView:
    other = slots.reserved if slots.reserved is not pool else None
    kept = other.ring.first() if other is not None else None
    waits = slots.serving and now < slots.not_before
    note = None
    if not slots.serving:
        note = "it is not sent to"
    elif slots.probing:
        note = "it could not be reached, and is tried with one delivery at a time"
    elif waits:
        note = "it has asked to wait"
    elif slots.window.size < slots.window.slots and slots.used + pool.cost > slots.window.size:
        note = f"its window is {slots.window.size} of its {slots.window.slots} slots now"
    return BudgetView(
        Kind.SLOTS,
        slots.worker,
        room=other is None and slots.takes(pool.cost, now),
        limit=min(slots.window.size, slots.window.slots),
        used=slots.used,
        units=pool.cost,
        opens_at=slots.not_before if waits else None,
        occupied_by=tuple(
            sorted(run_id for run_id, flight in picture.running.items() if flight.slots is slots)[:MAX_OCCUPANTS]
        ),
        reserved_for=kept[2].heap[0].run_id if kept is not None else None,
        note=note,
    )


def _occupants(picture: Picture, budget: Budget) -> tuple[str, ...]:
    found = [
        run_id for run_id, flight in picture.running.items() if any(need.budget is budget for need in flight.needs)
    ]
    return tuple(sorted(found)[:MAX_OCCUPANTS])


def rule_said(rule: str) -> str:
    """Return what people call a rule: its own name, or its key."""
    return rule.split(":", 2 if rule.startswith("task:") else 1)[-1]


def as_json(holding: Holding | None, most: int) -> str:
    """Return how a lane stands, in at most so many characters where it is quoted in other JSON.

    Budgets that do not hold it are left out first.
    """
    if holding is None:
        return "null"
    ordered = sorted(holding.budgets, key=lambda one: not one.holds)
    while True:
        text = json.dumps({"budgets": [asdict(one) for one in ordered], "next": holding.next})
        if len(json.dumps(text)) <= most or not ordered:
            return text
        ordered.pop()


def from_json(text: str) -> Holding | None:
    """Read what `as_json` wrote."""
    said = json.loads(text)
    if said is None:
        return None
    views = [
        BudgetView(**(one | {"kind": Kind(one["kind"]), "occupied_by": tuple(one["occupied_by"])}))
        for one in said["budgets"]
    ]
    return Holding(tuple(views), said["next"])
