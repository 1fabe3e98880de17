"""A request is taken for its sender's exactly when it is signed as the sender documents it."""

import base64
import hashlib
import hmac
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hurlbat.signing import new_key_pair, new_secret, sign
from hurlbat_dispatcher import Invalid
from hurlbat_dispatcher.incoming.auth import KINDS, Auth, read_auth, stored_auth
from hurlbat_dispatcher.incoming.verify import TOLERANCE_SECONDS, why_refused
from tests.support.senders import Sender, by_api_key, by_basic, by_github, by_hmac, by_slack, by_standard, by_stripe

NOW = 1_700_000_000.0
BODY = b'{"id": "evt_1", "amount": 100}'
UNICODE = "geheimer Schl\u00fcssel \u9375 \U0001f511"
GITHUB = read_auth({"type": "github", "secret": "It's a Secret to Everybody"})
SLACK = read_auth({"type": "slack", "secret": "8f742231b10e8888abcd99yyyzzz85a5"})
SLACK_BODY = (
    b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name=foobar"
    b"&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack"
    b".com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121"
    b".803a0bc887a14d10d2c447fce8b6703c"
)
SLACK_HEADERS = {
    "x-slack-signature": "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
    "x-slack-request-timestamp": "1531420618",
}


def hmac_auth(algorithm: str, encoding: str, prefix: str) -> dict[str, Any]:
    return {
        "type": "hmac",
        "header": "X-Signature",
        "algorithm": algorithm,
        "encoding": encoding,
        "prefix": prefix,
    }


SENDERS: dict[str, tuple[dict[str, Any], Sender]] = {
    "standard": ({"type": "standard"}, by_standard),
    "github": ({"type": "github"}, by_github),
    "stripe": ({"type": "stripe"}, by_stripe),
    "slack": ({"type": "slack"}, by_slack),
    "basic": ({"type": "basic", "username": "ada"}, by_basic),
    "api_key": ({"type": "api_key"}, by_api_key),
    "hmac, hex": (hmac_auth("sha256", "hex", ""), by_hmac("x-signature")),
    "hmac, base64": (hmac_auth("sha512", "base64", ""), by_hmac("x-signature", "sha512", "base64")),
    "hmac, old": (hmac_auth("sha1", "hex", "sha1="), by_hmac("x-signature", "sha1", "hex", "sha1=")),
}
TIMED = ("standard", "stripe", "slack")


def auth_of(sender: str, *secrets: str) -> Auth:
    spec = SENDERS[sender][0]
    return read_auth(spec | {f"{KINDS[spec['type']].secret_name}s": list(secrets)})


def secret_for(sender: str, text: str = UNICODE) -> str:
    return new_secret() if sender == "standard" else text


# -- what the senders have published -----------------------------------------------------------------------------------


def test_the_example_of_github_is_taken() -> None:
    headers = {"x-hub-signature-256": "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"}

    assert why_refused(GITHUB, headers, b"Hello, World!", NOW) is None
    assert why_refused(GITHUB, headers, b"Hello, World?", NOW) is not None


def test_the_example_of_slack_is_taken() -> None:
    assert why_refused(SLACK, SLACK_HEADERS, SLACK_BODY, 1531420618.0) is None
    assert why_refused(SLACK, SLACK_HEADERS, SLACK_BODY + b"&", 1531420618.0) is not None


def test_the_example_of_standard_webhooks_is_taken() -> None:
    auth = read_auth({"type": "standard", "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"})
    headers = {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }

    assert why_refused(auth, headers, b'{"test": 2432232314}', 1614265330.0) is None
    assert why_refused(auth, headers, b'{"test": 2432232315}', 1614265330.0) is not None


def test_a_header_of_stripe_with_several_signatures_needs_one_that_is_good() -> None:
    auth = read_auth({"type": "stripe", "secret": "whsec_test"})
    good = by_stripe("whsec_test", BODY, NOW)["stripe-signature"]
    at, _, v1 = good.split(",")

    def refused(header: str) -> bool:
        return why_refused(auth, {"stripe-signature": header}, BODY, NOW) is not None

    assert not refused(f"{at},v1=00,{v1}")
    assert not refused(f"{at}, {v1}")
    assert refused(f"{at},v0={v1[3:]}")
    assert refused(v1)
    assert refused(at)
    assert refused(f"t=,{v1}")
    assert refused(f"t={int(NOW) + 1},{v1}")


