"""`hurlbat bench`: how many runs per second, and how soon one starts, on this machine and database."""

import json
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from hurlbat.errors import ConfigError
from hurlbat.settings import read_settings
from hurlbat_app.bench import scenarios, ways, workflows
from hurlbat_app.bench.cancels import Stopped, cancels
from hurlbat_app.bench.compare import PLACE, compare
from hurlbat_app.bench.figures import Burdened, Comparison, Memory, Percentiles, Ratio, Report
from hurlbat_app.bench.measure import measure
from hurlbat_app.bench.scenarios import Name, Sizes
from hurlbat_app.bench.stack import BenchFailure, Other, Plan, versions
from hurlbat_app.bench.ways import Punctual, Waited
from hurlbat_app.bench.workflows import Composed
from hurlbat_app.cli.failure import Failure


class Submit(StrEnum):
    """How runs are submitted."""

    SINGLE = "single"
    BULK = "bulk"


class Choice(StrEnum):
    """What may burden the server, and what else is measured on one that is idle."""

    EMPTY = Name.EMPTY
    BACKLOG = Name.BACKLOG
    KEYS = Name.KEYS
    TIMERS = Name.TIMERS
    RATE_LIMITS = Name.RATE_LIMITS
    ALL = "all"
    WAITERS = "waiters"
    DELAYS = "delays"
    CANCELS = "cancels"
    WORKFLOWS = "workflows"


_WAYS = (Choice.WAITERS, Choice.DELAYS, Choice.CANCELS, Choice.WORKFLOWS)
_Found = Waited | Punctual | Stopped | Composed
_FULL = Sizes()
ECHO = "conform.echo"
"""The task that a worker serves which wants to be tested."""


