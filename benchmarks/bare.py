"""The measure of everything else: a Starlette application that answers the same bytes and asks nobody.

`python -m benchmarks.bare PORT SERVER_NAME`, on the same server, loop and parser as the service.
"""

from __future__ import annotations

import sys

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from benchmarks.homeserver_answers import LEVELS, user_id
from uvs.matrix.power_levels import PowerLevels
from uvs.ops.server import listen, serve


def app(server_name: str) -> Starlette:
    """Whoever asks, it is the first member of the first small room."""
    answer = msgspec.json.encode(
        {
            "results": {"user": True, "room_membership": True},
            "user_id": user_id("small", 0, server_name),
            "power_levels": {"room": PowerLevels.read(LEVELS).room, "user": 0},
        }
    )

    async def verify(request: Request) -> Response:
        await request.body()
        return Response(answer, media_type="application/json; charset=utf-8")

    async def health(_: Request) -> Response:
        return HTMLResponse("👍")

    return Starlette(routes=[Route("/health", health), Route("/verify/user_in_room", verify, methods=["POST"])])


if __name__ == "__main__":
    serve(app(sys.argv[2]), [listen("127.0.0.1", int(sys.argv[1]))])
