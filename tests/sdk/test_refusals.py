"""What a 401 says: enough to find the mistake, and nothing by which the next guess would be better."""

import hashlib
import json
import logging
import time
from typing import Any

import pytest

from hurlbat import Hurlbat, signing
from hurlbat.errors import SignatureWrong
from hurlbat.refusal import Refusals
from hurlbat.wire import HEADER_KEY_IDS, probe_body
from tests.sdk.exchange import SECRET, URL, WORKER, Exchange, an_app, signed

pytestmark = pytest.mark.anyio

PROBE = probe_body(WORKER, URL, "2026-11-21T12:00:00.000Z")
OTHER = signing.new_secret()
PRIVATE, PUBLIC = signing.new_key_pair()
MAX_WORDS = 500
"""What a server keeps of the sentence."""


async def refusal(
    headers: dict[str, str], body: bytes = PROBE, *, secrets: list[str] | None = None, app: Hurlbat | None = None
) -> dict[str, Any]:
    """Send a request and return the problem that it is refused with."""
    app = app or an_app(signing_secret=[SECRET] if secrets is None else secrets)
    answer = await Exchange(app.asgi(), body, headers=headers).finish()
    assert (answer.status, answer.json["code"]) == (401, "signature_refused")
    found: dict[str, Any] = answer.json
    return found


def named(*keys: str, **more: Any) -> dict[str, str]:
    """Return the headers of a request of a server that signs with these keys."""
    return signed(PROBE, keys=keys, **more) | {HEADER_KEY_IDS: " ".join(map(signing.key_id, keys))}


async def test_a_refusal_says_what_came_and_how_many_keys_are_known() -> None:
    problem = await refusal(named(OTHER), secrets=[SECRET, signing.new_secret()])
    assert {name: problem[name] for name in ("body_bytes", "body_sha256", "signature_versions", "known_keys")} == {
        "body_bytes": len(PROBE),
        "body_sha256": hashlib.sha256(PROBE).hexdigest(),
        "signature_versions": ["v1"],
        "known_keys": 2,
    }
    assert problem["key_ids"] == [signing.key_id(OTHER)]
    assert abs(problem["clock_skew"]) < 60
    assert "content_length" not in problem
    for part in (
        f"Here came {len(PROBE)} bytes, SHA-256 {problem['body_sha256']}, signatures v1 by key",
        f"by key {signing.key_id(OTHER)}; clock skew ",
        " s (this clock minus the request's timestamp); 2 keys known here",
    ):
        assert part in problem["detail"]


@pytest.mark.parametrize(("off", "sign"), [(-400.0, "+4"), (400.0, "-")])
async def test_a_wrong_clock_is_told_with_its_sign(off: float, sign: str) -> None:
    problem = await refusal(named(SECRET, at=time.time() + off))
    assert abs(problem["clock_skew"] + off) < 60
    assert f"clock skew {sign}" in problem["detail"]


async def test_both_kinds_of_signatures_are_told() -> None:
    assert (await refusal(named(OTHER, PRIVATE)))["signature_versions"] == ["v1", "v1a"]


@pytest.mark.parametrize(
    ("keys", "secrets", "hint"),
    [
        ((PRIVATE,), [SECRET], "no key here checks v1a signatures: they take the whpk_ key"),
        ((SECRET,), [PUBLIC], "no key here checks v1 signatures: they take a whsec_ secret"),
        ((OTHER, PRIVATE), [SECRET], None),
    ],
)
async def test_a_key_of_the_wrong_kind_is_told(keys: tuple[str, ...], secrets: list[str], hint: str | None) -> None:
    problem = await refusal(named(*keys), secrets=secrets)
    assert ("hint" in problem) is (hint is not None)
    if hint:
        assert problem["hint"].startswith(hint)
        assert problem["detail"].endswith(problem["hint"])


async def test_an_unsigned_request_is_told_that_it_is() -> None:
    problem = await refusal({})
    assert (problem["signature_versions"], problem["key_ids"], problem["clock_skew"]) == ([], [], None)
    assert "no signature; 1 key known here" in problem["detail"]


async def test_a_worker_without_keys_says_that_it_knows_none() -> None:
    problem = await refusal(named(OTHER), app=Hurlbat(signing_secret=[]))
    assert problem["known_keys"] == 0
    assert "set HURLBAT_SIGNING_SECRET. Here came " in problem["detail"]


def test_a_content_length_that_says_another_length_is_told() -> None:
    told = Refusals().members(SignatureWrong("no"), {"content-length": "310"}, b"x" * 312, 0.0, [SECRET])
    assert told["content_length"] == 310
    assert "Here came 312 bytes where content-length says 310, SHA-256" in told["detail"]


