"""Take a request apart strictly: members of the body and parameters by name (the body itself comes by `bodies`).

Every refusal says which member or parameter is meant (`field`), or at which character the text stops being JSON
(`position`).
"""

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final
from urllib.parse import parse_qsl

from pydantic import ValidationError
from starlette.requests import Request

from hurlbat.jsontext import JsonTextError, Member, members
from hurlbat.wire import NAME_PATTERN
from hurlbat_dispatcher import Invalid, NotFound, UnsupportedMedia

YEAR_SECONDS: Final = 31_536_000

Members = Mapping[str, Member]

_NAME: Final = re.compile(NAME_PATTERN)
_RUN_ID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)")
_TIME_RULE: Final = "must be a time such as 2027-01-31T12:00:00Z, with its zone (RFC 3339)"
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_CLAUSES: Final = frozenset({"wait_for", "skip_if", "cancel_if", "any"})
"""Lists of conditions, of which a model says the kind after the place."""
_SHOWN: Final = 64


# -- the body ----------------------------------------------------------------------------------------------------------


def read_members(request: Request, body: bytes, known: frozenset[str]) -> Members:
    """Return the members of the body, an empty one has none. Raises `Invalid` for bad JSON and unknown members."""
    if not body:
        return {}
    try:
        found = members(body)
    except JsonTextError as error:
        encoding = request.headers.get("content-encoding", "identity")
        if encoding != "identity":
            raise UnsupportedMedia("encoding_unsupported", "send the body without Content-Encoding") from error
        raise bad_json(error) from error
    refuse_unknown(found, known)
    return found


def bad_json(error: JsonTextError) -> Invalid:
    """Return the problem that says where the JSON is wrong."""
    return Invalid("json_invalid", f"{error.message}, at character {error.position}", position=error.position)


def refuse_unknown(found: Iterable[str], known: frozenset[str]) -> None:
    """Raise `Invalid` when a member is not in `known`."""
    for name in found:
        if name not in known:
            shown = name[:_SHOWN]
            listed = ", ".join(sorted(known)) or "none"
            raise Invalid("member_unknown", f"the member {shown!r} is not known here (known: {listed})", field=shown)


# -- members -----------------------------------------------------------------------------------------------------------
# A member that is null counts as not given.


def required(found: Members, name: str) -> Any:
    """Return the value of a member that must be there."""
    member = found.get(name)
    if member is None or member.value is None:
        raise Invalid("member_missing", f"the member {name!r} is required", field=name)
    return member.value


def optional(found: Members, name: str) -> Any:
    """Return the value of a member, or None."""
    member = found.get(name)
    return None if member is None else member.value


def wrong(name: str, rule: str) -> Invalid:
    """Return the problem of a member that breaks a rule, e.g. `must be a string`."""
    return Invalid("member_invalid", f"{name} {rule}", field=name)


def name_of(found: Members, name: str) -> str:
    """Return a required name of a task or worker."""
    return task_name(required(found, name), name)


def task_name(value: Any, member: str = "name") -> str:
    """Return the name of a task, workflow or worker that is to be made. Raises `Invalid`."""
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise wrong(member, "must be 1 to 128 letters, digits and any of _ . : -")
    return value


def text_of(found: Members, name: str, longest: int) -> str | None:
    """Return a text of 1 to `longest` characters without control characters, or None."""
    value = optional(found, name)
    if value is None:
        return None
    if not isinstance(value, str) or not 1 <= len(value) <= longest or _CONTROL.search(value):
        raise wrong(name, f"must be 1 to {longest} characters, no control characters among them")
    return value


def whole_of(found: Members, name: str, low: int, high: int, besides: str = "") -> int | None:
    """Return an integer from `low` to `high`, or None. `besides` names what else its caller takes."""
    value = optional(found, name)
    if value is None:
        return None
    if type(value) is float and value.is_integer():
        value = int(value)
    if type(value) is not int or not low <= value <= high:
        raise wrong(name, f"must be a whole number from {low} to {high} {besides}".rstrip())
    return value


