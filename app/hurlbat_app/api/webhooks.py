"""`/webhooks`: put, look, remove; and what other people's services send to them."""

import re
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from hurlbat.jsontext import JsonTextError, members
from hurlbat.wire import NAME_PATTERN
from hurlbat_app.api.answers import Json, page, rfc3339
from hurlbat_app.api.bodies import declared_size, pass_over_body, read_body
from hurlbat_app.api.reading import (
    Members,
    bad_json,
    millis_of,
    optional,
    page_parameters,
    parameters,
    path_name,
    read_members,
    refuse_unknown,
    required,
    whole_of,
    wrong,
)
from hurlbat_dispatcher import Engine, Invalid, Unauthorized, Webhook, WebhookSpec

MAX_RATE: Final = 1_000_000
MIN_SECONDS: Final = 0.01
MAX_SECONDS: Final = 86_400

_NAME: Final = re.compile(NAME_PATTERN)
_SPEC: Final = frozenset({"auth", "key", "scope", "id", "max_bytes", "rate"})
_RATE: Final = frozenset({"limit", "duration"})


class Webhooks:
    """The endpoints of `/webhooks`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._limit = engine.settings.max_body_bytes

    async def put(self, request: Request) -> Response:
        """Set a webhook: 201 for a new one, 200 for one that is changed."""
        parameters(request)
        name: str = request.path_params["name"]
        if not _NAME.fullmatch(name):
            raise wrong("name", "must be 1 to 128 letters, digits and any of _ . : -")
        found = read_members(request, await read_body(request, self._limit), _SPEC)
        spec = WebhookSpec(
            auth=optional(found, "auth"),
            key=_expression(found, "key"),
            scope=_expression(found, "scope"),
            id=_expression(found, "id"),
            max_bytes=whole_of(found, "max_bytes", 1, self._limit),
            rate=_rate(found),
        )
        webhook, created = await self._engine.webhooks.put(name, spec)
        return Json(self._shown(webhook), 201 if created else 200, {"location": f"/webhooks/{name}"})

    async def list(self, request: Request) -> Response:
        """List the webhooks by name."""
        cursor, limit = page_parameters(parameters(request, "cursor", "limit"))
        found = self._engine.webhooks.page(cursor=cursor, limit=limit)
        return Json(page([self._shown(webhook) for webhook in found.items], found.next_cursor))

    async def show(self, request: Request) -> Response:
        """Show a webhook; its secrets are shown to nobody."""
        parameters(request)
        return Json(self._shown(self._engine.webhooks.get(path_name(request, "webhook"))))

    async def remove(self, request: Request) -> Response:
        """Remove a webhook; the events that came of it stay."""
        parameters(request)
        await self._engine.webhooks.delete(path_name(request, "webhook"))
        return Response(status_code=204)

    async def receive(self, request: Request) -> Response:
        """Take a delivery in: 201 with its event, 200 where that is known, or where Slack asks whether we are here.

        What stands in the query is for the sender. The body of one that will not be taken is not held, but refused as
        late as any other.
        """
        webhooks, name, headers = self._engine.webhooks, request.path_params["name"], _headers(request)
        try:
            webhooks.admit(name, headers, declared_size(request))
        except Unauthorized:
            await pass_over_body(request, self._limit, webhooks.refusal())
            raise
        receipt = await webhooks.receive(name, headers, await read_body(request, self._limit))
        if receipt.challenge is not None:
            return Json({"challenge": receipt.challenge})
        return Json({"event": receipt.event}, 201 if receipt.created else 200)

    def _shown(self, webhook: Webhook) -> dict[str, Any]:
        rate = webhook.rate
        return {
            "name": webhook.name,
            "url": f"{self._engine.settings.base_url}/webhooks/{webhook.name}",
            "auth": webhook.auth.settings() | {"secret_count": len(webhook.auth.secrets)},
            "key": webhook.key,
            "scope": webhook.scope,
            "id": webhook.id,
            "max_bytes": webhook.max_bytes,
            "rate": None if rate is None else {"limit": rate[0], "duration": rate[1] / 1000},
            "created_at": rfc3339(webhook.created_at),
            "updated_at": rfc3339(webhook.updated_at),
        }


def _headers(request: Request) -> dict[str, str]:
    """Return the headers by lower-case names; those that come more than once with commas between (RFC 9110)."""
    found: dict[str, str] = {}
    for raw_name, raw in request.scope["headers"]:
        name, text = raw_name.decode("latin-1").lower(), raw.decode("latin-1")
        found[name] = f"{found[name]}, {text}" if name in found else text
    return found


def _expression(found: Members, name: str) -> str | None:
    value = optional(found, name)
    if value is not None and not isinstance(value, str):
        raise wrong(name, "must be an expression, a string")
    return value


def _rate(found: Members) -> tuple[int, int] | None:
    """Return at most how many deliveries, in any how many ms."""
    value = optional(found, "rate")
    if value is None:
        return None
    if not isinstance(value, dict):
        raise wrong("rate", 'must be a JSON object such as {"limit": 10, "duration": 1}')
    try:
        inner = members(found["rate"].text)
        refuse_unknown(inner, _RATE)
        for name in ("limit", "duration"):
            required(inner, name)
        return _whole(inner), millis_of(inner, "duration", MIN_SECONDS, MAX_SECONDS)
    except JsonTextError as error:
        raise bad_json(error) from error
    except Invalid as error:
        error.extra["field"] = f"rate.{error.extra['field']}"
        raise


def _whole(found: Members) -> int:
    most = whole_of(found, "limit", 1, MAX_RATE)
    assert most is not None  # it is required
    return most
