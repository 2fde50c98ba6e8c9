"""Two homeservers that federate, for real: names, certificates and TLS as on the internet, and nothing of it leaves the
machine.

`one.example` is found by an SRV record. `two.example` is found by a well-known document, on port 443 as the
specification wants it; where this process may not listen there (it takes root, or a lower
net.ipv4.ip_unprivileged_port_start), by an SRV record, too. The addresses are taken at random from 127.0.0.0/8, so that
test runs at the same time do not meet.
"""

from __future__ import annotations

import json
import secrets
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.parts.certificates import Authority
from tests.parts.dns_server import DnsServer
from tests.parts.processes import Stoppable, free_port
from tests.parts.synapse import MatrixError, Synapse, User
from tests.parts.ways_in import OpenSynapse
from tests.parts.ways_in import listener as listening_for_nothing

NETWORK = "127.0.0.0/8"
"""Where all of this is: what the operator of the service has to allow."""

WELL_KNOWN = "/.well-known/matrix/server"
USERINFO = "/_matrix/federation/v1/openid/userinfo"

NO_PORT_443 = "this process may not listen on port 443: it takes root, or a lower net.ipv4.ip_unprivileged_port_start"
"""Why a test of well-known documents is skipped, which cannot be anywhere else."""

PATIENCE_SECONDS = 20.0
"""How long news may take from one homeserver to the other. Mostly they take less than a tenth of a second."""

_SYNAPSE_MODULES = Path(__file__).with_name("synapse_modules")


class TooLateError(Exception):
    """What was waited for did not happen."""


