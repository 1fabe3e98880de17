"""Read submits: what `POST /runs` and each item of `POST /runs/bulk` may say."""

from typing import Final

from hurlbat.jsontext import JsonTextError, items, members
from hurlbat_app.api.reading import (
    Members,
    bad_json,
    flag_of,
    name_of,
    object_of,
    refuse_unknown,
    required,
    run_id_of,
    seconds_of,
    text_of,
    time_of,
    whole_of,
    wrong,
)
from hurlbat_dispatcher import MAX_METADATA_BYTES, Invalid, Problem, Submission

MAX_BULK: Final = 1000
MEMBERS: Final = frozenset(
    {
        "task",
        "input",
        "metadata",
        "priority",
        "delay",
        "run_at",
        "ttl",
        "idempotency_key",
        "idempotency_ttl",
        "parent",
        "child_key",
        "awaited",
    }
)


def read_submission(found: Members, *, waits: bool = False) -> Submission:
    """Return what is asked for; `input` and `metadata` keep the text that they came as. Raises `Invalid`.

    `waits`: whoever asks waits for the run's end, and that is its parent, unless it says otherwise.
    """
    task = name_of(found, "task")
    given = found.get("input")
    payload = "null" if given is None else given.text
    if len(found) <= 1 + (given is not None):
        return Submission(task, payload)
    run_at, delay = start_of(found)
    key, key_ttl = text_of(found, "idempotency_key", 256), seconds_of(found, "idempotency_ttl")
    if key is None and key_ttl is not None:
        raise wrong("idempotency_ttl", "needs an idempotency_key")
    parent, awaited = run_id_of(found, "parent"), flag_of(found, "awaited")
    if awaited and parent is None:
        raise wrong("awaited", "says that the parent waits for it, so it needs a parent")
    return Submission(
        task,
        payload,
        metadata=object_of(found, "metadata", MAX_METADATA_BYTES) or "{}",
        priority=priority_of(found),
        run_at=run_at,
        delay=delay,
        idempotency_key=key,
        idempotency_ttl=key_ttl,
        ttl=seconds_of(found, "ttl"),
        parent=parent,
        child_key=text_of(found, "child_key", 200),
        awaited=parent is not None and (waits if awaited is None else awaited),
    )


def start_of(found: Members) -> tuple[int | None, float | None]:
    """Return `run_at` (ms) and `delay` (seconds), of which one at most is given. Raises `Invalid`."""
    delay, run_at = seconds_of(found, "delay", zero=True), time_of(found, "run_at")
    if delay is not None and run_at is not None:
        raise wrong("run_at", "and delay exclude each other")
    return run_at, delay


def priority_of(found: Members) -> int | None:
    """Return the priority, or None. Raises `Invalid`."""
    return whole_of(found, "priority", -1000, 1000)


def read_bulk(found: Members) -> list[Submission | Problem]:
    """Return a submission, or what is wrong with it, for each item of `runs`. Raises `Invalid` for no list.

    A field is named as within its item, and is empty where the item as a whole is wrong.
    """
    listed = required(found, "runs")
    if not isinstance(listed, list):
        raise wrong("runs", "must be a list")
    if len(listed) > MAX_BULK:
        raise Invalid("too_many", f"runs may have at most {MAX_BULK} items", field="runs", limit=MAX_BULK)
    return [_read_item(text) for text in items(found["runs"].text)]


def _read_item(text: str) -> Submission | Problem:
    try:
        found = members(text)
        refuse_unknown(found, MEMBERS)
        return read_submission(found)
    except JsonTextError as error:
        problem = bad_json(error)
    except Invalid as error:
        problem = error
    problem.extra.setdefault("field", "")
    return problem
