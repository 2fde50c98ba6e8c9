"""A real Redis."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

from tests.parts import PARTS, PartMissingError, issued
from tests.parts.certificates import Authority
from tests.parts.processes import Process, Stoppable, free_port

START_SECONDS = 10.0


class Redis(Stoppable):
    """On a free port, on a Unix socket, or with TLS by an authority of the tests; with a password in each case. What is
    in it is gone with each stop."""

    def __init__(self, directory: Path, *, authority: Authority | None = None, on_socket: bool = False) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._tools = PARTS / "tools"
        if not (self._tools / "usr/bin/redis-server").exists():
            raise PartMissingError(self._tools / "usr/bin/redis-server")
        self.password = issued.secret() + "/@:"  # what has to be encoded in a URL
        encoded = self.password.replace("/", "%2F").replace("@", "%40").replace(":", "%3A")
        self._directory = directory
        self._socket = directory / "redis.sock"
        self._port = 0 if on_socket else free_port()
        lines = ['save ""', "appendonly no", f"dir {directory}", f"requirepass {self.password}", "bind 127.0.0.1"]
        if on_socket:
            lines += ["port 0", f"unixsocket {self._socket}"]
            self.url = f"unix://:{encoded}@{self._socket}"
        elif authority is None:
            lines.append(f"port {self._port}")
            self.url = f"redis://:{encoded}@127.0.0.1:{self._port}/3"
        else:
            certificate, key = authority.write_certificate(directory, "localhost")
            lines += ["port 0", f"tls-port {self._port}", f"tls-cert-file {certificate}", f"tls-key-file {key}"]
            lines += ["tls-auth-clients no"]
            self.url = f"rediss://:{encoded}@localhost:{self._port}"
        self._config = directory / "redis.conf"
        self._config.write_text("\n".join(lines) + "\n")
        self._config.chmod(0o600)
        self.process = self._start()

    def kill(self) -> None:
        """Without a word to anybody."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.stop()

    def restart(self) -> None:
        """After `kill`. Everything that was in it is gone."""
        self.process = self._start()

    def stop(self) -> int:
        return self.process.stop()

    def _start(self) -> Process:
        libraries = next((self._tools / "usr/lib").glob("*-linux-gnu"))
        process = Process(
            [self._tools / "usr/bin/redis-server", self._config],
            self._directory / "redis.log",
            env={"LD_LIBRARY_PATH": str(libraries), "PATH": "/usr/bin:/bin"},
        )
        process.wait_until(self._listening, timeout=START_SECONDS)
        return process

    def _listening(self) -> bool:
        family, address = (socket.AF_INET, ("127.0.0.1", self._port)) if self._port else (socket.AF_UNIX, None)
        with socket.socket(family) as probe:
            probe.settimeout(0.5)
            return probe.connect_ex(address or str(self._socket)) == 0
