"""What is in `deploy/` keeps step with the code: names of settings, commands, paths, ports, users and times.

Their form is checked by `make lint`: hadolint, the schema of compose, those of Kubernetes.
"""

import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator, Mapping
from configparser import RawConfigParser
from typing import Any

import pytest
import yaml
from cryptography.fernet import Fernet

from hurlbat.settings import read_settings
from hurlbat.signing import check_key
from hurlbat.version import VERSION
from hurlbat_app.cli.main import COMMANDS
from hurlbat_app.server import LAST_ANSWERS_SECONDS
from hurlbat_dispatcher import Settings, load_settings
from tests.support.processes import ROOT

DEPLOY = ROOT / "deploy"
SERVER = {f"HURLBAT_{name.upper()}" for name in Settings.model_fields}
APP = {f"HURLBAT_{name}" for name in ("URL", "TOKEN", "SIGNING_SECRET", "PUBLIC_URL", "WORKER", "SLOTS", "GRACE")}
SECRET = {"HURLBAT_API_TOKEN", "HURLBAT_TOKEN", "HURLBAT_SECRET_KEY", "HURLBAT_SIGNING_SECRET", "HURLBAT_DATABASE_URL"}
STOP = Settings().drain_seconds + LAST_ANSWERS_SECONDS
"""Seconds that a stop may take."""
IMAGES = ("Dockerfile", "Dockerfile.worker")


def _compose() -> dict[str, Any]:
    services: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    return services


def _kubernetes() -> list[dict[str, Any]]:
    files = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
    return [document for file in files for document in yaml.safe_load_all(file.read_text())]


def _of_kind(*kinds: str) -> Iterator[dict[str, Any]]:
    yield from (document for document in _kubernetes() if document["kind"] in kinds)


def _pods() -> dict[str, dict[str, Any]]:
    return {one["metadata"]["name"]: one["spec"]["template"]["spec"] for one in _of_kind("Deployment", "Job")}


def _unit() -> RawConfigParser:
    unit = RawConfigParser(strict=True, delimiters="=", comment_prefixes="#")
    unit.optionxform = str  # type: ignore[assignment, method-assign]  # names are as they are written
    unit.read(DEPLOY / "hurlbat.service")
    return unit


def _of_image(name: str) -> str:
    return (DEPLOY / name).read_text().replace("\\\n", " ")


def _seconds(text: str) -> float:
    match = re.fullmatch(r"(\d+)s", text)
    assert match is not None, text
    return float(match[1])


# -- names of settings -------------------------------------------------------------------------------------------------


def test_every_variable_of_a_server_is_a_setting() -> None:
    named = set(re.findall(r"HURLBAT_\w+(?==)", _of_image("Dockerfile")))
    for name, service in _compose().items():
        if name.startswith("server") or name == "migrate":
            named |= service["environment"].keys()
    for pod in _pods().values():
        named |= {variable["name"] for container in pod["containers"] for variable in container["env"]}
    for document in _of_kind("ConfigMap"):
        named |= document["data"].keys()
    named |= set(re.findall(r"^Environment=(\w+)", (DEPLOY / "hurlbat.service").read_text(), re.MULTILINE))

    assert len(named) >= 8
    assert named - SERVER == set()


def test_every_variable_of_the_worker_is_a_setting_of_the_app() -> None:
    environment = _compose()["worker"]["environment"]

    assert environment.keys() - APP == set()
    assert read_settings({}, {**environment, "HURLBAT_SIGNING_SECRET": ""}).worker_name == "example"


def test_the_values_that_are_no_secrets_are_good_ones() -> None:
    values = [service["environment"] for name, service in _compose().items() if name.startswith("server")]
    values += [document["data"] for document in _of_kind("ConfigMap")]
    for found in values:
        plain = {name: value for name, value in found.items() if "$" not in value}
        load_settings(**{name.removeprefix("HURLBAT_").lower(): value for name, value in plain.items()})


