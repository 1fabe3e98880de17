"""Children of runs, as a client sees them."""

import httpx
import pytest

from tests.api.conftest import FakeWorker

pytestmark = pytest.mark.anyio

UNKNOWN = "00000000-0000-7000-8000-000000000000"


async def running(api: httpx.AsyncClient, worker: FakeWorker) -> str:
    """Return a run that its worker has, and will report of."""
    worker.reached.clear()
    run = (await api.post("/runs", json={"task": "later", "metadata": {"of": "the parent"}})).json()
    await worker.reached.wait()
    return str(run["id"])


async def one_slot(api: httpx.AsyncClient) -> None:
    """Let the worker take one run at a time."""
    tasks = [{"name": name} for name in ("echo", "break", "later")]
    spec = {"name": "plain", "url": "https://worker.example.com/run", "mode": "plain", "tasks": tasks, "slots": 1}
    assert (await api.post("/workers", json=spec)).status_code in (200, 201)


async def test_a_child_is_shown_with_what_it_inherits(api: httpx.AsyncClient, worker: FakeWorker) -> None:
    parent = await running(api, worker)
    answer = await api.post("/runs", json={"task": "echo", "parent": parent, "child_key": "k", "metadata": {"own": 1}})
    child = answer.json()
    assert answer.status_code == 201
    assert (child["parent"], child["root"], child["child_key"]) == (parent, parent, "k")
    assert (child["idempotency_key"], child["metadata"]) == (None, {"of": "the parent", "own": 1})


async def test_a_repeat_of_a_child_key_is_answered_with_the_child_also_when_it_has_ended(
    api: httpx.AsyncClient, worker: FakeWorker
) -> None:
    parent = await running(api, worker)
    body = {"task": "echo", "input": 7, "parent": parent, "child_key": "k"}
    first = await api.post("/runs?wait=60", json=body)
    again = await api.post("/runs", json=body)
    waited = await api.post("/runs?wait=60", json=body)
    other = await api.post("/runs", json=body | {"task": "break"})
    assert [one.status_code for one in (first, again, waited, other)] == [200, 200, 200, 409]
    assert {one.json()["id"] for one in (first, again, waited)} == {other.json()["run_id"]}
    assert (again.json()["output"], other.json()["code"]) == (7, "idempotency_conflict")


async def test_a_parent_that_was_cancelled_starts_no_children(api: httpx.AsyncClient, worker: FakeWorker) -> None:
    parent = await running(api, worker)
    await api.post(f"/runs/{parent}/cancel", json={"reason": "enough"})
    answer = await api.post("/runs", json={"task": "echo", "parent": parent})
    bulk = (await api.post("/runs/bulk", json={"runs": [{"task": "echo", "parent": parent}]})).json()["results"]
    assert (answer.status_code, answer.json()["code"]) == (409, "parent_cancelled")
    assert answer.json()["detail"] == f"run {parent} was cancelled; it starts no children"
    assert (bulk[0]["status"], bulk[0]["code"]) == (409, "parent_cancelled")


async def test_who_would_wait_for_ever_is_told(api: httpx.AsyncClient, worker: FakeWorker) -> None:
    await one_slot(api)
    parent = await running(api, worker)
    body = {"task": "echo", "parent": parent}
    asked = [("/runs?wait=60", body), ("/runs", body | {"awaited": True}), ("/runs?wait=60", body | {"awaited": None})]
    for path, said in asked:
        answer = await api.post(path, json=said)
        assert (answer.status_code, answer.json()["code"], answer.json()["run_id"]) == (409, "would_deadlock", parent)
        assert "only worker plain serves it" in answer.json()["detail"]
    assert len((await api.get("/runs")).json()["items"]) == 1

    for path, said in [
        ("/runs", body),
        ("/runs", body | {"awaited": False}),
        ("/runs?wait=0.01", body | {"awaited": False}),
    ]:
        assert (await api.post(path, json=said)).status_code in (201, 202)
    [child, *_] = [run["id"] for run in (await api.get("/runs")).json()["items"]]
    answer = await api.get(f"/runs/{child}?wait=60&awaited_by={parent}")
    assert (answer.status_code, answer.json()["code"]) == (409, "would_deadlock")
    assert (await api.get(f"/runs/{child}?wait=0.01")).status_code == 200
    itself = await api.get(f"/runs/{parent}?wait=60&awaited_by={parent}")
    assert (itself.status_code, itself.json()["detail"]) == (409, f"run {parent} would wait for its own end")


