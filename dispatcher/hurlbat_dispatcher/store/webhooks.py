"""Webhooks that were put: how their senders prove themselves, and which events come of them."""

from collections.abc import Generator
from typing import NamedTuple

import sqlalchemy as sa

from hurlbat_dispatcher.store.schema import webhook
from hurlbat_dispatcher.store.statement import Ask, Rows, Statement, bind


class WebhookRow(NamedTuple):
    """A webhook as it is stored. `config` is JSON, `secret` is encrypted; times are ms."""

    tenant: int
    name: str
    config: str
    secret: str
    created_at: int
    updated_at: int


WEBHOOKS = Statement(
    sa.select(*(webhook.c[name] for name in WebhookRow._fields)).order_by(webhook.c.tenant, webhook.c.name)
)
_THIS = (webhook.c.tenant == bind("b_tenant", sa.Integer()), webhook.c.name == bind("b_name", webhook.c.name.type))
LOCKED_WEBHOOK = Statement(
    sa.select(*(webhook.c[name] for name in WebhookRow._fields)).where(*_THIS).with_for_update(), ("b_tenant", "b_name")
)
INSERT_WEBHOOK = Statement(
    sa.insert(webhook).values({name: bind(name, webhook.c[name].type) for name in WebhookRow._fields}),
    WebhookRow._fields,
)
_CHANGED = ("config", "secret", "updated_at")
UPDATE_WEBHOOK = Statement(
    sa.update(webhook).where(*_THIS).values({name: bind(name, webhook.c[name].type) for name in _CHANGED}),
    (*_CHANGED, "b_tenant", "b_name"),
)
DELETE_WEBHOOK = Statement(sa.delete(webhook).where(*_THIS), ("b_tenant", "b_name"))


def all_webhooks() -> Generator[Ask, Rows, list[WebhookRow]]:
    """Read every webhook."""
    rows = yield WEBHOOKS.fetch()
    return list(map(WebhookRow._make, rows))


def locked_webhook(tenant: int, name: str) -> Generator[Ask, Rows, WebhookRow | None]:
    """Read one webhook and lock its row, to change it."""
    rows = yield LOCKED_WEBHOOK.fetch(tenant, name)
    return WebhookRow._make(rows[0]) if rows else None


def save_webhook(row: WebhookRow, *, new: bool) -> Generator[Ask, Rows, None]:
    """Store a webhook."""
    if new:
        yield INSERT_WEBHOOK.write([row])
    else:
        yield UPDATE_WEBHOOK.write([(row.config, row.secret, row.updated_at, row.tenant, row.name)])


def delete_webhook(tenant: int, name: str) -> Generator[Ask, Rows, None]:
    """Forget a webhook; the events that came of it stay."""
    yield DELETE_WEBHOOK.write([(tenant, name)])
