"""Incoming webhooks as people put them and look at them, and the deliveries of their senders, which become events.

A sender has no API token: it proves itself as its webhook says, and learns nothing where it does not, neither what is
wrong nor whether there is such a webhook. What came before is known by the event's id: a delivery that is sent again
starts nothing again, as long as its event is kept.
"""

import json
import math
from collections.abc import Awaitable, Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import structlog

from hurlbat_dispatcher.availability import available
from hurlbat_dispatcher.clock import Clock
from hurlbat_dispatcher.domain.budgets import Rate
from hurlbat_dispatcher.errors import Conflict, Invalid, NotFound, Problem, TooLarge, TooMany, Unauthorized
from hurlbat_dispatcher.events import AcceptedEvent, EventSpec
from hurlbat_dispatcher.incoming.auth import Auth, GithubAuth, SlackAuth, read_auth
from hurlbat_dispatcher.incoming.body import read_body
from hurlbat_dispatcher.incoming.making import Made, Webhook, challenge_of, check_expressions, make_event
from hurlbat_dispatcher.incoming.verify import (
    TOLERANCE_SECONDS,
    is_known_by_head,
    refusal,
    refuse,
    why_refused,
    why_refused_by_head,
)
from hurlbat_dispatcher.pages import Page, page_by_name
from hurlbat_dispatcher.registry import Registry
from hurlbat_dispatcher.secrecy import Vault
from hurlbat_dispatcher.store import webhooks as store
from hurlbat_dispatcher.store.database import Clash, Database
from hurlbat_dispatcher.store.runs import database_now
from hurlbat_dispatcher.store.statement import Script

log = structlog.get_logger("hurlbat.webhooks")

T = TypeVar("T")

REFUSED: Final = (
    "this delivery is not taken: there is no such webhook, or its signature or credentials are missing or wrong,"
    f" or its timestamp is more than {TOLERANCE_SECONDS} s from the server's clock"
)
"""What everyone is told who does not prove himself."""


