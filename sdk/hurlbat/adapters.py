"""What pydantic does for inputs and outputs: the types that it alone understands, and what is wrong with a value.

Imported where it is needed and not before: to load pydantic takes a while, and a worker that starts for one delivery
may do without (see `plain.py`).
"""

from typing import Any, Final

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticUndefinedAnnotation, PydanticUserError
from pydantic_core import to_json

from hurlbat.errors import PayloadError, TaskInvalid

_SHOWN_ERRORS: Final = 50


def adapter_of(declared: Any, whose: str) -> TypeAdapter[Any]:
    """Return what reads and writes a type. Raises `TaskInvalid`; `whose` it is begins the sentence."""
    try:
        return TypeAdapter(declared)
    except (PydanticUserError, PydanticUndefinedAnnotation) as error:
        said = str(error).splitlines()[0]
        raise TaskInvalid(f"{whose} type {declared!r} cannot be read from JSON: {said}") from error


def dumped(value: Any, adapter: TypeAdapter[Any] | None) -> bytes:
    """Return the JSON of a value, by its type if there is one. Raises many kinds of errors for what cannot be JSON."""
    if adapter is None:
        return to_json(value, inf_nan_mode="constants")
    return adapter.dump_json(value, by_alias=True, warnings=False)


def loaded(text: str | bytes, adapter: TypeAdapter[Any], what: str) -> Any:
    """Return the value of JSON text as its type has it. Raises `PayloadError` with the fields that were refused."""
    try:
        return adapter.validate_json(text)
    except ValidationError as error:
        raise PayloadError(explain(error, what), _details(error)) from error


def schema_of(adapter: TypeAdapter[Any], mode: str) -> dict[str, Any] | None:
    """Return the JSON Schema of a type for the manifest, or None where it has none."""
    try:
        return adapter.json_schema(mode="validation" if mode == "validation" else "serialization")
    except Exception:
        # pydantic raises many kinds here, also from users' own hooks; a schema is a courtesy and never a reason to fail
        return None


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
