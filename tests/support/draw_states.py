"""Draw `docs/states.md` from the table of transitions: `python -m tests.support.draw_states`."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from hurlbat_dispatcher.domain.lifecycle import FINAL, TRANSITIONS, RunEvent, RunState

PAGE: Final = Path(__file__).parents[2] / "docs" / "states.md"

MEANING: Final[Mapping[RunEvent, str]] = {
    RunEvent.STARTED: "an attempt was stored, with its worker and its sender; it is sent after that",
    RunEvent.SUCCEEDED: "the running attempt's result came, an output; of a workflow, all nodes have ended well",
    RunEvent.GAVE_UP: "the running attempt failed, and no other may follow: the tries are used up, or it said so; of a "
    "workflow, a node has failed; of a node, a condition or its input could not be evaluated",
    RunEvent.PUT_BACK: "the running attempt ended, and another follows: a retry, or because it never began",
    RunEvent.SUSPENDED: "a durable task waits; for later versions",
    RunEvent.RESUMED: "what a node of a workflow waited for has come",
    RunEvent.CANCELLED: "somebody asked for that, or it went with another run; `cancelled_by` says who",
    RunEvent.EXPIRED: "its `ttl` was over before it started",
    RunEvent.TIMED_OUT: "it could not start within its task's `schedule_timeout`",
    RunEvent.SKIPPED: "the `skip_if` of a node came true, or its `wait_for` never can",
    RunEvent.REPLAYED: "somebody asked for it to run again; its history stays",
}

HEAD: Final = """\
# States of a run

Drawn by `tests/support/draw_states.py` from the table in `domain/lifecycle.py`; a test holds this page to it. What the
table does not have cannot happen. What is promised of it is in [Guarantees](guarantees.md#one-final-state).
"""

TAIL: Final = """\
A run that is scheduled, delayed or between two attempts is `queued`, with a time at which it is due. An answer of an
attempt that is not the running one moves nothing: the timeline tells of it as `late`. A run of a
[workflow](workflows.md) is `running` from when it begins to the end of its last node, with no attempts of its own. The
run of a node appears when the node is reached; one that waits for its conditions begins as `suspended`.
"""


def page() -> str:
    """Return the whole page."""
    diagram = "\n".join(["```mermaid", "stateDiagram-v2", *(f"    {line}" for line in _arrows()), "```"])
    finals = ", ".join(f"`{state}`" for state in RunState if state in FINAL)
    return "\n".join(
        [HEAD, diagram, "", *_table(), "", f"Final are {finals}: they are left by a replay alone.", "", TAIL]
    )


def _arrows() -> Iterator[str]:
    yield f"[*] --> {RunState.QUEUED}: submitted"
    yield f"[*] --> {RunState.SUSPENDED}: a node that waits"
    joined: dict[tuple[RunState, RunState], list[str]] = {}
    for (before, event), after in TRANSITIONS.items():
        joined.setdefault((before, after), []).append(event.replace("_", " "))
    for (before, after), events in joined.items():
        yield f"{before} --> {after}: {', '.join(events)}"
    for state in RunState:
        if state in FINAL:
            yield f"{state} --> [*]"


def _table() -> Iterator[str]:
    yield "| event | from | to | what happened |"
    yield "|---|---|---|---|"
    for event in RunEvent:
        moves = [(before, after) for (before, known), after in TRANSITIONS.items() if known is event]
        sources = ", ".join(f"`{before}`" for before, _ in moves)
        targets = ", ".join(f"`{after}`" for after in dict.fromkeys(after for _, after in moves))
        yield f"| `{event}` | {sources} | {targets} | {MEANING[event]} |"


if __name__ == "__main__":
    PAGE.write_text(page())
