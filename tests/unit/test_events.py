"""Which keys a pattern stands for, and who listens, held against a slow and obvious reading of the same rule."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hurlbat_dispatcher.domain.events import EventFilter, Listeners, Pattern, is_plain

KEYS = st.text("ab*:.[?", max_size=9)
TEXTS = st.text("ab:.[?", max_size=9)


def stands_for(pattern: str, key: str) -> bool:
    """Tell by trying every place for every `*`."""
    if not pattern:
        return not key
    if pattern[0] == "*":
        return any(stands_for(pattern[1:], key[at:]) for at in range(len(key) + 1))
    return key[:1] == pattern[0] and stands_for(pattern[1:], key[1:])


@given(KEYS.filter(lambda text: "*" in text), TEXTS)
def test_a_pattern_stands_for_the_keys_that_trying_every_place_finds(pattern: str, key: str) -> None:
    assert Pattern.of(pattern).matches(key) == stands_for(pattern, key)


@given(st.lists(TEXTS, min_size=2, max_size=5), st.lists(TEXTS, max_size=3))
def test_a_pattern_stands_for_every_key_that_is_made_of_it(parts: list[str], between: list[str]) -> None:
    key = parts[0] + "".join((between[at] if at < len(between) else "") + part for at, part in enumerate(parts[1:]))
    assert Pattern.of("*".join(parts)).matches(key)


@given(st.dictionaries(st.sampled_from("vwxyz"), st.lists(KEYS, max_size=3), max_size=5), TEXTS)
def test_those_listen_of_whom_a_key_or_pattern_stands_for_the_event(listening: dict[str, list[str]], key: str) -> None:
    wanted = sorted(name for name, texts in listening.items() if any(stands_for(text, key) for text in texts))
    assert Listeners(listening.items()).of(key) == wanted


@pytest.mark.parametrize(
    ("pattern", "key", "matches"),
    [
        ("subscription:*", "subscription:1", True),
        ("subscription:*", "subscription:", True),
        ("subscription:*", "foobar", False),
        ("subscription:*", "my-subscription:1", False),
        ("*", "anything at all", True),
        ("a.c*", "abc", False),
        ("[ab]*", "a", False),
        ("a?*", "ab", False),
        ("*.created", "user.created", True),
        ("*.created", "user.created.again", False),
        ("ab*ba", "aba", False),
        ("ab*ba", "abba", True),
        ("user.*.order.*", "user.7.order.9", True),
        ("Größe*", "Größe:größer", True),
        ("Größe*", "größe", False),
    ],
)
def test_only_the_star_is_special(pattern: str, key: str, matches: bool) -> None:
    assert Pattern.of(pattern).matches(key) is matches


def test_a_pattern_made_to_be_slow_is_quick() -> None:
    pattern, key = Pattern.of("*a" * 127 + "*b"), "a" * 256

    assert not any(pattern.matches(key) for _ in range(100))  # what goes back to try again would never end


def test_one_who_listens_twice_to_the_same_is_named_once() -> None:
    assert Listeners([("b", ["x", "x*", "*"]), ("a", ["x"])]).of("x") == ["a", "b"]


@pytest.mark.parametrize(
    ("own", "scope", "sees"),
    [(None, None, True), (None, "s", True), ("s", "s", True), ("s", "S", False), ("s", None, False), ("*", "s", False)],
)
def test_a_filter_with_a_scope_sees_only_events_of_that_very_scope(
    own: str | None, scope: str | None, sees: bool
) -> None:
    assert EventFilter("1", "true", own).sees(scope) is sees


def test_a_key_a_scope_and_an_id_are_plain_texts() -> None:
    bad = ["", "x" * 257, "a\nb", "a\x00", "\x7f", "a\x80", "a\x85b", "\x9f", "\ud800", "\x1f"]
    assert [text for text in bad if is_plain(text)] == []
    good = ["x" * 256, "é / 漢 𝄞", " ", "\u00a0", "*"]
    assert [text for text in good if not is_plain(text)] == []
