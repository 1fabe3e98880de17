"""A database in which all is well, and what breaks a promise each, or is late, to be planted in it."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from hurlbat_dispatcher.checkup import Code
from hurlbat_dispatcher.clock import SystemClock
from hurlbat_dispatcher.store.statement import Script
from tests.store.rows import insert, new_run, tell

NOW = SystemClock().now_ms()
LONG_AGO, LATER = NOW - 3_600_000, NOW + 3_600_000
WAITS, DELAYED, RUNS, COMPLETED, FAILED, CANCELLED, MISSING = (
    f"0199a3c0-0000-7000-8000-00000000000{n}" for n in range(1, 8)
)
FLOW, FIRST, SECOND = (f"0199a3c0-0000-7000-8000-0000000000f{n}" for n in range(3))
ME, GONE = "01a00000-0000-7000-8000-00000000000a", "01a00000-0000-7000-8000-00000000000b"
ERROR = """'{"code": "task_error"}'"""


def told(run_id: str, kind: str, attempt: int) -> str:
    """Return the SQL of a row of a timeline."""
    return (
        f"INSERT INTO timeline (tenant, run, at, kind, attempt, detail) "
        f"VALUES (1, '{run_id}', {NOW}, '{kind}', {attempt}, '{{}}')"
    )


def put(run_id: str, **columns: Any) -> str:
    """Return the SQL that changes a run."""
    values = ", ".join(f"{name} = {value}" for name, value in columns.items())
    return f"UPDATE run SET {values} WHERE id = '{run_id}'"


def worker(name: str = "w", slots: int = 2, updated_at: int = LONG_AGO) -> str:
    """Return the SQL that registers a worker of the task `echo`."""
    return (
        "INSERT INTO worker (tenant, name, url, mode, slots, state, labels, headers, secrets, tasks, declared, "
        f"max_batch, manifest, created_at, updated_at) VALUES (1, '{name}', 'https://w/', 'protocol', {slots}, "
        f"""'ready', '{{}}', '', '', '["echo"]', 0, 16, '', {LONG_AGO}, {updated_at})"""
    )


def server(server_id: str, lease_until: int) -> str:
    """Return the SQL that lets a server enter."""
    return f"INSERT INTO dispatcher (id, started_at, lease_until) VALUES ('{server_id}', {LONG_AGO}, {lease_until})"


def _quoted(text: str) -> str:
    """Return JSON for a statement in which a colon begins a parameter."""
    return text.replace(":", "\\:")


def lane(lane_id: int, draws: str, digest: str | None = None, task: str = "echo") -> str:
    """Return the SQL of a lane."""
    digest = hashlib.sha256(draws.encode()).hexdigest()[:40] if digest is None else digest
    return (
        "INSERT INTO lane (id, tenant, task, draws, digest, used_at) "
        f"VALUES ({lane_id}, 1, '{task}', '{_quoted(draws)}', '{digest}', {NOW})"
    )


def task(name: str, policy: str, updated_at: int = LONG_AGO) -> str:
    """Return the SQL of a task."""
    return (
        "INSERT INTO task (tenant, name, version, policy, paused, updated_at) "
        f"VALUES (1, '{name}', 1, '{_quoted(policy)}', 0, {updated_at})"
    )


def graph(*nodes: str) -> str:
    """Return a graph of a node `first`, and of these after it, one after the other; `second` sleeps."""
    said: list[dict[str, Any]] = [{"name": "first", "task": "echo"}]
    for parent, name in zip(("first", *nodes), nodes, strict=False):
        sleeps: dict[str, Any] = {"wait_for": [{"sleep": 3600}]} if name == "second" else {}
        said.append({"name": name, "task": "echo", "parents": [parent], **sleeps})
    return _quoted(json.dumps({"nodes": said}))


def wait(run_id: str, **more: int) -> str:
    """Return the SQL of a sleep that a run waits for."""
    times = {"due_at": LATER} | more
    return (
        f"INSERT INTO wait (tenant, run, action, clause, place, kind, {', '.join(times)}) "
        f"VALUES (1, '{run_id}', 'start', 0, 0, 'sleep', {', '.join(map(str, times.values()))})"
    )


def use(rate: str, units: int, duration: int = 3_600_000, last: int = NOW, bucket: int | None = None) -> str:
    """Return the SQL of what has started of a rate limit."""
    bucket = last // (duration // 64) if bucket is None else bucket
    return (
        "INSERT INTO rate_use (tenant, key, duration, bucket, last, units) "
        f"VALUES (1, '{rate}', {duration}, {bucket}, {last}, {units})"
    )


def limit(most: int, updated_at: int = 0) -> str:
    """Return the SQL of the rate limit `slow`, in an hour."""
    return (
        "INSERT INTO rate_limit (tenant, key, most, duration, updated_at) "
        f"VALUES (1, 'slow', {most}, 3600000, {updated_at})"
    )


def key(run_id: str, name: str, until: str = "NULL") -> str:
    """Return the SQL that remembers an idempotency key."""
    return (
        "INSERT INTO idempotency (tenant, task, key, run, digest, until) "
        f"VALUES (1, 'echo', '{name}', '{run_id}', '', {until})"
    )


HEALTHY = [
    worker(),
    lane(1, "{}"),
    server(ME, LATER),
    f"INSERT INTO shard (id, owner, epoch, lease_until) VALUES (1, '{ME}', 3, {LATER})",
    put(WAITS, idempotency_key="'k'"),
    put(DELAYED, ready=0, attempt=1, tries=1, started_at=NOW, due_at=LATER),
    told(DELAYED, "retry", 1),
    put(RUNS, state="'running'", attempt=2, tries=2, worker="'w'", sender=f"'{ME}'", started_at=NOW),
    told(RUNS, "retry", 1),
    put(COMPLETED, state="'completed'", attempt=1, tries=1, worker="'w'", sender=f"'{ME}'", started_at=NOW),
    put(COMPLETED, finished_at=NOW, output="'1'"),
    put(FAILED, state="'failed'", attempt=1, tries=1, worker="'w'", started_at=NOW, finished_at=NOW, error=ERROR),
    put(CANCELLED, state="'cancelled'", attempt=1, tries=1, worker="'w'", started_at=NOW, finished_at=NOW),
    put(CANCELLED, holds_until=LATER),
    key(WAITS, "k"),
    lane(2, "{}", task="flow"),
    (
        "INSERT INTO shape (tenant, task, version, graph, created_at) "
        f"VALUES (1, 'flow', 1, '{graph('second', 'third')}', 1)"
    ),
    put(FLOW, kind="'workflow'", task="'flow'", lane=2, state="'running'", worker="''", started_at=NOW),
    put(FIRST, state="'completed'", attempt=1, tries=1, worker="'w'", started_at=NOW, finished_at=NOW, output="'1'"),
    put(SECOND, state="'suspended'", ready=0),
    *(
        put(run_id, kind="'node'", parent=f"'{FLOW}'", node=name)
        for run_id, name in ((FIRST, "'first'"), (SECOND, "'second'"))
    ),
    wait(SECOND),
]
"""A run in each state, all of them as the engine leaves them."""


@dataclass(frozen=True)
class Plant:
    """Something wrong, the code that it must be found by, and words that it must be told with."""

    code: Code
    subject: str | None
    words: str
    sql: tuple[str, ...]


def plant(code: Code, subject: str | None, words: str, *sql: str) -> Plant:
    """Plant something."""
    return Plant(code, subject, words, sql)


IN_LANE_7 = "UPDATE run SET lane = 7 WHERE worker = 'w'"
PLANTS = [
    plant(Code.UNKNOWN_STATE, WAITS, "the state lost, which there is not", put(WAITS, state="'lost'")),
    plant(Code.ENDED_WITHOUT_TIME, COMPLETED, "has no time of its end", put(COMPLETED, finished_at="NULL")),
    plant(Code.ENDED_WITH_LEASE, FAILED, "is failed and still has a lease", put(FAILED, lease_until=LATER)),
    plant(Code.ENDED_WITHOUT_RESULT, COMPLETED, "do not fit that", put(COMPLETED, output="NULL")),
    plant(Code.ENDED_WITHOUT_RESULT, FAILED, "do not fit that", put(FAILED, error="NULL")),
    plant(Code.ENDED_WITHOUT_RESULT, RUNS, "do not fit that", put(RUNS, output="'1'")),
    plant(Code.ENDED_WITHOUT_START, COMPLETED, "was never started", put(COMPLETED, worker="NULL")),
    plant(Code.OPEN_WITH_END, DELAYED, "is queued and has a time of its end", put(DELAYED, finished_at=NOW)),
    plant(Code.OPEN_WITH_END, RUNS, "is running and has a time of its end", put(RUNS, finished_at=NOW)),
    plant(Code.WAITING_WITH_LEFTOVERS, WAITS, "still has a worker (w)", put(WAITS, worker="'w'")),
    plant(Code.WAITING_WITH_LEFTOVERS, WAITS, "or a lease", put(WAITS, lease_until=LATER)),
    plant(Code.RUNNING_INCOMPLETE, RUNS, "a start and a sender", put(RUNS, sender="NULL")),
    plant(Code.RUNNING_INCOMPLETE, RUNS, "a start and a sender", put(RUNS, started_at="NULL")),
    plant(Code.RUNNING_INCOMPLETE, FLOW, "or a workflow with one of them", put(FLOW, started_at="NULL")),
    plant(Code.RUNNING_INCOMPLETE, FLOW, "or a workflow with one of them", put(FLOW, attempt=1, tries=1)),
    plant(Code.HELD_WITHOUT_CANCEL, WAITS, "holds a slot as only a cancelled run", put(WAITS, holds_until=LATER)),
    plant(Code.TOO_MANY_TRIES, RUNS, "was charged 2 times, and may be 1 times", put(RUNS, max_attempts=1)),
    plant(Code.NO_TRIES_LEFT, DELAYED, "all of its 1 tries are used up", put(DELAYED, max_attempts=1)),
    plant(Code.STARTED_EARLY, RUNS, "before it was due", put(RUNS, due_at=LATER)),
    plant(Code.LANE_WRONG, WAITS, "stands in the lane 7", put(WAITS, lane=7)),
    plant(Code.TOLD_AHEAD, RUNS, "is in attempt 2, and its timeline tells of 3", told(RUNS, "log", 3)),
    plant(Code.PUT_BACK_TWICE, DELAYED, "put back 2 times after attempt 1", told(DELAYED, "not_sent", 1)),
    plant(Code.RUNNING_AFTER_END, RUNS, "by attempt 2, which the timeline says was over", told(RUNS, "held", 2)),
    plant(Code.RUNNING_AFTER_END, COMPLETED, "is completed by attempt 1", told(COMPLETED, "not_started", 1)),
    plant(Code.CHARGES_WRONG, RUNS, "charged 1 times, and its timeline tells of 1 retries", put(RUNS, tries=1)),
    plant(Code.CHARGES_WRONG, DELAYED, "charged 0 times", put(DELAYED, tries=0)),
    plant(Code.WAITING_UNEXPLAINED, DELAYED, "does not say why", put(DELAYED, attempt=2)),
    plant(Code.SLOTS_OVERSOLD, "w", "has 2 attempts in 1 slots, and the last", "UPDATE worker SET slots = 1"),
    plant(Code.KEY_WITHOUT_RUN, MISSING, "ends with its run", key(MISSING, "m")),
    plant(Code.KEY_OF_ANOTHER_RUN, RUNS, "was submitted as echo with the key None", key(RUNS, "r")),
    plant(
        Code.KEY_OUTLIVES_RUN,
        FAILED,
        "is failed, and is still there",
        put(FAILED, idempotency_key="'f'"),
        key(FAILED, "f"),
    ),
    plant(Code.OWNERS_WRONG, None, "has 0 rows", "DELETE FROM shard"),
    plant(Code.OWNERS_WRONG, None, "has 2 rows", "INSERT INTO shard (id, epoch, lease_until) VALUES (2, 0, 0)"),
    plant(Code.LANE_MISNAMED, "1", "lane 1 of the task echo", "UPDATE lane SET digest = 'other' WHERE id = 1"),
    plant(Code.SLOTS_OVERSOLD, "w", "2 attempts, which take 4, in 2 slots", lane(7, '{"cost":2}'), IN_LANE_7),
    plant(
        Code.GROUP_OVERSOLD,
        "name:one",
        "group a of name:one has 2 runs, and may have 1",
        task("echo", '{"concurrency":[{"key":"input","max_runs":1,"name":"one"}]}'),
        lane(7, '{"groups":[["name:one","a"]]}'),
        IN_LANE_7,
    ),
    plant(Code.RATE_OVERSOLD, "static:slow", "5 units of the rate limit static:slow", limit(4), use("static:slow", 5)),
    plant(
        Code.RATE_OVERSOLD,
        "dynamic:a",
        "and 3 may",
        lane(7, '{"rates":[["a",1,3,3600000]]}'),
        use("dynamic:a", 4),
    ),
    plant(Code.USE_IMPOSSIBLE, "static:slow", "has -1 units", use("static:slow", -1)),
    plant(Code.USE_IMPOSSIBLE, "static:slow", "in the part 7", use("static:slow", 1, bucket=7)),
    plant(Code.SHAPE_MISSING, FLOW, "version 1, whose graph is missing", "DELETE FROM shape"),
    plant(
        Code.WORKFLOW_FORGOTTEN,
        FLOW,
        "should have gone on with the node third",
        put(SECOND, state="'skipped'", finished_at=NOW),
    ),
    plant(
        Code.WORKFLOW_FORGOTTEN,
        FLOW,
        "should have ended as cancelled",
        f"UPDATE shape SET graph = '{graph('second')}'",
        put(SECOND, state="'cancelled'", finished_at=NOW),
    ),
    plant(Code.NODE_WITHOUT_WORKFLOW, SECOND, "which is not there", f"DELETE FROM run WHERE id = '{FLOW}'"),
    plant(Code.SUSPENDED_WITHOUT_WAIT, SECOND, "nothing ever wakes it", "DELETE FROM wait"),
    plant(Code.WAIT_WITHOUT_RUN, MISSING, "is kept for run", wait(MISSING)),
    plant(Code.OWNER_UNKNOWN, GONE, "which never entered", f"UPDATE shard SET owner = '{GONE}'"),
]
OVERDUE = [
    plant(
        Code.SLOTS_LOWERED,
        "w",
        "and nothing starts now",
        "DELETE FROM worker",
        worker(slots=1, updated_at=NOW + 60_000),
    ),
    plant(Code.TIMELINE_WITHOUT_RUN, MISSING, "which is not there", told(MISSING, "late", 1)),
    plant(Code.LEASE_NOT_RESCUED, RUNS, "has a lease that ran out ", put(RUNS, lease_until=LONG_AGO)),
    plant(
        Code.SENDER_GONE,
        RUNS,
        "by a server that is gone",
        put(RUNS, sender=f"'{GONE}'", started_at=LONG_AGO, due_at=LONG_AGO),
    ),
    plant(
        Code.SENDER_GONE,
        RUNS,
        "by a server that is gone",
        server(GONE, LONG_AGO),
        put(RUNS, sender=f"'{GONE}'", started_at=LONG_AGO, due_at=LONG_AGO),
    ),
    plant(Code.DUE_NOT_SEEN, DELAYED, "was due, and nobody has seen it", put(DELAYED, due_at=LONG_AGO)),
    plant(Code.EXPIRY_NOT_APPLIED, WAITS, "should have started or ended", put(WAITS, expires_at=LONG_AGO)),
    plant(Code.HELD_TOO_LONG, CANCELLED, "was to be given back", put(CANCELLED, holds_until=LONG_AGO)),
    plant(
        Code.WAITING_BESIDE_ROOM,
        WAITS,
        "the worker idle has nothing to do",
        worker("idle"),
        put(WAITS, due_at=LONG_AGO),
    ),
    plant(Code.WORKFLOW_NOT_BEGUN, WAITS, "and nothing holds it back", put(WAITS, kind="'workflow'", due_at=LONG_AGO)),
    plant(Code.NODE_NOT_WOKEN, SECOND, "what it waits for came true", f"UPDATE wait SET met_at = {LONG_AGO}"),
    plant(
        Code.NODE_OUTLIVES_WORKFLOW,
        SECOND,
        "as the node second of a workflow that has ended",
        put(FLOW, state="'cancelled'", finished_at=LONG_AGO),
    ),
    plant(Code.SLEEP_NOT_SEEN, SECOND, "waits for a sleep that is over", f"UPDATE wait SET due_at = {LONG_AGO}"),
    plant(Code.WAIT_OUTLIVES_RUN, FAILED, "has ended", wait(FAILED), put(FAILED, finished_at=LONG_AGO)),
    plant(
        Code.NEWS_NOT_READ,
        FAILED,
        "followed by nobody",
        f"INSERT INTO news (tenant, kind, subject) VALUES (1, 'ended', '{FAILED}')",
        put(FAILED, finished_at=LONG_AGO),
    ),
    plant(Code.WORKER_GONE, RUNS, "at the worker w, which was removed", "DELETE FROM worker"),
]
OF_THE_DATABASE = {Code.NOT_DURABLE, Code.CLOCK_OFF}


TABLES = (
    *(
        "wait",
        "news",
        "shape",
        "run",
        "timeline",
        "lane",
        "task",
        "rate_limit",
        "rate_use",
        "idempotency",
        "worker",
        "dispatcher",
        "shard",
    ),
)


def well() -> Script[None]:
    """Make everything as it should be, whatever was planted before."""
    for table in TABLES:
        yield from tell(f"DELETE FROM {table}")
    runs = [WAITS, DELAYED, RUNS, COMPLETED, FAILED, CANCELLED, FLOW, FIRST, SECOND]
    yield from insert(*(new_run(run_id, created_at=LONG_AGO, due_at=NOW, max_attempts=3) for run_id in runs))
    yield from tell(*HEALTHY)
