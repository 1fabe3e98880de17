"""Register this worker at the server in the background, for as long as it takes."""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from hurlbat.client import AsyncClient
from hurlbat.errors import ApiError, HurlbatError
from hurlbat.sending import backoff
from hurlbat.settings import Settings

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0

logger = logging.getLogger("hurlbat")


@asynccontextmanager
async def keep_registered(settings: Settings, client: AsyncClient) -> AsyncIterator[None]:
    """Register while the block runs, if the settings say where this worker is reached."""
    if settings.public_url is None:
        yield
        return
    if not settings.keys:
        logger.error("not registered: HURLBAT_PUBLIC_URL is set, but HURLBAT_SIGNING_SECRET is not")
        yield
        return
    task = asyncio.create_task(register(settings, client))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def register(settings: Settings, client: AsyncClient) -> None:
    """Register until the server has proved this worker or rejected it, with growing pauses between the attempts."""
    body: dict[str, Any] = {"mode": "protocol", "slots": settings.slots}
    secrets = deque(settings.keys)
    name, url = settings.worker_name, settings.public_url or ""
    tries = 0
    told = ""
    while True:
        tries += 1
        try:
            worker = await client.register_worker(name, url, **body, **_secret(secrets))
        except ApiError as error:
            if error.code == "secret_replaced" and len(secrets) > 1:
                secrets.popleft()
                continue
            if error.status < 500 and error.status != 429:
                logger.error("worker %s was not registered: %s", name, error)
                return
            said = str(error)
        except HurlbatError as error:
            said = str(error)
        else:
            if "secret" in worker:
                logger.error(
                    "worker %s is new to the server, which made a secret that nobody knows: only public keys are set "
                    "here. Run `hurlbat workers rotate %s --algorithm v1a --overlap 0`, set HURLBAT_SIGNING_SECRET to "
                    "the public key that it shows, and start this app again",
                    name,
                    name,
                )
                return
            if worker.get("state") != "pending":
                _tell(name, worker)
                return
            said = worker.get("problem") or "it is not proved yet"
        if said != told:
            logger.warning("worker %s is not registered yet: %s", name, said)
            told = said
        await asyncio.sleep(backoff(tries, FIRST_PAUSE, LONGEST_PAUSE))


def _secret(secrets: Sequence[str]) -> dict[str, str]:
    """Return the newest key as a secret of the worker; a public key is the server's own, which knows it."""
    return {} if secrets[0].startswith("whpk_") else {"secret": secrets[0]}


def _tell(name: str, worker: dict[str, Any]) -> None:
    if worker.get("state") == "rejected":
        logger.error("worker %s was rejected: %s", name, worker.get("problem"))
    else:
        logger.info("worker %s is registered: %s", name, worker.get("state"))