@pytest.mark.parametrize(
    ("said", "field", "code", "detail"),
    [
        (
            {"child_key": "k"},
            "child_key",
            "member_invalid",
            "child_key names a child among those of its parent, so it needs a parent",
        ),
        (
            {"child_key": "k", "idempotency_key": "i", "parent": "the parent"},
            "child_key",
            "member_invalid",
            "child_key and idempotency_key exclude each other",
        ),
        (
            {"child_key": "k" * 201, "parent": "the parent"},
            "child_key",
            "member_invalid",
            "child_key must be 1 to 200 characters, no control characters among them",
        ),
        (
            {"child_key": "", "parent": "the parent"},
            "child_key",
            "member_invalid",
            "child_key must be 1 to 200 characters, no control characters among them",
        ),
        (
            {"child_key": 7, "parent": "the parent"},
            "child_key",
            "member_invalid",
            "child_key must be 1 to 200 characters, no control characters among them",
        ),
        (
            {"child_key": "k", "idempotency_ttl": 5, "parent": "the parent"},
            "idempotency_ttl",
            "member_invalid",
            "idempotency_ttl needs an idempotency_key",
        ),
        (
            {"awaited": True},
            "awaited",
            "member_invalid",
            "awaited says that the parent waits for it, so it needs a parent",
        ),
        ({"awaited": "yes", "parent": "the parent"}, "awaited", "member_invalid", "awaited must be true or false"),
        ({"parent": UNKNOWN}, "parent", "parent_unknown", f"there is no run {UNKNOWN}"),
        ({"parent": "x"}, "parent", "member_invalid", "parent must be the id of a run"),
        (
            {"parent": "the parent", "metadata": {"more": "x" * 65_520}},
            "metadata",
            "member_too_large",
            "metadata, with what it inherits from its parent, is larger than 65536 bytes",
        ),
    ],
)
async def test_what_cannot_be_said_of_a_child_is_refused_by_its_member(
    api: httpx.AsyncClient, worker: FakeWorker, said: dict[str, object], field: str, code: str, detail: str
) -> None:
    parent = await running(api, worker)
    body = {"task": "echo"} | {name: parent if value == "the parent" else value for name, value in said.items()}
    answer = await api.post("/runs", json=body)
    problem = answer.json()
    assert (answer.status_code, problem["code"], problem["field"], problem["detail"]) == (422, code, field, detail)
    bulk = await api.post("/runs/bulk", json={"runs": [{"task": "echo", "delay": 3600}, body]})
    first, second = bulk.json()["results"]
    assert first["state"] == "queued"
    assert (second["status"], second["code"], second["field"]) == (422, code, f"runs[1].{field}")
    assert len((await api.get("/runs")).json()["items"]) == 2


async def test_a_key_of_two_hundred_characters_will_do(api: httpx.AsyncClient, worker: FakeWorker) -> None:
    parent = await running(api, worker)
    key = "𝄞é" * 100
    answer = await api.post("/runs", json={"task": "echo", "parent": parent, "child_key": key})
    assert (answer.status_code, answer.json()["child_key"]) == (201, key)


@pytest.mark.parametrize(
    ("query", "field", "detail"),
    [
        ("awaited_by={parent}", "awaited_by", "awaited_by says who waits, so it needs wait"),
        ("wait=60&awaited_by=x", "awaited_by", "awaited_by must be the id of a run"),
        ("wait=60&awaited_by=", "awaited_by", "awaited_by must be the id of a run"),
        (
            "wait=60&awaited=true",
            "awaited",
            "the query parameter 'awaited' is not known here (known:",
        ),
    ],
)
async def test_what_cannot_be_said_of_who_waits_is_refused(
    api: httpx.AsyncClient, worker: FakeWorker, query: str, field: str, detail: str
) -> None:
    parent = await running(api, worker)
    answer = await api.get(f"/runs/{parent}?{query.format(parent=parent)}")
    problem = answer.json()
    assert (answer.status_code, problem["field"]) == (422, field)
    assert problem["detail"].startswith(detail)


async def test_a_parent_that_nobody_knows_waits_as_anybody_does(api: httpx.AsyncClient) -> None:
    run = (await api.post("/runs", json={"task": "echo"})).json()
    answer = await api.get(f"/runs/{run['id']}?wait=60&awaited_by={UNKNOWN}")
    assert (answer.status_code, answer.json()["state"]) == (200, "completed")
    gone = await api.get(f"/runs/{UNKNOWN}?wait=60&awaited_by={run['id']}")
    assert (gone.status_code, gone.json()["code"]) == (404, "run_unknown")
