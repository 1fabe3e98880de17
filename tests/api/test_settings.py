"""The server's settings: read once, all mistakes told at once, secrets never repeated."""

from pathlib import Path
from typing import Any

import pytest

from hurlbat_dispatcher import Settings, SettingsError, load_settings

KEY = "R4xo9BylV6BgQ-1jJOQVMKMKBSbvy0f4CTqv1X4ADkE="


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder, where no .env is."""
    monkeypatch.chdir(tmp_path)


def _problems(monkeypatch: pytest.MonkeyPatch, **variables: str) -> list[str]:
    for name, value in variables.items():
        monkeypatch.setenv(f"HURLBAT_{name}", value)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    return caught.value.problems


def test_the_defaults_need_no_environment() -> None:
    settings = load_settings()

    assert (settings.host, settings.port, settings.base_url) == ("127.0.0.1", 8420, "http://127.0.0.1:8420")
    assert settings.database_url == "sqlite+aiosqlite:///./hurlbat.db"
    assert (settings.retention, settings.max_body_bytes, settings.wait_max) == (30 * 86_400, 1_048_576, 60)
    assert settings == Settings()


def test_the_environment_goes_before_the_env_file_and_arguments_before_both(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text("HURLBAT_PORT=1001\nHURLBAT_HOST=0.0.0.0\nHURLBAT_LEASE=30\nOTHER=1\n")
    monkeypatch.setenv("HURLBAT_HOST", "::1")
    monkeypatch.setenv("HURLBAT_LEASE", "1m")

    settings = load_settings(lease=20)

    assert (settings.port, settings.host, settings.lease) == (1001, "::1", 20)
    assert settings.base_url == "http://[::1]:1001"


def test_all_mistakes_are_told_at_once_in_sentences(monkeypatch: pytest.MonkeyPatch) -> None:
    problems = _problems(monkeypatch, PORT="web", RETENTION="soon", LOG_LEVEL="loud", ALLOWED_NETWORKS="10.0.0.0/8,x")

    assert [problem.split()[0] for problem in problems] == [
        "HURLBAT_PORT",
        "HURLBAT_ALLOWED_NETWORKS",
        "HURLBAT_RETENTION",
        "HURLBAT_LOG_LEVEL",
    ]
    assert all(problem.endswith(".") for problem in problems)


def test_no_mistake_repeats_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    problems = _problems(
        monkeypatch, DATABASE_URL="mysql://root:sesame@db/x", API_TOKEN="sesame", SECRET_KEY="sesame", PORT="0.5"
    )

    assert len(problems) == 4
    assert "sesame" not in "".join(problems)


def test_secrets_are_not_in_the_settings_repr() -> None:
    settings = Settings(
        api_token="sesame-sesame-sesame",  # type: ignore[arg-type]  # as the environment gives it
        database_url="postgresql://u:sesame@db/x",
        secret_key=KEY,  # type: ignore[arg-type]  # as the environment gives it
    )

    assert "sesame" not in repr(settings)
    assert KEY not in repr(settings)


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("sqlite:///a.db", "sqlite+aiosqlite:///a.db"),
        ("sqlite:////var/lib/a.db", "sqlite+aiosqlite:////var/lib/a.db"),
        ("postgres://u:p@h:5432/d", "postgresql+asyncpg://u:p@h:5432/d"),
        ("postgresql://h/d?ssl=require", "postgresql+asyncpg://h/d?ssl=require"),
        ("postgresql+asyncpg://h/d", "postgresql+asyncpg://h/d"),
    ],
)
def test_a_database_url_gets_its_driver(given: str, used: str) -> None:
    assert load_settings(database_url=given, secret_key=KEY).database_url == used


@pytest.mark.parametrize("url", ["mysql://h/d", "postgresql+psycopg://h/d", "hurlbat.db", "", "sqlite://hurlbat.db"])
def test_a_database_of_an_unknown_kind_is_refused_in_a_sentence(url: str) -> None:
    with pytest.raises(SettingsError, match=r"^HURLBAT_DATABASE_URL .*sqlite:///"):
        load_settings(database_url=url)


def test_postgresql_needs_a_secret_key() -> None:
    with pytest.raises(SettingsError, match=r"^HURLBAT_SECRET_KEY is required with PostgreSQL"):
        load_settings(database_url="postgresql://h/d")


def test_several_secret_keys_may_be_given_the_newest_first() -> None:
    keys = load_settings(secret_key=f"{KEY}, {'A' * 43}=").secret_key

    assert [key.get_secret_value() for key in keys] == [KEY, "A" * 43 + "="]


@pytest.mark.parametrize(
    ("text", "seconds"), [("0", 0), ("90", 90), ("1.5h", 5400), ("30d", 2_592_000), ("2w", 1_209_600), ("500ms", 0.5)]
)
def test_durations_may_have_a_unit(text: str, seconds: float) -> None:
    assert load_settings(retention=text).retention == seconds


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", "65536"),
        ("port", "-1"),
        ("retention", "-1"),
        ("retention", "1y"),
        ("retention", "inf"),
        ("max_body_bytes", "10"),
        ("wait_max", "0"),
        ("queue_limit", "0"),
        ("lease", "9"),
        ("heartbeat", "0"),
        ("api_token", "short"),
        ("api_token", "a token with spaces"),
        ("api_token", "x" * 257),
        ("secret_key", "c2hvcnQ="),
        ("allowed_networks", "10.0.0.1/8"),
        ("external_url", "hurlbat.example.com"),
        ("external_url", "https://h/?x=1"),
        ("proxy", "socks5://h"),
        ("log_format", "xml"),
    ],
)
def test_what_cannot_be_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(SettingsError, match=f"^HURLBAT_{name.upper()} "):
        load_settings(**{name: value})


def test_the_port_that_kubernetes_sets_is_explained() -> None:
    with pytest.raises(SettingsError, match="enableServiceLinks"):
        load_settings(port="tcp://10.0.0.1:8420")


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ({"host": "0.0.0.0"}, "http://127.0.0.1:8420"),
        ({"host": "::"}, "http://127.0.0.1:8420"),
        ({"host": "queue.internal"}, "http://queue.internal:8420"),
        ({"external_url": "https://h.example.com/q/"}, "https://h.example.com/q"),
    ],
)
def test_the_own_url_is_one_that_workers_can_use(given: dict[str, Any], url: str) -> None:
    assert load_settings(**given).base_url == url
