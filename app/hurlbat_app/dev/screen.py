"""What `hurlbat dev` shows: where everything is, what the app's tasks are, and what changes."""

import json
import os
import re
import shlex
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import click

from hurlbat.policy import Manifest, TaskPolicy
from hurlbat.triggers import Cron
from hurlbat_app.cli.serve import say
from hurlbat_app.cli.wrapping import wrapped

MOST_TASKS = 50
"""Tasks that are listed; of more only the number is told."""


class Screen:
    """Lines for people, in colours where somebody looks."""

    def __init__(self) -> None:
        self._colours = sys.stdout.isatty() and not os.environ.get("NO_COLOR")

    def say(self, text: str) -> None:
        """Say something."""
        say(text)

    def warn(self, sentence: str) -> None:
        """Say what is wrong, and what to do."""
        self.say(self.paint(wrapped(f"! {sentence}", 2), "red"))

    def note(self, sentence: str) -> None:
        """Say what happens, in one line: somebody may look for it."""
        self.say(self.paint(f"· {sentence}", "cyan"))

    def remark(self, sentence: str) -> None:
        """Say what is good to know, and nothing to be mended."""
        self.say(self.paint(wrapped(f"· {sentence}", 2), "cyan"))

    def paint(self, text: str, colour: str) -> str:
        """Return a text in a colour."""
        return click.style(text, fg=colour) if self._colours else text

    def places(self, *rows: tuple[str, str]) -> None:
        """Show what is where."""
        width = max(len(what) for what, _ in rows)
        lines = "\n".join(f"    {what.ljust(width)}  {where}" for what, where in rows)
        self.say(f"\n{lines}")

    def tasks(self, manifest: Manifest) -> None:
        """Show the tasks, each with what starts it."""
        tasks = manifest.tasks[:MOST_TASKS]
        width = max((len(task.name) for task in tasks), default=0)
        lines = [f"      {task.name.ljust(width)}  {_triggers(task)}".rstrip() for task in tasks]
        if len(manifest.tasks) > MOST_TASKS:
            lines.append(f"      … and {len(manifest.tasks) - MOST_TASKS} more")
        listed = "\n".join(lines) or "      none; declare one by @hurlbat.task"
        self.say(f"\n    tasks\n{listed}")

    def exports(self, where: str, variables: Mapping[str, str], *commands: str) -> None:
        """Show which variables are needed somewhere, and what to call there."""
        lines = [*(f"export {name}={value}" for name, value in variables.items()), *commands]
        self.say("\n".join([f"\n    {where}", *(f"      {line}" for line in lines)]))

    def first_steps(self, manifest: Manifest, variables: Mapping[str, str]) -> None:
        """Show how to run a task from another terminal."""
        task = next((task for task in manifest.tasks), None)
        self.exports("in another terminal", variables, "hurlbat runs list" if task is None else first_run(task))
        self.say("")

    def changes(self, before: Manifest, after: Manifest) -> None:
        """Tell which tasks came, went or changed."""
        old = {task.name: task for task in before.tasks}
        new = {task.name: task for task in after.tasks}
        for name in [name for name in new if name not in old]:
            self.note(f"task {name} has come  {_triggers(new[name])}".rstrip())
        for name in [name for name in old if name not in new]:
            self.note(f"task {name} has gone")
        for name in [name for name in new if name in old and new[name] != old[name]]:
            self.note(f"task {name} has changed  {_triggers(new[name])}".rstrip())


def gist(sentence: str) -> str:
    """Return a sentence without its figures: what is said again and again has other times and counts in it."""
    return re.sub(r"[\d.:+-]+", "", sentence)


def first_run(task: TaskPolicy) -> str:
    """Return a command that runs a task, with an input of the kind that it takes."""
    given = "" if task.input_schema is None else f" --input {shlex.quote(json.dumps(example_of(task.input_schema)))}"
    return f"hurlbat run {task.name}{given} --wait"


def example_of(schema: Any, top: Any = None, depth: int = 0) -> Any:
    """Return a small value that a JSON Schema may take; where it says nothing, null."""
    top = schema if top is None else top
    if not isinstance(schema, dict) or depth > 5:
        return None
    for known in ("default", "const"):
        if known in schema:
            return schema[known]
    for listed in ("examples", "enum"):
        if schema.get(listed):
            return schema[listed][0]
    if isinstance(schema.get("$ref"), str):
        return example_of(top.get("$defs", {}).get(schema["$ref"].rpartition("/")[2]), top, depth + 1)
    for choice in ("anyOf", "oneOf", "allOf"):
        if schema.get(choice):
            return example_of(schema[choice][0], top, depth + 1)
    match schema.get("type"):
        case "object":
            properties = schema.get("properties", {})
            wanted = schema.get("required", ())
            return {name: example_of(properties.get(name), top, depth + 1) for name in wanted}
        case "array":
            items = schema.get("items")
            return [example_of(items, top, depth + 1)] if isinstance(items, dict) else []
        case "string":
            return "text"
        case "integer" | "number":
            return schema.get("minimum", 1)
        case "boolean":
            return True
        case _:
            return None


def _triggers(task: TaskPolicy) -> str:
    return "  ".join(_each_trigger(task))


def _each_trigger(task: TaskPolicy) -> Iterator[str]:
    if task.graph is not None:
        yield f"workflow of {len(task.graph.nodes)}"
    for cron in task.crons:
        yield f"cron {_cron(cron)}"
    if task.on_events:
        yield f"on {', '.join(task.on_events)}"


def _cron(cron: Cron) -> str:
    return cron.expression if cron.timezone == "UTC" else f"{cron.expression} ({cron.timezone})"
