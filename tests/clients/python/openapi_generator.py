"""Every operation with the client that openapi-generator generates. Prints a line of JSON for each."""

import json
import os
from uuid import UUID, uuid4

import hurlbat_client as api

NAME = os.environ["CLIENT_NAME"]


def tell(operation: str, **result: object) -> None:
    print(json.dumps({"operation": operation, **result}), flush=True)


def connect(token: str) -> api.ApiClient:
    return api.ApiClient(api.Configuration(host=os.environ["HURLBAT_URL"], access_token=token))


def everything(client: api.ApiClient) -> None:
    runs = api.RunsApi(client)

    spec = api.WorkerSpec(
        name="greeter",
        url=os.environ["WORKER_URL"],
        secret=os.environ["WORKER_SECRET"],
        slots=10,
        window=api.WindowSetting("auto"),
        labels={"language": NAME},
    )
    worker = api.WorkersApi(client).register_worker(spec)
    tell("register", name=worker.name, state=worker.state, language=worker.labels["language"])

    run = runs.submit_run(api.Submission(task="greet", input={"name": "Ada"}, idempotency_key=NAME))
    tell("submit", id=str(run.id), task=run.task, input=run.input)

    ended = runs.get_run(run.id, wait=30)
    assert ended.state is api.RunState.COMPLETED
    tell("wait", id=str(ended.id), state=ended.state, output=ended.output)

    names = ["Grace", "Edsger", "Barbara", "Tony"]
    good = [api.Submission(task="greet", input={"name": name}) for name in names]
    bulk = runs.submit_runs(api.BulkSubmission(runs=[*good, api.Submission(task="greet", idempotency_ttl=60)]))
    outcomes = [outcome.actual_instance for outcome in bulk.results]
    stored = [outcome for outcome in outcomes if isinstance(outcome, api.Run)]
    refused = [outcome for outcome in outcomes if isinstance(outcome, api.Problem)]
    tell("bulk", ids=[str(outcome.id) for outcome in stored], codes=[outcome.code for outcome in refused])

    event = api.EventsApi(client).publish_event(api.EventSpec(key="user.joined", payload={"name": "Alan"}))
    tell("publish", key=event.key, starts=[[start.task, start.outcome] for start in event.starts])

    daily = api.ScheduleSpec(
        task="greet", name=NAME, expression="0 6 * * *", timezone="UTC", overlap=api.OverlapPolicy.SKIP
    )
    schedule = api.SchedulesApi(client).create_schedule(daily)
    tell("schedule", name=schedule.name, overlap=schedule.overlap, hour=schedule.next_at and schedule.next_at.hour)

    pages, found = 0, list[UUID]()
    cursor: str | None = None
    while pages == 0 or cursor is not None:
        page = runs.list_runs(task="greet", limit=2, cursor=cursor)
        found += [one.id for one in page.items]
        pages, cursor = pages + 1, page.next_cursor
    tell("list", pages=pages, ids=[str(one) for one in found])

    later = runs.submit_run(api.Submission(task="greet", delay=3600))
    cancelled = runs.cancel_run(later.id, api.Cancellation(reason="not needed"))
    tell("cancel", state=cancelled.state, by=cancelled.cancelled_by, reason=cancelled.reason)

    for operation, used, wanted in (
        ("problem", runs, uuid4()),
        ("unauthorized", api.RunsApi(connect("wrong")), run.id),
    ):
        try:
            used.get_run(wanted)
        except api.ApiException as refusal:
            problem = refusal.data
            assert isinstance(problem, api.Problem)
            tell(operation, status=problem.status, code=problem.code, detail=problem.detail)


with connect(os.environ["HURLBAT_TOKEN"]) as client:
    everything(client)
