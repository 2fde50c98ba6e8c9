"""`/metrics`: everything that came of requests and calls is counted, and nothing a stranger sends becomes a label."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

import uvs.app  # noqa: F401 - brings every error that can be raised
from tests.fake_homeserver import JOINED_ROOMS, USERINFO, FakeHomeserver, Fault, after, answering
from tests.parts import issued
from tests.parts.synapse import User
from tests.service import running, settings
from uvs import __version__
from uvs.errors import CannotTell, LimitExceeded
from uvs.net.calls import Call
from uvs.net.calls import Outcome as CallOutcome
from uvs.ops.access import reason
from uvs.ops.metrics import CACHES, REASONS, Metrics, Outcome
from uvs.ops.paths import PATHS
from uvs.ops.readiness import State

JSON = {"Content-Type": "application/json"}
Labels = frozenset[tuple[str, str]]


def samples(text: str) -> dict[tuple[str, Labels], float]:
    return {(s.name, frozenset(s.labels.items())): s.value for family in parse(text) for s in family.samples}


@dataclass(frozen=True)
class Here:
    client: httpx.AsyncClient
    homeserver: FakeHomeserver
    admin: User
    room: str

    async def ask(self, **fields: object) -> httpx.Response:
        body = {"token": self.homeserver.openid_token(self.admin), "room_id": self.room, **fields}
        return await self.client.post("/verify/user_in_room", json=body)

    async def value(self, name: str, **labels: str) -> float | None:
        found = samples((await self.client.get("/metrics")).text)
        return found.get((name, frozenset(labels.items())))

    async def requests(self, outcome: str, reason: str = "", path: str = "/verify/user_in_room") -> float | None:
        return await self.value("uvs_requests_total", path=path, outcome=outcome, reason=reason)


@asynccontextmanager
async def service(faults: Mapping[str, Fault] | None = None, **options: Any) -> AsyncIterator[Here]:
    homeserver = FakeHomeserver()
    admin = homeserver.register("admin", admin=True)
    homeserver.faults.update(faults or {})
    defaults = {"access_token": admin.access_token, "openid_verify_server_name": homeserver.server_name}
    async with running(settings(**{**defaults, **options}), transport=homeserver.transport()) as client:
        yield Here(client, homeserver, admin, homeserver.create_room(admin))


async def defect() -> Any:
    raise KeyError


class TestRequests:
    @pytest.mark.parametrize(
        ("fields", "outcome", "why"),
        [
            ({}, "yes", ""),
            ({"token": "x"}, "no", "bad-token"),
            ({"room_id": "!other:matrix.example"}, "no", "room-unknown"),
            ({"room_id": "#alias:matrix.example"}, "no", "not-a-room"),
            ({"matrix_server_name": "a.b"}, "no", "server-not-configured"),
            ({"room_id": 7}, "rejected", "invalid-request"),
        ],
    )
    async def test_each_is_counted_by_outcome_and_reason(
        self, fields: dict[str, object], outcome: str, why: str
    ) -> None:
        async with service() as here:
            assert await here.requests(outcome, why) == 0
            await here.ask(**fields)
            await here.ask(**fields)
            assert await here.requests(outcome, why) == 2

    @pytest.mark.parametrize(
        ("faults", "options", "outcome", "why"),
        [
            ({JOINED_ROOMS: answering(500)}, {}, "cannot-tell", "upstream-failed"),
            ({JOINED_ROOMS: answering(429)}, {}, "cannot-tell", "overloaded"),
            ({JOINED_ROOMS: after(5, answering(200))}, {"request_timeout": 0.05}, "cannot-tell", "deadline-exceeded"),
            ({JOINED_ROOMS: answering(403, {"errcode": "M_FORBIDDEN"})}, {}, "cannot-tell", "access-token-refused"),
            ({JOINED_ROOMS: defect}, {}, "defect", ""),
        ],
    )
    async def test_what_cannot_be_told_is_counted_by_its_error_code(
        self, faults: Mapping[str, Fault], options: dict[str, Any], outcome: str, why: str
    ) -> None:
        async with service(faults, **options) as here:
            await here.ask()
            assert await here.requests(outcome, why) == 1

    async def test_strangers_and_those_who_ask_too_often_are_counted(self) -> None:
        token = issued.secret()
        async with service(auth_token=token, rate_limit=2) as here:
            for _ in range(3):
                await here.ask()
            here.client.headers["Authorization"] = f"Bearer {token}"
            assert await here.requests("rejected", "wrong-auth-token") == 2
            assert await here.requests("rejected", "limit-exceeded") == 1

    async def test_other_paths_are_one(self) -> None:
        async with service() as here:
            for path in ("/x", "/y", "/verify/user"):
                await here.client.get(path)
            assert await here.requests("rejected", "not-found", "other") == 2
            assert await here.requests("rejected", "not-found", "/verify/user") == 1

    async def test_how_long_they_take_and_how_many_are_under_way_is_measured(self) -> None:
        go_on = asyncio.Event()

        async def slow() -> Any:
            await go_on.wait()
            return await answering(401, {"errcode": "M_UNKNOWN_TOKEN"})()

        async with service({USERINFO: slow}) as here:
            asking = [asyncio.create_task(here.ask()) for _ in range(3)]
            await asyncio.sleep(0.05)
            assert await here.value("uvs_requests_in_flight") == 3 + 1  # the one for this figure
            go_on.set()
            await asyncio.gather(*asking)
            assert await here.value("uvs_requests_in_flight") == 1
            assert await here.value("uvs_request_duration_seconds_count", path="/verify/user_in_room") == 3

    def test_every_error_code_has_its_reason(self) -> None:
        def below(kind: type[CannotTell]) -> set[type[CannotTell]]:
            return {kind}.union(*(below(child) for child in kind.__subclasses__()))

        reasons = {reason(kind.errcode) for kind in below(CannotTell) - {LimitExceeded}}
        assert reasons == set(REASONS[Outcome.CANNOT_TELL])
        assert reason(LimitExceeded.errcode) in REASONS[Outcome.REJECTED]


class TestTheRest:
    async def test_calls_are_measured_by_kind_and_how_they_ended(self) -> None:
        async with service() as here:
            await here.ask()
            before = await here.value("uvs_upstream_duration_seconds_count", call="userinfo", outcome="ok")
            await here.ask()
            await here.ask(token="x")
            after = await here.value("uvs_upstream_duration_seconds_count", call="userinfo", outcome="ok")
            refused = await here.value("uvs_upstream_duration_seconds_count", call="userinfo", outcome="refused")
        assert before is not None
        assert after == before + 1
        assert refused
        assert refused >= 1

    @pytest.mark.parametrize(
        ("fault", "ready", "state"),
        [
            (None, 1, State.READY),
            (answering(401, {"errcode": "M_UNKNOWN_TOKEN"}), 0, State.CREDENTIAL_REFUSED),
            (answering(500), 0, State.UNAVAILABLE),
        ],
    )
    async def test_the_state_of_the_homeservers_is_told_although_nobody_asks_for_ready(
        self, fault: Fault | None, ready: int, state: State
    ) -> None:
        async with service({"whoami": fault} if fault else {}) as here:
            assert await here.value("uvs_ready") == ready
            for each in State:
                assert await here.value("uvs_homeservers", state=each) == (each is state)

    def test_a_cache_that_nobody_knows_is_a_defect(self) -> None:
        with pytest.raises(ValueError, match="not one of"):
            Metrics().cache("@alice:example.org")

    async def test_caches_build_and_process_are_told(self) -> None:
        metrics = Metrics()
        tell = metrics.cache("dns")
        for hit in (True, True, False):
            tell(hit)
        found = samples(metrics.render("")[0].decode())
        cache = {("cache", "dns")}
        assert found["uvs_cache_requests_total", frozenset(cache | {("result", "hit")})] == 2
        assert found["uvs_cache_requests_total", frozenset(cache | {("result", "miss")})] == 1
        (build,) = (dict(labels) for name, labels in found if name == "uvs_build_info")
        assert build["version"] == __version__
        for name in ("resident_memory_bytes", "open_fds", "cpu_seconds_total", "start_time_seconds"):
            assert found[f"process_{name}", frozenset()] > 0


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("", "text/plain"),
        ("*/*", "text/plain"),
        ("application/openmetrics-text; version=1.0.0,text/plain;version=0.0.4;q=0.5", "application/openmetrics-text"),
        ("application/openmetrics-text; version=nonsense", "text/plain"),
        ("text/plain; version=\xff", "text/plain"),
    ],
)
async def test_it_comes_in_the_form_that_is_asked_for(accept: str, media_type: str) -> None:
    async with service() as here:
        await here.ask()
        answer = await here.client.get("/metrics", headers=[(b"Accept", accept.encode("latin-1"))])
    assert answer.status_code == 200
    assert answer.headers["content-type"].partition(";")[0] == media_type
    families = {f.name for f in (parse if media_type == "text/plain" else parse_openmetrics)(answer.text)}
    assert {"uvs_requests", "uvs_ready", "uvs_build_info"} <= families


async def test_two_applications_share_nothing() -> None:
    async with service() as one, service() as other:
        await one.ask()
        assert await one.requests("yes") == 1
        assert await other.requests("yes") == 0


TEXT = st.text(st.characters(codec="utf-8"), max_size=40)
IDENTIFIERS = st.builds(lambda sigil, name, server: f"{sigil}{name}:{server}", st.sampled_from("@!#"), TEXT, TEXT)
VALUES = st.none() | st.integers() | TEXT | IDENTIFIERS | st.lists(TEXT, max_size=2)
BODIES = st.dictionaries(st.sampled_from(["token", "room_id", "matrix_server_name"]) | TEXT, VALUES, max_size=4)
SEGMENTS = st.sampled_from(["verify", "user", "user_in_room", "metrics", "ready", "..", "%2e"]) | st.text(
    "abc/%", max_size=8
)
METHODS = st.sampled_from(["GET", "POST", "HEAD", "PUT", "X-EVIL", "BREW"])

ALLOWED: dict[str, set[str]] = {
    "path": {path.path for path in PATHS} | {"other"},
    "outcome": set(Outcome) | set(CallOutcome),
    "reason": {each for reasons in REASONS.values() for each in reasons} | {""},
    "call": set(Call),
    "state": set(State),
    "cache": set(CACHES),
    "result": {"hit", "miss"},
}


@given(path=st.lists(SEGMENTS, max_size=3), method=METHODS, body=BODIES, header=st.text("abc/;= \t", max_size=20))
def test_nothing_that_is_sent_becomes_a_label(path: list[str], method: str, body: dict[str, Any], header: str) -> None:
    async def send() -> None:
        async with service({JOINED_ROOMS: answering(200, {"joined_rooms": [f"!{header}:evil"]})}) as here:
            target = "/" + "/".join(path).lstrip("/")
            await here.client.request(method, target, json=body, headers={"Accept": header.strip()})
            answer = await here.ask(**{key: value for key, value in body.items() if key != "token"})
            assert answer.status_code < 500
            for _, labels in samples((await here.client.get("/metrics")).text):
                for name, value in labels:
                    if name in {"le", "version", "python"}:
                        continue
                    assert value in ALLOWED[name]

    asyncio.run(send())
