"""What `--help` says of every command, and what is said of one that is misspelt."""

from collections.abc import Iterator
from typing import Any

import pytest
from typer.testing import CliRunner

from hurlbat_app.cli.main import COMMANDS, app, load

WIDTH = 80


def _all() -> Iterator[tuple[str, Any]]:
    """Every command and group of commands, with what is typed for it."""

    def below(name: str, command: Any) -> Iterator[tuple[str, Any]]:
        yield name, command
        for one, inner in getattr(command, "commands", {}).items():
            yield from below(f"{name} {one}", inner)

    for name, (place, _) in COMMANDS.items():
        yield from below(name, load(place))


EVERY = list(_all())


def _help(name: str, command: Any) -> str:
    context = command.make_context(f"hurlbat {name}", [], resilient_parsing=True, terminal_width=WIDTH)
    return str(context.get_help())


def _words(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize(("name", "command"), EVERY, ids=[name for name, _ in EVERY])
def test_the_help_leaves_nothing_out(name: str, command: Any) -> None:
    shown = _words(_help(name, command))

    assert _words(command.help or "") in shown
    for parameter in command.params:
        assert parameter.help, f"{name} {parameter.name}"
        assert _words(parameter.help) in shown  # with the variable in brackets that an option is read from
        named = parameter.opts if parameter.param_type_name == "option" else [parameter.metavar]
        assert all(one in shown for one in named), f"{name} {parameter.name}"
    for inner in getattr(command, "commands", {}).values():
        assert _words(inner.help.partition("\n\n")[0]) in shown
    assert not [line for line in _help(name, command).splitlines() if len(line) > WIDTH and "<list[" not in line]


@pytest.mark.parametrize(
    ("option", "variable"), [("--url", "HURLBAT_URL"), ("--token", "HURLBAT_TOKEN"), ("--database", "HURLBAT_DATABASE")]
)
def test_an_option_names_the_variable_that_it_is_read_from(option: str, variable: str) -> None:
    found = [
        (name, _words(_help(name, command)))
        for name, command in EVERY
        if name != "bench" and any(option in one.opts for one in command.params)
    ]

    assert len(found) > 2
    assert [name for name, shown in found if f"[env var: {variable}" not in shown] == []


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [(("wrkers",), "workers"), (("runs", "lst"), "list"), (("tasks", "filter"), "filters")],
)
def test_a_misspelt_command_is_told_with_the_one_that_was_meant(arguments: tuple[str, ...], meant: str) -> None:
    done = CliRunner().invoke(app, arguments)

    assert done.exit_code == 2
    assert f"Error: No such command '{arguments[-1]}'. Did you mean '{meant}'?\n" in done.stderr
    assert max(map(len, done.stderr.splitlines())) <= WIDTH