def flag_of(found: Members, name: str) -> bool | None:
    """Return true or false, or None."""
    value = optional(found, name)
    if value is not None and type(value) is not bool:
        raise wrong(name, "must be true or false")
    return value


def seconds_of(found: Members, name: str, *, zero: bool = False) -> float | None:
    """Return a duration in seconds of at most a year, or None. `zero` allows nothing."""
    value = optional(found, name)
    if value is None:
        return None
    if type(value) not in (int, float) or not (0 < value <= YEAR_SECONDS or (zero and value == 0)):
        problem = wrong(
            name, f"must be a number of seconds, {'from 0' if zero else 'above 0 and'} up to {YEAR_SECONDS}"
        )
        problem.extra["limit"] = YEAR_SECONDS
        raise problem
    return float(value)


def millis_of(found: Members, name: str, low: float, high: float) -> int:
    """Return a duration from `low` to `high` seconds, which must be there, in whole ms; never less than asked for."""
    value = required(found, name)
    if type(value) not in (int, float) or not low <= value <= high:
        raise wrong(name, f"must be a number of seconds from {low} to {high}")
    micros: int = round(value * 1_000_000)
    return -(-micros // 1_000)


def time_of(found: Members, name: str) -> int | None:
    """Return a time in RFC 3339 with its zone as milliseconds since the epoch, or None."""
    value = optional(found, name)
    return None if value is None else _moment(value, wrong(name, _TIME_RULE))


def _moment(value: Any, problem: Invalid) -> int:
    if not isinstance(value, str) or not _TIME.fullmatch(value):
        raise problem
    try:
        return round(datetime.fromisoformat(value.upper()).timestamp() * 1000)
    except (ValueError, OverflowError):
        name = problem.extra["field"]
        raise Invalid(problem.code, f"{name} is not a time that exists", field=name) from None


def run_id_of(found: Members, name: str) -> str | None:
    """Return a run's id, or None."""
    value = optional(found, name)
    if value is not None and not (isinstance(value, str) and _RUN_ID.fullmatch(value)):
        raise wrong(name, "must be the id of a run")
    return value


def object_of(found: Members, name: str, most_bytes: int) -> str | None:
    """Return the text of a JSON object of at most so many bytes, or None."""
    member = found.get(name)
    if member is None or member.value is None:
        return None
    if not isinstance(member.value, dict):
        raise wrong(name, "must be a JSON object")
    if len(member.text) > most_bytes or len(member.text.encode()) > most_bytes:
        raise Invalid("member_too_large", f"{name} is larger than {most_bytes} bytes", field=name, limit=most_bytes)
    return member.text


def strings_of(found: Members, name: str, most: int, longest: int) -> dict[str, str] | None:
    """Return an object of at most `most` strings, each of at most `longest` characters, or None."""
    value = optional(found, name)
    if value is None:
        return None
    if not isinstance(value, dict):
        raise wrong(name, "must be a JSON object of strings")
    if len(value) > most:
        raise wrong(name, f"must have at most {most} members")
    for key, text in value.items():
        if not isinstance(text, str) or len(text) > longest:
            raise wrong(f"{name}.{key[:_SHOWN]}", f"must be a string of at most {longest} characters")
    return value


def from_model(error: ValidationError, place: str) -> Invalid:
    """Return the problem of the first thing that a model refused, at its place below `place`."""
    first = error.errors(include_input=False, include_url=False)[0]
    steps, field = first["loc"], place
    for n, step in enumerate(steps):
        if n < 2 or steps[n - 2] not in _CLAUSES or not isinstance(steps[n - 1], int):  # else it says which kind it is
            field += f"[{step}]" if isinstance(step, int) else f".{step}"
    field = field.removeprefix(".")
    message = first["msg"].removeprefix("Value error, ")
    said = f"{message[0].lower()}{message[1:]}"
    return Invalid("member_invalid", f"{field}: {said}" if field else said, field=field)


# -- the path and its parameters ---------------------------------------------------------------------------------------


def run_id(request: Request) -> str:
    """Return the run's id of the path. What cannot be one is not found."""
    value: str = request.path_params["run_id"]
    if not _RUN_ID.fullmatch(value):
        raise NotFound("run_unknown", f"there is no run {value[:_SHOWN]}")
    return value


def attempt_number(request: Request) -> int:
    """Return the number of the attempt of the path."""
    value: str = request.path_params["attempt"]
    if not value.isascii() or not value.isdigit() or not 1 <= len(value) <= 9:
        raise NotFound("attempt_unknown", "the number of an attempt is 1 or more")
    return int(value)


def path_name(request: Request, what: str) -> str:
    """Return the name of the path, of a `what`. What cannot be a name is not found."""
    value: str = request.path_params["name"]
    if not _NAME.fullmatch(value):
        raise NotFound(f"{what}_unknown", f"there is no {what} {value[:_SHOWN]}")
    return value


def parameters(request: Request, *known: str) -> dict[str, str]:
    """Return the query parameters. Raises `Invalid` for those not `known` and for those that come twice."""
    query: bytes = request.scope["query_string"]
    if not query:
        return {}
    found: dict[str, str] = {}
    try:
        pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=32)
    except ValueError as error:
        raise Invalid("parameter_invalid", "the query is not percent-encoded UTF-8 of at most 32 parameters") from error
    for name, value in pairs:
        if name not in known:
            listed = ", ".join(known) or "none"
            raise Invalid(
                "parameter_unknown",
                f"the query parameter {name[:_SHOWN]!r} is not known here (known: {listed})",
                field=name[:_SHOWN],
            )
        if name in found:
            raise Invalid("parameter_invalid", f"the query parameter {name} appears twice", field=name)
        found[name] = value
    return found


