"""The checker: what it objects to of what is committed, sent, executed and answered."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from hurlbat_dispatcher.simulation.world import Simulation
from tests.sim.checker import HASTE, Checker
from tests.sim.history import Asked, History, Rule
from tests.sim.plan import plan_of

PLAN = next(plan for plan in map(plan_of, range(100)) if plan.servers == 2 and not plan.flow.on)
ONCE = next(task for task in PLAN.tasks if task.max_attempts == 1)
WORKER = PLAN.workers[0]


class Scene:
    """A world without servers: rows are written by hand."""

    def __init__(self) -> None:
        self.world = Simulation(0)
        self.history = History(self.world.loop.time, self.world.note)
        disk = self.world.disk
        self.checker = Checker(PLAN, self.history, disk.connection, disk.clock.now_ms, alone=False)
        self.now = disk.clock.now_ms()

    def play(self, act: Callable[[], None]) -> list[Rule]:
        """Do something on the world's loop; return the rules that were broken."""

        async def main() -> None:
            act()

        with self.world:
            self.world.run(main())
        return [violation.rule for violation in self.history.violations]

    def execute(self, sql: str, *values: Any, by: str = "s0") -> None:
        """Commit a change."""
        self.world.disk.connection.execute(sql, values)
        self.checker.committed(by)

    def join(self, server: str, process: str, seconds: float = 3.0) -> None:
        """Let a server have a lease."""
        until = self.now + int(seconds * 1000)
        self.execute("INSERT INTO dispatcher (id, started_at, lease_until) VALUES (?, 0, ?)", server, until, by=process)

    def own(self, server: str, process: str, epoch: int = 1, seconds: float = 3.0) -> None:
        """Let a server own the lanes."""
        until = self.now + int(seconds * 1000)
        self.execute("UPDATE shard SET owner = ?, epoch = ?, lease_until = ?", server, epoch, until, by=process)

    def serve(self) -> None:
        """Register the worker."""
        self.execute(
            "INSERT INTO worker (tenant, name, url, mode, slots, state, labels, headers, secrets, tasks, declared, "
            "max_batch, manifest, created_at, updated_at) "
            "VALUES (1, ?, '', '', ?, 'ready', '', '', '', '', 0, 1, '', 0, 0)",
            WORKER.name,
            WORKER.slots,
        )

    def start(self, run_id: str, sender: str = "a", by: str = "s0", key: str | None = None, **more: Any) -> None:
        """Insert a run that starts at once."""
        values: dict[str, Any] = {"tenant": 1, "id": run_id, "kind": "task", "task": ONCE.name, "task_version": 1}
        values |= {"lane": 1, "state": "running", "ready": 1, "attempt": 1, "tries": 1, "max_attempts": 1}
        values |= {"priority": 1, "rank": 0, "created_at": self.now, "due_at": self.now, "started_at": self.now}
        values |= {"worker": WORKER.name, "sender": sender, "idempotency_key": key, "input": run_id, "metadata": "{}"}
        values |= more
        names, marks = ", ".join(values), ", ".join("?" * len(values))
        self.execute(f"INSERT INTO run ({names}) VALUES ({marks})", *values.values(), by=by)

    def ready(self) -> None:
        """Have a server, its worker and the lanes."""
        self.serve()
        self.execute(
            "INSERT INTO lane (id, tenant, task, draws, digest, used_at) VALUES (1, 1, ?, '{}', '', 0)", ONCE.name
        )
        self.join("a", "s0")
        self.own("a", "s0")


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_a_start_by_the_owner_that_is_sent_by_its_sender_is_well(scene: Scene) -> None:
    def act() -> None:
        scene.ready()
        scene.start("r1")
        scene.checker.sends("s0", [("r1", 1)], asyncio.get_running_loop().time())
        scene.history.began(("r1", 1))
        scene.checker.executed(("r1", 1))
        scene.checker.executes(WORKER.name, [("r1", 1)])
        scene.checker.look_back()

    assert scene.play(act) == []


def test_a_start_beyond_the_slots_is_seen_in_the_rows_and_at_the_worker(scene: Scene) -> None:
    def act() -> None:
        scene.ready()
        runs = [f"r{number}" for number in range(WORKER.slots + 1)]
        for run_id in runs:
            scene.start(run_id)
        scene.checker.executes(WORKER.name, [(run_id, 1) for run_id in runs])

    assert scene.play(act) == [Rule.SLOTS, Rule.SLOTS]


def test_an_abandoned_attempt_does_not_count_at_the_worker(scene: Scene) -> None:
    def act() -> None:
        scene.ready()
        scene.start("r1")
        scene.checker.executes(WORKER.name, [("r1", 1), *((f"gone{number}", 1) for number in range(WORKER.slots))])

    assert scene.play(act) == []


def test_what_is_sent_without_being_stored_is_seen(scene: Scene) -> None:
    assert scene.play(lambda: scene.checker.sends("s0", [("r1", 1)], 0.0)) == [Rule.COMMITTED]


