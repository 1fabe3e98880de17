"""The strategies that rank the runs of a concurrency group, and whom they cancel when another run joins."""

from collections.abc import Collection, Iterable
from heapq import heapify, heappop, heappush
from typing import Final, NamedTuple

from hurlbat_dispatcher.domain.budgets import Group, Member
from hurlbat_dispatcher.domain.policies import Strategy

Entry = tuple[int, int, int, str]
"""How a run compares with others of its group, of one millisecond by their order: the least is cancelled first."""
SPARE: Final = 64
"""Entries that a ranking may have beyond twice those that count."""


class Displaced(NamedTuple):
    """A run that a rule cancels: the group, and the run that takes its place; None when it is the newcomer itself."""

    run_id: str
    group: Group
    by: str | None


class Ranking:
    """The runs of a group that its strategy may cancel, the worst first: a newcomer is compared with a few of them.

    It is told of every change of a member (`note`, `forget`), and answers in the time of some heap operations.
    """

    def __init__(self, strategy: Strategy, members: Collection[Member]) -> None:
        self.strategy = strategy
        self._entries: dict[str, Entry] = {}
        self._heap: list[Entry] = []
        self._running: set[str] = set()
        self._numbers: dict[str, int] = {}
        self._joined = 0
        for member in sorted(members, key=lambda member: (member.joined_at, member.run_id)):
            self.note(member)

    def note(self, member: Member) -> None:
        """Know of a run that lives in the group, as it is now."""
        run_id = member.run_id
        if run_id not in self._numbers:
            self._numbers[run_id] = self._joined
            self._joined += 1
        (self._running.add if member.running else self._running.discard)(run_id)
        if self.strategy is Strategy.CANCEL_IN_PROGRESS or not (member.started or member.running):
            if run_id not in self._entries:
                self._entries[run_id] = entry = self._entry(member)
                heappush(self._heap, entry)
                if len(self._heap) > 2 * len(self._entries) + SPARE:
                    self._heap = list(self._entries.values())
                    heapify(self._heap)
        else:
            self._entries.pop(run_id, None)

    def forget(self, run_id: str) -> None:
        """Know that a run lives in the group no longer."""
        self._running.discard(run_id)
        self._entries.pop(run_id, None)
        self._numbers.pop(run_id, None)

    def cancelled(self, cap: int, newcomer: Member) -> list[str]:
        """Return the runs that are too many when one more joins, perhaps that one among them; the worst come last."""
        match self.strategy:
            case Strategy.CANCEL_IN_PROGRESS:
                kept = cap
            case Strategy.CANCEL_NEWEST:
                kept = max(0, cap - len(self._running))
            case Strategy.QUEUE_NEWEST_ONLY | Strategy.QUEUE_OLDEST_ONLY:
                kept = 1
            case Strategy.GROUP_ROUND_ROBIN:
                return []
        many = len(self._entries) + 1 - kept
        worst: list[Entry] = []
        while len(worst) < many and self._heap:
            entry = heappop(self._heap)
            if self._entries.get(entry[3]) is entry:
                worst.append(entry)
        for entry in worst:
            heappush(self._heap, entry)
        return [str(entry[3]) for entry in sorted([*worst, self._entry(newcomer)])[: max(0, many)][::-1]]

    def _entry(self, member: Member) -> Entry:
        number = self._numbers.get(member.run_id, self._joined)
        if self.strategy in (Strategy.CANCEL_IN_PROGRESS, Strategy.QUEUE_NEWEST_ONLY):
            return (member.priority, member.joined_at, number, member.run_id)
        return (member.priority, -member.joined_at, -number, member.run_id)


def judge(groups: Iterable[Group], newcomer: Member) -> list[Displaced]:
    """Return whom the rules cancel now that a run joins these groups.

    A newcomer that one rule cancels displaces nobody by another.
    """
    found: dict[str, Displaced] = {}
    for group in groups:
        if group.cap is None or (not collapses(group) and len(group.members) < group.cap):
            continue  # nobody is too many
        if group.ranking is None or group.ranking.strategy is not group.strategy:
            group.ranking = Ranking(group.strategy, group.members.values())
        for run_id in group.ranking.cancelled(group.cap, newcomer):
            if run_id == newcomer.run_id:
                return [Displaced(run_id, group, None)]
            found.setdefault(run_id, Displaced(run_id, group, newcomer.run_id))
    return list(found.values())


def cancelled(strategy: Strategy, cap: int | None, members: Collection[Member], newcomer: Member) -> list[str]:
    """Return the runs of one group that its strategy cancels, perhaps the newcomer among them."""
    return [] if cap is None else Ranking(strategy, members).cancelled(cap, newcomer)


def collapses(group: Group) -> bool:
    """Tell whether a group's line has one place: who can start must have started before the next joins."""
    return group.strategy in (Strategy.QUEUE_NEWEST_ONLY, Strategy.QUEUE_OLDEST_ONLY)
