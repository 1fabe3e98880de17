"""Incoming webhooks, as those see them who set them up, and as the senders do."""

import asyncio
import base64
import hashlib
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hurlbat.signing import new_secret
from hurlbat_app.api import create_app
from hurlbat_dispatcher import Engine
from tests.api.conftest import ORIGIN, TOKEN, WORKER_URL
from tests.api.contract import held_to_contract
from tests.support.senders import by_github, by_slack, by_standard, by_stripe

pytestmark = pytest.mark.anyio

SECRET = "It's a Secret to Everybody"
UNICODE = "Schl\u00fcssel \u9375 \U0001f511"
GITHUB = {"type": "github", "secret": SECRET}
PUSH = {"ref": "refs/heads/main", "repository": {"full_name": "ada/engine"}, "n": 1}


@pytest.fixture
async def sender(engine: Engine) -> AsyncIterator[httpx.AsyncClient]:
    """Somebody else's server, without a token."""
    transport = httpx.ASGITransport(held_to_contract(create_app(engine)))
    async with httpx.AsyncClient(transport=transport, base_url=ORIGIN) as client:
        yield client


@pytest.fixture
async def wild(engine: Engine) -> AsyncIterator[httpx.AsyncClient]:
    """A sender that sends what the contract does not tell of: forms, and parameters of its own."""
    transport = httpx.ASGITransport(create_app(engine))
    async with httpx.AsyncClient(transport=transport, base_url=ORIGIN) as client:
        yield client


async def put(api: httpx.AsyncClient, name: str = "hook", **spec: Any) -> dict[str, Any]:
    answer = await api.put(f"/webhooks/{name}", json=spec)
    assert answer.status_code in (200, 201), answer.text
    found: dict[str, Any] = answer.json()
    return found


async def events(api: httpx.AsyncClient) -> list[dict[str, Any]]:
    """Return all events, the oldest first."""
    return list(reversed((await api.get("/events")).json()["items"]))


def signed(body: bytes, secret: str = SECRET, **headers: str) -> dict[str, str]:
    """Return what GitHub would say, and some headers more."""
    more = {name.replace("_", "-"): text for name, text in headers.items()}
    return {"content-type": "application/json"} | by_github(secret, body) | more