def test_what_is_sent_twice_is_seen(scene: Scene) -> None:
    def act() -> None:
        scene.ready()
        scene.start("r1")
        for _ in range(2):
            scene.checker.sends("s0", [("r1", 1)], 0.0)

    assert scene.play(act) == [Rule.ONCE]


def test_what_another_than_its_sender_sends_is_seen(scene: Scene) -> None:
    def act() -> None:
        scene.ready()
        scene.join("b", "s1")
        scene.start("r1", sender="a")
        scene.checker.sends("s1", [("r1", 1)], 0.0)

    assert scene.play(act) == [Rule.SENDER]


def test_what_was_decided_after_the_lease_was_over_is_seen_and_what_was_decided_before_is_not(scene: Scene) -> None:
    async def main() -> None:
        scene.ready()
        scene.start("r1")
        scene.start("r2")
        await asyncio.sleep(PLAN.lease + 10.0)
        scene.checker.sends("s0", [("r1", 1)], 1.0)
        assert scene.history.violations == []
        scene.checker.sends("s0", [("r2", 1)], PLAN.lease + 5.0)

    with scene.world:
        scene.world.run(main())
    assert [one.rule for one in scene.history.violations] == [Rule.FENCE]


def test_a_run_that_may_run_once_and_is_executed_in_two_attempts_is_seen(scene: Scene) -> None:
    def act() -> None:
        scene.ready()
        scene.start("r1")
        for attempt in (1, 1, 2):
            scene.history.began(("r1", attempt))
            scene.checker.executed(("r1", attempt))

    assert scene.play(act) == [Rule.AT_MOST_ONCE]


def test_lanes_that_are_taken_from_a_living_owner_are_seen(scene: Scene) -> None:
    def act() -> None:
        scene.ready()
        scene.join("b", "s1")
        scene.own("b", "s1", epoch=2)

    assert scene.play(act) == [Rule.OWNER]


def test_lanes_that_are_taken_without_a_new_epoch_are_seen(scene: Scene) -> None:
    def act() -> None:
        scene.join("a", "s0")
        scene.own("a", "s0", epoch=0)

    assert scene.play(act) == [Rule.OWNER]


def test_a_lease_that_is_longer_than_agreed_is_seen(scene: Scene) -> None:
    assert scene.play(lambda: scene.join("a", "s0", seconds=PLAN.lease + 1.0)) == [Rule.LEASE]


def test_two_runs_of_one_key_are_seen(scene: Scene) -> None:
    def act() -> None:
        scene.serve()
        scene.join("a", "s0")
        scene.own("a", "s0")
        waits: dict[str, Any] = {"state": "queued", "attempt": 0, "tries": 0, "worker": None, "started_at": None}
        scene.start("r1", key="k", **waits)
        scene.start("r2", key="k", **waits)

    assert scene.play(act) == [Rule.KEYS]


def test_two_runs_of_one_submit_are_seen(scene: Scene) -> None:
    def act() -> None:
        scene.ready()
        waits: dict[str, Any] = {
            "state": "queued",
            "attempt": 0,
            "tries": 0,
            "worker": None,
            "started_at": None,
            "input": "same",
        }
        scene.start("r1", **waits)
        scene.start("r2", **waits)

    assert scene.play(act) == [Rule.KEYS]


def test_a_run_that_starts_again_and_again_in_a_second_is_seen(scene: Scene) -> None:
    def act() -> None:
        scene.ready()
        scene.start("r1", max_attempts=99)
        for _ in range(HASTE):
            scene.execute("UPDATE run SET state = 'queued', tries = tries - 1, worker = NULL, due_at = due_at")
            scene.execute(
                f"UPDATE run SET state = 'running', attempt = attempt + 1, tries = tries + 1, worker = '{WORKER.name}'"
            )

    assert scene.play(act) == [Rule.HASTE]


def test_a_heartbeat_that_renewed_nothing_is_seen(scene: Scene) -> None:
    def act() -> None:
        scene.ready()
        scene.start("r1", lease_until=scene.now + 10)
        scene.checker.renewed(("r1", 1), 0.0)

    assert scene.play(act) == [Rule.LEASE]


def test_an_acknowledged_run_that_is_gone_is_seen(scene: Scene) -> None:
    def act() -> None:
        scene.ready()
        scene.start("r1")
        scene.history.acknowledged["r1"] = Asked(ONCE.name, None, "r1")
        scene.execute("DELETE FROM run")
        scene.checker.look_back()

    assert scene.play(act) == [Rule.KEPT, Rule.STORED]


def test_a_change_that_was_never_committed_is_seen_at_the_end(scene: Scene) -> None:
    def act() -> None:
        scene.ready()
        scene.start("r1")
        scene.world.disk.connection.execute("UPDATE run SET reason = 'by nobody'")
        scene.checker.look_back()

    assert scene.play(act) == [Rule.KEPT]
