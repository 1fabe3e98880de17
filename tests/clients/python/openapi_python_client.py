"""Every operation with the client that openapi-python-client generates. Prints a line of JSON for each."""

import json
import os
from typing import TypeVar
from uuid import UUID, uuid4

from httpx import Timeout
from hurlbat_client import AuthenticatedClient
from hurlbat_client.api.events import publish_event
from hurlbat_client.api.runs import cancel_run, get_run, list_runs, submit_run, submit_runs
from hurlbat_client.api.schedules import create_schedule
from hurlbat_client.api.workers import register_worker
from hurlbat_client.models import (
    BulkSubmission,
    Cancellation,
    EventSpec,
    Labels,
    OverlapPolicy,
    Problem,
    Run,
    RunState,
    ScheduleSpec,
    Submission,
    WorkerSpec,
)
from hurlbat_client.types import UNSET, Unset

NAME = os.environ["CLIENT_NAME"]
Answer = TypeVar("Answer")


class Refused(Exception):
    """The server answered with a problem."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem


def good(answer: Answer | Problem | None) -> Answer:
    if isinstance(answer, Problem):
        raise Refused(answer)
    if answer is None:
        raise RuntimeError("there was no answer")
    return answer


def tell(operation: str, **result: object) -> None:
    print(json.dumps({"operation": operation, **result}), flush=True)


def connect(token: str) -> AuthenticatedClient:
    # `wait` keeps a request open for up to a minute
    return AuthenticatedClient(base_url=os.environ["HURLBAT_URL"], token=token, timeout=Timeout(90))


def everything(client: AuthenticatedClient) -> None:
    spec = WorkerSpec(
        name="greeter",
        url=os.environ["WORKER_URL"],
        secret=os.environ["WORKER_SECRET"],
        slots=10,
        window="auto",
        labels=Labels.from_dict({"language": NAME}),
    )
    worker = good(register_worker.sync(client=client, body=spec))
    tell("register", name=worker.name, state=worker.state, language=worker.labels["language"])

    submission = Submission(task="greet", input_={"name": "Ada"}, idempotency_key=NAME)
    run = good(submit_run.sync(client=client, body=submission))
    tell("submit", id=str(run.id), task=run.task, input=run.input_)

    ended = good(get_run.sync(run.id, client=client, wait=30.0))
    assert ended.state is RunState.COMPLETED
    tell("wait", id=str(ended.id), state=ended.state, output=ended.output)

    names = ["Grace", "Edsger", "Barbara", "Tony"]
    runs = [Submission(task="greet", input_={"name": name}) for name in names]
    bulk = good(
        submit_runs.sync(client=client, body=BulkSubmission([*runs, Submission("greet", idempotency_ttl=60.0)]))
    )
    stored = [outcome for outcome in bulk.results if isinstance(outcome, Run)]
    refused = [outcome for outcome in bulk.results if isinstance(outcome, Problem)]
    tell("bulk", ids=[str(outcome.id) for outcome in stored], codes=[outcome.code for outcome in refused])

    event = good(publish_event.sync(client=client, body=EventSpec(key="user.joined", payload={"name": "Alan"})))
    tell("publish", key=event.key, starts=[[start.task, start.outcome] for start in event.starts])

    daily = ScheduleSpec(task="greet", name=NAME, expression="0 6 * * *", timezone="UTC", overlap=OverlapPolicy.SKIP)
    schedule = good(create_schedule.sync(client=client, body=daily))
    tell("schedule", name=schedule.name, overlap=schedule.overlap, hour=schedule.next_at and schedule.next_at.hour)

    pages, found = 0, list[UUID]()
    cursor: str | Unset | None = UNSET
    while cursor is not None:
        page = good(list_runs.sync(client=client, task="greet", limit=2, cursor=cursor))
        found += [one.id for one in page.items]
        pages, cursor = pages + 1, page.next_cursor
    tell("list", pages=pages, ids=[str(one) for one in found])

    later = good(submit_run.sync(client=client, body=Submission(task="greet", delay=3600.0)))
    cancelled = good(cancel_run.sync(later.id, client=client, body=Cancellation(reason="not needed")))
    tell("cancel", state=cancelled.state, by=cancelled.cancelled_by, reason=cancelled.reason)

    for operation, used, wanted in (
        ("problem", client, uuid4()),
        ("unauthorized", connect("wrong"), run.id),
    ):
        try:
            good(get_run.sync(wanted, client=used))
        except Refused as refusal:
            problem = refusal.problem
            tell(operation, status=problem.status, code=problem.code, detail=problem.detail)


with connect(os.environ["HURLBAT_TOKEN"]) as client:
    everything(client)
