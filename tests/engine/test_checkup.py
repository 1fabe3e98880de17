"""The checkup finds each broken promise in the rows of either database, and nothing where all is well."""

import hashlib
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hurlbat.wire import FailedLine
from hurlbat_dispatcher import CannotOpen, Finding, Severity, examine
from hurlbat_dispatcher.checkup import Code, gathered, strict_checkup
from hurlbat_dispatcher.clock import SystemClock
from hurlbat_dispatcher.store.beside import is_served
from hurlbat_dispatcher.store.database import Database
from hurlbat_dispatcher.store.kinds import database
from hurlbat_dispatcher.store.migrate import scripts
from hurlbat_dispatcher.store.statement import Script
from tests.engine.far_side import Call
from tests.engine.world import World, settings_for
from tests.store.rows import insert, new_run, tell
from tests.support.postgres import Cluster

pytestmark = pytest.mark.anyio

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


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[Database]:
    """A healthy database that a server holds open."""
    opened = database(database_url, SystemClock())
    await opened.open()
    await opened.migrate()
    await opened.write(well())
    yield opened
    await opened.write(well())
    await opened.close()


def forget_lock(store: Database) -> None:
    """Take a SQLite file's lock away, as if nobody had opened it."""
    if store.file is not None:
        Path(f"{store.file}.lock").unlink()


async def found_in(url: str, **more: Any) -> list[Finding]:
    """Return what the doctor finds."""
    return list((await examine(settings_for(url), **more)).findings)


# -- what is found ---------------------------------------------------------------------------------------------------


async def test_nothing_is_found_where_all_is_well(store: Database, database_url: str) -> None:
    found = await examine(settings_for(database_url))

    assert found.findings == ()
    assert await store.read(strict_checkup()) == []
    [only] = found.servers
    assert (only.id, only.alive, only.owner, found.epoch) == (ME, True, True, 3)
    assert (found.runs, found.whole, found.running) == (9, True, 2)
    assert found.waits[0] == "1 run waits for room: 1 of echo (w is 2 of 2 slots used)."
    assert re.fullmatch(r"1 run waits for a time; the first is due in \d+ s\.", found.waits[1])


async def test_each_broken_promise_is_found_alone_and_told(store: Database, database_url: str) -> None:
    for planted in PLANTS:
        await store.write(well())
        await store.write(tell(*planted.sql))

        [finding] = [one for one in await found_in(database_url) if one.severity is Severity.VIOLATION]

        assert (finding.code, finding.subject) == (planted.code, planted.subject)
        assert planted.words in finding.sentence
        assert [one.code for one in await store.read(strict_checkup())] == [planted.code]


async def test_what_should_have_happened_is_found_alone_and_is_a_warning(store: Database, database_url: str) -> None:
    for planted in OVERDUE:
        await store.write(well())
        await store.write(tell(*planted.sql))

        [finding] = await found_in(database_url)

        assert (finding.code, finding.subject, finding.severity) == (planted.code, planted.subject, Severity.WARNING)
        assert planted.words in finding.sentence


def test_everything_that_can_be_found_is_planted_here() -> None:
    assert {planted.code for planted in PLANTS + OVERDUE} | OF_THE_DATABASE == set(Code)


async def test_nobody_is_blamed_for_being_late_where_no_server_is_alive(store: Database, database_url: str) -> None:
    await store.write(tell(put(DELAYED, due_at=LONG_AGO), f"UPDATE dispatcher SET lease_until = {LONG_AGO}"))
    forget_lock(store)
    found = await examine(settings_for(database_url))
    assert ([server.alive for server in found.servers], found.findings) == ([False], ())


async def test_what_was_started_before_a_limit_was_lowered_is_no_fault(store: Database, database_url: str) -> None:
    rule = '{"concurrency":[{"key":"input","max_runs":1,"name":"one"}]}'
    await store.write(tell(task("echo", rule, NOW), lane(7, '{"groups":[["name:one","a"]]}'), IN_LANE_7))
    await store.write(tell(limit(4, NOW), use("static:slow", 5)))
    assert await found_in(database_url) == []