def bench(
    database: Annotated[
        str | None, typer.Option(help="URL of the database; without it a new SQLite file, removed afterwards.")
    ] = None,
    runs: Annotated[int, typer.Option(min=1, help="Runs to submit under load.")] = 20_000,
    submit: Annotated[Submit, typer.Option(help="One run per request, or many.")] = Submit.SINGLE,
    batch: Annotated[int, typer.Option(min=1, max=1_000, help="Runs in one bulk submit.")] = 100,
    clients: Annotated[int, typer.Option(min=1, max=1_000, help="Connections that submit at once.")] = 128,
    delivery: Annotated[int, typer.Option(min=1, max=64, help="Most runs in one request to the worker.")] = 16,
    slots: Annotated[int, typer.Option(min=1, max=10_000, help="Runs that the worker takes at once.")] = 2_000,
    servers: Annotated[int, typer.Option(min=1, max=16, help="Servers that share the database (PostgreSQL).")] = 1,
    memory: Annotated[bool, typer.Option("--memory", help="Watch the server's memory as well.")] = False,
    worker: Annotated[
        str | None,
        typer.Option(help="Measure a worker that you run at this URL, in any language, in the place of ours."),
    ] = None,
    secret: Annotated[str | None, typer.Option(help="Its signing secret.  [env var: HURLBAT_SIGNING_SECRET]")] = None,
    task: Annotated[str, typer.Option(help="Its task, which is run with a small object as its input.")] = ECHO,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
    scenario: Annotated[
        list[Choice] | None,
        typer.Option(
            help="Burden the server with runs that wait, and compare with an empty one; or measure those who wait for "
            "runs (waiters), how punctual delayed runs are (delays), how soon a cancel stops a task (cancels), or "
            "workflows. May be repeated."
        ),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Scenarios: how often each is measured, in turn.")] = 3,
    scale: Annotated[float, typer.Option(min=0.0, help="Scenarios: multiply what waits.")] = 1.0,
    backlog: Annotated[int, typer.Option(min=1, help="Runs behind a full group.")] = _FULL.backlog,
    keys: Annotated[int, typer.Option(min=1, help="Keys of a concurrency rule, with runs by Zipf.")] = _FULL.keys,
    timers: Annotated[int, typer.Option(min=1, help="Runs that are due tomorrow.")] = _FULL.timers,
    rate_limits: Annotated[int, typer.Option(min=1, help="Rate-limited keys with waiting runs.")] = _FULL.rate_limits,
    waiters: Annotated[int, typer.Option(min=1, max=30_000, help="Who waits at once for the end of a run.")] = 2_000,
    asleep: Annotated[int, typer.Option(min=1, help="Workflows that wait at once.")] = 10_000,
) -> None:
    """Measure throughput (submit to stored result) and latency, with server, worker and clients of their own."""
    errors = Console(stderr=True, highlight=False)
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # as by Ctrl-C, nothing is left running
    if servers > 1 and (database is None or not database.startswith("postgresql")):
        raise Failure("several servers share a PostgreSQL database; name it with --database")
    wanted = _names(scenario)
    others = [way for way in _WAYS if way in (scenario or ())]
    if others and wanted:
        raise Failure(
            "waiters, delays, cancels and workflows are measured on an idle server: name no other scenario beside them"
        )
    if worker is not None and (wanted or others):
        raise Failure("scenarios are measured with a worker of ours: leave --scenario or --worker out")
    other = None if worker is None else Other(worker, _secret(secret), task)
    if len(wanted or others) > 1 and database is not None and PLACE not in database:
        raise Failure(f"each scenario needs an empty database of its own: write {PLACE} into the URL for its name")
    with tempfile.TemporaryDirectory(prefix="hurlbat-bench-") as name:
        folder = Path(name)
        url = database or f"sqlite+aiosqlite:///{folder / (PLACE if wanted or others else 'bench')}.db"
        plan = Plan(url, runs, submit.value, batch, clients, delivery, slots, servers, memory)
        sizes = Sizes(backlog, keys, timers, rate_limits).scaled(scale)

        def say(message: str) -> None:
            errors.print(f"[dim]{message}[/dim]")

        try:
            if others:
                found = _measure_ways(plan, others, (waiters, sizes.timers, asleep), folder, say)
                _show_ways(plan, found, as_json)
                complaint = "delayed runs started before their time" if _early(found) else ""
            elif wanted:
                chosen = [scenarios.scenario(each, sizes) for each in wanted]
                compared = compare(plan, chosen, rounds, folder, say)
                _show(compared, _side_by_side(compared), as_json)
                complaint = _strayed(compared)
            else:
                report = measure(plan, folder, say, other)
                _show(report, _table(report), as_json)
                complaint = _missing(report.lost, other)
        except BenchFailure as failure:
            raise Failure(str(failure)) from failure
    if complaint:
        raise Failure(complaint)


def _missing(lost: int, other: Other | None) -> str:
    if not lost:
        return ""
    return f"{lost} runs were not completed; does {other.task} fail?" if other else f"{lost} runs were lost"


def _secret(given: str | None) -> str:
    try:
        keys = read_settings({"signing_secret": given}).keys
    except ConfigError as error:
        raise Failure(str(error)) from error
    if not keys:
        raise Failure("name the worker's signing secret: --secret whsec_…, or HURLBAT_SIGNING_SECRET")
    return keys[0]


def _names(chosen: Sequence[Choice] | None) -> list[Name]:
    """Return the scenarios in their order, with `empty` before any other."""
    if not chosen:
        return []
    words = {str(choice) for choice in chosen if choice not in _WAYS}
    if not words:
        return []
    return [name for name in Name if name is Name.EMPTY or str(name) in words or Choice.ALL in chosen]


def _measure_ways(
    plan: Plan, wanted: Sequence[Choice], counts: tuple[int, int, int], folder: Path, say: Callable[[str], None]
) -> dict[str, _Found]:
    waiters, timers, asleep = counts
    found: dict[str, _Found] = {}
    for way in wanted:
        room = folder / way
        room.mkdir()
        own = replace(plan, database=plan.database.replace(PLACE, way))
        if way is Choice.WAITERS:
            found[way] = ways.waiters(own, waiters, room, say)
        elif way is Choice.DELAYS:
            found[way] = ways.delays(own, timers, room, say)
        elif way is Choice.CANCELS:
            found[way] = cancels(own, room, say)
        else:
            found[way] = workflows.compose(own, asleep, room, say)
    return found


def _early(found: Mapping[str, _Found]) -> bool:
    return any(isinstance(one, Punctual) and one.early for one in found.values())


def _show_ways(plan: Plan, found: Mapping[str, _Found], as_json: bool) -> None:
    if as_json:
        shown = {name: asdict(one) for name, one in found.items()}
        typer.echo(json.dumps(shown | {"versions": versions(), "settings": plan.settings()}))
        return
    table = Table(title=f"idle, on {plan.settings()['database']}", show_header=False)
    for one in found.values():
        match one:
            case Waited():
                table.add_row("end of a run to the answer", _shown(one.alone_ms))
                table.add_row(f"among {one.waiters:,} who wait", _shown(one.among_others_ms))
                memory = one.memory_mb
                said = f"nobody waits {memory.before:.0f}   all {memory.loaded:.0f}   gone {memory.end:.0f} MiB"
                table.add_row("memory of the server", said)
                table.add_row("CPU of it while all wait", f"{one.idle_cpu_percent:.1f} %")
            case Punctual():
                table.add_row("time of a delayed run to its start", _shown(one.alone_ms))
                table.add_row(f"among {one.timers:,} timers", _shown(one.among_others_ms))
                table.add_row("before their time", str(one.early))
            case Stopped():
                table.add_row("cancel to the end of the task", _shown(one.alone_ms))
                table.add_row(f"among {one.others:,} that run", _shown(one.among_others_ms))
            case Composed():
                took = f"{one.workflow_ms:.1f} ms, {one.singles_ms:.1f} ms as single runs: {one.ratio:.2f}"
                table.add_row(f"a workflow of {one.nodes} nodes side by side", took)
                table.add_row("end of a node to the start of the next", _shown(one.step_ms))
                table.add_row(f"among {one.waiting:,} workflows that wait", _shown(one.step_among_others_ms))
                memory = one.memory_mb
                said = f"before {memory.before:.0f}   all wait {memory.loaded:.0f}   end {memory.end:.0f} MiB"
                table.add_row("memory of the server", said)
                table.add_row("CPU of it while all wait", f"{one.idle_cpu_percent:.1f} %")
    Console(highlight=False).print(table)


def _show(found: Report | Comparison, table: Table, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(found.as_json()))
    else:
        Console(highlight=False).print(table)


def _strayed(comparison: Comparison) -> str:
    guilty = [f"{name}: {one.strayed}" for name, one in comparison.scenarios.items() if one.strayed]
    return f"runs started that should have waited: {', '.join(guilty)}" if guilty else ""


def _side_by_side(comparison: Comparison) -> Table:
    settings = comparison.settings
    title = f"{settings['rounds']} rounds of {settings['runs']:,} runs on {settings['database']}"
    table = Table(title=title, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("start: ms from submit", no_wrap=True)
    columns = [_column(one) for one in comparison.scenarios.values()]
    for name in comparison.scenarios:
        table.add_column(name, justify="right")
    for label in columns[0]:
        table.add_row(label, *(column[label] for column in columns))
    return table


def _column(one: Burdened) -> dict[str, str]:
    def against(figure: Callable[[Ratio], float]) -> str:
        return f"{figure(one.ratio):.2f}" if one.ratio else ""

    return {
        "waiting throughout": f"{one.waiting:,}",
        "stored results/s": f"{one.runs_per_second:,.0f}",
        " against empty": against(lambda ratio: ratio.runs_per_second),
        "start, idle, p50": f"{one.start_ms.p50:.1f}",
        "start, idle, p99": f"{one.start_ms.p99:.1f}",
        " against empty ": against(lambda ratio: ratio.start_p99),
        "start, loaded, p50": f"{one.loaded_start_ms.p50:.1f}",
        "start, loaded, p99": f"{one.loaded_start_ms.p99:.1f}",
        " against empty  ": against(lambda ratio: ratio.loaded_start_p99),
        "duplicates": f"{one.duplicates:,}",
        "refused, repeated": f"{one.refused:,}",
        "MiB of the server": f"{one.memory_mb.before:.0f}",
        " with all waiting": f"{one.memory_mb.loaded:.0f}",
        " after the rounds": f"{one.memory_mb.end:.0f}",
        "CPU of it when idle": f"{one.idle_cpu_percent:.1f} %",
        "loaded in bulk, /s": f"{one.loaded_per_second:,.0f}" if one.waiting else "",
    }


def _table(report: Report) -> Table:
    table = Table(title=f"{report.settings['runs']:,} runs on {report.settings['database']}", show_header=False)
    used = report.cpu_us_per_run
    worker = f"   worker {used.worker:.0f}" if report.start_ms else ""  # that of somebody else is not known
    rows: list[tuple[str, Any]] = [
        ("submit to stored result", f"{report.runs_per_second:,.0f} runs/s"),
        ("submit acknowledged, under load", _shown(report.submit_ms)),
        ("submit acknowledged, idle", _shown(report.idle_submit_ms)),
        ("submit to start of the task, idle", report.start_ms and _shown(report.start_ms)),
        ("submit to stored result, idle", _shown(report.stored_ms)),
        ("lost", report.lost),
        ("duplicates", report.duplicates),
        ("refused for want of room, and repeated", report.refused),
        ("CPU of a run", f"server {used.server:.0f}{worker}   clients {used.clients:.0f} µs"),
    ]
    if report.memory_mb:
        rows.append(("memory of the server", _memory(report.memory_mb)))
    for label, value in rows:
        if value is not None:
            table.add_row(label, str(value))
    return table


def _shown(found: Percentiles) -> str:
    return f"p50 {found.p50:.1f}   p95 {found.p95:.1f}   p99 {found.p99:.1f} ms"


def _memory(found: Memory) -> str:
    return (
        f"start {found.start:.0f}   middle {found.middle:.0f}   end {found.end:.0f}   highest {found.highest:.0f} MiB"
    )
