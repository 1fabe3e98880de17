"""Keys and tokens."""

import os
import re
import stat
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from hurlbat_dispatcher.secrecy import LeaseTokens, Vault, WrongKey, digest_of, key_beside, new_token

RUN = "0199a3c0-0000-7000-8000-000000000001"


def key() -> str:
    return Fernet.generate_key().decode()


def test_what_is_locked_is_unlocked_and_cannot_be_read_between() -> None:
    vault = Vault([key()])
    locked = vault.lock({"secret": "whsec_abc", "n": [1, None]})
    assert "whsec" not in locked
    assert vault.unlock(locked) == {"secret": "whsec_abc", "n": [1, None]}
    assert vault.lock("x") != vault.lock("x")


def test_the_newest_key_locks_and_every_key_unlocks() -> None:
    old, new = key(), key()
    locked = Vault([old]).lock("x")
    rotated = Vault([new, old])
    assert rotated.unlock(locked) == "x"
    assert Vault([new]).unlock(rotated.lock("y")) == "y"


def test_a_key_that_was_not_given_is_said_in_a_sentence() -> None:
    locked = Vault([key()]).lock("x")
    with pytest.raises(WrongKey, match="add the old key behind the new one"):
        Vault([key()]).unlock(locked)
    with pytest.raises(WrongKey):
        Vault([key()]).unlock("not even a token")


def test_a_key_beside_a_file_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    path = str(tmp_path / "hurlbat.db")
    old = os.umask(0)
    try:
        made = key_beside(path)
    finally:
        os.umask(old)
    assert key_beside(path) == made
    assert stat.S_IMODE(os.stat(f"{path}.key").st_mode) == 0o600
    assert Vault([made]).unlock(Vault([made]).lock(1)) == 1


def test_a_lease_token_is_good_for_its_attempt_alone() -> None:
    tokens = LeaseTokens(b"k" * 32)
    token = tokens.of(RUN, 1)
    assert tokens.proves(token, RUN, 1)
    assert not tokens.proves(token, RUN, 2)
    assert not tokens.proves(token, RUN[:-1] + "2", 1)
    assert not LeaseTokens(b"j" * 32).proves(token, RUN, 1)
    for bad in ("", token[:-1], token + "=", token.upper() + "A", "é" * 43, "\ud800"):
        assert not tokens.proves(bad, RUN, 1)


def test_a_lease_token_is_urlsafe_and_does_not_tell_its_run() -> None:
    token = LeaseTokens(b"k" * 32).of(RUN, 1)
    assert len(token) >= 43
    assert re.fullmatch(r"[A-Za-z0-9_-]+", token)
    assert RUN.replace("-", "") not in token


def test_lease_tokens_outlive_a_restart_with_the_same_key() -> None:
    one = key()
    assert LeaseTokens(Vault([one]).lease_key).of(RUN, 1) == LeaseTokens(Vault([one]).lease_key).of(RUN, 1)
    assert Vault([one]).lease_key != Vault([key()]).lease_key


def test_a_token_is_not_stored_but_its_digest() -> None:
    token = new_token()
    assert token.startswith("hb_")
    assert token != new_token()
    assert (len(digest_of(token)), token in digest_of(token)) == (64, False)