def test_a_signature_of_another_version_or_prefix_is_refused() -> None:
    digest = by_github("secret", BODY)["x-hub-signature-256"].removeprefix("sha256=")
    prefixes = {"sha256=": None, "sha512=": "", "sha-256": "", "SHA256=": "", "": ""}
    found = {
        prefix: why_refused(auth_of("github", "secret"), {"x-hub-signature-256": prefix + digest}, BODY, NOW)
        for prefix in prefixes
    }
    slack = by_slack("secret", BODY, NOW)
    other = slack | {"x-slack-signature": slack["x-slack-signature"].replace("v0=", "v1=")}

    assert {prefix: reason and "" for prefix, reason in found.items()} == prefixes
    assert why_refused(auth_of("slack", "secret"), other, BODY, NOW) is not None
    assert (
        why_refused(auth_of("github", "secret"), {"x-hub-signature-256": f"sha256={digest.upper()}"}, BODY, NOW) is None
    )


def test_standard_webhooks_by_ed25519_and_by_the_older_names_of_headers_are_taken() -> None:
    private, public = new_key_pair()
    auth = read_auth({"type": "standard", "secrets": [new_secret(), public]})
    headers = {
        "svix-id": "msg_1",
        "svix-timestamp": str(int(NOW)),
        "svix-signature": sign([private], "msg_1", int(NOW), BODY),
    }

    assert why_refused(auth, headers, BODY, NOW) is None
    assert why_refused(auth, headers, BODY + b" ", NOW) is not None


# -- all ways ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sender", SENDERS)
def test_what_the_sender_signed_is_taken_and_nothing_else(sender: str) -> None:
    secret, make = secret_for(sender), SENDERS[sender][1]
    auth = auth_of(sender, secret)
    headers = make(secret, BODY, NOW)

    assert why_refused(auth, headers, BODY, NOW) is None
    assert why_refused(auth, make(secret_for(sender, "another"), BODY, NOW), BODY, NOW) is not None
    for name, text in headers.items():
        assert why_refused(auth, {k: v for k, v in headers.items() if k != name}, BODY, NOW) is not None
        assert why_refused(auth, headers | {name: ""}, BODY, NOW) is not None
        assert why_refused(auth, headers | {name: text[:-1]}, BODY, NOW) is not None
        assert why_refused(auth, headers | {name: text + "a"}, BODY, NOW) is not None
    if sender not in ("basic", "api_key"):
        assert why_refused(auth, headers, BODY + b" ", NOW) is not None
        assert why_refused(auth, headers, b"", NOW) is not None


@pytest.mark.parametrize("sender", SENDERS)
def test_while_secrets_change_any_of_them_will_do(sender: str) -> None:
    old, new = secret_for(sender, "the old one"), secret_for(sender, "the new one")
    make = SENDERS[sender][1]

    both, one = auth_of(sender, new, old), auth_of(sender, new)

    assert [why_refused(both, make(secret, BODY, NOW), BODY, NOW) for secret in (old, new)] == [None, None]
    assert why_refused(one, make(old, BODY, NOW), BODY, NOW) is not None


@pytest.mark.parametrize("sender", TIMED)
def test_a_delivery_is_good_for_five_minutes_on_either_side(sender: str) -> None:
    secret, make = secret_for(sender), SENDERS[sender][1]
    auth, headers = auth_of(sender, secret), make(secret, BODY, NOW)

    assert TOLERANCE_SECONDS == 300
    for skew in (-300, 0, 300):
        assert why_refused(auth, headers, BODY, NOW + skew) is None
    for much in (-301, 301, 10**9):
        assert "300 s" in (why_refused(auth, headers, BODY, NOW + much) or "")


@pytest.mark.parametrize("sender", ["stripe", "slack"])
@pytest.mark.parametrize("timestamp", ["", "now", "-1700000000", "1.7e9", "1700000000.0", "\u0661", "1" * 13, "+1"])
def test_a_timestamp_that_is_no_number_is_refused_though_it_is_signed(sender: str, timestamp: str) -> None:
    auth = auth_of(sender, "secret")
    head = f"{timestamp}." if sender == "stripe" else f"v0:{timestamp}:"
    signature = hmac.new(b"secret", head.encode("latin-1", "replace") + BODY, hashlib.sha256).hexdigest()
    headers = {
        "stripe-signature": f"t={timestamp},v1={signature}",
        "x-slack-signature": f"v0={signature}",
        "x-slack-request-timestamp": timestamp,
    }

    assert why_refused(auth, headers, BODY, NOW) == "its timestamp is not a number of seconds since the epoch"


def test_the_name_of_who_comes_by_basic_authentication_counts_too() -> None:
    auth = read_auth({"type": "basic", "username": "ada", "password": "x:y"})

    def refused(text: str, scheme: str = "Basic") -> bool:
        header = f"{scheme} {base64.b64encode(text.encode()).decode()}"
        return why_refused(auth, {"authorization": header}, b"", NOW) is not None

    assert not refused("ada:x:y")
    assert not refused("ada:x:y", "bAsIc")
    assert [refused(text) for text in ("bob:x:y", "ada", "ada:", ":x:y", "", "ada:x:y ")] == [True] * 6
    assert refused("ada:x:y", "Bearer")


