"""Standard Webhooks, against the published vector and the published package."""

import base64
import hashlib
import re
import sys
from datetime import UTC, datetime
from typing import Any

import pytest
import standardwebhooks
from hypothesis import given
from hypothesis import strategies as st

from hurlbat import signing
from hurlbat.errors import SecretInvalid, SignatureError, SignatureMissing, SignatureWrong, TimestampRefused

PUBLISHED: dict[str, Any] = {
    "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
    "timestamp": 1614265330,
    "body": b'{"test": 2432232314}',
    "signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
}
NOW = 1_700_000_000
BODY = b'{"type":"probe"}'
OLD, NEW = signing.new_secret(), signing.new_secret()


def headers(signature: str, *, id: str = "msg_1", timestamp: str = str(NOW)) -> dict[str, str]:
    return {"webhook-id": id, "webhook-timestamp": timestamp, "webhook-signature": signature}


def test_the_published_vector_is_reproduced() -> None:
    made = signing.sign([PUBLISHED["secret"]], PUBLISHED["id"], PUBLISHED["timestamp"], PUBLISHED["body"])
    assert made == PUBLISHED["signature"]


def test_our_signature_is_good_for_the_published_package() -> None:
    now = int(datetime.now(UTC).timestamp())
    given = headers(signing.sign([NEW], "msg_1", now, BODY), timestamp=str(now))
    assert standardwebhooks.Webhook(NEW).verify(BODY, given) == {"type": "probe"}


def test_the_published_package_s_signature_is_good_for_us() -> None:
    made = standardwebhooks.Webhook(NEW).sign("msg_1", datetime.fromtimestamp(NOW, UTC), BODY.decode())
    assert signing.verify([NEW], headers(made), BODY, NOW) == "msg_1"


@pytest.mark.parametrize("skew", [-300, -1, 0, 299, 300])
def test_a_timestamp_within_five_minutes_is_good(skew: int) -> None:
    assert signing.verify([NEW], headers(signing.sign([NEW], "msg_1", NOW, BODY)), BODY, NOW + skew) == "msg_1"


@pytest.mark.parametrize(("skew", "said"), [(301, "301 s behind"), (-301, "301 s ahead of"), (600, "600 s behind")])
def test_a_timestamp_beyond_five_minutes_is_refused_with_the_skew(skew: int, said: str) -> None:
    with pytest.raises(TimestampRefused, match=said) as refused:
        signing.verify([NEW], headers(signing.sign([NEW], "msg_1", NOW, BODY)), BODY, NOW + skew)
    assert refused.value.skew == skew


@pytest.mark.parametrize("timestamp", ["", "-1", "1.5", "1e9", " 1700000000", "1700000000\n", "0x1", "1" * 13, "١٧٠٠"])
def test_a_timestamp_that_is_no_number_is_refused(timestamp: str) -> None:
    with pytest.raises((TimestampRefused, SignatureMissing)):
        signing.verify([NEW], headers("v1,x", timestamp=timestamp), BODY, NOW)


