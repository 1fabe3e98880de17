"""What this server has taken to send, so that nothing is sent twice however often it is told of a start.

A server's id is new with each start of its process, so this memory is all there is to know: an attempt with this
server as its sender that is not in it was never sent.
"""

from hurlbat_dispatcher.turn.operations import Attempt


class Taken:
    """The attempts that live on this server's lease, as far as it took them."""

    def __init__(self) -> None:
        self._attempts: dict[str, int] = {}
        self._fresh: set[str] = set()

    @property
    def attempts(self) -> frozenset[Attempt]:
        """Return all of them."""
        return frozenset(self._attempts.items())

    def take(self, run_id: str, attempt: int) -> bool:
        """Take an attempt to send it. False: it was taken before."""
        if self._attempts.get(run_id, 0) >= attempt:
            return False
        self._attempts[run_id] = attempt
        self._fresh.add(run_id)
        return True

    def over(self, run_id: str) -> None:
        """Forget a run of which it is stored that the attempt has ended."""
        self._attempts.pop(run_id, None)
        self._fresh.discard(run_id)

    def keep(self, connected: frozenset[str]) -> None:
        """Forget what is not among the runs that live on this server's lease, by a look at the rows.

        What was taken since the last look is kept: the rows may have been read before.
        """
        self._attempts = {
            run_id: attempt
            for run_id, attempt in self._attempts.items()
            if run_id in connected or run_id in self._fresh
        }
        self._fresh.clear()
