"""`openapi.yaml` is the contract: what it says the server does, and nothing besides."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from openapi_spec_validator import OpenAPIV31SpecValidator
from starlette.types import Receive, Scope, Send

from hurlbat_app.api.app import routes
from hurlbat_app.api.contract import contract
from hurlbat_app.api.gate import Access, Resource
from hurlbat_dispatcher import Engine, RunState, WorkerState
from tests.api.contract import METHODS, ContractBroken, Exchange, check, held_to_contract

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
RUN_ID = "0199a3c0-7d54-7b3e-8a51-5b1c7d2f9e10"
DOORS: dict[Access, list[dict[str, list[str]]]] = {
    Access.OPEN: [],
    Access.TOKEN: [{"ApiToken": []}],
    Access.LEASE: [{"LeaseToken": []}],
    Access.SENDER: [{"WebhookSender": []}],
}


def test_the_contract_is_good_openapi() -> None:
    assert list(OpenAPIV31SpecValidator(contract()).iter_errors()) == []


async def test_every_route_is_in_the_contract_and_the_other_way_round(engine: Engine) -> None:
    served: dict[tuple[str, str], Any] = {}
    for route in routes(engine):
        assert isinstance(route.app, Resource)
        for method in route.app.endpoints.keys() - {"HEAD"}:
            served[route.path_format, method.lower()] = DOORS[route.app.access[method]]

    promised = {
        (path, method): operation.get("security", contract()["security"])
        for path, item in contract()["paths"].items()
        for method, operation in item.items()
        if method in METHODS
    }

    assert served == promised


def test_states_and_error_codes_are_all_named() -> None:
    schemas = contract()["components"]["schemas"]

    assert schemas["RunState"]["enum"] == [state.value for state in RunState]
    assert schemas["WorkerState"]["enum"] == [state.value for state in WorkerState]


def test_every_operation_has_a_name_and_a_summary() -> None:
    operations = [
        operation
        for part in ("paths", "webhooks")
        for item in contract()[part].values()
        for method, operation in item.items()
        if method in METHODS
    ]

    names = [operation["operationId"] for operation in operations]
    assert len(set(names)) == len(names)
    assert [operation for operation in operations if not operation.get("summary") or not operation.get("tags")] == []


def test_every_component_is_used() -> None:
    text = (ROOT / "openapi.yaml").read_text()
    unused = [
        f"{kind}/{name}"
        for kind, found in contract()["components"].items()
        for name in found
        if kind != "securitySchemes" and f'"#/components/{kind}/{name}"' not in text
    ]

    assert unused == []


async def test_the_server_gives_the_contract_out_in_json(api: httpx.AsyncClient) -> None:
    assert (await api.get("/openapi.json")).json() == yaml.safe_load((ROOT / "openapi.yaml").read_text())


def _run(**change: Any) -> bytes:
    import json

    return json.dumps(contract()["components"]["examples"]["CompletedRun"]["value"] | change).encode()


def _broken_by(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "method": "GET",
        "path": f"/runs/{RUN_ID}",
        "query": "",
        "sent": b"",
        "status": 200,
        "headers": {"content-type": "application/json"},
        "received": _run(),
    }
    change(found)
    return found


def test_an_exchange_of_the_contract_passes() -> None:
    check(Exchange(**_broken_by(lambda one: one)))


@pytest.mark.parametrize(
    "change",
    [
        lambda one: one.update(status=299),
        lambda one: one.update(status=204),
        lambda one: one.update(path="/nowhere"),
        lambda one: one.update(method="PUT"),
        lambda one: one.update(query="color=red"),
        lambda one: one.update(query="wait=100"),
        lambda one: one.update(sent=b"{}"),
        lambda one: one.update(headers={"content-type": "text/plain"}),
        lambda one: one.update(received=_run(state="sleeping")),
        lambda one: one.update(received=_run(id=7)),
        lambda one: one.update(received=_run(colour="red")),
        lambda one: one.update(received=b"{}"),
        lambda one: one.update(received=_run(created_at="yesterday")),
    ],
)
def test_an_exchange_outside_the_contract_is_caught(change: Callable[[dict[str, Any]], object]) -> None:
    with pytest.raises(ContractBroken):
        check(Exchange(**_broken_by(change)))


async def test_the_wrapper_raises_where_an_app_breaks_the_contract() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": b'{"status":"dead"}'})

    async with httpx.AsyncClient(transport=httpx.ASGITransport(held_to_contract(app)), base_url="http://x") as client:
        with pytest.raises(ContractBroken, match="the answer at"):
            await client.get("/health/live")
