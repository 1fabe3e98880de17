"""Tell of runs while they happen: a line when one ends, fails and is tried again, or takes a while.

Where there are more than can be read, some are left out and counted; those that failed go before the others.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from hurlbat_app.api.answers import show_run
from hurlbat_app.demo.story import ending, moment, short
from hurlbat_dispatcher import Engine, Following, News, Problem, Run

LONG_SECONDS: Final = 0.5
"""How long an attempt runs before its start is told: of a short one the end is enough."""
GAP_SECONDS: Final = 0.1
"""Between two looks at what has happened."""
RUNS_A_SECOND: Final = 20
"""Of how many runs is told in a second; of twice as many at once after a quiet while."""
SUM_SECONDS: Final = 1.0
"""How often is told how many were left out."""
MOST_KNOWN: Final = 5_000
"""Runs of which is known what was told."""
HELD: Final = "waits, as its worker refuses what it is sent"
_LOGS: Final = frozenset({"log", "progress"})
_QUIET: Final = frozenset({"created", "scheduled", "moved", "gathered", "node", "callback"})
_NOT_BEGUN: Final = frozenset({"not_sent", "not_started", "pushed_back", "held"})
"""An attempt came to nothing and costs nothing. May happen again and again while the app is away; told once."""
_MARKS: Final = {
    "completed": ("✓", "green"),
    "failed": ("✗", "red"),
    "cancelled": ("-", "yellow"),
    "skipped": ("-", "yellow"),
    "retry": ("↻", "yellow"),
    "started": ("▸", "blue"),
    "replayed": ("▸", "blue"),
}
Paint = Callable[[str, str], str]
"""Colours a text, or leaves it as it is."""


class RunLines:
    """Follows all runs and says what happens to them. `logs`: also what their tasks log.

    What happened before `since` is not told, as a run of another day may be replayed.
    """

    def __init__(self, say: Callable[[str], None], paint: Paint, *, logs: bool, since: datetime | None = None) -> None:
        self._say = say
        self._paint = paint
        self._logs = logs
        self._since = since or datetime.now(UTC)
        self._told: dict[str, tuple[int, str]] = {}
        """By run: how many entries of its timeline were told, and the kind of the last line."""
        self._open: dict[str, float] = {}
        """Attempts that have begun and were not told of yet: when to look at them."""
        self._left_out: Counter[str] = Counter()
        self._allowance = 2.0 * RUNS_A_SECOND

    async def tell(self, engine: Engine) -> None:
        """Tell of runs until cancelled."""
        with engine.follow() as following:
            clock = asyncio.get_running_loop().time
            looked = summed = clock()
            while True:
                news = await self._next(following)
                now = clock()
                self._allowance = min(2.0 * RUNS_A_SECOND, self._allowance + (now - looked) * RUNS_A_SECOND)
                looked = now
                await self._look(engine, news)
                if self._left_out and now - summed >= SUM_SECONDS:
                    self._say(self.summary(self._left_out))
                    self._left_out.clear()
                    summed = now
                await asyncio.sleep(GAP_SECONDS)

    async def _next(self, following: Following) -> News:
        """Return what happens next, or nothing after a while in which there may be something to be told."""
        try:
            async with asyncio.timeout(LONG_SECONDS if self._open or self._left_out else None):
                return await following.news()
        except TimeoutError:
            return News({}, {})

    async def _look(self, engine: Engine, news: News) -> None:
        now = asyncio.get_running_loop().time()
        due = [run_id for run_id, at in self._open.items() if at <= now and run_id not in news.runs]
        self._left_out.update(news.left_out)
        # what went wrong is told first, where not everything can be
        failed = [run_id for run_id, state in news.runs.items() if state not in (None, "completed")]
        ended = [run_id for run_id, state in news.runs.items() if state == "completed"]
        alive = [run_id for run_id, state in news.runs.items() if state is None]
        if len(news.runs) <= self._allowance:
            failed, ended, alive = list(news.runs), [], []
        for run_id in (*failed, *ended, *alive, *due):
            state = news.runs.get(run_id)
            if self._allowance < 1:
                self._pass_over(run_id, state)
                continue
            try:
                run = await engine.get_run(run_id)
            except Problem:  # it was removed, or cannot be read
                continue
            self._allowance -= self._tell_of(run, now)

    def _pass_over(self, run_id: str, state: str | None) -> None:
        if state is not None and self._told.get(run_id, (0, ""))[1] != state:
            self._left_out[state] += 1
        self._open.pop(run_id, None)

    def _tell_of(self, run: Run, now: float) -> int:
        """Tell what is new of a run; return in how many lines."""
        lines = 0
        shown = orjson.loads(orjson.dumps(show_run(run)))
        for line in self.lines(shown, now):
            self._say(line)
            lines += 1
        return lines

    def lines(self, run: Mapping[str, Any], now: float) -> Iterator[str]:
        """Yield the lines for what a run's timeline has besides. `now` is the loop's time, for what is put off."""
        timeline = run["timeline"]
        begin, last = self._told.get(run["id"], (0, ""))
        end = len(timeline)
        put_off = self._open.pop(run["id"], None)
        for at, entry in enumerate(timeline[begin:], begin):
            kind = entry["kind"]
            if kind == "started" and not self._logs:
                after = next((one for one in timeline[at + 1 :] if one["kind"] not in _LOGS), None)
                if after is None and (put_off is None or put_off > now):
                    # looked at again when it has run for a while
                    self._open[run["id"]] = put_off or now + LONG_SECONDS
                    end = at
                    break
                if after is not None and (after["kind"] in _NOT_BEGUN or _between(entry, after) < LONG_SECONDS):
                    continue
            again = kind == last and kind in _NOT_BEGUN
            if datetime.fromisoformat(entry["at"]) < self._since:
                continue
            if kind not in _QUIET and not again and (self._logs or kind not in _LOGS):
                last = kind
                yield self._line(entry, run)
        self._told[run["id"]] = (end, last)
        while len(self._told) > MOST_KNOWN:
            del self._told[next(iter(self._told))]

    def _line(self, entry: Mapping[str, Any], run: Mapping[str, Any]) -> str:
        kind = entry["kind"]
        mark, color = _MARKS.get(kind, ("·", "bright_black"))
        # why a worker refuses everything is told of the worker, and not of each of its runs again
        said = moment(entry, run).text if kind != "held" else HELD
        if kind == run["state"] and entry is run["timeline"][-1]:
            said = _end(run, said)
        when = datetime.fromisoformat(entry["at"]).astimezone().strftime("%H:%M:%S")
        name = f"{run['task']}  {self._paint(run['id'], 'bright_black')}"
        said = self._paint(said, color) if color in ("red", "yellow") else said
        return f"{self._paint(when, 'bright_black')} {self._paint(mark, color)} {name}  {said}"

    def summary(self, left_out: Mapping[str, int]) -> str:
        """Say how many runs were left out."""
        total = sum(left_out.values())
        states = ", ".join(f"{count:,} {state}" for state, count in sorted(left_out.items()))
        return self._paint(f"         … and {total:,} more have ended: {states}", "bright_black")


def _end(run: Mapping[str, Any], said: str) -> str:
    """Say how a run has ended, after how long, and with what."""
    end = ending(run) if run["attempt"] > 1 else ending(run).partition(" and ")[0]
    if run["state"] == "completed":
        return f"{end} with {short(run['output'])}"
    rest = said.removeprefix(run["state"]).removeprefix(": ").strip()
    return f"{end}: {rest}" if rest else end


def _between(one: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    return (datetime.fromisoformat(other["at"]) - datetime.fromisoformat(one["at"])).total_seconds()
