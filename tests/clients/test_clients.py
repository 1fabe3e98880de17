"""Clients that stock generators make of the contract, in the languages that the tests have: they work, and are told."""

import json
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.clients import clients, expected, stage, tools, trial
from tests.clients.clients import CLIENTS, LANGUAGES, Client
from tests.clients.command import main
from tests.docs.pages import blocks

TRIED = [client for client in CLIENTS if client.language in ("python", "typescript")]
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """What a program finds in its environment; a server and a worker are there meanwhile."""
    with stage.set_up(tmp_path_factory.mktemp("stage")) as found:
        yield found


@pytest.mark.parametrize("client", TRIED, ids=lambda client: client.name)
def test_a_generated_client_does_what_its_program_and_its_example_ask(
    client: Client, env: dict[str, str], tmp_path: Path
) -> None:
    told: list[str] = []
    client.need()

    trial.attempt(client, tmp_path, env, lambda operation, _: told.append(operation))

    operations = ["register", "submit", "wait", "bulk", "publish", "schedule", "list", "cancel", "problem"]
    assert told == ["generate", "compile", *operations, "unauthorized", "example"]


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)
def test_the_page_tells_the_command_and_the_versions(client: Client) -> None:
    told = [line for block in blocks(trial.PAGE, "sh") for line in block.text.splitlines()]
    [version] = [
        found
        for name, found in _pinned().items()
        if name in (client.generator, f"{client.generator}-cli") and found in trial.PAGE.read_text()
    ]

    assert shlex.join(client.command) in told
    assert re.search(rf"{client.generator}\S* {re.escape(version)}", trial.PAGE.read_text())
    assert trial.example(client.example)


def test_the_page_tells_the_versions_of_what_typescript_needs() -> None:
    page = trial.PAGE.read_text()

    assert f"openapi-fetch {_pinned()['openapi-fetch']} and TypeScript {_pinned()['typescript']}" in page


def _pinned() -> dict[str, str]:
    requirements = re.findall(r"^(\S+)==(\S+)$", (HERE / "requirements.txt").read_text(), re.MULTILINE)
    package = json.loads((HERE / "typescript" / "package.json").read_text())
    found: dict[str, str] = dict(requirements) | package["dependencies"] | package["devDependencies"]
    return found


# -- what is missing or broken -----------------------------------------------------------------------------------------


def test_a_generator_that_is_missing_is_named_with_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tools, "GENERATORS", tmp_path)

    assert main(["python"]) == 1

    said = capsys.readouterr()
    assert said.out == ""
    for name in ("openapi-python-client", "openapi-generator-cli"):
        assert f"python: {name} is missing: `make clients` installs it, by pip install" in said.err


def test_a_jdk_and_maven_that_are_missing_are_named_with_how_to_get_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(tools.Missing, match=r"^mvn is missing: install Maven"):
        tools.maven()

    assert main(["java"]) == 1

    assert capsys.readouterr().err.startswith("java: javac is missing: install a JDK, 11 or newer")


@pytest.mark.parametrize("language", ["go", "typescript"])
def test_a_toolchain_that_is_missing_is_named_with_how_to_get_it(
    language: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def find(name: str) -> None:
        return None

    monkeypatch.setattr("importlib.util.find_spec", find)

    assert main([language]) == 1

    name = {"go": "go", "typescript": "node"}[language]
    assert capsys.readouterr().err == (
        f"{language}: {name} is missing: `make clients` installs it, by pip install --group toolchains\n"
    )


def test_a_language_that_no_client_is_for_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["python", "cobol"]) == 2

    assert capsys.readouterr().err == f"no clients are generated for cobol; choose of {', '.join(LANGUAGES)}\n"


def test_a_generator_that_breaks_or_leaves_something_out_has_failed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = tmp_path / "bin" / "openapi-python-client"
    broken.parent.mkdir()
    monkeypatch.setattr(tools, "GENERATORS", tmp_path)

    for body, sentence in (
        ("print('it hurts'); raise SystemExit(3)", r"^generating: openapi-python-client ended with 3:\nit hurts$"),
        ("print('Warning(s) encountered while')", r"^generating: openapi-python-client left something out:\nWarning"),
    ):
        broken.write_text(f"#!{sys.executable}\n{body}\n")
        broken.chmod(0o700)
        with pytest.raises(tools.Failed, match=sentence):
            clients.OpenapiPythonClient().generate(tmp_path)

    broken.chmod(0o600)
    with pytest.raises(tools.Failed, match=r"cannot be started: Permission denied"):
        clients.OpenapiPythonClient().generate(tmp_path)


