"""Turns that rotate: a ring holds lanes by whose turn it is next, and asks no more of any than a look at its top.

A *rotation* is what takes turns within a pool: a value of the first round-robin rule, else the task. Its key is when it
last started or began to wait, aged by the priority of its best run; so among equal priorities the one that has waited
longest for its turn is next. Within a rotation the lanes go by the rank of their heads: priority, then age.

Entries are lazy: what has moved on since it was pushed is dropped or put right when it comes to the top.
"""

from collections.abc import Iterator
from heapq import heappop, heappush, heapreplace
from typing import TYPE_CHECKING

from hurlbat_dispatcher.domain.runs import AGE_MS

if TYPE_CHECKING:
    from hurlbat_dispatcher.domain.lanes import Lane

Place = tuple[int, int, "Lane"]
"""The key of a lane's turn, with its stamp, and the lane."""


class Rotation:
    """Who takes turns: since when it waits for one (ms), with a stamp that tells equal times apart."""

    __slots__ = ("since", "stamp", "waiting")

    def __init__(self) -> None:
        self.since = 0
        self.stamp = 0
        self.waiting = 0
        """How many of its lanes have runs that wait."""

    def begin(self, since: int, stamp: int) -> None:
        """Wait for a turn from now on."""
        self.since = since
        self.stamp = stamp


class _Turn:
    """The lanes of one rotation that stand in one ring."""

    __slots__ = ("lanes", "pushed")

    def __init__(self) -> None:
        self.lanes: list[tuple[int, str, Lane]] = []
        self.pushed: tuple[int, int] | None = None


class Ring:
    """Lanes that wait for the same thing, by turns."""

    __slots__ = ("_heap", "_turns", "line")

    def __init__(self, line: object = None) -> None:
        self.line = line
        """The need whose line it is; None for the ring of a pool."""
        self._heap: list[tuple[int, int, Rotation]] = []
        self._turns: dict[Rotation, _Turn] = {}

    def enter(self, lane: "Lane") -> None:
        """Put a lane in by its head; one that stands here already is put right."""
        head = lane.heap[0]
        rotation = lane.rotation
        turn = self._turns.get(rotation)
        if turn is None:
            turn = self._turns[rotation] = _Turn()
        lane.place = self
        lane.entry = entry = (head.rank, head.run_id)
        heappush(turn.lanes, (*entry, lane))
        self._improve(turn, rotation)

    def left(self, rotation: Rotation) -> None:
        """Know that a lane has moved on: those behind it may have a better key."""
        turn = self._turns.get(rotation)
        if turn is not None:
            self._improve(turn, rotation)

    def first(self) -> Place | None:
        """Return the lane whose turn it is, with the key by which it stands against those of other rings."""
        heap = self._heap
        while heap:
            key, stamp, rotation = heap[0]
            turn = self._turns.get(rotation)
            if turn is None or turn.pushed != (key, stamp):
                heappop(heap)
                continue
            lane = self._best(turn)
            if lane is None:
                heappop(heap)
                del self._turns[rotation]
                continue
            now = (rotation.since - AGE_MS * lane.heap[0].priority, rotation.stamp)
            if now == turn.pushed:
                return key, stamp, lane
            turn.pushed = now
            heapreplace(heap, (*now, rotation))
        return None

    def _improve(self, turn: _Turn, rotation: Rotation) -> None:
        lane = self._best(turn)
        if lane is not None:
            key = (rotation.since - AGE_MS * lane.heap[0].priority, rotation.stamp)
            if turn.pushed is None or key < turn.pushed:
                turn.pushed = key
                heappush(self._heap, (*key, rotation))

    def _best(self, turn: _Turn) -> "Lane | None":
        while turn.lanes:
            rank, run_id, lane = turn.lanes[0]
            if lane.place is self and lane.entry == (rank, run_id):
                return lane
            heappop(turn.lanes)
        return None

    def __iter__(self) -> "Iterator[Lane]":
        """Go through the lanes that stand here, in no order."""
        seen: dict[Lane, None] = {}
        for turn in self._turns.values():
            for rank, run_id, lane in turn.lanes:
                if lane.place is self and lane.entry == (rank, run_id):
                    seen[lane] = None
        return iter(seen)
