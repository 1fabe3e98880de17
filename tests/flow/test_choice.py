"""Which of several workers gets a run."""

from collections import Counter
from pathlib import Path

from tests.e2e.stage import Object
from tests.flow.stand import Flow

LABELS = {"near": {"zone": "eu", "disk": "fast"}, "middle": {"zone": "eu"}, "far": {"zone": "us", "disk": "fast"}}
WANTED = {"zone": "eu", "disk": {"value": "fast", "required": False, "weight": 5}}


def three_workers(flow: Flow, task: Object) -> None:
    """Register three workers of a task, with two slots and labels each."""
    for name, labels in LABELS.items():
        flow.worker(f"{task['name']}.{name}", task, slots=2, labels=labels)


def where(flow: Flow, task: str) -> Counter[str]:
    """Return how many runs of a task have started at which worker."""
    return Counter(one["worker"].removeprefix(f"{task}.") for one in flow.journal.entries(task, event="started"))


def test_a_required_label_binds_and_a_preferred_one_decides(flow: Flow, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    three_workers(flow, {"name": "labels", "labels": WANTED})
    held = {"gate": str(gate)}

    flow.submit_all("labels", held, held)
    flow.until_started("labels", 2)
    assert where(flow, "labels") == {"near": 2}
    flow.submit_all("labels", *[held] * 4)
    flow.until_started("labels", 4)
    flow.settle()
    assert where(flow, "labels") == {"near": 2, "middle": 2}
    gate.touch()

    flow.until_completed("labels", 6)
    assert where(flow, "labels")["far"] == 0


def test_a_run_that_no_worker_may_take_waits_for_one_that_may(flow: Flow) -> None:
    task: Object = {"name": "nowhere", "labels": {"zone": "moon"}}
    three_workers(flow, task)
    [run_id] = flow.submit_all("nowhere", {})
    flow.settle()
    assert flow.states([run_id]) == ["queued"]

    flow.worker("nowhere.moon", task, labels={"zone": "moon"})

    assert flow.api.ended(run_id)["worker"] == "nowhere.moon"


def test_the_least_loaded_worker_is_taken(flow: Flow, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    three_workers(flow, {"name": "spread"})
    for started in (3, 6):
        flow.submit_all("spread", *[{"gate": str(gate)}] * 3)
        flow.until_started("spread", started)
        assert where(flow, "spread") == dict.fromkeys(LABELS, started // 3)
    gate.touch()
    flow.until_completed("spread", 6)


def test_the_child_of_a_run_goes_to_its_worker(flow: Flow, tmp_path: Path) -> None:
    """By hard stickiness also if it has to wait for that, by soft one only if there is room."""
    gate = tmp_path / "gate"
    hard, soft = {"name": "child.hard", "sticky": "hard"}, {"name": "child.soft", "sticky": "soft"}
    for name in ("left", "right"):
        flow.worker(f"family.{name}", {"name": "parent"}, hard, soft, slots=1)
    parent = flow.api.run("parent", {})
    home = parent["worker"]

    first = flow.api.submit("child.soft", {"gate": str(gate)}, parent=parent["id"])
    flow.until_started("child.soft", 1)
    waits = flow.api.submit("child.hard", {}, parent=parent["id"])
    flow.settle()
    goes = flow.api.submit("child.soft", {}, parent=parent["id"])

    assert flow.api.ended(goes["id"])["worker"] != home
    assert flow.states([waits["id"]]) == ["queued"]
    gate.touch()
    assert flow.api.ended(first["id"])["worker"] == home
    assert flow.api.ended(waits["id"])["worker"] == home
