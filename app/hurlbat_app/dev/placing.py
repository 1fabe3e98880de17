"""Find at which URL an app serves Hurlbat: the paths that were seen in it, else those where it usually is, are asked.

What is asked is a signed `describe`, as the server asks it: only a Hurlbat worker answers that, and it says what it
serves.
"""

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from hurlbat.policy import Manifest
from hurlbat.signing import sign
from hurlbat.wire import HEADER_WORKER, describe_body
from hurlbat_app.dev.words import CANDIDATES, Found

SECONDS = 10.0
"""How long an app may take to say what it serves."""
_REFUSALS = frozenset({"signature_refused", "wrong_target", "task_invalid", "bad_message"})
"""Codes by which a Hurlbat worker refuses a question."""


class NotPlaced(Exception):
    """The app serves no Hurlbat, or it cannot be told where; the sentence says what to do."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an app serves Hurlbat, what, and with which secret."""

    url: str
    secret: str
    manifest: Manifest


async def place(target: str, base: str, found: Found, name: str, path: str | None, secret: str) -> Place:
    """Return where the app at a base URL serves Hurlbat. Raises `NotPlaced`."""
    if not found.hurlbats:
        raise NotPlaced(
            f"{target} has no Hurlbat in it; make one by hurlbat = Hurlbat(), declare its tasks by @hurlbat.task, and "
            'serve them: app.mount("/hurlbat", hurlbat.asgi())'
        )
    paths = list(found.paths) if path is None else [path]
    if len(paths) > 1:
        raise NotPlaced(f"{target} serves Hurlbat at {_listed(paths)}; say by --path which one is meant")
    keys = list(dict.fromkeys((*found.secrets, secret)))
    refusals: list[str] = []
    async with httpx.AsyncClient(timeout=SECONDS, trust_env=False) as http:
        for one in [path] if path is not None else dict.fromkeys((*paths, *CANDIDATES)):
            for key in keys:
                answer = await _ask(http, base + one, name, key)
                manifest = _manifest_of(answer)
                if manifest is not None:
                    return Place(base + one, key, manifest)
                refusals += _refusal_of(answer)
    if refusals:
        raise NotPlaced(f"the worker in {target} refuses this server: {refusals[0]}")
    if paths:
        raise NotPlaced(f"nothing of Hurlbat answers at {base}{paths[0]}; say by --path where it is mounted")
    raise NotPlaced(
        f"{target} does not serve its tasks at {_listed(CANDIDATES)}; mount them, "
        'app.mount("/hurlbat", hurlbat.asgi()), or say by --path where they are'
    )


async def described(url: str, name: str, key: str) -> Manifest | None:
    """Return what the worker at a URL says that it serves, or None where none answers that."""
    async with httpx.AsyncClient(timeout=SECONDS, trust_env=False) as http:
        return _manifest_of(await _ask(http, url, name, key))


async def _ask(http: httpx.AsyncClient, url: str, name: str, key: str) -> httpx.Response | None:
    """Return the answer to a signed `describe`, or None where there was none."""
    now = time.time()
    body = describe_body(name, url, _timestamp(now))
    message_id = f"msg_{secrets.token_hex(8)}"
    headers = {
        "content-type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": str(int(now)),
        "webhook-signature": sign([key], message_id, int(now), body),
    }
    try:
        return await http.post(url, content=body, headers=headers)
    except httpx.HTTPError:
        return None


def _timestamp(now: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(now))


def _manifest_of(answer: httpx.Response | None) -> Manifest | None:
    if answer is None or not answer.is_success or HEADER_WORKER not in answer.headers:
        return None
    try:
        return Manifest.read(answer.content)
    except ValueError:
        return None


def _refusal_of(answer: httpx.Response | None) -> list[str]:
    """Return why a Hurlbat worker has refused the question, where it was one."""
    try:
        problem: Mapping[str, Any] = answer.json() if answer is not None and answer.is_error else {}
        return [str(problem["detail"])] if problem.get("code") in _REFUSALS else []
    except (ValueError, AttributeError, KeyError):
        return []


def _listed(paths: Sequence[str]) -> str:
    return f"{', '.join(paths[:-1])} and {paths[-1]}"
