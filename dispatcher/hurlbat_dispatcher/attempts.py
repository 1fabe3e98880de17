"""The attempts of runs as people look into them: what was sent, what came back, and what was made of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from hurlbat.wire import DeliveredRun, deliver_body
from hurlbat_dispatcher.availability import available
from hurlbat_dispatcher.deliveries import Deliveries
from hurlbat_dispatcher.domain.attempts import Attempt, attempts_of, sentence
from hurlbat_dispatcher.domain.runs import Run, TimelineEntry
from hurlbat_dispatcher.domain.triggers import is_workflow, parents_in, tell_parents
from hurlbat_dispatcher.errors import Invalid, NotFound
from hurlbat_dispatcher.pages import Page
from hurlbat_dispatcher.registry import Registry
from hurlbat_dispatcher.run_ids import check_run_id, unknown_run
from hurlbat_dispatcher.store import graphs, views
from hurlbat_dispatcher.store.database import Database
from hurlbat_dispatcher.telling import rfc3339

HIDDEN: Final = "…"


@dataclass(frozen=True, slots=True)
class AttemptView:
    """An attempt with what was made of it in a sentence.

    `delivery` is what was sent and what came, as `push.record` keeps it, and `message` what of it was this attempt's,
    in raw JSON; both None in lists, and where it was not kept.
    """

    attempt: Attempt
    sentence: str
    delivery: dict[str, Any] | None = None
    message: str | None = None


class Attempts:
    """The attempts of all runs."""

    def __init__(
        self, tenant: int, database: Database, registry: Registry, deliveries: Deliveries, *, report_base: str
    ) -> None:
        self._tenant = tenant
        self._database = database
        self._registry = registry
        self._deliveries = deliveries
        self._report_base = report_base

    async def list(self, run_id: str, *, cursor: str | None = None, limit: int = 50) -> Page[AttemptView]:
        """Return the attempts of a run, the last one first, without what was sent. Raises `NotFound`, `Invalid`."""
        run, rows, delivery = await self._read(run_id)
        before = min(run.attempt + 1, run.attempt + 1 if cursor is None else _number(cursor))
        first = max(1, before - limit)
        found = attempts_of(run, rows, delivery, range(first, before))
        items = [AttemptView(one, sentence(one)) for one in reversed(found)]
        return Page(items, str(first) if items and first > 1 else None)

    async def get(self, run_id: str, number: int) -> AttemptView:
        """Return one attempt with what was sent and what came. Raises `NotFound`."""
        run, rows, sent_by = await self._read(run_id)
        if not 1 <= number <= run.attempt:
            said = (
                f"run {run_id} has had {run.attempt} attempts" if run.attempt else f"run {run_id} has not started yet"
            )
            raise NotFound("attempt_unknown", f"there is no attempt {number}: {said}", attempts=run.attempt)
        [attempt] = attempts_of(run, rows, sent_by, range(number, number + 1))
        delivery = None
        if attempt.delivery is not None:
            delivery = await available(self._deliveries.find(attempt.delivery))
        said = sentence(attempt)
        if delivery is None:
            return AttemptView(attempt, said)
        return AttemptView(attempt, said, delivery, await self._message(run, attempt, delivery["request"]["url"]))

    async def _read(self, run_id: str) -> tuple[Run, Sequence[TimelineEntry], str | None]:
        check_run_id(run_id)
        found = await available(self._database.read(views.untold_run(self._tenant, run_id)))
        if found is None:
            raise unknown_run(run_id)
        return found

    async def _message(self, run: Run, attempt: Attempt, url: str) -> str:
        """Return the message as a delivery of this attempt alone has it, without its lease token."""
        task = self._registry.tasks.get(run.task)
        delivered = DeliveredRun(
            run.id,
            run.task,
            attempt.attempt,
            attempt.max_attempts,
            run.input,
            run.metadata,
            (task.execution_timeout if task else 300_000) / 1000,
            HIDDEN,
            f"{self._report_base}/runs/{run.id}/attempts/{attempt.attempt}",
            run.trigger,
        )
        if run.trigger is not None and is_workflow(run.trigger):
            parents = parents_in(run.trigger)
            outputs = await available(self._database.read(graphs.outputs_of(self._tenant, sorted(parents.values()))))
            delivered = delivered._replace(parents=tell_parents(parents, outputs))
        timestamp = rfc3339(attempt.started_at or run.created_at)
        return deliver_body(attempt.worker or "", url, timestamp, [delivered]).decode()


def _number(cursor: str) -> int:
    if not cursor.isdecimal() or len(cursor) > 10:
        raise Invalid("bad_cursor", "the cursor is not one that this server made", field="cursor")
    return int(cursor)
