"""Follows the runs of one delivery from line to line until each has exactly one end.

An answer may be hostile or broken anywhere. What can be told of one run ends that run alone; what cannot ends all that
have no answer yet. A stream that breaks leaves started runs going on elsewhere and the others as if never sent.
"""

import asyncio
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from hurlbat.wire import (
    MAX_LINE_CHARS,
    BadLine,
    CancelledLine,
    CompletedLine,
    DeliveredRun,
    FailedLine,
    HeartbeatLine,
    Line,
    LogLine,
    ProgressLine,
    StartedLine,
    read_results,
)
from hurlbat_dispatcher.domain.outcome import Answer, Cancelled, ErrorCode, Failed, PushedBack, Succeeded, Unstarted
from hurlbat_dispatcher.push.heard import Beat, Detached, Ended, Hear, Heard, Logged, Progressed, Started
from hurlbat_dispatcher.push.lines import read

MAX_RAW_CHARS: Final = 1_000
"""How much is kept of an answer that cannot be read."""
LONGEST_WISH: Final = 31_536_000.0
"""Seconds that a task may wish to wait before its next attempt, as long as a policy may say."""

_RUN_ID = re.compile(rb'"run_id"\s*:\s*"([^"\\]{1,64})"')
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_FINAL: Final = frozenset({ErrorCode.INVALID_INPUT, ErrorCode.WOULD_DEADLOCK})
"""What another attempt would only do again."""
_RESERVED: Final = {code.value: code for code in (ErrorCode.EXECUTION_TIMEOUT, *_FINAL)}
_NOT_HERE: Final = frozenset({ErrorCode.UNKNOWN_TASK, ErrorCode.WRONG_TARGET})
"""What an instance says that does not serve a run, as an old one does while a new one is rolled out."""


