"""No secret is told: not in logs, problems, metrics, or what objects show of themselves."""

import gc
import json
import logging
from collections.abc import Iterator, MutableMapping
from dataclasses import fields, is_dataclass
from typing import Any

import httpx
import pytest
import structlog
from cryptography.fernet import Fernet
from pydantic import SecretStr

from hurlbat.signing import new_secret
from hurlbat_app.api.app import create_app
from hurlbat_dispatcher import WorkerSpec
from tests.engine.far_side import Call, FakeWorker, marked
from tests.engine.world import KEY, World
from tests.support.senders import by_github

pytestmark = pytest.mark.anyio

TOKEN = "hb_" + "t0ken" * 8
HEADER = "Bearer the-header-of-a-worker"
HOOK = "the-secret-of-a-webhook"


@pytest.fixture
def logged() -> Iterator[list[MutableMapping[str, Any]]]:
    with structlog.testing.capture_logs() as entries:
        yield entries


async def test_no_secret_is_told_anywhere(
    sqlite_url: str, logged: list[MutableMapping[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    said: list[str] = []
    async with World(sqlite_url, api_token=SecretStr(TOKEN)) as world:
        secret = new_secret()  # not one that the API reference shows as an example
        worker = FakeWorker("w", [{"name": "echo", "retries": 0}], keys=[secret])
        world.network.workers["w"] = worker
        spec = WorkerSpec("w", worker.url, secret=secret, headers={"authorization": HEADER})
        said.append(repr(spec))
        said.append(repr(await world.engine.register_worker(spec)))
        lease_token = await _everything_goes_wrong(world, worker)
        assert worker.headers[0]["authorization"] == HEADER

        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(create_app(world.engine)), base_url="http://127.0.0.1:8420"
        ) as api:
            said += await _all_that_the_api_answers(api, lease_token, secret)
        said.append(world.engine.metrics().decode())
        said += _shown(world)
    said += [repr(entry) for entry in logged]
    said.append(caplog.text)
    secrets = {
        "the signing secret": secret.removeprefix("whsec_"),
        "the API token": TOKEN,
        "the lease token": lease_token,
        "a worker's header": HEADER,
        "a webhook's secret": HOOK,
        "the server's key": KEY.get_secret_value(),
    }
    assert len(logged) > 1
    told = {name: text[:300] for name, secret in secrets.items() for text in said if secret in text}
    assert told == {}


async def _everything_goes_wrong(world: World, worker: FakeWorker) -> str:
    """Let runs fail in the ways that are logged and kept; return a lease token."""

    async def garbage(_: list[Call]) -> httpx.Response:
        return marked(200, b"{")

    async def unauthorized(_: list[Call]) -> httpx.Response:
        return marked(401, b"no signature matches")

    worker.answer = garbage
    await world.ended(await world.submit())
    worker.away = httpx.ConnectError("nobody is there")
    await world.engine.sync_worker("w")
    worker.away = None
    await world.engine.sync_worker("w")
    worker.answer = unauthorized
    await world.put_back(await world.submit(), "held")
    return worker.calls[0].lease_token


async def _all_that_the_api_answers(api: httpx.AsyncClient, lease_token: str, secret: str) -> list[str]:
    good, lease = {"authorization": f"Bearer {TOKEN}"}, {"authorization": f"Bearer {lease_token}"}
    wrong = {"authorization": f"Bearer {TOKEN[:-1]}"}
    run_id = (await api.get("/runs", headers=good)).json()["items"][-1]["id"]
    spec = {"name": "v", "url": "http://10.0.0.1/", "secret": secret, "headers": {"authorization": HEADER}}
    answers = [
        await api.get("/runs", headers=wrong),
        await api.get("/runs", headers=lease),
        await api.get("/workers", headers=good),
        await api.get("/workers/w", headers=good),
        await api.get(f"/runs/{run_id}", headers=good),
        await api.post("/workers", headers=good, content=json.dumps(spec)),
        await api.post("/workers", headers=good, content=json.dumps(spec | {"secret": secret[:-9]})),
        await api.post("/workers", headers=good, content=json.dumps(spec | {"url": 7})),
        await api.patch("/workers/w", headers=good, content=json.dumps({"secret": secret})),
        await api.post("/workers/w/sync", headers=good),
        await api.post(f"/runs/{run_id}/attempts/1/heartbeat", headers=lease),
        await api.post(f"/runs/{run_id}/attempts/2/heartbeat", headers=lease),
        await api.post(f"/runs/{run_id}/attempts/1/heartbeat", headers=good),
        await api.put("/webhooks/h", headers=good, json={"auth": {"type": "github", "secret": HOOK}, "key": "input.k"}),
        await api.put("/webhooks/h", headers=good, json={"auth": {"type": "standard", "secret": HOOK}}),
        await api.put("/webhooks/h", headers=good, json={"auth": {"type": "hmac", "header": " ", "secret": HOOK}}),
        await api.get("/webhooks", headers=good),
        await api.post("/webhooks/h", headers=by_github(HOOK[:-1], b"{}"), content=b"{}"),
        await api.post("/webhooks/h", headers=by_github(HOOK, b"{}"), content=b"{}"),
    ]
    assert {answer.status_code for answer in answers} >= {200, 401, 409, 422}
    return [answer.text + repr(answer.headers) for answer in answers]


def _shown(world: World) -> list[str]:
    """Return how every object of the engine shows itself."""
    parts = world.parts
    found: list[object] = [world.engine, world.settings, parts, *(getattr(parts, one.name) for one in fields(parts))]
    found += [*parts.registry.workers.values(), *parts.registry.targets.values(), parts.fleet._vault]
    found += [one for one in gc.get_objects() if is_dataclass(one) and type(one).__module__.startswith("hurlbat_")]
    return [repr(one) for one in found] + [str(one) for one in found[:20]]


async def test_a_vault_tells_no_key_in_its_errors(sqlite_url: str) -> None:
    async with World(sqlite_url) as world:
        await world.worker()
    other = Fernet.generate_key().decode()
    with pytest.raises(Exception, match="HURLBAT_SECRET_KEY is not the key") as trouble:
        async with World(sqlite_url, world.network, secret_key=(SecretStr(other),)):
            pass
    told = repr(trouble.value) + str(trouble.value)
    assert [other in told, KEY.get_secret_value() in told] == [False, False]
