"""A value of an object that is made when it is first asked for, and that all threads find to be the same."""

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

T = TypeVar("T")

if TYPE_CHECKING:

    def once(make: Callable[[Any], T], /) -> T:
        """Make an attribute of a method, as which type checkers see it: it is read, and may be replaced."""
        ...

else:

    class once(cached_property):  # noqa: N801 -- a decorator
        """A `cached_property` of which there is one, also where two threads are the first to ask."""

        def __get__(self, instance, owner=None):
            """Return the value; of two that are made at the same time one is dropped."""
            if instance is None:
                return self
            return vars(instance).setdefault(self.attrname, self.func(instance))
