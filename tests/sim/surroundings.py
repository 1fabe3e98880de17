"""What those who take part need of the world around them."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from hurlbat_dispatcher import Engine
from tests.sim.history import History, Key
from tests.sim.plan import Plan
from tests.sim.rows import Row

T = TypeVar("T")


class Surroundings(Protocol):
    """What a worker needs of the world."""

    plan: Plan
    history: History

    @property
    def policies(self) -> Mapping[str, Mapping[str, Any]]:
        """The policy of each task as it is now."""

    def true_time(self) -> float:
        """Return the seconds since the epoch by a clock that is right."""

    @property
    def rows(self) -> Mapping[str, Row]:
        """What is committed now."""

    async def ask_any(self, work: Callable[[Engine], Awaitable[T]]) -> T:
        """Ask some server. Raises `Lost`, or the `Problem` that it answered."""

    def executes(self, worker: str, at_work: Sequence[Key]) -> None:
        """Take notice of what a worker has at work now that it begins another attempt."""

    def executed(self, key: Key) -> None:
        """Take notice of an attempt that begins."""

    def given(self, run: Mapping[str, Any]) -> None:
        """Take notice of a run as it is delivered."""

    def renewed(self, key: Key, since: float) -> None:
        """Take notice of a heartbeat that was answered, asked at `since` (seconds of the loop)."""
