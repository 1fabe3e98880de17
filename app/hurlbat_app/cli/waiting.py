"""Say why a queued run will not start as things are: nobody serves its task, or nobody who does takes runs."""

from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import quote

from hurlbat_app.cli.remote import Remote
from hurlbat_app.cli.show import state_of

_TAKE_RUNS: Final = frozenset({"ready", "unverified"})
_MOST: Final = 20
"""How many workers are looked at; where there are more, one of them will do."""


def why_it_waits(remote: Remote, task: str) -> str | None:
    """Ask who serves the task; return the sentence, or None where somebody takes its runs."""
    found = remote.find(f"/tasks/{quote(task, safe='')}")
    names = found["workers"] if found else []
    if len(names) > _MOST:
        return None
    workers = [remote.find(f"/workers/{quote(name, safe='')}") for name in names]
    return no_worker_for(task, [worker for worker in workers if worker is not None])


def no_worker_for(task: str, workers: Sequence[dict[str, Any]]) -> str | None:
    """Return why none of these workers, who serve the task, takes runs; None where one does."""
    if not workers:
        return f"No worker serves {task} now; it starts when one does."
    if any(worker["state"] in _TAKE_RUNS for worker in workers):
        return None
    told = "".join(f"\n    {worker['name']} is {state_of(worker)}" for worker in workers)
    return f"No worker that serves {task} takes runs now:{told}"
