"""Print runs, workers, tasks and rate limits for people: sentences are wrapped, tables are as wide as they must be."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import typer

from hurlbat_app.cli.wrapping import wrapped
from hurlbat_app.demo.story import Moment, ending, short, tell

FINAL = frozenset({"completed", "failed", "cancelled", "skipped"})


def print_columns(
    heads: Sequence[str], rows: Sequence[Sequence[Any]], *, nothing: str, below: Sequence[str] = ()
) -> None:
    """Print rows under their heads, each with what stands `below` it, or a sentence where there are none."""
    if not rows:
        typer.echo(nothing)
        return
    texts = [["-" if cell is None else str(cell) for cell in row] for row in rows]
    widths = [max(len(cell) for cell in column) for column in zip(heads, *texts, strict=True)]
    indent = " " * (widths[0] + 2)
    for row, sentence in zip(
        [[head.upper() for head in heads], *texts], ["", *(below or [""] * len(texts))], strict=True
    ):
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        if sentence:
            typer.echo(wrapped(indent + sentence, len(indent)))


def print_run(run: Mapping[str, Any]) -> None:
    """Print a run's story: what happened, how long after its submit, and how it ended."""
    typer.echo(f"{run['task']}  {run['id']}")
    for moment in tell(run):
        print_moment(moment)
    if run.get("nodes"):
        heads = ("  node", "task", "state", "run", "reason")
        rows = [(f"  {one['name']}", one["task"], one["state"], one["run"], one["reason"]) for one in run["nodes"]]
        print_columns(heads, rows, nothing="")
    if run.get("children", {}).get("total"):
        states = ", ".join(f"{count} {state}" for state, count in sorted(run["children"]["by_state"].items()))
        typer.echo(f"  children: {states}")
    if run["state"] in FINAL:
        print_run_end(run)
    else:
        typer.echo(wrapped(f"  {standing(run)}", 2))


def print_moment(moment: Moment) -> None:
    """Print something that happened to a run."""
    typer.echo(wrapped(f"  {moment.after:9.3f} s  {moment.text}", 15))


def print_run_end(run: Mapping[str, Any]) -> None:
    """Print how a run ended, and where its error came from."""
    typer.echo(wrapped(f"  {ending(run)}", 2))
    _print_stack(run["error"] or {})


def _print_stack(error: Mapping[str, Any]) -> None:
    """Print where the error came from; the story has said its message."""
    for line in (error.get("stack") or "").rstrip().splitlines():
        typer.echo(typer.style(f"    {line}", dim=True))


def standing(run: Mapping[str, Any]) -> str:
    """Return in a few words where a run stands that has not ended."""
    if run["state"] == "suspended" or (run["state"] == "running" and run["kind"] == "workflow"):
        return str(run["state"])
    if run["state"] != "queued":
        return f"{run['state']}, attempt {run['attempt']} on {run['worker']}"
    away = (datetime.fromisoformat(run["due_at"]) - datetime.now(UTC)).total_seconds()
    when = f"due in {away:.1f} s" if away > 0 else "due"
    return f"queued, {when}" + (f": {run['reason']}" if run["reason"] else "")


def print_worker(worker: Mapping[str, Any]) -> None:
    """Print a worker."""
    typer.echo(f"{worker['name']}  {worker['url']}")
    rows = [
        ("state", state_of(worker)),
        ("mode", worker["mode"]),
        ("slots", f"{worker['in_flight']} in use, {worker['window']} of {worker['slots']} open{_pinned(worker)}"),
        ("tasks", ", ".join(worker["tasks"]) or "none known"),
        ("last seen", worker["last_seen_at"] or "never"),
    ]
    if worker["labels"]:
        rows.append(("labels", short(worker["labels"])))
    rows += [("key", _key(key)) for key in worker["keys"]]
    print_rows(rows)
    if "secret" in worker:
        typer.echo("\n  The signing secret, shown this once; the worker needs it:")
        typer.echo(f"  export HURLBAT_SIGNING_SECRET={worker['secret']}")


def _key(key: Mapping[str, Any]) -> str:
    since = f", since {key['created_at']}" if key["created_at"] else ""
    until = f", until {key['until']}" if key["until"] else ""
    public = f", {key['public_key']}" if key["public_key"] else ""
    return f"{key['id']} ({key['algorithm']}{since}{until}{public})"


def _pinned(worker: Mapping[str, Any]) -> str:
    return "" if worker["pinned"] is None else f", pinned at {worker['pinned']}"


def state_of(worker: Mapping[str, Any]) -> str:
    """Return a worker's state, and what is wrong with it."""
    said = worker["problem"] or ""
    return f"{worker['state']}: {said.removeprefix('paused; ')}" if said else str(worker["state"])


