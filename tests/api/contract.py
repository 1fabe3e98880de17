"""Hold the server to `openapi.yaml`: every request that it accepts and every answer that it gives must be in there.

`held_to_contract(app)` wraps the ASGI app, `contract_hook` is for an `httpx.AsyncClient` that talks to a real server.
Both raise `ContractBroken` with what was said and where it breaks the contract. In answers, members that the contract
does not name break it too, though its schemas leave them open for clients.
"""

import copy
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import parse_qsl, unquote

import httpx
from jsonschema import Draft202012Validator, FormatChecker  # type: ignore[import-untyped]  # it has no stubs
from jsonschema.exceptions import best_match  # type: ignore[import-untyped]  # it has no stubs
from referencing import Registry
from referencing.jsonschema import DRAFT202012
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hurlbat_app.api.contract import contract

METHODS = frozenset({"get", "post", "put", "patch", "delete"})
_FORMATS = FormatChecker()


class ContractBroken(AssertionError):
    """The server did something that is not in the contract."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request and its answer. The path is as it was sent, percent-encoded."""

    method: str
    path: str
    query: str
    sent: bytes
    status: int
    headers: Mapping[str, str]
    received: bytes


def check(exchange: Exchange) -> None:
    """Raise `ContractBroken` unless the exchange is in the contract."""
    found = find_path(exchange.path)
    if found is None:
        _expect_problem(exchange, 404, "path_not_found")
        return
    path, values = found
    item = contract()["paths"][path]
    methods = METHODS & item.keys()
    method = "get" if exchange.method == "HEAD" else exchange.method.lower()
    if method not in methods:
        allowed = {one.upper() for one in methods} | ({"HEAD"} if "get" in methods else set())
        if set(exchange.headers.get("allow", "").split(", ")) != allowed:
            raise _broken(exchange, f"Allow must be {sorted(allowed)}")
        _expect_problem(exchange, 405, "method_not_allowed")
        return
    where = ("paths", path, method)
    _check_answer(exchange, where)
    if exchange.status < 300:
        _check_request(exchange, where, values)


def held_to_contract(app: ASGIApp) -> ASGIApp:
    """Return the app with every exchange checked."""

    async def held(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        sent: list[bytes] = []
        received: list[bytes] = []
        start: Message = {}

        async def hear() -> Message:
            message = await receive()
            sent.append(message.get("body", b""))
            return message

        async def say(message: Message) -> None:
            start.update(message)
            received.append(message.get("body", b""))
            await send(message)

        await app(scope, hear, say)
        headers = {name.decode(): value.decode("latin-1") for name, value in start["headers"]}
        query = scope["query_string"].decode()
        answered = b"".join(received)
        path = scope["raw_path"].decode()
        check(Exchange(scope["method"], path, query, b"".join(sent), start["status"], headers, answered))

    return held


async def contract_hook(response: httpx.Response) -> None:
    """Check an exchange of a client: `httpx.AsyncClient(event_hooks={"response": [contract_hook]})`."""
    await response.request.aread()
    await response.aread()
    _check_response(response)


def sync_contract_hook(response: httpx.Response) -> None:
    """Check an exchange of a client: `httpx.Client(event_hooks={"response": [sync_contract_hook]})`."""
    response.request.read()
    response.read()
    _check_response(response)


def _check_response(response: httpx.Response) -> None:
    request, headers = response.request, dict(response.headers)
    query, path = request.url.query.decode(), request.url.raw_path.decode().partition("?")[0]
    check(Exchange(request.method, path, query, request.content, response.status_code, headers, response.content))


def find_path(path: str) -> tuple[str, dict[str, str]] | None:
    """Return the path of the contract that leads there, and what its parameters are."""
    for template in sorted(contract()["paths"], key=lambda one: one.count("{")):
        pattern = re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>[^/]+)", re.escape(template))
        match = re.fullmatch(pattern, path)
        if match:
            return template, {name: unquote(value) for name, value in match.groupdict().items()}
    return None


# -- answers -----------------------------------------------------------------------------------------------------------


def _check_answer(exchange: Exchange, where: tuple[str, ...]) -> None:
    responses = _at((*where, "responses"))
    status = str(exchange.status) if str(exchange.status) in responses else "default"
    if status == "default" and exchange.status != 500:
        raise _broken(exchange, f"the status {exchange.status} is not in the contract")
    place = _resolved((*where, "responses", status))
    response = _at(place)
    for name in response.get("headers", {}):
        if name.lower() not in exchange.headers:
            raise _broken(exchange, f"the header {name} is missing")
    content = response.get("content")
    if content is None:
        if exchange.received:
            raise _broken(exchange, "a body, where the contract has none")
        return
    kind = exchange.headers.get("content-type", "").split(";")[0]
    if kind not in content:
        raise _broken(exchange, f"the type {kind!r} is not in the contract")
    if kind.endswith("json") and exchange.method != "HEAD":
        body = json.loads(exchange.received)
        _validate(exchange, (*place, "content", kind, "schema"), body, "the answer", closed=True)
        if kind == "application/problem+json" and body["status"] != exchange.status:
            raise _broken(exchange, "the problem tells another status")


