"""The outermost ring: a reference for every error, one log line for every request, a net under every defect."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import base32_crockford
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tests.fake_homeserver import JOINED_ROOMS, USERINFO, FakeHomeserver, Fault, after, answering
from tests.parts.synapse import User
from tests.service import running, settings
from uvs.errors import CannotTell
from uvs.ops.access import AccessMiddleware, on_cannot_tell
from uvs.ops.logs import ConsoleFormatter, JsonFormatter
from uvs.ops.metrics import Metrics
from uvs.ops.reference import BITS, HEADER, new_reference

SECRET = "SeCrEt"
SYMBOLS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's: no I, L, O, U
JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class Here:
    client: httpx.AsyncClient
    homeserver: FakeHomeserver
    admin: User
    room: str
    records: list[logging.LogRecord]

    async def ask(self, **fields: object) -> httpx.Response:
        body = {"token": self.homeserver.openid_token(self.admin), "room_id": self.room, **fields}
        return await self.client.post("/verify/user_in_room", json=body)

    def lines(self) -> list[dict[str, Any]]:
        """The access log, as the JSON form has it."""
        return [json.loads(JsonFormatter(None).format(r)) for r in self.records if r.name == "uvs.access"]

    def text(self) -> str:
        """All that was logged, in both forms."""
        return "\n".join(form.format(r) for r in self.records for form in (ConsoleFormatter(None), JsonFormatter(None)))


@asynccontextmanager
async def service(
    caplog: pytest.LogCaptureFixture, *, faults: Mapping[str, Fault] | None = None, **options: Any
) -> AsyncIterator[Here]:
    caplog.set_level(logging.DEBUG)
    homeserver = FakeHomeserver()
    admin = homeserver.register("admin", admin=True)
    homeserver.faults.update(faults or {})
    defaults = {"access_token": admin.access_token, "openid_verify_server_name": homeserver.server_name}
    async with running(settings(**{**defaults, **options}), transport=homeserver.transport()) as client:
        yield Here(client, homeserver, admin, homeserver.create_room(admin), caplog.records)


class TestReferences:
    @given(number=st.integers(0, 2**BITS - 1))
    def test_one_is_eight_symbols_and_the_check_symbol(self, number: int) -> None:
        reference = new_reference(lambda _: number)
        assert len(reference) == 9
        assert set(reference[:8]) <= set(SYMBOLS)
        assert reference[8] in SYMBOLS + "*~$=U"
        assert base32_crockford.decode(reference, checksum=True) == number

    @given(number=st.integers(0, 2**BITS - 1))
    def test_one_is_understood_as_people_write_it_down(self, number: int) -> None:
        reference = new_reference(lambda _: number)
        written = reference.replace("0", "o").replace("1", "l").lower()
        assert base32_crockford.decode(f"{written[:4]}-{written[4:]}", checksum=True) == number

    @given(number=st.integers(0, 2**BITS - 1), place=st.integers(0, 7), symbol=st.sampled_from(SYMBOLS))
    def test_a_symbol_that_was_misheard_is_noticed(self, number: int, place: int, symbol: str) -> None:
        reference = new_reference(lambda _: number)
        misheard = reference[:place] + symbol + reference[place + 1 :]
        if misheard != reference:
            with pytest.raises(ValueError, match="invalid check symbol"):
                base32_crockford.decode(misheard, checksum=True)

    @pytest.mark.parametrize(
        ("status", "faults", "options", "request_"),
        [
            (400, {}, {}, {"content": b"{"}),
            (400, {}, {}, {"json": {"token": 1}}),
            (403, {}, {"auth_token": "caller"}, {"json": {}}),
            (404, {}, {}, {"url": "/elsewhere", "json": {}}),
            (413, {}, {}, {"content": b" " * 102_401}),
            (415, {}, {}, {"content": b"{}", "headers": {**JSON, "Content-Encoding": "br"}}),
            (429, {}, {"rate_limit": 1}, {"json": {"token": "x"}}),
            (500, {}, {}, {"json": {"token": "x"}}),
            (502, {USERINFO: answering(500)}, {}, {"json": {"token": "x"}}),
            (503, {USERINFO: answering(429)}, {}, {"json": {"token": "x"}}),
            (504, {USERINFO: after(5, answering(200))}, {"request_timeout": 0.05}, {"json": {"token": "x"}}),
        ],
    )
    async def test_every_answer_of_400_and_above_has_one_and_so_has_its_log_line(
        self,
        caplog: pytest.LogCaptureFixture,
        status: int,
        faults: Mapping[str, Fault],
        options: Mapping[str, Any],
        request_: dict[str, Any],
    ) -> None:
        async with service(caplog, faults={**faults, **({USERINFO: defect} if status == 500 else {})}, **options) as it:
            request = {"url": "/verify/user", "headers": JSON, **request_}
            if status == 429:
                await it.client.post(**request)
            answer = await it.client.post(**request)
        line = it.lines()[-1]
        assert answer.status_code == status
        assert answer.headers[HEADER] == line["reference"]
        assert base32_crockford.decode(line["reference"], checksum=True) is not None
        if answer.headers["content-type"].startswith("application/json") and status != 403:
            assert answer.json()["reference"] == line["reference"]

    async def test_a_good_answer_has_one_as_well(self, caplog: pytest.LogCaptureFixture) -> None:
        async with service(caplog) as it:
            answer = await it.ask(room_id="!other:matrix.example")
        assert answer.status_code == 200
        assert answer.headers[HEADER] == it.lines()[-1]["reference"]

    async def test_no_two_requests_have_the_same(self, caplog: pytest.LogCaptureFixture) -> None:
        async with service(caplog) as it:
            references = {(await it.client.get("/elsewhere")).headers[HEADER] for _ in range(50)}
        assert len(references) == 50


class TestTheLine:
    @pytest.mark.parametrize(
        ("fields", "facts"),
        [
            ({}, {"outcome": "yes", "user": "@admin:matrix.example", "power_level": 100}),
            ({"matrix_server_name": "matrix.example"}, {"outcome": "yes", "server": "matrix.example"}),
            ({"token": SECRET}, {"outcome": "no", "reason": "bad-token"}),
            ({"token": f"{SECRET}\n"}, {"outcome": "no", "reason": "bad-token"}),
            ({"room_id": "!other:matrix.example"}, {"outcome": "no", "user": "@admin:matrix.example"}),
            ({"room_id": "#alias:matrix.example"}, {"reason": "not-a-room", "room": "#alias:matrix.example"}),
            ({"matrix_server_name": "a.b"}, {"reason": "server-not-configured", "server": "a.b"}),
            ({"room_id": f"!{SECRET}"}, {"outcome": "rejected", "reason": "invalid-request"}),
        ],
    )
    async def test_it_says_what_came_of_the_request(
        self, caplog: pytest.LogCaptureFixture, fields: dict[str, object], facts: dict[str, object]
    ) -> None:
        async with service(caplog) as it:
            await it.ask(**fields)
        line = it.lines()[-1]
        assert facts.items() <= line.items()
        assert isinstance(line["ms"], float)
        assert SECRET not in it.text()

    async def test_it_says_what_the_request_cost_upstream(self, caplog: pytest.LogCaptureFixture) -> None:
        async with service(caplog) as it:
            await it.ask(token="x")
            await it.ask()
            await it.client.get("/elsewhere")
        refused, member, elsewhere = it.lines()
        assert refused["upstream_calls"] < member["upstream_calls"]
        assert member["upstream_ms"] > 0
        assert "upstream_calls" not in elsewhere

    async def test_requests_at_the_same_time_do_not_count_for_each_other(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with service(caplog) as it:
            await it.ask()
            await asyncio.gather(*(it.ask() for _ in range(10)))
        assert len({line["upstream_calls"] for line in it.lines()}) == 1

    async def test_what_only_the_operator_may_know_stands_in_it_and_not_in_the_answer(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def raises(_: Request) -> Response:
            raise CannotTell("Asking failed.", detail="10.0.0.1 refused the connection")

        app = Starlette(
            routes=[Route("/", raises)],
            middleware=[Middleware(AccessMiddleware, metrics=Metrics(), getrandbits=lambda _: 0)],
            exception_handlers={CannotTell: on_cannot_tell},
        )
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://uvs") as client:
            answer = await client.get("/")
        (line,) = (json.loads(JsonFormatter(None).format(r)) for r in caplog.records)
        assert (line["error"], line["detail"]) == ("Asking failed.", "10.0.0.1 refused the connection")
        assert "10.0.0.1" not in answer.text + str(answer.headers)

    @pytest.mark.parametrize(
        ("path", "status", "level"),
        [
            ("/health", 200, "debug"),
            ("/ready", 503, "debug"),
            ("/metrics", 200, "debug"),
            ("/metrics", 403, "info"),
            ("/.well-known/element/jitsi", 200, "info"),
            ("/verify/user", 400, "info"),
            ("/elsewhere", 404, "info"),
        ],
    )
    async def test_every_request_is_one_line_and_health_checks_only_show_at_debug_level(
        self, caplog: pytest.LogCaptureFixture, path: str, status: int, level: str
    ) -> None:
        options = {"auth_token": "caller"} if status == 403 else {}
        async with service(caplog, faults={"whoami": answering(500)}, **options) as it:
            await it.client.request("POST" if path.startswith("/verify") else "GET", path)
        (line,) = it.lines()
        assert line["level"] == level
        assert line["message"].endswith(f" {status}")

    @pytest.mark.parametrize(("fault", "status"), [(answering(500), 502), (answering(503), 503)])
    async def test_what_cannot_be_told_is_a_warning(
        self, caplog: pytest.LogCaptureFixture, fault: Fault, status: int
    ) -> None:
        async with service(caplog, faults={JOINED_ROOMS: fault}) as it:
            answer = await it.ask()
        line = it.lines()[-1]
        assert (answer.status_code, line["level"], line["outcome"]) == (status, "warning", "cannot-tell")
        assert line["error"] == answer.json()["error"]

    @pytest.mark.parametrize(
        "url",
        [
            f"/{SECRET}",
            f"/verify/user/{SECRET}",
            f"/verify/user?token={SECRET}",
            f"/health?{SECRET}",
            f"/.well-known/{SECRET}",
            f"/%0a2026-01-01T00:00:00.000Z INFO {SECRET}",
            f"//verify/user?{SECRET}",
        ],
    )
    async def test_a_query_string_or_an_unknown_path_is_not_in_it(
        self, caplog: pytest.LogCaptureFixture, url: str
    ) -> None:
        async with service(caplog) as it:
            for method in ("GET", "POST", "HEAD", f"{SECRET}-X"):
                headers = {"Authorization": f"Bearer {SECRET}", "Cookie": SECRET, "User-Agent": SECRET, **JSON}
                await it.client.request(method, url, headers=headers, content=b"{}")
        assert len(it.lines()) == 4
        assert SECRET not in it.text()

    async def test_a_token_in_a_body_that_is_no_object_is_not_in_it(self, caplog: pytest.LogCaptureFixture) -> None:
        async with service(caplog) as it:
            for content in (f'["{SECRET}"]', f'"{SECRET}"', f'{{"token": "{SECRET}', f'{{"{SECRET}": 1}}'):
                answer = await it.client.post("/verify/user", content=content, headers=JSON)
                assert answer.status_code == 400
                assert SECRET not in answer.text
        assert SECRET not in it.text()


async def defect() -> Any:
    raise KeyError(SECRET)


class TestDefects:
    async def test_one_costs_one_answer_and_is_logged_without_its_text(self, caplog: pytest.LogCaptureFixture) -> None:
        async with service(caplog) as it:
            it.homeserver.faults[JOINED_ROOMS] = defect
            answer = await it.ask()
            del it.homeserver.faults[JOINED_ROOMS]
            assert (await it.ask()).status_code == 200
        assert answer.status_code == 500
        reference = answer.headers[HEADER]
        assert answer.json() == {
            "errcode": "M_UNKNOWN",
            "error": "Internal error; see the log.",
            "reference": reference,
        }
        broken, line, _ = it.lines()
        assert (broken["level"], broken["reference"]) == ("error", reference)
        assert broken["exception"].startswith("KeyError in defect (")
        assert (line["level"], line["message"]) == ("warning", "POST /verify/user_in_room 500")
        assert SECRET not in it.text() + answer.text

    async def test_one_after_the_answer_has_begun_does_not_begin_another(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            raise KeyError(SECRET)

        sent = []

        async def receive() -> Any:
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message["type"])

        middleware = AccessMiddleware(app, metrics=Metrics(), getrandbits=lambda _: 0)
        await middleware({"type": "http", "path": "/", "method": "GET"}, receive, send)
        assert sent == ["http.response.start"]
        assert SECRET not in "".join(JsonFormatter(None).format(r) for r in caplog.records)
