"""What the server logs, as `hurlbat dev` says it."""

import logging
import sys
from collections.abc import Iterator

import pytest
import structlog

from hurlbat_app.dev.screen import Screen, gist
from hurlbat_app.dev.voice import Voice
from hurlbat_app.logs import configure_logs
from hurlbat_dispatcher import Settings


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The server's log, said by the voice of `hurlbat dev --worker http://127.0.0.1:9000/`."""
    monkeypatch.setenv("COLUMNS", "")
    root, level = logging.getLogger(), logging.getLogger().level
    before = root.handlers[:]
    settings = Settings(external_url="http://hurlbat.test", log_level="info")
    configure_logs(settings, Voice(Screen(), {"127.0.0.1:9000"}))
    yield
    structlog.reset_defaults()
    root.handlers[:] = before
    root.setLevel(level)


@pytest.mark.usefixtures("log")
def test_a_warning_is_a_line_with_its_particulars_and_no_time_of_day(capsys: pytest.CaptureFixture[str]) -> None:
    structlog.get_logger("hurlbat.writer").warning("the database is in trouble", detail="disk I/O error", code=10)
    logging.getLogger("hurlbat.server").warning("HURLBAT_PROT is no setting; did you mean %s?", "HURLBAT_PORT")
    structlog.get_logger("hurlbat.lease").info("this server starts the runs")

    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "! the database is in trouble: detail disk I/O error, code 10",
        "! HURLBAT_PROT is no setting; did you mean HURLBAT_PORT?",
        "· this server starts the runs",
    ]
    assert err == ""


@pytest.mark.usefixtures("log")
def test_a_worker_that_is_not_watched_is_told_of_as_one_that_is(capsys: pytest.CaptureFixture[str]) -> None:
    health = structlog.get_logger("hurlbat.health")
    for name in ("other", "127.0.0.1:9000"):
        for state, problem in (("rejected", "the worker answered 401"), ("unreachable", "refused"), ("ready", None)):
            health.warning("a worker changed its state", worker=name, was="ready", state=state, problem=problem)

    assert capsys.readouterr().out.splitlines() == [
        "! worker other is rejected: the worker answered 401",
        "· worker other is unreachable: refused",
        "· worker other is ready",
    ]


@pytest.mark.parametrize("by", ["structlog", "structlog exc_info", "logging"])
@pytest.mark.usefixtures("log")
def test_where_something_was_raised_is_told(capsys: pytest.CaptureFixture[str], by: str) -> None:
    try:
        raise ValueError("no such row")
    except ValueError as error:
        if by == "structlog":
            structlog.get_logger("hurlbat.writer").error("an operation failed", exc_info=error)
        elif by == "logging":
            logging.getLogger("hurlbat.api").exception("an operation failed")
        else:
            structlog.get_logger("hurlbat.writer").error("an operation failed", exc_info=sys.exc_info())

    out = capsys.readouterr().out
    assert out.startswith("! an operation failed\nTraceback (most recent call last):\n")
    assert out.endswith("ValueError: no such row\n")


def test_sentences_that_differ_by_figures_alone_have_one_gist() -> None:
    one = "rejected: one of the two clocks is wrong; clock skew +412 s (the worker's clock minus this server's)"

    assert gist(one) == gist(one.replace("+412", "-398.5"))
    assert gist(one) != gist(one.replace("clocks", "secrets"))
