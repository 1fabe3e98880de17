"""Acknowledged means committed and on disk."""

from pathlib import Path
from typing import Any

import pytest

from hurlbat_dispatcher.clock import SystemClock
from hurlbat_dispatcher.store.sqlite import SqliteDatabase
from tests.e2e.stage import set_stage, until
from tests.support.postgres import Cluster
from tests.support.processes import Processes


def test_an_acknowledged_run_is_there_after_a_kill_in_the_same_moment(
    processes: Processes, tmp_path: Path, database_url: str
) -> None:
    quick: dict[str, Any] = {"HURLBAT_LEASE": "2", "HURLBAT_HEARTBEAT": "0.7"}
    with set_stage(processes, tmp_path, database_url, **quick) as stage:
        accepted = stage.api.submit("add", {"first": 1}, delay=3600, metadata={"keep": "me"}, idempotency_key="once")
        stage.server.kill()

        processes.serve(database_url, port=stage.server.port, **quick)

        run = stage.api.show(accepted["id"])
        del run["timeline"], run["children"]
        assert run == accepted
        again = stage.api.submit(
            "add", {"first": 1}, delay=3600, metadata={"keep": "me"}, idempotency_key="once", status=200
        )
        assert again["id"] == accepted["id"]
        assert stage.api.run("add", {"first": 1})["output"] == 2


@pytest.mark.anyio
async def test_sqlite_writes_ahead_and_syncs_every_commit(sqlite_url: str) -> None:
    database = SqliteDatabase(sqlite_url, SystemClock())
    await database.open()
    try:
        thread = database._write_thread
        assert thread is not None
        found = {}
        for pragma in ("journal_mode", "synchronous"):
            async with thread.execute(f"PRAGMA {pragma}") as cursor:
                found[pragma] = await cursor.fetchone()
    finally:
        await database.close()

    assert found == {"journal_mode": ("wal",), "synchronous": (2,)}


def test_a_database_that_dies_and_comes_back_loses_nothing_and_needs_no_restart(
    processes: Processes, tmp_path: Path, own_cluster: Cluster
) -> None:
    with set_stage(processes, tmp_path, own_cluster.url("postgres")) as stage:
        accepted = [stage.api.submit("work", number, delay=1)["id"] for number in range(20)]

        own_cluster.stop("immediate")
        try:
            refused = stage.api.send("POST", "/runs", {"task": "work", "input": 1})
            live = stage.api.send("GET", "/health/live")
        finally:
            own_cluster.start()

        assert (refused.status_code, live.status_code) == (503, 200), refused.text
        assert refused.headers["content-type"] == "application/problem+json"
        until(lambda: stage.api.send("GET", f"/runs/{accepted[0]}").status_code == 200, "answer from the database")
        assert all(stage.api.ended(run_id)["state"] == "completed" for run_id in accepted)
        assert stage.api.run("add", {"first": 1})["output"] == 2