# -- what the programs print -------------------------------------------------------------------------------------------

RIGHT: list[dict[str, Any]] = [
    {"operation": "register", "name": "greeter", "state": "ready", "language": "x"},
    {"operation": "submit", "id": "1", "task": "greet", "input": {"name": "Ada"}},
    {"operation": "wait", "id": "1", "state": "completed", "output": "Hello, Ada!"},
    {"operation": "bulk", "ids": ["2", "3", "4", "5"], "codes": ["member_invalid"]},
    {"operation": "publish", "key": "user.joined", "starts": [["welcome", "started"]]},
    {"operation": "schedule", "name": "x", "overlap": "skip", "hour": 6},
    {"operation": "list", "pages": 3, "ids": ["5", "4", "3", "2", "1"]},
    {"operation": "cancel", "state": "cancelled", "by": "request", "reason": "not needed"},
    {"operation": "problem", "status": 404, "code": "run_unknown", "detail": "there is none"},
    {"operation": "unauthorized", "status": 401, "code": "token_invalid", "detail": "no"},
]


def _printed(lines: list[dict[str, Any]]) -> str:
    return "".join(f"{json.dumps(line)}\n" for line in lines)


def test_what_is_right_is_taken_whatever_colours_are_around() -> None:
    told = expected.check("\x1b[0m" + _printed(RIGHT) + "\x1b[0m\n", "x")

    assert [operation for operation, _ in told] == [line["operation"] for line in RIGHT]
    assert told[3] == ("bulk", 'ids: 4, codes: ["member_invalid"]')


@pytest.mark.parametrize(
    ("index", "change"),
    [
        (0, {"state": "rejected"}),
        (1, {"input": None}),
        (2, {"id": "2"}),
        (2, {"output": None}),
        (3, {"codes": []}),
        (3, {"ids": ["2", "2", "3", "4"]}),
        (4, {"starts": []}),
        (5, {"overlap": "allow"}),
        (5, {"hour": 7}),
        (6, {"ids": ["5", "4", "3", "2", "2"]}),
        (6, {"ids": ["5", "4", "3", "2", "6"]}),
        (6, {"pages": 1}),
        (7, {"by": "task"}),
        (8, {"code": "run_lost"}),
        (8, {"detail": ""}),
        (9, {"status": 404}),
    ],
)
def test_what_is_wrong_is_told_by_its_operation(index: int, change: dict[str, Any]) -> None:
    lines = [line | change if number == index else line for number, line in enumerate(RIGHT)]

    with pytest.raises(expected.Unexpected, match=f"^{RIGHT[index]['operation']}: "):
        expected.check(_printed(lines), "x")


def test_an_operation_that_is_left_out_is_missed() -> None:
    with pytest.raises(expected.Unexpected, match=r"^expected the operations register, submit"):
        expected.check(_printed(RIGHT[:-1]), "x")


def test_the_transcript_tells_what_failed_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def attempt(client: Client, folder: Path, env: dict[str, str], tell: Callable[[str, str], None]) -> None:
        tell("generate", "1.0 s")
        if client.generator == "openapi-python-client":
            raise tools.Failed("compiling: it does not")

    monkeypatch.setattr("tests.clients.command.attempt", attempt)
    monkeypatch.setattr("tests.clients.stage.set_up", _nothing)

    assert main(["python"]) == 1

    assert [re.split(r"  +", line) for line in capsys.readouterr().out.splitlines()] == [
        ["python (openapi-python-client)", "generate", "1.0 s"],
        ["python (openapi-python-client)", "FAILED", "compiling: it does not"],
        ["python (openapi-generator)", "generate", "1.0 s"],
        ["1 of 2 clients went well; these did not: python (openapi-python-client)"],
    ]


@contextmanager
def _nothing(folder: Path) -> Iterator[dict[str, str]]:
    yield {}
