"""Schedules, as a client sees them: made, changed, paused, triggered, asked for their times, and refused."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.anyio

DAILY = {"name": "report", "task": "echo", "expression": "30 6 * * mon-fri", "timezone": "Europe/Berlin"}


async def made(api: httpx.AsyncClient, **more: Any) -> dict[str, Any]:
    answer = await api.post("/schedules", json=DAILY | more)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_a_schedule_is_made_shown_listed_and_removed(api: httpx.AsyncClient) -> None:
    this_year = datetime.now(UTC).year
    answer = await api.post(
        "/schedules", content=b'{"task":"echo","name":"s","expression":"@yearly","input":{"n":1.50}}'
    )
    again = await api.post(
        "/schedules", content=b'{"name":"s","expression":"@yearly","input":{"n":1.50},"task":"echo"}'
    )
    other = await api.post("/schedules", json={"task": "echo", "name": "s", "expression": "@hourly"})
    shown = await api.get("/schedules/s")
    listed = await api.get("/schedules")
    removed = await api.delete("/schedules/s")

    assert (answer.status_code, answer.headers["location"]) == (201, "/schedules/s")
    found = answer.json()
    times = ("next_at", "created_at", "updated_at")
    assert {name: value for name, value in found.items() if name not in times} == {
        "name": "s",
        "task": "echo",
        "expression": "@yearly",
        "run_at": None,
        "timezone": "UTC",
        "input": {"n": 1.5},
        "metadata": {},
        "priority": None,
        "missed": "once",
        "overlap": "allow",
        "paused": False,
        "source": "api",
        "last_at": None,
        "last_run": None,
        "problem": None,
    }
    assert found["next_at"] in [f"{year}-01-01T00:00:00.000Z" for year in (this_year + 1, this_year + 2)]
    assert b'"input":{"n":1.50}' in answer.content  # as it came
    assert (again.status_code, again.json(), shown.json()) == (200, found, found)
    assert (other.status_code, other.json()["code"]) == (409, "schedule_exists")
    assert listed.json() == {"items": [found], "next_cursor": None}
    assert (removed.status_code, removed.content) == (204, b"")
    assert (await api.get("/schedules/s")).json()["code"] == "schedule_unknown"


async def test_a_schedule_without_a_name_gets_one(api: httpx.AsyncClient) -> None:
    answer = await api.post("/schedules", json={"task": "echo", "expression": "@daily"})

    name = answer.json()["name"]
    assert (answer.status_code, answer.headers["location"]) == (201, f"/schedules/{name}")
    assert (await api.get(f"/schedules/{name}")).json() == answer.json()


async def test_a_single_time_fires_once_and_what_came_of_it_is_told(api: httpx.AsyncClient) -> None:
    past = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    await made(api, name="once", expression=None, timezone=None, run_at=past, input=[1])

    async with asyncio.timeout(60):
        while not (fires := (await api.get("/schedules/once/fires")).json()["items"]):  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # a turn is on its way
    [fire] = fires
    run = (await api.get(f"/runs/{fire['run']}?wait=60")).json()
    after = (await api.get("/schedules/once")).json()

    assert (fire["outcome"], fire["manual"], fire["reason"]) == ("started", False, None)
    assert (run["state"], run["output"]) == ("completed", [1])
    assert run["trigger"] == {"type": "schedule", "schedule": "once", "due_at": fire["due_at"], "manual": False}
    assert (after["next_at"], after["last_at"], after["last_run"]) == (None, fire["due_at"], run["id"])
    assert (await api.get("/schedules/once/next")).json() == {"items": []}


async def test_a_schedule_is_triggered_paused_and_resumed(api: httpx.AsyncClient) -> None:
    before = await made(api, input={"a": 1}, priority=5)

    paused = await api.post("/schedules/report/pause")
    started = await api.post("/schedules/report/trigger")
    none = await api.get("/schedules/report/next")
    resumed = await api.post("/schedules/report/resume")

    run = started.json()
    assert (paused.status_code, paused.json()["paused"], paused.json()["next_at"]) == (200, True, None)
    assert (started.status_code, started.headers["location"]) == (201, f"/runs/{run['id']}")
    assert (run["input"], run["priority"], run["trigger"]["manual"]) == ({"a": 1}, 5, True)
    assert none.json() == {"items": []}
    assert (resumed.json()["paused"], resumed.json()["next_at"]) == (False, before["next_at"])
    assert [one["manual"] for one in (await api.get("/schedules/report/fires")).json()["items"]] == [True]


async def test_the_next_times_are_told_by_the_clock_on_the_wall(api: httpx.AsyncClient) -> None:
    found = await made(api)

    times = (await api.get("/schedules/report/next?count=12")).json()["items"]
    asked = {"expression": DAILY["expression"], "timezone": DAILY["timezone"], "count": 12}
    preview = (await api.post("/schedules/preview", json=asked)).json()["items"]

    assert times == preview
    assert times[0] == found["next_at"]
    assert len((await api.get("/schedules/report/next")).json()["items"]) == 10
    assert len((await api.post("/schedules/preview", json={"expression": "* * * * * *"})).json()["items"]) == 10
    assert {datetime.fromisoformat(time).weekday() for time in times} <= set(range(5))
    assert {time[11:] for time in times} <= {"05:30:00.000Z", "04:30:00.000Z"}


async def test_members_of_a_schedule_are_changed_and_the_others_stay(api: httpx.AsyncClient) -> None:
    before = await made(api, priority=5, metadata={"a": 1})
    in_a_day = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)

    inputs = (await api.patch("/schedules/report", json={"input": None, "missed": "all", "overlap": "cancel"})).json()
    priority = (await api.patch("/schedules/report", json={"priority": None, "metadata": None})).json()
    once = (await api.patch("/schedules/report", json={"run_at": in_a_day.isoformat()})).json()
    monthly = (await api.patch("/schedules/report", json={"expression": "0 0 1 * *"})).json()
    nothing = (await api.patch("/schedules/report", json={})).json()
    no_body = (await api.patch("/schedules/report")).json()

    changed = {"updated_at": inputs["updated_at"], "input": None, "missed": "all", "overlap": "cancel"}
    assert inputs == before | changed
    assert (priority["priority"], priority["metadata"]) == (None, {"a": 1})
    assert (once["expression"], datetime.fromisoformat(once["next_at"])) == (None, in_a_day)
    assert (monthly["run_at"], monthly["expression"], monthly["next_at"][13:]) == (None, "0 0 1 * *", ":00:00.000Z")
    assert nothing == no_body == monthly


async def test_schedules_are_listed_by_task_and_by_pause_in_pages(api: httpx.AsyncClient) -> None:
    for name, task in (("c", "echo"), ("a", "echo"), ("b", "break")):
        await made(api, name=name, task=task)
    await api.post("/schedules/a/pause")

    async def names(query: str) -> list[str]:
        return [one["name"] for one in (await api.get(f"/schedules?{query}")).json()["items"]]

    first = (await api.get("/schedules?limit=2")).json()
    assert [one["name"] for one in first["items"]] == ["a", "b"]
    assert await names(f"limit=2&cursor={first['next_cursor']}") == ["c"]
    assert await names("task=echo") == ["a", "c"]
    assert await names("task=echo&paused=true") == ["a"]
    assert await names("paused=false") == ["b", "c"]
    assert await names("task=nobody") == []


async def test_crons_of_a_policy_are_listed_and_refuse_changes(api: httpx.AsyncClient) -> None:
    crons = [{"expression": "@hourly", "input": {"a": 1}}]
    spec = {"name": "plain", "url": "https://worker.example.com/run", "mode": "plain"}
    answer = await api.post("/workers", json=spec | {"tasks": [{"name": "tick", "crons": crons}]})
    assert answer.status_code == 200, answer.text

    [found] = (await api.get("/schedules?task=tick")).json()["items"]
    changed = await api.patch("/schedules/tick.0", json={"expression": "@daily"})
    removed = await api.delete("/schedules/tick.0")
    paused = await api.post("/schedules/tick.0/pause")
    mine = await api.post("/schedules", json={"task": "tick", "name": "tick.1", "expression": "@daily"})

    assert (found["name"], found["source"], found["input"]) == ("tick.0", "task", {"a": 1})
    assert [(one.status_code, one.json()["code"]) for one in (changed, removed)] == [(409, "schedule_of_task")] * 2
    assert "pause the schedule" in changed.json()["detail"]
    assert (paused.status_code, paused.json()["paused"]) == (200, True)
    assert (mine.status_code, mine.json()["field"]) == (422, "name")


WRONG: dict[str, tuple[dict[str, Any], str, str]] = {
    "a cron that never fires": ({"expression": "0 0 30 2 *"}, "cron_invalid", "never fires"),
    "a cron with a year": ({"expression": "0 0 12 * * 2027"}, "cron_invalid", "years are not supported"),
    "a cron with a year and no seconds": ({"expression": "0 12 * * * 2027"}, "cron_invalid", "6 with seconds first"),
    "a cron of four fields": ({"expression": "* * * *"}, "cron_invalid", "5 fields"),
    "a cron with a bad minute": ({"expression": "61 * * * *"}, "cron_invalid", "The minute field '61'"),
    "an empty cron": ({"expression": ""}, "member_invalid", "1 to 256 characters"),
    "a long cron": ({"expression": "*" * 257}, "member_invalid", "1 to 256 characters"),
    "a cron that is no text": ({"expression": 5}, "member_invalid", "expression must be"),
    "an unknown zone": ({"timezone": "Europe/Berlinn"}, "timezone_unknown", "did you mean Europe/Berlin?"),
    "a zone that is an offset": ({"timezone": "+02:00"}, "timezone_unknown", "write UTC"),
    "no time at all": ({"expression": None}, "member_missing", "expression"),
    "two times": ({"run_at": "2027-01-01T00:00:00Z"}, "member_invalid", "exclude each other"),
    "a time without zone": ({"expression": None, "run_at": "2027-01-01T00:00:00"}, "member_invalid", "its zone"),
    "a time that is none": ({"expression": None, "run_at": "2027-02-30T00:00:00Z"}, "member_invalid", "exists"),
    "a time in the far past": ({"expression": None, "run_at": "1999-01-01T00:00:00Z"}, "member_invalid", "31536000"),
    "a time above the cap": ({"expression": None, "run_at": "2999-01-01T00:00:00Z"}, "member_invalid", "31536000"),
    "no task": ({"task": None}, "member_missing", "task"),
    "an unknown task": ({"task": "nobody"}, "task_unknown", "there is no task nobody"),
    "a bad name": ({"name": "a b"}, "member_invalid", "1 to 128 letters"),
    "an empty name": ({"name": ""}, "member_invalid", "1 to 128 letters"),
    "a name that is a path": ({"name": "preview"}, "member_invalid", "preview"),
    "a name of a policy": ({"name": "echo.0"}, "member_invalid", "the crons of tasks"),
    "another missed": ({"missed": "twice"}, "member_invalid", '"skip", "once" or "all"'),
    "another overlap": ({"overlap": ["skip"]}, "member_invalid", '"allow", "skip" or "cancel"'),
    "metadata that is no object": ({"metadata": [1]}, "member_invalid", "JSON object"),
    "metadata that is too large": ({"metadata": {"a": "x" * 65_536}}, "member_too_large", "65536 bytes"),
    "a priority beyond": ({"priority": 1001}, "member_invalid", "-1000 to 1000"),
    "an unknown member": ({"cron": "@daily"}, "member_unknown", "'cron' is not known"),
}


async def test_what_cannot_be_is_refused_with_a_sentence_and_nothing_is_made(api: httpx.AsyncClient) -> None:
    told = {}
    for how, (said, _, words) in WRONG.items():
        answer = await api.post("/schedules", json=DAILY | said)
        problem = answer.json()
        assert answer.status_code == 422, how
        assert problem["field"] in said, how
        told[how] = (said, problem["code"], words if words in problem["detail"] else problem["detail"])

    assert told == WRONG
    assert (await api.get("/schedules")).json()["items"] == []


NO_JSON = [
    b'{"task":"echo","expression":"@daily","input":{"a":NaN}}',
    b'{"task":"echo","expression":"@daily","input":' + b"[" * 100 + b"]" * 100 + b"}",
    b'{"task":"echo","expression":"@daily","name":"a","name":"b"}',
    b'{"task":"echo"',
    b"[]",
]


async def test_what_is_no_json_of_ours_is_refused(api: httpx.AsyncClient) -> None:
    answers = [await api.post("/schedules", content=body) for body in NO_JSON]

    assert [(one.status_code, one.json()["code"]) for one in answers] == [(422, "json_invalid")] * len(NO_JSON)


async def test_an_input_that_is_too_large_is_refused(api: httpx.AsyncClient) -> None:
    answer = await api.post("/schedules", json=DAILY | {"input": "x" * 100_000})

    assert (answer.status_code, answer.json()["code"], answer.json()["limit"]) == (413, "body_too_large", 100_000)


WRONG_CHANGES: list[tuple[dict[str, Any], str, str]] = [
    ({"expression": "0 0 30 2 *"}, "cron_invalid", "expression"),
    ({"timezone": "Mars"}, "timezone_unknown", "timezone"),
    ({"expression": "@daily", "run_at": "2027-01-01T00:00:00Z"}, "member_invalid", "run_at"),
    ({"run_at": "2999-01-01T00:00:00Z"}, "member_invalid", "run_at"),
    ({"task": "nobody"}, "task_unknown", "task"),
    ({"name": "other"}, "member_unknown", "name"),
    ({"missed": ""}, "member_invalid", "missed"),
]


async def test_a_change_that_cannot_be_is_refused_and_changes_nothing(api: httpx.AsyncClient) -> None:
    before = await made(api)

    answers = [await api.patch("/schedules/report", json=changes) for changes, _, _ in WRONG_CHANGES]

    told = [(answer.status_code, answer.json()["code"], answer.json()["field"]) for answer in answers]
    assert told == [(422, code, field) for _, code, field in WRONG_CHANGES]
    assert (await api.get("/schedules/report")).json() == before


ASKED_WRONGLY = [
    ("GET", "/schedules/nobody", 404, "schedule_unknown"),
    ("PATCH", "/schedules/nobody", 404, "schedule_unknown"),
    ("DELETE", "/schedules/nobody", 404, "schedule_unknown"),
    ("POST", "/schedules/nobody/pause", 404, "schedule_unknown"),
    ("POST", "/schedules/nobody/resume", 404, "schedule_unknown"),
    ("POST", "/schedules/nobody/trigger", 404, "schedule_unknown"),
    ("GET", "/schedules/nobody/next", 404, "schedule_unknown"),
    ("GET", "/schedules/nobody/fires", 404, "schedule_unknown"),
    ("GET", "/schedules/a%20b", 404, "schedule_unknown"),
    ("GET", "/schedules?paused=perhaps", 422, "parameter_invalid"),
    ("GET", "/schedules?task=a%20b", 422, "parameter_invalid"),
    ("GET", "/schedules?state=paused", 422, "parameter_unknown"),
    ("GET", "/schedules/report/next?count=0", 422, "parameter_invalid"),
    ("GET", "/schedules/report/next?count=101", 422, "parameter_invalid"),
    ("GET", "/schedules/report/next?count=ten", 422, "parameter_invalid"),
    ("GET", "/schedules/report/fires?cursor=x", 422, "bad_cursor"),
    ("GET", "/schedules/report/fires?limit=1001", 422, "parameter_invalid"),
    ("GET", "/schedules/preview", 405, "method_not_allowed"),
]


async def test_what_is_not_there_or_asked_wrongly_is_told(api: httpx.AsyncClient) -> None:
    await made(api)

    answers = [await api.request(method, path) for method, path, _, _ in ASKED_WRONGLY]

    told = [
        (*asked[:2], one.status_code, one.json()["code"]) for asked, one in zip(ASKED_WRONGLY, answers, strict=True)
    ]
    assert told == ASKED_WRONGLY


WRONG_PREVIEWS: list[tuple[dict[str, Any], str, str]] = [
    ({}, "member_missing", "expression"),
    ({"expression": "0 0 30 2 *"}, "cron_invalid", "expression"),
    ({"expression": "@daily", "timezone": "Mars"}, "timezone_unknown", "timezone"),
    ({"expression": "@daily", "count": 101}, "member_invalid", "count"),
    ({"expression": "@daily", "task": "echo"}, "member_unknown", "task"),
]


async def test_a_preview_says_what_is_wrong(api: httpx.AsyncClient) -> None:
    answers = [await api.post("/schedules/preview", json=asked) for asked, _, _ in WRONG_PREVIEWS]

    told = [(answer.status_code, answer.json()["code"], answer.json()["field"]) for answer in answers]
    assert told == [(422, code, field) for _, code, field in WRONG_PREVIEWS]


async def test_a_registration_with_a_cron_that_cannot_be_is_refused(api: httpx.AsyncClient) -> None:
    spec = {"name": "plain", "url": "https://worker.example.com/run", "mode": "plain"}

    answer = await api.post("/workers", json=spec | {"tasks": [{"name": "t", "crons": [{"expression": "* * 32 * *"}]}]})

    assert (answer.status_code, answer.json()["code"]) == (422, "policy_invalid")
    assert "task t: crons[0].expression: The day-of-month field '32'" in answer.json()["detail"]
    assert (await api.get("/tasks/t")).status_code == 404
