"""Webhooks outlast their server and a change of its key, and every server knows them."""

import json
from collections.abc import MutableMapping
from typing import Any

import pytest
import structlog
from cryptography.fernet import Fernet
from pydantic import SecretStr

from hurlbat_dispatcher import CannotOpen, Conflict, Receipt, TooMany, Unauthorized, Unavailable, WebhookSpec
from hurlbat_dispatcher.store import webhooks as store
from hurlbat_dispatcher.store.database import Clash, DatabaseTrouble
from tests.engine.world import KEY, World, refused
from tests.support.senders import by_github

pytestmark = pytest.mark.anyio

SECRET = "the-secret-of-a-webhook"
AUTH = {"type": "github", "secret": SECRET}
BODY = b'{"n": 1}'


def signed(body: bytes = BODY, secret: str = SECRET, delivery: str = "one") -> dict[str, str]:
    return by_github(secret, body) | {"x-github-delivery": delivery}


async def deliver(world: World, delivery: str = "one", body: bytes = BODY) -> Receipt:
    return await world.engine.webhooks.receive("hook", signed(body, delivery=delivery), body)


async def test_a_webhook_and_what_it_has_heard_outlast_the_server(world: World) -> None:
    await world.worker("w", {"name": "echo", "on_events": ["webhook.hook"]})
    await world.engine.webhooks.put("hook", WebhookSpec(AUTH, scope="webhook.name", rate=(5, 60_000)))
    first = await deliver(world)
    before = world.engine.webhooks.get("hook")

    await world.engine.stop(0)
    await world.restart()
    again, other = await deliver(world, body=b'{"n": 2}'), await deliver(world, "two")
    [start] = (await world.engine.events.get("hook~two")).starts

    assert world.engine.webhooks.get("hook") == before
    assert (first, again, other) == (Receipt("hook~one", True), Receipt("hook~one"), Receipt("hook~two", True))
    assert start.run is not None
    assert (await world.ended(start.run)).output == '{"n": 1}'


async def test_every_server_knows_what_one_was_told(owner: World, other: World) -> None:
    hooks, elsewhere = owner.engine.webhooks, other.engine.webhooks
    await hooks.put("hook", WebhookSpec(AUTH, rate=(1, 3_600_000)))
    await other.until(lambda: "hook" in other.parts.registry.webhooks)

    here, there = await deliver(owner), await deliver(other)
    beyond = [await refused(deliver(one)) for one in (owner, other)]
    await elsewhere.put("hook", WebhookSpec({"type": "github", "secret": "another"}))
    await owner.until(lambda: owner.parts.registry.webhooks["hook"].rate is None)
    problem = await refused(deliver(owner))
    await elsewhere.delete("hook")
    await owner.until(lambda: "hook" not in owner.parts.registry.webhooks)
    gone = await refused(deliver(owner))

    assert (here.created, there.created) == (True, False)  # the event is one; the rate is each server's own
    assert [type(one) for one in (*beyond, problem, gone)] == [TooMany, TooMany, Unauthorized, Unauthorized]


async def test_a_new_key_of_the_server_renews_what_is_stored(database_url: str) -> None:
    new = SecretStr(Fernet.generate_key().decode())
    async with World(database_url) as world:
        await world.engine.webhooks.put("hook", WebhookSpec(AUTH))
        [before] = await world.rows("SELECT config, created_at, updated_at FROM webhook")

    async with World(database_url, secret_key=(new, KEY)) as world:
        assert (await deliver(world)).created
    async with World(database_url, secret_key=(new,)) as world:
        assert not (await deliver(world)).created
        [after] = await world.rows("SELECT config, created_at, updated_at FROM webhook")
    with pytest.raises(CannotOpen, match="HURLBAT_SECRET_KEY is not the key"):
        async with World(database_url, secret_key=(KEY,)):
            pass

    assert after == before


async def test_renewing_keeps_what_another_server_stored_since_the_rows_were_read(
    local: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    hooks, true = local.parts.webhooks, store.all_webhooks
    await hooks.put("hook", WebhookSpec(AUTH))

    def before() -> Any:
        [row] = yield from true()
        yield from store.save_webhook(
            row._replace(config="{}"), new=False
        )  # as if it were committed elsewhere just now
        return [row]

    monkeypatch.setattr(store, "all_webhooks", before)
    monkeypatch.setattr(hooks._vault, "_newest", Fernet(Fernet.generate_key()))
    await hooks.rekey()

    assert await local.rows("SELECT config FROM webhook") == [("{}",)]


async def test_what_is_not_the_senders_is_told_to_the_log_and_not_to_him(local: World) -> None:
    await local.engine.webhooks.put("hook", WebhookSpec(AUTH, key="input.kind"))
    with structlog.testing.capture_logs() as entries:
        wrong = await refused(local.engine.webhooks.receive("hook", signed(secret="another"), BODY))
        nobody = await refused(local.engine.webhooks.receive("nobody", signed(), BODY))
        await refused(deliver(local))

    logged: list[MutableMapping[str, Any]] = [one for one in entries if "webhook" in one]
    assert str(wrong) == str(nobody)
    assert [(one["webhook"], one["log_level"]) for one in logged] == [("hook", "info"), ("hook", "warning")]
    assert "x-hub-signature-256" in logged[0]["reason"]
    assert "input has no member kind" in logged[1]["reason"]
    assert SECRET not in repr(entries)


async def test_a_conflict_of_events_that_have_no_id_is_not_taken_for_a_repeat(
    local: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def conflicting(_: object) -> Any:
        raise Conflict("event_conflict", "another event has the id")

    await local.engine.webhooks.put("hook", WebhookSpec(AUTH, id="null"))
    monkeypatch.setattr(local.parts.webhooks, "_publish", conflicting)

    assert isinstance(await refused(deliver(local)), Conflict)


async def test_a_database_in_trouble_and_one_clash_are_answered_for(
    local: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, errors = local.parts.database.write, [Clash("another server"), DatabaseTrouble("it is away")]

    async def troubled(script: Any) -> Any:
        if errors:
            raise errors.pop(0)
        return await write(script)

    monkeypatch.setattr(local.parts.webhooks._database, "write", troubled)
    trouble = await refused(local.engine.webhooks.put("hook", WebhookSpec(AUTH)))
    errors.append(Clash("another server"))
    webhook, created = await local.engine.webhooks.put("hook", WebhookSpec(AUTH))

    assert isinstance(trouble, Unavailable)
    assert (trouble.code, webhook.name, created) == ("database_unavailable", "hook", True)


async def test_a_webhook_shows_no_secret_of_itself(local: World) -> None:
    spec = WebhookSpec(AUTH)
    webhook, _ = await local.engine.webhooks.put("hook", spec)

    shown = [repr(one) for one in (spec, webhook, local.parts.registry, json.dumps(webhook.auth.settings()))]

    assert [SECRET in text for text in shown] == [False] * 4
