"""Whether the timeline of a run agrees with its state."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Final

from hurlbat_dispatcher import Run

_PUTS_BACK: Final = frozenset({"retry", "not_sent", "pushed_back", "held", "not_started"})
_QUIET_AFTER: Final = 100
"""Starts after which not every one that was not charged is told."""
_BESIDE: Final = frozenset({"late", "log", "progress", "displaced", "callback", "moved", "gathered"})


def disagreements(run: Run, *, set_back: bool = False) -> Iterator[str]:
    """Return what of the timeline does not fit the run. `set_back`: so was the clock, and order tells nothing."""
    told = [entry for entry in run.timeline if entry.kind not in _BESIDE]
    kinds = [(entry.kind, entry.attempt) for entry in told]
    starts = [entry.attempt for entry in told if entry.kind == "started"]
    if set_back:
        starts.sort()
    elif not kinds or kinds[0] != ("created", 0):
        yield f"it begins with {kinds[:1]}"
    elif run.is_final and kinds[-1][0] != run.state:
        yield f"it is {run.state} and its timeline ends with {kinds[-1]}"
    elif any(one.at > other.at for one, other in pairwise(told)):
        yield "its timeline goes back in time"
    if run.kind == "workflow":
        most = 1 + sum(kind == "replayed" for kind, _ in kinds)
        if any(starts) or len(starts) > most or (run.state == "running" and not starts):
            yield f"its timeline has the starts {starts} and {most - 1} replays"
        return
    if not _complete(starts, run.attempt):
        yield f"it is in attempt {run.attempt} and its timeline has the starts {starts}"
    put_back = sum(kind in _PUTS_BACK for kind, _ in kinds)
    ends = put_back + sum(kind == "replayed" for kind, _ in kinds) + (1 if run.is_final or run.attempt else 0)
    if len(starts) > ends:
        yield f"it has {len(starts)} starts and {ends} ends"


def _complete(starts: list[int], attempt: int) -> bool:
    """Whether the starts count up to this attempt, as far as each is told."""
    if attempt <= _QUIET_AFTER:
        return starts == list(range(1, attempt + 1))
    return starts == sorted(starts) and starts[:_QUIET_AFTER] == list(range(1, _QUIET_AFTER + 1))
