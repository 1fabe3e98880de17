"""The page on settings has every setting, with its true default, and no other."""

import re
from dataclasses import fields

from hurlbat.settings import Settings as AppSettings
from hurlbat.settings import read_settings
from hurlbat_dispatcher import Settings, load_settings
from tests.docs.pages import first_column
from tests.support.processes import ROOT

PAGE = ROOT / "docs" / "settings.md"
SPOKEN = {
    "HURLBAT_EXTERNAL_URL": None,
    "HURLBAT_API_TOKEN": None,
    "HURLBAT_SECRET_KEY": (),
    "HURLBAT_ALLOWED_NETWORKS": (),
    "HURLBAT_PROXY": None,
}
"""Defaults that are no value to be written down."""


def test_every_setting_of_the_server_is_listed_in_its_order() -> None:
    listed = first_column(PAGE, "## The server")
    assert sorted(listed) == sorted(f"HURLBAT_{name.upper()}" for name in Settings.model_fields)


def test_the_server_s_defaults_are_those_that_are_listed() -> None:
    shown = _defaults("## The server")
    written = {name: default for name, default in shown.items() if name not in SPOKEN}
    given = load_settings(**{name.removeprefix("HURLBAT_").lower(): value for name, value in written.items()})
    assert given == Settings()
    assert {name: getattr(given, name.removeprefix("HURLBAT_").lower()) for name in SPOKEN} == SPOKEN


def test_every_setting_of_the_app_is_listed() -> None:
    named = {field.name if field.name != "keys" else "signing_secret" for field in fields(AppSettings)}
    listed = {name for name in first_column(PAGE, "## The app") if name.startswith("HURLBAT_")}
    assert listed == {f"HURLBAT_{name.upper()}" for name in named} | {"HURLBAT_SIGNING_SECRETS"}


def test_the_app_s_defaults_are_those_that_are_listed() -> None:
    written = {name: default for name, default in _defaults("## The app").items() if not default.startswith("HURLBAT_")}
    assert set(written) == {"HURLBAT_URL", "HURLBAT_SLOTS", "HURLBAT_THREADS", "HURLBAT_GRACE"}
    assert read_settings({}, written) == AppSettings()


def _defaults(heading: str) -> dict[str, str]:
    section = PAGE.read_text().split(f"\n{heading}\n", 1)[1].split("\n## ", 1)[0]
    return dict(re.findall(r"^\| `(\w+)` \| [^|`]*`([^`]+)`", section, re.MULTILINE))
