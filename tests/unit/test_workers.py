"""Several workers, `uvs serve --workers`: they answer as one, the end of one costs nothing, and none is left behind."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from prometheus_client import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.parser import text_string_to_metric_families as parse

from tests.fake_homeserver import USERINFO, FakeHomeserver, after, answering
from tests.parts import ROOT
from tests.parts.processes import Process, listening
from tests.parts.redis import Redis
from tests.parts.service import Service
from tests.unit.command import Uvs
from tests.unit.serving import served
from uvs.ops.workers import RESTART_PAUSE


@pytest.fixture
def uvs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Uvs:
    uvs = Uvs(monkeypatch, capsys)
    uvs.set(UVS_HOMESERVER_URL="https://matrix.invalid", UVS_ACCESS_TOKEN="x")
    return uvs


class TestRefusals:
    NEEDS_CACHE = (
        "  UVS_CACHE_URL: is required with more than one worker (UVS_WORKERS, --workers), since they have to agree. "
        "Example: redis://127.0.0.1:6379\n"
    )

    def test_several_workers_do_not_start_without_what_makes_them_agree(self, uvs: Uvs) -> None:
        said = uvs("serve", "--workers", "2")
        assert (said.status, said.err) == (2, "uvs cannot start; 1 to mend in the settings:\n" + self.NEEDS_CACHE)

    def test_nor_where_a_variable_asks_for_them(self, uvs: Uvs) -> None:
        uvs.set(UVS_WORKERS="2")
        said = uvs("serve")
        assert (said.status, said.err) == (2, "uvs cannot start; 1 to mend in the settings:\n" + self.NEEDS_CACHE)

    def test_the_flag_wins_over_the_variable(self, uvs: Uvs) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            uvs.set(UVS_WORKERS="2", UVS_PORT=str(taken.getsockname()[1]))
            said = uvs("serve", "--workers", "1")
        assert said.status == 1
        assert "cannot listen" in said.err

    @pytest.mark.parametrize("number", ["0", "-1", "257"])
    def test_their_number_has_bounds(self, uvs: Uvs, number: str) -> None:
        said = uvs("serve", "--workers", number)
        assert said.status == 2
        assert "  UVS_WORKERS: input should be " in said.err

    def test_their_number_is_a_number(self, uvs: Uvs) -> None:
        said = uvs("serve", "--workers", "many")
        assert said.status == 2
        assert "--workers: invalid int value: 'many'" in said.err


# --- the real thing ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with Redis(tmp_path_factory.mktemp("redis")) as running:
        yield running.url


@contextmanager
def service(redis: str, directory: Path, **options: str) -> Iterator[tuple[Service, FakeHomeserver]]:
    homeserver = FakeHomeserver()
    admin = homeserver.register("admin", admin=True)
    with served(homeserver) as port:
        several = {
            "UVS_CACHE_URL": redis,
            "UVS_CACHE_SECRET": "of-the-cache-and-of-this-test-only",
            "UVS_WORKERS": "2",
            **options,
        }
        with Service(
            directory,
            homeserver_url=f"http://127.0.0.1:{port}",
            access_token=admin.access_token,
            server_name=homeserver.server_name,
            options=several,
        ) as running:
            yield running, homeserver


def children(service: Service) -> list[int]:
    pid = service.process.pid
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def folders() -> set[Path]:
    return {path for where in ("/dev/shm", tempfile.gettempdir()) for path in Path(where).glob("uvs-*")}  # noqa: S108 - where they are made


def measured(service: Service) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in parse(service.metrics())
        for sample in family.samples
    }


def answered(service: Service) -> float:
    return sum(
        value
        for (name, labels), value in measured(service).items()
        if name == "uvs_requests_total" and ("path", "/verify/user") in labels
    )


def ask(service: Service, token: str, times: int = 40) -> list[int]:
    """From as many connections, so that each worker has some."""
    with ThreadPoolExecutor(times) as threads:
        return list(threads.map(lambda _: verify(service, token), range(times)))


def verify(service: Service, token: str) -> int:
    return httpx.post(f"{service.url}/verify/user", json={"token": token}, timeout=10, trust_env=False).status_code


def wait_until(ready: Callable[[], bool], *, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_workers_answer_as_one_and_the_end_of_one_costs_nothing(redis: str, tmp_path: Path) -> None:
    before = folders()
    with service(redis, tmp_path) as (running, homeserver):
        token = homeserver.openid_token(homeserver.register("member"))
        (folder,) = folders() - before
        assert folder.stat().st_mode & 0o777 == 0o700
        first, second = wait_for_two(running)

        # Both answer, and whichever is asked tells what both have done.
        for count in (1, 2, 3):
            assert ask(running, token) == [200] * 40
            assert answered(running) == 40 * count
        assert {path.stem for path in folder.glob("*.pid")} == {"0", "1"}
        own = [count_of_own(folder, place) for place in (0, 1)]
        assert min(own) > 0
        assert running.log_text().count("Homeserver matrix.example answers") == 1

        # One ends: another takes its place, and what was counted stays counted.
        counted = {key: value for key, value in measured(running).items() if key[0].endswith(("_total", "_count"))}
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: len(set(children(running)) - {first}) == 2)
        wait_until(lambda: len(list(folder.glob("*.pid"))) == 2)
        assert second in children(running)
        assert f"(process {first}) was ended by signal 9; another one takes its place" in running.log_text()
        now = measured(running)
        assert all(now[key] >= value for key, value in counted.items() if not key[0].startswith("process_"))
        assert ask(running, token) == [200] * 40
        assert answered(running) == 160
        assert now["uvs_requests_in_flight", frozenset()] == 1  # this very question
        assert now["uvs_ready", frozenset()] == 1
        assert len([key for key in now if key[0] == "process_resident_memory_bytes"]) == 2

        # The end is soon, and nothing is left.
        all_of_them = children(running)
        started = time.monotonic()
        assert running.stop() == 0
        assert time.monotonic() - started < 5
        assert not [pid for pid in all_of_them if Path(f"/proc/{pid}").exists()]
    assert folders() == before
    assert "Traceback" not in running.log_text()


def test_workers_count_a_strangers_requests_together(redis: str, tmp_path: Path) -> None:
    # With a secret of its own, since the other tests have asked from the same address.
    with service(redis, tmp_path, UVS_RATE_LIMIT="20", UVS_CACHE_SECRET="of-this-one-test-only") as (
        running,
        homeserver,
    ):
        wait_for_two(running)
        token = homeserver.openid_token(homeserver.register("member"))
        found = ask(running, token, 60)
    assert set(found) == {200, 429}
    assert 20 <= found.count(200) <= 22  # a slow machine lives to see the next one's time


def test_requests_under_way_are_answered_before_the_end_and_new_ones_are_refused(redis: str, tmp_path: Path) -> None:
    with service(redis, tmp_path) as (running, homeserver), ThreadPoolExecutor() as threads:
        wait_until(lambda: "Homeserver" in running.log_text())
        homeserver.register("slow")
        homeserver.calls.clear()
        homeserver.faults[USERINFO] = after(1, answering(200, {"sub": "@slow:matrix.example"}))
        under_way = threads.submit(verify, running, "token")
        wait_until(lambda: USERINFO in [what for what, _ in homeserver.calls])
        os.kill(running.process.pid, signal.SIGTERM)
        wait_until(lambda: not listening(running.port), seconds=0.9)
        assert under_way.result() == 200
        assert running.process.wait_ended(timeout=5) == 0


def test_workers_end_with_a_parent_that_was_killed(redis: str, tmp_path: Path) -> None:
    before = folders()
    with service(redis, tmp_path) as (running, _):
        left = wait_for_two(running)
        os.kill(running.process.pid, signal.SIGKILL)
        wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in left))
    for folder in folders() - before:
        shutil.rmtree(folder)  # nobody was there to do it


def wait_for_two(service: Service) -> list[int]:
    wait_until(lambda: len(children(service)) == 2)
    return children(service)


def count_of_own(folder: Path, place: int) -> float:
    """Requests that this worker has answered itself."""
    found: Iterable[Metric] = MultiProcessCollector.merge([str(folder / f"counter_{place}.db")])  # type: ignore[no-untyped-call]
    return sum(
        sample.value
        for family in found
        for sample in family.samples
        if sample.name == "uvs_requests_total" and sample.labels["path"] == "/verify/user"
    )


# --- the parent -------------------------------------------------------------------------------------------------------

PARENT = """
import logging, os, sys, time
from uvs.ops.workers import Workers
logging.basicConfig(format="%(message)s")

