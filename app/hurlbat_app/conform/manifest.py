"""Whether a worker says what it serves, and bears messages that are newer than itself."""

import json
from typing import Any, Final

from pydantic import ValidationError

from hurlbat.jsontext import JsonTextError, parse
from hurlbat.policy import Manifest
from hurlbat.wire import HEADER_WORKER, JSON_TYPE, describe_body
from hurlbat_app.conform.bench import Bench, timestamp
from hurlbat_app.conform.checks import Check
from hurlbat_app.conform.probe import Answer, Trouble, shown
from hurlbat_app.conform.verdicts import Failed

GROUP: Final = "manifest"
VALID: Final = f"{GROUP}.valid"
MORE: Final = {"conform_unknown": {"deep": [1, {"more": None}]}}
"""What a later version may have added."""


async def _valid(bench: Bench) -> str:
    answer = await _describe(bench)
    try:
        parse(answer.body)
        manifest = Manifest.read(answer.body)
    except JsonTextError as error:
        raise Failed(f"the manifest is not JSON ({error.message}): {shown(answer.body)}") from error
    except ValidationError as error:
        raise Failed(f"the manifest is wrong at {_first(error)}") from error
    if not manifest.tasks:
        raise Failed("the manifest has no tasks, so the worker would get no runs")
    unknown = _unknown(answer.body)
    passed_over = f"; passed over, as the server does not know it: {unknown}" if unknown else ""
    return f"{len(manifest.tasks)} tasks, max_batch {manifest.max_batch}{passed_over}"


async def _typed(bench: Bench) -> str:
    found = (await _describe(bench)).headers.get("content-type", "")
    if found.partition(";")[0].strip().lower() != JSON_TYPE:
        raise Failed(f"the manifest came as {found or 'nothing'}")
    return str(found)


async def _version(bench: Bench) -> str:
    answer = await _describe(bench)
    mark = answer.headers.get(HEADER_WORKER, "")
    version = bench.manifest.version if bench.manifest else ""
    if not version:
        raise Failed("the manifest has no version")
    if mark and mark != version:
        raise Failed(f"the manifest's version is {version!r}, and {HEADER_WORKER} says {mark!r}")
    again = await bench.ask(_message("describe", bench))
    if again.ok and again.headers.get(HEADER_WORKER, mark) != mark:
        raise Failed(f"{HEADER_WORKER} was {mark!r}, and {again.headers[HEADER_WORKER]!r} when it was asked again")
    return version


async def _unknown_members(bench: Bench) -> str:
    described = await bench.ask(_message("describe", bench, **MORE))
    if not described.ok:
        raise Failed(f"a describe with members that it does not know was answered {described.told}")
    return str(described.status)


async def _unknown_type(bench: Bench) -> str:
    return _calm(await bench.ask(_message("conform.unknown", bench)), "a message of a type that it does not know")


async def _no_message(bench: Bench) -> str:
    for body in (b"", b"null", b"[]", b'{"type":"deliver"}', b'{"type":"deliver","data":7}', b"\xff\xfe{", b"{"):
        what = f"a well signed body that is no message ({body!r})"
        try:
            _calm(await bench.ask(body), what)
        except Trouble as trouble:
            raise Failed(f"{what} got no answer: {trouble}") from trouble
    return "7 kinds of it were answered without a 5xx"


def _calm(answer: Answer, what: str) -> str:
    if answer.status >= 500:
        raise Failed(f"{what} was answered {answer.told}")
    return str(answer.status)


async def _describe(bench: Bench) -> Answer:
    if bench.described is None:
        bench.described = await bench.ask(_message("describe", bench))
    if not bench.described.ok:
        raise Failed(f"a signed describe was answered {bench.described.told}")
    return bench.described


def _message(kind: str, bench: Bench, **more: Any) -> bytes:
    body = json.loads(describe_body(bench.target.worker, bench.target.url, timestamp()))
    body["type"] = kind
    body["data"] |= more
    return json.dumps(body | more).encode()


def _unknown(body: bytes) -> str:
    """Name the first member of a good manifest that this version does not know, if there is one."""
    try:
        Manifest.model_validate_json(body)
    except ValidationError as error:
        return _first(error)
    return ""


def _first(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_context=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or "its beginning"
    return f"{where}: {first['msg'].removeprefix('Value error, ')}"


CHECKS: Final = (
    Check(
        GROUP,
        "valid",
        "describe is answered with a manifest whose every member is within its limits.",
        "A worker with a manifest that is wrong is rejected, and its tasks stay as they were.",
        "Compare the manifest with the table in docs/protocol.md.",
        _valid,
    ),
    Check(
        GROUP,
        "typed",
        "The manifest comes as application/json.",
        "Proxies and tools go by it.",
        "Send content-type: application/json with the manifest.",
        _typed,
    ),
    Check(
        GROUP,
        "version",
        "The manifest's version stands in hurlbat-worker, and stays while the manifest does.",
        "By the header the server notices a deploy and asks anew; one that changes by itself has it ask again and "
        "again, one that never changes hides new tasks until somebody syncs the worker.",
        "Make the version of what the manifest says, such as a digest of it, and send it with every answer.",
        _version,
        after=(VALID,),
    ),
    Check(
        GROUP,
        "unknown-members",
        "Members of describe that the worker does not know are ignored.",
        "Later versions of the server add some; a worker that crashes over them is down from the day of the upgrade.",
        "Read the members that you know and pass over all others.",
        _unknown_members,
    ),
    Check(
        GROUP,
        "unknown-type",
        "A message of an unknown type is answered without a 5xx.",
        "Later versions may send other messages; a 5xx counts as trouble of the worker.",
        "Answer 400 or 200 to a type that you do not know.",
        _unknown_type,
    ),
    Check(
        GROUP,
        "no-message",
        "A signed body that is no message is answered without a 5xx.",
        "What crashes is an alarm at night; a 400 says who has to mend what.",
        "Answer 400 to a body that cannot be read.",
        _no_message,
    ),
)
