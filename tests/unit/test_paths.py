"""The table of paths says what the running service does: who may reach what, with which credential, on which port."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from tests.fake_homeserver import FakeHomeserver
from tests.packaging.documents import rows
from tests.parts import ROOT
from tests.service import running, settings
from uvs.app import create_app
from uvs.ops.paths import HEALTH, PATHS, READY, VERIFY_USER, Audience, Path

PUBLIC_PORT, INTERNAL_PORT = 3000, 3001
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT")
OWN = [path for path in PATHS if path.audience is Audience.OWN_SYSTEMS]
each_path = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.path)


@asynccontextmanager
async def service(**options: Any) -> AsyncIterator[httpx.AsyncClient]:
    homeserver = FakeHomeserver()
    async with running(settings(**options), transport=homeserver.transport()) as client:
        yield client


@asynccontextmanager
async def with_two_ports(port: int | None) -> AsyncIterator[httpx.AsyncClient]:
    """Asked on `port`, of a service with a port for its operator's own systems."""
    app = create_app(settings(internal_port=INTERNAL_PORT), transport=FakeHomeserver().transport())
    where = "" if port is None else f":{port}"
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url=f"http://uvs.invalid{where}") as client,
    ):
        yield client


@each_path
async def test_a_path_answers_its_method_and_no_other(path: Path) -> None:
    answered = {path.method, "HEAD"} if path.method == "GET" else {path.method}
    async with service() as client:
        found = {method for method in METHODS if (await client.request(method, path.path)).status_code != 404}
    assert found == answered


@each_path
@pytest.mark.parametrize("variant", ["{}/", "/{}", "{}/x", "{}%2f"])
async def test_no_variant_of_it_is_a_path(path: Path, variant: str) -> None:
    async with service() as client:
        assert (await client.request(path.method, variant.format(path.path))).status_code == 404


@each_path
@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}], ids=["none", "wrong"])
async def test_the_credential_is_needed_where_the_table_says_so(path: Path, headers: dict[str, str]) -> None:
    async with service(auth_token="right") as client:
        answer = await client.request(path.method, path.path, headers=headers)
        assert (answer.status_code == 403) == path.credential
        if path.credential:
            assert answer.text == "{}"
        answer = await client.request(path.method, path.path, headers={"Authorization": "Bearer right"})
        assert answer.status_code != 403


@each_path
async def test_where_no_credential_is_set_none_is_needed(path: Path) -> None:
    async with service() as client:
        assert (await client.request(path.method, path.path)).status_code != 403


@each_path
async def test_pages_of_other_origins_may_read_it_where_the_table_says_so(path: Path) -> None:
    async with service() as client:
        answer = await client.request(path.method, path.path, headers={"Origin": "https://evil.example"})
    allowed = {name: value for name, value in answer.headers.items() if name.startswith("access-control-")}
    assert allowed == ({"access-control-allow-origin": "*"} if path.any_origin else {})


class TestThePortForOwnSystems:
    @each_path
    async def test_it_has_every_path(self, path: Path) -> None:
        async with with_two_ports(INTERNAL_PORT) as client:
            assert (await client.request(path.method, path.path)).status_code != 404

    @each_path
    @pytest.mark.parametrize("port", [PUBLIC_PORT, None])
    async def test_the_other_port_has_only_what_is_for_anybody(self, path: Path, port: int | None) -> None:
        async with with_two_ports(port) as client:
            answer = await client.request(path.method, path.path)
        assert (answer.status_code != 404) == (path.audience is Audience.ANYBODY)
        if answer.status_code == 404:
            assert answer.text == "Not found."

    @pytest.mark.parametrize("path", OWN, ids=lambda path: path.path)
    @pytest.mark.parametrize(
        "headers",
        [
            {"Host": f"uvs.invalid:{INTERNAL_PORT}"},
            {"X-Forwarded-Port": str(INTERNAL_PORT), "X-Forwarded-Host": f"uvs.invalid:{INTERNAL_PORT}"},
            {"Forwarded": f'host="uvs.invalid:{INTERNAL_PORT}"', "X-Forwarded-For": "127.0.0.1"},
        ],
        ids=repr,
    )
    async def test_no_header_makes_one_port_of_the_other(self, path: Path, headers: dict[str, str]) -> None:
        async with with_two_ports(PUBLIC_PORT) as client:
            assert (await client.request(path.method, path.path, headers=headers)).status_code == 404

    async def test_without_one_everything_is_on_the_only_port(self) -> None:
        async with service() as client:
            for path in (HEALTH, READY, VERIFY_USER):
                assert (await client.request(path.method, path.path)).status_code != 404


def test_the_documents_have_the_same_table() -> None:
    expected = [
        [
            f"`{path.method} {path.path}`",
            path.audience.value,
            "`UVS_AUTH_TOKEN`" if path.credential else "none",
            "any origin" if path.any_origin else "none",
        ]
        for path in PATHS
    ]
    assert [row[:4] for row in rows(ROOT / "docs/operating.md", "path")] == expected