@dataclass(frozen=True, slots=True)
class WebhookSpec:
    """What is said of a webhook. `auth` is its JSON; None: as before.

    `key`, `scope` and `id` are expressions over `input`, `headers` and `webhook`; `rate` is how many deliveries, in any
    how many ms.
    """

    auth: Mapping[str, Any] | None = field(default=None, repr=False)
    key: str | None = None
    scope: str | None = None
    id: str | None = None
    max_bytes: int | None = None
    rate: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of a delivery: the id of its event, and whether that is new; or the `challenge` that is answered."""

    event: str | None
    created: bool = False
    challenge: str | None = None


class Webhooks:
    """All incoming webhooks."""

    def __init__(
        self,
        tenant: int,
        database: Database,
        registry: Registry,
        vault: Vault,
        clock: Clock,
        *,
        publish: Callable[[EventSpec], Awaitable[AcceptedEvent]],
        announce: Callable[[], Awaitable[None]],
    ) -> None:
        self._tenant = tenant
        self._database = database
        self._registry = registry
        self._vault = vault
        self._clock = clock
        self._publish = publish
        self._announce = announce
        self._rates: dict[str, Rate] = {}

    # -- what people ask for -----------------------------------------------------------------------------------------

    async def put(self, name: str, spec: WebhookSpec) -> tuple[Webhook, bool]:
        """Set a webhook; return it, and whether it is a new one. Raises `Invalid`."""
        auth = None if spec.auth is None else read_auth(spec.auth)
        check_expressions({"key": spec.key, "scope": spec.scope, "id": spec.id})
        created = await self._change(lambda: self._saved(name, spec, auth))
        if created is None:
            said = f"the member 'auth' is required, as there is no webhook {name} yet"
            raise Invalid("member_missing", said, field="auth")
        return self.get(name), created

    def get(self, name: str) -> Webhook:
        """Return a webhook. Raises `NotFound`."""
        found = self._registry.webhooks.get(name)
        if found is None:
            raise NotFound("webhook_unknown", f"there is no webhook {name}; PUT /webhooks/{name} makes it")
        return found

    def page(self, *, cursor: str | None = None, limit: int = 50) -> Page[Webhook]:
        """Return the webhooks by name."""
        return page_by_name(self._registry.webhooks, cursor, limit)

    async def delete(self, name: str) -> None:
        """Forget a webhook; the events that came of it stay. Raises `NotFound`."""
        self.get(name)
        await self._change(lambda: store.delete_webhook(self._tenant, name))

    async def rekey(self) -> None:
        """Encrypt all secrets with the newest key, so that older ones can be dropped."""

        def script() -> Script[None]:
            for row in (yield from store.all_webhooks()):
                if self._vault.renew(row.secret) != row.secret:
                    current = yield from store.locked_webhook(row.tenant, row.name)
                    if current is not None:
                        renewed = current._replace(secret=self._vault.renew(current.secret))
                        yield from store.save_webhook(renewed, new=False)

        await self._database.write(script())

    # -- what senders send -------------------------------------------------------------------------------------------

    def admit(self, name: str, headers: Mapping[str, str], declared: int) -> None:
        """Return where the body of a delivery may be worth its memory, by its head and how large it says to be.

        Raises `Unauthorized` where it will not be taken whatever it is, and of a known sender's what `receive` would.
        Who is refused must not learn it before the body has come: then he would know that there is such a webhook.
        """
        webhook = self._registry.webhooks.get(name)
        if webhook is None:
            raise Unauthorized("webhook_unauthorized", REFUSED)
        reason = why_refused_by_head(webhook.auth, headers, self._clock.now_ms() / 1000)
        if reason is not None:
            raise _not_by_its_sender(webhook, reason)
        if is_known_by_head(webhook.auth):
            with _told_of(webhook):
                _check_size(webhook, declared)

    @staticmethod
    def refusal() -> Callable[[bytes], object]:
        """Return what takes in the body of a delivery that `admit` refuses, in the time that it takes to check one."""
        return refusal()

    async def receive(self, name: str, headers: Mapping[str, str], body: bytes) -> Receipt:
        """Take a delivery in; returns after the commit of its event.

        `headers` have lower-case names, and texts as HTTP has them (ISO 8859-1). Raises `Unauthorized`, always with the
        same words; and of one that is the sender's `TooMany`, `TooLarge`, `UnsupportedMedia`, `Invalid`, and what
        publishing raises.
        """
        webhook = self._verified(name, headers, body)
        with _told_of(webhook):
            self._count(webhook)
            _check_size(webhook, len(body))
            read = read_body(headers, body, payload_is_json=isinstance(webhook.auth, GithubAuth | SlackAuth))
            challenge = challenge_of(webhook, read)
            if challenge is not None:
                return Receipt(None, challenge=challenge)
            return await self._event(webhook, make_event(webhook, headers, read))

    def _verified(self, name: str, headers: Mapping[str, str], body: bytes) -> Webhook:
        webhook = self._registry.webhooks.get(name)
        if webhook is None:
            refuse(body)
            raise Unauthorized("webhook_unauthorized", REFUSED)
        reason = why_refused(webhook.auth, headers, body, self._clock.now_ms() / 1000)
        if reason is not None:
            raise _not_by_its_sender(webhook, reason)
        return webhook

    def _count(self, webhook: Webhook) -> None:
        """Count a delivery against the webhook's rate, on this server. Raises `TooMany`."""
        if webhook.rate is None:
            return
        most, duration = webhook.rate
        rate = self._rates.get(webhook.name)
        if rate is None or rate.span != duration:
            known = self._registry.webhooks
            self._rates = {name: one for name, one in self._rates.items() if name in known}
            rate = self._rates[webhook.name] = Rate(webhook.name, span=duration)
        now = self._clock.now_ms()
        rate.used(now)  # what no longer counts is forgotten, also where there is room anyway
        if not rate.room(now, 1, most):
            opens_at = rate.opens_at(now, 1, most)
            wait = 1 if opens_at is None else max(1, math.ceil((opens_at - now) / 1000))
            said = f"more than {most} deliveries in {duration / 1000:g} s; come again in {wait} s"
            raise TooMany("webhook_rate", said, limit=most, retry_after=wait)
        rate.take(now, 1)

    async def _event(self, webhook: Webhook, made: Made) -> Receipt:
        metadata = json.dumps({"webhook": webhook.name})
        spec = EventSpec(made.key, made.payload, made.id, made.scope, metadata)
        try:
            accepted = await self._publish(spec)
        except Conflict as conflict:
            if conflict.code != "event_conflict" or made.id is None:
                raise
            return Receipt(made.id)  # senders send again, and some say the time of it in the body
        return Receipt(accepted.event.id, accepted.created)

    # -- inside ------------------------------------------------------------------------------------------------------

    def _saved(self, name: str, spec: WebhookSpec, auth: Auth | None) -> Script[bool | None]:
        """Store a webhook; return whether it is new, or None where nothing says how its sender proves himself."""
        now = yield from database_now()
        old = yield from store.locked_webhook(self._tenant, name)
        if auth is not None:
            settings, secrets = auth.settings(), self._vault.lock(auth.secrets)
        elif old is not None:
            settings, secrets = json.loads(old.config)["auth"], old.secret
        else:
            return None
        config = {
            "auth": settings,
            "key": spec.key,
            "scope": spec.scope,
            "id": spec.id,
            "max_bytes": spec.max_bytes,
            "rate": spec.rate,
        }
        created_at = now if old is None else old.created_at
        row = store.WebhookRow(self._tenant, name, json.dumps(config), secrets, created_at, now)
        yield from store.save_webhook(row, new=old is None)
        return old is None

    async def _change(self, script: Callable[[], Script[T]]) -> T:
        """Write, once more where another server has just written the same, and let all servers know."""
        try:
            done = await available(self._database.write(script()))
        except Clash:
            done = await available(self._database.write(script()))
        await available(self._announce())
        return done


def _check_size(webhook: Webhook, size: int) -> None:
    if webhook.max_bytes is not None and size > webhook.max_bytes:
        said = f"the body is larger than the {webhook.max_bytes} bytes that this webhook takes"
        raise TooLarge("body_too_large", said, limit=webhook.max_bytes)


def _not_by_its_sender(webhook: Webhook, reason: str) -> Unauthorized:
    """Tell the log why a delivery is not taken, and return what everyone is told."""
    log.info("a webhook's delivery is not by its sender", webhook=webhook.name, auth=webhook.auth.type, reason=reason)
    return Unauthorized("webhook_unauthorized", REFUSED)


@contextmanager
def _told_of(webhook: Webhook) -> Generator[None]:
    """Tell the log of what is refused of a sender's delivery."""
    try:
        yield
    except Problem as problem:
        log.warning("a webhook's delivery was refused", webhook=webhook.name, code=problem.code, reason=problem.detail)
        raise
