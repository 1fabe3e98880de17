"""How long to wait before the next attempt: tenacity's strategies, asked for a number and never slept in memory."""

from tenacity import RetryCallState, Retrying, wait_chain, wait_exponential, wait_fixed
from tenacity.wait import wait_base

from hurlbat_dispatcher.clock import Chance
from hurlbat_dispatcher.domain.runs import Backoff

MAX_SECONDS = 31_536_000.0
"""No wait is longer than a year, whatever a policy or a task asks for."""


def wait_after(backoff: Backoff, tries: int, chance: Chance) -> float:
    """Return the seconds to wait after so many charged starts (from 1), with jitter where it is asked for."""
    state = RetryCallState(Retrying(), None, (), {})
    state.attempt_number = max(1, tries)
    seconds = clamp(_strategy(backoff)(state))
    return chance.uniform(seconds / 2, seconds) if backoff.jitter else seconds


def clamp(seconds: float) -> float:
    """Return the wait within what is allowed."""
    return min(max(0.0, seconds), MAX_SECONDS)


def _strategy(backoff: Backoff) -> wait_base:
    match backoff.strategy:
        case "fixed":
            return wait_fixed(backoff.initial)
        case "list":
            return wait_chain(*(wait_fixed(delay) for delay in backoff.delays))
        case _:
            return wait_exponential(multiplier=backoff.initial, exp_base=backoff.factor, max=backoff.max)