def print_task(task: Mapping[str, Any]) -> None:
    """Print a task and the policy in force."""
    typer.echo(task["name"])
    start = task["schedule_timeout"]
    print_rows(
        [
            *([("paused", "until resumed; its runs are held")] if task["paused"] else []),
            ("workers", ", ".join(task["workers"]) or "none"),
            *_attempt_rows(task),
            *([] if start is None else [("start", f"{start:g} s after it is due at most")]),
            ("priority", task["priority"]),
            *flow_rows(task),
            *way_rows(task),
        ]
    )


def _attempt_rows(task: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return how attempts are made, of which a workflow has none."""
    if task["graph"]:
        return [("nodes", f"{len(task['graph']['nodes'])}; more: hurlbat workflows show {task['name']}")]
    backoff = {name: value for name, value in task["backoff"].items() if value not in (None, [])}
    return [
        ("retries", task["retries"]),
        ("backoff", ", ".join(f"{name} {value}" for name, value in backoff.items())),
        ("execution", f"{task['execution_timeout']:g} s at most"),
    ]


def flow_rows(task: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return what a task's runs draw on, and where they go."""
    rows: list[tuple[str, Any]] = []
    for rule in task["concurrency"]:
        name = "" if rule["name"] is None else f", as {rule['name']}"
        rows.append(("at a time", f"{rule['max_runs']} for each {rule['key']} ({rule['strategy']}{name})"))
    for limit in task["rate_limits"]:
        if limit["key"] is not None:
            rows.append(("limited", f"{limit['units']} of {limit['key']}"))
        else:
            most = f"{limit['limit']} in {limit['duration']} s"
            rows.append(("limited", f"{limit['units']} of {most}, for each {limit['dynamic_key']}"))
    if task["slot_cost"] > 1:
        rows.append(("slots", f"{task['slot_cost']} for each run"))
    if task["labels"]:
        rows.append(("labels", short(task["labels"])))
    if task["sticky"] is not None:
        rows.append(("sticky", f"{task['sticky']}, to the worker of the parent"))
    return rows


def way_rows(task: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return what starts a task's runs besides a submit, what gathers or slows them, and what a failure starts."""
    rows: list[tuple[str, Any]] = []
    if task["on_events"]:
        rows.append(("listens", ", ".join(task["on_events"])))
    for one in task["filters"]:
        scope = "" if one["scope"] is None else f", of {one['scope']}"
        rows.append(("filter", f"{one['expression'] or 'every event'}{scope}, with {short(one['payload'])}"))
    rows += [("cron", f"{one['expression']} ({one['timezone']}) with {short(one['input'])}") for one in task["crons"]]
    if debounce := task["debounce"]:
        most = "" if debounce["max_wait"] is None else f", {debounce['max_wait']:g} s at most"
        rows.append(("debounce", f"{debounce['mode']}, {debounce['period']:g} s{most}{_each(debounce['key'])}"))
    if task["batch_size"] is not None:
        most = f"{task['batch_size']} submits, or those of {task['batch_timeout']:g} s"
        rows.append(("batch", most + _each(task["batch_key"])))
    if throttle := task["throttle"]:
        rows.append(("throttle", f"{throttle['limit']} in {throttle['period']:g} s{_each(throttle['key'])}"))
    if task["on_failure"] is not None:
        rows.append(("on failure", f"a run of {task['on_failure']}"))
    return rows


def _each(key: str | None) -> str:
    return "" if key is None else f", for each {key}"


def print_rate_limit(one: Mapping[str, Any]) -> None:
    """Print a rate limit, and what is used of it."""
    typer.echo(one["key"])
    heads = ("limit", "used", "waiting", "paused")
    print_rows([(head, cell) for head, cell in zip(heads, rate_limit_cells(one)[1:], strict=True) if cell is not None])


def rate_limit_cells(one: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what is said of a rate limit, a cell each: key, limit, used, waiting, paused."""
    limit = None if one["limit"] is None else f"{one['limit']} in {one['duration']:g} s"
    used = "counted by another server" if one["used"] is None and limit is not None else one["used"]
    paused = (f"until {one['paused_until']}" if one["paused_until"] else "until resumed") if one["paused"] else "no"
    waiting = None if limit is None else one["waiting"]
    return one["key"], limit, used, waiting, paused


def print_rows(rows: Sequence[tuple[str, Any]]) -> None:
    """Print what is said of one thing, each below a name."""
    for name, value in rows:
        typer.echo(wrapped(f"  {name:<10} {value}", 13))
