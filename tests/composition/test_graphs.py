"""What workflows do from their first node to their last, over HTTP on both databases, by the workers' journal."""

from pathlib import Path

from tests.composition.stand import Stand, new
from tests.e2e.stage import Object, until


def node(name: str, *parents: str, **more: object) -> Object:
    return {"name": name, "parents": parents} | more


def test_six_nodes_of_which_one_fails_and_one_cancels_itself(either: Stand) -> None:
    six = either.workflow(
        new("six"),
        *(node("left"), node("right"), node("join", "left", "right")),
        *(node("more", "join"), node("fails", "join"), node("leaves", "left")),
    )
    run_id = either.begin(six, {"fails": {"raise": "out of paper"}, "leaves": {"give_up": "nothing to do"}})

    run = either.api.ended(run_id)

    ends = {"left": "completed", "right": "completed", "join": "completed", "more": "completed"}
    assert either.stood(run_id) == ends | {"fails": "failed", "leaves": "cancelled"}
    failed, left = either.node(run_id, "fails"), either.node(run_id, "leaves")
    assert (failed["error"]["type"], failed["error"]["message"]) == ("NonRetryable", "out of paper")
    assert (left["reason"], left["cancelled_by"]) == ("nothing to do", "task")
    assert (run["state"], run["output"]) == ("failed", None)
    error = {"code": "node_failed", "type": "NonRetryable", "node": "fails", "run": failed["id"]}
    assert {member: run["error"][member] for member in error} == error
    assert run["error"]["message"] == "node fails failed: NonRetryable: out of paper"
    assert [len(either.started(f"{six}.{name}")) for name in ("left", "join", "fails", "leaves")] == [1] * 4


