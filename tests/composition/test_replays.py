"""Workflows that run again from where they failed, or from a node on: what was done well is not done again."""

from pathlib import Path

from tests.composition.stand import LONG, Stand, new
from tests.composition.test_graphs import node
from tests.e2e.stage import Object, until


def replay(stand: Stand, run_id: str, start: object = None, *, status: int = 200) -> Object:
    body = {} if start is None else {"from": start}
    found: Object = stand.api.call("POST", f"/runs/{run_id}/replay", body, status=status)
    return found


def starts(stand: Stand, name: str, *nodes: str) -> list[int]:
    """Return how often the tasks of these nodes have started."""
    return [len(stand.started(f"{name}.{one}")) for one in nodes]


def chain(stand: Stand, word: str) -> str:
    last = {"on_failure": {"name": "undo"}}
    return stand.workflow(new(word), node("a"), node("b"), node("c", "a", "b"), node("d", "c"), last=last)


def test_a_failed_workflow_goes_on_from_the_nodes_that_failed(either: Stand) -> None:
    name = chain(either, "mended")
    run_id = either.begin(name, {"a": {"output": "kept"}, "c": {"fails": 1}})
    failed = either.api.ended(run_id)
    assert (failed["state"], starts(either, name, "a", "b", "c", "d", "undo")) == ("failed", [1, 1, 1, 0, 1])
    old = either.node(run_id, "c")

    replay(either, run_id)
    again = either.api.ended(run_id)
    fresh = either.node(run_id, "c")

    assert again["state"] == "failed"  # its new run is at its first attempt again
    assert starts(either, name, "a", "b", "c", "d", "undo") == [1, 1, 2, 0, 2]
    assert (fresh["id"] != old["id"], fresh["was_node"]) == (True, None)
    shown = either.api.show(old["id"])
    assert (shown["state"], shown["was_node"], shown["error"]) == ("failed", "c", old["error"])
    assert [one["parents"] for one in either.noted("started", fresh["id"])] == [
        {"a": "kept", "b": {"node": "b", "parents": {}}}
    ]
    listed = {one["id"] for one in either.api.listed(parent=run_id)}
    assert listed >= {old["id"], fresh["id"]}


def test_a_workflow_completes_when_what_failed_is_mended(either: Stand, tmp_path: Path) -> None:
    gate, name = tmp_path / "mended", new("mended")
    either.workflow(name, node("a"), node("b", "a"), node("c", "b"))
    run_id = either.begin(name, {"b": {"gate": str(gate)}})
    b = either.until_node(run_id, "b", "running")
    either.until_noted("started", b["id"])
    either.api.call("POST", f"/runs/{b['id']}/cancel")
    assert either.api.ended(run_id)["state"] == "cancelled"
    gate.touch()

    until(
        lambda: either.api.send("POST", f"/runs/{run_id}/replay").status_code == 200, "replay, as its node has stopped"
    )

    run = either.api.ended(run_id)
    assert (run["state"], list(run["output"]), run["error"]) == ("completed", ["c"], None)
    assert starts(either, name, "a", "b", "c") == [1, 2, 1]


def test_a_workflow_runs_again_from_a_chosen_node(either: Stand) -> None:
    name = chain(either, "chosen")
    run_id = either.begin(name, {"a": {"output": "kept"}})
    first = either.api.ended(run_id)

    replay(either, run_id, ["c"])
    second = either.api.ended(run_id)

    assert (second["state"], second["output"]) == ("completed", first["output"])
    assert starts(either, name, "a", "b", "c", "d", "undo") == [1, 1, 2, 2, 0]
    replay(either, run_id)
    assert either.api.ended(run_id)["state"] == "completed"
    assert starts(either, name, "a", "b", "c", "d") == [2, 2, 3, 3]
    replay(either, run_id, "start")
    assert either.api.ended(run_id)["state"] == "completed"
    assert starts(either, name, "a", "b", "c", "d") == [3, 3, 4, 4]


def test_what_cannot_be_replayed_says_why(either: Stand) -> None:
    name = chain(either, "refused")
    run_id = either.begin(name)
    either.api.ended(run_id)
    one = either.node(run_id, "a")["id"]
    waiting = either.begin(name, delay=LONG)
    plain = new("plain")
    either.worker(plain, {"name": plain})
    task = either.api.run(plain, {})["id"]

    assert replay(either, one, status=409)["code"] == "run_is_node"
    assert "nobody" in replay(either, run_id, ["nobody"], status=422)["detail"]
    replay(either, run_id, "middle", status=422)
    replay(either, run_id, [], status=422)
    replay(either, waiting, status=409)
    replay(either, task, ["a"], status=422)
    assert starts(either, name, "a", "b", "c", "d") == [1, 1, 1, 1]


def test_a_workflow_that_never_began_is_replayed_whole(either: Stand) -> None:
    name = chain(either, "unbegun")
    run_id = either.begin(name, delay=LONG)
    either.api.call("POST", f"/runs/{run_id}/cancel")

    replay(either, run_id)

    assert either.api.ended(run_id)["state"] == "completed"


def test_a_replay_keeps_the_shape_that_the_run_had(either: Stand) -> None:
    name = new("shape")
    either.workflow(name, node("a"), node("b", "a"))
    run_id = either.begin(name)
    either.api.ended(run_id)
    either.workflow(name, node("only", task=f"{name}.a"))

    replay(either, run_id, "start")

    assert list(either.api.ended(run_id)["output"]) == ["b"]
    assert list(either.api.ended(either.begin(name))["output"]) == ["only"]


def test_of_many_that_are_replayed_workflows_go_on_and_their_nodes_are_left_to_them(either: Stand) -> None:
    name = either.workflow(new("bulk"), node("a"), node("b", "a"))
    ids = [either.begin(name, {"b": {"raise": "not yet"}}, input={"n": n}) for n in range(3)]
    assert {either.api.ended(run_id)["state"] for run_id in ids} == {"failed"}

    for task in (f"{name}.b", name):
        body = {"filter": {"task": task, "state": "failed"}}
        begun = either.api.call("POST", "/runs/replay", body, status=202)
        path = f"/operations/{begun['id']}"
        until(lambda path=path: either.api.call("GET", path)["state"] == "done", "replay")  # type: ignore[misc]
        done = either.api.call("GET", path)
        assert (done["matched"], done["done"], done["skipped"]) == ((3, 0, 3) if task != name else (3, 3, 0)), done

    assert {either.api.ended(run_id)["state"] for run_id in ids} == {"failed"}
    assert starts(either, name, "a", "b") == [3, 6]
