"""Bad input: each mistake has its status, its code, and its place."""

import gzip
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.anyio

YEAR = 31_536_000
MONTHS = timedelta(days=300)


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("task", 7),
        ("task", "no spaces"),
        ("task", ""),
        ("task", "a" * 129),
        ("task", "line\n"),
        ("metadata", []),
        ("metadata", "text"),
        ("priority", 1001),
        ("priority", -1001),
        ("priority", 1.5),
        ("priority", True),
        ("priority", "2"),
        ("delay", -1),
        ("delay", YEAR + 1),
        ("delay", "10"),
        ("delay", True),
        ("run_at", "tomorrow"),
        ("run_at", "2030-01-31T12:00:00"),
        ("run_at", "2030-01-31"),
        ("run_at", "2030-02-31T12:00:00Z"),
        ("run_at", 1_900_000_000),
        ("ttl", 0),
        ("ttl", -5),
        ("idempotency_key", ""),
        ("idempotency_key", "k" * 257),
        ("idempotency_key", "a\x00b"),
        ("idempotency_key", 7),
        ("idempotency_ttl", 60),
        ("parent", 7),
        ("parent", ""),
        ("parent", "0199A3C0-7D54-7B3E-8A51-5B1C7D2F9E10"),
        ("parent", "0199a3c0-7d54-7b3e-8a51-5b1c7d2f9e1"),
    ],
)
async def test_a_member_that_breaks_its_rule_is_named(api: httpx.AsyncClient, member: str, value: Any) -> None:
    answer = await api.post("/runs", json={"task": "echo"} | {member: value})

    assert (answer.status_code, answer.json()["code"], answer.json()["field"]) == (422, "member_invalid", member)


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("metadata", {}),
        ("metadata", None),
        ("priority", -1000),
        ("priority", 1000),
        ("delay", 0),
        ("delay", YEAR),
        pytest.param("run_at", f"{datetime.now(UTC) + MONTHS:%Y-%m-%dT%H:%M:%SZ}", id="run_at-later"),
        pytest.param("run_at", f"{datetime.now(UTC) + MONTHS:%Y-%m-%dt%H:%M:%S.123456+05:30}", id="run_at-zone"),
        pytest.param("run_at", f"{datetime.now(UTC) - MONTHS:%Y-%m-%dT%H:%M:%SZ}", id="run_at-past"),
        ("ttl", 0.001),
        ("idempotency_key", "k" * 256),
        ("idempotency_key", "ключ"),
        ("input", "\u0000"),
        ("parent", None),
    ],
)
async def test_what_is_within_the_rules_is_accepted(api: httpx.AsyncClient, member: str, value: Any) -> None:
    answer = await api.post("/runs", json={"task": "echo"} | {member: value})

    assert answer.status_code == 201, answer.text


async def test_delay_and_run_at_exclude_each_other(api: httpx.AsyncClient) -> None:
    answer = await api.post("/runs", json={"task": "echo", "delay": 1, "run_at": "2030-01-31T12:00:00Z"})

    assert (answer.status_code, answer.json()["field"]) == (422, "run_at")


async def test_a_missing_task_is_named(api: httpx.AsyncClient) -> None:
    for body in (b"", b"{}", b'{"task":null}'):
        answer = await api.post("/runs", content=body)
        assert (answer.status_code, answer.json()["code"], answer.json()["field"]) == (422, "member_missing", "task")


async def test_an_unknown_task_is_refused(api: httpx.AsyncClient) -> None:
    answer = await api.post("/runs", json={"task": "nobody"})

    assert (answer.status_code, answer.json()["code"], answer.json()["field"]) == (422, "task_unknown", "task")


@pytest.mark.parametrize("member", ["concurrency", "rate_limits", "Task", "task ", "state"])
async def test_an_unknown_member_is_named(api: httpx.AsyncClient, member: str) -> None:
    answer = await api.post("/runs", json={"task": "echo", member: 1})

    assert (answer.status_code, answer.json()["code"], answer.json()["field"]) == (422, "member_unknown", member)