def test_no_secret_is_written_down() -> None:
    for service in _compose().values():
        for name, value in service["environment"].items():
            if name in SECRET or "PASSWORD" in name:
                assert re.search(r"\$\{\w+:\?[^}]+\}", value), f"{name} is not asked for"
    for pod in _pods().values():
        for variable in pod["containers"][0]["env"]:
            assert "value" not in variable, variable["name"]
            assert variable["valueFrom"]["secretKeyRef"]["key"] == variable["name"]
    for document in _of_kind("ConfigMap"):
        assert document["data"].keys() & SECRET == set()
    assert list(_of_kind("Secret")) == []


def test_new_secrets_are_good_ones_and_all_that_are_asked_for() -> None:
    done = [subprocess.run(["sh", DEPLOY / "new-secrets.sh"], capture_output=True, text=True) for _ in range(8)]
    made, again, *others = [dict(line.split("=", 1) for line in one.stdout.splitlines()) for one in done]

    asked = set(re.findall(r"\$\{(\w+):\?", (DEPLOY / "compose.yaml").read_text()))
    assert made.keys() == asked
    assert not set(made.values()) & set(again.values())
    for each in (made, again, *others):  # in one of two base64 would do by chance
        Fernet(each["HURLBAT_SECRET_KEY"])
        check_key(each["HURLBAT_SIGNING_SECRET"])
    given = {name.removeprefix("HURLBAT_").lower(): made[name] for name in ("HURLBAT_API_TOKEN", "HURLBAT_SECRET_KEY")}
    load_settings(**given)
    assert re.fullmatch(r"\w+", made["POSTGRES_PASSWORD"])  # it stands in a URL


# -- commands, paths and ports -----------------------------------------------------------------------------------------


def test_every_command_is_one() -> None:
    [entry] = re.findall(r'^ENTRYPOINT \["(\w+)"\]', _of_image("Dockerfile"), re.MULTILINE)
    commands = re.findall(r'^CMD \["(\w+)"\]', _of_image("Dockerfile"), re.MULTILINE)
    commands += [service["command"][0] for service in _compose().values() if "command" in service]
    commands += [container["args"][0] for pod in _pods().values() for container in pod["containers"]]
    program, *words = shlex.split(_unit()["Service"]["ExecStart"])

    assert (entry, program.rpartition("/")[2]) == ("hurlbat", "hurlbat")
    assert sorted({*commands, *words}) == ["migrate", "serve"]
    assert {*commands, *words} <= COMMANDS.keys()


def test_every_port_is_the_one_that_is_listened_on() -> None:
    port = Settings().port
    image = _of_image("Dockerfile")

    assert f"HURLBAT_PORT={port} " in image
    assert f"EXPOSE {port}\n" in image
    published = [one for name, service in _compose().items() if name != "worker" for one in service.get("ports", ())]
    assert published
    assert {one.rpartition(":")[2] for one in published} == {str(port)}
    assert all(one.startswith("127.0.0.1:") for one in published)  # nothing is open to the world by itself
    [container] = _pods()["hurlbat"]["containers"]
    assert [one["containerPort"] for one in container["ports"]] == [port]
    [service] = _of_kind("Service")
    assert service["spec"]["ports"] == [{"name": "http", "port": port, "targetPort": "http"}]
    assert f":{port}" in next(_of_kind("ConfigMap"))["data"]["HURLBAT_EXTERNAL_URL"]
    assert f":{port}" in _compose()["worker"]["environment"]["HURLBAT_URL"]


def test_probes_ask_for_paths_that_the_contract_has() -> None:
    contract = yaml.safe_load((ROOT / "openapi.yaml").read_text())["paths"]
    container = _pods()["hurlbat"]["containers"][0]
    asked = {name: container[f"{name}Probe"]["httpGet"]["path"] for name in ("liveness", "readiness", "startup")}

    assert asked == {"liveness": "/health/live", "readiness": "/health/ready", "startup": "/health/live"}
    assert set(asked.values()) <= contract.keys()
    assert "/health/ready" in _of_image("Dockerfile")


# -- users, images and what is let in ----------------------------------------------------------------------------------


