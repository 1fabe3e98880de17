"""The proof: what a worker must show before it gets runs, and the sentence when it does not."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
import respx
from pydantic import ValidationError

from hurlbat.policy import Manifest, TaskPolicy
from hurlbat.signing import HEADER_SIGNATURE, verify
from hurlbat_dispatcher.domain.outcome import ErrorCode
from hurlbat_dispatcher.push.proof import ProofFailed
from tests.push.delivering import KEY, MARK, PROTOCOL, URL, VIRTUAL_TIME, StillClock, make_client

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """The far side is in memory: time is virtual."""
    return VIRTUAL_TIME


_MANIFEST = Manifest(sdk="test/1", max_batch=8, tasks=(TaskPolicy(name="bill", retries=3),))
_DESCRIBED = httpx.Response(200, headers=MARK, content=_MANIFEST.model_dump_json())
_NOW = StillClock().now_ms() / 1_000


def _why_refused(request: httpx.Request, *, tolerance: float = 300) -> str | None:
    """Verify as a worker does; say what is wrong, or None."""
    try:
        verify([KEY], dict(request.headers), request.content, _NOW, tolerance)
    except Exception as error:
        return type(error).__name__
    return None


def _worker(request: httpx.Request) -> httpx.Response:
    return httpx.Response(401, headers=MARK) if _why_refused(request) else _DESCRIBED


async def _prove(worker: Callable[[httpx.Request], httpx.Response] | Exception) -> tuple[Manifest, list[httpx.Request]]:
    router = respx.Router()
    route = router.post(URL)
    route.mock(side_effect=worker)
    manifest = await make_client(router).prove(PROTOCOL)
    return manifest, [call.request for call in route.calls]


async def _refusal(worker: Callable[[httpx.Request], httpx.Response] | Exception) -> ProofFailed:
    with pytest.raises(ProofFailed) as caught:
        await _prove(worker)
    return caught.value


async def test_a_worker_that_knows_the_secret_and_refuses_the_rest_has_proved_itself() -> None:
    manifest, requests = await _prove(_worker)
    assert manifest == _MANIFEST
    assert [json.loads(request.content)["type"] for request in requests] == ["describe", "probe", "probe", "probe"]
    assert [_why_refused(request) for request in requests] == [
        None,
        "SignatureMissing",
        "SignatureWrong",
        "TimestampRefused",
    ]
    assert _why_refused(requests[3], tolerance=601) is None, "the old probe is wrong in its age alone"
    assert len({request.headers["webhook-id"] for request in requests}) == 4


@pytest.mark.parametrize(
    ("lets_in", "what"),
    [
        ("SignatureMissing", "an unsigned request"),
        ("SignatureWrong", "a wrongly signed request"),
        ("TimestampRefused", "a ten-minute-old request"),
    ],
)
async def test_a_worker_that_lets_in_what_it_must_refuse_is_rejected(lets_in: str, what: str) -> None:
    def worker(request: httpx.Request) -> httpx.Response:
        return _DESCRIBED if _why_refused(request) in (None, lets_in) else httpx.Response(401)

    failure = await _refusal(worker)
    assert failure.code == ErrorCode.WORKER_UNAUTHORIZED
    assert failure.sentence == f"the worker answered {what} with 200; it must refuse it with 401"
    assert not failure.transient


def _always(response: httpx.Response) -> Callable[[httpx.Request], httpx.Response]:
    return lambda request: response


@pytest.mark.parametrize(
    ("worker", "code", "sentence", "transient"),
    [
        (
            _always(httpx.Response(307, headers={"location": "/hurlbat/"})),
            ErrorCode.REDIRECT_REFUSED,
            "the worker answered 307; register https://x.example/hurlbat/ instead",
            False,
        ),
        (
            _always(httpx.Response(401, text="expired")),
            ErrorCode.WORKER_UNAUTHORIZED,
            (
                "the worker answered 401 to a signed request; its secret or its clock is wrong: expired; "
                "signed with key fc757826"
            ),
            False,
        ),
        (
            _always(
                httpx.Response(
                    403, headers={"content-type": "application/problem+json"}, content=b'{"code":"wrong_target"}'
                )
            ),
            ErrorCode.WRONG_TARGET,
            'the worker answered 403 to a signed request: {"code":"wrong_target"}',
            False,
        ),
        (
            _always(httpx.Response(404)),
            ErrorCode.NOT_A_WORKER,
            f"the worker answered 404 at {URL}; register the URL where hurlbat.asgi() is mounted",
            False,
        ),
        (
            _always(httpx.Response(410)),
            ErrorCode.WORKER_GONE,
            "the worker answered 410: it says that it is gone for good",
            False,
        ),
        (_always(httpx.Response(500, text="oops")), ErrorCode.HTTP_ERROR, "the worker answered 500: oops", False),
        (_always(httpx.Response(503)), ErrorCode.HTTP_ERROR, "the worker answered 503", True),
        (
            _always(httpx.Response(200, text="<html>")),
            ErrorCode.NOT_A_WORKER,
            f"{URL} answered 200 without the hurlbat-worker header: something else is there",
            False,
        ),
        (
            httpx.ConnectError("connection refused"),
            ErrorCode.CONNECT_REFUSED,
            "the worker cannot be reached: connection refused",
            True,
        ),
        (
            httpx.ReadError("reset"),
            ErrorCode.CONNECTION_RESET,
            "the worker cannot be reached: reset",
            True,
        ),
        (
            httpx.RemoteProtocolError("odd"),
            ErrorCode.PROTOCOL_ERROR,
            "the worker cannot be reached: odd",
            False,
        ),
    ],
)
async def test_a_worker_that_does_not_describe_itself_is_told_what_to_fix(
    worker: Any, code: ErrorCode, sentence: str, transient: bool
) -> None:
    failure = await _refusal(worker)
    assert (failure.code, failure.sentence, failure.transient) == (code, sentence, transient)


@pytest.mark.parametrize(
    ("manifest", "sentence"),
    [
        (b"", "the manifest is not JSON: expected a JSON value"),
        (b"[1,", "the manifest is not JSON: expected a JSON value"),
        (b'{"x": NaN}', "the manifest is not JSON: NaN is not JSON"),
        (b'{"protocol": 2}', "the manifest is wrong at protocol: Input should be 1"),
        (b'{"tasks": [{"name": "a b"}]}', "the manifest is wrong at tasks.0.name: "),
        (b'{"tasks": [{"name": "a"}, {"name": "a"}]}', "the manifest is wrong at it: "),
        (b'{"tasks": [{"name": "a", "retries": -3}]}', "the manifest is wrong at tasks.0.retries: "),
    ],
)
async def test_a_manifest_that_is_wrong_is_named_by_its_place(manifest: bytes, sentence: str) -> None:
    failure = await _refusal(_always(httpx.Response(200, headers=MARK, content=manifest)))
    assert failure.code == ErrorCode.BAD_RESULT
    assert failure.sentence.startswith(sentence)


async def test_a_manifest_may_say_more_than_this_version_knows() -> None:
    said = json.loads(_MANIFEST.model_dump_json()) | {"durable": True}
    said["tasks"][0] |= {"sharing": {"limit": 3}}
    said["tasks"][0]["backoff"] |= {"ceiling": 9}
    newer = httpx.Response(200, headers=MARK, json=said)
    manifest, _ = await _prove(lambda request: httpx.Response(401) if _why_refused(request) else newer)
    assert manifest == _MANIFEST
    with pytest.raises(ValidationError, match="sharing"):
        TaskPolicy.model_validate(said["tasks"][0])


async def test_no_sentence_holds_a_secret() -> None:
    failure = await _refusal(lambda request: httpx.Response(401, text=request.headers.get(HEADER_SIGNATURE, "")))
    assert KEY.removeprefix("whsec_") not in failure.sentence
    assert KEY not in repr(PROTOCOL)