def _expect_problem(exchange: Exchange, status: int, code: str) -> None:
    if exchange.status != status or json.loads(exchange.received or b"{}").get("code") != code:
        raise _broken(exchange, f"expected {status} {code}")


# -- requests ----------------------------------------------------------------------------------------------------------


def _check_request(exchange: Exchange, where: tuple[str, ...], values: Mapping[str, str]) -> None:
    given = {("path", name): value for name, value in values.items()}
    given |= {("query", name): value for name, value in parse_qsl(exchange.query, keep_blank_values=True)}
    places = [(*where[:2], "parameters", str(n)) for n in range(len(_at(where[:2]).get("parameters", ())))]
    places += [(*where, "parameters", str(n)) for n in range(len(_at(where).get("parameters", ())))]
    for place in map(_resolved, places):
        parameter = _at(place)
        text = given.pop((parameter["in"], parameter["name"]), None)
        if text is not None:
            _validate(exchange, (*place, "schema"), _typed(text, place), f"the parameter {parameter['name']}")
    if given:
        raise _broken(exchange, f"accepted the parameters {sorted(given)}, which are not in the contract")
    body = _at(where).get("requestBody")
    if exchange.sent and body is None:
        raise _broken(exchange, "accepted a body, where the contract has none")
    if exchange.sent:
        schema = (*where, "requestBody", "content", "application/json", "schema")
        _validate(exchange, schema, _accepted(exchange, _resolved(schema)), "the body that was accepted")
    elif body is not None and body["required"]:
        raise _broken(exchange, "accepted no body, where the contract needs one")


def _accepted(exchange: Exchange, schema: tuple[str, ...]) -> Any:
    """Return what was sent without the items that were refused: `x-judged-one-by-one` names the outcomes of a list."""
    sent = json.loads(exchange.sent)
    for name, member in _at(schema).get("properties", {}).items():
        if "x-judged-one-by-one" in member:
            outcomes = json.loads(exchange.received)[member["x-judged-one-by-one"]]
            pairs = zip(sent[name], outcomes, strict=True)
            sent[name] = [item for item, outcome in pairs if not _is_problem(outcome)]
    return sent


def _is_problem(outcome: Any) -> bool:
    return set(outcome) >= {"title", "status", "code", "detail"}


def _typed(text: str, place: tuple[str, ...]) -> Any:
    kind = _at(_resolved((*place, "schema"))).get("type")
    return json.loads(text) if kind in ("integer", "number", "boolean") else text


# -- the document ------------------------------------------------------------------------------------------------------


def _at(place: tuple[str, ...]) -> Any:
    found: Any = contract()
    for step in place:
        found = found[int(step)] if isinstance(found, list) else found[step]
    return found


def _resolved(place: tuple[str, ...]) -> tuple[str, ...]:
    reference = _at(place).get("$ref")
    return place if reference is None else tuple(reference.removeprefix("#/").split("/"))


def _validate(exchange: Exchange, place: tuple[str, ...], value: Any, what: str, *, closed: bool = False) -> None:
    error = best_match(_validator(place, closed).iter_errors(value))
    if error is not None:
        raise _broken(exchange, f"{what} at {error.json_path}: {error.message[:500]}")


@cache
def _validator(place: tuple[str, ...], closed: bool) -> Draft202012Validator:
    pointer = "/".join(step.replace("~", "~0").replace("/", "~1") for step in place)
    return Draft202012Validator(
        {"$ref": f"urn:contract#/{pointer}"}, registry=_registry(closed), format_checker=_FORMATS
    )


@cache
def _registry(closed: bool) -> Registry[Any]:
    document = copy.deepcopy(contract())
    if closed:
        _close(document)
    found: Registry[Any] = Registry().with_resource("urn:contract", DRAFT202012.create_resource(document))
    return found


def _close(node: Any) -> None:
    """Forbid, in every object schema that leaves it open, members that it does not name."""
    if isinstance(node, dict):
        if node.get("type") == "object" and isinstance(node.get("properties"), dict):
            node.setdefault("additionalProperties", False)
        for inner in node.values():
            _close(inner)
    elif isinstance(node, list):
        for inner in node:
            _close(inner)


def _broken(exchange: Exchange, what: str) -> ContractBroken:
    asked = f"{exchange.method} {exchange.path}{'?' if exchange.query else ''}{exchange.query} {exchange.sent[:300]!r}"
    return ContractBroken(f"{what}\n  {asked}\n  {exchange.status} {exchange.received[:600]!r}")