def test_nothing_runs_as_root() -> None:
    for name in IMAGES:
        assert re.findall(r"^USER (\d+)$", _of_image(name), re.MULTILINE)[-1] == "10001"
    for pod in _pods().values():
        assert (pod["securityContext"]["runAsNonRoot"], pod["securityContext"]["runAsUser"]) == (True, 10001)
        own = pod["containers"][0]["securityContext"]
        assert (own["allowPrivilegeEscalation"], own["readOnlyRootFilesystem"]) == (False, True)
    assert _unit()["Service"]["User"] not in ("", "root")


def test_every_image_has_a_version() -> None:
    images = [service["image"] for service in _compose().values()]
    images += [container["image"] for pod in _pods().values() for container in pod["containers"]]
    images += [image for name in IMAGES for image in re.findall(r"^FROM (\S+)", _of_image(name), re.MULTILINE)]

    for image in images:
        tag = image.rpartition(":")[2]
        assert re.match(r"\d+\.\d+", tag), image
        assert "hurlbat" not in image or tag == VERSION, image


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_is_let_in_what_the_wheel_is_built_of(name: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {"pyproject.toml", project["project"]["readme"], *project["project"]["license-files"], *wheel["packages"]}
    needed |= set(wheel["force-include"]) | set(re.findall(r"^COPY (?!--|\.)(\S+)", _of_image(name), re.MULTILINE))
    let_in = [line[1:] for line in (DEPLOY / f"{name}.dockerignore").read_text().splitlines() if line[:1] == "!"]

    assert [one for one in sorted(needed) if not any(f"{one}/".startswith(f"{path}/") for path in let_in)] == []
    assert [path for path in let_in if not (ROOT / path).exists()] == []


# -- health, order and stops -------------------------------------------------------------------------------------------


def test_compose_starts_in_order_and_waits_for_what_is_healthy() -> None:
    services = _compose()
    healthy = {name for name, service in services.items() if "test" in service.get("healthcheck", {})}
    healthy |= {name for name in services if name.startswith("server")}  # the image's own check
    assert "HEALTHCHECK" in _of_image("Dockerfile")
    for name, service in services.items():
        for other, how in service.get("depends_on", {}).items():
            ends = how["condition"] == "service_completed_successfully"
            assert (other == "migrate") if ends else (how["condition"] == "service_healthy" and other in healthy), name
    assert services["server-1"]["depends_on"] == services["server-2"]["depends_on"]
    assert len([name for name in services if name.startswith("server")]) == 2


def test_a_stop_is_given_more_time_than_it_may_take() -> None:
    given = {name: _seconds(service["stop_grace_period"]) for name, service in _compose().items() if "image" in service}
    pod = _pods()["hurlbat"]
    [pause] = [int(word) for word in pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"] if word.isdigit()]

    assert min(given["server-1"], given["server-2"], float(_unit()["Service"]["TimeoutStopSec"])) > STOP
    assert given["worker"] > read_settings({}, {}).grace
    assert pod["terminationGracePeriodSeconds"] > pause + STOP


def test_kubernetes_keeps_one_of_two_and_no_service_hides_a_setting() -> None:
    [deployment] = _of_kind("Deployment")
    [budget] = _of_kind("PodDisruptionBudget")
    labels: Mapping[str, str] = deployment["spec"]["template"]["metadata"]["labels"]

    assert (deployment["spec"]["replicas"], budget["spec"]["minAvailable"]) == (2, 1)
    assert deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    assert deployment["spec"]["selector"]["matchLabels"] == budget["spec"]["selector"]["matchLabels"] == labels
    [service] = _of_kind("Service")
    assert service["spec"]["selector"] == labels
    for pod in _pods().values():
        assert pod["enableServiceLinks"] is False
    assert {one["metadata"]["namespace"] for one in _kubernetes()} == {"hurlbat"}


def test_the_unit_keeps_its_database_where_it_may_write() -> None:
    service = _unit()["Service"]
    folder = f"/var/lib/{service['StateDirectory']}"

    assert service["WorkingDirectory"] == folder
    assert f"HURLBAT_DATABASE_URL=sqlite:///{folder}/" in service["Environment"]
    assert (service["ProtectSystem"], service["StateDirectoryMode"]) == ("strict", "0700")
    assert "AF_UNIX" in service["RestrictAddressFamilies"].split()  # PostgreSQL on this machine
