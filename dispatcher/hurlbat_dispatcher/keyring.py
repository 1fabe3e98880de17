"""The signing keys of a worker, as they are stored: which of them sign, until when, and what may be told of them.

They stand newest first, in one encrypted list. Replaced ones sign on until their overlap is over, at most
`MAX_REPLACED` of them. Of what has ended only the name is kept: so that a refusal can say which key the worker may
still have, and a worker that was left behind does not bring a replaced secret back by registering with it.
"""

from collections.abc import Iterable
from typing import Any, Final

from hurlbat.errors import SecretInvalid
from hurlbat.signing import algorithm_of, check_key, key_id, new_key_pair, new_secret, public_key, sign
from hurlbat_dispatcher.domain.workers import SigningKey
from hurlbat_dispatcher.errors import Conflict, Invalid

OVERLAP_SECONDS: Final = 86_400
"""How long a replaced secret still signs beside the new one, unless it is said otherwise: a day."""
MAX_OVERLAP_SECONDS: Final = 2_592_000
MAX_REPLACED: Final = 2
"""Replaced keys that may sign beside the newest."""
MAX_ENDED: Final = 4
"""Keys that sign no more, of which the names are kept."""

Stored = dict[str, Any]
"""A key as it is stored: `secret`, `made` (here, for a worker that cannot know it before somebody tells it), `until`,
`at`; times are ms. Of one that has ended: `secret` None, and `id`, `algorithm`, `public`. Older versions kept no `at`.
"""


def check_secret(secret: str) -> None:
    """Raise `Invalid` unless this can sign."""
    try:
        check_key(secret)
        sign([secret], "check", 0, b"")  # a public key is well made and signs nothing
    except SecretInvalid as error:
        raise Invalid("secret_invalid", str(error), field="secret") from error


def made_for(algorithm: str) -> str:
    """Return a new key to sign with."""
    return new_key_pair()[0] if algorithm == "v1a" else new_secret()


def new_key(secret: str, *, made: bool, now: int) -> Stored:
    """Return a key that signs from now on."""
    return {"secret": secret, "made": made, "until": None, "at": now}


def signing(keys: Iterable[Stored], now: int) -> list[Stored]:
    """Return those that sign now, newest first."""
    return [one for one in keys if one["secret"] is not None and (one["until"] is None or one["until"] > now)]


def registered(keys: list[Stored], secret: str, now: int) -> list[Stored]:
    """Return the keys after a worker was registered with a secret. Raises `Conflict` for one that was replaced.

    One that still signs changes nothing: the worker, or one instance of it, has not been given the newer one yet.
    """
    alive = signing(keys, now)
    if secret in [one["secret"] for one in alive]:
        return [one | {"made": False} if one["secret"] == secret else one for one in keys]
    name = key_id(secret)
    for one in map(told_of, keys):
        if one.id == name and one.until is not None and alive:
            raise Conflict(
                "secret_replaced",
                f"key {name} was replaced, and signs no more: give the worker the secret of key"
                f" {told_of(alive[0]).id}; rotate-secret brings an old one back",
                field="secret",
            )
    return rotated(keys, secret, made=False, now=now, overlap=OVERLAP_SECONDS * 1000)


def rotated(keys: list[Stored], secret: str, *, made: bool, now: int, overlap: int) -> list[Stored]:
    """Return the keys with a secret before all others, which end after the overlap (ms), or earlier if they would.

    Beyond `MAX_REPLACED` the oldest end at once. What is first already stays as it is.
    """
    alive = signing(keys, now)
    first = alive[0] if alive and alive[0]["secret"] == secret else None
    others = [one for one in alive if one["secret"] != secret]
    until = now + overlap
    replaced = [one | {"until": until if one["until"] is None else min(until, one["until"])} for one in others]
    alive = replaced[:MAX_REPLACED] if overlap else []
    gone = [one | {"until": min(now, one["until"])} for one in replaced[len(alive) :]]
    if first is None:
        first = new_key(secret, made=made and (not alive or alive[0]["made"]), now=now)
    name = key_id(secret)
    ended = [one for one in map(ended_key, gone + ended_of(keys, now)) if one["id"] != name]
    return [first, *alive, *ended[:MAX_ENDED]]


def ended_of(keys: Iterable[Stored], now: int) -> list[Stored]:
    """Return those that sign no more."""
    return [one for one in keys if one["secret"] is None or (one["until"] is not None and one["until"] <= now)]


def settled(keys: list[Stored], now: int) -> list[Stored]:
    """Return the keys without the secrets of those that sign no more."""
    return signing(keys, now) + [ended_key(one) for one in ended_of(keys, now)][:MAX_ENDED]


def ended_key(key: Stored) -> Stored:
    """Return what is kept of a key that has ended."""
    told = told_of(key)
    kept = {name: key.get(name) for name in ("made", "until", "at")}
    return kept | {"secret": None, "id": told.id, "algorithm": told.algorithm, "public": told.public_key}


def told_of(key: Stored) -> SigningKey:
    """Return what may be told of a key."""
    secret = key["secret"]
    if secret is None:
        return SigningKey(key["id"], key["algorithm"], key["public"], key["at"], key["until"])
    return SigningKey(key_id(secret), algorithm_of(secret), public_key(secret), key.get("at"), key["until"])


def waits_for_its_secret(keys: list[Stored]) -> bool:
    """Tell whether we made the secret, so that the worker cannot know it before somebody tells it."""
    return bool(keys and keys[0]["made"])