@pytest.mark.parametrize("absent", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_a_missing_header_is_named(absent: str) -> None:
    given = headers(signing.sign([NEW], "msg_1", NOW, BODY))
    del given[absent]
    with pytest.raises(SignatureMissing, match=absent):
        signing.verify([NEW], given, BODY, NOW)


def test_a_body_changed_by_one_byte_is_refused_with_a_hint() -> None:
    given = headers(signing.sign([NEW], "msg_1", NOW, BODY))
    with pytest.raises(SignatureWrong, match="re-serialises"):
        signing.verify([NEW], given, BODY.replace(b":", b": "), NOW)


def test_another_id_than_the_signed_one_is_refused() -> None:
    with pytest.raises(SignatureWrong):
        signing.verify([NEW], headers(signing.sign([NEW], "msg_1", NOW, BODY), id="msg_2"), BODY, NOW)


def test_an_id_with_a_dot_is_refused_at_both_ends() -> None:
    with pytest.raises(ValueError, match="dot"):
        signing.sign([NEW], "msg.1", NOW, BODY)
    with pytest.raises(SignatureMissing, match="dot"):
        signing.verify([NEW], headers("v1,x", id="msg.1"), BODY, NOW)


def test_both_secrets_sign_during_a_rotation_and_either_side_may_be_first() -> None:
    both = signing.sign([NEW, OLD], "msg_1", NOW, BODY)
    assert re.fullmatch(r"v1,\S{44} v1,\S{44}", both)
    assert signing.verify([OLD], headers(both), BODY, NOW)
    assert signing.verify([NEW], headers(both), BODY, NOW)
    assert signing.verify([NEW, OLD], headers(signing.sign([OLD], "msg_1", NOW, BODY)), BODY, NOW)


def test_after_the_rotation_the_old_secret_fails() -> None:
    with pytest.raises(SignatureWrong):
        signing.verify([NEW], headers(signing.sign([OLD], "msg_1", NOW, BODY)), BODY, NOW)


HOSTILE = [
    "v1",
    "v1,",
    ",",
    " ",
    "v1,a,b",
    "v1,not base64!",
    "v1a,AAAA",
    "v2,AAAA",
    "v1,ÿþ",
    "\x00",
    "v1,=" * 50,
    "v9,x v8,y",
]


@pytest.mark.parametrize("junk", HOSTILE)
def test_a_good_signature_counts_beside_junk_and_junk_alone_is_refused(junk: str) -> None:
    good = signing.sign([NEW], "msg_1", NOW, BODY)
    assert signing.verify([NEW], headers(f"{junk} {good}"), BODY, NOW) == "msg_1"
    assert signing.verify([NEW], headers(f"{good} {junk}"), BODY, NOW) == "msg_1"
    with pytest.raises(SignatureError):
        signing.verify([NEW], headers(junk), BODY, NOW)


TEXT = st.text(max_size=60) | st.text(alphabet="v1a, =+/09.AZ\x00\xff\ud800", max_size=60)


@given(id=TEXT, timestamp=TEXT | st.just(str(NOW)), signature=TEXT)
def test_no_header_whatever_raises_anything_but_a_refusal(id: str, timestamp: str, signature: str) -> None:
    _, public = signing.new_key_pair()
    with pytest.raises(SignatureError):
        signing.verify([NEW, public], headers(signature, id=id, timestamp=timestamp), BODY, NOW)


def test_without_cryptography_an_ed25519_signature_is_one_that_does_not_match(monkeypatch: pytest.MonkeyPatch) -> None:
    private, public = signing.new_key_pair()
    both = signing.sign([NEW, private], "msg_1", NOW, BODY)
    for name in [name for name in sys.modules if name.partition(".")[0] == "cryptography"] + ["cryptography"]:
        monkeypatch.setitem(sys.modules, name, None)
    assert signing.verify([public, NEW], headers(both), BODY, NOW) == "msg_1"
    with pytest.raises(SignatureWrong):
        signing.verify([public], headers(both), BODY, NOW)


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_a_signature_is_good_for_its_own_body_alone(body: bytes, other: bytes) -> None:
    given = headers(signing.sign([NEW], "msg_1", NOW, body))
    assert signing.verify([NEW], given, body, NOW)
    if other != body:
        with pytest.raises(SignatureWrong):
            signing.verify([NEW], given, other, NOW)


def secret_of(length: int) -> str:
    return "whsec_" + base64.b64encode(b"x" * length).decode()


@pytest.mark.parametrize("length", [24, 32, 64])
def test_a_secret_of_24_to_64_bytes_is_good(length: int) -> None:
    signing.check_key(secret_of(length))


@pytest.mark.parametrize(
    "key", ["", "secret", "whsec_", secret_of(23), secret_of(65), "whsec_!!!!", "wh_" + "A" * 32, "whsec_" + "é" * 32]
)
def test_a_secret_that_is_none_is_refused_and_not_repeated(key: str) -> None:
    with pytest.raises(SecretInvalid) as refused:
        signing.check_key(key)
    assert refused.value.code == "secret_invalid"
    assert len(key) < 8 or key[6:] not in str(refused.value)


def test_new_secrets_are_good_and_differ() -> None:
    made = {signing.new_secret() for _ in range(20)}
    assert len(made) == 20
    for secret in made:
        signing.check_key(secret)


def test_an_ed25519_pair_signs_v1a_and_only_its_own_public_key_verifies() -> None:
    private, public = signing.new_key_pair()
    made = signing.sign([private], "msg_1", NOW, BODY)
    assert made.startswith("v1a,")
    assert signing.verify([public], headers(made), BODY, NOW) == "msg_1"
    assert signing.verify([private], headers(made), BODY, NOW) == "msg_1"
    with pytest.raises(SignatureWrong):
        signing.verify([signing.new_key_pair()[1]], headers(made), BODY, NOW)
    with pytest.raises(SignatureWrong):
        signing.verify([public], headers(made.replace("v1a,", "v1,")), BODY, NOW)


def test_a_good_signature_under_another_version_does_not_count() -> None:
    made = signing.sign([NEW], "msg_1", NOW, BODY)
    with pytest.raises(SignatureWrong):
        signing.verify([NEW], headers(made.replace("v1,", "v2,")), BODY, NOW)


def test_a_public_key_cannot_sign() -> None:
    with pytest.raises(SecretInvalid, match="only verify"):
        signing.sign([signing.new_key_pair()[1]], "msg_1", NOW, BODY)


def test_keys_of_both_kinds_sign_one_message() -> None:
    private, public = signing.new_key_pair()
    made = signing.sign([NEW, private], "msg_1", NOW, BODY)
    assert signing.verify([NEW], headers(made), BODY, NOW)
    assert signing.verify([public], headers(made), BODY, NOW)


def test_both_ends_of_a_pair_have_one_id_and_every_secret_its_own() -> None:
    private, public = signing.new_key_pair()
    short = "whsk_" + base64.b64encode(base64.b64decode(private[5:])[:32]).decode()
    assert signing.key_id(private) == signing.key_id(public) == signing.key_id(short)
    assert len({signing.key_id(one) for one in (private, NEW, OLD, signing.new_secret())}) == 4


def test_the_id_of_a_key_is_the_beginning_of_a_digest_that_anybody_can_make() -> None:
    raw = base64.b64decode(NEW[6:])
    assert signing.key_id(NEW) == hashlib.sha256(b"hurlbat key id:" + raw).hexdigest()[:8]
    _, public = signing.new_key_pair()
    raw = base64.b64decode(public[5:])
    assert signing.key_id(public) == hashlib.sha256(b"hurlbat key id:" + raw).hexdigest()[:8]


def test_only_ed25519_has_a_public_key() -> None:
    private, public = signing.new_key_pair()
    assert (signing.public_key(private), signing.public_key(public), signing.public_key(NEW)) == (public, public, None)
    assert [signing.algorithm_of(one) for one in (private, public, NEW)] == ["v1a", "v1a", "v1"]
