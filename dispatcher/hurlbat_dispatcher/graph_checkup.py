"""What must hold of workflows in the rows of one snapshot, and what should have happened to them by now."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Final

from hurlbat_dispatcher.domain.graph import Action, Fate, Graph, Place, decide, next_steps, outcome
from hurlbat_dispatcher.domain.lifecycle import FINAL, RunState
from hurlbat_dispatcher.domain.runs import RunKind
from hurlbat_dispatcher.findings import Code, Finding, Severity, warn
from hurlbat_dispatcher.graphs import read_graph
from hurlbat_dispatcher.store.checkup import SeenRun, Sight
from hurlbat_dispatcher.store.graph_checkup import SeenFlow, SeenNode, SeenWait

REPORT: Final = "nothing that Hurlbat does leaves such a row: if nobody changed it by hand, please report it"
ACT: Final = "a server should have acted, so look at its log, and restart it if it says nothing"


def graph_violations(sight: Sight) -> Iterator[Finding]:
    """Find what must never be in any committed state."""
    graphs = sight.graphs
    waits = _by_run(graphs.waits)
    for wait in graphs.waits:
        if wait.state is None:
            says = f"a condition is kept for run {wait.run}, which is not there"
            yield Finding(Code.WAIT_WITHOUT_RUN, Severity.VIOLATION, wait.run, f"{says}; {REPORT}")
    for run in sight.runs:
        if run.state == RunState.SUSPENDED and run.id not in waits:
            says = f"run {run.id} waits for conditions, and none is kept, so that nothing ever wakes it"
            yield Finding(Code.SUSPENDED_WITHOUT_WAIT, Severity.VIOLATION, run.id, f"{says}; {REPORT}")
        if run.node is not None and run.state not in FINAL and run.parent not in graphs.parents:
            says = f"run {run.id} is the node {run.node} of run {run.parent}, which is not there"
            yield Finding(Code.NODE_WITHOUT_WORKFLOW, Severity.VIOLATION, run.id, f"{says}; {REPORT}")
    told = {one.subject for one in graphs.news}
    for flow, graph, nodes in _under_way(sight):
        if graph is None:
            says = f"run {flow.id} of the workflow {flow.task} has version {flow.task_version}, whose graph is missing"
            yield Finding(Code.SHAPE_MISSING, Severity.VIOLATION, flow.id, f"{says}, so it cannot go on; {REPORT}")
        elif told.isdisjoint((flow.id, *(node.id for node in nodes))):
            ought = _ought(graph, nodes)
            if ought is not None:
                says = f"run {flow.id} of the workflow {flow.task} {ought}, and nobody will look at it"
                yield Finding(Code.WORKFLOW_FORGOTTEN, Severity.VIOLATION, flow.id, f"{says}; {REPORT}")


def graph_warnings(sight: Sight, before: int, held: frozenset[int]) -> Iterator[Finding]:
    """Find what should have happened before then (ms), a server being there. Runs of lanes that are `held` may wait."""
    graphs = sight.graphs
    finished = {run.id: run.finished_at for run in sight.runs}
    for one in graphs.news:
        since = one.since if one.since is not None else finished.get(one.subject)
        if since is not None and since < before:
            what = "an event" if one.kind == "event" else "the end of a run"
            yield _late(
                Code.NEWS_NOT_READ, one.subject, f"{what} ({one.subject})", "is followed by nobody", sight, since
            )
    for wait in graphs.waits:
        if wait.finished_at is not None and wait.finished_at < before:
            says = "has ended, and its conditions are still waited for"
            yield _late(Code.WAIT_OUTLIVES_RUN, wait.run, f"run {wait.run}", says, sight, wait.finished_at)
        elif wait.state not in (None, *FINAL) and wait.met_at is None and (wait.due_at or before) < before:
            says = "waits for a sleep that is over"
            yield _late(Code.SLEEP_NOT_SEEN, wait.run, f"run {wait.run}", says, sight, wait.due_at or before)
    for run in sight.runs:
        parent = graphs.parents.get(run.parent or "")
        ended = parent.finished_at if parent is not None and run.node is not None and run.state not in FINAL else None
        if ended is not None and ended < before:
            says = f"goes on as the node {run.node} of a workflow that has ended"
            yield _late(Code.NODE_OUTLIVES_WORKFLOW, run.id, f"run {run.id}", says, sight, ended)
        if _waits_in_vain(run, before, held):
            says = "waits, and nothing holds it back"
            yield _late(
                Code.WORKFLOW_NOT_BEGUN, run.id, f"run {run.id} of the workflow {run.task}", says, sight, run.due_at
            )
    yield from _not_woken(sight, before)


def _waits_in_vain(run: SeenRun, before: int, held: frozenset[int]) -> bool:
    waits = run.kind == RunKind.WORKFLOW and run.state == RunState.QUEUED and run.ready
    return bool(waits) and run.due_at < before and run.lane not in held


def _not_woken(sight: Sight, before: int) -> Iterator[Finding]:
    waits = _by_run(sight.graphs.waits)
    for _, graph, nodes in _under_way(sight):
        for node in nodes:
            if graph is None or node.state != RunState.SUSPENDED:
                continue
            last = max((wait.met_at for wait in waits[node.id] if wait.met_at is not None), default=node.created_at)
            if last < before and _fate(graph, node, waits[node.id]) is not Fate.WAIT:
                says = f"waits as the node {node.node}, and what it waits for came true"
                yield _late(Code.NODE_NOT_WOKEN, node.id, f"run {node.id}", says, sight, last)


def _fate(graph: Graph, node: SeenNode, waits: Sequence[SeenWait]) -> Fate:
    found = {Place(Action(one.action), one.clause, one.place): one.met_at is not None for one in waits}
    said = graph.node(node.node)
    places = (
        Place(action, n, place)
        for action, clauses in said.clauses
        for n, clause in enumerate(clauses)
        for place in range(len(clause))
    )
    return decide(said, {place: place in found for place in places if found.get(place) is not False})


def _ought(graph: Graph, nodes: Sequence[SeenNode]) -> str | None:
    """Return what a workflow ought to have done, if it ought to."""
    states = {node.node: RunState(node.state) for node in nodes}
    steps = next_steps(graph, states)
    if steps:
        return f"should have gone on with the node {steps[0].node.name}"
    state = outcome(graph, states)
    return None if state is None else f"should have ended as {state}, as all its nodes have ended"


def _under_way(sight: Sight) -> Iterator[tuple[SeenFlow, Graph | None, list[SeenNode]]]:
    nodes: defaultdict[str, list[SeenNode]] = defaultdict(list)
    for node in sight.graphs.nodes:
        nodes[node.parent].append(node)
    graphs: dict[str, Graph] = {}
    for flow in sight.graphs.flows:
        if flow.graph is not None and flow.graph not in graphs:
            graphs[flow.graph] = read_graph(flow.graph)
        yield flow, None if flow.graph is None else graphs[flow.graph], nodes[flow.id]


def _by_run(waits: Sequence[SeenWait]) -> defaultdict[str, list[SeenWait]]:
    found: defaultdict[str, list[SeenWait]] = defaultdict(list)
    for wait in waits:
        found[wait.run].append(wait)
    return found


def _late(code: Code, subject: str, name: str, says: str, sight: Sight, since: int) -> Finding:
    return warn(code, subject, f"{name} {says} since {(sight.now - since) / 1000:.0f} s; {ACT}")
