"""The table of answers: every row, for both kinds of workers."""

import itertools

import pytest

from hurlbat_dispatcher.domain.answers import SIGNALS, Head, Meaning, Signal, Words, answer_of, meaning_of
from hurlbat_dispatcher.domain.outcome import ErrorCode, Failed, Held, PushedBack
from hurlbat_dispatcher.domain.retry_after import RetryAfter
from hurlbat_dispatcher.domain.workers import Mode

_URL = "https://x.example/hurlbat"
_ASKED = RetryAfter("7", 7.0)

_EXPECTED: list[tuple[Mode, Head, Meaning]] = [
    # success
    (Mode.PROTOCOL, Head(200, marked=True), Meaning.RESULTS),
    (Mode.PROTOCOL, Head(200), Meaning.NOT_A_WORKER),
    (Mode.PROTOCOL, Head(299, marked=True), Meaning.RESULTS),
    (Mode.PROTOCOL, Head(202, marked=True), Meaning.ACCEPTED),
    (Mode.PROTOCOL, Head(202, will_report=True), Meaning.NOT_A_WORKER),
    (Mode.PLAIN, Head(200), Meaning.RESULTS),
    (Mode.PLAIN, Head(204), Meaning.RESULTS),
    (Mode.PLAIN, Head(202), Meaning.RESULTS),
    (Mode.PLAIN, Head(202, will_report=True), Meaning.ACCEPTED),
    (Mode.PLAIN, Head(200, will_report=True), Meaning.RESULTS),
    # redirects
    (Mode.PROTOCOL, Head(307, marked=True), Meaning.REDIRECT),
    (Mode.PLAIN, Head(301), Meaning.REDIRECT),
    (Mode.PLAIN, Head(304), Meaning.REDIRECT),
    # held
    (Mode.PROTOCOL, Head(401), Meaning.UNAUTHORIZED),
    (Mode.PLAIN, Head(403, no_retry=True), Meaning.UNAUTHORIZED),
    (Mode.PLAIN, Head(410), Meaning.GONE),
    (Mode.PROTOCOL, Head(410, marked=True), Meaning.GONE),
    # backpressure
    (Mode.PROTOCOL, Head(503, marked=True), Meaning.BUSY),
    (Mode.PROTOCOL, Head(429, marked=True, retry_after=_ASKED), Meaning.BUSY),
    (Mode.PROTOCOL, Head(503, retry_after=_ASKED), Meaning.OVERLOADED),
    (Mode.PROTOCOL, Head(429), Meaning.OVERLOADED),
    (Mode.PLAIN, Head(503, retry_after=_ASKED), Meaning.BUSY),
    (Mode.PLAIN, Head(429, retry_after=RetryAfter("soon", None)), Meaning.BUSY),
    (Mode.PLAIN, Head(429), Meaning.OVERLOADED),
    (Mode.PLAIN, Head(503, marked=True), Meaning.OVERLOADED),
    (Mode.PROTOCOL, Head(503, marked=True, no_retry=True), Meaning.FAILURE),
    # someone on the way gave up
    (Mode.PROTOCOL, Head(502, marked=True), Meaning.OVERLOADED),
    (Mode.PLAIN, Head(504, retry_after=_ASKED), Meaning.OVERLOADED),
    # failures
    (Mode.PROTOCOL, Head(400, marked=True), Meaning.FAILURE),
    (Mode.PROTOCOL, Head(404), Meaning.FAILURE),
    (Mode.PLAIN, Head(422), Meaning.FAILURE),
    (Mode.PLAIN, Head(500), Meaning.FAILURE),
    (Mode.PLAIN, Head(500, no_retry=True), Meaning.FAILURE),
    (Mode.PLAIN, Head(599), Meaning.FAILURE),
]


@pytest.mark.parametrize(("mode", "head", "meaning"), _EXPECTED)
def test_a_head_has_its_meaning(mode: Mode, head: Head, meaning: Meaning) -> None:
    assert meaning_of(head, mode) is meaning


def test_every_head_has_a_meaning_and_every_meaning_an_answer() -> None:
    seen = set()
    flags = itertools.product(
        Mode, range(200, 600), (True, False), (True, False), (True, False), (_ASKED, RetryAfter())
    )
    for mode, status, marked, will_report, no_retry, asked in flags:
        head = Head(status, marked, will_report, no_retry, asked)
        meaning = meaning_of(head, mode)
        seen.add(meaning)
        if meaning in (Meaning.RESULTS, Meaning.ACCEPTED):
            assert status < 300
            with pytest.raises(ValueError, match="not an answer"):
                answer_of(meaning, head, Words(), _URL)
        else:
            answer = answer_of(meaning, head, Words(), _URL)
            assert isinstance(answer, Failed) == (SIGNALS[meaning] in (Signal.OK, Signal.TROUBLE)), "what is charged"
            assert not (no_retry and status >= 400 and isinstance(answer, Failed) and answer.retryable)
    assert seen == set(Meaning) == set(SIGNALS)


def test_the_answers_say_what_came() -> None:
    words = Words("no room today")
    said = "the worker answered 503: no room today"
    assert answer_of(Meaning.BUSY, Head(503, retry_after=_ASKED), words, _URL) == PushedBack(said, 7.0, "7")
    assert answer_of(Meaning.OVERLOADED, Head(503, retry_after=_ASKED), words, _URL) == Failed(
        ErrorCode.HTTP_ERROR, said, retry_after=7.0
    )
    assert answer_of(Meaning.FAILURE, Head(500), Words(), _URL) == Failed(
        ErrorCode.HTTP_ERROR, "the worker answered 500"
    )
    assert answer_of(Meaning.FAILURE, Head(500, no_retry=True), Words(), _URL) == Failed(
        ErrorCode.HTTP_ERROR, "the worker answered 500", retryable=False
    )
    assert answer_of(Meaning.FAILURE, Head(422), Words("x", retryable=False), _URL) == Failed(
        ErrorCode.HTTP_ERROR, "the worker answered 422: x", retryable=False
    )
    assert answer_of(Meaning.UNAUTHORIZED, Head(401), Words(), _URL) == Held(
        ErrorCode.WORKER_UNAUTHORIZED, "the worker answered 401"
    )
    assert answer_of(Meaning.UNAUTHORIZED, Head(403), Words("x", code="wrong_target"), _URL) == Held(
        ErrorCode.WRONG_TARGET, "the worker answered 403: x"
    )
    assert answer_of(Meaning.GONE, Head(410), Words(), _URL) == Held(ErrorCode.WORKER_GONE, "the worker answered 410")
    assert answer_of(Meaning.NOT_A_WORKER, Head(200), Words("<html>"), _URL) == Failed(
        ErrorCode.NOT_A_WORKER,
        f"the worker answered 200 without the hurlbat-worker header: something else answers at {_URL}",
    )


def test_long_words_are_cut_at_500_characters() -> None:
    answer = answer_of(Meaning.FAILURE, Head(500), Words("x" * 501), _URL)
    assert answer.message == "the worker answered 500: " + "x" * 500


@pytest.mark.parametrize(
    ("location", "words"),
    [
        ("/hurlbat/", "register https://x.example/hurlbat/ instead"),
        ("https://evil.example/", "redirects are not followed (Location: https://evil.example/)"),
        (None, "redirects are not followed"),
    ],
)
def test_a_redirect_says_what_to_do(location: str | None, words: str) -> None:
    answer = answer_of(Meaning.REDIRECT, Head(307, location=location), Words(), _URL)
    assert answer == Failed(ErrorCode.REDIRECT_REFUSED, f"the worker answered 307; {words}")