def work(place):
    print("works", place, flush=True)
    {work}

sys.exit(0 if Workers(2, work, gone=lambda place: print("gone", place, flush=True)).run() else 1)
"""


@contextmanager
def parent(directory: Path, work: str) -> Iterator[Process]:
    """A parent in a process of its own, whose workers do this."""
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    with Process([sys.executable, "-c", PARENT.format(work=work)], directory / "log", env=env) as running:
        yield running


class TestTheParent:
    def test_it_ends_where_a_worker_cannot_start_since_no_other_one_would(self, tmp_path: Path) -> None:
        with parent(tmp_path, "sys.exit(3) if place else time.sleep(60)") as running:
            assert running.wait_ended(timeout=10) == 1
        assert running.log_text().count("works") == 2
        assert running.log_text().count("gone") == 2

    @pytest.mark.parametrize(
        ("work", "how"),
        [
            ("os.kill(os.getpid(), 9)", "was ended by signal 9"),
            ("sys.exit(7)", "ended with status 7"),
            ("pass", "ended with status 0"),
            ("raise KeyError", "ended with status 1"),
        ],
    )
    def test_workers_that_end_at_once_are_replaced_after_a_pause(self, tmp_path: Path, work: str, how: str) -> None:
        with parent(tmp_path, work) as running:
            wait_until(lambda: running.log_text().count("works") >= 4)
            started = time.monotonic()
            wait_until(lambda: running.log_text().count("works") >= 8)
            assert time.monotonic() - started > RESTART_PAUSE
            assert running.stop() == 0
        assert how in running.log_text()

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
    def test_every_signal_that_ends_it_ends_the_workers_first(self, tmp_path: Path, number: signal.Signals) -> None:
        with parent(tmp_path, "time.sleep(60)") as running:
            wait_until(lambda: running.log_text().count("works") == 2)
            os.kill(running.pid, number)
            assert running.wait_ended(timeout=10) == 0
        assert running.log_text().count("gone") == 2
