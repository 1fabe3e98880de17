"""Make policies of what was said of tasks, and a manifest of them.

Imported where one is asked for: the models take a while to load.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from pydantic import ValidationError

from hurlbat.adapters import explain
from hurlbat.errors import PayloadError, TaskInvalid
from hurlbat.payloads import encode
from hurlbat.policy import Concurrency, Manifest, RateLimit, TaskPolicy
from hurlbat.shape import Shape
from hurlbat.triggers import Cron, Filter

_LISTS: Final[Mapping[str, tuple[type, ...]]] = {
    "concurrency": (Concurrency,),
    "rate_limits": (RateLimit,),
    "on_events": (str,),
    "filters": (Filter, dict),
    "crons": (Cron, str, dict),
}
"""Where a single one may stand for a list of one."""


def policy_of(what: str, given: Mapping[str, Any], member: str) -> TaskPolicy:
    """Return the policy that options say. `what` is named where it cannot be, which raises `TaskInvalid`."""
    said = dict(given)
    unknown = said.keys() - (TaskPolicy.model_fields.keys() - {"input_schema", "output_schema", "graph"})
    if unknown:
        raise TaskInvalid(f"{what}: there is no policy called {', '.join(sorted(unknown))}")
    for listed, singles in _LISTS.items():
        if isinstance(said.get(listed), singles):
            said[listed] = (said[listed],)
    if isinstance(said.get("crons"), list | tuple):
        said["crons"] = [{"expression": cron} if isinstance(cron, str) else cron for cron in said["crons"]]
    try:
        return TaskPolicy(**said)
    except ValidationError as error:
        raise TaskInvalid(f"{what}: {explain(error, member)}") from error


def check_crons(what: str, policy: TaskPolicy, shape: Shape) -> None:
    """Raise `TaskInvalid` for a cron that is none, and for one of which every run would fail on its input."""
    for place, cron in enumerate(policy.crons):
        if not cron.expression.startswith("@") and len(cron.expression.split()) not in (5, 6):
            raise TaskInvalid(
                f"{what}: policy.crons.{place}.expression: {cron.expression!r} is no crontab line; that has "
                "5 fields (minute hour day-of-month month day-of-week), or 6 with seconds first, or is e.g. @daily"
            )
        try:
            shape.check_input(encode(cron.input, what="input"))
        except PayloadError as error:
            said = f"{what}: policy.crons.{place}.input is none that the task takes: {error}"
            raise TaskInvalid(said) from error


def manifest_of(tasks: Iterable[TaskPolicy], sdk: str, version: str) -> Manifest:
    """Return what a worker serves. Raises `TaskInvalid`."""
    try:
        return Manifest(sdk=sdk, tasks=tuple(tasks), version=version)
    except ValidationError as error:
        raise TaskInvalid(explain(error, "manifest")) from error
