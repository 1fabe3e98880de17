"""`/expressions/check`: try an expression on an example. That it is wrong is the answer, not an error."""

from typing import Any, Final

from orjson import Fragment
from starlette.requests import Request
from starlette.responses import Response

from hurlbat_app.api.answers import Json
from hurlbat_app.api.bodies import read_body
from hurlbat_app.api.reading import optional, parameters, read_members, required, wrong
from hurlbat_dispatcher import CheckedExpression, Engine, check_expression

KINDS: Final = ("key", "number", "duration", "filter")
MEMBERS: Final = frozenset({"expression", "kind", "input", "metadata", "run", "payload", "event"})


class Expressions:
    """The endpoint of `/expressions/check`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def check(self, request: Request) -> Response:
        """Compile an expression, and evaluate it where an input for it is given."""
        parameters(request)
        found = read_members(request, await read_body(request, self._engine.settings.max_body_bytes), MEMBERS)
        source, kind = required(found, "expression"), optional(found, "kind")
        if not isinstance(source, str):
            raise wrong("expression", "must be a string")
        if kind is not None and kind not in KINDS:
            raise wrong("kind", f"must be one of {', '.join(KINDS)}")
        if kind == "filter" and "run" in found:
            raise wrong("run", "is not there for a filter, which reads input, payload, metadata and event")
        for name in ("payload", "event"):
            if kind != "filter" and name in found:
                raise wrong(name, "is there for the kind filter only")
        given: dict[str, Any] = {}
        for name in ("input", "payload"):
            if name in found:
                given[name] = found[name].value
        for name in ("metadata", "run", "event"):
            value = optional(found, name)
            if value is not None and not isinstance(value, dict):
                raise wrong(name, "must be a JSON object")
            if value is not None:
                given[name] = value
        return Json(_show(check_expression(source, given, kind)))


def _show(checked: CheckedExpression) -> dict[str, Any]:
    error = checked.error
    return {
        "valid": checked.valid,
        "evaluated": checked.evaluated,
        "type": checked.type,
        "value": Fragment(checked.value),
        "key": checked.key,
        "reads": checked.reads,
        "error": error and {"code": error.code, "message": error.sentence, "position": error.position},
    }
