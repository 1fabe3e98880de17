"""`hurlbat bench`: how many runs per second, and how soon one starts, on this machine and database."""

import json
import tempfile
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from hurlbat_app.bench.figures import Memory, Percentiles, Report
from hurlbat_app.bench.measure import BenchFailure, Plan, measure
from hurlbat_app.cli.failure import Failure


class Submit(StrEnum):
    """How runs are submitted."""

    SINGLE = "single"
    BULK = "bulk"


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
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Measure throughput (submit to stored result) and latency, with server, worker and clients of their own."""
    errors = Console(stderr=True, highlight=False)
    if servers > 1 and (database is None or not database.startswith("postgresql")):
        raise Failure("several servers share a PostgreSQL database; name it with --database")
    with tempfile.TemporaryDirectory(prefix="hurlbat-bench-") as name:
        folder = Path(name)
        url = database or f"sqlite+aiosqlite:///{folder / 'bench.db'}"
        plan = Plan(url, runs, submit.value, batch, clients, delivery, slots, servers, memory)
        try:
            report = measure(plan, folder, lambda message: errors.print(f"[dim]{message}[/dim]"))
        except BenchFailure as failure:
            raise Failure(str(failure)) from failure
    if as_json:
        typer.echo(json.dumps(report.as_json()))
    else:
        Console(highlight=False).print(_table(report))
    if report.lost:
        raise Failure(f"{report.lost} runs were lost")


def _table(report: Report) -> Table:
    table = Table(title=f"{report.settings['runs']:,} runs on {report.settings['database']}", show_header=False)
    rows: list[tuple[str, Any]] = [
        ("submit to stored result", f"{report.runs_per_second:,.0f} runs/s"),
        ("submit acknowledged, under load", _shown(report.submit_ms)),
        ("submit acknowledged, idle", _shown(report.idle_submit_ms)),
        ("submit to start of the task, idle", _shown(report.start_ms)),
        ("lost", report.lost),
        ("duplicates", report.duplicates),
        ("refused for want of room, and repeated", report.refused),
    ]
    used = report.cpu_us_per_run
    rows.append(
        ("CPU of a run", f"server {used.server:.0f}   worker {used.worker:.0f}   clients {used.clients:.0f} µs")
    )
    if report.memory_mb:
        rows.append(("memory of the server", _memory(report.memory_mb)))
    for label, value in rows:
        table.add_row(label, str(value))
    return table


def _shown(found: Percentiles) -> str:
    return f"p50 {found.p50:.1f}   p95 {found.p95:.1f}   p99 {found.p99:.1f} ms"


def _memory(found: Memory) -> str:
    return (
        f"start {found.start:.0f}   middle {found.middle:.0f}   end {found.end:.0f}   highest {found.highest:.0f} MiB"
    )
