"""A bare aiohttp streaming proxy: `python aiohttp_proxy.py PORT UPSTREAM_PORT`. The measure of what a framework costs.

Written as one would for speed: low-level server, no cookies, no decompression, no access log, chunks passed on as they
come.
"""

import asyncio
import sys

import aiohttp
import uvloop
from aiohttp import web

SKIPPED = {"transfer-encoding", "content-length", "connection", "date", "server"}


async def main(port: int, upstream: int) -> None:
    session = aiohttp.ClientSession(
        auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar(), timeout=aiohttp.ClientTimeout(total=None),
        connector=aiohttp.TCPConnector(limit=0))

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        headers = {"content-type": request.headers.get("content-type", ""),
                   "authorization": request.headers.get("authorization", "")}
        async with session.post(f"http://127.0.0.1:{upstream}{request.rel_url}", data=body, headers=headers) as answer:
            kept = {k: v for k, v in answer.headers.items() if k.lower() not in SKIPPED}
            if answer.headers.get("transfer-encoding") != "chunked":
                return web.Response(status=answer.status, headers=kept, body=await answer.read())
            out = web.StreamResponse(status=answer.status, headers=kept)
            await out.prepare(request)
            async for chunk in answer.content.iter_any():
                await out.write(chunk)
            await out.write_eof()
            return out

    runner = web.ServerRunner(web.Server(handle, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=8192).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), int(sys.argv[2])))
