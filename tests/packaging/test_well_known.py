"""The nginx and Caddy lines put the well-known file on the Jitsi domain, in the real servers and among other lines."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.packaging.documents import blocks
from tests.parts import PARTS, ROOT
from tests.parts.processes import Process, free_port, listening

PATH = "/.well-known/element/jitsi"
NGINX = PARTS / "tools/usr/sbin/nginx"
CADDY = PARTS / "tools/usr/bin/caddy"
DEPLOY = ROOT / "deploy"

# The lines stand in a site that has others: a header for all of it, and the path of Jitsi's own static files, which
# would take the well-known file's path.
NGINX_SITE = """
daemon off; master_process off; pid {folder}/pid; error_log stderr;
events {{}}
http {{
    access_log off; default_type text/html;
    client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
    uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
    server {{
        listen 127.0.0.1:{port};
        {everywhere}
        location ~ ^/(static|.well-known)/(.*)$ {{ return 404; }}
        location / {{ return 200 jitsi; }}
        include {lines};
    }}
}}
"""
CADDY_SITE = """
{{
	admin off
	auto_https off
}}
http://127.0.0.1:{port} {{
	{everywhere}
	import {lines}
	handle {{
		respond jitsi
	}}
}}
"""
EVERYWHERE = {"nginx": "add_header Access-Control-Allow-Origin *;", "caddy": "header Access-Control-Allow-Origin *"}


@pytest.fixture(scope="module")
def uvs(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a running service."""
    port = free_port()
    env = {"UVS_HOMESERVER_URL": "http://127.0.0.1:1", "UVS_ACCESS_TOKEN": "of-this-test-only", "UVS_PORT": str(port)}
    with Process([installed / "uvs"], tmp_path_factory.mktemp("uvs") / "log", env=env) as service:
        service.wait_until(lambda: listening(port), timeout=20)
        yield port


@pytest.fixture(params=["nginx", "caddy"])
def server(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(params=["written", "proxied"])
def lines(request: pytest.FixtureRequest, server: str, uvs: int, tmp_path: Path) -> Path:
    """The lines that the documents give, for this `uvs`."""
    suffix = {"nginx": "conf", "caddy": "caddyfile"}[server]
    name = {"written": "element-jitsi", "proxied": "element-jitsi-proxied"}[request.param]
    text = (DEPLOY / server / f"{name}.{suffix}").read_text()
    assert ("127.0.0.1:3000" in text) == (request.param == "proxied")
    copy = tmp_path / f"lines.{suffix}"
    copy.write_text(text.replace("127.0.0.1:3000", f"127.0.0.1:{uvs}"))
    return copy


Site = Callable[[str], httpx.Client]


@pytest.fixture
def site(server: str, lines: Path, tmp_path: Path) -> Iterator[Site]:
    """Starts the web server with the lines in it, and with `everywhere` above them."""
    started: list[Process] = []

    def start(everywhere: str) -> httpx.Client:
        port = free_port()
        config = tmp_path / "config"
        template = {"nginx": NGINX_SITE, "caddy": CADDY_SITE}[server]
        config.write_text(template.format(port=port, everywhere=everywhere, lines=lines, folder=tmp_path))
        commands: dict[str, list[str | Path]] = {
            "nginx": [NGINX, "-e", "stderr", "-c", config],
            "caddy": [CADDY, "run", "--adapter", "caddyfile", "--config", config],
        }
        env = {"HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
        process = Process(commands[server], tmp_path / "log", env=env)
        started.append(process)
        process.wait_until(lambda: listening(port), timeout=20)
        return httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False)

    yield start
    for process in started:
        process.stop()


def test_the_jitsi_domain_answers_as_element_needs_it(site: Site) -> None:
    with site("") as jitsi:
        answer = jitsi.get(PATH, headers={"Origin": "https://element.example"})
    assert answer.status_code == 200
    assert answer.headers.get_list("content-type") == ["application/json"]
    assert answer.headers.get_list("access-control-allow-origin") == ["*"]
    assert answer.json() == json.loads((ROOT / "wellknown/element/jitsi").read_text())


def test_the_header_is_sent_once_where_the_site_sets_it_everywhere(site: Site, server: str) -> None:
    """A browser takes two of them for none."""
    with site(EVERYWHERE[server]) as jitsi:
        assert jitsi.get(PATH).headers.get_list("access-control-allow-origin") == ["*"]


def test_the_other_paths_stay_the_sites_own(site: Site) -> None:
    with site("") as jitsi:
        assert jitsi.get("/MyMeeting").text == "jitsi"
        assert "openidtoken-jwt" not in jitsi.get(f"{PATH}/more").text
        assert "access-control-allow-origin" not in jitsi.get("/").headers


@pytest.mark.parametrize(("language", "suffix"), [("nginx", "nginx/*.conf"), ("caddyfile", "caddy/*.caddyfile")])
def test_the_document_shows_the_lines_that_are_tested_here(language: str, suffix: str) -> None:
    shown = blocks(ROOT / "docs/well-known.md", language)
    assert sorted(shown) == sorted(path.read_text() for path in DEPLOY.glob(suffix))
    assert len(shown) == 2