@pytest.mark.parametrize(
    ("body", "position"),
    [
        ('{"task" "echo"}', 8),
        ('{"task":"echo",}', 15),
        ('{"task":"echo"', 14),
        ("[]", 0),
        ('"echo"', 0),
        ("\ufeff{}", 0),
        ('{"task":"echo"}x', 15),
        ('{"task":"echo","input":NaN}', 23),
        ('{"task":"echo","input":[1,-Infinity]}', 23),
        ('{"task":"echo","input":1e400}', 23),
        ('{"task":"echo","task":"echo"}', 15),
        ('{"task":"echo","input":"\\ud800"}', 24),
        ('{"task":"echo","input":' + "[" * 90_000 + "}", 23),
        ('{"task":"echo","input":' + "9" * 5000 + "}", 23),
        ("{'task':'echo'}", 1),
    ],
)
async def test_bad_json_is_refused_with_its_place(api: httpx.AsyncClient, body: str, position: int) -> None:
    answer = await api.post("/runs", content=body.encode())

    assert (answer.status_code, answer.json()["code"]) == (422, "json_invalid")
    assert answer.json()["position"] == position


async def test_bytes_that_are_no_utf8_are_refused_with_their_place(api: httpx.AsyncClient) -> None:
    answer = await api.post("/runs", content=b'{"task":"\xff"}')

    assert (answer.status_code, answer.json()["code"], answer.json()["position"]) == (422, "json_invalid", 9)


async def test_deep_nesting_is_refused_and_sixty_levels_are_not(api: httpx.AsyncClient) -> None:
    deep = await api.post("/runs", content=b'{"task":"echo","input":' + b"[" * 80 + b"]" * 80 + b"}")
    fine = await api.post("/runs", content=b'{"task":"echo","input":' + b"[" * 60 + b"]" * 60 + b"}")

    assert (deep.status_code, deep.json()["code"]) == (422, "json_invalid")
    assert fine.status_code == 201


async def test_metadata_may_have_64_kib(api: httpx.AsyncClient) -> None:
    fits = json.dumps({"task": "echo", "metadata": {"m": "x" * (65_536 - 8)}}, separators=(",", ":"))
    over = json.dumps({"task": "echo", "metadata": {"m": "x" * (65_536 - 7)}}, separators=(",", ":"))

    refused = await api.post("/runs", content=over)

    assert (await api.post("/runs", content=fits)).status_code == 201
    assert (refused.status_code, refused.json()["code"]) == (422, "member_too_large")
    assert (refused.json()["field"], refused.json()["limit"]) == ("metadata", 65_536)


async def test_a_compressed_body_is_refused_as_such(api: httpx.AsyncClient) -> None:
    body = gzip.compress(b'{"task":"echo"}')

    answer = await api.post("/runs", content=body, headers={"content-encoding": "gzip"})

    assert (answer.status_code, answer.json()["code"]) == (415, "encoding_unsupported")


@pytest.mark.parametrize("wait", ["0", "61", "-1", "nan", "inf", "1e1", "", "ten", "٣", "0.0"])
async def test_a_wait_out_of_its_range_is_refused(api: httpx.AsyncClient, wait: str) -> None:
    answer = await api.post("/runs", params={"wait": wait}, json={"task": "echo"})

    assert (answer.status_code, answer.json()["code"], answer.json()["limit"]) == (422, "wait_invalid", 60)


@pytest.mark.parametrize("cursor", ["", "x", "%00", "a" * 600, "00000000-0000-7000-8000-00000000000g"])
async def test_a_cursor_that_no_list_gave_is_refused(api: httpx.AsyncClient, cursor: str) -> None:
    answer = await api.get("/runs", params={"cursor": cursor})

    assert (answer.status_code, answer.json()["code"]) == (422, "bad_cursor")


@pytest.mark.parametrize(
    ("query", "code", "field"),
    [
        ("limit=0", "parameter_invalid", "limit"),
        ("limit=1001", "parameter_invalid", "limit"),
        ("limit=ten", "parameter_invalid", "limit"),
        ("state=scheduled", "parameter_invalid", "state"),
        ("task=no%20spaces", "parameter_invalid", "task"),
        ("limit=1&limit=2", "parameter_invalid", "limit"),
        ("order=asc", "parameter_unknown", "order"),
    ],
)
async def test_a_parameter_that_breaks_its_rule_is_named(
    api: httpx.AsyncClient, query: str, code: str, field: str
) -> None:
    answer = await api.get(f"/runs?{query}")

    assert (answer.status_code, answer.json()["code"], answer.json()["field"]) == (422, code, field)


@pytest.mark.parametrize("path", ["/runs/bulk?x=1", "/workers?x=1"])
async def test_an_unknown_parameter_is_refused_where_none_is_known(api: httpx.AsyncClient, path: str) -> None:
    answer = await api.post(path, json={})

    assert (answer.status_code, answer.json()["code"]) == (422, "parameter_unknown")


async def test_a_query_that_is_no_utf8_is_refused(api: httpx.AsyncClient) -> None:
    assert (await api.get("/runs?task=%ff")).json()["code"] == "parameter_invalid"
