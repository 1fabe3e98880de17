"""The strategies that rank the runs of a concurrency group, and whom they cancel when another run joins."""

from collections.abc import Collection, Iterable
from typing import NamedTuple

from hurlbat_dispatcher.domain.budgets import Group, Member
from hurlbat_dispatcher.domain.policies import Strategy


class Displaced(NamedTuple):
    """A run that a rule cancels: the group, and the run that takes its place; None when it is the newcomer itself."""

    run_id: str
    group: Group
    by: str | None


def judge(groups: Iterable[Group], newcomer: Member) -> list[Displaced]:
    """Return whom the rules cancel now that a run joins these groups.

    A newcomer that one rule cancels displaces nobody by another.
    """
    found: dict[str, Displaced] = {}
    for group in groups:
        for run_id in cancelled(group.strategy, group.cap, group.members.values(), newcomer):
            if run_id == newcomer.run_id:
                return [Displaced(run_id, group, None)]
            found.setdefault(run_id, Displaced(run_id, group, newcomer.run_id))
    return list(found.values())


def cancelled(strategy: Strategy, cap: int | None, members: Collection[Member], newcomer: Member) -> list[str]:
    """Return the runs of one group that its strategy cancels, perhaps the newcomer among them."""
    if cap is None:
        return []
    everybody = [*members, newcomer]
    never_started = [member for member in everybody if not (member.started or member.running)]
    match strategy:
        case Strategy.CANCEL_IN_PROGRESS:
            best = sorted(everybody, key=_newest_first)
            return [member.run_id for member in best[cap:]]
        case Strategy.CANCEL_NEWEST:
            running = sum(member.running for member in members)
            best = sorted(never_started, key=_oldest_first)
            return [member.run_id for member in best[max(0, cap - running) :]]
        case Strategy.QUEUE_NEWEST_ONLY:
            return [member.run_id for member in sorted(never_started, key=_newest_first)[1:]]
        case Strategy.QUEUE_OLDEST_ONLY:
            return [member.run_id for member in sorted(never_started, key=_oldest_first)[1:]]
        case Strategy.GROUP_ROUND_ROBIN:
            return []


def collapses(group: Group) -> bool:
    """Tell whether a group's line has one place: who can start must have started before the next joins."""
    return group.strategy in (Strategy.QUEUE_NEWEST_ONLY, Strategy.QUEUE_OLDEST_ONLY)


def _oldest_first(member: Member) -> tuple[int, int, str]:
    return (-member.priority, member.joined_at, member.run_id)


def _newest_first(member: Member) -> "tuple[int, int, _Backwards]":
    return (-member.priority, -member.joined_at, _Backwards(member.run_id))


class _Backwards(str):
    """An id that sorts the other way round."""

    __slots__ = ()

    def __lt__(self, other: str) -> bool:
        return str.__gt__(self, other)
