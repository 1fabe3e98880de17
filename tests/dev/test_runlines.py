"""The lines that tell of runs: what is said, what is not, and what becomes of too much."""

import asyncio
import re
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from hurlbat.policy import TaskPolicy
from hurlbat_app.dev.runlines import RUNS_A_SECOND, RunLines
from hurlbat_dispatcher import Engine, Mode, Outside, Settings, Submission, WorkerSpec

BEGIN = datetime(2030, 1, 31, 12, 0, 0, tzinfo=UTC)
pytestmark = pytest.mark.anyio
ID = "0199a3c0-7d54-7b3e-8a51-5b1c7d2f9e10"


def _at(seconds: float) -> str:
    return (BEGIN + timedelta(seconds=seconds)).isoformat()


def _run(state: str, *entries: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """A run as the API shows it, with a timeline that begins with its submit."""
    created = {"at": _at(0), "kind": "created", "attempt": 0}
    plain = {"id": ID, "task": "send", "state": state, "attempt": 1, "input": None, "output": None, "error": None}
    times = {"created_at": _at(0), "finished_at": entries[-1]["at"] if entries else None}
    return plain | times | {"timeline": [created, *entries]} | more


def _entry(seconds: float, kind: str, attempt: int = 1, **detail: Any) -> dict[str, Any]:
    return {"at": _at(seconds), "kind": kind, "attempt": attempt, **detail}


def _lines(*runs: dict[str, Any], logs: bool = False, seconds: float = 0.0) -> list[str]:
    """What is said of a run that is looked at again and again, so many seconds apart, without the time of day."""
    said: list[str] = []
    lines = RunLines(said.append, lambda text, _: text, logs=logs, since=BEGIN)
    for number, run in enumerate(runs):
        said += lines.lines(run, number * seconds)
    return [line.split(" ", 1)[1] for line in said]


STARTED = _entry(0.1, "started", worker="app")


def test_of_a_short_run_only_its_end_is_told() -> None:
    ended = _run("completed", STARTED, _entry(0.2, "completed"), output="sent")

    assert _lines(_run("running", STARTED), ended) == [f'✓ send  {ID}  completed after 0.20 s with "sent"']


def test_the_start_of_a_run_is_told_when_it_has_run_for_a_while() -> None:
    running = _run("running", STARTED)

    assert _lines(running, running, running, seconds=0.3) == [f"▸ send  {ID}  attempt 1 started on app"]


def test_a_retry_is_told_with_its_reason_and_every_entry_once() -> None:
    failed: dict[str, Any] = {"type": "ValueError", "message": "no stamp"}
    retry = _entry(0.2, "retry", due_at=_at(1.2), **failed)
    over = [STARTED, retry, _entry(1.2, "started", 2, worker="app"), _entry(1.3, "failed", 2, **failed)]

    assert _lines(_run("queued", STARTED, retry), _run("failed", *over, attempt=2, error=failed)) == [
        f"↻ send  {ID}  attempt 1 failed: ValueError: no stamp; again in 1.0 s",
        f"✗ send  {ID}  failed after 1.30 s and 2 attempts: ValueError: no stamp",
    ]


def test_what_a_task_logs_is_told_only_where_that_is_wanted() -> None:
    run = _run("completed", STARTED, _entry(0.15, "log", level="info", message="found it"), _entry(0.2, "completed"))

    assert [line.split("  ")[-1] for line in _lines(run)] == ["completed after 0.20 s with null"]
    assert [line.split("  ")[-1] for line in _lines(run, logs=True)] == [
        "attempt 1 started on app",
        "info: found it",
        "completed after 0.20 s with null",
    ]


def test_an_app_that_is_away_is_told_once_for_each_run() -> None:
    away = [_entry(at, kind, at, worker="app") for at in (1, 2, 3) for kind in ("started", "not_sent")]

    assert _lines(_run("queued", *away[:2]), _run("queued", *away)) == [f"· send  {ID}  not sent"]


def test_a_late_answer_does_not_tell_the_story_again() -> None:
    ended = [STARTED, _entry(0.2, "cancelled")]
    lines = _lines(_run("cancelled", *ended), _run("cancelled", *ended, _entry(0.9, "late"), finished_at=_at(0.2)))

    assert lines == [f"- send  {ID}  cancelled after 0.20 s", f"· send  {ID}  late"]


def test_what_happened_on_another_day_is_not_told() -> None:
    old = [_entry(-90, "started", worker="app"), _entry(-80, "failed")]
    run = _run("completed", *old, _entry(0.1, "replayed"), _entry(0.2, "started", 2), _entry(0.3, "completed", 2))

    assert [line.split("  ")[-1] for line in _lines(run)] == ["replayed", "completed after 0.30 s with null"]


@pytest.fixture
def network() -> httpx.MockTransport:
    """A plain worker whose runs complete, but for those whose input is `false`."""

    def answer(request: httpx.Request) -> httpx.Response:
        bad = b'"input":false' in request.content.replace(b" ", b"")
        return httpx.Response(422 if bad else 200, headers={"hurlbat-retry": "no"}, json="done")

    return httpx.MockTransport(answer)


async def test_of_a_storm_some_are_told_the_failed_ones_among_them_and_the_rest_is_counted(
    sqlite_url: str, network: httpx.MockTransport
) -> None:
    many, bad = 30 * RUNS_A_SECOND, 5
    engine = Engine(Settings(database_url=sqlite_url, external_url="http://hurlbat.test"), Outside(network=network))
    await engine.start()
    policy = TaskPolicy(name="echo")
    await engine.register_worker(WorkerSpec("plain", "https://w.example.com/", mode=Mode.PLAIN, tasks=(policy,)))
    said: list[str] = []
    heard = asyncio.Event()

    def say(line: str) -> None:
        said.append(line)
        heard.set()

    telling = asyncio.create_task(RunLines(say, lambda text, _: text, logs=False).tell(engine))
    await asyncio.sleep(0)  # so that it follows before anything happens
    inputs = ["true"] * (many - bad) + ["false"] * bad
    await engine.submit_many([Submission("echo", one) for one in inputs])
    async with asyncio.timeout(60):
        while _told(said)["completed"] + _told(said)["failed"] < many:
            heard.clear()
            await heard.wait()
    telling.cancel()
    await asyncio.gather(telling, return_exceptions=True)
    await engine.stop(0)

    assert _told(said) == {"completed": many - bad, "failed": bad}
    assert len(said) < many / 2


def _told(lines: list[str]) -> Counter[str]:
    """Count the ends that were told, each by a line or by the sums of those left out."""
    text = "\n".join(lines)
    told = Counter(re.findall(r"(completed|failed) after", text))
    for count, state in re.findall(r"([\d,]+) (completed|failed)\b(?! after)", text):
        told[state] += int(count.replace(",", ""))
    return told
