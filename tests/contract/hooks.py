"""What schemathesis asks before and after each case; it finds this module by `SCHEMATHESIS_HOOKS`.

Of the cases whose parameters and bodies are meant to be good, most get a parent that exists (`parents.py`). All are
counted, by operation and status, into the file `HURLBAT_CONTRACT_COUNTS`.
"""

import atexit
import json
import os
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import schemathesis
from schemathesis.core.parameters import ParameterLocation

from tests.contract.parents import KEPT, SERVED, Parents
from tests.contract.stage import PLAIN_URL, PROTOCOL_URL

GOOD = 0.8
"""So many of the cases get a good parent."""

WAIT, WAIT_MAX = 0.2, 60
"""Seconds: for so long a case waits that would wait longer, up to what the server takes."""
ENDLESS = frozenset({"/runs/{run_id}/events"})
"""Streams that go on until a run has ended: asked of nothing but runs that have."""

NEEDED = {"child_key": "parent", "idempotency_ttl": "idempotency_key"}
"""Members that are refused without another."""

_token = os.environ["HURLBAT_CONTRACT_TOKEN"]
_parents = Parents(
    os.environ["HURLBAT_CONTRACT_SERVER"],
    _token,
    os.environ["HURLBAT_CONTRACT_STAGE"],
    int(os.environ["HURLBAT_CONTRACT_SEED"]),
)
_counts: Counter[tuple[str, int]] = Counter()


@schemathesis.auth()
class ApiToken:
    """The API token, on every request but those that are to be refused without."""

    def get(self, case: Any, context: Any) -> str:
        return _token

    def set(self, case: Any, data: str, context: Any) -> None:
        case.headers = {**(case.headers or {}), "Authorization": f"Bearer {data}"}


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    """Give the case a parent that exists, and keep it off what the others stand on."""
    path, given = case.operation.path, case.path_parameters or {}
    asked = path in ENDLESS or not KEPT.isdisjoint(str(value) for value in given.values())
    if case.meta is None:
        return
    chosen = _parents.random.random() < GOOD
    if _waits_long((case.query or {}).get("wait")):
        case.query["wait"] = WAIT
    _keep(case.body)
    if chosen and _is_good(case, ParameterLocation.BODY):
        _served(case.body, path)
    if not (asked or (chosen and _is_good(case, ParameterLocation.PATH))):
        return
    named = _parents.of(case.method.upper(), path, ended=path in ENDLESS or "wait" in (case.query or ()))
    if named is None:
        return
    case.path_parameters = {**given, **named.path}
    if named.headers and _has_token(case):
        kept = {name: value for name, value in case.headers.items() if name.lower() != "authorization"}
        case.headers = {**kept, **named.headers}


@schemathesis.hook
def after_call(context: Any, case: Any, response: Any) -> None:
    """Count the case."""
    _counts[case.operation.label, response.status_code] += 1


def _is_good(case: Any, where: ParameterLocation) -> bool:
    part = case.meta.components.get(where)
    return part is not None and bool(part.mode.is_positive)


def _waits_long(wait: Any) -> bool:
    try:
        return WAIT < float(wait) <= WAIT_MAX
    except (TypeError, ValueError):
        return False


def _has_token(case: Any) -> bool:
    return any(
        name.lower() == "authorization" and value == f"Bearer {_token}" for name, value in (case.headers or {}).items()
    )


def _served(body: Any, path: str) -> None:
    """Let a body name tasks that are served, workers that answer and parents that are there, and contradict nothing."""
    if not isinstance(body, dict):
        return
    if isinstance(body.get("url"), str):
        body["url"] = _parents.random.choice((PLAIN_URL, PROTOCOL_URL))
    several = [one for one in body.get("runs") or () if isinstance(one, dict)]
    for each in (body, *several):
        if isinstance(each.get("task"), str):
            each["task"] = _parents.random.choice(SERVED[:2] if several else SERVED)
        if isinstance(each.get("parent"), str):
            each["parent"] = _parents.run()
        for name, needed in NEEDED.items():
            if each.get(needed) is None:
                each.pop(name, None)
        if each.get("delay") is not None or each.get("expression") is not None:
            each.pop("run_at", None)
    if path.startswith("/tasks/{name}/filters") and isinstance(body.get("expression"), str):
        body["expression"] = "input.total > 100"
    if path.startswith("/schedules"):
        _timed(body)


def _timed(body: dict[str, Any]) -> None:
    if isinstance(body.get("expression"), str):
        body["expression"] = _parents.random.choice(("*/5 * * * *", "0 3 * * mon", "@daily"))
    if isinstance(body.get("run_at"), str):
        body["run_at"] = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    if isinstance(body.get("timezone"), str):
        body["timezone"] = _parents.random.choice(("UTC", "Europe/Berlin"))


def _keep(body: Any) -> None:
    """Let no worker be registered under a name that others stand on, nor serve what they call."""
    if isinstance(body, dict):
        tasks = body.get("tasks")
        for each in (body, *(tasks if isinstance(tasks, list) else ())):
            if isinstance(each, dict) and isinstance(each.get("name"), str) and each["name"] in KEPT:
                each["name"] += ".other"


@atexit.register
def _write() -> None:
    found = [[label, status, count] for (label, status), count in sorted(_counts.items())]
    Path(os.environ["HURLBAT_CONTRACT_COUNTS"]).write_text(json.dumps(found))
