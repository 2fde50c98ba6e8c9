"""The look for secrets finds them: whole, in pieces, and in everything that the service says."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from tests.fake_homeserver import FakeHomeserver
from tests.parts import issued
from tests.service import running, settings


@pytest.fixture
def findings() -> Iterator[list[str]]:
    """What is found meanwhile, which is forgotten afterwards."""
    before = list(issued.findings)
    issued.findings.clear()
    yield issued.findings
    issued.findings[:] = before


@pytest.mark.parametrize(
    "form", ["{}", "GET /?access_token={}&x=1", 'x="{}"', "Bearer {}", "…{}…", "a.{}.b", "abc{}abc", "%22{}%22"]
)
@pytest.mark.parametrize("piece", [slice(None), slice(8), slice(-8, None), slice(10, 18)])
def test_a_secret_or_a_piece_of_it_is_found(findings: list[str], form: str, piece: slice) -> None:
    secret = issued.secret()
    issued.look_at("here", form.format(secret[piece]))
    assert findings == ["here"]


@pytest.mark.parametrize("text", ["", "nothing to see", "access_token=", "of-this-test-run-only"])
def test_where_there_is_none_none_is_found(findings: list[str], text: str) -> None:
    secret = issued.secret()
    issued.look_at("here", text + secret[:7])
    assert findings == []


@pytest.mark.parametrize("written_down", ["caller", "SeCrEt", "an-administrator", "ACCESS-TOKEN-ACCESS-TOKEN"])
def test_what_may_stand_in_a_log_by_chance_is_not_looked_for(findings: list[str], written_down: str) -> None:
    assert issued.register(written_down) == written_down
    issued.look_at("here", written_down)
    assert findings == []


def test_every_log_record_is_looked_at(findings: list[str]) -> None:
    secret = issued.secret()
    logging.getLogger("uvs").debug("hello", extra={"facts": {"x": secret}})
    logging.getLogger("elsewhere").warning("%s", secret)
    assert findings == ["log of uvs: hello", "log of elsewhere: %s"]


async def test_every_answer_of_the_service_is_looked_at(findings: list[str]) -> None:
    homeserver = FakeHomeserver()
    named_after_a_secret = homeserver.register(issued.secret(), admin=True)
    options = settings(access_token=named_after_a_secret.access_token, openid_verify_server_name=homeserver.server_name)
    async with running(options, transport=homeserver.transport()) as client:
        answer = await client.post("/verify/user", json={"token": homeserver.openid_token(named_after_a_secret)})
    assert answer.json()["user_id"] == named_after_a_secret.user_id
    assert "answer of /verify/user" in findings


async def test_the_tokens_of_tests_are_looked_for(findings: list[str]) -> None:
    homeserver = FakeHomeserver()
    user = homeserver.register("user")
    options = settings(auth_token=issued.secret())
    secrets = [user.access_token, homeserver.openid_token(user), *map(str, _secrets(options))]
    async with running(options, transport=homeserver.transport()):
        for secret in secrets:
            issued.look_at(secret, secret)
    assert findings == secrets
    assert len(secrets) == 4


def _secrets(options: object) -> list[str]:
    return [getattr(options, name).get_secret_value() for name in ("access_token", "auth_token")]
