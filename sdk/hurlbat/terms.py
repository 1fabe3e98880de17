"""What was said of a task, as it was said, until somebody asks for the policy that it makes.

To carry out a run takes none of it, and the models of a policy take longer to load than all else. So what is surely
good is kept as it is; anything else becomes a policy where it is said, which tells what is wrong with it. `surely_good`
has no opinions of its own: what it lets pass the models take, by the same limits.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, get_args

from hurlbat.limits import BATCH_SIZE, MAX_EXPRESSION, PERIOD, PRIORITY, RETRIES, SLOT_COST, YEAR, Sticky
from hurlbat.wire import NAME_PATTERN

if TYPE_CHECKING:
    from hurlbat.policy import TaskPolicy


class Terms:
    """What was said of a task. `what` it is begins the sentence of a `TaskInvalid`, and `member` names the options."""

    def __init__(self, what: str, given: Mapping[str, Any], member: str = "policy") -> None:
        self._what = what
        self._given = {name: value for name, value in given.items() if value is not None}
        self._member = member
        self._as_said = surely_good(self._given)
        if not self._as_said:
            _ = self.policy

    @property
    def name(self) -> str:
        """The name of the task."""
        return str(self._given["name"])

    @property
    def gathers(self) -> bool:
        """Whether inputs are gathered in batches."""
        return "batch_size" in self._given

    @property
    def has_crons(self) -> bool:
        """Whether there are times at which runs are made."""
        return "crons" in self._given

    @cached_property
    def policy(self) -> "TaskPolicy":
        """The policy that this makes. Raises `TaskInvalid`."""
        from hurlbat.making import policy_of

        return policy_of(self._what, self._given, self._member)

    @property
    def text(self) -> str:
        """Tells these terms from others, alike in every process."""
        return json.dumps(self._given, sort_keys=True) if self._as_said else self.policy.model_dump_json()


def digest_of(parts: Iterable[str]) -> str:
    """Return 16 hex digits that tell what a worker serves from what another does, or the same one did before."""
    return hashlib.sha256(json.dumps(list(parts)).encode()).hexdigest()[:16]


def surely_good(given: Mapping[str, Any]) -> bool:
    """Tell whether options, of which none is None, are plain values that a policy may have; if not, they may be too."""
    if not all(name in _PLAIN and _PLAIN[name](value) for name, value in given.items()):
        return False
    gathers = "batch_size" in given or not given.keys() & {"batch_timeout", "batch_key"}
    return "name" in given and gathers and given.get("on_failure") != given["name"]


_NAME: Final = re.compile(NAME_PATTERN)


def _is_name(given: Any) -> bool:
    return type(given) is str and _NAME.fullmatch(given) is not None


def _is_timeout(given: Any) -> bool:
    return type(given) in (int, float) and 0 < given <= YEAR


_PLAIN: Final[Mapping[str, Callable[[Any], bool]]] = {
    "name": _is_name,
    "retries": RETRIES.has,
    "execution_timeout": _is_timeout,
    "schedule_timeout": _is_timeout,
    "priority": PRIORITY.has,
    "slot_cost": SLOT_COST.has,
    "sticky": lambda given: type(given) is str and given in get_args(Sticky),
    "batch_size": BATCH_SIZE.has,
    "batch_timeout": lambda given: PERIOD.has(given, (int, float)),
    "batch_key": lambda given: type(given) is str and 1 <= len(given) <= MAX_EXPRESSION,
    "on_failure": _is_name,
}