def test_a_node_starts_after_all_its_parents_have_ended_and_gets_their_outputs(either: Stand, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    name = either.workflow(new("join"), node("quick"), node("slow"), node("both", "quick", "slow"))
    run_id = either.begin(name, {"quick": {"output": [1, "a"]}, "slow": {"gate": str(gate), "output": {"n": 1.0}}})
    either.until_node(run_id, "quick", "completed")
    either.settle()
    assert either.stood(run_id)["both"] not in ("queued", "running", "completed")

    gate.touch()
    run = either.api.ended(run_id)

    both = either.node(run_id, "both")
    assert run["output"] == {"both": {"node": "both", "parents": {"quick": [1, "a"], "slow": {"n": 1.0}}}}
    assert (both["kind"], both["node"], both["parent"], both["root"]) == ("node", "both", run_id, run_id)
    trigger = both["trigger"]
    assert (trigger["type"], trigger["workflow"], trigger["run"], trigger["node"]) == ("workflow", name, run_id, "both")
    parents = {
        parent: {"run": either.nodes(run_id)[parent]["run"], "state": "completed"} for parent in trigger["parents"]
    }
    assert trigger["parents"] == parents
    spans = {
        span.run_id: span for span in either.journal.spans(*(f"{name}.{one}" for one in ("quick", "slow", "both")))
    }
    ended = [spans[either.nodes(run_id)[parent]["run"]].end for parent in ("quick", "slow")]
    assert spans[both["id"]].start >= max(ended)


def test_a_node_inherits_metadata_and_priority_and_has_an_input_of_its_own(either: Stand) -> None:
    name = either.workflow(
        new("given"), node("made"), node("from", "made", input='{"n": parents.made.n + input.by, "of": metadata.m}')
    )
    does = {"made": {"output": {"n": 40}}}
    run_id = either.begin(name, does, input={"by": 2}, metadata={"m": "x"}, priority=7)

    either.api.ended(run_id)

    made, derived = (either.node(run_id, node_name) for node_name in ("made", "from"))
    assert (made["input"], derived["input"]) == ({"by": 2, "does": does}, {"n": 42, "of": "x"})
    assert [(run["metadata"], run["priority"]) for run in (made, derived)] == [({"m": "x"}, 7)] * 2


def test_what_follows_a_failure_runs_when_all_others_have_ended_and_knows_what_was_done(
    either: Stand, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    last = {"on_failure": {"name": "undo"}, "on_success": {"name": "thank"}}
    name = either.workflow(new("sad"), node("done"), node("bad"), node("slow"), node("after", "bad"), last=last)
    does = {"bad": {"raise": "no"}, "slow": {"gate": str(gate)}, "done": {"output": "shelf 7"}}
    run_id = either.begin(name, does)
    either.until_node(run_id, "bad", "failed")
    either.settle()
    assert either.stood(run_id).get("undo") not in ("queued", "running", "completed")

    gate.touch()
    run = either.api.ended(run_id)

    assert run["state"] == "failed"
    stood = either.stood(run_id)
    assert (stood["undo"], stood["after"], stood["slow"]) == ("completed", "cancelled", "completed")
    after = either.node(run_id, "after")
    assert (after["reason"], after["cancelled_by"]) == ("node bad failed", "node")
    [noted] = either.noted("started", either.node(run_id, "undo")["id"])
    assert noted["parents"]["done"] == "shelf 7"
    assert either.started(f"{name}.thank") == []


def test_what_follows_a_success_ends_before_the_workflow_does(either: Stand, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    last = {"on_failure": {"name": "mourn"}, "on_success": {"name": "cheer"}}
    name = either.workflow(new("glad"), node("all"), last=last)
    run_id = either.begin(name, {"cheer": {"gate": str(gate)}, "all": {"output": 1}})
    either.until_node(run_id, "cheer", "running")
    assert either.api.show(run_id)["state"] == "running"

    gate.touch()
    run = either.api.ended(run_id)

    assert (run["state"], run["output"]) == ("completed", {"all": 1})
    assert "mourn" not in {name for name, state in either.stood(run_id).items() if state == "completed"}


def test_a_workflow_fails_when_what_follows_its_success_fails(stand: Stand) -> None:
    name = stand.workflow(new("almost"), node("all"), last={"on_success": {"name": "spoil"}})

    run = stand.api.ended(stand.begin(name, {"spoil": {"raise": "at the last moment"}}))

    assert (run["state"], run["error"]["node"]) == ("failed", "spoil")


def test_a_node_is_tried_again_by_the_policy_of_its_own_task(either: Stand) -> None:
    name = new("tried")
    backoff = {"strategy": "fixed", "initial": 0.05, "jitter": False}
    either.worker(f"{name}-own", {"name": f"{name}.node", "retries": 2, "backoff": backoff})
    either.workflow(name, node("shaky", task=f"{name}.node"))

    run = either.api.ended(either.begin(name, {"shaky": {"fails": 2, "output": "at last"}}))

    assert (run["state"], run["output"]) == ("completed", {"shaky": "at last"})
    assert [one["attempt"] for one in either.started(f"{name}.node")] == [1, 2, 3]
    assert either.node(run["id"], "shaky")["tries"] == 3


def test_nodes_on_two_workers_of_which_one_is_plain(either: Stand) -> None:
    name = new("two")
    either.worker(f"{name}-sdk", {"name": f"{name}.a"}, {"name": f"{name}.c"})
    either.plain(f"{name}-plain", {"name": f"{name}.b"})
    nodes = (node("a", task=f"{name}.a"), node("b", "a", task=f"{name}.b"), node("c", "b", task=f"{name}.c"))
    either.workflow(name, *nodes)

    run = either.api.ended(either.begin(name, {"a": {"output": "by the SDK"}}))

    b = {"node": "b", "parents": {"a": "by the SDK"}}
    assert run["output"] == {"c": {"node": "c", "parents": {"b": b}}}
    assert [either.node(run["id"], one)["worker"] for one in "abc"] == [f"{name}-sdk", f"{name}-plain", f"{name}-sdk"]


def test_a_workflow_is_a_node_of_another(either: Stand) -> None:
    inner = either.workflow(new("inner"), node("i1"), node("i2", "i1"))
    outer = new("outer")
    nodes = (node("before"), node("within", "before", task=inner), node("behind", "within"))
    either.workflow(outer, *nodes)

    run = either.api.ended(either.begin(outer, {"i2": {"output": "deep"}}))

    assert run["output"] == {"behind": {"node": "behind", "parents": {"within": {"i2": "deep"}}}}
    within = either.node(run["id"], "within")
    assert (within["kind"], within["node"], within["parent"], within["root"]) == (
        *("workflow", "within"),
        *(run["id"], run["id"]),
    )
    assert either.node(within["id"], "i1")["root"] == run["id"]
    bad = either.api.ended(either.begin(outer, {"i1": {"raise": "deep down"}}))
    assert (bad["state"], bad["error"]["node"]) == ("failed", "within")
    assert either.stood(bad["id"])["behind"] == "cancelled"


def test_a_running_workflow_keeps_its_shape_when_a_newer_one_is_registered(either: Stand, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    name = either.workflow(new("shaped"), node("one"), node("old", "one"))
    does = {"one": {"gate": str(gate)}}
    before = either.begin(name, does)
    either.until_node(before, "one", "running")
    either.worker(f"{name}-more", {"name": f"{name}.newer"})
    either.workflow(name, node("newer", task=f"{name}.newer"), node("one", "newer", task=f"{name}.one"))
    after = either.begin(name, does)
    either.until_node(after, "one", "running")

    gate.touch()

    assert list(either.api.ended(before)["output"]) == ["old"]
    assert list(either.api.ended(after)["output"]) == ["one"]
    assert either.stood(before) == {"one": "completed", "old": "completed"}
    assert either.stood(after) == {"newer": "completed", "one": "completed"}
    assert either.api.call("GET", f"/workflows/{name}")["version"] == 2


def test_an_event_and_a_clock_start_workflows(either: Stand) -> None:
    name = new("started")
    crons = [{"expression": "0 0 1 1 *", "input": {"does": {"only": {"output": "by a clock"}}}}]
    either.workflow(name, node("only"), on_events=[f"{name}:*"], crons=crons)

    payload = {"does": {"only": {"output": "by an event"}}}
    event = either.api.call("POST", "/events", {"key": f"{name}:x", "payload": payload}, status=201)
    [run_id] = [start["run"] for start in event["starts"]]
    triggered = either.api.call("POST", f"/schedules/{name}.0/trigger", {}, status=201)

    by_event, by_clock = either.api.ended(run_id), either.api.ended(triggered["id"])
    assert (by_event["kind"], by_event["output"]) == ("workflow", {"only": "by an event"})
    assert (by_clock["kind"], by_clock["output"]) == ("workflow", {"only": "by a clock"})
    assert [run["trigger"]["type"] for run in (by_event, by_clock)] == ["event", "schedule"]


def test_a_clock_starts_a_workflow_each_second(stand: Stand) -> None:
    name = stand.workflow(new("ticks"), node("tick"), crons=[{"expression": "* * * * * *"}])

    until(lambda: len(list(stand.api.listed(task=name, state="completed"))) >= 2, "two workflows by a clock")
    stand.api.call("DELETE", f"/workflows/{name}", status=204)

    due = [run["trigger"]["due_at"] for run in stand.api.listed(task=name)]
    assert len(due) == len(set(due))


def test_a_task_that_no_worker_serves_any_more_makes_its_node_wait_and_says_so(either: Stand) -> None:
    name = new("orphan")
    either.plain(f"{name}-own", {"name": f"{name}.gone"}, {"name": f"{name}.there"})
    either.workflow(name, node("gone", task=f"{name}.gone"), node("there", task=f"{name}.there"))
    either.plain(f"{name}-own", {"name": f"{name}.there"})

    run_id = either.begin(name)
    either.until_node(run_id, "there", "completed")
    waiting = either.until_node(run_id, "gone", "queued")
    told = either.api.call("GET", f"/runs/{waiting['id']}/explain")
    assert "serve" in str(told), told
    either.plain(f"{name}-own", {"name": f"{name}.there"}, {"name": f"{name}.gone"})

    assert either.api.ended(run_id)["state"] == "completed"


def test_children_of_nodes_belong_to_the_workflow(stand: Stand) -> None:
    name = stand.workflow(new("fanned"), node("fan"), node("count", "fan"))
    stand.worker(f"{name}-child", {"name": f"{name}.child"})
    spawn = {"task": f"{name}.child", "inputs": [{"n": n} for n in range(20)], "wait": True}

    run = stand.api.ended(stand.begin(name, {"fan": {"spawn": spawn}}))

    children = list(stand.api.listed(task=f"{name}.child"))
    fan = stand.node(run["id"], "fan")
    assert {(child["parent"], child["root"]) for child in children} == {(fan["id"], run["id"])}
    assert len(run["output"]["count"]["parents"]["fan"]["spawned"]) == len(children) == 20
    everything = {one["id"] for one in stand.api.listed(root=run["id"])}
    assert everything >= {child["id"] for child in children} | {fan["id"], stand.node(run["id"], "count")["id"]}


def test_a_worker_may_bring_workflows_along_with_its_tasks(either: Stand) -> None:
    name = new("brought")
    graph = {"nodes": [node("a", task=f"{name}.a"), node("b", "a", task=f"{name}.a")]}
    either.plain(name, {"name": f"{name}.a"}, {"name": name, "graph": graph, "on_events": [name]})

    event = either.api.call("POST", "/events", {"key": name}, status=201)

    [run_id] = [start["run"] for start in event["starts"]]
    assert list(either.api.ended(run_id)["output"]) == ["b"]
    shown = either.api.call("GET", f"/workflows/{name}")
    assert [one["name"] for one in shown["nodes"]] == ["a", "b"]
