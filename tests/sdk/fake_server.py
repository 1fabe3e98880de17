"""A server in memory: it answers the API's paths by a table, and remembers what it was asked."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import httpx

from hurlbat import AsyncClient, Client, Hurlbat
from tests.sdk.exchange import SERVER

Answer = httpx.Response | Exception
Handler = Callable[[httpx.Request], Answer | Awaitable[Answer]]


class FakeServer:
    """Answers `(method, path)` by what stands in `answers`: each list item once, the last one from then on."""

    def __init__(self, **answers: Any) -> None:
        self.requests: list[httpx.Request] = []
        self.answers: dict[str, list[Answer]] = {}
        self._news = asyncio.Condition()

    def on(self, call: str, *answers: Answer) -> None:
        """Answer a call like `POST /runs` so, and then so."""
        self.answers[call] = list(answers)

    def bodies(self, call: str) -> list[Any]:
        """Return the bodies that came with a call, without the keys that clients give by themselves."""
        return [_without_keys(body) for body in self.raw_bodies(call)]

    def raw_bodies(self, call: str) -> list[Any]:
        """Return the bodies that came with a call."""
        return [json.loads(request.content) for request in self.requests if name_of(request) == call]

    def calls(self) -> list[str]:
        return [name_of(request) for request in self.requests]

    async def asked(self, call: str, times: int = 1) -> None:
        """Return once the call was made so often."""
        async with asyncio.timeout(120), self._news:
            await self._news.wait_for(lambda: self.calls().count(call) >= times)

    def attach(self, hurlbat: Hurlbat) -> None:
        """Be the server of an app object, for async and for sync calls."""
        hurlbat.client = AsyncClient(SERVER, "token-token-token", transport=httpx.MockTransport(self._answer_async))
        hurlbat.sync_client = Client(SERVER, "token-token-token", transport=httpx.MockTransport(self._answer))

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        listed = self.answers.get(name_of(request))
        if listed is None:
            return problem(404, "not_found", f"no {name_of(request)} here")
        answer = listed.pop(0) if len(listed) > 1 else listed[0]
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)

    async def _answer_async(self, request: httpx.Request) -> httpx.Response:
        try:
            return self._answer(request)
        finally:
            async with self._news:
                self._news.notify_all()


class Caller:
    """Calls a task's methods in one of the two manners, so that each test holds for both."""

    def __init__(self, manner: str) -> None:
        self.sync = manner == "sync"

    async def __call__(self, owner: Any, method: str, *arguments: Any, **named: Any) -> Any:
        if self.sync:
            name = method if not hasattr(owner, f"{method}_sync") else f"{method}_sync"
            return await asyncio.to_thread(getattr(owner, name), *arguments, **named)
        return await getattr(owner, method)(*arguments, **named)


def _without_keys(body: Any) -> Any:
    if isinstance(body, list):
        return [_without_keys(item) for item in body]
    if not isinstance(body, dict):
        return body
    given = {name: _without_keys(value) for name, value in body.items()}
    if str(given.get("idempotency_key")).startswith("auto:"):
        del given["idempotency_key"], given["idempotency_ttl"]
    if str(given.get("id")).startswith("auto:"):
        del given["id"]
    return given


def name_of(request: httpx.Request) -> str:
    return f"{request.method} {request.url.path}"


def problem(status: int, code: str, detail: str = "no", **headers: str) -> httpx.Response:
    body = {"type": "about:blank", "title": "T", "status": status, "code": code, "detail": detail}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.Response(status, json=body, headers={"content-type": "application/problem+json"} | named)


def run_json(state: str = "completed", id: str = "r1", **members: Any) -> dict[str, Any]:
    return {"id": id, "task": "double", "state": state, "attempt": 1, "tries": 1, "max_attempts": 1} | members


def answer(status: int, body: Any) -> httpx.Response:
    return httpx.Response(status, json=body)
