"""The real process, `python -m uvs`: how it starts and ends, and that nothing a stranger sends ends it."""

from __future__ import annotations

import os
import re
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.fake_homeserver import USERINFO, FakeHomeserver, after, answering
from tests.parts.processes import Process, free_port
from tests.parts.service import Service
from tests.service import settings
from tests.unit.serving import served
from uvs import __version__
from uvs.app import create_app
from uvs.ops.server import BoundedProtocol

MEMORY = 12 * 1024
"""kB that an attack may cost; each sends or opens several times that where nothing holds it back."""

FLOOD = 24 * 1024 * 1024  # bytes


@pytest.fixture(scope="module")
def homeserver() -> Iterator[FakeHomeserver]:
    homeserver = FakeHomeserver()
    with served(homeserver) as port:
        homeserver.url = f"http://127.0.0.1:{port}"
        yield homeserver


@contextmanager
def process(homeserver: FakeHomeserver, directory: Path, **options: str) -> Iterator[Service]:
    admin = homeserver.register("admin", admin=True)
    with Service(
        directory,
        homeserver_url=homeserver.url,
        access_token=admin.access_token,
        server_name=homeserver.server_name,
        options=options,
    ) as running:
        yield running


@pytest.fixture(scope="module")
def service(homeserver: FakeHomeserver, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with process(homeserver, tmp_path_factory.mktemp("uvs")) as running:
        yield running


@pytest.fixture(scope="module", autouse=True)
def end_of_a_held_up_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Future[float]]:
    """How many seconds a process takes to end whose homeserver would answer in a minute. Found out beside the tests,
    since it is long."""
    homeserver = FakeHomeserver()
    homeserver.faults[USERINFO] = after(60, answering(200, {}))
    with (
        served(homeserver) as port,
        ThreadPoolExecutor() as threads,
    ):
        homeserver.url = f"http://127.0.0.1:{port}"
        options = {"UVS_REQUEST_TIMEOUT": "60"}
        with process(homeserver, tmp_path_factory.mktemp("held-up"), **options) as held_up:

            def end() -> float:
                threads.submit(ask, held_up, "token").add_done_callback(Future.exception)
                wait_until(lambda: asked(homeserver, times=2))  # the start-up check asks it once
                return seconds_to_end(held_up)

            yield threads.submit(end)


def test_what_the_operator_should_know_of_the_settings_is_logged_at_the_start(
    homeserver: FakeHomeserver, tmp_path: Path
) -> None:
    with process(homeserver, tmp_path, UVS_OPENID_VERIFY_SERVER_NAME="", UVS_AUTH_TOKEN="") as service:
        said = service.log_text()
    assert "UVS_FEDERATION is not set, so people of every homeserver are verified. Choose: off" in said
    assert "UVS_AUTH_TOKEN is empty" in said


def ask(service: Service, token: str) -> httpx.Response:
    return httpx.post(f"{service.url}/verify/user", json={"token": token}, timeout=70, trust_env=False)


def asked(homeserver: FakeHomeserver, *, times: int) -> bool:
    return [what for what, _ in homeserver.calls].count(USERINFO) >= times


def wait_until(ready: Callable[[], bool], *, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def seconds_to_end(service: Service) -> float:
    started = time.monotonic()
    os.kill(service.process.pid, signal.SIGTERM)
    wait_until(lambda: not service.process.running, seconds=30)
    return time.monotonic() - started


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=5)


def everything_from(connection: socket.socket) -> bytes:
    """What comes until the other side ends the connection."""
    received = b""
    try:
        while piece := connection.recv(65536):
            received += piece
    except ConnectionError:
        pass
    return received


def answer_to(port: int, raw: bytes) -> bytes:
    with connect(port) as connection:
        connection.sendall(raw)
        return everything_from(connection)