@given(
    sender=st.sampled_from(list(SENDERS)),
    headers=st.dictionaries(
        st.sampled_from(
            [
                *("webhook-id", "webhook-timestamp", "webhook-signature", "svix-id", "x-hub-signature-256"),
                *("stripe-signature", "x-slack-signature", "x-slack-request-timestamp", "x-signature"),
                *("authorization", "x-api-key"),
            ]
        ),
        st.one_of(
            st.text(st.characters(max_codepoint=255)),
            st.text(),
            st.sampled_from(
                [f"t={int(NOW)},v1=", "t=1,t=2,v1,=,,", "v0=", "v0", "sha256=", "sha1=", "Basic ", "Basic %", "v1,"]
            ),
            st.lists(st.sampled_from(["v1,", "v1", ",", " ", "v1a,", "=", "t=", str(int(NOW))])).map("".join),
            st.just(str(int(NOW))),
        ),
    ),
    body=st.binary(max_size=40),
)
@settings(max_examples=100, deadline=None)
def test_whatever_the_headers_hold_it_is_refused_and_nothing_is_raised(
    sender: str, headers: dict[str, str], body: bytes
) -> None:
    secret = "whsec_" + base64.b64encode(b"0" * 32).decode() if sender == "standard" else UNICODE

    reason = why_refused(auth_of(sender, secret), headers, body, NOW)

    assert reason is not None
    assert UNICODE not in reason


# -- how it is said ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "field", "said"),
    [
        (None, "auth", "must be a JSON object"),
        ([], "auth", "must be a JSON object"),
        ({}, "auth.type", "one of standard, github, stripe, slack, hmac, basic, api_key"),
        ({"type": "none"}, "auth.type", "one of"),
        ({"type": ["github"]}, "auth.type", "one of"),
        ({"type": "github"}, "auth.secret", "required"),
        ({"type": "github", "secret": ""}, "auth.secret", "at least 1"),
        ({"type": "github", "secret": None}, "auth.secret", "required"),
        ({"type": "github", "secret": 7}, "auth.secret", "string"),
        ({"type": "github", "secret": "x" * 513}, "auth.secret", "512"),
        ({"type": "github", "secret": "abc\n"}, "auth.secret", "line break"),
        ({"type": "github", "secret": "\ud800"}, "auth.secret", ""),
        ({"type": "github", "secrets": []}, "auth.secrets", "at least 1"),
        ({"type": "github", "secrets": ["a"] * 9}, "auth.secrets", "8"),
        ({"type": "github", "secrets": ["a", "\0"]}, "auth.secrets[1]", "control"),
        ({"type": "github", "secrets": "a"}, "auth.secrets", "a list"),
        ({"type": "github", "secret": "a", "secrets": ["b"]}, "auth.secrets", "not both"),
        ({"type": "github", "secret": "a", "header": "x"}, "auth.header", "not known"),
        ({"type": "standard", "secret": "short"}, "auth.secret", "whsec_"),
        ({"type": "standard", "secret": "whsec_AAAA"}, "auth.secret", "24 to 64"),
        ({"type": "hmac", "secret": "a"}, "auth.header", "required"),
        ({"type": "hmac", "secret": "a", "header": "no such:name"}, "auth.header", "name of a header"),
        ({"type": "hmac", "secret": "a", "header": "x", "algorithm": "md5"}, "auth.algorithm", "sha256"),
        ({"type": "hmac", "secret": "a", "header": "x", "encoding": "utf-8"}, "auth.encoding", "hex"),
        ({"type": "hmac", "secret": "a", "header": "x", "prefix": "\u00e9"}, "auth.prefix", "ASCII"),
        ({"type": "hmac", "secret": "a", "header": "x", "prefix": "x" * 65}, "auth.prefix", "64"),
        ({"type": "basic", "password": "a"}, "auth.username", "required"),
        ({"type": "basic", "username": "a:b", "password": "a"}, "auth.username", "colon"),
        ({"type": "basic", "username": "a", "secret": "a"}, "auth.secret", "not known"),
        ({"type": "api_key", "keys": ["a", ""]}, "auth.keys[1]", "at least 1"),
    ],
)
def test_what_cannot_be_is_told_with_its_member(given: Any, field: str, said: str) -> None:
    with pytest.raises(Invalid) as refused:
        read_auth(given)

    assert refused.value.extra["field"] == field
    assert said in refused.value.detail
    assert field.partition("[")[0] in refused.value.detail


@pytest.mark.parametrize("sender", SENDERS)
def test_a_way_is_stored_without_its_secrets_and_made_again_with_them(sender: str) -> None:
    auth = auth_of(sender, secret_for(sender), secret_for(sender, "another"))

    assert stored_auth(auth.settings(), list(auth.secrets)) == auth
    for secret in auth.secrets:
        assert secret not in repr(auth) + str(auth.settings())
