"""Rotating a worker's secret, as a client sees it."""

from typing import Any

import httpx
import pytest

from hurlbat import signing
from tests.api.conftest import FakeWorker

pytestmark = pytest.mark.anyio

PATH = "/workers/plain/rotate-secret"
PRIVATE, PUBLIC = signing.new_key_pair()


async def test_a_made_secret_is_shown_once_and_its_key_stands_first(api: httpx.AsyncClient, worker: FakeWorker) -> None:
    [old] = (await api.get("/workers/plain")).json()["keys"]
    answer = await api.post(PATH)
    rotated = answer.json()
    shown = await api.get("/workers/plain")

    assert (answer.status_code, rotated["state"]) == (200, "unverified")
    assert rotated["keys"] == shown.json()["keys"] == (await api.get("/workers")).json()["items"][0]["keys"]
    newest, replaced = rotated["keys"]
    assert newest["id"] == signing.key_id(rotated["secret"])
    assert (newest["algorithm"], newest["public_key"], newest["until"]) == ("v1", None, None)
    assert replaced | {"until": None} == old
    assert replaced["until"] > newest["created_at"] > old["created_at"]
    assert "secret" not in shown.json()
    assert rotated["secret"] not in shown.text


async def test_a_given_secret_is_never_shown(api: httpx.AsyncClient, worker: FakeWorker) -> None:
    given = signing.new_secret()
    answer = await api.post(PATH, json={"secret": given, "algorithm": "v1", "overlap": 0})
    assert [key["id"] for key in answer.json()["keys"]] == [signing.key_id(given)]
    assert given not in answer.text


async def test_of_ed25519_only_the_public_end_is_shown(api: httpx.AsyncClient, worker: FakeWorker) -> None:
    made = (await api.post(PATH, json={"algorithm": "v1a"})).json()
    given = await api.post(PATH, json={"secret": PRIVATE})

    assert "secret" not in made
    assert made["keys"][0]["algorithm"] == "v1a"
    signing.check_key(made["keys"][0]["public_key"])
    assert given.json()["keys"][0]["public_key"] == PUBLIC
    assert PRIVATE not in given.text


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"secret": "whsec_short"}, "secret"),
        ({"secret": PUBLIC}, "secret"),
        ({"secret": 7}, "secret"),
        ({"secret": PRIVATE, "algorithm": "v1"}, "algorithm"),
        ({"algorithm": "v2"}, "algorithm"),
        ({"algorithm": ["v1"]}, "algorithm"),
        ({"overlap": -1}, "overlap"),
        ({"overlap": 2_592_000.5}, "overlap"),
        ({"overlap": "a day"}, "overlap"),
        ({"overlap": True}, "overlap"),
        ({"grace": 5}, "grace"),
    ],
)
async def test_what_cannot_be_is_refused_by_its_member_and_changes_nothing(
    api: httpx.AsyncClient, body: dict[str, Any], field: str
) -> None:
    before = (await api.get("/workers/plain")).json()
    answer = await api.post(PATH, json=body)
    assert (answer.status_code, answer.json()["field"]) == (422, field)
    assert (await api.get("/workers/plain")).json() == before


async def test_a_third_rotation_within_the_overlap_is_refused_and_nobody_s_is_not_found(api: httpx.AsyncClient) -> None:
    for _ in range(2):
        assert (await api.post(PATH)).status_code == 200
    answer = await api.post(PATH)
    assert (answer.status_code, answer.json()["code"]) == (409, "rotation_under_way")
    assert (await api.post(PATH, json={"overlap": 0})).status_code == 200
    answer = await api.post("/workers/nobody/rotate-secret")
    assert (answer.status_code, answer.json()["code"]) == (404, "worker_unknown")


async def test_a_stranger_rotates_nothing(stranger: httpx.AsyncClient) -> None:
    assert (await stranger.post(PATH)).status_code == 401
