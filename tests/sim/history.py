"""What happened outside the database: what the client was told, what went over the wire, what workers did."""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, NamedTuple

Key = tuple[str, int]
"""A run's id and the number of its attempt."""
Part = Sequence[str] | Literal["failed", "start"]
"""What a replay of a workflow runs again: these nodes, what did not end well, or everything."""


class Rule(StrEnum):
    """What must hold."""

    STORED = "what was answered with success is stored"
    KEPT = "what is stored is never lost"
    COUNTED = "attempts count up one by one, and tries never exceed them nor max_attempts"
    TABLE = "a run moves only as the table of transitions allows"
    FINAL = "a final state is final, but for a replay that was asked for"
    DUE = "nothing starts before it is due, nor is due earlier than its policy says"
    EXPIRED = "nothing ends as too late before its time, nor starts after it"
    SLOTS = "no start beyond a worker's slots"
    LABELS = "a run goes only to a worker that its task can do with"
    GROUPS = "no start beyond max_runs of a group"
    RATES = "no more units start in any window than its limit says, and what started is stored"
    PAUSED = "nothing starts that is paused"
    DISPLACED = "a concurrency rule cancels only whom it names"
    CROWDED = "a group keeps no more runs than its rule allows"
    IDLE = "everything that can start does"
    TURNS = "turns rotate over the keys"
    OWNER = "only the owner of the lanes starts, readies, expires and rescues"
    RESCUE = "an attempt is rescued only when its lease is over"
    LEASE = "a lease is counted by the database's clock and never longer than agreed"
    ANSWER = "a result is what the worker said of that very attempt"
    ASKED = "a run is cancelled or replayed only when somebody asked for it"
    KEYS = "an idempotency key has one run, and so has a submit without one"
    ANSWERED = "every question is answered"
    COMMITTED = "an attempt is committed before it is sent"
    SENDER = "an attempt is sent by its sender alone"
    ONCE = "an attempt is sent at most once"
    FENCE = "a server that had lost its lease when it decided to send sends nothing"
    AT_MOST_ONCE = "a run with max_attempts 1 is executed at most once"
    HASTE = "nothing is started again and again as fast as it can be"
    TIMELINE = "the timeline agrees with the state"
    SNAPSHOT = "what is stored fits together"
    ENDS = "everything that was acknowledged ends"
    LEFT = "nothing is left when nothing runs"
    PICTURE = "what is counted in memory agrees with the rows"
    FIRES = "a schedule fires once for each due time, and leaves none out but by its policy"
    LISTENS = "an event starts one run for each listener and each true filter, in its own commit"
    CALLED = "what has finally failed calls once, in its own commit"
    MOVED = "a run is moved only when somebody asked for it, and while it waits for its time"
    GATHERED = "what is gathered is in one run that has not started, once"
    NODES = "a node starts once, after all its parents have ended well"
    WHOLE = "a workflow ends once, when its last node has"
    WAITS = "conditions let a node start, skip it and cancel it, and no event is lost"
    PARENTS = "a node is given what its parents put out"
    AGAIN = "a replay of a workflow runs again what was asked for, and keeps the rest"
    CASCADE = "with a run everything that belongs to it is cancelled, and nothing of it starts"
    CHILDREN = "a parent has one child of a key, and is linked to all of them"
    MISTAKE = "no part of the server makes a mistake"


class Violation(NamedTuple):
    """A rule that was broken: when (seconds), and how."""

    at: float
    rule: Rule
    what: str


class Asked(NamedTuple):
    """An acknowledged submit."""

    task: str
    key: str | None
    input: str


@dataclass(slots=True)
class History:
    """The record of one history. `clock` tells its time in seconds, `note` writes into its trace."""

    clock: Callable[[], float]
    note: Callable[[str], None]
    violations: list[Violation] = field(default_factory=list)
    acknowledged: dict[str, Asked] = field(default_factory=dict)
    cancels: set[str] = field(default_factory=set)
    """Runs whose cancellation somebody asked for, answered or not."""
    moves: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    """The times (ms) to which somebody asked to move a run, answered or not."""
    replays: Counter[str] = field(default_factory=Counter)
    """How often a replay of a run was asked for, answered or not."""
    replayed: Counter[str] = field(default_factory=Counter)
    """How often a run was replayed."""
    sent: dict[Key, str] = field(default_factory=dict)
    """Which process sent an attempt."""
    executed: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    """The attempts of a run whose handler began, in the order of their begin."""
    outputs: dict[Key, str] = field(default_factory=dict)
    """What the worker said an attempt came to."""
    failures: dict[Key, float | None] = field(default_factory=dict)
    """Attempts that the worker said failed, with the wait (seconds) that it asked for."""
    gave_in: dict[Key, str] = field(default_factory=dict)
    """Attempts that ended their own run as cancelled, with the reason."""
    redone: dict[str, list[Part]] = field(default_factory=lambda: defaultdict(list))
    """What of a workflow somebody asked to replay, answered or not."""
    children: dict[tuple[str, str], str] = field(default_factory=dict)
    """The child of each parent and key that somebody was told of."""
    set_back: bool = False
    """Whether the database's clock was."""
    counts: Counter[str] = field(default_factory=Counter)
    """How often what happened."""

    def broke(self, rule: Rule, what: str) -> None:
        """Remember that a rule was broken."""
        self.note(f"VIOLATION {rule}: {what}")
        self.violations.append(Violation(self.clock(), rule, what))

    def began(self, key: Key) -> None:
        """Remember that a worker began to execute an attempt."""
        run_id, attempt = key
        self.counts["executed"] += 1
        if attempt not in self.executed[run_id]:
            self.executed[run_id].append(attempt)
        self.note(f"executes {name(key)}")


def name(key: Key) -> str:
    """Return how an attempt is called in a trace."""
    return f"{key[0]}#{key[1]}"
