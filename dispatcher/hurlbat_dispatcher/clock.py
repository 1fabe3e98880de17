"""Time, identity and chance, injected from the outside so that a simulator can take their place."""

import asyncio
import random
import time
from typing import Final, Protocol


class Clock(Protocol):
    """Tells and spends time."""

    def now_ms(self) -> int:
        """Return milliseconds since the epoch; may jump."""

    def monotonic(self) -> float:
        """Return seconds that never go back."""

    async def sleep(self, seconds: float) -> None:
        """Return after so many seconds."""


PROMPT: Final = 1.0
"""Seconds within which an answer of the database's clock is one."""


_STEADY: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""A lease must not outlive the sleep of a machine: Linux counts that in a clock of its own."""


class SystemClock:
    """The host's clock."""

    def now_ms(self) -> int:
        """Return milliseconds since the epoch."""
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        """Return seconds that never go back, and go on while the machine sleeps, where the system can tell."""
        return time.clock_gettime(_STEADY)

    async def sleep(self, seconds: float) -> None:
        """Return after so many seconds."""
        await asyncio.sleep(seconds)


class AgreedClock:
    """The database's clock as far as a host can tell it, so that servers whose own clocks differ agree.

    Until `agree` was called first it is the host's. In between the host's monotonic clock tells it.
    """

    def __init__(self, host: Clock) -> None:
        self._host = host
        self._agreed: tuple[int, float] | None = None

    def now_ms(self) -> int:
        """Return milliseconds since the epoch."""
        if self._agreed is None:
            return self._host.now_ms()
        now, at = self._agreed
        return now + int((self._host.monotonic() - at) * 1000)

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        return self._host.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Return after so many seconds."""
        await self._host.sleep(seconds)

    def agree(self, now_ms: int, asked: float) -> int | None:
        """Take what the database's clock said to a question that was `asked` then (monotonic).

        Returns by how much the host is ahead, in ms; None of an answer that took long, which says little, and is only
        taken where there is no other.
        """
        at = self._host.monotonic()
        prompt = at - asked < PROMPT
        if self._agreed is None or prompt:
            self._agreed = now_ms, at
        return self._host.now_ms() - now_ms if prompt else None


class Chance:
    """The one source of randomness for jitter and ids; secrets have another. A simulator gives the seed."""

    def __init__(self, seed: int | None = None) -> None:
        self._random = random.Random(seed)

    def uniform(self, low: float, high: float) -> float:
        """Return a number between `low` and `high`, each as likely."""
        return self._random.uniform(low, high)

    def bits(self, count: int) -> int:
        """Return an integer of `count` random bits."""
        return self._random.getrandbits(count)


_FULL = (1 << 26) - 1
"""The counter of ids that share a millisecond."""


class Ids:
    """Makes UUIDv7 (RFC 9562) that grow strictly within this process: 48 bits of milliseconds, then a counter."""

    def __init__(self, clock: Clock, chance: Chance) -> None:
        self._clock = clock
        self._chance = chance
        self._last_ms = 0
        self._counter = 0

    def new(self) -> str:
        """Return an id in its canonical form, e.g. `0199a3c0-…-7…`."""
        now = self._clock.now_ms()
        if now > self._last_ms or self._counter >= _FULL:
            self._last_ms = max(now, self._last_ms + 1)
            self._counter = self._chance.bits(24)
        else:
            self._counter += 1
        # 12 + 14 bits of counter in rand_a and the head of rand_b, 48 random bits behind them
        head, middle = self._counter >> 14 & 0xFFF, 0x8000 | self._counter & 0x3FFF
        high, low = self._last_ms >> 16, self._last_ms & 0xFFFF
        return f"{high:08x}-{low:04x}-7{head:03x}-{middle:04x}-{self._chance.bits(48):012x}"