async def test_what_may_wait_for_a_key_is_not_late(store: Database, database_url: str) -> None:
    await store.write(tell(worker("idle"), lane(7, '{"rates":[["a",1,3,60000]]}'), put(WAITS, due_at=LONG_AGO, lane=7)))
    assert await found_in(database_url) == []


async def test_a_strict_checkup_takes_lowered_slots_for_a_broken_promise(store: Database) -> None:
    await store.write(tell(f"UPDATE worker SET slots = 1, updated_at = {LATER}"))
    assert [one.code for one in await store.read(strict_checkup())] == [Code.SLOTS_OVERSOLD]


async def test_of_a_large_database_what_is_under_way_or_late_is_still_looked_at(
    store: Database, database_url: str
) -> None:
    newest = [f"0199a3c0-0000-7000-8000-0000000001{n:02}" for n in range(20)]
    await store.write(insert(*(new_run(run_id, created_at=NOW, due_at=NOW) for run_id in newest)))
    await store.write(
        tell(put(RUNS, finished_at=NOW), put(newest[9], ready=0, due_at=LONG_AGO), put(FAILED, lease_until=LATER))
    )

    found = await examine(settings_for(database_url), most=5)

    assert {one.code for one in found.findings} == {Code.OPEN_WITH_END, Code.DUE_NOT_SEEN}
    assert (found.whole, found.waits[0].partition(" ")[0]) == (False, "20")
    assert {one.code for one in await found_in(database_url)} == {
        Code.OPEN_WITH_END,
        Code.DUE_NOT_SEEN,
        Code.ENDED_WITH_LEASE,
    }


def test_of_many_findings_of_a_kind_some_are_shown_and_the_others_counted() -> None:
    many = [Finding(Code.TOLD_AHEAD, Severity.VIOLATION, str(n), f"run {n}") for n in range(25)]
    shown = gathered([*many, Finding(Code.CLOCK_OFF, Severity.WARNING, None, "off")])
    assert [finding.subject for finding in shown[:10]] == [str(n) for n in range(10)]
    assert [finding.sentence for finding in shown[10:]] == ["and 15 more of this kind (told_ahead)", "off"]


# -- a live engine ---------------------------------------------------------------------------------------------------


async def test_a_life_with_retries_cancels_and_replays_breaks_nothing(world: World) -> None:
    often = {"name": "often", "retries": 2, "backoff": {"strategy": "fixed", "initial": 0, "jitter": False}}
    worker = await world.worker("w", "echo", often, slots=4)

    async def fail_first(call: Call) -> str | FailedLine:
        return call.failed() if call.task == "often" and call.attempt < 3 else "1"

    worker.work = fail_first
    ended = await world.ended(await world.submit("often", idempotency_key="k", idempotency_ttl=3600.0))
    await world.ended((await world.engine.replay_run(ended.id)).id)
    await world.submit("echo", delay=3600.0, idempotency_key="delayed")
    worker.work = worker.held
    held = await world.submit("echo")
    await world.until(lambda: (held.id, 1) in worker.open)
    worker.stops = False
    stopping = await world.submit("echo")
    await world.until(lambda: (stopping.id, 1) in worker.open)
    await world.engine.cancel_run(stopping.id)

    found = await examine(world.settings)

    assert found.findings == ()
    assert (found.runs, found.running, [server.alive for server in found.servers]) == (4, 1, [True])
    worker.gate.set()
    await world.ended(held)


# -- the database itself ---------------------------------------------------------------------------------------------


class Skewed(SystemClock):
    """A clock that is wrong by so many ms."""

    def __init__(self, by: int) -> None:
        self._by = by

    def now_ms(self) -> int:
        return super().now_ms() + self._by


@pytest.mark.parametrize(("by", "words"), [(-3_600_000, "3600 s ahead of this"), (3_600_000, "3600 s behind this")])
async def test_a_clock_that_is_off_is_told_with_its_direction(postgres_url: str, by: int, words: str) -> None:
    [finding] = await found_in(postgres_url, clock=Skewed(by))
    assert (finding.code, finding.severity) == (Code.CLOCK_OFF, Severity.WARNING)
    assert words in finding.sentence
    assert await found_in(postgres_url, clock=Skewed(2_000)) == []


