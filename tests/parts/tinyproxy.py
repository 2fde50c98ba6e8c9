"""A real forward proxy."""

from __future__ import annotations

from pathlib import Path

from tests.parts import PARTS
from tests.parts.processes import Process, Stoppable, free_port, listening


class Tinyproxy(Stoppable):
    """Connects whoever asks from this machine to whatever they name."""

    def __init__(self, directory: Path) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._log = directory / "tinyproxy.log"
        config = directory / "tinyproxy.conf"
        config.write_text(f'Listen 127.0.0.1\nPort {port}\nLogFile "{self._log}"\nLogLevel Connect\nTimeout 60\n')
        self._process = Process([PARTS / "tools/usr/bin/tinyproxy", "-d", "-c", config], directory / "tinyproxy.out")
        self._process.wait_until(lambda: listening(port), timeout=10)

    def asked(self) -> list[str]:
        """The targets of the `CONNECT` requests."""
        lines = self._log.read_text().splitlines()
        return [line.rpartition(": CONNECT ")[2].split()[0] for line in lines if ": CONNECT " in line]

    def stop(self) -> int:
        return self._process.stop()
