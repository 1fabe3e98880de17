"""How a command ends that could not do what it was asked for: one sentence on standard error, and a status."""

from enum import IntEnum


class Exit(IntEnum):
    """The status that a command leaves with."""

    DONE = 0
    REFUSED = 1
    """It was asked for something that cannot be done, or the run did not complete."""
    BAD_INPUT = 2
    """Arguments or settings that cannot be."""
    NOT_REACHED = 3
    """No server answered."""
    NOT_ALLOWED = 4
    """The server refused the token."""
    GOES_ON = 5
    """The time to wait was over, and the run goes on."""
    INTERRUPTED = 130


class Failure(Exception):
    """What to tell the user, and the status to leave with."""

    def __init__(self, sentence: str, status: Exit = Exit.REFUSED) -> None:
        super().__init__(sentence)
        self.status = status
