"""`/openapi.json` says what the running service does: every path, status, body and header."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from schemathesis.specs.openapi.checks import (
    ignored_auth,
    positive_data_acceptance,
    unsupported_method,
)

from tests.fake_homeserver import USERINFO, FakeHomeserver, after, answering
from tests.service import running, settings
from tests.unit.serving import served
from uvs import __version__
from uvs.app import create_app
from uvs.ops.paths import PATHS
from uvs.ops.public import openapi

DESCRIPTION = json.loads(openapi())
SCHEMA = schemathesis.openapi.from_dict(DESCRIPTION)
AUTH_TOKEN = "caller"

NOT_OURS = [
    unsupported_method,  # COMPAT: a wrong method is 404, as an unknown path
    positive_data_acceptance,  # what an identifier is, says the specification, not a pattern
    ignored_auth,  # the credential is needed only where one is set, which a description cannot say
]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The service on a real socket."""
    homeserver = FakeHomeserver()
    with served(homeserver) as port:
        app = create_app(
            settings(
                homeserver_url=f"http://127.0.0.1:{port}",
                access_token=homeserver.register("admin", admin=True).access_token,
                openid_verify_server_name=homeserver.server_name,
                auth_token=AUTH_TOKEN,
                rate_limit=0,
            )
        )
        with served(app) as own_port:
            yield f"http://127.0.0.1:{own_port}"


@pytest.mark.parametrize("headers", [{"Authorization": f"Bearer {AUTH_TOKEN}"}, {}], ids=["caller", "stranger"])
@SCHEMA.parametrize()
@hypothesis_settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
def test_whatever_is_asked_the_answer_is_one_that_is_described(
    case: schemathesis.Case[Any], url: str, headers: dict[str, str]
) -> None:
    answer = case.call_and_validate(base_url=url, headers=headers, excluded_checks=NOT_OURS)
    if case.method.lower() in DESCRIPTION["paths"][case.path]:
        _validate_text(case.path, case.method, answer.status_code, answer.headers["content-type"][0], answer.text)
    else:
        assert answer.status_code == 404


def test_its_paths_and_methods_are_those_of_the_table() -> None:
    described = {(path, method.upper()) for path, methods in DESCRIPTION["paths"].items() for method in methods}
    assert described == {(path.path, path.method) for path in PATHS}


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.path)
def test_it_says_whom_a_path_is_for(path: Any) -> None:
    described = DESCRIPTION["paths"][path.path][path.method.lower()]
    assert described["tags"] == [path.audience]
    assert bool(described["security"]) == path.credential
    answer = described["responses"]["200"]
    assert ("Access-Control-Allow-Origin" in answer["headers"]) == path.any_origin


async def test_it_is_served_with_the_version_that_runs() -> None:
    async with running(settings(), transport=FakeHomeserver().transport()) as client:
        answer = await client.get("/openapi.json")
    assert answer.json() == DESCRIPTION
    assert answer.json()["info"]["version"] == __version__


@pytest.mark.parametrize("path", ["/verify/user", "/verify/user_in_room"])
async def test_the_fields_that_it_requires_are_those_that_are_missed(path: str) -> None:
    schema = DESCRIPTION["components"]["schemas"]
    question = schema["UserQuestion" if path == "/verify/user" else "UserInRoomQuestion"]
    good = {"token": "x", "room_id": "!a:b", "matrix_server_name": "b"}
    fields = {name: good[name] for name in question["properties"]}
    options = settings(openid_verify_server_name="b", federation="off")
    async with running(options, transport=FakeHomeserver().transport()) as client:
        for name in fields:
            answer = await client.post(path, json={key: value for key, value in fields.items() if key != name})
            assert (answer.status_code == 400) == (name in question["required"])


JSON = {"Content-Type": "application/json"}


async def defect() -> Any:
    raise KeyError


@pytest.mark.parametrize("path", ["/verify/user", "/verify/user_in_room"])
@pytest.mark.parametrize(
    ("status", "fault", "options", "request_"),
    [
        (200, None, {}, {"json": {"token": "good", "room_id": "!a:b"}}),
        (200, None, {}, {"json": {"token": "bad", "room_id": "!a:b"}}),
        (400, None, {}, {"content": b"{"}),
        (403, None, {"auth_token": "caller"}, {"json": {}}),
        (413, None, {}, {"content": b" " * 102_401}),
        (415, None, {}, {"content": b"{}", "headers": {**JSON, "Content-Encoding": "br"}}),
        (429, None, {"rate_limit": 1}, {"json": {"token": "x", "room_id": "!a:b"}}),
        (500, defect, {}, {"json": {"token": "x", "room_id": "!a:b"}}),
        (502, answering(500), {}, {"json": {"token": "x", "room_id": "!a:b"}}),
        (503, answering(429), {}, {"json": {"token": "x", "room_id": "!a:b"}}),
        (504, after(5, answering(200)), {"request_timeout": 0.05}, {"json": {"token": "x", "room_id": "!a:b"}}),
    ],
)
async def test_every_status_is_as_described(
    path: str, status: int, fault: Any, options: Mapping[str, Any], request_: dict[str, Any]
) -> None:
    homeserver = FakeHomeserver()
    admin = homeserver.register("admin", admin=True)
    token = homeserver.openid_token(admin)
    if fault:
        homeserver.faults[USERINFO] = fault
    if request_.get("json", {}).get("token") == "good":
        request_ = {"json": {"token": token, "room_id": homeserver.create_room(admin)}}
    defaults = {"access_token": admin.access_token, "openid_verify_server_name": homeserver.server_name}
    async with running(settings(**{**defaults, **options}), transport=homeserver.transport()) as client:
        if status == 429:
            await client.post(path, **request_)
        answer = await client.post(path, **{"headers": JSON, **request_})
    assert answer.status_code == status
    _validate(path, "POST", answer)


@pytest.mark.parametrize(("status", "fault"), [(200, None), (503, answering(500))])
async def test_readiness_is_as_described(status: int, fault: Any) -> None:
    homeserver = FakeHomeserver()
    admin = homeserver.register("admin", admin=True)
    if fault:
        homeserver.faults["whoami"] = fault
    async with running(settings(access_token=admin.access_token), transport=homeserver.transport()) as client:
        answer = await client.get("/ready")
    assert answer.status_code == status
    _validate("/ready", "GET", answer)


def _validate(path: str, method: str, answer: httpx.Response) -> None:
    assert str(answer.status_code) in DESCRIPTION["paths"][path][method.lower()]["responses"]
    SCHEMA[path][method].validate_response(answer)
    _validate_text(path, method, answer.status_code, answer.headers["content-type"], answer.text)


def _validate_text(path: str, method: str, status: int, media_type: str, text: str) -> None:
    """What schemathesis does not look at: media types with their parameters, and bodies that are no JSON."""
    response = DESCRIPTION["paths"][path][method.lower()]["responses"][str(status)]
    if "$ref" in response:
        response = DESCRIPTION["components"]["responses"][response["$ref"].rpartition("/")[2]]
    content = response["content"]
    kind = media_type if media_type in content else media_type.partition(";")[0]
    assert kind in content
    schema = content[kind]["schema"]
    assert text == schema.get("const", text)
    assert re.search(schema.get("pattern", ""), text)
