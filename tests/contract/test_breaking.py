"""The contract breaks nobody who keeps to the released one, but where that was decided."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from hurlbat_app.api.contract import contract
from tests.contract.breaking import accepted, breaks, load_released

Change = Callable[[dict[str, Any]], object]


def schema(document: dict[str, Any], name: str) -> Any:
    return document["components"]["schemas"][name]


def remove_an_operation(document: dict[str, Any]) -> None:
    del document["paths"]["/runs/{run_id}"]["patch"]


def remove_a_member_of_an_answer(document: dict[str, Any]) -> None:
    del schema(document, "Run")["properties"]["created_at"]
    schema(document, "Run")["required"].remove("created_at")


def allow_a_member_of_an_answer_to_be_left_out(document: dict[str, Any]) -> None:
    schema(document, "Run")["required"].remove("due_at")


def remove_a_member_of_a_request(document: dict[str, Any]) -> None:
    del schema(document, "Submission")["properties"]["ttl"]


def require_a_member_of_a_request(document: dict[str, Any]) -> None:
    schema(document, "Submission")["required"].append("input")


def require_a_parameter(document: dict[str, Any]) -> None:
    new = {"name": "tenant", "in": "query", "required": True, "schema": {"type": "string"}}
    document["paths"]["/runs"]["get"].setdefault("parameters", []).append(new)


def remove_a_parameter(document: dict[str, Any]) -> None:
    parameters = document["paths"]["/runs"]["get"]["parameters"]
    parameters[:] = [one for one in parameters if one.get("name") != "task"]


def narrow_an_enum(document: dict[str, Any]) -> None:
    schema(document, "RunState")["enum"].remove("skipped")


def narrow_a_bound(document: dict[str, Any]) -> None:
    schema(document, "Submission")["properties"]["priority"]["maximum"] = 9


def change_a_type(document: dict[str, Any]) -> None:
    schema(document, "Run")["properties"]["attempt"] = {"type": "string"}


def change_a_type_of_a_request(document: dict[str, Any]) -> None:
    schema(document, "Submission")["properties"]["delay"] = {"type": "string"}


def remove_an_answer(document: dict[str, Any]) -> None:
    del document["paths"]["/runs"]["post"]["responses"]["201"]


def send_workers_less(document: dict[str, Any]) -> None:
    del schema(document, "DeliveredRun")["properties"]["lease_token"]
    schema(document, "DeliveredRun")["required"].remove("lease_token")


def ask_more_of_workers(document: dict[str, Any]) -> None:
    schema(document, "CompletedLine")["properties"]["pid"] = {"type": "integer"}
    schema(document, "CompletedLine")["required"].append("pid")


def stop_a_message_to_workers(document: dict[str, Any]) -> None:
    del document["webhooks"]["cancel"]


def stop_signing(document: dict[str, Any]) -> None:
    document["webhooks"]["deliver"]["post"]["parameters"].pop(2)


BROKEN: dict[Change, str] = {
    remove_an_operation: "PATCH /runs/{run_id}: ",
    remove_a_member_of_an_answer: "GET /runs/{run_id}: removed the required property `created_at`",
    allow_a_member_of_an_answer_to_be_left_out: "GET /runs/{run_id}: the response property `due_at` became optional",
    remove_a_member_of_a_request: "POST /runs: removed the request property `ttl`",
    require_a_member_of_a_request: "POST /runs: the request property `input` became required",
    require_a_parameter: "GET /runs: added the new required `query` request parameter `tenant`",
    remove_a_parameter: "GET /runs: deleted the `query` request parameter `task`",
    narrow_an_enum: "GET /runs: removed the enum value `skipped`",
    narrow_a_bound: "POST /runs: the `priority` request property's max was decreased",
    change_a_type: "GET /runs/{run_id}: the `attempt` response's property `type` changed",
    change_a_type_of_a_request: "POST /runs: the `delay` request property",
    remove_an_answer: "POST /runs: removed the success response with the status `201`",
    send_workers_less: "POST /push/deliver: removed the required property `data/runs/items/lease_token`",
    ask_more_of_workers: "POST /push/deliver: ",
    stop_a_message_to_workers: "POST /push/cancel: ",
    stop_signing: "POST /push/deliver: the mandatory response header `webhook-signature` removed",
}


def add_an_operation(document: dict[str, Any]) -> None:
    document["paths"]["/runs/{run_id}/notes"] = copy.deepcopy(document["paths"]["/runs/{run_id}/cancel"])
    document["paths"]["/runs/{run_id}/notes"]["post"]["operationId"] = "noteRun"


def add_members(document: dict[str, Any]) -> None:
    for name in ("Run", "Submission", "DeliveredRun", "CompletedLine"):
        schema(document, name)["properties"]["note"] = {"type": "string"}
    schema(document, "Run")["required"].append("note")
    schema(document, "DeliveredRun")["required"].append("note")


def add_a_parameter(document: dict[str, Any]) -> None:
    new = {"name": "note", "in": "query", "schema": {"type": "string"}}
    document["paths"]["/runs"]["get"]["parameters"].append(new)


def add_a_state(document: dict[str, Any]) -> None:
    schema(document, "RunState")["enum"].append("sleeping")


def widen_a_bound(document: dict[str, Any]) -> None:
    schema(document, "Submission")["properties"]["priority"]["maximum"] = 1_000_000


def say_it_in_other_words(document: dict[str, Any]) -> None:
    schema(document, "Run")["description"] = document["info"]["description"] = "Other words."


ADDED: tuple[Change, ...] = (
    add_an_operation,
    add_members,
    add_a_parameter,
    add_a_state,
    widen_a_bound,
    say_it_in_other_words,
)


@pytest.fixture(scope="module")
def found() -> tuple[list[str], list[str]]:
    """What is said of a contract with all the breaks, and of one with all the additions."""
    broken, added = copy.deepcopy(contract()), copy.deepcopy(contract())
    for change in BROKEN:
        change(broken)
    for change in ADDED:
        change(added)
    of_broken, of_added = breaks(contract(), [broken, added])
    return of_broken, of_added


def test_the_contract_breaks_nobody_but_where_that_was_decided() -> None:
    found = breaks(load_released(), [contract()])[0]

    assert [one for one in found if one not in accepted()] == []
    assert [one for one in accepted() if one not in found] == [], "accepted.yaml has what is no break"
    assert [one for one, reason in accepted().items() if not reason.strip()] == []


@pytest.mark.parametrize("change", BROKEN, ids=lambda change: change.__name__)
def test_a_break_is_found(found: tuple[list[str], list[str]], change: Change) -> None:
    assert [one for one in found[0] if one.startswith(BROKEN[change])], found[0]


def test_additions_break_nobody(found: tuple[list[str], list[str]]) -> None:
    assert found[1] == []
