"""What one read finds that ends after a number of rows, whatever was found.

An index leads through rows in an order; what it does not tell is held against each of them. Where few are as they
should be, very many would be looked at for one page, and everybody else would wait for the connection.
"""

from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")
P = TypeVar("P", bound=str | tuple[int, str])
"""A place in an order."""


class Look(NamedTuple, Generic[T, P]):
    """What was found, in order. `until` is the place up to which was looked; None where no more are."""

    found: list[T]
    until: P | None
