"""The admin plane, on a listener of its own: /livez, /readyz, /metrics. Nothing here can change anything."""

from __future__ import annotations

import orjson
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
            "mistakes": list(house.source.stale)}, "guard": {"name": house.guard.name,
                                                             "fingerprint": house.guard.fingerprint},
            "release": house.config.stream.release,
            "fails": {"closed": [p.id for p in policies if p.on_guard_error == "closed"],
                      "open": [p.id for p in policies if p.on_guard_error == "open"]}}
        return web.Response(status=503 if why else 200, body=orjson.dumps(body), content_type="application/json")

    async def prometheus(_: web.Request) -> web.Response:
        metrics.STALE.set(bool(house.source.stale))
        metrics.READY.set(not house.ready())
        for result, count in house.source.reloads.items():
            metrics.RELOADS.labels(result).set(count)
        return web.Response(body=metrics.page(), headers={"content-type": "text/plain; version=0.0.4; charset=utf-8"})

    app = web.Application()
    app.add_routes([web.get("/livez", livez), web.get("/readyz", readyz), web.get("/metrics", prometheus)])
    return app
