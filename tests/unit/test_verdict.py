"""What an answer does to a run."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hurlbat_dispatcher.domain.lifecycle import RunEvent
from hurlbat_dispatcher.domain.outcome import Answer, ErrorCode, Failed, Held, NotSent, PushedBack, Succeeded, Unstarted
from hurlbat_dispatcher.domain.verdict import PUSHED_BACK_WAIT, Verdict, judge

CODES = st.sampled_from(ErrorCode)
WAITS = st.none() | st.floats(0, 1e6)
FAILURES = st.builds(Failed, CODES, st.text(), retryable=st.booleans(), retry_after=WAITS)
UNCHARGED = st.one_of(
    st.builds(NotSent, CODES, st.text()),
    st.builds(PushedBack, st.text(), WAITS, st.none()),
    st.builds(Held, CODES, st.text()),
)
ANSWERS: st.SearchStrategy[Answer] = st.one_of(
    FAILURES, UNCHARGED, st.builds(Unstarted, st.text()), st.builds(Succeeded, st.text())
)
TRIES = st.integers(1, 50)


@given(answer=ANSWERS, tries=TRIES, more=st.integers(0, 5), backoff=st.floats(0, 1e6))
def test_no_answer_ever_leads_beyond_max_attempts(answer: Answer, tries: int, more: int, backoff: float) -> None:
    verdict = judge(answer, tries=tries, max_attempts=tries + more, backoff=backoff)
    if verdict.event is RunEvent.PUT_BACK and verdict.charged:
        assert tries < tries + more
    assert (verdict.wait is None) == (verdict.event is not RunEvent.PUT_BACK)
    assert (verdict.wait or 0.0) >= 0.0


@given(answer=UNCHARGED, tries=TRIES, more=st.integers(0, 5))
def test_what_is_not_charged_never_gives_up(answer: Answer, tries: int, more: int) -> None:
    verdict = judge(answer, tries=tries, max_attempts=tries + more, backoff=7.0)
    assert (verdict.event, verdict.charged, verdict.failure) == (RunEvent.PUT_BACK, False, None)
    assert verdict.note is not None


@given(tries=TRIES, more=st.integers(0, 5))
def test_one_that_never_started_is_given_back_unless_it_may_start_only_once(tries: int, more: int) -> None:
    verdict = judge(Unstarted("early end"), tries=tries, max_attempts=tries + more, backoff=7.0)
    if tries + more == 1:
        assert (verdict.event, verdict.charged) == (RunEvent.GAVE_UP, True)
        assert verdict.failure is not None
        assert verdict.failure.code is ErrorCode.UNKNOWN_OUTCOME
    else:
        expected = Verdict(RunEvent.PUT_BACK, False, "not_started", PUSHED_BACK_WAIT, note="early end")
        assert verdict == expected


@given(failure=FAILURES, tries=TRIES, more=st.integers(0, 5))
def test_a_failure_is_retried_while_there_are_tries_and_it_may_be(failure: Failed, tries: int, more: int) -> None:
    verdict = judge(failure, tries=tries, max_attempts=tries + more, backoff=7.0)
    assert verdict.charged
    if failure.retryable and more:
        assert (verdict.event, verdict.kind, verdict.failure) == (RunEvent.PUT_BACK, "retry", failure)
        assert verdict.wait == (7.0 if failure.retry_after is None else failure.retry_after)
    else:
        assert (verdict.event, verdict.kind) == (RunEvent.GAVE_UP, "failed")


LOST = {
    ErrorCode.CONNECTION_RESET,
    ErrorCode.ATTEMPT_TIMEOUT,
    ErrorCode.HEARTBEAT_LOST,
    ErrorCode.LEASE_EXPIRED,
    ErrorCode.PROTOCOL_ERROR,
    ErrorCode.RESPONSE_TOO_LARGE,
    ErrorCode.BAD_ENCODING,
    ErrorCode.BAD_RESULT,
}


@pytest.mark.parametrize("code", ErrorCode)
def test_at_most_once_says_of_a_lost_answer_that_the_outcome_is_unknown(code: ErrorCode) -> None:
    verdict = judge(Failed(code, "why", raw="{"), tries=1, max_attempts=1, backoff=0.0)
    assert verdict.event is RunEvent.GAVE_UP
    assert verdict.failure is not None
    assert verdict.failure.code is (ErrorCode.UNKNOWN_OUTCOME if code in LOST else code)
    if code in LOST:
        assert (code in verdict.failure.message, verdict.failure.raw) == (True, "{")


@pytest.mark.parametrize("code", ErrorCode)
def test_with_tries_left_every_failure_keeps_its_own_code(code: ErrorCode) -> None:
    verdict = judge(Failed(code, "why"), tries=3, max_attempts=3, backoff=0.0)
    assert verdict.failure == Failed(code, "why")


@given(answer=ANSWERS, tries=TRIES, more=st.integers(0, 5))
def test_only_what_was_not_sent_is_no_start(answer: Answer, tries: int, more: int) -> None:
    verdict = judge(answer, tries=tries, max_attempts=tries + more, backoff=7.0)
    assert verdict.sent == (not isinstance(answer, NotSent)) == (verdict.kind != "not_sent")


def test_backpressure_waits_as_long_as_it_was_asked_to() -> None:
    assert judge(PushedBack("busy", 0.0), tries=1, max_attempts=1, backoff=9.0).wait == 0.0
    assert judge(PushedBack("busy", 77.0), tries=1, max_attempts=1, backoff=9.0).wait == 77.0
    assert judge(PushedBack("busy"), tries=1, max_attempts=1, backoff=9.0).wait == PUSHED_BACK_WAIT
