"""The measure of everything else: a Starlette application that answers the same bytes and asks nobody.

`python -m benchmarks.bare PORT`, on the same server, loop and parser as the service.
"""

from __future__ import annotations

import sys

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from benchmarks.stub_homeserver import LEVELS, USER
from uvs.matrix.power_levels import PowerLevels
from uvs.ops.server import listen, serve

ANSWER = msgspec.json.encode(
    {
        "results": {"user": True, "room_membership": True},
        "user_id": USER,
        "power_levels": {"room": PowerLevels.read(LEVELS).room, "user": 50},
    }
)


async def _verify(request: Request) -> Response:
    await request.body()
    return Response(ANSWER, media_type="application/json; charset=utf-8")


async def _health(_: Request) -> Response:
    return HTMLResponse("👍")


if __name__ == "__main__":
    app = Starlette(routes=[Route("/health", _health), Route("/verify/user_in_room", _verify, methods=["POST"])])
    serve(app, [listen("127.0.0.1", int(sys.argv[1]))])
