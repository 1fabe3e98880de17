"""What `import hurlbat` brings along: a user's app pays for it at every start."""

import json
import subprocess
import sys

import pytest

LOADED = "import hurlbat, json, sys; print(json.dumps(sorted(sys.modules)))"
SERVER_ONLY = {"aiohttp", "alembic", "asyncpg", "cryptography", "sqlalchemy", "starlette", "typer", "uvicorn"}
LATER = {"httpx", "pydantic"}


def test_importing_the_sdk_loads_no_server_and_nothing_heavy() -> None:
    done = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True)

    assert set(json.loads(done.stdout)) & (SERVER_ONLY | LATER) == set()


COLD_START = """
import json, sys, time
from dataclasses import dataclass
{model}
from hurlbat import Hurlbat, signing, wire

hurlbat = Hurlbat(signing_secret="whsec_Y29sZC1zdGFydC1jb2xkLXN0YXJ0LWNvbGQ=")

{photo}

@hurlbat.task(retries=3, execution_timeout=50)
async def halve(photo: Photo) -> dict[str, int]:
    return {{"width": photo.width // 2}}

@hurlbat.task(name="halve-sync")
def halve_sync(photo: Photo) -> int | None:
    return photo.width // 2

handler = hurlbat.aws_lambda(max_batch=2)
runs = [
    wire.DeliveredRun(name, name, 1, 1, '{{"width": 8}}', "{{}}", 60.0, "token", "http://127.0.0.1:1/x")
    for name in ("halve", "halve-sync")
]
body = wire.deliver_body("worker", "https://worker.example/", "2026-11-22T12:00:00.000Z", runs)
at = int(time.time())
headers = {{
    "webhook-id": "msg_1",
    "webhook-timestamp": str(at),
    "webhook-signature": signing.sign(hurlbat.settings.keys, "msg_1", at, body),
}}
answer = handler({{"requestContext": {{"http": {{"method": "POST"}}}}, "headers": headers, "body": body.decode()}})
loaded = sorted(sys.modules)
results = {{result["run_id"]: result["output"] for result in json.loads(answer["body"])["results"]}}
assert answer["headers"]["hurlbat-worker"] == handler._handler.manifest().version
print(json.dumps([results, loaded]))
"""
DATACLASS = {"model": "", "photo": "@dataclass\nclass Photo:\n    width: int"}
MODEL = {"model": "from pydantic import BaseModel", "photo": "class Photo(BaseModel):\n    width: int"}

NOT_AT_A_COLD_START = SERVER_ONLY | {
    *("httpx", "httpcore", "anyio", "tenacity", "click", "rich"),
    *("hurlbat.policy", "hurlbat.models", "hurlbat.triggers", "hurlbat.graph", "hurlbat.workflow", "hurlbat.making"),
    *("hurlbat.client", "hurlbat.sync_client", "hurlbat.calls", "hurlbat.sending", "hurlbat.runs", "hurlbat.refs"),
    *("hurlbat.events", "hurlbat.schedules", "hurlbat.registration", "hurlbat.testing", "hurlbat.conformance"),
}
"""What a worker that answers a delivery has no use for; httpx alone would take a quarter of the time."""
NOT_WITHOUT_MODELS = {
    *("pydantic", "pydantic_core", "annotated_types", "typing_inspection", "typing_extensions", "hurlbat.adapters"),
    *("importlib.metadata", "email", "uuid", "zoneinfo", "decimal"),
}
"""What pydantic brings along, and what takes long to load for what little is needed of it."""


@pytest.mark.parametrize(
    ("photo", "unwanted"), [(DATACLASS, NOT_WITHOUT_MODELS), (MODEL, set())], ids=["dataclass", "model"]
)
def test_a_cold_start_loads_only_what_it_needs(photo: dict[str, str], unwanted: set[str]) -> None:
    code = COLD_START.format(**photo)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    results, loaded = json.loads(done.stdout)
    assert results == {"halve": {"width": 4}, "halve-sync": 4}
    assert set(loaded) & (NOT_AT_A_COLD_START | unwanted) == set()