@pytest.mark.parametrize(
    "headers",
    [
        {HEADER_KEY_IDS: "<script> 0123456 ABCDEF01 01234567\n"},
        {"webhook-signature": "v1\x00 <b>,x \xff,a v999999,b , ,,"},
        {"webhook-timestamp": "9" * 400},
        {"content-length": "٣"},
        {"content-length": "-1"},
        {"content-length": "9" * 5000},
        {HEADER_KEY_IDS: " ".join(["01234567"] * 10_000), "webhook-signature": "v1,a " * 10_000},
    ],
)
def test_headers_that_say_something_odd_are_not_repeated(headers: dict[str, str]) -> None:
    told = Refusals().members(SignatureWrong("no"), headers, PROBE, 0.0, [SECRET])
    assert "content_length" not in told
    assert told["clock_skew"] is None
    assert len(told["key_ids"]) <= 8
    assert set(told["signature_versions"]) <= {"v1"}
    assert set("<>\0\n\xff") & set(json.dumps(told, ensure_ascii=False)) == set()
    assert len(told["detail"]) < MAX_WORDS


async def test_the_longest_sentence_is_kept_whole_by_a_server() -> None:
    keys = [signing.new_secret(), signing.new_key_pair()[0], signing.new_secret()]
    headers = signed(b"other", keys=keys) | {HEADER_KEY_IDS: " ".join(map(signing.key_id, keys))}
    assert len((await refusal(headers, PROBE, secrets=[SECRET] * 3))["detail"]) <= MAX_WORDS
    late = signed(PROBE, keys=keys, at=0) | {HEADER_KEY_IDS: headers[HEADER_KEY_IDS]}
    assert len((await refusal(late))["detail"]) <= MAX_WORDS


async def test_no_secret_nor_the_name_of_one_nor_a_good_signature_is_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    app = an_app(signing_secret=[SECRET, PUBLIC])
    bad = named(OTHER)
    told = json.dumps([await refusal(one, app=app) for one in (bad, {}, signed(PROBE, at=0))])
    good = signing.sign([SECRET], bad["webhook-id"], int(bad["webhook-timestamp"]), PROBE)
    for hidden in (SECRET, SECRET[6:], PUBLIC[5:], good[3:]):
        assert hidden not in told + caplog.text
    for key in (SECRET, PUBLIC):
        assert signing.key_id(key) not in told


async def test_the_log_names_the_keys_that_are_known_here(caplog: pytest.LogCaptureFixture) -> None:
    await refusal(named(OTHER), secrets=[SECRET, PUBLIC])
    [record] = [one for one in caplog.records if "refused with 401" in one.getMessage()]
    assert record.levelno == logging.WARNING
    assert f"The keys here: {signing.key_id(SECRET)} {signing.key_id(PUBLIC)}" in record.getMessage()
    assert signing.key_id(OTHER) in record.getMessage()


def test_the_log_is_not_flooded(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    now = [100.0]
    refusals = Refusals(lambda: now[0])
    named = {HEADER_KEY_IDS: "01234567"}
    for _ in range(5):
        refusals.members(SignatureWrong("no"), named, b"", 0.0, [SECRET])
    now[0] += 11
    refusals.members(SignatureWrong("no"), named, b"", 0.0, [SECRET])
    first, second = caplog.records
    assert "more were refused" not in first.getMessage()
    assert second.getMessage().endswith("(4 more were refused before)")


def test_what_does_not_say_that_it_is_from_a_server_is_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    Refusals().members(SignatureWrong("no"), {}, b"", 0.0, [SECRET])
    assert caplog.records == []
    caplog.set_level(logging.INFO)
    Refusals().members(SignatureWrong("no"), {}, b"", 0.0, [SECRET])
    [record] = caplog.records
    assert record.levelno == logging.INFO
    assert record.getMessage().startswith(
        "a request that does not say that it is from a server was refused with 401, as"
    )
    assert "three of them are its own checks, and nothing is wrong): no. Here came 0 bytes" in record.getMessage()


def test_a_stranger_takes_nothing_from_what_is_counted_of_servers(caplog: pytest.LogCaptureFixture) -> None:
    now = [100.0]
    refusals = Refusals(lambda: now[0])
    named = {HEADER_KEY_IDS: "01234567"}
    for headers in (named, named, {}):
        refusals.members(SignatureWrong("no"), headers, b"", 0.0, [SECRET])
    now[0] += 11
    refusals.members(SignatureWrong("no"), named, b"", 0.0, [SECRET])
    assert caplog.records[-1].getMessage().endswith("(1 more were refused before)")


@pytest.mark.parametrize("key", [SECRET, OTHER, PUBLIC], ids=["first", "second", "public"])
async def test_which_key_matched_is_not_told(key: str) -> None:
    app = an_app(signing_secret=[SECRET, OTHER, PUBLIC])
    headers = named(PRIVATE if key == PUBLIC else key)
    answer = await Exchange(app.asgi(), PROBE, headers=headers).finish()
    assert (answer.status, answer.json, sorted(answer.headers)) == (
        200,
        {"ok": True},
        ["content-length", "content-type", "hurlbat-worker"],
    )
