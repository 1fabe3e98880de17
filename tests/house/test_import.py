"""What `import hurlbat` brings along: a user's app pays for it at every start."""

import json
import subprocess
import sys

LOADED = "import hurlbat, json, sys; print(json.dumps(sorted(sys.modules)))"
SERVER_ONLY = {"aiohttp", "alembic", "asyncpg", "cryptography", "sqlalchemy", "starlette", "typer", "uvicorn"}
LATER = {"httpx", "pydantic"}


def test_importing_the_sdk_loads_no_server_and_nothing_heavy() -> None:
    done = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True)

    assert set(json.loads(done.stdout)) & (SERVER_ONLY | LATER) == set()


COLD_START = """
import json, sys, time
from hurlbat import Hurlbat, signing, wire
from pydantic import BaseModel

hurlbat = Hurlbat(signing_secret="whsec_Y29sZC1zdGFydC1jb2xkLXN0YXJ0LWNvbGQ=")

class Photo(BaseModel):
    width: int

@hurlbat.task
async def halve(photo: Photo) -> int:
    return photo.width // 2

@hurlbat.task(name="halve-sync")
def halve_sync(photo: Photo) -> int:
    return photo.width // 2

handler = hurlbat.aws_lambda()
runs = [
    wire.DeliveredRun(name, name, 1, 1, '{"width": 8}', "{}", 60.0, "token", "http://127.0.0.1:1/x")
    for name in ("halve", "halve-sync")
]
body = wire.deliver_body("worker", "https://worker.example/", "2026-11-22T12:00:00.000Z", runs)
at = int(time.time())
headers = {
    "webhook-id": "msg_1",
    "webhook-timestamp": str(at),
    "webhook-signature": signing.sign(hurlbat.settings.keys, "msg_1", at, body),
}
answer = handler({"requestContext": {"http": {"method": "POST"}}, "headers": headers, "body": body.decode()})
print(json.dumps([sorted(result["output"] for result in json.loads(answer["body"])["results"]), sorted(sys.modules)]))
"""
NOT_AT_A_COLD_START = SERVER_ONLY | {
    *("httpx", "httpcore", "anyio", "tenacity", "click", "rich"),
    *("hurlbat.graph", "hurlbat.workflow", "hurlbat.testing", "hurlbat.conformance"),
}
"""What a worker that answers a delivery has no use for; httpx alone would take a quarter of the time."""


def test_a_cold_start_loads_only_what_it_needs() -> None:
    done = subprocess.run([sys.executable, "-c", COLD_START], capture_output=True, text=True, check=True)

    outputs, loaded = json.loads(done.stdout)
    assert outputs == [4, 4]
    assert set(loaded) & NOT_AT_A_COLD_START == set()
