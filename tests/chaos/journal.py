"""What the workers have noted, read as executions."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tests.chaos.history import Execution

Object = dict[str, Any]


def lines(path: Path) -> list[Object]:
    """Return the lines of a log of one object a line; one that is being written is left for the next time."""
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def executions(noted: Iterable[Object], deaths: Mapping[int, float]) -> list[Execution]:
    """Return what was executed. `deaths` tells when processes were killed; what was at work there ended then.

    An attempt that one process notes twice is two executions.
    """
    found: list[Execution] = []
    open_: dict[tuple[str, int, int], list[int]] = {}
    for line in noted:
        key = (line["run_id"], line["attempt"], line["pid"])
        if line["event"] == "begin":
            open_.setdefault(key, []).append(len(found))
            found.append(Execution(line["run_id"], line["attempt"], line["worker"], line["pid"], line["at"]))
        else:
            place = open_[key].pop(0)
            found[place] = _ended(found[place], line["at"], line["event"])
    for (_, _, pid), places in open_.items():
        for place in places:
            if pid in deaths:
                found[place] = _ended(found[place], deaths[pid], "killed")
    return found


def _ended(one: Execution, at: float, outcome: str) -> Execution:
    return Execution(one.run_id, one.attempt, one.worker, one.pid, one.begun, at, outcome)
