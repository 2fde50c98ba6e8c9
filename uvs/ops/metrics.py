"""`GET /metrics`: what is measured, for Prometheus (docs/monitoring.md).

Every label has a closed set of values, all of them words of this code: what a stranger or a homeserver says never
becomes one, so that nobody can fill the memory here or there, and no name of a person, room or server is told.
"""

from __future__ import annotations

import functools
import platform
import re
from collections.abc import Awaitable, Callable
from enum import StrEnum

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import choose_encoder
from starlette.requests import Request
from starlette.responses import Response

from uvs import __version__
from uvs.errors import Refusal
from uvs.homeserver.proofs import Kind
from uvs.net.calls import Call
from uvs.net.calls import Outcome as CallOutcome
from uvs.ops.merged import Merged, ProcessOf
from uvs.ops.paths import PATHS, VERIFY_USER, VERIFY_USER_IN_ROOM
from uvs.ops.readiness import State, States, is_ready

SECONDS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper bounds of the histograms: a call to a homeserver nearby takes 2 ms, the deadline is 10 s unless it is set."""

OTHER_PATH = "other"

_FORM = re.compile(r"[a-z/-]+; version=(?:0\.0\.4|[12]\.0\.0); charset=utf-8(?:; escaping=[a-z0-9-]+)?", re.ASCII)


class Outcome(StrEnum):
    """What came of a request. In the log and in metrics."""

    YES = "yes"
    NO = "no"
    CANNOT_TELL = "cannot-tell"
    REJECTED = "rejected"  # the caller's mistake, or too many of them
    OK = "ok"  # nothing was asked about a person
    DEFECT = "defect"


REASONS: dict[Outcome, tuple[str, ...]] = {
    Outcome.YES: ("",),
    Outcome.NO: tuple(Refusal),
    Outcome.CANNOT_TELL: ("upstream-failed", "access-token-refused", "deadline-exceeded", "overloaded"),
    Outcome.REJECTED: ("invalid-request", "wrong-auth-token", "limit-exceeded", "not-found"),
    Outcome.OK: ("",),
    Outcome.DEFECT: ("",),
}
"""The reasons for each outcome, which are words of this code, too."""


CACHES = ("dns", "well_known", *Kind, "redis")
"""Of what was found out about other people's homeservers; of what homeservers say about people and rooms. Of the last
one, a hit is an exchange in which Redis took part."""


class Metrics:
    """The measurements of one application; with `merged`, of all workers."""

    def __init__(self, merged: Merged | None = None) -> None:
        self._merged = merged
        self.registry = registry = CollectorRegistry()
        self._requests = Counter(
            "uvs_requests",
            "Requests that were answered, by path, outcome and reason.",
            ("path", "outcome", "reason"),
            registry=registry,
        )
        self._seconds = Histogram(
            "uvs_request_duration_seconds", "Seconds to the answer.", ("path",), buckets=SECONDS, registry=registry
        )
        self.in_flight = Gauge(
            "uvs_requests_in_flight",
            "Requests that are being answered.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._upstream = Histogram(
            "uvs_upstream_duration_seconds",
            "Seconds that calls to homeservers and name servers took, by call and how it ended.",
            ("call", "outcome"),
            buckets=SECONDS,
            registry=registry,
        )
        self._caches = Counter(
            "uvs_cache_requests",
            "Questions that a cache answered (hit) or not (miss).",
            ("cache", "result"),
            registry=registry,
        )
        self._ready = Gauge(
            "uvs_ready",
            "1 where all homeservers of our own can be worked with.",
            registry=registry,
            multiprocess_mode="mostrecent",
        )
        self._homeservers = Gauge(
            "uvs_homeservers",
            "Homeservers of our own, by their state.",
            ("state",),
            registry=registry,
            multiprocess_mode="mostrecent",
        )
        build = Gauge(
            "uvs_build_info",
            "Always 1; the labels say what runs.",
            ("version", "python"),
            registry=registry,
            multiprocess_mode="max",
        )
        build.labels(__version__, platform.python_version()).set(1)
        registry.register(ProcessOf())
        # `labels` takes several times as long as what is then done. These remember no more than there are labels.
        self._counted = functools.cache(self._requests.labels)
        self._timed = functools.cache(self._seconds.labels)
        self._called = functools.cache(self._upstream.labels)
        for path in (VERIFY_USER, VERIFY_USER_IN_ROOM):
            for outcome, reasons in REASONS.items():
                for reason in reasons if outcome is not Outcome.OK else ():
                    # There from the start: of what begins at 1, Prometheus sees no increase.
                    self._requests.labels(path.path, outcome, reason)

    def request(self, path: str, outcome: Outcome, reason: str, seconds: float) -> None:
        """A request was answered."""
        path = path if path in _PATHS else OTHER_PATH
        reason = reason if reason in REASONS[outcome] else ""
        self._counted(path, outcome, reason).inc()
        self._timed(path).observe(seconds)

    def upstream(self, call: Call, outcome: CallOutcome, seconds: float) -> None:
        """A call to a homeserver or a name server has ended."""
        self._called(call, outcome).observe(seconds)

    def cache(self, name: str) -> Callable[[bool], None]:
        """For the cache `name` (one of CACHES) to tell of each question whether it could answer it."""
        if name not in CACHES:
            raise ValueError(f"{name} is not one of CACHES")
        hit, miss = (self._caches.labels(name, result) for result in ("hit", "miss"))
        return lambda answered: (hit if answered else miss).inc()

    def readiness(self, states: States) -> None:
        """The homeservers were looked at."""
        self._ready.set(is_ready(states))
        for state in State:
            self._homeservers.labels(state).set(list(states.values()).count(state))

    def render(self, accept: str) -> tuple[bytes, str]:
        """All of it, in the form that was asked for, and the media type."""
        try:
            encode, media_type = choose_encoder(accept)
        except (TypeError, ValueError):  # a version that is no number
            encode, media_type = choose_encoder("")
        if not _FORM.fullmatch(media_type):  # it repeats the version that was asked for, whatever that is
            encode, media_type = choose_encoder("")
        return encode(self._merged.registry() if self._merged else self.registry), media_type

    def endpoint(self, look: Callable[[], Awaitable[States]]) -> Callable[[Request], Awaitable[Response]]:
        """The endpoint; `look` keeps what is told about the homeservers fresh."""

        async def metrics(request: Request) -> Response:
            await look()
            body, media_type = self.render(request.headers.get("accept", ""))
            return Response(body, headers={"Content-Type": media_type})

        return metrics


_PATHS = frozenset(path.path for path in PATHS)