def wait_parameter(query: Mapping[str, str], cap: float) -> float | None:
    """Return how many seconds to wait for the end of a run, or None."""
    text = query.get("wait")
    if text is None:
        return None
    seconds = float(text) if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", text, re.ASCII) else 0.0
    if not 0 < seconds <= cap:
        raise Invalid(
            "wait_invalid", f"wait must be a number of seconds, above 0 and up to {cap:g}", field="wait", limit=cap
        )
    return seconds


def page_parameters(query: Mapping[str, str], *, longest: int = 512) -> tuple[str | None, int]:
    """Return the cursor, of at most `longest` characters, and the limit of a list."""
    cursor = query.get("cursor")
    if cursor is not None and not (len(cursor) <= longest and re.fullmatch(r"[\x21-\x7e]+", cursor)):
        raise Invalid("bad_cursor", "the cursor is not one that a list gave", field="cursor")
    text = query.get("limit", "50")
    limit = int(text) if re.fullmatch(r"\d{1,9}", text, re.ASCII) else 0
    if not 1 <= limit <= 1000:
        raise Invalid("parameter_invalid", "limit must be a whole number from 1 to 1000", field="limit")
    return cursor, limit


def flag_parameter(query: Mapping[str, str], name: str) -> bool:
    """Return a parameter that is true or false; without it, false."""
    value = query.get(name, "false")
    if value not in ("true", "false"):
        raise Invalid("parameter_invalid", f"{name} must be true or false", field=name)
    return value == "true"


def time_parameter(query: Mapping[str, str], name: str) -> int | None:
    """Return a parameter that is a time in RFC 3339 with its zone as milliseconds since the epoch, or None."""
    text = query.get(name)
    return None if text is None else _moment(text, Invalid("parameter_invalid", f"{name} {_TIME_RULE}", field=name))


def name_parameter(query: Mapping[str, str], name: str) -> str | None:
    """Return a name of a task or worker among the parameters, or None."""
    value = query.get(name)
    if value is not None and not _NAME.fullmatch(value):
        raise Invalid("parameter_invalid", f"{name} must be 1 to 128 letters, digits and any of _ . : -", field=name)
    return value


def run_id_parameter(query: Mapping[str, str], name: str) -> str | None:
    """Return the id of a run among the parameters, or None."""
    value = query.get(name)
    if value is not None and not _RUN_ID.fullmatch(value):
        raise Invalid("parameter_invalid", f"{name} must be the id of a run", field=name)
    return value