def eventually(what: str, happened: Callable[[], bool]) -> None:
    """Return once `happened` says so. Raises TooLateError, which says what was waited for."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not happened():
        if time.monotonic() > deadline:
            raise TooLateError(f"after {PATIENCE_SECONDS} s it is still not so: {what}")
        time.sleep(0.02)


class TlsServer(Stoppable):
    """Answers paths with JSON documents, over TLS. `asked` are the paths, with their queries; all others are 404."""

    def __init__(self, address: str, port: int, context: ssl.SSLContext, documents: Mapping[str, Any]) -> None:
        """Port 0: the kernel's choice. Raises PermissionError where this process may not listen on `port`."""
        self.asked: list[str] = []
        self.documents = dict(documents)
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                document = outer.documents.get(self.path.partition("?")[0])
                body = json.dumps({"errcode": "M_UNRECOGNIZED"} if document is None else document).encode()
                self.send_response(404 if document is None else 200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64

            def handle_error(self, *_: object) -> None:
                pass  # somebody did not like the certificate, or went away

        self._server = Server((address, port), Handler)
        self.address = address
        self.port = self._server.server_port
        self.url = f"https://{address}:{self.port}"
        # The handshake is left to the connection's own thread: nobody can hold up the others with it.
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a homeserver's federation API is, and for which name it has a certificate."""

    server_name: str
    certificate_name: str
    address: str
    port: int


class TwoServers(Stoppable):
    """`one` and `two`, with the DNS server and the certificate authority of their world."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._authority = Authority()
        self.ca_file = self._authority.write(directory / "ca.pem")
        self._client_ports = {"one.example": free_port(), "two.example": free_port()}
        self.well_known: TlsServer | None = None
        """Where the document of `two` is; none where it is found by an SRV record."""
        with ExitStack() as parts:
            self._parts = parts
            self.dns = parts.enter_context(DnsServer())
            self._places = [self._found_by_srv("one.example"), self._found_by_well_known("two.example")]
            with ThreadPoolExecutor() as pool:
                starting = [pool.submit(self._start, place) for place in self._places]
            for each in starting:
                if each.exception() is None:
                    parts.enter_context(each.result())
            self.one, self.two = (each.result() for each in starting)
            self._parts = parts.pop_all()

    def stop(self) -> None:
        self._parts.close()

    # --- names --------------------------------------------------------------------------------------------------------

    def _found_by_srv(self, server_name: str) -> _Place:
        place = _Place(server_name, server_name, loopback_address(), free_port())
        self.dns.add_service(f"_matrix-fed._tcp.{server_name}", f"matrix.{server_name}", place.port)
        self.dns.add_address(f"matrix.{server_name}", place.address)
        return place

    def _found_by_well_known(self, server_name: str) -> _Place:
        place = _Place(server_name, f"federation.{server_name}", loopback_address(), free_port())
        self.well_known = self.delegate(server_name, f"{place.certificate_name}:{place.port}")
        if self.well_known is None:
            return self._found_by_srv(server_name)
        self.dns.add_address(place.certificate_name, place.address)
        return place

    def delegate(self, server_name: str, to: str, *, address: str | None = None) -> TlsServer | None:
        """Publish a well-known document, at an address that DNS knows already or at a new one. None: this process may
        not listen on port 443."""
        context = self._authority.server(server_name)
        try:
            server = TlsServer(address or loopback_address(), 443, context, {WELL_KNOWN: {"m.server": to}})
        except PermissionError:
            return None
        if address is None:
            self.dns.add_address(server_name, server.address)
        return self._parts.enter_context(server)

    def add(self, server_name: str, documents: Mapping[str, Any], *, certificate_name: str | None = None) -> TlsServer:
        """Some other server that takes itself for the homeserver `server_name`, and answers with these documents."""
        context = self._authority.server(certificate_name or server_name)
        server = self._parts.enter_context(TlsServer(loopback_address(), 0, context, documents))
        self.dns.add_service(f"_matrix-fed._tcp.{server_name}", f"matrix.{server_name}", server.port)
        self.dns.add_address(f"matrix.{server_name}", server.address)
        return server

    def client_url(self, homeserver: Synapse) -> str:
        """That of a listener with the client API and nothing else."""
        return f"http://127.0.0.1:{self._client_ports[homeserver.server_name]}"

    def federation_port(self, homeserver: Synapse) -> int:
        return next(place.port for place in self._places if place.server_name == homeserver.server_name)

    @contextmanager
    def two_down(self) -> Iterator[None]:
        """Nothing listens where `two` is; it comes back with all that it knew."""
        self.two.process.stop()
        try:
            yield
        finally:
            self.two.start()

    @contextmanager
    def two_hanging(self) -> Iterator[None]:
        """Connections to `two` are accepted, and nothing is answered."""
        self.two.process.pause()
        try:
            yield
        finally:
            self.two.process.proceed()

    def serve_at_address(self, documents: Mapping[str, Any]) -> TlsServer:
        """A server with a certificate for its address, for whom operators name by its URL."""
        address = loopback_address()
        return self._parts.enter_context(TlsServer(address, 0, self._authority.server(address), documents))

    def _start(self, place: _Place) -> OpenSynapse:
        directory = self._directory / place.server_name
        directory.mkdir()
        certificate, key = self._authority.write_certificate(directory, place.certificate_name)
        listener = {
            "port": place.port,
            "type": "http",
            "tls": True,
            "bind_addresses": [place.address],
            "resources": [{"names": ["federation"], "compress": False}],
        }
        client_listener = listening_for_nothing(self._client_ports[place.server_name])
        client_listener["resources"] = [{"names": ["client"], "compress": False}]
        address, port = self.dns.address
        options = {
            "listeners": [listener, client_listener],
            "tls_certificate_path": str(certificate),
            "tls_private_key_path": str(key),
            "federation_custom_ca_list": [str(self.ca_file)],
            "federation_domain_whitelist": None,  # everybody, as by default
            "ip_range_blacklist": [],  # loopback addresses are on the default one
            # Milliseconds: who was down is asked again at once, and not after ten minutes.
            "federation": {"destination_min_retry_interval": 100, "destination_max_retry_interval": 100},
            "modules": [{"module": "own_names.OwnNames", "config": {"address": address, "port": port}}],
        }
        return OpenSynapse(directory, server_name=place.server_name, options=options, python_path=[_SYNAPSE_MODULES])

    # --- people and rooms ---------------------------------------------------------------------------------------------

    def home(self, user: User) -> Synapse:
        return self.two if user.user_id.endswith(f":{self.two.server_name}") else self.one

    def join(self, actor: User, room_id: str, *users: User) -> None:
        """`actor` invites them, and they join, wherever each of them is at home."""
        for user in users:
            self.home(actor).invite(actor, room_id, user)
            self.home(user).join(user, room_id)
            self.wait_for_membership(actor, room_id, user, "join")
            # Synapse joins with a part of the room's state, and keeps what it learns after that even if the user has
            # left again meanwhile.
            self.home(user).members(user, room_id)

    def wait_for_membership(self, reader: User, room_id: str, user: User, membership: str) -> None:
        """Until the homeserver of `reader`, who is in the room, knows it."""

        def known() -> bool:
            try:
                state = self.home(reader).state(reader, room_id, "m.room.member", user.user_id)
            except MatrixError as error:
                if error.status != 404:
                    raise
                return False
            return bool(state["membership"] == membership)

        eventually(f"{self.home(reader).server_name} knows {user.user_id} as {membership} in {room_id}", known)

    def wait_until_out(self, user: User, room_id: str) -> None:
        """Until the user's own homeserver knows that they are no longer in the room."""
        home = self.home(user)
        eventually(
            f"{home.server_name} knows that {user.user_id} is no longer in {room_id}",
            lambda: room_id not in home.joined_rooms(user),
        )

    def wait_for_level(self, reader: User, room_id: str, user: User, level: int) -> None:
        def known() -> bool:
            levels = self.home(reader).state(reader, room_id, "m.room.power_levels")
            return bool(levels["users"].get(user.user_id) == level)

        eventually(f"{self.home(reader).server_name} knows level {level} of {user.user_id} in {room_id}", known)


def loopback_address() -> str:
    """One that most probably nobody else uses, and which is not 127.0.0.x, where others listen."""
    return f"127.{64 + secrets.randbelow(128)}.{secrets.randbelow(256)}.{1 + secrets.randbelow(254)}"