async def deliver(
    sender: httpx.AsyncClient, body: Any = PUSH, name: str = "hook", secret: str = SECRET, **headers: str
) -> httpx.Response:
    """Send what GitHub would send."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return await sender.post(f"/webhooks/{name}", content=content, headers=signed(content, secret, **headers))


def stored_in(engine: Engine) -> bytes:
    """Return all that is in the files of the database."""
    file = Path(engine.settings.database_file or "")
    return b"".join(one.read_bytes() for one in file.parent.glob(f"{file.name}*"))


# -- setting them up ---------------------------------------------------------------------------------------------------


async def test_a_webhook_is_put_shown_listed_changed_and_removed(api: httpx.AsyncClient) -> None:
    first = await api.put("/webhooks/hook", json={"auth": GITHUB})
    shown = await api.get("/webhooks/hook")
    listed = (await api.get("/webhooks")).json()
    said = {
        "key": "input.ref",
        "scope": "webhook.name",
        "id": "null",
        "max_bytes": 9,
        "rate": {"limit": 2, "duration": 0.5},
    }
    changed = await api.put("/webhooks/hook", json={"auth": {"type": "api_key", "key": "k"}} | said)
    bare = await api.put("/webhooks/hook")
    removed = await api.delete("/webhooks/hook")

    assert (first.status_code, first.headers["location"], changed.status_code) == (201, "/webhooks/hook", 200)
    assert first.json() | {"created_at": "", "updated_at": ""} == {
        "name": "hook",
        "url": f"{ORIGIN}/webhooks/hook",
        "auth": {"type": "github", "secret_count": 1},
        "key": None,
        "scope": None,
        "id": None,
        "max_bytes": None,
        "rate": None,
        "created_at": "",
        "updated_at": "",
    }
    assert shown.json() == first.json()
    assert listed == {"items": [first.json()], "next_cursor": None}
    assert changed.json()["auth"] == {"type": "api_key", "header": "x-api-key", "secret_count": 1}
    assert {name: changed.json()[name] for name in said} == said
    assert bare.json()["auth"] == changed.json()["auth"]
    assert {name: bare.json()[name] for name in said} == dict.fromkeys(said)
    assert changed.json()["created_at"] == first.json()["created_at"] < changed.json()["updated_at"]
    assert (removed.status_code, removed.content) == (204, b"")
    assert (await api.get("/webhooks")).json()["items"] == []
    for method in ("GET", "DELETE"):
        gone = await api.request(method, "/webhooks/hook")
        assert (gone.status_code, gone.json()["code"]) == (404, "webhook_unknown")


async def test_webhooks_come_in_pages_by_name(api: httpx.AsyncClient) -> None:
    for name in ("c", "a", "b"):
        await put(api, name, auth=GITHUB)

    first = (await api.get("/webhooks?limit=2")).json()
    second = (await api.get("/webhooks", params={"limit": 2, "cursor": first["next_cursor"]})).json()

    assert [[one["name"] for one in page["items"]] for page in (first, second)] == [["a", "b"], ["c"]]
    assert second["next_cursor"] is None


async def test_a_change_without_authentication_leaves_the_secrets_as_they_are(
    api: httpx.AsyncClient, sender: httpx.AsyncClient
) -> None:
    await put(api, auth=GITHUB, key="input.ref")

    changed = await put(api, scope='"all"')
    answer = await deliver(sender)

    assert (changed["auth"]["type"], changed["key"], changed["scope"]) == ("github", None, '"all"')
    assert answer.status_code == 201
    assert [(one["key"], one["scope"]) for one in await events(api)] == [("webhook.hook", "all")]


async def test_no_secret_is_shown_nor_stored_as_it_is(api: httpx.AsyncClient, engine: Engine) -> None:
    secret = "a-secret-that-is-easily-found"
    specs = [
        {"type": "github", "secrets": [secret, "b" + secret]},
        {"type": "basic", "username": "ada", "password": secret},
        {"type": "api_key", "header": "X-Key", "key": secret},
    ]

    answers = [await api.put("/webhooks/hook", json={"auth": spec}) for spec in specs]
    answers += [await api.get("/webhooks/hook"), await api.get("/webhooks")]
    stored = stored_in(engine)

    assert [secret in answer.text for answer in answers] == [False] * 5
    assert (secret.encode() in stored, b"x-key" in stored) == (False, True)
    assert answers[0].json()["auth"] == {"type": "github", "secret_count": 2}
    assert answers[1].json()["auth"] == {"type": "basic", "username": "ada", "secret_count": 1}


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"auth": None}, "auth"),
    ({"auth": "github"}, "auth"),
    ({"auth": {"type": "none"}}, "auth.type"),
    ({"auth": {"type": "github"}}, "auth.secret"),
    ({"auth": {"type": "standard", "secret": "whsec_short"}}, "auth.secret"),
    ({"key": ""}, "key"),
    ({"key": 7}, "key"),
    ({"key": "inptu.ref"}, "key"),
    ({"key": "metadata.ref"}, "key"),
    ({"key": "x" * 513}, "key"),
    ({"key": "[1, 2]"}, "key"),
    ({"key": "null"}, "key"),
    ({"key": '""'}, "key"),
    ({"key": '"a" + "\\n"'}, "key"),
    ({"key": "1 / 0"}, "key"),
    ({"scope": '""'}, "scope"),
    ({"scope": '"' + "x" * 257 + '"'}, "scope"),
    ({"id": '""'}, "id"),
    ({"scope": "input.ref +"}, "scope"),
    ({"id": "input.map(x, x)"}, "id"),
    ({"max_bytes": 0}, "max_bytes"),
    ({"max_bytes": 100_001}, "max_bytes"),
    ({"max_bytes": "1k"}, "max_bytes"),
    ({"rate": 5}, "rate"),
    ({"rate": {"limit": 0, "duration": 1}}, "rate.limit"),
    ({"rate": {"limit": 1_000_001, "duration": 1}}, "rate.limit"),
    ({"rate": {"limit": 1}}, "rate.duration"),
    ({"rate": {"limit": 1, "duration": 0}}, "rate.duration"),
    ({"rate": {"limit": 1, "duration": 86_401}}, "rate.duration"),
    ({"rate": {"limit": 1, "duration": 1, "burst": 1}}, "rate.burst"),
    ({"secret": "x"}, "secret"),
]


async def test_a_member_that_breaks_its_rule_is_named_and_nothing_is_stored(api: httpx.AsyncClient) -> None:
    for change, field in WRONG:
        answer = await api.put("/webhooks/hook", json={"auth": GITHUB} | change)

        assert (answer.status_code, answer.json()["field"]) == (422, field), answer.text
        assert field.rpartition(".")[2] in answer.json()["detail"]
    assert (await api.get("/webhooks")).json()["items"] == []


async def test_a_name_of_a_bad_form_is_refused_and_found_nowhere(
    api: httpx.AsyncClient, sender: httpx.AsyncClient
) -> None:
    for name in ("no%20spaces", "\u00e9", "a" * 129, "%00"):
        path = f"/webhooks/{name}"
        answer = await api.put(path, json={"auth": GITHUB})

        assert (answer.status_code, answer.json()["field"]) == (422, "name")
        assert [(await api.request(method, path)).status_code for method in ("GET", "DELETE")] == [404, 404]
        assert (await deliver(sender, name=name)).status_code == 401


async def test_only_deliveries_need_no_api_token(api: httpx.AsyncClient, sender: httpx.AsyncClient) -> None:
    await put(api, auth=GITHUB)

    refused = [
        await sender.request(method, "/webhooks/hook", content=b"{}") for method in ("PUT", "GET", "HEAD", "DELETE")
    ]
    refused.append(await sender.get("/webhooks"))
    with_token = await api.post("/webhooks/hook", json=PUSH)

    assert [answer.status_code for answer in refused] == [401] * 5
    assert [answer.json()["code"] for answer in refused if answer.content] == ["token_missing"] * 4
    assert (with_token.status_code, with_token.json()["code"]) == (401, "webhook_unauthorized")


# -- deliveries --------------------------------------------------------------------------------------------------------


async def test_a_delivery_becomes_an_event_that_starts_the_tasks_which_listen(
    api: httpx.AsyncClient, sender: httpx.AsyncClient
) -> None:
    tasks = [{"name": "echo", "on_events": ["github.*"]}]
    await api.post("/workers", json={"name": "plain", "url": WORKER_URL, "mode": "plain", "tasks": tasks})
    await put(api, auth=GITHUB, key='"github." + headers["x-github-event"]', scope="input.repository.full_name")
    body = b'{ "ref": "refs/heads/main", "n": 1.0,\n "repository": {"full_name": "ada/engine"} }\n'
    headers = signed(body, x_github_event="push", x_github_delivery="72d3162e")

    answer = await sender.post("/webhooks/hook", content=body, headers=headers)
    shown = await api.get("/events/hook~72d3162e")
    event = shown.json()
    [start] = event["starts"]
    run = (await api.get(f"/runs/{start['run']}?wait=60")).json()

    assert (answer.status_code, answer.json()) == (201, {"event": "hook~72d3162e"})
    assert (event["key"], event["scope"], event["metadata"]) == ("github.push", "ada/engine", {"webhook": "hook"})
    assert (start["outcome"], run["state"], run["metadata"]) == ("started", "completed", {"webhook": "hook"})
    assert run["output"] == json.loads(body)
    assert body.strip() in shown.content


async def test_a_delivery_that_comes_again_starts_nothing_again_whatever_its_body(
    api: httpx.AsyncClient, sender: httpx.AsyncClient
) -> None:
    await put(api, auth=GITHUB)

    first = await deliver(sender, x_github_delivery="one")
    again = await deliver(sender, x_github_delivery="one")
    changed = await deliver(sender, PUSH | {"n": 2}, x_github_delivery="one")
    other = await deliver(sender, x_github_delivery="two")
    nameless = [await deliver(sender) for _ in range(2)]

    assert [one.status_code for one in (first, again, changed, other, *nameless)] == [201, 200, 200, 201, 201, 201]
    assert [one.json() for one in (again, changed)] == [first.json()] * 2
    assert len(await events(api)) == 4
    assert (await events(api))[0]["payload"]["n"] == 1


async def test_deliveries_of_one_id_at_once_are_one_event(api: httpx.AsyncClient, sender: httpx.AsyncClient) -> None:
    await put(api, auth=GITHUB)

    answers = await asyncio.gather(*(deliver(sender, PUSH | {"n": n}, x_github_delivery="one") for n in range(8)))

    assert sorted(one.status_code for one in answers) == [200] * 7 + [201]
    assert len(await events(api)) == 1


async def test_two_senders_with_the_same_ids_do_not_meet(api: httpx.AsyncClient, sender: httpx.AsyncClient) -> None:
    for name in ("a", "a.b", "hook"):
        await put(api, name, auth=GITHUB)
    await api.post("/events", json={"key": "k", "id": "one"})

    for name, called in (("a", "one"), ("a.b", "one"), ("a", "b~one"), ("hook", "a~one")):
        assert (await deliver(sender, name=name, x_github_delivery=called)).status_code == 201

    assert [one["id"] for one in await events(api)] == ["one", "a~one", "a.b~one", "a~b~one", "hook~a~one"]


async def test_an_id_that_is_too_long_or_cannot_be_printed_is_told_by_its_digest(
    api: httpx.AsyncClient, sender: httpx.AsyncClient
) -> None:
    await put(api, auth={"type": "stripe", "secret": SECRET})
    ids = ["x" * 300, "x" * 301, "a\nb", "\u0000"]

    async def send(given: str) -> httpx.Response:
        body = json.dumps({"id": given}).encode()
        return await sender.post("/webhooks/hook", content=body, headers=by_stripe(SECRET, body, time.time()))

    answers = [await send(given) for given in ids]
    again = [await send(given) for given in ids]

    assert [one.status_code for one in answers] == [201] * 4
    assert [one.status_code for one in again] == [200] * 4
    assert [one.json()["event"] for one in answers] == [
        f"hook~sha256:{hashlib.sha256(given.encode()).hexdigest()}" for given in ids
    ]


async def test_standard_webhooks_are_taken_as_their_own_library_signs_them(
    api: httpx.AsyncClient, sender: httpx.AsyncClient
) -> None:
    old, new = new_secret(), new_secret()
    await put(api, auth={"type": "standard", "secrets": [new, old]})
    body = '{"type": "user.created", "name": "\u00e9"}'.encode()

    async def send(secret: str, message: str) -> httpx.Response:
        headers = by_standard(secret, body, time.time(), message)
        return await sender.post("/webhooks/hook", content=body, headers=headers)

    answers = [await send(new, "msg_1"), await send(old, "msg_1"), await send(old, "msg_2")]
    await put(api, auth={"type": "standard", "secret": new})
    answers += [await send(old, "msg_3"), await send(new, "msg_3")]

    assert [one.status_code for one in answers] == [201, 200, 201, 401, 201]
    assert answers[0].json() == {"event": "hook~msg_1"}


async def test_stripe_names_its_events_in_the_body(api: httpx.AsyncClient, sender: httpx.AsyncClient) -> None:
    await put(api, auth={"type": "stripe", "secret": SECRET}, key='"stripe." + input.type')
    body = b'{"id": "evt_1", "type": "invoice.paid"}'

    taken = await sender.post("/webhooks/hook", content=body, headers=by_stripe(SECRET, body, time.time() - 200))
    again = await sender.post("/webhooks/hook", content=body, headers=by_stripe(SECRET, body, time.time()))
    late = await sender.post("/webhooks/hook", content=body, headers=by_stripe(SECRET, body, time.time() - 310))
    early = await sender.post("/webhooks/hook", content=body, headers=by_stripe(SECRET, body, time.time() + 500))

    assert [one.status_code for one in (taken, again, late, early)] == [201, 200, 401, 401]
    assert [(one["id"], one["key"]) for one in await events(api)] == [("hook~evt_1", "stripe.invoice.paid")]


async def test_slack_is_answered_its_challenge_once_it_has_proved_itself(
    api: httpx.AsyncClient, sender: httpx.AsyncClient
) -> None:
    await put(api, auth={"type": "slack", "secret": SECRET})
    asked = b'{"type": "url_verification", "challenge": "3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P"}'
    event = b'{"type": "event_callback", "event_id": "Ev08", "challenge": "x"}'

    stranger = await sender.post("/webhooks/hook", content=asked, headers=by_slack("another", asked, time.time()))
    answer = await sender.post("/webhooks/hook", content=asked, headers=by_slack(SECRET, asked, time.time()))
    before = await events(api)
    told = await sender.post("/webhooks/hook", content=event, headers=by_slack(SECRET, event, time.time()))

    assert stranger.status_code == 401
    assert (answer.status_code, answer.json()["challenge"][:6], before) == (200, "3eZbrw", [])
    assert (told.status_code, told.json()) == (201, {"event": "hook~Ev08"})


async def test_a_form_becomes_an_object_and_the_payload_of_slack_and_github_is_json(
    api: httpx.AsyncClient, wild: httpx.AsyncClient
) -> None:
    form = "application/x-www-form-urlencoded"
    await put(api, "slack", auth={"type": "slack", "secret": SECRET}, key="input.payload.type")
    await put(api, "github", auth=GITHUB)
    await put(api, "plain", auth={"type": "api_key", "key": "k"})
    payload = b"payload=%7B%22type%22%3A%22block_actions%22%7D"
    fields = b"a=1&b=&a=%C3%A9+%26&payload=%7B"

    answers = [
        await wild.post(
            "/webhooks/slack", content=payload, headers={"content-type": form} | by_slack(SECRET, payload, time.time())
        ),
        await wild.post("/webhooks/github", content=payload, headers=signed(payload, content_type=form)),
        await wild.post("/webhooks/plain", content=fields, headers={"x-api-key": "k", "content-type": form}),
    ]

    assert [one.status_code for one in answers] == [201] * 3
    assert [(one["key"], one["payload"]) for one in await events(api)] == [
        ("block_actions", {"payload": {"type": "block_actions"}}),
        ("webhook.github", {"payload": {"type": "block_actions"}}),
        ("webhook.plain", {"a": ["1", "\u00e9 &"], "b": "", "payload": "{"}),
    ]


async def test_passwords_and_keys_in_any_script_are_taken(api: httpx.AsyncClient, sender: httpx.AsyncClient) -> None:
    await put(api, "basic", auth={"type": "basic", "username": "\u00e0da", "password": UNICODE})
    await put(api, "key", auth={"type": "api_key", "header": "X-My-Key", "key": UNICODE})
    await put(api, "signed", auth={"type": "github", "secret": UNICODE})
    good = base64.b64encode(f"\u00e0da:{UNICODE}".encode())

    async def send(name: str, header: bytes, text: bytes) -> int:
        return (await sender.post(f"/webhooks/{name}", content=b"", headers=[(header, text)])).status_code

    assert await send("basic", b"authorization", b"Basic " + good) == 201
    assert await send("basic", b"authorization", b"Basic " + good[:-4]) == 401
    assert await send("key", b"x-my-key", UNICODE.encode()) == 201
    assert await send("key", b"x-my-key", UNICODE.encode()[:-1]) == 401
    assert (await deliver(sender, name="signed", secret=UNICODE)).status_code == 201
    assert [one["payload"] for one in await events(api)] == [{}, {}, PUSH]


async def test_an_expression_sees_headers_but_none_that_is_secret(
    api: httpx.AsyncClient, sender: httpx.AsyncClient
) -> None:
    await put(
        api, auth={"type": "api_key", "header": "X-Key", "key": "k"}, key='headers["x-kind"]', scope="webhook.name"
    )
    await put(api, "greedy", auth={"type": "api_key", "header": "X-Key", "key": "k"}, key='headers["x-key"]')
    await put(api, "basic", auth={"type": "basic", "username": "a", "password": "b"}, key="headers.authorization")

    answer = await sender.post("/webhooks/hook", content=b"[1]", headers={"X-Key": "k", "X-Kind": "order"})
    twice = await sender.post(
        "/webhooks/hook", content=b"[1]", headers=[("x-key", "k"), ("x-kind", "a"), ("X-Kind", "b")]
    )
    greedy = await sender.post("/webhooks/greedy", content=b"", headers={"x-key": "k"})
    basic = await sender.post("/webhooks/basic", content=b"", auth=("a", "b"))

    assert (answer.status_code, twice.status_code) == (201, 201)
    assert [(one["key"], one["scope"]) for one in await events(api)] == [("order", "hook"), ("a, b", "hook")]
    assert [(one.status_code, one.json()["field"]) for one in (greedy, basic)] == [(422, "key")] * 2


async def test_a_sender_of_another_origin_is_let_in_and_a_page_that_changes_a_webhook_is_not(
    api: httpx.AsyncClient, sender: httpx.AsyncClient, wild: httpx.AsyncClient
) -> None:
    await put(api, auth=GITHUB)
    foreign = {"origin": "https://hooks.example"}

    taken = await deliver(sender, origin="https://hooks.example")
    changed = await api.put("/webhooks/hook", json={"auth": GITHUB}, headers=foreign)
    removed = await api.delete("/webhooks/hook", headers=foreign)
    elsewhere = await wild.post("/webhooks/hook/x", headers=foreign)

    assert taken.status_code == 201
    assert [one.json()["code"] for one in (changed, removed, elsewhere)] == ["origin_forbidden"] * 3


async def test_what_stands_in_the_query_is_for_the_sender(api: httpx.AsyncClient, wild: httpx.AsyncClient) -> None:
    await put(api, auth=GITHUB)
    body = b"{}"

    answer = await wild.post("/webhooks/hook?source=shop&source=2&%ff", content=body, headers=signed(body))

    assert answer.status_code == 201


# -- refusals ----------------------------------------------------------------------------------------------------------


async def test_who_does_not_prove_himself_learns_nothing_and_leaves_nothing(
    api: httpx.AsyncClient, sender: httpx.AsyncClient
) -> None:
    await put(api, auth=GITHUB, max_bytes=10, rate={"limit": 1, "duration": 3600})
    await put(api, "timed", auth={"type": "stripe", "secret": SECRET})
    await put(api, "basic", auth={"type": "basic", "username": "a", "password": "b"})
    body = json.dumps(PUSH).encode()

    answers = [
        await deliver(sender, name="nobody"),
        await deliver(sender, secret="another"),
        await sender.post("/webhooks/hook", content=body),
        await sender.post("/webhooks/hook", content=body + b" ", headers=signed(body)),
        await sender.post("/webhooks/hook", content=b"{", headers={"content-encoding": "gzip"}),
        await sender.post("/webhooks/timed", content=body, headers=by_stripe(SECRET, body, time.time() - 10_000)),
        await sender.post("/webhooks/basic", content=body, auth=("a", "c")),
        await sender.post("/webhooks/basic", content=body, headers={"authorization": f"Bearer {TOKEN}"}),
        await sender.post("/webhooks/hook"),
    ]

    assert {(one.status_code, one.text, one.headers["www-authenticate"]) for one in answers} == {
        (401, answers[0].text, 'Basic realm="hurlbat"')
    }
    assert "300 s" in answers[0].json()["detail"]
    assert await events(api) == []


NOT_WHAT_THEY_SAY: list[tuple[bytes, str, int, str]] = [
    (b"{", "application/json", 422, "json_invalid"),
    (b'{"a": NaN}', "application/json", 422, "json_invalid"),
    (b'{"a": "\xff"}', "application/json", 422, "json_invalid"),
    (b"[" * 66 + b"]" * 66, "application/json", 422, "json_invalid"),
    (b'"\\ud800"', "application/json", 422, "json_invalid"),
    (b'{"n": ' + b"1" * 5000 + b"}", "application/json", 422, "json_invalid"),
    (b"a=%ff", "application/x-www-form-urlencoded", 422, "form_invalid"),
    (b"&".join([b"a=1"] * 1_001), "application/x-www-form-urlencoded", 422, "form_invalid"),
    (b"payload=%7B", "application/x-www-form-urlencoded", 422, "json_invalid"),
    (b"<a/>", "application/xml", 415, "media_unsupported"),
    (b"{}", "text/plain", 415, "media_unsupported"),
    (b"{}", "multipart/form-data; boundary=x", 415, "media_unsupported"),
]


async def test_a_body_that_is_not_what_it_says_makes_no_event(
    api: httpx.AsyncClient, sender: httpx.AsyncClient
) -> None:
    await put(api, auth=GITHUB)

    for body, kind, status, code in NOT_WHAT_THEY_SAY:
        answer = await deliver(sender, body, content_type=kind)
        assert (answer.status_code, answer.json().get("code")) == (status, code), body
    compressed = await deliver(sender, content_encoding="gzip")
    assert (compressed.status_code, compressed.json()["code"]) == (415, "encoding_unsupported")
    assert await events(api) == []


async def test_json_goes_by_several_names(api: httpx.AsyncClient, sender: httpx.AsyncClient) -> None:
    await put(api, auth=GITHUB)

    form = "application/x-www-form-urlencoded"  # as curl calls what it is given, unless it is told otherwise
    for kind in ("application/json; charset=utf-8", "application/cloudevents+json", "TEXT/JSON", "", form):
        assert (await deliver(sender, content_type=kind)).status_code == 201
    assert [one["payload"] for one in await events(api)] == [PUSH] * 5


FAILING: list[tuple[dict[str, Any], str]] = [
    ({"key": "input.missing"}, "key"),
    ({"key": "input.repository"}, "key"),
    ({"key": "input.none"}, "key"),
    ({"key": "input.empty"}, "key"),
    ({"key": "input.long"}, "key"),
    ({"key": "input.control"}, "key"),
    ({"key": 'headers["x-missing"]'}, "key"),
    ({"scope": "input.missing"}, "scope"),
    ({"scope": "input.control"}, "scope"),
    ({"scope": "input.empty"}, "scope"),
    ({"id": "input.ref.name"}, "id"),
    ({"id": "input.empty"}, "id"),
]


async def test_an_expression_that_fails_or_gives_no_text_makes_no_event(
    api: httpx.AsyncClient, sender: httpx.AsyncClient
) -> None:
    for spec, field in FAILING:
        await put(api, auth=GITHUB, **spec)
        answer = await deliver(sender, PUSH | {"long": "x" * 257, "control": "a\nb", "none": None, "empty": ""})
        assert (answer.status_code, answer.json()["field"]) == (422, field), answer.text
    assert await events(api) == []


async def test_a_key_that_is_a_number_is_its_text(api: httpx.AsyncClient, sender: httpx.AsyncClient) -> None:
    for key in ("1 + 1", "input.n"):
        await put(api, auth=GITHUB, key=key)
        assert (await deliver(sender)).status_code == 201
    assert [one["key"] for one in await events(api)] == ["2", "1"]


async def test_a_scope_or_an_id_that_is_null_is_none(api: httpx.AsyncClient, sender: httpx.AsyncClient) -> None:
    await put(api, auth=GITHUB, key="input.n", scope="has(input.org) ? input.org : null", id="null")

    answers = [await deliver(sender, x_github_delivery="one") for _ in range(2)]

    assert [one.status_code for one in answers] == [201, 201]
    assert [(one["key"], one["scope"]) for one in await events(api)] == [("1", None)] * 2


async def test_a_body_beyond_a_limit_is_refused_with_its_number(
    api: httpx.AsyncClient, sender: httpx.AsyncClient
) -> None:
    await put(api, auth=GITHUB, max_bytes=20)

    fits, large = await deliver(sender, b'"' + b"x" * 18 + b'"'), await deliver(sender, b'"' + b"x" * 19 + b'"')
    huge = [await deliver(sender, b" " * 100_001, name=name) for name in ("hook", "nobody")]

    assert (fits.status_code, large.status_code, large.json()["limit"]) == (201, 413, 20)
    assert [(one.status_code, one.json()["limit"]) for one in huge] == [(413, 100_000)] * 2
    assert len(await events(api)) == 1


async def test_more_than_the_rate_allows_is_told_when_to_come_again(
    api: httpx.AsyncClient, sender: httpx.AsyncClient
) -> None:
    await put(api, auth=GITHUB, rate={"limit": 2, "duration": 3600})
    await put(api, "other", auth=GITHUB, rate={"limit": 1, "duration": 3600})
    for _ in range(3):
        assert (await deliver(sender, secret="another")).status_code == 401  # who is nobody uses nothing up

    answers = [await deliver(sender) for _ in range(3)]
    other = await deliver(sender, name="other")
    await put(api, rate={"limit": 3, "duration": 3600})
    raised = [await deliver(sender) for _ in range(2)]

    assert [one.status_code for one in (*answers, other, *raised)] == [201, 201, 429, 201, 201, 429]
    assert (answers[2].json()["code"], answers[2].json()["limit"]) == ("webhook_rate", 2)
    assert 3000 < int(answers[2].headers["retry-after"]) <= 3600
    assert len(await events(api)) == 4


HOSTILE = st.dictionaries(
    st.sampled_from(
        [
            *(b"webhook-id", b"webhook-timestamp", b"webhook-signature", b"x-hub-signature-256", b"stripe-signature"),
            *(b"x-slack-signature", b"x-slack-request-timestamp", b"authorization", b"x-api-key", b"content-type"),
            *(b"content-encoding", b"origin", b"x-github-delivery", b"x-sig"),
        ]
    ),
    st.one_of(
        st.binary(max_size=40),
        st.sampled_from(
            [b"t=1,v1=,v1=\xff", b"Basic \xff", b"Basic !!!", b"v1,\xff v1,= ,", b"v0=\xff", b"sha256=\xff"]
        ),
        st.just(str(int(time.time())).encode()),
    ),
    max_size=6,
)


async def test_whatever_the_headers_hold_nobody_is_let_in_and_nothing_breaks(
    api: httpx.AsyncClient, engine: Engine
) -> None:
    auths: list[dict[str, Any]] = [
        {"type": "standard", "secret": new_secret()},
        *({"type": kind, "secret": UNICODE} for kind in ("github", "stripe", "slack")),
        {"type": "hmac", "header": "x-sig", "secret": UNICODE, "encoding": "base64", "algorithm": "sha512"},
        {"type": "basic", "username": "a", "password": UNICODE},
        {"type": "api_key", "key": UNICODE},
    ]
    for auth in auths:
        await put(api, auth["type"], auth=auth)
    app = create_app(engine)
    answered: list[int] = []

    async def send(name: str, headers: dict[bytes, bytes], body: bytes) -> int:
        sent: list[Any] = []
        scope = {
            "type": "http",
            "method": "POST",
            "path": f"/webhooks/{name}",
            "query_string": b"",
            "headers": list(headers.items()),
            "root_path": "",
        }

        async def receive() -> Any:
            return {"type": "http.request", "body": body}

        async def take(message: Any) -> None:
            sent.append(message)

        await app(scope, receive, take)
        return int(sent[0]["status"])

    @given(st.sampled_from([*(auth["type"] for auth in auths), "nobody"]), HOSTILE, st.binary(max_size=20))
    @settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
    def play(name: str, headers: dict[bytes, bytes], body: bytes) -> None:
        coroutine = send(name, headers, body)
        try:  # nothing on the way to a refusal waits for anything
            coroutine.send(None)
        except StopIteration as done:
            answered.append(done.value)
        else:
            raise AssertionError("it waits")

    play()

    assert set(answered) == {401}
    assert await events(api) == []
