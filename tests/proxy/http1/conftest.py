"""A raw upstream that records and plays byte scripts, a raw client, and the relay between them, on uvloop."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import uvloop

sys.path.insert(0, str(Path(__file__).parent))

from relay_app import RelayApp  # noqa: E402

from firewall.proxy.http1 import Limits, Origin, Pool, Server, UpstreamLimits  # noqa: E402

OPENSSL = shutil.which("openssl")
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.fixture(scope="session")
def event_loop_policy() -> asyncio.AbstractEventLoopPolicy:
    return uvloop.EventLoopPolicy()


async def read_request(reader: asyncio.StreamReader) -> bytes:
    """One request as our client writes them: a head, and a body by Content-Length."""
    head = await reader.readuntil(b"\r\n\r\n")
    size = 0
    for line in head.split(b"\r\n"):
        if line.lower().startswith(b"content-length:"):
            size = int(line[15:])
    return head + await reader.readexactly(size)


Script = Callable[["Fake", asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Fake:
    """The fake upstream (MU): `script` plays one connection; `got` is every request, `opened` the connections."""

    script: Script
    got: list[bytes] = field(default_factory=list)
    opened: int = 0
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    server: asyncio.Server | None = None
    port: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.opened += 1
        try:
            await self.script(self, reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.closed.set()
            writer.close()


async def answers(fake: Fake, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The default script: every request gets its own path back."""
    while True:
        request = await read_request(reader)
        fake.got.append(request)
        path = request.split(b" ")[1]
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%b" % (len(path), path))


@dataclass
class House:
    """Server, pool, fake upstream and app of one test."""

    server: Server
    pool: Pool
    fake: Fake
    app: RelayApp

    async def client(self) -> Client:
        return Client(*await asyncio.open_connection("127.0.0.1", self.server.port, limit=1 << 24))

    async def ask(self, raw: bytes) -> bytes:
        """Everything the server says to these bytes until it closes (or two seconds have passed)."""
        client = await self.client()
        client.send(raw)
        try:
            return await client.rest()
        finally:
            client.close()


@dataclass
class Client:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def send(self, raw: bytes) -> None:
        self.writer.write(raw)

    async def rest(self, timeout: float = 2.0) -> bytes:
        return await asyncio.wait_for(self.reader.read(-1), timeout)

    async def until(self, what: bytes, timeout: float = 2.0) -> bytes:
        return await asyncio.wait_for(self.reader.readuntil(what), timeout)

    async def answer(self) -> tuple[int, bytes, bytes]:
        """Status, head, body by Content-Length."""
        head = await self.until(b"\r\n\r\n")
        size = next((int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0)
        return int(head.split(b" ")[1]), head, await asyncio.wait_for(self.reader.readexactly(size), 2)

    def close(self) -> None:
        self.writer.close()


@dataclass
class Papers:
    ca: str
    cert: str
    key: str
    expired: str


@pytest.fixture(scope="session")
def papers(tmp_path_factory) -> Papers:
    """An authority, a certificate for localhost and 127.0.0.1, and one that has expired."""
    folder: Path = tmp_path_factory.mktemp("tls")

    def run(*args: str) -> None:
        subprocess.run([str(OPENSSL), *args], cwd=folder, check=True, capture_output=True)

    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    run("req", "-x509", *curve, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=test authority", "-days", "2")
    run("req", *curve, "-keyout", "key.pem", "-out", "req.pem", "-subj", "/CN=localhost")
    (folder / "ext").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    for name, days in (("cert.pem", "2"), ("expired.pem", "-1")):
        subprocess.run([str(OPENSSL), "x509", "-req", "-in", "req.pem", "-CA", "ca.pem", "-CAkey", "ca.key",
                        "-days", days, "-CAcreateserial", "-extfile", "ext", "-out", name],
                       cwd=folder, check=name != "expired.pem", capture_output=True)
    return Papers(*(str(folder / name) for name in ("ca.pem", "cert.pem", "key.pem", "expired.pem")))


Build = Callable[..., Awaitable[House]]


@pytest.fixture
async def house() -> AsyncIterator[Build]:
    """`await house(script=..., limits=..., upstream=...)`; everything is closed, and checked to be, at the end."""
    built: list[House] = []

    async def build(script: Script = answers, limits: Limits | None = None,
                    upstream: UpstreamLimits | None = None, **tls) -> House:
        fake = Fake(script)
        fake.server = await asyncio.start_server(fake.serve, "127.0.0.1", 0, ssl=tls.get("upstream_ssl"))
        fake.port = fake.server.sockets[0].getsockname()[1]
        origin = tls.get("origin") or Origin.parse(f"http://127.0.0.1:{fake.port}")
        pool = Pool(origin if not callable(origin) else origin(fake.port), upstream)
        app = RelayApp(pool)
        server = Server(app, limits, tls.get("ssl"))
        await server.start()
        built.append(House(server, pool, fake, app))
        return built[-1]

    yield build
    for each in built:
        each.server.close()
        await each.pool.close()
        assert each.fake.server is not None
        each.fake.server.close()
        await until(lambda each=each: each.server.connections == 0)
        assert each.server.in_flight == 0 and each.server.held == 0 and each.pool.connections == 0


async def until(condition: Callable[[], bool], timeout: float = 2.0) -> None:
    """Wait for a condition."""
    end = asyncio.get_running_loop().time() + timeout
    while not condition():
        assert asyncio.get_running_loop().time() < end, "the condition never came"
        await asyncio.sleep(0.005)
