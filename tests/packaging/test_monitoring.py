"""The files in deploy/monitoring do what they say: a real Prometheus reads them, and what they ask for is measured."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families as parse

from tests.fake_homeserver import FakeHomeserver
from tests.packaging.conftest import run
from tests.packaging.documents import rows
from tests.parts import PARTS, ROOT, issued
from tests.parts.processes import Process, free_port
from tests.parts.service import Service
from tests.unit.serving import served
from uvs.net.calls import Call
from uvs.net.calls import Outcome as CallOutcome
from uvs.ops.metrics import OTHER_PATH, REASONS, Outcome
from uvs.ops.paths import PATHS
from uvs.ops.readiness import State

MONITORING = ROOT / "deploy/monitoring"
RULES = MONITORING / "uvs.rules.yml"
DASHBOARD = MONITORING / "grafana-dashboard.json"
DOCUMENT = ROOT / "docs/monitoring.md"
TOOLS = PARTS / "tools/usr/bin"
AUTH_TOKEN = issued.secret()

VALUES: dict[str, set[str]] = {
    "path": {path.path for path in PATHS} | {OTHER_PATH},
    "reason": {each for reasons in REASONS.values() for each in reasons},
    "outcome": set(Outcome) | set(CallOutcome),
    "call": set(Call),
    "state": set(State),
    "result": {"hit", "miss"},
}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    homeserver = FakeHomeserver()
    with (
        served(homeserver) as port,
        Service(
            tmp_path_factory.mktemp("uvs"),
            homeserver_url=f"http://127.0.0.1:{port}",
            access_token=homeserver.register("admin", admin=True).access_token,
            auth_token=AUTH_TOKEN,
            server_name=homeserver.server_name,
        ) as running,
    ):
        yield running


@pytest.fixture(scope="module")
def measured(service: Service) -> dict[str, set[str]]:
    """What is measured, and the labels of each."""
    samples = [sample for family in parse(service.metrics()) for sample in family.samples]
    return {each.name: {label for s in samples if s.name == each.name for label in s.labels} for each in samples}


def expressions() -> dict[str, str]:
    """What is asked of Prometheus, by who asks."""
    panels: list[dict[str, Any]] = json.loads(DASHBOARD.read_text())["panels"]
    asked = {f"{panel['title']} {target['refId']}": target["expr"] for panel in panels for target in panel["targets"]}
    for alert in RULES.read_text().split("- alert: ")[1:]:
        name, _, rest = alert.partition("\n")
        asked[name] = rest.partition("expr: ")[2].partition("labels: ")[0].partition("for: ")[0].removeprefix("|")
    return asked


def test_prometheus_accepts_what_the_service_measures(service: Service) -> None:
    done = subprocess.run(
        [TOOLS / "promtool", "check", "metrics"], input=service.metrics(), text=True, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_prometheus_accepts_the_rules_and_they_fire_when_they_should(tmp_path: Path) -> None:
    run(TOOLS / "promtool", "check", "rules", RULES)
    shutil.copy(RULES, tmp_path)
    shutil.copy(Path(__file__).with_name("alerts.test.yml"), tmp_path)
    run(TOOLS / "promtool", "test", "rules", tmp_path / "alerts.test.yml")


def test_every_alert_is_tried() -> None:
    alerts = set(re.findall(r"- alert: (\w+)", RULES.read_text()))
    tests = Path(__file__).with_name("alerts.test.yml").read_text()
    assert alerts == set(re.findall(r"alertname: (\w+)\n +exp_alerts", tests))
    assert alerts == set(re.findall(r"alertname: (\w+) }", tests))  # and the opposite


@pytest.mark.parametrize("who", expressions())
def test_what_is_asked_is_measured(who: str, measured: dict[str, set[str]]) -> None:
    expression = expressions()[who]
    names = set(re.findall(r"\b(?:uvs|process)_\w+", expression))
    assert names or who == "UvsDown"
    assert names <= measured.keys()
    for name, selector in re.findall(r"\b((?:uvs|process)_\w+)\{([^}]*)\}", expression):
        for label, operator, value in re.findall(r'(\w+)(=~|!~|!=|=)"([^"]*)"', selector):
            if label in {"job", "instance"}:
                continue
            assert label in measured[name]
            wanted = value.split("|") if "~" in operator else [value]
            for each in wanted:
                assert any(re.fullmatch(each, known) for known in VALUES[label]), each


def test_a_real_prometheus_reads_the_service_with_the_example(service: Service, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(AUTH_TOKEN)
    example = (MONITORING / "prometheus.yml").read_text()
    config = "global: {scrape_interval: 1s, evaluation_interval: 1s}\n" + example.replace(
        "127.0.0.1:3000", f"127.0.0.1:{service.port}"
    ).replace("/etc/prometheus/uvs_auth_token", str(tmp_path / "token"))
    (tmp_path / "prometheus.yml").write_text(config)
    shutil.copy(RULES, tmp_path)
    run(TOOLS / "promtool", "check", "config", tmp_path / "prometheus.yml")
    port = free_port()
    options = {
        "config.file": tmp_path / "prometheus.yml",
        "storage.tsdb.path": tmp_path / "data",
        "web.listen-address": f"127.0.0.1:{port}",
    }
    command = [str(TOOLS / "prometheus"), *(f"--{name}={value}" for name, value in options.items())]
    with Process(command, tmp_path / "prometheus.log", cwd=tmp_path) as prometheus:

        def asked(expression: str) -> list[Any]:
            url = f"http://127.0.0.1:{port}/api/v1/query"
            try:
                answer = httpx.get(url, params={"query": expression}, timeout=5, trust_env=False)
            except httpx.TransportError:
                return []
            found: list[Any] = answer.json()["data"]["result"] if answer.status_code == 200 else []
            return found

        prometheus.wait_until(lambda: bool(asked("uvs_ready")), timeout=30)
        assert asked("uvs_ready")[0]["value"][1] == "1"
        assert asked('up{job="uvs"}')[0]["value"][1] == "1"
        for who, expression in expressions().items():
            url = f"http://127.0.0.1:{port}/api/v1/query"
            query = expression.replace("$__rate_interval", "1m").replace("$instance", ".*")
            answer = httpx.get(url, params={"query": query}, timeout=5, trust_env=False)
            assert answer.json()["status"] == "success", who
    assert "level=error" not in prometheus.log_text()


def test_the_document_names_every_measurement_and_every_alert(measured: dict[str, set[str]]) -> None:
    bases = {re.sub(r"_(bucket|sum|count|created)$", "", name) for name in measured if name.startswith("uvs_")}
    bases = {name if not name.endswith("requests") else f"{name}_total" for name in bases}
    documented = {row[0].strip("`"): row[1] for row in rows(DOCUMENT, "measurement")}
    assert documented.keys() == bases
    for name, labels in documented.items():
        known = set().union(*(found for each, found in measured.items() if each.startswith(name))) - {"le"}
        assert set(re.findall(r"`(\w+)`", labels)) == known
    alerts = set(re.findall(r"- alert: (\w+)", RULES.read_text()))
    assert {row[0].strip("`") for row in rows(DOCUMENT, "alert")} == alerts


def test_the_document_names_every_outcome_and_reason() -> None:
    documented = {row[0].strip("`"): set(re.findall(r"`([a-z-]+)`", row[1])) for row in rows(DOCUMENT, "outcome")}
    assert documented == {outcome.value: set(reasons) - {""} for outcome, reasons in REASONS.items()}
