"""The environment is read in one place, arguments go first, and secrets stay out of sight."""

import sys

import pytest

from hurlbat import ConfigError, Hurlbat
from hurlbat.errors import SecretInvalid
from hurlbat.settings import DEFAULT_URL, Settings, read_settings
from hurlbat.signing import new_key_pair, new_secret

ONE, TWO, THREE = new_secret(), new_secret(), new_secret()


def test_everything_is_read_from_the_environment() -> None:
    environ = {
        "HURLBAT_URL": "https://queue.example",
        "HURLBAT_TOKEN": "token",
        "HURLBAT_SIGNING_SECRET": ONE,
        "HURLBAT_WORKER": "thumbs",
        "HURLBAT_PUBLIC_URL": "https://app.example/hurlbat/",
        "HURLBAT_SLOTS": "7",
        "HURLBAT_THREADS": "3",
        "HURLBAT_GRACE": "1.5",
    }
    assert read_settings({}, environ) == Settings(
        url="https://queue.example",
        token="token",
        keys=(ONE,),
        worker="thumbs",
        public_url="https://app.example/hurlbat/",
        slots=7,
        threads=3,
        grace=1.5,
    )


def test_nothing_set_gives_the_defaults() -> None:
    assert read_settings({}, {"HURLBAT_URL": " "}) == Settings(url=DEFAULT_URL)


def test_an_argument_goes_before_its_variable() -> None:
    assert read_settings({"worker": "mine", "url": None}, {"HURLBAT_WORKER": "theirs"}).worker == "mine"


def test_the_server_s_own_token_serves_where_no_other_is_set() -> None:
    assert read_settings({}, {"HURLBAT_API_TOKEN": "api"}).token == "api"
    assert read_settings({}, {"HURLBAT_API_TOKEN": "api", "HURLBAT_TOKEN": "mine"}).token == "mine"


@pytest.mark.parametrize("text", [f"{ONE},{TWO}", f"{ONE} {TWO}", f" {ONE} ,\n{TWO}, "])
def test_several_secrets_stand_in_a_list_while_one_rotates(text: str) -> None:
    assert read_settings({}, {"HURLBAT_SIGNING_SECRET": text}).keys == (ONE, TWO)


def test_both_variables_of_secrets_are_read_and_the_newest_stand_first() -> None:
    environ = {"HURLBAT_SIGNING_SECRET": f"{ONE},{TWO}", "HURLBAT_SIGNING_SECRETS": f"{THREE}, {TWO}"}
    assert read_settings({}, environ).keys == (THREE, TWO, ONE)
    assert read_settings({}, {"HURLBAT_SIGNING_SECRETS": f"{TWO} {ONE}"}).keys == (TWO, ONE)
    assert read_settings({"signing_secret": [ONE, ONE]}, environ).keys == (ONE,)
    assert read_settings({"signing_secret": []}, environ).keys == ()


def test_a_mistake_in_either_variable_of_secrets_is_told_by_its_name() -> None:
    environ = {"HURLBAT_SIGNING_SECRET": ONE, "HURLBAT_SIGNING_SECRETS": f"{TWO},whsec_short"}
    with pytest.raises(SecretInvalid, match=r"^HURLBAT_SIGNING_SECRETS \(2 of 2\): "):
        read_settings({}, environ)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("HURLBAT_URL", "queue.example"),
        ("HURLBAT_PUBLIC_URL", "ftp://app.example"),
        ("HURLBAT_WORKER", "two words"),
        ("HURLBAT_SLOTS", "many"),
        ("HURLBAT_SLOTS", "0"),
        ("HURLBAT_THREADS", "nan"),
        ("HURLBAT_GRACE", "-1"),
        ("HURLBAT_SIGNING_SECRET", "hunter2"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_by_its_name(variable: str, value: str) -> None:
    with pytest.raises(ConfigError, match=variable):
        read_settings({}, {variable: value})


def test_a_bad_secret_is_not_repeated_in_the_error() -> None:
    with pytest.raises(SecretInvalid, match=r"HURLBAT_SIGNING_SECRET \(2 of 2\)") as refused:
        read_settings({}, {"HURLBAT_SIGNING_SECRET": f"{ONE},whsec_hunter2hunter2"})
    assert "hunter2" not in str(refused.value)


def test_a_key_that_cannot_be_used_here_is_refused_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    _, public = new_key_pair()
    assert read_settings({"signing_secret": public}, {}).keys == (public,)
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(ConfigError, match="pip install cryptography") as raised:
        read_settings({"signing_secret": [ONE, public]}, {})
    assert public not in str(raised.value)
    assert read_settings({"signing_secret": ONE}, {}).keys == (ONE,)


def test_no_repr_shows_a_secret_or_a_token() -> None:
    hurlbat = Hurlbat(token="token-of-mine", signing_secret=ONE)
    shown = repr(hurlbat) + repr(hurlbat.settings) + repr(hurlbat.client) + repr(hurlbat.asgi()) + repr(hurlbat.task)
    assert "token-of-mine" not in shown
    assert ONE not in shown


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://app.example/hurlbat", "app.example"),
        ("http://127.0.0.1:8000/", "127.0.0.1:8000"),
        ("http://[::1]:8/", "-::1-:8"),
    ],
)
def test_a_worker_without_a_name_is_called_by_its_host(url: str, name: str) -> None:
    assert Settings(public_url=url).worker_name == name
