"""How the look of a check ends where it does not just pass."""


class Failed(Exception):
    """It does not hold: what was seen, and what to do where that is more than the check says by itself."""

    def __init__(self, seen: str, fix: str | None = None) -> None:
        super().__init__(seen)
        self.seen = seen
        self.fix = fix


class Hopeless(Failed):
    """It does not hold, and nothing else can be said of the worker before it does."""


class Skipped(Exception):
    """It cannot be looked at, for this reason."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
