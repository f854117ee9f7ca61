"""A relay made of the two halves: what comes in goes to one upstream, what comes back goes to the client.

Used by the tests and by bench_relay.py. It judges nothing: this is what the data plane itself costs.
"""

from __future__ import annotations

from firewall.errors import FirewallError
from firewall.proxy.http1 import Call, Pool, Refusal, Reply, Request

HEADERS = b"content-type: application/json\r\n"
JSON = b"content-type: application/json\r\n"


class Leg:
    """One exchange: the sink of the upstream call and the pump to the reply."""

    __slots__ = ("app", "call", "reply")

    def __init__(self, app: RelayApp, reply: Reply) -> None:
        self.app, self.reply = app, reply
        self.call: Call | None = None

    def head(self, status: int, headers: tuple[tuple[bytes, bytes], ...]) -> None:
        length = None
        kind = b""
        for name, value in headers:
            if name == b"content-length":
                length = int(value)
            elif name == b"content-type":
                kind = b"content-type: %b\r\n" % value
            elif name == b"location":
                kind += b"location: %b\r\n" % value
        self.reply.start(status, kind, length)

    def data(self, raw: bytes) -> None:
        reply = self.reply
        reply.write(raw)
        if not reply.writable and self.call is not None:
            self.call.pause()

    def end(self, complete: bool) -> None:
        self.app.ends.append(complete)
        if complete:
            self.reply.end()
        else:
            self.reply.abort()

    def fail(self, error: FirewallError) -> None:
        self.app.errors.append(error)
        if self.reply.started:
            self.reply.abort()
        else:
            self.reply.answer(error.status, JSON, b'{"error":"%b"}' % error.code.encode())

    def gone(self) -> None:
        self.app.gone += 1
        if self.call is not None:
            self.call.cancel()


class RelayApp:
    """Routes: everything below /v1/ is relayed, the rest is 404."""

    def __init__(self, pool: Pool | None, keep: int = 10000) -> None:
        self.pool = pool
        self.keep = keep
        self.errors: list[FirewallError] = []
        self.refusals: list[FirewallError] = []
        self.ends: list[bool] = []
        self.gone = 0

    def head(self, request: Request) -> Refusal | None:
        if not request.path.startswith("/v1/"):
            return Refusal(404, JSON, b'{"error":"endpoint_not_allowed"}')
        return None

    def request(self, request: Request, reply: Reply) -> None:
        if len(self.ends) > self.keep:
            self.ends.clear()
        leg = Leg(self, reply)
        assert self.pool is not None
        leg.call = call = self.pool.send(request.method.encode(), request.target, HEADERS, request.body, leg)
        reply.on_gone = leg.gone
        reply.on_writable = call.resume

    def refused(self, error: FirewallError, request: Request | None) -> tuple[int, bytes, bytes]:
        self.refusals.append(error)
        return error.status, JSON, b'{"error":"%b"}' % error.code.encode()
