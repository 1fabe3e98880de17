"""Make the event of a webhook that was verified: its key, scope and id, by the webhook's expressions."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from hurlbat_dispatcher.domain.events import MAX_TEXT, is_plain
from hurlbat_dispatcher.errors import Invalid
from hurlbat_dispatcher.expressions import KEY, MAX_SOURCE, ExpressionError, compile_expression
from hurlbat_dispatcher.incoming.auth import ApiKeyAuth, Auth, GithubAuth, SlackAuth, StandardAuth, StripeAuth
from hurlbat_dispatcher.incoming.body import Body

VARIABLES: Final = ("input", "headers", "webhook")
"""What an expression of a webhook may read."""
MAX_EVENT_ID: Final = 256
"""Characters of an event's id."""
BETWEEN: Final = "~"
"""Between a webhook's name, which cannot contain it, and what its sender calls an event."""

_SECRET_HEADERS: Final = frozenset({"authorization", "proxy-authorization", "cookie"})


@dataclass(frozen=True, slots=True)
class Webhook:
    """A webhook as it is registered: at most `rate[0]` deliveries in any `rate[1]` ms. Times are ms since the epoch."""

    name: str
    auth: Auth
    key: str | None = None
    """The expressions of the event's key, scope and id; None: as the sender has it."""
    scope: str | None = None
    id: str | None = None
    max_bytes: int | None = None
    rate: tuple[int, int] | None = None
    created_at: int = 0
    updated_at: int = 0


class Made(NamedTuple):
    """The event that comes of a webhook. `id` is None where each delivery is an event of its own."""

    key: str
    scope: str | None
    id: str | None
    payload: str


def check_expressions(expressions: Mapping[str, str | None]) -> None:
    """Raise `Invalid` for the first of the expressions, by member, that could never do."""
    for member, source in expressions.items():
        if source is None:
            continue
        try:
            expression = compile_expression(source, VARIABLES)
            if expression.result not in KEY.types:
                raise ExpressionError(f"it gives a {expression.result}, and {KEY.wanted} is wanted", code=KEY.code)
            if not expression.reads:
                _check_constant(member, KEY.read(expression.evaluate({})))
        except ExpressionError as error:
            place = "" if error.position is None else f", at character {error.position}"
            said = f"{member}: the expression {source[:MAX_SOURCE]!r} is wrong{place}: {error.sentence}"
            raise Invalid(error.code, said, field=member) from None


def make_event(webhook: Webhook, headers: Mapping[str, str], body: Body) -> Made:
    """Return the event of a delivery. Raises `Invalid` where an expression fails or gives no text."""
    scope = _scope(webhook, headers, body.value)
    key = f"webhook.{webhook.name}" if webhook.key is None else _text(webhook.key, "key", scope)
    if key is None:
        raise _failed("key", webhook.key, "it gave null, and an event needs a key")
    within = None if webhook.scope is None else _text(webhook.scope, "scope", scope)
    given = _own_id(webhook.auth, headers, body.value) if webhook.id is None else _text(webhook.id, "id", scope)
    return Made(key, within, None if given is None else event_id(webhook.name, given), body.text)


def event_id(webhook: str, given: str) -> str:
    """Return the id of an event that a webhook's sender calls so: no other sender's can be the same.

    What is too long for one, or cannot be printed, is told by its digest.
    """
    made = f"{webhook}{BETWEEN}{given}"
    if len(made) <= MAX_EVENT_ID and given.isprintable():
        return made
    return f"{webhook}{BETWEEN}sha256:{hashlib.sha256(given.encode()).hexdigest()}"


def challenge_of(webhook: Webhook, body: Body) -> str | None:
    """Return what Slack wants to hear when it asks whether the address is ours, None of all else."""
    if isinstance(webhook.auth, SlackAuth) and isinstance(body.value, dict):
        challenge = body.value.get("challenge")
        if body.value.get("type") == "url_verification" and isinstance(challenge, str):
            return challenge
    return None


def _check_constant(member: str, text: str | None) -> None:
    """Raise `ExpressionError` for what, whatever is delivered, would make no event of it."""
    if text == "" or (text is None and member == "key"):
        raise ExpressionError(f"it always gives {'null' if text is None else 'an empty text'}", code=KEY.code)
    if text is not None and member != "id" and not is_plain(text):
        rule = f"a {member} has at most {MAX_TEXT} characters, no control characters among them"
        raise ExpressionError(f"it always gives what cannot be: {rule}", code=KEY.code)


def _scope(webhook: Webhook, headers: Mapping[str, str], value: Any) -> dict[str, Any]:
    """Return the variables; headers that carry secrets are none of them."""
    hidden = _SECRET_HEADERS | {webhook.auth.header} if isinstance(webhook.auth, ApiKeyAuth) else _SECRET_HEADERS
    shown = {name: text for name, text in headers.items() if name not in hidden}
    return {"input": value, "headers": shown, "webhook": {"name": webhook.name}}


def _text(source: str, member: str, scope: Mapping[str, Any]) -> str | None:
    try:
        text: str | None = KEY.read(compile_expression(source, VARIABLES).evaluate(scope))
    except ExpressionError as error:
        raise _failed(member, source, error.sentence, error.code) from None
    if text == "":
        raise _failed(member, source, "it gave an empty text")
    return text


def _failed(member: str, source: str | None, sentence: str, code: str = "expression_failed") -> Invalid:
    code = "expression_failed" if code == "expression_invalid" else code
    return Invalid(code, f"the webhook's {member}: {sentence}", field=member, expression=source)


def _own_id(auth: Auth, headers: Mapping[str, str], value: Any) -> str | None:
    """Return what the sender itself calls the event, where its form has a place for that."""
    match auth:
        case StandardAuth():
            return headers.get("webhook-id") or headers.get("svix-id")
        case GithubAuth():
            return headers.get("x-github-delivery") or None
        case StripeAuth():
            return _member(value, "id")
        case SlackAuth():
            return _member(value, "event_id")
        case _:
            return None


def _member(value: Any, name: str) -> str | None:
    found = value.get(name) if isinstance(value, dict) else None
    return found if isinstance(found, str) and found else None
