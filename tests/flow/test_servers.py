"""Limits hold beyond the life of a server, and among several of them."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from tests.e2e.stage import Api
from tests.flow.checks import most_at_once
from tests.flow.stand import LONG, Flow, set_up
from tests.support.processes import Processes
from tests.support.stands import UNHURRIED

MOST = 3


def test_what_is_paused_and_counted_outlasts_the_server(processes: Processes, sqlite_url: str, tmp_path: Path) -> None:
    with set_up(processes, tmp_path, sqlite_url) as flow:
        flow.limit("lasting", MOST)
        line = {"key": "'all'", "strategy": "QUEUE_OLDEST_ONLY"}
        key = {"dynamic_key": "'lasting-key'", "limit": 9, "duration": LONG}
        flow.worker(
            "lasting",
            {"name": "lasting.limited", "rate_limits": [{"key": "lasting"}]},
            {"name": "lasting.line", "concurrency": [line]},
            {"name": "lasting.key", "rate_limits": [key]},
        )
        flow.pause("lasting.line")
        flow.api.call("POST", "/rate-limits/lasting-key/pause", dynamic="true")
        limited = flow.submit_all("lasting.limited", *[{}] * 2 * MOST)
        flow.until_completed("lasting.limited", MOST)
        held = [flow.api.submit(task, {})["id"] for task in ("lasting.line", "lasting.key")]

        flow.server.kill()
        server = processes.serve(sqlite_url)
        with Api(server.url) as api:
            again = replace(flow, server=server, api=api)
            refused = api.submit("lasting.line", {})["id"]
            again.settle()
            assert again.states([*held, refused]) == ["queued", "queued", "cancelled"]
            assert sorted(again.states(limited)) == ["completed"] * MOST + ["queued"] * MOST

            again.resume("lasting.line")
            api.call("POST", "/rate-limits/lasting-key/resume", dynamic="true")
            again.limit("lasting", 2 * MOST)
            assert [api.ended(run_id)["state"] for run_id in (*held, *limited)] == ["completed"] * (2 + 2 * MOST)


def test_two_servers_keep_one_limit(processes: Processes, postgres_flow: Flow) -> None:
    flow = postgres_flow
    flow.limit("one-of-two", 50)
    rule = {"key": "input.key", "max_runs": MOST}
    flow.worker("one-of-two", {"name": "one.of.two", "concurrency": [rule], "rate_limits": [{"key": "one-of-two"}]})
    flow.pause("one.of.two")
    second = processes.serve(flow.database_url, **UNHURRIED)
    with Api(second.url) as api, ThreadPoolExecutor(2) as pool:

        def submit(through: Api) -> list[str]:
            return [through.submit("one.of.two", {"key": n % 2, "ms": 10})["id"] for n in range(30)]

        key_of = {run_id: n % 2 for one in pool.map(submit, (flow.api, api)) for n, run_id in enumerate(one)}
        replace(flow, api=api).resume("one.of.two")
        flow.until_completed("one.of.two", 50)
        flow.settle()
        assert len(flow.journal.starts("one.of.two")) == 50
        replace(flow, api=api).limit("one-of-two", 60)
        assert {api.ended(run_id)["state"] for run_id in key_of} == {"completed"}
    assert second.terminate() == 0  # so that the one that stays knows at once

    spans = flow.journal.spans("one.of.two")
    assert sorted(span.run_id for span in spans) == sorted(key_of)
    assert max(most_at_once([span for span in spans if key_of[span.run_id] == key]) for key in (0, 1)) <= MOST
