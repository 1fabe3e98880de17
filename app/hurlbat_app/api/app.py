"""The application: which path leads to which endpoint."""

from starlette.routing import Route, Router
from starlette.types import ASGIApp

from hurlbat_app.api.attempts import Attempts
from hurlbat_app.api.events import Events
from hurlbat_app.api.expressions import Expressions
from hurlbat_app.api.filters import Filters
from hurlbat_app.api.gate import Access, Gate, Resource, nowhere
from hurlbat_app.api.operations import Operations
from hurlbat_app.api.paths import EncodedRoute
from hurlbat_app.api.rate_limits import RateLimits
from hurlbat_app.api.reports import Reports
from hurlbat_app.api.runs import Runs
from hurlbat_app.api.schedules import Schedules
from hurlbat_app.api.service import Service
from hurlbat_app.api.tasks import Tasks
from hurlbat_app.api.webhooks import Webhooks
from hurlbat_app.api.workers import Workers
from hurlbat_app.api.workflows import Workflows
from hurlbat_dispatcher import Engine


def create_app(engine: Engine) -> ASGIApp:
    """Return the HTTP API of an engine, which whoever made it starts and stops."""
    router = Router(routes(engine), redirect_slashes=False, default=nowhere)
    return Gate(router, engine.settings.base_url, engine.settings.max_body_bytes)


def routes(engine: Engine) -> list[Route]:
    """Return all routes; submits come first, as they come most."""
    runs, reports, workers = Runs(engine), Reports(engine), Workers(engine)
    tasks, limits, service = Tasks(engine), RateLimits(engine), Service(engine)
    events, filters = Events(engine), Filters(engine)
    operations, attempts = Operations(engine), Attempts(engine)
    hooks, schedules, workflows = Webhooks(engine), Schedules(engine), Workflows(engine)
    attempt = "/runs/{run_id}/attempts/{attempt}"
    table: dict[str, Resource] = {
        "/runs": Resource(engine, POST=runs.submit, GET=runs.list),
        "/runs/bulk": Resource(engine, POST=runs.submit_many),
        "/runs/cancel": Resource(engine, POST=operations.cancel),
        "/runs/replay": Resource(engine, POST=operations.replay),
        "/operations": Resource(engine, GET=operations.list),
        "/operations/{operation_id}": Resource(engine, GET=operations.show),
        "/runs/{run_id}": Resource(engine, GET=runs.show, PATCH=runs.move),
        "/runs/{run_id}/events": Resource(engine, GET=runs.events),
        "/runs/{run_id}/explain": Resource(engine, GET=runs.explain),
        "/runs/{run_id}/attempts": Resource(engine, GET=attempts.list),
        attempt: Resource(engine, GET=attempts.show),
        f"{attempt}/heartbeat": Resource(engine, access=Access.LEASE, POST=reports.heartbeat),
        f"{attempt}/complete": Resource(engine, access=Access.LEASE, POST=reports.complete),
        f"{attempt}/fail": Resource(engine, access=Access.LEASE, POST=reports.fail),
        f"{attempt}/cancel": Resource(engine, access=Access.LEASE, POST=reports.cancel),
        f"{attempt}/log": Resource(engine, access=Access.LEASE, POST=reports.log),
        "/runs/{run_id}/cancel": Resource(engine, POST=runs.cancel),
        "/runs/{run_id}/replay": Resource(engine, POST=runs.replay),
        "/workers": Resource(engine, POST=workers.register, GET=workers.list),
        "/workers/{name}": Resource(engine, GET=workers.show, PATCH=workers.update, DELETE=workers.remove),
        "/workers/{name}/sync": Resource(engine, POST=workers.sync),
        "/workers/{name}/rotate-secret": Resource(engine, POST=workers.rotate),
        "/workers/{name}/pause": Resource(engine, POST=workers.pause),
        "/workers/{name}/resume": Resource(engine, POST=workers.resume),
        "/tasks": Resource(engine, GET=tasks.list),
        "/tasks/{name}": Resource(engine, GET=tasks.show),
        "/tasks/{name}/pause": Resource(engine, POST=tasks.pause),
        "/tasks/{name}/resume": Resource(engine, POST=tasks.resume),
        "/tasks/{name}/filters": Resource(engine, POST=filters.create, GET=filters.list),
        "/tasks/{name}/filters/{filter_id}": Resource(
            engine, GET=filters.show, PATCH=filters.update, DELETE=filters.remove
        ),
        "/workflows": Resource(engine, GET=workflows.list),
        "/workflows/{name}": Resource(engine, PUT=workflows.put, GET=workflows.show, DELETE=workflows.remove),
        "/events": Resource(engine, POST=events.publish, GET=events.list),
        "/events/bulk": Resource(engine, POST=events.publish_many),
        "/events/{event_id}": Resource(engine, GET=events.show),
        "/events/{event_id}/replay": Resource(engine, POST=events.replay),
        "/rate-limits": Resource(engine, GET=limits.list),
        "/rate-limits/{key}": Resource(engine, PUT=limits.put, GET=limits.show, DELETE=limits.remove),
        "/rate-limits/{key:path}/pause": Resource(engine, POST=limits.pause),
        "/rate-limits/{key:path}/resume": Resource(engine, POST=limits.resume),
        "/schedules": Resource(engine, POST=schedules.create, GET=schedules.list),
        "/schedules/preview": Resource(engine, POST=schedules.preview),
        "/schedules/{name}": Resource(engine, GET=schedules.show, PATCH=schedules.update, DELETE=schedules.remove),
        "/schedules/{name}/pause": Resource(engine, POST=schedules.pause),
        "/schedules/{name}/resume": Resource(engine, POST=schedules.resume),
        "/schedules/{name}/trigger": Resource(engine, POST=schedules.trigger),
        "/schedules/{name}/next": Resource(engine, GET=schedules.next),
        "/schedules/{name}/fires": Resource(engine, GET=schedules.fires),
        "/webhooks": Resource(engine, GET=hooks.list),
        "/webhooks/{name}": Resource(
            engine,
            but={"POST": Access.SENDER},
            POST=hooks.receive,
            PUT=hooks.put,
            GET=hooks.show,
            DELETE=hooks.remove,
        ),
        "/expressions/check": Resource(engine, POST=Expressions(engine).check),
        "/health/live": Resource(engine, access=Access.OPEN, GET=service.live),
        "/health/ready": Resource(engine, access=Access.OPEN, GET=service.ready),
        "/metrics": Resource(engine, GET=service.metrics),
        "/openapi.json": Resource(engine, GET=service.openapi),
        "/docs": Resource(engine, access=Access.OPEN, GET=service.docs),
    }
    return [_route_of(path)(path, endpoint) for path, endpoint in table.items()]


def _route_of(path: str) -> type[Route]:
    return EncodedRoute if path.startswith("/events/") else Route
