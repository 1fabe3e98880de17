"""Workflows in a turn: their graphs and nodes as they stand, and what came of nodes, read where it is not known yet."""

from collections.abc import Generator, Iterable, Sequence

import structlog

from hurlbat_dispatcher.domain.graph import Graph
from hurlbat_dispatcher.domain.runs import RunKind
from hurlbat_dispatcher.graphs import read_graph
from hurlbat_dispatcher.store import graphs
from hurlbat_dispatcher.store.graphs import NodeRow
from hurlbat_dispatcher.store.runs import RunRow
from hurlbat_dispatcher.store.statement import Ask, Rows
from hurlbat_dispatcher.turn.desk import Desk
from hurlbat_dispatcher.turn.ledger import Course, Ledger

log = structlog.get_logger("hurlbat.turn")

MOST_GRAPHS = 1_000
"""Graphs that are remembered; then all are forgotten, and read again."""


def read(desk: Desk, ledger: Ledger, tenant: int, ids: Iterable[str]) -> Generator[Ask, Rows, None]:
    """Know the courses of those of these runs, which were loaded, that are workflows."""
    wanted: dict[str, Graph] = {}
    for run_id in ids:
        row = ledger.rows.get(run_id)
        if row is not None and row.kind == RunKind.WORKFLOW and run_id not in ledger.courses:
            graph = yield from graph_of(desk, row)
            if graph is not None:
                wanted[run_id] = graph
    if not wanted:
        return
    for run_id, graph in wanted.items():
        ledger.courses[run_id] = Course(graph, {})
    rows = yield graphs.NODES.fetch(tenant, list(wanted))
    for node in map(NodeRow._make, rows):
        ledger.courses[node.parent].nodes[node.node] = node


def graph_of(desk: Desk, row: RunRow) -> Generator[Ask, Rows, Graph | None]:
    """Return the graph that a workflow's run was made with."""
    name = (row.tenant, row.task, row.task_version)
    if name not in desk.graphs:
        text = yield from graphs.shape_of(*name)
        if text is None:
            log.error("the shape of a workflow is missing", task=row.task, version=row.task_version, run=row.id)
            return None
        if len(desk.graphs) >= MOST_GRAPHS:
            desk.graphs.clear()
        desk.graphs[name] = read_graph(text)
    return desk.graphs[name]


def as_they_stand(ledger: Ledger, course: Course) -> None:
    """Let a course have its nodes as this turn has changed them."""
    for name, row in course.nodes.items():
        course.nodes[name] = ledger.rows.get(row.id, row)


def payload_of(row: RunRow, course: Course) -> Generator[Ask, Rows, tuple[str, str]]:
    """Return the input and the metadata of a workflow's run, in JSON."""
    if course.payload is None:
        rows = yield graphs.PAYLOADS.fetch(row.tenant, [row.id])
        _, given, metadata = rows[0]
        course.payload = (given, metadata)
    return course.payload


def outputs_of(
    ledger: Ledger, tenant: int, course: Course, names: Sequence[str]
) -> Generator[Ask, Rows, dict[str, str]]:
    """Return the outputs of nodes by name, in JSON; null of those that have none."""
    ids = {course.nodes[name].id: name for name in names if name in course.nodes}
    found = dict.fromkeys(names, "null")
    unknown = [run_id for run_id in ids if run_id not in ledger.outputs]
    rows = (yield graphs.OUTPUTS.fetch(tenant, unknown)) if unknown else ()
    for run_id, output in (*rows, *((run_id, ledger.outputs[run_id]) for run_id in ids if run_id in ledger.outputs)):
        found[ids[run_id]] = output or "null"
    return found


def errors_of(ledger: Ledger, tenant: int, ids: Sequence[str]) -> Generator[Ask, Rows, dict[str, str | None]]:
    """Return the errors of runs, in JSON."""
    unknown = [run_id for run_id in ids if run_id not in ledger.errors]
    rows = (yield graphs.ERRORS.fetch(tenant, unknown)) if unknown else ()
    found: dict[str, str | None] = {row[0]: row[1] for row in rows}
    return found | {run_id: ledger.errors[run_id] for run_id in ids if run_id in ledger.errors}
