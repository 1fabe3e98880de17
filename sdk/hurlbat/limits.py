"""What may be said of a task, in numbers, for all that check it: the models of its policy, and what needs none of them.

Standard library only, and nothing that takes time to load.
"""

from typing import Final, Literal, NamedTuple


class Range(NamedTuple):
    """From the least to the most, both included."""

    least: float
    most: float

    def has(self, given: object, kinds: tuple[type, ...] = (int,)) -> bool:
        """Tell whether this is a number of one of these kinds, and in the range."""
        return type(given) in kinds and self.least <= given <= self.most  # type: ignore[operator]  # it is a number


RETRIES: Final = Range(0, 1000)
PRIORITY: Final = Range(-1000, 1000)
SLOT_COST: Final = Range(1, 10_000)
BATCH_SIZE: Final = Range(2, 1000)
PERIOD: Final = Range(0.01, 86_400.0)
"""Seconds that submits may be gathered, up to a day."""
YEAR: Final = 31_536_000
"""Seconds: the longest timeout, and the longest wait."""
MAX_EXPRESSION: Final = 512
"""Characters of an expression."""
MAX_TASKS: Final = 2_000
"""In one manifest: those of a workflow of the most nodes, and others."""

Sticky = Literal["soft", "hard"]
"""How much a task wants the worker that last had the run's parent."""
