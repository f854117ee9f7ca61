"""The admin plane, on a listener of its own: /livez, /readyz, /metrics. Nothing here can change anything.

aiohttp repeats a malformed header in its answer and in its log (docs/threats.md); this plane says the status alone.
"""

from __future__ import annotations

import asyncio
import logging

import orjson
import structlog
from aiohttp import web

from firewall.proxy import metrics
from firewall.proxy.house import House


def application(house: House) -> web.Application:
    """Routes over one house; answers hold no secrets and no content."""

    async def livez(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        why = house.ready()
        policies = house.policies
        body = {"ready": not why, "reason": why or None, "policies": {
            "digest": policies.digest, "active": [p.id for p in policies], "stale": bool(house.source.stale),
            "mistakes": list(house.source.stale)}, "guard": {
                "name": house.guard.name, "fingerprint": house.guard.fingerprint, "fault": house.guard.ready() or None},
            "release": house.config.stream.release,
            "fails": {"closed": [p.id for p in policies if not p.open],
                      "open": [p.id for p in policies if p.open]}}
        return web.Response(status=503 if why else 200, body=orjson.dumps(body), content_type="application/json")

    async def prometheus(_: web.Request) -> web.Response:
        house.gauge()
        house.ledger.flush()
        return web.Response(body=metrics.page(), headers={"content-type": "text/plain; version=0.0.4; charset=utf-8"})

    app = web.Application()
    app.add_routes([web.get("/livez", livez), web.get("/readyz", readyz), web.get("/metrics", prometheus)])
    return app

SILENT = logging.getLogger("firewall.silent")      # below its level: no access log, which would hold paths
SILENT.disabled = True


class Quiet(web.RequestHandler):
    """Answers an unreadable request, or a fault of ours, without a word of it."""

    __slots__ = ()

    def handle_error(self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None,
                     message: str | None = None) -> web.StreamResponse:
        structlog.get_logger().warning("admin_error", status=status, error=type(exc).__name__)
        response = web.Response(status=status, text=f"{status}\n")
        response.force_close()
        return response


async def listen(runner: web.AppRunner, host: str, port: int, reuse_port: bool = False) -> asyncio.Server:
    """Serves a runner that was set up. Raises OSError when the address is taken."""
    loop = asyncio.get_running_loop()
    served = runner.server
    assert served is not None
    return await loop.create_server(lambda: Quiet(served, loop=loop, access_log=SILENT, keepalive_timeout=75.0),
                                    host, port, reuse_port=reuse_port or None)
