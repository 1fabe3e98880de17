"""The contract has the shape that generators make good code of: everything has a name, and nothing is ambiguous."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from hurlbat_app.api.contract import contract

ROOT = Path(__file__).parents[2]
METHODS = ("get", "post", "put", "patch", "delete")
Place = tuple[str, ...]


def _nodes(node: Any, place: Place = ()) -> Iterator[tuple[Place, dict[str, Any]]]:
    if isinstance(node, dict):
        yield place, node
        for name, inner in node.items():
            if name not in ("example", "examples", "const", "enum"):
                yield from _nodes(inner, (*place, str(name)))
    elif isinstance(node, list):
        for number, inner in enumerate(node):
            yield from _nodes(inner, (*place, str(number)))


def _is_component(place: Place) -> bool:
    return len(place) == 3 and place[:2] == ("components", "schemas")


def _anonymous(document: Any) -> list[str]:
    return [
        "/".join(place)
        for place, node in _nodes(document)
        if not _is_component(place)
        and place[-1:] != ("properties",)
        and (isinstance(node.get("enum"), list) or (node.get("type") == "object" and _has_members(node)))
    ]


def _has_members(node: dict[str, Any]) -> bool:
    return bool(node.get("properties") or node.get("additionalProperties") is True)


def _schemas_of_requests() -> dict[str, Any]:
    """Return the components that a request's body is made of, by name."""
    schemas, found = contract()["components"]["schemas"], dict[str, Any]()
    waiting = [node["requestBody"] for _, node in _nodes(contract()["paths"]) if "requestBody" in node]
    while waiting:
        for _, node in _nodes(waiting.pop()):
            name = str(node.get("$ref", "")).removeprefix("#/components/schemas/")
            if name in schemas and name not in found:
                found[name] = schemas[name]
                waiting.append(schemas[name])
    return found


def test_every_object_and_every_enumeration_has_a_name() -> None:
    assert _anonymous(contract()) == []


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"a": {"type": "string"}}},
        {"type": "object", "additionalProperties": True},
        {"type": "string", "enum": ["a"]},
    ],
)
def test_what_has_no_name_is_found(schema: Any) -> None:
    within = {"components": {"schemas": {"A": {"type": "object", "properties": {"b": schema}}}}}

    assert _anonymous(within) == ["components/schemas/A/properties/b"]


def test_numbers_are_doubles() -> None:
    found = []
    for place, node in _nodes(contract()):
        kind = node.get("type")
        if "if" in place or "then" in place or "else" in place:
            continue
        if (kind == "number" or (isinstance(kind, list) and "number" in kind)) and node.get("format") != "double":
            found.append("/".join(place))
    assert found == []


def test_no_enumeration_has_a_null() -> None:
    assert ["/".join(place) for place, node in _nodes(contract()) if None in node.get("enum", ())] == []


def test_no_request_has_a_default_that_clients_would_send() -> None:
    assert {"Submission", "TaskPolicy", "EventCondition"} <= _schemas_of_requests().keys()
    found = [
        f"{name}/{'/'.join(place)}"
        for name, schema in _schemas_of_requests().items()
        for place, node in _nodes(schema)
        if "default" in node and place[-1:] != ("properties",)
    ]
    assert found == []


def test_every_problem_is_the_one_type() -> None:
    problems = [
        node["application/problem+json"]["schema"]
        for place, node in _nodes(contract())
        if "application/problem+json" in node
    ]
    assert problems == [{"$ref": "#/components/schemas/Problem"}] * len(problems)

    operations = [(path, method) for path, item in contract()["paths"].items() for method in METHODS if method in item]
    without = [one for one in operations if "default" not in contract()["paths"][one[0]][one[1]]["responses"]]
    assert without == []


def test_pages_are_alike() -> None:
    schemas = contract()["components"]["schemas"]
    pages = {name: schema for name, schema in schemas.items() if name.endswith("Page")}
    assert len(pages) > 5
    for name, schema in pages.items():
        assert schema["required"] == ["items", "next_cursor"], name
        assert schema["properties"]["next_cursor"] == {"type": ["string", "null"]}, name


def test_what_the_server_sends_is_no_call_of_a_client() -> None:
    pushes = [item["post"] for item in contract()["webhooks"].values()]

    assert pushes
    assert all(push["x-internal"] is True for push in pushes)


def test_no_key_is_there_twice() -> None:
    class Strict(yaml.SafeLoader):
        """Refuses what other languages' readers refuse."""

    def mapping(loader: Strict, node: yaml.MappingNode) -> dict[Any, Any]:
        names = [loader.construct_object(key) for key, _ in node.value]
        twice = sorted({str(name) for name in names if names.count(name) > 1})
        assert not twice, f"{', '.join(twice)} twice, near line {node.start_mark.line + 1}"
        return loader.construct_mapping(node, deep=True)

    Strict.add_constructor("tag:yaml.org,2002:map", mapping)

    assert yaml.load((ROOT / "openapi.yaml").read_text(), Strict)
    with pytest.raises(AssertionError, match="a twice"):
        yaml.load("{a: 1, a: 2}", Strict)