class Transcript:
    """The runs of one delivery: which are open, which have started, and what is to be told of them next.

    `hear` gets everything of one piece at once. `when_done` is called when no run is open any more.
    """

    def __init__(self, runs: Sequence[DeliveredRun], hear: Hear) -> None:
        self._open = {run.run_id: run for run in runs}
        self._attempts = {run.run_id: run.attempt for run in runs}
        self._started: set[str] = set()
        self._hear = hear
        self._heard: list[Heard] = []
        self._fresh: dict[str, int] = {}
        self._expiry: dict[str, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self.when_done: Callable[[], None] | None = None
        self.results = 0

    @property
    def done(self) -> bool:
        """Whether every run has its end."""
        return not self._open

    @property
    def all_begun(self) -> bool:
        """Whether every run that has no end yet has begun, and may go on without the connection."""
        return all(run_id in self._started for run_id in self._open)

    def read_lines(self, lines: Iterable[bytes]) -> None:
        """Take the lines that came in one piece; a line above the limit comes without its end."""
        for line in lines:
            if not line or line.isspace():
                continue
            if len(line) > MAX_LINE_CHARS:
                message = f"a line of the answer is longer than {MAX_LINE_CHARS:,} bytes"
                self._blame(line, Failed(ErrorCode.RESPONSE_TOO_LARGE, message))
                continue
            try:
                said = read(line.decode())
            except (BadLine, UnicodeDecodeError) as error:
                self._blame(line, bad_result(str(error), line))
                continue
            if said is not None:
                self._take(said, line)
        self._flush()

    def read_whole(self, body: bytes) -> None:
        """Take an answer in JSON. Each run that it says nothing of has a bad result."""
        try:
            results = read_results(body.decode())
        except (BadLine, UnicodeDecodeError) as error:
            self.end_all(bad_result(str(error), body))
            return
        for result in results:
            self._take(result, body)
        self.end_all(bad_result("the answer has no result for this run", body))

    def end_all(self, answer: Answer) -> None:
        """Give this answer to every open run."""
        for run_id in list(self._open):
            self._end(run_id, answer, whole=True)
        self._flush()

    def detach_all(self, why: str) -> None:
        """Let every open run go on without a connection."""
        for run_id in list(self._open):
            self._detach(run_id, why)
        self._flush()

    def break_off(self, why: str) -> None:
        """End a stream that says no more: started runs go on elsewhere, the others never began."""
        for run_id in list(self._open):
            if run_id in self._started:
                self._detach(run_id, why)
            else:
                self._end(run_id, Unstarted(why))
        self._flush()

    def close(self) -> None:
        """Stop the clock of execution timeouts."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._expiry.clear()

    def _take(self, line: Line, raw: bytes) -> None:
        match line:
            case HeartbeatLine():
                self._heard.append(Beat())
            case StartedLine(run_id, attempt):
                if self._is_answerable(run_id, attempt, raw) and run_id not in self._started:
                    self._start(run_id, attempt)
            case CompletedLine(run_id, attempt, output):
                self._answer(run_id, attempt, Succeeded(output), raw)
            case FailedLine(run_id, attempt, type) if type in _NOT_HERE and run_id not in self._started:
                self._answer(run_id, attempt, PushedBack(f"the worker answered {type}: {line.message}"), raw)
            case FailedLine(run_id, attempt):
                self._answer(run_id, attempt, failure_of(line), raw)
            case CancelledLine(run_id, attempt):
                self._answer(run_id, attempt, end_of(line), raw)
            case LogLine(run_id, attempt, level, message):
                if self._attempts.get(run_id) == attempt:
                    self._heard.append(Logged(run_id, attempt, level, message))
            case ProgressLine(run_id, attempt, value, message):
                if self._attempts.get(run_id) == attempt:
                    self._heard.append(Progressed(run_id, attempt, value, message))

    def _answer(self, run_id: str, attempt: int, answer: Answer, raw: bytes) -> None:
        if run_id in self._fresh:  # not told yet, so it can be taken back; once told, the first answer stands
            twice = bad_result("the run was answered twice", raw)
            self._heard[self._fresh[run_id]] = Ended(run_id, self._attempts[run_id], twice)
        elif self._is_answerable(run_id, attempt, raw):
            self.results += 1
            self._fresh[run_id] = len(self._heard)
            self._end(run_id, answer)

    def _is_answerable(self, run_id: str, attempt: int, raw: bytes) -> bool:
        """Say whether a line may speak of this attempt, and hold it against the run or the delivery if not."""
        expected = self._attempts.get(run_id)
        if expected is None:
            self._blame_all(bad_result(f"the answer names a run that was not sent: {run_id[:64]}", raw))
            return False
        if run_id not in self._open:
            return False
        if attempt != expected:
            message = f"the answer is for attempt {attempt}, attempt {expected} was sent"
            self._end(run_id, bad_result(message, raw))
            return False
        return True

    def _blame(self, line: bytes, answer: Failed) -> None:
        """Hold an unreadable line against the run that it seems to name, else against all."""
        named = _RUN_ID.search(line[:4_096])
        run_id = named[1].decode("utf-8", "replace") if named else ""
        if run_id not in self._attempts:
            self._blame_all(answer)
        elif run_id in self._open:
            self._end(run_id, answer)

    def _blame_all(self, answer: Failed) -> None:
        for run_id in list(self._open):
            self._end(run_id, answer)

    def _start(self, run_id: str, attempt: int) -> None:
        self._started.add(run_id)
        self._heard.append(Started(run_id, attempt))
        self._expiry[run_id] = self._loop.time() + self._open[run_id].execution_timeout
        if self._timer is None or self._expiry[run_id] < self._timer.when():
            self._watch()

    def _end(self, run_id: str, answer: Answer, *, whole: bool = False) -> None:
        run = self._open.pop(run_id)
        self._expiry.pop(run_id, None)
        self._heard.append(Ended(run_id, run.attempt, answer, whole))

    def _detach(self, run_id: str, why: str) -> None:
        run = self._open.pop(run_id)
        self._expiry.pop(run_id, None)
        self._heard.append(Detached(run_id, run.attempt, why))

    def _flush(self) -> None:
        heard, self._heard = self._heard, []
        self._fresh.clear()
        if not self._open and self.when_done is not None:
            self.when_done()
        if heard:
            self._hear(heard)

    def _watch(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(min(self._expiry.values()), self._expire) if self._expiry else None

    def _expire(self) -> None:
        now = self._loop.time()
        for run_id in [run_id for run_id, when in self._expiry.items() if when <= now]:
            seconds = self._open[run_id].execution_timeout
            self._end(run_id, Failed(ErrorCode.EXECUTION_TIMEOUT, f"still running {seconds:g} s after it started"))
        self._timer = None
        self._watch()
        self._flush()


def bad_result(message: str, raw: bytes) -> Failed:
    """Return the failure of an answer that cannot be read, with its beginning kept."""
    kept = raw[: MAX_RAW_CHARS * 4].decode("utf-8", "replace")[:MAX_RAW_CHARS]
    return Failed(ErrorCode.BAD_RESULT, f"the answer cannot be read: {message}", raw=kept)


def end_of(line: CancelledLine) -> Cancelled:
    """Return what it means that a task ended its run; its reason is a line of text."""
    reason = None if line.reason is None else _CONTROL.sub(" ", line.reason).strip()
    return Cancelled(reason or None)


def failure_of(line: FailedLine) -> Failed:
    """Return what a task's own failure means; only the reserved types are codes of ours."""
    code = _RESERVED.get(line.type, ErrorCode.TASK_ERROR)
    wait = line.retry_after
    return Failed(
        code,
        line.message,
        type=line.type,
        stack=line.stack,
        details=line.details,
        retryable=line.retryable and code not in _FINAL,
        retry_after=None if wait is None else min(max(0.0, wait), LONGEST_WISH),
        rate_limit_key=None if wait is None else line.rate_limit_key,
    )
