"""Turn inputs and outputs into JSON text and back, by their declared types.

Typed values follow their pydantic type; untyped ones must be JSON as it is: no NaN, no infinities, no lone surrogates.
"""

from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError, to_json

from hurlbat import jsontext
from hurlbat.errors import PayloadError

_SHOWN_ERRORS = 50


def encode(value: Any, adapter: TypeAdapter[Any] | None = None, *, what: str, limit: int | None = None) -> str:
    """Return the JSON text of a value, of at most `limit` bytes. `what` names it in the `PayloadError` otherwise."""
    if value is None:
        return "null"
    try:
        if adapter is None:
            data = to_json(value, inf_nan_mode="constants")
        else:
            data = adapter.dump_json(value, by_alias=True, warnings=False)
    except (PydanticSerializationError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise PayloadError(f"the {what} cannot be JSON: {error}") from error
    if limit is not None and len(data) > limit:
        raise PayloadError(f"the {what} has {len(data):,} bytes, more than {limit:,}")
    if b"NaN" in data or b"Infinity" in data or data.count(b"[") + data.count(b"{") > jsontext.MAX_DEPTH:
        try:
            jsontext.parse(data)
        except jsontext.JsonTextError as error:
            raise PayloadError(f"the {what} cannot be JSON: {error.message}") from error
    return data.decode()


def decode(text: str | bytes, adapter: TypeAdapter[Any] | None = None, *, what: str = "input") -> Any:
    """Return the value of JSON text as its type has it. Raises `PayloadError` with the fields that were refused."""
    if adapter is None:
        return jsontext.parse(text)
    try:
        return adapter.validate_json(text)
    except ValidationError as error:
        raise PayloadError(explain(error, what), _details(error)) from error


def printable(text: str) -> str:
    """Return the text with lone surrogates replaced, so that every JSON reader takes it."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def explain(error: ValidationError, what: str) -> str:
    """Return a sentence for each field that a model refused, without the values."""
    problems = error.errors(include_url=False, include_input=False, include_context=False)
    said = [
        f"{'.'.join([what, *map(str, problem['loc'])])}: {problem['msg'].removeprefix('Value error, ')}"
        for problem in problems[:_SHOWN_ERRORS]
    ]
    if len(problems) > _SHOWN_ERRORS:
        said.append(f"and {len(problems) - _SHOWN_ERRORS} more")
    return "; ".join(said)


def _details(error: ValidationError) -> str:
    problems = error.errors(include_url=False, include_input=False, include_context=False)
    return to_json(
        [
            {"loc": problem["loc"], "msg": problem["msg"], "type": problem["type"]}
            for problem in problems[:_SHOWN_ERRORS]
        ]
    ).decode()
