"""The laws of the house: who may import whom, what the core may not touch, and how long a module may be."""

import ast
import sys
from collections.abc import Iterator

import pytest

from tests.support.imports import PACKAGES, ROOT, When, circles, imports, of, sources, tree

HTTP_CLIENTS = ("httpx", "aiohttp", "httpx_aiohttp", "httpcore", "requests", "urllib3", "urllib.request", "http.client")
DATABASES = ("sqlalchemy", "sqlite3", "aiosqlite", "asyncpg", "alembic", "psycopg")
WEB = ("starlette", "fastapi", "uvicorn", "typer", "rich", "click")
OURS = tuple(PACKAGES)
IMPURE = (
    *(
        "asyncio",
        "concurrent",
        "contextvars",
        "datetime.datetime.now",
        "ftplib",
        "http",
        "io",
        "logging",
        "multiprocessing",
    ),
    *("os", "pathlib", "queue", "random", "secrets", "select", "selectors", "shutil", "signal", "smtplib", "socket"),
    *("socketserver", "sqlite3", "ssl", "subprocess", "sys", "tempfile", "threading", "time", "urllib.request", "uuid"),
)
TESTING = "hurlbat.testing"
"""Runs the real server beside a user's app, and so may import it."""
CLOCK = "hurlbat_dispatcher.clock"
DRIVERS = ("hurlbat_dispatcher.store", "hurlbat_dispatcher.push.resolver")
"""What talks to the database and to the system's name lookup blocks, and may use threads."""
SIMULATED_NETWORK = ("hurlbat_dispatcher.simulation.network", "hurlbat_dispatcher.simulation.wire")
SIMULATED_DATABASE = ("hurlbat_dispatcher.simulation.disk", "hurlbat_dispatcher.simulation.database")
"""What takes the place of the network, or of a driver, speaks as it does."""
LONGEST = 400


def test_the_sdk_imports_nothing_of_ours() -> None:
    guilty = [one for one in of("hurlbat") if one.top in OURS and one.top != "hurlbat"]
    assert [str(one) for one in guilty if not _in(one.importer, TESTING)] == []


def test_nothing_imports_the_room_for_users_tests() -> None:
    assert [str(one) for one in imports() if one.within(TESTING) and not _in(one.importer, TESTING)] == []


def test_the_dispatcher_imports_no_app_and_no_web_framework() -> None:
    guilty = [one for one in of("hurlbat_dispatcher") if one.within("hurlbat_app", *WEB)]
    assert [str(one) for one in guilty] == []


def test_http_clients_stay_in_the_push_room() -> None:
    users = [one for one in of("hurlbat_dispatcher", "hurlbat_app.api") if one.within(*HTTP_CLIENTS)]
    rooms = ("hurlbat_dispatcher.push", *SIMULATED_NETWORK)
    guilty = [one for one in users if one.when is not When.CHECKING and not _in(one.importer, *rooms)]
    assert [str(one) for one in guilty] == []


def test_sql_stays_in_the_store_room() -> None:
    users = [one for one in imports() if one.within(*DATABASES)]
    rooms = ("hurlbat_dispatcher.store", *SIMULATED_DATABASE)
    assert [str(one) for one in users if not _in(one.importer, *rooms)] == []


def test_the_app_comes_in_by_the_door() -> None:
    inside = [one for one in of("hurlbat_app") if one.top == "hurlbat_dispatcher"]
    assert [str(one) for one in inside if one.module != "hurlbat_dispatcher"] == []


def test_the_domain_is_pure() -> None:
    """Standard library and itself: no clock, no chance, no socket, no file, no log, no task."""
    used = of("hurlbat_dispatcher.domain")
    foreign = [
        one
        for one in used
        if one.when is not When.CHECKING
        and one.top not in sys.stdlib_module_names
        and not one.within("hurlbat_dispatcher.domain")
    ]
    impure = [one for one in used if one.within(*IMPURE)]
    assert [str(one) for one in foreign + impure] == []


def test_the_core_asks_only_its_clock_for_time_chance_and_sleep() -> None:
    guilty = []
    for module in sources():
        if not _in(module, "hurlbat_dispatcher") or module == CLOCK:
            continue
        forbidden = {"time", "random"} if _in(module, *DRIVERS) else {"time", "random", "threading", "concurrent"}
        guilty += [f"{one}" for one in of(module) if one.importer == module and one.top in forbidden]
        guilty += [f"{module}:{line} calls {call}" for line, call in _calls(tree(module)) if call in _CLOCKS]
    assert guilty == []


_CLOCKS = {
    *(
        "asyncio.sleep",
        "asyncio.to_thread",
        "datetime.now",
        "datetime.today",
        "datetime.utcnow",
        "datetime.datetime.now",
    ),
    *("datetime.datetime.utcnow", "date.today", "uuid.uuid1", "uuid.uuid4", "uuid4", "os.urandom"),
}


def test_no_module_imports_itself_in_a_circle() -> None:
    assert circles(one for one in imports() if one.when is When.LOADING) == []


def test_no_circle_hides_in_a_function() -> None:
    assert circles(one for one in imports() if one.when is not When.CHECKING) == []


@pytest.mark.parametrize("module", sources())
def test_a_module_is_one_subject_and_not_too_long(module: str) -> None:
    assert len(sources()[module].read_text().splitlines()) <= LONGEST


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_tells_type_checkers_that_it_is_typed(package: str) -> None:
    assert (PACKAGES[package] / "py.typed").is_file()


def test_nothing_is_left_for_later() -> None:
    marks = [mark + ending for mark in ("TO" + "DO", "FIX" + "ME", "X" + "XX") for ending in ("", ":")]
    guilty = []
    for folder in ("sdk", "dispatcher", "app", "tests", "examples", "docs", "deploy"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in (".py", ".md", ".yaml", ".toml", ".mako"):
                words = path.read_text().split()
                guilty += [f"{path.relative_to(ROOT)}: {word}" for word in words if word in marks]
    assert guilty == []


def _in(module: str, *rooms: str) -> bool:
    return any(module == room or module.startswith(f"{room}.") for room in rooms)


def _calls(node: ast.AST) -> Iterator[tuple[int, str]]:
    for child in ast.walk(node):
        if isinstance(child, ast.Call):
            yield child.lineno, ast.unparse(child.func)