def statuses(raw: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 ([0-9]{3}) ", raw)]


def post(body: bytes, *headers: bytes, path: bytes = b"/verify/user") -> bytes:
    """A request after whose answer the connection ends."""
    lines = [b"POST %s HTTP/1.1" % path, b"Host: uvs", b"Content-Type: application/json", *headers]
    if not any(b"Connection:" in header for header in headers):
        lines.append(b"Connection: close")
    if not any(b"Content-Length:" in header or b"Transfer-Encoding:" in header for header in headers):
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join([*lines, b"", body])


def memory(service: Service, line: str) -> int:
    status = Path(f"/proc/{service.process.pid}/status").read_text()
    return int(status.partition(f"{line}:")[2].split()[0])  # kB


@contextmanager
def unharmed(service: Service) -> Iterator[None]:
    """Whatever happens meanwhile: it costs little memory, and afterwards the service answers as before."""
    Path(f"/proc/{service.process.pid}/clear_refs").write_text("5")  # the peak counts from here
    before = memory(service, "VmRSS")
    yield
    assert httpx.get(f"{service.url}/health", timeout=2, trust_env=False).text == "👍"
    assert service.process.running
    assert memory(service, "VmHWM") - before < MEMORY


# --- start and end ----------------------------------------------------------------------------------------------------


def test_at_the_start_it_says_where_it_listens_and_whom_it_asks(service: Service) -> None:
    wait_until(lambda: "Homeserver" in service.log_text())
    first, second, *_ = service.log_text().splitlines()
    assert first.endswith(f"INFO    uvs {__version__} listens on 127.0.0.1 port {service.port}")
    assert second.endswith("INFO    Homeserver matrix.example answers, and the access token can do all that is needed")


def test_it_starts_although_the_homeserver_is_down_and_serves_once_it_is_up(tmp_path: Path) -> None:
    homeserver = FakeHomeserver(url=f"http://127.0.0.1:{free_port()}")
    member = homeserver.register("member")
    with process(homeserver, tmp_path) as service:
        wait_until(lambda: "Checking again in 5 s" in service.log_text())
        assert ask(service, homeserver.openid_token(member)).status_code == 502
        with served(homeserver, port=int(homeserver.url.rpartition(":")[2])):
            assert ask(service, homeserver.openid_token(member)).json()["user_id"] == member.user_id


def test_a_port_that_is_taken_is_said_in_one_line_and_ends_the_process(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        env = {
            "PATH": os.environ["PATH"],
            "UVS_HOMESERVER_URL": "http://127.0.0.1:1",
            "UVS_ACCESS_TOKEN": "x",
            "UVS_PORT": str(port),
            "UVS_FEDERATION": "off",
        }
        uvs = Process([sys.executable, "-m", "uvs"], tmp_path / "log", env=env)
        wait_until(lambda: not uvs.running)
        assert uvs.stop() == 1
    (line,) = uvs.log_text().splitlines()
    assert line.endswith(f"ERROR   uvs cannot listen on 127.0.0.1 port {port}: Address already in use")


def test_a_port_for_own_systems_is_served_by_the_same_process(homeserver: FakeHomeserver, tmp_path: Path) -> None:
    port = free_port()
    with process(homeserver, tmp_path, UVS_INTERNAL_PORT=str(port)) as service:
        public, internal = service.url, f"http://127.0.0.1:{port}"
        asked_for = ("/health", "/ready", "/metrics", "/openapi.json")
        found = {
            where: [httpx.get(where + path, timeout=5, trust_env=False).status_code for path in asked_for]
            for where in (public, internal)
        }
        assert found == {public: [200, 404, 404, 200], internal: [200, 200, 200, 200]}
        token = homeserver.openid_token(homeserver.register("member"))
        for where, status in ((public, 404), (internal, 200)):
            answer = httpx.post(f"{where}/verify/user", json={"token": token}, timeout=5, trust_env=False)
            assert answer.status_code == status
        spoofed = post(b"{}", b"Host: 127.0.0.1:%d" % port).replace(b"Host: uvs\r\n", b"")
        assert statuses(answer_to(service.port, spoofed)) == [404]
        absolute = spoofed.replace(b"/verify", b"http://127.0.0.1:%d/verify" % port, 1)
        assert statuses(answer_to(service.port, absolute)) == [404]
        first = service.log_text().splitlines()[0]
        assert first.endswith(f"listens on 127.0.0.1 port {service.port} and 127.0.0.1 port {port}")


def test_a_port_for_own_systems_that_is_taken_is_said_and_ends_the_process(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        env = {
            "PATH": os.environ["PATH"],
            "UVS_HOMESERVER_URL": "http://127.0.0.1:1",
            "UVS_ACCESS_TOKEN": "x",
            "UVS_PORT": str(free_port()),
            "UVS_INTERNAL_PORT": str(port),
            "UVS_FEDERATION": "off",
        }
        uvs = Process([sys.executable, "-m", "uvs"], tmp_path / "log", env=env)
        wait_until(lambda: not uvs.running)
        assert uvs.stop() == 1
    (line,) = uvs.log_text().splitlines()
    assert line.endswith(f"ERROR   uvs cannot listen on 127.0.0.1 port {port}: Address already in use")


@pytest.mark.parametrize(("options", "shown"), [({}, False), ({"UVS_LOG_IDENTIFIERS": "true"}, True)])
def test_the_log_names_people_only_where_the_operator_wants_it(
    homeserver: FakeHomeserver, tmp_path: Path, options: dict[str, str], shown: bool
) -> None:
    key = {"UVS_LOG_PSEUDONYM_KEY": "a-key-of-the-operators"}
    pseudonyms = set()
    for start in ("first", "second"):
        with process(homeserver, tmp_path / start, **options, **(key if not shown else {})) as service:
            ask(service, homeserver.openid_token(homeserver.register("alice")))
            wait_until(lambda: "POST /verify/user 200" in service.log_text())
            line = next(line for line in service.log_text().splitlines() if "POST /verify/user 200" in line)
            assert ("user=@alice:matrix.example" in line) == shown
            pseudonyms.add(re.findall(r" user=(\S+)", line)[0])
    assert len(pseudonyms) == 1


def test_asked_to_end_it_finishes_what_it_is_at_and_takes_nothing_new(
    homeserver: FakeHomeserver, tmp_path: Path
) -> None:
    with process(homeserver, tmp_path) as service, ThreadPoolExecutor() as threads:
        wait_until(lambda: "Homeserver" in service.log_text())
        homeserver.calls.clear()
        homeserver.register("slow")
        homeserver.faults[USERINFO] = after(1, answering(200, {"sub": "@slow:matrix.example"}))
        under_way = threads.submit(ask, service, "token")
        wait_until(lambda: asked(homeserver, times=1))
        del homeserver.faults[USERINFO]
        ending = threads.submit(seconds_to_end, service)
        with pytest.raises(ConnectionRefusedError):  # noqa: PT012 - how long it takes is not the point
            for _ in range(40):
                connect(service.port).close()
                time.sleep(0.02)
        assert under_way.result().json()["user_id"] == "@slow:matrix.example"
        assert ending.result() < 3
        assert service.stop() == -signal.SIGTERM
        assert "Traceback" not in service.log_text()


# --- strangers --------------------------------------------------------------------------------------------------------

CHUNKED = post(b"2\r\n{}\r\n", b"Transfer-Encoding: chunked")
ENDLESS = {
    "headers": (b"GET /health HTTP/1.1\r\n", b"a: b\r\n"),
    "header value": (b"GET /health HTTP/1.1\r\na: ", b"x"),
    "header name": (b"GET /health HTTP/1.1\r\n", b"x"),
    "request line": (b"GET /", b"x"),
    "method": (b"", b"x"),
    "line breaks": (b"", b"\r\n"),
    "pipelined requests": (b"", b"GET / HTTP/1.1\r\n\r\n"),
    "trailers": (CHUNKED + b"0\r\n", b"a: b\r\n"),
    "trailer value": (CHUNKED + b"0\r\na: ", b"x"),
    "chunk extension": (CHUNKED + b"1;a=", b"x"),
}


@pytest.mark.parametrize("what", ENDLESS)
def test_what_never_ends_is_cut_off(service: Service, what: str) -> None:
    first, more = ENDLESS[what]
    with unharmed(service), connect(service.port) as connection:
        connection.sendall(first)
        piece = more * (65536 // len(more))
        sent = 0
        with pytest.raises(ConnectionError):  # noqa: PT012 - which of the pieces fails is up to the kernel
            while sent < FLOOD:
                connection.sendall(piece)
                sent += len(piece)


@pytest.mark.parametrize("path", [b"/verify/user", b"/health", b"/elsewhere"])
@pytest.mark.parametrize("form", ["declared", "chunked"])
def test_a_huge_body_is_refused_and_the_rest_of_it_takes_no_memory(service: Service, path: bytes, form: str) -> None:
    header = b"Content-Length: %d" % (FLOOD * 2) if form == "declared" else b"Transfer-Encoding: chunked"
    piece = b"x" * 65536 if form == "declared" else b"10000\r\n%b\r\n" % (b"x" * 65536)
    with unharmed(service), connect(service.port) as connection:
        connection.sendall(post(b"", header, b"Connection: keep-alive", path=path))
        for _ in range(FLOOD // 65536):
            connection.sendall(piece)
        assert statuses(connection.recv(1000)) == [413 if path == b"/verify/user" else 404]


def test_a_body_over_the_limit_is_refused_although_no_length_was_declared(service: Service) -> None:
    chunk = b"%x\r\n%b\r\n" % (51_201, b" " * 51_201)
    with unharmed(service):
        assert statuses(answer_to(service.port, post(chunk * 2 + b"0\r\n\r\n", b"Transfer-Encoding: chunked"))) == [413]


def test_a_body_in_pieces_is_read_whole(service: Service, homeserver: FakeHomeserver) -> None:
    token = homeserver.openid_token(homeserver.register("pieces"))
    body = b'{"token": "%b"}' % token.encode()
    with connect(service.port) as connection:
        for byte in post(body):
            connection.sendall(bytes([byte]))
        assert b"@pieces:matrix.example" in everything_from(connection)


def test_a_few_pipelined_requests_are_answered_in_order(service: Service) -> None:
    requests = [b"GET /health HTTP/1.1\r\n\r\n", post(b"{", b"Connection: keep-alive"), b"GET /x HTTP/1.1\r\n\r\n"]
    last = b"GET /health HTTP/1.1\r\nConnection: close\r\n\r\n"
    assert statuses(answer_to(service.port, b"".join(requests) + last)) == [200, 400, 404, 200]


@pytest.mark.parametrize("protocol", [b"websocket", b"h2c", b"x"])
def test_an_upgrade_is_answered_as_if_it_had_not_been_asked_for(service: Service, protocol: bytes) -> None:
    lines = [b"GET /health HTTP/1.1", b"Connection: Upgrade", b"Upgrade: " + protocol, b"", b"\x81\x05hello"]
    with unharmed(service):
        raw = answer_to(service.port, b"\r\n".join(lines))
    assert statuses(raw) == [200]
    assert b"connection: close" in raw


@pytest.mark.parametrize("form", [b"Content-Length: 14", b"Transfer-Encoding: chunked"])
def test_an_upgrade_with_a_body_is_refused(service: Service, form: bytes) -> None:
    # The parser takes the body for what comes after the upgrade.
    with unharmed(service):
        raw = answer_to(service.port, post(b'{"token": "x"}', b"Connection: Upgrade", b"Upgrade: websocket", form))
    assert statuses(raw) == [400]


@pytest.mark.parametrize(
    "raw",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\x00" * 100,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"SSH-2.0-x\r\n",
        b"GET /health HTTP/9.9\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\n\r\n",
        b"GET http:// HTTP/1.1\r\n\r\n",
        b"GET http://uvs HTTP/1.1\r\n\r\n",
        b"CONNECT uvs:443 HTTP/1.1\r\n\r\n",
        b"GET /health HTTP/1.1\r\na b: c\r\n\r\n",
        b"GET /health HTTP/1.1\r\na : b\r\n\r\n",
        b"GET /health HTTP/1.1\r\na: b\0c\r\n\r\n",
        post(b"{}", b"Content-Length: -1"),
        post(b"{}", b"Content-Length: 2x"),
        post(b"{}", b"Content-Length: \xb2"),
        post(b"{}", b"Content-Length: 99999999999999999999999"),
        post(b"{}", b"Content-Length: 2", b"Content-Length: 3"),
        post(b"2\r\n{}\r\n0\r\n\r\n", b"Content-Length: 2", b"Transfer-Encoding: chunked"),
        post(b"2\r\n{}\r\n0\r\n\r\n", b"Transfer-Encoding: chunked, identity"),
        post(b"z\r\n{}\r\n0\r\n\r\n", b"Transfer-Encoding: chunked"),
        post(b"-2\r\n{}\r\n0\r\n\r\n", b"Transfer-Encoding: chunked"),
    ],
    ids=repr,
)
def test_what_is_not_http_is_refused(service: Service, raw: bytes) -> None:
    with unharmed(service):
        assert statuses(answer_to(service.port, raw)) == [400]


@pytest.mark.parametrize("keep", [b"", b"Connection: keep-alive\r\n"])
def test_http_1_0_is_answered_and_ends_the_connection(service: Service, keep: bytes) -> None:
    assert statuses(answer_to(service.port, b"GET /health HTTP/1.0\r\n%b\r\n" % keep)) == [200]


def test_a_client_that_waits_for_100_continue_is_told_to_go_on(service: Service) -> None:
    with connect(service.port) as connection:
        connection.sendall(post(b"", b"Content-Length: 14", b"Expect: 100-continue"))
        assert statuses(connection.recv(1000)) == [100]
        connection.sendall(b'{"token": "x"}')
        assert statuses(everything_from(connection)) == [200]


@pytest.mark.parametrize("hard", [True, False])
@pytest.mark.parametrize("after_bytes", [0, 1, 30, -3, -1, None])
def test_a_client_may_vanish_at_any_time(service: Service, after_bytes: int | None, hard: bool) -> None:
    with unharmed(service):
        for _ in range(10):
            with connect(service.port) as connection:
                connection.sendall(post(b'{"token": "x"}')[:after_bytes])
                if hard:  # a reset instead of an end
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def test_hundreds_of_silent_connections_keep_nobody_out(service: Service) -> None:
    with unharmed(service):
        silent = [connect(service.port) for _ in range(300)]
        assert httpx.get(f"{service.url}/health", timeout=2, trust_env=False).status_code == 200
        for connection in silent:
            connection.close()


# --- patience ---------------------------------------------------------------------------------------------------------


class Impatient(BoundedProtocol):
    """The limits on time, so short that a test can wait for them."""

    head_seconds = 0.3
    body_seconds = 0.6


@pytest.fixture(scope="module")
def impatient(homeserver: FakeHomeserver) -> Iterator[int]:
    options = {"access_token": homeserver.register("admin", admin=True).access_token, "request_timeout": 5}
    app = create_app(settings(homeserver_url=homeserver.url, openid_verify_server_name="matrix.example", **options))
    with served(app, http=Impatient) as port:
        yield port


GET = b"GET /health HTTP/1.1\r\n\r\n"
UNREAD = post(b"", b"Content-Length: 20", b"Connection: keep-alive", path=b"/x")
UNREAD_CHUNKS = post(b"", b"Transfer-Encoding: chunked", b"Connection: keep-alive", path=b"/x")

NEVER_DONE = {
    "nothing": (b"", b""),
    "half a head": (b"GET /hea", b""),
    "a slow request line": (b"GET /health?", b"x"),
    "a slow header": (b"GET /health HTTP/1.1\r\na: ", b"x"),
    "slow line breaks": (b"", b"\r\n"),
    "line breaks after an answer": (GET, b"\r\n"),
    "a slow request after an answer": (GET + b"GET /health?", b"x"),
    "a slow body nobody reads": (UNREAD, b"x"),
    "line breaks after a body nobody read": (UNREAD + b"x" * 20, b"\r\n"),
    "line breaks after that and an answer": (UNREAD + b"x" * 20 + GET, b"\r\n"),
    "slow chunks nobody reads": (UNREAD_CHUNKS, b"1\r\nx\r\n"),
    "a slow trailer": (UNREAD_CHUNKS + b"0\r\na: ", b"b"),
}


@pytest.mark.parametrize("what", NEVER_DONE)
def test_a_connection_that_is_never_done_is_closed(impatient: int, what: str) -> None:
    first, drip = NEVER_DONE[what]
    deadline = time.monotonic() + 4
    with connect(impatient) as connection:
        connection.sendall(first)
        connection.settimeout(0.05)
        while True:
            assert time.monotonic() < deadline
            try:
                if not connection.recv(65536):
                    break
            except TimeoutError:
                connection.sendall(drip)
            except ConnectionError:
                break


def test_an_answer_may_take_longer_than_all_that(impatient: int, homeserver: FakeHomeserver) -> None:
    homeserver.register("slow")
    homeserver.faults[USERINFO] = after(1, answering(200, {"sub": "@slow:matrix.example"}))
    raw = answer_to(impatient, post(b'{"token": "x"}'))
    del homeserver.faults[USERINFO]
    assert b"@slow:matrix.example" in raw


def test_a_body_that_does_not_arrive_in_time_is_named(homeserver: FakeHomeserver) -> None:
    app = create_app(settings(homeserver_url=homeserver.url, request_timeout=0.2))
    with served(app, http=BoundedProtocol) as port:
        assert statuses(answer_to(port, post(b'{"to', b"Content-Length: 14"))) == [408]


# --- last, since it was begun first -----------------------------------------------------------------------------------


def test_asked_to_end_it_waits_ten_seconds_and_no_longer(end_of_a_held_up_process: Future[float]) -> None:
    assert 9 < end_of_a_held_up_process.result(timeout=30) < 13