async def test_a_database_that_acknowledges_what_is_not_on_disk_is_warned_of(
    postgres_cluster: Cluster, postgres_url: str
) -> None:
    name = postgres_url.rpartition("/")[2]
    postgres_cluster.query(f"ALTER DATABASE {name} SET synchronous_commit = off", name)
    try:
        [finding] = await found_in(postgres_url)
    finally:
        postgres_cluster.query(f"ALTER DATABASE {name} RESET synchronous_commit", name)
    assert (finding.code, finding.severity) == (Code.NOT_DURABLE, Severity.WARNING)
    assert "synchronous_commit off" in finding.sentence


@pytest.mark.parametrize(
    ("version", "words"),
    [
        ("9999", "version 9999) is newer"),
        (scripts().get_base(), "is older than this version"),
        (None, "it has no schema"),
    ],
)
async def test_a_schema_of_another_version_is_not_looked_at(
    store: Database, database_url: str, version: str | None, words: str
) -> None:
    change = (
        "DELETE FROM alembic_version" if version is None else f"UPDATE alembic_version SET version_num = '{version}'"
    )
    await store.write(tell(change))
    try:
        with pytest.raises(CannotOpen, match=words.replace(")", r"\)")):
            await found_in(database_url)
    finally:
        await store.write(tell("DELETE FROM alembic_version"))
        await store.write(tell(f"INSERT INTO alembic_version (version_num) VALUES ('{scripts().get_current_head()}')"))


async def test_an_empty_database_has_no_schema_and_is_left_without_one(
    postgres_cluster: Cluster, tmp_path: Path
) -> None:
    (tmp_path / "empty.db").touch()
    with postgres_cluster.database() as name:
        for url in (postgres_cluster.url(name), f"sqlite+aiosqlite:///{tmp_path / 'empty.db'}"):
            with pytest.raises(CannotOpen, match="it has no schema; start a server on it to make one"):
                await found_in(url)
        assert postgres_cluster.query("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'", name) == "0"
    assert (tmp_path / "empty.db").stat().st_size == 0


# -- a file ----------------------------------------------------------------------------------------------------------


def files_in(folder: Path) -> dict[str, str]:
    """Return the files of a folder with the digests of what is in them."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


async def test_a_file_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(CannotOpen, match="there is no database at"):
        await found_in(f"sqlite+aiosqlite:///{tmp_path / 'none.db'}")
    assert files_in(tmp_path) == {}


async def test_something_else_than_a_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("dear diary " * 100)
    with pytest.raises(CannotOpen, match="file is not a database"):
        await found_in(f"sqlite+aiosqlite:///{tmp_path / 'text.db'}")


async def test_a_database_in_memory_is_refused() -> None:
    with pytest.raises(CannotOpen, match="in memory"):
        await found_in("sqlite+aiosqlite:///:memory:")


async def test_a_file_whose_server_stopped_is_read_and_nothing_is_left_beside_it(
    sqlite_url: str, tmp_path: Path
) -> None:
    async with World(sqlite_url) as world:
        await world.worker()
        await world.ended(await world.submit())
    before = files_in(tmp_path)
    found = await examine(settings_for(sqlite_url))
    assert (found.runs, found.findings, found.servers) == (1, (), ())
    assert files_in(tmp_path) == before
    assert "hurlbat.db-wal" not in before


async def test_a_file_whose_server_works_is_read_as_it_is_now_and_the_server_keeps_its_lock(
    local: World, tmp_path: Path
) -> None:
    path = str(tmp_path / "hurlbat.db")
    await local.worker()
    for count in (1, 2):
        await local.ended(await local.submit())
        assert (await examine(local.settings)).runs == count
    assert is_served(path) is True
    await local.engine.stop(0)
    assert is_served(path) is False
    await local.restart()


async def test_a_script_that_takes_too_long_is_given_up(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with World(sqlite_url):
        monkeypatch.setattr("hurlbat_dispatcher.examination.LOOK_SECONDS", -1.0)
        monkeypatch.setattr("hurlbat_dispatcher.store.beside.STEPS", 1)
        with pytest.raises(Exception, match="took longer than"):
            await found_in(sqlite_url)
